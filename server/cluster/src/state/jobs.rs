//! What runs by the clock.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::settings;

/// One job; what it has beside these three is kept as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub cron_expression: String,
    pub enabled: bool,
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

impl Job {
    fn new(cron: &str, enabled: bool, more: &[(&str, Value)]) -> Self {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Self { cron_expression: cron.to_owned(), enabled, more }
    }
}

/// The job that renews the certificates between nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RotationJob {
    pub cron_expression: String,
    pub enabled: bool,
    /// None: 30 days after a certificate was made, whatever its life.
    pub expiry_days_before_rotation: Option<u32>,
}

settings! {
    /// `GET /v1/job_scheduler`. A patch is a JSON object that is merged into it job by job ([`Jobs::merged`]).
    Jobs, JobsFields {
        cert_rotation_job_settings: RotationJob = RotationJob {
            cron_expression: "0 * * * *".to_owned(),
            enabled: true,
            expiry_days_before_rotation: None,
        },
        backup_job_settings: Job = Job::new("*/5 * * * *", true, &[]),
        log_rotation_job_settings: Job = Job::new("*/5 * * * *", true, &[]),
        node_checks_job_settings: Job = Job::new("0 * * * *", true, &[]),
        bdb_usage_report_job_settings: Job =
            Job::new("0 */1 * * *", false, &[("file_retention_days", 365.into())]),
        rotate_ccs_job_settings: Job = Job::new(
            "*/5 * * * *",
            true,
            &[("file_suffix", "5min".into()), ("rotate_max_num", 24.into())],
        ),
    }
}

/// A part of [`Jobs`]: an object of objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobsPatch(pub Value);

impl Jobs {
    /// How many days before its end a certificate of so many days is renewed.
    pub fn days_before_rotation(&self, validity_days: u32) -> u32 {
        self.cert_rotation_job_settings
            .expiry_days_before_rotation
            .unwrap_or_else(|| validity_days.saturating_sub(30).max(1))
    }
}

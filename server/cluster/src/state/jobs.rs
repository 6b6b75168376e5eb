//! What runs by the clock.

use carnelian_tls::internode::{Lifetime, RenewalPolicy};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Cron;
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
    /// `GET /v1/job_scheduler`: renewing certificates, checking nodes and backups; the others are there because clients
    /// expect them, and are off. A patch is a JSON object that is merged into it job by job ([`Jobs::merged`]).
    Jobs, JobsFields {
        cert_rotation_job_settings: RotationJob = RotationJob {
            cron_expression: "0 * * * *".to_owned(),
            enabled: true,
            expiry_days_before_rotation: None,
        },
        backup_job_settings: Job = Job::new("*/5 * * * *", true, &[]),
        log_rotation_job_settings: Job = Job::new("*/5 * * * *", false, &[]),
        node_checks_job_settings: Job = Job::new("0 * * * *", true, &[]),
        bdb_usage_report_job_settings: Job =
            Job::new("0 */1 * * *", false, &[("file_retention_days", 365.into())]),
        rotate_ccs_job_settings: Job = Job::new(
            "*/5 * * * *",
            false,
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
        self.renewal(validity_days).before_days()
    }

    /// When a certificate that lives so many days and ends then is renewed: with the first run of the job from the
    /// moment on which it is due. None if that never comes. Seconds since 1970.
    pub fn renews_at(&self, not_after_s: i64, validity_days: u32) -> Option<i64> {
        let due_s = self.renewal(validity_days).next_rotation_s(not_after_s);
        let at_s = self.rotation_runs()?.next(u64::try_from(due_s).unwrap_or(0))?;
        i64::try_from(at_s).ok()
    }

    /// Whether the job has run, or should have, since a certificate has been due and since it was tried last.
    /// Certificates live so many days. All moments are seconds since 1970.
    pub fn is_due(&self, not_after_s: i64, validity_days: u32, tried_s: i64, now_s: i64) -> bool {
        let has_run = self.rotation_runs().is_some_and(|runs| {
            let unsigned = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
            runs.is_between(unsigned(tried_s), unsigned(now_s))
        });
        let at_s = self.renews_at(not_after_s, validity_days);
        self.cert_rotation_job_settings.enabled && has_run && at_s.is_some_and(|at_s| at_s <= now_s)
    }

    /// When the job that renews certificates runs, whether it is enabled or not.
    pub fn rotation_runs(&self) -> Option<Cron> {
        Cron::parse(&self.cert_rotation_job_settings.cron_expression)
    }

    /// What was asked for was judged with the life that certificates had then; where theirs is another the usual
    /// days count.
    fn renewal(&self, validity_days: u32) -> RenewalPolicy {
        let life = Lifetime::days(validity_days).unwrap_or_default();
        let before = self.cert_rotation_job_settings.expiry_days_before_rotation;
        RenewalPolicy::new(life, before)
            .or_else(|_| RenewalPolicy::new(life, None))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: i64 = 86_400;

    #[test]
    fn certificates_are_renewed_with_the_first_run_from_the_thirtieth_day_on() {
        let mut jobs = Jobs::default();
        for life in [45, 90] {
            let not_after_s = i64::from(life) * DAY_S;
            assert_eq!(jobs.renews_at(not_after_s, life), Some(30 * DAY_S), "{life} days");
            assert_eq!(jobs.renews_at(not_after_s + 1, life), Some(30 * DAY_S + 3600));
        }
        // Sundays at half past three: 1970 began with a Thursday, and the 32nd day is the first one.
        jobs.cert_rotation_job_settings.cron_expression = "30 3 * * 0".to_owned();
        let sunday_s = 31 * DAY_S + 3 * 3600 + 30 * 60;
        assert_eq!(jobs.renews_at(45 * DAY_S, 45), Some(sunday_s));
        jobs.cert_rotation_job_settings.expiry_days_before_rotation = Some(1);
        assert_eq!(jobs.renews_at(45 * DAY_S, 45), Some(sunday_s + 14 * DAY_S));
        // Lives too short for thirty days.
        assert_eq!(Jobs::default().days_before_rotation(30), 10);
        assert_eq!(Jobs::default().renews_at(30 * DAY_S, 30), Some(20 * DAY_S));
    }

    #[test]
    fn a_leaf_is_renewed_on_its_thirtieth_day_by_a_run_of_the_job() {
        let made_s = 1_795_333_669; // 07:47:49
        let run_s = made_s + 30 * DAY_S + 731; // 08:00:00
        for days in [45, 90] {
            let ends = made_s + i64::from(days) * DAY_S;
            let mut jobs = Jobs::default();
            let due = |jobs: &Jobs, tried_s, now_s| jobs.is_due(ends, days, tried_s, now_s);
            assert!(!due(&jobs, 0, made_s + 29 * DAY_S));
            // It is due, and the job has yet to run.
            assert!(!due(&jobs, 0, run_s - 1));
            assert!(due(&jobs, 0, run_s));
            // A run that has failed is followed by the next one.
            assert!(!due(&jobs, run_s, run_s + 3599));
            assert!(due(&jobs, run_s, run_s + 3600));
            // A node that was off comes back after it.
            assert!(due(&jobs, 0, run_s + 5 * DAY_S));
            jobs.cert_rotation_job_settings.enabled = false;
            assert!(!due(&jobs, 0, run_s + 5 * DAY_S));
        }
    }
}

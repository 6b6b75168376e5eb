//! Settings of the cluster, its policy, its jobs and its alerts.

use std::collections::BTreeMap;

use carnelian_tls::unknown_suites;
use serde_json::Value;

use super::names;
use crate::state::{
    AlertPatch, AlertSetting, ClusterPatch, ClusterSettings, Cron, Jobs, JobsPatch, Outcome,
    PolicyPatch, Refused, State, Time,
};

impl State {
    pub(super) fn set_cluster(
        &mut self,
        patch: &ClusterPatch,
        alerts: &BTreeMap<String, AlertPatch>,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let Some(cluster) = &mut self.cluster else { return Ok(Outcome::Unchanged) };
        let before = cluster.alert_settings.clone();
        merge_alerts(&mut cluster.alert_settings, alerts, "there is no such alert")?;
        let settings_changed = cluster.settings.merge(patch);
        if !settings_changed && before == cluster.alert_settings {
            return Ok(Outcome::Unchanged);
        }
        check_cluster(&cluster.settings)?;
        let validity = cluster.settings.internal_cert_validity_days;
        let wants_client_certificates = cluster.settings.mtls_certificate_authentication;
        check_rotation(&self.jobs, validity)?;
        if wants_client_certificates && !self.shared_certificates.contains_key("mtls_trusted_ca") {
            let description = "authentication by certificate needs mtls_trusted_ca";
            return Err(Refused::bad("missing_certificate", description));
        }
        self.tell(at, "cluster_updated", []);
        Ok(Outcome::Done)
    }

    pub(super) fn set_policy(&mut self, patch: &PolicyPatch, at: Time) -> Result<Outcome, Refused> {
        if !self.policy.merge(patch) {
            return Ok(Outcome::Unchanged);
        }
        let policy = &self.policy;
        let percents =
            [policy.redis_migrate_node_threshold_p, policy.redis_provision_node_threshold_p];
        if percents.into_iter().any(|percent| percent > 100) {
            return Err(Refused::bad("invalid_param", "a percentage is at most 100"));
        }
        if !super::databases::known_version(&policy.default_provisioned_redis_version) {
            return Err(Refused::bad("invalid_version", "there is no such version"));
        }
        if self.policy.data_internode_encryption {
            self.check_versions()?;
        }
        if self.policy.rack_aware
            && self.nodes.values().any(|node| node.settings.rack_id.is_empty())
        {
            return Err(Refused::bad("rack_id_required", "some nodes have no rack"));
        }
        self.tell(at, "cluster_updated", []);
        Ok(Outcome::Done)
    }

    pub(super) fn set_jobs(&mut self, patch: &JobsPatch, at: Time) -> Result<Outcome, Refused> {
        let merged = self.jobs.merged(patch)?;
        if merged == self.jobs {
            return Ok(Outcome::Unchanged);
        }
        let runs_here = Jobs {
            cert_rotation_job_settings: merged.cert_rotation_job_settings.clone(),
            node_checks_job_settings: merged.node_checks_job_settings.clone(),
            backup_job_settings: merged.backup_job_settings.clone(),
            ..self.jobs.clone()
        };
        if runs_here != merged {
            let description =
                "only certificate rotation, node checks and backups run by the clock here";
            return Err(Refused::invalid("not_supported", description));
        }
        let validity =
            self.cluster.as_ref().map_or(45, |it| it.settings.internal_cert_validity_days);
        check_rotation(&merged, validity)?;
        self.jobs = merged;
        self.tell(at, "cluster_updated", []);
        Ok(Outcome::Done)
    }
}

fn check_cluster(settings: &ClusterSettings) -> Result<(), Refused> {
    let ports = [settings.cm_port, settings.cnm_http_port, settings.cnm_https_port];
    let twice = (0..ports.len()).any(|place| ports[..place].contains(&ports[place]));
    if twice || ports.into_iter().any(|port| port < 1024) {
        let description = "ports of the interfaces are 1024 to 65535, and all different";
        return Err(Refused::bad("bad_nginx_conf", description));
    }
    let newer = settings.data_cipher_suites_tls_1_3.join(":");
    for (older, newer) in
        [(&settings.control_cipher_suites, ""), (&settings.data_cipher_list, newer.as_str())]
    {
        let wrong = |why: String| Err(Refused::bad("invalid_param", why));
        match unknown_suites(older, newer) {
            Err(error) => return wrong(error.to_string()),
            Ok(unknown) if !unknown.is_empty() => {
                return wrong(format!("{} is no cipher suite here", unknown.join(", ")));
            }
            Ok(_) => {}
        }
    }
    if !(2..=365).contains(&settings.internal_cert_validity_days) {
        return Err(Refused::bad("invalid_param", "internal_cert_validity_days is 2 to 365"));
    }
    let (life, before) =
        (settings.client_ca_validity_days, settings.client_ca_switch_before_expiry_days);
    if !(2..=36_500).contains(&life) || before == 0 || life <= before {
        let description = "client_ca_validity_days is 2 to 36500, and more than \
            client_ca_switch_before_expiry_days, which is at least 1";
        return Err(Refused::bad("invalid_param", description));
    }
    // Clients are to have time to learn of the successor before they are shown what it signs.
    if life - before <= settings.client_ca_successor_after_days {
        let description = "client_ca_successor_after_days has to end before the successor signs";
        return Err(Refused::bad("invalid_param", description));
    }
    if !(8..=256).contains(&settings.password_min_length) {
        return Err(Refused::bad("invalid_param", "password_min_length is 8 to 256"));
    }
    if settings.cm_session_timeout_minutes == 0 {
        return Err(Refused::bad("invalid_param", "cm_session_timeout_minutes is at least 1"));
    }
    if let Some(range) = settings.reserved_ports.iter().find(|it| names::port_range(it).is_none()) {
        return Err(Refused::bad("invalid_param", format!("{range} is no range of ports")));
    }
    if settings.mtls_authorized_subjects.iter().any(|subject| subject.cn.is_empty()) {
        return Err(Refused::bad("invalid_param", "an authorized subject needs a CN"));
    }
    if settings.debuginfo_path.contains('\0') {
        return Err(Refused::bad("bad_debuginfo_path", "that is no path"));
    }
    Ok(())
}

fn check_rotation(jobs: &Jobs, validity_days: u32) -> Result<(), Refused> {
    match jobs.cert_rotation_job_settings.expiry_days_before_rotation {
        Some(days) if !(1..=90).contains(&days) => {
            Err(Refused::bad("invalid_param", "expiry_days_before_rotation is 1 to 90"))
        }
        Some(days) if days >= validity_days => Err(Refused::invalid(
            "invalid_param",
            format!(
                "certificates live {validity_days} days: expiry_days_before_rotation has to be less"
            ),
        )),
        _ => Ok(()),
    }
}

impl Jobs {
    /// With the members that the patch names, job by job.
    pub fn merged(&self, patch: &JobsPatch) -> Result<Self, Refused> {
        let schema = || Refused::schema("an object with an object for each job is expected");
        let Value::Object(patch) = &patch.0 else { return Err(schema()) };
        let mut all = serde_json::to_value(self).map_err(|_| schema())?;
        for (name, job) in patch {
            let job = match job {
                Value::Null => continue,
                Value::Object(job) => job,
                _ => return Err(schema()),
            };
            let Some(Value::Object(merged)) = all.get_mut(name) else {
                return Err(Refused::bad("invalid_param", format!("there is no job {name}")));
            };
            for (field, value) in job {
                let is_cron = || value.as_str().and_then(Cron::parse).is_some();
                if field == "cron_expression" && !is_cron() {
                    let description = format!(
                        "{name}: cron_expression has five fields of crontab, and comes true some day"
                    );
                    return Err(Refused::bad("invalid_param", description));
                }
                merged.insert(field.clone(), value.clone());
            }
        }
        serde_json::from_value(all).map_err(|error| Refused::schema(error.to_string()))
    }
}

pub(super) fn merge_alerts(
    settings: &mut BTreeMap<String, AlertSetting>,
    patches: &BTreeMap<String, AlertPatch>,
    unknown: &str,
) -> Result<(), Refused> {
    for (name, patch) in patches {
        let Some(setting) = settings.get_mut(name) else {
            return Err(Refused::unknown("alert_not_exist", format!("{name}: {unknown}")));
        };
        setting.merge(patch);
        let wrong = setting.threshold().is_some_and(|text| {
            !text.is_empty() && !text.parse::<f64>().is_ok_and(|number| number >= 0.0)
        });
        if wrong {
            let description = format!("{name}: the threshold has to be a number");
            return Err(Refused::invalid("invalid_threshold", description));
        }
    }
    Ok(())
}

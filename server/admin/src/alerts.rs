//! Which alerts are on. What an alert is about is measured when it is asked for, and once in a while by
//! itself; since when it is so is remembered, and a change is told to the cluster's log.

use std::collections::BTreeMap;

use carnelian_cluster::state::{
    AlertSetting, Certificate, Change, Database, ManagedBy, Node, NodeStatus, Severity, State,
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::handlers::certificates::{Rotation, end_of};
use crate::info;
use crate::live::Figures;
use crate::samples::{Samples, Subject};
use crate::time;

/// What an alert is of.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    Cluster,
    Node(u32),
    Database(u32),
}

/// Users that there can be.
const USERS_MAX: f64 = 32_000.0;
const DAY_S: f64 = 86_400.0;
/// Days left from which a warning is an error.
const URGENT_DAYS: f64 = 7.0;

/// What is known of an alert at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    pub on: bool,
    pub urgent: bool,
    /// What was measured.
    pub value: Map<String, Value>,
}

/// Everything that alerts are judged by.
pub struct View<'a> {
    pub state: &'a State,
    pub figures: &'a BTreeMap<u32, Figures>,
    pub samples: &'a Samples,
    /// What was wrong with nodes when the job last looked, by their uids.
    pub failed_checks: &'a BTreeMap<u32, String>,
    pub now_s: i64,
    /// By the letter: without regard to whether rotation is on track.
    pub raw: bool,
}

impl View<'_> {
    pub fn cluster(&self, name: &str, setting: &AlertSetting) -> Finding {
        let state = self.state;
        let threshold = threshold(setting);
        let nodes = state.nodes.len();
        let down = state.nodes.values().filter(|node| node.status == NodeStatus::Down).count();
        match name {
            "cluster_certs_about_to_expire" => {
                let mut names = Vec::new();
                let mut least = f64::INFINITY;
                // What all nodes have in common, and what each has for its own clients.
                let shared = state.shared_certificates.iter();
                let shared = shared.map(|(name, shared)| (name.as_str(), shared.not_after));
                let own = state.certificates.iter();
                let own = own.filter(|it| it.managed_by == ManagedBy::ClientCa);
                for (name, not_after) in
                    shared.chain(own.map(|it| (it.name.as_str(), it.not_after)))
                {
                    let left = self.days_until(not_after.seconds());
                    if threshold.is_some_and(|threshold| left < threshold) {
                        if !names.iter().any(|known| known == name) {
                            names.push(name.to_owned());
                        }
                        least = least.min(left);
                    }
                }
                let value = json!({"certs_about_to_expire": names});
                Finding { urgent: least < URGENT_DAYS, ..found(!names.is_empty(), value) }
            }
            "cluster_ca_cert_about_to_expire" => {
                let ends =
                    state.signing_authority().and_then(|authority| end_of(&authority.certificate));
                let left = ends.map(|at| (at - self.now_s) as f64 / DAY_S);
                let on = left.zip(threshold).is_some_and(|(left, threshold)| left < threshold);
                found(on, json!({"days_left": left.map(f64::floor)}))
            }
            "cluster_users_count_approaches_limit" => {
                let percent = state.users.len() as f64 * 100.0 / USERS_MAX;
                found(above(percent, threshold), json!({"users_count": state.users.len()}))
            }
            "cluster_even_node_count" => {
                found(1 < nodes && nodes.is_multiple_of(2), json!({"node_count": nodes}))
            }
            "cluster_multiple_nodes_down" => found(1 < down, json!({"nodes_down": down})),
            "cluster_too_few_nodes_for_replication" => {
                let replicates = state.databases.values().any(|it| it.settings.replication);
                found(replicates && nodes - down < 2, json!({"node_count": nodes}))
            }
            "cluster_ram_overcommit" => {
                let sizes = state.databases.values().map(|it| {
                    let shards = 1 + it.placement.replicas.len() as u64;
                    it.settings.memory_size.saturating_mul(shards)
                });
                let promised = sizes.fold(0, u64::saturating_add);
                let memory = state.nodes.values().map(|node| node.facts.total_memory);
                let memory = memory.fold(0, u64::saturating_add);
                found(memory < promised, json!({"promised": promised, "total_memory": memory}))
            }
            "cluster_inconsistent_rl_sw" => {
                let mut versions: Vec<_> =
                    state.nodes.values().map(|node| &node.facts.software_version).collect();
                versions.sort();
                versions.dedup();
                found(1 < versions.len(), json!({ "versions": versions }))
            }
            _ => Finding::default(),
        }
    }

    pub fn node(&self, name: &str, setting: &AlertSetting, node: &Node) -> Finding {
        let threshold = threshold(setting);
        let figures = self.figures.get(&node.uid.0);
        let used = |free: u64, size: u64| {
            (0 < size).then(|| 100.0 - free.min(size) as f64 * 100.0 / size as f64)
        };
        let percent = |percent: Option<f64>, name: &str| {
            let on = percent.is_some_and(|percent| above(percent, threshold));
            found(on, Value::Object(Map::from_iter([(name.to_owned(), json!(percent))])))
        };
        match name {
            "node_internal_certs_about_to_expire" => self.certificates(node, threshold),
            "node_failed" => found(node.status == NodeStatus::Down, json!({})),
            "node_checks_error" => {
                let error = self.failed_checks.get(&node.uid.0);
                found(error.is_some(), json!({ "error": error }))
            }
            "node_cpu_utilization" => {
                let idle = self.sampled(Subject::Node(node.uid.0), "cpu_idle");
                percent(idle.map(|idle| (1.0 - idle) * 100.0), "cpu_util")
            }
            "node_net_throughput" => {
                let bytes = |name| self.sampled(Subject::Node(node.uid.0), name);
                let sum = bytes("ingress_bytes").zip(bytes("egress_bytes")).map(|(a, b)| a + b);
                let on = sum.is_some_and(|sum| above(sum, threshold));
                found(on, json!({ "net_throughput": sum }))
            }
            "node_memory" => percent(
                figures.and_then(|it| used(it.available_memory, it.total_memory)),
                "memory_util",
            ),
            "node_ephemeral_storage" => percent(
                figures.and_then(|it| {
                    used(it.ephemeral_storage_free, node.facts.ephemeral_storage_size)
                }),
                "disk_util",
            ),
            "node_persistent_storage" => percent(
                figures.and_then(|it| {
                    used(it.persistent_storage_free, node.facts.persistent_storage_size)
                }),
                "disk_util",
            ),
            _ => Finding::default(),
        }
    }

    /// Certificates between nodes: those that nobody is going to replace in time.
    fn certificates(&self, node: &Node, threshold: Option<f64>) -> Finding {
        let Some(threshold) = threshold else { return Finding::default() };
        let internal = |certificate: &&Certificate| {
            certificate.node_uid == node.uid && certificate.name.is_internal()
        };
        let mut names = Vec::new();
        let (mut least, mut on_track) = (f64::INFINITY, true);
        for certificate in self.state.certificates.iter().filter(internal) {
            let rotation = Rotation::of(self.state, certificate, self.now_s);
            on_track &= rotation.is_on_track();
            least = least.min(rotation.days_left());
            let alarming = if self.raw {
                rotation.is_short(threshold)
            } else {
                rotation.is_alarming(threshold)
            };
            if alarming {
                names.push(certificate.name.as_str());
            }
        }
        let on = !names.is_empty();
        let value = json!({
            "certs_about_to_expire": names,
            "days_left": least.is_finite().then_some(least),
            "rotation_on_track": on_track,
        });
        Finding { urgent: on && least < URGENT_DAYS, ..found(on, value) }
    }

    pub fn database(&self, name: &str, setting: &AlertSetting, database: &Database) -> Finding {
        let threshold = threshold(setting);
        if name == "bdb_backup_delayed" {
            return self.backup(database, threshold);
        }
        let text = self
            .figures
            .get(&database.placement.primary.0)
            .and_then(|figures| figures.info.get(&database.uid.0));
        let Some(fields) = text.map(|text| info::fields(text)) else { return Finding::default() };
        let operations = info::number(&fields, "instantaneous_ops_per_sec");
        match name {
            "bdb_size" => {
                let limit = database.settings.memory_size as f64;
                let used = info::number(&fields, "used_memory");
                let percent = if 0.0 < limit { used * 100.0 / limit } else { 0.0 };
                found(above(percent, threshold), json!({"memory_util": percent}))
            }
            "bdb_high_throughput" => {
                found(above(operations, threshold), json!({"throughput": operations}))
            }
            "bdb_high_latency" => {
                let latency = self.sampled(Subject::Database(database.uid.0), "avg_latency");
                let on = latency.is_some_and(|latency| above(latency, threshold));
                found(on, json!({ "latency": latency }))
            }
            "bdb_low_throughput" => {
                let on = threshold.is_some_and(|threshold| operations < threshold);
                found(on, json!({"throughput": operations}))
            }
            _ => Finding::default(),
        }
    }

    /// A backup is due an interval after the last one that succeeded, or after they were asked for.
    fn backup(&self, database: &Database, threshold: Option<f64>) -> Finding {
        let settings = &database.settings;
        if !settings.backup {
            return Finding::default();
        }
        let last = database.transfers.backup.succeeded.unwrap_or(database.last_changed);
        let due_s = last.seconds().saturating_add(settings.backup_interval);
        let late_min = (self.now_s as f64 - due_s as f64).max(0.0) / 60.0;
        found(above(late_min, threshold), json!({"backup_delay_minutes": late_min.floor()}))
    }

    /// The mean over the last ten seconds.
    fn sampled(&self, subject: Subject, name: &str) -> Option<f64> {
        self.samples.last(subject, "10sec")?.metrics.get(name).copied()
    }

    fn days_until(&self, unix_s: u64) -> f64 {
        (i64::try_from(unix_s).unwrap_or(i64::MAX) - self.now_s) as f64 / DAY_S
    }
}

fn found(on: bool, value: Value) -> Finding {
    let value = match value {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    Finding { on, urgent: false, value }
}

fn threshold(setting: &AlertSetting) -> Option<f64> {
    setting.threshold()?.trim().parse().ok()
}

fn above(value: f64, threshold: Option<f64>) -> bool {
    threshold.is_some_and(|threshold| threshold < value)
}

/// Since when each alert is as it is.
#[derive(Default)]
pub struct Book(Mutex<BTreeMap<(Scope, String), Mark>>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Mark {
    on: bool,
    urgent: bool,
    since_s: i64,
}

impl Book {
    /// The state of an alert as it is on the wire.
    pub fn to_wire(
        &self,
        scope: Scope,
        name: &str,
        setting: &AlertSetting,
        finding: Finding,
        ignores_settings: bool,
    ) -> Value {
        let enabled = setting.enabled();
        let on = finding.on && (enabled || ignores_settings);
        let since_s = self.0.lock().get(&(scope, name.to_owned())).map(|mark| mark.since_s);
        let severity = match (on, finding.urgent) {
            (false, _) => Severity::Info,
            (true, false) => Severity::Warning,
            (true, true) => Severity::Error,
        };
        let mut wire = json!({"enabled": enabled, "state": on, "severity": severity});
        let mut value = finding.value;
        value.insert("state".into(), json!(on));
        if let Some(threshold) = setting.threshold() {
            wire["threshold"] = json!(threshold);
            let member =
                if matches!(scope, Scope::Database(_)) { "threshold" } else { "global_threshold" };
            value.insert(member.into(), json!(threshold));
        }
        wire["change_time"] = json!(time::format(since_s.unwrap_or(0)));
        wire["change_value"] = Value::Object(value);
        wire
    }

    /// Notes how alerts are now. Returns what there is to tell: one change for each that went on or off,
    /// or became urgent.
    pub fn note(
        &self,
        now: impl IntoIterator<Item = (Scope, String, Finding)>,
        now_s: i64,
    ) -> Vec<Change> {
        let mut marks = self.0.lock();
        let mut news = Vec::new();
        for (scope, name, finding) in now {
            let key = (scope, name);
            let before = marks.get(&key).copied();
            let is_same =
                before.is_some_and(|mark| (mark.on, mark.urgent) == (finding.on, finding.urgent));
            // An alert that was never on has nothing to tell.
            if is_same || before.is_none() && !finding.on {
                continue;
            }
            let mark = Mark { on: finding.on, urgent: finding.urgent, since_s: now_s };
            news.push(told(&key, finding));
            marks.insert(key, mark);
        }
        news
    }
}

fn told((scope, name): &(Scope, String), finding: Finding) -> Change {
    let mut fields = finding.value;
    fields.insert("state".into(), json!(finding.on));
    match scope {
        Scope::Cluster => {}
        Scope::Node(uid) => drop(fields.insert("node_uid".into(), json!(uid.to_string()))),
        Scope::Database(uid) => drop(fields.insert("bdb_uid".into(), json!(uid.to_string()))),
    }
    let severity = match (finding.on, finding.urgent) {
        (true, true) => Severity::Error,
        (true, false) => Severity::Warning,
        (false, _) => Severity::Info,
    };
    Change::Note { kind: name.clone(), severity, fields }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(on: bool, urgent: bool) -> Finding {
        Finding { on, urgent, value: Map::new() }
    }

    #[test]
    fn a_change_is_told_once() {
        let book = Book::default();
        let alert = |on, urgent| [(Scope::Node(1), "node_failed".to_owned(), finding(on, urgent))];
        assert!(book.note(alert(false, false), 1).is_empty());
        assert_eq!(book.note(alert(true, false), 2).len(), 1);
        assert!(book.note(alert(true, false), 3).is_empty());
        assert_eq!(book.note(alert(true, true), 4).len(), 1);
        assert_eq!(book.note(alert(false, false), 5).len(), 1);
        let setting = AlertSetting::Switch(true);
        let name = "node_failed";
        let wire = book.to_wire(Scope::Node(1), name, &setting, finding(false, false), false);
        assert_eq!(wire["change_time"], json!("1970-01-01T00:00:05Z"));
        assert_eq!(wire["severity"], json!("INFO"));
    }

    #[test]
    fn a_disabled_alert_is_off_unless_settings_are_ignored() {
        let book = Book::default();
        let setting = AlertSetting::Level { enabled: false, threshold: "45".into() };
        let state =
            |ignores| book.to_wire(Scope::Cluster, "x", &setting, finding(true, false), ignores);
        assert_eq!(state(false)["state"], json!(false));
        assert_eq!(state(true)["state"], json!(true));
        assert_eq!(state(true)["threshold"], json!("45"));
        assert_eq!(state(true)["change_value"]["global_threshold"], json!("45"));
    }

    #[test]
    fn the_cluster_counts_its_nodes() {
        let state = State::default();
        let figures = BTreeMap::new();
        let (samples, failed_checks) = (Samples::default(), BTreeMap::new());
        let view = View {
            state: &state,
            figures: &figures,
            samples: &samples,
            failed_checks: &failed_checks,
            now_s: 0,
            raw: false,
        };
        let on = |name: &str| view.cluster(name, &AlertSetting::Switch(true)).on;
        assert!(!on("cluster_ram_overcommit"));
        assert!(!on("cluster_even_node_count"));
        assert!(!on("cluster_multiple_nodes_down"));
        assert!(!on("no_such_alert"));
    }
}

//! Figures over time: one sample a second, and means of them over longer stretches.

use std::collections::{BTreeMap, VecDeque};

use carnelian_cluster::state::State;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::handlers::shards;
use crate::info::{fields, number, sum_of_parts};
use crate::live::Figures;
use crate::time;

/// The stretches that samples are kept of: name, seconds, how many.
pub const INTERVALS: [(&str, i64, usize); 7] = [
    ("1sec", 1, 10),
    ("10sec", 10, 30),
    ("5min", 300, 12),
    ("15min", 900, 96),
    ("1hour", 3600, 168),
    ("12hour", 43_200, 62),
    ("1week", 604_800, 53),
];

/// What figures are of.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    Cluster,
    Node(u32),
    Database(u32),
    Shard(u32),
}

type Metrics = BTreeMap<&'static str, f64>;

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub from_s: i64,
    pub to_s: i64,
    pub metrics: Metrics,
}

impl Sample {
    pub fn to_wire(&self, interval: &str, wanted: Option<&str>) -> Value {
        let mut wire = Map::new();
        wire.insert("interval".into(), json!(interval));
        wire.insert("stime".into(), json!(time::format(self.from_s)));
        wire.insert("etime".into(), json!(time::format(self.to_s)));
        let wanted: Option<Vec<_>> = wanted.map(|names| names.split(',').collect());
        for (name, value) in &self.metrics {
            if wanted.as_ref().is_none_or(|wanted| wanted.contains(name)) {
                wire.insert((*name).to_owned(), json!(value));
            }
        }
        Value::Object(wire)
    }
}

#[derive(Default)]
pub struct Samples(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Counters of the last look, to make rates of.
    last: BTreeMap<Subject, (i64, Metrics)>,
    series: BTreeMap<Subject, Series>,
}

/// The samples of one subject, by interval.
#[derive(Default)]
struct Series([Ring; INTERVALS.len()]);

#[derive(Default)]
struct Ring {
    kept: VecDeque<Sample>,
    /// What the next sample is to be the mean of.
    open: Option<Open>,
}

struct Open {
    from_s: i64,
    sums: Metrics,
    counts: BTreeMap<&'static str, u32>,
}

impl Samples {
    /// Takes in what the nodes said at one moment. Who does not answer has no sample.
    pub fn take(&self, state: &State, figures: &BTreeMap<u32, Figures>, now_s: i64) {
        let mut inner = self.0.lock();
        let mut cluster = Metrics::new();
        let mut databases: BTreeMap<u32, Metrics> = BTreeMap::new();
        for (node, figures) in figures {
            let mut of_node = Metrics::new();
            for (database, text) in &figures.info {
                let place = state
                    .databases
                    .get(&(*database).into())
                    .and_then(|database| shards::of(database).find(|shard| shard.node.0 == *node));
                let Some(shard) = place else { continue };
                let subject = Subject::Shard(shard.uid.0);
                let Some(metrics) = inner.shard(subject, text, now_s) else { continue };
                for name in ["conns", "egress_bytes", "ingress_bytes", "total_req"] {
                    let value = metrics.get(name).copied().unwrap_or(0.0);
                    *of_node.entry(name).or_default() += value;
                }
                if shard.is_primary {
                    databases.insert(*database, metrics.clone());
                }
                inner.push(subject, &metrics, now_s);
            }
            inner.node(*node, figures, &mut of_node, now_s);
            for (name, value) in &of_node {
                *cluster.entry(name).or_default() += value;
            }
            inner.push(Subject::Node(*node), &of_node, now_s);
        }
        for (database, metrics) in databases {
            inner.push(Subject::Database(database), &metrics, now_s);
        }
        if !figures.is_empty() {
            // Shares of a processor are not to be added up.
            for name in ["cpu_user", "cpu_system", "cpu_idle"] {
                if let Some(value) = cluster.get_mut(name) {
                    *value /= figures.len() as f64;
                }
            }
            inner.push(Subject::Cluster, &cluster, now_s);
        }
        inner.forget(state);
    }

    /// The newest sample of an interval. Before the first is complete there may be none.
    pub fn last(&self, subject: Subject, interval: &str) -> Option<Sample> {
        let place = INTERVALS.iter().position(|(name, ..)| *name == interval)?;
        self.0.lock().series.get(&subject)?.0[place].kept.back().cloned()
    }

    /// Samples of one interval, or of all, oldest first.
    pub fn all(&self, subject: Subject, interval: Option<&str>) -> Vec<(&'static str, Sample)> {
        let inner = self.0.lock();
        let Some(series) = inner.series.get(&subject) else { return Vec::new() };
        let rings = INTERVALS.iter().zip(&series.0);
        rings
            .filter(|((name, ..), _)| interval.is_none_or(|wanted| wanted == *name))
            .flat_map(|((name, ..), ring)| ring.kept.iter().map(|sample| (*name, sample.clone())))
            .collect()
    }
}

impl Inner {
    /// The metrics of a shard, by its INFO. None at the first look, as rates need two.
    fn shard(&mut self, subject: Subject, text: &str, now_s: i64) -> Option<Metrics> {
        let fields = fields(text);
        let counters: Metrics = COUNTERS
            .iter()
            .map(|(metric, field)| (*metric, number(&fields, field)))
            .chain([
                ("calls", sum_of_calls(&fields, "calls")),
                ("microseconds", sum_of_calls(&fields, "usec")),
            ])
            .collect();
        let mut rates = self.rates(subject, counters, now_s)?;
        let calls = rates.remove("calls").unwrap_or(0.0);
        let microseconds = rates.remove("microseconds").unwrap_or(0.0);
        if 0.0 < calls {
            rates.insert("avg_latency", microseconds / calls);
        }
        let levels = LEVELS.iter().filter(|(_, field)| fields.contains_key(*field));
        rates.extend(levels.map(|(metric, field)| (*metric, number(&fields, field))));
        rates.insert("no_of_keys", sum_of_parts(&fields, "db", "keys"));
        rates.insert("no_of_expires", sum_of_parts(&fields, "db", "expires"));
        Some(rates)
    }

    fn node(&mut self, node: u32, figures: &Figures, metrics: &mut Metrics, now_s: i64) {
        metrics.insert("free_memory", figures.free_memory as f64);
        metrics.insert("available_memory", figures.available_memory as f64);
        let ephemeral = figures.ephemeral_storage_free as f64;
        let persistent = figures.persistent_storage_free as f64;
        metrics.insert("ephemeral_storage_free", ephemeral);
        metrics.insert("ephemeral_storage_avail", ephemeral);
        metrics.insert("persistent_storage_free", persistent);
        metrics.insert("persistent_storage_avail", persistent);
        let times = Metrics::from([
            ("cpu_user", figures.cpu_user_s),
            ("cpu_system", figures.cpu_system_s),
            ("cpu_idle", figures.cpu_idle_s),
        ]);
        if let Some(rates) = self.rates(Subject::Node(node), times, now_s) {
            let total: f64 = rates.values().sum();
            if 0.0 < total {
                metrics.extend(rates.into_iter().map(|(name, value)| (name, value / total)));
            }
        }
    }

    /// Growth a second since the last look. A counter that shrank began anew.
    fn rates(&mut self, subject: Subject, counters: Metrics, now_s: i64) -> Option<Metrics> {
        let (then_s, before) = self.last.insert(subject, (now_s, counters.clone()))?;
        let seconds = (now_s - then_s) as f64;
        if seconds < 1.0 {
            return None;
        }
        let rate = |(name, value): (&'static str, f64)| {
            let grown = value - before.get(name).copied().unwrap_or(0.0);
            (name, if grown < 0.0 { value } else { grown } / seconds)
        };
        Some(counters.into_iter().map(rate).collect())
    }

    fn push(&mut self, subject: Subject, metrics: &Metrics, now_s: i64) {
        let series = self.series.entry(subject).or_default();
        for ((_, length_s, keep), ring) in INTERVALS.iter().zip(&mut series.0) {
            ring.push(metrics, now_s, *length_s, *keep);
        }
    }

    /// Forgets what is gone.
    fn forget(&mut self, state: &State) {
        let is_there = |subject: &Subject| match *subject {
            Subject::Cluster => true,
            Subject::Node(uid) => state.nodes.contains_key(&uid.into()),
            Subject::Database(uid) => state.databases.contains_key(&uid.into()),
            Subject::Shard(uid) => shards::all(state).any(|shard| shard.uid.0 == uid),
        };
        self.series.retain(|subject, _| is_there(subject));
        self.last.retain(|subject, _| is_there(subject));
    }
}

impl Ring {
    fn push(&mut self, metrics: &Metrics, now_s: i64, length_s: i64, keep: usize) {
        let open = self.open.get_or_insert_with(|| Open {
            from_s: now_s - 1,
            sums: Metrics::new(),
            counts: BTreeMap::new(),
        });
        for (name, value) in metrics {
            *open.sums.entry(name).or_default() += value;
            *open.counts.entry(name).or_default() += 1;
        }
        if now_s - open.from_s < length_s {
            return;
        }
        let Some(open) = self.open.take() else { return };
        let mean = |(name, sum): (&'static str, f64)| {
            (name, sum / f64::from(open.counts.get(name).copied().unwrap_or(1)))
        };
        let metrics = open.sums.into_iter().map(mean).collect();
        if keep <= self.kept.len() {
            self.kept.pop_front();
        }
        self.kept.push_back(Sample { from_s: open.from_s, to_s: now_s, metrics });
    }
}

/// Metrics that are the growth of a field of INFO.
const COUNTERS: [(&str, &str); 13] = [
    ("egress_bytes", "total_net_output_bytes"),
    ("ingress_bytes", "total_net_input_bytes"),
    ("evicted_objects", "evicted_keys"),
    ("expired_objects", "expired_keys"),
    ("read_hits", "keyspace_hits"),
    ("read_misses", "keyspace_misses"),
    ("total_req", "total_commands_processed"),
    ("total_res", "total_commands_processed"),
    ("total_connections_received", "total_connections_received"),
    ("shard_cpu_user", "used_cpu_user"),
    ("shard_cpu_system", "used_cpu_sys"),
    ("main_thread_cpu_user", "used_cpu_user_main_thread"),
    ("main_thread_cpu_system", "used_cpu_sys_main_thread"),
];

/// Metrics that are a field of INFO as it is.
const LEVELS: [(&str, &str); 16] = [
    ("conns", "connected_clients"),
    ("connected_clients", "connected_clients"),
    ("blocked_clients", "blocked_clients"),
    ("instantaneous_ops_per_sec", "instantaneous_ops_per_sec"),
    ("mem_frag_ratio", "mem_fragmentation_ratio"),
    ("mem_size_lua", "used_memory_lua"),
    ("mem_not_counted_for_evict", "mem_not_counted_for_evict"),
    ("used_memory", "used_memory"),
    ("used_memory_peak", "used_memory_peak"),
    ("used_memory_rss", "used_memory_rss"),
    ("pubsub_channels", "pubsub_channels"),
    ("pubsub_patterns", "pubsub_patterns"),
    ("rdb_changes_since_last_save", "rdb_changes_since_last_save"),
    ("last_save_time", "rdb_last_save_time"),
    ("aof_rewrite_inprog", "aof_rewrite_in_progress"),
    ("connected_slaves", "connected_slaves"),
];

/// A part of all `cmdstat_` lines.
fn sum_of_calls(fields: &BTreeMap<String, String>, part: &str) -> f64 {
    let lines = fields.iter().filter(|(name, _)| name.starts_with("cmdstat_"));
    let pairs = lines.flat_map(|(_, value)| value.split(',')).filter_map(|it| it.split_once('='));
    pairs.filter(|(name, _)| *name == part).filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_two_looks_and_survive_a_restart() {
        let mut inner = Inner::default();
        let text = |commands: u32| {
            format!(
                "total_commands_processed:{commands}\r\nconnected_clients:3\r\ndb0:keys=5,expires=2\r\n\
                 cmdstat_get:calls={commands},usec={}\r\n",
                commands * 4
            )
        };
        let subject = Subject::Shard(1);
        assert_eq!(inner.shard(subject, &text(100), 10), None);
        let metrics = inner.shard(subject, &text(300), 12).unwrap();
        assert_eq!(metrics["total_req"], 100.0);
        assert_eq!(metrics["avg_latency"], 4.0);
        assert_eq!(metrics["no_of_keys"], 5.0);
        assert_eq!(metrics["conns"], 3.0);
        assert!(!metrics.contains_key("used_memory"), "what was not said is not claimed");
        let metrics = inner.shard(subject, &text(50), 13).unwrap();
        assert_eq!(metrics["total_req"], 50.0);
        let metrics = inner.shard(subject, &text(50), 14).unwrap();
        assert!(!metrics.contains_key("avg_latency"), "only with traffic");
    }

    #[test]
    fn longer_intervals_hold_means_and_old_samples_go() {
        let mut inner = Inner::default();
        for second in 1..=100 {
            inner.push(
                Subject::Cluster,
                &Metrics::from([("conns", f64::from(second))]),
                second.into(),
            );
        }
        let samples = Samples(Mutex::new(inner));
        let seconds = samples.all(Subject::Cluster, Some("1sec"));
        assert_eq!(seconds.len(), 10);
        assert_eq!(seconds[9].1.metrics["conns"], 100.0);
        let tens = samples.all(Subject::Cluster, Some("10sec"));
        assert_eq!(tens.len(), 10);
        assert_eq!(tens[0].1.metrics["conns"], 5.5);
        assert_eq!((tens[0].1.from_s, tens[0].1.to_s), (0, 10));
        assert!(samples.last(Subject::Cluster, "5min").is_none());
        assert_eq!(samples.all(Subject::Cluster, None).len(), 20);
    }
}

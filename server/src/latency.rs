//! LATENCY: the latest times at which something took longer than `latency-monitor-threshold`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use parking_lot::Mutex;

/// Seconds for which times are kept of one kind of event.
const SAMPLES: usize = 160;

/// One second's longest duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Seconds since 1970.
    pub time_s: u64,
    pub latency_ms: u64,
}

/// The times of one kind of event.
#[derive(Clone, Default)]
pub struct Series {
    samples: VecDeque<Sample>,
    pub worst_ms: u64,
}

impl Series {
    fn add(&mut self, time_s: u64, latency_ms: u64) {
        self.worst_ms = self.worst_ms.max(latency_ms);
        if let Some(last) = self.samples.back_mut().filter(|last| last.time_s == time_s) {
            last.latency_ms = last.latency_ms.max(latency_ms);
            return;
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { time_s, latency_ms });
    }

    /// Oldest first.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = Sample> {
        self.samples.iter().copied()
    }

    pub fn latest(&self) -> Option<Sample> {
        self.samples.back().copied()
    }
}

/// The events of one database, by their kinds.
#[derive(Default)]
pub struct Latency(Mutex<BTreeMap<&'static str, Series>>);

impl Latency {
    #[cold]
    pub fn add(&self, event: &'static str, now_ms: u64, duration_ns: u64) {
        let latency_ms = duration_ns / 1_000_000;
        self.0.lock().entry(event).or_default().add(now_ms / 1000, latency_ms);
    }

    pub fn series(&self, event: &[u8]) -> Option<(&'static str, Series)> {
        let all = self.0.lock();
        let found = all.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(event));
        found.map(|(name, series)| (*name, series.clone()))
    }

    pub fn all(&self) -> Vec<(&'static str, Series)> {
        self.0.lock().iter().map(|(name, series)| (*name, series.clone())).collect()
    }

    /// Forgets these kinds of events, or all. How many there were.
    pub fn reset(&self, events: &[&[u8]]) -> usize {
        let mut all = self.0.lock();
        let before = all.len();
        all.retain(|name, _| {
            let is_meant = |event: &&[u8]| name.as_bytes().eq_ignore_ascii_case(event);
            !events.is_empty() && !events.iter().any(is_meant)
        });
        before - all.len()
    }

    /// What was seen, and what may help, in prose.
    pub fn report(&self, threshold_ms: u64, slow_us: i64, now_ms: u64) -> String {
        let all = self.all();
        if all.is_empty() && threshold_ms == 0 {
            return "Latency monitoring is disabled. It is enabled by \"CONFIG SET \
                    latency-monitor-threshold <milliseconds>\".\n"
                .to_owned();
        }
        if all.is_empty() {
            return "No latency spike was observed so far.\n".to_owned();
        }
        let mut text = "Latency spikes were observed:\n\n".to_owned();
        let mut advice: Vec<String> = Vec::new();
        for (index, (event, series)) in all.iter().enumerate() {
            let count = series.samples.len().max(1) as u64;
            let mean = series.samples().map(|it| it.latency_ms).sum::<u64>() / count;
            let deviation =
                series.samples().map(|it| it.latency_ms.abs_diff(mean)).sum::<u64>() / count;
            let first_s = series.samples.front().map_or(0, |it| it.time_s);
            let period_s = (now_ms / 1000).saturating_sub(first_s).max(1) as f64 / count as f64;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{}. {event}: {count} latency spikes (average {mean}ms, mean deviation \
                 {deviation}ms, period {period_s:.2} sec). Worst all time event {}ms.",
                index + 1,
                series.worst_ms
            );
            match *event {
                "command" => {
                    let threshold_us = threshold_ms.saturating_mul(1000);
                    if slow_us < 0 || threshold_us < slow_us as u64 {
                        advice.push(format!(
                            "The slow log leaves these commands out: 'CONFIG SET \
                             slowlog-log-slower-than {threshold_us}' has it record them."
                        ));
                    }
                    advice.push("SLOWLOG GET tells which commands take long.".to_owned());
                    advice.push(
                        "Commands on very large values take long: several smaller ones may serve \
                         as well."
                            .to_owned(),
                    );
                }
                "fast-command" => advice.push(
                    "Commands that cannot take long did: the machine is overloaded, or does not \
                     give this process its time."
                        .to_owned(),
                ),
                "expire-cycle" => advice.push(
                    "Many keys expire at the same time: spreading their expiry helps.".to_owned(),
                ),
                "eviction-cycle" | "eviction-del" => advice.push(
                    "Much had to be evicted at once: a sudden change of maxmemory, or very large \
                     values, do that."
                        .to_owned(),
                ),
                _ => {}
            }
        }
        if !advice.is_empty() {
            text.push_str("\nWhat may help:\n\n");
            for line in advice {
                let _ = writeln!(text, "- {line}");
            }
        }
        text
    }
}

/// A graph in characters, of 80 columns at most: each sample a column, its age below it.
pub fn graph(event: &str, series: &Series, now_ms: u64) -> String {
    const COLUMNS: usize = 80;
    const ROWS: u64 = 4;

    let samples: Vec<Sample> = series.samples().collect();
    let high = samples.iter().map(|it| it.latency_ms).max().unwrap_or(0);
    let low = samples.iter().map(|it| it.latency_ms).min().unwrap_or(0);
    let worst = series.worst_ms;
    let mut text = format!("{event} - high {high} ms, low {low} ms (all time high {worst} ms)\n");
    text.push_str(&"-".repeat(COLUMNS));
    text.push('\n');
    for samples in samples.chunks(COLUMNS) {
        let span = (high - low).max(1);
        for row in (0..ROWS).rev() {
            let line: String = samples
                .iter()
                .map(|it| {
                    // Quarters of the span, each row split in two.
                    let half_rows = ((it.latency_ms - low) * (2 * ROWS - 1) / span) as i64;
                    match half_rows - 2 * row as i64 {
                        0 => '_',
                        1 => 'o',
                        2.. => '#',
                        _ => ' ',
                    }
                })
                .collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
        let labels: Vec<String> =
            samples.iter().map(|it| age((now_ms / 1000).saturating_sub(it.time_s))).collect();
        for place in 0..labels.iter().map(String::len).max().unwrap_or(0) {
            let letter = |label: &String| label.as_bytes().get(place).map_or(' ', |it| *it as char);
            let line: String = labels.iter().map(letter).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_sample_and_old_ones_go() {
        let latency = Latency::default();
        latency.add("command", 1000, 5_000_000);
        latency.add("command", 1500, 9_000_000);
        latency.add("command", 1900, 2_000_000);
        let (_, series) = latency.series(b"COMMAND").unwrap();
        assert_eq!(series.samples().collect::<Vec<_>>(), [Sample { time_s: 1, latency_ms: 9 }]);
        for second in 2..300 {
            latency.add("command", second * 1000, second * 1_000_000);
        }
        let (_, series) = latency.series(b"command").unwrap();
        assert_eq!((series.samples().len(), series.worst_ms), (SAMPLES, 299));
        assert_eq!(series.latest(), Some(Sample { time_s: 299, latency_ms: 299 }));
        let drawn = graph("command", &series, 300_000);
        assert!(drawn.starts_with("command - high 299 ms, low 140 ms (all time high 299 ms)\n---"));
        assert!(latency.report(1, 10_000, 300_000).contains("1. command: 160 latency spikes"));
        assert_eq!((latency.reset(&[b"other"]), latency.reset(&[])), (0, 1));
        assert!(latency.report(0, 0, 0).starts_with("Latency monitoring is disabled"));
    }
}

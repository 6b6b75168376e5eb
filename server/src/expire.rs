//! Active expiry: each reactor sweeps its share of the segments a little at a time.
//!
//! A pass over a table with nothing left to remove costs little and comes round slowly; where many
//! keys turn out to be due, the sweep stays until they are few, within its share of the time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_keyspace::{ExpireReport, SEGMENTS};
use carnelian_structs::table::Cursor;

use crate::blocking;
use crate::database::Database;
use crate::dispatch::{self, free};
use crate::pubsub;
use crate::session::Worker;

/// Buckets swept under one lock.
const BUCKETS: usize = 32;
/// Hashes with due fields handled under one lock.
const HASHES: usize = 16;

/// `active-expire-effort`: how hard to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// The longest one call may take, so that no client waits for it noticeably.
    slice_ns: u64,
    /// Below this share of due keys among those looked at a table is left for later.
    few_percent: usize,
}

impl Effort {
    /// From 1 to 10.
    pub fn new(effort: u32) -> Self {
        let more = effort.clamp(1, 10) - 1;
        Self { slice_ns: 1_000_000 + u64::from(more) * 250_000, few_percent: 10 - more as usize }
    }
}

/// Where a reactor's sweep of one database stands.
#[derive(Debug, Default)]
pub struct Sweep {
    /// The segment to go on with, counted among this reactor's own.
    segment: usize,
    /// Where each table was left, by segment and logical database.
    cursors: Vec<Vec<Cursor>>,
}

/// Sweeps for at most a slice of time. Whether there is much left to do.
pub fn sweep(worker: &mut Worker, database: &Arc<Database>, sweep: &mut Sweep) -> bool {
    if worker.reactor == 0 && database.replication.is_replica() {
        database.replication.own_keys.tick(worker, database);
    }
    let now_ms = worker.clock.now_ms();
    // For a script that runs for long the time stands still.
    if !database.active_expiry.load(Ordering::Relaxed)
        || database.replication.is_replica()
        || database.keyspace.is_busy()
        || database.loading.is_on()
        || database.pause.now(now_ms, &database.attention).is_some()
    {
        return false;
    }
    let begin_ns = worker.clock.elapsed_ns();
    let reactors = worker.server.mailboxes.len();
    let mine = SEGMENTS.div_ceil(reactors);
    let settings = database.settings.load();
    let listening = pubsub::listening(database, &settings);
    let lazy_expire = settings.lazy_expire;
    let Effort { slice_ns, few_percent } = settings.expire_effort;
    let note = |spent_ns: u64| {
        if settings.latency_ns <= spent_ns {
            database.latency.add("expire-cycle", now_ms, spent_ns);
        }
    };
    sweep.cursors.resize_with(SEGMENTS, Vec::new);
    for _ in 0..mine {
        let segment = (sweep.segment * reactors + worker.reactor) % SEGMENTS;
        sweep.segment = (sweep.segment + 1) % mine;
        let cursors = &mut sweep.cursors[segment];
        loop {
            let mut report = ExpireReport::default();
            report.changes.watch_ahead(&database.waiters.interest);
            report.changes.listening = listening;
            // Somebody may begin to follow until the segment is locked.
            report.changes.following = true;
            let now_ms = worker.clock.now_ms();
            let ready = &mut worker.scratch.ready;
            database.keyspace.expire_some(
                segment,
                cursors,
                BUCKETS,
                HASHES,
                now_ms,
                &mut report,
                |changes| {
                    dispatch::hear(database, changes, ready);
                    dispatch::log_departures(database, changes, lazy_expire);
                },
            );
            let many = report.sampled * few_percent < report.expired * 100;
            book(worker, database, report);
            let spent_ns = worker.clock.elapsed_ns().saturating_sub(begin_ns);
            if slice_ns <= spent_ns {
                let counters = worker.counters(database);
                counters.sweep_nanoseconds.add(spent_ns);
                counters.sweeps_cut.add(1);
                note(spent_ns);
                return many;
            }
            if !many {
                break;
            }
        }
    }
    let spent_ns = worker.clock.elapsed_ns().saturating_sub(begin_ns);
    worker.counters(database).sweep_nanoseconds.add(spent_ns);
    note(spent_ns);
    false
}

fn book(worker: &mut Worker, database: &Arc<Database>, mut report: ExpireReport) {
    worker.invalidations.note(database, &mut report.changes, 0);
    let counters = worker.counters(database);
    counters.sweep_seen.add(report.sampled as u64);
    counters.sweep_removed.add(report.expired as u64);
    if report.expired != 0 || report.changes.expired_fields != 0 {
        counters.expired_keys.add(report.expired as u64);
        counters.expired_fields.add(report.changes.expired_fields);
    }
    pubsub::notify(worker, database, None, &report.changes.events);
    free(worker, report.dropped);
    if !worker.scratch.ready.is_empty() {
        blocking::serve(worker, database);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_effort_looks_for_longer_and_leaves_less() {
        assert_eq!(Effort::new(1), Effort { slice_ns: 1_000_000, few_percent: 10 });
        assert_eq!(Effort::new(10), Effort { slice_ns: 3_250_000, few_percent: 1 });
    }
}

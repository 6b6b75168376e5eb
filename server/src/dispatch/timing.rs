//! How long commands take and how much they say, and the logs of those that are notable for it.

use std::cell::Cell;
use std::ops::Range;

use carnelian_commands::{Call, DataCommand, Effect, Flags, Scope, Wait};
use carnelian_keyspace::Changes;
use smallvec::SmallVec;

use crate::clients::ClientShared;
use crate::clock::Clock;
use crate::database::{Counters, Database};
use crate::effects::Unit;
use crate::registry::Entry;
use crate::replication::own_keys;
use crate::session::{Session, Worker};
use crate::settings::Settings;

/// One in so many runs of cheap commands is timed.
const SAMPLED: u64 = 16;

/// One run of commands: who ran, and how long it took.
///
/// Reading the clock costs as much as a small command. So commands that are never slow share the
/// time between two readings equally, and that only in one run of `SAMPLED`, which counts for all.
/// All others are timed one by one, and so is everything while `slowlog-log-slower-than` asks for
/// less than `FINE_NS`.
pub struct Run<'r> {
    clock: &'r Clock,
    overflowed: &'r Cell<bool>,
    counters: &'r Counters,
    database: &'r Database,
    /// How many runs the times of cheap commands stand for; 0 if they are not taken.
    weight: u64,
    is_fine: bool,
    last_ns: u64,
    /// Cheap commands run since the last reading.
    unsettled: SmallVec<[usize; 32]>,
    /// Commands run so far.
    ran: usize,
    /// Whether times go into histograms.
    has_histograms: bool,
    /// From when on a command is worth noting.
    notable_ns: u64,
    /// From which size on a reply is.
    notable_bytes: usize,
    /// Where effects are collected, and the bytes that the commands are of, if these are at hand.
    unit: &'r mut Unit,
    batch: &'r [u8],
    /// The commands belong to a unit that goes on after them.
    is_part: bool,
    lazy_expire: bool,
    /// Notable commands by their place in the run.
    slow: Vec<(usize, Noted)>,
    /// What the last command waits for, if it could not be served.
    pub wait: Option<Box<Wait>>,
}

/// A slow log for less than this has every command timed.
const FINE_NS: u64 = 1_000_000;

impl<'r> Run<'r> {
    #[inline]
    pub fn begin(
        worker: &'r Worker,
        database: &'r Database,
        runs: &mut u64,
        unit: &'r mut Unit,
        batch: &'r [u8],
        is_part: bool,
        settings: &Settings,
    ) -> Self {
        let clock = &worker.clock;
        let weight = if runs.is_multiple_of(SAMPLED) { SAMPLED } else { 0 };
        let is_fine = settings.slow_ns < FINE_NS || settings.latency_ns != u64::MAX;
        *runs += 1;
        Self {
            clock,
            overflowed: &worker.overflowed,
            counters: worker.counters(database),
            database,
            weight,
            is_fine,
            last_ns: if weight != 0 { clock.elapsed_ns() } else { 0 },
            unsettled: SmallVec::new(),
            ran: 0,
            has_histograms: settings.has_histograms,
            notable_ns: settings.slow_ns.min(settings.latency_ns),
            notable_bytes: settings.large_reply.bytes_min,
            unit,
            batch,
            is_part,
            lazy_expire: settings.lazy_expire,
            slow: Vec::new(),
            wait: None,
        }
    }

    /// Collects what a command did. `sent`: where its bytes are as they came, if these are at hand.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)] // Each is another's to own.
    fn follow(
        &mut self,
        db: usize,
        words: &[&[u8]],
        sent: &Range<usize>,
        effect: &Effect,
        changes: &mut Changes,
        scope: Scope,
    ) {
        if !changes.has_departures() {
            let is_done = match effect {
                Effect::None => true,
                Effect::Verbatim if !self.is_part => {
                    self.unit.unit_as_sent(db, words, self.batch, sent)
                }
                _ => false,
            };
            if is_done {
                return;
            }
        }
        self.unit.gather(self.batch);
        self.unit.departures(changes, self.lazy_expire);
        if scope == Scope::Walk && !self.is_part {
            self.unit.close_apart();
        }
        match effect {
            Effect::None => {}
            Effect::Verbatim => self.unit.as_sent(db, words, &self.batch[sent.clone()]),
            Effect::Rewrite(rewrite) => self.unit.rewritten(db, rewrite),
            Effect::Wait(wait) => self.unit.rewritten(db, &wait.rewrite),
        }
        if !self.is_part {
            self.unit.close();
        }
    }

    /// What a client writes to a replica is nobody else's to expire.
    #[cold]
    fn note_own_keys(&self, call: &mut Call<'_>, entry: &Entry, words: &[&[u8]]) {
        let is_primary = call.db.due_ms() == 0;
        if !is_primary && own_keys::are_noted(self.database) {
            let own_keys = &self.database.replication.own_keys;
            let _ = entry.for_each_key(words, |key| {
                call.db.reach(key);
                own_keys.note(&call.db, key);
            });
        }
    }

    #[inline]
    pub fn command<'c>(
        &mut self,
        call: &mut Call<'c>,
        entry: &Entry,
        command: &DataCommand,
        words: &'c [&'c [u8]],
        sent: &Range<usize>,
    ) {
        let figures = &self.counters.commands[entry.id];
        // The first run is timed, so that no command that has run is without a histogram.
        let is_timed = entry.timed || self.is_fine || figures.calls.value() == 0;
        if is_timed {
            self.settle();
            self.last_ns = self.clock.elapsed_ns();
        }
        let before = call.reply.len();
        call.args = words;
        call.db.changes.dirty = 0;
        let db = call.db.index();
        let result = (command.run)(call);
        if call.db.changes.following {
            let effect = result.as_ref().unwrap_or(&Effect::None);
            self.follow(db, words, sent, effect, call.db.changes, command.scope);
        }
        if call.db.changes.keeps_expired && entry.flags.contains(Flags::WRITE) {
            self.note_own_keys(call, entry, words);
        }
        match result {
            Ok(Effect::None) => {}
            Ok(Effect::Verbatim | Effect::Rewrite(_)) => {
                self.counters.dirty.add(call.db.changes.dirty.max(1));
            }
            Ok(Effect::Wait(wait)) => {
                // It counts as a call when it has been served.
                call.reply.truncate(before);
                self.counters.dirty.add(call.db.changes.dirty);
                self.wait = Some(wait);
                self.ran += 1;
                return;
            }
            Err(error) => {
                call.reply.truncate(before);
                error.write_to(&mut call.reply);
                figures.failed.add(1);
                self.counters.count_error(&error.to_string());
            }
        }
        figures.calls.add(1);
        let reply_bytes = call.reply.len() - before;
        if call.output_max <= reply_bytes {
            self.overflowed.set(true);
        }
        if is_timed {
            let now_ns = self.clock.elapsed_ns();
            let duration_ns = now_ns.saturating_sub(self.last_ns);
            figures.nanoseconds.add(duration_ns);
            self.last_ns = now_ns;
            if self.has_histograms {
                figures.histogram.add(duration_ns, 1);
            }
            if self.notable_ns <= duration_ns || self.notable_bytes <= reply_bytes {
                self.slow.push((self.ran, Noted { duration_ns, reply_bytes }));
            }
        } else if self.notable_bytes <= reply_bytes {
            self.slow.push((self.ran, Noted { duration_ns: 0, reply_bytes }));
        } else if self.weight != 0 {
            self.unsettled.push(entry.id);
        }
        self.ran += 1;
    }

    /// Shares the time since the last reading among the cheap commands that ran since.
    fn settle(&mut self) {
        if self.unsettled.is_empty() {
            return;
        }
        let now_ns = self.clock.elapsed_ns();
        let share = now_ns.saturating_sub(self.last_ns) / self.unsettled.len() as u64;
        for id in self.unsettled.drain(..) {
            let figures = &self.counters.commands[id];
            figures.nanoseconds.add(share * self.weight);
            if self.has_histograms {
                figures.histogram.add(share, self.weight);
            }
        }
        self.last_ns = now_ns;
    }

    /// Settles the last commands; returns the slow ones.
    pub fn end(mut self) -> Vec<(usize, Noted)> {
        self.settle();
        self.slow
    }
}

/// What is notable of a command that has run.
#[derive(Clone, Copy, Debug)]
pub struct Noted {
    pub duration_ns: u64,
    pub reply_bytes: usize,
}

/// Puts a command of a session into the logs it belongs to.
#[cold]
pub fn log_slow_of(
    worker: &Worker,
    session: &Session,
    entry: &Entry,
    words: &[&[u8]],
    noted: Noted,
) {
    let Session { database, settings, shared, .. } = session;
    log_slow(worker, database, shared, settings, entry, words, noted);
}

/// Puts a command into the logs it belongs to. No lock is taken while one of these is held.
#[cold]
pub fn log_slow(
    worker: &Worker,
    database: &Database,
    client: &ClientShared,
    settings: &Settings,
    entry: &Entry,
    words: &[&[u8]],
    noted: Noted,
) {
    let now_ms = worker.clock.now_ms();
    let Noted { duration_ns, reply_bytes } = noted;
    if settings.latency_ns <= duration_ns {
        let is_fast = entry.flags.contains(Flags::FAST);
        let event = if is_fast { "fast-command" } else { "command" };
        database.latency.add(event, now_ms, duration_ns);
    }
    if entry.flags.contains(Flags::SKIP_SLOWLOG) {
        return;
    }
    if settings.slow_ns <= duration_ns {
        let (us, most) = (duration_ns / 1000, settings.slow_log_len);
        database.slow_log.lock().push(entry, words, client, us, now_ms, most);
    }
    if settings.large_reply.bytes_min <= reply_bytes {
        let (bytes, most) = (reply_bytes as u64, settings.large_reply.len);
        database.large_replies.lock().push(entry, words, client, bytes, now_ms, most);
    }
}

/// Logs a request that is as large as `commandlog-request-larger-than` says.
#[cold]
pub fn log_large(worker: &Worker, session: &Session, words: &[&[u8]], bytes: usize) {
    let registry = &worker.server.registry;
    let Some(mut entry) = words.first().and_then(|name| registry.find(name)) else { return };
    if let Some(word) = words.get(1) {
        entry = registry.find_sub(entry, word).unwrap_or(entry);
    }
    if entry.flags.contains(Flags::SKIP_SLOWLOG) {
        return;
    }
    let (now_ms, most) = (worker.clock.now_ms(), session.settings.large_request.len);
    let mut log = session.database.large_requests.lock();
    log.push(entry, words, &session.shared, bytes as u64, now_ms, most);
}

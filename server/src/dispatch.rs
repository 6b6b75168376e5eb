//! From parsed requests to replies: lookup, checks, locks, and the run of each command in place.
//!
//! Neighbouring commands on data run together: their keys are hashed once, their segments locked
//! once in ascending order, and the cache lines they need are asked for before the first of them
//! runs. A command that needs more than its keys (or the client, or the server) runs by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_commands::{Call, CommandError, DataCommand, Effect, Environment, Flags, Scope};
use carnelian_keyspace::{Access, Changes, Db, Dropped, SegmentSet, segment_of};
use carnelian_resp::Writer;
use smallvec::SmallVec;

use crate::clock::Clock;
use crate::commands::Context;
use crate::database::{Counters, Database};
use crate::expire;
use crate::registry::{Entry, Handler, Registry, ServerRun};
use crate::session::{BATCH_REPLY_BYTES, Batch, Next, Outcome, ReplyMode, Session, Worker};

/// Keys a run may lock together: enough to hide the memory's latency, few enough that another
/// reactor does not wait long.
const RUN_KEYS: usize = 64;

/// Clients that are looked at in a tick, at least.
const CLIENTS_SURVEYED: usize = 50;

/// Vectors that keep their memory from batch to batch.
#[derive(Default)]
pub struct Scratch {
    /// The entries of a run's commands, by id.
    ids: Vec<usize>,
    /// The hashes of a run's keys.
    hashes: Vec<u64>,
}

/// Runs the commands of a batch in order, appending their replies.
pub fn run_batch(
    worker: &mut Worker,
    session: &mut Session,
    batch: &Batch<'_>,
    out: &mut Vec<u8>,
) -> Outcome {
    let server = Arc::clone(&worker.server);
    let registry = &server.registry;
    let start = out.len();
    let mut index = 0;
    if !session.authenticated && session.database.settings.load().password.is_none() {
        // The password was taken away meanwhile.
        session.authenticated = true;
    }
    while index < batch.len() {
        let words = batch.command(index);
        match admit(registry, session, words) {
            Err(refusal) => {
                refuse(worker, session, &refusal, out);
                index += 1;
            }
            Ok(entry) => match entry.handler {
                Handler::Data(_)
                    if entry.scope == Scope::Keys && session.reply == ReplyMode::On =>
                {
                    index += run_together(worker, session, registry, batch, index, entry, out);
                }
                Handler::Data(command) => {
                    let before = out.len();
                    run_alone(worker, session, entry, command, words, out);
                    settle_reply(session, out, before);
                    index += 1;
                }
                Handler::Server(command) => {
                    let before = out.len();
                    run_server(worker, session, registry, entry, command.run, words, out);
                    settle_reply(session, out, before);
                    index += 1;
                }
            },
        }
        if session.close_after_reply {
            return Outcome { ran: index, next: Next::Close };
        }
        if BATCH_REPLY_BYTES <= out.len() - start {
            break;
        }
    }
    Outcome { ran: index, next: Next::Continue }
}

/// Why a request does not run.
enum Refusal {
    /// With the whole text of the error.
    Unknown(String),
    Arity(usize),
    NoAuth(usize),
}

/// Finds the command a request names, and checks all that does not depend on the data.
#[inline]
fn admit<'r>(
    registry: &'r Registry,
    session: &Session,
    words: &[&[u8]],
) -> Result<&'r Entry, Refusal> {
    let Some(mut entry) = registry.find(words[0]) else { return Err(unknown(words)) };
    if !entry.subcommands.is_empty()
        && let Some(word) = words.get(1)
    {
        let sub = registry.find_sub(entry, word);
        entry = sub.ok_or_else(|| unknown_sub(entry, word))?;
    }
    if !entry.accepts(words.len()) {
        return Err(Refusal::Arity(entry.id));
    }
    if !session.authenticated && !entry.flags.contains(Flags::NO_AUTH) {
        return Err(Refusal::NoAuth(entry.id));
    }
    Ok(entry)
}

/// Runs commands on keys from `index` on, under one set of locks. Returns how many.
fn run_together(
    worker: &mut Worker,
    session: &Session,
    registry: &Registry,
    batch: &Batch<'_>,
    index: usize,
    first: &Entry,
    out: &mut Vec<u8>,
) -> usize {
    let database = &*session.database;
    let keyspace = &database.keyspace;
    let mut scratch = std::mem::take(&mut worker.scratch);
    scratch.ids.clear();
    scratch.hashes.clear();
    let mut wanted = SegmentSet::default();
    let mut entry = first;
    loop {
        let words = batch.command(index + scratch.ids.len());
        // A request that does not say which its keys are is refused by its handler before it
        // touches one, so it needs no lock.
        let _ = entry.for_each_key(words, |key| {
            let hash = keyspace.hash(key);
            wanted.insert(segment_of(hash));
            scratch.hashes.push(hash);
        });
        scratch.ids.push(entry.id);
        let next = index + scratch.ids.len();
        if batch.len() <= next || RUN_KEYS <= scratch.hashes.len() {
            break;
        }
        match admit(registry, session, batch.command(next)) {
            Ok(next) if next.scope == Scope::Keys && matches!(next.handler, Handler::Data(_)) => {
                entry = next;
            }
            _ => break,
        }
    }

    let settings = database.settings.load();
    let mut access = keyspace.lock(wanted);
    if 1 < scratch.hashes.len() {
        prefetch(&mut access, usize::from(session.db), &scratch.hashes);
    }
    let mut call = call(worker, session, access, &settings.environment, out);
    let mut run = Run::begin(worker, database, settings.slow_ns);
    let mut ran = 0;
    for &id in &scratch.ids {
        let entry = registry.entry(id);
        let Handler::Data(command) = entry.handler else { break };
        run.command(&mut call, entry, command, batch.command(index + ran));
        ran += 1;
        if BATCH_REPLY_BYTES <= call.reply.len() {
            break;
        }
    }
    let slow = run.end();
    finish(worker, database, call);
    for (ran, duration_ns) in slow {
        let entry = registry.entry(scratch.ids[ran]);
        log_slow(worker, session, entry, batch.command(index + ran), duration_ns);
    }
    worker.scratch = scratch;
    ran
}

/// Asks for the buckets of all keys, then for their entries.
fn prefetch(access: &mut Access<'_>, db: usize, hashes: &[u64]) {
    for &hash in hashes {
        if let Some(table) = access.segment(segment_of(hash)).table(db) {
            table.prefetch_bucket(hash);
        }
    }
    for &hash in hashes {
        if let Some(table) = access.segment(segment_of(hash)).table(db) {
            table.prefetch_entry(hash);
        }
    }
}

/// Runs one command under locks of its own.
fn run_alone(
    worker: &mut Worker,
    session: &Session,
    entry: &Entry,
    command: &DataCommand,
    words: &[&[u8]],
    out: &mut Vec<u8>,
) {
    let database = &*session.database;
    let mut wanted = SegmentSet::default();
    match entry.scope {
        Scope::Keys => {
            let keyspace = &database.keyspace;
            let _ = entry.for_each_key(words, |key| wanted.insert(segment_of(keyspace.hash(key))));
        }
        Scope::Walk => {}
        Scope::Everything => wanted = SegmentSet::all(),
    }
    let settings = database.settings.load();
    let access = database.keyspace.lock(wanted);
    let mut call = call(worker, session, access, &settings.environment, out);
    let mut run = Run::begin(worker, database, settings.slow_ns);
    run.command(&mut call, entry, command, words);
    let slow = run.end();
    finish(worker, database, call);
    for (_, duration_ns) in slow {
        log_slow(worker, session, entry, words, duration_ns);
    }
}

fn call<'c>(
    worker: &Worker,
    session: &Session,
    access: Access<'c>,
    environment: &'c Environment,
    out: &'c mut Vec<u8>,
) -> Call<'c> {
    let mut db =
        Db::new(access, usize::from(session.db), worker.clock.now_ms(), environment.policy);
    db.no_touch = session.no_touch;
    Call { args: &[], db, reply: Writer::new(out, session.protocol), environment }
}

/// One run of commands: who ran, and how long it took.
///
/// Reading the clock costs as much as a small command, so cheap commands share the time between
/// two readings equally, and only the others are timed one by one.
struct Run<'r> {
    clock: &'r Clock,
    counters: &'r Counters,
    last_ns: u64,
    /// Commands run since the last reading.
    unsettled: SmallVec<[usize; 32]>,
    /// Commands whose time is known.
    settled: usize,
    /// From when on a command is slow.
    slow_ns: u64,
    /// Slow commands by their place in the run, and the time each took.
    slow: Vec<(usize, u64)>,
}

impl<'r> Run<'r> {
    fn begin(worker: &'r Worker, database: &'r Database, slow_ns: u64) -> Self {
        let clock = &worker.clock;
        Self {
            clock,
            counters: worker.counters(database),
            last_ns: clock.elapsed_ns(),
            unsettled: SmallVec::new(),
            settled: 0,
            slow_ns,
            slow: Vec::new(),
        }
    }

    #[inline]
    fn command<'c>(
        &mut self,
        call: &mut Call<'c>,
        entry: &Entry,
        command: &DataCommand,
        words: &'c [&'c [u8]],
    ) {
        if entry.timed {
            self.settle();
        }
        let before = call.reply.len();
        let figures = &self.counters.commands[entry.id];
        call.args = words;
        call.db.changes.dirty = 0;
        match (command.run)(call) {
            Ok(Effect::None) => {}
            Ok(Effect::Verbatim | Effect::Rewrite(_)) => {
                self.counters.dirty.add(call.db.changes.dirty.max(1));
            }
            Err(error) => {
                call.reply.truncate(before);
                call.reply.error_display(&error);
                figures.failed.add(1);
                self.counters.count_error(&error.to_string());
            }
        }
        figures.calls.add(1);
        self.unsettled.push(entry.id);
        if entry.timed {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if self.unsettled.is_empty() {
            return;
        }
        let now = self.clock.elapsed_ns();
        let share = now.saturating_sub(self.last_ns) / self.unsettled.len() as u64;
        let ran = self.settled + self.unsettled.len();
        if self.slow_ns <= share {
            self.slow.extend((self.settled..ran).map(|place| (place, share)));
        }
        self.settled = ran;
        for id in self.unsettled.drain(..) {
            self.counters.commands[id].nanoseconds.add(share);
        }
        self.last_ns = now;
    }

    /// Settles the last commands; returns the slow ones.
    fn end(mut self) -> Vec<(usize, u64)> {
        self.settle();
        self.slow
    }
}

/// Puts a command in the slow log. Called with no lock held.
#[cold]
fn log_slow(worker: &Worker, session: &Session, entry: &Entry, words: &[&[u8]], duration_ns: u64) {
    if entry.flags.contains(Flags::SKIP_SLOWLOG) {
        return;
    }
    let database = &session.database;
    let most = database.settings.load().slow_log_len;
    let now_ms = worker.clock.now_ms();
    let client = &session.shared;
    database.slow_log.lock().push(entry, words, client, duration_ns / 1000, now_ms, most);
}

/// Books what a run left behind, after its locks are released.
fn finish(worker: &Worker, database: &Database, call: Call<'_>) {
    let (changes, dropped) = call.db.finish();
    let counters = worker.counters(database);
    let Changes { hits, misses, expired_keys, expired_fields, .. } = changes;
    for (counter, amount) in [
        (&counters.keyspace_hits, hits),
        (&counters.keyspace_misses, misses),
        (&counters.expired_keys, expired_keys),
        (&counters.expired_fields, expired_fields),
    ] {
        if amount != 0 {
            counter.add(amount);
        }
    }
    free(worker, dropped);
}

/// Hands large data to the thread that frees it.
pub fn free(worker: &Worker, dropped: Dropped) {
    if !dropped.is_empty() {
        worker.server.reclaimer.free(dropped);
    }
}

/// Runs one of the server's own commands.
fn run_server(
    worker: &mut Worker,
    session: &mut Session,
    registry: &Registry,
    entry: &Entry,
    run: ServerRun,
    words: &[&[u8]],
    out: &mut Vec<u8>,
) {
    let before = out.len();
    let database = Arc::clone(&session.database);
    let start_ns = worker.clock.elapsed_ns();
    let protocol = session.protocol;
    let reply = Writer::new(out, protocol);
    let mut context = Context { args: words, worker, session, reply, registry, entry };
    let result = run(&mut context);
    let counters = worker.counters(&database);
    let figures = &counters.commands[entry.id];
    match result {
        Ok(Effect::None) => {}
        Ok(Effect::Verbatim | Effect::Rewrite(_)) => counters.dirty.add(1),
        Err(error) => {
            out.truncate(before);
            Writer::new(out, session.protocol).error_display(&error);
            figures.failed.add(1);
            counters.count_error(&error.to_string());
        }
    }
    figures.calls.add(1);
    let duration_ns = worker.clock.elapsed_ns().saturating_sub(start_ns);
    figures.nanoseconds.add(duration_ns);
    if database.settings.load().slow_ns <= duration_ns {
        log_slow(worker, session, entry, words, duration_ns);
    }
}

/// CLIENT REPLY: drops the reply that is not wanted.
fn settle_reply(session: &mut Session, out: &mut Vec<u8>, before: usize) {
    match session.reply {
        ReplyMode::On => {}
        ReplyMode::Off => out.truncate(before),
        ReplyMode::SkipNext => {
            out.truncate(before);
            session.reply = ReplyMode::Skipping;
        }
        ReplyMode::Skipping => {
            out.truncate(before);
            session.reply = ReplyMode::On;
        }
    }
}

/// Replies to a request that does not run.
fn refuse(worker: &Worker, session: &mut Session, refusal: &Refusal, out: &mut Vec<u8>) {
    let before = out.len();
    let counters = worker.counters(&session.database);
    let registry = &worker.server.registry;
    let text = match refusal {
        Refusal::Unknown(text) => text.clone(),
        Refusal::Arity(id) => {
            CommandError::Arity(registry.entry(*id).full_name.clone().into()).to_string()
        }
        Refusal::NoAuth(_) => "NOAUTH Authentication required.".to_owned(),
    };
    if let Refusal::Arity(id) | Refusal::NoAuth(id) = refusal {
        counters.commands[*id].rejected.add(1);
    }
    counters.count_error(&text);
    Writer::new(out, session.protocol).error(text);
    settle_reply(session, out, before);
}

fn unknown(words: &[&[u8]]) -> Refusal {
    // As Redis words it: 128 bytes of the name, and of all arguments together.
    let cut = |word: &[u8], max: usize| {
        String::from_utf8_lossy(&word[..word.len().min(max)]).into_owned()
    };
    let mut arguments = String::new();
    for word in &words[1..] {
        if 128 <= arguments.len() {
            break;
        }
        let room = 128 - arguments.len();
        arguments.push_str(&format!("'{}' ", cut(word, room)));
    }
    Refusal::Unknown(format!(
        "ERR unknown command '{}', with args beginning with: {arguments}",
        cut(words[0], 128)
    ))
}

fn unknown_sub(container: &Entry, word: &[u8]) -> Refusal {
    Refusal::Unknown(format!(
        "ERR unknown subcommand '{}'. Try {} HELP.",
        String::from_utf8_lossy(&word[..word.len().min(128)]),
        container.name().to_uppercase()
    ))
}

/// What is due by time, on every reactor, `hz` times a second.
pub fn tick(worker: &mut Worker) {
    let server = Arc::clone(&worker.server);
    if server.watch.paused.load(Ordering::Relaxed) {
        return;
    }
    let now_ms = worker.clock.monotonic_ms();
    if worker.reactor == 0 {
        let is_unused = |database: &Arc<Database>| {
            database.stats.sum(|counters| &counters.connections_received) == 0
        };
        let unused = server.databases.read().iter().all(is_unused);
        server.watch.tick(now_ms, unused);
    }
    for database in server.databases.read().iter() {
        if worker.reactor == 0 {
            database.rates.lock().sample(now_ms, &database.stats);
            let share = database.clients.len() / server.hz().max(1) as usize;
            database.clients.survey_some(share.max(CLIENTS_SURVEYED));
        }
        let mut sweep = worker.sweeps.remove(&database.uid).unwrap_or_default();
        expire::sweep(worker, database, &mut sweep);
        worker.sweeps.insert(database.uid, sweep);
    }
}

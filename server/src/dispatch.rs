//! From parsed requests to replies: lookup, checks, locks, and the run of each command in place.
//!
//! Neighbouring commands on data run together: their keys are hashed once, their segments locked
//! once in ascending order, and the cache lines they need are asked for before the first of them
//! runs. A command that needs more than its keys (or the client, or the server) runs by itself.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_commands::{
    Call, CommandError, DataCommand, Effect, Environment, Flags, Scope, Wait,
};
use carnelian_keyspace::{
    Access, Aftermath, Changes, Db, Dropped, Hold, Kind, SegmentSet, Segments, Told, segment_of,
};
use carnelian_resp::Writer;
use carnelian_tls::TlsSession;
use smallvec::SmallVec;

use crate::acl::{self, Denied, Origin};
use crate::allocator;
use crate::blocking::{self, Waiter};
use crate::clients::ClientShared;
use crate::clock::Clock;
use crate::commands::Context;
use crate::database::{Counters, Database};
use crate::eviction;
use crate::expire;
use crate::features;
use crate::log;
use crate::pause::{self, Held, attention};
use crate::pubsub;
use crate::registry::{Entry, Handler, Registry, ServerRun};
use crate::session::{BATCH_REPLY_BYTES, Batch, Next, Outcome, ReplyMode, Session, Worker};
use crate::settings::Settings;
use crate::tracking;
use crate::waiters::Key;

/// One in so many runs of cheap commands is timed.
const SAMPLED: u64 = 16;

/// Keys a run may lock together: enough to hide the memory's latency.
const RUN_KEYS: usize = 64;

/// The same where several reactors run. Two runs of 32 keys each nearly always share one of the 256
/// segments and wait for each other; two of 8 do so one time in five, and not for long.
const RUN_KEYS_SHARED: usize = 8;

/// Data of this size takes noticeable time to free.
const LARGE_BYTES: usize = 1 << 20;

/// Clients that are looked at in a tick, at least.
const CLIENTS_SURVEYED: usize = 50;

/// The vectors of a [`Scratch`].
#[derive(Default)]
pub struct Vectors {
    /// The entries of a run's commands, by id.
    ids: Vec<usize>,
    /// The hashes of a run's keys.
    hashes: Vec<u64>,
    pub aftermath: Aftermath,
    /// Keys that were written to and that clients wait for.
    pub ready: Vec<Key>,
    /// Counts runs, to choose those whose time is taken.
    runs: u64,
}

/// Vectors that keep their memory from batch to batch. In a box, since each run takes them and puts
/// them back; empty between the two.
#[derive(Default)]
pub struct Scratch(Option<Box<Vectors>>);

impl Scratch {
    /// One that can be looked at before anybody has taken it.
    pub fn new() -> Self {
        Self(Some(Box::default()))
    }
}

impl Deref for Scratch {
    type Target = Vectors;

    fn deref(&self) -> &Vectors {
        self.0.as_ref().expect("who took it has put it back")
    }
}

impl DerefMut for Scratch {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vectors {
        self.0.get_or_insert_default()
    }
}

impl Vectors {
    /// Gives back the memory that a command with very many keys needed.
    pub fn shrink_to(&mut self, keys: usize) {
        self.hashes.clear();
        self.hashes.shrink_to(keys);
    }
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
    while index < batch.len() {
        let words = batch.command(index);
        session.is_out_of_memory = !eviction::make_room(worker, &session.database);
        if session.tracks {
            features::before_tracked(worker, session, out);
        }
        if worker.invalidations.is_any() {
            // Who made room for the command hears of what was evicted before its reply: the key it
            // writes may be one of these.
            features::invalidate(worker, session, out);
        }
        let attention = session.database.attention.load(Ordering::Relaxed);
        match admit(registry, session, words) {
            Err(Refusal::Http) => {
                log::warning!(
                    "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or \
                     Host: commands to this server. This is likely due to an attacker attempting \
                     to use Cross Protocol Scripting to compromise your instance. Connection from \
                     {} aborted.",
                    session.shared.address
                );
                session.close_after_reply = true;
                index += 1;
            }
            Err(refusal) => {
                refuse(worker, session, &refusal, words, out);
                index += 1;
            }
            Ok(entry)
                if attention & attention::PAUSED != 0 && is_held(worker, session, entry, words) =>
            {
                return Outcome { ran: index, next: Next::Postpone };
            }
            Ok(entry) if session.transaction.is_some() && !entry.bypasses_queue => {
                let before = out.len();
                enqueue(session, entry, words, out);
                settle_reply(worker, session, out, before);
                index += 1;
            }
            Ok(entry) => match entry.handler {
                Handler::Data(_)
                    if entry.is_plain
                        && session.reply == ReplyMode::On
                        && attention & attention::MONITORED == 0
                        && !session.tracks
                        && !session.is_subscribed() =>
                {
                    let ran = run_together(worker, session, registry, batch, index, entry, out);
                    session.last_command = worker.scratch.ids[ran - 1] as u32;
                    index += ran;
                }
                Handler::Data(command) => {
                    session.last_command = entry.id as u32;
                    let before = out.len();
                    run_alone(worker, session, entry, command, words, out);
                    settle_reply(worker, session, out, before);
                    features::after_command(worker, session, entry, words, attention, out);
                    index += 1;
                }
                Handler::Server(command) => {
                    session.last_command = entry.id as u32;
                    let before = out.len();
                    features::before_command(worker, session, entry, words, attention);
                    run_server(worker, session, registry, entry, command.run, words, out, None);
                    settle_reply(worker, session, out, before);
                    features::after_command(worker, session, entry, words, attention, out);
                    index += 1;
                }
            },
        }
        if worker.invalidations.is_any() {
            features::invalidate(worker, session, out);
        }
        if session.close_after_reply {
            return Outcome { ran: index, next: Next::Close };
        }
        if session.waiter.is_some() {
            return Outcome { ran: index, next: Next::Wait };
        }
        if BATCH_REPLY_BYTES <= out.len() - start {
            break;
        }
    }
    Outcome { ran: index, next: Next::Continue }
}

/// Whether a pause holds a command back.
#[cold]
fn is_held(worker: &Worker, session: &Session, entry: &Entry, words: &[&[u8]]) -> bool {
    let database = &session.database;
    match database.pause.now(worker.clock.now_ms(), &database.attention) {
        None => false,
        Some((Held::Everything, _)) => true,
        Some((Held::Writes, _)) => {
            let queue = session.transaction.as_ref().filter(|_| entry.full_name == "exec");
            pause::may_write(database, entry, words) || queue.is_some_and(|queue| queue.may_write())
        }
    }
}

/// Why a request does not run.
enum Refusal {
    Unknown(CommandError),
    Arity(usize),
    NoAuth(usize),
    OutOfMemory(usize),
    /// The user may not do it.
    Denied(usize, Denied),
    /// The client is subscribed, and its protocol cannot tell messages from replies.
    Subscribed(usize),
    /// A script has been running for too long.
    Busy(usize),
    /// Not between MULTI and EXEC.
    InTransaction(usize),
    /// A web browser was made to talk to us.
    Http,
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
    if !session.may_do_all() {
        if !session.authenticated && !entry.flags.contains(Flags::NO_AUTH) {
            return Err(Refusal::NoAuth(entry.id));
        }
        acl::check(&session.user, entry, words, session.db)
            .map_err(|denied| Refusal::Denied(entry.id, denied))?;
        if session.transaction.is_none() {
            acl::check_sort(&session.user, entry, words, session.db).map_err(Refusal::Unknown)?;
        }
    }
    if session.is_subscribed() && !session.may_run(entry) {
        return Err(Refusal::Subscribed(entry.id));
    }
    if session.database.keyspace.is_busy() && !entry.flags.contains(Flags::ALLOW_BUSY) {
        return Err(Refusal::Busy(entry.id));
    }
    if session.transaction.is_some() && entry.flags.contains(Flags::NO_MULTI) {
        return Err(Refusal::InTransaction(entry.id));
    }
    if session.is_out_of_memory && takes_memory(session, entry) {
        return Err(Refusal::OutOfMemory(entry.id));
    }
    Ok(entry)
}

/// Whether a command, or one of those that EXEC is to run, may need more memory.
#[cold]
fn takes_memory(session: &Session, entry: &Entry) -> bool {
    let queued = session.transaction.as_ref().filter(|_| entry.full_name == "exec");
    entry.flags.contains(Flags::DENYOOM) || queued.is_some_and(|it| it.has(Flags::DENYOOM))
}

/// Puts a command behind MULTI.
fn enqueue(session: &mut Session, entry: &Entry, words: &[&[u8]], out: &mut Vec<u8>) {
    session.enqueue(entry, words);
    out.extend_from_slice(b"+QUEUED\r\n");
}

/// Runs commands on keys from `index` on, under one set of locks. Returns how many.
fn run_together(
    worker: &mut Worker,
    session: &mut Session,
    registry: &Registry,
    batch: &Batch<'_>,
    index: usize,
    first: &Entry,
    out: &mut Vec<u8>,
) -> usize {
    let database = Arc::clone(&session.database);
    let keyspace = &database.keyspace;
    let mut scratch = std::mem::take(&mut worker.scratch);
    scratch.ids.clear();
    scratch.hashes.clear();
    let is_alone = worker.server.mailboxes.len() == 1;
    let keys_max = if is_alone { RUN_KEYS } else { RUN_KEYS_SHARED };
    let mut wanted = SegmentSet::default();
    let mut entry = first;
    loop {
        let words = batch.command(index + scratch.ids.len());
        // A request that does not say which its keys are is refused by its handler before it
        // touches one, so it needs no lock.
        let _ = entry.for_each_key(words, |key| {
            let hash = keyspace.hash(key);
            keyspace.prefetch(hash);
            wanted.insert(segment_of(hash));
            scratch.hashes.push(hash);
        });
        scratch.ids.push(entry.id);
        let next = index + scratch.ids.len();
        if batch.len() <= next || keys_max <= scratch.hashes.len() {
            break;
        }
        match admit(registry, session, batch.command(next)) {
            Ok(next) if next.is_plain => {
                entry = next;
            }
            _ => break,
        }
    }

    let Ok(mut access) = keyspace.lock_unless_busy(wanted) else {
        let refusal = Refusal::Busy(scratch.ids[0]);
        worker.scratch = scratch;
        refuse(worker, session, &refusal, batch.command(index), out);
        return 1;
    };
    if 1 < scratch.hashes.len() {
        prefetch(&mut access, usize::from(session.db), &scratch.hashes);
    }
    let Vectors { ids, aftermath, runs, ready, .. } = &mut *scratch;
    let mut call = call(worker, session, access.into(), aftermath, out);
    let mut run = Run::begin(worker, &database, runs, &session.settings);
    let mut ran = 0;
    let mark = eviction::mark(worker, &database);
    let is_bounded = mark != i64::MAX;
    for &id in &*ids {
        let entry = registry.entry(id);
        let Handler::Data(command) = entry.handler else { break };
        run.command(&mut call, entry, command, batch.command(index + ran));
        ran += 1;
        if hear(&database, call.db.changes, ready) || BATCH_REPLY_BYTES <= call.reply.len() {
            break;
        }
        if is_bounded && entry.flags.contains(Flags::DENYOOM) && mark <= allocator::balance() {
            break;
        }
    }
    let slow = run.end();
    drop(call);
    settle(worker, &database, Some(session), &mut scratch.aftermath);
    for (ran, noted) in slow {
        let entry = registry.entry(scratch.ids[ran]);
        log_slow_of(worker, session, entry, batch.command(index + ran), noted);
    }
    worker.scratch = scratch;
    if !worker.scratch.ready.is_empty() {
        blocking::serve(worker, &database);
    }
    ran
}

/// Tells those who care about the keys that a command has changed, while their locks are held.
/// Whether clients wait for one of them.
#[inline]
pub fn hear(database: &Database, changes: &mut Changes, ready: &mut Vec<Key>) -> bool {
    if changes.touched.is_empty() && changes.roused.is_empty() {
        return false;
    }
    tell(database, changes, ready)
}

#[cold]
fn tell(database: &Database, changes: &mut Changes, ready: &mut Vec<Key>) -> bool {
    let is_tracked = database.tracking.is_awake();
    for (place, (db, key)) in changes.touched.drain(..).enumerate() {
        if is_tracked {
            let is_lapsed = changes.lapsed.contains(&place);
            changes.told.push(Told { db, key: key.clone(), is_lapsed });
        }
        if database.waiters.tell(db, &key) && !ready.iter().any(|it| it.0 == db && it.1 == key) {
            ready.push((db, key));
        }
    }
    for (db, key) in changes.roused.drain(..) {
        let waits = database.waiters.next_waiting(db, &key, None).is_some();
        if waits && !ready.iter().any(|it| it.0 == db && it.1 == key) {
            ready.push((db, key));
        }
    }
    changes.lapsed.clear();
    !ready.is_empty()
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
    session: &mut Session,
    entry: &Entry,
    command: &DataCommand,
    words: &[&[u8]],
    out: &mut Vec<u8>,
) {
    let database = Arc::clone(&session.database);
    let keyspace = &database.keyspace;
    let mut wanted = SegmentSet::default();
    match entry.scope {
        Scope::Keys => {
            let _ = entry.for_each_key(words, |key| wanted.insert(segment_of(keyspace.hash(key))));
        }
        Scope::Walk => {}
        Scope::Everything => wanted = SegmentSet::all(),
    }
    let mut scratch = std::mem::take(&mut worker.scratch);
    let Ok(access) = keyspace.lock_unless_busy(wanted) else {
        worker.scratch = scratch;
        return refuse(worker, session, &Refusal::Busy(entry.id), words, out);
    };
    let before = out.len();
    let Vectors { aftermath, runs, ready, .. } = &mut *scratch;
    let mut call = call(worker, session, access.into(), aftermath, out);
    call.may_block = true;
    let mut run = Run::begin(worker, &database, runs, &session.settings);
    run.command(&mut call, entry, command, words);
    hear(&database, call.db.changes, ready);
    let waiter = run.wait.take().map(|wait| Waiter::enter(session, entry.id, words, *wait));
    let slow = run.end();
    if session.tracks {
        tracking::remember(session, entry, words);
    }
    drop(call);
    let waiter = waiter.or_else(|| {
        let start = (session.reply == ReplyMode::On).then_some(before)?;
        wait_for_space(worker, session, entry, words, &mut scratch.aftermath, out, start)
    });
    settle(worker, &database, Some(session), &mut scratch.aftermath);
    worker.scratch = scratch;
    session.waiter = waiter;
    for (_, noted) in slow {
        log_slow_of(worker, session, entry, words, noted);
    }
    if !worker.scratch.ready.is_empty() {
        blocking::serve(worker, &database);
    }
}

/// Has the client wait until all that was dropped is freed, where the reply has to come after that and
/// it takes long, so that others need not wait for it.
#[inline]
fn wait_for_space(
    worker: &Worker,
    session: &Session,
    entry: &Entry,
    words: &[&[u8]],
    aftermath: &mut Aftermath,
    out: &mut Vec<u8>,
    start: usize,
) -> Option<Arc<Waiter>> {
    if !aftermath.changes.frees_now || aftermath.dropped.heap_bytes() < LARGE_BYTES {
        return None;
    }
    let waiter = Waiter::enter(session, entry.id, words, Wait::default());
    let (reply, dropped) = (out.split_off(start), std::mem::take(&mut aftermath.dropped));
    worker.server.reclaimer.free_for(Arc::clone(&waiter), reply, dropped);
    Some(waiter)
}

/// The type of a live key, under locks that are held. What has expired goes, and is heard of.
pub fn kind_of(
    worker: &mut Worker,
    database: &Database,
    held: &mut dyn Segments,
    db: usize,
    key: &[u8],
) -> Option<Kind> {
    let mut scratch = std::mem::take(&mut worker.scratch);
    let (_, settings) = database.settings();
    let policy = settings.environment.policy;
    let now_ms = worker.clock.now_ms();
    scratch.aftermath.changes.listening = pubsub::listening(database, &settings);
    let Vectors { aftermath, ready, .. } = &mut *scratch;
    aftermath.changes.watch(&database.waiters.interest);
    let mut db = Db::new(Hold::Lent(held), db, now_ms, policy, aftermath);
    let kind = db.kind(key);
    hear(database, db.changes, ready);
    drop(db);
    settle(worker, database, None, &mut scratch.aftermath);
    worker.scratch = scratch;
    kind
}

/// Runs the command of a client that has waited, under locks that are held.
pub fn run_for(
    worker: &mut Worker,
    waiter: &Waiter,
    entry: &Entry,
    held: &mut dyn Segments,
    words: &[&[u8]],
    out: &mut Vec<u8>,
) -> Effect {
    let Handler::Data(command) = entry.handler else { return Effect::None };
    let database = &*waiter.database;
    let (_, settings) = database.settings();
    let mut scratch = std::mem::take(&mut worker.scratch);
    scratch.aftermath.changes.listening = pubsub::listening(database, &settings);
    let Vectors { aftermath, runs, ready, .. } = &mut *scratch;
    aftermath.changes.watch(&database.waiters.interest);
    let (index, now_ms) = (usize::from(waiter.db), worker.clock.now_ms());
    let policy = settings.environment.policy;
    let mut db = Db::new(Hold::Lent(held), index, now_ms, policy, aftermath);
    db.no_touch = waiter.no_touch;
    let reply = Writer::new(out, waiter.protocol);
    let environment = &settings.environment;
    let mut call = Call { args: &[], db, reply, environment, may_block: true };
    let mut run = Run::begin(worker, database, runs, &settings);
    run.command(&mut call, entry, command, words);
    hear(database, call.db.changes, ready);
    let wait = run.wait.take();
    let slow = run.end();
    drop(call);
    worker.invalidations.note(database, &mut scratch.aftermath.changes, waiter.client.id);
    settle(worker, database, None, &mut scratch.aftermath);
    worker.scratch = scratch;
    for (_, noted) in slow {
        log_slow(worker, database, &waiter.client, &settings, entry, words, noted);
    }
    wait.map_or(Effect::None, Effect::Wait)
}

/// Commands that run inside another: under its locks, for its client.
pub struct Nest<'n> {
    pub worker: &'n mut Worker,
    pub session: &'n mut Session,
    pub held: &'n mut (dyn Segments + 'n),
    pub nesting: Nesting,
}

/// What a command runs inside of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nesting {
    #[default]
    Nothing,
    Transaction,
    Script,
}

impl Nest<'_> {
    /// Runs queued commands: the entry of each, and how many words there are up to its end.
    pub fn run_queue(&mut self, queue: &[(usize, usize)], words: &[&[u8]], out: &mut Vec<u8>) {
        let (mut next, mut first) = (0, 0);
        while let Some(&(id, end)) = queue.get(next) {
            let server = Arc::clone(&self.worker.server);
            let entry = server.registry.entry(id);
            let mut together = queue.len();
            if !self.session.may_do_all() {
                // It may have been allowed when it was queued.
                if self.is_denied(entry, &words[first..end], out) {
                    (next, first) = (next + 1, end);
                    continue;
                }
                together = next + 1;
            }
            match entry.handler {
                Handler::Data(_) => {
                    let some = &queue[next..together];
                    next += self.run_data(&server.registry, some, first, words, out);
                    first = queue[next - 1].1;
                }
                Handler::Server(_) => {
                    self.run(&server.registry, entry, &words[first..end], out);
                    (next, first) = (next + 1, end);
                }
            }
        }
    }

    /// Replies that the user may not run a command of a transaction, if so.
    fn is_denied(&mut self, entry: &Entry, words: &[&[u8]], out: &mut Vec<u8>) -> bool {
        let session = &*self.session;
        let counters = self.worker.counters(&session.database);
        let error = match acl::check(&session.user, entry, words, session.db) {
            Ok(()) => match acl::check_sort(&session.user, entry, words, session.db) {
                Ok(()) => return false,
                Err(error) => error,
            },
            Err(denied) => {
                acl::report(self.worker, session, entry, words, denied, Origin::Multi);
                counters.commands[entry.id].rejected.add(1);
                denied.exec_error()
            }
        };
        counters.count_error(&error.to_string());
        error.write_to(&mut Writer::new(out, session.protocol));
        true
    }

    /// Runs one command, and appends its reply.
    pub fn run(&mut self, registry: &Registry, entry: &Entry, words: &[&[u8]], out: &mut Vec<u8>) {
        match entry.handler {
            Handler::Data(_) => {
                self.run_data(registry, &[(entry.id, words.len())], 0, words, out);
            }
            Handler::Server(command) => {
                let held = Some((&mut *self.held as &mut dyn Segments, self.nesting));
                let (worker, session) = (&mut *self.worker, &mut *self.session);
                run_server(worker, session, registry, entry, command.run, words, out, held);
                features::after_nested(worker, session, entry, words, self.nesting);
            }
        }
    }

    /// Runs the commands on data that come first in a queue. Returns how many.
    fn run_data(
        &mut self,
        registry: &Registry,
        queue: &[(usize, usize)],
        mut first: usize,
        words: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> usize {
        let (worker, session) = (&mut *self.worker, &mut *self.session);
        let database = &*session.database;
        let mut scratch = std::mem::take(&mut worker.scratch);
        let Vectors { aftermath, runs, ready, .. } = &mut *scratch;
        let mut call = call(worker, session, Hold::Lent(&mut *self.held), aftermath, out);
        let mut run = Run::begin(worker, database, runs, &session.settings);
        let mut ran = 0;
        for &(id, end) in queue {
            let entry = registry.entry(id);
            let Handler::Data(command) = entry.handler else { break };
            if entry.scope == Scope::Everything {
                call.db.access().lock_rest();
            }
            run.command(&mut call, entry, command, &words[first..end]);
            hear(database, call.db.changes, ready);
            let words = &words[first..end];
            features::after_nested(worker, session, entry, words, self.nesting);
            first = end;
            ran += 1;
        }
        let slow = run.end();
        drop(call);
        settle(worker, database, Some(session), &mut scratch.aftermath);
        worker.scratch = scratch;
        for (place, noted) in slow {
            let start = if place == 0 { None } else { queue.get(place - 1).map(|it| it.1) };
            let start = start.unwrap_or(first.min(queue[0].1));
            let (id, end) = queue[place];
            let words = words.get(start.min(end)..end).unwrap_or_default();
            log_slow_of(worker, session, registry.entry(id), words, noted);
        }
        ran
    }
}

fn call<'c>(
    worker: &Worker,
    session: &'c Session,
    access: Hold<'c>,
    aftermath: &'c mut Aftermath,
    out: &'c mut Vec<u8>,
) -> Call<'c> {
    let environment: &Environment = &session.settings.environment;
    aftermath.changes.listening = pubsub::listening(&session.database, &session.settings);
    let (index, now_ms) = (usize::from(session.db), worker.clock.now_ms());
    let interest = &session.database.waiters.interest;
    match access {
        Hold::Own(_) => aftermath.changes.watch(interest),
        // It may be locked when it is first touched.
        Hold::Lent(_) => aftermath.changes.watch_ahead(interest),
    }
    let attention = session.database.attention.load(Ordering::Relaxed);
    aftermath.changes.keeps_expired = attention & attention::PAUSED != 0;
    let mut db = Db::new(access, index, now_ms, environment.policy, aftermath);
    db.no_touch = session.no_touch;
    let reply = Writer::new(out, session.protocol);
    Call { args: &[], db, reply, environment, may_block: false }
}

/// One run of commands: who ran, and how long it took.
///
/// Reading the clock costs as much as a small command. So commands that are never slow share the
/// time between two readings equally, and that only in one run of `SAMPLED`, which counts for all.
/// All others are timed one by one, and so is everything while `slowlog-log-slower-than` asks for
/// less than `FINE_NS`.
struct Run<'r> {
    clock: &'r Clock,
    counters: &'r Counters,
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
    /// Notable commands by their place in the run.
    slow: Vec<(usize, Noted)>,
    /// What the last command waits for, if it could not be served.
    wait: Option<Box<Wait>>,
}

/// A slow log for less than this has every command timed.
const FINE_NS: u64 = 1_000_000;

impl<'r> Run<'r> {
    #[inline]
    fn begin(
        worker: &'r Worker,
        database: &'r Database,
        runs: &mut u64,
        settings: &Settings,
    ) -> Self {
        let clock = &worker.clock;
        let weight = if runs.is_multiple_of(SAMPLED) { SAMPLED } else { 0 };
        let is_fine = settings.slow_ns < FINE_NS || settings.latency_ns != u64::MAX;
        *runs += 1;
        Self {
            clock,
            counters: worker.counters(database),
            weight,
            is_fine,
            last_ns: if weight != 0 { clock.elapsed_ns() } else { 0 },
            unsettled: SmallVec::new(),
            ran: 0,
            has_histograms: settings.has_histograms,
            notable_ns: settings.slow_ns.min(settings.latency_ns),
            notable_bytes: settings.large_reply.bytes_min,
            slow: Vec::new(),
            wait: None,
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
        match (command.run)(call) {
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
    fn end(mut self) -> Vec<(usize, Noted)> {
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
fn log_slow_of(worker: &Worker, session: &Session, entry: &Entry, words: &[&[u8]], noted: Noted) {
    let Session { database, settings, shared, .. } = session;
    log_slow(worker, database, shared, settings, entry, words, noted);
}

/// Puts a command into the logs it belongs to. No lock is taken while one of these is held.
#[cold]
fn log_slow(
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

/// Books what a run left behind, after its locks are released.
pub fn settle(
    worker: &Worker,
    database: &Database,
    client: Option<&Session>,
    aftermath: &mut Aftermath,
) {
    let changes = &mut aftermath.changes;
    if !aftermath.dropped.is_empty() {
        let dropped = std::mem::take(&mut aftermath.dropped);
        if changes.frees_now { drop(dropped) } else { free(worker, dropped) }
    }
    let counters = worker.counters(database);
    let Changes { hits, misses, expired_keys, expired_fields, evicted_keys, .. } = *changes;
    for (counter, amount) in [
        (&counters.keyspace_hits, hits),
        (&counters.keyspace_misses, misses),
        (&counters.expired_keys, expired_keys),
        (&counters.expired_fields, expired_fields),
        (&counters.evicted_keys, evicted_keys),
    ] {
        if amount != 0 {
            counter.add(amount);
        }
    }
    let author = client.map_or(0, |session| session.shared.id);
    worker.invalidations.note(database, changes, author);
    pubsub::notify(worker, database, client, &changes.events);
    changes.clear();
}

/// Hands large data to the thread that frees it.
pub fn free(worker: &Worker, dropped: Dropped) {
    if !dropped.is_empty() {
        worker.server.reclaimer.free(dropped);
    }
}

/// Runs one of the server's own commands, inside of another if locks are `held`.
#[allow(clippy::too_many_arguments)] // Each is another's to own.
fn run_server(
    worker: &mut Worker,
    session: &mut Session,
    registry: &Registry,
    entry: &Entry,
    run: ServerRun,
    words: &[&[u8]],
    out: &mut Vec<u8>,
    held: Option<(&mut dyn Segments, Nesting)>,
) {
    let before = out.len();
    let database = Arc::clone(&session.database);
    let start_ns = worker.clock.elapsed_ns();
    let protocol = session.protocol;
    let reply = Writer::new(out, protocol);
    let nesting = held.as_ref().map_or(Nesting::Nothing, |(_, nesting)| *nesting);
    let result = match held {
        // Coerces the lifetime inside, which it does not inside of an option.
        Some((held, nesting)) => {
            let held = Some(held as &mut dyn Segments);
            run(&mut Context {
                args: words,
                worker,
                session,
                reply,
                registry,
                entry,
                held,
                nesting,
            })
        }
        None => {
            let held = None;
            run(&mut Context {
                args: words,
                worker,
                session,
                reply,
                registry,
                entry,
                held,
                nesting,
            })
        }
    };
    let counters = worker.counters(&database);
    let figures = &counters.commands[entry.id];
    match result {
        Ok(Effect::None) => {}
        Ok(Effect::Verbatim | Effect::Rewrite(_)) => counters.dirty.add(1),
        Ok(Effect::Wait(wait)) => {
            session.waiter = Some(Waiter::enter(session, entry.id, words, *wait));
        }
        Err(error) => {
            out.truncate(before);
            error.write_to(&mut Writer::new(out, session.protocol));
            figures.failed.add(1);
            counters.count_error(&error.to_string());
        }
    }
    figures.calls.add(1);
    let duration_ns = worker.clock.elapsed_ns().saturating_sub(start_ns);
    figures.nanoseconds.add(duration_ns);
    // It may have changed them, and commands behind it in the same batch go by the new ones.
    session.refresh_settings();
    if session.settings.has_histograms {
        figures.histogram.add(duration_ns, 1);
    }
    let reply_bytes = out.len().saturating_sub(before);
    let settings = &session.settings;
    if settings.slow_ns.min(settings.latency_ns) <= duration_ns
        || settings.large_reply.bytes_min <= reply_bytes
    {
        log_slow_of(worker, session, entry, words, Noted { duration_ns, reply_bytes });
    }
    if nesting == Nesting::Nothing && !worker.scratch.ready.is_empty() {
        blocking::serve(worker, &database);
    }
}

/// CLIENT REPLY: drops the reply that is not wanted. What the client published to itself follows.
fn settle_reply(worker: &Worker, session: &mut Session, out: &mut Vec<u8>, before: usize) {
    let end = if std::mem::take(&mut session.keeps_reply) { out.len() } else { before };
    match session.reply {
        ReplyMode::On => {}
        ReplyMode::Off => out.truncate(end),
        ReplyMode::SkipNext => {
            out.truncate(end);
            session.reply = ReplyMode::Skipping;
        }
        ReplyMode::Skipping => {
            out.truncate(end);
            session.reply = ReplyMode::On;
        }
    }
    if session.is_subscribed() {
        out.append(&mut worker.echo.borrow_mut());
    }
}

/// The reply to all but a few commands while a script runs that has taken too long.
pub const BUSY: &str =
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
/// The same while it is a function.
pub const BUSY_FUNCTION: &str =
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";

/// Replies to a request that does not run.
fn refuse(
    worker: &Worker,
    session: &mut Session,
    refusal: &Refusal,
    words: &[&[u8]],
    out: &mut Vec<u8>,
) {
    let before = out.len();
    let database = Arc::clone(&session.database);
    let counters = worker.counters(&database);
    let registry = &worker.server.registry;
    let error = match refusal {
        Refusal::Unknown(error) => error.clone(),
        Refusal::Arity(id) => CommandError::Arity(registry.entry(*id).full_name.clone().into()),
        Refusal::Subscribed(id) => pubsub::not_now(registry.entry(*id)),
        Refusal::NoAuth(_) => CommandError::text("NOAUTH Authentication required."),
        Refusal::OutOfMemory(_) => {
            CommandError::text("OOM command not allowed when used memory > 'maxmemory'.")
        }
        Refusal::Busy(_) => CommandError::text(session.database.scripting.busy_text()),
        Refusal::InTransaction(_) => {
            CommandError::text("ERR Command not allowed inside a transaction")
        }
        Refusal::Denied(id, denied) => {
            let entry = registry.entry(*id);
            session.last_command = *id as u32;
            let is_queued = session.transaction.is_some();
            let origin = if is_queued { Origin::Multi } else { Origin::TopLevel };
            acl::report(worker, session, entry, words, *denied, origin);
            denied.error(&session.user, entry)
        }
        // Ends the connection without a word.
        Refusal::Http => return,
    };
    let mut error = error;
    if let Refusal::Arity(id)
    | Refusal::NoAuth(id)
    | Refusal::OutOfMemory(id)
    | Refusal::Subscribed(id)
    | Refusal::Busy(id)
    | Refusal::InTransaction(id)
    | Refusal::Denied(id, _) = refusal
    {
        counters.commands[*id].rejected.add(1);
        if registry.entry(*id).full_name == "exec" {
            session.discard();
            let refusal = error.to_string();
            let reason = refusal.strip_prefix("ERR ").unwrap_or(&refusal);
            let text = format!("EXECABORT Transaction discarded because of: {reason}");
            error = CommandError::text(text);
        }
    }
    if let Some(transaction) = &mut session.transaction {
        transaction.is_broken = true;
    }
    counters.count_error(&error.to_string());
    error.write_to(&mut Writer::new(out, session.protocol));
    settle_reply(worker, session, out, before);
}

fn unknown(words: &[&[u8]]) -> Refusal {
    if words[0].eq_ignore_ascii_case(b"POST") || words[0].eq_ignore_ascii_case(b"Host:") {
        return Refusal::Http;
    }
    // As Redis words it: 128 bytes of the name, and of all arguments together.
    fn cut(word: &[u8], max: usize) -> &[u8] {
        let shown = word.split(|&byte| byte == 0).next().unwrap_or_default();
        &shown[..shown.len().min(max)]
    }
    let middle = b"', with args beginning with: ";
    let mut text = [b"ERR unknown command '", cut(words[0], 128), middle].concat();
    let start = text.len();
    for word in &words[1..] {
        let room = (start + 128).saturating_sub(text.len());
        if room == 0 {
            break;
        }
        text.push(b'\'');
        text.extend_from_slice(cut(word, room));
        text.extend_from_slice(b"' ");
    }
    Refusal::Unknown(CommandError::Quoting(text.into()))
}

fn unknown_sub(container: &Entry, word: &[u8]) -> Refusal {
    let help = format!("'. Try {} HELP.", container.name().to_uppercase());
    let word = &word[..word.len().min(128)];
    Refusal::Unknown(CommandError::quoting("ERR unknown subcommand '", word, &help))
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
            let most = database.settings.load().tracked_keys_max;
            database.tracking.shrink_to(most, worker, database, None);
            features::account_all(worker, database);
            database.rates.lock().sample(now_ms, &database.stats, &server.turns);
            let share = database.clients.len() / server.hz().max(1) as usize;
            database.clients.survey_some(share.max(CLIENTS_SURVEYED));
            let tls = database.clients.totals().tls;
            database.room.set_foreign(tls * TlsSession::FOREIGN_BYTES);
            eviction::make_room(worker, database);
        }
        let mut sweep = worker.sweeps.remove(&database.uid).unwrap_or_default();
        expire::sweep(worker, database, &mut sweep);
        worker.sweeps.insert(database.uid, sweep);
    }
}

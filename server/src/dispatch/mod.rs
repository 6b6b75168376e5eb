//! From parsed requests to replies: lookup, checks, locks, and the run of each command in place.
//!
//! Neighbouring commands on data run together: their keys are hashed once, their segments locked
//! once in ascending order, and the cache lines they need are asked for before the first of them
//! runs. A command that needs more than its keys (or the client, or the server) runs by itself.

mod nest;
mod refusal;
mod scratch;
mod timing;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_commands::{Call, DataCommand, Effect, Flags, Scope, Wait};
use carnelian_keyspace::{
    Access, Aftermath, Busy, Changes, Db, Dropped, Hold, Keyspace, Kind, SegmentSet, Segments,
    Told, segment_of,
};
use carnelian_resp::Writer;
use carnelian_tls::TlsSession;

use crate::allocator;
use crate::aof;
use crate::blocking::{self, Waiter};
use crate::clients::CLIENT_BYTES;
use crate::commands::Context;
use crate::database::Database;
use crate::debugger;
use crate::effects::Unit;
use crate::encryption;
use crate::eviction;
use crate::expire;
use crate::features;
use crate::log;
use crate::pause::{self, Held, attention};
use crate::pubsub;
use crate::registry::{Entry, Handler, Registry, ServerRun};
use crate::replication::apply;
use crate::session::{BATCH_REPLY_BYTES, Batch, Next, Outcome, ReplyMode, Session, Worker};
use crate::settings::Settings;
use crate::snapshot;
use crate::tracking;
use crate::waiters::Key;

pub use nest::{Nest, Nesting};
pub use refusal::{
    BUSY, BUSY_FUNCTION, FENCED, LOADING, MASTERDOWN, NOREPLICAS, READONLY, UNCONFIRMED, UNSAVED,
    gated,
};
use refusal::{Refusal, admit, refuse};
pub use scratch::{Scratch, Vectors};
pub use timing::{Noted, log_large};
use timing::{Run, log_slow, log_slow_of};

/// Keys a run may lock together: enough to hide the memory's latency.
const RUN_KEYS: usize = 64;

/// The same where several reactors run. Two runs of 32 keys each nearly always share one of the 256
/// segments and wait for each other; two of 8 do so one time in five, and not for long.
const RUN_KEYS_SHARED: usize = 8;

/// Clients that are looked at in a tick, at least.
const CLIENTS_SURVEYED: usize = 50;

/// Runs the commands of a batch in order, appending their replies.
#[inline]
pub fn run_batch(
    worker: &mut Worker,
    session: &mut Session,
    batch: &Batch<'_>,
    out: &mut Vec<u8>,
) -> Outcome {
    if session.primary.is_some() {
        return apply::run_batch(worker, session, batch, out);
    }
    if session.debugging.is_some() && debugger::forward(session, batch) {
        return Outcome { ran: batch.len(), next: Next::Continue };
    }
    run_commands(worker, session, batch, out)
}

/// The same, whoever the client is.
pub fn run_commands(
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
        if session.primary.is_some() {
            if session.database.keyspace.is_busy() {
                return Outcome { ran: index, next: Next::Postpone };
            }
        } else {
            session.is_out_of_memory = !eviction::make_room(worker, &session.database);
        }
        if session.tracks {
            features::before_tracked(worker, session, out);
        }
        if worker.invalidations.is_any() {
            // Who made room for the command hears of what was evicted before its reply: the key it
            // writes may be one of these.
            features::invalidate(worker, session, out);
        }
        let attention = session.database.attention.load(Ordering::Relaxed);
        let admitted = admit(registry, session, words);
        if session.primary.is_some() && !runs_together(session, &admitted, attention) {
            if let Ok(entry) = &admitted
                && attention & attention::PAUSED != 0
                && is_held(worker, session, entry, words)
            {
                return Outcome { ran: index, next: Next::Postpone };
            }
            apply::relay(worker, session, batch, index, 1);
        }
        match admitted {
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
                Handler::Data(_) if is_simple(session, entry, attention) => {
                    match run_together(worker, session, registry, batch, index, entry, out) {
                        // Whom it comes from may not run it any more, for which it is looked at anew.
                        Ok(0) => session.close_after_reply = session.primary.is_some(),
                        Ok(ran) => {
                            session.last_command = worker.scratch.ids[ran - 1] as u32;
                            index += ran;
                        }
                        Err(Busy) => {
                            refuse(worker, session, &Refusal::Busy(entry.id), words, out);
                            index += 1;
                        }
                    }
                }
                Handler::Data(command) => {
                    session.last_command = entry.id as u32;
                    let before = out.len();
                    run_alone(worker, session, entry, command, batch, index, out);
                    settle_reply(worker, session, out, before);
                    features::after_command(worker, session, entry, words, attention, out);
                    index += 1;
                }
                Handler::Server(command) => {
                    session.last_command = entry.id as u32;
                    let before = out.len();
                    features::before_command(worker, session, entry, words, attention);
                    run_server(worker, session, registry, entry, command.run, words, out, None);
                    if worker.has_flushed.take() {
                        end_nested_flush(session, entry, words, out, before);
                    }
                    settle_reply(worker, session, out, before);
                    features::after_command(worker, session, entry, words, attention, out);
                    index += 1;
                    if session.debugging.is_some() && debugger::is_running(session) {
                        return Outcome { ran: index, next: Next::Continue };
                    }
                }
            },
        }
        if worker.invalidations.is_any() {
            features::invalidate(worker, session, out);
        }
        if session.close_after_reply || worker.overflowed.take() {
            session.close_after_reply = true;
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

/// Whether a command on data may run together with its neighbours.
#[inline]
fn is_simple(session: &Session, entry: &Entry, attention: u32) -> bool {
    entry.is_plain
        && attention == 0
        && session.reply == ReplyMode::On
        && !session.tracks
        && !session.is_subscribed()
}

/// Whether what a request is found to be runs together with its neighbours.
#[cold]
fn runs_together(session: &Session, admitted: &Result<&Entry, Refusal>, attention: u32) -> bool {
    admitted.as_ref().is_ok_and(|entry| {
        matches!(entry.handler, Handler::Data(_))
            && session.transaction.is_none()
            && is_simple(session, entry, attention)
    })
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

/// Puts a command behind MULTI.
fn enqueue(session: &mut Session, entry: &Entry, words: &[&[u8]], out: &mut Vec<u8>) {
    session.last_command = entry.id as u32;
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
) -> Result<usize, Busy> {
    let database = &session.database;
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

    let mut access = match lock(session, keyspace, wanted) {
        Ok(access) => access,
        Err(busy) => {
            worker.scratch = scratch;
            return Err(busy);
        }
    };
    let writes = |id: &usize| registry.entry(*id).flags.contains(Flags::WRITE);
    if apply::is_cut_off(session) || apply::is_shut_out(session) && scratch.ids.iter().any(writes) {
        worker.scratch = scratch;
        return Ok(0);
    }
    if 1 < scratch.hashes.len() {
        prefetch(&mut access, usize::from(session.db), &scratch.hashes);
    }
    let Vectors { ids, aftermath, runs, ready, unit, .. } = &mut *scratch;
    let mut call = call(worker, session, access.into(), aftermath, out);
    let sent = batch.raw.data;
    let mut run = Run::begin(worker, database, runs, unit, sent, false, &session.settings);
    let mut ran = 0;
    let mark = eviction::mark(worker, database);
    let is_bounded = mark != i64::MAX;
    for &id in &*ids {
        let entry = registry.entry(id);
        let Handler::Data(command) = entry.handler else { break };
        let (words, sent) = (batch.command(index + ran), batch.raw.place(index + ran));
        run.command(&mut call, entry, command, words, &sent);
        ran += 1;
        if hear(database, call.db.changes, ready) || BATCH_REPLY_BYTES <= call.reply.len() {
            break;
        }
        if is_bounded && entry.flags.contains(Flags::DENYOOM) && mark <= allocator::balance() {
            break;
        }
    }
    let slow = run.end();
    if let Some(link) = &session.primary {
        unit.relay(link.source, session.db.into(), batch.raw.of(index, ran));
    }
    let logged = log_unit_of(database, unit, sent);
    drop(call);
    settle(worker, database, Some(session), &mut scratch.aftermath);
    for (ran, noted) in slow {
        let entry = registry.entry(scratch.ids[ran]);
        log_slow_of(worker, session, entry, batch.command(index + ran), noted);
    }
    worker.scratch = scratch;
    if !worker.scratch.ready.is_empty() {
        blocking::serve(worker, database);
    }
    session.note_logged(logged);
    Ok(ran)
}

/// Locks segments for a client's commands. What the primary sends waits, however long a script runs.
#[inline]
fn lock<'k>(
    session: &Session,
    keyspace: &'k Keyspace,
    wanted: SegmentSet,
) -> Result<Access<'k>, Busy> {
    match session.primary {
        None => keyspace.lock_unless_busy(wanted),
        Some(_) => Ok(keyspace.lock(wanted)),
    }
}

/// Logs what has been collected, while the locks of those who did it are held. Where it ends.
#[inline]
pub fn log_unit(database: &Database, unit: &mut Unit) -> Option<u64> {
    log_unit_of(database, unit, &[])
}

/// The same of what may still be among the bytes of a batch.
#[inline]
fn log_unit_of(database: &Database, unit: &mut Unit, batch: &[u8]) -> Option<u64> {
    if unit.is_empty() { None } else { Some(database.log.append_of(unit, batch)) }
}

/// Logs a unit that has commands inside of commands, while their locks are held.
pub fn log_nested(worker: &mut Worker, session: &mut Session) {
    let unit = &mut worker.scratch.unit;
    unit.close();
    if session.primary.is_some() {
        unit.note_selected(session.db.into());
    }
    session.note_logged(log_unit(&session.database, unit));
}

/// Logs what has gone without a command, while its locks are held: each by itself.
pub fn log_departures(database: &Database, changes: &mut Changes, is_lazy: bool) {
    if !changes.has_departures() {
        return;
    }
    if database.log.is_followed() {
        let mut unit = Unit::default();
        unit.departures(changes, is_lazy);
        database.log.append(&mut unit);
    }
    changes.departed.clear();
    changes.expired_hash_fields.clear();
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
    batch: &Batch<'_>,
    index: usize,
    out: &mut Vec<u8>,
) {
    let (words, sent) = (batch.command(index), batch.raw.place(index));
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
    let Ok(access) = lock(session, keyspace, wanted) else {
        worker.scratch = scratch;
        return refuse(worker, session, &Refusal::Busy(entry.id), words, out);
    };
    if apply::is_cut_off(session) {
        worker.scratch = scratch;
        session.close_after_reply = true;
        return;
    }
    if entry.flags.contains(Flags::WRITE) && apply::is_shut_out(session) {
        drop(access);
        worker.scratch = scratch;
        return refuse(worker, session, &Refusal::Gated(entry.id, READONLY), words, out);
    }
    let before = out.len();
    let Vectors { aftermath, runs, ready, unit, .. } = &mut *scratch;
    let mut call = call(worker, session, access.into(), aftermath, out);
    call.may_block = session.primary.is_none();
    let data = batch.raw.data;
    let mut run = Run::begin(worker, &database, runs, unit, data, false, &session.settings);
    run.command(&mut call, entry, command, words, &sent);
    hear(&database, call.db.changes, ready);
    let waiter = run.wait.take().map(|wait| Waiter::enter(session, entry.id, words, *wait));
    let slow = run.end();
    let logged = log_unit_of(&database, unit, data);
    if session.tracks {
        tracking::remember(session, entry, words);
    }
    drop(call);
    let waiter = waiter.or_else(|| {
        let start = (session.reply == ReplyMode::On).then_some(before);
        end_flush(worker, session, entry, words, &mut scratch.aftermath, out, start)
    });
    settle(worker, &database, Some(session), &mut scratch.aftermath);
    worker.scratch = scratch;
    session.waiter = waiter;
    session.note_logged(logged);
    for (_, noted) in slow {
        log_slow_of(worker, session, entry, words, noted);
    }
    if !worker.scratch.ready.is_empty() {
        blocking::serve(worker, &database);
    }
}

/// After a flush, has the client wait for what its reply has to come after: all that was dropped is free, and the
/// file of snapshots is empty too. Others need not wait for that. `start`: where the reply is, if there is one.
#[inline]
fn end_flush(
    worker: &Worker,
    session: &Session,
    entry: &Entry,
    words: &[&[u8]],
    aftermath: &mut Aftermath,
    out: &mut Vec<u8>,
    start: Option<usize>,
) -> Option<Arc<Waiter>> {
    if entry.scope != Scope::Everything {
        return None;
    }
    let database = &session.database;
    let frees = aftermath.changes.frees_now && !aftermath.dropped.is_empty();
    let saves = features::flushes_all(entry, words)
        && snapshot::after_flush(database)
        && saves_now_or_later(session);
    let start = start.filter(|_| frees || saves)?;
    let waiter = Waiter::enter(session, entry.id, words, Wait::default());
    let reply = out.split_off(start);
    let ended = Arc::clone(&waiter);
    let finish = move || match saves {
        true => snapshot::save_flushed(&Arc::clone(&ended.database), move || ended.finish(reply)),
        false => ended.finish(reply),
    };
    if frees {
        let dropped = std::mem::take(&mut aftermath.dropped);
        worker.server.reclaimer.free_before(dropped, finish);
    } else {
        finish();
    }
    Some(waiter)
}

/// After FLUSHALL with save points: whether the client is to wait for the new file. Else that is made when it can be.
fn saves_now_or_later(session: &Session) -> bool {
    let database = &session.database;
    let is_awaited = session.reply == ReplyMode::On && session.waiter.is_none();
    let saves = is_awaited && snapshot::can_begin(database);
    if !saves {
        database.snapshots.schedule();
    }
    saves
}

/// The same where a transaction or a script has flushed everything: its reply comes after the file is written.
#[cold]
fn end_nested_flush(
    session: &mut Session,
    entry: &Entry,
    words: &[&[u8]],
    out: &mut Vec<u8>,
    start: usize,
) {
    if saves_now_or_later(session) {
        let waiter = Waiter::enter(session, entry.id, words, Wait::default());
        let (ended, reply) = (Arc::clone(&waiter), out.split_off(start));
        snapshot::save_flushed(&session.database, move || ended.finish(reply));
        session.waiter = Some(waiter);
    }
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
    let settings = database.settings.load();
    let Vectors { aftermath, ready, .. } = &mut *scratch;
    let mut db = open(worker, database, &settings, db, Hold::Lent(held), aftermath);
    let kind = db.kind(key);
    hear(database, db.changes, ready);
    log_departures(database, db.changes, settings.lazy_expire);
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
    let Vectors { aftermath, runs, ready, unit, .. } = &mut *scratch;
    let mut db = open(worker, database, &settings, waiter.db.into(), Hold::Lent(held), aftermath);
    db.no_touch = waiter.no_touch;
    let reply = Writer::new(out, waiter.protocol);
    let environment = &settings.environment;
    let output_max = usize::MAX;
    let mut call = Call { args: &[], db, reply, environment, may_block: true, output_max };
    let mut run = Run::begin(worker, database, runs, unit, &[], false, &settings);
    run.command(&mut call, entry, command, words, &(0..0));
    hear(database, call.db.changes, ready);
    let wait = run.wait.take();
    let slow = run.end();
    log_unit(database, unit);
    drop(call);
    worker.invalidations.note(database, &mut scratch.aftermath.changes, waiter.client.id);
    settle(worker, database, None, &mut scratch.aftermath);
    worker.scratch = scratch;
    for (_, noted) in slow {
        log_slow(worker, database, &waiter.client, &settings, entry, words, noted);
    }
    wait.map_or(Effect::None, Effect::Wait)
}

/// A logical database as a command finds it: under these locks, and told whom its changes concern.
pub fn open<'c>(
    worker: &Worker,
    database: &Database,
    settings: &Settings,
    index: usize,
    hold: Hold<'c>,
    aftermath: &'c mut Aftermath,
) -> Db<'c> {
    let changes = &mut aftermath.changes;
    changes.listening = pubsub::listening(database, settings);
    match hold {
        Hold::Own(_) => changes.watch(&database.waiters.interest),
        // It may be locked when it is first touched.
        Hold::Lent(_) => changes.watch_ahead(&database.waiters.interest),
    }
    let attention = database.attention.load(Ordering::Relaxed);
    changes.keeps_expired = attention & attention::PAUSED != 0 || database.replication.is_replica();
    changes.following = database.log.is_followed();
    let policy = settings.environment.policy;
    let mut db = Db::new(hold, index, worker.clock.now_ms(), policy, aftermath);
    if worker.is_timeless {
        db.set_timeless();
    }
    db
}

fn call<'c>(
    worker: &Worker,
    session: &'c Session,
    hold: Hold<'c>,
    aftermath: &'c mut Aftermath,
    out: &'c mut Vec<u8>,
) -> Call<'c> {
    let Session { database, settings, .. } = session;
    let mut db = open(worker, database, settings, session.db.into(), hold, aftermath);
    db.no_touch = session.no_touch;
    if session.primary.is_some() {
        db.set_timeless();
    }
    let reply = Writer::new(out, session.protocol);
    let output_max = match session.reply {
        ReplyMode::On => settings.output_limits.of(session.class).hard_max(),
        _ => usize::MAX,
    };
    Call { args: &[], db, reply, environment: &settings.environment, may_block: false, output_max }
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
    let database = &Arc::clone(&session.database);
    let start_ns = worker.clock.elapsed_ns();
    let nesting = held.as_ref().map_or(Nesting::Nothing, |(_, nesting)| *nesting);
    if nesting == Nesting::Nothing {
        // Time stands still in a transaction and in a script: a key that is there at its first command
        // is there at the last.
        worker.clock.advance_to(start_ns);
    }
    let protocol = session.protocol;
    let reply = Writer::new(out, protocol);
    let mut context = Context {
        args: words,
        worker,
        database,
        session,
        reply,
        registry,
        entry,
        held: None,
        nesting,
    };
    if let Some((held, _)) = held {
        context.held = Some(held);
    }
    let result = run(&mut context);
    let counters = worker.counters(database);
    let figures = &counters.commands[entry.id];
    match result {
        Ok(Effect::None) => {}
        Ok(Effect::Verbatim | Effect::Rewrite(_)) => counters.dirty.add(1),
        Ok(Effect::Wait(wait)) => {
            let waiter = Waiter::enter(session, entry.id, words, *wait);
            if waiter.awaited.is_some() {
                let waits = &database.replication.primary.waits;
                waits.enter(&waiter);
                // What was acknowledged until then found nobody waiting.
                waits.settle(database);
            }
            session.waiter = Some(waiter);
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
    if nesting == Nesting::Nothing {
        // It may have taken long, and there may be commands behind it in the same batch.
        worker.clock.advance_to(start_ns.saturating_add(duration_ns));
        if !worker.scratch.ready.is_empty() {
            blocking::serve(worker, database);
        }
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
    // A copy: what is done here may take long, and who changes the list would wait.
    for database in &server.databases.read().clone() {
        if worker.reactor == 0 {
            let most = database.settings.load().tracked_keys_max;
            database.tracking.shrink_to(most, worker, database, None);
            features::account_all(worker, database);
            database.rates.lock().sample(now_ms, &database.stats, &server.turns);
            let share = database.clients.len() / server.hz().max(1) as usize;
            database.clients.survey_some(share.max(CLIENTS_SURVEYED));
            let clients = database.clients.totals();
            let fixed = database.clients.len() * CLIENT_BYTES;
            let buffers = clients.query_bytes + clients.output_bytes;
            database.room.set_clients(fixed + buffers, clients.tls * TlsSession::FOREIGN_BYTES);
            eviction::make_room(worker, database);
            database.replication.primary.tick(&server, database);
            snapshot::tick(database);
            aof::tick(&server, database);
            database.sockets.tick();
            if let Some(interval_ms) = database.settings.load().certificates_ms {
                encryption::tick(&server, database, interval_ms, now_ms);
            }
        }
        let mut sweep = worker.sweeps.remove(&database.uid).unwrap_or_default();
        expire::sweep(worker, database, &mut sweep);
        worker.sweeps.insert(database.uid, sweep);
    }
}

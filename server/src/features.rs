//! What dispatch and the reactor do for MONITOR, CLIENT PAUSE and CLIENT TRACKING: one call each, so
//! that those know nothing of the features themselves.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_commands::{Scope, args};

use crate::clients::{ClientShared, bits};
use crate::commands::client_line;
use crate::connection::Connection;
use crate::database::Database;
use crate::dispatch::Nesting;
use crate::log;
use crate::mailbox::Message;
use crate::monitor::Source;
use crate::pause::attention;
use crate::registry::Entry;
use crate::service::READ_BYTES;
use crate::session::{Session, Worker};
use crate::snapshot;
use crate::tracking::{self, Invalidations};

/// Before one of the server's own commands: those that run others are shown before them.
#[inline]
pub fn before_command(
    worker: &Worker,
    session: &Session,
    entry: &Entry,
    words: &[&[u8]],
    attention: u32,
) {
    if attention & attention::MONITORED != 0 && entry.runs_scripts {
        let source = Source::Client(&session.shared);
        session.database.monitors.feed_always(worker, &source, session.db, entry, words);
    }
}

/// After a command that ran by itself, with its reply in `out`, and no lock held.
#[inline]
pub fn after_command(
    worker: &mut Worker,
    session: &mut Session,
    entry: &Entry,
    words: &[&[u8]],
    attention: u32,
    out: &mut Vec<u8>,
) {
    if attention & attention::MONITORED != 0 {
        let source = Source::Client(&session.shared);
        session.database.monitors.feed(worker, &source, session.db, entry, words);
    }
    if session.tracks {
        after_tracked(worker, session, entry, out);
    }
}

/// Whether this is a FLUSHALL that does what it says.
#[inline]
pub fn flushes_all(entry: &Entry, words: &[&[u8]]) -> bool {
    entry.scope == Scope::Everything
        && entry.full_name == "flushall"
        && match &words[1..] {
            [] => true,
            [mode] => args::is(mode, "SYNC") || args::is(mode, "ASYNC"),
            _ => false,
        }
}

/// Before a command of a client that tracks: keys beyond the limit are forgotten, whether or not the
/// command will run now.
#[cold]
pub fn before_tracked(worker: &mut Worker, session: &Session, out: &mut Vec<u8>) {
    let most = session.settings.tracked_keys_max;
    session.database.tracking.shrink_to(most, worker, &session.database, Some((session, out)));
}

#[cold]
fn after_tracked(worker: &mut Worker, session: &mut Session, entry: &Entry, out: &mut Vec<u8>) {
    let database = Arc::clone(&session.database);
    let most = session.settings.tracked_keys_max;
    database.tracking.shrink_to(most, worker, &database, Some((session, out)));
    // It holds for one command, or for one transaction.
    if session.caching
        && session.transaction.is_none()
        && !["client|caching", "multi"].contains(&entry.full_name.as_str())
    {
        session.caching = false;
        session.shared.set_flag(bits::CACHING, false);
    }
}

/// After a command that ran inside a transaction or a script, under its locks.
#[inline]
pub fn after_nested(
    worker: &Worker,
    session: &Session,
    entry: &Entry,
    words: &[&[u8]],
    nesting: Nesting,
) {
    if session.tracks {
        tracking::remember(session, entry, words);
    }
    // What is read back from a file is in a file.
    if flushes_all(entry, words) && !worker.is_timeless {
        worker.has_flushed.set(snapshot::after_flush(&session.database));
    }
    let attention = session.database.attention.load(Ordering::Relaxed);
    if attention & attention::MONITORED != 0 {
        let source = match nesting {
            Nesting::Script => Source::Script,
            _ => Source::Client(&session.shared),
        };
        session.database.monitors.feed(worker, &source, session.db, entry, words);
    }
}

/// Tells those who track keys of what a client has changed, its replies being in `out`.
#[cold]
pub fn invalidate(worker: &mut Worker, session: &Session, out: &mut Vec<u8>) {
    Invalidations::tell(worker, Some((session, out)));
}

/// Tells of what is left: changes that no command of a client made, and keys by their prefixes.
#[inline]
pub fn end_turn(worker: &mut Worker) {
    if worker.invalidations.is_any() {
        Invalidations::tell(worker, None);
    }
    if !worker.broadcasts.is_empty() {
        worker.broadcasts.take().send(worker);
    }
}

/// Follows what a client takes of the memory, while `maxmemory-clients` limits that.
#[inline]
pub fn account(worker: &Worker, session: &Session) {
    let most = session.settings.clients_memory_max;
    if most != 0 {
        let clients = &session.database.clients;
        let client = &session.shared;
        if clients.account(client) && most <= clients.memory() {
            match clients.is_spent() {
                // The others may not be evicted, or are gone already.
                true if client.has(bits::NO_EVICT) => {}
                true => close(worker, &session.database, client),
                false => evict(worker, &session.database, most),
            }
        }
    }
}

/// Looks by time at what all clients take.
pub fn account_all(worker: &Worker, database: &Database) {
    let most = database.settings.load().clients_memory_max;
    if most != 0 {
        database.clients.account_all();
        if most <= database.clients.memory() {
            evict(worker, database, most);
        } else {
            database.clients.set_spent(false);
        }
    }
}

/// Before the commands in `waiting` bytes of requests run: what they take counts already, unless they lie in the
/// buffer that all share. Whether the client has to go because of it.
#[inline]
pub fn is_too_large(worker: &Worker, session: &Session, waiting: usize) -> bool {
    session.settings.clients_memory_max != 0 && READ_BYTES < waiting && {
        session.shared.query_bytes.store(waiting, Ordering::Relaxed);
        session.shared.query_room.store(0, Ordering::Relaxed);
        account(worker, session);
        session.shared.has(bits::CLOSING)
    }
}

/// Closes connections, largest first, until all clients take less than `most` bytes.
#[cold]
fn evict(worker: &Worker, database: &Database, most: usize) {
    let clients = database.clients.list();
    let evictable = clients.iter().enumerate().filter(|(_, client)| !client.has(bits::NO_EVICT));
    let mut by_size: BinaryHeap<(usize, usize)> =
        evictable.map(|(place, client)| (client.memory.load(Ordering::Relaxed), place)).collect();
    while most <= database.clients.memory() {
        let Some((_, place)) = by_size.pop() else {
            if !database.clients.set_spent(true) {
                log::warning!("Over client maxmemory after evicting all evictable clients");
            }
            return;
        };
        close(worker, database, &clients[place]);
    }
    database.clients.set_spent(false);
}

/// Closes the connection of a client that takes too much.
#[cold]
fn close(worker: &Worker, database: &Database, client: &Arc<ClientShared>) {
    let line = client_line(client, &worker.server.registry, worker.clock.now_ms());
    log::notice!("Evicting client: {}", String::from_utf8_lossy(&line));
    client.set_flag(bits::CLOSING, true);
    database.clients.account(client);
    database.clients.remove(client.id);
    worker.counters(database).evicted_clients.add(1);
    worker.post(client.reactor, Message::Kill(Arc::clone(client)));
}

/// A connection waits for the end of a pause, or no longer does.
pub fn set_postponed(session: &Session, is_postponed: bool) {
    session.shared.set_flag(bits::POSTPONED, is_postponed);
    let postponed = &session.database.pause.postponed;
    if is_postponed {
        postponed.fetch_add(1, Ordering::Relaxed);
    } else {
        postponed.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Forgets a client whose connection has ended.
pub fn forget(connection: &Connection) {
    let session = &connection.session;
    let (shared, database) = (&session.shared, &session.database);
    if session.settings.clients_memory_max != 0 {
        shared.set_flag(bits::CLOSING, true);
        database.clients.account(shared);
    }
    if connection.flags.postponed {
        set_postponed(session, false);
    }
    if shared.has(bits::MONITOR) {
        database.monitors.remove(shared.id, &database.attention);
    }
    if shared.has(bits::TRACKING) {
        database.tracking.turn_off(database, shared);
    }
}

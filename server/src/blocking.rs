//! Clients that wait: for a key that can serve them, or for time to pass.
//!
//! A command that cannot be served yet returns `Effect::Wait`. While its keys are still locked, the
//! client enters the line of each of them. Who changes such a key runs, right after its own command, the
//! commands of those who wait for it, in the order in which they came, and sends each reply to the
//! reactor of its client. Nothing is polled: a client that waits costs its memory.
//!
//! Whoever ends a wait claims it first, so that it ends once: served, timed out, or called off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use carnelian_commands::{CommandError, Effect, OnTimeout, Wait};
use carnelian_keyspace::SegmentSet;
use carnelian_resp::{Protocol, Writer};
use smallvec::SmallVec;

use crate::acl::{self, User};
use crate::clients::ClientShared;
use crate::database::Database;
use crate::dispatch;
use crate::mailbox::Message;
use crate::replication::waits::Awaited;
use crate::session::{Session, Worker};
use crate::waiters::Key;

/// Most replies to those who have waited are no longer: a key, and an element of moderate size.
const USUAL_REPLY: usize = 256;

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;

/// A client's wait.
pub struct Waiter {
    pub client: Arc<ClientShared>,
    pub database: Arc<Database>,
    /// The command, by its place in the registry, and its words.
    pub command: usize,
    words: Words,
    pub wait: Wait,
    pub db: u16,
    pub protocol: Protocol,
    pub no_touch: bool,
    pub user: Arc<User>,
    /// Its place in every line.
    pub order: u64,
    /// What WAIT waits for.
    pub awaited: Option<Awaited>,
    state: AtomicU8,
}

/// The words of a request, kept in one piece.
struct Words {
    bytes: Box<[u8]>,
    /// Where each word ends.
    ends: SmallVec<[usize; 4]>,
}

impl Words {
    fn of<'w>(words: impl Iterator<Item = &'w [u8]> + Clone) -> Self {
        let mut bytes = Vec::with_capacity(words.clone().map(<[u8]>::len).sum());
        let ends = words.map(|word| {
            bytes.extend_from_slice(word);
            bytes.len()
        });
        let ends = ends.collect();
        Self { bytes: bytes.into(), ends }
    }

    fn slices(&self) -> SmallVec<[&[u8]; 8]> {
        let mut start = 0;
        let slices =
            self.ends.iter().map(|&end| &self.bytes[std::mem::replace(&mut start, end)..end]);
        slices.collect()
    }
}

/// How CLIENT UNBLOCK ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    TimeOut,
    Error,
}

impl Waiter {
    /// Has the session's client wait. Called while the segments of the keys are locked.
    pub fn enter(session: &Session, command: usize, words: &[&[u8]], mut wait: Wait) -> Arc<Self> {
        let database = &session.database;
        let words = match wait.words.take() {
            Some(words) => Words::of(words.iter().map(|word| &**word)),
            None => Words::of(words.iter().copied()),
        };
        let waiter = Arc::new(Self {
            client: Arc::clone(&session.shared),
            database: Arc::clone(database),
            command,
            words,
            wait,
            db: session.db,
            protocol: session.protocol,
            no_touch: session.no_touch,
            user: Arc::clone(&session.user),
            order: database.waiters.next_order(),
            awaited: session.awaited.take(),
            state: AtomicU8::new(WAITING),
        });
        *session.shared.waiter.lock() = Some(Arc::clone(&waiter));
        database.waiters.enter(&waiter);
        waiter
    }

    /// Makes the caller the one who ends the wait.
    fn claim(&self) -> bool {
        let (order, loaded) = (Ordering::AcqRel, Ordering::Acquire);
        self.state.compare_exchange(WAITING, CLAIMED, order, loaded).is_ok()
    }

    /// Whether nobody has ended the wait.
    pub fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }

    fn give_back(&self) {
        self.state.store(WAITING, Ordering::Release);
    }

    /// Removes what was claimed from all lines.
    fn leave(&self) {
        self.database.waiters.leave(self);
        *self.client.waiter.lock() = None;
    }

    /// Whether it waits for something that cannot be called off, and that ends soon.
    fn is_bound(&self) -> bool {
        let Wait { keys, deadline_ms, on_timeout, .. } = &self.wait;
        keys.is_empty()
            && deadline_ms.is_none()
            && *on_timeout == OnTimeout::NullArray
            && self.awaited.is_none()
    }

    /// Ends the wait in vain. The reply, unless somebody else has ended it.
    fn time_out(&self) -> Option<Vec<u8>> {
        if !self.claim() {
            return None;
        }
        self.leave();
        if let Some(awaited) = &self.awaited {
            return Some(awaited.reply_now(&self.database, self.protocol));
        }
        let mut out = Vec::new();
        self.wait.on_timeout.write_to(&mut Writer::new(&mut out, self.protocol));
        Some(out)
    }

    /// The client is gone. Whether nobody has ended the wait before.
    pub fn call_off(&self) -> bool {
        let is_mine = self.claim();
        if is_mine {
            self.leave();
        }
        is_mine
    }

    /// Ends the wait with this reply, from any thread, unless somebody has ended it before.
    pub fn finish(self: &Arc<Self>, reply: Vec<u8>) {
        if self.claim() {
            self.leave();
            self.client.resume(Arc::clone(self), reply);
        }
    }
}

/// Ends a wait in vain, which counts as a call. The reply, unless somebody else has ended it.
pub fn time_out(worker: &Worker, waiter: &Waiter) -> Option<Vec<u8>> {
    let reply = waiter.time_out()?;
    worker.counters(&waiter.database).commands[waiter.command].calls.add(1);
    Some(reply)
}

/// CLIENT UNBLOCK. Whether the client was waiting.
pub fn unblock(worker: &mut Worker, client: &ClientShared, how: Unblock) -> bool {
    let Some(waiter) = client.waiter.lock().clone() else { return false };
    if waiter.is_bound() {
        return false;
    }
    let reply = match how {
        Unblock::TimeOut => time_out(worker, &waiter),
        Unblock::Error => waiter.call_off().then(|| {
            let error = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
            let counters = worker.counters(&waiter.database);
            counters.commands[waiter.command].calls.add(1);
            counters.commands[waiter.command].failed.add(1);
            counters.count_error(error);
            format!("-{error}\r\n").into_bytes()
        }),
    };
    let Some(reply) = reply else { return false };
    worker.post(waiter.client.reactor, Message::Resume(waiter, reply));
    true
}

/// Ends all waits that can be called off, with this error, which counts as a call that failed.
pub fn end_all(worker: &mut Worker, database: &Database, error: &str) {
    for client in database.clients.list() {
        let Some(waiter) = client.waiter.lock().clone() else { continue };
        if waiter.is_bound() || !waiter.call_off() {
            continue;
        }
        let counters = worker.counters(database);
        let figures = &counters.commands[waiter.command];
        // One of the server's own commands has counted as a call when it began to wait.
        figures.calls.add(u64::from(waiter.awaited.is_none()));
        figures.failed.add(1);
        counters.count_error(error);
        let reply = format!("-{error}\r\n").into_bytes();
        worker.post(waiter.client.reactor, Message::Resume(waiter, reply));
    }
}

/// Serves those who wait for the keys that the last commands have changed, and those whom that serves
/// in turn. Called with no lock held.
pub fn serve(worker: &mut Worker, database: &Arc<Database>) {
    // A key that is served may become ready again by what that moves.
    while !worker.scratch.ready.is_empty() {
        let key = worker.scratch.ready.remove(0);
        serve_key(worker, database, &key);
    }
}

fn serve_key(worker: &mut Worker, database: &Arc<Database>, (db, key): &Key) {
    let mut order = None;
    while let Some(waiter) = database.waiters.next_waiting(*db, key, order) {
        order = Some(waiter.order);
        match try_again(worker, database, &waiter, key) {
            Attempt::Done | Attempt::Waits => {}
            // The others could not be served either.
            Attempt::KeyIsGone if !waiter.wait.heeds_loss => {
                let waiters = &database.waiters;
                if waiters.blocking_keys_on_loss.load(Ordering::Relaxed) == 0 {
                    return;
                }
            }
            Attempt::KeyIsGone => {}
        }
    }
}

enum Attempt {
    Done,
    Waits,
    KeyIsGone,
}

/// Runs the command of one who waits, if the key promises to serve it.
fn try_again(
    worker: &mut Worker,
    database: &Arc<Database>,
    waiter: &Arc<Waiter>,
    key: &[u8],
) -> Attempt {
    let server = Arc::clone(&worker.server);
    let entry = server.registry.entry(waiter.command);
    let keyspace = &database.keyspace;
    let words = waiter.words.slices();
    let mut wanted = SegmentSet::default();
    for key in &waiter.wait.keys {
        wanted.insert(carnelian_keyspace::segment_of(keyspace.hash(key)));
    }
    let _ = entry.for_each_key(&words, |key| {
        wanted.insert(carnelian_keyspace::segment_of(keyspace.hash(key)));
    });
    let mut access = keyspace.lock(wanted);
    let kind = dispatch::kind_of(worker, database, &mut access, waiter.db.into(), key);
    let is_promising = kind == waiter.wait.kind;
    if !is_promising && !waiter.wait.heeds_loss {
        return if kind.is_none() { Attempt::KeyIsGone } else { Attempt::Waits };
    }
    if !waiter.claim() {
        return Attempt::Waits;
    }
    let mut reply = Vec::with_capacity(USUAL_REPLY);
    // Rules may have changed since it came. One whose user is gone will be ended; until then it
    // gets what an unknown client gets.
    let user = database.acl.find(&waiter.user.name).filter(|user| user.is_same(&waiter.user));
    let denied = match &user {
        Some(user) => {
            acl::check(user, entry, &words, waiter.db).err().map(|denied| denied.error(user, entry))
        }
        None => Some(CommandError::text("NOAUTH Authentication required.")),
    };
    if let Some(error) = denied {
        error.write_to(&mut Writer::new(&mut reply, waiter.protocol));
        let counters = worker.counters(database);
        counters.count_error(&error.to_string());
        counters.commands[entry.id].rejected.add(1);
        waiter.leave();
        drop(access);
        worker.post(waiter.client.reactor, Message::Resume(Arc::clone(waiter), reply));
        return Attempt::Done;
    }
    let ready = worker.scratch.ready.len();
    let effect = dispatch::run_for(worker, waiter, entry, &mut access, &words, &mut reply);
    if let Effect::Wait(_) = effect {
        // It has only looked, if as one that may write.
        worker.scratch.ready.truncate(ready);
        waiter.give_back();
        return Attempt::Waits;
    }
    waiter.leave();
    drop(access);
    worker.post(waiter.client.reactor, Message::Resume(Arc::clone(waiter), reply));
    Attempt::Done
}

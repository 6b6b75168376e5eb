//! The clients of a database, as seen from any thread: for CLIENT LIST, CLIENT KILL and INFO.
//!
//! Each connection shares one `ClientShared` with the rest of the server. Only its reactor writes
//! the figures in it (plain stores, once a batch), so that anyone may read them without a lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use parking_lot::Mutex;

use crate::blocking::Waiter;
use crate::connection::Connection;
use crate::mailbox::{Mailbox, Message};
use crate::session::NO_COMMAND;

/// Bits of `ClientShared::flags`.
pub mod bits {
    /// CLIENT NO-EVICT.
    pub const NO_EVICT: u32 = 1;
    /// CLIENT NO-TOUCH.
    pub const NO_TOUCH: u32 = 1 << 1;
    /// CLIENT TRACKING is on; then how.
    pub const TRACKING: u32 = 1 << 2;
    pub const BCAST: u32 = 1 << 3;
    pub const OPTIN: u32 = 1 << 4;
    pub const OPTOUT: u32 = 1 << 5;
    pub const NOLOOP: u32 = 1 << 6;
    /// The client that invalidations were to go to is gone.
    pub const BROKEN_REDIRECT: u32 = 1 << 7;
    /// CLIENT CACHING was called.
    pub const CACHING: u32 = 1 << 8;
    pub const MONITOR: u32 = 1 << 9;
    /// Its next command is held back by CLIENT PAUSE.
    pub const POSTPONED: u32 = 1 << 10;
    /// CLIENT CAPA REDIRECT.
    pub const CAPA_REDIRECT: u32 = 1 << 11;
    /// It is being closed.
    pub const CLOSING: u32 = 1 << 12;
    /// It is the server that this database follows.
    pub const PRIMARY: u32 = 1 << 13;
    /// A key that it watches has changed.
    pub const DIRTY: u32 = 1 << 14;
    /// It is connected through a unix socket.
    pub const UNIX_SOCKET: u32 = 1 << 15;
    /// It is closed as soon as it has taken its replies.
    pub const CLOSE_AFTER_REPLY: u32 = 1 << 16;
    /// It is a replica of this database.
    pub const REPLICA: u32 = 1 << 17;
}

/// What each client takes, whatever it does: what is known of it, and its connection.
pub const CLIENT_BYTES: usize = size_of::<ClientShared>() + size_of::<Connection>();

/// What a watched key takes, its name aside.
const WATCHED_BYTES: usize = 120;
/// What a subscription takes, its channel's name aside.
const SUBSCRIPTION_BYTES: usize = 100;

/// What is known of a client outside of its reactor.
pub struct ClientShared {
    pub id: u64,
    /// Of the peer, `host:port` or the path of a unix socket and `:0`.
    pub address: String,
    /// Of our side.
    pub local_address: String,
    pub file_descriptor: i32,
    pub created_ms: u64,
    /// Index of the reactor that the connection lives on.
    pub reactor: usize,
    pub tls: AtomicBool,
    pub last_interaction_ms: AtomicU64,
    /// The logical database in use.
    pub db: AtomicU32,
    /// 2 or 3.
    pub protocol: AtomicU8,
    /// Place of the last command in the registry, or [`NO_COMMAND`].
    pub last_command: AtomicU32,
    /// Bits that dispatch gives a meaning to.
    pub flags: AtomicU32,
    /// Bytes of requests kept for this connection.
    pub query_bytes: AtomicUsize,
    /// Room that is left in the memory they are in.
    pub query_room: AtomicUsize,
    /// Bytes of replies that the peer has not taken yet.
    pub output_bytes: AtomicUsize,
    /// In how many pieces.
    pub output_pieces: AtomicUsize,
    pub net_input_bytes: AtomicU64,
    pub net_output_bytes: AtomicU64,
    pub commands: AtomicU64,
    /// Channels, patterns and sharded channels subscribed to.
    pub channels: AtomicUsize,
    pub patterns: AtomicUsize,
    pub sharded_channels: AtomicUsize,
    pub names: Mutex<Names>,
    /// The client that invalidations go to instead; 0: none.
    pub redirect: AtomicU64,
    /// Of CLIENT TRACKING ... BCAST.
    pub prefixes: Mutex<Vec<Box<[u8]>>>,
    /// Bytes of the request that is running, and of what is held for watched keys, subscriptions and
    /// the like.
    pub argument_bytes: AtomicUsize,
    pub other_bytes: AtomicUsize,
    /// The most reply bytes of a turn since that was last looked at.
    pub reply_bytes_peak: AtomicUsize,
    /// All its memory, as of the last look.
    pub memory: AtomicUsize,
    /// What the client waits for.
    pub waiter: Mutex<Option<Arc<Waiter>>>,
    /// Commands behind MULTI; -1 without one.
    pub queued: AtomicI64,
    /// Bytes of them.
    pub queued_bytes: AtomicUsize,
    /// Keys it watches.
    pub watched: AtomicUsize,
    /// Where the reactor keeps the connection; `u64::MAX` while it is not there.
    pub(crate) place: AtomicU64,
    mailbox: Arc<Mailbox>,
}

/// What a client calls itself, and the user it is.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub name: Box<[u8]>,
    pub library_name: Box<[u8]>,
    pub library_version: Box<[u8]>,
    pub user: Box<[u8]>,
}

/// Where a connection comes from and goes to, for a new `ClientShared`.
pub struct Origin {
    pub address: String,
    pub local_address: String,
    pub file_descriptor: i32,
    pub reactor: usize,
    pub mailbox: Arc<Mailbox>,
    pub now_ms: u64,
}

impl ClientShared {
    /// Whether all bits of `wanted` are set.
    #[inline]
    pub fn has(&self, wanted: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & wanted == wanted
    }

    pub fn set_flag(&self, flag: u32, is_on: bool) {
        if is_on {
            self.flags.fetch_or(flag, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!flag, Ordering::Relaxed);
        }
    }

    /// The client that its invalidations go to, 0 for itself; -1 if it does not track.
    pub fn redirect(&self) -> i64 {
        if self.has(bits::TRACKING) { self.redirect.load(Ordering::Relaxed) as i64 } else { -1 }
    }

    /// Whether the client is subscribed to anything.
    pub fn is_subscriber(&self) -> bool {
        let load = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
        load(&self.channels) + load(&self.patterns) + load(&self.sharded_channels) != 0
    }

    /// All that it takes of the server's memory.
    pub fn memory(&self) -> usize {
        let load = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
        CLIENT_BYTES
            + load(&self.query_bytes)
            + load(&self.query_room)
            + load(&self.output_bytes)
            + load(&self.argument_bytes)
            + load(&self.queued_bytes)
            + load(&self.other_bytes)
            + load(&self.watched) * WATCHED_BYTES
            + (load(&self.channels) + load(&self.patterns) + load(&self.sharded_channels))
                * SUBSCRIPTION_BYTES
    }

    /// Closes the connection, whichever reactor it is on.
    pub fn kill(self: &Arc<Self>) {
        self.mailbox.post(Message::Kill(Arc::clone(self)));
    }

    /// Has its reactor look whether the client's user still lets it stay.
    pub fn recheck(self: &Arc<Self>) {
        self.mailbox.post(Message::Recheck(Arc::clone(self)));
    }

    /// Tells its reactor that its wait has ended.
    pub fn resume(&self, waiter: Arc<Waiter>, reply: Vec<u8>) {
        self.mailbox.post(Message::Resume(waiter, reply));
    }

    /// Sends bytes after the replies that are already on their way.
    pub fn deliver(self: &Arc<Self>, bytes: Arc<[u8]>) {
        self.mailbox.post(Message::Deliver(Arc::clone(self), bytes));
    }

    /// The same, and then closes the connection. Not before the log is on disk up to `logged`, where
    /// replies wait for that.
    pub fn dismiss(self: &Arc<Self>, bytes: Arc<[u8]>, logged: u64) {
        self.mailbox.post(Message::Dismiss(Arc::clone(self), bytes, logged));
    }
}

/// Where clients get their ids from: one for all databases of a process, so that no id is given twice.
pub type ClientIds = Arc<AtomicU64>;

/// The clients of one database, in the order in which they came.
#[derive(Default)]
pub struct Clients {
    last_id: ClientIds,
    count: AtomicUsize,
    /// What all clients take, while that is limited; brought up to date where it changes.
    memory: AtomicUsize,
    /// Whether it was too much when it was last looked for clients to evict, and there was none.
    is_spent: AtomicBool,
    by_id: Mutex<BTreeMap<u64, Arc<ClientShared>>>,
    survey: Mutex<Survey>,
}

/// Looks at all clients, some at a time, so that INFO need not.
#[derive(Default)]
struct Survey {
    /// The client to go on with.
    next_id: u64,
    running: Totals,
    last: Totals,
}

/// Sums over all clients.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Clients of each reactor.
    pub by_reactor: Vec<usize>,
    pub tls: usize,
    pub query_bytes: usize,
    pub output_bytes: usize,
    pub query_bytes_max: usize,
    pub output_bytes_max: usize,
}

impl Totals {
    fn add(&mut self, client: &ClientShared) {
        let query = client.query_bytes.load(Ordering::Relaxed);
        let output = client.output_bytes.load(Ordering::Relaxed);
        if self.by_reactor.len() <= client.reactor {
            self.by_reactor.resize(client.reactor + 1, 0);
        }
        self.by_reactor[client.reactor] += 1;
        self.tls += usize::from(client.tls.load(Ordering::Relaxed));
        self.query_bytes += query;
        self.output_bytes += output;
        self.query_bytes_max = self.query_bytes_max.max(query);
        self.output_bytes_max = self.output_bytes_max.max(output);
    }
}

impl Clients {
    pub fn new(last_id: ClientIds) -> Self {
        Self { last_id, ..Self::default() }
    }

    pub fn add(&self, origin: Origin) -> Arc<ClientShared> {
        let client = self.unlisted(origin);
        self.by_id.lock().insert(client.id, Arc::clone(&client));
        self.count.fetch_add(1, Ordering::Relaxed);
        client
    }

    /// A client that does not count as one: it is about to be turned away.
    pub fn unlisted(&self, origin: Origin) -> Arc<ClientShared> {
        Arc::new(ClientShared {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            address: origin.address,
            local_address: origin.local_address,
            file_descriptor: origin.file_descriptor,
            created_ms: origin.now_ms,
            reactor: origin.reactor,
            tls: AtomicBool::new(false),
            last_interaction_ms: AtomicU64::new(origin.now_ms),
            db: AtomicU32::new(0),
            protocol: AtomicU8::new(2),
            last_command: AtomicU32::new(NO_COMMAND),
            flags: AtomicU32::new(0),
            query_bytes: AtomicUsize::new(0),
            query_room: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            output_pieces: AtomicUsize::new(0),
            net_input_bytes: AtomicU64::new(0),
            net_output_bytes: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            channels: AtomicUsize::new(0),
            patterns: AtomicUsize::new(0),
            sharded_channels: AtomicUsize::new(0),
            names: Mutex::default(),
            redirect: AtomicU64::new(0),
            prefixes: Mutex::default(),
            argument_bytes: AtomicUsize::new(0),
            other_bytes: AtomicUsize::new(0),
            reply_bytes_peak: AtomicUsize::new(0),
            memory: AtomicUsize::new(0),
            waiter: Mutex::default(),
            queued: AtomicI64::new(-1),
            queued_bytes: AtomicUsize::new(0),
            watched: AtomicUsize::new(0),
            place: AtomicU64::new(u64::MAX),
            mailbox: origin.mailbox,
        })
    }

    pub fn remove(&self, id: u64) {
        if self.by_id.lock().remove(&id).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What all clients take, as far as it is followed.
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    pub fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::Relaxed)
    }

    /// Returns what was so before.
    pub fn set_spent(&self, is_spent: bool) -> bool {
        self.is_spent.swap(is_spent, Ordering::Relaxed)
    }

    /// A client takes more or less than it did. Returns whether it takes more.
    pub fn account(&self, client: &ClientShared) -> bool {
        let now = if client.has(bits::CLOSING) { 0 } else { client.memory() };
        let before = client.memory.swap(now, Ordering::Relaxed);
        // Wrapping, so that a difference of either sign is added.
        self.memory.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        before < now
    }

    /// Adds up anew what all clients take.
    pub fn account_all(&self) {
        let clients = self.by_id.lock();
        let mut total = 0;
        for client in clients.values().filter(|client| !client.has(bits::CLOSING)) {
            let memory = client.memory();
            client.memory.store(memory, Ordering::Relaxed);
            total += memory;
        }
        self.memory.store(total, Ordering::Relaxed);
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn find(&self, id: u64) -> Option<Arc<ClientShared>> {
        self.by_id.lock().get(&id).cloned()
    }

    /// Adds up a share of the clients; those that come after it follow with the next call.
    pub fn survey_some(&self, share: usize) {
        let survey = &mut *self.survey.lock();
        let clients = self.by_id.lock();
        let mut seen = 0;
        for (&id, client) in clients.range(survey.next_id..).take(share) {
            survey.running.add(client);
            survey.next_id = id + 1;
            seen += 1;
        }
        if seen < share {
            survey.last = std::mem::take(&mut survey.running);
            survey.next_id = 0;
        }
    }

    /// The sums of the last survey of all clients, a second old at most.
    pub fn totals(&self) -> Totals {
        self.survey.lock().last.clone()
    }

    /// All clients, oldest first: a copy, so that no lock is held while they are looked at.
    pub fn list(&self) -> Vec<Arc<ClientShared>> {
        self.by_id.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;

    fn origin(mailbox: &Arc<Mailbox>) -> Origin {
        Origin {
            address: "127.0.0.1:1".into(),
            local_address: "127.0.0.1:6379".into(),
            file_descriptor: 7,
            reactor: 0,
            mailbox: Arc::clone(mailbox),
            now_ms: 1,
        }
    }

    #[test]
    fn clients_are_counted_found_and_listed_in_order() {
        let poll = Poll::new().unwrap();
        let mailbox = Arc::new(Mailbox::new(poll.registry(), Token(0)).unwrap());
        let clients = Clients::default();
        let first = clients.add(origin(&mailbox));
        let second = clients.add(origin(&mailbox));
        assert_eq!((first.id, second.id, clients.len()), (1, 2, 2));
        assert_eq!(clients.list().iter().map(|client| client.id).collect::<Vec<_>>(), [1, 2]);

        clients.remove(1);
        clients.remove(1);
        assert_eq!(clients.len(), 1);
        assert!(clients.find(1).is_none());
        assert_eq!(clients.add(origin(&mailbox)).id, 3, "an id is never given twice");

        second.query_bytes.store(5, Ordering::Relaxed);
        clients.survey_some(1);
        assert_eq!(clients.totals(), Totals::default(), "not all have been seen");
        clients.survey_some(2);
        let totals = clients.totals();
        assert_eq!((totals.by_reactor.as_slice(), totals.query_bytes), ([2].as_slice(), 5));

        second.kill();
        second.deliver(Arc::from(*b"+OK\r\n"));
        let mut messages = Vec::new();
        mailbox.take(&mut messages);
        assert!(matches!(&messages[0], Message::Kill(client) if client.id == 2));
        assert!(matches!(&messages[1], Message::Deliver(client, _) if client.id == 2));
    }
}

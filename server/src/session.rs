//! What passes between the connections and the commands: the client's session, a batch of parsed commands, and
//! the reactor's own context.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use carnelian_resp::Protocol;

use crate::acl::{Revoked, User};
use crate::blocking::Waiter;
use crate::clients::ClientShared;
use crate::clock::Clock;
use crate::database::{Counters, Database};
use crate::debugger::Debugging;
use crate::dispatch::Scratch;
use crate::eviction::{OnTheWay, Quota};
use crate::expire::Sweep;
use crate::internode::PeerLink;
use crate::mailbox::Message;
use crate::pubsub::{Publication, Subscriptions};
use crate::reactor::Core;
use crate::replication::apply::PrimaryLink;
use crate::replication::feed::{Attached, Introduction};
use crate::replication::waits::Awaited;
use crate::server::Server;
use crate::settings::Settings;
use crate::tracking::{Broadcasts, Invalidations};
use crate::transaction::{Transaction, Watched};

/// In the place of a client's last command: there was none, or none of that name.
pub const NO_COMMAND: u32 = u32::MAX;

/// What commands may know and change of the client they run for.
pub struct Session {
    pub shared: Arc<ClientShared>,
    pub database: Arc<Database>,
    /// Those of the database, as of the beginning of the turn.
    pub settings: Arc<Settings>,
    generation: u64,
    /// The logical database that SELECT chose.
    pub db: u16,
    pub protocol: Protocol,
    /// Who the client is: as of the beginning of the turn.
    pub user: Arc<User>,
    /// The client has said who it is, or need not.
    pub authenticated: bool,
    /// It has said so.
    logged_in: bool,
    may_do_all: bool,
    pub reply: ReplyMode,
    /// CLIENT NO-TOUCH: reads leave the access clocks of keys alone.
    pub no_touch: bool,
    /// CLIENT TRACKING is on, and not for prefixes only: keys that are read are remembered.
    pub tracks: bool,
    /// CLIENT CACHING was called: the next command is remembered, or is not.
    pub caching: bool,
    pub class: ClientClass,
    /// None while the client is not subscribed to anything.
    pub subscriptions: Option<Box<Subscriptions>>,
    /// Set by a command: CLIENT REPLY does not silence its reply.
    pub keeps_reply: bool,
    /// Place of the last command in the registry, or [`NO_COMMAND`].
    pub last_command: u32,
    /// Set by a command: what has been replied is sent, then the connection ends.
    pub close_after_reply: bool,
    /// Memory is short: commands that take more are refused. As of the last `eviction::make_room`.
    pub is_out_of_memory: bool,
    /// The peer is on this machine.
    pub loopback: bool,
    pub tls: bool,
    /// Between MULTI and EXEC.
    pub transaction: Option<Box<Transaction>>,
    /// The keys of WATCH.
    pub watched: Option<Box<Watched>>,
    /// What the client waits for; nothing is run for it meanwhile.
    pub waiter: Option<Arc<Waiter>>,
    /// Where in the log its last effects end.
    pub logged: u64,
    /// The replies that are yet to leave may tell of writes.
    pub tells_of_writes: bool,
    /// The peer is the server that this database follows.
    pub primary: Option<Box<PrimaryLink>>,
    /// The peer is a node of this one's cluster, and may do nothing but replicate.
    pub peer: Option<Box<PeerLink>>,
    /// What a replica has told of itself before it asked for data.
    pub introduction: Option<Box<Introduction>>,
    /// The client is a replica, and this is how it is fed.
    pub attached: Option<Box<Attached>>,
    /// SCRIPT DEBUG: its next script is debugged, or one is.
    pub debugging: Option<Debugging>,
    /// What WAIT, which is about to wait, waits for.
    pub awaited: Cell<Option<Awaited>>,
}

impl Session {
    pub fn new(shared: Arc<ClientShared>, database: Arc<Database>, loopback: bool) -> Self {
        let (generation, settings) = database.settings();
        let is_open = database.acl.is_open();
        let user = database.acl.default_user();
        Self {
            shared,
            may_do_all: is_open && user.is_unrestricted(),
            user,
            authenticated: is_open,
            logged_in: is_open,
            settings,
            generation,
            database,
            db: 0,
            protocol: Protocol::Resp2,
            reply: ReplyMode::On,
            no_touch: false,
            tracks: false,
            caching: false,
            class: ClientClass::Normal,
            subscriptions: None,
            keeps_reply: false,
            last_command: NO_COMMAND,
            close_after_reply: false,
            is_out_of_memory: false,
            loopback,
            tls: false,
            transaction: None,
            watched: None,
            waiter: None,
            logged: 0,
            tells_of_writes: false,
            primary: None,
            peer: None,
            introduction: None,
            attached: None,
            debugging: None,
            awaited: Cell::new(None),
        }
    }

    /// The session of the server that the database follows. It may do anything, and has no user that
    /// could be taken from it.
    pub fn of_primary(mut self, link: Box<PrimaryLink>, db: u16) -> Self {
        (self.authenticated, self.logged_in, self.may_do_all) = (true, true, true);
        self.class = ClientClass::Primary;
        self.db = db;
        self.primary = Some(link);
        self
    }

    /// The session of another node of the cluster, which has proved to be that. It is no user.
    pub fn of_peer(mut self, peer: Box<PeerLink>) -> Self {
        (self.authenticated, self.logged_in, self.may_do_all) = (true, true, false);
        self.peer = Some(peer);
        self
    }
}

impl Session {
    /// The client is the server itself, and may do anything.
    pub fn trust(&mut self) {
        (self.authenticated, self.logged_in, self.may_do_all) = (true, true, true);
    }

    /// Takes notice of settings that have changed: once a turn, and after each of the server's own commands.
    #[inline]
    pub fn refresh_settings(&mut self) {
        if self.generation != self.database.generation() {
            (self.generation, self.settings) = self.database.settings();
            if self.primary.is_none() && self.peer.is_none() {
                self.refresh_user();
            }
        }
    }

    /// Whether there is nothing that has to be checked before a command runs.
    #[inline]
    pub fn may_do_all(&self) -> bool {
        self.may_do_all
    }

    /// Its effects end there in the log.
    #[inline]
    pub fn note_logged(&mut self, end: Option<u64>) {
        if let Some(end) = end {
            self.logged = end;
            self.tells_of_writes = true;
        }
    }

    /// The client has proved to be this user.
    pub fn log_in(&mut self, user: Arc<User>) {
        self.shared.names.lock().user = user.name.clone();
        self.user = user;
        self.logged_in = true;
        self.settle_user();
    }

    /// The client is nobody in particular, as at its beginning.
    pub fn log_out(&mut self) {
        self.shared.names.lock().user = Box::default();
        self.user = self.database.acl.default_user();
        self.logged_in = self.database.acl.is_open();
        self.settle_user();
    }

    /// The client may not stay. Nothing more is run for it, and if so, as nobody.
    fn end_by_acl(&mut self) {
        self.log_out();
        self.logged_in = false;
        self.close_after_reply = true;
    }

    /// Takes notice of changes to users. A client whose user is gone goes with it, and so does one that is
    /// subscribed to what its user may not hear any more.
    fn refresh_user(&mut self) {
        match self.database.acl.find(&self.user.name) {
            Some(user) if user.is_same(&self.user) => {
                let revoked = Revoked::between(&self.user, &user);
                self.user = user;
                if let Some(revoked) = revoked
                    && self.hears_any(|name, is_pattern| revoked.concerns(name, is_pattern))
                {
                    self.end_by_acl();
                }
            }
            _ => self.end_by_acl(),
        }
        self.settle_user();
    }

    fn settle_user(&mut self) {
        self.authenticated = self.logged_in || self.database.acl.is_open();
        // A replica may not do all, whoever it is: see `dispatch::admit`.
        let is_free = self.user.is_unrestricted() && self.attached.is_none();
        self.may_do_all = self.authenticated && is_free;
    }

    /// The client is a replica from now on.
    pub fn attach(&mut self, attached: Attached) {
        self.attached = Some(Box::new(attached));
        self.settle_user();
    }
}

impl Session {
    /// The connection is over: takes the client out of whatever others would look for it in. Called
    /// once, with no lock held, while the client's place is still known.
    pub fn on_close(&mut self, _worker: &mut Worker) {
        if let Some(link) = self.primary.take() {
            link.end();
        }
        self.drop_subscriptions();
        self.discard();
        if let Some(waiter) = self.waiter.take() {
            waiter.call_off();
        }
        self.peer = None;
        if let Some(Debugging::Running(inbox)) = self.debugging.take() {
            inbox.leave();
        }
        if let Some(attached) = self.attached.take() {
            self.database.replication.primary.detach(&self.database, &attached.replica);
        }
    }
}

/// `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ReplyMode {
    #[default]
    On,
    Off,
    /// Neither this command nor the next is replied to: CLIENT REPLY SKIP has just run.
    SkipNext,
    /// This command is not replied to; the next one is.
    Skipping,
}

/// Whose limits of `client-output-buffer-limit` hold.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClientClass {
    #[default]
    Normal,
    Replica,
    PubSub,
    /// The server that the database follows.
    Primary,
}

/// One turn's parsed commands of one connection: flat arguments, and where each command ends.
///
/// Invariant: `ends` ascends strictly, and its last is the number of arguments: no command is empty.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    pub arguments: &'a [&'a [u8]],
    pub ends: &'a [usize],
    /// As they came.
    pub raw: Raw<'a>,
}

/// The bytes of a batch's commands: each with what was passed over in front of it.
#[derive(Clone, Copy, Default)]
pub struct Raw<'a> {
    pub data: &'a [u8],
    /// Where the first begins.
    pub start: usize,
    /// Where each command begins and ends.
    pub commands: &'a [(usize, usize)],
}

impl<'a> Raw<'a> {
    /// The bytes of `count` commands from `index` on.
    pub fn of(&self, index: usize, count: usize) -> &'a [u8] {
        let start = if index == 0 { self.start } else { self.commands[index - 1].1 };
        &self.data[start..self.commands[index + count - 1].1]
    }

    /// Where the bytes of the command at `index` alone are; nothing where they are not known.
    #[inline]
    pub fn place(&self, index: usize) -> Range<usize> {
        self.commands.get(index).map_or(0..0, |&(start, end)| start..end)
    }
}

impl<'a> Batch<'a> {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The arguments of the command at `index`, its name first.
    #[inline]
    pub fn command(&self, index: usize) -> &'a [&'a [u8]] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.arguments[start..self.ends[index]]
    }

    /// Each command's arguments in turn.
    pub fn commands(self) -> impl Iterator<Item = &'a [&'a [u8]]> {
        (0..self.len()).map(move |index| self.command(index))
    }
}

/// The most commands in a batch.
pub const BATCH_COMMANDS: usize = 32;

/// A batch ends after the command that brings its replies to this many bytes, so that they can
/// leave before more are made: the rest comes again in the next batch.
pub const BATCH_REPLY_BYTES: usize = 256 << 10;

/// How far a batch came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Commands that were run: all of them, or up to and with the one that ended the batch.
    pub ran: usize,
    pub next: Next,
}

/// What the connection does after a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    Continue,
    /// Run nothing more until the session's wait has ended.
    Wait,
    /// Send what has been replied, then close.
    Close,
    /// The next command is held back: it comes again when the pause is over.
    Postpone,
}

/// Publications that wait for others to go to the same reactor.
const PUBLISHED_MAX: usize = 256;

/// A reactor's own context for the commands it runs.
pub struct Worker {
    /// Index of the reactor.
    pub reactor: usize,
    pub server: Arc<Server>,
    /// Read when the turn began, or the batch.
    pub clock: Clock,
    pub random: fastrand::Rng,
    pub scratch: Scratch,
    /// What it runs is from the past: nothing has expired for it.
    pub is_timeless: bool,
    /// Commands that have run in this turn.
    pub turn_commands: u64,
    /// A script's reply, before it is known whether it is an error.
    pub script_reply: Vec<u8>,
    /// Where the sweep for expired keys stands, by the database's uid.
    pub sweeps: BTreeMap<u32, Sweep>,
    /// Its part in keeping databases within `maxmemory`, by the database's uid.
    pub quotas: BTreeMap<u32, Quota>,
    /// `eviction::go_on` is to be called at the end of the turn.
    pub is_evicting: bool,
    /// Messages that the client whose command runs has sent to itself: they follow its reply.
    pub echo: RefCell<Vec<u8>>,
    /// What the reactor has but for its service, while a command runs: for one that has to serve others.
    pub core: Option<Box<Core>>,
    /// What has been published to each of the other reactors, and not yet sent.
    published: RefCell<Vec<Vec<Message>>>,
    has_published: Cell<bool>,
    /// What this reactor has posted to itself.
    posted: RefCell<Vec<Message>>,
    /// A reply has passed the hard limit of its client, which is to be closed.
    pub overflowed: Cell<bool>,
    /// A transaction or a script has flushed everything, and there are save points.
    pub has_flushed: Cell<bool>,
    /// Changed keys of this turn that CLIENT TRACKING ... BCAST asks for.
    pub broadcasts: Broadcasts,
    /// Changed keys that those who track them have yet to be told of.
    pub invalidations: Invalidations,
    /// What clients of this reactor are told of such keys at the end of the turn.
    pub to_flush: Vec<OnTheWay>,
}

impl Worker {
    pub fn new(reactor: usize, server: Arc<Server>) -> Self {
        Self {
            reactor,
            server,
            clock: Clock::new(),
            random: fastrand::Rng::new(),
            scratch: Scratch::new(),
            is_timeless: false,
            turn_commands: 0,
            script_reply: Vec::new(),
            sweeps: BTreeMap::new(),
            quotas: BTreeMap::new(),
            is_evicting: false,
            echo: RefCell::default(),
            core: None,
            published: RefCell::default(),
            has_published: Cell::new(false),
            posted: RefCell::default(),
            overflowed: Cell::new(false),
            has_flushed: Cell::new(false),
            broadcasts: Broadcasts::default(),
            invalidations: Invalidations::default(),
            to_flush: Vec::new(),
        }
    }

    /// Sends a message to a reactor. What is sent to this one waits for the end of the turn, without
    /// a lock or a system call; messages to the same reactor arrive in the order they were posted.
    pub fn post(&self, reactor: usize, message: Message) {
        if reactor == self.reactor {
            self.posted.borrow_mut().push(message);
        } else {
            self.send_published();
            self.server.mailboxes[reactor].post(message);
        }
    }

    /// Sends a publication to a reactor, together with others: before any other message from here, and
    /// before the publisher's reply.
    pub fn publish(&self, reactor: usize, publication: &Arc<Publication>) {
        let message = Message::Publish(Arc::clone(publication));
        if reactor == self.reactor {
            return self.posted.borrow_mut().push(message);
        }
        let mut published = self.published.borrow_mut();
        if published.len() <= reactor {
            published.resize_with(reactor + 1, Vec::new);
        }
        published[reactor].push(message);
        if PUBLISHED_MAX <= published[reactor].len() {
            self.server.mailboxes[reactor].post_all(&mut published[reactor]);
        }
        self.has_published.set(true);
    }

    /// Sends what has been published.
    #[inline]
    pub fn send_published(&self) {
        if self.has_published.take() {
            self.send_each_published();
        }
    }

    #[cold]
    fn send_each_published(&self) {
        for (mailbox, messages) in
            self.server.mailboxes.iter().zip(&mut *self.published.borrow_mut())
        {
            if !messages.is_empty() {
                mailbox.post_all(messages);
            }
        }
    }

    pub(crate) fn has_posted(&self) -> bool {
        !self.posted.borrow().is_empty()
    }

    /// What was posted to this reactor from itself, oldest first.
    pub(crate) fn take_posted(&self) -> Vec<Message> {
        self.posted.take()
    }

    /// Takes back an emptied vector for its memory.
    pub(crate) fn recycle_posted(&self, emptied: Vec<Message>) {
        let mut posted = self.posted.borrow_mut();
        if posted.capacity() == 0 {
            *posted = emptied;
        }
    }

    /// This reactor's own counters of a database.
    #[inline]
    pub fn counters<'a>(&self, database: &'a Database) -> &'a Counters {
        database.stats.of(self.reactor)
    }
}

/// An emptied vector of slices for new slices of another life: its memory is kept.
#[inline]
pub fn recycle<'b>(mut slices: Vec<&[u8]>) -> Vec<&'b [u8]> {
    slices.clear();
    // Collecting a vector's own iterator into the same type is done in place.
    slices.into_iter().map(|_| -> &'b [u8] { unreachable!("the vector was emptied") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycling_keeps_the_memory() {
        let mut kept: Vec<&'static [u8]> = Vec::new();
        let mut address = std::ptr::null();
        for round in 0..5 {
            let bytes = [round; 8];
            let mut slices = recycle(kept);
            if round == 0 {
                slices.reserve_exact(100);
                address = slices.as_ptr().cast::<u8>();
            }
            assert_eq!((slices.len(), slices.capacity()), (0, 100));
            assert_eq!(slices.as_ptr().cast::<u8>(), address);
            slices.extend(bytes.chunks(2));
            kept = recycle(slices);
        }
    }

    #[test]
    fn a_batch_gives_each_command_its_arguments() {
        let arguments: [&[u8]; 3] = [b"PING", b"ECHO", b"x"];
        let raw = Raw { data: b"PING\n\n\nECHO x\n", start: 0, commands: &[(0, 5), (7, 14)] };
        let batch = Batch { arguments: &arguments, ends: &[1, 3], raw };
        assert_eq!(batch.raw.of(1, 1), b"\n\nECHO x\n");
        assert_eq!(batch.raw.of(0, 2), raw.data);
        assert_eq!([0, 1, 2].map(|index| batch.raw.place(index)), [0..5, 7..14, 0..0]);
        assert_eq!(batch.len(), 2);
        assert_eq!(batch.command(0), [b"PING"]);
        assert_eq!(batch.command(1), [b"ECHO".as_slice(), b"x"]);
        assert_eq!(batch.commands().count(), 2);
    }
}

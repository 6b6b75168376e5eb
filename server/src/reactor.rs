//! A reactor: a thread with its own poll, which serves a share of the connections.
//!
//! A connection lives on one reactor for its whole life. A turn is: wait for events, serve each connection
//! that has some, flush every one that is owed replies, then accept, and take a bounded number of
//! handshake steps, so that a storm of new clients does not starve those who are in. Nothing blocks but the wait.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use carnelian_resp::Protocol;
use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::accept::Doors;
use crate::allocator;
use crate::blocking::{self, Waiter};
use crate::connection::{Accepted, Connection, Transport};
use crate::dispatch;
use crate::eviction;
use crate::features;
use crate::halt::Verdict;
use crate::log;
use crate::mailbox::{Mailbox, Message};
use crate::pubsub::{Part, Row};
use crate::replication::feed::Fed;
use crate::server::Server;
use crate::service::{After, Service};
use crate::session::{ClientClass, Worker};
use crate::slab::Slab;

/// Tokens of listeners have this bit; those of connections do not.
pub const LISTENER_BIT: usize = 1 << 63;
const MAILBOX: Token = Token(usize::MAX);

const EVENTS_PER_WAIT: usize = 1024;

/// Handshake steps in a turn: each may cost some tenths of a millisecond.
const HANDSHAKES_PER_TURN: usize = 4;

/// Replies are flushed before the end of the turn when they come to this.
const REPLY_BYTES_PER_TURN: usize = 1 << 20;

/// How often a turn looks again for what it has posted to itself.
const OWN_MAIL_ROUNDS: usize = 16;

/// How long a shutdown waits for clients to take what they are owed.
const FAREWELL_MS: u64 = 500;

/// How long a connection may take to accept its last bytes.
const CLOSING_MS: u64 = 30_000;

/// How long a connection that is to be turned away may take to show what it speaks.
const REFUSAL_MS: u64 = 1000;

/// A poll and its mailbox, made before the thread that will use them.
pub struct Seat {
    poll: Poll,
    /// For the stand-in of a core that is elsewhere.
    spare: Poll,
    mailbox: Arc<Mailbox>,
}

impl Seat {
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let mailbox = Arc::new(Mailbox::new(poll.registry(), MAILBOX)?);
        Ok(Self { poll, spare: Poll::new()?, mailbox })
    }

    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }
}

pub struct Reactor {
    core: Box<Core>,
    service: Service,
    /// Stands in for the core while a command runs, which may have to serve others from inside.
    spare: Option<Box<Core>>,
}

/// What a reactor has but for what runs commands: so that, while a script runs for too long, the
/// others can be served by a second reactor on the same core, from inside the script.
pub struct Core {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    connections: Slab<Box<Connection>>,
    /// What the poll reported and nobody has looked at yet. Here, so that it is not left lying while
    /// a command serves others from inside: the poll reports nothing twice.
    events: VecDeque<Event>,
    doors: Doors,
    /// Those that have more to do without an event.
    ready: VecDeque<Token>,
    /// Those whose next command is held back by CLIENT PAUSE.
    postponed: Vec<Token>,
    /// Those whose handshake can go on.
    shaking: VecDeque<Token>,
    /// Those to flush at the end of the turn.
    touched: Vec<Token>,
    /// Those whose replies wait for the disk.
    held: Vec<Token>,
    /// Replicas, which are fed at the end of each turn.
    replicas: Vec<Token>,
    /// One of them can be fed more at once.
    is_hungry: bool,
    /// When (in the clock's monotonic milliseconds) which handshake must have ended.
    handshake_deadlines: VecDeque<(u64, Token)>,
    refusal_deadlines: VecDeque<(u64, Token)>,
    /// The same of clients that wait.
    wait_deadlines: BTreeSet<(u64, Token)>,
    messages: Vec<Message>,
    /// Whom a message is for; kept for its memory.
    subscribers: Vec<usize>,
    next_tick_ms: u64,
    /// Where the tick goes on to look for idle clients.
    cursor: usize,
    /// When the last connection is closed at the latest; none while the server runs.
    farewell_ms: Option<u64>,
    /// The connection that is being served, and what it speaks.
    lent: Option<(Token, Protocol)>,
    /// What came for it meanwhile.
    missed: Vec<Missed>,
}

/// What could not be done with a connection because it was being served.
enum Missed {
    Event(Token),
    Message(Message),
    Bytes(Token, Arc<[u8]>),
}

impl Core {
    fn new(poll: Poll, mailbox: Arc<Mailbox>) -> Box<Self> {
        Box::new(Self {
            poll,
            mailbox,
            connections: Slab::new(),
            events: VecDeque::with_capacity(EVENTS_PER_WAIT),
            doors: Doors::default(),
            ready: VecDeque::new(),
            postponed: Vec::new(),
            shaking: VecDeque::new(),
            touched: Vec::new(),
            held: Vec::new(),
            replicas: Vec::new(),
            is_hungry: false,
            handshake_deadlines: VecDeque::new(),
            refusal_deadlines: VecDeque::new(),
            wait_deadlines: BTreeSet::new(),
            messages: Vec::new(),
            subscribers: Vec::new(),
            next_tick_ms: 0,
            cursor: 0,
            farewell_ms: None,
            lent: None,
            missed: Vec::new(),
        })
    }
}

/// Serves this reactor's other clients from inside a script that has been running for too long: what
/// the script holds is busy, so nearly all that they ask for is refused. `staged`: the replies of this
/// turn, in which those of some clients lie that are yet to be flushed. False once the server ends.
pub fn serve_meanwhile(worker: &mut Worker, staged: &[u8]) -> bool {
    let Some(core) = worker.core.take() else { return true };
    let mut nested = Worker::new(worker.reactor, Arc::clone(&worker.server));
    // Deadlines are counted from its beginning.
    nested.clock = worker.clock.clone();
    let mut nested = Reactor { core, service: Service::new(nested), spare: None };
    nested.service.replies.extend_from_slice(staged);
    nested.wait_and_turn(&mut Events::with_capacity(EVENTS_PER_WAIT), Duration::ZERO);
    for message in nested.service.worker.take_posted() {
        worker.post(worker.reactor, message);
    }
    let goes_on = nested.core.farewell_ms.is_none();
    worker.core = Some(nested.core);
    goes_on
}

impl Reactor {
    pub fn new(seat: Seat, index: usize, server: Arc<Server>) -> Self {
        let service = Service::new(Worker::new(index, server));
        let spare = Some(Core::new(seat.spare, Arc::clone(&seat.mailbox)));
        Self { core: Core::new(seat.poll, seat.mailbox), service, spare }
    }

    /// Runs until told to shut down.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        while !self.is_over() {
            let timeout = self.patience();
            self.wait_and_turn(&mut events, timeout);
        }
    }

    fn wait_and_turn(&mut self, events: &mut Events, timeout: Duration) {
        match self.core.poll.poll(events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(error) => {
                log::warning!("Reactor {}: epoll: {error}", self.service.worker.reactor);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.turn(events);
    }

    /// Has the service do something with a connection that may run commands. The core goes along, so
    /// that a command can serve others.
    fn serve(
        &mut self,
        token: Token,
        serve: impl FnOnce(&mut Service, &mut Connection) -> After,
    ) -> Option<After> {
        let mut connection = self.core.connections.lend(token)?;
        let lent = self.core.lent.replace((token, connection.session.protocol));
        let worker = &mut self.service.worker;
        if let Some(spare) = self.spare.take() {
            worker.core = Some(std::mem::replace(&mut self.core, spare));
        }
        let after = serve(&mut self.service, &mut connection);
        if let Some(core) = self.service.worker.core.take() {
            self.spare = Some(std::mem::replace(&mut self.core, core));
        }
        self.core.lent = lent;
        self.core.connections.give_back(token, connection);
        // From inside a command nothing can be made up for: its connection is still lent.
        if !self.core.missed.is_empty() && lent.is_none() {
            self.make_up();
        }
        Some(after)
    }

    /// Does what could not be done with a connection while it was being served.
    #[cold]
    fn make_up(&mut self) {
        for missed in std::mem::take(&mut self.core.missed) {
            match missed {
                Missed::Event(token) => {
                    let Some(connection) = self.core.connections.get_mut(token) else { continue };
                    connection.flags.readable = true;
                    if connection.flags.blocked {
                        let after = self.service.drain(connection);
                        if self.follow(token, after) == Presence::Gone {
                            continue;
                        }
                    }
                    self.follow(token, After::Again);
                }
                Missed::Message(message) => {
                    let worker = &self.service.worker;
                    worker.post(worker.reactor, message);
                }
                Missed::Bytes(token, bytes) => {
                    let Some(connection) = self.core.connections.get_mut(token) else { continue };
                    self.service.deliver(connection, &bytes);
                    self.touch(token);
                }
            }
        }
    }

    fn is_lent(&self, token: Token) -> bool {
        self.core.lent.is_some_and(|(lent, _)| lent == token)
    }

    fn turn(&mut self, events: &Events) {
        self.service.begin_turn();
        let begin_ns = self.service.worker.clock.monotonic_us() * 1000;
        if !self.core.replicas.is_empty() {
            self.hush();
        }
        if !self.core.mailbox.is_empty() {
            // What others sent before a client's request was sent comes before that request.
            self.read_mail();
        }
        let waiting = self.core.ready.len();
        self.core.events.extend(events.iter().cloned());
        while let Some(event) = self.core.events.pop_front() {
            self.take_event(&event);
        }
        for _ in 0..waiting {
            if let Some(token) = self.core.ready.pop_front() {
                self.serve_again(token);
            }
        }
        self.flush();
        if !self.core.mailbox.is_empty() {
            self.read_mail();
            self.flush();
        }
        if !self.core.postponed.is_empty() {
            self.resume_postponed();
        }
        if self.core.doors.is_knocked() {
            self.accept();
        }
        if !self.core.shaking.is_empty() {
            self.shake_some();
            self.flush();
        }
        if !self.core.wait_deadlines.is_empty() {
            self.expire_waits();
            self.flush();
        }
        if self.core.next_tick_ms <= self.service.worker.clock.monotonic_ms() {
            self.tick();
            self.flush();
        }
        // From inside a script nothing is evicted: it may hold the locks.
        if self.service.worker.is_evicting && self.spare.is_some() {
            eviction::go_on(&mut self.service.worker);
        }
        features::end_turn(&mut self.service.worker);
        self.read_own_mail();
        if !self.core.replicas.is_empty() {
            self.feed();
        }
        self.service.end_turn();
        allocator::publish();
        let worker = &self.service.worker;
        let turn_ns = worker.clock.elapsed_ns().saturating_sub(begin_ns);
        worker.server.turns[worker.reactor].add(turn_ns, worker.turn_commands);
    }

    /// Takes what this reactor has posted to itself, and what comes of that, within reason: the rest
    /// is left to the next turn.
    fn read_own_mail(&mut self) {
        for _ in 0..OWN_MAIL_ROUNDS {
            let mut messages = self.service.worker.take_posted();
            if messages.is_empty() {
                return;
            }
            self.take_messages(&mut messages);
            self.service.worker.recycle_posted(messages);
            self.flush();
        }
    }

    /// How long the poll may wait.
    fn patience(&mut self) -> Duration {
        let has_own_mail = self.service.worker.has_posted();
        let is_evicting = self.service.worker.is_evicting;
        if !self.core.ready.is_empty()
            || !self.core.shaking.is_empty()
            || self.core.doors.is_knocked()
            || has_own_mail
            || is_evicting
            || self.core.is_hungry
        {
            return Duration::ZERO;
        }
        // From when the turn began: a tick may be late by as long as the turn took.
        let now_ms = self.service.worker.clock.monotonic_ms();
        let next_wait =
            self.core.wait_deadlines.first().map_or(u64::MAX, |&(deadline_ms, _)| deadline_ms);
        let mut patience_ms = self.core.next_tick_ms.min(next_wait).saturating_sub(now_ms);
        if let Some(&token) = self.core.postponed.first()
            && let Some(connection) = self.core.connections.get_mut(token)
        {
            let until_ms = connection.session.database.pause.until_ms();
            let left_ms = until_ms.saturating_sub(self.service.worker.clock.now_ms());
            patience_ms = patience_ms.min(left_ms.max(1));
        }
        Duration::from_millis(patience_ms)
    }

    /// Lets those go on whose pause is over.
    fn resume_postponed(&mut self) {
        let now_ms = self.service.worker.clock.now_ms();
        let Core { postponed, connections, ready, .. } = &mut *self.core;
        postponed.retain(|&token| {
            let Some(connection) = connections.get_mut(token) else { return false };
            let database = &connection.session.database;
            if database.pause.until_ms() > now_ms {
                return true;
            }
            connection.flags.postponed = false;
            features::set_postponed(&connection.session, false);
            if !std::mem::replace(&mut connection.flags.ready, true) {
                ready.push_back(token);
            }
            false
        });
    }

    fn take_event(&mut self, event: &Event) {
        let token = event.token();
        if token == MAILBOX {
            // It woke us; the turn looks for mail itself.
            return;
        }
        if token.0 & LISTENER_BIT != 0 {
            self.core.doors.knock(token);
            return;
        }
        let Some(connection) = self.core.connections.get_mut(token) else {
            if self.is_lent(token) {
                self.core.missed.push(Missed::Event(token));
            }
            return;
        };
        let may_write = event.is_writable() || event.is_write_closed() || event.is_error();
        if may_write && connection.flags.blocked {
            let after = self.service.drain(connection);
            if self.follow(token, after) == Presence::Gone {
                return;
            }
        }
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        let flags = &mut connection.flags;
        flags.hangup |= event.is_read_closed() || event.is_error();
        if !event.is_readable() && !flags.hangup {
            return;
        }
        if flags.hangup && flags.postponed {
            self.close(token);
            return;
        }
        flags.readable = true;
        if flags.hangup && connection.session.waiter.is_some() {
            // Nothing is read from a client that waits, so this is how it is known to be gone.
            self.close(token);
            return;
        }
        if !flags.ready
            && let Some(after) = self.serve(token, Service::serve)
        {
            self.follow(token, after);
        }
    }

    fn serve_again(&mut self, token: Token) {
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        connection.flags.ready = false;
        if let Some(after) = self.serve(token, Service::serve) {
            self.follow(token, after);
        }
    }

    /// Does what a connection needs after having been served or written to.
    fn follow(&mut self, token: Token, after: After) -> Presence {
        let Some(connection) = self.core.connections.get_mut(token) else { return Presence::Gone };
        connection.arm(self.core.poll.registry(), token);
        match after {
            After::Close => {
                self.close(token);
                return Presence::Gone;
            }
            After::Again => {
                if !std::mem::replace(&mut connection.flags.ready, true) {
                    self.core.ready.push_back(token);
                }
            }
            After::Handshake => {
                if !std::mem::replace(&mut connection.flags.shaking, true) {
                    self.core.shaking.push_back(token);
                }
            }
            After::Postpone => {
                if !std::mem::replace(&mut connection.flags.postponed, true) {
                    features::set_postponed(&connection.session, true);
                    self.core.postponed.push(token);
                }
            }
            After::Hold => self.core.held.push(token),
            After::Wait => {}
        }
        if connection.session.waiter.is_some() {
            if connection.flags.hangup {
                // It was gone before it began to wait, and no event will tell again.
                if let Some(waiter) = connection.session.waiter.take() {
                    waiter.call_off();
                }
                connection.close_when_flushed(self.service.worker.clock.monotonic_ms());
            } else {
                self.note_wait(token);
            }
        }
        let Some(connection) = self.core.connections.get_mut(token) else { return Presence::Gone };
        if let Some(attached) = &mut connection.session.attached
            && !std::mem::replace(&mut attached.is_listed, true)
        {
            self.core.replicas.push(token);
        }
        let is_owed = !connection.staged.is_empty()
            || connection.closing()
            || !connection.output.is_empty() && !connection.flags.blocked;
        if is_owed && !std::mem::replace(&mut connection.flags.touched, true) {
            self.core.touched.push(token);
        }
        if REPLY_BYTES_PER_TURN < self.service.replies.len() {
            self.flush();
        }
        Presence::Here
    }

    /// At the end of the turn replicas are fed anyway: nobody need wake this reactor for that.
    fn hush(&mut self) {
        for &token in &self.core.replicas {
            if let Some(connection) = self.core.connections.get_mut(token) {
                connection.session.database.log.hush(self.service.worker.reactor);
            }
        }
    }

    /// Gives the replicas of this reactor what they are to be sent next.
    fn feed(&mut self) {
        let mut replicas = std::mem::take(&mut self.core.replicas);
        let mut hungry = Vec::new();
        replicas.retain(|&token| {
            let Some(connection) = self.core.connections.get_mut(token) else {
                return self.is_lent(token);
            };
            let fed = self.service.feed(connection);
            if fed == Fed::Over {
                connection.close_when_flushed(self.service.worker.clock.monotonic_ms());
            }
            let is_owed = connection.closing() || !connection.output.is_empty();
            if fed == Fed::More {
                hungry.push(token);
            }
            if is_owed && (!connection.flags.blocked || connection.closing()) {
                self.touch(token);
            }
            true
        });
        self.core.replicas.append(&mut replicas);
        self.flush();
        let connections = &mut self.core.connections;
        let takes_more = |token: Token| {
            connections.get_mut(token).is_some_and(|connection| !connection.flags.blocked)
        };
        self.core.is_hungry = hungry.into_iter().any(takes_more);
    }

    /// Writes to every connection that is owed something: once each.
    fn flush(&mut self) {
        let mut touched = std::mem::take(&mut self.core.touched);
        for token in touched.drain(..) {
            let Some(connection) = self.core.connections.get_mut(token) else {
                if self.is_lent(token) {
                    self.core.touched.push(token);
                }
                continue;
            };
            connection.flags.touched = false;
            let after = self.service.flush(connection);
            connection.arm(self.core.poll.registry(), token);
            match after {
                After::Close => self.close(token),
                After::Again => {
                    if !std::mem::replace(&mut connection.flags.ready, true) {
                        self.core.ready.push_back(token);
                    }
                }
                After::Hold => self.core.held.push(token),
                After::Wait | After::Handshake | After::Postpone => {}
            }
        }
        if self.core.touched.is_empty() {
            self.core.touched = touched;
        }
        self.service.replies.clear();
    }

    fn read_mail(&mut self) {
        let mut messages = std::mem::take(&mut self.core.messages);
        self.core.mailbox.take(&mut messages);
        self.take_messages(&mut messages);
        self.core.messages = messages;
    }

    fn take_messages(&mut self, messages: &mut Vec<Message>) {
        let mut messages = messages.drain(..).peekable();
        while let Some(message) = messages.next() {
            let Message::Publish(first) = message else {
                self.take_message(message);
                continue;
            };
            // What was published to one channel in a row goes to each subscriber in one piece.
            let mut row = Row::new(&first);
            while let Some(Message::Publish(next)) = messages.peek()
                && row.join(&first, next)
            {
                messages.next();
            }
            match row.into_parts() {
                Some(parts) => self.pass_on(&parts, None),
                None => self.pass_on(&first.parts, first.publisher),
            }
        }
    }

    fn take_message(&mut self, message: Message) {
        let client = match &message {
            Message::Kill(client) | Message::Recheck(client) | Message::Deliver(client, _) => {
                Some(client)
            }
            Message::Resume(waiter, _) => Some(&waiter.client),
            _ => None,
        };
        if client.is_some_and(|it| self.is_lent(Token(it.place.load(Ordering::Relaxed) as usize))) {
            self.core.missed.push(Missed::Message(message));
            return;
        }
        match message {
            Message::Accept(accepted) => self.welcome(*accepted),
            Message::Kill(client) => {
                let token = Token(client.place.load(Ordering::Relaxed) as usize);
                if self.core.connections.get_mut(token).is_some() {
                    self.close(token);
                }
            }
            Message::Recheck(client) => {
                let token = Token(client.place.load(Ordering::Relaxed) as usize);
                if let Some(connection) = self.core.connections.get_mut(token) {
                    connection.session.refresh_settings();
                    if connection.session.close_after_reply {
                        self.close(token);
                    }
                }
            }
            Message::Deliver(client, bytes) => {
                let token = Token(client.place.load(Ordering::Relaxed) as usize);
                if let Some(connection) = self.core.connections.get_mut(token) {
                    self.service.deliver(connection, &bytes);
                    self.touch(token);
                }
            }
            Message::Publish(publication) => {
                self.pass_on(&publication.parts, publication.publisher);
            }
            Message::Resume(waiter, reply) => self.resume(&waiter, &reply),
            // The turn looks at those who wait, now that it has begun.
            Message::PauseOver => {}
            // So it does with its replicas.
            Message::Feed => {}
            Message::Synced => {
                for token in std::mem::take(&mut self.core.held) {
                    self.touch(token);
                }
            }
            Message::Listen(listeners) => {
                for listener in listeners {
                    self.core.doors.open(self.core.poll.registry(), listener);
                }
            }
            Message::Unlisten(ids) => self.core.doors.shut(self.core.poll.registry(), &ids),
            Message::Run(work) => work(&mut self.service.worker),
            Message::Sleep(end) => {
                std::thread::sleep(end.saturating_duration_since(Instant::now()));
            }
            // Not from inside a command, which holds locks: after it.
            Message::Halt(gate) if self.spare.is_none() => {
                self.core.missed.push(Missed::Message(Message::Halt(gate)));
            }
            Message::Halt(gate) => {
                if gate.pass() == Verdict::End {
                    self.begin_farewell();
                }
            }
            Message::Shutdown => self.begin_farewell(),
        }
    }

    /// Gives each of this reactor's subscribers its copy.
    fn pass_on(&mut self, parts: &[Part], publisher: Option<(usize, usize)>) {
        let mut tokens = std::mem::take(&mut self.core.subscribers);
        for part in parts {
            part.receivers(self.service.worker.reactor, &mut tokens);
            for token in tokens.drain(..) {
                if publisher == Some((self.service.worker.reactor, token)) {
                    continue;
                }
                let token = Token(token);
                if let Some(connection) = self.core.connections.get_mut(token) {
                    let bytes = part.bytes(connection.session.protocol);
                    self.service.deliver(connection, bytes);
                    self.touch(token);
                } else if let Some((lent, protocol)) = self.core.lent
                    && lent == token
                {
                    let bytes = Arc::clone(part.bytes(protocol));
                    self.core.missed.push(Missed::Bytes(token, bytes));
                }
            }
        }
        self.core.subscribers = tokens;
    }

    /// Sees to it that a connection is flushed, and that its limits are looked at.
    fn touch(&mut self, token: Token) {
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        if !std::mem::replace(&mut connection.flags.touched, true) {
            self.core.touched.push(token);
        }
        if REPLY_BYTES_PER_TURN < self.service.replies.len() {
            self.flush();
        }
    }

    /// A client has waited long enough: it gets its reply, and what it has sent since runs.
    fn resume(&mut self, waiter: &Arc<Waiter>, reply: &[u8]) {
        let token = Token(waiter.client.place.load(Ordering::Relaxed) as usize);
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        if connection.session.waiter.as_ref().is_none_or(|own| !Arc::ptr_eq(own, waiter)) {
            return;
        }
        connection.session.waiter = None;
        if let Some(deadline_ms) = connection.wait_deadline_ms.take() {
            self.core.wait_deadlines.remove(&(deadline_ms, token));
        }
        let serve = |service: &mut Service, connection: &mut Connection| {
            service.end_wait(connection, reply)
        };
        if let Some(after) = self.serve(token, serve) {
            self.follow(token, after);
        }
    }

    /// Notes until when a client waits that has just begun to.
    fn note_wait(&mut self, token: Token) {
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        if connection.wait_deadline_ms.is_some() {
            return;
        }
        let Some(waiter) = &connection.session.waiter else { return };
        let Some(deadline_ms) = waiter.wait.deadline_ms else { return };
        let clock = &self.service.worker.clock;
        let left_ms = deadline_ms.saturating_sub(clock.now_ms());
        let deadline_ms = clock.monotonic_ms().saturating_add(left_ms);
        connection.wait_deadline_ms = Some(deadline_ms);
        self.core.wait_deadlines.insert((deadline_ms, token));
    }

    fn expire_waits(&mut self) {
        let now_ms = self.service.worker.clock.monotonic_ms();
        while let Some(&(deadline_ms, token)) = self.core.wait_deadlines.first() {
            if now_ms < deadline_ms {
                return;
            }
            self.core.wait_deadlines.pop_first();
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            connection.wait_deadline_ms = None;
            let Some(waiter) = connection.session.waiter.clone() else { continue };
            // Else somebody serves it just now.
            if let Some(reply) = blocking::time_out(&self.service.worker, &waiter) {
                self.resume(&waiter, &reply);
            }
        }
    }

    fn accept(&mut self) {
        for accepted in self.core.doors.accept(&mut self.service.worker) {
            let reactor = accepted.shared.reactor;
            if reactor == self.service.worker.reactor {
                self.welcome(accepted);
            } else {
                self.service.worker.post(reactor, Message::Accept(Box::new(accepted)));
            }
        }
    }

    /// Takes a connection in.
    fn welcome(&mut self, accepted: Accepted) {
        let is_refused = accepted.refusal.is_some();
        let shared = Arc::clone(&accepted.shared);
        let token = self.core.connections.insert(Box::new(Connection::new(accepted)));
        shared.place.store(token.0 as u64, Ordering::Relaxed);
        let connection = self.core.connections.get_mut(token).expect("it was just put there");
        if let Err(error) = connection.register(self.core.poll.registry(), token) {
            log::warning!("Could not watch a client's connection: {error}");
            self.close(token);
            return;
        }
        if is_refused {
            let deadline_ms = self.service.worker.clock.monotonic_ms() + REFUSAL_MS;
            self.core.refusal_deadlines.push_back((deadline_ms, token));
        }
        if self.core.farewell_ms.is_some() {
            self.close(token);
            return;
        }
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        if connection.flags.unparsed {
            // No event will tell of what came before.
            self.follow(token, After::Again);
        }
    }

    /// Takes some steps of handshakes, oldest first.
    fn shake_some(&mut self) {
        for _ in 0..HANDSHAKES_PER_TURN.min(self.core.shaking.len()) {
            let Some(token) = self.core.shaking.pop_front() else { return };
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            connection.flags.shaking = false;
            let is_first = !connection.input.is_empty();
            let Some(after) = self.serve(token, Service::shake) else { continue };
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            if is_first && let Transport::Handshake(_) = connection.transport {
                let settings = connection.session.database.settings.load();
                if let Some(timeout) = settings.handshake_timeout {
                    let deadline_ms =
                        self.service.worker.clock.monotonic_ms() + timeout.as_millis() as u64;
                    self.core.handshake_deadlines.push_back((deadline_ms, token));
                }
            }
            self.follow(token, after);
        }
    }

    /// Ends a connection now: what it was owed and has not taken is lost, but it is told that this is the end.
    fn close(&mut self, token: Token) {
        let Some(mut connection) = self.core.connections.remove(token) else { return };
        if let Some(deadline_ms) = connection.wait_deadline_ms {
            self.core.wait_deadlines.remove(&(deadline_ms, token));
        }
        connection.session.on_close(&mut self.service.worker);
        features::forget(&connection);
        self.service.say_goodbye(&mut connection);
        let session = &connection.session;
        session.shared.place.store(u64::MAX, Ordering::Relaxed);
        match connection.refusal {
            Some(_) => {
                session.database.refused.fetch_sub(1, Ordering::Relaxed);
            }
            None => session.database.clients.remove(session.shared.id),
        }
        log::verbose!("Client closed connection {}", connection.describe());
    }

    /// What is due by time: deadlines, idle clients, and the commands' own work.
    fn tick(&mut self) {
        let worker = &mut self.service.worker;
        worker.clock.synchronize();
        let begin_ns = worker.clock.elapsed_ns();
        let now_ms = worker.clock.monotonic_ms();
        let hz = u64::from(worker.server.hz());
        self.core.next_tick_ms = now_ms + 1000 / hz.max(1);
        dispatch::tick(worker);
        self.core.doors.retry();
        self.expire_handshakes(now_ms);
        self.expire_refusals(now_ms);
        self.look_for_idle(now_ms, hz);
        let worker = &self.service.worker;
        let spent_ns = worker.clock.elapsed_ns().saturating_sub(begin_ns);
        worker.server.turns[worker.reactor].tick_nanoseconds.add(spent_ns);
        // In case a wake-up failed.
        if !self.core.mailbox.is_empty() {
            self.read_mail();
        }
    }

    fn expire_handshakes(&mut self, now_ms: u64) {
        while let Some((deadline_ms, token)) = self.core.handshake_deadlines.front().copied() {
            if now_ms < deadline_ms {
                return;
            }
            self.core.handshake_deadlines.pop_front();
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            if let Transport::Handshake(_) = connection.transport {
                let session = &connection.session;
                log::verbose!(
                    "Error accepting a client connection: handshake timed out (addr={} laddr={})",
                    session.shared.address,
                    session.shared.local_address
                );
                self.service.worker.counters(&session.database).handshakes_failed.add(1);
                self.close(token);
            }
        }
    }

    fn expire_refusals(&mut self, now_ms: u64) {
        while let Some((deadline_ms, token)) = self.core.refusal_deadlines.front().copied() {
            if now_ms < deadline_ms {
                return;
            }
            self.core.refusal_deadlines.pop_front();
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            match (&connection.transport, connection.refusal) {
                (Transport::Sniff, Some(refusal)) => {
                    let after = self.service.turn_away(connection, refusal);
                    self.follow(token, after);
                }
                _ => self.close(token),
            }
        }
    }

    /// Looks at a part of the clients, so that all have been seen within a second.
    fn look_for_idle(&mut self, now_ms: u64, hz: u64) {
        let share = (self.core.connections.len() as u64 / hz.max(1)).max(50) as usize;
        for _ in 0..share.min(self.core.connections.len()) {
            let Some((token, cursor)) = self.core.connections.next(self.core.cursor) else {
                self.core.cursor = 0;
                continue;
            };
            self.core.cursor = cursor;
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            if connection.closing_since_ms.is_some_and(|since_ms| since_ms + CLOSING_MS < now_ms)
                || (!connection.output.is_empty() || connection.session.attached.is_some())
                    && self.service.is_over_limit(connection)
            {
                self.close(token);
                continue;
            }
            let session = &connection.session;
            let Some(timeout) = session.database.settings.load().idle_timeout else { continue };
            let last_ms = session.shared.last_interaction_ms.load(Ordering::Relaxed);
            let idle_ms = self.service.worker.clock.now_ms().saturating_sub(last_ms);
            if session.class == ClientClass::Normal && timeout.as_millis() < u128::from(idle_ms) {
                log::verbose!("Closing idle client");
                self.close(token);
            }
        }
    }

    fn begin_farewell(&mut self) {
        self.core.doors.shut_all();
        let now_ms = self.service.worker.clock.monotonic_ms();
        self.core.farewell_ms = Some(now_ms + FAREWELL_MS);
        for token in self.core.connections.tokens() {
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            connection.close_when_flushed(now_ms);
            self.follow(token, After::Wait);
        }
        self.core.next_tick_ms = now_ms + 10;
    }

    /// Whether the thread is to end; closes the last connections.
    fn is_over(&mut self) -> bool {
        let Some(deadline_ms) = self.core.farewell_ms else { return false };
        let is_over = self.core.connections.len() == 0
            || deadline_ms <= self.service.worker.clock.elapsed_us() / 1000;
        if is_over {
            for token in self.core.connections.tokens() {
                self.close(token);
            }
        }
        is_over
    }
}

/// Whether a connection is still there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Presence {
    Here,
    Gone,
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use carnelian_config::{Config, Permission};

    use crate::clients::ClientShared;
    use crate::configure;
    use crate::testing::Bench;

    /// The one client there is, once it has been accepted.
    fn only_client(bench: &Bench) -> Arc<ClientShared> {
        let clients = bench.database.clients.list();
        assert_eq!(clients.len(), 1);
        Arc::clone(&clients[0])
    }

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(5), "{what}");
            sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_client_is_killed_from_another_thread() {
        let bench = Bench::start(Config::default());
        let mut stream = bench.connect();
        bench.exchange(&mut stream, "PING\r\n", "+PONG\r\n");
        only_client(&bench).kill();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        wait_until("the client is gone", || bench.database.clients.is_empty());
    }

    #[test]
    fn what_others_deliver_comes_after_the_replies() {
        let bench = Bench::start(Config::default());
        let mut stream = bench.connect();
        bench.exchange(&mut stream, "PING\r\n", "+PONG\r\n");
        let client = only_client(&bench);
        let long: Arc<[u8]> = format!("+{}\r\n", "x".repeat(1000)).into_bytes().into();
        let mut expected = String::new();
        for i in 0..100 {
            client.deliver(format!("+{i}\r\n").into_bytes().into());
            client.deliver(Arc::clone(&long));
            expected += &format!("+{i}\r\n{}", std::str::from_utf8(&long).unwrap());
        }
        bench.exchange(&mut stream, "", &expected);
        bench.exchange(&mut stream, "PING\r\n", "+PONG\r\n");
    }

    #[test]
    fn all_reactors_get_clients_and_count_for_them() {
        let bench = Bench::start(Config::default());
        let mut streams: Vec<_> = (0..8).map(|_| bench.connect()).collect();
        for stream in &mut streams {
            bench.exchange(stream, "PING\r\nPING\r\n", "+PONG\r\n+PONG\r\n");
        }
        let stats = &bench.database.stats;
        for reactor in 0..Bench::REACTORS {
            assert_eq!(stats.of(reactor).commands_processed.value(), 8);
        }
        assert_eq!(stats.sum(|counters| &counters.connections_received), 8);
        assert_eq!(stats.sum(|counters| &counters.net_input_bytes), 96);
        stats.reset();
        assert_eq!(stats.sum(|counters| &counters.net_input_bytes), 0);
    }

    #[test]
    fn a_pipeline_of_any_depth_is_answered_in_order() {
        let bench = Bench::start(Config::default());
        let mut stream = bench.connect();
        let mut requests = String::new();
        let mut replies = String::new();
        for i in 0..20_000 {
            match i % 3 {
                0 => requests += &format!("*2\r\n$4\r\nECHO\r\n$5\r\n{i:05}\r\n"),
                1 => requests += &format!("ECHO {i:05}\r\n"),
                _ => requests += &format!("ECHO \"\\x30{:04}\"\r\n\r\n", i % 10_000),
            }
            let shown = if i % 3 == 2 { i % 10_000 } else { i };
            replies += &format!("$5\r\n{shown:05}\r\n");
        }
        let mut writer = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(requests.as_bytes()).unwrap());
            bench.exchange(&mut stream, "", &replies);
        });
    }

    #[test]
    fn many_large_replies_leave_while_the_batch_goes_on() {
        let bench = Bench::start(Config::default());
        let mut stream = bench.connect();
        let value = "v".repeat(100_000);
        let request = format!("*2\r\n$4\r\nECHO\r\n$100000\r\n{value}\r\n").repeat(40);
        let reply = format!("$100000\r\n{value}\r\n").repeat(40);
        let mut writer = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(request.as_bytes()).unwrap());
            bench.exchange(&mut stream, "", &reply);
        });
    }

    #[test]
    fn the_port_moves_and_stays_where_the_new_one_is_taken() {
        let bench = Bench::start(Config::default());
        let set = |name: &str, value: String| {
            configure::change(&bench.server, &bench.database, false, |config| {
                config.set(&[(name.as_bytes(), value.as_bytes())], Permission::Ordinary)
            })
            .map_err(|error| error.to_string())
        };
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let error = set("port", taken_port.to_string()).unwrap_err();
        assert!(error.ends_with(" - Unable to listen on this port. Check server logs."), "{error}");
        // An address of documentation, which no machine has.
        let error = set("bind", "192.0.2.1".to_owned()).unwrap_err();
        assert!(error.ends_with(" - Failed to bind to specified addresses."), "{error}");
        bench.exchange(&mut bench.connect(), "PING\r\n", "+PONG\r\n");

        drop(taken);
        set("port", taken_port.to_string()).unwrap();
        assert!(std::net::TcpStream::connect(("127.0.0.1", bench.port)).is_err());
        let mut moved = std::net::TcpStream::connect(("127.0.0.1", taken_port)).unwrap();
        bench.exchange(&mut moved, "PING\r\n", "+PONG\r\n");
        assert_eq!(bench.server.config().port, taken_port);
    }

    #[test]
    fn the_encryption_mode_changes_for_new_connections() {
        let bench = Bench::start(Config::default());
        let mut old = bench.connect();
        bench.exchange(&mut old, "PING\r\n", "+PONG\r\n");
        configure::change(&bench.server, &bench.database, false, |config| {
            config.set(&[(b"transit-encryption-mode", b"required")], Permission::Ordinary)
        })
        .unwrap();
        bench.exchange(&mut old, "PING\r\n", "+PONG\r\n");
        let mut new = bench.connect();
        new.write_all(b"PING\r\n").unwrap();
        let mut said = String::new();
        new.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("-ERR ") && said.contains("TLS"), "{said}");
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_refused_and_the_old_one_stays() {
        let bench = Bench::start(Config::default());
        let before = bench.database.tls.configuration().unwrap().certificates.len();
        let error = configure::change(&bench.server, &bench.database, false, |config| {
            config.set(&[(b"tls-cert-file", b"/no/such.pem")], Permission::Ordinary)
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("/no/such.pem"), "{error}");
        assert_eq!(bench.database.tls.configuration().unwrap().certificates.len(), before);
        assert!(bench.server.config().tls_cert_file.as_os_str().is_empty());
    }
}

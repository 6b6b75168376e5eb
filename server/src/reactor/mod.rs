//! A reactor: a thread with its own poll, which serves a share of the connections.
//!
//! A connection lives on one reactor for its whole life. A turn is: wait for events, serve each connection
//! that has some, flush every one that is owed replies, then accept, and take a bounded number of
//! handshake steps, so that a storm of new clients does not starve those who are in. Nothing blocks but the wait.

pub mod ahead;
mod arrivals;
mod mail;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ahead::{Ahead, PIECES};
use carnelian_resp::Protocol;
use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::accept::Doors;
use crate::allocator;
use crate::connection::Connection;
use crate::eviction;
use crate::features;
use crate::log;
use crate::mailbox::{Mailbox, Message};
use crate::replication::feed::Fed;
use crate::server::Server;
use crate::service::{After, Service};
use crate::session::Worker;
use crate::slab::Slab;

/// Tokens of listeners have this bit; those of connections do not.
pub const LISTENER_BIT: usize = 1 << 63;
const MAILBOX: Token = Token(usize::MAX);

const EVENTS_PER_WAIT: usize = 1024;

/// Replies are flushed before the end of the turn when they come to this.
const REPLY_BYTES_PER_TURN: usize = 256 << 10;

/// What is written within this time goes to replicas in one piece, unless somebody waits for it: each
/// piece costs as much as serving a request. A write that nothing was sent before goes at once.
const FEED_PAUSE_US: u64 = 250;

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
    /// What was read from connections of these events before their turn.
    ahead: Ahead,
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
    /// Replicas, which are fed at the end of a turn.
    replicas: Vec<Token>,
    /// When (in the clock's monotonic microseconds) they were fed last.
    fed_us: u64,
    /// They are to be fed at the end of this turn, however short ago that was.
    is_feed_urgent: bool,
    /// They were not fed since it was too short ago.
    is_feed_owed: bool,
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
            ahead: Ahead::default(),
            doors: Doors::default(),
            ready: VecDeque::new(),
            postponed: Vec::new(),
            shaking: VecDeque::new(),
            touched: Vec::new(),
            held: Vec::new(),
            replicas: Vec::new(),
            fed_us: 0,
            is_feed_urgent: false,
            is_feed_owed: false,
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
        if !self.core.ahead.is_empty() {
            self.service.ahead = self.core.ahead.take(token);
        }
        let lent = self.core.lent.replace((token, connection.session.protocol));
        let worker = &mut self.service.worker;
        if let Some(spare) = self.spare.take() {
            worker.core = Some(std::mem::replace(&mut self.core, spare));
        }
        let after = serve(&mut self.service, &mut connection);
        if let Some(core) = self.service.worker.core.take() {
            self.spare = Some(std::mem::replace(&mut self.core, core));
        }
        if let Some(mut piece) = self.service.ahead.take() {
            self.service.keep(&mut connection, piece.bytes());
            self.core.ahead.give_back(piece);
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
        if !self.core.replicas.is_empty() && !self.core.is_feed_owed {
            self.hush();
        }
        if !self.core.mailbox.is_empty() {
            // What others sent before a client's request was sent comes before that request.
            self.read_mail();
        }
        let waiting = self.core.ready.len();
        self.core.events.extend(events.iter().cloned());
        let mut seen = 0;
        while !self.core.events.is_empty() {
            if seen % PIECES == 0 && 1 < self.core.events.len() {
                self.read_ahead();
            }
            seen += 1;
            let Some(event) = self.core.events.pop_front() else { break };
            self.take_event(&event);
        }
        self.core.ahead.clear();
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
        if self.core.replicas.is_empty() {
            self.core.is_feed_owed = false;
        } else {
            let now_us = self.service.worker.clock.monotonic_us();
            let is_due = self.core.fed_us.saturating_add(FEED_PAUSE_US) <= now_us;
            self.core.is_feed_owed = !is_due && !self.core.is_feed_urgent;
            if !self.core.is_feed_owed {
                self.core.fed_us = now_us;
                self.feed();
            }
        }
        self.service.end_turn();
        allocator::publish();
        let worker = &self.service.worker;
        let turn_ns = worker.clock.elapsed_ns().saturating_sub(begin_ns);
        worker.server.turns[worker.reactor].add(turn_ns, worker.turn_commands);
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
        if self.core.is_feed_owed {
            patience_ms = patience_ms.min(1);
        }
        // Each database has a pause of its own.
        for &token in &self.core.postponed {
            let Some(connection) = self.core.connections.get_mut(token) else { continue };
            let until_ms = connection.session.database.pause.until_ms();
            let left_ms = until_ms.saturating_sub(self.service.worker.clock.now_ms());
            patience_ms = patience_ms.min(left_ms.max(1));
        }
        Duration::from_millis(patience_ms)
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
            self.core.is_feed_urgent = true;
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

    /// Replicas are fed soon anyway: nobody need wake this reactor for that.
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
        self.core.is_feed_urgent = false;
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
        // Only who has all is fed in larger pieces later.
        self.core.is_feed_urgent |= !hungry.is_empty();
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

    /// Sees to it that a connection is flushed, and that its limits are looked at.
    fn touch(&mut self, token: Token) {
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        if !std::mem::replace(&mut connection.flags.touched, true) {
            self.core.touched.push(token);
        }
        if REPLY_BYTES_PER_TURN < self.service.replies.len() {
            self.flush();
        }
        self.service.note_buffers();
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
}

/// Whether a connection is still there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Presence {
    Here,
    Gone,
}

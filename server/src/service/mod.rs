//! Serving one connection for one turn: read, decrypt, parse, run, and leave the replies to be flushed.
//!
//! Rules that the speed rests on: one read a turn into a buffer that all connections share (but of a long
//! request), no copy of a whole request, no allocation for a command, and one write, at the end of the turn.

mod feed;
mod flush;
mod run;

use std::fmt;
use std::io::{ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use carnelian_resp::Span;
use carnelian_tls::{Admission, TLS_REFUSED, TlsError};

use crate::acl;
use crate::allocator;
use crate::clock;
use crate::connection::{Connection, Flags, Refusal, Stream, Transport};
use crate::listener::Kind;
use crate::log;
use crate::reactor::ahead::{PIECE_BYTES, Piece};
use crate::session::{BATCH_COMMANDS, Session, Worker};
use run::{CLOCK_COMMANDS, Stop};

/// What is read at once from one connection.
pub const READ_BYTES: usize = 64 << 10;

/// A request's beginning up to this size is copied back to the shared buffer to be completed there.
const TAIL_BYTES_MAX: usize = 16 << 10;

/// Of a request that is long, so much may come in one turn.
const LARGE_TURN_BYTES: usize = 1 << 20;

/// The first byte of a TLS connection: a record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What the shared buffers keep of their size after a turn that needed more.
const SCRATCH_BYTES_KEPT: usize = 512 << 10;
const SCRATCH_ARGUMENTS_KEPT: usize = 1 << 13;

/// One reactor's buffers for the connection that is being served, and the context its commands run in.
pub struct Service {
    pub worker: Worker,
    /// Received bytes: a TLS connection's records, or requests.
    received: Vec<u8>,
    /// Requests out of TLS records.
    decrypted: Vec<u8>,
    /// TLS records on their way out.
    records: Vec<u8>,
    /// The reply to a request that breaks the protocol, until those before it have been run.
    last_words: Vec<u8>,
    /// The turn's replies, of one connection after the other.
    pub replies: Vec<u8>,
    spans: Vec<Span>,
    /// Where in the buffer each parsed command begins and ends, and where its arguments end.
    commands: Vec<(usize, usize)>,
    ends: Vec<usize>,
    arguments: Vec<&'static [u8]>,
    commands_until_clock: usize,
    /// What the connection that is to be served has sent, if it has been read already.
    pub ahead: Option<Piece>,
    /// The clock that leases go by, if it was read since commands were last run.
    moment: Option<Duration>,
    /// What was last noted of the shared buffers.
    beyond: usize,
}

/// What a connection needs after having been served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum After {
    /// The next event.
    Wait,
    /// Another turn, without an event.
    Again,
    /// A place in the queue of handshakes.
    Handshake,
    /// To be served again when the pause is over.
    Postpone,
    /// To be flushed again when more of the log is on disk.
    Hold,
    /// To be closed now.
    Close,
}

/// What a read brought.
enum Received {
    Bytes(usize),
    Nothing,
    /// The peer will send no more, or cannot be read from.
    End,
}

impl Service {
    pub fn new(worker: Worker) -> Self {
        Self {
            worker,
            received: vec![0; READ_BYTES],
            decrypted: Vec::new(),
            records: Vec::new(),
            last_words: Vec::new(),
            replies: Vec::with_capacity(READ_BYTES),
            spans: Vec::new(),
            commands: Vec::with_capacity(BATCH_COMMANDS),
            ends: Vec::with_capacity(BATCH_COMMANDS),
            arguments: Vec::new(),
            commands_until_clock: CLOCK_COMMANDS,
            ahead: None,
            moment: None,
            beyond: 0,
        }
    }

    /// A new turn: the clock is read, once.
    pub fn begin_turn(&mut self) {
        self.worker.clock.refresh();
        let server = &self.worker.server;
        if server.horizon.is_over(clock::since_boot) {
            server.fence_late();
        }
        self.worker.turn_commands = 0;
        self.commands_until_clock = CLOCK_COMMANDS;
    }

    /// The turn is over, and all replies have been flushed: gives memory back that one turn needed.
    pub fn end_turn(&mut self) {
        debug_assert!(self.replies.is_empty());
        self.worker.send_published();
        self.worker.to_flush.clear();
        for buffer in [&mut self.replies, &mut self.records, &mut self.decrypted] {
            buffer.clear();
            buffer.shrink_to(SCRATCH_BYTES_KEPT);
        }
        self.note_buffers();
        self.arguments.shrink_to(SCRATCH_ARGUMENTS_KEPT);
        self.spans.clear();
        self.spans.shrink_to(SCRATCH_ARGUMENTS_KEPT);
        self.worker.scratch.shrink_to(SCRATCH_ARGUMENTS_KEPT);
    }

    /// What the shared buffers take beyond their usual size makes no keys go.
    #[inline]
    pub fn note_buffers(&mut self) {
        let buffers = [&self.replies, &self.records, &self.decrypted];
        let beyond = buffers.iter().map(|it| it.capacity().saturating_sub(READ_BYTES)).sum();
        if beyond != self.beyond {
            allocator::note_passing(self.beyond, beyond);
            self.beyond = beyond;
        }
    }

    /// Reads once from the connection and runs what is there.
    pub fn serve(&mut self, connection: &mut Connection) -> After {
        let is_held = connection.flags.paused || connection.flags.postponed;
        if connection.closing() || is_held || connection.session.waiter.is_some() {
            return After::Wait;
        }
        self.stage(connection, Self::serve_staged)
    }

    /// Goes on with a connection that has waited: first comes what it has waited for.
    pub fn end_wait(&mut self, connection: &mut Connection, reply: &[u8]) -> After {
        if connection.closing() {
            return After::Wait;
        }
        self.stage(connection, |service, connection| {
            service.replies.extend_from_slice(reply);
            // Whoever served it has logged that.
            let Session { database, tells_of_writes, logged, .. } = &mut connection.session;
            // On a replica nobody waits but to read.
            *tells_of_writes |= !database.replication.is_replica();
            let log = &database.log;
            if log.is_strict() {
                *logged = log.end();
            }
            if connection.flags.paused { After::Wait } else { service.serve_staged(connection) }
        })
    }

    /// Takes one step of a handshake: what one read brings.
    pub fn shake(&mut self, connection: &mut Connection) -> After {
        if connection.closing() {
            return After::Wait;
        }
        self.stage(connection, Self::receive_tls)
    }

    /// Turns a connection away whose first byte was waited for in vain.
    pub fn turn_away(&mut self, connection: &mut Connection, refusal: Refusal) -> After {
        self.stage(connection, |service, connection| service.refuse(connection, refusal))
    }

    /// Notes which replies are this connection's while `serve` appends them.
    fn stage(
        &mut self,
        connection: &mut Connection,
        serve: impl FnOnce(&mut Self, &mut Connection) -> After,
    ) -> After {
        if !connection.staged.is_empty() && self.flush(connection) == After::Close {
            return After::Close;
        }
        // What is about to be done is later than any reading of the clock.
        self.moment = None;
        let start = self.replies.len();
        connection.staged = start..start;
        // A bug that one client runs into costs it the connection, and nobody else anything.
        let served = catch_unwind(AssertUnwindSafe(|| serve(self, connection)));
        let after = served.unwrap_or_else(|_| {
            log::warning!("Closing the client that ran into a bug: {}", connection.describe());
            self.replies.truncate(connection.staged.start);
            // Of what it has done by half nothing is told.
            self.worker.scratch.unit.clear();
            self.received.resize(READ_BYTES, 0);
            After::Close
        });
        // Where nothing was said, nothing is kept of the place: it may not exist when this is next asked for.
        let end = self.replies.len();
        connection.staged = if start < end { start..end } else { 0..0 };
        after
    }

    fn serve_staged(&mut self, connection: &mut Connection) -> After {
        if let Some(mut piece) = self.ahead.take() {
            connection.flags.readable = piece.is_full();
            self.count_read(connection, piece.bytes().len());
            let after = self.run_received(connection, piece.bytes());
            piece.clear();
            self.ahead = Some(piece);
            let goes_on = after == After::Again && !connection.flags.unparsed;
            if !goes_on || !is_large(connection) {
                return after;
            }
        }
        if connection.flags.unparsed {
            connection.flags.unparsed = false;
            let after = self.run_input(connection);
            let is_held = connection.flags.paused || connection.session.waiter.is_some();
            if after != After::Wait || connection.closing() || is_held {
                return after;
            }
        }
        if !connection.flags.readable {
            return After::Wait;
        }
        let mut len = connection.input.len();
        let enough = len + LARGE_TURN_BYTES;
        loop {
            let after = match connection.transport {
                Transport::Sniff => self.sniff(connection),
                Transport::Plain => self.receive_plain(connection),
                Transport::Handshake(_) => After::Handshake,
                Transport::Tls(_) => self.receive_tls(connection),
            };
            // Of a large request all is read that has come, so that its client has it counted. Reading makes
            // room for what the peer's side still holds.
            let more = connection.input.len();
            let goes_on = matches!(after, After::Again | After::Wait) && !connection.flags.unparsed;
            if !goes_on || more <= len || enough <= more || !is_large(connection) {
                return after;
            }
            len = more;
            connection.flags.readable = true;
        }
    }

    /// Decides by the first byte what the connection speaks.
    fn sniff(&mut self, connection: &mut Connection) -> After {
        let mut received = std::mem::take(&mut self.received);
        let after = match read(&mut connection.stream, &mut connection.flags, &mut received) {
            Received::Bytes(count) => {
                self.count_read(connection, count);
                self.admit(connection, &mut received[..count])
            }
            Received::Nothing => After::Wait,
            Received::End => After::Close,
        };
        self.received = received;
        after
    }

    fn admit(&mut self, connection: &mut Connection, received: &mut [u8]) -> After {
        let admission = match connection.kind {
            Kind::Tls if received[0] != TLS_HANDSHAKE => return self.refuse_stranger(connection),
            Kind::Tls => Admission::Tls,
            Kind::Tcp => {
                let settings = connection.session.database.settings.load();
                settings.transit_encryption.admit(received[0])
            }
            // It does not leave the machine, and its file has permissions.
            Kind::Unix => Admission::Plain,
        };
        match admission {
            Admission::Plain => {
                connection.transport = Transport::Plain;
                match connection.refusal {
                    Some(refusal) => self.refuse(connection, refusal),
                    None => self.run_received(connection, received),
                }
            }
            Admission::Tls => match connection.session.database.tls.start() {
                Some(Ok(session)) => {
                    connection.transport = Transport::Handshake(Box::new(session));
                    connection.session.tls = true;
                    connection.session.shared.tls.store(true, Ordering::Relaxed);
                    connection.input.append(received);
                    After::Handshake
                }
                Some(Err(error)) => {
                    log::warning!("Error accepting a client connection: {error}");
                    After::Close
                }
                None => self.turn_back(connection, TLS_REFUSED),
            },
            Admission::Refuse(text) => self.turn_back(connection, text),
        }
    }

    /// Closes a connection to a port of TLS alone that speaks something else, which would not understand an alert.
    #[cold]
    fn refuse_stranger(&mut self, connection: &mut Connection) -> After {
        self.note_failed_handshake(connection, &"it does not begin with TLS");
        After::Close
    }

    #[cold]
    fn note_failed_handshake(&self, connection: &Connection, reason: &dyn fmt::Display) {
        let session = &connection.session;
        self.worker.counters(&session.database).handshakes_failed.add(1);
        log::verbose!(
            "Error accepting a client connection: {reason} (addr={} laddr={})",
            session.shared.address,
            session.shared.local_address
        );
    }

    /// Answers a connection that may not come in with bytes that are not encrypted.
    fn turn_back(&mut self, connection: &mut Connection, text: &[u8]) -> After {
        connection.transport = Transport::Plain;
        self.worker.counters(&connection.session.database).connections_rejected.add(1);
        self.say_last(connection, text)
    }

    fn receive_plain(&mut self, connection: &mut Connection) -> After {
        if is_large(connection) {
            let Connection { input, stream, flags, wanted, .. } = connection;
            return match read(stream, flags, input.room(*wanted)) {
                Received::Bytes(count) => {
                    input.filled(count);
                    self.count_read(connection, count);
                    self.run_input(connection)
                }
                Received::Nothing => After::Wait,
                Received::End => self.end_of_stream(connection),
            };
        }
        let mut received = std::mem::take(&mut self.received);
        let tail = connection.input.move_to(&mut received);
        let room = &mut received[tail..];
        let after = match read(&mut connection.stream, &mut connection.flags, room) {
            Received::Bytes(count) => {
                self.count_read(connection, count);
                self.run_received(connection, &mut received[..tail + count])
            }
            Received::Nothing => {
                connection.input.append(&received[..tail]);
                After::Wait
            }
            Received::End => self.end_of_stream(connection),
        };
        self.received = received;
        after
    }

    /// Reads records, and runs what they hold.
    fn receive_tls(&mut self, connection: &mut Connection) -> After {
        let mut received = std::mem::take(&mut self.received);
        let is_first =
            matches!(connection.transport, Transport::Handshake(_)) && !connection.input.is_empty();
        let read = match is_first {
            // The bytes that told that this is TLS.
            true => Received::Bytes(connection.input.move_to(&mut received)),
            false => read(&mut connection.stream, &mut connection.flags, &mut received),
        };
        let after = match read {
            Received::Bytes(count) => {
                if !is_first {
                    self.count_read(connection, count);
                }
                self.decrypt(connection, &mut received[..count])
            }
            Received::Nothing => After::Wait,
            Received::End => self.end_of_stream(connection),
        };
        self.received = received;
        after
    }

    fn decrypt(&mut self, connection: &mut Connection, records: &mut [u8]) -> After {
        let mut decrypted = std::mem::take(&mut self.decrypted);
        decrypted.clear();
        let is_large = is_large(connection);
        if !is_large {
            decrypted.extend_from_slice(connection.input.data_mut());
            connection.input.clear();
        }
        let after = match self.receive_records(connection, records, &mut decrypted) {
            Err(error) => self.fail_tls(connection, &error),
            Ok(_) if connection.closing() => After::Wait,
            Ok(is_open) => {
                let after = if is_large {
                    connection.input.append(&decrypted);
                    self.run_input(connection)
                } else if decrypted.is_empty() {
                    self.settle(connection, &[], Stop::Incomplete { wanted: connection.wanted })
                } else {
                    self.run_received(connection, &mut decrypted)
                };
                match is_open || connection.closing() {
                    true => after,
                    false => self.end_of_stream(connection),
                }
            }
        };
        self.decrypted = decrypted;
        after
    }

    /// Decrypts into `decrypted`; false once the peer has closed its direction.
    fn receive_records(
        &mut self,
        connection: &mut Connection,
        records: &mut [u8],
        decrypted: &mut Vec<u8>,
    ) -> Result<bool, TlsError> {
        let (Transport::Handshake(session) | Transport::Tls(session)) = &mut connection.transport
        else {
            return Ok(false);
        };
        self.records.clear();
        let result = session.receive(records, decrypted, &mut self.records);
        connection.output.push(&self.records);
        let received = result?;
        if received.handshake_finished
            && let Transport::Handshake(session) =
                std::mem::replace(&mut connection.transport, Transport::Sniff)
        {
            log::debug!(
                "TLS handshake finished: {} {} {} (addr={})",
                session.protocol(),
                session.cipher(),
                session.group(),
                connection.session.shared.address
            );
            if acl::admits_certificate(&connection.session, &session) {
                acl::log_in_by_certificate(&self.worker, &mut connection.session, &session);
            } else {
                connection.refusal = Some(Refusal::Subject);
            }
            connection.transport = Transport::Tls(session);
            self.worker.counters(&connection.session.database).handshakes.add(1);
            if let Some(refusal) = connection.refusal {
                decrypted.clear();
                self.refuse(connection, refusal);
            }
        }
        Ok(!received.closed)
    }

    /// Tells the peer why, where an alert is due, and gives up.
    fn fail_tls(&mut self, connection: &mut Connection, error: &TlsError) -> After {
        if let Transport::Handshake(_) = connection.transport {
            self.note_failed_handshake(connection, error);
        } else {
            log::verbose!("Reading from client: {error} {}", connection.describe());
        }
        self.end_of_stream(connection)
    }

    fn refuse(&mut self, connection: &mut Connection, refusal: Refusal) -> After {
        self.say_last(connection, refusal.text())
    }

    fn say_last(&mut self, connection: &mut Connection, text: &[u8]) -> After {
        self.replies.extend_from_slice(text);
        self.end_of_stream(connection)
    }

    /// Nothing more is read: what is owed is sent, then the connection ends.
    fn end_of_stream(&mut self, connection: &mut Connection) -> After {
        connection.close_when_flushed(self.worker.clock.monotonic_ms());
        After::Wait
    }

    /// Keeps what has been read from a connection that cannot be served now.
    pub fn keep(&mut self, connection: &mut Connection, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.count_read(connection, bytes.len());
            connection.input.append(bytes);
            connection.flags.unparsed = true;
        }
    }

    fn count_read(&mut self, connection: &mut Connection, count: usize) {
        connection.flags.sends_little = count < PIECE_BYTES / 2;
        let shared = &connection.session.shared;
        shared.last_interaction_ms.store(self.worker.clock.now_ms(), Ordering::Relaxed);
        let total = shared.net_input_bytes.load(Ordering::Relaxed) + count as u64;
        shared.net_input_bytes.store(total, Ordering::Relaxed);
        let counters = self.worker.counters(&connection.session.database);
        counters.net_input_bytes.add(count as u64);
        counters.reads_processed.add(1);
    }
}

/// Whether a request is so long that it is received where it stays.
fn is_large(connection: &Connection) -> bool {
    TAIL_BYTES_MAX < connection.input.len() || READ_BYTES < connection.wanted
}

/// Reads once. A read that does not fill `room` has emptied the socket, unless the peer has hung up: then
/// the end is still to be read, and no event will tell.
fn read(stream: &mut Stream, flags: &mut Flags, room: &mut [u8]) -> Received {
    loop {
        match stream.read(room) {
            Ok(0) => return Received::End,
            Ok(count) => {
                flags.readable = count == room.len() || flags.hangup;
                return Received::Bytes(count);
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => {
                    flags.readable = false;
                    return Received::Nothing;
                }
                ErrorKind::Interrupted => {}
                _ => return Received::End,
            },
        }
    }
}

//! Serving one connection for one turn: read, decrypt, parse, run, and leave the replies to be flushed.
//!
//! Rules that the speed rests on: one read a turn into a buffer that all connections share, no copy of a whole
//! request, no allocation for a command, and one write, at the end of the turn.

use std::io::{self, ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_resp::{Limits, Progress, Span};
use carnelian_tls::{Admission, TlsError};

use crate::connection::{Connection, Flags, Refusal, Stream, Transport};
use crate::dispatch;
use crate::listener::Kind;
use crate::log;
use crate::output::Output;
use crate::session::{BATCH_COMMANDS, BATCH_REPLY_BYTES, Batch, Next, Worker, recycle};

/// What is read at once from one connection.
const READ_BYTES: usize = 64 << 10;

/// A request's beginning up to this size is copied back to the shared buffer to be completed there.
const TAIL_BYTES_MAX: usize = 16 << 10;

/// After so many commands in one turn the others are served first.
const TURN_COMMANDS: usize = 1024;

/// The clock is read again after so many commands.
const CLOCK_COMMANDS: usize = 256;

/// With so much output waiting, nothing more is read from a client that has no limit of its own.
///
/// Generous, since many clients send a whole pipeline before they read the first reply: to stop too
/// early would be a deadlock for them.
const OUTPUT_PAUSE_BYTES: usize = 256 << 20;

/// A client that has not authenticated is owed no more than this.
const UNAUTHENTICATED_OUTPUT_BYTES: usize = 16 << 10;

/// What the shared buffers keep of their size after a turn that needed more.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;
const SCRATCH_ARGUMENTS_KEPT: usize = 1 << 16;

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

/// How far the parser came for one batch.
struct Parsed {
    position: usize,
    end: End,
}

enum End {
    /// The batch is full; there may be more.
    Batch,
    Incomplete {
        wanted: usize,
    },
    Error,
}

/// Why the commands in a buffer were not all run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    /// They were; the rest is the beginning of one.
    Incomplete { wanted: usize },
    /// Others are to be served.
    Quota,
    /// The client is to read first.
    Paused,
    /// Nothing more is to be run for this client.
    Close,
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
        }
    }

    /// A new turn: the clock is read, once.
    pub fn begin_turn(&mut self) {
        self.worker.clock.refresh();
        self.commands_until_clock = CLOCK_COMMANDS;
    }

    /// The turn is over, and all replies have been flushed: gives memory back that one turn needed.
    pub fn end_turn(&mut self) {
        debug_assert!(self.replies.is_empty());
        for buffer in [&mut self.replies, &mut self.records, &mut self.decrypted] {
            buffer.clear();
            buffer.shrink_to(SCRATCH_BYTES_KEPT);
        }
        self.arguments.shrink_to(SCRATCH_ARGUMENTS_KEPT);
        self.spans.clear();
        self.spans.shrink_to(SCRATCH_ARGUMENTS_KEPT);
    }

    /// Reads once from the connection and runs what is there.
    pub fn serve(&mut self, connection: &mut Connection) -> After {
        if connection.closing() || connection.flags.paused {
            return After::Wait;
        }
        self.stage(connection, Self::serve_staged)
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
        let start = self.replies.len();
        connection.staged = start..start;
        // A bug that one client runs into costs it the connection, and nobody else anything.
        let served = catch_unwind(AssertUnwindSafe(|| serve(self, connection)));
        let after = served.unwrap_or_else(|_| {
            log::warning!("Closing the client that ran into a bug: {}", connection.describe());
            self.replies.truncate(connection.staged.start);
            self.received.resize(READ_BYTES, 0);
            After::Close
        });
        connection.staged.end = self.replies.len();
        after
    }

    fn serve_staged(&mut self, connection: &mut Connection) -> After {
        if connection.flags.unparsed {
            connection.flags.unparsed = false;
            let after = self.run_input(connection);
            if after != After::Wait || connection.closing() || connection.flags.paused {
                return after;
            }
        }
        if !connection.flags.readable {
            return After::Wait;
        }
        match connection.transport {
            Transport::Sniff => self.sniff(connection),
            Transport::Plain => self.receive_plain(connection),
            Transport::Handshake(_) => After::Handshake,
            Transport::Tls(_) => self.receive_tls(connection),
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
                Ok(session) => {
                    connection.transport = Transport::Handshake(Box::new(session));
                    connection.session.tls = true;
                    connection.session.shared.tls.store(true, Ordering::Relaxed);
                    connection.input.append(received);
                    After::Handshake
                }
                Err(error) => {
                    log::warning!("Error accepting a client connection: {error}");
                    After::Close
                }
            },
            Admission::Refuse(text) => {
                connection.transport = Transport::Plain;
                self.worker.counters(&connection.session.database).connections_rejected.add(1);
                self.say_last(connection, text)
            }
        }
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
            let shared = &connection.session.shared;
            self.worker.counters(&connection.session.database).handshakes_failed.add(1);
            log::verbose!(
                "Error accepting a client connection: {error} (addr={} laddr={})",
                shared.address,
                shared.local_address
            );
        } else {
            log::verbose!("Reading from client: {error} {}", connection.describe());
        }
        self.end_of_stream(connection)
    }

    /// Runs what is in the connection's own buffer.
    fn run_input(&mut self, connection: &mut Connection) -> After {
        let mut input = std::mem::take(&mut connection.input);
        let (consumed, stop) = self.run(connection, input.data_mut());
        input.consume(consumed);
        connection.input = input;
        self.settle(connection, &[], stop)
    }

    /// Runs what is in a shared buffer; what is left of it becomes the connection's own.
    fn run_received(&mut self, connection: &mut Connection, data: &mut [u8]) -> After {
        let (consumed, stop) = self.run(connection, data);
        self.settle(connection, &data[consumed..], stop)
    }

    fn settle(&mut self, connection: &mut Connection, rest: &[u8], stop: Stop) -> After {
        if stop == Stop::Close {
            connection.input.clear();
            return self.end_of_stream(connection);
        }
        if !rest.is_empty() {
            connection.input.append(rest);
        }
        let held = connection.input.len();
        connection.session.shared.query_bytes.store(held, Ordering::Relaxed);
        if held != 0 && connection.session.database.settings.load().query_bytes_max < held {
            log::warning!(
                "Closing client that reached max query buffer length: {}",
                connection.describe()
            );
            self.worker.counters(&connection.session.database).query_limit_disconnections.add(1);
            return After::Close;
        }
        match stop {
            Stop::Incomplete { wanted } => {
                connection.wanted = wanted;
                if connection.flags.readable { After::Again } else { After::Wait }
            }
            Stop::Quota | Stop::Paused => {
                connection.wanted = 0;
                connection.flags.unparsed = true;
                if stop == Stop::Quota { After::Again } else { After::Wait }
            }
            Stop::Close => After::Close,
        }
    }

    /// Runs the commands in `data`, a batch at a time; returns the bytes they took and why it ended.
    fn run(&mut self, connection: &mut Connection, data: &mut [u8]) -> (usize, Stop) {
        let bulk_bytes_max = connection.session.database.settings.load().bulk_bytes_max;
        let mut position = 0;
        let mut quota = TURN_COMMANDS;
        loop {
            let limits = Limits {
                max_bulk: bulk_bytes_max,
                authenticated: connection.session.authenticated,
                ..Limits::default()
            };
            let parsed = self.parse(connection, data, position, &limits);
            if !self.commands.is_empty() {
                let (ran, next) = self.run_batch(connection, data);
                quota = quota.saturating_sub(ran);
                let is_whole = ran == self.commands.len();
                position = if is_whole { parsed.position } else { self.commands[ran - 1].1 };
                if next == Next::Close || connection.session.close_after_reply {
                    return (position, Stop::Close);
                }
                if !is_whole {
                    // The parser has been further; the rest is parsed anew.
                    connection.parser.reset();
                    return (position, Stop::Paused);
                }
            } else {
                position = parsed.position;
            }
            match parsed.end {
                End::Batch => {}
                End::Incomplete { wanted } => return (position, Stop::Incomplete { wanted }),
                End::Error => {
                    self.replies.append(&mut self.last_words);
                    return (position, Stop::Close);
                }
            }
            if connection.flags.paused {
                return (position, Stop::Paused);
            }
            if quota == 0 {
                return (position, Stop::Quota);
            }
        }
    }

    /// Finds the next commands from `position` on.
    fn parse(
        &mut self,
        connection: &mut Connection,
        data: &mut [u8],
        mut position: usize,
        limits: &Limits,
    ) -> Parsed {
        self.spans.clear();
        self.commands.clear();
        self.ends.clear();
        // What comes after AUTH is judged by other limits.
        let commands_max = if limits.authenticated { BATCH_COMMANDS } else { 1 };
        while self.commands.len() < commands_max {
            if position == data.len() {
                return Parsed { position, end: End::Incomplete { wanted: 0 } };
            }
            let is_inline = data[position] != b'*';
            if is_inline && !self.commands.is_empty() {
                // Unescaping changes the bytes, so an inline command cannot be parsed a second time: it
                // gets a batch of its own, which always runs.
                break;
            }
            match connection.parser.next(&mut data[position..], limits, &mut self.spans) {
                Ok(Progress::Complete { consumed, arguments }) => {
                    if arguments != 0 {
                        self.commands.push((position, position + consumed));
                        self.ends.push(self.spans.len());
                    }
                    position += consumed;
                    if is_inline && arguments != 0 {
                        break;
                    }
                }
                Ok(Progress::Incomplete { wanted }) => {
                    return Parsed { position, end: End::Incomplete { wanted } };
                }
                Err(error) => {
                    log::verbose!(
                        "Protocol error ({}) from client: {}",
                        error.log_reason(),
                        connection.describe()
                    );
                    self.last_words.extend_from_slice(b"-ERR ");
                    error.write_text(&mut self.last_words);
                    self.last_words.extend_from_slice(b"\r\n");
                    return Parsed { position, end: End::Error };
                }
            }
        }
        Parsed { position, end: End::Batch }
    }

    /// Runs the parsed commands; returns how many, fewer only where the client has to read first.
    fn run_batch(&mut self, connection: &mut Connection, data: &[u8]) -> (usize, Next) {
        let mut arguments = recycle(std::mem::take(&mut self.arguments));
        let mut first = 0;
        for (&(start, _), &end) in self.commands.iter().zip(&self.ends) {
            let command = &data[start..];
            arguments.extend(self.spans[first..end].iter().map(|span| span.of(command)));
            first = end;
        }

        let mut ran = 0;
        let mut skip = 0;
        let next = loop {
            let count = self.ends.len() - ran;
            self.commands_until_clock = match self.commands_until_clock.checked_sub(count) {
                Some(left) => left,
                None => {
                    self.worker.clock.refresh();
                    CLOCK_COMMANDS
                }
            };
            let batch = Batch { arguments: &arguments[skip..], ends: &self.ends[ran..] };
            let session = &mut connection.session;
            let outcome = dispatch::run_batch(&mut self.worker, session, &batch, &mut self.replies);
            let done = outcome.ran.clamp(1, count);
            let taken = self.ends[ran + done - 1];
            ran += done;
            if BATCH_REPLY_BYTES <= self.replies.len() - connection.staged.start {
                self.flush_early(connection);
            }
            if outcome.next == Next::Close || ran == self.ends.len() {
                break outcome.next;
            }
            if connection.flags.paused || connection.session.close_after_reply {
                break Next::Continue;
            }
            skip += taken;
            for end in &mut self.ends[ran..] {
                *end -= taken;
            }
        };
        self.arguments = recycle(arguments);

        let shared = &connection.session.shared;
        let commands = shared.commands.load(Ordering::Relaxed) + ran as u64;
        shared.commands.store(commands, Ordering::Relaxed);
        self.worker.counters(&connection.session.database).commands_processed.add(ran as u64);
        (ran, next)
    }

    /// Sends replies in the middle of a turn, since there are many.
    fn flush_early(&mut self, connection: &mut Connection) {
        let start = connection.staged.start;
        connection.staged.end = self.replies.len();
        if self.flush(connection) == After::Close {
            connection.session.close_after_reply = true;
        }
        self.replies.truncate(start);
        connection.staged = start..start;
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

    fn count_read(&mut self, connection: &mut Connection, count: usize) {
        let shared = &connection.session.shared;
        shared.last_interaction_ms.store(self.worker.clock.now_ms(), Ordering::Relaxed);
        let total = shared.net_input_bytes.load(Ordering::Relaxed) + count as u64;
        shared.net_input_bytes.store(total, Ordering::Relaxed);
        let counters = self.worker.counters(&connection.session.database);
        counters.net_input_bytes.add(count as u64);
        counters.reads_processed.add(1);
    }

    /// Appends replies made elsewhere, after all that this connection is already owed.
    pub fn deliver(&mut self, connection: &mut Connection, bytes: Arc<[u8]>) {
        if connection.closing() || self.move_staged(connection).is_err() {
            return;
        }
        match &mut connection.transport {
            Transport::Handshake(session) | Transport::Tls(session) => {
                self.records.clear();
                if session.send(&bytes, &mut self.records).is_ok() {
                    connection.output.push(&self.records);
                }
            }
            Transport::Sniff | Transport::Plain => connection.output.push_shared(bytes),
        }
    }

    /// Sends the turn's replies, in one write where the socket takes them.
    pub fn flush(&mut self, connection: &mut Connection) -> After {
        let staged = std::mem::take(&mut connection.staged);
        let mut bytes = &self.replies[staged];
        if !bytes.is_empty()
            && let Transport::Handshake(session) | Transport::Tls(session) =
                &mut connection.transport
        {
            self.records.clear();
            if let Err(error) = session.send(bytes, &mut self.records) {
                log::verbose!("Writing to client: {error} {}", connection.describe());
                return After::Close;
            }
            bytes = &self.records;
        }
        let Connection { stream, output, flags, .. } = connection;
        let written = write(stream, output, flags, bytes);
        self.after_write(connection, written)
    }

    /// Goes on with what the socket did not take before.
    pub fn drain(&mut self, connection: &mut Connection) -> After {
        connection.flags.blocked = false;
        self.flush(connection)
    }

    /// Tells the peer that the connection ends, as far as the socket takes it.
    pub fn say_goodbye(&mut self, connection: &mut Connection) {
        if let Transport::Tls(session) = &mut connection.transport {
            self.records.clear();
            session.close_notify(&mut self.records);
            connection.output.push(&self.records);
        }
        // Whatever goes wrong now, the connection is over.
        let _ = connection.output.write_to(&mut connection.stream);
    }

    /// Encrypts and queues what is staged, to be written with what comes after.
    fn move_staged(&mut self, connection: &mut Connection) -> Result<(), TlsError> {
        let staged = std::mem::take(&mut connection.staged);
        let bytes = &self.replies[staged];
        match &mut connection.transport {
            Transport::Handshake(session) | Transport::Tls(session) if !bytes.is_empty() => {
                self.records.clear();
                session.send(bytes, &mut self.records)?;
                connection.output.push(&self.records);
            }
            _ => connection.output.push(bytes),
        }
        Ok(())
    }

    /// Judges a connection by what it has not taken.
    fn after_write(&mut self, connection: &mut Connection, written: io::Result<usize>) -> After {
        let counters = self.worker.counters(&connection.session.database);
        let shared = &connection.session.shared;
        match written {
            Ok(0) => {}
            Ok(count) => {
                let total = shared.net_output_bytes.load(Ordering::Relaxed) + count as u64;
                shared.net_output_bytes.store(total, Ordering::Relaxed);
                counters.net_output_bytes.add(count as u64);
                counters.writes_processed.add(1);
            }
            Err(error) => {
                log::verbose!("Error writing to client: {error} {}", connection.describe());
                return After::Close;
            }
        }
        let waiting = connection.output.len();
        shared.output_bytes.store(waiting, Ordering::Relaxed);
        if waiting == 0 {
            connection.over_soft_limit_since_ms = None;
            return match connection.closing() {
                true => After::Close,
                false => Self::resume(connection),
            };
        }
        if self.is_over_limit(connection) {
            return After::Close;
        }
        let hard_bytes = {
            let settings = connection.session.database.settings.load();
            settings.output_limits.of(connection.session.class).hard_bytes
        };
        let pause_bytes = OUTPUT_PAUSE_BYTES.max(hard_bytes);
        if pause_bytes < waiting {
            connection.flags.paused = true;
        } else if waiting < pause_bytes / 2 {
            return Self::resume(connection);
        }
        After::Wait
    }

    /// Whether a client is to be disconnected because of what it does not read. Says so in the log.
    pub fn is_over_limit(&self, connection: &mut Connection) -> bool {
        let waiting = connection.output.len();
        let now_ms = self.worker.clock.monotonic_ms();
        let limit = {
            let settings = connection.session.database.settings.load();
            *settings.output_limits.of(connection.session.class)
        };
        if !limit.is_over_soft(waiting) {
            connection.over_soft_limit_since_ms = None;
        }
        let is_over = limit.is_over_hard(waiting)
            || limit.is_over_soft(waiting) && {
                let since_ms = *connection.over_soft_limit_since_ms.get_or_insert(now_ms);
                limit.soft_seconds.saturating_mul(1000) < now_ms - since_ms
            }
            || !connection.session.authenticated && UNAUTHENTICATED_OUTPUT_BYTES < waiting;
        if is_over {
            log::warning!(
                "Client {} scheduled to be closed ASAP for overcoming of output buffer limits.",
                connection.describe()
            );
            let counters = self.worker.counters(&connection.session.database);
            counters.output_limit_disconnections.add(1);
        }
        is_over
    }

    fn resume(connection: &mut Connection) -> After {
        match std::mem::take(&mut connection.flags.paused) {
            true => After::Again,
            false => After::Wait,
        }
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

/// Writes what waits and then `bytes`; what the socket does not take waits. Returns what it took.
fn write(
    stream: &mut Stream,
    output: &mut Output,
    flags: &mut Flags,
    bytes: &[u8],
) -> io::Result<usize> {
    if flags.blocked || !output.is_empty() {
        output.push(bytes);
    } else if bytes.is_empty() {
        return Ok(0);
    } else {
        let taken = loop {
            match stream.write(bytes) {
                Ok(taken) => break taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if taken == bytes.len() {
            return Ok(taken);
        }
        output.push(&bytes[taken..]);
        let more = output.write_to(stream)?;
        flags.blocked = !output.is_empty();
        return Ok(taken + more);
    }
    if flags.blocked {
        return Ok(0);
    }
    let taken = output.write_to(stream)?;
    flags.blocked = !output.is_empty();
    Ok(taken)
}

//! The way out: one write a turn for each connection that is owed something, and the limits on what a
//! client may leave unread.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_tls::TlsError;

use super::{After, Service};
use crate::connection::{Connection, Flags, Stream, Transport};
use crate::features;
use crate::log;
use crate::output::Output;
use crate::session::Session;

/// With so much output waiting, nothing more is read from a client that has no limit of its own.
///
/// Generous, since many clients send a whole pipeline before they read the first reply: to stop too
/// early would be a deadlock for them.
const OUTPUT_PAUSE_BYTES: usize = 256 << 20;

/// What is delivered is copied up to this size, and shared beyond.
const STAGED_BYTES: usize = 4096;

/// What no limit counts: short replies are not looked at before they are sent.
const UNLIMITED_BYTES: usize = 16 << 10;

/// A client that has not authenticated is owed no more than this.
const UNAUTHENTICATED_OUTPUT_BYTES: usize = 16 << 10;

impl Service {
    /// Appends replies made elsewhere, after all that this connection is already owed.
    pub fn deliver(&mut self, connection: &mut Connection, bytes: &Arc<[u8]>) {
        if connection.closing() {
            return;
        }
        // What is short joins the turn's replies, where that needs no move of others.
        let staged = &mut connection.staged;
        let is_first = staged.start == staged.end;
        if bytes.len() <= STAGED_BYTES
            && (is_first || staged.end == self.replies.len())
            && !connection.flags.blocked
        {
            if is_first {
                staged.start = self.replies.len();
            }
            self.replies.extend_from_slice(bytes);
            staged.end = self.replies.len();
            return;
        }
        if self.move_staged(connection).is_err() {
            return;
        }
        match &mut connection.transport {
            Transport::Handshake(session) | Transport::Tls(session) => {
                self.records.clear();
                if session.send(bytes, &mut self.records).is_ok() {
                    connection.output.push(&self.records);
                }
            }
            Transport::Sniff | Transport::Plain => connection.output.push_shared(Arc::clone(bytes)),
        }
    }

    /// Sends the turn's replies, in one write where the socket takes them.
    pub fn flush(&mut self, connection: &mut Connection) -> After {
        self.worker.send_published();
        let Session { database, logged, .. } = &connection.session;
        if database.log.holds(*logged, self.worker.reactor) {
            return self.hold(connection);
        }
        if let Some(attached) = &connection.session.attached
            && !attached.is_fresh
            && !connection.staged.is_empty()
        {
            return self.refuse_replies(connection);
        }
        let staged = std::mem::take(&mut connection.staged);
        let mut bytes = &self.replies[staged];
        if UNLIMITED_BYTES < bytes.len() && self.is_over_hard_limit(connection, bytes.len()) {
            // Nothing is left to wait for, whoever closes it.
            connection.output.clear();
            return After::Close;
        }
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

    /// Keeps the turn's replies back until the effects before them are on disk.
    #[cold]
    fn hold(&mut self, connection: &mut Connection) -> After {
        if self.move_staged(connection).is_err() {
            return After::Close;
        }
        if connection.output.is_empty() && !connection.closing() {
            return After::Wait;
        }
        if connection.session.database.aof.is_given_up() {
            // Not a word of what may come to nothing.
            connection.output.clear();
            return After::Close;
        }
        After::Hold
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
        shared.output_pieces.store(connection.output.pieces(), Ordering::Relaxed);
        features::account(&self.worker, &connection.session);
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
        if connection.session.attached.is_some() {
            return After::Wait;
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
        let waiting = connection.output.len() + lag_of(connection);
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
            self.report_over_limit(connection);
        }
        is_over
    }

    /// The same of what is yet to be sent: a reply above the limit is not even begun.
    fn is_over_hard_limit(&self, connection: &Connection, more: usize) -> bool {
        let is_over = {
            let settings = connection.session.database.settings.load();
            let limit = settings.output_limits.of(connection.session.class);
            limit.is_over_hard(connection.output.len() + more)
        };
        if is_over {
            self.report_over_limit(connection);
        }
        is_over
    }

    fn report_over_limit(&self, connection: &Connection) {
        log::warning!(
            "Client {} scheduled to be closed ASAP for overcoming of output buffer limits.",
            connection.describe()
        );
        let counters = self.worker.counters(&connection.session.database);
        counters.output_limit_disconnections.add(1);
    }

    fn resume(connection: &mut Connection) -> After {
        match std::mem::take(&mut connection.flags.paused) {
            true => After::Again,
            false => After::Wait,
        }
    }
}

/// What a replica has yet to be given of the log counts as if it waited for its socket.
fn lag_of(connection: &Connection) -> usize {
    connection.session.attached.as_ref().map_or(0, |attached| attached.lag as usize)
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

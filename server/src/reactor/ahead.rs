//! Reading ahead: the small requests of several clients are taken from their sockets before the first of
//! them runs.
//!
//! A pipeline hides how far away the memory of its keys is, a lone request cannot: nobody knows its key
//! before it is there to be run. With the next few clients' requests at hand, the lines that all of
//! them need are asked for at once, and arrive while the first ones run.

use std::io::Read;

use carnelian_keyspace::Foreseen;
use carnelian_resp::second_word;
use mio::Token;

use super::Reactor;
use crate::connection::{Connection, Transport};

/// Requests that are taken ahead, at most.
pub const PIECES: usize = 16;

/// What is read of each. Clients that send more at a time have pipelines.
pub const PIECE_BYTES: usize = 1024;

/// What was read from a connection that is about to be served.
pub struct Piece {
    token: Token,
    bytes: Box<[u8]>,
    len: usize,
}

impl Piece {
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// What it held has been dealt with.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Whether the socket may hold more.
    pub fn is_full(&self) -> bool {
        self.len == PIECE_BYTES
    }
}

/// What has been read ahead, and buffers for more.
#[derive(Default)]
pub struct Ahead {
    pieces: Vec<Piece>,
    free: Vec<Box<[u8]>>,
}

impl Ahead {
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// What has been read from a connection, which has to come before anything else from there.
    #[inline]
    pub fn take(&mut self, token: Token) -> Option<Piece> {
        let at = self.pieces.iter().position(|piece| piece.token == token)?;
        Some(self.pieces.swap_remove(at))
    }

    pub fn give_back(&mut self, piece: Piece) {
        self.free.push(piece.bytes);
    }

    /// Forgets what came from connections that are gone: all others have been served.
    pub fn clear(&mut self) {
        self.free.extend(self.pieces.drain(..).map(|piece| piece.bytes));
    }
}

impl Reactor {
    /// Reads from the connections of the next events, and asks for the memory that their requests need.
    pub(super) fn read_ahead(&mut self) {
        let core = &mut *self.core;
        // From inside a command there may be some that the turn outside has read.
        let earlier = core.ahead.pieces.len();
        for event in core.events.iter().take(PIECES) {
            if !event.is_readable() || event.is_read_closed() || event.is_error() {
                continue;
            }
            let token = event.token();
            let Some(connection) = core.connections.get_mut(token) else { continue };
            let is_read = core.ahead.pieces[..earlier].iter().any(|piece| piece.token == token);
            if is_read || !may_be_read(connection) {
                continue;
            }
            let mut bytes =
                core.ahead.free.pop().unwrap_or_else(|| vec![0; PIECE_BYTES].into_boxed_slice());
            match connection.stream.read(&mut bytes[..]) {
                // The end, or an error, is found again by whoever serves the connection.
                Ok(0) | Err(_) => core.ahead.free.push(bytes),
                Ok(len) => core.ahead.pieces.push(Piece { token, bytes, len }),
            }
        }
        let (connections, pieces) = (&core.connections, &core.ahead.pieces);
        let mut foreseen = Foreseen::default();
        for piece in pieces {
            if let Some(key) = second_word(&piece.bytes[..piece.len])
                && let Some(connection) = connections.get(piece.token)
            {
                let session = &connection.session;
                foreseen.add(&session.database.keyspace, session.db.into(), key);
            }
        }
        foreseen.prefetch();
    }
}

/// Whether what a connection sends next would be run as soon as it is served.
fn may_be_read(connection: &Connection) -> bool {
    let Connection { flags, input, session, .. } = connection;
    let is_held = flags.paused || flags.postponed || flags.unparsed || flags.ready || flags.hangup;
    flags.sends_little
        && !is_held
        && input.is_empty()
        && session.waiter.is_none()
        && !connection.closing()
        && matches!(connection.transport, Transport::Plain)
}

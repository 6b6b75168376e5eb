//! Feeding a replica: what it is sent next goes to its output, for as long as little waits there.

use bytes::Bytes;

use super::{After, Service};
use crate::connection::{Connection, Stream, Transport};
use crate::database::Database;
use crate::log;
use crate::propagation::{self, Sender};
use crate::replication::feed::Fed;

/// No more than this waits for the socket of a replica; the rest stays where it is for all.
const FEED_BYTES: usize = 256 << 10;

/// A client has become a replica: `repl-disable-tcp-nodelay`.
#[cold]
fn begin(stream: &Stream, database: &Database) {
    if let Stream::Tcp(stream) = stream
        && database.config().repl_disable_tcp_nodelay
    {
        let _ = stream.set_nodelay(false);
    }
}

impl Service {
    /// Gives a replica more of what it is to be sent.
    pub fn feed(&mut self, connection: &mut Connection) -> Fed {
        if connection.closing() {
            return Fed::All;
        }
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut fed = Fed::More;
        while fed == Fed::More && connection.output.len() < FEED_BYTES {
            let room = FEED_BYTES - connection.output.len();
            let session = &mut connection.session;
            let Some(attached) = &mut session.attached else { return Fed::All };
            if std::mem::take(&mut attached.is_fresh) {
                begin(&connection.stream, &session.database);
            }
            fed = attached.next(&session.database, room, self.worker.reactor, &mut pieces);
            for piece in pieces.drain(..) {
                if !self.send_piece(connection, piece) {
                    return Fed::Over;
                }
            }
        }
        if FEED_BYTES <= connection.output.len()
            && let Some(attached) = &mut connection.session.attached
        {
            attached.lag = connection.session.database.log.lag(attached.replica.id());
        }
        fed
    }

    fn send_piece(&mut self, connection: &mut Connection, piece: Bytes) -> bool {
        match &mut connection.transport {
            Transport::Handshake(session) | Transport::Tls(session) => {
                self.records.clear();
                if let Err(error) = session.send(&piece, &mut self.records) {
                    log::verbose!("Writing to replica: {error} {}", connection.describe());
                    return false;
                }
                connection.output.push(&self.records);
            }
            Transport::Sniff | Transport::Plain => connection.output.push_block(piece),
        }
        true
    }

    /// A replica gets no replies: one that asks for some is no replica.
    #[cold]
    pub(super) fn refuse_replies(&self, connection: &Connection) -> After {
        let last = connection.session.last_command as usize;
        let entries = self.worker.server.registry.entries();
        let command = entries.get(last).map_or("?", |entry| &entry.full_name);
        let reply = self.replies.get(connection.staged.clone()).unwrap_or_default();
        let database = &connection.session.database;
        let counters = self.worker.counters(database);
        propagation::report(Sender::Replica, &database.config(), counters, [command], reply);
        log::warning!(
            "Replica generated a reply to command '{command}', disconnecting it: {}",
            connection.describe()
        );
        After::Close
    }
}

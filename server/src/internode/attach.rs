//! A link of another node becomes a connection of a replica: in a session of its own kind, on a reactor.
//!
//! Who is at the other end is proved already, so nothing has to be said for it; and since it is a node and not a
//! client, there is little that it may do: introduce itself, ask for the data, and say how far it is.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_tls::internode::{Link, NodeUid};
use tokio::net::TcpStream;

use super::figures::NotLetIn;
use super::relay;
use super::setting::Peer;
use crate::clients::Origin;
use crate::clock;
use crate::connection::{Accepted, Stream, Whose};
use crate::database::Database;
use crate::listener::Kind;
use crate::log;
use crate::mailbox::Message;
use crate::server::Server;

/// Links that a database has at a time. A node needs one.
const PEERS_MAX: usize = 256;

/// The commands of a replica.
const COMMANDS: [&str; 3] = ["ping", "psync", "replconf"];

/// The reply to all others.
pub const NOT_A_CLIENT: &str = "NOPERM links between nodes are for replication only";

/// Whether a node may run a command.
pub fn may_run(command: &str) -> bool {
    COMMANDS.contains(&command)
}

/// What a session has whose peer is another node of the cluster.
pub struct PeerLink {
    database: Arc<Database>,
    node: NodeUid,
    client: u64,
}

impl PeerLink {
    /// The node has everything up to there: what follows is kept for it, also if it has to come again.
    pub fn note(&self, offset: u64) {
        self.database.log.keep_for(self.node.get(), offset);
    }
}

impl Drop for PeerLink {
    fn drop(&mut self) {
        self.database.internode.leave(self.client);
    }
}

/// A link that is to become a replica's.
pub struct Arrival {
    pub node: NodeUid,
    /// How often the database's setting had changed when the link was let in.
    pub switches: u64,
    pub over: Over,
}

pub enum Over {
    Tls(Box<Link>),
    Plain(TcpStream),
}

pub fn has_room(database: &Database) -> Result<(), NotLetIn> {
    match database.internode.peers().len() < PEERS_MAX {
        true => Ok(()),
        false => Err(NotLetIn::TooMany(database.uid)),
    }
}

/// Hands a link to a reactor.
pub fn attach(
    server: &Arc<Server>,
    database: &Arc<Database>,
    arrival: Arrival,
) -> Result<(), NotLetIn> {
    let Arrival { node, switches, over } = arrival;
    let lost = |_| NotLetIn::Lost;
    let (stream, kind, address, own, own_serial) = match over {
        Over::Tls(link) => {
            let (address, serial) = (link.address().to_string(), link.own_serial().clone());
            let own = own_address(server);
            let near = relay::start(*link).map_err(lost)?;
            (of_pair(near).map_err(lost)?, Kind::Unix, address, own, Some(serial))
        }
        Over::Plain(socket) => {
            let address = socket.peer_addr().map_err(lost)?.to_string();
            let own = socket.local_addr().map_err(lost)?.to_string();
            let socket = socket.into_std().map_err(lost)?;
            (Stream::Tcp(mio::net::TcpStream::from_std(socket)), Kind::Tcp, address, own, None)
        }
    };
    let is_encrypted = own_serial.is_some();
    let mailboxes = &server.mailboxes;
    let reactor = database.clients.len() % mailboxes.len();
    let shared = database.clients.add(Origin {
        address,
        local_address: own,
        file_descriptor: stream.descriptor(),
        reactor,
        mailbox: Arc::clone(&mailboxes[reactor]),
        now_ms: clock::wall_ms(),
    });
    shared.tls.store(is_encrypted, Ordering::Relaxed);
    log::notice!(
        "Node {node} has come for database {} {}",
        database.uid,
        if is_encrypted { "over TLS" } else { "with a ticket, not encrypted" }
    );
    database.internode.enter(Peer { node, own_serial, client: Arc::clone(&shared) });
    let peer = PeerLink { database: Arc::clone(database), node, client: shared.id };
    let accepted = Accepted {
        stream,
        kind,
        database: Arc::clone(database),
        shared: Arc::clone(&shared),
        loopback: false,
        refusal: None,
        whose: Whose::Node(Box::new(peer)),
    };
    mailboxes[reactor].post(Message::Accept(Box::new(accepted)));
    // Whoever has changed the setting meanwhile may have looked for it before it was there.
    let channel = &database.internode;
    if switches != channel.switches() && is_encrypted != channel.is_encrypted() {
        shared.kill();
    }
    Ok(())
}

/// One end of a socket pair, for a reactor.
fn of_pair(near: UnixStream) -> std::io::Result<Stream> {
    near.set_nonblocking(true)?;
    Ok(Stream::Unix(mio::net::UnixStream::from_std(near)))
}

fn own_address(server: &Server) -> String {
    let channel = server.internode.channel();
    let address = channel.and_then(|channel| channel.addresses().first().copied());
    address.map_or_else(String::new, |address| address.to_string())
}

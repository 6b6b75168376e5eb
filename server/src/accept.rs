//! Accepting: the listeners of all databases, on the one reactor that watches them.
//!
//! Connections are dealt to the reactors in turn. A turn accepts a bounded number; when the process has run out
//! of descriptors it waits for the next tick, since the listener would otherwise be ready at once again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carnelian_tls::TransitEncryption;
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

use crate::clients::Origin;
use crate::connection::{Accepted, Refusal, Stream, Whose};
use crate::database::Database;
use crate::endpoint::Incoming;
use crate::listener::{Acceptor, Kind, Listener, reason};
use crate::log;
use crate::reactor::LISTENER_BIT;
use crate::session::Worker;

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 128;

/// Connections of a database that may wait to be told why they are turned away.
const REFUSED_MAX: usize = 64;

#[derive(Default)]
pub struct Doors {
    doors: Vec<Door>,
    /// The reactor that gets the next connection.
    next_reactor: usize,
    /// The door that is looked at first in the next turn, so that a crowd at one does not close the others.
    next_door: usize,
}

struct Door {
    token: Token,
    listener: Listener,
    /// Somebody may be waiting.
    knocked: bool,
    /// The last attempt failed for want of resources: the next tick tries again.
    stuck: bool,
}

impl Doors {
    pub fn open(&mut self, registry: &Registry, mut listener: Listener) {
        let token = Token(LISTENER_BIT | listener.id as usize);
        let registered = match &mut listener.socket {
            Acceptor::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            Acceptor::Unix(socket) => registry.register(socket, token, Interest::READABLE),
        };
        if let Err(error) = registered {
            log::warning!("Could not watch a listener: {error}");
            return;
        }
        self.doors.push(Door { token, listener, knocked: true, stuck: false });
    }

    pub fn shut(&mut self, registry: &Registry, ids: &[u64]) {
        self.doors.retain_mut(|door| {
            let stays = !ids.contains(&door.listener.id);
            if !stays {
                // The descriptor has a twin elsewhere, so closing it does not end the watch.
                let _ = match &mut door.listener.socket {
                    Acceptor::Tcp(socket) => registry.deregister(socket),
                    Acceptor::Unix(socket) => registry.deregister(socket),
                };
            }
            stays
        });
    }

    pub fn shut_all(&mut self) {
        self.doors.clear();
    }

    pub fn knock(&mut self, token: Token) {
        if let Some(door) = self.doors.iter_mut().find(|door| door.token == token) {
            door.knocked = true;
        }
    }

    /// Whether somebody may be waiting who can be let in now.
    pub fn is_knocked(&self) -> bool {
        self.doors.iter().any(|door| door.knocked && !door.stuck)
    }

    /// Tries again where it failed for want of resources.
    pub fn retry(&mut self) {
        for door in &mut self.doors {
            door.stuck = false;
        }
    }

    /// Takes in some of those who wait.
    pub fn accept(&mut self, worker: &mut Worker) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        let doors = self.doors.len();
        self.next_door = (self.next_door + 1) % doors.max(1);
        for index in 0..doors {
            let door = &mut self.doors[(self.next_door + index) % doors];
            while door.knocked && !door.stuck && accepted.len() < ACCEPTS_PER_TURN {
                match door.listener.socket.accept() {
                    Ok((stream, peer)) => {
                        let reactor = self.next_reactor % worker.server.mailboxes.len();
                        self.next_reactor = reactor + 1;
                        accepted.extend(admit(worker, &door.listener, stream, peer, reactor));
                    }
                    Err(error) => match error.kind() {
                        // The second: it was given up, and this reactor is yet to hear of that.
                        io::ErrorKind::WouldBlock | io::ErrorKind::InvalidInput => {
                            door.knocked = false;
                        }
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                        _ => {
                            log::warning!(
                                "Accepting client connection: accept: {}",
                                reason(&error)
                            );
                            door.stuck = true;
                        }
                    },
                }
            }
        }
        accepted
    }
}

impl Acceptor {
    /// A connection, and the peer's address unless it is on a unix socket.
    fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Self::Unix(socket) => Ok((Stream::Unix(socket.accept()?.0), None)),
        }
    }
}

/// Prepares a connection; none if it was turned away at once, or is served by another node.
fn admit(
    worker: &Worker,
    listener: &Listener,
    mut stream: Stream,
    peer: Option<SocketAddr>,
    reactor: usize,
) -> Option<Accepted> {
    let database = &listener.database;
    if let Some(entrance) = &*database.endpoint.entrance() {
        entrance.welcome(&worker.server, Incoming { stream, kind: listener.kind, peer });
        return None;
    }
    let settings = database.settings.load();
    let counters = worker.counters(database);
    counters.connections_received.add(1);

    let loopback = peer.is_none_or(|peer| is_loopback(peer.ip()));
    let refusal = if settings.clients_max <= database.clients.len() {
        Some(Refusal::TooManyClients)
    } else if settings.protected_mode && database.acl.default_user().any_password && !loopback {
        Some(Refusal::ProtectedMode)
    } else {
        None
    };
    if let Some(refusal) = refusal {
        counters.connections_rejected.add(1);
        let speaks_plain = listener.kind == Kind::Unix
            || settings.transit_encryption == TransitEncryption::Disabled;
        if !wait_to_refuse(database, speaks_plain) {
            if speaks_plain || settings.transit_encryption == TransitEncryption::Preferred {
                let _ = io::Write::write(&mut stream, refusal.text());
            }
            return None;
        }
    }

    let (address, local_address) = prepare(&stream, peer, settings.tcp_keepalive, database);
    let origin = Origin {
        address,
        local_address,
        file_descriptor: stream.descriptor(),
        reactor,
        mailbox: Arc::clone(&worker.server.mailboxes[reactor]),
        now_ms: worker.clock.now_ms(),
    };
    let shared = match refusal {
        Some(_) => database.clients.unlisted(origin),
        None => database.clients.add(origin),
    };
    log::verbose!("Accepted {}", shared.address);
    let database = Arc::clone(database);
    let kind = listener.kind;
    Some(Accepted { stream, kind, database, shared, loopback, refusal, whose: Whose::Client })
}

/// Whether a connection that is turned away may wait until it is known what it speaks.
fn wait_to_refuse(database: &Database, speaks_plain: bool) -> bool {
    if speaks_plain {
        return false;
    }
    let waiting = database.refused.fetch_add(1, Ordering::Relaxed);
    if waiting < REFUSED_MAX {
        return true;
    }
    database.refused.fetch_sub(1, Ordering::Relaxed);
    false
}

/// Sets a socket up; returns both its addresses as clients are told.
fn prepare(
    stream: &Stream,
    peer: Option<SocketAddr>,
    keepalive: Option<Duration>,
    database: &Database,
) -> (String, String) {
    let (Stream::Tcp(tcp), Some(peer)) = (stream, peer) else {
        let path = database.listeners.lock().unix_path();
        let address = format!("{}:0", path.unwrap_or_default());
        return (address.clone(), address);
    };
    // Without these a client is served all the same.
    let _ = tcp.set_nodelay(true);
    if let Some(idle) = keepalive {
        let interval = (idle / 3).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(3);
        let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
    }
    let local = tcp.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
    (peer.to_string(), local)
}

impl Stream {
    pub fn descriptor(&self) -> i32 {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

//! Connections to the servers that keys are moved to.
//!
//! Who moves many keys sends one MIGRATE after the other to the same server, so a connection is kept for
//! a while, as in Redis. Two that run at the same time each have one of their own. What was opened with
//! a password is used again only by who gives the same.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::database::Database;
use crate::log;
use crate::replication::secure::Secured;

/// How long a connection is kept that nobody uses, and how many of them.
const KEPT_MS: u64 = 10_000;
const KEPT_MOST: usize = 64;

/// Where a connection leads, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: String,
    pub is_secured: bool,
    /// AUTH and its arguments.
    pub auth: Vec<Vec<u8>>,
}

/// The connections of a database that are kept.
#[derive(Default)]
pub struct Sockets(Mutex<Vec<Kept>>);

struct Kept {
    target: Target,
    channel: Channel,
    since: Instant,
}

impl Sockets {
    /// How many there are (`migrate_cached_sockets`).
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Takes the connection that was used last.
    pub fn take(&self, target: &Target) -> Option<Channel> {
        let mut kept = self.0.lock();
        let place = kept.iter().rposition(|it| it.target == *target)?;
        Some(kept.remove(place).channel)
    }

    pub fn keep(&self, target: &Target, channel: Channel) {
        let mut kept = self.0.lock();
        if KEPT_MOST <= kept.len() {
            kept.remove(0);
        }
        kept.push(Kept { target: target.clone(), channel, since: Instant::now() });
    }

    /// Closes those that have not been used for long.
    pub fn tick(&self) {
        let mut kept = self.0.lock();
        if !kept.is_empty() {
            kept.retain(|it| it.since.elapsed() < Duration::from_millis(KEPT_MS));
        }
    }

    /// Closes all: they were made under settings that hold no longer.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

/// A connection to another server.
pub struct Channel {
    socket: TcpStream,
    /// There, what is read and written goes through it.
    secured: Option<Secured>,
    timeout: Duration,
    /// It has been used before, so that the password was taken.
    pub is_trusted: bool,
    /// The logical database that is selected there, if that is known.
    pub selected: Option<i64>,
}

impl Channel {
    pub fn open(target: &Target, database: &Database, timeout: Duration) -> Option<Self> {
        let addresses = (target.host.as_str(), target.port.parse().ok()?).to_socket_addrs().ok()?;
        let mut sockets = addresses.filter_map(|it| TcpStream::connect_timeout(&it, timeout).ok());
        let socket = sockets.next()?;
        socket.set_nodelay(true).ok()?;
        let mut channel =
            Self { socket, secured: None, timeout, is_trusted: false, selected: None };
        channel.set_timeout(timeout).ok()?;
        if target.is_secured {
            let secured = channel.secure(database, timeout).map_err(|why| {
                log::warning!("Unable to use TLS with {}:{}: {why}", target.host, target.port);
            });
            channel.secured = Some(secured.ok()?);
        }
        Some(channel)
    }

    fn secure(&self, database: &Database, timeout: Duration) -> Result<Secured, String> {
        let connector = database.tls.connector(&database.config());
        let connector = connector.map_err(|error| error.to_string())?;
        let end = Instant::now() + timeout;
        Secured::shake_hands(&connector, &self.socket, end).map_err(|error| error.to_string())
    }

    pub fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.timeout = timeout;
        self.socket.set_read_timeout(Some(timeout))?;
        self.socket.set_write_timeout(Some(timeout))
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.secured {
            Some(secured) => secured.write(&self.socket, bytes),
            None => (&self.socket).write_all(bytes),
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.secured {
            Some(secured) => secured.read(&self.socket, Instant::now() + self.timeout, buffer),
            None => (&self.socket).read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn target(port: u16, auth: &[&str]) -> Target {
        let auth = auth.iter().map(|word| word.as_bytes().to_vec()).collect();
        Target { host: "127.0.0.1".into(), port: port.to_string(), is_secured: false, auth }
    }

    fn channel(listener: &TcpListener) -> Channel {
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let timeout = Duration::from_secs(1);
        Channel { socket, secured: None, timeout, is_trusted: true, selected: None }
    }

    #[test]
    fn a_connection_is_used_again_for_the_same_server_and_user_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = Sockets::default();
        let one = target(1, &["AUTH", "a"]);
        sockets.keep(&one, channel(&listener));
        for other in [target(2, &["AUTH", "a"]), target(1, &["AUTH", "b"]), target(1, &[])] {
            assert!(sockets.take(&other).is_none());
        }
        assert!(sockets.take(&one).is_some() && sockets.take(&one).is_none());
    }

    #[test]
    fn the_oldest_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = Sockets::default();
        for port in 0..=KEPT_MOST as u16 {
            sockets.keep(&target(port, &[]), channel(&listener));
        }
        assert_eq!(sockets.count(), KEPT_MOST);
        assert!(sockets.take(&target(0, &[])).is_none() && sockets.take(&target(1, &[])).is_some());
    }
}

//! One of the two servers, with all connections to it.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::{encode, words};
use crate::reply::{Protocol, Reply};

/// Connections that take generated commands.
pub const CONNECTIONS: usize = 4;

/// What a run may leave behind beside data; a server need not know all of it.
const CLEANING: &[&str] = &[
    "FLUSHALL",
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "ACL DELUSER u0 u1 u2 u3",
    "ACL LOG RESET",
    "CONFIG SET notify-keyspace-events ''",
    // Each sweeps at its own time; what is met on the way still expires.
    "DEBUG SET-ACTIVE-EXPIRE 0",
];

pub struct Peer {
    pub name: String,
    address: String,
    links: Vec<Link>,
    /// By which the state of the others is asked for.
    control: Link,
}

struct Link {
    socket: TcpStream,
    received: Vec<u8>,
    /// What CLIENT ID answered.
    id: i64,
}

impl Peer {
    pub fn connect(name: &str, address: &str) -> Result<Self> {
        let mut links = Vec::new();
        for _ in 0..=CONNECTIONS {
            links.push(Link::connect(address).with_context(|| format!("to server {name}"))?);
        }
        let control = links.remove(CONNECTIONS);
        Ok(Self { name: name.to_owned(), address: address.to_owned(), links, control })
    }

    pub fn send_all<'a>(
        &mut self,
        connection: usize,
        commands: impl IntoIterator<Item = &'a Vec<Vec<u8>>>,
    ) -> Result<()> {
        let mut frames = Vec::new();
        for words in commands {
            encode(words, &mut frames);
        }
        let sent = self.links[connection].socket.write_all(&frames);
        sent.with_context(|| format!("server {} does not take commands", self.name))
    }

    /// So many replies on one connection.
    pub fn replies(&mut self, connection: usize, count: usize) -> Result<Vec<Reply>> {
        let replies = self.links[connection].replies(count);
        replies.with_context(|| format!("server {}", self.name))
    }

    /// A command given as text, on a connection of its own.
    pub fn call(&mut self, command: &str) -> Result<Reply> {
        self.control.call(command).with_context(|| format!("server {}: {command}", self.name))
    }

    /// Adds the replies and messages that have come on a connection, without waiting for any.
    pub fn receive(&mut self, connection: usize, news: &mut Vec<Reply>) -> Result<()> {
        let received = self.links[connection].receive(news);
        received.with_context(|| format!("server {}, connection {connection}", self.name))
    }

    /// The connections that wait for keys.
    pub fn waiting(&mut self) -> Result<BTreeSet<usize>> {
        let list = self.call("CLIENT LIST")?.text();
        let mut waiting = BTreeSet::new();
        for line in list.lines() {
            let field = |name| line.split(' ').find_map(|field| field.strip_prefix(name));
            let id = field("id=").and_then(|id| id.parse().ok());
            let blocked = field("flags=").is_some_and(|flags: &str| flags.contains('b'));
            if blocked && let Some(at) = self.links.iter().position(|link| Some(link.id) == id) {
                waiting.insert(at);
            }
        }
        Ok(waiting)
    }

    /// Adds all messages to a connection that were sent before now. `mark` is a number never used before.
    pub fn flush_messages(
        &mut self,
        connection: usize,
        mark: u64,
        news: &mut Vec<Reply>,
    ) -> Result<()> {
        let mark = format!("mark-{mark}").into_bytes();
        self.send_all(connection, [&vec![b"PING".to_vec(), mark.clone()]])?;
        let mark = Reply::Bulk(mark);
        loop {
            let reply = self.replies(connection, 1)?.remove(0);
            match &reply {
                Reply::Array(items) if items.get(1) == Some(&mark) => return Ok(()),
                _ if reply == mark => return Ok(()),
                _ => news.push(reply),
            }
        }
    }

    /// The words as this server gets them: `@id1` is the id that connection 1 has here, and a word that
    /// begins with `@dump:` or `@dumb:` is the next payload, of the first server or the second.
    pub fn filled_in(&self, words: &[Vec<u8>], payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut payloads = payloads.iter();
        let fill = |word: &Vec<u8>| match word.as_slice() {
            [b'@', b'i', b'd', digit] => {
                let at = usize::from(digit.saturating_sub(b'0')).min(CONNECTIONS - 1);
                self.links[at].id.to_string().into_bytes()
            }
            [b'@', b'd', b'u', b'm', _, _, ..] => payloads.next().cloned().unwrap_or_default(),
            _ => word.clone(),
        };
        words.iter().map(fill).collect()
    }

    pub fn reset(&mut self, protocol: Protocol) -> Result<()> {
        // One that is let go may find the next thing to wait for in its pipeline: none has one.
        for connection in self.waiting()? {
            let id = self.links[connection].id;
            self.call(&format!("CLIENT UNBLOCK {id}"))?;
        }
        let hello = if protocol == Protocol::Resp3 { "HELLO 3" } else { "HELLO 2" };
        for link in &mut self.links {
            if link.begin_anew(hello).is_err() {
                // It was closed, by what a user was not allowed or by a bug.
                *link = Link::connect(&self.address)?;
                link.begin_anew(hello).with_context(|| format!("server {}", self.name))?;
            }
        }
        for command in CLEANING {
            let reply = self.call(command)?;
            let needed = *command == "FLUSHALL";
            ensure!(!needed || !reply.is_error(), "{}: {command} answered {reply}", self.name);
        }
        Ok(())
    }
}

impl Link {
    fn connect(address: &str) -> Result<Self> {
        let socket =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        socket.set_write_timeout(Some(Duration::from_secs(60)))?;
        let mut link = Self { socket, received: Vec::new(), id: 0 };
        link.id = match link.call("CLIENT ID")? {
            Reply::Integer(id) => id,
            _ => 0,
        };
        Ok(link)
    }

    fn begin_anew(&mut self, hello: &str) -> Result<()> {
        self.send("RESET")?;
        // Replies and messages that nobody has read go before it.
        while self.replies(1)?.remove(0) != Reply::Status(b"RESET".to_vec()) {}
        let reply = self.call(hello)?;
        ensure!(!reply.is_error(), "{hello} answered {reply}");
        Ok(())
    }

    fn send(&mut self, command: &str) -> Result<()> {
        let mut frame = Vec::new();
        encode(&words(command)?, &mut frame);
        Ok(self.socket.write_all(&frame)?)
    }

    fn call(&mut self, command: &str) -> Result<Reply> {
        self.send(command)?;
        Ok(self.replies(1)?.remove(0))
    }

    fn replies(&mut self, count: usize) -> Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(count);
        let mut at = 0;
        let mut chunk = [0; 64 * 1024];
        while replies.len() < count {
            if let Some((reply, length)) = Reply::parse(&self.received[at..])? {
                replies.push(reply);
                at += length;
                continue;
            }
            let read = self.socket.read(&mut chunk);
            let length =
                read.with_context(|| format!("silent after {} of {count} replies", replies.len()))?;
            ensure!(length > 0, "closed after {} of {count} replies", replies.len());
            self.received.extend_from_slice(&chunk[..length]);
        }
        self.received.drain(..at);
        Ok(replies)
    }

    fn receive(&mut self, news: &mut Vec<Reply>) -> Result<()> {
        self.socket.set_nonblocking(true)?;
        let mut chunk = [0; 64 * 1024];
        let read = loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => break Err(anyhow::anyhow!("closed")),
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        self.socket.set_nonblocking(false)?;
        read?;
        let mut at = 0;
        while let Some((reply, length)) = Reply::parse(&self.received[at..])? {
            news.push(reply);
            at += length;
        }
        self.received.drain(..at);
        Ok(())
    }
}

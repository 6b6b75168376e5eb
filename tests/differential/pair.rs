//! The two servers: the same pipelined commands to both, their replies side by side.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::compare::{agree, agree_loosely};
use super::generate::Command;
use crate::client::encode;
use crate::reply::{Protocol, Reply};

pub struct Pair {
    a: Peer,
    b: Peer,
    /// Whether differences of wording are overlooked.
    loosely: bool,
}

struct Peer {
    name: String,
    socket: TcpStream,
    received: Vec<u8>,
}

impl Pair {
    /// Connects to two `HOST:PORT` addresses.
    pub fn connect(a: &str, b: &str, loosely: bool) -> Result<Self> {
        Ok(Self { a: Peer::connect("a", a)?, b: Peer::connect("b", b)?, loosely })
    }

    /// Whether the replies to a command say the same.
    pub fn agree(&self, command: &Command, (a, b): &(Reply, Reply)) -> bool {
        let agree = if self.loosely { agree_loosely } else { agree };
        agree(command.rule, a, b)
    }

    /// Sends a batch to both before reading from either.
    pub fn run(&mut self, commands: &[Command]) -> Result<Vec<(Reply, Reply)>> {
        let mut frames = Vec::new();
        for command in commands {
            encode(&command.words, &mut frames);
        }
        self.a.send(&frames)?;
        self.b.send(&frames)?;
        let a = self.a.replies(commands.len())?;
        let b = self.b.replies(commands.len())?;
        Ok(a.into_iter().zip(b).collect())
    }

    /// One command given as text, to both.
    pub fn both(&mut self, command: &str) -> Result<(Reply, Reply)> {
        Ok((self.a.call(command)?, self.b.call(command)?))
    }

    /// Empties both servers and goes back to database 0.
    pub fn reset(&mut self, protocol: Protocol) -> Result<()> {
        let hello = if protocol == Protocol::Resp3 { "HELLO 3" } else { "HELLO 2" };
        for command in ["FLUSHALL", "SELECT 0", hello] {
            let (a, b) = self.both(command)?;
            ensure!(!a.is_error() && !b.is_error(), "{command} answered {a} and {b}");
        }
        Ok(())
    }
}

impl Peer {
    fn connect(name: &str, address: &str) -> Result<Self> {
        let socket =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        socket.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { name: name.to_owned(), socket, received: Vec::new() })
    }

    fn send(&mut self, frames: &[u8]) -> Result<()> {
        let sent = self.socket.write_all(frames);
        sent.with_context(|| format!("server {} does not take commands", self.name))
    }

    fn call(&mut self, command: &str) -> Result<Reply> {
        let mut frame = Vec::new();
        encode(&crate::client::words(command)?, &mut frame);
        self.send(&frame)?;
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
            let length = read.with_context(|| {
                format!("server {} is silent after {} of {count} replies", self.name, replies.len())
            })?;
            ensure!(length > 0, "server {} closed after {} of {count}", self.name, replies.len());
            self.received.extend_from_slice(&chunk[..length]);
        }
        self.received.drain(..at);
        Ok(replies)
    }
}

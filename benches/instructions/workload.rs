//! The requests, and the client that sends them.
//!
//! Every workload goes round and round over the same subjects, which are all there when counting
//! begins: so each round costs the same, and what is counted does not depend on how many there are.
//! LPUSH alone makes its list longer, as it does for everyone.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use carnelian_resp::Decoder;

/// Keys, or members of the one key.
const SUBJECTS: usize = 1000;

const VALUE: &[u8; 64] = &[b'v'; 64];

pub struct Workload {
    pub name: &'static str,
    /// Appends the request on a subject; the second number differs from round to round.
    request: fn(&mut Vec<u8>, usize, usize),
    /// What has to be there before.
    prepare: fn(&mut Vec<u8>, usize, usize),
}

pub const WORKLOADS: &[Workload] = &[
    Workload { name: "GET", request: get, prepare: set },
    Workload { name: "SET", request: set, prepare: set },
    Workload { name: "INCR", request: incr, prepare: incr },
    Workload { name: "LPUSH", request: lpush, prepare: lpush },
    Workload { name: "HSET", request: hset, prepare: hset },
    Workload { name: "SADD", request: sadd, prepare: sadd },
    Workload { name: "ZADD", request: zadd, prepare: zadd },
    Workload { name: "MSET10", request: mset, prepare: set },
];

pub fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name.eq_ignore_ascii_case(name))
}

fn get(out: &mut Vec<u8>, subject: usize, _: usize) {
    request(out, &[b"GET", &name("key", subject)]);
}

fn set(out: &mut Vec<u8>, subject: usize, _: usize) {
    request(out, &[b"SET", &name("key", subject), VALUE]);
}

fn incr(out: &mut Vec<u8>, subject: usize, _: usize) {
    request(out, &[b"INCR", &name("counter", subject)]);
}

fn lpush(out: &mut Vec<u8>, subject: usize, _: usize) {
    request(out, &[b"LPUSH", b"list", &name("element", subject)]);
}

fn hset(out: &mut Vec<u8>, subject: usize, _: usize) {
    request(out, &[b"HSET", b"hash", &name("field", subject), VALUE]);
}

fn sadd(out: &mut Vec<u8>, subject: usize, _: usize) {
    request(out, &[b"SADD", b"set", &name("member", subject)]);
}

/// The member moves to another place each time.
fn zadd(out: &mut Vec<u8>, subject: usize, number: usize) {
    let score = (number * 7919 % 100_003).to_string();
    request(out, &[b"ZADD", b"sorted", score.as_bytes(), &name("member", subject)]);
}

fn mset(out: &mut Vec<u8>, subject: usize, _: usize) {
    let names: Vec<_> = (0..10).map(|i| name("key", (subject + 97 * i) % SUBJECTS)).collect();
    let mut words: Vec<&[u8]> = vec![b"MSET"];
    for name in &names {
        words.extend([name.as_slice(), VALUE]);
    }
    request(out, &words);
}

/// 16 bytes, as many as a key of `redis-benchmark`.
fn name(kind: &str, subject: usize) -> Vec<u8> {
    let digits = 15 - kind.len();
    format!("{kind}:{subject:0digits$}").into_bytes()
}

fn request(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend(format!("*{}\r\n", words.len()).into_bytes());
    for word in words {
        out.extend(format!("${}\r\n", word.len()).into_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

impl Workload {
    /// Prepares, then sends `rounds` batches, each when the one before has been answered.
    pub fn run(&self, stream: &mut UnixStream, batch: usize, rounds: usize) -> Result<()> {
        let mut replies = Replies::default();
        let mut bytes = Vec::new();
        for first in (0..SUBJECTS).step_by(10) {
            bytes.clear();
            (first..first + 10).for_each(|subject| (self.prepare)(&mut bytes, subject, subject));
            stream.write_all(&bytes)?;
            replies.expect(stream, 10)?;
        }
        let mut number = 0;
        for _ in 0..rounds {
            bytes.clear();
            for _ in 0..batch {
                // 389 has no divisor in common with their number, so all get their turn.
                (self.request)(&mut bytes, number * 389 % SUBJECTS, number);
                number += 1;
            }
            stream.write_all(&bytes)?;
            replies.expect(stream, batch)?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Replies {
    decoder: Decoder,
    received: Vec<u8>,
}

impl Replies {
    /// Waits for so many replies, none of which may be an error.
    fn expect(&mut self, stream: &mut UnixStream, mut count: usize) -> Result<()> {
        let mut bytes = [0; 16 << 10];
        while count > 0 {
            let length = stream.read(&mut bytes)?;
            if length == 0 {
                bail!("The server has closed the connection");
            }
            self.received.extend_from_slice(&bytes[..length]);
            let mut rest = &self.received[..];
            while let Some(reply) = self.decoder.decode(&mut rest).context("Not a reply")? {
                if let Some(error) = reply.error() {
                    bail!("{}", String::from_utf8_lossy(error));
                }
                count = count.checked_sub(1).context("More replies than requests")?;
            }
            let taken = self.received.len() - rest.len();
            self.received.drain(..taken);
        }
        Ok(())
    }
}

//! The requests, and the client that sends them.
//!
//! Every workload goes round and round over the same subjects, which are all there when counting
//! begins: so each round costs the same, and what is counted does not depend on how many there are.
//! LPUSH alone makes its list longer, as it does for everyone. Nobody listens to what is published.

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
    /// What has to be there before; one reply for each subject.
    prepare: fn(&mut Vec<u8>, usize, usize),
    /// How many replies there are to a request.
    replies: usize,
}

const fn one(
    name: &'static str,
    request: fn(&mut Vec<u8>, usize, usize),
    prepare: fn(&mut Vec<u8>, usize, usize),
) -> Workload {
    Workload { name, request, prepare, replies: 1 }
}

pub const WORKLOADS: &[Workload] = &[
    one("GET", get, set),
    one("SET", set, set),
    one("INCR", incr, incr),
    one("LPUSH", lpush, lpush),
    one("HSET", hset, hset),
    one("SADD", sadd, sadd),
    one("ZADD", zadd, zadd),
    one("MSET10", mset, set),
    one("XADD", xadd, xadd),
    one("GEOSEARCH", geosearch, geoadd),
    one("PUBLISH", publish, set),
    one("EVALSHA", evalsha, script_load),
    Workload { name: "MULTI2", request: multi, prepare: set, replies: 4 },
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

fn xadd(out: &mut Vec<u8>, _: usize, _: usize) {
    request(out, &[b"XADD", b"stream", b"MAXLEN", b"1000", b"*", b"field", VALUE]);
}

/// A grid of 40 by 25 places, a tenth of a degree from one to the next.
fn geoadd(out: &mut Vec<u8>, subject: usize, _: usize) {
    let longitude = format!("{:.3}", 10.0 + (subject % 40) as f64 / 10.0);
    let latitude = format!("{:.3}", 50.0 + (subject / 40) as f64 / 10.0);
    let member = name("place", subject);
    request(out, &[b"GEOADD", b"places", longitude.as_bytes(), latitude.as_bytes(), &member]);
}

/// About ten places around one.
fn geosearch(out: &mut Vec<u8>, subject: usize, _: usize) {
    let member = name("place", subject);
    request(
        out,
        &[b"GEOSEARCH", b"places", b"FROMMEMBER", &member, b"BYRADIUS", b"15", b"km", b"ASC"],
    );
}

fn publish(out: &mut Vec<u8>, subject: usize, _: usize) {
    request(out, &[b"PUBLISH", &name("channel", subject), VALUE]);
}

const SCRIPT: &[u8] = b"return redis.call('SET', KEYS[1], ARGV[1])";
const DIGEST: &[u8] = b"d8f2fad9f8e86a53d2a6ebd960b33c4972cacc37";

fn script_load(out: &mut Vec<u8>, _: usize, _: usize) {
    request(out, &[b"SCRIPT", b"LOAD", SCRIPT]);
}

fn evalsha(out: &mut Vec<u8>, subject: usize, _: usize) {
    request(out, &[b"EVALSHA", DIGEST, b"1", &name("key", subject), VALUE]);
}

fn multi(out: &mut Vec<u8>, subject: usize, number: usize) {
    request(out, &[b"MULTI"]);
    set(out, subject, number);
    set(out, (subject + 97) % SUBJECTS, number);
    request(out, &[b"EXEC"]);
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
            replies.expect(stream, batch * self.replies)?;
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

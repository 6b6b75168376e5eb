//! Workloads of several connections or several commands, which the benchmark client does not know:
//! transactions, messages to subscribers, consumer groups, clients that wait for each other.
//!
//! All candidates get them from the same driver, a thread on the client's core that writes to all of its
//! connections before it reads from any.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use carnelian_tests::Server;
use carnelian_tests::client::encode;

use crate::cpu;
use crate::servers::{Bench, Setup};
use crate::table::{
    Report, Verdict, columns, median, ratio_where_less_is_better, ratio_where_more_is_better,
};

/// Connections that do the same side by side.
const CONNECTIONS: usize = 20;
const SUBSCRIBERS: usize = 100;
/// Messages published in one pipeline.
const MESSAGES: usize = 16;
const TARGET: f64 = 0.9;

struct Exchange {
    name: &'static str,
    play: fn(&Server, u64) -> Result<()>,
}

const EXCHANGES: &[Exchange] = &[
    Exchange { name: "MULTI of 10 SET", play: transactions },
    Exchange { name: "PUBLISH to 100 subscribers", play: publish },
    Exchange { name: "XADD, XREADGROUP, XACK", play: consume },
    Exchange { name: "BLPOP hand-over", play: hand_over },
];

#[derive(Clone, Copy)]
struct Sample {
    cpu_us: f64,
    per_second: f64,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let names = ["CPU ratio", "target", "met", "throughput ratio"];
    report.table(
        "Server CPU µs per operation, with a driver of our own",
        columns(&["workload", "ours"], bench.peer_names(), &names),
    );
    let wanted = EXCHANGES.iter().filter(|exchange| bench.options.wants(exchange.name));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let servers = bench.start_all(Setup::USUAL);
    for exchange in wanted {
        let samples = measure(bench, &servers, exchange);
        report.row_or_reason(exchange.name, samples.map(|samples| cells(exchange.name, &samples)));
    }
    Ok(())
}

/// The samples of a row, `[candidate][round]`.
fn measure(bench: &Bench, servers: &[Server], exchange: &Exchange) -> Result<Vec<Vec<Sample>>> {
    let mut operations = Vec::new();
    for server in servers {
        // A first run warms up and tells how many take the wanted time.
        let sample = sample(server, exchange, 4000)?;
        let wanted = (sample.per_second * bench.options.seconds) as u64;
        operations.push(wanted.clamp(2000, 5_000_000));
    }
    let mut samples = vec![Vec::new(); servers.len()];
    for round in 0..bench.options.rounds {
        for turn in 0..servers.len() {
            let index = (turn + round) % servers.len();
            samples[index].push(sample(&servers[index], exchange, operations[index])?);
        }
    }
    Ok(samples)
}

fn sample(server: &Server, exchange: &Exchange, operations: u64) -> Result<Sample> {
    ensure!(!server.connect().call("FLUSHALL").is_error(), "the server cannot be emptied");
    let before = cpu::time_ns(server.pid())?;
    let start = Instant::now();
    let play = || {
        cpu::stay_on(cpu::CLIENT_CORE);
        (exchange.play)(server, operations)
    };
    let played = std::thread::scope(|scope| scope.spawn(play).join());
    match played {
        Ok(played) => played?,
        Err(_) => bail!("the driver ran into a bug"),
    }
    let spent = cpu::time_ns(server.pid())? - before;
    Ok(Sample {
        cpu_us: spent as f64 / 1000.0 / operations as f64,
        per_second: operations as f64 / start.elapsed().as_secs_f64(),
    })
}

fn cells(name: &str, samples: &[Vec<Sample>]) -> Vec<String> {
    let each = |field: fn(&Sample) -> f64| -> Vec<Vec<f64>> {
        samples.iter().map(|rounds| rounds.iter().map(field).collect()).collect()
    };
    let cpu = each(|sample| sample.cpu_us);
    let verdict = Verdict { ratio: ratio_where_less_is_better(&cpu), target: Some(TARGET) };
    let throughput = ratio_where_more_is_better(&each(|sample| sample.per_second));
    let mut cells = vec![name.to_owned()];
    cells.extend(cpu.iter().map(|rounds| format!("{:.2}", median(rounds.iter().copied()))));
    cells.extend(verdict.cells());
    cells.push(format!("{throughput:.2}"));
    cells
}

/// Ten SETs between MULTI and EXEC, sent as one.
fn transactions(server: &Server, operations: u64) -> Result<()> {
    let mut peers = Peer::several(server, CONNECTIONS)?;
    let value = "x".repeat(64);
    for round in 0..operations.div_ceil(CONNECTIONS as u64) {
        for (at, peer) in peers.iter_mut().enumerate() {
            peer.add(&["MULTI"]);
            for number in 0..10 {
                let key = (round * 389 + number * 97 + at as u64 * 31) % 100_000;
                peer.add(&["SET", &format!("key:{key:012}"), &value]);
            }
            peer.add(&["EXEC"]);
            peer.send()?;
        }
        for peer in &mut peers {
            // OK, ten times QUEUED, and an array of ten.
            peer.lines(22)?;
        }
    }
    Ok(())
}

fn publish(server: &Server, operations: u64) -> Result<()> {
    let mut publisher = Peer::connect(server)?;
    let mut subscribers = Peer::several(server, SUBSCRIBERS)?;
    for subscriber in &mut subscribers {
        subscriber.add(&["SUBSCRIBE", "news"]);
        subscriber.send()?;
        subscriber.lines(6)?;
    }
    let message = "x".repeat(64);
    for _ in 0..operations.div_ceil(MESSAGES as u64) {
        for _ in 0..MESSAGES {
            publisher.add(&["PUBLISH", "news", &message]);
        }
        publisher.send()?;
        publisher.lines(MESSAGES)?;
        for subscriber in &mut subscribers {
            subscriber.lines(7 * MESSAGES)?;
        }
    }
    Ok(())
}

/// Each connection adds an entry to a stream of its own, reads it as a consumer, and acknowledges it.
fn consume(server: &Server, operations: u64) -> Result<()> {
    let mut peers = Peer::several(server, CONNECTIONS)?;
    let value = "x".repeat(64);
    let streams: Vec<String> = (0..CONNECTIONS).map(|at| format!("stream:{at}")).collect();
    for (peer, stream) in peers.iter_mut().zip(&streams) {
        peer.add(&["XGROUP", "CREATE", stream, "group", "0", "MKSTREAM"]);
        peer.send()?;
        peer.lines(1)?;
    }
    for round in 1..=operations.div_ceil(CONNECTIONS as u64) {
        let id = format!("{round}-1");
        for (peer, stream) in peers.iter_mut().zip(&streams) {
            peer.add(&["XADD", stream, "MAXLEN", "~", "1000", &id, "field", &value]);
            peer.add(&["XREADGROUP", "GROUP", "group", "me", "COUNT", "1", "STREAMS", stream, ">"]);
            peer.add(&["XACK", stream, "group", &id]);
            peer.send()?;
        }
        for peer in &mut peers {
            peer.lines(2 + 13 + 1)?;
        }
    }
    Ok(())
}

/// Half of the connections wait for elements, the others bring them.
fn hand_over(server: &Server, operations: u64) -> Result<()> {
    let mut waiting = Peer::several(server, CONNECTIONS)?;
    let mut pushing = Peer::several(server, CONNECTIONS)?;
    let mut control = Peer::connect(server)?;
    let value = "x".repeat(64);
    let lists: Vec<String> = (0..CONNECTIONS).map(|at| format!("list:{at}")).collect();
    for _ in 0..operations.div_ceil(CONNECTIONS as u64) {
        for (peer, list) in waiting.iter_mut().zip(&lists) {
            peer.add(&["BLPOP", list, "0"]);
            peer.send()?;
        }
        // When this is answered, the others have been read.
        control.add(&["PING"]);
        control.send()?;
        control.lines(1)?;
        for (peer, list) in pushing.iter_mut().zip(&lists) {
            peer.add(&["LPUSH", list, &value]);
            peer.send()?;
        }
        for peer in &mut pushing {
            peer.lines(1)?;
        }
        for peer in &mut waiting {
            peer.lines(5)?;
        }
    }
    Ok(())
}

/// A connection whose replies are counted by their lines.
struct Peer {
    socket: TcpStream,
    frames: Vec<u8>,
    /// Lines that came beyond those asked for.
    ahead: usize,
}

impl Peer {
    fn connect(server: &Server) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", server.port()))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { socket, frames: Vec::new(), ahead: 0 })
    }

    fn several(server: &Server, count: usize) -> Result<Vec<Self>> {
        (0..count).map(|_| Self::connect(server)).collect()
    }

    fn add(&mut self, words: &[&str]) {
        encode(words, &mut self.frames);
    }

    fn send(&mut self) -> Result<()> {
        let sent = self.socket.write_all(&self.frames);
        self.frames.clear();
        sent.context("the server takes no commands")
    }

    fn lines(&mut self, count: usize) -> Result<()> {
        let mut chunk = [0; 32 * 1024];
        while self.ahead < count {
            let length = self.socket.read(&mut chunk).context("the server is silent")?;
            ensure!(length > 0, "the server closed");
            let bytes = &chunk[..length];
            let end = bytes.iter().position(|byte| *byte == b'\r').unwrap_or(length);
            ensure!(bytes[0] != b'-', "refused: {}", bytes[..end].escape_ascii());
            self.ahead += bytes.iter().filter(|byte| **byte == b'\n').count();
        }
        self.ahead -= count;
        Ok(())
    }
}

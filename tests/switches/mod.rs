//! Switching encryption between nodes, and replacing their certificates, under write load.
//!
//! Held against it: no acknowledged write is missing on a replica, there is no full synchronisation, no
//! replica's offset goes back, and of the clients exactly those are disconnected who should be.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::Client;
use crate::nodes::{Node, Nodes};
use crate::transport::Transport;
use crate::writer::Writer;

/// How long links may take to be as they should be.
const PATIENCE: Duration = Duration::from_secs(20);

const LOOK: Duration = Duration::from_millis(10);

/// Connections to the primary that do nothing, for each switch.
const IDLE: usize = 5;

#[derive(Clone, Debug)]
pub struct Settings {
    pub switches: u32,
    /// Over which they are spread.
    pub seconds: u64,
    /// Between two replacements of all certificates.
    pub rotate_seconds: u64,
    pub writers: u32,
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { switches: 200, seconds: 600, rotate_seconds: 10, writers: 2, seed: 1 }
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Summary {
    switches: u32,
    graceful: u32,
    rotations: u32,
    writes: u64,
    writers_closed: u64,
    idle_closed: u32,
    idle_kept: u32,
    offsets_read: u64,
    slowest: Duration,
    seconds: u64,
    full: String,
    partial: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { switches, graceful, rotations, writes, writers_closed, seconds, .. } = self;
        let Self { idle_closed, idle_kept, offsets_read, slowest, full, partial, .. } = self;
        write!(
            f,
            "{switches} switches ({graceful} graceful) and {rotations} rotations of all certificates in \
             {seconds} s: {writes} writes acknowledged and all on both replicas; full \
             synchronisations {full} (those of the beginning), partial ones {partial}; {offsets_read} \
             offsets read, none went back; {idle_closed} idle clients disconnected and {idle_kept} kept, \
             as it should be; writers disconnected {writers_closed} times; slowest switch of all links \
             {} ms",
            slowest.as_millis()
        )
    }
}

pub fn run(settings: &Settings) -> Result<Summary> {
    let args = ["--repl-diskless-sync-delay", "0"];
    let nodes = Nodes::start(3, &args);
    for place in [1, 2] {
        nodes.follow(place, 0);
        linked(&nodes.nodes[place], "plain")?;
    }
    let primary = &nodes.nodes[0];
    let full = primary.server.connect().info("sync_full");
    let writers: Vec<Writer> = (0..settings.writers)
        .map(|number| Writer::start(primary.server.port(), &format!("w{number}")))
        .collect();
    // Who is not connected yet cannot be disconnected.
    writers.iter().for_each(Writer::go_on);
    let watches = [1, 2].map(|place| Watch::start(nodes.nodes[place].server.port()));

    let mut random = fastrand::Rng::with_seed(settings.seed);
    let mut summary = Summary::default();
    let begin = Instant::now();
    let mut rotate_at = begin + Duration::from_secs(settings.rotate_seconds);
    for number in 0..settings.switches {
        let due = settings.seconds * u64::from(number) / u64::from(settings.switches);
        while begin.elapsed() < Duration::from_secs(due) {
            sleep(LOOK);
        }
        if rotate_at <= Instant::now() {
            rotate_at += Duration::from_secs(settings.rotate_seconds);
            for place in 0..nodes.nodes.len() {
                nodes.renew(place);
            }
            summary.rotations += 1;
        }
        let (on, is_graceful) = (number % 2 == 0, random.u8(..4) == 0);
        switch(&nodes, on, is_graceful, &mut random, &mut summary)
            .with_context(|| format!("in switch {number}"))?;
        writers.iter().for_each(Writer::go_on);
    }
    let written: Vec<_> = writers.into_iter().map(Writer::stop).collect();
    for watch in watches {
        summary.offsets_read += watch.stop()?;
    }
    let mut there = primary.server.connect();
    summary.full = there.info("sync_full");
    summary.partial = there.info("sync_partial_ok");
    ensure!(summary.full == full, "{} full synchronisations, not {full}", summary.full);
    let expected_closed = u64::from(summary.switches - summary.graceful);
    for one in &written {
        summary.writes += one.count;
        summary.writers_closed += one.closed;
        ensure!(one.closed == expected_closed, "{one:?}, not closed {expected_closed} times");
    }
    for replica in &nodes.nodes[1..] {
        let mut here = replica.server.connect();
        let end = there.info("master_repl_offset");
        let until = Instant::now() + PATIENCE;
        while here.info("slave_repl_offset").parse::<u64>()? < end.parse()? {
            ensure!(Instant::now() < until, "a replica does not catch up");
            sleep(LOOK);
        }
        written.iter().try_for_each(|one| one.check(&mut here))?;
    }
    summary.seconds = begin.elapsed().as_secs();
    Ok(summary)
}

/// One switch on all nodes, in any order.
fn switch(
    nodes: &Nodes,
    on: bool,
    is_graceful: bool,
    random: &mut fastrand::Rng,
    summary: &mut Summary,
) -> Result<()> {
    let primary = &nodes.nodes[0];
    let mut idle: Vec<Client> = (0..IDLE).map(|_| primary.server.connect()).collect();
    for client in &mut idle {
        ensure!(client.call("PING").to_string() == "+PONG");
    }
    let mut order: Vec<&Node> = nodes.nodes.iter().collect();
    random.shuffle(&mut order);
    let word = |is_yes| if is_yes { "yes" } else { "no" };
    let begin = Instant::now();
    for node in order {
        let reply = node.server.connect().call(&format!(
            "CONFIG SET data-internode-encryption-graceful {} data-internode-encryption {}",
            word(is_graceful),
            word(on)
        ));
        ensure!(reply.to_string() == "+OK", "{reply}");
    }
    for replica in &nodes.nodes[1..] {
        linked(replica, if on { "tls" } else { "plain" })?;
    }
    summary.slowest = summary.slowest.max(begin.elapsed());
    for client in &mut idle {
        let is_open = client
            .try_send(b"PING\r\n")
            .is_ok_and(|()| client.try_read().is_ok_and(|reply| reply.to_string() == "+PONG"));
        ensure!(is_open == is_graceful, "open: {is_open}, graceful: {is_graceful}");
        match is_open {
            true => summary.idle_kept += 1,
            false => summary.idle_closed += 1,
        }
    }
    summary.switches += 1;
    summary.graceful += u32::from(is_graceful);
    Ok(())
}

/// Waits until a replica has its link, of this kind.
fn linked(replica: &Node, how: &str) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let link = format!("link={how}");
    loop {
        let info = replica.server.connect().call("INFO everything").text();
        let mut lines = info.lines();
        let is_up = info.contains("master_link_status:up");
        if is_up
            && lines.any(|line| line.starts_with("internode_primary:") && line.ends_with(&link))
        {
            return Ok(());
        }
        ensure!(Instant::now() < until, "no link {how}:\n{}", replica.server.log());
        sleep(LOOK);
    }
}

/// Reads a replica's offset again and again.
struct Watch {
    is_over: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Watch {
    fn start(port: u16) -> Self {
        let (is_over, count) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (over, counted) = (Arc::clone(&is_over), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            let mut last = 0;
            let mut client = Client::over(Transport::tcp(port)?);
            while !over.load(Ordering::SeqCst) {
                sleep(LOOK);
                // It is a client, and disconnected as one.
                let sent = client.try_send(b"INFO replication\r\n").is_ok();
                let Some(info) = client.try_read().ok().filter(|_| sent) else {
                    client = Client::over(Transport::tcp(port)?);
                    continue;
                };
                let info = info.text();
                let offset = info.lines().find_map(|line| line.strip_prefix("slave_repl_offset:"));
                let offset: u64 = offset.context("an offset")?.trim().parse()?;
                ensure!(last <= offset, "the offset went back from {last} to {offset}");
                last = offset;
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        Self { is_over, count, thread }
    }

    /// How often it looked.
    fn stop(self) -> Result<u64> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().expect("it does not panic")?;
        Ok(self.count.load(Ordering::SeqCst))
    }
}

//! Replication: how long a replica takes to have everything, what a write costs the primary that passes it on, and
//! what clients of the primary notice of a full synchronisation.
//!
//! A replica is of the same kind as its primary. It has the client's core, as far as there is another one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use carnelian_tests::Server;
use carnelian_tests::nodes::Nodes;
use carnelian_tests::server::program;

use crate::cpu::{self, QueueTime};
use crate::load::{self, Workload};
use crate::options::short;
use crate::servers::{Bench, Candidate, Setup};
use crate::table::{Report, Verdict, columns, median, ratio_where_less_is_better};

/// How long a full synchronisation may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long a primary is watched that has nothing else to do.
const IDLE: Duration = Duration::from_secs(5);

/// What replication is measured with: no delay for others, and nothing on disk in between.
const ARGS: [&str; 4] = ["--repl-diskless-sync-delay", "0", "--repl-diskless-load", "swapdb"];

/// How a replica reaches its primary.
#[derive(Clone, Copy, PartialEq)]
enum Link {
    Plain,
    Tls,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    full_syncs(bench, report);
    written(bench, report);
    noticed(bench, report);
    Ok(())
}

/// Seconds from REPLICAOF until the replica has all.
fn full_syncs(bench: &Bench, report: &mut Report) {
    let count = *bench.options.keys.last().expect("there is a default");
    report.table(
        &format!("Full synchronisation of {} keys with values of 64 bytes, seconds", short(count)),
        columns(&["link", "ours"], bench.peer_names(), &["ratio", "target", "met"]),
    );
    let name = |link: &str| format!("full sync, {link}");
    let mut plain = None;
    for (link, kind) in [("plain", Link::Plain), ("TLS", Link::Tls)] {
        let name = name(link);
        if !bench.options.wants(&name) {
            continue;
        }
        let cells = sync_row(bench, &name, kind, count);
        if let Ok((_, ours)) = &cells
            && kind == Link::Plain
        {
            plain = Some(*ours);
        }
        report.row_or_reason(&name, cells.map(|(cells, _)| cells));
    }
    let name = name("internode mTLS ÷ our plain");
    if let Some(plain) = plain
        && bench.options.wants(&name)
    {
        report.row_or_reason(&name, internode_row(bench, &name, count, plain));
    }
}

fn sync_row(bench: &Bench, name: &str, link: Link, count: u64) -> Result<(Vec<String>, f64)> {
    let mut samples = vec![Vec::new(); bench.candidates.len()];
    for _ in 0..rounds(bench) {
        for (place, candidate) in bench.candidates.iter().enumerate() {
            let primary = bench.start_with(candidate, Setup::USUAL, &ARGS);
            load::fill_benchmark_keys(&primary, count)?;
            let replica = replica(bench, candidate, &primary, link)?;
            let port = if link == Link::Tls { primary.tls_port() } else { primary.port() };
            let follow = ["REPLICAOF".to_owned(), "127.0.0.1".into(), port.to_string()];
            samples[place].push(synchronize(&replica, &follow, count)?);
        }
    }
    let middles: Vec<f64> = samples.iter().map(|of_one| median(of_one.iter().copied())).collect();
    let mut cells = vec![name.to_owned()];
    cells.extend(middles.iter().map(|seconds| format!("{seconds:.2}")));
    let ratio = ratio_where_less_is_better(&samples);
    cells.extend(Verdict { ratio, target: Some(0.70) }.cells());
    Ok((cells, middles[0]))
}

/// The same between nodes, which only we have: compared with our own plain link.
fn internode_row(bench: &Bench, name: &str, count: u64, plain: f64) -> Result<Vec<String>> {
    ensure!(
        program().canonicalize()? == bench.options.ours.canonicalize()?,
        "CARNELIAN_SERVER has to name the program of --ours"
    );
    let mut samples = Vec::new();
    for _ in 0..rounds(bench) {
        let args = [
            &ARGS[..],
            &["--io-threads", "1", "--loglevel", "warning"],
            &["--data-internode-encryption", "yes"],
        ];
        let nodes = Nodes::start(2, &args.concat());
        let [primary, replica] = &nodes.nodes[..] else { bail!("two nodes were started") };
        // As the others have it: a core for each.
        cpu::confine(primary.server.pid(), cpu::SERVER_CORE)?;
        cpu::confine(replica.server.pid(), cpu::CLIENT_CORE)?;
        load::fill_benchmark_keys(&primary.server, count)?;
        let follow = ["CONFIG".to_owned(), "SET".into(), "replicaof-node".into(), primary.target()];
        samples.push(synchronize(&replica.server, &follow, count)?);
    }
    let seconds = median(samples);
    let mut cells = vec![name.to_owned(), format!("{seconds:.2}")];
    cells.extend(bench.peer_names().map(|_| "–".to_owned()));
    cells.extend(Verdict { ratio: seconds / plain, target: Some(1.20) }.cells());
    Ok(cells)
}

fn replica(bench: &Bench, candidate: &Candidate, primary: &Server, link: Link) -> Result<Server> {
    let ca = primary.ca().display().to_string();
    let mut args = ARGS.to_vec();
    if link == Link::Tls {
        args.extend(["--tls-replication", "yes", "--tls-ca-cert-file", &ca]);
    }
    let server = bench.start_with(candidate, Setup::USUAL, &args);
    cpu::confine(server.pid(), cpu::CLIENT_CORE)?;
    Ok(server)
}

/// How long it takes until the replica has so many keys and a link, in seconds.
fn synchronize(replica: &Server, follow: &[String], count: u64) -> Result<f64> {
    let mut client = replica.connect();
    let begin = Instant::now();
    let reply = client.call_words(follow).to_string();
    ensure!(reply == "+OK", "{follow:?} gives {reply}");
    while client.info("master_link_status") != "up" {
        ensure!(begin.elapsed() < PATIENCE, "no link after {PATIENCE:?}");
        sleep(Duration::from_millis(5));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let keys = client.call("DBSIZE").integer();
    ensure!(u64::try_from(keys)? == count, "the replica has {keys} keys");
    Ok(seconds)
}

/// What a write costs a primary with a replica.
fn written(bench: &Bench, report: &mut Report) {
    report.table(
        "Primary's CPU µs per write, with one replica",
        columns(&["workload", "ours"], bench.peer_names(), &["ratio", "target", "met"]),
    );
    for (name, pipeline) in [("replicated SET", 1), ("replicated SET, pipeline 16", 16)] {
        if bench.options.wants(name) {
            report.row_or_reason(name, written_row(bench, name, pipeline));
        }
    }
}

fn written_row(bench: &Bench, name: &str, pipeline: usize) -> Result<Vec<String>> {
    let workload = Workload {
        command: ["-t", "set"].map(str::to_owned).to_vec(),
        pipeline,
        keys: 100_000,
        tls: false,
        pinned: true,
    };
    let mut pairs = Vec::new();
    for candidate in &bench.candidates {
        let primary = bench.start_with(candidate, Setup::USUAL, &ARGS);
        load::fill_benchmark_keys(&primary, workload.keys)?;
        let replica = replica(bench, candidate, &primary, Link::Plain)?;
        let port = primary.port().to_string();
        let follow = ["REPLICAOF".to_owned(), "127.0.0.1".into(), port];
        synchronize(&replica, &follow, workload.keys)?;
        pairs.push((primary, replica));
    }
    let mut samples = vec![Vec::new(); pairs.len()];
    let per_second = if pipeline == 1 { 40_000.0 } else { 250_000.0 };
    let requests = (bench.options.seconds * per_second) as u64;
    for round in 0..=bench.options.rounds {
        for (place, (primary, replica)) in pairs.iter().enumerate() {
            let before = cpu::time_ns(primary.pid())?;
            load::run(&bench.client, primary, &workload, requests)?;
            // What waits for the replica is the primary's work too.
            catch_up(primary, replica)?;
            let spent = (cpu::time_ns(primary.pid())? - before) as f64;
            // The first round warms up.
            if round != 0 {
                samples[place].push(spent / 1000.0 / requests as f64);
            }
        }
    }
    for (primary, _) in &pairs {
        let full = primary.connect().info("sync_full");
        ensure!(full == "1", "a replica was lost and came again: {full} full synchronisations");
    }
    let mut cells = vec![name.to_owned()];
    let middles = samples.iter().map(|of_one| median(of_one.iter().copied()));
    cells.extend(middles.map(|microseconds| format!("{microseconds:.2}")));
    let ratio = ratio_where_less_is_better(&samples);
    cells.extend(Verdict { ratio, target: Some(0.80) }.cells());
    Ok(cells)
}

fn catch_up(primary: &Server, replica: &Server) -> Result<()> {
    let (mut there, mut here) = (primary.connect(), replica.connect());
    let begin = Instant::now();
    while there.info("master_repl_offset") != here.info("slave_repl_offset") {
        ensure!(begin.elapsed() < PATIENCE, "the replica does not catch up");
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// How long clients of the primary wait while it sends everything to a replica.
fn noticed(bench: &Bench, report: &mut Report) {
    let name = "p99 during a full sync";
    let count = *bench.options.keys.last().expect("there is a default");
    report.table(
        &format!(
            "GET on the primary while {} keys are synchronised, ms; without the time the kernel \
             kept client and server from running",
            short(count)
        ),
        ["server", "p99 idle", "p99 then", "longest then", "ratio", "target", "met"]
            .map(str::to_owned)
            .to_vec(),
    );
    if !bench.options.wants(name) {
        return;
    }
    for candidate in &bench.candidates {
        let is_ours = candidate.name == "ours";
        let cells = noticed_row(bench, candidate, count, is_ours.then_some(2.0));
        report.row_or_reason(&candidate.name, cells);
    }
}

fn noticed_row(
    bench: &Bench,
    candidate: &Candidate,
    count: u64,
    target: Option<f64>,
) -> Result<Vec<String>> {
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..rounds(bench) {
        let primary = bench.start_with(candidate, Setup::USUAL, &ARGS);
        load::fill_benchmark_keys(&primary, count)?;
        let replica = replica(bench, candidate, &primary, Link::Plain)?;
        let port = primary.port().to_string();
        let follow = ["REPLICAOF".to_owned(), "127.0.0.1".into(), port];
        idle.push(waits(&primary, count, || {
            sleep(IDLE);
            Ok(())
        })?);
        busy.push(waits(&primary, count, || synchronize(&replica, &follow, count).map(drop))?);
    }
    let middle = |of: &[Waits], field: fn(&Waits) -> f64| median(of.iter().map(field));
    let (before, then) = (middle(&idle, |it| it.p99_ms), middle(&busy, |it| it.p99_ms));
    let longest = middle(&busy, |it| it.longest_ms);
    let mut cells = vec![candidate.name.clone()];
    cells.extend([before, then, longest].map(|milliseconds| format!("{milliseconds:.3}")));
    cells.extend(Verdict { ratio: then / before, target }.cells());
    Ok(cells)
}

struct Waits {
    p99_ms: f64,
    longest_ms: f64,
}

/// What a client waits for replies while something goes on.
fn waits(
    server: &Server,
    keys: u64,
    mut meanwhile: impl FnMut() -> Result<()> + Send,
) -> Result<Waits> {
    let done = AtomicBool::new(false);
    scope(|threads| {
        let asking = threads.spawn(|| {
            cpu::stay_on(cpu::CLIENT_CORE);
            // Ahead of the replica on the core they share.
            let _ = rustix::process::setpriority_process(None, -20);
            ask_until(server, keys, &done)
        });
        let ended = meanwhile();
        done.store(true, Ordering::Relaxed);
        let waits = asking.join().expect("the client does not panic");
        ended.and(waits)
    })
}

fn ask_until(server: &Server, keys: u64, done: &AtomicBool) -> Result<Waits> {
    let mut client = server.connect();
    client.expect("PING", "+PONG");
    let own = QueueTime::of_this_thread()?;
    let mut waits_ms = Vec::new();
    let mut random = fastrand::Rng::with_seed(1);
    while !done.load(Ordering::Relaxed) {
        let key = format!("GET key:{:012}\r\n", random.u64(..keys));
        // Threads come and go with a synchronisation.
        let servers = QueueTime::of_process(server.pid())?;
        let (own_before, servers_before) = (own.waited_ns()?, servers.waited_ns()?);
        let begin = Instant::now();
        client.send(key.as_bytes());
        client.read();
        let seen_ms = begin.elapsed().as_secs_f64() * 1000.0;
        // One of them may have ended meanwhile.
        let servers_after = servers.waited_ns().unwrap_or_else(|_| servers_before.clone());
        let kept = growth(&own_before, &own.waited_ns()?) + growth(&servers_before, &servers_after);
        waits_ms.push((seen_ms - kept as f64 / 1e6).max(0.0));
        sleep(Duration::from_micros(200));
    }
    waits_ms.sort_by(f64::total_cmp);
    let last = waits_ms.len().checked_sub(1).context("nothing was asked")?;
    Ok(Waits { p99_ms: waits_ms[(last as f64 * 0.99) as usize], longest_ms: waits_ms[last] })
}

/// What the thread waited that waited most.
fn growth(before: &[u64], after: &[u64]) -> u64 {
    let grown = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before));
    grown.max().unwrap_or(0)
}

/// Each fills a server anew: fewer of them than of others.
fn rounds(bench: &Bench) -> usize {
    if bench.options.quick { 1 } else { bench.options.rounds.min(3) }
}

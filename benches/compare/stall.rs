//! The longest time a client waits while the table grows to millions of keys.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::Result;
use carnelian_tests::Server;

use crate::cpu::{self, QueueTime};
use crate::load;
use crate::options::short;
use crate::servers::{Bench, Setup};
use crate::table::{Report, median};

const LIMIT_MS: f64 = 2.0;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = if bench.options.quick { 1_000_000 } else { 5_000_000 };
    report.table(
        &format!(
            "Longest wait of a PING while {} keys are set, ms; without the time the kernel kept \
             client and server from running (with it)",
            short(count)
        ),
        ["server", "longest", "99.99 percent", "target", "met"].map(str::to_owned).to_vec(),
    );
    if !bench.options.wants("stall while growing") {
        return Ok(());
    }
    let rounds = if bench.options.quick { 1 } else { 3 };
    let mut found: Vec<Vec<Waits>> = bench.candidates.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (index, candidate) in bench.candidates.iter().enumerate() {
            let server = bench.start(candidate, Setup::USUAL);
            found[index].push(ping_while_filling(&server, count)?);
        }
    }
    for (candidate, waits) in bench.candidates.iter().zip(&found) {
        let middle = |field: fn(&Waits) -> f64| median(waits.iter().map(field));
        let longest = middle(|waits| waits.longest_ms);
        let mut cells = vec![
            candidate.name.clone(),
            format!("{longest:.2} ({:.2})", middle(|waits| waits.longest_seen_ms)),
            format!("{:.2}", middle(|waits| waits.p9999_ms)),
        ];
        if candidate.name == "ours" {
            let met = longest <= LIMIT_MS;
            cells.extend([
                format!("≤ {LIMIT_MS:.0}"),
                if met { "yes".into() } else { "**no**".into() },
            ]);
        } else {
            cells.extend(["–".into(), "–".into()]);
        }
        report.row(cells);
    }
    Ok(())
}

struct Waits {
    longest_ms: f64,
    longest_seen_ms: f64,
    p9999_ms: f64,
}

fn ping_while_filling(server: &Server, count: u64) -> Result<Waits> {
    let done = AtomicBool::new(false);
    scope(|threads| {
        let pinger = threads.spawn(|| {
            cpu::stay_on(cpu::CLIENT_CORE);
            // Ahead of the loader on the core they share.
            let _ = rustix::process::setpriority_process(None, -20);
            ping_until(server, &done)
        });
        let loader = threads.spawn(|| {
            cpu::stay_on(cpu::CLIENT_CORE);
            let _ = rustix::process::setpriority_process(None, 19);
            load::fill_benchmark_keys(server, count)
        });
        let loaded = loader.join().expect("the loader does not panic");
        done.store(true, Ordering::Relaxed);
        let waits = pinger.join().expect("the pinger does not panic")?;
        loaded.map(|()| waits)
    })
}

fn ping_until(server: &Server, done: &AtomicBool) -> Result<Waits> {
    let mut client = server.connect();
    client.expect("PING", "+PONG");
    let own_queue = QueueTime::of_this_thread()?;
    let server_queue = QueueTime::of_process(server.pid())?;
    let mut waits_ms = Vec::new();
    let mut longest_seen_ms: f64 = 0.0;
    while !done.load(Ordering::Relaxed) {
        let (own, servers) = (own_queue.waited_ns()?, server_queue.waited_ns()?);
        let start = Instant::now();
        client.send(b"PING\r\n");
        client.read();
        let seen_ms = start.elapsed().as_secs_f64() * 1000.0;
        let kept = longest_growth(&own, &own_queue.waited_ns()?)
            + longest_growth(&servers, &server_queue.waited_ns()?);
        waits_ms.push((seen_ms - kept as f64 / 1e6).max(0.0));
        longest_seen_ms = longest_seen_ms.max(seen_ms);
        sleep(Duration::from_micros(100));
    }
    waits_ms.sort_by(f64::total_cmp);
    let at = |share: f64| waits_ms[((waits_ms.len() - 1) as f64 * share) as usize];
    Ok(Waits { longest_ms: at(1.0), longest_seen_ms, p9999_ms: at(0.9999) })
}

fn longest_growth(before: &[u64], after: &[u64]) -> u64 {
    before.iter().zip(after).map(|(before, after)| after - before).max().unwrap_or(0)
}

//! Connections that write as fast as they are answered, and note what they know.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use fastrand::Rng;

use super::model::{DATABASES, Stamp};
use super::process::Process;
use super::verdict::Snapshot;
use crate::client::{Client, encode};
use crate::transport::Transport;

/// How long to wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known of one operation. `sent` and `known` are of one clock that all connections share: what
/// was known before another was sent was done before it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub stamp: Stamp,
    pub sent: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    Unknown,
    Acknowledged { known: u64, at: Instant },
    Refused,
}

impl Entry {
    pub fn acknowledged(&self) -> Option<(u64, Instant)> {
        match self.outcome {
            Outcome::Acknowledged { known, at } => Some((known, at)),
            _ => None,
        }
    }
}

pub struct Load {
    writers: Vec<Writer>,
    port: u16,
    shared: Shared,
}

#[derive(Default)]
struct Shared {
    clock: AtomicU64,
    acknowledged: AtomicU64,
}

struct Writer {
    connection: usize,
    first: Stamp,
    /// Operations under way at a time.
    window: usize,
    journal: Mutex<Vec<Entry>>,
}

impl Load {
    pub fn new(round: u32, port: u16, firsts: impl Iterator<Item = u64>, rng: &mut Rng) -> Self {
        let writers = firsts.enumerate().map(|(connection, number)| Writer {
            connection,
            first: Stamp { round, number },
            window: rng.usize(1..=16),
            journal: Mutex::default(),
        });
        Self { writers: writers.collect(), port, shared: Shared::default() }
    }

    /// Starts the connections, which end when the server does.
    pub fn spawn<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Vec<ScopedJoinHandle<'scope, Result<()>>> {
        let run = |writer: &'scope Writer| scope.spawn(|| writer.run(self.port, &self.shared));
        self.writers.iter().map(run).collect()
    }

    /// What each connection has done, in order.
    pub fn journals(&self) -> Vec<Vec<Entry>> {
        let journal = |writer: &Writer| writer.journal.lock().expect("no panic").clone();
        self.writers.iter().map(journal).collect()
    }

    pub fn tick(&self) -> u64 {
        self.shared.tick()
    }

    /// Waits for so many more acknowledged operations.
    pub fn wait_for_acknowledged(&self, more: u64, process: &mut Process) -> Result<()> {
        wait_for(&self.shared.acknowledged, more, process, "no write is acknowledged")
    }
}

fn wait_for(count: &AtomicU64, more: u64, process: &mut Process, complaint: &str) -> Result<()> {
    let enough = count.load(Ordering::Relaxed) + more;
    let deadline = Instant::now() + PATIENCE;
    while count.load(Ordering::Relaxed) < enough {
        ensure!(process.is_running(), "the server has ended by itself");
        ensure!(Instant::now() < deadline, "{complaint} for {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl Shared {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

impl Writer {
    /// Writes until the connection breaks.
    fn run(&self, port: u16, shared: &Shared) -> Result<()> {
        let Ok(transport) = Transport::tcp(port) else { return Ok(()) };
        let mut client = Client::over(transport);
        let database = (self.connection % DATABASES).to_string();
        if client.try_send(format!("SELECT {database}\r\n").as_bytes()).is_err()
            || client.try_read().is_err()
        {
            return Ok(());
        }
        let mut journal: Vec<Entry> = Vec::new();
        let outcome = self.write(&mut client, &mut journal, shared);
        *self.journal.lock().expect("no panic") = journal;
        outcome
    }

    fn write(&self, client: &mut Client, journal: &mut Vec<Entry>, shared: &Shared) -> Result<()> {
        let mut answered = 0;
        let mut frame = Vec::new();
        loop {
            frame.clear();
            let sent = shared.tick();
            while journal.len() < answered + self.window {
                let number = self.first.number + journal.len() as u64;
                let stamp = Stamp { number, ..self.first };
                journal.push(Entry { stamp, sent, outcome: Outcome::Unknown });
                for request in stamp.requests(self.connection) {
                    encode(&request, &mut frame);
                }
            }
            if client.try_send(&frame).is_err() {
                return Ok(());
            }
            // A few of the answers, so that requests and answers overlap.
            for _ in 0..self.window.div_ceil(2) {
                let entry = &mut journal[answered];
                let requests = entry.stamp.requests(self.connection).len();
                let mut last = None;
                for _ in 0..requests {
                    let Ok(reply) = client.try_read() else { return Ok(()) };
                    last = Some(reply);
                }
                let reply = last.expect("an operation has requests");
                entry.outcome = if !reply.is_error() {
                    shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                    Outcome::Acknowledged { known: shared.tick(), at: Instant::now() }
                } else {
                    let text = reply.text();
                    if !text.contains("MISCONF") && !text.contains("EXECABORT") {
                        bail!("operation {} is refused: {text}", entry.stamp.number);
                    }
                    Outcome::Refused
                };
                answered += 1;
            }
        }
    }
}

/// Takes snapshots one after the other, with pauses, until it is time.
pub fn save_until(
    end: Instant,
    load: &Load,
    process: &mut Process,
    rng: &mut Rng,
) -> Result<Vec<Snapshot>> {
    let mut snapshots = Vec::new();
    while Instant::now() < end {
        let begun = load.tick();
        let reply = process.call("BGSAVE")?;
        if reply.is_error() {
            bail!("BGSAVE is refused: {reply}");
        }
        snapshots.push(Snapshot { begun, answered: load.tick(), is_complete: false });
        while Instant::now() < end {
            let info = process.call("INFO persistence")?.text();
            if info.contains("rdb_bgsave_in_progress:0") {
                ensure!(info.contains("rdb_last_bgsave_status:ok"), "a snapshot failed");
                snapshots.last_mut().expect("one was added").is_complete = true;
                break;
            }
            sleep(Duration::from_millis(1));
        }
        let pause = Duration::from_millis(rng.u64(0..50));
        sleep(pause.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(snapshots)
}

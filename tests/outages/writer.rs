//! Clients that write all the time, to whoever takes it, and remember what was confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::{Client, encode};
use crate::transport::Transport;

/// How many keys each writer has, over and over.
const KEYS: u64 = 200;
const PATIENCE: Duration = Duration::from_millis(700);

/// What was given up may still be on its way through a node that is cut off: it must not undo what came after it.
const SET_IF_NEWER: &str = "\
    if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then \
        return redis.call('SET', KEYS[1], ARGV[1]) \
    end \
    redis.call('INCR', KEYS[2]) \
    return redis.status_reply('OK')";
/// How many came late.
pub const LATE: &str = "late";

/// What all writers have seen.
#[derive(Default)]
pub struct Seen {
    /// The newest value of each key that a replica has confirmed.
    pub confirmed: BTreeMap<String, u64>,
    pub writes: u64,
    /// Which nodes took a write in an epoch.
    pub takers: BTreeMap<u64, BTreeSet<u32>>,
    /// When the last write was confirmed, and the longest time without since it was last asked for.
    last: Option<Instant>,
    longest: Duration,
}

impl Seen {
    fn confirm(&mut self, key: String, value: u64) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
        self.writes += 1;
        self.confirmed.insert(key, value);
    }

    /// The longest time without a confirmed write since this was last called.
    pub fn take_outage(&mut self) -> Duration {
        std::mem::take(&mut self.longest)
    }
}

pub struct Writers {
    pub seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    pub fn start(count: usize, places: &[(String, u16)]) -> Self {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let threads = (0..count)
            .map(|number| {
                let (seen, stop, places) = (Arc::clone(&seen), Arc::clone(&stop), places.to_vec());
                std::thread::spawn(move || write(number, &places, &seen, &stop))
            })
            .collect();
        Self { seen, stop, threads }
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

pub fn connect((address, port): &(String, u16), patience: Duration) -> Result<Client> {
    let place = format!("{address}:{port}").parse()?;
    let stream = TcpStream::connect_timeout(&place, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(Client::over(Transport::Tcp(stream)))
}

fn write(number: usize, places: &[(String, u16)], seen: &Mutex<Seen>, stop: &AtomicBool) {
    let (mut place, mut value) = (number, 0);
    while !stop.load(Ordering::SeqCst) {
        // A client tries the next node when one is not there, is not the primary, or does not answer.
        place += 1;
        let Ok(mut client) = connect(&places[place % places.len()], PATIENCE) else {
            sleep(Duration::from_millis(20));
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            value += 1;
            let key = format!("w{number}:{}", value % KEYS);
            match one(&mut client, &key, value) {
                Ok(Taken { epoch, node, replicas }) => {
                    let mut seen = seen.lock().expect("nobody panics with it");
                    seen.takers.entry(epoch).or_default().insert(node);
                    if replicas > 0 {
                        seen.confirm(key, value);
                    }
                }
                Err(_) => break,
            }
        }
        sleep(Duration::from_millis(20));
    }
}

struct Taken {
    epoch: u64,
    node: u32,
    replicas: i64,
}

/// One write, between two questions for the epoch in which it is made: all in one request.
fn one(client: &mut Client, key: &str, value: u64) -> Result<Taken> {
    let (mut request, value) = (Vec::new(), value.to_string());
    encode(&["INFO", "internode"], &mut request);
    encode(&["EVAL", SET_IF_NEWER, "2", key, LATE, &value], &mut request);
    encode(&["INFO", "internode"], &mut request);
    encode(&["WAIT", "1", "300"], &mut request);
    client.try_send(&request)?;
    let before = client.try_read()?.text();
    let set = client.try_read()?.to_string();
    let after = client.try_read()?.text();
    let waited = client.try_read()?.to_string();
    anyhow::ensure!(set == "+OK", "{set}");
    let field = |text: &str, name: &str| -> Result<u64> {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(found.with_context(|| format!("no {name} in {text}"))?.trim().parse()?)
    };
    let epoch = field(&before, "internode_placement_epoch")?;
    anyhow::ensure!(epoch == field(&after, "internode_placement_epoch")?, "it changed");
    let node = field(&after, "internode_node")?.try_into()?;
    let replicas = waited.trim_start_matches(':').parse().unwrap_or(0);
    Ok(Taken { epoch, node, replicas })
}

//! Clients that write all kinds of things for as long as they are told to, and come back when they are cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;

use crate::client::Client;
use crate::transport::Transport;

/// Logical databases that are written to.
pub const DATABASES: usize = 3;

/// How long a server that stands still is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    has_ended: AtomicBool,
    writes: AtomicU64,
}

impl Traffic {
    pub fn start(port: u16, connections: usize, seed: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let spawn = |connection: usize| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut rng = Rng::with_seed(seed.wrapping_add(connection as u64));
                while !shared.has_ended.load(Ordering::Relaxed) {
                    if write(port, &shared, &mut rng).is_err() {
                        sleep(Duration::from_millis(10));
                    }
                }
            })
        };
        let threads = (0..connections).map(spawn).collect();
        Self { shared, threads }
    }

    /// How many writes were answered.
    pub fn end(self) -> u64 {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a thread that does not panic");
        }
        self.shared.writes.load(Ordering::Relaxed)
    }
}

/// Writes until the connection breaks.
fn write(port: u16, shared: &Shared, rng: &mut Rng) -> Result<()> {
    let mut client = Client::over(Transport::tcp(port)?);
    while !shared.has_ended.load(Ordering::Relaxed) {
        let requests = requests(rng);
        client.try_send(requests.join("\r\n").as_bytes())?;
        client.try_send(b"\r\n")?;
        for _ in &requests {
            if client.read_within(PATIENCE).is_none() {
                return Ok(());
            }
            shared.writes.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn requests(rng: &mut Rng) -> Vec<String> {
    let (n, m, number) = (rng.u32(..200), rng.u32(..200), rng.u32(..));
    vec![match rng.u32(..20) {
        0 => format!("SET s{n} {}", "v".repeat(rng.usize(..300))),
        1 => format!("INCR n{n}"),
        2 => format!("LPUSH l{n} {number} x"),
        3 => format!("RPOPLPUSH l{n} l{m}"),
        4 => format!("HSET h{n} f{} {number}", number % 13),
        5 => format!("SADD m{n} {number}"),
        6 => format!("SPOP m{n}"),
        7 => format!("ZADD z{n} {} e{}", number % 1000, number % 11),
        8 => format!("XADD x{n} MAXLEN 20 * f {number}"),
        9 => format!("SELECT {}", rng.usize(..DATABASES)),
        10 => format!("PEXPIRE s{n} {}", 5 + number % 50),
        11 => format!("EXPIRE h{n} {}", 1000 + number % 50),
        12 => format!(
            "EVAL \"redis.call('incr',KEYS[1]) redis.call('rpush',KEYS[2],ARGV[1])\" 2 n{n} l{n} {number}"
        ),
        13 => format!("DEL l{n} s{m}"),
        14 => format!("GETEX s{n} EX {}", 100 + number % 50),
        15 => format!("RENAME n{n} n{m}"),
        16 => format!("APPEND s{n} {}", "a".repeat(rng.usize(..2000))),
        17 => format!("LTRIM l{n} 0 50"),
        18 => format!("SETRANGE big{} {} {number}", n % 10, rng.u32(..100_000)),
        _ => {
            return vec![
                "MULTI".into(),
                format!("SETEX s{n} 500 {number}"),
                format!("SELECT {}", rng.usize(..DATABASES)),
                format!("SUNIONSTORE m{n} m{m}"),
                "EXEC".into(),
            ];
        }
    }]
}

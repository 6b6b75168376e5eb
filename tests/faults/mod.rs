//! Fault test of replication: a primary, a replica and a replica of either, while links between them are cut,
//! slowed down or dead, and processes stand still or are killed, at random moments under load.
//!
//! At the end of each round all is well again, nobody writes, and all have to have the same data.
//!
//! `cargo run -p carnelian-tests --bin faults -- --seconds 600`

mod proxy;
mod traffic;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;

use crate::client::Client;
use crate::reply::Reply;
use crate::server::{Server, Signal};
use crate::transport::Transport;

use proxy::{Proxy, Way};
use traffic::Traffic;

#[derive(Clone, Debug)]
pub struct Settings {
    /// What the primary is, and what the replicas are.
    pub primary: PathBuf,
    pub replica: PathBuf,
    /// It ends when so many rounds are done, or that time is over.
    pub rounds: u32,
    pub seconds: u64,
    pub seed: u64,
    pub connections: usize,
    /// Longest time between two faults, in milliseconds.
    pub pause_ms_max: u64,
    /// How long all may take to be the same again, in seconds.
    pub patience_s: u64,
}

impl Settings {
    pub fn new(program: PathBuf) -> Self {
        Self {
            primary: program.clone(),
            replica: program,
            rounds: u32::MAX,
            seconds: 60,
            seed: fastrand::u64(..),
            connections: 4,
            pause_ms_max: 400,
            patience_s: 180,
        }
    }
}

/// What came of a series that found nothing wrong.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub rounds: u32,
    pub writes: u64,
    /// By name.
    pub faults: Vec<(&'static str, u64)>,
    /// As primaries have counted them.
    pub full: u64,
    pub partial: u64,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Cut,
    CutInside,
    Slow,
    HalfOpen,
    Dead,
    Stop,
    KillPrimary,
    KillReplica,
    Reattach,
}

const FAULTS: &[(Fault, &str)] = &[
    (Fault::Cut, "links cut"),
    (Fault::CutInside, "links cut within what was sent"),
    (Fault::Slow, "links slow"),
    (Fault::HalfOpen, "links half open"),
    (Fault::Dead, "links dead"),
    (Fault::Stop, "processes stopped"),
    (Fault::KillPrimary, "primaries killed"),
    (Fault::KillReplica, "replicas killed"),
    (Fault::Reattach, "replicas led elsewhere"),
];

/// Runs the rounds.
pub fn run(settings: &Settings) -> Result<Summary> {
    let mut series = Series::start(settings)?;
    let end = Instant::now() + Duration::from_secs(settings.seconds);
    while series.summary.rounds < settings.rounds && Instant::now() < end {
        let round = series.summary.rounds + 1;
        series.round().with_context(|| {
            format!("seed {}, round {round}: {}", settings.seed, series.story.join("; "))
        })?;
        series.summary.rounds = round;
        eprintln!("round {round}: the same; {} writes so far", series.summary.writes);
    }
    series.summary.faults = FAULTS.iter().map(|(_, name)| *name).zip(series.counts).collect();
    Ok(series.summary)
}

struct Series<'s> {
    settings: &'s Settings,
    rng: Rng,
    /// The primary, and those that follow.
    servers: [Server; 3],
    /// In front of whom each replica follows.
    links: [Proxy; 2],
    /// Whether the second replica follows the first.
    is_chain: bool,
    summary: Summary,
    counts: [u64; FAULTS.len()],
    /// Full and partial ones that each server has counted since it was started.
    syncs: [[u64; 2]; 3],
    /// What was done in this round.
    story: Vec<String>,
}

impl<'s> Series<'s> {
    fn start(settings: &'s Settings) -> Result<Self> {
        let args = [
            "--repl-diskless-sync-delay",
            "0",
            "--repl-timeout",
            "3",
            "--repl-ping-replica-period",
            "1",
            "--repl-backlog-size",
            "4mb",
            "--appendonly",
            "yes",
            // Or else each start after a crash takes longer than the one before.
            "--auto-aof-rewrite-min-size",
            "4mb",
        ];
        let patience = Duration::from_secs(settings.patience_s);
        let start = |program| Server::starter_of(program).args(&args).patience(patience).start();
        let primary = start(&settings.primary);
        let links = [Proxy::start(primary.port())?, Proxy::start(primary.port())?];
        let servers = [primary, start(&settings.replica), start(&settings.replica)];
        let mut series = Self {
            settings,
            rng: Rng::with_seed(settings.seed),
            servers,
            links,
            is_chain: false,
            summary: Summary::default(),
            counts: [0; FAULTS.len()],
            syncs: [[0; 2]; 3],
            story: Vec::new(),
        };
        for replica in 0..2 {
            series.follow(replica)?;
        }
        Ok(series)
    }

    /// Tells a replica whom to follow: killed ones forget it.
    fn follow(&mut self, replica: usize) -> Result<()> {
        let port = self.links[replica].port();
        let server = &self.servers[1 + replica];
        let reply =
            self.insist(|| ask(&mut connect(server)?, &format!("REPLICAOF 127.0.0.1 {port}")))?;
        ensure!(reply.starts_with("OK"), "REPLICAOF gives {reply}");
        Ok(())
    }

    /// Asks until there is an answer: what is slow now has not failed.
    fn insist<T>(&self, question: impl Fn() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + self.patience();
        loop {
            match question() {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(50)),
                answer => return answer,
            }
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.patience_s)
    }

    fn round(&mut self) -> Result<()> {
        self.story.clear();
        let seed = self.rng.u64(..);
        let traffic = Traffic::start(self.servers[0].port(), self.settings.connections, seed);
        for _ in 0..self.rng.u32(1..=4) {
            self.pause();
            let fault = self.rng.usize(..FAULTS.len());
            self.counts[fault] += 1;
            self.strike(FAULTS[fault].0)?;
        }
        self.pause();
        for server in &self.servers {
            server.signal(Signal::CONT);
        }
        self.links.iter().for_each(Proxy::heal);
        // Some syncs happen while there is traffic, and some when it is over.
        if self.rng.bool() {
            self.pause();
        }
        self.summary.writes += traffic.end();
        self.compare()
    }

    fn pause(&mut self) {
        sleep(Duration::from_millis(self.rng.u64(0..=self.settings.pause_ms_max)));
    }

    fn strike(&mut self, fault: Fault) -> Result<()> {
        let (link, server) = (self.rng.usize(..2), self.rng.usize(..3));
        self.story.push(match fault {
            Fault::Stop => format!("{fault:?} {server}"),
            Fault::KillPrimary => format!("{fault:?}"),
            _ => format!("{fault:?} {link}"),
        });
        match fault {
            Fault::Cut => self.links[link].cut(),
            Fault::CutInside => self.links[link].cut_after(self.rng.usize(..200_000)),
            Fault::Slow => {
                let pause = Duration::from_millis(self.rng.u64(1..20));
                let slow = Way::Slow { bytes: self.rng.usize(1..5000), pause };
                self.links[link].set(slow, slow);
            }
            Fault::HalfOpen if self.rng.bool() => self.links[link].set(Way::Dead, Way::Open),
            Fault::HalfOpen => self.links[link].set(Way::Open, Way::Dead),
            Fault::Dead => {
                self.links[link].set(Way::Dead, Way::Dead);
                // Long enough for somebody to give up, now and then.
                if self.rng.u8(..) < 64 {
                    sleep(Duration::from_secs(4));
                }
            }
            Fault::Stop => self.servers[server].signal(Signal::STOP),
            Fault::KillPrimary => self.crash(0)?,
            Fault::KillReplica => {
                self.crash(1 + link)?;
                self.follow(link)?;
            }
            Fault::Reattach => {
                self.is_chain = !self.is_chain;
                let to = usize::from(self.is_chain);
                self.links[1].lead_to(self.servers[to].port());
                self.links[1].cut();
            }
        }
        Ok(())
    }

    /// `kill -9`, and a start on what there is.
    fn crash(&mut self, server: usize) -> Result<()> {
        self.servers[server].kill();
        // It may have much to read: it has as long as it takes for all to be the same.
        match self.servers[server].start_again() {
            Ok(()) => Ok(()),
            Err(failure) => bail!("no start: {failure:?}"),
        }
    }

    /// Waits until all have the same data.
    fn compare(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.patience();
        loop {
            // The primary's first: signs of life count too, and may come while the others are asked.
            let places = self.each(Place::of);
            let is_there = |place: &Option<Place>| match (&places[0], place) {
                (Some(primary), Some(place)) => {
                    primary.history == place.history && primary.offset <= place.offset
                }
                _ => false,
            };
            let have_come = places.iter().all(is_there);
            let digests = if have_come { self.each(digest) } else { Vec::new() };
            if are_same(&digests) {
                return self.count_syncs();
            }
            if deadline < Instant::now() {
                bail!(
                    "not the same after {:?}: {places:?} {digests:?}\n{}",
                    self.patience(),
                    self.report()
                );
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn each<T>(&self, question: impl Fn(&Server) -> Result<T>) -> Vec<Option<T>> {
        self.servers.iter().map(|server| question(server).ok()).collect()
    }

    /// Counters begin anew with each start.
    fn count_syncs(&mut self) -> Result<()> {
        for place in 0..self.servers.len() {
            let server = &self.servers[place];
            let info = self.insist(|| ask(&mut connect(server)?, "INFO stats"))?;
            let last = &mut self.syncs[place];
            let count = |name| field(&info, name).and_then(|it| it.parse().ok()).unwrap_or(0);
            let now = [count("sync_full"), count("sync_partial_ok")];
            let new = |at: usize| if now[at] < last[at] { now[at] } else { now[at] - last[at] };
            self.summary.full += new(0);
            self.summary.partial += new(1);
            *last = now;
        }
        Ok(())
    }

    /// What differs, and what the servers said last.
    fn report(&self) -> String {
        let contents: Vec<_> = self.servers.iter().map(contents).collect();
        let mut lines = Vec::new();
        for (server, found) in contents.iter().enumerate().skip(1) {
            let (Ok(expected), Ok(found)) = (&contents[0], found) else {
                lines.push(format!("server {server} cannot be compared"));
                continue;
            };
            let missing = expected.iter().filter(|it| !found.contains(it));
            let more = found.iter().filter(|it| !expected.contains(it));
            lines.extend(missing.take(5).map(|it| format!("not on server {server}: {it}")));
            lines.extend(more.take(5).map(|it| format!("only on server {server}: {it}")));
        }
        for (number, server) in self.servers.iter().enumerate() {
            let log = server.log();
            let last: Vec<_> = log.lines().rev().take(15).collect();
            lines.push(format!("server {number}:"));
            lines.extend(last.iter().rev().map(|line| format!("  {line}")));
        }
        lines.join("\n")
    }
}

/// Whether all servers have said something, and the same.
fn are_same(said: &[Option<String>]) -> bool {
    said.first().is_some_and(Option::is_some) && said.iter().all(|it| *it == said[0])
}

/// Where a server is.
#[derive(Debug)]
struct Place {
    history: String,
    offset: u64,
}

impl Place {
    /// An error while a server has no link to its primary.
    fn of(server: &Server) -> Result<Self> {
        let info = ask(&mut connect(server)?, "INFO replication")?;
        let is_up = field(&info, "role") == Some("master")
            || field(&info, "master_link_status") == Some("up");
        ensure!(is_up, "no link");
        Ok(Self {
            history: field(&info, "master_replid").context("no history")?.to_owned(),
            offset: field(&info, "master_repl_offset").context("no offset")?.parse()?,
        })
    }
}

fn digest(server: &Server) -> Result<String> {
    ask(&mut connect(server)?, "DEBUG DIGEST")
}

/// All keys with their values, as DUMP has them.
fn contents(server: &Server) -> Result<Vec<String>> {
    let mut client = connect(server)?;
    let mut contents = Vec::new();
    for db in 0..traffic::DATABASES {
        ask(&mut client, &format!("SELECT {db}"))?;
        for key in client.call("KEYS *").elements() {
            let key = key.text();
            let kind = ask(&mut client, &format!("TYPE {key}"))?;
            let digest = ask(&mut client, &format!("DEBUG DIGEST-VALUE {key}"))?;
            let expiry = ask(&mut client, &format!("PEXPIRETIME {key}"))?;
            contents.push(format!("{db} {key} {kind} {expiry} {digest}"));
        }
    }
    contents.sort();
    Ok(contents)
}

fn connect(server: &Server) -> Result<Client> {
    Ok(Client::over(Transport::tcp(server.port())?))
}

fn ask(client: &mut Client, command: &str) -> Result<String> {
    client.try_send(format!("{command}\r\n").as_bytes())?;
    let reply = client.try_read()?;
    ensure!(!reply.is_error(), "{command} gives {reply}");
    Ok(match &reply {
        Reply::Array(elements) => elements.iter().map(Reply::text).collect::<Vec<_>>().join(" "),
        Reply::Integer(number) => number.to_string(),
        _ => reply.text(),
    })
}

fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

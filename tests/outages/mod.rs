//! Three nodes in namespaces of their own, with a database on two of them, and faults under load: a process that is
//! killed or stopped, or a node that is cut off from the others, be it the primary, the replica or whoever leads.
//!
//! Held against it: what WAIT has confirmed is there after each fault, and no two nodes ever take a write in the same
//! epoch. Needs to be root, and the program `ip`.

mod net;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Member, PASSWORD};
use crate::server::Signal;
use net::Net;
use writer::{LATE, Writers, connect};

/// How long the cluster may take to be whole again after a fault.
const HEALING: Duration = Duration::from_secs(60);
const COUNT: u8 = 3;

#[derive(Clone, Debug)]
pub struct Settings {
    pub faults: u32,
    pub seed: u64,
    pub writers: usize,
    /// Of the database.
    pub port: u16,
    /// How long what is stopped or cut off stays so, at most.
    pub longest_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { faults: 200, seed: 1, writers: 3, port: 21390, longest_ms: 3000 }
    }
}

#[derive(Debug, Default)]
pub struct Summary {
    pub founding: Duration,
    faults: BTreeMap<String, Vec<Duration>>,
    writes: u64,
    epochs: usize,
    late: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { founding, faults, writes, epochs, late } = self;
        let mut all: Vec<Duration> = faults.values().flatten().copied().collect();
        all.sort_unstable();
        writeln!(
            f,
            "from nothing to a replicated, encrypted database on three nodes in {founding:?}; {} faults: \
             {writes} writes confirmed and none lost, {late} that were given up came late; {epochs} \
             epochs with one primary each; outage of writes: median {:?}, longest {:?}",
            all.len(),
            all.get(all.len() / 2).unwrap_or(&Duration::ZERO),
            all.last().unwrap_or(&Duration::ZERO),
        )?;
        for (name, outages) in faults {
            let mut outages = outages.clone();
            outages.sort_unstable();
            let median = outages[outages.len() / 2];
            writeln!(f, "{:>5} {name}: median {median:?}", outages.len())?;
        }
        Ok(())
    }
}

struct World {
    settings: Settings,
    net: Net,
    members: Vec<Member>,
    uid: u64,
    random: fastrand::Rng,
}

pub fn run(settings: &Settings) -> Result<Summary> {
    let net = Net::new(COUNT)?;
    let began = Instant::now();
    let mut world = World::found(settings.clone(), net)?;
    let mut summary = Summary { founding: began.elapsed(), ..Summary::default() };
    eprintln!("founded in {:?}", summary.founding);
    world.settle()?;
    let places: Vec<(String, u16)> =
        (0..COUNT).map(|place| (Net::address(place), settings.port)).collect();
    let writers = Writers::start(settings.writers, &places);
    sleep(Duration::from_secs(1));
    for number in 0..settings.faults {
        lock(&writers).take_outage();
        let name = world.fault().with_context(|| format!("fault {number}"))?;
        world.settle().with_context(|| format!("after fault {number}: {name}"))?;
        let count = lock(&writers).writes;
        let ends = Instant::now() + HEALING;
        while lock(&writers).writes < count + 20 {
            ensure!(Instant::now() < ends, "no write is confirmed after fault {number}: {name}");
            sleep(Duration::from_millis(20));
        }
        let outage = lock(&writers).take_outage();
        eprintln!("{number}: {name}: {} ms", outage.as_millis());
        summary.faults.entry(name.clone()).or_default().push(outage);
        summary.late =
            world.check(&writers).with_context(|| format!("after fault {number}: {name}"))?;
    }
    {
        let seen = lock(&writers);
        (summary.writes, summary.epochs) = (seen.writes, seen.takers.len());
    }
    writers.stop();
    Ok(summary)
}

fn lock(writers: &Writers) -> std::sync::MutexGuard<'_, writer::Seen> {
    writers.seen.lock().expect("nobody panics with it")
}

impl World {
    /// One command a node, and one for the database.
    fn found(settings: Settings, net: Net) -> Result<Self> {
        let start = |place: u8, args: &[&str]| {
            let name = Net::name(place);
            let wrapper = ["ip", "netns", "exec", &name];
            Member::start_at(&Net::address(place), &wrapper, PASSWORD, args)
        };
        let first = start(0, &["--cluster-create", "outages.local"]);
        let place = first.place();
        let join = ["--cluster-join", &place];
        let (second, third) = std::thread::scope(|scope| {
            let second = scope.spawn(|| start(1, &join));
            let third = start(2, &join);
            (second.join(), third)
        });
        let second = second.map_err(|_| anyhow::anyhow!("the second node does not start"))?;
        first.eventually_sees(usize::from(COUNT));
        let spec = json!({
            "name": "outages", "port": settings.port, "memory_size": 100 << 20, "replication": true,
            "data_internode_encryption": true,
        });
        let made = first.change("POST", "/v1/bdbs", &spec);
        let uid = made["uid"].as_u64().context("its uid")?;
        let path = format!("/v1/bdbs/{uid}");
        first.eventually(&path, |database| database["status"] == "active");
        let random = fastrand::Rng::with_seed(settings.seed);
        let mut world = Self { settings, net, members: vec![first, second, third], uid, random };
        world.settle()?;
        Ok(world)
    }

    /// Asks all nodes for something until one answers.
    fn ask(&self, path: &str) -> Option<Value> {
        self.members.iter().find_map(|member| {
            let (status, answer) = member.try_ask("GET", path, &Value::Null)?;
            (status == 200).then_some(answer)
        })
    }

    /// Where a node is: those that join at the same time get their numbers as it happens.
    fn place(&self, uid: &str) -> Option<u8> {
        let nodes = self.ask("/v1/nodes")?;
        let uid: u64 = uid.parse().ok()?;
        let node = nodes.as_array()?.iter().find(|node| node["uid"] == uid)?;
        let address = node["addr"].as_str()?;
        (0..COUNT).find(|place| Net::address(*place) == address)
    }

    /// Where the primary and the replica are.
    fn shards(&self) -> Option<[u8; 2]> {
        let shards = self.ask(&format!("/v1/bdbs/{}/shards", self.uid))?;
        let place = |role: &str| {
            let shard = shards.as_array()?.iter().find(|shard| shard["role"] == role)?;
            self.place(shard["node_uid"].as_str()?)
        };
        Some([place("master")?, place("slave")?])
    }

    fn leader(&self) -> Option<u8> {
        let nodes = self.ask("/v1/nodes/status")?;
        let leads = |(_, node): &(&String, &Value)| node["role"] == "master";
        self.place(nodes.as_object()?.iter().find(leads)?.0)
    }

    /// Right after a fault one may have yet to be chosen.
    fn eventual_leader(&self) -> Result<u8> {
        let ends = Instant::now() + HEALING;
        loop {
            if let Some(leader) = self.leader() {
                return Ok(leader);
            }
            ensure!(Instant::now() < ends, "nobody leads");
            sleep(Duration::from_millis(20));
        }
    }

    /// Until all nodes are there and a replica has everything.
    fn settle(&mut self) -> Result<()> {
        let ends = Instant::now() + HEALING;
        loop {
            if self.is_well().unwrap_or(false) {
                return Ok(());
            }
            ensure!(Instant::now() < ends, "it is not well: {}", self.describe());
            sleep(Duration::from_millis(20));
        }
    }

    fn describe(&self) -> String {
        let nodes = self.ask("/v1/nodes").map(|it| it.to_string()).unwrap_or_default();
        let logs: Vec<String> = self
            .members
            .iter()
            .map(|member| {
                let log = member.server.log();
                let lines: Vec<&str> = log.lines().rev().take(25).collect();
                lines.into_iter().rev().collect::<Vec<_>>().join("\n")
            })
            .collect();
        format!("{nodes}\n{}", logs.join("\n---\n"))
    }

    fn is_well(&self) -> Result<bool> {
        let nodes = self.ask("/v1/nodes").context("nobody answers")?;
        let all = nodes.as_array().context("a list")?;
        if !all.iter().all(|node| node["status"] == "active") {
            return Ok(false);
        }
        let [primary, _] = self.shards().context("no shards")?;
        // The replica's port leads to the primary too: it is asked about its replica.
        let place = (Net::address(primary), self.settings.port);
        let mut client = connect(&place, Duration::from_millis(500))?;
        // A process that was started anew does not know it any longer.
        client.try_send(b"CONFIG SET min-replicas-to-write 1\r\nINFO replication\r\n")?;
        let set = client.try_read()?.to_string();
        let info = client.try_read()?.text();
        ensure!(set == "+OK", "{set}");
        Ok(["role:master", "state=online"].iter().all(|wanted| info.contains(wanted)))
    }

    /// Makes one, and takes it back.
    fn fault(&mut self) -> Result<String> {
        let [primary, replica] = self.shards().context("no shards")?;
        let (whom, place) = match self.random.u8(..3) {
            0 => ("primary", primary),
            1 => ("replica", replica),
            _ => ("leader", self.eventual_leader()?),
        };
        let lasts = Duration::from_millis(self.random.u64(200..=self.settings.longest_ms));
        let kind = self.random.u8(..3);
        let server = &mut self.members[usize::from(place)].server;
        let what = match kind {
            0 => {
                server.kill();
                if self.random.bool() {
                    sleep(lasts);
                }
                server.start_again().map_err(|error| anyhow::anyhow!("{error:?}"))?;
                "killed"
            }
            1 => {
                server.signal(Signal::STOP);
                sleep(lasts);
                server.signal(Signal::CONT);
                "stopped"
            }
            _ => {
                self.net.isolate(place)?;
                sleep(lasts);
                self.net.heal(place)?;
                "cut off"
            }
        };
        Ok(format!("{whom} {what}"))
    }

    /// What was confirmed is there, and each epoch had one primary. How many writes came late.
    fn check(&self, writers: &Writers) -> Result<String> {
        let confirmed = lock(writers).confirmed.clone();
        let [primary, _] = self.shards().context("no shards")?;
        let place = (Net::address(primary), self.settings.port);
        let mut client = connect(&place, Duration::from_secs(10))?;
        for (key, value) in confirmed {
            let found = client.call_words(&["GET", &key]).to_string();
            let found: u64 = found.parse().unwrap_or(0);
            ensure!(value <= found, "{key} was confirmed to be {value} and is {found}");
        }
        for (epoch, takers) in &lock(writers).takers {
            ensure!(takers.len() == 1, "nodes {takers:?} took writes in epoch {epoch}");
        }
        Ok(client.call_words(&["GET", LATE]).to_string())
    }
}

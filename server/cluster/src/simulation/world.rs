//! Nodes with shards that are lists of writes, faults by chance, and what is checked all along.

mod rotation;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::certificates::{self, Papers};
use super::disk::Disk;
use super::links::LinkFigures;
use super::net::Net;
use super::trace;
use crate::control::{Control, Signer};
use crate::placement::ShardReport;
use crate::raft::Store;
use crate::state::{Change, DatabaseUid, Detail, NodeUid, Outcome, Placement, State};
use rotation::{Work, first_papers};
use trouble::{add_node, create_database, create_user, new_cluster};

/// How long faults go on, and how long everything may take to be well again.
const FAULTS: Duration = Duration::from_secs(25);
const HEALING: Duration = Duration::from_secs(60);

/// Who is no member, and never was.
const STRANGER: NodeUid = NodeUid(77);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub seeds: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub unanswered: u64,
    pub crashes: u64,
    pub partitions: u64,
    pub failovers: u64,
    pub writes: u64,
    pub confirmed: u64,
    pub wiped: u64,
    /// How often all who had something confirmed lost it.
    pub all_lost: u64,
    /// How often none of several replicas that had it was there when the primary was lost.
    pub all_away: u64,
    pub joins: u64,
    pub removals: u64,
    /// Changes from one authority between nodes to another.
    pub authorities: u64,
    pub rotations: u64,
    /// That went by in an instant.
    pub days: u64,
    pub links: LinkFigures,
    /// The sum of all that happened.
    pub trace: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.crashes += other.crashes;
        self.partitions += other.partitions;
        self.failovers += other.failovers;
        self.writes += other.writes;
        self.confirmed += other.confirmed;
        self.wiped += other.wiped;
        self.all_lost += other.all_lost;
        self.all_away += other.all_away;
        self.joins += other.joins;
        self.removals += other.removals;
        self.authorities += other.authorities;
        self.rotations += other.rotations;
        self.days += other.days;
        self.links.add(&other.links);
        self.trace ^= other.trace;
    }
}

/// A shard's data: the writes in their order, and the epoch it is of.
#[derive(Clone, Default)]
struct Shard {
    writes: Vec<u64>,
    epoch: u64,
    synced: bool,
    /// Its machine was not restarted without it.
    whole: bool,
}

struct Machine {
    disk: Disk,
    control: Option<Control>,
    /// It outlives some crashes, as if every write were flushed; others leave nothing of it.
    shards: BTreeMap<DatabaseUid, Shard>,
    work: Work,
}

pub struct World {
    seed: u64,
    chance: fastrand::Rng,
    net: Net,
    machines: BTreeMap<NodeUid, Machine>,
    /// Who has all that was confirmed; nobody, if all of them lost it.
    owners: BTreeMap<DatabaseUid, BTreeSet<NodeUid>>,
    /// Where databases are, by the newest state.
    placements: BTreeMap<DatabaseUid, Placement>,
    /// What clients were told.
    promised: Arc<Mutex<Promised>>,
    next_write: u64,
    epochs: BTreeMap<(DatabaseUid, u64), NodeUid>,
    confirmed: BTreeMap<DatabaseUid, Vec<u64>>,
    figures: Figures,
    full: Option<NodeUid>,
}

#[derive(Default)]
struct Promised {
    users: BTreeSet<String>,
    acknowledged: u64,
    refused: u64,
    unanswered: u64,
    joining: Vec<NodeUid>,
    /// Those whose certificates are being signed, or are; and what was signed, with whom they are to believe.
    admitted: BTreeSet<NodeUid>,
    signed: Vec<(NodeUid, Vec<String>, Papers)>,
    joined: BTreeSet<NodeUid>,
    removed: BTreeSet<NodeUid>,
}

impl World {
    pub async fn run(seed: u64) -> Figures {
        let mut world = Self {
            seed,
            chance: fastrand::Rng::with_seed(seed),
            net: Net::new(seed ^ 0xA5A5),
            machines: BTreeMap::new(),
            owners: BTreeMap::new(),
            placements: BTreeMap::new(),
            promised: Arc::default(),
            next_write: 0,
            epochs: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            figures: Figures { seeds: 1, ..Figures::default() },
            full: None,
        };
        world.begin().await;
        let end = Instant::now() + FAULTS;
        let mut next_fault = Instant::now();
        let mut next_request = Instant::now();
        while Instant::now() < end {
            world.tick();
            if next_fault <= Instant::now() {
                world.fault().await;
                next_fault = Instant::now() + Duration::from_millis(world.chance.u64(200..2500));
            }
            if next_request <= Instant::now() {
                world.request();
                next_request = Instant::now() + Duration::from_millis(world.chance.u64(50..700));
            }
            world.start_joiners().await;
            sleep(Duration::from_millis(50)).await;
        }
        world.heal().await;
        let promised = world.promised.lock();
        world.figures.acknowledged = promised.acknowledged;
        world.figures.refused = promised.refused;
        world.figures.unanswered = promised.unanswered;
        world.figures.joins = promised.joined.len() as u64;
        world.figures.removals = promised.removed.len() as u64;
        world.figures.confirmed = world.confirmed.values().map(|it| it.len() as u64).sum();
        world.figures.links = world.net.state().links.figures.clone();
        world.figures.trace = trace::sum();
        world.figures.clone()
    }

    fn fail(&self, what: &str) -> ! {
        panic!("seed {}: {what} (SIMULATION_SEED={} runs it again)", self.seed, self.seed)
    }

    /// A cluster of one, two more nodes, and a database with a replica.
    async fn begin(&mut self) {
        let first = NodeUid(1);
        self.machines.insert(first, new_machine());
        let papers = first_papers(first, self.net.true_time());
        self.net.state().papers.insert(first, papers);
        self.start(first).await;
        let control = self.control(first).expect("it was just started");
        control
            .change(Change::CreateCluster(Box::new(new_cluster())))
            .await
            .expect("nothing fails yet");
        self.promised.lock().joined.insert(first);
        for _ in 0..2 {
            let outcome = control.change(add_node(self.chance.u32(..))).await;
            if !matches!(outcome, Ok(Outcome::Node(_))) {
                self.fail("a node could not be added");
            }
        }
        let up = |control: &Control| control.state().nodes.values().all(|it| it.takes_shards());
        for _ in 0..200 {
            self.start_joiners().await;
            self.tick();
            if up(&control) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let created = control.change(create_database("first", true)).await;
        if created.is_err() {
            self.fail("a database could not be created");
        }
    }

    async fn join(&mut self, uid: NodeUid, papers: Papers) {
        self.machines.insert(uid, new_machine());
        self.net.state().papers.insert(uid, papers);
        self.net.set_rate(uid, self.chance.u32(960..=1040));
        self.start(uid).await;
        if let Some(control) = self.control(uid) {
            control.join(uid).await.expect("an empty node can join");
        }
        self.promised.lock().joined.insert(uid);
    }

    async fn start(&mut self, uid: NodeUid) {
        let environment = self.net.environment(uid);
        let disk = self.machines[&uid].disk.clone();
        let opener = Box::new(move || Store::on(disk.open()));
        match Control::start(opener, environment).await {
            Ok(control) => {
                trace::note(format_args!("node {uid} is started"));
                self.net.up(uid, &control);
                control.sign_with(Signer::Simulated(certificates::sign));
                let machine = self.machines.get_mut(&uid).expect("it is there");
                (machine.control, machine.work) = (Some(control), Work::default());
            }
            Err(error) => {
                if self.full != Some(uid) {
                    self.fail(&format!("node {uid} does not start: {error}"));
                }
            }
        }
    }

    async fn crash(&mut self, uid: NodeUid) {
        let machine = self.machines.get_mut(&uid).expect("it is there");
        let Some(control) = machine.control.take() else { return };
        machine.disk.crash(&mut self.chance);
        for (database, shard) in &mut machine.shards {
            shard.synced = false;
            if self.chance.u8(..4) == 0 {
                trace::note(format_args!("database {database}: node {uid} loses its data"));
                *shard = Shard::default();
                self.figures.wiped += 1;
                if let Some(owners) = self.owners.get_mut(database) {
                    owners.remove(&uid);
                }
            }
        }
        trace::note(format_args!("node {uid} crashes"));
        self.net.down(uid);
        self.figures.crashes += 1;
        // What is left of it talks to nobody and writes nothing.
        control.close().await;
    }

    fn control(&self, uid: NodeUid) -> Option<Control> {
        self.machines.get(&uid)?.control.clone()
    }

    fn running(&self) -> Vec<NodeUid> {
        let running = self.machines.iter().filter(|(_, machine)| machine.control.is_some());
        running.map(|(uid, _)| *uid).collect()
    }

    fn any_of(&mut self, nodes: &[NodeUid]) -> Option<NodeUid> {
        (!nodes.is_empty()).then(|| nodes[self.chance.usize(..nodes.len())])
    }

    /// The shards, and what has to hold at any time.
    fn tick(&mut self) {
        if let Some(violation) = trace::take_violation() {
            self.fail(&violation);
        }
        let running = self.running();
        let states: BTreeMap<NodeUid, Arc<State>> =
            running.iter().filter_map(|uid| Some((*uid, self.control(*uid)?.state()))).collect();
        let databases: BTreeSet<DatabaseUid> =
            states.values().flat_map(|state| state.databases.keys().copied()).collect();
        for database in databases {
            self.check_one_writer(database, &running);
            self.note_who_was_away(database, &states);
            self.write(database, &running, &states);
            self.replicate(database, &running, &states);
        }
        self.net.forget_dead_links();
        self.net.check_links(&states);
        for (uid, state) in &states {
            trace::note(format_args!("node {uid} knows {}", state.revision));
            let control = self.control(*uid).expect("it runs");
            let shards = &self.machines[uid].shards;
            let reports = state.databases.values().filter(|it| it.is_on(*uid)).map(|it| {
                let shard = shards.get(&it.uid).cloned().unwrap_or_default();
                let offset = shard.writes.len() as u64;
                // A node tells of the placement that it knows.
                let epoch = it.placement.epoch;
                let synced = shard.synced && shard.epoch == epoch;
                // Each primary begins a history of its own.
                let (whole, history) = (shard.whole, shard.epoch.to_string());
                ShardReport { database: it.uid, epoch, synced, offset, whole, history }
            });
            let reports: Vec<_> = reports.collect();
            control.report(reports, control.look());
            self.certify(*uid, &control, state);
            let others = |detail: &Detail| !matches!(detail, Detail::Rotate { .. });
            for action in state.awaiting(*uid).filter(|action| others(&action.detail)) {
                let (action, node) = (action.id.clone(), *uid);
                let control = control.clone();
                tokio::spawn(async move {
                    control.change(Change::ConfirmAction { action, node, error: None }).await
                });
            }
        }
    }

    fn check_one_writer(&mut self, database: DatabaseUid, running: &[NodeUid]) {
        let writable = |uid: &&NodeUid| {
            self.control(**uid).is_some_and(|control| control.writable(database).now())
        };
        let writers: Vec<NodeUid> = running.iter().filter(writable).copied().collect();
        if writers.len() > 1 {
            self.fail(&format!("database {database}: nodes {writers:?} take writes at once"));
        }
        let Some(writer) = writers.first() else { return };
        let state = self.control(*writer).expect("it runs").state();
        let epoch = state.databases[&database].placement.epoch;
        let known = *self.epochs.entry((database, epoch)).or_insert(*writer);
        if known != *writer {
            self.fail(&format!("database {database}: {known} and {writer} in epoch {epoch}"));
        }
    }

    fn write(
        &mut self,
        database: DatabaseUid,
        running: &[NodeUid],
        states: &BTreeMap<NodeUid, Arc<State>>,
    ) {
        for uid in running {
            let control = self.control(*uid).expect("it runs");
            if !control.writable(database).now() {
                continue;
            }
            let epoch = states[uid].databases[&database].placement.epoch;
            self.forget_what_nobody_has(database, states);
            let confirmed = self.confirmed.entry(database).or_default().clone();
            let machine = self.machines.get_mut(uid).expect("it runs");
            let shard = machine.shards.entry(database).or_default();
            if shard.epoch != epoch || !shard.synced {
                let missing = confirmed.iter().find(|write| !shard.writes.contains(write));
                if let Some(write) = missing {
                    self.fail(&format!(
                        "database {database}: write {write}, confirmed, is not on node {uid}, primary in \
                         epoch {epoch}"
                    ));
                }
                trace::note(format_args!(
                    "database {database}: node {uid} is primary in epoch {epoch}, with {} writes",
                    shard.writes.len()
                ));
                (shard.epoch, shard.synced, shard.whole) = (epoch, true, true);
                self.owners.entry(database).or_default().insert(*uid);
                self.figures.failovers += u64::from(epoch > 1);
            }
            self.next_write += 1;
            shard.writes.push(self.next_write);
            self.figures.writes += 1;
        }
    }

    /// Where all who had it lost their data, or were relieved of it, nothing could be kept.
    fn forget_what_nobody_has(
        &mut self,
        database: DatabaseUid,
        states: &BTreeMap<NodeUid, Arc<State>>,
    ) {
        let newest = states.values().max_by_key(|state| state.revision);
        let placed = newest.and_then(|state| state.databases.get(&database));
        let owners = self.owners.entry(database).or_default();
        owners.retain(|node| placed.is_some_and(|it| it.is_on(*node)));
        if owners.is_empty()
            && let Some(confirmed) = self.confirmed.get_mut(&database)
            && !confirmed.is_empty()
        {
            confirmed.clear();
            self.figures.all_lost += 1;
        }
    }

    /// Of several replicas the most advanced that is there becomes primary: what the others have, and it has not, is
    /// lost.
    fn note_who_was_away(&mut self, database: DatabaseUid, states: &BTreeMap<NodeUid, Arc<State>>) {
        let newest = states.values().max_by_key(|state| state.revision);
        let Some(placed) = newest.and_then(|state| state.databases.get(&database)) else { return };
        let placement = placed.placement.clone();
        let Some(before) = self.placements.insert(database, placement.clone()) else { return };
        if before.primary == placement.primary || before.replicas.len() < 2 {
            return;
        }
        let leaders = states.keys().filter_map(|node| self.control(*node));
        let leader = leaders.filter(Control::is_leader).max_by_key(|it| it.state().revision);
        let (Some(leader), Some(owners)) = (leader, self.owners.get_mut(&database)) else {
            return;
        };
        owners.retain(|node| *node == placement.primary || leader.hears(*node));
        if owners.is_empty() {
            owners.insert(placement.primary);
            let shard = self.machines[&placement.primary].shards.get(&database);
            let writes = shard.map(|shard| shard.writes.clone()).unwrap_or_default();
            let confirmed = self.confirmed.entry(database).or_default();
            confirmed.retain(|write| writes.contains(write));
            self.figures.all_away += 1;
        }
    }

    /// A replica that reaches its primary, and is of the same epoch, has what that has; and confirms it.
    fn replicate(
        &mut self,
        database: DatabaseUid,
        running: &[NodeUid],
        states: &BTreeMap<NodeUid, Arc<State>>,
    ) {
        for uid in running {
            let Some(placement) = states[uid].databases.get(&database).map(|it| &it.placement)
            else {
                continue;
            };
            let primary = placement.primary;
            let theirs = states.get(&primary).and_then(|state| state.databases.get(&database));
            let agree = theirs.is_some_and(|it| it.placement == *placement);
            if !placement.replicas.contains(uid) || !agree || !self.net.connected(*uid, primary) {
                continue;
            }
            if self.chance.u8(..3) == 0 {
                continue;
            }
            let source = self.machines[&primary].shards.get(&database).cloned();
            if !self.net.follows(*uid, primary) {
                continue;
            }
            // Only a primary that had its lease in this epoch has something to follow.
            let Some(source) = source.filter(|it| it.synced && it.epoch == placement.epoch) else {
                continue;
            };
            trace::note(format_args!(
                "database {database}: node {uid} has {:?} of {primary}",
                source.writes.last()
            ));
            self.confirmed.insert(database, source.writes.clone());
            self.owners.insert(database, BTreeSet::from([*uid, primary]));
            let machine = self.machines.get_mut(uid).expect("it runs");
            machine.shards.insert(database, source);
        }
    }

    async fn start_joiners(&mut self) {
        // Also those of whom nobody was told that they were admitted.
        let mut joining = std::mem::take(&mut self.promised.lock().joining);
        joining.extend(self.members());
        for uid in joining {
            if !self.machines.contains_key(&uid) {
                self.admit(uid);
            }
        }
        for (uid, papers) in self.newcomers() {
            self.join(uid, papers).await;
        }
    }

    /// All faults are over: everything has to be well in time.
    async fn heal(&mut self) {
        self.net.set_cuts(BTreeSet::new());
        self.net.set_weather(0, 5);
        self.right_clocks();
        if let Some(uid) = self.full.take() {
            self.machines[&uid].disk.set_full(false);
        }
        let all: Vec<NodeUid> = self.machines.keys().copied().collect();
        for uid in all {
            if self.machines[&uid].control.is_none() {
                self.start(uid).await;
            }
        }
        let deadline = Instant::now() + HEALING;
        loop {
            self.start_joiners().await;
            self.tick();
            if self.is_well() {
                break;
            }
            if deadline < Instant::now() {
                self.explain();
                self.fail("it does not become well again");
            }
            sleep(Duration::from_millis(200)).await;
        }
        let first = *self.members().first().expect("there are some");
        let control = self.control(first).expect("all run");
        if control.change(create_user("last@cluster.local")).await.is_err() {
            self.fail("no change can be made");
        }
        let state = control.state();
        let emails: BTreeSet<&str> = state.users.values().map(|user| user.email.as_str()).collect();
        if emails.contains("intruder@cluster.local") {
            self.fail("a stranger has changed something");
        }
        let promised = self.promised.lock();
        if let Some(lost) = promised.users.iter().find(|email| !emails.contains(email.as_str())) {
            self.fail(&format!("{lost}: acknowledged, and lost"));
        }
        drop(promised);
        self.promised.lock().removed.clone_from(&state.removed_nodes);
        let ended = |kind: &str| state.events.iter().filter(|it| it.kind == kind).count() as u64;
        self.figures.authorities = ended("internode_ca_rotated");
        self.figures.rotations = ended("internal_certs_rotated");
    }

    /// Those that every running node counts as members.
    fn members(&self) -> Vec<NodeUid> {
        let newest = self.running().into_iter().filter_map(|uid| Some(self.control(uid)?.state()));
        let newest = newest.max_by_key(|state| state.revision);
        newest.map_or_else(Vec::new, |state| state.nodes.keys().copied().collect())
    }

    fn is_well(&self) -> bool {
        let members = self.members();
        let controls: Option<Vec<Control>> = members.iter().map(|uid| self.control(*uid)).collect();
        let Some(controls) = controls else { return false };
        let states: Vec<Arc<State>> = controls.iter().map(Control::state).collect();
        let same = states.windows(2).all(|pair| pair[0] == pair[1]);
        let led = controls
            .iter()
            .all(|control| control.leader().is_some() && control.leader() == controls[0].leader());
        let state = &states[0];
        let quiet = state.actions.values().all(|action| action.status.is_over());
        let up = state.nodes.values().all(|node| node.status == crate::state::NodeStatus::Active);
        let written = state.databases.values().all(|database| {
            self.control(database.placement.primary)
                .is_some_and(|control| control.writable(database.uid).now())
        });
        same && led && quiet && up && written && self.is_certified(state)
    }

    fn explain(&self) {
        for uid in self.machines.keys() {
            let Some(control) = self.control(*uid) else { continue };
            let state = control.state();
            let nodes: Vec<_> = state.nodes.values().map(|it| (it.uid, it.status)).collect();
            let databases: Vec<_> = state
                .databases
                .values()
                .map(|it| (it.uid, it.status, it.placement.clone(), control.writable(it.uid)))
                .collect();
            let actions: Vec<_> =
                state.actions.values().filter(|it| !it.status.is_over()).collect();
            let papers = self.net.state().papers.get(uid).cloned();
            println!("node {uid}: {papers:?} {:?}", state.replacement);
            println!(
                "node {uid}: leader {:?} revision {} nodes {nodes:?} databases {databases:?} {actions:?} \
                 {}",
                control.leader(),
                state.revision,
                control.describe(),
            );
        }
    }
}

fn new_machine() -> Machine {
    Machine { disk: Disk::default(), control: None, shards: BTreeMap::new(), work: Work::default() }
}

//! Nodes with shards that are lists of writes, faults by chance, and what is checked all along.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::disk::Disk;
use super::net::Net;
use crate::control::Control;
use crate::placement::ShardReport;
use crate::raft::Store;
use crate::rpc::{self, Request, Response};
use crate::state::{
    ActionId, AddNode, Authority, Change, CreateCluster, CreateUser, DatabasePatch, DatabaseUid,
    Management, NodeFacts, NodeSettings, NodeUid, Outcome, PolicyPatch, SealedKey, State, Time,
    WirePatch,
};

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
    pub joins: u64,
    pub removals: u64,
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
        self.joins += other.joins;
        self.removals += other.removals;
    }
}

/// A shard's data: the writes in their order, and the epoch it is of.
#[derive(Clone, Default)]
struct Shard {
    writes: Vec<u64>,
    epoch: u64,
    synced: bool,
}

struct Machine {
    disk: Disk,
    control: Option<Control>,
    /// It outlives crashes, as if every write were flushed.
    shards: BTreeMap<DatabaseUid, Shard>,
}

pub struct World {
    seed: u64,
    chance: fastrand::Rng,
    net: Net,
    machines: BTreeMap<NodeUid, Machine>,
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
        world.figures.clone()
    }

    fn fail(&self, what: &str) -> ! {
        panic!("seed {}: {what} (SIMULATION_SEED={} runs it again)", self.seed, self.seed)
    }

    /// A cluster of one, two more nodes, and a database with a replica.
    async fn begin(&mut self) {
        let first = NodeUid(1);
        self.machines.insert(first, new_machine());
        self.start(first).await;
        let control = self.control(first).expect("it was just started");
        control
            .change(Change::CreateCluster(Box::new(new_cluster())))
            .await
            .expect("nothing fails yet");
        self.promised.lock().joined.insert(first);
        for _ in 0..2 {
            let outcome = control.change(add_node(self.chance.u32(..))).await;
            let Ok(Outcome::Node(uid)) = outcome else { self.fail("a node could not be added") };
            self.join(uid).await;
        }
        let up = |control: &Control| control.state().nodes.values().all(|it| it.takes_shards());
        for _ in 0..200 {
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

    async fn join(&mut self, uid: NodeUid) {
        self.machines.insert(uid, new_machine());
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
                self.net.up(uid, &control);
                self.machines.get_mut(&uid).expect("it is there").control = Some(control);
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
        for shard in machine.shards.values_mut() {
            shard.synced = false;
        }
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
        let running = self.running();
        let states: BTreeMap<NodeUid, Arc<State>> =
            running.iter().filter_map(|uid| Some((*uid, self.control(*uid)?.state()))).collect();
        let databases: BTreeSet<DatabaseUid> =
            states.values().flat_map(|state| state.databases.keys().copied()).collect();
        for database in databases {
            self.check_one_writer(database, &running);
            self.write(database, &running, &states);
            self.replicate(database, &running, &states);
        }
        for (uid, state) in &states {
            let control = self.control(*uid).expect("it runs");
            let shards = &self.machines[uid].shards;
            let reports = state.databases.values().filter(|it| it.is_on(*uid)).filter_map(|it| {
                let shard = shards.get(&it.uid)?;
                let offset = shard.writes.len() as u64;
                let (epoch, synced) = (shard.epoch, shard.synced);
                Some(ShardReport { database: it.uid, epoch, synced, offset })
            });
            control.report(reports);
            for action in state.awaiting(*uid) {
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
                (shard.epoch, shard.synced) = (epoch, true);
                self.figures.failovers += u64::from(epoch > 1);
            }
            self.next_write += 1;
            shard.writes.push(self.next_write);
            self.figures.writes += 1;
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
            // Only a primary that had its lease in this epoch has something to follow.
            let Some(source) = source.filter(|it| it.synced && it.epoch == placement.epoch) else {
                continue;
            };
            self.confirmed.insert(database, source.writes.clone());
            let machine = self.machines.get_mut(uid).expect("it runs");
            machine.shards.insert(database, source);
        }
    }

    async fn fault(&mut self) {
        let running = self.running();
        let all: Vec<NodeUid> = self.machines.keys().copied().collect();
        let down: Vec<NodeUid> = all.iter().filter(|uid| !running.contains(uid)).copied().collect();
        match self.chance.u8(..16) {
            0..=2 => {
                if let Some(uid) = self.any_of(&running) {
                    self.crash(uid).await;
                }
            }
            3..=6 => {
                if let Some(uid) = self.any_of(&down) {
                    self.start(uid).await;
                }
            }
            7 => {
                // Power returns at once.
                if let Some(uid) = self.any_of(&running) {
                    self.crash(uid).await;
                    self.start(uid).await;
                }
            }
            8..=10 => {
                let cuts = self.some_cuts(&all);
                self.figures.partitions += 1;
                self.net.set_cuts(cuts);
            }
            11 | 12 => self.net.set_cuts(BTreeSet::new()),
            13 => {
                let (loss, delay) = (self.chance.u16(..40), self.chance.u64(1..120));
                self.net.set_weather(loss, delay);
            }
            14 => {
                if let Some(uid) = self.any_of(&all) {
                    let by = self.chance.i64(-100_000_000..100_000_000);
                    self.net.turn_clock(uid, by);
                }
            }
            _ => match self.full.take() {
                Some(uid) => self.machines[&uid].disk.set_full(false),
                None => {
                    self.full = self.any_of(&all);
                    if let Some(uid) = self.full {
                        self.machines[&uid].disk.set_full(true);
                    }
                }
            },
        }
    }

    /// One node away from all others, two halves, one direction, or by pairs.
    fn some_cuts(&mut self, all: &[NodeUid]) -> BTreeSet<(NodeUid, NodeUid)> {
        let kind = self.chance.u8(..4);
        let alone = self.any_of(all);
        let half: BTreeSet<NodeUid> = all.iter().filter(|_| self.chance.bool()).copied().collect();
        let mut cuts = BTreeSet::new();
        for from in all {
            for to in all.iter().filter(|to| *to != from) {
                let cut = match kind {
                    0 => Some(*from) == alone || Some(*to) == alone,
                    1 => half.contains(from) != half.contains(to),
                    2 => Some(*from) == alone,
                    _ => self.chance.u8(..4) == 0,
                };
                if cut {
                    cuts.insert((*from, *to));
                }
            }
        }
        cuts
    }

    /// Somebody asks some node for something.
    fn request(&mut self) {
        let running = self.running();
        let Some(uid) = self.any_of(&running) else { return };
        let control = self.control(uid).expect("it runs");
        let number = self.chance.u32(..);
        let state = control.state();
        let kind = self.chance.u8(..24);
        let placed = state.databases.values().next().map(|it| (it.uid, it.placement.clone()));
        let change = match kind {
            0..=9 => create_user(&format!("user-{number}@cluster.local")),
            10 | 11 => {
                let slow_log_max_len = Some(number % 10_000);
                let patch = PolicyPatch { slow_log_max_len, ..PolicyPatch::default() };
                Change::SetPolicy(Box::new(patch))
            }
            12 | 13 => match placed {
                Some((database, _)) => Change::UpdateDatabase {
                    database,
                    patch: Box::new(
                        DatabasePatch {
                            maxclients: Some(number % 1000),
                            ..DatabasePatch::default()
                        }
                        .into(),
                    ),
                    action: ActionId(format!("update-{number}")),
                },
                None => return,
            },
            14 | 15 => match placed {
                Some((database, placement)) if !placement.replicas.is_empty() => Change::Promote {
                    database,
                    node: placement.replicas[0],
                    epoch: placement.epoch,
                    action: None,
                },
                _ => return,
            },
            16 => {
                if state.databases.len() > 3 {
                    return;
                }
                create_database(&format!("db-{number}"), number.is_multiple_of(2))
            }
            17 | 18 => {
                if self.machines.len() >= 6 || state.nodes.len() >= 5 {
                    return;
                }
                add_node(number)
            }
            19 => {
                let nodes: Vec<NodeUid> = state.nodes.keys().copied().collect();
                if nodes.len() <= 3 {
                    return;
                }
                let Some(node) = self.any_of(&nodes) else { return };
                Change::RemoveNode { node, action: ActionId(format!("remove-{number}")) }
            }
            20 => {
                let nodes: Vec<NodeUid> = state.nodes.keys().copied().collect();
                let Some(node) = self.any_of(&nodes) else { return };
                let on = number.is_multiple_of(2);
                Change::SetMaintenance { node, on, action: ActionId(format!("m-{number}")) }
            }
            _ => {
                let stranger = state.removed_nodes.iter().next().copied().unwrap_or(STRANGER);
                self.intrude(stranger, uid, number);
                return;
            }
        };
        let promised = Arc::clone(&self.promised);
        tokio::spawn(async move {
            let asked = control.change(change.clone()).await;
            let mut promised = promised.lock();
            match asked {
                Ok(outcome) => {
                    promised.acknowledged += 1;
                    match (change, outcome) {
                        (Change::CreateUser(user), _) => {
                            promised.users.insert(user.email);
                        }
                        (Change::AddNode(_), Outcome::Node(uid)) => promised.joining.push(uid),
                        _ => {}
                    }
                }
                Err(crate::ControlError::Refused(_)) => promised.refused += 1,
                Err(_) => promised.unanswered += 1,
            }
        });
    }

    /// Somebody who is no member asks for a change and says that it is alive.
    fn intrude(&self, stranger: NodeUid, to: NodeUid, number: u32) {
        let (net, seed) = (self.net.clone(), self.seed);
        let place = net.environment(stranger);
        tokio::spawn(async move {
            let Ok(mut stream) = place.dial(to, "").await else { return };
            let proposal = crate::raft::Proposal {
                id: (number.into(), 0),
                at: Time(0),
                change: create_user("intruder@cluster.local"),
            };
            if rpc::write(&mut stream, &Request::Change(proposal)).await.is_err() {
                return;
            }
            if let Ok(Some(Response::Change(..))) = rpc::read(&mut stream).await {
                panic!("seed {seed}: a change was taken from node {stranger}, which is no member");
            }
        });
    }

    async fn start_joiners(&mut self) {
        // Also those of whom nobody was told that they were admitted.
        let mut joining = std::mem::take(&mut self.promised.lock().joining);
        joining.extend(self.members());
        for uid in joining {
            if !self.machines.contains_key(&uid) {
                self.join(uid).await;
            }
        }
    }

    /// All faults are over: everything has to be well in time.
    async fn heal(&mut self) {
        self.net.set_cuts(BTreeSet::new());
        self.net.set_weather(0, 5);
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
        same && led && quiet && up && written
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
            println!(
                "node {uid}: leader {:?} revision {} nodes {nodes:?} databases {databases:?} {actions:?}",
                control.leader(),
                state.revision
            );
        }
    }
}

fn new_machine() -> Machine {
    Machine { disk: Disk::default(), control: None, shards: BTreeMap::new() }
}

fn new_cluster() -> CreateCluster {
    CreateCluster {
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        name: "cluster.local".to_owned(),
        node: NodeSettings { addr: "10.0.0.1".to_owned(), ..NodeSettings::default() },
        facts: NodeFacts::default(),
        admin: CreateUser {
            email: "admin@cluster.local".to_owned(),
            password: "hash".to_owned(),
            ..CreateUser::default()
        },
        authority: Authority {
            fingerprint: "first".to_owned(),
            certificate: String::new(),
            key: SealedKey(Vec::new()),
            created: Time(0),
        },
        certificates: BTreeMap::new(),
        policy: PolicyPatch::default(),
    }
}

fn add_node(number: u32) -> Change {
    let settings = NodeSettings { addr: format!("host-{number}"), ..NodeSettings::default() };
    Change::AddNode(Box::new(AddNode { settings, facts: NodeFacts::default(), replace: None }))
}

fn create_user(email: &str) -> Change {
    Change::CreateUser(Box::new(CreateUser {
        email: email.to_owned(),
        password: "hash".to_owned(),
        role: Some(Management::DbViewer),
        ..CreateUser::default()
    }))
}

fn create_database(name: &str, replication: bool) -> Change {
    let patch = DatabasePatch {
        name: Some(name.to_owned()),
        memory_size: Some(0),
        replication: Some(replication),
        ..DatabasePatch::default()
    };
    Change::CreateDatabase {
        spec: Box::new(WirePatch::from(patch)),
        on: None,
        admin_password: String::new(),
        action: ActionId(format!("create-{name}")),
    }
}

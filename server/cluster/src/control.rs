//! The handle through which the rest of the process sees the control plane.

mod answers;
mod beats;
mod failover;
mod joining;
mod membership;
mod quorum;
mod work;

pub(crate) use joining::Signer;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::BasicNode;
use openraft::error::{ClientWriteError, RaftError};
use parking_lot::{Mutex, RwLock};
use rand::RngCore;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::keys::Keys;
use crate::lease::{Deadline, Lease, Leases, Ledger, Look, Writable};
use crate::peers::{Environment, Peers};
use crate::placement::ShardReport;
use crate::raft::{
    Chance, Log, Machine, Network, Proposal, Raft, Reply, Store, StoreError, config, id_of, uid_of,
};
use crate::rpc::{Request, Response};
use crate::signal::Signal;
use crate::state::{
    Change, CreateCluster, DatabaseUid, NodeFacts, NodeStatus, NodeUid, Outcome, Placement,
    Refused, State,
};

/// How long a change may take until nobody counts on it any more.
const CHANGE_TIME: Duration = Duration::from_secs(5);

/// Another primary is named when the one there is has given back its lease.
const PROMOTE_TIME: Duration = Duration::from_secs(10);

/// What a node is asked for that may have another node's earlier certificate on its links.
const RENEW_LINKS: &str = "renew links";

const STORE_FAILED: &str = "it has failed, and is about to be opened again";

/// How long one node is asked before somebody else is.
const ASK_TIME: Duration = Duration::from_secs(2);

/// Cheap to clone; all clones are one. The tasks behind it end with [`Control::close`].
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    environment: Arc<dyn Environment>,
    /// By chance: tells this process from those before it.
    process: u64,
    opener: Opener,
    states: watch::Sender<Arc<State>>,
    engine: RwLock<Engine>,
    /// Which node this is, whether or not it can take part right now; 0: it is in no cluster.
    node: AtomicU64,
    peers: Arc<Peers>,
    leases: Leases,
    ledger: Mutex<Ledger>,
    /// Databases whose primary is being changed by intent.
    planned: Mutex<BTreeSet<DatabaseUid>>,
    reports: Mutex<BTreeMap<DatabaseUid, ShardReport>>,
    facts: Mutex<Option<NodeFacts>>,
    handlers: RwLock<BTreeMap<String, Handler>>,
    signer: Mutex<Option<Signer>>,
    /// For how many looks this node has led nobody.
    without_quorum: Mutex<u32>,
    /// A primary waits for its lease.
    is_eager: AtomicBool,
    last_beat: Mutex<Option<Duration>>,
    /// How far this node has applied the log.
    applied: Arc<Signal<u64>>,
    closed: Arc<Signal<bool>>,
}

type Opener = Box<dyn Fn() -> Result<Arc<Store>, StoreError> + Send + Sync>;

/// Answers what other nodes ask for beside Raft.
pub type Handler = Arc<
    dyn Fn(NodeUid, Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>
        + Send
        + Sync,
>;

/// The store, and Raft if the node is in a cluster.
#[derive(Clone)]
struct Engine {
    /// None while it is being opened anew.
    store: Option<Arc<Store>>,
    member: Option<Member>,
}

#[derive(Clone)]
struct Member {
    node: NodeUid,
    raft: Raft,
    ended: Arc<Signal<bool>>,
}

/// Why a change was not made, or may not have been.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ControlError {
    /// It was not made, and this is the answer.
    #[error(transparent)]
    Refused(#[from] Refused),

    /// No leader that a majority of the voters follows could be reached in time. Whether the change will be made
    /// yet is open: the next state tells.
    #[error("no quorum: most of the voting nodes cannot be reached")]
    NoQuorum,

    /// The store of this node does not take it: the disk is full, or broken.
    #[error("the control plane's store: {0}")]
    Store(String),
}

impl ControlError {
    /// The answer of interfaces.
    pub fn refusal(&self) -> Refused {
        match self {
            Self::Refused(refused) => refused.clone(),
            Self::NoQuorum => Refused::new(503, "no_quorum", self.to_string()),
            Self::Store(_) => Refused::new(500, "internal_error", self.to_string()),
        }
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl Control {
    /// Opens what a node keeps of the control plane in this folder. An empty one is a node without cluster,
    /// until [`Change::CreateCluster`] or [`Control::join`]; else it is a member again at once. To be called
    /// on the runtime that its tasks are to run on. With keys, what is kept is sealed, and this node signs while
    /// it leads.
    pub async fn open(
        folder: &Path,
        environment: Arc<dyn Environment>,
        keys: Option<Arc<Keys>>,
    ) -> io::Result<Self> {
        let path = folder.join("control-plane.redb");
        let own = keys.clone();
        let opener: Opener = Box::new(move || Store::open(&path, own.clone()));
        let control = Self::start(opener, environment).await.map_err(io::Error::other)?;
        if let Some(keys) = keys {
            control.sign_with(Signer::Keys(keys));
        }
        Ok(control)
    }

    pub(crate) async fn start(
        opener: Opener,
        environment: Arc<dyn Environment>,
    ) -> Result<Self, ControlError> {
        let store = opener()?;
        let states = watch::Sender::new(Arc::new(State::default()));
        let peers = Arc::new(Peers::new(Arc::clone(&environment), states.subscribe()));
        let now = environment.steady();
        let control = Self(Arc::new(Inner {
            environment,
            process: Chance.next_u64(),
            opener,
            states,
            engine: RwLock::new(Engine { store: Some(Arc::clone(&store)), member: None }),
            node: AtomicU64::new(0),
            peers,
            leases: Leases::default(),
            ledger: Mutex::new(Ledger::new(0, now)),
            planned: Mutex::default(),
            reports: Mutex::default(),
            facts: Mutex::default(),
            handlers: RwLock::default(),
            signer: Mutex::default(),
            without_quorum: Mutex::new(0),
            is_eager: AtomicBool::new(false),
            last_beat: Mutex::default(),
            applied: Arc::new(Signal::new(0)),
            closed: Arc::new(Signal::new(false)),
        }));
        if let Some(node) = store.read("node")? {
            control.take_part(&store, node).await?;
        }
        control.renew_when_asked();
        control.every(beats::TICK, Self::beat_in_time);
        control.every(failover::TICK, Self::watch_over);
        control.every(membership::TICK, Self::keep_membership);
        control.every(membership::TICK_OF_VOTES, Self::outvote_removed);
        control.every(quorum::TICK, Self::make_room);
        control.every(work::TICK, Self::do_work);
        Ok(control)
    }

    /// Begins to be this node: with what it knows from before, or with nothing, waiting for a leader.
    async fn take_part(&self, store: &Arc<Store>, node: NodeUid) -> Result<Member, ControlError> {
        let (states, applied) = (self.0.states.clone(), Arc::clone(&self.0.applied));
        let machine = Machine::open(Arc::clone(store), states, applied)?;
        let (network, log) = (Network(Arc::clone(&self.0.peers)), Log(Arc::clone(store)));
        let raft = Raft::new(id_of(node), config(), network, log, machine).await;
        let raft = raft.map_err(|error| ControlError::Store(error.to_string()))?;
        store.ended.set(false);
        let member = Member { node, raft, ended: Arc::clone(&store.ended) };
        self.0.peers.begin();
        self.0.node.store(id_of(node), Ordering::SeqCst);
        self.0.engine.write().member = Some(member.clone());
        Ok(member)
    }

    /// The state as far as this node has applied it.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.0.states.borrow())
    }

    /// Tells of each new state; some may be skipped, the last never.
    pub fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.0.states.subscribe()
    }

    /// Which node this is; none before it is in a cluster. It stays that while its store fails, and when this is
    /// closed: who is cut off from its cluster has not left it.
    pub fn node(&self) -> Option<NodeUid> {
        let id = self.0.node.load(Ordering::SeqCst);
        (id != 0).then(|| uid_of(id))
    }

    /// Which node leads, as far as this one knows.
    pub fn leader(&self) -> Option<NodeUid> {
        let member = self.member()?;
        let leader = member.raft.metrics().borrow().current_leader;
        leader.map(uid_of)
    }

    pub fn is_leader(&self) -> bool {
        self.leader().is_some_and(|leader| Some(leader) == self.node())
    }

    /// Whether a majority of the voters has answered the leader lately; only the leader itself knows.
    pub fn has_quorum(&self) -> bool {
        let Some(member) = self.member() else { return false };
        let metrics = member.raft.metrics();
        let metrics = metrics.borrow();
        match metrics.current_leader {
            Some(leader) if leader == metrics.id => {
                metrics.millis_since_quorum_ack.is_none_or(|ms| ms < 2000)
            }
            leader => leader.is_some(),
        }
    }

    /// What Raft says of itself, for whoever looks into a failed simulation.
    #[cfg(test)]
    pub fn describe(&self) -> String {
        self.member().map_or_else(
            || "no member".to_owned(),
            |member| {
                let metrics = member.raft.metrics();
                let metrics = metrics.borrow();
                format!(
                    "{:?} vote {} log {:?} applied {:?} {} {:?} voters {}",
                    metrics.state,
                    metrics.vote,
                    metrics.last_log_index,
                    metrics.last_applied.map(|id| id.index),
                    metrics.running_state.is_ok(),
                    metrics.millis_since_quorum_ack,
                    metrics.membership_config.membership(),
                )
            },
        )
    }

    /// Whether this node, which leads, has heard of another one lately.
    #[cfg(test)]
    pub fn hears(&self, node: NodeUid) -> bool {
        self.0.ledger.lock().silent_for(node, self.steady()) < Duration::from_secs(1)
    }

    /// The time of day, as the control plane sees it.
    pub fn now(&self) -> crate::state::Time {
        self.0.environment.now()
    }

    /// How long the machine runs: leases are measured by it.
    pub fn steady(&self) -> Duration {
        self.0.environment.steady()
    }

    /// The lease of a database that this node is primary of.
    pub fn lease(&self, database: DatabaseUid) -> Option<Lease> {
        self.0.leases.held(database, self.steady())
    }

    /// Until when this node may take writes for a database without asking again: never if it is not the
    /// primary; [`Writable::Alone`] for as long as its state stays what it is, as nobody else could be
    /// made primary.
    pub fn writable(&self, database: DatabaseUid) -> Writable {
        let state = self.state();
        match self.placement(&state, database) {
            Some(placement) => self.0.leases.judge(database, placement, self.steady()),
            None => Writable::No,
        }
    }

    /// The same, and from here on the deadline follows what is granted and taken back.
    pub fn keep(&self, database: DatabaseUid, deadline: &Arc<Deadline>) -> Writable {
        let state = self.state();
        let placement = self.placement(&state, database);
        let writable = self.0.leases.keep(database, placement, deadline, self.steady());
        if placement.is_some() && writable == Writable::No {
            self.0.is_eager.store(true, Ordering::Relaxed);
        }
        writable
    }

    /// Where a database is, if this node is its primary.
    fn placement<'s>(&self, state: &'s State, database: DatabaseUid) -> Option<&'s Placement> {
        let placement = &state.databases.get(&database)?.placement;
        (Some(placement.primary) == self.node()).then_some(placement)
    }

    /// Whether the leader has ever had this process be the primary of a database.
    pub fn was_granted(&self, database: DatabaseUid) -> bool {
        self.0.leases.was_granted(database)
    }

    /// What this node was asked to give back, and when. Whoever reports asks for it first.
    pub fn look(&self) -> Look {
        self.0.leases.look()
    }

    /// What this node's shards are like, told to the leader with each beat. A shard that is not there
    /// any more is left out. `look` is what [`Control::look`] said before they were looked at.
    pub fn report(&self, reports: impl IntoIterator<Item = ShardReport>, look: Look) {
        let reports = reports.into_iter().map(|report| (report.database, report)).collect();
        *self.0.reports.lock() = reports;
        self.0.leases.settle(look);
    }

    /// What this node says of itself; the state has it a moment later.
    pub fn set_facts(&self, facts: NodeFacts) {
        *self.0.facts.lock() = Some(facts);
    }

    /// Has what goes between this node and others go over new links, as it shows another certificate on them. Links
    /// that others have made end when this node ends them; they have made new ones before that, if they could.
    pub async fn renew_links(&self) {
        let state = self.state();
        let others = state
            .nodes
            .values()
            .filter(|node| Some(node.uid) != self.node() && node.status != NodeStatus::Down);
        let asked: Vec<_> = others
            .map(|node| {
                let (control, node) = (self.clone(), node.uid);
                tokio::spawn(
                    async move { control.ask(node, RENEW_LINKS, Vec::new(), ASK_TIME).await },
                )
            })
            .collect();
        self.0.peers.renew(None).await;
        for asked in asked {
            if let Ok(Err(reason)) = asked.await {
                tracing::debug!("another node was not asked to make its links anew: {reason}");
            }
        }
    }

    /// Makes links to another node anew when that has a new certificate.
    fn renew_when_asked(&self) {
        let control = self.clone().weak();
        self.answer(
            RENEW_LINKS,
            Arc::new(move |peer, _| {
                let control = control.upgrade();
                Box::pin(async move {
                    if let Some(control) = control {
                        control.0.peers.renew(Some(peer)).await;
                    }
                    Ok(Vec::new())
                })
            }),
        );
    }

    /// Says who answers requests of a kind from other nodes.
    pub fn answer(&self, kind: &str, handler: Handler) {
        self.0.handlers.write().insert(kind.to_owned(), handler);
    }

    /// Asks another node, or this one, for what was registered there with [`Control::answer`].
    pub async fn ask(
        &self,
        node: NodeUid,
        kind: &str,
        body: Vec<u8>,
        time: Duration,
    ) -> Result<Vec<u8>, String> {
        if Some(node) == self.node() {
            return self.handle(node, kind, body).await;
        }
        let request = Request::Other { kind: kind.to_owned(), body };
        match self.0.peers.call(node, "", &request, time).await {
            Ok(Response::Other(answer)) => answer,
            Ok(Response::Unwelcome) => Err("it does not take this node for a member".to_owned()),
            Ok(_) => Err("it answered something else".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Asks for a change and waits until it is made, and seen by [`Control::state`] of this node.
    pub async fn change(&self, change: Change) -> Result<Outcome, ControlError> {
        if let Change::CreateCluster(new) = change {
            return self.create(new).await;
        }
        let Some(member) = self.member() else {
            return Err(Refused::new(503, "not_bootstrapped", "there is no cluster yet").into());
        };
        let promotes = matches!(change, Change::Promote { .. });
        let time = if promotes { PROMOTE_TIME } else { CHANGE_TIME };
        let deadline = Instant::now() + time;
        let id = (Chance.next_u64(), Chance.next_u64());
        let proposal = Proposal { id, at: self.0.environment.now(), change };
        let mut broken = None;
        while Instant::now() < deadline {
            let left = deadline - Instant::now();
            let ask = if promotes { left } else { left.min(ASK_TIME) };
            match self.propose(&member, &proposal, ask).await {
                Asked::Reply(reply, index) => {
                    self.catch_up(index).await;
                    let result = reply.0.unwrap_or(Ok(Outcome::Done));
                    return Ok(result?);
                }
                Asked::Elsewhere => broken = None,
                Asked::Failed(error) => broken = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(broken.map_or(ControlError::NoQuorum, ControlError::Store))
    }

    /// Asks whoever leads once.
    async fn propose(&self, member: &Member, proposal: &Proposal, time: Duration) -> Asked {
        let (leader, address) = match member.leader() {
            Ok(Some(leader)) => leader,
            Ok(None) => return Asked::Elsewhere,
            Err(error) => return Asked::Failed(error),
        };
        if leader == member.node {
            if self.leading().is_none() {
                return Asked::Elsewhere;
            }
            let led = tokio::time::timeout(time, self.lead(member, proposal.clone()));
            return led.await.unwrap_or(Asked::Elsewhere);
        }
        let request = Request::Change(proposal.clone());
        match self.0.peers.call(leader, &address, &request, time).await {
            Ok(Response::Change(reply, index)) => Asked::Reply(reply, index),
            _ => Asked::Elsewhere,
        }
    }

    /// Puts a proposal into the log, as the leader.
    async fn lead(&self, member: &Member, mut proposal: Proposal) -> Asked {
        let way = match &mut proposal.change {
            Change::Promote { database, node, epoch, holder, .. } => {
                match self.make_way(member, *database, *node, *epoch).await {
                    Ok(way) => {
                        *holder = way.holder;
                        Some(way)
                    }
                    Err(refused) => return Asked::Reply(Reply(Some(Err(refused))), 0),
                }
            }
            // It is there, whatever the state says of it yet.
            Change::AddNode(new) if new.replace == Some(member.node) => {
                let description = format!("node {} is not down", member.node);
                let refused = Refused::invalid("node_not_offline", description);
                return Asked::Reply(Reply(Some(Err(refused))), 0);
            }
            _ => None,
        };
        proposal.at = self.0.environment.now();
        let written = member.answered(member.raft.client_write(proposal)).await;
        let Some(written) = written else { return Asked::Failed(STORE_FAILED.to_owned()) };
        let asked = match written {
            Ok(written) => Asked::Reply(written.data, written.log_id.index),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Asked::Elsewhere,
            Err(error) => Asked::Failed(error.to_string()),
        };
        if let Some(way) = way {
            way.end(matches!(&asked, Asked::Reply(Reply(Some(Ok(_))), _)));
        }
        asked
    }

    /// Waits until this node has applied an entry that was committed.
    async fn catch_up(&self, index: u64) {
        let applied = self.0.applied.wait_for(|applied| index <= applied);
        // A node that is cut off right now answers from what it has.
        let _ = tokio::time::timeout(Duration::from_secs(1), applied).await;
    }

    async fn create(&self, new: Box<CreateCluster>) -> Result<Outcome, ControlError> {
        // What would be refused is refused before anything is begun.
        let change = Change::CreateCluster(new);
        let mut state = State::clone(&self.state());
        state.apply(change.clone(), self.0.environment.now())?;
        let first = state.nodes.values().next().map(|node| (node.uid, node.internode_address()));
        let (node, address) = first.expect("a cluster has the node that made it");

        let member = match self.member() {
            Some(member) if member.node == node => member,
            Some(_) => return Err(Refused::conflict("busy", "this node is joining").into()),
            None => {
                let store = self.store()?;
                store.write("node", &node)?;
                self.take_part(&store, node).await?
            }
        };
        let broken = |error: &dyn std::fmt::Display| ControlError::Store(error.to_string());
        if !member.raft.is_initialized().await.map_err(|error| broken(&error))? {
            let members = BTreeMap::from([(id_of(node), BasicNode { addr: address })]);
            member.raft.initialize(members).await.map_err(|error| broken(&error))?;
        }
        let mut metrics = member.raft.metrics();
        let leads = metrics.wait_for(|metrics| metrics.current_leader == Some(metrics.id));
        let led = matches!(tokio::time::timeout(CHANGE_TIME, leads).await, Ok(Ok(_)));
        if !led {
            return Err(ControlError::NoQuorum);
        }
        let proposal = Proposal {
            id: (Chance.next_u64(), Chance.next_u64()),
            at: self.0.environment.now(),
            change,
        };
        match self.lead(&member, proposal).await {
            Asked::Reply(Reply(Some(reply)), _) => Ok(reply?),
            Asked::Failed(error) => Err(ControlError::Store(error)),
            _ => Err(ControlError::NoQuorum),
        }
    }

    /// Begins to be the node that the cluster has admitted under this uid; the leader will get in touch.
    pub async fn join(&self, node: NodeUid) -> Result<(), ControlError> {
        if self.node().is_some() {
            return Err(Refused::conflict("cluster_exists", "this node is in a cluster").into());
        }
        let store = self.store()?;
        store.write("node", &node)?;
        self.take_part(&store, node).await?;
        Ok(())
    }

    /// Forgets the cluster that this node was in: it was removed, or could not join after all.
    pub async fn leave(&self) -> Result<(), ControlError> {
        let member = self.0.engine.write().member.take();
        if let Some(member) = member {
            member.end().await;
        }
        self.store()?.clear()?;
        self.0.node.store(0, Ordering::SeqCst);
        *self.0.ledger.lock() = Ledger::new(0, self.steady());
        self.0.leases.clear();
        self.0.applied.set(0);
        self.0.states.send_replace(Arc::default());
        Ok(())
    }

    /// Ends Raft and all tasks. What was acknowledged is on the disk.
    pub async fn close(&self) {
        self.0.closed.set(true);
        let engine = {
            let mut engine = self.0.engine.write();
            std::mem::replace(&mut *engine, Engine { store: None, member: None })
        };
        if let Some(member) = engine.member {
            member.end().await;
        }
    }

    /// A handle that does not keep the control plane running.
    fn weak(self) -> Weak {
        Weak(Arc::downgrade(&self.0))
    }

    fn member(&self) -> Option<Member> {
        self.0.engine.read().member.clone()
    }

    fn store(&self) -> Result<Arc<Store>, ControlError> {
        let closed = || ControlError::Store("it is closed".to_owned());
        self.0.engine.read().store.clone().ok_or_else(closed)
    }

    /// This node, if it leads and is to go on.
    fn leading(&self) -> Option<(Member, u64)> {
        let member = self.member()?;
        let metrics = member.raft.metrics();
        let term = {
            let metrics = metrics.borrow();
            let leads =
                metrics.running_state.is_ok() && quorum::leads(&metrics) && !member.ended.now();
            leads.then_some(metrics.current_term)?
        };
        Some((member, term))
    }

    /// Does something again and again, one after another, until the handle is closed or gone.
    fn every<F>(&self, pause: Duration, work: impl Fn(Self) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let inner = Arc::downgrade(&self.0);
        let closed = Arc::clone(&self.0.closed);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = closed.wait_for(|closed| closed) => return,
                    () = tokio::time::sleep(pause) => {}
                }
                let Some(inner) = inner.upgrade() else { return };
                work(Self(inner)).await;
            }
        });
    }

    /// A change by the leader itself, without retries: it looks again at the next turn.
    async fn decide(&self, member: &Member, change: Change) -> Option<Result<Outcome, Refused>> {
        let id = (Chance.next_u64(), Chance.next_u64());
        let proposal = Proposal { id, at: self.0.environment.now(), change };
        let written = member.answered(member.raft.client_write(proposal));
        match tokio::time::timeout(Duration::from_secs(1), written).await {
            Ok(Some(Ok(written))) => written.data.0,
            _ => None,
        }
    }
}

struct Weak(std::sync::Weak<Inner>);

impl Weak {
    fn upgrade(&self) -> Option<Control> {
        self.0.upgrade().map(Control)
    }
}

impl Member {
    /// What Raft answers; none if it has ended, or is about to.
    async fn answered<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.ended.wait_for(|ended| ended) => None,
            answer = answer => Some(answer),
        }
    }

    async fn end(&self) {
        self.ended.set(true);
        let _ = self.raft.shutdown().await;
    }

    /// Whether a node votes, by Raft's membership as this node knows it.
    fn votes(&self, node: NodeUid) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().voter_ids().any(|id| id == id_of(node))
    }

    /// Who leads, and where it is by Raft's membership; an error if Raft has ended.
    fn leader(&self) -> Result<Option<(NodeUid, String)>, String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if let Err(error) = &metrics.running_state {
            return Err(error.to_string());
        }
        if self.ended.now() {
            return Err(STORE_FAILED.to_owned());
        }
        Ok(metrics.current_leader.map(|leader| {
            let node = metrics.membership_config.membership().get_node(&leader);
            (uid_of(leader), node.map_or_else(String::new, |node| node.addr.clone()))
        }))
    }
}

enum Asked {
    /// With the index of its entry.
    Reply(Reply, u64),
    /// Somebody else may lead, or nobody does.
    Elsewhere,
    Failed(String),
}

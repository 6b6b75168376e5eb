//! A network between nodes: streams that are slow, stall while their ends are parted, and break. Each end of a
//! stream has shown a certificate and has judged the other's ([`links`](super::links)).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use carnelian_tls::internode::Plane;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::certificates::{Leaf, Papers};
use super::links::{End, LinkId, Links};
use super::trace;
use crate::control::Control;
use crate::peers::{Dialing, Environment};
use crate::rpc::Stream;
use crate::state::{NodeUid, Time};

#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    began: Instant,
    state: Mutex<NetState>,
    /// Tells streams to look again at whether they may go on.
    changed: Notify,
}

pub struct NetState {
    pub began: Instant,
    chance: fastrand::Rng,
    /// Running nodes, and how often they were started.
    nodes: BTreeMap<NodeUid, (u64, Control)>,
    pub lives: BTreeMap<NodeUid, u64>,
    /// From whom to whom nothing gets through.
    cuts: BTreeSet<(NodeUid, NodeUid)>,
    /// How often in 1000 a piece of a stream breaks it.
    loss: u16,
    delay_max_ms: u64,
    /// How much later it is than steady clocks say: days go by in an instant.
    calendar_ms: i64,
    clocks: BTreeMap<NodeUid, i64>,
    /// How fast clocks run, in thousandths.
    rates: BTreeMap<NodeUid, u32>,
    pub papers: BTreeMap<NodeUid, Papers>,
    pub links: Links,
}

/// The time of day when a simulation begins.
const BEGIN: i64 = 1_800_000_000_000;

impl NetState {
    /// By the clock of a node.
    pub fn now(&self, node: NodeUid) -> Time {
        let turned = self.clocks.get(&node).copied().unwrap_or(0);
        Time((BEGIN + self.passed_ms() + turned).max(0) as u64)
    }

    fn passed_ms(&self) -> i64 {
        self.began.elapsed().as_millis() as i64 + self.calendar_ms
    }

    pub fn is_life(&self, node: NodeUid, life: u64) -> bool {
        self.lives.get(&node) == Some(&life)
    }
}

impl Net {
    pub fn new(seed: u64) -> Self {
        let began = Instant::now();
        Self(Arc::new(Inner {
            began,
            state: Mutex::new(NetState {
                began,
                chance: fastrand::Rng::with_seed(seed),
                nodes: BTreeMap::new(),
                lives: BTreeMap::new(),
                cuts: BTreeSet::new(),
                loss: 0,
                delay_max_ms: 5,
                calendar_ms: 0,
                clocks: BTreeMap::new(),
                rates: BTreeMap::new(),
                papers: BTreeMap::new(),
                links: Links::default(),
            }),
            changed: Notify::new(),
        }))
    }

    pub fn state(&self) -> MutexGuard<'_, NetState> {
        self.0.state.lock()
    }

    /// Streams look again at whether they may go on.
    pub fn tell(&self) {
        self.0.changed.notify_waiters();
    }

    /// The world as the next life of a node sees it.
    pub fn environment(&self, node: NodeUid) -> Arc<dyn Environment> {
        let mut state = self.state();
        let life = state.lives.entry(node).or_insert(0);
        *life += 1;
        let place = Place { net: self.clone(), node, life: *life };
        Arc::new(place)
    }

    pub fn up(&self, node: NodeUid, control: &Control) {
        let mut state = self.state();
        let life = state.lives.get(&node).copied().unwrap_or(0);
        state.nodes.insert(node, (life, control.clone()));
    }

    pub fn down(&self, node: NodeUid) {
        let mut state = self.state();
        state.nodes.remove(&node);
        *state.lives.entry(node).or_insert(0) += 1;
        drop(state);
        self.tell();
    }

    pub fn life(&self, node: NodeUid) -> u64 {
        self.state().lives.get(&node).copied().unwrap_or(0)
    }

    pub fn set_cuts(&self, cuts: BTreeSet<(NodeUid, NodeUid)>) {
        self.state().cuts = cuts;
        self.tell();
    }

    pub fn set_weather(&self, loss: u16, delay_max_ms: u64) {
        let mut state = self.state();
        (state.loss, state.delay_max_ms) = (loss, delay_max_ms);
    }

    pub fn turn_clock(&self, node: NodeUid, by_ms: i64) {
        self.state().clocks.insert(node, by_ms);
    }

    /// All clocks are right again.
    pub fn right_clocks(&self) {
        self.state().clocks.clear();
    }

    /// What a clock says that was never turned.
    pub fn true_time(&self) -> Time {
        Time((BEGIN + self.state().passed_ms()) as u64)
    }

    /// As many milliseconds go by for everybody, in which nothing happens.
    pub fn leap(&self, by_ms: i64) {
        self.state().calendar_ms += by_ms;
    }

    /// A machine whose clock runs slow or fast, by up to a twenty-fifth.
    pub fn set_rate(&self, node: NodeUid, thousandths: u32) {
        self.state().rates.insert(node, thousandths);
    }

    pub fn connected(&self, one: NodeUid, other: NodeUid) -> bool {
        let state = self.state();
        !state.cuts.contains(&(one, other)) && !state.cuts.contains(&(other, one))
    }

    fn delay(&self) -> Duration {
        let mut state = self.state();
        let max = state.delay_max_ms;
        Duration::from_micros(state.chance.u64(50..=max * 1000))
    }

    fn breaks(&self) -> bool {
        let mut state = self.state();
        let loss = state.loss;
        state.chance.u16(..1000) < loss
    }

    /// Waits until something gets through; false if an end is gone, or the link was ended.
    async fn pass(&self, from: (NodeUid, u64), to: (NodeUid, u64), link: Option<LinkId>) -> bool {
        loop {
            let changed = self.0.changed.notified();
            {
                let state = self.state();
                let is_live = link.is_none_or(|link| state.links.has(link));
                if !is_live || !state.is_life(from.0, from.1) || !state.is_life(to.0, to.1) {
                    return false;
                }
                if !state.cuts.contains(&(from.0, to.0)) {
                    return true;
                }
            }
            changed.await;
        }
    }

    async fn carry(
        self,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
        ends: ((NodeUid, u64), (NodeUid, u64)),
        link: LinkId,
    ) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let changed = pin!(self.0.changed.notified());
            if !self.state().links.has(link) {
                break;
            }
            let read = tokio::select! {
                biased;
                read = from.read(&mut buffer) => read,
                () = changed => continue,
            };
            let Ok(length @ 1..) = read else { break };
            tokio::time::sleep(self.delay()).await;
            if self.breaks() || !self.pass(ends.0, ends.1, Some(link)).await {
                break;
            }
            let sum = trace::hash(&buffer[..length]);
            trace::note(format_args!("{ends:?} {length} bytes {sum:x}"));
            if to.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
        if self.state().links.end(link) {
            self.tell();
        }
    }

    /// Until the link is to be made anew, or has ended.
    async fn outdated(self, link: LinkId) {
        loop {
            let changed = self.0.changed.notified();
            if self.state().links.is_outdated(link) {
                return;
            }
            changed.await;
        }
    }

    /// A stream from a node, or from somebody who has got hold of a node's certificate and its key, and does not
    /// care whom it speaks with.
    pub async fn connect(
        &self,
        from: (NodeUid, u64),
        to: NodeUid,
        stolen: Option<Leaf>,
    ) -> io::Result<Box<dyn Stream>> {
        tokio::time::sleep(self.delay()).await;
        let found = self.state().nodes.get(&to).cloned();
        let Some((life, control)) = found else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let there = (to, life);
        let is_through = !self.breaks()
            && self.pass(from, there, None).await
            && self.pass(there, from, None).await;
        if !is_through {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let (near, far) = (End::new(from), End::new(there));
        let linked = self.state().handshake(Plane::Control, near, far, stolen);
        trace::note(format_args!("from {from:?} to {there:?}: {linked:?}"));
        let (link, peer) = linked.map_err(io::Error::other)?;
        let (near, near_wire) = tokio::io::duplex(64 << 10);
        let (far_wire, far) = tokio::io::duplex(64 << 10);
        let (near_read, near_write) = tokio::io::split(near_wire);
        let (far_read, far_write) = tokio::io::split(far_wire);
        tokio::spawn(self.clone().carry(near_read, far_write, (from, there), link));
        tokio::spawn(self.clone().carry(far_read, near_write, (there, from), link));
        let is_outdated = self.clone().outdated(link);
        tokio::spawn(async move { control.serve(far, peer, is_outdated).await });
        Ok(Box::new(near))
    }
}

/// A node's place in it.
struct Place {
    net: Net,
    node: NodeUid,
    life: u64,
}

impl Environment for Place {
    fn now(&self) -> Time {
        self.net.state().now(self.node)
    }

    fn steady(&self) -> Duration {
        let rate = self.net.state().rates.get(&self.node).copied().unwrap_or(1000);
        self.net.0.began.elapsed() * rate / 1000
    }

    fn dial(&self, node: NodeUid, _address: &str) -> Dialing {
        let (net, from) = (self.net.clone(), (self.node, self.life));
        Box::pin(async move { net.connect(from, node, None).await })
    }
}

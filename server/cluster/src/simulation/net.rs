//! A network between nodes: streams that are slow, stall while their ends are parted, and break.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;

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

struct NetState {
    chance: fastrand::Rng,
    /// Running nodes, and how often they were started.
    nodes: BTreeMap<NodeUid, (u64, Control)>,
    lives: BTreeMap<NodeUid, u64>,
    /// From whom to whom nothing gets through.
    cuts: BTreeSet<(NodeUid, NodeUid)>,
    /// How often in 1000 a piece of a stream breaks it.
    loss: u16,
    delay_max_ms: u64,
    clocks: BTreeMap<NodeUid, i64>,
    /// How fast clocks run, in thousandths.
    rates: BTreeMap<NodeUid, u32>,
}

/// The time of day when a simulation begins.
const BEGIN: i64 = 1_800_000_000_000;

impl Net {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            state: Mutex::new(NetState {
                chance: fastrand::Rng::with_seed(seed),
                nodes: BTreeMap::new(),
                lives: BTreeMap::new(),
                cuts: BTreeSet::new(),
                loss: 0,
                delay_max_ms: 5,
                clocks: BTreeMap::new(),
                rates: BTreeMap::new(),
            }),
            changed: Notify::new(),
        }))
    }

    /// The world as the next life of a node sees it.
    pub fn environment(&self, node: NodeUid) -> Arc<dyn Environment> {
        let mut state = self.0.state.lock();
        let life = state.lives.entry(node).or_insert(0);
        *life += 1;
        Arc::new(Place { net: self.clone(), node, life: *life })
    }

    pub fn up(&self, node: NodeUid, control: &Control) {
        let mut state = self.0.state.lock();
        let life = state.lives.get(&node).copied().unwrap_or(0);
        state.nodes.insert(node, (life, control.clone()));
    }

    pub fn down(&self, node: NodeUid) {
        let mut state = self.0.state.lock();
        state.nodes.remove(&node);
        *state.lives.entry(node).or_insert(0) += 1;
        drop(state);
        self.0.changed.notify_waiters();
    }

    pub fn set_cuts(&self, cuts: BTreeSet<(NodeUid, NodeUid)>) {
        self.0.state.lock().cuts = cuts;
        self.0.changed.notify_waiters();
    }

    pub fn set_weather(&self, loss: u16, delay_max_ms: u64) {
        let mut state = self.0.state.lock();
        (state.loss, state.delay_max_ms) = (loss, delay_max_ms);
    }

    pub fn turn_clock(&self, node: NodeUid, by_ms: i64) {
        self.0.state.lock().clocks.insert(node, by_ms);
    }

    /// A machine whose clock runs slow or fast, by up to a twenty-fifth.
    pub fn set_rate(&self, node: NodeUid, thousandths: u32) {
        self.0.state.lock().rates.insert(node, thousandths);
    }

    pub fn connected(&self, one: NodeUid, other: NodeUid) -> bool {
        let state = self.0.state.lock();
        !state.cuts.contains(&(one, other)) && !state.cuts.contains(&(other, one))
    }

    fn delay(&self) -> Duration {
        let mut state = self.0.state.lock();
        let max = state.delay_max_ms;
        Duration::from_micros(state.chance.u64(50..=max * 1000))
    }

    fn breaks(&self) -> bool {
        let mut state = self.0.state.lock();
        let loss = state.loss;
        state.chance.u16(..1000) < loss
    }

    fn lives(&self, node: NodeUid, life: u64) -> bool {
        self.0.state.lock().lives.get(&node) == Some(&life)
    }

    /// Waits until something gets through; false if an end is gone.
    async fn pass(&self, from: (NodeUid, u64), to: (NodeUid, u64)) -> bool {
        loop {
            let changed = self.0.changed.notified();
            if !self.lives(from.0, from.1) || !self.lives(to.0, to.1) {
                return false;
            }
            if !self.0.state.lock().cuts.contains(&(from.0, to.0)) {
                return true;
            }
            changed.await;
        }
    }

    async fn carry(
        self,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
        ends: ((NodeUid, u64), (NodeUid, u64)),
    ) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            tokio::time::sleep(self.delay()).await;
            if self.breaks() || !self.pass(ends.0, ends.1).await {
                return;
            }
            let sum = trace::hash(&buffer[..length]);
            trace::note(format_args!("{ends:?} {length} bytes {sum:x}"));
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    /// A stream from a node, or from somebody who claims to be one.
    pub async fn connect(&self, from: (NodeUid, u64), to: NodeUid) -> io::Result<Box<dyn Stream>> {
        tokio::time::sleep(self.delay()).await;
        let found = self.0.state.lock().nodes.get(&to).cloned();
        let Some((life, control)) = found else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let there = (to, life);
        if self.breaks() || !self.pass(from, there).await || !self.pass(there, from).await {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        trace::note(format_args!("{from:?} has a stream to {there:?}"));
        let (near, near_wire) = tokio::io::duplex(64 << 10);
        let (far_wire, far) = tokio::io::duplex(64 << 10);
        let (near_read, near_write) = tokio::io::split(near_wire);
        let (far_read, far_write) = tokio::io::split(far_wire);
        tokio::spawn(self.clone().carry(near_read, far_write, (from, there)));
        tokio::spawn(self.clone().carry(far_read, near_write, (there, from)));
        tokio::spawn(async move { control.serve(far, from.0, std::future::pending()).await });
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
        let passed = self.net.0.began.elapsed().as_millis() as i64;
        let turned = self.net.0.state.lock().clocks.get(&self.node).copied().unwrap_or(0);
        Time((BEGIN + passed + turned).max(0) as u64)
    }

    fn steady(&self) -> Duration {
        let rate = self.net.0.state.lock().rates.get(&self.node).copied().unwrap_or(1000);
        self.net.0.began.elapsed() * rate / 1000
    }

    fn dial(&self, node: NodeUid, _address: &str) -> Dialing {
        let (net, from) = (self.net.clone(), (self.node, self.life));
        Box::pin(async move { net.connect(from, node).await })
    }
}

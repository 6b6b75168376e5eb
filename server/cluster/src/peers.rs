//! Streams to the other nodes: dialled when needed, kept while idle, dropped after any failure.
//!
//! A stream is there before the one it replaces goes, and one that was dialled too late for whoever asked is kept for
//! the next: a handshake takes longer than heartbeats may, on a machine that is busy.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::rpc::{self, Request, Response, Stream};
use crate::state::{NodeUid, State, Time};

/// How many idle streams are kept to a node.
const IDLE_MAX: usize = 4;

/// How many are dialled at a time, and for how long.
const DIALS_MAX: usize = 4;
const DIAL_TIME: Duration = Duration::from_secs(1);

/// Between two looks at whether one has come.
const LOOK: Duration = Duration::from_millis(5);

pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// What the control plane needs of the world.
pub trait Environment: Send + Sync + 'static {
    /// The time of day. It may jump; nothing but what is shown, and the life of certificates, hangs on it.
    fn now(&self) -> Time;

    /// A stream of the control plane to a node, whose identity has been checked, at `host:port`.
    fn dial(&self, node: NodeUid, address: &str) -> Dialing;
}

pub struct Peers {
    environment: Arc<dyn Environment>,
    states: watch::Receiver<Arc<State>>,
    pools: Mutex<BTreeMap<NodeUid, Pool>>,
}

/// The streams to one node.
#[derive(Default)]
struct Pool {
    /// Each with the generation that it was dialled in.
    idle: Vec<(u64, Box<dyn Stream>)>,
    dials: usize,
    /// Grows with each renewal. Earlier streams go as soon as there is one of now.
    generation: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("it cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("it did not answer in time")]
    Timeout,
    #[error("the stream broke: {0}")]
    Broken(io::Error),
    #[error("it answered something else")]
    Protocol,
}

impl Peers {
    pub fn new(environment: Arc<dyn Environment>, states: watch::Receiver<Arc<State>>) -> Self {
        Self { environment, states, pools: Mutex::default() }
    }

    /// Asks a node and waits for its answer. `fallback` is its address if the state has none.
    pub async fn call(
        self: &Arc<Self>,
        node: NodeUid,
        fallback: &str,
        request: &Request,
        time: Duration,
    ) -> Result<Response, CallError> {
        let call = self.call_untimed(node, fallback, request);
        tokio::time::timeout(time, call).await.unwrap_or_else(|_| {
            // Whatever is idle would hang as well.
            self.forget(node);
            Err(CallError::Timeout)
        })
    }

    async fn call_untimed(
        self: &Arc<Self>,
        node: NodeUid,
        fallback: &str,
        request: &Request,
    ) -> Result<Response, CallError> {
        // An idle stream may have ended long ago: that says nothing of the node. All requests may come twice.
        while let Some((generation, mut stream)) = self.take(node) {
            if let Ok(Some(answer)) = exchange(&mut stream, request).await {
                self.keep(node, generation, stream);
                return Ok(answer);
            }
        }
        let (generation, mut stream) = self.dialled(node, fallback).await?;
        match exchange(&mut stream, request).await {
            Ok(Some(answer)) => {
                self.keep(node, generation, stream);
                Ok(answer)
            }
            Ok(None) => Err(CallError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(CallError::Broken(error)),
        }
    }

    /// Ends the idle streams to a node.
    pub fn forget(&self, node: NodeUid) {
        if let Some(pool) = self.pools.lock().get_mut(&node) {
            pool.idle.clear();
        }
    }

    /// Has other streams take the place of those that there are, to this node or all: they are dialled first, and
    /// the others end when they are there, or cannot be had. Returns when that is so.
    pub async fn renew(self: &Arc<Self>, only: Option<NodeUid>) {
        let nodes: Vec<(NodeUid, u64)> = {
            let mut pools = self.pools.lock();
            let wanted = pools.iter_mut().filter(|(node, _)| only.is_none_or(|it| it == **node));
            wanted
                .map(|(node, pool)| {
                    pool.generation += 1;
                    (*node, pool.generation)
                })
                .collect()
        };
        let begun: Vec<_> = nodes
            .into_iter()
            .map(|(node, generation)| (node, generation, self.dial(node, "", generation)))
            .collect();
        for (node, generation, dialled) in begun {
            match dialled.await {
                Ok(Ok(stream)) => self.keep(node, generation, stream),
                _ => self.forget(node),
            }
        }
    }

    /// A new stream: the one that this call has dialled, or that another one needs no more.
    async fn dialled(
        self: &Arc<Self>,
        node: NodeUid,
        fallback: &str,
    ) -> Result<(u64, Box<dyn Stream>), CallError> {
        let gone = || io::Error::from(io::ErrorKind::ConnectionAborted);
        loop {
            let (dials, generation) = {
                let mut pools = self.pools.lock();
                let pool = pools.entry(node).or_default();
                (pool.dials, pool.generation)
            };
            if dials < DIALS_MAX {
                let dialled = self.dial(node, fallback, generation).await;
                let dialled = dialled.unwrap_or_else(|_| Err(gone()));
                return dialled.map(|stream| (generation, stream)).map_err(CallError::Unreachable);
            }
            tokio::time::sleep(LOOK).await;
            if let Some(taken) = self.take(node) {
                return Ok(taken);
            }
        }
    }

    /// Dials, whether or not somebody waits until it is done.
    fn dial(
        self: &Arc<Self>,
        node: NodeUid,
        fallback: &str,
        generation: u64,
    ) -> oneshot::Receiver<io::Result<Box<dyn Stream>>> {
        let (sender, receiver) = oneshot::channel();
        let address = self.address(node).unwrap_or_else(|| fallback.to_owned());
        let peers = Arc::clone(self);
        self.pools.lock().entry(node).or_default().dials += 1;
        tokio::spawn(async move {
            let dialing = peers.environment.dial(node, &address);
            let dialled = tokio::time::timeout(DIAL_TIME, dialing).await;
            let dialled = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            peers.pools.lock().entry(node).or_default().dials -= 1;
            if let Err(Ok(stream)) = sender.send(dialled) {
                peers.keep(node, generation, stream);
            }
        });
        receiver
    }

    /// The newest that is idle.
    fn take(&self, node: NodeUid) -> Option<(u64, Box<dyn Stream>)> {
        let mut pools = self.pools.lock();
        let idle = &mut pools.get_mut(&node)?.idle;
        let (place, _) = idle.iter().enumerate().max_by_key(|(_, (generation, _))| *generation)?;
        Some(idle.swap_remove(place))
    }

    fn keep(&self, node: NodeUid, generation: u64, stream: Box<dyn Stream>) {
        let mut pools = self.pools.lock();
        let pool = pools.entry(node).or_default();
        let now = pool.generation;
        if generation == now {
            pool.idle.retain(|(generation, _)| *generation == now);
        }
        let is_replaced = generation != now && pool.idle.iter().any(|(it, _)| *it == now);
        if !is_replaced && pool.idle.len() < IDLE_MAX {
            pool.idle.push((generation, stream));
        }
    }

    fn address(&self, node: NodeUid) -> Option<String> {
        self.states.borrow().nodes.get(&node).map(crate::state::Node::internode_address)
    }
}

async fn exchange(stream: &mut Box<dyn Stream>, request: &Request) -> io::Result<Option<Response>> {
    rpc::write(stream, request).await?;
    rpc::read(stream).await
}

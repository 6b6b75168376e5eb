//! Streams to the other nodes: dialled when needed, kept while idle, dropped after any failure.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::rpc::{self, Request, Response, Stream};
use crate::state::{NodeUid, State, Time};

/// How many idle streams are kept to a node.
const IDLE_MAX: usize = 4;

pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// What the control plane needs of the world.
pub trait Environment: Send + Sync + 'static {
    /// The time of day. It may jump; nothing but what is shown, and the life of certificates, hangs on it.
    fn now(&self) -> Time;

    /// How long the machine runs, also while it slept: what leases are measured by. It never goes back, and
    /// runs at most a twentieth too fast or too slow.
    fn steady(&self) -> Duration;

    /// A stream of the control plane to a node, whose identity has been checked, at `host:port`.
    fn dial(&self, node: NodeUid, address: &str) -> Dialing;
}

pub struct Peers {
    environment: Arc<dyn Environment>,
    states: watch::Receiver<Arc<State>>,
    idle: Mutex<BTreeMap<NodeUid, Vec<Box<dyn Stream>>>>,
    /// A member has said that this node is none any longer.
    is_removed: AtomicBool,
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
        Self { environment, states, idle: Mutex::default(), is_removed: AtomicBool::new(false) }
    }

    /// Asks a node and waits for its answer. `fallback` is its address if the state has none.
    pub async fn call(
        &self,
        node: NodeUid,
        fallback: &str,
        request: &Request,
        time: Duration,
    ) -> Result<Response, CallError> {
        let call = self.call_untimed(node, fallback, request);
        let answer = tokio::time::timeout(time, call).await.unwrap_or_else(|_| {
            // Whatever is idle would hang as well.
            self.forget(node);
            Err(CallError::Timeout)
        });
        if matches!(answer, Ok(Response::Removed)) {
            self.is_removed.store(true, Ordering::Relaxed);
            return Ok(Response::Unwelcome);
        }
        answer
    }

    /// Whether this node was removed from its cluster, as others say.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Relaxed)
    }

    /// It is about to be a node of a cluster anew.
    pub fn begin(&self) {
        self.is_removed.store(false, Ordering::Relaxed);
    }

    async fn call_untimed(
        &self,
        node: NodeUid,
        fallback: &str,
        request: &Request,
    ) -> Result<Response, CallError> {
        let idle = self.idle.lock().get_mut(&node).and_then(Vec::pop);
        if let Some(mut stream) = idle
            && let Ok(Some(answer)) = exchange(&mut stream, request).await
        {
            self.keep(node, stream);
            return Ok(answer);
        }
        // An idle stream may have ended long ago: that says nothing of the node. All requests may come
        // twice.
        self.idle.lock().remove(&node);
        let address = self.address(node).unwrap_or_else(|| fallback.to_owned());
        let dialled = self.environment.dial(node, &address).await;
        let mut stream = dialled.map_err(CallError::Unreachable)?;
        match exchange(&mut stream, request).await {
            Ok(Some(answer)) => {
                self.keep(node, stream);
                Ok(answer)
            }
            Ok(None) => Err(CallError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(CallError::Broken(error)),
        }
    }

    /// Ends the idle streams to a node.
    pub fn forget(&self, node: NodeUid) {
        self.idle.lock().remove(&node);
    }

    fn keep(&self, node: NodeUid, stream: Box<dyn Stream>) {
        let mut idle = self.idle.lock();
        let streams = idle.entry(node).or_default();
        if streams.len() < IDLE_MAX {
            streams.push(stream);
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

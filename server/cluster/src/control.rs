//! The handle through which the rest of the process sees the control plane.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, watch};

use crate::state::{Change, NodeUid, Outcome, Refused, State, Time};

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    file: PathBuf,
    states: watch::Sender<Arc<State>>,
    /// One change at a time.
    turn: Mutex<()>,
}

/// Why a change was not made, or may not have been.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ControlError {
    /// It was not made, and this is the answer.
    #[error(transparent)]
    Refused(#[from] Refused),

    /// No leader that a majority of the voters follows could be reached in time. Whether the change is made
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

impl Control {
    /// Opens what a node keeps of the control plane in this folder; an empty one is a node without
    /// cluster, which [`Change::CreateCluster`] makes one of.
    pub async fn open(folder: &Path) -> io::Result<Self> {
        let file = folder.join("control-plane");
        let state = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(error),
        };
        let states = watch::Sender::new(Arc::new(state));
        Ok(Self(Arc::new(Inner { file, states, turn: Mutex::new(()) })))
    }

    /// The state as far as this node has applied it.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.0.states.borrow())
    }

    /// Tells of each new state; some may be skipped, the last never.
    pub fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.0.states.subscribe()
    }

    /// Which node this is; none before it is in a cluster.
    pub fn node(&self) -> Option<NodeUid> {
        self.state().nodes.keys().next().copied()
    }

    /// Which node leads, as far as this one knows.
    pub fn leader(&self) -> Option<NodeUid> {
        self.node()
    }

    pub fn is_leader(&self) -> bool {
        self.leader().is_some() && self.leader() == self.node()
    }

    /// Asks for a change and waits until it is made, and seen by [`Control::state`] of this node.
    pub async fn change(&self, change: Change) -> Result<Outcome, ControlError> {
        let _turn = self.0.turn.lock().await;
        let mut state = State::clone(&self.state());
        let outcome = state.apply(change, now())?;
        if outcome != Outcome::Unchanged {
            self.save(&state).map_err(|error| ControlError::Store(error.to_string()))?;
            self.0.states.send_replace(Arc::new(state));
        }
        Ok(outcome)
    }

    fn save(&self, state: &State) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;

        let new = self.0.file.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.0.file)?;
        fs::File::open(self.0.file.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(since.as_millis().try_into().unwrap_or(u64::MAX))
}

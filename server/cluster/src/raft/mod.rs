//! Raft: `openraft` over a store in one file ([`store`]), the state as its machine ([`machine`]), and frames
//! between nodes ([`network`]).

mod machine;
mod network;
mod runtime;
mod store;

use std::collections::VecDeque;
use std::sync::Arc;

use openraft::{BasicNode, Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};

pub use machine::Machine;
pub use network::Network;
pub use runtime::{Chance, Runtime};
pub use store::{Log, Store, StoreError};

use crate::state::{Change, NodeUid, Outcome, Refused, Time};

pub type Raft = openraft::Raft<Types>;
pub type Entry = openraft::Entry<Types>;
pub type Snapshot = openraft::Snapshot<Types>;
pub type LogId = openraft::LogId<u64>;
pub type Vote = openraft::Vote<u64>;
pub type StorageError = openraft::StorageError<u64>;
pub type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub type StoredMembership = openraft::StoredMembership<u64, BasicNode>;

openraft::declare_raft_types!(
    /// What Raft is about here.
    pub Types:
        D = Proposal,
        R = Reply,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Vec<u8>,
        AsyncRuntime = Runtime,
);

/// A change on its way through the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// By chance. A change that is asked for again, as nobody knows what became of it, is made once.
    pub id: (u64, u64),
    /// By the clock of the node that led.
    pub at: Time,
    pub change: Change,
}

/// What came of a proposal; nothing for entries that are Raft's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply(pub Option<Result<Outcome, Refused>>);

/// The newest proposals and their replies.
pub type Recent = VecDeque<((u64, u64), Result<Outcome, Refused>)>;

pub fn id_of(node: NodeUid) -> u64 {
    node.0.into()
}

pub fn uid_of(id: u64) -> NodeUid {
    NodeUid(id.try_into().unwrap_or(0))
}

/// Times for links within a data centre; failures are noticed within a second.
pub fn config() -> Arc<Config> {
    let config = Config {
        cluster_name: "carnelian".to_owned(),
        heartbeat_interval: 150,
        election_timeout_min: 600,
        election_timeout_max: 1200,
        install_snapshot_timeout: 10_000,
        max_payload_entries: 64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(256),
        max_in_snapshot_log_to_keep: 64,
        ..Config::default()
    };
    Arc::new(config.validate().expect("the times are in order"))
}

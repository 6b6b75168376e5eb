//! Work that takes time: what it is about, how far it is, and which nodes have yet to do their part.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::authority::AUTHORITY_NAME;
use super::{DatabaseSettings, DatabaseUid, NodeUid, Time};

/// A UUID, made by whoever asks for the work.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub String);

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    pub id: ActionId,
    pub kind: ActionKind,
    pub object: Object,
    pub status: ActionStatus,
    /// 0 to 100.
    pub progress: f64,
    /// What is being done now.
    pub step: String,
    pub created: Time,
    pub heartbeat: Time,
    pub finished: Option<Time>,
    pub error: Option<String>,
    /// The nodes that have not done their part; with the last, the action is over. Empty from the start for
    /// what the leader itself finishes.
    pub awaits: BTreeSet<NodeUid>,
    pub detail: Detail,
}

/// Names as on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ActionKind {
    #[serde(rename = "SMCreateBDB")]
    CreateDatabase,
    #[serde(rename = "SMUpdateBDB")]
    UpdateDatabase,
    #[serde(rename = "SMDeleteBDB")]
    DeleteDatabase,
    #[serde(rename = "failover")]
    Failover,
    #[serde(rename = "migrate_shards")]
    Migrate,
    #[serde(rename = "rebalance")]
    Rebalance,
    #[serde(rename = "remove_node")]
    RemoveNode,
    #[serde(rename = "maintenance_on")]
    MaintenanceOn,
    #[serde(rename = "maintenance_off")]
    MaintenanceOff,
    #[serde(rename = "rotate_certificates")]
    RotateCertificates,
    #[serde(rename = "rotate_internode_ca")]
    ReplaceAuthority,
}

impl ActionKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateDatabase => "SMCreateBDB",
            Self::UpdateDatabase => "SMUpdateBDB",
            Self::DeleteDatabase => "SMDeleteBDB",
            Self::Failover => "failover",
            Self::Migrate => "migrate_shards",
            Self::Rebalance => "rebalance",
            Self::RemoveNode => "remove_node",
            Self::MaintenanceOn => "maintenance_on",
            Self::MaintenanceOff => "maintenance_off",
            Self::RotateCertificates => "rotate_certificates",
            Self::ReplaceAuthority => "rotate_internode_ca",
        }
    }

    /// Whether interfaces call it a state machine, and not a task.
    pub const fn is_state_machine(self) -> bool {
        matches!(self, Self::CreateDatabase | Self::UpdateDatabase | Self::DeleteDatabase)
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    Cluster,
    /// The authority between nodes: certificates are rotated as ever while it is replaced.
    Authority,
    Node(NodeUid),
    Database(DatabaseUid),
}

/// `bdb:1`
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Authority => f.write_str(AUTHORITY_NAME),
            Self::Node(uid) => write!(f, "node:{uid}"),
            Self::Database(uid) => write!(f, "bdb:{uid}"),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionStatus {
    Active,
    Completed,
    Failed,
}

impl ActionStatus {
    pub const fn is_over(self) -> bool {
        !matches!(self, Self::Active)
    }
}

/// What the nodes have to know to do their part, or the state machine to undo it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    None,
    /// Links move without anybody being disconnected; what there was, in case a node cannot do it.
    Update {
        graceful: bool,
        previous: Box<DatabaseSettings>,
    },
    /// Where the shards are to be in the end.
    Rebalance {
        primary: NodeUid,
        replicas: Vec<NodeUid>,
    },
    /// All internal certificates, or this one.
    Rotate {
        name: Option<String>,
    },
}

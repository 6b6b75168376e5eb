//! What the interface asks of the server it runs in: the control plane's state, live figures, and the few
//! things that only the process can do. The server implements both traits; tests have small ones.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use carnelian_cluster::state::{
    AddNode, Authority, Change, NodeFacts, NodeUid, Outcome, Refused, SealedKey, State, Time,
};
use carnelian_cluster::{Admission, Control};
use carnelian_tls::certificates::CertificateTable;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::time;

pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The state that the nodes agree on, and the way to change it.
pub trait Plane: Send + Sync + 'static {
    /// As this node has applied it. Its `cluster` is none until there is one.
    fn state(&self) -> Arc<State>;

    /// Asks for a change, from whichever node leads. When it is answered, this node has applied it.
    fn change(&self, change: Change) -> Waiting<'_, Result<Outcome, Refused>>;

    /// This node, once it is a member.
    fn node(&self) -> Option<NodeUid>;

    /// The member that leads, if there is one that a quorum follows.
    fn leader(&self) -> Option<NodeUid>;

    /// Whether changes can be made, as far as this node knows: a leader that most of the nodes do not answer is
    /// still one.
    fn has_quorum(&self) -> bool;

    /// What would come of a change. Nothing is changed.
    fn rehearse(&self, change: &Change) -> Result<State, Refused>;
}

impl Plane for Control {
    fn state(&self) -> Arc<State> {
        Self::state(self)
    }

    fn change(&self, change: Change) -> Waiting<'_, Result<Outcome, Refused>> {
        let change = Self::change(self, change);
        Box::pin(async move { change.await.map_err(|error| error.refusal()) })
    }

    fn node(&self) -> Option<NodeUid> {
        Self::node(self)
    }

    fn leader(&self) -> Option<NodeUid> {
        Self::leader(self)
    }

    fn has_quorum(&self) -> bool {
        Self::has_quorum(self)
    }

    fn rehearse(&self, change: &Change) -> Result<State, Refused> {
        let mut state = State::clone(&Self::state(self));
        let now_ms = u64::try_from(time::now_s()).unwrap_or(0).saturating_mul(1000);
        state.apply(change.clone(), Time(now_ms))?;
        Ok(state)
    }
}

/// The process around the interface.
pub trait Live: Send + Sync + 'static {
    /// What can be said of this node before it is a member of anything.
    fn local(&self) -> LocalNode;

    /// Makes a cluster of this one node. Answers when it is there, or says why it is not.
    fn create_cluster(&self, request: Bootstrap) -> Waiting<'_, Result<(), BootstrapFailure>>;

    /// Makes this node a member of the cluster that `request.nodes` are of.
    fn join_cluster(&self, request: Bootstrap) -> Waiting<'_, Result<(), BootstrapFailure>>;

    /// Makes a node a member that an admin of this cluster brings, and says what it has to know: a secret is in it.
    fn admit(&self, new: AddNode) -> Waiting<'_, Result<Admission, Refused>>;

    /// Certificates for a member's requests, as PEM, in their order.
    fn sign(&self, node: NodeUid, requests: String) -> Waiting<'_, Result<Vec<String>, Refused>>;

    /// A new authority for certificates between nodes, its key sealed.
    fn new_authority(&self) -> Waiting<'_, Result<Authority, Refused>>;

    /// Lists a successor of the authority that clients know the nodes by.
    fn add_client_authority(&self) -> Waiting<'_, Result<(), Refused>>;

    /// The figures of a member, this one or another; none if they cannot be had now.
    fn figures(&self, node: NodeUid) -> Waiting<'_, Option<Figures>>;

    /// Runs a command on a database, from its primary, as its administrator. The reply as JSON.
    fn command(&self, database: u32, words: Vec<String>) -> Waiting<'_, Result<Value, Refused>>;

    /// Whether this node takes clients of a database.
    fn serves(&self, database: u32) -> bool;

    /// The certificates that clients of this node see, and what judges new ones.
    fn certificates(&self) -> Arc<CertificateTable>;

    /// Whether databases can give a user these rules; else why not.
    fn check_rules(&self, rules: &str) -> Result<(), String>;

    /// Seals a private key under the cluster's key, so that it can go into the state.
    fn seal(&self, key_pem: &str) -> Result<SealedKey, Refused>;

    /// A secret of the cluster, the same on all nodes, for signing tokens. None before there is one.
    fn token_secret(&self) -> Option<[u8; 32]>;

    /// What to send to whoever analyses a fault: names and contents of files, without any secret.
    fn debug_files(&self) -> Vec<(String, Vec<u8>)>;
}

/// A node as it finds itself.
#[derive(Clone, Debug, Default)]
pub struct LocalNode {
    pub facts: NodeFacts,
    pub addresses: Vec<Address>,
    pub uptime_s: u64,
}

#[derive(Clone, Debug)]
pub struct Address {
    pub address: std::net::IpAddr,
    pub interface: String,
}

/// A request to create or to join a cluster, checked.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Of the cluster; empty when joining.
    pub name: String,
    /// Members, when joining.
    pub nodes: Vec<String>,
    /// The authorities that vouch for them, as PEM. Without them whoever answers is taken for a member.
    pub trusted_ca: Option<String>,
    pub username: String,
    pub password: Secret,
    pub addr: Option<std::net::IpAddr>,
    pub external_addr: Vec<String>,
    /// The dead node whose place this one takes.
    pub replace_node: Option<u32>,
    pub rack_id: String,
    pub second_rack_id: String,
    pub accept_servers: bool,
    pub max_listeners: Option<u32>,
    pub max_redis_servers: Option<u32>,
    /// Members of the policy that were set with it.
    pub policy: Map<String, Value>,
}

/// A text that is not printed.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Why there is no cluster, in the words of the interface: `access_denied`, `connect_error`, `config_error`
/// and so on.
#[derive(Clone, Debug)]
pub struct BootstrapFailure {
    pub code: &'static str,
    pub message: String,
}

/// What a node says of itself and of the shards on it, at one moment. Counters grow from its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    pub uptime_s: u64,
    pub total_memory: u64,
    pub free_memory: u64,
    pub available_memory: u64,
    /// Seconds of all processors since the machine started.
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub cpu_idle_s: f64,
    pub ephemeral_storage_free: u64,
    pub persistent_storage_free: u64,
    /// The text of INFO ALL of each database that has a shard here, by its uid.
    pub info: BTreeMap<u32, String>,
}

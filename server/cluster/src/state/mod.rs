//! What the cluster knows of itself, and how it may change.
//!
//! [`State::apply`] is the only way to change it: same state, same change, same time, same result, on every
//! node. It either makes the whole change or refuses it and leaves everything as it was. What needs
//! chance, a clock or computing time (identifiers of actions, passwords and their hashes, certificates) is
//! made by whoever asks and comes in with the change.

mod action;
mod apply;
mod authority;
mod certificate;
mod change;
mod cluster;
mod cron;
mod database;
mod event;
mod jobs;
mod node;
mod permissions;
mod policy;
mod settings;
mod time;
mod transfer;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::apply::SYSTEM_RESERVED_PORTS;
#[cfg(test)]
pub(crate) use self::apply::tests::with_database;
pub use action::{Action, ActionId, ActionKind, ActionStatus, Detail, Object};
pub use authority::{
    AUTHORITY_NAME, Authority, CLIENT_AUTHORITY_NAME, ClientAuthorities, Replacement, SealedKey,
};
pub use carnelian_tls::certificates::{CertificateName, ManagedBy};
pub use certificate::{Certificate, SharedCertificate};
pub use change::{
    AddNode, Change, CreateCluster, CreateUser, Outcome, PasswordChange, Refused, UserPatch,
};
pub use cluster::{
    AlertPatch, AlertSetting, BigstoreDriver, Cluster, ClusterPatch, ClusterSettings, SentinelTls,
    Threshold, TlsVersion, alert_defaults,
};
pub use cron::Cron;
pub use database::{
    AofPolicy, ClientCertificate, ConnsType, Database, DatabaseKind, DatabasePatch,
    DatabaseSettings, DatabaseStatus, EndpointType, Enforce, EvictionPolicy, HashSlots, IpType,
    Persistence, Placement, ProxyPolicy, ReplicaBuffer, ReplicaSync, RolePermission, SchedPolicy,
    ShardKeyRule, ShardsPlacement, Size, SnapshotRule, SubjectRule, SubjectValidation, Tag,
    TlsMode, WirePatch, YesNo,
};
pub use event::{EVENTS_MAX, Event, Severity};
pub use jobs::{Job, Jobs, JobsPatch, RotationJob};
pub use node::{Node, NodeFacts, NodePatch, NodeSettings, NodeStatus};
pub use permissions::DatabaseUser;
pub use policy::{Policy, PolicyPatch, PubsubDefault, Sensitivity, UpgradePolicy};
pub use time::Time;
pub use transfer::{Location, Transfer, TransferKind, TransferReport, TransferStage, Transfers};
pub use user::{Management, RedisAcl, Role, User, UserStatus};

/// The most nodes a cluster has, and how many of them vote.
pub const NODES_MAX: usize = 9;
pub const VOTERS_MAX: usize = 5;

/// What a fresh cluster calls itself if nobody gave it a name.
pub const DEFAULT_NAME: &str = "carnelian.local";

macro_rules! uids {
    ($( $(#[$meta:meta])* $name:ident, )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u32> for $name {
            fn from(uid: u32) -> Self {
                Self(uid)
            }
        }
    )* };
}

uids! {
    NodeUid,
    DatabaseUid,
    ShardUid,
    UserUid,
    RoleUid,
    AclUid,
}

/// Everything the nodes agree on.
///
/// Invariants: a primary and its replicas are members and all different; an action that is not over is the
/// only one of its object; a uid is never given twice; epochs never decrease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// None until the cluster is created.
    pub cluster: Option<Cluster>,
    pub policy: Policy,
    pub jobs: Jobs,
    pub nodes: BTreeMap<NodeUid, Node>,
    /// Nodes that were members; none of their certificates is good any more.
    pub removed_nodes: BTreeSet<NodeUid>,
    pub databases: BTreeMap<DatabaseUid, Database>,
    pub users: BTreeMap<UserUid, User>,
    pub roles: BTreeMap<RoleUid, Role>,
    pub redis_acls: BTreeMap<AclUid, RedisAcl>,
    /// The certificates in use: what each node reports, without keys.
    pub certificates: Vec<Certificate>,
    /// Certificates that every node serves, with their keys sealed under the cluster's key.
    pub shared_certificates: BTreeMap<String, SharedCertificate>,
    /// The internode authorities: one, or behind it the one that is to take its place.
    pub authorities: Vec<Authority>,
    #[serde(default)]
    pub replacement: Option<Replacement>,
    /// Of what clients are shown.
    #[serde(default)]
    pub client_authorities: ClientAuthorities,
    pub actions: BTreeMap<ActionId, Action>,
    /// The newest last, at most [`EVENTS_MAX`].
    pub events: Vec<Event>,
    pub next: Next,
    /// Counts the changes that were made.
    pub revision: u64,
}

/// The uids to give next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Next {
    pub node: u32,
    pub database: u32,
    pub shard: u32,
    pub user: u32,
    pub role: u32,
    pub acl: u32,
    pub event: u64,
}

impl Default for Next {
    fn default() -> Self {
        // Roles and rules below 17 are built in.
        Self { node: 1, database: 1, shard: 1, user: 1, role: 17, acl: 17, event: 1 }
    }
}

impl State {
    /// The action of this object that is not over.
    pub fn running(&self, object: Object) -> Option<&Action> {
        self.actions.values().find(|action| action.object == object && !action.status.is_over())
    }

    /// What waits for this node to do its part.
    pub fn awaiting(&self, node: NodeUid) -> impl Iterator<Item = &Action> {
        self.actions.values().filter(move |action| action.awaits.contains(&node))
    }

    pub fn database_named(&self, name: &str) -> Option<&Database> {
        self.databases.values().find(|database| database.settings.name == name)
    }

    pub fn user_by_email(&self, email: &str) -> Option<&User> {
        self.users.values().find(|user| user.email.eq_ignore_ascii_case(email))
    }

    /// What a user may do at most: the widest of the roles.
    pub fn management(&self, user: &User) -> Management {
        let roles = user.role_uids.iter().filter_map(|uid| self.roles.get(uid));
        roles.map(|role| role.management).max_by_key(|one| one.width()).unwrap_or(Management::None)
    }

    /// Whether a node is being removed.
    pub fn is_leaving(&self, node: NodeUid) -> bool {
        let running = self.running(Object::Node(node));
        running.is_some_and(|action| action.kind == ActionKind::RemoveNode)
    }

    pub fn is_member(&self, node: NodeUid) -> bool {
        self.nodes.contains_key(&node)
    }
}

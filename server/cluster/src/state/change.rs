//! Every change that can be asked for, what comes of it, and how it is refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use carnelian_tls::internode::Report;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cluster::{AlertPatch, ClusterPatch};
use super::database::WirePatch;
use super::user::Management;
use super::{
    AclUid, ActionId, Authority, Certificate, CertificateName, DatabaseUid, JobsPatch, Location,
    NodeFacts, NodePatch, NodeSettings, NodeStatus, NodeUid, PolicyPatch, RoleUid, Severity,
    ShardUid, SharedCertificate, TransferKind, TransferReport, UserUid,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The first change there is: makes the node that asks the first member.
    CreateCluster(Box<CreateCluster>),
    SetCluster {
        patch: Box<ClusterPatch>,
        alerts: BTreeMap<String, AlertPatch>,
    },
    SetPolicy(Box<PolicyPatch>),
    SetJobs(JobsPatch),

    /// A node has authenticated and asks to be a member; [`Outcome::Node`] says under which uid.
    AddNode(Box<AddNode>),
    UpdateNode {
        node: NodeUid,
        patch: Box<NodePatch>,
    },
    /// What a node says of itself, or the leader of it. A node that goes does no more of its part in
    /// anything that is under way.
    ReportNode {
        node: NodeUid,
        status: NodeStatus,
        facts: Option<Box<NodeFacts>>,
    },
    /// Begins to empty a node. The leader finishes the action when nothing is left on it.
    RemoveNode {
        node: NodeUid,
        action: ActionId,
    },
    SetMaintenance {
        node: NodeUid,
        on: bool,
        action: ActionId,
    },

    CreateDatabase {
        spec: Box<WirePatch>,
        /// The node that should have it, if there is a preference.
        on: Option<NodeUid>,
        /// 48 characters, made by chance, if the specification has none.
        admin_password: String,
        action: ActionId,
    },
    UpdateDatabase {
        database: DatabaseUid,
        patch: Box<WirePatch>,
        action: ActionId,
    },
    DeleteDatabase {
        database: DatabaseUid,
        action: ActionId,
    },
    ChangePasswords {
        database: DatabaseUid,
        change: PasswordChange,
    },
    SetDatabaseAlerts {
        database: DatabaseUid,
        alerts: BTreeMap<String, AlertPatch>,
    },
    /// Stops or resumes its traffic.
    SetTraffic {
        database: DatabaseUid,
        stopped: bool,
    },

    /// Has the node of its primary write its data out, or take others in.
    StartTransfer {
        database: DatabaseUid,
        kind: TransferKind,
        locations: Vec<Location>,
        id: ActionId,
    },
    /// How far the node is with it.
    ReportTransfer {
        database: DatabaseUid,
        kind: TransferKind,
        id: ActionId,
        report: TransferReport,
    },
    /// Forgets how the last one ended.
    ResetTransfer {
        database: DatabaseUid,
        kind: TransferKind,
    },

    /// Makes a replica the primary. `epoch` is the one that the decision was made on.
    Promote {
        database: DatabaseUid,
        node: NodeUid,
        epoch: u64,
        /// An operator's, to be reported as work; None if the leader acts by itself.
        action: Option<ActionId>,
        /// The process that has the data; the leader fills it in.
        #[serde(default)]
        holder: Option<u64>,
    },
    /// Has a process of the primary's node be the primary: the first, or one that was started later and has the
    /// data, which begins a new epoch.
    Hold {
        database: DatabaseUid,
        epoch: u64,
        holder: u64,
    },
    /// An operator has the primary go on with what it has, whatever a replica that does not tell may have.
    Recover {
        database: DatabaseUid,
        epoch: u64,
    },
    /// The replica of a node that has been down for long is made on another too.
    MoveReplica {
        database: DatabaseUid,
        from: NodeUid,
        to: NodeUid,
        epoch: u64,
    },
    /// Says where the replicas are to be.
    SetReplicas {
        database: DatabaseUid,
        replicas: Vec<NodeUid>,
        epoch: u64,
        /// An operator's, to be reported as work; None if the leader acts by itself.
        #[serde(default)]
        action: Option<ActionId>,
    },

    /// Has the shards of a database be there in the end, step by step: nothing is given up before what takes its place
    /// has all data.
    Rebalance {
        database: DatabaseUid,
        primary: NodeUid,
        replicas: Vec<NodeUid>,
        epoch: u64,
        action: ActionId,
    },

    /// A node did its part of an action, or could not.
    ConfirmAction {
        action: ActionId,
        node: NodeUid,
        error: Option<String>,
    },
    /// How far the leader is with an action that it works on itself.
    AdvanceAction {
        action: ActionId,
        progress: f64,
        step: String,
    },
    FinishAction {
        action: ActionId,
        error: Option<String>,
    },

    CreateUser(Box<CreateUser>),
    UpdateUser {
        user: UserUid,
        patch: Box<UserPatch>,
    },
    DeleteUser {
        user: UserUid,
        by: Option<UserUid>,
    },
    /// One login; failures lock, by the policy.
    NoteLogin {
        user: UserUid,
        succeeded: bool,
    },
    CreateRole {
        name: String,
        management: Management,
    },
    UpdateRole {
        role: RoleUid,
        name: Option<String>,
        management: Option<Management>,
    },
    DeleteRole {
        role: RoleUid,
    },
    CreateAcl {
        name: String,
        acl: String,
    },
    UpdateAcl {
        acl: AclUid,
        name: Option<String>,
        rules: Option<String>,
    },
    DeleteAcl {
        acl: AclUid,
    },

    /// New certificates between nodes, on all of them: every one, or those of this name.
    RotateCertificates {
        name: Option<String>,
        action: ActionId,
    },
    /// What a node uses now.
    ReportCertificates {
        node: NodeUid,
        certificates: Vec<Certificate>,
    },
    /// Certificates that all nodes serve; all of them or none.
    SetCertificates(BTreeMap<String, SharedCertificate>),
    DropCertificate(CertificateName),
    /// Another authority between nodes takes the place of the one there is, step by step as nodes report.
    ReplaceAuthority {
        authority: Box<Authority>,
        action: ActionId,
    },
    /// There will be no other authority, unless it has signed something already.
    KeepAuthority,
    /// Whom a node trusts and what it shows, while the authority is being replaced.
    ReportTrust {
        node: NodeUid,
        report: Report,
    },

    /// The authority that clients are to know the nodes by, or its successor: `after` names the one there is.
    AddClientAuthority {
        authority: Box<Authority>,
        after: Option<String>,
    },
    /// The successor of this one signs from now on. With `complete` this one goes when nobody shows anything of it.
    SwitchClientAuthority {
        from: String,
        complete: bool,
    },
    /// This one, which does not sign any longer, is not listed any more.
    DropClientAuthority {
        fingerprint: String,
    },

    /// Something to remember that is no change.
    Note {
        kind: String,
        severity: Severity,
        fields: Map<String, Value>,
    },
    /// Forgets actions that were over long ago.
    Tidy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateCluster {
    /// 32 hexadecimal digits.
    pub id: String,
    pub name: String,
    pub node: NodeSettings,
    pub facts: NodeFacts,
    pub admin: CreateUser,
    pub authority: Authority,
    pub certificates: BTreeMap<String, SharedCertificate>,
    pub policy: PolicyPatch,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddNode {
    pub settings: NodeSettings,
    pub facts: NodeFacts,
    /// The dead member whose place it takes.
    pub replace: Option<NodeUid>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateUser {
    pub email: String,
    pub name: String,
    /// A hash, made outside. The rules for passwords are checked there too: here is no password.
    pub password: String,
    pub role_uids: Vec<RoleUid>,
    pub role: Option<Management>,
    pub email_alerts: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserPatch {
    pub email: Option<String>,
    pub name: Option<String>,
    /// All hashes; the last is new unless `keeps_issue_date`.
    pub passwords: Option<Vec<String>>,
    pub keeps_issue_date: bool,
    pub role_uids: Option<Vec<RoleUid>>,
    pub role: Option<Management>,
    pub email_alerts: Option<bool>,
    pub certificate_subject_line: Option<String>,
    /// Ends a lock.
    pub unlock: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PasswordChange {
    Replace(String),
    Add(String),
    Remove(String),
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// It was so already.
    Unchanged,
    Node(NodeUid),
    Database {
        uid: DatabaseUid,
        action: Option<ActionId>,
    },
    Shard(ShardUid),
    User(UserUid),
    Role(RoleUid),
    Acl(AclUid),
    /// Work has begun.
    Action(ActionId),
}

/// A change that was not made, in the words of the REST interface.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{description}")]
pub struct Refused {
    pub status: u16,
    pub code: Cow<'static, str>,
    pub description: String,
}

impl Refused {
    pub fn new(status: u16, code: &'static str, description: impl Into<String>) -> Self {
        Self { status, code: Cow::Borrowed(code), description: description.into() }
    }

    /// 406: well-formed, but not a configuration that can be.
    pub fn invalid(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(406, code, description)
    }

    /// 409
    pub fn conflict(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(409, code, description)
    }

    /// 404
    pub fn unknown(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(404, code, description)
    }

    /// 400
    pub fn bad(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(400, code, description)
    }

    /// 400 `invalid_schema`: a wrong type.
    pub fn schema(description: impl Into<String>) -> Self {
        Self::bad("invalid_schema", description)
    }
}

#[cfg(test)]
impl CreateCluster {
    /// One of a single node, at 10.0.0.1.
    pub fn for_tests() -> Self {
        use super::{SealedKey, Time};

        let admin = CreateUser {
            email: "admin@cluster.local".to_owned(),
            password: "hash".to_owned(),
            ..CreateUser::default()
        };
        let authority = Authority {
            fingerprint: "first".to_owned(),
            certificate: "first".to_owned(),
            key: SealedKey(vec![1]),
            created: Time(1_800_000_000_000),
        };
        Self {
            id: "0123456789abcdef0123456789abcdef".to_owned(),
            name: "cluster.local".to_owned(),
            node: NodeSettings { addr: "10.0.0.1".to_owned(), ..NodeSettings::default() },
            facts: NodeFacts::default(),
            admin,
            authority,
            certificates: BTreeMap::new(),
            policy: PolicyPatch::default(),
        }
    }
}

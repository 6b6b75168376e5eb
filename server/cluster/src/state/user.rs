//! Users of the admin plane, their roles, and the rules that databases give roles.

use serde::{Deserialize, Serialize};

use super::{AclUid, RoleUid, Time, UserUid};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub uid: UserUid,
    pub email: String,
    pub name: String,
    pub role_uids: Vec<RoleUid>,
    /// Hashes, made outside, as texts that say how; any of them admits. No interface returns them.
    pub passwords: Vec<String>,
    pub password_issue_date: Time,
    pub email_alerts: bool,
    pub status: UserStatus,
    pub certificate_subject_line: String,
    pub last_login: Option<Time>,
    /// Failed logins in a row, when the last was, and when a locked user may try again.
    pub failed_logins: u32,
    pub last_failure: Option<Time>,
    pub locked_until: Option<Time>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    Active,
    Locked,
    PasswordExpired,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub uid: RoleUid,
    pub name: String,
    pub management: Management,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Management {
    Admin,
    ClusterMember,
    ClusterViewer,
    DbMember,
    DbViewer,
    UserManager,
    None,
}

impl Management {
    /// The more, the wider.
    pub const fn width(self) -> u8 {
        match self {
            Self::Admin => 6,
            Self::ClusterMember => 5,
            Self::DbMember => 4,
            Self::UserManager => 3,
            Self::ClusterViewer => 2,
            Self::DbViewer => 1,
            Self::None => 0,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::ClusterMember => "cluster_member",
            Self::ClusterViewer => "cluster_viewer",
            Self::DbMember => "db_member",
            Self::DbViewer => "db_viewer",
            Self::UserManager => "user_manager",
            Self::None => "none",
        }
    }
}

impl Role {
    /// The roles that every cluster has.
    pub fn built_in() -> [Self; 6] {
        let role = |uid, name: &str, management| Self {
            uid: RoleUid(uid),
            name: name.to_owned(),
            management,
        };
        [
            role(1, "Admin", Management::Admin),
            role(2, "Cluster Member", Management::ClusterMember),
            role(3, "Cluster Viewer", Management::ClusterViewer),
            role(4, "DB Member", Management::DbMember),
            role(5, "DB Viewer", Management::DbViewer),
            role(6, "None", Management::None),
        ]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisAcl {
    pub uid: AclUid,
    pub name: String,
    pub acl: String,
}

impl RedisAcl {
    /// The rules that every cluster has.
    pub fn built_in() -> [Self; 3] {
        let acl = |uid, name: &str, acl: &str| Self {
            uid: AclUid(uid),
            name: name.to_owned(),
            acl: acl.to_owned(),
        };
        [
            acl(1, "Full Access", "+@all ~*"),
            acl(2, "Read Only", "+@read ~*"),
            acl(3, "Not Dangerous", "+@all -@dangerous ~*"),
        ]
    }
}

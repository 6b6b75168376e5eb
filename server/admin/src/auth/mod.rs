//! Who may ask for what: callers, the rights of the roles, and how credentials become a caller.

pub mod logins;
pub mod password;
pub mod token;

use carnelian_cluster::state::Management;

/// Who sent a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// None for whoever reached the local socket: the file's mode has judged them.
    pub uid: Option<u32>,
    pub email: String,
    pub roles: Vec<Management>,
}

impl Caller {
    /// Whoever can open the socket in the data folder, and so could read the data.
    pub fn local() -> Self {
        Self { uid: None, email: "local".into(), roles: vec![Management::Admin] }
    }

    /// Nobody in particular: where no credentials are asked for.
    pub fn nobody() -> Self {
        Self { uid: None, email: String::new(), roles: Vec::new() }
    }

    pub fn may(&self, right: Right) -> bool {
        right == Right::Public || self.roles.iter().any(|role| grants(*role, right))
    }
}

/// What somebody with a role may ask for.
fn grants(role: Management, right: Right) -> bool {
    use Right::{Databases, Keys, Public, See, SeeUsers, Signed, Users};
    match role {
        Management::Admin => true,
        Management::ClusterMember => {
            matches!(right, Public | Signed | See | SeeUsers | Databases | Keys)
        }
        Management::ClusterViewer => matches!(right, Public | Signed | See | SeeUsers),
        Management::DbMember => matches!(right, Public | Signed | See | Databases),
        Management::DbViewer => matches!(right, Public | Signed | See),
        Management::UserManager => {
            matches!(right, Public | Signed | See | SeeUsers | Users | Keys)
        }
        Management::None => right == Public,
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Right {
    /// Nothing: before there is a cluster, and for the interface's own description.
    Public,
    /// To be somebody who has a role at all: for what concerns only themselves.
    Signed,
    /// To read of databases, nodes and the cluster.
    See,
    /// To read of users, roles and ACLs.
    SeeUsers,
    /// To create, change and delete databases, and to move and promote their shards.
    Databases,
    /// To change users, roles, ACLs and the licence.
    Users,
    /// To read the private keys of certificates that clients see.
    Keys,
    /// To change the cluster, its nodes, its policy and its certificates.
    Cluster,
}

impl Right {
    /// As the interface's description names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Signed => "any_user",
            Self::See => "view",
            Self::SeeUsers => "view_users",
            Self::Databases => "edit_databases",
            Self::Users => "edit_users",
            Self::Keys => "view_cluster_keys",
            Self::Cluster => "edit_cluster",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_admin_changes_the_cluster() {
        let roles = [
            Management::Admin,
            Management::ClusterMember,
            Management::ClusterViewer,
            Management::DbMember,
            Management::DbViewer,
            Management::UserManager,
            Management::None,
        ];
        for role in roles {
            let caller = Caller { uid: Some(2), email: "a@b".into(), roles: vec![role] };
            assert_eq!(caller.may(Right::Cluster), role == Management::Admin, "{role:?}");
            assert!(caller.may(Right::Public));
        }
        let both = vec![Management::DbViewer, Management::UserManager];
        let caller = Caller { uid: Some(2), email: "a@b".into(), roles: both };
        assert!(
            caller.may(Right::Users) && caller.may(Right::See) && !caller.may(Right::Databases)
        );
    }
}

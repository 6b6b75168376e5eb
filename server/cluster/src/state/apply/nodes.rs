//! The cluster's beginning, and its nodes: joining, leaving, and what becomes of their shards.

use std::collections::BTreeSet;

use super::names;
use crate::state::{
    Action, ActionId, ActionKind, AddNode, Cluster, ClusterSettings, CreateCluster, DatabaseUid,
    Detail, NODES_MAX, Node, NodeFacts, NodePatch, NodeSettings, NodeStatus, NodeUid, Object,
    Outcome, RedisAcl, Refused, Role, State, Time, alert_defaults,
};

/// The first software that can encrypt between nodes, as Redis Enterprise counts.
const ENCRYPTS_SINCE: [u32; 3] = [6, 2, 4];

impl State {
    pub(super) fn create_cluster(
        &mut self,
        new: CreateCluster,
        at: Time,
    ) -> Result<Outcome, Refused> {
        if self.cluster.is_some() {
            return Err(Refused::conflict("cluster_exists", "this node is in a cluster already"));
        }
        names::cluster_name(&new.name)?;
        if new.id.len() != 32 || !new.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Refused::bad("config_error", "the cluster's id is 32 hexadecimal digits"));
        }
        self.cluster = Some(Cluster {
            id: new.id,
            name: new.name,
            created: at,
            settings: ClusterSettings::default(),
            alert_settings: alert_defaults(),
            rotations: 0,
        });
        self.policy.merge(&new.policy);
        self.roles = Role::built_in().into_iter().map(|role| (role.uid, role)).collect();
        self.redis_acls = RedisAcl::built_in().into_iter().map(|acl| (acl.uid, acl)).collect();
        self.shared_certificates = new.certificates;
        self.authorities = vec![new.authority];
        let node = self.enter(new.node, new.facts, NodeStatus::Active, at);
        let mut admin = new.admin;
        admin.role = Some(crate::state::Management::Admin);
        self.create_user(admin, at)?;
        Ok(Outcome::Node(node))
    }

    fn enter(
        &mut self,
        settings: NodeSettings,
        facts: NodeFacts,
        status: NodeStatus,
        at: Time,
    ) -> NodeUid {
        let uid = NodeUid(self.next.node);
        self.next.node += 1;
        let node = Node {
            uid,
            status,
            joined: at,
            status_since: at,
            in_maintenance: false,
            maintenance_snapshot: Vec::new(),
            settings,
            facts,
        };
        self.nodes.insert(uid, node);
        self.tell(at, "cluster_node_joined", [("node_uid", uid.0.into())]);
        uid
    }

    pub(super) fn add_node(&mut self, new: AddNode, at: Time) -> Result<Outcome, Refused> {
        let AddNode { settings, facts, replace } = new;
        let same_place = |node: &&Node| {
            node.settings.addr == settings.addr
                && node.settings.internode_port == settings.internode_port
                && Some(node.uid) != replace
        };
        if let Some(node) = self.nodes.values().find(same_place) {
            let description = format!("node {} has this address", node.uid);
            return Err(Refused::conflict("node_address_in_use", description));
        }
        if self.policy.rack_aware && settings.rack_id.is_empty() {
            return Err(Refused::invalid("rack_id_required", "the cluster asks for a rack"));
        }
        let dead = match replace {
            None => None,
            Some(uid) => Some(self.replaceable(uid)?),
        };
        if self.nodes.len() - usize::from(dead.is_some()) >= NODES_MAX {
            let description = format!("a cluster has at most {NODES_MAX} nodes");
            return Err(Refused::invalid("too_many_nodes", description));
        }
        let uid = self.enter(settings, facts, NodeStatus::Provisioning, at);
        if let Some(dead) = dead {
            // A uid names one set of keys and one memory of votes: the new node has one of its own, and
            // takes over what the dead one was there for.
            for database in self.databases.values_mut() {
                let placement = &mut database.placement;
                if let Some(place) = placement.replicas.iter().position(|node| *node == dead) {
                    placement.replicas[place] = uid;
                    placement.epoch += 1;
                    database.topology_epoch += 1;
                    database.revision += 1;
                }
            }
            self.leave(dead, at)?;
        }
        Ok(Outcome::Node(uid))
    }

    fn replaceable(&self, uid: NodeUid) -> Result<NodeUid, Refused> {
        let node = self.node(uid)?;
        if node.status != NodeStatus::Down {
            let description = format!("node {uid} is not down");
            return Err(Refused::invalid("node_not_offline", description));
        }
        if let Some(database) = self.primaries_of(uid).first() {
            let description = format!("node {uid} has the only copy of database {database}");
            return Err(Refused::invalid("node_already_populated", description));
        }
        Ok(uid)
    }

    pub(super) fn update_node(
        &mut self,
        uid: NodeUid,
        patch: &NodePatch,
    ) -> Result<Outcome, Refused> {
        let rack_aware = self.policy.rack_aware;
        let node = self.node_mut(uid)?;
        let before = node.settings.clone();
        if !node.settings.merge(patch) {
            return Ok(Outcome::Unchanged);
        }
        if before.addr != node.settings.addr && node.status != NodeStatus::Down {
            let description = "the address changes only while the node is down";
            return Err(Refused::invalid("node_not_offline", description));
        }
        if rack_aware && before.rack_id != node.settings.rack_id && !before.rack_id.is_empty() {
            let description = format!("node {uid} is in a rack already");
            return Err(Refused::invalid("node_already_has_rack_id", description));
        }
        if !(1..=65_535).contains(&node.settings.max_listeners)
            || !(1..=65_535).contains(&node.settings.max_redis_servers)
        {
            return Err(Refused::bad("invalid_param", "limits are 1 to 65535"));
        }
        Ok(Outcome::Done)
    }

    pub(super) fn report_node(
        &mut self,
        uid: NodeUid,
        status: NodeStatus,
        facts: Option<Box<NodeFacts>>,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let is_removed = |action: &Action| action.kind == ActionKind::RemoveNode;
        // A node on its way out stays so, unless it dies; and is so again when it is back.
        let leaving = self.running(Object::Node(uid)).is_some_and(is_removed);
        let node = self.node_mut(uid)?;
        let status = if leaving && status == NodeStatus::Active {
            NodeStatus::Decommissioning
        } else {
            status
        };
        let same = node.status == status && facts.as_ref().is_none_or(|it| **it == node.facts);
        if same {
            return Ok(Outcome::Unchanged);
        }
        if node.status != status {
            node.status = status;
            node.status_since = at;
        }
        if let Some(facts) = facts {
            node.facts = *facts;
        }
        if status == NodeStatus::Down {
            self.excuse(uid, at)?;
            self.fail_transfers_of(uid, at);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn remove_node(
        &mut self,
        uid: NodeUid,
        action: ActionId,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let down = self.node(uid)?.status == NodeStatus::Down;
        // Those on the way out count as gone.
        if self.nodes.keys().all(|node| *node == uid || self.is_leaving(*node)) {
            return Err(Refused::invalid("last_node", "the last node cannot be removed"));
        }
        self.check_can_empty(uid)?;
        if down && let Some(database) = self.primaries_of(uid).first() {
            let description = format!("node {uid} has the only copy of database {database}");
            return Err(Refused::conflict("node_already_populated", description));
        }
        let (kind, object) = (ActionKind::RemoveNode, Object::Node(uid));
        self.begin(action.clone(), kind, object, BTreeSet::new(), Detail::None, at)?;
        if !down {
            let node = self.node_mut(uid)?;
            node.status = NodeStatus::Decommissioning;
            node.status_since = at;
        }
        Ok(Outcome::Action(action))
    }

    pub(super) fn set_maintenance(
        &mut self,
        uid: NodeUid,
        on: bool,
        action: ActionId,
        at: Time,
    ) -> Result<Outcome, Refused> {
        if self.node(uid)?.in_maintenance == on {
            return Ok(Outcome::Unchanged);
        }
        let kind = match on {
            true => ActionKind::MaintenanceOn,
            false => ActionKind::MaintenanceOff,
        };
        if on {
            self.check_can_empty(uid)?;
        }
        self.begin(action.clone(), kind, Object::Node(uid), BTreeSet::new(), Detail::None, at)?;
        let primaries = self.primaries_of(uid);
        let node = self.node_mut(uid)?;
        node.in_maintenance = on;
        if on {
            node.maintenance_snapshot = primaries;
        }
        Ok(Outcome::Action(action))
    }

    /// Whether somebody can take what a node has.
    fn check_can_empty(&self, uid: NodeUid) -> Result<(), Refused> {
        let used = self.databases.values().any(|database| database.is_on(uid));
        let others = self.nodes.values().any(|node| node.uid != uid && node.takes_shards());
        if used && !others {
            let description = "no other node can take its shards";
            return Err(Refused::invalid("insufficient_resources", description));
        }
        Ok(())
    }

    /// The end of what was done with a node.
    pub(super) fn end_for_node(
        &mut self,
        uid: NodeUid,
        kind: ActionKind,
        failed: bool,
        at: Time,
    ) -> Result<(), Refused> {
        match (kind, failed) {
            (ActionKind::RemoveNode, false) => self.leave(uid, at),
            (ActionKind::RemoveNode, true) => {
                let Some(node) = self.nodes.get_mut(&uid) else { return Ok(()) };
                if node.status == NodeStatus::Decommissioning {
                    node.status = NodeStatus::Active;
                    node.status_since = at;
                }
                Ok(())
            }
            (ActionKind::MaintenanceOff, false) => {
                self.node_mut(uid)?.maintenance_snapshot.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Takes a node out for good.
    fn leave(&mut self, uid: NodeUid, at: Time) -> Result<(), Refused> {
        if let Some(database) = self.databases.values().find(|database| database.is_on(uid)) {
            let description = format!("database {} is on node {uid}", database.uid);
            return Err(Refused::conflict("node_not_empty", description));
        }
        self.excuse(uid, at)?;
        self.fail_transfers_of(uid, at);
        self.nodes.remove(&uid);
        self.removed_nodes.insert(uid);
        self.certificates.retain(|certificate| certificate.node_uid != uid);
        self.go_on_replacing(at)?;
        self.tell(at, "node_remove_completed", [("node_uid", uid.0.into())]);
        Ok(())
    }

    /// Encryption between nodes needs every member to know of it.
    pub(super) fn check_versions(&self) -> Result<(), Refused> {
        let too_old = |node: &&Node| {
            let numbers: Vec<u32> = node
                .facts
                .software_version
                .split(['.', '-'])
                .map_while(|part| part.parse().ok())
                .collect();
            !numbers.is_empty() && numbers.as_slice() < ENCRYPTS_SINCE.as_slice()
        };
        match self.nodes.values().find(too_old) {
            None => Ok(()),
            Some(node) => {
                let version = &node.facts.software_version;
                let description = format!("node {} has version {version}", node.uid);
                Err(Refused::invalid("unsupported_software_version", description))
            }
        }
    }

    fn primaries_of(&self, node: NodeUid) -> Vec<DatabaseUid> {
        let its = self.databases.values().filter(|database| database.placement.primary == node);
        its.map(|database| database.uid).collect()
    }

    pub(super) fn node(&self, uid: NodeUid) -> Result<&Node, Refused> {
        self.nodes.get(&uid).ok_or_else(|| unknown(uid))
    }

    pub(super) fn node_mut(&mut self, uid: NodeUid) -> Result<&mut Node, Refused> {
        self.nodes.get_mut(&uid).ok_or_else(|| unknown(uid))
    }
}

fn unknown(uid: NodeUid) -> Refused {
    Refused::unknown("node_not_exist", format!("there is no node {uid}"))
}

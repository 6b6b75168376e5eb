//! Nodes: what an operator sets, what they report, and whether they are there.

use serde::{Deserialize, Serialize};

use super::settings::settings;
use super::{DatabaseUid, NodeUid, Time};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub uid: NodeUid,
    pub status: NodeStatus,
    pub joined: Time,
    /// Since when its status is what it is.
    pub status_since: Time,
    pub in_maintenance: bool,
    /// The databases it was primary of when maintenance began.
    pub maintenance_snapshot: Vec<DatabaseUid>,
    pub settings: NodeSettings,
    pub facts: NodeFacts,
}

impl Node {
    /// `host:port` of its internode listener.
    pub fn internode_address(&self) -> String {
        let (host, port) = (&self.settings.addr, self.settings.internode_port);
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }

    /// May be given shards.
    pub fn takes_shards(&self) -> bool {
        self.status == NodeStatus::Active && !self.in_maintenance && self.settings.accept_servers
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    Active,
    /// On its way out.
    Decommissioning,
    Down,
    /// Joined, not heard from yet.
    Provisioning,
}

settings! {
    NodeSettings, NodePatch {
        /// The internal address. It changes only while the node is down.
        addr: String = String::new(),
        external_addr: Vec<String> = Vec::new(),
        accept_servers: bool = true,
        rack_id: String = String::new(),
        second_rack_id: String = String::new(),
        max_listeners: u32 = 100,
        max_redis_servers: u32 = 100,
        max_redis_forks: i32 = -1,
        max_slave_full_syncs: i32 = -1,
        recovery_path: String = String::new(),
        /// Where the node's internode listener is (ours): nodes on one host may have to differ.
        internode_port: u16 = 3342,
        /// Where the node's REST interface is (ours).
        admin_port: u16 = 9443,
    }
}

settings! {
    /// What a node says of itself when it joins and starts.
    NodeFacts, NodeFactsPatch {
        hostname: String = String::new(),
        architecture: String = String::new(),
        cores: u32 = 0,
        total_memory: u64 = 0,
        software_version: String = String::new(),
        os_name: String = String::new(),
        os_family: String = String::new(),
        os_version: String = String::new(),
        os_semantic_version: String = String::new(),
        ephemeral_storage_path: String = String::new(),
        ephemeral_storage_size: u64 = 0,
        persistent_storage_path: String = String::new(),
        persistent_storage_size: u64 = 0,
    }
}

//! The cluster's policy: defaults for new databases, and how the cluster behaves.

use super::database::{ProxyPolicy, ShardsPlacement};
use super::settings::settings;

settings! {
    /// `GET /v1/cluster/policy`
    Policy, PolicyPatch {
        /// For new databases only.
        data_internode_encryption: bool = false,
        default_non_sharded_proxy_policy: ProxyPolicy = ProxyPolicy::Single,
        default_sharded_proxy_policy: ProxyPolicy = ProxyPolicy::AllMasterShards,
        default_shards_placement: ShardsPlacement = ShardsPlacement::Dense,
        default_provisioned_redis_version: String = "8.0".to_owned(),
        default_oss_cluster: bool = false,
        default_oss_sharding: bool = false,
        default_fork_evict_ram: bool = false,
        default_recovery_wait_time: i64 = -1,
        default_concurrent_restore_actions: u32 = 10,
        default_tracking_table_max_keys_policy: u64 = 1_000_000,
        redis_upgrade_policy: UpgradePolicy = UpgradePolicy::Major,
        acl_pubsub_default: PubsubDefault = PubsubDefault::Resetchannels,
        resp3_default: bool = true,
        repl_diskless: bool = true,
        automatic_node_offload: bool = true,
        auto_recovery: bool = false,
        show_internals: bool = false,
        db_conns_auditing: bool = false,
        rack_aware: bool = false,
        metrics_exporter_expose_bdb_name: bool = false,
        hide_user_data_from_log: bool = false,
        persistent_node_removal: bool = false,
        expose_hostnames_for_all_suffixes: bool = false,
        shards_overbooking: bool = true,
        failure_detection_sensitivity: Sensitivity = Sensitivity::High,
        login_lockout_threshold: u32 = 5,
        login_lockout_duration: u32 = 1800,
        login_lockout_counter_reset_after: u32 = 900,
        max_simultaneous_backups: u32 = 4,
        max_redis_forks: i32 = 0,
        max_slave_full_syncs: i32 = 0,
        redis_migrate_node_threshold_p: u32 = 4,
        redis_provision_node_threshold_p: u32 = 12,
        slave_ha: bool = true,
        slave_ha_grace_period: u32 = 600,
        slave_ha_cooldown_period: u32 = 3600,
        slave_ha_bdb_cooldown_period: u32 = 7200,
        endpoint_rebind_propagation_grace_time: u32 = 15,
        slow_log_max_len: u32 = 1024,
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpgradePolicy {
    Major,
    Latest,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PubsubDefault {
    Resetchannels,
    Allchannels,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    High,
    Low,
}

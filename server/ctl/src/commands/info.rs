//! `info`: how the cluster, databases, nodes and proxies are set.

use anyhow::bail;
use serde_json::Value;

use crate::http::Client;
use crate::words::{self, Words, switched};

pub fn run(client: &Client, mut words: Words) -> anyhow::Result<()> {
    match words.expect("cluster, db, node or proxy")?.as_str() {
        "cluster" => {
            words.end()?;
            print!("{}", cluster(client)?);
        }
        "db" => {
            let only = match words.next() {
                Some(word) => Some(words::database(client, &word)?),
                None => None,
            };
            for database in client.get("/v1/bdbs")?.as_array().into_iter().flatten() {
                if only.is_none_or(|only| database["uid"] == only) {
                    print!("{}", self::database(database));
                }
            }
        }
        "node" => {
            let only = words.next().filter(|word| word != "all");
            let only = only.map(|word| words::node(&word)).transpose()?;
            for node in client.get("/v1/nodes")?.as_array().into_iter().flatten() {
                if only.is_none_or(|only| node["uid"] == only) {
                    print!("{}", self::node(node));
                }
            }
        }
        "proxy" => {
            let only = words.next().filter(|word| word != "all");
            let only =
                only.map(|word| words::node(word.trim_start_matches("proxy:"))).transpose()?;
            for proxy in client.get("/v1/proxies")?.as_array().into_iter().flatten() {
                if only.is_none_or(|only| proxy["uid"] == only) {
                    println!("proxy:{}", proxy["uid"]);
                    println!("    max_listeners: {}", shown(&proxy["max_listeners"]));
                    let scaling = shown(&proxy["dynamic_threads_scaling"]);
                    println!("    dynamic_threads_scaling: {scaling}");
                }
            }
        }
        other => bail!("there is no command info {other:?}"),
    }
    Ok(())
}

/// Lines `key: value`, from members of a document under names of their own where those differ.
fn lines(document: &Value, keys: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, member) in keys {
        if let Some(value) = document.get(member) {
            text.push_str(&format!("    {name}: {}\n", shown(value)));
        }
    }
    text
}

fn shown(value: &Value) -> String {
    match value {
        Value::Bool(on) => switched(*on).to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => "N/A".to_owned(),
        other => other.to_string(),
    }
}

fn cluster(client: &Client) -> anyhow::Result<String> {
    let policy = client.get("/v1/cluster/policy")?;
    let cluster = client.get("/v1/cluster")?;
    let status = client.get("/v1/cluster/certificates/status")?;
    let mut text = String::from("Cluster configuration:\n");
    text.push_str(&lines(&policy, &POLICY));
    text.push_str(&lines(&cluster, &CLUSTER));
    let next = status.as_array().into_iter().flatten();
    let next = next.filter(|row| row["managed_by"] == "cluster");
    let next = next.filter_map(|row| row["next_rotation"].as_str()).min();
    text.push_str(&format!("    internal_cert_next_rotation: {}\n", next.unwrap_or("N/A")));
    Ok(text)
}

const POLICY: [(&str, &str); 29] = [
    ("repl_diskless", "repl_diskless"),
    ("shards_overbooking", "shards_overbooking"),
    ("default_non_sharded_proxy_policy", "default_non_sharded_proxy_policy"),
    ("default_sharded_proxy_policy", "default_sharded_proxy_policy"),
    ("default_shards_placement", "default_shards_placement"),
    ("default_fork_evict_ram", "default_fork_evict_ram"),
    ("default_provisioned_redis_version", "default_provisioned_redis_version"),
    ("redis_migrate_node_threshold_percent", "redis_migrate_node_threshold_p"),
    ("redis_provision_node_threshold_percent", "redis_provision_node_threshold_p"),
    ("max_simultaneous_backups", "max_simultaneous_backups"),
    ("slave_ha", "slave_ha"),
    ("slave_ha_grace_period", "slave_ha_grace_period"),
    ("slave_ha_cooldown_period", "slave_ha_cooldown_period"),
    ("slave_ha_bdb_cooldown_period", "slave_ha_bdb_cooldown_period"),
    ("show_internals", "show_internals"),
    ("expose_hostnames_for_all_suffixes", "expose_hostnames_for_all_suffixes"),
    ("login_lockout_threshold", "login_lockout_threshold"),
    ("login_lockout_duration", "login_lockout_duration"),
    ("login_lockout_counter_reset_after", "login_lockout_counter_reset_after"),
    ("default_concurrent_restore_actions", "default_concurrent_restore_actions"),
    ("endpoint_rebind_propagation_grace_time", "endpoint_rebind_propagation_grace_time"),
    ("data_internode_encryption", "data_internode_encryption"),
    ("redis_upgrade_policy", "redis_upgrade_policy"),
    ("db_conns_auditing", "db_conns_auditing"),
    ("failure_detection_sensitivity", "failure_detection_sensitivity"),
    ("acl_pubsub_default", "acl_pubsub_default"),
    ("resp3_default", "resp3_default"),
    ("slow_log_max_len", "slow_log_max_len"),
    ("rack_aware", "rack_aware"),
];

const CLUSTER: [(&str, &str); 8] = [
    ("http support", "http_support"),
    ("upgrade mode", "upgrade_mode"),
    ("cm_session_timeout_minutes", "cm_session_timeout_minutes"),
    ("cm_port", "cm_port"),
    ("cnm_http_port", "cnm_http_port"),
    ("cnm_https_port", "cnm_https_port"),
    ("bigstore_driver", "bigstore_driver"),
    ("internal_cert_validity_days", "internal_cert_validity_days"),
];

fn database(database: &Value) -> String {
    let name = database["name"].as_str().unwrap_or_default();
    let mut text = format!("db:{} [{name}]:\n", database["uid"]);
    text.push_str(&lines(database, &DATABASE));
    text
}

const DATABASE: [(&str, &str); 25] = [
    ("slave_buffer", "slave_buffer"),
    ("repl_backlog", "repl_backlog_size"),
    ("master_persistence", "master_persistence"),
    ("maxclients", "maxclients"),
    ("conns", "conns"),
    ("conns_type", "conns_type"),
    ("sched_policy", "sched_policy"),
    ("max_aof_file_size", "max_aof_file_size"),
    ("max_aof_load_time", "max_aof_load_time"),
    ("max_client_pipeline", "max_client_pipeline"),
    ("max_shard_pipeline", "max_pipelined"),
    ("max_connections", "max_connections"),
    ("oss_cluster", "oss_cluster"),
    ("oss_cluster_api_preferred_ip_type", "oss_cluster_api_preferred_ip_type"),
    ("slave_ha", "slave_ha"),
    ("slave_ha_priority", "slave_ha_priority"),
    ("mkms", "mkms"),
    ("mtls_allow_weak_hashing", "mtls_allow_weak_hashing"),
    ("mtls_allow_outdated_certs", "mtls_allow_outdated_certs"),
    ("data_internode_encryption", "data_internode_encryption"),
    ("proxy_policy", "proxy_policy"),
    ("db_conns_auditing", "db_conns_auditing"),
    ("syncer_mode", "syncer_mode"),
    ("tls_mode", "tls_mode"),
    ("shards_placement", "shards_placement"),
];

fn node(node: &Value) -> String {
    let mut text = format!("Command Output: node:{}\n", node["uid"]);
    let external: Vec<_> =
        node["external_addr"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let or_none = |text: String| if text.is_empty() { "N/A".to_owned() } else { text };
    text.push_str(&format!("    address: {}\n", shown(&node["addr"])));
    text.push_str(&format!("    external addresses: {}\n", or_none(external.join(", "))));
    text.push_str(&format!("    recovery path: {}\n", or_none(shown(&node["recovery_path"]))));
    text.push_str(&format!("    max redis servers: {}\n", shown(&node["max_redis_servers"])));
    text.push_str(&format!("    max listeners: {}\n", shown(&node["max_listeners"])));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn switches_are_printed_in_words() {
        let text = database(&json!({"uid": 1, "name": "a", "data_internode_encryption": true,
            "maxclients": 5, "conns_type": "per-thread"}));
        assert!(text.starts_with("db:1 [a]:\n"));
        assert!(text.contains("    data_internode_encryption: enabled\n"));
        assert!(text.contains("    maxclients: 5\n"));
        assert!(!text.contains("slave_ha:"), "what is not said is not printed");
        let text = node(&json!({"uid": 3, "addr": "10.0.0.1", "external_addr": [],
            "recovery_path": "", "max_redis_servers": 100, "max_listeners": 100}));
        assert!(text.contains("external addresses: N/A\n"));
    }
}

//! What can be said: for help and for completion. `<…>` stands for any one word, `[…]` for what may be left out.

/// A command and what it does.
pub struct Line {
    pub words: &'static str,
    pub about: &'static str,
}

const fn line(words: &'static str, about: &'static str) -> Line {
    Line { words, about }
}

pub const LINES: &[Line] = &[
    line("status [nodes|databases|endpoints|shards]", "How everything is"),
    line("info cluster", "Settings of the cluster"),
    line("info db [<db>]", "Settings of databases"),
    line("info node [<node>]", "Settings of nodes"),
    line("info proxy [<node>]", "What takes clients"),
    line("tune db <db> data_internode_encryption <enabled|disabled>", "Settings of a database"),
    line("tune cluster data_internode_encryption <enabled|disabled>", "The cluster's policy"),
    line("tune node <node|all> max_redis_servers <n>", "Settings of nodes"),
    line("cluster create name <fqdn> username <email> password <password>", "Make a cluster"),
    line("cluster join nodes <ip> username <email> password <password>", "Join a cluster"),
    line("cluster master", "Which node leads"),
    line("cluster master set <node>", "Name the node that leads"),
    line("cluster config <key> <value>", "Settings of the cluster"),
    line("cluster certificate rotate [<name>]", "New certificates between nodes"),
    line("cluster certificate rotate client_ca [complete]", "Another authority for clients"),
    line("cluster certificate set <name> certificate_file <file> key_file <file>", "Replace one"),
    line("cluster certificate status", "Which certificates there are, and until when"),
    line("cluster reset_password <email>", "Give a user another password"),
    line("cluster running_actions", "What is being done"),
    line("cluster debug_info path <folder>", "Pack up what helps to find faults"),
    line("node <node> remove", "Take a node out of the cluster"),
    line("node <node> maintenance_mode on", "Empty a node for a while"),
    line("node <node> maintenance_mode off", "Use it again"),
    line("node <node> addr set <ip>", "Another internal address for a node that is down"),
    line("node <node> external_addr add <ip>", "More external addresses"),
    line("node <node> external_addr remove <ip>", "Fewer external addresses"),
    line("node <node> external_addr set <ip>", "Other external addresses"),
    line("node <node> recovery_path set <path>", "Where files to recover from are"),
    line("migrate shard <shard> target_node <node>", "Move a replica"),
    line("failover shard <shard>", "Make a replica the primary"),
    line("recover db <db> allow_data_loss", "Go on without what a lost replica may have"),
    line("bind endpoint <endpoint> policy <policy>", "Where an endpoint is served"),
    line("placement db <db> <dense|sparse>", "How shards are spread"),
    line("verify balance", "Whether shards and endpoints are together"),
    line("verify rack_aware", "Whether replicas are in other racks"),
    line("audit verify", "Whether the record of changes is as it was written"),
    line("audit show [<n>]", "The last changes and refusals"),
    line("help [<command>]", "This"),
    line("exit", "Leave the shell"),
];

/// Keys that `tune` takes.
const DATABASE_KEYS: &[&str] = &[
    "data_internode_encryption",
    "graceful",
    "maxclients",
    "conns",
    "conns_type",
    "max_connections",
    "max_client_pipeline",
    "max_shard_pipeline",
    "repl_backlog",
    "slave_buffer",
    "master_persistence",
    "oss_cluster",
    "oss_cluster_api_preferred_ip_type",
    "slave_ha",
    "slave_ha_priority",
    "schedpolicy",
    "shards_placement",
    "mtls_allow_outdated_certs",
    "mtls_allow_weak_hashing",
    "resp3",
    "db_conns_auditing",
    "tracking_table_max_keys",
    "metrics_export_all",
];
const CLUSTER_KEYS: &[&str] = &[
    "data_internode_encryption",
    "default_non_sharded_proxy_policy",
    "default_sharded_proxy_policy",
    "default_shards_placement",
    "repl_diskless",
    "slave_ha",
    "redis_upgrade_policy",
    "show_internals",
    "db_conns_auditing",
    "resp3_default",
    "failure_detection_sensitivity",
    "login_lockout_threshold",
    "login_lockout_duration",
    "login_lockout_counter_reset_after",
    "max_simultaneous_backups",
    "acl_pubsub_default",
];

/// All commands, or those that begin with a word.
pub fn help(command: Option<&str>) -> String {
    let mut text = String::from(
        "usage: rladmin [options] [command] [command args]\n\n\
         Options:\n    -y  Assume Yes for all required user confirmations.\n    \
         --host, --port, --user, --password, --cacert, -k, --socket  Where the cluster is.\n\n\
         Commands:\n",
    );
    for line in LINES {
        let first = line.words.split(' ').next().unwrap_or_default();
        if command.is_none_or(|command| command == first) {
            text.push_str(&format!("    {}\n        {}\n", line.words, line.about));
        }
    }
    text
}

/// What the word that is being typed may become. `before` are the words in front of it.
pub fn complete(before: &[&str], typed: &str) -> Vec<String> {
    let mut found: Vec<String> = match before {
        ["tune", "db", _, rest @ ..] => completed_setting(rest, DATABASE_KEYS),
        ["tune", "cluster", rest @ ..] => completed_setting(rest, CLUSTER_KEYS),
        _ => LINES.iter().flat_map(|line| next_words(line.words, before)).collect(),
    };
    found.retain(|word| word.starts_with(typed));
    found.sort();
    found.dedup();
    found
}

/// After pairs of keys and values, a key; after a key, what switches take.
fn completed_setting(before: &[&str], keys: &[&str]) -> Vec<String> {
    let words: &[&str] =
        if before.len().is_multiple_of(2) { keys } else { &["enabled", "disabled"] };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The words that a line has behind those that were typed, if it begins with them.
fn next_words(line: &str, before: &[&str]) -> Vec<String> {
    let mut words = line.split(' ');
    for typed in before {
        let Some(word) = words.next() else { return Vec::new() };
        let bare = word.trim_matches(['[', ']']);
        if !bare.starts_with('<') && !bare.split('|').any(|choice| choice == *typed) {
            return Vec::new();
        }
    }
    let Some(word) = words.next() else { return Vec::new() };
    let bare = word.trim_matches(['[', ']']);
    let choices = bare.trim_matches(['<', '>']);
    // One word in angles is to be replaced; several are to be chosen from.
    if bare.starts_with('<') && !choices.contains('|') {
        return Vec::new();
    }
    choices.split('|').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_completed() {
        assert_eq!(complete(&[], "st"), ["status"]);
        assert_eq!(complete(&["cluster", "certificate"], ""), ["rotate", "set", "status"]);
        assert_eq!(complete(&["tune", "db", "1"], "data_"), ["data_internode_encryption"]);
        let before = ["tune", "db", "1", "data_internode_encryption"];
        assert_eq!(complete(&before, "e"), ["enabled"]);
        assert_eq!(complete(&["tune", "cluster"], "data"), ["data_internode_encryption"]);
        assert_eq!(complete(&["node", "3", "maintenance_mode"], ""), ["off", "on"]);
        assert_eq!(complete(&["status"], "n"), ["nodes"]);
        assert!(complete(&["nothing"], "").is_empty());
        assert!(complete(&["cluster", "reset_password"], "").is_empty());
    }

    #[test]
    fn help_lists_what_there_is() {
        let all = help(None);
        assert!(all.contains("cluster certificate rotate") && all.contains("-y"));
        let some = help(Some("audit"));
        assert!(some.contains("audit verify") && !some.contains("tune db"));
    }
}

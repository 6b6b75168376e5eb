//! `status`: how everything is, in tables.

use anyhow::bail;
use serde_json::{Value, json};

use crate::http::Client;
use crate::table::{Table, size};
use crate::words::{self, Words};

/// What to show.
#[derive(Default)]
pub struct Options {
    section: Option<Section>,
    database: Option<u64>,
    node: Option<u64>,
    extra: Vec<String>,
    issues_only: bool,
    /// Columns to sort by, the first most.
    sort: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Section {
    Nodes,
    Databases,
    Endpoints,
    Shards,
}

impl Options {
    fn parse(client: &Client, mut words: Words) -> anyhow::Result<Self> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "nodes" => options.section = Some(Section::Nodes),
                "databases" => options.section = Some(Section::Databases),
                "endpoints" => options.section = Some(Section::Endpoints),
                "shards" => options.section = Some(Section::Shards),
                "db" => {
                    let name = words.expect("the database")?;
                    options.database = Some(words::database(client, &name)?);
                }
                "node" => options.node = Some(words::node(&words.expect("the node")?)?),
                "extra" => options.extra.push(words.expect("what else to show")?),
                "sort" => {
                    let keywords = ["db", "node", "extra", "issues_only"];
                    options.sort = words.values(&keywords);
                }
                "issues_only" => options.issues_only = true,
                _ => bail!("{word:?} is not understood here"),
            }
        }
        Ok(options)
    }

    fn shows(&self, section: Section) -> bool {
        self.section.is_none_or(|only| only == section)
    }

    fn has_extra(&self, name: &str) -> bool {
        self.extra.iter().any(|extra| extra == name || extra == "all")
    }

    fn wants_database(&self, uid: &Value) -> bool {
        self.database.is_none_or(|only| *uid == only)
    }

    fn wants_node(&self, uid: &str) -> bool {
        self.node.is_none_or(|only| uid == only.to_string())
    }

    /// The rows as they were asked for, under their columns.
    fn table(&self, columns: &[&str], mut rows: Vec<Vec<String>>) -> String {
        for name in self.sort.iter().rev() {
            if let Some(place) = columns.iter().position(|column| column.eq_ignore_ascii_case(name))
            {
                rows.sort_by(|a, b| a[place].cmp(&b[place]));
            }
        }
        let mut table = Table::new(columns.iter().copied());
        rows.into_iter().for_each(|row| table.row(row));
        table.print()
    }
}

pub fn run(client: &Client, words: Words) -> anyhow::Result<()> {
    let options = Options::parse(client, words)?;
    let nodes = client.get("/v1/nodes")?;
    if options.section.is_none() {
        print!("{}", cluster(client, &nodes)?);
    }
    let mut sections = Vec::new();
    if options.shows(Section::Nodes) {
        sections.push(("CLUSTER NODES:", nodes_table(client, &nodes, &options)?));
    }
    let databases = client.get("/v1/bdbs")?;
    if options.shows(Section::Databases) {
        let alerts = match options.has_extra("backups") {
            true => client.get("/v1/bdbs/alerts?ignore_settings=true")?,
            false => Value::Null,
        };
        sections.push(("DATABASES:", databases_table(&databases, &alerts, &options)));
    }
    let shards = client.get("/v1/shards?extra_info_keys=used_memory")?;
    if options.shows(Section::Endpoints) {
        sections.push(("ENDPOINTS:", endpoints_table(&databases, &nodes, &shards, &options)));
    }
    if options.shows(Section::Shards) {
        sections.push(("SHARDS:", shards_table(&databases, &shards, &options)));
    }
    for (place, (title, table)) in sections.iter().enumerate() {
        if 0 < place || options.section.is_none() {
            println!();
        }
        println!("{title}");
        print!("{table}");
    }
    Ok(())
}

fn cluster(client: &Client, nodes: &Value) -> anyhow::Result<String> {
    let status = client.get("/v1/nodes/status")?;
    let master = status.as_object().into_iter().flatten();
    let master = master.into_iter().find(|(_, node)| node["role"] == json!("master"));
    let mut lines = String::from("CLUSTER:\n");
    match master {
        None => lines.push_str("ERROR. There is no cluster master: most nodes cannot be reached\n"),
        Some((uid, _)) => {
            let mut all = list(nodes);
            let node = all.find(|node| text(&node["uid"]) == *uid);
            let address = node.and_then(|node| node["addr"].as_str()).unwrap_or_default();
            lines.push_str(&format!("OK. Cluster master: {uid} ({address})\n"));
        }
    }
    Ok(lines)
}

/// The table of nodes. The node that answers is marked.
pub fn nodes_table(client: &Client, nodes: &Value, options: &Options) -> anyhow::Result<String> {
    let status = client.get("/v1/nodes/status")?;
    let here = client.get("/v1/bootstrap")?["local_node_info"]["uid"].as_str().map(str::to_owned);
    let encryption = options.has_extra("internode_encryption");
    let certificates =
        if encryption { client.get("/v1/cluster/certificates/status")? } else { Value::Null };
    let stats = options.has_extra("nodestats");
    let racks = options.has_extra("rack_id");
    let mut columns = vec!["NODE:ID", "ROLE", "ADDRESS", "EXTERNAL_ADDRESS", "HOSTNAME"];
    if stats {
        columns.extend(["MASTERS", "SLAVES", "OVERBOOKING_DEPTH"]);
    }
    columns.extend(["SHARDS", "CORES", "FREE_RAM", "PROVISIONAL_RAM", "VERSION"]);
    if racks {
        columns.push("RACK-ID");
    }
    if encryption {
        columns.push("CERT_DAYS_LEFT");
    }
    columns.push("STATUS");
    let mut rows = Vec::new();
    for node in list(nodes) {
        let uid = node["uid"].to_string();
        let of_node = &status[&uid];
        let is_well = node["status"] == json!("active");
        if !options.wants_node(&uid) || options.issues_only && is_well {
            continue;
        }
        let mark = if here.as_deref() == Some(uid.as_str()) { "*" } else { "" };
        let memory = |name: &str, of: &str| {
            let (free, total) = (of_node[name].as_f64(), of_node[of].as_f64());
            free.zip(total).map_or_else(
                || "-".to_owned(),
                |(free, total)| format!("{}/{}", size(free), size(total)),
            )
        };
        let external: Vec<_> = list(&node["external_addr"]).filter_map(Value::as_str).collect();
        let mut row = vec![
            format!("{mark}node:{uid}"),
            text(&of_node["role"]),
            text(&node["addr"]),
            external.join(","),
            text(&of_node["hostname"]),
        ];
        if stats {
            row.extend([
                text(&of_node["master_shards"]),
                text(&of_node["slave_shards"]),
                size(of_node["node_overbooking_depth"].as_f64().unwrap_or(0.0)),
            ]);
        }
        row.extend([
            format!("{}/{}", node["shard_count"], node["max_redis_servers"]),
            text(&of_node["cores"]),
            memory("free_ram", "total_memory"),
            memory("free_provisional_ram", "total_provisional_ram"),
            text(&node["software_version"]),
        ]);
        if racks {
            row.push(text(&node["rack_id"]));
        }
        if encryption {
            let own = list(&certificates).filter(|it| text(&it["node_uid"]) == uid);
            let internal = own.filter(|it| {
                it["name"].as_str().is_some_and(|it| it.ends_with("internode_encryption"))
            });
            let left = internal.filter_map(|it| it["days_left"].as_f64()).reduce(f64::min);
            row.push(left.map_or_else(|| "-".to_owned(), |left| format!("{:.0}", left.floor())));
        }
        row.push(match node["status"].as_str() {
            Some("active") if node["in_maintenance"] == json!(true) => "OK, MAINTENANCE".to_owned(),
            Some("active") => "OK".to_owned(),
            Some(other) => other.to_uppercase(),
            None => "-".to_owned(),
        });
        rows.push(row);
    }
    Ok(options.table(&columns, rows))
}

fn databases_table(databases: &Value, alerts: &Value, options: &Options) -> String {
    let backups = options.has_extra("backups");
    let encryption = options.has_extra("internode_encryption");
    let versions = options.has_extra("redis_version");
    let mut columns = vec![
        "DB:ID",
        "NAME",
        "TYPE",
        "STATUS",
        "SHARDS",
        "PLACEMENT",
        "REPLICATION",
        "PERSISTENCE",
        "ENDPOINT",
    ];
    if backups {
        columns.extend(["BACKUP_PROGRESS", "MISSING_BACKUP_TIME"]);
    }
    if versions {
        columns.push("REDIS_VERSION");
    }
    if encryption {
        columns.push("DATA_INTERNODE");
    }
    let mut rows = Vec::new();
    for database in list(databases) {
        let is_well = database["status"] == json!("active");
        if !options.wants_database(&database["uid"]) || options.issues_only && is_well {
            continue;
        }
        let endpoint = &database["endpoints"][0];
        let mut row = vec![
            format!("db:{}", database["uid"]),
            text(&database["name"]),
            text(&database["type"]),
            text(&database["status"]),
            text(&database["shards_count"]),
            text(&database["shards_placement"]),
            switched(&database["replication"]),
            text(&database["data_persistence"]),
            format!("{}:{}", text(&endpoint["dns_name"]), endpoint["port"]),
        ];
        if backups {
            row.extend(backup(database, alerts));
        }
        if versions {
            row.push(text(&database["version"]));
        }
        if encryption {
            row.push(switched(&database["data_internode_encryption"]));
        }
        rows.push(row);
    }
    options.table(&columns, rows)
}

/// How far the one is that is being made, and for how long one has been missing.
fn backup(database: &Value, alerts: &Value) -> [String; 2] {
    let progress = match database["backup_status"].as_str() {
        Some("exporting") => format!("{:.0}%", database["backup_progress"].as_f64().unwrap_or(0.0)),
        _ => "-".to_owned(),
    };
    let alert = &alerts[database["uid"].to_string()]["bdb_backup_delayed"];
    let late = alert["change_value"]["backup_delay_minutes"].as_f64().filter(|late| 0.0 < *late);
    [progress, late.map_or_else(|| "-".to_owned(), |late| format!("{late:.0}m"))]
}

/// Every node's port of a database is its endpoint. The primary's node comes first, under the policy; others
/// send clients on to it.
fn endpoints_table(databases: &Value, nodes: &Value, shards: &Value, options: &Options) -> String {
    let columns = ["DB:ID", "NAME", "ID", "NODE", "ROLE", "SSL"];
    let mut rows = Vec::new();
    for database in list(databases) {
        let uid = &database["uid"];
        if !options.wants_database(uid) {
            continue;
        }
        let is_primary =
            |shard: &&Value| shard["bdb_uid"] == *uid && shard["role"] == json!("master");
        let primary = list(shards).find(is_primary).map(|shard| text(&shard["node_uid"]));
        let is_up = |node: &&Value| node["status"] == json!("active");
        let others = list(nodes).filter(is_up).map(|node| text(&node["uid"]));
        let others = others.filter(|node| Some(node) != primary.as_ref());
        for node in primary.iter().cloned().chain(others) {
            if !options.wants_node(&node) {
                continue;
            }
            let role = match Some(&node) == primary.as_ref() {
                true => text(&database["proxy_policy"]),
                false => "forwarding".to_owned(),
            };
            rows.push(vec![
                format!("db:{uid}"),
                text(&database["name"]),
                format!("endpoint:{uid}:1"),
                format!("node:{node}"),
                role,
                if database["ssl"] == json!(true) { "Yes" } else { "No" }.to_owned(),
            ]);
        }
    }
    options.table(&columns, rows)
}

fn shards_table(databases: &Value, shards: &Value, options: &Options) -> String {
    let columns = ["DB:ID", "NAME", "ID", "NODE", "ROLE", "SLOTS", "USED_MEMORY", "STATUS"];
    let mut rows = Vec::new();
    for shard in list(shards) {
        let node = text(&shard["node_uid"]);
        let is_well = shard["detailed_status"] == json!("ok");
        if !options.wants_database(&shard["bdb_uid"])
            || !options.wants_node(&node)
            || options.issues_only && is_well
        {
            continue;
        }
        let database = list(databases).find(|database| database["uid"] == shard["bdb_uid"]);
        let used = shard["redis_info"]["used_memory"].as_str().and_then(|it| it.parse().ok());
        rows.push(vec![
            format!("db:{}", shard["bdb_uid"]),
            database.map(|database| text(&database["name"])).unwrap_or_default(),
            format!("redis:{}", text(&shard["uid"])),
            format!("node:{node}"),
            text(&shard["role"]),
            text(&shard["assigned_slots"]),
            used.map_or_else(|| "-".to_owned(), size),
            text(&shard["detailed_status"]).to_uppercase(),
        ]);
    }
    options.table(&columns, rows)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn switched(value: &Value) -> String {
    words::switched(value == &json!(true)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_and_shards_have_their_columns() {
        let databases = json!([{"uid": 3, "name": "c", "type": "redis", "status": "active",
            "shards_count": 1, "shards_placement": "dense", "replication": false,
            "data_persistence": "disabled", "ssl": true, "proxy_policy": "single",
            "data_internode_encryption": true,
            "endpoints": [{"dns_name": "redis-11103.c.local", "port": 11103}]}]);
        let shards = json!([{"uid": "4", "bdb_uid": 3, "node_uid": "1", "role": "master",
            "assigned_slots": "0-16383", "detailed_status": "ok",
            "redis_info": {"used_memory": "1048576"}}]);
        let extra = vec!["internode_encryption".to_owned()];
        let options = Options { extra, ..Options::default() };
        let table = databases_table(&databases, &json!(null), &options);
        assert!(table.lines().next().unwrap().ends_with("DATA_INTERNODE"), "{table}");
        assert!(table.contains("redis-11103.c.local:11103 enabled"), "{table}");
        let extra = vec!["backups".to_owned()];
        let backups = Options { extra, ..Options::default() };
        let mut during = databases.clone();
        during[0]["backup_status"] = json!("exporting");
        during[0]["backup_progress"] = json!(42.0);
        let late = json!({"bdb_backup_delayed": {"change_value": {"backup_delay_minutes": 7.0}}});
        for (databases, alerts, end) in
            [(&databases, json!({}), ["-", "-"]), (&during, json!({ "3": late }), ["42%", "7m"])]
        {
            let table = databases_table(databases, &alerts, &backups);
            let rows: Vec<Vec<&str>> =
                table.lines().map(|line| line.split_whitespace().collect()).collect();
            assert!(rows[0].ends_with(&["BACKUP_PROGRESS", "MISSING_BACKUP_TIME"]), "{table}");
            assert!(rows[1].ends_with(&end), "{table}");
        }
        let nodes = json!([{"uid": 2, "status": "active"}, {"uid": 1, "status": "active"},
            {"uid": 3, "status": "down"}]);
        let table = endpoints_table(&databases, &nodes, &shards, &options);
        let rows: Vec<Vec<&str>> =
            table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 2, "{table}");
        assert_eq!(rows[0][2..], ["endpoint:3:1", "node:1", "single", "Yes"]);
        assert_eq!(rows[1][2..], ["endpoint:3:1", "node:2", "forwarding", "Yes"]);
        let table = shards_table(&databases, &shards, &options);
        assert!(table.contains("redis:4 node:1 master 0-16383 1MB         OK"), "{table}");
        let issues = Options { issues_only: true, ..Options::default() };
        assert_eq!(shards_table(&databases, &shards, &issues).lines().count(), 1);
    }
}

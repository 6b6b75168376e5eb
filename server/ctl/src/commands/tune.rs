//! `tune`: settings of databases, the cluster and nodes.

use anyhow::bail;
use serde_json::Value;

use super::wait;
use crate::http::Client;
use crate::words::{self, Words};

pub fn run(client: &Client, mut words: Words) -> anyhow::Result<()> {
    match words.expect("what to tune (db, cluster, node)")?.as_str() {
        "db" => database(client, words),
        "cluster" => cluster(client, words),
        "node" => node(client, words),
        other => bail!("{other:?} cannot be tuned"),
    }
}

fn database(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let uid = words::database(client, &words.expect("the database")?)?;
    let path = format!("/v1/bdbs/{uid}");
    let mut current = client.get(&path)?;
    // Not a setting, but how a change of one is made.
    current["graceful"] = Value::Bool(false);
    let changes = words::settings(&mut words, &current, |key| {
        Some(match key {
            "max_shard_pipeline" => "max_pipelined",
            "repl_backlog" => "repl_backlog_size",
            "schedpolicy" => "sched_policy",
            _ => return None,
        })
    })?;
    let answer = client.put(&path, &Value::Object(changes))?;
    wait::finished(client, &answer, |_| ())?;
    println!("Tuning database: o");
    println!("Finished successfully");
    Ok(())
}

fn cluster(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let current = client.get("/v1/cluster/policy")?;
    let changes = words::settings(&mut words, &current, |key| {
        Some(match key {
            "redis_migrate_node_threshold" => "redis_migrate_node_threshold_p",
            "redis_provision_node_threshold" => "redis_provision_node_threshold_p",
            _ => return None,
        })
    })?;
    client.put("/v1/cluster/policy", &Value::Object(changes))?;
    println!("Finished successfully");
    Ok(())
}

fn node(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let which = words.expect("the node")?;
    let nodes = if which == "all" {
        let all = client.get("/v1/nodes?fields=uid")?;
        all.as_array().into_iter().flatten().filter_map(|it| it["uid"].as_u64()).collect()
    } else {
        vec![words::node(&which)?]
    };
    let Some(first) = nodes.first() else { bail!("there is no node") };
    let current = client.get(&format!("/v1/nodes/{first}"))?;
    let changes = Value::Object(words::settings(&mut words, &current, |_| None)?);
    for node in nodes {
        client.put(&format!("/v1/nodes/{node}"), &changes)?;
    }
    println!("Finished successfully");
    Ok(())
}

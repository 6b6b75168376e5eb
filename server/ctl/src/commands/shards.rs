//! What moves shards and endpoints: `migrate`, `failover`, `bind`, `placement`, and `verify`, which looks
//! whether any should.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::wait;
use crate::http::Client;
use crate::table::Table;
use crate::words::{self, Words};

pub fn migrate(client: &Client, mut words: Words) -> anyhow::Result<()> {
    if !words.take("shard") {
        bail!("shard is missing: shards are moved one by one");
    }
    let mut body = json!({"shard_uids": shard_uids(&mut words, &["target_node"])});
    while let Some(keyword) = words.next() {
        match keyword.as_str() {
            "target_node" => {
                body["target_node_uid"] = json!(words::node(&words.expect("the node")?)?);
            }
            _ => bail!("{keyword:?} is not understood here"),
        }
    }
    let answer = client.post("/v1/shards/actions/migrate", &body)?;
    println!("Monitoring {}", answer["action_uid"].as_str().unwrap_or_default());
    wait::finished(client, &answer, |action| {
        println!("{} - migrate_shards", wait::progress(action).0);
    })?;
    println!("Done");
    Ok(())
}

pub fn fail_over(client: &Client, mut words: Words) -> anyhow::Result<()> {
    if words.take("db") {
        words::database(client, &words.expect("the database")?)?;
    }
    if !words.take("shard") {
        bail!("shard is missing");
    }
    let body = json!({"shard_uids": shard_uids(&mut words, &["immediate"])});
    words.take("immediate");
    words.end()?;
    let answer = client.post("/v1/shards/actions/failover", &body)?;
    wait::finished(client, &answer, |_| ())?;
    println!("Executing shard fail-over: OOO.");
    println!("Finished successfully");
    Ok(())
}

/// A database whose primary was started without its data goes on without them.
pub fn recover(client: &Client, mut words: Words) -> anyhow::Result<()> {
    if !words.take("db") {
        bail!("db is missing: databases are recovered one by one");
    }
    let uid = words::database(client, &words.expect("the database")?)?;
    let allowed = words.take("allow_data_loss");
    words.end()?;
    let body = json!({"allow_data_loss": allowed});
    client.post(&format!("/v1/bdbs/{uid}/actions/recover"), &body)?;
    println!("Completed successfully");
    Ok(())
}

/// `4` or `redis:4`.
fn shard_uids(words: &mut Words, keywords: &[&str]) -> Vec<String> {
    let bare = |word: String| word.strip_prefix("redis:").unwrap_or(&word).to_owned();
    words.values(keywords).into_iter().map(bare).collect()
}

pub fn bind(client: &Client, mut words: Words) -> anyhow::Result<()> {
    if words.take("db") {
        words::database(client, &words.expect("the database")?)?;
    }
    if !words.take("endpoint") {
        bail!("endpoint is missing");
    }
    let endpoint = words.expect("the endpoint")?;
    let bare = endpoint.strip_prefix("endpoint:").unwrap_or(&endpoint);
    let database: u64 =
        bare.split(':').next().unwrap_or_default().parse().context("the endpoint")?;
    if !words.take("policy") {
        bail!("policy is missing");
    }
    let body = json!({"proxy_policy": words.expect("the policy")?});
    words.end()?;
    let answer = client.put(&format!("/v1/bdbs/{database}"), &body)?;
    wait::finished(client, &answer, |_| ())?;
    println!("Executing bind endpoint: OOO.");
    println!("Finished successfully");
    Ok(())
}

pub fn place(client: &Client, mut words: Words) -> anyhow::Result<()> {
    if !words.take("db") {
        bail!("db is missing");
    }
    let database = words::database(client, &words.expect("the database")?)?;
    let placement = words.expect("dense or sparse")?;
    words.end()?;
    let body = json!({ "shards_placement": placement });
    let answer = client.put(&format!("/v1/bdbs/{database}"), &body)?;
    wait::finished(client, &answer, |_| ())?;
    println!("Shards placement policy is now {placement}");
    Ok(())
}

pub fn verify(client: &Client, mut words: Words) -> anyhow::Result<()> {
    match words.expect("balance or rack_aware")?.as_str() {
        "rack_aware" => {
            let policy = client.get("/v1/cluster/policy")?;
            if policy["rack_aware"] != json!(true) {
                println!("Cluster policy is not configured for rack awareness.");
                return Ok(());
            }
            bail!("racks are not looked at yet");
        }
        "balance" => {
            let node = if words.take("node") {
                Some(words::node(&words.expect("the node")?)?)
            } else {
                None
            };
            balance(client, node)
        }
        other => bail!("{other:?} is neither balance nor rack_aware"),
    }
}

/// Lists endpoints that are on a node without the shards they should have there, or the reverse.
fn balance(client: &Client, only: Option<u64>) -> anyhow::Result<()> {
    let databases = client.get("/v1/bdbs")?;
    let shards = client.get("/v1/shards")?;
    let nodes = client.get("/v1/nodes?fields=uid")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut table = Table::new([
        "NODE:ID",
        "DB:ID",
        "NAME",
        "ENDPOINT:ID",
        "PROXY_POLICY",
        "LOCAL SHARDS",
        "TOTAL SHARDS",
    ]);
    let mut unbalanced = 0;
    for database in list(&databases) {
        let uid = database["uid"].as_u64().unwrap_or(0);
        let own: Vec<_> =
            list(&shards).into_iter().filter(|shard| shard["bdb_uid"] == json!(uid)).collect();
        let masters: Vec<_> = own.iter().filter(|shard| shard["role"] == json!("master")).collect();
        for node in list(&nodes).iter().filter_map(|node| node["uid"].as_u64()) {
            let here = |shard: &&&Value| shard["node_uid"] == json!(node.to_string());
            let local = masters.iter().filter(here).count();
            // Every node serves every database; what counts is whether its primary is split.
            let split = 0 < local && local < masters.len();
            if !split || only.is_some_and(|only| only != node) {
                continue;
            }
            unbalanced += 1;
            table.row(vec![
                format!("node:{node}"),
                format!("db:{uid}"),
                database["name"].as_str().unwrap_or_default().to_owned(),
                format!("endpoint:{uid}:1"),
                database["proxy_policy"].as_str().unwrap_or_default().to_owned(),
                local.to_string(),
                own.len().to_string(),
            ]);
        }
    }
    match unbalanced {
        0 => println!("Cluster is balanced."),
        _ => println!("Cluster is not balanced."),
    }
    println!("BALANCE:");
    print!("{}", table.print());
    Ok(())
}

//! `node`: members of the cluster, one by one.

use anyhow::bail;
use serde_json::{Value, json};

use super::{status, wait};
use crate::http::Client;
use crate::words::{self, Words};

pub fn run(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let node = words::node(&words.expect("the node")?)?;
    match words.expect("what about the node")?.as_str() {
        "remove" => {
            words.values(&[]);
            perform(client, node, "remove", "remove")?;
            let all = client.get("/v1/nodes")?;
            print!("{}", status::nodes_table(client, &all, &status::Options::default())?);
            Ok(())
        }
        "maintenance_mode" => {
            let action = match words.expect("on or off")?.as_str() {
                "on" => "maintenance_on",
                "off" => "maintenance_off",
                other => bail!("{other:?} is neither on nor off"),
            };
            words.end()?;
            perform(client, node, action, action)
        }
        "addr" => {
            if !words.take("set") {
                bail!("set is missing");
            }
            let body = json!({"addr": words.expect("the address")?});
            update(client, node, &body)
        }
        "external_addr" => external_addresses(client, node, words),
        "recovery_path" => {
            if !words.take("set") {
                bail!("set is missing");
            }
            update(client, node, &json!({"recovery_path": words.expect("the path")?}))
        }
        other => bail!("there is no command node {node} {other:?}"),
    }
}

/// Begins work on a node and tells how far it is.
fn perform(client: &Client, node: u64, action: &str, name: &str) -> anyhow::Result<()> {
    let answer = client.post(&format!("/v1/nodes/{node}/actions/{action}"), &json!({}))?;
    wait::finished(client, &answer, |_| ())?;
    println!("Performing {name} action on node:{node}: 100%");
    println!("OK");
    Ok(())
}

fn update(client: &Client, node: u64, body: &Value) -> anyhow::Result<()> {
    client.put(&format!("/v1/nodes/{node}"), body)?;
    println!("Updated successfully.");
    Ok(())
}

fn external_addresses(client: &Client, node: u64, mut words: Words) -> anyhow::Result<()> {
    let action = words.expect("add, remove or set")?;
    let named = words.values(&[]);
    if named.is_empty() {
        bail!("an address is missing");
    }
    let now = client.get(&format!("/v1/nodes/{node}"))?;
    let mut addresses: Vec<String> = now["external_addr"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    match action.as_str() {
        "set" => addresses = named,
        "add" => addresses.extend(named),
        "remove" => addresses.retain(|address| !named.contains(address)),
        other => bail!("{other:?} is none of add, remove, set"),
    }
    update(client, node, &json!({ "external_addr": addresses }))
}

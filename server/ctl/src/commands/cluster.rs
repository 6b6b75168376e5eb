//! `cluster`: making and joining one, its master, certificates and settings.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::wait;
use crate::connection::Connection;
use crate::http::Client;
use crate::table::Table;
use crate::terminal;
use crate::words::{self, Words, switch};

/// For a node to make or join a cluster.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn run(connection: &Connection, mut words: Words) -> anyhow::Result<()> {
    match words.expect("what about the cluster")?.as_str() {
        "create" => create(&connection.client_without_credentials()?, words),
        "join" => join(&connection.client_without_credentials()?, words),
        "master" => master(&connection.client()?, words),
        "config" => config(&connection.client()?, words),
        "certificate" => certificate(&connection.client()?, words),
        "reset_password" => reset_password(&connection.client()?, words),
        "running_actions" => running_actions(&connection.client()?),
        "debug_info" => debug_info(&connection.client()?, words),
        other => bail!("there is no command cluster {other:?}"),
    }
}

fn create(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let mut request = Bootstrap::default();
    while let Some(keyword) = words.next() {
        let mut value = || words.expect(&format!("the value of {keyword}"));
        match keyword.as_str() {
            "name" => request.cluster("name", json!(value()?)),
            "username" | "password" => request.credential(&keyword, json!(value()?)),
            "node_uid" => request.identity("uid", json!(value()?.parse::<u32>()?)),
            "addr" | "rack_id" | "second_rack_id" => request.identity(&keyword, json!(value()?)),
            "external_addr" => request.identity("external_addr", json!(words.values(CREATE))),
            "persistent_path" | "ephemeral_path" | "ccs_persistent_path" => {
                request.path(&keyword, json!(value()?));
            }
            "rack_aware" => request.policy("rack_aware", json!(true)),
            _ => bail!("{keyword:?} is not understood here"),
        }
    }
    request.send(client, "create_cluster")?;
    println!("Creating a new cluster... ok");
    Ok(())
}

/// What ends a list of values.
const CREATE: &[&str] = &[
    "name",
    "username",
    "password",
    "node_uid",
    "addr",
    "rack_id",
    "second_rack_id",
    "external_addr",
    "persistent_path",
    "ephemeral_path",
    "ccs_persistent_path",
    "rack_aware",
];
const JOIN: &[&str] = &[
    "nodes",
    "username",
    "password",
    "addr",
    "rack_id",
    "second_rack_id",
    "external_addr",
    "persistent_path",
    "ephemeral_path",
    "ccs_persistent_path",
    "replace_node",
    "accept_servers",
];

fn join(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let mut request = Bootstrap::default();
    while let Some(keyword) = words.next() {
        match keyword.as_str() {
            "nodes" => request.cluster("nodes", json!(words.values(JOIN))),
            "external_addr" => request.identity("external_addr", json!(words.values(JOIN))),
            _ => {
                let value = words.expect(&format!("the value of {keyword}"))?;
                match keyword.as_str() {
                    "username" | "password" => request.credential(&keyword, json!(value)),
                    "addr" | "rack_id" | "second_rack_id" => {
                        request.identity(&keyword, json!(value));
                    }
                    "replace_node" => request.identity("uid", json!(words::node(&value)?)),
                    "accept_servers" => request.identity(&keyword, json!(switch(&value)?)),
                    "persistent_path" | "ephemeral_path" | "ccs_persistent_path" => {
                        request.path(&keyword, json!(value));
                    }
                    _ => bail!("{keyword:?} is not understood here"),
                }
            }
        }
    }
    request.send(client, "join_cluster")?;
    println!("Joining cluster... ok");
    Ok(())
}

/// The body of a request to create or join.
#[derive(Default)]
struct Bootstrap {
    cluster: Map<String, Value>,
    credentials: Map<String, Value>,
    identity: Map<String, Value>,
    paths: Map<String, Value>,
    policy: Map<String, Value>,
}

impl Bootstrap {
    fn cluster(&mut self, name: &str, value: Value) {
        self.cluster.insert(name.to_owned(), value);
    }

    fn credential(&mut self, name: &str, value: Value) {
        self.credentials.insert(name.to_owned(), value);
    }

    fn identity(&mut self, name: &str, value: Value) {
        self.identity.insert(name.to_owned(), value);
    }

    fn path(&mut self, name: &str, value: Value) {
        self.paths.insert(name.to_owned(), value);
    }

    fn policy(&mut self, name: &str, value: Value) {
        self.policy.insert(name.to_owned(), value);
    }

    /// Asks, and waits until it is done.
    fn send(self, client: &Client, action: &str) -> anyhow::Result<()> {
        let body = json!({
            "action": action,
            "cluster": self.cluster,
            "credentials": self.credentials,
            "node": {"identity": self.identity, "paths": self.paths},
            "policy": self.policy,
        });
        client.post(&format!("/v1/bootstrap/{action}"), &body)?;
        let ends = Instant::now() + PATIENCE;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let answer = client.send("GET", "/v1/bootstrap", None)?;
            // As soon as there is a cluster it asks for credentials, which are the new ones.
            if answer.status == 401 {
                return Ok(());
            }
            let document: Value = serde_json::from_slice(&answer.body)?;
            let status = &document["bootstrap_status"];
            match status["state"].as_str() {
                Some("completed") => return Ok(()),
                Some("error") => bail!(
                    "{} ({})",
                    status["error_details"]["message"].as_str().unwrap_or("it failed"),
                    status["error_code"].as_str().unwrap_or("unknown")
                ),
                _ if ends < Instant::now() => bail!("the node is not done after two minutes"),
                _ => {}
            }
        }
    }
}

fn master(client: &Client, mut words: Words) -> anyhow::Result<()> {
    if words.take("set") {
        let node = words::node(&words.expect("the node")?)?;
        words.end()?;
        let body = json!({"node_uid": node.to_string()});
        client.post("/v1/cluster/actions/change_master", &body)?;
        println!("Node {node} set to be the cluster master node");
        return Ok(());
    }
    words.end()?;
    let status = client.get("/v1/nodes/status")?;
    let nodes = status.as_object().into_iter().flatten();
    let master = nodes.into_iter().find(|(_, node)| node["role"] == json!("master"));
    let (uid, _) = master.context("no node is the master: there is no quorum")?;
    println!("Node {uid} is the cluster master node");
    Ok(())
}

fn config(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let current = client.get("/v1/cluster")?;
    let changes = words::settings(&mut words, &current, |_| None)?;
    client.put("/v1/cluster", &Value::Object(changes))?;
    println!("Cluster configured successfully");
    Ok(())
}

fn certificate(client: &Client, mut words: Words) -> anyhow::Result<()> {
    match words.expect("set, rotate or status")?.as_str() {
        "rotate" => {
            let name = words.next();
            let mut body = name.map_or_else(|| json!({}), |name| json!({ "name": name }));
            if words.take("complete") {
                body["complete"] = json!(true);
            }
            words.end()?;
            client.post("/v1/cluster/certificates/rotate", &body)?;
            println!("Done");
            Ok(())
        }
        "set" => set_certificate(client, words),
        "status" => {
            words.end()?;
            let rows = client.get("/v1/cluster/certificates/status")?;
            let mut table = Table::new([
                "NAME",
                "NODE:ID",
                "MANAGED_BY",
                "DAYS_LEFT",
                "NEXT_ROTATION",
                "SERIAL",
            ]);
            for row in rows.as_array().into_iter().flatten() {
                let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
                table.row(vec![
                    text("name"),
                    format!("node:{}", row["node_uid"]),
                    text("managed_by"),
                    row["days_left"].to_string(),
                    text("next_rotation"),
                    text("serial"),
                ]);
            }
            print!("{}", table.print());
            Ok(())
        }
        other => bail!("there is no command cluster certificate {other:?}"),
    }
}

fn set_certificate(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let name = words.expect("the name of the certificate")?;
    let read = |file: &str| fs::read_to_string(file).with_context(|| file.to_owned());
    if name == "internal" {
        let mut pairs: Map<String, Value> = Map::new();
        while let Some(keyword) = words.next() {
            let (plane, member) = match keyword.as_str() {
                "dpine_certificate_file" => ("data_internode_encryption", "certificate"),
                "dpine_key_file" => ("data_internode_encryption", "key"),
                "cpine_certificate_file" => ("ccs_internode_encryption", "certificate"),
                "cpine_key_file" => ("ccs_internode_encryption", "key"),
                _ => bail!("{keyword:?} is not understood here"),
            };
            let text = read(&words.expect(&format!("the file of {keyword}"))?)?;
            pairs.entry(plane).or_insert_with(|| json!({ "name": plane }))[member] = json!(text);
        }
        let all: Vec<_> = pairs.values().cloned().collect();
        client.put("/v1/cluster/certificates", &json!({ "certificates": all }))?;
        for plane in pairs.keys() {
            println!("Set {plane} certificate");
        }
        return Ok(());
    }
    let mut body = json!({ "name": name });
    let mut file = None;
    while let Some(keyword) = words.next() {
        let path = words.expect(&format!("the file of {keyword}"))?;
        match keyword.as_str() {
            "certificate_file" => {
                body["certificate"] = json!(read(&path)?);
                file = Some(path);
            }
            "key_file" => body["key"] = json!(read(&path)?),
            _ => bail!("{keyword:?} is not understood here"),
        }
    }
    let file = file.context("certificate_file is missing")?;
    client.put("/v1/cluster/certificates", &json!({"certificates": [body]}))?;
    println!("Set {name} certificate to contents of file {file}");
    Ok(())
}

fn reset_password(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let email = words.expect("the user's e-mail address")?;
    words.end()?;
    let first = terminal::secret("New password: ")?;
    let second = terminal::secret("New password again: ")?;
    if first != second {
        bail!("the two are not the same");
    }
    client.put("/v1/users/password", &json!({"username": email, "new_password": first}))?;
    println!("Password changed.");
    Ok(())
}

fn running_actions(client: &Client) -> anyhow::Result<()> {
    let all = client.get("/v2/actions")?;
    let running: Vec<_> = all
        .as_array()
        .into_iter()
        .flatten()
        .filter(|action| ["queued", "running"].contains(&wait::progress(action).0))
        .collect();
    println!("Got {} tasks:", running.len());
    for (number, action) in running.iter().enumerate() {
        let about = &action["additional_info"];
        let kind = match about["object_type"].as_str() {
            Some("node") => "Node",
            Some("bdb") => "Database",
            _ => "Cluster",
        };
        println!(
            "{}) Task: {} ({}) {kind}: {} Status: {}",
            number + 1,
            action["name"].as_str().unwrap_or_default(),
            action["action_uid"].as_str().unwrap_or_default(),
            about["object_uid"].as_str().unwrap_or_default(),
            wait::progress(action).0,
        );
    }
    Ok(())
}

fn debug_info(client: &Client, mut words: Words) -> anyhow::Result<()> {
    let mut folder = ".".to_owned();
    while let Some(keyword) = words.next() {
        match keyword.as_str() {
            "path" => folder = words.expect("the folder")?,
            _ => bail!("{keyword:?} is not understood here"),
        }
    }
    let answer = client.send("GET", "/v1/cluster/debuginfo", None)?;
    if answer.status != 200 {
        bail!("status {}", answer.status);
    }
    let file = format!("{folder}/debuginfo.tar.gz");
    fs::write(&file, answer.body).with_context(|| file.clone())?;
    println!("Preparing the debug info files package");
    println!("Downloading complete. File {file} is saved.");
    Ok(())
}

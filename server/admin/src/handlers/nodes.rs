//! `/v1/nodes`: members, how they are, and what is done to them.

use std::sync::Arc;

use carnelian_cluster::state::{
    Action, ActionKind, Change, Node, NodePatch, NodeUid, Object, Outcome, State,
};
use serde_json::{Map, Value, json};

use crate::admin::{Admin, action_id};
use crate::answer::{Answer, Refusal, Reply};
use crate::auth::Right;
use crate::live::{Figures, LocalNode};
use crate::request::Request;
use crate::routes::{Route, Run, delete, get, later, post, put};
use crate::time;

pub const ROUTES: &[Route] = &[
    get("/v1/nodes", Right::See, later!(list), "All nodes").lists("Node"),
    get("/v1/nodes/{uid}", Right::See, later!(show), "A node").gives("Node"),
    put("/v1/nodes/{uid}", Right::Cluster, later!(update), "Change a node")
        .takes("Node")
        .gives("Node"),
    delete("/v1/nodes/{uid}", Right::Cluster, later!(remove), "Remove a node"),
    get("/v1/nodes/status", Right::See, later!(list_status), "How all nodes are"),
    get("/v1/nodes/{uid}/status", Right::See, later!(show_status), "How a node is"),
    get("/v1/nodes/actions", Right::See, Run::Now(list_actions), "Work on nodes"),
    get("/v1/nodes/{uid}/actions", Right::See, Run::Now(node_actions), "Work on a node"),
    get("/v1/nodes/{uid}/actions/{action}", Right::See, Run::Now(node_action), "One piece of it"),
    post("/v1/nodes/{uid}/actions/{action}", Right::Cluster, later!(act), "Begin work on a node"),
    get("/v1/nodes/{uid}/debuginfo", Right::Cluster, later!(debuginfo), "INFO of all on a node")
        .downloads(),
    get("/v1/debuginfo/node", Right::Cluster, later!(own_debuginfo), "The same of this node")
        .downloads(),
    get("/v1/proxies", Right::See, Run::Now(proxies), "What takes clients, on each node"),
    get("/v1/proxies/{uid}", Right::See, Run::Now(proxy), "What takes clients on a node"),
];

const MISSING: &str = "node_not_found";

fn find<'a>(state: &'a State, request: &Request) -> Result<&'a Node, Refusal> {
    let uid = request.uid(MISSING)?;
    let missing = || Refusal::not_found(MISSING, format!("There is no node {uid}"));
    state.nodes.get(&uid.into()).ok_or_else(missing)
}

async fn list(admin: Arc<Admin>, request: Request) -> Reply {
    let state = admin.state();
    let mut nodes = Vec::new();
    for node in state.nodes.values() {
        nodes.push(document(&state, node, admin.figures(node.uid).await.as_ref()));
    }
    Ok(request.select(Value::Array(nodes)).into())
}

async fn show(admin: Arc<Admin>, request: Request) -> Reply {
    let state = admin.state();
    let node = find(&state, &request)?;
    let figures = admin.figures(node.uid).await;
    Ok(request.select(document(&state, node, figures.as_ref())).into())
}

/// `GET /v1/nodes/{uid}`. Without figures it says what the cluster knows.
fn document(state: &State, node: &Node, figures: Option<&Figures>) -> Value {
    let shards: Vec<u32> =
        crate::handlers::shards::on_node(state, node.uid).map(|shard| shard.uid.0).collect();
    let mut wire = serde_json::to_value(&node.facts).unwrap_or_default();
    let settings = serde_json::to_value(&node.settings).unwrap_or_default();
    let more = json!({
        "uid": node.uid.0,
        "status": node.status,
        "bigredis_storage_path": node.facts.persistent_storage_path,
        "bigstore_enabled": false,
        "shard_count": shards.len(),
        "shard_list": shards,
        "ram_shard_count": shards.len(),
        "flash_shard_count": 0,
        "supported_database_versions": supported_versions(),
        "system_time": time::format(time::now_s()),
        "use_internal_ipv6": node.settings.addr.contains(':'),
        "fips_enabled": false,
        "in_maintenance": node.in_maintenance,
    });
    if let Value::Object(wire) = &mut wire {
        for part in [settings, more] {
            if let Value::Object(part) = part {
                wire.extend(part);
            }
        }
        if let Some(figures) = figures {
            wire.insert("uptime".into(), json!(figures.uptime_s));
        }
        // Sizes are fractional numbers on the wire.
        for name in ["ephemeral_storage_size", "persistent_storage_size"] {
            if let Some(size) = wire.get(name).and_then(Value::as_u64) {
                wire.insert(name.into(), json!(size as f64));
            }
        }
    }
    wire
}

/// What a node says of each database that it has a shard of: of links between nodes as well, which no port of
/// a database tells of where it has no primary.
async fn debuginfo(admin: Arc<Admin>, request: Request) -> Reply {
    let node = find(&admin.state(), &request)?.uid;
    packed(&admin, node).await
}

async fn own_debuginfo(admin: Arc<Admin>, _: Request) -> Reply {
    let missing = || Refusal::not_found(MISSING, "This node is in no cluster");
    packed(&admin, admin.plane.node().ok_or_else(missing)?).await
}

async fn packed(admin: &Admin, node: NodeUid) -> Reply {
    let silent = || Refusal::new(503, "node_unavailable", format!("Node {node} does not answer"));
    let files: Vec<(String, Vec<u8>)> =
        info_files(&admin.figures(node).await.ok_or_else(silent)?).collect();
    let bytes = crate::tar::tar_gz(&files);
    Ok(Answer::File { name: "debuginfo.tar.gz", content_type: "application/x-gzip", bytes })
}

/// The text of INFO of each database, as files.
pub fn info_files(figures: &Figures) -> impl Iterator<Item = (String, Vec<u8>)> {
    let files = figures.info.iter();
    files.map(|(uid, text)| (format!("database-{uid}/info.txt"), text.clone().into_bytes()))
}

pub fn supported_versions() -> Value {
    json!([{
        "db_type": "redis",
        "version": carnelian_cluster::state::Database::VERSION,
        "redis_version": "8.0",
        "major": true,
    }])
}

pub fn addresses(local: &LocalNode) -> Value {
    let rows = local.addresses.iter().map(|found| {
        let (format, private) = match found.address {
            std::net::IpAddr::V4(address) => {
                ("ipv4", address.is_private() || address.is_loopback() || address.is_link_local())
            }
            std::net::IpAddr::V6(address) => (
                "ipv6",
                address.is_loopback()
                    || address.is_unique_local()
                    || address.is_unicast_link_local(),
            ),
        };
        json!({
            "address": found.address.to_string(),
            "format": format,
            "if_name": found.interface,
            "private": private,
        })
    });
    Value::Array(rows.collect())
}

async fn update(admin: Arc<Admin>, request: Request) -> Reply {
    let mut body = request.object()?;
    let node = find(&admin.state(), &request)?.uid;
    if let Some(Value::String(one)) = body.get("external_addr") {
        body["external_addr"] = json!([one]);
    }
    if !request.is_strict() {
        body.retain(|name, _| carnelian_cluster::state::NodeSettings::knows(name));
    }
    let patch = NodePatch::parse(&Value::Object(body), request.is_strict())?;
    let change = Change::UpdateNode { node, patch: Box::new(patch) };
    let state = if request.is_dry_run() {
        Arc::new(admin.plane.rehearse(&change)?)
    } else {
        admin.change(change).await?;
        admin.state()
    };
    let figures = admin.figures(node).await;
    Ok(document(&state, find(&state, &request)?, figures.as_ref()).into())
}

async fn list_status(admin: Arc<Admin>, _: Request) -> Reply {
    let state = admin.state();
    let mut wire = Map::new();
    for node in state.nodes.values() {
        wire.insert(node.uid.to_string(), status(&admin, &state, node).await);
    }
    Ok(Value::Object(wire).into())
}

async fn show_status(admin: Arc<Admin>, request: Request) -> Reply {
    let state = admin.state();
    Ok(status(&admin, &state, find(&state, &request)?).await.into())
}

async fn status(admin: &Admin, state: &State, node: &Node) -> Value {
    let shards: Vec<_> = crate::handlers::shards::on_node(state, node.uid).collect();
    let masters = shards.iter().filter(|shard| shard.is_primary).count();
    let mut wire = json!({
        "hostname": node.facts.hostname,
        "role": if admin.plane.leader() == Some(node.uid) { "master" } else { "slave" },
        "node_status": node.status,
        "cores": node.facts.cores,
        "total_memory": node.facts.total_memory,
        "node_overbooking_depth": 0,
        "master_shards": masters,
        "slave_shards": shards.len() - masters,
        "software_version": node.facts.software_version,
        "software_version_sha": "",
    });
    if let Some(figures) = admin.figures(node.uid).await {
        wire["free_ram"] = json!(figures.free_memory);
        wire["free_provisional_ram"] = json!(figures.available_memory);
        wire["total_provisional_ram"] = json!(figures.total_memory);
        wire["total_memory"] = json!(figures.total_memory);
    }
    wire
}

fn list_actions(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    let rows: Vec<_> = state.actions.values().filter_map(action_row).collect();
    Ok(json!({ "actions": rows }).into())
}

fn node_actions(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    let node = find(&state, request)?.uid;
    let rows: Vec<_> = of_node(&state, node).filter_map(action_row).collect();
    Ok(json!({ "actions": rows }).into())
}

fn node_action(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    let node = find(&state, request)?.uid;
    let name = request.parameter("action");
    let newest = of_node(&state, node)
        .filter(|action| names(action.kind).contains(&name))
        .max_by_key(|action| action.created);
    let missing = || Refusal::not_found("action_not_found", format!("There is no {name:?} here"));
    newest.and_then(action_row).map(Into::into).ok_or_else(missing)
}

fn of_node(state: &State, node: NodeUid) -> impl Iterator<Item = &Action> {
    state.actions.values().filter(move |action| action.object == Object::Node(node))
}

/// The names that a kind of work goes by in paths.
fn names(kind: ActionKind) -> &'static [&'static str] {
    match kind {
        ActionKind::RemoveNode => &["remove", "remove_node"],
        ActionKind::MaintenanceOn => &["maintenance_on"],
        ActionKind::MaintenanceOff => &["maintenance_off"],
        _ => &[],
    }
}

fn action_row(action: &Action) -> Option<Value> {
    let Object::Node(node) = action.object else { return None };
    Some(json!({
        "name": action.kind.name(),
        "node_uid": node.to_string(),
        "status": crate::handlers::actions::task_status(action),
        "progress": action.progress,
        "action_uid": action.id,
    }))
}

async fn remove(admin: Arc<Admin>, request: Request) -> Reply {
    let node = find(&admin.state(), &request)?.uid;
    let action = action_id()?;
    begin(&admin, &request, Change::RemoveNode { node, action }).await
}

async fn act(admin: Arc<Admin>, request: Request) -> Reply {
    let node = find(&admin.state(), &request)?.uid;
    let action = action_id()?;
    let change = match request.parameter("action") {
        "remove" => Change::RemoveNode { node, action },
        "maintenance_on" => Change::SetMaintenance { node, on: true, action },
        "maintenance_off" => Change::SetMaintenance { node, on: false, action },
        other => {
            let why = format!("There is no action {other:?} for nodes");
            return Err(Refusal::not_found("action_not_found", why));
        }
    };
    // Read, so that a wrong type is told of; what it holds changes nothing.
    request.object()?;
    begin(&admin, &request, change).await
}

async fn begin(admin: &Admin, request: &Request, change: Change) -> Reply {
    if request.is_dry_run() {
        admin.plane.rehearse(&change)?;
        return Ok(json!({}).into());
    }
    Ok(match admin.change(change).await? {
        Outcome::Action(action) => json!({ "action_uid": action }).into(),
        _ => json!({}).into(),
    })
}

fn proxies(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    let all: Vec<_> = state.nodes.values().map(proxy_row).collect();
    Ok(Value::Array(all).into())
}

fn proxy(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    Ok(proxy_row(find(&state, request)?).into())
}

/// There is no process apart that takes clients: the node itself does.
fn proxy_row(node: &Node) -> Value {
    json!({
        "uid": node.uid.0,
        "max_listeners": node.settings.max_listeners,
        "max_servers": node.settings.max_redis_servers,
        "dynamic_threads_scaling": false,
    })
}

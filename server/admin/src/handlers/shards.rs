//! `/v1/shards`: the replicated parts of databases, where they are, and changing roles.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use carnelian_cluster::placement::{self, Blueprint};
use carnelian_cluster::state::{
    Change, Database, DatabaseUid, NodeStatus, NodeUid, Outcome, ShardUid, State,
};
use serde_json::{Map, Value, json};

use crate::admin::{Admin, action_id};
use crate::answer::{Refusal, Reply};
use crate::auth::Right;
use crate::bootstrap::small;
use crate::handlers::bdbs;
use crate::info;
use crate::live::Figures;
use crate::request::Request;
use crate::routes::{Route, get, later, post, put};
use crate::time;

pub const ROUTES: &[Route] = &[
    get("/v1/shards", Right::See, later!(list), "All shards").lists("Shard"),
    get("/v1/shards/{uid}", Right::See, later!(show), "A shard").gives("Shard"),
    post("/v1/shards/actions/failover", Right::Databases, later!(fail_over), "Change roles"),
    post(
        "/v1/shards/{uid}/actions/failover",
        Right::Databases,
        later!(fail_over_one),
        "Make a replica of this primary the primary",
    ),
    post("/v1/shards/actions/migrate", Right::Databases, later!(migrate), "Move shards"),
    post("/v1/shards/{uid}/actions/migrate", Right::Databases, later!(migrate_one), "Move a shard"),
    put(
        "/v1/bdbs/{uid}/actions/rebalance",
        Right::Databases,
        later!(rebalance),
        "Move its shards to where nodes have fewer; with dry_run tells where that is. \
         only_failovers: changes roles only. max_operations: at most so many moves",
    ),
];

/// A shard of the state: a database's data on one node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shard {
    pub uid: ShardUid,
    pub database: DatabaseUid,
    pub node: NodeUid,
    pub is_primary: bool,
}

/// The primary first.
pub fn of(database: &Database) -> impl Iterator<Item = Shard> {
    let places = database.placement.nodes().zip(&database.shards).enumerate();
    places.map(|(place, (node, uid))| Shard {
        uid: *uid,
        database: database.uid,
        node,
        is_primary: place == 0,
    })
}

pub fn all(state: &State) -> impl Iterator<Item = Shard> {
    state.databases.values().flat_map(of)
}

pub fn on_node(state: &State, node: NodeUid) -> impl Iterator<Item = Shard> {
    all(state).filter(move |shard| shard.node == node)
}

const MISSING: &str = "shard_not_exist";

fn find(state: &State, uid: u32) -> Result<Shard, Refusal> {
    let missing = || Refusal::not_found(MISSING, format!("There is no shard {uid}"));
    all(state).find(|shard| shard.uid.0 == uid).ok_or_else(missing)
}

async fn list(admin: Arc<Admin>, request: Request) -> Reply {
    let state = admin.state();
    let shards: Vec<_> = all(&state).collect();
    Ok(request.select(Value::Array(documents(&admin, &state, &shards, &request).await)).into())
}

async fn show(admin: Arc<Admin>, request: Request) -> Reply {
    let state = admin.state();
    let shard = find(&state, request.uid(MISSING)?)?;
    let mut shown = documents(&admin, &state, &[shard], &request).await;
    Ok(shown.pop().unwrap_or_default().into())
}

pub async fn of_database(
    admin: &Admin,
    state: &State,
    database: &Database,
    request: &Request,
) -> Vec<Value> {
    let shards: Vec<_> = of(database).collect();
    documents(admin, state, &shards, request).await
}

async fn documents(
    admin: &Admin,
    state: &State,
    shards: &[Shard],
    request: &Request,
) -> Vec<Value> {
    let mut figures: BTreeMap<NodeUid, Option<Figures>> = BTreeMap::new();
    for shard in shards {
        if let Entry::Vacant(place) = figures.entry(shard.node) {
            place.insert(admin.figures(shard.node).await);
        }
    }
    let document = |shard: &Shard| {
        let known = figures.get(&shard.node).and_then(Option::as_ref);
        let text = known.and_then(|known| known.info.get(&shard.database.0));
        document(state, *shard, text.map(String::as_str), request)
    };
    shards.iter().map(document).collect()
}

fn document(state: &State, shard: Shard, info_text: Option<&str>, request: &Request) -> Value {
    let is_down = state.nodes.get(&shard.node).is_none_or(|node| node.status == NodeStatus::Down);
    let fields = info_text.map(info::fields).unwrap_or_default();
    let field = |name: &str| fields.get(name).map(String::as_str);
    let detailed = match (is_down, info_text) {
        (true, _) => "down",
        (false, None) => "unknown",
        (false, Some(_)) if field("loading") == Some("1") => "loading",
        (false, Some(_)) => "ok",
    };
    let mut asked = Map::new();
    for name in request.query.all("extra_info_keys") {
        if let Some(value) = fields.get(name) {
            asked.insert(name.to_owned(), json!(value));
        }
    }
    let mut wire = json!({
        "uid": shard.uid.to_string(),
        "bdb_uid": shard.database.0,
        "node_uid": shard.node.to_string(),
        "role": if shard.is_primary { "master" } else { "slave" },
        "status": if is_down { "inactive" } else { "active" },
        "detailed_status": detailed,
        "assigned_slots": "0-16383",
        "loading": {"status": if detailed == "loading" { "loading" } else { "idle" }},
        "redis_info": asked,
        "report_timestamp": time::format(time::now_s()),
    });
    if !shard.is_primary
        && let Some(link) = field("master_link_status")
    {
        let in_progress = field("master_sync_in_progress") == Some("1");
        let status = match (link, in_progress) {
            ("up", _) => "link_up",
            (_, true) => "in_progress",
            _ => "link_down",
        };
        wire["sync"] = json!({"status": status, "progress": if in_progress { 0 } else { 100 }});
    }
    wire
}

async fn fail_over_one(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = request.uid(MISSING)?;
    request.object()?;
    promote(&admin, &[uid], request.is_dry_run()).await
}

async fn fail_over(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    let uids = uids(&body)?;
    if uids.is_empty() {
        return Err(Refusal::not_found("shard_uids_required", "shard_uids is needed"));
    }
    let is_dry_run = request.is_dry_run() || body.get("dry_run") == Some(&json!(true));
    promote(&admin, &uids, is_dry_run).await
}

/// Uids of shards: texts on the wire; numbers are taken too.
fn uids(body: &Map<String, Value>) -> Result<Vec<u32>, Refusal> {
    let wrong = || Refusal::schema("shard_uids: a list of uids is expected");
    let Some(list) = body.get("shard_uids") else { return Ok(Vec::new()) };
    let list = list.as_array().ok_or_else(wrong)?;
    let uid = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    list.iter().map(|value| uid(value).ok_or_else(wrong)).collect()
}

async fn promote(admin: &Admin, uids: &[u32], is_dry_run: bool) -> Reply {
    let state = admin.state();
    let mut chosen: Option<&Database> = None;
    for uid in uids {
        let shard = find(&state, *uid)?;
        if !shard.is_primary {
            let why = format!("Shard {uid} is a replica");
            return Err(Refusal::new(400, "shard_is_slave", why));
        }
        let database = &state.databases[&shard.database];
        if chosen.is_some_and(|chosen| chosen.uid != database.uid) {
            let why = "The shards are of different databases";
            return Err(Refusal::new(400, "failover_shards_different_bdb", why));
        }
        chosen = Some(database);
    }
    let Some(database) = chosen else {
        return Err(Refusal::not_found("shard_uids_required", "shard_uids is needed"));
    };
    let is_up =
        |node: &NodeUid| state.nodes.get(node).is_some_and(|node| node.status != NodeStatus::Down);
    let node = best_replica(admin, database, is_up).await.ok_or_else(|| {
        let why = "The database has no replica that could take over";
        Refusal::new(400, "no_replica", why)
    })?;
    let action = action_id()?;
    let change = Change::Promote {
        database: database.uid,
        node,
        epoch: database.placement.epoch,
        action: Some(action.clone()),
        holder: None,
    };
    let description = format!("bdb:{}: node {node} becomes the primary", database.uid);
    if is_dry_run {
        admin.plane.rehearse(&change)?;
        return Ok(json!({ "description": description }).into());
    }
    let action = match admin.change(change).await? {
        Outcome::Action(begun) => begun,
        _ => action,
    };
    Ok(json!({"action_uid": action, "description": description}).into())
}

/// The replica that has the most of the primary's effects.
async fn best_replica(
    admin: &Admin,
    database: &Database,
    is_up: impl Fn(&NodeUid) -> bool,
) -> Option<NodeUid> {
    let mut best: Option<(u64, NodeUid)> = None;
    for node in database.placement.replicas.iter().filter(|node| is_up(node)) {
        let figures = admin.figures(*node).await;
        let offset = figures
            .and_then(|figures| {
                let fields = info::fields(figures.info.get(&database.uid.0)?);
                fields.get("slave_repl_offset")?.parse().ok()
            })
            .unwrap_or(0);
        if best.is_none_or(|(most, _)| most < offset) {
            best = Some((offset, *node));
        }
    }
    best.map(|(_, node)| node)
}

async fn migrate_one(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = request.uid(MISSING)?;
    move_shards(&admin, &request, &[uid]).await
}

async fn migrate(admin: Arc<Admin>, request: Request) -> Reply {
    let uids = uids(&request.object()?)?;
    if uids.is_empty() {
        return Err(Refusal::not_found("shard_uids_required", "shard_uids is needed"));
    }
    move_shards(&admin, &request, &uids).await
}

/// A replica moves by being made elsewhere. A primary is first made a replica, by a failover.
async fn move_shards(admin: &Admin, request: &Request, uids: &[u32]) -> Reply {
    let body = request.object()?;
    let target: NodeUid = small(&body, "target_node_uid")?
        .ok_or_else(|| Refusal::schema("target_node_uid is needed"))?
        .into();
    let state = admin.state();
    if !state.is_member(target) {
        return Err(Refusal::not_found("node_not_found", format!("There is no node {target}")));
    }
    let mut changes: Vec<(DatabaseUid, Change)> = Vec::new();
    let action = action_id()?;
    for uid in uids {
        let shard = find(&state, *uid)?;
        let database = &state.databases[&shard.database];
        if shard.is_primary {
            let why = format!("Shard {uid} is a primary: make it a replica first, by a failover");
            return Err(Refusal::new(400, "shard_is_master", why));
        }
        if database.placement.nodes().any(|node| node == target) {
            let why = format!("Node {target} has a shard of database {} already", database.uid);
            return Err(Refusal::new(409, "shards_on_same_node", why));
        }
        if changes.iter().any(|(other, _)| *other == database.uid) {
            let why = format!("Shard {uid}: one shard of a database is moved at a time");
            return Err(Refusal::new(409, "busy", why));
        }
        let replicas = database.placement.replicas.iter();
        let replicas =
            replicas.map(|node| if *node == shard.node { target } else { *node }).collect();
        let change = Change::SetReplicas {
            database: database.uid,
            replicas,
            epoch: database.placement.epoch,
            // The one that is told of is the first.
            action: Some(if changes.is_empty() { action.clone() } else { action_id()? }),
        };
        changes.push((database.uid, change));
    }
    // Before the first is made, all of them could be.
    for (_, change) in &changes {
        admin.plane.rehearse(change)?;
    }
    if request.is_dry_run() || body.get("dry_run") == Some(&json!(true)) {
        return Ok(json!({}).into());
    }
    for (_, change) in changes {
        admin.change(change).await?;
    }
    Ok(json!({ "action_uid": action }).into())
}

/// One step at a time, in the background: nothing is given up before what takes its place has all data.
async fn rebalance(admin: Arc<Admin>, request: Request) -> Reply {
    let state = admin.state();
    let database = bdbs::find(&state, &request)?;
    request.object()?;
    let most = match request.query.get("max_operations") {
        None => usize::MAX,
        Some(text) => text.parse::<u32>().map_err(|_| {
            Refusal::new(400, "invalid_param", "max_operations: a number is expected")
        })? as usize,
    };
    let only_failovers = switch(&request, "only_failovers")?;
    let is_dry_run = switch(&request, "dry_run")?;
    let Blueprint { primary, replicas } =
        placement::balanced(&state, database, only_failovers, most);
    let blueprint = blueprint(primary, &replicas);
    let change = Change::Rebalance {
        database: database.uid,
        primary,
        replicas,
        epoch: database.placement.epoch,
        action: action_id()?,
    };
    if is_dry_run {
        admin.plane.rehearse(&change)?;
        return Ok(blueprint.into());
    }
    match admin.change(change).await? {
        Outcome::Action(action) => Ok(json!({ "action_uid": action }).into()),
        _ => Ok(json!({}).into()),
    }
}

/// There is one primary, which has all slots.
fn blueprint(primary: NodeUid, replicas: &[NodeUid]) -> Value {
    let node = |node: &NodeUid, role: &str| json!({"node_uid": node.to_string(), "role": role});
    let mut nodes = vec![node(&primary, "master")];
    nodes.extend(replicas.iter().map(|replica| node(replica, "slave")));
    json!([{"nodes": nodes, "slot_range": "0-16383"}])
}

/// A switch of the query that is not to be mistaken: shards move by it.
fn switch(request: &Request, name: &str) -> Result<bool, Refusal> {
    match request.query.get(name) {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(_) => {
            Err(Refusal::new(400, "invalid_param", format!("{name}: true or false is expected")))
        }
    }
}

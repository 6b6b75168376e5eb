//! `/v1/bdbs`: databases are made, changed and removed.

use std::sync::Arc;

use carnelian_cluster::state::{
    ActionId, Change, Database, DatabasePatch, DatabaseUid, Outcome, State, WirePatch,
};
use serde_json::{Map, Value, json};

use crate::admin::{Admin, action_id, random_text};
use crate::answer::{Refusal, Reply};
use crate::auth::{Caller, Right};
use crate::bootstrap::flag;
use crate::request::Request;
use crate::routes::{Route, Run, delete, get, later, post, put};

pub const ROUTES: &[Route] = &[
    get("/v1/bdbs", Right::See, Run::Now(list), "All databases").lists("Database"),
    post("/v1/bdbs", Right::Databases, later!(create), "Create a database")
        .takes("Database")
        .gives("Database"),
    post("/v2/bdbs", Right::Databases, later!(create_v2), "Create a database").gives("Database"),
    get("/v1/bdbs/{uid}", Right::See, Run::Now(show), "A database").gives("Database"),
    put("/v1/bdbs/{uid}", Right::Databases, later!(update), "Change a database")
        .takes("Database")
        .gives("Database"),
    put("/v1/bdbs/{uid}/{action}", Right::Databases, later!(act), "flush, or reset_admin_pass")
        .takes("Database")
        .gives("Database"),
    post(
        "/v1/bdbs/{uid}/actions/recover",
        Right::Databases,
        later!(recover),
        "Go on with the data that the primary has, whatever a replica that is away may have",
    ),
    delete("/v1/bdbs/{uid}", Right::Databases, later!(remove), "Delete a database"),
];

const NAME: &str = "db_not_exist";

pub fn find<'a>(state: &'a State, request: &Request) -> Result<&'a Database, Refusal> {
    let uid = request.uid(NAME)?;
    state.databases.get(&uid.into()).ok_or_else(|| missing(uid))
}

fn missing(uid: u32) -> Refusal {
    Refusal::not_found(NAME, format!("There is no database {uid}"))
}

fn list(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    let all = state.databases.values();
    let wire: Vec<_> = all.map(|database| document(&state, database, &request.caller)).collect();
    Ok(request.select(Value::Array(wire)).into())
}

fn show(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    let database = find(&state, request)?;
    Ok(request.select(document(&state, database, &request.caller)).into())
}

/// `GET /v1/bdbs/{uid}`
pub fn document(state: &State, database: &Database, caller: &Caller) -> Value {
    let mut wire = database.to_wire();
    wire["endpoints"] = endpoints(state, database);
    // Passwords are for those who could set them.
    let masks = state.cluster.as_ref().is_none_or(|it| it.settings.mask_bdb_credentials);
    if masks || !caller.may(Right::Databases) {
        wire["authentication_redis_pass"] = json!("");
        wire["authentication_admin_pass"] = json!("");
    }
    if let Some(sources) = wire["replica_sources"].as_array_mut() {
        sources.iter_mut().for_each(mask_source);
    }
    wire
}

/// The address of a source can hold a password.
fn mask_source(source: &mut Value) {
    for name in ["uri", "client_key", "password"] {
        if let Some(value) = source.get_mut(name) {
            *value = json!("");
        }
    }
}

pub fn endpoints(state: &State, database: &Database) -> Value {
    let settings = &database.settings;
    let name = state.cluster.as_ref().map_or("", |cluster| cluster.name.as_str());
    let policy = settings.proxy_policy;
    let address = |external: bool| -> Vec<String> {
        let nodes = state.nodes.values();
        nodes
            .flat_map(|node| {
                if external {
                    node.settings.external_addr.clone()
                } else {
                    vec![node.settings.addr.clone()]
                }
            })
            .filter(|address| !address.is_empty())
            .collect()
    };
    let endpoint = |kind: &str, addresses: Vec<String>, host: String| {
        json!({
            "uid": format!("{}:1", database.uid),
            "addr": addresses,
            "addr_type": kind,
            "dns_name": host,
            "port": database.port,
            "proxy_policy": policy,
            "oss_cluster_api_preferred_ip_type": settings.oss_cluster_api_preferred_ip_type,
            "oss_cluster_api_preferred_endpoint_type":
                settings.oss_cluster_api_preferred_endpoint_type,
            "exclude_proxies": [],
            "include_proxies": [],
        })
    };
    let host = format!("redis-{}.{name}", database.port);
    let inner = format!("redis-{}.internal.{name}", database.port);
    let mut endpoints = vec![endpoint("internal", address(false), inner)];
    let external = address(true);
    if external.is_empty() {
        // One address is both, and clients look for the external one.
        endpoints = vec![endpoint("external", address(false), host)];
    } else {
        endpoints.insert(0, endpoint("external", external, host));
    }
    Value::Array(endpoints)
}

async fn create(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    create_from(&admin, &request, body).await
}

/// The same, wrapped.
async fn create_v2(admin: Arc<Admin>, request: Request) -> Reply {
    match request.object()?.remove("bdb") {
        Some(Value::Object(body)) => create_from(&admin, &request, body).await,
        _ => Err(Refusal::schema("bdb: an object is needed")),
    }
}

async fn create_from(admin: &Admin, request: &Request, body: Map<String, Value>) -> Reply {
    let spec = parse(&body, request)?;
    if spec.patch.name.is_none() {
        return Err(Refusal::not_acceptable("missing_db_name", "name is needed"));
    }
    if spec.patch.memory_size.is_none() {
        return Err(Refusal::not_acceptable("missing_memory_size", "memory_size is needed"));
    }
    let change = Change::CreateDatabase {
        spec: Box::new(spec),
        on: None,
        admin_password: random_text(48)?,
        action: action_id()?,
    };
    if request.is_dry_run() {
        let state = admin.plane.rehearse(&change)?;
        let known = admin.state();
        let created = state.databases.iter().find(|(uid, _)| !known.databases.contains_key(uid));
        let (_, database) = created.ok_or_else(|| missing(0))?;
        return Ok(document(&state, database, &request.caller).into());
    }
    match admin.change(change).await? {
        Outcome::Database { uid, action } => answer(admin, uid, action, &request.caller),
        _ => Err(Refusal::new(500, "internal_error", "The database has no uid")),
    }
}

/// The database as it is now, with the work that its change has begun.
fn answer(admin: &Admin, uid: DatabaseUid, action: Option<ActionId>, caller: &Caller) -> Reply {
    let state = admin.state();
    let database = state.databases.get(&uid).ok_or_else(|| missing(uid.0))?;
    let mut wire = document(&state, database, caller);
    if let Some(action) = action {
        wire["action_uid"] = json!(action);
    }
    Ok(wire.into())
}

fn parse(body: &Map<String, Value>, request: &Request) -> Result<WirePatch, Refusal> {
    Ok(DatabasePatch::from_wire(&Value::Object(body.clone()), request.is_strict())?)
}

async fn update(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    let uid = find(&admin.state(), &request)?.uid;
    apply(&admin, &request, uid, &body).await
}

async fn apply(
    admin: &Admin,
    request: &Request,
    uid: DatabaseUid,
    body: &Map<String, Value>,
) -> Reply {
    let patch = parse(body, request)?;
    if patch.uid.is_some_and(|named| named != uid) {
        let why = "A database keeps its uid";
        return Err(Refusal::not_acceptable("uid_change_not_allowed", why));
    }
    let patch = WirePatch { uid: None, ..patch };
    let change =
        Change::UpdateDatabase { database: uid, patch: Box::new(patch), action: action_id()? };
    if request.is_dry_run() {
        let state = admin.plane.rehearse(&change)?;
        let database = state.databases.get(&uid).ok_or_else(|| missing(uid.0))?;
        return Ok(document(&state, database, &request.caller).into());
    }
    match admin.change(change).await? {
        Outcome::Database { action, .. } => answer(admin, uid, action, &request.caller),
        Outcome::Action(action) => answer(admin, uid, Some(action), &request.caller),
        _ => answer(admin, uid, None, &request.caller),
    }
}

/// `flush` and `reset_admin_pass`: the body, a part of the database, is applied first.
async fn act(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = find(&admin.state(), &request)?.uid;
    let body = request.object()?;
    match request.parameter("action") {
        "flush" => {
            if !body.is_empty() {
                apply(&admin, &request, uid, &body).await?;
            }
            if !request.is_dry_run() {
                admin.live.command(uid.0, vec!["FLUSHALL".into()]).await?;
            }
            answer(&admin, uid, None, &request.caller)
        }
        "reset_admin_pass" => {
            let mut body = body;
            body.insert("authentication_admin_pass".into(), json!(random_text(48)?));
            apply(&admin, &request, uid, &body).await
        }
        other => Err(Refusal::not_found("not_found", format!("There is no action {other:?}"))),
    }
}

/// A primary that was started without its data waits for a replica that may have them. Whoever does not want to wait
/// has to say what that can cost.
async fn recover(admin: Arc<Admin>, request: Request) -> Reply {
    let state = admin.state();
    let database = find(&state, &request)?;
    let (uid, epoch) = (database.uid, database.placement.epoch);
    if !flag(&request.object()?, "allow_data_loss")?.unwrap_or(false) {
        let why = "What a replica that is away has may be lost; \"allow_data_loss\": true says so";
        return Err(Refusal::not_acceptable("data_loss_not_allowed", why));
    }
    admin.change(Change::Recover { database: uid, epoch }).await?;
    Ok(json!({}).into())
}

async fn remove(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = find(&admin.state(), &request)?.uid;
    let change = Change::DeleteDatabase { database: uid, action: action_id()? };
    if request.is_dry_run() {
        admin.plane.rehearse(&change)?;
        return Ok(json!({}).into());
    }
    Ok(match admin.change(change).await? {
        Outcome::Action(action) | Outcome::Database { action: Some(action), .. } => {
            json!({ "action_uid": action }).into()
        }
        _ => json!({}).into(),
    })
}

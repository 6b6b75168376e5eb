//! `/v1/actions` and `/v2/actions`: work that takes time, and how far it is.

use carnelian_cluster::state::{Action, ActionId, ActionStatus, Object};
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::answer::{Refusal, Reply};
use crate::auth::Right;
use crate::request::Request;
use crate::routes::{Route, Run, get};

pub const ROUTES: &[Route] = &[
    get("/v1/actions", Right::See, Run::Now(list), "All work, of the last minutes too"),
    get("/v1/actions/{action_uid}", Right::See, Run::Now(show), "One piece of work"),
    get("/v1/actions/bdb/{uid}", Right::See, Run::Now(of_database), "Work on a database"),
    get("/v2/actions", Right::See, Run::Now(list_v2), "All work"),
    get("/v2/actions/{action_uid}", Right::See, Run::Now(show_v2), "One piece of work"),
];

fn list(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    let (machines, tasks): (Vec<_>, Vec<_>) =
        state.actions.values().partition(|action| action.kind.is_state_machine());
    let machines: Vec<_> = machines.into_iter().map(state_machine).collect();
    let tasks: Vec<_> = tasks.into_iter().map(task).collect();
    Ok(json!({"actions": tasks, "state-machines": machines}).into())
}

fn show(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    let action = find(&state.actions, request)?;
    let wire = if action.kind.is_state_machine() { state_machine(action) } else { task(action) };
    Ok(wire.into())
}

fn of_database(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    let uid = request.uid("db_not_exist")?;
    if !state.databases.contains_key(&uid.into()) {
        return Err(Refusal::not_found("db_not_exist", format!("There is no database {uid}")));
    }
    let object = Object::Database(uid.into());
    let work = state.actions.values().filter(|action| action.object == object);
    Ok(Value::Array(work.map(state_machine).collect()).into())
}

fn list_v2(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    Ok(Value::Array(state.actions.values().map(version_2).collect()).into())
}

fn show_v2(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    Ok(version_2(find(&state.actions, request)?).into())
}

fn find<'a>(
    actions: &'a std::collections::BTreeMap<ActionId, Action>,
    request: &Request,
) -> Result<&'a Action, Refusal> {
    let uid = request.parameter("action_uid");
    let missing = || Refusal::not_found("action_not_found", format!("There is no action {uid:?}"));
    actions.get(&ActionId(uid.to_owned())).ok_or_else(missing)
}

pub fn task_status(action: &Action) -> &'static str {
    match action.status {
        ActionStatus::Active => "running",
        ActionStatus::Completed => "completed",
        ActionStatus::Failed => "failed",
    }
}

/// Numbers are texts here, as they are on the wire.
fn task(action: &Action) -> Value {
    let node = match action.object {
        Object::Node(node) => node.to_string(),
        _ => String::new(),
    };
    let mut wire = json!({
        "action_uid": action.id,
        "task_id": action.id,
        "name": action.kind.name(),
        "node_uid": node,
        "status": task_status(action),
        "progress": format!("{:.0}", action.progress),
        "creation_time": action.created.seconds().to_string(),
    });
    if let Some(error) = &action.error {
        wire["error"] = json!(error);
    }
    wire
}

fn state_machine(action: &Action) -> Value {
    let mut wire = json!({
        "action_uid": action.id,
        "name": action.kind.name(),
        "object_name": action.object.to_string(),
        "status": action.status,
        "progress": action.progress,
        "heartbeat": action.heartbeat.seconds(),
        "state": action.step,
        "pending_ops": {},
    });
    if let Some(error) = &action.error {
        wire["error"] = json!(error);
    }
    wire
}

fn version_2(action: &Action) -> Value {
    let (object_type, object_uid) = match action.object {
        Object::Cluster => ("cluster", String::new()),
        Object::Authority => ("internode_ca", String::new()),
        Object::Node(uid) => ("node", uid.to_string()),
        Object::Database(uid) => ("bdb", uid.to_string()),
    };
    let mut more = json!({
        "object_type": object_type,
        "object_uid": object_uid,
        "description": action.step,
    });
    if let Some(error) = &action.error {
        more["error"] = json!(error);
    }
    json!({
        "action_uid": action.id,
        "action_type": if action.kind.is_state_machine() { "state-machine" } else { "task" },
        "name": action.kind.name(),
        "status": task_status(action),
        "progress": action.progress,
        "creation_time": action.created.seconds(),
        "additional_info": more,
    })
}

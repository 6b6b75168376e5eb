//! `/v1/bootstrap`: a node that belongs to no cluster makes one, or joins one.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::admin::Admin;
use crate::answer::{Answer, Refusal, Reply};
use crate::auth::Right;
use crate::auth::password;
use crate::bootstrap::{BootstrapAction, BootstrapStatus, Phase, parse, text};
use crate::handlers::nodes::addresses;
use crate::live::{Bootstrap, BootstrapFailure};
use crate::request::Request;
use crate::routes::{Route, Run, get, later, post};

pub const ROUTES: &[Route] = &[
    get("/v1/bootstrap", Right::Signed, Run::Now(status), "How far it is, and this node")
        .before_there_is_a_cluster(),
    post("/v1/bootstrap", Right::Cluster, later!(begin_by_body), "Do what the body says")
        .before_there_is_a_cluster(),
    post("/v1/bootstrap/create_cluster", Right::Cluster, later!(create), "Make a cluster")
        .before_there_is_a_cluster(),
    post("/v1/bootstrap/join_cluster", Right::Cluster, later!(join), "Join a cluster")
        .before_there_is_a_cluster(),
    post("/v1/bootstrap/join", Right::Cluster, later!(join), "Join a cluster")
        .before_there_is_a_cluster(),
    post("/v1/bootstrap/validate/{action}", Right::Cluster, Run::Now(validate), "Only check")
        .before_there_is_a_cluster(),
];

fn status(admin: &Admin, _: &Request) -> Reply {
    Ok(document(admin).into())
}

async fn begin_by_body(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    let word = text(&body, "action")?.ok_or_else(|| Refusal::schema("action is needed"))?;
    begin(&admin, &request, BootstrapAction::parse(&word)?)
}

async fn create(admin: Arc<Admin>, request: Request) -> Reply {
    begin(&admin, &request, BootstrapAction::Create)
}

async fn join(admin: Arc<Admin>, request: Request) -> Reply {
    begin(&admin, &request, BootstrapAction::Join)
}

/// Starts the work and answers at once; `GET /v1/bootstrap` tells how it goes.
fn begin(admin: &Arc<Admin>, request: &Request, action: BootstrapAction) -> Reply {
    let body = request.object()?;
    if is_over(admin) {
        return Err(running());
    }
    let request = checked(&body, action)?;
    {
        let mut status = admin.bootstrap.lock();
        if !status.is_free() {
            return Err(running());
        }
        status.start();
    }
    let answer = document(admin);
    let admin = Arc::clone(admin);
    tokio::spawn(async move {
        let work = Arc::clone(&admin);
        // On a task of its own, so that a fault in it is told of as well.
        let outcome = tokio::spawn(async move { carry_out(&work, action, request).await }).await;
        let fault = |_| BootstrapFailure {
            code: "internal_error",
            message: "The work ended before it was done".into(),
        };
        admin.bootstrap.lock().end(outcome.map_err(fault).and_then(|outcome| outcome));
    });
    Ok(answer.into())
}

async fn carry_out(
    admin: &Admin,
    action: BootstrapAction,
    request: Bootstrap,
) -> Result<(), BootstrapFailure> {
    let phase = match action {
        BootstrapAction::Create => Phase::CreatingCluster,
        BootstrapAction::Join => Phase::JoiningCluster,
    };
    admin.bootstrap.lock().phase = phase;
    match action {
        BootstrapAction::Create => admin.live.create_cluster(request).await,
        BootstrapAction::Join => admin.live.join_cluster(request).await,
    }
}

fn validate(admin: &Admin, request: &Request) -> Reply {
    let action = BootstrapAction::parse(request.parameter("action"))?;
    let body = request.object()?;
    let wrong = match checked(&body, action) {
        Ok(_) if is_over(admin) => running(),
        Ok(_) => return Ok(Answer::empty()),
        Err(refusal) => refusal,
    };
    let code = if wrong.code == "path_error" { "path_error" } else { "config_error" };
    let mut status = BootstrapStatus::default();
    status.end(Err(BootstrapFailure { code, message: wrong.description }));
    let mut refusal = Refusal::new(406, code, "");
    let mut body = status.to_wire();
    body["description"] = body["error_details"]["message"].clone();
    body["message"] = body["description"].clone();
    refusal.body = Some(Box::new(body));
    Err(refusal)
}

fn checked(
    body: &serde_json::Map<String, Value>,
    action: BootstrapAction,
) -> Result<Bootstrap, Refusal> {
    let request = parse(body, action)?;
    if action == BootstrapAction::Create {
        let rules = password::Rules { complex: false, min_length: 8 };
        password::judge(&request.password.0, rules, &request.username)?;
    }
    Ok(request)
}

fn is_over(admin: &Admin) -> bool {
    admin.has_cluster()
}

fn running() -> Refusal {
    Refusal::new(409, "bootstrap_in_progress", "The node is being bootstrapped, or has been")
}

fn document(admin: &Admin) -> Value {
    let mut status = admin.bootstrap.lock().clone();
    if admin.has_cluster() {
        // Also where it was done by directives, or before the last start.
        status.phase = Phase::Completed;
        status.failure = None;
    }
    let local = admin.live.local();
    let facts = &local.facts;
    let mut node = json!({
        "architecture": facts.architecture,
        "cores": facts.cores,
        "total_memory": facts.total_memory,
        "software_version": facts.software_version,
        "os_name": facts.os_name,
        "os_family": facts.os_family,
        "os_semantic_version": facts.os_semantic_version,
        "os_version": facts.os_version,
        "persistent_storage_path": facts.persistent_storage_path,
        "persistent_storage_size": facts.persistent_storage_size,
        "ephemeral_storage_path": facts.ephemeral_storage_path,
        "ephemeral_storage_size": facts.ephemeral_storage_size,
        "supported_database_versions": crate::handlers::nodes::supported_versions(),
        "uptime": local.uptime_s,
        "available_addrs": addresses(&local),
        "available_addresses": addresses(&local),
    });
    if let Some(uid) = admin.node() {
        node["uid"] = json!(uid.to_string());
    }
    json!({"bootstrap_status": status.to_wire(), "local_node_info": node})
}

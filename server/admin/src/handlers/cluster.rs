//! The cluster as a whole: its object, policy, jobs, checks and audit log.

use std::collections::BTreeMap;
use std::sync::Arc;

use carnelian_cluster::state::{
    AlertPatch, CertificateName, Change, ClusterPatch, JobsPatch, NodeStatus, NodeUid, PolicyPatch,
    SYSTEM_RESERVED_PORTS, State,
};
use serde_json::{Map, Value, json};

use crate::admin::Admin;
use crate::answer::{Answer, Refusal, Reply};
use crate::auth::Right;
use crate::bootstrap::small;
use crate::handlers::nodes;
use crate::request::Request;
use crate::routes::{Route, Run, get, later, post, put};

pub const ROUTES: &[Route] = &[
    get("/v1/cluster", Right::See, Run::Now(show), "The cluster").gives("Cluster"),
    put("/v1/cluster", Right::Cluster, later!(change), "Change settings of the cluster")
        .takes("Cluster")
        .gives("Cluster"),
    get("/v1/cluster/policy", Right::See, Run::Now(show_policy), "The policy").gives("Policy"),
    put("/v1/cluster/policy", Right::Cluster, later!(change_policy), "Change the policy")
        .takes("Policy")
        .gives("Policy"),
    put(
        "/v1/cluster/policy/restore_default",
        Right::Cluster,
        later!(restore_policy),
        "The policy as it is in a new cluster",
    )
    .gives("Policy"),
    get("/v1/job_scheduler", Right::See, Run::Now(show_jobs), "What runs by the clock")
        .gives("Jobs"),
    put("/v1/job_scheduler", Right::Cluster, later!(change_jobs), "Change jobs")
        .takes("Jobs")
        .gives("Jobs"),
    get("/v1/cluster/check", Right::See, later!(check), "Whether all nodes are well"),
    get("/v1/nodes/check/{uid}", Right::See, later!(check_node), "Whether a node is well"),
    get("/v1/cluster/actions", Right::See, Run::Now(list_actions), "Work on the cluster"),
    post(
        "/v1/cluster/actions/change_master",
        Right::Cluster,
        later!(change_master),
        "Which node leads: chosen by vote, so only the one that leads can be named",
    ),
    get("/v1/cluster/debuginfo", Right::Cluster, later!(debuginfo), "What helps to find faults")
        .downloads(),
    get("/v1/debuginfo/all", Right::Cluster, later!(debuginfo), "As /v1/cluster/debuginfo")
        .downloads(),
    get("/v1/audit", Right::Cluster, later!(audit), "The last entries of this node's audit log"),
    get(
        "/v1/audit/verify",
        Right::Cluster,
        later!(verify_audit),
        "Whether this node's audit log is as it was written",
    ),
    get("/v1/cm_settings", Right::See, Run::Now(console_settings), "Settings of the console"),
];

/// Settings that would claim something this server does not do, and the only value that is true.
fn fixed() -> [(&'static str, Value, &'static str); 7] {
    [
        ("http_support", json!(false), "the interface is not served without TLS"),
        (
            "mtls_certificate_authentication",
            json!(false),
            "users of this interface log in with passwords",
        ),
        (
            "control_plane_basic_authentication",
            json!(true),
            "there is no other way to log in than with a password",
        ),
        ("email_alerts", json!(false), "no mail is sent"),
        ("encrypt_pkeys", json!(false), "keys of nodes are kept in files that only they can read"),
        ("upgrade_mode", json!(false), "nodes are upgraded one by one, without a mode"),
        ("block_cluster_changes", json!(false), "changes are not blocked"),
    ]
}

fn show(admin: &Admin, _: &Request) -> Reply {
    Ok(document(&admin.state())?.into())
}

/// `GET /v1/cluster`
pub fn document(state: &State) -> Result<Value, Refusal> {
    let cluster = state
        .cluster
        .as_ref()
        .ok_or_else(|| Refusal::new(503, "not_bootstrapped", "There is no cluster yet"))?;
    let mut wire = serde_json::to_value(&cluster.settings).unwrap_or_default();
    let shared = |name: CertificateName| {
        let found = state.shared_certificates.get(name.as_str());
        found.map_or(String::new(), |found| found.certificate.clone())
    };
    let suites = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
    let more = json!({
        "name": cluster.name,
        "created_time": cluster.created.to_string(),
        "status": "active",
        "alert_settings": cluster.alert_settings,
        "ccs_internode_encryption": true,
        "control_cipher_suites_tls_1_3": suites,
        "sentinel_cipher_suites_tls_1_3": suites,
        "proxy_certificate": shared(CertificateName::Proxy),
        "syncer_certificate": shared(CertificateName::Syncer),
        "rack_aware": state.policy.rack_aware,
        "system_reserved_ports": SYSTEM_RESERVED_PORTS,
        "slave_ha": state.policy.slave_ha,
        "slave_ha_grace_period": state.policy.slave_ha_grace_period,
        "slave_ha_cooldown_period": state.policy.slave_ha_cooldown_period,
        "slave_ha_bdb_cooldown_period": state.policy.slave_ha_bdb_cooldown_period,
        "default_non_sharded_proxy_policy": state.policy.default_non_sharded_proxy_policy,
        "default_sharded_proxy_policy": state.policy.default_sharded_proxy_policy,
        "upgrade_in_progress": false,
        // Written, never read back.
        "smtp_password": "",
    });
    if let (Value::Object(wire), Value::Object(more)) = (&mut wire, more) {
        wire.extend(more);
    }
    Ok(wire)
}

async fn change(admin: Arc<Admin>, request: Request) -> Reply {
    let mut body = request.object()?;
    let current = document(&admin.state())?;
    let alerts = match body.remove("alert_settings") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(alerts) => parse_alerts(alerts)?,
    };
    for (name, value, why) in fixed() {
        if body.get(name).is_some_and(|asked| asked != &value) {
            return Err(Refusal::not_acceptable("not_supported", format!("{name}: {why}")));
        }
    }
    // Clients send back what they read: what nobody sets is passed over.
    let settable = |name: &str| carnelian_cluster::state::ClusterSettings::knows(name);
    if !request.is_strict() {
        body.retain(|name, _| settable(name));
    } else if let Some(name) =
        body.keys().find(|name| !settable(name) && current.get(name.as_str()).is_none())
    {
        return Err(Refusal::schema(format!("there is no field {name}")));
    } else {
        body.retain(|name, _| settable(name));
    }
    let patch = ClusterPatch::parse(&Value::Object(body), request.is_strict())?;
    let change = Change::SetCluster { patch: Box::new(patch), alerts };
    if request.is_dry_run() {
        return Ok(document(&admin.plane.rehearse(&change)?)?.into());
    }
    admin.change(change).await?;
    Ok(document(&admin.state())?.into())
}

pub fn parse_alerts(alerts: Value) -> Result<BTreeMap<String, AlertPatch>, Refusal> {
    let Value::Object(alerts) = alerts else {
        return Err(Refusal::schema("alert settings are an object"));
    };
    let parse = |(name, value): (String, Value)| {
        let patch = serde_json::from_value(value).map_err(|_| {
            Refusal::schema(format!("{name}: a switch, or enabled and threshold, is expected"))
        })?;
        Ok((name, patch))
    };
    alerts.into_iter().map(parse).collect()
}

fn show_policy(admin: &Admin, _: &Request) -> Reply {
    Ok(policy(&admin.state()).into())
}

fn policy(state: &State) -> Value {
    serde_json::to_value(&state.policy).unwrap_or_default()
}

async fn change_policy(admin: Arc<Admin>, request: Request) -> Reply {
    let body = Value::Object(request.object()?);
    let patch = PolicyPatch::parse(&body, request.is_strict())?;
    set_policy(&admin, patch, request.is_dry_run()).await
}

async fn restore_policy(admin: Arc<Admin>, request: Request) -> Reply {
    let defaults = serde_json::to_value(carnelian_cluster::state::Policy::default());
    let patch = PolicyPatch::parse(&defaults.unwrap_or_default(), false)?;
    set_policy(&admin, patch, request.is_dry_run()).await
}

async fn set_policy(admin: &Admin, patch: PolicyPatch, is_dry_run: bool) -> Reply {
    let change = Change::SetPolicy(Box::new(patch));
    if is_dry_run {
        return Ok(policy(&admin.plane.rehearse(&change)?).into());
    }
    admin.change(change).await?;
    Ok(policy(&admin.state()).into())
}

fn show_jobs(admin: &Admin, _: &Request) -> Reply {
    Ok(jobs(&admin.state()).into())
}

/// With the days that are in force where none were set.
fn jobs(state: &State) -> Value {
    let mut wire = serde_json::to_value(&state.jobs).unwrap_or_default();
    let validity = state.cluster.as_ref().map_or(45, |it| it.settings.internal_cert_validity_days);
    let days = state.jobs.days_before_rotation(validity);
    wire["cert_rotation_job_settings"]["expiry_days_before_rotation"] = json!(days);
    wire
}

async fn change_jobs(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    let known = jobs(&admin.state());
    if request.is_strict()
        && let Some(name) = body.keys().find(|name| known.get(name.as_str()).is_none())
    {
        return Err(Refusal::schema(format!("there is no job {name}")));
    }
    let body: Map<String, Value> =
        body.into_iter().filter(|(name, _)| known.get(name.as_str()).is_some()).collect();
    let change = Change::SetJobs(JobsPatch(Value::Object(body)));
    if request.is_dry_run() {
        return Ok(jobs(&admin.plane.rehearse(&change)?).into());
    }
    admin.change(change).await?;
    Ok(jobs(&admin.state()).into())
}

async fn check(admin: Arc<Admin>, _: Request) -> Reply {
    let state = admin.state();
    let mut nodes = Vec::new();
    for node in state.nodes.keys() {
        nodes.push(checked(*node, examine(&admin, &state, *node).await));
    }
    let is_well = nodes.iter().all(|node| node["result"] == json!(true));
    Ok(json!({"cluster_test_result": is_well, "nodes": nodes}).into())
}

async fn check_node(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = request.uid("node_not_found")?;
    let state = admin.state();
    if !state.is_member(uid.into()) {
        return Err(Refusal::not_found("node_not_found", format!("There is no node {uid}")));
    }
    Ok(checked(uid.into(), examine(&admin, &state, uid.into()).await).into())
}

fn checked(uid: NodeUid, result: Result<(), String>) -> Value {
    match result {
        Ok(()) => json!({"node_uid": uid.0, "result": true}),
        Err(error) => json!({"node_uid": uid.0, "result": false, "error": error}),
    }
}

/// A node is well if the cluster has not given it up and it answers over the internode channel. Else why not.
pub async fn examine(admin: &Admin, state: &State, uid: NodeUid) -> Result<(), String> {
    let Some(node) = state.nodes.get(&uid) else {
        return Err("the node is not a member".into());
    };
    if node.status == NodeStatus::Down {
        return Err("process carnelian-server is not running or not responding (down)".into());
    }
    match admin.figures(uid).await {
        Some(_) => Ok(()),
        None => {
            let (address, port) = (&node.settings.addr, node.settings.internode_port);
            Err(format!(
                "process carnelian-server is not running or not responding ({address}:{port})"
            ))
        }
    }
}

fn list_actions(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    let actions: Vec<_> = state
        .actions
        .values()
        .filter(|action| action.object == carnelian_cluster::state::Object::Cluster)
        .map(|action| {
            json!({
                "name": action.kind.name(),
                "status": action.status,
                "progress": action.progress,
            })
        })
        .collect();
    Ok(json!({ "actions": actions }).into())
}

async fn change_master(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    let uid = small(&body, "node_uid")?.ok_or_else(|| Refusal::schema("node_uid is needed"))?;
    if !admin.state().is_member(uid.into()) {
        return Err(Refusal::not_found("node_not_found", format!("There is no node {uid}")));
    }
    if admin.plane.leader() != Some(uid.into()) {
        let why = "The nodes choose the master by vote; it cannot be named";
        return Err(Refusal::not_acceptable("not_supported", why));
    }
    // It leads: there is nothing to do.
    Ok(Answer::empty())
}

async fn debuginfo(admin: Arc<Admin>, _: Request) -> Reply {
    let state = admin.state();
    let mut files = admin.live.debug_files();
    for (node, figures) in admin.all_figures(&state).await {
        if admin.plane.node() != Some(node.into()) {
            let of_node = nodes::info_files(&figures);
            files.extend(of_node.map(|(name, text)| (format!("node-{node}/{name}"), text)));
        }
    }
    let shown = [
        ("cluster.json", document(&state)?),
        ("policy.json", policy(&state)),
        ("jobs.json", jobs(&state)),
        ("events.json", serde_json::to_value(&state.events).unwrap_or_default()),
    ];
    for (name, value) in shown {
        files.push((name.to_owned(), serde_json::to_vec_pretty(&value).unwrap_or_default()));
    }
    let bytes = crate::tar::tar_gz(&files);
    Ok(Answer::File { name: "debuginfo.tar.gz", content_type: "application/x-gzip", bytes })
}

async fn audit(admin: Arc<Admin>, request: Request) -> Reply {
    let limit = request.query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(100);
    let entries = blocking(move || admin.audit.tail(usize::min(limit, 10_000))).await?;
    Ok(json!({ "entries": entries }).into())
}

async fn verify_audit(admin: Arc<Admin>, _: Request) -> Reply {
    let verdict = blocking(move || admin.audit.verify()).await?;
    Ok(serde_json::to_value(verdict).unwrap_or_default().into())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    let unreadable = |why: String| Refusal::new(500, "audit_log_unavailable", why);
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| unreadable(error.to_string())),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn console_settings(_: &Admin, _: &Request) -> Reply {
    Ok(json!({"timezone": "UTC"}).into())
}

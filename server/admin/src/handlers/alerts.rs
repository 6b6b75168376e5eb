//! Alerts: how they are, and for databases how they are set.

use std::collections::BTreeMap;
use std::sync::Arc;

use carnelian_cluster::state::{AlertSetting, Change, Database, Node, State};
use serde_json::{Map, Value, json};

use crate::admin::Admin;
use crate::alerts::{Finding, Scope, View};
use crate::answer::{Refusal, Reply};
use crate::auth::Right;
use crate::handlers::cluster::parse_alerts;
use crate::live::Figures;
use crate::request::Request;
use crate::routes::{Route, get, later, post};
use crate::time;

pub const ROUTES: &[Route] = &[
    get("/v1/cluster/alerts", Right::See, later!(cluster), "Alerts of the cluster"),
    get("/v1/cluster/alerts/{alert}", Right::See, later!(cluster_one), "An alert"),
    get("/v1/nodes/alerts", Right::See, later!(nodes), "Alerts of all nodes"),
    get("/v1/nodes/alerts/{uid}", Right::See, later!(node), "Alerts of a node"),
    get("/v1/nodes/alerts/{uid}/{alert}", Right::See, later!(node_one), "An alert"),
    get("/v1/bdbs/alerts", Right::See, later!(databases), "Alerts of all databases"),
    get("/v1/bdbs/alerts/{uid}", Right::See, later!(database), "Alerts of a database"),
    get("/v1/bdbs/alerts/{uid}/{alert}", Right::See, later!(database_one), "An alert"),
    post("/v1/bdbs/alerts/{uid}", Right::Databases, later!(set), "Set alerts of a database"),
    get("/v1/alerts", Right::See, later!(all_on), "All alerts that are on"),
];

/// What alerts are made of, at one moment.
struct Moment {
    state: Arc<State>,
    figures: BTreeMap<u32, Figures>,
    failed_checks: BTreeMap<u32, String>,
    ignores_settings: bool,
    raw: bool,
}

impl Moment {
    async fn now(admin: &Admin, request: &Request) -> Self {
        let state = admin.state();
        let figures = admin.all_figures(&state).await;
        let ignores_settings = request.query.flag("ignore_settings");
        let failed_checks = admin.failed_checks.lock().clone();
        let raw = request.query.flag("raw");
        Self { state, figures, failed_checks, ignores_settings, raw }
    }

    fn view<'a>(&'a self, admin: &'a Admin) -> View<'a> {
        View {
            state: &self.state,
            figures: &self.figures,
            samples: &admin.samples,
            failed_checks: &self.failed_checks,
            now_s: time::now_s(),
            raw: self.raw,
        }
    }

    fn wire(
        &self,
        admin: &Admin,
        scope: Scope,
        name: &str,
        setting: &AlertSetting,
        finding: Finding,
    ) -> Value {
        admin.alerts.to_wire(scope, name, setting, finding, self.ignores_settings)
    }

    fn of_cluster(&self, admin: &Admin) -> Map<String, Value> {
        let settings = settings(&self.state, "cluster_");
        let rows = settings.map(|(name, setting)| {
            let finding = self.view(admin).cluster(name, setting);
            (name.clone(), self.wire(admin, Scope::Cluster, name, setting, finding))
        });
        rows.collect()
    }

    fn of_node(&self, admin: &Admin, node: &Node) -> Map<String, Value> {
        let rows = settings(&self.state, "node_").map(|(name, setting)| {
            let finding = self.view(admin).node(name, setting, node);
            (name.clone(), self.wire(admin, Scope::Node(node.uid.0), name, setting, finding))
        });
        rows.collect()
    }

    fn of_database(&self, admin: &Admin, database: &Database) -> Map<String, Value> {
        let rows = database.alert_settings.iter().map(|(name, setting)| {
            let finding = self.view(admin).database(name, setting, database);
            let scope = Scope::Database(database.uid.0);
            (name.clone(), self.wire(admin, scope, name, setting, finding))
        });
        rows.collect()
    }

    fn node(&self, request: &Request) -> Result<&Node, Refusal> {
        let uid = request.uid("node_not_found")?;
        let missing = || Refusal::not_found("node_not_found", format!("There is no node {uid}"));
        self.state.nodes.get(&uid.into()).ok_or_else(missing)
    }

    fn database(&self, request: &Request) -> Result<&Database, Refusal> {
        crate::handlers::bdbs::find(&self.state, request)
    }
}

/// Settings of alerts of one kind, by the beginning of their names.
pub fn settings<'a>(
    state: &'a State,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a String, &'a AlertSetting)> {
    let all = state.cluster.iter().flat_map(|cluster| &cluster.alert_settings);
    all.filter(move |(name, _)| name.starts_with(prefix))
}

fn pick(mut all: Map<String, Value>, request: &Request) -> Reply {
    let name = request.parameter("alert");
    let missing = || Refusal::not_found("alert_not_exist", format!("There is no alert {name:?}"));
    all.remove(name).map(Into::into).ok_or_else(missing)
}

async fn cluster(admin: Arc<Admin>, request: Request) -> Reply {
    Ok(Value::Object(Moment::now(&admin, &request).await.of_cluster(&admin)).into())
}

async fn cluster_one(admin: Arc<Admin>, request: Request) -> Reply {
    pick(Moment::now(&admin, &request).await.of_cluster(&admin), &request)
}

async fn nodes(admin: Arc<Admin>, request: Request) -> Reply {
    let moment = Moment::now(&admin, &request).await;
    let nodes = moment.state.nodes.values();
    let rows = nodes.map(|node| (node.uid.to_string(), json!(moment.of_node(&admin, node))));
    Ok(Value::Object(rows.collect()).into())
}

async fn node(admin: Arc<Admin>, request: Request) -> Reply {
    let moment = Moment::now(&admin, &request).await;
    Ok(Value::Object(moment.of_node(&admin, moment.node(&request)?)).into())
}

async fn node_one(admin: Arc<Admin>, request: Request) -> Reply {
    let moment = Moment::now(&admin, &request).await;
    pick(moment.of_node(&admin, moment.node(&request)?), &request)
}

async fn databases(admin: Arc<Admin>, request: Request) -> Reply {
    let moment = Moment::now(&admin, &request).await;
    let rows =
        moment.state.databases.values().map(|database| {
            (database.uid.to_string(), json!(moment.of_database(&admin, database)))
        });
    Ok(Value::Object(rows.collect()).into())
}

async fn database(admin: Arc<Admin>, request: Request) -> Reply {
    let moment = Moment::now(&admin, &request).await;
    Ok(Value::Object(moment.of_database(&admin, moment.database(&request)?)).into())
}

async fn database_one(admin: Arc<Admin>, request: Request) -> Reply {
    let moment = Moment::now(&admin, &request).await;
    pick(moment.of_database(&admin, moment.database(&request)?), &request)
}

async fn set(admin: Arc<Admin>, request: Request) -> Reply {
    let database = crate::handlers::bdbs::find(&admin.state(), &request)?.uid;
    let alerts = parse_alerts(Value::Object(request.object()?))?;
    let change = Change::SetDatabaseAlerts { database, alerts };
    let state = if request.is_dry_run() {
        Arc::new(admin.plane.rehearse(&change)?)
    } else {
        admin.change(change).await?;
        admin.state()
    };
    let moment = Moment { state, ..Moment::now(&admin, &request).await };
    Ok(Value::Object(moment.of_database(&admin, moment.database(&request)?)).into())
}

async fn all_on(admin: Arc<Admin>, request: Request) -> Reply {
    let moment = Moment::now(&admin, &request).await;
    let mut on = Vec::new();
    let mut add = |kind: &str, uid: String, alerts: Map<String, Value>| {
        for (name, alert) in alerts {
            if alert["state"] != json!(true) {
                continue;
            }
            on.push(json!({
                "uid": format!("{kind}:{uid}:{name}"),
                "name": name,
                "severity": alert["severity"],
                "state": "on",
                "entity_type": kind,
                "entity_uid": uid,
                "threshold": alert.get("threshold").cloned().unwrap_or_default(),
                "change_time": alert["change_time"],
            }));
        }
    };
    add("cluster", "1".into(), moment.of_cluster(&admin));
    for node in moment.state.nodes.values() {
        add("node", node.uid.to_string(), moment.of_node(&admin, node));
    }
    for database in moment.state.databases.values() {
        add("bdb", database.uid.to_string(), moment.of_database(&admin, database));
    }
    Ok(Value::Array(on).into())
}

//! Statistics of the cluster, nodes, databases and shards: what was measured, and nothing else.

use carnelian_cluster::state::{DatabaseStatus, State};
use serde_json::{Map, Value, json};

use crate::admin::Admin;
use crate::answer::{Refusal, Reply};
use crate::auth::Right;
use crate::handlers::shards;
use crate::request::{Query, Request};
use crate::routes::{Route, Run, get};
use crate::samples::{INTERVALS, Subject};
use crate::time;

pub const ROUTES: &[Route] = &[
    get("/v1/cluster/stats", Right::See, Run::Now(cluster), "Figures of the cluster"),
    get("/v1/cluster/stats/last", Right::See, Run::Now(cluster_last), "The newest figures"),
    get("/v1/nodes/stats", Right::See, Run::Now(nodes), "Figures of all nodes"),
    get("/v1/nodes/stats/{uid}", Right::See, Run::Now(node), "Figures of a node"),
    get("/v1/nodes/stats/last", Right::See, Run::Now(nodes_last), "The newest figures"),
    get("/v1/nodes/stats/last/{uid}", Right::See, Run::Now(node_last), "The newest figures"),
    get("/v1/bdbs/stats", Right::See, Run::Now(databases), "Figures of all databases"),
    get("/v1/bdbs/stats/{uid}", Right::See, Run::Now(database), "Figures of a database"),
    get("/v1/bdbs/stats/last", Right::See, Run::Now(databases_last), "The newest figures"),
    get("/v1/bdbs/stats/last/{uid}", Right::See, Run::Now(database_last), "The newest figures"),
    get("/v1/shards/stats", Right::See, Run::Now(all_shards), "Figures of all shards"),
    get("/v1/shards/stats/{uid}", Right::See, Run::Now(shard), "Figures of a shard"),
    get("/v1/shards/stats/last", Right::See, Run::Now(shards_last), "The newest figures"),
    get("/v1/shards/stats/last/{uid}", Right::See, Run::Now(shard_last), "The newest figures"),
];

/// A kind of object that has figures.
struct Kind {
    subject: fn(u32) -> Subject,
    uids: fn(&State) -> Vec<u32>,
    missing: &'static str,
}

const NODES: Kind = Kind {
    subject: Subject::Node,
    uids: |state| state.nodes.keys().map(|uid| uid.0).collect(),
    missing: "node_not_found",
};

const DATABASES: Kind = Kind {
    subject: Subject::Database,
    uids: |state| state.databases.keys().map(|uid| uid.0).collect(),
    missing: "db_not_exist",
};

const SHARDS: Kind = Kind {
    subject: Subject::Shard,
    uids: |state| shards::all(state).map(|shard| shard.uid.0).collect(),
    missing: "shard_not_exist",
};

fn cluster(admin: &Admin, request: &Request) -> Reply {
    Ok(json!({"intervals": intervals(admin, Subject::Cluster, &request.query)?}).into())
}

fn cluster_last(admin: &Admin, request: &Request) -> Reply {
    Ok(last(admin, Subject::Cluster, &request.query)?.into())
}

fn nodes(admin: &Admin, request: &Request) -> Reply {
    every(admin, request, &NODES)
}

fn node(admin: &Admin, request: &Request) -> Reply {
    one(admin, request, &NODES)
}

fn nodes_last(admin: &Admin, request: &Request) -> Reply {
    every_last(admin, request, &NODES)
}

fn node_last(admin: &Admin, request: &Request) -> Reply {
    one_last(admin, request, &NODES)
}

fn databases(admin: &Admin, request: &Request) -> Reply {
    every(admin, request, &DATABASES)
}

fn database(admin: &Admin, request: &Request) -> Reply {
    is_active(admin, request)?;
    one(admin, request, &DATABASES)
}

fn databases_last(admin: &Admin, request: &Request) -> Reply {
    every_last(admin, request, &DATABASES)
}

fn database_last(admin: &Admin, request: &Request) -> Reply {
    is_active(admin, request)?;
    one_last(admin, request, &DATABASES)
}

fn all_shards(admin: &Admin, request: &Request) -> Reply {
    every(admin, request, &SHARDS)
}

fn shard(admin: &Admin, request: &Request) -> Reply {
    one(admin, request, &SHARDS)
}

fn shards_last(admin: &Admin, request: &Request) -> Reply {
    every_last(admin, request, &SHARDS)
}

fn shard_last(admin: &Admin, request: &Request) -> Reply {
    one_last(admin, request, &SHARDS)
}

/// A database that cannot be used has no figures.
fn is_active(admin: &Admin, request: &Request) -> Result<(), Refusal> {
    let uid = request.uid(DATABASES.missing)?;
    match admin.state().databases.get(&uid.into()).map(|database| database.status) {
        Some(DatabaseStatus::Pending | DatabaseStatus::CreationFailed) => {
            let why = format!("Database {uid} is not active");
            Err(Refusal::not_acceptable("db_not_active", why))
        }
        Some(DatabaseStatus::Recovery) => {
            let why = format!("Database {uid} is being recovered");
            Err(Refusal::new(503, "db_in_recovery", why))
        }
        _ => Ok(()),
    }
}

fn every(admin: &Admin, request: &Request, kind: &Kind) -> Reply {
    let uids = (kind.uids)(&admin.state());
    let row = |uid: u32| {
        let intervals = intervals(admin, (kind.subject)(uid), &request.query)?;
        Ok(json!({"uid": uid.to_string(), "intervals": intervals}))
    };
    Ok(Value::Array(uids.into_iter().map(row).collect::<Result<_, Refusal>>()?).into())
}

fn one(admin: &Admin, request: &Request, kind: &Kind) -> Reply {
    let uid = known(admin, request, kind)?;
    let intervals = intervals(admin, (kind.subject)(uid), &request.query)?;
    Ok(json!({"uid": uid.to_string(), "intervals": intervals}).into())
}

fn every_last(admin: &Admin, request: &Request, kind: &Kind) -> Reply {
    let mut wire = Map::new();
    for uid in (kind.uids)(&admin.state()) {
        wire.insert(uid.to_string(), last(admin, (kind.subject)(uid), &request.query)?);
    }
    Ok(Value::Object(wire).into())
}

fn one_last(admin: &Admin, request: &Request, kind: &Kind) -> Reply {
    let uid = known(admin, request, kind)?;
    let sample = last(admin, (kind.subject)(uid), &request.query)?;
    Ok(Value::Object(Map::from_iter([(uid.to_string(), sample)])).into())
}

fn known(admin: &Admin, request: &Request, kind: &Kind) -> Result<u32, Refusal> {
    let uid = request.uid(kind.missing)?;
    let missing = || Refusal::not_found(kind.missing, format!("There is no {uid}"));
    (kind.uids)(&admin.state()).contains(&uid).then_some(uid).ok_or_else(missing)
}

fn intervals(admin: &Admin, subject: Subject, query: &Query) -> Result<Vec<Value>, Refusal> {
    let interval = interval(query)?;
    let moment = |name: &str| {
        let wrong =
            || Refusal::schema(format!("{name}: a time such as 2026-01-31T12:00:00Z is expected"));
        query.get(name).map(|text| time::parse(text).ok_or_else(wrong)).transpose()
    };
    let from_s = moment("stime")?.unwrap_or(i64::MIN);
    let to_s = moment("etime")?.unwrap_or(i64::MAX);
    let metrics = query.get("metrics");
    let samples = admin.samples.all(subject, interval).into_iter();
    Ok(samples
        .filter(|(_, sample)| from_s <= sample.from_s && sample.to_s <= to_s)
        .map(|(name, sample)| sample.to_wire(name, metrics))
        .collect())
}

fn last(admin: &Admin, subject: Subject, query: &Query) -> Result<Value, Refusal> {
    let interval = interval(query)?.unwrap_or("1sec");
    let sample = admin.samples.last(subject, interval);
    // Before anything was measured there is nothing to say.
    Ok(sample.map_or_else(|| json!({}), |it| it.to_wire(interval, query.get("metrics"))))
}

fn interval(query: &Query) -> Result<Option<&str>, Refusal> {
    let Some(asked) = query.get("interval") else { return Ok(None) };
    let known = INTERVALS.iter().any(|(name, ..)| *name == asked);
    let wrong = || Refusal::schema(format!("interval: {asked:?} is none of those that are kept"));
    known.then_some(Some(asked)).ok_or_else(wrong)
}

//! `/v1/logs`: what happened.

use carnelian_cluster::state::Event;
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::answer::{Refusal, Reply};
use crate::auth::Right;
use crate::request::{Query, Request};
use crate::routes::{Route, Run, get};
use crate::time;

pub const ROUTES: &[Route] = &[get("/v1/logs", Right::See, Run::Now(list), "What happened")];

/// As many as are given to who names no number.
const DEFAULT: usize = 1000;

fn list(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    let from_s = moment(&request.query, "stime")?.unwrap_or(i64::MIN);
    let to_s = moment(&request.query, "etime")?.unwrap_or(i64::MAX);
    let is_wanted = |event: &&Event| {
        let at = i64::try_from(event.time.seconds()).unwrap_or(i64::MAX);
        (from_s..=to_s).contains(&at)
    };
    let mut events: Vec<_> = state.events.iter().filter(is_wanted).collect();
    match request.query.get("order") {
        None | Some("asc") => {}
        Some("desc") => events.reverse(),
        Some(_) => return Err(Refusal::schema("order: asc or desc is expected")),
    }
    let offset = count(&request.query, "offset")?.unwrap_or(0);
    let limit = count(&request.query, "limit")?.unwrap_or(DEFAULT);
    Ok(Value::Array(events.into_iter().skip(offset).take(limit).map(row).collect()).into())
}

fn row(event: &Event) -> Value {
    let mut wire = json!({
        "time": event.time.to_string(),
        "type": event.kind,
        "severity": event.severity,
    });
    if let Value::Object(wire) = &mut wire {
        for (name, value) in &event.fields {
            wire.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    wire
}

fn moment(query: &Query, name: &str) -> Result<Option<i64>, Refusal> {
    let wrong =
        || Refusal::schema(format!("{name}: a time such as 2026-01-31T12:00:00Z is expected"));
    query.get(name).map(|text| time::parse(text).ok_or_else(wrong)).transpose()
}

fn count(query: &Query, name: &str) -> Result<Option<usize>, Refusal> {
    let wrong = |_| Refusal::schema(format!("{name}: a number is expected"));
    query.get(name).map(|text| text.parse().map_err(wrong)).transpose()
}

//! `/v1/license`: there is nothing to buy, and so nothing that ends.

use serde_json::{Value, json};

use crate::admin::Admin;
use crate::answer::{Refusal, Reply};
use crate::auth::Right;
use crate::bootstrap::text;
use crate::handlers::shards;
use crate::request::Request;
use crate::routes::{Route, Run, get, put};

pub const ROUTES: &[Route] = &[
    get("/v1/license", Right::See, Run::Now(show), "The licence, which does not expire"),
    put("/v1/license", Right::Users, Run::Now(replace), "None is needed, so none is taken"),
];

fn show(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    let cluster = state.cluster.as_ref();
    let shards = shards::all(&state).count();
    Ok(json!({
        "license": "",
        "key": "",
        "expired": false,
        "activation_date": cluster.map_or_else(String::new, |it| it.created.to_string()),
        "expiration_date": Value::Null,
        "owner": "",
        "cluster_name": cluster.map_or("", |it| it.name.as_str()),
        "features": [],
        "shards_limit": Value::Null,
        "ram_shards_limit": Value::Null,
        "ram_shards_in_use": shards,
        "flash_shards_limit": Value::Null,
        "flash_shards_in_use": 0,
    })
    .into())
}

fn replace(_: &Admin, request: &Request) -> Reply {
    text(&request.object()?, "license")?.ok_or_else(|| Refusal::schema("license is needed"))?;
    Err(Refusal::not_acceptable("license_not_needed", "Carnelian needs no licence"))
}

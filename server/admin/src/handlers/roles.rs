//! `/v1/roles` and `/v1/redis_acls`: what users may manage, and the rules that databases give roles.

use std::sync::Arc;

use carnelian_cluster::state::{Change, Outcome, RedisAcl, Role, State};
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::answer::{Answer, Refusal, Reply};
use crate::auth::Right;
use crate::bootstrap::text;
use crate::handlers::users::management;
use crate::request::Request;
use crate::routes::{Route, Run, delete, get, later, post, put};

pub const ROUTES: &[Route] = &[
    get("/v1/roles", Right::SeeUsers, Run::Now(list_roles), "All roles").lists("Role"),
    post("/v1/roles", Right::Users, later!(create_role), "Create a role")
        .takes("Role")
        .gives("Role"),
    get("/v1/roles/{uid}", Right::SeeUsers, Run::Now(show_role), "A role").gives("Role"),
    put("/v1/roles/{uid}", Right::Users, later!(update_role), "Change a role")
        .takes("Role")
        .gives("Role"),
    delete("/v1/roles/{uid}", Right::Users, later!(remove_role), "Delete a role"),
    get("/v1/redis_acls", Right::See, Run::Now(list_acls), "All rules").lists("RedisAcl"),
    post("/v1/redis_acls", Right::Users, later!(create_acl), "Create rules")
        .takes("RedisAcl")
        .gives("RedisAcl"),
    get("/v1/redis_acls/{uid}", Right::See, Run::Now(show_acl), "Rules").gives("RedisAcl"),
    put("/v1/redis_acls/{uid}", Right::Users, later!(update_acl), "Change rules")
        .takes("RedisAcl")
        .gives("RedisAcl"),
    delete("/v1/redis_acls/{uid}", Right::Users, later!(remove_acl), "Delete rules"),
    post("/v1/redis_acls/validate", Right::See, Run::Now(validate_acl), "Whether rules are valid"),
];

fn list_roles(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    Ok(json!(state.roles.values().collect::<Vec<_>>()).into())
}

fn role(state: &State, uid: u32) -> Result<&Role, Refusal> {
    let missing = || Refusal::not_found("role_not_exist", format!("There is no role {uid}"));
    state.roles.get(&uid.into()).ok_or_else(missing)
}

fn show_role(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    Ok(json!(role(&state, request.uid("role_not_exist")?)?).into())
}

async fn create_role(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    let name = needed(&body, "name")?;
    let management = management(&needed(&body, "management")?)?;
    only_admins_give_all(&request, Some(management))?;
    match admin.change(Change::CreateRole { name, management }).await? {
        Outcome::Role(uid) => Ok(json!(role(&admin.state(), uid.0)?).into()),
        _ => Err(Refusal::new(500, "internal_error", "The role has no uid")),
    }
}

async fn update_role(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = request.uid("role_not_exist")?;
    let before = role(&admin.state(), uid)?.clone();
    let body = request.object()?;
    let new = text(&body, "management")?.map(|name| management(&name)).transpose()?;
    only_admins_give_all(&request, new)?;
    only_admins_give_all(&request, Some(before.management))?;
    let name = text(&body, "name")?;
    admin.change(Change::UpdateRole { role: uid.into(), name, management: new }).await?;
    Ok(json!(role(&admin.state(), uid)?).into())
}

async fn remove_role(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = request.uid("role_not_exist")?;
    let before = role(&admin.state(), uid)?.clone();
    only_admins_give_all(&request, Some(before.management))?;
    admin.change(Change::DeleteRole { role: uid.into() }).await?;
    Ok(Answer::empty())
}

fn only_admins_give_all(
    request: &Request,
    management: Option<carnelian_cluster::state::Management>,
) -> Result<(), Refusal> {
    let is_admin = management == Some(carnelian_cluster::state::Management::Admin);
    if is_admin && !request.caller.may(Right::Cluster) {
        return Err(Refusal::forbidden());
    }
    Ok(())
}

fn list_acls(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    Ok(json!(state.redis_acls.values().collect::<Vec<_>>()).into())
}

fn acl(state: &State, uid: u32) -> Result<&RedisAcl, Refusal> {
    let missing = || Refusal::not_found("redis_acl_not_exist", format!("There are no rules {uid}"));
    state.redis_acls.get(&uid.into()).ok_or_else(missing)
}

fn show_acl(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    Ok(json!(acl(&state, request.uid("redis_acl_not_exist")?)?).into())
}

async fn create_acl(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    let name = needed(&body, "name")?;
    let rules = needed(&body, "acl")?;
    check(&admin, &rules)?;
    match admin.change(Change::CreateAcl { name, acl: rules }).await? {
        Outcome::Acl(uid) => Ok(json!(acl(&admin.state(), uid.0)?).into()),
        _ => Err(Refusal::new(500, "internal_error", "The rules have no uid")),
    }
}

async fn update_acl(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = request.uid("redis_acl_not_exist")?;
    let body = request.object()?;
    let (name, rules) = (text(&body, "name")?, text(&body, "acl")?);
    if let Some(rules) = &rules {
        check(&admin, rules)?;
    }
    admin.change(Change::UpdateAcl { acl: uid.into(), name, rules }).await?;
    Ok(json!(acl(&admin.state(), uid)?).into())
}

async fn remove_acl(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = request.uid("redis_acl_not_exist")?;
    admin.change(Change::DeleteAcl { acl: uid.into() }).await?;
    Ok(Answer::empty())
}

fn validate_acl(admin: &Admin, request: &Request) -> Reply {
    check(admin, &needed(&request.object()?, "acl")?)?;
    Ok(Answer::empty())
}

/// Rules in the shape that the state keeps, of commands and categories that there are.
fn check(admin: &Admin, rules: &str) -> Result<(), Refusal> {
    RedisAcl::check(rules)?;
    admin.live.check_rules(rules).map_err(|why| Refusal::new(400, "invalid_param", why))
}

fn needed(body: &serde_json::Map<String, Value>, name: &str) -> Result<String, Refusal> {
    let missing = || Refusal::new(400, "missing_field", format!("{name} is needed"));
    text(body, name)?.filter(|text| !text.is_empty()).ok_or_else(missing)
}

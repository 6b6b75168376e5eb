//! `/v1/users`: who may log in, with which password, and tokens that stand for one.

use std::sync::Arc;

use carnelian_cluster::state::{
    Change, CreateUser, Management, Outcome, RoleUid, State, User, UserPatch, UserUid,
};
use serde_json::{Map, Value, json};

use crate::admin::Admin;
use crate::answer::{Answer, Refusal, Reply};
use crate::auth::{Caller, Right, password, token};
use crate::bootstrap::{flag, text};
use crate::request::Request;
use crate::routes::{Route, Run, delete, get, later, post, put};

pub const ROUTES: &[Route] = &[
    get("/v1/users", Right::SeeUsers, Run::Now(list), "All users").lists("User"),
    post("/v1/users", Right::Users, later!(create), "Create a user").takes("User").gives("User"),
    get("/v1/users/{uid}", Right::Signed, Run::Now(show), "A user").gives("User"),
    put("/v1/users/{uid}", Right::Signed, later!(update), "Change a user")
        .takes("User")
        .gives("User"),
    delete("/v1/users/{uid}", Right::Users, later!(remove), "Delete a user"),
    put("/v1/users/password", Right::Signed, later!(set_password), "Make it the only password"),
    post("/v1/users/password", Right::Signed, later!(add_password), "Add a password"),
    delete("/v1/users/password", Right::Signed, later!(remove_password), "Remove a password"),
    post("/v1/users/authorize", Right::Signed, Run::Now(authorize), "A token for some minutes"),
    post("/v1/users/refresh_jwt", Right::Signed, Run::Now(authorize), "A token that lasts longer"),
    get("/v1/users/permissions", Right::See, Run::Now(permissions), "What each role may do"),
    get("/v1/users/permissions/{role}", Right::See, Run::Now(role_permissions), "What a role may"),
];

const MISSING: &str = "user_not_exist";

fn document(admin: &Admin, state: &State, user: &User) -> Value {
    let mut wire = json!({
        "uid": user.uid.0,
        "email": user.email,
        "name": user.name,
        "role": state.management(user).name(),
        "role_uids": user.role_uids,
        "auth_method": "regular",
        "certificate_subject_line": user.certificate_subject_line,
        "email_alerts": user.email_alerts,
        "password_issue_date": user.password_issue_date.to_string(),
        "status": admin.status(state, user),
    });
    if let Some(at) = user.last_login {
        wire["last_login"] = json!(at.to_string());
    }
    wire
}

fn find(state: &State, uid: u32) -> Result<&User, Refusal> {
    let missing = || Refusal::not_found(MISSING, format!("There is no user {uid}"));
    state.users.get(&uid.into()).ok_or_else(missing)
}

fn list(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    let users = state.users.values().map(|user| document(admin, &state, user));
    Ok(Value::Array(users.collect()).into())
}

fn show(admin: &Admin, request: &Request) -> Reply {
    let uid = request.uid(MISSING)?;
    // Everybody may look at themselves.
    if request.caller.uid != Some(uid) && !request.caller.may(Right::SeeUsers) {
        return Err(Refusal::forbidden());
    }
    let state = admin.state();
    Ok(document(admin, &state, find(&state, uid)?).into())
}

async fn create(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    known_fields(&body, &request)?;
    let needed = |name: &str| {
        let missing = || Refusal::new(400, "missing_field", format!("{name} is needed"));
        text(&body, name)?.filter(|text| !text.is_empty()).ok_or_else(missing)
    };
    let email = needed("email")?;
    let secret = needed("password")?;
    let (role_uids, role) = roles(&body)?;
    let state = admin.state();
    may_give(&state, &request.caller, role_uids.as_deref().unwrap_or_default(), role)?;
    judge(&state, &secret, &email)?;
    let name = text(&body, "name")?
        .unwrap_or_else(|| email.split('@').next().unwrap_or_default().to_owned());
    let hash = admin.hashed(move || password::hash(&secret)).await??;
    let user = CreateUser {
        email,
        name,
        password: hash,
        role_uids: role_uids.unwrap_or_default(),
        role,
        email_alerts: flag(&body, "email_alerts")?.unwrap_or(true),
    };
    let change = Change::CreateUser(Box::new(user));
    let (state, outcome) = if request.is_dry_run() {
        let rehearsed = admin.plane.rehearse(&change)?;
        let uid = rehearsed.users.keys().next_back().copied().unwrap_or(UserUid(0));
        (Arc::new(rehearsed), Outcome::User(uid))
    } else {
        let outcome = admin.change(change).await?;
        (admin.state(), outcome)
    };
    match outcome {
        Outcome::User(uid) => Ok(document(&admin, &state, find(&state, uid.0)?).into()),
        _ => Err(Refusal::new(500, "internal_error", "The user has no uid")),
    }
}

async fn update(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = request.uid(MISSING)?;
    let body = request.object()?;
    known_fields(&body, &request)?;
    let is_self = request.caller.uid == Some(uid);
    // Whoever manages no users may still change what is their own.
    let own = ["password", "name", "email_alerts", "uid"];
    let is_own = is_self && body.keys().all(|field| own.contains(&field.as_str()));
    if !is_own && !request.caller.may(Right::Users) {
        return Err(Refusal::forbidden());
    }
    let state = admin.state();
    let user = find(&state, uid)?;
    if !is_self {
        may_touch(&state, &request.caller, user)?;
    }
    let (role_uids, role) = roles(&body)?;
    may_give(&state, &request.caller, role_uids.as_deref().unwrap_or_default(), role)?;
    let mut patch = UserPatch {
        email: text(&body, "email")?,
        name: text(&body, "name")?,
        role_uids,
        role,
        email_alerts: flag(&body, "email_alerts")?,
        certificate_subject_line: text(&body, "certificate_subject_line")?,
        ..UserPatch::default()
    };
    match text(&body, "status")?.as_deref() {
        None | Some("locked" | "password_expired") => {}
        Some("active") => patch.unlock = true,
        Some(other) => {
            return Err(Refusal::schema(format!("status: {other:?} is no status of a user")));
        }
    }
    if let Some(secret) = text(&body, "password")? {
        judge(&state, &secret, &user.email)?;
        patch.passwords = Some(vec![admin.hashed(move || password::hash(&secret)).await??]);
        patch.unlock |= !is_self;
    }
    let unlocks = patch.unlock;
    let change = Change::UpdateUser { user: uid.into(), patch: Box::new(patch) };
    let state = if request.is_dry_run() {
        Arc::new(admin.plane.rehearse(&change)?)
    } else {
        admin.change(change).await?;
        if unlocks {
            admin.unlock(&user.email);
        }
        admin.state()
    };
    Ok(document(&admin, &state, find(&state, uid)?).into())
}

async fn remove(admin: Arc<Admin>, request: Request) -> Reply {
    let uid = request.uid(MISSING)?;
    let state = admin.state();
    may_touch(&state, &request.caller, find(&state, uid)?)?;
    let by = request.caller.uid.map(UserUid);
    admin.change(Change::DeleteUser { user: uid.into(), by }).await?;
    Ok(Answer::empty())
}

async fn set_password(admin: Arc<Admin>, request: Request) -> Reply {
    let (user, hash) = new_password(&admin, &request).await?;
    save(&admin, &user, vec![hash], false).await
}

async fn add_password(admin: Arc<Admin>, request: Request) -> Reply {
    let (user, hash) = new_password(&admin, &request).await?;
    let passwords = user.passwords.iter().cloned().chain([hash]).collect();
    save(&admin, &user, passwords, false).await
}

/// Whose it is, and what is kept of it. It has to be another than those that the user has.
async fn new_password(admin: &Admin, request: &Request) -> Result<(User, String), Refusal> {
    let (user, secret) = password_request(admin, request, "new_password")?;
    judge(&admin.state(), &secret, &user.email)?;
    let kept = user.passwords.clone();
    let hash = admin.hashed(move || {
        if kept.iter().any(|kept| password::verify(&secret, kept)) {
            let why = "The user has this password already";
            return Err(Refusal::new(400, "new_password_same_as_current", why));
        }
        password::hash(&secret)
    });
    Ok((user, hash.await??))
}

async fn remove_password(admin: Arc<Admin>, request: Request) -> Reply {
    let (user, secret) = password_request(&admin, &request, "old_password")?;
    let kept = user.passwords.clone();
    let left = admin
        .hashed(move || {
            let mut left = kept;
            left.retain(|kept| !password::verify(&secret, kept));
            left
        })
        .await?;
    if left.len() == user.passwords.len() {
        let why = "The user does not have this password";
        return Err(Refusal::new(400, "password_not_exist", why));
    }
    if left.is_empty() {
        let why = "The last password cannot be removed";
        return Err(Refusal::new(400, "cannot_delete_last_password", why));
    }
    save(&admin, &user, left, true).await
}

async fn save(admin: &Admin, user: &User, passwords: Vec<String>, keeps_issue_date: bool) -> Reply {
    let patch = UserPatch { passwords: Some(passwords), keeps_issue_date, ..UserPatch::default() };
    admin.change(Change::UpdateUser { user: user.uid, patch: Box::new(patch) }).await?;
    Ok(Answer::empty())
}

/// Whose password is meant, and the password. Without a name it is the caller's own.
fn password_request(
    admin: &Admin,
    request: &Request,
    member: &str,
) -> Result<(User, String), Refusal> {
    let body = request.object()?;
    let secret = text(&body, member)?
        .filter(|secret| !secret.is_empty())
        .ok_or_else(|| Refusal::schema(format!("{member} is needed")))?;
    let state = admin.state();
    let user = match text(&body, "username")? {
        Some(name) => {
            let missing = || Refusal::not_found(MISSING, format!("There is no user {name:?}"));
            state.user_by_email(&name).ok_or_else(missing)
        }
        None => request
            .caller
            .uid
            .and_then(|uid| state.users.get(&uid.into()))
            .ok_or_else(|| Refusal::schema("username is needed")),
    };
    let is_own = |user: &User| request.caller.uid == Some(user.uid.0);
    let denied = || Refusal::new(403, "unauthorized_action", "This is another user's password");
    // Who may not change others does not learn who there is.
    if !request.caller.may(Right::Users) {
        return user
            .ok()
            .filter(|user| is_own(user))
            .map(|user| (user.clone(), secret))
            .ok_or_else(denied);
    }
    let user = user?;
    if !is_own(user) {
        may_touch(&state, &request.caller, user)?;
    }
    Ok((user.clone(), secret))
}

fn authorize(admin: &Admin, request: &Request) -> Reply {
    let body = request.object()?;
    let life_s = match body.get("ttl") {
        None | Some(Value::Null) => token::DEFAULT_S,
        Some(ttl) => ttl
            .as_i64()
            .filter(|ttl| (1..=token::LONGEST_S).contains(ttl))
            .ok_or_else(|| Refusal::schema("ttl: seconds from 1 to 86400 are expected"))?,
    };
    let state = admin.state();
    let uid = request.caller.uid.ok_or_else(|| {
        Refusal::new(400, "no_user", "Over the local socket nobody in particular is logged in")
    })?;
    Ok(json!({"access_token": admin.token(find(&state, uid)?, life_s)?}).into())
}

/// What a role may ask for, by our own names of rights.
fn permissions(_: &Admin, _: &Request) -> Reply {
    let all = MANAGEMENT.into_iter().map(|role| (role.name().to_owned(), rights(role)));
    Ok(Value::Object(all.collect()).into())
}

fn role_permissions(_: &Admin, request: &Request) -> Reply {
    let name = request.parameter("role");
    let missing = || Refusal::not_found("role_not_exist", format!("There is no role {name:?}"));
    let role = MANAGEMENT.into_iter().find(|role| role.name() == name).ok_or_else(missing)?;
    Ok(rights(role).into())
}

const MANAGEMENT: [Management; 7] = [
    Management::Admin,
    Management::ClusterMember,
    Management::ClusterViewer,
    Management::DbMember,
    Management::DbViewer,
    Management::UserManager,
    Management::None,
];

fn rights(role: Management) -> Value {
    let caller = Caller { uid: None, email: String::new(), roles: vec![role] };
    let all =
        [Right::See, Right::SeeUsers, Right::Databases, Right::Users, Right::Keys, Right::Cluster];
    all.into_iter().filter(|right| caller.may(*right)).map(Right::name).collect()
}

fn judge(state: &State, secret: &str, email: &str) -> Result<(), Refusal> {
    let rules = state.cluster.as_ref().map_or(
        password::Rules { complex: false, min_length: 8 },
        |cluster| password::Rules {
            complex: cluster.settings.password_complexity,
            min_length: cluster.settings.password_min_length as usize,
        },
    );
    password::judge(secret, rules, email)
}

/// Only an admin makes admins, or changes one.
fn may_give(
    state: &State,
    caller: &Caller,
    uids: &[RoleUid],
    role: Option<Management>,
) -> Result<(), Refusal> {
    let is_admin = |uid: &RoleUid| {
        state.roles.get(uid).is_some_and(|role| role.management == Management::Admin)
    };
    let gives_admin = role == Some(Management::Admin) || uids.iter().any(is_admin);
    if gives_admin && !caller.may(Right::Cluster) {
        return Err(Refusal::forbidden());
    }
    Ok(())
}

fn may_touch(state: &State, caller: &Caller, user: &User) -> Result<(), Refusal> {
    may_give(state, caller, &user.role_uids, None)
}

type Roles = (Option<Vec<RoleUid>>, Option<Management>);

fn roles(body: &Map<String, Value>) -> Result<Roles, Refusal> {
    let wrong = || Refusal::schema("role_uids: a list of uids is expected");
    let uids = match body.get("role_uids") {
        None | Some(Value::Null) => None,
        Some(Value::Array(items)) => {
            let uid = |item: &Value| {
                item.as_u64().and_then(|uid| u32::try_from(uid).ok()).map(RoleUid).ok_or_else(wrong)
            };
            Some(items.iter().map(uid).collect::<Result<Vec<_>, _>>()?)
        }
        Some(_) => return Err(wrong()),
    };
    let role = match text(body, "role")? {
        None => None,
        Some(name) => Some(management(&name)?),
    };
    Ok((uids, role))
}

pub fn management(name: &str) -> Result<Management, Refusal> {
    let wrong = || Refusal::schema(format!("{name:?} is none of the roles that manage something"));
    MANAGEMENT.into_iter().find(|role| role.name() == name).ok_or_else(wrong)
}

fn known_fields(body: &Map<String, Value>, request: &Request) -> Result<(), Refusal> {
    let known = [
        "uid",
        "email",
        "name",
        "password",
        "role",
        "role_uids",
        "auth_method",
        "email_alerts",
        "certificate_subject_line",
        "password_issue_date",
        "status",
        "last_login",
        "bdbs_email_alerts",
        "cluster_email_alerts",
        "action_uid",
    ];
    if request.is_strict()
        && let Some(name) = body.keys().find(|name| !known.contains(&name.as_str()))
    {
        return Err(Refusal::schema(format!("there is no field {name}")));
    }
    match text(body, "auth_method")?.as_deref() {
        None | Some("regular") => Ok(()),
        Some(other) => {
            let why = format!("auth_method: users log in with passwords, not by {other:?}");
            Err(Refusal::not_acceptable("not_supported", why))
        }
    }
}

//! What belongs to a database beside its settings: passwords, whether it can be reached, its shards and
//! endpoints, its traffic, and commands on it.

use std::sync::Arc;

use carnelian_cluster::state::{
    Change, Database, DatabaseStatus, NodeStatus, PasswordChange, State,
};
use serde_json::{Value, json};

use crate::admin::{Admin, action_id};
use crate::answer::{Answer, Refusal, Reply};
use crate::auth::Right;
use crate::bootstrap::text;
use crate::handlers::bdbs::{endpoints, find};
use crate::handlers::shards;
use crate::request::Request;
use crate::routes::{Route, Run, delete, get, later, post, put};

pub const ROUTES: &[Route] = &[
    put("/v1/bdbs/{uid}/passwords", Right::Databases, later!(replace), "Make it the only one"),
    post("/v1/bdbs/{uid}/passwords", Right::Databases, later!(add), "Add a password"),
    delete("/v1/bdbs/{uid}/passwords", Right::Databases, later!(remove), "Remove a password"),
    get(
        "/v1/bdbs/{uid}/availability",
        Right::See,
        later!(availability),
        "Whether clients can use the database somewhere",
    ),
    get(
        "/v1/local/bdbs/{uid}/endpoint/availability",
        Right::See,
        Run::Now(local_availability),
        "Whether clients can use the database through this node",
    ),
    get("/v1/bdbs/{uid}/shards", Right::See, later!(shards_of), "Its shards").lists("Shard"),
    get("/v1/bdbs/{uid}/endpoints", Right::See, Run::Now(endpoints_of), "Its endpoints"),
    post(
        "/v1/bdbs/{uid}/actions/stop_traffic",
        Right::Databases,
        later!(stop),
        "Refuse its clients",
    ),
    post(
        "/v1/bdbs/{uid}/actions/resume_traffic",
        Right::Databases,
        later!(resume),
        "Take its clients again",
    ),
    post("/v1/bdbs/{uid}/command", Right::Databases, later!(command), "Run a command"),
];

async fn replace(admin: Arc<Admin>, request: Request) -> Reply {
    change_passwords(&admin, &request, PasswordChange::Replace).await
}

async fn add(admin: Arc<Admin>, request: Request) -> Reply {
    change_passwords(&admin, &request, PasswordChange::Add).await
}

async fn remove(admin: Arc<Admin>, request: Request) -> Reply {
    change_passwords(&admin, &request, PasswordChange::Remove).await
}

async fn change_passwords(
    admin: &Admin,
    request: &Request,
    change: fn(String) -> PasswordChange,
) -> Reply {
    let database = find(&admin.state(), request)?.uid;
    let password = text(&request.object()?, "password")?
        .ok_or_else(|| Refusal::schema("password is needed"))?;
    admin.change(Change::ChangePasswords { database, change: change(password) }).await?;
    Ok(Answer::empty())
}

async fn availability(admin: Arc<Admin>, request: Request) -> Reply {
    let state = admin.state();
    let uid = request.uid("db_not_found")?;
    let Some(database) = state.databases.get(&uid.into()) else {
        return Err(Refusal::not_found("db_not_found", format!("There is no database {uid}")));
    };
    if !admin.plane.has_quorum() {
        return Err(Refusal::new(503, "no_quorum", "There is no quorum of the nodes"));
    }
    if is_reachable(&state, database) {
        return Ok(Answer::empty());
    }
    let why = format!("The primary of database {uid} cannot be reached");
    Err(Refusal::new(503, "bdb_unavailable_shard_unreachable", why))
}

fn is_reachable(state: &State, database: &Database) -> bool {
    let primary = state.nodes.get(&database.placement.primary);
    !database.stopped
        && primary.is_some_and(|node| node.status != NodeStatus::Down)
        && !matches!(
            database.status,
            DatabaseStatus::Pending | DatabaseStatus::CreationFailed | DatabaseStatus::Recovery
        )
}

fn local_availability(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    let uid = request.uid("db_not_found")?;
    if !state.databases.contains_key(&uid.into()) {
        return Err(Refusal::not_found("db_not_found", format!("There is no database {uid}")));
    }
    if admin.live.serves(uid) {
        return Ok(Answer::empty());
    }
    let why = format!("This node does not serve database {uid}");
    Err(Refusal::new(503, "bdb_endpoint_unavailable", why))
}

async fn shards_of(admin: Arc<Admin>, request: Request) -> Reply {
    let state = admin.state();
    let database = find(&state, &request)?;
    let shards = shards::of_database(&admin, &state, database, &request).await;
    Ok(Value::Array(shards).into())
}

fn endpoints_of(admin: &Admin, request: &Request) -> Reply {
    let state = admin.state();
    let database = find(&state, request)?;
    Ok(endpoints(&state, database).into())
}

async fn stop(admin: Arc<Admin>, request: Request) -> Reply {
    set_traffic(&admin, &request, true).await
}

async fn resume(admin: Arc<Admin>, request: Request) -> Reply {
    set_traffic(&admin, &request, false).await
}

async fn set_traffic(admin: &Admin, request: &Request, stopped: bool) -> Reply {
    let database = find(&admin.state(), request)?.uid;
    admin.change(Change::SetTraffic { database, stopped }).await?;
    // Done already: the uid is for clients that look for one.
    Ok(json!({"action_uid": action_id()?}).into())
}

async fn command(admin: Arc<Admin>, request: Request) -> Reply {
    let database = find(&admin.state(), &request)?.uid;
    let body = request.object()?;
    let words = match body.get("command") {
        Some(Value::String(line)) => words(line)?,
        Some(Value::Array(items)) => {
            let wrong = || Refusal::schema("command: a list of strings is expected");
            let words: Result<Vec<_>, _> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect();
            words?
        }
        _ => return Err(Refusal::schema("command: a string or a list of strings is needed")),
    };
    if words.is_empty() {
        return Err(Refusal::schema("command is empty"));
    }
    let reply = admin.live.command(database.0, words).await?;
    Ok(json!({ "response": reply }).into())
}

/// Words of a line; quotes keep blanks together.
fn words(line: &str) -> Result<Vec<String>, Refusal> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in line.chars() {
        match quote {
            Some(end) if character == end => quote = None,
            None if character == '"' || character == '\'' => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            None if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err(Refusal::schema("command: a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_into_words() {
        assert_eq!(words("SET  a 'b c' \"\" ").unwrap(), ["SET", "a", "b c", ""]);
        assert!(words("GET 'a").is_err());
        assert!(words("  ").unwrap().is_empty());
    }
}

//! How far the making or joining of a cluster is, and what was asked for.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::answer::Refusal;
use crate::live::{Bootstrap, BootstrapFailure, Secret};
use crate::time;

/// `bootstrap_status`
#[derive(Clone, Debug, Default)]
pub struct BootstrapStatus {
    pub phase: Phase,
    pub started_s: Option<i64>,
    pub ended_s: Option<i64>,
    pub failure: Option<BootstrapFailure>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Phase {
    #[default]
    Idle,
    Initiated,
    CreatingCluster,
    JoiningCluster,
    Error,
    Completed,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BootstrapAction {
    Create,
    Join,
}

impl BootstrapAction {
    pub fn parse(word: &str) -> Result<Self, Refusal> {
        match word {
            "create_cluster" => Ok(Self::Create),
            "join_cluster" => Ok(Self::Join),
            _ => Err(Refusal::schema(format!("There is no bootstrap action {word:?}"))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Create => "create_cluster",
            Self::Join => "join_cluster",
        }
    }
}

impl BootstrapStatus {
    pub fn is_free(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Error)
    }

    pub fn start(&mut self) {
        *self = Self {
            phase: Phase::Initiated,
            started_s: Some(time::now_s()),
            ended_s: None,
            failure: None,
        };
    }

    pub fn end(&mut self, outcome: Result<(), BootstrapFailure>) {
        self.ended_s = Some(time::now_s());
        match outcome {
            Ok(()) => self.phase = Phase::Completed,
            Err(failure) => {
                self.phase = Phase::Error;
                self.failure = Some(failure);
            }
        }
    }

    pub fn to_wire(&self) -> Value {
        let state = match self.phase {
            Phase::Idle => "idle",
            Phase::Initiated => "initiated",
            Phase::CreatingCluster => "creating_cluster",
            Phase::JoiningCluster => "joining_cluster",
            Phase::Error => "error",
            Phase::Completed => "completed",
        };
        let mut wire = json!({ "state": state });
        if let Some(at) = self.started_s {
            wire["start_time"] = json!(time::format(at));
        }
        if let Some(at) = self.ended_s {
            wire["end_time"] = json!(time::format(at));
        }
        if let Some(failure) = &self.failure {
            wire["error_code"] = json!(failure.code);
            wire["error_details"] = json!({"message": failure.message});
        }
        wire
    }
}

/// Reads and checks a request to create or to join a cluster.
pub fn parse(body: &Map<String, Value>, action: BootstrapAction) -> Result<Bootstrap, Refusal> {
    if let Some(said) = text(body, "action")?
        && said != action.name()
    {
        return Err(Refusal::schema(format!("action is {said:?} but the path says otherwise")));
    }
    let none = Map::new();
    let cluster = object(body, "cluster")?.unwrap_or(&none);
    let credentials = object(body, "credentials")?.unwrap_or(&none);
    let node = object(body, "node")?.unwrap_or(&none);
    let identity = object(node, "identity")?.unwrap_or(&none);
    let limits = object(node, "limits")?.unwrap_or(&none);
    let mut request = Bootstrap {
        name: text(cluster, "name")?.or(text(body, "name")?).unwrap_or_default(),
        nodes: texts(cluster, "nodes")?,
        trusted_ca: text(cluster, "trusted_ca")?,
        username: text(credentials, "username")?.unwrap_or_default(),
        password: Secret(text(credentials, "password")?.unwrap_or_default()),
        addr: match text(identity, "addr")? {
            None => None,
            Some(addr) => Some(ip("node.identity.addr", &addr)?),
        },
        external_addr: texts(identity, "external_addr")?,
        replace_node: small(identity, "uid")?,
        rack_id: text(identity, "rack_id")?.unwrap_or_default(),
        second_rack_id: text(identity, "second_rack_id")?.unwrap_or_default(),
        accept_servers: flag(identity, "accept_servers")?.unwrap_or(true),
        max_listeners: small(limits, "max_listeners")?,
        max_redis_servers: small(limits, "max_redis_servers")?,
        policy: object(body, "policy")?.cloned().unwrap_or_default(),
    };
    for addr in &request.external_addr {
        ip("node.identity.external_addr", addr)?;
    }
    if request.username.is_empty() || request.password.0.is_empty() {
        return Err(Refusal::schema("credentials.username and credentials.password are needed"));
    }
    if request.username.contains(['&', '<', '>', '"']) {
        return Err(Refusal::schema("credentials.username may not contain any of & < > \""));
    }
    paths(object(node, "paths")?.unwrap_or(&none))?;
    match action {
        BootstrapAction::Create => {
            is_domain_name(&request.name)?;
            request.nodes.clear();
        }
        BootstrapAction::Join => {
            if request.nodes.is_empty() {
                return Err(Refusal::schema("cluster.nodes is needed: addresses of members"));
            }
            request.name.clear();
        }
    }
    Ok(request)
}

/// Folders that are named have to be there, and ours to write.
fn paths(named: &Map<String, Value>) -> Result<(), Refusal> {
    for name in ["persistent_path", "ephemeral_path", "ccs_persistent_path"] {
        let Some(path) = text(named, name)? else { continue };
        let writable = std::fs::metadata(&path)
            .is_ok_and(|found| found.is_dir() && !found.permissions().readonly());
        if !writable {
            let why = format!("node.paths.{name}: {path} is not a folder that can be written");
            return Err(Refusal::new(400, "path_error", why));
        }
    }
    Ok(())
}

/// A fully qualified name by RFC 1123.
fn is_domain_name(name: &str) -> Result<(), Refusal> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if (1..=64).contains(&name.len()) && name.split('.').all(is_label) {
        return Ok(());
    }
    Err(Refusal::schema(format!(
        "cluster.name: {name:?} is no domain name of at most 64 characters"
    )))
}

fn ip(what: &str, text: &str) -> Result<IpAddr, Refusal> {
    text.parse().map_err(|_| Refusal::schema(format!("{what}: {text:?} is no IP address")))
}

fn object<'a>(
    of: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, Refusal> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(members)) => Ok(Some(members)),
        Some(_) => Err(Refusal::schema(format!("{name}: an object is expected"))),
    }
}

pub fn text(of: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::schema(format!("{name}: a string is expected"))),
    }
}

/// A list of texts; one alone is taken too.
fn texts(of: &Map<String, Value>, name: &str) -> Result<Vec<String>, Refusal> {
    let wrong = || Refusal::schema(format!("{name}: a list of strings is expected"));
    match of.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

pub fn flag(of: &Map<String, Value>, name: &str) -> Result<Option<bool>, Refusal> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(Refusal::schema(format!("{name}: true or false is expected"))),
    }
}

/// A number that fits a uid; a text of digits is taken too, as both are on the wire.
pub fn small(of: &Map<String, Value>, name: &str) -> Result<Option<u32>, Refusal> {
    let number = match of.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    let wrong = || Refusal::schema(format!("{name}: a small number is expected"));
    number.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value, action: BootstrapAction) -> Result<Bootstrap, Refusal> {
        parse(body.as_object().unwrap(), action)
    }

    #[test]
    fn the_name_may_be_in_either_place() {
        let credentials = json!({"username": "a@b.c", "password": "x"});
        let nested = json!({"action": "create_cluster", "cluster": {"name": "c.local"},
            "credentials": credentials});
        let flat = json!({"name": "c.local", "credentials": credentials});
        for body in [nested, flat] {
            let request = read(&body, BootstrapAction::Create).unwrap();
            assert_eq!((request.name.as_str(), request.username.as_str()), ("c.local", "a@b.c"));
            assert!(!format!("{request:?}").contains("\"x\""));
        }
    }

    #[test]
    fn wrong_requests_are_refused() {
        let good = json!({"cluster": {"name": "c.local", "nodes": ["10.0.0.1"]},
            "credentials": {"username": "a@b.c", "password": "x"}, "node": {"identity": {}}});
        for (pointer, value) in [
            ("/cluster", json!([])),
            ("/cluster/name", json!("")),
            ("/cluster/name", json!("a_b")),
            ("/cluster/name", json!("-a.b")),
            ("/cluster/name", json!("a".repeat(65))),
            ("/cluster/name", json!(7)),
            ("/credentials/username", json!("<a>@b.c")),
            ("/credentials/password", Value::Null),
            ("/node/identity", json!({"addr": "nowhere"})),
            ("/node/identity", json!({"uid": -1})),
            ("/node/identity", json!({"external_addr": [1]})),
        ] {
            let mut body = good.clone();
            *body.pointer_mut(pointer).unwrap() = value;
            assert!(read(&body, BootstrapAction::Create).is_err(), "{body}");
        }
        assert!(read(&good, BootstrapAction::Create).is_ok());
        assert!(read(&good, BootstrapAction::Join).is_ok());
        let mut body = good;
        body["cluster"]["nodes"] = json!([]);
        assert!(read(&body, BootstrapAction::Join).is_err());
        body["node"]["paths"] = json!({"persistent_path": "/nowhere/at/all"});
        assert_eq!(read(&body, BootstrapAction::Create).unwrap_err().code, "path_error");
    }
}

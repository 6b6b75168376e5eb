//! `/v1/openapi.json`: the interface's description, made from the table of routes that requests go through,
//! and from the types that hold what it is about, as they write themselves.

use carnelian_cluster::state::{
    ClusterSettings, DatabaseSettings, Jobs, NodeFacts, NodeSettings, Policy, RedisAcl, Role,
    TransferKind,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::admin::Admin;
use crate::answer::{Refusal, Reply};
use crate::auth::Right;
use crate::handlers;
use crate::request::Request;
use crate::routes::{Gives, Route, Run, get};

pub const ROUTES: &[Route] = &[
    get("/v1/openapi.json", Right::Public, Run::Now(show), "This description")
        .before_there_is_a_cluster(),
    get("/v1/jsonschema", Right::Public, Run::Now(schema), "The schema of one kind of object")
        .before_there_is_a_cluster(),
];

fn show(_: &Admin, _: &Request) -> Reply {
    Ok(document().into())
}

fn schema(_: &Admin, request: &Request) -> Reply {
    let name = match request.query.get("object") {
        Some("bdb") | None => "Database",
        Some("cluster") => "Cluster",
        Some("node") => "Node",
        Some("shard") => "Shard",
        Some("user") => "User",
        Some("role") => "Role",
        Some("redis_acl") => "RedisAcl",
        Some("cluster_policy") => "Policy",
        Some("job_scheduler") => "Jobs",
        Some(other) => {
            let why = format!("There is no object {other:?}");
            return Err(Refusal::not_acceptable("unknown_object", why));
        }
    };
    Ok(components().remove(name).unwrap_or_default().into())
}

/// The description in the form of OpenAPI 3.1.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in handlers::routes() {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.name().to_lowercase()] = operation(&route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Carnelian",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Administration of a cluster of Carnelian nodes",
        },
        "servers": [{"url": "https://localhost:9443"}],
        "security": [{"basic": []}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": components(),
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let answer = match route.gives {
        Gives::Document => json!({"type": "object"}),
        Gives::One(name) => reference(name),
        Gives::List(name) => json!({"type": "array", "items": reference(name)}),
        Gives::File => json!({"type": "string", "format": "binary"}),
    };
    let kind = if route.gives == Gives::File { "application/x-gzip" } else { "application/json" };
    let mut operation = json!({
        "summary": route.about,
        "operationId": operation_id(route),
        "x-right": route.right.name(),
        "responses": {
            "200": {"description": "Done", "content": {kind: {"schema": answer}}},
            "default": {
                "description": "Refused",
                "content": {"application/json": {"schema": reference("Error")}},
            },
        },
    });
    let parameters: Vec<_> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        })
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(name) = route.takes {
        operation["requestBody"] =
            json!({"content": {"application/json": {"schema": reference(name)}}});
    }
    if route.right == Right::Public {
        operation["security"] = json!([]);
    }
    operation
}

/// `get_v1_bdbs_uid`
fn operation_id(route: &Route) -> String {
    let words = route.path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty());
    words.fold(route.method.name().to_lowercase(), |id, word| format!("{id}_{word}"))
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn components() -> Map<String, Value> {
    let text = || json!({"type": "string"});
    let whole = || json!({"type": "integer"});
    let mut database = of(&DatabaseSettings::default());
    for name in ["status", "created_time", "last_changed_time", "version", "action_uid"] {
        database["properties"][name] = json!({"type": "string", "readOnly": true});
    }
    for name in DatabaseSettings::WITHOUT_EFFECT {
        database["properties"][*name]["description"] =
            json!("Kept and returned; it changes nothing here");
    }
    database["properties"]["uid"] = whole();
    database["properties"]["authentication_redis_pass"] = text();
    database["properties"]["endpoints"] =
        json!({"type": "array", "items": {"type": "object"}, "readOnly": true});
    database["properties"]["graceful"] = json!({
        "type": "boolean",
        "writeOnly": true,
        "description": "Move links to a new data_internode_encryption without closing clients",
    });
    let mut node = of(&NodeSettings::default());
    if let (Some(properties), Value::Object(facts)) =
        (node["properties"].as_object_mut(), of(&NodeFacts::default())["properties"].clone())
    {
        properties.extend(facts);
        properties.insert("uid".into(), whole());
        properties.insert("status".into(), text());
    }
    let user = json!({
        "type": "object",
        "properties": {
            "uid": whole(), "email": text(), "name": text(), "role": text(),
            "role_uids": {"type": "array", "items": {"type": "integer"}},
            "password": {"type": "string", "writeOnly": true},
            "email_alerts": {"type": "boolean"},
            "status": text(), "auth_method": text(),
            "password_issue_date": text(), "last_login": text(),
        },
    });
    let shard = json!({
        "type": "object",
        "properties": {
            "uid": text(), "bdb_uid": whole(), "node_uid": text(), "role": text(),
            "status": text(), "detailed_status": text(), "assigned_slots": text(),
            "loading": {"type": "object"}, "redis_info": {"type": "object"},
        },
    });
    let location = json!({
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["mount_point"]},
            "path": {"type": "string", "description": "As the node with the primary sees it"},
        },
        "required": ["type", "path"],
        "additionalProperties": false,
    });
    let mail = json!({"type": "boolean", "enum": [false]});
    let export = json!({
        "type": "object",
        "properties": {"export_location": location, "email_notification": mail},
        "required": ["export_location"],
        "additionalProperties": false,
    });
    let import = json!({
        "type": "object",
        "properties": {
            "dataset_import_sources": {"type": "array", "items": location},
            "email_notification": mail,
        },
        "required": ["dataset_import_sources"],
        "additionalProperties": false,
    });
    database["properties"]["backup_location"] = location;
    for kind in TransferKind::ALL.map(TransferKind::name) {
        let properties = &mut database["properties"];
        for (name, schema) in
            [("status", "string"), ("failure_reason", "string"), ("progress", "number")]
        {
            properties[format!("{kind}_{name}")] = json!({"type": schema, "readOnly": true});
        }
        if kind != "import" {
            properties[format!("last_{kind}_time")] = json!({"type": "string", "readOnly": true});
        }
    }
    let error = json!({
        "type": "object",
        "properties": {"error_code": text(), "description": text(), "message": text()},
        "required": ["error_code", "description", "message"],
    });
    Map::from_iter(
        [
            ("Database", database),
            ("Cluster", of(&ClusterSettings::default())),
            ("Policy", of(&Policy::default())),
            ("Jobs", of(&Jobs::default())),
            ("Node", node),
            ("Shard", shard),
            ("User", user),
            ("Role", of(&Role::built_in()[0])),
            ("RedisAcl", of(&RedisAcl::built_in()[0])),
            ("Export", export),
            ("Import", import),
            ("Error", error),
        ]
        .map(|(name, schema)| (name.to_owned(), schema)),
    )
}

/// The schema of a type, by a value of it: names and types of its members, and their defaults.
fn of(value: &impl Serialize) -> Value {
    schema_of(&serde_json::to_value(value).unwrap_or_default())
}

fn schema_of(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(_) => json!({"type": "boolean", "default": value}),
        Value::Number(number) if number.is_f64() => json!({"type": "number", "default": value}),
        Value::Number(_) => json!({"type": "integer", "default": value}),
        Value::String(text) if text.is_empty() => json!({"type": "string"}),
        Value::String(_) => json!({"type": "string", "default": value}),
        Value::Array(items) => {
            let item = items.first().map_or_else(|| json!({}), schema_of);
            json!({"type": "array", "items": item})
        }
        Value::Object(members) => {
            let properties = members.iter().map(|(name, value)| (name.clone(), schema_of(value)));
            json!({"type": "object", "properties": Value::Object(properties.collect())})
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_once() {
        let document = document();
        let mut ids = BTreeSet::new();
        for route in handlers::routes() {
            let described = &document["paths"][route.path][route.method.name().to_lowercase()];
            assert_eq!(described["summary"], json!(route.about), "{}", route.path);
            assert!(ids.insert(operation_id(&route)), "{}", operation_id(&route));
        }
        assert!(100 < ids.len());
    }

    #[test]
    fn references_lead_somewhere() {
        let document = document();
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_alphanumeric()).collect();
            assert!(document["components"]["schemas"].get(&name).is_some(), "{name}");
        }
        let of = |name: &str| &document["components"]["schemas"]["Database"]["properties"][name];
        assert_eq!(of("data_internode_encryption")["type"], json!("boolean"));
        for name in DatabaseSettings::WITHOUT_EFFECT {
            assert!(DatabaseSettings::knows(name) && of(name)["description"].is_string(), "{name}");
        }
    }
}

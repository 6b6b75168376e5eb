//! Tests of every refusal, of what changes do, and that nothing is ever half done.

// Bodies of requests are written where they are passed.
#![allow(clippy::needless_pass_by_value)]

mod certificates;
mod cluster;
mod databases;
mod nodes;
mod properties;
mod transfers;
mod users;

use std::collections::BTreeMap;

use serde_json::json;

use crate::state::*;

const AT: Time = Time(1_800_000_000_000);

fn action(name: &str) -> ActionId {
    ActionId(name.to_owned())
}

fn certificate() -> SharedCertificate {
    SharedCertificate {
        certificate: "-----BEGIN CERTIFICATE-----".to_owned(),
        key: None,
        managed_by: ManagedBy::Customer,
        not_after: Time(AT.0 * 2),
        changed: AT,
    }
}

fn authority(name: &str) -> Authority {
    Authority {
        fingerprint: name.to_owned(),
        certificate: name.to_owned(),
        key: SealedKey(vec![1]),
        created: AT,
    }
}

fn new_cluster() -> CreateCluster {
    CreateCluster::for_tests()
}

fn node_settings(addr: &str) -> NodeSettings {
    NodeSettings { addr: addr.to_owned(), ..NodeSettings::default() }
}

fn add_node(addr: &str) -> Change {
    let (settings, facts) = (node_settings(addr), NodeFacts::default());
    Change::AddNode(Box::new(AddNode { settings, facts, replace: None }))
}

fn report(node: u32, status: NodeStatus) -> Change {
    Change::ReportNode { node: NodeUid(node), status, facts: None }
}

/// A cluster of so many active nodes.
fn cluster(nodes: u32) -> State {
    let mut state = State::default();
    state.apply(Change::CreateCluster(Box::new(new_cluster())), AT).unwrap();
    for node in 2..=nodes {
        state.apply(add_node(&format!("10.0.0.{node}")), AT).unwrap();
        state.apply(report(node, NodeStatus::Active), AT).unwrap();
    }
    state
}

fn create(spec: serde_json::Value, name: &str) -> Change {
    let spec = Box::new(DatabasePatch::from_wire(&spec, true).unwrap());
    let admin_password = "p".repeat(48);
    Change::CreateDatabase { spec, on: None, admin_password, action: action(name) }
}

fn update(database: u32, patch: serde_json::Value, name: &str) -> Change {
    let patch = Box::new(DatabasePatch::from_wire(&patch, true).unwrap());
    Change::UpdateDatabase { database: DatabaseUid(database), patch, action: action(name) }
}

/// All nodes do their part.
fn confirm(state: &mut State, name: &str) {
    for node in state.actions[&action(name)].awaits.clone() {
        let change = Change::ConfirmAction { action: action(name), node, error: None };
        state.apply(change, AT).unwrap();
    }
}

/// With an active database 1.
pub(crate) fn with_database(nodes: u32, more: serde_json::Value) -> State {
    let mut state = cluster(nodes);
    let mut spec = json!({"name": "db", "memory_size": 0});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    state.apply(create(spec, "create"), AT).unwrap();
    confirm(&mut state, "create");
    state
}

#[track_caller]
fn refused(state: &State, change: Change, status: u16, code: &str) {
    let mut next = state.clone();
    let refused = next.apply(change, AT).expect_err("it has to be refused");
    assert_eq!((refused.status, &*refused.code), (status, code), "{}", refused.description);
    assert!(!refused.description.is_empty());
    assert!(next == *state, "a refused change leaves the state as it was");
}

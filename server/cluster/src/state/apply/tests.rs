//! Tests of every refusal, of what changes do, and that nothing is ever half done.

// Bodies of requests are written where they are passed.
#![allow(clippy::needless_pass_by_value)]

use std::collections::BTreeMap;

use carnelian_tls::internode::{Plane, Report};
use proptest::prelude::*;
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
    CreateCluster {
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        name: "cluster.local".to_owned(),
        node: node_settings("10.0.0.1"),
        facts: NodeFacts::default(),
        admin: CreateUser {
            email: "admin@cluster.local".to_owned(),
            password: "hash".to_owned(),
            ..CreateUser::default()
        },
        authority: authority("first"),
        certificates: BTreeMap::new(),
        policy: PolicyPatch::default(),
    }
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
fn with_database(nodes: u32, more: serde_json::Value) -> State {
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

#[test]
fn a_cluster_is_created_once_and_from_sound_words() {
    let empty = State::default();
    let with = |change: fn(&mut CreateCluster)| {
        let mut new = new_cluster();
        change(&mut new);
        Change::CreateCluster(Box::new(new))
    };
    refused(&empty, add_node("10.0.0.2"), 503, "not_bootstrapped");
    refused(&empty, with(|new| new.name = "-bad".into()), 400, "config_error");
    refused(&empty, with(|new| new.name = "x".repeat(65)), 400, "config_error");
    refused(&empty, with(|new| new.id = "short".into()), 400, "config_error");
    refused(&empty, with(|new| new.admin.email = "nobody".into()), 400, "invalid_email");
    refused(&empty, with(|new| new.admin.email = "a<b@c".into()), 400, "invalid_email");
    refused(&empty, with(|new| new.admin.password.clear()), 400, "missing_field");
    refused(&cluster(1), with(|_| ()), 409, "cluster_exists");

    let state = cluster(1);
    assert_eq!(state.roles.len(), 6);
    assert_eq!(state.redis_acls.len(), 3);
    let admin = &state.users[&UserUid(1)];
    assert_eq!(state.management(admin), Management::Admin);
    assert_eq!(state.nodes[&NodeUid(1)].status, NodeStatus::Active);
}

#[test]
fn a_database_needs_name_and_size_and_gets_the_rest_from_the_policy() {
    let mut state = cluster(1);
    let patch = PolicyPatch { data_internode_encryption: Some(true), ..PolicyPatch::default() };
    state.apply(Change::SetPolicy(Box::new(patch)), AT).unwrap();
    state.apply(create(json!({"name": "one", "memory_size": 1000}), "a"), AT).unwrap();
    let database = &state.databases[&DatabaseUid(1)];
    assert!(database.settings.data_internode_encryption);
    assert_eq!(database.status, DatabaseStatus::Pending);
    assert_eq!((database.settings.port, database.port), (0, 10_000));
    assert_eq!(database.settings.authentication_admin_pass.len(), 48);
    confirm(&mut state, "a");
    assert_eq!(state.databases[&DatabaseUid(1)].status, DatabaseStatus::Active);
    let explicit = json!({"name": "two", "memory_size": 0, "data_internode_encryption": false});
    state.apply(create(explicit, "b"), AT).unwrap();
    assert!(!state.databases[&DatabaseUid(2)].settings.data_internode_encryption);
}

#[test]
fn databases_that_cannot_be_are_refused_by_their_own_codes() {
    let state = with_database(1, json!({"port": 12_000}));
    let mut number = 0;
    let mut case = |more: serde_json::Value, status: u16, code: &str| {
        let mut spec = json!({"name": "new", "memory_size": 0});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        number += 1;
        refused(&state, create(spec, &format!("case {number}")), status, code);
    };
    case(json!({"name": ""}), 406, "missing_db_name");
    case(json!({"name": "no spaces"}), 406, "invalid_db_name");
    case(json!({"name": "-x"}), 406, "invalid_db_name");
    case(json!({"name": "x".repeat(64)}), 406, "invalid_db_name");
    case(json!({"name": "db"}), 409, "name_violation");
    case(json!({"memory_size": null}), 406, "missing_memory_size");
    case(json!({"uid": 1}), 409, "uid_exists");
    case(json!({"uid": 0}), 400, "invalid_schema");
    case(json!({"uid": u32::MAX}), 400, "invalid_schema");
    case(json!({"port": 12_000}), 406, "port_unavailable");
    case(json!({"port": 3342}), 406, "port_unavailable");
    case(json!({"port": 80}), 406, "port_unavailable");
    case(json!({"shards_count": 2}), 406, "invalid_sharding");
    case(json!({"shards_count": 0}), 406, "invalid_sharding");
    case(json!({"shard_key_regex": [{"regex": ""}]}), 406, "invalid_sharding");
    case(json!({"rack_aware": true}), 406, "not_rack_aware");
    case(json!({"redis_version": "9.9"}), 406, "invalid_version");
    case(json!({"data_persistence": "snapshot"}), 406, "invalid_data_persistence");
    let no_time = json!([{"secs": 0, "writes": 1}]);
    case(json!({"snapshot_policy": no_time}), 406, "invalid_data_persistence");
    case(json!({"replication": true}), 406, "invalid_replication");
    case(json!({"use_nodes": ["7"]}), 406, "insufficient_resources");
    case(json!({"avoid_nodes": ["node:1"]}), 406, "insufficient_resources");
    case(json!({"enforce_client_authentication": "enabled"}), 406, "invalid_certificate");
    let text = json!([{"client_cert": "nothing"}]);
    case(json!({"authentication_ssl_client_certs": text}), 406, "invalid_certificate");
    let pem = json!({"client_cert": "-----BEGIN CERTIFICATE-----"});
    case(json!({"authentication_ssl_client_certs": [pem, pem]}), 406, "duplicated_certs");
    let oss = json!({"oss_cluster": true, "proxy_policy": "single"});
    case(oss, 406, "invalid_oss_cluster_configuration");
    case(json!({"backup": true}), 406, "missing_backup_interval");
    case(json!({"backup": true, "backup_interval": 60}), 406, "not_supported");
    case(json!({"disabled_commands": "FLUSHALL"}), 406, "not_supported");
    case(json!({"replica_sync": "enabled"}), 406, "not_supported");
    let wrong = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let wrong = json!([{"client_cert": wrong}]);
    case(json!({"authentication_ssl_client_certs": wrong}), 406, "invalid_certificate");
    let tag = json!({"key": "a", "value": ""});
    case(json!({"tags": [tag, tag]}), 406, "invalid_bdb_tags");
    case(json!({"module_list": ["search"]}), 406, "unsupported_module");
    case(json!({"crdt": true}), 406, "unsupported_database_type");
    let permission = json!([{"role_uid": 1, "redis_acl_uid": 99}]);
    case(json!({"roles_permissions": permission}), 406, "redis_acl_unsupported");
    case(json!({"max_client_pipeline": 2048}), 400, "invalid_schema");
    case(json!({"authorized_subjects": [{"CN": ""}]}), 400, "invalid_schema");
    refused(&state, create(json!({"name": "a", "memory_size": 0}), "create"), 409, "action_exists");
}

#[test]
fn words_on_the_wire_are_read_with_their_aliases_and_refused_by_their_fields() {
    let read = |value: serde_json::Value| DatabasePatch::from_wire(&value, false);
    let wire = read(json!({
        "persistence": "aof", "ssl": true, "status": "active", "unknown": 1, "graceful": true,
        "authentication_redis_pass": "secret", "uid": 7,
    }))
    .unwrap();
    assert_eq!(wire.patch.data_persistence, Some(Persistence::Aof));
    assert_eq!(wire.patch.tls_mode, Some(TlsMode::Enabled));
    assert_eq!((wire.uid, wire.graceful), (Some(DatabaseUid(7)), true));
    assert_eq!(wire.password.as_deref(), Some("secret"));
    assert_eq!(read(json!(null)).unwrap(), WirePatch::default());

    let code = |value| {
        let refused = read(value).unwrap_err();
        (refused.status, refused.code.into_owned())
    };
    let expected = |status, code: &str| (status, code.to_owned());
    let (invalid, schema) = (406, expected(400, "invalid_schema"));
    assert_eq!(
        code(json!({"data_persistence": "x"})),
        expected(invalid, "invalid_data_persistence")
    );
    assert_eq!(
        code(json!({"eviction_policy": "x"})),
        expected(invalid, "eviction_policy_violation")
    );
    assert_eq!(code(json!({"proxy_policy": "x"})), expected(invalid, "invalid_proxy_policy"));
    assert_eq!(code(json!({"type": "memcached"})), expected(invalid, "unsupported_database_type"));
    assert_eq!(code(json!({"memory_size": "1"})), schema);
    assert_eq!(code(json!({"memory_size": -1})), schema);
    assert_eq!(code(json!({"port": 70_000})), schema);
    assert_eq!(code(json!({"uid": "1"})), schema);
    assert_eq!(code(json!({"authentication_redis_pass": 1})), schema);
    assert_eq!(code(json!({"graceful": 1})), schema);
    assert_eq!(code(json!([])), schema);
    let strict = DatabasePatch::from_wire(&json!({"unknown": 1}), true).unwrap_err();
    assert_eq!(strict.code, "invalid_schema");
}

#[test]
fn switching_encryption_disconnects_clients_once_and_not_if_graceful() {
    let mut state = with_database(2, json!({}));
    let on = json!({"data_internode_encryption": true});
    let disconnects = |state: &State| state.databases[&DatabaseUid(1)].disconnects;
    let before = disconnects(&state);
    state.apply(update(1, on.clone(), "on"), AT).unwrap();
    let database = &state.databases[&DatabaseUid(1)];
    assert_eq!(database.status, DatabaseStatus::ActiveChangePending);
    assert_eq!(database.action, Some(action("on")));
    assert_eq!(disconnects(&state), before + 1);
    refused(&state, update(1, json!({"maxclients": 1}), "second"), 409, "busy");
    confirm(&mut state, "on");
    assert_eq!(state.databases[&DatabaseUid(1)].status, DatabaseStatus::Active);
    assert_eq!(state.apply(update(1, on, "again"), AT), Ok(Outcome::Unchanged));
    assert!(!state.actions.contains_key(&action("again")));
    let gently = json!({"data_internode_encryption": false, "graceful": true});
    state.apply(update(1, gently, "off"), AT).unwrap();
    assert_eq!(disconnects(&state), before + 1);
    let kinds: Vec<_> = state.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds.iter().filter(|it| **it == "data_internode_encryption_changed").count(), 2);
}

#[test]
fn encryption_needs_software_that_knows_of_it() {
    let mut state = with_database(1, json!({}));
    let facts = NodeFacts { software_version: "6.2.3".to_owned(), ..NodeFacts::default() };
    let facts = Some(Box::new(facts));
    let change = Change::ReportNode { node: NodeUid(1), status: NodeStatus::Active, facts };
    state.apply(change, AT).unwrap();
    let on = json!({"data_internode_encryption": true});
    refused(&state, update(1, on, "on"), 406, "unsupported_software_version");
    let patch = PolicyPatch { data_internode_encryption: Some(true), ..PolicyPatch::default() };
    refused(&state, Change::SetPolicy(Box::new(patch)), 406, "unsupported_software_version");
}

#[test]
fn a_change_that_a_node_cannot_make_is_taken_back_everywhere() {
    let mut state = with_database(2, json!({}));
    let before = state.databases[&DatabaseUid(1)].settings.clone();
    state.apply(update(1, json!({"maxclients": 5}), "u"), AT).unwrap();
    let error = Some("no".to_owned());
    let change = Change::ConfirmAction { action: action("u"), node: NodeUid(2), error };
    state.apply(change, AT).unwrap();
    let database = &state.databases[&DatabaseUid(1)];
    assert_eq!((&database.settings, database.status), (&before, DatabaseStatus::Active));
    assert_eq!(state.actions[&action("u")].status, ActionStatus::Failed);
}

#[test]
fn updates_of_databases_are_refused_by_their_own_codes() {
    let mut state = with_database(1, json!({}));
    refused(&state, update(9, json!({}), "u"), 404, "db_not_exist");
    refused(&state, update(1, json!({"port": 15_000}), "u"), 406, "port_change_not_allowed");
    refused(
        &state,
        update(1, json!({"replication": true}), "u"),
        406,
        "replication_node_violation",
    );
    refused(&state, update(1, json!({"name": "a b"}), "u"), 406, "invalid_db_name");
    state.apply(create(json!({"name": "other", "memory_size": 0}), "b"), AT).unwrap();
    refused(&state, update(1, json!({"name": "other"}), "u"), 406, "name_violation");
    refused(&state, update(2, json!({"name": "x"}), "u"), 409, "busy");
    let tight = PolicyPatch { shards_overbooking: Some(false), ..PolicyPatch::default() };
    state.apply(Change::SetPolicy(Box::new(tight)), AT).unwrap();
    refused(&state, update(1, json!({"memory_size": 1}), "u"), 406, "insufficient_resources");
}

#[test]
fn databases_are_deleted_when_every_node_has_done_so() {
    let mut state = with_database(2, json!({}));
    let delete =
        |uid, name| Change::DeleteDatabase { database: DatabaseUid(uid), action: action(name) };
    refused(&state, delete(5, "d"), 404, "db_not_exist");
    state.apply(delete(1, "d"), AT).unwrap();
    refused(&state, delete(1, "e"), 409, "busy");
    assert_eq!(state.databases[&DatabaseUid(1)].status, DatabaseStatus::DeletePending);
    confirm(&mut state, "d");
    assert!(state.databases.is_empty());
    let internal = with_database(1, json!({"internal": true}));
    refused(&internal, delete(1, "d"), 403, "internal_db");
    // A uid is never given twice.
    state.apply(create(json!({"name": "db", "memory_size": 0}), "c"), AT).unwrap();
    assert!(state.databases.contains_key(&DatabaseUid(2)));
}

#[test]
fn passwords_are_added_replaced_and_removed_but_for_the_last() {
    let mut state = with_database(1, json!({}));
    let change = |change| Change::ChangePasswords { database: DatabaseUid(1), change };
    let (add, remove) = (PasswordChange::Add, PasswordChange::Remove);
    refused(&state, change(remove("a".into())), 406, "password_not_exist");
    state.apply(change(add("a".into())), AT).unwrap();
    refused(&state, change(add("a".into())), 406, "password_exists");
    refused(&state, change(add(String::new())), 406, "invalid_password");
    refused(&state, change(remove("a".into())), 406, "cannot_delete_last_password");
    state.apply(change(add("b".into())), AT).unwrap();
    state.apply(change(remove("a".into())), AT).unwrap();
    assert_eq!(state.databases[&DatabaseUid(1)].passwords, ["b"]);
    for number in 0..99 {
        state.apply(change(add(format!("p{number}"))), AT).unwrap();
    }
    refused(&state, change(add("more".into())), 406, "too_many_passwords");
    state.apply(change(PasswordChange::Replace("c".into())), AT).unwrap();
    assert_eq!(state.databases[&DatabaseUid(1)].passwords, ["c"]);
    let other = Change::ChangePasswords { database: DatabaseUid(9), change: add("a".into()) };
    refused(&state, other, 404, "db_not_exist");
}

#[test]
fn a_replica_becomes_primary_on_the_epoch_it_was_chosen_by() {
    let mut state = with_database(3, json!({"replication": true}));
    let before = state.databases[&DatabaseUid(1)].clone();
    let (primary, replica) = (before.placement.primary, before.placement.replicas[0]);
    let promote =
        |node, epoch, action| Change::Promote { database: DatabaseUid(1), node, epoch, action };
    refused(&state, promote(replica, 9, None), 409, "stale_epoch");
    refused(&state, promote(primary, 1, None), 400, "shard_not_replica");
    state.apply(promote(replica, 1, None), AT).unwrap();
    let database = &state.databases[&DatabaseUid(1)];
    let expected = Placement { epoch: 2, primary: replica, replicas: vec![primary] };
    assert_eq!(database.placement, expected);
    assert_eq!(database.shards, [before.shards[1], before.shards[0]]);
    refused(&state, promote(primary, 1, None), 409, "stale_epoch");
    state.apply(promote(primary, 2, Some(action("f"))), AT).unwrap();
    refused(&state, promote(replica, 3, Some(action("g"))), 409, "busy");
}

#[test]
fn replicas_are_placed_on_nodes_that_take_them() {
    let mut state = with_database(3, json!({"replication": true}));
    let placement = state.databases[&DatabaseUid(1)].placement.clone();
    let set = |replicas: &[u32], epoch| Change::SetReplicas {
        action: None,
        database: DatabaseUid(1),
        replicas: replicas.iter().map(|uid| NodeUid(*uid)).collect(),
        epoch,
    };
    let primary = placement.primary.0;
    refused(&state, set(&[primary], 1), 406, "replication_node_violation");
    refused(&state, set(&[3, 3], 1), 406, "replication_node_violation");
    refused(&state, set(&[9], 1), 404, "node_not_exist");
    refused(&state, set(&[3], 4), 409, "stale_epoch");
    state.apply(report(3, NodeStatus::Down), AT).unwrap();
    refused(&state, set(&[3], 1), 406, "replication_node_violation");
    state.apply(set(&[], 1), AT).unwrap();
    assert_eq!(state.databases[&DatabaseUid(1)].shards.len(), 1);
}

#[test]
fn nodes_join_with_an_address_of_their_own_up_to_nine() {
    let mut state = cluster(2);
    refused(&state, add_node("10.0.0.2"), 409, "node_address_in_use");
    let replace = |node| {
        let (settings, facts) = (node_settings("10.0.0.77"), NodeFacts::default());
        Change::AddNode(Box::new(AddNode { settings, facts, replace: Some(NodeUid(node)) }))
    };
    refused(&state, replace(9), 404, "node_not_exist");
    refused(&state, replace(2), 406, "node_not_offline");
    for node in 3..=9 {
        state.apply(add_node(&format!("10.0.0.{node}")), AT).unwrap();
    }
    refused(&state, add_node("10.0.0.10"), 406, "too_many_nodes");
    state.apply(report(2, NodeStatus::Down), AT).unwrap();
    assert_eq!(state.apply(replace(2), AT), Ok(Outcome::Node(NodeUid(10))));
    assert!(state.removed_nodes.contains(&NodeUid(2)) && !state.is_member(NodeUid(2)));
    let mut racks = cluster(1);
    let rack = NodePatch { rack_id: Some("a".into()), ..NodePatch::default() };
    let set_rack = Change::UpdateNode { node: NodeUid(1), patch: Box::new(rack) };
    let aware = PolicyPatch { rack_aware: Some(true), ..PolicyPatch::default() };
    refused(&racks, Change::SetPolicy(Box::new(aware.clone())), 400, "rack_id_required");
    racks.apply(set_rack, AT).unwrap();
    racks.apply(Change::SetPolicy(Box::new(aware)), AT).unwrap();
    refused(&racks, add_node("10.0.0.2"), 406, "rack_id_required");
    let other = NodePatch { rack_id: Some("b".into()), ..NodePatch::default() };
    let change = Change::UpdateNode { node: NodeUid(1), patch: Box::new(other) };
    refused(&racks, change, 406, "node_already_has_rack_id");
}

#[test]
fn a_dead_node_is_replaced_unless_it_has_the_only_copy_of_something() {
    let mut state = with_database(3, json!({"replication": true}));
    let placement = state.databases[&DatabaseUid(1)].placement.clone();
    for node in [placement.primary, placement.replicas[0]] {
        state.apply(report(node.0, NodeStatus::Down), AT).unwrap();
    }
    let replace = |node| {
        let (settings, facts) = (node_settings("10.0.0.77"), NodeFacts::default());
        Change::AddNode(Box::new(AddNode { settings, facts, replace: Some(node) }))
    };
    refused(&state, replace(placement.primary), 406, "node_already_populated");
    state.apply(replace(placement.replicas[0]), AT).unwrap();
    let now = &state.databases[&DatabaseUid(1)].placement;
    assert_eq!((now.replicas[0], now.epoch), (NodeUid(4), placement.epoch + 1));
}

#[test]
fn nodes_are_changed_within_bounds() {
    let mut state = cluster(2);
    let change = |node, patch| Change::UpdateNode { node: NodeUid(node), patch: Box::new(patch) };
    let addr = NodePatch { addr: Some("10.9.9.9".into()), ..NodePatch::default() };
    refused(&state, change(9, addr.clone()), 404, "node_not_exist");
    refused(&state, change(2, addr.clone()), 406, "node_not_offline");
    let none = NodePatch { max_listeners: Some(0), ..NodePatch::default() };
    refused(&state, change(2, none), 400, "invalid_param");
    state.apply(report(2, NodeStatus::Down), AT).unwrap();
    state.apply(change(2, addr), AT).unwrap();
    assert_eq!(state.nodes[&NodeUid(2)].internode_address(), "10.9.9.9:3342");
    refused(&state, report(9, NodeStatus::Down), 404, "node_not_exist");
}

#[test]
fn a_node_leaves_when_nothing_is_left_on_it() {
    let remove = |node, name| Change::RemoveNode { node: NodeUid(node), action: action(name) };
    let finish = |name| Change::FinishAction { action: action(name), error: None };
    refused(&cluster(1), remove(1, "r"), 406, "last_node");
    let mut state = with_database(2, json!({"replication": true}));
    refused(&state, remove(9, "r"), 404, "node_not_exist");
    let replica = state.databases[&DatabaseUid(1)].placement.replicas[0];
    state.apply(remove(replica.0, "r"), AT).unwrap();
    refused(&state, remove(replica.0, "s"), 409, "action_running");
    refused(&state, finish("r"), 409, "node_not_empty");
    let empty = Change::SetReplicas {
        database: DatabaseUid(1),
        replicas: Vec::new(),
        epoch: 1,
        action: None,
    };
    state.apply(empty, AT).unwrap();
    state.apply(finish("r"), AT).unwrap();
    assert!(!state.is_member(replica) && state.removed_nodes.contains(&replica));

    let mut state = with_database(2, json!({}));
    let primary = state.databases[&DatabaseUid(1)].placement.primary;
    let other = NodeUid(3 - primary.0);
    state.apply(report(other.0, NodeStatus::Down), AT).unwrap();
    refused(&state, remove(primary.0, "r"), 406, "insufficient_resources");
    state.apply(report(other.0, NodeStatus::Active), AT).unwrap();
    state.apply(report(primary.0, NodeStatus::Down), AT).unwrap();
    refused(&state, remove(primary.0, "r"), 409, "node_already_populated");
}

#[test]
fn maintenance_keeps_in_mind_what_a_node_was_primary_of() {
    let set =
        |node, on, name| Change::SetMaintenance { node: NodeUid(node), on, action: action(name) };
    refused(&with_database(1, json!({})), set(1, true, "m"), 406, "insufficient_resources");
    refused(&cluster(1), set(9, true, "m"), 404, "node_not_exist");
    let mut state = with_database(2, json!({}));
    let primary = state.databases[&DatabaseUid(1)].placement.primary;
    state.apply(set(primary.0, true, "on"), AT).unwrap();
    assert_eq!(state.nodes[&primary].maintenance_snapshot, [DatabaseUid(1)]);
    refused(&state, set(primary.0, false, "off"), 409, "action_running");
}

#[test]
fn users_have_emails_of_their_own_and_an_admin_is_always_left() {
    let mut state = cluster(1);
    let new = |email: &str, name: &str, role| {
        Change::CreateUser(Box::new(CreateUser {
            email: email.to_owned(),
            name: name.to_owned(),
            password: "hash".to_owned(),
            role,
            ..CreateUser::default()
        }))
    };
    let viewer = Some(Management::DbViewer);
    refused(&state, new("ADMIN@cluster.local", "", viewer), 409, "email_already_exists");
    refused(&state, new("", "", viewer), 400, "missing_field");
    refused(&state, new("a@b", "", None), 400, "missing_field");
    refused(&state, new("a@b", "", Some(Management::UserManager)), 400, "role_not_exist");
    refused(&state, new("a@b", "x\n", viewer), 400, "invalid_name");
    state.apply(new("a@b", "a", viewer), AT).unwrap();
    refused(&state, new("c@d", "a", viewer), 409, "name_already_exists");

    let patch = |user, patch| Change::UpdateUser { user: UserUid(user), patch: Box::new(patch) };
    let role = UserPatch { role: Some(Management::None), ..UserPatch::default() };
    refused(&state, patch(1, role), 400, "change_last_admin_role_not_allowed");
    let none = UserPatch { passwords: Some(Vec::new()), ..UserPatch::default() };
    refused(&state, patch(1, none), 400, "cannot_delete_last_password");
    let roles = UserPatch { role_uids: Some(vec![RoleUid(99)]), ..UserPatch::default() };
    refused(&state, patch(1, roles), 400, "role_not_exist");
    let no_roles = UserPatch { role_uids: Some(Vec::new()), ..UserPatch::default() };
    refused(&state, patch(1, no_roles), 400, "missing_field");
    let taken = UserPatch { email: Some("a@b".into()), ..UserPatch::default() };
    refused(&state, patch(1, taken), 409, "email_already_exists");
    refused(&state, patch(9, UserPatch::default()), 404, "user_not_exist");

    let delete = |user, by| Change::DeleteUser { user: UserUid(user), by };
    refused(&state, delete(1, Some(UserUid(1))), 406, "delete_self_not_allowed");
    refused(&state, delete(1, None), 406, "delete_last_admin_not_allowed");
    refused(&state, delete(9, None), 404, "user_not_exist");
    state.apply(delete(2, None), AT).unwrap();
}

#[test]
fn failed_logins_lock_for_a_while() {
    let mut state = cluster(1);
    let login = |succeeded| Change::NoteLogin { user: UserUid(1), succeeded };
    for _ in 0..5 {
        state.apply(login(false), AT).unwrap();
    }
    assert_eq!(state.users[&UserUid(1)].status, UserStatus::Locked);
    state.apply(login(true), AT).unwrap();
    assert_eq!(state.users[&UserUid(1)].status, UserStatus::Locked);
    let later = Time(AT.0 + 1_800_000);
    state.apply(login(true), later).unwrap();
    assert_eq!(state.users[&UserUid(1)].status, UserStatus::Active);
    let unknown = Change::NoteLogin { user: UserUid(7), succeeded: true };
    refused(&state, unknown, 404, "user_not_exist");
}

#[test]
fn built_in_roles_and_rules_stay_and_used_ones_too() {
    let mut state = cluster(1);
    let role =
        |name: &str| Change::CreateRole { name: name.to_owned(), management: Management::DbMember };
    assert_eq!(state.apply(role("mine"), AT), Ok(Outcome::Role(RoleUid(17))));
    refused(&state, role("mine"), 400, "name_already_exists");
    refused(&state, role(""), 400, "missing_field");
    let rename = |role, name: &str| Change::UpdateRole {
        role: RoleUid(role),
        name: Some(name.to_owned()),
        management: None,
    };
    refused(&state, rename(17, "Admin"), 400, "name_already_exists");
    refused(&state, rename(99, "x"), 404, "role_not_exist");
    let weaken =
        Change::UpdateRole { role: RoleUid(1), name: None, management: Some(Management::None) };
    refused(&state, weaken, 400, "change_last_admin_role_not_allowed");
    let delete = |role| Change::DeleteRole { role: RoleUid(role) };
    refused(&state, delete(2), 406, "built_in_role");
    refused(&state, delete(99), 404, "role_not_exist");

    let acl = |name: &str, acl: &str| Change::CreateAcl { name: name.into(), acl: acl.into() };
    assert_eq!(state.apply(acl("mine", "+get ~a* (+set ~b*)"), AT), Ok(Outcome::Acl(AclUid(17))));
    refused(&state, acl("mine", "+@all"), 409, "name_already_exists");
    refused(&state, acl("", "+@all"), 400, "missing_field");
    for rules in ["", "get", "(+get", "+get)", ">password", "nopass"] {
        refused(&state, acl("other", rules), 400, "invalid_param");
    }
    let rules =
        |acl| Change::UpdateAcl { acl: AclUid(acl), name: None, rules: Some("+get".into()) };
    refused(&state, rules(1), 409, "built_in_acl");
    refused(&state, rules(99), 404, "redis_acl_not_exist");
    let delete_acl = |acl| Change::DeleteAcl { acl: AclUid(acl) };
    refused(&state, delete_acl(1), 409, "built_in_acl");
    refused(&state, delete_acl(99), 404, "redis_acl_not_exist");
    let permission = json!([{"role_uid": 17, "redis_acl_uid": 17}]);
    let spec = json!({"name": "db", "memory_size": 0, "roles_permissions": permission});
    state.apply(create(spec, "c"), AT).unwrap();
    refused(&state, delete(17), 406, "role_in_use");
    refused(&state, delete_acl(17), 409, "redis_acl_in_use");
}

#[test]
fn settings_of_the_cluster_stay_in_their_bounds() {
    let state = cluster(1);
    let set = |patch| Change::SetCluster { patch: Box::new(patch), alerts: BTreeMap::new() };
    let case = |json: serde_json::Value, code: &str| {
        refused(&state, set(ClusterPatch::parse(&json, true).unwrap()), 400, code);
    };
    case(json!({"cm_port": 80}), "bad_nginx_conf");
    case(json!({"cm_port": 9443}), "bad_nginx_conf");
    case(json!({"internal_cert_validity_days": 1}), "invalid_param");
    case(json!({"internal_cert_validity_days": 366}), "invalid_param");
    case(json!({"password_min_length": 7}), "invalid_param");
    case(json!({"cm_session_timeout_minutes": 0}), "invalid_param");
    case(json!({"reserved_ports": ["2-1"]}), "invalid_param");
    case(json!({"mtls_authorized_subjects": [{"CN": ""}]}), "invalid_param");
    case(json!({"mtls_certificate_authentication": true}), "missing_certificate");
    case(json!({"debuginfo_path": "a\u{0}"}), "bad_debuginfo_path");
    assert!(ClusterPatch::parse(&json!({"cm_port": "x"}), false).is_err());
    let both = json!({"data_cipher_suites_tls_1_3": "A:B"});
    let patch = ClusterPatch::parse(&both, true).unwrap();
    assert_eq!(patch.data_cipher_suites_tls_1_3.unwrap(), ["A", "B"]);

    let alert = |name: &str, patch: serde_json::Value| Change::SetCluster {
        patch: Box::default(),
        alerts: BTreeMap::from([(name.to_owned(), serde_json::from_value(patch).unwrap())]),
    };
    refused(&state, alert("none", json!(true)), 404, "alert_not_exist");
    refused(&state, alert("node_memory", json!({"threshold": "x"})), 406, "invalid_threshold");
    let mut state = state.clone();
    state.apply(alert("node_memory", json!({"threshold": 80})), AT).unwrap();
    let setting = &state.cluster.as_ref().unwrap().alert_settings["node_memory"];
    assert_eq!((setting.enabled(), setting.threshold()), (false, Some("80")));

    let policy = |patch| Change::SetPolicy(Box::new(patch));
    let percent =
        PolicyPatch { redis_migrate_node_threshold_p: Some(101), ..PolicyPatch::default() };
    refused(&state, policy(percent), 400, "invalid_param");
    let version = Some("5.0".to_owned());
    let version =
        PolicyPatch { default_provisioned_redis_version: version, ..PolicyPatch::default() };
    refused(&state, policy(version), 400, "invalid_version");
}

#[test]
fn certificates_are_rotated_thirty_days_after_they_were_made() {
    let mut state = cluster(1);
    assert_eq!(state.jobs.days_before_rotation(45), 15);
    assert_eq!(state.jobs.days_before_rotation(90), 60);
    let jobs = |value| Change::SetJobs(JobsPatch(value));
    let rotation =
        |days: u32| json!({"cert_rotation_job_settings": {"expiry_days_before_rotation": days}});
    refused(&state, jobs(rotation(0)), 400, "invalid_param");
    refused(&state, jobs(rotation(91)), 400, "invalid_param");
    refused(&state, jobs(rotation(45)), 406, "invalid_param");
    refused(&state, jobs(json!({"none": {}})), 400, "invalid_param");
    refused(&state, jobs(json!({"backup_job_settings": 1})), 400, "invalid_schema");
    refused(&state, jobs(json!([])), 400, "invalid_schema");
    let cron = json!({"backup_job_settings": {"cron_expression": "every day"}});
    refused(&state, jobs(cron), 400, "invalid_param");
    let wrong = json!({"backup_job_settings": {"enabled": "yes"}});
    refused(&state, jobs(wrong), 400, "invalid_schema");
    let never = json!({"cert_rotation_job_settings": {"cron_expression": "0 0 31 2 *"}});
    refused(&state, jobs(never), 400, "invalid_param");
    let backup = json!({"backup_job_settings": {"enabled": true}});
    refused(&state, jobs(backup), 406, "not_supported");
    let sundays = json!({"node_checks_job_settings": {"cron_expression": "0 3 * * sun"}});
    state.apply(jobs(sundays), AT).unwrap();
    state.apply(jobs(rotation(20)), AT).unwrap();
    assert!(state.jobs.cert_rotation_job_settings.enabled);
    assert_eq!(state.jobs.days_before_rotation(45), 20);
    let patch = ClusterPatch { internal_cert_validity_days: Some(20), ..ClusterPatch::default() };
    let change = Change::SetCluster { patch: Box::new(patch), alerts: BTreeMap::new() };
    refused(&state, change, 406, "invalid_param");
}

#[test]
fn certificates_are_rotated_on_all_nodes_or_not_at_all() {
    let mut state = cluster(2);
    let rotate = |name: Option<&str>, id: &str| Change::RotateCertificates {
        name: name.map(str::to_owned),
        action: action(id),
    };
    refused(&state, rotate(Some("proxy"), "r"), 403, "unsupported_rotation");
    refused(&state, rotate(Some("none"), "r"), 403, "unsupported_rotation");
    state.apply(rotate(Some("data_internode_encryption"), "r"), AT).unwrap();
    refused(&state, rotate(None, "s"), 409, "action_running");
    state.apply(report(2, NodeStatus::Down), AT).unwrap();
    assert_eq!(state.actions[&action("r")].status, ActionStatus::Failed);
    refused(&state, rotate(None, "s"), 400, "not_all_nodes_updated");
    state.apply(report(2, NodeStatus::Active), AT).unwrap();
    state.apply(rotate(None, "s"), AT).unwrap();
    confirm(&mut state, "s");
    assert_eq!(state.actions[&action("s")].status, ActionStatus::Completed);
}

#[test]
fn shared_certificates_are_replaced_all_or_none() {
    let mut state = cluster(1);
    let set = |list: &[(&str, SharedCertificate)]| {
        let list = list.iter().map(|(name, one)| ((*name).to_owned(), one.clone()));
        Change::SetCertificates(list.collect())
    };
    let expired = SharedCertificate { not_after: AT, ..certificate() };
    let text = SharedCertificate { certificate: "text".into(), ..certificate() };
    refused(&state, set(&[]), 400, "missing_field");
    refused(&state, set(&[("none", certificate())]), 403, "unknown_certificate");
    refused(&state, set(&[("api", certificate()), ("cm", text)]), 400, "invalid_certificate");
    refused(&state, set(&[("api", certificate()), ("cm", expired)]), 406, "certificate_expired");
    let drop = Change::DropCertificate;
    refused(&state, drop(CertificateName::Proxy), 403, "required_certificate");
    refused(&state, drop(CertificateName::MtlsTrustedCa), 404, "certificate_not_exist");
    state.apply(set(&[("mtls_trusted_ca", certificate())]), AT).unwrap();
    let on =
        ClusterPatch { mtls_certificate_authentication: Some(true), ..ClusterPatch::default() };
    let change = Change::SetCluster { patch: Box::new(on), alerts: BTreeMap::new() };
    state.apply(change, AT).unwrap();
    refused(&state, drop(CertificateName::MtlsTrustedCa), 403, "required_certificate");
    state.apply(set(&[("data_internode_encryption", certificate())]), AT).unwrap();
    let named = Some("data_internode_encryption".to_owned());
    let rotate = Change::RotateCertificates { name: named, action: action("r") };
    refused(&state, rotate, 403, "unsupported_rotation");
}

fn replace_authority(name: &str, id: &str) -> Change {
    Change::ReplaceAuthority { authority: Box::new(authority(name)), action: action(id) }
}

/// A node that trusts these and shows certificates of that one.
fn trust(node: u32, trusts: &[&str], shows: &str) -> Change {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let report = Report {
        trusts: names(trusts),
        can_sign: names(&["first", "second"]),
        leaves: Plane::ALL.map(|plane| (plane, shows.to_owned())).into(),
        old_links: 0,
    };
    Change::ReportTrust { node: NodeUid(node), report }
}

fn trusted(state: &State) -> Vec<&str> {
    state.trusted_authorities().into_iter().map(|it| it.fingerprint.as_str()).collect()
}

#[test]
fn another_authority_takes_over_as_nodes_report_and_who_leaves_holds_nobody_up() {
    let mut state = cluster(3);
    refused(&state, Change::KeepAuthority, 409, "no_rotation_running");
    refused(&state, replace_authority("first", "r"), 409, "authority_exists");
    state.apply(report(3, NodeStatus::Down), AT).unwrap();
    refused(&state, replace_authority("second", "r"), 400, "not_all_nodes_updated");
    state.apply(report(3, NodeStatus::Active), AT).unwrap();
    state.apply(replace_authority("second", "r"), AT).unwrap();
    refused(&state, replace_authority("third", "s"), 409, "action_running");
    // Certificates are rotated as ever.
    let rotate = Change::RotateCertificates { name: None, action: action("leaves") };
    state.apply(rotate, AT).unwrap();

    let both = ["first", "second"];
    let signer = |state: &State| state.signing_authority().unwrap().fingerprint.clone();
    let step = |state: &State| state.actions[&action("r")].step.clone();
    for node in 1..=3 {
        assert_eq!((trusted(&state), &*signer(&state)), (both.to_vec(), "first"));
        state.apply(trust(node, &both, "first"), AT).unwrap();
    }
    assert_eq!((&*signer(&state), &*step(&state)), ("second", "new_signs"));
    refused(&state, Change::KeepAuthority, 409, "rotation_too_far");
    state.apply(trust(1, &both, "second"), AT).unwrap();
    state.apply(trust(2, &both, "second"), AT).unwrap();
    // The third is away. What it shows is trusted for as long as it is a member.
    state.apply(report(3, NodeStatus::Down), AT).unwrap();
    assert_eq!((trusted(&state), &*step(&state)), (both.to_vec(), "new_signs"));
    state.apply(Change::RemoveNode { node: NodeUid(3), action: action("x") }, AT).unwrap();
    state.apply(Change::FinishAction { action: action("x"), error: None }, AT).unwrap();
    assert_eq!((trusted(&state), &*step(&state)), (vec!["second"], "leaves_renewed"));
    // Who joins in between reports too.
    state.apply(add_node("10.0.0.4"), AT).unwrap();
    state.apply(trust(1, &["second"], "second"), AT).unwrap();
    state.apply(trust(2, &["second"], "second"), AT).unwrap();
    assert_eq!(state.authorities.len(), 2);
    state.apply(trust(4, &["second"], "second"), AT).unwrap();
    assert_eq!(state.authorities, [authority("second")]);
    assert!(state.replacement.is_none());
    assert_eq!(state.actions[&action("r")].status, ActionStatus::Completed);
    assert_eq!(state.apply(trust(1, &both, "first"), AT), Ok(Outcome::Unchanged));
}

#[test]
fn another_authority_can_be_given_up_until_it_signs() {
    let mut state = cluster(2);
    state.apply(replace_authority("second", "r"), AT).unwrap();
    state.apply(trust(1, &["first", "second"], "first"), AT).unwrap();
    state.apply(Change::KeepAuthority, AT).unwrap();
    assert_eq!(state.apply(Change::KeepAuthority, AT), Ok(Outcome::Unchanged));
    assert_eq!(state.actions[&action("r")].status, ActionStatus::Failed);
    assert_eq!(trusted(&state), ["first"]);
    refused(&state, replace_authority("third", "s"), 409, "action_running");
    for node in [1, 2] {
        state.apply(trust(node, &["first"], "first"), AT).unwrap();
    }
    assert_eq!(state.authorities, [authority("first")]);
    state.apply(replace_authority("third", "s"), AT).unwrap();
}

#[test]
fn nodes_report_only_their_own_certificates() {
    let state = cluster(1);
    let one = Certificate {
        name: CertificateName::DataInternodeEncryption,
        node_uid: NodeUid(2),
        managed_by: ManagedBy::Cluster,
        subject: String::new(),
        issuer: String::new(),
        serial: String::new(),
        sha256: String::new(),
        key_type: String::new(),
        not_before: AT,
        not_after: AT,
        failure: None,
    };
    let report = |node| Change::ReportCertificates { node, certificates: vec![one.clone()] };
    refused(&state, report(NodeUid(1)), 400, "invalid_schema");
    refused(&state, report(NodeUid(2)), 404, "node_not_exist");
}

#[test]
fn actions_end_once_and_are_forgotten_in_time() {
    let mut state = with_database(1, json!({}));
    let unknown = Change::FinishAction { action: action("none"), error: None };
    refused(&state, unknown, 404, "action_not_exist");
    let again = Change::FinishAction { action: action("create"), error: Some("late".into()) };
    assert_eq!(state.apply(again, AT), Ok(Outcome::Unchanged));
    let later = Time(AT.0 + 3_599_000);
    assert_eq!(state.apply(Change::Tidy, later), Ok(Outcome::Unchanged));
    assert_eq!(state.apply(Change::Tidy, Time(AT.0 + 3_600_000)), Ok(Outcome::Done));
    assert!(state.actions.is_empty());
}

#[test]
fn traffic_is_stopped_and_alerts_are_set_per_database() {
    let mut state = with_database(1, json!({}));
    let stop = |uid| Change::SetTraffic { database: DatabaseUid(uid), stopped: true };
    refused(&state, stop(9), 404, "db_not_exist");
    state.apply(update(1, json!({"maxclients": 9}), "u"), AT).unwrap();
    refused(&state, stop(1), 409, "busy");
    let alerts = |uid: u32, name: &str| Change::SetDatabaseAlerts {
        database: DatabaseUid(uid),
        alerts: BTreeMap::from([(name.to_owned(), AlertPatch::Switch(true))]),
    };
    refused(&state, alerts(9, "bdb_size"), 404, "db_not_exist");
    refused(&state, alerts(1, "none"), 404, "alert_not_exist");
    state.apply(alerts(1, "bdb_size"), AT).unwrap();
}

#[test]
fn the_wire_object_has_the_fields_that_clients_read() {
    let state = with_database(1, json!({"authentication_redis_pass": "p"}));
    let wire = state.databases[&DatabaseUid(1)].to_wire();
    for (field, value) in [
        ("uid", json!(1)),
        ("status", json!("active")),
        ("created_time", json!("2027-01-15T08:00:00Z")),
        ("port", json!(0)),
        ("type", json!("redis")),
        ("ssl", json!(false)),
        ("enforce_client_authentication", json!("disabled")),
        ("authentication_redis_pass", json!("p")),
        ("eviction_policy", json!("volatile-lru")),
        ("aof_policy", json!("appendfsync-every-sec")),
        ("hash_slots_policy", json!("16k")),
        ("background_op", json!([{"status": "idle"}])),
        ("shard_list", json!([1])),
    ] {
        assert_eq!(wire[field], value, "{field}");
    }
    assert!(wire.get("action_uid").is_none());
}

/// Changes of every kind, mostly about things that are there.
fn any_change() -> impl Strategy<Value = Change> {
    let node = || (0..6_u32).prop_map(NodeUid);
    let database = || (0..4_u32).prop_map(DatabaseUid);
    let id = || (0..40_u32).prop_map(|number| ActionId(format!("a{number}")));
    let name = || prop::sample::select(vec!["a", "b", "c", "", "no good"]);
    let subset = || {
        let names = vec!["first", "a", "b"];
        prop::sample::subsequence(names, 0..=3)
            .prop_map(|names| names.into_iter().map(str::to_owned).collect())
    };
    let wire = || {
        (
            name(),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            prop::option::of(prop::sample::select(vec![0_u16, 1, 3342, 12_000, 65_535])),
            prop::option::of(any::<u32>()),
        )
            .prop_map(|(name, replication, encryption, graceful, port, uid)| {
                let patch = DatabasePatch {
                    name: Some(name.to_owned()),
                    memory_size: Some(0),
                    replication: Some(replication),
                    data_internode_encryption: Some(encryption),
                    port,
                    ..DatabasePatch::default()
                };
                Box::new(WirePatch { patch, uid: uid.map(DatabaseUid), password: None, graceful })
            })
    };
    let statuses = vec![NodeStatus::Active, NodeStatus::Down, NodeStatus::Provisioning];
    prop_oneof![
        3 => (0..9_u8, prop::option::of(node())).prop_map(|(addr, replace)| {
            let settings = node_settings(&format!("10.0.0.{addr}"));
            Change::AddNode(Box::new(AddNode { settings, facts: NodeFacts::default(), replace }))
        }),
        6 => (node(), prop::sample::select(statuses)).prop_map(|(node, status)| {
            Change::ReportNode { node, status, facts: None }
        }),
        2 => (node(), id()).prop_map(|(node, action)| Change::RemoveNode { node, action }),
        2 => (node(), any::<bool>(), id())
            .prop_map(|(node, on, action)| Change::SetMaintenance { node, on, action }),
        4 => (wire(), prop::option::of(node()), id()).prop_map(|(spec, on, action)| {
            Change::CreateDatabase { spec, on, admin_password: String::new(), action }
        }),
        4 => (database(), wire(), id())
            .prop_map(|(database, patch, action)| Change::UpdateDatabase { database, patch, action }),
        2 => (database(), id())
            .prop_map(|(database, action)| Change::DeleteDatabase { database, action }),
        4 => (database(), node(), 0..6_u64, prop::option::of(id()))
            .prop_map(|(database, node, epoch, action)| Change::Promote { database, node, epoch, action }),
        4 => (database(), prop::collection::vec(node(), 0..3), 0..6_u64)
            .prop_map(|(database, replicas, epoch)| Change::SetReplicas {
                database,
                replicas,
                epoch,
                action: None,
            }),
        9 => (id(), node(), prop::option::weighted(0.2, Just("no".to_owned())))
            .prop_map(|(action, node, error)| Change::ConfirmAction { action, node, error }),
        3 => (id(), prop::option::of(Just("no".to_owned())))
            .prop_map(|(action, error)| Change::FinishAction { action, error }),
        1 => (id(), any::<f64>()).prop_map(|(action, progress)| {
            Change::AdvanceAction { action, progress, step: String::new() }
        }),
        1 => id().prop_map(|action| Change::RotateCertificates { name: None, action }),
        1 => (database(), any::<bool>())
            .prop_map(|(database, stopped)| Change::SetTraffic { database, stopped }),
        1 => (id(), name()).prop_map(|(action, name)| Change::ReplaceAuthority {
            authority: Box::new(authority(name)),
            action,
        }),
        1 => Just(Change::KeepAuthority),
        6 => (node(), subset(), subset(), name()).prop_map(|(node, trusts, can_sign, shows)| {
            let leaves = Plane::ALL.map(|plane| (plane, shows.to_owned())).into();
            Change::ReportTrust { node, report: Report { trusts, can_sign, leaves, old_links: 0 } }
        }),
        1 => Just(Change::Tidy),
    ]
}

/// What holds whatever was asked for.
fn check(state: &State) {
    for database in state.databases.values() {
        let nodes: Vec<_> = database.placement.nodes().collect();
        let distinct: std::collections::BTreeSet<_> = nodes.iter().collect();
        assert_eq!(distinct.len(), nodes.len(), "a node has one shard of a database");
        assert_eq!(database.shards.len(), nodes.len(), "each has its shard");
        assert!(nodes.iter().all(|node| state.is_member(*node)), "shards are on members");
        let busy = state.running(Object::Database(database.uid)).map(|action| &action.id);
        assert_eq!(database.action.as_ref(), busy, "a database knows its action");
    }
    for action in state.actions.values() {
        assert!(action.progress.is_finite());
        assert!(action.awaits.iter().all(|node| state.is_member(*node)), "members do the work");
        let same = state.actions.values().filter(|it| it.object == action.object);
        assert!(same.filter(|it| !it.status.is_over()).count() <= 1, "one action per object");
    }
    assert!(state.nodes.len() <= NODES_MAX && !state.nodes.is_empty());
    assert!(state.removed_nodes.iter().all(|node| !state.is_member(*node)));
    assert!(!state.trusted_authorities().is_empty() && state.signing_authority().is_some());
    assert_eq!(state.authorities.len(), if state.replacement.is_some() { 2 } else { 1 });
}

proptest! {
    #[test]
    fn changes_are_made_whole_or_not_at_all_and_alike_everywhere(
        changes in prop::collection::vec(any_change(), 1..60)
    ) {
        let mut state = cluster(2);
        let mut epochs = BTreeMap::new();
        for change in changes {
            let (before, mut twin) = (state.clone(), state.clone());
            let result = state.apply(change.clone(), AT);
            prop_assert_eq!(&twin.apply(change, AT), &result);
            prop_assert!(twin == state, "the same change has the same result");
            match result {
                Err(_) | Ok(Outcome::Unchanged) => prop_assert!(state == before),
                Ok(_) => prop_assert!(state.revision == before.revision + 1),
            }
            check(&state);
            for database in state.databases.values() {
                let epoch = database.placement.epoch;
                let last = epochs.insert(database.uid, (database.created, epoch));
                prop_assert!(last.is_none_or(|(_, last)| last <= epoch || epoch == 1));
            }
        }
        let bytes = serde_json::to_vec(&state).unwrap();
        let read: State = serde_json::from_slice(&bytes).unwrap();
        prop_assert!(read == state, "what is stored is what was there");
    }
}

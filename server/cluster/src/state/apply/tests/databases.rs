//! Databases: what is refused, what changes do, where their shards are.

use super::*;

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
    case(json!({"backup": true, "backup_interval": 60}), 406, "missing_backup_location");
    let place = json!({"type": "mount_point", "path": "/b"});
    let late = json!({
        "backup": true, "backup_interval": 60, "backup_interval_offset": 60,
        "backup_location": place,
    });
    case(late, 406, "invalid_param");
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
    let promote = |node, epoch, action| Change::Promote {
        database: DatabaseUid(1),
        node,
        epoch,
        action,
        holder: None,
    };
    refused(&state, promote(replica, 9, None), 409, "stale_epoch");
    refused(&state, promote(primary, 1, None), 400, "shard_not_replica");
    state.apply(promote(replica, 1, None), AT).unwrap();
    let database = &state.databases[&DatabaseUid(1)];
    let expected = Placement { epoch: 2, primary: replica, replicas: vec![primary], holder: None };
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

#[test]
fn another_process_of_the_primary_begins_an_epoch_of_its_own() {
    let mut state = with_database(3, json!({"replication": true}));
    let uid = DatabaseUid(1);
    let hold = |epoch, holder| Change::Hold { database: uid, epoch, holder };
    let of = |state: &State| {
        let placement = &state.databases[&uid].placement;
        (placement.epoch, placement.holder)
    };
    assert_eq!(of(&state), (1, None));
    assert_eq!(state.apply(hold(1, 7), AT), Ok(Outcome::Done));
    assert_eq!(of(&state), (1, Some(7)));
    assert_eq!(state.apply(hold(1, 7), AT), Ok(Outcome::Unchanged));
    assert_eq!(state.apply(hold(1, 8), AT), Ok(Outcome::Done));
    assert_eq!(of(&state), (2, Some(8)));
    refused(&state, hold(1, 9), 409, "stale_epoch");
    // What is alone is held by whoever is there.
    let alone = Change::SetReplicas { database: uid, replicas: Vec::new(), epoch: 2, action: None };
    assert_eq!(state.apply(alone, AT), Ok(Outcome::Done));
    assert_eq!(of(&state), (3, None));
}

#[test]
fn work_that_nobody_is_there_to_do_is_over_at_once() {
    let mut state = with_database(2, json!({}));
    for node in [1, 2] {
        state.apply(report(node, NodeStatus::Down), AT).expect("it is a node");
    }
    state.apply(update(1, json!({"maxclients": 9}), "nobody"), AT).expect("it may be changed");
    assert!(state.actions[&action("nobody")].status.is_over());
    assert_eq!(state.databases[&DatabaseUid(1)].status, DatabaseStatus::Active);
}

#[test]
fn who_goes_on_after_a_restart_is_who_has_most() {
    use crate::placement::{Reports, ShardReport, Succession, after_restart};

    let state = with_database(3, json!({"replication": true}));
    let database = &state.databases[&DatabaseUid(1)];
    let (primary, replica) = (database.placement.primary, database.placement.replicas[0]);
    let report = |history: &str, offset, synced, whole| ShardReport {
        database: database.uid,
        epoch: 1,
        synced,
        offset,
        whole,
        history: history.to_owned(),
    };
    let judge = |own: Option<ShardReport>, other: Option<ShardReport>, is_late, waits| {
        let of = |node, report: Option<ShardReport>| report.map(|report| (node, vec![report]));
        let reports: Reports =
            [of(primary, own), of(replica, other)].into_iter().flatten().collect();
        after_restart(database, &reports, is_late, false, |_, _| waits)
    };
    let (empty, synced) = (report("new", 0, true, false), report("old", 9, true, true));
    let other = Succession::Other(replica);
    // Nobody has told yet, or the primary loads for too long.
    assert_eq!(judge(None, None, true, true), Succession::Wait);
    assert_eq!(judge(None, Some(synced.clone()), false, true), Succession::Wait);
    assert_eq!(judge(None, Some(synced.clone()), true, true), other);
    // It has nothing, something else, less, or all.
    assert_eq!(judge(Some(empty.clone()), Some(synced.clone()), false, true), other);
    let cases = [("new", 10, other), ("old", 8, other), ("old", 9, Succession::Same)];
    for (history, offset, expected) in cases {
        let own = report(history, offset, true, true);
        assert_eq!(judge(Some(own), Some(synced.clone()), false, true), expected);
    }
    // The replica cannot be asked: that is waited for, but not for ever, unless there is nothing to go on with.
    for (waits, expected) in [(true, Succession::Wait), (false, Succession::Same)] {
        assert_eq!(judge(Some(empty.clone()), None, true, waits), Succession::Wait);
        assert_eq!(judge(Some(report("old", 9, true, true)), None, true, waits), expected);
    }
    // What fell behind is more than nothing, and less than what the primary has.
    let behind = report("old", 5, false, true);
    assert_eq!(judge(Some(empty.clone()), Some(behind.clone()), true, false), other);
    assert_eq!(
        judge(Some(report("x", 1, true, true)), Some(behind), true, false),
        Succession::Same
    );
    let nothing = report("old", 0, false, false);
    assert_eq!(judge(Some(empty), Some(nothing), true, true), Succession::Same);
}

#[test]
fn one_of_several_replicas_that_has_data_is_enough_in_the_end() {
    use crate::placement::{Reports, ShardReport, Succession, after_restart};

    let mut state = with_database(3, json!({"replication": true}));
    let database = state.databases.get_mut(&DatabaseUid(1)).expect("it is there");
    let primary = database.placement.primary;
    let others: Vec<NodeUid> =
        [1, 2, 3].map(NodeUid).into_iter().filter(|it| *it != primary).collect();
    database.placement.replicas.clone_from(&others);
    let report = |synced, whole| ShardReport {
        database: DatabaseUid(1),
        epoch: 1,
        synced,
        offset: 0,
        whole,
        history: "h".to_owned(),
    };
    let of = |node: NodeUid, whole| (node, vec![report(node == primary, whole)]);
    let mut reports = Reports::from([of(primary, false), of(others[0], true)]);
    let judge =
        |reports: &Reports, waits| after_restart(database, reports, true, false, |_, _| waits);
    assert_eq!(judge(&reports, true), Succession::Wait);
    assert_eq!(judge(&reports, false), Succession::Other(others[0]));
    reports.insert(others[0], vec![report(false, false)]);
    assert_eq!(judge(&reports, false), Succession::Wait);
    // A database can be told not to wait for ever.
    let given_up = after_restart(database, &reports, true, true, |_, _| true);
    assert_eq!(given_up, Succession::Same);
    reports.insert(others[1], vec![report(false, false)]);
    assert_eq!(judge(&reports, false), Succession::Same);
}

#[test]
fn of_several_replicas_the_one_that_has_most_is_next() {
    use crate::placement::{Reports, ShardReport, Succession, after_restart, heir};

    let mut state = with_database(3, json!({"replication": true}));
    let database = state.databases.get_mut(&DatabaseUid(1)).expect("it is there");
    let primary = database.placement.primary;
    let others: Vec<NodeUid> =
        [1, 2, 3].map(NodeUid).into_iter().filter(|it| *it != primary).collect();
    database.placement.replicas.clone_from(&others);
    let report = |history: &str, offset, synced, whole| ShardReport {
        database: DatabaseUid(1),
        epoch: 1,
        synced,
        offset,
        whole,
        history: history.to_owned(),
    };
    let follower = report("h", 37, true, true);
    let with = |other: ShardReport| {
        Reports::from([(others[0], vec![other]), (others[1], vec![follower.clone()])])
    };
    // One that was started anew tells of data, but not that it follows: further on, as far, of something else, not whole.
    for (other, expected) in [
        (report("h", 38, false, true), others[0]),
        (report("h", 37, false, true), others[1]),
        (report("x", 38, false, true), others[1]),
        (report("h", 38, false, false), others[1]),
        (report("h", 38, true, true), others[0]),
    ] {
        assert_eq!(heir(database, &with(other.clone())), Some(expected), "{other:?}");
    }
    // Where nobody is known to have all, nobody takes the place of a primary that is away.
    let alone = Reports::from([(others[0], vec![report("h", 38, false, true)])]);
    assert_eq!(heir(database, &alone), None);

    // After a restart without data the other one is waited for, if it is there, but not for ever.
    let empty = (primary, vec![report("new", 0, true, false)]);
    let reports = Reports::from([empty.clone(), (others[1], vec![follower.clone()])]);
    let judge = |reports: &Reports, is_late, waits| {
        after_restart(database, reports, is_late, false, |_, _| waits)
    };
    assert_eq!(judge(&reports, false, true), Succession::Wait);
    for (is_late, waits) in [(true, true), (false, false)] {
        assert_eq!(judge(&reports, is_late, waits), Succession::Other(others[1]));
    }
    let mut reports = with(report("h", 38, false, true));
    reports.extend([empty]);
    assert_eq!(judge(&reports, false, true), Succession::Other(others[0]));
}

#[test]
fn the_only_replica_is_kept_until_another_has_all() {
    use crate::placement::{Reports, ShardReport, Step, emptying};

    let mut state = with_database(3, json!({"replication": true}));
    let uid = DatabaseUid(1);
    let placement = state.databases[&uid].placement.clone();
    let leaving = placement.replicas[0];
    let spare =
        [1, 2, 3].map(NodeUid).into_iter().find(|it| !placement.nodes().any(|on| on == *it));
    let spare = spare.expect("there are three nodes");
    let set = |replicas: &[NodeUid], epoch| {
        let (replicas, action) = (replicas.to_vec(), None);
        Some(Step::Change(Change::SetReplicas { database: uid, replicas, epoch, action }))
    };
    let step = |state: &State, reports: &Reports, is_well| {
        emptying(state, leaving, false, reports, |_| is_well)
    };
    let mut reports = Reports::new();
    let first = step(&state, &reports, true);
    assert_eq!(first, set(&[leaving, spare], 1));
    let Some(Step::Change(change)) = first else { unreachable!("it was compared") };
    state.apply(change, AT).expect("it may");
    assert_eq!(step(&state, &reports, true), Some(Step::Wait));
    let report = ShardReport {
        database: uid,
        epoch: 2,
        synced: true,
        offset: 9,
        whole: true,
        history: "h".to_owned(),
    };
    reports.insert(spare, vec![report]);
    assert_eq!(step(&state, &reports, true), set(&[spare], 2));

    // There is nobody else: the primary has all, unless it was started without.
    let state = with_database(2, json!({"replication": true}));
    let leaving = state.databases[&uid].placement.replicas[0];
    let step = |is_well| emptying(&state, leaving, false, &Reports::new(), |_| is_well);
    assert_eq!(step(true), set(&[], 1));
    assert_eq!(step(false), Some(Step::Wait));
}

#[test]
fn an_operator_has_a_primary_go_on_with_what_there_is() {
    let mut state = with_database(2, json!({"replication": true}));
    let (database, holder) = (DatabaseUid(1), 7);
    state.apply(Change::Hold { database, epoch: 1, holder }, AT).expect("it may");
    assert_eq!(state.databases[&database].placement.holder, Some(7));
    let recover = |epoch| Change::Recover { database, epoch };
    refused(&state, recover(9), 409, "stale_epoch");
    state.apply(recover(1), AT).expect("it may");
    let placement = &state.databases[&database].placement;
    assert_eq!((placement.holder, placement.epoch), (None, 2));
    // Nothing is lost where nobody else has anything.
    let mut alone = with_database(1, json!({}));
    refused(&alone, recover(1), 406, "db_not_in_recovery");
    let database = DatabaseUid(9);
    assert!(alone.apply(Change::Recover { database, epoch: 1 }, AT).is_err());
}

#[test]
fn a_replica_is_made_anew_where_its_node_stays_away() {
    use crate::placement::{repair, replace_lost};

    let mut state = with_database(4, json!({"replication": true}));
    let (uid, other) = (DatabaseUid(1), DatabaseUid(2));
    let second =
        json!({"name": "two", "memory_size": 0, "replication": true, "slave_ha_priority": 5});
    state.apply(create(second, "two"), AT).expect("it may be made");
    confirm(&mut state, "two");
    let lost = NodeUid(2);
    // Both have their replica there.
    for uid in [uid, other] {
        let Database { placement, .. } = state.databases.get_mut(&uid).expect("it is there");
        (placement.primary, placement.replicas) = (NodeUid(1), vec![lost]);
    }
    let later = |seconds| AT.plus(std::time::Duration::from_secs(seconds));
    let moved = |state: &State, seconds| match replace_lost(state, later(seconds), |_| true) {
        Some(Change::MoveReplica { database, from, to, .. }) => Some((database, from, to)),
        None => None,
        change => panic!("{change:?}"),
    };
    assert_eq!(moved(&state, 9000), None, "it is there");
    state.apply(report(2, NodeStatus::Down), AT).expect("it is a node");
    assert_eq!(moved(&state, 599), None);
    assert_eq!(replace_lost(&state, later(600), |_| false), None, "the primary is not there");
    // What matters most comes first, and one failure moves all.
    let first = replace_lost(&state, later(600), |_| true).expect("it is time");
    assert_eq!(moved(&state, 600), Some((other, lost, NodeUid(3))));
    state.apply(first, later(600)).expect("it may");
    assert_eq!(state.databases[&other].placement.replicas, [NodeUid(3), lost]);
    // The old one is given up when the new one has everything.
    assert_eq!(repair(&state, |_, _| false), None);
    let settle = |state: &mut State| {
        let change = repair(state, |_, node| node != lost).expect("one is too many");
        state.apply(change, later(600)).expect("it may");
    };
    settle(&mut state);
    assert_eq!(state.databases[&other].placement.replicas, [NodeUid(3)]);
    assert_eq!(moved(&state, 601), Some((uid, lost, NodeUid(4))));
    let mut unwilling = state.clone();
    unwilling.databases.get_mut(&uid).expect("it is there").settings.slave_ha = false;
    assert_eq!(moved(&unwilling, 601), None);
    unwilling.clone_from(&state);
    unwilling.policy.slave_ha = false;
    assert_eq!(moved(&unwilling, 601), None);
    let second = replace_lost(&state, later(601), |_| true).expect("it is time");
    state.apply(second, later(601)).expect("it may");
    assert_eq!(moved(&state, 9000), None, "it is under way");
    settle(&mut state);
    assert_eq!(moved(&state, 601), None, "all is well");

    // Another failure soon after has to wait, and the same database for longer.
    state.apply(report(2, NodeStatus::Active), later(602)).expect("it is a node");
    state.apply(report(4, NodeStatus::Down), later(602)).expect("it is a node");
    assert_eq!(moved(&state, 1300), None);
    assert_eq!(moved(&state, 601 + 3600), None);
    assert_eq!(moved(&state, 601 + 7200), Some((uid, NodeUid(4), lost)));
    let wrong = Change::MoveReplica { database: uid, from: lost, to: NodeUid(3), epoch: 2 };
    assert!(state.apply(wrong, later(9000)).is_err());
}

#[test]
fn a_replicas_buffer_is_understood_or_refused() {
    let of = |size: Size| {
        ReplicaBuffer::of(&size)
            .map(|it| it.map(|it| (it.hard_bytes >> 20, it.soft_bytes >> 20, it.soft_seconds)))
    };
    let text = |text: &str| of(Size::Text(text.to_owned()));
    assert_eq!(text("auto"), Ok(None));
    assert_eq!(text("512"), Ok(Some((512, 512, 60))));
    assert_eq!(of(Size::Bytes(64)), Ok(Some((64, 64, 60))));
    assert_eq!(text("256:64:30"), Ok(Some((256, 64, 30))));
    for wrong in ["", "1:2", "1:2:3:4", "x", "-1", "1:x:2", "18446744073709551615"] {
        assert!(text(wrong).is_err(), "{wrong}");
    }
    let state = with_database(1, json!({}));
    refused(&state, update(1, json!({"slave_buffer": "much"}), "u"), 406, "invalid_param");
}

//! Exports, imports and backups, and where shards would better be.

use super::*;
use crate::placement::{Blueprint, Reports, ShardReport, Step, balanced, rebalancing};

const UID: DatabaseUid = DatabaseUid(1);

fn place() -> Location {
    Location::MountPoint { path: "/there".to_owned() }
}

fn start(kind: TransferKind, id: &str) -> Change {
    Change::StartTransfer { database: UID, kind, locations: vec![place()], id: action(id) }
}

fn tell(kind: TransferKind, id: &str, report: TransferReport) -> Change {
    Change::ReportTransfer { database: UID, kind, id: action(id), report }
}

fn reset(kind: TransferKind) -> Change {
    Change::ResetTransfer { database: UID, kind }
}

#[test]
fn a_transfer_goes_from_asked_to_over_and_is_shown_at_each_step() {
    let mut state = with_database(1, json!({}));
    let shown = |state: &State| {
        let wire = state.databases[&UID].to_wire();
        ["status", "import_status", "import_progress", "import_failure_reason"]
            .map(|name| wire[name].clone())
    };
    assert_eq!(shown(&state), [json!("active"), json!(""), json!(0.0), json!("")]);
    let kind = TransferKind::Import;
    let steps = [
        (start(kind, "a"), json!(["import-pending", "initializing", 0.0, ""])),
        (tell(kind, "a", TransferReport::Begun), json!(["import-pending", "importing", 0.0, ""])),
        (
            tell(kind, "a", TransferReport::Progress(250)),
            json!(["import-pending", "importing", 100.0, ""]),
        ),
        (
            tell(kind, "a", TransferReport::Failed("file-corrupted".to_owned())),
            json!(["active", "failed", 100.0, "file-corrupted"]),
        ),
        (start(kind, "b"), json!(["import-pending", "initializing", 0.0, ""])),
        (tell(kind, "b", TransferReport::Succeeded), json!(["active", "succeeded", 100.0, ""])),
        (reset(kind), json!(["active", "", 0.0, ""])),
    ];
    for (change, expected) in steps {
        state.apply(change, AT).unwrap();
        assert_eq!(json!(shown(&state)), expected);
    }
    assert_eq!(state.apply(reset(kind), AT), Ok(Outcome::Unchanged));
    let kinds: Vec<_> = state.events.iter().map(|event| event.kind.as_str()).collect();
    let told = ["import_started", "import_failed", "import_started", "import_succeeded"];
    assert!(kinds.ends_with(&told), "{kinds:?}");
}

#[test]
fn transfers_that_cannot_be_are_refused() {
    let mut state = with_database(2, json!({"replication": true}));
    let kind = TransferKind::Export;
    let unknown = Change::ResetTransfer { database: DatabaseUid(9), kind };
    refused(&state, unknown, 404, "db_not_exist");
    let none = Change::StartTransfer { database: UID, kind, locations: vec![], id: action("x") };
    refused(&state, none, 400, "invalid_schema");
    refused(&state, tell(kind, "a", TransferReport::Begun), 409, "transfer_over");
    state.apply(start(kind, "a"), AT).unwrap();
    for other in TransferKind::ALL {
        refused(&state, start(other, "b"), 409, "busy");
    }
    refused(&state, reset(kind), 409, "busy");
    refused(&state, tell(kind, "b", TransferReport::Succeeded), 409, "transfer_over");
    state.apply(tell(kind, "a", TransferReport::Begun), AT).unwrap();
    refused(&state, tell(kind, "a", TransferReport::Begun), 409, "transfer_begun");
    // It can be changed meanwhile, but not while other data are coming in.
    state.apply(update(1, json!({"maxclients": 9}), "u"), AT).unwrap();
    refused(&state, start(TransferKind::Backup, "c"), 409, "busy");
    confirm(&mut state, "u");
    state.apply(tell(kind, "a", TransferReport::Succeeded), AT).unwrap();
    assert_eq!(state.databases[&UID].transfers.export.succeeded, Some(AT));
    state.apply(start(TransferKind::Import, "d"), AT).unwrap();
    refused(&state, update(1, json!({"maxclients": 10}), "v"), 409, "busy");
    // Who does it goes down.
    let primary = state.databases[&UID].placement.primary;
    state.apply(report(primary.0, NodeStatus::Down), AT).unwrap();
    let database = &state.databases[&UID];
    assert_eq!(database.transfers.import.stage, TransferStage::Failed);
    assert_eq!(database.transfers.import.failure, "general-error");
    assert_eq!(database.status, DatabaseStatus::Active);
    refused(&state, start(kind, "e"), 503, "bdb_unavailable");
}

#[test]
fn locations_are_read_and_wrong_ones_refused() {
    let read = |value| Location::from_wire("place", &value);
    let good = json!({"type": "mount_point", "path": "/there"});
    assert_eq!(read(good.clone()), Ok(place()));
    assert_eq!(serde_json::to_value(place()).unwrap(), good);
    let long = "/x".repeat(2048);
    let cases = [
        (json!(null), 400, "invalid_schema"),
        (json!("/there"), 400, "invalid_schema"),
        (json!({"path": "/there"}), 400, "invalid_schema"),
        (json!({"type": "tape", "path": "/there"}), 400, "invalid_schema"),
        (json!({"type": "mount_point"}), 400, "invalid_schema"),
        (json!({"type": "mount_point", "path": 7}), 400, "invalid_schema"),
        (json!({"type": "mount_point", "path": "/a", "url": "x"}), 400, "invalid_schema"),
        (json!({"type": "mount_point", "path": ""}), 400, "invalid_param"),
        (json!({"type": "mount_point", "path": "there"}), 400, "invalid_param"),
        (json!({"type": "mount_point", "path": "/a/../etc"}), 400, "invalid_param"),
        (json!({"type": "mount_point", "path": "/.."}), 400, "invalid_param"),
        (json!({"type": "mount_point", "path": "/a\u{0}b"}), 400, "invalid_param"),
        (json!({"type": "mount_point", "path": long}), 400, "invalid_param"),
        (json!({"type": "s3", "bucket_name": "b"}), 406, "not_supported"),
        (json!({"type": "url", "url": "ftp://x"}), 406, "not_supported"),
    ];
    for (value, status, code) in cases {
        let refused = read(value.clone()).expect_err("it is wrong");
        assert_eq!((refused.status, &*refused.code), (status, code), "{value}");
    }
    let name = |id: &str, database: &str| {
        let transfer = Transfer { id: Some(action(id)), begun: Some(AT), ..Transfer::default() };
        transfer.file_name(TransferKind::Backup, UID, database)
    };
    let at = "20270115T080000Z";
    assert_eq!(name("0a1b2c3d-4e5f", "db"), format!("backup-db-1-{at}-0a1b2c3d.rdb"));
    assert_eq!(name("../../x", "../a"), format!("backup----a-1-{at}-x.rdb"));
}

#[test]
fn backups_come_with_the_first_run_of_the_job_after_each_interval() {
    let settings = json!({
        "backup": true, "backup_interval": 3600, "backup_interval_offset": 60,
        "backup_location": place(),
    });
    let mut state = with_database(1, settings);
    let next = |state: &State| state.databases[&UID].next_backup_s(&state.jobs);
    // AT is a full hour; the job runs every five minutes.
    let hour_s = AT.seconds();
    assert_eq!(next(&state), Some(hour_s + 300));
    let at = Time((hour_s + 300) * 1000);
    state.apply(start(TransferKind::Backup, "a"), at).unwrap();
    state.apply(tell(TransferKind::Backup, "a", TransferReport::Succeeded), at).unwrap();
    assert_eq!(next(&state), Some(hour_s + 3600 + 300));
    state.jobs.backup_job_settings.cron_expression = "* * * * *".to_owned();
    assert_eq!(next(&state), Some(hour_s + 3600 + 60));
    let wire = state.databases[&UID].to_wire();
    assert_eq!(wire["last_backup_time"], json!(at.to_string()));
    assert_eq!(wire["backup_location"], json!(place()));
    let off = JobsPatch(json!({"backup_job_settings": {"enabled": false}}));
    state.apply(Change::SetJobs(off), AT).unwrap();
    assert_eq!(next(&state), None);
    // An interval longer than time itself.
    state.jobs.backup_job_settings.enabled = true;
    let database = state.databases.get_mut(&UID).unwrap();
    database.settings.backup_interval = u64::MAX;
    assert_eq!(next(&state), None);
}

/// Four nodes; the first two have all shards.
fn uneven() -> State {
    let mut state = cluster(2);
    for name in ["one", "two", "three"] {
        let spec = json!({"name": name, "memory_size": 0, "replication": true});
        state.apply(create(spec, name), AT).unwrap();
        confirm(&mut state, name);
        let database = state.databases.values_mut().last().unwrap();
        database.placement.primary = NodeUid(1);
        database.placement.replicas = vec![NodeUid(2)];
    }
    for node in 3..=4 {
        state.apply(add_node(&format!("10.0.0.{node}")), AT).unwrap();
        state.apply(report(node, NodeStatus::Active), AT).unwrap();
    }
    state
}

#[test]
fn shards_move_to_where_there_are_fewer_and_primaries_too() {
    let mut state = uneven();
    let plan = |state: &State, only_failovers, most| {
        let Blueprint { primary, replicas } =
            balanced(state, &state.databases[&UID], only_failovers, most);
        std::iter::once(primary).chain(replicas).map(|node| node.0).collect::<Vec<_>>()
    };
    assert_eq!(plan(&state, false, usize::MAX), [4, 3]);
    assert_eq!(plan(&state, false, 1), [1, 3], "one step");
    assert_eq!(plan(&state, false, 0), [1, 2]);
    assert_eq!(plan(&state, true, usize::MAX), [2, 1], "all primaries are on one node");
    assert_eq!(plan(&state, true, 0), [1, 2]);
    // Where it may not be nothing goes.
    let settings = &mut state.databases.get_mut(&UID).unwrap().settings;
    settings.use_nodes = vec!["1".to_owned(), "2".to_owned(), "4".to_owned()];
    assert_eq!(plan(&state, false, usize::MAX), [4, 1]);
    // What is even stays.
    for (uid, nodes) in [(2, [3, 4]), (3, [4, 3])] {
        let placement = &mut state.databases.get_mut(&DatabaseUid(uid)).unwrap().placement;
        placement.primary = NodeUid(nodes[0]);
        placement.replicas = vec![NodeUid(nodes[1])];
    }
    assert_eq!(plan(&state, false, usize::MAX), [1, 2]);
}

#[test]
fn nothing_is_given_up_before_what_takes_its_place_has_all() {
    let mut state = uneven();
    let rebalance = |primary, replica, epoch, name| Change::Rebalance {
        database: UID,
        primary: NodeUid(primary),
        replicas: vec![NodeUid(replica)],
        epoch,
        action: action(name),
    };
    refused(&state, rebalance(3, 4, 9, "a"), 409, "stale_epoch");
    refused(&state, rebalance(3, 3, 1, "a"), 406, "replication_node_violation");
    refused(&state, rebalance(3, 7, 1, "a"), 404, "node_not_exist");
    state.apply(rebalance(3, 4, 1, "a"), AT).unwrap();
    refused(&state, rebalance(3, 4, 1, "b"), 409, "busy");
    let step = |state: &State, synced: &[u32]| {
        let database = &state.databases[&UID];
        let report = |node: &u32| {
            let report = ShardReport {
                database: UID,
                epoch: database.placement.epoch,
                synced: true,
                offset: 0,
                whole: true,
                history: String::new(),
            };
            (NodeUid(*node), vec![report])
        };
        let reports: Reports = synced.iter().map(report).collect();
        rebalancing(state, database, NodeUid(3), &[NodeUid(4)], &reports)
    };
    let mut seen = Vec::new();
    for _ in 0..10 {
        if state.databases[&UID].is_on(NodeUid(4)) {
            assert_eq!(step(&state, &[1, 2, 3]), Ok(Some(Step::Wait)), "node 4 has nothing yet");
        }
        let Some(Step::Change(change)) = step(&state, &[1, 2, 3, 4]).unwrap() else { break };
        state.apply(change, AT).unwrap();
        seen.push(state.databases[&UID].placement.nodes().map(|node| node.0).collect::<Vec<_>>());
        if step(&state, &[3, 4]) == Ok(None) {
            break;
        }
    }
    assert_eq!(seen, [vec![1, 2, 3, 4], vec![3, 2, 1, 4], vec![3, 4]]);
    state.apply(report(4, NodeStatus::Down), AT).unwrap();
    assert_eq!(step(&state, &[3]), Err("node 4 is down".to_owned()));
}

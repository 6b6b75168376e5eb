//! What a cluster refuses, and that nothing of it is done: a number that is taken, changes without most of the
//! nodes, changes that the disk does not take. And what replacing all certificates between nodes leaves alone.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use carnelian_tests::cluster::{Member, PASSWORD, PATIENCE, USER};
use carnelian_tests::is_carnelian;
use carnelian_tests::server::{Signal, free_port};
use serde_json::{Value, json};

use crate::cluster::{eventually, eventually_linked, make_database, three};

#[track_caller]
fn is_refused(answer: (u16, Value), status: u16, code: &str) {
    let (got, body) = answer;
    assert_eq!((got, &body["error_code"]), (status, &json!(code)), "{body}");
    assert!(body["description"].is_string() && body["description"] == body["message"], "{body}");
}

#[test]
fn a_number_that_is_in_use_is_not_given_again() {
    if !is_carnelian() {
        return;
    }
    let first = Member::create(1);
    let joiner = Member::start(2, PASSWORD, &["--cluster-bootstrap", "manual"]);
    for uid in [1, 7] {
        let body = json!({
            "cluster": {"nodes": [first.place()]},
            "node": {"identity": {"uid": uid}},
            "credentials": {"username": USER, "password": PASSWORD},
        });
        joiner.change("POST", "/v1/bootstrap/join_cluster", &body);
        let answer = joiner
            .eventually("/v1/bootstrap", |answer| answer["bootstrap_status"]["state"] == "error");
        let status = &answer["bootstrap_status"];
        assert_eq!(status["error_code"], "config_error", "{status}");
        assert!(status["error_details"]["message"].is_string(), "{status}");
    }
    assert_eq!(first.get("/v1/nodes").as_array().map(Vec::len), Some(1));
    assert_eq!(
        first.get("/v1/cluster/certificates/status").to_string().matches("\"node_uid\":2").count(),
        0
    );
}

#[test]
fn without_most_of_the_nodes_nothing_is_changed_and_everything_is_told() {
    if !is_carnelian() {
        return;
    }
    let nodes = three();
    let ends = std::time::Instant::now() + PATIENCE;
    loop {
        for node in &nodes[1..] {
            node.server.signal(Signal::STOP);
        }
        // A node that has joined votes a moment later; until then it is none of most.
        let body = json!({"login_lockout_duration": 66});
        let answer = nodes[0].ask("PUT", "/v1/cluster/policy", &body);
        if answer.0 != 200 {
            is_refused(answer, 503, "no_quorum");
            break;
        }
        assert!(std::time::Instant::now() < ends, "{}", nodes[0].server.log());
        for node in &nodes[1..] {
            node.server.signal(Signal::CONT);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let before = nodes[0].get("/v1/bdbs/1");
    let changes = [
        ("PUT", "/v1/bdbs/1", json!({"data_internode_encryption": true})),
        ("POST", "/v1/bdbs", json!({"name": "new", "memory_size": 0})),
        ("PUT", "/v1/cluster/policy", json!({"data_internode_encryption": true})),
        ("PUT", "/v1/cluster/certificates/rotate", Value::Null),
    ];
    for (method, path, body) in &changes {
        is_refused(nodes[0].ask(method, path, body), 503, "no_quorum");
    }
    assert_eq!(nodes[0].get("/v1/bdbs/1"), before);
    is_refused(nodes[0].ask("GET", "/v1/bdbs/1/availability", &Value::Null), 503, "no_quorum");
    for node in &nodes[1..] {
        node.server.signal(Signal::CONT);
    }
    // What is made now is made after whatever was on its way.
    let ends = std::time::Instant::now() + PATIENCE;
    while nodes[0].ask("PUT", "/v1/cluster/policy", &json!({"login_lockout_duration": 77})).0 != 200
    {
        assert!(std::time::Instant::now() < ends, "{}", nodes[0].server.log());
    }
    // Each of them is either made as a whole by now, since it was on its way, or not at all.
    let answer = nodes[0].eventually("/v1/bdbs/1", |it| it["status"] == "active");
    let policy = nodes[0].get("/v1/cluster/policy");
    for node in &nodes {
        node.eventually("/v1/bdbs/1", |it| {
            it["data_internode_encryption"] == answer["data_internode_encryption"]
        });
        node.eventually("/v1/cluster/policy", |it| *it == policy);
    }
    let (_, changed) = nodes[0].ask("PUT", "/v1/bdbs/1", &json!({"maxclients": 77}));
    assert_eq!(changed["maxclients"], 77, "{changed}");
    for node in &nodes {
        node.eventually("/v1/bdbs/1/availability", |_| true);
    }
}

/// Makes the folder of the control plane a disk of its own, of eight megabytes, which only this process sees.
const SMALL_DISK: [&str; 5] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "for word; do [ \"$before\" = --dir ] && folder=$word; before=$word; done; \
     mkdir -p -m 700 \"$folder/control-plane\" && \
     mount -t tmpfs -o size=8m,mode=700 tmpfs \"$folder/control-plane\" && exec \"$0\" \"$@\"",
];

#[test]
fn a_change_that_the_disk_does_not_take_is_not_made() {
    let may_mount = Command::new("unshare").args(["--mount", "true"]).status();
    if !is_carnelian() || !may_mount.is_ok_and(|status| status.success()) {
        return;
    }
    let mut member =
        Member::start_through(&SMALL_DISK, 1, PASSWORD, &["--cluster-create", "test.local"]);
    member.eventually("/v1/bdbs/1", |database| database["status"] == "active");
    let port = member.server.port();
    member.client(port).expect("SET k v", "+OK");
    let own = member.server.folder().strip_prefix("/").expect("an absolute path").to_owned();
    let disk = PathBuf::from(format!("/proc/{}/root", member.server.pid())).join(own);
    let filler = disk.join("control-plane/filler");
    let before = member.get("/v1/cluster/policy");
    // Until it is full.
    let _ = std::fs::write(&filler, vec![1; 16 << 20]);
    let mut refused = None;
    for number in 0..2000 {
        let patch = json!({"login_lockout_duration": 1000 + number});
        let (status, answer) = member.ask("PUT", "/v1/cluster/policy", &patch);
        if status != 200 {
            refused = Some((status, answer, number));
            break;
        }
    }
    let (status, answer, number) = refused.expect("the disk is full");
    assert!([500, 503].contains(&status), "{status} {answer}");
    assert!(answer["error_code"].is_string() && answer["description"].is_string(), "{answer}");
    let kept = match number {
        0 => before["login_lockout_duration"].clone(),
        number => json!(1000 + number - 1),
    };
    assert_eq!(member.get("/v1/cluster/policy")["login_lockout_duration"], kept);
    member.client(port).expect("GET k", "v");
    // With room again, changes are made again.
    std::fs::remove_file(&filler).expect("it is removed");
    let ends = std::time::Instant::now() + PATIENCE;
    loop {
        let patch = json!({"login_lockout_duration": 77});
        let (status, answer) = member.ask("PUT", "/v1/cluster/policy", &patch);
        if status == 200 {
            assert_eq!(answer["login_lockout_duration"], 77);
            break;
        }
        assert!(std::time::Instant::now() < ends, "{answer}\n{}", member.server.log());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(member.server.is_running());
}

#[test]
fn each_node_has_leaves_of_its_own_from_one_authority_and_all_are_replaced_under_load() {
    if !is_carnelian() {
        return;
    }
    let nodes = three();
    let port = free_port();
    let (uid, [primary, replica]) = make_database(&nodes, port);
    let leaves = || {
        let all = nodes[0].eventually("/v1/cluster/certificates/status", |all| {
            let internal = all.to_string().matches("internode_encryption\"").count();
            internal == 2 * nodes.len()
        });
        let internal = all.as_array().cloned().unwrap_or_default().into_iter();
        let internal = internal.filter(|row| {
            row["name"].as_str().is_some_and(|name| name.ends_with("_internode_encryption"))
        });
        internal.collect::<Vec<_>>()
    };
    let before = leaves();
    let distinct = |rows: &[Value], field: &str| -> BTreeSet<String> {
        rows.iter().map(|row| row[field].to_string()).collect()
    };
    assert_eq!(before.len(), 6);
    assert_eq!(distinct(&before, "serial").len(), 6, "{before:?}");
    assert_eq!(distinct(&before, "issuer").len(), 1, "{before:?}");
    assert_eq!(distinct(&before, "node_uid").len(), 3);
    for row in &before {
        let days = row["days_left"].as_f64().expect("a number");
        assert!((44.9..=45.0).contains(&days), "{row}");
    }

    let (mut there, mut here) = (nodes[primary].client(port), nodes[replica].client(port));
    eventually(&mut there, "SET count 0", "+OK");
    eventually_linked(&nodes, uid, "link=tls");
    let full = there.info("sync_full");
    let is_over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = nodes[primary].client(port);
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                count += 1;
                client.expect("INCR count", &format!(":{count}"));
            }
            count
        });
        let rotate = |verb| nodes[1].ask(verb, "/v1/cluster/certificates/rotate", &Value::Null);
        let answers = ["PUT", "POST"].map(rotate);
        is_over.store(true, Ordering::Relaxed);
        assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
        load.join().expect("no command has failed")
    });
    let after = leaves();
    let serials = distinct(&before, "serial");
    assert!(distinct(&after, "serial").is_disjoint(&serials), "{before:?}\n{after:?}");
    assert_eq!(distinct(&after, "issuer"), distinct(&before, "issuer"));
    there.expect("WAIT 1 60000", ":1");
    here.expect("GET count", &written.to_string());
    assert_eq!(there.info("sync_full"), full, "{}", nodes[primary].server.log());
}

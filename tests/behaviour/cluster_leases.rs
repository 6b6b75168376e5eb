//! What a primary may say when its lease is over, and what it may do when it was started anew.

use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_tests::cluster::{Member, PATIENCE};
use carnelian_tests::server::{Signal, free_port};
use carnelian_tests::{Client, is_carnelian};
use serde_json::json;

use crate::cluster::{eventually, make_database, three};

/// Which of these nodes takes writes.
fn writer(nodes: &[Member], places: [usize; 2], port: u16) -> usize {
    let ends = Instant::now() + PATIENCE;
    loop {
        for place in places {
            if nodes[place].client(port).call("SET who is-it").to_string() == "+OK" {
                return place;
            }
        }
        assert!(Instant::now() < ends, "nobody takes writes");
        sleep(Duration::from_millis(20));
    }
}

/// Until no thread of a process runs.
fn wait_until_stopped(process: u32) {
    let ends = Instant::now() + PATIENCE;
    let is_stopped = |status: String| status.lines().any(|line| line.starts_with("State:\tT"));
    while Instant::now() < ends {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
        let mut states = threads.map(|thread| {
            let file = thread.expect("a thread").path().join("status");
            is_stopped(std::fs::read_to_string(file).unwrap_or_default())
        });
        if states.all(|is_stopped| is_stopped) {
            return;
        }
        sleep(Duration::from_millis(1));
    }
    panic!("process {process} does not stop");
}

/// Whatever comes of requests that must not have been made: an error, or nothing.
fn expect_no_success(client: &mut Client, replies: usize) {
    for _ in 0..replies {
        match client.try_read() {
            Ok(reply) => assert!(reply.to_string().starts_with('-'), "{reply}"),
            Err(_) => return,
        }
    }
}

#[test]
fn a_primary_that_was_stopped_acknowledges_nothing_when_it_goes_on() {
    if !is_carnelian() {
        return;
    }
    let nodes = three();
    let port = free_port();
    let (_, [mut primary, mut replica]) = make_database(&nodes, port);
    for round in 0..3 {
        let mut there = nodes[primary].client(port);
        eventually(&mut there, "SET kept 1", "+OK");
        eventually(&mut there, "WAIT 1 1000", ":1");
        // One is in the middle of its work when the process is stopped, the others come meanwhile.
        let mut busy = nodes[primary].client(port);
        let script = "redis.call('SET', KEYS[1], 1) for i = 1, 2e7 do end return 1";
        busy.send_words(&["EVAL", script, "1", "lost-0"]);
        sleep(Duration::from_millis(60));
        nodes[primary].server.signal(Signal::STOP);
        wait_until_stopped(nodes[primary].server.pid());
        let was_done = busy.read_within(Duration::from_millis(1)).is_some();
        let mut late: Vec<Client> = (0..4)
            .map(|number| {
                let mut client = nodes[primary].client(port);
                client.send_words(&["SET", &format!("lost-{number}"), "1"]);
                client
            })
            .collect();
        let mut new = nodes[replica].client(port);
        eventually(&mut new, "SET now 1", "+OK");
        nodes[primary].server.signal(Signal::CONT);
        if !was_done {
            expect_no_success(&mut busy, 1);
        }
        for client in &mut late {
            expect_no_success(client, 1);
        }
        if !was_done {
            new.expect("GET lost-0", "nil");
        }
        new.expect("GET kept", "1");
        let mut old = nodes[primary].client(port);
        eventually(&mut old, "GET now", "1");
        eventually(&mut old, "GET lost-1", "nil");
        new.expect(&format!("SET round {round}"), "+OK");
        (primary, replica) = (replica, primary);
    }
}

#[test]
fn a_primary_that_comes_back_without_data_does_not_empty_its_replica() {
    if !is_carnelian() {
        return;
    }
    let mut nodes = three();
    let port = free_port();
    let (_, places) = make_database(&nodes, port);
    for round in 0..3 {
        let primary = writer(&nodes, places, port);
        let mut there = nodes[primary].client(port);
        for key in 0..100 {
            there.expect(&format!("SET {round}-{key} {key}"), "+OK");
        }
        eventually(&mut there, "WAIT 1 1000", ":1");
        nodes[primary].server.kill();
        nodes[primary].server.start_again().expect("it starts again");
        let now = writer(&nodes, places, port);
        let mut there = nodes[now].client(port);
        for round in 0..=round {
            for key in 0..100 {
                there.expect(&format!("GET {round}-{key}"), &key.to_string());
            }
        }
        eventually(&mut there, "WAIT 1 1000", ":1");
    }
}

#[test]
fn a_primary_that_comes_back_with_all_its_data_goes_on_alone() {
    if !is_carnelian() {
        return;
    }
    let mut nodes = three();
    let port = free_port();
    let (uid, places) = make_database(&nodes, port);
    let path = format!("/v1/bdbs/{uid}");
    nodes[0].change(
        "PUT",
        &path,
        &json!({"data_persistence": "aof", "aof_policy": "appendfsync-always"}),
    );
    nodes[0].eventually(&path, |database| database["status"] == "active");
    let primary = writer(&nodes, places, port);
    let mut there = nodes[primary].client(port);
    there.expect("SET kept 1", "+OK");
    eventually(&mut there, "WAIT 1 1000", ":1");
    let replica = places[usize::from(places[0] == primary)];
    // Nobody else has the data any longer: the replica's node is down.
    nodes[replica].server.kill();
    nodes[primary].server.kill();
    nodes[primary].server.start_again().expect("it starts again");
    let mut there = nodes[primary].client(port);
    eventually(&mut there, "SET more 1", "+OK");
    there.expect("GET kept", "1");
    nodes[replica].server.start_again().expect("it starts again");
    let mut here = nodes[replica].client(port);
    eventually(&mut here, "GET more", "1");
}

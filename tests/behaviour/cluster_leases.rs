//! What a primary may say when its lease is over, and what it may do when it was started anew.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_tests::cluster::{Member, PATIENCE};
use carnelian_tests::server::{Signal, free_port};
use carnelian_tests::{Client, encode, is_carnelian, words};
use serde_json::{Value, json};

use crate::cluster::{eventually, make_database, three};

/// Which node is the primary's.
fn primary_of(nodes: &[Member], database: u64) -> usize {
    nodes[0].shards(database, "role")[0].0 - 1
}

/// The same as the others than one see it.
fn primary_of_others(nodes: &[Member], database: u64, without: usize) -> Option<usize> {
    let other = usize::from(without == 0);
    let path = format!("/v1/bdbs/{database}/shards");
    let (_, shards) = nodes[other].try_ask("GET", &path, &Value::Null)?;
    let shard = shards.as_array()?.iter().find(|shard| shard["role"] == "master")?;
    Some(shard["node_uid"].as_str()?.parse::<usize>().ok()? - 1)
}

/// The reply to a command over a connection of its own; none where it is closed instead.
fn ask(node: &Member, port: u16, command: &str) -> Option<String> {
    let mut client = node.client(port);
    let mut frame = Vec::new();
    encode(&words(command).expect("a command"), &mut frame);
    client.try_send(&frame).ok()?;
    client.try_read().ok().map(|reply| reply.to_string())
}

/// Until that reply comes; all others are errors, or closed connections.
#[track_caller]
fn nothing_but(node: &Member, port: u16, command: &str, expected: &str) {
    let ends = Instant::now() + PATIENCE;
    loop {
        match ask(node, port, command) {
            Some(reply) if reply == expected => return,
            Some(reply) => assert!(reply.starts_with('-'), "{command}: {reply}"),
            None => {}
        }
        assert!(Instant::now() < ends, "{command} does not come to {expected}");
        sleep(Duration::from_millis(10));
    }
}

/// Where the primary of a database with a replica is, and where the replica.
fn roles(nodes: &[Member; 3], uid: u64, places: [usize; 2]) -> (usize, usize) {
    let primary = primary_of(nodes, uid);
    (primary, places[usize::from(places[0] == primary)])
}

/// Stops the replica's process and, when the others know that it is away, starts the primary's anew.
fn start_without(nodes: &mut [Member; 3], primary: usize, replica: usize) {
    let witness = 3 - primary - replica;
    nodes[replica].server.signal(Signal::STOP);
    nodes[replica].server.wait_until_stopped();
    let status = format!("/v1/nodes/{}", replica + 1);
    nodes[witness].eventually(&status, |node| node["status"] == "down");
    nodes[primary].server.kill();
    nodes[primary].server.start_again().expect("it starts again");
    nodes[primary].eventually_sees_other_than(replica);
}

/// Writes what is kept by the replica too. It has to be asked for by whoever wrote: for others WAIT counts who is
/// there, whatever they have.
#[track_caller]
fn keep(node: &Member, port: u16, command: &str) {
    let ends = Instant::now() + PATIENCE;
    loop {
        let mut client = node.client(port);
        let mut said = |command: &str| {
            let mut frame = Vec::new();
            encode(&words(command).expect("a command"), &mut frame);
            client.try_send(&frame).ok()?;
            client.try_read().ok().map(|reply| reply.to_string())
        };
        let is_kept =
            said(command).as_deref() == Some("+OK") && said("WAIT 1 1000").as_deref() == Some(":1");
        if is_kept {
            return;
        }
        assert!(Instant::now() < ends, "{command} is not kept");
        sleep(Duration::from_millis(10));
    }
}

/// What became of a write that a primary may have no say in any longer.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Whoever says so is to have it.
    Acknowledged,
    Refused,
    /// The connection ended without a word.
    Untold,
}

fn fate(client: &mut Client) -> Fate {
    match client.try_read() {
        Ok(reply) if reply.to_string().starts_with('-') => Fate::Refused,
        Ok(_) => Fate::Acknowledged,
        Err(_) => Fate::Untold,
    }
}

#[test]
fn a_primary_that_was_stopped_acknowledges_nothing_when_it_goes_on() {
    if !is_carnelian() {
        return;
    }
    let nodes = three();
    let port = free_port();
    let (uid, places) = make_database(&nodes, port);
    for round in 0..3 {
        let (primary, replica) = roles(&nodes, uid, places);
        keep(&nodes[primary], port, "SET kept 1");
        // One is in the middle of its work when the process is stopped, the others come meanwhile.
        let mut busy = nodes[primary].client(port);
        let script = "redis.call('SET', KEYS[1], 1) for i = 1, 2e7 do end return 1";
        busy.send_words(&["EVAL", script, "1", &format!("busy-{round}")]);
        sleep(Duration::from_millis(60));
        nodes[primary].server.signal(Signal::STOP);
        nodes[primary].server.wait_until_stopped();
        let was_done = busy.read_within(Duration::from_millis(1)).is_some();
        let mut late: Vec<(String, Client)> = (0..4)
            .map(|number| {
                let mut client = nodes[primary].client(port);
                let key = format!("late-{round}-{number}");
                client.send_words(&["SET", &key, "1"]);
                (key, client)
            })
            .collect();
        // The other node may lead clients to the one that is stopped until it is primary itself.
        let ends = Instant::now() + PATIENCE;
        while primary_of_others(&nodes, uid, primary) != Some(replica) {
            assert!(Instant::now() < ends, "nobody else becomes primary");
            sleep(Duration::from_millis(20));
        }
        nothing_but(&nodes[replica], port, &format!("SET now {round}"), "+OK");
        nodes[primary].server.signal(Signal::CONT);
        let new = &nodes[replica];
        if !was_done {
            assert!(fate(&mut busy) != Fate::Acknowledged, "what is lost is acknowledged");
            nothing_but(new, port, &format!("GET busy-{round}"), "nil");
        }
        for (key, client) in &mut late {
            // They may have been led to the new primary: then it has what it acknowledged, and nobody else does.
            match fate(client) {
                Fate::Acknowledged => nothing_but(new, port, &format!("GET {key}"), "1"),
                Fate::Refused => nothing_but(new, port, &format!("GET {key}"), "nil"),
                Fate::Untold => {}
            }
        }
        nothing_but(new, port, "GET kept", "1");
        // What was primary may show what it has until it hears of the other, and then that.
        let ends = Instant::now() + PATIENCE;
        while ask(&nodes[primary], port, "GET now").as_deref() != Some(&*round.to_string()) {
            assert!(Instant::now() < ends, "it does not hear of the new primary");
            sleep(Duration::from_millis(10));
        }
        nothing_but(new, port, &format!("SET round {round}"), "+OK");
    }
}

#[test]
fn a_primary_that_comes_back_without_data_does_not_empty_its_replica() {
    if !is_carnelian() {
        return;
    }
    let mut nodes = three();
    let port = free_port();
    let (uid, places) = make_database(&nodes, port);
    for round in 0..3 {
        let primary = primary_of(&nodes, uid);
        let mut there = nodes[primary].client(port);
        for key in 0..100 {
            there.expect(&format!("SET {round}-{key} {key}"), "+OK");
        }
        eventually(&mut there, "WAIT 1 1000", ":1");
        nodes[primary].server.kill();
        nodes[primary].server.start_again().expect("it starts again");
        // Wherever clients come, nobody is ever shown that there is nothing.
        let ends = Instant::now() + PATIENCE;
        let mut writable = BTreeSet::new();
        while writable.len() < places.len() {
            assert!(Instant::now() < ends, "writes are taken at {writable:?} only");
            for place in places {
                let reply = ask(&nodes[place], port, &format!("GET {round}-99"));
                let reply = reply.unwrap_or_else(|| "-closed".into());
                assert!(reply == "99" || reply.starts_with('-'), "at {place}: {reply}");
                if ask(&nodes[place], port, "SET who is-it").as_deref() == Some("+OK") {
                    writable.insert(place);
                }
            }
        }
        for place in places {
            let mut there = nodes[place].client(port);
            for round in 0..=round {
                for key in 0..100 {
                    there.expect(&format!("GET {round}-{key}"), &key.to_string());
                }
            }
            eventually(&mut there, "WAIT 1 1000", ":1");
        }
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
    let primary = primary_of(&nodes, uid);
    keep(&nodes[primary], port, "SET kept 1");
    let replica = places[usize::from(places[0] == primary)];
    // Nobody else has the data any longer: the replica's node is down.
    nodes[replica].server.kill();
    nodes[primary].server.kill();
    nodes[primary].server.start_again().expect("it starts again");
    nothing_but(&nodes[primary], port, "GET kept", "1");
    nothing_but(&nodes[primary], port, "SET more 1", "+OK");
    nodes[replica].server.start_again().expect("it starts again");
    nothing_but(&nodes[replica], port, "GET more", "1");
    let mut there = nodes[primary].client(port);
    eventually(&mut there, "WAIT 1 1000", ":1");
}

#[test]
fn a_database_can_be_told_how_long_to_wait_for_its_data() {
    if !is_carnelian() {
        return;
    }
    let mut nodes = three();
    let port = free_port();
    let (uid, places) = make_database(&nodes, port);
    let path = format!("/v1/bdbs/{uid}");
    nodes[0].change("PUT", &path, &json!({"recovery_wait_time": 1}));
    nodes[0].eventually(&path, |database| database["status"] == "active");
    let (primary, replica) = roles(&nodes, uid, places);
    nothing_but(&nodes[primary], port, "SET kept 1", "+OK");
    nodes[replica].server.kill();
    nodes[primary].server.kill();
    nodes[primary].server.start_again().expect("it starts again");
    nothing_but(&nodes[primary], port, "GET kept", "nil");
    nothing_but(&nodes[primary], port, "SET new 1", "+OK");
}

#[test]
fn a_primary_without_its_data_waits_for_a_replica_that_is_down() {
    if !is_carnelian() {
        return;
    }
    let mut nodes = three();
    let port = free_port();
    let (uid, places) = make_database(&nodes, port);
    let (primary, replica) = roles(&nodes, uid, places);
    let witness = (0..3).find(|place| !places.contains(place)).expect("there are three");
    keep(&nodes[primary], port, "SET kept 1");
    start_without(&mut nodes, primary, replica);
    // Nothing is shown or taken, and the replica is not emptied, for as long as it is away.
    let ends = Instant::now() + Duration::from_secs(3);
    while Instant::now() < ends {
        for command in ["GET kept", "SET other 1"] {
            let reply = ask(&nodes[primary], port, command);
            assert!(reply.is_none_or(|reply| reply.starts_with('-')), "{command}");
        }
        sleep(Duration::from_millis(50));
    }
    nodes[replica].server.signal(Signal::CONT);
    nothing_but(&nodes[primary], port, "GET kept", "1");
    nothing_but(&nodes[replica], port, "GET kept", "1");
    keep(&nodes[replica], port, "SET other 1");

    // An operator can give up what the other may have.
    let (primary, replica) = roles(&nodes, uid, places);
    start_without(&mut nodes, primary, replica);
    let path = format!("/v1/bdbs/{uid}/actions/recover");
    let (status, answer) = nodes[witness].ask("POST", &path, &json!({}));
    assert_eq!((status, &answer["error_code"]), (406, &json!("data_loss_not_allowed")));
    nodes[witness].change("POST", &path, &json!({"allow_data_loss": true}));
    nothing_but(&nodes[primary], port, "GET kept", "nil");
    nothing_but(&nodes[primary], port, "SET new 1", "+OK");
    nodes[replica].server.signal(Signal::CONT);
    nothing_but(&nodes[replica], port, "GET new", "1");
    let mut there = nodes[primary].client(port);
    eventually(&mut there, "WAIT 1 1000", ":1");
}

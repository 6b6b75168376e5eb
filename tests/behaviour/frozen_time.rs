//! Time stands still in a transaction and in a script, and has gone by after them.

use carnelian_tests::{Client, Server, is_carnelian};

/// Each sets its key to end at the same time, if they all go by the same one.
const SETTERS: [&str; 8] = [
    "SET KEY v EX 1",
    "SET KEY v PX 1000",
    "SETEX KEY 1 v",
    "PSETEX KEY 1000 v",
    "GETEX KEY EX 1",
    "GETEX KEY PX 1000",
    "EXPIRE KEY 1",
    "PEXPIRE KEY 1000",
];

fn start() -> (Server, Client) {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.expect("DEBUG SET-DISABLE-DENY-SCRIPTS 1", "+OK");
    (server, client)
}

/// Runs the commands as one, in a transaction and in a script. Returns their replies, and those of
/// `after`, which comes in the same packet.
fn both_ways(client: &mut Client, commands: &[String], after: &str) -> [(Vec<String>, String); 2] {
    let calls = commands.iter().map(|command| {
        let words: Vec<_> = command.split(' ').map(|word| format!("'{word}'")).collect();
        format!("redis.call({})", words.join(","))
    });
    let script = format!("return {{{}}}", calls.collect::<Vec<_>>().join(","));
    let transaction = format!("MULTI\r\n{}\r\nEXEC\r\n{after}\r\n", commands.join("\r\n"));
    let script = format!("EVAL \"{script}\" 0\r\n{after}\r\n");
    [(commands.len() + 1, transaction), (0, script)].map(|(queued, request)| {
        client.send(request.as_bytes());
        for _ in 0..queued {
            assert!(!client.read().is_error());
        }
        let replies = client.read().elements();
        let replies = replies.iter().map(|reply| reply.to_string()).collect();
        (replies, client.read().to_string())
    })
}

fn owned(commands: &[&str]) -> Vec<String> {
    commands.iter().map(|command| (*command).to_owned()).collect()
}

#[test]
fn the_clock_stands_still() {
    let (_server, mut client) = start();
    let commands = owned(&["TIME", "DEBUG SLEEP 0.01", "TIME"]);
    for (replies, after) in both_ways(&mut client, &commands, "TIME") {
        assert_eq!(replies[0], replies[2]);
        assert_ne!(replies[0], after);
    }
}

#[test]
fn what_has_expired_meanwhile_is_still_there() {
    let (_server, mut client) = start();
    let commands = owned(&[
        "SET k v PX 5",
        "HSET h f v",
        "HPEXPIRE h 5 FIELDS 1 f",
        "DEBUG SLEEP 0.01",
        "GET k",
        "PTTL k",
        "EXISTS k",
        "HGET h f",
    ]);
    for (replies, after) in both_ways(&mut client, &commands, "EXISTS k") {
        assert_eq!(replies[4..], ["v", ":5", ":1", "v"]);
        assert_eq!(after, ":0");
    }
}

#[test]
fn times_to_live_begin_together() {
    let (_server, mut client) = start();
    let mut commands = Vec::new();
    for (place, setter) in SETTERS.iter().enumerate() {
        commands.push(format!("SET {place} v"));
        commands.push(setter.replace("KEY", &place.to_string()));
        commands.push("DEBUG SLEEP 0.003".to_owned());
    }
    let before = commands.len();
    for asker in ["PEXPIRETIME", "PTTL", "TTL"] {
        commands.extend((0..SETTERS.len()).map(|place| format!("{asker} {place}")));
    }
    for (replies, _) in both_ways(&mut client, &commands, "PING") {
        for (round, asked) in replies[before..].chunks(SETTERS.len()).enumerate() {
            assert!(asked.iter().all(|it| *it == asked[0]), "{round}: {asked:?}");
        }
        assert_eq!(replies[before + SETTERS.len()], ":1000");
    }
}

#[test]
fn access_clocks_stand_still() {
    let (_server, mut client) = start();
    client.expect("SET k v", "+OK");
    let commands = owned(&["GET k", "DEBUG SLEEP 1.1", "OBJECT IDLETIME k"]);
    for (replies, after) in both_ways(&mut client, &commands, "OBJECT IDLETIME k") {
        assert_eq!(replies[2], ":0");
        // (Redis reads the clock for this ten times a second.)
        assert!(after != ":0" || !is_carnelian());
    }
}

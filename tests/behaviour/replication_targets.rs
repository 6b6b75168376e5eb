//! What is for replicas alone, or for the append-only file alone: `redis.set_repl`, and PUBLISH.

use std::fs;
use std::path::Path;

use carnelian_tests::{Client, Server};

use super::replication_replica::{Waiting, catch_up, replica_of};

const PRIMARY: [&str; 8] = [
    "--appendonly",
    "yes",
    "--repl-diskless-sync-delay",
    "0",
    "--repl-ping-replica-period",
    "3600",
    "--enable-debug-command",
    "yes",
];

/// Counts in four keys, each for another audience, and in a fifth that is for all.
const FOUR: &str = "for name, repl in pairs({all = redis.REPL_ALL, file = redis.REPL_AOF, \
     replicas = redis.REPL_REPLICA, none = redis.REPL_NONE}) do \
         redis.set_repl(repl) redis.call('incr', name) end \
     redis.set_repl(redis.REPL_ALL) return redis.call('incr', 'last')";

fn counts(client: &mut Client) -> String {
    client.call("MGET all file replicas none last").to_string()
}

#[test]
fn a_script_chooses_who_gets_what_it_does() {
    let primary = Server::start(&PRIMARY);
    let replica = replica_of(&primary, &[]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    let run = |client: &mut Client| {
        let done = client.call_words(&["EVAL", FOUR, "0"]);
        assert!(!done.is_error(), "{done}");
    };
    run(&mut there);
    there.expect("SET between 1", "+OK");
    there.expect("SELECT 3", "+OK");
    run(&mut there);
    there.expect("SELECT 0", "+OK");
    run(&mut there);
    assert_eq!(counts(&mut there), "[2 2 2 2 2]");
    catch_up(&mut there, &mut here);
    assert_eq!(counts(&mut here), "[2 nil 2 nil 2]");
    there.expect("WAITAOF 1 0 0", "[:1 :0]");
    there.expect("DEBUG LOADAOF", "+OK");
    assert_eq!(counts(&mut there), "[2 2 nil nil 2]");
    there.expect("GET between", "1");
    for (client, expected) in [(&mut there, "[1 1 nil nil 1]"), (&mut here, "[1 nil 1 nil 1]")] {
        client.expect("SELECT 3", "+OK");
        assert_eq!(counts(client), expected);
    }
}

#[test]
fn what_one_of_them_gets_may_be_all_that_a_script_does() {
    let primary = Server::start(&PRIMARY);
    let replica = replica_of(&primary, &[]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    let mut run = |repl: &str, db: u32, key: &str| {
        let script = format!(
            "redis.set_repl(redis.{repl}) redis.call('select', '{db}') redis.call('incr', '{key}')"
        );
        assert!(there.call_words(&["EVAL", &script, "0"]).is_null());
        // What follows goes by the logical database of the client.
        there.call("INCR after");
    };
    run("REPL_AOF", 0, "file");
    run("REPL_AOF", 2, "file");
    run("REPL_REPLICA", 0, "replicas");
    run("REPL_REPLICA", 2, "replicas");
    run("REPL_SLAVE", 2, "replicas");
    catch_up(&mut there, &mut here);
    there.expect("WAITAOF 1 0 0", "[:1 :0]");
    there.expect("DEBUG LOADAOF", "+OK");
    there.expect("MGET file replicas after", "[1 nil 5]");
    here.expect("MGET file replicas after", "[nil 1 5]");
    for client in [&mut there, &mut here] {
        client.expect("SELECT 2", "+OK");
    }
    there.expect("MGET file replicas after", "[1 nil nil]");
    here.expect("MGET file replicas after", "[nil 2 nil]");
}

#[test]
fn a_rewrite_takes_over_what_was_for_the_file_alone_once() {
    let primary = Server::start(&PRIMARY);
    let replica = replica_of(&primary, &[]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    for round in 0..20 {
        there.call("BGREWRITEAOF");
        for _ in 0..20 {
            there.call_words(&["EVAL", FOUR, "0"]);
        }
        if round % 4 == 3 {
            there.eventually_info("aof_rewrite_in_progress", "0");
        }
    }
    there.eventually_info("aof_rewrite_in_progress", "0");
    catch_up(&mut there, &mut here);
    assert_eq!(counts(&mut here), "[400 nil 400 nil 400]");
    there.expect("DEBUG LOADAOF", "+OK");
    let counts = there.call("MGET all file last").to_string();
    assert_eq!(counts, "[400 400 400]");
}

#[test]
fn messages_are_in_no_file() {
    let primary = Server::start(&PRIMARY);
    let replica = replica_of(&primary, &[]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    here.expect("SUBSCRIBE news", "[subscribe news :1]");
    there.expect("PUBLISH news first", ":0");
    there.expect("MULTI", "+OK");
    there.expect("SET k v", "+QUEUED");
    there.expect("PUBLISH news second", "+QUEUED");
    there.expect("EXEC", "[+OK :0]");
    there.call_words(&["EVAL", "redis.call('publish', 'news', 'third')", "0"]);
    for message in ["first", "second", "third"] {
        here.expect_next(&format!("[message news {message}]"));
    }
    there.expect("WAITAOF 1 0 0", "[:1 :0]");
    let written = written(&primary.folder().join("appendonlydir"));
    assert!(written.contains("SET\r\n$1\r\nk\r\n$1\r\nv\r\n"), "{written}");
    assert!(!written.to_lowercase().contains("publish"), "{written}");
    there.expect("DEBUG LOADAOF", "+OK");
    there.expect("GET k", "v");
}

/// What is in the files of a folder.
fn written(folder: &Path) -> String {
    let files = fs::read_dir(folder).expect("there is a folder");
    let contents = files.map(|file| fs::read(file.expect("listed").path()).expect("it is read"));
    String::from_utf8_lossy(&contents.collect::<Vec<_>>().concat()).into_owned()
}

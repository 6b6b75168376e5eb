//! Snapshots: what SAVE, BGSAVE, save points and SHUTDOWN write, and what happens when they cannot.

use std::fs;
use std::path::Path;

use carnelian_tests::server::Signal;
use carnelian_tests::{Client, Server, is_carnelian, require_or_skip};

const MISCONF: &str = "-MISCONF Redis is configured to save RDB snapshots...";

/// Values of every type and of small and large encodings, in two logical databases.
fn fill(client: &mut Client) {
    client.expect("SET text hello", "+OK");
    client.expect("SET number 12345", "+OK");
    client.expect("SETRANGE long 20000 end", ":20003");
    client.expect("SET fleeting x PX 100000000", "+OK");
    client.expect("RPUSH list a b 3 -7", ":4");
    client.expect("SADD numbers 1 2 3", ":3");
    client.expect("SADD words a b c", ":3");
    client.expect("ZADD scores 1 a 2.5 b inf c", ":3");
    client.expect("HSET fields f v g 17", ":2");
    client.expect("XADD stream 1-1 f v", "1-1");
    client.expect("XGROUP CREATE stream g 0", "+OK");
    client.expect("PFADD unique a b c", ":1");
    let load = |name: &str, client: &mut Client| {
        for start in (0..600).step_by(100) {
            let mut words = vec![name.to_owned(), format!("large:{name}")];
            for n in start..start + 100 {
                if name == "ZADD" {
                    words.push(n.to_string());
                }
                words.push(format!("member:{n}"));
                if name == "HSET" {
                    words.push("x".repeat(n % 90));
                }
            }
            client.call_words(&words);
        }
    };
    for name in ["RPUSH", "SADD", "ZADD", "HSET"] {
        load(name, client);
    }
    client.expect("DEBUG POPULATE 2000 key 50", "+OK");
    client.expect("SELECT 9", "+OK");
    client.expect("SET elsewhere x", "+OK");
    client.expect("SELECT 0", "+OK");
}

/// What a real Redis makes of a snapshot; none where there is no Redis.
fn read_by_redis(file: &Path) -> Option<(String, Server)> {
    let program = require_or_skip("redis-server")?;
    let folder = file.parent().expect("a folder").display().to_string();
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let server =
        Server::starter_of(&program).args(&["--dir", &folder, "--dbfilename", &name]).start();
    let digest = server.connect().call("DEBUG DIGEST").text();
    Some((digest, server))
}

fn wait_for_idle(client: &mut Client) {
    for _ in 0..2000 {
        if client.info("rdb_bgsave_in_progress") == "0" {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("a background save does not end");
}

#[test]
fn a_file_holds_everything_and_redis_reads_it() {
    for compression in ["yes", "no"] {
        let args = ["--rdb-version", "10", "--rdbcompression", compression];
        let server = if is_carnelian() { Server::start(&args) } else { Server::start(&args[2..]) };
        let mut client = server.connect();
        fill(&mut client);
        let code = "#!lua name=lib\nredis.register_function('f', function() return 7 end)";
        client.call_words(&["FUNCTION", "LOAD", code]);
        let digest = client.call("DEBUG DIGEST").text();
        client.expect("SAVE", "+OK");
        assert_eq!(client.info("rdb_changes_since_last_save"), "0");
        let Some((read, redis)) = read_by_redis(&server.folder().join("dump.rdb")) else { return };
        assert_eq!(read, digest, "compression {compression}");
        redis.connect().expect("FCALL f 0", ":7");
        let ttl = redis.connect().call("PTTL fleeting").integer();
        assert!((1..=100_000_000).contains(&ttl), "{ttl}");
        let checker = require_or_skip("redis-check-rdb").expect("it comes with redis-server");
        let output = std::process::Command::new(checker)
            .arg(server.folder().join("dump.rdb"))
            .output()
            .expect("the checker runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("Checksum OK"), "{text}");
    }
}

#[test]
fn what_was_saved_is_there_after_a_crash() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client);
    client.expect("HSET expiring a 1 b 2", ":2");
    client.expect("HPEXPIRE expiring 100000000 FIELDS 1 a", "[:1]");
    let code = "#!lua name=lib\nredis.register_function('f', function() return 7 end)";
    client.call_words(&["FUNCTION", "LOAD", code]);
    let digest = client.call("DEBUG DIGEST").text();
    client.expect("BGSAVE", "+Background saving started");
    wait_for_idle(&mut client);
    client.expect("SET lost x", "+OK");
    server.kill();
    server.start_again().expect("a start");
    let mut client = server.connect();
    client.eventually("EXISTS text", ":1");
    assert_eq!(client.call("DEBUG DIGEST").text(), digest);
    client.expect("FCALL f 0", ":7");
    assert!((1..=100_000_000).contains(&client.call("PTTL fleeting").integer()));
    assert_eq!(client.info("rdb_changes_since_last_save"), "0");
}

#[test]
fn a_reload_goes_through_the_file() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client);
    let digest = client.call("DEBUG DIGEST").text();
    client.expect("DEBUG RELOAD", "+OK");
    assert_eq!(client.call("DEBUG DIGEST").text(), digest);
    assert!(server.folder().join("dump.rdb").is_file());
    client.expect("SET text changed", "+OK");
    client.expect("SET more x", "+OK");
    client.expect("DEBUG RELOAD NOSAVE NOFLUSH MERGE", "+OK");
    client.expect("GET text", "hello");
    client.expect("GET more", "x");
    client.expect("DEBUG RELOAD NOSAVE", "+OK");
    assert_eq!(client.call("DEBUG DIGEST").text(), digest);
    client.expect("CONFIG SET key-load-delay 0", "+OK");
    let keys = client.info("rdb_last_load_keys_loaded");
    assert_eq!(keys, (client.call("DBSIZE").integer() + 1).to_string());
}

#[test]
fn a_background_save_is_the_state_when_it_was_asked_for() {
    let args = if is_carnelian() { &["--rdb-version", "10"][..] } else { &[] };
    let server = Server::start(args);
    let mut client = server.connect();
    fill(&mut client);
    let digest = client.call("DEBUG DIGEST").text();
    client.expect("CONFIG SET rdb-key-save-delay 5000", "+OK");
    client.expect("BGSAVE", "+Background saving started");
    client.expect("BGSAVE", "-ERR Background save already in progress");
    client.expect("BGSAVE SCHEDULE", "-ERR Background save already in progress");
    client.expect("SAVE", "-ERR Background save already in progress");
    // Everything that was there changes, goes, moves or is replaced, and much is new.
    for n in (0..2000).step_by(3) {
        client.expect(&format!("APPEND key:{n} more"), ":54");
        client.expect(&format!("DEL key:{}", n + 1), ":1");
        client.expect(&format!("SET new:{n} x"), "+OK");
    }
    for command in [
        "RENAME text number",
        "COPY list new:list",
        "LPUSH list x",
        "SADD numbers word",
        "SMOVE words numbers a",
        "ZINCRBY scores 5 a",
        "HDEL fields f g",
        "XADD stream * f v",
        "XREADGROUP GROUP g c STREAMS stream >",
        "PERSIST fleeting",
        "PFADD unique d e f",
        "LTRIM large:RPUSH 5 10",
        "SPOP large:SADD 300",
        "ZREMRANGEBYRANK large:ZADD 0 400",
        "HSET large:HSET member:1 changed",
        "MOVE key:2 9",
        "SWAPDB 0 9",
        "FLUSHDB",
        "SET text after",
        "SWAPDB 0 9",
        "FLUSHDB",
        "SET text last",
    ] {
        let reply = client.call(command);
        assert!(!reply.is_error(), "{command}: {reply}");
    }
    assert_eq!(client.info("rdb_bgsave_in_progress"), "1");
    client.expect("CONFIG SET rdb-key-save-delay 0", "+OK");
    if !is_carnelian() {
        return;
    }
    wait_for_idle(&mut client);
    assert_eq!(client.info("rdb_last_bgsave_status"), "ok");
    assert_ne!(client.info("rdb_last_cow_size"), "0");
    assert_ne!(client.info("rdb_changes_since_last_save"), "0");
    client.expect("DBSIZE", ":1");
    assert!(!server.log().contains("given up"));
    if let Some((read, _)) = read_by_redis(&server.folder().join("dump.rdb")) {
        assert_eq!(read, digest);
    }
}

#[test]
fn keys_that_are_overwritten_are_saved_as_slowly_as_others() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.expect("DEBUG POPULATE 1000", "+OK");
    client.expect("CONFIG SET rdb-key-save-delay 1000000", "+OK");
    client.expect("BGSAVE", "+Background saving started");
    client.expect("DEBUG POPULATE 1000 other", "+OK");
    for n in 0..1000 {
        client.expect(&format!("SET key:{n} x"), "+OK");
    }
    // That of the first key is over then, and it would be the only one.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(client.info("rdb_bgsave_in_progress"), "1");
    client.expect("CONFIG SET rdb-key-save-delay 0", "+OK");
    if is_carnelian() {
        wait_for_idle(&mut client);
    }
}

#[test]
fn a_save_that_fails_keeps_the_old_file_and_stops_writes() {
    let server = Server::start(&["--save", "3600 1"]);
    let mut client = server.connect();
    // What stands in the way of the file is a folder that is not empty.
    let file = server.folder().join("dump.rdb");
    client.expect("SET a 1", "+OK");
    client.expect("SAVE", "+OK");
    let kept = fs::read(&file).expect("a snapshot");
    client.expect("SET a 2", "+OK");
    let moved = server.folder().join("kept.rdb");
    fs::rename(&file, &moved).expect("the file moves");
    fs::create_dir_all(file.join("in the way")).expect("a folder");
    client.expect("SAVE", "-ERR");
    client.expect("SET a 3", "+OK");
    client.expect("BGSAVE", "+Background saving started");
    wait_for_idle(&mut client);
    assert_eq!(client.info("rdb_last_bgsave_status"), "err");
    assert_eq!(fs::read(&moved).expect("a snapshot"), kept);
    assert!(server.log().contains("Error moving temp DB file"), "{}", server.log());
    assert!(server.log().contains("Background saving error"));
    let left = fs::read_dir(server.folder()).expect("a folder");
    let is_temporary = |name: &str| name.starts_with("temp-");
    assert!(!left.flatten().any(|it| is_temporary(&it.file_name().to_string_lossy())));

    client.expect("GET a", "3");
    client.expect("SET a 4", MISCONF);
    client.expect("PING", MISCONF);
    client.expect("EVAL 'return redis.call(\"get\", KEYS[1])' 1 a", "3");
    client.expect("EVAL 'return redis.call(\"set\", KEYS[1], 5)' 1 a", MISCONF);
    assert!(client.call_words(&["EVAL", "#!lua\nreturn 1", "0"]).is_error());
    client.expect("MULTI", "+OK");
    client.expect("SET a 6", MISCONF);
    client.expect("EXEC", "-EXECABORT...");
    client.expect("CONFIG SET stop-writes-on-bgsave-error no", "+OK");
    client.expect("SET a 7", "+OK");
    client.expect("CONFIG SET stop-writes-on-bgsave-error yes", "+OK");
    client.expect("SET a 8", MISCONF);
    client.expect("CONFIG SET save ''", "+OK");
    client.expect("SET a 9", "+OK");
    client.expect("CONFIG SET save '3600 1'", "+OK");
    client.expect("SET a 10", MISCONF);

    fs::remove_dir_all(&file).expect("the folder goes");
    client.expect("BGSAVE", "+Background saving started");
    wait_for_idle(&mut client);
    assert_eq!(client.info("rdb_last_bgsave_status"), "ok");
    client.expect("SET a 11", "+OK");
    assert!(file.is_file());
}

#[test]
fn a_folder_that_is_gone_is_told_and_may_come_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("a folder");
    let server = Server::start(&["--dir", &data.display().to_string()]);
    let mut client = server.connect();
    client.expect("SET a 1", "+OK");
    fs::remove_dir_all(&data).expect("the folder goes");
    client.expect("SAVE", "-ERR");
    assert!(server.log().contains("Failed opening the temp RDB file temp-"), "{}", server.log());
    if is_carnelian() {
        fs::create_dir(&data).expect("a folder");
        client.expect("SAVE", "+OK");
        assert!(data.join("dump.rdb").is_file());
    }
}

#[test]
fn saves_begin_by_themselves_and_can_be_put_off_or_given_up() {
    let server = Server::start(&["--save", "1 5"]);
    let mut client = server.connect();
    let before = client.call("LASTSAVE").integer();
    for n in 0..5 {
        client.expect(&format!("SET key:{n} x"), "+OK");
    }
    for _ in 0..1000 {
        if server.log().contains("Background saving terminated with success") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(server.log().contains("5 changes in 1 seconds. Saving..."), "{}", server.log());
    assert!(server.folder().join("dump.rdb").is_file());
    assert!(before <= client.call("LASTSAVE").integer());

    client.expect("CONFIG SET save ''", "+OK");
    client.expect("MULTI", "+OK");
    client.expect("SET a 1", "+QUEUED");
    client.expect("BGSAVE", "+QUEUED");
    client.expect("EXEC", "[+OK ?]");
    for _ in 0..1000 {
        if client.info("rdb_saves") == "2" && client.info("rdb_bgsave_in_progress") == "0" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(client.info("rdb_changes_since_last_save"), "0");
    client.expect("BGSAVE NOW", "-ERR syntax error");
    if !is_carnelian() {
        return;
    }
    client.expect(
        "BGSAVE CANCEL",
        "-ERR Background saving is currently not in progress or scheduled",
    );
    client.expect("CONFIG SET rdb-key-save-delay 10000000", "+OK");
    client.expect("BGSAVE", "+Background saving started");
    client.expect("BGSAVE CANCEL", "+Background saving cancelled");
    wait_for_idle(&mut client);
    assert_eq!(client.info("rdb_last_bgsave_status"), "ok");
    client.expect("CONFIG SET rdb-key-save-delay 0", "+OK");
    client.expect("SAVE", "+OK");
}

#[test]
fn who_has_flushed_all_finds_the_file_empty_too() {
    let server = Server::start(&["--save", "3600 1000"]);
    let mut client = server.connect();
    let file = server.folder().join("dump.rdb");
    let len = || fs::metadata(&file).expect("a snapshot").len();
    for command in ["FLUSHALL", "FLUSHALL SYNC", "FLUSHALL ASYNC"] {
        client.expect("DEBUG POPULATE 100", "+OK");
        client.expect("SAVE", "+OK");
        let full = len();
        client.expect("SET another 1", "+OK");
        // What is being saved is given up.
        if is_carnelian() {
            client.expect("CONFIG SET rdb-key-save-delay 10000000", "+OK");
            client.expect("BGSAVE", "+Background saving started");
        }
        client.expect(command, "+OK");
        assert!(len() < full / 2, "{command}: {}", server.log());
        assert_eq!(client.info("rdb_changes_since_last_save"), "0");
        client.expect("CONFIG SET rdb-key-save-delay 0", "+OK");
    }
    let saves = client.info("rdb_saves");

    // Nothing is flushed, so nothing is given up or written.
    client.expect("FLUSHALL NOW", "-ERR syntax error");
    client.expect("SET a 1", "+OK");
    client.expect("FLUSHDB", "+OK");
    assert_eq!(client.info("rdb_saves"), saves);

    // Nor without save points.
    client.expect("CONFIG SET save ''", "+OK");
    client.expect("SET a 1", "+OK");
    client.expect("FLUSHALL", "+OK");
    assert_ne!(client.info("rdb_changes_since_last_save"), "0");
    assert_eq!(client.info("rdb_saves"), saves);
}

#[test]
fn a_flush_within_a_transaction_or_a_script_is_saved_before_the_reply() {
    let server = Server::start(&["--save", "3600 1000"]);
    let mut client = server.connect();
    let file = server.folder().join("dump.rdb");
    let len = || fs::metadata(&file).expect("a snapshot").len();
    client.expect("DEBUG POPULATE 100", "+OK");
    client.expect("SAVE", "+OK");
    let full = len();
    client.expect("MULTI", "+OK");
    client.expect("FLUSHALL", "+QUEUED");
    client.expect("SET a 1", "+QUEUED");
    client.expect("EXEC", "[+OK +OK]");
    assert!(len() < full / 2, "{}", server.log());
    client.expect("GET a", "1");

    client.expect("DEBUG POPULATE 100", "+OK");
    client.expect("SAVE", "+OK");
    client.expect("EVAL \"redis.call('flushall') return 7\" 0", ":7");
    assert!(len() < full / 2, "{}", server.log());
    // What else is sent is not mistaken for it.
    let saves = client.info("rdb_saves");
    client.expect("EVAL \"return 7\" 0", ":7");
    client.expect("PING", "+PONG");
    assert_eq!(client.info("rdb_saves"), saves);
}

#[test]
fn the_last_snapshot_is_written_before_the_end() {
    // Without save points only if it is asked for.
    for (points, end, is_saved) in [
        ("", "SHUTDOWN", false),
        ("", "SHUTDOWN SAVE", true),
        ("3600 1", "SHUTDOWN", true),
        ("3600 1", "SHUTDOWN NOSAVE", false),
        ("3600 1", "SIGTERM", true),
        ("3600 1", "SIGTERM nosave", false),
        ("", "SIGTERM save", true),
    ] {
        let flags = end.strip_prefix("SIGTERM ").unwrap_or("default");
        let mut server = Server::start(&["--save", points, "--shutdown-on-sigterm", flags]);
        let mut client = server.connect();
        client.expect("SET a 1", "+OK");
        if end.starts_with("SIGTERM") {
            server.signal(Signal::TERM);
        } else {
            client.send_words(&carnelian_tests::words(end).expect("words"));
        }
        client.expect_closed();
        assert_eq!(server.wait().code(), Some(0), "{end}");
        assert_eq!(server.folder().join("dump.rdb").exists(), is_saved, "{points:?} {end}");
        assert!(server.log().contains("ready to exit, bye bye"));
    }
}

#[test]
fn the_server_does_not_end_without_its_snapshot_unless_forced() {
    let mut server = Server::start(&["--save", "3600 1"]);
    let mut client = server.connect();
    let mut other = server.connect();
    client.expect("SET a 1", "+OK");
    fs::create_dir_all(server.folder().join("dump.rdb").join("in the way")).expect("a folder");
    client.expect("SHUTDOWN", "-ERR Errors trying to SHUTDOWN. Check logs.");
    assert!(server.log().contains("Error trying to save the DB, can't exit"));
    assert!(server.log().contains("Errors trying to shut down"));
    other.expect("SET a 2", "+OK");
    client.expect("GET a", "2");
    client.send(b"SHUTDOWN FORCE\r\n");
    client.expect_closed();
    other.expect_closed();
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.log().contains("Exit anyway"));
}

#[test]
fn no_write_that_was_acknowledged_is_missing_at_the_end() {
    let Some(_) = require_or_skip("redis-server") else { return };
    let version = if is_carnelian() { &["--rdb-version", "10"][..] } else { &[] };
    let args: Vec<&str> = ["--save", "3600 1"].into_iter().chain(version.iter().copied()).collect();
    let mut server = Server::start(&args);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut client = server.connect();
            std::thread::spawn(move || {
                for n in 0.. {
                    let request = format!("SET key:{writer} {n}\r\n");
                    if client.try_send(request.as_bytes()).is_err() || client.try_read().is_err() {
                        return n;
                    }
                }
                unreachable!("a server ends before that")
            })
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(100));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let told: Vec<u64> = writers.into_iter().map(|it| it.join().expect("a writer")).collect();
    let Some((_, redis)) = read_by_redis(&server.folder().join("dump.rdb")) else { return };
    let mut client = redis.connect();
    for (writer, unanswered) in told.into_iter().enumerate() {
        let last: u64 = client.call(&format!("GET key:{writer}")).text().parse().expect("a number");
        // The last one may have been done without having been answered.
        assert!(unanswered == last || unanswered == last + 1, "{unanswered} after {last}");
    }
}

#[test]
fn a_hash_whose_fields_expire_no_longer_is_written_for_older_servers() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--save", "''"]);
    let mut client = server.connect();
    client.expect("HSET h field value", ":1");
    client.expect("HEXPIRE h 1000 FIELDS 1 field", "[:1]");
    client.expect("SAVE", "+OK");
    let expiring = fs::read(server.folder().join("dump.rdb")).expect("a snapshot");
    assert!(expiring.starts_with(b"REDIS0012"));
    client.expect("HPERSIST h FIELDS 1 field", "[:1]");
    client.expect("SAVE", "+OK");
    let file = fs::read(server.folder().join("dump.rdb")).expect("a snapshot");
    assert!(file.starts_with(b"REDIS0011"));
    // The type of a hash as every version knows it, and the key.
    assert!(file.windows(3).any(|bytes| bytes == b"\x04\x01h"));
}

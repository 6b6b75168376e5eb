//! Replicas of other servers: of redis-server, valkey-server, one of ours, and of what only looks like one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::server::Signal;
use carnelian_tests::{Client, Reply, Server, is_carnelian, peers};

/// The servers that ours is to follow: those that are installed, and itself.
fn primaries() -> Vec<(String, Server)> {
    let mut programs: Vec<PathBuf> = Vec::new();
    programs.extend(peers::find("redis-server"));
    programs.extend(peers::find("valkey-server"));
    for folder in ["/usr/bin", "/usr/local/bin"] {
        let debian = PathBuf::from(folder).join("redis-server");
        if debian.is_file() && !programs.contains(&debian) {
            programs.push(debian);
        }
    }
    let mut servers: Vec<_> = programs
        .iter()
        .map(|program| {
            let args = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "3600"];
            (program.display().to_string(), Server::starter_of(program).args(&args).start())
        })
        .collect();
    servers.push(("ours".into(), Server::start(&["--repl-diskless-sync-delay", "0"])));
    servers
}

pub fn replica_of(primary: &Server, args: &[&str]) -> Server {
    let port = primary.port().to_string();
    let server = Server::starter().args(&["--replicaof", "127.0.0.1", &port]).args(args).start();
    server.connect().eventually_up();
    server
}

pub trait Waiting {
    fn eventually_up(&mut self);
    fn eventually_info(&mut self, field: &str, value: &str);
}

impl Waiting for Client {
    fn eventually_up(&mut self) {
        self.eventually_info("master_link_status", "up");
    }

    #[track_caller]
    fn eventually_info(&mut self, field: &str, value: &str) {
        for _ in 0..1000 {
            if self.info(field) == value {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("{field} stays {}", self.info(field));
    }
}

/// Waits until a replica has all that its primary has.
#[track_caller]
pub fn catch_up(primary: &mut Client, replica: &mut Client) {
    for _ in 0..1000 {
        let (ours, theirs) =
            (replica.info("slave_repl_offset"), primary.info("master_repl_offset"));
        if ours == theirs && replica.info("master_link_status") == "up" {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{} of {}", replica.info("slave_repl_offset"), primary.info("master_repl_offset"));
}

/// All data, key by key, as commands show them.
fn contents(client: &mut Client) -> BTreeMap<String, String> {
    let mut contents = BTreeMap::new();
    for db in 0..16 {
        client.expect(&format!("SELECT {db}"), "+OK");
        for key in client.call("KEYS *").elements() {
            let key = key.text();
            let kind = client.call_words(&["TYPE", &key]).text();
            let words: &[&str] = match kind.as_str() {
                "string" => &["GET"],
                "list" => &["LRANGE", "0", "-1"],
                "set" => &["SMEMBERS"],
                "zset" => &["ZRANGE", "0", "-1", "WITHSCORES"],
                "hash" => &["HGETALL"],
                "stream" => &["XINFO", "STREAM", "FULL", "COUNT", "0"],
                // Gone meanwhile.
                _ => continue,
            };
            let mut command = vec![words[0]];
            let rest = if words[0] == "XINFO" {
                command.push(words[1]);
                &words[2..]
            } else {
                &words[1..]
            };
            command.push(&key);
            command.extend(rest);
            let value = shown(&kind, &client.call_words(&command));
            let expiry = client.call_words(&["PEXPIRETIME", &key]);
            contents.insert(format!("{db} {key}"), format!("{kind} {value} {expiry}"));
        }
    }
    client.expect("SELECT 0", "+OK");
    contents
}

fn shown(kind: &str, value: &Reply) -> String {
    let mut parts: Vec<String> = match kind {
        "hash" => {
            let elements = value.elements();
            elements.chunks(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect()
        }
        "set" => value.elements().iter().map(ToString::to_string).collect(),
        "stream" => {
            // What it holds, and not how it is kept or who was seen when.
            let fields = value.elements();
            let wanted = ["length", "last-generated-id", "entries", "max-deleted-entry-id"];
            let pairs = fields.chunks(2);
            pairs
                .filter(|pair| wanted.contains(&pair[0].text().as_str()))
                .map(|pair| format!("{}={}", pair[0], pair[1]))
                .collect()
        }
        _ => return value.to_string(),
    };
    parts.sort();
    parts.join(" ")
}

#[track_caller]
pub fn assert_same(name: &str, primary: &mut Client, replica: &mut Client) {
    let (theirs, ours) = (contents(primary), contents(replica));
    for (key, value) in &theirs {
        assert_eq!(ours.get(key), Some(value), "{name}: {key}");
    }
    assert_eq!(theirs.len(), ours.len(), "{name}");
}

/// Writes of all types; `round` makes them differ.
pub fn write_some(client: &mut Client, round: u64) {
    let mut random = 0x9e37_79b9_u64.wrapping_mul(round + 1);
    for step in 0..300 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (pick, n) = ((random >> 33) % 26, (random >> 40) % 20);
        let line = match pick {
            0 => format!("SET s:{n} {random}"),
            1 => format!("SETEX t:{n} 1000 {step}"),
            2 => format!("INCRBY c:{n} {step}"),
            3 => format!("APPEND s:{n} x"),
            4 => format!("INCRBYFLOAT f:{n} 0.1"),
            5 => format!("RPUSH l:{n} {step} b \"\\x00\\xff\""),
            6 => format!("LPOP l:{n}"),
            7 => format!("SADD u:{n} {step} {random}"),
            8 => format!("SPOP u:{n}"),
            9 => format!("HSET h:{n} f{step} {random}"),
            10 => format!("HINCRBYFLOAT h:{n} float 0.5"),
            11 => format!("ZADD z:{n} {step} m{}", random % 7),
            12 => format!("ZPOPMIN z:{n}"),
            13 => format!("XADD x:{n} * f {step}"),
            14 => format!("XTRIM x:{n} MAXLEN 3"),
            15 => format!("PFADD p:{n} {random}"),
            16 => format!("SETBIT b:{n} {} 1", random % 1000),
            17 => format!("EXPIRE s:{n} 500"),
            18 => format!("DEL s:{n} l:{n}"),
            19 => format!("RENAME c:{n} c:{}", random % 20),
            20 => format!("COPY h:{n} h2:{n} REPLACE"),
            21 => format!("SELECT {}", random % 3),
            22 => "EVAL \"redis.call('INCR', 'e1') redis.call('LPUSH', 'e2', ARGV[1])\" 0 v".into(),
            23 => format!("PSETEX gone:{n} 1 v"),
            24 => format!("GETEX s:{n} PX 400000"),
            _ => {
                client.expect("MULTI", "+OK");
                client.call(&format!("INCR m:{n}"));
                client.call(&format!("SELECT {}", random % 3));
                client.call(&format!("RPUSH ml:{n} {step}"));
                "EXEC".into()
            }
        };
        client.call(&line);
    }
    client.expect("SELECT 0", "+OK");
}

/// It follows from where it was after a cut from either side.
#[track_caller]
pub fn goes_on_after_cuts(name: &str, there: &mut Client, here: &mut Client) {
    let full = there.info("sync_full");
    here.call("CLIENT KILL TYPE master");
    write_some(there, 6);
    here.eventually_up();
    catch_up(there, here);
    there.call("CLIENT KILL TYPE replica");
    write_some(there, 7);
    catch_up(there, here);
    assert_same(name, there, here);
    assert_eq!(there.info("sync_full"), full, "{name}");
    assert!(2 <= there.info("sync_partial_ok").parse::<u64>().expect("a number"), "{name}");
}

#[test]
fn a_replica_has_what_its_primary_has() {
    if !is_carnelian() {
        return;
    }
    for (name, primary) in primaries() {
        let mut there = primary.connect();
        write_some(&mut there, 1);
        let replica = replica_of(&primary, &[]);
        let mut here = replica.connect();
        catch_up(&mut there, &mut here);
        assert_same(&name, &mut there, &mut here);
        for round in 2..5 {
            write_some(&mut there, round);
        }
        catch_up(&mut there, &mut here);
        assert_same(&name, &mut there, &mut here);

        goes_on_after_cuts(&name, &mut there, &mut here);

        // The primary waits for it.
        there.expect("SET waited 1", "+OK");
        there.expect("WAIT 1 5000", ":1");
        here.expect("GET waited", "1");
        here.expect("WAIT 0 0", "-ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.");
        here.expect("SET a b", "-READONLY You can't write against a read only replica.");
        let list = here.call("CLIENT LIST TYPE master").text();
        assert!(list.contains("flags=M"), "{list}");
    }
}

#[test]
fn a_promoted_replica_goes_on_and_others_go_on_with_it() {
    if !is_carnelian() {
        return;
    }
    for (name, primary) in primaries() {
        let mut there = primary.connect();
        let first = replica_of(&primary, &[]);
        let second = replica_of(&primary, &[]);
        let (mut one, mut two) = (first.connect(), second.connect());
        write_some(&mut there, 11);
        catch_up(&mut there, &mut one);
        catch_up(&mut there, &mut two);
        assert_same(&name, &mut there, &mut one);
        assert_same(&name, &mut there, &mut two);

        one.expect("REPLICAOF NO ONE", "+OK");
        one.expect("SET promoted 1", "+OK");
        let port = first.port();
        two.expect(&format!("REPLICAOF 127.0.0.1 {port}"), "+OK");
        two.eventually_up();
        write_some(&mut one, 12);
        catch_up(&mut one, &mut two);
        assert_same(&name, &mut one, &mut two);
        assert_eq!(one.info("sync_partial_ok"), "1", "{name}");
        assert_eq!(one.info("sync_full"), "0", "{name}");
        assert_ne!(one.info("master_replid2"), "0".repeat(40));

        // The old primary follows the new one without a copy of everything.
        let number = |text: String| text.parse::<u64>().expect("an offset");
        let has_more =
            number(one.info("second_repl_offset")) <= number(there.info("master_repl_offset"));
        there.expect(&format!("REPLICAOF 127.0.0.1 {port}"), "+OK");
        there.eventually_up();
        write_some(&mut one, 13);
        catch_up(&mut one, &mut there);
        assert_same(&name, &mut one, &mut there);
        if !has_more {
            // (It may have sent a sign of life to its replicas after the promotion.)
            assert_eq!(one.info("sync_full"), "0", "{name}");
        }
    }
}

#[test]
fn a_chain_has_the_same_data_and_offsets_at_its_end() {
    if !is_carnelian() {
        return;
    }
    for (name, primary) in primaries() {
        let mut there = primary.connect();
        write_some(&mut there, 21);
        let middle = replica_of(&primary, &["--repl-diskless-sync-delay", "0"]);
        let end = replica_of(&middle, &[]);
        let (mut here, mut last) = (middle.connect(), end.connect());
        write_some(&mut there, 22);
        catch_up(&mut there, &mut here);
        catch_up(&mut there, &mut last);
        assert_same(&name, &mut there, &mut last);
        // The link in the middle is made again, and the end does not even notice.
        here.call("CLIENT KILL TYPE master");
        write_some(&mut there, 23);
        catch_up(&mut there, &mut here);
        catch_up(&mut there, &mut last);
        assert_same(&name, &mut there, &mut last);
    }
}

#[test]
fn expired_keys_are_the_primarys_to_remove() {
    if !is_carnelian() {
        return;
    }
    let primary = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = replica_of(&primary, &[]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    there.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    there.expect("SET k v PX 50", "+OK");
    there.expect("HSET h f v g w", ":2");
    there.expect("HPEXPIRE h 50 FIELDS 1 f", "[:1]");
    catch_up(&mut there, &mut here);
    sleep(Duration::from_millis(80));
    here.expect("GET k", "nil");
    here.expect("EXISTS k", ":0");
    here.expect("HGET h f", "nil");
    here.expect("DBSIZE", ":2");
    there.expect("GET k", "nil");
    catch_up(&mut there, &mut here);
    here.expect("DBSIZE", ":1");
}

/// A primary that does what a test wants.
struct Impostor(TcpListener);

impl Impostor {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    fn port(&self) -> String {
        self.0.local_addr().expect("it is bound").port().to_string()
    }

    /// Takes the next connection through the handshake up to its PSYNC.
    fn accept(&self) -> TcpStream {
        let (mut stream, _) = self.0.accept().expect("a replica");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        let mut said = Vec::new();
        let mut chunk = [0; 4096];
        let mut answered = 0;
        loop {
            let text = String::from_utf8_lossy(&said).to_uppercase();
            let commands = text.matches('*').count();
            while answered < commands && !text.contains("\r\nPSYNC\r\n") {
                stream.write_all(b"+OK\r\n").expect("it listens");
                answered += 1;
            }
            if text.contains("\r\nPSYNC\r\n") && text.ends_with("\r\n") {
                return stream;
            }
            let count = stream.read(&mut chunk).expect("it speaks");
            assert_ne!(count, 0, "it hung up after {text}");
            said.extend_from_slice(&chunk[..count]);
        }
    }
}

const FULL: &[u8] = b"+FULLRESYNC 0123456789abcdef0123456789abcdef01234567 1000\r\n";
const MARK: &[u8] = b"00112233445566778899aabbccddeeff00112233";

/// A snapshot with the key `new`.
fn snapshot() -> Vec<u8> {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.expect("SET new 1", "+OK");
    client.expect("SAVE", "+OK");
    std::fs::read(server.folder().join("dump.rdb")).expect("it was saved")
}

#[track_caller]
pub fn eventually_logged(server: &Server, text: &str) {
    for _ in 0..1000 {
        if server.log().contains(text) {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{text:?} is not in the log:\n{}", server.log());
}

#[test]
fn a_primary_that_is_none_changes_nothing() {
    if !is_carnelian() {
        return;
    }
    let snapshot = snapshot();
    for load in ["disabled", "swapdb"] {
        let server = Server::start(&["--repl-diskless-load", load, "--repl-timeout", "2"]);
        let mut client = server.connect();
        client.expect("SET old 1", "+OK");
        let marked = [b"$EOF:".as_slice(), MARK, b"\r\n"].concat();
        let half = &snapshot[..snapshot.len() / 2];
        let mut broken = snapshot.clone();
        broken.truncate(9);
        broken.extend_from_slice(&[0; 4]);
        broken.extend_from_slice(b"\xc3\xff\xff\xff\xff\xff");
        let length = |count: usize| format!("${count}\r\n").into_bytes();
        let cases: [(&[&[u8]], &str); 9] = [
            (&[b"+FULLRESYNC 12 abc\r\n"], "wrong syntax"),
            (
                &[b"+FULLRESYNC 0123456789abcdef0123456789abcdef01234567 99999999999999999999\r\n"],
                "wrong syntax",
            ),
            (&[b"HTTP/1.1 400 Bad Request\r\n"], "Master does not support PSYNC"),
            (&[FULL, b"GET / HTTP/1.1\r\n"], "the first byte is not '$'"),
            (&[FULL, b"$99999999999999999999\r\n"], "a bad length"),
            (&[&[b'x'; 100_000]], "a line without end"),
            (&[FULL, b"-ERR no\r\n"], "MASTER aborted replication with an error"),
            (&[FULL, &length(snapshot.len()), half], "trying to sync with MASTER"),
            (&[FULL, &marked, half], "trying to sync with MASTER"),
        ];
        let impostor = Impostor::new();
        client.expect(&format!("REPLICAOF 127.0.0.1 {}", impostor.port()), "+OK");
        for (pieces, reason) in cases {
            let mut stream = impostor.accept();
            for piece in pieces {
                // It may have hung up already.
                let _ = stream.write_all(piece);
            }
            drop(stream);
            let reason = match (load, reason) {
                ("swapdb", "trying to sync with MASTER") => "Failed trying to load the MASTER",
                _ => reason,
            };
            eventually_logged(&server, reason);
            client.eventually("GET old", "1");
        }
        // Says nothing, for ever.
        let stream = impostor.accept();
        eventually_logged(&server, "next to nothing");
        client.eventually("GET old", "1");
        drop(stream);

        if load == "swapdb" {
            // The end is not where it was said to be, or no end at all.
            let wrong = [b'z'; 40];
            for (pieces, reason) in [
                (vec![FULL, &marked, &snapshot, &wrong], "EOF marker is broken"),
                (vec![FULL, &length(broken.len()), &broken], "Failed trying to load"),
            ] {
                let mut stream = impostor.accept();
                for piece in pieces {
                    let _ = stream.write_all(piece);
                }
                eventually_logged(&server, reason);
                client.eventually("GET old", "1");
            }
        }
        // One that does what it should is followed after all that.
        let mut stream = impostor.accept();
        for piece in [FULL, &marked, &snapshot, MARK, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"]
        {
            stream.write_all(piece).expect("it listens");
        }
        client.eventually("GET a", "1");
        client.expect("GET new", "1");
        client.expect("GET old", "nil");
        assert_eq!(client.info("master_repl_offset"), "1027");
        // Garbage in the stream ends the link; what came before stays.
        stream.write_all(b"*1\r\n$99999999999999\r\n").expect("it listens");
        let mut stream = impostor.accept();
        // An offset that it cannot have, in a history that it does not know.
        stream.write_all(b"+CONTINUE xyz\r\n").expect("it listens");
        eventually_logged(&server, "+CONTINUE xyz");
        client.expect("GET a", "1");
        let failures = client.info("master_link_failures").parse::<usize>().expect("a number");
        assert!(cases.len() < failures, "{failures}");
        client.expect("REPLICAOF NO ONE", "+OK");
        client.expect("SET a 2", "+OK");
        assert!(client.info("master_repl_offset").parse::<u64>().unwrap() >= 1027);
    }
}

#[test]
fn a_restarted_replica_goes_on_from_its_snapshot_or_file() {
    if !is_carnelian() {
        return;
    }
    let args = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "3600"];
    let primary = Server::start(&args);
    let mut there = primary.connect();
    let mut saving = replica_of(&primary, &["--save", "100 100"]);
    let mut logging = replica_of(&primary, &["--appendonly", "yes"]);
    for round in 31..33 {
        write_some(&mut there, round);
    }
    there.expect("SELECT 2", "+OK");
    there.expect("SET last 1", "+OK");
    catch_up(&mut there, &mut saving.connect());
    catch_up(&mut there, &mut logging.connect());
    let full = there.info("sync_full");
    saving.restart();
    let mut here = saving.connect();
    here.eventually_up();
    // Still in the logical database that was selected before.
    there.expect("SET last 2", "+OK");
    catch_up(&mut there, &mut here);
    assert_same("saved", &mut there, &mut here);
    assert_eq!(there.info("sync_full"), full);

    logging.connect().eventually_info("aof_rewrite_in_progress", "0");
    there.expect("SELECT 2", "+OK");
    there.expect("SET last 3", "+OK");
    catch_up(&mut there, &mut logging.connect());
    let expected = contents(&mut there);
    drop(primary);
    logging.connect().expect("REPLICAOF NO ONE", "+OK");
    logging.connect().eventually_info("aof_rewrite_in_progress", "0");
    logging.restart();
    let mut alone = logging.connect();
    // It was told so at its start.
    alone.expect("REPLICAOF NO ONE", "+OK");
    assert_eq!(contents(&mut alone).len(), expected.len());
    for (key, value) in contents(&mut alone) {
        assert_eq!(expected.get(&key), Some(&value), "{key}");
    }
}

#[test]
fn what_expired_while_the_primary_was_away_goes_from_its_replicas_too() {
    if !is_carnelian() {
        return;
    }
    let args = ["--repl-diskless-sync-delay", "0", "--save", "100 100"];
    let mut primary = Server::start(&args);
    let replica = replica_of(&primary, &[]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    there.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    for number in 0..600 {
        there.expect(&format!("SELECT {}", number % 3), "+OK");
        there.expect(&format!("SET gone{number} v PX 20"), "+OK");
    }
    there.expect("SET stays v", "+OK");
    catch_up(&mut there, &mut here);
    // A replica keeps what it was not told about.
    here.expect("DBSIZE", ":200");
    sleep(Duration::from_millis(20));
    primary.restart();
    there = primary.connect();
    here.eventually_info("master_replid", &there.info("master_replid"));
    catch_up(&mut there, &mut here);
    assert_eq!(there.info("rdb_last_load_keys_expired"), "600");
    assert_eq!((&*there.info("sync_full"), &*there.info("sync_partial_ok")), ("0", "1"));
    for (db, size) in [(0, ":0"), (1, ":0"), (2, ":1")] {
        here.expect(&format!("SELECT {db}"), "+OK");
        here.expect("DBSIZE", size);
    }
    there.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(there.info("sync_partial_ok"), "0");
}

#[test]
fn all_who_asked_for_the_end_hear_that_it_was_called_off() {
    let primary = Server::starter().args(&["--save", "", "--shutdown-timeout", "600"]).start();
    let replica = replica_of(&primary, &[]);
    let mut client = primary.connect();
    replica.signal(Signal::STOP);
    client.expect("INCR n", ":1");
    let is_ending =
        |client: &mut Client| client.call("INFO server").text().contains("shutdown_in_milli");
    let mut asking = [primary.connect(), primary.connect()];
    for client in &mut asking {
        client.send(b"SHUTDOWN\r\n");
    }
    client.eventually_info("blocked_clients", "2");
    while !is_ending(&mut client) {
        sleep(Duration::from_millis(10));
    }
    assert!((1..=600_000).contains(&client.info("shutdown_in_milliseconds").parse().unwrap_or(0)));
    client.expect("SHUTDOWN ABORT", "+OK");
    for client in &mut asking {
        client.expect_next("-ERR Errors trying to SHUTDOWN. Check logs.");
    }
    replica.signal(Signal::CONT);
    catch_up(&mut client, &mut replica.connect());
    assert!(!is_ending(&mut client));
}

#[test]
fn functions_that_may_write_or_need_the_link_are_refused_without() {
    let primary = Server::starter().args(&["--save", ""]).start();
    let replica = replica_of(&primary, &[]);
    let (mut ours, mut theirs) = (primary.connect(), replica.connect());
    ours.expect(
        "FUNCTION LOAD \"#!lua name=l\\nredis.register_function('w', function() return 1 end)\\n\
         redis.register_function{function_name='r', callback=function() return 2 end, \
         flags={'no-writes'}}\\n\
         redis.register_function{function_name='s', callback=function() return 3 end, \
         flags={'no-writes', 'allow-stale'}}\"",
        "l",
    );
    catch_up(&mut ours, &mut theirs);
    ours.expect("FCALL w 0", ":1");
    theirs.expect("FCALL w 0", "-READONLY You can't write against a read only replica.");
    theirs.expect(
        "EVAL \"#!lua\\nreturn 1\" 0",
        "-READONLY You can't write against a read only replica.",
    );
    theirs.expect("EVAL \"return 1\" 0", ":1");
    theirs.expect("FCALL r 0", ":2");
    theirs.expect("CONFIG SET replica-serve-stale-data no", "+OK");
    drop(ours);
    drop(primary);
    theirs.eventually_info("master_link_status", "down");
    let down = "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
    theirs.eventually("FCALL r 0", down);
    theirs.expect("EVAL \"return 1\" 0", down);
    theirs.expect("FCALL s 0", ":3");
}

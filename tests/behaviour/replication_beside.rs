//! Full synchronisations whose snapshot comes over a connection of its own: in the way of Redis 8 and in that of
//! Valkey, with servers of both kinds and among ours, on either side.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use carnelian_tests::server::{Signal, program};
use carnelian_tests::{Client, Server, is_carnelian, peers};

use super::replication_primary::{Traffic, compare, wait_for, write_something};
use super::replication_replica::{Waiting, eventually_logged};

const REDIS: &[&str] = &["--repl-rdb-channel", "yes"];
const VALKEY: &[&str] = &["--dual-channel-replication-enabled", "yes"];
const VALKEY_ONLY: &[&str] =
    &["--repl-rdb-channel", "no", "--dual-channel-replication-enabled", "yes"];
const NEITHER: &[&str] = &["--repl-rdb-channel", "no", "--dual-channel-replication-enabled", "no"];

/// A kind of server, and what has it speak one way.
type Kind = (PathBuf, &'static [&'static str]);

/// Primaries and replicas, one of them ours, and whether both know a way.
fn pairs() -> Vec<(Kind, Kind)> {
    let ours = || program().to_owned();
    let mut pairs =
        vec![((ours(), REDIS), (ours(), REDIS)), ((ours(), VALKEY_ONLY), (ours(), VALKEY_ONLY))];
    for (name, way, own) in [("redis-server", REDIS, REDIS), ("valkey-server", VALKEY, VALKEY_ONLY)]
    {
        let Some(found) = peers::find(name).filter(|found| knows(found, way)) else { continue };
        pairs.push(((ours(), own), (found.clone(), way)));
        pairs.push(((found, way), (ours(), own)));
    }
    pairs
}

/// Whether a server is new enough to know a directive.
fn knows(program: &Path, way: &[&str]) -> bool {
    let server = Server::starter_of(program).args(&["--save", ""]).start();
    let name = way[0].trim_start_matches("--");
    !server.connect().call(&format!("CONFIG GET {name}")).elements().is_empty()
}

fn start((program, way): &Kind, more: &[&str]) -> Server {
    let args = ["--save", "", "--repl-diskless-sync-delay", "0"];
    Server::starter_of(program).args(&args).args(way).args(more).start()
}

fn follow(replica: &Server, primary: &Server) {
    let line = format!("REPLICAOF 127.0.0.1 {}", primary.port());
    replica.connect().expect(&line, "+OK");
}

fn fill(client: &mut Client, rounds: u64) {
    for n in 0..rounds {
        write_something(client, n.wrapping_mul(2_654_435_761));
    }
}

#[test]
fn data_are_the_same_whoever_sends_the_snapshot_beside_the_stream() {
    if !is_carnelian() {
        return;
    }
    for (place, (primary, replica)) in pairs().iter().enumerate() {
        let name = format!("{} to {}", primary.0.display(), replica.0.display());
        eprintln!("{name}, {:?}", replica.1);
        let load = if place % 2 == 0 { "disabled" } else { "swapdb" };
        let primary = start(primary, &[]);
        let mut client = primary.connect();
        fill(&mut client, 1500);
        let replica = start(replica, &["--repl-diskless-load", load]);
        let traffic = Traffic::start(&primary, 3 + place as u64);
        follow(&replica, &primary);
        let mut here = replica.connect();
        here.eventually_up();
        let log = format!("{}{}", primary.log(), replica.log()).to_lowercase();
        let is_beside = ["rdb channel", "dual channel"].iter().any(|text| log.contains(text));
        assert!(is_beside, "{name}:\n{log}");
        traffic.end();
        wait_for("it is online", || {
            client.call("INFO replication").text().contains("state=online")
        });
        client.eventually_info("connected_slaves", "1");
        compare(&primary, std::slice::from_ref(&replica));
        assert_eq!(client.info("sync_full"), "1", "{name}");
        // It goes on from where it was.
        let before = client.info("sync_partial_ok");
        client.call("CLIENT KILL TYPE replica");
        wait_for("it has come back", || client.info("sync_partial_ok") != before);
        here.eventually_up();
        compare(&primary, std::slice::from_ref(&replica));
        assert_eq!(client.info("sync_full"), "1", "{name}");
    }
}

#[test]
fn the_stream_is_kept_by_the_replica_while_the_snapshot_comes() {
    if !is_carnelian() {
        return;
    }
    for own in [REDIS, VALKEY_ONLY] {
        let kind = (program().to_owned(), own);
        let primary = start(&kind, &[]);
        let mut client = primary.connect();
        fill(&mut client, 300);
        // It takes a while, until it is told not to.
        client.expect("CONFIG SET rdb-key-save-delay 20000", "+OK");
        let replica = start(&kind, &[]);
        let mut here = replica.connect();
        follow(&replica, &primary);
        wait_for("it streams", || {
            client.call("INFO replication").text().contains("state=send_bulk_and_stream")
        });
        let large = "x".repeat(300_000);
        client.call_words(&["SET", "large", &large]);
        wait_for("it is kept", || {
            300_000 <= here.info("replica_full_sync_buffer_size").parse::<u64>().expect("a number")
        });
        assert_eq!(here.info("master_sync_in_progress"), "1");
        assert_ne!(here.info("mem_replica_full_sync_buffer"), "0");
        assert_eq!(client.info("connected_slaves"), "1");
        client.expect("CONFIG SET rdb-key-save-delay 0", "+OK");
        here.eventually_up();
        assert_eq!(here.info("replica_full_sync_buffer_size"), "0");
        assert_ne!(here.info("replica_full_sync_buffer_peak"), "0");
        compare(&primary, std::slice::from_ref(&replica));
        assert_eq!(client.info("replicas_waiting_psync"), "0");
    }
}

#[test]
fn what_is_kept_of_the_stream_is_bounded() {
    if !is_carnelian() {
        return;
    }
    let kind: Kind = (program().to_owned(), REDIS);
    let primary = start(&kind, &[]);
    let mut client = primary.connect();
    fill(&mut client, 300);
    client.expect("CONFIG SET rdb-key-save-delay 20000", "+OK");
    let replica = start(&kind, &["--replica-full-sync-buffer-limit", "1mb"]);
    follow(&replica, &primary);
    wait_for("it streams", || {
        client.call("INFO replication").text().contains("state=send_bulk_and_stream")
    });
    let large = "x".repeat(1 << 20);
    for _ in 0..12 {
        client.call_words(&["SET", "large", &large]);
    }
    eventually_logged(&replica, "Replication buffer limit has been reached");
    let mut here = replica.connect();
    let kept: u64 = here.info("replica_full_sync_buffer_peak").parse().expect("a number");
    assert!((1 << 20..2 << 20).contains(&kept), "{kept}");
    client.expect("CONFIG SET rdb-key-save-delay 0", "+OK");
    here.eventually_up();
    compare(&primary, std::slice::from_ref(&replica));
}

#[test]
fn a_connection_that_is_lost_meanwhile_is_no_harm() {
    if !is_carnelian() {
        return;
    }
    let kind: Kind = (program().to_owned(), REDIS);
    let primary = start(&kind, &[]);
    let mut client = primary.connect();
    fill(&mut client, 300);
    for place in 0..2 {
        client.expect("CONFIG SET rdb-key-save-delay 20000", "+OK");
        let replica = start(&kind, &[]);
        follow(&replica, &primary);
        wait_for("it streams", || {
            client.call("INFO replication").text().contains("state=send_bulk_and_stream")
        });
        // The stream's connection came first.
        let list = client.call("CLIENT LIST TYPE replica").text();
        let ids: Vec<&str> =
            list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
        assert_eq!(ids.len(), 2, "{list}");
        client.expect(&format!("CLIENT KILL ID {}", ids[place]), ":1");
        client.expect("CONFIG SET rdb-key-save-delay 0", "+OK");
        let mut here = replica.connect();
        here.eventually_up();
        compare(&primary, std::slice::from_ref(&replica));
        here.expect("REPLICAOF NO ONE", "+OK");
        client.eventually_info("connected_slaves", "0");
    }
}

#[test]
fn a_server_that_does_not_want_it_is_followed_over_one_connection() {
    if !is_carnelian() {
        return;
    }
    for (there, here) in [(REDIS, NEITHER), (NEITHER, REDIS), (REDIS, VALKEY)] {
        // A replica that knows both gets what its primary knows.
        let primary = start(&(program().to_owned(), there), &[]);
        fill(&mut primary.connect(), 200);
        let replica = start(&(program().to_owned(), here), &[]);
        follow(&replica, &primary);
        replica.connect().eventually_up();
        let is_beside = primary.log().contains("dedicated rdb channel");
        assert_eq!(is_beside, there == REDIS && here == VALKEY, "{there:?} {here:?}");
        compare(&primary, std::slice::from_ref(&replica));
    }
}

/// A connection of a replica that does as it likes.
struct Odd(BufReader<TcpStream>);

impl Odd {
    fn new(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("the port is open");
        stream.set_read_timeout(Some(carnelian_tests::transport::PATIENCE)).expect("above zero");
        Self(BufReader::new(stream))
    }

    /// Says something and reads a line.
    fn ask(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("it is there");
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.0.read_line(&mut line).expect("a line");
            if count == 0 || !line.trim().is_empty() {
                return line.trim().to_owned();
            }
        }
    }
}

#[test]
fn a_primary_believes_nothing_of_connections_that_do_not_belong_together() {
    if !is_carnelian() {
        return;
    }
    let args = ["--save", "", "--repl-diskless-sync-delay", "0", VALKEY[0], "yes"];
    let primary = Server::starter().args(&args).start();
    let mut client = primary.connect();
    client.expect("SET a 1", "+OK");
    let unknown = [
        ("REPLCONF main-ch-client-id 1", "-ERR Unrecognized RDB client id: 1"),
        ("REPLCONF main-ch-client-id -5", "-ERR Unrecognized RDB client id: -5"),
        ("REPLCONF set-rdb-client-id 1", "-ERR Unrecognized RDB client id 1"),
        ("REPLCONF set-rdb-client-id x", "-ERR value is not an integer or out of range"),
        ("REPLCONF rdb-channel 2", "-ERR value is out of range, value must between 0 and 1"),
    ];
    for (line, answer) in unknown {
        assert_eq!(Odd::new(&primary).ask(line), answer);
    }
    // A stream without a snapshot waits, is no replica that counts, and takes nobody's place.
    let mut stream = Odd::new(&primary);
    assert_eq!(stream.ask("REPLCONF capa eof capa psync2 capa rdb-channel-repl"), "+OK");
    let greeting = stream.ask("PSYNC ? -1");
    let id = greeting.strip_prefix("+RDBCHANNELSYNC ").expect("a number").to_owned();
    assert!(client.call("INFO replication").text().contains("state=wait_bgsave"));
    // A snapshot for it that ends half way takes nothing with it that others need.
    let mut channel = Odd::new(&primary);
    let line = format!("REPLCONF capa eof rdb-only 1 rdb-channel 1 main-ch-client-id {id}");
    assert_eq!(channel.ask(&line), "+OK");
    assert!(channel.ask("PSYNC ? -1").starts_with("+FULLRESYNC "));
    drop(channel);
    drop(stream);
    client.eventually_info("connected_slaves", "0");
    // A stream that nobody asks for is held, for a while, and may be had once.
    let mut channel = Odd::new(&primary);
    assert_eq!(channel.ask("REPLCONF capa eof rdb-only 1 rdb-channel 1"), "+OK");
    let offset = channel.ask("SYNC");
    let words: Vec<&str> = offset.strip_prefix("$ENDOFF:").expect("it").split(' ').collect();
    let [end, history, _, own] = words[..] else { panic!("{offset}") };
    client.eventually_info("replicas_waiting_psync", "1");
    drop(channel);
    client.expect("SET b 1", "+OK");
    let mut stream = Odd::new(&primary);
    assert_eq!(stream.ask(&format!("REPLCONF set-rdb-client-id {own}")), "+OK");
    let next = end.parse::<u64>().expect("an offset") + 1;
    assert!(stream.ask(&format!("PSYNC {history} {next}")).starts_with("+CONTINUE"));
    assert!(stream.line().starts_with('*'));
    client.eventually_info("replicas_waiting_psync", "0");
    let again = Odd::new(&primary).ask(&format!("REPLCONF set-rdb-client-id {own}"));
    assert!(again.starts_with("-ERR Unrecognized"), "{again}");
}

#[test]
fn a_replica_is_in_its_handshake_until_the_snapshot_begins() {
    if !is_carnelian() {
        return;
    }
    let args = ["--save", "", "--repl-diskless-sync-delay", "1000"];
    let primary = Server::starter().args(&args).start();
    let replica = Server::starter().args(&["--save", ""]).start();
    follow(&replica, &primary);
    eventually_logged(&primary, "dedicated rdb channel");
    let mut client = replica.connect();
    assert_eq!(client.call("ROLE").elements()[3].text(), "handshake");
    assert_eq!(client.info("master_sync_in_progress"), "0");
    client.expect("CONFIG SET repl-timeout 1", "+OK");
    primary.signal(Signal::STOP);
    eventually_logged(&replica, "Timeout connecting to the MASTER");
    primary.signal(Signal::CONT);
}

#[test]
fn a_primary_that_promises_a_snapshot_beside_and_brings_none_changes_nothing() {
    if !is_carnelian() {
        return;
    }
    let id = "0123456789abcdef0123456789abcdef01234567";
    let replica = Server::start(&["--save", "", "--repl-timeout", "2", VALKEY[0], "yes"]);
    let mut here = replica.connect();
    here.expect("SET old 1", "+OK");
    let full = format!("+FULLRESYNC {id} 5\r\n$EOF:{id}\r\nREDIS0011garbage");
    let named = format!("$ENDOFF:5 {id} 0 9\r\n");
    let rows: [(&str, &str, &str); 6] = [
        ("+RDBCHANNELSYNC\r\n", "", "wrong syntax"),
        ("+RDBCHANNELSYNC 7\r\n", "-ERR no\r\n", "over a second connection: -ERR no"),
        ("+RDBCHANNELSYNC 7\r\n", "+OK\r\n+CONTINUE\r\n", "over a second connection: +CONTINUE"),
        ("+RDBCHANNELSYNC 7\r\n", "", "Timeout connecting to the MASTER"),
        ("+RDBCHANNELSYNC 7\r\n", &full, "I/O error trying to sync with MASTER"),
        ("+DUALCHANNELSYNC\r\n", &named, "Main channel was not let in"),
    ];
    for (answer, beside, reason) in rows {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        here.expect(&format!("REPLICAOF 127.0.0.1 {port}"), "+OK");
        let (mut stream, _) = listener.accept().expect("it comes");
        let mut lines = BufReader::new(stream.try_clone().expect("a socket"));
        wait_for_words(&mut lines, "PING");
        stream.write_all(b"+PONG\r\n").expect("it listens");
        wait_for_words(&mut lines, "version");
        stream.write_all(b"+OK\r\n+OK\r\n+OK\r\n").expect("it listens");
        wait_for_words(&mut lines, "PSYNC");
        stream.write_all(answer.as_bytes()).expect("it listens");
        if reason != "wrong syntax" {
            let (mut channel, _) = listener.accept().expect("it comes");
            let ok = if beside.is_empty()
                || beside.starts_with(['-', '+']) && !beside.starts_with("+FULL")
            {
                ""
            } else {
                "+OK\r\n"
            };
            channel.write_all(format!("{ok}{beside}").as_bytes()).expect("it listens");
            stream.write_all(b"-ERR no such snapshot\r\n").expect("it listens");
            if reason.contains("trying to sync") {
                wait_for_words(&mut BufReader::new(&channel), "PSYNC");
                drop(channel);
                drop(stream);
            } else {
                let mut rest = Vec::new();
                // It gives the connection up, whichever end is first.
                let _ = channel.read_to_end(&mut rest);
            }
        }
        eventually_logged(&replica, reason);
        here.expect("REPLICAOF NO ONE", "+OK");
        here.expect("GET old", "1");
    }
}

/// Reads until a word has come.
fn wait_for_words(lines: &mut impl BufRead, word: &str) {
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).expect("a line"), 0, "{word}");
    }
}

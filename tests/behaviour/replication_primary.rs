//! Replicas of other kinds that follow us: what they get, how they go on after a cut, and what is kept from
//! those who are no replicas.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use carnelian_tests::{Client, Reply, Server, is_carnelian, peers};

/// Every kind of server there is here, older ones too.
fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("redis-server"));
    let mut found: Vec<PathBuf> = peers::find("redis-server").into_iter().collect();
    found.extend(peers::find("valkey-server"));
    found.extend(in_path.into_iter().find(|program| program.is_file()));
    found.dedup();
    found
}

fn primary(args: &[&str]) -> Server {
    Server::starter().args(&["--repl-diskless-sync-delay", "0", "--save", ""]).args(args).start()
}

fn replica_of(program: &Path, primary: &Server) -> Server {
    let port = primary.port().to_string();
    let args = ["--replicaof", "127.0.0.1", port.as_str(), "--save", ""];
    Server::starter_of(program).args(&args).start()
}

/// Writes of all kinds until told to end.
pub struct Traffic {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Traffic {
    pub fn start(server: &Server, seed: u64) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (told, mut client) = (Arc::clone(&ends), server.connect());
        let thread = thread::spawn(move || {
            let mut number = seed;
            while !told.load(Ordering::Relaxed) {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
                write_something(&mut client, number >> 33);
            }
        });
        Self { ends, thread }
    }

    pub fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("nothing is in the way");
    }
}

pub fn write_something(client: &mut Client, number: u64) {
    let (kind, n) = (number % 17, number / 17 % 97);
    let command = match kind {
        0 => format!("SET s{n} {}", "v".repeat(number as usize % 300)),
        1 => format!("INCR n{n}"),
        2 => format!("LPUSH l{n} {number} x"),
        3 => format!("RPOPLPUSH l{n} l{}", number % 89),
        4 => format!("HSET h{n} f{} {number}", number % 13),
        5 => format!("SADD m{n} {number}"),
        6 => format!("SPOP m{n}"),
        7 => format!("ZADD z{n} {} e{}", number % 1000, number % 11),
        8 => format!("XADD x{n} MAXLEN 20 * f {number}"),
        9 => format!("SELECT {}", number % 3),
        10 => format!("PEXPIRE s{n} {}", 5 + number % 50),
        11 => format!("EXPIRE h{n} {}", 1000 + number % 50),
        12 => format!(
            "EVAL \"redis.call('incr',KEYS[1]) redis.call('rpush',KEYS[2],ARGV[1])\" 2 n{n} l{n} {number}"
        ),
        13 => format!("DEL l{n} s{n}"),
        14 => format!("GETEX s{n} EX {}", 100 + number % 50),
        15 => format!("RENAME n{n} n{}", number % 89),
        _ => {
            client.call("MULTI");
            client.call(&format!("SETEX s{n} 500 {number}"));
            client.call(&format!("SINTERSTORE m{n} m{} m{}", number % 7, number % 5));
            client.call("EXEC");
            return;
        }
    };
    client.call(&command);
}

/// All there is of one logical database, in text.
fn contents(client: &mut Client, db: usize) -> Vec<String> {
    client.expect(&format!("SELECT {db}"), "+OK");
    let mut keys: Vec<String> =
        client.call("KEYS *").elements().iter().map(|it| it.text()).collect();
    keys.sort();
    keys.into_iter()
        .map(|key| {
            let kind = client.call(&format!("TYPE {key}")).text();
            let value = match kind.as_str() {
                "string" => client.call(&format!("GET {key}")),
                "list" => client.call(&format!("LRANGE {key} 0 -1")),
                "set" => client.call(&format!("SMEMBERS {key}")),
                "hash" => client.call(&format!("HGETALL {key}")),
                "zset" => client.call(&format!("ZRANGE {key} 0 -1 WITHSCORES")),
                _ => client.call(&format!("XRANGE {key} - +")),
            };
            let mut words: Vec<String> = vec![value.to_string()];
            if kind == "hash" {
                words = value.elements().chunks(2).map(|pair| format!("{pair:?}")).collect();
                words.sort();
            } else if kind == "set" {
                words = value.elements().iter().map(Reply::to_string).collect();
                words.sort();
            }
            let expiry = client.call(&format!("PEXPIRETIME {key}"));
            format!("{key} {kind} {expiry} {words:?}")
        })
        .collect()
}

pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn wait_until_online(client: &mut Client, count: usize) {
    wait_for("all replicas are online", || {
        let info = client.call("INFO replication").text();
        info.matches("state=online").count() == count
    });
}

/// Once all has arrived, it is the same everywhere.
pub fn compare(primary: &Server, replicas: &[Server]) {
    let mut client = primary.connect();
    // What is to expire soon has, and its deletion is on its way.
    thread::sleep(Duration::from_millis(60));
    for db in 0..3 {
        contents(&mut client, db);
    }
    client.expect("SET last write", "+OK");
    client.expect(&format!("WAIT {} 20000", replicas.len()), &format!(":{}", replicas.len()));
    for db in 0..3 {
        let expected = contents(&mut client, db);
        for replica in replicas {
            let found = contents(&mut replica.connect(), db);
            let differing: Vec<_> =
                expected.iter().zip(&found).filter(|(expected, found)| expected != found).collect();
            assert!(
                differing.is_empty() && expected.len() == found.len(),
                "{} and {} keys in database {db}; expected and found: {:?}",
                expected.len(),
                found.len(),
                differing.first()
            );
        }
    }
}

#[test]
fn replicas_of_every_kind_have_the_same_data_and_go_on_after_a_cut() {
    let programs = programs();
    if !is_carnelian() || programs.is_empty() {
        return;
    }
    let primary = primary(&["--repl-backlog-size", "64mb"]);
    let mut client = primary.connect();
    for n in 0..2000_u64 {
        write_something(&mut client, n.wrapping_mul(2_654_435_761));
    }
    let traffic = [Traffic::start(&primary, 3), Traffic::start(&primary, 7)];
    let replicas: Vec<Server> =
        programs.iter().map(|program| replica_of(program, &primary)).collect();
    let mut client = primary.connect();
    wait_until_online(&mut client, replicas.len());
    let full = client.info("sync_full");
    for _ in 0..2 {
        let before: usize = client.info("sync_partial_ok").parse().expect("nothing is in the way");
        client.expect("CLIENT KILL TYPE replica", &format!(":{}", replicas.len()));
        wait_for("all have come back", || {
            client.info("sync_partial_ok") == (before + replicas.len()).to_string()
        });
        wait_until_online(&mut client, replicas.len());
    }
    assert_eq!(client.info("sync_full"), full, "nobody needed all of it again");
    traffic.into_iter().for_each(Traffic::end);
    compare(&primary, &replicas);
    let roles = client.call("ROLE").elements();
    assert_eq!(roles[0].text(), "master");
    assert_eq!(roles[2].elements().len(), replicas.len());
    assert!(client.call("CLIENT LIST TYPE replica").text().contains(" flags=S "));
}

#[test]
fn a_snapshot_may_come_from_a_file() {
    let programs = programs();
    if !is_carnelian() || programs.is_empty() {
        return;
    }
    let primary = primary(&["--repl-diskless-sync", "no"]);
    let mut client = primary.connect();
    for n in 0..500_u64 {
        write_something(&mut client, n.wrapping_mul(2_654_435_761));
    }
    let replicas: Vec<Server> =
        programs.iter().map(|program| replica_of(program, &primary)).collect();
    wait_until_online(&mut client, replicas.len());
    compare(&primary, &replicas);
}

/// A replica of our own making, byte by byte.
struct Puppet(BufReader<TcpStream>);

impl Puppet {
    fn connect(server: &Server) -> Self {
        let stream =
            TcpStream::connect(("127.0.0.1", server.port())).expect("nothing is in the way");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("nothing is in the way");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("nothing is in the way");
    }

    /// The next line that is more than a sign of life.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("nothing is in the way");
            if line != "\n" {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Takes a whole snapshot; the name of the history and the offset it came with.
    fn synchronize(server: &Server) -> (Self, String, u64) {
        let mut puppet = Self::connect(server);
        puppet.send("REPLCONF listening-port 7777 capa eof capa psync2\r\n");
        assert_eq!(puppet.line(), "+OK");
        puppet.send("PSYNC ? -1\r\n");
        let line = puppet.line();
        let mut words = line.split(' ').skip(1).map(str::to_owned);
        let id = words.next().expect("nothing is in the way");
        let offset =
            words.next().expect("nothing is in the way").parse().expect("nothing is in the way");
        let mark = puppet.line().strip_prefix("$EOF:").expect("nothing is in the way").to_owned();
        let mut received = Vec::new();
        while !received.ends_with(mark.as_bytes()) {
            let mut byte = [0];
            puppet.0.read_exact(&mut byte).expect("nothing is in the way");
            received.push(byte[0]);
        }
        assert!(received.starts_with(b"REDIS"));
        puppet.send(&format!("REPLCONF ACK {offset}\r\n"));
        (puppet, id, offset)
    }

    fn take(&mut self, expected: &str) {
        let mut received = vec![0; expected.len()];
        self.0.read_exact(&mut received).expect("nothing is in the way");
        assert_eq!(String::from_utf8_lossy(&received), expected);
    }

    fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.0.read_to_end(&mut rest);
    }
}

#[test]
fn the_stream_goes_on_where_a_replica_asks_and_nowhere_else() {
    if !is_carnelian() {
        return;
    }
    let primary = primary(&["--repl-ping-replica-period", "1000"]);
    let mut client = primary.connect();
    let (mut puppet, id, offset) = Puppet::synchronize(&primary);
    client.expect("SET k v", "+OK");
    let effects = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    puppet.take(effects);
    let end = offset + effects.len() as u64;
    assert_eq!(client.info("master_repl_offset"), end.to_string());
    drop(puppet);

    client.expect("INCR n", ":1");
    let more = "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";
    let mut again = Puppet::connect(&primary);
    again.send(&format!("REPLCONF capa psync2\r\nPSYNC {} {}\r\n", id.to_uppercase(), end + 1));
    assert_eq!(again.line(), "+OK");
    assert_eq!(again.line(), format!("+CONTINUE {id}"));
    again.take(more);

    let end = end + more.len() as u64;
    for (id, offset) in [(id.as_str(), end + 2), ("0".repeat(40).as_str(), end), (&id, 0)] {
        let mut stranger = Puppet::connect(&primary);
        stranger.send(&format!("PSYNC {id} {offset}\r\n"));
        assert!(stranger.line().starts_with("+FULLRESYNC "), "{id} {offset}");
    }
    assert_eq!(client.info("sync_partial_err"), "3");
    assert_eq!(client.info("sync_partial_ok"), "1");
}

#[test]
fn who_is_no_replica_is_told_so_or_shut_out() {
    if !is_carnelian() {
        return;
    }
    let primary = primary(&[]);
    let mut client = primary.connect();
    client.expect("REPLCONF foo bar", "-ERR Unrecognized REPLCONF option: foo");
    client.expect("REPLCONF listening-port", "-ERR syntax error");
    client.expect("REPLCONF listening-port x", "-ERR value is not an integer or out of range");
    client.expect("REPLCONF rdb-only 2", "-ERR value is out of range, value must between 0 and 1");
    client.expect("REPLCONF rdb-filter-only keys", "-ERR Unsupported rdb-filter-only option: keys");
    client.expect("PSYNC ? x", "-ERR value is not an integer or out of range");
    client.expect("FAILOVER", "-ERR FAILOVER requires connected replicas.");
    client.expect("FAILOVER ABORT", "-ERR No failover in progress.");
    for _ in 0..1000 {
        client.send(b"REPLCONF ACK 99999999999 fack -1\r\n");
    }
    client.expect("PING", "+PONG");

    let (mut puppet, _, _) = Puppet::synchronize(&primary);
    puppet.send("GET k\r\n");
    puppet.expect_closed();
    wait_for("it is gone", || client.info("connected_slaves") == "0");

    let mut flood = Puppet::connect(&primary);
    flood.send("PSYNC ? -1\r\n");
    for _ in 0..100 {
        flood.send(&"REPLCONF ACK 18446744073709551615\r\nREPLCONF ACK -5\r\n".repeat(100));
    }
    client.expect("PING", "+PONG");
    assert_ne!(client.info("master_repl_offset"), "18446744073709551615");
}

#[test]
fn writes_wait_for_replicas_and_need_them_where_asked_to() {
    if !is_carnelian() {
        return;
    }
    let primary = primary(&["--min-replicas-max-lag", "5"]);
    let mut client = primary.connect();
    let (mut puppet, _, offset) = Puppet::synchronize(&primary);
    wait_until_online(&mut client, 1);
    client.expect("SET k v", "+OK");
    client.expect("WAIT 1 50", ":0");
    let acknowledged = Arc::new(AtomicBool::new(false));
    let waiting = {
        let acknowledged = Arc::clone(&acknowledged);
        thread::spawn(move || {
            client.expect("WAIT 1 0", ":1");
            assert!(acknowledged.load(Ordering::SeqCst), "not before it is true");
            client
        })
    };
    puppet.take("*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
    puppet.take("*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n");
    acknowledged.store(true, Ordering::SeqCst);
    puppet.send(&format!("REPLCONF ACK {}\r\n", offset + 50));
    let mut client = waiting.join().expect("nothing is in the way");

    client.expect("CONFIG SET min-replicas-to-write 1", "+OK");
    client.expect("SET k w", "+OK");
    client.expect("CONFIG SET min-replicas-to-write 2", "+OK");
    client.expect("SET k x", "-NOREPLICAS Not enough good replicas to write.");
    client.expect("GET k", "w");
    client.expect("CONFIG SET min-replicas-to-write 0", "+OK");
    client.expect("SET k x", "+OK");
}

#[test]
fn a_replica_that_does_not_read_is_given_up() {
    if !is_carnelian() {
        return;
    }
    let limit = ["--client-output-buffer-limit", "replica 4mb 0 0", "--repl-backlog-size", "16k"];
    let primary = primary(&limit);
    let mut client = primary.connect();
    let (_puppet, _, _) = Puppet::synchronize(&primary);
    wait_until_online(&mut client, 1);
    let value = "v".repeat(1 << 20);
    for _ in 0..40 {
        client.expect(&format!("SET k {value}"), "+OK");
    }
    wait_for("it is gone", || client.info("connected_slaves") == "0");
    wait_for("nothing is kept for it", || {
        client.info("repl_backlog_histlen").parse::<u64>().expect("nothing is in the way") < 4 << 20
    });
    assert!(primary.log().contains("overcoming of output buffer limits"));
}

//! redis-sentinel watches servers of ours: when the primary dies it makes a primary of a replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use carnelian_tests::server::free_port;
use carnelian_tests::{Client, Reply, Server, Transport, is_carnelian, require_or_skip};

use crate::replication_replica::{Waiting, assert_same, catch_up};

const FAILOVERS: usize = 3;

/// Writes counters to whoever is the primary, and remembers which of them both replicas have.
struct Load {
    has_ended: Arc<AtomicBool>,
    primary: Arc<AtomicU16>,
    thread: JoinHandle<Vec<u64>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (has_ended, primary) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU16::new(port)));
        let (ended, target) = (Arc::clone(&has_ended), Arc::clone(&primary));
        let thread = thread::spawn(move || {
            let (mut number, mut kept) = (0, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                let port = target.load(Ordering::Relaxed);
                if let Ok(transport) = Transport::tcp(port) {
                    let mut client = Client::over(transport);
                    while !ended.load(Ordering::Relaxed)
                        && target.load(Ordering::Relaxed) == port
                        && write(&mut client, &mut number, &mut kept).is_some()
                    {
                    }
                }
                sleep(Duration::from_millis(10));
            }
            kept
        });
        Self { has_ended, primary, thread }
    }

    /// The numbers of the writes that have to be there.
    fn end(self) -> Vec<u64> {
        self.has_ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("a thread that does not panic")
    }
}

/// One write, of which it is known whether both replicas have it. None if the connection has ended.
fn write(client: &mut Client, number: &mut u64, kept: &mut Vec<u64>) -> Option<()> {
    *number += 1;
    let requests = format!("SET n:{number} {number}\r\nLPUSH l {number}\r\nWAIT 2 200\r\n");
    client.try_send(requests.as_bytes()).ok()?;
    let is_written = !client.try_read().ok()?.is_error();
    client.try_read().ok()?;
    let waited = client.try_read().ok()?;
    if is_written && !waited.is_error() && 2 <= waited.integer() {
        kept.push(*number);
    }
    Some(())
}

/// The port that the sentinel says the primary has.
fn primary_port(sentinel: &mut Client) -> u16 {
    let reply = sentinel.call("SENTINEL get-master-addr-by-name ours");
    reply.elements()[1].text().parse().expect("a port")
}

/// Whether the sentinel has come to rest with this primary, and sees both others follow it.
fn is_settled(sentinel: &mut Client, servers: &[Server], primary: u16) -> bool {
    let field = |reply: &Reply, name: &str| {
        let elements = reply.elements();
        let pair = elements.chunks(2).find(|pair| pair[0].text() == name);
        pair.map(|pair| pair[1].text()).unwrap_or_default()
    };
    let port = primary.to_string();
    let master = sentinel.call("SENTINEL master ours");
    let replicas = sentinel.call("SENTINEL replicas ours");
    let follows = |server: &Server| {
        replicas.elements().iter().any(|replica| {
            field(replica, "port") == server.port().to_string()
                && field(replica, "flags") == "slave"
                && field(replica, "master-port") == port
                && field(replica, "master-link-status") == "ok"
        })
    };
    field(&master, "flags") == "master"
        && field(&master, "port") == port
        && servers.iter().filter(|it| it.port() != primary).all(follows)
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: never");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_sentinel_fails_over_three_times_in_a_row_under_load() {
    let Some(program) = require_or_skip("redis-sentinel") else { return };
    if !is_carnelian() {
        return;
    }
    let args = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
    let mut servers: Vec<Server> = vec![Server::start(&args)];
    for _ in 0..2 {
        let port = servers[0].port().to_string();
        let follows = ["--replicaof", "127.0.0.1", port.as_str()];
        let replica = Server::starter().args(&args).args(&follows).start();
        replica.connect().eventually_up();
        servers.push(replica);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = free_port();
    // A second is how often the sentinel asks, and tries again to connect: less than three are a failover
    // too many, now and then.
    let config = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor ours 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds ours 3000\nsentinel failover-timeout ours 6000\n\
         sentinel parallel-syncs ours 2\n",
        folder.path().display(),
        servers[0].port()
    );
    let file = folder.path().join("sentinel.conf");
    std::fs::write(&file, config).expect("a writable folder");
    let log = std::fs::File::create(folder.path().join("log")).expect("a writable folder");
    let mut watching = std::process::Command::new(program)
        .arg(&file)
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("it can be started");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the sentinel answers", || Transport::tcp(port).is_ok());
        let mut sentinel = Client::over(Transport::tcp(port).expect("it answered"));
        fail_over(&mut sentinel, &mut servers);
    }));
    let _ = watching.kill();
    let _ = watching.wait();
    if let Err(panic) = result {
        eprintln!("{}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
        for server in &servers {
            eprintln!("--- {}\n{}", server.port(), server.log());
        }
        std::panic::resume_unwind(panic);
    }
}

fn fail_over(sentinel: &mut Client, servers: &mut [Server]) {
    // It asks every ten seconds else.
    sentinel.call("SENTINEL DEBUG info-period 500");
    let load = Load::start(servers[0].port());
    for _ in 0..FAILOVERS {
        let old = primary_port(sentinel);
        eventually("the sentinel knows that all is well", || is_settled(sentinel, servers, old));
        let place = servers.iter().position(|it| it.port() == old).expect("one of ours");
        servers[place].connect().eventually_info("connected_slaves", "2");
        servers[place].kill();
        eventually("another is the primary", || primary_port(sentinel) != old);
        let new = primary_port(sentinel);
        load.primary.store(new, Ordering::Relaxed);
        // The old one comes back without its data, and is told to follow.
        servers[place].start_again().expect("it starts again");
        let place = servers.iter().position(|it| it.port() == new).expect("one of ours");
        eventually("both others follow the new primary", || {
            servers[place].connect().info("connected_slaves") == "2"
        });
        let followers = servers.iter().filter(|it| it.port() != new);
        for follower in followers {
            follower.connect().eventually_info("master_port", &new.to_string());
            follower.connect().eventually_up();
        }
    }
    let kept = load.end();
    assert!(!kept.is_empty());
    let last = primary_port(sentinel);
    let place = servers.iter().position(|it| it.port() == last).expect("one of ours");
    let mut primary = servers[place].connect();
    for number in &kept {
        primary.expect(&format!("GET n:{number}"), &number.to_string());
    }
    for server in servers.iter().filter(|it| it.port() != last) {
        let mut replica = server.connect();
        catch_up(&mut primary, &mut replica);
        assert_same("after the failovers", &mut primary, &mut replica);
    }
}

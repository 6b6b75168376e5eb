//! Links between primary and replica over TLS: of ours with ours, and with a redis-server that has TLS.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::certificates::Authority;
use carnelian_tests::server::Certificates;
use carnelian_tests::{Client, Server, is_carnelian, peers};

use super::replication_replica::{
    Waiting, assert_same, catch_up, eventually_logged, goes_on_after_cuts, write_some,
};

const PRIMARY: [&str; 4] =
    ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "3600"];

/// Programs of others that speak TLS here: not all are built with it.
fn others(certificates: &Certificates) -> Vec<PathBuf> {
    let mut programs: Vec<PathBuf> = Vec::new();
    programs.extend(peers::find("redis-server"));
    programs.extend(peers::find("valkey-server"));
    programs.extend(["/usr/bin/redis-server", "/usr/local/bin/redis-server"].map(PathBuf::from));
    programs.sort();
    programs.dedup();
    programs.retain(|program| {
        let started = program
            .is_file()
            .then(|| Server::starter_of(program).certificates(certificates).try_start().ok());
        let server = started.flatten();
        server.is_some_and(|server| server.try_connect_tls(&server.tls_options()).is_ok())
    });
    programs
}

fn replica_of(primary: &Server, certificates: &Certificates, args: &[&str]) -> Server {
    let port = primary.tls_port().to_string();
    Server::starter()
        .certificates(certificates)
        .args(&["--replicaof", "127.0.0.1", &port, "--tls-replication", "yes"])
        .args(args)
        .start()
}

/// More than fits into any buffer on the way.
fn set_large(client: &mut Client, key: &str) {
    let large = "0123456789abcdef".repeat(512 * 1024);
    client.call_words(&["SET", key, &large]);
}

#[track_caller]
fn follows(name: &str, primary: &Server, replica: &Server) {
    let (mut there, mut here) = (primary.connect(), replica.connect());
    here.eventually_up();
    catch_up(&mut there, &mut here);
    assert_same(name, &mut there, &mut here);
    for round in 2..5 {
        write_some(&mut there, round);
        set_large(&mut there, "large:live");
    }
    there.expect("WAIT 1 20000", ":1");
    catch_up(&mut there, &mut here);
    assert_same(name, &mut there, &mut here);

    goes_on_after_cuts(name, &mut there, &mut here);
}

#[test]
fn a_link_starts_from_the_address_that_is_set() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let certificates = Certificates::made_in(folder.path());
    let primary = Server::starter().certificates(&certificates).args(&PRIMARY).start();
    let mut there = primary.connect();
    let bind = ["--bind-source-addr", "127.0.0.5"];
    let plain = super::replication_replica::replica_of(&primary, &bind);
    let secured = replica_of(&primary, &certificates, &bind);
    secured.connect().eventually_up();
    // Who was cut off is still counted for a moment.
    let mut eventually = |expected: &[&str]| {
        let mut addresses = Vec::new();
        for _ in 0..1000 {
            let info = there.call("INFO replication").text();
            let lines = info.lines().filter_map(|line| line.split_once(":ip="));
            let found = lines.filter_map(|(_, rest)| rest.split(',').next().map(str::to_owned));
            addresses = found.collect();
            if addresses == expected {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("{addresses:?} are not {expected:?}");
    };
    eventually(&["127.0.0.5", "127.0.0.5"]);
    drop(secured);
    eventually(&["127.0.0.5"]);
    let (mut here, mut cut) = (plain.connect(), primary.connect());
    // The last is nobody's.
    for (own, seen) in [("127.0.0.6", "127.0.0.6"), ("192.0.2.1", "127.0.0.1")] {
        here.expect(&format!("CONFIG SET bind-source-addr {own}"), "+OK");
        cut.expect("CLIENT KILL TYPE replica", ":1");
        eventually(&[seen]);
    }
}

#[test]
fn a_replica_follows_over_tls() {
    if !is_carnelian() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let certificates = Certificates::made_in(folder.path());
    let mut primaries: Vec<_> = others(&certificates)
        .iter()
        .map(|program| {
            let starter = Server::starter_of(program).certificates(&certificates).args(&PRIMARY);
            (program.display().to_string(), starter.start())
        })
        .collect();
    let ours = Server::starter().certificates(&certificates).args(&PRIMARY);
    primaries.push(("ours".into(), ours.start()));
    for (name, primary) in primaries {
        let mut there = primary.connect();
        write_some(&mut there, 1);
        set_large(&mut there, "large:before");
        for load in ["disabled", "swapdb"] {
            let replica = replica_of(&primary, &certificates, &["--repl-diskless-load", load]);
            follows(&name, &primary, &replica);
            let mut here = replica.connect();
            if name == "ours" {
                // It is TLS that is spoken on the port for both.
                there.expect("CONFIG SET transit-encryption-mode required", "+OK");
                there.call("CLIENT KILL TYPE replica");
                there.expect("SET last 1", "+OK");
                catch_up(&mut there, &mut here);
                there.expect("CONFIG SET transit-encryption-mode preferred", "+OK");
            }
            // Such a link ends as others do, on both sides.
            here.expect("REPLICAOF NO ONE", "+OK");
            there.eventually_info("connected_slaves", "0");
            here.expect("SET own 1", "+OK");
        }
    }
}

#[test]
fn others_follow_us_over_tls() {
    if !is_carnelian() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let certificates = Certificates::made_in(folder.path());
    for program in others(&certificates) {
        let primary = Server::starter().certificates(&certificates).args(&PRIMARY).start();
        write_some(&mut primary.connect(), 1);
        let port = primary.tls_port().to_string();
        let replica = Server::starter_of(&program)
            .certificates(&certificates)
            .args(&["--replicaof", "127.0.0.1", &port, "--tls-replication", "yes"])
            .start();
        follows(&program.display().to_string(), &primary, &replica);
    }
}

#[test]
fn a_primary_of_an_unknown_authority_is_not_followed() {
    if !is_carnelian() {
        return;
    }
    // Each has made its own.
    let primary = Server::start(&PRIMARY);
    primary.connect().expect("SET new 1", "+OK");
    let replica = Server::start(&["--tls-replication", "yes"]);
    let mut here = replica.connect();
    here.expect("SET old 1", "+OK");
    here.expect(&format!("REPLICAOF 127.0.0.1 {}", primary.port()), "+OK");
    eventually_logged(
        &replica,
        "TLS handshake with MASTER failed: peer's certificate refused: no trusted authority signed it",
    );
    here.expect("GET old", "1");
    assert_eq!(here.info("master_link_status"), "down");
    here.call_words(&["CONFIG", "SET", "tls-ca-cert-file", &primary.ca().display().to_string()]);
    here.eventually_up();
    here.expect("GET new", "1");
    here.expect("GET old", "nil");

    // One that speaks no TLS, and one that says nothing.
    here.expect("CONFIG SET repl-timeout 1", "+OK");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    here.expect(&format!("REPLICAOF 127.0.0.1 {port}"), "+OK");
    let (mut stream, _) = listener.accept().expect("it connects");
    std::io::Write::write_all(&mut stream, b"+PONG\r\n").expect("it listens");
    eventually_logged(&replica, "TLS handshake with MASTER failed: not TLS");
    let silent = listener.accept().expect("it connects again");
    eventually_logged(&replica, "TLS handshake with MASTER failed: the peer sends nothing");
    drop(silent);
    here.eventually("GET new", "1");
}

#[test]
fn a_primary_that_asks_for_a_certificate_gets_ours() {
    if !is_carnelian() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "ca");
    let server = authority.server("server");
    let client = authority.client("replica");
    let certificates = Certificates { authority: authority.certificate, server };
    let mut primaries: Vec<_> = others(&certificates)
        .iter()
        .map(|program| Server::starter_of(program).certificates(&certificates))
        .collect();
    primaries.push(Server::starter().certificates(&certificates));
    for starter in primaries {
        let primary = starter.args(&PRIMARY).args(&["--tls-auth-clients", "yes"]).start();
        primary.connect().expect("SET a 1", "+OK");
        // What it shows to clients is for servers alone.
        let replica = replica_of(&primary, &certificates, &[]);
        let mut here = replica.connect();
        eventually_logged(&replica, "alert");
        assert_eq!(here.info("master_link_status"), "down");
        let (certificate, key) =
            (client.certificate.display().to_string(), client.key.display().to_string());
        let set = ["tls-client-cert-file", &certificate, "tls-client-key-file", &key];
        here.call_words(&[&["CONFIG", "SET"], set.as_slice()].concat());
        here.eventually_up();
        here.expect("GET a", "1");
    }
}

//! Replication between nodes of a cluster: over TLS, with a ticket, and moved from one to the other under load.

use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::nodes::{Node, Nodes};
use carnelian_tests::writer::{Writer, Written};
use carnelian_tests::{Client, is_carnelian};

use super::replication_replica::{Waiting, assert_same, catch_up, eventually_logged, write_some};

pub const ARGS: [&str; 4] =
    ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "3600"];

/// Connections of a node that do nothing.
fn idle(node: &Node, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| node.server.connect()).collect();
    ping(&mut clients);
    clients
}

/// All are still connected.
#[track_caller]
fn ping(clients: &mut [Client]) {
    for client in clients {
        client.expect("PING", "+PONG");
    }
}

fn offset(node: &Node) -> u64 {
    node.server.connect().info("slave_repl_offset").parse().expect("an offset")
}

/// Until the replica's link is as wanted.
#[track_caller]
fn eventually_linked(replica: &Node, how: &str) {
    for _ in 0..2000 {
        let info = replica.server.connect().call("INFO everything").text();
        let is_up = info.contains("master_link_status:up");
        let line = info.lines().find(|line| line.starts_with("internode_primary:"));
        if is_up && line.is_some_and(|line| line.trim_end().ends_with(&format!("link={how}"))) {
            return;
        }
        sleep(Duration::from_millis(5));
    }
    panic!("the link is not {how}:\n{}", replica.server.log());
}

fn set(node: &Node, words: &[&str]) {
    let reply = node.server.connect().call_words(&[&["CONFIG", "SET"], words].concat());
    assert_eq!(reply.to_string(), "+OK", "{words:?}");
}

#[test]
fn a_database_is_followed_over_tls_if_it_is_encrypted_and_with_a_ticket_if_not() {
    if !is_carnelian() {
        return;
    }
    for (setting, how) in [("yes", "tls"), ("no", "plain")] {
        let args = [&ARGS[..], &["--data-internode-encryption", setting]].concat();
        let nodes = Nodes::start(2, &args);
        let [primary, replica] = &nodes.nodes[..] else { unreachable!("two were started") };
        let mut there = primary.server.connect();
        write_some(&mut there, 1);
        let mut here = nodes.follow(1, 0);
        here.eventually_up();
        catch_up(&mut there, &mut here);
        eventually_linked(replica, how);
        for round in 2..4 {
            write_some(&mut there, round);
        }
        let large = "0123456789abcdef".repeat(256 * 1024);
        there.call_words(&["SET", "large", &large]);
        there.expect("WAIT 1 20000", ":1");
        catch_up(&mut there, &mut here);
        assert_same(how, &mut there, &mut here);
        assert_eq!(there.info("internode_peer0"), format!("node=2,link={how}"));
        assert_eq!(there.info("internode_incoming_plain"), u8::from(how == "plain").to_string());
        assert_eq!(there.info("internode_incoming_data"), u8::from(how == "tls").to_string());

        // It takes no writes, and becomes a primary when it is told to.
        here.expect("SET own 1", "-READONLY...");
        here.expect("CONFIG SET replicaof-node \"no one\"", "+OK");
        here.expect("SET own 1", "+OK");
        there.eventually_info("connected_slaves", "0");
        assert_eq!(there.info("sync_full"), "1");
    }
}

#[test]
fn a_node_that_is_not_the_one_meant_is_not_followed() {
    if !is_carnelian() {
        return;
    }
    let nodes = Nodes::start(2, &ARGS);
    let [primary, replica] = &nodes.nodes[..] else { unreachable!("two were started") };
    primary.server.connect().expect("SET new 1", "+OK");
    for setting in ["yes", "no"] {
        set(replica, &["data-internode-encryption", setting]);
        let mut here = replica.server.connect();
        here.expect("SET old 1", "+OK");
        set(replica, &["replicaof-node", &format!("7 127.0.0.1 {}", primary.port)]);
        eventually_logged(&replica.server, "node 7 at 127.0.0.1");
        eventually_logged(&primary.server, "has reached node 1");
        assert_eq!(here.info("master_link_status"), "down");
        here.expect("GET old", "1");
        here.expect("GET new", "nil");
        here.expect("REPLICAOF NO ONE", "+OK");
        here.expect("CONFIG GET replicaof-node", "{replicaof-node \"\"}");
    }
    // What is no target is told.
    let mut here = replica.server.connect();
    for bad in ["0 host", "x host", "1", "1 host 0", "1 host 1 1"] {
        let reply = here.call_words(&["CONFIG", "SET", "replicaof-node", bad]).to_string();
        assert!(reply.starts_with("-ERR CONFIG SET failed"), "{bad}: {reply}");
    }
}

#[test]
fn a_change_of_the_setting_moves_links_and_drops_clients_unless_it_is_graceful() {
    if !is_carnelian() {
        return;
    }
    let nodes = Nodes::start(3, &ARGS);
    let [primary, replicas @ ..] = &nodes.nodes[..] else { unreachable!("three were started") };
    for place in [1, 2] {
        nodes.follow(place, 0).eventually_up();
        eventually_linked(&nodes.nodes[place], "plain");
    }
    let full = primary.server.connect().info("sync_full");
    let writers = ["a", "b"].map(|name| Writer::start(primary.server.port(), name));
    let mut offsets = [0, 0];
    let mut closed = [0, 0];
    for round in 0..6 {
        let on = if round % 2 == 0 { "yes" } else { "no" };
        let how = if round % 2 == 0 { "tls" } else { "plain" };
        let graceful = if round % 3 == 2 { "yes" } else { "no" };
        writers.iter().for_each(Writer::go_on);
        let mut clients = idle(primary, 5);
        let mut readers = idle(&replicas[0], 5);
        let before = [0, 1].map(|place| writers[place].closed());
        // Either end may hear of it first.
        let order: &[usize] = if round % 2 == 0 { &[0, 1, 2] } else { &[2, 1, 0] };
        for &place in order {
            set(
                &nodes.nodes[place],
                &["data-internode-encryption-graceful", graceful, "data-internode-encryption", on],
            );
        }
        if graceful == "yes" {
            ping(&mut clients);
            ping(&mut readers);
        } else {
            clients.iter_mut().chain(&mut readers).for_each(Client::expect_closed);
        }
        for (replica, last) in replicas.iter().zip(&mut offsets) {
            eventually_linked(replica, how);
            let now = offset(replica);
            assert!(*last <= now, "the offset went back from {last} to {now}");
            *last = now;
        }
        writers.iter().for_each(Writer::go_on);
        for (place, writer) in writers.iter().enumerate() {
            let dropped = writer.closed() - before[place];
            assert_eq!(dropped, u64::from(graceful == "no"), "in round {round}");
            closed[place] += dropped;
        }
        // What it is already changes nothing.
        let mut client = primary.server.connect();
        client.expect(&format!("CONFIG SET data-internode-encryption {on}"), "+OK");
        client.expect("PING", "+PONG");
    }
    let written = writers.map(Writer::stop);
    let mut there = primary.server.connect();
    assert_eq!(there.info("sync_full"), full, "{}", primary.server.log());
    assert_eq!(there.info("internode_encryption_switches"), "6");
    for replica in replicas {
        let mut here = replica.server.connect();
        catch_up(&mut there, &mut here);
        for (place, written) in written.iter().enumerate() {
            assert_eq!(written.closed, closed[place]);
            written.check(&mut here).expect("it is all there");
        }
    }
}

#[test]
fn links_are_made_anew_with_new_certificates() {
    if !is_carnelian() {
        return;
    }
    let args = [&ARGS[..], &["--data-internode-encryption", "yes"]].concat();
    let nodes = Nodes::start(3, &args);
    let [primary, replicas @ ..] = &nodes.nodes[..] else { unreachable!("three were started") };
    for place in [1, 2] {
        nodes.follow(place, 0).eventually_up();
    }
    let mut there = primary.server.connect();
    let full = there.info("sync_full");
    let writer = Writer::start(primary.server.port(), "a");
    let mut clients = idle(primary, 3);
    for round in 0..2 {
        for place in 0..nodes.nodes.len() {
            writer.go_on();
            nodes.renew(place);
            let renewed = if place == 0 { 2 * (round + 1) } else { round + 1 };
            let mut client = nodes.nodes[place].server.connect();
            client.eventually_info("internode_links_renewed", &renewed.to_string());
            let serial = client.info("internode_data_cert_serial");
            let info = client.call("INFO internode").text();
            let links: Vec<&str> =
                info.lines().filter(|line| line.contains("plane=data")).collect();
            assert_eq!(links.len(), if place == 0 { 2 } else { 1 }, "{info}");
            assert!(links.iter().all(|line| line.contains(&format!("own_serial={serial},"))));
        }
    }
    let written: Written = writer.stop();
    assert_eq!(written.closed, 0);
    ping(&mut clients);
    assert_eq!(there.info("sync_full"), full);
    for replica in replicas {
        let mut here = replica.server.connect();
        catch_up(&mut there, &mut here);
        written.check(&mut here).expect("it is all there");
    }
}

#[test]
fn a_replica_goes_on_after_a_restart_and_follows_along_a_chain() {
    if !is_carnelian() {
        return;
    }
    let args = [&ARGS[..], &["--data-internode-encryption", "yes"]].concat();
    let mut nodes = Nodes::start(3, &args);
    nodes.follow(1, 0).eventually_up();
    nodes.follow(2, 1).eventually_up();
    let mut there = nodes.nodes[0].server.connect();
    write_some(&mut there, 1);
    let mut last = nodes.nodes[2].server.connect();
    catch_up(&mut there, &mut last);
    assert_same("a chain", &mut there, &mut last);

    // The primary comes back with its certificates, and without its data.
    nodes.nodes[0].server.restart();
    let mut there = nodes.nodes[0].server.connect();
    assert_eq!(there.info("internode_enabled"), "1");
    write_some(&mut there, 2);
    nodes.nodes[1].server.connect().eventually_up();
    catch_up(&mut there, &mut last);
    assert_same("after a restart", &mut there, &mut last);
}

//! What is refused at the ports for other nodes, with a reason in the log and a figure of its own; and what a node
//! that is let in may do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use carnelian_tests::nodes::{Node, Nodes, cluster_tool};
use carnelian_tests::server::Signal;
use carnelian_tests::{Client, Transport, is_carnelian};

use super::internode::ARGS;
use super::replication_replica::{Waiting, eventually_logged};

const PATIENCE: Duration = Duration::from_secs(30);

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit above zero");
    stream
}

/// Sends bytes and expects to be closed without an answer.
#[track_caller]
fn closed_after(port: u16, bytes: &[u8]) {
    let mut stream = connect(port);
    // It may have been closed before all was sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer.escape_ascii().to_string(), "", "after {}", bytes.escape_ascii());
}

/// A field of INFO has grown to this.
#[track_caller]
fn counted(node: &Node, field: &str, count: u64) {
    node.server.connect().eventually_info(field, &count.to_string());
}

/// What the TLS port sends to `openssl s_client` with these arguments and this input, until it ends or has sent
/// what is waited for.
fn s_client(
    node: &Node,
    cluster: &str,
    arguments: &[&str],
    input: &[u8],
    is_all: impl Fn(&str) -> bool,
) -> String {
    let address = format!("127.0.0.1:{}", node.port);
    let name = format!("node-{}.{cluster}.carnelian.internal", node.uid);
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-servername", &name, "-quiet"]);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = child.stdout.take().expect("a pipe");
    // It may have been refused before it has read this.
    let _ = stdin.write_all(input);
    let (mut sent, mut chunk) = (String::new(), [0; 4096]);
    while !is_all(&sent) {
        match stdout.read(&mut chunk) {
            Ok(count @ 1..) => sent.push_str(&String::from_utf8_lossy(&chunk[..count])),
            _ => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    sent
}

fn has_openssl() -> bool {
    Command::new("openssl").arg("version").output().is_ok()
}

/// A ticket for database 1, as the node whose folder it is gets it.
fn ticket(node: &Node, cluster: &str, folder: &Path) -> String {
    let own = pem(folder, "control");
    let link = ["-alpn", "carnelian-control/1", "-cert", &own, "-key", &own];
    let mut frames = Vec::new();
    for message in ["tickets/1", "database 1"] {
        frames.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frames.extend_from_slice(message.as_bytes());
    }
    let digits = |sent: &str| {
        let (_, answer) = sent.split_once("ticket ")?;
        answer.split_once(' ').map(|(_, digits)| digits.to_owned()).filter(|it| it.len() == 64)
    };
    let sent = s_client(node, cluster, &link, &frames, |sent| digits(sent).is_some());
    digits(&sent).unwrap_or_else(|| panic!("no ticket in {sent:?}"))
}

/// Shows a ticket: the connection, if it is let in.
fn show(node: &Node, database: u32, uid: u32, ticket: &str) -> Option<Client> {
    let transport = Transport::tcp(node.plain_port).expect("the port is open");
    let mut client = Client::over(transport);
    let _ = client.try_send(format!("TICKET 1 {database} {uid} {ticket}\r\n").as_bytes());
    let answer = client.try_read().ok()?;
    assert_eq!(answer.to_string(), "+OK");
    Some(client)
}

fn pem(folder: &Path, plane: &str) -> String {
    folder.join(format!("internode/{plane}.pem")).display().to_string()
}

#[test]
fn nothing_but_tls_of_the_cluster_gets_through_the_tls_port() {
    if !is_carnelian() {
        return;
    }
    let nodes = Nodes::start(2, &ARGS);
    let [primary, other] = &nodes.nodes[..] else { unreachable!("two were started") };
    let plaintext: [&[u8]; 4] =
        [b"PING\r\n", b"*1\r\n$4\r\nPING\r\n", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096]];
    for bytes in plaintext {
        closed_after(primary.port, bytes);
    }
    counted(primary, "internode_incoming_refused_not_tls", plaintext.len() as u64);
    eventually_logged(&primary.server, "not TLS but RESP; this port takes nothing else");
    // Half a handshake.
    let mut half = connect(primary.port);
    half.write_all(&[0x16, 3, 1, 0, 200, 1, 0]).expect("it is taken");
    drop(half);
    counted(primary, "internode_incoming_refused_lost", 1);

    if !has_openssl() {
        return;
    }
    let stranger = tempfile::tempdir().expect("a temporary folder");
    cluster_tool(&["init", "--node", "2", "--dir", &stranger.path().display().to_string()]);
    let (own, foreign) = (pem(other.server.folder(), "data"), pem(stranger.path(), "data"));
    let (data, control) = ("carnelian-data/1", "carnelian-control/1");
    let cluster = &nodes.cluster;
    let hostile: [(&str, &[&str]); 6] = [
        ("no_certificate", &["-alpn", data]),
        ("authority", &["-alpn", data, "-cert", &foreign, "-key", &foreign]),
        ("plane", &["-alpn", control, "-cert", &own, "-key", &own]),
        ("greeting", &["-cert", &own, "-key", &own]),
        ("greeting", &["-alpn", "http/1.1", "-cert", &own, "-key", &own]),
        ("version", &["-alpn", data, "-cert", &own, "-key", &own, "-tls1_1"]),
    ];
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for (reason, arguments) in hostile {
        let sent = s_client(primary, cluster, arguments, b"", |sent| !sent.is_empty());
        assert_eq!(sent, "", "{reason}");
        // This openssl may know no TLS 1.1 at all, and then sends nothing.
        if reason != "version" {
            *counts.entry(reason).or_default() += 1;
        }
    }
    for (reason, count) in counts {
        counted(primary, &format!("internode_incoming_refused_{reason}"), count);
    }
    let log = primary.server.log();
    for told in [
        "showed no certificate",
        "which is no authority of this cluster",
        "its certificate is for the data plane, not for the control plane",
        "does not say which plane it wants",
        "'http/1.1', which is no plane",
    ] {
        assert!(log.contains(told), "{told}\n{log}");
    }
    // The same with nothing wrong.
    let good = ["-alpn", data, "-cert", &own, "-key", &own];
    let sent = s_client(primary, cluster, &good, b"FOLLOW 1 1 2\n", |sent| sent.contains("OK"));
    assert_eq!(sent, "\u{6}+OK\r\n");
}

#[test]
fn who_gets_in_over_tls_may_replicate_and_nothing_else() {
    if !is_carnelian() || !has_openssl() {
        return;
    }
    let args = [&ARGS[..], &["--data-internode-encryption", "yes"]].concat();
    let nodes = Nodes::start(2, &args);
    let [primary, other] = &nodes.nodes[..] else { unreachable!("two were started") };
    let own = pem(other.server.folder(), "data");
    let link = ["-alpn", "carnelian-data/1", "-cert", &own, "-key", &own];
    let say = |input: &str, is_all: &dyn Fn(&str) -> bool| {
        s_client(primary, &nodes.cluster, &link, input.as_bytes(), is_all)
    };
    for (greeting, reason) in [
        ("FOLLOW 1 1 3\n", "not_itself"),
        ("FOLLOW 1 77 2\n", "no_database"),
        ("PSYNC ? -1\n", "garbage"),
        (&"x".repeat(1000), "garbage"),
    ] {
        let field = format!("internode_tls_refused_{reason}");
        let before = figure(primary, &field);
        // Let in by its certificate, and no further.
        assert_eq!(say(greeting, &|_| false), "\u{6}");
        counted(primary, &field, before + 1);
    }
    let commands = "FOLLOW 1 1 2\nPING\nGET a\nAUTH x\nHELLO 3\nMULTI\nCONFIG GET *\nSYNC\nRESET\n";
    let sent = say(commands, &|sent| sent.matches("replication only").count() == 7);
    assert!(sent.contains("+OK\r\n+PONG\r\n-NOPERM links between nodes"), "{sent}");
    let mut client = primary.server.connect();
    client.eventually_info("connected_slaves", "0");
    let sent = say("FOLLOW 1 1 2\nPSYNC ? -1\n", &|sent| sent.contains("REDIS0"));
    assert!(sent.contains("+FULLRESYNC"), "{sent}");
}

#[test]
fn the_plain_port_takes_tickets_and_nothing_else() {
    if !is_carnelian() {
        return;
    }
    let nodes = Nodes::start(2, &ARGS);
    let [primary, other] = &nodes.nodes[..] else { unreachable!("two were started") };
    let refused = |reason: &str| figure(primary, &format!("internode_plain_refused_{reason}"));
    let unknown = format!("TICKET 1 1 2 {}\r\n", "5a".repeat(32));
    for (greeting, reason) in [
        ("FOLLOW 1 1 2\r\n", "no_ticket"),
        ("PING\r\n", "garbage"),
        ("*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n", "garbage"),
        (&"y".repeat(4096), "garbage"),
        ("TICKET 1 1 2 00\r\n", "garbage"),
        (&unknown, "ticket_unknown"),
    ] {
        let before = refused(reason);
        closed_after(primary.plain_port, greeting.as_bytes());
        counted(primary, &format!("internode_plain_refused_{reason}"), before + 1);
    }
    eventually_logged(&primary.server, "its ticket was never handed out, or long ago");
    drop(connect(primary.plain_port));
    counted(primary, "internode_plain_refused_lost", 1);
    if !has_openssl() {
        return;
    }
    let folder = other.server.folder();
    let new = || ticket(primary, &nodes.cluster, folder);
    let good = new();
    let mut client = show(primary, 1, 2, &good).expect("it is let in");
    client.expect("PING", "+PONG");
    client.expect("GET a", "-NOPERM links between nodes...");
    assert!(show(primary, 1, 2, &good).is_none());
    counted(primary, "internode_plain_refused_ticket_used", 1);
    // Another node's, for another database: and used up by that.
    let taken = new();
    assert!(show(primary, 1, 3, &taken).is_none());
    counted(primary, "internode_plain_refused_ticket_foreign", 1);
    assert!(show(primary, 1, 2, &taken).is_none());
    assert!(show(primary, 2, 2, &new()).is_none());
    counted(primary, "internode_plain_refused_no_database", 1);
    // With encryption on it lets nobody in, and who is there goes.
    let left = new();
    primary.server.connect().expect("CONFIG SET data-internode-encryption yes", "+OK");
    client.expect_closed();
    assert!(show(primary, 1, 2, &left).is_none());
    counted(primary, "internode_plain_refused_encrypted", 1);
    primary.server.connect().expect("CONFIG SET data-internode-encryption no", "+OK");
    assert!(show(primary, 1, 2, &left).is_none());
    counted(primary, "internode_plain_refused_ticket_used", 3);
}

#[test]
fn a_node_that_is_revoked_is_cut_off_and_does_not_come_back() {
    if !is_carnelian() {
        return;
    }
    let args = [&ARGS[..], &["--data-internode-encryption", "yes"]].concat();
    let nodes = Nodes::start(3, &args);
    let [primary, one, other] = &nodes.nodes[..] else { unreachable!("three were started") };
    for place in [1, 2] {
        nodes.follow(place, 0).eventually_up();
    }
    let revoked = primary.server.folder().join("internode/revoked");
    std::fs::write(revoked, "node 2\n").expect("a folder of ours");
    primary.server.signal(Signal::HUP);
    counted(primary, "internode_dropped_revoked", 1);
    one.server.connect().eventually_info("master_link_status", "down");
    eventually_logged(&primary.server, "node 2 has been revoked");
    let mut there = primary.server.connect();
    assert_eq!(there.info("connected_slaves"), "1");
    there.expect("SET after 1", "+OK");
    there.expect("WAIT 1 10000", ":1");
    other.server.connect().expect("GET after", "1");
    one.server.connect().expect("GET after", "nil");
}

#[test]
fn those_who_say_nothing_are_ended_and_floods_are_bounded() {
    if !is_carnelian() {
        return;
    }
    let nodes = Nodes::start(1, &ARGS);
    let [primary] = &nodes.nodes[..] else { unreachable!("one was started") };
    // More than may have yet to say what they are for.
    let flood = |port: u16| (0..300).map(|_| connect(port)).collect::<Vec<_>>();
    let (tls, plain) = (flood(primary.port), flood(primary.plain_port));
    counted(primary, "internode_incoming_refused_busy", 300 - 256);
    counted(primary, "internode_plain_refused_busy", 300 - 256);
    // Clients do not notice.
    primary.server.connect().expect("PING", "+PONG");
    counted(primary, "internode_incoming_refused_slow", 256);
    counted(primary, "internode_plain_refused_slow", 256);
    let log = primary.server.log();
    let lines = log.lines().filter(|line| line.contains("Refused a link")).count();
    assert!(lines < 300, "{lines} lines for 600 connections");
    assert!(log.contains("more before it"), "{log}");
    drop((tls, plain));
}

fn figure(node: &Node, field: &str) -> u64 {
    node.server.connect().info(field).parse().expect("a number")
}

//! What must not get through before there is a certificate to look at, and handshakes that go wrong
//! in other ways. Most rows are the very bytes that go over the wire.

use std::time::Duration;

use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::hello::{self, Progress};
use super::forge::{Client, Server, Shown, World, world};
use super::*;
use greetings::{Greeting, Names, greeting, record, rows};

#[path = "../../../../tests/harness/greetings.rs"]
mod greetings;

/// What is asked for: this node, or others.
fn asked() -> Names {
    let name = |world: &World, uid| world.identity(uid, Plane::Data).server_name();
    Names {
        node: name(world(), 1),
        other_node: name(world(), 2),
        other_cluster: name(&World::new(), 1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_greetings_are_refused_and_told_why() {
    let mut listening = Listening::start(world().node(1)).await;
    let rows = rows(&asked());
    assert!(60 <= rows.len(), "{}", rows.len());
    for row in &rows {
        let mut socket = TcpStream::connect(listening.address).await.unwrap();
        // The far end may have had enough before it has all.
        let _ = socket.write_all(&row.sent).await;
        let refusal = listening.result().await.expect_err(row.name).to_string();
        assert!(refusal.contains(row.expected), "{}: {refusal}", row.name);
        assert!(refusal.is_ascii(), "{}: {refusal}", row.name);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        match (row.expected, row.alert) {
            ("", _) => assert!(answer.starts_with(&[0x15, 3]), "{}: {answer:?}", row.name),
            (_, 0) => assert!(answer.is_empty(), "{}: {answer:?}", row.name),
            (_, alert) => assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, alert], "{}", row.name),
        }
    }
    let counters = listening.node.counters();
    assert_eq!(counters.refused_in_all(Direction::Incoming), rows.len() as u64);
    for (kind, count) in [(RefusalKind::NotTls, 12), (RefusalKind::Resumption, 4)] {
        assert_eq!(counters.refused(Direction::Incoming, kind), count, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_greeting_of_the_table_is_good_but_for_what_its_rows_change() {
    let mut listening = Listening::start(world().node(1)).await;
    for versions in [Some(vec![0x0304]), None] {
        let mut socket = TcpStream::connect(listening.address).await.unwrap();
        socket.write_all(&greeting(&asked(), |g| g.versions = versions)).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), 0x16, "a server's greeting");
        // In the middle of a handshake there may still come anything.
        socket.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
        let refusal = listening.result().await.unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::Malformed, "{refusal}");

        let mut socket = TcpStream::connect(listening.address).await.unwrap();
        socket.write_all(&Greeting::good(&asked()).bytes()).await.unwrap();
        socket.read_u8().await.unwrap();
        drop(socket);
        assert_eq!(listening.result().await.unwrap_err().kind(), RefusalKind::Lost);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_bounded_wherever_it_begins() {
    let limit = Duration::from_millis(300);
    let impatient = Settings { handshake_limit: limit, ..Settings::default() };
    let mut listening = Listening::start(world().node_with(1, impatient.clone())).await;
    let whole = Greeting::good(&asked()).bytes();
    let half = &whole[..whole.len() / 2];
    for sent in [&b""[..], &whole[..1], &whole[..5], half, &whole[..whole.len() - 1], &whole] {
        let mut socket = TcpStream::connect(listening.address).await.unwrap();
        socket.write_all(sent).await.unwrap();
        let refusal = listening.result().await.unwrap_err();
        assert_eq!(refusal, Refusal::TooSlow { limit });
        assert_eq!(refusal.to_string(), "the handshake was not finished within 300ms");
    }
    // A byte now and then does not help.
    let mut socket = TcpStream::connect(listening.address).await.unwrap();
    let dripping = tokio::spawn(async move {
        for byte in whole {
            if socket.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(listening.result().await.unwrap_err(), Refusal::TooSlow { limit });
    dripping.abort();
    // The end that connects is no more patient.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let connector = Connector::new(world().node_with(1, impatient));
    let refusal = connector.connect(address, world().uid(2), Plane::Data).await.unwrap_err();
    assert_eq!(refusal, Refusal::TooSlow { limit });
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_leave_are_not_waited_for() {
    let mut listening = Listening::start(world().node(1)).await;
    for sent in [&b""[..], &Greeting::good(&asked()).bytes()[..40]] {
        let mut socket = TcpStream::connect(listening.address).await.unwrap();
        socket.write_all(sent).await.unwrap();
        drop(socket);
        assert_eq!(listening.result().await.unwrap_err(), Refusal::Ended);
    }
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    drop(silent);
    let connector = Connector::new(world().node(1));
    let refusal = connector.connect(address, world().uid(2), Plane::Data).await.unwrap_err();
    assert_eq!(refusal.to_string(), "cannot be reached: connection refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_handshakes_at_a_time_than_allowed() {
    let settings = Settings { handshakes_max: 2, ..super::settings(Versions::Both) };
    let mut listening = Listening::start(world().node_with(1, settings)).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(listening.address).await.unwrap();
        socket.write_all(&[0x16]).await.unwrap();
        idle.push(socket);
    }
    while listening.node.handshakes().available_permits() != 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while !Client::of_node(2, Plane::Data).connect(listening.address).await {
        let refusal = listening.result().await.unwrap_err();
        match refusal {
            Refusal::Busy { limit } => {
                assert_eq!(limit, 2);
                idle.pop();
            }
            Refusal::Ended => {}
            other => panic!("{other}"),
        }
    }
    assert!(1 <= listening.node.counters().refused(Direction::Incoming, RefusalKind::Busy));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_wrong_kind_are_refused() {
    let mut listening = Listening::start(world().node(1)).await;
    let good = || Client::of_node(2, Plane::Data);
    let chacha = vec![
        suite::TLS13_CHACHA20_POLY1305_SHA256,
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let cases = [
        ("no certificate", Client { shown: None, ..good() }, "showed no certificate"),
        (
            "an empty chain",
            Client { shown: Some(Shown::new(vec![])), ..good() },
            "showed no certificate",
        ),
        ("other suites", Client { suites: chacha, ..good() }, "none of the cipher suites"),
        ("no name", Client { name: None, ..good() }, "no server name"),
        (
            "a control certificate on the data plane",
            Client { protocols: good().protocols, ..Client::of_node(2, Plane::Control) },
            "for the control plane, not for the data plane",
        ),
        (
            "a data certificate on the control plane",
            Client { protocols: vec![Plane::Control.alpn().to_vec()], ..good() },
            "for the data plane, not for the control plane",
        ),
    ];
    for (name, client, expected) in cases {
        for versions in [Versions::Tls12, Versions::Tls13] {
            let client = Client { versions: versions.all().to_vec(), ..client.clone() };
            // A client with suites of one version only.
            let mut client = client;
            client.suites.retain(|s| s.version() == client.versions[0]);
            assert!(!client.connect(listening.address).await, "{name}");
            let refusal = listening.result().await.expect_err(name).to_string();
            assert!(refusal.contains(expected), "{name}: {refusal}");
        }
    }
    assert!(good().connect(listening.address).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_the_wrong_kind_are_refused() {
    let connector = Connector::new(world().node(1));
    let good = || Server::showing(Shown::new(vec![world().forged(|_| {})]));
    let chacha = vec![
        suite::TLS13_CHACHA20_POLY1305_SHA256,
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    for (name, server, expected) in [
        ("other suites", Server { suites: chacha, ..good() }, "nothing in common"),
        ("no ALPN", Server { protocols: vec![], ..good() }, "(no ALPN)"),
        (
            "another protocol",
            Server { protocols: vec![b"h2".to_vec()], ..good() },
            "does not serve this plane",
        ),
    ] {
        let address = server.start().await;
        let result = connector.connect(address, world().uid(2), Plane::Data).await;
        let refusal = result.expect_err(name).to_string();
        assert!(refusal.contains(expected), "{name}: {refusal}");
    }
    // Servers of something else altogether.
    for (answer, expected) in [
        (&b"-ERR unknown command\r\n"[..], "damaged TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "damaged TLS"),
        (&[0x15, 3, 3, 0, 2, 2, 70], "none of our versions of TLS"),
        (&[0x16, 3, 3, 0xff, 0xff, 2, 0, 0], "damaged TLS"),
        (b"", "ended in the middle"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut greeting = [0; 1024];
            let _ = socket.read(&mut greeting).await;
            let _ = socket.write_all(answer).await;
            let _ = socket.shutdown().await;
            while let Ok(1..) = socket.read(&mut greeting).await {}
        });
        let result = connector.connect(address, world().uid(2), Plane::Data).await;
        let refusal = result.unwrap_err().to_string();
        assert!(refusal.contains(expected), "{answer:?}: {refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reached_by_mistake_says_so() {
    let mut listening = Listening::start(world().node(1)).await;
    let connector = Connector::new(world().node(3));
    let refusal = connector.connect(listening.address, world().uid(2), Plane::Data).await;
    assert_eq!(refusal.unwrap_err().to_string(), "the other end refused: it is another node");
    let refusal = listening.result().await.unwrap_err();
    assert!(matches!(refusal, Refusal::MeantForAnother { .. }), "{refusal}");
    // Both ends have counted it.
    assert_eq!(listening.node.counters().refused(Direction::Incoming, RefusalKind::Greeting), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_never_offered_for_resuming() {
    let mut listening = Listening::start(world().node(1)).await;
    for versions in [Versions::Tls12, Versions::Tls13] {
        let client =
            Client { versions: versions.all().to_vec(), ..Client::of_node(2, Plane::Data) };
        // One configuration: it would remember whatever it is given.
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client.config()));
        for _ in 0..3 {
            let name = client.name.clone().unwrap().try_into().unwrap();
            let socket = TcpStream::connect(listening.address).await.unwrap();
            let mut stream = connector.connect(name, socket).await.unwrap();
            stream.read_u8().await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
            assert_eq!(session.tls13_tickets_received(), 0);
            listening.result().await.unwrap();
        }
    }
}

#[test]
fn no_bytes_make_the_reader_of_greetings_stumble() {
    let whole = Greeting::good(&asked()).bytes();
    assert!(matches!(hello::read(&whole), Ok(Progress::Whole(_))));
    for length in 0..whole.len() {
        assert!(matches!(hello::read(&whole[..length]), Ok(Progress::Unfinished)), "{length}");
    }
    let mut refused = 0;
    for place in 0..whole.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[place] ^= change;
            refused += usize::from(hello::read(&changed).is_err());
        }
    }
    assert!(20 < refused);
    // In pieces it is the same greeting.
    let message = Greeting::good(&asked()).message();
    let pieces: Vec<u8> = message.chunks(7).flat_map(|piece| record(0x16, piece)).collect();
    assert!(matches!(hello::read(&pieces), Ok(Progress::Whole(_))));
}

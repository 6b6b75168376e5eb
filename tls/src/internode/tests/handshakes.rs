//! What must not get through before there is a certificate to look at, and handshakes that go wrong
//! in other ways. Most rows are the very bytes that go over the wire.

use std::time::Duration;

use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::hello::{self, Progress};
use super::forge::{Client, Server, Shown, World, world};
use super::*;

/// A greeting to be bent. As it comes it is good, as far as a greeting can be.
#[derive(Clone)]
struct Greeting {
    version: u16,
    session_id: Vec<u8>,
    suites: Vec<u16>,
    versions: Option<Vec<u16>>,
    protocols: Option<Vec<Vec<u8>>>,
    name: Option<Vec<u8>>,
    /// Further extensions.
    more: Vec<(u16, Vec<u8>)>,
}

impl Greeting {
    fn good() -> Self {
        Self {
            version: 0x0303,
            session_id: Vec::new(),
            suites: vec![0x1301, 0x1302, 0xc030, 0xc02f, 0x00ff],
            versions: Some(vec![0x0304, 0x0303]),
            protocols: Some(vec![Plane::Data.alpn().to_vec()]),
            name: Some(world().identity(1, Plane::Data).server_name().into_bytes()),
            more: vec![(0xff01, vec![0])],
        }
    }

    /// The message without a record around it.
    fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([0x55; 32]);
        body.extend(short(&self.session_id));
        body.extend(long(&words(&self.suites)));
        body.extend([1, 0]);
        let mut extensions = Vec::new();
        let mut add = |kind: u16, body: &[u8]| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(long(body));
        };
        if let Some(name) = &self.name {
            add(0, &long(&[&[0], &long(name)[..]].concat()));
        }
        if let Some(protocols) = &self.protocols {
            add(16, &long(&protocols.iter().flat_map(|one| short(one)).collect::<Vec<_>>()));
        }
        if let Some(versions) = &self.versions {
            add(43, &short(&words(versions)));
        }
        add(10, &long(&words(&[0x001d, 0x0017]))); // groups
        add(13, &long(&words(&[0x0804, 0x0401]))); // signatures
        add(23, &[]); // extended master secret
        add(51, &long(&[&words(&[0x001d])[..], &long(&[9; 32])].concat())); // key share
        for (kind, body) in &self.more {
            add(*kind, body);
        }
        if !extensions.is_empty() {
            body.extend(long(&extensions));
        }
        let mut message = vec![1, 0];
        message.extend(long(&body));
        message
    }

    fn bytes(&self) -> Vec<u8> {
        record(0x16, &self.message())
    }
}

fn words(all: &[u16]) -> Vec<u8> {
    all.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &long(body)].concat()
}

/// The same greeting with something changed.
fn greeting(change: impl FnOnce(&mut Greeting)) -> Vec<u8> {
    let mut greeting = Greeting::good();
    change(&mut greeting);
    greeting.bytes()
}

struct Row {
    name: &'static str,
    sent: Vec<u8>,
    expected: &'static str,
    /// The last byte of the alert, 0 where nothing is answered.
    alert: u8,
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name, sent: Vec<u8>, expected, alert| {
        rows.push(Row { name, sent, expected, alert });
    };

    // Not TLS.
    add("RESP", b"*1\r\n$4\r\nPING\r\n".to_vec(), "not TLS but RESP", 0);
    add("an inline command", b"PING\r\n".to_vec(), "not TLS but text", 0);
    add("a replica in the clear", b"PSYNC ? -1\r\n".to_vec(), "not TLS but text", 0);
    add("HTTP GET", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "not TLS but an HTTP request", 0);
    add("HTTP POST", b"POST /v1/bdbs HTTP/1.1\r\n\r\n".to_vec(), "not TLS but an HTTP request", 0);
    add("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "not TLS but an HTTP request", 0);
    add("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "not TLS but text", 0);
    add("zeros", vec![0; 100], "not TLS but something unknown", 0);
    add("garbage", (0..200).map(|place| (place * 151 + 201) as u8).collect(), "not TLS but something unknown", 0);
    add("a handshake of no version", vec![0x16, 9, 9, 0, 4, 1, 0, 0, 0], "not TLS but something unknown", 0);
    add("application data first", record(0x17, b"hello"), "begins no handshake", 0);
    add("an alert first", record(0x15, &[2, 40]), "begins no handshake", 0);
    add("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], "offers SSLv2 at best", 70);

    // Versions.
    let old = |version| greeting(|g| {
        g.version = version;
        g.versions = None;
        g.more.clear();
    });
    add("SSL 3", old(0x0300), "offers SSL 3 at best", 70);
    add("TLS 1.0", old(0x0301), "offers TLS 1.0 at best", 70);
    add("TLS 1.1", old(0x0302), "offers TLS 1.1 at best", 70);
    add("TLS 1.1 in the new way", greeting(|g| g.versions = Some(vec![0x0302, 0x0301])), "offers TLS 1.1 at best", 70);
    add("a draft of TLS 1.3", greeting(|g| g.versions = Some(vec![0x7f1c])), "no known version", 70);
    add("no version", greeting(|g| g.versions = Some(vec![])), "no known version", 70);
    add("a version of one byte", greeting(|g| { g.versions = None; g.more.push((43, vec![1, 3])); }), "damaged TLS", 50);

    // Suites.
    let suites = |suites: &'static [u16]| greeting(|g| g.suites = suites.to_vec());
    let old_suites = |suites: &'static [u16]| greeting(|g| {
        g.versions = None;
        g.suites = suites.to_vec();
    });
    let none = "none of the cipher suites";
    add("ChaCha20 in TLS 1.3", suites(&[0x1303]), none, 40);
    add("CCM in TLS 1.3", suites(&[0x1304, 0x1305]), none, 40);
    add("TLS 1.3 with suites of TLS 1.2", suites(&[0xc02f, 0xc030]), none, 40);
    add("ChaCha20 in TLS 1.2", old_suites(&[0xcca8]), none, 40);
    add("ECDSA in TLS 1.2", old_suites(&[0xc02b, 0xc02c]), none, 40);
    add("CBC", old_suites(&[0xc027, 0xc028, 0xc013, 0xc014]), none, 40);
    add("no forward secrecy", old_suites(&[0x009c, 0x009d, 0x002f]), none, 40);
    add("finite fields", old_suites(&[0x009e, 0x009f]), none, 40);
    add("RC4, DES and no encryption", old_suites(&[0x0004, 0x0005, 0x000a, 0x0001, 0x0002]), none, 40);
    add("anonymous", old_suites(&[0x00a6, 0xc018]), none, 40);
    add("TLS 1.2 with suites of TLS 1.3", old_suites(&[0x1301, 0x1302]), none, 40);
    add("no suite", suites(&[]), none, 40);

    // Planes and nodes.
    let protocols = |all: &[&[u8]]| {
        let all = all.iter().map(|one| one.to_vec()).collect();
        greeting(|g| g.protocols = Some(all))
    };
    add("no ALPN", greeting(|g| g.protocols = None), "which plane it wants (no ALPN)", 120);
    add("an empty ALPN", protocols(&[]), "which plane it wants (no ALPN)", 120);
    add("HTTP by ALPN", protocols(&[b"h2"]), "wants 'h2', which is no plane", 120);
    add("another version of the plane", protocols(&[b"carnelian-data/2"]), "'carnelian-data/2', which is no plane", 120);
    add("capitals in ALPN", protocols(&[b"Carnelian-Data/1"]), "no plane", 120);
    add("NUL in ALPN", protocols(&[b"carnelian-data/1\0"]), "carnelian-data/1\\u{0}', which is no plane", 120);
    add("both planes", protocols(&[Plane::Control.alpn(), Plane::Data.alpn()]), "several protocols", 120);
    add("a plane and more", protocols(&[Plane::Data.alpn(), b"h2"]), "several protocols", 120);
    add("no server name", greeting(|g| g.name = None), "which node it wants (no server name)", 112);
    let name = |name: String| greeting(|g| g.name = Some(name.into_bytes()));
    add("another node", name(world().identity(2, Plane::Data).server_name()), "has reached node 1", 112);
    add("another cluster's node", name(World::new().identity(1, Plane::Data).server_name()), "has reached node 1", 112);
    add("a host name", name("localhost".into()), "wants 'localhost' and has reached node 1", 112);
    add("a wildcard", name("*.carnelian.internal".into()), "wants '*.carnelian.internal'", 112);
    add("an escape sequence", name("\u{1b}[2J\n".into()), "wants '\\u{1b}[2J\\n'", 112);
    add("two server names", greeting(|g| {
        g.name = None;
        let two = [&[0][..], &long(b"a"), &[0], &long(b"b")].concat();
        g.more.push((0, long(&two)));
    }), "damaged TLS", 50);

    // What nobody of ours does.
    add("resuming a TLS 1.3 session", greeting(|g| g.more.push((41, vec![0; 80]))), "tries to resume", 47);
    add("resuming by ticket", greeting(|g| g.more.push((35, vec![7; 100]))), "tries to resume", 47);
    add("resuming by session id", greeting(|g| {
        g.versions = None;
        g.session_id = vec![7; 32];
    }), "tries to resume", 47);
    add("early data", greeting(|g| g.more.push((42, vec![]))), "sends early data", 47);
    add("renegotiating", greeting(|g| g.more = vec![(0xff01, short(&[7; 12]))]), "tries to renegotiate", 47);
    add("data after the greeting", [greeting(|_| {}), record(0x17, b"early")].concat(), "before it is answered", 10);
    add("two greetings", [greeting(|_| {}), greeting(|_| {})].concat(), "before it is answered", 10);

    // Damage.
    add("an oversize record", [&[0x16, 3, 1, 0xff, 0xff][..], &[1, 0, 0xff, 0xf0]].concat(), "record of 65535 bytes", 22);
    add("a greeting of 1 MB", record(0x16, &[1, 0x10, 0, 0, 3, 3]), "more than 16384 bytes", 22);
    add("an empty record", record(0x16, &[]), "damaged TLS: an empty record", 50);
    add("a server's greeting", record(0x16, &[2, 0, 0, 2, 3, 3]), "does not begin with a greeting", 50);
    add("a finish first", record(0x16, &[20, 0, 0, 12, 0]), "does not begin with a greeting", 50);
    add("an alert in between", [record(0x16, &[1, 0, 1, 0]), record(0x15, &[1, 0])].concat(), "another record within", 50);
    add("a greeting of nothing", record(0x16, &[1, 0, 0, 0]), "ends where it should not", 50);
    let mut cut = Greeting::good().message();
    cut.truncate(60);
    cut[3] = 56;
    add("a greeting cut short", record(0x16, &cut), "ends where it should not", 50);
    add("an extension too long", greeting(|g| g.more.push((16, vec![0xff, 0xff, 1]))), "ends where it should not", 50);
    let tiny: Vec<u8> = vec![1, 0, 0x3f, 0xff].into_iter().chain([0; 9000]).flat_map(|byte| record(0x16, &[byte])).collect();
    add("a byte per record", tiny, "more than 16384 bytes", 22);

    // What passes the first look.
    add("an extension twice", greeting(|g| g.more.push((23, vec![]))), "", 0);
    add("no key share", greeting(|g| g.more.push((51, vec![]))), "", 0);
    add("no signature algorithms", greeting(|g| g.more.push((13, vec![0, 0]))), "", 0);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_greetings_are_refused_and_told_why() {
    let mut listening = Listening::start(world().node(1)).await;
    let rows = rows();
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
        socket.write_all(&greeting(|g| g.versions = versions)).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), 0x16, "a server's greeting");
        // In the middle of a handshake there may still come anything.
        socket.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
        let refusal = listening.result().await.unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::Malformed, "{refusal}");

        let mut socket = TcpStream::connect(listening.address).await.unwrap();
        socket.write_all(&Greeting::good().bytes()).await.unwrap();
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
    let whole = Greeting::good().bytes();
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
    for sent in [&b""[..], &Greeting::good().bytes()[..40]] {
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
    let whole = Greeting::good().bytes();
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
    let message = Greeting::good().message();
    let pieces: Vec<u8> = message.chunks(7).flat_map(|piece| record(0x16, piece)).collect();
    assert!(matches!(hello::read(&pieces), Ok(Progress::Whole(_))));
}

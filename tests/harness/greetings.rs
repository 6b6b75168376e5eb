//! Greetings that must not get through a port for other nodes before there is a certificate to look at, as the very
//! bytes that go over the wire. Shown to the library by its own tests, and to a server.

const DATA: &[u8] = b"carnelian-data/1";
const CONTROL: &[u8] = b"carnelian-control/1";

/// Names to ask for: the node's that is reached, another node's, and one of another cluster.
pub struct Names {
    pub node: String,
    pub other_node: String,
    pub other_cluster: String,
}

/// A greeting to be bent. As it comes it is good, as far as a greeting can be.
#[derive(Clone)]
pub struct Greeting {
    pub version: u16,
    pub session_id: Vec<u8>,
    pub suites: Vec<u16>,
    pub versions: Option<Vec<u16>>,
    pub protocols: Option<Vec<Vec<u8>>>,
    pub name: Option<Vec<u8>>,
    /// Further extensions.
    pub more: Vec<(u16, Vec<u8>)>,
}

impl Greeting {
    pub fn good(names: &Names) -> Self {
        Self {
            version: 0x0303,
            session_id: Vec::new(),
            suites: vec![0x1301, 0x1302, 0xc030, 0xc02f, 0x00ff],
            versions: Some(vec![0x0304, 0x0303]),
            protocols: Some(vec![DATA.to_vec()]),
            name: Some(names.node.clone().into_bytes()),
            more: vec![(0xff01, vec![0])],
        }
    }

    /// The message without a record around it.
    pub fn message(&self) -> Vec<u8> {
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

    pub fn bytes(&self) -> Vec<u8> {
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

pub fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &long(body)].concat()
}

/// The same greeting with something changed.
pub fn greeting(names: &Names, change: impl FnOnce(&mut Greeting)) -> Vec<u8> {
    let mut greeting = Greeting::good(names);
    change(&mut greeting);
    greeting.bytes()
}

pub struct Row {
    pub name: &'static str,
    pub sent: Vec<u8>,
    /// What the reason says; empty: it says something, and is found by TLS itself.
    pub expected: &'static str,
    /// The last byte of the alert, 0 where nothing is answered.
    pub alert: u8,
}

#[rustfmt::skip]
pub fn rows(names: &Names) -> Vec<Row> {
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
    let old = |version| greeting(names, |g| {
        g.version = version;
        g.versions = None;
        g.more.clear();
    });
    add("SSL 3", old(0x0300), "offers SSL 3 at best", 70);
    add("TLS 1.0", old(0x0301), "offers TLS 1.0 at best", 70);
    add("TLS 1.1", old(0x0302), "offers TLS 1.1 at best", 70);
    add("TLS 1.1 in the new way", greeting(names, |g| g.versions = Some(vec![0x0302, 0x0301])), "offers TLS 1.1 at best", 70);
    add("a draft of TLS 1.3", greeting(names, |g| g.versions = Some(vec![0x7f1c])), "no known version", 70);
    add("no version", greeting(names, |g| g.versions = Some(vec![])), "no known version", 70);
    add("a version of one byte", greeting(names, |g| { g.versions = None; g.more.push((43, vec![1, 3])); }), "damaged TLS", 50);

    // Suites.
    let suites = |suites: &'static [u16]| greeting(names, |g| g.suites = suites.to_vec());
    let old_suites = |suites: &'static [u16]| greeting(names, |g| {
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
        greeting(names, |g| g.protocols = Some(all))
    };
    add("no ALPN", greeting(names, |g| g.protocols = None), "which plane it wants (no ALPN)", 120);
    add("an empty ALPN", protocols(&[]), "which plane it wants (no ALPN)", 120);
    add("HTTP by ALPN", protocols(&[b"h2"]), "wants 'h2', which is no plane", 120);
    add("another version of the plane", protocols(&[b"carnelian-data/2"]), "'carnelian-data/2', which is no plane", 120);
    add("capitals in ALPN", protocols(&[b"Carnelian-Data/1"]), "no plane", 120);
    add("NUL in ALPN", protocols(&[b"carnelian-data/1\0"]), "carnelian-data/1\\u{0}', which is no plane", 120);
    add("both planes", protocols(&[CONTROL, DATA]), "several protocols", 120);
    add("a plane and more", protocols(&[DATA, b"h2"]), "several protocols", 120);
    add("no server name", greeting(names, |g| g.name = None), "which node it wants (no server name)", 112);
    let name = |name: String| greeting(names, |g| g.name = Some(name.into_bytes()));
    add("another node", name(names.other_node.clone()), "has reached node 1", 112);
    add("another cluster's node", name(names.other_cluster.clone()), "has reached node 1", 112);
    add("a host name", name("localhost".into()), "wants 'localhost' and has reached node 1", 112);
    add("a wildcard", name("*.carnelian.internal".into()), "wants '*.carnelian.internal'", 112);
    add("an escape sequence", name("\u{1b}[2J\n".into()), "wants '\\u{1b}[2J\\n'", 112);
    add("two server names", greeting(names, |g| {
        g.name = None;
        let two = [&[0][..], &long(b"a"), &[0], &long(b"b")].concat();
        g.more.push((0, long(&two)));
    }), "damaged TLS", 50);

    // What nobody of ours does.
    add("resuming a TLS 1.3 session", greeting(names, |g| g.more.push((41, vec![0; 80]))), "tries to resume", 47);
    add("resuming by ticket", greeting(names, |g| g.more.push((35, vec![7; 100]))), "tries to resume", 47);
    add("resuming by session id", greeting(names, |g| {
        g.versions = None;
        g.session_id = vec![7; 32];
    }), "tries to resume", 47);
    add("early data", greeting(names, |g| g.more.push((42, vec![]))), "sends early data", 47);
    add("renegotiating", greeting(names, |g| g.more = vec![(0xff01, short(&[7; 12]))]), "tries to renegotiate", 47);
    add("data after the greeting", [greeting(names, |_| {}), record(0x17, b"early")].concat(), "before it is answered", 10);
    add("two greetings", [greeting(names, |_| {}), greeting(names, |_| {})].concat(), "before it is answered", 10);

    // Damage.
    add("an oversize record", [&[0x16, 3, 1, 0xff, 0xff][..], &[1, 0, 0xff, 0xf0]].concat(), "record of 65535 bytes", 22);
    add("a greeting of 1 MB", record(0x16, &[1, 0x10, 0, 0, 3, 3]), "more than 16384 bytes", 22);
    add("an empty record", record(0x16, &[]), "damaged TLS: an empty record", 50);
    add("a server's greeting", record(0x16, &[2, 0, 0, 2, 3, 3]), "does not begin with a greeting", 50);
    add("a finish first", record(0x16, &[20, 0, 0, 12, 0]), "does not begin with a greeting", 50);
    add("an alert in between", [record(0x16, &[1, 0, 1, 0]), record(0x15, &[1, 0])].concat(), "another record within", 50);
    add("a greeting of nothing", record(0x16, &[1, 0, 0, 0]), "ends where it should not", 50);
    let mut cut = Greeting::good(names).message();
    cut.truncate(60);
    cut[3] = 56;
    add("a greeting cut short", record(0x16, &cut), "ends where it should not", 50);
    add("an extension too long", greeting(names, |g| g.more.push((16, vec![0xff, 0xff, 1]))), "ends where it should not", 50);
    let tiny: Vec<u8> = vec![1, 0, 0x3f, 0xff].into_iter().chain([0; 9000]).flat_map(|byte| record(0x16, &[byte])).collect();
    add("a byte per record", tiny, "more than 16384 bytes", 22);

    // What passes the first look.
    add("an extension twice", greeting(names, |g| g.more.push((23, vec![]))), "", 0);
    add("no key share", greeting(names, |g| g.more.push((51, vec![]))), "", 0);
    add("no signature algorithms", greeting(names, |g| g.more.push((13, vec![0, 0]))), "", 0);
    rows
}

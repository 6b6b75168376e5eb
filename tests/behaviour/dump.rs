//! DUMP and RESTORE: what they refuse, and values going to Redis and back.

use carnelian_tests::server::{Certificates, free_port};
use carnelian_tests::{Client, Server, each_way, is_carnelian, require_or_skip};

/// One key, `k`, in every encoding: its name, then the commands that make it.
const VALUES: &[(&str, &[&str])] = &[
    ("int", &["SET k 12345"]),
    ("embstr", &["SET k hello"]),
    ("raw", &["SETRANGE k 200 compressible"]),
    ("listpack", &["RPUSH k a 1 -5000 ''"]),
    ("quicklist", &["CONFIG SET list-max-listpack-size 2", "RPUSH k a b c d e 6"]),
    ("intset", &["SADD k 1 -70000 99999999999"]),
    ("listpack", &["SADD k a b 5"]),
    ("hashtable", &["CONFIG SET set-max-listpack-entries 2", "SADD k a b 5"]),
    ("listpack", &["ZADD k 1 a 2.5 b -inf c inf d 0.1 e"]),
    ("skiplist", &["CONFIG SET zset-max-listpack-entries 2", "ZADD k 1 a 2.5 b -inf c 1e300 d"]),
    ("listpack", &["HSET k a 1 b two"]),
    ("hashtable", &["CONFIG SET hash-max-listpack-entries 2", "HSET k a 1 b two c 3"]),
    ("stream", &["XADD k 1-1 a 1 b 2", "XADD k 1-2 a 3 b 4", "XADD k 5-0 other field"]),
];

/// Those that need Redis 7.4.
const EXPIRING: &[(&str, &[&str])] = &[
    ("listpackex", &["HSET k a 1 b two c 3", "HPEXPIREAT k 1900000000000 FIELDS 1 b"]),
    (
        "hashtable",
        &[
            "CONFIG SET hash-max-listpack-entries 2",
            "HSET k a 1 b two c 3",
            "HPEXPIREAT k 1900000000000 FIELDS 1 b",
            "HPEXPIREAT k 1900000000500 FIELDS 1 c",
        ],
    ),
];

/// Directives that `VALUES` change, with Redis's own settings.
const DEFAULTS: &str = "CONFIG SET list-max-listpack-size -2 set-max-listpack-entries 128 \
     zset-max-listpack-entries 128 hash-max-listpack-entries 512";

#[test]
fn values_go_to_redis_and_come_back() {
    let Some(redis) = require_or_skip("redis-server") else { return };
    let (ours, theirs) = (Server::start(&[]), Server::starter_of(&redis).start());
    let (mut ours, mut theirs) = (ours.connect(), theirs.connect());
    let version = theirs.info("redis_version");
    if version.starts_with("6.") || version.starts_with("7.0") {
        eprintln!("skipped: Redis {version} does not read what newer ones write");
        return;
    }
    let recent = !theirs.call("COMMAND INFO hexpire").elements()[0].is_null();
    let expiring = if recent { EXPIRING } else { &[] };
    for (encoding, commands) in VALUES.iter().chain(expiring) {
        for client in [&mut ours, &mut theirs] {
            client.expect("FLUSHALL", "+OK");
            client.expect(DEFAULTS, "+OK");
            for command in *commands {
                let reply = client.call(command);
                assert!(!reply.is_error(), "{command}: {reply}");
            }
            client.expect("OBJECT ENCODING k", encoding);
        }
        copy(&mut ours, &mut theirs);
        copy(&mut theirs, &mut ours);
        let (a, b) = (content(&mut ours, "copy"), content(&mut theirs, "copy"));
        assert_eq!(a, b, "{commands:?}");
    }
}

/// Carries `k` to the other server as `copy`, and compares.
fn copy(from: &mut Client, to: &mut Client) {
    let payload = from.call("DUMP k");
    let reply = to.call_words(&[&b"RESTORE"[..], b"copy", b"0", payload.bytes()]);
    assert_eq!(reply.to_string(), "+OK");
    assert_eq!(content(from, "k"), content(to, "copy"));
    let encodings = (from.call("OBJECT ENCODING k"), to.call("OBJECT ENCODING copy"));
    // A string that was changed in place is packed anew.
    if encodings.0.text() != "raw" {
        assert_eq!(encodings.0.text(), encodings.1.text());
    }
}

fn content(client: &mut Client, key: &str) -> String {
    let read = match client.call(&format!("TYPE {key}")).text().as_str() {
        "string" => format!("GET {key}"),
        "list" => format!("LRANGE {key} 0 -1"),
        "set" => format!("SORT {key} ALPHA"),
        "zset" => format!("ZRANGE {key} 0 -1 WITHSCORES"),
        "stream" => format!("XRANGE {key} - +"),
        _ => {
            let values = client.call(&format!("HMGET {key} a b c")).to_string();
            let times = client.call(&format!("HPEXPIRETIME {key} FIELDS 3 a b c"));
            let times = if times.is_error() { String::new() } else { times.to_string() };
            return values + &times;
        }
    };
    client.call(&read).to_string()
}

#[test]
fn restore_refuses_what_it_should() {
    each_way(|client| {
        client.expect("DUMP missing", "nil");
        client.expect("SET k value", "+OK");
        let payload = client.call("DUMP k");
        let payload = payload.bytes();
        let mut restore = |key: &str, ttl: &str, payload: &[u8], options: &[&str]| {
            let mut words = vec![&b"RESTORE"[..], key.as_bytes(), ttl.as_bytes(), payload];
            words.extend(options.iter().map(|option| option.as_bytes()));
            client.call_words(&words).to_string()
        };
        let refused = [
            ("k", "0", &[][..], "-BUSYKEY Target key name already exists."),
            ("n", "-1", &[], "-ERR Invalid TTL value, must be >= 0"),
            ("n", "x", &[], "-ERR value is not an integer or out of range"),
            ("n", "0", &["FOO"], "-ERR syntax error"),
            ("n", "0", &["IDLETIME"], "-ERR syntax error"),
            ("n", "0", &["IDLETIME", "-1"], "-ERR Invalid IDLETIME value, must be >= 0"),
            ("n", "0", &["FREQ", "256"], "-ERR Invalid FREQ value, must be >= 0 and <= 255"),
            ("n", "0", &["FREQ", "1", "IDLETIME", "1"], "-ERR syntax error"),
        ];
        for (key, ttl, options, error) in refused {
            assert_eq!(restore(key, ttl, payload, options), error);
        }
        let wrong = "-ERR DUMP payload version or checksum are wrong";
        let mut damaged = payload.to_vec();
        damaged[1] ^= 1;
        for payload in [&b""[..], b"short", &damaged] {
            assert_eq!(restore("n", "0", payload, &[]), wrong);
        }
        assert_eq!(restore("k", "0", &damaged, &["REPLACE"]), wrong);
        assert_eq!(restore("n", "100000", payload, &["IDLETIME", "1000"]), "+OK");
        assert_eq!(restore("late", "1", payload, &["ABSTTL"]), "+OK");
        assert_eq!(restore("gone", "0", payload, &[]), "+OK");
        assert_eq!(restore("gone", "1", payload, &["ABSTTL", "REPLACE"]), "+OK");
        assert_eq!(restore("then", "1900000000000", payload, &["ABSTTL", "REPLACE"]), "+OK");
        assert!((1000..1060).contains(&client.call("OBJECT IDLETIME n").integer()));
        client.script(
            r#"
            GET k => value
            TTL n => :100
            EXISTS late gone => :0
            PEXPIRETIME then => :1900000000000
            DEBUG SET-SKIP-CHECKSUM-VALIDATION 1 => +OK
            "#,
        );
        damaged[1] ^= 1;
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        client.expect("DEL n", ":1");
        let words: [&[u8]; 4] = [b"RESTORE", b"n", b"0", &damaged];
        assert_eq!(client.call_words(&words).to_string(), "+OK");
        client.expect("GET n", "value");
        damaged[0] = 99;
        let words: [&[u8]; 5] = [b"RESTORE", b"n", b"0", &damaged, b"REPLACE"];
        assert_eq!(client.call_words(&words).to_string(), "-ERR Bad data format");
        client.expect("GET n", "value");
        client.expect("DEBUG SET-SKIP-CHECKSUM-VALIDATION 0", "+OK");
        let words: [&[u8]; 4] = [b"RESTORE", b"m", b"0", &damaged];
        assert_eq!(client.call_words(&words).to_string(), wrong);
    });
}

#[test]
fn consumer_groups_go_to_redis_and_come_back() {
    let Some(redis) = require_or_skip("redis-server") else { return };
    let (ours, theirs) = (Server::start(&[]), Server::starter_of(&redis).start());
    let (mut ours, mut theirs) = (ours.connect(), theirs.connect());
    for line in ["XADD k 1-1 a 1", "XADD k 1-2 a 2", "XGROUP CREATE k group 0"] {
        theirs.call(line);
    }
    theirs.call("XREADGROUP GROUP group reader COUNT 1 STREAMS k >");
    let payload = theirs.call("DUMP k");
    ours.expect("FLUSHALL", "+OK");
    let reply = ours.call_words(&[&b"RESTORE"[..], b"k", b"0", payload.bytes()]);
    assert_eq!(reply.to_string(), "+OK");
    for line in ["XPENDING k group", "XRANGE k - +"] {
        assert_eq!(ours.call(line).to_string(), theirs.call(line).to_string(), "{line}");
    }
    let payload = ours.call("DUMP k");
    let reply = theirs.call_words(&[&b"RESTORE"[..], b"back", b"0", payload.bytes()]);
    // A redis-server older than 7.4 refuses payloads of a later format.
    if reply.to_string() == "+OK" {
        let (came, was) = (theirs.call("XPENDING back group"), theirs.call("XPENDING k group"));
        assert_eq!(came.to_string(), was.to_string());
    }
}

#[test]
fn keys_move_to_another_server() {
    let (here, there) = (Server::start(&[]), Server::start(&["--requirepass", "secret"]));
    let (mut client, mut target) = (here.connect(), there.connect());
    target.expect("AUTH secret", "+OK");
    let to = format!("MIGRATE 127.0.0.1 {}", there.port());
    client.expect(&format!("{to} none 0 1000"), "+NOKEY");
    client.expect("MSET a 1 b 2 c 3", "+OK");
    client.expect("PEXPIRE b 600000", ":1");
    client.expect(
        &format!("{to} a 0 5000"),
        "-ERR Target instance replied with error: NOAUTH Authentication required.",
    );
    client.expect(&format!("{to} a 3 5000 COPY AUTH secret"), "+OK");
    client.expect("GET a", "1");
    let busy = "-ERR Target instance replied with error: BUSYKEY Target key name already exists.";
    client.expect(&format!("{to} \"\" 3 5000 AUTH secret KEYS a b none"), busy);
    client.expect("EXISTS a b", ":1");
    client.expect(&format!("{to} a 3 5000 REPLACE AUTH2 default secret"), "+OK");
    client.expect("MULTI", "+OK");
    client.expect(&format!("{to} c 3 5000 AUTH secret"), "+QUEUED");
    client.expect("EXISTS c", "+QUEUED");
    client.expect("EXEC", "[+OK :0]");
    client.expect("DBSIZE", ":0");
    target.expect("SELECT 3", "+OK");
    target.expect("MGET a b c", "[1 2 3]");
    assert!(590_000 < target.call("PTTL b").integer());

    client.expect("SET a 1", "+OK");
    client
        .expect("MIGRATE 127.0.0.1 1 a 0 500", "-IOERR error or timeout connecting to the client");
    client.expect("MIGRATE 127.0.0.1 1 a 0 x", "-ERR value is not an integer or out of range");
    client.expect("GET a", "1");
}

#[test]
fn migrate_keeps_its_connection_for_the_next() {
    let (here, mut there) = (Server::start(&[]), Server::start(&[]));
    let (mut client, mut target) = (here.connect(), there.connect());
    let to = format!("MIGRATE 127.0.0.1 {}", there.port());
    let came = |target: &mut Client| target.info("total_connections_received");
    client.expect("MSET a 1 b 2 c 3 d 4 e 5 f 6", "+OK");
    assert_eq!(client.info("migrate_cached_sockets"), "0");
    client.expect(&format!("{to} a 0 5000"), "+OK");
    assert_eq!(client.info("migrate_cached_sockets"), "1");
    let before = came(&mut target);
    client.expect(&format!("{to} b 3 5000"), "+OK");
    client.expect(&format!("{to} c 3 5000"), "+OK");
    assert_eq!(came(&mut target), before);
    if is_carnelian() {
        // Refused, and sent nowhere else; that connection is given up.
        let refused = "-ERR Target instance replied with error: ERR...";
        client.expect(&format!("{to} d 99 5000"), refused);
    }
    client.expect(&format!("{to} d 3 5000"), "+OK");
    target.expect("GET a", "1");
    target.expect("SELECT 3", "+OK");
    target.expect("MGET b c d", "[2 3 4]");
    // Closed meanwhile: a new one is opened.
    there.restart();
    client.expect(&format!("{to} e 0 5000"), "+OK");
    there.connect().expect("GET e", "5");
    for _ in 0..300 {
        if client.info("migrate_cached_sockets") == "0" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(client.info("migrate_cached_sockets"), "0");
    client.expect(&format!("{to} f 0 5000"), "+OK");
}

#[test]
fn migrate_moves_one_key_or_those_behind_its_last_word() {
    let server = Server::start(&[]);
    server.connect().script(
        r#"
        COMMAND GETKEYS MIGRATE h 1 k 0 5 => [k]
        COMMAND GETKEYS MIGRATE h 1 "" 0 5 COPY KEYS a b => [a b]
        ACL SETUSER mover on nopass +migrate +acl %R~a %R~b %W~a %W~b => +OK
        ACL DRYRUN mover MIGRATE h 1 "" 0 5 KEYS a b => +OK
        ACL DRYRUN mover MIGRATE h 1 c 0 5 => "User mover has no permissions to access the 'c' key"
        ACL DRYRUN mover MIGRATE h 1 "" 0 5 KEYS a c => "User mover has no permissions to access the 'c' key"
        "#,
    );
}

#[test]
fn debug_object_shows_what_has_expired_and_is_still_there() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    client.expect("SET k v PX 1", "+OK");
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert!(client.call("DEBUG OBJECT k").to_string().contains("encoding:embstr"));
    client.expect("EXISTS k", ":0");
    client.expect("DEBUG OBJECT k", "-ERR no such key");
}

/// `tls-cluster` decides, as in Redis, and may be changed while the server runs.
#[test]
fn migrate_speaks_tls_where_it_is_told_to() {
    if !is_carnelian() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::made_in(folder.path());
    let source = Server::starter().certificates(&certificates).start();
    let port = free_port();
    let target = Server::starter()
        .certificates(&certificates)
        .args(&["--tls-port", &port.to_string()])
        .start();
    let (mut here, mut there) = (source.connect(), target.connect());
    let large = "0123456789abcdef".repeat(512 * 1024);
    here.call_words(&["SET", "large", &large]);
    here.expect("SET k v", "+OK");
    let refused = "-IOERR...";
    here.expect(&format!("MIGRATE 127.0.0.1 {port} k 0 500"), refused);
    here.expect("CONFIG SET tls-cluster yes", "+OK");
    here.expect(&format!("MIGRATE 127.0.0.1 {port} '' 0 20000 KEYS k large none"), "+OK");
    here.expect("EXISTS k large", ":0");
    there.expect("GET k", "v");
    assert_eq!(there.call("GET large").text(), large);
    // One that speaks no TLS.
    here.expect("SET k v", "+OK");
    let plain = Server::start(&[]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("it is bound").port();
    here.expect(&format!("MIGRATE 127.0.0.1 {port} k 0 300"), refused);
    here.expect("CONFIG SET tls-cluster no", "+OK");
    here.expect(&format!("MIGRATE 127.0.0.1 {} k 0 5000", plain.port()), "+OK");
}

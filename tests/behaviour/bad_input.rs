//! Clients that ask for far too much: time and memory stay bounded, and others are served.

use std::fs;
use std::time::{Duration, Instant};

use carnelian_tests::{Client, Server, encode, is_carnelian};

/// Bytes that the server's values and buffers take.
fn used(client: &mut Client) -> u64 {
    client.info("used_memory").parse().expect("a number")
}

/// The most memory that the process has had at once.
fn peak_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    let kilobytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kilobytes.expect("a number") << 10
}

#[track_caller]
fn until_below(client: &mut Client, bytes: u64) {
    let start = Instant::now();
    while bytes < used(client) {
        assert!(start.elapsed() < Duration::from_secs(20), "{} are in use", used(client));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_length_of_an_argument_reserves_nothing() {
    let server = Server::start(&[]);
    let mut other = server.connect();
    let (before, peak) = (used(&mut other), peak_bytes(&server));
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n");
        client.send(&[b'x'; 1000]);
    }
    other.expect("SET k v", "+OK");
    if is_carnelian() {
        assert!(used(&mut other) < before + (4 << 20), "{before} {}", used(&mut other));
        assert!(peak_bytes(&server) < peak + (64 << 20));
    }
    let mut greedy = server.connect();
    greedy.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n");
    greedy.expect_next("-ERR Protocol error: invalid bulk length");
    greedy.expect_closed();
    other.expect("GET k", "v");
}

#[test]
fn an_argument_is_as_long_as_it_may_be() {
    let server = Server::start(&["--proto-max-bulk-len", "32mb"]);
    let mut client = server.connect();
    let (before, peak) = (used(&mut client), peak_bytes(&server));
    let value = vec![b'x'; 32 << 20];
    assert_eq!(client.call_words(&[b"SET", &b"k"[..], &value]).to_string(), "+OK");
    client.expect("STRLEN k", ":33554432");
    client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$33554433\r\n");
    client.expect_next("-ERR Protocol error: invalid bulk length");
    let mut client = server.connect();
    client.expect("APPEND k x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    if is_carnelian() {
        let more = peak_bytes(&server) - peak;
        assert!(more < 5 * value.len() as u64, "{more} for {}", value.len());
    }
    client.expect("DEL k", ":1");
    until_below(&mut client, before + (4 << 20));
}

#[test]
fn many_watched_keys_are_accounted_and_given_back() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    let before = used(&mut other);
    for round in 0..100 {
        let names: Vec<_> = (0..1000).map(|place| format!("key:{round}:{place}")).collect();
        let mut words = vec!["WATCH"];
        words.extend(names.iter().map(String::as_str));
        assert_eq!(client.call_words(&words).to_string(), "+OK");
        // The same again are no more keys.
        assert_eq!(client.call_words(&words).to_string(), "+OK");
    }
    let watching = used(&mut other);
    assert!(watching < before + 100_000 * 400, "{} a key", (watching - before) / 100_000);
    other.expect("SET key:99:999 v", "+OK");
    client.expect("MULTI", "+OK");
    client.expect("PING", "+QUEUED");
    assert!(client.call("EXEC").is_null());
    until_below(&mut other, before + (8 << 20));
    other.expect("SET key:5:5 v", "+OK");
}

#[test]
fn a_long_transaction_is_served_or_its_client_closed() {
    const COUNT: usize = 100_000;
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    let before = used(&mut other);
    let increments = b"INCR n\r\n".repeat(COUNT / 100);
    client.expect("MULTI", "+OK");
    for _ in 0..100 {
        client.send(&increments);
        for _ in 0..COUNT / 100 {
            assert_eq!(client.read().to_string(), "+QUEUED");
        }
        other.expect("PING", "+PONG");
    }
    assert!(used(&mut other) < before + COUNT as u64 * 400);
    let replies = client.call("EXEC").elements();
    assert_eq!((replies.len(), replies[COUNT - 1].integer()), (COUNT, COUNT as i64));
    until_below(&mut other, before + (8 << 20));
    // What is queued counts as what is yet to be run.
    other.expect("CONFIG SET client-query-buffer-limit 1mb", "+OK");
    client.expect("MULTI", "+OK");
    let is_closed = (0..100).any(|_| {
        client.try_send(&increments).is_err()
            || (0..COUNT / 100).any(|_| client.try_read().is_err())
    });
    assert!(is_closed);
    other.expect("GET n", &COUNT.to_string());
    until_below(&mut other, before + (8 << 20));
}

#[test]
fn who_subscribes_and_never_reads_is_closed() {
    let args = ["--client-output-buffer-limit", "pubsub", "1mb", "0", "0"];
    let server = Server::start(&args);
    let mut other = server.connect();
    let before = used(&mut other);
    for command in ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"] {
        let mut deaf = server.connect();
        let is_closed = (0..400).any(|round| {
            let padding = "x".repeat(100);
            let names: Vec<_> =
                (0..1000).map(|place| format!("{padding}{round}:{place}")).collect();
            let mut words = vec![command];
            words.extend(names.iter().map(String::as_str));
            let mut request = Vec::new();
            encode(&words, &mut request);
            deaf.try_send(&request).is_err()
        });
        assert!(is_closed, "400,000 answers are kept");
    }
    other.eventually("PUBSUB NUMPAT", ":0");
    other.eventually("PUBSUB CHANNELS", "[]");
    other.eventually("PUBSUB SHARDCHANNELS", "[]");
    until_below(&mut other, before + (16 << 20));
}

#[test]
fn patterns_made_to_backtrack_are_matched_in_time() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for place in 0..1000 {
        let name = format!("{}{place}", "a".repeat(100));
        client.send_words(&["SET", &name, ""]);
    }
    for _ in 0..1000 {
        client.read();
    }
    let pattern = format!("{}b", "*a".repeat(50));
    assert_eq!(client.call_words(&["KEYS", &pattern]).to_string(), "[]");
    assert_eq!(
        client.call_words(&["SCAN", "0", "MATCH", &pattern, "COUNT", "10000"]).elements()[1]
            .to_string(),
        "[]"
    );
    assert_eq!(client.call_words(&["CONFIG", "GET", &pattern]).elements().len(), 0);
    if is_carnelian() {
        // Redis takes the product of their lengths for these.
        let name = "a".repeat(1 << 20);
        assert_eq!(client.call_words(&["SET", &name, ""]).to_string(), "+OK");
        let half = "a".repeat(1 << 19);
        for pattern in [format!("*{half}b*"), format!("*[{half}]*{half}c")] {
            assert_eq!(client.call_words(&["KEYS", &pattern]).to_string(), "[]");
        }
        let mut subscriber = server.connect();
        subscriber.send_words(&["PSUBSCRIBE", &format!("*{half}b*")]);
        subscriber.read();
        assert_eq!(client.call_words(&["PUBLISH", &name, "m"]).to_string(), ":0");
    }
}

#[test]
fn patterns_of_scripts_can_be_ended() {
    if !is_carnelian() {
        return; // Redis is deaf meanwhile.
    }
    let server = Server::start(&["--busy-reply-threshold", "20"]);
    let (mut runner, mut other) = (server.connect(), server.connect());
    for call in [
        "string.find(s, ('a*'):rep(30) .. 'b')",
        "string.match(s, ('a-'):rep(30) .. 'b')",
        "string.gsub(s, ('a?'):rep(99) .. 'b', '')",
        "pcall(string.gsub, s, ('(a*)'):rep(30) .. 'b', function() end)",
    ] {
        runner.send_words(&["EVAL", &format!("local s = ('a'):rep(1000) return {call}"), "0"]);
        let start = Instant::now();
        while !other.call("PING").text().starts_with("BUSY") {
            assert!(start.elapsed() < Duration::from_secs(20), "{call}");
        }
        other.expect("SCRIPT KILL", "+OK");
        let reply = runner.read();
        assert!(reply.text().contains("killed by user"), "{call}: {reply:?}");
    }
    let deep = "return {string.find(('a'):rep(1e6), ('a?'):rep(1e6))}";
    let reply = runner.call_words(&["EVAL", deep, "0"]);
    assert!(reply.text().contains("pattern too complex"), "{reply:?}");
    other.expect("PING", "+PONG");
}

//! What bounds a client: how many there may be, how long they may idle, how much they may pile up.

use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_tests::{Client, Server, is_carnelian};

#[test]
fn maxclients() {
    let server = Server::start(&["--maxclients", "5"]);
    let mut clients = Vec::new();
    // The probe of the start may still hold its place for a moment.
    let refused = loop {
        let mut client = server.connect();
        let _ = client.try_send(b"PING\r\n");
        let Ok(reply) = client.try_read() else { continue };
        match reply.to_string().as_str() {
            "+PONG" => clients.push(client),
            other => {
                client.expect_closed();
                break other.to_owned();
            }
        }
        assert!(clients.len() <= 5);
    };
    assert_eq!(refused, "-ERR max number of clients reached");
    while clients.len() < 5 {
        let mut client = server.connect();
        let _ = client.try_send(b"PING\r\n");
        if client.try_read().is_ok_and(|reply| !reply.is_error()) {
            clients.push(client);
        }
    }
    if is_carnelian() {
        // Over TLS the refusal is readable, as it comes after the handshake.
        let mut refused = server.connect_tls();
        refused.expect_next("-ERR max number of clients reached");
        refused.expect_closed();
    }
    assert!(clients[0].info("rejected_connections").parse::<u64>().expect("a number") >= 1);
    clients.pop();
    sleep(Duration::from_millis(200));
    server.connect().expect("PING", "+PONG");
    // Raised at run time, it lets more in.
    clients[0].expect("CONFIG SET maxclients 50", "+OK");
    let more: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for mut client in more {
        client.expect("PING", "+PONG");
    }
}

#[test]
fn idle_clients_are_closed() {
    let server = Server::starter().args(&["--timeout", "1"]).tls().start();
    let mut idle = server.connect();
    let mut idle_tls = server.connect_tls();
    let mut active = server.connect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        active.expect("PING", "+PONG");
        sleep(Duration::from_millis(100));
    }
    idle.expect_closed();
    idle_tls.expect_closed();
    active.expect("CONFIG SET timeout 0", "+OK");
    let mut patient = server.connect();
    sleep(Duration::from_millis(2500));
    patient.expect("PING", "+PONG");
}

#[test]
fn who_does_not_read_is_closed_at_the_hard_limit() {
    let args = ["--client-output-buffer-limit", "normal", "4mb", "0", "0"];
    let server = Server::starter().args(&args).tls().start();
    let mut writer = server.connect();
    let value = vec![b'x'; 200_000];
    assert_eq!(writer.call_words(&[b"SET", &b"big"[..], &value]).to_string(), "+OK");
    for mut lazy in [server.connect(), server.connect_tls()] {
        let id = lazy.call("CLIENT ID").integer();
        let mut closed = false;
        for _ in 0..2000 {
            if lazy.try_send(b"GET big\r\n").is_err() {
                closed = true;
                break;
            }
            if !is_listed(&mut writer, id) {
                closed = true;
                break;
            }
        }
        assert!(closed, "200 KB replies pile up without end");
    }
    // Who reads gets as much as it likes.
    let mut keen = server.connect();
    for _ in 0..100 {
        keen.send(b"GET big\r\n");
        assert_eq!(keen.read().bytes().len(), value.len());
    }
}

#[test]
fn a_reply_above_the_hard_limit_is_not_begun() {
    let args = ["--client-output-buffer-limit", "normal", "100kb", "0", "0"];
    let server = Server::starter().args(&args).tls().start();
    let mut writer = server.connect();
    let value = vec![b'x'; 60_000];
    assert_eq!(writer.call_words(&[b"SET", &b"big"[..], &value]).to_string(), "+OK");
    for mut client in [server.connect(), server.connect_tls()] {
        client.send(b"GET big\r\n");
        assert_eq!(client.read().bytes(), value);
        // What was asked for is done all the same.
        client.send(b"MULTI\r\nINCR done\r\nGET big\r\nGET big\r\nINCR done\r\nEXEC\r\n");
        assert_eq!(client.read_to_close(), b"");
    }
    writer.expect("GET done", "4");
    assert_eq!(writer.info("client_output_buffer_limit_disconnections"), "2");
}

#[test]
fn who_does_not_read_is_closed_at_the_soft_limit_after_a_while() {
    let args = ["--client-output-buffer-limit", "normal", "0", "1mb", "1"];
    let server = Server::start(&args);
    let mut writer = server.connect();
    let value = vec![b'x'; 200_000];
    assert_eq!(writer.call_words(&[b"SET", &b"big"[..], &value]).to_string(), "+OK");
    let mut lazy = server.connect();
    let id = lazy.call("CLIENT ID").integer();
    let start = Instant::now();
    for _ in 0..100 {
        let _ = lazy.try_send(b"GET big\r\n");
    }
    while is_listed(&mut writer, id) {
        assert!(start.elapsed() < Duration::from_secs(15), "still there");
        sleep(Duration::from_millis(100));
        let _ = lazy.try_send(b"GET big\r\n");
    }
    assert!(start.elapsed() > Duration::from_millis(800), "closed at once");
}

#[test]
fn a_request_may_not_outgrow_the_query_buffer_limit() {
    let server = Server::starter().args(&["--client-query-buffer-limit", "1mb"]).tls().start();
    for mut client in [server.connect(), server.connect_tls()] {
        let _ = client.try_send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4000000\r\n");
        for _ in 0..80 {
            if client.try_send(&[b'x'; 50_000]).is_err() {
                break;
            }
        }
        let rest = client.read_to_close();
        assert!(!rest.starts_with(b"+OK"), "{}", rest.escape_ascii());
    }
    // The length of the value decides, however its bytes come in.
    for mut client in [server.connect(), server.connect_tls()] {
        for len in [500_000, (1 << 20) - 2] {
            let value = vec![b'x'; len];
            assert_eq!(client.call_words(&[b"SET", &b"k"[..], &value]).to_string(), "+OK");
        }
        let _ = client.try_send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048576\r\n");
        let _ = client.try_send(&[b'x'; 1 << 20]);
        let _ = client.try_send(b"\r\n");
        let rest = client.read_to_close();
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
}

#[test]
fn one_client_that_does_not_read_does_not_hold_up_the_others() {
    let server = Server::starter().args(&["--io-threads", "1"]).tls().start();
    let mut writer = server.connect();
    let value = vec![b'x'; 1_000_000];
    assert_eq!(writer.call_words(&[b"SET", &b"big"[..], &value]).to_string(), "+OK");
    let mut lazy = [server.connect(), server.connect_tls()];
    for client in &mut lazy {
        for _ in 0..30 {
            let _ = client.try_send(b"GET big\r\n");
        }
    }
    for _ in 0..200 {
        writer.expect("PING", "+PONG");
    }
    // Nothing was lost meanwhile.
    for client in &mut lazy {
        for _ in 0..30 {
            assert_eq!(client.read().bytes().len(), value.len());
        }
    }
}

/// Whether the client of this id is still there.
#[test]
fn a_count_alone_brings_no_reply_without_end() {
    let server = Server::start(&["--io-threads", "1"]);
    let mut client = server.connect();
    client.call("SADD s a b c");
    client.call("HSET h a 1 b 2 c 3");
    client.call("ZADD z 1 a 2 b 3 c");
    let commands = [
        "SRANDMEMBER s -4611686018427387903",
        "HRANDFIELD h -4611686018427387903",
        "HRANDFIELD h -4611686018427387903 WITHVALUES",
        "ZRANDMEMBER z -4611686018427387903",
        "ZRANDMEMBER z -4611686018427387903 WITHSCORES",
    ];
    if is_carnelian() {
        for command in commands {
            client.expect(command, "-ERR the reply would be longer than proto-max-bulk-len");
        }
        let script = "EVAL \"return redis.pcall('SRANDMEMBER', 's', '-4611686018427387903')\" 0";
        client.expect(script, "-ERR the reply would be longer than proto-max-bulk-len");
    }
    // Who is closed for too long a reply is so before it is made.
    client.expect("CONFIG SET client-output-buffer-limit \"normal 1mb 0 0\"", "+OK");
    for command in commands {
        let mut greedy = server.connect();
        greedy.send(format!("{command}\r\n").as_bytes());
        assert_eq!(greedy.read_to_close(), b"");
        greedy = server.connect();
        let request = format!("MULTI\r\n{command}\r\n{command}\r\nINCR done\r\nEXEC\r\n");
        greedy.send(request.as_bytes());
        greedy.read_to_close();
        client.expect("PING", "+PONG");
    }
    client.expect("GET done", &commands.len().to_string());
    assert_eq!(client.info("client_output_buffer_limit_disconnections"), "10");
    // Without a reply there is nothing to be closed for.
    client.send(b"CLIENT REPLY OFF\r\nSRANDMEMBER s -1000000\r\nCLIENT REPLY ON\r\n");
    client.expect_next("+OK");
}

fn is_listed(client: &mut Client, id: i64) -> bool {
    client.call("CLIENT LIST").text().lines().any(|line| line.starts_with(&format!("id={id} ")))
}

//! CLIENT PAUSE: what is held back, for how long, and what happens to it then.

use std::time::{Duration, Instant};

use carnelian_tests::{Client, Server, is_carnelian};

/// Longer than any test takes.
const LONG: &str = "600000";

fn blocked(client: &mut Client, count: usize) {
    let start = Instant::now();
    while client.info("blocked_clients") != count.to_string() {
        assert!(start.elapsed() < Duration::from_secs(5), "{count} clients are held back");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn scripts_wait_unless_they_say_that_they_do_not_write() {
    let server = Server::start(&[]);
    let mut control = server.connect();
    let mut queued = server.connect();
    queued.expect("MULTI", "+OK");
    queued.expect("EVAL \"#!lua\\nreturn 3\" 0", "+QUEUED");
    control.expect(&format!("CLIENT PAUSE {LONG} WRITE"), "+OK");
    control.expect("EVAL \"#!lua flags=no-writes\\nreturn 1\" 0", ":1");
    control.expect("EVAL_RO \"return 1\" 0", ":1");
    let mut held = [server.connect(), server.connect()];
    held[0].send_words(&["EVAL", "return 2", "0"]);
    held[1].send_words(&["EVAL", "#!lua\nreturn 2", "0"]);
    queued.send_words(&["EXEC"]);
    blocked(&mut control, 3);
    control.expect("CLIENT UNPAUSE", "+OK");
    held.iter_mut().for_each(|client| {
        client.expect_next(":2");
    });
    queued.expect_next("[:3]");
}

#[test]
fn writes_wait_and_reads_go_on() {
    let server = Server::starter().tls().start();
    let mut control = server.connect();
    control.expect("SET k old", "+OK");
    control.expect(&format!("CLIENT PAUSE {LONG} WRITE"), "+OK");
    let mut writers = [server.connect(), server.connect_tls()];
    for writer in &mut writers {
        writer.expect("GET k", "old");
        // The read and the write come in one piece, and are not run together.
        writer.send(b"PING\r\nGET k\r\nAPPEND k \"\\x2b\"\r\nGET k\r\n");
        writer.expect_next("+PONG");
        writer.expect_next("old");
    }
    blocked(&mut control, 2);
    control.expect("GET k", "old");
    control.expect("SET k", "-ERR wrong number of arguments for 'set' command");
    if is_carnelian() {
        assert_eq!(control.info("paused_actions"), "write");
        assert!(control.call("CLIENT LIST").text().contains(" flags=b "));
    }
    control.expect("CLIENT UNPAUSE", "+OK");
    let lengths: Vec<i64> = writers.iter_mut().map(|writer| writer.read().integer()).collect();
    assert_eq!(lengths.iter().sum::<i64>(), 4 + 5);
    assert!(writers.iter_mut().all(|writer| writer.read().text().starts_with("old+")));
    blocked(&mut control, 0);
}

#[test]
fn transactions_and_what_replicas_are_told_of_wait_too() {
    let server = Server::start(&[]);
    let mut control = server.connect();
    let mut queuing = server.connect();
    queuing.expect("MULTI", "+OK");
    queuing.expect("SET k 1", "+QUEUED");
    control.expect(&format!("CLIENT PAUSE {LONG} WRITE"), "+OK");
    let mut reading = server.connect();
    reading.expect("MULTI", "+OK");
    reading.expect("GET k", "+QUEUED");
    reading.expect("EXEC", "[nil]");
    queuing.send(b"EXEC\r\n");
    blocked(&mut control, 1);
    let mut other = server.connect();
    other.send(b"PUBLISH channel message\r\n");
    blocked(&mut control, 2);
    control.expect("CLIENT UNPAUSE", "+OK");
    queuing.expect_next("[+OK]");
    other.expect_next(":0");
}

#[test]
fn a_pause_of_everything_ends_by_its_time_and_none_is_cut_short() {
    let server = Server::start(&[]);
    let mut control = server.connect();
    let mut other = server.connect();
    let start = Instant::now();
    control.expect("CLIENT PAUSE 300", "+OK");
    other.expect("PING", "+PONG");
    assert!(Duration::from_millis(250) < start.elapsed());

    let start = Instant::now();
    control.send(b"MULTI\r\nCLIENT PAUSE 300 ALL\r\nCLIENT PAUSE 1 WRITE\r\nEXEC\r\n");
    for expected in ["+OK", "+QUEUED", "+QUEUED", "[+OK +OK]"] {
        control.expect_next(expected);
    }
    other.expect("PING", "+PONG");
    assert!(Duration::from_millis(250) < start.elapsed());
    other.eventually("PING", "+PONG");

    for (bad, text) in [
        ("-1", "-ERR timeout is negative"),
        ("x", "-ERR timeout is not an integer or out of range"),
        ("9223372036854775807", "-ERR timeout is out of range"),
        ("1 SOME", "-ERR CLIENT PAUSE mode must be WRITE or ALL"),
    ] {
        control.expect(&format!("CLIENT PAUSE {bad}"), text);
    }
}

#[test]
fn nothing_expires_during_a_pause() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let before = client.info("expired_keys");
    // The pause is on before the key can expire.
    client.send(b"MULTI\r\nSET k v PX 1\r\nCLIENT PAUSE 600000 WRITE\r\nEXEC\r\n");
    for expected in ["+OK", "+QUEUED", "+QUEUED", "[+OK +OK]"] {
        client.expect_next(expected);
    }
    client.eventually("GET k", "nil");
    client.expect("EXISTS k", ":0");
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(client.info("expired_keys"), before);
    client.expect("DBSIZE", ":1");
    client.expect("CLIENT UNPAUSE", "+OK");
    client.expect("GET k", "nil");
    client.eventually("DBSIZE", ":0");
    assert_eq!(client.info("expired_keys"), "1");
}

#[test]
fn clients_that_are_held_back_can_go() {
    let server = Server::start(&[]);
    let mut control = server.connect();
    control.expect(&format!("CLIENT PAUSE {LONG} WRITE"), "+OK");
    let mut held: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut held {
        client.send(b"SET k v\r\n");
    }
    blocked(&mut control, 3);
    drop(held.pop());
    blocked(&mut control, 2);
    drop(held);
    blocked(&mut control, 0);
}

#[test]
fn scripts_wait_unless_they_say_that_they_only_read() {
    const READS: &str = "EVAL \"#!lua flags=no-writes\\nreturn 1\" 0";
    const LIBRARY: &str = "FUNCTION LOAD \"#!lua name=lib\\n\
        redis.register_function{function_name='reads', callback=function() return 2 end, \
        flags={'no-writes'}} redis.register_function('writes', function() return 3 end)\"";

    let server = Server::start(&[]);
    let mut control = server.connect();
    control.expect(LIBRARY, "lib");
    control.expect(&format!("CLIENT PAUSE {LONG} WRITE"), "+OK");
    for command in [READS, "EVAL_RO \"return 1\" 0"] {
        control.expect(command, ":1");
    }
    control.expect("FCALL reads 0", ":2");
    control.expect("MULTI", "+OK");
    control.expect(READS, "+QUEUED");
    control.expect("FCALL reads 0", "+QUEUED");
    control.expect("EXEC", "[:1 :2]");
    control.expect("MULTI", "+OK");
    control.expect("EXEC", "[]");

    let mut held = [server.connect(), server.connect(), server.connect(), server.connect()];
    held[0].send(b"EVAL \"return 4\" 0\r\n");
    held[1].send(b"EVAL \"#!lua\\nreturn 5\" 0\r\n");
    held[2].send(b"FCALL writes 0\r\n");
    held[3].send(b"MULTI\r\nEVAL \"return 6\" 0\r\nEXEC\r\n");
    blocked(&mut control, 4);
    control.expect("CLIENT UNPAUSE", "+OK");
    for (client, expected) in held.iter_mut().zip([":4", ":5", ":3"]) {
        client.expect_next(expected);
    }
    for expected in ["+OK", "+QUEUED", "[:6]"] {
        held[3].expect_next(expected);
    }
}

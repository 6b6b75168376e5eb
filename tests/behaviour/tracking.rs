//! CLIENT TRACKING: who is told of which changes, how, and when.

use std::time::Duration;

use carnelian_tests::{Client, Server, is_carnelian};

fn resp3(server: &Server) -> Client {
    let mut client = server.connect();
    client.hello3();
    client
}

/// Nothing more has come before the answer to a question.
fn expect_silence(client: &mut Client) {
    client.expect("PING", "+PONG");
}

#[test]
fn a_key_that_was_read_is_announced_once_when_it_changes() {
    let server = Server::starter().tls().start();
    let mut other = server.connect();
    let mut secure = server.connect_tls();
    secure.hello3();
    for mut client in [resp3(&server), secure] {
        other.expect("MSET a 1 b 2", "+OK");
        client.expect("CLIENT TRACKING ON", "+OK");
        client.expect("MGET a b none", "[1 2 nil]");
        other.expect("SET a 2", "+OK");
        client.expect_next(">[invalidate [a]]");
        other.expect("SET a 3", "+OK");
        expect_silence(&mut client);
        other.expect("DEL b", ":1");
        client.expect_next(">[invalidate [b]]");
        other.expect("LPUSH none x", ":1");
        client.expect_next(">[invalidate [none]]");
        other.expect("DEL none", ":1");
        client.expect("CLIENT TRACKING OFF", "+OK");
        client.expect("GET a", "3");
        other.expect("SET a 4", "+OK");
        expect_silence(&mut client);
    }
}

#[test]
fn own_changes_come_right_after_their_reply_unless_noloop() {
    let server = Server::start(&[]);
    let mut client = resp3(&server);
    client.expect("CLIENT TRACKING ON", "+OK");
    client.send(b"GET a\r\nSET a 1\r\nGET a\r\nINCR a\r\nPING\r\n");
    for expected in ["nil", "+OK", ">[invalidate [a]]", "1", ":2", ">[invalidate [a]]", "+PONG"] {
        client.expect_next(expected);
    }
    client.expect("CLIENT TRACKING ON NOLOOP", "+OK");
    client.send(b"GET a\r\nSET a 1\r\nPING\r\n");
    for expected in ["2", "+OK", "+PONG"] {
        client.expect_next(expected);
    }
    // In a transaction they wait for its end.
    client.expect("CLIENT TRACKING OFF", "+OK");
    client.expect("CLIENT TRACKING ON", "+OK");
    client.expect("MULTI", "+OK");
    client.expect("GET a", "+QUEUED");
    client.expect("SET a 5", "+QUEUED");
    client.expect("EXEC", "[1 +OK]");
    client.expect_next(">[invalidate [a]]");
}

#[test]
fn expiry_and_flushes_are_announced() {
    let server = Server::start(&[]);
    let mut other = server.connect();
    let mut client = resp3(&server);
    client.expect("CLIENT TRACKING ON", "+OK");
    other.expect("SET a 1 PX 50", "+OK");
    client.expect("EXISTS a", ":1");
    client.expect_next(">[invalidate [a]]");
    client.expect("GET b", "nil");
    other.expect("FLUSHDB", "+OK");
    client.expect_next(">[invalidate nil]");
    assert_eq!(client.info("tracking_total_keys"), "0");
    client.expect("GET b", "nil");
    client.expect("FLUSHALL", "+OK");
    client.expect_next(">[invalidate nil]");
}

#[test]
fn prefixes_are_announced_together_to_all_who_follow_them() {
    let server = Server::start(&[]);
    let mut other = server.connect();
    let mut all = resp3(&server);
    all.expect("CLIENT TRACKING ON BCAST", "+OK");
    let mut some = resp3(&server);
    some.expect("CLIENT TRACKING ON BCAST PREFIX user: PREFIX job:", "+OK");
    other.expect("MSET user:2 b user:1 a x 1", "+OK");
    some.expect_next(">[invalidate [user:1 user:2]]");
    all.expect_next(">[invalidate [user:1 user:2 x]]");
    other.expect("SET job:1 x PX 30", "+OK");
    for _ in 0..2 {
        some.expect_next(">[invalidate [job:1]]");
        all.expect_next(">[invalidate [job:1]]");
    }
    some.expect("SET user:3 x", "+OK");
    some.expect_next(">[invalidate [user:3]]");
    some.expect("CLIENT TRACKING OFF", "+OK");
    some.expect("CLIENT TRACKING ON BCAST NOLOOP PREFIX user:", "+OK");
    some.expect("SET user:4 x", "+OK");
    expect_silence(&mut some);
    assert_eq!(other.info("tracking_total_prefixes"), "2");
    assert_eq!(other.info("tracking_clients"), "2");
}

#[test]
fn opting_in_and_out_holds_for_the_next_command() {
    let server = Server::start(&[]);
    let mut other = server.connect();
    let mut client = resp3(&server);
    client.script(
        "CLIENT TRACKING ON OPTIN => +OK
         GET a => nil
         CLIENT CACHING YES => +OK
         GET b => nil
         GET c => nil
         CLIENT CACHING YES => +OK
         MULTI => +OK
         GET d => +QUEUED
         GET e => +QUEUED
         EXEC => [nil nil]",
    );
    other.expect("MSET a 1 b 1 c 1 d 1 e 1", "+OK");
    for key in ["b", "d", "e"] {
        client.expect_next(&format!(">[invalidate [{key}]]"));
    }
    client.script(
        "CLIENT TRACKING OFF => +OK
         CLIENT TRACKING ON OPTOUT => +OK
         GET a => 1
         CLIENT CACHING NO => +OK
         GET b => 1
         GET c => 1",
    );
    other.expect("MSET a 1 b 1 c 1", "+OK");
    for key in ["a", "c"] {
        client.expect_next(&format!(">[invalidate [{key}]]"));
    }
    expect_silence(&mut client);
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let server = Server::start(&[]);
    let mut client = resp3(&server);
    client.script(
        "CLIENT TRACKING ON PREFIX a => -ERR PREFIX option requires BCAST mode to be enabled
         CLIENT TRACKING ON REDIRECT 99999 => -ERR The client ID you want redirect to does not exist
         CLIENT TRACKING ON BCAST OPTIN => -ERR OPTIN and OPTOUT are not compatible with BCAST
         CLIENT TRACKING ON OPTIN OPTOUT => -ERR You can't specify both OPTIN mode and OPTOUT mode
         CLIENT CACHING YES => -ERR CLIENT CACHING can be called only when...
         CLIENT TRACKING SIDEWAYS => -ERR syntax error
         CLIENT GETREDIR => :-1
         CLIENT TRACKINGINFO => {flags ~[off] redirect :-1 prefixes []}
         CLIENT TRACKING ON OPTIN NOLOOP => +OK
         CLIENT TRACKING ON OPTOUT => -ERR You can't switch OPTIN/OPTOUT mode...
         CLIENT TRACKING ON BCAST => -ERR You can't switch BCAST mode on/off...
         CLIENT CACHING NO => -ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.
         CLIENT CACHING YES => +OK
         CLIENT TRACKINGINFO => {flags ~[on optin caching-yes noloop] redirect :0 prefixes []}
         CLIENT GETREDIR => :0
         RESET => ?",
    );
    client.assume(carnelian_tests::Protocol::Resp2);
    client.script(
        "CLIENT GETREDIR => :-1
         CLIENT TRACKING ON BCAST PREFIX ab PREFIX x => +OK
         CLIENT TRACKING ON BCAST PREFIX a => -ERR Prefix 'a' overlaps with an existing prefix 'ab'. Prefixes for a single client must not overlap.
         CLIENT TRACKING ON BCAST PREFIX p PREFIX pq => -ERR Prefix 'p' overlaps with another provided prefix 'pq'. Prefixes for a single client must not overlap.
         CLIENT TRACKINGINFO => [flags [on bcast] redirect :0 prefixes [ab x]]",
    );
}

#[test]
fn invalidations_go_to_another_client_while_that_is_there() {
    let server = Server::start(&[]);
    let mut target = resp3(&server);
    let id = target.call("CLIENT ID").integer();
    let mut client = resp3(&server);
    client.expect(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK");
    client.expect("CLIENT GETREDIR", &format!(":{id}"));
    client.expect("GET a", "nil");
    client.expect("SET a 1", "+OK");
    target.expect_next(">[invalidate [a]]");
    client.expect("GET a", "1");
    client.expect(&format!("CLIENT KILL ID {id}"), ":1");
    target.expect_closed();
    client.expect("SET a 2", "+OK");
    client.expect_next(&format!(">[tracking-redir-broken :{id}]"));
    assert!(client.call("CLIENT TRACKINGINFO").to_string().contains("broken_redirect"));
    assert!(client.call("CLIENT INFO").text().contains(" flags=tR "));
}

#[test]
fn the_table_of_keys_is_bounded() {
    let server = Server::start(&["--tracking-table-max-keys", "100"]);
    let mut client = resp3(&server);
    client.expect("CLIENT TRACKING ON", "+OK");
    let mut announced = 0;
    for key in 0..500 {
        client.send(format!("GET k{key}\r\n").as_bytes());
        loop {
            match client.read().to_string() {
                reply if reply.starts_with('>') => announced += 1,
                _ => break,
            }
        }
    }
    while client.read_within(Duration::from_millis(100)).is_some() {
        announced += 1;
    }
    assert_eq!(announced, 400, "every key that is forgotten is announced");
    assert_eq!(client.info("tracking_total_keys"), "100");
    assert_eq!(client.info("tracking_total_items"), "100");
    if is_carnelian() {
        client.expect("CONFIG SET tracking-table-max-keys 10", "+OK");
        for _ in 0..90 {
            client.read();
        }
        assert_eq!(client.info("tracking_total_keys"), "10");
    }
}

#[test]
fn what_was_evicted_to_make_room_is_announced_before_the_reply() {
    let server = Server::start(&[]);
    let mut client = resp3(&server);
    client.expect("CONFIG SET maxmemory-policy volatile-random", "+OK");
    client.expect("CLIENT TRACKING ON", "+OK");
    client.expect("SETEX volatile 10000 x", "+OK");
    client.expect("GET volatile", "x");
    let used: usize = client.info("used_memory").parse().expect("a number");
    client.expect(&format!("CONFIG SET maxmemory {}", used + 100_000), "+OK");
    client.expect("SETBIT large 4000000 0", ":0");
    client.send(b"GETBIT large 0\r\n");
    client.expect_next(">[invalidate [volatile]]");
    client.expect_next(":0");
    expect_silence(&mut client);
}

#[test]
fn what_expires_under_ones_own_eyes_is_nobodys_own_change() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = resp3(&server);
    client.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    client.expect("CLIENT TRACKING ON BCAST NOLOOP", "+OK");
    client.expect("SET k v PX 20", "+OK");
    std::thread::sleep(Duration::from_millis(40));
    client.expect("GET k", "nil");
    client.expect_next(">[invalidate [k]]");
    client.expect("SET k w", "+OK");
    expect_silence(&mut client);
}

#[test]
fn a_lower_limit_of_keys_holds_from_the_next_command_on() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = resp3(&server);
    let mut other = server.connect();
    other.expect("DEBUG PAUSE-CRON 1", "+OK");
    client.expect("CLIENT TRACKING ON", "+OK");
    client.expect("MGET a b", "[nil nil]");
    client.expect("MULTI", "+OK");
    other.expect("CONFIG SET tracking-table-max-keys 1", "+OK");
    client.send(b"PING\r\n");
    assert!(client.read().to_string().starts_with(">[invalidate ["));
    client.expect_next("+QUEUED");
    other.expect("DEBUG PAUSE-CRON 0", "+OK");
}

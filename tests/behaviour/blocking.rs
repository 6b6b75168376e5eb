//! Clients that wait for lists and sorted sets.

use carnelian_tests::{Client, Protocol, Server, each_way};

/// Has a client send a command and waits until so many are blocked.
fn block(client: &mut Client, command: &str, observer: &mut Client, blocked: usize) {
    client.send(format!("{command}\r\n").as_bytes());
    for _ in 0..2000 {
        if observer.info("blocked_clients") == blocked.to_string() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{command} does not block");
}

#[test]
fn what_is_there_is_taken_at_once() {
    each_way(|client| {
        client.script(
            r#"
            RPUSH l 1 2 3 4 5 6 => :6
            BLPOP none l 0 => [l 1]
            BRPOP l none 0 => [l 6]
            BLMPOP 0 2 none l LEFT COUNT 2 => [l [2 3]]
            BLMOVE l m LEFT RIGHT 0 => 4
            BRPOPLPUSH l m 0 => 5
            LRANGE m 0 -1 => [5 4]
            ZADD z 1 a 2 b 3 c => :3
            BZPOPMIN none z 0 => [z a ,1]
            BZPOPMAX z 0 => [z c ,3]
            BZMPOP 0 1 z MIN COUNT 5 => [z [[b ,2]]]
            BLPOP m z 0x => -ERR timeout is not a float or out of range
            BLPOP m -1 => -ERR timeout is negative
            BLPOP m inf => -ERR timeout is out of range
            SET s x => +OK
            BLPOP none s 0 => -WRONGTYPE Operation against a key holding the wrong kind of value
            BZPOPMIN s 0 => -WRONGTYPE Operation against a key holding the wrong kind of value
            "#,
        );
    });
}

#[test]
fn time_limits_end_in_nothing() {
    each_way(|client| {
        for command in [
            "BLPOP k j 0.01",
            "BRPOP k 0.01",
            "BLMPOP 0.01 1 k LEFT",
            "BLMOVE k j LEFT LEFT 0.01",
            "BRPOPLPUSH k j 0.01",
            "BZPOPMIN k 0.01",
            "BZPOPMAX k 0.01",
            "BZMPOP 0.01 1 k MIN",
        ] {
            client.expect(command, "nil");
        }
    });
}

#[test]
fn nobody_waits_in_a_transaction() {
    each_way(|client| {
        client.script(
            r#"
            MULTI => +OK
            BLPOP k 0 => +QUEUED
            BLMOVE k j LEFT LEFT 0 => +QUEUED
            BZMPOP 0 1 k MIN => +QUEUED
            RPUSH k a => +QUEUED
            BRPOP k 0 => +QUEUED
            EXEC => [nil nil nil :1 [k a]]
            "#,
        );
    });
}

#[test]
fn who_came_first_is_served_first() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let server = Server::start(&["--io-threads", "4"]);
        let mut observer = server.connect();
        let mut waiting: Vec<Client> =
            (0..6).map(|_| server.connect().speaking(protocol)).collect();
        for (place, client) in waiting.iter_mut().enumerate() {
            block(client, "BLPOP other k 0", &mut observer, place + 1);
        }
        observer.expect("RPUSH k 0 1", ":2");
        for element in 2..6 {
            observer.expect(&format!("LPUSH k {element}"), ":1");
        }
        for (place, client) in waiting.iter_mut().enumerate() {
            client.expect_next(&format!("[k {place}]"));
        }
        assert_eq!(observer.info("blocked_clients"), "0");
        observer.expect("EXISTS k", ":0");
    }
}

#[test]
fn keys_are_tried_in_the_order_of_the_request() {
    let server = Server::start(&[]);
    let (mut client, mut observer) = (server.connect(), server.connect());
    block(&mut client, "BLPOP a b 0", &mut observer, 1);
    observer.script("MULTI => +OK\nLPUSH b 2 => +QUEUED\nLPUSH a 1 => +QUEUED\nEXEC => [:1 :1]");
    client.expect_next("[a 1]");
    observer.expect("LRANGE b 0 -1", "[2]");
    // The same key twice is one wait.
    block(&mut client, "BLPOP c c 0", &mut observer, 1);
    observer.expect("RPUSH c 1 2", ":2");
    client.expect_next("[c 1]");
    observer.expect("LRANGE c 0 -1", "[2]");
}

#[test]
fn one_move_leads_to_the_next() {
    let server = Server::start(&["--io-threads", "4"]);
    let mut observer = server.connect();
    let (mut first, mut second, mut last) = (server.connect(), server.connect(), server.connect());
    block(&mut last, "BLPOP c 0", &mut observer, 1);
    block(&mut second, "BLMOVE b c LEFT LEFT 0", &mut observer, 2);
    block(&mut first, "BRPOPLPUSH a b 0", &mut observer, 3);
    observer.expect("RPUSH a x", ":1");
    first.expect_next("x");
    second.expect_next("x");
    last.expect_next("[c x]");
    observer.expect("EXISTS a b c", ":0");
    // In a circle, it ends where it began.
    block(&mut first, "BLMOVE a b LEFT LEFT 0", &mut observer, 1);
    block(&mut second, "BLMOVE b a LEFT LEFT 0", &mut observer, 2);
    observer.expect("RPUSH a x", ":1");
    first.expect_next("x");
    second.expect_next("x");
    observer.expect("LRANGE a 0 -1", "[x]");
    // And serves there who could not be served before.
    observer.expect("DEL a", ":1");
    block(&mut first, "BLMOVE a b LEFT LEFT 0", &mut observer, 1);
    block(&mut second, "BLMOVE b a LEFT LEFT 0", &mut observer, 2);
    block(&mut last, "BLPOP a 0", &mut observer, 3);
    observer.expect("RPUSH a y", ":1");
    first.expect_next("y");
    second.expect_next("y");
    last.expect_next("[a y]");
}

#[test]
fn what_a_transaction_takes_back_serves_nobody() {
    let server = Server::start(&[]);
    let (mut client, mut observer) = (server.connect(), server.connect());
    block(&mut client, "BLPOP k 0", &mut observer, 1);
    observer.script("MULTI => +OK\nRPUSH k a => +QUEUED\nDEL k => +QUEUED\nEXEC => [:1 :1]");
    observer.script("SET k x => +OK\nDEL k => :1\nZADD k 1 a => :1\nDEL k => :1");
    assert_eq!(observer.info("blocked_clients"), "1");
    // A transaction is over before anybody is served.
    observer.script(
        "MULTI => +OK\nRPUSH k a => +QUEUED\nRPUSH k b => +QUEUED\nLPUSH k c => +QUEUED\n\
         EXEC => [:1 :2 :3]",
    );
    client.expect_next("[k c]");
    observer.expect("LRANGE k 0 -1", "[a b]");
}

#[test]
fn a_wrong_destination_is_told() {
    let server = Server::start(&[]);
    let (mut client, mut observer) = (server.connect(), server.connect());
    block(&mut client, "BLMOVE a s LEFT LEFT 0", &mut observer, 1);
    observer.expect("SET s x", "+OK");
    observer.expect("RPUSH a 1", ":1");
    client.expect_next("-WRONGTYPE Operation against a key holding the wrong kind of value");
    observer.expect("LRANGE a 0 -1", "[1]");
}

#[test]
fn a_list_can_appear_in_many_ways() {
    let server = Server::start(&[]);
    let (mut client, mut observer) = (server.connect(), server.connect());
    let mut appear = |commands: &[&str], reply: &str| {
        observer.call("FLUSHALL");
        block(&mut client, "BLPOP k 0", &mut observer, 1);
        for command in commands {
            let reply = observer.call(command);
            assert!(!reply.is_error(), "{command}: {reply:?}");
        }
        client.expect_next(reply);
    };
    appear(&["LPUSH k 1 2"], "[k 2]");
    appear(&["RPUSH l 1 2", "RENAME l k"], "[k 1]");
    appear(&["RPUSH l 1 2", "COPY l k"], "[k 1]");
    appear(&["RPUSH l 2 1", "SORT l STORE k"], "[k 1]");
    appear(&["RPUSH l 1 2", "LMOVE l k RIGHT LEFT"], "[k 2]");
    appear(&["SELECT 1", "RPUSH k 1", "MOVE k 0", "SELECT 0"], "[k 1]");
    appear(&["SELECT 1", "RPUSH k 1", "SWAPDB 0 1", "SELECT 0"], "[k 1]");
}

#[test]
fn an_expired_list_that_comes_with_a_swap_serves_nobody() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let (mut client, mut observer) = (server.connect(), server.connect());
    observer.script(
        r#"
        DEBUG SET-ACTIVE-EXPIRE 0 => +OK
        SELECT 1 => +OK
        RPUSH k a => :1
        PEXPIRE k 1 => :1
        SELECT 0 => +OK
        "#,
    );
    block(&mut client, "BLPOP k 0", &mut observer, 1);
    observer.expect("DEBUG SLEEP 0.002", "+OK");
    observer.expect("SWAPDB 0 1", "+OK");
    // It came, and goes when it is looked at.
    observer.expect("DBSIZE", ":1");
    assert_eq!(observer.info("blocked_clients"), "1");
    observer.script("EXISTS k => :0\nDBSIZE => :0\nRPUSH k b => :1");
    client.expect_next("[k b]");
}

#[test]
fn sorted_sets_serve_those_who_wait() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut observer = server.connect();
    let (mut first, mut second) = (server.connect(), server.connect().speaking(Protocol::Resp3));
    block(&mut first, "BZPOPMIN none z 0", &mut observer, 1);
    block(&mut second, "BZMPOP 0 2 none z MAX COUNT 2", &mut observer, 2);
    observer.expect("ZADD z 1 a 2 b 3 c 4 d", ":4");
    first.expect_next("[z a 1]");
    second.expect_next("[z [[d ,4] [c ,3]]]");
    observer.expect("ZRANGE z 0 -1", "[b]");
    block(&mut first, "BZPOPMAX g 0", &mut observer, 1);
    observer.expect("GEOADD g 1 1 here", ":1");
    first.expect_next("[g here 3377822707026402]");
}

#[test]
fn a_client_that_leaves_takes_nothing() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut observer = server.connect();
    let mut client = server.connect();
    block(&mut client, "BLPOP k 0", &mut observer, 1);
    drop(client);
    let mut other = server.connect();
    while observer.info("blocked_clients") != "0" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    observer.expect("RPUSH k 1", ":1");
    other.expect("LRANGE k 0 -1", "[1]");
}

#[test]
fn a_wait_in_vain_is_a_call() {
    let server = Server::start(&["--io-threads", "2"]);
    let (mut client, mut observer) = (server.connect(), server.connect());
    let id = client.call("CLIENT ID").to_string().trim_start_matches(':').to_owned();
    observer.expect("CONFIG RESETSTAT", "+OK");
    client.expect("BLPOP k 0.01", "nil");
    block(&mut client, "BLPOP k 0", &mut observer, 1);
    observer.expect(&format!("CLIENT UNBLOCK {id}"), ":1");
    client.expect_next("nil");
    block(&mut client, "BLPOP k 0", &mut observer, 1);
    observer.expect(&format!("CLIENT UNBLOCK {id} ERROR"), ":1");
    client.expect_next("-UNBLOCKED client unblocked via CLIENT UNBLOCK");
    let figures = observer.info("cmdstat_blpop");
    assert!(figures.starts_with("calls=3,"), "{figures}");
    assert!(figures.ends_with("rejected_calls=0,failed_calls=1"), "{figures}");
    assert_eq!(observer.info("errorstat_UNBLOCKED"), "count=1");
}

#[test]
fn who_is_gone_before_the_wait_begins_does_not_wait() {
    let server = Server::start(&[]);
    let mut observer = server.connect();
    for _ in 0..20 {
        let mut client = server.connect();
        client.send(b"PING\r\nBLPOP k 0\r\nBLPOP k 0\r\n");
        client.finish_writing();
        client.expect_next("+PONG");
        client.expect_closed();
    }
    assert_eq!(observer.info("blocked_clients"), "0");
    observer.expect("RPUSH k a", ":1");
    observer.expect("LRANGE k 0 -1", "[a]");
}

#[test]
fn what_comes_after_a_wait_waits_too() {
    let server = Server::start(&[]);
    let (mut client, mut observer) = (server.connect(), server.connect());
    let pipeline = "SET before 1\r\nBLPOP k 0\r\nSET after 1\r\nBLPOP k 0\r\nPING";
    block(&mut client, pipeline, &mut observer, 1);
    client.expect_next("+OK");
    observer.expect("MGET before after", "[1 nil]");
    observer.expect("RPUSH k a", ":1");
    client.expect_next("[k a]");
    client.expect_next("+OK");
    observer.eventually("GET after", "1");
    observer.expect("RPUSH k b", ":1");
    client.expect_next("[k b]");
    client.expect_next("+PONG");
}

#[test]
fn who_has_waited_is_in_the_slow_log() {
    let server = Server::start(&["--slowlog-log-slower-than", "0"]);
    let mut client = server.connect();
    let mut waiter = server.connect();
    block(&mut waiter, "BLPOP queue 0", &mut client, 1);
    client.expect("SLOWLOG RESET", "+OK");
    client.expect("RPUSH queue a", ":1");
    waiter.expect_next("[queue a]");
    let log = client.call("SLOWLOG GET 10").to_string();
    assert_eq!(log.matches("[BLPOP queue 0]").count(), 1, "{log}");
}

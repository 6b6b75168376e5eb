//! MULTI, EXEC, DISCARD, WATCH: atomic, and nothing run that should not be.

use std::thread::scope;

use carnelian_tests::{Reply, Server, each_way, each_way_with};

#[test]
fn commands_are_queued_and_run_as_one() {
    each_way(|client| {
        client.script(
            r#"
            MULTI => +OK
            SET a 1 => +QUEUED
            INCR a => +QUEUED
            MULTI => -ERR MULTI calls can not be nested
            GET a => +QUEUED
            PING => +QUEUED
            SELECT 3 => +QUEUED
            SET b 2 => +QUEUED
            EXEC => [+OK :2 2 +PONG +OK +OK]
            GET b => 2
            SELECT 0 => +OK
            EXEC => -ERR EXEC without MULTI
            DISCARD => -ERR DISCARD without MULTI
            MULTI => +OK
            EXEC => []
            MULTI => +OK
            LPUSH a x => +QUEUED
            SET b 3 => +QUEUED
            "#,
        );
        let replies = client.call("EXEC").elements();
        assert!(replies[0].is_error(), "one fails, the others run: {replies:?}");
        client.expect("GET b", "3");
    });
}

#[test]
fn what_changes_nothing_breaks_no_transaction() {
    const IN_VAIN: &str = "HINCRBY h text 1|HINCRBYFLOAT h text 1|HINCRBY h most 1|HSETNX h text x|\
        HDEL h none|HGETDEL h FIELDS 1 none|HGETEX h PERSIST FIELDS 1 text|\
        HGETEX h EX 100 FIELDS 1 none|HEXPIRE h 100 XX FIELDS 1 text|HEXPIRE h 0 FIELDS 1 none|\
        HPERSIST h FIELDS 1 text|HSETEX h FNX FIELDS 1 text x|HSETEX h FXX FIELDS 1 none x|\
        ZADD z 1 a|ZADD z NX 5 a|ZADD z XX 5 none|ZADD z GT 0 a|ZINCRBY z 0 a|ZREM z none|\
        ZPOPMIN z 0|ZREMRANGEBYSCORE z 8 9|ZREMRANGEBYRANK z 8 9|ZREMRANGEBYLEX z [x [y|\
        GEOADD g XX 1 1 none|SADD s a|SREM s none|LREM l 0 none|LPOP l 0|PFADD p a|\
        PFDEBUG GETREG p|PFDEBUG TODENSE p|XDEL x 9-9|XSETID x 7-7|PERSIST z|EXPIRE z 100 XX";
    each_way(|client| {
        client.script(
            r#"
            HSET h text a most 9223372036854775807 => :2
            ZADD z 1 a 2 b => :2
            GEOADD g 1 1 here => :1
            SADD s a => :1
            RPUSH l a => :1
            PFADD p a => :1
            XADD x 1-1 f v => 1-1
            "#,
        );
        for command in IN_VAIN.split('|') {
            client.expect("WATCH h z g s l p x", "+OK");
            client.call(command);
            client.expect("MULTI", "+OK");
            let reply = client.call("EXEC");
            assert!(!reply.is_null(), "after {command}");
        }
        for command in ["HDEL h text", "ZADD z 9 a", "ZREM z b", "HSET h f v"] {
            client.expect("WATCH h z", "+OK");
            client.call(command);
            client.expect("MULTI", "+OK");
            client.expect("EXEC", "nil");
        }
    });
}

#[test]
fn a_refused_command_spoils_the_transaction() {
    each_way(|client| {
        client.script(
            r#"
            MULTI => +OK
            SET a 1 => +QUEUED
            GET => -ERR wrong number of arguments for 'get' command
            EXEC => -EXECABORT Transaction discarded because of previous errors.
            GET a => nil
            MULTI => +OK
            SET a => -ERR wrong number of arguments for 'set' command
            EXEC => -EXECABORT Transaction discarded because of previous errors.
            MULTI => +OK
            SET a 1 => +QUEUED
            EXEC x => -EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command
            EXEC => -ERR EXEC without MULTI
            MULTI => +OK
            WATCH a => -ERR WATCH inside MULTI is not allowed
            SET a 1 => +QUEUED
            EXEC => [+OK]
            MULTI => +OK
            SET a 2 => +QUEUED
            DISCARD => +OK
            GET a => 1
            MULTI => +OK
            SET a 2 => +QUEUED
            RESET => +RESET
            "#,
        );
    });
}

#[test]
fn an_expired_key_that_comes_with_a_swap_changes_nothing() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.call("DEBUG SET-ACTIVE-EXPIRE 0");
    for prepare in ["PING", "SET a 1 PX 1"] {
        client.call("FLUSHALL");
        client.call("SET a 2 PX 1");
        client.expect("SELECT 1", "+OK");
        client.call(prepare);
        client.expect("DEBUG SLEEP 0.002", "+OK");
        client.expect("WATCH a", "+OK");
        client.expect("SWAPDB 0 1", "+OK");
        client.expect("MULTI", "+OK");
        client.expect("PING", "+QUEUED");
        client.expect("EXEC", "[+PONG]");
        client.expect("SELECT 0", "+OK");
    }
}

#[test]
fn a_changed_key_stops_those_who_watch_it() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    for (prepare, change) in [
        ("SET a 1", "SET a 1"),
        ("DEL a", "SET a 1"),
        ("SET a 1", "DEL a"),
        ("SET a 1", "FLUSHALL"),
        ("SET a 1", "FLUSHDB"),
        ("SET a 1", "SWAPDB 0 1"),
        ("SET a 1", "PEXPIRE a 0"),
        ("SET a 1", "APPEND a x"),
        ("RPUSH l a", "RENAME l a"),
        ("SET a 1", "MOVE a 1"),
        ("DEL a", "LPUSH a x"),
        ("RPUSH a x", "LPOP a"),
        ("HSET a f v", "HDEL a f"),
        ("SADD a m", "SREM a m"),
        ("ZADD a 1 m", "ZINCRBY a 1 m"),
        ("XADD a 1-1 f v", "XDEL a 1-1"),
    ] {
        client.call("FLUSHALL");
        client.call(prepare);
        client.expect("WATCH a", "+OK");
        other.call(change);
        client.expect("MULTI", "+OK");
        client.expect("PING", "+QUEUED");
        let reply = client.call("EXEC");
        assert!(reply.is_null(), "{prepare}, then {change}: {reply:?}");
        // A watch lasts for one transaction.
        client.script("MULTI => +OK\nPING => +QUEUED\nEXEC => [+PONG]");
    }
    for (prepare, change) in [
        ("SET a 1", "GET a"),
        ("SET a 1", "SET b 1"),
        ("DEL a", "FLUSHALL"),
        ("DEL a", "DEL a"),
        ("SADD a m", "SADD a m"),
        ("SET a 1", "OBJECT ENCODING a"),
    ] {
        client.call("FLUSHALL");
        client.call(prepare);
        client.expect("WATCH a", "+OK");
        other.call(change);
        client.script("MULTI => +OK\nPING => +QUEUED\nEXEC => [+PONG]");
    }
    client.script(
        "SET a 1 => +OK\nWATCH a => +OK\nSET a 2 => +OK\nMULTI => +OK\nPING => +QUEUED\nEXEC => nil",
    );
    client.script(
        "WATCH a => +OK\nSET a 2 => +OK\nUNWATCH => +OK\nMULTI => +OK\nPING => +QUEUED\nEXEC => [+PONG]",
    );
}

#[test]
fn a_watched_key_that_expires_has_changed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.expect("SET a 1 PX 30", "+OK");
    client.expect("WATCH a", "+OK");
    server.connect().eventually("EXISTS a", ":0");
    client.script("MULTI => +OK\nPING => +QUEUED\nEXEC => nil");
}

#[test]
fn what_needs_more_than_keys_runs_in_a_transaction_too() {
    each_way_with(&["--enable-debug-command", "yes"], |client| {
        client.script(
            r#"
            FLUSHALL => +OK
            MULTI => +OK
            SET a 1 => +QUEUED
            DBSIZE => +QUEUED
            MEMORY USAGE nosuch => +QUEUED
            INFO keyspace => +QUEUED
            FLUSHALL => +QUEUED
            KEYS * => +QUEUED
            SET b 1 => +QUEUED
            RANDOMKEY => +QUEUED
            SWAPDB 0 1 => +QUEUED
            EXISTS b => +QUEUED
            SCAN 0 COUNT 1000 => +QUEUED
            DEBUG DIGEST-VALUE b => +QUEUED
            CONFIG GET maxclients => +QUEUED
            "#,
        );
        let Reply::Array(replies) = client.call("EXEC") else { panic!("no array") };
        assert_eq!(replies.len(), 13);
        assert_eq!(replies[1], Reply::Integer(1));
        assert!(replies[3].text().contains("db0:keys=1"), "{:?}", replies[3]);
        assert!(replies[5].elements().is_empty());
        assert_eq!(replies[7].text(), "b");
        assert_eq!(replies[9], Reply::Integer(0));
        client.expect("SWAPDB 0 1", "+OK");
        client.expect("EXISTS b", ":1");
    });
}

/// Each client moves one unit from a key to another while it watches both; none is lost or made.
#[test]
fn optimistic_transfers_from_many_reactors_keep_the_sum() {
    let server = Server::start(&["--io-threads", "4"]);
    server.connect().expect("MSET a 1000 b 1000", "+OK");
    let done = scope(|threads| {
        let transfers: Vec<_> = (0..4)
            .map(|place| {
                let mut client = server.connect();
                let (from, to) = if place % 2 == 0 { ("a", "b") } else { ("b", "a") };
                threads.spawn(move || {
                    let mut done = 0_i64;
                    for _ in 0..500 {
                        client.call_words(&["WATCH", from, to]);
                        let have: i64 = client.call_words(&["GET", from]).text().parse().unwrap();
                        let there: i64 = client.call_words(&["GET", to]).text().parse().unwrap();
                        client.call("MULTI");
                        client.call_words(&["SET", from, &(have - 1).to_string()]);
                        client.call_words(&["SET", to, &(there + 1).to_string()]);
                        done += i64::from(!client.call("EXEC").is_null());
                    }
                    if place % 2 == 0 { done } else { -done }
                })
            })
            .collect();
        transfers.into_iter().map(|transfer| transfer.join().unwrap()).sum::<i64>()
    });
    let mut client = server.connect();
    client.expect("GET a", &format!("{}", 1000 - done));
    client.expect("GET b", &format!("{}", 1000 + done));
}

/// One transaction takes its locks as it goes, the other in advance; both change both keys.
#[test]
fn transactions_of_either_kind_are_atomic_to_each_other() {
    let server = Server::start(&["--io-threads", "4"]);
    scope(|threads| {
        for place in 0..4 {
            let mut client = server.connect();
            threads.spawn(move || {
                for _ in 0..300 {
                    client.call("MULTI");
                    client.call("INCR x");
                    if place % 2 == 0 {
                        client.call("PING");
                    }
                    client.call("INCR y");
                    client.call("MGET x y");
                    let reply = client.call("EXEC").elements();
                    let seen = reply.last().expect("four replies").elements();
                    assert_eq!(seen[0], seen[1]);
                }
            });
        }
    });
    server.connect().expect("MGET x y", "[1200 1200]");
}

#[test]
fn what_is_only_looked_at_may_be_locked_late() {
    each_way(|client| {
        // TIME, a command of the server, leaves the locks to be taken as keys are reached.
        client.script(
            r#"
            HSET h a 1 => :1
            SADD s a => :1
            MULTI => +OK
            HTTL h FIELDS 2 a => +QUEUED
            TIME => +QUEUED
            "#,
        );
        let replies = client.call("EXEC").elements();
        assert!(replies[0].is_error() && replies.len() == 2, "{replies:?}");
        client.script(
            r#"
            EVAL "return redis.pcall('HGETEX', 'h', 'EX', 'x', 'FIELDS', 1, 'a').err" 0 => "ERR value is not an integer or out of range"
            EVAL "return redis.pcall('HTTL', 's', 'FIELDS', 2, 'a').err" 0 => "WRONGTYPE Operation against a key holding the wrong kind of value"
            "#,
        );
    });
}

#[test]
fn a_group_that_goes_breaks_no_watch() {
    each_way(|client| {
        client.script(
            r#"
            XGROUP CREATE s g $ MKSTREAM => +OK
            WATCH s => +OK
            XGROUP DESTROY s g => :1
            MULTI => +OK
            PING => +QUEUED
            EXEC => [+PONG]
            "#,
        );
    });
}

#[test]
fn a_broken_watch_is_seen_by_others() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    let flags = |client: &mut carnelian_tests::Client| {
        let line = client.call("CLIENT INFO").text();
        line.split(' ').find_map(|field| field.strip_prefix("flags=")).unwrap().to_owned()
    };
    client.script("WATCH k => +OK\n");
    assert_eq!(flags(&mut client), "N");
    other.expect("SET k 1", "+OK");
    assert_eq!(flags(&mut client), "d");
    client.script("UNWATCH => +OK\n");
    assert_eq!(flags(&mut client), "N");
}

#[test]
fn what_a_script_says_of_itself_holds_for_its_transaction() {
    let server = Server::start(&[]);
    let (mut client, mut reader) = (server.connect(), server.connect());
    for (client, script) in
        [(&mut client, "#!lua\nreturn 1"), (&mut reader, "#!lua flags=no-writes\nreturn 1")]
    {
        client.expect("MULTI", "+OK");
        assert_eq!(client.call_words(&["EVAL", script, "0"]).text(), "QUEUED");
    }
    server.connect().expect("REPLICAOF 127.0.0.1 1", "+OK");
    client.expect("EXEC", "-EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.");
    reader.expect("EXEC", "[:1]");
}

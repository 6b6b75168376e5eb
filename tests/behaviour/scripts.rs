//! EVAL, FCALL, SCRIPT and FUNCTION: scripts as one with the rest of the server.

use std::thread::scope;

use carnelian_tests::server::free_port;
use carnelian_tests::{Server, each_way};

#[test]
fn scripts_run_commands() {
    each_way(|client| {
        client.script(
            r#"
            EVAL "return redis.call('SET', KEYS[1], ARGV[1])" 1 k v => +OK
            GET k => v
            EVAL "return {KEYS[1], ARGV[1], #KEYS, #ARGV}" 1 a b c => [a b :1 :2]
            EVAL "return redis.call('INCR', 'n') + 1" 0 => :2
            "#,
        );
        client.expect(
            r#"EVAL "return redis.pcall('LPUSH', 'k', 'x')" 0"#,
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
        );
        client.expect(r#"EVAL "return 1" x"#, "-ERR value is not an integer or out of range");
        client.expect(
            r#"EVAL "return 1" 2 a"#,
            "-ERR Number of keys can't be greater than number of args",
        );
        client.expect(r#"EVAL "return 1" -1"#, "-ERR Number of keys can't be negative");
        client.expect(
            r#"EVAL "return redis.pcall('MULTI')" 0"#,
            "-ERR This Redis command is not allowed from script",
        );
        client.expect(
            r#"EVAL_RO "return redis.pcall('SET', 'k', 'x')" 0"#,
            "-ERR Write commands are not allowed from read-only scripts.",
        );
        client.expect("GET k", "v");
    });
}

#[test]
fn scripts_are_kept_by_their_digest() {
    each_way(|client| {
        client.script(
            r#"
            SCRIPT FLUSH => +OK
            EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0 => -NOSCRIPT No matching script. Please use EVAL.
            SCRIPT LOAD "return 1" => e0e1f9fabfc9d4800c877a703b823ac0578ff8db
            EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0 => :1
            EVALSHA E0E1F9FABFC9D4800C877A703B823AC0578FF8DB 0 => :1
            SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db x => [:1 :0]
            SCRIPT FLUSH ASYNC => +OK
            SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db => [:0]
            SCRIPT FLUSH x => -ERR SCRIPT FLUSH only support SYNC|ASYNC option
            SCRIPT KILL => -NOTBUSY No scripts in execution right now.
            "#,
        );
    });
}

#[test]
fn scripts_are_part_of_a_transaction() {
    each_way(|client| {
        client.script(
            r#"
            MULTI => +OK
            SET k 1 => +QUEUED
            EVAL "return redis.call('INCR', KEYS[1])" 1 k => +QUEUED
            INCR k => +QUEUED
            EXEC => [+OK :2 :3]
            SELECT 1 => +OK
            EVAL "redis.call('SELECT', 2) return redis.call('SET', 'other', 'x')" 0 => +OK
            GET other => nil
            SELECT 2 => +OK
            GET other => x
            SELECT 0 => +OK
            "#,
        );
    });
}

#[test]
fn a_script_wakes_who_waits() {
    let server = Server::start(&[]);
    let (mut waiter, mut client) = (server.connect(), server.connect());
    waiter.send_words(&["BLPOP", "queue", "0"]);
    while client.call("CLIENT LIST").text().matches("cmd=blpop").count() == 0 {}
    client.expect(r#"EVAL "return redis.call('RPUSH', KEYS[1], 'a', 'b')" 1 queue"#, ":2");
    waiter.expect_next("[queue a]");
    client.expect(r#"EVAL "return redis.call('BLPOP', 'nosuch', 0) == false" 0"#, ":1");
}

#[test]
fn scripts_are_atomic() {
    let server = Server::start(&["--io-threads", "4"]);
    scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = server.connect();
                for _ in 0..200 {
                    client.call(
                        r#"EVAL "local n = tonumber(redis.call('GET', 'a') or 0) redis.call('SET', 'a', n + 1) redis.call('INCR', 'b') return 1" 0"#,
                    );
                    let pair = client.call("MGET a b").elements();
                    assert_eq!(pair[0], pair[1]);
                }
            });
        }
    });
    server.connect().expect("MGET a b", "[800 800]");
}

#[test]
fn functions_are_loaded_and_called() {
    each_way(|client| {
        client.call("FUNCTION FLUSH");
        let code = "#!lua name=lib\nredis.register_function('put', function(keys, args) return \
                    redis.call('SET', keys[1], args[1]) end) redis.register_function{function_name=\
                    'look', callback=function(keys) return redis.call('GET', keys[1]) end, \
                    flags={'no-writes'}}";
        let reply = client.call_words(&["FUNCTION", "LOAD", code]);
        assert_eq!(reply.text(), "lib");
        client.script(
            r#"
            FCALL put 1 k v => +OK
            FCALL LOOK 1 k => v
            FCALL_RO look 1 k => v
            FCALL_RO put 1 k v => -ERR Can not execute a script with write flag using *_ro command.
            FCALL nosuch 0 => -ERR Function not found
            FCALL look x => -ERR Bad number of keys provided
            FUNCTION DELETE nosuch => -ERR Library not found
            FUNCTION KILL => -NOTBUSY No scripts in execution right now.
            "#,
        );
        let payload = client.call("FUNCTION DUMP");
        let payload = payload.bytes().to_vec();
        client.expect("FUNCTION DELETE lib", "+OK");
        client.expect("FCALL look 1 k", "-ERR Function not found");
        let restored = client.call_words(&[b"FUNCTION", &b"RESTORE"[..], &payload]);
        assert_eq!(restored.text(), "OK");
        client.expect("FCALL look 1 k", "v");
        let restored = client.call_words(&[b"FUNCTION", &b"RESTORE"[..], &payload]);
        assert!(restored.is_error(), "{restored:?}");
    });
}

#[test]
fn a_script_that_may_not_is_told_so() {
    each_way(|client| {
        client.call("ACL SETUSER limited on nopass +@all -set ~allowed");
        client.script(
            r#"
            AUTH limited x => +OK
            EVAL "return redis.acl_check_cmd('SET', 'allowed', 'x')" 0 => nil
            EVAL "return redis.acl_check_cmd('GET', 'allowed')" 0 => :1
            EVAL "return redis.acl_check_cmd('GET', 'other')" 0 => nil
            "#,
        );
        let refused = client.call(r#"EVAL "return redis.pcall('SET', 'allowed', 'x')" 0"#);
        let expected = "ERR ACL failure in script";
        assert!(refused.text().contains(expected), "{refused:?}");
    });
}

#[test]
fn replies_keep_their_types() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.call("HSET h a 1");
    client.expect(r#"EVAL "return redis.call('HGETALL', 'h')" 0"#, "[a 1]");
    client.expect(r#"EVAL "redis.setresp(3) return redis.call('HGETALL', 'h')" 0"#, "[a 1]");
    client.expect(r#"EVAL "redis.setresp(3) return {double = 0.5}" 0"#, "0.5");
}

/// Requests that reach a busy reactor together with that of a script which does not end.
#[test]
fn who_comes_with_an_endless_script_is_answered() {
    let server = Server::start(&["--io-threads", "1", "--busy-reply-threshold", "10"]);
    for kill in [&b"*2\r\n$6\r\nSCRIPT\r\n$4\r\nKILL\r\n"[..], b"script kill\r\n"] {
        let mut sleeper = server.connect();
        let mut caller = server.connect();
        let mut others = [server.connect(), server.connect()];
        sleeper.send_words(&["DEBUG", "SLEEP", "0.2"]);
        caller.send_words(&["EVAL", "while true do end", "0"]);
        for other in &mut others {
            other.send(b"GET k\r\n");
        }
        sleeper.expect_next("+OK");
        let [first, second] = &mut others;
        let busy = "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN \
                    NOSAVE.";
        first.expect_next(busy);
        // More of the script's own client, after another has been served from inside.
        caller.send(b"PING\r\n");
        second.expect_next(busy);
        second.expect("GET k", busy);
        first.send(kill);
        first.expect_next("+OK");
        let reply = caller.read();
        assert!(reply.text().contains("killed by user"), "{reply:?}");
        caller.expect_next("+PONG");
    }
}

#[test]
fn what_a_script_is_called_with_is_told_right() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.script(
        r#"
        COMMAND GETKEYS EVAL "return 1" 0 => []
        COMMAND GETKEYS EVAL "return 1" 1 k => [k]
        COMMAND GETKEYS EVAL "return 1" +1 k => [k]
        COMMAND GETKEYS EVAL "return 1" -1 k => []
        CLIENT SETINFO LIB-NAME "\x00 a" => +OK
        CLIENT SETINFO LIB-NAME "a \x00" => -ERR LIB-NAME cannot contain spaces, newlines or special characters.
        EVAL "return {ok = 'a\\0b'}" 0 => +a
        EVAL "return redis.error_reply('MY text\\0b')" 0 => -MY text
        EVAL "error('x\\0y')" 0 => -ERR user_script:1: x script: ...
        FUNCTION FLUSH SYNC x => -ERR unknown subcommand or wrong number of arguments for 'flush'. Try FUNCTION HELP.
        EVAL_RO "return redis.pcall('PUBLISH', 'c', 'm')" 0 => -ERR Write commands are not allowed from read-only scripts.
        DEBUG SET-DISABLE-DENY-SCRIPTS 1 => +OK
        EVAL "return redis.call('CLIENT', 'SETNAME', 'x')" 0 => +OK
        DEBUG SET-DISABLE-DENY-SCRIPTS 0 => +OK
        EVAL "return redis.pcall('CLIENT', 'SETNAME', 'x')" 0 => -ERR This Redis command is not allowed from script
        ACL SETUSER limited on nopass +@all -incr ~* => +OK
        AUTH limited x => +OK
        "#,
    );
    let mut other = server.connect();
    client.call(r#"EVAL "return redis.pcall('INCR', 'n')" 0"#);
    let seen = other.call("ACL LOG 1").elements()[0].elements();
    assert!(seen.iter().any(|field| field.to_string().contains(" cmd=eval ")), "{seen:?}");
}

#[test]
fn a_replica_runs_the_scripts_that_may_run_there() {
    // Nobody listens there, so there is never a link.
    let primary = free_port().to_string();
    let settings = ["--replica-serve-stale-data", "no"];
    let server = Server::start(&settings);
    let mut client = server.connect();
    client.expect("SET a 1", "+OK");
    client.expect(
        r##"FUNCTION LOAD "#!lua name=l\nredis.register_function('f', function() return 1 end)""##,
        "l",
    );
    client.expect(&format!("REPLICAOF 127.0.0.1 {primary}"), "+OK");
    client.script(
        r##"
        EVAL "return 1" 0 => -MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.
        EVAL "#!lua\nreturn 1" 0 => -READONLY You can't write against a read only replica.
        FCALL f 0 => -READONLY You can't write against a read only replica.
        EVAL "#!lua flags=no-writes\nreturn 1" 0 => -MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.
        EVAL "#!lua flags=no-writes,allow-stale\nreturn 1" 0 => :1
        EVAL "#!lua flags=no-writes,allow-stale,no-cluster,allow-cross-slot-keys\nreturn 1" 0 => :1
        EVAL "#!lua flags=no-writes,allow-stale\nreturn redis.call('get', 'a')" 1 a => -ERR Can not execute the command on a stale replica...
        MULTI => +OK
        EVAL "#!lua\nreturn 1" 0 => -READONLY You can't write against a read only replica.
        EXEC => -EXECABORT Transaction discarded because of previous errors.
        CONFIG SET replica-serve-stale-data yes => +OK
        EVAL "#!lua flags=no-writes\nreturn redis.call('get', 'a')" 1 a => 1
        EVAL "#!lua\nreturn 1" 0 => -READONLY You can't write against a read only replica.
        EVAL "return redis.call('get', 'a')" 1 a => 1
        EVAL "return redis.call('set', 'a', 2)" 1 a => -READONLY You can't write against a read only replica...
        REPLICAOF NO ONE => +OK
        FCALL f 0 => :1
        CONFIG SET min-replicas-to-write 1 => +OK
        FCALL f 0 => -NOREPLICAS Not enough good replicas to write.
        EVAL "#!lua flags=no-writes\nreturn 1" 0 => :1
        "##,
    );
}

#[test]
fn a_script_that_ends_in_an_error_has_failed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for script in ["return redis.pcall('SELECT', 99)", "return redis.call('SELECT', 99)", "x()"] {
        client.expect("CONFIG RESETSTAT", "+OK");
        assert!(client.call_words(&["EVAL", script, "0"]).is_error());
        let figures = client.info("cmdstat_eval");
        assert!(figures.ends_with("failed_calls=1"), "{script}: {figures}");
        assert_eq!(client.info("total_error_replies"), "1", "{script}");
    }
}

#[test]
fn evicted_scripts_are_counted_anew_after_a_reset() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for n in 0..502 {
        client.expect(&format!("EVAL 'return {n}' 0"), &format!(":{n}"));
    }
    assert_eq!(client.info("evicted_scripts"), "2");
    client.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(client.info("evicted_scripts"), "0");
    client.expect("EVAL 'return 502' 0", ":502");
    assert_eq!(client.info("evicted_scripts"), "1");
}

//! SCRIPT DEBUG and the debugger of scripts, as `redis-cli --ldb` speaks to it.

use std::time::Duration;

use carnelian_tests::server::Signal;
use carnelian_tests::{Client, Reply, Server, is_carnelian};

const ADD: &str = "local sum = 0\nfor i = 1, 2 do\n  sum = sum + i\nend\nredis.call('set', KEYS[1], sum)\nreturn redis.call('incr', KEYS[1])";

/// Begins a session; what is told at the first stop.
fn begin(client: &mut Client, mode: &str, script: &str, keys: &[&str]) -> Vec<String> {
    client.expect(&format!("SCRIPT DEBUG {mode}"), "+OK");
    let count = keys.len().to_string();
    let words = ["EVAL", script, &count].into_iter().chain(keys.iter().copied());
    client.send_words(&words.collect::<Vec<_>>());
    lines(&client.read())
}

fn lines(reply: &Reply) -> Vec<String> {
    reply.elements().iter().map(Reply::text).collect()
}

fn ask(client: &mut Client, command: &str) -> Vec<String> {
    client.send_words(&command.split(' ').collect::<Vec<_>>());
    lines(&client.read())
}

/// Plain and over TLS.
fn clients(server: &Server) -> Vec<Client> {
    let mut clients = vec![server.connect()];
    if is_carnelian() {
        clients.push(server.connect_tls());
    }
    clients
}

fn server() -> Server {
    let starter = Server::starter();
    if is_carnelian() { starter.tls().start() } else { starter.start() }
}

#[test]
fn a_script_is_stepped_through_and_its_changes_stay_or_go() {
    let server = server();
    for (mode, kept) in [("SYNC", "4"), ("YES", "(nil)")] {
        for mut client in clients(&server) {
            let mut other = server.connect();
            other.call("DEL k");
            let first = begin(&mut client, mode, ADD, &["k"]);
            assert_eq!(first, ["* Stopped at 1, stop reason = step over", "-> 1   local sum = 0"]);
            assert_eq!(ask(&mut client, "s")[1], "-> 2   for i = 1, 2 do");
            assert_eq!(ask(&mut client, "n")[1], "-> 3     sum = sum + i");
            assert_eq!(ask(&mut client, "p i"), ["<value> 1"]);
            assert_eq!(ask(&mut client, "p KEYS"), ["<value> {\"k\"}"]);
            assert_eq!(
                ask(&mut client, "b 5"),
                [
                    "   4   end",
                    "  #5   redis.call('set', KEYS[1], sum)",
                    "   6   return redis.call('incr', KEYS[1])"
                ]
            );
            assert_eq!(
                ask(&mut client, "c"),
                [
                    "* Stopped at 5, stop reason = break point",
                    "->#5   redis.call('set', KEYS[1], sum)"
                ]
            );
            assert_eq!(ask(&mut client, "p"), ["<value> sum = 3"]);
            assert_eq!(ask(&mut client, "s")[..2], ["<redis> set k 3", "<reply> \"+OK\""]);
            assert_eq!(ask(&mut client, "r get k"), ["<redis> get k", "<reply> \"3\""]);
            assert_eq!(ask(&mut client, "e redis.call('get', KEYS[1])"), ["<retval> \"3\""]);
            assert_eq!(ask(&mut client, "s"), ["<redis> incr k", "<reply> 4", "<endsession>"]);
            client.expect_next(":4");
            client.expect_closed();
            let found = other.call("GET k");
            assert_eq!(if found.is_null() { "(nil)".to_owned() } else { found.text() }, kept);
        }
    }
}

#[test]
fn an_aborted_script_answers_with_that() {
    let server = server();
    for mode in ["SYNC", "YES"] {
        let mut client = server.connect();
        begin(&mut client, mode, "redis.call('set', 'k', 'v')\nreturn 1", &[]);
        ask(&mut client, "s");
        assert_eq!(ask(&mut client, "a"), ["<endsession>"]);
        let text = client.read().text();
        assert!(text.starts_with("ERR script aborted for user request script: "), "{text}");
        assert!(text.ends_with(", on @user_script:2."), "{text}");
        client.expect_closed();
        let mut other = server.connect();
        other.expect("EXISTS k", if mode == "SYNC" { ":1" } else { ":0" });
        other.call("DEL k");
    }
}

#[test]
fn scripts_tell_and_stop_by_themselves() {
    let server = server();
    let mut client = server.connect();
    let script = "local function f(n)\n  redis.debug('in', n, {1, {x = true}})\n  redis.breakpoint()\n  return n\nend\nlocal v = f(7)\nreturn v";
    begin(&mut client, "YES", script, &[]);
    assert_eq!(
        ask(&mut client, "c"),
        [
            "<debug> line 2: \"in\", 7, {1; {[\"x\"]=true}}",
            "* Stopped at 4, stop reason = redis.breakpoint() called",
            "-> 4     return n"
        ]
    );
    assert_eq!(
        ask(&mut client, "t"),
        ["In f:", "-> 4     return n", "From top level:", "   6   local v = f(7)"]
    );
    assert_eq!(ask(&mut client, "p nothing"), ["No such variable."]);
    assert_eq!(ask(&mut client, "c"), ["<endsession>"]);
    client.expect_next(":7");
    client.expect_closed();
    let mut client = server.connect();
    client.expect("EVAL \"return redis.breakpoint()\" 0", "nil");
}

#[test]
fn what_cannot_run_ends_the_session_with_its_error() {
    let server = server();
    for (script, keys, error) in [
        ("return (", "0", "ERR Error compiling script (new function): user_script:1:"),
        ("return 1", "x", "ERR value is not an integer or out of range"),
        ("return 1", "2", "ERR Number of keys can't be greater than number of args"),
    ] {
        let mut client = server.connect();
        client.expect("SCRIPT DEBUG YES", "+OK");
        client.send_words(&["EVAL", script, keys]);
        assert_eq!(lines(&client.read()), ["<endsession>"]);
        let text = client.read().text();
        assert!(text.starts_with(error), "{text}");
        client.expect_closed();
    }
    let mut client = server.connect();
    begin(&mut client, "YES", "return 1", &[]);
    client.send_words(&["p", ""]);
    assert_eq!(lines(&client.read()), ["<endsession>"]);
    assert!(client.read().text().starts_with("ERR protocol error script: "));
    client.expect_closed();
    let mut client = server.connect();
    client.expect("SCRIPT DEBUG perhaps", "-ERR Use SCRIPT DEBUG YES/SYNC/NO");
    client.expect("SCRIPT DEBUG yes", "+OK");
    client.expect("SCRIPT DEBUG no", "+OK");
    client.expect("EVAL \"return 1\" 0", ":1");
}

#[test]
fn others_are_served_beside_a_script_that_is_debugged_apart() {
    let server = server();
    let mut other = server.connect();
    other.script(
        "
        SET k old => +OK
        RPUSH list a b => :2
        WATCH k => +OK
    ",
    );
    let mut client = server.connect();
    let script = "redis.call('set', 'k', 'new')\nredis.call('del', 'list')\nredis.call('flushall')\nreturn redis.call('dbsize')";
    begin(&mut client, "YES", script, &[]);
    ask(&mut client, "s");
    other.script(
        "
        GET k => old
        LRANGE list 0 -1 => [a b]
        EVAL \"return redis.call('GET', 'k')\" 0 => old
    ",
    );
    ask(&mut client, "s");
    ask(&mut client, "s");
    assert_eq!(ask(&mut client, "r keys *"), ["<redis> keys *", "<reply> []"]);
    // Nothing that it does is heard of.
    other.script(
        "
        MULTI => +OK
        GET k => +QUEUED
        EXEC => [old]
        DBSIZE => :2
    ",
    );
    let mut second = server.connect();
    begin(&mut second, "YES", "return redis.call('get', 'k')", &[]);
    assert_eq!(ask(&mut second, "s")[1], "<reply> \"old\"");
    second.expect_next("old");
    assert_eq!(ask(&mut client, "c"), ["<endsession>"]);
    client.expect_next(":0");
    client.expect_closed();
    other.expect("LLEN list", ":2");
}

/// Redis keeps everybody waiting.
#[test]
fn others_are_told_that_a_script_is_debugged_in_place() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--busy-reply-threshold", "100"]);
    let mut other = server.connect();
    let mut client = server.connect();
    begin(&mut client, "SYNC", "return redis.call('get', 'k')", &[]);
    let start = std::time::Instant::now();
    while !other.call("SET x 1").text().starts_with("BUSY ") {
        assert!(start.elapsed() < Duration::from_secs(20), "the script is noticed");
    }
    assert_eq!(ask(&mut client, "r set k v")[1], "<reply> \"+OK\"");
    other.expect("SCRIPT KILL", "-UNKILLABLE...");
    assert_eq!(ask(&mut client, "c"), ["<endsession>"]);
    client.expect_next("v");
    client.expect_closed();
    other.eventually("GET k", "v");

    let mut client = server.connect();
    begin(&mut client, "SYNC", "return 1", &[]);
    other.eventually("SCRIPT KILL", "+OK");
    assert_eq!(lines(&client.read()), ["<endsession>"]);
    assert!(client.read().is_error());
    client.expect_closed();
    other.eventually("PING", "+PONG");
}

#[test]
fn a_script_whose_client_goes_runs_to_its_end() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--busy-reply-threshold", "100"]);
    let mut other = server.connect();
    let mut client = server.connect();
    begin(&mut client, "SYNC", "redis.call('set', 'k', '1')\nreturn redis.call('incr', 'k')", &[]);
    drop(client);
    other.eventually("GET k", "2");
    // One that would never end is ended.
    let mut client = server.connect();
    begin(&mut client, "SYNC", "while true do\n  pcall(error)\nend", &[]);
    drop(client);
    other.eventually("SET k 3", "+OK");
    // Only another script has to wait for its end.
    other.eventually("EVAL \"return redis.call('GET', 'k')\" 0", "3");
}

#[test]
fn code_of_the_client_cannot_run_for_ever() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--busy-reply-threshold", "100"]);
    let mut client = server.connect();
    begin(&mut client, "YES", "local a = 1\nreturn a", &[]);
    let told = ask(&mut client, "e while true do end");
    assert_eq!(told, ["<error> the code has run for too long"]);
    for (code, shown) in [
        ("redis.call('nosuch')", "<error> Unknown Redis command called from script"),
        ("cjson.decode('x')", "<error> ldb_eval:1: Expected value but found invalid token"),
        ("coroutine.yield()", "<error> attempt to yield across metamethod/C-call boundary"),
        ("error({1})", "<error> nil"),
        ("{}", "<retval> {}"),
    ] {
        let told = ask(&mut client, &format!("e {code}"));
        assert!(told[0].starts_with(shown), "{told:?}");
    }
    assert_eq!(ask(&mut client, "c"), ["<endsession>"]);
    client.expect_next(":1");
}

#[test]
fn a_server_ends_although_a_script_is_debugged() {
    if !is_carnelian() {
        return;
    }
    let mut server = Server::start(&["--save", "3600 1"]);
    let mut client = server.connect();
    begin(&mut client, "SYNC", "redis.call('set', 'k', 'v')\nreturn 1", &[]);
    ask(&mut client, "s");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
}

#[test]
fn what_is_debugged_in_place_is_logged() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = server.connect();
    begin(
        &mut client,
        "SYNC",
        "redis.call('set', 'k', 'v')\nreturn redis.call('lpush', 'l', '1')",
        &[],
    );
    assert_eq!(ask(&mut client, "c"), ["<endsession>"]);
    client.expect_next(":1");
    client.expect_closed();
    let mut client = server.connect();
    begin(&mut client, "YES", "return redis.call('lpush', 'l', '2')", &[]);
    assert_eq!(ask(&mut client, "c"), ["<endsession>"]);
    client.expect_next(":2");
    client.expect_closed();
    let mut other = server.connect();
    other.expect("DEBUG LOADAOF", "+OK");
    other.expect("LRANGE l 0 -1", "[1]");
    other.expect("GET k", "v");
}

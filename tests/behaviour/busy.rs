//! Scripts that run for too long: what others are told meanwhile, and how such a script ends.
//!
//! One client runs the script. Others, old and new ones, on its own reactor and on others, plain and
//! over TLS, are answered while it runs.

use std::fs;
use std::time::{Duration, Instant};

use carnelian_tests::{Client, Reply, Server, encode, is_carnelian};

const BUSY: &str =
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const BUSY_FUNCTION: &str =
    "-BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";
const UNKILLABLE: &str = "-UNKILLABLE Sorry the script already executed write commands against the \
                          dataset. You can either wait the script termination or kill the server in \
                          a hard way using the SHUTDOWN NOSAVE command.";

const LIBRARY: &str = r##"FUNCTION LOAD "#!lua name=lib\nredis.register_function('spin', function() while true do end end) redis.register_function('other', function() return 1 end)""##;

/// With one reactor all clients share the script's; with more some do.
fn servers() -> impl Iterator<Item = Server> {
    let threads: &[&str] = if is_carnelian() { &["1", "3"] } else { &["1"] };
    threads.iter().map(|threads| {
        let args = ["--busy-reply-threshold", "50", "--io-threads", threads];
        Server::starter().args(&args).tls().start()
    })
}

/// Clients that were there before the script, and others that come while it runs.
fn old_clients(server: &Server) -> Vec<Client> {
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    clients.push(server.connect_tls());
    for client in &mut clients {
        client.expect("PING", "+PONG");
    }
    clients
}

fn until_busy(client: &mut Client, text: &str) {
    let start = Instant::now();
    while client.call("PING").text() != text[1..] {
        assert!(start.elapsed() < Duration::from_secs(20), "the script is noticed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn expect_killed(client: &mut Client) {
    let reply = client.read();
    assert!(reply.is_error(), "{}", reply.text());
    let text = reply.text();
    assert!(
        text.starts_with("ERR Error running script") || text.contains("killed by user"),
        "{text}"
    );
}

#[test]
fn others_are_told_and_can_end_it() {
    for server in servers() {
        let mut others = old_clients(&server);
        for mut runner in [server.connect(), server.connect_tls()] {
            others[0].expect("SET k v", "+OK");
            runner.send(b"EVAL \"while true do redis.call('GET', 'k') end\" 0\r\nPING\r\n");
            until_busy(&mut others[0], BUSY);
            let mut late = [server.connect(), server.connect_tls()];
            for client in others.iter_mut().chain(&mut late) {
                client.expect("GET k", BUSY);
                client.expect("EVAL \"return 1\" 0", BUSY);
                client.expect("FUNCTION KILL", BUSY);
                client.expect("FUNCTION STATS", BUSY);
                client.expect("MULTI", "+OK");
                client.expect("DISCARD", "+OK");
            }
            late[1].expect("SCRIPT KILL", "+OK");
            expect_killed(&mut runner);
            runner.expect_next("+PONG");
            for client in others.iter_mut().chain(&mut late) {
                client.expect("GET k", "v");
            }
            others[0].expect("SCRIPT KILL", "-NOTBUSY No scripts in execution right now.");
        }
    }
}

#[test]
fn functions_are_ended_by_their_own_command() {
    for server in servers() {
        let mut others = old_clients(&server);
        others[0].expect(LIBRARY, "lib");
        let mut runner = server.connect();
        runner.send(b"FCALL spin 1 some-key\r\n");
        until_busy(&mut others[1], BUSY_FUNCTION);
        let mut late = server.connect_tls();
        late.expect("GET k", BUSY_FUNCTION);
        late.expect("SCRIPT KILL", BUSY_FUNCTION);
        let stats = others[3].call("FUNCTION STATS");
        let running = stats.elements()[1].elements();
        assert_eq!((running[0].text(), running[1].text()), ("name".into(), "spin".into()));
        let words: Vec<_> = running[3].elements().iter().map(Reply::text).collect();
        assert_eq!(words, ["FCALL", "spin", "1", "some-key"]);
        let counts = stats.elements()[3].elements()[1].elements();
        assert_eq!((counts[1].integer(), counts[3].integer()), (1, 2));
        late.expect("FUNCTION KILL", "+OK");
        expect_killed(&mut runner);
        runner.expect("FCALL other 0", ":1");
    }
}

#[test]
fn a_script_that_has_written_goes_on_until_the_server_ends() {
    for server in servers() {
        let mut others = old_clients(&server);
        let mut runner = server.connect();
        runner.send(b"EVAL \"redis.call('SET', 'k', 'v') while true do end\" 0\r\n");
        until_busy(&mut others[2], BUSY);
        others[3].expect("SCRIPT KILL", UNKILLABLE);
        let mut late = server.connect();
        late.expect("SHUTDOWN", BUSY);
        late.send(b"SHUTDOWN NOSAVE\r\n");
        late.expect_closed();
    }
}

#[test]
fn memory_without_end_and_large_arguments_leave_others_served() {
    if !is_carnelian() {
        return;
    }
    let server = Server::starter().args(&["--busy-reply-threshold", "50"]).start();
    let (mut runner, mut other) = (server.connect(), server.connect());
    // A gigabyte is what Lua gets. Who catches that it is used up may try again.
    runner.send(
        b"EVAL \"while true do \
          pcall(function() local t = {} while true do t[#t + 1] = {{}, {}} end end) end\" 0\r\n",
    );
    until_busy(&mut other, BUSY);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        other.expect("GET k", BUSY);
    }
    other.expect("SCRIPT KILL", "+OK");
    expect_killed(&mut runner);
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak_kb < 1_400_000, "{peak_kb} kB");
    runner.send(b"EVAL \"local s = 'x' while true do s = s .. s end\" 0\r\n");
    let reply = runner.read();
    assert!(reply.text().contains("not enough memory"), "{}", reply.text());
    // Of an argument on its way others notice nothing.
    let argument = vec![b'x'; 16 << 20];
    let mut request = Vec::new();
    encode(&[b"EVAL", &b"return #ARGV[1]"[..], b"0", &argument], &mut request);
    let (first, rest) = request.split_at(10 << 20);
    runner.send(first);
    other.expect("SET k v", "+OK");
    runner.send(rest);
    runner.expect_next(":16777216");
    runner.expect("EVAL \"return redis.call('GET', 'k')\" 0", "v");
}

#[test]
fn what_there_is_of_scripts_is_shown() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.expect(r#"EVAL "return 1" 0"#, ":1");
    client.expect(r#"EVAL "return 2" 0"#, ":2");
    client.expect(LIBRARY, "lib");
    for (field, count) in [
        ("number_of_cached_scripts", "2"),
        ("number_of_libraries", "1"),
        ("number_of_functions", "2"),
    ] {
        assert_eq!(client.info(field), count, "{field}");
    }
    assert_eq!(client.info("evicted_scripts"), "0");
    for field in ["used_memory_vm_eval", "used_memory_vm_functions", "used_memory_scripts_eval"] {
        assert_ne!(client.info(field), "0", "{field}");
    }
    // From inside of a script, which has the engine.
    let inside = client.call(r#"EVAL "return redis.call('INFO', 'memory')" 0"#).text();
    assert!(inside.contains("number_of_libraries:1\r\n"), "{inside}");
    client.expect("SCRIPT FLUSH", "+OK");
    assert_eq!(client.info("number_of_cached_scripts"), "0");
    let threshold = "{busy-reply-threshold 7}";
    client.expect("CONFIG SET lua-time-limit 7", "+OK");
    client.expect("CONFIG GET busy-reply-threshold", threshold);
}

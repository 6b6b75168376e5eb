//! CONFIG and redis.conf.

use std::fs;
use std::process::Command;

use carnelian_tests::{Client, Reply, Server, each_way, is_carnelian, require_or_skip};

#[test]
fn getting() {
    each_way(|client| {
        client.script(
            r#"
            CONFIG GET timeout => {timeout 0}
            CONFIG GET TIMEOUT => {TIMEOUT 0}
            CONFIG GET nosuchthing => {}
            CONFIG GET timeout maxclients timeout => {timeout 0 maxclients ?}
            CONFIG GET hash-max-listpack-* => {hash-max-listpack-entries 512 hash-max-listpack-value 64}
            CONFIG GET hash-max-ziplist-* => {hash-max-ziplist-entries 512 hash-max-ziplist-value 64}
            CONFIG GET slave-read-only => {slave-read-only yes}
            CONFIG GET replica-read-only => {replica-read-only yes}
            CONFIG GET [st]lave-read-onl? => {slave-read-only yes}
            CONFIG GET databases => {databases 16}
            "#,
        );
        let all = client.call("CONFIG GET *").elements();
        assert!(all.len() > 200);
    });
}

#[test]
fn setting() {
    each_way(|client| {
        client.script(
            r#"
            CONFIG SET timeout 10 => +OK
            CONFIG GET timeout => {timeout 10}
            CONFIG SET timeout 0 tcp-keepalive 100 => +OK
            CONFIG GET t[ic]*e* => ?
            CONFIG GET tcp-keepalive => {tcp-keepalive 100}
            CONFIG SET maxmemory 100mb => +OK
            CONFIG GET maxmemory => {maxmemory 104857600}
            CONFIG SET maxmemory 1gb => +OK
            CONFIG GET maxmemory => {maxmemory 1073741824}
            CONFIG SET maxmemory 5k => +OK
            CONFIG GET maxmemory => {maxmemory 5000}
            CONFIG SET maxmemory 0 => +OK
            CONFIG SET appendfsync always => +OK
            CONFIG SET appendfsync everysec => +OK
            CONFIG SET save "" => +OK
            CONFIG GET save => {save ""}
            CONFIG SET save "100 1 200 2" => +OK
            CONFIG GET save => {save "100 1 200 2"}
            CONFIG SET save "" => +OK
            CONFIG SET client-output-buffer-limit "normal 1mb 2mb 60" => +OK
            CONFIG GET client-output-buffer-limit => {client-output-buffer-limit "normal 1048576 2097152 60 slave 268435456 67108864 60 pubsub 33554432 8388608 60"}
            CONFIG SET client-output-buffer-limit "normal 0 0 0" => +OK
            CONFIG SET hash-max-ziplist-entries 99 => +OK
            CONFIG GET hash-max-listpack-entries => {hash-max-listpack-entries 99}
            CONFIG SET hash-max-listpack-entries 512 => +OK
            CONFIG RESETSTAT => +OK
            "#,
        );
    });
}

#[test]
fn refusing() {
    each_way(|client| {
        client.script(
            r#"
            CONFIG SET nosuchthing 1 => -ERR Unknown option or number of arguments for CONFIG SET - 'nosuchthing'
            CONFIG SET timeout => -ERR wrong number of arguments for 'config|set' command
            CONFIG SET timeout 1 tcp-keepalive => -ERR syntax error
            CONFIG SET timeout ten => -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer
            CONFIG SET timeout -1 => -ERR CONFIG SET failed (possibly related to argument 'timeout') - argument must be between 0 and 2147483647 inclusive
            CONFIG SET maxmemory ten => -ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value
            CONFIG SET appendonly maybe => -ERR CONFIG SET failed (possibly related to argument 'appendonly') - argument must be 'yes' or 'no'
            CONFIG SET appendfsync never => -ERR CONFIG SET failed (possibly related to argument 'appendfsync') - argument(s) must be one of the following: everysec, always, no
            CONFIG SET databases 5 => -ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config
            CONFIG SET timeout 1 timeout 2 => -ERR CONFIG SET failed (possibly related to argument 'timeout') - duplicate parameter
            CONFIG SET dir /tmp => -ERR CONFIG SET failed (possibly related to argument 'dir') - can't set protected config
            CONFIG SET timeout 77 appendfsync never => -ERR CONFIG SET failed (possibly related to argument 'appendfsync') - argument(s) must be one of the following: everysec, always, no
            CONFIG GET timeout => {timeout 0}
            CONFIG REWRITE => -ERR The server is running without a config file
            "#,
        );
        let reply = client.call_words(&[b"CONFIG".as_slice(), b"SET", b"\xd4\xbb\xf8", b"1"]);
        assert!(reply.bytes().ends_with(b"'\xd4\xbb\xf8'"), "{reply}");
    });
}

#[test]
fn rewriting_keeps_comments_and_the_next_start_understands_it() {
    let text = "# the first comment\ntimeout 11\n\n# about lists\nlist-max-listpack-size -2\n\
                maxmemory 10mb\nmaxmemory 20mb\nrename-command FLUSHALL WIPE\n";
    let mut server = Server::starter().config(text).start();
    let mut client = server.connect();
    client.expect("CONFIG GET maxmemory", "{maxmemory 20971520}");
    client.expect("CONFIG SET timeout 22 hash-max-listpack-entries 77", "+OK");
    client.expect("CONFIG SET requirepass \"pass word\"", "+OK");
    client.expect("CONFIG REWRITE", "+OK");
    let path = server.config_file().expect("started from a file").to_owned();
    let written = fs::read_to_string(&path).expect("a file");
    let lines: Vec<&str> = written.lines().collect();
    let place = |line: &str| {
        lines.iter().position(|other| *other == line).unwrap_or_else(|| panic!("{line}: {written}"))
    };
    assert!(place("# the first comment") < place("timeout 22"));
    assert!(place("timeout 22") < place("# about lists"));
    assert_eq!(lines.iter().filter(|line| line.starts_with("maxmemory ")).count(), 1);
    place("hash-max-listpack-entries 77");
    place("requirepass \"pass word\"");
    place("rename-command FLUSHALL WIPE");
    server.restart();
    let mut client = server.connect();
    client.expect("PING", "-NOAUTH Authentication required.");
    client.expect("AUTH \"pass word\"", "+OK");
    client.expect("CONFIG GET timeout", "{timeout 22}");
    client.expect("CONFIG GET hash-max-listpack-entries", "{hash-max-listpack-entries 77}");
    client.expect("FLUSHALL", "-ERR unknown command 'FLUSHALL'...");
    client.expect("WIPE", "+OK");
}

#[test]
fn files_are_read_as_redis_reads_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let included = folder.path().join("more.conf");
    fs::write(&included, "timeout 33\nhash-max-listpack-entries 5\n").expect("a writable folder");
    let text = format!(
        "  TIMEOUT   11  \n\n   # indented\ninclude {}\ninclude {}/none-*.conf\n\
         proc-title-template \"{{title}} {{listen-addr}}\"\nmaxmemory 1GB\n\
         client-output-buffer-limit normal 1k 1k 1\nrename-command DEBUG \"\"\n\
         slave-priority 55\nset-max-intset-entries 7\n",
        included.display(),
        folder.path().display(),
    );
    let server = Server::starter().config(&text).args(&["--set-max-intset-entries", "9"]).start();
    let mut client = server.connect();
    client.script(
        r#"
        CONFIG GET timeout => {timeout 33}
        CONFIG GET hash-max-listpack-entries => {hash-max-listpack-entries 5}
        CONFIG GET maxmemory => {maxmemory 1073741824}
        CONFIG GET replica-priority => {replica-priority 55}
        CONFIG GET set-max-intset-entries => {set-max-intset-entries 9}
        DEBUG HELP => -ERR unknown command 'DEBUG'...
        "#,
    );
    let file = client.info("config_file");
    assert_eq!(file, server.config_file().expect("a file").to_string_lossy());
}

#[test]
fn a_bad_file_ends_the_start_with_its_line() {
    for (line, reason) in [
        ("nosuchthing 1", "Bad directive or wrong number of arguments"),
        ("timeout", "wrong number of arguments"),
        ("timeout ten", "argument couldn't be parsed into an integer"),
        ("timeout -1", "argument must be between 0 and 2147483647 inclusive"),
        ("appendonly maybe", "argument must be 'yes' or 'no'"),
        ("appendfsync never", "argument(s) must be one of the following"),
        ("maxmemory lots", "argument must be a memory value"),
        ("rename-command NOSUCH x", "No such command in rename-command"),
        ("dir /no/such/folder", "No such file or directory"),
        ("timeout \"10", "Unbalanced quotes"),
    ] {
        // Redis 8 takes an unknown name for a module's, and ends in other words.
        if line.starts_with("nosuch") && !is_carnelian() {
            continue;
        }
        let started = Server::starter().config(&format!("# one\n{line}\n")).try_start();
        let Err(failure) = started else { panic!("started with {line}") };
        assert_eq!(failure.status.and_then(|status| status.code()), Some(1), "{line}");
        assert!(failure.output.contains("FATAL CONFIG FILE ERROR"), "{line}: {}", failure.output);
        assert!(failure.output.contains(">>> '") || line.contains('"'), "{}", failure.output);
        assert!(failure.output.contains(reason), "{line}: {}", failure.output);
    }
}

#[test]
fn listening_ports_change_while_running() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let other = carnelian_tests::server::free_port();
    client.expect(&format!("CONFIG SET port {other}"), "+OK");
    let moved = carnelian_tests::Transport::tcp(other).expect("the new port");
    carnelian_tests::Client::over(moved).expect("PING", "+PONG");
    assert!(carnelian_tests::Transport::tcp(server.port()).is_err(), "the old one is closed");
    // Those connected before stay.
    client.expect("PING", "+PONG");
    // A port that is taken is refused, and the listener stays where it was.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let number = taken.local_addr().expect("bound").port();
    client.expect(&format!("CONFIG SET port {number}"), "-ERR CONFIG SET failed...");
    let moved = carnelian_tests::Transport::tcp(other).expect("still the new port");
    carnelian_tests::Client::over(moved).expect("PING", "+PONG");
}

#[test]
fn info_sections() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.expect("SET a 1 EX 1000", "+OK");
    let sections = |reply: Reply| -> Vec<String> {
        reply.text().lines().filter_map(|line| line.strip_prefix("# ").map(str::to_owned)).collect()
    };
    assert_eq!(sections(client.call("INFO server")), ["Server"]);
    assert_eq!(sections(client.call("INFO server clients")), ["Server", "Clients"]);
    assert!(sections(client.call("INFO nosuchsection")).is_empty());
    let default = sections(client.call("INFO"));
    for section in ["Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU"] {
        assert!(default.iter().any(|other| other == section), "{section} in {default:?}");
    }
    assert!(!default.iter().any(|section| section == "Commandstats"));
    assert!(sections(client.call("INFO all")).iter().any(|section| section == "Commandstats"));
    assert_eq!(client.info("process_id"), server.pid().to_string());
    assert_eq!(client.info("tcp_port"), server.port().to_string());
    assert!(client.info("db0").starts_with("keys=1,expires=1,avg_ttl="));
    assert!(client.info("cmdstat_set").starts_with("calls=1,usec="));
    client.call("NOSUCH");
    assert!(client.info("errorstat_ERR").starts_with("count="));
    assert!(client.info("used_memory").parse::<u64>().expect("bytes") > 0);
    client.expect("CONFIG RESETSTAT", "+OK");
    assert!(!client.call("INFO commandstats").text().contains("cmdstat_set"));
}

#[test]
fn error_codes_that_clients_make_up_end_the_counting_by_codes() {
    let server = Server::start(&[]);
    let (mut one, mut other) = (server.connect(), server.connect());
    let fail = |client: &mut Client, code: &str| {
        client.call(&format!("EVAL \"return redis.error_reply('{code} x')\" 0"));
    };
    fail(&mut one, "ABCDEFGHIJKLMNOPQRSTUVWXYZ1234");
    fail(&mut other, "ABCDEFGHIJKLMNOPQRSTUVWXYZ12345");
    for number in 0..126 {
        fail(if number % 2 == 0 { &mut one } else { &mut other }, &format!("E{number}"));
    }
    fail(&mut other, "E0");
    assert_eq!(one.info("errorstat_ABCDEFGHIJKLMNOPQRSTUVWXYZ1234"), "count=1");
    assert_eq!(one.info("errorstat_ERR"), "count=1");
    assert_eq!(one.info("errorstat_E0"), "count=2");
    fail(&mut one, "E126");
    fail(&mut other, "E1");
    let shown = "errorstat_ERRORSTATS_DISABLED:count=1";
    let page = other.call("INFO errorstats").text();
    assert_eq!(
        page.lines().filter(|line| line.starts_with("errorstat_")).collect::<Vec<_>>(),
        [shown]
    );
    if is_carnelian() {
        let log = server.log();
        assert_eq!(log.matches("Errorstats stopped adding new errors").count(), 1, "{log}");
        assert_eq!(log.matches("Current errors code list: ").count(), 1, "{log}");
    }
    one.expect("CONFIG RESETSTAT", "+OK");
    fail(&mut other, "E126");
    assert_eq!(one.info("errorstat_E126"), "count=1");
}

/// `locale-collate`, where a locale can be made.
#[test]
fn texts_are_sorted_as_in_the_locale() {
    let Some(localedef) = require_or_skip("localedef") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new(localedef)
        .args(["-i", "de_DE", "-f", "UTF-8"])
        .arg(folder.path().join("de_DE.UTF-8"))
        .output()
        .expect("localedef runs");
    let place = format!("LOCPATH={}", folder.path().display());
    let clean = ["env", "-u", "LANG", "-u", "LC_ALL", "-u", "LC_COLLATE", place.as_str()];
    let server = Server::starter().through(&clean).start();
    let mut client = server.connect();
    client.expect("RPUSH l b B a A ä", ":5");
    client.expect("MSET w_a Z w_b z w_A ä w_ä a", "+OK");
    client.expect("SORT l ALPHA", "[A B a b ä]");
    client.expect("CONFIG SET locale-collate no_SUCH", "-ERR CONFIG SET failed...");
    if !made.status.success() {
        // The sources of locales are not installed.
        return;
    }
    client.expect("CONFIG SET locale-collate de_DE.UTF-8", "+OK");
    client.expect("SORT l ALPHA", "[a A ä b B]");
    client.expect("SORT l ALPHA DESC LIMIT 0 2", "[B b]");
    client.expect("SORT l BY w_* ALPHA", "[B ä A b a]");
    // What is stored is the same everywhere.
    client.expect("SORT l ALPHA STORE s", ":5");
    client.expect("LRANGE s 0 -1", "[A B a b ä]");
    client.expect("CONFIG SET locale-collate C", "+OK");
    client.expect("SORT l ALPHA", "[A B a b ä]");
    // The environment says it, where nothing else does.
    let told = ["env", "-u", "LC_ALL", "LC_COLLATE=de_DE.UTF-8", place.as_str()];
    let server = Server::starter().through(&told).start();
    let mut client = server.connect();
    client.expect("RPUSH l b B a A ä", ":5");
    client.expect("SORT l ALPHA", "[a A ä b B]");
    assert!(Server::starter().args(&["--locale-collate", "no_SUCH"]).try_start().is_err());
}

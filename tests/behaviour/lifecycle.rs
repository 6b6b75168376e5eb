//! Starting and ending, as launchers of redis-server rely on it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::server::{Ready, Signal, program};
use carnelian_tests::{Client, Server, Transport, is_carnelian, require_or_skip};

#[test]
fn a_signal_ends_it_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&[]);
        let mut client = server.connect();
        client.expect("SET a 1", "+OK");
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
        client.expect_closed();
        let log = server.log();
        let received = match signal {
            Signal::TERM => "Received SIGTERM scheduling shutdown",
            _ => "Received SIGINT scheduling shutdown",
        };
        for line in [received, "User requested shutdown", "ready to exit, bye bye"] {
            assert!(log.contains(line), "{line} in:\n{log}");
        }
    }
}

#[test]
fn shutdown_command() {
    for command in ["SHUTDOWN", "SHUTDOWN NOSAVE", "shutdown nosave now force"] {
        let mut server = Server::starter().tls().start();
        let mut client = server.connect();
        let mut other = server.connect_tls();
        client.expect("SHUTDOWN WHAT", "-ERR syntax error");
        client.expect("SHUTDOWN SAVE NOSAVE", "-ERR syntax error");
        client.expect("SHUTDOWN ABORT", "-ERR No shutdown in progress.");
        let words = carnelian_tests::words(command).expect("words");
        client.send_words(&words);
        client.expect_closed();
        // Whoever comes back now must not be let in for the last moment.
        assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err(), "{command}");
        other.expect_closed();
        assert_eq!(server.wait().code(), Some(0), "{command}");
    }
}

#[test]
fn other_signals_do_not_end_it() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    server.signal(Signal::HUP);
    server.signal(Signal::PIPE);
    server.signal(Signal::STOP);
    server.wait_until_stopped();
    client.send(b"PING\r\n");
    assert!(client.read_within(Duration::from_millis(200)).is_none());
    server.signal(Signal::CONT);
    client.expect_next("+PONG");
    assert!(server.is_running());
}

#[test]
fn pidfile() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("server.pid");
    let mut server = Server::start(&["--pidfile", &path.to_string_lossy()]);
    assert_eq!(fs::read_to_string(&path).expect("a pid file"), format!("{}\n", server.pid()));
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(!path.exists());
    // One that cannot be written is no reason not to start.
    let server = Server::start(&["--pidfile", "/no/such/folder/server.pid"]);
    server.connect().expect("PING", "+PONG");
    assert!(server.log().contains("/no/such/folder/server.pid") || server.log().contains("pid"));
}

#[test]
fn the_log_has_the_lines_launchers_wait_for() {
    let server = Server::start(&["--always-show-logo", "yes"]);
    let log = server.log();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text} in:\n{log}"));
    assert!(at(&format!("PID: {}", server.pid())) < at("Server initialized"));
    assert!(at("Server initialized") < at("Ready to accept connections"));
    let line = log.lines().find(|line| line.contains("Ready to accept")).expect("found above");
    // PID:ROLE DD Mon YYYY HH:MM:SS.mmm LEVEL text
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[0], format!("{}:M", server.pid()));
    assert_eq!(words[4].len(), "HH:MM:SS.mmm".len(), "{line}");
    assert_eq!(words[5], "*");
}

#[test]
fn a_log_file_instead_of_stdout() {
    let server = Server::start(&["--logfile", "server.log"]);
    let text = fs::read_to_string(server.folder().join("server.log")).expect("a log file");
    assert!(text.contains("Ready to accept connections"));
    assert!(!server.log().contains("Ready to accept connections"));
}

#[test]
fn a_busy_port_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let Err(failure) = Server::starter().args(&["--port", &port]).try_start() else {
        panic!("started on a busy port");
    };
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1));
    assert!(failure.output.contains("Failed listening on port"), "{}", failure.output);
}

#[test]
fn bad_arguments_end_the_start() {
    for (args, reason) in [
        (&["--nosuchthing", "1"][..], "Bad directive or wrong number of arguments"),
        (&["--timeout"], "wrong number of arguments"),
        (&["--timeout", "ten"], "argument couldn't be parsed into an integer"),
        (&["--port", "70000"], "argument must be between 0 and 65535 inclusive"),
        (&["--maxmemory", "1xb"], "argument must be a memory value"),
    ] {
        // Redis 8 takes an unknown name for a module's, and ends in other words.
        if args[0] == "--nosuchthing" && !is_carnelian() {
            continue;
        }
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("FATAL CONFIG FILE ERROR"), "{args:?}: {text}");
        assert!(text.contains(reason), "{args:?}: {text}");
    }
    let output = run(&["/no/such/file.conf"]);
    assert_eq!(output.status.code(), Some(1));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("Fatal error, can't open config file"), "{text}");
}

#[test]
fn version_and_help() {
    for option in ["--version", "-v"] {
        let output = run(&[option]);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!(text.lines().count(), 1);
        for word in [" v=", " sha=", " malloc=", " bits=64", " build="] {
            assert!(text.contains(word), "{word} in {text}");
        }
        let version = text.split(" v=").nth(1).and_then(|rest| rest.split(' ').next());
        assert_eq!(version.expect("a version").split('.').count(), 3, "{text}");
    }
    for option in ["--help", "-h"] {
        let output = run(&[option]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("Usage"));
    }
}

#[test]
fn options_in_every_form() {
    let server = Server::start(&[
        "--maxmemory 700mb",
        "--save",
        "100",
        "100",
        "--hash-max-listpack-entries",
        "7",
        "--proc-title-template",
        "--{title}",
        "--client-output-buffer-limit",
        "normal 0 0 0",
    ]);
    server.connect().script(
        r#"
        CONFIG GET maxmemory => {maxmemory 734003200}
        CONFIG GET save => {save "100 100"}
        CONFIG GET hash-max-listpack-entries => {hash-max-listpack-entries 7}
        CONFIG GET proc-title-template => {proc-title-template "--{title}"}
        "#,
    );
}

#[test]
fn a_bare_start_needs_nothing_and_says_how_to_connect() {
    if !is_carnelian() {
        return;
    }
    let Some(redis_cli) = require_or_skip("redis-cli") else { return };
    if TcpListener::bind("127.0.0.1:6379").is_err() {
        eprintln!("skipped: port 6379 is taken");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("output.log");
    let mut child = Command::new(program())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(fs::File::create(&log).expect("a writable folder"))
        .spawn()
        .expect("the server's program can be started");
    let said = || fs::read_to_string(&log).expect("a log");
    for _ in 0..1000 {
        if said().contains("--cacert") {
            break;
        }
        sleep(Duration::from_millis(10));
    }
    let outcome = std::panic::catch_unwind(|| {
        let log = said();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("redis-cli")).collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert!(!lines[0].contains("--tls") && lines[1].contains("--tls"), "{log}");
        assert!(folder.path().join("carnelian-data/client-ca.pem").is_file());
        for line in lines {
            let command = line.trim().strip_prefix("redis-cli").expect("a command of its own");
            let output = Command::new(&redis_cli)
                .args(command.split_whitespace())
                .arg("PING")
                .current_dir(folder.path())
                .output()
                .expect("redis-cli runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(text.trim(), "PONG", "{}", String::from_utf8_lossy(&output.stderr));
        }
        let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
        for address in ["127.0.0.1:6379", "[::1]:6379"] {
            if address.starts_with('[') && !has_ipv6 {
                continue;
            }
            assert!(std::net::TcpStream::connect(address).is_ok(), "{address}");
        }
    });
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn unix_socket() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("server.sock");
    let socket = path.to_string_lossy();
    let mut server = Server::starter()
        .args(&["--port", "0", "--unixsocket", &socket, "--unixsocketperm", "700"])
        .ready_when(Ready::Log("Ready to accept connections"))
        .start();
    let mut client = Client::over(Transport::unix(&path).expect("a socket"));
    client.expect("SET a 1", "+OK");
    client.expect("GET a", "1");
    assert_eq!(fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o700);
    assert!(Transport::tcp(server.port()).is_err());
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(!path.exists());
}

#[test]
fn several_addresses() {
    let server = Server::start(&["--bind", "127.0.0.1", "-::1"]);
    server.connect().expect("PING", "+PONG");
    let many = Server::start(&["--bind", "127.0.0.1", "127.0.0.2"]);
    many.connect().expect("PING", "+PONG");
    assert!(std::net::TcpStream::connect(("127.0.0.2", many.port())).is_ok());
    let Err(failure) = Server::starter().args(&["--bind", "203.0.113.7"]).try_start() else {
        panic!("started on an address that is not ours");
    };
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1));
}

#[test]
fn a_stopped_client_is_answered_when_it_comes_back() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(b"SET a 1\r\nGET a\r\n");
    sleep(Duration::from_millis(50));
    client.expect_next("+OK");
    client.expect_next("1");
}

/// Runs the server's program to its end.
fn run(args: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Command::new(program())
        .args(args)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("the server's program can be started")
}

//! What the machine is told of the process: its score for when memory runs out, and its title.

use std::fs;

use carnelian_tests::server::free_port;
use carnelian_tests::{Server, is_carnelian};

use crate::replication_primary::wait_for;

fn score_of(server: &Server) -> i32 {
    let path = format!("/proc/{}/oom_score_adj", server.pid());
    let text = fs::read_to_string(path).expect("it runs");
    text.trim().parse().expect("it is a number")
}

#[test]
fn the_score_for_when_memory_runs_out_follows_the_role() {
    // Only the privileged may go back to less, so this counts from what there is upwards.
    let server =
        Server::start(&["--oom-score-adj", "yes", "--oom-score-adj-values", "10", "15", "20"]);
    let mut client = server.connect();
    let base = score_of(&server) - 10;
    client.expect(&format!("REPLICAOF 127.0.0.1 {}", free_port()), "+OK");
    assert_eq!(score_of(&server), base + 15);
    client.expect("CONFIG SET oom-score-adj-values \"10 25 30\"", "+OK");
    assert_eq!(score_of(&server), base + 25);
    client.expect("CONFIG SET oom-score-adj absolute oom-score-adj-values \"1 900 1000\"", "+OK");
    assert_eq!(score_of(&server), 900);
    if client.call("CONFIG SET oom-score-adj no").is_error() {
        return;
    }
    assert_eq!(score_of(&server), base);
}

#[test]
fn memory_that_is_in_use_comes_to_lie_in_huge_pages_unless_told_otherwise() {
    let proc = |server: &Server, file| {
        fs::read_to_string(format!("/proc/{}/{file}", server.pid())).expect("it runs")
    };
    let mode = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let Ok(mode) = mode else { return };
    if !is_carnelian() || mode.contains("[never]") {
        return;
    }
    // A kernel that cannot be made to do it at once is advised to (`hg` in a mapping's flags).
    let is_huge = |server: &Server| {
        proc(server, "smaps").lines().any(|line| match line.split_once(':') {
            Some(("AnonHugePages", size)) => size.trim() != "0 kB",
            Some(("VmFlags", flags)) => flags.contains(" hg"),
            _ => false,
        })
    };
    // Where the machine's own setting is `always`, memory is huge without it.
    let has_thread = |server: &Server| {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
        tasks.flatten().any(|task| name(task).is_ok_and(|name| name == "huge-pages\n"))
    };
    let disabled = |server: &Server| proc(server, "status").contains("THP_enabled:\t0");
    let fill = |server: &Server| server.connect().expect("DEBUG POPULATE 200000 key 200", "+OK");
    let server = Server::start(&[]);
    fill(&server);
    wait_for("huge pages", || is_huge(&server));
    assert!(!disabled(&server));
    let mut client = server.connect();
    client.expect("CONFIG GET disable-thp", "{disable-thp no}");
    client.expect("STRLEN key:77777", ":200");
    assert!(has_thread(&server));
    let server = Server::start(&["--disable-thp", "yes"]);
    fill(&server);
    assert!(disabled(&server) && !is_huge(&server) && !has_thread(&server));
}

#[test]
fn ps_shows_the_title() {
    let server =
        Server::start(&["--proc-title-template", "{title} at {port}, for a test of its title"]);
    let shown = || {
        let line = fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
        String::from_utf8_lossy(&line).trim_end_matches('\0').to_owned()
    };
    let wanted = format!("at {}, for a test of its title", server.port());
    assert!(shown().contains(&wanted), "{:?}", shown());
    let mut client = server.connect();
    client.expect("CONFIG SET proc-title-template \"short {port}\"", "+OK");
    assert_eq!(shown(), format!("short {}", server.port()));
    let long = "x".repeat(10_000);
    client.expect(&format!("CONFIG SET proc-title-template {long}"), "+OK");
    if is_carnelian() {
        assert!(shown().bytes().all(|byte| byte == b'x'));
    }
    client.expect("CONFIG SET proc-title-template {nonsense}", "-ERR ...");
    client.expect("PING", "+PONG");
}

//! The program itself, against a node that answers from a table: what it asks, what it prints, how it ends.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // all of this is a test, helpers included

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A node: its answers by method and path, and what it was asked.
struct Node {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Node {
    fn new(answers: &[(&str, Value)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("admin.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers: BTreeMap<String, Value> =
            answers.iter().map(|(what, answer)| ((*what).to_owned(), answer.clone())).collect();
        let record = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Some((what, body)) = read(stream.as_ref().unwrap()) else { continue };
                record.lock().unwrap().push((what.clone(), body));
                let (status, answer) = match answers.get(&what) {
                    Some(answer) => (answer["status_code"].as_u64().unwrap_or(200), answer.clone()),
                    None => (404, json!({"error_code": "not_found", "description": what})),
                };
                let text = answer.to_string();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", text.len());
                let _ = stream.unwrap().write_all(format!("{head}{text}").as_bytes());
            }
        });
        Self { folder, asked }
    }

    fn run(&self, line: &str) -> Output {
        self.command().args(line.split_whitespace()).output().unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rladmin"));
        command.env_clear().env("CARNELIAN_SOCKET", self.folder.path().join("admin.sock"));
        command
    }

    /// What a command that works prints.
    #[track_caller]
    fn prints(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The last body that was sent to change something.
    fn sent(&self, what: &str) -> Value {
        let asked = self.asked.lock().unwrap();
        asked.iter().rev().find(|(asked, _)| asked == what).unwrap().1.clone()
    }
}

fn read(mut stream: &UnixStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|window: &[u8]| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.map_or(0, |text| text.parse().unwrap());
            if end + 4 + length <= bytes.len() {
                let mut words = head.split(' ');
                let what = format!("{} {}", words.next()?, words.next()?);
                let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or(Value::Null);
                return Some((what, body));
            }
        }
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

fn databases() -> Value {
    json!([{"uid": 1, "name": "cache"}, {"uid": 2, "name": "7"}])
}

/// The lines of the documentation, as they are printed.
#[test]
fn printed_commands_work_as_printed() {
    let node = Node::new(&[
        ("GET /v1/bdbs?fields=uid,name", databases()),
        ("GET /v1/bdbs/1", json!({"data_internode_encryption": false, "maxclients": 10_000})),
        ("PUT /v1/bdbs/1", json!({"uid": 1, "action_uid": "a"})),
        ("GET /v2/actions/a", json!({"status": "completed", "progress": 100.0})),
        ("GET /v1/cluster/policy", json!({"data_internode_encryption": false})),
        ("PUT /v1/cluster/policy", json!({})),
    ]);
    let tuned = "Tuning database: o\nFinished successfully\n";
    assert_eq!(node.prints("tune db 1 data_internode_encryption enable"), tuned);
    assert_eq!(node.sent("PUT /v1/bdbs/1"), json!({"data_internode_encryption": true}));
    assert_eq!(node.prints("tune db db:1 data_internode_encryption disabled"), tuned);
    assert_eq!(node.sent("PUT /v1/bdbs/1"), json!({"data_internode_encryption": false}));
    let line = "tune db cache data_internode_encryption enabled graceful enabled maxclients 5";
    assert_eq!(node.prints(line), tuned);
    let sent = json!({"data_internode_encryption": true, "graceful": true, "maxclients": 5});
    assert_eq!(node.sent("PUT /v1/bdbs/1"), sent);
    let line = "tune cluster data_internode_encryption enable";
    assert_eq!(node.prints(line), "Finished successfully\n");
    assert_eq!(node.sent("PUT /v1/cluster/policy"), json!({"data_internode_encryption": true}));
}

#[test]
fn what_fails_says_why_and_ends_with_one() {
    let node = Node::new(&[
        ("GET /v1/bdbs?fields=uid,name", databases()),
        ("GET /v1/bdbs/1", json!({"maxclients": 10_000})),
        (
            "PUT /v1/bdbs/1",
            json!({"status_code": 409, "error_code": "db_busy", "description": "It is busy"}),
        ),
    ]);
    let fails = |line: &str, said: &str| {
        let output = node.run(line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(stderr.starts_with("ERROR: ") && stderr.contains(said), "{line}: {stderr}");
    };
    fails("tune db 1 maxclients 5", "It is busy (db_busy)");
    fails("tune db 1 maxclients many", "is not a number");
    fails("tune db 1 nothing 5", "there is no setting \"nothing\"");
    fails("tune db 9 maxclients 5", "there is no database \"9\"");
    fails("tune db 1", "a setting and its value are missing");
    fails("tune", "what to tune");
    fails("explode", "there is no command \"explode\"");
    fails("--nothing status", "unknown option");
    fails("--host x status", "--user and --password");
}

#[test]
fn an_action_that_fails_is_no_success() {
    let node = Node::new(&[
        ("GET /v1/bdbs?fields=uid,name", databases()),
        ("GET /v1/bdbs/1", json!({"maxclients": 10_000})),
        ("PUT /v1/bdbs/1", json!({"action_uid": "a"})),
        (
            "GET /v2/actions/a",
            json!({"status": "failed", "additional_info": {"error": "node 2: disk full"}}),
        ),
    ]);
    let output = node.run("tune db 1 maxclients 5");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("node 2: disk full"));
    assert!(output.stdout.is_empty());
}

#[test]
fn clusters_are_made_joined_and_rotated() {
    let done = json!({"bootstrap_status": {"state": "completed"}});
    let node = Node::new(&[
        ("POST /v1/bootstrap/create_cluster", done.clone()),
        ("POST /v1/bootstrap/join_cluster", done.clone()),
        ("GET /v1/bootstrap", done),
        ("POST /v1/cluster/certificates/rotate", json!({"action_uid": "a"})),
        ("GET /v1/nodes/status", json!({"1": {"role": "slave"}, "2": {"role": "master"}})),
        ("GET /v1/audit/verify", json!({"intact": true, "entries": 3, "head": "ab"})),
        ("PUT /v1/users/password", json!({})),
    ]);
    let line = "cluster create name c.local username a@b.c password p addr 10.0.0.1 \
        external_addr 1.2.3.4 1.2.3.5 rack_id r";
    assert_eq!(node.prints(line), "Creating a new cluster... ok\n");
    let sent = node.sent("POST /v1/bootstrap/create_cluster");
    assert_eq!(sent["cluster"], json!({"name": "c.local"}));
    assert_eq!(sent["credentials"], json!({"username": "a@b.c", "password": "p"}));
    let identity =
        json!({"addr": "10.0.0.1", "external_addr": ["1.2.3.4", "1.2.3.5"], "rack_id": "r"});
    assert_eq!(sent["node"]["identity"], identity);
    let line = "cluster join username a@b.c password p nodes 10.0.0.1 10.0.0.2 replace_node 3 \
        accept_servers disabled";
    assert_eq!(node.prints(line), "Joining cluster... ok\n");
    let sent = node.sent("POST /v1/bootstrap/join_cluster");
    assert_eq!(sent["cluster"], json!({"nodes": ["10.0.0.1", "10.0.0.2"]}));
    assert_eq!(sent["node"]["identity"], json!({"uid": 3, "accept_servers": false}));
    assert_eq!(node.prints("cluster certificate rotate"), "Done\n");
    assert_eq!(node.sent("POST /v1/cluster/certificates/rotate"), json!({}));
    node.prints("cluster certificate rotate data_internode_encryption");
    let sent = node.sent("POST /v1/cluster/certificates/rotate");
    assert_eq!(sent, json!({"name": "data_internode_encryption"}));
    node.prints("cluster certificate rotate client_ca complete");
    let sent = node.sent("POST /v1/cluster/certificates/rotate");
    assert_eq!(sent, json!({"name": "client_ca", "complete": true}));
    assert_eq!(node.prints("cluster master"), "Node 2 is the cluster master node\n");
    assert_eq!(node.prints("audit verify"), "OK. 3 entries, head ab\n");
}

#[test]
fn a_failed_join_says_what_the_node_says() {
    let error = json!({"bootstrap_status": {"state": "error", "error_code": "access_denied",
        "error_details": {"message": "the password is wrong"}}});
    let node =
        Node::new(&[("POST /v1/bootstrap/join_cluster", json!({})), ("GET /v1/bootstrap", error)]);
    let output = node.run("cluster join nodes 10.0.0.1 username a@b.c password p");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "ERROR: the password is wrong (access_denied)\n");
}

#[test]
fn nodes_are_removed_with_a_word_on_how_far_it_is() {
    let node = Node::new(&[
        ("POST /v1/nodes/3/actions/remove", json!({"action_uid": "a"})),
        ("GET /v2/actions/a", json!({"status": "completed"})),
        (
            "GET /v1/nodes",
            json!([{"uid": 1, "addr": "10.0.0.1", "status": "active",
            "shard_count": 4, "max_redis_servers": 100, "software_version": "8.0.6"}]),
        ),
        (
            "GET /v1/nodes/status",
            json!({"1": {"role": "master", "cores": 2, "hostname": "h",
            "free_ram": 1073741824u64, "total_memory": 2147483648u64}}),
        ),
        ("GET /v1/bootstrap", json!({"local_node_info": {"uid": "1"}})),
        ("GET /v1/nodes/1", json!({"external_addr": []})),
        ("PUT /v1/nodes/1", json!({})),
    ]);
    let printed = node.prints("node 3 remove");
    assert!(
        printed.starts_with("Performing remove action on node:3: 100%\nOK\nNODE:ID"),
        "{printed}"
    );
    assert!(printed.contains("*node:1 master 10.0.0.1"), "{printed}");
    assert!(printed.contains("4/100  2     1GB/2GB"), "{printed}");
    let printed = node.prints("node 1 external_addr set 1.2.3.4");
    assert_eq!(printed, "Updated successfully.\n");
}

#[test]
fn the_shell_speaks_the_same_language() {
    let node = Node::new(&[
        ("GET /v1/nodes/status", json!({"1": {"role": "master"}})),
        ("GET /v1/audit/verify", json!({"intact": false, "broken_line": 2, "reason": "x"})),
    ]);
    let mut shell = node
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(b"cluster master\n\nhelp audit\nexit\ncluster master\n").unwrap();
    drop(input);
    let output = shell.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!(printed.matches("Node 1 is the cluster master node").count(), 1);
    assert!(printed.contains("audit verify"));
    let output = node.run("audit verify");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "ERROR: the audit log is broken at line 2: x\n");
}

/// On a terminal, which `script` makes: words are completed, choices shown, lines edited and fetched back.
#[test]
fn the_shell_completes_what_is_typed() {
    let has_terminals = Command::new("script").arg("--version").output();
    if !has_terminals.is_ok_and(|output| output.status.success()) {
        return;
    }
    let node = Node::new(&[("GET /v1/nodes/status", json!({"1": {"role": "master"}}))]);
    let mut shell = Command::new("script")
        .args(["-qfec", env!("CARGO_BIN_EXE_rladmin"), "/dev/null"])
        .env("CARNELIAN_SOCKET", node.folder.path().join("admin.sock"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
    let mut typed = |keys_typed: &str, shown: &str| {
        keys.write_all(keys_typed.as_bytes()).unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(shown) {
            assert_ne!(screen.read(&mut byte).unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        String::from_utf8(seen).unwrap()
    };
    typed("", "rladmin> ");
    typed("clu\t", "rladmin> cluster ");
    typed("mas\t", "rladmin> cluster master ");
    typed("\n", "Node 1 is the cluster master node");
    typed("", "rladmin> ");
    typed("cluster certificate \t", "rotate  set  status");
    typed("\u{3}", "rladmin> ");
    typed("tune db 1 data_i\t", "tune db 1 data_internode_encryption ");
    typed("\t", "disabled  enabled");
    typed("\u{3}", "rladmin> ");
    // The line from before, and an error that does not end the shell.
    typed("\u{1b}[A", "rladmin> cluster master");
    typed("\n", "Node 1 is the cluster master node");
    typed("explode\n", "ERROR: there is no command \"explode\"");
    typed("exit\n", "exit");
    assert!(shell.wait().unwrap().success());
}

//! A node that is a cluster by itself: what its REST interface changes is what clients see.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use carnelian_tests::cluster::{Member, PATIENCE};
use carnelian_tests::server::free_port;
use carnelian_tests::{Server, is_carnelian};
use serde_json::{Value, json};

/// A request as it is written, over the local socket.
fn as_written(member: &Member, line: &str, body: &str) -> (u16, Value) {
    let mut socket =
        UnixStream::connect(member.server.folder().join("admin.sock")).expect("the socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let length = body.len();
    let rest = "HTTP/1.1\r\nHost: localhost\r\nConnection: close";
    write!(socket, "{line} {rest}\r\nContent-Length: {length}\r\n\r\n{body}").expect("it is read");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(head);
    (status, serde_json::from_str(body).expect(body))
}

fn make(member: &Member, more: &Value) -> (u64, u16) {
    let port = free_port();
    let mut spec = json!({"name": format!("db-{port}"), "memory_size": 50 << 20, "port": port});
    let more = more.as_object().expect("an object").clone();
    spec.as_object_mut().expect("an object").extend(more);
    let made = member.change("POST", "/v1/bdbs", &spec);
    let uid = made["uid"].as_u64().expect("a uid");
    member.eventually(&format!("/v1/bdbs/{uid}"), |database| database["status"] == "active");
    (uid, port)
}

#[test]
fn the_documented_call_disconnects_the_clients_of_that_database_and_nobody_else() {
    if !is_carnelian() {
        return;
    }
    let member = Member::create(1);
    let (_, other_port) = make(&member, &json!({}));
    let first_port = member.server.port();
    let (mut first, mut waiting) = (member.client(first_port), member.client(first_port));
    let mut other = member.client(other_port);
    first.expect("SET k v", "+OK");
    other.expect("SET k w", "+OK");
    waiting.send_words(&["BLPOP", "nothing", "0"]);

    let body = "{ \u{201c}data_internode_encryption\u{201d} : true }";
    let (status, answer) = as_written(&member, "put /v1/bdbs/1", body);
    assert_eq!((status, &answer["data_internode_encryption"]), (200, &json!(true)), "{answer}");
    first.expect_closed();
    waiting.expect_closed();
    other.expect("GET k", "w");
    let mut first = member.client(first_port);
    first.expect("GET k", "v");
    let is_on = |database: &Value| {
        database["status"] == "active" && database["data_internode_encryption"] == true
    };
    member.eventually("/v1/bdbs/1", is_on);

    let gentle = json!({"data_internode_encryption": false, "graceful": true});
    member.change("PUT", "/v1/bdbs/1", &gentle);
    member.eventually("/v1/bdbs/1", |database| {
        database["status"] == "active" && database["data_internode_encryption"] == false
    });
    first.expect("GET k", "v");
    other.expect("GET k", "w");
}

#[test]
fn databases_come_change_and_go() {
    if !is_carnelian() {
        return;
    }
    let mut member = Member::create(1);
    let spec = json!({"authentication_redis_pass": "one", "data_persistence": "aof"});
    let (uid, port) = make(&member, &spec);
    let path = format!("/v1/bdbs/{uid}");
    let mut client = member.client(port);
    client.expect("GET k", "-NOAUTH Authentication required.");
    client.expect("AUTH one", "+OK");
    client.expect("SET k v", "+OK");
    client.expect("CONFIG GET maxmemory", &format!("[maxmemory {}]", 50 << 20));
    let (status, answer) =
        member.ask("POST", "/v1/bdbs", &json!({"name": "x", "memory_size": 1, "port": port}));
    assert_eq!((status, &answer["error_code"]), (406, &json!("port_unavailable")), "{answer}");

    let change = json!({"memory_size": 60 << 20, "authentication_redis_pass": "two"});
    member.change("PUT", &path, &change);
    member.eventually(&path, |database| database["status"] == "active");
    client.expect("CONFIG GET maxmemory", &format!("[maxmemory {}]", 60 << 20));
    let mut again = member.client(port);
    again.expect("AUTH one", "-WRONGPASS invalid username-password pair or user is disabled.");
    again.expect("AUTH two", "+OK");

    member.server.restart();
    member.eventually(&path, |database| database["status"] == "active");
    let mut client = member.client(port);
    client.expect("AUTH two", "+OK");
    client.eventually("GET k", "v");

    assert!(member.change("DELETE", &path, &Value::Null)["action_uid"].is_string());
    client.expect_closed();
    let gone = |all: &Value| all.as_array().is_some_and(|all| all.len() == 1);
    member.eventually("/v1/bdbs", gone);
    assert!(TcpStream::connect((member.address.as_str(), port)).is_err());
    assert!(!member.server.folder().join(format!("db-{uid}")).exists());
}

#[test]
fn certificates_between_nodes_are_rotated_by_either_verb() {
    if !is_carnelian() {
        return;
    }
    let member = Member::create(1);
    let serials = || {
        let all = member.get("/v1/cluster/certificates/status");
        let of = |name: &str| {
            let found = all.as_array().expect("a list").iter().find(|it| it["name"] == name);
            found.unwrap_or_else(|| panic!("{name} in {all}"))["serial"].clone()
        };
        ["ccs_internode_encryption", "data_internode_encryption", "proxy"].map(of)
    };
    member.eventually("/v1/cluster/certificates/status", |all| {
        all.as_array().is_some_and(|all| all.len() >= 7)
    });
    let mut client = member.client(member.server.port());
    let mut before = serials();
    for verb in ["PUT", "post"] {
        let (status, answer) =
            as_written(&member, &format!("{verb} /v1/cluster/certificates/rotate"), "");
        assert_eq!(status, 200, "{answer}");
        let after = serials();
        assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2]);
        before = after;
    }
    let (status, answer) =
        member.ask("POST", "/v1/cluster/certificates/rotate", &json!({"name": "proxy"}));
    assert_eq!((status, &answer["error_code"]), (403, &json!("unsupported_rotation")));
    client.expect("PING", "+PONG");
    let all = member.get("/v1/cluster/certificates").to_string();
    assert!(!all.contains("internode"), "{all}");
}

#[test]
fn a_server_that_is_started_as_a_redis_is_has_no_control_plane() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--save", ""]);
    server.connect().expect("PING", "+PONG");
    for name in ["admin.sock", "control-plane", "admin-password"] {
        assert!(!server.folder().join(name).exists(), "{name}");
    }
}

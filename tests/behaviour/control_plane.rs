//! A node that is a cluster by itself: what its REST interface changes is what clients see.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_tests::certificates::{Authority, Identity};
use carnelian_tests::cluster::{Member, PATIENCE};
use carnelian_tests::server::free_port;
use carnelian_tests::transport::{TlsOptions, Transport};
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
fn a_node_that_is_alone_takes_writes_from_its_first_client_on() {
    if !is_carnelian() {
        return;
    }
    let mut member = Member::create(1);
    let (uid, port) = make(&member, &json!({}));
    member.client(port).expect("SET k v", "+OK");
    for _ in 0..5 {
        member.server.restart();
        member.client(port).expect("SET k v", "+OK");
    }
    member.get(&format!("/v1/bdbs/{uid}/availability"));
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
fn a_certificate_that_is_provided_is_what_the_next_clients_see() {
    if !is_carnelian() {
        return;
    }
    let mut member = Member::create(1);
    let (_, port) = make(&member, &json!({"tls_mode": "enabled"}));
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "customer");
    let other = Authority::new(folder.path(), "other");
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let put = |name: &str, identity: &Identity, key: &Identity| {
        json!({"certificates": [{
            "name": name, "certificate": read(&identity.certificate), "key": read(&key.key),
        }]})
    };
    let takes = |authority: &Authority, port: u16| {
        Transport::tls(port, &TlsOptions::trusting(&authority.certificate)).is_ok()
    };
    let first_port = member.server.port();
    assert!(!takes(&authority, port) && !takes(&authority, first_port));

    let path = "/v1/cluster/certificates";
    let (good, another) = (authority.both("good"), authority.both("another"));
    let one_end = authority.server("one-end");
    for (name, identity, key, status, code) in [
        ("proxy", &good, &another, 400, "invalid_certificate"),
        ("proxy", &one_end, &one_end, 400, "invalid_certificate"),
        ("nothing", &good, &good, 403, "unknown_certificate"),
    ] {
        let (found, answer) = member.ask("PUT", path, &put(name, identity, key));
        assert_eq!((found, &answer["error_code"]), (status, &json!(code)), "{answer}");
    }
    member.change("PUT", path, &put("proxy", &good, &good));
    let eventually = |authority: &Authority, port: u16| {
        let ends = Instant::now() + PATIENCE;
        while !takes(authority, port) {
            assert!(Instant::now() < ends, "the certificate is not shown");
            sleep(Duration::from_millis(20));
        }
    };
    eventually(&authority, port);
    eventually(&authority, first_port);
    // What is made later shows it too, and what starts again.
    let (_, later) = make(&member, &json!({"tls_mode": "enabled"}));
    eventually(&authority, later);
    member.server.restart();
    eventually(&authority, port);
    let second = other.both("second");
    member.change(
        "PUT",
        "/v1/cluster/update_cert",
        &json!({
            "name": "proxy", "certificate": read(&second.certificate), "key": read(&second.key),
        }),
    );
    eventually(&other, port);
    assert!(!takes(&authority, port));
}

/// Every file of a folder and of those in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries
        .flat_map(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .filter(|path| path.is_file())
        .collect()
}

#[test]
fn what_is_secret_is_in_no_file_in_no_log_and_in_no_answer_that_is_not_for_it() {
    if !is_carnelian() {
        return;
    }
    let mut member = Member::create(1);
    let secrets = ["db-pass-7f3a91", "db-pass-55c0de", "admin-pass-90b1e2", "mail-pass-c4d5e6"];
    let spec = json!({
        "authentication_redis_pass": secrets[0], "authentication_admin_pass": secrets[2],
    });
    let (uid, port) = make(&member, &spec);
    member.change("POST", &format!("/v1/bdbs/{uid}/passwords"), &json!({"password": secrets[1]}));
    member.change("PUT", "/v1/cluster", &json!({"smtp_password": secrets[3]}));
    let log_in = |member: &Member| {
        let mut client = member.client(port);
        for password in &secrets[..2] {
            client.eventually(&format!("AUTH {password}"), "+OK");
        }
    };
    log_in(&member);
    // Also when it is a snapshot, and no entry of a log: that is made every 256 changes.
    for number in 0..150 {
        let name = json!({"name": format!("name-{number}")});
        member.change("PUT", &format!("/v1/bdbs/{uid}"), &name);
        member.eventually(&format!("/v1/bdbs/{uid}"), |it| it["status"] == "active");
    }
    let folder = member.server.folder().to_owned();
    let check = || {
        let all = files(&folder);
        assert!(all.iter().any(|path| path.ends_with("control-plane/control-plane.redb")));
        for path in all {
            let contents = std::fs::read(&path).expect("a file");
            for secret in secrets {
                let is_there = contents.windows(secret.len()).any(|it| it == secret.as_bytes());
                assert!(!is_there, "{secret} in {}", path.display());
            }
        }
    };
    check();
    assert!(secrets.iter().all(|secret| !member.server.log().contains(secret)));
    let cluster = member.get("/v1/cluster").to_string();
    assert!(!cluster.contains(secrets[3]), "{cluster}");
    member.change("PUT", "/v1/cluster", &json!({"mask_bdb_credentials": true}));
    for path in ["/v1/bdbs".to_owned(), format!("/v1/bdbs/{uid}"), "/v1/logs".to_owned()] {
        let answer = member.get(&path).to_string();
        assert!(secrets.iter().all(|secret| !answer.contains(secret)), "{path}: {answer}");
    }

    // It opens again what it has sealed.
    member.server.restart();
    log_in(&member);
    check();
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

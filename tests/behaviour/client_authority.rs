//! One authority for all that a cluster's nodes show to clients: whoever knows it verifies every node, whichever of
//! them are there, and while another takes its place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_tests::TlsOptions;
use carnelian_tests::cluster::{Member, PASSWORD, PATIENCE};
use carnelian_tests::is_carnelian;
use carnelian_tests::server::free_port;
use serde_json::{Value, json};

use crate::cluster::{make_database, three};

/// Whether a client that knows these authorities, and nothing else, takes a node's port under its address.
fn try_verify(node: &Member, port: u16, ca: &Path, name: &str) -> anyhow::Result<()> {
    node.verified_client(port, &TlsOptions::trusting(ca).server_name(name)).map(drop)
}

/// At its database's and its REST interface's port.
fn is_verified(node: &Member, port: u16, ca: &Path) -> bool {
    [port, node.admin_port].iter().all(|port| try_verify(node, *port, ca, &node.address).is_ok())
}

#[track_caller]
fn eventually(what: &str, is_right: impl Fn() -> bool) {
    let ends = Instant::now() + PATIENCE;
    while !is_right() {
        assert!(Instant::now() < ends, "{what}");
        sleep(Duration::from_millis(50));
    }
}

#[track_caller]
fn eventually_verified(node: &Member, port: u16, ca: &Path) {
    let ends = Instant::now() + PATIENCE;
    for port in [port, node.admin_port] {
        while let Err(error) = try_verify(node, port, ca, &node.address) {
            assert!(Instant::now() < ends, "{}:{port}: {error:#}", node.address);
            sleep(Duration::from_millis(50));
        }
    }
}

fn make_tls_database(nodes: &[Member], port: u16) {
    let (uid, _) = make_database(nodes, port);
    let path = format!("/v1/bdbs/{uid}");
    nodes[0].change("PUT", &path, &json!({"tls_mode": "enabled"}));
    nodes[0].eventually(&path, |database| database["status"] == "active");
}

fn list(node: &Member) -> PathBuf {
    node.server.folder().join("client-ca.pem")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What clients that came to know a cluster now have, in a file that stays as it is.
fn known(folder: &Path, name: &str, node: &Member) -> PathBuf {
    let path = folder.join(name);
    fs::copy(list(node), &path).expect("it can be copied");
    path
}

#[test]
fn a_client_that_knows_one_nodes_authority_verifies_every_node() {
    if !is_carnelian() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let first = Member::create(1);
    let ca = known(folder.path(), "ca.pem", &first);
    let second = Member::start(2, PASSWORD, &["--cluster-bootstrap", "manual"]);
    let before = known(folder.path(), "before.pem", &second);
    assert!(read(&before) != read(&ca));
    // One joins by REST, one by a directive, one by the command.
    let place = first.place();
    let credentials = json!({"username": carnelian_tests::cluster::USER, "password": PASSWORD});
    let join = json!({"cluster": {"nodes": [place]}, "credentials": credentials});
    let (status, answer) = second.ask("POST", "/v1/bootstrap/join_cluster", &join);
    assert_eq!(status, 200, "{answer}");
    second.eventually("/v1/bootstrap", |it| it["bootstrap_status"]["state"] == "completed");
    let third = Member::start(3, PASSWORD, &["--cluster-join", &place]);
    let mut nodes = [first, second, third];
    for node in &nodes {
        node.eventually_sees(3);
    }
    let port = free_port();
    make_tls_database(&nodes, port);
    let mut keys = BTreeSet::new();
    for node in &nodes {
        eventually_verified(node, port, &ca);
        assert!(!is_verified(node, port, &before), "nothing is left of the joiner's own");
        eventually("the list is its own", || read(&list(node)) == read(&ca));
        let own = node.server.folder();
        eventually("the authority's key is in a folder", || !own.join("client-ca.key").exists());
        for name in ["server.key", "server-rsa.key"] {
            keys.insert(read(&own.join(name)));
        }
        // What the interface tells people to trust leads there too.
        let shown = node.get("/v1/cluster/certificates");
        let proxy = shown["proxy_cert"].as_str().expect("a certificate");
        assert!(proxy.contains(read(&ca).trim()), "{proxy}");
        keys.insert(shown["proxy_key"].as_str().expect("a key, for an admin").to_owned());
        let listed = node.get("/v1/cluster/certificates/client_ca");
        assert_eq!(listed["serverCaCerts"].as_array().map(Vec::len), Some(1));
        assert_eq!(listed["serverCaCerts"][0]["cert"].as_str(), Some(&*read(&ca)));
    }
    assert_eq!(keys.len(), 9, "each node has keys of its own");

    nodes[1].server.restart();
    nodes[1].eventually_sees(3);
    assert!(is_verified(&nodes[1], port, &ca), "as soon as it is there again");

    // Without the node that made the cluster the others go on, and sign.
    nodes[1].change("DELETE", "/v1/nodes/1", &Value::Null);
    for node in &nodes[1..] {
        node.eventually_sees(2);
        assert!(is_verified(node, port, &ca));
    }
    let more = json!({"external_addr": ["10.200.200.3"]});
    nodes[1].change("PUT", "/v1/nodes/3", &more);
    let third = &nodes[2];
    for port in [port, third.admin_port] {
        eventually("the new address is in no certificate", || {
            try_verify(third, port, &ca, "10.200.200.3").is_ok()
        });
    }
    assert!(try_verify(&nodes[1], port, &ca, "10.200.200.3").is_err());

    // Who is no member any longer gets nothing more signed.
    let [mut removed, ..] = nodes;
    let was = read(&removed.server.folder().join("server.pem"));
    fs::remove_file(removed.server.folder().join("server-rsa.pem")).expect("it was there");
    removed.server.kill();
    removed.server.start_again().expect("it starts");
    let ends = Instant::now() + Duration::from_secs(3);
    while Instant::now() < ends {
        assert!(!removed.server.folder().join("server-rsa.pem").exists());
        sleep(Duration::from_millis(50));
    }
    assert_eq!(read(&removed.server.folder().join("server.pem")), was);
}

#[test]
fn another_authority_takes_the_place_of_the_first_on_all_nodes() {
    if !is_carnelian() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = three();
    let port = free_port();
    make_tls_database(&nodes, port);
    let old = known(folder.path(), "old.pem", &nodes[0]);
    for node in &nodes {
        eventually_verified(node, port, &old);
    }
    let path = "/v1/cluster/certificates/rotate";
    let (add, complete) =
        (json!({"name": "client_ca"}), json!({"name": "client_ca", "complete": true}));
    let (status, answer) = nodes[1].ask("PUT", path, &complete);
    assert_eq!((status, &answer["error_code"]), (409, &json!("no_successor")), "{answer}");

    let answer = nodes[1].change("PUT", path, &add);
    assert_eq!(answer["serverCaCerts"].as_array().map(Vec::len), Some(2), "{answer}");
    assert_eq!(answer["signer"], answer["serverCaCerts"][0]["serialNumber"]);
    let (status, answer) = nodes[2].ask("POST", path, &add);
    assert_eq!((status, &answer["error_code"]), (409, &json!("successor_exists")), "{answer}");
    for node in &nodes {
        eventually("the list is not everybody's", || read(&list(node)) == read(&list(&nodes[0])));
        eventually("there is no successor", || read(&list(node)).matches("BEGIN").count() == 2);
    }
    // Who knows the old one alone verifies still, and so does who knows both.
    let both = known(folder.path(), "both.pem", &nodes[2]);
    let texts = read(&both);
    assert!(texts.starts_with(&read(&old)));
    let new = folder.path().join("new.pem");
    fs::write(&new, &texts[read(&old).len()..]).expect("it can be written");
    for node in &nodes {
        assert!(is_verified(node, port, &old) && is_verified(node, port, &both));
        assert!(!is_verified(node, port, &new));
    }

    // Without the node that has made the first one.
    let answer = nodes[2].change("POST", path, &complete);
    let left = answer["serverCaCerts"].as_array().expect("a list");
    assert_eq!((left.len(), &answer["signer"]), (1, &left[0]["serialNumber"]), "{answer}");
    for node in &nodes {
        // No node shows anything of the old one when that is over.
        assert!(is_verified(node, port, &both) && is_verified(node, port, &new));
        assert!(!is_verified(node, port, &old));
        eventually("the old one is listed", || read(&list(node)) == read(&new));
        let shown = node.get("/v1/cluster/certificates/client_ca");
        assert_eq!(shown["serverCaCerts"][0]["cert"].as_str(), Some(&*read(&new)));
    }
    let events = nodes[0].get("/v1/logs?limit=100").to_string();
    for kind in ["client_ca_successor_added", "client_ca_switched", "client_ca_rotated"] {
        assert!(events.contains(kind), "{kind}: {events}");
    }
}

#[test]
fn authorities_live_and_change_as_the_cluster_has_set_it() {
    if !is_carnelian() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let node = Member::create(1);
    let port = free_port();
    let spec = json!({"name": "db", "memory_size": 0, "port": port, "tls_mode": "enabled"});
    node.change("POST", "/v1/bdbs", &spec);
    let old = known(folder.path(), "old.pem", &node);
    eventually_verified(&node, port, &old);
    let wrong = [
        json!({"client_ca_validity_days": 1}),
        json!({"client_ca_validity_days": 36_501}),
        json!({"client_ca_validity_days": 30}),
        json!({"client_ca_switch_before_expiry_days": 0}),
        json!({"client_ca_switch_before_expiry_days": 3652}),
        json!({"client_ca_successor_after_days": 3622}),
    ];
    for patch in wrong {
        let (status, answer) = node.ask("PUT", "/v1/cluster", &patch);
        assert_eq!((status, &answer["error_code"]), (400, &json!("invalid_param")), "{patch}");
    }
    let wrong = json!({"client_ca_successor_after_days": "soon"});
    let (status, answer) = node.ask("PUT", "/v1/cluster", &wrong);
    assert_eq!((status, &answer["error_code"]), (400, &json!("invalid_schema")), "{answer}");
    let path = "/v1/cluster/certificates/client_ca";
    assert_eq!(node.get(path)["serverCaCerts"].as_array().map(Vec::len), Some(1));

    // One that is to have a successor from its first day on, which lives for a century.
    let patch = json!({"client_ca_validity_days": 36_500, "client_ca_successor_after_days": 0});
    node.change("PUT", "/v1/cluster", &patch);
    let shown = node.eventually(path, |it| it["serverCaCerts"][1].is_object());
    let year = |place: usize, field: &str| -> u32 {
        let text = shown["serverCaCerts"][place][field].as_str().expect("a time");
        text[..4].parse().expect("a year")
    };
    assert_eq!(year(0, "expireTime") - year(0, "createTime"), 10);
    assert!((99..=100).contains(&(year(1, "expireTime") - year(1, "createTime"))), "{shown}");
    assert_eq!(shown["signer"], shown["serverCaCerts"][0]["serialNumber"]);
    eventually("the list has no successor", || read(&list(&node)).matches("BEGIN").count() == 2);
    let both = read(&list(&node));
    let new = folder.path().join("new.pem");
    fs::write(&new, &both[read(&old).len()..]).expect("it can be written");
    assert!(is_verified(&node, port, &old) && !is_verified(&node, port, &new));

    // And which signs from now on, as the first one has less than that left.
    let patch = json!({"client_ca_switch_before_expiry_days": 4000});
    node.change("PUT", "/v1/cluster", &patch);
    let successor = shown["serverCaCerts"][1]["serialNumber"].clone();
    node.eventually(path, |it| it["signer"] == successor);
    eventually_verified(&node, port, &new);
    eventually("the old one still signs", || !is_verified(&node, port, &old));
}

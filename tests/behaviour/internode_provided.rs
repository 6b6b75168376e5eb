//! Certificates between nodes that a customer provides: shown by all nodes while there are any, and never in the way.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use carnelian_tests::certificates::{Authority, Identity};
use carnelian_tests::cluster::Member;
use carnelian_tests::is_carnelian;
use carnelian_tests::server::free_port;
use serde_json::{Value, json};

use crate::cluster::{eventually, eventually_linked, make_database, three};

const CONTROL: &str = "ccs_internode_encryption";
const DATA: &str = "data_internode_encryption";
const PATH: &str = "/v1/cluster/certificates";

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a file")
}

fn item(name: &str, identity: &Identity) -> Value {
    json!({"name": name, "certificate": read(&identity.certificate), "key": read(&identity.key)})
}

/// By whom the certificates of a name are managed, of all nodes.
fn managed_by(node: &Member, name: &str) -> Vec<String> {
    let rows = node.get(&format!("{PATH}/status"));
    let rows = rows.as_array().cloned().unwrap_or_default();
    let of_name = rows.iter().filter(|row| row["name"] == name);
    of_name.map(|row| row["managed_by"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What the port for other nodes shows first to `openssl s_client`.
fn shown_to_strangers(node: &Member, protocol: &str) -> String {
    let own = node.server.folder().join("internode/data.pem");
    let text = Command::new("openssl")
        .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
        .arg(own)
        .output()
        .expect("openssl starts");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let (_, rest) = text.split_once("carnelian://").expect("a node's name");
    let parts: Vec<&str> = rest.split('/').collect();
    let address = format!("{}:{}", node.address, node.internode_port);
    let name = format!("node-{}.{}.carnelian.internal", parts[2], parts[0]);
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", &name, "-alpn", protocol])
        .stdin(Stdio::null())
        .output()
        .expect("openssl starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let subject = text.lines().find(|line| line.starts_with("subject="));
    subject.unwrap_or_else(|| panic!("nothing is shown: {text}")).to_owned()
}

#[test]
fn what_is_provided_for_links_between_nodes_is_what_they_show() {
    if !is_carnelian() {
        return;
    }
    let mut nodes = three();
    let port = free_port();
    let (uid, [primary, replica]) = make_database(&nodes, port);
    let mut there = nodes[primary].client(port);
    there.expect("SET k 1", "+OK");
    eventually(&mut there, "WAIT 1 1000", ":1");
    let full = there.info("sync_full");

    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "theirs");
    let (good, other) = (authority.rsa_both("nodes.example"), authority.both("ec.example"));
    let server_only = authority.rsa_server("server.example");
    for bad in [
        item(DATA, &other),
        item(DATA, &server_only),
        json!({"name": DATA, "certificate": read(&good.certificate)}),
        json!({"name": DATA, "certificate": read(&good.certificate), "key": read(&other.key)}),
    ] {
        let both = json!({"certificates": [item(CONTROL, &good), bad]});
        let (status, answer) = nodes[1].ask("PUT", PATH, &both);
        assert_eq!(
            (status, &answer["error_code"]),
            (400, &json!("invalid_certificate")),
            "{answer}"
        );
    }
    assert_eq!(managed_by(&nodes[0], CONTROL), ["cluster"; 3], "all of them or none");

    let both = json!({"certificates": [item(CONTROL, &good), item(DATA, &good)]});
    assert_eq!(nodes[1].change("PUT", PATH, &both), json!({}));
    for name in [CONTROL, DATA] {
        assert_eq!(managed_by(&nodes[1], name), ["customer"; 3]);
    }
    if Command::new("openssl").arg("version").output().is_ok() {
        for node in &nodes {
            for protocol in ["carnelian-control/1", "carnelian-data/1"] {
                let subject = shown_to_strangers(node, protocol);
                assert!(subject.contains("nodes.example"), "{subject}");
            }
        }
    }
    // The certificate can be had, its key cannot.
    let shown = nodes[2].get(PATH);
    assert_eq!(shown[format!("{DATA}_cert")], json!(read(&good.certificate)));
    assert!(
        shown.get(format!("{DATA}_key")).is_none() && shown.get(format!("{CONTROL}_key")).is_none()
    );
    // Links have gone over to it, and nothing was copied anew.
    eventually_linked(&nodes, uid, "link=tls");
    there.expect("SET k 2", "+OK");
    eventually(&mut there, "WAIT 1 1000", ":1");
    assert_eq!(there.info("sync_full"), full, "{}", nodes[primary].server.log());

    // It is not the cluster's to rotate.
    let rotate = format!("{PATH}/rotate");
    let (status, answer) = nodes[0].ask("POST", &rotate, &json!({"name": DATA}));
    assert_eq!((status, &answer["error_code"]), (403, &json!("unsupported_rotation")), "{answer}");
    nodes[0].change("POST", &rotate, &Value::Null);
    assert_eq!(managed_by(&nodes[0], DATA), ["customer"; 3]);

    // A node that starts again shows it, and is let in.
    nodes[replica].server.kill();
    nodes[replica].server.start_again().expect("it starts again");
    eventually_linked(&nodes, uid, "link=tls");
    eventually(&mut there, "WAIT 1 1000", ":1");
    nodes[0]
        .eventually(&format!("{PATH}/status"), |_| managed_by(&nodes[0], DATA) == ["customer"; 3]);

    // Each plane goes back by itself.
    nodes[0].change("DELETE", &format!("{PATH}/{DATA}"), &Value::Null);
    nodes[0]
        .eventually(&format!("{PATH}/status"), |_| managed_by(&nodes[0], DATA) == ["cluster"; 3]);
    assert_eq!(managed_by(&nodes[0], CONTROL), ["customer"; 3]);
    eventually_linked(&nodes, uid, "link=tls");
    there.expect("SET k 3", "+OK");
    eventually(&mut there, "WAIT 1 1000", ":1");
    let (status, _) = nodes[0].ask("DELETE", &format!("{PATH}/{DATA}"), &Value::Null);
    assert_eq!(status, 403, "it has to be there, and is the cluster's own");
}

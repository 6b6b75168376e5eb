//! Greetings and certificates that a server must refuse at its port for other nodes: each with a reason in its log that
//! says what was wrong, and with a figure of its own. The library's tests have more of them; here it is the process
//! that listens.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::der::{DNS, PublicOnly, URI};
use carnelian_tests::forge::{Forge, Shown, Visitor};
use carnelian_tests::greetings::{Names, rows};
use carnelian_tests::is_carnelian;
use carnelian_tests::nodes::{Node, Nodes, cluster_tool};
use carnelian_tests::server::Signal;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use super::internode::ARGS;
use super::replication_replica::eventually_logged;

/// How often something is tried whose line in the log was left out, as there were too many.
const TRIES: usize = 20;

/// What the server has counted of refusals, and all of it by reason.
fn refused(node: &Node) -> (u64, u64) {
    let info = node.server.connect().call("INFO internode").text();
    let number = |line: &str| line.rsplit(':').next().and_then(|it| it.trim().parse().ok());
    let mut by_reason = 0;
    let mut all = 0;
    for line in info.lines() {
        if line.starts_with("internode_incoming_refused:") {
            all = number(line).unwrap_or(0);
        } else if line.starts_with("internode_incoming_refused_") {
            by_reason += number(line).unwrap_or(0_u64);
        }
    }
    (all, by_reason)
}

/// Tries to get in, which has to be refused, counted and told for this reason.
#[track_caller]
fn is_refused(node: &Node, name: &str, reason: &str, attempt: &dyn Fn()) {
    for _ in 0..TRIES {
        let (before, _) = refused(node);
        let told = node.server.log().len();
        attempt();
        let mut after = refused(node);
        for _ in 0..1000 {
            if after.0 == before + 1 {
                break;
            }
            sleep(Duration::from_millis(5));
            after = refused(node);
        }
        assert_eq!(after, (before + 1, before + 1), "{name} is not counted");
        let log = node.server.log();
        let new = &log[told..];
        if new.contains(reason) && new.contains("Refused") {
            assert!(new.is_ascii(), "{name}: {new}");
            return;
        }
        // So many lines a second, and no more.
        assert!(new.is_empty(), "{name} is not told as '{reason}':\n{new}");
        sleep(Duration::from_millis(300));
    }
    panic!("{name}: nothing is told");
}

fn names(nodes: &Nodes) -> Names {
    let name = |node: u32, cluster: &str| format!("node-{node}.{cluster}.carnelian.internal");
    Names {
        node: name(1, &nodes.cluster),
        other_node: name(2, &nodes.cluster),
        other_cluster: name(1, &"09".repeat(16)),
    }
}

#[test]
fn a_server_refuses_hostile_greetings_and_says_why() {
    if !is_carnelian() {
        return;
    }
    let nodes = Nodes::start(1, &ARGS);
    let node = &nodes.nodes[0];
    let rows = rows(&names(&nodes));
    assert!(60 <= rows.len(), "{}", rows.len());
    for row in &rows {
        is_refused(node, row.name, row.expected, &|| {
            let mut socket = TcpStream::connect(("127.0.0.1", node.port)).expect("it is open");
            // The far end may have had enough before it has all.
            let _ = socket.write_all(&row.sent);
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            match (row.expected, row.alert) {
                ("", _) => assert!(answer.starts_with(&[0x15, 3]), "{}: {answer:?}", row.name),
                (_, 0) => assert!(answer.is_empty(), "{}: {answer:?}", row.name),
                (_, alert) => assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, alert], "{}", row.name),
            }
        });
    }
    // Clients have not noticed.
    node.server.connect().expect("PING", "+PONG");
}

/// Certificates, and what is wrong with each.
fn certificates(forge: &Forge, stranger: &Forge) -> Vec<(&'static str, Shown, &'static str)> {
    let mut all = Vec::new();
    let mut add = |name, shown: Shown, reason| all.push((name, shown, reason));
    let good = forge.identity(2, "data");
    let forged = |change: &dyn Fn(&mut CertificateParams)| forge.forged(change);
    let uri = |text: &str| forge.named(&[(URI, text.as_bytes())]);
    let changed = |from: &str, to: &str| {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        uri(&bad)
    };

    // Who signed.
    let no_authority = "no authority of this cluster";
    add("another authority", forge.forged_by(&stranger.issuer, |_| {}), no_authority);
    let own = forge.params().self_signed(&forge.key).expect("it can be signed");
    add("self-signed", Shown::new(vec![own.into()], &forge.key), no_authority);
    let mut flipped = forged(&|_| {}).chain[0].to_vec();
    *flipped.last_mut().expect("it is not empty") ^= 1;
    let not_ours = "not this cluster's authority's, whose name it bears";
    add("another signature", Shown::new(vec![flipped.into()], &forge.key), not_ours);
    let leaf = forged(&|_| {}).chain.remove(0);
    let key = || KeyPair::from_pem(&forge.key.serialize_pem()).expect("a key");
    let by_leaf = Issuer::from_ca_cert_der(&leaf, key()).expect("a certificate");
    let by_leaf = forge.forged_by(&by_leaf, |_| {});
    add("signed by a leaf", by_leaf.clone(), no_authority);
    let chain = vec![by_leaf.chain[0].clone(), leaf.clone()];
    add("signed by a leaf, which is sent along", Shown::new(chain, &forge.key), "2 certificates");
    let chain = vec![leaf.clone(), forge.authority.clone()];
    add("with the root", Shown::new(chain, &forge.key), "2 certificates");
    let root = Shown::new(vec![forge.authority.clone()], &forge.key);
    add("the authority's own", root, "authority's, not a node's");
    let ca = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    add("marked as an authority's", forged(&ca), "authority's, not a node's");
    let other = Shown::new(vec![leaf.clone()], &forge.other_key);
    add("somebody else's key", other, "does not hold the certificate's key");

    // When.
    let days = |count: u64| Duration::from_secs(count * 86_400);
    let long_ago = |p: &mut CertificateParams| {
        p.not_before -= days(60);
        p.not_after -= days(60);
    };
    add("expired", forged(&long_ago), "expired");
    add("not yet valid", forged(&|p| p.not_before += days(1)), "becomes valid in");

    // What for.
    let usage = |all: &'static [Usage]| forged(&|p| p.extended_key_usages = all.to_vec());
    add("no extended key usage", usage(&[]), "(extended key usage)");
    add("servers only", usage(&[Usage::ServerAuth]), "not for the client's end");
    add("clients only", usage(&[Usage::ClientAuth]), "not for the server's end");
    add("any usage", usage(&[Usage::Any]), "(extended key usage)");
    add("signing code", usage(&[Usage::CodeSigning]), "not for the server's end");
    let signs = "not for signing handshakes";
    add("no key usage", forged(&|p| p.key_usages.clear()), signs);
    let encrypts = vec![KeyUsagePurpose::KeyEncipherment];
    add("encrypting keys only", forged(&|p| p.key_usages.clone_from(&encrypts)), signs);

    // Keys.
    for (name, bits, reason) in [
        ("RSA of 1024 bits", 1024, "has 1024 bits, fewer than 2048"),
        ("RSA of 512 bits", 512, "has 512 bits"),
    ] {
        let weak = PublicOnly::rsa(bits);
        let signed = forge.params().signed_by(&weak, &forge.issuer).expect("it can be signed");
        add(name, Shown::new(vec![signed.into()], &forge.key), reason);
    }
    for (name, algorithm) in
        [("ECDSA", &rcgen::PKCS_ECDSA_P256_SHA256), ("Ed25519", &rcgen::PKCS_ED25519)]
    {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let signed = forge.params().signed_by(&key, &forge.issuer).expect("it can be signed");
        // Shown by one who signs with another key: the certificate is looked at first.
        add(name, Shown::new(vec![signed.into()], &forge.key), "not an RSA key");
    }

    // Names.
    add("no name", forged(&|p| p.subject_alt_names.clear()), "names no node");
    let common = |p: &mut CertificateParams| {
        p.subject_alt_names.clear();
        p.distinguished_name.push(DnType::CommonName, good.as_str());
    };
    add("common name only", forged(&common), "names no node");
    let both = [(URI, good.as_bytes()), (DNS, b"node-2.example".as_slice())];
    add("a host name besides", forge.named(&both), "has 2 names");
    add("the URI twice", forge.named(&[both[0], both[0]]), "has 2 names");
    add("the name as a host's", forge.named(&[(DNS, good.as_bytes())]), "not a URI");
    add("NUL at the end", changed("data", "data\0"), "data\\u{0}'");
    add("NUL and more", changed("/data", "/data\0.evil"), "neither 'control' nor 'data'");
    add("NUL within", changed("/2/", "/2\0/"), "not a number");
    add("Cyrillic letters", changed("data", "d\u{0430}ta"), "d\\u{430}ta', which is no node's");
    add("full-width digits", changed("/2/", "/\u{ff12}/"), "not a number");
    add("bytes that are no text", forge.named(&[(URI, b"carnelian://\xff\xfe")]), "not a URI");
    add("wildcard for the node", changed("/2/", "/*/"), "not a number");
    add("wildcard for the plane", changed("data", "*"), "neither 'control' nor 'data'");
    add("wildcard for the cluster", changed(&forge.cluster, "*"), "not of 32 digits");
    add("another scheme", changed("carnelian", "spiffe"), "does not begin with");
    add("a leading zero", changed("/2/", "/02/"), "not a number");
    add("node 0", changed("/2/", "/0/"), "not a number");
    add("no plane", changed("/data", ""), "missing");
    add("a long name", uri(&format!("carnelian://{}", "x".repeat(4000))), "xxx...'");
    add("another cluster", changed(&forge.cluster, &"09".repeat(16)), "of the cluster 0909");
    let control = uri(&forge.identity(2, "control"));
    add("the other plane", control, "for the control plane, not for the data plane");

    // Form.
    let shown = |bytes: Vec<u8>| Shown::new(vec![bytes.into()], &forge.key);
    add("cut short", shown(leaf[..leaf.len() - 1].to_vec()), "damaged");
    add("bytes after its end", shown([&leaf[..], &[0]].concat()), "damaged");
    add("no certificate", shown(b"carnelian".to_vec()), "damaged");
    all
}

#[test]
fn a_server_refuses_hostile_certificates_and_says_why() {
    if !is_carnelian() {
        return;
    }
    let nodes = Nodes::start(2, &ARGS);
    let node = &nodes.nodes[0];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made =
        cluster_tool(&["init", "--node", "2", "--dir", &folder.path().display().to_string()]);
    let other = made.lines().find_map(|line| line.strip_prefix("cluster ")).expect("its id");
    let (forge, stranger) = (Forge::of(&nodes), Forge::in_folder(folder.path(), other));
    let name = names(&nodes).node;
    // With nothing wrong it is let in.
    let good = Visitor::showing(forge.forged(|_| {}), &name);
    for version in rustls::ALL_VERSIONS {
        let visitor = Visitor { versions: vec![version], ..good.clone() };
        if !visitor.gets_in(node.port) {
            eventually_logged(&node.server, "Refused");
            panic!("{}", node.server.log());
        }
    }
    let certificates = certificates(&forge, &stranger);
    assert!(40 <= certificates.len(), "{}", certificates.len());
    for (number, (what, shown, reason)) in certificates.into_iter().enumerate() {
        let version = rustls::ALL_VERSIONS[number % rustls::ALL_VERSIONS.len()];
        let visitor = Visitor { versions: vec![version], ..Visitor::showing(shown, &name) };
        is_refused(node, what, reason, &|| assert!(!visitor.gets_in(node.port), "{what}"));
    }
    let none = Visitor { shown: None, ..good.clone() };
    is_refused(node, "none", "showed no certificate", &|| assert!(!none.gets_in(node.port)));
    // A node that was one of ours; itself it is gone, lest its own attempts be counted.
    nodes.nodes[1].server.signal(Signal::KILL);
    let revoked = node.server.folder().join("internode/revoked");
    std::fs::write(revoked, "node 2\n").expect("a folder of ours");
    node.server.signal(Signal::HUP);
    for _ in 0..1000 {
        if !good.gets_in(node.port) {
            break;
        }
        sleep(Duration::from_millis(10));
    }
    is_refused(node, "revoked", "revoked", &|| assert!(!good.gets_in(node.port)));
    node.server.connect().expect("PING", "+PONG");
}

//! Certificates that must not be believed. Each is shown to a node that accepts and to one that
//! connects, in TLS 1.2 and 1.3 alike, and is refused for the reason that the table gives.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose as Usage,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;

use super::forge::{
    Client, DNS, EMAIL, IP, PublicOnly, Server, Shown, URI, World, authority_params, der, names,
    under_algorithm, world,
};
use super::*;

struct Case {
    name: &'static str,
    shown: Shown,
    expected: &'static str,
}

/// The table. What a certificate has that a good one has not is in its row.
fn cases() -> Vec<Case> {
    let world = world();
    let good = world.identity(2, Plane::Data).to_string();
    let mut cases = Vec::new();
    let mut add = |name, shown: Shown, expected| cases.push(Case { name, shown, expected });
    let forged = |change: &dyn Fn(&mut CertificateParams)| Shown::new(vec![world.forged(change)]);
    let named = |all: &[(u8, &[u8])]| {
        forged(&|p| {
            p.subject_alt_names.clear();
            p.custom_extensions.push(names(all));
        })
    };
    let uri = |text: &str| named(&[(URI, text.as_bytes())]);
    let changed = |from: &str, to: &str| {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        uri(&bad)
    };

    // Who signed.
    let stranger = World::new();
    let by_stranger = |change: &dyn Fn(&mut CertificateParams)| {
        Shown::new(vec![world.forged_by(&stranger.issuer, &world.rcgen_key(), change)])
    };
    let no_authority = "no authority of this cluster";
    add("another cluster's authority", by_stranger(&|_| {}), no_authority);
    add(
        "another authority, expired too",
        by_stranger(&|p| p.not_after = p.not_before),
        no_authority,
    );
    let own = Shown::new(vec![stranger.credential(2, Plane::Data).certificate().clone()]);
    add("another cluster's own node", own, no_authority);
    let unnamed = world.credential_of(&world.unnamed_authority(), 2);
    add(
        "an untrusted authority of this cluster",
        Shown::new(vec![unnamed.certificate().clone()]),
        no_authority,
    );
    let self_signed = world.params().self_signed(&world.rcgen_key()).unwrap();
    add("self-signed", Shown::new(vec![self_signed.into()]), no_authority);
    let impostor = world.forged_by(&world.impostor(), &world.rcgen_key(), |_| {});
    let not_ours = "not this cluster's authority's, whose name it bears";
    add("an authority of the same name", Shown::new(vec![impostor]), not_ours);
    let mut flipped = world.forged(|_| {}).to_vec();
    let place = flipped.windows(6).position(|bytes| bytes == b"node 2").unwrap();
    flipped[place + 5] = b'3';
    add("changed after signing", Shown::new(vec![flipped.into()]), not_ours);
    let mut flipped = world.forged(|_| {}).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    add("another signature", Shown::new(vec![flipped.into()]), not_ours);

    // Chains.
    let leaf = world.credential(3, Plane::Data).certificate().clone();
    let leaf_issuer = Issuer::from_ca_cert_der(&leaf, world.rcgen_key()).unwrap();
    let by_leaf = world.forged_by(&leaf_issuer, &world.rcgen_key(), |_| {});
    add("signed by a leaf", Shown::new(vec![by_leaf.clone()]), no_authority);
    add("signed by a leaf, which is sent along", Shown::new(vec![by_leaf, leaf]), "2 certificates");
    let key = || KeyPair::from_pem(&world.keys[1].to_pem()).unwrap();
    let mut between = authority_params("an authority below ours");
    let below: CertificateDer<'static> = between.signed_by(&key(), &world.issuer).unwrap().into();
    let issuer = Issuer::new(between.clone(), key());
    let by_below = world.forged_by(&issuer, &world.rcgen_key(), |_| {});
    add("path length", Shown::new(vec![by_below.clone(), below.clone()]), "2 certificates");
    add("path length, alone", Shown::new(vec![by_below.clone()]), no_authority);
    let root = world.authority.public().certificate().clone();
    add(
        "path length, with the root",
        Shown::new(vec![by_below, below, root.clone()]),
        "3 certificates",
    );
    between.distinguished_name = world.authority_name();
    let by_namesake = world.forged_by(&Issuer::new(between, key()), &world.rcgen_key(), |_| {});
    add("signed by an authority below of our name", Shown::new(vec![by_namesake]), not_ours);
    add(
        "with the root sent along",
        Shown::new(vec![world.forged(|_| {}), root.clone()]),
        "2 certificates",
    );
    add("the authority's own", Shown::new(vec![root]), "authority's, not a node's");
    let ca = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    add("a node's marked as an authority's", forged(&ca), "authority's, not a node's");

    // When.
    let days = |count: u64| Duration::from_secs(count * 86_400);
    add(
        "expired",
        forged(&|p| {
            p.not_before -= days(60);
            p.not_after -= days(60);
        }),
        "expired 1",
    );
    add(
        "expired a moment ago",
        forged(&|p| p.not_after = p.not_before + Duration::from_secs(590)),
        "expired",
    );
    add("not yet valid", forged(&|p| p.not_before += days(1)), "becomes valid in 8");
    add("ends before it begins", forged(&|p| p.not_after = p.not_before - days(1)), "expired");

    // What for.
    let usage = |all: &'static [Usage]| forged(&|p| p.extended_key_usages = all.to_vec());
    add("no extended key usage", usage(&[]), "(extended key usage)");
    add("servers only", usage(&[Usage::ServerAuth]), "not for the client's end");
    add("clients only", usage(&[Usage::ClientAuth]), "not for the server's end");
    add("any usage", usage(&[Usage::Any]), "(extended key usage)");
    add(
        "any usage besides",
        usage(&[Usage::ServerAuth, Usage::ClientAuth, Usage::Any]),
        "not limited",
    );
    add("signing code", usage(&[Usage::CodeSigning]), "not for the server's end");
    let signs = "not for signing handshakes";
    add("no key usage", forged(&|p| p.key_usages.clear()), signs);
    let usages = |all: &'static [KeyUsagePurpose]| forged(&|p| p.key_usages = all.to_vec());
    add("encrypting keys only", usages(&[KeyUsagePurpose::KeyEncipherment]), signs);
    let certifies = usages(&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign]);
    add("signing certificates", certifies, signs);

    // Keys and algorithms.
    let keyed = |key: &PublicOnly| Shown::new(vec![world.forged_by(&world.issuer, key, |_| {})]);
    add("RSA of 1024 bits", keyed(&PublicOnly::rsa(1024)), "has 1024 bits, fewer than 2048");
    add("RSA of 2047 bits", keyed(&PublicOnly::rsa(2047)), "has 2047 bits");
    add("RSA of 512 bits", keyed(&PublicOnly::rsa(512)), "has 512 bits");
    add("RSA of 16384 bits", keyed(&PublicOnly::rsa(16_384)), "more than 8192");
    for (name, algorithm) in
        [("ECDSA", &rcgen::PKCS_ECDSA_P256_SHA256), ("Ed25519", &rcgen::PKCS_ED25519)]
    {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = world.forged_by(&world.issuer, &key, |_| {});
        // Who signed with that would find no common algorithm; a forger may sign with anything.
        add(name, Shown::new(vec![certificate]), "not an RSA key");
    }
    let under = |last| Shown::new(vec![under_algorithm(&world.forged(|_| {}), last)]);
    add("signed with SHA-1", under(5), "signed with SHA-1, not with");
    add("signed with MD5", under(4), "signed with MD5, not with");
    let mut ecdsa = authority_params("x");
    ecdsa.distinguished_name = world.authority_name();
    let ecdsa = Issuer::new(ecdsa, KeyPair::generate().unwrap());
    let by_ecdsa = world.forged_by(&ecdsa, &world.rcgen_key(), |_| {});
    add(
        "signed with ECDSA under our name",
        Shown::new(vec![by_ecdsa]),
        "1.2.840.10045.4.3.2, not with",
    );
    let own = world.forged(|_| {});
    add(
        "somebody else's certificate",
        Shown::with_key(vec![own], world.keys[1].to_der()),
        "does not hold the certificate's key",
    );

    // Names.
    add("no name", forged(&|p| p.subject_alt_names.clear()), "names no node");
    add(
        "common name only",
        forged(&|p| {
            p.subject_alt_names.clear();
            p.distinguished_name = rcgen::DistinguishedName::new();
            p.distinguished_name.push(DnType::CommonName, good.as_str());
        }),
        "names no node",
    );
    add("an empty list of names", named(&[]), "names no node");
    let both = [(URI, good.as_bytes()), (URI, b"carnelian://x".as_slice())];
    add("two URIs", named(&both), "has 2 names");
    add("the URI twice", named(&[both[0], both[0]]), "has 2 names");
    add("a host name besides", named(&[both[0], (DNS, b"node-2.example")]), "has 2 names");
    add("the name as a host's", named(&[(DNS, good.as_bytes())]), "not a URI");
    add("the name as a mail address", named(&[(EMAIL, good.as_bytes())]), "not a URI");
    add("an address", named(&[(IP, &[127, 0, 0, 1])]), "not a URI");
    add("names twice", forged(&|p| p.custom_extensions.push(names(&[(URI, b"x")]))), "damaged");
    add("NUL at the end", changed("data", "data\0"), "data\\u{0}'");
    add("NUL and more", changed("/data", "/data\0.evil"), "neither 'control' nor 'data'");
    add("NUL within", changed("/2/", "/2\0/"), "not a number");
    add("NUL before", changed("carnelian", "\0carnelian"), "does not begin with");
    add("Cyrillic letters", changed("data", "d\u{0430}ta"), "d\\u{430}ta', which is no node's");
    add("full-width digits", changed("/2/", "/\u{ff12}/"), "not a number");
    add("bytes that are no text", named(&[(URI, b"carnelian://\xff\xfe")]), "not a URI");
    add("wildcard for the node", changed("/2/", "/*/"), "not a number");
    add("wildcard for the plane", changed("data", "*"), "neither 'control' nor 'data'");
    add("wildcard for the cluster", changed(&world.cluster.to_string(), "*"), "not of 32 digits");
    add("capitals in the scheme", changed("carnelian", "Carnelian"), "does not begin with");
    add("another scheme", changed("carnelian", "spiffe"), "does not begin with");
    let upper = world.cluster.to_string().to_uppercase();
    add("capitals in the cluster", changed(&world.cluster.to_string(), &upper), "lower-case");
    add("a leading zero", changed("/2/", "/02/"), "not a number");
    add("node 0", changed("/2/", "/0/"), "not a number");
    add("a node beyond numbers", changed("/2/", "/4294967298/"), "not a number");
    add("escapes", changed("/2/", "/%32/"), "not a number");
    add("a slash at the end", changed("data", "data/"), "more to it than a plane");
    add("a query", changed("data", "data?plane=control"), "neither 'control' nor 'data'");
    add("a user before the cluster", changed("//", "//x@"), "not of 32 digits");
    add("no plane", changed("/data", ""), "missing");
    add("a name of 4000 bytes", uri(&format!("carnelian://{}", "x".repeat(4000))), "xxx...'");
    add("the cluster's own name", uri(&world.cluster.uri()), "missing");
    let other = ClusterId::from_bytes([9; 16]).to_string();
    add("another cluster", changed(&world.cluster.to_string(), &other), "of the cluster 0909");
    let control = world.credential(2, Plane::Control).certificate().clone();
    add(
        "the other plane",
        Shown::new(vec![control]),
        "for the control plane, not for the data plane",
    );

    // Form.
    let shown = |bytes: Vec<u8>| Shown::new(vec![bytes.into()]);
    let whole = world.forged(|_| {}).to_vec();
    add("cut short", shown(whole[..whole.len() - 1].to_vec()), "damaged");
    add("bytes after its end", shown([&whole[..], &[0]].concat()), "damaged");
    add("no certificate at all", shown(b"carnelian".to_vec()), "damaged");
    add("deep nesting", shown(vec![0x30; 4000]), "damaged");
    let padded = CustomExtension::from_oid_content(&[1, 2, 3], der(4, &[0; 9000]));
    let large = forged(&|p| p.custom_extensions.push(padded.clone()));
    add("of 10 KB", large, "more than any of ours");
    let mut critical = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
    critical.set_criticality(true);
    add(
        "an unknown critical extension",
        forged(&|p| p.custom_extensions.push(critical.clone())),
        "critical extension",
    );

    // Revoked.
    add(
        "revoked by its serial",
        forged(&|p| p.serial_number = Some(REVOKED.into())),
        "(serial 2a2a2a) has been revoked",
    );
    add(
        "a revoked node",
        forged(&|p| {
            let revoked = world.identity(13, Plane::Data).to_string();
            p.subject_alt_names = vec![SanType::URI(revoked.try_into().unwrap())];
        }),
        "node 13 has been revoked",
    );
    cases
}

const REVOKED: u64 = 0x002a_2a2a;

/// A node that has revoked what the table says is revoked.
fn judge(uid: u32) -> Arc<Node> {
    let node = world().node(uid);
    node.revoke_certificate(Serial::from_bytes(&REVOKED.to_be_bytes()));
    node.revoke_node(world().uid(13));
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_certificates_are_refused_from_clients() {
    let mut listening = Listening::start(judge(1)).await;
    let mut refused = 0;
    let mut wrong = Vec::new();
    for case in cases() {
        for versions in [Versions::Tls12, Versions::Tls13] {
            let client = Client {
                shown: Some(case.shown.clone()),
                versions: versions.all().to_vec(),
                ..Client::of_node(2, Plane::Data)
            };
            let welcomed = client.connect(listening.address).await;
            let what = format!("{} ({versions:?})", case.name);
            let refusal = listening.result().await.expect_err(&what).to_string();
            assert!(!welcomed, "{what}");
            if !refusal.contains(case.expected) || !refusal.is_ascii() || 300 < refusal.len() {
                wrong.push(format!("{what}: {refusal}"));
            }
            refused += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(120 <= refused, "{refused}");
    assert_eq!(listening.node.counters().refused_in_all(Direction::Incoming), refused);
    assert_eq!(listening.node.links().count(), 0);
    // It still takes those who are as they should be.
    assert!(Client::of_node(2, Plane::Data).connect(listening.address).await);
    listening.result().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_certificates_are_refused_from_servers() {
    let connector = Connector::new(judge(1));
    let connect = async |server: Server, wanted| {
        let address = server.start().await;
        connector.connect(address, world().uid(wanted), Plane::Data).await
    };
    let mut wrong = Vec::new();
    for case in cases() {
        for versions in [Versions::Tls12, Versions::Tls13] {
            let versions_all = versions.all().to_vec();
            let server = Server { versions: versions_all, ..Server::showing(case.shown.clone()) };
            let what = format!("{} ({versions:?})", case.name);
            // Whoever is meant, the certificate decides.
            let wanted = if case.name == "a revoked node" { 13 } else { 2 };
            let refusal = connect(server, wanted).await.expect_err(&what).to_string();
            if !refusal.contains(case.expected) {
                wrong.push(format!("{what}: {refusal}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let good = Shown::new(vec![world().forged(|_| {})]);
    connect(Server::showing(good.clone()), 2).await.expect("the server is not refused for itself");

    let refusal = connect(Server::showing(good), 3).await.unwrap_err();
    assert_eq!(refusal.to_string(), "its certificate is node 2's, not node 3's");
}

//! The table from outside: what is made, what is refused and how, what survives.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};

use super::*;
use crate::ca::ClientAuthority;
use crate::issue::{self, KeyKind, SubjectAltNames};
use crate::testing::{Openssl, authority};

const DAY: Duration = Duration::from_secs(86_400);
const BOTH: [Usage; 2] = [Usage::ServerAuth, Usage::ClientAuth];

fn names() -> Names {
    Names::new("c.example", &["10.0.0.7".parse().unwrap()]).unwrap()
}

fn table(authority: &ClientAuthority, folder: &Path) -> CertificateTable {
    let table = CertificateTable::open(folder).unwrap();
    table.ensure(authority, &names(), SystemTime::now()).unwrap();
    table
}

/// A self-signed certificate and its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new(
        algorithm: &'static SignatureAlgorithm,
        usages: &[Usage],
        (from, to): (SystemTime, SystemTime),
    ) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "customer");
        params.extended_key_usages = usages.to_vec();
        issue::set_validity(&mut params, from, to);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, key: key.serialize_pem() }
    }

    fn good() -> Self {
        let now = SystemTime::now();
        Self::new(&PKCS_ECDSA_P256_SHA256, &BOTH, (now, now + 9 * DAY))
    }

    fn provide(&self, name: &str) -> Provided {
        let key = Some(self.key.clone().into());
        Provided { name: name.into(), certificate: self.certificate.clone(), key }
    }
}

fn serials(table: &CertificateTable) -> Vec<String> {
    table.statuses(SystemTime::now()).into_iter().map(|status| status.serial).collect()
}

#[test]
fn what_is_required_is_made_once_and_comes_back() {
    let (folder, authority) = authority();
    let table = table(&authority, folder.path());
    let made = serials(&table);
    assert_eq!(made.len(), 5);
    assert!(table.ensure(&authority, &names(), SystemTime::now()).unwrap().is_empty());
    let again = CertificateTable::open(folder.path()).unwrap();
    assert_eq!(serials(&again), made);

    for status in table.statuses(SystemTime::now() + DAY / 2) {
        assert_eq!(status.managed_by, ManagedBy::ClientCa);
        assert_eq!((status.key_type.as_str(), status.days_left), ("ECDSA P-256", 364));
        assert_eq!(status.issuer, authority.info().subject);
        assert!(status.rotation_on_track);
        let unit = if status.name == CertificateName::Syncer { "syncer" } else { "redisdb" };
        let subject = format!("O=Carnelian Enterprise Cluster, OU={unit}, CN=c.example");
        assert_eq!(status.subject, subject);
    }
    let proxy = table.get(CertificateName::Proxy).unwrap();
    assert_eq!(
        proxy.info().dns_names,
        ["c.example", "*.c.example", "internal.c.example", "*.internal.c.example", "localhost"]
    );
    assert_eq!(proxy.info().ip_addresses.len(), 3);
    // What operators are told to give to their clients as the one to trust has that one in it.
    let text = fs::read_to_string(table.file(CertificateName::Proxy)).unwrap();
    assert!(text.ends_with(&crate::pem::certificate(authority.certificate())));
    assert_eq!(text, proxy.certificate_pem());

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let inside = folder.path().join("certificates");
    assert_eq!(mode(&inside), 0o700);
    assert_eq!(mode(&inside.join("certificates")), 0o600);
    assert!(!text.contains("PRIVATE KEY"));
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 6);
}

#[test]
fn what_does_not_serve_any_longer_is_made_anew_unless_it_is_the_customers() {
    let (folder, first) = authority();
    let (_other, second) = authority();
    let table = table(&first, folder.path());
    let now = SystemTime::now();
    table.replace(&[Pair::good().provide("proxy")], now).unwrap();
    let others = [
        CertificateName::Api,
        CertificateName::Cm,
        CertificateName::MetricsExporter,
        CertificateName::Syncer,
    ];

    assert!(table.ensure(&first, &names(), now + 300 * DAY).unwrap().is_empty());
    assert_eq!(table.ensure(&first, &names(), now + 306 * DAY).unwrap(), others);
    let more = Names::new("c.example", &["10.0.0.7", "::2"].map(|ip| ip.parse().unwrap())).unwrap();
    assert_eq!(table.ensure(&first, &more, now + 306 * DAY).unwrap(), others);
    assert!(table.ensure(&first, &names(), now + 306 * DAY).unwrap().is_empty());
    assert_eq!(table.ensure(&second, &names(), now + 306 * DAY).unwrap(), others);
    // Near the end of its authority a certificate ends with it, and is not made again and again.
    let late = now + 3_650 * DAY;
    assert_eq!(table.ensure(&second, &names(), late).unwrap(), others);
    assert!(table.ensure(&second, &names(), late).unwrap().is_empty());
}

#[test]
fn a_customers_certificate_is_refused_with_the_documented_code() {
    let (folder, authority) = authority();
    let table = table(&authority, folder.path());
    let before = serials(&table);
    let now = SystemTime::now();
    let (good, other) = (Pair::good(), Pair::good());
    let make = |usages: &[Usage], from, to| Pair::new(&PKCS_ECDSA_P256_SHA256, usages, (from, to));
    let expired = make(&BOTH, now - 9 * DAY, now - DAY);
    let future = make(&BOTH, now + DAY, now + 2 * DAY);
    let server = make(&BOTH[..1], now, now + DAY);
    let client = make(&BOTH[1..], now, now + DAY);
    let none = make(&[], now, now + DAY);
    let with = |certificate: &str, key: Option<&str>| Provided {
        name: "api".into(),
        certificate: certificate.into(),
        key: key.map(|key| key.to_owned().into()),
    };
    let two = format!("{}{}", authority.certificate_pem(), good.certificate);
    let damaged = good.certificate.replace("-----END", "!-----END");
    let cases = [
        (with("", Some(&good.key)), "invalid_certificate", "no certificate in it"),
        (with("hello", Some(&good.key)), "invalid_certificate", "no certificate in it"),
        (with(&damaged, Some(&good.key)), "invalid_certificate", "damaged PEM"),
        (with(&good.certificate[..200], Some(&good.key)), "invalid_certificate", "damaged PEM"),
        (with(&two, Some(&good.key)), "invalid_certificate", "must come first"),
        (with(&good.certificate, Some(&other.key)), "invalid_certificate", "not the certificate's"),
        (with(&good.certificate, Some("x")), "invalid_certificate", "no private key"),
        (with(&good.certificate, None), "invalid_certificate", "not the certificate's"),
        (with(&good.certificate.repeat(11), None), "invalid_certificate", "11 certificates"),
        (with(&" ".repeat(1 << 19), None), "invalid_certificate", "larger"),
        (expired.provide("api"), "certificate_expired", "86400 seconds ago"),
        (future.provide("api"), "invalid_certificate", "valid only in"),
        (server.provide("api"), "invalid_certificate", "lacks clientAuth"),
        (client.provide("api"), "invalid_certificate", "lacks serverAuth"),
        (none.provide("api"), "invalid_certificate", "lacks serverAuth"),
        (none.provide("ldap_client"), "invalid_certificate", "lacks clientAuth"),
        (good.provide("mtls_trusted_ca"), "invalid_certificate", "not marked as an authority"),
        (good.provide("internal"), "unknown_certificate", "'internal'"),
        (good.provide("data_internode_encryption"), "invalid_certificate", "RSA"),
    ];
    for (provided, code, words) in cases {
        // Whatever comes with it, and in whatever order, is not put in use either.
        for all in
            [[provided.clone(), other.provide("proxy")], [other.provide("proxy"), provided.clone()]]
        {
            let error = table.replace(&all, now).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(words), "{error} / {words}");
            assert!(table.check(&all, now).is_err());
        }
        let said = format!("{:?}", table.replace(&[provided], now));
        assert!(!said.contains(&good.key[40..60]), "{said}");
    }
    let twice = [good.provide("api"), good.provide("api")];
    assert_eq!(table.replace(&twice, now).unwrap_err().code(), "invalid_certificate");
    assert_eq!(serials(&table), before);
    assert_eq!(serials(&CertificateTable::open(folder.path()).unwrap()), before);
}

#[test]
fn damage_anywhere_in_what_is_provided_never_panics() {
    let (folder, authority) = authority();
    let table = table(&authority, folder.path());
    let before = serials(&table);
    let now = SystemTime::now();
    let good = Pair::good();
    let body = good.certificate.find('\n').unwrap()..good.certificate.rfind("\n-----END").unwrap();
    for place in body {
        for letter in ["A", "/", "", "\n", "\u{0}"] {
            let mut provided = good.provide("api");
            provided.certificate.replace_range(place..=place, letter);
            // What is left as it was, is the same letter or only in its unchecked signature.
            let _ = table.check(&[provided], now);
        }
    }
    for place in (0..good.key.len()).step_by(3) {
        let mut key = good.key.clone();
        key.replace_range(place..=place, "\u{0}");
        let provided = Provided { key: Some(key.into()), ..good.provide("api") };
        let _ = table.check(&[provided], now);
    }
    assert_eq!(serials(&table), before);
}

#[test]
fn a_good_one_is_in_use_at_once_and_after_the_next_start() {
    let (folder, authority) = authority();
    let table = table(&authority, folder.path());
    let mut changes = table.changes();
    let now = SystemTime::now();
    let served = table.served(CertificateName::Proxy);
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let pair = Pair::new(algorithm, &BOTH, (now, now + 9 * DAY));
        let all = [pair.provide("proxy"), pair.provide("sso_service")];
        assert_eq!(table.check(&all, now).unwrap().len(), 2);
        table.replace(&all, now).unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let shown = served.certificate().unwrap();
        assert_eq!(shown.certificate_pem(), pair.certificate.replace("\r\n", "\n"));
        assert_eq!(shown.key_pem().unwrap(), pair.key.replace("\r\n", "\n"));

        let again = CertificateTable::open(folder.path()).unwrap();
        let kept = again.get(CertificateName::Proxy).unwrap();
        assert_eq!((kept.chain(), kept.key_pem()), (shown.chain(), shown.key_pem()));
        let status = &again.statuses(now + DAY / 2)[2];
        assert_eq!((status.name, status.managed_by), (CertificateName::Proxy, ManagedBy::Customer));
        assert_eq!((status.next_rotation, status.rotation_on_track), (None, false));
        assert_eq!(status.days_left, 8);
    }
    table.remove("sso_service").unwrap();
    assert!(!table.file(CertificateName::SsoService).exists());
    for (name, code) in [
        ("sso_service", "certificate_not_found"),
        ("proxy", "required_certificate"),
        ("ccs_internode_encryption", "required_certificate"),
        ("x", "unknown_certificate"),
    ] {
        assert_eq!(table.remove(name).unwrap_err().code(), code);
    }
    assert!(
        CertificateTable::open(folder.path()).unwrap().get(CertificateName::SsoService).is_none()
    );
}

#[test]
fn the_key_may_come_beside_the_certificate_or_be_the_one_in_use() {
    let (folder, authority) = authority();
    let table = table(&authority, folder.path());
    let now = SystemTime::now();
    let pair = Pair::good();
    let certificate = format!("{}{}", pair.key, pair.certificate);
    table.replace(&[Provided { name: "cm".into(), certificate, key: None }], now).unwrap();

    let key = KeyPair::from_pem(&pair.key).unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = BOTH.to_vec();
    let certificate = params.self_signed(&key).unwrap().pem();
    let renewed = Provided { name: "cm".into(), certificate, key: Some(String::new().into()) };
    table.replace(&[renewed], now).unwrap();
    assert_eq!(table.get(CertificateName::Cm).unwrap().key_pem().unwrap(), pair.key);
    let missing = Provided { name: "ldap_client".into(), certificate: pair.certificate, key: None };
    let error = table.replace(&[missing], now).unwrap_err().to_string();
    assert!(error.contains("key is missing"), "{error}");
}

#[test]
fn other_nodes_get_just_what_this_one_has() {
    let (folder, authority) = authority();
    let (elsewhere, _) = crate::testing::authority();
    let here = table(&authority, folder.path());
    let now = SystemTime::now();
    let trusted = Provided {
        name: "mtls_trusted_ca".into(),
        certificate: authority.certificate_pem().repeat(2),
        key: None,
    };
    here.replace(&[trusted], now).unwrap();
    let there = CertificateTable::open(elsewhere.path()).unwrap();
    there.replace(&[Pair::good().provide("ldap_client")], now).unwrap();
    let changes = there.changes();
    for version in [2, 2] {
        there.adopt(&here.share()).unwrap();
        assert_eq!(*changes.borrow(), version);
    }
    assert_eq!(there.statuses(now), here.statuses(now));
    assert_eq!(there.get(CertificateName::MtlsTrustedCa).unwrap().chain().len(), 2);
    let key = |table: &CertificateTable| {
        table.get(CertificateName::Api).unwrap().key_pem().map(str::to_owned)
    };
    assert!(key(&here).is_some() && key(&here) == key(&there));

    let mut without_key = here.share();
    without_key[0].key = None;
    assert_eq!(there.adopt(&without_key).unwrap_err().code(), "invalid_certificate");
    assert_eq!(there.statuses(now), here.statuses(now));
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let (folder, authority) = authority();
    table(&authority, folder.path());
    let path = folder.path().join("certificates/certificates");
    let good = fs::read_to_string(&path).unwrap();
    let damages = [
        "x".to_owned(),
        good.repeat(2),
        good[..good.len() - 100].to_owned(),
        good.replace("certificate proxy client_ca", "certificate proxy me"),
        good.replace("certificate proxy", "certificate prox"),
        good.replacen("certificate api client_ca", "certificate api", 1),
        "certificate api client_ca".to_owned(),
    ];
    for damaged in damages {
        fs::write(&path, &damaged).unwrap();
        let error = CertificateTable::open(folder.path()).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("certificates")), "{damaged}");
        assert!(!error.unwrap().contains("BEGIN"));
    }
}

#[test]
fn openssl_agrees_about_what_is_made_and_its_keys_are_judged() {
    let Some(openssl) = Openssl::new() else { return };
    let (folder, authority) = authority();
    let table = table(&authority, folder.path());
    let now = SystemTime::now();
    let write = |name: &str, text: &str| fs::write(openssl.folder().join(name), text).unwrap();
    let read = |name: &str| fs::read_to_string(openssl.folder().join(name)).unwrap();
    write("ca.pem", authority.certificate_pem());
    write("api.pem", &table.get(CertificateName::Api).unwrap().certificate_pem());
    for purpose in ["sslserver", "sslclient"] {
        openssl.run(&format!("verify -x509_strict -purpose {purpose} -CAfile ca.pem api.pem"));
    }
    openssl.run("verify -verify_hostname node3.c.example -CAfile ca.pem api.pem");
    openssl.run("verify -verify_ip 10.0.0.7 -CAfile ca.pem api.pem");

    write(
        "usage.cnf",
        "[v]\nextendedKeyUsage=serverAuth,clientAuth\n[req]\ndistinguished_name=d\n[d]\n",
    );
    let common = "-nodes -subj /CN=x -days 9 -config usage.cnf -extensions v";
    let cases = [
        ("rsa:2048", "-sha256", None),
        ("rsa:4096", "-sha512", None),
        ("ec -pkeyopt ec_paramgen_curve:P-521", "-sha256", None),
        ("rsa:1024", "-sha256", Some("1024 bits")),
        ("ec -pkeyopt ec_paramgen_curve:secp256k1", "-sha256", Some("unknown kind")),
    ];
    for (kind, hash, refused) in cases {
        openssl.run(&format!("req -x509 -newkey {kind} {hash} {common} -keyout k -out c"));
        let key = Some(read("k").into());
        let provided = Provided { name: "api".into(), certificate: read("c"), key };
        match (table.replace(&[provided], now), refused) {
            (Ok(()), None) => {}
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, _) => panic!("{kind}: {found:?}"),
        }
    }

    // SHA-1 is refused under a leaf that an authority signed.
    openssl.run(&format!("req -x509 -newkey rsa:2048 {common} -keyout ca.key -out root.pem"));
    openssl.run("req -new -newkey rsa:2048 -nodes -subj /CN=x -config usage.cnf -keyout k -out r");
    for (hash, is_taken) in [("sha1", false), ("sha256", true)] {
        openssl.run(&format!(
            "x509 -req -{hash} -in r -CA root.pem -CAkey ca.key -CAcreateserial -days 9 -extfile \
             usage.cnf -extensions v -out c"
        ));
        let key = Some(read("k").into());
        let certificate = read("c") + &read("root.pem");
        let result = table.replace(&[Provided { name: "api".into(), certificate, key }], now);
        assert_eq!(result.is_ok(), is_taken, "{hash}: {result:?}");
    }
    openssl.run("rsa -in k -aes256 -passout pass:1234 -out locked");
    let key = Some(read("locked").into());
    let provided = Provided { name: "api".into(), certificate: read("c"), key };
    let error = table.replace(&[provided], now).unwrap_err().to_string();
    assert!(error.contains("encrypted"), "{error}");
}

#[test]
fn a_clients_own_key_can_be_of_rsa() {
    let (folder, authority) = authority();
    let table = table(&authority, folder.path());
    let names = SubjectAltNames::of(["c.example"]).unwrap();
    let now = SystemTime::now();
    let made = authority.issue_server(&names, KeyKind::Rsa2048, now).unwrap();
    let provided = Provided {
        name: "syncer".into(),
        certificate: made.certificate_pem,
        key: Some(made.key_pem.into()),
    };
    table.replace(&[provided], now).unwrap();
    let status = table.statuses(now).into_iter().find(|one| one.name == CertificateName::Syncer);
    assert_eq!(status.unwrap().key_type, "RSA 2048");
}

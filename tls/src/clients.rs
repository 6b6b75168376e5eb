//! What a node of a cluster shows to clients. The client CA is the cluster's, so that whoever knows
//! it verifies every node: a node makes its keys, asks for certificates, and keeps what was signed.
//! Its keys stay with it, and the authority's is nowhere in its folder.
//!
//! [`ClientTrust`] is that authority as everybody may know it, [`NodeLeaves`] what a node has of it.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, IsCa, KeyPair, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::ca::{self, ClientAuthority, Leaf};
use crate::certificates::{self, CertificateError, CertificateName, CertificateTable, Names};
use crate::describe::{self, CertificateInfo};
use crate::error::ConfigError;
use crate::issue::{self, KeyKind, Profile, Purpose, SubjectAltNames};
use crate::{overlap, pem};

/// Ours have about 1,000, and some for each name.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Names and addresses of one node.
const NAMES_MAX: usize = 1_000;

/// The authorities that a cluster's clients are to know, without their keys.
#[derive(Clone, Debug)]
pub struct ClientTrust {
    /// One or two, the oldest first.
    listed: Vec<(CertificateDer<'static>, CertificateInfo)>,
    /// The place of the one that signs.
    signer: usize,
}

impl ClientTrust {
    /// From certificates as PEM.
    pub fn new(listed: &[&str], signer: usize) -> Result<Self, ConfigError> {
        let bad = |reason: &str| ConfigError::BadCertificate {
            path: "the cluster's client CA".into(),
            reason: reason.into(),
        };
        let mut all = Vec::new();
        for text in listed {
            let certificate = CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|_| bad("no certificate in it"))?;
            let info = CertificateInfo::of(&certificate).map_err(|error| bad(&error.0))?;
            all.push((certificate, info));
        }
        match signer < all.len() {
            true => Ok(Self { listed: all, signer }),
            false => Err(bad("nobody signs")),
        }
    }

    /// All that are valid, the oldest first.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.listed.iter().map(|(certificate, _)| certificate.clone()).collect()
    }

    pub fn infos(&self) -> Vec<CertificateInfo> {
        self.listed.iter().map(|(_, info)| info.clone()).collect()
    }

    /// The one that signs.
    pub fn signer(&self) -> &CertificateInfo {
        &self.listed[self.signer].1
    }

    /// The certificates as the instances API lists them: whatever joins them, even by a character on
    /// the same line, makes a text that every reader of PEM finds all of them in.
    pub fn server_ca_certs(&self) -> Vec<String> {
        let texts = self.listed.iter().map(|(certificate, _)| pem::certificate(certificate));
        texts
            .enumerate()
            .map(|(place, text)| if place == 0 { text } else { format!("\n{text}") })
            .collect()
    }
}

/// What a certificate is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafUse {
    /// The ports of databases.
    Endpoint,
    /// What the table has under this name.
    Named(CertificateName),
}

/// What a node sends to whoever signs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeafRequest {
    pub of: LeafUse,
    /// PEM: the key, the names, and a signature that shows that the key is at hand.
    pub request: String,
}

impl ClientAuthority {
    /// Signs what a node of a cluster asks for: as PEM, the leaf alone.
    pub fn grant(
        &self,
        asked: &LeafRequest,
        cluster: &str,
        now: SystemTime,
    ) -> Result<String, ConfigError> {
        let bad = |reason: &str| ConfigError::BadRequest(reason.into());
        if REQUEST_BYTES_MAX < asked.request.len() {
            return Err(bad("it is larger than any request"));
        }
        let request = CertificateSigningRequestParams::from_pem(&asked.request)
            .map_err(|error| ConfigError::BadRequest(error.to_string()))?;
        let names = names_of(&request.params)?;
        let info = request.public_key.subject_public_key_info();
        let (_, info) =
            SubjectPublicKeyInfo::from_der(&info).map_err(|_| bad("its key cannot be read"))?;
        let kind = match describe::key_type(&info).as_str() {
            "ECDSA P-256" => KeyKind::EcdsaP256,
            "RSA 2048" => KeyKind::Rsa2048,
            other => return Err(bad(&format!("a key of the kind {other}"))),
        };
        let profile = match asked.of {
            LeafUse::Endpoint => {
                let common_name = names.dns.first().map_or("carnelian", String::as_str);
                let (purpose, life) = (Purpose::Server, issue::LEAF_LIFE);
                Profile { purpose, subject: issue::subject(common_name), names: &names, kind, life }
            }
            LeafUse::Named(name) if name.kind() == certificates::Kind::Required => {
                Profile { kind, ..certificates::profile(name, cluster, &names) }
            }
            LeafUse::Named(_) => return Err(bad("no certificate of this name is made here")),
        };
        let params = issue::leaf_params(profile, self.ends(), now)?;
        Ok(params.signed_by(&request.public_key, self.issuer())?.pem())
    }
}

/// What a request asks for; nothing but names is granted.
fn names_of(asked: &CertificateParams) -> Result<SubjectAltNames, ConfigError> {
    let bad = |reason: &str| ConfigError::BadRequest(reason.into());
    let asks_for_more = asked.is_ca != IsCa::NoCa
        || !asked.key_usages.is_empty()
        || !asked.extended_key_usages.is_empty();
    if asks_for_more {
        return Err(bad("it asks for rights, which the authority alone decides about"));
    }
    if NAMES_MAX < asked.subject_alt_names.len() {
        return Err(bad("too many names"));
    }
    let mut names = SubjectAltNames::default();
    for name in &asked.subject_alt_names {
        match name {
            SanType::DnsName(name) => names.add(name.as_str())?,
            SanType::IpAddress(address) => names.add(&address.to_string())?,
            _ => return Err(bad("a name that no server has")),
        }
    }
    Ok(names)
}

/// A place for one certificate on a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slot {
    /// Shown at the ports of databases, by the kind that a client can verify.
    Endpoint(KeyKind),
    /// In the table.
    Named(CertificateName),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(KeyKind::EcdsaP256) => f.write_str("databases (ECDSA)"),
            Self::Endpoint(KeyKind::Rsa2048) => f.write_str("databases (RSA)"),
            Self::Named(name) => f.write_str(name.as_str()),
        }
    }
}

impl Slot {
    /// RSA is for clients that know nothing else, which operators' are not.
    fn kind(self) -> KeyKind {
        match self {
            Self::Endpoint(kind) => kind,
            Self::Named(_) => KeyKind::EcdsaP256,
        }
    }
}

/// Keys that wait for their certificates.
pub struct PendingLeaves {
    keys: Vec<(Slot, KeyPair)>,
    /// To be signed, in this order.
    pub requests: Vec<LeafRequest>,
}

impl PendingLeaves {
    /// New keys and the requests to have them certified. RSA takes some tenths of a second.
    pub fn new(slots: &[Slot], names: &Names) -> Result<Self, ConfigError> {
        let (mut keys, mut requests) = (Vec::new(), Vec::new());
        for slot in slots {
            let key = issue::new_key(slot.kind())?;
            let mut params = CertificateParams::default();
            params.distinguished_name = issue::subject("a node");
            params.subject_alt_names = issue::alternatives(names.alternatives())?;
            let request = params.serialize_request(&key)?.pem()?;
            let of = match slot {
                Slot::Endpoint(_) => LeafUse::Endpoint,
                Slot::Named(name) => LeafUse::Named(*name),
            };
            requests.push(LeafRequest { of, request });
            keys.push((*slot, key));
        }
        Ok(Self { keys, requests })
    }
}

/// What a node has in its data folder, and in the table that is kept there.
#[derive(Clone, Copy)]
pub struct NodeLeaves<'a> {
    pub folder: &'a Path,
    pub table: &'a CertificateTable,
}

impl NodeLeaves<'_> {
    /// What has to be signed: it is not there, lacks a name, is about to end, or is not of the
    /// authority that signs now. What a customer has provided stays.
    pub fn lacking(&self, trust: &ClientTrust, names: &Names, now: SystemTime) -> Vec<Slot> {
        let (certificate, info) = &trust.listed[trust.signer];
        let authority = std::slice::from_ref(certificate);
        let mut slots: Vec<Slot> = [KeyKind::EcdsaP256, KeyKind::Rsa2048]
            .into_iter()
            .filter(|kind| {
                let kept = Leaf::read(self.folder, *kind, authority, now);
                !kept.is_ok_and(|leaf| leaf.due_because(names.alternatives(), now).is_none())
            })
            .map(Slot::Endpoint)
            .collect();
        let signer = certificates::Signer { certificate, ends: info.not_after };
        slots.extend(self.table.lacking(&signer, names, now).into_iter().map(Slot::Named));
        slots
    }

    /// Uses what was signed; all of it has to be of an authority that is listed. New connections to
    /// databases see it when their acceptors are loaded anew.
    pub fn install(
        &self,
        pending: &PendingLeaves,
        signed: &[String],
        trust: &ClientTrust,
        now: SystemTime,
    ) -> Result<(), CertificateError> {
        let bad = |reason: String| ConfigError::BadRequest(reason);
        if signed.len() != pending.keys.len() {
            return Err(bad("not all that was asked for was signed".into()).into());
        }
        let mut judged = Vec::new();
        for ((slot, key), text) in pending.keys.iter().zip(signed) {
            let leaf = CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|_| bad(format!("{slot}: no certificate was sent")))?;
            let parsed = describe::parse(&leaf).map_err(|error| bad(error.0))?;
            if parsed.public_key().raw != key.subject_public_key_info() {
                return Err(bad(format!("{slot}: another key was certified")).into());
            }
            let vouches = |(authority, _): &&(CertificateDer<'static>, CertificateInfo)| {
                ca::verify(&leaf, std::slice::from_ref(authority), now).is_ok()
            };
            let (authority, _) = trust
                .listed
                .iter()
                .find(vouches)
                .ok_or_else(|| bad(format!("{slot}: an authority unknown here has signed")))?;
            let key: Zeroizing<String> = key.serialize_pem().into();
            judged.push((*slot, pem::certificate(&leaf), pem::certificate(authority), key));
        }
        let mut named = Vec::new();
        for (slot, leaf, authority, key) in judged {
            match slot {
                Slot::Endpoint(kind) => Leaf::write(self.folder, kind, &leaf, key.as_bytes())?,
                Slot::Named(name) => named.push((name, leaf + &authority, key)),
            }
        }
        self.table.install(&named)
    }

    /// Has clients find the cluster's list in `client-ca.pem`, and no key beside it. To be called when
    /// what has been signed is there. Says whether anything was different.
    pub fn leave_to_cluster(&self, trust: &ClientTrust) -> Result<bool, ConfigError> {
        overlap::leave_to_cluster(self.folder, trust)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::ca::AuthorityPem;
    use crate::certificates::Provided;
    use crate::overlap::{ClientCaPolicy, own_authorities};
    use crate::testing::{ClientOptions, Openssl, Pair, accept, self_made};

    const DAY: Duration = Duration::from_secs(86_400);

    /// A node, and the cluster's authorities.
    struct Node {
        folder: TempDir,
        table: CertificateTable,
    }

    impl Node {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let table = CertificateTable::open(folder.path()).unwrap();
            Self { folder, table }
        }

        fn leaves(&self) -> NodeLeaves<'_> {
            NodeLeaves { folder: self.folder.path(), table: &self.table }
        }

        /// Has signed what is lacking, and tells how much that was.
        fn renew(&self, by: &ClientAuthority, trust: &ClientTrust, now: SystemTime) -> usize {
            let slots = self.leaves().lacking(trust, &names(), now);
            let pending = PendingLeaves::new(&slots, &names()).unwrap();
            let sign = |request| by.grant(request, "c.example", now).unwrap();
            let signed: Vec<String> = pending.requests.iter().map(sign).collect();
            self.leaves().install(&pending, &signed, trust, now).unwrap();
            self.leaves().leave_to_cluster(trust).unwrap();
            slots.len()
        }
    }

    fn names() -> Names {
        let names = Names::new("c.example", &["10.0.0.7".parse().unwrap()]).unwrap();
        names.and(["db.example"]).unwrap()
    }

    fn authorities(count: usize) -> (Vec<ClientAuthority>, Vec<String>) {
        let make = |_| AuthorityPem::create(SystemTime::now(), 3_652 * DAY).unwrap();
        let texts: Vec<AuthorityPem> = (0..count).map(make).collect();
        let open = |one: &AuthorityPem| ClientAuthority::from_pem(one, Path::new("it")).unwrap();
        (texts.iter().map(open).collect(), texts.into_iter().map(|one| one.certificate).collect())
    }

    fn trust(texts: &[String], signer: usize) -> ClientTrust {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        ClientTrust::new(&texts, signer).unwrap()
    }

    #[test]
    fn nodes_with_keys_of_their_own_are_verified_by_one_authority() {
        let now = SystemTime::now();
        let first = Node::new();
        let own = own_authorities(first.folder.path(), ClientCaPolicy::default(), now).unwrap();
        let authority = ClientAuthority::from_pem(&own[0], Path::new("it")).unwrap();
        let trust = trust(&[own[0].certificate.clone()], 0);
        let second = Node::new();
        // It has served with what it made itself.
        accept(&self_made(second.folder.path()));
        let mut keys = Vec::new();
        for node in [&first, &second] {
            assert_eq!(node.renew(&authority, &trust, now), 7);
            assert_eq!(node.renew(&authority, &trust, now), 0);
            assert!(!node.folder.path().join("client-ca.key").exists());
            let acceptor = accept(&self_made(node.folder.path()));
            let client = ClientOptions::default().config(authority.certificate());
            assert!(Pair::new(&acceptor, &client).run().is_ok());
            for name in ["server.key", "server-rsa.key"] {
                keys.push(fs::read_to_string(node.folder.path().join(name)).unwrap());
            }
            let api = node.table.get(CertificateName::Api).unwrap();
            assert_eq!(api.chain().last(), Some(authority.certificate()));
            assert!(api.info().dns_names.contains(&"db.example".to_owned()));
            keys.push(api.key_pem().unwrap().to_owned());
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
        let Some(openssl) = Openssl::new() else { return };
        fs::write(openssl.folder().join("ca.pem"), authority.certificate_pem()).unwrap();
        for file in ["server.pem", "server-rsa.pem", "certificates/proxy_cert.pem"] {
            fs::copy(second.folder.path().join(file), openssl.folder().join("leaf.pem")).unwrap();
            let ip = "-verify_ip 10.0.0.7";
            openssl.run(&format!("verify -x509_strict {ip} -CAfile ca.pem leaf.pem"));
        }
    }

    #[test]
    fn leaves_are_asked_for_anew_when_another_signs_or_they_age() {
        let now = SystemTime::now();
        let (both, texts) = authorities(2);
        let node = Node::new();
        assert_eq!(node.renew(&both[0], &trust(&texts[..1], 0), now), 7);
        let listed = trust(&texts, 0);
        assert_eq!(node.renew(&both[0], &listed, now), 0);
        let list = fs::read_to_string(node.folder.path().join("client-ca.pem")).unwrap();
        assert_eq!(list, texts.concat());
        assert_eq!(node.renew(&both[1], &trust(&texts, 1), now), 7);
        // Whoever trusts the successor alone is served, before the first is dropped.
        let acceptor = accept(&self_made(node.folder.path()));
        let known = |one: &ClientAuthority| ClientOptions::default().config(one.certificate());
        assert!(Pair::new(&acceptor, &known(&both[1])).run().is_ok());
        assert!(Pair::new(&acceptor, &known(&both[0])).run().is_err());
        assert_eq!(node.renew(&both[1], &trust(&texts[1..], 0), now), 0);
        assert_eq!(node.renew(&both[1], &trust(&texts[1..], 0), now + 181 * DAY), 2);
        assert_eq!(node.renew(&both[1], &trust(&texts[1..], 0), now + 310 * DAY), 5);

        let theirs = node.table.get(CertificateName::Cm).unwrap();
        let provided = Provided {
            name: "proxy".into(),
            certificate: theirs.certificate_pem(),
            key: theirs.key_pem().map(|key| key.to_owned().into()),
        };
        node.table.replace(&[provided], now + 310 * DAY).unwrap();
        assert_eq!(node.renew(&both[0], &listed, now), 6);
    }

    #[test]
    fn nothing_but_names_is_granted_and_only_what_is_expected_is_taken() {
        let now = SystemTime::now();
        let (both, texts) = authorities(2);
        let trust = trust(&texts[..1], 0);
        let node = Node::new();
        let slots = [Slot::Named(CertificateName::Api), Slot::Endpoint(KeyKind::EcdsaP256)];
        let pending = PendingLeaves::new(&slots, &names()).unwrap();
        let sign = |by: &ClientAuthority| -> Vec<String> {
            let granted = pending.requests.iter().map(|one| by.grant(one, "c.example", now));
            granted.collect::<Result<_, _>>().unwrap()
        };
        let good = sign(&both[0]);
        let mut swapped = good.clone();
        swapped.reverse();
        let wrong = [sign(&both[1]), swapped, good[..1].to_vec(), vec![String::new(); 2]];
        for signed in wrong {
            assert!(node.leaves().install(&pending, &signed, &trust, now).is_err());
            assert!(!node.folder.path().join("server.pem").exists());
            assert!(node.table.get(CertificateName::Api).is_none());
        }
        node.leaves().install(&pending, &good, &trust, now).unwrap();
        assert!(node.table.served(CertificateName::Api).certificate().is_some());

        let ask = |of, change: &dyn Fn(&mut CertificateParams), key: &KeyPair| {
            let mut params = CertificateParams::default();
            change(&mut params);
            let request = params.serialize_request(key).unwrap().pem().unwrap();
            both[0].grant(&LeafRequest { of, request }, "c.example", now)
        };
        let key = issue::new_key(KeyKind::EcdsaP256).unwrap();
        let of = LeafUse::Endpoint;
        assert!(ask(of, &|_| (), &key).is_ok());
        assert!(ask(LeafUse::Named(CertificateName::MtlsTrustedCa), &|_| (), &key).is_err());
        assert!(
            ask(LeafUse::Named(CertificateName::CcsInternodeEncryption), &|_| (), &key).is_err()
        );
        let odd = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(ask(of, &|_| (), &odd).is_err());
        let uri = SanType::URI("carnelian://x/1/control".try_into().unwrap());
        assert!(ask(of, &|it| it.subject_alt_names = vec![uri.clone()], &key).is_err());
        let usage = rcgen::KeyUsagePurpose::KeyCertSign;
        assert!(ask(of, &|it| it.key_usages = vec![usage], &key).is_err());
        for request in ["", "-----BEGIN CERTIFICATE REQUEST-----", &"x".repeat(1 << 17)] {
            let request = LeafRequest { of, request: request.to_owned() };
            assert!(both[0].grant(&request, "c.example", now).is_err());
        }
    }

    #[test]
    fn a_list_joined_by_a_semicolon_has_all_its_certificates_for_openssl() {
        let Some(openssl) = Openssl::new() else { return };
        let now = SystemTime::now();
        let (both, texts) = authorities(2);
        let write = |name: &str, text: &str| fs::write(openssl.folder().join(name), text).unwrap();
        write("bundle.pem", &trust(&texts, 0).server_ca_certs().join(";"));
        let names = SubjectAltNames::of(["localhost"]).unwrap();
        for authority in &both {
            let leaf = authority.issue_server(&names, KeyKind::EcdsaP256, now).unwrap();
            write("leaf.pem", &leaf.certificate_pem);
            openssl.run("verify -x509_strict -CAfile bundle.pem leaf.pem");
        }
    }
}

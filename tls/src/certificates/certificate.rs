//! One certificate of the table: checked, with its chain, its key, and what it says.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

use super::{CertificateError, CertificateName};
use crate::acceptor::certified;
use crate::describe::{self, CertificateInfo};
use crate::issue::{BACKDATED, seconds};
use crate::{internode, pem, private_key, store};

/// The longest chain in use anywhere has four.
const CHAIN_MAX: usize = 10;
/// Of one text.
const TEXT_BYTES_MAX: usize = 256 * 1024;

const RSA_BITS_MIN: usize = 2048;

/// MD5 and SHA-1 with RSA, SHA-1 with ECDSA, SHA-1 with DSA.
const WEAK_SIGNATURES: [&str; 4] =
    ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1", "1.2.840.10040.4.3"];

/// Who sees to it that a certificate stays valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManagedBy {
    /// The cluster's authority for nodes.
    Cluster,
    /// Whoever provided it.
    Customer,
    /// The cluster's authority for clients.
    ClientCa,
}

impl ManagedBy {
    const ALL: [Self; 3] = [Self::Cluster, Self::Customer, Self::ClientCa];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Customer => "customer",
            Self::ClientCa => "client_ca",
        }
    }

    /// From what [`as_str`](Self::as_str) gives.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// A certificate in use.
pub struct Certificate {
    name: CertificateName,
    managed_by: ManagedBy,
    /// The leaf first, at least one.
    chain: Vec<CertificateDer<'static>>,
    key_pem: Option<Zeroizing<String>>,
    /// What handshakes show; there if there is a key.
    certified: Option<Arc<CertifiedKey>>,
    info: CertificateInfo,
}

impl Certificate {
    /// One that a customer provides: held to everything that its use will ask of it. A key that is
    /// not given is looked for beside the certificate, then in `before`, which it is to replace.
    pub(super) fn provided(
        name: CertificateName,
        certificate: &str,
        key: Option<&str>,
        before: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let invalid = |reason: String| CertificateError::Invalid { name, reason };
        if TEXT_BYTES_MAX < certificate.len().max(key.map_or(0, str::len)) {
            return Err(invalid("larger than any certificate".into()));
        }
        let beside = certificate.contains("PRIVATE KEY-----").then_some(certificate);
        let kept = || before.and_then(Self::key_pem);
        let key = match key.filter(|key| !key.trim().is_empty()).or(beside) {
            _ if !name.has_key() => None,
            Some(key) => Some(key),
            None => Some(kept().ok_or_else(|| invalid("its private key is missing".into()))?),
        };
        let chain = chain(certificate).map_err(&invalid)?;
        for certificate in &chain {
            check(certificate, now).map_err(|problem| problem.of(name))?;
        }
        let made = Self::new(name, ManagedBy::Customer, chain, key)?;
        match name {
            CertificateName::MtlsTrustedCa => check_authorities(&made.chain).map_err(&invalid)?,
            _ => check_usage(&made.chain[0], name.usages()).map_err(&invalid)?,
        }
        if name.is_internal() {
            internode::check_provided(&made.chain[0], now).map_err(&invalid)?;
        }
        Ok(made)
    }

    /// One that is in use already, here or on another node. Its dates play no part.
    pub(crate) fn kept(
        name: CertificateName,
        managed_by: ManagedBy,
        certificate: &str,
        key: Option<&str>,
    ) -> Result<Self, CertificateError> {
        let chain =
            chain(certificate).map_err(|reason| CertificateError::Invalid { name, reason })?;
        Self::new(name, managed_by, chain, key)
    }

    fn new(
        name: CertificateName,
        managed_by: ManagedBy,
        chain: Vec<CertificateDer<'static>>,
        key: Option<&str>,
    ) -> Result<Self, CertificateError> {
        let invalid = |reason: String| CertificateError::Invalid { name, reason };
        let info = CertificateInfo::of(&chain[0]).map_err(|error| invalid(error.0))?;
        let mut made = Self { name, managed_by, chain, key_pem: None, certified: None, info };
        let Some(key) = key else { return Ok(made) };

        let (key, key_pem) = private_key::plain_in(key).map_err(&invalid)?;
        let mut shown = made.chain.clone();
        // A root behind its leaf is for those who are to trust it; no handshake needs it.
        let is_root = |certificate: &CertificateDer<'_>| {
            describe::parse(certificate).is_ok_and(|parsed| is_self_signed(&parsed))
        };
        let mut place = 0;
        shown.retain(|certificate| {
            place += 1;
            place == 1 || !is_root(certificate)
        });
        let certified = certified(shown, key)
            .map_err(|_| invalid("the private key is of an unknown kind or damaged".into()))?;
        let leaf = describe::parse(&made.chain[0]).map_err(|error| invalid(error.0))?;
        match certified.key.public_key() {
            Some(public) if public.as_ref() == leaf.public_key().raw => {}
            _ => return Err(invalid(mismatch(&made.chain, &certified))),
        }
        made.key_pem = Some(key_pem);
        made.certified = Some(certified);
        Ok(made)
    }

    pub fn name(&self) -> CertificateName {
        self.name
    }

    pub fn managed_by(&self) -> ManagedBy {
        self.managed_by
    }

    /// What the leaf says.
    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }

    /// The leaf, then what leads to its root, and the root where it is known.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The chain as text.
    pub fn certificate_pem(&self) -> String {
        self.chain.iter().map(pem::certificate).collect()
    }

    /// `None` where the certificate is another's.
    pub fn key_pem(&self) -> Option<&str> {
        self.key_pem.as_deref().map(String::as_str)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.managed_by, &self.chain, self.key_pem())
            == (other.managed_by, &other.chain, other.key_pem())
    }

    /// For the engine.
    pub(crate) fn certified(&self) -> Option<&Arc<CertifiedKey>> {
        self.certified.as_ref()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("name", &self.name)
            .field("managed_by", &self.managed_by)
            .field("subject", &self.info.subject)
            .field("serial", &self.info.serial)
            .finish_non_exhaustive()
    }
}

fn chain(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificate is damaged PEM: {}", store::reason(&error)))?;
    match chain.len() {
        0 => Err("no certificate in it (expected PEM, BEGIN CERTIFICATE)".into()),
        1..=CHAIN_MAX => Ok(chain),
        count => Err(format!("{count} certificates, of which {CHAIN_MAX} are allowed")),
    }
}

/// What is wrong with one certificate of a chain.
enum Problem {
    Invalid(String),
    Expired(i64),
}

impl Problem {
    fn of(self, name: CertificateName) -> CertificateError {
        match self {
            Self::Invalid(reason) => CertificateError::Invalid { name, reason },
            Self::Expired(ago_s) => CertificateError::Expired { name, ago_s },
        }
    }
}

/// What is asked of a leaf and of those above it alike.
fn check(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<(), Problem> {
    let parsed = describe::parse(certificate).map_err(|error| Problem::Invalid(error.0))?;
    match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if describe::rsa_bits(&key) < RSA_BITS_MIN => {
            let bits = describe::rsa_bits(&key);
            return Err(Problem::Invalid(format!(
                "an RSA key of {bits} bits is too weak: at least {RSA_BITS_MIN}"
            )));
        }
        Ok(_) => {}
        Err(_) => return Err(Problem::Invalid("its public key cannot be read".into())),
    }
    // Nobody looks at the signature under a root.
    let algorithm = parsed.signature_algorithm.algorithm.to_id_string();
    if WEAK_SIGNATURES.contains(&algorithm.as_str()) && !is_self_signed(&parsed) {
        return Err(Problem::Invalid("it is signed with SHA-1 or MD5".into()));
    }
    let (now_s, validity) = (seconds(now), parsed.validity());
    let begins_s = validity.not_before.timestamp();
    if now_s.saturating_add(BACKDATED.as_secs() as i64) < begins_s {
        let in_s = begins_s.saturating_sub(now_s);
        return Err(Problem::Invalid(format!("it is valid only in {in_s} seconds")));
    }
    match now_s.saturating_sub(validity.not_after.timestamp()) {
        ago_s @ 1.. => Err(Problem::Expired(ago_s)),
        _ => Ok(()),
    }
}

fn check_usage(leaf: &CertificateDer<'_>, (server, client): (bool, bool)) -> Result<(), String> {
    let parsed = describe::parse(leaf).map_err(|error| error.0)?;
    let usage = parsed
        .extended_key_usage()
        .map_err(|_| "its extended key usage comes twice or is not readable")?;
    let has = |is_it: fn(&x509_parser::extensions::ExtendedKeyUsage<'_>) -> bool| {
        usage.as_ref().is_some_and(|usage| is_it(usage.value))
    };
    if server && !has(|usage| usage.server_auth) {
        return Err("its extended key usage lacks serverAuth".into());
    }
    if client && !has(|usage| usage.client_auth) {
        return Err("its extended key usage lacks clientAuth".into());
    }
    Ok(())
}

fn check_authorities(all: &[CertificateDer<'static>]) -> Result<(), String> {
    for certificate in all {
        let parsed = describe::parse(certificate).map_err(|error| error.0)?;
        // Version 1 has no way of saying so.
        let is_authority = parsed.is_ca() || (parsed.version().0 == 0 && is_self_signed(&parsed));
        if !is_authority {
            return Err(format!("{} is not marked as an authority", parsed.subject()));
        }
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|error| format!("{} cannot be trusted: {error}", parsed.subject()))?;
    }
    Ok(())
}

/// A root: nobody else says who it is.
fn is_self_signed(parsed: &X509Certificate<'_>) -> bool {
    parsed.subject().as_raw() == parsed.issuer().as_raw() && parsed.verify_signature(None).is_ok()
}

/// The commonest mistake is the order.
fn mismatch(chain: &[CertificateDer<'_>], certified: &CertifiedKey) -> String {
    let public = certified.key.public_key();
    let is_its = |certificate: &CertificateDer<'_>| {
        let parsed = describe::parse(certificate).ok();
        parsed
            .zip(public.as_ref())
            .is_some_and(|(parsed, public)| parsed.public_key().raw == public.as_ref())
    };
    match chain.iter().position(is_its) {
        Some(place) => {
            format!("the key's certificate must come first, not as number {}", place + 1)
        }
        None => "the private key is not the certificate's".into(),
    }
}

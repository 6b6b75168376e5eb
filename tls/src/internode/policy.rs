//! What may be spoken on the internode channel and whom to believe: the versions and suites, the
//! authorities, who has been revoked, and the judgement of one certificate. No sockets, no state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, Error as EngineError, ProtocolVersion, RootCertStore, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::public_key::PublicKey;

use super::Error;
use super::credential::Credential;
use super::peer::{ClusterId, Identity, NodeUid, Peer, Plane, Serial};
use super::refusal::{Quoted, Refusal};
use crate::describe::{self, hex};
use crate::provider::provider;

/// Where the internode channel listens.
pub const INTERNODE_PORT: u16 = 3342;

/// During a change of authorities two are trusted; there is never a reason for a third.
pub const AUTHORITIES_MAX: usize = 2;

/// Ours have about 1,200.
const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;

const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

/// The only suites there are here. Those of TLS 1.2 are why nodes have RSA keys.
const SUITES: [SupportedCipherSuite; 4] = [
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// RSA with SHA-256, SHA-384 and SHA-512, in that order.
const SIGNATURE_ALGORITHMS: [&str; 3] =
    ["1.2.840.113549.1.1.11", "1.2.840.113549.1.1.12", "1.2.840.113549.1.1.13"];

/// The suites, the preferred first.
pub fn suites() -> impl Iterator<Item = SupportedCipherSuite> {
    SUITES.into_iter()
}

/// The engine's cryptography, cut down to the four suites.
pub(super) fn cryptography() -> Arc<CryptoProvider> {
    static CRYPTOGRAPHY: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let cipher_suites = SUITES.to_vec();
        Arc::new(CryptoProvider { cipher_suites, ..CryptoProvider::clone(provider()) })
    });
    CRYPTOGRAPHY.clone()
}

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The versions of TLS in use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Versions {
    /// TLS 1.3 with those who know it.
    #[default]
    Both,
    Tls12,
    Tls13,
}

impl Versions {
    pub(super) fn has(self, version: ProtocolVersion) -> bool {
        self.all().iter().any(|known| known.version == version)
    }

    pub(super) fn all(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Both => BOTH,
            Self::Tls12 => &BOTH[1..],
            Self::Tls13 => &BOTH[..1],
        }
    }
}

/// The certificate of an authority of the cluster.
#[derive(Clone, Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    cluster: ClusterId,
    /// As DER.
    subject: Box<[u8]>,
    /// As DER.
    key: Box<[u8]>,
    /// Seconds since 1970.
    not_after: i64,
    sha256: [u8; 32],
    /// Holds this authority and no other.
    root: Arc<RootCertStore>,
}

impl Authority {
    /// Checks that it is one of ours: an authority's, self-signed, whose one name is its cluster.
    pub fn new(certificate: CertificateDer<'static>) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadAuthority(reason);
        let parsed = describe::parse(&certificate).map_err(|error| bad(error.to_string()))?;
        if !parsed.is_ca() {
            return Err(bad("it is not marked as an authority's".into()));
        }
        if parsed.subject().as_raw() != parsed.issuer().as_raw() {
            return Err(bad("another authority has signed it".into()));
        }
        parsed
            .verify_signature(None)
            .map_err(|_| bad("it is not signed with its own key".into()))?;
        let cluster = match &names(&parsed).map_err(|refusal| bad(refusal.to_string()))?[..] {
            [GeneralName::URI(uri)] => uri
                .strip_prefix("carnelian://")
                .and_then(|cluster| cluster.parse().ok())
                .ok_or_else(|| bad(format!("{} is no cluster's name", Quoted::text(uri))))?,
            _ => return Err(bad("it does not have one name, its cluster's".into())),
        };
        let mut root = RootCertStore::empty();
        root.add(certificate.clone()).map_err(|error| bad(error.to_string()))?;
        Ok(Self {
            cluster,
            subject: parsed.subject().as_raw().into(),
            key: parsed.public_key().raw.into(),
            not_after: parsed.validity().not_after.timestamp(),
            sha256: describe::fingerprint(&digest::SHA256, &certificate),
            root: Arc::new(root),
            certificate,
        })
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM.
    pub fn to_pem(&self) -> String {
        crate::pem::certificate(&self.certificate)
    }

    /// Its public key as DER.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Seconds since 1970; the last second of its life.
    pub(super) fn not_after(&self) -> i64 {
        self.not_after
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// SHA-256 of the certificate in hexadecimal: what to call it.
    pub fn fingerprint(&self) -> String {
        hex(&self.sha256)
    }
}

/// Who is no longer believed, although their certificates are in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Revocations {
    /// With the last second of the certificate's life, where it is known (since 1970): after that
    /// there is nothing to revoke.
    pub serials: BTreeMap<Serial, Option<i64>>,
    pub nodes: BTreeSet<NodeUid>,
}

/// Whom to believe: complete at any time, replaced as a whole.
#[derive(Clone, Debug)]
pub struct Trust {
    cluster: ClusterId,
    authorities: Vec<Authority>,
    /// Which revision of the cluster's state named them. 0 if none did.
    revision: u64,
    pub revocations: Revocations,
}

impl Trust {
    /// One authority, or two while one takes over from the other.
    pub fn new(authorities: Vec<Authority>) -> Result<Self, Error> {
        let [first, rest @ ..] = &authorities[..] else {
            return Err(Error::BadAuthority("there is none".into()));
        };
        if AUTHORITIES_MAX < authorities.len() {
            return Err(Error::BadAuthority("no more than two can be trusted at a time".into()));
        }
        if rest.iter().any(|other| other.cluster != first.cluster) {
            return Err(Error::BadAuthority("they are not of one cluster".into()));
        }
        if rest.iter().any(|other| other.subject == first.subject) {
            return Err(Error::BadAuthority("both have the same name".into()));
        }
        let cluster = first.cluster;
        Ok(Self { cluster, authorities, revision: 0, revocations: Revocations::default() })
    }

    /// The same as a revision of the cluster's state has it.
    pub fn as_of(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// The revision of the cluster's state that named the authorities. An earlier state has nothing to say about
    /// them, and after a start there may be one.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// The same with other authorities.
    pub fn with_authorities(&self, authorities: Vec<Authority>) -> Result<Self, Error> {
        let new = Self::new(authorities)?;
        if new.cluster != self.cluster {
            return Err(Error::BadAuthority("it is another cluster's".into()));
        }
        Ok(Self { authorities: new.authorities, ..self.clone() })
    }

    /// Whether peers that trust the same will take a credential of this node's own. What they
    /// would refuse is better refused here, where somebody can do something about it.
    pub fn vouches_for(&self, credential: &Credential, now: SystemTime) -> Result<(), Error> {
        self.judge_own(credential, now)
            .map(|_| ())
            .map_err(|refusal| Error::BadCertificate(refusal.to_string()))
    }

    /// The fingerprint of the authority that signed a credential of this node's own.
    pub(super) fn signer_of(&self, credential: &Credential, now: SystemTime) -> Option<[u8; 32]> {
        self.judge_own(credential, now).ok().map(|peer| peer.authority)
    }

    fn judge_own(&self, credential: &Credential, now: SystemTime) -> Result<Peer, Refusal> {
        let identity = credential.identity();
        let meant = Expected { plane: identity.plane, node: Some(identity.node) };
        self.judge(credential.certificate(), &[], meant, unix_time(now))
    }

    /// Judges what may change while a link lives.
    pub(super) fn still_believes(&self, peer: &Peer, now: UnixTime) -> Result<(), Refusal> {
        let is_trusted =
            |authority: &[u8; 32]| self.authorities.iter().any(|it| it.sha256 == *authority);
        still_believes(is_trusted, &self.revocations, peer, now)
    }

    /// Judges the certificate a peer has shown. What is checked first is what tells most.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        expected: Expected,
        now: UnixTime,
    ) -> Result<Peer, Refusal> {
        if !others.is_empty() {
            return Err(Refusal::Chain { count: others.len().saturating_add(1) });
        }
        if CERTIFICATE_BYTES_MAX < leaf.len() {
            return Err(Refusal::OversizeCertificate { bytes: leaf.len() });
        }
        let parsed = describe::parse(leaf).map_err(|error| damaged(&error.to_string()))?;
        let version = parsed.version().0.saturating_add(1);
        if version != 3 {
            return Err(Refusal::CertificateVersion(version));
        }
        let authority = self.authority_of(&parsed)?;
        check_signature_algorithm(&parsed)?;
        check_chain(leaf, &parsed, authority, now)?;
        check_key(&parsed)?;
        check_usage(&parsed)?;
        let identity = identity(&parsed)?;
        expected.check(self.cluster, identity)?;
        let peer = Peer {
            identity,
            serial: Serial::from_bytes(parsed.raw_serial()),
            not_after: parsed.validity().not_after.timestamp(),
            authority: authority.sha256,
        };
        self.still_believes(&peer, now)?;
        Ok(peer)
    }

    /// By name; whether it signed is checked later.
    fn authority_of(&self, leaf: &X509Certificate<'_>) -> Result<&Authority, Refusal> {
        let issuer = leaf.issuer();
        self.authorities
            .iter()
            .find(|authority| *authority.subject == *issuer.as_raw())
            .ok_or_else(|| Refusal::UnknownAuthority(Quoted::text(&issuer.to_string())))
    }
}

/// Judges what may change while a link lives, of a peer whose certificate was in order when it began.
pub fn still_believes(
    is_trusted: impl Fn(&[u8; 32]) -> bool,
    revocations: &Revocations,
    peer: &Peer,
    now: UnixTime,
) -> Result<(), Refusal> {
    if !is_trusted(&peer.authority) {
        return Err(Refusal::UnknownAuthority(Quoted::text("an authority withdrawn since")));
    }
    if revocations.serials.contains_key(&peer.serial) {
        return Err(Refusal::RevokedCertificate(peer.serial.clone()));
    }
    let node = peer.identity.node;
    if revocations.nodes.contains(&node) {
        return Err(Refusal::RevokedNode(node));
    }
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match now_s.saturating_sub(peer.not_after) {
        ago_s @ 1.. => Err(Refusal::Expired { ago_s }),
        _ => Ok(()),
    }
}

/// Who the other end has to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub plane: Plane,
    /// `None` where any node of the cluster may come.
    pub node: Option<NodeUid>,
}

impl Expected {
    pub fn check(self, cluster: ClusterId, found: Identity) -> Result<(), Refusal> {
        if found.cluster != cluster {
            return Err(Refusal::WrongCluster { found: found.cluster, expected: cluster });
        }
        if found.plane != self.plane {
            return Err(Refusal::WrongPlane { found: found.plane, expected: self.plane });
        }
        match self.node {
            Some(expected) if expected != found.node => {
                Err(Refusal::WrongNode { found: found.node, expected })
            }
            _ => Ok(()),
        }
    }
}

fn check_signature_algorithm(leaf: &X509Certificate<'_>) -> Result<(), Refusal> {
    let algorithm = leaf.signature_algorithm.algorithm.to_id_string();
    if SIGNATURE_ALGORITHMS.contains(&algorithm.as_str()) {
        return Ok(());
    }
    Err(Refusal::SignatureAlgorithm(match algorithm.as_str() {
        "1.2.840.113549.1.1.4" => "MD5".into(),
        "1.2.840.113549.1.1.5" => "SHA-1".into(),
        _ => algorithm,
    }))
}

/// When a certificate ends that a customer has provided, if it does for a link now. Who it is is said by another.
pub(super) fn judge_provided(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<i64, Refusal> {
    if CERTIFICATE_BYTES_MAX < leaf.len() {
        return Err(Refusal::OversizeCertificate { bytes: leaf.len() });
    }
    let parsed = describe::parse(leaf).map_err(|error| damaged(&error.to_string()))?;
    check_key(&parsed)?;
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (begins, ends) =
        (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    if now_s < begins {
        return Err(Refusal::NotYetValid { in_s: begins.saturating_sub(now_s) });
    }
    match now_s.saturating_sub(ends) {
        ago_s @ 1.. => Err(Refusal::Expired { ago_s }),
        _ => Ok(ends),
    }
}

/// Signature, dates, that it is no authority's, and critical extensions: the engine's business.
fn check_chain(
    leaf: &CertificateDer<'_>,
    parsed: &X509Certificate<'_>,
    authority: &Authority,
    now: UnixTime,
) -> Result<(), Refusal> {
    use CertificateError as E;

    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let algorithms = provider().signature_verification_algorithms.all;
    let result = ParsedCertificate::try_from(leaf).and_then(|leaf| {
        verify_server_cert_signed_by_trust_anchor(&leaf, &authority.root, &[], now, algorithms)
    });
    let error = match result {
        Ok(()) => return Ok(()),
        Err(EngineError::InvalidCertificate(error)) => error,
        Err(other) => return Err(damaged(&other.to_string())),
    };
    let validity = parsed.validity();
    Err(match error {
        E::Expired | E::ExpiredContext { .. } => {
            Refusal::Expired { ago_s: now_s.saturating_sub(validity.not_after.timestamp()) }
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            Refusal::NotYetValid { in_s: validity.not_before.timestamp().saturating_sub(now_s) }
        }
        E::UnknownIssuer | E::BadSignature => Refusal::BadSignature,
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            Refusal::ExtendedKeyUsage("for the server's end")
        }
        _ if parsed.is_ca() => Refusal::Authority,
        _ if has_unknown_critical(parsed) => damaged("a critical extension is unknown here"),
        other => damaged(&other.to_string()),
    })
}

fn has_unknown_critical(leaf: &X509Certificate<'_>) -> bool {
    leaf.extensions().iter().any(|extension| {
        let parsed = extension.parsed_extension();
        extension.critical && matches!(parsed, ParsedExtension::UnsupportedExtension { .. })
    })
}

fn check_key(leaf: &X509Certificate<'_>) -> Result<(), Refusal> {
    let key = leaf.public_key().parsed().map_err(|_| damaged("its key cannot be read"))?;
    let PublicKey::RSA(key) = key else { return Err(Refusal::KeyKind) };
    match describe::rsa_bits(&key) {
        bits if bits < RSA_BITS_MIN => Err(Refusal::WeakKey { bits }),
        bits if RSA_BITS_MAX < bits => Err(Refusal::OversizeKey { bits }),
        _ => Ok(()),
    }
}

/// A node is client and server of the others, and signs handshakes, nothing else.
fn check_usage(leaf: &X509Certificate<'_>) -> Result<(), Refusal> {
    let twice = |_| damaged("an extension comes twice or is not readable");
    match leaf.key_usage().map_err(twice)? {
        Some(usage) if usage.value.digital_signature() && !usage.value.key_cert_sign() => {}
        _ => return Err(Refusal::KeyUsage),
    }
    let Some(usage) = leaf.extended_key_usage().map_err(twice)? else {
        return Err(Refusal::ExtendedKeyUsage("for either end of a link"));
    };
    match usage.value {
        usage if usage.any => Err(Refusal::ExtendedKeyUsage("limited to links")),
        usage if !usage.server_auth => Err(Refusal::ExtendedKeyUsage("for the server's end")),
        usage if !usage.client_auth => Err(Refusal::ExtendedKeyUsage("for the client's end")),
        _ => Ok(()),
    }
}

/// The one name of a certificate. Its common name is nobody's.
pub(super) fn identity(leaf: &X509Certificate<'_>) -> Result<Identity, Refusal> {
    let names = names(leaf)?;
    let name = match &names[..] {
        [] => return Err(Refusal::NoIdentity),
        [name] => name,
        several => return Err(Refusal::SeveralNames { count: several.len() }),
    };
    match name {
        GeneralName::URI(uri) => uri.parse().map_err(|error: super::NotAnIdentity| {
            Refusal::BadIdentity { name: Quoted::text(uri), reason: error.0 }
        }),
        other => Err(Refusal::BadIdentity {
            name: Quoted::text(&other.to_string()),
            reason: "it is not a URI",
        }),
    }
}

fn names<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a GeneralName<'a>>, Refusal> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| damaged("its names come twice or are not readable"))?;
    Ok(extension.map_or_else(Vec::new, |names| names.value.general_names.iter().collect()))
}

fn damaged(reason: &str) -> Refusal {
    Refusal::BadCertificate(Quoted::text(reason).unquoted())
}

/// The time as certificates count it.
pub(super) fn unix_time(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

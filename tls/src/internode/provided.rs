//! Certificates for links between nodes that a customer provides.
//!
//! One such certificate is on all nodes, so it says of none which it is, and whoever gets hold of its key has that of
//! all of them. A node that shows one therefore shows its own, by the cluster's authority, behind it, and proves
//! that it has the key to that one too: it signs what the two ends of this very session can compute and nobody
//! between them (RFC 5705, RFC 8446 section 7.5). So whom to believe is judged by the rules that always hold, on the
//! node's own certificate; what is provided is shown in addition, and lets nobody in.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::credential::Credential;
use super::peer::{Peer, Plane, Serial};
use super::policy::{self, Expected, Trust};
use super::refusal::Refusal;
use crate::certificates::{Certificate, CertificateError, CertificateName, Shared};
use crate::describe;
use crate::issue::seconds;

/// This long before it ends, a provided certificate gives way to the node's own.
pub const GIVES_WAY_DAYS: i64 = 5;

const DAY_S: i64 = 86_400;

/// Of RSA keys of 8192 bits.
const SIGNATURE_BYTES_MAX: usize = 1024;

const LABEL: &[u8] = b"EXPORTER-carnelian-internode";

/// What a customer has provided for one plane, with its key.
pub struct Provided {
    certificate: Certificate,
    certified: Arc<CertifiedKey>,
    serial: Serial,
}

impl Provided {
    /// From what the cluster's nodes have in common; it has been judged when it was provided.
    pub fn of(shared: &Shared) -> Result<Self, CertificateError> {
        let key = shared.key.as_deref().map(String::as_str);
        let certificate =
            Certificate::kept(shared.name, shared.managed_by, &shared.certificate, key)?;
        let invalid = |reason: &str| CertificateError::Invalid {
            name: shared.name,
            reason: reason.to_owned(),
        };
        let certified = certificate.certified().cloned();
        let certified = certified.ok_or_else(|| invalid("its private key is missing"))?;
        let leaf = describe::parse(&certificate.chain()[0]).map_err(|error| invalid(&error.0))?;
        let serial = Serial::from_bytes(leaf.raw_serial());
        Ok(Self { certificate, certified, serial })
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Whether it is to be shown still, and not the node's own for being about to end.
    pub fn is_good(&self, now: SystemTime) -> bool {
        seconds(now) < self.certificate.info().not_after - GIVES_WAY_DAYS * DAY_S
    }
}

impl fmt::Debug for Provided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provided").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl CertificateName {
    /// What is shown between nodes on a plane.
    pub const fn of_plane(plane: Plane) -> Self {
        match plane {
            Plane::Control => Self::CcsInternodeEncryption,
            Plane::Data => Self::DataInternodeEncryption,
        }
    }
}

/// What a handshake shows: the node's own certificate, and before it what was provided.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub own: Arc<Credential>,
    pub provided: Option<Arc<Provided>>,
}

impl Shown {
    /// Another whenever anything of it is another.
    pub fn serial(&self) -> Serial {
        match &self.provided {
            None => self.own.serial().clone(),
            Some(provided) => provided.serial.and(self.own.serial()),
        }
    }

    /// For the engine.
    pub fn resolver(&self) -> Arc<rustls::sign::SingleCertAndKey> {
        let Some(provided) = &self.provided else { return self.own.resolver() };
        let mut shown = CertifiedKey::clone(&provided.certified);
        shown.cert.push(self.own.certificate().clone());
        Arc::new(shown.into())
    }

    /// Says, within a session that has just begun, that this end has the key to its own certificate. Nothing where
    /// the session has shown that already.
    pub async fn prove(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        end: End,
        secret: &Secret,
    ) -> Result<(), Refusal> {
        if self.provided.is_none() {
            return Ok(());
        }
        let ours = |reason: &str| Refusal::Ours(reason.to_owned());
        let signer = self.own.signer().choose_scheme(&[SignatureScheme::RSA_PSS_SHA256]);
        let signer = signer.ok_or_else(|| ours("its key cannot sign"))?;
        let signature = signer.sign(&secret.said_by(end)).map_err(|_| ours("it cannot sign"))?;
        let length = u16::try_from(signature.len()).map_err(|_| ours("a signature too long"))?;
        let lost = |error: std::io::Error| Refusal::of_io(&error);
        stream.write_all(&length.to_be_bytes()).await.map_err(lost)?;
        stream.write_all(&signature).await.map_err(lost)?;
        stream.flush().await.map_err(lost)
    }
}

/// An end of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Connecting,
    Accepting,
}

/// What both ends of a session know, and nobody else.
pub(super) struct Secret([u8; 32]);

impl Secret {
    pub fn of_server(session: &rustls::ServerConnection) -> Result<Self, Refusal> {
        let made = session.export_keying_material([0; 32], LABEL, None);
        made.map(Self).map_err(|error| Refusal::of_engine(&error))
    }

    pub fn of_client(session: &rustls::ClientConnection) -> Result<Self, Refusal> {
        let made = session.export_keying_material([0; 32], LABEL, None);
        made.map(Self).map_err(|error| Refusal::of_engine(&error))
    }

    /// What an end signs: not what the other one does, so that neither can be told its own words.
    fn said_by(&self, end: End) -> Vec<u8> {
        let end: &[u8] = match end {
            End::Connecting => b"carnelian internode proof: connecting\0",
            End::Accepting => b"carnelian internode proof: accepting\0",
        };
        [end, &self.0].concat()
    }
}

/// Whether a certificate is one that nodes would take from one another.
pub(crate) fn check_provided(leaf: &CertificateDer<'_>, now: SystemTime) -> Result<(), String> {
    policy::judge_provided(leaf, policy::unix_time(now)).map(|_| ()).map_err(|it| it.to_string())
}

/// The node's own certificate where a provided one is shown before it.
pub(super) fn behind<'c, 'd>(
    leaf: &CertificateDer<'_>,
    others: &'c [CertificateDer<'d>],
) -> Option<&'c CertificateDer<'d>> {
    let is_nodes = |certificate: &CertificateDer<'_>| {
        describe::parse(certificate).is_ok_and(|parsed| policy::identity(&parsed).is_ok())
    };
    others.last().filter(|own| !is_nodes(leaf) && is_nodes(own))
}

/// Judges both. It remains to be proven that the other end has the key to its own.
pub(super) fn judge(
    trust: &Trust,
    leaf: &CertificateDer<'_>,
    own: &CertificateDer<'_>,
    expected: Expected,
    now: UnixTime,
) -> Result<Peer, Refusal> {
    let provided_ends = policy::judge_provided(leaf, now)?;
    let peer = trust.judge(own, &[], expected, now)?;
    // The link is to last for no longer than both.
    Ok(Peer { not_after: peer.not_after.min(provided_ends), ..peer })
}

/// Reads the other end's proof, and judges it.
pub(super) async fn check(
    stream: &mut (impl AsyncRead + Unpin),
    own: &CertificateDer<'_>,
    end: End,
    secret: &Secret,
) -> Result<(), Refusal> {
    let lost = |error: std::io::Error| Refusal::of_io(&error);
    let length = usize::from(stream.read_u16().await.map_err(lost)?);
    if SIGNATURE_BYTES_MAX < length {
        return Err(Refusal::NotItsKey);
    }
    let mut signature = vec![0; length];
    stream.read_exact(&mut signature).await.map_err(lost)?;
    let parsed = describe::parse(own).map_err(|_| Refusal::NotItsKey)?;
    let key = &parsed.public_key().subject_public_key.data;
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key)
        .verify(&secret.said_by(end), &signature)
        .map_err(|_| Refusal::NotItsKey)
}

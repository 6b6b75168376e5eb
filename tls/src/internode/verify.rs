//! The judgement of certificates in the form the TLS engine asks for it. One judge per handshake:
//! it knows who is expected and remembers what it found, with all its evidence, which the engine's
//! own errors would lose.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, Error as EngineError, SignatureScheme};

use super::peer::Peer;
use super::policy::{Expected, Trust};
use super::provided;
use super::refusal::Refusal;
use crate::trust::checks_signatures;

/// What keys of nodes sign handshakes with.
const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

#[derive(Debug)]
pub(super) struct Judge {
    trust: Arc<Trust>,
    expected: Expected,
    verdict: OnceLock<Result<Peer, Refusal>>,
    /// The other end's own certificate, where it has shown a provided one before it.
    behind: OnceLock<CertificateDer<'static>>,
}

impl Judge {
    pub(super) fn new(trust: Arc<Trust>, expected: Expected) -> Arc<Self> {
        Arc::new(Self { trust, expected, verdict: OnceLock::new(), behind: OnceLock::new() })
    }

    /// `None` if it did not come to that.
    pub(super) fn verdict(&self) -> Option<&Result<Peer, Refusal>> {
        self.verdict.get()
    }

    /// The certificate whose key is to be proven yet.
    pub(super) fn behind(&self) -> Option<&CertificateDer<'static>> {
        self.behind.get()
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), EngineError> {
        let verdict = self.verdict.get_or_init(|| match provided::behind(leaf, others) {
            None => self.trust.judge(leaf, others, self.expected, now),
            Some(own) => {
                let _ = self.behind.set(own.clone().into_owned());
                provided::judge(&self.trust, leaf, own, self.expected, now)
            }
        });
        verdict.as_ref().map(|_| ()).map_err(Refusal::to_engine)
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, EngineError> {
        self.judge(leaf, others, now).map(|()| ServerCertVerified::assertion())
    }

    checks_signatures!(SCHEMES.to_vec());
}

impl ClientCertVerifier for Judge {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    /// Not told: who has to be told does not belong here.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, EngineError> {
        self.judge(leaf, others, now).map(|()| ClientCertVerified::assertion())
    }

    checks_signatures!(SCHEMES.to_vec());
}

//! What a node shows of itself on one plane: its certificate and the key to it.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::Error;
use super::issue::NodeKey;
use super::peer::{Identity, Serial};
use super::policy;
use crate::describe;
use crate::provider::provider;

/// A certificate with its key, which belong together. Debug output has no key.
pub struct Credential {
    identity: Identity,
    serial: Serial,
    not_before: i64,
    not_after: i64,
    key_pem: Zeroizing<String>,
    certified: CertifiedKey,
}

impl Credential {
    /// Checks that the key is the certificate's, and reads whom it names. Whether to trust it is
    /// judged where it is put to use.
    pub(super) fn new(certificate: CertificateDer<'static>, key: &NodeKey) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadCertificate(reason);
        let parsed = describe::parse(&certificate).map_err(|error| bad(error.to_string()))?;
        let identity = policy::identity(&parsed).map_err(|refusal| bad(refusal.to_string()))?;
        let serial = Serial::from_bytes(parsed.raw_serial());
        let validity = parsed.validity();
        let (not_before, not_after) =
            (validity.not_before.timestamp(), validity.not_after.timestamp());
        let certified = CertifiedKey::from_der(vec![certificate], key.to_der(), provider())
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => bad("it is another key's".into()),
                _ => bad("it or its key cannot be read".into()),
            })?;
        Ok(Self { identity, serial, not_before, not_after, key_pem: key.to_pem(), certified })
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Seconds since 1970.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Seconds since 1970; the last second of its life.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certified.cert[0]
    }

    pub(super) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// What signs with its key.
    pub(super) fn signer(&self) -> &dyn rustls::sign::SigningKey {
        &*self.certified.key
    }

    /// For the engine.
    pub(super) fn resolver(&self) -> Arc<rustls::sign::SingleCertAndKey> {
        Arc::new(self.certified.clone().into())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("identity", &self.identity)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

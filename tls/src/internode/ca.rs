//! The internode CA: unique to its cluster, made with it, and never shown to anybody outside.
//!
//! RSA, as nodes whose peers speak TLS 1.2 with the documented suites must be able to check it, and
//! of 3,072 bits: it lives for ten years, beyond 2030, until when 2,048 bits are thought to do
//! (NIST SP 800-57). Checking a signature of it costs some 30 µs, which is paid once per handshake
//! and plane; 4,096 bits would cost twice that and no node's own key (2,048 bits, 45 days) has more.
//!
//! It signs nodes' certificates only (path length 0).

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair, PublicKeyData, RsaKeySize, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::Error;
use super::issue::{Issued, Request};
use super::peer::{ClusterId, Identity};
use super::policy::{self, Authority};
use super::rotation::Lifetime;
use super::seal::SealKey;
use crate::{describe, issue};

/// The authority with its key, ready to sign.
pub struct SigningAuthority {
    public: Authority,
    issuer: Issuer<'static, KeyPair>,
}

impl SigningAuthority {
    /// A new authority for a cluster. Making its key takes some tenths of a second.
    pub fn create(cluster: ClusterId, now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072)?;
        let serial = issue::serial()?;
        // One cluster's authorities follow one another; their names have to differ.
        let name = format!("Carnelian internode CA {}", describe::hex(&serial[8..16]));
        let mut params = issue::authority_params(&name, &serial, now, issue::AUTHORITY_LIFE);
        params.subject_alt_names = vec![SanType::URI(cluster.uri().try_into()?)];
        let certificate = params.self_signed(&key)?.into();
        Self::of(certificate, key)
    }

    /// Certificate and key, to be kept or to be given to those who have the key that opens it.
    pub fn seal(&self, key: &SealKey) -> Result<Vec<u8>, Error> {
        key.seal(self.to_pem().as_bytes())
    }

    /// From what [`Self::seal`] gave; `origin` is for the errors.
    pub fn unseal(sealed: &[u8], key: &SealKey, origin: &Path) -> Result<Self, Error> {
        Self::from_pem(&key.unseal(sealed, origin)?)
    }

    /// From what [`Self::to_pem`] gave.
    fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        // No cause is given for a key that cannot be read: it could have parts of the key in it.
        let bad = |what: &str| Error::BadAuthority(format!("its {what} cannot be read"));
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| bad("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| bad("key"))?;
        let key = KeyPair::try_from(&key).map_err(|_| bad("key"))?;
        Self::of(certificate, key)
    }

    fn of(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, Error> {
        let public = Authority::new(certificate)?;
        if key.subject_public_key_info() != public.key() {
            return Err(Error::BadAuthority("its key is another's".into()));
        }
        let issuer = Issuer::from_ca_cert_der(public.certificate(), key)?;
        Ok(Self { public, issuer })
    }

    /// Certificate and key in the clear, to be sealed.
    pub(super) fn to_pem(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(self.issuer.key().serialize_pem());
        let mut pem = Zeroizing::new(self.public.to_pem());
        pem.reserve_exact(key.len());
        pem.push_str(&key);
        pem
    }

    /// Its certificate, for those who are to trust it.
    pub fn public(&self) -> &Authority {
        &self.public
    }

    /// Signs a node's key for the identity that the caller grants. The request must ask for just
    /// that; nothing else of it gets into the certificate but the key.
    pub fn sign(
        &self,
        request: &Request,
        granted: Identity,
        life: Lifetime,
        now: SystemTime,
    ) -> Result<Issued, Error> {
        if granted.cluster != self.public.cluster() {
            let cluster = self.public.cluster();
            let reason = format!("it is for the cluster {}, not {cluster}", granted.cluster);
            return Err(Error::BadRequest(reason));
        }
        if request.identity() != granted {
            let reason = format!("it asks for {}, not {granted}", request.identity());
            return Err(Error::BadRequest(reason));
        }
        request.sign(&self.issuer, self.ends(now)?, life, now)
    }

    /// An error once it has expired.
    fn ends(&self, now: SystemTime) -> Result<SystemTime, Error> {
        let not_after = self.public.not_after();
        let now_s = i64::try_from(policy::unix_time(now).as_secs()).unwrap_or(i64::MAX);
        let ago_s = now_s.saturating_sub(not_after);
        let since_1970 = Duration::from_secs(u64::try_from(not_after).unwrap_or(0));
        match 0 <= ago_s {
            true => Err(Error::AuthorityExpired(ago_s)),
            false => Ok(SystemTime::UNIX_EPOCH + since_1970),
        }
    }
}

//! The internode CA: unique to its cluster, made with it, and never shown to anybody outside.
//!
//! RSA, as nodes whose peers speak TLS 1.2 with the documented suites must be able to check it, and
//! of 3,072 bits: it lives for ten years, beyond 2030, until when 2,048 bits are thought to do
//! (NIST SP 800-57). Checking a signature of it costs some 30 µs, which is paid once per handshake
//! and plane; 4,096 bits would cost twice that and no node's own key (2,048 bits, 45 days) has more.
//!
//! It signs nodes' certificates only (path length 0).

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, RsaKeySize,
    SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Error;
use super::issue::{Issued, Request};
use super::peer::{ClusterId, Identity};
use super::policy::{self, Authority};
use super::rotation::Lifetime;
use crate::{describe, issue};

/// The authority with its key, ready to sign.
pub struct SigningAuthority {
    public: Authority,
    issuer: Issuer<'static, KeyPair>,
    /// Certificate and key, for sealing.
    pem: String,
}

impl SigningAuthority {
    /// A new authority for a cluster. Making its key takes some tenths of a second.
    pub fn create(cluster: ClusterId, now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072)?;
        let serial = issue::serial()?;
        let mut params = CertificateParams::default();
        // One cluster's authorities follow one another; their names have to differ.
        let id = describe::hex(&serial[8..16]);
        params.distinguished_name = issue::subject(&format!("Carnelian internode CA {id}"));
        params.subject_alt_names = vec![SanType::URI(cluster.uri().try_into()?)];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        issue::set_validity(&mut params, now, now + issue::AUTHORITY_LIFE);
        let certificate = params.self_signed(&key)?;
        Self::from_pem(certificate.pem() + &key.serialize_pem())
    }

    /// From what [`Self::to_pem`] gave.
    pub(super) fn from_pem(pem: String) -> Result<Self, Error> {
        // No cause is given for a key that cannot be read: it could have parts of the key in it.
        let bad = |what: &str| Error::BadAuthority(format!("its {what} cannot be read"));
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| bad("certificate"))?;
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| bad("key"))?;
        let key = KeyPair::try_from(&key).map_err(|_| bad("key"))?;
        let public = Authority::new(certificate.clone())?;
        let parsed = describe::parse(&certificate).map_err(|_| bad("certificate"))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != parsed.public_key().raw {
            return Err(Error::BadAuthority("its key is another's".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { public, issuer, pem })
    }

    /// Certificate and key in the clear, to be sealed.
    pub(super) fn to_pem(&self) -> &str {
        &self.pem
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
        let parsed = describe::parse(self.public.certificate())
            .map_err(|error| Error::BadAuthority(error.to_string()))?;
        let (not_after, now_s) =
            (parsed.validity().not_after.timestamp(), policy::unix_time(now).as_secs());
        let ago_s = i64::try_from(now_s).unwrap_or(i64::MAX).saturating_sub(not_after);
        let since_1970 = std::time::Duration::from_secs(u64::try_from(not_after).unwrap_or(0));
        match 0 <= ago_s {
            true => Err(Error::AuthorityExpired(ago_s)),
            false => Ok(SystemTime::UNIX_EPOCH + since_1970),
        }
    }
}

//! A node's key, the request to have it signed, and what the authority makes of the request.

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKey, PublicKeyData, RsaKeySize, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use super::Error;
use super::credential::Credential;
use super::peer::{Identity, Serial};
use super::rotation::Lifetime;
use crate::{describe, issue};

/// Ours have about 1,000.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
const RSA_EXPONENT: u64 = 65_537;

/// A key that a node has made for one plane. It is never printed and leaves the node's own store
/// in no way.
pub struct NodeKey {
    key: KeyPair,
}

impl NodeKey {
    /// A new one, of RSA as the suites of TLS 1.2 require. Takes up to some tenths of a second.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        Ok(Self { key })
    }

    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let bad = || Error::BadCertificate("the key kept for it cannot be read".into());
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| bad())?;
        Ok(Self { key: KeyPair::try_from(&key).map_err(|_| bad())? })
    }

    pub(super) fn to_pem(&self) -> Zeroizing<String> {
        self.key.serialize_pem().into()
    }

    pub(super) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// A request to have this key signed for `identity`, as PEM.
    pub fn request(&self, identity: Identity) -> Result<String, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = issue::subject(&common_name(identity));
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        Ok(params.serialize_request(&self.key)?.pem()?)
    }

    /// What to show to others, once the request has been granted.
    pub fn certified(&self, certificate: CertificateDer<'static>) -> Result<Credential, Error> {
        Credential::new(certificate, self)
    }
}

/// A request as the authority sees it: well-formed, for one identity, and signed by the key that
/// it is about.
#[derive(Debug)]
pub struct Request {
    key: PublicKey,
    identity: Identity,
}

impl Request {
    /// The first of a text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        Self::all_from_pem(pem).map(|mut all| all.remove(0))
    }

    /// All of a text, at least one: a node may ask for both planes at once.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, Error> {
        let bad = |reason: &str| Error::BadRequest(reason.into());
        if REQUEST_BYTES_MAX < pem.len() {
            return Err(bad("it is larger than any request"));
        }
        let all: Vec<Self> = CertificateSigningRequestDer::pem_slice_iter(pem)
            .map(|der| Self::from_der(&der.map_err(|_| bad("damaged PEM"))?))
            .collect::<Result<_, Error>>()?;
        match all.is_empty() {
            true => Err(bad("no request in it (expected PEM, BEGIN CERTIFICATE REQUEST)")),
            false => Ok(all),
        }
    }

    fn from_der(der: &CertificateSigningRequestDer<'_>) -> Result<Self, Error> {
        let bad = |reason: &str| Error::BadRequest(reason.into());
        let request = CertificateSigningRequestParams::from_der(der)
            .map_err(|error| Error::BadRequest(error.to_string()))?;

        let asked = &request.params;
        let asks_for_more = asked.is_ca != IsCa::NoCa
            || !asked.key_usages.is_empty()
            || !asked.extended_key_usages.is_empty();
        if asks_for_more {
            return Err(bad("it asks for rights, which the authority alone decides about"));
        }
        let [SanType::URI(uri)] = &asked.subject_alt_names[..] else {
            return Err(bad("it does not have one name, the node's URI"));
        };
        let identity = uri
            .as_str()
            .parse()
            .map_err(|error| Error::BadRequest(format!("its name is no node's: {error}")))?;

        let info = request.public_key.subject_public_key_info();
        let (_, info) =
            SubjectPublicKeyInfo::from_der(&info).map_err(|_| bad("its key cannot be read"))?;
        let Ok(ParsedKey::RSA(key)) = info.parsed() else {
            return Err(bad("its key is not an RSA key"));
        };
        let bits = describe::rsa_bits(&key);
        if !RSA_BITS.contains(&bits) {
            let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
            let reason = format!("its key has {bits} bits, not {least} to {most}");
            return Err(Error::BadRequest(reason));
        }
        if key.try_exponent() != Ok(RSA_EXPONENT) {
            return Err(bad("its key has an unusual exponent"));
        }
        Ok(Self { key: request.public_key, identity })
    }

    /// What it asks for.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn sign(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        issuer_ends: SystemTime,
        life: Lifetime,
        now: SystemTime,
    ) -> Result<Issued, Error> {
        let serial = issue::serial()?;
        let params = leaf(self.identity, &serial, issuer_ends, life, now)?;
        let certificate = params.signed_by(&self.key, issuer)?;
        Ok(Issued {
            identity: self.identity,
            serial: Serial::from_bytes(&serial),
            certificate_pem: certificate.pem(),
            certificate: certificate.into(),
        })
    }
}

/// A certificate just made.
#[derive(Clone, Debug)]
pub struct Issued {
    pub identity: Identity,
    pub serial: Serial,
    pub certificate: CertificateDer<'static>,
    pub certificate_pem: String,
}

/// Clocks of nodes differ. What a node that leads signs for itself by a fast one is to be believed by the others all
/// the same; more than a wrong offset for summer time is not made up for.
pub const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// What a node's certificate says.
pub(super) fn leaf(
    identity: Identity,
    serial: &[u8],
    issuer_ends: SystemTime,
    life: Lifetime,
    now: SystemTime,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = issue::subject(&common_name(identity));
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    // Its life begins in the past and is as long as was asked for.
    let begins = now.checked_sub(BACKDATED).unwrap_or(now);
    issue::set_validity(&mut params, begins, (begins + life.as_duration()).min(issuer_ends));
    Ok(params)
}

/// For people who look at certificates; nothing reads it.
fn common_name(identity: Identity) -> String {
    format!("node {} {}", identity.node, identity.plane)
}

//! What a certificate says, for INFO, logs and the admin interfaces.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

/// The fields of one certificate that people ask about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateInfo {
    /// `CN=..., O=...`
    pub subject: String,
    pub issuer: String,
    pub common_name: Option<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub uris: Vec<String>,
    /// Lower-case hexadecimal without leading zero bytes, as `openssl x509 -serial` has it but for
    /// the case.
    pub serial: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970; the last second of validity.
    pub not_after: i64,
    pub is_ca: bool,
    /// `RSA 2048`, `ECDSA P-256` and the like.
    pub key_type: String,
    /// X.509 version, 1 to 3.
    pub version: u32,
    /// Of the whole certificate.
    pub sha1: [u8; 20],
    pub sha256: [u8; 32],
}

/// Not a certificate.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct NotACertificate(pub(crate) String);

impl CertificateInfo {
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, NotACertificate> {
        let parsed = parse(certificate)?;
        let mut info = Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            common_name: common_name(&parsed),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            uris: Vec::new(),
            serial: hex(significant(parsed.raw_serial())),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_ca: parsed.is_ca(),
            key_type: key_type(parsed.public_key()),
            version: parsed.version().0.saturating_add(1),
            sha1: fingerprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate),
            sha256: fingerprint(&digest::SHA256, certificate),
        };
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| NotACertificate(format!("subject alternative names: {error}")))?;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => info.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => info.uris.push((*uri).to_owned()),
                GeneralName::IPAddress(bytes) => info.ip_addresses.extend(ip(bytes)),
                _ => {}
            }
        }
        Ok(info)
    }

    /// `sha1` in lower-case hexadecimal.
    pub fn sha1_hex(&self) -> String {
        hex(&self.sha1)
    }

    /// `sha256` in lower-case hexadecimal.
    pub fn sha256_hex(&self) -> String {
        hex(&self.sha256)
    }

    /// Whole days until the end of validity, negative once it is over.
    pub fn days_left(&self, now_s: i64) -> i64 {
        self.not_after.saturating_sub(now_s).div_euclid(86_400)
    }
}

/// The common name of the subject, which some users map to an ACL user.
pub fn common_name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    common_name(&parse(certificate).ok()?)
}

/// The names by which a client's certificate can choose a user.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientNames {
    /// Only where the subject has exactly one.
    pub common_name: Option<String>,
    pub uris: Vec<String>,
}

/// The names in a client's certificate. One with a NUL in it is none: what reads up to it would
/// see another name than was signed.
pub fn client_names(certificate: &CertificateDer<'_>) -> Result<ClientNames, NotACertificate> {
    let parsed = parse(certificate)?;
    let is_whole = |name: &String| !name.contains('\0');
    let is_single = parsed.subject().iter_common_name().count() == 1;
    let mut names = ClientNames {
        common_name: common_name(&parsed).filter(|name| is_single && is_whole(name)),
        uris: Vec::new(),
    };
    let alternatives = parsed
        .subject_alternative_name()
        .map_err(|error| NotACertificate(format!("subject alternative names: {error}")))?;
    for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
        if let GeneralName::URI(uri) = name {
            names.uris.push((*uri).to_owned());
        }
    }
    names.uris.retain(is_whole);
    Ok(names)
}

pub(crate) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, NotACertificate> {
    let (rest, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| NotACertificate(format!("not X.509: {error}")))?;
    match rest.is_empty() {
        true => Ok(parsed),
        false => Err(NotACertificate("not X.509: bytes after its end".into())),
    }
}

/// The kind and size of a key, for people.
pub(crate) fn key_type(key: &SubjectPublicKeyInfo<'_>) -> String {
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", rsa_bits(&key)),
        Ok(PublicKey::EC(_)) => {
            let parameters = key.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|any| any.as_oid().ok());
            match curve.map(|oid| oid.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => "ECDSA P-256".into(),
                Some("1.3.132.0.34") => "ECDSA P-384".into(),
                Some("1.3.132.0.35") => "ECDSA P-521".into(),
                Some(other) => format!("ECDSA {other}"),
                None => "ECDSA".into(),
            }
        }
        _ => match key.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".into(),
            other => other.to_owned(),
        },
    }
}

/// The exact size, which the library rounds up to bytes.
pub(crate) fn rsa_bits(key: &RSAPublicKey<'_>) -> usize {
    let zeros = key.modulus.iter().take_while(|byte| **byte == 0).count();
    match &key.modulus[zeros..] {
        [] => 0,
        [first, rest @ ..] => 8 * rest.len() + (u8::BITS - first.leading_zeros()) as usize,
    }
}

/// Bytes of hexadecimal digits in either case.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn common_name(parsed: &X509Certificate<'_>) -> Option<String> {
    parsed.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

/// Without the zero byte DER puts before a number whose first bit is set.
fn significant(serial: &[u8]) -> &[u8] {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => significant(rest),
        _ => serial,
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

pub(crate) fn fingerprint<const N: usize>(
    algorithm: &'static digest::Algorithm,
    certificate: &CertificateDer<'_>,
) -> [u8; N] {
    let digest = digest::digest(algorithm, certificate);
    digest.as_ref().try_into().expect("the digest has the length of its algorithm")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::ca::ClientAuthority;
    use crate::issue::{KeyKind, SubjectAltNames};

    #[test]
    fn a_client_is_named_by_one_common_name_and_its_uris() {
        let names = |common_name: &str, uris: &[&str]| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
            for uri in uris {
                let uri = (*uri).try_into().unwrap();
                params.subject_alt_names.push(rcgen::SanType::URI(uri));
            }
            let key = rcgen::KeyPair::generate().unwrap();
            client_names(params.self_signed(&key).unwrap().der()).unwrap()
        };
        let alice = names("alice", &["urn:a", "urn:b\0c"]);
        assert_eq!(alice.common_name.as_deref(), Some("alice"));
        assert_eq!(alice.uris, ["urn:a"]);
        assert_eq!(names("alice\0.example", &[]), ClientNames::default());
        assert!(client_names(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }

    #[test]
    fn a_certificate_tells_its_names_and_dates() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = ClientAuthority::open_or_create(folder.path(), now).unwrap();
        let names =
            SubjectAltNames::of(["cache.example", "*.cache.example", "10.0.0.1", "::1"]).unwrap();
        let leaf = authority.issue_server(&names, KeyKind::EcdsaP256, now).unwrap();
        let info = CertificateInfo::of(&leaf.certificate).unwrap();

        assert_eq!(info.dns_names, ["cache.example", "*.cache.example"]);
        assert_eq!(info.ip_addresses, ["10.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(info.common_name.as_deref(), Some("cache.example"));
        assert_eq!(info.issuer, authority.info().subject);
        assert_eq!((info.is_ca, authority.info().is_ca, info.version), (false, true, 3));
        assert_eq!(info.serial.len(), 32);
        assert!(info.not_before < 1_800_000_000 && 1_800_000_000 < info.not_after);
        assert_eq!(info.days_left(info.not_after - 86_400 * 3), 3);
        assert_eq!(info.days_left(info.not_after + 1), -1);
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        for bytes in [&b""[..], b"\x30", b"\x30\x82\xff\xff", b"hello"] {
            assert!(CertificateInfo::of(&CertificateDer::from(bytes)).is_err());
        }
    }
}

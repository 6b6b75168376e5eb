//! Certificates that customers bring: whether they can be what they are meant to be.

use carnelian_tls::provider;
use carnelian_tls::rustls::pki_types::pem::PemObject;
use carnelian_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use carnelian_tls::rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::answer::Refusal;

/// What is longer is no certificate with a chain.
const BYTES_MAX: usize = 128 * 1024;

const RSA_BITS_MIN: usize = 2048;

/// A certificate, leaf first, and its key.
pub struct Pair<'a> {
    pub certificate: &'a str,
    pub key: &'a str,
}

/// Checks a pair. Returns when the leaf ends, in seconds since 1970.
pub fn check(pair: &Pair<'_>, is_internal: bool, now_s: i64) -> Result<i64, Refusal> {
    let chain = certificates(pair.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
        .map_err(|_| invalid("the key is not a private key in PEM"))?;
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_| invalid("the key is of a kind that cannot be used"))?;
    let certified = CertifiedKey::new(chain.clone(), key);
    certified.keys_match().map_err(|_| invalid("the key is not that of the certificate"))?;
    let leaf = parse(&chain[0])?;
    judge_signature(&leaf)?;
    let usage = leaf
        .extended_key_usage()
        .map_err(|_| invalid("the certificate says twice what it is for"))?;
    let Some(usage) = usage.map(|usage| usage.value) else {
        let why = "the certificate does not say what it is for (extended key usage)";
        return Err(invalid(why));
    };
    if !usage.any && !usage.server_auth {
        return Err(invalid("the certificate is not for servers (extended key usage serverAuth)"));
    }
    if !usage.any && !usage.client_auth {
        return Err(invalid("the certificate is not for clients (extended key usage clientAuth)"));
    }
    judge_key(&leaf, is_internal)?;
    for issuer in &chain[1..] {
        judge_signature(&parse(issuer)?)?;
    }
    not_after(&leaf, now_s)
}

/// Checks certificates of authorities that are to be trusted. Returns when the first of them ends.
pub fn check_trusted(text: &str, now_s: i64) -> Result<i64, Refusal> {
    let mut first = i64::MAX;
    for certificate in certificates(text)? {
        first = first.min(not_after(&parse(&certificate)?, now_s)?);
    }
    Ok(first)
}

/// When a certificate ends, in seconds since 1970.
pub fn end_of(text: &str) -> Option<i64> {
    let chain = certificates(text).ok()?;
    Some(parse(chain.first()?).ok()?.validity().not_after.timestamp())
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    if BYTES_MAX < text.len() {
        return Err(invalid("the certificate is longer than 128 KiB"));
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(invalid("the certificate is not PEM")),
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Refusal> {
    match X509Certificate::from_der(certificate) {
        Ok((rest, parsed)) if rest.is_empty() => Ok(parsed),
        _ => Err(invalid("the certificate is not an X.509 certificate")),
    }
}

fn judge_signature(certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
    // A root's own signature is not looked at by anybody.
    if certificate.subject() == certificate.issuer() && certificate.is_ca() {
        return Ok(());
    }
    let weak = [
        "1.2.840.113549.1.1.4", // MD5 with RSA
        "1.2.840.113549.1.1.5", // SHA-1 with RSA
        "1.2.840.10045.4.1",    // SHA-1 with ECDSA
        "1.2.840.10040.4.3",    // SHA-1 with DSA
    ];
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    if weak.contains(&algorithm.as_str()) {
        return Err(invalid("the certificate is signed with SHA-1 or worse"));
    }
    Ok(())
}

fn judge_key(certificate: &X509Certificate<'_>, is_internal: bool) -> Result<(), Refusal> {
    let key = certificate
        .public_key()
        .parsed()
        .map_err(|_| invalid("the certificate's key cannot be read"))?;
    match key {
        PublicKey::RSA(rsa) if rsa.key_size() < RSA_BITS_MIN => {
            Err(invalid("the certificate's RSA key has less than 2048 bits"))
        }
        PublicKey::RSA(_) => Ok(()),
        _ if is_internal => Err(invalid("certificates between nodes need an RSA key")),
        _ => Ok(()),
    }
}

fn not_after(certificate: &X509Certificate<'_>, now_s: i64) -> Result<i64, Refusal> {
    let validity = certificate.validity();
    if validity.not_after.timestamp() < now_s {
        let why = "the certificate has expired";
        return Err(Refusal::not_acceptable("certificate_expired", why));
    }
    if now_s < validity.not_before.timestamp() {
        return Err(invalid("the certificate is not valid yet"));
    }
    Ok(validity.not_after.timestamp())
}

fn invalid(why: &str) -> Refusal {
    Refusal::new(400, "invalid_certificate", why)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256,
        PKCS_RSA_SHA256, RsaKeySize, date_time_ymd,
    };

    use super::*;
    use crate::time;

    fn made(change: impl Fn(&mut CertificateParams), rsa: bool) -> (String, String) {
        let key = if rsa {
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()
        } else {
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
        };
        let mut params = CertificateParams::new(vec!["c.local".into()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn code(certificate: &str, key: &str, is_internal: bool) -> Option<String> {
        let pair = Pair { certificate, key };
        let refusal = check(&pair, is_internal, time::now_s()).err()?;
        Some(format!("{} {}", refusal.status.as_u16(), refusal.code))
    }

    #[test]
    fn good_ones_are_taken() {
        let (certificate, key) = made(|_| (), false);
        assert_eq!(code(&certificate, &key, false), None);
        assert_eq!(code(&certificate, &key, true).as_deref(), Some("400 invalid_certificate"));
        let (certificate, key) = made(|_| (), true);
        assert_eq!(code(&certificate, &key, true), None);
    }

    #[test]
    fn wrong_ones_are_refused() {
        let invalid = Some("400 invalid_certificate".to_owned());
        let (good, key) = made(|_| (), false);
        let (_, other_key) = made(|_| (), false);
        assert_eq!(code(&good, &other_key, false), invalid);
        assert_eq!(code("x", &key, false), invalid);
        assert_eq!(code(&good, "x", false), invalid);
        assert_eq!(code(&"x".repeat(200_000), &key, false), invalid);
        let server_only = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        };
        let (certificate, key) = made(server_only, false);
        assert_eq!(code(&certificate, &key, false), invalid);
        let (certificate, key) = made(|params| params.extended_key_usages.clear(), false);
        assert_eq!(code(&certificate, &key, false), invalid);
        let expired = |params: &mut CertificateParams| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        };
        let (certificate, key) = made(expired, false);
        assert_eq!(code(&certificate, &key, false).as_deref(), Some("406 certificate_expired"));
    }
}

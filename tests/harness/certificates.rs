//! Certificates for tests: an authority and what it signs, as PEM files in a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SanType,
};

/// An authority with its certificate in `NAME.crt`.
pub struct Authority {
    folder: PathBuf,
    pub certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, signed by an authority.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let key = new_key();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let signed = params.self_signed(&key).expect("a self-signed certificate");
        let certificate = folder.join(format!("{name}.crt"));
        fs::write(&certificate, signed.pem()).expect("a writable folder");
        Self { folder: folder.to_owned(), certificate, issuer: Issuer::new(params, key) }
    }

    /// A server certificate (P-256) for localhost, with its files named after `name`.
    pub fn server(&self, name: &str) -> Identity {
        self.sign(name, &new_key(), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The same with an RSA key of 2048 bits.
    pub fn rsa_server(&self, name: &str) -> Identity {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048);
        self.sign(name, &key.expect("an RSA key"), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// One for both ends, as the cluster's interfaces take it.
    pub fn both(&self, name: &str) -> Identity {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("well-formed names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign_params(name, &new_key(), &params)
    }

    /// The same with an RSA key, as nodes take it from one another.
    pub fn rsa_both(&self, name: &str) -> Identity {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign_params(name, &key.expect("an RSA key"), &params)
    }

    /// A client certificate.
    pub fn client(&self, name: &str) -> Identity {
        self.sign(name, &new_key(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A client certificate with this common name, and with these URIs besides.
    pub fn client_with(&self, name: &str, common_name: &str, uris: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for uri in uris {
            let uri = (*uri).try_into().expect("a URI");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        self.sign_params(name, &new_key(), &params)
    }

    fn sign(&self, name: &str, key: &KeyPair, usage: ExtendedKeyUsagePurpose) -> Identity {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let mut params = CertificateParams::new(names).expect("well-formed names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        self.sign_params(name, key, &params)
    }

    fn sign_params(&self, name: &str, key: &KeyPair, params: &CertificateParams) -> Identity {
        let signed = params.signed_by(key, &self.issuer).expect("a signed certificate");
        let identity = Identity {
            certificate: self.folder.join(format!("{name}.crt")),
            key: self.folder.join(format!("{name}.key")),
        };
        fs::write(&identity.certificate, signed.pem()).expect("a writable folder");
        fs::write(&identity.key, key.serialize_pem()).expect("a writable folder");
        fs::set_permissions(&identity.key, fs::Permissions::from_mode(0o600))
            .expect("permissions of our own file");
        identity
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key pair")
}

//! Which certificates clients may come with: `tls-auth-clients`, `tls-ca-cert-file` and
//! `tls-ca-cert-dir`. [`Anchors`] judges primaries' certificates by the same rules.
//!
//! The engine's verifier (webpki) judges by the rules of the web. Three kinds of certificate that
//! OpenSSL takes, and that Redis users therefore have, need care on top:
//!
//! - X.509 version 1, which is what `openssl x509 -req` makes when given no extensions, and so what
//!   many a handbook (and the "generic" certificate of Redis's own test script) comes to. webpki
//!   does not read them. Here they are verified by hand, and only in the plainest of cases: signed
//!   directly by a trusted authority.
//! - A self-signed certificate that is itself in the list of the trusted.
//! - `nsCertType`, by which that script keeps server certificates from being used by clients
//!   and the reverse.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{self, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::extensions::ParsedExtension;

use crate::der::{self, BIT_STRING, INTEGER, Reader, SEQUENCE};
use crate::error::ConfigError;
use crate::issue::Purpose;
use crate::provider::provider;
use crate::{describe, store};

/// `tls-auth-clients`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AuthClients {
    /// A client without a certificate is refused.
    Yes,
    /// No certificate is asked for.
    No,
    /// One that comes must be valid; none need come.
    Optional,
}

/// The authorities whose clients are let in, and what was left out on the way.
pub(crate) struct Trusted {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) notes: Vec<String>,
}

impl Trusted {
    /// Reads the file and the folder, either of which may be unset.
    pub(crate) fn read(file: Option<&Path>, folder: Option<&Path>) -> Result<Self, ConfigError> {
        let mut trusted = Self { certificates: Vec::new(), notes: Vec::new() };
        if let Some(file) = file {
            for certificate in store::certificates(file)? {
                check_anchor(&certificate, file)?;
                trusted.add(certificate);
            }
        }
        if let Some(folder) = folder {
            trusted.add_folder(folder)?;
            if trusted.certificates.is_empty() {
                return Err(ConfigError::NoAuthorities { path: folder.to_owned() });
            }
        }
        Ok(trusted)
    }

    /// Such folders hold links to the same files under hashed names, revocation lists and READMEs:
    /// what is no certificate is no error there.
    fn add_folder(&mut self, folder: &Path) -> Result<(), ConfigError> {
        let unreadable = |source| ConfigError::Read { path: folder.to_owned(), source };
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            paths.push(entry.map_err(unreadable)?.path());
        }
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            match store::certificates(path) {
                Ok(found) => {
                    for certificate in found {
                        match check_anchor(&certificate, path) {
                            Ok(()) => self.add(certificate),
                            Err(error) => self.notes.push(error.to_string()),
                        }
                    }
                }
                Err(ConfigError::NoCertificate { .. }) => {}
                Err(error) => self.notes.push(error.to_string()),
            }
        }
        Ok(())
    }

    fn add(&mut self, certificate: CertificateDer<'static>) {
        if !self.certificates.contains(&certificate) {
            self.certificates.push(certificate);
        }
    }
}

fn check_anchor(certificate: &CertificateDer<'static>, path: &Path) -> Result<(), ConfigError> {
    RootCertStore::empty().add(certificate.clone()).map_err(|error| ConfigError::BadCertificate {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// What the engine is to do about client certificates.
pub(crate) fn verifier(
    auth_clients: AuthClients,
    trusted: &[CertificateDer<'static>],
) -> Result<Arc<dyn ClientCertVerifier>, ConfigError> {
    if auth_clients == AuthClients::No {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    if trusted.is_empty() {
        return Err(ConfigError::NothingToTrust);
    }
    let anchors = Anchors::new(trusted)?;
    // No list of acceptable authorities is sent, as with Redis: some clients (Java's among them)
    // would keep back a certificate whose chain does not end in the list.
    let roots = Arc::clone(&anchors.roots);
    let mut web = WebPkiClientVerifier::builder_with_provider(roots, provider().clone())
        .clear_root_hint_subjects();
    if auth_clients == AuthClients::Optional {
        web = web.allow_unauthenticated();
    }
    let web = web.build().map_err(|error| Error::General(error.to_string()))?;
    Ok(Arc::new(ClientVerifier { web, anchors }))
}

/// How every verifier of certificates checks that handshakes are signed with their keys: by these schemes, and with
/// what [`verify_tls12_signature`] and [`verify_tls13_signature`] find.
macro_rules! checks_signatures {
    ($schemes:expr) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            leaf: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            crate::trust::verify_tls12_signature(message, leaf, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            crate::trust::verify_tls13_signature(message, leaf, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            $schemes
        }
    };
}

pub(crate) use checks_signatures;

#[derive(Debug)]
struct ClientVerifier {
    web: Arc<dyn ClientCertVerifier>,
    anchors: Anchors,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.web.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let web = || self.web.verify_client_cert(leaf, intermediates, now).map(|_| ());
        self.anchors.judge(leaf, Purpose::Client, now, web)?;
        Ok(ClientCertVerified::assertion())
    }

    checks_signatures!(all_schemes());
}

/// The authorities in force, and what is the same in judging clients and servers by them.
#[derive(Debug)]
pub(crate) struct Anchors {
    pub(crate) roots: Arc<RootCertStore>,
    trusted: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Anchors {
    pub(crate) fn new(trusted: &[CertificateDer<'static>]) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate.clone())?;
        }
        let algorithms = provider().signature_verification_algorithms;
        Ok(Self { roots: roots.into(), trusted: trusted.to_vec(), algorithms })
    }

    /// Whether a certificate is good for `purpose`. `web` asks the engine's own judgement.
    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        purpose: Purpose,
        now: UnixTime,
        web: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(plain) = VersionOne::parse(leaf) {
            return plain.verify(leaf, &self.roots.roots, self.algorithms, now);
        }
        check_netscape_type(leaf, purpose)?;
        match web() {
            // webpki's way of saying "marked as an authority": a self-signed one that is listed.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.trusted.iter().any(|trusted| trusted == leaf) =>
            {
                check_dates(leaf, now)
            }
            verdict => verdict,
        }
    }
}

/// Whether it is signed with the certificate's key, which may be of version 1.
pub(crate) fn verify_tls12_signature(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider().signature_verification_algorithms;
    match VersionOne::parse(leaf) {
        Some(plain) => plain.verify_tls12_signature(message, signed, *algorithms),
        None => crypto::verify_tls12_signature(message, leaf, signed, algorithms),
    }
}

/// The same of TLS 1.3.
pub(crate) fn verify_tls13_signature(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider().signature_verification_algorithms;
    match VersionOne::parse(leaf) {
        Some(plain) => {
            let key = SubjectPublicKeyInfoDer::from(plain.key_whole);
            crypto::verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
        }
        None => crypto::verify_tls13_signature(message, leaf, signed, algorithms),
    }
}

/// All in which a signature can be checked.
pub(crate) fn all_schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}

/// The parts of a version 1 certificate, as slices of it. Names and keys are the contents of their
/// sequences, which is how trust anchors have them.
struct VersionOne<'a> {
    signed: &'a [u8],
    signature_algorithm: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    key: &'a [u8],
    key_whole: &'a [u8],
}

impl<'a> VersionOne<'a> {
    /// `None` for anything but a well-formed certificate of version 1.
    fn parse(certificate: &'a CertificateDer<'_>) -> Option<Self> {
        let mut all = Reader::new(certificate);
        let mut outer = all.sequence()?;
        let (inner, signed) = outer.value_and_whole(SEQUENCE)?;
        let signature_algorithm = outer.value(SEQUENCE)?;
        let signature = der::whole_bytes(outer.value(BIT_STRING)?)?;

        let mut inner = Reader::new(inner);
        inner.value(INTEGER)?; // later versions begin with [0]
        let inner_algorithm = inner.value(SEQUENCE)?;
        let issuer = inner.value(SEQUENCE)?;
        let _validity = inner.value(SEQUENCE)?;
        let _subject = inner.value(SEQUENCE)?;
        let (key, key_whole) = inner.value_and_whole(SEQUENCE)?;
        let well_formed = all.is_empty()
            && outer.is_empty()
            && inner.is_empty()
            && inner_algorithm == signature_algorithm;
        well_formed.then_some(Self {
            signed,
            signature_algorithm,
            signature,
            issuer,
            key,
            key_whole,
        })
    }

    /// Accepts it if a trusted authority, none of whose constraints would have to be applied,
    /// signed it.
    fn verify(
        &self,
        whole: &CertificateDer<'_>,
        anchors: &[TrustAnchor<'static>],
        algorithms: WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), Error> {
        check_dates(whole, now)?;
        let mut verdict = CertificateError::UnknownIssuer;
        for anchor in anchors.iter().filter(|anchor| anchor.subject.as_ref() == self.issuer) {
            if anchor.name_constraints.is_some() {
                continue;
            }
            if self.is_signed_with(&anchor.subject_public_key_info, algorithms) {
                return Ok(());
            }
            verdict = CertificateError::BadSignature;
        }
        Err(verdict.into())
    }

    fn is_signed_with(&self, key: &[u8], algorithms: WebPkiSupportedAlgorithms) -> bool {
        let Some((key_algorithm, key)) = key_parts(key) else { return false };
        algorithms
            .all
            .iter()
            .filter(|algorithm| {
                algorithm.signature_alg_id().as_ref() == self.signature_algorithm
                    && algorithm.public_key_alg_id().as_ref() == key_algorithm
            })
            .any(|algorithm| algorithm.verify_signature(key, self.signed, self.signature).is_ok())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (key_algorithm, key) = key_parts(self.key).ok_or(CertificateError::BadEncoding)?;
        let of_scheme = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let is_valid = of_scheme
            .iter()
            .flat_map(|(_, algorithms)| *algorithms)
            .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key_algorithm)
            .any(|algorithm| algorithm.verify_signature(key, message, signed.signature()).is_ok());
        match is_valid {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }
}

/// The algorithm and the bits of a public key, from the contents of its sequence.
fn key_parts(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(key);
    let algorithm = reader.value(SEQUENCE)?;
    let bits = der::whole_bytes(reader.value(BIT_STRING)?)?;
    Some((algorithm, bits))
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = describe::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now_s < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if parsed.validity().not_after.timestamp() < now_s {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// A certificate with Netscape's extension must be marked for its use in it.
fn check_netscape_type(certificate: &CertificateDer<'_>, purpose: Purpose) -> Result<(), Error> {
    let parsed = describe::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let is_for_others = parsed.extensions().iter().any(|extension| {
        let ParsedExtension::NSCertType(kind) = extension.parsed_extension() else { return false };
        !match purpose {
            Purpose::Client => kind.ssl_client(),
            Purpose::Server => kind.ssl_server(),
        }
    });
    match is_for_others {
        true => Err(CertificateError::Other(OtherError(Arc::new(ForOthers))).into()),
        false => Ok(()),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("its nsCertType does not allow this use")]
struct ForOthers;

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::version;

    use super::*;
    use crate::issue::KeyKind;
    use crate::settings::Settings;
    use crate::testing::{ClientOptions, Openssl, Pair, accept, authority, self_made};
    use crate::{TlsError, private_key};

    /// Certificates as Redis's test script makes them, and a few more.
    struct Made {
        openssl: Openssl,
        /// For the server's own identity.
        own: tempfile::TempDir,
    }

    impl Made {
        fn new() -> Option<Self> {
            let openssl = Openssl::new()?;
            let extensions = "[server_cert]\nkeyUsage = digitalSignature, keyEncipherment\n\
                              nsCertType = server\n\
                              [client_cert]\nkeyUsage = digitalSignature, keyEncipherment\n\
                              nsCertType = client\n";
            fs::write(openssl.folder().join("openssl.cnf"), extensions).unwrap();
            let made = Self { openssl, own: tempfile::tempdir().unwrap() };
            made.authority("ca", "Certificate~Authority");
            made.leaf("server", "ca", "-extfile openssl.cnf -extensions server_cert -days 365");
            made.leaf("client", "ca", "-extfile openssl.cnf -extensions client_cert -days 365");
            made.leaf("generic", "ca", "-days 365");
            Some(made)
        }

        fn authority(&self, name: &str, common_name: &str) {
            self.openssl.run(&format!("genrsa -out {name}.key 2048"));
            self.openssl.run(&format!(
                "req -x509 -new -nodes -sha256 -key {name}.key -days 3650 \
                 -subj /O=Redis~Test/CN={common_name} -out {name}.crt"
            ));
        }

        fn leaf(&self, name: &str, ca: &str, options: &str) {
            self.openssl.run(&format!("genrsa -out {name}.key 2048"));
            self.openssl.run(&format!(
                "req -new -sha256 -subj /O=Redis~Test/CN={name} -key {name}.key -out {name}.csr"
            ));
            self.openssl.run(&format!(
                "x509 -req -sha256 -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -CAserial ca.txt \
                 -CAcreateserial {options} -out {name}.crt"
            ));
        }

        fn path(&self, name: &str) -> PathBuf {
            self.openssl.folder().join(name)
        }

        fn settings(&self, auth_clients: AuthClients) -> Settings {
            Settings {
                auth_clients,
                ca_cert_file: Some(self.path("ca.crt")),
                ..self_made(self.own.path())
            }
        }

        fn identity(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
            let chain = store::certificates(&self.path(&format!("{name}.crt"))).unwrap();
            (chain, private_key::load(&self.path(&format!("{name}.key")), None).unwrap())
        }

        /// Whether a client with this certificate gets in, over TLS 1.3 and 1.2 alike.
        fn try_client(&self, settings: &Settings, name: Option<&str>) -> Result<(), TlsError> {
            let acceptor = accept(settings);
            let ca = store::certificates(&self.own.path().join("client-ca.pem")).unwrap();
            let mut results = [&version::TLS13, &version::TLS12].map(|version| {
                let identity = name.map(|name| self.identity(name));
                let versions = &[version][..];
                let client = ClientOptions { versions, identity, suites: None }.config(&ca[0]);
                let mut pair = Pair::new(&acceptor, &client);
                pair.run()?;
                pair.ping();
                assert_eq!(pair.server.peer_certificates().is_some(), name.is_some());
                Ok(())
            });
            let text = |result: &Result<(), TlsError>| format!("{result:?}");
            assert_eq!(text(&results[0]), text(&results[1]));
            std::mem::replace(&mut results[0], Ok(()))
        }
    }

    #[test]
    fn clients_certified_by_rediss_script_get_in() {
        let Some(made) = Made::new() else { return };
        let settings = made.settings(AuthClients::Yes);
        made.try_client(&settings, Some("client")).unwrap();
        let generic = store::certificates(&made.path("generic.crt")).unwrap();
        let version = crate::CertificateInfo::of(&generic[0]).unwrap().version;
        assert!(version == 1 || version == 3, "newer versions of OpenSSL add extensions");
        made.try_client(&settings, Some("generic")).unwrap();

        let error = made.try_client(&settings, Some("server")).unwrap_err();
        assert!(error.to_string().contains("nsCertType"), "{error}");
        let error = made.try_client(&settings, None).unwrap_err();
        assert_eq!(error.to_string(), "peer did not return a certificate");
    }

    #[test]
    fn optional_takes_none_but_no_wrong_one_and_no_does_not_ask() {
        let Some(made) = Made::new() else { return };
        made.authority("other", "Certificate~Authority");
        made.leaf("stranger", "other", "-days 365");
        made.leaf("stranger3", "other", "-days 365 -extfile openssl.cnf -extensions client_cert");

        let optional = made.settings(AuthClients::Optional);
        made.try_client(&optional, None).unwrap();
        made.try_client(&optional, Some("client")).unwrap();
        for stranger in ["stranger", "stranger3"] {
            let error = made.try_client(&optional, Some(stranger)).unwrap_err();
            assert!(matches!(error, TlsError::Certificate(_)), "{error}");
        }

        let settings = made.settings(AuthClients::No);
        made.try_client(&settings, None).unwrap();
    }

    #[test]
    fn expired_damaged_and_unsigned_ones_are_refused() {
        let Some(made) = Made::new() else { return };
        let settings = made.settings(AuthClients::Yes);
        made.leaf("old", "ca", "-days -1");
        made.leaf("old3", "ca", "-days -1 -extfile openssl.cnf -extensions client_cert");
        for old in ["old", "old3"] {
            let error = made.try_client(&settings, Some(old)).unwrap_err();
            assert!(error.to_string().to_lowercase().contains("expired"), "{error}");
        }

        // A version 1 certificate with one bit of what is signed turned over.
        let (mut chain, _) = made.identity("generic");
        let mut damaged = chain[0].to_vec();
        let place = damaged.windows(7).position(|bytes| bytes == b"generic").unwrap();
        damaged[place] ^= 1;
        chain[0] = damaged.into();
        let trusted = store::certificates(&made.path("ca.crt")).unwrap();
        let verifier = verifier(AuthClients::Yes, &trusted).unwrap();
        let error = verifier.verify_client_cert(&chain[0], &[], UnixTime::now()).unwrap_err();
        assert_eq!(error, CertificateError::BadSignature.into());
    }

    #[test]
    fn a_self_signed_certificate_is_trusted_when_listed() {
        let Some(made) = Made::new() else { return };
        made.authority("alone", "alone");
        let mut settings = made.settings(AuthClients::Yes);
        let error = made.try_client(&settings, Some("alone")).unwrap_err();
        assert!(matches!(error, TlsError::Certificate(_)), "{error}");
        settings.ca_cert_file = Some(made.path("alone.crt"));
        made.try_client(&settings, Some("alone")).unwrap();
        assert!(made.try_client(&settings, Some("client")).is_err());
    }

    #[test]
    fn folders_of_authorities_are_read_around_what_is_none() {
        let Some(made) = Made::new() else { return };
        let folder = made.path("trusted");
        fs::create_dir(&folder).unwrap();
        fs::create_dir(folder.join("deeper")).unwrap();
        let read = |file: Option<&Path>| Trusted::read(file, Some(&folder));
        let error = read(None).err().unwrap().to_string();
        assert!(error.contains("trusted: no certificate authority"), "{error}");

        fs::write(folder.join("README"), "nothing here").unwrap();
        fs::write(folder.join("cut.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
        fs::copy(made.path("ca.crt"), folder.join("ca.pem")).unwrap();
        std::os::unix::fs::symlink("ca.pem", folder.join("0123abcd.0")).unwrap();
        std::os::unix::fs::symlink("gone.pem", folder.join("0123abcd.1")).unwrap();
        let trusted = read(Some(&made.path("ca.crt"))).unwrap();
        assert_eq!(trusted.certificates.len(), 1);
        assert_eq!(trusted.notes.len(), 1);
        assert!(trusted.notes[0].contains("cut.pem: damaged PEM"));

        let settings = Settings {
            ca_cert_file: None,
            ca_cert_dir: Some(folder),
            ..made.settings(AuthClients::Yes)
        };
        made.try_client(&settings, Some("client")).unwrap();
    }

    #[test]
    fn with_no_authority_named_a_self_made_identity_trusts_its_own() {
        let (folder, authority) = authority();
        let now = std::time::SystemTime::now();
        let issued = authority.issue_client("app", KeyKind::EcdsaP256, now).unwrap();
        let settings = Settings { auth_clients: AuthClients::Yes, ..self_made(folder.path()) };
        let acceptor = accept(&settings);
        let client = ClientOptions::identity_of(&issued).config(authority.certificate());
        let mut pair = Pair::new(&acceptor, &client);
        pair.ping();
        let peer = &pair.server.peer_certificates().unwrap()[0];
        assert_eq!(crate::common_name_of(peer).as_deref(), Some("app"));
    }

    #[test]
    fn every_cut_of_a_version_1_certificate_is_refused() {
        let Some(made) = Made::new() else { return };
        let generic = store::certificates(&made.path("generic.crt")).unwrap().remove(0);
        let trusted = store::certificates(&made.path("ca.crt")).unwrap();
        let verifier = verifier(AuthClients::Yes, &trusted).unwrap();
        for length in 0..generic.len() {
            let cut = CertificateDer::from(&generic[..length]);
            assert!(verifier.verify_client_cert(&cut, &[], UnixTime::now()).is_err());
        }
    }
}

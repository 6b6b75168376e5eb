//! The client CA: the authority whose certificate clients are given (`--cacert client-ca.pem`) and
//! that signs what a server shows them.
//!
//! Made once, in the data folder, and never replaced behind the operator's back: clients trust this
//! very certificate. (What follows it long before its end is in [`overlap`](crate::overlap).) Damage
//! is an error that names the file. The server's own leaves beside it are another matter: nothing
//! outside depends on them, so whatever is wrong with them, or missing from their names, is cured by
//! making them anew.

use std::path::{Path, PathBuf};
use std::slice;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use zeroize::Zeroizing;

use crate::describe::CertificateInfo;
use crate::error::ConfigError;
use crate::issue::{self, Issued, KeyKind, Profile, Purpose, SubjectAltNames};
use crate::pem;
use crate::private_key;
use crate::provider::provider;
use crate::store::{self, Access};

/// The CA's certificate, for clients.
pub const CA_CERTIFICATE: &str = "client-ca.pem";
/// The CA's key.
pub const CA_KEY: &str = "client-ca.key";

/// The client CA of one server, ready to sign.
pub struct ClientAuthority {
    folder: PathBuf,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    info: CertificateInfo,
    issuer: Issuer<'static, KeyPair>,
    newly_made: bool,
}

impl ClientAuthority {
    /// The authority kept in `folder`; the first time, a new one (and the folder).
    pub fn open_or_create(folder: &Path, now: SystemTime) -> Result<Self, ConfigError> {
        store::make_folder(folder)?;
        let (certificate, key) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
        match (store::read_if_present(&certificate)?, store::read_if_present(&key)?) {
            (Some(_), Some(_)) => Self::open(folder, now),
            (None, None) => Self::create(folder, now),
            (Some(_), None) => {
                Err(ConfigError::HalfAnAuthority { present: certificate, missing: key })
            }
            (None, Some(_)) => {
                Err(ConfigError::HalfAnAuthority { present: key, missing: certificate })
            }
        }
    }

    fn create(folder: &Path, now: SystemTime) -> Result<Self, ConfigError> {
        let life = issue::AUTHORITY_LIFE;
        Self::create_as(folder, CA_CERTIFICATE, CA_KEY, now, life)
    }

    /// A new one in files of these names.
    pub(crate) fn create_as(
        folder: &Path,
        certificate: &str,
        key: &str,
        now: SystemTime,
        life: Duration,
    ) -> Result<Self, ConfigError> {
        let made = issue::authority(now, life)?;
        // The key first: a certificate that nothing can sign for must never be handed out.
        store::write(&folder.join(key), made.key_pem.as_bytes(), Access::Owner)?;
        let pem = made.certificate_pem.as_bytes();
        store::write(&folder.join(certificate), pem, Access::Everyone)?;
        Ok(Self { newly_made: true, ..Self::read(folder, certificate, key)? })
    }

    /// The authority already in `folder`.
    pub fn open(folder: &Path, now: SystemTime) -> Result<Self, ConfigError> {
        let authority = Self::read(folder, CA_CERTIFICATE, CA_KEY)?;
        if authority.has_ended(now) {
            let reason = "expired; move it and its key away to start with a new one".into();
            return Err(ConfigError::BadCertificate { path: folder.join(CA_CERTIFICATE), reason });
        }
        Ok(authority)
    }

    pub(crate) fn has_ended(&self, now: SystemTime) -> bool {
        self.info.not_after < issue::seconds(now)
    }

    /// The one in files of these names: the first certificate, and its key.
    pub(crate) fn read(folder: &Path, certificate: &str, key: &str) -> Result<Self, ConfigError> {
        let (path, key_path) = (folder.join(certificate), folder.join(key));
        let certificate = store::certificates(&path)?.remove(0);
        let key = private_key::load(&key_path, None)?;
        Self::of(folder, certificate, &path, &key, &key_path)
    }

    /// One that is kept elsewhere, by what it is called there.
    pub fn from_pem(pem: &AuthorityPem, origin: &Path) -> Result<Self, ConfigError> {
        let certificate = store::certificates_in(pem.certificate.as_bytes(), origin)?.remove(0);
        let (key, _) = private_key::plain_in(&pem.key)
            .map_err(|reason| ConfigError::BadPrivateKey { path: origin.to_owned(), reason })?;
        Self::of(Path::new(""), certificate, origin, &key, origin)
    }

    /// The paths are for the errors.
    fn of(
        folder: &Path,
        certificate: CertificateDer<'static>,
        path: &Path,
        key: &PrivateKeyDer<'static>,
        key_path: &Path,
    ) -> Result<Self, ConfigError> {
        let bad = |reason: String| ConfigError::BadCertificate { path: path.to_owned(), reason };
        let info = CertificateInfo::of(&certificate).map_err(|error| bad(error.0))?;
        if !info.is_ca {
            return Err(bad("not an authority's".into()));
        }
        private_key::check_pair(&certificate, path, key, key_path)?;
        let unusable = |error: rcgen::Error| ConfigError::BadPrivateKey {
            path: key_path.to_owned(),
            reason: error.to_string(),
        };
        let key = KeyPair::try_from(key).map_err(unusable)?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|error| bad(error.to_string()))?;
        Ok(Self {
            folder: folder.to_owned(),
            certificate_pem: pem::certificate(&certificate),
            certificate,
            info,
            issuer,
            newly_made: false,
        })
    }

    /// As text, with its key.
    pub fn to_pem(&self) -> AuthorityPem {
        AuthorityPem { certificate: self.certificate_pem.clone(), key: self.key_pem() }
    }

    /// Where its certificate is, for `--cacert`.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.join(CA_CERTIFICATE)
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate as text.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }

    fn key_pem(&self) -> Zeroizing<String> {
        self.issuer.key().serialize_pem().into()
    }

    /// Whether this call made it, as opposed to finding it.
    pub fn newly_made(&self) -> bool {
        self.newly_made
    }

    /// Signs a leaf for a server with these names.
    pub fn issue_server(
        &self,
        names: &SubjectAltNames,
        kind: KeyKind,
        now: SystemTime,
    ) -> Result<Issued, ConfigError> {
        let common_name = names.dns.first().map_or("carnelian", String::as_str);
        let subject = issue::subject(common_name);
        let (purpose, life) = (Purpose::Server, issue::LEAF_LIFE);
        self.issue(Profile { purpose, subject, names, kind, life }, now)
    }

    /// Signs a leaf for a client that goes by `common_name`.
    pub fn issue_client(
        &self,
        common_name: &str,
        kind: KeyKind,
        now: SystemTime,
    ) -> Result<Issued, ConfigError> {
        let names = &SubjectAltNames::default();
        let subject = issue::subject(common_name);
        let (purpose, life) = (Purpose::Client, issue::LEAF_LIFE);
        self.issue(Profile { purpose, subject, names, kind, life }, now)
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(crate) fn issue(
        &self,
        profile: Profile<'_>,
        now: SystemTime,
    ) -> Result<Issued, ConfigError> {
        issue::leaf(&self.issuer, self.ends(), profile, now)
    }

    /// The server's own leaves from the folder, each made anew if it does not serve any longer.
    pub fn server_leaves(
        &self,
        names: &SubjectAltNames,
        now: SystemTime,
    ) -> Result<ServerLeaves, ConfigError> {
        Ok(ServerLeaves {
            ecdsa: self.server_leaf(KeyKind::EcdsaP256, names, now)?,
            rsa: self.server_leaf(KeyKind::Rsa2048, names, now)?,
        })
    }

    fn server_leaf(
        &self,
        kind: KeyKind,
        names: &SubjectAltNames,
        now: SystemTime,
    ) -> Result<Leaf, ConfigError> {
        let own = slice::from_ref(&self.certificate);
        let kept = Leaf::read(&self.folder, kind, own, now);
        let reason = match kept.map(|leaf| (leaf.due_because(names, now), leaf)) {
            Ok((None, leaf)) => return Ok(leaf),
            Ok((Some(reason), _)) => reason.to_owned(),
            Err(reason) => reason,
        };
        let made = self.issue_server(names, kind, now)?;
        let key = made.key_pem.as_bytes();
        Leaf::write(&self.folder, kind, &made.certificate_pem, key)?;
        let info = CertificateInfo::of(&made.certificate).map_err(|error| {
            let path = self.folder.join(format!("{}.pem", stem(kind)));
            ConfigError::BadCertificate { path, reason: error.0 }
        })?;
        Ok(Leaf { certificate: made.certificate, key: made.key, info, made_because: Some(reason) })
    }

    pub(crate) fn ends(&self) -> SystemTime {
        let seconds = u64::try_from(self.info.not_after).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }
}

/// What a server with no certificate files of its operator's shows to clients.
pub struct ServerLeaves {
    pub ecdsa: Leaf,
    pub rsa: Leaf,
}

/// One of them.
pub struct Leaf {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub info: CertificateInfo,
    /// Why it was made just now; `None` if it was found on disk.
    pub made_because: Option<String>,
}

impl ServerLeaves {
    /// What is in a folder, if one of these authorities vouches for it; or why it does not serve.
    pub(crate) fn read(
        folder: &Path,
        authorities: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<Self, String> {
        Ok(Self {
            ecdsa: Leaf::read(folder, KeyKind::EcdsaP256, authorities, now)?,
            rsa: Leaf::read(folder, KeyKind::Rsa2048, authorities, now)?,
        })
    }
}

impl Leaf {
    /// The leaf on disk, or why it does not serve.
    pub(crate) fn read(
        folder: &Path,
        kind: KeyKind,
        authorities: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<Self, String> {
        let [path, key_path] = paths(folder, kind);
        if !path.exists() && !key_path.exists() {
            return Err("there was none".into());
        }
        let text = |error: ConfigError| error.to_string();
        let certificate = store::certificates(&path).map_err(text)?.remove(0);
        let info = CertificateInfo::of(&certificate).map_err(|error| error.0)?;
        let key = private_key::load(&key_path, None).map_err(text)?;
        private_key::check_pair(&certificate, &path, &key, &key_path).map_err(text)?;
        verify(&certificate, authorities, now)
            .map_err(|error| format!("the old one does not verify: {error}"))?;
        Ok(Self { certificate, key, info, made_because: None })
    }

    pub(crate) fn write(
        folder: &Path,
        kind: KeyKind,
        certificate: &str,
        key: &[u8],
    ) -> Result<(), ConfigError> {
        let [path, key_path] = paths(folder, kind);
        store::write(&key_path, key, Access::Owner)?;
        store::write(&path, certificate.as_bytes(), Access::Owner)
    }

    /// Why it is time for another, if it is.
    pub(crate) fn due_because(
        &self,
        names: &SubjectAltNames,
        now: SystemTime,
    ) -> Option<&'static str> {
        let age_s = issue::LEAF_AGE.as_secs() as i64;
        if !issue::covers(&self.info.dns_names, &self.info.ip_addresses, names) {
            Some("names or addresses were added")
        } else if self.info.not_before.saturating_add(age_s) <= issue::seconds(now) {
            Some("the old one was 180 days old")
        } else {
            None
        }
    }
}

/// What the files of such a leaf are called, without their endings.
fn stem(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::EcdsaP256 => "server",
        KeyKind::Rsa2048 => "server-rsa",
    }
}

fn paths(folder: &Path, kind: KeyKind) -> [PathBuf; 2] {
    ["pem", "key"].map(|ending| folder.join(format!("{}.{ending}", stem(kind))))
}

/// Whether one of these authorities vouches for a server's certificate.
pub(crate) fn verify(
    certificate: &CertificateDer<'_>,
    authorities: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| error.to_string())?;
    }
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    ParsedCertificate::try_from(certificate)
        .and_then(|leaf| {
            verify_server_cert_signed_by_trust_anchor(
                &leaf,
                &roots,
                &[],
                UnixTime::since_unix_epoch(since_1970),
                provider().signature_verification_algorithms.all,
            )
        })
        .map_err(|error| error.to_string())
}

/// An authority as text, its key included: for the cluster, which keeps that sealed.
#[derive(Clone)]
pub struct AuthorityPem {
    pub certificate: String,
    pub key: Zeroizing<String>,
}

impl AuthorityPem {
    /// A new one.
    pub fn create(now: SystemTime, life: Duration) -> Result<Self, ConfigError> {
        let made = issue::authority(now, life)?;
        Ok(Self { certificate: made.certificate_pem, key: made.key_pem.into() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn names(all: &[&str]) -> SubjectAltNames {
        SubjectAltNames::of(all).unwrap()
    }

    fn open(folder: &Path, now: SystemTime) -> ClientAuthority {
        ClientAuthority::open_or_create(folder, now).unwrap()
    }

    #[test]
    fn the_authority_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (path, now) = (folder.path().join("data"), SystemTime::now());
        let first = open(&path, now);
        let second = open(&path, now + DAY);
        assert!(first.newly_made() && !second.newly_made());
        assert_eq!(first.certificate(), second.certificate());
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        let years = (first.info().not_after - first.info().not_before) / 86_400 / 365;
        assert_eq!(years, 10);

        let mode = |name| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(CA_KEY), mode(CA_CERTIFICATE)), (0o600, 0o644));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(other.path(), now).info().subject, first.info().subject);
    }

    #[test]
    fn the_authority_may_sign_leaves_but_no_authorities() {
        let folder = tempfile::tempdir().unwrap();
        let authority = open(folder.path(), SystemTime::now());
        let parsed = crate::describe::parse(authority.certificate()).unwrap();
        let constraints = parsed.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = parsed.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
    }

    #[test]
    fn damage_is_named_and_nothing_is_replaced() {
        let now = SystemTime::now();
        let other = tempfile::tempdir().unwrap();
        open(other.path(), now);
        let foreign_key = fs::read(other.path().join(CA_KEY)).unwrap();
        let damages: [(&str, Option<&[u8]>, &str); 7] = [
            (CA_CERTIFICATE, Some(b""), "client-ca.pem: no certificate"),
            (
                CA_CERTIFICATE,
                Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n"),
                "client-ca.pem: damaged",
            ),
            (CA_CERTIFICATE, None, "client-ca.pem is missing"),
            (CA_KEY, Some(b"x"), "client-ca.key: no private key"),
            (
                CA_KEY,
                Some(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                "client-ca.key: not a usable",
            ),
            (CA_KEY, None, "client-ca.key is missing"),
            (CA_KEY, Some(&foreign_key), "do not belong together"),
        ];
        for (name, contents, expected) in damages {
            let folder = tempfile::tempdir().unwrap();
            let before = open(folder.path(), now).certificate_pem().to_owned();
            match contents {
                Some(contents) => fs::write(folder.path().join(name), contents).unwrap(),
                None => fs::remove_file(folder.path().join(name)).unwrap(),
            }
            let error = ClientAuthority::open_or_create(folder.path(), now).err().unwrap();
            assert!(error.to_string().contains(expected), "{error}");
            if name == CA_KEY {
                assert_eq!(fs::read_to_string(folder.path().join(CA_CERTIFICATE)).unwrap(), before);
            }
        }
    }

    #[test]
    fn leaves_are_kept_while_they_serve() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let authority = open(folder.path(), now);
        let wanted = names(&["localhost", "127.0.0.1"]);
        let first = authority.server_leaves(&wanted, now).unwrap();
        assert!(first.ecdsa.made_because.is_some() && first.rsa.made_because.is_some());
        assert!(first.ecdsa.info.not_after - first.ecdsa.info.not_before <= 825 * 86_400);
        for name in ["server.pem", "server.key", "server-rsa.pem", "server-rsa.key"] {
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }

        let fewer = authority.server_leaves(&names(&["localhost"]), now + DAY).unwrap();
        assert_eq!(fewer.ecdsa.certificate, first.ecdsa.certificate);
        assert_eq!(fewer.rsa.certificate, first.rsa.certificate);
        assert!(fewer.ecdsa.made_because.is_none());

        let more = names(&["localhost", "127.0.0.1", "db.example"]);
        let again = authority.server_leaves(&more, now).unwrap();
        assert_ne!(again.ecdsa.certificate, first.ecdsa.certificate);
        assert_eq!(again.ecdsa.made_because.as_deref(), Some("names or addresses were added"));
    }

    #[test]
    fn leaves_that_do_not_serve_are_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let authority = open(folder.path(), now);
        let wanted = names(&["localhost"]);
        let because = |now| {
            let leaves = authority.server_leaves(&wanted, now).unwrap();
            leaves.ecdsa.made_because.unwrap_or_default()
        };
        assert_eq!(because(now), "there was none");
        assert_eq!(because(now), "");
        assert_eq!(because(now + 179 * DAY), "");
        assert_eq!(because(now + 800 * DAY), "the old one was 180 days old");
        assert!(because(now + 2_000 * DAY).contains("does not verify"));
        // Near the end of the authority its leaves end with it, and are not made over and over.
        assert!(because(now + 3_640 * DAY).contains("does not verify"));
        assert_eq!(because(now + 3_640 * DAY), "");

        fs::write(folder.path().join("server.key"), "rubbish").unwrap();
        assert!(because(now + 3_640 * DAY).contains("server.key: no private key"));

        let other = tempfile::tempdir().unwrap();
        open(other.path(), now).server_leaves(&wanted, now).unwrap();
        for name in ["server.pem", "server.key"] {
            fs::copy(other.path().join(name), folder.path().join(name)).unwrap();
        }
        assert!(because(now).contains("does not verify"));
    }

    #[test]
    fn an_expired_authority_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        open(folder.path(), now);
        let error = ClientAuthority::open(folder.path(), now + 4_000 * DAY).err().unwrap();
        assert!(error.to_string().contains("client-ca.pem: not a usable certificate: expired"));
    }
}

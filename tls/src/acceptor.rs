//! The server's end of TLS: settings made into one immutable configuration, which every new
//! connection takes as it finds it and which is swapped as a whole.
//!
//! `current` always holds a configuration that was complete and valid when it was put there: a
//! reload that fails changes nothing. Connections keep what they started with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::ca::{CA_CERTIFICATE, CA_KEY, ClientAuthority, ServerLeaves};
use crate::ciphers;
use crate::describe::CertificateInfo;
use crate::error::{ConfigError, TlsError};
use crate::overlap::{self, ClientAuthorities, ClientCaPolicy};
use crate::private_key;
use crate::provider::provider;
use crate::session::TlsSession;
use crate::settings::{Identity, Settings};
use crate::store;
use crate::trust::{self, AuthClients, Trusted};

/// Starts TLS sessions. One per listener or group of listeners with the same settings; shared by
/// all threads.
pub struct Acceptor {
    current: ArcSwap<Configuration>,
}

/// What is in force, for connections and for those who ask about it.
pub struct Configuration {
    server: Arc<ServerConfig>,
    /// The leaf or leaves clients are shown, the preferred one first.
    pub certificates: Vec<CertificateInfo>,
    /// The certificate clients need in order to trust a self-made identity.
    pub client_ca_file: Option<PathBuf>,
    /// Who vouches: the first authority that clients' certificates may come from, or else our own.
    pub authority: Option<CertificateInfo>,
    /// Things to log at notice level: what was made, and what was left out as unknown here.
    pub notes: Vec<String>,
}

impl Acceptor {
    /// Reads all files (and makes the self-made ones where they are missing). Slow when keys have
    /// to be made: some tenths of a second.
    pub fn new(settings: &Settings, now: SystemTime) -> Result<Self, ConfigError> {
        let configuration = Configuration::build(settings, now)?;
        Ok(Self { current: ArcSwap::from_pointee(configuration) })
    }

    /// Puts new settings in force for handshakes yet to start; on an error the old ones stay.
    /// Sessions of before cannot be resumed after.
    pub fn reload(&self, settings: &Settings, now: SystemTime) -> Result<(), ConfigError> {
        self.current.store(Arc::new(Configuration::build(settings, now)?));
        Ok(())
    }

    /// A session for a connection just accepted.
    pub fn start(&self) -> Result<TlsSession, TlsError> {
        TlsSession::new(self.current.load().server.clone())
    }

    /// What is in force.
    pub fn configuration(&self) -> Arc<Configuration> {
        self.current.load_full()
    }
}

impl Configuration {
    /// The engine's configuration, for users of its other interfaces.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    fn build(settings: &Settings, now: SystemTime) -> Result<Self, ConfigError> {
        let mut notes = Vec::new();
        let protocols = ciphers::protocols(&settings.protocols)?;
        note_ignored(&mut notes, "tls-protocols", &protocols.ignored);
        let tls12 = ciphers::tls12(&settings.ciphers)?;
        note_ignored(&mut notes, "tls-ciphers", &tls12.ignored);
        let tls13 = ciphers::tls13(&settings.ciphersuites)?;
        note_ignored(&mut notes, "tls-ciphersuites", &tls13.ignored);

        let shown = Shown::from(&settings.identity, now, &mut notes)?;
        let trusted = trusted(settings, &shown, &mut notes)?;
        let verifier = trust::verifier(settings.auth_clients, &trusted)?;

        let provider = CryptoProvider {
            cipher_suites: [tls13.chosen, tls12.chosen].concat(),
            ..CryptoProvider::clone(provider())
        };
        let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&protocols.chosen)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(shown.leaves));
        server.ignore_client_order = settings.prefer_server_ciphers;
        // Each configuration resumes its own sessions only: resuming does not look at the client's
        // certificate again, so nothing may survive a change of whom to trust.
        server.session_storage = settings.session_caching.storage();
        server.send_tls13_tickets = 0;
        if settings.session_caching.enabled {
            server.ticketer = settings.session_caching.ticketer()?;
            server.send_tls13_tickets = 1;
        }
        Ok(Self {
            server: Arc::new(server),
            certificates: shown.infos,
            authority: trusted
                .first()
                .and_then(|certificate| CertificateInfo::of(certificate).ok())
                .or_else(|| CertificateInfo::of(shown.own.as_ref()?.listed.first()?).ok()),
            client_ca_file: shown.own.map(|own| own.file),
            notes,
        })
    }
}

fn note_ignored(notes: &mut Vec<String>, directive: &str, ignored: &[String]) {
    if !ignored.is_empty() {
        notes.push(format!("{directive}: not supported and left out: {}", ignored.join(" ")));
    }
}

/// The authorities of clients. With a self-made identity and none named, it is our own.
fn trusted(
    settings: &Settings,
    shown: &Shown,
    notes: &mut Vec<String>,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    if settings.auth_clients == AuthClients::No {
        // Not needed, but a mistake in them should show when it is made.
        let read = Trusted::read(settings.ca_cert_file.as_deref(), None)?;
        return Ok(read.certificates);
    }
    let read = Trusted::read(settings.ca_cert_file.as_deref(), settings.ca_cert_dir.as_deref())?;
    notes.extend(read.notes);
    match &shown.own {
        Some(own) if read.certificates.is_empty() => Ok(own.listed.clone()),
        _ => Ok(read.certificates),
    }
}

/// What clients are shown, and where it came from.
struct Shown {
    leaves: Leaves,
    infos: Vec<CertificateInfo>,
    own: Option<Own>,
}

/// The client CA that vouches for what is self-made: this server's, or its cluster's.
struct Own {
    file: PathBuf,
    /// The oldest first.
    listed: Vec<CertificateDer<'static>>,
}

impl Shown {
    fn from(
        identity: &Identity,
        now: SystemTime,
        notes: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        match identity {
            Identity::SelfMade { folder, names } => {
                let file = folder.join(CA_CERTIFICATE);
                if let Some(listed) = overlap::held(folder)? {
                    let made = ServerLeaves::read(folder, &listed, now).map_err(|reason| {
                        let missing = folder.join(CA_KEY);
                        ConfigError::NotSigned { present: file.clone(), missing, reason }
                    })?;
                    // Whoever keeps the cluster's certificates sees to it.
                    if let Some(reason) = made.ecdsa.due_because(names, now) {
                        notes.push(format!("the cluster is to sign a new certificate: {reason}"));
                    }
                    return Self::self_made(made, Own { file, listed });
                }
                let policy = ClientCaPolicy::default();
                let authorities = ClientAuthorities::open_or_create(folder, policy, now)?;
                for (place, made) in authorities.listed().iter().enumerate() {
                    if made.newly_made() {
                        let what = ["the client CA", "the client CA's successor"][place];
                        notes.push(format!("made {what} {}", made.info().subject));
                    }
                }
                let made = authorities.signer(now).server_leaves(names, now)?;
                for (what, leaf) in [("ECDSA", &made.ecdsa), ("RSA", &made.rsa)] {
                    if let Some(reason) = &leaf.made_because {
                        notes.push(format!("made a new {what} server certificate: {reason}"));
                    }
                }
                let known = |authority: &ClientAuthority| authority.certificate().clone();
                let listed = authorities.listed().iter().map(known).collect();
                Self::self_made(made, Own { file, listed })
            }
            Identity::Given(given) => {
                let preferred = given.certified().ok_or_else(|| {
                    rustls::Error::General(format!("{} has no key to show", given.name()))
                })?;
                let leaves = Leaves { preferred: Arc::clone(preferred), rsa: None };
                Ok(Self { leaves, infos: vec![given.info().clone()], own: None })
            }
            Identity::Files { certificate, key: key_path, key_password } => {
                let chain = store::certificates(certificate)?;
                let password = key_password.as_ref().map(|password| password.reveal());
                let key = private_key::load(key_path, password)?;
                private_key::check_pair(&chain[0], certificate, &key, key_path)?;
                let bad = |reason: String| ConfigError::BadCertificate {
                    path: certificate.clone(),
                    reason,
                };
                let info = CertificateInfo::of(&chain[0]).map_err(|error| bad(error.0))?;
                let leaves = Leaves { preferred: certified(chain, key)?, rsa: None };
                Ok(Self { leaves, infos: vec![info], own: None })
            }
        }
    }

    fn self_made(made: ServerLeaves, own: Own) -> Result<Self, ConfigError> {
        let ServerLeaves { ecdsa, rsa } = made;
        Ok(Self {
            leaves: Leaves {
                preferred: certified(vec![ecdsa.certificate], ecdsa.key)?,
                rsa: Some(certified(vec![rsa.certificate], rsa.key)?),
            },
            infos: vec![ecdsa.info, rsa.info],
            own: Some(own),
        })
    }
}

pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, ConfigError> {
    let key = provider().key_provider.load_private_key(key)?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

/// Chooses what to show by what the client can verify. The name it asked for plays no part: one
/// identity serves them all, and clients reach servers under all kinds of names.
#[derive(Debug)]
struct Leaves {
    preferred: Arc<CertifiedKey>,
    /// For clients that cannot use the preferred one.
    rsa: Option<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(rsa) = &self.rsa else {
            return Some(self.preferred.clone());
        };
        let can_verify = hello.cipher_suites().iter().any(|suite| ciphers::suits_ecdsa(*suite))
            && self.preferred.key.choose_scheme(hello.signature_schemes()).is_some();
        match can_verify {
            true => Some(self.preferred.clone()),
            false => Some(rsa.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use rustls::crypto::aws_lc_rs::cipher_suite as suite;
    use rustls::{ClientConfig, version};

    use super::*;
    use crate::certificates::{CertificateName, CertificateTable, Names};
    use crate::issue::{KeyKind, SubjectAltNames};
    use crate::settings::Secret;
    use crate::testing::{BOTH, ClientOptions, Openssl, Pair, accept, authority, self_made};

    /// Writes a new pair signed by `authority` as `server.crt` and `server.key`.
    fn write_pair(authority: &ClientAuthority, folder: &Path) -> CertificateDer<'static> {
        let names = SubjectAltNames::of(["localhost"]).unwrap();
        let made = authority.issue_server(&names, KeyKind::EcdsaP256, SystemTime::now()).unwrap();
        fs::write(folder.join("server.crt"), made.certificate_pem).unwrap();
        fs::write(folder.join("own.key"), made.key_pem).unwrap();
        made.certificate
    }

    fn from_files(folder: &Path) -> Settings {
        Settings::new(Identity::Files {
            certificate: folder.join("server.crt"),
            key: folder.join("own.key"),
            key_password: None,
        })
    }

    fn shown(acceptor: &Acceptor, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
        let mut pair = Pair::new(acceptor, client);
        pair.ping();
        pair.client.peer_certificates().unwrap()[0].clone()
    }

    #[test]
    fn a_new_certificate_is_shown_to_new_connections_only() {
        let (folder, authority) = authority();
        let client = ClientOptions::default().config(authority.certificate());
        let first = write_pair(&authority, folder.path());
        let acceptor = accept(&from_files(folder.path()));
        let mut before = Pair::new(&acceptor, &client);
        before.ping();
        assert_eq!(shown(&acceptor, &client), first);

        let second = write_pair(&authority, folder.path());
        acceptor.reload(&from_files(folder.path()), SystemTime::now()).unwrap();
        assert_eq!(shown(&acceptor, &client), second);
        assert_ne!(first, second);
        before.ping();
        let info = CertificateInfo::of(&second).unwrap();
        assert_eq!(acceptor.configuration().certificates, [info]);
    }

    #[test]
    fn a_certificate_of_the_clusters_table_can_be_shown() {
        let (folder, authority) = authority();
        let table = CertificateTable::open(folder.path()).unwrap();
        let names = Names::new("c.example", &[]).unwrap();
        table.ensure(&authority, &names, SystemTime::now()).unwrap();
        let proxy = table.get(CertificateName::Proxy).unwrap();
        let acceptor = accept(&Settings::new(Identity::Given(Arc::clone(&proxy))));
        let client = ClientOptions::default().config(authority.certificate());
        assert_eq!(shown(&acceptor, &client), proxy.chain()[0]);
        assert_eq!(acceptor.configuration().certificates, [proxy.info().clone()]);
    }

    #[test]
    fn a_reload_that_fails_says_why_and_changes_nothing() {
        let (folder, authority) = authority();
        let client = ClientOptions::default().config(authority.certificate());
        let good = write_pair(&authority, folder.path());
        let acceptor = accept(&from_files(folder.path()));
        let path = |name: &str| folder.path().join(name);
        let other = tempfile::tempdir().unwrap();
        write_pair(&authority, other.path());
        fs::copy(other.path().join("own.key"), path("other.key")).unwrap();
        fs::write(path("rubbish"), "rubbish").unwrap();

        let files = |certificate: &str, key: &str| {
            Settings::new(Identity::Files {
                certificate: path(certificate),
                key: path(key),
                key_password: None,
            })
        };
        let good_files = || files("server.crt", "own.key");
        let cases = [
            (files("none", "own.key"), "none: cannot read: No such file"),
            (files("server.crt", "none"), "none: cannot read"),
            (files("rubbish", "own.key"), "rubbish: no certificate"),
            (files("server.crt", "rubbish"), "rubbish: no private key"),
            (files("server.crt", "other.key"), "do not belong together"),
            (files("own.key", "own.key"), "own.key: no certificate"),
            (Settings { protocols: "TLSv1.1".into(), ..good_files() }, "tls-protocols: TLSv1.1 is"),
            (Settings { ciphers: "RC4".into(), ..good_files() }, "tls-ciphers: none of 'RC4'"),
            (Settings { ciphersuites: "X".into(), ..good_files() }, "tls-ciphersuites: none of"),
            (Settings { auth_clients: AuthClients::Yes, ..good_files() }, "must be specified"),
            (Settings { ca_cert_file: Some(path("none")), ..good_files() }, "none: cannot read"),
            (
                Settings {
                    auth_clients: AuthClients::Optional,
                    ca_cert_file: Some(path("rubbish")),
                    ..good_files()
                },
                "rubbish: no certificate",
            ),
        ];
        for (settings, expected) in cases {
            let error = acceptor.reload(&settings, SystemTime::now()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} / {expected}");
            assert_eq!(shown(&acceptor, &client), good);
        }
    }

    /// Connects twice; whether the second connection resumed the first one's session.
    fn resumes(acceptor: &Acceptor, client: &Arc<ClientConfig>) -> bool {
        Pair::new(acceptor, client).ping();
        let mut second = Pair::new(acceptor, client);
        second.ping();
        second.server.is_resumed()
    }

    #[test]
    fn sessions_resume_until_the_configuration_changes() {
        for version in BOTH {
            let folder = tempfile::tempdir().unwrap();
            let settings = self_made(folder.path());
            let acceptor = accept(&settings);
            let ca = store::certificates(&folder.path().join("client-ca.pem")).unwrap();
            let client =
                ClientOptions { versions: &[version], ..ClientOptions::default() }.config(&ca[0]);
            assert!(resumes(&acceptor, &client));

            acceptor.reload(&settings, SystemTime::now()).unwrap();
            let mut after = Pair::new(&acceptor, &client);
            after.ping();
            assert!(!after.server.is_resumed());
            assert!(resumes(&acceptor, &client));
        }
    }

    #[test]
    fn sessions_do_not_resume_when_caching_is_off_or_too_short() {
        for version in BOTH {
            let folder = tempfile::tempdir().unwrap();
            let mut settings = self_made(folder.path());
            settings.session_caching.enabled = false;
            let acceptor = accept(&settings);
            let ca = store::certificates(&folder.path().join("client-ca.pem")).unwrap();
            let client =
                ClientOptions { versions: &[version], ..ClientOptions::default() }.config(&ca[0]);
            assert!(!resumes(&acceptor, &client));

            settings.session_caching.enabled = true;
            settings.session_caching.timeout = Duration::ZERO;
            acceptor.reload(&settings, SystemTime::now()).unwrap();
            Pair::new(&acceptor, &client).ping();
            std::thread::sleep(Duration::from_millis(1_100));
            let mut second = Pair::new(&acceptor, &client);
            second.ping();
            assert!(!second.server.is_resumed());
        }
    }

    #[test]
    fn one_ticket_is_sent_and_it_is_small() {
        let folder = tempfile::tempdir().unwrap();
        let acceptor = accept(&self_made(folder.path()));
        let ca = store::certificates(&folder.path().join("client-ca.pem")).unwrap();
        let client = ClientOptions::default().config(&ca[0]);
        let mut pair = Pair::new(&acceptor, &client);
        let hello = pair.client_bytes();
        pair.give_server(&hello).unwrap();
        pair.give_client().unwrap();
        let finished = pair.client_bytes();
        pair.give_server(&finished).unwrap();
        assert!(pair.to_client.len() < 300, "{}", pair.to_client.len());
        pair.give_client().unwrap();
        assert_eq!(pair.client.tls13_tickets_received(), 1);
    }

    #[test]
    fn the_leaf_is_chosen_by_what_the_client_can_verify() {
        let folder = tempfile::tempdir().unwrap();
        let acceptor = accept(&self_made(folder.path()));
        let ca = store::certificates(&folder.path().join("client-ca.pem")).unwrap();
        let configuration = acceptor.configuration();
        let [ecdsa, rsa] = &configuration.certificates[..] else { panic!() };
        let cases = [
            (None, ecdsa),
            (Some(suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), rsa),
            (Some(suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384), ecdsa),
            (Some(suite::TLS13_CHACHA20_POLY1305_SHA256), ecdsa),
        ];
        for (suite, expected) in cases {
            let versions: &[_] = match suite.map(|suite| suite.tls13().is_some()) {
                None => BOTH,
                Some(true) => &[&version::TLS13],
                Some(false) => &[&version::TLS12],
            };
            let suites = suite.map(|suite| vec![suite]);
            let options = ClientOptions { versions, suites, ..ClientOptions::default() };
            let found = shown(&acceptor, &options.config(&ca[0]));
            assert_eq!(&CertificateInfo::of(&found).unwrap(), expected);
        }
        assert!(configuration.notes.iter().any(|note| note.starts_with("made the client CA")));
        assert_eq!(configuration.client_ca_file, Some(folder.path().join("client-ca.pem")));
    }

    #[test]
    fn protocols_and_ciphers_are_those_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            protocols: "TLSv1.2".into(),
            ciphers: "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:AES128-SHA".into(),
            prefer_server_ciphers: true,
            ..self_made(folder.path())
        };
        let acceptor = accept(&settings);
        let notes = &acceptor.configuration().notes;
        assert!(notes.contains(&"tls-ciphers: not supported and left out: AES128-SHA".into()));
        let ca = store::certificates(&folder.path().join("client-ca.pem")).unwrap();
        let client = ClientOptions::default().config(&ca[0]);
        let mut pair = Pair::new(&acceptor, &client);
        pair.ping();
        assert_eq!(pair.server.protocol(), "TLSv1.2");
        assert_eq!(pair.server.cipher(), "ECDHE-ECDSA-AES128-GCM-SHA256");

        let versions = &[&version::TLS13][..];
        let client = ClientOptions { versions, ..ClientOptions::default() }.config(&ca[0]);
        let error = Pair::new(&acceptor, &client).run().unwrap_err();
        assert!(matches!(error, TlsError::Incompatible(_)), "{error}");
    }

    #[test]
    fn certificates_of_version_1_and_encrypted_keys_serve() {
        let Some(openssl) = Openssl::new() else { return };
        openssl.run("genrsa -out ca.key 2048");
        openssl.run("req -x509 -new -key ca.key -subj /CN=ca -days 9 -out ca.crt");
        openssl.run("genrsa -out plain.key 2048");
        openssl.run("req -new -subj /CN=localhost -key plain.key -out a.csr");
        openssl.run("x509 -req -in a.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt");
        openssl.run("rsa -in plain.key -aes256 -passout pass:1234 -out own.key");

        let mut settings = from_files(openssl.folder());
        let error = Acceptor::new(&settings, SystemTime::now()).err().unwrap().to_string();
        assert!(error.contains("own.key") && error.contains("tls-key-file-pass"), "{error}");
        if let Identity::Files { key_password, .. } = &mut settings.identity {
            *key_password = Some(Secret::new("1234"));
        }
        let acceptor = accept(&settings);
        assert!(acceptor.start().is_ok());
    }
}

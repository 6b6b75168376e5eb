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

use crate::ca::{ClientAuthority, ServerLeaves};
use crate::ciphers;
use crate::describe::CertificateInfo;
use crate::error::{ConfigError, TlsError};
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
            client_ca_file: shown.authority.map(|authority| authority.certificate_file()),
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
    match &shown.authority {
        Some(authority) if read.certificates.is_empty() => {
            Ok(vec![authority.certificate().clone()])
        }
        _ => Ok(read.certificates),
    }
}

/// What clients are shown, and where it came from.
struct Shown {
    leaves: Leaves,
    infos: Vec<CertificateInfo>,
    authority: Option<ClientAuthority>,
}

impl Shown {
    fn from(
        identity: &Identity,
        now: SystemTime,
        notes: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        match identity {
            Identity::SelfMade { folder, names } => {
                let authority = ClientAuthority::open_or_create(folder, now)?;
                if authority.newly_made() {
                    notes.push(format!("made the client CA {}", authority.info().subject));
                }
                let made = authority.server_leaves(names, now)?;
                for (what, leaf) in [("ECDSA", &made.ecdsa), ("RSA", &made.rsa)] {
                    if let Some(reason) = &leaf.made_because {
                        notes.push(format!("made a new {what} server certificate: {reason}"));
                    }
                }
                Self::self_made(made, authority)
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
                Ok(Self { leaves, infos: vec![info], authority: None })
            }
        }
    }

    fn self_made(made: ServerLeaves, authority: ClientAuthority) -> Result<Self, ConfigError> {
        let ServerLeaves { ecdsa, rsa } = made;
        Ok(Self {
            leaves: Leaves {
                preferred: certified(vec![ecdsa.certificate], ecdsa.key)?,
                rsa: Some(certified(vec![rsa.certificate], rsa.key)?),
            },
            infos: vec![ecdsa.info, rsa.info],
            authority: Some(authority),
        })
    }
}

fn certified(
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

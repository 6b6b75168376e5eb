//! A database's side of TLS: the acceptor that its settings make, once there is one.
//!
//! A server whose folder cannot be written, and that was not asked to speak TLS in particular, serves
//! without: it has nowhere to keep a key. It says so in the log, and goes on trying when the settings change.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use carnelian_config::{Config, TransitEncryption};
use carnelian_tls::certificates::Certificate;
use carnelian_tls::{
    Acceptor, ConfigError, Configuration, Connector, Identity, Settings, TlsError, TlsSession,
};
use parking_lot::Mutex;

use crate::configure;
use crate::database::Database;
use crate::log;
use crate::server::Server;
use crate::settings::{self, given};

pub struct Encryption {
    acceptor: ArcSwapOption<Acceptor>,
    /// What the operators of the cluster ask for; nothing where there is none.
    asked: ArcSwapOption<Asked>,
    /// Where the client CA and certificates of our own making lie. It stays when `dir` changes: clients trust
    /// that CA.
    folder: PathBuf,
    /// The operator's files when they were last read.
    seen: Mutex<Files>,
    /// When they are looked at next, by the clock that nobody sets, and whether they are being looked at.
    due_ms: AtomicU64,
    looking: AtomicBool,
}

impl Encryption {
    /// None, for a database that nobody connects to.
    pub fn none() -> Self {
        Self::unread(PathBuf::new())
    }

    fn unread(folder: PathBuf) -> Self {
        Self {
            acceptor: ArcSwapOption::empty(),
            asked: ArcSwapOption::empty(),
            folder,
            seen: Mutex::default(),
            due_ms: AtomicU64::new(0),
            looking: AtomicBool::new(false),
        }
    }

    /// Reads or makes what the configuration asks for. Making keys takes some tenths of a second.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        Self::in_folder(config, &config.dir)
    }

    /// The same where what is of our own making lies in this folder.
    pub fn in_folder(config: &Config, folder: &Path) -> Result<Self, ConfigError> {
        let encryption = Self::unread(folder.to_owned());
        match encryption.reload(config) {
            // The control plane comes up beside the server, and has it signed.
            Err(error @ ConfigError::NotSigned { .. }) if crate::control::was_member(config) => {
                log::warning!("Serving without TLS until the cluster has signed: {error}");
                Ok(encryption)
            }
            Err(error) if !is_asked_for(config) => {
                log::warning!("Serving without TLS: {error}");
                Ok(encryption)
            }
            result => result.map(|()| encryption),
        }
    }

    /// Puts other settings in force for handshakes to come; where that fails, the old ones stay.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        let mut settings = settings::tls(config, &self.folder)?;
        // Before they are read: what changes meanwhile is seen next time.
        let files = Files::of(config);
        if let Some(asked) = self.asked.load_full() {
            asked.put_into(&mut settings);
        }
        match &*self.acceptor.load() {
            Some(acceptor) => acceptor.reload(&settings, SystemTime::now())?,
            None => {
                let acceptor = Acceptor::new(&settings, SystemTime::now())?;
                self.acceptor.store(Some(Arc::new(acceptor)));
            }
        }
        for note in self.configuration().iter().flat_map(|configuration| &configuration.notes) {
            log::notice!("TLS: {note}");
        }
        *self.seen.lock() = files;
        Ok(())
    }

    /// Does for new connections what the operators of the cluster ask for. Where that fails it is as before.
    pub fn follow(&self, asked: Asked, config: &Config) -> Result<(), ConfigError> {
        let before = self.asked.load_full();
        if *before.as_deref().unwrap_or(&Asked::default()) == asked {
            return Ok(());
        }
        self.asked.store(Some(Arc::new(asked)));
        self.reload(config).inspect_err(|_| self.asked.store(before))
    }

    /// Shows new connections what has been put into the folder, if that is what they are shown: what an operator has
    /// provided stays as it was read.
    pub fn renew(&self, config: &Config) -> Result<(), ConfigError> {
        let mut settings = settings::tls(config, &self.folder)?;
        if let Some(asked) = self.asked.load_full() {
            asked.put_into(&mut settings);
        }
        match settings.identity {
            Identity::SelfMade { .. } => self.reload(config),
            _ => Ok(()),
        }
    }

    /// A session for a new connection; none where the server has no certificate.
    pub fn start(&self) -> Option<Result<TlsSession, TlsError>> {
        self.acceptor.load().as_ref().map(|acceptor| acceptor.start())
    }

    /// What makes sessions in which we are the client, of the files as they are now.
    pub fn connector(&self, config: &Config) -> Result<Connector, ConfigError> {
        let settings = settings::tls(config, &self.folder)?;
        Connector::new(&settings, settings::client_identity(config).as_ref())
    }

    /// What is in force.
    pub fn configuration(&self) -> Option<Arc<Configuration>> {
        self.acceptor.load().as_ref().map(|acceptor| acceptor.configuration())
    }
}

/// `tls-auto-reload-interval`: looks at the operator's files when it is time to, on a thread of its own, since a file
/// may be slow to reach. Connections that are open stay as they are.
pub fn tick(server: &Arc<Server>, database: &Arc<Database>, interval_ms: u64, now_ms: u64) {
    let tls = &database.tls;
    if now_ms < tls.due_ms.load(Ordering::Relaxed) || tls.looking.swap(true, Ordering::Relaxed) {
        return;
    }
    tls.due_ms.store(now_ms.saturating_add(interval_ms), Ordering::Relaxed);
    let (server, other) = (Arc::clone(server), Arc::clone(database));
    let look = move || {
        let files = Files::of(&other.config());
        let has_changed = *other.tls.seen.lock() != files;
        if has_changed && !configure::reload_certificates(&server, &other) {
            // Those that will not do are not tried again before they change.
            *other.tls.seen.lock() = files;
        }
        other.tls.looking.store(false, Ordering::Relaxed);
    };
    if std::thread::Builder::new().name("tls-files".into()).spawn(look).is_err() {
        tls.looking.store(false, Ordering::Relaxed);
    }
}

/// What can be told of files without reading them: path, place, time of the last change, and length.
#[derive(Default, PartialEq, Eq)]
struct Files(Vec<(PathBuf, Option<[u64; 5]>)>);

impl Files {
    /// Those that the operator has named.
    fn of(config: &Config) -> Self {
        let named = [&config.tls_cert_file, &config.tls_key_file, &config.tls_ca_cert_file];
        let in_dir = |path: &PathBuf| given(path).map(|path| config.dir.join(path));
        let mut paths: Vec<PathBuf> = named.into_iter().filter_map(in_dir).collect();
        if let Some(folder) = in_dir(&config.tls_ca_cert_dir)
            && let Ok(entries) = std::fs::read_dir(folder)
        {
            paths.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())));
        }
        paths.sort_unstable();
        let look = |path: PathBuf| {
            let seen = std::fs::metadata(&path).ok().map(|it| {
                let (seconds, rest) = (it.mtime().cast_unsigned(), it.mtime_nsec().cast_unsigned());
                [it.dev(), it.ino(), seconds, rest, it.len()]
            });
            (path, seen)
        };
        Self(paths.into_iter().map(look).collect())
    }
}

/// What a cluster asks of the encryption of its databases.
#[derive(Clone, Default)]
pub struct Asked {
    /// What clients are shown, unless files are configured for that; without it, something of our own making.
    pub certificate: Option<Arc<Certificate>>,
    /// Nothing older than TLS 1.3.
    pub only_newest: bool,
    /// Lists of OpenSSL's for TLS 1.2 and 1.3, where the configuration has none; empty for any.
    pub ciphers: String,
    pub ciphersuites: String,
}

impl Asked {
    fn put_into(&self, settings: &mut Settings) {
        if let (Identity::SelfMade { .. }, Some(certificate)) =
            (&settings.identity, &self.certificate)
        {
            settings.identity = Identity::Given(Arc::clone(certificate));
        }
        if self.only_newest {
            settings.protocols = "TLSv1.3".to_owned();
        }
        if settings.ciphers.is_empty() {
            settings.ciphers.clone_from(&self.ciphers);
        }
        if settings.ciphersuites.is_empty() {
            settings.ciphersuites.clone_from(&self.ciphersuites);
        }
    }
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        let shown = |one: &Self| one.certificate.as_ref().map(|it| it.certificate_pem());
        let rest = |one: &Self| (one.only_newest, one.ciphers.clone(), one.ciphersuites.clone());
        shown(self) == shown(other) && rest(self) == rest(other)
    }
}

/// Whether to serve without TLS would be other than what the operator wants.
fn is_asked_for(config: &Config) -> bool {
    config.tls_port != 0
        || given(&config.tls_cert_file).is_some()
        || config.transit_encryption_mode == TransitEncryption::Required
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_place_for_keys_only_what_asks_for_tls_fails() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut config = Config { dir: file.join("none"), ..Config::default() };
        let encryption = Encryption::new(&config).unwrap();
        assert!(encryption.start().is_none() && encryption.configuration().is_none());
        config.tls_port = 1;
        assert!(Encryption::new(&config).is_err());
    }

    #[test]
    fn the_authority_stays_when_the_folder_changes() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut config = Config { dir: first.path().to_owned(), ..Config::default() };
        let encryption = Encryption::new(&config).unwrap();
        let authority = || encryption.configuration().unwrap().client_ca_file.clone();
        let before = authority();
        config.dir = second.path().to_owned();
        encryption.reload(&config).unwrap();
        assert_eq!(authority(), before);
    }
}

//! A database's side of TLS: the acceptor that its settings make, once there is one.
//!
//! A server whose folder cannot be written, and that was not asked to speak TLS in particular, serves
//! without: it has nowhere to keep a key. It says so in the log, and goes on trying when the settings change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use carnelian_config::{Config, TransitEncryption};
use carnelian_tls::certificates::Certificate;
use carnelian_tls::{
    Acceptor, ConfigError, Configuration, Connector, Identity, TlsError, TlsSession,
};

use crate::log;
use crate::settings::{self, given};

pub struct Encryption {
    acceptor: ArcSwapOption<Acceptor>,
    /// What the operators of the cluster want clients to see, where no file says what is shown.
    provided: ArcSwapOption<Certificate>,
    /// Where the client CA and certificates of our own making lie. It stays when `dir` changes: clients trust
    /// that CA.
    folder: PathBuf,
}

impl Encryption {
    /// None, for a database that nobody connects to.
    pub fn none() -> Self {
        Self {
            acceptor: ArcSwapOption::empty(),
            provided: ArcSwapOption::empty(),
            folder: PathBuf::new(),
        }
    }

    /// Reads or makes what the configuration asks for. Making keys takes some tenths of a second.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        Self::in_folder(config, &config.dir)
    }

    /// The same where what is of our own making lies in this folder.
    pub fn in_folder(config: &Config, folder: &Path) -> Result<Self, ConfigError> {
        let encryption = Self {
            acceptor: ArcSwapOption::empty(),
            provided: ArcSwapOption::empty(),
            folder: folder.to_owned(),
        };
        match encryption.reload(config) {
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
        if let Identity::SelfMade { .. } = settings.identity
            && let Some(provided) = self.provided.load_full()
        {
            settings.identity = Identity::Given(provided);
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
        Ok(())
    }

    /// Shows clients this certificate from now on, or one of our own making; unless files are configured, which
    /// come before both.
    pub fn show(
        &self,
        certificate: Option<Arc<Certificate>>,
        config: &Config,
    ) -> Result<(), ConfigError> {
        let chain = |one: &Option<Arc<Certificate>>| one.as_ref().map(|it| it.certificate_pem());
        let before = self.provided.load_full();
        if chain(&before) == chain(&certificate) {
            return Ok(());
        }
        self.provided.store(certificate);
        self.reload(config).inspect_err(|_| self.provided.store(before))
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

//! What the tests of this crate share: a throw-away authority, clients in memory, and OpenSSL as a
//! second opinion.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};
use tempfile::TempDir;

use crate::acceptor::Acceptor;
use crate::ca::ClientAuthority;
use crate::error::TlsError;
use crate::issue::{Issued, SubjectAltNames};
use crate::provider::provider;
use crate::session::{Received, TlsSession};
use crate::settings::{Identity, Settings};

pub(crate) const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// A new authority in a folder of its own.
pub(crate) fn authority() -> (TempDir, ClientAuthority) {
    let folder = tempfile::tempdir().unwrap();
    let authority = ClientAuthority::open_or_create(folder.path(), SystemTime::now()).unwrap();
    (folder, authority)
}

/// Settings that make their own identity in `folder`, for `localhost`.
pub(crate) fn self_made(folder: &Path) -> Settings {
    let names = SubjectAltNames::for_listening(&[], ["*.cache.example"]).unwrap();
    Settings::new(Identity::SelfMade { folder: folder.to_owned(), names })
}

pub(crate) fn accept(settings: &Settings) -> Acceptor {
    Acceptor::new(settings, SystemTime::now()).unwrap()
}

/// How to configure a client.
pub(crate) struct ClientOptions<'a> {
    pub(crate) versions: &'a [&'static SupportedProtocolVersion],
    pub(crate) identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    pub(crate) suites: Option<Vec<rustls::SupportedCipherSuite>>,
}

impl Default for ClientOptions<'_> {
    fn default() -> Self {
        Self { versions: BOTH, identity: None, suites: None }
    }
}

impl ClientOptions<'_> {
    pub(crate) fn identity_of(issued: &Issued) -> Self {
        let identity = Some((vec![issued.certificate.clone()], issued.key.clone_key()));
        Self { identity, ..Self::default() }
    }

    pub(crate) fn config(self, ca: &CertificateDer<'static>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).unwrap();
        let mut provider = rustls::crypto::CryptoProvider::clone(provider());
        if let Some(suites) = self.suites {
            provider.cipher_suites = suites;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match self.identity {
            // Not `with_client_auth_cert`, which refuses certificates of version 1.
            Some((chain, key)) => {
                let key = CertifiedKey::new(
                    chain,
                    crate::provider().key_provider.load_private_key(key).unwrap(),
                );
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
            None => builder.with_no_client_auth(),
        })
    }
}

/// A client and a session of ours, joined by buffers.
pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: TlsSession,
    /// All plaintext the server has received.
    pub(crate) received: Vec<u8>,
    /// Bytes from the server not yet given to the client.
    pub(crate) to_client: Vec<u8>,
    pub(crate) events: Vec<Received>,
    /// How many bytes the server gets at a time.
    pub(crate) chunk: usize,
}

impl Pair {
    pub(crate) fn new(acceptor: &Acceptor, client: &Arc<ClientConfig>) -> Self {
        Self::named(acceptor, client, "localhost")
    }

    pub(crate) fn named(acceptor: &Acceptor, client: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self {
            client: ClientConnection::new(client.clone(), name).unwrap(),
            server: acceptor.start().unwrap(),
            received: Vec::new(),
            to_client: Vec::new(),
            events: Vec::new(),
            chunk: usize::MAX,
        }
    }

    /// What the client has to say now.
    pub(crate) fn client_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Gives bytes to the server in chunks.
    pub(crate) fn give_server(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        let mut bytes = bytes.to_vec();
        for chunk in bytes.chunks_mut(self.chunk.min(1 << 30)) {
            let event = self.server.receive(chunk, &mut self.received, &mut self.to_client)?;
            self.events.push(event);
        }
        Ok(())
    }

    /// Gives the client all there is for it.
    pub(crate) fn give_client(&mut self) -> Result<(), rustls::Error> {
        let bytes = std::mem::take(&mut self.to_client);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// Passes bytes both ways until neither side has any.
    pub(crate) fn run(&mut self) -> Result<(), TlsError> {
        loop {
            let bytes = self.client_bytes();
            if bytes.is_empty() && self.to_client.is_empty() {
                return Ok(());
            }
            let result = self.give_server(&bytes);
            let answered = self.give_client();
            result?;
            answered.map_err(TlsError::Misbehaved)?;
        }
    }

    /// One request and its answer, which shows that both directions work.
    pub(crate) fn ping(&mut self) {
        self.run().unwrap();
        self.received.clear();
        self.client.writer().write_all(b"PING\r\n").unwrap();
        self.run().unwrap();
        assert_eq!(self.received, b"PING\r\n");
        self.server.send(b"+PONG\r\n", &mut self.to_client).unwrap();
        self.give_client().unwrap();
        let mut answer = [0; 7];
        self.client.reader().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    }
}

/// The `openssl` program, run in a folder of its own. Tests that need it pass without it, unless
/// `CARNELIAN_REQUIRE_PEERS` is set.
pub(crate) struct Openssl {
    folder: TempDir,
}

impl Openssl {
    pub(crate) fn new() -> Option<Self> {
        let is_there = Command::new("openssl").arg("version").output().is_ok();
        if !is_there {
            let required = std::env::var_os("CARNELIAN_REQUIRE_PEERS").is_some();
            assert!(!required, "openssl is not installed");
            return None;
        }
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn run(&self, arguments: &str) {
        self.run_with_input(arguments, b"");
    }

    pub(crate) fn run_with_input(&self, arguments: &str, input: &[u8]) {
        let mut child = Command::new("openssl")
            .args(arguments.split(' ').map(|argument| argument.replace('~', " ")))
            .current_dir(self.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {errors}");
    }
}

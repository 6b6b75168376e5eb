//! The three ways to a server: TCP, TLS, a unix socket.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

/// How long a read may wait before a test is declared stuck.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An open byte stream to a server.
pub enum Transport {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

/// What a TLS client trusts and presents.
#[derive(Clone)]
pub struct TlsOptions {
    pub ca: PathBuf,
    pub identity: Option<(PathBuf, PathBuf)>,
    pub server_name: String,
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

impl TlsOptions {
    pub fn trusting(ca: impl AsRef<Path>) -> Self {
        Self {
            ca: ca.as_ref().to_owned(),
            identity: None,
            server_name: "127.0.0.1".into(),
            versions: rustls::ALL_VERSIONS.to_vec(),
        }
    }

    pub fn identity(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.identity = Some((certificate.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = name.into();
        self
    }

    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub fn config(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca)
            .with_context(|| format!("reading {}", self.ca.display()))?
        {
            roots.add(certificate?)?;
        }
        let builder = ClientConfig::builder_with_protocol_versions(&self.versions)
            .with_root_certificates(roots);
        Ok(match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(&fs::read(certificate)?)
                    .collect::<Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
            }
        })
    }

    pub fn connection(&self) -> Result<ClientConnection> {
        let name = ServerName::try_from(self.server_name.clone())?;
        Ok(ClientConnection::new(Arc::new(self.config()?), name)?)
    }
}

impl Transport {
    pub fn tcp(port: u16) -> Result<Self> {
        Ok(Self::Tcp(socket(port)?))
    }

    /// A TLS stream whose handshake is done.
    pub fn tls(port: u16, options: &TlsOptions) -> Result<Self> {
        Self::tls_over(socket(port)?, options)
    }

    /// The same over a connection that is there.
    pub fn tls_over(mut socket: TcpStream, options: &TlsOptions) -> Result<Self> {
        let mut connection = options.connection()?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).context("TLS handshake")?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    pub fn unix(path: impl AsRef<Path>) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::Unix(stream))
    }

    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Tls(stream) => stream.sock.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    /// Says that nothing more will be sent, and keeps reading.
    pub fn finish_writing(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()
            }
        }
    }

    /// The TLS session, if there is one.
    pub fn session(&self) -> Option<&ClientConnection> {
        match self {
            Self::Tls(stream) => Some(&stream.conn),
            _ => None,
        }
    }
}

fn socket(port: u16) -> Result<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", port))
        .with_context(|| format!("connecting to port {port}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

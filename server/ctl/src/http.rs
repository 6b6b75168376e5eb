//! One request, one connection, one answer: as much of HTTP as a command line needs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use serde_json::Value;

const CONNECT: Duration = Duration::from_secs(10);
/// The longest that an answer may take: some wait for work on all nodes.
const PATIENCE: Duration = Duration::from_secs(120);
/// More than any answer has.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Clone, Debug)]
pub enum Target {
    /// The socket in a node's data folder.
    Local(PathBuf),
    Remote {
        host: String,
        port: u16,
        trust: Trust,
    },
}

#[derive(Clone, Debug)]
pub enum Trust {
    /// PEM.
    Authorities(Vec<u8>),
    /// `-k`
    Anybody,
}

pub struct Client {
    target: Target,
    credentials: Option<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub bytes: Vec<u8>,
}

impl Client {
    pub fn new(target: Target, credentials: Option<(String, String)>) -> Self {
        Self { target, credentials }
    }

    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.json("GET", path, None)
    }

    pub fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json("PUT", path, Some(body))
    }

    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json("POST", path, Some(body))
    }

    /// The document of an answer; a refusal is an error with what it says.
    pub fn json(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = self.send(method, path, body)?;
        let document: Value = serde_json::from_slice(&answer.bytes)
            .with_context(|| format!("{method} {path}: status {}, and no JSON", answer.status))?;
        if answer.status < 300 {
            return Ok(document);
        }
        let said = ["description", "message"].iter().find_map(|name| document.get(name)?.as_str());
        match (said, document.get("error_code").and_then(Value::as_str)) {
            (Some(said), Some(code)) => bail!("{said} ({code})"),
            (Some(said), None) => bail!("{said}"),
            (None, Some(code)) => bail!("{code}"),
            (None, None) => bail!("{method} {path}: status {}", answer.status),
        }
    }

    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host());
        if let Some((user, password)) = &self.credentials {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            request.push_str(&format!("Authorization: Basic {pair}\r\n"));
        }
        request.push_str("Content-Type: application/json\r\nConnection: close\r\n");
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        match &self.target {
            Target::Local(path) => {
                let stream = UnixStream::connect(path)
                    .with_context(|| format!("no node answers at {}", path.display()))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                exchange(stream, request.as_bytes())
            }
            Target::Remote { host, port, trust } => {
                let stream = connect(host, *port)?;
                let name = ServerName::try_from(host.clone())
                    .with_context(|| format!("{host:?} is no name of a host"))?;
                let connection = ClientConnection::new(configuration(trust)?, name)?;
                exchange(StreamOwned::new(connection, stream), request.as_bytes())
                    .with_context(|| format!("{host}:{port}"))
            }
        }
    }

    fn host(&self) -> &str {
        match &self.target {
            Target::Local(_) => "localhost",
            Target::Remote { host, .. } => host,
        }
    }
}

fn connect(host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let addresses: Vec<_> = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))
        .with_context(|| format!("{host} has no address"))?
        .collect();
    let mut last = None;
    for address in &addresses {
        match TcpStream::connect_timeout(address, CONNECT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("{host}:{port} cannot be reached")),
        None => bail!("{host} has no address"),
    }
}

fn configuration(trust: &Trust) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Authorities(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                // A bundle of the system may hold some that cannot be used.
                let _ = roots.add(certificate.context("the file of authorities is not PEM")?);
            }
            if roots.is_empty() {
                bail!("the file of authorities has no certificate");
            }
            builder.with_root_certificates(roots)
        }
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        }
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> anyhow::Result<Answer> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut bytes = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
    // Some close without taking leave; the length tells whether anything is missing.
    if let Err(error) = read
        && error.kind() != std::io::ErrorKind::UnexpectedEof
    {
        return Err(error).context("the answer did not arrive");
    }
    parse(&bytes)
}

/// An answer that was read to its end.
fn parse(bytes: &[u8]) -> anyhow::Result<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.context("the answer is not HTTP")?;
    let head = std::str::from_utf8(&bytes[..end]).context("the answer is not HTTP")?;
    let body = &bytes[end + 4..];
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok())
        .context("the answer is not HTTP")?;
    let mut length = None;
    let mut chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.to_ascii_lowercase().contains("chunked");
        }
    }
    let bytes = match (chunked, length) {
        (true, _) => unchunk(body).context("the answer is not whole")?,
        (false, Some(length)) => body.get(..length).context("the answer is not whole")?.to_vec(),
        (false, None) => body.to_vec(),
    };
    Ok(Answer { status, bytes })
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&body[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        body = &body[end + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// Takes whatever certificate it is shown: `-k`.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let read = |text: &str| parse(text.as_bytes()).map(|it| (it.status, it.bytes));
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(read(plain).unwrap(), (200, b"{}".to_vec()));
        let chunks =
            "HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\n\r\n";
        assert_eq!(read(chunks).unwrap(), (404, b"{}".to_vec()));
        for wrong in [
            "",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

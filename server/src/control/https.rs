//! Asking a member of a cluster over HTTPS, as an admin: what a node that joins has to do before it has
//! certificates. One request a connection; all of it waits, so it is for threads that may.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carnelian_admin::Secret;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use serde_json::Value;
use zeroize::Zeroizing;

const DEFAULT_PORT: u16 = 9443;

/// For a connection, and for each part of an answer. Whoever signs may have a lot to do.
const CONNECT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// No answer to what is asked here is longer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A member, and who asks.
#[derive(Clone)]
pub struct Remote {
    host: String,
    port: u16,
    user: String,
    password: Secret,
    configuration: Arc<ClientConfig>,
}

/// Why there is no answer to go on with.
#[derive(Debug)]
pub enum Failure {
    /// Nobody is there, or not somebody to talk to.
    Unreachable(String),
    /// The credentials are not those of an admin.
    Denied(String),
    /// It does not want that.
    Refused(String),
}

impl Remote {
    /// `place` is `host` or `host:port`. Without authorities, in PEM, whatever certificate it shows is taken.
    pub fn new(
        place: &str,
        user: &str,
        password: &Secret,
        authorities: Option<&str>,
    ) -> Result<Self, Failure> {
        let wrong = || Failure::Refused(format!("{place:?} is no host or host:port"));
        let (host, port) = parse(place).ok_or_else(wrong)?;
        Ok(Self {
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            password: password.clone(),
            configuration: configuration(authorities).map_err(Failure::Refused)?,
        })
    }

    pub async fn post(&self, path: String, body: Value) -> Result<Value, Failure> {
        self.ask("POST", path, Some(body)).await
    }

    pub async fn delete(&self, path: String) -> Result<Value, Failure> {
        self.ask("DELETE", path, None).await
    }

    async fn ask(
        &self,
        method: &'static str,
        path: String,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let remote = self.clone();
        let asking = tokio::task::spawn_blocking(move || remote.send(method, &path, body));
        asking.await.map_err(|error| Failure::Unreachable(error.to_string()))?
    }

    fn send(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let (status, bytes) = self
            .exchange(method, path, body)
            .map_err(|reason| Failure::Unreachable(format!("{self}: {reason}")))?;
        let document = serde_json::from_slice::<Value>(&bytes).unwrap_or_default();
        let said = ["description", "message", "error_code"];
        let said = said.iter().find_map(|name| document.get(name)?.as_str());
        let said = || format!("{self}: {}", said.map_or(format!("status {status}"), str::to_owned));
        match status {
            200..300 => Ok(document),
            401 | 403 => Err(Failure::Denied(said())),
            503 => Err(Failure::Unreachable(said())),
            _ => Err(Failure::Refused(said())),
        }
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, Zeroizing<Vec<u8>>), String> {
        let failed = |error: std::io::Error| error.to_string();
        let pair = Zeroizing::new(format!("{}:{}", self.user, self.password.0));
        let credentials = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Zeroizing::new(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {}\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            credentials.as_str(),
            body.len()
        ));
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let connection = ClientConnection::new(Arc::clone(&self.configuration), name)
            .map_err(|error| error.to_string())?;
        let mut stream = StreamOwned::new(connection, self.connect()?);
        stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(failed)?;
        let mut bytes = Zeroizing::new(Vec::new());
        let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
        // Some close without taking leave; the length tells whether anything is missing.
        if let Err(error) = read
            && error.kind() != std::io::ErrorKind::UnexpectedEof
        {
            return Err(failed(error));
        }
        answer(&bytes).ok_or_else(|| "the answer is not whole, or no HTTP".to_owned())
    }

    fn connect(&self) -> Result<TcpStream, String> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let mut last = "no address for this name".to_owned();
        for address in addresses.map_err(|error| error.to_string())? {
            let connected = TcpStream::connect_timeout(&address, CONNECT).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(stream)
            });
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// An address of IPv6 may stand without brackets if no port follows.
fn parse(place: &str) -> Option<(&str, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (place, None),
        },
    };
    let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
    (!host.is_empty() && port != 0).then_some((host, port))
}

/// Status and body of an answer that was read to its end. Members of a cluster always give a length.
fn answer(bytes: &[u8]) -> Option<(u16, Zeroizing<Vec<u8>>)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body = bytes[end + 4..].get(..length.unwrap_or(0))?;
    Some((status, Zeroizing::new(body.to_vec())))
}

fn configuration(authorities: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match authorities {
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| format!("trusted_ca: {error}"))?;
                roots.add(certificate).map_err(|error| format!("trusted_ca: {error}"))?;
            }
            if roots.is_empty() {
                return Err("trusted_ca: no certificate is in it".to_owned());
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// Takes whatever certificate it is shown, if only who shows it has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
    fn a_place_is_a_host_and_perhaps_a_port() {
        assert_eq!(parse("a.b"), Some(("a.b", 9443)));
        assert_eq!(parse("10.0.0.1:7"), Some(("10.0.0.1", 7)));
        assert_eq!(parse("[::1]:7"), Some(("::1", 7)));
        assert_eq!(parse("[::1]"), Some(("::1", 9443)));
        assert_eq!(parse("::1"), Some(("::1", 9443)));
        for wrong in ["", ":7", "a:", "a:0", "a:x", "[::1", "[::1]7", "a:65536"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_whole_answers_are_taken() {
        let status =
            |text: &str| answer(text.as_bytes()).map(|(status, body)| (status, body.len()));
        assert_eq!(status("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Some((200, 2)));
        assert_eq!(status("HTTP/1.1 204 No Content\r\n\r\n"), Some((204, 0)));
        for wrong in
            ["", "HTTP/1.1 200", "SSH\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"]
        {
            assert_eq!(status(wrong), None, "{wrong}");
        }
    }
}

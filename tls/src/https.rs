//! The client's end of HTTPS, as much of it as administering a node takes: whom to believe, and one request with
//! its answer over a connection of their own. All of it waits, so it is for threads that may.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use zeroize::Zeroizing;

use crate::provider::provider;
use crate::trust::{all_schemes, checks_signatures};

/// Whose certificates are taken.
#[derive(Clone, Copy, Debug)]
pub enum Believe<'a> {
    /// Those that these vouch for, in PEM.
    Authorities(&'a [u8]),
    /// Whatever is shown, if only who shows it has its key.
    Anybody,
}

/// How long a connection may take, and each part of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub connecting: Duration,
    pub answering: Duration,
}

/// What came back. It may be a secret.
#[derive(Debug, Eq, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Zeroizing<Vec<u8>>,
}

/// Settings for [`over_tls`].
pub fn client_config(whom: Believe<'_>) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match whom {
        Believe::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)),
        Believe::Authorities(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| format!("no PEM: {error}"))?;
                // A bundle of the system may hold some that cannot be used.
                let _ = roots.add(certificate);
            }
            if roots.is_empty() {
                return Err("no certificate is in it".to_owned());
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// Connects to the first of a host's addresses that answers.
pub fn connect(host: &str, port: u16, patience: Patience) -> io::Result<TcpStream> {
    let mut last = io::Error::other("no address for this name");
    for address in (host, port).to_socket_addrs()? {
        let connected = TcpStream::connect_timeout(&address, patience.connecting);
        let connected = connected.and_then(|stream| {
            stream.set_read_timeout(Some(patience.answering))?;
            stream.set_write_timeout(Some(patience.answering))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The same connection under TLS, with a server of this name or address.
pub fn over_tls(
    config: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| invalid(format!("{host:?} is no name of a host")))?;
    let connection =
        ClientConnection::new(config, name).map_err(|error| invalid(error.to_string()))?;
    Ok(StreamOwned::new(connection, stream))
}

/// Sends a request that asks for `Connection: close`, and reads the answer to its end.
pub fn exchange(
    mut stream: impl Read + Write,
    request: &[u8],
    bytes_max: u64,
) -> io::Result<Answer> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut bytes = Zeroizing::new(Vec::new());
    let read = stream.take(bytes_max).read_to_end(&mut bytes);
    // Some close without taking leave; the length tells whether anything is missing.
    if let Err(error) = read
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        return Err(error);
    }
    let broken =
        || io::Error::new(io::ErrorKind::InvalidData, "the answer is not whole, or no HTTP");
    parse(&bytes).ok_or_else(broken)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 4..];
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut length = None;
    let mut is_chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked = value.to_ascii_lowercase().contains("chunked");
        }
    }
    let body = match (is_chunked, length) {
        (true, _) => unchunk(body)?,
        (false, Some(length)) => Zeroizing::new(body.get(..length)?.to_vec()),
        (false, None) => Zeroizing::new(body.to_vec()),
    };
    Some(Answer { status, body })
}

fn unchunk(mut body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // Never longer than what it is made of, so that no copy is left behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(body.len()));
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

/// Asks for nothing but the key of the certificate that is shown.
#[derive(Debug)]
pub struct Anybody;

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

    checks_signatures!(all_schemes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_answers_are_taken() {
        let read = |text: &str| parse(text.as_bytes()).map(|it| (it.status, it.body.to_vec()));
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(read(plain), Some((200, b"{}".to_vec())));
        let chunks =
            "HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\n\r\n";
        assert_eq!(read(chunks), Some((404, b"{}".to_vec())));
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n"), Some((204, Vec::new())));
        for wrong in [
            "",
            "HTTP/1.1 200",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn authorities_have_to_be_some() {
        assert!(client_config(Believe::Authorities(b"")).is_err());
        assert!(client_config(Believe::Authorities(b"-----BEGIN CERTIFICATE-----")).is_err());
        assert!(client_config(Believe::Anybody).is_ok());
    }
}

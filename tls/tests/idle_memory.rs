//! What an idle TLS connection costs: resident memory of the process, so that the cryptography's
//! own allocations (which no Rust allocator sees) are in it.

#![allow(clippy::unwrap_used)] // all of this is a test, helpers included

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

use carnelian_tls::rustls::pki_types::pem::PemObject;
use carnelian_tls::rustls::pki_types::{CertificateDer, ServerName};
use carnelian_tls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version,
};
use carnelian_tls::{Acceptor, Identity, Settings, SubjectAltNames, TlsSession, provider};

/// The server's budget for an idle connection is 12 KiB with everything; the session may take this.
const SESSION_BYTES_MAX: usize = 8 * 1024;

#[test]
fn an_idle_session_stays_within_its_budget() {
    let folder = tempfile::tempdir().unwrap();
    let names = SubjectAltNames::for_listening::<&str>(&[], []).unwrap();
    let identity = Identity::SelfMade { folder: folder.path().to_owned(), names };
    let acceptor = Acceptor::new(&Settings::new(identity), SystemTime::now()).unwrap();
    let ca = CertificateDer::from_pem_file(folder.path().join("client-ca.pem")).unwrap();

    // All of them stay until the end: the second kind must not move into the first one's place.
    let mut sessions: Vec<Box<TlsSession>> = Vec::with_capacity(4096);
    for (version, name) in [(&version::TLS13, "TLS 1.3"), (&version::TLS12, "TLS 1.2")] {
        let client = client(version, ca.clone());
        // What the first handshakes allocate for good, and holes they leave, are not a session's.
        sessions.extend((0..200).map(|_| established(&acceptor, &client)));
        let before = resident_bytes();
        sessions.extend((0..1_000).map(|_| established(&acceptor, &client)));
        let each = resident_bytes().saturating_sub(before) / 1_000;
        println!(
            "{name}: {each} resident bytes per idle session, of which {} inline",
            size_of::<TlsSession>()
        );
        assert!(each <= SESSION_BYTES_MAX, "{name}: {each}");
        assert!(sessions.iter().all(|session| session.held_bytes() == 0));
    }
}

fn client(
    version: &'static SupportedProtocolVersion,
    ca: CertificateDer<'static>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca).unwrap();
    let config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A session after its handshake, a request of a few KiB and the answer to it.
fn established(acceptor: &Acceptor, client: &Arc<ClientConfig>) -> Box<TlsSession> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut session = Box::new(acceptor.start().unwrap());
    let (mut plaintext, mut outgoing) = (Vec::new(), Vec::new());
    client.writer().write_all(&[b'x'; 5_000]).unwrap();
    while plaintext.len() < 5_000 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        for part in bytes.chunks_mut(1_000) {
            session.receive(part, &mut plaintext, &mut outgoing).unwrap();
        }
        let mut rest = &outgoing[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
        outgoing.clear();
    }
    session.send(b"+OK\r\n", &mut outgoing).unwrap();
    let mut rest = &outgoing[..];
    client.read_tls(&mut rest).unwrap();
    client.process_new_packets().unwrap();
    let mut answer = [0; 5];
    client.reader().read_exact(&mut answer).unwrap();
    session
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

//! The server's end of TLS where it is the client: links to a primary. As with
//! [`TlsSession`](crate::TlsSession) that is bytes in and bytes out; the caller has the socket.
//!
//! The chain of a primary's certificate is verified as strictly as a client's. Its name is not
//! looked at, as Redis does not: primaries are followed by whatever address leads to them (of a
//! container, of a proxy, of what a sentinel found), and their certificates seldom name it. So whoever
//! holds a certificate for a server signed by a trusted authority can pass for the primary: let that
//! authority sign for nobody else.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, Error, OtherError};

use crate::acceptor::certified;
use crate::ca::CA_CERTIFICATE;
use crate::ciphers;
use crate::error::{ConfigError, TlsError};
use crate::issue::Purpose;
use crate::private_key;
use crate::provider::provider;
use crate::session::Received;
use crate::settings::{Identity, Settings};
use crate::store;
use crate::trust::{Anchors, Trusted, all_schemes, checks_signatures};

/// Starts sessions in which we are the client.
pub struct Connector {
    config: Arc<ClientConfig>,
}

impl Connector {
    /// Of a server with these settings. `identity` is the certificate that is shown where the other
    /// side asks for one; without it, that of the settings is, unless it is of our own making.
    pub fn new(settings: &Settings, identity: Option<&Identity>) -> Result<Self, ConfigError> {
        let protocols = ciphers::protocols(&settings.protocols)?;
        let tls12 = ciphers::tls12(&settings.ciphers)?;
        let tls13 = ciphers::tls13(&settings.ciphersuites)?;
        let provider = CryptoProvider {
            cipher_suites: [tls13.chosen, tls12.chosen].concat(),
            ..CryptoProvider::clone(provider())
        };
        let verifier = Arc::new(ServerVerifier { anchors: Anchors::new(&trusted(settings)?)? });
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&protocols.chosen)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity.unwrap_or(&settings.identity) {
            Identity::SelfMade { .. } => builder.with_no_client_auth(),
            Identity::Given(given) => match given.certified() {
                Some(shown) => {
                    let shown = SingleCertAndKey::from(Arc::clone(shown));
                    builder.with_client_cert_resolver(Arc::new(shown))
                }
                None => builder.with_no_client_auth(),
            },
            Identity::Files { certificate, key: key_path, key_password } => {
                let chain = store::certificates(certificate)?;
                let password = key_password.as_ref().map(|password| password.reveal());
                let key = private_key::load(key_path, password)?;
                private_key::check_pair(&chain[0], certificate, &key, key_path)?;
                // Not `with_client_auth_cert`, which refuses certificates of version 1.
                let shown = SingleCertAndKey::from(certified(chain, key)?);
                builder.with_client_cert_resolver(Arc::new(shown))
            }
        };
        // The name we give is not the primary's.
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config) })
    }

    /// A session for a new connection, and the first bytes to send.
    pub fn start(&self) -> Result<(OutgoingSession, Vec<u8>), TlsError> {
        let nobody = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let engine = ClientConnection::new(Arc::clone(&self.config), nobody)?;
        let mut session = OutgoingSession { engine };
        // The caller sends at once whatever there is to send.
        session.engine.set_buffer_limit(None);
        let mut outgoing = Vec::new();
        session.take_outgoing(&mut outgoing);
        Ok((session, outgoing))
    }
}

/// Who may have signed a primary's certificate. With a self-made identity and no authority named it
/// is our own, so that servers that were given the same one can follow each other.
fn trusted(settings: &Settings) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let read = Trusted::read(settings.ca_cert_file.as_deref(), settings.ca_cert_dir.as_deref())?;
    match &settings.identity {
        Identity::SelfMade { folder, .. } if read.certificates.is_empty() => {
            store::certificates(&folder.join(CA_CERTIFICATE))
        }
        _ if read.certificates.is_empty() => Err(ConfigError::NothingToTrustPrimaries),
        _ => Ok(read.certificates),
    }
}

/// One connection's TLS, seen from the client.
pub struct OutgoingSession {
    engine: ClientConnection,
}

impl OutgoingSession {
    /// Takes all of `ciphertext`. Appends what it completes to `plaintext`, and what must be sent
    /// in answer to `outgoing`, on errors too.
    pub fn receive(
        &mut self,
        mut ciphertext: &[u8],
        plaintext: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> Result<Received, TlsError> {
        let was_handshaking = self.engine.is_handshaking();
        let mut closed = false;
        while !ciphertext.is_empty() && !closed {
            let result = self.receive_some(&mut ciphertext, plaintext);
            self.take_outgoing(outgoing);
            closed = result?;
        }
        let handshake_finished = was_handshaking && !self.engine.is_handshaking();
        Ok(Received { handshake_finished, closed })
    }

    /// Whether the other side has said that nothing more comes.
    fn receive_some(
        &mut self,
        ciphertext: &mut &[u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<bool, TlsError> {
        // It reads from memory, and there is room: all plaintext has been taken.
        if self.engine.read_tls(ciphertext).map_err(refused)? == 0 {
            return Err(TlsError::Closed);
        }
        let state = self.engine.process_new_packets()?;
        let there = state.plaintext_bytes_to_read() as u64;
        self.engine.reader().take(there).read_to_end(plaintext).map_err(refused)?;
        Ok(state.peer_has_closed())
    }

    /// Encrypts `plaintext` to the end of `outgoing`. It waits here while the handshake goes on.
    pub fn send(&mut self, plaintext: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
        self.engine.writer().write_all(plaintext).map_err(refused)?;
        self.take_outgoing(outgoing);
        Ok(())
    }

    /// Says that nothing more is sent.
    pub fn close(&mut self, outgoing: &mut Vec<u8>) {
        self.engine.send_close_notify();
        self.take_outgoing(outgoing);
    }

    pub fn is_handshaking(&self) -> bool {
        self.engine.is_handshaking()
    }

    fn take_outgoing(&mut self, outgoing: &mut Vec<u8>) {
        while self.engine.wants_write() {
            // Memory takes everything.
            if self.engine.write_tls(outgoing).is_err() {
                return;
            }
        }
    }
}

/// Of the engine's buffers, which are memory.
fn refused(error: io::Error) -> TlsError {
    TlsError::Engine(Error::Other(OtherError(Arc::new(error))))
}

/// Verifies that a trusted authority signed for a server, whatever its name.
#[derive(Debug)]
struct ServerVerifier {
    anchors: Anchors,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let web = || {
            let parsed = ParsedCertificate::try_from(leaf)?;
            let algorithms = provider().signature_verification_algorithms.all;
            let roots = &self.anchors.roots;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                algorithms,
            )
        };
        self.anchors.judge(leaf, Purpose::Server, now, web)?;
        Ok(ServerCertVerified::assertion())
    }

    checks_signatures!(all_schemes());
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;
    use std::{fs, mem};

    use super::*;
    use crate::ca::CA_KEY;
    use crate::issue::{KeyKind, SubjectAltNames};
    use crate::settings::Secret;
    use crate::testing::{accept, authority, self_made};
    use crate::trust::AuthClients;
    use crate::{Acceptor, ClientAuthority, TlsSession};

    /// A session of either side, and what each has got.
    struct Joined {
        client: OutgoingSession,
        server: TlsSession,
        at_client: Vec<u8>,
        at_server: Vec<u8>,
    }

    /// Joins them, or says what the client or the server says of the other.
    fn join(connector: &Connector, acceptor: &Acceptor) -> Result<Joined, TlsError> {
        let (client, mut to_server) = connector.start()?;
        let (at_client, at_server) = (Vec::new(), Vec::new());
        let mut joined = Joined { client, server: acceptor.start()?, at_client, at_server };
        joined.client.send(b"PING\r\n", &mut to_server)?;
        let mut to_client = Vec::new();
        while !to_server.is_empty() || !to_client.is_empty() {
            let mut bytes = mem::take(&mut to_server);
            let refused =
                joined.server.receive(&mut bytes, &mut joined.at_server, &mut to_client).err();
            // Byte by byte: records do not come whole.
            for byte in mem::take(&mut to_client) {
                joined.client.receive(&[byte], &mut joined.at_client, &mut to_server)?;
            }
            if let Some(error) = refused {
                return Err(error);
            }
        }
        Ok(joined)
    }

    /// Settings of a server for names that nobody connects to.
    fn files(authority: &ClientAuthority, folder: &std::path::Path, name: &str) -> Settings {
        let names = SubjectAltNames::of([name]).unwrap();
        let now = SystemTime::now();
        let made = authority.issue_server(&names, KeyKind::EcdsaP256, now).unwrap();
        let (certificate, key) =
            (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        fs::write(&certificate, made.certificate_pem).unwrap();
        fs::write(&key, made.key_pem).unwrap();
        Settings {
            ca_cert_file: Some(authority.certificate_file()),
            ..Settings::new(Identity::Files { certificate, key, key_password: None })
        }
    }

    #[test]
    fn data_pass_both_ways_whatever_the_name() {
        for protocols in ["", "TLSv1.2"] {
            let (folder, authority) = authority();
            let primary = files(&authority, folder.path(), "elsewhere.example");
            let own = Settings { protocols: protocols.into(), ..primary.clone() };
            let connector = Connector::new(&own, None).unwrap();
            let mut joined = join(&connector, &accept(&primary)).unwrap();
            assert_eq!(joined.at_server, b"PING\r\n");
            let large: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
            let mut sent = Vec::new();
            joined.server.send(&large, &mut sent).unwrap();
            let received =
                joined.client.receive(&sent, &mut joined.at_client, &mut Vec::new()).unwrap();
            assert_eq!(joined.at_client, large);
            assert_eq!(received, Received::default());
            let mut sent = Vec::new();
            joined.client.send(&large, &mut sent).unwrap();
            joined.client.close(&mut sent);
            joined.at_server.clear();
            let mut answer = Vec::new();
            let received =
                joined.server.receive(&mut sent, &mut joined.at_server, &mut answer).unwrap();
            assert!(received.closed && joined.at_server == large);
        }
    }

    #[test]
    fn only_servers_of_a_trusted_authority_are_followed() {
        let (folder, known) = authority();
        let (other_folder, other) = authority();
        let own = files(&known, folder.path(), "a");
        let connector = Connector::new(&own, None).unwrap();
        let stranger = accept(&files(&other, other_folder.path(), "a"));
        let error = join(&connector, &stranger).err().unwrap().to_string();
        assert!(error.contains("no trusted authority signed it"), "{error}");

        // A certificate for a client does not make a server.
        let issued = known.issue_client("app", KeyKind::EcdsaP256, SystemTime::now()).unwrap();
        fs::write(folder.path().join("a.crt"), issued.certificate_pem).unwrap();
        fs::write(folder.path().join("a.key"), issued.key_pem).unwrap();
        let error = join(&connector, &accept(&own)).err().unwrap().to_string();
        assert!(error.contains("extended key usage"), "{error}");
    }

    /// As Redis's test script marks them; there is no extended key usage in those.
    #[test]
    fn netscapes_mark_for_clients_does_not_make_a_server_either() {
        let (folder, authority) = authority();
        let own = files(&authority, folder.path(), "a");
        let connector = Connector::new(&own, None).unwrap();
        let authority_key = fs::read_to_string(folder.path().join(CA_KEY)).unwrap();
        let authority_pem = fs::read_to_string(folder.path().join(CA_CERTIFICATE)).unwrap();
        let key = rcgen::KeyPair::from_pem(&authority_key).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&authority_pem, key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(folder.path().join("a.key"), key.serialize_pem()).unwrap();
        // The first bit is for clients, the second for servers.
        for (kinds, is_taken) in [(0x80, false), (0x40, true), (0xc0, true)] {
            let mut params = rcgen::CertificateParams::default();
            params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(
                &[2, 16, 840, 1, 113_730, 1, 1],
                vec![3, 2, 6, kinds],
            )];
            let made = params.signed_by(&key, &issuer).unwrap();
            fs::write(folder.path().join("a.crt"), made.pem()).unwrap();
            match join(&connector, &accept(&own)) {
                Ok(_) => assert!(is_taken, "{kinds:x}"),
                Err(error) => {
                    assert!(!is_taken && error.to_string().contains("nsCertType"), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_self_made_identity_trusts_its_own_authority_and_shows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let settings = self_made(folder.path());
        let acceptor = accept(&settings);
        let connector = Connector::new(&settings, None).unwrap();
        assert!(join(&connector, &acceptor).unwrap().server.peer_certificates().is_none());

        let no_authority = Settings::new(Identity::Files {
            certificate: "none".into(),
            key: "none".into(),
            key_password: None,
        });
        let error = Connector::new(&no_authority, None).err().unwrap().to_string();
        assert!(error.contains("tls-ca-cert-file"), "{error}");
    }

    #[test]
    fn the_certificate_for_clients_is_shown_to_those_who_ask() {
        let (folder, authority) = authority();
        let own = files(&authority, folder.path(), "a");
        let acceptor = accept(&Settings { auth_clients: AuthClients::Yes, ..own.clone() });
        let issued = authority.issue_client("app", KeyKind::EcdsaP256, SystemTime::now()).unwrap();
        let (certificate, key) = (folder.path().join("app.crt"), folder.path().join("app.key"));
        fs::write(&certificate, issued.certificate_pem).unwrap();
        fs::write(&key, issued.key_pem).unwrap();
        let key_password = Some(Secret::new("not needed"));
        let identity = Identity::Files { certificate, key, key_password };
        let connector = Connector::new(&own, Some(&identity)).unwrap();
        let joined = join(&connector, &acceptor).unwrap();
        let peer = &joined.server.peer_certificates().unwrap()[0];
        assert_eq!(crate::common_name_of(peer).as_deref(), Some("app"));

        let nobody = Settings {
            ca_cert_file: Some(authority.certificate_file()),
            ..self_made(folder.path())
        };
        let error = join(&Connector::new(&nobody, None).unwrap(), &acceptor).err().unwrap();
        assert!(error.to_string().contains("ertificate"), "{error}");
    }
}

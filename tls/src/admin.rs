//! The server's end of HTTPS, for the REST interface, the console and the metrics: rustls for
//! tokio, with a certificate of the table and the cluster's settings for its control plane.
//!
//! Sessions are not resumed. So the next handshake after any change is under the new certificate,
//! the new list of trusted authorities, the new suites; and a handshake costs these clients nothing
//! beside their requests.

use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedProtocolVersion, version};

use crate::certificates::Served;
use crate::ciphers;
use crate::error::ConfigError;
use crate::provider::provider;
use crate::trust::{self, AuthClients};

/// What is offered in a handshake, the better first.
pub const ADMIN_ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// `min_control_TLS_version` and its sisters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MinVersion {
    #[default]
    Tls12,
    Tls13,
}

impl MinVersion {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }

    fn protocols(self) -> &'static [&'static SupportedProtocolVersion] {
        const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
        match self {
            Self::Tls12 => BOTH,
            Self::Tls13 => &BOTH[..1],
        }
    }
}

impl FromStr for MinVersion {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            "1" | "1.0" | "1.1" => Err(ConfigError::Protocols(format!(
                "{text} is no longer secure and not supported: use '1.2' or '1.3'"
            ))),
            _ => Err(ConfigError::Protocols("use '1.2' or '1.3'".into())),
        }
    }
}

/// The settings of the cluster that concern HTTPS.
#[derive(Clone, Debug, Default)]
pub struct AdminSettings {
    /// `min_control_TLS_version`.
    pub min_version: MinVersion,
    /// `control_cipher_suites`: a list of OpenSSL's, for TLS 1.2; empty is all.
    pub cipher_suites: String,
    /// `mtls_trusted_ca` while `mtls_certificate_authentication` is on: a client may come with a
    /// certificate of one of these. Whether it must is for the requests' own authentication.
    pub client_authorities: Vec<CertificateDer<'static>>,
}

/// What listeners of HTTPS configure their connections by. Shared by all of them.
pub struct AdminAcceptor {
    served: Arc<Served>,
    current: ArcSwap<ServerConfig>,
}

impl AdminAcceptor {
    /// `served` is what to show; what it shows may change at any time.
    pub fn new(served: Arc<Served>, settings: &AdminSettings) -> Result<Self, ConfigError> {
        let config = build(&served, settings)?;
        Ok(Self { served, current: ArcSwap::from_pointee(config) })
    }

    /// Other settings for handshakes yet to begin; on an error the old ones stay.
    pub fn reload(&self, settings: &AdminSettings) -> Result<(), ConfigError> {
        self.current.store(Arc::new(build(&self.served, settings)?));
        Ok(())
    }

    /// For one connection. Ask again for the next.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// The same for tokio.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.config().into()
    }

    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }
}

fn build(served: &Arc<Served>, settings: &AdminSettings) -> Result<ServerConfig, ConfigError> {
    let tls13 = [
        suite::TLS13_AES_256_GCM_SHA384,
        suite::TLS13_CHACHA20_POLY1305_SHA256,
        suite::TLS13_AES_128_GCM_SHA256,
    ];
    let provider = CryptoProvider {
        cipher_suites: [tls13.to_vec(), ciphers::tls12(&settings.cipher_suites)?.chosen].concat(),
        ..CryptoProvider::clone(provider())
    };
    let authorities = &settings.client_authorities;
    let auth_clients = match authorities.is_empty() {
        true => AuthClients::No,
        false => AuthClients::Optional,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(settings.min_version.protocols())?
        .with_client_cert_verifier(trust::verifier(auth_clients, authorities)?)
        .with_cert_resolver(Arc::clone(served) as _);
    config.alpn_protocols = ADMIN_ALPN.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, ServerConnection};

    use super::*;
    use crate::ca::ClientAuthority;
    use crate::certificates::{CertificateName, CertificateTable, Names, Provided};
    use crate::describe::CertificateInfo;
    use crate::issue::KeyKind;
    use crate::testing::{ClientOptions, authority};

    fn table(authority: &ClientAuthority, folder: &std::path::Path) -> CertificateTable {
        let table = CertificateTable::open(folder).unwrap();
        let names = Names::new("c.example", &["10.0.0.7".parse().unwrap()]).unwrap();
        table.ensure(authority, &names, SystemTime::now()).unwrap();
        table
    }

    /// The two ends after a handshake, or what the server had against it.
    fn join(
        acceptor: &AdminAcceptor,
        client: Arc<ClientConfig>,
        name: &str,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(client, name).unwrap();
        let mut server = ServerConnection::new(acceptor.config()).unwrap();
        let mut bytes = Vec::new();
        while client.wants_write() || server.wants_write() {
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut sent = &bytes[..];
            while !sent.is_empty() {
                server.read_tls(&mut sent).unwrap();
                server.process_new_packets()?;
            }
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut sent = &bytes[..];
            while !sent.is_empty() {
                client.read_tls(&mut sent).unwrap();
                client.process_new_packets()?;
            }
            bytes.clear();
        }
        Ok((client, server))
    }

    fn shown(acceptor: &AdminAcceptor, client: &Arc<ClientConfig>, name: &str) -> String {
        let (client, _) = join(acceptor, Arc::clone(client), name).unwrap();
        let chain = client.peer_certificates().unwrap();
        assert_eq!(chain.len(), 1, "the authority is not sent");
        CertificateInfo::of(&chain[0]).unwrap().serial
    }

    #[test]
    fn the_next_handshake_shows_what_has_been_put_into_the_table() {
        let (folder, authority) = authority();
        let table = table(&authority, folder.path());
        let served = table.served(CertificateName::Api);
        let acceptor = AdminAcceptor::new(served, &AdminSettings::default()).unwrap();
        let client = ClientOptions::default().config(authority.certificate());
        let first = shown(&acceptor, &client, "c.example");
        for name in ["node1.c.example", "internal.c.example", "localhost", "127.0.0.1", "10.0.0.7"]
        {
            assert_eq!(shown(&acceptor, &client, name), first);
        }

        let names = crate::SubjectAltNames::of(["c.example"]).unwrap();
        let now = SystemTime::now();
        let made = authority.issue_server(&names, KeyKind::Rsa2048, now).unwrap();
        let provided = Provided {
            name: "api".into(),
            certificate: made.certificate_pem,
            key: Some(made.key_pem.into()),
        };
        table.replace(&[provided], now).unwrap();
        let info = CertificateInfo::of(&made.certificate).unwrap();
        assert_eq!(shown(&acceptor, &client, "c.example"), info.serial);
        assert_ne!(first, info.serial);
    }

    #[test]
    fn versions_suites_and_protocols_are_those_of_the_settings() {
        let (folder, authority) = authority();
        let table = table(&authority, folder.path());
        let served = table.served(CertificateName::Api);
        let acceptor = AdminAcceptor::new(served, &AdminSettings::default()).unwrap();
        let client = |versions| {
            let options = ClientOptions { versions, ..ClientOptions::default() };
            let mut config = ClientConfig::clone(&options.config(authority.certificate()));
            config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
            Arc::new(config)
        };
        let versions: [&[_]; 2] = [&[&version::TLS12], &[&version::TLS13]];
        for version in versions {
            let (client, server) = join(&acceptor, client(version), "localhost").unwrap();
            assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
            assert_eq!(server.protocol_version(), Some(version[0].version));
            assert_eq!(client.tls13_tickets_received(), 0);
        }

        let list = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:AES128-SHA";
        let mut settings = AdminSettings { cipher_suites: list.into(), ..AdminSettings::default() };
        assert_eq!(ciphers::unknown_suites(&settings.cipher_suites, "").unwrap(), ["AES128-SHA"]);
        acceptor.reload(&settings).unwrap();
        let (_, server) = join(&acceptor, client(versions[0]), "localhost").unwrap();
        let suite = server.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(ciphers::name(suite), "ECDHE-ECDSA-AES128-GCM-SHA256");

        settings.min_version = "1.3".parse().unwrap();
        acceptor.reload(&settings).unwrap();
        assert!(join(&acceptor, client(versions[0]), "localhost").is_err());
        assert!(join(&acceptor, client(versions[1]), "localhost").is_ok());

        let nothing = AdminSettings { cipher_suites: "RC4".into(), ..AdminSettings::default() };
        assert!(acceptor.reload(&nothing).is_err());
        assert!(join(&acceptor, client(versions[1]), "localhost").is_ok());
        for bad in ["", "1.1", "1.4", "TLSv1.2"] {
            assert!(bad.parse::<MinVersion>().is_err(), "{bad}");
        }
    }

    #[test]
    fn clients_may_come_with_certificates_of_the_trusted_authorities_and_no_others() {
        let (folder, ours) = authority();
        let (_other, others) = authority();
        let table = table(&ours, folder.path());
        let settings = AdminSettings {
            client_authorities: vec![others.certificate().clone()],
            ..AdminSettings::default()
        };
        let acceptor = AdminAcceptor::new(table.served(CertificateName::Api), &settings).unwrap();
        let client = |of: Option<&ClientAuthority>| {
            let made = of.map(|authority| {
                authority.issue_client("bob", KeyKind::EcdsaP256, SystemTime::now()).unwrap()
            });
            let options = made.as_ref().map_or_else(Default::default, ClientOptions::identity_of);
            options.config(ours.certificate())
        };
        let (_, server) = join(&acceptor, client(Some(&others)), "localhost").unwrap();
        let shown = &server.peer_certificates().unwrap()[0];
        assert_eq!(crate::common_name_of(shown).as_deref(), Some("bob"));
        let (_, server) = join(&acceptor, client(None), "localhost").unwrap();
        assert!(server.peer_certificates().is_none());
        assert!(join(&acceptor, client(Some(&ours)), "localhost").is_err());
    }
}

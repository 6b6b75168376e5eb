//! A cluster for tests, and whatever somebody could make who wants to get into it: certificates of
//! any content, clients and servers that show them and believe everything.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[path = "../../../../tests/harness/der.rs"]
mod der;

pub(super) use der::{DNS, EMAIL, IP, PublicOnly, URI, der, names};

use super::super::acceptor::WELCOME;
use super::super::issue::leaf;
use super::super::*;
use crate::https::Anybody;
use crate::provider::provider;

/// The cluster that most tests share: keys take long to make.
pub(super) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::new)
}

/// A cluster with its authority.
pub(super) struct World {
    pub(super) cluster: ClusterId,
    pub(super) authority: SigningAuthority,
    /// The authority as a forger would love to have it.
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) keys: [NodeKey; 2],
}

impl World {
    pub(super) fn new() -> Self {
        let cluster = ClusterId::random().unwrap();
        let authority = SigningAuthority::create(cluster, SystemTime::now()).unwrap();
        let pem = authority.to_pem();
        let key = KeyPair::from_pem(pem.split_once("-----END CERTIFICATE-----").unwrap().1);
        let issuer = Issuer::from_ca_cert_pem(&pem, key.unwrap()).unwrap();
        let keys = [NodeKey::generate().unwrap(), NodeKey::generate().unwrap()];
        Self { cluster, authority, issuer, keys }
    }

    /// Another authority of this cluster, which nobody trusts.
    pub(super) fn unnamed_authority(&self) -> SigningAuthority {
        SigningAuthority::create(self.cluster, SystemTime::now()).unwrap()
    }

    pub(super) fn uid(&self, uid: u32) -> NodeUid {
        NodeUid::new(uid).unwrap()
    }

    pub(super) fn identity(&self, node: u32, plane: Plane) -> Identity {
        Identity { cluster: self.cluster, node: self.uid(node), plane }
    }

    pub(super) fn trust(&self) -> Trust {
        Trust::new(vec![self.authority.public().clone()]).unwrap()
    }

    pub(super) fn node(&self, uid: u32) -> Arc<Node> {
        self.node_with(uid, super::settings(Versions::Both))
    }

    pub(super) fn node_with(&self, uid: u32, settings: Settings) -> Arc<Node> {
        let [control, data] = Plane::ALL.map(|plane| self.credential(uid, plane));
        Node::new(control, data, self.trust(), settings).unwrap()
    }

    /// As a node gets it.
    pub(super) fn credential(&self, node: u32, plane: Plane) -> Credential {
        self.credential_by(&self.authority, node, plane)
    }

    pub(super) fn credential_by(
        &self,
        authority: &SigningAuthority,
        node: u32,
        plane: Plane,
    ) -> Credential {
        self.issue(authority, node, plane, SystemTime::now())
    }

    pub(super) fn credential_of(&self, authority: &SigningAuthority, node: u32) -> Credential {
        self.credential_by(authority, node, Plane::Data)
    }

    pub(super) fn credential_at(&self, node: u32, plane: Plane, at: SystemTime) -> Credential {
        self.issue(&self.authority, node, plane, at)
    }

    fn issue(
        &self,
        authority: &SigningAuthority,
        node: u32,
        plane: Plane,
        at: SystemTime,
    ) -> Credential {
        let (identity, key) = (self.identity(node, plane), &self.keys[0]);
        let request = Request::from_pem(key.request(identity).unwrap().as_bytes()).unwrap();
        let issued = authority.sign(&request, identity, Lifetime::default(), at).unwrap();
        key.certified(issued.certificate).unwrap()
    }

    /// The contents of a good certificate: node 2 on the data plane.
    pub(super) fn params(&self) -> CertificateParams {
        let now = SystemTime::now();
        let far = now + Lifetime::default().as_duration() * 2;
        leaf(self.identity(2, Plane::Data), &[7; 16], far, Lifetime::default(), now).unwrap()
    }

    /// What the authority would sign if it were out of its mind, for the usual key.
    pub(super) fn forged(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        self.forged_by(&self.issuer, &self.rcgen_key(), change)
    }

    /// The same by any issuer and for any key.
    pub(super) fn forged_by(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        key: &impl PublicKeyData,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = self.params();
        change(&mut params);
        params.signed_by(key, issuer).unwrap().into()
    }

    /// An authority with the very name of ours and another key.
    pub(super) fn impostor(&self) -> Issuer<'static, KeyPair> {
        let mut params = authority_params("x");
        params.distinguished_name = self.authority_name();
        Issuer::new(params, KeyPair::from_pem(&self.keys[1].to_pem()).unwrap())
    }

    pub(super) fn authority_name(&self) -> rcgen::DistinguishedName {
        let parsed = crate::describe::parse(self.authority.public().certificate()).unwrap();
        let mut name = rcgen::DistinguishedName::new();
        name.push(DnType::OrganizationName, "Carnelian");
        name.push(
            DnType::CommonName,
            crate::common_name_of(self.authority.public().certificate()).unwrap(),
        );
        assert!(parsed.subject().to_string().contains("Carnelian"));
        name
    }

    pub(super) fn rcgen_key(&self) -> KeyPair {
        KeyPair::from_pem(&self.keys[0].to_pem()).unwrap()
    }
}

pub(super) fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = crate::issue::subject(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The same certificate under another signature algorithm, which makes its signature wrong too.
pub(super) fn under_algorithm(
    certificate: &CertificateDer<'_>,
    last: u8,
) -> CertificateDer<'static> {
    const RSA_SHA256: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    let mut bytes = certificate.to_vec();
    let mut found = 0;
    for place in 0..bytes.len() - RSA_SHA256.len() {
        if bytes[place..].starts_with(&RSA_SHA256) {
            bytes[place + 8] = last;
            found += 1;
        }
    }
    assert_eq!(found, 2);
    bytes.into()
}

/// Requests that no authority grants, and why.
pub(super) fn bad_requests(identity: Identity) -> Vec<(Vec<u8>, &'static str)> {
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let good = identity.to_string();
    let pem = |key: &KeyPair, change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(&good)];
        change(&mut params);
        params.serialize_request(key).unwrap().pem().unwrap().into_bytes()
    };
    let key = world().rcgen_key();
    let ecdsa = KeyPair::generate().unwrap();
    let rights = "asks for rights";
    vec![
        (b"".to_vec(), "no request in it"),
        (world().authority.to_pem().as_bytes().to_vec(), "no request in it"),
        (vec![b'x'; 20_000], "larger than any"),
        (pem(&key, &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), rights),
        (pem(&key, &|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]), rights),
        (pem(&key, &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]), rights),
        (pem(&key, &|p| p.subject_alt_names.clear()), "one name"),
        (pem(&key, &|p| p.subject_alt_names.push(uri(&good))), "one name"),
        (
            pem(&key, &|p| p.subject_alt_names = vec![SanType::DnsName("a.b".try_into().unwrap())]),
            "one name",
        ),
        (pem(&key, &|p| p.subject_alt_names = vec![uri("carnelian://x")]), "no node's"),
        (pem(&ecdsa, &|_| {}), "not an RSA key"),
    ]
}

/// Certificates that cannot be a cluster's authority.
pub(super) fn bad_authorities() -> Vec<CertificateDer<'static>> {
    let key = world().rcgen_key();
    let uri = |text: &str| vec![SanType::URI(text.try_into().unwrap())];
    let signed = |change: &dyn Fn(&mut CertificateParams)| -> CertificateDer<'static> {
        let mut params = authority_params("x");
        params.subject_alt_names = uri(&world().cluster.uri());
        change(&mut params);
        params.self_signed(&key).unwrap().into()
    };
    assert!(Authority::new(signed(&|_| {})).is_ok());
    let mut lookalike = authority_params("x");
    lookalike.subject_alt_names = uri(&world().cluster.uri());
    let other =
        Issuer::new(lookalike.clone(), KeyPair::from_pem(&world().keys[1].to_pem()).unwrap());
    vec![
        signed(&|p| p.subject_alt_names.clear()),
        signed(&|p| p.subject_alt_names = uri("carnelian://x")),
        signed(&|p| p.subject_alt_names = uri(&world().identity(1, Plane::Data).to_string())),
        signed(&|p| p.is_ca = IsCa::NoCa),
        lookalike.signed_by(&key, &other).unwrap().into(),
        lookalike.signed_by(&key, &world().issuer).unwrap().into(),
        vec![0x30, 0x03, 0x02, 0x01, 0x00].into(),
    ]
}

/// What one end of a handshake shows.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Arc<dyn rustls::sign::SigningKey>,
}

impl Shown {
    /// With the usual key, whether it is the certificate's or not.
    pub(super) fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self::with_key(chain, world().keys[0].to_der())
    }

    pub(super) fn with_key(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        let key = provider().key_provider.load_private_key(key).unwrap();
        Self { chain, key }
    }

    fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(CertifiedKey::new(self.chain.clone(), self.key.clone()).into())
    }
}

/// A client that believes everything and says what it likes.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) shown: Option<Shown>,
    pub(super) protocols: Vec<Vec<u8>>,
    pub(super) name: Option<String>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) suites: Vec<SupportedCipherSuite>,
}

impl Client {
    /// One that has all it takes to reach node 1.
    pub(super) fn of_node(node: u32, plane: Plane) -> Self {
        let certificate = world().credential(node, plane).certificate().clone();
        Self {
            shown: Some(Shown::new(vec![certificate])),
            protocols: vec![plane.alpn().to_vec()],
            name: Some(world().identity(1, plane).server_name()),
            versions: Versions::Both.all().to_vec(),
            suites: provider().cipher_suites.clone(),
        }
    }

    pub(super) fn config(&self) -> ClientConfig {
        let cryptography = CryptoProvider {
            cipher_suites: self.suites.clone(),
            ..CryptoProvider::clone(provider())
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(cryptography))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = match &self.shown {
            Some(shown) => builder.with_client_cert_resolver(shown.resolver()),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.protocols.clone();
        config.enable_sni = self.name.is_some();
        config
    }

    /// Whether it is let in.
    pub(super) async fn connect(&self, address: SocketAddr) -> bool {
        let Ok(mut stream) = self.stream(address).await else { return false };
        matches!(stream.read_u8().await, Ok(WELCOME))
    }

    /// A session, as far as this end is concerned.
    pub(super) async fn stream(
        &self,
        address: SocketAddr,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = self.name.clone().unwrap_or("x.example".into());
        let name = ServerName::try_from(name).unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(self.config())).connect(name, socket).await
    }
}

/// A server that asks for nothing and shows what it likes, once.
pub(super) struct Server {
    pub(super) shown: Shown,
    pub(super) protocols: Vec<Vec<u8>>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) suites: Vec<SupportedCipherSuite>,
}

impl Server {
    pub(super) fn showing(shown: Shown) -> Self {
        Self {
            shown,
            protocols: vec![Plane::Data.alpn().to_vec()],
            versions: Versions::Both.all().to_vec(),
            suites: provider().cipher_suites.clone(),
        }
    }

    pub(super) async fn start(self) -> SocketAddr {
        let cryptography =
            CryptoProvider { cipher_suites: self.suites, ..CryptoProvider::clone(provider()) };
        let mut config = ServerConfig::builder_with_provider(Arc::new(cryptography))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(self.shown.resolver());
        config.alpn_protocols = self.protocols;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(socket).await {
                use tokio::io::AsyncWriteExt;
                let _ = stream.write_all(&[WELCOME]).await;
                let _ = stream.read_u8().await;
            }
        });
        address
    }
}

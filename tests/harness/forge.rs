//! Whatever somebody could show to a port for other nodes who wants to get into a cluster: certificates of any
//! content, signed by the cluster's own authority where a forger has got hold of its key.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carnelian_tls::https::Anybody;
use carnelian_tls::internode::{SealKey, Store};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, StreamOwned, SupportedCipherSuite, SupportedProtocolVersion,
};

use crate::der::names;
use crate::nodes::Nodes;

/// What a node that lets somebody in sends first.
const WELCOME: u8 = 6;

const PATIENCE: Duration = Duration::from_secs(30);

/// An authority, and a key to sign for.
pub struct Forge {
    pub cluster: String,
    pub issuer: Issuer<'static, KeyPair>,
    pub authority: CertificateDer<'static>,
    pub key: KeyPair,
    pub other_key: KeyPair,
}

impl Forge {
    /// With the key of the cluster's own authority.
    pub fn of(nodes: &Nodes) -> Self {
        Self::in_folder(nodes.nodes[0].server.folder(), &nodes.cluster)
    }

    /// With the key of the authority that is kept in a data folder.
    pub fn in_folder(folder: &Path, cluster: &str) -> Self {
        let store = Store::open(folder).expect("a folder of internode's");
        let key = SealKey::open(&store.seal_key_file()).expect("the key file");
        let path = store.folder().join("authority.sealed");
        let sealed = fs::read(&path).expect("the authority");
        let pem = key.unseal(&sealed, &path).expect("it is sealed with that key");
        let pem = std::str::from_utf8(&pem).expect("text");
        let (_, of_key) = pem.split_once("-----END CERTIFICATE-----").expect("two parts");
        let issuer = Issuer::from_ca_cert_pem(pem, KeyPair::from_pem(of_key).expect("a key"));
        let new_key = || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048);
        Self {
            cluster: cluster.to_owned(),
            issuer: issuer.expect("a certificate"),
            authority: CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate"),
            key: new_key().expect("a key"),
            other_key: new_key().expect("a key"),
        }
    }

    /// The name of a node and a plane, as certificates have it.
    pub fn identity(&self, node: u32, plane: &str) -> String {
        format!("carnelian://{}/node/{node}/{plane}", self.cluster)
    }

    /// The contents of a good certificate: node 2 on the data plane.
    pub fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "node 2 data");
        let uri = self.identity(2, "data").try_into().expect("plain text");
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (std::time::SystemTime::now() - Duration::from_secs(600)).into();
        params.not_after = params.not_before + Duration::from_secs(30 * 86_400);
        params
    }

    /// What the authority would sign if it were out of its mind.
    pub fn forged(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        self.forged_by(&self.issuer, change)
    }

    /// The same by any issuer.
    pub fn forged_by(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Shown {
        let mut params = self.params();
        change(&mut params);
        let certificate = params.signed_by(&self.key, issuer).expect("it can be signed");
        Shown::new(vec![certificate.into()], &self.key)
    }

    /// With these names, of any bytes, and no others.
    pub fn named(&self, all: &[(u8, &[u8])]) -> Shown {
        self.forged(|params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(names(all));
        })
    }
}

/// Certificates, and the key that is signed with, which need not be theirs.
#[derive(Clone)]
pub struct Shown {
    pub chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn rustls::sign::SigningKey>,
}

impl Shown {
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let der = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(der).expect("a key that it knows");
        Self { chain, key }
    }
}

/// A client that believes everything and says what it likes.
#[derive(Clone)]
pub struct Visitor {
    pub shown: Option<Shown>,
    pub protocols: Vec<Vec<u8>>,
    pub name: String,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    pub suites: Vec<SupportedCipherSuite>,
}

impl Visitor {
    /// One that shows this, and does all else as a node that wants to reach the one of this name.
    pub fn showing(shown: Shown, name: &str) -> Self {
        Self {
            shown: Some(shown),
            protocols: vec![b"carnelian-data/1".to_vec()],
            name: name.to_owned(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            suites: aws_lc_rs::default_provider().cipher_suites,
        }
    }

    /// Whether it is let in at a port.
    pub fn gets_in(&self, port: u16) -> bool {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit above zero");
        let name = ServerName::try_from(self.name.clone()).expect("a name");
        let client = ClientConnection::new(Arc::new(self.config()), name).expect("it fits");
        let mut first = [0];
        let read = StreamOwned::new(client, socket).read_exact(&mut first);
        read.is_ok() && first == [WELCOME]
    }

    fn config(&self) -> ClientConfig {
        let provider =
            CryptoProvider { cipher_suites: self.suites.clone(), ..aws_lc_rs::default_provider() };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)
            .expect("versions with suites")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = match &self.shown {
            Some(Shown { chain, key }) => {
                let shown = CertifiedKey::new(chain.clone(), key.clone());
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.protocols);
        config
    }
}

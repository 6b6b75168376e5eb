//! The end that connects: to one node, on one plane, and to no other.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::acceptor::{WELCOME, proven};
use super::counters::Direction;
use super::credential::Credential;
use super::links::Link;
use super::node::Node;
use super::peer::{Identity, NodeUid, Plane};
use super::policy::{self, Expected};
use super::refusal::Refusal;
use super::verify::Judge;

/// Makes links to other nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    node: Arc<Node>,
}

impl Connector {
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// Connects to `wanted`, said to be at `address`. The link stands when this returns: the other
    /// end is `wanted` and has let this node in.
    pub async fn connect(
        &self,
        address: SocketAddr,
        wanted: NodeUid,
        plane: Plane,
    ) -> Result<Link, Refusal> {
        let connecting = async {
            let source = self.node.source();
            let socket = source
                .connect_async(address)
                .await
                .map_err(|error| Refusal::Unreachable(error.kind()))?;
            self.handshake(socket, wanted, plane).await
        };
        self.limited(connecting).await
    }

    /// The same over a socket that is connected already.
    pub async fn connect_over(
        &self,
        socket: TcpStream,
        wanted: NodeUid,
        plane: Plane,
    ) -> Result<Link, Refusal> {
        self.limited(self.handshake(socket, wanted, plane)).await
    }

    async fn limited(
        &self,
        connecting: impl Future<Output = Result<Link, Refusal>>,
    ) -> Result<Link, Refusal> {
        let limit = self.node.settings().handshake_limit;
        let result = match timeout(limit, connecting).await {
            Ok(result) => result,
            Err(_) => Err(Refusal::TooSlow { limit }),
        };
        self.node.counters().count(Direction::Outgoing, Link::plane, &result);
        result
    }

    async fn handshake(
        &self,
        socket: TcpStream,
        wanted: NodeUid,
        plane: Plane,
    ) -> Result<Link, Refusal> {
        let _ = socket.set_nodelay(true);
        let judge = Judge::new(self.node.trust(), Expected { plane, node: Some(wanted) });
        let credential = self.node.credential(plane);
        let config = self.config(plane, &credential, &judge)?;
        let wanted = Identity { cluster: self.node.cluster(), node: wanted, plane };
        let name = ServerName::try_from(wanted.server_name())
            .map_err(|error| Refusal::Ours(error.to_string()))?;

        let connecting = TlsConnector::from(Arc::new(config)).connect(name, socket);
        let stream = connecting.await.map_err(|error| match judge.verdict() {
            Some(Err(refusal)) => refusal.clone(),
            _ => Refusal::of_io(&error),
        })?;
        // The engine minds a wrong answer but not the lack of one.
        if stream.get_ref().1.alpn_protocol() != Some(plane.alpn()) {
            return Err(Refusal::NoPlane);
        }
        let peer = proven(&judge)?;
        let mut link = self
            .node
            .links_shared()
            .register(stream.into(), plane, peer, credential.serial().clone(), Direction::Outgoing)
            .map_err(|error| Refusal::Lost(error.kind()))?;
        self.node.still_believes(link.peer())?;

        match link.read_u8().await {
            Ok(WELCOME) => Ok(link),
            Ok(_) => Err(Refusal::Misbehaved("no welcome after the handshake".into())),
            Err(error) => Err(Refusal::of_io(&error)),
        }
    }

    /// One per handshake, as its judge knows who is wanted and keeps what it found.
    fn config(
        &self,
        plane: Plane,
        credential: &Credential,
        judge: &Arc<Judge>,
    ) -> Result<ClientConfig, Refusal> {
        let settings = self.node.settings();
        let builder =
            ClientConfig::builder_with_details(policy::cryptography(), Arc::clone(&settings.clock));
        let mut config = builder
            .with_protocol_versions(settings.versions.all())
            .map_err(|error| Refusal::of_engine(&error))?
            .dangerous() // what the engine calls any verifier that is not its own
            .with_custom_certificate_verifier(Arc::clone(judge) as _)
            .with_client_cert_resolver(credential.resolver());
        config.alpn_protocols = vec![plane.alpn().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.require_ems = true;
        Ok(config)
    }
}

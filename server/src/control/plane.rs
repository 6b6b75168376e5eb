//! What the control plane needs of the world, and how other nodes reach it: links of the channel between nodes, on
//! which both ends are known by their certificates.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use carnelian_cluster::state::{NodeUid, Time};
use carnelian_cluster::{Control, Dialing, Environment, Stream};
use carnelian_tls::internode::{ControlPlane, Frames, NodeUid as NodeName, Signal};

use crate::clock;
use crate::internode::{self, NodeTarget};
use crate::log;
use crate::server::Server;

/// What is spoken on such a link, as its first message names it.
pub const NAME: &str = "control/1";

pub struct World {
    pub server: Arc<Server>,
}

impl Environment for World {
    fn now(&self) -> Time {
        Time(clock::wall_ms())
    }

    fn dial(&self, node: NodeUid, address: &str) -> Dialing {
        let (server, address) = (Arc::clone(&self.server), address.to_owned());
        Box::pin(async move {
            let refused = |reason: &str| io::Error::new(io::ErrorKind::NotConnected, reason);
            let channel = server
                .internode
                .channel()
                .ok_or_else(|| refused("this node has no certificates for other nodes"))?;
            let (host, port) =
                address.rsplit_once(':').ok_or_else(|| refused("an address without a port"))?;
            let target = NodeTarget {
                node: NodeName::new(node.0).ok_or_else(|| refused("0 is no node"))?,
                host: host.trim_matches(['[', ']']).to_owned(),
                port: port.parse().map_err(|_| refused("that is no port"))?,
            };
            let mut last = refused("its name leads nowhere");
            for address in tokio::net::lookup_host((target.host.as_str(), target.port)).await? {
                match internode::connect_control(&channel, &target, address, NAME).await {
                    Ok(frames) => return Ok(Box::new(frames.into_stream()) as Box<dyn Stream>),
                    Err(reason) => last = refused(&reason),
                }
            }
            Err(last)
        })
    }
}

/// Answers other nodes.
pub struct Answers(pub Control);

impl ControlPlane for Answers {
    fn serve(self: Arc<Self>, link: Frames) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let peer = NodeUid(link.stream().peer().identity.node.get());
            let mut signal = link.stream().signal();
            let is_outdated = async move {
                // An error says that it has ended.
                let _ = signal.wait_for(|signal| *signal == Signal::Remake).await;
            };
            if let Err(error) = self.0.serve(link.into_stream(), peer, is_outdated).await {
                log::debug!("A link of the control plane with node {peer} ended: {error}");
            }
        })
    }
}

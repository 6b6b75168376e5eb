//! The channel between the nodes of a cluster: what this server does with `tls::internode`.
//!
//! - Port 3342 takes TLS and nothing else. A link for *data* begins with a [`greeting`] and becomes a
//!   connection of a replica, in a session that may replicate and nothing more ([`attach`]). A link of the
//!   *control plane* goes to whoever has registered for what is spoken on it ([`control`]).
//! - The plain port takes replicas of databases that are not encrypted between nodes, against a ticket that
//!   was handed out over the control plane ([`tickets`], [`listen`]).
//! - A replica reaches a node through [`dial`], whichever way its database's setting asks for.
//! - [`setting`] changes that setting, and makes links anew when certificates have been replaced.
//!
//! All of it runs on a small runtime of its own; reactors and threads get one end of a socket pair ([`relay`]).
//! A server whose data folder has no certificates of a cluster has none of this.

mod attach;
mod control;
mod dial;
mod figures;
mod greeting;
mod listen;
mod relay;
mod setting;
mod target;
#[cfg(test)]
mod tests;
mod throttle;
pub mod tickets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use carnelian_config::Config;
use carnelian_tls::Source;
use carnelian_tls::internode::{
    Acceptor, Connector, ControlPlane, Error, Frames, Node, Plane, Settings, Store, Trust,
};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;

pub use attach::{NOT_A_CLIENT, PeerLink, may_run};
pub use control::connect as connect_control;
pub use dial::{Dialled, Socket as DialledSocket, dial};
pub use figures::{NotLetIn, write as write_figures};
pub use greeting::{hex, unhex};
pub use listen::within_limit;
pub use setting::{
    DatabaseChannel, Renewed, follow, follow_nobody, heed, renew_links,
    set_data_internode_encryption,
};
pub use target::{NodeTarget, configured};
pub use tickets::Ticket;

use crate::listener::{Acceptor as Socket, Endpoints, ListenError, Listeners};
use crate::log;
use crate::server::Server;
use figures::Figures;
use throttle::Throttle;
use tickets::Tickets;

/// From a link's beginning until it has said what it is for.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// Links that have yet to say so, at a time and port.
const GREETINGS_MAX: usize = 256;

/// How often it is looked after what has been left behind.
const UPKEEP: Duration = Duration::from_secs(1);

/// What of the channel is there whether or not it is open.
pub struct Internode {
    channel: ArcSwapOption<Channel>,
    /// Held while it is opened.
    opening: Mutex<()>,
    tickets: Tickets,
    figures: Figures,
    /// What is spoken on the control plane, by its name.
    planes: RwLock<BTreeMap<String, Arc<dyn ControlPlane>>>,
    /// For what strangers can bring about.
    refusals: Throttle,
    greeting: Arc<Semaphore>,
    greeting_plain: Arc<Semaphore>,
}

impl Default for Internode {
    fn default() -> Self {
        Self {
            channel: ArcSwapOption::empty(),
            opening: Mutex::default(),
            tickets: Tickets::default(),
            figures: Figures::default(),
            planes: RwLock::default(),
            refusals: Throttle::default(),
            greeting: Arc::new(Semaphore::new(GREETINGS_MAX)),
            greeting_plain: Arc::new(Semaphore::new(GREETINGS_MAX)),
        }
    }
}

/// The channel once it is open.
pub struct Channel {
    pub node: Arc<Node>,
    /// Where its certificates are. It stays when `dir` changes.
    folder: PathBuf,
    /// Where it listens; empty: nowhere.
    addresses: Vec<SocketAddr>,
    plain_addresses: Vec<SocketAddr>,
    /// Keeps the ports.
    _listeners: [Listeners; 2],
    runtime: Option<Runtime>,
}

/// What was asked for in so many words: where that cannot be had, there is no start.
#[derive(Clone, Copy, Debug, Default)]
pub struct AskedFor {
    pub port: bool,
    pub plain_port: bool,
}

/// Why the channel is not open although it should be.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Certificates(#[from] Error),
    #[error("Failed listening on port {0} (internode), aborting.")]
    Port(u16),
    #[error("Can't start the threads of the channel between nodes: {0}")]
    Threads(#[source] std::io::Error),
}

impl Internode {
    /// None where there are no certificates of a cluster.
    pub fn channel(&self) -> Option<Arc<Channel>> {
        self.channel.load_full()
    }

    /// Has `plane` serve the links of the control plane that ask for `name`.
    pub fn register(&self, name: &str, plane: Arc<dyn ControlPlane>) {
        self.planes.write().insert(name.to_owned(), plane);
    }
}

impl Channel {
    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it goes with the channel")
    }

    pub fn connector(&self) -> Connector {
        Connector::new(Arc::clone(&self.node))
    }

    /// Opens a link of the control plane to a node, on which `name` is spoken.
    pub async fn connect(&self, target: &NodeTarget, name: &str) -> Result<Frames, String> {
        let failed = |reason: &dyn std::fmt::Display| format!("{target}: {reason}");
        let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
        let mut last = failed(&"no address for this name");
        for address in found.map_err(|error| failed(&error))? {
            match control::connect(self, target, address, name).await {
                Ok(link) => return Ok(link),
                Err(reason) => last = reason,
            }
        }
        Err(last)
    }

    /// Where work for the channel can be done.
    pub fn handle(&self) -> Handle {
        self.runtime().handle().clone()
    }

    /// Whether others can connect, or where.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn plain_addresses(&self) -> &[SocketAddr] {
        &self.plain_addresses
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // It may be one of its own tasks that lets go of it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Has links to other nodes start from where the configuration of the first database says.
pub fn set_source(server: &Server, config: &Config) {
    if let Some(channel) = server.internode.channel() {
        let (source, _) = Source::parse(&config.bind_source_addr);
        channel.node.set_source(source);
    }
}

/// Opens the channel, unless it is open or there are no certificates for it. Whether it is open.
pub fn open(server: &Arc<Server>, asked_for: AskedFor) -> Result<bool, OpenError> {
    let internode = &server.internode;
    let _one_at_a_time = internode.opening.lock();
    if internode.channel().is_some() {
        return Ok(true);
    }
    let config = server.config();
    if !config.dir.join(Store::FOLDER).is_dir() {
        if asked_for.port && config.internode_port != 0 {
            log::notice!(
                "No certificates of a cluster in '{}': not listening for other nodes",
                config.dir.join(Store::FOLDER).display()
            );
        }
        return Ok(false);
    }
    let store = Store::open(&config.dir)?;
    if !store.has_trust() || !Plane::ALL.iter().all(|plane| store.has_credential(*plane)) {
        log::notice!(
            "This node's certificates of its cluster are not complete in '{}': not listening for \
             other nodes",
            store.folder().display()
        );
        return Ok(false);
    }
    let node = Node::new(
        store.credential(Plane::Control)?,
        store.credential(Plane::Data)?,
        store.trust()?,
        Settings::default(),
    )?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("internode")
        .enable_all()
        .build()
        .map_err(OpenError::Threads)?;
    let (listeners, sockets) = listen_on(&config, config.internode_port, asked_for.port)?;
    let is_open = !sockets.is_empty();
    // Nobody could get a ticket.
    let plain_port = if is_open { config.internode_plain_port } else { 0 };
    let (plain, plain_sockets) = listen_on(&config, plain_port, asked_for.plain_port)?;
    let channel = Arc::new(Channel {
        node,
        folder: config.dir.clone(),
        addresses: listeners.addresses(),
        plain_addresses: plain.addresses(),
        _listeners: [listeners, plain],
        runtime: Some(runtime),
    });
    let Channel { node, .. } = &*channel;
    log::notice!("Node {} of the cluster {}", node.uid(), node.cluster());
    for address in &channel.addresses {
        log::notice!("Ready to accept links of other nodes at {address}");
    }
    internode.channel.store(Some(Arc::clone(&channel)));
    set_source(server, &server.config());
    let acceptor = Acceptor::new(Arc::clone(&channel.node));
    let _inside = channel.runtime().enter();
    for socket in sockets {
        tokio::spawn(listen::serve(Arc::clone(server), acceptor.clone(), socket));
    }
    for socket in plain_sockets {
        tokio::spawn(listen::serve_plain(Arc::clone(server), socket));
    }
    tokio::spawn(upkeep(Arc::clone(server)));
    Ok(true)
}

/// Lets go of the channel and its ports, for a node that is to be another one. Whether it was open.
pub fn close(server: &Server) -> bool {
    let _one = server.internode.opening.lock();
    server.internode.channel.swap(None).is_some()
}

/// Listens on a port. Where that is not asked for in particular, to go without is worth a warning.
fn listen_on(
    config: &Config,
    port: u16,
    is_asked_for: bool,
) -> Result<(Listeners, Vec<std::net::TcpListener>), OpenError> {
    let bind = if config.internode_bind.is_empty() { &config.bind } else { &config.internode_bind };
    let mut listeners = Listeners::default();
    let endpoints =
        Endpoints { bind: bind.clone(), port, backlog: config.tcp_backlog, ..Endpoints::default() };
    let (change, result): (_, Result<(), ListenError>) = listeners.change(&endpoints);
    if result.is_err() {
        if is_asked_for {
            return Err(OpenError::Port(port));
        }
        log::warning!("Going on without the port {port} for other nodes");
        return Ok((Listeners::default(), Vec::new()));
    }
    let sockets = change.added.into_iter().filter_map(|(_, _, socket)| match socket {
        Socket::Tcp(socket) => Some(socket.into()),
        Socket::Unix(_) => None,
    });
    Ok((listeners, sockets.collect()))
}

/// Puts into effect what the data folder has now: certificates and whom to trust, for new links at once.
/// Opens the channel if it was not. Links that show earlier certificates stay as they are: see
/// [`renew_links`].
pub fn reload(server: &Arc<Server>) -> Result<(), OpenError> {
    let Some(channel) = server.internode.channel() else {
        return open(server, AskedFor::default()).map(|_| ());
    };
    let store = Store::open(&channel.folder)?;
    let (trust, node) = (store.trust()?, &channel.node);
    let credentials = [store.credential(Plane::Control)?, store.credential(Plane::Data)?];
    // A new authority is trusted before it is used, and an old one until it no longer is.
    node.change_trust(|before| both(before, &trust))?;
    for credential in credentials {
        let plane = credential.identity().plane;
        if *credential.serial() != *node.credential(plane).serial() {
            log::notice!("New certificate for the {plane} plane: serial {}", credential.serial());
            node.install(credential)?;
        }
    }
    let ended = node.change_trust(|_| Ok(trust))?;
    for link in ended {
        log::warning!("Ended a link with {}: {}", link.peer.identity, link.address);
    }
    Ok(())
}

fn both(before: &Trust, after: &Trust) -> Result<Trust, Error> {
    let mut authorities = before.authorities().to_vec();
    for authority in after.authorities() {
        if authorities.iter().all(|known| known.fingerprint() != authority.fingerprint()) {
            authorities.push(authority.clone());
        }
    }
    before.with_authorities(authorities)
}

/// Gives up links that say nothing, and what was kept for nodes that do not come back.
async fn upkeep(server: Arc<Server>) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        for database in server.databases.read().clone() {
            database.internode.look_after(&database, server.config().repl_timeout);
        }
    }
}

//! This node as a member of its cluster: the control plane's state, the REST interface over it, and what this
//! process does to be what that state says.
//!
//! - [`found`] makes a cluster of this one node, at the first start or when it is asked for.
//! - [`join`] makes it a member of the cluster of others.
//! - [`reconcile`] compares the databases there are with those of the state, and tells when they agree.
//! - [`duties`] tells how far each database is, and keeps a primary that is cut off from taking writes.
//! - [`forward`] leads clients to the nodes where databases are served.
//! - [`leaves`] looks after the certificates between nodes, [`trust`] after whose are believed; [`clients`] after
//!   those that clients are shown, and [`shared`] after those that all nodes show.
//! - [`transfers`] writes data out and takes data in as operators ask for it.
//! - [`live`] is what the REST interface sees of the process.
//!
//! All of it runs on a small runtime of its own, which reactors never wait for. A server that is started as a Redis
//! is, with Redis's directives only, has none of it, and opens no port that Redis would not.

mod clients;
mod command;
mod duties;
mod forward;
mod found;
mod host;
mod https;
mod join;
mod leaves;
mod live;
mod plane;
mod reconcile;
mod shared;
mod spec;
mod transfers;
mod trust;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwapOption;
use carnelian_admin::{Admin, Front, serve, serve_local};
use carnelian_cluster::state::DEFAULT_NAME;
use carnelian_cluster::{Control, Keys};
use carnelian_config::{ClusterBootstrap, Config, DirectiveId};
use carnelian_tls::AdminAcceptor;
use carnelian_tls::certificates::{CertificateName, CertificateTable};
use carnelian_tls::internode::{SealKey, Store};
use parking_lot::Mutex;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};

use crate::endpoint;
use crate::listener::{Acceptor as Socket, Endpoints, Listeners};
use crate::log;
use crate::server::Server;

/// Where the control plane keeps its log and state, within the data folder.
const FOLDER: &str = "control-plane";
/// The socket over which whoever may open it needs no password.
pub const LOCAL_SOCKET: &str = "admin.sock";

/// One of these, or a start without arguments, asks for a control plane.
pub const DIRECTIVES: [DirectiveId; 4] = [
    DirectiveId::admin_port,
    DirectiveId::cluster_bootstrap,
    DirectiveId::cluster_create,
    DirectiveId::cluster_join,
];

pub use forward::{hold_first, is_first_elsewhere};

/// The control plane on this node, while the server runs.
pub struct ControlPlane {
    server: Arc<Server>,
    runtime: Option<Runtime>,
    local_socket: PathBuf,
    /// Keeps the port.
    _listeners: Listeners,
}

/// What all parts of it share.
pub struct Member {
    server: Arc<Server>,
    control: Control,
    /// The data folder.
    folder: PathBuf,
    store: Store,
    keys: Arc<Keys>,
    table: Arc<CertificateTable>,
    /// What private keys in the state are sealed with. There is none before there is a cluster.
    key: ArcSwapOption<SealKey>,
    /// Held while it changes whom this node trusts, in memory and on the disk.
    trusting: Mutex<()>,
    /// Held while what clients are shown is replaced.
    renewing: tokio::sync::Mutex<()>,
    /// Held while certificates for clients are exchanged, and by what has read them until it is where those are found
    /// that are to show other ones: else it would go on showing the old ones, and nobody would know.
    showing: Mutex<()>,
    /// One attempt to join at a time.
    joining: tokio::sync::Mutex<()>,
    acceptor: AdminAcceptor,
    /// Where the REST interface listens; 0 where it does not.
    admin_port: u16,
}

/// How long a start waits to know what it was a member of.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Whether there is something left of a membership: then the cluster says what the databases are here.
pub fn was_member(config: &Config) -> bool {
    let is_on = config.admin_port != 0 || config.internode_port != 0;
    is_on && config.dir.join(FOLDER).join("control-plane.redb").exists()
}

/// Opens the admin port and lets the rest come up beside the server. None where it is turned off.
pub fn start(server: &Arc<Server>, is_port_asked_for: bool) -> Result<Option<ControlPlane>> {
    let config = server.config();
    if config.admin_port == 0 && config.internode_port == 0 {
        return Ok(None);
    }
    let (listeners, sockets) = listen(&config, is_port_asked_for)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("Can't start the threads of the control plane")?;
    let local_socket = config.dir.join(LOCAL_SOCKET);
    let (looked, first_look) = std::sync::mpsc::channel();
    let work = run(Arc::clone(server), config.dir.clone(), sockets, looked);
    runtime.spawn(async move {
        if let Err(error) = work.await {
            log::warning!("Going on without the control plane: {error:#}");
        }
    });
    // A node that is alone is not to refuse writes after `Ready to accept connections`.
    if server.is_clustered.load(Ordering::SeqCst) {
        let _ = first_look.recv_timeout(FIRST_LOOK);
    }
    let server = Arc::clone(server);
    Ok(Some(ControlPlane { server, runtime: Some(runtime), local_socket, _listeners: listeners }))
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.server.endpoints.close_all();
        let _ = std::fs::remove_file(&self.local_socket);
    }
}

fn listen(config: &Config, is_asked_for: bool) -> Result<(Listeners, Vec<std::net::TcpListener>)> {
    let port = config.admin_port;
    let mut listeners = Listeners::default();
    let endpoints = Endpoints {
        bind: config.bind.clone(),
        port,
        backlog: config.tcp_backlog,
        ..Endpoints::default()
    };
    let (change, result) = listeners.change(&endpoints);
    if result.is_err() {
        anyhow::ensure!(!is_asked_for, "Failed listening on port {port} (admin), aborting.");
        log::warning!("Going on without the admin port {port}");
        return Ok((Listeners::default(), Vec::new()));
    }
    let sockets = change.added.into_iter().filter_map(|(_, _, socket)| match socket {
        Socket::Tcp(socket) => Some(socket.into()),
        Socket::Unix(_) => None,
    });
    Ok((listeners, sockets.collect()))
}

async fn run(
    server: Arc<Server>,
    folder: PathBuf,
    sockets: Vec<std::net::TcpListener>,
    looked: duties::Looked,
) -> Result<()> {
    let member = Member::open(server, folder, &sockets).await?;
    let member = Arc::new(member);
    let live = Arc::new(live::NodeLive::new(Arc::clone(&member)));
    let admin = Admin::new(Arc::new(member.control.clone()), live, &member.folder)
        .context("The audit log")?;
    let front = Arc::new(Front::new(Arc::clone(&admin)));
    for socket in sockets {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let listener = TcpListener::from_std(socket)?;
        let member = Arc::clone(&member);
        let tls = Arc::new(move || member.acceptor.config());
        tokio::spawn(serve(listener, tls, Arc::clone(&front)));
        log::notice!("Ready to accept requests of operators at https://{address}");
    }
    match local_listener(&member.folder.join(LOCAL_SOCKET)) {
        Ok(listener) => {
            tokio::spawn(serve_local(listener, front));
        }
        Err(error) => log::warning!("No socket for local operators: {error}"),
    }
    tokio::spawn(admin.watch());
    if !join::is_member(&member) {
        let config = member.server.config();
        if !config.cluster_join.is_empty() {
            tokio::spawn(join::by_directive(Arc::clone(&member)));
        } else if config.cluster_bootstrap == ClusterBootstrap::Auto {
            found::by_itself(&member).await?;
        }
    }
    tokio::spawn(duties::watch(Arc::clone(&member), looked));
    live::answer_others(&member);
    tokio::spawn(forward::keep_links_new(Arc::clone(&member)));
    tokio::spawn(trust::follow(Arc::clone(&member)));
    tokio::spawn(leaves::watch(Arc::clone(&member)));
    tokio::spawn(shared::follow(Arc::clone(&member)));
    tokio::spawn(clients::follow(Arc::clone(&member)));
    tokio::spawn(transfers::follow(Arc::clone(&member)));
    reconcile::follow(member).await;
    Ok(())
}

impl Member {
    async fn open(
        server: Arc<Server>,
        folder: PathBuf,
        sockets: &[std::net::TcpListener],
    ) -> Result<Self> {
        let own = folder.join(FOLDER);
        make_folder(&own)?;
        let world = plane::World { server: Arc::clone(&server) };
        let keys = Arc::new(Keys::open(&folder)?);
        let control = Control::open(&own, Arc::new(world), Some(Arc::clone(&keys)))
            .await
            .context("The control plane's store")?;
        server.internode.register(plane::NAME, Arc::new(plane::Answers(control.clone())));
        let passes = endpoint::PassPlane(Arc::clone(&server));
        server.internode.register(endpoint::NAME, Arc::new(passes));
        let store = Store::open(&folder)?;
        let table = Arc::new(CertificateTable::open(&folder)?);
        if control.node().is_none() {
            // Until it is in a cluster, whose authority signs.
            shared::ensure_for(&table, &folder, DEFAULT_NAME, &[])?;
        }
        let served = table.served(CertificateName::Api);
        let acceptor = AdminAcceptor::new(served, &shared::settings_of(&control.state()))?;
        let admin_port =
            sockets.first().and_then(|it| it.local_addr().ok()).map_or(0, |it| it.port());
        let key = match control.node() {
            Some(_) => Some(Arc::new(SealKey::open(&store.seal_key_file())?)),
            None => None,
        };
        Ok(Self {
            server,
            control,
            folder,
            store,
            keys,
            table,
            key: ArcSwapOption::new(key),
            trusting: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            showing: Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            acceptor,
            admin_port,
        })
    }

    /// What private keys are sealed with.
    fn key(&self) -> Option<Arc<SealKey>> {
        self.key.load_full()
    }
}

/// Does what may take its time away from the threads of the control plane.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("The work ended before it was done")?
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Only its owner may open it.
fn local_listener(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody else gets into the folder of the data; for where that is not so, the mode.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

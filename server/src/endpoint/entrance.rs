//! The port of a database on a node that is not its primary's: who comes in here is served there.
//!
//! A client is met as it would be there: the first byte says whether it speaks TLS, the database's settings say
//! whether it may, and which certificate it has to show. Then the primary is reached, and told where the client
//! comes from and what it has shown; whether it is let in, and as whom, is decided by the primary alone.
//!
//! A client stays for as long as the primary it was sent to is the primary. When another is named the connection
//! ends, and the client's next one leads there.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use carnelian_config::Config;
use carnelian_tls::internode::{NodeUid, Signal};
use carnelian_tls::{Admission, ConfigError, TLS_REFUSED, TransitEncryption};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::dial::{self, NotReached, Reached, Secured};
use super::passage::{BoxStream, Outcome, Passage, ServerSide};
use super::visitor::{Visitor, shown};
use crate::connection::{Refusal, Stream};
use crate::database::Database;
use crate::databases::DatabaseSpec;
use crate::encryption::{Asked, Encryption};
use crate::internode::NodeTarget;
use crate::listener::{Acceptor, Endpoints as Places, Kind, ListenError, Listeners, reason};
use crate::log;
use crate::server::Server;
use crate::settings::Settings;

/// How long a client waits for a primary to be found. Clients have little more patience.
const REACH_TIME: Duration = Duration::from_secs(3);

/// Before a primary is tried again that was not reached.
const PAUSE: Duration = Duration::from_millis(50);

/// When clients are to be disconnected the primary does that; after this time, it is done here.
const GRACE: Duration = Duration::from_secs(3);

/// Before a link is tried again to be exchanged.
const AGAIN: Duration = Duration::from_secs(1);

/// For a handshake, where the settings set no limit.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);

/// For last words.
const FAREWELL: Duration = Duration::from_secs(1);

/// After an error of a listener that is not a connection's, such as too many open files.
const STUCK: Duration = Duration::from_millis(50);

/// What a client is told when its time is up.
const UNREACHED: &[u8] =
    b"-MASTERDOWN The primary of this database cannot be reached. Try again later.\r\n";

/// Where clients are led to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// The primary's node.
    pub target: NodeTarget,
    /// Of the placement.
    pub epoch: u64,
    /// What passes between nodes for this database is to be encrypted.
    pub encrypted: bool,
    /// How often its clients have been disconnected.
    pub disconnects: u64,
}

/// How clients are met.
pub enum House {
    /// As the database on this node says, which is a replica.
    Shared(Arc<Database>),
    /// There is none here.
    Own {
        spec: Box<DatabaseSpec>,
        config: Box<Config>,
        settings: Arc<Settings>,
        encryption: Encryption,
    },
}

impl House {
    pub fn own(spec: DatabaseSpec, config: Config, encryption: Encryption) -> Self {
        let settings = Arc::new(Settings::new(&config));
        Self::Own { spec: Box::new(spec), config: Box::new(config), settings, encryption }
    }

    fn settings(&self) -> Arc<Settings> {
        match self {
            Self::Shared(database) => database.settings.load_full(),
            Self::Own { settings, .. } => Arc::clone(settings),
        }
    }

    fn encryption(&self) -> &Encryption {
        match self {
            Self::Shared(database) => &database.tls,
            Self::Own { encryption, .. } => encryption,
        }
    }

    /// None where there is no certificate.
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        let configuration = self.encryption().configuration()?;
        Some(Arc::clone(configuration.server()))
    }
}

pub struct Entrance {
    pub database: u32,
    house: ArcSwap<House>,
    routes: watch::Sender<Option<Route>>,
    /// Doors of its own, where no database listens here that shares its.
    doors: Mutex<Doors>,
    inside: AtomicUsize,
}

#[derive(Default)]
struct Doors {
    listeners: Listeners,
    tasks: Vec<AbortHandle>,
    try_again_at: Option<std::time::Instant>,
}

/// A client that has come in.
pub struct Incoming {
    pub stream: Stream,
    pub kind: Kind,
    pub peer: Option<SocketAddr>,
}

impl Entrance {
    pub fn new(database: u32, house: House) -> Arc<Self> {
        Arc::new(Self {
            database,
            house: ArcSwap::from_pointee(house),
            routes: watch::Sender::new(None),
            doors: Mutex::default(),
            inside: AtomicUsize::new(0),
        })
    }

    /// Has clients that come from now on be met in another way.
    pub fn furnish(&self, house: House) {
        self.house.store(Arc::new(house));
    }

    /// Whether clients are met as a database here says.
    pub fn is_shared(&self) -> bool {
        matches!(**self.house.load(), House::Shared(_))
    }

    /// Whether clients are met as this says, by no database here.
    pub fn is_furnished_by(&self, wanted: &DatabaseSpec) -> bool {
        matches!(&**self.house.load(), House::Own { spec, .. } if **spec == *wanted)
    }

    /// Speaks TLS with clients as the cluster says, if no database here does.
    pub fn encrypt(&self, asked: &Asked) -> Result<(), ConfigError> {
        match &**self.house.load() {
            House::Own { config, encryption, .. } => encryption.follow(asked.clone(), config),
            House::Shared(_) => Ok(()),
        }
    }

    /// Shows clients what this node has been given for them, if no database here does.
    pub fn renew_tls(&self) -> Result<(), ConfigError> {
        match &**self.house.load() {
            House::Own { config, encryption, .. } => encryption.renew(config),
            House::Shared(_) => Ok(()),
        }
    }

    /// When its port is to be tried again, if it could not be had.
    pub fn try_again_at(&self) -> Option<std::time::Instant> {
        self.doors.lock().try_again_at
    }

    pub fn set_try_again_at(&self, at: Option<std::time::Instant>) {
        self.doors.lock().try_again_at = at;
    }

    pub fn route(&self) -> Option<Route> {
        self.routes.borrow().clone()
    }

    /// Leads clients elsewhere, or nowhere for now.
    pub fn lead(&self, route: Option<Route>) {
        self.routes.send_if_modified(|now| {
            let is_new = *now != route;
            if is_new {
                *now = route;
            }
            is_new
        });
    }

    /// How many clients are inside.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    /// Whether it has doors of its own, and they are open.
    pub fn is_open(&self) -> bool {
        !self.doors.lock().listeners.is_empty()
    }

    /// Listens at these places, and nowhere else.
    pub fn listen(self: &Arc<Self>, server: &Arc<Server>, at: &Places) -> Result<(), ListenError> {
        let mut doors = self.doors.lock();
        let Some(handle) = server.endpoints.handle() else { return Ok(()) };
        let (change, result) = doors.listeners.change(at);
        // Those that were given up end by themselves: their sockets are shut.
        doors.tasks.retain(|task| !task.is_finished());
        for (_, kind, socket) in change.added {
            let Acceptor::Tcp(socket) = socket else { continue };
            let socket = std::net::TcpListener::from(socket);
            let work = accept(Arc::downgrade(self), Arc::clone(server), kind, socket);
            doors.tasks.push(handle.spawn(work).abort_handle());
        }
        result
    }

    /// Closes the doors of its own.
    pub fn shut(&self) {
        let mut doors = self.doors.lock();
        doors.listeners.close();
        doors.tasks.drain(..).for_each(|task| task.abort());
    }

    /// The end: nobody comes in any more, and who is in has to leave.
    pub fn close(&self) {
        self.shut();
        self.lead(None);
    }

    /// Takes a client in. Returns at once.
    pub fn welcome(self: &Arc<Self>, server: &Arc<Server>, incoming: Incoming) {
        let Some(handle) = server.endpoints.handle() else { return };
        let (entrance, server) = (Arc::clone(self), Arc::clone(server));
        handle.spawn(async move {
            let Incoming { stream, kind, peer } = incoming;
            let _ = match stream {
                Stream::Tcp(socket) => {
                    let socket = TcpStream::from_std(socket.into());
                    match socket {
                        Ok(socket) => entrance.meet(&server, socket, kind, peer).await,
                        Err(error) => Err(error),
                    }
                }
                Stream::Unix(socket) => match UnixStream::from_std(StdUnixStream::from(socket)) {
                    Ok(socket) => entrance.meet_unix(&server, socket).await,
                    Err(error) => Err(error),
                },
            };
        });
    }

    /// Finds out what a client speaks, and goes on in that.
    async fn meet(
        self: Arc<Self>,
        server: &Arc<Server>,
        mut socket: TcpStream,
        kind: Kind,
        peer: Option<SocketAddr>,
    ) -> io::Result<()> {
        let house = self.house.load_full();
        let settings = house.settings();
        let mode = settings.transit_encryption;
        let Some(_place) = Place::take(&self, settings.clients_max) else {
            if kind == Kind::Tcp && mode != TransitEncryption::Required {
                say(&mut socket, Refusal::TooManyClients.text()).await;
            }
            return Ok(());
        };
        prepare(&socket, settings.tcp_keepalive);
        let peer = peer.or_else(|| socket.peer_addr().ok());
        let mut visitor = Visitor {
            address: shown(peer),
            local_address: shown(socket.local_addr().ok()),
            is_tls: false,
            is_local: peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()),
            certificate: None,
        };
        let admission = match kind {
            Kind::Tls => Admission::Tls,
            _ => {
                let mut first = [0];
                if socket.peek(&mut first).await? == 0 {
                    return Ok(());
                }
                mode.admit(first[0])
            }
        };
        match admission {
            Admission::Plain => self.lead_on(server, Box::new(socket), visitor).await,
            Admission::Refuse(text) => say(&mut socket, text).await,
            Admission::Tls => {
                let Some(tls) = house.tls() else {
                    say(&mut socket, TLS_REFUSED).await;
                    return Ok(());
                };
                let limit = settings.handshake_timeout.unwrap_or(HANDSHAKE_TIME);
                let shaken = timeout(limit, TlsAcceptor::from(tls).accept(socket)).await;
                let failed = |reason: &dyn std::fmt::Display| {
                    let address = &visitor.address;
                    log::verbose!("Error accepting a client connection: {reason} (addr={address})");
                };
                let stream = match shaken {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        failed(&error);
                        return Ok(());
                    }
                    Err(_) => {
                        failed(&"handshake timed out");
                        return Ok(());
                    }
                };
                visitor.is_tls = true;
                let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
                visitor.certificate = shown.map(|der| CertificateDer::from(der.to_vec()));
                self.lead_on(server, Box::new(stream), visitor).await;
            }
        }
        Ok(())
    }

    /// What is on a unix socket does not leave the machine, and has come through permissions.
    async fn meet_unix(
        self: Arc<Self>,
        server: &Arc<Server>,
        mut socket: UnixStream,
    ) -> io::Result<()> {
        let settings = self.house.load().settings();
        let Some(_place) = Place::take(&self, settings.clients_max) else {
            let _ = socket.write_all(Refusal::TooManyClients.text()).await;
            return Ok(());
        };
        let path = match &**self.house.load() {
            House::Shared(database) => database.listeners.lock().unix_path(),
            House::Own { .. } => None,
        };
        let address = format!("{}:0", path.unwrap_or_default().replace(' ', "_"));
        let visitor = Visitor {
            address: address.clone(),
            local_address: address,
            is_tls: false,
            is_local: true,
            certificate: None,
        };
        self.lead_on(server, Box::new(socket), visitor).await;
        Ok(())
    }

    /// Finds the primary for a client, and passes on between them until that ends.
    async fn lead_on(&self, server: &Arc<Server>, mut client: BoxStream, visitor: Visitor) {
        match self.reach(server, &visitor).await {
            Ok((reached, route)) => {
                server.endpoints.sent_on.fetch_add(1, Ordering::Relaxed);
                self.stay_with(server, client, reached, route).await;
            }
            Err(text) => {
                server.endpoints.unreached.fetch_add(1, Ordering::Relaxed);
                say(&mut client, &text).await;
            }
        }
    }

    /// Tries until the primary has let the client in, or it is time to give up. What the client is told then.
    async fn reach(&self, server: &Server, visitor: &Visitor) -> Result<(Reached, Route), Vec<u8>> {
        let mut routes = self.routes.subscribe();
        let until = Instant::now() + REACH_TIME;
        let mut last = "nobody is its primary".to_owned();
        loop {
            let route = routes.borrow_and_update().clone();
            if let Some(route) = route {
                tokio::select! {
                    reached = dial::dial(server, self.database, &route, visitor) => match reached {
                        Ok(reached) => return Ok((reached, route)),
                        Err(NotReached::Refused(text)) => return Err(text),
                        Err(NotReached::Later(reason)) => last = reason,
                    },
                    _ = routes.changed() => continue,
                    () = sleep_until(until) => {}
                }
            }
            tokio::select! {
                _ = routes.changed() => {}
                () = sleep(PAUSE) => {}
                () = sleep_until(until) => {
                    let (address, database) = (&visitor.address, self.database);
                    log::verbose!("No primary of database {database} for {address}: {last}");
                    return Err(UNREACHED.to_vec());
                }
            }
        }
    }

    async fn stay_with(
        &self,
        server: &Arc<Server>,
        client: BoxStream,
        reached: Reached,
        route: Route,
    ) {
        let Reached { stream, secured, welcome } = reached;
        let mut stay = Stay {
            entrance: self,
            server,
            routes: self.routes.subscribe(),
            shown: server.endpoints.shown.subscribe(),
            passage: Passage::new(client, stream, ServerSide::Far),
            route,
            client: welcome.client,
            disconnects: welcome.disconnects,
            secured,
            moving: Moving::No,
            ends_at: None,
        };
        // What has changed since the route was taken is seen at once.
        stay.routes.mark_changed();
        stay.shown.mark_changed();
        stay.run().await;
    }
}

/// A client that is being served elsewhere.
struct Stay<'a> {
    entrance: &'a Entrance,
    server: &'a Arc<Server>,
    routes: watch::Receiver<Option<Route>>,
    shown: watch::Receiver<BTreeMap<NodeUid, String>>,
    passage: Passage,
    route: Route,
    /// Its number at the primary, and how often clients there had been disconnected when it came.
    client: u64,
    disconnects: u64,
    /// None: its link is not encrypted.
    secured: Option<Secured>,
    moving: Moving,
    /// It was to be disconnected, and is if nobody else does.
    ends_at: Option<Instant>,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Reached, NotReached>> + Send>>;

/// On its way to another link.
enum Moving {
    No,
    /// The last attempt failed.
    Later(Instant),
    Dialling(Dialling),
    /// The old link is being emptied.
    Begun(Reached),
}

impl Stay<'_> {
    async fn run(&mut self) {
        loop {
            let Self { passage, routes, shown, moving, secured, ends_at, .. } = self;
            let told = secured.as_mut().map(|secured| &mut secured.signal);
            let is_still = matches!(moving, Moving::No);
            tokio::select! {
                outcome = passage.run() => {
                    match (outcome, std::mem::replace(&mut self.moving, Moving::No)) {
                        (Outcome::Moved, Moving::Begun(reached)) => self.take(reached),
                        _ => return,
                    }
                }
                changed = routes.changed() => {
                    if changed.is_err() || !self.heed() {
                        return;
                    }
                }
                Ok(()) = shown.changed(), if is_still => {
                    if self.is_outdated() {
                        self.begin_to_move();
                    }
                }
                () = remade(told), if is_still => self.begin_to_move(),
                step = next_step(moving) => match step {
                    Step::Again => self.begin_to_move(),
                    Step::Dialled(Ok(reached)) => {
                        self.passage.begin_to_move();
                        self.moving = Moving::Begun(reached);
                    }
                    Step::Dialled(Err(error)) => {
                        log::debug!("A client's link was not exchanged: {error:?}");
                        self.passage.stay();
                        self.moving = Moving::Later(Instant::now() + AGAIN);
                    }
                },
                () = ended(*ends_at) => return,
            }
        }
    }

    /// Takes notice of where clients are led now. False if this one has to leave.
    fn heed(&mut self) -> bool {
        let Some(now) = self.routes.borrow_and_update().clone() else { return false };
        if now.target.node != self.route.target.node {
            return false;
        }
        self.route = now;
        if self.disconnects < self.route.disconnects {
            self.ends_at.get_or_insert(Instant::now() + GRACE);
        } else if self.route.encrypted && self.secured.is_none() {
            self.begin_to_move();
        }
        true
    }

    /// The other end shows another certificate by now.
    fn is_outdated(&mut self) -> bool {
        let shown = self.shown.borrow_and_update();
        let now = shown.get(&self.route.target.node);
        let known = self.secured.as_ref().map(|secured| &secured.peer_serial);
        now.zip(known).is_some_and(|(now, known)| now != known)
    }

    fn begin_to_move(&mut self) {
        if !matches!(self.moving, Moving::No | Moving::Later(_)) {
            return;
        }
        self.moving = Moving::No;
        if !self.passage.prepare_to_move() {
            // It is about to end.
            return;
        }
        let (server, database) = (Arc::clone(self.server), self.entrance.database);
        let (route, client) = (self.route.clone(), self.client);
        self.moving = Moving::Dialling(Box::pin(async move {
            dial::dial_again(&server, database, &route, client).await
        }));
    }

    fn take(&mut self, reached: Reached) {
        let Reached { stream, secured, .. } = reached;
        self.passage.go_on(stream);
        self.secured = secured;
        // It may have changed once more.
        self.shown.mark_changed();
        self.server.endpoints.moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Until a link is to be made anew.
async fn remade(told: Option<&mut watch::Receiver<Signal>>) {
    let is_over = match told {
        None => true,
        Some(told) => told.wait_for(|signal| *signal == Signal::Remake).await.is_err(),
    };
    if is_over {
        std::future::pending::<()>().await;
    }
}

/// What comes of being on the way to another link.
enum Step {
    Dialled(Result<Reached, NotReached>),
    Again,
}

async fn next_step(moving: &mut Moving) -> Step {
    match moving {
        Moving::Dialling(dialling) => Step::Dialled(dialling.await),
        Moving::Later(at) => {
            sleep_until(*at).await;
            Step::Again
        }
        Moving::No | Moving::Begun(_) => std::future::pending().await,
    }
}

/// Until then; for ever, if there is no such time.
async fn ended(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A place among those who are inside.
struct Place(Arc<Entrance>);

impl Place {
    fn take(entrance: &Arc<Entrance>, places: usize) -> Option<Self> {
        let place = Self(Arc::clone(entrance));
        // Counted before it is compared, so that there are never too many.
        (entrance.inside.fetch_add(1, Ordering::Relaxed) < places).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes clients at one place, until that is given up.
async fn accept(
    entrance: Weak<Entrance>,
    server: Arc<Server>,
    kind: Kind,
    socket: std::net::TcpListener,
) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return log::warning!("Could not watch a listener: {error}"),
    };
    loop {
        let accepted = listener.accept().await;
        let Some(entrance) = entrance.upgrade() else { return };
        match accepted {
            Ok((socket, peer)) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move { entrance.meet(&server, socket, kind, Some(peer)).await });
            }
            Err(error) => match error.kind() {
                // It was given up.
                io::ErrorKind::InvalidInput => return,
                io::ErrorKind::ConnectionAborted => {}
                _ => {
                    log::warning!("Accepting client connection: accept: {}", reason(&error));
                    sleep(STUCK).await;
                }
            },
        }
    }
}

/// Sets a client's socket up. Without this it is served all the same.
fn prepare(socket: &TcpStream, keepalive: Option<Duration>) {
    let _ = socket.set_nodelay(true);
    if let Some(idle) = keepalive {
        let interval = (idle / 3).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(3);
        let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
    }
}

/// Says something that nothing follows.
async fn say(client: &mut (impl AsyncWrite + Unpin), text: &[u8]) {
    let last_words = async {
        client.write_all(text).await?;
        client.shutdown().await
    };
    // Who does not listen does not hear it.
    let _ = timeout(FAREWELL, last_words).await;
}

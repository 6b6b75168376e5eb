//! Reaching the primary of a database for one client.
//!
//! Over TLS the link itself says who this is, and the client's document follows. Without encryption a pass is asked
//! for first, over a link of the control plane that is kept for the next client: this costs one question
//! and answer a client. A primary that says that its database is encrypted is reached over TLS whatever is known here;
//! the other way round nobody's word counts.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use carnelian_tls::internode::{Frames, Link, NodeUid, Plane, Signal};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, watch};
use tokio::time::timeout;

use super::arrival::{ENCRYPTED, NAME, PASS};
use super::entrance::Route;
use super::passage::BoxStream;
use super::visitor::{Answer, Ask, Opening, Visitor, Welcome};
use crate::internode::{Channel, NodeTarget, Ticket, connect_control, unhex};
use crate::server::Server;

/// Links that are being made at a time. The other end takes not many more, from all nodes.
const DIALS_MAX: usize = 48;

/// For an answer, when there is a link.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How long a link is kept that passes are asked for on, and how often that is looked at.
const IDLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(2);

/// No answer to that is longer.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// What is kept of the ways to other nodes.
pub struct Paths {
    /// On which passes are asked for.
    asking: Mutex<BTreeMap<NodeUid, Arc<AsyncMutex<Option<Asking>>>>>,
    turns: Semaphore,
}

impl Default for Paths {
    fn default() -> Self {
        Self { asking: Mutex::default(), turns: Semaphore::new(DIALS_MAX) }
    }
}

struct Asking {
    target: NodeTarget,
    link: Frames,
    used: Instant,
}

impl Paths {
    /// Drops links that nobody has used for a while, and those that are to be made anew, for as long as there
    /// is somebody to use them.
    pub async fn look_after(paths: Weak<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(paths) = paths.upgrade() else { return };
            let all: Vec<_> = paths.asking.lock().values().cloned().collect();
            for kept in all {
                // Whoever uses it now will see for itself.
                let Ok(mut kept) = kept.try_lock() else { continue };
                let is_good = |asking: &mut Asking| {
                    let is_new = *asking.link.stream().signal().borrow() == Signal::Keep;
                    is_new && asking.used.elapsed() < IDLE
                };
                let _ = kept.take_if(|asking| !is_good(asking));
            }
        }
    }
}

/// A link on which the primary has taken the client in.
pub struct Reached {
    pub stream: BoxStream,
    /// What there is to know of a link over TLS; none: it is not encrypted.
    pub secured: Option<Secured>,
    pub welcome: Welcome,
}

pub struct Secured {
    /// The certificate that the other end has shown.
    pub peer_serial: String,
    /// Told when the link is to be made anew.
    pub signal: watch::Receiver<Signal>,
}

/// Why it was not reached.
#[derive(Debug)]
pub enum NotReached {
    /// What the client is to be told.
    Refused(Vec<u8>),
    /// It may work later, or elsewhere.
    Later(String),
}

fn later(target: &NodeTarget, reason: &dyn Display) -> NotReached {
    NotReached::Later(format!("{target}: {reason}"))
}

/// Makes a link for a client.
pub async fn dial(
    server: &Server,
    database: u32,
    route: &Route,
    visitor: &Visitor,
) -> Result<Reached, NotReached> {
    let target = &route.target;
    let (channel, address) = way(server, target).await?;
    let paths = &server.endpoints.paths;
    let _turn = paths.turns.acquire().await.map_err(|error| later(target, &error))?;
    let ask = Ask { database, node: channel.node.uid(), epoch: route.epoch };
    if !route.encrypted
        && let Some((port, ticket)) = pass(paths, &channel, target, address, ask, visitor).await?
    {
        let address = SocketAddr::new(address.ip(), port);
        return plain(&channel, target, address, &Opening::Pass { ask, ticket }).await;
    }
    let document = visitor.to_bytes();
    let opening = Opening::Forward { ask, bytes: document.len() };
    encrypted(&channel, target, address, &opening, &document).await
}

/// Makes another link for a client that the primary has.
pub async fn dial_again(
    server: &Server,
    database: u32,
    route: &Route,
    client: u64,
) -> Result<Reached, NotReached> {
    let target = &route.target;
    let (channel, address) = way(server, target).await?;
    let _turn =
        server.endpoints.paths.turns.acquire().await.map_err(|error| later(target, &error))?;
    let ask = Ask { database, node: channel.node.uid(), epoch: route.epoch };
    encrypted(&channel, target, address, &Opening::Move { ask, client }, b"").await
}

/// The first address of a node: each has one.
async fn way(
    server: &Server,
    target: &NodeTarget,
) -> Result<(Arc<Channel>, SocketAddr), NotReached> {
    let channel = server.internode.channel();
    let channel = channel.ok_or_else(|| later(target, &"this node has no certificates"))?;
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let mut found = found.map_err(|error| later(target, &error))?;
    let address = found.next().ok_or_else(|| later(target, &"no address for this name"))?;
    Ok((channel, address))
}

async fn encrypted(
    channel: &Channel,
    target: &NodeTarget,
    address: SocketAddr,
    opening: &Opening,
    document: &[u8],
) -> Result<Reached, NotReached> {
    let connector = channel.connector();
    let connecting = connector.connect(address, target.node, Plane::Data);
    let mut link: Link = connecting.await.map_err(|refusal| later(target, &refusal))?;
    watch_over(&link.socket());
    let secured = Secured { peer_serial: link.peer().serial.to_string(), signal: link.signal() };
    let welcome = open(target, &mut link, opening, document).await?;
    Ok(Reached { stream: Box::new(link), secured: Some(secured), welcome })
}

async fn plain(
    channel: &Channel,
    target: &NodeTarget,
    address: SocketAddr,
    opening: &Opening,
) -> Result<Reached, NotReached> {
    let source = channel.node.source();
    let connecting = in_time(source.connect_async(address)).await;
    let mut socket = connecting.map_err(|error| later(target, &error))?;
    let _ = socket.set_nodelay(true);
    watch_over(&SockRef::from(&socket));
    let welcome = open(target, &mut socket, opening, b"").await?;
    Ok(Reached { stream: Box::new(socket), secured: None, welcome })
}

/// Has a link end whose other end is silent for good: most clients are, most of the time, so nothing else
/// would tell. Without this it works all the same.
pub fn watch_over(socket: &SockRef<'_>) {
    let idle = Duration::from_secs(15);
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(idle / 3).with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// Says whose link it is, and waits until that is taken.
async fn open(
    target: &NodeTarget,
    link: &mut (impl AsyncRead + AsyncWrite + Unpin),
    opening: &Opening,
    document: &[u8],
) -> Result<Welcome, NotReached> {
    let answer = in_time(async {
        let mut said = opening.line().into_bytes();
        said.extend_from_slice(document);
        link.write_all(&said).await?;
        link.flush().await?;
        Answer::read(link).await
    });
    match answer.await {
        Ok(Some(Answer::Welcome(welcome))) => Ok(welcome),
        Ok(Some(Answer::Refused(text))) => Err(NotReached::Refused(text)),
        Ok(Some(Answer::Later(reason))) => Err(later(target, &reason)),
        Ok(None) => Err(later(target, &"it answers as no node does")),
        Err(error) => Err(later(target, &error)),
    }
}

/// Asks for a pass; none where the database is encrypted there.
async fn pass(
    paths: &Paths,
    channel: &Channel,
    target: &NodeTarget,
    address: SocketAddr,
    ask: Ask,
    visitor: &Visitor,
) -> Result<Option<(u16, Ticket)>, NotReached> {
    let kept = Arc::clone(paths.asking.lock().entry(target.node).or_default());
    let mut kept = kept.lock().await;
    let document = visitor.to_bytes();
    let mut request = Opening::Forward { ask, bytes: document.len() }.line().into_bytes();
    request.extend_from_slice(&document);
    let answer = match kept.take().filter(|asking| asking.target == *target) {
        Some(mut asking) => match question(&mut asking.link, &request).await {
            Ok(answer) => {
                asking.used = Instant::now();
                *kept = Some(asking);
                Some(answer)
            }
            // It may have ended long ago.
            Err(_) => None,
        },
        None => None,
    };
    let answer = match answer {
        Some(answer) => answer,
        None => {
            let connecting = timeout(ANSWER_TIME, connect_control(channel, target, address, NAME));
            let link = connecting.await.map_err(|_| later(target, &"no answer in time"))?;
            let mut link = link.map_err(NotReached::Later)?;
            link.allow(ANSWER_BYTES_MAX);
            let answer = question(&mut link, &request).await;
            let answer = answer.map_err(|error| later(target, &error))?;
            *kept = Some(Asking { target: target.clone(), link, used: Instant::now() });
            answer
        }
    };
    drop(kept);
    if answer == ENCRYPTED {
        return Ok(None);
    }
    let pass = std::str::from_utf8(&answer).ok().and_then(|text| text.strip_prefix(PASS));
    if let Some(pass) = pass {
        let (port, digits) = pass.split_once(' ').unwrap_or_default();
        let pass = port.parse().ok().zip(unhex(digits));
        return pass.map(Some).ok_or_else(|| later(target, &"it hands out no pass"));
    }
    match Answer::read(&mut answer.as_slice()).await {
        Ok(Some(Answer::Refused(text))) => Err(NotReached::Refused(text)),
        Ok(Some(Answer::Later(reason))) => Err(later(target, &reason)),
        _ => Err(later(target, &"it answers as no node does")),
    }
}

async fn question(link: &mut Frames, request: &[u8]) -> io::Result<Vec<u8>> {
    let answer = in_time(async {
        link.send(request).await?;
        link.receive().await
    });
    answer.await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(ANSWER_TIME, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}

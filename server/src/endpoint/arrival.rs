//! The primary's side: a link from the node that a client has come to becomes an ordinary client here.
//!
//! It gets its place on a reactor through a socket pair, as links over TLS always do, so that the link behind it can
//! be exchanged for another without the reactor, or the client, noticing.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use carnelian_config::ClientCertificates;
use carnelian_tls::internode::{ControlPlane, Frames, Link, NodeUid};
use carnelian_tls::{ENCRYPTION_REQUIRED, TransitEncryption};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::dial::watch_over;
use super::passage::{BoxStream, Outcome, Passage, ServerSide};
use super::visitor::{Answer, Ask, Opening, VISITOR_BYTES_MAX, Visitor, Welcome};
use crate::clients::Origin;
use crate::clock;
use crate::connection::{Accepted, Refusal, Stream, Whose};
use crate::database::Database;
use crate::databases::Stage;
use crate::internode::{NotLetIn, Ticket, hex, within_limit};
use crate::listener::Kind;
use crate::log;
use crate::mailbox::Message;
use crate::server::Server;

/// What is spoken on links of the control plane on which passes are asked for.
pub const NAME: &str = "forward/1";

/// A client that has come through another node.
pub struct Hosted {
    pub(super) node: NodeUid,
    /// Its link is.
    pub(super) is_encrypted: bool,
    moves: mpsc::Sender<Move>,
}

/// Another link is to take the place of a client's.
struct Move {
    /// Told whether there is still something to be moved.
    prepared: oneshot::Sender<bool>,
    link: oneshot::Receiver<BoxStream>,
}

/// Takes a link over TLS that has begun with this.
pub async fn arrive(
    server: &Arc<Server>,
    mut link: Link,
    opening: Opening,
    turn: OwnedSemaphorePermit,
) -> Result<(), NotLetIn> {
    let node = link.peer().identity.node;
    let (Opening::Forward { ask, .. } | Opening::Pass { ask, .. } | Opening::Move { ask, .. }) =
        opening;
    if ask.node != node {
        return Err(NotLetIn::NotItself { proven: node.get(), claimed: ask.node.get() });
    }
    match opening {
        Opening::Forward { ask, bytes } => {
            let mut document = vec![0; bytes];
            within_limit(async { link.read_exact(&mut document).await.map(Some) }).await?;
            let visitor = Visitor::parse(&document).ok_or(NotLetIn::Garbage)?;
            drop(turn);
            let switches = switches(server, ask.database);
            seat(server, ask, visitor, switches, Over::Tls(Box::new(link))).await
        }
        Opening::Move { ask, client } => {
            drop(turn);
            exchange(server, ask, client, link).await
        }
        // That is for links that are not encrypted.
        Opening::Pass { .. } => Err(NotLetIn::Garbage),
    }
}

/// The same for a link that is not encrypted.
pub async fn arrive_plain(
    server: &Arc<Server>,
    socket: TcpStream,
    opening: Opening,
    turn: OwnedSemaphorePermit,
) -> Result<(), NotLetIn> {
    let Opening::Pass { ask: Ask { database: uid, node, .. }, ticket } = opening else {
        return Err(NotLetIn::NoTicket);
    };
    let redeemed = server.endpoints.passes.redeem(&ticket, uid, node, Instant::now());
    let (ask, visitor) = redeemed.ok_or(NotLetIn::BadPass)?;
    let switches = switches(server, uid);
    if server.database(uid).is_ok_and(|database| database.internode.is_encrypted()) {
        return Err(NotLetIn::Encrypted(uid));
    }
    drop(turn);
    seat(server, ask, visitor, switches, Over::Plain(socket)).await
}

enum Over {
    Tls(Box<Link>),
    Plain(TcpStream),
}

/// Gives a client its place, or says why not.
async fn seat(
    server: &Arc<Server>,
    ask: Ask,
    visitor: Visitor,
    switches: Option<u64>,
    over: Over,
) -> Result<(), NotLetIn> {
    let (mut link, is_encrypted): (BoxStream, bool) = match over {
        Over::Tls(link) => {
            watch_over(&link.socket());
            (link, true)
        }
        Over::Plain(socket) => {
            watch_over(&SockRef::from(&socket));
            (Box::new(socket), false)
        }
    };
    let seated = match admit(server, ask, &visitor) {
        Ok((database, disconnects)) => {
            let Some(handle) = server.endpoints.handle() else { return Err(NotLetIn::Lost) };
            let seated = take_in(server, &database, ask.node, visitor, is_encrypted);
            let seated = seated.map_err(|_| NotLetIn::Lost)?;
            // Whoever has changed the setting meanwhile may have looked for it before it was there.
            let channel = &database.internode;
            if Some(channel.switches()) != switches && channel.is_encrypted() && !is_encrypted {
                database.clients.find(seated.place.client).iter().for_each(|client| client.kill());
            }
            Ok((handle, disconnects, seated))
        }
        Err(answer) => Err(answer),
    };
    let answer = match &seated {
        Ok((_, disconnects, seated)) => {
            Answer::Welcome(Welcome { client: seated.place.client, disconnects: *disconnects })
        }
        Err(answer) => answer.clone(),
    };
    within_limit(async {
        link.write_all(&answer.line()).await?;
        link.flush().await.map(Some)
    })
    .await?;
    match seated {
        Ok((handle, _, seated)) => {
            handle.spawn(host(seated, link));
        }
        Err(_) => {
            let _ = within_limit(async { link.shutdown().await.map(Some) }).await;
        }
    }
    Ok(())
}

/// Whether a client may come in, to which database, and how often others have had to go.
fn admit(server: &Server, ask: Ask, visitor: &Visitor) -> Result<(Arc<Database>, u64), Answer> {
    let later = |reason: &str| Answer::Later(format!("database {}: {reason}", ask.database));
    let database =
        server.database(ask.database).map_err(|error| Answer::Later(error.to_string()))?;
    let primacy = database.endpoint.primacy();
    let primacy = primacy.ok_or_else(|| later("this node is not its primary"))?;
    if primacy.epoch < ask.epoch {
        return Err(later("this node is yet to hear of its placement"));
    }
    if database.stage.get() == Stage::Gone {
        return Err(later("it is being removed"));
    }
    let settings = database.settings.load();
    if settings.transit_encryption == TransitEncryption::Required && !visitor.is_tls {
        // The other node is yet to hear of that.
        return Err(Answer::Refused(ENCRYPTION_REQUIRED.to_vec()));
    }
    let is_admitted = match &visitor.certificate {
        Some(certificate) => {
            let spec = database.spec.load();
            spec.as_ref().is_none_or(|spec| spec.client_subjects.admit(certificate))
        }
        None => {
            let asked = database.config().tls_auth_clients;
            if visitor.is_tls && asked == ClientCertificates::Required {
                return Err(later("its clients have to show certificates"));
            }
            true
        }
    };
    let refusal = if !is_admitted {
        Refusal::Subject
    } else if settings.clients_max <= database.clients.len() {
        Refusal::TooManyClients
    } else if settings.protected_mode
        && database.acl.default_user().any_password
        && !visitor.is_local
    {
        Refusal::ProtectedMode
    } else {
        return Ok((database, primacy.disconnects));
    };
    let of = Arc::clone(&database);
    server.mailboxes[0].post(Message::Run(Box::new(move |worker| {
        let counters = worker.counters(&of);
        counters.connections_received.add(1);
        counters.connections_rejected.add(1);
    })));
    Err(Answer::Refused(refusal.text().to_vec()))
}

/// A client that a reactor has, and our end of the pair that it is reached by.
struct Seated {
    place: Place,
    ours: UnixStream,
    moves: mpsc::Receiver<Move>,
}

/// A client's entry among those that have come from other nodes.
struct Place {
    database: Arc<Database>,
    client: u64,
}

impl Place {
    /// Links are exchanged for such over TLS only.
    fn is_encrypted_now(&self) {
        if let Some(hosted) = self.database.endpoint.hosted.lock().get_mut(&self.client) {
            hosted.is_encrypted = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.database.endpoint.hosted.lock().remove(&self.client);
    }
}

fn take_in(
    server: &Server,
    database: &Arc<Database>,
    node: NodeUid,
    visitor: Visitor,
    is_encrypted: bool,
) -> io::Result<Seated> {
    let (theirs, ours) = StdUnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    ours.set_nonblocking(true)?;
    let ours = {
        let handle = server.endpoints.handle().ok_or(io::ErrorKind::OutOfMemory)?;
        let _inside = handle.enter();
        UnixStream::from_std(ours)?
    };
    let stream = Stream::Unix(mio::net::UnixStream::from_std(theirs));
    let reactor = database.clients.len() % server.mailboxes.len();
    let Visitor { address, local_address, is_tls, is_local, certificate } = visitor;
    let shared = database.clients.add(Origin {
        address,
        local_address,
        file_descriptor: stream.descriptor(),
        reactor,
        mailbox: Arc::clone(&server.mailboxes[reactor]),
        now_ms: clock::wall_ms(),
    });
    shared.tls.store(is_tls, Ordering::Relaxed);
    let (sender, moves) = mpsc::channel(1);
    database.endpoint.hosted.lock().insert(shared.id, Hosted { node, is_encrypted, moves: sender });
    let how = if is_encrypted { "over TLS" } else { "not encrypted" };
    log::verbose!("Accepted {} through node {node}, {how}", shared.address);
    let place = Place { database: Arc::clone(database), client: shared.id };
    server.mailboxes[reactor].post(Message::Accept(Box::new(Accepted {
        stream,
        kind: Kind::Unix,
        database: Arc::clone(database),
        shared,
        loopback: is_local,
        refusal: None,
        whose: Whose::Visitor(certificate.map(Box::new)),
    })));
    Ok(Seated { place, ours, moves })
}

/// Passes on between a client's link and its reactor until either ends.
async fn host(seated: Seated, link: BoxStream) {
    let Seated { place, ours, mut moves } = seated;
    let mut passage = Passage::new(Box::new(ours), link, ServerSide::Near);
    let mut coming: Option<oneshot::Receiver<BoxStream>> = None;
    let mut next = None;
    loop {
        let is_still = coming.is_none() && next.is_none();
        tokio::select! {
            outcome = passage.run() => match (outcome, next.take()) {
                (Outcome::Moved, Some(link)) => {
                    passage.go_on(link);
                    place.is_encrypted_now();
                }
                _ => break,
            },
            Some(Move { prepared, link }) = moves.recv(), if is_still => {
                let is_prepared = passage.prepare_to_move();
                if prepared.send(is_prepared).is_ok() && is_prepared {
                    coming = Some(link);
                } else if is_prepared {
                    passage.stay();
                }
            }
            link = async { coming.as_mut().expect("it is asked first").await },
                if coming.is_some() =>
            {
                coming = None;
                match link {
                    Ok(link) => {
                        passage.begin_to_move();
                        next = Some(link);
                    }
                    Err(_) => passage.stay(),
                }
            }
        }
    }
}

/// A second link for a client that is here: it takes the place of the first.
async fn exchange(
    server: &Arc<Server>,
    ask: Ask,
    client: u64,
    mut link: Link,
) -> Result<(), NotLetIn> {
    let database = server.database(ask.database).map_err(|_| NotLetIn::NoDatabase(ask.database))?;
    let moves = {
        let hosted = database.endpoint.hosted.lock();
        let hosted = hosted.get(&client).filter(|hosted| hosted.node == ask.node);
        hosted.map(|hosted| hosted.moves.clone())
    };
    let (prepared, is_prepared) = oneshot::channel();
    let (handed, coming) = oneshot::channel();
    let is_there = match moves {
        None => false,
        Some(moves) => {
            moves.try_send(Move { prepared, link: coming }).is_ok()
                && is_prepared.await.unwrap_or(false)
        }
    };
    let answer = match is_there {
        true => {
            let disconnects = database.endpoint.primacy().map_or(0, |it| it.disconnects);
            Answer::Welcome(Welcome { client, disconnects })
        }
        false => Answer::Later(format!("there is no client {client} to be moved")),
    };
    within_limit(async {
        link.write_all(&answer.line()).await?;
        link.flush().await.map(Some)
    })
    .await?;
    if is_there {
        watch_over(&link.socket());
        // Whoever was to take it may just have ended.
        let _ = handed.send(Box::new(link));
    }
    Ok(())
}

fn switches(server: &Server, database: u32) -> Option<u64> {
    server.database(database).ok().map(|database| database.internode.switches())
}

/// Hands out passes to other nodes.
pub struct PassPlane(pub Arc<Server>);

impl ControlPlane for PassPlane {
    fn serve(self: Arc<Self>, mut link: Frames) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let node = link.stream().peer().identity.node;
            link.allow(REQUEST_BYTES_MAX);
            while let Ok(Some(request)) = link.receive().await {
                let Some(answer) = self.answer(node, &request) else {
                    log::warning!("Node {node} asks for a pass as no node does");
                    return;
                };
                if link.send(&answer).await.is_err() {
                    return;
                }
            }
        })
    }
}

/// A line, and a document.
const REQUEST_BYTES_MAX: usize = VISITOR_BYTES_MAX + 256;

/// What may be said to who asks for a pass, beside what is said to a client.
pub const ENCRYPTED: &[u8] = b"encrypted";
pub const PASS: &str = "pass ";

impl PassPlane {
    /// None if that was no request.
    fn answer(&self, node: NodeUid, request: &[u8]) -> Option<Vec<u8>> {
        let server = &self.0;
        let end = request.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&request[..end]).ok()?.trim_end();
        let Opening::Forward { ask, .. } = Opening::parse(line)? else { return None };
        let visitor = Visitor::parse(&request[end + 1..])?;
        if ask.node != node {
            return None;
        }
        let later = |reason: &str| Some(Answer::Later(reason.to_owned()).line());
        // What will be refused is refused now.
        if let Err(answer) = admit(server, ask, &visitor) {
            return Some(answer.line());
        }
        if server.database(ask.database).is_ok_and(|it| it.internode.is_encrypted()) {
            return Some(ENCRYPTED.to_vec());
        }
        let channel = server.internode.channel()?;
        let Some(port) = channel.plain_addresses().first().map(|address| address.port()) else {
            return later("there is no port for links that are not encrypted");
        };
        let pass: Option<Ticket> = server.endpoints.passes.hand_out(ask, visitor, Instant::now());
        match pass {
            Some(pass) => Some(format!("{PASS}{port} {}", hex(&pass)).into_bytes()),
            None => later("too many passes have been handed out"),
        }
    }
}

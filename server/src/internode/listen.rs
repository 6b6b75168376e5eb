//! The two ports that other nodes connect to, and what becomes of a connection until it is a replica's.
//!
//! Everything before that is bounded: in time, in bytes, and in how many there may be at once. Whatever is wrong
//! ends the connection with a reason in the log and a figure of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carnelian_tls::internode::{Acceptor, Link, NodeUid, Plane, Refusal};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::attach::{self, Arrival, Over};
use super::figures::{Door, NotLetIn};
use super::greeting::{self, Greeting};
use super::{GREETING_LIMIT, GREETINGS_MAX, control};
use crate::database::Database;
use crate::endpoint::{self, Opening};
use crate::log;
use crate::server::Server;

/// After an error of the listener that is not a connection's, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes links on the TLS port for as long as it is polled.
pub async fn serve(server: Arc<Server>, acceptor: Acceptor, listener: std::net::TcpListener) {
    let Some(listener) = own(listener) else { return };
    let handle = move |address, result: Result<Link, Refusal>| match result {
        Ok(link) => {
            tokio::spawn(welcome(Arc::clone(&server), link));
        }
        Err(refusal) => complain(&server, address, "TLS", &refusal),
    };
    acceptor.serve(listener, handle).await;
}

/// The same on the port for links that are not encrypted.
pub async fn serve_plain(server: Arc<Server>, listener: std::net::TcpListener) {
    let Some(listener) = own(listener) else { return };
    loop {
        let Ok((socket, address)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        match turn(&server.internode.greeting_plain) {
            Ok(turn) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    if let Err(reason) = welcome_plain(&server, socket, turn).await {
                        refuse(&server, address, Door::Plain, &reason);
                    }
                });
            }
            Err(reason) => refuse(&server, address, Door::Plain, &reason),
        }
    }
}

fn own(listener: std::net::TcpListener) -> Option<TcpListener> {
    let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    listener.map_err(|error| log::warning!("Could not listen for other nodes: {error}")).ok()
}

/// A place among those that have yet to say what they are for.
fn turn(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, NotLetIn> {
    Arc::clone(places).try_acquire_owned().map_err(|_| NotLetIn::Busy(GREETINGS_MAX))
}

async fn welcome(server: Arc<Server>, link: Link) {
    let address = link.address();
    let result = match turn(&server.internode.greeting) {
        Err(busy) => Err(busy),
        Ok(turn) => match link.plane() {
            Plane::Data => welcome_data(&server, link, turn).await,
            Plane::Control => control::serve(&server, link, turn).await,
        },
    };
    if let Err(reason) = result {
        refuse(&server, address, Door::Tls, &reason);
    }
}

/// A link whose other end is known becomes a replica's connection.
async fn welcome_data(
    server: &Arc<Server>,
    mut link: Link,
    turn: OwnedSemaphorePermit,
) -> Result<(), NotLetIn> {
    let node = link.peer().identity.node;
    let line = within_limit(greeting::read_line(&mut link)).await?.unwrap_or_default();
    if let Some(opening) = Opening::parse(&line) {
        return endpoint::arrival::arrive(server, link, opening, turn).await;
    }
    let greeting = Greeting::parse(&line).ok_or(NotLetIn::Garbage)?;
    if greeting.node != node {
        let (proven, claimed) = (node.get(), greeting.node.get());
        return Err(NotLetIn::NotItself { proven, claimed });
    }
    let database = database(server, greeting.database)?;
    may_follow(&database, node)?;
    let switches = database.internode.switches();
    attach::has_room(&database)?;
    within_limit(async {
        link.write_all(greeting::WELCOME).await?;
        link.flush().await.map(Some)
    })
    .await?;
    drop(turn);
    attach::attach(server, &database, Arrival { node, switches, over: Over::Tls(Box::new(link)) })
}

/// A connection that shows a ticket becomes one.
async fn welcome_plain(
    server: &Arc<Server>,
    mut socket: TcpStream,
    turn: OwnedSemaphorePermit,
) -> Result<(), NotLetIn> {
    let _ = socket.set_nodelay(true);
    let line = within_limit(greeting::read_line(&mut socket)).await?.unwrap_or_default();
    if let Some(opening) = Opening::parse(&line) {
        server.internode.figures.count_plain();
        return endpoint::arrival::arrive_plain(server, socket, opening, turn).await;
    }
    let greeting = Greeting::parse(&line).ok_or(NotLetIn::Garbage)?;
    let ticket = greeting.ticket.ok_or(NotLetIn::NoTicket)?;
    // First of all: whatever is shown is used up.
    let (uid, node) = (greeting.database, greeting.node);
    let redeemed = server.internode.tickets.redeem(&ticket, uid, node, Instant::now());
    let database = database(server, uid)?;
    let switches = database.internode.switches();
    if database.internode.is_encrypted() {
        return Err(NotLetIn::Encrypted(uid));
    }
    redeemed?;
    may_follow(&database, node)?;
    attach::has_room(&database)?;
    within_limit(async { socket.write_all(greeting::WELCOME).await.map(Some) }).await?;
    drop(turn);
    server.internode.figures.count_plain();
    attach::attach(server, &database, Arrival { node, switches, over: Over::Plain(socket) })
}

/// Who does not know that it is the primary may not give its data to anybody.
fn may_follow(database: &Database, node: NodeUid) -> Result<(), NotLetIn> {
    match database.replication.tenure.admits(node.get()) {
        true => Ok(()),
        false => Err(NotLetIn::NotPrimary(database.uid)),
    }
}

pub fn database(server: &Server, uid: u32) -> Result<Arc<Database>, NotLetIn> {
    let databases = server.databases.read();
    let found = databases.iter().find(|database| database.uid == uid);
    found.cloned().ok_or(NotLetIn::NoDatabase(uid))
}

/// What the other end does in good time.
pub async fn within_limit<T>(
    work: impl Future<Output = io::Result<Option<T>>>,
) -> Result<Option<T>, NotLetIn> {
    match timeout(GREETING_LIMIT, work).await {
        Err(_) => Err(NotLetIn::Slow),
        Ok(Ok(None)) => Err(NotLetIn::Lost),
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(NotLetIn::Garbage),
        Ok(Err(_)) => Err(NotLetIn::Lost),
    }
}

/// Counts and tells why a connection was ended.
pub fn refuse(server: &Server, address: SocketAddr, door: Door, reason: &NotLetIn) {
    server.internode.figures.count(door, reason);
    let port = if door == Door::Tls { "TLS" } else { "plain" };
    complain(server, address, port, reason);
}

fn complain(server: &Server, address: SocketAddr, port: &str, reason: &dyn std::fmt::Display) {
    match server.internode.refusals.admit(Instant::now()) {
        None => {}
        Some(0) => {
            log::warning!("Refused a link of another node from {address} ({port}): {reason}");
        }
        Some(left_out) => log::warning!(
            "Refused a link of another node from {address} ({port}): {reason}; and {left_out} more \
             before it"
        ),
    }
}

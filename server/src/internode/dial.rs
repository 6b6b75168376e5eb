//! The side of a replica: reaching a node's database, over TLS or with a ticket.
//!
//! The database's setting decides which. A node that says that its database is encrypted is followed over TLS
//! whatever the setting is here; the other way round nobody's word counts.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use carnelian_tls::internode::{Plane, Serial};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::control::{self, Admission};
use super::greeting::{self, Greeting};
use super::target::NodeTarget;
use super::{Channel, GREETING_LIMIT, relay};
use crate::database::Database;
use crate::server::Server;

/// A connection to the database of a node, at its beginning.
pub struct Dialled {
    pub socket: Socket,
    /// Of the other end, and of ours.
    pub addresses: (SocketAddr, SocketAddr),
    /// The certificate that was shown; none: it is not encrypted.
    pub own_serial: Option<Serial>,
}

pub enum Socket {
    /// One end of a pair: what goes through it is encrypted behind it.
    Pair(UnixStream),
    Plain(TcpStream),
}

/// Connects to the database of the same uid at a node. Takes as long as time-outs allow.
pub fn dial(
    server: &Arc<Server>,
    database: &Database,
    target: &NodeTarget,
) -> Result<Dialled, String> {
    let Some(channel) = server.internode.channel() else {
        return Err(format!("{target}: this server has no certificates of a cluster"));
    };
    let failed = |error: io::Error| format!("{target}: {error}");
    let addresses = (target.host.as_str(), target.port).to_socket_addrs().map_err(failed)?;
    let mut last = format!("{target}: no address for this name");
    for address in addresses {
        let dialling = dial_at(&channel, database, target, address);
        match channel.runtime().block_on(dialling) {
            Ok(dialled) => return Ok(dialled),
            Err(reason) => last = reason,
        }
    }
    Err(last)
}

async fn dial_at(
    channel: &Channel,
    database: &Database,
    target: &NodeTarget,
    address: SocketAddr,
) -> Result<Dialled, String> {
    if !database.internode.is_encrypted() {
        let admission = control::ask(channel, target, address, database.uid).await?;
        if let Admission::Ticket { port, ticket } = admission {
            let address = SocketAddr::new(address.ip(), port);
            let greeting = greeting(channel, database, Some(ticket));
            return dial_plain(channel, target, address, &greeting).await;
        }
    }
    dial_encrypted(channel, target, address, &greeting(channel, database, None)).await
}

fn greeting(channel: &Channel, database: &Database, ticket: Option<[u8; 32]>) -> Greeting {
    Greeting { database: database.uid, node: channel.node.uid(), ticket }
}

async fn dial_encrypted(
    channel: &Channel,
    target: &NodeTarget,
    address: SocketAddr,
    greeting: &Greeting,
) -> Result<Dialled, String> {
    let connector = channel.connector();
    let connecting = connector.connect(address, target.node, Plane::Data);
    let mut link = connecting.await.map_err(|refusal| format!("{target}: {refusal}"))?;
    greet(&mut link, greeting).await.map_err(|reason| format!("{target}: {reason}"))?;
    let own_serial = Some(link.own_serial().clone());
    let near = relay::start(link).map_err(|error| format!("{target}: {error}"))?;
    // Nobody asks for our own address on such a link.
    Ok(Dialled { socket: Socket::Pair(near), addresses: (address, address), own_serial })
}

async fn dial_plain(
    channel: &Channel,
    target: &NodeTarget,
    address: SocketAddr,
    greeting: &Greeting,
) -> Result<Dialled, String> {
    let failed =
        |reason: &dyn std::fmt::Display| format!("{target}, port {}: {reason}", address.port());
    let source = channel.node.source();
    let mut socket =
        in_time(source.connect_async(address)).await.map_err(|error| failed(&error))?;
    let _ = socket.set_nodelay(true);
    greet(&mut socket, greeting).await.map_err(|reason| failed(&reason))?;
    let own = socket.local_addr().map_err(|error| failed(&error))?;
    let socket = socket.into_std().map_err(|error| failed(&error))?;
    socket.set_nonblocking(false).map_err(|error| failed(&error))?;
    Ok(Dialled { socket: Socket::Plain(socket), addresses: (address, own), own_serial: None })
}

/// Says what the link is for, and waits until that is taken.
async fn greet(
    link: &mut (impl AsyncRead + AsyncWrite + Unpin),
    greeting: &Greeting,
) -> Result<(), String> {
    let answer = in_time(async {
        link.write_all(greeting.line().as_bytes()).await?;
        link.flush().await?;
        greeting::read_line(link).await
    });
    match answer.await {
        Ok(Some(answer)) if answer.as_bytes() == greeting::WELCOME.trim_ascii_end() => Ok(()),
        Ok(Some(_)) => Err("it answers as no node does".into()),
        Ok(None) => Err("it does not let us in; its log says why".into()),
        Err(error) => Err(format!("it does not let us in: {error}")),
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(GREETING_LIMIT, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}

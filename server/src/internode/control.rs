//! Links of the control plane: handed to whoever has registered for what their first message names, and
//! answered with one byte-string, `yes`, if there is somebody.
//!
//! What this module speaks itself is `tickets/1`: `database <uid>` is answered by `ticket <port> <digits>`,
//! by `encrypted` where the database wants TLS, or by `no <reason>`.

use std::sync::Arc;
use std::time::Instant;

use carnelian_tls::internode::{Frames, Link, NodeUid, Plane, Refusal};
use tokio::sync::OwnedSemaphorePermit;

use super::figures::NotLetIn;
use super::greeting::hex;
use super::listen::{self, within_limit};
use super::target::NodeTarget;
use super::tickets::Ticket;
use super::{Channel, greeting};
use crate::server::Server;

const TICKETS: &str = "tickets/1";

/// The answer to a name that is known here.
const YES: &[u8] = b"yes";

/// No name is longer.
const NAME_CHARS_MAX: usize = 64;

/// Tickets for one link: who wants more makes another.
const REQUESTS_MAX: usize = 16;

/// Serves a link that another node has made.
pub async fn serve(
    server: &Arc<Server>,
    link: Link,
    turn: OwnedSemaphorePermit,
) -> Result<(), NotLetIn> {
    let node = link.peer().identity.node;
    let mut frames = Frames::new(link);
    let name = within_limit(frames.receive()).await?.unwrap_or_default();
    let name = String::from_utf8(name).map_err(|_| NotLetIn::Garbage)?;
    if NAME_CHARS_MAX < name.len() || name.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(NotLetIn::Garbage);
    }
    let plane = server.internode.planes.read().get(&name).cloned();
    if plane.is_none() && name != TICKETS {
        return Err(NotLetIn::UnknownPlane(name));
    }
    let answer = async { frames.send(YES).await.map(Some) };
    within_limit(answer).await?;
    match plane {
        Some(plane) => {
            drop(turn);
            plane.serve(frames).await;
            Ok(())
        }
        // These are short, and bounded by their turns.
        None => hand_out(server, node, frames).await,
    }
}

/// Opens a link on which `name` is spoken.
pub async fn connect(
    channel: &Channel,
    target: &NodeTarget,
    address: std::net::SocketAddr,
    name: &str,
) -> Result<Frames, String> {
    let refused = |refusal: Refusal| format!("{target}: {refusal}");
    let connector = channel.connector();
    let connecting = connector.connect(address, target.node, Plane::Control);
    let mut frames = Frames::new(connecting.await.map_err(refused)?);
    let answer = within_limit(async {
        frames.send(name.as_bytes()).await?;
        frames.receive().await
    });
    match answer.await {
        Ok(Some(answer)) if answer == YES => Ok(frames),
        Ok(_) => Err(format!("{target} does not speak '{name}'")),
        Err(reason) => Err(format!("{target} does not speak '{name}': {reason}")),
    }
}

/// Hands tickets out to a node, until it ends the link.
async fn hand_out(server: &Server, node: NodeUid, mut frames: Frames) -> Result<(), NotLetIn> {
    for _ in 0..REQUESTS_MAX {
        let request = match within_limit(frames.receive()).await {
            Ok(Some(request)) => request,
            // It has what it wanted.
            Err(NotLetIn::Lost) | Ok(None) => return Ok(()),
            Err(reason) => return Err(reason),
        };
        let uid =
            std::str::from_utf8(&request).ok().and_then(|text| text.strip_prefix("database "));
        let uid = uid.and_then(|uid| uid.parse().ok()).ok_or(NotLetIn::Garbage)?;
        let answer = answer(server, node, uid);
        within_limit(async { frames.send(answer.as_bytes()).await.map(Some) }).await?;
    }
    Ok(())
}

fn answer(server: &Server, node: NodeUid, uid: u32) -> String {
    let internode = &server.internode;
    let database = match listen::database(server, uid) {
        Ok(database) => database,
        Err(reason) => return format!("no {reason}"),
    };
    if database.internode.is_encrypted() {
        return "encrypted".into();
    }
    let channel = internode.channel();
    let port = channel.and_then(|channel| channel.plain_addresses().first().map(|it| it.port()));
    let Some(port) = port else { return "no port for links that are not encrypted".into() };
    match internode.tickets.hand_out(uid, node, Instant::now()) {
        Some(ticket) => format!("ticket {port} {}", hex(&ticket)),
        None => "no random numbers".into(),
    }
}

/// What a node says of a database that is to be followed without encryption.
pub enum Admission {
    Ticket {
        port: u16,
        ticket: Ticket,
    },
    /// It is to be followed over TLS.
    Encrypted,
}

/// Asks for a ticket.
pub async fn ask(
    channel: &Channel,
    target: &NodeTarget,
    address: std::net::SocketAddr,
    database: u32,
) -> Result<Admission, String> {
    let mut frames = connect(channel, target, address, TICKETS).await?;
    let answer = within_limit(async {
        frames.send(format!("database {database}").as_bytes()).await?;
        frames.receive().await
    });
    let answer = answer.await.map_err(|reason| format!("{target}: no ticket: {reason}"))?;
    let answer = String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned();
    let words: Vec<&str> = answer.split(' ').collect();
    let parsed = match words[..] {
        ["encrypted"] => Some(Admission::Encrypted),
        ["ticket", port, digits] => port
            .parse()
            .ok()
            .zip(greeting::unhex(digits))
            .map(|(port, ticket)| Admission::Ticket { port, ticket }),
        _ => None,
    };
    // It is this cluster's, but may be of another version.
    let shown: String = answer.chars().filter(|c| !c.is_control()).take(100).collect();
    parsed.ok_or_else(|| format!("{target}: no ticket: {shown}"))
}

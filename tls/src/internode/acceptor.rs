//! The end that is connected to: a socket from the listener on 3342 becomes a link, or is refused
//! with a reason.
//!
//! 1. The greeting is read and judged ([`super::hello`]); what is not TLS is closed without an answer.
//! 2. The plane it asks for decides which certificate is shown and which is required.
//! 3. The handshake; the other end's certificate is judged in it ([`super::verify`]).
//! 4. The link is registered, and its peer judged once more by what is in force then.
//! 5. One byte says to the other end that it has been let in: in TLS 1.3 it would not know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{Accepted, NoServerSessionStorage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::StartHandshake;

use super::counters::Direction;
use super::hello::{self, HELLO_BYTES_MAX, Here, Progress};
use super::links::Link;
use super::node::Node;
use super::peer::{Peer, Plane};
use super::policy::{self, Expected};
use super::provided::{self, End, Secret, Shown};
use super::refusal::Refusal;
use super::verify::Judge;

/// Sent by the acceptor when the link stands.
pub(super) const WELCOME: u8 = 0x06;

/// How long to wait for the other end to read why it was refused.
const FAREWELL: Duration = Duration::from_millis(250);

/// After an error of the listener that is not a connection's, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes links of incoming connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    node: Arc<Node>,
}

impl Acceptor {
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// Accepts for as long as it is polled. Each connection gets a task, which ends with `handle`.
    pub async fn serve<F>(&self, listener: TcpListener, handle: F)
    where
        F: Fn(SocketAddr, Result<Link, Refusal>) + Clone + Send + 'static,
    {
        loop {
            let Ok((socket, address)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (acceptor, handle) = (self.clone(), handle.clone());
            tokio::spawn(async move {
                let result = acceptor.accept(socket).await;
                handle(address, result);
            });
        }
    }

    /// Makes a link of one connection.
    pub async fn accept(&self, socket: TcpStream) -> Result<Link, Refusal> {
        let result = self.within_limits(socket).await;
        self.node.counters().count(Direction::Incoming, Link::plane, &result);
        result
    }

    async fn within_limits(&self, mut socket: TcpStream) -> Result<Link, Refusal> {
        let settings = self.node.settings();
        let Ok(_turn) = self.node.handshakes().try_acquire() else {
            return Err(Refusal::Busy { limit: settings.handshakes_max });
        };
        let limit = settings.handshake_limit;
        let deadline = Instant::now() + limit;
        // The engine answers in several small pieces, none of which should wait for another.
        let _ = socket.set_nodelay(true);

        let result = match timeout_at(deadline, self.greeting(&mut socket)).await {
            Err(_) => return Err(Refusal::TooSlow { limit }),
            Ok(Ok(greeting)) => greeting,
            Ok(Err(refusal)) => {
                if let Some(alert) = refusal.alert() {
                    let record = [0x15, 3, 3, 0, 2, 2, u8::from(alert)];
                    let _ = timeout(FAREWELL, say_farewell(&mut socket, &record)).await;
                }
                return Err(refusal);
            }
        };
        let (plane, accepted) = result;
        match timeout_at(deadline, self.handshake(socket, plane, accepted)).await {
            Err(_) => Err(Refusal::TooSlow { limit }),
            Ok(result) => result,
        }
    }

    /// Reads what the connection opens with, and no further.
    async fn greeting(&self, socket: &mut TcpStream) -> Result<(Plane, Accepted), Refusal> {
        let mut sent = Vec::with_capacity(2048);
        let hello = loop {
            match hello::read(&sent)? {
                Progress::Whole(hello) => break hello,
                Progress::Unfinished => {}
            }
            match socket.read_buf(&mut sent).await {
                Ok(0) => return Err(Refusal::Ended),
                Ok(_) => {}
                Err(error) => return Err(Refusal::Lost(error.kind())),
            }
        };
        let here = Here {
            identity: self.node.identity(Plane::Control),
            versions: self.node.settings().versions,
        };
        let plane = hello.admit(&here)?;
        Ok((plane, engine_reads(&sent)?))
    }

    async fn handshake(
        &self,
        socket: TcpStream,
        plane: Plane,
        accepted: Accepted,
    ) -> Result<Link, Refusal> {
        let judge = Judge::new(self.node.trust(), Expected { plane, node: None });
        let shown = self.node.shown(plane);
        let config = self.config(plane, &shown, &judge)?;
        let start = StartHandshake::from_parts(accepted, socket);
        let mut stream = match start.into_stream(Arc::new(config)).into_fallible().await {
            Ok(stream) => stream,
            Err((error, mut socket)) => {
                let _ = timeout(FAREWELL, say_farewell(&mut socket, &[])).await;
                return Err(match judge.verdict() {
                    Some(Err(refusal)) => refusal.clone(),
                    _ => Refusal::of_io(&error),
                });
            }
        };
        let peer = proven(&judge)?;
        let secret = Secret::of_server(stream.get_ref().1)?;
        if let Some(own) = judge.behind() {
            provided::check(&mut stream, own, End::Connecting, &secret).await?;
        }
        shown.prove(&mut stream, End::Accepting, &secret).await?;
        let mut link = self
            .node
            .links_shared()
            .register(stream.into(), plane, peer, shown.serial(), Direction::Incoming)
            .map_err(|error| Refusal::Lost(error.kind()))?;
        self.node.still_believes(link.peer())?;

        let lost = |error: std::io::Error| Refusal::of_io(&error);
        link.write_all(&[WELCOME]).await.map_err(lost)?;
        link.flush().await.map_err(lost)?;
        Ok(link)
    }

    /// One per handshake, as its judge keeps what it found.
    fn config(
        &self,
        plane: Plane,
        shown: &Shown,
        judge: &Arc<Judge>,
    ) -> Result<ServerConfig, Refusal> {
        let settings = self.node.settings();
        let builder =
            ServerConfig::builder_with_details(policy::cryptography(), Arc::clone(&settings.clock));
        let mut config = builder
            .with_protocol_versions(settings.versions.all())
            .map_err(|error| Refusal::of_engine(&error))?
            .with_client_cert_verifier(Arc::clone(judge) as _)
            .with_cert_resolver(shown.resolver());
        config.alpn_protocols = vec![plane.alpn().to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.require_ems = true;
        Ok(config)
    }
}

/// Gives the engine the greeting that has passed.
fn engine_reads(mut sent: &[u8]) -> Result<Accepted, Refusal> {
    let mut acceptor = rustls::server::Acceptor::default();
    // It takes some at a time; there are fewer turns than bytes.
    for _ in 0..=2 * HELLO_BYTES_MAX {
        acceptor.read_tls(&mut sent).map_err(|error| Refusal::of_io(&error))?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) if sent.is_empty() => break,
            Ok(None) => {}
            Err((error, _)) => return Err(Refusal::of_engine(&error)),
        }
    }
    Err(Refusal::Malformed("a greeting that does not end".into()))
}

/// Who the judge found the other end to be.
pub(super) fn proven(judge: &Judge) -> Result<Peer, Refusal> {
    match judge.verdict() {
        Some(verdict) => verdict.clone(),
        // The engine asks for a certificate in every full handshake, and there are no others.
        None => Err(Refusal::NoCertificate),
    }
}

/// Closing while there is something unread would reset the connection, and the other end might
/// never see the alert that says why.
async fn say_farewell(socket: &mut TcpStream, last_words: &[u8]) {
    if socket.write_all(last_words).await.is_err() || socket.shutdown().await.is_err() {
        return;
    }
    let mut unread = [0; 4096];
    for _ in 0..16 {
        if !matches!(socket.read(&mut unread).await, Ok(1..)) {
            return;
        }
    }
}

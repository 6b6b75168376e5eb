//! The sockets: TLS connections on the admin port and plain ones on the socket in the data folder, HTTP/1.1
//! and HTTP/2, with a limit on everything a stranger could draw out.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use carnelian_tls::rustls::ServerConfig;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::front::{Front, Peer};

/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 512;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const STREAMS_MAX: u32 = 32;
/// After a failed accept, as when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// The configuration of new connections, asked for at each: so that a certificate can be replaced. It has
/// to offer [`carnelian_tls::ADMIN_ALPN`].
pub type TlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// Serves the admin port until it is dropped, and its connections with it.
pub async fn serve(listener: TcpListener, tls: TlsSource, front: Arc<Front>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let (front, acceptor) = (Arc::clone(&front), TlsAcceptor::from(tls()));
        connections.spawn(async move {
            // A peer that does not speak TLS, or does not trust us: its own affair.
            let Ok(Ok(stream)) = timeout(front.limits().handshake, acceptor.accept(socket)).await
            else {
                return;
            };
            let version = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Version::Http2,
                _ => Version::Http1,
            };
            speak(stream, version, front, Peer::Remote(canonical(peer.ip()))).await;
            drop(slot);
        });
    }
}

/// Serves the socket in the data folder, whose mode says who may open it.
pub async fn serve_local(listener: UnixListener, front: Arc<Front>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let front = Arc::clone(&front);
                connections.spawn(async move {
                    speak(socket, Version::Http1, front, Peer::Local).await;
                    drop(slot);
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

enum Version {
    Http1,
    Http2,
}

async fn speak<S>(stream: S, version: Version, front: Arc<Front>, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limits = front.limits();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let front = Arc::clone(&front);
        // On its own task: what was begun is finished even if its client goes away.
        let work = tokio::spawn(async move { front.answer(peer, request).await });
        async move { work.await.map_err(io::Error::other) }
    });
    let stream = TokioIo::new(stream);
    // Errors of a connection concern nobody but its peer.
    let _ = match version {
        Version::Http1 => {
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head)
                .max_header_size(HEAD_BYTES_MAX)
                .serve_connection(stream, service)
                .await
        }
        Version::Http2 => {
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HEAD_BYTES_MAX as u32)
                .keep_alive_interval(limits.head)
                .keep_alive_timeout(limits.head)
                .serve_connection(stream, service)
                .await
        }
    };
}

async fn pause_after(error: &io::Error) {
    // The peer went away before it was accepted: nothing to wait for.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tokio::time::sleep(PAUSE).await;
    }
}

/// An IPv4 address that came in through an IPv6 socket, as what it is.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

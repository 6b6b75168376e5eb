//! The live links of a node: who is at the other end of each, and how to end it.
//!
//! A link whose peer is no longer believed is cut at its socket, by whoever found out, at once.
//! That does not depend on what the link's owner is doing: reads and writes that wait are woken,
//! and whatever arrived but was not read yet is not given out any more.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{CipherSuite, ProtocolVersion};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsStream;

use super::counters::{Counters, Direction};
use super::peer::{Peer, Plane, Serial};
use super::policy::Trust;
use super::refusal::{Refusal, RefusalKind};

/// Why a live link was ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropReason {
    /// The other end's certificate or node was revoked.
    Revoked,
    /// The authority of the other end's certificate is no longer trusted.
    AuthorityWithdrawn,
    /// The other end's certificate has expired.
    Expired,
    /// This node wanted it to end.
    Told,
}

impl DropReason {
    pub const ALL: [Self; 4] = [Self::Revoked, Self::AuthorityWithdrawn, Self::Expired, Self::Told];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::AuthorityWithdrawn => "authority_withdrawn",
            Self::Expired => "expired",
            Self::Told => "told",
        }
    }

    fn of(refusal: &Refusal) -> Self {
        match refusal.kind() {
            RefusalKind::Revoked => Self::Revoked,
            RefusalKind::Expired => Self::Expired,
            _ => Self::AuthorityWithdrawn,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoked => "the other end has been revoked",
            Self::AuthorityWithdrawn => "the other end's authority is no longer trusted",
            Self::Expired => "the other end's certificate has expired",
            Self::Told => "this node has ended it",
        })
    }
}

impl std::error::Error for DropReason {}

/// What the owner of a link is told.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Signal {
    #[default]
    Keep,
    /// This node's certificate has been replaced: make a new link, move over, and end this one.
    Remake,
    /// It has ended.
    Dropped(DropReason),
}

/// A link, for as long as the process lives.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(u64);

/// A live link as others see it.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    pub id: LinkId,
    pub direction: Direction,
    pub plane: Plane,
    pub peer: Peer,
    /// The certificate that this end showed.
    pub own_serial: Serial,
    pub address: SocketAddr,
    pub signal: Signal,
}

/// All live links of a node.
#[derive(Debug, Default)]
pub struct Links {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    live: BTreeMap<LinkId, Live>,
}

#[derive(Debug)]
struct Live {
    info: LinkInfo,
    signal: watch::Sender<Signal>,
    dropped: Arc<OnceLock<DropReason>>,
    /// The link's socket by another name, so that it can be cut from here.
    socket: std::net::TcpStream,
}

impl Links {
    /// What there is now, in the order of its coming.
    pub fn all(&self) -> Vec<LinkInfo> {
        self.lock().live.values().map(Live::info).collect()
    }

    pub fn count(&self) -> usize {
        self.lock().live.len()
    }

    /// The links of a plane on which this end shows another certificate than `serial`, the ones
    /// told to be remade included. For remaking them one at a time.
    pub fn outdated(&self, plane: Plane, serial: &Serial) -> Vec<LinkInfo> {
        let is_outdated = |info: &LinkInfo| info.plane == plane && info.own_serial != *serial;
        self.all().into_iter().filter(is_outdated).collect()
    }

    /// Asks a link's owner to make it anew. `false` if it has ended.
    pub fn remake(&self, id: LinkId) -> bool {
        let state = self.lock();
        let Some(live) = state.live.get(&id) else { return false };
        live.signal.send_if_modified(|signal| {
            let is_new = *signal == Signal::Keep;
            if is_new {
                *signal = Signal::Remake;
            }
            is_new
        });
        true
    }

    /// Ends a link. `false` if it had ended.
    pub fn end(&self, id: LinkId, counters: &Counters) -> bool {
        let state = self.lock();
        state.live.get(&id).is_some_and(|live| live.cut(DropReason::Told, counters))
    }

    /// Ends every link whose peer is not believed any more, and says which.
    pub(super) fn judge_again(
        &self,
        trust: &Trust,
        now: UnixTime,
        counters: &Counters,
    ) -> Vec<LinkInfo> {
        let state = self.lock();
        let mut ended = Vec::new();
        for live in state.live.values() {
            if let Err(refusal) = trust.still_believes(&live.info.peer, now)
                && live.cut(DropReason::of(&refusal), counters)
            {
                ended.push(live.info());
            }
        }
        ended
    }

    /// Enters a link. Whoever does so judges its peer once more afterwards: a change of trust either
    /// finds the link here or was made before that.
    pub(super) fn register(
        self: &Arc<Self>,
        stream: TlsStream<TcpStream>,
        plane: Plane,
        peer: Peer,
        own_serial: Serial,
        direction: Direction,
    ) -> io::Result<Link> {
        let (socket, session) = stream.get_ref();
        let version = session.protocol_version().unwrap_or(ProtocolVersion::TLSv1_2);
        let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
        let address = socket.peer_addr()?;
        let socket = socket.as_fd().try_clone_to_owned()?.into();
        let (signal, told) = watch::channel(Signal::Keep);
        let dropped = Arc::new(OnceLock::new());

        let mut state = self.lock();
        state.last += 1;
        let id = LinkId(state.last);
        let signal_now = Signal::Keep;
        let info = LinkInfo { id, direction, plane, peer, own_serial, address, signal: signal_now };
        let live = Live { info: info.clone(), signal, dropped: Arc::clone(&dropped), socket };
        state.live.insert(id, live);
        drop(state);

        let registration = Registration { links: Arc::clone(self), id };
        Ok(Link { stream, info, version, suite, told, dropped, _registration: registration })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; should it, the list is still in order.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn info(&self) -> LinkInfo {
        LinkInfo { signal: *self.signal.borrow(), ..self.info.clone() }
    }

    /// `false` if that had happened before.
    fn cut(&self, reason: DropReason, counters: &Counters) -> bool {
        if self.dropped.set(reason).is_err() {
            return false;
        }
        counters.count_drop(reason);
        self.signal.send_replace(Signal::Dropped(reason));
        if reason != DropReason::Told {
            // What was written but not sent yet is not for the other end any more either.
            let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        }
        // Fails only where the other end was faster.
        let _ = self.socket.shutdown(Shutdown::Both);
        true
    }
}

/// Takes a link off the list when it ends.
#[derive(Debug)]
struct Registration {
    links: Arc<Links>,
    id: LinkId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let live = self.links.lock().live.remove(&self.id);
        // Closed after the lock is given back.
        drop(live);
    }
}

/// A connection between two nodes, encrypted, each end sure of the other.
///
/// Reading and writing fail with [`io::ErrorKind::ConnectionAborted`] and the [`DropReason`] as
/// their cause once the link has been ended.
#[derive(Debug)]
pub struct Link {
    stream: TlsStream<TcpStream>,
    info: LinkInfo,
    version: ProtocolVersion,
    suite: Option<CipherSuite>,
    told: watch::Receiver<Signal>,
    dropped: Arc<OnceLock<DropReason>>,
    _registration: Registration,
}

impl Link {
    pub fn id(&self) -> LinkId {
        self.info.id
    }

    pub fn plane(&self) -> Plane {
        self.info.plane
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.info.peer
    }

    pub fn address(&self) -> SocketAddr {
        self.info.address
    }

    /// The certificate that this end showed.
    pub fn own_serial(&self) -> &Serial {
        &self.info.own_serial
    }

    /// `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        match self.version {
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            _ => "TLSv1.2",
        }
    }

    pub fn suite(&self) -> Option<CipherSuite> {
        self.suite
    }

    /// For options of its socket.
    pub fn socket(&self) -> SockRef<'_> {
        SockRef::from(self.stream.get_ref().0)
    }

    /// What its owner is to do. Changes from [`Signal::Keep`] to [`Signal::Remake`], and from
    /// either to [`Signal::Dropped`].
    pub fn signal(&self) -> watch::Receiver<Signal> {
        self.told.clone()
    }

    /// Reads and writes go on here.
    fn alive(&self) -> io::Result<()> {
        match self.dropped.get() {
            Some(reason) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, *reason)),
            None => Ok(()),
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive()?;
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
        if let Err(error) = this.alive() {
            buffer.set_filled(before);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.alive()?;
        let result = ready!(Pin::new(&mut this.stream).poll_write(context, bytes));
        Poll::Ready(this.alive().and(result))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive()?;
        let result = ready!(Pin::new(&mut this.stream).poll_flush(context));
        Poll::Ready(this.alive().and(result))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.alive()?;
        let result = ready!(Pin::new(&mut this.stream).poll_write_vectored(context, slices));
        Poll::Ready(this.alive().and(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

//! One client connection: its socket, what it speaks, and what is in flight either way.

use std::io::{self, IoSlice, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_resp::Parser;
use carnelian_tls::TlsSession;
use mio::event::Source;
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, SendFlags};
use rustls::pki_types::CertificateDer;

use crate::clients::{ClientShared, bits};
use crate::database::Database;
use crate::input::Input;
use crate::internode::PeerLink;
use crate::listener::Kind;
use crate::output::Output;
use crate::replication::apply::PrimaryLink;
use crate::session::Session;

/// A connection on its way from the accepting reactor to its own.
pub struct Accepted {
    pub stream: Stream,
    pub kind: Kind,
    pub database: Arc<Database>,
    pub shared: Arc<ClientShared>,
    pub loopback: bool,
    pub refusal: Option<Refusal>,
    pub whose: Whose,
}

/// Who is at the other end.
pub enum Whose {
    Client,
    /// The server that the database follows, and the stream is in the middle.
    Primary(PrimaryStream),
    /// A node of this one's cluster.
    Node(Box<PeerLink>),
    /// A client that has come to another node, with the certificate that it has shown there.
    Visitor(Option<Box<CertificateDer<'static>>>),
    /// The process itself, for an operator who has proved to be that.
    Operator,
}

/// Where the stream of effects of the server that a database follows goes on.
pub struct PrimaryStream {
    pub link: Box<PrimaryLink>,
    /// The logical database that is selected.
    pub db: u16,
    /// What has come of it already.
    pub received: Vec<u8>,
}

/// Why a connection that was accepted is turned away.
///
/// It is told so in the language it speaks, so its first byte is waited for, and on TLS the handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    TooManyClients,
    ProtectedMode,
    /// The client's certificate is for somebody who may not use the database.
    Subject,
}

impl Refusal {
    pub fn text(self) -> &'static [u8] {
        match self {
            Self::TooManyClients => b"-ERR max number of clients reached\r\n",
            Self::ProtectedMode => PROTECTED_MODE.as_bytes(),
            Self::Subject => b"-NOPERM this certificate's subject may not use this database\r\n",
        }
    }
}

/// Redis's words: they are matched by tools, and help whoever reads them.
const PROTECTED_MODE: &str = concat!(
    "-DENIED Redis is running in protected mode because protected mode is enabled and no password \
     is set for the default user. In this mode connections are only accepted from the loopback \
     interface. If you want to connect from external computers to Redis you may adopt one of the \
     following solutions: 1) Just disable protected mode sending the command 'CONFIG SET \
     protected-mode no' from the loopback interface by connecting to Redis from the same host the \
     server is running, however MAKE SURE Redis is not publicly accessible from internet if you do \
     so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable \
     the protected mode by editing the Redis configuration file, and setting the protected mode \
     option to 'no', and then restarting the server. 3) If you started the server manually just for \
     testing, restart it with the '--protected-mode no' option. 4) Set up an authentication \
     password for the default user. NOTE: You only need to do one of the above things in order for \
     the server to start accepting connections from the outside.",
    "\r\n"
);

/// What goes over the socket.
pub enum Transport {
    /// Nothing has come yet: the first byte will say.
    Sniff,
    Plain,
    /// Boxed, so that plain connections do not pay for its size.
    Handshake(Box<TlsSession>),
    Tls(Box<TlsSession>),
}

pub struct Connection {
    pub stream: Stream,
    pub kind: Kind,
    pub transport: Transport,
    pub session: Session,
    pub parser: Parser,
    /// The beginning of a request; while the handshake has yet to begin, of the TLS stream.
    pub input: Input,
    /// The length that `input` has to reach before its request can be whole.
    pub wanted: usize,
    /// What the socket has not taken, as it goes over the wire.
    pub output: Output,
    /// This turn's replies, where they lie in the reactor's reply buffer.
    pub staged: Range<usize>,
    pub refusal: Option<Refusal>,
    pub flags: Flags,
    /// When the output passed the soft limit, in milliseconds of the reactor's clock.
    pub over_soft_limit_since_ms: Option<u64>,
    /// When its wait ends at the latest, in milliseconds of the reactor's clock.
    pub wait_deadline_ms: Option<u64>,
    /// Since when nothing more is read: the connection ends when its output is gone.
    pub closing_since_ms: Option<u64>,
}

/// Where a connection stands between turns.
#[derive(Default)]
pub struct Flags {
    /// The socket may hold bytes that were not read: no new event will tell.
    pub readable: bool,
    /// `input` may hold whole commands.
    pub unparsed: bool,
    /// The last read brought little.
    pub sends_little: bool,
    /// The peer has sent its last byte: read until that is seen.
    pub hangup: bool,
    /// The socket takes nothing until an event says so.
    pub blocked: bool,
    /// Events say when the socket takes more.
    pub armed: bool,
    /// Too much output is waiting: nothing more is run until it has gone.
    pub paused: bool,
    /// The next command is held back by CLIENT PAUSE.
    pub postponed: bool,
    /// In the queue of those that have more to do.
    pub ready: bool,
    /// In the queue of handshakes.
    pub shaking: bool,
    /// In the list of those to flush.
    pub touched: bool,
}

impl Connection {
    pub fn new(accepted: Accepted) -> Self {
        let Accepted { stream, kind, database, shared, loopback, refusal, whose } = accepted;
        let mut session = Session::new(shared, database, loopback);
        let (mut transport, mut input) = (Transport::Sniff, Input::default());
        let mut flags = Flags::default();
        match whose {
            Whose::Client => {}
            Whose::Primary(PrimaryStream { link, db, received }) => {
                session = session.of_primary(link, db);
                transport = Transport::Plain;
                flags.unparsed = !received.is_empty();
                input.adopt(received);
            }
            Whose::Node(peer) => {
                session = session.of_peer(peer);
                transport = Transport::Plain;
            }
            Whose::Visitor(_) => {
                session.tls = session.shared.tls.load(Ordering::Relaxed);
                transport = Transport::Plain;
            }
            Whose::Operator => {
                session.trust();
                transport = Transport::Plain;
            }
        }
        Self {
            stream,
            kind,
            transport,
            session,
            parser: Parser::default(),
            input,
            wanted: 0,
            output: Output::default(),
            staged: 0..0,
            refusal,
            flags,
            over_soft_limit_since_ms: None,
            wait_deadline_ms: None,
            closing_since_ms: None,
        }
    }

    /// Is told of what can be read, for good: events are edges.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE)
    }

    /// Is told when the socket takes more, while it is full and only then: a unix socket tells of
    /// room after each reply that its peer reads.
    #[inline]
    pub fn arm(&mut self, registry: &Registry, token: Token) {
        if self.flags.blocked != self.flags.armed {
            self.rearm(registry, token);
        }
    }

    #[cold]
    fn rearm(&mut self, registry: &Registry, token: Token) {
        let both = Interest::READABLE | Interest::WRITABLE;
        let interest = if self.flags.blocked { both } else { Interest::READABLE };
        if let Err(error) = registry.reregister(&mut self.stream, token, interest) {
            crate::log::warning!("Could not watch a client's connection: {error}");
            return;
        }
        self.flags.armed = self.flags.blocked;
    }

    pub fn closing(&self) -> bool {
        self.closing_since_ms.is_some()
    }

    pub fn close_when_flushed(&mut self, now_ms: u64) {
        self.closing_since_ms.get_or_insert(now_ms);
        self.session.shared.set_flag(bits::CLOSE_AFTER_REPLY, true);
    }

    /// For a line of the log.
    pub fn describe(&self) -> String {
        let shared = &self.session.shared;
        format!(
            "id={} addr={} laddr={} fd={} name={} db={} qbuf={} omem={}",
            shared.id,
            shared.address,
            shared.local_address,
            shared.file_descriptor,
            String::from_utf8_lossy(&shared.names.lock().name),
            self.session.db,
            self.input.len(),
            self.output.len(),
        )
    }
}

/// A socket of either kind.
pub enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

// Straight to the system: the C library's `recv` and `send` are cancellation points, whose
// bookkeeping is a noticeable part of a small request.
impl Read for Stream {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(self, buffer, RecvFlags::empty())?;
        Ok(count)
    }
}

impl Write for Stream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, bytes, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, what),
            Self::Unix(stream) => stream.register(registry, token, what),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, what),
            Self::Unix(stream) => stream.reregister(registry, token, what),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}

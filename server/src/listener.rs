//! Listening sockets: where a database takes its clients from.
//!
//! `Listeners::change` moves from one set of addresses to another, all or nothing: addresses that stay keep their
//! socket, and where a new one cannot be had the old set serves on. The sockets are opened by the
//! thread that asks, so that CONFIG SET can answer with the reason; the reactor that accepts gets them by
//! message.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::database::Database;
use crate::log;

/// Addresses on which a database listens.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Endpoints {
    /// As in the `bind` directive: `*`, `::*`, addresses and names; with a `-` in front, one that may be missing.
    pub bind: Vec<String>,
    /// 0: none.
    pub port: u16,
    /// 0: none. Speaks only TLS.
    pub tls_port: u16,
    pub unix_socket: Option<PathBuf>,
    /// Of the socket's file; 0 leaves them to the umask.
    pub unix_permissions: u32,
    pub backlog: u32,
}

/// What a connection of a listener may speak.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// RESP or TLS, as the first byte says.
    Tcp,
    /// TLS and nothing else.
    Tls,
    Unix,
}

impl Kind {
    /// The word at the end of `Ready to accept connections`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Unix => "unix",
        }
    }
}

/// A socket for the accepting reactor.
pub struct Listener {
    pub id: u64,
    /// Of the database whose clients come here.
    pub database: Arc<Database>,
    pub kind: Kind,
    pub socket: Acceptor,
}

pub enum Acceptor {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

/// A place that could not be listened on.
#[derive(Debug)]
pub struct ListenError {
    place: Place,
    /// The call that failed.
    step: &'static str,
    source: io::Error,
}

impl ListenError {
    pub fn kind(&self) -> Kind {
        self.place.kind()
    }

    /// 0 for a unix socket.
    pub fn port(&self) -> u16 {
        match &self.place {
            Place::Tcp(_, address) => address.port(),
            Place::Name(_, _, port) => *port,
            Place::Unix(_) => 0,
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.step, reason(&self.source))
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The difference between two sets of listeners, for the accepting reactor.
#[derive(Default)]
pub struct Change {
    pub added: Vec<(u64, Kind, Acceptor)>,
    pub removed: Vec<u64>,
}

/// The sockets of one database, as its control side holds them.
#[derive(Default)]
pub struct Listeners {
    /// The database's uid in the upper half: an id is unique in the process.
    last_id: u64,
    open: Vec<Open>,
}

struct Open {
    id: u64,
    place: Place,
    /// A second handle to the reactor's socket: through it the place can be given up at once.
    socket: Socket,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    Tcp(Kind, SocketAddr),
    /// A name that has no address.
    Name(Kind, String, u16),
    Unix(PathBuf),
}

impl Place {
    fn kind(&self) -> Kind {
        match self {
            Self::Tcp(kind, _) | Self::Name(kind, ..) => *kind,
            Self::Unix(_) => Kind::Unix,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => write!(f, "{}:{}", address.ip(), address.port()),
            Self::Name(_, name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Listeners {
    /// Of the database with this uid.
    pub fn new(uid: u32) -> Self {
        Self { last_id: u64::from(uid) << 32, open: Vec::new() }
    }

    /// Listens on `endpoints` and nowhere else; where that fails, on what it did before. The change is to be
    /// passed on either way.
    pub fn change(&mut self, endpoints: &Endpoints) -> (Change, Result<(), ListenError>) {
        let mut change = Change::default();
        let wanted = match places(endpoints) {
            Ok(wanted) => wanted,
            Err(error) => return (change, Err(error)),
        };
        let (keep, give_up): (Vec<_>, Vec<_>) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|open| wanted.iter().any(|(place, _)| *place == open.place));
        self.open = keep;
        // A wildcard cannot be had while one of its addresses is taken, even by us: the old sockets go
        // first, and come back if the new ones fail.
        for open in &give_up {
            let _ = open.socket.shutdown(Shutdown::Both);
            change.removed.push(open.id);
        }

        let kept = self.open.len();
        for (place, optional) in wanted {
            if self.open[..kept].iter().any(|open| open.place == place) {
                continue;
            }
            if let Err(error) = self.open(place, optional, endpoints, &mut change) {
                self.open.truncate(kept);
                change.added.clear();
                for open in give_up {
                    if let Err(lost) = self.open(open.place, true, endpoints, &mut change) {
                        log::warning!("Could not listen again on {lost}");
                    }
                }
                return (change, Err(error));
            }
        }
        (change, Ok(()))
    }

    /// The kinds listened on, each once, in the order in which they are announced.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.open.iter().map(|open| open.place.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// The addresses of TCP that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |open: &Open| match &open.place {
            Place::Tcp(_, address) => Some(*address),
            _ => None,
        };
        self.open.iter().filter_map(address).collect()
    }

    /// The path of the unix socket, if there is one.
    pub fn unix_path(&self) -> Option<String> {
        self.open.iter().find_map(|open| match &open.place {
            Place::Unix(path) => Some(path.display().to_string()),
            _ => None,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Stops listening, and removes the file of a unix socket.
    pub fn close(&mut self) {
        for open in self.open.drain(..) {
            let _ = open.socket.shutdown(Shutdown::Both);
            if let Place::Unix(path) = &open.place {
                log::notice!("Removing the unix socket file.");
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn open(
        &mut self,
        place: Place,
        optional: bool,
        endpoints: &Endpoints,
        change: &mut Change,
    ) -> Result<(), ListenError> {
        let kind = place.kind();
        let opened = match &place {
            Place::Tcp(_, address) => open_tcp(*address, endpoints.backlog),
            Place::Name(..) => Err(("resolve", io::Error::other("no address for this name"))),
            Place::Unix(path) => open_unix(path, endpoints),
        };
        let opened = opened.and_then(|socket| {
            let second = socket.try_clone().map_err(|error| ("dup", error))?;
            Ok((socket, second))
        });
        let (socket, second) = match opened {
            Ok(sockets) => sockets,
            Err((step, source)) => {
                let error = ListenError { place, step, source };
                let what = if kind == Kind::Unix { "Unix" } else { "TCP" };
                log::warning!("Warning: Could not create server {what} listening socket {error}");
                let is_missing = optional && has_errno(&error.source, &[Errno::ADDRNOTAVAIL]);
                return if is_missing || has_errno(&error.source, UNSUPPORTED) {
                    Ok(())
                } else {
                    Err(error)
                };
            }
        };
        let acceptor = match kind {
            Kind::Unix => Acceptor::Unix(mio::net::UnixListener::from_std(socket.into())),
            Kind::Tcp | Kind::Tls => Acceptor::Tcp(mio::net::TcpListener::from_std(socket.into())),
        };
        self.last_id += 1;
        self.open.push(Open { id: self.last_id, place, socket: second });
        change.added.push((self.last_id, kind, acceptor));
        Ok(())
    }
}

/// What a kernel without a family of addresses says: such an address is passed over, as by Redis.
const UNSUPPORTED: &[Errno] = &[
    Errno::NOPROTOOPT,
    Errno::PROTONOSUPPORT,
    Errno::SOCKTNOSUPPORT,
    Errno::PFNOSUPPORT,
    Errno::AFNOSUPPORT,
];

type Step<T> = Result<T, (&'static str, io::Error)>;

/// Every place to listen on, and whether it may be missing on this machine.
fn places(endpoints: &Endpoints) -> Result<Vec<(Place, bool)>, ListenError> {
    let mut places = Vec::new();
    for (kind, port) in [(Kind::Tcp, endpoints.port), (Kind::Tls, endpoints.tls_port)] {
        if port == 0 {
            continue;
        }
        for text in &endpoints.bind {
            let optional = text.starts_with('-');
            let text = text.strip_prefix('-').unwrap_or(text);
            match resolve(text, port) {
                Ok(address) => places.push((Place::Tcp(kind, address), optional)),
                Err(source) => {
                    let place = Place::Name(kind, text.to_owned(), port);
                    let error = ListenError { place, step: "resolve", source };
                    log::warning!("Warning: Could not create server TCP listening socket {error}");
                    return Err(error);
                }
            }
        }
    }
    if let Some(path) = &endpoints.unix_socket {
        places.push((Place::Unix(path.clone()), false));
    }
    Ok(places)
}

/// `*`, `::*`, an address or a name. As with Redis, only what has a colon in it is IPv6.
fn resolve(text: &str, port: u16) -> io::Result<SocketAddr> {
    match text {
        "*" => Ok(SocketAddr::from(([0, 0, 0, 0], port))),
        "::*" => Ok(SocketAddr::from(([0u16; 8], port))),
        _ => (text, port)
            .to_socket_addrs()?
            .find(|address| address.is_ipv6() == text.contains(':'))
            .ok_or_else(|| io::Error::other("no address for this name")),
    }
}

fn open_tcp(address: SocketAddr, backlog: u32) -> Step<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(|error| ("socket", error))?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(|error| ("setsockopt", error))?;
    }
    socket.set_reuse_address(true).map_err(|error| ("setsockopt SO_REUSEADDR", error))?;
    socket.bind(&address.into()).map_err(|error| ("bind", error))?;
    socket.listen(backlog.min(i32::MAX as u32) as i32).map_err(|error| ("listen", error))?;
    Ok(socket)
}

fn open_unix(path: &Path, endpoints: &Endpoints) -> Step<Socket> {
    // What a server left that did not end in order.
    let _ = std::fs::remove_file(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
        .map_err(|error| ("socket", error))?;
    let address = SockAddr::unix(path).map_err(|error| ("bind", error))?;
    socket.bind(&address).map_err(|error| ("bind", error))?;
    if endpoints.unix_permissions != 0 {
        let permissions = std::fs::Permissions::from_mode(endpoints.unix_permissions);
        std::fs::set_permissions(path, permissions).map_err(|error| ("chmod", error))?;
    }
    let backlog = endpoints.backlog.min(i32::MAX as u32) as i32;
    socket.listen(backlog).map_err(|error| ("listen", error))?;
    Ok(socket)
}

fn has_errno(error: &io::Error, wanted: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| wanted.contains(&errno))
}

/// The system's text for an error, without the number that Rust adds.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_port() -> u16 {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    }

    fn endpoints(bind: &[&str], port: u16) -> Endpoints {
        let bind = bind.iter().map(|text| (*text).to_owned()).collect();
        Endpoints { bind, port, backlog: 16, ..Endpoints::default() }
    }

    fn accepts(port: u16) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    }

    #[test]
    fn a_change_keeps_the_sockets_that_stay() {
        let (first, second) = (free_port(), free_port());
        let mut listeners = Listeners::default();
        let (change, result) = listeners.change(&endpoints(&["127.0.0.1"], first));
        result.unwrap();
        assert_eq!((change.added.len(), change.removed.len()), (1, 0));

        let both = Endpoints { tls_port: second, ..endpoints(&["127.0.0.1"], first) };
        let (more, result) = listeners.change(&both);
        result.unwrap();
        assert_eq!((more.added.len(), more.removed.len()), (1, 0));
        assert_eq!(listeners.kinds(), [Kind::Tcp, Kind::Tls]);

        let (less, result) = listeners.change(&endpoints(&["127.0.0.1"], 0));
        result.unwrap();
        assert_eq!((less.added.len(), less.removed.len()), (0, 2));
        assert!(listeners.is_empty() && !accepts(first));
    }

    #[test]
    fn an_address_gives_way_to_the_wildcard() {
        let port = free_port();
        let mut listeners = Listeners::default();
        let (narrow, result) = listeners.change(&endpoints(&["127.0.0.1"], port));
        result.unwrap();
        let (wide, result) = listeners.change(&endpoints(&["*"], port));
        result.unwrap();
        assert_eq!((wide.added.len(), wide.removed.len()), (1, 1));
        assert!(accepts(port));
        drop(narrow);
    }

    #[test]
    fn a_change_that_fails_leaves_the_old_listeners() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free_port();
        let mut listeners = Listeners::default();
        let (_first, result) = listeners.change(&endpoints(&["127.0.0.1"], port));
        result.unwrap();
        let (_again, result) =
            listeners.change(&endpoints(&["127.0.0.1"], taken.local_addr().unwrap().port()));
        let error = result.unwrap_err();
        assert!(error.to_string().ends_with(": bind: Address already in use"), "{error}");
        assert_eq!(error.port(), taken.local_addr().unwrap().port());
        assert_eq!(listeners.addresses()[0].port(), port);
        assert!(accepts(port));
    }

    #[test]
    fn an_optional_address_may_be_missing() {
        let mut listeners = Listeners::default();
        let (_change, result) =
            listeners.change(&endpoints(&["127.0.0.1", "-192.0.2.77"], free_port()));
        result.unwrap();
        assert_eq!(listeners.addresses().len(), 1);
        assert!(listeners.change(&endpoints(&["192.0.2.77"], free_port())).1.is_err());
    }

    #[test]
    fn a_unix_socket_replaces_a_dead_one_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "left over").unwrap();
        let unix = Endpoints {
            unix_socket: Some(path.clone()),
            unix_permissions: 0o700,
            backlog: 8,
            ..Endpoints::default()
        };
        let mut listeners = Listeners::default();
        listeners.change(&unix).1.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        listeners.close();
        assert!(!path.exists());
    }
}

//! The socket of a link until a reactor has it: read and written by the link's own thread, within bounds of time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use carnelian_replication::handshake::LINE_BYTES_MAX;
use carnelian_replication::payload;
use carnelian_tls::{Connector, Source};

use super::replica::Following;
use super::secure::Secured;
use crate::internode::{Dialled, DialledSocket};

/// While data are loaded the primary is told so often that we are alive.
const BEAT: Duration = Duration::from_secs(1);

/// How often a wait looks whether it should go on.
const SLICE: Duration = Duration::from_secs(1);

/// What a peer has to send within a time-out, or else it is not worth waiting for.
const BYTES_MIN: u64 = 64;

/// What a link goes over.
pub enum Socket {
    Tcp(TcpStream),
    /// One end of a pair; behind the other end it is passed on, encrypted.
    Pair(UnixStream),
}

impl Socket {
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(limit),
            Self::Pair(stream) => stream.set_read_timeout(limit),
        }
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(limit),
            Self::Pair(stream) => stream.set_write_timeout(limit),
        }
    }

    pub fn set_nonblocking(&self, is_on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(is_on),
            Self::Pair(stream) => stream.set_nonblocking(is_on),
        }
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Pair(stream) => stream.try_clone().map(Self::Pair),
        }
    }

    /// Ends the connection for all who have it.
    pub fn shut_down(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Pair(stream) => stream.shutdown(Shutdown::Both),
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&mut &*stream).read(buffer),
            Self::Pair(stream) => (&mut &*stream).read(buffer),
        }
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => (&mut &*stream).write_all(bytes),
            Self::Pair(stream) => (&mut &*stream).write_all(bytes),
        }
    }
}

/// A connection to the primary.
pub struct Wire {
    pub stream: Socket,
    /// Of the other end, and of ours.
    pub addresses: (SocketAddr, SocketAddr),
    /// Nobody on the way can read it.
    pub is_encrypted: bool,
    /// There, what is read and written goes through it.
    pub secured: Option<Secured>,
    /// It is for the snapshot alone: signs of life go over the other connection.
    is_beside: bool,
    following: Arc<Following>,
    timeout: Duration,
    /// Since when the line is awaited that is being read.
    line_begun: Option<Instant>,
    /// What the socket's own time limit is set to.
    patience: Duration,
    /// What has come since when.
    window: (Instant, u64),
    /// Signs of life are due, and the last one was sent then.
    beaten: Option<Instant>,
    pub counted_bytes: u64,
}

impl Wire {
    /// Connects to the server that is followed. `is_beside`: for the snapshot alone, while another connection is for
    /// the stream.
    pub fn connect(
        following: &Arc<Following>,
        source: &Source,
        timeout: Duration,
        is_beside: bool,
    ) -> Result<Self, String> {
        let failed = |error: &io::Error| format!("Unable to connect to MASTER: {error}");
        let addresses = (following.host.as_str(), following.port)
            .to_socket_addrs()
            .map_err(|it| failed(&it))?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match source.connect(address, timeout) {
                Ok(stream) => {
                    let own = stream.local_addr().map_err(|it| failed(&it))?;
                    stream.set_nodelay(true).map_err(|it| failed(&it))?;
                    let (stream, addresses) = (Socket::Tcp(stream), (address, own));
                    return Self::over(following, stream, addresses, timeout, is_beside)
                        .map_err(|it| failed(&it));
                }
                Err(error) => last = error,
            }
        }
        Err(format!("Error condition on socket for SYNC: {last}"))
    }

    /// Goes on over a link with another node.
    pub fn of_node(
        following: &Arc<Following>,
        dialled: Dialled,
        timeout: Duration,
    ) -> io::Result<Self> {
        let stream = match dialled.socket {
            DialledSocket::Pair(stream) => Socket::Pair(stream),
            DialledSocket::Plain(stream) => Socket::Tcp(stream),
        };
        let mut wire = Self::over(following, stream, dialled.addresses, timeout, false)?;
        wire.is_encrypted = dialled.own_serial.is_some();
        Ok(wire)
    }

    fn over(
        following: &Arc<Following>,
        stream: Socket,
        addresses: (SocketAddr, SocketAddr),
        timeout: Duration,
        is_beside: bool,
    ) -> io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        match is_beside {
            true => following.keep_beside(stream.try_clone().ok()),
            false => following.keep(stream.try_clone().ok()),
        }
        Ok(Self {
            stream,
            is_beside,
            addresses,
            is_encrypted: false,
            secured: None,
            following: Arc::clone(following),
            timeout,
            line_begun: None,
            patience: timeout,
            window: (Instant::now(), 0),
            beaten: None,
            counted_bytes: 0,
        })
    }

    /// Speaks TLS from now on.
    pub fn secure(&mut self, connector: &Connector) -> io::Result<()> {
        let deadline = Instant::now() + self.timeout;
        let Socket::Tcp(stream) = &self.stream else { return Ok(()) };
        let secured = Secured::shake_hands(connector, stream, deadline).map_err(slow)?;
        self.secured = Some(secured);
        self.is_encrypted = true;
        Ok(())
    }

    /// The next line, which has to come whole within the time-out.
    pub fn line(&mut self) -> io::Result<Vec<u8>> {
        self.line_begun = Some(Instant::now());
        let line = payload::read_line(self, LINE_BYTES_MAX);
        self.line_begun = None;
        line
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match (&mut self.secured, &self.stream) {
            (Some(secured), Socket::Tcp(stream)) => secured.write(stream, bytes),
            (_, stream) => stream.write_all(bytes),
        }
    }

    /// From now on what is read is the snapshot.
    pub fn begin_payload(&mut self, beats: bool) {
        self.window = (Instant::now(), 0);
        self.beaten = (beats && !self.is_beside).then(Instant::now);
        self.counted_bytes = 0;
    }

    pub fn end_payload(&mut self) {
        self.beaten = None;
    }

    /// Tells the primary from time to time that we are alive.
    pub fn beat(&mut self) -> io::Result<()> {
        if self.beaten.is_some_and(|last| BEAT <= last.elapsed()) {
            self.beaten = Some(Instant::now());
            self.send(b"\n")?;
        }
        Ok(())
    }

    /// Begins to beat, whatever is read meanwhile.
    pub fn beat_from_now(&mut self) {
        self.beaten = (!self.is_beside).then(Instant::now);
    }

    /// What comes of the stream within `patience`, appended to `into`: how much. Nothing is no error.
    pub fn collect(&mut self, into: &mut [u8], patience: Duration) -> io::Result<Option<usize>> {
        self.beat()?;
        match self.receive(into, patience) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(Some(count)),
            Err(error) if is_slow(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A time-out, told as what it is.
fn slow(error: io::Error) -> io::Error {
    if is_slow(&error) { too_slow() } else { error }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer sends nothing, or next to nothing")
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begun = self.line_begun.unwrap_or_else(Instant::now);
        let count = loop {
            let left = self.timeout().saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(too_slow());
            }
            self.beat()?;
            match self.receive(buffer, left.min(SLICE)) {
                Err(error) if is_slow(&error) => {}
                result => break result?,
            }
        };
        self.counted_bytes += count as u64;
        self.window.1 += count as u64;
        if self.timeout() < self.window.0.elapsed() {
            if self.window.1 < BYTES_MIN && count != 0 && self.line_begun.is_none() {
                return Err(too_slow());
            }
            self.window = (Instant::now(), 0);
        }
        self.following.note_io();
        if self.line_begun.is_none() {
            self.following.transfer.read_bytes.store(self.counted_bytes, Ordering::Relaxed);
        }
        Ok(count)
    }
}

impl Wire {
    /// How long the peer may say nothing, as the configuration has it now.
    fn timeout(&self) -> Duration {
        self.following.patience().unwrap_or(self.timeout)
    }

    /// What comes within `patience`.
    fn receive(&mut self, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
        if let (Some(secured), Socket::Tcp(stream)) = (&mut self.secured, &self.stream) {
            return secured.read(stream, Instant::now() + patience, buffer);
        }
        if self.patience != patience {
            self.stream.set_read_timeout(Some(patience))?;
            self.patience = patience;
        }
        self.stream.read(buffer)
    }
}

fn is_slow(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

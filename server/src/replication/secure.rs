//! TLS on a link until a reactor has it: the link's own thread reads and writes through it, each time within a
//! deadline, however little the peer sends at a time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use carnelian_tls::{Connector, OutgoingSession, TlsError};

/// What is read of the socket at once: some of the largest records.
pub const READ_BYTES: usize = 64 * 1024;

/// A TLS session and what it holds back.
pub struct Secured {
    pub session: OutgoingSession,
    ciphertext: Box<[u8]>,
    /// What has come, and how much of it has been read.
    plaintext: Vec<u8>,
    given: usize,
    outgoing: Vec<u8>,
    /// The peer has said that nothing more comes.
    has_ended: bool,
}

impl Secured {
    /// Comes to terms with the peer.
    pub fn shake_hands(
        connector: &Connector,
        socket: &TcpStream,
        deadline: Instant,
    ) -> io::Result<Self> {
        let (session, outgoing) = connector.start().map_err(of_tls)?;
        let mut secured = Self {
            session,
            ciphertext: vec![0; READ_BYTES].into(),
            plaintext: Vec::new(),
            given: 0,
            outgoing,
            has_ended: false,
        };
        secured.flush(socket)?;
        while secured.session.is_handshaking() {
            if !secured.receive(socket, deadline)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(secured)
    }

    pub fn read(
        &mut self,
        socket: &TcpStream,
        deadline: Instant,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        while self.given == self.plaintext.len() {
            self.plaintext.clear();
            self.given = 0;
            if !self.receive(socket, deadline)? {
                return Ok(0);
            }
        }
        let mut left = &self.plaintext[self.given..];
        let count = left.read(buffer)?;
        self.given += count;
        Ok(count)
    }

    pub fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.session.send(bytes, &mut self.outgoing).map_err(of_tls)?;
        self.flush(socket)
    }

    /// The session, and what has come and was not read.
    pub fn into_parts(mut self) -> (OutgoingSession, Vec<u8>) {
        self.plaintext.drain(..self.given);
        (self.session, self.plaintext)
    }

    /// Whether there may come more.
    fn receive(&mut self, mut socket: &TcpStream, deadline: Instant) -> io::Result<bool> {
        if self.has_ended {
            return Ok(false);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        socket.set_read_timeout(Some(left))?;
        let count = socket.read(&mut self.ciphertext)?;
        let Self { session, plaintext, outgoing, .. } = self;
        let received = session.receive(&self.ciphertext[..count], plaintext, outgoing);
        if let Err(error) = received {
            // The alert says to the peer what is said here.
            let _ = self.flush(socket);
            return Err(of_tls(error));
        }
        self.has_ended = count == 0 || received.is_ok_and(|received| received.closed);
        self.flush(socket)?;
        Ok(!self.has_ended || self.given < self.plaintext.len())
    }

    fn flush(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        let outgoing = std::mem::take(&mut self.outgoing);
        socket.write_all(&outgoing)
    }
}

/// As an error of the connection that it is one of.
pub fn of_tls(error: TlsError) -> io::Error {
    io::Error::other(error)
}

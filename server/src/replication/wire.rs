//! The socket of a link until a reactor has it: read and written by the link's own thread, within bounds of time.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use carnelian_replication::handshake::LINE_BYTES_MAX;
use carnelian_replication::payload;
use carnelian_tls::Connector;

use super::replica::Following;
use super::secure::Secured;

/// While data are loaded the primary is told so often that we are alive.
const BEAT: Duration = Duration::from_secs(1);

/// How often a wait looks whether it should go on.
const SLICE: Duration = Duration::from_secs(1);

/// What a peer has to send within a time-out, or else it is not worth waiting for.
const BYTES_MIN: u64 = 64;

/// A connection to the primary.
pub struct Wire {
    pub stream: TcpStream,
    /// There, what is read and written goes through it.
    pub secured: Option<Secured>,
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
    /// Connects to the server that is followed.
    pub fn connect(following: &Arc<Following>, timeout: Duration) -> Result<Self, String> {
        let failed = |error: &io::Error| format!("Unable to connect to MASTER: {error}");
        let addresses = (following.host.as_str(), following.port)
            .to_socket_addrs()
            .map_err(|it| failed(&it))?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    Self::prepare(&stream, timeout).map_err(|it| failed(&it))?;
                    following.keep(stream.try_clone().ok());
                    return Ok(Self {
                        stream,
                        secured: None,
                        following: Arc::clone(following),
                        timeout,
                        line_begun: None,
                        patience: timeout,
                        window: (Instant::now(), 0),
                        beaten: None,
                        counted_bytes: 0,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(format!("Error condition on socket for SYNC: {last}"))
    }

    fn prepare(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))
    }

    /// Speaks TLS from now on.
    pub fn secure(&mut self, connector: &Connector) -> io::Result<()> {
        let deadline = Instant::now() + self.timeout;
        let secured = Secured::shake_hands(connector, &self.stream, deadline).map_err(slow)?;
        self.secured = Some(secured);
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
        match &mut self.secured {
            Some(secured) => secured.write(&self.stream, bytes),
            None => self.stream.write_all(bytes),
        }
    }

    /// From now on what is read is the snapshot.
    pub fn begin_payload(&mut self, beats: bool) {
        self.window = (Instant::now(), 0);
        self.beaten = beats.then(Instant::now);
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
        self.beaten = Some(Instant::now());
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
        if let Some(secured) = &mut self.secured {
            return secured.read(&self.stream, Instant::now() + patience, buffer);
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

//! Between a reactor and a primary that speaks TLS: a reactor's sessions are the server's end of TLS, so it gets a
//! socket pair's one end as the primary's connection, and a thread here decrypts into the other end and encrypts
//! what comes out of it.
//!
//! Neither direction waits for the other: each has a buffer, and is read only while its buffer is empty. Whichever side
//! ends, the other is ended too, after what the primary sent before has been passed on.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use carnelian_tls::OutgoingSession;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::secure::{READ_BYTES, Secured, of_tls};
use crate::log;

/// Starts to pass on what `secured` and `socket` bring. The end that is for the reactor.
pub fn start(secured: Secured, socket: TcpStream) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    for result in [socket.set_nonblocking(true), ours.set_nonblocking(true)] {
        result?;
    }
    theirs.set_nonblocking(true)?;
    let (session, plaintext) = secured.into_parts();
    let relay = Relay {
        session,
        socket,
        reactor: ours,
        to_reactor: Pending { bytes: plaintext, sent: 0 },
        to_primary: Pending::default(),
        buffer: vec![0; READ_BYTES].into(),
        has_ended: false,
    };
    std::thread::Builder::new().name("replica-tls".into()).spawn(move || relay.run())?;
    Ok(theirs)
}

struct Relay {
    session: OutgoingSession,
    socket: TcpStream,
    reactor: UnixStream,
    to_reactor: Pending,
    to_primary: Pending,
    buffer: Box<[u8]>,
    /// The primary sends nothing more.
    has_ended: bool,
}

impl Relay {
    /// Passes on until one side ends; then both sockets are closed.
    fn run(mut self) {
        if let Err(error) = self.pass_on() {
            log::verbose!("TLS link to MASTER: {error}");
        }
        self.session.close(&mut self.to_primary.bytes);
        // Whatever of it the socket takes: nobody waits for it.
        let _ = self.to_primary.flush(&mut self.socket);
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn pass_on(&mut self) -> io::Result<()> {
        loop {
            self.to_reactor.flush(&mut self.reactor)?;
            if !self.has_ended {
                self.to_primary.flush(&mut self.socket)?;
            } else if self.to_reactor.is_empty() {
                return Ok(());
            }
            let mut of_socket = PollFlags::empty();
            of_socket.set(PollFlags::IN, self.to_reactor.is_empty() && !self.has_ended);
            of_socket.set(PollFlags::OUT, !self.to_primary.is_empty() && !self.has_ended);
            let mut of_reactor = PollFlags::empty();
            of_reactor.set(PollFlags::IN, self.to_primary.is_empty());
            of_reactor.set(PollFlags::OUT, !self.to_reactor.is_empty());
            let (at_socket, at_reactor) = self.wait(of_socket, of_reactor)?;
            let ends = PollFlags::HUP | PollFlags::ERR;
            // Its end is seen even while the primary takes nothing.
            if at_reactor.intersects(PollFlags::IN | ends) && !self.read_reactor()? {
                return Ok(());
            }
            if of_socket.contains(PollFlags::IN) && at_socket.intersects(PollFlags::IN | ends) {
                self.read_socket()?;
            }
        }
    }

    /// What there is at the socket and at the reactor's end.
    fn wait(
        &self,
        of_socket: PollFlags,
        of_reactor: PollFlags,
    ) -> io::Result<(PollFlags, PollFlags)> {
        let mut places =
            [PollFd::new(&self.reactor, of_reactor), PollFd::new(&self.socket, of_socket)];
        // A socket that nothing is wanted of would still tell of its end, again and again.
        let count = if of_socket.is_empty() { 1 } else { 2 };
        loop {
            match poll(&mut places[..count], None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok((places[1].revents(), places[0].revents())),
            }
        }
    }

    /// Whether the reactor still has its end.
    fn read_reactor(&mut self) -> io::Result<bool> {
        let Some(count) = would_block(self.reactor.read(&mut self.buffer))? else {
            return Ok(true);
        };
        let outgoing = &mut self.to_primary.bytes;
        self.session.send(&self.buffer[..count], outgoing).map_err(of_tls)?;
        Ok(count != 0)
    }

    fn read_socket(&mut self) -> io::Result<()> {
        let Some(count) = would_block(self.socket.read(&mut self.buffer))? else {
            return Ok(());
        };
        let (plaintext, outgoing) = (&mut self.to_reactor.bytes, &mut self.to_primary.bytes);
        let received = self.session.receive(&self.buffer[..count], plaintext, outgoing);
        self.has_ended = match received {
            Ok(received) => received.closed || count == 0,
            Err(error) => {
                log::warning!("TLS link to MASTER: {error}");
                true
            }
        };
        Ok(())
    }
}

/// Bytes that a socket has yet to take.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    sent: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Writes what the socket takes now.
    fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while !self.is_empty() {
            let Some(count) = would_block(socket.write(&self.bytes[self.sent..]))? else {
                return Ok(());
            };
            self.sent += count;
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

/// None where there is nothing to be done now.
fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::{Duration, Instant, SystemTime};

    use carnelian_tls::{Acceptor, Connector, Identity, Settings, SubjectAltNames, TlsSession};

    use super::*;

    const LARGE: usize = 16 << 20;

    /// A primary's end of TLS on a blocking socket.
    struct Primary {
        session: TlsSession,
        socket: TcpStream,
        plaintext: Vec<u8>,
    }

    impl Primary {
        /// Whether there may come more.
        fn receive(&mut self) -> bool {
            let mut buffer = [0; 4096];
            let count = self.socket.read(&mut buffer).unwrap();
            let mut outgoing = Vec::new();
            let received =
                self.session.receive(&mut buffer[..count], &mut self.plaintext, &mut outgoing);
            // It may have gone.
            let _ = self.socket.write_all(&outgoing);
            count != 0 && !received.unwrap().closed
        }

        fn send(&mut self, bytes: &[u8]) {
            let mut outgoing = Vec::new();
            self.session.send(bytes, &mut outgoing).unwrap();
            self.socket.write_all(&outgoing).unwrap();
        }
    }

    /// A primary, and the end that a reactor would have.
    fn joined() -> (Primary, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let names = SubjectAltNames::of(["primary.example"]).unwrap();
        let settings =
            Settings::new(Identity::SelfMade { folder: folder.path().to_owned(), names });
        let acceptor = Acceptor::new(&settings, SystemTime::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let primary = thread::spawn(move || {
            let socket = listener.accept().unwrap().0;
            let session = acceptor.start().unwrap();
            let mut primary = Primary { session, socket, plaintext: Vec::new() };
            while primary.plaintext.is_empty() {
                assert!(primary.receive());
            }
            primary.send(b"first");
            primary
        });
        let connector = Connector::new(&settings, None).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut secured = Secured::shake_hands(&connector, &socket, deadline).unwrap();
        secured.write(&socket, b"PING").unwrap();
        let mut byte = [0];
        assert_eq!(secured.read(&socket, deadline, &mut byte).unwrap(), 1);
        let mut primary = primary.join().unwrap();
        assert_eq!(primary.plaintext, b"PING");
        primary.plaintext.clear();
        (primary, start(secured, socket).unwrap())
    }

    /// Fills all there is between a reactor and a primary that reads nothing. How much that is.
    fn stuff(reactor: &mut UnixStream) -> usize {
        let mut count = 0;
        // Many times what a socket takes at once: it is full when nothing goes for a while.
        reactor.set_nonblocking(false).unwrap();
        reactor.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        while let Ok(more) = reactor.write(&[7; 4096]) {
            count += more;
        }
        count
    }

    #[test]
    fn neither_direction_waits_for_the_other_and_the_end_comes_last() {
        let (mut primary, mut reactor) = joined();
        let stuffed = stuff(&mut reactor);
        let sender = thread::spawn(move || {
            for _ in 0..LARGE >> 16 {
                primary.send(&[1; 1 << 16]);
            }
            while primary.plaintext.len() < stuffed {
                assert!(primary.receive());
            }
            assert!(primary.plaintext.iter().all(|byte| *byte == 7));
            let mut outgoing = Vec::new();
            primary.send(b"last");
            primary.session.close_notify(&mut outgoing);
            primary.socket.write_all(&outgoing).unwrap();
            primary.socket.shutdown(Shutdown::Write).unwrap();
            // It closes its side, too.
            while primary.receive() {}
        });
        let mut received = Vec::new();
        reactor.read_to_end(&mut received).unwrap();
        assert_eq!(&received[..4], b"irst");
        assert_eq!(received.len(), 4 + LARGE + 4);
        assert!(received.ends_with(b"last"));
        sender.join().unwrap();
    }

    #[test]
    fn the_end_of_the_reactors_side_is_seen_while_the_primary_reads_nothing() {
        let (mut primary, mut reactor) = joined();
        stuff(&mut reactor);
        drop(reactor);
        primary.socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut buffer = vec![0; 1 << 16];
        // It ends, whole records or not.
        while !matches!(primary.socket.read(&mut buffer), Ok(0)) {}
    }
}

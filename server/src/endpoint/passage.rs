//! Two streams made one: what comes from either goes out of the other.
//!
//! Neither direction waits for the other, and each holds at most one piece that its other side has not taken: a
//! side that reads slowly slows down whoever sends to it, and nothing grows. A connection that is idle holds no
//! buffer at all, as all connections of a thread read into one.
//!
//! When the client has sent its last byte, the server hears of that and still answers; when the server
//! has, everything is over.
//!
//! The far end can be exchanged for another while both go on: see [`Passage::begin_to_move`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once, and what a direction holds at most.
pub const PIECE_BYTES: usize = 64 << 10;

thread_local! {
    static PIECE: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE_BYTES].into());
}

/// Any of the streams that can be at an end of a passage.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub type BoxStream = Box<dyn Stream>;

/// On which side of a passage the server is; the client is on the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerSide {
    Near,
    Far,
}

/// How it came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The server has said all, and the client has been given it; or something failed.
    Ended,
    /// Nothing is on its way to or from the far end any more, which can be exchanged.
    Moved,
}

pub struct Passage {
    near: BoxStream,
    far: BoxStream,
    server: ServerSide,
    /// From near to far, and the other way.
    outward: Flow,
    inward: Flow,
    moving: Moving,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Moving {
    No,
    /// The far end may fall silent for the sake of it.
    Prepared,
    /// This side has fallen silent, too.
    Begun,
}

impl Passage {
    pub fn new(near: BoxStream, far: BoxStream, server: ServerSide) -> Self {
        let (outward, inward) = (Flow::default(), Flow::default());
        Self { near, far, server, outward, inward, moving: Moving::No }
    }

    /// Goes on until there is an outcome. Nothing is lost where that is given up in between.
    pub async fn run(&mut self) -> Outcome {
        poll_fn(|context| self.poll(context)).await
    }

    /// From now on the end of what the far end sends does not end anything. False if something has ended already:
    /// then there is nothing to be moved.
    pub fn prepare_to_move(&mut self) -> bool {
        let is_open = self.outward.state == State::Open && self.inward.state == State::Open;
        if is_open && self.moving == Moving::No {
            self.moving = Moving::Prepared;
        }
        is_open
    }

    /// Nothing came of it.
    pub fn stay(&mut self) {
        self.moving = Moving::No;
        if self.inward.has_read_all && self.inward.state == State::Over {
            self.inward.state = State::Closing;
        }
    }

    /// Sends nothing more to the far end, and tells it so. When that end has done the same, it can be exchanged.
    pub fn begin_to_move(&mut self) {
        self.moving = Moving::Begun;
        if self.outward.state == State::Open {
            self.outward.state = State::Closing;
        }
    }

    /// Goes on with another far end.
    pub fn go_on(&mut self, far: BoxStream) {
        self.far = far;
        self.moving = Moving::No;
        (self.outward, self.inward) = (Flow::default(), Flow::default());
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let Self { near, far, server, outward, inward, moving } = self;
        let ends = Ends::Pass;
        let of_far = if *moving == Moving::No { Ends::Pass } else { Ends::Keep };
        let is_out = match outward.poll(near, far, ends, context) {
            Poll::Ready(Err(_)) => return Poll::Ready(Outcome::Ended),
            poll => poll.is_ready(),
        };
        let is_in = match inward.poll(far, near, of_far, context) {
            Poll::Ready(Err(_)) => return Poll::Ready(Outcome::Ended),
            poll => poll.is_ready(),
        };
        let is_ended = match server {
            ServerSide::Near => is_out && outward.has_read_all,
            ServerSide::Far => is_in && *moving == Moving::No,
        };
        if is_ended {
            return Poll::Ready(Outcome::Ended);
        }
        match *moving == Moving::Begun && is_out && is_in {
            true => Poll::Ready(Outcome::Moved),
            false => Poll::Pending,
        }
    }
}

/// What becomes of the end of a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ends {
    /// The other side is told.
    Pass,
    Keep,
}

/// One direction.
#[derive(Default)]
struct Flow {
    /// What has been read and not been taken yet.
    pending: Vec<u8>,
    sent: usize,
    /// Written, but perhaps kept by the stream.
    is_dirty: bool,
    has_read_all: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Open,
    /// Nothing more is read; what is pending has to go, and then the target is told.
    Closing,
    Over,
}

impl Flow {
    /// Ready when it is over.
    fn poll(
        &mut self,
        from: &mut BoxStream,
        to: &mut BoxStream,
        ends: Ends,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.sent < self.pending.len() {
                let rest = &self.pending[self.sent..];
                match ready!(Pin::new(&mut *to).poll_write(context, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => self.sent += count,
                }
                self.is_dirty = true;
            }
            (self.pending, self.sent) = (Vec::new(), 0);
            match self.state {
                State::Over => return Poll::Ready(Ok(())),
                State::Closing => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                    self.state = State::Over;
                    return Poll::Ready(Ok(()));
                }
                State::Open => {}
            }
            match PIECE.with_borrow_mut(|piece| self.transfer(from, to, piece, context)) {
                Poll::Ready(Ok(0)) => {
                    self.has_read_all = true;
                    match ends {
                        Ends::Pass => self.state = State::Closing,
                        Ends::Keep => {
                            if self.is_dirty {
                                ready!(Pin::new(&mut *to).poll_flush(context))?;
                                self.is_dirty = false;
                            }
                            self.state = State::Over;
                        }
                    }
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.is_dirty && Pin::new(&mut *to).poll_flush(context)?.is_ready() {
                        self.is_dirty = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads once and writes what is taken at once; keeps the rest. How much was read.
    fn transfer(
        &mut self,
        from: &mut BoxStream,
        to: &mut BoxStream,
        piece: &mut [u8],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(piece);
        ready!(Pin::new(&mut *from).poll_read(context, &mut buffer))?;
        let read = buffer.filled();
        let mut rest = read;
        while !rest.is_empty() {
            self.is_dirty = true;
            match Pin::new(&mut *to).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => rest = &rest[count..],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.pending = rest.to_vec();
                    break;
                }
            }
        }
        Poll::Ready(Ok(read.len()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    const LARGE: usize = 4 << 20;

    /// A passage with the server on this side; the client's end, the server's end.
    fn between(server: ServerSide) -> (DuplexStream, DuplexStream, JoinHandle<Outcome>) {
        let (near, inner) = duplex(1 << 12);
        let (far, outer) = duplex(1 << 12);
        let mut passage = Passage::new(Box::new(inner), Box::new(outer), server);
        let task = tokio::spawn(async move { passage.run().await });
        match server {
            ServerSide::Far => (near, far, task),
            ServerSide::Near => (far, near, task),
        }
    }

    #[tokio::test]
    async fn a_client_that_has_sent_its_last_byte_is_still_answered() {
        for side in [ServerSide::Near, ServerSide::Far] {
            let (mut client, mut server, task) = between(side);
            client.write_all(b"PING").await.unwrap();
            client.shutdown().await.unwrap();
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes, b"PING");
            server.write_all(b"PONG").await.unwrap();
            drop(server);
            bytes.clear();
            client.read_to_end(&mut bytes).await.unwrap();
            assert_eq!((bytes.as_slice(), task.await.unwrap()), (&b"PONG"[..], Outcome::Ended));
        }
    }

    #[tokio::test]
    async fn when_the_server_ends_everything_does() {
        for side in [ServerSide::Near, ServerSide::Far] {
            let (mut client, server, task) = between(side);
            drop(server);
            assert_eq!(task.await.unwrap(), Outcome::Ended);
            assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn neither_direction_waits_for_the_other() {
        let (mut client, mut server, _task) = between(ServerSide::Far);
        tokio::join!(async { client.write_all(&vec![1; LARGE]).await.unwrap() }, async {
            server.write_all(&vec![2; 1 << 10]).await.unwrap();
            let mut bytes = vec![0; LARGE];
            server.read_exact(&mut bytes).await.unwrap();
            assert!(bytes.iter().all(|byte| *byte == 1));
        });
        let mut bytes = vec![0; 1 << 10];
        client.read_exact(&mut bytes).await.unwrap();
        assert!(bytes.iter().all(|byte| *byte == 2));
    }

    #[tokio::test]
    async fn who_reads_slowly_holds_up_who_sends() {
        let (mut client, server, _task) = between(ServerSide::Far);
        let mut taken = 0;
        // All there is room for: two pipes and one piece.
        while let Ok(written) =
            tokio::time::timeout(std::time::Duration::from_millis(200), client.write(&[7; 4096]))
                .await
        {
            taken += written.unwrap();
            assert!(taken <= PIECE_BYTES + (4 << 12), "{taken}");
        }
        drop(server);
    }

    #[tokio::test]
    async fn the_far_end_is_exchanged_without_a_byte_lost() {
        // As between two nodes: client - forwarder - link - primary - server.
        let (mut client, near) = duplex(1 << 10);
        let (mut server, reactor) = duplex(1 << 10);
        let (one, other) = duplex(1 << 10);
        let mut forwarder = Passage::new(Box::new(near), Box::new(one), ServerSide::Far);
        let mut primary = Passage::new(Box::new(reactor), Box::new(other), ServerSide::Near);
        let moving = tokio::spawn(async move {
            for _ in 0..20 {
                for _ in 0..50 {
                    tokio::select! {
                        biased;
                        _ = forwarder.run() => panic!("it goes on"),
                        _ = primary.run() => panic!("it goes on"),
                        () = tokio::task::yield_now() => {}
                    }
                }
                assert!(forwarder.prepare_to_move() && primary.prepare_to_move());
                primary.begin_to_move();
                for _ in 0..50 {
                    tokio::select! {
                        biased;
                        _ = forwarder.run() => panic!("it has not begun"),
                        _ = primary.run() => panic!("it has not begun"),
                        () = tokio::task::yield_now() => {}
                    }
                }
                forwarder.begin_to_move();
                let moved = tokio::join!(forwarder.run(), primary.run());
                assert_eq!(moved, (Outcome::Moved, Outcome::Moved));
                let (one, other) = duplex(1 << 10);
                forwarder.go_on(Box::new(one));
                primary.go_on(Box::new(other));
            }
            tokio::join!(forwarder.run(), primary.run())
        });
        let pattern = |place: usize| (place % 251) as u8;
        let bytes: Vec<u8> = (0..LARGE).map(pattern).collect();
        let (mut up, mut down) = (vec![0; LARGE], vec![0; LARGE]);
        let (mut client_in, mut client_out) = tokio::io::split(&mut client);
        let (mut server_in, mut server_out) = tokio::io::split(&mut server);
        let all = tokio::join!(
            client_out.write_all(&bytes),
            server_out.write_all(&bytes),
            server_in.read_exact(&mut up),
            client_in.read_exact(&mut down),
        );
        assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok() && all.3.is_ok());
        assert!(up == bytes && down == bytes);
        drop(server);
        assert_eq!(moving.await.unwrap(), (Outcome::Ended, Outcome::Ended));
    }

    #[tokio::test]
    async fn a_move_that_came_to_nothing_ends_what_fell_silent_for_it() {
        let (mut client, near) = duplex(64);
        let (far, link) = duplex(64);
        let mut passage = Passage::new(Box::new(near), Box::new(link), ServerSide::Far);
        assert!(passage.prepare_to_move());
        drop(far);
        let waiting =
            tokio::time::timeout(std::time::Duration::from_millis(20), passage.run()).await;
        assert!(waiting.is_err());
        passage.stay();
        assert_eq!(passage.run().await, Outcome::Ended);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

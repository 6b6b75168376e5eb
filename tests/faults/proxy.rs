//! A stretch of network between two servers that can be slow, dead or cut.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

/// How often a stretch looks whether it is to do something else.
const LOOK: Duration = Duration::from_millis(5);

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    #[default]
    Open,
    /// So many of them come at a time, with a pause between.
    Slow { bytes: usize, pause: Duration },
    /// None comes through, and nobody is told.
    Dead,
}

/// Takes connections, and passes on what is said on them.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    target: Mutex<u16>,
    /// Towards the server, and back from it.
    ways: [Mutex<Way>; 2],
    /// How many more bytes come back before the connection is cut.
    left: Mutex<Option<usize>>,
    streams: Mutex<Vec<TcpStream>>,
    has_ended: AtomicBool,
}

impl Proxy {
    /// One in front of a port of this machine.
    pub fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        *shared.target.lock().expect("no panic") = target;
        let taking = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if taking.has_ended.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = stream {
                    // Nobody listens there just now.
                    let _ = connect(&taking, stream);
                }
            }
        });
        Ok(Self { port, shared })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Leads somewhere else from the next connection on.
    pub fn lead_to(&self, target: u16) {
        *self.shared.target.lock().expect("no panic") = target;
    }

    /// What becomes of the bytes towards the server, and of those back from it.
    pub fn set(&self, there: Way, back: Way) {
        for (way, new) in self.shared.ways.iter().zip([there, back]) {
            *way.lock().expect("no panic") = new;
        }
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for stream in self.shared.streams.lock().expect("no panic").drain(..) {
            // It may have ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends them all once the server has sent so many bytes more.
    pub fn cut_after(&self, bytes: usize) {
        *self.shared.left.lock().expect("no panic") = Some(bytes);
    }

    /// Passes everything on, as if nothing had been.
    pub fn heal(&self) {
        *self.shared.left.lock().expect("no panic") = None;
        self.set(Way::Open, Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the thread that takes connections.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn connect(shared: &Arc<Shared>, near: TcpStream) -> Result<()> {
    let target = *shared.target.lock().expect("no panic");
    let far = TcpStream::connect(("127.0.0.1", target))?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
    }
    {
        let mut streams = shared.streams.lock().expect("no panic");
        streams.push(near.try_clone()?);
        streams.push(far.try_clone()?);
    }
    for (way, from, to) in [(0, near.try_clone()?, far.try_clone()?), (1, far, near)] {
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            pass_on(&shared, way, &from, &to);
            // The other direction ends too.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            // What has ended must not use up descriptors for as long as nobody cuts.
            let mut streams = shared.streams.lock().expect("no panic");
            streams.retain(|stream| stream.peer_addr().is_ok());
        });
    }
    Ok(())
}

/// Passes on what comes, until an end is closed.
fn pass_on(shared: &Shared, way: usize, mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while !shared.has_ended.load(Ordering::Relaxed) {
        let state = *shared.ways[way].lock().expect("no panic");
        let most = match state {
            Way::Dead => {
                // What comes waits in the sender's socket, and so does the news of its end.
                sleep(LOOK);
                continue;
            }
            Way::Slow { bytes, pause } => {
                sleep(pause);
                bytes
            }
            Way::Open => buffer.len(),
        };
        let mut count = match from.read(&mut buffer[..most]) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if is_slow(&error) => continue,
            Err(_) => return,
        };
        let mut is_cut = false;
        if way == 1
            && let Some(left) = &mut *shared.left.lock().expect("no panic")
        {
            is_cut = *left <= count;
            count = count.min(*left);
            *left -= count;
        }
        let mut unsent = &buffer[..count];
        while !unsent.is_empty() {
            match to.write(unsent) {
                Ok(count) => unsent = &unsent[count..],
                Err(error) if is_slow(&error) => {
                    if shared.has_ended.load(Ordering::Relaxed) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
        if is_cut {
            *shared.left.lock().expect("no panic") = None;
            return;
        }
    }
}

fn is_slow(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

//! A client that writes all the time and knows what was acknowledged.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::client::Client;
use crate::transport::Transport;

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keys that are looked at in one request.
const KEYS_AT_ONCE: u64 = 500;

/// Writes until it is told to stop, and comes again when its connection is closed.
pub struct Writer {
    shared: Arc<Shared>,
    name: String,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    acknowledged: AtomicU64,
    closed: AtomicU64,
}

/// What a writer has done.
#[derive(Clone, Debug)]
pub struct Written {
    pub name: String,
    /// Keys `NAME:1` to `NAME:this` have been acknowledged; each has its number as its value.
    pub count: u64,
    /// How often its connection was closed.
    pub closed: u64,
}

impl Writer {
    pub fn start(port: u16, name: &str) -> Self {
        Self::start_at(("127.0.0.1", port), name)
    }

    pub fn start_at((address, port): (&str, u16), name: &str) -> Self {
        let place = (address.to_owned(), port);
        let shared = Arc::new(Shared::default());
        let (own, own_name) = (Arc::clone(&shared), name.to_owned());
        let thread = std::thread::spawn(move || write(&place, &own_name, &own));
        Self { shared, name: name.to_owned(), thread }
    }

    /// Waits until more has been written.
    #[track_caller]
    pub fn go_on(&self) {
        let wanted = self.acknowledged() + 20;
        while self.acknowledged() < wanted {
            assert!(!self.thread.is_finished(), "the writer has failed");
            sleep(Duration::from_millis(1));
        }
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// How often it was disconnected.
    pub fn closed(&self) -> u64 {
        self.shared.closed.load(Ordering::SeqCst)
    }

    pub fn stop(self) -> Written {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.thread.join().expect("the writer is in order");
        let of = |figure: &AtomicU64| figure.load(Ordering::SeqCst);
        let (count, closed) = (of(&self.shared.acknowledged), of(&self.shared.closed));
        Written { name: self.name, count, closed }
    }
}

impl Written {
    /// Whether all that was acknowledged is there.
    pub fn check(&self, client: &mut Client) -> Result<()> {
        let mut first = 1;
        while first <= self.count {
            let last = self.count.min(first + KEYS_AT_ONCE - 1);
            let mut words = vec!["MGET".to_owned()];
            words.extend((first..=last).map(|number| format!("{}:{number}", self.name)));
            let reply = client.call_words(&words);
            let values = reply.elements();
            ensure!(values.len() as u64 == last - first + 1, "{reply}");
            for (number, value) in (first..=last).zip(values) {
                let is_there = value.to_string() == number.to_string();
                ensure!(is_there, "{}:{number} is {value}", self.name);
            }
            first = last + 1;
        }
        Ok(())
    }
}

fn write(place: &(String, u16), name: &str, shared: &Shared) {
    let connect = || {
        let stream = TcpStream::connect((&*place.0, place.1)).expect("the server is there");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Client::over(Transport::Tcp(stream))
    };
    let mut client = connect();
    let mut next = 1;
    while !shared.is_over.load(Ordering::SeqCst) {
        let set = format!("SET {name}:{next} {next}\r\n");
        let sent = client.try_send(set.as_bytes()).map_err(anyhow::Error::from);
        match sent.and_then(|()| client.try_read()) {
            Ok(reply) => {
                assert_eq!(reply.to_string(), "+OK");
                shared.acknowledged.store(next, Ordering::SeqCst);
                next += 1;
            }
            Err(_) => {
                shared.closed.fetch_add(1, Ordering::SeqCst);
                client = connect();
            }
        }
    }
}

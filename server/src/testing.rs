//! A server within a test: its reactors run on threads of the test's process.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use carnelian_config::Config;
use parking_lot::Mutex;

use crate::acl::Acl;
use crate::database::{Database, Stats};
use crate::encryption::Encryption;
use crate::mailbox::Message;
use crate::reactor::{Reactor, Seat};
use crate::reclaim::Reclaimer;
use crate::registry::Registry;
use crate::server::{Identity, Request, Server};
use crate::settings;

pub struct Bench {
    pub server: Arc<Server>,
    pub database: Arc<Database>,
    pub port: u16,
    pub reactors: Vec<JoinHandle<()>>,
    /// What the main thread of a server is asked for.
    pub requests: Mutex<Receiver<Request>>,
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub const REACTORS: usize = 2;

    /// Listens on a port of its own on 127.0.0.1; the rest is as `config` says.
    pub fn start(mut config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Self::free_port();
        config.dir = folder.path().to_owned();
        config.port = port;
        config.bind = vec!["127.0.0.1".into()];

        let seats: Vec<_> = (0..Self::REACTORS).map(|_| Seat::new().unwrap()).collect();
        let mailboxes = seats.iter().map(|seat| Arc::clone(seat.mailbox())).collect();
        let encryption = Encryption::new(&config).unwrap();
        let registry = Registry::new(&[]);
        let stats = Stats::new(Self::REACTORS, registry.entries().len());
        let config = Arc::new(config);
        let acl = Acl::new(&registry);
        acl.set_default_password(settings::password(&config));
        let reclaimer = Reclaimer::start().unwrap();
        let identity = Identity {
            process_id: std::process::id(),
            run_id: String::new(),
            started_ms: 0,
            program: "carnelian-server".into(),
            executable: "carnelian-server".into(),
            config_file: None,
            supervised: false,
        };
        let (sender, requests) = channel();
        let server = Server::new(
            Arc::clone(&config),
            registry,
            reclaimer,
            Vec::new(),
            mailboxes,
            identity,
            sender,
        );
        let server = Arc::new(server);
        let ids = Arc::clone(&server.client_ids);
        let made = Database::new(1, Arc::clone(&config), acl, encryption, stats, ids);
        let database = Arc::new(made);
        let (change, listened) = database.listeners.lock().change(&settings::endpoints(&config));
        listened.unwrap();
        server.databases.write().push(Arc::clone(&database));
        let spawn = |(index, seat)| {
            let server = Arc::clone(&server);
            std::thread::spawn(move || Reactor::new(seat, index, server).run())
        };
        let reactors = seats.into_iter().enumerate().map(spawn).collect();
        server.pass_on(&database, change);
        Self { server, database, port, reactors, requests: Mutex::new(requests), folder }
    }

    /// One that nobody listens on.
    pub fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    pub fn connect(&self) -> TcpStream {
        Self::connect_to(self.port)
    }

    pub fn connect_to(port: u16) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends `request` and expects exactly `reply`.
    pub fn exchange(&self, stream: &mut TcpStream, request: &str, reply: &str) {
        stream.write_all(request.as_bytes()).unwrap();
        let mut received = vec![0; reply.len()];
        stream.read_exact(&mut received).unwrap();
        assert!(received == reply.as_bytes(), "{}", String::from_utf8_lossy(&received));
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for mailbox in &self.server.mailboxes {
            mailbox.post(Message::Shutdown);
        }
        for reactor in self.reactors.drain(..) {
            reactor.join().unwrap();
        }
    }
}

//! A server within the process, with one reactor on the main thread, and a client on another.
//!
//! It is the server that clients meet, assembled as `boot` does: its reactor accepts, reads, parses,
//! runs and writes. Only the socket is a unix socket, and there is no TLS (making keys takes as many
//! instructions as luck will have it).

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;

use anyhow::{Context, Result, anyhow};
use carnelian_config::Config;
use carnelian_server::acl::Acl;
use carnelian_server::database::{Database, Stats};
use carnelian_server::encryption::Encryption;
use carnelian_server::log;
use carnelian_server::mailbox::{Mailbox, Message};
use carnelian_server::reactor::{Reactor, Seat};
use carnelian_server::reclaim::Reclaimer;
use carnelian_server::registry::Registry;
use carnelian_server::server::{Identity, Server};
use carnelian_server::settings;

/// Serves one client until it has done what it came for.
pub fn serve(client: impl FnOnce(&mut UnixStream) -> Result<()> + Send) -> Result<()> {
    let socket = std::env::temp_dir().join(format!("carnelian-{}.sock", std::process::id()));
    let seat = Seat::new().context("Can't make an event loop")?;
    let mailbox = Arc::clone(seat.mailbox());
    let (server, database) = start(config(socket.clone()), &mailbox)?;
    let ran = std::thread::scope(|scope| {
        let visit = || {
            let _end = ShutdownOnDrop(&mailbox);
            let mut stream = UnixStream::connect(&socket).context("Can't connect")?;
            client(&mut stream)
        };
        let client = scope.spawn(visit);
        Reactor::new(seat, 0, server).run();
        client.join().unwrap_or_else(|_| Err(anyhow!("The client ran into a bug")))
    });
    database.listeners.lock().close();
    ran
}

fn config(unixsocket: PathBuf) -> Config {
    Config {
        port: 0,
        unixsocket,
        // As rarely as possible: what is due by time is not part of a request.
        hz: 1,
        // No folder: so no keys are made, and the server goes on without TLS.
        dir: "/dev/null".into(),
        ..Config::default()
    }
}

fn start(config: Config, mailbox: &Arc<Mailbox>) -> Result<(Arc<Server>, Arc<Database>)> {
    log::set_threshold(log::Level::Nothing);
    let registry = Registry::new(&[]);
    let config = Arc::new(config);
    let identity = Identity {
        process_id: std::process::id(),
        run_id: String::new(),
        started_ms: 0,
        executable: PathBuf::new(),
        program: String::new(),
        config_file: None,
        supervised: false,
    };
    let (requests, _) = channel();
    let mailboxes = Box::new([Arc::clone(mailbox)]);
    let reclaimer = Reclaimer::start().context("Can't start a thread")?;
    let server = Server::new(
        Arc::clone(&config),
        registry,
        reclaimer,
        Vec::new(),
        mailboxes,
        identity,
        requests,
    );
    let server = Arc::new(server);
    let database = Arc::new(Database::new(
        1,
        Arc::clone(&config),
        Acl::new(&server.registry),
        Encryption::new(&config)?,
        Stats::new(1, server.registry.entries().len()),
        Arc::clone(&server.client_ids),
    ));
    let (change, listened) = database.listeners.lock().change(&settings::endpoints(&config));
    listened.map_err(|_| anyhow!("Can't listen on {}", config.unixsocket.display()))?;
    // The server does not learn of it: so nobody looks for expired keys in it, which happens by time and
    // not by request.
    server.pass_on(&database, change);
    Ok((server, database))
}

/// Ends the reactor, whatever becomes of the client.
struct ShutdownOnDrop<'a>(&'a Mailbox);

impl Drop for ShutdownOnDrop<'_> {
    fn drop(&mut self) {
        self.0.post(Message::Shutdown);
    }
}

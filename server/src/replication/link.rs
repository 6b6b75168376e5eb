//! The link to a primary: a thread that connects, asks for what is missing, takes a snapshot in where there has to
//! be one, and hands the connection to a reactor. From then on it only says how far we are, once a second,
//! and looks whether the primary still sends.
//!
//! What comes from the other side is bounded in time and size; whatever is wrong ends the attempt with a reason in
//! the log, and the next one begins a second later.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use carnelian_keyspace::Segments;
use carnelian_replication::Id;
use carnelian_replication::beside::{Offers, Visitor};
use carnelian_replication::handshake::{Handshake, Introduction, Step, command};
use carnelian_replication::payload::Payload;
use carnelian_tls::{Connector, Source};

use super::apply::PrimaryLink;
use super::gate;
use super::relay;
use super::replica::{self, Following, Rules, Stage};
use super::snapshot::{self, Loaded, OnDisk};
use super::waits;
use super::wire::{Socket, Wire};
use crate::aof;
use crate::at_rest;
use crate::clients::{ClientShared, Origin, bits};
use crate::clock;
use crate::connection::{Accepted, PrimaryStream, Stream, Whose};
use crate::database::Database;
use crate::internode::{self, NodeTarget};
use crate::listener::Kind;
use crate::log;
use crate::mailbox::Message;
use crate::server::Server;
use crate::session::Worker;
use crate::tasks::REDIS_VERSION;

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// Between two messages of how far we are.
const ACK: Duration = Duration::from_secs(1);
/// A reactor that is held up by a script is asked again after this.
const BUSY_RETRY: Duration = Duration::from_millis(10);

/// Starts the thread of a link.
pub fn start(server: Arc<Server>, database: Arc<Database>, following: Arc<Following>) {
    let link = Link { server, database, following };
    let spawned = std::thread::Builder::new().name("replica-link".into()).spawn(move || link.run());
    if let Err(error) = spawned {
        log::warning!("Could not start the thread of the link to the master: {error}");
    }
}

/// Appends how far we are, and how much of it is on disk, for the primary.
pub fn acknowledge(database: &Database, out: &mut Vec<u8>) {
    // In this order: what is on disk is not more than what there is.
    let synced = waits::synced(database);
    let end = database.log.end().to_string();
    let mut words = vec![b"REPLCONF".as_slice(), b"ACK", end.as_bytes()];
    let synced = synced.map(|synced| synced.to_string());
    if let Some(synced) = &synced {
        words.extend([b"FACK", synced.as_bytes()]);
    }
    command(out, &words);
}

pub(super) struct Link {
    pub(super) server: Arc<Server>,
    pub(super) database: Arc<Database>,
    pub(super) following: Arc<Following>,
}

impl Link {
    fn run(&self) {
        while !self.is_over() {
            let begun = Instant::now();
            let switches = self.database.internode.switches();
            let result = self.attempt();
            if self.is_over() {
                return;
            }
            self.following.keep(None);
            self.following.note_lost();
            self.following.set_stage(Stage::Connect);
            self.apply_rules();
            let pause = match result {
                Err(reason) => {
                    log::warning!("{reason}");
                    self.database.replication.failed_links.fetch_add(1, Ordering::Relaxed);
                    // It may be just that what has ended it.
                    let is_moved = switches != self.database.internode.switches();
                    if is_moved { RETRY / 10 } else { RETRY }
                }
                // A link that was lost is made again at once, if it was one.
                Ok(()) if RETRY < begun.elapsed() => Duration::ZERO,
                Ok(()) => RETRY / 10,
            };
            if self.following.wait(false, pause) {
                return;
            }
            let Following { host, port, .. } = &*self.following;
            log::notice!("Connecting to MASTER {host}:{port}");
        }
    }

    /// Whether no link is wanted any longer.
    fn is_over(&self) -> bool {
        self.following.is_stopped() || self.database.replication.is_ending.load(Ordering::SeqCst)
    }

    fn apply_rules(&self) {
        replica::apply_rules(&self.database, Rules::of(&self.database));
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.database.config().repl_timeout.into())
    }

    /// Makes the link and stays with it until it is lost.
    fn attempt(&self) -> Result<(), String> {
        let mut wire = match &self.following.target {
            None => self.connect()?,
            Some(target) => self.dial(target)?,
        };
        self.following.set_stage(Stage::Handshake);
        let answer = self.shake_hands(&mut wire);
        self.end_failover(answer.is_ok());
        match answer? {
            Step::FullSync { id, offset } => {
                self.following.set_stage(Stage::Sync);
                let synced = self.full_sync(&mut wire, id, offset);
                self.end_transfer();
                let (source, received) = synced?;
                self.stream(wire, source, received)
            }
            Step::Beside(beside) => {
                let synced = self.full_sync_beside(wire, beside);
                self.end_transfer();
                let (wire, source, received) = synced?;
                self.stream(wire, source, received)
            }
            Step::Continue(id) => {
                let source = self.go_on(id)?;
                log::notice!(
                    "MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization."
                );
                self.stream(wire, source, Vec::new())
            }
            Step::Listen | Step::Say(_) => Err("The handshake did not come to an end".into()),
        }
    }

    fn connect(&self) -> Result<Wire, String> {
        let connector = self.connector()?;
        self.following.set_stage(Stage::Connecting);
        log::notice!("MASTER <-> REPLICA sync started");
        let wire = self.open(connector.as_ref(), false)?;
        log::notice!("Non blocking connect for SYNC fired the event.");
        Ok(wire)
    }

    /// A connection for the stream, or one for the snapshot beside it.
    pub(super) fn open(
        &self,
        connector: Option<&Connector>,
        is_beside: bool,
    ) -> Result<Wire, String> {
        let config = self.database.config();
        let (source, wrong) = Source::parse(&config.bind_source_addr);
        if let Some(wrong) = wrong {
            log::warning!("bind-source-addr: '{wrong}' is no address, and not used");
        }
        let mut wire = Wire::connect(&self.following, &source, self.timeout(), is_beside)?;
        if let Some(connector) = connector {
            let failed = |error| format!("TLS handshake with MASTER failed: {error}");
            wire.secure(connector).map_err(failed)?;
        }
        Ok(wire)
    }

    /// Reaches a node of the cluster, as the database's setting has it.
    fn dial(&self, target: &NodeTarget) -> Result<Wire, String> {
        self.following.set_stage(Stage::Connecting);
        log::notice!("MASTER <-> REPLICA sync started");
        let failed =
            |reason: &dyn std::fmt::Display| format!("Unable to connect to MASTER: {reason}");
        let setting = || self.database.internode.is_encrypted();
        let wire = loop {
            let before = setting();
            let dialled =
                internode::dial(&self.server, &self.database, target).map_err(|it| failed(&it))?;
            let own_serial = dialled.own_serial.clone();
            let wire = Wire::of_node(&self.following, dialled, self.timeout());
            let wire = wire.map_err(|it| failed(&it))?;
            self.following.note_made(own_serial);
            // What has changed before there was a link did not end it.
            if before == setting() || wire.is_encrypted == setting() {
                break wire;
            }
        };
        let how = if wire.is_encrypted { "over TLS" } else { "with a ticket, not encrypted" };
        log::notice!("Connected to {target} {how}.");
        Ok(wire)
    }

    /// What makes TLS sessions, if the link is to be one. Files are read anew for each link.
    pub(super) fn connector(&self) -> Result<Option<Connector>, String> {
        let config = self.database.config();
        let made = config.tls_replication.then(|| self.database.tls.connector(&config));
        made.transpose().map_err(|error| format!("Unable to use TLS with MASTER: {error}"))
    }

    /// Who was to take our place has said whether it does.
    fn end_failover(&self, has_accepted: bool) {
        let primary = &self.database.replication.primary;
        if !primary.failover.lock().is_on() {
            return;
        }
        if has_accepted {
            primary.end_failover(&self.server, &self.database);
        } else {
            let reason = "Failover target rejected psync request";
            primary.abort_failover(&self.server, &self.database, reason);
        }
    }

    fn introduction(&self) -> Introduction {
        let config = self.database.config();
        let history = self.following.has_past().then(|| {
            let id = self.database.replication.history.lock().id();
            (id, self.database.log.end())
        });
        match &history {
            Some((id, end)) => {
                log::notice!("Trying a partial resynchronization (request {id}:{}).", end + 1)
            }
            None => log::notice!("Partial resynchronization not possible (no cached master)"),
        }
        let Visitor { auth, listening_port, address } = self.visitor();
        Introduction {
            auth,
            listening_port,
            address,
            version: REDIS_VERSION.into(),
            history,
            // Nodes keep the log for one another.
            offers: Offers {
                rdb_channel: config.repl_rdb_channel && self.following.target.is_none(),
                dual_channel: config.dual_channel_replication_enabled
                    && self.following.target.is_none(),
            },
            is_failover: self.database.replication.primary.failover.lock().is_on(),
        }
    }

    /// Who we are.
    pub(super) fn visitor(&self) -> Visitor {
        let config = self.database.config();
        let listening_port = match config.replica_announce_port {
            0 if config.tls_replication && config.tls_port != 0 => config.tls_port,
            0 => config.port,
            port => port,
        };
        // A node is known by its certificate.
        let auth = (!config.masterauth.is_empty() && self.following.target.is_none())
            .then(|| (config.masteruser.clone(), config.masterauth.clone()));
        Visitor { auth, listening_port, address: config.replica_announce_ip.clone() }
    }

    /// Comes to the answer to PSYNC.
    fn shake_hands(&self, wire: &mut Wire) -> Result<Step, String> {
        let silent = |error| unanswered("SYNC", &error);
        let (mut handshake, ping) = Handshake::begin(self.introduction());
        wire.send(&ping).map_err(silent)?;
        let mut is_first = true;
        loop {
            let line = wire.line().map_err(silent)?;
            let step = handshake.take(&line).map_err(|refused| refused.to_string())?;
            if std::mem::take(&mut is_first) {
                log::notice!("Master replied to PING, replication can continue...");
            }
            handshake.remarks.drain(..).for_each(|remark| log::notice!("{remark}"));
            match step {
                Step::Listen => {}
                Step::Say(bytes) => wire.send(&bytes).map_err(silent)?,
                end => return Ok(end),
            }
        }
    }

    /// Goes on behind what there is. The link's number in the log.
    fn go_on(&self, id: Option<Id>) -> Result<u64, String> {
        log::notice!("Successful partial resynchronization with master.");
        self.under_all_locks(move |_, database, _| {
            let mut history = database.replication.history.lock();
            let changed = id.filter(|id| *id != history.id());
            if let Some(id) = changed {
                log::notice!("Master replication ID changed to {id}");
                history.shift(id, database.log.end());
            }
            drop(history);
            if changed.is_some() {
                database.replication.primary.disconnect_all();
            }
            keep_backlog(database);
            Ok(database.log.set_foreign(true))
        })
    }

    /// Takes everything in. The link's number in the log, and what has come behind the snapshot.
    pub(super) fn full_sync(
        &self,
        wire: &mut Wire,
        id: Id,
        offset: u64,
    ) -> Result<(u64, Vec<u8>), String> {
        log::notice!("Full resync from master: {id}:{offset}");
        let payload = self.await_payload(wire)?;
        let transfer = &self.following.transfer;
        let total = payload.length().map_or(-1, |length| length.min(i64::MAX as u64) as i64);
        transfer.total_bytes.store(total, Ordering::Relaxed);
        transfer.read_bytes.store(0, Ordering::Relaxed);

        let config = self.database.config();
        let is_beside = config.repl_diskless_load == "swapdb";
        let is_diskless = is_beside
            || config.repl_diskless_load == "on-empty-db"
                && snapshot::is_empty(&self.database.keyspace);
        let (from, to) = match payload {
            Payload::Mark(mark) => {
                (format!("streamed RDB from master with EOF {}", mark.escape_ascii()), is_diskless)
            }
            Payload::Length(length) => (format!("{length} bytes from master"), is_diskless),
        };
        let to = if to { "to parser" } else { "to disk" };
        log::notice!("MASTER <-> REPLICA sync: receiving {from} {to}");
        let loaded = match is_diskless {
            true => self.load_from_wire(wire, &payload, is_beside, id)?,
            false => self.load_from_disk(wire, &payload)?,
        };
        let (keys, behind) = (loaded.keys, loaded.behind.clone());
        log::notice!("Done loading RDB, keys loaded: {keys}, keys expired: 0.");
        if is_beside {
            log::notice!("MASTER <-> REPLICA sync: Swapping active DB with loaded DB");
        }
        aof::disable(&self.server, &self.database, false);
        let source = self.take_over(loaded, id, offset)?;
        replica::restart_file(&self.server, &self.database, false);
        Ok((source, behind))
    }

    /// Waits for the announcement of a snapshot, which the primary may have to make first.
    fn await_payload(&self, wire: &mut Wire) -> Result<Payload, String> {
        loop {
            let line = wire
                .line()
                .map_err(|error| format!("I/O error reading bulk count from MASTER: {error}"))?;
            if !line.is_empty() {
                return Payload::parse(&line);
            }
        }
    }

    /// Reads the snapshot as it comes. The old data stay until it is complete if they are to be kept.
    fn load_from_wire(
        &self,
        wire: &mut Wire,
        payload: &Payload,
        is_beside: bool,
        id: Id,
    ) -> Result<Loaded, String> {
        if is_beside {
            // Old data of the same history may be shown until then.
            let is_same = self.database.replication.history.lock().id() == id;
            self.begin_loading(is_same && self.following.has_past());
        } else {
            self.empty()?;
        }
        wire.begin_payload(true);
        let database = &self.database;
        let length = payload.length();
        let loaded = snapshot::load(database, &self.following, &mut *wire, length);
        let loaded = loaded.and_then(|mut loaded| {
            let ended = payload.end(loaded.bytes, &mut loaded.behind, wire);
            ended.map(|()| loaded).map_err(|error| error.to_string())
        });
        wire.end_payload();
        loaded.map_err(|reason| {
            log::warning!("Internal error in RDB reading offset {}: {reason}", wire.counted_bytes);
            format!("Failed trying to load the MASTER synchronization DB from socket: {reason}")
        })
    }

    /// Receives the snapshot in a file, and reads that once it is complete.
    fn load_from_disk(&self, wire: &mut Wire, payload: &Payload) -> Result<Loaded, String> {
        let config = self.database.config();
        wire.begin_payload(false);
        let policy = at_rest::policy(&config);
        let mut on_disk = OnDisk::receive(wire, payload, &config.dir, &policy)?;
        on_disk.keep(&config.dir.join(&config.dbfilename))?;
        self.empty()?;
        wire.beat_from_now();
        let failed = |reason: String| {
            format!("Failed trying to load the MASTER synchronization DB from disk: {reason}")
        };
        on_disk.file.seek(SeekFrom::Start(0)).map_err(|error| failed(error.to_string()))?;
        let database = &self.database;
        let length = Some(on_disk.bytes);
        let input = Beating { file: &on_disk.file, wire: &mut *wire };
        let input = policy.open(input).map_err(|error| failed(error.to_string()))?;
        let loaded = snapshot::load(database, &self.following, input, length);
        wire.end_payload();
        let mut loaded = loaded.map_err(failed)?;
        loaded.behind = std::mem::take(&mut on_disk.behind);
        Ok(loaded)
    }

    /// Clients are told that data are being loaded, unless they may see the old ones.
    fn begin_loading(&self, shows_old: bool) {
        log::notice!("MASTER <-> REPLICA sync: Loading DB in memory");
        let transfer = &self.following.transfer;
        transfer.is_beside.store(shows_old, Ordering::SeqCst);
        transfer.is_loading.store(true, Ordering::SeqCst);
        let bit = if shows_old { gate::LOADING_BESIDE } else { gate::LOADING };
        self.database.replication.set_gate(bit, true);
    }

    /// Gives up the old data and their history, before others are loaded.
    fn empty(&self) -> Result<(), String> {
        // What it says is of the old data; it begins anew when the new ones are there.
        aof::disable(&self.server, &self.database, false);
        log::notice!("MASTER <-> REPLICA sync: Flushing old data");
        let following = Arc::clone(&self.following);
        self.under_all_locks(move |worker, database, held| {
            following.set_past(false);
            database.replication.history.lock().renew(super::new_id());
            database.replication.primary.disconnect_all();
            database.replication.set_gate(gate::LOADING, true);
            snapshot::replace(worker, database, held, None)
        })?;
        self.begin_loading(false);
        Ok(())
    }

    /// The new data take the place of the old ones, and their history too.
    fn take_over(&self, loaded: Loaded, id: Id, offset: u64) -> Result<u64, String> {
        let following = Arc::clone(&self.following);
        self.under_all_locks(move |worker, database, held| {
            database.replication.primary.disconnect_all();
            snapshot::replace(worker, database, held, Some(&loaded))?;
            database.replication.history.lock().renew(id);
            database.log.restart(offset, loaded.selected);
            keep_backlog(database);
            following.set_past(true);
            database.replication.set_gate(gate::LOADING | gate::LOADING_BESIDE, false);
            let source = database.log.set_foreign(true);
            log::notice!("MASTER <-> REPLICA sync: Finished with success");
            Ok(source)
        })
    }

    fn end_transfer(&self) {
        let transfer = &self.following.transfer;
        transfer.is_loading.store(false, Ordering::SeqCst);
        transfer.is_beside.store(false, Ordering::SeqCst);
        if !self.following.is_stopped() {
            let bits = gate::LOADING | gate::LOADING_BESIDE;
            self.database.replication.set_gate(bits, false);
        }
    }

    /// Does something on a reactor, with all locks held, if this link is still wanted then.
    fn under_all_locks<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Worker, &Arc<Database>, &mut dyn Segments) -> Result<T, String>
        + Send
        + 'static,
    ) -> Result<T, String> {
        let mut work = Some(work);
        loop {
            let (sender, receiver) = mpsc::channel();
            let (database, following) = (Arc::clone(&self.database), Arc::clone(&self.following));
            let mine = work.take().ok_or("it was done already")?;
            let run = move |worker: &mut Worker| {
                let Ok(mut access) = database.keyspace.lock_lazily_unless_busy() else {
                    // Nobody hears of it if the server ends.
                    let _ = sender.send(Err(mine));
                    return;
                };
                access.lock_rest();
                let result = match following.is_stopped() {
                    true => Err("Another master is followed, or none".into()),
                    false => mine(worker, &database, &mut access),
                };
                let _ = sender.send(Ok(result));
            };
            self.server.mailboxes[0].post(Message::Run(Box::new(run)));
            match receiver.recv() {
                Ok(Ok(result)) => return result,
                Ok(Err(again)) => work = Some(again),
                Err(_) => return Err("The server ends".into()),
            }
            if self.following.wait(false, BUSY_RETRY) {
                return Err("Another master is followed, or none".into());
            }
        }
    }

    /// Leaves the stream of effects to a reactor, and stays until the connection ends.
    fn stream(&self, wire: Wire, source: u64, received: Vec<u8>) -> Result<(), String> {
        let failed = |error: io::Error| format!("Could not go on with the link to MASTER: {error}");
        let client = self.hand_over(wire, source, received).map_err(failed)?;
        self.following.set_stage(Stage::Connected);
        self.apply_rules();
        loop {
            let mut ack = Vec::with_capacity(64);
            acknowledge(&self.database, &mut ack);
            client.deliver(ack.into());
            if self.following.wait(true, ACK) {
                break;
            }
            let last_ms = client.last_interaction_ms.load(Ordering::Relaxed);
            let silent_ms = u128::from(clock::wall_ms().saturating_sub(last_ms));
            if self.timeout().as_millis() < silent_ms {
                log::warning!("MASTER timeout: no data nor PING received...");
                client.kill();
            }
        }
        if !self.is_over() {
            log::notice!("Connection with master lost.");
            log::notice!("Caching the disconnected master state.");
        }
        Ok(())
    }

    fn hand_over(
        &self,
        wire: Wire,
        source: u64,
        received: Vec<u8>,
    ) -> io::Result<Arc<ClientShared>> {
        let database = &self.database;
        let mailboxes = &self.server.mailboxes;
        let Wire { stream, secured, addresses: (peer, own), is_encrypted, .. } = wire;
        stream.set_nonblocking(true)?;
        let reactor = database.clients.len() % mailboxes.len();
        let of_pair = |near| (Stream::Unix(mio::net::UnixStream::from_std(near)), Kind::Unix);
        let (stream, kind) = match (stream, secured) {
            (Socket::Tcp(stream), None) => {
                (Stream::Tcp(mio::net::TcpStream::from_std(stream)), Kind::Tcp)
            }
            (Socket::Tcp(stream), Some(secured)) => of_pair(relay::start(secured, stream)?),
            (Socket::Pair(near), _) => of_pair(near),
        };
        let shared = database.clients.add(Origin {
            address: peer.to_string(),
            local_address: own.to_string(),
            file_descriptor: stream.descriptor(),
            reactor,
            mailbox: Arc::clone(&mailboxes[reactor]),
            now_ms: clock::wall_ms(),
        });
        shared.set_flag(bits::PRIMARY, true);
        shared.tls.store(is_encrypted, Ordering::Relaxed);
        self.following.hand_over(&shared);
        let link = Box::new(PrimaryLink::new(Arc::clone(&self.following), source));
        let db = database.log.selected().and_then(|db| u16::try_from(db).ok()).unwrap_or(0);
        let accepted = Accepted {
            stream,
            kind,
            database: Arc::clone(database),
            shared: Arc::clone(&shared),
            loopback: false,
            refusal: None,
            whose: Whose::Primary(PrimaryStream { link, db, received }),
        };
        mailboxes[reactor].post(Message::Accept(Box::new(accepted)));
        // Not before: until then it is by the socket that the link can be ended.
        self.following.keep(None);
        if self.following.is_stopped() {
            // Whoever stopped it may have looked for the client before it was there.
            shared.kill();
        }
        Ok(shared)
    }
}

fn keep_backlog(database: &Database) {
    database.replication.primary.keep_backlog(database, database.config().repl_backlog_size);
}

/// A file that is read while the primary waits.
struct Beating<'w> {
    file: &'w std::fs::File,
    wire: &'w mut Wire,
}

impl Read for Beating<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.beat()?;
        self.file.read(buffer)
    }
}

/// Why a handshake did not come to an end.
pub(super) fn unanswered(which: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("Timeout connecting to the MASTER... ({error})"),
        _ => format!("Master did not respond to command during {which} handshake: {error}"),
    }
}

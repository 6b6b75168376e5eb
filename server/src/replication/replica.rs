//! The side of a replica: whom it follows, how far it has come, and how it begins and ends to follow.
//!
//! The role changes under all locks, together with where the log comes from. So there is no write of a client behind
//! the first of the primary, and no write of the primary behind a promotion.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use carnelian_config::Config;
use carnelian_replication::{History, Id};
use carnelian_resp::Writer;
use carnelian_tls::internode::Serial;
use parking_lot::{Condvar, Mutex};

use super::wire::Socket;
use super::{gate, link, new_id};
use crate::aof;
use crate::blocking;
use crate::clients::ClientShared;
use crate::clock;
use crate::database::Database;
use crate::internode::{self, NodeTarget};
use crate::log;
use crate::mailbox::Message;
use crate::server::Server;

/// How far the link to a primary is. In the order in which it gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// There is none; it is tried again soon.
    Connect,
    Connecting,
    Handshake,
    /// A snapshot is coming in.
    Sync,
    Connected,
}

impl Stage {
    const ALL: [Self; 5] =
        [Self::Connect, Self::Connecting, Self::Handshake, Self::Sync, Self::Connected];

    /// As ROLE has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Connecting => "connecting",
            Self::Handshake => "handshake",
            Self::Sync => "sync",
            Self::Connected => "connected",
        }
    }
}

/// The server that a database follows, and the link to it.
pub struct Following {
    pub host: String,
    pub port: u16,
    /// It is a node of this one's cluster, and is reached as such.
    pub target: Option<NodeTarget>,
    stage: AtomicU8,
    /// There was a link since that was last asked.
    was_up: AtomicBool,
    /// There is a history that a primary may go on with.
    has_past: AtomicBool,
    /// Nothing more is to come of it.
    is_stopped: AtomicBool,
    /// Since when there is no link, in milliseconds since 1970; 0: there is one.
    down_since_ms: AtomicU64,
    /// When something last came, while there is no client for the primary.
    last_io_ms: AtomicU64,
    /// `repl-timeout` as it was last looked at, in seconds; 0: nobody has looked yet.
    patience_s: AtomicU32,
    /// The snapshot that is coming in.
    pub transfer: Transfer,
    state: Mutex<State>,
    changed: Condvar,
}

/// How far the snapshot that comes in has come.
#[derive(Default)]
pub struct Transfer {
    /// -1: it is not known.
    pub total_bytes: AtomicI64,
    pub read_bytes: AtomicU64,
    /// It is being read into memory.
    pub is_loading: AtomicBool,
    /// The old data are shown meanwhile.
    pub is_beside: AtomicBool,
    /// What is kept of the stream that comes beside it, and how much that has been at most.
    pub kept_bytes: AtomicU64,
    pub kept_bytes_max: AtomicU64,
}

#[derive(Default)]
struct State {
    /// What is to be shut down when the link is to end: the stream's connection, and one for the snapshot.
    socket: Option<Socket>,
    beside: Option<Socket>,
    /// There is a link to a node: see [`Following::note_made`].
    made: Option<Option<Serial>>,
    /// The primary's connection on a reactor.
    client: Option<Arc<ClientShared>>,
    /// It is still there.
    has_client: bool,
}

impl Following {
    pub fn new(host: String, port: u16, target: Option<NodeTarget>, has_past: bool) -> Arc<Self> {
        Arc::new(Self {
            host,
            port,
            target,
            stage: AtomicU8::new(Stage::Connect as u8),
            was_up: AtomicBool::new(false),
            has_past: AtomicBool::new(has_past),
            is_stopped: AtomicBool::new(false),
            down_since_ms: AtomicU64::new(clock::wall_ms()),
            last_io_ms: AtomicU64::new(clock::wall_ms()),
            patience_s: AtomicU32::new(0),
            transfer: Transfer::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::SeqCst))]
    }

    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::SeqCst);
        let is_up = stage == Stage::Connected;
        if is_up {
            self.was_up.store(true, Ordering::SeqCst);
            self.down_since_ms.store(0, Ordering::SeqCst);
        } else if self.down_since_ms.load(Ordering::SeqCst) == 0 {
            self.down_since_ms.store(clock::wall_ms(), Ordering::SeqCst);
        }
    }

    pub fn is_up(&self) -> bool {
        self.stage() == Stage::Connected
    }

    /// Whether there is a link, or was one since this was last asked.
    pub fn was_up(&self) -> bool {
        self.was_up.swap(false, Ordering::SeqCst) || self.is_up()
    }

    /// For how many seconds there has been no link.
    pub fn down_seconds(&self, now_ms: u64) -> u64 {
        match self.down_since_ms.load(Ordering::SeqCst) {
            0 => 0,
            since_ms => now_ms.saturating_sub(since_ms) / 1000,
        }
    }

    /// When something came last, in milliseconds since 1970.
    pub fn last_io_ms(&self) -> u64 {
        let client = self.client();
        let of_client = client.map_or(0, |it| it.last_interaction_ms.load(Ordering::Relaxed));
        of_client.max(self.last_io_ms.load(Ordering::Relaxed))
    }

    pub fn note_io(&self) {
        self.last_io_ms.store(clock::wall_ms(), Ordering::Relaxed);
    }

    /// A link that is being made goes by a time-out that has changed meanwhile.
    pub fn set_patience(&self, seconds: u32) {
        self.patience_s.store(seconds, Ordering::Relaxed);
    }

    pub(super) fn patience(&self) -> Option<Duration> {
        let seconds = self.patience_s.load(Ordering::Relaxed);
        (seconds != 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// Whether there is a history that a primary may go on with.
    pub fn has_past(&self) -> bool {
        self.has_past.load(Ordering::SeqCst)
    }

    pub(super) fn set_past(&self, has_past: bool) {
        self.has_past.store(has_past, Ordering::SeqCst);
    }

    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// The primary's connection, while there is one.
    pub fn client(&self) -> Option<Arc<ClientShared>> {
        let state = self.state.lock();
        state.client.clone().filter(|_| state.has_client)
    }

    /// There is a link to a node, on which this certificate was shown; none: it is not encrypted.
    pub(super) fn note_made(&self, own_serial: Option<Serial>) {
        self.state.lock().made = Some(own_serial);
    }

    pub(super) fn note_lost(&self) {
        self.state.lock().made = None;
    }

    /// Whether the link to a node is encrypted, while there is one.
    pub fn is_encrypted(&self) -> Option<bool> {
        self.state.lock().made.as_ref().map(Option::is_some)
    }

    /// The certificate that was shown on the link to a node, if it is there and encrypted.
    pub fn own_serial(&self) -> Option<Serial> {
        self.state.lock().made.clone().flatten()
    }

    /// A socket that is shut down when the link is to end; none: it is somebody else's now.
    pub(super) fn keep(&self, socket: Option<Socket>) {
        let mut state = self.state.lock();
        state.socket = socket;
        if self.is_stopped() {
            close(&mut state);
        }
    }

    /// The same of the connection for the snapshot, if it has one of its own.
    pub(super) fn keep_beside(&self, socket: Option<Socket>) {
        let mut state = self.state.lock();
        state.beside = socket;
        if self.is_stopped() {
            close(&mut state);
        }
    }

    /// The link is a connection of a reactor now.
    pub(super) fn hand_over(&self, client: &Arc<ClientShared>) {
        let mut state = self.state.lock();
        (state.client, state.has_client) = (Some(Arc::clone(client)), true);
    }

    /// That connection has ended.
    pub fn lose_link(&self) {
        let mut state = self.state.lock();
        (state.client, state.has_client, state.made) = (None, false, None);
        self.set_stage(Stage::Connect);
        self.changed.notify_all();
    }

    /// Ends the link, for good.
    fn stop(&self) {
        let mut state = self.state.lock();
        self.is_stopped.store(true, Ordering::SeqCst);
        close(&mut state);
        self.changed.notify_all();
    }

    /// Ends the link; another is made.
    pub fn reconnect(&self) {
        close(&mut self.state.lock());
    }

    /// The reply to ROLE.
    pub fn write_role(&self, database: &Database, reply: &mut Writer<'_>) {
        let offset = if self.is_up() { database.log.end() as i64 } else { -1 };
        reply.array(5);
        reply.bulk(b"slave");
        reply.bulk(self.host.as_bytes());
        reply.integer(self.port.into());
        reply.bulk(self.stage().name().as_bytes());
        reply.integer(offset);
    }

    /// Waits until the link is stopped or, if there is a connection for the primary, that ends. Whether the
    /// wait is over before `patience`.
    pub(super) fn wait(&self, for_client: bool, patience: Duration) -> bool {
        let mut state = self.state.lock();
        let is_over = |state: &mut State| self.is_stopped() || for_client && !state.has_client;
        let timed_out =
            self.changed.wait_while_for(&mut state, |state| !is_over(state), patience).timed_out();
        !timed_out
    }
}

fn close(state: &mut State) {
    for socket in [state.socket.take(), state.beside.take()].into_iter().flatten() {
        // It may be closed already.
        let _ = socket.shut_down();
    }
    if let Some(client) = &state.client {
        client.kill();
    }
}

/// Has a database follow another server from now on. The caller holds all locks, and calls
/// [`begin`] once it has released them.
#[must_use]
pub fn follow(database: &Database, host: String, port: u16, rules: Rules) -> Arc<Following> {
    follow_either(database, host, port, None, rules)
}

/// The same for a node of the cluster.
#[must_use]
pub fn follow_node(database: &Database, target: NodeTarget, rules: Rules) -> Arc<Following> {
    follow_either(database, target.host.clone(), target.port, Some(target), rules)
}

fn follow_either(
    database: &Database,
    host: String,
    port: u16,
    target: Option<NodeTarget>,
    rules: Rules,
) -> Arc<Following> {
    let replication = &database.replication;
    let before = replication.following.load_full();
    let has_own = !rules.is_start || replication.has_resumed.load(Ordering::SeqCst);
    let has_past = before.as_ref().map_or(has_own, |before| before.has_past());
    let following = Following::new(host, port, target, has_past);
    replication.following.store(Some(Arc::clone(&following)));
    if let Some(before) = before {
        before.stop();
    } else if has_past {
        log::notice!(
            "Before turning into a replica, using my own master parameters to synthesize a cached \
             master: I may be able to synchronize with the new master with just a partial transfer."
        );
    }
    let selected = database.log.selected();
    database.log.set_foreign(true);
    if rules.is_start {
        database.log.select(selected);
    }
    replication.set_gate(gate::REPLICA, true);
    replication.own_keys.clear();
    apply_rules(database, rules);
    log::set_role(log::Role::Replica);
    following
}

/// Starts what makes the link.
pub fn begin(server: &Arc<Server>, database: &Arc<Database>, following: &Arc<Following>) {
    let ended = Arc::clone(database);
    server.mailboxes[0].post(Message::Run(Box::new(move |worker| {
        blocking::end_all(
            worker,
            &ended,
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> \
             replica?)",
        );
    })));
    log::notice!("Connecting to MASTER {}:{}", following.host, following.port);
    server.oom_score.heed(&server.config(), true);
    link::start(Arc::clone(server), Arc::clone(database), Arc::clone(following));
}

/// Has a database go on by itself, under a new name: those who followed the same server as it did can go on
/// with it. The caller holds all locks. Whether it followed one.
pub fn promote(database: &Database) -> bool {
    let replication = &database.replication;
    let Some(before) = replication.following.swap(None) else { return false };
    before.stop();
    database.log.set_foreign(false);
    let end = database.log.end();
    let (previous, id) = {
        let mut history = replication.history.lock();
        let previous = history.id();
        history.shift(new_id(), end);
        (previous, history.id())
    };
    let roles = gate::REPLICA | gate::READ_ONLY | gate::STALE | gate::LINK_DOWN;
    replication.set_gate(roles | gate::LOADING | gate::LOADING_BESIDE, false);
    replication.own_keys.clear();
    log::set_role(log::Role::Primary);
    log::notice!(
        "Setting secondary replication ID to {previous}, valid up to offset: {}. New replication \
         ID is {id}",
        end + 1
    );
    replication.primary.disconnect_all();
    true
}

/// Begins the append-only file anew, if there is to be one and none is written: with other data it was ended.
pub fn restart_file(server: &Arc<Server>, database: &Arc<Database>, is_nested: bool) {
    if database.config().appendonly && aof::enable(server, database, is_nested).is_err() {
        log::warning!("Failed enabling the AOF after successful master synchronization!");
        aof::schedule(database);
    }
}

/// What the configuration says of what a replica shows and takes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `replica-read-only`.
    pub is_read_only: bool,
    /// `replica-serve-stale-data`.
    pub shows_stale: bool,
    /// The server has just been started: what it has is not known yet.
    pub is_start: bool,
}

impl Rules {
    pub fn of(database: &Database) -> Self {
        let config = database.config();
        Self {
            is_read_only: config.replica_read_only,
            shows_stale: config.replica_serve_stale_data,
            is_start: false,
        }
    }
}

/// Puts the rules into effect, where they or the link have changed.
pub fn apply_rules(database: &Database, rules: Rules) {
    let replication = &database.replication;
    let following = replication.following.load_full();
    let is_down = following.as_ref().is_some_and(|following| !following.is_up());
    replication.set_gate(gate::READ_ONLY, following.is_some() && rules.is_read_only);
    replication.set_gate(gate::LINK_DOWN, is_down);
    replication.set_gate(gate::STALE, is_down && !rules.shows_stale);
}

/// What a snapshot says of the history of its data, so that a server that loads it can go on from there.
/// Called at its cut.
pub fn aux(database: &Database) -> Vec<(&'static str, Vec<u8>)> {
    if !database.log.keeps_backlog() {
        // What was written was not counted.
        return Vec::new();
    }
    let id = database.replication.history.lock().id();
    let selected = database.log.selected().unwrap_or(0);
    vec![
        ("repl-stream-db", selected.to_string().into_bytes()),
        ("repl-id", id.as_bytes().to_vec()),
        ("repl-offset", database.log.end().to_string().into_bytes()),
    ]
}

/// Goes on with the history of a snapshot that was loaded when the server started, before it follows
/// anybody.
pub fn resume(
    database: &Database,
    config: &Config,
    id: &[u8],
    offset: u64,
    selected: Option<usize>,
) {
    let Some(id) = Id::parse(id) else { return };
    let _all = database.keyspace.lock_all();
    let mut history = database.replication.history.lock();
    if config.replicaof.is_some() || internode::configured(config) != Ok(None) {
        history.renew(id);
        database.replication.has_resumed.store(true, Ordering::SeqCst);
    } else {
        *history = History::resumed(new_id(), id, offset);
    }
    database.log.restart(offset, selected);
    database.log.keep_backlog(Some(config.repl_backlog_size));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_there_between_two_looks_is_told_of_once() {
        let following = Following::new("h".to_owned(), 1, None, true);
        assert!(!following.was_up());
        for stage in [Stage::Connecting, Stage::Handshake, Stage::Sync] {
            following.set_stage(stage);
            assert!(!following.was_up(), "{stage:?} is no link yet");
        }
        following.set_stage(Stage::Connected);
        // For as long as it is there, however often that is asked.
        assert!(following.was_up() && following.was_up() && following.is_up());
        following.set_stage(Stage::Connect);
        assert!(!following.was_up(), "that was told while it was there");
        // It came and went since.
        following.set_stage(Stage::Connected);
        following.set_stage(Stage::Connect);
        assert!(!following.is_up() && following.was_up());
        assert!(!following.was_up());
    }
}

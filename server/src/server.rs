//! The process: its databases, its reactors, its configuration, and how it is asked to end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::Sender;

use carnelian_cluster::Deadline;
use carnelian_config::{Config, Line, ShutdownFlags};
use parking_lot::{Mutex, ReentrantMutex, RwLock};

use crate::blocking::Waiter;
use crate::clients::ClientIds;
use crate::clock;
use crate::database::Database;
use crate::endpoint::Endpoints;
use crate::internode::Internode;
use crate::listener::{Change, Listener};
use crate::mailbox::{Mailbox, Message};
use crate::rates::Turns;
use crate::reclaim::Reclaimer;
use crate::registry::Registry;
use crate::replication::gate;
use crate::standing::{Naming, OomScore};
use crate::watch::Watch;

/// What all reactors share.
pub struct Server {
    /// What holds for the process: the configuration of database 1, for as long as there is one.
    config: RwLock<Arc<Config>>,
    /// Where the process keeps its files. It stays when `dir` changes.
    pub folder: PathBuf,
    pub databases: RwLock<Vec<Arc<Database>>>,
    /// One for each reactor. The first also accepts.
    pub mailboxes: Box<[Arc<Mailbox>]>,
    /// What each reactor has counted of its turns.
    pub turns: Box<[Turns]>,
    pub identity: Identity,
    pub registry: Registry,
    pub reclaimer: Reclaimer,
    pub watch: Watch,
    /// What it has to do with other nodes of its cluster.
    pub internode: Internode,
    /// Where clients of databases come in whose primary is elsewhere.
    pub endpoints: Endpoints,
    pub oom_score: OomScore,
    /// `rename-command` lines, for the registry.
    pub renames: Vec<Line>,
    /// Ticks of a reactor in a second.
    pub(crate) hz: AtomicU32,
    /// Held while the configuration is changed: one change at a time. A change may need locks of the keyspace
    /// (`appendonly`), so this comes before them: who may come to make a change while holding some takes it before
    /// those, and once more when it does.
    pub(crate) changing: ReentrantMutex<()>,
    /// Held while databases are made, changed or dropped, or the process ends. Taken before `changing`.
    pub(crate) making: Mutex<Making>,
    pub client_ids: ClientIds,
    /// Until when the first of the leases here lasts.
    pub horizon: Deadline,
    /// It is a node of a cluster: what a database is here is said by that.
    pub is_clustered: AtomicBool,
    requests: Sender<Request>,
}

/// Whether databases may still be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Making {
    #[default]
    Open,
    /// The process is ending.
    Over,
}

/// So often that no tick has more than so many clients to look at.
fn hz_for(hz: u32, clients: usize) -> u32 {
    const CLIENTS_A_TICK: usize = 200;
    const HZ_MAX: u32 = 500;
    let mut hz = hz.clamp(1, HZ_MAX);
    while CLIENTS_A_TICK < clients / hz as usize && hz < HZ_MAX {
        hz = (2 * hz).min(HZ_MAX);
    }
    hz
}

/// What INFO tells of the process.
pub struct Identity {
    pub process_id: u32,
    /// 40 hexadecimal digits, new at each start.
    pub run_id: String,
    pub started_ms: u64,
    /// As it was called.
    pub program: String,
    pub executable: PathBuf,
    /// Absolute; none when started without a file.
    pub config_file: Option<PathBuf>,
    /// systemd waits to be told that the server is ready.
    pub supervised: bool,
}

impl Identity {
    pub fn naming(&self) -> Naming<'_> {
        let file = self.config_file.as_deref().map(|file| file.display().to_string());
        Naming { program: &self.program, config_file: file.unwrap_or_default() }
    }
}

/// Something for the main thread to do.
pub enum Request {
    /// The SHUTDOWN command, and the client that waits for what comes of it.
    Shutdown(ShutdownFlags, Arc<Waiter>),
    /// SIGTERM or SIGINT, under its name.
    Signal(&'static str),
    /// The data has been loaded, or cannot be.
    Loaded,
    /// SIGHUP: what is kept in files may have changed.
    Reload,
}

impl Server {
    pub fn new(
        config: impl Into<Arc<Config>>,
        registry: Registry,
        reclaimer: Reclaimer,
        renames: Vec<Line>,
        mailboxes: Box<[Arc<Mailbox>]>,
        identity: Identity,
        requests: Sender<Request>,
    ) -> Self {
        let config = config.into();
        Self {
            hz: AtomicU32::new(config.hz),
            folder: std::path::absolute(&config.dir).unwrap_or_else(|_| config.dir.clone()),
            config: RwLock::new(config),
            databases: RwLock::default(),
            turns: mailboxes.iter().map(|_| Turns::default()).collect(),
            mailboxes,
            identity,
            registry,
            reclaimer,
            watch: Watch::begin(),
            internode: Internode::default(),
            endpoints: Endpoints::default(),
            oom_score: OomScore::default(),
            renames,
            changing: ReentrantMutex::default(),
            making: Mutex::default(),
            client_ids: ClientIds::default(),
            horizon: Deadline::none(),
            is_clustered: AtomicBool::new(false),
            requests,
        }
    }

    /// A reactor begins its turn later than it should: what it may not do any longer is refused, rather than done
    /// and not told.
    #[cold]
    pub fn fence_late(&self) {
        for database in &*self.databases.read() {
            let replication = &database.replication;
            if replication.tenure.deadline.is_over(clock::since_boot)
                && replication.gate() & gate::FENCED == 0
            {
                replication.set_gate(gate::FENCED, true);
            }
        }
    }

    /// What holds for the process.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    pub(crate) fn set_config(&self, config: Arc<Config>) {
        *self.config.write() = config;
    }

    pub fn hz(&self) -> u32 {
        self.hz.load(Ordering::Relaxed)
    }

    /// Ticks as often as `hz` says, and with `dynamic-hz` as its clients ask for.
    pub(crate) fn adapt_hz(&self) {
        let config = self.config();
        let clients = match config.dynamic_hz {
            true => self.databases.read().iter().map(|database| database.clients.len()).sum(),
            false => 0,
        };
        self.hz.store(hz_for(config.hz, clients), Ordering::Relaxed);
    }

    /// Asks for an orderly end of the process. Returns at once; the client hears of it if it cannot be.
    pub fn request_shutdown(&self, flags: ShutdownFlags, waiter: Arc<Waiter>) {
        // A main thread that no longer listens is already ending the process.
        let _ = self.requests.send(Request::Shutdown(flags, waiter));
    }

    /// Has the main thread read again what is kept in files.
    pub(crate) fn request_reload(&self) {
        let _ = self.requests.send(Request::Reload);
    }

    /// Tells the main thread that it need not wait for the data any longer.
    pub(crate) fn tell_loaded(&self) {
        let _ = self.requests.send(Request::Loaded);
    }

    /// Tells the accepting reactor of a change in a database's listeners.
    pub fn pass_on(&self, database: &Arc<Database>, change: Change) {
        let listener =
            |(id, kind, socket)| Listener { id, database: Arc::clone(database), kind, socket };
        let accepting = &self.mailboxes[0];
        if !change.removed.is_empty() {
            accepting.post(Message::Unlisten(change.removed));
        }
        if !change.added.is_empty() {
            accepting.post(Message::Listen(change.added.into_iter().map(listener).collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_clients_ask_for_more_ticks() {
        assert_eq!([hz_for(10, 2009), hz_for(10, 2010), hz_for(10, 1 << 20)], [10, 20, 500]);
        assert_eq!([hz_for(0, 0), hz_for(9999, 0)], [1, 500]);
    }
}

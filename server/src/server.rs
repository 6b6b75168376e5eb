//! The process: its databases, its reactors, its configuration, and how it is asked to end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;

use carnelian_config::{Config, Line, ShutdownFlags};
use parking_lot::{Mutex, RwLock};

use crate::blocking::Waiter;
use crate::database::Database;
use crate::internode::Internode;
use crate::listener::{Change, Listener};
use crate::mailbox::{Mailbox, Message};
use crate::rates::Turns;
use crate::reclaim::Reclaimer;
use crate::registry::Registry;
use crate::watch::Watch;

/// What all reactors share.
pub struct Server {
    /// As it stands; `configure::change` puts another into effect.
    pub config: RwLock<Arc<Config>>,
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
    /// `rename-command` lines, for the registry.
    pub renames: Vec<Line>,
    /// Ticks of a reactor in a second.
    pub(crate) hz: AtomicU32,
    /// Held while the configuration is changed: one change at a time.
    pub(crate) changing: Mutex<()>,
    requests: Sender<Request>,
}

/// What INFO tells of the process.
pub struct Identity {
    pub process_id: u32,
    /// 40 hexadecimal digits, new at each start.
    pub run_id: String,
    pub started_ms: u64,
    pub executable: PathBuf,
    /// Absolute; none when started without a file.
    pub config_file: Option<PathBuf>,
    /// systemd waits to be told that the server is ready.
    pub supervised: bool,
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
        config: Config,
        registry: Registry,
        reclaimer: Reclaimer,
        renames: Vec<Line>,
        mailboxes: Box<[Arc<Mailbox>]>,
        identity: Identity,
        requests: Sender<Request>,
    ) -> Self {
        Self {
            hz: AtomicU32::new(config.hz),
            config: RwLock::new(Arc::new(config)),
            databases: RwLock::default(),
            turns: mailboxes.iter().map(|_| Turns::default()).collect(),
            mailboxes,
            identity,
            registry,
            reclaimer,
            watch: Watch::begin(),
            internode: Internode::default(),
            renames,
            changing: Mutex::default(),
            requests,
        }
    }

    /// The configuration as it stands.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    pub fn hz(&self) -> u32 {
        self.hz.load(Ordering::Relaxed)
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

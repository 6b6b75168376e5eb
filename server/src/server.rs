//! The process: its databases, its reactors, and how it is asked to end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use parking_lot::RwLock;

use crate::database::Database;
use crate::mailbox::Mailbox;

/// What all reactors share.
pub struct Server {
    pub databases: RwLock<Vec<Arc<Database>>>,
    /// One for each reactor. The first also accepts.
    pub mailboxes: Box<[Arc<Mailbox>]>,
    pub identity: Identity,
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
    pub supervised: bool,
}

/// Something for the main thread to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// The SHUTDOWN command.
    Shutdown,
    /// SIGTERM or SIGINT, under its name.
    Signal(&'static str),
}

impl Server {
    pub fn new(mailboxes: Box<[Arc<Mailbox>]>, identity: Identity, requests: Sender<Request>) -> Self {
        Self { databases: RwLock::default(), mailboxes, identity, requests }
    }

    /// Asks for an orderly end of the process. Returns at once.
    pub fn request_shutdown(&self) {
        // A main thread that no longer listens is already ending the process.
        let _ = self.requests.send(Request::Shutdown);
    }
}

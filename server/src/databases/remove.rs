//! The end of a database, and of its clients' connections.
//!
//! The order matters: first nobody is let in any more, then all who are in are disconnected, then what works for the
//! database by itself ends; only then data and files go.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use carnelian_keyspace::{AccessPolicy, Aftermath, Db};

use super::{DatabaseError, Stage, remove_authorities};
use crate::aof;
use crate::clients::{ClientShared, bits};
use crate::clock;
use crate::database::Database;
use crate::listener::{Change, Endpoints};
use crate::log;
use crate::mailbox::Message;
use crate::replication;
use crate::server::{Making, Server};
use crate::session::Worker;
use crate::settings;
use crate::snapshot;

/// How long reactors and clients are waited for. A reactor is late only in a command that takes long.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a client is gone.
const STEP: Duration = Duration::from_millis(1);

/// After so many looks those who are still there are told again.
const STEPS_PER_TRY: u32 = 64;

/// What becomes of the files of a database that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// They stay, with all data in them if the database persists: it can be made again from them.
    Keep,
    Remove,
}

impl Server {
    /// Ends a database. When this returns nobody is served by it any more, and its files are gone if they are to be;
    /// its memory is freed in the background.
    pub fn drop_database(self: &Arc<Self>, uid: u32, files: Files) -> Result<(), DatabaseError> {
        let making = self.making.lock();
        if *making == Making::Over {
            return Err(DatabaseError::Ending);
        }
        let database = self.database(uid)?;
        let stage = {
            // So that no CONFIG SET opens another door behind our back.
            let _unchanged = self.changing.lock();
            let stage = database.stage.get();
            database.stage.set(Stage::Gone);
            stage
        };
        self.close_doors(&database);
        end_loading(&database);
        disconnect_for_good(&database);
        if database.replication.is_replica() {
            replication::follow_nobody(&database);
        }
        // A link may just have come up.
        if !disconnect_for_good(&database) {
            log::warning!("Database {uid} is dropped while some of its clients are still there");
        }
        if database.snapshots.cancel() {
            database.snapshots.wait_until_idle();
        }
        let saves = stage == Stage::Here && !database.config().save.is_empty();
        if files == Files::Keep && saves && snapshot::save(&database).is_err() {
            log::warning!("The last snapshot of database {uid} could not be saved");
        }
        self.list(|databases| databases.retain(|other| other.uid != uid));
        // Who is in the middle of a tick still has it.
        self.on_each_reactor(move |worker| worker.forget(uid));
        aof::disable(self, &database, false);
        if database.snapshots.cancel() {
            database.snapshots.wait_until_idle();
        }
        self.free(&database);
        let folder = self.folder_of(uid);
        if files == Files::Remove {
            remove_files(&folder, &database)
                .map_err(|source| DatabaseError::File { path: folder, source })?;
        }
        log::notice!("Database {uid} was dropped");
        Ok(())
    }

    /// Disconnects all clients that a database has now, its replicas among them, and nobody else. How many there were.
    /// The link to the server that it follows is no client's and stays.
    pub fn disconnect_clients(&self, uid: u32) -> Result<usize, DatabaseError> {
        let database = self.database(uid)?;
        // Who was accepted before this is on its way to a reactor, and listed.
        let mut clients = database.clients.list();
        clients.retain(|client| !client.has(bits::PRIMARY));
        let count = clients.len();
        let is_there = |client: &Arc<ClientShared>| database.clients.find(client.id).is_some();
        kill_until_gone(|| {
            clients.retain(is_there);
            clients.clone()
        });
        Ok(count)
    }

    /// Closes a database's ports and disconnects its clients, or opens them again.
    pub fn set_traffic(self: &Arc<Self>, uid: u32, is_stopped: bool) -> Result<(), DatabaseError> {
        let database = self.database(uid)?;
        if is_stopped {
            self.close_doors(&database);
            self.disconnect_clients(uid)?;
            return Ok(());
        }
        let _unchanged = self.changing.lock();
        let config = database.config();
        let (change, listened) = database.listeners.lock().change(&settings::endpoints(&config));
        self.pass_on(&database, change);
        listened
            .map_err(|error| DatabaseError::Port { port: config.port, reason: error.to_string() })
    }

    /// Lets nobody in any more: when this returns no connection is accepted, and those that were are with
    /// their reactors.
    fn close_doors(&self, database: &Arc<Database>) {
        let change = {
            let mut listeners = database.listeners.lock();
            let (change, _) = listeners.change(&Endpoints::default());
            listeners.close();
            Change { added: Vec::new(), ..change }
        };
        self.pass_on(database, change);
        self.on_each_reactor(|_| {});
        // The first may have sent others connections.
        self.on_each_reactor(|_| {});
    }

    /// Has each reactor do something between two commands, and waits until all have.
    pub(crate) fn on_each_reactor(&self, work: impl Fn(&mut Worker) + Clone + Send + 'static) {
        let (sender, receiver) = channel();
        for mailbox in &self.mailboxes {
            let (work, sender) = (work.clone(), sender.clone());
            mailbox.post(Message::Run(Box::new(move |worker| {
                work(worker);
                // Who waited may have lost patience.
                let _ = sender.send(());
            })));
        }
        let until = Instant::now() + PATIENCE;
        for _ in &self.mailboxes {
            let left = until.saturating_duration_since(Instant::now());
            if receiver.recv_timeout(left).is_err() {
                log::warning!("A reactor has been busy for long");
                return;
            }
        }
    }

    /// Takes the data out at once, for the thread that frees.
    fn free(&self, database: &Database) {
        let mut aftermath = Aftermath::default();
        let access = database.keyspace.lock_all();
        let mut db = Db::new(access, 0, clock::wall_ms(), AccessPolicy::Lru, &mut aftermath);
        for index in 0..db.databases() {
            db.flush(index);
        }
        drop(db);
        self.reclaimer.free(aftermath.dropped);
    }
}

impl Worker {
    /// A database is gone; another may come under its uid.
    fn forget(&mut self, uid: u32) {
        self.sweeps.remove(&uid);
        self.quotas.remove(&uid);
    }
}

/// Has data that are being loaded for a database that is being made be left alone.
fn end_loading(database: &Database) {
    let until = Instant::now() + PATIENCE;
    while database.loading.is_on() && Instant::now() < until {
        database.loading.progress().stop.store(true, Ordering::Relaxed);
        std::thread::sleep(STEP);
    }
}

/// Disconnects everybody, and whoever comes meanwhile; scripts end. Whether nobody is left.
fn disconnect_for_good(database: &Database) -> bool {
    kill_until_gone(|| {
        database.scripting.end_running();
        database.clients.list()
    })
}

/// Disconnects clients until none is left, or patience is lost. Whether none is.
fn kill_until_gone(mut left: impl FnMut() -> Vec<Arc<ClientShared>>) -> bool {
    let until = Instant::now() + PATIENCE;
    let mut killed = BTreeSet::new();
    for step in 0_u32.. {
        let clients = left();
        if clients.is_empty() {
            return true;
        }
        if until < Instant::now() {
            break;
        }
        if step.is_multiple_of(STEPS_PER_TRY) {
            // One that was on its way to its reactor was not found there.
            killed.clear();
        }
        for client in clients.iter().filter(|client| killed.insert(client.id)) {
            client.kill();
        }
        std::thread::sleep(STEP);
    }
    false
}

fn remove_files(folder: &Path, database: &Database) -> io::Result<()> {
    let result = match database.is_first() {
        false => std::fs::remove_dir_all(folder),
        // Its folder is the process's, which has more in it.
        true => {
            let config = database.config();
            remove_authorities(&config.dir, None);
            let log = std::fs::remove_dir_all(config.dir.join(&config.appenddirname));
            let snapshot = std::fs::remove_file(config.dir.join(&config.dbfilename));
            not_missing(log).and(not_missing(snapshot))
        }
    };
    not_missing(result)
}

/// What is not there need not be removed.
fn not_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

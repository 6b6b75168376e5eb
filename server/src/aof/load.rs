//! Reading the append-only file back: at the start, and by DEBUG LOADAOF.
//!
//! Its commands run like those of a client that may do anything and gets no replies, some dozens at a time
//! under one set of locks. The time stands still for them: a key that has expired meanwhile was there when the
//! command was run, and goes when all is loaded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use carnelian_config::Config;
use carnelian_keyspace::{Present, Segments};
use carnelian_persistence::aof::{self, Commands, Input, LoadError, Loaded, Replay};
use carnelian_persistence::rdb::file::Progress;
use carnelian_scripting::Loading;

use super::tell;
use crate::allocator;
use crate::clients::Origin;
use crate::clock;
use crate::database::Database;
use crate::dispatch::{Nest, Nesting};
use crate::load;
use crate::log;
use crate::propagation::{self, Sender};
use crate::server::Server;
use crate::session::{Session, Worker, recycle};

/// Sees what there is, and puts it in order. How many bytes there are.
pub fn prepare(database: &Database) -> Result<u64> {
    let config = database.config();
    let folder = database.aof.folder(&config).map_err(|_| Told)?;
    folder.remove_temporary(&tell);
    folder.migrate(&tell)?;
    if folder.manifest().is_empty() && config.dir.join(&config.dbfilename).exists() {
        log::warning!(
            "There is no append-only file yet, and the snapshot {} is not loaded: with appendonly \
             the append-only file alone counts",
            config.dbfilename
        );
    }
    // What cannot be measured is told when it is loaded.
    Ok(folder.measure().unwrap_or(0))
}

/// Loads what there is, and begins to write. Before the database is served, after [`prepare`].
pub fn at_start(server: &Arc<Server>, database: &Arc<Database>, progress: &Progress) -> Result<()> {
    let began = Instant::now();
    let config = database.config();
    let folder = database.aof.folder(&config).map_err(|_| Told)?;
    let mut worker = Worker::new(0, Arc::clone(server));
    let mut session = session(server, database);
    let mut replayer = Replayer {
        worker: &mut worker,
        session: &mut session,
        held: None,
        config: &config,
        progress,
        queue: Vec::new(),
        slices: Vec::new(),
        replies: Vec::new(),
    };
    let loaded = aof::load(&folder, config.aof_load_truncated, &mut replayer, &mut |_| {}, &tell);
    match loaded {
        Ok(Loaded::Nothing) => {}
        Ok(_) => {
            let seconds = began.elapsed().as_secs_f64();
            log::notice!("DB loaded from append only file: {seconds:.3} seconds");
        }
        Err(error) => {
            if let LoadError::Unusable(error) = &error {
                log::warning!("{error}");
            }
            return Err(Told.into());
        }
    }
    if !progress.stop.load(Ordering::Relaxed) {
        super::open_at_start(server, database)?;
    }
    Ok(())
}

/// The server cannot start; the log says why, and tools expect that to be its last line.
#[derive(Debug, thiserror::Error)]
#[error("the append-only file cannot be loaded")]
pub struct Told;

/// DEBUG LOADAOF: forgets all data and reads it back, all segments being locked by `nest`.
pub fn reload(nest: &mut Nest<'_>) -> Result<(), String> {
    const FAILED: &str = "ERR Error trying to load the AOF files, check server logs.";

    let server = Arc::clone(&nest.worker.server);
    let database = Arc::clone(&nest.session.database);
    let config = database.config();
    database.aof.flush(false).map_err(|error| {
        log::warning!("{}", aof::reason(&error));
        FAILED.to_owned()
    })?;
    let folder = database.aof.folder(&config).map_err(|_| FAILED.to_owned())?;
    // Others are told to wait, and do not stand before the locks.
    let bytes = folder.measure().unwrap_or(0);
    let guard = database.loading.begin(bytes, config.key_load_delay);
    let mut session = session(&server, &database);
    let mut replayer = Replayer {
        worker: nest.worker,
        session: &mut session,
        held: Some(nest.held),
        config: &config,
        progress: &guard.progress,
        queue: Vec::new(),
        slices: Vec::new(),
        replies: Vec::new(),
    };
    // What is read back is not news for anybody.
    database.log.set_foreign(true);
    let flushed = replayer.run(&[b"FLUSHALL"], &[1]);
    let loaded = aof::load(&folder, config.aof_load_truncated, &mut replayer, &mut |_| {}, &tell);
    database.log.set_foreign(database.replication.is_replica());
    match (flushed, loaded) {
        (Ok(()), Ok(_)) => Ok(()),
        (_, Err(LoadError::Unusable(error))) => {
            log::warning!("{error}");
            Err(FAILED.into())
        }
        _ => Err(FAILED.into()),
    }
}

/// A client that nobody is connected to.
fn session(server: &Server, database: &Arc<Database>) -> Session {
    let origin = Origin {
        address: String::new(),
        local_address: String::new(),
        file_descriptor: -1,
        reactor: 0,
        mailbox: Arc::clone(&server.mailboxes[0]),
        now_ms: clock::wall_ms(),
    };
    let shared = database.clients.unlisted(origin);
    let mut session = Session::new(shared, Arc::clone(database), true);
    session.trust();
    session
}

/// Runs what is read.
struct Replayer<'r> {
    worker: &'r mut Worker,
    session: &'r mut Session,
    /// Locks that are held already.
    held: Option<&'r mut (dyn Segments + 'r)>,
    config: &'r Config,
    progress: &'r Progress,
    /// Kept for their memory.
    queue: Vec<(usize, usize)>,
    slices: Vec<&'static [u8]>,
    replies: Vec<u8>,
}

impl Replayer<'_> {
    fn run(&mut self, words: &[&[u8]], ends: &[usize]) -> Result<(), (usize, String)> {
        let server = Arc::clone(&self.worker.server);
        let mut queue = std::mem::take(&mut self.queue);
        queue.clear();
        let mut first = 0;
        for (place, &end) in ends.iter().enumerate() {
            let id = find(&server, &words[first..end]).map_err(|reason| (place, reason))?;
            queue.push((id, end));
            first = end;
        }
        let database = Arc::clone(&self.session.database);
        let counters = self.worker.counters(&database);
        let errors = counters.error_replies.value();
        self.worker.is_timeless = true;
        match &mut self.held {
            Some(held) => {
                let (worker, session) = (&mut *self.worker, &mut *self.session);
                let mut nest =
                    Nest { worker, session, held: &mut **held, nesting: Nesting::Transaction };
                nest.run_queue(&queue, words, &mut self.replies);
            }
            None => {
                let mut access = database.keyspace.lock_lazily();
                let (worker, session) = (&mut *self.worker, &mut *self.session);
                let mut nest =
                    Nest { worker, session, held: &mut access, nesting: Nesting::Transaction };
                nest.run_queue(&queue, words, &mut self.replies);
            }
        }
        self.worker.is_timeless = false;
        if errors != self.worker.counters(&database).error_replies.value() {
            self.report_errors(&queue);
        }
        self.replies.clear();
        self.queue = queue;
        Ok(())
    }

    /// Tells of commands that have failed, which none should.
    #[cold]
    fn report_errors(&mut self, queue: &[(usize, usize)]) {
        let database = &self.session.database;
        let entries = self.worker.server.registry.entries();
        let names = queue.iter().map(|(id, _)| &entries[*id].full_name);
        let counters = database.stats.of(self.worker.reactor);
        propagation::report(Sender::File, self.config, counters, names, &self.replies);
    }
}

/// The place of a command in the registry.
fn find(server: &Server, words: &[&[u8]]) -> Result<usize, String> {
    let name = || String::from_utf8_lossy(words[0]);
    let registry = &server.registry;
    let mut entry =
        registry.find(words[0]).ok_or_else(|| format!("Unknown command '{}'", name()))?;
    if !entry.subcommands.is_empty()
        && let Some(word) = words.get(1)
    {
        let sub = registry.find_sub(entry, word);
        entry = sub.ok_or_else(|| format!("Unknown subcommand of '{}'", name()))?;
    }
    if !entry.accepts(words.len()) {
        return Err(format!("Wrong number of arguments for '{}'", name()));
    }
    Ok(entry.id)
}

impl Replay for Replayer<'_> {
    fn snapshot(&mut self, input: &mut Input) -> Result<u64, String> {
        let database = Arc::clone(&self.session.database);
        let bytes = Some(input.length());
        // Commands behind it may be about what has expired.
        let present = Present::Refused;
        let libraries = Loading::Replace;
        let input = load::Input { input, bytes, drops_expired: false, present, libraries };
        let held = self.held.as_mut().map(|held| &mut **held as &mut dyn Segments);
        let loaded = load::snapshot(&database, self.config, input, self.progress, held);
        let loaded = loaded.map_err(|error| error.to_string())?;
        load::tell(&loaded.summary);
        Ok(loaded.summary.bytes)
    }

    fn commands(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)> {
        if self.progress.stop.load(Ordering::Relaxed) {
            return Err((0, "The server is to end: not".into()));
        }
        let mut slices = recycle(std::mem::take(&mut self.slices));
        slices.extend(commands.words.iter().map(|word| word.of(commands.bytes)));
        let result = self.run(&slices, commands.ends);
        self.slices = recycle(slices);
        result
    }

    fn judge(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)> {
        for (place, words) in commands.iter().enumerate() {
            find(&self.worker.server, &words).map_err(|reason| (place, reason))?;
        }
        Ok(())
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        allocator::publish();
    }
}

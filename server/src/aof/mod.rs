//! A database's append-only file: begun and ended, its thread fed from the log of effects.
//!
//! The files are `carnelian_persistence::aof`'s; here is when they are written. Begun at run time, a file
//! is *awaited* until a rewrite can begin, and *built* until that has made its base: until then it is no
//! use, and a crash leaves things as they were before. Rewrites are in `rewrite`, reading back in `load`.
//!
//! Order of locks: those of the keyspace, then this state, then the log.

mod convert;
pub mod load;
mod rewrite;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use carnelian_config::{AppendFsync, Config};
use carnelian_persistence::aof::{
    self, BaseFormat, Events, FileError, Folder, Fsync, Incr, Keep, Level, Lot, Source, Writer,
    WriterSettings,
};
use parking_lot::Mutex;

use crate::at_rest;
use crate::clock;
use crate::database::Database;
use crate::log;
use crate::mailbox::Mailbox;
use crate::server::Server;
use crate::snapshot::Purpose;

pub use rewrite::{Unbegun, begin, tick};

/// What is written at once, at the most.
const LOT_BYTES: usize = 16 << 20;

/// With `always`, whoever waits for a write to be on disk is told nothing for so long while that fails. Then its
/// connection is closed: it knows as little of the write as after a crash, and does not wait for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// The append-only file of one database, if it has one.
#[derive(Default)]
pub struct Aof {
    state: Mutex<State>,
    /// Its mode, for those who must not wait for the lock.
    mode: AtomicU8,
    /// It cannot be written to, and why.
    refuses_writes: AtomicBool,
    /// It has been so for long enough: nobody is to wait for it.
    is_given_up: AtomicBool,
    trouble: Mutex<Trouble>,
}

/// Why it cannot be written to, and since when.
#[derive(Default)]
struct Trouble {
    reason: String,
    since: Option<Instant>,
}

#[derive(Default)]
struct State {
    mode: Mode,
    folder: Option<Arc<Folder>>,
    /// There while the file is built, or on.
    writer: Option<Writer>,
    rewrites: Rewrites,
}

/// Whether there is an append-only file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Off,
    /// It begins as soon as a snapshot can be taken.
    Awaited,
    /// Effects are written, and the base is.
    Built,
    On,
}

/// What became of rewrites, and what is to become of the next.
#[derive(Default)]
struct Rewrites {
    is_scheduled: bool,
    since_s: Option<u64>,
    has_failed: bool,
    last_duration_s: Option<u64>,
    count: u64,
    /// How many have failed since one succeeded.
    failures: u32,
    /// None is begun by itself before that, and how long the last such pause was.
    not_before_s: u64,
    pause_minutes: u64,
}

/// What INFO shows.
#[derive(Debug, Default)]
pub struct Figures {
    pub is_enabled: bool,
    pub is_rewriting: bool,
    pub is_scheduled: bool,
    pub current_rewrite_s: Option<u64>,
    pub last_rewrite_s: Option<u64>,
    pub last_rewrite_failed: bool,
    pub rewrites: u64,
    pub failures: u32,
    pub is_in_trouble: bool,
    pub bytes: u64,
    pub base_bytes: u64,
    pub buffered_bytes: u64,
    pub is_syncing: bool,
    pub delayed_syncs: u64,
}

impl Aof {
    /// Whether writes are refused because the file cannot be written to.
    #[inline]
    pub fn refuses_writes(&self) -> bool {
        self.refuses_writes.load(Ordering::Relaxed)
    }

    /// The reply to them.
    pub fn misconf(&self) -> String {
        format!("MISCONF Errors writing to the AOF file: {}", self.trouble())
    }

    /// Why it cannot be written to.
    pub fn trouble(&self) -> String {
        self.trouble.lock().reason.clone()
    }

    /// Whether replies that wait for what is on disk will not be sent any more.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }

    /// Notes why the file cannot be written to, or that it can be again. Whether that has just been so for long
    /// enough to be given up.
    fn set_trouble(&self, reason: Option<&str>) -> bool {
        let mut trouble = self.trouble.lock();
        trouble.reason = reason.unwrap_or_default().to_owned();
        trouble.since = reason.and(trouble.since.or_else(|| Some(Instant::now())));
        self.refuses_writes.store(reason.is_some(), Ordering::Relaxed);
        let is_long = trouble.since.is_some_and(|since| PATIENCE <= since.elapsed());
        !self.is_given_up.swap(is_long, Ordering::SeqCst) && is_long
    }

    /// Whether there is anything that DEBUG LOADAOF could load.
    pub fn has_files(&self, config: &Config) -> bool {
        self.folder(config).is_ok_and(|folder| !folder.manifest().is_empty())
    }

    /// Whether there is a thread that writes.
    pub fn is_written(&self) -> bool {
        self.state.lock().writer.is_some()
    }

    /// A file was begun that is of no use yet.
    pub fn is_unfinished(&self) -> bool {
        matches!(self.state.lock().mode, Mode::Awaited | Mode::Built)
    }

    pub fn figures(&self, database: &Database) -> Figures {
        let now_s = clock::wall_ms() / 1000;
        let state = self.state.lock();
        let rewrites = &state.rewrites;
        let mut figures = Figures {
            is_enabled: state.mode != Mode::Off,
            is_rewriting: database.snapshots.running() == Some(Purpose::Rewrite),
            is_scheduled: rewrites.is_scheduled,
            current_rewrite_s: rewrites.since_s.map(|since_s| now_s.saturating_sub(since_s)),
            last_rewrite_s: rewrites.last_duration_s,
            last_rewrite_failed: rewrites.has_failed,
            rewrites: rewrites.count,
            failures: rewrites.failures,
            is_in_trouble: self.refuses_writes(),
            ..Figures::default()
        };
        if let Some(folder) = &state.folder {
            (figures.bytes, figures.base_bytes) = (folder.bytes(), folder.base_bytes());
        }
        if let Some(writer) = &state.writer {
            let writer = writer.figures();
            figures.buffered_bytes = database.log.end().saturating_sub(writer.written);
            (figures.is_syncing, figures.delayed_syncs) = (writer.is_syncing, writer.delayed_syncs);
        }
        figures
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.state.lock().rewrites.count = 0;
    }

    /// `DEBUG AOF-FLUSH-SLEEP`
    pub fn set_delay(&self, delay: Duration) {
        if let Some(writer) = &self.state.lock().writer {
            writer.set_delay(delay);
        }
    }

    /// Writes out all that was logged before, and brings it to the disk if asked.
    pub fn flush(&self, syncs: bool) -> std::io::Result<()> {
        match &self.state.lock().writer {
            Some(writer) => writer.flush(syncs),
            None => Ok(()),
        }
    }

    /// Whether there is one, or is to be.
    pub fn is_on(&self) -> bool {
        self.mode.load(Ordering::SeqCst) != Mode::Off as u8
    }

    /// Whether what it holds is all there is to know of the data: it has its base.
    pub fn is_complete(&self) -> bool {
        self.mode.load(Ordering::SeqCst) == Mode::On as u8
    }

    fn enter(&self, state: &mut State, mode: Mode) {
        state.mode = mode;
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    fn folder(&self, config: &Config) -> Result<Arc<Folder>, String> {
        let mut state = self.state.lock();
        if let Some(folder) = &state.folder {
            return Ok(Arc::clone(folder));
        }
        let folder = open_folder(config)?;
        state.folder = Some(Arc::clone(&folder));
        Ok(folder)
    }
}

fn open_folder(config: &Config) -> Result<Arc<Folder>, String> {
    let (name, stem) = (&config.appenddirname, &config.appendfilename);
    let folder = Folder::open(&config.dir, name, stem, &tell).map_err(|error| {
        for line in error.report() {
            log::warning!("{line}");
        }
        error.to_string()
    })?;
    folder.set_removes_history(!config.aof_disable_auto_gc);
    Ok(Arc::new(folder.with_policy(at_rest::policy(config))))
}

/// Takes the lines of the append-only file to the log.
fn tell(level: Level, text: &str) {
    match level {
        Level::Debug => log::debug!("{text}"),
        Level::Verbose => log::verbose!("{text}"),
        Level::Notice => log::notice!("{text}"),
        Level::Warning => log::warning!("{text}"),
    }
}

/// Begins the append-only file of a database whose data has just been loaded, before it is served.
pub fn open_at_start(server: &Arc<Server>, database: &Arc<Database>) -> Result<(), FileError> {
    let config = database.config();
    let failed = |text: String| FileError {
        what: "The append-only file".into(),
        source: std::io::Error::other(text),
    };
    let folder = database.aof.folder(&config).map_err(failed)?;
    folder.create()?;
    if folder.manifest().is_empty() {
        let base = rewrite::write_first_base(database, &folder)?;
        log::notice!("Creating AOF base file {base} on server start");
    }
    let incr = folder.continue_incr(&tell)?;
    folder.measure().map_err(|error| failed(error.to_string()))?;
    let from = {
        let _all = database.keyspace.lock_all();
        database.log.follow()
    };
    let writer = start_writer(server, database, &folder, incr, from)
        .map_err(|source| FileError { what: "Can't start a thread".into(), source })?;
    let mut state = database.aof.state.lock();
    state.writer = Some(writer);
    database.aof.enter(&mut state, Mode::On);
    drop(state);
    database.log.set_strict(config.appendfsync == AppendFsync::Always);
    folder.remove_history(&tell);
    Ok(())
}

/// `CONFIG SET appendonly yes`: has a file begin, at once if it can be.
pub fn enable(server: &Arc<Server>, database: &Arc<Database>, is_nested: bool) -> Result<(), ()> {
    {
        let mut state = database.aof.state.lock();
        if state.mode != Mode::Off {
            return Ok(());
        }
        if state.writer.is_some() {
            // It was ended in this very transaction.
            database.aof.enter(&mut state, Mode::On);
            return Ok(());
        }
        database.aof.enter(&mut state, Mode::Awaited);
        // The folder may be another than at the last time.
        state.folder = None;
    }
    if is_nested {
        // Locks are held.
        schedule(database);
        log::notice!(
            "AOF was enabled during a transaction. An AOF background was scheduled to start when \
             possible."
        );
        return Ok(());
    }
    match begin(server, database) {
        Ok(()) => Ok(()),
        Err(Unbegun::Taken | Unbegun::Busy(_)) => {
            schedule(database);
            log::notice!(
                "AOF was enabled but there is already another background operation. An AOF \
                 background was scheduled to start when possible."
            );
            Ok(())
        }
        Err(Unbegun::Failed) => {
            database.aof.enter(&mut database.aof.state.lock(), Mode::Off);
            log::warning!(
                "Redis needs to enable the AOF but can't trigger a background AOF rewrite \
                 operation. Check the above logs for more info about the error."
            );
            Err(())
        }
    }
}

/// `CONFIG SET appendonly no`, and the end of the server: what there is goes to the disk.
pub fn disable(server: &Server, database: &Database, is_nested: bool) {
    let writer = {
        let mut state = database.aof.state.lock();
        database.aof.enter(&mut state, Mode::Off);
        state.rewrites.is_scheduled = false;
        // Where locks are held, `tick` ends the writer.
        if is_nested { None } else { state.writer.take() }
    };
    // Nobody can wait for it any longer: WAITAOF.
    database.replication.primary.waits.settle(database);
    if !is_nested
        && database.snapshots.running() == Some(Purpose::Rewrite)
        && database.snapshots.cancel()
    {
        // It goes to its end in silence; a new one waits for that.
        log::notice!("Killing running AOF rewrite child: {}", std::process::id());
    }
    if let Some(writer) = writer {
        stop_writer(server, database, writer);
    }
}

fn stop_writer(server: &Server, database: &Database, writer: Writer) {
    database.log.set_strict(false);
    if let Err(error) = writer.stop() {
        log::warning!("Fail to fsync the AOF file: {}", aof::reason(&error));
    }
    database.log.release(0, &server.mailboxes);
    {
        let _all = database.keyspace.lock_all();
        database.log.unfollow();
    }
    database.aof.set_trouble(None);
}

/// Has a rewrite begin as soon as it can.
pub fn schedule(database: &Database) {
    let mut state = database.aof.state.lock();
    state.rewrites.is_scheduled = true;
    state.rewrites.failures = 0;
}

/// Puts a changed configuration into effect, but for `appendonly`.
pub fn heed(server: &Server, database: &Database, config: &Config) {
    let state = database.aof.state.lock();
    if let Some(folder) = &state.folder {
        folder.set_removes_history(!config.aof_disable_auto_gc);
        folder.policy().set_seals(config.data_at_rest_encryption);
    }
    let Some(writer) = &state.writer else { return };
    let is_busy = database.snapshots.running().is_some();
    writer.set(settings(config, is_busy));
    let is_strict = config.appendfsync == AppendFsync::Always && state.mode == Mode::On;
    let was_strict = database.log.is_strict();
    database.log.set_strict(is_strict);
    drop(state);
    if was_strict && !is_strict {
        database.log.release(0, &server.mailboxes);
    }
}

fn settings(config: &Config, is_busy: bool) -> WriterSettings {
    WriterSettings {
        fsync: match config.appendfsync {
            AppendFsync::Always => Fsync::Always,
            AppendFsync::EverySecond => Fsync::EverySecond,
            AppendFsync::No => Fsync::No,
        },
        timestamps: config.aof_timestamp_enabled,
        pauses_fsync: config.no_appendfsync_on_rewrite && is_busy,
    }
}

fn start_writer(
    server: &Server,
    database: &Arc<Database>,
    folder: &Arc<Folder>,
    incr: Incr,
    from: u64,
) -> std::io::Result<Writer> {
    // What was relayed may go by a SELECT that is in no file.
    let prologue = database.log.take_prologue();
    let prologue = Some(prologue).filter(|prologue| !prologue.is_empty());
    let source = Follower { database: Arc::downgrade(database), offset: from, prologue };
    let told = Told { database: Arc::downgrade(database), mailboxes: server.mailboxes.clone() };
    let is_busy = database.snapshots.running().is_some();
    Writer::start(
        Arc::clone(folder),
        incr,
        Box::new(source),
        from,
        settings(&database.config(), is_busy),
        Arc::clone(&database.log.bell),
        Arc::new(told),
    )
}

/// Reads the log for the file.
struct Follower {
    database: Weak<Database>,
    offset: u64,
    /// What the file begins with.
    prologue: Option<Vec<u8>>,
}

impl Source for Follower {
    fn take(&mut self) -> Option<Lot> {
        if let Some(prologue) = self.prologue.take() {
            return Some(Lot { chunks: vec![prologue.into()], end: self.offset });
        }
        let database = self.database.upgrade()?;
        let mut chunks = Vec::new();
        let Ok(end) = database.log.take_for_file(self.offset, LOT_BYTES, &mut chunks) else {
            // The data are others; who saw to that begins the file anew.
            self.offset = database.log.end();
            return None;
        };
        if end == self.offset {
            return None;
        }
        self.offset = end;
        Some(Lot { chunks, end })
    }

    fn expects_more(&mut self) -> bool {
        self.database.upgrade().is_some_and(|database| database.log.expects_more())
    }
}

/// Passes on what the writer tells.
struct Told {
    database: Weak<Database>,
    mailboxes: Box<[Arc<Mailbox>]>,
}

impl Events for Told {
    fn tell(&self, level: Level, text: &str) {
        tell(level, text);
    }

    fn synced(&self, offset: u64) {
        let Some(database) = self.database.upgrade() else { return };
        database.log.release(offset, &self.mailboxes);
        // WAITAOF
        database.replication.primary.waits.settle(&database);
    }

    fn released(&self, offset: u64) {
        let Some(database) = self.database.upgrade() else { return };
        if database.log.is_strict() && database.log.synced() < offset {
            database.log.release(offset, &self.mailboxes);
        }
    }

    fn troubled(&self, reason: Option<&str>) {
        let Some(database) = self.database.upgrade() else { return };
        if database.aof.set_trouble(reason) && database.log.is_strict() {
            log::warning!(
                "The AOF cannot be written to for {} seconds: closing the connections of clients that wait \
                 for their writes to be on disk",
                PATIENCE.as_secs()
            );
        }
        if database.aof.is_given_up() {
            // Who waits looks at that.
            database.log.release(0, &self.mailboxes);
        }
    }

    fn took(&self, step: &'static str, time: Duration) {
        let Some(database) = self.database.upgrade() else { return };
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if database.settings.load().latency_ns <= ns {
            database.latency.add(step, clock::wall_ms(), ns);
        }
    }
}

/// In which form a base is written.
fn base_format(config: &Config) -> BaseFormat {
    if config.aof_use_rdb_preamble { BaseFormat::Rdb } else { BaseFormat::Aof }
}

/// What remains beside a base that was made while the file was in this state.
fn keep(mode: Mode, rotated: Option<i64>) -> Keep {
    match (mode, rotated) {
        (Mode::On, Some(sequence)) => Keep::From(sequence),
        (Mode::Built, _) => Keep::TemporaryIncr,
        _ => Keep::Nothing,
    }
}

//! Loading the data of a database: at the start, from the snapshot or append-only file that is there.
//!
//! Listeners are open meanwhile, and commands that need the data are told to wait. What is wrong with a
//! file is logged with the place where it is, and ends the process: half of the data is never served.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use anyhow::{Result, anyhow};
use carnelian_config::Config;
use carnelian_keyspace::{Changes, Present, Segments};
use carnelian_persistence::aof::reason;
use carnelian_persistence::rdb::file::{
    self, Fault, FileError, FileReader, Observer, Progress, Rules, Summary, Trust,
};
use carnelian_persistence::seal::is_sealed_file;
use carnelian_scripting::Loading as LibraryLoading;
use parking_lot::Mutex;

use crate::allocator;
use crate::aof;
use crate::at_rest;
use crate::clock::{self, Clock};
use crate::database::Database;
use crate::dispatch;
use crate::internode;
use crate::log;
use crate::replication::replica;
use crate::scripting::LoadHost;
use crate::server::{Request, Server};

/// More threads than this do not make loading quicker.
const THREADS_MAX: usize = 8;

/// So that what is trimmed from the log is trimmed in small pieces.
const KEYS_LOGGED_AT_ONCE: usize = 256;

/// Whether a database is being loaded, and how far.
#[derive(Default)]
pub struct Loading {
    is_on: AtomicBool,
    started_ms: AtomicU64,
    /// Of what is loaded; 0 if that is not known.
    total_bytes: AtomicU64,
    /// How much memory the data took where it was saved.
    memory_bytes: AtomicU64,
    /// Of the last loading, or the one that goes on.
    progress: Mutex<Arc<Progress>>,
}

impl Loading {
    /// Whether commands that need the data have to wait.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Begins loading so many bytes. Ends when the guard is dropped.
    pub fn begin(&self, total_bytes: u64, key_delay: i32) -> LoadingGuard<'_> {
        let progress = Arc::new(Progress::default());
        progress.key_delay.store(key_delay, Relaxed);
        *self.progress.lock() = Arc::clone(&progress);
        self.started_ms.store(clock::wall_ms(), Relaxed);
        self.total_bytes.store(total_bytes, Relaxed);
        self.memory_bytes.store(0, Relaxed);
        self.is_on.store(true, Relaxed);
        LoadingGuard { loading: self, progress }
    }

    /// How far the last loading is, or was.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress.lock())
    }

    /// `key-load-delay` has changed.
    pub fn set_key_delay(&self, key_delay: i32) {
        self.progress.lock().key_delay.store(key_delay, Relaxed);
    }

    /// What INFO shows while it goes on.
    pub fn figures(&self, now_ms: u64) -> Figures {
        let loaded_bytes = self.progress().bytes.load(Relaxed);
        let (total_bytes, memory_bytes) =
            (self.total_bytes.load(Relaxed), self.memory_bytes.load(Relaxed));
        let started_ms = self.started_ms.load(Relaxed);
        let expected = if total_bytes == 0 { memory_bytes } else { total_bytes };
        let left = expected.saturating_sub(loaded_bytes);
        let elapsed = now_ms.saturating_sub(started_ms) / 1000;
        let eta = u128::from(elapsed) * u128::from(left) / (u128::from(loaded_bytes) + 1);
        Figures {
            started: started_ms / 1000,
            total_bytes,
            memory_bytes,
            loaded_bytes,
            percent: if expected == 0 {
                1.0
            } else {
                loaded_bytes as f64 / expected as f64 * 100.0
            },
            eta: if elapsed == 0 || expected == 0 { 1 } else { eta as u64 },
        }
    }
}

/// What INFO shows of a loading that goes on. Times are in seconds.
#[derive(Debug)]
pub struct Figures {
    pub started: u64,
    pub total_bytes: u64,
    pub memory_bytes: u64,
    pub loaded_bytes: u64,
    pub percent: f64,
    pub eta: u64,
}

/// While this lives, a database is being loaded.
pub struct LoadingGuard<'l> {
    loading: &'l Loading,
    pub progress: Arc<Progress>,
}

impl Drop for LoadingGuard<'_> {
    fn drop(&mut self) {
        self.loading.is_on.store(false, Relaxed);
    }
}

/// How loading at the start ended, if not by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The data is there, or there is none.
    Ready,
    /// The server was told to end. What has been loaded is not all there is, and must not be saved.
    Ended,
}

/// Loads what there is when the process starts. To be called by the thread that `requests` go to.
///
/// `open_doors` lets clients in: not before they are told to wait.
pub fn at_start(
    server: &Arc<Server>,
    database: &Arc<Database>,
    requests: &Receiver<Request>,
    open_doors: impl FnOnce(),
) -> Result<Start> {
    whole(server, database, open_doors, |progress, load| {
        in_background(server, requests, progress, load)
    })
}

/// Loads what there is of a database that is made while the process runs, on the thread of the caller.
pub fn when_made(
    server: &Arc<Server>,
    database: &Arc<Database>,
    open_doors: impl FnOnce(),
) -> Result<Start> {
    whole(server, database, open_doors, |progress, load| {
        let loaded = load();
        Ok((loaded, progress.stop.load(Relaxed)))
    })
}

type Load<'l> = Box<dyn FnOnce() -> Result<()> + Send + 'l>;

/// Loads what there is: with `appendonly` the append-only file, which alone counts then, as in Redis; else
/// the snapshot. `run` loads, and tells whether it was broken off.
fn whole(
    server: &Arc<Server>,
    database: &Arc<Database>,
    open_doors: impl FnOnce(),
    run: impl FnOnce(&Progress, Load<'_>) -> Result<(Result<()>, bool)>,
) -> Result<Start> {
    let config = database.config();
    if config.appendonly {
        let bytes = aof::load::prepare(database)?;
        if bytes == 0 {
            aof::load::at_start(server, database, &Progress::default())?;
            open_doors();
            return Ok(Start::Ready);
        }
        let guard = database.loading.begin(bytes, config.key_load_delay);
        open_doors();
        let progress = &guard.progress;
        let load = || {
            aof::load::at_start(server, database, progress)?;
            database.replication.tenure.note_data();
            Ok(())
        };
        return ended(run(progress, Box::new(load))?);
    }
    let path = config.dir.join(&config.dbfilename);
    let began = Instant::now();
    let Some((file, bytes)) = open(&path)? else {
        open_doors();
        return Ok(Start::Ready);
    };
    let file = at_rest::policy(&config).open(file).map_err(|error| unreadable(&path, &error))?;
    let guard = database.loading.begin(bytes, config.key_load_delay);
    open_doors();
    let follows = config.replicaof.is_some() || internode::configured(&config) != Ok(None);
    let drops_expired = !follows;
    let progress = &guard.progress;
    let load = || {
        let present = Present::Refused;
        let libraries = LibraryLoading::Replace;
        let input = Input { input: file, bytes: Some(bytes), drops_expired, present, libraries };
        let loaded = match snapshot(database, &config, input, progress, None) {
            // It is of no use: why it ended does not matter.
            _ if progress.stop.load(Relaxed) => return Ok(()),
            loaded => loaded.map_err(|error| refusal(&path, &config, &error))?,
        };
        tell(&loaded.summary);
        if let Origin { replication_id: Some(id), offset: Some(offset), db } = &loaded.origin {
            replica::resume(database, &config, id.as_bytes(), *offset, *db);
            log_expired(database, &config, &loaded.expired);
        }
        database.replication.tenure.note_data();
        log::notice!("DB loaded from disk: {:.3} seconds", began.elapsed().as_secs_f64());
        Ok(())
    };
    ended(run(progress, Box::new(load))?)
}

/// Replicas that go on from where they were still have what was left out here.
fn log_expired(database: &Database, config: &Config, expired: &[(usize, Box<[u8]>)]) {
    let is_lazy = database.settings.load().lazy_expire;
    for some in expired.chunks(KEYS_LOGGED_AT_ONCE) {
        let mut changes = Changes { departed: some.to_vec(), ..Changes::default() };
        dispatch::log_departures(database, &mut changes, is_lazy);
    }
    // No more is kept of it than of anything else.
    database.log.keep_backlog(Some(config.repl_backlog_size));
}

fn ended((loaded, is_broken_off): (Result<()>, bool)) -> Result<Start> {
    if is_broken_off {
        return Ok(Start::Ended);
    }
    loaded.map(|()| Start::Ready)
}

/// Loads on another thread, and has it stop if the server is told to end: whether it was.
fn in_background<T: Send>(
    server: &Server,
    requests: &Receiver<Request>,
    progress: &Progress,
    load: impl FnOnce() -> T + Send,
) -> Result<(T, bool)> {
    let (loaded, is_told_to_end) = std::thread::scope(|scope| {
        let load = || {
            let _bell = Bell(server);
            load()
        };
        let thread = std::thread::Builder::new().name("load".into()).spawn_scoped(scope, load);
        let thread = thread.map_err(|error| anyhow!("Can't start a thread: {error}"))?;
        let mut is_told_to_end = false;
        // The server holds a sender, and whoever loads says so in the end.
        let mut wants_reload = false;
        loop {
            match requests.recv() {
                Ok(Request::Loaded) => break,
                Ok(Request::Reload) => wants_reload = true,
                _ => {
                    is_told_to_end = true;
                    progress.stop.store(true, Relaxed);
                }
            }
        }
        if wants_reload {
            server.request_reload();
        }
        let loaded = thread.join().map_err(|_| anyhow!("Loading ended by a bug; exiting."))?;
        Ok::<_, anyhow::Error>((loaded, is_told_to_end))
    })?;
    if is_told_to_end {
        log::warning!("Loading was broken off, as the server is to end.");
    }
    Ok((loaded, is_told_to_end))
}

/// Tells the main thread when loading has ended, in whatever way.
struct Bell<'s>(&'s Server);

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        self.0.tell_loaded();
    }
}

/// The file and its length.
fn open(path: &Path) -> Result<Option<(File, u64)>> {
    let opened = File::open(path).and_then(|file| {
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    });
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let (path, reason) = (path.display(), reason(error));
    log::warning!("Fatal error: can't open the RDB file {path} for reading: {reason}");
    anyhow!(FATAL)
}

const FATAL: &str = "Fatal error loading the DB, check server logs. Exiting.";

/// What a snapshot held.
#[derive(Debug)]
pub struct Loaded {
    pub summary: Summary,
    /// Where in a sequence of effects it was taken.
    pub origin: Origin,
    /// What was left out of that sequence's data, since its time had come: by logical database.
    pub expired: Vec<(usize, Box<[u8]>)>,
}

/// Where a snapshot stands in the effects of the server that took it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `repl-id`
    pub replication_id: Option<String>,
    /// `repl-offset`
    pub offset: Option<u64>,
    /// `repl-stream-db`: the logical database of the next effect.
    pub db: Option<usize>,
}

/// What a snapshot is at the beginning of.
pub struct Input<R> {
    pub input: R,
    /// How long it is, if that is known.
    pub bytes: Option<u64>,
    /// Whether keys whose time has come are left out.
    pub drops_expired: bool,
    pub present: Present,
    /// The same of libraries of functions.
    pub libraries: LibraryLoading,
}

/// Reads a snapshot into a database: under locks that are `held`, or else with several threads.
pub fn snapshot(
    database: &Database,
    config: &Config,
    input: Input<impl std::io::Read>,
    progress: &Progress,
    held: Option<&mut dyn Segments>,
) -> Result<Loaded, FileError> {
    let settings = database.settings.load_full();
    let environment = &settings.environment;
    let limits = environment.limits;
    let trust = Trust {
        databases: database.keyspace.databases(),
        checksum: config.rdbchecksum && !environment.ignores_checksums,
        newer: config.rdb_version_check == "relaxed",
        passes_modules: false,
        expanded_bytes_max: limits.max_string,
        input_bytes: input.bytes,
    };
    // Nobody has to hear of it where there is no sequence of effects that goes on.
    let (goes_on, expired) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let note_expired = |db, key: &[u8]| {
        if goes_on.load(Relaxed) {
            expired.lock().push((db, key.into()));
        }
    };
    let rules = Rules {
        limits,
        policy: environment.policy,
        now_ms: clock::wall_ms(),
        on_expired: input.drops_expired.then_some(&note_expired),
        present: input.present,
        threads: std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX),
        after_chunk: &allocator::publish,
    };
    let mut reader = FileReader::new(input.input, trust);
    let mut teller = Teller {
        database,
        libraries: input.libraries,
        clock: Clock::new(),
        origin: Origin::default(),
        goes_on: &goes_on,
    };
    let summary = match held {
        Some(held) => file::load_held(&mut reader, held, &rules, progress, &mut teller)?,
        None => file::load(&mut reader, &database.keyspace, &rules, progress, &mut teller)?,
    };
    database.scripting.figures();
    let origin = teller.origin;
    Ok(Loaded { summary, origin, expired: expired.into_inner() })
}

/// Loads the file of the last snapshot under locks that are held, for DEBUG RELOAD. Whether that went well;
/// if not, the log says why.
pub fn reload(
    database: &Database,
    held: &mut dyn Segments,
    present: Present,
    libraries: LibraryLoading,
) -> bool {
    let config = database.config();
    let path = config.dir.join(&config.dbfilename);
    let Ok(Some((file, bytes))) = open(&path) else { return false };
    let file = match at_rest::policy(&config).open(file) {
        Ok(file) => file,
        Err(error) => {
            unreadable(&path, &error);
            return false;
        }
    };
    let guard = database.loading.begin(bytes, config.key_load_delay);
    let drops_expired = !database.replication.is_replica();
    let input = Input { input: file, bytes: Some(bytes), drops_expired, present, libraries };
    match snapshot(database, &config, input, &guard.progress, Some(held)) {
        Ok(loaded) => {
            tell(&loaded.summary);
            true
        }
        Err(error) => {
            log::warning!("Internal error in RDB reading offset {}: {}", error.offset, error.fault);
            false
        }
    }
}

/// Tells what a snapshot held.
pub fn tell(summary: &Summary) {
    for key in &summary.empty_named {
        log::notice!("rdbLoadObject skipping empty key: {}", String::from_utf8_lossy(key));
    }
    let Summary { keys, expired, empty, .. } = summary;
    match empty {
        0 => log::notice!("Done loading RDB, keys loaded: {keys}, keys expired: {expired}."),
        _ => log::notice!(
            "Done loading RDB, keys loaded: {keys}, keys expired: {expired}, empty keys skipped: \
             {empty}."
        ),
    }
}

/// Logs why a snapshot could not be loaded; the last line is for the one who ends the process.
fn refusal(path: &Path, config: &Config, error: &FileError) -> anyhow::Error {
    if error.is_foreign() {
        log::warning!("{}", error.fault);
        return anyhow!(FATAL);
    }
    match error.fault {
        Fault::Database(_) => {
            return anyhow!(
                "FATAL: Data file was created with a Redis server configured to handle more than \
                 {} databases. Exiting",
                config.databases
            );
        }
        Fault::End => {
            log::warning!("Short read or OOM loading DB. Unrecoverable error, aborting now.")
        }
        Fault::Checksum { expected, found } => log::warning!(
            "Wrong RDB checksum expected: ({expected:x}) but got ({found:x}). Aborting now."
        ),
        _ => {}
    }
    log::warning!("Internal error in RDB reading offset {}: {}", error.offset, error.fault);
    // What looks for damage on its own does not have the key.
    if !is_sealed_file(path).unwrap_or(false) {
        let mut report = Vec::new();
        file::check::check(path, Path::new(""), &mut report);
        log::write_raw(&String::from_utf8_lossy(&report));
    }
    anyhow!("Terminating server after rdb file reading failure.")
}

/// Tells the log what a snapshot says of itself, and keeps what it has beside keys.
struct Teller<'d> {
    database: &'d Database,
    libraries: LibraryLoading,
    clock: Clock,
    origin: Origin,
    /// Set as soon as it is known that the snapshot has an origin.
    goes_on: &'d AtomicBool,
}

impl Observer for Teller<'_> {
    fn aux(&mut self, name: &[u8], value: &[u8]) {
        let shown = String::from_utf8_lossy(value);
        let number = || shown.trim().parse::<u64>().ok();
        match name.to_ascii_lowercase().as_slice() {
            b"redis-ver" | b"valkey-ver" => {
                log::notice!("Loading RDB produced by version {shown}");
            }
            b"ctime" => {
                let now = clock::wall_ms() / 1000;
                log::notice!("RDB age {} seconds", now.saturating_sub(number().unwrap_or(now)));
            }
            b"used-mem" => {
                let bytes = number().unwrap_or(0);
                self.database.loading.memory_bytes.store(bytes, Relaxed);
                let megabytes = bytes as f64 / f64::from(1 << 20);
                log::notice!("RDB memory usage when created {megabytes:.2} Mb");
            }
            b"aof-preamble" if number() == Some(1) => log::notice!("RDB has an AOF tail"),
            b"aof-base" if number() == Some(1) => log::notice!("RDB is base AOF"),
            b"repl-id" => {
                let is_id = value.len() == 40 && value.iter().all(u8::is_ascii_hexdigit);
                self.origin.replication_id = is_id.then(|| shown.into_owned());
                self.goes_on.store(is_id, Relaxed);
            }
            b"repl-offset" => self.origin.offset = number(),
            b"repl-stream-db" => {
                self.origin.db = number().and_then(|db| usize::try_from(db).ok());
            }
            b"redis-bits" | b"lua" | b"aof-preamble" | b"aof-base" => {}
            _ => {
                let name = String::from_utf8_lossy(name);
                match name.starts_with('%') {
                    true => log::notice!("RDB '{name}': {shown}"),
                    false => log::debug!("Unrecognized RDB AUX field: '{name}'"),
                }
            }
        }
    }

    fn function(&mut self, source: &[u8]) -> Result<(), String> {
        let engine = self.database.scripting.engine(self.database);
        let mut engine = engine.map_err(|error| error.to_string())?;
        let mut host = LoadHost::new(&self.clock);
        engine
            .load_library(source, self.libraries, &mut host)
            .map(drop)
            .map_err(|reason| String::from_utf8_lossy(&reason).into_owned())
    }

    fn module_aux(&mut self, module: &str) {
        log::warning!(
            "The RDB file contains AUX module data of the module type '{module}', which is passed \
             over: no matching module"
        );
    }

    fn checksum(&mut self, is_there: bool) {
        if !is_there {
            log::notice!("RDB file was saved with checksum disabled: no check performed.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_the_bytes() {
        let loading = Loading::default();
        assert!(!loading.is_on());
        let guard = loading.begin(1000, 0);
        guard.progress.bytes.store(250, Relaxed);
        assert!(loading.is_on());
        let started_ms = loading.started_ms.load(Relaxed);
        let figures = loading.figures(started_ms + 10_000);
        assert_eq!((figures.total_bytes, figures.loaded_bytes), (1000, 250));
        assert_eq!((figures.percent, figures.eta), (25.0, 29));
        drop(guard);
        assert!(!loading.is_on());
    }
}

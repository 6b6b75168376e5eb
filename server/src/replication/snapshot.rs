//! The snapshot of a full sync on its way into the keyspace.
//!
//! It is always read into a keyspace beside the one that clients see, and takes its place in one step. Where the old
//! data are not to be kept until then, they go before: after the whole snapshot is on disk
//! (`repl-diskless-load disabled`), or there are none (`on-empty-db`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use carnelian_keyspace::{Hold, Keyspace, Present, Segments};
use carnelian_persistence::rdb::file::{self, FileError, FileReader, Observer, Trust};
use carnelian_persistence::seal::{Output, Policy};
use carnelian_replication::payload::{Marked, Payload};
use carnelian_scripting::{Engine, Limits as ScriptLimits, Loading, Restore};

use super::replica::Following;
use super::wire::Wire;
use crate::clock::{self, Clock};
use crate::database::Database;
use crate::dispatch::{self, Vectors};
use crate::log;
use crate::scripting::LoadHost;
use crate::session::Worker;

/// What is written to disk before it is synced.
const SYNC_BYTES: u64 = 8 << 20;

/// All sources of functions in a snapshot take no more.
const FUNCTIONS_BYTES_MAX: usize = 256 << 20;

/// Threads that make values.
const THREADS_MAX: usize = 4;

/// What a snapshot brought.
pub struct Loaded {
    pub keyspace: Keyspace,
    /// As FUNCTION RESTORE takes them.
    pub(super) functions: Vec<u8>,
    /// The logical database that the stream behind it goes on in.
    pub selected: Option<usize>,
    pub keys: u64,
    pub bytes: u64,
    /// What was read of the input behind the end.
    pub behind: Vec<u8>,
}

/// Hears of what a snapshot has beside keys.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) sources: Vec<Vec<u8>>,
    sources_bytes: usize,
    selected: Option<usize>,
}

impl Observer for Notes {
    fn aux(&mut self, name: &[u8], value: &[u8]) {
        if name == b"repl-stream-db" {
            self.selected = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        }
    }

    fn function(&mut self, source: &[u8]) -> Result<(), String> {
        self.sources_bytes += source.len();
        if FUNCTIONS_BYTES_MAX < self.sources_bytes {
            return Err("there is too much of them".into());
        }
        self.sources.push(source.to_vec());
        Ok(())
    }
}

/// Reads a snapshot into a keyspace of its own.
pub fn load(
    database: &Database,
    following: &Following,
    input: impl Read,
    length: Option<u64>,
) -> Result<Loaded, String> {
    let config = database.config();
    let settings = database.settings.load();
    let limits = settings.environment.limits;
    let trust = Trust {
        databases: database.keyspace.databases(),
        checksum: config.rdbchecksum,
        newer: config.rdb_version_check == "relaxed",
        passes_modules: false,
        expanded_bytes_max: limits.max_string.max(1 << 30),
        input_bytes: length,
    };
    let progress = file::Progress::default();
    progress.key_delay.store(config.key_load_delay, Ordering::Relaxed);
    let rules = file::Rules {
        limits,
        policy: settings.environment.policy,
        now_ms: clock::wall_ms(),
        on_expired: None,
        present: Present::Refused,
        threads: std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX),
        after_chunk: &|| {
            crate::allocator::publish();
            if following.is_stopped() {
                progress.stop.store(true, Ordering::Relaxed);
            }
        },
    };
    let keyspace = database.keyspace.sibling();
    let mut reader = FileReader::new(input, trust);
    let mut notes = Notes::default();
    let failed = |error: FileError| error.to_string();
    let summary =
        file::load(&mut reader, &keyspace, &rules, &progress, &mut notes).map_err(failed)?;
    let functions = compile(&notes.sources)?;
    let behind = reader.behind().to_vec();
    let selected = notes.selected.filter(|db| *db < database.keyspace.databases());
    let (keys, bytes) = (summary.keys, reader.position());
    Ok(Loaded { keyspace, functions, selected, keys, bytes, behind })
}

/// Tries libraries of functions out, before those that are there give way to them.
pub(super) fn compile(sources: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let failed = |text: &[u8]| format!("Failed loading library, {}", text.escape_ascii());
    let mut engine = Engine::new(ScriptLimits::default())?;
    let clock = Clock::new();
    for source in sources {
        engine
            .load_library(source, Loading::New, &mut LoadHost::new(&clock))
            .map_err(|text| failed(&text))?;
    }
    Ok(engine.dump_libraries())
}

/// Empties a database, or puts what was loaded in its place. All locks are held.
pub fn replace(
    worker: &mut Worker,
    database: &Database,
    held: &mut dyn Segments,
    with: Option<&Loaded>,
) -> Result<(), String> {
    let replaced = put(worker, database, held, with);
    // Nobody who waits is served by what a primary sends in one piece.
    worker.scratch.ready.clear();
    replaced
}

/// The same, after which those who wait for keys are to be served.
pub(super) fn put(
    worker: &mut Worker,
    database: &Database,
    held: &mut dyn Segments,
    with: Option<&Loaded>,
) -> Result<(), String> {
    let mut scratch = std::mem::take(&mut worker.scratch);
    let settings = database.settings.load();
    let Vectors { aftermath, ready, .. } = &mut *scratch;
    let mut db = dispatch::open(worker, database, &settings, 0, Hold::Lent(held), aftermath);
    // What comes from elsewhere is no event here.
    db.changes.listening = 0;
    match with {
        Some(loaded) => db.replace_all(&loaded.keyspace),
        None => (0..db.databases()).for_each(|index| {
            db.flush(index);
        }),
    }
    dispatch::hear(database, db.changes, ready);
    let functions = with.map_or(Ok(()), |loaded| {
        let mut engine = database.scripting.engine(database).map_err(|it| it.to_string())?;
        let mut host = LoadHost::new(&worker.clock);
        let restored = engine.restore_libraries(&loaded.functions, Restore::Flush, &mut host);
        restored.map_err(|text| format!("Failed loading library, {}", text.escape_ascii()))
    });
    drop(db);
    dispatch::settle(worker, database, None, &mut scratch.aftermath);
    worker.scratch = scratch;
    functions
}

/// A snapshot that was received in a file.
pub struct OnDisk {
    path: PathBuf,
    /// It may be sealed.
    pub file: File,
    /// Of the snapshot itself.
    pub bytes: u64,
    /// What came behind it.
    pub behind: Vec<u8>,
    is_kept: bool,
}

impl OnDisk {
    /// Receives one.
    pub fn receive(
        wire: &mut Wire,
        payload: &Payload,
        folder: &Path,
        policy: &Policy,
    ) -> Result<Self, String> {
        let name = format!("temp-{}.{}.rdb", clock::wall_ms() / 1000, std::process::id());
        let path = folder.join(name);
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let opening = |error: io::Error| {
            format!("Opening the temp file needed for MASTER <-> REPLICA synchronization: {error}")
        };
        let file = opened.map_err(opening)?;
        let own = file.try_clone().map_err(opening)?;
        let mut on_disk = Self { path, file: own, bytes: 0, behind: Vec::new(), is_kept: false };
        let mut output = policy.create(file).map_err(|error| writing(&error))?;
        on_disk.fill(wire, payload, &mut output)?;
        output.finish().map_err(|error| writing(&error))?;
        on_disk.file.sync_all().map_err(|error| writing(&error))?;
        Ok(on_disk)
    }

    fn fill(
        &mut self,
        wire: &mut Wire,
        payload: &Payload,
        output: &mut Output<File>,
    ) -> Result<(), String> {
        let mut buffer = vec![0; 64 << 10];
        let mut marked = match payload {
            Payload::Mark(mark) => Some(Marked::new(*mark)),
            Payload::Length(_) => None,
        };
        let mut synced = 0;
        let mut out = Vec::new();
        loop {
            let most = match payload {
                Payload::Length(length) => (length - self.bytes).min(buffer.len() as u64) as usize,
                Payload::Mark(_) => buffer.len(),
            };
            if most == 0 {
                return Ok(());
            }
            let count = wire.read(&mut buffer[..most]).map_err(|error| receiving(&error))?;
            if count == 0 {
                return Err("I/O error trying to sync with MASTER: connection lost".into());
            }
            out.clear();
            let end = match &mut marked {
                Some(marked) => marked.take(&buffer[..count], &mut out),
                None => {
                    out.extend_from_slice(&buffer[..count]);
                    None
                }
            };
            output.write_all(&out).map_err(|error| writing(&error))?;
            self.bytes += out.len() as u64;
            if SYNC_BYTES <= self.bytes - synced {
                self.file.sync_data().map_err(|error| writing(&error))?;
                synced = self.bytes;
            }
            if let Some(behind) = end {
                self.behind = behind;
                return Ok(());
            }
        }
    }

    /// Makes it the snapshot that a restart would load.
    pub fn keep(&mut self, path: &Path) -> Result<(), String> {
        fs::rename(&self.path, path).map_err(|error| {
            format!(
                "Failed trying to rename the temp DB into {} in MASTER <-> REPLICA \
                 synchronization: {error}",
                path.display()
            )
        })?;
        self.is_kept = true;
        Ok(())
    }

    /// It has been read, and nobody is to find it.
    pub fn remove(&mut self, path: &Path) {
        if self.is_kept && fs::remove_file(path).is_err() {
            log::warning!("Could not remove {}", path.display());
        }
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        if !self.is_kept {
            // What is left of it is in nobody's way but takes room.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn receiving(error: &io::Error) -> String {
    format!("I/O error trying to sync with MASTER: {error}")
}

fn writing(error: &io::Error) -> String {
    format!(
        "Write error or short write writing to the DB dump file needed for MASTER <-> REPLICA \
         synchronization: {error}"
    )
}

/// Whether a database has no key at all.
pub fn is_empty(keyspace: &Keyspace) -> bool {
    (0..keyspace.databases()).all(|db| keyspace.stats(db).keys == 0)
}

//! Data from files in the place of a primary's own: another history begins with them, and replicas take them from there.
//!
//! They are read into a keyspace beside the one that clients see. What is wrong with a file is found there, with the old
//! data untouched. They take the place of the old ones in one step, as if by a FLUSHALL and a write of all keys in one
//! transaction; clients are served all the time.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use carnelian_keyspace::{Present, Segments};
use carnelian_persistence::rdb::file::{self, Fault, FileError, FileReader, Trust};

use super::snapshot::{self, Loaded, Notes};
use super::{gate, new_id, replica};
use crate::aof;
use crate::at_rest;
use crate::blocking;
use crate::clock;
use crate::database::Database;
use crate::databases::Stage;
use crate::log;
use crate::mailbox::Message;
use crate::server::Server;
use crate::session::Worker;

/// Threads that make values.
const THREADS_MAX: usize = 4;
/// How many chunks there are between two looks at how much memory the data take.
const CHUNKS_PER_LOOK: usize = 16;
/// Until a reactor is asked again that is held up by a script.
const BUSY_RETRY: Duration = Duration::from_millis(10);

/// How far it is; also how it is stopped.
#[derive(Debug, Default)]
pub struct Progress {
    pub total_bytes: AtomicU64,
    pub bytes: AtomicU64,
    pub is_stopped: AtomicBool,
}

/// Why data were not taken in. The old ones are all there.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Damaged { path: PathBuf, source: FileError },
    #[error("{0}")]
    Functions(String),
    #[error("the data take {bytes} bytes, and the limit is {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("the database is not the primary here")]
    NotPrimary,
    #[error("it was given up")]
    Stopped,
}

/// Reads files into a keyspace that is nobody's yet. A key that is in two of them is as the later one has it.
pub fn read(
    database: &Database,
    paths: &[PathBuf],
    progress: &Progress,
) -> Result<Loaded, Refused> {
    let mut files = Vec::new();
    for path in paths {
        files.push(open(path)?);
    }
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    progress.total_bytes.store(total, Relaxed);

    let config = database.config();
    let settings = database.settings.load();
    let limits = settings.environment.limits;
    let limit = config.maxmemory;
    let keyspace = database.keyspace.sibling();
    let (before, chunks, taken) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicU64::new(0));
    let now_ms = clock::wall_ms();
    let mut notes = Notes::default();
    let mut keys = 0;
    let has_room = || {
        let bytes = keyspace.heap_bytes() as u64;
        taken.store(bytes, Relaxed);
        limit == 0 || bytes <= limit
    };
    let too_large = || Refused::TooLarge { bytes: taken.load(Relaxed), limit };
    for (place, ((file, bytes), path)) in files.into_iter().zip(paths).enumerate() {
        let of_file = file::Progress::default();
        let after_chunk = || {
            crate::allocator::publish();
            progress.bytes.store(before.load(Relaxed) + of_file.bytes.load(Relaxed), Relaxed);
            let looks = chunks.fetch_add(1, Relaxed).is_multiple_of(CHUNKS_PER_LOOK);
            if progress.is_stopped.load(Relaxed) || looks && !has_room() {
                of_file.stop.store(true, Relaxed);
            }
        };
        let trust = Trust {
            databases: database.keyspace.databases(),
            checksum: config.rdbchecksum,
            newer: config.rdb_version_check == "relaxed",
            passes_modules: false,
            expanded_bytes_max: limits.max_string.max(1 << 30),
            input_bytes: Some(bytes),
        };
        let rules = file::Rules {
            limits,
            policy: settings.environment.policy,
            now_ms,
            on_expired: Some(&|_, _| {}),
            present: if place == 0 { Present::Refused } else { Present::Replaced },
            threads: std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX),
            after_chunk: &after_chunk,
        };
        let unreadable = |source| Refused::File { path: path.clone(), source };
        let input = at_rest::policy(&config).open(file).map_err(unreadable)?;
        let mut reader = FileReader::new(input, trust);
        let summary = file::load(&mut reader, &keyspace, &rules, &of_file, &mut notes);
        let summary = summary.map_err(|source| match source.fault {
            Fault::Stopped if progress.is_stopped.load(Relaxed) => Refused::Stopped,
            Fault::Stopped => too_large(),
            _ => Refused::Damaged { path: path.clone(), source },
        })?;
        keys += summary.keys;
        before.fetch_add(bytes, Relaxed);
    }
    if !has_room() {
        return Err(too_large());
    }
    progress.bytes.store(total, Relaxed);
    notes.sources.dedup();
    let functions = snapshot::compile(&notes.sources).map_err(Refused::Functions)?;
    Ok(Loaded { keyspace, functions, selected: None, keys, bytes: total, behind: Vec::new() })
}

/// A file, and how long it is: never a device or a pipe, which could keep us for ever.
fn open(path: &Path) -> Result<(impl Read + use<>, u64), Refused> {
    let failed = |source| Refused::File { path: path.to_owned(), source };
    // Opening a pipe would wait for who writes into it.
    let is_file = std::fs::metadata(path).map_err(failed)?.is_file();
    if !is_file {
        return Err(failed(ErrorKind::InvalidInput.into()));
    }
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    Ok((file, bytes))
}

/// Puts what was read in the place of all data. Where the log goes on: a replica that has acknowledged as much has the
/// new data.
pub fn take_in(
    server: &Arc<Server>,
    database: &Arc<Database>,
    loaded: Loaded,
    progress: &Arc<Progress>,
) -> Result<u64, Refused> {
    // What the file says is of the old data.
    aof::disable(server, database, false);
    let taken = under_all_locks(server, database, loaded, progress);
    replica::restart_file(server, database, false);
    taken
}

fn under_all_locks(
    server: &Arc<Server>,
    database: &Arc<Database>,
    loaded: Loaded,
    progress: &Arc<Progress>,
) -> Result<u64, Refused> {
    let mut loaded = loaded;
    loop {
        let (sender, receiver) = mpsc::channel();
        let (of, progress) = (Arc::clone(database), Arc::clone(progress));
        server.mailboxes[0].post(Message::Run(Box::new(move |worker| {
            let Ok(mut access) = of.keyspace.lock_lazily_unless_busy() else {
                // Nobody hears of it if the server ends.
                let _ = sender.send(Err(loaded));
                return;
            };
            access.lock_rest();
            let result = match progress.is_stopped.load(Relaxed) {
                true => Err(Refused::Stopped),
                false => take_over(worker, &of, &mut access, &loaded),
            };
            drop(access);
            let _ = sender.send(Ok(result));
            blocking::serve(worker, &of);
        })));
        match receiver.recv() {
            Ok(Ok(result)) => return result,
            Ok(Err(again)) => loaded = again,
            Err(_) => return Err(Refused::Stopped),
        }
        std::thread::sleep(BUSY_RETRY);
    }
}

fn take_over(
    worker: &mut Worker,
    database: &Database,
    held: &mut dyn Segments,
    loaded: &Loaded,
) -> Result<u64, Refused> {
    let replication = &database.replication;
    let forbids = gate::REPLICA | gate::FENCED | gate::UNCONFIRMED;
    if replication.gate() & forbids != 0 || database.stage.get() != Stage::Here {
        return Err(Refused::NotPrimary);
    }
    replication.primary.disconnect_all();
    let functions = snapshot::put(worker, database, held, Some(loaded));
    replication.history.lock().renew(new_id());
    // One further than any replica is: who has the old data cannot be taken for one that has the new ones.
    let offset = database.log.end() + 1;
    database.log.restart(offset, None);
    replication.tenure.note_data();
    log::notice!("The data were replaced by {} keys from files", loaded.keys);
    if let Err(reason) = functions {
        // They were tried out before.
        log::warning!("The functions of imported files are missing: {reason}");
    }
    Ok(offset)
}

//! Rewrites: the data as they are now become the base, and what was written before superfluous.
//!
//! The cut is made by whoever asks, the rest by a thread of its own. At the cut the writer is told to go on
//! in a new file from that offset, so that base and file meet exactly. Nothing waits for a rewrite but
//! another snapshot.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carnelian_config::{AppendFsync, Config};
use carnelian_keyspace::Busy;
use carnelian_persistence::aof::{BaseFormat, FileError, Folder, Keep, Rotation, reason};

use super::convert::convert;
use super::{Mode, base_format, keep, start_writer, stop_writer, tell};
use crate::at_rest;
use crate::clock;
use crate::database::Database;
use crate::log;
use crate::server::Server;
use crate::snapshot::{Broken, Claim, Plan, Purpose, Snapshot, Synced};

/// A file that is longer than its database may have is rewritten once it has grown by so much.
const TOO_LONG_PERCENT: u64 = 10;
/// No file is too long that is shorter than this.
const LONGEST_MIN: u64 = 1 << 20;

/// After so many failures in a row the next rewrite waits, longer each time.
const FAILURES_MAX: u32 = 3;
const PAUSE_MINUTES_MAX: u64 = 60;

/// How often one who waits for the writer looks whether it still should.
const PATIENCE: Duration = Duration::from_millis(100);

/// Why a rewrite was not begun.
#[derive(Debug)]
pub enum Unbegun {
    /// A snapshot is being taken.
    Taken,
    /// A script has been running for too long.
    Busy(Busy),
    /// The log says why.
    Failed,
}

/// A rewrite whose cut was made.
struct Rewrite {
    claim: Claim,
    snapshot: Snapshot,
    folder: Arc<Folder>,
    format: BaseFormat,
    /// What the file was at the cut.
    mode: Mode,
    rotation: Option<Rotation>,
}

/// Begins a rewrite; to be called without any lock.
pub fn begin(server: &Arc<Server>, database: &Arc<Database>) -> Result<(), Unbegun> {
    let claim = database.snapshots.claim(database, Purpose::Rewrite).map_err(|_| Unbegun::Taken)?;
    let config = database.config();
    let failed = |text: String| {
        log::warning!("{text}");
        database.aof.state.lock().rewrites.has_failed = true;
        Unbegun::Failed
    };
    let folder = database.aof.folder(&config).map_err(failed)?;
    folder.create().map_err(|error| failed(error.to_string()))?;
    let mode = database.aof.state.lock().mode;
    let incr = match mode {
        Mode::Awaited => {
            Some(folder.create_temporary_incr(&tell).map_err(|error| failed(error.to_string()))?)
        }
        _ => None,
    };
    let (mut rotation, mut from) = (None, 0);
    let snapshot = {
        let access = database.keyspace.lock_lazily_unless_busy().map_err(Unbegun::Busy)?;
        let plan = Plan { is_aof_base: true, ..Plan::new(&config) };
        let progress = Arc::clone(&claim.progress);
        Snapshot::take(database, access, &plan, progress, || {
            match mode {
                Mode::On => {
                    let at = database.log.cut();
                    let state = database.aof.state.lock();
                    let prologue = database.log.prologue();
                    let writer = state.writer.as_ref();
                    rotation = writer.map(|writer| writer.rotate_with(at, prologue));
                }
                Mode::Awaited => from = database.log.follow(),
                Mode::Off | Mode::Built => {}
            }
            Vec::new()
        })
        .map_err(|_| Unbegun::Taken)?
    };
    let mut built = mode;
    if let Some(incr) = incr {
        let writer = start_writer(server, database, &folder, incr, from);
        let writer = writer.map_err(|error| failed(error.to_string()))?;
        // All before it will be in the base.
        database.log.release(from, &server.mailboxes);
        let mut state = database.aof.state.lock();
        state.writer = Some(writer);
        database.aof.enter(&mut state, Mode::Built);
        built = Mode::Built;
    }
    {
        let mut state = database.aof.state.lock();
        state.rewrites.is_scheduled = false;
        state.rewrites.since_s = Some(now_s());
        state.rewrites.count += 1;
    }
    let format = base_format(&config);
    let rewrite = Rewrite { claim, snapshot, folder, format, mode: built, rotation };
    super::heed(server, database, &config);
    let (own_server, own_database) = (Arc::clone(server), Arc::clone(database));
    let run = move || rewrite.run(&own_server, &own_database);
    let spawned = std::thread::Builder::new().name("aof-rewrite".into()).spawn(run);
    if let Err(error) = spawned {
        settle(server, database, Some(false), built == Mode::Built);
        return Err(failed(format!("Can't rewrite append only file in background: {error}")));
    }
    let pid = std::process::id();
    log::notice!("Background append only file rewriting started by pid {pid}");
    Ok(())
}

impl Rewrite {
    fn run(mut self, server: &Arc<Server>, database: &Arc<Database>) {
        let temporary = self.folder.temporary_base(std::process::id());
        let config = database.config();
        let written = write_base(&mut self.snapshot, &temporary, self.format, &config);
        let Self { claim, snapshot, folder, format, mode, rotation } = self;
        // One that was given up is still gone through to the end.
        drop(snapshot);
        let outcome = match written {
            Ok(()) => {
                log::notice!("Background AOF rewrite terminated with success");
                install(&claim, &folder, &temporary, format, mode, rotation.as_ref())
            }
            Err(Broken::Cancelled) => {
                log::warning!("Background AOF rewrite was given up");
                None
            }
            Err(Broken::Write(error)) => {
                let reason = reason(&error);
                log::warning!("Write error writing append only file on disk: {reason}");
                log::warning!("Background AOF rewrite terminated with error");
                Some(false)
            }
        };
        if outcome != Some(true) {
            // It may not be there.
            let _ = fs::remove_file(&temporary);
        }
        settle(server, database, outcome, mode == Mode::Built);
        // Who may take the next snapshot finds everything booked.
        drop(claim);
        // What was synced until now did not count without the base: WAITAOF.
        database.replication.primary.waits.settle(database);
        super::heed(server, database, &database.config());
    }
}

/// Makes the finished base part of the append-only file. Whether that worked out, unless given up.
fn install(
    claim: &Claim,
    folder: &Folder,
    temporary: &Path,
    format: BaseFormat,
    mode: Mode,
    rotation: Option<&Rotation>,
) -> Option<bool> {
    if claim.progress.is_cancelled() {
        return None;
    }
    let mut rotated = None;
    if let Some(rotation) = rotation {
        rotated = loop {
            match rotation.wait(PATIENCE) {
                Some(Ok(sequence)) => break Some(sequence),
                // The writer has logged why.
                Some(Err(_)) => return Some(false),
                None if claim.progress.is_cancelled() => return None,
                None => {}
            }
        };
    }
    match folder.install_base(temporary, format, keep(mode, rotated), &tell) {
        Ok(_) => {
            log::notice!("Background AOF rewrite finished successfully");
            Some(true)
        }
        Err(error) => {
            log::warning!("{error}");
            Some(false)
        }
    }
}

/// Books what became of a rewrite; `None`: it was given up. `was_built`: it was to make the file whole.
fn settle(server: &Server, database: &Database, outcome: Option<bool>, was_built: bool) {
    let mut state = database.aof.state.lock();
    let rewrites = &mut state.rewrites;
    let since_s = rewrites.since_s.take().unwrap_or_else(now_s);
    rewrites.last_duration_s = Some(now_s().saturating_sub(since_s));
    match outcome {
        Some(true) => (rewrites.has_failed, rewrites.failures) = (false, 0),
        Some(false) => {
            rewrites.has_failed = true;
            rewrites.failures += 1;
        }
        None => {}
    }
    if state.mode != Mode::Built {
        // Without it, what was written beside it is of no use, and has ended already.
        let folder = state.folder.clone().filter(|_| was_built && outcome != Some(true));
        drop(state);
        if let Some(folder) = folder {
            folder.remove_temporary_incr(&tell);
        }
        return;
    }
    if outcome == Some(true) {
        database.aof.enter(&mut state, Mode::On);
        drop(state);
        let is_strict = database.config().appendfsync == AppendFsync::Always;
        database.log.set_strict(is_strict);
        return;
    }
    // What was written so far is of no use without a base.
    database.aof.enter(&mut state, Mode::Awaited);
    state.rewrites.is_scheduled = true;
    let (writer, folder) = (state.writer.take(), state.folder.clone());
    drop(state);
    if let Some(writer) = writer {
        stop_writer(server, database, writer);
    }
    if let Some(folder) = folder {
        folder.remove_temporary_incr(&tell);
    }
}

/// Begins what is due: what was asked for, and what the growth of the file asks for.
pub fn tick(server: &Arc<Server>, database: &Arc<Database>) {
    let config = database.config();
    if config.no_appendfsync_on_rewrite {
        super::heed(server, database, &config);
    }
    {
        let mut state = database.aof.state.lock();
        if state.mode == Mode::Off && state.writer.is_some() {
            drop(state);
            return super::disable(server, database, false);
        }
        let asked = state.rewrites.is_scheduled;
        if !asked && state.mode != Mode::On || database.snapshots.running().is_some() {
            return;
        }
        let growth = if asked { None } else { growth(database, &config, &state) };
        if !asked && growth.is_none() || is_limited(&mut state.rewrites) {
            return;
        }
        if let Some(growth) = growth {
            log::notice!("Starting automatic rewriting of AOF on {growth}% growth");
        }
    }
    if let Err(Unbegun::Failed) = begin(server, database) {
        let mut state = database.aof.state.lock();
        state.rewrites.failures += 1;
    }
}

/// By how many percent the file has grown, if that is too much.
fn growth(database: &Database, config: &Config, state: &super::State) -> Option<u64> {
    let folder = state.folder.as_ref()?;
    let percentage = u64::from(config.auto_aof_rewrite_percentage);
    let most = database.spec.load().as_ref().map_or(0, |spec| spec.aof_bytes_max);
    // What is longer because the data are is not rewritten all the time.
    let percentage = if most != 0 && most.max(LONGEST_MIN) < folder.bytes() {
        TOO_LONG_PERCENT
    } else if percentage == 0 || folder.bytes() <= config.auto_aof_rewrite_min_size {
        return None;
    } else {
        percentage
    };
    let grown = u128::from(folder.bytes()) * 100 / u128::from(folder.base_bytes().max(1));
    let grown = u64::try_from(grown).unwrap_or(u64::MAX).saturating_sub(100);
    (percentage <= grown).then_some(grown)
}

/// Whether rewrites have failed too often to begin another now.
fn is_limited(rewrites: &mut super::Rewrites) -> bool {
    if rewrites.failures < FAILURES_MAX {
        (rewrites.not_before_s, rewrites.pause_minutes) = (0, 0);
        return false;
    }
    if rewrites.not_before_s != 0 {
        if now_s() < rewrites.not_before_s {
            return true;
        }
        rewrites.not_before_s = 0;
        return false;
    }
    rewrites.pause_minutes = (rewrites.pause_minutes * 2).clamp(1, PAUSE_MINUTES_MAX);
    rewrites.not_before_s = now_s() + rewrites.pause_minutes * 60;
    log::warning!(
        "Background AOF rewrite has repeatedly failed and triggered the limit, will retry in {} \
         minutes",
        rewrites.pause_minutes
    );
    true
}

/// Makes the base of an append-only file that has nothing yet. Its name.
pub(super) fn write_first_base(
    database: &Arc<Database>,
    folder: &Folder,
) -> Result<String, FileError> {
    let config = database.config();
    let failed = |source| FileError { what: "Can't write an AOF base file".into(), source };
    let taken = || failed(io::Error::from(io::ErrorKind::ResourceBusy));
    let claim = database.snapshots.claim(database, Purpose::Rewrite).map_err(|_| taken())?;
    let plan = Plan { is_aof_base: true, ..Plan::new(&config) };
    let (access, progress) = (database.keyspace.lock_lazily(), Arc::clone(&claim.progress));
    let mut snapshot =
        Snapshot::take(database, access, &plan, progress, Vec::new).map_err(|_| taken())?;
    let temporary = folder.temporary_base(std::process::id());
    let format = base_format(&config);
    write_base(&mut snapshot, &temporary, format, &config).map_err(|broken| match broken {
        Broken::Write(error) => failed(error),
        Broken::Cancelled => failed(io::Error::from(io::ErrorKind::Interrupted)),
    })?;
    folder.install_base(&temporary, format, Keep::Nothing, &tell)
}

/// Writes a snapshot to a file, in the form of a base, and brings it to the disk.
fn write_base(
    snapshot: &mut Snapshot,
    path: &Path,
    format: BaseFormat,
    config: &Config,
) -> Result<(), Broken> {
    let file = File::create(path).map_err(Broken::Write)?;
    let file = Synced::new(file, config.aof_rewrite_incremental_fsync);
    let mut output = at_rest::policy(config).create(file).map_err(Broken::Write)?;
    if format == BaseFormat::Aof && config.aof_timestamp_enabled {
        let line = format!("#TS:{}\r\n", now_s());
        output.write_all(line.as_bytes()).map_err(Broken::Write)?;
    }
    match format {
        BaseFormat::Rdb => snapshot.write(&mut output)?,
        BaseFormat::Aof => {
            let rdb = path.with_extension("rdb");
            let result = write_commands(snapshot, &rdb, &mut output, config);
            // It may not be there.
            let _ = fs::remove_file(&rdb);
            result?;
        }
    }
    let file = output.finish().map_err(Broken::Write)?;
    file.end().map_err(Broken::Write)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    log::notice!("Successfully created the temporary AOF base file {name}");
    Ok(())
}

/// Writes a snapshot as commands, by way of a file.
fn write_commands(
    snapshot: &mut Snapshot,
    rdb: &Path,
    out: &mut impl Write,
    config: &Config,
) -> Result<(), Broken> {
    let policy = at_rest::policy(config);
    let file = File::create(rdb).map_err(Broken::Write)?;
    let mut file = policy.create(BufWriter::new(file)).map_err(Broken::Write)?;
    snapshot.write(&mut file)?;
    file.finish().and_then(|mut file| file.flush()).map_err(Broken::Write)?;
    let file = File::open(rdb).and_then(|file| policy.open(file)).map_err(Broken::Write)?;
    convert(file, config.rdb_version, config.databases as usize, out).map_err(Broken::Write)
}

fn now_s() -> u64 {
    clock::wall_ms() / 1000
}

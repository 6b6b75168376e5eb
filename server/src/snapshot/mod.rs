//! Snapshots of a database: SAVE, BGSAVE, save points, and the one before the end.
//!
//! One at a time is taken (`keyspace/src/snapshot.rs` says how, without fork). Its cut is made by whoever
//! asks for it, so that it is the state as of the command; a thread of its own does the rest. Who wants to take one
//! for another purpose claims the same place ([`Snapshots::claim`]) and writes a [`Snapshot`] where it likes.

mod export;
mod file;
mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carnelian_config::{Config, SavePoint};
use carnelian_keyspace::{Access, Busy, Hold};
use carnelian_persistence::seal::Output;
use parking_lot::{Condvar, Mutex};

pub use export::{Unwritten, export, part};
pub use file::{Failed, Synced, Target};
pub use source::{Aux, Broken, Plan, Progress, Snapshot};

use crate::at_rest;
use crate::clock;
use crate::database::Database;
use crate::log;
use crate::replication::replica;
use crate::settings::Settings;

/// After a failure, this long nothing is tried by itself.
const RETRY_S: u64 = 5;

/// What a snapshot is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// SAVE, SHUTDOWN, DEBUG RELOAD: somebody waits for it.
    Save,
    /// BGSAVE and save points.
    Background,
    /// The base of the append-only file.
    Rewrite,
    /// A file for others.
    Export,
}

impl Purpose {
    /// Whether it is the file of snapshots that is written.
    pub fn is_save(self) -> bool {
        matches!(self, Self::Save | Self::Background)
    }
}

/// The snapshots of one database: which is being taken, and what became of the last.
pub struct Snapshots {
    state: Mutex<State>,
    /// Told when none is being taken any more.
    idle: Condvar,
    /// `stop-writes-on-bgsave-error`, and the last one has failed.
    refuses_writes: AtomicBool,
}

struct State {
    running: Option<Running>,
    /// BGSAVE as soon as it can be.
    is_scheduled: bool,
    last_save_s: u64,
    last_try_s: u64,
    has_failed: bool,
    last_duration_s: Option<u64>,
    /// How many were taken.
    saves: u64,
    /// The writes up to here are in the file.
    saved_dirty: u64,
    /// Bytes that writers had to show to the last one.
    last_kept_bytes: u64,
}

struct Running {
    purpose: Purpose,
    since_s: u64,
    progress: Arc<Progress>,
}

/// What INFO shows.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The one that is being taken: since when, in the background or not, and how far it is.
    pub current: Option<Current>,
    pub last_save_s: u64,
    pub has_failed: bool,
    pub last_duration_s: Option<u64>,
    pub saves: u64,
    /// Writes since the last one.
    pub changes: u64,
    pub last_kept_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct Current {
    pub is_background: bool,
    pub since_s: u64,
    pub progress: Arc<Progress>,
}

/// The right to take a snapshot, for as long as it lives.
pub struct Claim {
    database: Arc<Database>,
    pub progress: Arc<Progress>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let snapshots = &self.database.snapshots;
        snapshots.state.lock().running = None;
        snapshots.idle.notify_all();
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        let state = State {
            running: None,
            is_scheduled: false,
            last_save_s: clock::wall_ms() / 1000,
            last_try_s: 0,
            has_failed: false,
            last_duration_s: None,
            saves: 0,
            saved_dirty: 0,
            last_kept_bytes: 0,
        };
        Self {
            state: Mutex::new(state),
            idle: Condvar::new(),
            refuses_writes: AtomicBool::new(false),
        }
    }
}

impl Snapshots {
    /// Makes the caller the one who takes a snapshot; else, what one is being taken for.
    pub fn claim(&self, database: &Arc<Database>, purpose: Purpose) -> Result<Claim, Purpose> {
        let mut state = self.state.lock();
        if let Some(running) = &state.running {
            return Err(running.purpose);
        }
        let progress = Arc::new(Progress::default());
        let since_s = now_s();
        state.running = Some(Running { purpose, since_s, progress: Arc::clone(&progress) });
        state.saves += u64::from(purpose.is_save());
        if purpose == Purpose::Background {
            state.last_try_s = since_s;
            state.is_scheduled = false;
        }
        Ok(Claim { database: Arc::clone(database), progress })
    }

    /// What a snapshot is being taken for.
    pub fn running(&self) -> Option<Purpose> {
        self.state.lock().running.as_ref().map(|running| running.purpose)
    }

    /// Has a BGSAVE begin as soon as it can.
    pub fn schedule(&self) {
        self.state.lock().is_scheduled = true;
    }

    /// Takes back what was scheduled. Whether anything was.
    pub fn unschedule(&self) -> bool {
        std::mem::take(&mut self.state.lock().is_scheduled)
    }

    /// Gives up the snapshot that is being taken. Whether there is one.
    pub fn cancel(&self) -> bool {
        let state = self.state.lock();
        state.running.as_ref().inspect(|running| running.progress.cancel()).is_some()
    }

    /// Returns when no snapshot is being taken.
    pub fn wait_until_idle(&self) {
        let mut state = self.state.lock();
        while state.running.is_some() {
            self.idle.wait(&mut state);
        }
    }

    /// When the last one was taken, in seconds since 1970.
    pub fn last_save_s(&self) -> u64 {
        self.state.lock().last_save_s
    }

    /// Whether writes are refused because the last one has failed.
    #[inline]
    pub fn refuses_writes(&self) -> bool {
        self.refuses_writes.load(Ordering::Relaxed)
    }

    /// To be called when either of the two has changed.
    pub fn heed(&self, settings: &Settings) {
        let refuses = settings.stops_writes
            && !settings.save_points.is_empty()
            && self.state.lock().has_failed;
        self.refuses_writes.store(refuses, Ordering::Relaxed);
    }

    pub fn figures(&self, dirty: u64) -> Figures {
        let state = self.state.lock();
        Figures {
            current: state.running.as_ref().map(|running| Current {
                is_background: running.purpose == Purpose::Background,
                since_s: running.since_s,
                progress: Arc::clone(&running.progress),
            }),
            last_save_s: state.last_save_s,
            has_failed: state.has_failed,
            last_duration_s: state.last_duration_s,
            saves: state.saves,
            changes: dirty.saturating_sub(state.saved_dirty),
            last_kept_bytes: state.last_kept_bytes,
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.state.lock().saves = 0;
    }

    /// Books what became of a snapshot. A SAVE that fails is told to its client and changes nothing.
    fn book(&self, settings: &Settings, purpose: Purpose, dirty: u64, result: Result<(), Failed>) {
        let mut state = self.state.lock();
        let now_s = now_s();
        if let Some(Running { since_s, progress, .. }) = &state.running {
            let kept_bytes = progress.kept_bytes.load(Ordering::Relaxed);
            let duration_s = now_s.saturating_sub(*since_s);
            if purpose == Purpose::Background {
                state.last_kept_bytes = kept_bytes;
                state.last_duration_s = Some(duration_s);
            }
        }
        match result {
            Ok(()) => {
                state.saved_dirty = dirty;
                state.last_save_s = now_s;
                state.has_failed = false;
            }
            Err(Failed::Disk) if purpose == Purpose::Background => state.has_failed = true,
            Err(_) => {}
        }
        drop(state);
        self.heed(settings);
    }

    /// The save point that asks for a snapshot now, if one does; or whether one was asked for before.
    fn due(&self, settings: &Settings, dirty: u64) -> Option<Due> {
        let state = self.state.lock();
        let now_s = now_s();
        let may_try = !state.has_failed || state.last_try_s + RETRY_S < now_s;
        if state.running.is_some() || !may_try {
            return None;
        }
        if state.is_scheduled {
            return Some(Due::Scheduled);
        }
        let changes = dirty.saturating_sub(state.saved_dirty);
        let since_s = now_s.saturating_sub(state.last_save_s);
        let is_due = |point: &&SavePoint| point.changes <= changes && point.seconds < since_s;
        settings.save_points.iter().find(is_due).copied().map(Due::Point)
    }
}

enum Due {
    Scheduled,
    Point(SavePoint),
}

/// Begins what is due by time.
pub fn tick(database: &Arc<Database>) {
    let settings = database.settings.load();
    let dirty = database.stats.sum(|counters| &counters.dirty);
    let Some(due) = database.snapshots.due(&settings, dirty) else { return };
    if database.keyspace.is_cut_open() {
        return;
    }
    let Ok(claim) = database.snapshots.claim(database, Purpose::Background) else { return };
    if let Due::Point(SavePoint { seconds, changes }) = due {
        log::notice!("{changes} changes in {seconds} seconds. Saving...");
    }
    if let Err(error) = spawn(claim, None) {
        log::warning!("Can't save in background: {error}");
    }
}

/// BGSAVE. The cut is made here.
pub fn start(claim: Claim) -> Result<(), Unbegun> {
    let database = Arc::clone(&claim.database);
    let access = database.keyspace.lock_lazily_unless_busy().map_err(Unbegun::Busy)?;
    let snapshot = take(&claim, access)?;
    spawn(claim, Some(snapshot)).map_err(|error| {
        log::warning!("Can't save in background: {error}");
        Unbegun::NoThread
    })
}

/// SAVE of a client that gets its reply from `then`.
pub fn save_apart(
    database: &Arc<Database>,
    then: impl FnOnce(Result<(), Failed>) + Send + 'static,
) -> std::io::Result<()> {
    let database = Arc::clone(database);
    let run = move || then(save(&database));
    std::thread::Builder::new().name("snapshot".into()).spawn(run).map(drop)
}

/// FLUSHALL: what is being saved in the background is no longer wanted. Whether an empty file is.
pub fn after_flush(database: &Database) -> bool {
    let snapshots = &database.snapshots;
    if snapshots.running() == Some(Purpose::Background) && snapshots.cancel() {
        log::warning!("Background saving is given up, as all data was flushed");
    }
    !database.settings.load().save_points.is_empty()
}

/// Whether a snapshot could be begun soon: none is under way for long.
pub fn can_begin(database: &Database) -> bool {
    match database.snapshots.running() {
        // It ends, or has been given up.
        Some(Purpose::Save | Purpose::Background) => true,
        Some(Purpose::Rewrite | Purpose::Export) => false,
        None => !database.keyspace.is_cut_open(),
    }
}

/// Replaces the file after FLUSHALL. The data is gone whether or not that succeeds: the log says why it did not.
pub fn save_flushed(database: &Arc<Database>, then: impl FnOnce() + Clone + Send + 'static) {
    let ended = then.clone();
    if let Err(error) = save_apart(database, move |_| ended()) {
        log::warning!("Can't save: {error}");
        database.snapshots.schedule();
        then();
    }
}

/// Why a snapshot was not begun.
#[derive(Debug)]
pub enum Unbegun {
    /// A script has been running for too long.
    Busy(Busy),
    /// Somebody takes one without having claimed it.
    Taken,
    NoThread,
}

/// Takes a snapshot and writes its file, on the thread of the caller, who waits.
pub fn save(database: &Arc<Database>) -> Result<(), Failed> {
    let claim = loop {
        match database.snapshots.claim(database, Purpose::Save) {
            Ok(claim) => break claim,
            Err(_) => database.snapshots.wait_until_idle(),
        }
    };
    let snapshot = loop {
        match take(&claim, database.keyspace.lock_lazily()) {
            Ok(snapshot) => break snapshot,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    write(&claim, Purpose::Save, snapshot)
}

/// The same for who holds all locks, and keeps them.
pub fn save_held(database: &Database, hold: &Hold<'_>) -> Result<(), Failed> {
    let config = database.config();
    let plan = Plan::new(&config);
    let dirty = database.stats.sum(|counters| &counters.dirty);
    let fill = |to: &mut Output<Synced>| source::write_held(database, hold, &plan, to);
    let result = file::write(&Target::new(&config), &at_rest::policy(&config), "held-", fill);
    if result.is_ok() {
        log::notice!("DB saved on disk");
        database.snapshots.book(&database.settings.load(), Purpose::Save, dirty, result);
    }
    result
}

fn take(claim: &Claim, access: Access<'_>) -> Result<Snapshot, Unbegun> {
    let plan = Plan::new(&claim.database.config());
    let progress = Arc::clone(&claim.progress);
    let snapshot =
        Snapshot::take(&claim.database, access, &plan, progress, || replica::aux(&claim.database));
    snapshot.map_err(|_| Unbegun::Taken)
}

/// Writes a snapshot to its file, and books what became of it.
fn write(claim: &Claim, purpose: Purpose, mut snapshot: Snapshot) -> Result<(), Failed> {
    let config = claim.database.config();
    let dirty = snapshot.dirty;
    let result =
        file::write(&Target::new(&config), &at_rest::policy(&config), "", |to| snapshot.write(to));
    // One that was given up is still gone through to the end.
    drop(snapshot);
    if result.is_ok() {
        log::notice!("DB saved on disk");
    }
    let database = &claim.database;
    database.snapshots.book(&database.settings.load(), purpose, dirty, result);
    result
}

impl Target {
    pub fn new(config: &Config) -> Self {
        Self {
            folder: config.dir.clone(),
            name: config.dbfilename.clone(),
            sync_in_steps: config.rdb_save_incremental_fsync,
        }
    }
}

/// Writes a snapshot in the background, on a thread of its own. Without one, the thread takes it.
fn spawn(claim: Claim, taken: Option<Snapshot>) -> std::io::Result<()> {
    let run = move || {
        let take = || take(&claim, claim.database.keyspace.lock_lazily());
        let Some(snapshot) = taken.or_else(|| take().ok()) else {
            // Somebody takes one who has not claimed it.
            return claim.database.snapshots.schedule();
        };
        match write(&claim, Purpose::Background, snapshot) {
            Ok(()) => log::notice!("Background saving terminated with success"),
            Err(Failed::Disk) => log::warning!("Background saving error"),
            Err(Failed::Cancelled) => log::warning!("Background saving was given up"),
        }
    };
    std::thread::Builder::new().name("snapshot".into()).spawn(run)?;
    log::notice!("Background saving started by pid {}", std::process::id());
    Ok(())
}

fn now_s() -> u64 {
    clock::wall_ms() / 1000
}

//! Exports, imports and backups that this node is to do, as the state has them: begun once, each on a thread of its own,
//! and told of while they go on.
//!
//! One that was begun by a process which has ended since has failed: how far it had come nobody knows.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use carnelian_cluster::state::{
    ActionId, Change, Database as Described, DatabaseStatus, DatabaseUid, NodeStatus, NodeUid,
    State, Transfer, TransferKind, TransferReport, TransferStage,
};
use parking_lot::Mutex;

use super::Member;
use crate::database::Database;
use crate::databases::Stage;
use crate::log;
use crate::replication::import::{self, Refused};
use crate::snapshot::{self, Unwritten};

/// Between two looks at how far they are.
const LOOK: Duration = Duration::from_millis(500);
/// Until it is looked again whether a file is complete, or a replica has come.
const STEP: Duration = Duration::from_millis(20);
/// How long replicas are waited for that are to take over what was imported.
const REUNION: Duration = Duration::from_secs(300);
/// The share of an import that reading is.
const READING: u64 = 95;

/// One that this process does.
struct Job {
    id: ActionId,
    shared: Arc<Shared>,
}

/// What its thread and we know of it.
#[derive(Default)]
struct Shared {
    import: Arc<import::Progress>,
    export: Mutex<Option<Arc<snapshot::Progress>>>,
    /// How it has ended.
    end: Mutex<Option<Result<(), String>>>,
}

impl Shared {
    fn percent(&self, kind: TransferKind) -> u8 {
        let share = |part: u64, whole: u64, most: u64| {
            u8::try_from((part.min(whole) * most).checked_div(whole).unwrap_or(0)).unwrap_or(100)
        };
        if kind == TransferKind::Import {
            let (part, whole) = (&self.import.bytes, &self.import.total_bytes);
            return share(part.load(Relaxed), whole.load(Relaxed), READING);
        }
        let progress = self.export.lock().clone();
        progress.map_or(0, |it| share(it.keys_done.load(Relaxed), it.keys.load(Relaxed), 100))
    }

    fn stop(&self) {
        self.import.is_stopped.store(true, Relaxed);
        if let Some(progress) = &*self.export.lock() {
            progress.cancel();
        }
    }

    fn is_stopped(&self) -> bool {
        self.import.is_stopped.load(Relaxed)
    }
}

type Jobs = BTreeMap<DatabaseUid, Job>;

/// Goes on until the process ends.
pub async fn follow(member: Arc<Member>) {
    let mut states = member.control.subscribe();
    let mut jobs = Jobs::new();
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let is_busy = match member.control.node() {
            Some(node) => look(&member, &state, node, &mut jobs).await,
            None => false,
        };
        if is_busy {
            // Changes are many meanwhile, and of no interest by themselves.
            tokio::time::sleep(LOOK).await;
        } else if states.changed().await.is_err() {
            return;
        }
    }
}

/// Whether there is anything for this node to do.
async fn look(member: &Arc<Member>, state: &State, node: NodeUid, jobs: &mut Jobs) -> bool {
    let mut is_busy = false;
    // What is not wanted any more.
    jobs.retain(|uid, job| {
        let database = state.databases.get(uid);
        let current = database.and_then(|database| database.transfers.current());
        let is_wanted = current.is_some_and(|(_, transfer)| transfer.id.as_ref() == Some(&job.id))
            && database.is_some_and(|database| database.status != DatabaseStatus::DeletePending);
        if !is_wanted {
            job.shared.stop();
        }
        is_wanted
    });
    for database in state.databases.values() {
        let Some((kind, transfer)) = database.transfers.current() else { continue };
        let (Some(id), true) = (&transfer.id, transfer.node == Some(node)) else { continue };
        is_busy = true;
        let tell = |report| report_of(member, database.uid, kind, id, report);
        if let Some(job) = jobs.get(&database.uid) {
            let end = job.shared.end.lock().clone();
            let percent = job.shared.percent(kind);
            let is_told = match end {
                Some(Ok(())) => tell(TransferReport::Succeeded).await,
                Some(Err(why)) => tell(TransferReport::Failed(why)).await,
                None if percent != transfer.progress => {
                    tell(TransferReport::Progress(percent)).await;
                    false
                }
                None => false,
            };
            if is_told {
                jobs.remove(&database.uid);
            }
        } else if transfer.stage == TransferStage::Running {
            log::warning!("Database {}: {} was interrupted", database.uid, kind.name());
            remove_part(database, kind, transfer);
            tell(TransferReport::Failed("general-error".to_owned())).await;
        } else if let Some(here) = ready(member, database.uid)
            && tell(TransferReport::Begun).await
        {
            let job = begin(member, &here, database, kind, transfer, id);
            jobs.insert(database.uid, job);
        }
    }
    is_busy
}

/// Whether the state has it.
async fn report_of(
    member: &Member,
    database: DatabaseUid,
    kind: TransferKind,
    id: &ActionId,
    report: TransferReport,
) -> bool {
    let change = Change::ReportTransfer { database, kind, id: id.clone(), report };
    match member.control.change(change).await {
        Ok(_) => true,
        Err(error) => {
            log::debug!("What becomes of {} could not be told: {error}", kind.name());
            false
        }
    }
}

/// The database, if its data are all there.
fn ready(member: &Member, uid: DatabaseUid) -> Option<Arc<Database>> {
    let database = member.server.database(uid.0).ok()?;
    (database.stage.get() == Stage::Here && !database.loading.is_on()).then_some(database)
}

/// What another process has left behind.
fn remove_part(described: &Described, kind: TransferKind, transfer: &Transfer) {
    if kind != TransferKind::Import
        && let Some(location) = transfer.locations.first()
    {
        let name = transfer.file_name(kind, described.uid, &described.settings.name);
        let _ = std::fs::remove_file(snapshot::part(location.path(), &name));
    }
}

fn begin(
    member: &Arc<Member>,
    database: &Arc<Database>,
    described: &Described,
    kind: TransferKind,
    transfer: &Transfer,
    id: &ActionId,
) -> Job {
    let shared = Arc::new(Shared::default());
    let name = transfer.file_name(kind, described.uid, &described.settings.name);
    let paths: Vec<PathBuf> =
        transfer.locations.iter().map(|location| location.path().to_owned()).collect();
    let (of, member, database) = (Arc::clone(&shared), Arc::clone(member), Arc::clone(database));
    let work = move || {
        let uid = database.uid;
        let result = match kind {
            TransferKind::Import => take_in(&member, &database, &paths, &of),
            TransferKind::Export | TransferKind::Backup => write_out(&database, &paths, &name, &of),
        };
        match &result {
            Ok(()) => log::notice!("Database {uid}: {} succeeded", kind.name()),
            Err(why) => log::warning!("Database {uid}: {} failed: {why}", kind.name()),
        }
        *of.end.lock() = Some(result);
    };
    let spawned = std::thread::Builder::new().name(kind.name().to_owned()).spawn(work);
    if let Err(error) = spawned {
        log::warning!("Can't start a thread: {error}");
        *shared.end.lock() = Some(Err("general-error".to_owned()));
    }
    Job { id: id.clone(), shared }
}

fn write_out(
    database: &Arc<Database>,
    paths: &[PathBuf],
    name: &str,
    shared: &Shared,
) -> Result<(), String> {
    let folder = paths.first().ok_or("general-error")?;
    let begun = |progress: &Arc<_>| *shared.export.lock() = Some(Arc::clone(progress));
    snapshot::export(database, folder, name, begun, || shared.is_stopped()).map_err(|unwritten| {
        log::warning!("Database {}: {unwritten}", database.uid);
        let word = match unwritten {
            Unwritten::Cancelled => "general-error",
            Unwritten::File { source, .. } => word_of(source.kind(), "general-error"),
        };
        word.to_owned()
    })
}

fn take_in(
    member: &Arc<Member>,
    database: &Arc<Database>,
    paths: &[PathBuf],
    shared: &Shared,
) -> Result<(), String> {
    let server = &member.server;
    let progress = &shared.import;
    let loaded = import::read(database, paths, progress);
    let taken = loaded.and_then(|loaded| import::take_in(server, database, loaded, progress));
    let offset = taken.map_err(|refused| {
        log::warning!("Database {}: {refused}", database.uid);
        match refused {
            Refused::File { source, .. } => word_of(source.kind(), "download-error").to_owned(),
            Refused::Damaged { .. } | Refused::Functions(_) => "file-corrupted".to_owned(),
            Refused::TooLarge { bytes, limit } => {
                format!("file-larger-than-mem-limit:{bytes}:{limit}")
            }
            Refused::NotPrimary | Refused::Stopped => "general-error".to_owned(),
        }
    })?;
    keep(database, shared);
    reunite(member, database, offset, shared);
    Ok(())
}

/// Interfaces have a word for what is wrong with a path.
fn word_of(kind: ErrorKind, other: &'static str) -> &'static str {
    match kind {
        ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename => "wrong-file-path",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "no-permission",
        _ => other,
    }
}

/// Returns when what was imported is on the disk, if anything of the database is: until then the old data would be
/// back after a crash.
fn keep(database: &Arc<Database>, shared: &Shared) {
    let config = database.config();
    if config.appendonly {
        while !database.aof.is_complete() && !shared.is_stopped() && database.config().appendonly {
            std::thread::sleep(STEP);
        }
    } else if !config.save.is_empty() && snapshot::save(database).is_err() {
        log::warning!("Database {}: what was imported is not on the disk", database.uid);
    }
}

/// Returns when the replicas that are up have what was imported: one that has not would take its place with the old
/// data. One that does not come is not waited for for ever.
fn reunite(member: &Member, database: &Database, offset: u64, shared: &Shared) {
    let ends = Instant::now() + REUNION;
    let expected = || {
        let state = member.control.state();
        let described = state.databases.get(&DatabaseUid(database.uid));
        let is_up = |node: &&NodeUid| {
            state.nodes.get(*node).is_some_and(|node| node.status != NodeStatus::Down)
        };
        described.map_or(0, |it| it.placement.replicas.iter().filter(is_up).count())
    };
    let present = || {
        let replicas = database.replication.primary.list();
        let has_all = |replica: &&Arc<crate::replication::feed::Replica>| {
            replica.is_online() && offset <= replica.acknowledged()
        };
        replicas.iter().filter(has_all).count()
    };
    while present() < expected() && !shared.is_stopped() && !database.replication.is_replica() {
        if ends < Instant::now() {
            log::warning!("Database {}: replicas do not have the imported data yet", database.uid);
            return;
        }
        std::thread::sleep(STEP);
    }
}

//! Snapshots for others: written into a folder that an operator names, as a file that there was not before.
//!
//! Such a file is plain, whatever is set for the files of the database itself: it is there to be read elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Aux, Broken, Plan, Progress, Purpose, Snapshot, Synced};
use crate::database::Database;

/// For a snapshot of somebody who has not claimed it to end.
const STEP: Duration = Duration::from_millis(10);
/// Whoever may read the folder of a group may read what is put there.
const MODE: u32 = 0o640;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    #[error("it was given up")]
    Cancelled,
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// Writes all data of a database into a new file, and answers when that is on the disk. `begun` is told how far it is
/// seen to be. Until it is whole it has another name ([`part`]).
pub fn export(
    database: &Arc<Database>,
    folder: &Path,
    name: &str,
    begun: impl FnOnce(&Arc<Progress>),
    is_stopped: impl Fn() -> bool,
) -> Result<(), Unwritten> {
    let (path, temporary) = (folder.join(name), part(folder, name));
    let failed = |path: &Path, source| Unwritten::File { path: path.to_owned(), source };
    // Before anybody waits for a snapshot.
    if !fs::metadata(folder).map_err(|error| failed(folder, error))?.is_dir() {
        return Err(failed(folder, ErrorKind::NotADirectory.into()));
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary);
    let file = file.map_err(|error| failed(&temporary, error))?;
    let written = write(database, file, begun, is_stopped)
        .and_then(|()| put_in_place(&temporary, &path, folder).map_err(Broken::Write));
    written.map_err(|broken| {
        let _ = fs::remove_file(&temporary);
        match broken {
            Broken::Cancelled => Unwritten::Cancelled,
            Broken::Write(error) => failed(&path, error),
        }
    })
}

/// What a file is called that is not whole.
pub fn part(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.part"))
}

fn write(
    database: &Arc<Database>,
    file: File,
    begun: impl FnOnce(&Arc<Progress>),
    is_stopped: impl Fn() -> bool,
) -> Result<(), Broken> {
    let claim = loop {
        if is_stopped() {
            return Err(Broken::Cancelled);
        }
        match database.snapshots.claim(database, Purpose::Export) {
            Ok(claim) => break claim,
            Err(_) => std::thread::sleep(STEP),
        }
    };
    begun(&claim.progress);
    let plan = Plan::new(&database.config());
    let mut snapshot = loop {
        if is_stopped() || claim.progress.is_cancelled() {
            return Err(Broken::Cancelled);
        }
        // Another history begins with it, so it tells of none.
        let (access, progress) = (database.keyspace.lock_lazily(), Arc::clone(&claim.progress));
        match Snapshot::take(database, access, &plan, progress, Aux::new) {
            Ok(snapshot) => break snapshot,
            Err(_) => std::thread::sleep(STEP),
        }
    };
    let mut file = Synced::new(file, true);
    snapshot.write(&mut file)?;
    file.end().map_err(Broken::Write)
}

/// Never in the place of another file.
fn put_in_place(temporary: &Path, path: &Path, folder: &Path) -> io::Result<()> {
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            // A file system that does not know of it: the name is one that nobody else gives.
            match fs::symlink_metadata(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => fs::rename(temporary, path)?,
                Err(error) => return Err(error),
                Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
            }
        }
        renamed => renamed?,
    }
    // The name is on the disk when its folder is.
    File::open(folder)?.sync_all()
}

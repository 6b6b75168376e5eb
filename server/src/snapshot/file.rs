//! Snapshots as files: written beside, brought safely to the disk, and only then put in the place of the last one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use carnelian_persistence::seal::{Output, Policy};

use super::source::Broken;
use crate::listener::reason;
use crate::log;

/// With `rdb-save-incremental-fsync` and its like, so many bytes are brought to the disk at a time.
const SYNC_BYTES: usize = 4 << 20;

/// Where a snapshot goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// `dir`
    pub folder: PathBuf,
    /// `dbfilename`
    pub name: String,
    /// `rdb-save-incremental-fsync`
    pub sync_in_steps: bool,
}

/// The file was not replaced. The reason is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    Cancelled,
    Disk,
}

/// Has `fill` write a snapshot into its file. Whatever goes wrong, the file that was there stays. `kind`
/// tells those apart that may be written at the same time.
pub fn write(
    target: &Target,
    policy: &Policy,
    kind: &str,
    fill: impl FnOnce(&mut Output<Synced>) -> Result<(), Broken>,
) -> Result<(), Failed> {
    let Target { folder, name, .. } = target;
    let temporary_name = format!("temp-{kind}{}.rdb", std::process::id());
    let temporary = folder.join(&temporary_name);
    let file = File::create(&temporary).map_err(|error| {
        log::warning!(
            "Failed opening the temp RDB file {temporary_name} (in server root dir {}) for saving: {}",
            folder.display(),
            reason(&error)
        );
        Failed::Disk
    })?;
    let file = Synced::new(file, target.sync_in_steps);
    let written = policy.create(file).map_err(Broken::Write).and_then(|mut output| {
        fill(&mut output)?;
        let file = output.finish().map_err(Broken::Write)?;
        file.end().map_err(Broken::Write)
    });
    let result = match written {
        Err(Broken::Cancelled) => Err(Failed::Cancelled),
        Err(Broken::Write(error)) => {
            log::warning!("Write error while saving DB to the disk: {}", reason(&error));
            Err(Failed::Disk)
        }
        Ok(()) => put_in_place(&temporary, folder, name).map_err(|error| {
            log::warning!(
                "Error moving temp DB file {temporary_name} on the final destination {name} (in \
                 server root dir {}): {}",
                folder.display(),
                reason(&error)
            );
            Failed::Disk
        }),
    };
    if result.is_err() {
        // It may be gone with its folder.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn put_in_place(temporary: &Path, folder: &Path, name: &str) -> io::Result<()> {
    fs::rename(temporary, folder.join(name))?;
    // The name is on the disk when its folder is.
    File::open(folder)?.sync_all()
}

/// A file that is brought to the disk while it grows, so that it need not go there all at once.
pub struct Synced {
    file: File,
    unsynced: usize,
    every: usize,
}

impl Synced {
    pub fn new(file: File, in_steps: bool) -> Self {
        Self { file, unsynced: 0, every: if in_steps { SYNC_BYTES } else { usize::MAX } }
    }

    /// Brings all of it to the disk.
    pub fn end(self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.unsynced += count;
        if self.every <= self.unsynced {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

//! The folder with the server's files, and what happens to it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Room on the small disk: for two copies of the data and what is appended meanwhile.
const SMALL: &str = "size=48m";

pub struct Disk {
    folder: TempDir,
    is_mounted: bool,
}

impl Disk {
    /// A folder; on a small disk of its own if that is to be filled.
    pub fn new(is_small: bool) -> Result<Self> {
        let folder = TempDir::with_prefix("carnelian-crash-")?;
        if is_small {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", SMALL, "tmpfs"]).arg(folder.path());
            ensure!(mount.status()?.success(), "a disk can only be mounted by root");
        }
        Ok(Self { folder, is_mounted: is_small })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the files where they are.
    pub fn keep(mut self) -> PathBuf {
        self.is_mounted = false;
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Takes all the room there is.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler())?;
        let mut size = 1 << 20;
        while 0 < size {
            if file.write_all(&vec![0; size]).is_err() {
                size /= 2;
            }
        }
        Ok(())
    }

    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("removing what fills the disk")
    }

    fn filler(&self) -> PathBuf {
        self.folder().join("filler")
    }

    /// Cuts some of the last bytes of the append-only file that was written last; how many it were.
    pub fn tear_newest(&self, bytes: u64) -> Result<u64> {
        let mut newest: Option<(u64, PathBuf)> = None;
        for entry in fs::read_dir(self.folder().join("appendonlydir"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let number = name.strip_suffix(".incr.aof").and_then(|name| name.rsplit('.').next());
            let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
            if newest.as_ref().is_none_or(|(known, _)| *known < number) {
                newest = Some((number, path));
            }
        }
        let (_, path) = newest.context("there is no append-only file")?;
        let file = File::options().write(true).open(path)?;
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(bytes))?;
        Ok(length.min(bytes))
    }

    /// What a killed child of a forking server leaves; such servers do not look for it.
    pub fn remove_leftovers(&self) -> Result<()> {
        for folder in [self.folder().to_owned(), self.folder().join("appendonlydir")] {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("temp-"))
                {
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // At once gone from here, and from the system when the last file is closed.
            let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        }
    }
}

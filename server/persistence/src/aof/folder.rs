//! The folder of the append-only file: its manifest on disk, new files, and the removal of old ones.
//!
//! A manifest is replaced as a whole: written beside the old one, flushed, renamed over it, and the
//! folder flushed. So at any moment the manifest on disk names files that together are all the data;
//! what a crash leaves beside them is overwritten or removed later.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::load::LoadError;
use super::manifest::{BaseFormat, Entry, Manifest, ManifestError};
use super::medium::Medium;
use super::{FileError, Level, Tell, reason};
use crate::seal::{self, Policy, SealError};

/// An append-only file on disk. Shared by the thread that appends and the one that rewrites.
#[derive(Debug)]
pub struct Folder {
    /// `dir`: where the folder is, and where a file of a single part would be.
    parent: PathBuf,
    /// `appenddirname`
    name: String,
    /// `appendfilename`: what the names of all files begin with.
    stem: String,
    manifest: Mutex<Manifest>,
    /// Not `aof-disable-auto-gc`.
    removes_history: AtomicBool,
    /// Bytes of all files, and of the base as it was when it was made or loaded.
    bytes: AtomicU64,
    base_bytes: AtomicU64,
    /// Bytes of the incremental file that is written.
    incr_bytes: AtomicU64,
    /// Which files are sealed.
    policy: Policy,
}

/// An incremental file, open for appending.
#[derive(Debug)]
pub struct Incr {
    pub file: Arc<dyn Medium>,
    pub bytes: u64,
    /// 0: a file that is in no manifest yet, see [`Folder::create_temporary_incr`].
    pub sequence: i64,
    /// Seals what is appended, if the file is a sealed one.
    pub seal: Option<seal::Appender>,
}

/// What a new base does not hold, and so remains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The incremental files from this number on.
    From(i64),
    /// The temporary one, which becomes an incremental file now.
    TemporaryIncr,
    /// Nothing: nobody appends.
    Nothing,
}

impl Incr {
    /// A file that is not sealed, and has nothing in it.
    #[cfg(test)]
    pub(super) fn plain(file: impl Medium + 'static) -> Self {
        Self { file: Arc::new(file), bytes: 0, sequence: 1, seal: None }
    }
}

impl Folder {
    /// Reads the manifest, if there is one.
    pub fn open(parent: &Path, name: &str, stem: &str, tell: Tell<'_>) -> Result<Self, OpenError> {
        let mut folder = Self {
            parent: parent.to_owned(),
            name: name.to_owned(),
            stem: stem.to_owned(),
            manifest: Mutex::default(),
            removes_history: AtomicBool::new(true),
            bytes: AtomicU64::new(0),
            base_bytes: AtomicU64::new(0),
            incr_bytes: AtomicU64::new(0),
            policy: Policy::new(parent.join("at-rest.key"), false),
        };
        let path = folder.path().join(folder.manifest_name());
        if !folder.path().is_dir() {
            tell(Level::Debug, &format!("The AOF directory {name} doesn't exist"));
        } else if !path.exists() {
            let name = folder.manifest_name();
            tell(Level::Debug, &format!("The AOF manifest file {name} doesn't exist"));
        } else {
            folder.manifest = Mutex::new(read_manifest(&path)?);
        }
        Ok(folder)
    }

    /// Seals files from now on, or opens them, as a policy says.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where the files are.
    pub fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    pub fn path_of(&self, entry: &Entry) -> PathBuf {
        self.path().join(OsStr::from_bytes(&entry.name))
    }

    /// `appendfilename`
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The manifest as it is now.
    pub fn manifest(&self) -> Manifest {
        self.lock().clone()
    }

    /// Whether files of the past are removed once a base makes them superfluous.
    pub fn set_removes_history(&self, removes: bool) {
        self.removes_history.store(removes, Ordering::Relaxed);
    }

    /// `aof_current_size`
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// `aof_base_size`
    pub fn base_bytes(&self) -> u64 {
        self.base_bytes.load(Ordering::Relaxed)
    }

    /// Where the data of a new base is written to by process `pid`, until [`Self::install_base`].
    pub fn temporary_base(&self, pid: u32) -> PathBuf {
        self.parent.join(format!("temp-rewriteaof-bg-{pid}.aof"))
    }

    pub fn create(&self) -> Result<(), FileError> {
        let made = DirBuilder::new().mode(0o755).create(self.path());
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Err(_) if !self.path().is_dir() => Err(io::Error::from_raw_os_error(20)), // ENOTDIR
            _ => Ok(()),
        }
        .map_err(FileError::new(format!("Can't open or create append-only dir {}", self.name)))
    }

    /// Takes over an append-only file of a single part, as Redis had it before version 7.
    ///
    /// A crash at any point leaves what the next start continues from.
    pub fn migrate(&self, tell: Tell<'_>) -> Result<(), FileError> {
        let old = self.parent.join(&self.stem);
        let new = self.path().join(&self.stem);
        let mut manifest = self.lock();
        let was_interrupted = manifest.incr().is_empty()
            && manifest.base().is_some_and(|base| base.name == self.stem.as_bytes())
            && !new.exists();
        let is_due = !self.path().is_dir() || manifest.is_empty() || was_interrupted;
        if !old.exists() || !is_due {
            return Ok(());
        }
        self.create()?;
        let adopted = Manifest::adopt(&self.stem);
        self.persist(&adopted)?;
        fs::rename(&old, &new).map_err(FileError::new(format!(
            "Error trying to move the old AOF file {} into dir {}",
            self.stem, self.name
        )))?;
        *manifest = adopted;
        let text = format!(
            "Successfully migrated an old-style AOF file ({}) into the AOF directory ({}).",
            self.stem, self.name
        );
        tell(Level::Notice, &text);
        Ok(())
    }

    /// Removes what an earlier process that did not get to its end left half-made.
    pub fn remove_temporary(&self, tell: Tell<'_>) {
        self.remove_temporary_incr(tell);
        let _ = fs::remove_file(self.path().join(self.temporary_manifest_name()));
        let Ok(files) = fs::read_dir(&self.parent) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            if maker_of(name).is_some_and(|pid| !is_alive(pid)) {
                tell(Level::Notice, &format!("Removing the temp AOF file {name}"));
                let _ = fs::remove_file(file.path());
            }
        }
    }

    /// Removes the file of a rewrite that was to begin a new append-only file and did not succeed.
    pub fn remove_temporary_incr(&self, tell: Tell<'_>) {
        let name = self.temporary_incr_name();
        let path = self.path().join(&name);
        if path.exists() {
            tell(
                Level::Notice,
                &format!("Removing the temp incr aof file {name} in the background"),
            );
            let _ = fs::remove_file(path);
        }
    }

    /// Bytes of all files that hold data. A file that is missing or cannot be read is an error.
    pub fn measure(&self) -> Result<u64, LoadError> {
        let manifest = self.lock();
        let mut total = 0;
        for entry in manifest.live() {
            let size = fs::metadata(self.path_of(entry)).map_err(|source| {
                let what = format!("Unable to obtain the AOF file {} length. stat", entry.shown());
                LoadError::Unusable(FileError { what, source })
            })?;
            total += size.len();
            if entry.kind == super::Kind::Base {
                self.base_bytes.store(size.len(), Ordering::Relaxed);
            }
        }
        self.bytes.store(total, Ordering::Relaxed);
        Ok(total)
    }

    /// Opens the last incremental file to go on with it, or the first one. One that is sealed, where
    /// new ones are not, or the reverse, is followed by another.
    pub fn continue_incr(&self, tell: Tell<'_>) -> Result<Incr, FileError> {
        let mut manifest = self.lock();
        let mut next = manifest.clone();
        let last = next.incr().last().cloned();
        if let Some(last) = last
            && let Some(incr) =
                self.go_on_with(&last).map_err(FileError::new(cannot_open(&last.shown())))?
        {
            self.incr_bytes.store(incr.bytes, Ordering::Relaxed);
            tell(Level::Notice, &format!("Opening AOF incr file {} on server start", last.shown()));
            return Ok(incr);
        }
        let entry = next.add_incr(&self.stem).clone();
        let incr = self.begin(&entry.name, entry.sequence)?;
        self.persist(&next)?;
        *manifest = next;
        self.incr_bytes.store(incr.bytes, Ordering::Relaxed);
        tell(Level::Notice, &format!("Creating AOF incr file {} on server start", entry.shown()));
        Ok(incr)
    }

    /// Makes the next incremental file; on return the manifest on disk has it.
    pub(super) fn create_incr(&self, tell: Tell<'_>) -> Result<Incr, FileError> {
        let mut manifest = self.lock();
        let mut next = manifest.clone();
        let entry = next.add_incr(&self.stem).clone();
        let incr = self.begin(&entry.name, entry.sequence)?;
        self.persist(&next)?;
        *manifest = next;
        self.incr_bytes.store(incr.bytes, Ordering::Relaxed);
        tell(
            Level::Notice,
            &format!("Creating AOF incr file {} on background rewrite", entry.shown()),
        );
        Ok(incr)
    }

    /// Makes a file for the effects since a cut, until the base of that cut is there. It is in no
    /// manifest: without the base it would be of no use.
    pub fn create_temporary_incr(&self, tell: Tell<'_>) -> Result<Incr, FileError> {
        self.create()?;
        let name = self.temporary_incr_name();
        let incr = self.begin(name.as_bytes(), 0)?;
        self.incr_bytes.store(incr.bytes, Ordering::Relaxed);
        tell(Level::Notice, &format!("Creating AOF incr file {name} on background rewrite"));
        Ok(incr)
    }

    /// Begins an incremental file. What a crash has left under its name does not count.
    fn begin(&self, name: &[u8], sequence: i64) -> Result<Incr, FileError> {
        let mut file = self.open_for_appending(name, true)?;
        let mut header = Vec::new();
        let seal = self.policy.create_growing(&mut header).and_then(|seal| {
            file.write_all(&header)?;
            Ok(seal)
        });
        let what = cannot_open(&String::from_utf8_lossy(name));
        let seal = seal.map_err(FileError::new(what))?;
        self.bytes.fetch_add(header.len() as u64, Ordering::Relaxed);
        Ok(Incr { file: Arc::new(file), bytes: header.len() as u64, sequence, seal })
    }

    /// Opens an incremental file, unless another has to follow it.
    fn go_on_with(&self, entry: &Entry) -> io::Result<Option<Incr>> {
        let path = self.path_of(entry);
        let is_sealed = path.exists() && seal::is_sealed_file(&path)?;
        let mut seal = None;
        if is_sealed {
            let appender = match self.policy.cut(&path, None) {
                Ok(appender) => appender,
                Err(error) if SealError::of(&error) == Some(&SealError::NotGrowing) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            seal = Some(appender);
        }
        if !is_sealed && self.policy.seals() {
            return Ok(None);
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
        if let Some(seal) = &mut seal
            && !self.policy.seals()
        {
            let mut last = Vec::new();
            seal.finish(&mut last)?;
            file.write_all(&last)?;
            file.sync_data()?;
            return Ok(None);
        }
        let bytes = file.metadata()?.len();
        Ok(Some(Incr { file: Arc::new(file), bytes, sequence: entry.sequence, seal }))
    }

    /// Makes the finished file at `temporary` the base. What it makes superfluous becomes history
    /// and is removed. Returns the name of the base.
    ///
    /// The file has to be flushed to disk already.
    pub fn install_base(
        &self,
        temporary: &Path,
        format: BaseFormat,
        keep: Keep,
        tell: Tell<'_>,
    ) -> Result<String, FileError> {
        let mut manifest = self.lock();
        let mut next = manifest.clone();
        let base = next.add_base(&self.stem, format).clone();
        let path = self.path_of(&base);
        let size = fs::metadata(temporary).map_or(0, |data| data.len());
        rename_over(temporary, &path, &base.shown(), "base", tell)?;
        let mut moved_incr = None;
        let first_kept = match keep {
            Keep::From(sequence) => sequence,
            Keep::Nothing => i64::MAX,
            Keep::TemporaryIncr => {
                let entry = next.add_incr(&self.stem).clone();
                let from = self.path().join(self.temporary_incr_name());
                let to = self.path_of(&entry);
                if let Err(error) = rename_over(&from, &to, &entry.shown(), "incr", tell) {
                    let _ = fs::remove_file(&path);
                    return Err(error);
                }
                moved_incr = Some((from, to));
                entry.sequence
            }
        };
        next.retire_incr_before(first_kept);
        if let Err(error) = self.persist(&next) {
            let _ = fs::remove_file(&path);
            if let Some((from, to)) = moved_incr {
                let _ = fs::rename(to, from);
            }
            return Err(error);
        }
        *manifest = next;
        let incr_bytes =
            if keep == Keep::Nothing { 0 } else { self.incr_bytes.load(Ordering::Relaxed) };
        self.bytes.store(size + incr_bytes, Ordering::Relaxed);
        self.base_bytes.store(size + incr_bytes, Ordering::Relaxed);
        self.remove_history_of(&mut manifest, tell);
        Ok(base.shown())
    }

    /// Removes files that only wait to be deleted. What cannot be removed does no harm.
    pub fn remove_history(&self, tell: Tell<'_>) {
        self.remove_history_of(&mut self.lock(), tell);
    }

    fn remove_history_of(&self, manifest: &mut Manifest, tell: Tell<'_>) {
        if !self.removes_history.load(Ordering::Relaxed) || manifest.history().is_empty() {
            return;
        }
        for entry in manifest.take_history() {
            let name = entry.shown();
            tell(Level::Notice, &format!("Removing the history file {name} in the background"));
            let _ = fs::remove_file(self.path_of(&entry));
        }
        if let Err(error) = self.persist(manifest) {
            tell(Level::Warning, &error.to_string());
        }
    }

    /// Books bytes that were written to the current incremental file.
    pub(super) fn grow(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.incr_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn open_for_appending(&self, name: &[u8], truncates: bool) -> Result<File, FileError> {
        let path = self.path().join(OsStr::from_bytes(name));
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        let emptied = file.and_then(|file| {
            if truncates {
                file.set_len(0)?;
            }
            Ok(file)
        });
        emptied.map_err(FileError::new(cannot_open(&String::from_utf8_lossy(name))))
    }

    fn persist(&self, manifest: &Manifest) -> Result<(), FileError> {
        let name = self.manifest_name();
        let temporary_name = self.temporary_manifest_name();
        let temporary = self.path().join(&temporary_name);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&temporary)
            .map_err(FileError::new(format!(
                "Can't open the AOF manifest file {temporary_name}"
            )))?;
        file.write_all(&manifest.to_bytes()).map_err(FileError::new(format!(
            "Error trying to write the temporary AOF manifest file {temporary_name}"
        )))?;
        file.sync_data()
            .map_err(FileError::new(format!("Fail to fsync the temp AOF file {temporary_name}")))?;
        fs::rename(&temporary, self.path().join(&name)).map_err(FileError::new(format!(
            "Error trying to rename the temporary AOF manifest file {temporary_name} into {name}"
        )))?;
        File::open(self.path()).and_then(|folder| folder.sync_all()).map_err(FileError::new(
            format!("Fail to fsync AOF directory {}", self.path().display()),
        ))
    }

    fn manifest_name(&self) -> String {
        format!("{}.manifest", self.stem)
    }

    fn temporary_manifest_name(&self) -> String {
        format!("temp-{}.manifest", self.stem)
    }

    fn temporary_incr_name(&self) -> String {
        format!("temp-{}.incr", self.stem)
    }

    fn lock(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a manifest on its own, as `redis-check-aof` does, too.
pub(super) fn read_manifest(path: &Path) -> Result<Manifest, OpenError> {
    let text = fs::read(path).map_err(|source| {
        let shown = path.display();
        let what = format!("Fatal error: can't open the AOF manifest file {shown} for reading");
        OpenError::Unreadable(FileError { what, source })
    })?;
    Ok(Manifest::parse(&text)?)
}

/// Why an append-only file cannot even be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Unreadable(#[from] FileError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl OpenError {
    /// The lines for the log.
    pub fn report(&self) -> Vec<String> {
        match self {
            Self::Unreadable(error) => vec![error.to_string()],
            Self::Manifest(error) => error.report(),
        }
    }
}

fn rename_over(
    from: &Path,
    to: &Path,
    name: &str,
    what: &str,
    tell: Tell<'_>,
) -> Result<(), FileError> {
    let from_name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::rename(from, to).map_err(FileError::new(format!(
        "Error trying to rename the temporary AOF {what} file {from_name} into {}",
        to.display()
    )))?;
    let text =
        format!("Successfully renamed the temporary AOF {what} file {from_name} into {name}");
    tell(Level::Notice, &text);
    Ok(())
}

fn cannot_open(name: &str) -> String {
    format!("Can't open the append-only file {name}")
}

/// The process that wrote a base under this temporary name.
fn maker_of(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("temp-rewriteaof-")?.strip_suffix(".aof")?;
    rest.strip_prefix("bg-").unwrap_or(rest).parse().ok()
}

/// Whether a process runs: another server may share the folder. Where that cannot be told, it does.
fn is_alive(pid: u32) -> bool {
    let own = pid == std::process::id();
    let processes = Path::new("/proc");
    !own && (!processes.join("self").exists() || processes.join(pid.to_string()).exists())
}

/// The text of an error, for callers that only log.
impl From<FileError> for String {
    fn from(error: FileError) -> Self {
        format!("{}: {}", error.what, reason(&error.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(_: Level, _: &str) {}

    fn open(parent: &Path) -> Folder {
        Folder::open(parent, "appendonlydir", "a.aof", &quiet).unwrap()
    }

    fn manifest_text(parent: &Path) -> String {
        fs::read_to_string(parent.join("appendonlydir/a.aof.manifest")).unwrap()
    }

    #[test]
    fn a_first_start_makes_base_and_incr() {
        let parent = tempfile::tempdir().unwrap();
        let folder = open(parent.path());
        folder.create().unwrap();
        let temporary = folder.temporary_base(1);
        fs::write(&temporary, "REDIS").unwrap();
        folder.install_base(&temporary, BaseFormat::Rdb, Keep::Nothing, &quiet).unwrap();
        let incr = folder.continue_incr(&quiet).unwrap();
        assert_eq!((incr.sequence, incr.bytes), (1, 0));
        assert_eq!(
            manifest_text(parent.path()),
            "file a.aof.1.base.rdb seq 1 type b\nfile a.aof.1.incr.aof seq 1 type i\n"
        );
        incr.file.write_vectored(&[io::IoSlice::new(b"12345")]).unwrap();
        assert_eq!(open(parent.path()).continue_incr(&quiet).unwrap().bytes, 5);
        assert_eq!(open(parent.path()).measure().unwrap(), 10);
    }

    #[test]
    fn a_rewrite_removes_what_the_base_holds() {
        let parent = tempfile::tempdir().unwrap();
        let folder = open(parent.path());
        folder.create().unwrap();
        folder.continue_incr(&quiet).unwrap();
        let kept = folder.create_incr(&quiet).unwrap();
        folder.grow(7);
        fs::write(folder.temporary_base(1), "REDIS").unwrap();
        let keep = Keep::From(kept.sequence);
        folder.install_base(&folder.temporary_base(1), BaseFormat::Aof, keep, &quiet).unwrap();
        assert_eq!(
            manifest_text(parent.path()),
            "file a.aof.1.base.aof seq 1 type b\nfile a.aof.2.incr.aof seq 2 type i\n"
        );
        assert!(!folder.path().join("a.aof.1.incr.aof").exists());
        assert_eq!((folder.bytes(), folder.base_bytes()), (12, 12));
    }

    #[test]
    fn history_stays_where_it_is_not_to_be_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = open(parent.path());
        folder.create().unwrap();
        folder.set_removes_history(false);
        folder.continue_incr(&quiet).unwrap();
        fs::write(folder.temporary_base(1), "REDIS").unwrap();
        let keep = Keep::Nothing;
        folder.install_base(&folder.temporary_base(1), BaseFormat::Aof, keep, &quiet).unwrap();
        assert!(folder.path().join("a.aof.1.incr.aof").exists());
        assert!(manifest_text(parent.path()).contains("a.aof.1.incr.aof seq 1 type h"));
        folder.set_removes_history(true);
        folder.remove_history(&quiet);
        assert!(!folder.path().join("a.aof.1.incr.aof").exists());
        assert!(!manifest_text(parent.path()).contains("type h"));
    }

    #[test]
    fn an_old_file_of_a_single_part_is_taken_over() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("a.aof"), "*1\r\n$4\r\nPING\r\n").unwrap();
        open(parent.path()).migrate(&quiet).unwrap();
        assert_eq!(manifest_text(parent.path()), "file a.aof seq 1 type b\n");
        assert!(parent.path().join("appendonlydir/a.aof").exists());
        assert!(!parent.path().join("a.aof").exists());

        // Interrupted after the manifest: the next start goes on.
        fs::rename(parent.path().join("appendonlydir/a.aof"), parent.path().join("a.aof")).unwrap();
        open(parent.path()).migrate(&quiet).unwrap();
        assert!(parent.path().join("appendonlydir/a.aof").exists());

        // A newer append-only file is not overwritten by one that turns up.
        fs::write(parent.path().join("a.aof"), "old").unwrap();
        open(parent.path()).migrate(&quiet).unwrap();
        assert!(parent.path().join("a.aof").exists());
    }

    #[test]
    fn an_append_only_file_begun_at_run_time_replaces_all_that_was() {
        let parent = tempfile::tempdir().unwrap();
        let folder = open(parent.path());
        folder.create().unwrap();
        folder.continue_incr(&quiet).unwrap();
        folder.create_temporary_incr(&quiet).unwrap();
        fs::write(folder.temporary_base(1), "REDIS").unwrap();
        let keep = Keep::TemporaryIncr;
        folder.install_base(&folder.temporary_base(1), BaseFormat::Rdb, keep, &quiet).unwrap();
        assert_eq!(
            manifest_text(parent.path()),
            "file a.aof.1.base.rdb seq 1 type b\nfile a.aof.2.incr.aof seq 2 type i\n"
        );
    }

    #[test]
    fn half_made_files_are_removed_at_a_start() {
        let parent = tempfile::tempdir().unwrap();
        let folder = open(parent.path());
        folder.create_temporary_incr(&quiet).unwrap();
        let dead = parent.path().join("temp-rewriteaof-bg-4194999.aof");
        let alive = parent.path().join("temp-rewriteaof-bg-1.aof");
        fs::write(&dead, "").unwrap();
        fs::write(&alive, "").unwrap();
        folder.remove_temporary(&quiet);
        assert!(!dead.exists() && alive.exists());
        assert!(!folder.path().join("temp-a.aof.incr").exists());
    }

    #[test]
    fn errors_name_what_failed_as_redis_does() {
        let parent = tempfile::tempdir().unwrap();
        let folder = open(&parent.path().join("missing"));
        let error = folder.create().unwrap_err();
        assert_eq!(
            error.to_string(),
            "Can't open or create append-only dir appendonlydir: No such file or directory"
        );
    }
}

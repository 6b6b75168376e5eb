//! Reading all files of an append-only file back, in order.
//!
//! Only the last file may end too early, and only where `aof-load-truncated` allows it: the torn end
//! is then cut off. Everything else ends the loading, with a line for the log that says where.

use std::fs::{self, OpenOptions};
use std::io;
use std::time::Instant;

use super::folder::Folder;
use super::input::Input;
use super::manifest::Entry;
use super::reader::{self, Preamble, Replay, Stop};
use super::{FileError, Level, Tell, reason};
use crate::seal::{self, Ending};

/// What was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// There is no append-only file.
    Nothing,
    /// There is one, without a byte in it.
    Empty,
    /// All of it.
    Whole,
    /// All but a torn end, which was cut off.
    Truncated,
}

/// Why loading failed. What was read until then is no state the data ever had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that the manifest names is missing, or cannot be opened.
    #[error("{0}")]
    Unusable(#[source] FileError),
    /// What is wrong was told to the log already.
    #[error("the append only file {0} can't be loaded")]
    Failed(String),
}

/// Reads all files back through `replay`. To be called after [`Folder::migrate`].
pub fn load(
    folder: &Folder,
    may_truncate: bool,
    replay: &mut dyn Replay,
    began: &mut dyn FnMut(&str),
    tell: Tell<'_>,
) -> Result<Loaded, LoadError> {
    let manifest = folder.manifest();
    if manifest.is_empty() {
        return Ok(Loaded::Nothing);
    }
    if folder.measure()? == 0 {
        return Ok(Loaded::Empty);
    }
    let files: Vec<&Entry> = manifest.live().collect();
    let mut is_truncated = false;
    for (place, entry) in files.iter().enumerate() {
        began(&entry.shown());
        let is_last = place + 1 == files.len();
        is_truncated =
            One { folder, entry, is_last, may_truncate, tell }.load(replay)? || is_truncated;
    }
    Ok(if is_truncated { Loaded::Truncated } else { Loaded::Whole })
}

/// One of the files.
struct One<'a> {
    folder: &'a Folder,
    entry: &'a Entry,
    is_last: bool,
    may_truncate: bool,
    tell: Tell<'a>,
}

impl One<'_> {
    /// Whether its torn end was cut off.
    fn load(&self, replay: &mut dyn Replay) -> Result<bool, LoadError> {
        let began = now();
        let name = self.entry.shown();
        let path = self.folder.path_of(self.entry);
        let mut input = Input::open_either(&path, self.folder.policy()).map_err(|source| {
            let what = match source.kind() {
                io::ErrorKind::NotFound => format!("The append log file {name} doesn't exist"),
                _ => format!("Fatal error: can't open the append log file {name} for reading"),
            };
            LoadError::Unusable(FileError { what, source })
        })?;
        let is_old = self.entry.name == self.folder.stem().as_bytes();
        let note = |preamble| match (preamble, is_old) {
            (Preamble::Begins, true) => {
                self.notice("Reading RDB preamble from AOF file...");
            }
            (Preamble::Begins, false) => {
                self.notice("Reading RDB base file on AOF loading...");
            }
            (Preamble::Ended, true) => self.notice("Reading the remaining AOF tail..."),
            (Preamble::Ended, false) => {}
        };
        let read = reader::read(&mut input, replay, note).and_then(|()| self.check_end(&input));
        let is_truncated = match read {
            Ok(()) => false,
            Err(stop) => {
                self.settle(&stop).map_err(|()| LoadError::Failed(name.clone()))?;
                true
            }
        };
        let kind = if self.entry.kind == super::Kind::Base { "base" } else { "incr" };
        let seconds = began.elapsed().as_secs_f32();
        self.notice(&format!("DB loaded from {kind} file {name}: {seconds:.3} seconds"));
        Ok(is_truncated)
    }

    /// What only the seal of a file tells: whether its content is all there.
    fn check_end(&self, input: &Input) -> Result<(), Stop> {
        match input.ending() {
            Some(Ending::Torn { .. }) => {
                Err(Stop::Short { valid: input.offset(), within_transaction: false })
            }
            Some(Ending::Open) if !self.is_last => Err(Stop::Damage {
                at: input.offset(),
                reason: "its end is missing, which the seal of a finished file has".into(),
            }),
            _ => Ok(()),
        }
    }

    /// Cuts off a torn end, or says why the file cannot be loaded.
    fn settle(&self, stop: &Stop) -> Result<(), ()> {
        let name = self.entry.shown();
        match stop {
            Stop::Short { valid, within_transaction } => {
                if *within_transaction {
                    self.warn(&format!(
                        "Revert incomplete MULTI/EXEC transaction in AOF file {name}"
                    ));
                }
                return self.truncate(&name, *valid);
            }
            Stop::Damage { at, reason } => {
                self.warn(&format!("AOF {name} is damaged at offset {at}: {reason}"));
                self.warn(&format!(
                    "Bad file format reading the append only file {name}: make a backup of your \
                     AOF file, then use ./redis-check-aof --fix <filename.manifest>"
                ));
            }
            Stop::Unreadable(error) => self.warn(&format!(
                "Unrecoverable error reading the append only file {name}: {}",
                reason(error)
            )),
            Stop::Snapshot(error) => {
                self.warn(error);
                let what = match self.entry.name == self.folder.stem().as_bytes() {
                    true => "RDB preamble of the AOF",
                    false => "RDB base",
                };
                self.warn(&format!("Error reading the {what} file {name}, AOF loading aborted"));
            }
            Stop::Refused { at, reason } => {
                self.warn(&format!("{reason} reading the append only file {name}, offset {at}"));
            }
        }
        Err(())
    }

    fn truncate(&self, name: &str, valid: u64) -> Result<(), ()> {
        if self.may_truncate && self.is_last {
            self.warn(&format!("!!! Warning: short read while loading the AOF file {name}!!!"));
            self.warn(&format!("!!! Truncating the AOF {name} at offset {valid} !!!"));
            match self.cut(valid) {
                Ok(()) => {
                    self.warn(&format!(
                        "AOF {name} loaded anyway because aof-load-truncated is enabled"
                    ));
                    return Ok(());
                }
                Err(error) => {
                    self.warn(&format!("Error truncating the AOF file {name}: {}", reason(&error)));
                }
            }
        } else if self.may_truncate {
            let size = fs::metadata(self.folder.path_of(self.entry)).map_or(0, |data| data.len());
            self.warn(&format!("AOF {name} is whole up to offset {valid} of {size} bytes only"));
            self.warn("Fatal error: the truncated file is not the last file");
            return Err(());
        }
        self.warn(&format!(
            "Unexpected end of file reading the append only file {name}. You can: 1) Make a backup \
             of your AOF file, then use ./redis-check-aof --fix <filename.manifest>. 2) \
             Alternatively you can set the 'aof-load-truncated' configuration option to yes and \
             restart the server."
        ));
        Err(())
    }

    fn cut(&self, valid: u64) -> io::Result<()> {
        let path = self.folder.path_of(self.entry);
        if seal::is_sealed_file(&path)? {
            return self.folder.policy().cut(&path, Some(valid)).map(drop);
        }
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(valid)?;
        file.sync_data()
    }

    fn warn(&self, text: &str) {
        (self.tell)(Level::Warning, text);
    }

    fn notice(&self, text: &str) {
        (self.tell)(Level::Notice, text);
    }
}

fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use super::super::Commands;
    use super::super::reader::tests::{Notes, resp};
    use super::*;

    struct Case {
        parent: tempfile::TempDir,
        log: Mutex<Vec<String>>,
        commands: Vec<String>,
    }

    impl Case {
        fn new(files: &[(&str, Vec<u8>)], manifest: &str) -> Self {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join("d");
            fs::create_dir(&folder).unwrap();
            for (name, bytes) in files {
                fs::write(folder.join(name), bytes).unwrap();
            }
            fs::write(folder.join("a.manifest"), manifest).unwrap();
            Self { parent, log: Mutex::default(), commands: Vec::new() }
        }

        fn load(&mut self, may_truncate: bool) -> Result<Loaded, LoadError> {
            let tell = |_, text: &str| self.log.lock().unwrap().push(text.to_owned());
            let folder = Folder::open(self.parent.path(), "d", "a", &tell).unwrap();
            let mut notes = Notes::default();
            let loaded = load(&folder, may_truncate, &mut notes, &mut |_| {}, &tell);
            self.commands = notes.commands;
            loaded
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            Path::new(self.parent.path()).join("d").join(name)
        }

        fn logged(&self, text: &str) -> bool {
            self.log.lock().unwrap().iter().any(|line| line.contains(text))
        }
    }

    const TWO: &str = "file 1.aof seq 1 type i\nfile 2.aof seq 2 type i\n";

    #[test]
    fn files_are_read_in_order() {
        let manifest = "file b seq 1 type b\nfile h seq 1 type h\nfile i seq 2 type i\n";
        let files = [("b", resp(&["set a 1"])), ("h", vec![]), ("i", resp(&["set a 2"]))];
        let mut case = Case::new(&files, manifest);
        assert_eq!(case.load(true).unwrap(), Loaded::Whole);
        assert_eq!(case.commands, ["set a 1", "set a 2"]);
        assert!(case.logged("DB loaded from base file b: ") && case.logged("incr file i: 0.0"));
    }

    #[test]
    fn nothing_and_empty_files_are_told_apart() {
        assert_eq!(Case::new(&[], "#\n").load(true).unwrap(), Loaded::Nothing);
        let mut case = Case::new(&[("1.aof", vec![]), ("2.aof", vec![])], TWO);
        assert_eq!(case.load(true).unwrap(), Loaded::Empty);
    }

    #[test]
    fn a_torn_end_of_the_last_file_is_cut_off() {
        let mut torn = resp(&["set a 1", "set b 2"]);
        torn.truncate(30);
        let mut case = Case::new(&[("1.aof", vec![]), ("2.aof", torn)], TWO);
        assert!(case.load(false).is_err());
        assert!(case.logged("Unexpected end of file reading the append only file 2.aof. You can"));
        assert_eq!(case.load(true).unwrap(), Loaded::Truncated);
        assert!(case.logged("short read while loading the AOF file 2.aof!!!"));
        assert!(case.logged("2.aof loaded anyway because aof-load-truncated is enabled"));
        assert_eq!(fs::metadata(case.path("2.aof")).unwrap().len(), 27);
        assert_eq!(case.load(true).unwrap(), Loaded::Whole);
    }

    #[test]
    fn a_torn_end_of_an_earlier_file_is_fatal() {
        let mut torn = resp(&["set a 1", "set b 2"]);
        torn.truncate(30);
        let mut case = Case::new(&[("1.aof", torn), ("2.aof", vec![])], TWO);
        assert!(case.load(true).is_err());
        assert!(case.logged("Fatal error: the truncated file is not the last file"));
        assert_eq!(fs::metadata(case.path("1.aof")).unwrap().len(), 30);
    }

    #[test]
    fn damage_is_fatal_and_named() {
        let mut damaged = resp(&["set a 1", "set b 2"]);
        damaged[27] = b'!';
        let mut case = Case::new(&[("1.aof", damaged), ("2.aof", vec![])], TWO);
        assert!(case.load(true).is_err());
        assert!(case.logged("AOF 1.aof is damaged at offset 27: expected '*' or '#', got '!'"));
        assert!(case.logged("Bad file format reading the append only file 1.aof"));
    }

    #[test]
    fn a_missing_file_is_fatal() {
        let mut case = Case::new(&[("1.aof", resp(&["set a 1"]))], TWO);
        let error = case.load(true).unwrap_err().to_string();
        assert!(error.starts_with("Unable to obtain the AOF file 2.aof length. stat: No such"));
    }

    /// Knows some commands, as a server does.
    #[derive(Default)]
    struct Strict(Vec<Vec<Vec<u8>>>);

    impl Strict {
        fn is_known(words: &[&[u8]]) -> bool {
            const KNOWN: [&[u8]; 4] = [b"select", b"set", b"rpush", b"incr"];
            2 <= words.len() && KNOWN.iter().any(|name| name.eq_ignore_ascii_case(words[0]))
        }
    }

    impl Replay for Strict {
        fn snapshot(&mut self, _: &mut Input) -> Result<u64, String> {
            Err("none was written".into())
        }

        fn commands(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)> {
            self.judge(commands)?;
            let owned = |words: Vec<&[u8]>| words.iter().map(|word| word.to_vec()).collect();
            self.0.extend(commands.iter().map(owned));
            Ok(())
        }

        fn judge(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)> {
            match commands.iter().position(|words| !Self::is_known(&words)) {
                Some(place) => Err((place, "unknown".into())),
                None => Ok(()),
            }
        }

        fn progress(&mut self, _: u64) {}
    }

    /// Every byte of every file is changed, each bit by itself and all together. What is loaded then is all that
    /// was written, but for one command with another word in it; or it ends earlier, which is told.
    #[test]
    fn no_changed_byte_has_anything_left_out_in_silence() {
        let stamp = |second: u32| format!("#TS:17000000{second:02}\r\n").into_bytes();
        let base = [stamp(1), resp(&["SELECT 0", "set a 1", "SELECT 3", "rpush l x y z"])].concat();
        let first = [stamp(2), resp(&["SELECT 0", "MULTI", "incr a", "set b 22", "EXEC"])].concat();
        let last = [
            resp(&["SELECT 0", "set c a-value-of-twenty-", "incr a", "MULTI", "incr a", "incr d"]),
            resp(&["EXEC"]),
            stamp(3),
            resp(&[
                "rpush l 1 2 3 4 5 6 7 8 9 10",
                "set e 5",
                "MULTI",
                "set f 6",
                "incr f",
                "EXEC",
            ]),
            resp(&["incr a", "set g 7"]),
        ]
        .concat();
        let manifest = b"file a.1.base.aof seq 1 type b\nfile a.1.incr.aof seq 1 type i\n\
                         file a.2.incr.aof seq 2 type i\n";
        let names = ["a.manifest", "a.1.base.aof", "a.1.incr.aof", "a.2.incr.aof"];
        let files = [&manifest[..], &base, &first, &last];
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("d");
        fs::create_dir(&folder).unwrap();
        let load = || {
            let log = Mutex::new(Vec::new());
            let tell = |level, text: &str| log.lock().unwrap().push((level, text.to_owned()));
            let mut replay = Strict::default();
            let loaded = match Folder::open(parent.path(), "d", "a", &tell) {
                Ok(folder) => load(&folder, true, &mut replay, &mut |_| {}, &tell).ok(),
                Err(_) => None,
            };
            (loaded, replay.0, log.into_inner().unwrap())
        };
        let restore = || {
            names
                .iter()
                .zip(files)
                .for_each(|(name, file)| fs::write(folder.join(name), file).unwrap());
        };
        restore();
        let (loaded, all, _) = load();
        assert_eq!((loaded, all.len()), (Some(Loaded::Whole), 18));
        for (name, file) in names.iter().zip(files) {
            for at in 0..file.len() {
                for mask in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                    let mut changed = file.to_vec();
                    changed[at] ^= mask;
                    fs::write(folder.join(name), &changed).unwrap();
                    let (loaded, commands, log) = load();
                    let place = format!("{name} at {at} with {mask}: {loaded:?} {log:?}");
                    let others = commands.iter().zip(&all).filter(|(a, b)| a != b).count();
                    match loaded {
                        Some(Loaded::Whole) => {
                            assert_eq!(commands.len(), all.len(), "{place}");
                            assert!(others <= 1, "{place}");
                        }
                        Some(Loaded::Truncated) => {
                            let told = "!!! Truncating the AOF a.2.incr.aof at offset";
                            assert!(log.iter().any(|(level, line)| {
                                *level == Level::Warning && line.starts_with(told)
                            }));
                            assert_eq!(others, 0, "{place}");
                            // No more than what a crash may have torn.
                            assert!(all.len() - 6 <= commands.len(), "{place}");
                            restore();
                        }
                        Some(Loaded::Nothing | Loaded::Empty) => panic!("{place}"),
                        None => {}
                    }
                }
            }
            restore();
        }
    }
}

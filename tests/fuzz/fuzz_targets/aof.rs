//! Append-only files, whole or not: what is read is read the same way again, what is refused stays as it is,
//! and a torn end is cut off once. The checker reads them too.

#![no_main]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use carnelian_keyspace::{AccessPolicy, Keyspace, Limits, Present};
use carnelian_persistence::aof::{Commands, Folder, Input, LoadError, Loaded, Replay, check, load};
use carnelian_persistence::rdb::file::{FileReader, Progress, Rules, Trust, load_held};
use libfuzzer_sys::fuzz_target;

const USUAL: &[u8] = b"file a.1.base.rdb seq 1 type b\nfile a.1.incr.aof seq 1 type i\n";
const BASE: &str = "a.1.base.rdb";
const INCR: &str = "a.1.incr.aof";

fuzz_target!(|data: &[u8]| {
    // The first byte says whether the manifest is as usual, and whether a torn end may be cut off.
    let Some((&how, rest)) = data.split_first() else { return };
    let (manifest, rest) = if how & 1 == 1 { (USUAL, rest) } else { part(rest) };
    let (base, incr) = part(rest);
    let parent = folder();
    let path = parent.join("d");
    // What the last input left.
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("there is room");
    for (name, bytes) in [("a.manifest", manifest), (BASE, base), (INCR, incr)] {
        fs::write(path.join(name), bytes).expect("there is room");
    }

    run_checker(&path);
    let may_truncate = how & 2 == 2;
    let first = read(&parent, may_truncate);
    match &first.0 {
        Ok(Loaded::Truncated) => {
            assert!(may_truncate);
            let (again, commands) = read(&parent, false);
            assert!(matches!(again, Ok(Loaded::Whole | Loaded::Empty)), "{again:?}");
            assert_eq!(commands, first.1);
        }
        Ok(_) => assert_eq!(read(&parent, true).1, first.1),
        Err(_) => {
            assert_eq!(fs::read(path.join(BASE)).expect("it stays"), base);
            assert_eq!(fs::read(path.join(INCR)).expect("it stays"), incr);
        }
    }
});

/// A part with its length before it.
fn part(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return (&[], bytes) };
    rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()))
}

fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = parent.join(format!("carnelian-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("there is room");
    folder
}

fn run_checker(path: &Path) {
    let (mut out, mut input) = (Vec::new(), &b"n\n"[..]);
    let world = check::World {
        out: &mut out,
        input: &mut input,
        check_snapshot: &mut |path, _, _| Some(fs::metadata(path).map_or(0, |data| data.len())),
    };
    check::run("redis-check-aof", &[OsString::from(path.join("a.manifest"))], world);
}

/// What came of it, and what it was.
fn read(parent: &Path, may_truncate: bool) -> (Result<Loaded, Option<LoadError>>, Notes) {
    let mut notes = Notes::default();
    let Ok(folder) = Folder::open(parent, "d", "a", &|_, _| {}) else {
        return (Err(None), notes);
    };
    let loaded = load(&folder, may_truncate, &mut notes, &mut |_| {}, &|_, _| {});
    (loaded.map_err(Some), notes)
}

/// Keeps what is read.
#[derive(Debug, Default, PartialEq)]
struct Notes {
    words: Vec<Vec<u8>>,
    keys: usize,
}

impl Replay for Notes {
    fn snapshot(&mut self, input: &mut Input) -> Result<u64, String> {
        let trust = Trust {
            databases: 4,
            checksum: false,
            newer: false,
            passes_modules: false,
            expanded_bytes_max: 1 << 20,
            input_bytes: Some(input.length()),
        };
        let rules = Rules {
            limits: Limits { max_string: 1 << 20, ..Limits::default() },
            policy: AccessPolicy::Lru,
            now_ms: 1_700_000_000_000,
            on_expired: None,
            present: Present::Refused,
            threads: 1,
            after_chunk: &|| {},
        };
        let keyspace = Keyspace::new(4);
        let mut reader = FileReader::new(input, trust);
        let mut segments = keyspace.lock_all();
        let summary =
            load_held(&mut reader, &mut segments, &rules, &Progress::default(), &mut ())
                .map_err(|error| error.to_string())?;
        drop(segments);
        self.keys += keyspace.stats(0).keys;
        Ok(summary.bytes)
    }

    fn commands(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)> {
        self.judge(commands)?;
        self.words.extend(commands.words.iter().map(|word| word.of(commands.bytes).to_vec()));
        Ok(())
    }

    fn judge(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)> {
        match commands.iter().position(|words| words[0].starts_with(b"?")) {
            Some(place) => Err((place, "no such command".into())),
            None => Ok(()),
        }
    }

    fn progress(&mut self, _: u64) {}
}

//! Files of every encoding through bytes and back, in pieces of all sizes; what old versions and
//! other servers write; and files damaged in all ways.

use std::collections::BTreeMap;
use std::io::Read;

use carnelian_keyspace::{AccessPolicy, Aftermath, Db, Expiry, Keyspace, Present, SEGMENTS};

use parking_lot::Mutex;

use super::*;
use crate::rdb::crc64::crc64;
use crate::rdb::tests::{NOW_MS, describe, limits, samples};
use crate::rdb::{Form, Lineage, LoadError, Loaded, VERSION_MAX, VERSION_MIN, write_string};

const DATABASES: usize = 4;

fn trust() -> Trust {
    Trust {
        databases: DATABASES,
        checksum: true,
        newer: false,
        passes_modules: false,
        expanded_bytes_max: 1 << 20,
        input_bytes: None,
    }
}

fn rules() -> Rules<'static> {
    Rules {
        limits: limits(),
        policy: AccessPolicy::Lru,
        now_ms: NOW_MS,
        on_expired: Some(&|_, _| {}),
        present: Present::Refused,
        threads: 2,
        after_chunk: &|| {},
    }
}

/// What a keyspace holds, in words: by logical database and key the encoding, the value, the expiry.
type Content = BTreeMap<(usize, Vec<u8>), (&'static str, String, Option<u64>)>;

fn content(keyspace: &Keyspace) -> Content {
    let mut content = Content::new();
    let access = keyspace.lock_all();
    for segment in 0..SEGMENTS {
        for db in 0..DATABASES {
            let entries = access.segment(segment).table(db).into_iter().flat_map(|it| it.iter());
            for entry in entries {
                let value = match entry.text() {
                    Some(text) => format!("{:?}", text.to_vec()),
                    None => describe(&entry.object().expect("no text")),
                };
                let known = (entry.encoding(), value, entry.expiry());
                content.insert((db, entry.key().to_vec()), known);
            }
        }
    }
    content
}

/// Every sample, in two logical databases, some of them with an expiry.
fn filled() -> Keyspace {
    let keyspace = Keyspace::new(DATABASES);
    let mut aftermath = Aftermath::default();
    let access = keyspace.lock_all();
    let mut db = Db::new(access, 0, NOW_MS, AccessPolicy::Lru, &mut aftermath);
    for (at, sample) in samples().into_iter().enumerate() {
        db.select(if at % 3 == 0 { 0 } else { 2 });
        let key = format!("key-{at}");
        let expiry = (at % 4 == 1).then_some(NOW_MS + 10_000);
        let key = key.as_bytes();
        match sample {
            Loaded::String(text) => {
                db.set_string(key, &text, expiry.map_or(Expiry::Clear, Expiry::At));
            }
            Loaded::List(list) => db.put(key, list, expiry),
            Loaded::Set(set) => db.put(key, set, expiry),
            Loaded::SortedSet(sorted) => db.put(key, sorted, expiry),
            Loaded::Hash(hash) => db.put(key, hash, expiry),
            Loaded::Stream(stream) => db.put(key, *stream, expiry),
        }
    }
    drop(db);
    keyspace
}

fn written(keyspace: &Keyspace, version: u16, checksum: bool) -> Vec<u8> {
    let form = Form { version, compress: true };
    let mut writer = FileWriter::new(form, checksum);
    writer.aux("redis-ver", b"8.0.6");
    writer.function(b"#!lua name=mine\nreturn 1");
    let records = Records { limits: limits(), form, access: Access::Idle, now_ms: NOW_MS };
    let access = keyspace.lock_all();
    for db in 0..DATABASES {
        let tables = (0..SEGMENTS).filter_map(|segment| access.segment(segment).table(db));
        for entry in tables.flat_map(|it| it.iter()) {
            writer.entry(db, entry, &records);
        }
    }
    writer.end();
    writer.take(Vec::new())
}

/// A file made by hand: the header, `body`, the end and its checksum.
fn file(version: &str, body: &[u8]) -> Vec<u8> {
    let mut file = [version.as_bytes(), body, &[code::END]].concat();
    let checksum = crc64(0, &file);
    file.extend_from_slice(&checksum.to_le_bytes());
    file
}

fn string(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_string(&mut out, text);
    out
}

fn loaded_by(
    input: impl Read,
    trust: Trust,
    rules: &Rules<'_>,
    observer: &mut dyn Observer,
) -> Result<(Keyspace, Summary), FileError> {
    let keyspace = Keyspace::new(DATABASES);
    let mut reader = FileReader::new(input, trust);
    let summary = load(&mut reader, &keyspace, rules, &Progress::default(), observer)?;
    Ok((keyspace, summary))
}

fn loaded(file: &[u8]) -> Result<(Keyspace, Summary), FileError> {
    loaded_by(file, trust(), &rules(), &mut ())
}

/// The same without threads.
fn loaded_here(file: &[u8]) -> Result<Keyspace, FileError> {
    let keyspace = Keyspace::new(DATABASES);
    let mut access = keyspace.lock_all();
    let mut reader = FileReader::new(file, trust());
    load_held(&mut reader, &mut access, &rules(), &Progress::default(), &mut ())?;
    drop(access);
    Ok(keyspace)
}

#[track_caller]
fn fault_of(file: &[u8]) -> (u64, String) {
    match loaded(file) {
        Ok(_) => panic!("the file was taken"),
        Err(error) => (error.offset, error.fault.to_string()),
    }
}

/// Gives a few bytes at a time.
struct Trickle<'a> {
    rest: &'a [u8],
    step: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.step.min(buffer.len());
        self.rest.read(&mut buffer[..count])
    }
}

/// Remembers what it is told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn version(&mut self, lineage: Lineage, version: u32) {
        self.0.push(format!("{lineage:?} {version}"));
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        let [name, value] = [name, value].map(String::from_utf8_lossy);
        self.0.push(format!("{name}={value}"));
    }

    fn database(&mut self, db: usize) {
        self.0.push(format!("database {db}"));
    }

    fn function(&mut self, source: &[u8]) -> Result<(), String> {
        let source = String::from_utf8_lossy(source).into_owned();
        self.0.push(source.clone());
        if source.contains("bad") { Err("it is bad".into()) } else { Ok(()) }
    }

    fn module_aux(&mut self, module: &str) {
        self.0.push(format!("module {module}"));
    }

    fn checksum(&mut self, is_there: bool) {
        self.0.push(if is_there { "summed" } else { "unsummed" }.into());
    }
}

#[test]
fn every_encoding_survives() {
    let source = filled();
    let file = written(&source, VERSION_MAX, true);
    let (copy, summary) = loaded(&file).expect("our own file");
    assert_eq!(content(&copy), content(&source));
    assert_eq!(summary.keys, samples().len() as u64);
    assert_eq!((summary.expired, summary.empty, summary.bytes), (0, 0, file.len() as u64));
}

#[test]
fn older_versions_hold_the_same() {
    let source = content(&filled());
    for version in VERSION_MIN..VERSION_MAX {
        let (copy, _) = loaded(&written(&filled(), version, true)).expect("our own file");
        for (key, (_, value, expiry)) in content(&copy) {
            let (_, expected, expected_expiry) = &source[&key];
            // Of streams, counters and the times of consumers came later.
            if !value.contains("StreamId") || version == 11 {
                assert_eq!((&value, &expiry), (expected, expected_expiry), "{version}");
            }
        }
    }
}

#[test]
fn files_come_in_pieces_of_any_size() {
    let source = filled();
    let file = written(&source, VERSION_MAX, true);
    for step in [1, 2, 3, 7, 64, 1000] {
        let trickle = Trickle { rest: &file, step };
        let (copy, _) = loaded_by(trickle, trust(), &rules(), &mut ()).expect("our own file");
        assert_eq!(content(&copy), content(&source));
    }
}

#[test]
fn files_load_under_locks_that_are_held() {
    let source = filled();
    let file = written(&source, VERSION_MAX, true);
    let copy = Keyspace::new(DATABASES);
    let mut access = copy.lock_all();
    let mut reader = FileReader::new(&file[..], trust());
    let progress = Progress::default();
    let summary = load_held(&mut reader, &mut access, &rules(), &progress, &mut ());
    drop(access);
    assert_eq!(summary.expect("our own file").keys, samples().len() as u64);
    assert_eq!(content(&copy), content(&source));
}

#[test]
fn values_longer_than_a_chunk_are_read() {
    let keyspace = Keyspace::new(DATABASES);
    let mut aftermath = Aftermath::default();
    let mut db = Db::new(keyspace.lock_all(), 0, NOW_MS, AccessPolicy::Lru, &mut aftermath);
    let mut noise = 1_u64;
    let mut next = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 56) as u8
    };
    for (at, bytes) in [3_000_000, 10, 262_100, 262_144, 262_160, 700_000].into_iter().enumerate() {
        let value: Vec<u8> = (0..bytes).map(|_| next()).collect();
        db.set_string(format!("{at}").as_bytes(), &value, Expiry::Clear);
    }
    drop(db);
    let file = written(&keyspace, VERSION_MAX, true);
    for step in [4096, 100_000, usize::MAX] {
        let trickle = Trickle { rest: &file, step };
        let (copy, _) = loaded_by(trickle, trust(), &rules(), &mut ()).expect("our own file");
        assert_eq!(content(&copy), content(&keyspace));
    }
}

#[test]
fn what_comes_behind_the_file_is_left() {
    let file = [&file("REDIS0011", b"\0\x01k\x01v")[..], b"*1\r\n"].concat();
    let mut reader = FileReader::new(&file[..], trust());
    let mut chunk = Chunk::default();
    assert!(reader.next(&mut chunk, usize::MAX, &mut ()).expect("a key"));
    assert!(!reader.next(&mut chunk, usize::MAX, &mut ()).expect("the end"));
    assert_eq!(reader.behind(), b"*1\r\n");
    assert_eq!(reader.position(), file.len() as u64 - 4);
}

#[test]
fn what_lies_between_keys_is_told() {
    let body = [
        b"\xFA\x09redis-ver\x057.2.0".as_slice(),
        b"\xF5\x04libs",
        // The module `ReJSON-RL`, before the keys: a number, a float, a double and a string.
        b"\xF7\x81",
        &(MODULE_ID | 3).to_be_bytes(),
        b"\x02\x01\x02\x07\x03\0\0\0\0\x04\0\0\0\0\0\0\0\0\x05\x03abc\0",
        b"\xFE\x02\xFB\x02\x01\xF4\x40\x80\x01\0",
        b"\0\x01k\x01v",
    ]
    .concat();
    let mut notes = Notes::default();
    let (copy, _) =
        loaded_by(&file("REDIS0012", &body)[..], trust(), &rules(), &mut notes).expect("sound");
    let expected =
        ["Redis 12", "redis-ver=7.2.0", "libs", "module ReJSON-RL", "database 2", "summed"];
    assert_eq!(notes.0, expected);
    assert_eq!(content(&copy).keys().next(), Some(&(2, b"k".to_vec())));
}

/// The number of the type `ReJSON-RL`.
const MODULE_ID: u64 = {
    let letters = b"ReJSON-RL";
    let mut id = 0;
    let mut at = 0;
    while at < letters.len() {
        let letter = match letters[at] {
            upper @ b'A'..=b'Z' => upper - b'A',
            b'-' => 62,
            lower => lower - b'a' + 26,
        };
        id = id << 6 | letter as u64;
        at += 1;
    }
    id << 10
};

#[test]
fn old_files_are_read() {
    // Version 2 has no checksum; expiries are in seconds.
    let seconds = (NOW_MS / 1000 + 60) as i32;
    let old = [
        b"REDIS0002\xFE\0\xFD".as_slice(),
        &seconds.to_le_bytes(),
        b"\0\x01k\x01v",
        b"\x09\x01z\x08\x01\x01f\x02\0vw\xFF",
        b"\x03\x01s\x01\x01m\x031.5\xFF",
    ]
    .concat();
    let (copy, _) = loaded(&old).expect("an old file");
    let content = content(&copy);
    let expiry = u64::from(seconds.unsigned_abs()) * 1000;
    assert_eq!(
        content[&(0, b"k".to_vec())],
        ("embstr", format!("{:?}", b"v".to_vec()), Some(expiry))
    );
    assert_eq!(content[&(0, b"z".to_vec())].0, "listpack");
    assert_eq!(content[&(0, b"s".to_vec())].0, "listpack");
}

#[test]
fn files_of_valkey_are_read() {
    let expiry = NOW_MS + 5;
    let body = [
        b"\xFE\0\x16\x01h\x02\x01f\x01v".as_slice(),
        &expiry.to_le_bytes(),
        b"\x01g\x01w\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
        b"\xF3\x03job\x01\x05\x09",
    ]
    .concat();
    let mut notes = Notes::default();
    let (copy, _) =
        loaded_by(&file("VALKEY080", &body)[..], trust(), &rules(), &mut notes).expect("sound");
    assert_eq!(notes.0, ["Valkey 80", "database 0", "summed"]);
    let hash = &content(&copy)[&(0, b"h".to_vec())];
    let fields = BTreeMap::from([
        (b"f".to_vec(), (b"v".to_vec(), Some(expiry))),
        (b"g".to_vec(), (b"w".to_vec(), None)),
    ]);
    assert_eq!((hash.0, &hash.1), ("listpackex", &format!("{fields:?}")));
}

#[test]
fn expired_and_empty_keys_are_left_out_and_counted() {
    let body = [
        b"\xFC".as_slice(),
        &(NOW_MS - 1).to_le_bytes(),
        b"\0\x04gone\x01v",
        b"\xFC\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\x05never\x01v",
        b"\x02\x05empty\0",
        b"\x10\x06packed\x07\x07\0\0\0\0\0\xFF",
    ]
    .concat();
    let file = file("REDIS0011", &body);
    let left_out = Mutex::new(Vec::new());
    let note = |db, key: &[u8]| left_out.lock().push((db, key.to_vec()));
    let primary = Rules { on_expired: Some(&note), ..rules() };
    let (copy, summary) = loaded_by(&file[..], trust(), &primary, &mut ()).expect("sound");
    assert_eq!(content(&copy).into_keys().collect::<Vec<_>>(), [(0, b"never".to_vec())]);
    assert_eq!(*left_out.lock(), [(0, b"gone".to_vec())]);
    let empty_named: Vec<Box<[u8]>> = vec![(*b"empty").into(), (*b"packed").into()];
    let bytes = file.len() as u64;
    assert_eq!(summary, Summary { keys: 1, expired: 1, empty: 2, empty_named, bytes });
    let replica = Rules { on_expired: None, ..rules() };
    let (copy, _) = loaded_by(&file[..], trust(), &replica, &mut ()).expect("sound");
    assert_eq!(content(&copy)[&(0, b"gone".to_vec())].2, Some(NOW_MS - 1));
}

#[test]
fn what_cannot_be_is_refused_where_it_is() {
    let refused = |body: &[u8]| fault_of(&file("REDIS0011", body));
    assert_eq!(refused(b"\xC8"), (10, "Unknown RDB encoding type 200".into()));
    assert_eq!(refused(b"\xFE\x04").0, 9);
    let (offset, text) = refused(b"\0\x01k\x01v\0\x01k\x01w");
    assert_eq!((offset, &*text), (15, "a key that is there already"));
    let (offset, text) = refused(b"\0\x01k\x01v\x02\x01s\x02\x01a\x01a");
    assert_eq!(
        (offset, &*text),
        (22, "Value integrity check failed: a member that is there twice")
    );
    let module = [b"\x07\x01k\x81".as_slice(), &MODULE_ID.to_be_bytes(), b"\x02\x01\0"].concat();
    assert!(refused(&module).1.contains("'ReJSON-RL'"), "{:?}", refused(&module));
    let passing = Trust { passes_modules: true, ..trust() };
    let module = file("REDIS0011", &module);
    assert!(loaded_by(&module[..], passing, &rules(), &mut ()).is_ok());
    assert!(refused(b"\xF6\x01a").1.contains("Pre-release"));
    let (offset, text) = fault_of(b"RUBIS0011\xFF");
    assert_eq!((offset, &*text), (9, "Wrong signature trying to load DB from file"));
    for version in ["REDIS0000", "REDIS0013", "VALKEY079", "VALKEY081", "REDISabcd"] {
        let (_, text) = fault_of(&file(version, b""));
        assert!(text.starts_with("Can't handle RDB format version"), "{version}: {text}");
    }
    let newer = Trust { newer: true, ..trust() };
    assert!(loaded_by(&file("REDIS0099", b"")[..], newer, &rules(), &mut ()).is_ok());
    let bad =
        loaded_by(&file("REDIS0011", b"\xF5\x03bad")[..], trust(), &rules(), &mut Notes::default());
    assert!(matches!(bad, Err(FileError { fault: Fault::Function(_), .. })));
}

#[test]
fn a_key_that_is_there_may_be_replaced() {
    let keyspace = filled();
    let before = content(&keyspace);
    let file = written(&keyspace, VERSION_MAX, true);
    let rules = Rules { present: Present::Replaced, ..rules() };
    let mut reader = FileReader::new(&file[..], trust());
    load(&mut reader, &keyspace, &rules, &Progress::default(), &mut ()).expect("our own file");
    assert_eq!(content(&keyspace), before);
}

#[test]
fn lengths_are_not_believed() {
    // A string of 2^40 bytes; with a known end it is refused at once, else when the input ends.
    let file = file("REDIS0011", b"\0\x01k\x81\0\0\x01\0\0\0\0\0abc");
    assert_eq!(fault_of(&file).1, "Unexpected EOF reading RDB file");
    let known = Trust { input_bytes: Some(file.len() as u64), ..trust() };
    let error = loaded_by(&file[..], known, &rules(), &mut ()).err().expect("it is too long");
    assert_eq!(error.offset, 9);
}

#[test]
fn checksums_are_checked_unless_told_otherwise() {
    let mut bad = file("REDIS0011", b"\0\x01k\x01v");
    let last = bad.len() - 1;
    bad[last] ^= 1;
    assert!(matches!(
        loaded(&bad),
        Err(FileError { fault: Fault::Checksum { .. }, offset: 23, .. })
    ));
    let careless = Trust { checksum: false, ..trust() };
    assert!(loaded_by(&bad[..], careless, &rules(), &mut ()).is_ok());
    let mut notes = Notes::default();
    let unsummed = written(&filled(), VERSION_MAX, false);
    loaded_by(&unsummed[..], trust(), &rules(), &mut notes).expect("nothing to check");
    assert_eq!(notes.0.last().map(String::as_str), Some("unsummed"));
}

#[test]
fn a_flipped_byte_anywhere_is_found() {
    let mut file = written(&filled(), VERSION_MAX, true);
    for at in 0..file.len() {
        let kept = file[at];
        for flip in [1, 0x80, 0xFF] {
            file[at] = kept ^ flip;
            assert!(loaded_here(&file).is_err(), "byte {at} changed by {flip}");
        }
        file[at] = kept;
    }
}

#[test]
fn damage_without_a_checksum_is_refused_or_sound() {
    let mut file = written(&filled(), VERSION_MAX, false);
    for at in 0..file.len() {
        let kept = file[at];
        for flip in [1, 0x10, 0x80] {
            file[at] = kept ^ flip;
            if let Ok(copy) = loaded_here(&file) {
                let again = written(&copy, VERSION_MAX, true);
                assert!(loaded_here(&again).is_ok(), "byte {at} changed by {flip}");
            }
        }
        file[at] = kept;
    }
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let good = written(&filled(), VERSION_MAX, true);
    for end in 0..good.len() {
        for input_bytes in [None, Some(end as u64)] {
            let trust = Trust { input_bytes, ..trust() };
            let error = loaded_by(&good[..end], trust, &rules(), &mut ()).err();
            let error = error.unwrap_or_else(|| panic!("cut at {end}"));
            assert!(matches!(error.fault, Fault::End), "cut at {end}: {error}");
            assert!(error.offset <= end as u64);
        }
    }
}

#[test]
fn loading_can_be_stopped() {
    let file = written(&filled(), VERSION_MAX, true);
    let progress = Progress::default();
    progress.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut reader = FileReader::new(&file[..], trust());
    let result = load(&mut reader, &Keyspace::new(DATABASES), &rules(), &progress, &mut ());
    assert!(matches!(result, Err(FileError { fault: Fault::Stopped, .. })));
}

#[test]
fn fields_that_expire_ask_for_a_newer_version() {
    assert_eq!((version_for(11, false), version_for(11, true)), (11, 12));
    assert_eq!((version_for(12, false), version_for(9, true)), (12, 12));
}

/// Files that other servers wrote, from a folder outside of the repository.
#[test]
fn files_of_others_are_read() {
    let Some(folder) = std::env::var_os("CARNELIAN_RDB_FOLDER") else { return };
    let trust = Trust { databases: 16, ..trust() };
    for file in std::fs::read_dir(folder).expect("the folder is there") {
        let path = file.expect("it is still there").path();
        if path.extension().is_none_or(|extension| extension != "rdb") {
            continue;
        }
        let keyspace = Keyspace::new(16);
        let input = std::fs::File::open(&path).expect("it can be read");
        let mut reader = FileReader::new(input, trust);
        let mut notes = Notes::default();
        let result = load(&mut reader, &keyspace, &rules(), &Progress::default(), &mut notes);
        println!("{}: {result:?} {:?}", path.display(), notes.0);
        assert!(result.is_ok() || path.to_string_lossy().contains("corrupt"));
    }
}

#[test]
fn noise_is_refused() {
    let mut state = 7_u64;
    for length in 0..3000 {
        let noise = (0..length % 300).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 58) as u8
        });
        let body: Vec<u8> = noise.collect();
        let _ = loaded(&file("REDIS0011", &[&b"\0"[..], &string(b"k"), &body].concat()));
    }
    assert!(matches!(
        loaded(&file("REDIS0011", b"\x0F\x01k\x3F")),
        Err(FileError { fault: Fault::Value(LoadError::Malformed(_)) | Fault::End, .. })
    ));
}

#[test]
fn a_sealed_file_is_checked_with_its_keys() {
    use std::io::Write as _;

    use crate::seal::Policy;

    let folder = tempfile::tempdir().unwrap();
    let (path, key_file) = (folder.path().join("dump.rdb"), folder.path().join("key"));
    let content = written(&filled(), 11, true);
    let mut output = Policy::new(key_file.clone(), true).create(Vec::new()).unwrap();
    output.write_all(&content).unwrap();
    std::fs::write(&path, output.finish().unwrap()).unwrap();
    let mut out = Vec::new();
    assert_eq!(super::check::check(&path, &key_file, &mut out), Some(content.len() as u64));
    for key_file in ["", "/no/such/key"] {
        let mut out = Vec::new();
        assert_eq!(super::check::check(&path, key_file.as_ref(), &mut out), None);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("The file is sealed. "), "{text}");
    }
}

//! `redis-check-rdb`: reads a file as if to load it, and says whether that would work.
//!
//! Tools read its output, so what it prints and returns is what Redis's prints and returns.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use carnelian_keyspace::Limits;

use super::load::decode;
use super::{Chunk, Fault, FileError, FileReader, Found, Observer, Trust};
use crate::rdb::{Bounds, Lineage, Loaded, Type};
use crate::seal::{self, Policy};

/// Whether a program of this name is this one.
#[must_use]
pub fn is_called(program: &str) -> bool {
    const NAME: &[u8] = b"redis-check-rdb";

    Path::new(program)
        .file_name()
        .is_some_and(|name| name.as_bytes().windows(NAME.len()).any(|part| part == NAME))
}

/// Runs the program with the arguments after its name; returns the exit code.
pub fn run(program: &str, version: &str, arguments: &[OsString], out: &mut dyn Write) -> u8 {
    let (key_file, arguments) = match arguments {
        [option, key_file, rest @ ..] if option == seal::KEY_FILE_OPTION => {
            (Path::new(key_file), rest)
        }
        arguments => (Path::new(""), arguments),
    };
    let [argument] = arguments else {
        eprintln!("Usage: {program} [--key-file <key-file-of-sealed-files>] <rdb-file-name>");
        return 1;
    };
    if argument == "-v" || argument == "--version" {
        return u8::from(writeln!(out, "redis-check-rdb {version}").is_err());
    }
    u8::from(check(Path::new(argument), key_file, out).is_none())
}

/// Checks a file, or what is at its beginning, and reports to `out`. Where that ends; none if it is
/// not sane. A sealed file is read with the keys of a key file, and places in it are those of its content.
pub fn check(path: &Path, key_file: &Path, out: &mut dyn Write) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |since| since.as_millis() as u64);
    let mut check = Check { out, result: Ok(()), offset: 0, now_ms, tally: Tally::default() };
    check.info(format_args!("Checking RDB file {}", path.display()));
    let file = File::open(path).ok()?;
    let bytes = file.metadata().ok().map(|metadata| metadata.len());
    let input = match Policy::new(key_file.to_owned(), false).open(file) {
        Ok(input) => input,
        Err(error) => {
            check.info(format_args!("The file is sealed. {}", seal::unopened(key_file, &error)));
            return None;
        }
    };
    let end = match check.read(input, bytes) {
        Ok(end) => {
            check.offset = end;
            check.info(format_args!("\\o/ RDB looks OK! \\o/"));
            Some(end)
        }
        Err(error) => {
            check.report(&error);
            None
        }
    };
    let Tally { keys, expires, expired, field_expires } = check.tally;
    check.say(format_args!("[info] {keys} keys read\n"));
    check.say(format_args!("[info] {expires} expires\n"));
    check.say(format_args!("[info] {expired} already expired\n"));
    check.say(format_args!("[info] {field_expires} subexpires\n"));
    end.filter(|_| check.result.is_ok() && check.out.flush().is_ok())
}

#[derive(Default)]
struct Tally {
    keys: u64,
    expires: u64,
    expired: u64,
    /// Hashes with fields that expire.
    field_expires: u64,
}

struct Check<'o> {
    out: &'o mut dyn Write,
    result: io::Result<()>,
    /// Up to where the file has been read.
    offset: u64,
    now_ms: u64,
    tally: Tally,
}

impl Check<'_> {
    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        if self.result.is_ok() {
            self.result = self.out.write_fmt(text);
        }
    }

    fn info(&mut self, text: std::fmt::Arguments<'_>) {
        let offset = self.offset;
        self.say(format_args!("[offset {offset}] {text}\n"));
    }

    fn read(&mut self, input: impl Read, bytes: Option<u64>) -> Result<u64, FileError> {
        let limits = Limits { max_string: usize::MAX, ..Limits::default() };
        let trust = Trust {
            databases: usize::MAX,
            checksum: true,
            newer: false,
            passes_modules: true,
            expanded_bytes_max: Bounds::new(&limits).expanded_bytes_max,
            input_bytes: bytes,
        };
        let mut reader = FileReader::new(input, trust);
        let mut chunk = Chunk::default();
        while self.next(&mut reader, &mut chunk)? {
            for found in &chunk.found {
                self.tally.keys += 1;
                let (_, value) = decode(&chunk, found, trust.expanded_bytes_max, &limits)?;
                self.count(found, value.as_ref());
            }
        }
        Ok(reader.position())
    }

    /// A key whose value is cut short counts too.
    fn next(
        &mut self,
        reader: &mut FileReader<impl Read>,
        chunk: &mut Chunk,
    ) -> Result<bool, FileError> {
        reader.next(chunk, usize::MAX, self).inspect_err(|error| {
            self.tally.keys += u64::from(error.key.is_some());
        })
    }

    fn count(&mut self, found: &Found, value: Option<&Loaded<'_>>) {
        if let Some(at) = found.expiry {
            self.tally.expires += 1;
            self.tally.expired += u64::from(at < self.now_ms);
        }
        if let Some(Loaded::Hash(hash)) = value
            && hash.next_expiry().is_some()
        {
            self.tally.field_expires += 1;
        }
    }

    fn report(&mut self, error: &FileError) {
        self.say(format_args!("--- RDB ERROR DETECTED ---\n"));
        self.say(format_args!("[offset {}] {}\n", error.offset, error.fault));
        self.say(format_args!("[additional info] While doing: {}\n", doing(error)));
        if let Some(key) = &error.key {
            let key = String::from_utf8_lossy(key);
            self.say(format_args!("[additional info] Reading key '{key}'\n"));
        }
        if let Some(kind) = error.kind {
            let (number, name) = name_of(kind);
            self.say(format_args!("[additional info] Reading type {number} ({name})\n"));
        }
    }
}

impl Observer for Check<'_> {
    fn at(&mut self, offset: u64) {
        self.offset = offset;
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        let [name, value] = [name, value].map(String::from_utf8_lossy);
        self.info(format_args!("AUX FIELD {name} = '{value}'"));
    }

    fn database(&mut self, db: usize) {
        self.info(format_args!("Selecting DB ID {db}"));
    }

    fn module_aux(&mut self, module: &str) {
        self.info(format_args!("MODULE AUX for: {module}"));
    }

    fn module_value(&mut self, _module: &str) {
        self.tally.keys += 1;
    }

    fn checksum(&mut self, is_there: bool) {
        match is_there {
            true => self.info(format_args!("Checksum OK")),
            false => self.info(format_args!(
                "RDB file was saved with checksum disabled: no check performed."
            )),
        }
    }
}

/// What Redis would have been at.
const fn doing(error: &FileError) -> &'static str {
    match &error.fault {
        Fault::Signature | Fault::Version(_) => "start",
        Fault::Checksum { .. } => "check-sum",
        Fault::Function(_) | Fault::PreviewFunction => "read-functions",
        Fault::Database(_) => "read-len",
        _ if error.key.is_some() => "read-object-value",
        _ => "read-type",
    }
}

const fn name_of(kind: Type) -> (u8, &'static str) {
    let name = match kind {
        Type::String => "string",
        Type::List => "list-linked",
        Type::Set => "set-hashtable",
        Type::SortedSet => "zset-v1",
        Type::Hash => "hash-hashtable",
        Type::SortedSet2 => "zset-v2",
        Type::HashZipmap => "hash-zipmap",
        Type::ListZiplist => "list-ziplist",
        Type::SetIntset => "set-intset",
        Type::SortedSetZiplist => "zset-ziplist",
        Type::HashZiplist => "hash-ziplist",
        Type::ListQuicklist => "quicklist",
        Type::Stream => "stream",
        Type::HashListpack => "hash-listpack",
        Type::SortedSetListpack => "zset-listpack",
        Type::ListQuicklist2 => "quicklist-v2",
        Type::Stream2 => "stream-v2",
        Type::SetListpack => "set-listpack",
        Type::Stream3 => "stream-v3",
        Type::HashExpiriesPreview => "hash-hashtable-md-pre-release",
        Type::HashListpackExpiriesPreview => "hash-listpack-md-pre-release",
        Type::HashExpiries => "hash-hashtable-md",
        Type::HashListpackExpiries => "hash-listpack-md",
        Type::HashValkey => return (Lineage::VALKEY_HASH, "hash-hashtable-2"),
    };
    (kind as u8, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::Form;
    use crate::rdb::file::FileWriter;

    fn checked(bytes: &[u8]) -> (u8, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dump.rdb");
        std::fs::write(&path, bytes).expect("it can be written");
        let mut out = Vec::new();
        let code = run("redis-check-rdb", "8.0.6", &[path.clone().into()], &mut out);
        let text = String::from_utf8(out).expect("text");
        (code, text.replace(&*path.to_string_lossy(), "FILE"))
    }

    fn sound() -> Vec<u8> {
        let mut writer = FileWriter::new(Form { version: 11, compress: true }, true);
        writer.aux("redis-ver", b"8.0.6");
        writer.records(2, b"\xFC\x01\0\0\0\0\0\0\0\0\x01k\x01v\x02\x03set\x02\x01a\x01b");
        writer.end();
        writer.take(Vec::new())
    }

    #[test]
    fn a_sound_file_is_described() {
        let (code, text) = checked(&sound());
        let expected = "[offset 0] Checking RDB file FILE\n\
                        [offset 26] AUX FIELD redis-ver = '8.0.6'\n\
                        [offset 28] Selecting DB ID 2\n\
                        [offset 61] Checksum OK\n\
                        [offset 61] \\o/ RDB looks OK! \\o/\n\
                        [info] 2 keys read\n\
                        [info] 1 expires\n\
                        [info] 1 already expired\n\
                        [info] 0 subexpires\n";
        assert_eq!((code, &*text), (0, expected));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let mut file = sound();
        let place = file.len() - 10;
        file[place] = b'a';
        let (code, text) = checked(&file);
        assert_eq!(code, 1);
        let expected = "--- RDB ERROR DETECTED ---\n\
                        [offset 52] Value integrity check failed: a member that is there twice\n\
                        [additional info] While doing: read-object-value\n\
                        [additional info] Reading key 'set'\n\
                        [additional info] Reading type 2 (set-hashtable)\n\
                        [info] 2 keys read\n";
        assert!(text.contains(expected), "{text}");
        let (code, text) = checked(&sound()[..49]);
        let expected = "Unexpected EOF reading RDB file\n\
                        [additional info] While doing: read-object-value\n\
                        [additional info] Reading key 'set'\n\
                        [additional info] Reading type 2 (set-hashtable)\n\
                        [info] 2 keys read\n";
        assert!(code == 1 && text.contains(expected), "{text}");
        let (code, text) = checked(b"RUBBISH..");
        assert!(code == 1 && text.contains("[offset 9] Wrong signature"), "{text}");
    }

    #[test]
    fn the_program_goes_by_its_name() {
        assert!(is_called("/usr/bin/redis-check-rdb") && is_called("redis-check-rdb-8"));
        assert!(!is_called("/redis-check-rdb/carnelian-server"));
        let mut out = Vec::new();
        assert_eq!(run("redis-check-rdb", "8.0.6", &["-v".into()], &mut out), 0);
        assert_eq!(out, b"redis-check-rdb 8.0.6\n");
        assert_eq!(run("redis-check-rdb", "8.0.6", &[], &mut out), 1);
        assert_eq!(run("redis-check-rdb", "8.0.6", &["/no/such/file".into()], &mut out), 1);
    }
}

//! `redis-check-aof`: says how far the files of an append-only file are whole, and cuts off the rest.
//!
//! Tools read its output, so what it prints and returns is what Redis's prints and returns. It reads as
//! leniently as Redis does, byte by byte where that shows: it says of a file what Redis would say.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::folder::read_manifest;
use super::reader::SNAPSHOT_MARK;
use super::{Entry, reason};
use crate::seal::{self, Ending, Policy, SealError, is_sealed_file};

/// What the program reaches beside files.
pub struct World<'a> {
    pub out: &'a mut dyn Write,
    /// For the answer whether to shorten a file.
    pub input: &'a mut dyn BufRead,
    /// Checks the snapshot at the beginning of a file as `redis-check-rdb` does, with the keys of a key
    /// file and reporting to `out`: where it ends, or `None` if it is not sane.
    pub check_snapshot: &'a mut dyn FnMut(&Path, &Path, &mut dyn Write) -> Option<u64>,
}

/// The exit code was settled, and all is said.
struct Abort;

type Step<T = ()> = Result<T, Abort>;

/// Runs the program with the arguments after its name; returns the exit code.
pub fn run(program: &str, arguments: &[OsString], world: World<'_>) -> u8 {
    let (key_file, arguments) = match arguments {
        [option, key_file, rest @ ..] if option == seal::KEY_FILE_OPTION => {
            (PathBuf::from(key_file), rest)
        }
        arguments => (PathBuf::new(), arguments),
    };
    let mut check = Check { world, key_file, fix: false, until: None, failed_output: false };
    let outcome = check.run(program, arguments);
    let flushed = check.world.out.flush();
    u8::from(outcome.is_err() || flushed.is_err() || check.failed_output)
}

struct Check<'a> {
    world: World<'a>,
    /// With the keys of sealed files.
    key_file: PathBuf,
    fix: bool,
    /// `--truncate-to-timestamp`; 0 is none, as in Redis.
    until: Option<i64>,
    failed_output: bool,
}

enum Verdict {
    Valid,
    Empty,
    Truncated,
    TruncatedToTimestamp,
}

/// The longest line that a length is looked for in, and the longest annotation.
const LENGTH_LINE_MAX: usize = 127;
const ANNOTATION_MAX: usize = 1023;

impl Check<'_> {
    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        self.failed_output |= self.world.out.write_fmt(text).is_err();
    }

    fn abort<T>(&mut self, text: std::fmt::Arguments<'_>) -> Step<T> {
        self.say(text);
        Err(Abort)
    }

    fn run(&mut self, program: &str, arguments: &[OsString]) -> Step {
        let path = match arguments {
            [path] => path,
            [option, path] if option == "--fix" => {
                self.fix = true;
                path
            }
            [option, time, path] if option == "--truncate-to-timestamp" => {
                match time.to_str().and_then(parse_time) {
                    Some(time) => self.until = Some(time).filter(|time| *time != 0),
                    None => return self.abort(format_args!("Invalid timestamp, aborting...\n")),
                }
                path
            }
            _ => {
                return self.abort(format_args!(
                    "Usage: {program} [--fix|--truncate-to-timestamp $timestamp] \
                     <file.manifest|file.aof>\n"
                ));
            }
        };
        let path = Path::new(path);
        if self.is_manifest(path)? {
            return self.check_parts(path);
        }
        let has_snapshot = self.begins_with_snapshot(path)?;
        self.say(format_args!("Start checking Old-Style AOF\n"));
        let shown = path.display().to_string();
        let verdict = self.check_file(&shown, path, true, has_snapshot)?;
        self.conclude(&verdict, "AOF", &shown);
        Ok(())
    }

    fn open(&mut self, path: &Path) -> Step<(File, u64)> {
        let opened = File::open(path).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        match opened {
            Ok(opened) => Ok(opened),
            Err(error) => {
                let (shown, reason) = (path.display(), reason(&error));
                self.abort(format_args!("Cannot open file {shown}: {reason}\n"))
            }
        }
    }

    fn is_manifest(&mut self, path: &Path) -> Step<bool> {
        let (file, _) = self.open(path)?;
        let mut lines = BufReader::new(file);
        let mut is_manifest = false;
        loop {
            let mut line = Vec::new();
            match read_line(&mut lines, 1024, &mut line) {
                Ok(()) if line.is_empty() => return Ok(is_manifest),
                Ok(()) if line.starts_with(b"#") => {}
                Ok(()) if line.starts_with(b"file") => is_manifest = true,
                Ok(()) => return Ok(is_manifest),
                Err(_) => {
                    let shown = path.display();
                    return self.abort(format_args!("Cannot read file: {shown}\n"));
                }
            }
        }
    }

    fn begins_with_snapshot(&mut self, path: &Path) -> Step<bool> {
        let (file, length) = self.open(path)?;
        let Ok(mut content) = self.keys().open(file) else { return Ok(false) };
        let mut mark = [0; SNAPSHOT_MARK.len()];
        Ok(8 <= length && content.read_exact(&mut mark).is_ok() && mark == SNAPSHOT_MARK)
    }

    fn keys(&self) -> Policy {
        Policy::new(self.key_file.clone(), false)
    }

    /// How much a sealed file holds, and how much is torn at its end.
    fn measure_sealed(&mut self, file: &File, name: &str) -> Step<(u64, u64)> {
        let read = || {
            let mut content = self.keys().open(file)?;
            let bytes = io::copy(&mut content, &mut io::sink())?;
            let torn = match content.ending() {
                Some(Ending::Torn { bytes }) => bytes,
                _ => 0,
            };
            Ok::<_, io::Error>((bytes, torn))
        };
        match read() {
            Ok(measured) => Ok(measured),
            Err(error) if SealError::is_short_header(&error) => Ok((0, 0)),
            Err(error) => {
                let why = seal::unopened(&self.key_file, &error);
                self.abort(format_args!("AOF {name} is sealed. {why}\n"))
            }
        }
    }

    /// Cuts a file, or what a sealed one holds, to so many bytes.
    fn cut(&self, file: &File, path: &Path, is_sealed: bool, bytes: u64) -> io::Result<()> {
        match is_sealed {
            true => self.keys().cut(path, Some(bytes)).map(drop),
            false => file.set_len(bytes),
        }
    }

    fn check_parts(&mut self, path: &Path) -> Step {
        self.say(format_args!("Start checking Multi Part AOF\n"));
        let manifest = match read_manifest(path) {
            Ok(manifest) => manifest,
            Err(error) => {
                for line in error.report() {
                    self.say(format_args!("{line}\n"));
                }
                return Err(Abort);
            }
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let total = manifest.live().count();
        if let Some(base) = manifest.base() {
            let path = path_in(&folder, base);
            let has_snapshot = self.begins_with_snapshot(&path)?;
            let form = if has_snapshot { "RDB" } else { "RESP" };
            self.say(format_args!("Start to check BASE AOF ({form} format).\n"));
            let verdict = self.check_file(&base.shown(), &path, total == 1, has_snapshot)?;
            self.conclude(&verdict, "BASE AOF", &base.shown());
        }
        if !manifest.incr().is_empty() {
            self.say(format_args!("Start to check INCR files.\n"));
        }
        for (place, entry) in manifest.incr().iter().enumerate() {
            let is_last = place + 1 == manifest.incr().len();
            let path = path_in(&folder, entry);
            let verdict = self.check_file(&entry.shown(), &path, is_last, false)?;
            self.conclude(&verdict, "INCR AOF", &entry.shown());
        }
        self.say(format_args!("All AOF files and manifest are valid\n"));
        Ok(())
    }

    fn conclude(&mut self, verdict: &Verdict, kind: &str, name: &str) {
        match verdict {
            Verdict::Valid => self.say(format_args!("{kind} {name} is valid\n")),
            Verdict::Empty => self.say(format_args!("{kind} {name} is empty\n")),
            Verdict::Truncated => self.say(format_args!("Successfully truncated AOF {name}\n")),
            Verdict::TruncatedToTimestamp => {
                let until = self.until.unwrap_or_default();
                self.say(format_args!("Successfully truncated AOF {name} to timestamp {until}\n"));
            }
        }
    }

    fn check_file(
        &mut self,
        name: &str,
        path: &Path,
        is_last: bool,
        has_snapshot: bool,
    ) -> Step<Verdict> {
        let shown = path.display();
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) => {
                let reason = reason(&error);
                return self
                    .abort(format_args!("Cannot open file {shown}: {reason}, aborting...\n"));
            }
        };
        let Ok(data) = file.metadata() else {
            return self.abort(format_args!("Cannot stat file: {name}, aborting...\n"));
        };
        let mut size = data.len();
        if size == 0 {
            return Ok(Verdict::Empty);
        }
        let is_sealed = is_sealed_file(path).unwrap_or(false);
        if is_sealed {
            let (bytes, torn) = self.measure_sealed(&file, name)?;
            size = bytes + torn;
        }
        let mut start = 0;
        if has_snapshot {
            let Some(end) = (self.world.check_snapshot)(path, &self.key_file, self.world.out)
            else {
                return self
                    .abort(format_args!("RDB preamble of AOF file is not sane, aborting.\n"));
            };
            start = end;
            self.say(format_args!("RDB preamble is OK, proceeding with AOF tail...\n"));
        }
        let Ok(mut scan) = Scan::new(&file, &self.keys(), start) else {
            return self.abort(format_args!("Failed to read from AOF {name}, aborting...\n"));
        };
        match self.scan(&mut scan, name, path, is_last)? {
            Scanned::Cut => {
                let until = self.until.unwrap_or_default();
                if self.cut(&file, path, is_sealed, scan.at).is_err() {
                    return self.abort(format_args!(
                        "Failed to truncate AOF {shown} to timestamp {until}\n"
                    ));
                }
                return Ok(Verdict::TruncatedToTimestamp);
            }
            Scanned::Through => {}
        }
        let (valid, lines) = (scan.valid, scan.lines);
        if let Some(error) = scan.error {
            self.say(format_args!("{error}\n"));
        }
        let surplus = size.saturating_sub(valid);
        if surplus == 0
            && let Some(until) = self.until
        {
            self.say(format_args!("Truncate nothing in AOF {name} to timestamp {until}\n"));
            return Ok(Verdict::Valid);
        }
        self.say(format_args!(
            "AOF analyzed: filename={name}, size={size}, ok_up_to={valid}, \
             ok_up_to_line={lines}, diff={surplus}\n"
        ));
        if surplus == 0 {
            return Ok(Verdict::Valid);
        }
        if !self.fix {
            return self.abort(format_args!(
                "AOF {name} is not valid. Use the --fix option to try fixing it.\n"
            ));
        }
        if !is_last {
            return self.abort(format_args!(
                "Failed to truncate AOF {name} because it is not the last file\n"
            ));
        }
        self.say(format_args!(
            "This will shrink the AOF {name} from {size} bytes, with {surplus} bytes, to {valid} \
             bytes\nContinue? [y/N]: "
        ));
        let _ = self.world.out.flush();
        let mut answer = [0];
        let is_agreed =
            self.world.input.read_exact(&mut answer).is_ok() && matches!(answer, [b'y' | b'Y']);
        if !is_agreed {
            return self.abort(format_args!("Aborting...\n"));
        }
        if self.cut(&file, path, is_sealed, valid).is_err() {
            return self.abort(format_args!("Failed to truncate AOF {name}\n"));
        }
        Ok(Verdict::Truncated)
    }

    /// Reads on until the end, an error, or the timestamp to cut at.
    fn scan(
        &mut self,
        scan: &mut Scan<'_>,
        name: &str,
        path: &Path,
        is_last: bool,
    ) -> Step<Scanned> {
        loop {
            if scan.open_transactions == 0 {
                scan.valid = scan.offset;
            }
            let first = match scan.peek() {
                Ok(Some(first)) => first,
                Ok(None) => break,
                Err(_) => {
                    return self
                        .abort(format_args!("Failed to read from AOF {name}, aborting...\n"));
                }
            };
            match first {
                b'#' => {
                    if self.pass_annotation(scan, path, is_last)? {
                        return Ok(Scanned::Cut);
                    }
                }
                b'*' => {
                    if scan.command(path).is_none() {
                        break;
                    }
                }
                _ => {
                    self.say(format_args!("AOF {name} format error\n"));
                    break;
                }
            }
        }
        if scan.is_at_end && scan.open_transactions != 0 && scan.error.is_none() {
            let _: Option<()> =
                scan.fail(format_args!("Reached EOF before reading EXEC for MULTI"));
        }
        Ok(Scanned::Through)
    }

    /// Whether the file is to end before this annotation.
    fn pass_annotation(&mut self, scan: &mut Scan<'_>, path: &Path, is_last: bool) -> Step<bool> {
        let shown = path.display();
        scan.at = scan.offset;
        let Some(line) = scan.line(ANNOTATION_MAX) else {
            return self
                .abort(format_args!("Failed to read annotations from AOF {shown}, aborting...\n"));
        };
        let (Some(until), Some(text)) = (self.until, line.strip_prefix(b"#TS:")) else {
            return Ok(false);
        };
        let digits = text.iter().position(|byte| *byte == b'\r').map(|end| &text[..end]);
        let time = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(time) = time.and_then(|time| time.parse::<i64>().ok()) else {
            return self.abort(format_args!("Invalid timestamp annotation\n"));
        };
        if time <= until {
            return Ok(false);
        }
        if scan.at == 0 {
            return self.abort(format_args!(
                "AOF {shown} has nothing before timestamp {until}, aborting...\n"
            ));
        }
        if !is_last {
            let at = scan.at;
            return self.abort(format_args!(
                "Failed to truncate AOF {shown} to timestamp {until} to offset {at} because it is \
                 not the last file.\nIf you insist, please delete all files after this file \
                 according to the manifest file and delete the corresponding records in manifest \
                 file manually. Then re-run redis-check-aof.\n"
            ));
        }
        Ok(true)
    }
}

enum Scanned {
    Through,
    Cut,
}

/// A file that is read from front to back.
struct Scan<'a> {
    file: BufReader<seal::Input<&'a File>>,
    offset: u64,
    /// Where the last element began that was looked at.
    at: u64,
    /// Up to where the file is whole.
    valid: u64,
    lines: u64,
    open_transactions: i64,
    is_at_end: bool,
    error: Option<String>,
}

impl<'a> Scan<'a> {
    fn new(mut file: &'a File, keys: &Policy, start: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let mut content = keys.open(file)?;
        io::copy(&mut content.by_ref().take(start), &mut io::sink())?;
        let file = BufReader::with_capacity(256 * 1024, content);
        Ok(Self {
            file,
            offset: start,
            at: start,
            valid: start,
            lines: 1,
            open_transactions: 0,
            is_at_end: false,
            error: None,
        })
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        let first = self.file.fill_buf()?.first().copied();
        self.is_at_end = first.is_none();
        Ok(first)
    }

    fn fail<T>(&mut self, text: std::fmt::Arguments<'_>) -> Option<T> {
        self.error = Some(format!("0x{:16x}: {text}", self.at));
        None
    }

    /// The next line with its end, or as much of it; `None` at the end.
    fn line(&mut self, most: usize) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let result = read_line(&mut self.file, most, &mut line);
        self.offset += line.len() as u64;
        self.is_at_end = line.is_empty() || !line.ends_with(b"\n") && line.len() < most;
        (result.is_ok() && !line.is_empty()).then_some(line)
    }

    fn command(&mut self, path: &Path) -> Option<()> {
        let words = self.length(b'*')?;
        for place in 0..words {
            let word = self.word()?;
            if place != 0 {
                continue;
            }
            let name = word.split(|byte| *byte == 0).next().unwrap_or_default();
            let shown = path.display();
            if name.eq_ignore_ascii_case(b"multi") {
                self.open_transactions += 1;
                if self.open_transactions != 1 {
                    return self.fail(format_args!("Unexpected MULTI in AOF {shown}"));
                }
            } else if name.eq_ignore_ascii_case(b"exec") {
                self.open_transactions -= 1;
                if self.open_transactions != 0 {
                    return self.fail(format_args!("Unexpected EXEC in AOF {shown}"));
                }
            }
        }
        Some(())
    }

    fn length(&mut self, prefix: u8) -> Option<i64> {
        self.at = self.offset;
        let line = self.line(LENGTH_LINE_MAX)?;
        if line[0] != prefix {
            let (prefix, got) = (prefix as char, line[0] as char);
            return self.fail(format_args!("Expected prefix '{prefix}', got: '{got}'"));
        }
        let (number, rest) = leading_number(&line[1..]);
        self.newline(rest)?;
        Some(number)
    }

    fn newline(&mut self, text: &[u8]) -> Option<()> {
        // Text that ends early ends with a NUL in C.
        let byte = |place| text.get(place).copied().unwrap_or_default();
        if (byte(0), byte(1)) != (b'\r', b'\n') {
            // Printed as signed numbers.
            let shown = |byte: u8| i32::from(byte.cast_signed());
            let (first, second) = (shown(byte(0)), shown(byte(1)));
            return self.fail(format_args!("Expected \\r\\n, got: {first:02x}{second:02x}"));
        }
        self.lines += 1;
        Some(())
    }

    fn word(&mut self) -> Option<Vec<u8>> {
        let length = self.length(b'$')?;
        let wanted = u64::try_from(length).ok().filter(|length| *length <= i64::MAX as u64 - 2);
        let Some(wanted) = wanted.map(|length| length + 2) else {
            return self.fail(format_args!(
                "Expected to read string of {length} bytes, which is not in the suitable range"
            ));
        };
        self.at = self.offset;
        // Grows as bytes arrive: the length is only what the file claims.
        let mut word = Vec::new();
        let read = self.file.by_ref().take(wanted).read_to_end(&mut word);
        self.offset += word.len() as u64;
        let got = word.len() as u64;
        if read.is_err() || got != wanted {
            self.is_at_end = true;
            return self.fail(format_args!("Expected to read {wanted} bytes, got {got} bytes"));
        }
        let end = word.split_off(word.len() - 2);
        self.newline(&end)?;
        Some(word)
    }
}

/// As `fgets` reads: up to and with the end of the line, at most so many bytes.
fn read_line(input: &mut impl BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<()> {
    input.take(most as u64).read_until(b'\n', line).map(drop)
}

/// As `strtol` reads: the number, and what follows it.
fn leading_number(text: &[u8]) -> (i64, &[u8]) {
    let spaces = text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let signed = &text[spaces..];
    let sign = usize::from(matches!(signed.first(), Some(b'-' | b'+')));
    let digits = signed[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return (0, text);
    }
    let (number, rest) = signed.split_at(sign + digits);
    let number = std::str::from_utf8(number).expect("digits and a sign");
    let most = if number.starts_with('-') { i64::MIN } else { i64::MAX };
    (number.parse().unwrap_or(most), rest)
}

/// A timestamp of the command line, in which nothing may follow the number.
fn parse_time(text: &str) -> Option<i64> {
    if text.is_empty() { Some(0) } else { text.trim_start().parse().ok() }
}

fn path_in(folder: &Path, entry: &Entry) -> std::path::PathBuf {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    folder.join(OsStr::from_bytes(&entry.name))
}

/// Whether a program of this name is this one.
pub fn is_called(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| {
        name.as_bytes().windows(b"redis-check-aof".len()).any(|part| part == b"redis-check-aof")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::reader::tests::resp;
    use super::*;

    /// Runs the program on a file, answering `y`.
    fn check(arguments: &[&str], path: &Path) -> (u8, String) {
        let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        arguments.push(path.into());
        let mut out = Vec::new();
        let world = World {
            out: &mut out,
            input: &mut &b"y\n"[..],
            check_snapshot: &mut |_, _, out| {
                writeln!(out, "a snapshot").unwrap();
                Some(9)
            },
        };
        let code = run("redis-check-aof", &arguments, world);
        let folder = format!("{}/", path.parent().unwrap().display());
        (code, String::from_utf8(out).unwrap().replace(&folder, ""))
    }

    fn file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.aof");
        fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn a_whole_file_is_valid() {
        let (_folder, path) = file(&resp(&["set a 1", "MULTI", "incr a", "EXEC"]));
        assert_eq!(
            check(&[], &path),
            (
                0,
                "Start checking Old-Style AOF\nAOF analyzed: filename=a.aof, size=77, \
                 ok_up_to=77, ok_up_to_line=19, diff=0\nAOF a.aof is valid\n"
                    .into()
            )
        );
    }

    #[test]
    fn a_torn_file_is_shortened_when_asked() {
        let mut bytes = resp(&["set a 1", "set b 2"]);
        bytes.truncate(52);
        let (_folder, path) = file(&bytes);
        let (code, text) = check(&[], &path);
        assert_eq!(code, 1);
        assert!(text.contains("0x              33: Expected to read 3 bytes, got 1 b"), "{text}");
        assert!(text.ends_with("AOF a.aof is not valid. Use the --fix option to try fixing it.\n"));
        let (code, text) = check(&["--fix"], &path);
        assert_eq!(code, 0);
        assert!(text.contains("from 52 bytes, with 25 bytes, to 27 bytes\nContinue? [y/N]: "));
        assert!(text.ends_with("Successfully truncated AOF a.aof\n"));
        assert_eq!(fs::metadata(&path).unwrap().len(), 27);
    }

    #[test]
    fn an_open_transaction_is_no_part_of_the_whole() {
        let (_folder, path) = file(&resp(&["set a 1", "MULTI", "incr a"]));
        let (code, text) = check(&[], &path);
        assert_eq!(code, 1);
        assert!(text.contains("Reached EOF before reading EXEC for MULTI\n"), "{text}");
        assert!(text.contains("ok_up_to=27,"), "{text}");
    }

    #[test]
    fn files_are_cut_at_a_timestamp() {
        let parts: [&[u8]; 4] =
            [b"#TS:100\r\n", &resp(&["set a 1"]), b"#TS:200\r\n", &resp(&["set b 2"])];
        let (_folder, path) = file(&parts.concat());
        let (code, text) = check(&["--truncate-to-timestamp", "50"], &path);
        assert!(
            code == 1 && text.ends_with("a.aof has nothing before timestamp 50, aborting...\n")
        );
        let (_, text) = check(&["--truncate-to-timestamp", "200"], &path);
        assert!(text.contains("Truncate nothing in AOF a.aof to timestamp 200\n"));
        let (code, text) = check(&["--truncate-to-timestamp", "150"], &path);
        assert!(code == 0 && text.ends_with("Successfully truncated AOF a.aof to timestamp 150\n"));
        assert_eq!(fs::metadata(&path).unwrap().len(), 36);
        assert_eq!(check(&["--truncate-to-timestamp", "1x"], &path).0, 1);
    }

    #[test]
    fn a_sealed_file_is_read_and_shortened_with_its_keys() {
        let (folder, path) = file(b"");
        let key_file = folder.path().join("key");
        let mut bytes = Vec::new();
        let policy = Policy::new(key_file.clone(), true);
        let mut appender = policy.create_growing(&mut bytes).unwrap().unwrap();
        appender.seal(&resp(&["set a 1"]), &mut bytes).unwrap();
        let first = bytes.len();
        appender.seal(&resp(&["set b 2"]), &mut bytes).unwrap();
        fs::write(&path, &bytes).unwrap();
        let key = ["--key-file", key_file.to_str().unwrap()];
        let (code, text) = check(&key, &path);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("size=54, ok_up_to=54, ok_up_to_line=15, diff=0\n"), "{text}");
        let (code, text) = check(&[], &path);
        assert!(code == 1 && text.contains("is sealed. Name its key file: --key-file"), "{text}");

        let torn = bytes.len() - 1;
        fs::write(&path, &bytes[..torn]).unwrap();
        let (code, text) = check(&key, &path);
        assert!(code == 1 && text.contains("ok_up_to=27, ok_up_to_line=8, diff="), "{text}");
        let (code, text) = check(&[key[0], key[1], "--fix"], &path);
        assert_eq!(code, 0, "{text}");
        let (code, text) = check(&key, &path);
        assert!(code == 0 && text.contains("size=27, ok_up_to=27"), "{text}");

        bytes[first - 1] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (code, text) = check(&key, &path);
        assert!(code == 1 && text.contains("AOF a.aof is sealed. "), "{text}");
        assert!(!text.contains("--key-file"), "{text}");
    }

    #[test]
    fn all_parts_of_a_manifest_are_checked() {
        let (folder, _) = file(b"");
        let manifest = folder.path().join("a.manifest");
        let snapshot = [b"REDIS0011".as_slice(), &resp(&["set a 1"])].concat();
        fs::write(folder.path().join("b"), snapshot).unwrap();
        fs::write(folder.path().join("i1"), "").unwrap();
        fs::write(folder.path().join("i2"), resp(&["set a 1"])).unwrap();
        let text = "file b seq 1 type b\nfile i1 seq 1 type i\nfile i2 seq 2 type i\n";
        fs::write(&manifest, text).unwrap();
        assert_eq!(
            check(&[], &manifest),
            (
                0,
                "Start checking Multi Part AOF\nStart to check BASE AOF (RDB format).\n\
                 a snapshot\nRDB preamble is OK, proceeding with AOF tail...\n\
                 AOF analyzed: filename=b, size=36, ok_up_to=36, ok_up_to_line=8, diff=0\n\
                 BASE AOF b is valid\nStart to check INCR files.\nINCR AOF i1 is empty\n\
                 AOF analyzed: filename=i2, size=27, ok_up_to=27, ok_up_to_line=8, diff=0\n\
                 INCR AOF i2 is valid\nAll AOF files and manifest are valid\n"
                    .into()
            )
        );
    }

    #[test]
    fn without_a_file_it_says_how_to_be_used() {
        let mut out = Vec::new();
        let world =
            World { out: &mut out, input: &mut io::empty(), check_snapshot: &mut |_, _, _| None };
        assert_eq!(run("redis-check-aof", &[], world), 1);
        assert!(out.starts_with(b"Usage: redis-check-aof [--fix|--truncate-to-timestamp $time"));
    }
}

//! The audit log: every change and every refused attempt, one JSON document a line, each of which names
//! the digest of the one before. Whoever alters, removes or inserts a line breaks the chain after it.
//!
//! A chain cannot show that its end was cut off, or that all of it was written anew by somebody who may
//! write the file: for that, keep the `head` that [`verify`] reports elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Its name in the data folder.
pub const FILE_NAME: &str = "audit.log";

/// What the first entry names as the one before.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Between what is hashed and its digest.
const SEAM: &str = ",\"hash\":\"";

/// A line longer than this is none of ours.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Text values longer than this are cut.
const TEXT_MAX: usize = 200;

/// What happened.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Entry {
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub method: String,
    pub path: String,
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// The request's body without its secrets.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub request: Value,
}

pub struct Audit {
    path: PathBuf,
    end: Mutex<End>,
}

struct End {
    file: File,
    sequence: u64,
    head: String,
    /// Where the last whole line ends. What is behind it is a line that could not be written.
    offset: u64,
}

impl Audit {
    /// Opens the log in the data folder and goes on where it ends. A last line that was not written
    /// whole, as after a crash, is taken away.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE_NAME);
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let whole = offset_of_last_line_end(&file)?;
        if whole < file.metadata()?.len() {
            file.set_len(whole)?;
        }
        let (sequence, head) = match last_line(&file, whole)? {
            None => (0, BEGINNING.to_owned()),
            Some(line) => Line::parse(&line)
                .map(|line| (line.sequence, line.hash))
                .ok_or_else(|| io::Error::other("the last line of the audit log is not sound"))?,
        };
        Ok(Self { path, end: Mutex::new(End { file, sequence, head, offset: whole }) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an entry; it is on the disk when this returns.
    pub fn append(&self, entry: &Entry, now_s: i64) -> io::Result<()> {
        let mut end = self.end.lock();
        let sequence = end.sequence + 1;
        let mut document = Map::new();
        document.insert("sequence".into(), json!(sequence));
        document.insert("time".into(), json!(crate::time::format(now_s)));
        if let Ok(Value::Object(members)) = serde_json::to_value(entry) {
            document.extend(members);
        }
        document.insert("previous".into(), json!(end.head));
        let mut line = Value::Object(document).to_string();
        line.pop(); // its closing brace
        let hash = digest(&line);
        line.push_str(SEAM);
        line.push_str(&hash);
        line.push_str("\"}\n");
        let written = end.file.write_all(line.as_bytes()).and_then(|()| end.file.sync_data());
        if let Err(error) = written {
            // Half a line would break the chain for ever.
            end.file.set_len(end.offset)?;
            return Err(error);
        }
        end.offset += line.len() as u64;
        end.sequence = sequence;
        end.head = hash;
        Ok(())
    }

    /// Checks the whole log.
    pub fn verify(&self) -> io::Result<Verdict> {
        // Nobody writes meanwhile, so the last line is whole.
        let _end = self.end.lock();
        verify(&self.path)
    }

    /// The last entries, oldest first.
    pub fn tail(&self, limit: usize) -> io::Result<Vec<Value>> {
        let _end = self.end.lock();
        let mut lines = std::collections::VecDeque::new();
        for line in BufReader::new(File::open(&self.path)?).lines() {
            if limit <= lines.len() {
                lines.pop_front();
            }
            lines.push_back(line?);
        }
        Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

/// What a check of the log found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Verdict {
    pub intact: bool,
    pub entries: u64,
    /// Digest of the last sound entry.
    pub head: String,
    /// The first line that is wrong, from 1, and what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// Checks a log from its first line to its last.
pub fn verify(path: &Path) -> io::Result<Verdict> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut verdict = Verdict {
        intact: true,
        entries: 0,
        head: BEGINNING.to_owned(),
        broken_line: None,
        reason: None,
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(verdict);
        }
        if let Err(reason) = follows(&line, &verdict) {
            verdict.intact = false;
            verdict.broken_line = Some(verdict.entries + 1);
            verdict.reason = Some(reason);
            return Ok(verdict);
        }
        verdict.head = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| Line::parse(line.trim_end()))
            .map_or_else(String::new, |line| line.hash);
        verdict.entries += 1;
    }
}

/// Whether a line is sound and continues what was found so far.
fn follows(line: &[u8], so_far: &Verdict) -> Result<(), &'static str> {
    let line = line.strip_suffix(b"\n").ok_or("the line has no end")?;
    let line = std::str::from_utf8(line).map_err(|_| "the line is not text")?;
    let (hashed, _) = line.rsplit_once(SEAM).ok_or("the line is not an entry")?;
    let line = Line::parse(line).ok_or("the line is not an entry")?;
    if digest(hashed) != line.hash {
        return Err("the entry was altered");
    }
    if line.previous != so_far.head {
        return Err("the entry does not follow the one before");
    }
    if line.sequence != so_far.entries + 1 {
        return Err("entries are missing");
    }
    Ok(())
}

/// What of a line makes the chain.
struct Line {
    sequence: u64,
    previous: String,
    hash: String,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let member = |name| Some(value.get(name)?.as_str()?.to_owned());
        Some(Self {
            sequence: value.get("sequence")?.as_u64()?,
            previous: member("previous")?,
            hash: member("hash")?,
        })
    }
}

fn digest(text: &str) -> String {
    carnelian_tls::hex(&Sha256::digest(text.as_bytes()))
}

fn offset_of_last_line_end(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let tail = tail_of(file, length)?;
    let last = tail.iter().rposition(|byte| *byte == b'\n');
    Ok(last.map_or(0, |at| length - (tail.len() - 1 - at) as u64))
}

fn last_line(file: &File, end: u64) -> io::Result<Option<String>> {
    if end == 0 {
        return Ok(None);
    }
    let tail = tail_of(file, end)?;
    let body = tail.strip_suffix(b"\n").unwrap_or(&tail);
    let start = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok(Some(String::from_utf8_lossy(&body[start..]).into_owned()))
}

fn tail_of(mut file: &File, end: u64) -> io::Result<Vec<u8>> {
    let start = end.saturating_sub(2 * LINE_BYTES_MAX as u64);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(end - start).read_to_end(&mut tail)?;
    Ok(tail)
}

/// A request's body as it may be written down: secrets masked, long texts cut.
pub fn without_secrets(body: &[u8]) -> Value {
    if body.trim_ascii().is_empty() {
        return Value::Null;
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => {
            let value = masked(value, 0);
            if value.to_string().len() <= LINE_BYTES_MAX / 8 {
                value
            } else {
                json!({"members": value.as_object().map(|members| members.len())})
            }
        }
        // It may hold anything, so nothing of it is kept.
        Err(_) => json!({"unreadable_bytes": body.len()}),
    }
}

fn masked(value: Value, depth: usize) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| {
                let value =
                    if is_secret(&name) { json!("(secret)") } else { masked(value, depth + 1) };
                (name, value)
            });
            Value::Object(members.collect())
        }
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| masked(item, depth + 1)).collect())
        }
        Value::String(text) if TEXT_MAX < text.len() || text.contains("PRIVATE KEY") => {
            json!(format!("({} bytes)", text.len()))
        }
        // A document that is nothing but a text could be a password.
        Value::String(_) if depth == 0 => json!("(secret)"),
        other => other,
    }
}

/// Whether a member's value stays unwritten, by its name.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["pass", "secret", "token", "key", "license", "command", "recovery", "uri", "url"]
        .iter()
        .any(|word| name.contains(word))
        && name != "shard_key_regex"
        && name != "implicit_shard_key"
        && !name.starts_with("tracking_table")
        && !name.starts_with("password_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(entries: u16) -> (tempfile::TempDir, Audit) {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path()).unwrap();
        for status in 0..entries {
            audit.append(&entry(status), 1000).unwrap();
        }
        (folder, audit)
    }

    fn entry(status: u16) -> Entry {
        Entry { user: "a@b".into(), method: "PUT".into(), status, ..Entry::default() }
    }

    fn altered(audit: &Audit, change: impl Fn(&mut Vec<String>)) -> Verdict {
        let text = std::fs::read_to_string(audit.path()).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        std::fs::write(audit.path(), lines.join("\n") + "\n").unwrap();
        verify(audit.path()).unwrap()
    }

    #[test]
    fn a_log_goes_on_where_it_ended() {
        let (folder, audit) = filled(2);
        drop(audit);
        let audit = Audit::open(folder.path()).unwrap();
        audit.append(&entry(2), 1000).unwrap();
        let verdict = audit.verify().unwrap();
        assert!(verdict.intact);
        assert_eq!(verdict.entries, 3);
        assert_eq!(audit.tail(2).unwrap()[1]["sequence"], json!(3));
    }

    #[test]
    fn what_was_altered_is_found() {
        let broken = |change: &dyn Fn(&mut Vec<String>)| {
            let verdict = altered(&filled(4).1, change);
            assert!(!verdict.intact);
            (verdict.broken_line.unwrap(), verdict.reason.unwrap())
        };
        let edit = |lines: &mut Vec<String>| lines[1] = lines[1].replace("a@b", "x@y");
        assert_eq!(broken(&edit), (2, "the entry was altered"));
        let remove = |lines: &mut Vec<String>| drop(lines.remove(1));
        assert_eq!(broken(&remove), (2, "the entry does not follow the one before"));
        let swap = |lines: &mut Vec<String>| lines.swap(1, 2);
        assert_eq!(broken(&swap), (2, "the entry does not follow the one before"));
        let repeat = |lines: &mut Vec<String>| lines.push(lines[3].clone());
        assert_eq!(broken(&repeat), (5, "the entry does not follow the one before"));
        let noise = |lines: &mut Vec<String>| lines[2] = "x".into();
        assert_eq!(broken(&noise), (3, "the line is not an entry"));
        // Written anew with a digest that fits its text, it no longer fits the next.
        let rewrite = |lines: &mut Vec<String>| {
            let text = lines[1].replace("a@b", "x@y");
            let hashed = text.rsplit_once(SEAM).unwrap().0;
            lines[1] = format!("{hashed}{SEAM}{}\"}}", digest(hashed));
        };
        assert_eq!(broken(&rewrite), (3, "the entry does not follow the one before"));
    }

    #[test]
    fn a_torn_last_line_is_taken_away() {
        let (folder, audit) = filled(2);
        let path = audit.path().to_owned();
        drop(audit);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq").unwrap();
        assert!(!verify(&path).unwrap().intact);
        let audit = Audit::open(folder.path()).unwrap();
        audit.append(&entry(2), 1000).unwrap();
        let verdict = audit.verify().unwrap();
        assert!(verdict.intact && verdict.entries == 3);
    }

    #[test]
    fn secrets_are_not_written_down() {
        let body = br#"{"name":"db","authentication_redis_pass":"hunter2","credentials":{"username":"a",
            "password":"hunter2"},"certificates":[{"name":"proxy","key":"hunter2"}],"a":"-----BEGIN RSA
            PRIVATE KEY-----hunter2"}"#;
        let body: Vec<u8> = body.iter().copied().filter(|byte| *byte != b'\n').collect();
        let text = without_secrets(&body).to_string();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("\"username\":\"a\""), "{text}");
        for body in [&b"\"hunter2\""[..], b"{\"password\": hunter2"] {
            assert!(!without_secrets(body).to_string().contains("hunter2"));
        }
        assert_eq!(without_secrets(b" "), Value::Null);
    }
}

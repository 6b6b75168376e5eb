//! The effects of one unit of work, as they are collected before they go into the log.

use std::ops::Range;

use carnelian_commands::{Rewrite, write_command};
use carnelian_keyspace::Changes;

use super::{EXEC, MULTI};

/// A unit of this size keeps no memory for the next: it becomes a piece of the log as it is.
pub(super) const LARGE_BYTES: usize = 64 << 10;

/// Effects of the units of work that a reactor runs, until they are in the log.
#[derive(Default)]
pub struct Unit {
    pub(super) bytes: Vec<u8>,
    /// Instead of that, the place among the bytes of a batch where all that there is stands as it came:
    /// each command a unit by itself.
    pub(super) sent: Range<usize>,
    /// Where the open unit begins, and how many commands it has so far.
    begin: usize,
    commands: u32,
    /// The logical databases of the first command and of the last.
    pub(super) databases: Option<(usize, usize)>,
    /// Where the bytes come from: see [`super::EffectLog::set_foreign`].
    pub(super) source: u64,
    /// What is selected behind bytes that come from elsewhere.
    pub(super) relayed_db: usize,
    /// A script does not want its commands logged. What departs is logged all the same.
    pub is_muted: bool,
}

impl Unit {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.sent.is_empty()
    }

    /// What the server that this one follows has sent: whole commands, as they came. They leave the
    /// logical database `db` selected.
    pub fn relay(&mut self, source: u64, db: usize, bytes: &[u8]) {
        (self.source, self.relayed_db) = (source, db);
        self.bytes.extend_from_slice(bytes);
    }

    /// What has been relayed leaves another logical database selected.
    pub fn note_selected(&mut self, db: usize) {
        self.relayed_db = db;
    }

    /// Takes back what has been relayed and is not in the log yet.
    pub fn take_relayed(&mut self) -> Vec<u8> {
        self.source = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * LARGE_BYTES);
        (self.begin, self.commands) = (0, 0);
        (self.databases, self.source) = (None, 0);
        self.sent = 0..0;
    }

    /// A command as the client sent it.
    pub fn verbatim(&mut self, db: usize, words: &[&[u8]]) {
        if !self.is_muted {
            self.command(db, words);
        }
    }

    fn command(&mut self, db: usize, words: &[&[u8]]) {
        self.select(db);
        // With the lengths before them. A large word is copied once.
        self.bytes.reserve(words.iter().map(|word| word.len() + 16).sum());
        write_command(&mut self.bytes, words.len(), words.iter().copied());
        self.commands += 1;
    }

    /// The same where its bytes may be at hand as they came: nearly always they are what would be
    /// written, and copied at once.
    #[inline]
    pub fn as_sent(&mut self, db: usize, words: &[&[u8]], sent: &[u8]) {
        if is_canonical(words, sent) {
            self.select(db);
            self.bytes.extend_from_slice(sent);
            self.commands += 1;
        } else {
            self.verbatim(db, words);
        }
    }

    /// A unit of one command whose bytes may be in `batch`, as they came. If only such ones follow each
    /// other they are not copied before they are in the log. Whether this is one; if not nothing was done.
    #[inline]
    pub fn unit_as_sent(
        &mut self,
        db: usize,
        words: &[&[u8]],
        batch: &[u8],
        sent: &Range<usize>,
    ) -> bool {
        let is_next = self.sent.is_empty() || self.sent.end == sent.start;
        let is_lone = self.bytes.is_empty() && self.databases.is_none_or(|all| all == (db, db));
        let begin = if self.sent.is_empty() { sent.start } else { self.sent.start };
        let is_small = sent.end.saturating_sub(begin) < LARGE_BYTES;
        if !is_next || !is_lone || !is_small || !is_canonical(words, &batch[sent.clone()]) {
            return false;
        }
        self.databases = Some((db, db));
        self.sent = begin..sent.end;
        true
    }

    /// Something else follows what was sent: copies that.
    #[inline]
    pub fn gather(&mut self, batch: &[u8]) {
        if !self.sent.is_empty() {
            self.bytes.extend_from_slice(&batch[std::mem::take(&mut self.sent)]);
            self.close_apart();
        }
    }

    /// Commands that do the same without chance or time.
    pub fn rewritten(&mut self, db: usize, rewrite: &Rewrite) {
        if rewrite.commands() != 0 && !self.is_muted {
            self.select(db);
            self.bytes.extend_from_slice(rewrite.as_bytes());
            self.commands += rewrite.commands();
        }
    }

    /// What has gone without a command: keys and fields that have expired, and keys that were evicted.
    #[inline]
    pub fn departures(&mut self, changes: &mut Changes, is_lazy: bool) {
        if !changes.has_departures() {
            return;
        }
        let name: &[u8] = if is_lazy { b"UNLINK" } else { b"DEL" };
        for (db, key) in changes.departed.drain(..) {
            self.command(db, &[name, &key]);
        }
        for (db, key, fields) in changes.expired_hash_fields.drain(..) {
            let (head, fields) = ([b"HDEL".as_slice(), &key], fields.iter().map(Vec::as_slice));
            self.select(db);
            write_command(&mut self.bytes, 2 + fields.len(), head.into_iter().chain(fields));
            self.commands += 1;
        }
    }

    /// Ends a unit: what it did is done whole or not at all.
    #[inline]
    pub fn close(&mut self) {
        if 1 < self.commands {
            self.bytes.splice(self.begin..self.begin, MULTI.iter().copied());
            self.bytes.extend_from_slice(EXEC);
        }
        self.close_apart();
    }

    /// Ends a unit of what was done to keys that nobody named: each by itself.
    #[inline]
    pub fn close_apart(&mut self) {
        (self.begin, self.commands) = (self.bytes.len(), 0);
    }

    fn select(&mut self, db: usize) {
        match &mut self.databases {
            None => self.databases = Some((db, db)),
            Some((_, last)) if *last == db => {}
            Some((_, last)) => {
                *last = db;
                write_select(&mut self.bytes, db);
            }
        }
    }
}

/// Whether a request in which these words were found has nothing in it that need not be there: line
/// ends that are others, zeros before lengths, or words on a line without lengths.
///
/// No header is shorter than the shortest one that says the same; so if all of them are together as long
/// as these, each is its own. Only of line ends there are others of the same length.
#[inline]
fn is_canonical(words: &[&[u8]], sent: &[u8]) -> bool {
    const END: Option<&[u8]> = Some(b"\r\n");
    if sent.first() != Some(&b'*') {
        return false;
    }
    let mut at = header_bytes(words.len());
    let mut are_ends = sent.get(at - 2..at) == END;
    for word in words {
        at += header_bytes(word.len());
        are_ends &= sent.get(at - 2..at) == END;
        at += word.len() + 2;
        are_ends &= sent.get(at - 2..at) == END;
    }
    are_ends && at == sent.len()
}

/// How long `$12\r\n` is.
#[inline]
fn header_bytes(count: usize) -> usize {
    3 + match count {
        0..10 => 1,
        10..100 => 2,
        _ => count.ilog10() as usize + 1,
    }
}

pub(super) fn write_select(out: &mut Vec<u8>, db: usize) {
    let mut buffer = itoa::Buffer::new();
    let words: [&[u8]; 2] = [b"SELECT", buffer.format(db).as_bytes()];
    write_command(out, 2, words.into_iter());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_kept_only_where_that_is_how_it_would_be_written() {
        let value = "v".repeat(120);
        let words: [&[u8]; 4] = [b"SET", b"k", value.as_bytes(), b""];
        let usual = format!("*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$120\r\n{value}\r\n$0\r\n\r\n");
        let mut canonical = Vec::new();
        write_command(&mut canonical, words.len(), words.iter().copied());
        assert_eq!(usual.as_bytes(), canonical);
        assert!(is_canonical(&words, &canonical));
        let long = vec![b'x'; 100_000];
        for length in [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 99_999, 100_000] {
            let words: Vec<&[u8]> = vec![&long[..length]; 11];
            let mut sent = Vec::new();
            write_command(&mut sent, words.len(), words.iter().copied());
            assert!(is_canonical(&words, &sent), "{length}");
        }
        for (from, to) in [
            ("*4\r\n", "*4\r."),
            ("*4\r\n", "*04\r\n"),
            ("$3\r\n", "$3\rx"),
            ("$3\r\n", "$+3\r\n"),
            ("\r\nk\r\n", "\r\nk.."),
            ("$0\r\n\r\n", "$0\r\n\r"),
            ("$0\r\n\r\n", "$0\r\n.\n"),
            ("$0\r\n\r\n", "$00\r\n\r\n"),
        ] {
            let odd = usual.replacen(from, to, 1);
            assert_ne!(odd, usual);
            assert!(!is_canonical(&words, odd.as_bytes()), "{odd:?}");
        }
        for odd in ["", "*", "SET k v", "\r\n*1\r\n"] {
            assert!(!is_canonical(&words, odd.as_bytes()));
        }
    }
}

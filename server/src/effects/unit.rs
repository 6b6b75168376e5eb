//! The effects of one unit of work, as they are collected before they go into the log.

use std::ops::Range;

use carnelian_commands::{Rewrite, write_command};
use carnelian_keyspace::Changes;

use super::{EXEC, MULTI};

/// No logical database: what comes next has to name its own.
pub(super) const UNKNOWN: usize = usize::MAX;

/// A unit of this size keeps no memory for the next: it becomes a piece of the log as it is.
pub(super) const LARGE_BYTES: usize = 64 << 10;

/// Each field that has expired is told by itself, as Redis does. With a longer key than this the fields of
/// a hash are told together: thousands of them could make gigabytes of one key.
const REPEATED_KEY_BYTES: usize = 4 << 10;

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
    /// For whom a script's commands are. What departs is for all, all the same.
    pub audience: Audience,
    /// Commands of the open unit that are not for all.
    apart: Vec<Apart>,
    /// Units that are not the same for all, in order.
    pub(super) divided: Vec<Divided>,
}

/// Who is to get effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    #[default]
    All,
    File,
    Replicas,
    Nobody,
}

/// Commands that are not for all.
struct Apart {
    place: Range<usize>,
    audience: Audience,
    commands: u32,
}

/// A unit of which the append-only file gets another version than replicas do.
#[derive(Debug)]
pub(super) struct Divided {
    /// Where the replicas' is.
    pub place: Range<usize>,
    /// Nothing in it is for them, but for what takes the place.
    pub is_filler: bool,
    pub for_file: Vec<u8>,
}

/// What replicas get instead of a unit that is for the file alone: it takes its place in the sequence, and
/// they know it from idle times.
const FILLER: &[u8] = b"*1\r\n$4\r\nPING\r\n";

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
        self.apart.clear();
        self.divided.clear();
    }

    /// A command as the client sent it.
    pub fn verbatim(&mut self, db: usize, words: &[&[u8]]) {
        match self.audience {
            Audience::All => self.command(db, words),
            audience => self.apart(db, audience, |unit| unit.command(db, words)),
        }
    }

    /// A command that is nothing for the append-only file: it changes no data.
    pub fn for_replicas(&mut self, db: usize, words: &[&[u8]]) {
        if matches!(self.audience, Audience::All | Audience::Replicas) {
            self.apart(db, Audience::Replicas, |unit| unit.command(db, words));
        }
    }

    /// What `collect` adds is not for all.
    #[cold]
    fn apart(&mut self, db: usize, audience: Audience, collect: impl FnOnce(&mut Self)) {
        if audience == Audience::Nobody {
            return;
        }
        self.select(db);
        let (begin, before) = (self.bytes.len(), self.commands);
        collect(self);
        let commands = self.commands - before;
        self.apart.push(Apart { place: begin..self.bytes.len(), audience, commands });
        // Counts once more, so that whoever closes a unit of several looks here.
        self.commands += 1;
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
        if rewrite.commands() != 0 {
            match self.audience {
                Audience::All => self.rewrite(db, rewrite),
                audience => self.apart(db, audience, |unit| unit.rewrite(db, rewrite)),
            }
        }
    }

    fn rewrite(&mut self, db: usize, rewrite: &Rewrite) {
        self.select(db);
        self.bytes.extend_from_slice(rewrite.as_bytes());
        self.commands += rewrite.commands();
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
            let at_once = if key.len() <= REPEATED_KEY_BYTES { 1 } else { fields.len() };
            for some in fields.chunks(at_once) {
                self.select(db);
                let words = [b"HDEL".as_slice(), &key].into_iter();
                let words = words.chain(some.iter().map(Vec::as_slice));
                write_command(&mut self.bytes, 2 + some.len(), words);
                self.commands += 1;
            }
        }
    }

    /// Ends a unit: what it did is done whole or not at all.
    #[inline]
    pub fn close(&mut self) {
        if 1 < self.commands {
            if self.apart.is_empty() {
                self.bytes.splice(self.begin..self.begin, MULTI.iter().copied());
                self.bytes.extend_from_slice(EXEC);
            } else {
                self.divide();
            }
        }
        self.close_apart();
    }

    /// Makes two versions of the open unit: one for replicas in its place, and one for the file.
    #[cold]
    fn divide(&mut self) {
        let apart = std::mem::take(&mut self.apart);
        let counted: u32 = apart.iter().map(|part| part.commands + 1).sum();
        let shared = self.commands - counted;
        let for_file = self.version_for(Audience::File, shared, &apart);
        let mut for_replicas = self.version_for(Audience::Replicas, shared, &apart);
        let bytes: usize = apart.iter().map(|part| part.place.len()).sum();
        let selects = shared == 0 && bytes < self.bytes.len() - self.begin;
        if selects
            && (for_file.is_empty() || for_replicas.is_empty())
            && let Some((_, last)) = &mut self.databases
        {
            // Only one of them learns what is selected.
            *last = UNKNOWN;
        }
        let is_filler = for_replicas.is_empty();
        if is_filler {
            for_replicas.extend_from_slice(FILLER);
        }
        self.bytes.truncate(self.begin);
        self.bytes.extend_from_slice(&for_replicas);
        let place = self.begin..self.bytes.len();
        self.divided.push(Divided { place, is_filler, for_file });
    }

    /// What of the open unit is for all or for this audience.
    fn version_for(&self, audience: Audience, shared: u32, apart: &[Apart]) -> Vec<u8> {
        let own = apart.iter().filter(|part| part.audience == audience);
        let commands = shared + own.map(|part| part.commands).sum::<u32>();
        let mut version = Vec::new();
        if commands == 0 {
            return version;
        }
        if 1 < commands {
            version.extend_from_slice(MULTI);
        }
        let mut at = self.begin;
        for part in apart {
            let end = if part.audience == audience { part.place.end } else { part.place.start };
            version.extend_from_slice(&self.bytes[at..end]);
            at = part.place.end;
        }
        version.extend_from_slice(&self.bytes[at..]);
        if 1 < commands {
            version.extend_from_slice(EXEC);
        }
        version
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
    fn fields_that_expire_are_told_one_by_one_unless_their_key_is_long() {
        let told = |key: &[u8], closes: bool| {
            let fields = vec![b"a".to_vec(), b"b".to_vec()];
            let mut changes = Changes::default();
            changes.expired_hash_fields.push((0, key.into(), fields));
            let mut unit = Unit::default();
            unit.departures(&mut changes, false);
            if closes {
                unit.close();
            }
            String::from_utf8(unit.bytes).unwrap()
        };
        let field = |name: &str| format!("*3\r\n$4\r\nHDEL\r\n$1\r\nh\r\n$1\r\n{name}\r\n");
        let both = field("a") + &field("b");
        assert_eq!(told(b"h", false), both);
        assert_eq!(told(b"h", true), format!("*1\r\n$5\r\nMULTI\r\n{both}*1\r\n$4\r\nEXEC\r\n"));
        let long = vec![b'k'; REPEATED_KEY_BYTES + 1];
        assert_eq!(told(&long, true).matches("HDEL").count(), 1);
    }

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

//! Files written: records are appended to a buffer, which whoever has the file or socket takes away
//! from time to time.
//!
//! [`Records`] makes the record of a key without knowing the file, so that several threads can; the
//! one [`FileWriter`] puts them in the file, each in its logical database.

use std::io::{self, Write};

use carnelian_keyspace::{AccessPolicy, Limits, Value, frequency, idle_seconds};
use carnelian_structs::entry::EntryRef;

use super::{MAGIC, code};
use crate::rdb::crc64::crc64;
use crate::rdb::writer::Sink;
use crate::rdb::{Form, Pieces, VERSION_MAX, VERSION_MIN, is_long, save, type_of};

/// What a record says of the last use of its key, by the policy of `maxmemory-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Unsaid,
    Idle,
    /// With `lfu-decay-time`.
    Frequency {
        decay_minutes: u32,
    },
}

impl Access {
    /// What Redis says under a policy: nothing, if it evicts without looking at the use.
    #[must_use]
    pub const fn under(policy: AccessPolicy, evicts_by_use: bool) -> Self {
        match policy {
            AccessPolicy::Lfu { decay_minutes, .. } => Self::Frequency { decay_minutes },
            AccessPolicy::Lru if evicts_by_use => Self::Idle,
            AccessPolicy::Lru => Self::Unsaid,
        }
    }
}

/// Makes records of keys. Cheap to copy: each thread that makes some has its own.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    pub limits: Limits,
    pub form: Form,
    pub access: Access,
    /// When the snapshot was taken.
    pub now_ms: u64,
}

impl Records {
    /// Appends the record of a key: expiry, use, type, key and value. It belongs behind the
    /// selection of the key's logical database.
    pub fn append(&self, entry: EntryRef<'_, Value>, out: &mut Vec<u8>) {
        self.head(entry, out);
        save(entry, &self.limits, &self.form, out);
    }

    /// Whether a key is better written by the three that follow than by [`Records::append`].
    #[must_use]
    pub fn is_long(&self, entry: EntryRef<'_, Value>) -> bool {
        is_long(entry, &self.form)
    }

    /// Appends the beginning of the record of a key with a long value.
    pub fn begin(&self, entry: EntryRef<'_, Value>, out: &mut Vec<u8>) -> Pieces {
        self.head(entry, out);
        Pieces::begin(entry, &self.form, out)
    }

    /// Appends more of it, until `goes_on` says no. Whether that was all, but for its end.
    pub fn go_on(
        &self,
        pieces: &mut Pieces,
        entry: EntryRef<'_, Value>,
        out: &mut Vec<u8>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> bool {
        pieces.go_on(entry, &self.limits, &self.form, out, goes_on)
    }

    /// Appends its end, for which the key is not needed any more.
    pub fn end(&self, pieces: Pieces, out: &mut Vec<u8>) {
        pieces.end(&self.form, out);
    }

    /// What comes before the value.
    fn head(&self, entry: EntryRef<'_, Value>, out: &mut Vec<u8>) {
        if let Some(at) = entry.expiry() {
            out.push(code::EXPIRY_MS);
            out.extend_from_slice(&at.to_le_bytes());
        }
        match self.access {
            Access::Unsaid => {}
            Access::Idle => {
                out.push(code::IDLE);
                let idle = idle_seconds(entry.access(), self.now_ms);
                Sink::new(out, &self.form).length(idle.into());
            }
            Access::Frequency { decay_minutes } => {
                let frequency = frequency(entry.access(), self.now_ms, decay_minutes);
                out.extend_from_slice(&[code::FREQUENCY, frequency as u8]);
            }
        }
        out.push(type_of(entry, &self.form) as u8);
        Sink::new(out, &self.form).string(entry.key());
    }
}

/// A file in the making. What has been appended is in a buffer until it is taken.
#[derive(Debug)]
pub struct FileWriter {
    form: Form,
    buffer: Vec<u8>,
    /// What of the buffer the checksum covers already.
    summed: usize,
    /// Of all that was appended; `None` with `rdbchecksum no`.
    checksum: Option<u64>,
    /// The logical database of the records that follow.
    selected: Option<usize>,
    taken_bytes: u64,
}

impl FileWriter {
    /// Begins a file.
    #[must_use]
    pub fn new(form: Form, checksum: bool) -> Self {
        debug_assert!((VERSION_MIN..=VERSION_MAX).contains(&form.version));
        let mut buffer = Vec::with_capacity(1 << 16);
        buffer.extend_from_slice(MAGIC);
        buffer.extend_from_slice(format!("{:04}", form.version).as_bytes());
        let checksum = checksum.then_some(0);
        Self { form, buffer, summed: 0, checksum, selected: None, taken_bytes: 0 }
    }

    /// Something that is told of the file; readers pass over names they do not know. Belongs in front.
    pub fn aux(&mut self, name: &str, value: &[u8]) {
        let mut sink = Sink::new(&mut self.buffer, &self.form);
        sink.raw(&[code::AUX]);
        sink.string(name.as_bytes());
        sink.string(value);
    }

    /// The same with a number.
    pub fn aux_number(&mut self, name: &str, value: u64) {
        self.aux(name, itoa::Buffer::new().format(value).as_bytes());
    }

    /// The source of a library of functions. Before version 10 there is no place for one.
    pub fn function(&mut self, source: &[u8]) {
        let mut sink = Sink::new(&mut self.buffer, &self.form);
        sink.raw(&[code::FUNCTION]);
        sink.string(source);
    }

    /// Announces how many keys the logical database has, and how many of them expire.
    pub fn resize(&mut self, db: usize, keys: u64, expires: u64) {
        self.select(db);
        let mut sink = Sink::new(&mut self.buffer, &self.form);
        sink.raw(&[code::RESIZE]);
        sink.length(keys);
        sink.length(expires);
    }

    /// Has the records that follow belong to a logical database.
    pub fn select(&mut self, db: usize) {
        if self.selected.replace(db) != Some(db) {
            let mut sink = Sink::new(&mut self.buffer, &self.form);
            sink.raw(&[code::SELECT]);
            sink.length(db as u64);
        }
    }

    /// Appends the record of a key.
    pub fn entry(&mut self, db: usize, entry: EntryRef<'_, Value>, records: &Records) {
        self.select(db);
        records.append(entry, &mut self.buffer);
    }

    /// Appends records that [`Records`] made before, of keys of one logical database.
    pub fn records(&mut self, db: usize, records: &[u8]) {
        if !records.is_empty() {
            self.select(db);
            self.buffer.extend_from_slice(records);
        }
    }

    /// Ends the file; what is in the buffer then is the last of it.
    pub fn end(&mut self) {
        self.buffer.push(code::END);
        self.sum();
        let checksum = self.checksum.unwrap_or(0);
        self.buffer.extend_from_slice(&checksum.to_le_bytes());
        self.summed = self.buffer.len();
    }

    /// Bytes in the buffer.
    #[must_use]
    pub const fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of the file up to here, taken or not.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.taken_bytes + self.buffer.len() as u64
    }

    /// Takes what is in the buffer, which starts anew with `next`: an empty one, best one that was
    /// taken before.
    #[must_use]
    pub fn take(&mut self, next: Vec<u8>) -> Vec<u8> {
        debug_assert!(next.is_empty());
        self.sum();
        (self.taken_bytes, self.summed) = (self.bytes(), 0);
        std::mem::replace(&mut self.buffer, next)
    }

    /// Writes what is in the buffer. After an error the file is of no use.
    pub fn write_to(&mut self, to: &mut impl Write) -> io::Result<()> {
        self.sum();
        to.write_all(&self.buffer)?;
        (self.taken_bytes, self.summed) = (self.bytes(), 0);
        self.buffer.clear();
        Ok(())
    }

    fn sum(&mut self) {
        if let Some(checksum) = &mut self.checksum {
            *checksum = crc64(*checksum, &self.buffer[self.summed..]);
        }
        self.summed = self.buffer.len();
    }
}

#[cfg(test)]
mod tests {
    use carnelian_keyspace::{Aftermath, Db, Expiry, Keyspace};

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn records(access: Access) -> Records {
        let form = Form { version: 11, compress: true };
        Records { limits: Limits::default(), form, access, now_ms: NOW_MS }
    }

    fn with_key<R>(expiry: Expiry, act: impl FnOnce(EntryRef<'_, Value>) -> R) -> R {
        let keyspace = Keyspace::new(1);
        let mut aftermath = Aftermath::default();
        let policy = AccessPolicy::Lru;
        let mut db = Db::new(keyspace.lock_all(), 0, NOW_MS - 5000, policy, &mut aftermath);
        db.set_string(b"key", b"value", expiry);
        act(db.look(b"key").expect("it was set"))
    }

    #[test]
    fn a_file_has_the_bytes_of_the_format() {
        let mut writer = FileWriter::new(Form { version: 11, compress: true }, true);
        writer.aux_number("redis-bits", 64);
        writer.function(b"#!lua name=l");
        writer.resize(0, 1, 0);
        let records = records(Access::Unsaid);
        with_key(Expiry::At(NOW_MS), |entry| writer.entry(0, entry, &records));
        with_key(Expiry::Clear, |entry| writer.entry(3, entry, &records));
        writer.records(3, b"");
        writer.end();
        let file = writer.take(Vec::new());
        let mut expected =
            b"REDIS0011\xFA\x0Aredis-bits\xC0\x40\xF5\x0C#!lua name=l\xFE\0\xFB\x01\0\xFC".to_vec();
        expected.extend_from_slice(&NOW_MS.to_le_bytes());
        expected.extend_from_slice(b"\0\x03key\x05value\xFE\x03\0\x03key\x05value\xFF");
        let checksum = crc64(0, &expected);
        expected.extend_from_slice(&checksum.to_le_bytes());
        assert_eq!(file, expected);
        assert_eq!(writer.bytes(), file.len() as u64);
    }

    #[test]
    fn the_last_use_is_told_as_the_policy_asks_for() {
        let record = |access| {
            let mut out = Vec::new();
            with_key(Expiry::Clear, |entry| records(access).append(entry, &mut out));
            out
        };
        assert_eq!(record(Access::Idle), b"\xF8\x05\0\x03key\x05value");
        let counter = record(Access::Frequency { decay_minutes: 0 });
        assert_eq!((counter[0], counter.len()), (0xF9, 13));
        let lfu = AccessPolicy::Lfu { log_factor: 10, decay_minutes: 3 };
        assert_eq!(Access::under(lfu, true), Access::Frequency { decay_minutes: 3 });
        assert_eq!(Access::under(AccessPolicy::Lru, false), Access::Unsaid);
    }

    #[test]
    fn the_checksum_is_the_same_in_whatever_pieces_the_file_is_taken() {
        let write = |checksum, each: &mut dyn FnMut(&mut FileWriter)| {
            let mut writer = FileWriter::new(Form { version: 11, compress: false }, checksum);
            for at in 0..20 {
                writer.records(at % 3, &[b'r'; 50]);
                each(&mut writer);
            }
            writer.end();
            each(&mut writer);
            writer.take(Vec::new())
        };
        let whole = write(true, &mut |_| {});
        let mut pieces = Vec::new();
        write(true, &mut |writer| pieces.extend(writer.take(Vec::new())));
        assert_eq!(pieces, whole);
        let mut written = Vec::new();
        write(true, &mut |writer| writer.write_to(&mut written).expect("vectors take all"));
        assert_eq!(written, whole);
        let unsummed = write(false, &mut |_| {});
        let (body, checksum) = unsummed.split_last_chunk::<8>().expect("it is longer");
        assert_eq!((body, checksum), (&whole[..body.len()], &[0; 8]));
    }
}

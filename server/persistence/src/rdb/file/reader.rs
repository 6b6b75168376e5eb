//! Files read: one record after another, found in a chunk of the input without being decoded.
//!
//! A chunk is handed over with the places of the keys in it, so that nothing is copied until a value
//! is made of it. What lies between the keys goes to an [`Observer`] at once. No more of the input is
//! kept than one record needs, or a chunk if that is longer.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};
use std::ops::Range;

use carnelian_keyspace::LastUse;

use super::{CHECKSUM_BYTES, Fault, FileError, HEADER_BYTES, MAGIC, MAGIC_VALKEY, code, module};
use crate::rdb::crc64::crc64;
use crate::rdb::skip::skip;
use crate::rdb::{Lineage, LoadError, Reader, Type, VERSION_MAX};

/// What a chunk holds, unless one record is longer.
const CHUNK_BYTES: usize = 256 * 1024;
/// The first version with a checksum.
const VERSION_CHECKSUM: u32 = 5;
/// What records of versions before that do not begin with.
const LATER_CODES: Range<u8> = Type::ListQuicklist as u8..code::EXPIRY_MS;
/// The newest version of Valkey that is read, and the first that is its own.
const VERSION_VALKEY: Range<u32> = 80..81;

/// Hears of what a file has beside keys, in the order in which it comes.
pub trait Observer {
    /// The file has been read up to here; said before what is told of it.
    fn at(&mut self, _offset: u64) {}
    /// The header was read.
    fn version(&mut self, _lineage: Lineage, _version: u32) {}
    fn aux(&mut self, _name: &[u8], _value: &[u8]) {}
    /// The keys that follow belong to this logical database.
    fn database(&mut self, _db: usize) {}
    /// The source of a library of functions; the error ends the reading.
    fn function(&mut self, _source: &[u8]) -> Result<(), String> {
        Ok(())
    }
    /// Data of a module beside its keys, which is passed over.
    fn module_aux(&mut self, _module: &str) {}
    /// A key with a value of a module, which is passed over.
    fn module_value(&mut self, _module: &str) {}
    /// The checksum is right, or the file was saved without one.
    fn checksum(&mut self, _is_there: bool) {}
}

/// Hears nothing.
impl Observer for () {}

/// A key found in a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub db: usize,
    pub expiry: Option<u64>,
    pub last_use: LastUse,
    pub kind: Type,
    /// In the chunk, as the format writes strings.
    pub key: Range<usize>,
    pub value: Range<usize>,
}

/// A part of a file and the keys in it.
#[derive(Default)]
pub struct Chunk {
    pub bytes: Vec<u8>,
    /// Where in the file the bytes begin.
    pub offset: u64,
    pub found: Vec<Found>,
}

/// What is believed of a file.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// Logical databases that there are.
    pub databases: usize,
    /// Whether a wrong checksum matters.
    pub checksum: bool,
    /// `rdb-version-check relaxed`: try what newer versions have written.
    pub newer: bool,
    /// Whether values of modules are passed over, instead of being refused.
    pub passes_modules: bool,
    /// The longest string that a compressed one may be.
    pub expanded_bytes_max: usize,
    /// How long the input is, where that is known: what claims to be longer is refused at once.
    pub input_bytes: Option<u64>,
}

/// Reads a file from `input`, which may go on behind it.
pub struct FileReader<R> {
    input: R,
    trust: Trust,
    /// Initialised in full; the input's bytes are at `at..filled`.
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    /// Where in the file the buffer begins.
    offset: u64,
    /// Of everything before `summed` in the buffer.
    checksum: u64,
    summed: usize,
    is_input_at_end: bool,
    lineage: Lineage,
    version: u32,
    state: State,
    db: usize,
    expiry: Option<u64>,
    last_use: LastUse,
    /// What is wrong behind the keys that were handed over last.
    failure: Option<FileError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Records,
    Footer,
    End,
}

/// What was found at the start of what has not been read.
enum Item<'a> {
    Key {
        kind: Type,
        key: Range<usize>,
        value: Range<usize>,
    },
    Expiry(Option<u64>),
    LastUse(LastUse),
    Database(u64),
    Aux(Cow<'a, [u8]>, Cow<'a, [u8]>),
    Function(Cow<'a, [u8]>),
    ModuleAux(String),
    /// A key with a value of this type.
    Module(String),
    /// Told for the sake of who reserves room.
    Hint,
    End,
}

impl<R: Read> FileReader<R> {
    #[must_use]
    pub fn new(input: R, trust: Trust) -> Self {
        Self {
            input,
            trust,
            buffer: Vec::new(),
            at: 0,
            filled: 0,
            offset: 0,
            checksum: 0,
            summed: 0,
            is_input_at_end: false,
            lineage: Lineage::Redis,
            version: 0,
            state: State::Header,
            db: 0,
            expiry: None,
            last_use: LastUse::Unsaid,
            failure: None,
        }
    }

    /// Bytes of the file that have been read.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.offset + self.at as u64
    }

    /// What was read of the input behind the end of the file.
    #[must_use]
    pub fn behind(&self) -> &[u8] {
        &self.buffer[self.at..self.filled]
    }

    /// Puts the next keys in `chunk`, `keys_max` at most. Whether there are any: after the last of
    /// them the checksum was right.
    pub fn next(
        &mut self,
        chunk: &mut Chunk,
        keys_max: usize,
        observer: &mut dyn Observer,
    ) -> Result<bool, FileError> {
        chunk.found.clear();
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.state == State::Header {
            self.header(observer)?;
        }
        let found = self.find(chunk, keys_max, observer);
        if !chunk.found.is_empty() {
            self.failure = found.err();
            self.hand_over(chunk);
            return Ok(true);
        }
        found?;
        if self.state == State::Footer {
            self.footer(observer)?;
        }
        Ok(false)
    }

    /// Reads records until the chunk is full or the file ends.
    fn find(
        &mut self,
        chunk: &mut Chunk,
        keys_max: usize,
        observer: &mut dyn Observer,
    ) -> Result<(), FileError> {
        while self.state == State::Records && chunk.found.len() < keys_max {
            let Some(missing) = self.step(&mut chunk.found, observer)? else { continue };
            self.expect(missing)?;
            // Looked at again when there is much more of it: a long record that comes in small
            // pieces would be looked at for ever.
            let wanted = missing.max((self.filled - self.at) / 2);
            if chunk.found.is_empty() {
                self.shift();
            } else if self.buffer.len() - self.filled < wanted {
                break;
            }
            self.fill(wanted)?;
        }
        Ok(())
    }

    /// Reads one record. If it is cut short, nothing has been read, and this many bytes more are
    /// needed at least.
    fn step(
        &mut self,
        found: &mut Vec<Found>,
        observer: &mut dyn Observer,
    ) -> Result<Option<usize>, FileError> {
        let unread = &self.buffer[self.at..self.filled];
        let mut reader = Reader::new(unread, self.trust.expanded_bytes_max);
        // Files without a checksum are older than all this. It is not taken from them, so that no
        // damage to the version does away with the checksum of another.
        let is_out_of_time = self.version < VERSION_CHECKSUM
            && unread.first().is_some_and(|byte| LATER_CODES.contains(byte));
        if is_out_of_time {
            return Err(FileError::new(self.position(), Fault::Code(unread[0])));
        }
        let item = match Item::read(&mut reader, self.at, self.lineage) {
            Ok(item) => item,
            Err(Fault::Value(LoadError::Truncated)) => return Ok(Some(reader.missing().max(1))),
            Err(fault) => {
                let at = self.filled - reader.rest().len();
                return Err(self.in_record(self.offset + at as u64, fault));
            }
        };
        let end = self.filled - reader.rest().len();
        observer.at(self.offset + end as u64);
        match item {
            Item::Key { kind, key, value } => found.push(Found {
                db: self.db,
                expiry: self.expiry.take(),
                last_use: std::mem::take(&mut self.last_use),
                kind,
                key,
                value,
            }),
            Item::Expiry(at) => self.expiry = at,
            Item::LastUse(last_use) => self.last_use = last_use,
            Item::Database(db) => {
                self.db = usize::try_from(db)
                    .ok()
                    .filter(|db| *db < self.trust.databases)
                    .ok_or_else(|| FileError::new(self.position(), Fault::Database(db)))?;
                observer.database(self.db);
            }
            Item::Aux(name, value) => observer.aux(&name, &value),
            Item::Function(source) => observer
                .function(&source)
                .map_err(|text| FileError::new(self.position(), Fault::Function(text)))?,
            Item::ModuleAux(module) => observer.module_aux(&module),
            Item::Module(module) if self.trust.passes_modules => {
                (self.expiry, self.last_use) = (None, LastUse::Unsaid);
                observer.module_value(&module);
            }
            Item::Module(module) => {
                return Err(self.in_record(self.position(), Fault::Module(module)));
            }
            Item::Hint => {}
            Item::End => self.state = State::Footer,
        }
        self.at = end;
        Ok(None)
    }

    /// An error in the record that is being read, with its key if that can be told.
    fn in_record(&self, offset: u64, fault: Fault) -> FileError {
        let unread = &self.buffer[self.at..self.filled];
        let mut reader = Reader::new(unread, self.trust.expanded_bytes_max);
        let kind = reader.byte().ok().and_then(|byte| Type::of(byte, self.lineage));
        let key = kind.and_then(|_| reader.string().ok()).map(|key| (*key).into());
        FileError { kind: kind.filter(|_| key.is_some()), key, ..FileError::new(offset, fault) }
    }

    fn header(&mut self, observer: &mut dyn Observer) -> Result<(), FileError> {
        self.fill(HEADER_BYTES)?;
        let Some(header) = self.buffer[..self.filled].first_chunk::<HEADER_BYTES>() else {
            let offset = self.filled as u64;
            return Err(FileError::new(offset, Fault::End));
        };
        let (lineage, digits) = if let Some(digits) = header.strip_prefix(MAGIC) {
            (Lineage::Redis, digits)
        } else if let Some(digits) = header.strip_prefix(MAGIC_VALKEY) {
            (Lineage::Valkey, digits)
        } else {
            return Err(FileError::new(HEADER_BYTES as u64, Fault::Signature));
        };
        let version = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
        let version =
            version.ok_or_else(|| FileError::new(HEADER_BYTES as u64, Fault::Version(0)))?;
        let known = match lineage {
            Lineage::Redis => 1..u32::from(VERSION_MAX) + 1,
            Lineage::Valkey => VERSION_VALKEY,
        };
        if version < known.start || (known.end <= version && !self.trust.newer) {
            return Err(FileError::new(HEADER_BYTES as u64, Fault::Version(version)));
        }
        (self.lineage, self.version) = (lineage, version);
        (self.at, self.state) = (HEADER_BYTES, State::Records);
        observer.version(lineage, version);
        Ok(())
    }

    fn footer(&mut self, observer: &mut dyn Observer) -> Result<(), FileError> {
        self.sum();
        self.state = State::End;
        if self.version < VERSION_CHECKSUM {
            return Ok(());
        }
        if self.filled - self.at < CHECKSUM_BYTES {
            self.fill(CHECKSUM_BYTES - (self.filled - self.at))?;
        }
        let Some(found) = self.buffer[self.at..self.filled].first_chunk::<CHECKSUM_BYTES>() else {
            return Err(FileError::new(self.offset + self.filled as u64, Fault::End));
        };
        let (found, expected) = (u64::from_le_bytes(*found), self.checksum);
        self.at += CHECKSUM_BYTES;
        if self.trust.checksum {
            if found != 0 && found != expected {
                return Err(FileError::new(self.position(), Fault::Checksum { expected, found }));
            }
            observer.at(self.position());
            observer.checksum(found != 0);
        }
        Ok(())
    }

    /// Refuses what would reach over the end of the input.
    fn expect(&self, missing: usize) -> Result<(), FileError> {
        let known = self.offset + self.filled as u64;
        match self.trust.input_bytes {
            Some(bytes) if bytes < known.saturating_add(missing as u64) => {
                Err(self.in_record(self.position(), Fault::End))
            }
            _ => Ok(()),
        }
    }

    /// Reads on until there are `wanted` bytes more, or the input ends. Room is made as the input
    /// comes: what a length claims costs nothing.
    fn fill(&mut self, wanted: usize) -> Result<(), FileError> {
        let end = self.offset + self.filled as u64;
        if self.is_input_at_end {
            return Err(self.in_record(end, Fault::End));
        }
        let enough = self.filled.saturating_add(wanted);
        while self.filled < enough {
            if self.filled == self.buffer.len() {
                self.buffer.resize((2 * self.buffer.len()).max(CHUNK_BYTES), 0);
            }
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(0) => {
                    self.is_input_at_end = true;
                    break;
                }
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(FileError::new(self.offset + self.filled as u64, error));
                }
            }
        }
        Ok(())
    }

    /// Drops what has been read from the buffer.
    fn shift(&mut self) {
        if self.at == 0 {
            return;
        }
        self.sum();
        self.buffer.copy_within(self.at..self.filled, 0);
        self.offset += self.at as u64;
        self.filled -= self.at;
        (self.at, self.summed) = (0, 0);
    }

    /// Gives what has been read to `chunk` and goes on in the buffer that it had.
    fn hand_over(&mut self, chunk: &mut Chunk) {
        self.sum();
        let rest = &self.buffer[self.at..self.filled];
        let mut next = std::mem::take(&mut chunk.bytes);
        if next.len() < rest.len().max(CHUNK_BYTES) || 4 * CHUNK_BYTES < next.len() {
            next = vec![0; rest.len().max(CHUNK_BYTES)];
        }
        next[..rest.len()].copy_from_slice(rest);
        chunk.bytes = std::mem::replace(&mut self.buffer, next);
        chunk.offset = self.offset;
        self.offset += self.at as u64;
        self.filled -= self.at;
        (self.at, self.summed) = (0, 0);
    }

    fn sum(&mut self) {
        if self.trust.checksum {
            self.checksum = crc64(self.checksum, &self.buffer[self.summed..self.at]);
        }
        self.summed = self.at;
    }
}

impl<'a> Item<'a> {
    /// Reads a record of a chunk that begins `at` in its buffer.
    fn read(reader: &mut Reader<'a>, at: usize, lineage: Lineage) -> Result<Self, Fault> {
        let all = reader.rest().len();
        let byte = reader.byte()?;
        Ok(match byte {
            code::EXPIRY => {
                let seconds = i64::from(i32::from_le_bytes(reader.array()?));
                Self::Expiry(time(seconds.saturating_mul(1000)))
            }
            code::EXPIRY_MS => Self::Expiry(time(i64::from_le_bytes(reader.array()?))),
            code::FREQUENCY => Self::LastUse(LastUse::Frequency(reader.byte()?)),
            code::IDLE => Self::LastUse(LastUse::IdleSeconds(reader.length()?)),
            code::SELECT => Self::Database(reader.length()?),
            code::AUX => Self::Aux(reader.string()?, reader.string()?),
            code::RESIZE => {
                skip_lengths(reader, 2)?;
                Self::Hint
            }
            code::SLOT => {
                skip_lengths(reader, 3)?;
                Self::Hint
            }
            code::SLOT_IMPORT if lineage == Lineage::Valkey => {
                reader.skip_string()?;
                let ranges = reader.length()?;
                for _ in 0..ranges {
                    skip_lengths(reader, 2)?;
                }
                Self::Hint
            }
            code::FUNCTION => Self::Function(reader.string()?),
            code::FUNCTION_PREVIEW => return Err(Fault::PreviewFunction),
            code::MODULE_AUX => Self::ModuleAux(module::skip_aux(reader)?),
            code::END => Self::End,
            code::MODULE_PREVIEW => {
                reader.skip_string()?;
                return Err(Fault::Module(module::name(reader.length()?)));
            }
            code::MODULE => {
                reader.skip_string()?;
                Self::Module(module::skip_value(reader)?)
            }
            byte => {
                let kind = Type::of(byte, lineage).ok_or(Fault::Code(byte))?;
                let place = |reader: &Reader<'_>| at + all - reader.rest().len();
                let key = place(reader);
                reader.skip_string()?;
                let value = place(reader);
                skip(kind, reader)?;
                Self::Key { kind, key: key..value, value: value..place(reader) }
            }
        })
    }
}

/// When a key expires. A time before 1970 is as good as its start.
fn time(ms: i64) -> Option<u64> {
    const NEVER: i64 = -1;

    (ms != NEVER).then(|| u64::try_from(ms).unwrap_or(0))
}

fn skip_lengths(reader: &mut Reader<'_>, count: usize) -> Result<(), LoadError> {
    for _ in 0..count {
        reader.length()?;
    }
    Ok(())
}

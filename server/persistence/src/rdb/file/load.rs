//! Loading: one thread finds the keys of a file, others make values of them and put them in the
//! keyspace.
//!
//! The keys of a chunk are put in order of their segments, so that a lock is taken once for all that
//! belong under it, and the lines of its table are in the cache for all of them.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Duration;

use carnelian_keyspace::{
    AccessPolicy, Keyspace, Limits, Present, SEGMENTS, Segment, SegmentSet, Segments, Value,
    segment_of,
};
use carnelian_structs::entry::Entry;
use carnelian_structs::value::{IN_PLACE_MAX, string_entry};
use parking_lot::Mutex;

use super::{Chunk, Fault, FileError, FileReader, Found, Observer};
use crate::rdb::{Bounds, LoadError, Loaded, Reader, load as load_value};

/// How many keys without elements are remembered by name.
const EMPTY_NAMED_MAX: usize = 10;
/// Keys that are found at a time where each is to take long.
const DELAYED_KEYS: usize = 16;
/// Who waits looks this often whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(20);

/// Is told the logical database and the name of a key.
pub type Told<'t> = dyn Fn(usize, &[u8]) + Sync + 't;

/// How loading is done.
#[derive(Clone, Copy)]
pub struct Rules<'r> {
    pub limits: Limits,
    pub policy: AccessPolicy,
    pub now_ms: u64,
    /// Told the logical database and the name of each key that is left out since its time has come;
    /// none: all are kept. A replica keeps them: its primary says when they go.
    pub on_expired: Option<&'r Told<'r>>,
    pub present: Present,
    /// How many threads make values.
    pub threads: usize,
    /// Called by such a thread after each chunk.
    pub after_chunk: &'r (dyn Fn() + Sync),
}

/// How far loading is; also how it is stopped, or slowed down for tests.
#[derive(Debug, Default)]
pub struct Progress {
    /// Of the file.
    pub bytes: AtomicU64,
    /// In the keyspace.
    pub keys: AtomicU64,
    /// Left out since their time has come.
    pub expired: AtomicU64,
    pub stop: AtomicBool,
    /// `key-load-delay`: microseconds for each key, or keys for each microsecond if below 0.
    pub key_delay: AtomicI32,
}

/// What a file had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub keys: u64,
    pub expired: u64,
    /// Keys without elements, which an error of old versions left behind.
    pub empty: u64,
    /// The first few of those.
    pub empty_named: Vec<Box<[u8]>>,
    /// Bytes up to the end of the file.
    pub bytes: u64,
}

/// Loads a file with several threads, each of which locks a segment at a time.
pub fn load<R: Read>(
    reader: &mut FileReader<R>,
    keyspace: &Keyspace,
    rules: &Rules<'_>,
    progress: &Progress,
    observer: &mut dyn Observer,
) -> Result<Summary, FileError> {
    let threads = rules.threads.max(1);
    let crew = Crew { rules, progress, failure: Mutex::default(), summary: Mutex::default() };
    let (sender, receiver) = sync_channel::<Chunk>(2 * threads);
    let (back, used) = channel::<Chunk>();
    let receiver = Mutex::new(receiver);
    let read = std::thread::scope(|scope| {
        for number in 0..threads {
            let (crew, receiver, back) = (&crew, &receiver, back.clone());
            let spawned = std::thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn_scoped(scope, move || crew.work(keyspace, receiver, &back));
            if number == 0 {
                spawned.map_err(|error| FileError::new(0, error))?;
            }
        }
        let read = crew.read(
            reader,
            observer,
            || used.try_recv().unwrap_or_default(),
            |chunk| sender.send(chunk).is_ok(),
        );
        drop(sender);
        read
    });
    crew.finish(read, reader.position())
}

/// Loads a file under locks that are held already.
pub fn load_held<R: Read>(
    reader: &mut FileReader<R>,
    segments: &mut dyn Segments,
    rules: &Rules<'_>,
    progress: &Progress,
    observer: &mut dyn Observer,
) -> Result<Summary, FileError> {
    let crew = Crew { rules, progress, failure: Mutex::default(), summary: Mutex::default() };
    let mut hand = Hand::new(rules);
    let spare = Mutex::new(Chunk::default());
    let read = crew.read(
        reader,
        observer,
        || std::mem::take(&mut *spare.lock()),
        |chunk| {
            let hashes = |key: &[u8], segments: &dyn Segments| segments.of_keyspace().hash(key);
            let made = hand.make(&chunk, |key| hashes(key, segments));
            let put = made
                .and_then(|()| hand.put(&chunk, |segment, put| put(segments.held_mut(segment))));
            crew.book(&mut hand.tally);
            crew.note(put.err());
            *spare.lock() = chunk;
            true
        },
    );
    crew.finish(read, reader.position())
}

/// What the threads share.
struct Crew<'r> {
    rules: &'r Rules<'r>,
    progress: &'r Progress,
    /// The first in the file.
    failure: Mutex<Option<FileError>>,
    summary: Mutex<Summary>,
}

impl Crew<'_> {
    /// Finds chunks until the file ends or there is a reason to stop.
    fn read<R: Read>(
        &self,
        reader: &mut FileReader<R>,
        observer: &mut dyn Observer,
        mut spare: impl FnMut() -> Chunk,
        mut give: impl FnMut(Chunk) -> bool,
    ) -> Result<(), FileError> {
        let mut delay = Delay::default();
        loop {
            if self.progress.stop.load(Relaxed) {
                return Err(FileError::new(reader.position(), Fault::Stopped));
            }
            let micros = self.progress.key_delay.load(Relaxed);
            let keys_max = if micros == 0 { usize::MAX } else { DELAYED_KEYS };
            let mut chunk = spare();
            let found = reader.next(&mut chunk, keys_max, observer)?;
            self.progress.bytes.store(reader.position(), Relaxed);
            if !found {
                return Ok(());
            }
            delay.wait(micros, chunk.found.len(), self.progress);
            if self.failure.lock().is_some() || !give(chunk) {
                return Err(FileError::new(reader.position(), Fault::Stopped));
            }
        }
    }

    /// Makes values until there are no more chunks.
    fn work(&self, keyspace: &Keyspace, chunks: &Mutex<Receiver<Chunk>>, back: &Sender<Chunk>) {
        let mut hand = Hand::new(self.rules);
        loop {
            // Who waits for a chunk holds the lock; the others wait for that.
            let Ok(chunk) = chunks.lock().recv() else { return };
            if self.failure.lock().is_none() && !self.progress.stop.load(Relaxed) {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    hand.make(&chunk, |key| keyspace.hash(key))?;
                    hand.put(&chunk, |segment, put| {
                        let mut wanted = SegmentSet::default();
                        wanted.insert(segment);
                        put(keyspace.lock(wanted).segment_mut(segment));
                    })
                }));
                let result = result.unwrap_or_else(|_| {
                    let fault = LoadError::Malformed("a value that this program fails on");
                    Err(FileError::new(chunk.offset, fault))
                });
                self.book(&mut hand.tally);
                self.note(result.err());
            }
            (self.rules.after_chunk)();
            // Nobody takes it if the last chunk was found.
            let _ = back.send(chunk);
        }
    }

    fn book(&self, tally: &mut Summary) {
        self.progress.keys.fetch_add(tally.keys, Relaxed);
        self.progress.expired.fetch_add(tally.expired, Relaxed);
        let mut summary = self.summary.lock();
        summary.keys += tally.keys;
        summary.expired += tally.expired;
        summary.empty += tally.empty;
        let room = EMPTY_NAMED_MAX - summary.empty_named.len();
        summary.empty_named.extend(tally.empty_named.drain(..).take(room));
        *tally = Summary::default();
    }

    fn note(&self, failure: Option<FileError>) {
        let Some(failure) = failure else { return };
        let mut first = self.failure.lock();
        if first.as_ref().is_none_or(|first| failure.offset < first.offset) {
            *first = Some(failure);
        }
    }

    fn finish(self, read: Result<(), FileError>, bytes: u64) -> Result<Summary, FileError> {
        if let Some(failure) = self.failure.into_inner() {
            return Err(failure);
        }
        read?;
        Ok(Summary { bytes, ..self.summary.into_inner() })
    }
}

/// Slows down the finding of keys.
#[derive(Default)]
struct Delay {
    /// Keys since the last wait.
    keys: u64,
}

impl Delay {
    fn wait(&mut self, micros: i32, keys: usize, progress: &Progress) {
        let keys = keys as u64;
        let mut left = match micros {
            0 => return,
            1.. => Duration::from_micros(keys * u64::from(micros.unsigned_abs())),
            _ => {
                let each = u64::from(micros.unsigned_abs());
                self.keys += keys;
                let times = self.keys / each;
                self.keys %= each;
                Duration::from_micros(times)
            }
        };
        while !left.is_zero() && !progress.stop.load(Relaxed) {
            let step = left.min(PATIENCE);
            std::thread::sleep(step);
            left -= step;
        }
    }
}

/// An entry that was made of a key of a chunk.
struct Arrival {
    hash: u64,
    access: u32,
    /// Which of the chunk's keys.
    at: usize,
    entry: Entry<Value>,
}

/// One thread's means.
struct Hand<'r> {
    rules: &'r Rules<'r>,
    expanded_bytes_max: usize,
    /// By segment.
    arrivals: Vec<Vec<Arrival>>,
    tally: Summary,
}

impl<'r> Hand<'r> {
    fn new(rules: &'r Rules<'r>) -> Self {
        Self {
            rules,
            expanded_bytes_max: Bounds::new(&rules.limits).expanded_bytes_max,
            arrivals: std::iter::repeat_with(Vec::new).take(SEGMENTS).collect(),
            tally: Summary::default(),
        }
    }

    /// Makes entries of the keys of a chunk.
    fn make(&mut self, chunk: &Chunk, hash: impl Fn(&[u8]) -> u64) -> Result<(), FileError> {
        self.arrivals.iter_mut().for_each(Vec::clear);
        for (at, found) in chunk.found.iter().enumerate() {
            let limits = &self.rules.limits;
            let (key, loaded) = decode(chunk, found, self.expanded_bytes_max, limits)?;
            let Some(loaded) = loaded else {
                self.tally.empty += 1;
                if self.tally.empty_named.len() < EMPTY_NAMED_MAX {
                    self.tally.empty_named.push((*key).into());
                }
                continue;
            };
            let now_ms = self.rules.now_ms;
            if let Some(on_expired) = self.rules.on_expired
                && found.expiry.is_some_and(|expiry| expiry < now_ms)
            {
                on_expired(found.db, &key);
                self.tally.expired += 1;
                continue;
            }
            let hash = hash(&key);
            let access = found.last_use.bits(self.rules.policy, now_ms);
            let entry = entry(&key, loaded, found.expiry);
            self.arrivals[segment_of(hash)].push(Arrival { hash, access, at, entry });
        }
        Ok(())
    }

    /// Puts them in their segments, each of which `visit` has locked.
    fn put(
        &mut self,
        chunk: &Chunk,
        mut visit: impl FnMut(usize, &mut dyn FnMut(&mut Segment)),
    ) -> Result<(), FileError> {
        for (index, arrivals) in self.arrivals.iter_mut().enumerate() {
            if arrivals.is_empty() {
                continue;
            }
            let (present, tally) = (self.rules.present, &mut self.tally);
            let mut result = Ok(());
            visit(index, &mut |segment| {
                for arrival in &*arrivals {
                    segment.prefetch(chunk.found[arrival.at].db, arrival.hash);
                }
                for Arrival { hash, access, at, entry } in arrivals.drain(..) {
                    let found = &chunk.found[at];
                    if segment.load(found.db, hash, entry, access, present).is_err() {
                        result = Err(at);
                        return;
                    }
                    tally.keys += 1;
                }
            });
            result.map_err(|at: usize| taken(chunk, &chunk.found[at], self.expanded_bytes_max))?;
        }
        Ok(())
    }
}

/// The key and the value of a place in a chunk; no value if that has no elements.
pub(super) fn decode<'c>(
    chunk: &'c Chunk,
    found: &Found,
    expanded_bytes_max: usize,
    limits: &Limits,
) -> Result<(std::borrow::Cow<'c, [u8]>, Option<Loaded<'c>>), FileError> {
    let key = key(chunk, found, expanded_bytes_max)?;
    let mut reader = Reader::new(&chunk.bytes[found.value.clone()], expanded_bytes_max);
    let loaded = match load_value(found.kind, &mut reader, limits) {
        Ok(_) if !reader.is_at_end() => Err(LoadError::Malformed("bytes behind the value")),
        Ok(loaded) => Ok(Some(loaded)),
        Err(LoadError::Empty) => Ok(None),
        Err(error) => Err(error),
    };
    match loaded {
        Ok(loaded) => Ok((key, loaded)),
        Err(error) => {
            let at = found.value.end - reader.rest().len();
            let offset = chunk.offset + at as u64;
            let kind = Some(found.kind);
            Err(FileError { offset, key: Some((*key).into()), kind, fault: error.into() })
        }
    }
}

fn key<'c>(
    chunk: &'c Chunk,
    found: &Found,
    expanded_bytes_max: usize,
) -> Result<std::borrow::Cow<'c, [u8]>, FileError> {
    let offset = chunk.offset + found.key.start as u64;
    Reader::new(&chunk.bytes[found.key.clone()], expanded_bytes_max)
        .string()
        .map_err(|error| FileError::new(offset, error))
}

fn entry(key: &[u8], loaded: Loaded<'_>, expiry: Option<u64>) -> Entry<Value> {
    let value = match loaded {
        Loaded::String(text) if text.len() <= IN_PLACE_MAX => {
            return string_entry(key, &text, expiry);
        }
        Loaded::String(text) => Value::String(Box::new(text.into_owned())),
        Loaded::List(list) => Value::List(list),
        Loaded::Set(set) => Value::Set(set),
        Loaded::SortedSet(sorted) => Value::SortedSet(sorted),
        Loaded::Hash(hash) => Value::Hash(hash),
        Loaded::Stream(stream) => Value::Stream(stream),
    };
    Entry::object(key, value, expiry)
}

fn taken(chunk: &Chunk, found: &Found, expanded_bytes_max: usize) -> FileError {
    let offset = chunk.offset + found.key.start as u64;
    let key = key(chunk, found, expanded_bytes_max).ok().map(|key| (*key).into());
    FileError { offset, key, kind: Some(found.kind), fault: Fault::Taken }
}

//! The keyspace of one database: its segments, and what walks over all of them.

use ahash::RandomState;
use carnelian_structs::entry::{Entry, Payload};
use carnelian_structs::table::{Table, hash_key, prefetch_value};
use carnelian_structs::value::Value;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::access::{Access, Busy, SegmentSet};
use crate::db::LARGE;
use crate::segment::{SEGMENTS, Segment, segment_of};

/// A segment on cache lines of its own, so that neighbours' locks do not share one.
#[repr(align(128))]
struct Padded(Mutex<Segment>);

/// All keys of a database.
pub struct Keyspace {
    segments: Box<[Padded]>,
    hasher: RandomState,
    databases: usize,
    /// Held by who takes locks as it goes: one at a time.
    token: Mutex<()>,
    /// Whether the token's holder has had it for too long.
    busy: AtomicBool,
    /// Whether a snapshot is being taken.
    cut: AtomicBool,
    /// How many wait for the lock of a segment.
    askers: AtomicUsize,
}

/// Somebody waits for a lock.
pub(crate) struct Asker<'k>(&'k AtomicUsize);

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keys of one logical database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseStats {
    pub keys: usize,
    pub expires: usize,
    pub heap_bytes: usize,
    pub buckets: usize,
}

/// Data that was taken out of the keyspace and is yet to be freed, wherever there is time for it.
#[derive(Default)]
pub struct Dropped {
    pub tables: Vec<Table<Value>>,
    pub values: Vec<Value>,
}

impl Dropped {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.values.is_empty()
    }

    /// Frees an entry at once if that is quick, whatever its size; else keeps its value.
    pub(crate) fn retire_some(&mut self, entry: Entry<Value>) {
        match entry.into_object() {
            None | Some(Value::String(_)) => {}
            Some(value) if value.heap_bytes() < LARGE => {}
            Some(value) => self.values.push(value),
        }
    }

    /// Bytes in here.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let values: usize = self.values.iter().map(Payload::heap_bytes).sum();
        values + self.tables.iter().map(Table::heap_bytes).sum::<usize>()
    }

    /// Keys and values in here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() + self.tables.iter().map(Table::len).sum::<usize>()
    }
}

impl Keyspace {
    /// An empty keyspace with `databases` logical databases.
    #[must_use]
    pub fn new(databases: usize) -> Self {
        Self::with_hasher(databases, RandomState::new())
    }

    /// An empty one whose data can take the place of this one's: see [`crate::Db::replace_all`].
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self::with_hasher(self.databases, self.hasher.clone())
    }

    fn with_hasher(databases: usize, hasher: RandomState) -> Self {
        let segments =
            (0..SEGMENTS).map(|_| Padded(Mutex::new(Segment::new(hasher.clone())))).collect();
        Self {
            segments,
            hasher,
            databases,
            token: Mutex::new(()),
            busy: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            askers: AtomicUsize::new(0),
        }
    }

    /// How many logical databases SELECT may choose from.
    #[must_use]
    pub fn databases(&self) -> usize {
        self.databases
    }

    #[inline]
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        hash_key(&self.hasher, key)
    }

    pub(crate) fn segment(&self, index: usize) -> &Mutex<Segment> {
        &self.segments[index].0
    }

    /// Starts loading the segment of a key's hash, which is about to be locked.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch_value(&self.segments[segment_of(hash)]);
    }

    /// Locks some segments, in ascending order.
    #[must_use]
    pub fn lock(&self, wanted: SegmentSet) -> Access<'_> {
        Access::lock(self, wanted)
    }

    /// The same, unless the wait is for a script that has run for too long.
    #[inline]
    pub fn lock_unless_busy(&self, wanted: SegmentSet) -> Result<Access<'_>, Busy> {
        Access::lock_unless_busy(self, wanted)
    }

    /// For what cannot know which keys it will touch: each segment is locked when it is first asked
    /// for, and kept. One at a time has this.
    #[must_use]
    pub fn lock_lazily(&self) -> Access<'_> {
        Access::lock_lazily(self, false).expect("only a wait that may be broken off is")
    }

    /// The same, unless the wait is for a script that has run for too long.
    pub fn lock_lazily_unless_busy(&self) -> Result<Access<'_>, Busy> {
        Access::lock_lazily(self, true)
    }

    pub(crate) fn token(&self) -> &Mutex<()> {
        &self.token
    }

    /// Whether a script has been running for too long: who waits for its locks may give up.
    #[inline]
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether a snapshot is being taken, so that changes cost more than they do otherwise.
    #[must_use]
    pub fn is_cut_open(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Says whether a snapshot is being taken from now on; returns what was said before.
    pub(crate) fn set_cut_open(&self, is_open: bool) -> bool {
        self.cut.swap(is_open, Ordering::AcqRel)
    }

    /// Has a walk give back the lock it holds, until this is dropped.
    pub(crate) fn ask(&self) -> Asker<'_> {
        self.askers.fetch_add(1, Ordering::Relaxed);
        Asker(&self.askers)
    }

    /// Whether somebody waits for a lock: who can do without it for a while gives it back.
    pub(crate) fn is_asked(&self) -> bool {
        self.askers.load(Ordering::Relaxed) != 0
    }

    /// Locks the segments of some keys.
    #[must_use]
    pub fn lock_keys<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Access<'_> {
        let mut wanted = SegmentSet::default();
        for key in keys {
            wanted.insert(segment_of(self.hash(key)));
        }
        self.lock(wanted)
    }

    /// Locks everything.
    #[must_use]
    pub fn lock_all(&self) -> Access<'_> {
        self.lock(SegmentSet::all())
    }

    /// Figures of one logical database, one segment after another.
    #[must_use]
    pub fn stats(&self, db: usize) -> DatabaseStats {
        let mut stats = DatabaseStats::default();
        for segment in &self.segments {
            if let Some(table) = segment.0.lock().table(db) {
                stats.keys += table.len();
                stats.expires += table.expiring();
                stats.heap_bytes += table.heap_bytes();
                stats.buckets += table.buckets();
            }
        }
        stats
    }

    /// The same for who must not wait for long, or may hold locks: none if a segment stays locked for `patience`.
    #[must_use]
    pub fn heap_bytes_within(&self, patience: Duration) -> Option<usize> {
        let mut bytes = 0;
        for segment in &self.segments {
            let locked = segment.0.try_lock().or_else(|| segment.0.try_lock_for(patience))?;
            bytes += locked.heap_bytes();
        }
        Some(bytes)
    }

    /// Bytes of the data in some segments, one after another.
    #[must_use]
    pub fn heap_bytes_of(&self, segments: SegmentSet) -> usize {
        segments.iter().map(|index| self.segment(index).lock().heap_bytes()).sum()
    }

    /// Bytes of all data, one segment after another.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.0.lock().heap_bytes()).sum()
    }
}

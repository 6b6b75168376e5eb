//! Snapshots without fork: the state of all keys at one moment, while writers go on.
//!
//! A *cut* locks everything for an instant (the token too: no script or transaction is cut in two) and raises the version of every segment. What is in the tables
//! then is *stale*; what is inserted later has the new version, and so is not part of the snapshot. A walk
//! goes through the segments, a few buckets at a time under the lock of one, shows each stale entry to
//! the one who takes the snapshot and stamps it with the new version. Whoever is about to change or
//! remove a stale entry shows it to the [`Sink`] first and stamps it ([`preserve`]; `Db` and all else in this
//! crate that touches an entry calls it, so nobody outside has to remember). So each entry is shown
//! exactly once, as it was at the cut, and nothing is copied that is not written to meanwhile.
//!
//! * An entry that expires or is evicted is preserved as well: an effect between the cut and its
//!   removal may have read it (`COPY`, `SUNIONSTORE`), and is replayed on top of the snapshot.
//! * A table that FLUSHALL or FLUSHDB takes is handed to the walk whole, which frees it.
//! * SWAPDB moves tables; the snapshot keeps the names they had at the cut.
//! * A long value is shown by the walk in pieces, with the lock free in between: who reads waits for a piece
//!   at most, and who is about to change that very key shows the rest of it first. So between two pieces the
//!   value is the same. A writer that is there before the walk shows it in one go.
//!
//! A segment's versions have two bits and are told apart by being equal or not, so all entries must have
//! the same one before the next cut: a walk that is given up still goes to its end, in silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carnelian_structs::entry::EntryRef;
use carnelian_structs::table::{Cursor, EntryMut, Table};
use carnelian_structs::value::Value;
use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::access::Hold;
use crate::segment::{SEGMENTS, Segment};
use crate::space::Keyspace;

/// Gets the entries that are about to change before the walk has come to them.
pub trait Sink: Send + Sync {
    /// Writes down an entry as it is now, with the logical database it was in at the cut. Called with the
    /// lock of its segment held, by several threads at once: may take no lock of the keyspace, and has to be quick.
    fn entry(&self, db: usize, entry: EntryRef<'_, Value>);

    /// Whether an object is so long that the walk shows it by [`Sink::piece`].
    fn is_long(&self, entry: EntryRef<'_, Value>) -> bool {
        let _ = entry;
        false
    }

    /// Writes down more of a long entry, from where the last call ended, until `goes_on` says no. Whether that
    /// was the last of it; until then each call is about the same entry. The rest as for [`Sink::entry`].
    fn piece(
        &self,
        db: usize,
        entry: EntryRef<'_, Value>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> bool {
        let _ = goes_on;
        self.entry(db, entry);
        true
    }
}

/// How long a walk lets others have their locks first.
const COURTESY: Duration = Duration::from_micros(200);

/// There can be but one snapshot at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyOpen;

/// What all segments know of a cut.
struct Cut {
    sink: Arc<dyn Sink>,
    is_silent: AtomicBool,
    /// Entries shown by those who changed them.
    preserved: AtomicU64,
}

/// What a segment knows of a cut that has yet to be walked through here.
pub(crate) struct OpenCut {
    cut: Arc<Cut>,
    /// For each logical database as it is called now, how far the walk has come in its table; none
    /// where no entry is stale.
    places: SmallVec<[Option<Place>; 1]>,
    /// The long entry that the walk is about: it is there, stale, and shown in part or not yet.
    long: Option<Long>,
    /// Tables that were taken away before the walk was through with them.
    handed: Vec<Handed>,
}

struct Long {
    /// The logical database as it is called now.
    db: usize,
    key: Box<[u8]>,
}

#[derive(Clone, Copy)]
struct Place {
    /// The logical database at the cut.
    db: usize,
    cursor: Cursor,
}

struct Handed {
    place: Place,
    table: Table<Value>,
}

/// Has an open snapshot see an entry before it is changed or removed.
#[inline]
pub(crate) fn preserve(cut: &mut Option<Box<OpenCut>>, db: usize, entry: &mut EntryMut<'_, Value>) {
    if let Some(cut) = cut {
        cut.preserve(db, entry);
    }
}

impl OpenCut {
    /// Raises the version of a segment; what it holds belongs to the snapshot.
    fn open(cut: &Arc<Cut>, segment: &mut Segment) -> u64 {
        segment.raise_version();
        let mut keys = 0;
        let place_of = |db| {
            let stale = segment.table(db).map_or(0, Table::len);
            keys += stale as u64;
            (stale != 0).then_some(Place { db, cursor: Cursor(0) })
        };
        let places: SmallVec<_> = (0..segment.databases()).map(place_of).collect();
        if keys != 0 {
            let (cut, handed) = (Arc::clone(cut), Vec::new());
            segment.cut = Some(Box::new(Self { cut, places, long: None, handed }));
        }
        keys
    }

    #[cold]
    fn preserve(&mut self, db: usize, entry: &mut EntryMut<'_, Value>) {
        let Some(&Some(place)) = self.places.get(db) else { return };
        if !entry.is_stale() {
            return;
        }
        let is_about = |long: &mut Long| long.db == db && *long.key == *entry.as_ref().key();
        let is_long = self.long.take_if(is_about).is_some();
        if !self.cut.is_silent.load(Ordering::Relaxed) {
            if is_long {
                self.cut.sink.piece(place.db, entry.as_ref(), &mut || true);
            } else {
                self.cut.sink.entry(place.db, entry.as_ref());
            }
        }
        self.cut.preserved.fetch_add(1, Ordering::Relaxed);
        entry.stamp();
    }

    /// Takes over a table that is about to be freed; gives it back if nothing in it is stale.
    pub(crate) fn hand_over(&mut self, db: usize, mut table: Table<Value>) -> Option<Table<Value>> {
        if let Some(long) = self.long.take_if(|long| long.db == db)
            && let Some(mut entry) = table.find_mut(table.hash(&long.key), &long.key)
        {
            self.long = Some(long);
            self.preserve(db, &mut entry);
        }
        let Some(place) = self.places.get_mut(db).and_then(Option::take) else {
            return Some(table);
        };
        self.handed.push(Handed { place, table });
        None
    }

    /// Two logical databases exchanged their tables.
    pub(crate) fn swap(&mut self, a: usize, b: usize) {
        if self.places.len() <= a.max(b) {
            self.places.resize(a.max(b) + 1, None);
        }
        self.places.swap(a, b);
        if let Some(long) = &mut self.long {
            long.db = match long.db {
                db if db == a => b,
                db if db == b => a,
                db => db,
            };
        }
    }
}

impl Keyspace {
    /// Begins a snapshot of the state as it is once the token and all segments are locked; `at_cut` runs at
    /// that moment. Who begins it has to take it to its end, by [`Walk::step`] or [`Walk::finish_silently`].
    pub fn cut(&self, sink: Arc<dyn Sink>, at_cut: impl FnOnce()) -> Result<Walk, AlreadyOpen> {
        if self.is_cut_open() {
            return Err(AlreadyOpen);
        }
        // With the token: what holds it has taken only some of its locks, and may be halfway through.
        let mut hold = Hold::from(self.lock_lazily());
        hold.lock_rest();
        hold.cut(sink, at_cut)
    }
}

impl Hold<'_> {
    /// The same for who holds all segments.
    pub fn cut(&mut self, sink: Arc<dyn Sink>, at_cut: impl FnOnce()) -> Result<Walk, AlreadyOpen> {
        assert!(self.holds_all(), "a cut holds every lock");
        if self.keyspace().set_cut_open(true) {
            return Err(AlreadyOpen);
        }
        let (is_silent, preserved) = (AtomicBool::new(false), AtomicU64::new(0));
        let cut = Arc::new(Cut { sink, is_silent, preserved });
        let keys = (0..SEGMENTS).map(|index| OpenCut::open(&cut, self.segment_mut(index))).sum();
        at_cut();
        let (segment, handed, is_in_long) = (0, Vec::new(), false);
        Ok(Walk { cut, segment, handed, is_in_long, walked: 0, keys, is_finished: false })
    }
}

/// The walk through all that a snapshot has to show.
pub struct Walk {
    cut: Arc<Cut>,
    /// The segment it has come to.
    segment: usize,
    /// Taken over from it.
    handed: Vec<Handed>,
    /// The last step was about a long entry that was not shown whole then.
    is_in_long: bool,
    /// Entries the walk itself has shown.
    walked: u64,
    /// Keys there were at the cut.
    keys: u64,
    is_finished: bool,
}

impl Walk {
    /// Shows the next stale entries with the logical database they were in at the cut, under the lock
    /// of one segment, and asks `goes_on` after each bucket; somebody else who wants a lock is let in at
    /// once. Whether the walk has come to its end: then all has been shown, by it or by the sink.
    ///
    /// A long entry comes by steps of its own, in which nothing is emitted but the sink gets a piece. So whoever
    /// looks at the sink between two steps can put it all in one order.
    pub fn step(
        &mut self,
        keyspace: &Keyspace,
        mut emit: impl FnMut(usize, EntryRef<'_, Value>),
        mut goes_on: impl FnMut() -> bool,
    ) -> bool {
        let mut goes_on = || goes_on() && !keyspace.is_asked();
        let is_silent = self.cut.is_silent.load(Ordering::Relaxed);
        let walked = &mut self.walked;
        let mut show = |db: usize, entry: EntryRef<'_, Value>| {
            *walked += 1;
            if !is_silent {
                emit(db, entry);
            }
        };
        if let Some(Handed { place, table }) = self.handed.last_mut() {
            // Nobody else knows of it any more: no lock is needed.
            if is_silent || visit_some(table, place, &mut show, |_| false, &mut goes_on) == Met::End
            {
                self.handed.pop();
            }
            return false;
        }
        if self.segment < SEGMENTS {
            let_in(keyspace);
            let mut segment = keyspace.segment(self.segment).lock();
            if self.is_in_long {
                let left = go_on_with_long(&mut segment, is_silent, &mut goes_on);
                self.is_in_long = left == Some(false);
                self.walked += u64::from(left == Some(true));
            } else {
                let is_long = |entry: EntryRef<'_, Value>| {
                    !is_silent && entry.is_object() && self.cut.sink.is_long(entry)
                };
                match visit_segment(&mut segment, &mut show, is_long, &mut goes_on) {
                    Met::End => {
                        self.handed = segment.cut.take().map_or(Vec::new(), |cut| cut.handed);
                        self.segment += 1;
                    }
                    Met::Long(_) => self.is_in_long = true,
                    Met::Pause => {}
                }
            }
            // Who waits for it comes before the next step.
            MutexGuard::unlock_fair(segment);
        }
        if self.segment == SEGMENTS && self.handed.is_empty() && !self.is_finished {
            self.is_finished = true;
            keyspace.set_cut_open(false);
        }
        self.is_finished
    }

    /// Shows nothing from here on. The steps that are left are still to be made.
    pub fn abort(&mut self) {
        self.cut.is_silent.store(true, Ordering::Relaxed);
    }

    /// Goes to the end without showing anything, so that another snapshot can be taken.
    pub fn finish_silently(&mut self, keyspace: &Keyspace) {
        self.abort();
        let mut buckets = 0_u32;
        while !self.step(
            keyspace,
            |_, _| {},
            || {
                buckets += 1;
                !buckets.is_multiple_of(256)
            },
        ) {}
    }

    /// Keys there were at the cut.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Those of them that have been shown.
    #[must_use]
    pub fn keys_done(&self) -> u64 {
        self.walked + self.cut.preserved.load(Ordering::Relaxed)
    }
}

/// Waits for a moment while others wait for locks.
fn let_in(keyspace: &Keyspace) {
    if keyspace.is_asked() {
        let begin = Instant::now();
        while keyspace.is_asked() && begin.elapsed() < COURTESY {
            std::thread::yield_now();
        }
    }
}

/// What a walk has come to.
#[derive(PartialEq, Eq)]
enum Met {
    End,
    /// Somebody said that it is not to go on.
    Pause,
    /// An entry that is shown in pieces. The walk stays where it is.
    Long(Box<[u8]>),
}

/// Goes on in the tables of a segment.
fn visit_segment(
    segment: &mut Segment,
    show: &mut impl FnMut(usize, EntryRef<'_, Value>),
    is_long: impl Fn(EntryRef<'_, Value>) -> bool,
    goes_on: &mut impl FnMut() -> bool,
) -> Met {
    for db in 0..segment.databases() {
        if segment.table(db).is_none() {
            continue;
        }
        let parts = segment.parts(db);
        let Some(cut) = parts.cut else { return Met::End };
        let Some(slot) = cut.places.get_mut(db) else { break };
        let Some(place) = slot else { continue };
        match visit_some(parts.table, place, show, &is_long, goes_on) {
            Met::End => *slot = None,
            Met::Pause => return Met::Pause,
            Met::Long(key) => {
                cut.long = Some(Long { db, key: key.clone() });
                return Met::Long(key);
            }
        }
    }
    Met::End
}

/// Goes on in a table.
fn visit_some(
    table: &mut Table<Value>,
    place: &mut Place,
    show: &mut impl FnMut(usize, EntryRef<'_, Value>),
    is_long: impl Fn(EntryRef<'_, Value>) -> bool,
    goes_on: &mut impl FnMut() -> bool,
) -> Met {
    let db = place.db;
    loop {
        let mut long = None;
        let next = table.visit_stale(place.cursor, |entry| {
            if is_long(entry) {
                long = Some(entry.key().into());
                return false;
            }
            show(db, entry);
            true
        });
        if let Some(key) = long {
            return Met::Long(key);
        }
        place.cursor = next;
        if next == Cursor(0) {
            return Met::End;
        }
        if !goes_on() {
            return Met::Pause;
        }
    }
}

/// Shows more of the long entry that a segment has met. Whether that was the last of it; none if somebody else
/// has shown the rest.
fn go_on_with_long(
    segment: &mut Segment,
    is_silent: bool,
    goes_on: &mut dyn FnMut() -> bool,
) -> Option<bool> {
    let db = segment.cut.as_ref()?.long.as_ref()?.db;
    let parts = segment.parts(db);
    let cut = parts.cut.as_mut()?;
    let long = cut.long.as_ref()?;
    let place = (*cut.places.get(db)?)?;
    let mut entry = parts.table.find_mut(parts.table.hash(&long.key), &long.key)?;
    if !is_silent && !cut.cut.sink.piece(place.db, entry.as_ref(), goes_on) {
        return Some(false);
    }
    entry.stamp();
    cut.long = None;
    Some(true)
}

#[cfg(test)]
mod tests;

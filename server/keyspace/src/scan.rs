//! Walks over a logical database: SCAN, KEYS, RANDOMKEY, FLUSHDB, SWAPDB.

use carnelian_structs::entry::EntryRef;
use carnelian_structs::table::Cursor;
use carnelian_structs::value::Value;

use crate::changes::Changes;
use crate::db::{Db, retire};
use crate::segment::{Parts, SEGMENTS, Segment};
use crate::snapshot::preserve;
use crate::space::Dropped;

/// A client's cursor is the segment above 48 bits of the place in its table. A table's places are
/// multiples of 2^16 as long as it has fewer than 2^48 buckets.
const PLACE_BITS: u32 = 48;

impl Db<'_> {
    /// Visits the keys of the next buckets that `matches` lets pass until at least `count` were
    /// seen, and returns the next cursor (0 at the end; any value is a cursor). Expired ones among
    /// them are not shown but removed, so that memory comes back even where nobody asks for them
    /// by name.
    pub fn scan(
        &mut self,
        cursor: u64,
        count: usize,
        matches: impl Fn(&[u8]) -> bool,
        mut visit: impl FnMut(EntryRef<'_, Value>),
    ) -> u64 {
        let (index, due_ms) = (self.index, self.due_ms);
        let mut segment = (cursor >> PLACE_BITS) as usize;
        let mut place = Cursor(cursor << (64 - PLACE_BITS));
        // Nearly empty tables must not make one call walk for ever.
        let buckets_max = count.saturating_mul(10);
        let (mut seen, mut buckets) = (0, 0);
        let mut due: Vec<Vec<u8>> = Vec::new();
        while segment < SEGMENTS {
            let step = self.access.visit(segment, |segment| {
                let table = segment.table(index).filter(|table| !table.is_empty())?;
                loop {
                    place = table.scan(place, |entry| {
                        seen += 1;
                        if !matches(entry.key()) {
                            return;
                        }
                        if entry.expiry().is_none_or(|at| due_ms < at) {
                            visit(entry);
                        } else {
                            due.push(entry.key().to_vec());
                        }
                    });
                    buckets += 1;
                    if place == Cursor(0) || count <= seen || buckets_max <= buckets {
                        break;
                    }
                }
                for key in due.drain(..) {
                    remove_expired(segment, index, &key, self.changes, self.dropped);
                }
                Some(())
            });
            if step.is_none() || place == Cursor(0) {
                segment += 1;
                place = Cursor(0);
            }
            if count <= seen || buckets_max <= buckets {
                break;
            }
        }
        if SEGMENTS <= segment {
            return 0;
        }
        (segment as u64) << PLACE_BITS | place.0 >> (64 - PLACE_BITS)
    }

    /// Visits every live key.
    pub fn for_each(&mut self, mut visit: impl FnMut(EntryRef<'_, Value>)) {
        let (index, due_ms) = (self.index, self.due_ms);
        for segment in 0..SEGMENTS {
            self.access.visit(segment, |segment| {
                let Some(table) = segment.table(index) else { return };
                for entry in table.iter().filter(|e| e.expiry().is_none_or(|at| due_ms < at)) {
                    visit(entry);
                }
            });
        }
    }

    /// How many keys there are, expired ones that are still there included.
    pub fn len(&mut self) -> usize {
        let index = self.index;
        (0..SEGMENTS)
            .map(|segment| {
                self.access.visit(segment, |segment| segment.table(index).map_or(0, |t| t.len()))
            })
            .sum()
    }

    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// A random live key; expired ones met on the way are removed. Segments are weighed by their size, so the choice is uniform.
    pub fn random_key(&mut self) -> Option<Vec<u8>> {
        let (index, due_ms) = (self.index, self.due_ms);
        // When nearly all keys have expired unseen, give up rather than search for ever.
        for _ in 0..100 {
            let sizes: Vec<usize> = (0..SEGMENTS)
                .map(|segment| {
                    self.access
                        .visit(segment, |segment| segment.table(index).map_or(0, |t| t.len()))
                })
                .collect();
            let total: usize = sizes.iter().sum();
            if total == 0 {
                return None;
            }
            let mut rank = fastrand::usize(0..total);
            let segment = sizes.iter().position(|&size| {
                let here = rank < size;
                rank = rank.wrapping_sub(if here { 0 } else { size });
                here
            })?;
            let found = self.access.visit(segment, |segment| {
                let entry = segment.table(index)?.random(|| fastrand::u64(..))?;
                let (key, expiry) = (entry.key().to_vec(), entry.expiry());
                if expiry.is_some_and(|at| at <= due_ms) {
                    remove_expired(segment, index, &key, self.changes, self.dropped);
                    return None;
                }
                Some(key)
            });
            if found.is_some() {
                return found;
            }
        }
        let mut any = None;
        self.for_each(|entry| {
            any.get_or_insert_with(|| entry.key().to_vec());
        });
        any
    }

    /// Takes all keys of one logical database; they are freed with `dropped`. How many there were.
    /// Needs all locks.
    pub fn flush(&mut self, db: usize) -> usize {
        assert!(self.access.holds_all(), "a flush holds every lock");
        self.changes.flushed = true;
        let mut keys = 0;
        for segment in 0..SEGMENTS {
            let segment = self.access.segment_mut(segment);
            if segment.table(db).is_none_or(|table| table.is_empty()) {
                continue;
            }
            if let Some(table) = segment.table(db) {
                keys += table.len();
                if self.changes.is_anything_watched() {
                    for entry in table.iter() {
                        self.changes.touch(db, entry.key());
                    }
                }
            }
            self.dropped.tables.extend(segment.take_table(db));
            segment.field_expiries.retain(|line| line.1 != db);
        }
        keys
    }

    /// Puts the data of a [sibling](crate::Keyspace::sibling) in place of all that is here. Needs all locks.
    pub fn replace_all(&mut self, data: &crate::Keyspace) {
        for db in 0..self.databases() {
            self.flush(db);
        }
        let mut data = data.lock_all();
        for segment in 0..SEGMENTS {
            let new = data.segment_mut(segment);
            if self.changes.is_anything_watched() {
                for db in 0..new.databases() {
                    for entry in new.table(db).into_iter().flat_map(|table| table.iter()) {
                        self.changes.touch(db, entry.key());
                    }
                }
            }
            self.access.segment_mut(segment).put_all(new);
        }
    }

    /// Exchanges two logical databases. Needs all locks.
    pub fn swap(&mut self, a: usize, b: usize) {
        assert!(self.access.holds_all(), "a swap holds every lock");
        if a == b {
            return;
        }
        for segment in 0..SEGMENTS {
            if self.changes.is_anything_watched() {
                // A key of either database appears, goes or changes in both. Nobody sees one come that
                // has expired; where keys are watched it goes before the swap, lest its going be taken
                // for a change later.
                let goes = self.changes.has_watches();
                let segment = self.access.segment_mut(segment);
                for db in [a, b] {
                    let mut due = Vec::new();
                    for entry in segment.table(db).into_iter().flat_map(|table| table.iter()) {
                        if entry.expiry().is_none_or(|at| self.due_ms < at) {
                            self.changes.touch(a, entry.key());
                            self.changes.touch(b, entry.key());
                        } else if goes {
                            due.push(entry.key().to_vec());
                        } else {
                            self.changes.rouse(db, entry.key());
                        }
                    }
                    for key in due {
                        remove_expired(segment, db, &key, self.changes, self.dropped);
                    }
                }
            }
            self.access.segment_mut(segment).swap_tables(a, b);
        }
    }
}

/// Removes a key that a walk found expired, under the lock it was found under.
pub(crate) fn remove_expired(
    segment: &mut Segment,
    db: usize,
    key: &[u8],
    changes: &mut Changes,
    dropped: &mut Dropped,
) {
    if changes.keeps_expired {
        return;
    }
    let Parts { table, cut, .. } = segment.parts(db);
    let hash = table.hash(key);
    if let Some(mut entry) = table.find_mut(hash, key) {
        preserve(cut, db, &mut entry);
        retire(entry.remove(), dropped);
        changes.key_expired(db, key);
    }
}

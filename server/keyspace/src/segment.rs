//! A segment: one lock's worth of the keyspace.

use std::collections::BTreeSet;

use ahash::RandomState;
use carnelian_structs::table::Table;
use carnelian_structs::value::Value;
use smallvec::{SmallVec, smallvec};

/// How many segments a keyspace has.
pub const SEGMENTS: usize = 256;

/// The segment of a key's hash. Uses bits the table's place and tag do not.
#[inline]
#[must_use]
pub const fn segment_of(hash: u64) -> usize {
    (hash >> 56) as usize
}

/// A time, a logical database and a key, the earliest first.
pub(crate) type FieldExpiries = BTreeSet<(u64, usize, Box<[u8]>)>;

/// The keys of all logical databases that hash to one lock.
pub struct Segment {
    /// The first in place: most servers use no other, and a batch waits for fewer lines.
    tables: SmallVec<[Table<Value>; 1]>,
    /// When the next field of a hash expires: the time, the logical database and the key. A line
    /// may be out of date (the key gone or the field's expiry changed), never missing.
    pub(crate) field_expiries: FieldExpiries,
    hasher: RandomState,
}

impl Segment {
    pub(crate) fn new(hasher: RandomState) -> Self {
        let tables = smallvec![Table::new(hasher.clone())];
        Self { tables, field_expiries: BTreeSet::new(), hasher }
    }

    /// The keys of one logical database.
    #[inline]
    #[must_use]
    pub fn table(&self, db: usize) -> Option<&Table<Value>> {
        self.tables.get(db)
    }

    #[inline]
    pub fn table_mut(&mut self, db: usize) -> &mut Table<Value> {
        if self.tables.len() <= db {
            self.tables.resize_with(db + 1, || Table::new(self.hasher.clone()));
        }
        &mut self.tables[db]
    }

    /// Logical databases that have had a key here, and all below them.
    pub(crate) fn databases(&self) -> usize {
        self.tables.len()
    }

    /// The table and, beside it, the hash-field expiries.
    pub(crate) fn parts(&mut self, db: usize) -> (&mut Table<Value>, &mut FieldExpiries) {
        self.table_mut(db);
        (&mut self.tables[db], &mut self.field_expiries)
    }

    pub(crate) fn take_table(&mut self, db: usize) -> Table<Value> {
        let empty = Table::new(self.hasher.clone());
        std::mem::replace(self.table_mut(db), empty)
    }

    pub(crate) fn swap_tables(&mut self, a: usize, b: usize) {
        self.table_mut(a.max(b));
        self.tables.swap(a, b);
        // Old lines may now name the wrong database; make them again from the data when due.
        let lines = std::mem::take(&mut self.field_expiries);
        self.field_expiries = lines
            .into_iter()
            .map(|(at, db, key)| {
                let db = if db == a {
                    b
                } else if db == b {
                    a
                } else {
                    db
                };
                (at, db, key)
            })
            .collect();
    }

    /// Whether fields of a hash may expire here: without doubt not, if this says so.
    #[must_use]
    pub fn may_have_expiring_fields(&self) -> bool {
        !self.field_expiries.is_empty()
    }

    /// Hashes of a logical database with fields that have an expiry. Counted from the lines, and
    /// where those are few, without those that are out of date.
    #[must_use]
    pub fn expiring_hashes(&self, db: usize) -> usize {
        const CHECKED_MAX: usize = 64;

        let mine = self.field_expiries.iter().filter(|line| line.1 == db);
        if CHECKED_MAX < self.field_expiries.len() {
            return mine.count();
        }
        let Some(table) = self.table(db) else { return 0 };
        mine.filter(|(at, _, key)| {
            let object = table.find(table.hash(key), key).and_then(|entry| entry.object());
            let next = object.as_deref().and_then(|value| match value {
                Value::Hash(hash) => hash.next_expiry(),
                _ => None,
            });
            next == Some(*at)
        })
        .count()
    }

    /// Bytes of all tables.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.tables.iter().map(Table::heap_bytes).sum()
    }
}

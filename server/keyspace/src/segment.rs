//! A segment: one lock's worth of the keyspace.

use std::collections::BTreeSet;

use ahash::RandomState;
use carnelian_structs::table::Table;
use carnelian_structs::value::Value;

use crate::snapshot::OpenCut;

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
    /// Of the first logical database, in place: most servers use no other, and a batch waits for fewer
    /// lines.
    first: Table<Value>,
    /// Of those others that have had a key here, by their numbers. There are as many segments as there
    /// could be lists of empty ones.
    others: Vec<(usize, Box<Table<Value>>)>,
    /// When the next field of a hash expires: the time, the logical database and the key. A line
    /// may be out of date (the key gone or the field's expiry changed), never missing.
    pub(crate) field_expiries: FieldExpiries,
    /// The version of what is inserted here.
    version: u8,
    /// Present while a snapshot has yet to pass some of what is here.
    pub(crate) cut: Option<Box<OpenCut>>,
    hasher: RandomState,
}

/// What belongs to one logical database in a segment, borrowed side by side.
pub(crate) struct Parts<'a> {
    pub table: &'a mut Table<Value>,
    pub field_expiries: &'a mut FieldExpiries,
    /// To be asked before an entry of the table is changed or removed: see [`crate::snapshot::preserve`].
    pub cut: &'a mut Option<Box<OpenCut>>,
}

impl Segment {
    pub(crate) fn new(hasher: RandomState) -> Self {
        let first = Table::new(hasher.clone());
        let (others, field_expiries) = (Vec::new(), BTreeSet::new());
        Self { first, others, field_expiries, version: 0, cut: None, hasher }
    }

    /// The keys of one logical database.
    #[inline]
    #[must_use]
    pub fn table(&self, db: usize) -> Option<&Table<Value>> {
        match db {
            0 => Some(&self.first),
            _ => self.place(db).ok().map(|place| &*self.others[place].1),
        }
    }

    #[inline]
    fn table_mut(&mut self, db: usize) -> &mut Table<Value> {
        self.parts(db).table
    }

    /// Where a table other than the first is, or belongs.
    #[inline]
    fn place(&self, db: usize) -> Result<usize, usize> {
        self.others.binary_search_by_key(&db, |(index, _)| *index)
    }

    #[cold]
    fn add_table(&mut self, place: usize, db: usize) {
        let table = Box::new(self.empty_table());
        self.others.reserve_exact(1);
        self.others.insert(place, (db, table));
    }

    fn tables(&self) -> impl Iterator<Item = &Table<Value>> {
        std::iter::once(&self.first).chain(self.others.iter().map(|(_, table)| &**table))
    }

    fn empty_table(&self) -> Table<Value> {
        let mut table = Table::new(self.hasher.clone());
        table.set_version(self.version);
        table
    }

    /// Whether fields of some hash expire. Errs only by saying so of one that no longer has any.
    #[must_use]
    pub fn has_expiring_fields(&self) -> bool {
        !self.field_expiries.is_empty()
    }

    /// Logical databases that have had a key here, and all below them.
    #[must_use]
    pub fn databases(&self) -> usize {
        self.others.last().map_or(0, |(index, _)| *index) + 1
    }

    /// The table and what has to be kept in step with it.
    #[inline]
    pub(crate) fn parts(&mut self, db: usize) -> Parts<'_> {
        let place = match db {
            0 => 0,
            _ => self.place(db).unwrap_or_else(|place| {
                self.add_table(place, db);
                place
            }),
        };
        let Self { first, others, field_expiries, cut, .. } = self;
        let table = if db == 0 { first } else { &mut *others[place].1 };
        Parts { table, field_expiries, cut }
    }

    /// Takes all keys of a logical database. None if a snapshot has yet to write them, and then frees them.
    pub(crate) fn take_table(&mut self, db: usize) -> Option<Table<Value>> {
        let empty = self.empty_table();
        let table = std::mem::replace(self.table_mut(db), empty);
        match &mut self.cut {
            None => Some(table),
            Some(cut) => cut.hand_over(db, table),
        }
    }

    /// Puts the keys of another segment in place of those that are here, which were taken before.
    pub(crate) fn put_all(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.first, &mut other.first);
        std::mem::swap(&mut self.others, &mut other.others);
        std::mem::swap(&mut self.field_expiries, &mut other.field_expiries);
        // All that is here now has this version, and none of it is part of an open snapshot.
        self.version = other.version;
    }

    /// Raises the version: what is here now is stale from here on.
    pub(crate) fn raise_version(&mut self) {
        self.version = (self.version + 1) % 4;
        self.first.set_version(self.version);
        for (_, table) in &mut self.others {
            table.set_version(self.version);
        }
    }

    pub(crate) fn swap_tables(&mut self, a: usize, b: usize) {
        let empty = self.empty_table();
        let table = std::mem::replace(self.table_mut(a), empty);
        let table = std::mem::replace(self.table_mut(b), table);
        *self.table_mut(a) = table;
        if let Some(cut) = &mut self.cut {
            cut.swap(a, b);
        }
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
        self.tables().map(Table::heap_bytes).sum()
    }
}

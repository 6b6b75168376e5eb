//! A copy of a keyspace, of what is touched of it: for who must not change anything.

use crate::access::{Access, SegmentSet, Segments};
use crate::load::Present;
use crate::segment::{SEGMENTS, Segment};
use crate::space::Keyspace;

/// A keyspace as it was when each of its segments was first asked for. What is changed here is not
/// changed there, and the other way round.
///
/// Each segment is copied in one go, under its lock, so that a value is never seen by half; two segments may
/// be of two moments.
pub struct Fork<'k> {
    origin: &'k Keyspace,
    /// All locks of the copy.
    copy: Access<'k>,
    copied: SegmentSet,
}

impl<'k> Fork<'k> {
    /// `copy`: an empty [`Keyspace::sibling`] of the other, which nobody else knows.
    #[must_use]
    pub fn new(origin: &'k Keyspace, copy: &'k Keyspace) -> Self {
        Self { origin, copy: copy.lock_all(), copied: SegmentSet::default() }
    }

    #[cold]
    fn copy(&mut self, index: usize) {
        self.copied.insert(index);
        let original = self.origin.segment(index).lock();
        let copy = self.copy.segment_mut(index);
        for db in 0..original.databases() {
            let Some(table) = original.table(db) else { continue };
            for entry in table.iter() {
                let key = entry.key();
                let (hash, access) = (table.hash(key), entry.access());
                let twin = entry.duplicate(key);
                copy.load(db, hash, twin, access, Present::Replaced)
                    .expect("only what is to be refused is");
            }
        }
    }
}

impl Segments for Fork<'_> {
    fn of_keyspace(&self) -> &Keyspace {
        self.copy.keyspace()
    }

    fn held(&self, segment: usize) -> &Segment {
        assert!(self.copied.contains(segment), "a segment is asked for before it is looked at");
        self.copy.segment(segment)
    }

    fn held_mut(&mut self, segment: usize) -> &mut Segment {
        if !self.copied.contains(segment) {
            self.copy(segment);
        }
        self.copy.segment_mut(segment)
    }

    fn is_all(&self) -> bool {
        self.copied == SegmentSet::all()
    }

    fn take_rest(&mut self) {
        for segment in 0..SEGMENTS {
            self.held_mut(segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use carnelian_structs::value::string_entry;

    use super::*;
    use crate::{AccessPolicy, Aftermath, Db, Hold, segment_of};

    fn load(keyspace: &Keyspace, db: usize, key: &[u8], expiry: Option<u64>) {
        let hash = keyspace.hash(key);
        let mut access = keyspace.lock_all();
        let entry = string_entry(key, b"value", expiry);
        let loaded =
            access.segment_mut(segment_of(hash)).load(db, hash, entry, 7, Present::Replaced);
        assert_eq!(loaded, Ok(()));
    }

    fn keys(hold: Hold<'_>, db: usize) -> usize {
        let mut hold = hold;
        hold.lock_rest();
        (0..SEGMENTS).filter_map(|index| hold.segment(index).table(db)).map(|it| it.len()).sum()
    }

    #[test]
    fn what_is_changed_in_a_fork_stays_there() {
        let origin = Keyspace::new(4);
        for number in 0..500 {
            load(&origin, number % 3, format!("key:{number}").as_bytes(), Some(1000));
        }
        let copy = origin.sibling();
        let mut fork = Fork::new(&origin, &copy);
        let mut aftermath = Aftermath::default();
        let mut db = Db::new(Hold::Lent(&mut fork), 0, 5, AccessPolicy::Lru, &mut aftermath);
        let entry = db.look(b"key:3").expect("it was copied");
        assert_eq!((entry.expiry(), entry.access()), (Some(1000), 7));
        assert!(db.remove(b"key:3"));
        assert!(db.look(b"key:3").is_none());
        db.access().lock_rest();
        assert!(db.access().holds_all());
        db.flush(1);
        drop(db);
        assert_eq!(keys(Hold::Lent(&mut fork), 0), 166);
        assert_eq!(keys(Hold::Lent(&mut fork), 1), 0);
        assert_eq!(keys(Hold::Lent(&mut fork), 2), 166);
        for (db, count) in [(0, 167), (1, 167), (2, 166)] {
            assert_eq!(keys(Hold::Own(origin.lock_all()), db), count);
        }
    }

    #[test]
    fn a_segment_that_was_not_asked_for_is_copied_when_it_is() {
        let origin = Keyspace::new(1);
        let copy = origin.sibling();
        let mut fork = Fork::new(&origin, &copy);
        load(&origin, 0, b"late", None);
        let mut aftermath = Aftermath::default();
        let mut db = Db::new(Hold::Lent(&mut fork), 0, 5, AccessPolicy::Lru, &mut aftermath);
        assert!(db.look(b"late").is_some());
        drop(db);
        let hash = origin.hash(b"late");
        assert!(origin.segment(segment_of(hash)).try_lock().is_some(), "no lock is kept");
    }
}

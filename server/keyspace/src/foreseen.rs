//! Keys of requests that are about to run, and the memory they will need.

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::segment::{Segment, segment_of};
use crate::space::Keyspace;

/// Keys that are about to be looked for. A hint: what is not found here costs time and nothing else.
#[derive(Default)]
pub struct Foreseen<'k> {
    keys: SmallVec<[Place<'k>; 16]>,
}

struct Place<'k> {
    segment: &'k Mutex<Segment>,
    db: usize,
    hash: u64,
}

impl<'k> Foreseen<'k> {
    pub fn add(&mut self, keyspace: &'k Keyspace, db: usize, key: &[u8]) {
        let hash = keyspace.hash(key);
        keyspace.prefetch(hash);
        self.keys.push(Place { segment: keyspace.segment(segment_of(hash)), db, hash });
    }

    /// Has the memory of all of them loaded at once: first where they are, then what is there. Of a
    /// segment that somebody else holds nothing is known.
    pub fn prefetch(self) {
        for Place { segment, db, hash } in &self.keys {
            if let Some(segment) = segment.try_lock()
                && let Some(table) = segment.table(*db)
            {
                table.prefetch_bucket(*hash);
            }
        }
        for Place { segment, db, hash } in &self.keys {
            if let Some(segment) = segment.try_lock()
                && let Some(table) = segment.table(*db)
            {
                table.prefetch_entry(*hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_neither_a_key_nor_a_lock() {
        let keyspace = Keyspace::new(2);
        let _held = keyspace.lock_all();
        let mut foreseen = Foreseen::default();
        for db in 0..4 {
            foreseen.add(&keyspace, db, b"key");
        }
        foreseen.prefetch();
    }
}

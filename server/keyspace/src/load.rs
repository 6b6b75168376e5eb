//! Keys that come from a file: whole entries, put in their segments many at a time.

use carnelian_structs::entry::Entry;
use carnelian_structs::table::Place;
use carnelian_structs::value::Value;

use crate::segment::{Parts, Segment};
use crate::snapshot::preserve;

/// What happens to a key that comes from a file and is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    Replaced,
    /// The file is not believed.
    Refused,
}

/// The key of an entry was there already, and was to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken;

impl Segment {
    /// Has the memory of a key's place loaded, which is about to be looked for.
    #[inline]
    pub fn prefetch(&self, db: usize, hash: u64) {
        if let Some(table) = self.table(db) {
            table.prefetch_bucket(hash);
        }
    }

    /// Puts an entry, whose key has this hash, in a logical database.
    pub fn load(
        &mut self,
        db: usize,
        hash: u64,
        entry: Entry<Value>,
        access: u32,
        present: Present,
    ) -> Result<(), Taken> {
        let Parts { table, field_expiries, cut } = self.parts(db);
        let look = entry.as_ref();
        if let Some(object) = look.object()
            && let Value::Hash(fields) = &*object
            && let Some(at) = fields.next_expiry()
        {
            field_expiries.insert((at, db, look.key().into()));
        }
        let vacancy = match table.place_of(hash, look.key()) {
            Place::Free(vacancy) => vacancy,
            Place::Taken(_) if present == Present::Refused => return Err(Taken),
            Place::Taken(mut there) => {
                preserve(cut, db, &mut there);
                there.vacate().1
            }
        };
        vacancy.insert(entry).set_access(access);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use carnelian_structs::value::string_entry;

    use super::*;
    use crate::{AccessPolicy, Aftermath, Db, Keyspace, segment_of};

    #[test]
    fn a_key_that_is_there_is_replaced_or_refused() {
        let keyspace = Keyspace::new(2);
        let hash = keyspace.hash(b"k");
        let mut access = keyspace.lock_all();
        let segment = access.segment_mut(segment_of(hash));
        let mut load = |value: &[u8], present| {
            segment.prefetch(1, hash);
            segment.load(1, hash, string_entry(b"k", value, Some(9)), 7, present)
        };
        assert_eq!(load(b"one", Present::Refused), Ok(()));
        assert_eq!(load(b"two", Present::Refused), Err(Taken));
        assert_eq!(load(b"three", Present::Replaced), Ok(()));
        let mut aftermath = Aftermath::default();
        let mut db = Db::new(access, 1, 0, AccessPolicy::Lru, &mut aftermath);
        let entry = db.look(b"k").expect("it was loaded");
        assert_eq!((entry.expiry(), entry.access()), (Some(9), 7));
        assert_eq!(entry.text().map(|text| text.to_vec()), Some(b"three".to_vec()));
    }
}

//! Keys with an expiry that clients have made on a replica that takes writes.
//!
//! The primary says what has expired of its own keys, and knows nothing of these: the replica removes them by
//! itself, in its tick.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carnelian_keyspace::{Db, SegmentSet, segment_of};
use parking_lot::Mutex;

use super::gate;
use crate::database::Database;
use crate::dispatch::{self, Vectors};
use crate::session::Worker;

/// Keys looked at in one tick.
const LOOKS: usize = 1000;

/// A logical database and a key.
type Key = (usize, Box<[u8]>);

/// What a replica has to remove by itself.
#[derive(Default)]
pub struct OwnKeys {
    /// There is any.
    is_any: AtomicBool,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    /// When each expires, as far as is known.
    due_ms: BTreeMap<Key, u64>,
    /// Behind which key the next tick goes on.
    cursor: Option<Key>,
}

impl OwnKeys {
    /// Takes note of a key of a command that a client of a writable replica has run, if the key is to expire.
    /// Its segment is locked.
    pub fn note(&self, db: &Db<'_>, key: &[u8]) {
        if let Some(due_ms) = db.peek(key).and_then(|entry| entry.expiry()) {
            self.keys.lock().due_ms.insert((db.index(), key.into()), due_ms);
            self.is_any.store(true, Ordering::Relaxed);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.keys.lock().due_ms.len()
    }

    /// The data are others, or the primary's no longer.
    pub fn clear(&self) {
        *self.keys.lock() = Keys::default();
        self.is_any.store(false, Ordering::Relaxed);
    }

    /// Removes what has expired.
    pub fn tick(&self, worker: &mut Worker, database: &Arc<Database>) {
        if !self.is_any.load(Ordering::Relaxed) || database.keyspace.is_busy() {
            return;
        }
        for (key, due_ms) in self.due(worker.clock.now_ms()) {
            if !self.remove(worker, database, &key) {
                // A script runs.
                return;
            }
            let mut keys = self.keys.lock();
            // It may have been noted anew meanwhile.
            if keys.due_ms.get(&key) == Some(&due_ms) {
                keys.due_ms.remove(&key);
            }
            self.is_any.store(!keys.due_ms.is_empty(), Ordering::Relaxed);
        }
    }

    /// Those of the next keys that should have expired by now.
    fn due(&self, now_ms: u64) -> Vec<(Key, u64)> {
        let Keys { due_ms, cursor } = &mut *self.keys.lock();
        let from = cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut due = Vec::new();
        for (looks, (key, &at)) in due_ms.range((from, Bound::Unbounded)).enumerate() {
            if looks == LOOKS {
                *cursor = Some(key.clone());
                break;
            }
            if at <= now_ms {
                due.push((key.clone(), at));
            }
        }
        due
    }

    /// Removes a key if it has expired. False if that cannot be known now.
    fn remove(&self, worker: &mut Worker, database: &Arc<Database>, (index, key): &Key) -> bool {
        let keyspace = &database.keyspace;
        let mut scratch = std::mem::take(&mut worker.scratch);
        let Vectors { aftermath, ready, .. } = &mut *scratch;
        let mut wanted = SegmentSet::default();
        wanted.insert(segment_of(keyspace.hash(key)));
        let Ok(access) = keyspace.lock_unless_busy(wanted) else {
            worker.scratch = scratch;
            return false;
        };
        let settings = database.settings.load();
        let mut db = dispatch::open(worker, database, &settings, *index, access.into(), aftermath);
        db.changes.keeps_expired = false;
        if db.exists(key) {
            // It has another expiry now, or none.
            self.note(&db, key);
        }
        dispatch::hear(database, db.changes, ready);
        dispatch::log_departures(database, db.changes, settings.lazy_expire);
        drop(db);
        dispatch::settle(worker, database, None, &mut scratch.aftermath);
        worker.scratch = scratch;
        true
    }
}

/// Whether what a client does to keys with an expiry is to be noted.
pub fn are_noted(database: &Database) -> bool {
    database.replication.gate() & (gate::REPLICA | gate::READ_ONLY) == gate::REPLICA
}

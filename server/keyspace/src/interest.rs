//! Which keys somebody wants to hear of: watched ones, those that blocked clients wait for, tracked ones.
//!
//! A filter of counters by the key's hash: it may say yes for a key that nobody cares about, never no
//! for one that somebody does. So a write pays one look at a counter, and only while anybody waits
//! for anything at all.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use ahash::RandomState;
use carnelian_structs::table::hash_key;

/// Counters; a power of two.
const COUNTERS: usize = 1 << 14;

pub struct Interest {
    counters: Box<[AtomicU32]>,
    /// Keys that were asked for, with repetitions, and those who want to hear of every key.
    askers: AtomicUsize,
    /// Those who want to hear of every key.
    of_all: AtomicUsize,
    /// Those of the askers to whom a key that comes or goes is a change, whatever they wait for.
    watches: AtomicUsize,
    hasher: RandomState,
}

impl Default for Interest {
    fn default() -> Self {
        Self {
            counters: (0..COUNTERS).map(|_| AtomicU32::new(0)).collect(),
            askers: AtomicUsize::new(0),
            of_all: AtomicUsize::new(0),
            watches: AtomicUsize::new(0),
            hasher: RandomState::new(),
        }
    }
}

impl Interest {
    /// Whether anybody wants to hear of any key.
    #[inline]
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.askers.load(Ordering::Relaxed) != 0
    }

    /// Asks to hear of changes to a key. Whoever holds the key's lock meanwhile misses none.
    pub fn add(&self, db: usize, key: &[u8]) {
        self.counter(db, key).fetch_add(1, Ordering::Relaxed);
        self.askers.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back one [`Interest::add`].
    pub fn remove(&self, db: usize, key: &[u8]) {
        self.counter(db, key).fetch_sub(1, Ordering::Relaxed);
        self.askers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Asks for a key that is watched: it must not come, not even expired, unless that is told.
    pub fn add_watch(&self, db: usize, key: &[u8]) {
        self.watches.fetch_add(1, Ordering::Relaxed);
        self.add(db, key);
    }

    /// Takes back one [`Interest::add_watch`].
    pub fn remove_watch(&self, db: usize, key: &[u8]) {
        self.remove(db, key);
        self.watches.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether any key is watched.
    #[must_use]
    pub fn has_watches(&self) -> bool {
        self.watches.load(Ordering::Relaxed) != 0
    }

    /// Asks to hear of changes to any key.
    pub fn add_all(&self) {
        self.of_all.fetch_add(1, Ordering::Relaxed);
        self.askers.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back one [`Interest::add_all`].
    pub fn remove_all(&self) {
        self.of_all.fetch_sub(1, Ordering::Relaxed);
        self.askers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a change to the key is worth telling.
    #[must_use]
    pub fn cares(&self, db: usize, key: &[u8]) -> bool {
        self.is_awake()
            && (self.of_all.load(Ordering::Relaxed) != 0
                || self.counter(db, key).load(Ordering::Relaxed) != 0)
    }

    fn counter(&self, db: usize, key: &[u8]) -> &AtomicU32 {
        let hash = hash_key(&self.hasher, key) as usize;
        &self.counters[hash.wrapping_add(db) % COUNTERS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hears_of_what_was_asked_for_until_it_is_taken_back() {
        let interest = Interest::default();
        assert!(!interest.is_awake() && !interest.cares(0, b"a"));
        interest.add(0, b"a");
        interest.add(0, b"a");
        interest.remove(0, b"a");
        assert!(interest.is_awake() && interest.cares(0, b"a"));
        assert!(!interest.cares(1, b"a"), "the same key of another logical database");
        interest.remove(0, b"a");
        assert!(!interest.is_awake() && !interest.cares(0, b"a"));
        interest.add_watch(0, b"a");
        assert!(interest.cares(0, b"a") && interest.has_watches());
        interest.remove_watch(0, b"a");
        assert!(!interest.is_awake() && !interest.has_watches());
        interest.add_all();
        assert!(interest.cares(3, b"any"));
        interest.remove_all();
        assert!(!interest.is_awake());
    }
}

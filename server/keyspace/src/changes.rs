//! What a batch changed and others have to hear of: counters, watched keys, events, expired keys.

use std::sync::Arc;

use crate::interest::Interest;

/// The class of a keyspace event, as `notify-keyspace-events` groups them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventClass {
    Generic = 1 << 2,
    String = 1 << 3,
    List = 1 << 4,
    Set = 1 << 5,
    Hash = 1 << 6,
    SortedSet = 1 << 7,
    Expired = 1 << 8,
    Evicted = 1 << 9,
    Stream = 1 << 10,
    KeyMiss = 1 << 11,
    New = 1 << 14,
}

/// A keyspace event: `event` happened to `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub class: EventClass,
    pub name: &'static str,
    pub db: usize,
    pub key: Box<[u8]>,
}

/// Fields of one hash: its logical database, its key and their names.
pub type ExpiredFields = (usize, Box<[u8]>, Vec<Vec<u8>>);

/// A change that clients may have to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub db: usize,
    pub key: Box<[u8]>,
    /// No command changed it.
    pub is_lapsed: bool,
}

/// Collected while commands run, read by the dispatcher after each.
#[derive(Default)]
pub struct Changes {
    /// Changes since the dispatcher last looked, as `rdb_changes_since_last_save` counts them.
    pub dirty: u64,
    pub hits: u64,
    pub misses: u64,
    pub expired_keys: u64,
    pub expired_fields: u64,
    pub evicted_keys: u64,
    /// Event classes somebody listens to; others cost nothing.
    pub listening: u32,
    pub events: Vec<Event>,
    /// Whether keys opened for writing are to be listed (for WATCH, tracking, blocked clients).
    pub watching: bool,
    /// Which keys are worth listing; all, if not given.
    pub interest: Option<Arc<Interest>>,
    pub touched: Vec<(usize, Box<[u8]>)>,
    /// Places in `touched` of those that no command changed: they have expired, or were evicted.
    pub lapsed: Vec<usize>,
    /// Of those touched, the ones that clients may have in a cache of theirs; moved here by who has
    /// dealt with the others' interest.
    pub told: Vec<Told>,
    /// Keys whose waiting clients are to look again though the value counts as unchanged.
    pub roused: Vec<(usize, Box<[u8]>)>,
    /// Whether a logical database was emptied.
    pub flushed: bool,
    /// Whether what was dropped is to be freed before the reply.
    pub frees_now: bool,
    /// Whether keys that have expired are left alone, and only look as if they were gone.
    pub keeps_expired: bool,
    /// Whether somebody follows the effects (a replica, the append-only file, a test).
    pub following: bool,
    /// Keys that no command has removed (they expired, or went for want of memory), to be followed as
    /// deletions.
    pub departed: Vec<(usize, Box<[u8]>)>,
    /// Hash fields found expired and removed.
    pub expired_hash_fields: Vec<ExpiredFields>,
}

impl Changes {
    /// Lists from now on the keys that somebody cares about.
    #[inline]
    pub fn watch(&mut self, interest: &Arc<Interest>) {
        self.watching = interest.is_awake();
        if self.watching && self.interest.as_ref().is_none_or(|it| !Arc::ptr_eq(it, interest)) {
            self.interest = Some(Arc::clone(interest));
        }
    }

    /// The same for who has not locked the keys yet: somebody may begin to care until then.
    pub fn watch_ahead(&mut self, interest: &Arc<Interest>) {
        self.watching = true;
        if self.interest.as_ref().is_none_or(|it| !Arc::ptr_eq(it, interest)) {
            self.interest = Some(Arc::clone(interest));
        }
    }

    /// Whether somebody cares about any key: asked before many keys are listed, with their locks held.
    #[must_use]
    pub(crate) fn is_anything_watched(&self) -> bool {
        self.watching && self.interest.as_ref().is_none_or(|it| it.is_awake())
    }

    /// Whether one of those who want to hear watches keys, and does not only wait for them.
    pub(crate) fn has_watches(&self) -> bool {
        self.watching && self.interest.as_ref().is_none_or(|it| it.has_watches())
    }

    /// Whether anything has gone that no command has removed.
    #[inline]
    #[must_use]
    pub fn has_departures(&self) -> bool {
        !(self.departed.is_empty() && self.expired_hash_fields.is_empty())
    }

    /// Forgets what was collected, and keeps who listens.
    pub fn clear(&mut self) {
        (self.dirty, self.hits, self.misses) = (0, 0, 0);
        (self.expired_keys, self.expired_fields, self.evicted_keys) = (0, 0, 0);
        self.events.clear();
        self.touched.clear();
        self.lapsed.clear();
        self.told.clear();
        self.roused.clear();
        self.flushed = false;
        self.frees_now = false;
        self.departed.clear();
        self.expired_hash_fields.clear();
    }

    #[inline]
    pub fn notify(&mut self, class: EventClass, name: &'static str, db: usize, key: &[u8]) {
        if self.listening & class as u32 != 0 {
            self.events.push(Event { class, name, db, key: key.into() });
        }
    }

    #[inline]
    pub fn touch(&mut self, db: usize, key: &[u8]) {
        if self.watching && self.interest.as_ref().is_none_or(|it| it.cares(db, key)) {
            self.touched.push((db, key.into()));
        }
    }

    pub(crate) fn rouse(&mut self, db: usize, key: &[u8]) {
        if self.watching && self.interest.as_ref().is_none_or(|it| it.cares(db, key)) {
            self.roused.push((db, key.into()));
        }
    }

    /// The key went by itself.
    pub(crate) fn lapse(&mut self, db: usize, key: &[u8]) {
        let place = self.touched.len();
        self.touch(db, key);
        if place < self.touched.len() {
            self.lapsed.push(place);
        }
    }

    #[inline]
    pub(crate) fn key_missed(&mut self, db: usize, key: &[u8]) {
        self.misses += 1;
        self.notify(EventClass::KeyMiss, "keymiss", db, key);
    }

    pub(crate) fn key_expired(&mut self, db: usize, key: &[u8]) {
        self.expired_keys += 1;
        self.lapse(db, key);
        self.notify(EventClass::Expired, "expired", db, key);
        if self.following {
            self.departed.push((db, key.into()));
        }
    }

    /// Fields of a hash were found expired and removed, the key with them if `spent`.
    pub(crate) fn fields_expired(
        &mut self,
        db: usize,
        key: &[u8],
        fields: Vec<Vec<u8>>,
        spent: bool,
    ) {
        if fields.is_empty() {
            return;
        }
        self.expired_fields += fields.len() as u64;
        self.lapse(db, key);
        self.notify(EventClass::Hash, "hexpired", db, key);
        if spent {
            self.notify(EventClass::Generic, "del", db, key);
        }
        if self.following {
            self.expired_hash_fields.push((db, key.into(), fields));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_locks_later_hears_of_those_who_come_until_then() {
        let interest = Arc::new(Interest::default());
        let (mut now, mut later) = (Changes::default(), Changes::default());
        now.watch(&interest);
        later.watch_ahead(&interest);
        assert!(!now.is_anything_watched() && !later.is_anything_watched());
        interest.add(0, b"a");
        for changes in [&mut now, &mut later] {
            changes.touch(0, b"a");
            changes.touch(0, b"b");
        }
        assert!(now.touched.is_empty());
        assert!(later.is_anything_watched());
        assert_eq!(later.touched, [(0, (*b"a").into())]);
    }
}

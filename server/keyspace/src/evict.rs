//! Eviction: which keys to give up when memory is short.
//!
//! To keep all keys in the order of their use would cost memory and a write at every read. So a few
//! keys at random are looked at for each one that goes, and the best candidates among those that stayed
//! are remembered in a small pool: rounds add up, and the pool gets close to the true order.
//!
//! One segment is locked at a time, so no lock may be held when this begins. A slot's bit says that a
//! key can expire and a table knows how many there are, so where only such keys may go, tables
//! without them are skipped whole, and of the others bucket lines alone are read.

use carnelian_structs::entry::EntryRef;
use carnelian_structs::table::{Cursor, Table};
use carnelian_structs::value::Value;
use parking_lot::MutexGuard;

use crate::access::BUSY_CHECK;
use crate::changes::{Changes, EventClass};
use crate::clock::{frequency, idle_seconds};
use crate::db::Aftermath;
use crate::segment::{Parts, SEGMENTS, Segment, segment_of};
use crate::snapshot::preserve;
use crate::space::Keyspace;

/// Candidates that are remembered.
const POOL: usize = 16;

/// Buckets of one table that are searched for a key that can expire, before the next table is tried.
const BUCKETS: usize = 256;

/// Rounds of sampling for one key: all candidates may turn out to be in use again.
const ROUNDS: usize = 16;

/// `maxmemory-policy`, but for `noeviction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvictionPolicy {
    /// Only keys that have an expiry may go.
    pub volatile: bool,
    pub order: EvictionOrder,
}

/// Which keys go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionOrder {
    /// The longest unused.
    Idle,
    /// The least used.
    Frequency {
        decay_minutes: u32,
    },
    /// Those that expire soonest.
    Expiry,
    Random,
}

/// The search for keys to evict: what it has seen so far.
#[derive(Default)]
pub struct Evictor {
    policy: Option<EvictionPolicy>,
    /// The best last.
    pool: Vec<Candidate>,
}

struct Candidate {
    score: u64,
    db: usize,
    key: Vec<u8>,
}

impl Evictor {
    /// Removes one key, the best found by looking at `samples` more. How many bytes it took; none if
    /// there is no key that may go. `hear` is called while the key's lock is held.
    pub fn evict_one(
        &mut self,
        keyspace: &Keyspace,
        policy: EvictionPolicy,
        samples: usize,
        now_ms: u64,
        aftermath: &mut Aftermath,
        mut hear: impl FnMut(&mut Changes),
    ) -> Option<usize> {
        if self.policy != Some(policy) {
            self.policy = Some(policy);
            self.pool.clear();
        }
        let samples = if policy.order == EvictionOrder::Random { 1 } else { samples.max(1) };
        for _ in 0..ROUNDS {
            let seen = keyspace.sample(policy.volatile, samples, |db, entry| {
                self.offer(policy.order.score(entry, now_ms), db, entry.key());
            });
            while let Some(candidate) = self.pool.pop() {
                let freed = keyspace.evict(&candidate, policy, now_ms, aftermath, &mut hear);
                if freed.is_some() {
                    return freed;
                }
            }
            if seen == 0 {
                return None;
            }
        }
        None
    }

    /// Remembers a key if it is among the best.
    fn offer(&mut self, score: u64, db: usize, key: &[u8]) {
        let place = self.pool.partition_point(|known| known.score < score);
        let same = |known: &Candidate| known.db == db && known.key == key;
        if self.pool[place..].iter().take_while(|known| known.score == score).any(same) {
            return;
        }
        let mut candidate = Candidate { score, db, key: Vec::new() };
        let place = if self.pool.len() < POOL {
            place
        } else {
            if place == 0 {
                return;
            }
            // The worst goes; its memory serves the new one.
            candidate.key = self.pool.remove(0).key;
            place - 1
        };
        candidate.key.clear();
        candidate.key.extend_from_slice(key);
        self.pool.insert(place, candidate);
    }
}

impl EvictionOrder {
    /// The higher, the sooner the entry should go.
    fn score(self, entry: EntryRef<'_, Value>, now_ms: u64) -> u64 {
        match self {
            Self::Idle => idle_seconds(entry.access(), now_ms).into(),
            Self::Frequency { decay_minutes } => {
                255 - u64::from(frequency(entry.access(), now_ms, decay_minutes))
            }
            Self::Expiry => u64::MAX - entry.expiry().unwrap_or(u64::MAX),
            Self::Random => 0,
        }
    }
}

impl Keyspace {
    /// Shows `count` keys from random places of some segment and, where that has fewer, of those
    /// after it. How many were shown: none only if there are none.
    fn sample(
        &self,
        volatile: bool,
        count: usize,
        mut see: impl FnMut(usize, EntryRef<'_, Value>),
    ) -> usize {
        let first = fastrand::usize(..SEGMENTS);
        let mut seen = 0;
        // At first those that are in use are passed by, and long searches are broken off.
        for buckets_max in [BUCKETS, usize::MAX] {
            for step in 0..SEGMENTS {
                let index = (first + step) % SEGMENTS;
                let segment = match buckets_max {
                    BUCKETS => self.segment(index).try_lock(),
                    _ => self.wait_for(index),
                };
                let Some(segment) = segment else { continue };
                seen += sample_segment(&segment, volatile, count - seen, buckets_max, &mut see);
                if count <= seen {
                    return seen;
                }
            }
            if seen != 0 {
                break;
            }
        }
        seen
    }

    /// Removes a candidate, unless it was used or changed since it became one.
    fn evict(
        &self,
        candidate: &Candidate,
        policy: EvictionPolicy,
        now_ms: u64,
        aftermath: &mut Aftermath,
        hear: &mut impl FnMut(&mut Changes),
    ) -> Option<usize> {
        let Candidate { score, db, ref key } = *candidate;
        let hash = self.hash(key);
        let mut segment = self.wait_for(segment_of(hash))?;
        // A flush may have taken the table meanwhile, but none is made here.
        let _ = segment.table(db)?;
        let Parts { table, cut, .. } = segment.parts(db);
        let mut entry = table.find_mut(hash, key)?;
        let look = entry.as_ref();
        if policy.volatile && look.expiry().is_none() || policy.order.score(look, now_ms) < score {
            return None;
        }
        preserve(cut, db, &mut entry);
        let entry = entry.remove();
        let bytes = entry.heap_bytes();
        aftermath.dropped.retire_some(entry);
        aftermath.changes.key_evicted(db, key);
        hear(&mut aftermath.changes);
        Some(bytes)
    }
}

impl Keyspace {
    /// Locks a segment, unless that would be to wait for a script that has run for too long.
    fn wait_for(&self, index: usize) -> Option<MutexGuard<'_, Segment>> {
        loop {
            let guard = self.segment(index).try_lock_for(BUSY_CHECK);
            if guard.is_some() || self.is_busy() {
                return guard;
            }
        }
    }
}

/// Shows up to `count` keys of a segment, those of a random logical database first.
fn sample_segment(
    segment: &Segment,
    volatile: bool,
    count: usize,
    buckets_max: usize,
    see: &mut impl FnMut(usize, EntryRef<'_, Value>),
) -> usize {
    let databases = segment.databases();
    let first = if databases == 1 { 0 } else { fastrand::usize(..databases) };
    let mut seen = 0;
    for step in 0..databases {
        let db = (first + step) % databases;
        let Some(table) = segment.table(db).filter(|table| !table.is_empty()) else { continue };
        let mut show = |entry: EntryRef<'_, Value>| see(db, entry);
        seen += if volatile {
            sample_expiring(table, count - seen, buckets_max, &mut show)
        } else {
            sample_table(table, count - seen, &mut show)
        };
        if count <= seen {
            break;
        }
    }
    seen
}

fn sample_table(
    table: &Table<Value>,
    count: usize,
    see: &mut impl FnMut(EntryRef<'_, Value>),
) -> usize {
    if table.len() <= count {
        table.iter().for_each(see);
        return table.len();
    }
    if count == 1 {
        table.random(|| fastrand::u64(..)).into_iter().for_each(see);
        return 1;
    }
    // Whole buckets: what shares one has nothing else in common.
    let mut seen = 0;
    let mut cursor = Cursor(fastrand::u64(..));
    while seen < count {
        cursor = table.scan(cursor, |entry| {
            if seen < count {
                seen += 1;
                see(entry);
            }
        });
    }
    seen
}

fn sample_expiring(
    table: &Table<Value>,
    count: usize,
    buckets_max: usize,
    see: &mut impl FnMut(EntryRef<'_, Value>),
) -> usize {
    let count = count.min(table.expiring());
    let mut seen = 0;
    let mut cursor = Cursor(fastrand::u64(..));
    for _ in 0..buckets_max.min(table.buckets() + 1) {
        if count <= seen {
            break;
        }
        cursor = table.scan_expiring(cursor, |entry| {
            if seen < count {
                seen += 1;
                see(entry);
            }
        });
    }
    seen
}

impl Changes {
    fn key_evicted(&mut self, db: usize, key: &[u8]) {
        self.evicted_keys += 1;
        self.lapse(db, key);
        self.notify(EventClass::Evicted, "evicted", db, key);
        if self.following {
            self.departed.push((db, key.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccessPolicy, Db, Expiry};

    const LRU: EvictionPolicy = EvictionPolicy { volatile: false, order: EvictionOrder::Idle };

    /// A keyspace to fill and to evict from, at a time that tests choose.
    struct Bench {
        keyspace: Keyspace,
        aftermath: Aftermath,
        evictor: Evictor,
        access: AccessPolicy,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                keyspace: Keyspace::new(16),
                aftermath: Aftermath::default(),
                evictor: Evictor::default(),
                access: AccessPolicy::Lru,
            }
        }

        fn at<R>(&mut self, seconds: u64, run: impl FnOnce(&mut Db<'_>) -> R) -> R {
            let access = self.keyspace.lock_all();
            run(&mut Db::new(access, 0, seconds * 1000, self.access, &mut self.aftermath))
        }

        fn evict(&mut self, policy: EvictionPolicy, seconds: u64) -> Option<usize> {
            let Self { keyspace, aftermath, evictor, .. } = self;
            evictor.evict_one(keyspace, policy, 5, seconds * 1000, aftermath, |_| {})
        }

        /// Of the keys `k0` to `k<count>`, those that are there.
        fn left(&mut self, count: usize) -> Vec<usize> {
            self.at(0, |db| (0..count).filter(|i| db.exists(name(*i).as_bytes())).collect())
        }
    }

    fn name(index: usize) -> String {
        format!("k{index}")
    }

    /// Evicts a quarter of the keys after an even half was used again; how many of that half are left.
    fn used_keys_left(order: EvictionOrder) -> usize {
        const KEYS: usize = 4000;

        let mut bench = Bench::new();
        for key in 0..KEYS {
            bench.at(1000, |db| db.set_string(name(key).as_bytes(), b"v", Expiry::Clear));
        }
        for key in (0..KEYS).step_by(2) {
            bench.at(5000, |db| db.touch(name(key).as_bytes()));
        }
        for _ in 0..KEYS / 4 {
            assert!(bench.evict(EvictionPolicy { volatile: false, order }, 6000).is_some());
        }
        let left = bench.left(KEYS);
        assert_eq!(left.len(), KEYS - KEYS / 4);
        left.into_iter().filter(|key| key % 2 == 0).count()
    }

    #[test]
    fn keys_in_use_stay_and_chance_does_not_know_them() {
        // Of 2000 keys in use, chance keeps 1500, with a deviation of some 14 keys.
        let by_chance = used_keys_left(EvictionOrder::Random);
        assert!((1400..=1600).contains(&by_chance), "{by_chance}");
        let by_use = used_keys_left(EvictionOrder::Idle);
        assert!(1900 < by_use, "{by_use}");
    }

    #[test]
    fn the_least_frequently_used_go_first() {
        let mut bench = Bench::new();
        bench.access = AccessPolicy::Lfu { log_factor: 0, decay_minutes: 0 };
        for key in 0..1000 {
            bench.at(1000, |db| db.set_string(name(key).as_bytes(), b"v", Expiry::Clear));
        }
        for key in 0..500 {
            for _ in 0..3 {
                bench.at(1000, |db| db.touch(name(key).as_bytes()));
            }
        }
        let order = EvictionOrder::Frequency { decay_minutes: 0 };
        for _ in 0..400 {
            bench.evict(EvictionPolicy { volatile: false, order }, 1000);
        }
        let kept = bench.left(1000).into_iter().filter(|key| *key < 500).count();
        assert!(450 < kept, "{kept}");
    }

    #[test]
    fn the_soonest_to_expire_go_first_and_others_never() {
        let mut bench = Bench::new();
        for key in 0..1000_usize {
            let expiry = match key {
                0..500 => Expiry::At(1_000_000 + 1000 * key as u64),
                _ => Expiry::Clear,
            };
            bench.at(1, |db| db.set_string(name(key).as_bytes(), b"v", expiry));
        }
        let policy = EvictionPolicy { volatile: true, order: EvictionOrder::Expiry };
        for _ in 0..250 {
            assert!(bench.evict(policy, 1).is_some());
        }
        let left = bench.left(1000);
        let late = left.iter().filter(|key| (250..500).contains(*key)).count();
        assert!(200 < late, "{late}");
        for _ in 0..250 {
            assert!(bench.evict(policy, 1).is_some());
        }
        assert_eq!(bench.evict(policy, 1), None);
        assert_eq!(bench.left(1000), (500..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_single_key_that_can_expire_is_found_among_many() {
        let mut bench = Bench::new();
        for key in 0..50_000 {
            bench.at(1, |db| db.set_string(name(key).as_bytes(), b"v", Expiry::Clear));
        }
        bench.at(1, |db| {
            db.select(7);
            db.set_string(b"k", b"v", Expiry::At(u64::MAX / 2));
        });
        for order in [EvictionOrder::Random, EvictionOrder::Idle, EvictionOrder::Expiry] {
            let policy = EvictionPolicy { volatile: true, order };
            assert!(bench.evict(policy, 1).is_some());
            assert!(bench.evict(policy, 1).is_none());
            bench.at(1, |db| db.set_string(b"k0", b"v", Expiry::At(u64::MAX / 2)));
        }
    }

    #[test]
    fn a_candidate_that_was_used_meanwhile_stays() {
        let mut bench = Bench::new();
        for key in 0..6 {
            bench.at(1000, |db| db.set_string(name(key).as_bytes(), b"v", Expiry::Clear));
        }
        assert!(bench.evict(LRU, 2000).is_some());
        let pooled: Vec<Vec<u8>> = bench.evictor.pool.iter().map(|it| it.key.clone()).collect();
        assert!(4 <= pooled.len(), "the others that were seen are remembered");
        for key in pooled {
            bench.at(3000, |db| db.touch(&key));
        }
        bench.at(1500, |db| db.set_string(b"old", b"v", Expiry::Clear));
        // Older than the touched four are `old` and the one that was not seen; five of six are looked at.
        assert_eq!(bench.at(3000, |db| db.len()), 6);
        bench.evict(LRU, 3000);
        bench.evict(LRU, 3000);
        assert!(!bench.at(3000, |db| db.exists(b"old")));
    }

    #[test]
    fn an_eviction_is_told_to_all_who_listen() {
        let mut bench = Bench::new();
        let changes = &mut bench.aftermath.changes;
        (changes.listening, changes.watching, changes.following) = (u32::MAX, true, true);
        let big = vec![b'x'; 100_000];
        bench.at(1, |db| db.set_string(b"k", &big, Expiry::Clear));
        bench.aftermath.changes.clear();
        let freed = bench.evict(LRU, 2).expect("there is a key");
        assert!(100_000 < freed);
        let changes = &bench.aftermath.changes;
        let key: Box<[u8]> = b"k".as_slice().into();
        assert_eq!(changes.evicted_keys, 1);
        assert_eq!(changes.touched, [(0, key.clone())]);
        assert_eq!(changes.departed, [(0, key)]);
        assert_eq!(changes.events[0].name, "evicted");
        assert!(bench.evict(LRU, 2).is_none());
    }

    #[test]
    fn the_pool_keeps_the_best_in_order_and_no_key_twice() {
        let mut evictor = Evictor::default();
        for score in (0..100).chain(0..100) {
            evictor.offer(score * 7919 % 100, 0, score.to_string().as_bytes());
        }
        let scores: Vec<u64> = evictor.pool.iter().map(|it| it.score).collect();
        assert_eq!(scores, (84..100).collect::<Vec<_>>());
    }
}

//! Tests of the table: against a map, and its invariants by walking everything.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::entry::NoObject;

type Small = Table<NoObject>;

impl<V: Payload> Table<V> {
    /// The invariants of the module's head, checked by walking everything.
    fn check(&self) {
        let entries: Vec<_> = self.iter().collect();
        assert_eq!(entries.len(), self.len);
        assert_eq!(entries.iter().filter(|e| e.expiry().is_some()).count(), self.expiring);
        let overflow: usize = (0..self.buckets)
            .map(|index| {
                let mut chain = 0;
                let mut next = self.bucket(index).overflow();
                while let Some(bucket) = next {
                    // SAFETY: an overflow address is that of a live bucket.
                    let bucket = unsafe { bucket.as_ref() };
                    assert!(bucket.slots.iter().any(|slot| slot.get() != 0));
                    chain += 1;
                    next = bucket.overflow();
                }
                chain
            })
            .sum();
        let pages: usize = self.pages.iter().map(|page| page.len()).sum();
        let entry_bytes: usize = entries.iter().map(|e| e.heap_bytes()).sum();
        assert_eq!(self.bytes, (pages + overflow) * BUCKET_BYTES + entry_bytes);
        for entry in entries {
            assert!(self.find(self.hash(entry.key()), entry.key()).is_some());
        }
    }
}

fn put(table: &mut Small, key: &[u8], value: &[u8], expiry: Option<u64>) {
    let hash = table.hash(key);
    if let Some(mut entry) = table.find_mut(hash, key) {
        entry.set_inline(1, value);
        entry.set_expiry(expiry);
    } else {
        table.insert(hash, Entry::inline(1, key, value, expiry));
    }
}

fn number(table: usize) -> Vec<u8> {
    format!("key:{table}").into_bytes()
}

#[test]
fn growing_and_shrinking_keeps_every_entry() {
    let mut table = Small::default();
    for n in 0..20_000 {
        put(&mut table, &number(n), b"value", (n % 3 == 0).then_some(7));
    }
    table.check();
    for n in 0..19_990 {
        let key = number(n);
        let hash = table.hash(&key);
        assert_eq!(table.remove(hash, &key).expect("it is there").as_ref().key(), key);
        if n % 1000 == 0 {
            table.check();
        }
    }
    table.check();
    assert_eq!(table.len(), 10);
    assert!(table.heap_bytes() < 64 * 1024, "memory went back: {}", table.heap_bytes());
}

#[test]
fn the_table_takes_at_most_15_bytes_an_entry() {
    let mut table = Small::default();
    let mut worst = 0.0_f64;
    for n in 0..100_000 {
        put(&mut table, &number(n), b"", None);
        if n > 20_000 && n % 100 == 0 {
            let entries: usize = table.iter().map(|e| e.heap_bytes()).sum();
            worst = worst.max((table.bytes - entries) as f64 / n as f64);
            if n % 5000 == 0 {
                println!("{n}: {}", (table.bytes - entries) as f64 / n as f64);
            }
        }
    }
    assert!(worst < 15.0, "{worst}");
}

#[test]
fn a_scan_returns_all_that_stayed_while_the_table_grows_and_shrinks() {
    let mut table = Small::default();
    for n in 0..3000 {
        put(&mut table, &number(n), b"", None);
    }
    let mut seen = HashSet::new();
    let mut cursor = Cursor(0);
    let mut step = 0;
    loop {
        cursor = table.scan(cursor, |entry| {
            seen.insert(entry.key().to_vec());
        });
        step += 1;
        // Grow for a while, then shrink below the first size, under the scan's feet.
        for n in 0..20 {
            let key = format!("extra:{}", step % 150 * 20 + n).into_bytes();
            if step < 150 {
                put(&mut table, &key, b"", None);
            } else {
                let hash = table.hash(&key);
                table.remove(hash, &key);
            }
        }
        if cursor == Cursor(0) {
            break;
        }
    }
    for n in 0..3000 {
        assert!(seen.contains(&number(n)), "{n} was missed");
    }
}

#[test]
fn random_reaches_every_entry_of_a_long_chain() {
    let mut table = Small::default();
    let together: Vec<_> =
        (0..).map(number).filter(|key| table.hash(key) % 8 == 0).take(40).collect();
    for key in &together {
        put(&mut table, key, b"", None);
    }
    assert!(table.buckets <= 8, "one bucket has them all");
    let mut state = 88_172_645_463_325_252_u64;
    let mut seen = HashSet::new();
    for _ in 0..40_000 {
        let entry = table.random(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        seen.insert(entry.expect("not empty").key().to_vec());
    }
    assert_eq!(seen.len(), 40);
}

#[test]
fn random_reaches_every_entry() {
    let mut table = Small::default();
    for n in 0..200 {
        put(&mut table, &number(n), b"", None);
    }
    let mut state = 88_172_645_463_325_252_u64;
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    for _ in 0..40_000 {
        let entry = table.random(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        *counts.entry(entry.expect("not empty").key().to_vec()).or_default() += 1;
    }
    assert_eq!(counts.len(), 200);
    assert!(counts.values().all(|&n| (120..290).contains(&n)), "{counts:?}");
}

#[derive(Debug, Clone)]
enum Op {
    Put(u8, Vec<u8>, Option<u64>),
    Resize(u8, usize),
    Expire(u8, Option<u64>),
    Remove(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..100), any::<Option<u64>>())
            .prop_map(|(k, v, e)| Op::Put(k, v, e)),
        (any::<u8>(), 0_usize..300).prop_map(|(k, n)| Op::Resize(k, n)),
        (any::<u8>(), any::<Option<u64>>()).prop_map(|(k, e)| Op::Expire(k, e)),
        any::<u8>().prop_map(Op::Remove),
    ]
}

proptest! {
    #![proptest_config(crate::test_config())]
    #[test]
    fn the_table_agrees_with_a_map(ops in proptest::collection::vec(op(), 0..600)) {
        let mut table = Small::default();
        let mut model: HashMap<Vec<u8>, (Vec<u8>, Option<u64>)> = HashMap::new();
        for op in ops {
            match op {
                Op::Put(k, value, expiry) => {
                    put(&mut table, &number(k.into()), &value, expiry);
                    model.insert(number(k.into()), (value, expiry));
                }
                Op::Resize(k, length) => {
                    let key = number(k.into());
                    let hash = table.hash(&key);
                    if let Some(mut entry) = table.find_mut(hash, &key) {
                        entry.resize_inline(2, length);
                        model.get_mut(&key).expect("both have it").0.resize(length, 0);
                    }
                }
                Op::Expire(k, expiry) => {
                    let key = number(k.into());
                    let hash = table.hash(&key);
                    if let Some(mut entry) = table.find_mut(hash, &key) {
                        entry.set_expiry(expiry);
                        model.get_mut(&key).expect("both have it").1 = expiry;
                    }
                }
                Op::Remove(k) => {
                    let key = number(k.into());
                    let hash = table.hash(&key);
                    prop_assert_eq!(
                        table.remove(hash, &key).is_some(),
                        model.remove(&key).is_some()
                    );
                }
            }
        }
        table.check();
        prop_assert_eq!(table.len(), model.len());
        for (key, (value, expiry)) in model {
            let entry = table.find(table.hash(&key), &key).expect("the model has it");
            prop_assert_eq!(entry.bytes(), Some(value.as_slice()));
            prop_assert_eq!(entry.expiry(), expiry);
        }
    }
}

proptest! {
    /// A walk visits what was stale at its start exactly once, whatever is changed on the way.
    #[test]
    fn a_walk_over_stale_entries_meets_each_once(
        start in 1..600_usize,
        changes in prop::collection::vec((0..900_usize, 0..3_u8), 0..600),
        puts_off in prop::collection::vec(any::<bool>(), 0..100),
    ) {
        let mut puts_off = puts_off.into_iter();
        let mut table = Small::default();
        for n in 0..start {
            put(&mut table, &number(n), b"old", (n % 2 == 0).then_some(5));
        }
        table.set_version(3);
        let mut met: Vec<Vec<u8>> = Vec::new();
        let mut cursor = Cursor(0);
        let mut is_done = false;
        let mut changes = changes.into_iter();
        while !is_done {
            for (n, kind) in changes.by_ref().take(3) {
                let key = number(n);
                let hash = table.hash(&key);
                if let Some(mut entry) = table.find_mut(hash, &key)
                    && entry.is_stale()
                {
                    met.push(key.clone());
                    entry.stamp();
                }
                match kind {
                    0 => drop(table.remove(hash, &key)),
                    1 => put(&mut table, &key, b"new", None),
                    _ => put(&mut table, &key, &[b'n'; 300], Some(9)),
                }
            }
            let mut is_put_off = false;
            let next = table.visit_stale(cursor, |entry| {
                let puts_off = puts_off.next() == Some(true);
                is_put_off |= puts_off;
                if !puts_off {
                    met.push(entry.key().to_vec());
                }
                !puts_off
            });
            // What was put off is met again.
            if !is_put_off {
                cursor = next;
                is_done = cursor == Cursor(0);
            }
        }
        met.sort_unstable();
        let mut all: Vec<_> = (0..start).map(number).collect();
        all.sort_unstable();
        prop_assert_eq!(met, all);
        let mut left = 0;
        while {
            cursor = table.visit_stale(cursor, |_| {
                left += 1;
                true
            });
            cursor != Cursor(0)
        } {}
        prop_assert_eq!(left, 0);
        table.check();
    }
}

#[test]
fn a_cleared_table_keeps_its_version() {
    let mut table = Small::default();
    table.set_version(2);
    put(&mut table, b"a", b"1", None);
    table.clear();
    put(&mut table, b"b", b"1", None);
    assert_eq!(table.version(), 2);
    let hash = table.hash(b"b");
    assert!(table.find_mut(hash, b"b").is_some_and(|entry| !entry.is_stale()));
}

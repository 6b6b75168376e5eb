//! What a command pays for its keys: locks, hashing and the lookup, alone and in batches.

use std::hint::black_box;

use carnelian_keyspace::{
    Access, AccessPolicy, Aftermath, Db, Expiry, Keyspace, SegmentSet, Text, segment_of,
};
// For its allocator.
use carnelian_server as _;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const KEYS: usize = 1_000_000;
const NOW_MS: u64 = 1_700_000_000_000;
const VALUE: &[u8; 64] = &[b'v'; 64];

/// Keys in an order that no cache foresees.
#[derive(Default)]
struct Keys(usize);

impl Keys {
    fn next(&mut self) -> [u8; 16] {
        self.0 = (self.0 + 618_041) % KEYS;
        key(self.0)
    }
}

fn key(number: usize) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn open<'k>(access: Access<'k>, aftermath: &'k mut Aftermath) -> Db<'k> {
    Db::new(access, 0, NOW_MS, AccessPolicy::Lru, aftermath)
}

fn filled() -> Keyspace {
    let keyspace = Keyspace::new(16);
    let mut aftermath = Aftermath::default();
    let mut db = open(keyspace.lock_all(), &mut aftermath);
    for number in 0..KEYS {
        db.set_string(&key(number), VALUE, Expiry::Clear);
    }
    drop(db);
    keyspace
}

fn get(db: &mut Db<'_>, key: &[u8]) -> usize {
    match db.string(key).expect("it is a string").expect("it is there") {
        Text::Bytes(bytes) => bytes.len(),
        Text::Integer(_) => 0,
    }
}

fn one_by_one(criterion: &mut Criterion) {
    let keyspace = filled();
    let mut aftermath = Aftermath::default();
    let mut keys = Keys::default();
    let mut group = criterion.benchmark_group("keyspace of 1M keys");
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            let key = keys.next();
            get(&mut open(keyspace.lock_keys([key.as_slice()]), &mut aftermath), &key)
        });
    });
    group.bench_function("set", |bencher| {
        bencher.iter(|| {
            let key = keys.next();
            let mut db = open(keyspace.lock_keys([key.as_slice()]), &mut aftermath);
            db.set_string(&key, black_box(VALUE), Expiry::Clear);
        });
    });
    group.bench_function("remove and set", |bencher| {
        bencher.iter(|| {
            let key = keys.next();
            let mut db = open(keyspace.lock_keys([key.as_slice()]), &mut aftermath);
            assert!(db.remove(&key));
            db.set_string(&key, black_box(VALUE), Expiry::Clear);
        });
    });

    group.throughput(Throughput::Elements(16));
    for (name, prefetched) in [("get 16", false), ("get 16, prefetched", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let batch: [_; 16] = std::array::from_fn(|_| keys.next());
                let mut db = open(lock(&keyspace, &batch, prefetched), &mut aftermath);
                batch.iter().map(|key| get(&mut db, key)).sum::<usize>()
            });
        });
    }
    group.finish();
}

/// Locks the keys of a batch as the server does.
fn lock<'k>(keyspace: &'k Keyspace, batch: &[[u8; 16]; 16], prefetched: bool) -> Access<'k> {
    let hashes = batch.map(|key| keyspace.hash(&key));
    let mut wanted = SegmentSet::default();
    hashes.iter().for_each(|&hash| wanted.insert(segment_of(hash)));
    let access = keyspace.lock(wanted);
    if prefetched {
        let table = |hash| access.segment(segment_of(hash)).table(0);
        hashes
            .iter()
            .for_each(|&hash| table(hash).into_iter().for_each(|t| t.prefetch_bucket(hash)));
        hashes
            .iter()
            .for_each(|&hash| table(hash).into_iter().for_each(|t| t.prefetch_entry(hash)));
    }
    access
}

criterion_group!(benches, one_by_one);
criterion_main!(benches);

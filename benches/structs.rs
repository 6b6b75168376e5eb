//! The table at a million keys, and the encodings of the collections at the sizes where they are used.

use std::cmp::Ordering;
use std::hint::black_box;

// For its allocator.
use carnelian_server as _;
use carnelian_structs::intset::Intset;
use carnelian_structs::listpack::Listpack;
use carnelian_structs::quicklist::{End, ListLimits, Quicklist};
use carnelian_structs::rank_tree::RankTree;
use carnelian_structs::table::{Cursor, Table};
use carnelian_structs::value::{Value, string_entry};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

const KEYS: usize = 1_000_000;

/// Steps through numbers below a limit in an order that no cache foresees.
struct Stride {
    at: usize,
    below: usize,
}

impl Stride {
    fn below(below: usize) -> Self {
        Self { at: 0, below }
    }

    fn step(&mut self) -> usize {
        // A prime that divides none of the limits here, so that each number gets its turn.
        self.at = (self.at + 618_041) % self.below;
        self.at
    }
}

/// Keeps what was visited from being optimized away.
fn keep<T>(value: T) {
    let _ = black_box(value);
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

fn filled(keys: usize) -> Table<Value> {
    let mut table = Table::default();
    for number in 0..keys {
        put(&mut table, &key(number));
    }
    table
}

fn put(table: &mut Table<Value>, key: &[u8]) {
    let hash = table.hash(key);
    table.insert(hash, string_entry(key, &[b'v'; 32], None));
}

fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table of 1M keys");
    let mut table = filled(KEYS);
    let mut stride = Stride::below(KEYS);
    group.bench_function("find", |bencher| {
        bencher.iter(|| {
            let key = key(stride.step());
            table.find(table.hash(&key), &key).expect("it is there").expiry()
        });
    });
    group.bench_function("find, not there", |bencher| {
        bencher.iter(|| {
            let key = key(KEYS + stride.step());
            table.find(table.hash(&key), &key).is_some()
        });
    });
    group.bench_function("find 16, prefetched", |bencher| {
        bencher.iter(|| {
            let keys: [_; 16] = std::array::from_fn(|_| key(stride.step()));
            let hashes = keys.map(|key| table.hash(&key));
            hashes.iter().for_each(|&hash| table.prefetch_bucket(hash));
            hashes.iter().for_each(|&hash| table.prefetch_entry(hash));
            keys.iter().zip(hashes).filter(|(key, hash)| table.find(*hash, *key).is_some()).count()
        });
    });
    group.bench_function("remove and insert", |bencher| {
        bencher.iter(|| {
            let key = key(stride.step());
            drop(table.remove(table.hash(&key), &key).expect("it is there"));
            put(&mut table, &key);
        });
    });
    let mut cursor = Cursor(0);
    group.bench_function("scan one bucket", |bencher| {
        bencher.iter(|| cursor = table.scan(cursor, |entry| keep(entry.expiry())));
    });
    group.sample_size(10);
    group.bench_function("fill with 100k keys", |bencher| {
        bencher.iter_with_large_drop(|| filled(100_000));
    });
    group.finish();
}

fn listpack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("listpack");
    let words: Vec<Vec<u8>> = (0..128).map(|i| format!("element:{i:06}").into_bytes()).collect();
    let numbers: Vec<Vec<u8>> = (0..128).map(|i| (i * 1000).to_string().into_bytes()).collect();
    for (kind, elements) in [("words", &words), ("numbers", &numbers)] {
        let full = Listpack::from_elements(elements);
        let first = full.first().expect("it is not empty");
        group.bench_function(BenchmarkId::new("find the last of 128", kind), |bencher| {
            bencher.iter(|| full.find(first, black_box(&elements[127]), 0).is_some());
        });
        group.bench_function(BenchmarkId::new("find the last of 64 fields", kind), |bencher| {
            bencher.iter(|| full.find(first, black_box(&elements[126]), 1).is_some());
        });
        group.bench_function(BenchmarkId::new("push 128 at the back", kind), |bencher| {
            bencher.iter(|| {
                let mut listpack = Listpack::new();
                elements.iter().for_each(|element| listpack.push_back(black_box(element)));
                listpack
            });
        });
        group.bench_function(BenchmarkId::new("push at the front of 128", kind), |bencher| {
            let clone = || Listpack::from_elements(elements);
            let push = |listpack: &mut Listpack| listpack.push_front(black_box(&elements[5]));
            bencher.iter_batched_ref(clone, push, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn intset(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("intset of 512");
    let mut set: Intset = (0..512).map(|number| number * 100).collect();
    let mut stride = Stride::below(512);
    group.bench_function("contains", |bencher| {
        bencher.iter(|| set.contains(100 * stride.step() as i64));
    });
    group.bench_function("remove and insert", |bencher| {
        bencher.iter(|| {
            let number = 100 * stride.step() as i64;
            assert!(set.remove(number) && set.insert(number));
        });
    });
    group.finish();
}

fn quicklist(criterion: &mut Criterion) {
    const ELEMENTS: usize = 10_000;

    let limits = ListLimits::default();
    let mut list = Quicklist::new(limits);
    for number in 0..ELEMENTS {
        list.push(End::Back, format!("element:{number:08}").as_bytes(), limits);
    }
    let mut group = criterion.benchmark_group("quicklist of 10k");
    for (name, from, to) in [
        ("pop at the back, push at the front", End::Back, End::Front),
        ("pop and push at the front", End::Front, End::Front),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                list.pop(from, |element| keep(element));
                list.push(to, black_box(b"element:00012345"), limits);
            });
        });
    }
    let mut stride = Stride::below(ELEMENTS);
    group.bench_function("get by index", |bencher| {
        bencher.iter(|| list.get(stride.step() as i64, |element| element.len()));
    });
    group.bench_function("range of 100 at the front", |bencher| {
        bencher.iter(|| list.for_range(0, 100, |element| keep(element)));
    });
    group.finish();
}

fn rank_tree(criterion: &mut Criterion) {
    const ELEMENTS: usize = 100_000;

    /// How an item of the tree stands to the one that is looked for.
    fn to(item: u32) -> impl FnMut(u32) -> Ordering {
        move |other| other.cmp(&item)
    }

    let score = |item: usize| (item * 7919 % 50_021) as f64;
    let mut tree = RankTree::new();
    for item in 0..ELEMENTS {
        tree.insert(score(item), item as u32, to(item as u32));
    }
    let mut stride = Stride::below(ELEMENTS);
    let mut group = criterion.benchmark_group("rank tree of 100k");
    group.bench_function("remove and insert", |bencher| {
        bencher.iter(|| {
            let item = stride.step();
            tree.remove(score(item), to(item as u32)).expect("it is there");
            tree.insert(score(item), item as u32, to(item as u32));
        });
    });
    group.bench_function("rank", |bencher| {
        bencher.iter(|| {
            let item = stride.step();
            tree.rank(score(item), to(item as u32)).expect("it is there")
        });
    });
    group.bench_function("element at a rank", |bencher| {
        bencher.iter(|| tree.nth(stride.step()).expect("it is there"));
    });
    group.bench_function("range of 100", |bencher| {
        bencher.iter(|| {
            let from = stride.step();
            tree.range(from..from + 100).fold(0.0, |sum, (score, _)| sum + score)
        });
    });
    group.finish();
}

criterion_group!(benches, table, listpack, intset, quicklist, rank_tree);
criterion_main!(benches);

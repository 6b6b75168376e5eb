//! Snapshots under writes of every kind: what is shown is the state at the cut, each key once.

use std::collections::BTreeMap;

use carnelian_structs::hash::{FieldExpiry, Hash, HashLimits};
use carnelian_structs::list::List;
use carnelian_structs::quicklist::{End, ListLimits};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::access::SegmentSet;
use crate::segment::segment_of;
use crate::{
    AccessPolicy, Aftermath, Db, EvictionOrder, EvictionPolicy, Evictor, ExpireReport, Expiry,
};

const DATABASES: usize = 3;
const KEYS: u16 = 400;
/// The time of all commands; what is set to expire has done so.
const NOW_MS: u64 = 1_000_000;
const HASHES: HashLimits = HashLimits { entries: 4, value: 64 };

/// Logical database and key, and all else an entry is.
type State = BTreeMap<Key, String>;
type Key = (usize, Vec<u8>);

/// Lists and hashes of more than one element are shown in so many pieces.
const PIECES: u8 = 4;

#[derive(Default)]
struct Shown {
    entries: Mutex<Vec<(Key, String)>>,
    /// The long one that is being shown, and how many pieces are left.
    long: Mutex<Option<(Key, String, u8)>>,
}

impl Shown {
    fn add(&self, db: usize, entry: EntryRef<'_, Value>) {
        self.entries.lock().push(((db, entry.key().to_vec()), describe(entry)));
    }

    /// What was shown, if nothing was shown twice.
    fn state(&self) -> State {
        let shown = std::mem::take(&mut *self.entries.lock());
        let count = shown.len();
        let state: State = shown.into_iter().collect();
        assert_eq!(state.len(), count, "a key was shown twice");
        state
    }
}

impl Sink for Shown {
    fn entry(&self, db: usize, entry: EntryRef<'_, Value>) {
        self.add(db, entry);
    }

    fn is_long(&self, entry: EntryRef<'_, Value>) -> bool {
        entry.object().is_some_and(|value| match &*value {
            Value::List(list) => 1 < list.len(),
            Value::Hash(hash) => 1 < hash.len(),
            _ => false,
        })
    }

    fn piece(
        &self,
        db: usize,
        entry: EntryRef<'_, Value>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> bool {
        let mut place = self.long.lock();
        let now = ((db, entry.key().to_vec()), describe(entry));
        let (key, value, mut left) = place.take().unwrap_or((now.0.clone(), now.1.clone(), PIECES));
        assert_eq!((&key, &value), (&now.0, &now.1), "it does not change between its pieces");
        loop {
            left -= 1;
            if left == 0 {
                self.entries.lock().push((key, value));
                return true;
            }
            if !goes_on() {
                *place = Some((key, value, left));
                return false;
            }
        }
    }
}

fn describe(entry: EntryRef<'_, Value>) -> String {
    let content = match entry.text() {
        Some(text) => format!("{:?}", text.to_vec()),
        None => match &*entry.object().expect("no text") {
            Value::List(list) => {
                let mut elements = Vec::new();
                list.for_range(0, list.len(), |element| elements.push(element.to_vec()));
                format!("{elements:?}")
            }
            Value::Hash(hash) => {
                let fields: BTreeMap<_, _> = hash
                    .iter()
                    .map(|field| (field.name.to_vec(), (field.value.to_vec(), field.expiry)))
                    .collect();
                format!("{fields:?}")
            }
            _ => unreachable!("these tests make no others"),
        },
    };
    format!("{:?} {:?} {content}", entry.value_kind(), entry.expiry())
}

#[derive(Clone, Debug)]
enum Op {
    Walk { buckets: u8 },
    Set { db: usize, key: u16, value: u32, expiry: Option<bool> },
    Append { db: usize, key: u16 },
    Count { db: usize, key: u16 },
    Push { db: usize, key: u16 },
    HashSet { db: usize, key: u16, field: u8, is_due: bool },
    HashSweep { db: usize, key: u16 },
    Expire { db: usize, key: u16, is_due: bool },
    Look { db: usize, key: u16 },
    Delete { db: usize, key: u16 },
    Rename { db: usize, key: u16, to: u16 },
    Move { db: usize, key: u16, to: usize },
    Copy { db: usize, key: u16, to_db: usize, to: u16 },
    Sweep { segment: u8 },
    Evict,
    Flush { db: usize },
    Swap { a: usize, b: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let db = || 0..DATABASES;
    let key = || 0..KEYS;
    prop_oneof![
        40 => (1..6_u8).prop_map(|buckets| Op::Walk { buckets }),
        10 => (db(), key(), any::<u32>(), any::<Option<bool>>())
            .prop_map(|(db, key, value, expiry)| Op::Set { db, key, value, expiry }),
        5 => (db(), key()).prop_map(|(db, key)| Op::Append { db, key }),
        5 => (db(), key()).prop_map(|(db, key)| Op::Count { db, key }),
        8 => (db(), key()).prop_map(|(db, key)| Op::Push { db, key }),
        8 => (db(), key(), any::<u8>(), any::<bool>())
            .prop_map(|(db, key, field, is_due)| Op::HashSet { db, key, field, is_due }),
        4 => (db(), key()).prop_map(|(db, key)| Op::HashSweep { db, key }),
        5 => (db(), key(), any::<bool>())
            .prop_map(|(db, key, is_due)| Op::Expire { db, key, is_due }),
        5 => (db(), key()).prop_map(|(db, key)| Op::Look { db, key }),
        8 => (db(), key()).prop_map(|(db, key)| Op::Delete { db, key }),
        5 => (db(), key(), key()).prop_map(|(db, key, to)| Op::Rename { db, key, to }),
        5 => (db(), key(), db()).prop_map(|(db, key, to)| Op::Move { db, key, to }),
        5 => (db(), key(), db(), key())
            .prop_map(|(db, key, to_db, to)| Op::Copy { db, key, to_db, to }),
        3 => any::<u8>().prop_map(|segment| Op::Sweep { segment }),
        2 => Just(Op::Evict),
        1 => db().prop_map(|db| Op::Flush { db }),
        2 => (db(), db()).prop_map(|(a, b)| Op::Swap { a, b }),
    ]
}

struct Bench {
    keyspace: Keyspace,
    aftermath: Aftermath,
    evictor: Evictor,
    shown: Arc<Shown>,
    walk: Option<Walk>,
}

impl Bench {
    fn new() -> Self {
        Self {
            keyspace: Keyspace::new(DATABASES),
            aftermath: Aftermath::default(),
            evictor: Evictor::default(),
            shown: Arc::default(),
            walk: None,
        }
    }

    fn filled() -> Self {
        let mut bench = Self::new();
        for key in 0..KEYS / 2 {
            for db in 0..2 {
                if key % 15 == 2 {
                    bench.run(&Op::Push { db, key });
                }
                let op = match key % 5 {
                    0 => Op::Set { db, key, value: 7, expiry: None },
                    1 => Op::Set { db, key, value: 8, expiry: Some(key % 2 == 0) },
                    2 => Op::Push { db, key },
                    3 => Op::HashSet { db, key, field: 1, is_due: key % 2 == 0 },
                    _ => Op::Append { db, key },
                };
                bench.run(&op);
            }
        }
        bench
    }

    /// Everything there is, seen without walk and sink.
    fn state(&self) -> State {
        let mut access = self.keyspace.lock_all();
        let mut state = State::new();
        for segment in 0..SEGMENTS {
            let segment = access.segment_mut(segment);
            for db in 0..segment.databases() {
                for entry in segment.table(db).into_iter().flat_map(|table| table.iter()) {
                    state.insert((db, entry.key().to_vec()), describe(entry));
                }
            }
        }
        state
    }

    fn cut(&mut self) -> State {
        let state = self.state();
        let sink = Arc::clone(&self.shown);
        let walk = self.keyspace.cut(sink, || {}).expect("none is open");
        assert_eq!(walk.keys(), state.len() as u64);
        self.walk = Some(walk);
        state
    }

    fn step(&mut self, mut buckets: u8) {
        let Some(walk) = &mut self.walk else { return };
        let shown = &self.shown;
        let is_finished = walk.step(
            &self.keyspace,
            |db, entry| {
                assert!(shown.long.lock().is_none(), "nothing comes between two pieces");
                shown.add(db, entry);
            },
            || {
                buckets = buckets.saturating_sub(1);
                buckets != 0
            },
        );
        if is_finished {
            assert_eq!(walk.keys_done(), walk.keys());
            self.walk = None;
        }
    }

    fn finish(&mut self) -> State {
        while self.walk.is_some() {
            self.step(u8::MAX);
        }
        assert!(!self.keyspace.is_cut_open());
        self.shown.state()
    }

    fn with(&mut self, db: usize, act: impl FnOnce(&mut Db<'_>)) {
        let access = self.keyspace.lock_all();
        act(&mut Db::new(access, db, NOW_MS, AccessPolicy::Lru, &mut self.aftermath));
    }

    fn run(&mut self, op: &Op) {
        let when = |is_due| if is_due { NOW_MS - 5 } else { NOW_MS + 5 };
        match *op {
            Op::Walk { buckets } => self.step(buckets),
            Op::Set { db, key, value, expiry } => self.with(db, |db| {
                let expiry = expiry.map_or(Expiry::Keep, |is_due| Expiry::At(when(is_due)));
                if value % 2 == 0 {
                    db.set_string(&name(key), &value.to_le_bytes(), expiry);
                } else {
                    db.put_string(&name(key), vec![b'x'; value as usize % 20_000]);
                }
            }),
            Op::Append { db, key } => self.with(db, |db| match db.string_mut(&name(key)) {
                Ok(Some(mut text)) => {
                    let length = text.text().len();
                    text.resize(length + 1, |bytes| bytes[length] = b'+');
                }
                Ok(None) => db.set_string(&name(key), b"text", Expiry::Clear),
                Err(_) => {}
            }),
            Op::Count { db, key } => self.with(db, |db| {
                let _ = db.update_integer(&name(key), |_| Err(()), |old| Ok(old + 1));
            }),
            Op::Push { db, key } => self.with(db, |db| {
                if let Ok(mut list) = db.write_or_insert(&name(key), List::new) {
                    list.push(End::Back, &[b"element"], ListLimits::default());
                }
            }),
            Op::HashSet { db, key, field, is_due } => self.with(db, |db| {
                if let Ok(mut hash) = db.write_or_insert(&name(key), Hash::new) {
                    let expiry = FieldExpiry::At(when(is_due));
                    hash.set(&[b'f', field % 8], b"value", expiry, HASHES);
                }
            }),
            Op::HashSweep { db, key } => self.with(db, |db| db.expire_fields(&name(key))),
            Op::Expire { db, key, is_due } => self.with(db, |db| {
                db.set_expiry(&name(key), Some(when(is_due)));
            }),
            Op::Look { db, key } => self.with(db, |db| {
                db.get(&name(key));
            }),
            Op::Delete { db, key } => self.with(db, |db| {
                db.remove(&name(key));
            }),
            Op::Rename { db, key, to } => self.with(db, |db| {
                if let Some(owned) = db.take(&name(key)) {
                    db.insert(&name(to), owned);
                }
            }),
            Op::Move { db, key, to } => self.with(db, |db| {
                if let Some(owned) = db.take(&name(key)) {
                    db.select(to);
                    db.insert(&name(key), owned);
                }
            }),
            Op::Copy { db, key, to_db, to } => self.with(db, |db| {
                if let Some(owned) = db.duplicate(&name(key), &name(to)) {
                    db.select(to_db);
                    db.insert(&name(to), owned);
                }
            }),
            Op::Sweep { segment } => {
                let (mut cursors, mut report) = (Vec::new(), ExpireReport::default());
                let segment = segment.into();
                self.keyspace.expire_some(segment, &mut cursors, 9, 9, NOW_MS, &mut report, |_| {});
            }
            Op::Evict => {
                let policy = EvictionPolicy { volatile: false, order: EvictionOrder::Random };
                let Self { keyspace, aftermath, evictor, .. } = self;
                evictor.evict_one(keyspace, policy, 1, NOW_MS, aftermath, |_| {});
            }
            Op::Flush { db } => self.with(0, |it| {
                it.flush(db);
            }),
            Op::Swap { a, b } => self.with(0, |it| it.swap(a, b)),
        }
    }
}

fn name(key: u16) -> Vec<u8> {
    // A few long ones: their entries are laid out in another way.
    if key.is_multiple_of(50) {
        vec![key as u8; 300 + usize::from(key)]
    } else {
        key.to_string().into()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_snapshot_is_the_state_at_its_cut(
        before in prop::collection::vec(op(), 0..40),
        ops in prop::collection::vec(op(), 0..400),
    ) {
        let mut bench = Bench::filled();
        for op in &before {
            bench.run(op);
        }
        let state = bench.cut();
        for op in &ops {
            bench.run(op);
        }
        prop_assert_eq!(&bench.finish(), &state);
        // All entries have one version again, whatever became of them.
        let state = bench.cut();
        prop_assert_eq!(bench.finish(), state);
    }

    #[test]
    fn after_a_snapshot_that_was_given_up_the_next_is_whole(
        ops in prop::collection::vec(op(), 0..200),
        after in prop::collection::vec(op(), 0..200),
    ) {
        let mut bench = Bench::filled();
        bench.cut();
        for op in &ops {
            bench.run(op);
        }
        if let Some(mut walk) = bench.walk.take() {
            walk.abort();
            bench.shown.state();
            *bench.shown.long.lock() = None;
            for op in &after {
                bench.run(op);
                walk.step(&bench.keyspace, |_, _| panic!("it is silent"), || false);
            }
            walk.finish_silently(&bench.keyspace);
            prop_assert!(bench.shown.state().is_empty());
        }
        let state = bench.cut();
        for op in &after {
            bench.run(op);
        }
        prop_assert_eq!(bench.finish(), state);
    }
}

#[test]
fn there_is_one_snapshot_at_a_time() {
    let mut bench = Bench::filled();
    bench.cut();
    assert!(bench.keyspace.is_cut_open());
    let mut was_cut = false;
    let second = bench.keyspace.cut(Arc::default() as Arc<Shown>, || was_cut = true);
    assert!(matches!(second, Err(AlreadyOpen)) && !was_cut);
    bench.finish();
    bench.cut();
    bench.finish();
}

#[test]
fn five_snapshots_in_a_row_use_every_version_twice() {
    let mut bench = Bench::filled();
    for round in 0..5 {
        let state = bench.cut();
        for key in 0..KEYS {
            bench.run(&Op::Append { db: 0, key });
            bench.run(&Op::Set { db: 1, key, value: 2 * round, expiry: None });
            bench.step(1);
        }
        assert_eq!(bench.finish(), state);
    }
}

#[test]
fn what_was_flushed_is_shown_and_then_freed() {
    let mut bench = Bench::filled();
    let state = bench.cut();
    bench.step(1);
    bench.run(&Op::Flush { db: 0 });
    bench.run(&Op::Flush { db: 1 });
    assert!(bench.aftermath.dropped.len() < 10, "the walk has the tables");
    bench.run(&Op::Set { db: 0, key: 1, value: 2, expiry: None });
    bench.run(&Op::Flush { db: 0 });
    assert_eq!(bench.finish(), state);
    assert!(bench.state().is_empty());
    for segment in 0..SEGMENTS {
        assert!(bench.keyspace.segment(segment).lock().cut.is_none());
    }
}

#[test]
fn writers_and_the_walk_on_threads_of_their_own_agree() {
    const WRITERS: u64 = 3;

    let bench = Bench::filled();
    let shown = Arc::new(Shown::default());
    for round in 0..20 {
        let start = std::sync::Barrier::new(WRITERS as usize + 1);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (keyspace, start) = (&bench.keyspace, &start);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(round * WRITERS + writer);
                    let mut aftermath = Aftermath::default();
                    start.wait();
                    for _ in 0..300 {
                        let key = name(random.u16(0..KEYS));
                        let access = keyspace.lock_keys([key.as_slice()]);
                        let policy = AccessPolicy::Lru;
                        let db = random.usize(0..DATABASES);
                        let mut db = Db::new(access, db, NOW_MS, policy, &mut aftermath);
                        match random.u8(0..4) {
                            0 => drop(db.remove(&key)),
                            1 => {
                                if let Ok(mut list) = db.write_or_insert(&key, List::new) {
                                    list.push(End::Back, &[b"e"], ListLimits::default());
                                }
                            }
                            _ => db.set_string(&key, &[random.u8(..)], Expiry::Clear),
                        }
                    }
                });
            }
            start.wait();
            let mut hold = Hold::from(bench.keyspace.lock_all());
            let mut state = State::new();
            for segment in 0..SEGMENTS {
                let segment = hold.segment_mut(segment);
                for db in 0..segment.databases() {
                    for entry in segment.table(db).into_iter().flat_map(|table| table.iter()) {
                        state.insert((db, entry.key().to_vec()), describe(entry));
                    }
                }
            }
            let sink = Arc::clone(&shown);
            let mut walk = hold.cut(sink, || {}).expect("none is open");
            drop(hold);
            while !walk.step(&bench.keyspace, |db, entry| shown.add(db, entry), || false) {}
            assert_eq!(shown.state(), state);
        });
    }
}

#[test]
fn a_cut_waits_for_who_takes_locks_as_it_goes() {
    let keyspace = Keyspace::new(1);
    let mut aftermath = Aftermath::default();
    let was_cut = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let access = keyspace.lock_lazily();
        let mut db = Db::new(access, 0, NOW_MS, AccessPolicy::Lru, &mut aftermath);
        db.set_string(b"first", b"half", Expiry::Clear);
        scope.spawn(|| {
            let sink = Arc::<Shown>::default();
            let mut walk = keyspace.cut(sink, || was_cut.store(true, Ordering::SeqCst)).unwrap();
            walk.finish_silently(&keyspace);
        });
        for key in 0..2000_u32 {
            db.set_string(&key.to_le_bytes(), b"other half", Expiry::Clear);
        }
        assert!(!was_cut.load(Ordering::SeqCst));
        drop(db);
    });
    assert!(was_cut.load(Ordering::SeqCst));
}

#[test]
fn who_wants_a_lock_is_let_in_before_the_next_bucket() {
    let keyspace = Keyspace::new(1);
    let all = keyspace.lock(SegmentSet::all());
    let mut aftermath = Aftermath::default();
    let mut db = Db::new(all, 0, NOW_MS, AccessPolicy::Lru, &mut aftermath);
    (0..20_000_u32).for_each(|key| db.set_string(&key.to_le_bytes(), b"v", Expiry::Clear));
    drop(db);
    let mut walk = keyspace.cut(Arc::<Shown>::default(), || {}).unwrap();
    let is_walking = AtomicBool::new(false);
    let mut shown = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_walking.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            // Gets it although the walk would go on to the end of the segment.
            let mut wanted = SegmentSet::default();
            wanted.insert(0);
            drop(keyspace.lock(wanted));
        });
        let show = |_, _: EntryRef<'_, Value>| {
            shown += 1;
            is_walking.store(true, Ordering::SeqCst);
            while shown == 1 && !keyspace.is_asked() {
                std::thread::yield_now();
            }
        };
        assert!(!walk.step(&keyspace, show, || true));
    });
    let first = (0..20_000_u32).filter(|key| segment_of(keyspace.hash(&key.to_le_bytes())) == 0);
    assert!(shown < first.count());
    walk.finish_silently(&keyspace);
    assert!(!keyspace.is_asked());
}

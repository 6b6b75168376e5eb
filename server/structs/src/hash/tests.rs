//! The hash against a plain map, and the borders between its forms.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::value::Thin;

/// Small enough for every form to be met.
const LIMITS: HashLimits = HashLimits { entries: 12, value: 8 };
const NOW: u64 = 1000;

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

fn name(number: u8) -> Vec<u8> {
    // Some fields are numbers, which a listpack stores as such.
    if number.is_multiple_of(2) { number.to_string().into_bytes() } else { vec![b'f', number] }
}

fn bytes(element: Element<'_>) -> Vec<u8> {
    element.to_vec()
}

fn contents(hash: &Hash) -> Model {
    let fields: Vec<_> = hash.iter().map(|f| (bytes(f.name), (bytes(f.value), f.expiry))).collect();
    assert_eq!(fields.len(), hash.len(), "no field comes twice");
    fields.into_iter().collect()
}

/// A generator that needs no seed from outside.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 88_172_645_463_325_252_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn scanned(hash: &Hash, count: usize, now_ms: u64) -> BTreeSet<Vec<u8>> {
    let mut seen = BTreeSet::new();
    let mut cursor = 0;
    loop {
        let stop = hash.scan_stop(cursor, count);
        hash.scan(cursor, stop, now_ms, |field| {
            seen.insert(bytes(field.name));
        });
        cursor = stop;
        if cursor == 0 {
            return seen;
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Set(u8, Vec<u8>, FieldExpiry),
    SetExpiry(u8, Option<u64>),
    Remove(u8),
    Expire(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = 1_u64..2 * NOW;
    let expiry = prop_oneof![
        4 => Just(FieldExpiry::Clear),
        2 => Just(FieldExpiry::Keep),
        1 => at.clone().prop_map(FieldExpiry::At),
    ];
    let value = prop_oneof![
        Just(b"12".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..8),
        proptest::collection::vec(any::<u8>(), 0..11),
    ];
    prop_oneof![
        6 => (0_u8..30, value, expiry).prop_map(|(f, v, e)| Op::Set(f, v, e)),
        2 => (0_u8..30, proptest::option::of(at.clone())).prop_map(|(f, e)| Op::SetExpiry(f, e)),
        2 => (0_u8..30).prop_map(Op::Remove),
        1 => at.prop_map(Op::Expire),
    ]
}

proptest! {
    #![proptest_config(crate::test_config())]

    #[test]
    fn a_hash_agrees_with_a_map(ops in proptest::collection::vec(op(), 0..120)) {
        let mut hash = Hash::new();
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::Set(field, value, expiry) => {
                    let field = name(field);
                    let new = hash.set(&field, &value, expiry, LIMITS);
                    let old = model.get(&field).map(|(_, old)| *old);
                    prop_assert_eq!(new, old.is_none());
                    let expiry = match expiry {
                        FieldExpiry::Clear => None,
                        FieldExpiry::Keep => old.flatten(),
                        FieldExpiry::At(at) => Some(at),
                    };
                    model.insert(field, (value, expiry));
                }
                Op::SetExpiry(field, expiry) => {
                    let field = name(field);
                    let there = hash.set_expiry(&field, expiry);
                    prop_assert_eq!(there, model.contains_key(&field));
                    if let Some(entry) = model.get_mut(&field) {
                        entry.1 = expiry;
                    }
                }
                Op::Remove(field) => {
                    let field = name(field);
                    prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                }
                Op::Expire(now) => {
                    let gone: BTreeSet<_> = hash.expire(now).into_iter().collect();
                    let due = |entry: &(Vec<u8>, Option<u64>)| entry.1.is_some_and(|at| at <= now);
                    let expected: BTreeSet<_> =
                        model.iter().filter(|(_, e)| due(e)).map(|(f, _)| f.clone()).collect();
                    prop_assert_eq!(&gone, &expected);
                    model.retain(|_, entry| !due(entry));
                }
            }
            prop_assert_eq!(hash.next_expiry(), model.values().filter_map(|e| e.1).min());
        }
        prop_assert_eq!(hash.is_empty(), model.is_empty());
        prop_assert_eq!(&contents(&hash), &model);
        prop_assert_eq!(&contents(&hash.duplicate()), &model);
        for field in (0..30).map(name) {
            let live = model.get(&field).filter(|(_, e)| e.is_none_or(|at| NOW < at));
            prop_assert_eq!(hash.get(&field, NOW).map(bytes), live.map(|(v, _)| v.clone()));
            prop_assert_eq!(hash.expiry(&field, NOW), live.map(|(_, e)| *e));
        }
        let live: BTreeSet<_> = model
            .iter()
            .filter(|(_, (_, e))| e.is_none_or(|at| NOW < at))
            .map(|(f, _)| f.clone())
            .collect();
        prop_assert_eq!(hash.live_len(NOW), live.len());
        prop_assert_eq!(&scanned(&hash, 3, NOW), &live);
        // A stored small hash is taken as it is, unless the limits have shrunk.
        let checked = match &hash {
            Hash::Listpack(pairs) => Hash::from_pairs(pairs.clone(), LIMITS),
            Hash::ListpackEx(triplets) => Hash::from_triplets(triplets.clone(), LIMITS),
            Hash::Table(_) => return Ok(()),
        };
        let checked = checked.expect("what was made here is well-formed");
        prop_assert_eq!(checked.encoding(), hash.encoding());
        prop_assert_eq!(contents(&checked), model);
    }

    #[test]
    fn any_cursor_is_safe(cursor: u64, count in 0_usize..100) {
        let mut hash = Hash::new();
        for number in 0..100_u32 {
            hash.set(&number.to_le_bytes(), b"v", FieldExpiry::Clear, LIMITS);
        }
        for hash in [hash, Hash::new()] {
            let stop = hash.scan_stop(cursor, count);
            hash.scan(cursor, stop, NOW, |_| {});
            // Not what it is meant for, but it must end.
            hash.scan(cursor, cursor, NOW, |_| {});
        }
    }
}

fn of_size(fields: usize, limits: HashLimits) -> Hash {
    let mut hash = Hash::new();
    for number in 0..fields {
        hash.set(format!("{number}").as_bytes(), b"value", FieldExpiry::Clear, limits);
    }
    hash
}

#[test]
fn the_form_follows_the_limits() {
    assert_eq!(of_size(12, LIMITS).encoding(), "listpack");
    assert_eq!(of_size(13, LIMITS).encoding(), "hashtable");
    let mut hash = of_size(2, LIMITS);
    hash.set(b"0", b"12345678", FieldExpiry::Clear, LIMITS);
    assert_eq!(hash.encoding(), "listpack");
    hash.set_expiry(b"0", Some(5));
    assert_eq!(hash.encoding(), "listpackex");
    hash.set_expiry(b"0", None);
    assert_eq!(hash.encoding(), "listpackex");
    hash.set(b"0", b"123456789", FieldExpiry::Clear, LIMITS);
    assert_eq!(hash.encoding(), "hashtable");
    let mut hash = of_size(2, LIMITS);
    hash.set(b"a long field", b"", FieldExpiry::Clear, LIMITS);
    assert_eq!(hash.encoding(), "hashtable");
}

#[test]
fn stored_listpacks_are_checked() {
    let refused = |elements: &[&[u8]], triplets: bool| {
        let packed = Listpack::from_elements(elements.iter().copied());
        let taken = if triplets {
            Hash::from_triplets(packed, LIMITS)
        } else {
            Hash::from_pairs(packed, LIMITS)
        };
        taken.is_err()
    };
    assert!(!refused(&[b"a", b"1", b"b", b"2"], false));
    assert!(refused(&[b"a", b"1", b"b"], false), "a value is missing");
    assert!(refused(&[b"a", b"1", b"a", b"2"], false), "a field is there twice");
    assert!(!refused(&[b"a", b"1", b"5", b"b", b"2", b"6", b"c", b"3", b"0"], true));
    assert!(refused(&[b"a", b"1", b"6", b"b", b"2", b"5"], true), "the later one first");
    assert!(refused(&[b"a", b"1", b"0", b"b", b"2", b"5"], true), "one that lasts first");
    assert!(refused(&[b"a", b"1", b"x"], true), "no time");
    assert!(refused(&[b"a", b"1", b"-1"], true), "no time");
    assert!(refused(&[b"a", b"1"], true), "no expiry");
}

#[test]
fn long_values_leave_and_enter_their_entry() {
    let mut hash = Hash::new();
    for length in [10, 65_535, 65_536, 1_000_000, 3, 70_000] {
        let value = vec![b'v'; length];
        hash.set(b"f", &value, FieldExpiry::Clear, LIMITS);
        assert_eq!(hash.get(b"f", NOW).expect("it was set").to_vec(), value);
        let copy = hash.duplicate();
        assert_eq!(copy.get(b"f", NOW).expect("it was copied").to_vec(), value);
    }
    assert!(70_000 < Thin::heap_bytes(&hash));
    hash.remove(b"f");
    assert!(Thin::heap_bytes(&hash) < 1000);
}

#[test]
fn a_large_hash_expires_a_part_at_a_time() {
    let mut hash = of_size(5000, LIMITS);
    for number in 0..4000 {
        hash.set_expiry(format!("{number}").as_bytes(), Some(1 + number % 500));
    }
    let mut gone = 0;
    while hash.is_due(NOW) {
        let now = hash.expire(NOW).len();
        assert!(0 < now && now < 2000);
        gone += now;
    }
    assert_eq!((gone, hash.len(), hash.next_expiry()), (4000, 1000, None));
}

#[test]
fn random_picks_are_fair() {
    // As a listpack, with expiries, and as a table.
    for (fields, timed) in [(10, false), (10, true), (40, false)] {
        let mut hash = of_size(fields, LIMITS);
        if timed {
            hash.make_expirable();
        }
        let mut numbers = numbers();
        let mut counts: HashMap<&str, HashMap<Vec<u8>, usize>> = HashMap::new();
        let mut count = |how, field: Field<'_>| {
            *counts.entry(how).or_default().entry(bytes(field.name)).or_default() += 1;
        };
        for _ in 0..1000 * fields {
            count("one", hash.random(&mut numbers).expect("there are fields"));
        }
        hash.sample(1000 * fields, &mut numbers, |field| {
            count("many", field);
            true
        });
        for _ in 0..1000 {
            let mut seen = BTreeSet::new();
            hash.distinct(fields / 2, &mut numbers, |field| {
                count("half", field);
                assert!(seen.insert(bytes(field.name)), "different ones");
            });
            assert_eq!(seen.len(), fields / 2);
            hash.distinct(fields / 8, &mut numbers, |field| count("few", field));
        }
        for (how, each, expected) in [
            ("one", fields, 1000),
            ("many", fields, 1000),
            ("half", fields, 500),
            ("few", fields, 1000 * (fields / 8) / fields),
        ] {
            let counts = &counts[how];
            assert_eq!(counts.len(), each, "{how} of {fields}");
            // Six standard deviations of the rarest, since a table's hash is seeded anew each time.
            let fair = expected / 2..expected * 3 / 2 + 20;
            assert!(counts.values().all(|n| fair.contains(n)), "{how} of {fields}: {counts:?}");
        }
        let mut all = 0;
        hash.distinct(usize::MAX, &mut numbers, |_| all += 1);
        assert_eq!(all, fields);
    }
    let empty = Hash::new();
    assert!(empty.random(|| 1).is_none());
    empty.sample(10, || 1, |_| panic!("there is nothing"));
    empty.distinct(10, || 1, |_| panic!("there is nothing"));
}

#[test]
fn a_field_of_12_and_32_bytes_takes_at_most_71_bytes() {
    let mut hash = Hash::new();
    let mut worst = 0.0_f64;
    for number in 0..50_000 {
        let field = format!("field:{number:06}");
        hash.set(field.as_bytes(), &[b'v'; 32], FieldExpiry::Clear, LIMITS);
        if 10_000 < number {
            worst = worst.max(Thin::heap_bytes(&hash) as f64 / hash.len() as f64);
        }
    }
    println!("{} bytes a field, {worst} at worst", Thin::heap_bytes(&hash) / hash.len());
    assert!(worst < 71.0, "{worst}");
}

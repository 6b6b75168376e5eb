//! Sorted sets against a model, in both encodings and across the border between them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::value::OwnBytes;

const SMALL: SortedSetLimits = SortedSetLimits { listpack_entries: 6, listpack_value: 8 };
const NEVER_PACKED: SortedSetLimits = SortedSetLimits { listpack_entries: 0, listpack_value: 0 };
const ALWAYS_PACKED: SortedSetLimits =
    SortedSetLimits { listpack_entries: 1000, listpack_value: 64 };

type Model = BTreeMap<Vec<u8>, f64>;

fn ascending(model: &Model) -> Vec<(Vec<u8>, f64)> {
    let mut all: Vec<_> = model.iter().map(|(member, &score)| (member.clone(), score)).collect();
    all.sort_by(|(a, left), (b, right)| {
        left.partial_cmp(right).expect("no score is NaN").then_with(|| a.cmp(b))
    });
    all
}

fn members(walk: Members<'_>) -> Vec<(Vec<u8>, f64)> {
    walk.map(|(member, score)| (member.to_vec(), score)).collect()
}

fn set_of(pairs: &[(&str, f64)], limits: SortedSetLimits) -> SortedSet {
    let mut set = SortedSet::for_members(pairs.len(), 1, limits);
    for (member, score) in pairs {
        assert_eq!(set.insert(member.as_bytes(), *score, limits), Change::Added);
    }
    set
}

fn check(set: &SortedSet, model: &Model) {
    if let SortedSet::Skiplist(ordered) = set {
        ordered.check();
    }
    let all = ascending(model);
    assert_eq!(set.len(), all.len());
    assert_eq!(set.is_empty(), all.is_empty());
    assert_eq!(members(set.iter()), all);
    for (rank, (member, score)) in all.iter().enumerate() {
        assert_eq!(set.rank(member), Some((rank, *score)));
        assert_eq!(set.score(member), Some(*score));
        let nth = set.nth(rank).map(|(member, score)| (member.to_vec(), score));
        assert_eq!(nth, Some((member.clone(), *score)));
    }
    assert_eq!(set.nth(all.len()), None);
    assert_eq!(set.rank(b"absent"), None);
}

#[test]
fn the_encoding_follows_the_members() {
    let mut set = set_of(&[("a", 1.0), ("b", 2.0)], SMALL);
    assert_eq!(set.encoding(), "listpack");
    set.insert(b"too long to pack", 1.5, SMALL);
    assert_eq!(set.encoding(), "skiplist");
    assert_eq!(set.rank(b"too long to pack"), Some((1, 1.5)));

    let mut set = set_of(&[("a", 1.0); 0], SMALL);
    for number in 0..6_u8 {
        set.insert(&[number], f64::from(number), SMALL);
    }
    assert_eq!(set.encoding(), "listpack");
    set.expect_members(6, SMALL);
    assert_eq!(set.encoding(), "listpack");
    set.insert(b"x", 1.0, SMALL);
    assert_eq!(set.encoding(), "skiplist");

    let mut set = set_of(&[("a", 1.0)], SMALL);
    set.expect_members(7, SMALL);
    assert_eq!(set.encoding(), "skiplist");
    assert_eq!(SortedSet::for_members(7, 1, SMALL).encoding(), "skiplist");
    assert_eq!(SortedSet::for_members(6, 9, SMALL).encoding(), "skiplist");
}

#[test]
fn a_listpack_holds_scores_as_redis_writes_them() {
    let pairs = [
        ("a", f64::NEG_INFINITY),
        ("b", -0.0),
        ("c", 0.1),
        ("d", 3.0),
        ("e", 4.611_686_018_427_388e18),
        ("f", 1e20),
        ("g", f64::INFINITY),
    ];
    let SortedSet::Listpack(listpack) = set_of(&pairs, ALWAYS_PACKED) else {
        panic!("it is small")
    };
    let scores: Vec<_> = listpack.iter().skip(1).step_by(2).map(|e| e.to_vec()).collect();
    let expected = ["-inf", "0", "0.1", "3", "4611686018427387904", "1e+20", "inf"];
    assert_eq!(scores, expected.map(|text| text.as_bytes().to_vec()));
    assert!(matches!(listpack.iter().nth(3), Some(Element::Integer(0))));
}

#[test]
fn bounds_are_open_or_closed() {
    let pairs = [("a", 1.0), ("b", 2.0), ("c", 2.0), ("d", 3.0)];
    for limits in [NEVER_PACKED, ALWAYS_PACKED] {
        let set = set_of(&pairs, limits);
        let ranks = |min, min_exclusive, max, max_exclusive| {
            set.ranks_by_score(&ScoreRange {
                min: ScoreBound { score: min, exclusive: min_exclusive },
                max: ScoreBound { score: max, exclusive: max_exclusive },
            })
        };
        assert_eq!(ranks(2.0, false, 2.0, false), 1..3);
        assert_eq!(ranks(1.0, true, 3.0, true), 1..3);
        assert_eq!(ranks(f64::NEG_INFINITY, false, f64::INFINITY, false), 0..4);
        assert!(ranks(2.0, true, 2.0, false).is_empty());
        assert!(ranks(3.0, false, 1.0, false).is_empty());
        assert!(ranks(9.0, false, 10.0, false).is_empty());
    }
}

#[test]
fn members_bound_ranges_of_one_score() {
    let pairs = [("10", 0.0), ("a", 0.0), ("b", 0.0), ("bb", 0.0)];
    for limits in [NEVER_PACKED, ALWAYS_PACKED] {
        let set = set_of(&pairs, limits);
        let ranks = |min, max| set.ranks_by_lex(&LexRange { min, max });
        assert_eq!(ranks(LexBound::Lowest, LexBound::Highest), 0..4);
        assert_eq!(ranks(LexBound::Inclusive(b"a"), LexBound::Exclusive(b"bb")), 1..3);
        assert_eq!(ranks(LexBound::Exclusive(b"a"), LexBound::Inclusive(b"bb")), 2..4);
        assert_eq!(ranks(LexBound::Inclusive(b"1"), LexBound::Inclusive(b"2")), 0..1);
        assert!(ranks(LexBound::Highest, LexBound::Lowest).is_empty());
        assert!(ranks(LexBound::Inclusive(b"b"), LexBound::Inclusive(b"a")).is_empty());
        assert!(ranks(LexBound::Lowest, LexBound::Lowest).is_empty());
        assert!(ranks(LexBound::Highest, LexBound::Highest).is_empty());
    }
}

#[test]
fn a_scan_sees_every_member_once_with_its_score() {
    let mut set = SortedSet::for_members(1000, 1, SMALL);
    for number in 0..1000_u32 {
        set.insert(format!("m{number}").as_bytes(), f64::from(number), SMALL);
    }
    let (mut seen, mut cursor) = (Model::new(), 0);
    loop {
        cursor = set.scan(cursor, 10, |member, score| {
            seen.insert(member.to_vec(), score);
        });
        if cursor == 0 {
            break;
        }
    }
    check(&set, &seen);
}

#[test]
fn a_large_set_takes_at_most_66_bytes_a_member() {
    let mut random = 1_u64;
    let mut set = Ordered::default();
    for number in 0..100_000_u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let score = (random >> 40) as f64;
        set.change(format!("member:{number:05}").as_bytes(), |_| Some(score));
    }
    let bytes = set.own_bytes() as f64 / 100_000.0;
    println!("{bytes} bytes a member");
    assert!(bytes <= 66.0, "{bytes}");
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, i8),
    InsertHalf(u8, i8),
    InsertMany(u8, i8),
    InsertIfPresent(u8, i8),
    Remove(u8),
    RemoveRanks(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<u8>(), any::<i8>()).prop_map(|(member, score)| Op::Insert(member, score)),
        3 => (any::<u8>(), any::<i8>()).prop_map(|(member, score)| Op::InsertHalf(member, score)),
        1 => (any::<u8>(), any::<i8>()).prop_map(|(member, score)| Op::InsertMany(member, score)),
        1 => (any::<u8>(), any::<i8>()).prop_map(|(member, s)| Op::InsertIfPresent(member, s)),
        3 => any::<u8>().prop_map(Op::Remove),
        1 => (0_usize..300, 0_usize..60).prop_map(|(from, len)| Op::RemoveRanks(from, len)),
    ]
}

/// Some members are numbers, some words, a few long.
fn name(member: u8) -> Vec<u8> {
    match member {
        0..=127 => member.to_string(),
        128..=250 => format!("w{member}"),
        _ => format!("{member:0>20}"),
    }
    .into_bytes()
}

fn insert(
    set: &mut SortedSet,
    model: &mut Model,
    name: Vec<u8>,
    score: f64,
    limits: SortedSetLimits,
) {
    let expected = match model.get(&name) {
        None => Change::Added,
        Some(old) if *old == score => Change::Unchanged,
        Some(_) => Change::Updated,
    };
    assert_eq!(set.insert(&name, score, limits), expected);
    model.insert(name, score);
}

fn run(ops: Vec<Op>, limits: SortedSetLimits) {
    let mut set = SortedSet::for_members(1, 1, limits);
    let mut model = Model::new();
    for op in ops {
        match op {
            Op::Insert(member, score) => {
                insert(&mut set, &mut model, name(member), score.into(), limits);
            }
            Op::InsertHalf(member, score) => {
                insert(&mut set, &mut model, name(member), f64::from(score) / 8.0, limits);
            }
            Op::InsertMany(member, score) => {
                for next in 0..40_u8 {
                    let name = name(member.wrapping_add(next));
                    insert(&mut set, &mut model, name, f64::from(score) / 4.0, limits);
                }
            }
            Op::InsertIfPresent(member, score) => {
                let name = name(member);
                let score = f64::from(score);
                set.change(&name, limits, |old| old.map(|_| score));
                if let Some(old) = model.get_mut(&name) {
                    *old = score;
                }
            }
            Op::Remove(member) => {
                let name = name(member);
                assert_eq!(set.remove(&name), model.remove(&name).is_some());
            }
            Op::RemoveRanks(from, len) => {
                let all = ascending(&model);
                let (from, to) = (from.min(all.len()), (from + len).min(all.len()));
                for (member, _) in &all[from..to] {
                    model.remove(member);
                }
                assert_eq!(set.remove_ranks(from..to + usize::from(to == all.len())), to - from);
            }
        }
    }
    check(&set, &model);
    check(&set.duplicate(), &model);

    let all = ascending(&model);
    for (from, to) in [(0, 3), (2, 9), (5, 4), (1, usize::MAX)] {
        let end = to.min(all.len());
        let expected: Vec<_> = all.get(from..end).unwrap_or_default().to_vec();
        assert_eq!(members(set.range(from..to, Direction::Forward)), expected);
        let names: Vec<_> =
            set.range(from..to, Direction::Forward).names().map(|e| e.to_vec()).collect();
        assert!(names.iter().eq(expected.iter().map(|(name, _)| name)));
        let backward: Vec<_> = expected.into_iter().rev().collect();
        assert_eq!(members(set.range(from..to, Direction::Backward)), backward);
    }
    for score in [-20.0, -1.0, 0.0, 0.25, 3.0] {
        let closed = ScoreBound { score, exclusive: false };
        let open = ScoreBound { score: score + 10.0, exclusive: true };
        let ranks = set.ranks_by_score(&ScoreRange { min: closed, max: open });
        let count = all.iter().filter(|(_, s)| score <= *s && *s < score + 10.0).count();
        assert_eq!(ranks.len(), count);
    }

    let mut builder = Builder::default();
    for (member, score) in all.iter().rev() {
        builder.update(member, |_| score + 1.0);
        builder.update(member, |old| old.expect("it was just added") - 1.0);
        builder.update(b"removed", |_| 1.0);
    }
    builder.remove(b"removed");
    assert_eq!(builder.len(), all.len());
    let built = builder.finish(limits);
    check(&built, &model);
    let mut fresh = SortedSet::for_members(0, 0, limits);
    all.iter().for_each(|(member, score)| {
        assert_eq!(fresh.insert(member, *score, limits), Change::Added)
    });
    assert_eq!(fresh.encoding(), built.encoding());
}

proptest! {
    #![proptest_config(crate::test_config())]

    #[test]
    fn a_growing_set_agrees_with_a_model(ops in prop::collection::vec(op(), 0..60)) {
        run(ops, SMALL);
    }

    #[test]
    fn a_large_set_agrees_with_a_model(ops in prop::collection::vec(op(), 0..200)) {
        run(ops, NEVER_PACKED);
    }

    #[test]
    fn a_listpack_agrees_with_a_model(ops in prop::collection::vec(op(), 0..100)) {
        run(ops, ALWAYS_PACKED);
    }
}

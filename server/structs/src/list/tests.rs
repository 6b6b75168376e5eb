//! The list against a vector, and the changes of its form.

use proptest::prelude::*;

use super::*;
use crate::listpack::from_either_end;

fn texts(list: &List) -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    list.for_range(0, usize::MAX, |element| texts.push(element.to_vec()));
    texts
}

fn of(count: usize, limits: ListLimits) -> List {
    let mut list = List::new();
    for i in 0..count {
        list.push(End::Back, &[format!("{i}").as_bytes()], limits);
    }
    list
}

fn limits(fill: i32) -> ListLimits {
    ListLimits { fill, ..ListLimits::default() }
}

#[test]
fn grows_into_a_quicklist_and_shrinks_back_at_half() {
    let limits = limits(10);
    let mut list = of(10, limits);
    assert_eq!(list.encoding(), "listpack");
    list.push(End::Back, &[b"x"], limits);
    assert_eq!(list.encoding(), "quicklist");
    for _ in 0..5 {
        list.pop(End::Back, limits, |_| ());
        assert_eq!(list.encoding(), "quicklist");
    }
    list.pop(End::Back, limits, |_| ());
    assert_eq!((list.len(), list.encoding()), (5, "listpack"));
}

#[test]
fn what_is_added_is_judged_as_a_whole() {
    let mut list = List::new();
    list.push(End::Front, &[&b"a"[..]; 11], limits(10));
    assert_eq!(list.encoding(), "quicklist");
    let mut list = List::new();
    list.push(End::Back, &[&[b'a'; 8186]], limits(-2));
    assert_eq!(list.encoding(), "quicklist");
    let mut list = List::new();
    list.push(End::Back, &[&[b'a'; 8185]], limits(-2));
    assert_eq!(list.encoding(), "listpack");
}

#[test]
fn a_smaller_limit_takes_effect_when_the_list_grows() {
    let mut list = of(8, limits(10));
    list.pop(End::Back, limits(3), |_| ());
    assert_eq!(list.encoding(), "listpack");
    // As in Redis even if the pivot is not there.
    assert!(!list.insert_beside(b"absent", Side::After, b"x", limits(3)));
    assert_eq!(list.encoding(), "quicklist");
}

#[test]
fn stored_forms_are_brought_to_the_limits() {
    let listpack = Listpack::from_elements((0..20).map(i64::from));
    let list = List::from_listpack(listpack.clone(), limits(10));
    assert_eq!(list.encoding(), "quicklist");
    let quicklist = Quicklist::from_listpack(listpack, limits(20));
    assert_eq!(List::from_quicklist(quicklist, limits(20)).encoding(), "listpack");
}

#[derive(Clone, Debug)]
enum Op {
    Push(End, Vec<Vec<u8>>),
    Pop(End),
    Set(i64, Vec<u8>),
    InsertBeside(Vec<u8>, Side, Vec<u8>),
    RemoveValue(Vec<u8>, i64),
    RemoveRange(usize, usize),
    Trim(usize, usize),
    Rotate(End),
    Positions(Vec<u8>, Positions),
}

fn op() -> impl Strategy<Value = Op> {
    let element = || "[0-9]{1,2}|[ab]{0,6}".prop_map(String::into_bytes);
    let end = || prop::sample::select(vec![End::Front, End::Back]);
    let side = prop::sample::select(vec![Side::Before, Side::After]);
    let ask = (prop::sample::select(vec![-2_i64, -1, 1, 2]), 0_usize..3, 0_usize..9)
        .prop_map(|(rank, count, look_at_max)| Positions { rank, count, look_at_max });
    prop_oneof![
        6 => (end(), prop::collection::vec(element(), 1..4)).prop_map(|(end, e)| Op::Push(end, e)),
        4 => end().prop_map(Op::Pop),
        2 => (-20_i64..20, element()).prop_map(|(i, e)| Op::Set(i, e)),
        3 => (element(), side, element()).prop_map(|(p, side, e)| Op::InsertBeside(p, side, e)),
        1 => (element(), -2_i64..3).prop_map(|(e, n)| Op::RemoveValue(e, n)),
        1 => (0_usize..20, 0_usize..5).prop_map(|(i, n)| Op::RemoveRange(i, n)),
        1 => (0_usize..4, 5_usize..30).prop_map(|(i, n)| Op::Trim(i, n)),
        1 => end().prop_map(Op::Rotate),
        1 => (element(), ask).prop_map(|(e, ask)| Op::Positions(e, ask)),
    ]
}

fn apply(op: Op, list: &mut List, model: &mut Vec<Vec<u8>>, limits: ListLimits) {
    match op {
        Op::Push(end, elements) => {
            let borrowed: Vec<_> = elements.iter().map(Vec::as_slice).collect();
            list.push(end, &borrowed, limits);
            for e in elements {
                model.insert(if end == End::Front { 0 } else { model.len() }, e);
            }
        }
        Op::Pop(end) => {
            let peeked = list.peek(end).map(|element| element.to_vec());
            let popped = list.pop(end, limits, |element| element.to_vec());
            let expected = match end {
                End::Front => (!model.is_empty()).then(|| model.remove(0)),
                End::Back => model.pop(),
            };
            assert_eq!((popped, peeked), (expected.clone(), expected));
        }
        Op::Set(i, e) => {
            let index = from_either_end(i, model.len());
            assert_eq!(list.set(i, &e, limits), index.is_some());
            if let Some(index) = index {
                model[index] = e;
            }
        }
        Op::InsertBeside(pivot, side, e) => {
            let index = model.iter().position(|element| *element == pivot);
            assert_eq!(list.insert_beside(&pivot, side, &e, limits), index.is_some());
            if let Some(index) = index {
                model.insert(index + usize::from(side == Side::After), e);
            }
        }
        Op::RemoveValue(e, n) => {
            let mut found: Vec<_> = (0..model.len()).filter(|&i| model[i] == e).collect();
            if n < 0 {
                found.reverse();
            }
            if n != 0 {
                found.truncate(n.unsigned_abs() as usize);
            }
            assert_eq!(list.remove_value(&e, n, limits), found.len());
            found.sort_unstable();
            found.into_iter().rev().for_each(|i| drop(model.remove(i)));
        }
        Op::RemoveRange(i, n) => {
            let range = i.min(model.len())..(i + n).min(model.len());
            assert_eq!(list.remove_range(i, n, limits), range.len());
            model.drain(range);
        }
        Op::Trim(start, count) => {
            let before = model.len();
            *model = model.iter().skip(start).take(count).cloned().collect();
            assert_eq!(list.trim(start, count, limits), before - model.len());
        }
        Op::Rotate(from) => {
            list.rotate(from, limits);
            if !model.is_empty() {
                match from {
                    End::Front => model.rotate_left(1),
                    End::Back => model.rotate_right(1),
                }
            }
        }
        Op::Positions(e, ask) => {
            let mut seen = Vec::new();
            list.positions(&e, ask, |index| seen.push(index));
            assert_eq!(seen, crate::quicklist::tests::expected_positions(model, &e, ask));
        }
    }
}

proptest! {
    #![proptest_config(crate::test_config())]

    #[test]
    fn agrees_with_a_vec(
        fill in prop::sample::select(vec![4, 12, -1]),
        compress in 0_u16..2,
        ops in prop::collection::vec(op(), 0..60),
    ) {
        let limits = ListLimits { fill, compress, packed_threshold: 0 };
        let (mut list, mut model) = (List::new(), Vec::new());
        for op in ops {
            apply(op, &mut list, &mut model, limits);
            prop_assert_eq!(texts(&list), model.clone());
            prop_assert_eq!(list.len(), model.len());
            prop_assert_eq!(list.is_empty(), model.is_empty());
            for index in 0..model.len() {
                let from_back = index as i64 - model.len() as i64;
                for asked in [index as i64, from_back] {
                    prop_assert!(list.get(asked, |e| e.eq_bytes(&model[index])).expect("in range"));
                }
            }
            let mut backward = list.iter_from(model.len().saturating_sub(1), Direction::Backward);
            for expected in model.iter().rev() {
                prop_assert!(backward.next().is_some_and(|element| element.eq_bytes(expected)));
            }
        }
    }
}

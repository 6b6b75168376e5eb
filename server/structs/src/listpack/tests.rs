//! The listpack against a vector, against bytes of Redis, and against bytes of nobody.

use proptest::prelude::*;

use super::*;
use crate::size::size_class;

fn texts(listpack: &Listpack) -> Vec<Vec<u8>> {
    listpack.iter().map(|element| element.to_vec()).collect()
}

/// What must hold after every change.
fn check(listpack: &Listpack, model: &[Vec<u8>]) {
    assert_eq!(texts(listpack), model);
    assert_eq!(listpack.len(), model.len());
    assert_eq!(listpack.is_empty(), model.is_empty());
    assert_eq!(listpack.heap_bytes(), size_class(listpack.total_bytes()));
    let mut backward: Vec<_> = listpack.iter().rev().map(|element| element.to_vec()).collect();
    backward.reverse();
    assert_eq!(backward, model);
    let again = Listpack::from_bytes(listpack.as_bytes()).expect("our own bytes are valid");
    assert_eq!(again.as_bytes(), listpack.as_bytes());
}

#[test]
fn one_word() {
    assert_eq!(size_of::<Listpack>(), 8);
    assert_eq!(size_of::<Option<Listpack>>(), 8);
}

#[test]
fn bytes_are_those_of_redis() {
    let mut listpack = Listpack::new();
    assert_eq!(listpack.as_bytes(), [7, 0, 0, 0, 0, 0, 0xFF]);
    listpack.push_back(b"a");
    listpack.push_back(b"-1");
    listpack.push_back(b"127");
    listpack.push_back(b"4096");
    listpack.push_back(b"100000");
    listpack.push_front(b"");
    let expected = [
        &[33, 0, 0, 0, 6, 0][..],
        &[0x80, 1],
        &[0x81, b'a', 2],
        &[0xDF, 0xFF, 2],
        &[127, 1],
        &[0xF1, 0, 16, 3],
        &[0xF2, 0xA0, 0x86, 1, 4],
        &[0xFF],
    ]
    .concat();
    let mut expected = expected;
    expected[0] = expected.len() as u8;
    assert_eq!(listpack.as_bytes(), expected);
}

#[test]
fn every_width_of_string_and_integer_survives() {
    let mut model = Vec::new();
    for length in [0, 1, 63, 64, 125, 126, 127, 128, 4095, 4096, 16_376, 16_378, 16_382, 70_000] {
        model.push(vec![b'x'; length]);
    }
    for bits in 0..64 {
        for value in [(1_i64 << bits).wrapping_sub(1), 1 << bits, (-1_i64 << bits).wrapping_sub(1)]
        {
            model.push(value.to_string().into_bytes());
        }
    }
    let mut listpack = Listpack::new();
    for element in &model {
        listpack.push_back(element);
    }
    check(&listpack, &model);
    for (index, element) in model.iter().enumerate() {
        let position = listpack.seek(index as i64).expect("in range");
        assert!(listpack.get(position).eq_bytes(element));
        assert_eq!(listpack.seek(index as i64 - model.len() as i64), Some(position));
    }
    assert_eq!(listpack.seek(model.len() as i64), None);
    assert_eq!(listpack.seek(-1 - model.len() as i64), None);
    assert_eq!(listpack.seek(i64::MIN), None);
    check(&Listpack::from_elements(&model), &model);
}

#[test]
fn find_skips_values() {
    let mut hash = Listpack::new();
    for field in 0..200 {
        hash.push_back_pair(
            format!("field{field}").as_bytes(),
            format!("field{}", field + 1).as_bytes(),
        );
    }
    let start = hash.first().expect("not empty");
    for field in 0..200 {
        let name = format!("field{field}");
        let found = hash.find(start, name.as_bytes(), 1).expect("present");
        assert_eq!(hash.seek(2 * field), Some(found));
    }
    assert_eq!(hash.find(start, b"field200", 1), None);
    assert!(hash.find(start, b"field200", 0).is_some());
}

#[test]
#[cfg_attr(miri, ignore = "hours of it")]
fn more_elements_than_the_header_counts() {
    let count = 70_000;
    let mut listpack = Listpack::from_elements((0..count).map(|_| b"1"));
    assert_eq!(listpack.as_bytes()[4..6], [0xFF, 0xFF]);
    assert_eq!(listpack.len(), count);
    assert!(Listpack::from_bytes(listpack.as_bytes()).is_ok());
    assert_eq!(listpack.remove_range(10, 69_000), 69_000);
    assert_eq!(listpack.len(), 1000);
    assert_eq!(listpack.remove_range(-5, 10), 5);
    // Counted again when read.
    let again = Listpack::from_bytes(listpack.as_bytes()).expect("valid");
    assert_eq!(again.as_bytes()[4..6], 995_u16.to_le_bytes());
}

#[test]
fn elements_in_unusual_form_are_put_right() {
    // "5" as a string, 5 in sixteen bits, "ab" behind a twelve-bit length.
    let mut bytes =
        vec![0, 0, 0, 0, 3, 0, 0x81, b'5', 2, 0xF1, 5, 0, 3, 0xE0, 2, b'a', b'b', 4, 0xFF];
    bytes[0] = bytes.len() as u8;
    let listpack = Listpack::from_bytes(&bytes).expect("well-formed");
    assert_eq!(listpack, Listpack::from_elements([&b"5"[..], b"5", b"ab"]));
    check(&listpack, &[b"5".to_vec(), b"5".to_vec(), b"ab".to_vec()]);
}

#[test]
fn malformed_bytes_are_refused_with_a_reason() {
    let good = Listpack::from_elements([&b"hello"[..], b"17"]);
    let good = good.as_bytes();
    for end in 0..good.len() {
        assert!(Listpack::from_bytes(&good[..end]).is_err());
    }
    let mut wrong_count = good.to_vec();
    wrong_count[4] = 3;
    let error = Listpack::from_bytes(&wrong_count).expect_err("count");
    assert_eq!(error.to_string(), "listpack count differs from its header at byte 4");
    let mut wrong_backlen = good.to_vec();
    wrong_backlen[12] = 5;
    assert!(Listpack::from_bytes(&wrong_backlen).is_err());
    // A string of 4 GiB - 1 in a block of a few bytes.
    let huge = [13, 0, 0, 0, 1, 0, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0xFF];
    assert!(Listpack::from_bytes(&huge).is_err());
}

#[derive(Clone, Debug)]
enum Op {
    PushBack(Vec<u8>),
    PushFront(Vec<u8>),
    InsertBefore(usize, Vec<u8>),
    InsertAfter(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Remove(usize),
    RemoveRun(usize, usize),
    RemoveRange(i64, usize),
    RemoveMany(Vec<usize>),
    Extend(Vec<Vec<u8>>),
    SplitAndMerge(usize),
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|value| value.to_string().into_bytes()),
        (-5000_i64..5000).prop_map(|value| value.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..12),
        prop::collection::vec(any::<u8>(), 0..12),
        (0_usize..300).prop_map(|length| vec![b'a'; length]),
        (4090_usize..4100).prop_map(|length| vec![b'b'; length]),
        (16_370_usize..16_390).prop_map(|length| vec![b'c'; length]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let index = 0_usize..64;
    prop_oneof![
        4 => element().prop_map(Op::PushBack),
        2 => element().prop_map(Op::PushFront),
        2 => (index.clone(), element()).prop_map(|(i, e)| Op::InsertBefore(i, e)),
        2 => (index.clone(), element()).prop_map(|(i, e)| Op::InsertAfter(i, e)),
        2 => (index.clone(), element()).prop_map(|(i, e)| Op::Replace(i, e)),
        1 => index.clone().prop_map(Op::Remove),
        1 => (index.clone(), 0_usize..4).prop_map(|(i, n)| Op::RemoveRun(i, n)),
        1 => (-10_i64..10, 0_usize..4).prop_map(|(i, n)| Op::RemoveRange(i, n)),
        1 => prop::collection::vec(index.clone(), 0..6).prop_map(Op::RemoveMany),
        1 => prop::collection::vec(element(), 0..4).prop_map(Op::Extend),
        1 => index.prop_map(Op::SplitAndMerge),
    ]
}

fn apply(op: Op, listpack: &mut Listpack, model: &mut Vec<Vec<u8>>) {
    let pick = |i: usize, model: &Vec<Vec<u8>>| (!model.is_empty()).then(|| i % model.len());
    let position = |i: usize, listpack: &Listpack| listpack.seek(i as i64).expect("in range");
    match op {
        Op::PushBack(e) => {
            listpack.push_back(&e);
            model.push(e);
        }
        Op::PushFront(e) => {
            listpack.push_front(&e);
            model.insert(0, e);
        }
        Op::InsertBefore(i, e) => {
            let Some(i) = pick(i, model) else { return };
            let at = listpack.insert_before(position(i, listpack), &e);
            assert!(listpack.get(at).eq_bytes(&e));
            model.insert(i, e);
        }
        Op::InsertAfter(i, e) => {
            let Some(i) = pick(i, model) else { return };
            let at = listpack.insert_after(position(i, listpack), &e);
            assert!(listpack.get(at).eq_bytes(&e));
            model.insert(i + 1, e);
        }
        Op::Replace(i, e) => {
            let Some(i) = pick(i, model) else { return };
            let at = listpack.replace(position(i, listpack), &e);
            assert!(listpack.get(at).eq_bytes(&e));
            model[i] = e;
        }
        Op::Remove(i) => {
            let Some(i) = pick(i, model) else { return };
            let next = listpack.remove(position(i, listpack));
            model.remove(i);
            assert_eq!(next, listpack.seek(i as i64));
        }
        Op::RemoveRun(i, n) => {
            let Some(i) = pick(i, model) else { return };
            listpack.remove_run(position(i, listpack), n);
            model.drain(i..(i + n).min(model.len()));
        }
        Op::RemoveRange(i, n) => {
            let start = if i < 0 { model.len() as i64 + i } else { i };
            let removed = listpack.remove_range(i, n);
            if (0..model.len() as i64).contains(&start) {
                let start = start as usize;
                assert_eq!(removed, model.drain(start..(start + n).min(model.len())).count());
            } else {
                assert_eq!(removed, 0);
            }
        }
        Op::RemoveMany(mut indexes) => {
            indexes.sort_unstable();
            indexes.dedup();
            indexes.retain(|&i| i < model.len());
            let mut positions = Vec::new();
            listpack.pick_sorted(&indexes, |_, position| positions.push(position));
            assert_eq!(positions.len(), indexes.len());
            listpack.remove_many(&positions);
            for i in indexes.into_iter().rev() {
                model.remove(i);
            }
        }
        Op::Extend(elements) => {
            listpack.extend_back(&elements);
            model.extend(elements);
        }
        Op::SplitAndMerge(i) => {
            let rest = listpack.split_off(i);
            check(&rest, model.get(i..).unwrap_or_default());
            *listpack = std::mem::take(listpack).merge(rest);
        }
    }
}

proptest! {
    #![proptest_config(crate::test_config())]

    #[test]
    fn agrees_with_a_vec(ops in prop::collection::vec(op(), 0..40)) {
        let (mut listpack, mut model) = (Listpack::new(), Vec::new());
        for op in ops {
            apply(op, &mut listpack, &mut model);
            check(&listpack, &model);
        }
    }

    #[test]
    fn find_and_scan_agree_with_a_vec(
        elements in prop::collection::vec("[0-3]{0,2}", 1..60),
        needle in "[0-3]{0,2}",
        skip in 0_usize..4,
    ) {
        let listpack = Listpack::from_elements(elements.iter().map(String::as_bytes));
        let start = listpack.first().expect("not empty");
        let found = listpack.find(start, needle.as_bytes(), skip);
        let expected = (0..elements.len()).step_by(skip + 1).find(|&i| elements[i] == needle);
        prop_assert_eq!(found, expected.and_then(|i| listpack.seek(i as i64)));

        let encoded = Encoded::new(needle.as_bytes());
        let mut expected: Vec<_> = (0..elements.len()).filter(|&i| elements[i] == needle).collect();
        for direction in [Direction::Forward, Direction::Backward] {
            let mut seen = Vec::new();
            let _ = listpack.scan(&encoded, direction, |index, position| {
                assert_eq!(listpack.seek(index as i64), Some(position));
                seen.push(index);
                ControlFlow::Continue(())
            });
            prop_assert_eq!(&seen, &expected);
            expected.reverse();
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), fix: bool) {
        if fix && bytes.len() >= EMPTY_BYTES {
            let length = (bytes.len() as u32).to_le_bytes();
            bytes[..4].copy_from_slice(&length);
            bytes[4..6].copy_from_slice(&UNKNOWN.to_le_bytes());
            *bytes.last_mut().expect("not empty") = END;
        }
        if let Ok(listpack) = Listpack::from_bytes(&bytes) {
            check(&listpack, &texts(&listpack));
        }
    }

    #[test]
    fn mutated_bytes_never_panic(
        elements in prop::collection::vec(element(), 0..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = Listpack::from_elements(&elements).as_bytes().to_vec();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(listpack) = Listpack::from_bytes(&bytes) {
            check(&listpack, &texts(&listpack));
        }
    }

    #[test]
    fn stale_positions_never_read_outside(
        elements in prop::collection::vec("[a-z]{0,9}", 1..8),
        offset in 6_usize..100,
    ) {
        let listpack = Listpack::from_elements(elements.iter().map(String::as_bytes));
        let position = Position(offset.min(listpack.total_bytes() - 1));
        // A panic on a bound is within the contract; anything else is not.
        let _ = std::panic::catch_unwind(|| {
            let mut at = Some(position);
            while let Some(position) = at {
                let _ = listpack.get(position);
                at = listpack.next(position);
            }
        });
    }
}

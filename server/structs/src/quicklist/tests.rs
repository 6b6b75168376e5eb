//! The invariants of the nodes, whatever happens to them.

use proptest::prelude::*;

use super::*;

fn texts(list: &Quicklist) -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    let mut elements = list.iter();
    while let Some(element) = elements.next() {
        texts.push(element.to_vec());
    }
    texts
}

/// What must hold after every change.
fn check(list: &Quicklist, model: &[Vec<u8>]) {
    assert_eq!(texts(list), model);
    assert_eq!(list.len(), model.len());
    assert_eq!(list.node_bytes, list.nodes.iter().map(Node::heap_bytes).sum::<usize>());
    let depth = usize::from(list.compress);
    for (index, node) in list.nodes.iter().enumerate() {
        assert_ne!(node.count(), 0);
        let outer = index < depth || list.nodes.len() - depth.min(list.nodes.len()) <= index;
        if depth == 0 || outer {
            assert!(!node.is_compressed(), "node {index} of {}", list.nodes.len());
        }
        match node.view().content() {
            Ok(listpack) => {
                assert_eq!(listpack.len(), node.count());
                assert_eq!(listpack.total_bytes(), node.raw_bytes());
                assert!(Listpack::from_bytes(listpack.as_bytes()).is_ok());
            }
            Err(element) => assert_eq!(element.len(), node.raw_bytes()),
        }
    }
}

fn limits(fill: i32, compress: u16) -> ListLimits {
    ListLimits { fill, compress, packed_threshold: 0 }
}

fn of(texts: &[&str], limits: ListLimits) -> Quicklist {
    let mut list = Quicklist::new(limits);
    for text in texts {
        list.push(End::Back, text.as_bytes(), limits);
    }
    list
}

fn counts(list: &Quicklist) -> Vec<usize> {
    list.nodes.iter().map(Node::count).collect()
}

#[test]
fn a_node_is_small() {
    assert_eq!(size_of::<Node>(), 24);
    assert!(size_of::<Quicklist>() <= 56);
}

#[test]
fn a_full_node_is_split_and_merged() {
    let limits = limits(4, 0);
    let mut list = of(&["a", "b", "c", "d", "e", "f", "g", "h"], limits);
    assert_eq!(counts(&list), [4, 4]);
    assert!(list.insert(1, Side::After, b"x", limits));
    assert_eq!(counts(&list), [2, 3, 4]);
    assert!(list.insert(1, Side::Before, b"y", limits));
    assert_eq!(counts(&list), [3, 3, 4]);
    assert_eq!(texts(&list).concat(), b"aybxcdefgh");
    assert!(!list.insert(10, Side::After, b"z", limits));
}

#[test]
fn large_elements_are_nodes_of_their_own() {
    let limits = limits(-1, 0);
    let large = vec![b'x'; 4097];
    let mut list = of(&["a", "b", "c"], limits);
    assert!(list.insert(1, Side::Before, &large, limits));
    assert_eq!(counts(&list), [1, 1, 2]);
    assert!(list.set(1, b"small", limits));
    assert_eq!(texts(&list), [&b"a"[..], b"small", b"b", b"c"]);
    assert!(list.set(-1, &large, limits));
    assert!(matches!(list.nodes().last(), Some(StoredNode::Plain(_))));
    assert_eq!(list.remove_value(&large, 0), 1);
    assert_eq!(texts(&list), [&b"a"[..], b"small", b"b"]);
}

#[test]
fn inner_nodes_are_compressed_and_read_all_the_same() {
    let limits = limits(10, 1);
    let element = |i: usize| format!("element number {i}").into_bytes();
    let mut list = Quicklist::new(limits);
    for i in 0..100 {
        list.push(End::Back, &element(i), limits);
    }
    let compressed = |list: &Quicklist| list.nodes.iter().filter(|n| n.is_compressed()).count();
    assert_eq!(compressed(&list), 8);
    let model: Vec<_> = (0..100).map(element).collect();
    check(&list, &model);
    for i in 0..100 {
        assert_eq!(list.get(i as i64, |e| e.to_vec()), Some(element(i)));
        assert_eq!(list.get(i as i64 - 100, |e| e.to_vec()), Some(element(i)));
    }
    assert_eq!(compressed(&list), 8, "reading leaves them compressed");
    let raw: usize = list.nodes.iter().map(Node::raw_bytes).sum();
    assert!(list.heap_bytes() < raw);
    list.set(50, b"other", limits);
    assert_eq!(compressed(&list), 8, "so does writing");
    while list.pop(End::Front, |_| ()).is_some() {
        check(&list, &texts(&list));
    }
}

#[test]
#[cfg_attr(miri, ignore = "hours of it")]
fn memory_is_mostly_payload() {
    let limits = limits(-2, 0);
    let mut list = Quicklist::new(limits);
    for i in 0..10_000 {
        list.push(End::Back, format!("element{i:05}").as_bytes(), limits);
    }
    // Twelve bytes of payload and two around it.
    assert!(list.heap_bytes() < 10_000 * 15, "{}", list.heap_bytes());
}

#[derive(Clone, Debug)]
enum Op {
    Push(End, Vec<u8>),
    Pop(End),
    Insert(usize, Side, Vec<u8>),
    Set(i64, Vec<u8>),
    RemoveRange(usize, usize),
    RemoveValue(Vec<u8>, i64),
    Rotate(End),
    Positions(Vec<u8>, Positions),
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0_i64..8).prop_map(|value| value.to_string().into_bytes()),
        2 => prop::sample::select(vec!["a", "bb", ""]).prop_map(|text| text.as_bytes().to_vec()),
        2 => (20_usize..80).prop_map(|length| vec![b'l'; length]),
        1 => prop::collection::vec(any::<u8>(), 0..100),
        1 => prop::sample::select(vec![4090_usize, 4097, 8200]).prop_map(|n| vec![b'x'; n]),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop::sample::select(vec![End::Front, End::Back])
}

fn op() -> impl Strategy<Value = Op> {
    let side = prop::sample::select(vec![Side::Before, Side::After]);
    let ask = (prop::sample::select(vec![-3_i64, -2, -1, 1, 2, 3]), 0_usize..4, 0_usize..30)
        .prop_map(|(rank, count, look_at_max)| Positions { rank, count, look_at_max });
    prop_oneof![
        8 => (end(), element()).prop_map(|(end, e)| Op::Push(end, e)),
        1 => end().prop_map(Op::Pop),
        6 => (0_usize..80, side, element()).prop_map(|(i, side, e)| Op::Insert(i, side, e)),
        2 => (-40_i64..40, element()).prop_map(|(i, e)| Op::Set(i, e)),
        1 => (0_usize..60, 0_usize..9).prop_map(|(i, n)| Op::RemoveRange(i, n)),
        1 => (element(), -2_i64..3).prop_map(|(e, n)| Op::RemoveValue(e, n)),
        1 => end().prop_map(Op::Rotate),
        1 => (element(), ask).prop_map(|(e, ask)| Op::Positions(e, ask)),
    ]
}

fn apply(op: Op, list: &mut Quicklist, model: &mut Vec<Vec<u8>>, limits: ListLimits) {
    match op {
        Op::Push(end, e) => {
            list.push(end, &e, limits);
            model.insert(if end == End::Front { 0 } else { model.len() }, e);
        }
        Op::Pop(end) => {
            let popped = list.pop(end, |element| element.to_vec());
            let expected = match end {
                End::Front => (!model.is_empty()).then(|| model.remove(0)),
                End::Back => model.pop(),
            };
            assert_eq!(popped, expected);
        }
        Op::Insert(i, side, e) => {
            assert_eq!(list.insert(i, side, &e, limits), i < model.len());
            if i < model.len() {
                model.insert(i + usize::from(side == Side::After), e);
            }
        }
        Op::Set(i, e) => {
            let index = from_either_end(i, model.len());
            assert_eq!(list.set(i, &e, limits), index.is_some());
            if let Some(index) = index {
                model[index] = e;
            }
        }
        Op::RemoveRange(i, n) => {
            let range = i.min(model.len())..(i + n).min(model.len());
            assert_eq!(list.remove_range(i, n), range.len());
            model.drain(range);
        }
        Op::RemoveValue(e, n) => {
            let mut found: Vec<_> = (0..model.len()).filter(|&i| model[i] == e).collect();
            if n < 0 {
                found.reverse();
            }
            if n != 0 {
                found.truncate(n.unsigned_abs() as usize);
            }
            assert_eq!(list.remove_value(&e, n), found.len());
            found.sort_unstable();
            found.into_iter().rev().for_each(|i| drop(model.remove(i)));
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
            assert_eq!(seen, expected_positions(model, &e, ask));
        }
    }
}

pub(crate) fn expected_positions(model: &[Vec<u8>], needle: &[u8], ask: Positions) -> Vec<usize> {
    let all = |n| if n == 0 { usize::MAX } else { n };
    let mut indexes: Vec<_> = (0..model.len()).collect();
    if ask.rank < 0 {
        indexes.reverse();
    }
    let looked_at = indexes.into_iter().take(all(ask.look_at_max));
    let matches = looked_at.filter(|&index| model[index] == needle);
    matches.skip(ask.rank.unsigned_abs() as usize - 1).take(all(ask.count)).collect()
}

proptest! {
    #![proptest_config(crate::test_config())]

    #[test]
    fn agrees_with_a_vec(
        fill in prop::sample::select(vec![1, 2, 3, 5, -1, -2]),
        compress in 0_u16..3,
        packed_threshold in prop::sample::select(vec![0_usize, 0, 40]),
        ops in prop::collection::vec(op(), 0..80),
    ) {
        let limits = ListLimits { fill, compress, packed_threshold };
        let (mut list, mut model) = (Quicklist::new(limits), Vec::new());
        for op in ops {
            apply(op, &mut list, &mut model, limits);
            check(&list, &model);
        }
        for start in 0..model.len() {
            let mut backward = list.iter_from(start, Direction::Backward);
            for expected in model[..=start].iter().rev() {
                prop_assert!(backward.next().is_some_and(|element| element.eq_bytes(expected)));
            }
            prop_assert!(backward.next().is_none());
        }
        check(&list.clone(), &model);
    }
}

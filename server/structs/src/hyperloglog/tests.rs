//! HyperLogLogs against simple models, and what comes from outside.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SPARSE_MAX: usize = 3000;

fn marks(elements: std::ops::Range<u64>) -> impl Iterator<Item = Mark> {
    elements.map(|number| Mark::of(number.to_string().as_bytes()))
}

/// What the registers of a string hold, run by run or one by one.
fn registers(bytes: &[u8]) -> Vec<u8> {
    match encoding(bytes).expect("a valid string") {
        Encoding::Dense => (0..REGISTERS).map(|at| register(bytes, at)).collect(),
        Encoding::Sparse => {
            runs(bytes).flat_map(|run| std::iter::repeat_n(run.value(), run.count())).collect()
        }
    }
}

#[test]
fn hashes_are_those_of_redis() {
    // From PFADD and PFDEBUG DECODE of a Redis.
    let mut bytes = empty();
    assert_eq!(raise(&mut bytes, [Mark::of(b"a")].into_iter(), SPARSE_MAX), Ok(1));
    let values: Vec<Run> = runs(&bytes).collect();
    assert_eq!(
        values,
        [Run::ManyZeros(12711), Run::Values { value: 2, count: 1 }, Run::ManyZeros(3672)]
    );
}

#[test]
fn estimates_are_close() {
    let mut bytes = empty();
    let mut seen = 0;
    for total in [0, 1, 10, 100, 1000, 10_000, 100_000] {
        raise(&mut bytes, marks(seen..total), SPARSE_MAX).expect("it is valid");
        seen = total;
        let estimate = estimate::estimate(&bytes).expect("it is valid") as f64;
        // Six times the standard error.
        let most = 1.0 + 6.0 * 1.04 / 128.0 * total as f64;
        assert!((estimate - total as f64).abs() <= most, "{estimate} for {total}");
    }
    assert_eq!(encoding(&bytes), Some(Encoding::Dense));
}

#[test]
fn dense_and_sparse_agree() {
    let (mut sparse, mut dense) = (empty(), empty());
    make_dense(&mut dense).expect("it is valid");
    for from in (0..500).step_by(50) {
        let raised = raise(&mut sparse, marks(from..from + 50), SPARSE_MAX);
        assert_eq!(raise(&mut dense, marks(from..from + 50), SPARSE_MAX), raised);
        assert_eq!(registers(&sparse), registers(&dense));
        assert_eq!(estimate(&sparse), estimate(&dense));
    }
    assert_eq!(encoding(&sparse), Some(Encoding::Sparse));
    assert_eq!(make_dense(&mut sparse), Ok(true));
    assert_eq!(sparse, dense);
}

#[test]
fn large_values_and_long_strings_are_dense() {
    let mut bytes = empty();
    let mark = Mark { register: 5, value: 33 };
    assert_eq!(raise(&mut bytes, [mark].into_iter(), SPARSE_MAX), Ok(1));
    assert_eq!((encoding(&bytes), register(&bytes, 5)), (Some(Encoding::Dense), 33));
    let mut bytes = empty();
    let mark = Mark { register: 5, value: 32 };
    assert_eq!(raise(&mut bytes, [mark].into_iter(), 20), Ok(1));
    assert_eq!(encoding(&bytes), Some(Encoding::Sparse));
    let mark = Mark { register: 500, value: 1 };
    assert_eq!(raise(&mut bytes, [mark].into_iter(), 20), Ok(1));
    assert_eq!(encoding(&bytes), Some(Encoding::Dense));
    assert_eq!((register(&bytes, 5), register(&bytes, 500)), (32, 1));
}

#[test]
fn the_last_estimate_is_kept_until_a_change() {
    let mut bytes = empty();
    assert_eq!(cached(&bytes), Some(0));
    raise(&mut bytes, marks(0..1), SPARSE_MAX).expect("it is valid");
    assert_eq!(cached(&bytes), None);
    set_cached(&mut bytes, 1);
    raise(&mut bytes, marks(0..1), SPARSE_MAX).expect("it is valid");
    assert_eq!(cached(&bytes), Some(1));
}

#[test]
fn corrupt_runs_are_found() {
    let with = |runs: &[u8]| {
        let mut bytes = empty();
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(runs);
        bytes
    };
    // Nothing, too few, too many, cut off.
    for runs in [&[][..], &[0x40], &[0x7f, 0xff, 0x00], &[0x7f, 0xff, 0x80], &[0x7f], &[0x80]] {
        let mut bytes = with(runs);
        assert_eq!(estimate(&bytes), Err(Corrupt), "{runs:x?}");
        assert_eq!(Registers::default().merge(&bytes), Err(Corrupt));
        assert_eq!(make_dense(&mut bytes), Err(Corrupt));
        let mark = Mark { register: REGISTERS - 1, value: 40 };
        assert_eq!(raise(&mut bytes, [mark].into_iter(), SPARSE_MAX), Err(Corrupt));
    }
    let mark = Mark { register: REGISTERS - 1, value: 1 };
    assert_eq!(raise(&mut with(&[0x40, 0]), [mark].into_iter(), SPARSE_MAX), Err(Corrupt));
}

proptest! {
    #![proptest_config(crate::test_config())]

    #[test]
    fn raising_agrees_with_a_map(
        marks in prop::collection::vec((0..200_usize, 1..35_u8), 0..300),
        stretch in prop::sample::select(vec![1_usize, 3, 80]),
        sparse_max in prop::sample::select(vec![0_usize, 40, 3000]),
    ) {
        let mut model: HashMap<usize, u8> = HashMap::new();
        let mut bytes = empty();
        for (register, value) in marks {
            let register = register * stretch;
            let known = model.entry(register).or_default();
            let raised = *known < value;
            *known = value.max(*known);
            let mark = Mark { register, value };
            prop_assert_eq!(raise(&mut bytes, [mark].into_iter(), sparse_max), Ok(raised.into()));
        }
        let held = registers(&bytes);
        prop_assert_eq!(held.len(), REGISTERS);
        for (at, value) in held.into_iter().enumerate() {
            prop_assert_eq!(value, model.get(&at).copied().unwrap_or(0));
        }
    }

    #[test]
    fn the_union_has_the_larger_registers(
        left in prop::collection::vec((0..REGISTERS, 1..51_u8), 0..40),
        right in prop::collection::vec((0..REGISTERS, 1..31_u8), 0..40),
    ) {
        let make = |marks: &[(usize, u8)]| {
            let mut bytes = empty();
            let marks = marks.iter().map(|&(register, value)| Mark { register, value });
            raise(&mut bytes, marks, SPARSE_MAX).expect("it is valid");
            bytes
        };
        let (left, right) = (make(&left), make(&right));
        let mut union = Registers::default();
        union.merge(&left).expect("it is valid");
        union.merge(&right).expect("it is valid");
        let mut packed = empty();
        make_dense(&mut packed).expect("it is valid");
        union.pack_into(&mut packed);
        let expected: Vec<u8> =
            registers(&left).into_iter().zip(registers(&right)).map(|(a, b)| a.max(b)).collect();
        prop_assert_eq!(registers(&packed), expected);
        prop_assert_eq!(estimate(&packed), Ok(union.estimate()));
    }

    #[test]
    fn nothing_from_outside_panics(runs in prop::collection::vec(any::<u8>(), 0..40), register in 0..REGISTERS) {
        let mut bytes = empty();
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(&runs);
        let sound = estimate(&bytes).is_ok();
        prop_assert_eq!(Registers::default().merge(&bytes).is_ok(), sound);
        for value in [1, 20, 40] {
            let mark = Mark { register, value };
            let _ = raise(&mut bytes, [mark].into_iter(), SPARSE_MAX);
        }
        let _ = make_dense(&mut bytes);
    }
}

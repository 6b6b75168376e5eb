//! Redis's intset: a sorted array of integers, all of the width that the widest needs.
//!
//! The bytes are Redis's own (DUMP and RDB copy them): width in bytes (u32: 2, 4 or 8), length (u32),
//! the integers in ascending order, everything little-endian. The width only ever grows.

use std::fmt;

use crate::malformed::Malformed;
use crate::thin::{IntsetFormat, ThinBlock};
use crate::value::Thin;

const HEADER: usize = 8;

/// An owned intset behind one word.
#[derive(Clone)]
pub struct Intset {
    block: ThinBlock<IntsetFormat>,
}

// SAFETY: the word is the address of the block, which is given away and taken back whole.
#[allow(unsafe_code)]
unsafe impl Thin for Intset {
    fn into_thin(self) -> (u8, u64) {
        (0, self.block.into_word())
    }

    unsafe fn from_thin(_encoding: u8, word: u64) -> Self {
        // SAFETY: the caller passes on a word of `into_thin`, once.
        Self { block: unsafe { ThinBlock::from_word(word) } }
    }

    fn heap_bytes(&self) -> usize {
        self.block.heap_bytes()
    }
}

/// The integers, by their width.
enum Cells<'a> {
    Two(&'a [[u8; 2]]),
    Four(&'a [[u8; 4]]),
    Eight(&'a [[u8; 8]]),
}

impl Intset {
    #[must_use]
    pub fn new() -> Self {
        Self { block: ThinBlock::new(&header(2, 0)) }
    }

    /// Takes bytes from outside after checking width, length and order. Like Redis, refuses the
    /// empty set, which no key holds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(Malformed::new("intset shorter than its header", bytes.len()));
        };
        let [width, length] = [&header[..4], &header[4..]]
            .map(|field| field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)));
        if !matches!(width, 2 | 4 | 8) {
            return Err(Malformed::new("unknown width of an intset", 0));
        }
        // At most 8 * 2^32.
        if width * length != body.len() as u64 {
            return Err(Malformed::new("intset length differs from its header", 4));
        }
        if length == 0 {
            return Err(Malformed::new("empty intset", 4));
        }
        let intset = Self { block: ThinBlock::new(bytes) };
        if !intset.iter().is_sorted_by(|a, b| a < b) {
            return Err(Malformed::new("intset out of order", HEADER));
        }
        Ok(intset)
    }

    /// The serialized form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.block.bytes()
    }

    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.block.total()
    }

    /// What the allocator holds for it.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.block.heap_bytes()
    }

    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        let header = self.block.header();
        u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    #[must_use]
    pub fn contains(&self, value: i64) -> bool {
        self.search(value).is_ok()
    }

    /// The index of `value`, or the index at which it would have to be inserted.
    #[inline]
    pub fn search(&self, value: i64) -> Result<usize, usize> {
        // A value too wide for the cells lies before or behind all of them.
        let outside = if value < 0 { Err(0) } else { Err(self.len()) };
        match self.cells() {
            Cells::Two(cells) => match i16::try_from(value) {
                Ok(value) => cells.binary_search_by(|cell| i16::from_le_bytes(*cell).cmp(&value)),
                Err(_) => outside,
            },
            Cells::Four(cells) => match i32::try_from(value) {
                Ok(value) => cells.binary_search_by(|cell| i32::from_le_bytes(*cell).cmp(&value)),
                Err(_) => outside,
            },
            Cells::Eight(cells) => {
                cells.binary_search_by(|cell| i64::from_le_bytes(*cell).cmp(&value))
            }
        }
    }

    /// The integer at `index` in ascending order.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<i64> {
        Some(match self.cells() {
            Cells::Two(cells) => i64::from(i16::from_le_bytes(*cells.get(index)?)),
            Cells::Four(cells) => i64::from(i32::from_le_bytes(*cells.get(index)?)),
            Cells::Eight(cells) => i64::from_le_bytes(*cells.get(index)?),
        })
    }

    #[must_use]
    pub fn min(&self) -> Option<i64> {
        self.get(0)
    }

    #[must_use]
    pub fn max(&self) -> Option<i64> {
        self.get(self.len().checked_sub(1)?)
    }

    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { intset: self, front: 0, back: self.len() }
    }

    /// Adds `value`; false if it was there.
    pub fn insert(&mut self, value: i64) -> bool {
        let Err(index) = self.search(value) else { return false };
        let (width, length) = (self.width(), self.len());
        let needed = width_of(value);
        if width < needed {
            self.widen(needed, index, value);
            return true;
        }
        let header = header(width, length + 1);
        let bytes = value.to_le_bytes();
        self.block.splice(HEADER + index * width, 0, [&bytes[..width]], &header);
        true
    }

    /// Removes `value`; false if it was not there.
    pub fn remove(&mut self, value: i64) -> bool {
        let Ok(index) = self.search(value) else { return false };
        self.remove_at(index);
        true
    }

    /// Removes and returns the integer at `index`.
    pub fn remove_at(&mut self, index: usize) -> Option<i64> {
        let value = self.get(index)?;
        let (width, length) = (self.width(), self.len());
        self.block.splice(HEADER + index * width, width, [], &header(width, length - 1));
        Some(value)
    }

    /// Keeps what `keep` says, in one pass.
    pub fn retain(&mut self, mut keep: impl FnMut(i64) -> bool) {
        let (width, length) = (self.width(), self.len());
        let mut kept = 0;
        for index in 0..length {
            if keep(self.get(index).expect("index below the length")) {
                let from = index * width;
                self.block.body_mut().copy_within(from..from + width, kept * width);
                kept += 1;
            }
        }
        let removed = (length - kept) * width;
        self.block.splice(HEADER + kept * width, removed, [], &header(width, kept));
    }

    /// Rewrites all in a larger width, with `value`, the first or the last by its sign, at `index`.
    fn widen(&mut self, width: usize, index: usize, value: i64) {
        let length = self.len() + 1;
        let mut bytes = Vec::with_capacity(HEADER + length * width);
        bytes.extend_from_slice(&header(width, length));
        let (before, behind) = (self.iter().take(index), self.iter().skip(index));
        for value in before.chain([value]).chain(behind) {
            bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        self.block = ThinBlock::new(&bytes);
    }

    #[inline]
    fn width(&self) -> usize {
        usize::from(self.block.header()[0])
    }

    #[inline]
    fn cells(&self) -> Cells<'_> {
        let body = &self.as_bytes()[HEADER..];
        match self.width() {
            2 => Cells::Two(body.as_chunks().0),
            4 => Cells::Four(body.as_chunks().0),
            _ => Cells::Eight(body.as_chunks().0),
        }
    }
}

/// The integers in ascending order, from both ends.
#[derive(Clone)]
pub struct Iter<'a> {
    intset: &'a Intset,
    front: usize,
    back: usize,
}

impl Iterator for Iter<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        if self.back <= self.front {
            return None;
        }
        self.front += 1;
        self.intset.get(self.front - 1)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.back - self.front;
        (left, Some(left))
    }

    fn nth(&mut self, n: usize) -> Option<i64> {
        self.front = self.front.saturating_add(n).min(self.back);
        self.next()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<i64> {
        if self.back <= self.front {
            return None;
        }
        self.back -= 1;
        self.intset.get(self.back)
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Intset {
    type Item = i64;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl FromIterator<i64> for Intset {
    fn from_iter<I: IntoIterator<Item = i64>>(values: I) -> Self {
        let mut intset = Self::new();
        for value in values {
            intset.insert(value);
        }
        intset
    }
}

impl Default for Intset {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Intset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

fn header(width: usize, length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).expect("a set of 2^32 integers is long a hash table");
    let mut header = [0; HEADER];
    header[0] = width as u8;
    header[4..].copy_from_slice(&length.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::size::size_class;

    fn check(intset: &Intset, model: &BTreeSet<i64>) {
        assert!(intset.iter().eq(model.iter().copied()));
        assert!(intset.iter().rev().eq(model.iter().rev().copied()));
        assert_eq!(intset.len(), model.len());
        assert_eq!(intset.min(), model.first().copied());
        assert_eq!(intset.max(), model.last().copied());
        assert_eq!(intset.heap_bytes(), size_class(intset.total_bytes()));
        if !model.is_empty() {
            let again = Intset::from_bytes(intset.as_bytes()).expect("our own bytes are valid");
            assert_eq!(again.as_bytes(), intset.as_bytes());
        }
    }

    #[test]
    fn one_word() {
        assert_eq!(size_of::<Intset>(), 8);
        assert_eq!(size_of::<Option<Intset>>(), 8);
    }

    #[test]
    fn bytes_are_those_of_redis() {
        let mut intset = Intset::new();
        assert_eq!(intset.as_bytes(), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert!(intset.insert(5) && intset.insert(-1) && !intset.insert(5));
        assert_eq!(intset.as_bytes(), [2, 0, 0, 0, 2, 0, 0, 0, 255, 255, 5, 0]);
        assert!(intset.insert(-32_769));
        assert_eq!(intset.as_bytes()[..12], [4, 0, 0, 0, 3, 0, 0, 0, 0xFF, 0x7F, 0xFF, 0xFF]);
        assert!(intset.insert(1 << 31));
        assert_eq!(intset.as_bytes()[..8], [8, 0, 0, 0, 4, 0, 0, 0]);
        assert!(intset.iter().eq([-32_769, -1, 5, 1 << 31]));
        assert!(intset.remove(1 << 31) && !intset.remove(i64::MIN));
        assert_eq!(intset.as_bytes()[0], 8, "never narrowed");
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let good: Intset = [1, 2, 70_000].into_iter().collect();
        let good = good.as_bytes();
        for end in 0..good.len() {
            assert!(Intset::from_bytes(&good[..end]).is_err());
        }
        for (at, byte) in [(0, 3), (1, 1), (4, 4), (7, 0x80), (8, 2), (8, 9)] {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            assert!(Intset::from_bytes(&bytes).is_err(), "byte {at}");
        }
        assert!(Intset::from_bytes(Intset::new().as_bytes()).is_err());
    }

    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => -40_i64..40,
            2 => any::<i16>().prop_map(i64::from),
            1 => any::<i32>().prop_map(i64::from),
            1 => any::<i64>(),
            1 => prop::sample::select(vec![i64::MIN, i64::MAX, -32_769, -32_768, 32_767, 32_768]),
        ]
    }

    proptest! {
        #![proptest_config(crate::test_config())]

        #[test]
        fn agrees_with_a_btree_set(ops in prop::collection::vec((0..4_u8, value()), 0..60)) {
            let (mut intset, mut model) = (Intset::new(), BTreeSet::new());
            for (op, value) in ops {
                prop_assert_eq!(intset.contains(value), model.contains(&value));
                match op {
                    0..2 => prop_assert_eq!(intset.insert(value), model.insert(value)),
                    2 => prop_assert_eq!(intset.remove(value), model.remove(&value)),
                    _ => {
                        intset.retain(|other| other % 3 != value % 3);
                        model.retain(|other| other % 3 != value % 3);
                    }
                }
                check(&intset, &model);
            }
        }

        #[test]
        fn random_bytes_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..64),
            width in prop::sample::select(vec![0_u8, 2, 4, 8]),
        ) {
            if bytes.len() >= HEADER && width != 0 {
                let length = (bytes.len() - HEADER) / usize::from(width);
                bytes[..HEADER].copy_from_slice(&header(width.into(), length));
                bytes.truncate(HEADER + length * usize::from(width));
            }
            if let Ok(intset) = Intset::from_bytes(&bytes) {
                check(&intset, &intset.iter().collect());
            }
        }
    }
}

//! One entry of a listpack: first byte with type and perhaps length, payload, and the length of
//! both again (`backlen`), written so that it can be read from its end.

use std::cmp::Ordering;

/// What follows the last entry.
pub(super) const END: u8 = 0xFF;

/// An element as it is read or given: numbers are never formatted on the way.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Element<'a> {
    String(&'a [u8]),
    Integer(i64),
}

impl<'a> Element<'a> {
    /// Whether this is the element that `bytes` would be stored as.
    #[must_use]
    pub fn eq_bytes(&self, bytes: &[u8]) -> bool {
        match *self {
            Self::String(string) => string == bytes,
            Self::Integer(value) => parse_integer(bytes) == Some(value),
        }
    }

    /// Its order among byte strings.
    #[must_use]
    pub fn cmp_bytes(&self, other: &[u8]) -> Ordering {
        self.as_bytes(&mut itoa::Buffer::new()).cmp(other)
    }

    /// Its bytes; `buffer` lends the place when a number has to be written out.
    pub fn as_bytes<'b>(&'b self, buffer: &'b mut itoa::Buffer) -> &'b [u8] {
        match *self {
            Self::String(string) => string,
            Self::Integer(value) => buffer.format(value).as_bytes(),
        }
    }

    pub fn write_to(&self, out: &mut Vec<u8>) {
        match *self {
            Self::String(string) => out.extend_from_slice(string),
            Self::Integer(value) => {
                out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            }
        }
    }

    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.as_bytes(&mut itoa::Buffer::new()).to_vec()
    }

    /// Its value if it is an integer in Redis's strict sense.
    #[must_use]
    pub fn to_i64(&self) -> Option<i64> {
        match *self {
            Self::String(string) => parse_integer(string),
            Self::Integer(value) => Some(value),
        }
    }

    /// Its length as a string.
    #[must_use]
    pub fn len(&self) -> usize {
        match *self {
            Self::String(string) => string.len(),
            Self::Integer(value) => {
                let digits = value.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
                digits + usize::from(value < 0)
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a [u8]> for Element<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::String(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Element<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::String(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Element<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::String(bytes)
    }
}

impl From<i64> for Element<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

/// A signed 64-bit number written the one way Redis writes it: no sign but `-`, no leading zeros, no
/// space. Formatting the result gives the same bytes again.
#[inline]
#[must_use]
pub fn parse_integer(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'0'] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) || 19 < digits.len() {
        return None;
    }
    // Nineteen digits stay below 2^64, so this cannot overflow.
    let mut value = 0_u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if 9 < digit {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    if negative {
        (value <= 1 << 63).then(|| value.wrapping_neg() as i64)
    } else {
        i64::try_from(value).ok()
    }
}

/// An element in stored form, short of its backlen. Every element has exactly one stored form, so
/// comparing stored forms compares elements.
#[derive(Clone, Copy)]
pub struct Encoded<'a> {
    head: [u8; 9],
    head_bytes: u8,
    payload: &'a [u8],
}

impl<'a> Encoded<'a> {
    #[inline]
    pub fn new(element: impl Into<Element<'a>>) -> Self {
        match element.into() {
            Element::Integer(value) => Self::integer(value),
            Element::String(bytes) => match parse_integer(bytes) {
                Some(value) => Self::integer(value),
                None => Self::string(bytes),
            },
        }
    }

    fn string(bytes: &'a [u8]) -> Self {
        let mut head = [0; 9];
        let length = (bytes.len() as u32).to_le_bytes();
        let head_bytes = match bytes.len() {
            0..64 => {
                head[0] = 0x80 | length[0];
                1
            }
            64..4096 => {
                head[0] = 0xE0 | length[1];
                head[1] = length[0];
                2
            }
            _ => {
                head[0] = 0xF0;
                head[1..5].copy_from_slice(&length);
                5
            }
        };
        Self { head, head_bytes, payload: bytes }
    }

    /// The stored size of a string of `length` bytes that is not an integer, without the backlen.
    pub(super) const fn string_bytes(length: usize) -> usize {
        match length {
            0..64 => 1 + length,
            64..4096 => 2 + length,
            _ => 5 + length,
        }
    }

    fn integer(value: i64) -> Self {
        let bytes = value.to_le_bytes();
        let mut head = [0; 9];
        let head_bytes = match value {
            0..=127 => {
                head[0] = bytes[0];
                1
            }
            -4096..=4095 => {
                head[0] = 0xC0 | (bytes[1] & 0x1F);
                head[1] = bytes[0];
                2
            }
            _ => {
                let (first, width) = match value {
                    -0x8000..=0x7FFF => (0xF1, 2),
                    -0x80_0000..=0x7F_FFFF => (0xF2, 3),
                    -0x8000_0000..=0x7FFF_FFFF => (0xF3, 4),
                    _ => (0xF4, 8),
                };
                head[0] = first;
                head[1..].copy_from_slice(&bytes);
                1 + width
            }
        };
        Self { head, head_bytes, payload: &[] }
    }

    #[inline]
    pub(super) fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_bytes)]
    }

    #[inline]
    pub(super) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Stored bytes without the backlen.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        usize::from(self.head_bytes) + self.payload.len()
    }

    /// Whether the entry at `at`, a valid one, is this element.
    #[inline(never)]
    pub(super) fn matches(&self, bytes: &[u8], at: usize) -> bool {
        let head = self.head();
        bytes.get(at..).is_some_and(|stored| {
            stored.starts_with(head) && stored[head.len()..].starts_with(self.payload)
        })
    }

    /// The byte at `index` of the stored form.
    fn byte(&self, index: usize) -> u8 {
        let head = self.head();
        match index.checked_sub(head.len()) {
            None => head[index],
            Some(index) => self.payload[index],
        }
    }
}

/// An element to look for in many entries: one word of its stored form rules out nearly all.
///
/// The word is the last, not the first: names in one aggregate tend to differ in their last bytes.
pub(super) struct Probe<'a> {
    encoded: &'a Encoded<'a>,
    first: u8,
    /// Where the word begins in the stored form.
    offset: usize,
    word: u64,
    /// What of the word counts; all of it unless the stored form is shorter.
    mask: u64,
}

impl<'a> Probe<'a> {
    pub(super) fn new(encoded: &'a Encoded<'a>) -> Self {
        let length = encoded.bytes();
        let offset = length.saturating_sub(8);
        let (mut word, mut mask) = ([0; 8], [0; 8]);
        for index in 0..length.min(8) {
            word[index] = encoded.byte(offset + index);
            mask[index] = 0xFF;
        }
        Self {
            encoded,
            first: encoded.head[0],
            offset,
            word: u64::from_le_bytes(word),
            mask: u64::from_le_bytes(mask),
        }
    }

    /// Whether the entry at `at`, whose first byte is `first`, is the one.
    #[inline]
    pub(super) fn matches(&self, bytes: &[u8], at: usize, first: u8) -> bool {
        if first != self.first {
            return false;
        }
        match bytes.get(at + self.offset..).and_then(<[u8]>::first_chunk::<8>) {
            Some(word) if (u64::from_le_bytes(*word) ^ self.word) & self.mask != 0 => false,
            // At the very end there is no whole word.
            _ => self.encoded.matches(bytes, at),
        }
    }
}

/// The size of whole entries, backlen included, by their first byte; 0 where that does not tell.
static ENTRY_BYTES: [u8; 256] = {
    let mut sizes = [0; 256];
    let mut first = 0;
    while first < 256 {
        sizes[first] = match first {
            0..0x80 => 2,
            0x80..0xC0 => (first as u8 & 0x3F) + 2,
            0xC0..0xE0 => 3,
            0xF1 => 4,
            0xF2 => 5,
            0xF3 => 6,
            0xF4 => 10,
            _ => 0,
        };
        first += 1;
    }
    sizes
};

/// The size of the entry at `at`, backlen included. At least 1 whatever the bytes, so that a walk
/// with a stale position ends.
#[inline]
pub(super) fn entry_bytes(bytes: &[u8], at: usize) -> usize {
    entry_bytes_from(bytes, at, bytes[at])
}

/// The same for who has read the first byte already.
#[inline]
pub(super) fn entry_bytes_from(bytes: &[u8], at: usize, first: u8) -> usize {
    // Branches before the table: guessed right, they spare a walk the wait for one more load.
    match first {
        0..0x80 => 2,
        0x80..0xC0 => usize::from(first & 0x3F) + 2,
        _ => match ENTRY_BYTES[usize::from(first)] {
            0 => long_entry_bytes(bytes, at),
            size => usize::from(size),
        },
    }
}

#[inline(never)]
fn long_entry_bytes(bytes: &[u8], at: usize) -> usize {
    match encoded_bytes(bytes, at) {
        Some(size) => size + backlen_bytes(size),
        None => 1,
    }
}

/// The size of the entry at `at` without its backlen, as its first bytes claim it. `None` if they
/// are not the beginning of an entry.
pub(super) fn encoded_bytes(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let first = *rest.first()?;
    match first {
        0xE0..0xF0 => {
            let length = usize::from(first & 0x0F) << 8 | usize::from(*rest.get(1)?);
            Some(2 + length)
        }
        0xF0 => {
            let length = rest.get(1..5)?.first_chunk::<4>()?;
            Some(5 + u32::from_le_bytes(*length) as usize)
        }
        _ => match ENTRY_BYTES[usize::from(first)] {
            0 => None,
            size => Some(usize::from(size) - 1),
        },
    }
}

/// The element at `at` and the size of its whole entry. A stale position gives some element or
/// panics on a bound; it never reads outside of `bytes`.
#[inline]
pub(super) fn decode(bytes: &[u8], at: usize) -> (Element<'_>, usize) {
    let first = bytes[at];
    match first {
        0..0x80 => (Element::Integer(i64::from(first)), 2),
        0x80..0xC0 => {
            let length = usize::from(first & 0x3F);
            (Element::String(&bytes[at + 1..at + 1 + length]), length + 2)
        }
        _ => decode_other(bytes, at),
    }
}

#[inline(never)]
fn decode_other(bytes: &[u8], at: usize) -> (Element<'_>, usize) {
    let first = bytes[at];
    let string = |head: usize, length: usize| {
        let from = at + head;
        let size = head + length;
        (Element::String(&bytes[from..from + length]), size + backlen_bytes(size))
    };
    let integer = |value: i64, size| (Element::Integer(value), size);
    match first {
        0xC0..0xE0 => {
            // Thirteen bits, moved to the top and back to carry their sign.
            let raw = u16::from_be_bytes([first, bytes[at + 1]]) << 3;
            integer(i64::from(raw as i16 >> 3), 3)
        }
        0xE0..0xF0 => string(2, usize::from(first & 0x0F) << 8 | usize::from(bytes[at + 1])),
        0xF0 => string(5, little_endian::<4>(bytes, at + 1) as usize),
        0xF1 => integer(i64::from(little_endian::<2>(bytes, at + 1) as i16), 4),
        0xF2 => integer(i64::from((little_endian::<3>(bytes, at + 1) as i32) << 8 >> 8), 5),
        0xF3 => integer(i64::from(little_endian::<4>(bytes, at + 1) as i32), 6),
        0xF4 => integer(little_endian::<8>(bytes, at + 1) as i64, 10),
        // Only a stale position leads here.
        _ => (Element::String(&[]), 1),
    }
}

#[inline]
fn little_endian<const WIDTH: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value[..WIDTH].copy_from_slice(&bytes[at..at + WIDTH]);
    u64::from_le_bytes(value)
}

/// The bytes that a backlen of `size` takes. The bounds are Redis's, which leaves out the largest
/// number of each width.
#[inline]
pub(super) const fn backlen_bytes(size: usize) -> usize {
    match size {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// The backlen of an entry of `size` bytes: groups of seven bits, the highest first, all but the
/// first with their top bit set.
#[inline]
pub(super) fn backlen(size: usize) -> ([u8; 5], usize) {
    let width = backlen_bytes(size);
    let mut bytes = [0; 5];
    for (place, byte) in bytes[..width].iter_mut().enumerate() {
        let group = (size >> (7 * (width - 1 - place))) as u8 & 0x7F;
        *byte = if place == 0 { group } else { group | 0x80 };
    }
    (bytes, width)
}

/// Where the entry that ends before `end` begins.
#[inline]
pub(super) fn entry_before(bytes: &[u8], end: usize) -> usize {
    let mut size = 0;
    for (group, byte) in bytes[..end].iter().rev().take(5).enumerate() {
        size |= usize::from(byte & 0x7F) << (7 * group);
        if byte & 0x80 == 0 {
            break;
        }
    }
    end.saturating_sub(size + backlen_bytes(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_canonical_numbers_are_integers() {
        for text in ["", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "0x1", "9223372036854775808"] {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
        for text in ["-9223372036854775809", "99999999999999999999", "18446744073709551616"] {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
        for value in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(parse_integer(value.to_string().as_bytes()), Some(value));
        }
    }

    #[test]
    fn backlen_widths_are_those_of_redis() {
        assert_eq!(backlen(127), ([127, 0, 0, 0, 0], 1));
        assert_eq!(backlen(128), ([1, 128, 0, 0, 0], 2));
        assert_eq!(backlen(16_382), ([127, 254, 0, 0, 0], 2));
        assert_eq!(backlen(16_383), ([0, 255, 255, 0, 0], 3));
        assert_eq!(backlen(2_097_151).1, 4);
        assert_eq!(backlen(268_435_455).1, 5);
    }

    #[test]
    fn length_of_an_integer_is_that_of_its_text() {
        for value in [0, 9, 10, -1, -10, 99, 100, i64::MAX, i64::MIN] {
            assert_eq!(Element::Integer(value).len(), value.to_string().len());
        }
    }

    proptest! {
        #![proptest_config(crate::test_config())]

        #[test]
        fn strict_numbers_read_back(text in "-?[0-9]{0,21}") {
            let expected = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(parse_integer(text.as_bytes()), expected);
        }

        #[test]
        fn integers_decode_to_themselves(value: i64, shift in 0_u32..64) {
            let value = value >> shift;
            let encoded = Encoded::new(value);
            let (back, width) = backlen(encoded.bytes());
            let mut stored = encoded.head().to_vec();
            stored.extend_from_slice(&back[..width]);
            prop_assert_eq!(decode(&stored, 0), (Element::Integer(value), stored.len()));
            prop_assert!(encoded.matches(&stored, 0));
            prop_assert_eq!(entry_before(&stored, stored.len()), 0);
        }

        #[test]
        fn a_probe_finds_what_is_equal(elements: [Vec<u8>; 2], cut in 0_usize..20, at_end: bool) {
            let element = &elements[0][..cut.min(elements[0].len())];
            let mut changed = element.to_vec();
            if let Some(byte) = changed.get_mut(cut / 2) {
                *byte ^= 1;
            }
            for other in [element, &elements[1], &changed] {
                let stored = Encoded::new(other);
                let mut bytes = [stored.head(), stored.payload()].concat();
                if !at_end {
                    bytes.extend([0; 9]);
                }
                let needle = Encoded::new(element);
                prop_assert_eq!(needle.matches(&bytes, 0), other == element);
                prop_assert_eq!(Probe::new(&needle).matches(&bytes, 0, bytes[0]), other == element);
            }
        }
    }
}

//! A block of consecutive entries in one allocation.
//!
//! A block starts with the field names of its first entry; entries with the same ones store values
//! only. IDs are stored as differences from the block's first. The layout:
//!
//! ```text
//! block:  number of fields, fields, entries
//! entry:  flags, ms - first.ms, seq - first.seq (zigzag), [number of fields],
//!         values, or fields and values in turn, length of all that (to be read backward)
//! ```
//!
//! Numbers are variable-length integers; fields and values are pieces: integers in 1 to 9 bytes
//! where the text is that of an integer, else a length and bytes.
//!
//! Redis keeps blocks as listpacks. Ours are smaller, but a block counts the bytes it would have
//! there, so that blocks end where Redis's end: approximate trimming removes whole blocks, and
//! clients see how many entries that is.

use super::id::StreamId;
use crate::size::size_class;

const DELETED: u8 = 1;
const SAME_FIELDS: u8 = 2;

/// Header and end mark of a listpack.
const LISTPACK_EMPTY_BYTES: usize = 7;

#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The ID of the first entry, even when that has been deleted.
    pub(super) first: StreamId,
    /// The ID of the last entry, even when that has been deleted.
    pub(super) last: StreamId,
    pub(super) live: usize,
    pub(super) deleted: usize,
    bytes: Vec<u8>,
    entries_start: usize,
    /// What a listpack would take, less the two counts in its front.
    listpack_bytes: usize,
}

/// A field or value: text, or the integer that stands for its own decimal text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Piece<'a> {
    Text(&'a [u8]),
    Integer(i64),
}

impl Piece<'_> {
    /// Calls `with` with the bytes.
    pub fn with<R>(self, with: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Text(text) => with(text),
            Self::Integer(value) => with(itoa::Buffer::new().format(value).as_bytes()),
        }
    }

    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        self.with(<[u8]>::to_vec)
    }
}

/// An entry in place.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub id: StreamId,
    fields: Fields<'a>,
}

impl<'a> Entry<'a> {
    /// The fields and values, in the order in which they were given.
    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        self.fields.clone()
    }
}

/// Fields and their values.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    left: usize,
    /// Where fields are read if the entry has those of the block.
    shared: Option<Reader<'a>>,
    own: Reader<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Piece<'a>, Piece<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let field = match &mut self.shared {
            Some(shared) => shared.piece(),
            None => self.own.piece(),
        };
        Some((field, self.own.piece()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Fields<'_> {}

/// An entry found in a block, and the bytes it takes there.
pub(super) struct Found<'a> {
    pub(super) entry: Entry<'a>,
    pub(super) is_deleted: bool,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Block {
    /// A block of no entries, with the fields of its first one: `pairs` has fields and values in
    /// turn.
    pub(super) fn new(first: StreamId, pairs: &[&[u8]]) -> Self {
        let fields = pairs.iter().step_by(2);
        let mut cost = Cost::default();
        fields.clone().for_each(|field| cost.add_piece(field));
        let count = pairs.len() / 2;
        cost.listpack += listpack_integer(count as i64) + listpack_integer(0);

        let mut bytes = Vec::with_capacity(size_class(varint_len(count as u64) + cost.own));
        write_varint(&mut bytes, count as u64);
        fields.for_each(|field| write_piece(&mut bytes, field));
        let entries_start = bytes.len();
        let listpack_bytes = LISTPACK_EMPTY_BYTES + cost.listpack;
        Self { first, last: first, live: 0, deleted: 0, bytes, entries_start, listpack_bytes }
    }

    /// The bytes of a listpack of the same contents.
    pub(super) fn listpack_bytes(&self) -> usize {
        let counts = listpack_integer(self.live as i64) + listpack_integer(self.deleted as i64);
        self.listpack_bytes + counts
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_class(self.bytes.capacity())
    }

    /// Where entries end.
    pub(super) fn end(&self) -> usize {
        self.bytes.len()
    }

    /// Where entries start.
    pub(super) fn start(&self) -> usize {
        self.entries_start
    }

    /// Adds an entry with an ID above all here.
    pub(super) fn append(&mut self, id: StreamId, pairs: &[&[u8]]) {
        let ms = id.ms.wrapping_sub(self.first.ms);
        let seq = id.seq.wrapping_sub(self.first.seq).cast_signed();
        let same = self.has_fields(pairs);
        let count = pairs.len() / 2;

        let mut cost = Cost::default();
        for pair in pairs.chunks_exact(2) {
            if !same {
                cost.add_piece(pair[0]);
            }
            cost.add_piece(pair[1]);
        }
        let mut length = 1 + varint_len(ms) + varint_len(zigzag(seq)) + cost.own;
        let mut pieces = 3 + count;
        if !same {
            length += varint_len(count as u64);
            cost.listpack += listpack_integer(count as i64);
            pieces += 1 + count;
        }
        self.listpack_bytes += cost.listpack
            + listpack_integer(0)
            + listpack_integer(ms.cast_signed())
            + listpack_integer(seq)
            + listpack_integer(pieces as i64);

        self.reserve(length + varint_len(length as u64));
        let bytes = &mut self.bytes;
        let start = bytes.len();
        bytes.push(if same { SAME_FIELDS } else { 0 });
        write_varint(bytes, ms);
        write_varint(bytes, zigzag(seq));
        if !same {
            write_varint(bytes, count as u64);
        }
        for pair in pairs.chunks_exact(2) {
            if !same {
                write_piece(bytes, pair[0]);
            }
            write_piece(bytes, pair[1]);
        }
        debug_assert_eq!(bytes.len() - start, length);
        let back = bytes.len();
        write_varint(bytes, length as u64);
        bytes[back..].reverse();
        self.live += 1;
        self.last = id;
    }

    /// Makes room in small steps: an eighth at a time, to whole size classes.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if self.bytes.capacity() < needed {
            let target = if self.live == 0 { needed } else { needed + needed / 8 };
            self.bytes.reserve_exact(size_class(target) - self.bytes.len());
        }
    }

    /// Gives back what was reserved, since nothing will be added any more.
    pub(super) fn seal(&mut self) {
        self.bytes.shrink_to(size_class(self.bytes.len()));
    }

    fn has_fields(&self, pairs: &[&[u8]]) -> bool {
        let mut reader = Reader { rest: &self.bytes[..self.entries_start] };
        let count = reader.varint();
        count == (pairs.len() / 2) as u64
            && pairs.iter().step_by(2).all(|field| match reader.piece() {
                Piece::Text(text) => text == *field,
                Piece::Integer(value) => integer(field) == Some(value),
            })
    }

    /// The entry that starts at `start`, if that is not the end.
    pub(super) fn entry_from(&self, start: usize) -> Option<Found<'_>> {
        if start == self.bytes.len() {
            return None;
        }
        let mut found = self.decode(start);
        let mut rest = found.entry.fields.own.clone();
        let pieces = match found.entry.fields.shared {
            Some(_) => found.entry.fields.left,
            None => 2 * found.entry.fields.left,
        };
        for _ in 0..pieces {
            rest.skip_piece();
        }
        let length = self.bytes.len() - rest.rest.len() - start;
        found.end = start + length + varint_len(length as u64);
        Some(found)
    }

    /// The entry that ends at `end`, if that is not the start.
    pub(super) fn entry_before(&self, end: usize) -> Option<Found<'_>> {
        if end == self.entries_start {
            return None;
        }
        let mut at = end;
        let mut length = 0;
        let mut shift = 0;
        loop {
            at -= 1;
            let byte = self.bytes[at];
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let mut found = self.decode(at - length);
        found.end = end;
        Some(found)
    }

    /// All of an entry but where it ends.
    fn decode(&self, start: usize) -> Found<'_> {
        let flags = self.bytes[start];
        let mut own = Reader { rest: &self.bytes[start + 1..] };
        let ms = self.first.ms.wrapping_add(own.varint());
        let seq = self.first.seq.wrapping_add(unzigzag(own.varint()).cast_unsigned());
        let (shared, left) = if flags & SAME_FIELDS != 0 {
            let mut shared = Reader { rest: &self.bytes[..self.entries_start] };
            let left = shared.varint();
            (Some(shared), left)
        } else {
            (None, own.varint())
        };
        let fields = Fields { left: left as usize, shared, own };
        let is_deleted = flags & DELETED != 0;
        Found { entry: Entry { id: StreamId { ms, seq }, fields }, is_deleted, start, end: start }
    }

    /// Marks the entry at `start`, which is live, as deleted.
    pub(super) fn delete(&mut self, start: usize) {
        self.bytes[start] |= DELETED;
        self.live -= 1;
        self.deleted += 1;
    }
}

/// Reads what this module wrote, so it never runs past the end.
#[derive(Clone, Debug)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> u8 {
        let byte = self.rest[0];
        self.rest = &self.rest[1..];
        byte
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        taken
    }

    fn varint(&mut self) -> u64 {
        let mut value = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn piece(&mut self) -> Piece<'a> {
        let head = self.byte();
        match head {
            0x00..=0x7f => Piece::Integer(i64::from(head)),
            0x80..=0xbf => Piece::Text(self.take(usize::from(head & 0x3f))),
            0xc0..=0xdf => {
                let bits = i64::from(head & 0x1f) << 8 | i64::from(self.byte());
                Piece::Integer(bits << 51 >> 51)
            }
            0xe0..=0xef => {
                let length = usize::from(head & 0x0f) << 8 | usize::from(self.byte());
                Piece::Text(self.take(length))
            }
            LONG_TEXT => {
                let length =
                    self.take(4).iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte));
                Piece::Text(self.take(length))
            }
            _ => {
                let width = usize::from(head - LONG_TEXT);
                let mut bytes = [0; 8];
                bytes[8 - width..].copy_from_slice(self.take(width));
                Piece::Integer(i64::from_le_bytes(bytes) >> (64 - 8 * width))
            }
        }
    }

    fn skip_piece(&mut self) {
        self.piece();
    }
}

/// Followed by a length of four bytes. The numbers after it are the widths of integers.
const LONG_TEXT: u8 = 0xf0;

fn write_piece(out: &mut Vec<u8>, text: &[u8]) {
    if let Some(value) = integer(text) {
        return write_integer(out, value);
    }
    match text.len() {
        length @ 0..64 => out.push(0x80 | length as u8),
        length @ 64..4096 => out.extend([0xe0 | (length >> 8) as u8, length as u8]),
        length => {
            out.push(LONG_TEXT);
            out.extend_from_slice(&(length as u32).to_le_bytes());
        }
    }
    out.extend_from_slice(text);
}

fn write_integer(out: &mut Vec<u8>, value: i64) {
    match value {
        0..128 => out.push(value as u8),
        -4096..4096 => out.extend([0xc0 | (value >> 8) as u8 & 0x1f, value as u8]),
        _ => {
            let width = integer_width(value);
            out.push(LONG_TEXT + width as u8);
            out.extend_from_slice(&value.to_le_bytes()[..width]);
        }
    }
}

/// The fewest bytes that hold a signed integer.
fn integer_width(value: i64) -> usize {
    let bits = 65 - (value ^ (value >> 63)).leading_zeros();
    bits.div_ceil(8) as usize
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// The integer whose decimal text this is, digit for digit.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut magnitude = 0_u64; // 19 digits fit
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if 9 < digit {
            return None;
        }
        magnitude = 10 * magnitude + u64::from(digit);
    }
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// What pieces take here, and what they would take in a listpack.
#[derive(Default)]
struct Cost {
    own: usize,
    listpack: usize,
}

impl Cost {
    fn add_piece(&mut self, text: &[u8]) {
        if let Some(value) = integer(text) {
            self.own += match value {
                0..128 => 1,
                -4096..4096 => 2,
                _ => 1 + integer_width(value),
            };
            self.listpack += listpack_integer(value);
            return;
        }
        let length = match text.len() {
            length @ 0..64 => 1 + length,
            length @ 64..4096 => 2 + length,
            length => 5 + length,
        };
        self.own += length;
        self.listpack += with_back_length(length);
    }
}

fn listpack_integer(value: i64) -> usize {
    let width = match value {
        0..128 => 1,
        -4096..4096 => 2,
        _ => match integer_width(value) {
            width @ 0..=4 => 1 + width,
            _ => 9,
        },
    };
    with_back_length(width)
}

/// Each element of a listpack is followed by its length.
fn with_back_length(length: usize) -> usize {
    length
        + match length {
            0..=127 => 1,
            128..16_383 => 2,
            16_383..2_097_151 => 3,
            2_097_151..268_435_455 => 4,
            _ => 5,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(text: &[u8]) -> usize {
        let mut out = Vec::new();
        write_piece(&mut out, text);
        let mut cost = Cost::default();
        cost.add_piece(text);
        assert_eq!(cost.own, out.len());
        assert!(cost.own < cost.listpack);
        let mut reader = Reader { rest: &out };
        assert_eq!(reader.piece().to_vec(), text);
        assert!(reader.rest.is_empty());
        out.len()
    }

    #[test]
    fn integers_take_as_few_bytes_as_they_can() {
        for (text, bytes) in [
            ("0", 1),
            ("127", 1),
            ("128", 2),
            ("-1", 2),
            ("-4096", 2),
            ("4095", 2),
            ("4096", 3),
            ("-32768", 3),
            ("32768", 4),
            ("8388607", 4),
            ("-8388609", 5),
            ("1526919030474", 7),
            ("9223372036854775807", 9),
            ("-9223372036854775808", 9),
        ] {
            assert_eq!(round_trip(text.as_bytes()), bytes, "{text}");
        }
        for text in ["", "-", "-0", "01", "+1", "9223372036854775808", "1x"] {
            assert_eq!(round_trip(text.as_bytes()), 1 + text.len(), "{text}");
        }
    }

    #[test]
    fn texts_of_every_length_class() {
        for length in [63, 64, 4095, 4096, 70_000] {
            round_trip(&vec![b'x'; length]);
        }
    }

    proptest! {
        #[test]
        fn pieces_read_back(value: i64, shift in 0_u32..64, text: Vec<u8>) {
            round_trip((value >> shift).to_string().as_bytes());
            round_trip(&text);
        }

        #[test]
        fn numbers_read_back(value: u64, shift in 0_u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            write_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(Reader { rest: &out }.varint(), value);
            prop_assert_eq!(zigzag(unzigzag(value)), value);
        }
    }
}

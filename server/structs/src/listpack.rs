//! Redis's listpack: a sequence of strings and integers in one block of bytes.
//!
//! Small hashes, sets, sorted sets and lists, the nodes of quicklists and the blocks of streams are
//! listpacks. The bytes are Redis's own, so that DUMP, RDB files and full synchronization copy them
//! as they are: total length (u32), count (u16, 65535 for "count them"), entries, 0xFF.
//!
//! Invariants: every entry is well-formed; an element is stored as an integer exactly if its bytes
//! are that integer's text, and in the shortest form, so equal elements have equal bytes; the count
//! in the header is right or 65535.

mod check;
mod entry;
mod iter;
mod repeats;

use std::fmt;
use std::ops::ControlFlow;

use entry::{END, Probe, backlen, decode, entry_before, entry_bytes, entry_bytes_from};
pub use entry::{Element, Encoded, parse_integer};
pub use iter::{Entries, Iter};

use crate::malformed::Malformed;
use crate::thin::{ListpackFormat, ThinBlock};
use crate::value::Thin;

/// Bytes before the first entry.
pub(crate) const HEADER: usize = 6;
/// The size of a listpack without elements.
pub const EMPTY_BYTES: usize = HEADER + 1;
/// The count of a listpack with too many elements for its header.
const UNKNOWN: u16 = u16::MAX;
/// Redis's bound for what may become of a listpack by adding to it.
pub const SAFE_BYTES_MAX: usize = 1 << 30;

/// An owned listpack behind one word.
#[derive(Clone)]
pub struct Listpack {
    block: ThinBlock<ListpackFormat>,
}

// SAFETY: the word is the address of the block, which is given away and taken back whole.
#[allow(unsafe_code)]
unsafe impl Thin for Listpack {
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

/// Where an entry begins. Any change to the listpack before it makes it stale: what is then found
/// there is unspecified, and using it may panic.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Position(usize);

/// Which way to walk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    Forward,
    Backward,
}

impl Listpack {
    #[must_use]
    pub fn new() -> Self {
        Self { block: ThinBlock::new(&[EMPTY_BYTES as u8, 0, 0, 0, 0, 0, END]) }
    }

    /// A listpack of one element.
    #[inline]
    pub fn of<'a>(element: impl Into<Element<'a>>) -> Self {
        let encoded = Encoded::new(element);
        let (back, width) = backlen(encoded.bytes());
        let header = header(EMPTY_BYTES + encoded.bytes() + width, Some(1));
        let parts = [&header, encoded.head(), encoded.payload(), &back[..width], &[END]];
        Self { block: ThinBlock::from_parts(parts) }
    }

    /// A listpack of these elements, allocated once.
    pub fn from_elements<'a, I>(elements: I) -> Self
    where
        I: IntoIterator<IntoIter: Clone>,
        I::Item: Into<Element<'a>>,
    {
        let elements = elements.into_iter();
        let (bytes, count) = measure(elements.clone());
        let mut block = ThinBlock::zeroed(&header(EMPTY_BYTES.saturating_add(bytes), Some(count)));
        let mut gap = block.body_mut();
        for element in elements {
            gap = write(&Encoded::new(element), gap);
        }
        gap[0] = END;
        Self { block }
    }

    /// Takes bytes from outside (DUMP payload, RDB, replication) after checking every entry, all
    /// bounds, both lengths of each entry, and the count.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        check::read(bytes)
    }

    /// Takes bytes that were a listpack of ours before.
    pub(crate) fn from_checked(bytes: &[u8]) -> Self {
        Self { block: ThinBlock::new(bytes) }
    }

    /// The serialized form.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.block.bytes()
    }

    /// The length of the serialized form (`lpBytes`).
    #[inline]
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.block.total()
    }

    /// What the allocator holds for it.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.block.heap_bytes()
    }

    /// Whether `bytes` more keep it below the size that Redis considers safe.
    #[must_use]
    pub fn safe_to_add(&self, bytes: usize) -> bool {
        self.total_bytes().saturating_add(bytes) <= SAFE_BYTES_MAX
    }

    /// The number of elements. Counts them where there are 65535 or more.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self.known_count() {
            Some(count) => count,
            None => self.entries().count(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total_bytes() == EMPTY_BYTES
    }

    // Positions.

    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<Position> {
        (!self.is_empty()).then_some(Position(HEADER))
    }

    #[inline]
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        self.prev(Position(self.end()))
    }

    #[inline]
    #[must_use]
    pub fn next(&self, position: Position) -> Option<Position> {
        let bytes = self.as_bytes();
        let next = position.0 + entry_bytes(bytes, position.0);
        (next + 1 < bytes.len()).then_some(Position(next))
    }

    #[inline]
    #[must_use]
    pub fn prev(&self, position: Position) -> Option<Position> {
        if position.0 <= HEADER {
            return None;
        }
        Some(Position(entry_before(self.as_bytes(), position.0)))
    }

    #[inline]
    #[must_use]
    pub fn get(&self, position: Position) -> Element<'_> {
        decode(self.as_bytes(), position.0).0
    }

    /// The element and the position behind it.
    #[inline]
    #[must_use]
    pub fn get_and_next(&self, position: Position) -> (Element<'_>, Option<Position>) {
        let bytes = self.as_bytes();
        let (element, size) = decode(bytes, position.0);
        let next = position.0 + size;
        (element, (next + 1 < bytes.len()).then_some(Position(next)))
    }

    /// The position of the element at `index`, counted from the end if negative (-1 is the last),
    /// walking from the nearer end.
    #[must_use]
    pub fn seek(&self, index: i64) -> Option<Position> {
        let length = self.len();
        Some(Position(self.offset_of(from_either_end(index, length)?, length)))
    }

    /// Calls `f` with the place in `indexes` and the position of each index of it. The indexes
    /// ascend (equal ones may repeat), and those out of range are left out: for picking at random
    /// in one walk.
    pub fn pick_sorted(&self, indexes: &[usize], mut f: impl FnMut(usize, Position)) {
        let bytes = self.as_bytes();
        let end = self.end();
        let (mut at, mut here) = (HEADER, 0);
        for (place, &index) in indexes.iter().enumerate() {
            while here < index && at < end {
                at += entry_bytes(bytes, at);
                here += 1;
            }
            if end <= at {
                return;
            }
            f(place, Position(at));
        }
    }

    // Reading.

    #[inline]
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self.entries())
    }

    /// The elements with their positions, from both ends.
    #[inline]
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries::new(self.as_bytes(), HEADER, self.end())
    }

    /// Like `entries`, from `position` on.
    #[must_use]
    pub fn entries_from(&self, position: Position) -> Entries<'_> {
        Entries::new(self.as_bytes(), position.0, self.end())
    }

    /// The elements from `index` on for walking in `direction`: forward with `next`, backward with
    /// `next_back`.
    #[must_use]
    pub fn iter_from(&self, index: usize, direction: Direction) -> Iter<'_> {
        let length = self.len();
        let (front, back) = match direction {
            _ if length <= index => (self.end(), self.end()),
            Direction::Forward => (self.offset_of(index, length), self.end()),
            Direction::Backward => (HEADER, self.offset_of(index + 1, length)),
        };
        Iter::new(Entries::new(self.as_bytes(), front, back))
    }

    /// Whether the element at `position` is `needle`.
    #[inline]
    #[must_use]
    pub fn matches(&self, position: Position, needle: &Encoded<'_>) -> bool {
        needle.matches(self.as_bytes(), position.0)
    }

    /// The first element from `start` on that equals `needle`, looking at one element and leaving
    /// out the next `skip`, as between the fields of a hash.
    #[inline]
    #[must_use]
    pub fn find<'n>(
        &self,
        start: Position,
        needle: impl Into<Element<'n>>,
        skip: usize,
    ) -> Option<Position> {
        Some(self.find_encoded(start, &Encoded::new(needle), skip)?.0)
    }

    /// Like `find`, with the number of elements from `start` to the one found.
    #[must_use]
    pub fn find_encoded(
        &self,
        start: Position,
        needle: &Encoded<'_>,
        skip: usize,
    ) -> Option<(Position, usize)> {
        let bytes = self.as_bytes();
        let probe = Probe::new(needle);
        let (mut at, mut passed) = (start.0, 0);
        loop {
            let first = *bytes.get(at)?;
            // The end looks like no element, and its size is 1.
            if probe.matches(bytes, at, first) {
                return Some((Position(at), passed));
            }
            at += entry_bytes_from(bytes, at, first);
            for _ in 0..skip {
                at += entry_bytes_from(bytes, at, *bytes.get(at)?);
            }
            passed += 1 + skip;
        }
    }

    /// Calls `f` with index and position of every element that equals `needle`, from the first or
    /// from the last, until `f` breaks.
    pub fn scan(
        &self,
        needle: &Encoded<'_>,
        direction: Direction,
        mut f: impl FnMut(usize, Position) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match direction {
            Direction::Forward => {
                let (mut from, mut index) = (self.first(), 0);
                while let Some(start) = from {
                    let Some((found, passed)) = self.find_encoded(start, needle, 0) else { break };
                    f(index + passed, found)?;
                    index += passed + 1;
                    from = self.next(found);
                }
            }
            Direction::Backward => {
                let (mut from, mut index) = (self.last(), self.len());
                while let Some(position) = from {
                    index = index.saturating_sub(1);
                    if self.matches(position, needle) {
                        f(index, position)?;
                    }
                    from = self.prev(position);
                }
            }
        }
        ControlFlow::Continue(())
    }

    // Changing. The caller keeps the size in bounds (`safe_to_add`): a listpack of 4 GiB panics.

    #[inline]
    pub fn push_back<'a>(&mut self, element: impl Into<Element<'a>>) {
        let end = self.end();
        self.put(end, 0, &Encoded::new(element));
    }

    #[inline]
    pub fn push_front<'a>(&mut self, element: impl Into<Element<'a>>) {
        self.put(HEADER, 0, &Encoded::new(element));
    }

    /// Appends a field with its value, a member with its score.
    pub fn push_back_pair<'a, 'b>(
        &mut self,
        first: impl Into<Element<'a>>,
        second: impl Into<Element<'b>>,
    ) {
        self.push_back(first);
        self.push_back(second);
    }

    /// Appends all elements, growing the block once.
    pub fn extend_back<'a, I>(&mut self, elements: I)
    where
        I: IntoIterator<IntoIter: Clone>,
        I::Item: Into<Element<'a>>,
    {
        let elements = elements.into_iter();
        let (added, count) = measure(elements.clone());
        let header = self.header_after(0, 0, added, count);
        let end = self.end();
        let mut gap = self.block.splice_zeros(end, 0, added, &header);
        for element in elements {
            gap = write(&Encoded::new(element), gap);
        }
    }

    /// Inserts before `position` and returns where the new element is.
    pub fn insert_before<'a>(
        &mut self,
        position: Position,
        element: impl Into<Element<'a>>,
    ) -> Position {
        self.put(position.0, 0, &Encoded::new(element));
        position
    }

    /// Inserts behind `position` and returns where the new element is.
    pub fn insert_after<'a>(
        &mut self,
        position: Position,
        element: impl Into<Element<'a>>,
    ) -> Position {
        let at = position.0 + entry_bytes(self.as_bytes(), position.0);
        self.put(at, 0, &Encoded::new(element));
        Position(at)
    }

    /// Puts another element in the place of the one at `position`, and returns where it is.
    pub fn replace<'a>(&mut self, position: Position, element: impl Into<Element<'a>>) -> Position {
        let removed = entry_bytes(self.as_bytes(), position.0);
        self.put(position.0, removed, &Encoded::new(element));
        position
    }

    /// Removes one element and returns the position of the one behind it.
    pub fn remove(&mut self, position: Position) -> Option<Position> {
        self.remove_run(position, 1)
    }

    /// Removes up to `count` elements from `position` on (a field and its value) and returns the
    /// position of the one behind them.
    pub fn remove_run(&mut self, position: Position, count: usize) -> Option<Position> {
        let bytes = self.as_bytes();
        let end = self.end();
        let (mut at, mut removed) = (position.0, 0);
        while removed < count && at < end {
            at += entry_bytes(bytes, at);
            removed += 1;
        }
        self.cut(position.0, at - position.0, removed);
        (position.0 < self.end()).then_some(position)
    }

    /// Removes up to `count` elements from `index` on, counted from the end if negative, and
    /// returns how many.
    pub fn remove_range(&mut self, index: i64, count: usize) -> usize {
        let length = self.len();
        let Some(start) = from_either_end(index, length) else { return 0 };
        let removed = count.min(length - start);
        let from = self.offset_of(start, length);
        // Up to the end there is nothing to walk.
        let to = match start + removed {
            to if to == length => self.end(),
            _ => (0..removed).fold(from, |at, _| at + entry_bytes(self.as_bytes(), at)),
        };
        self.cut(from, to - from, removed);
        removed
    }

    /// Removes the elements at `positions`, which ascend, moving what stays once.
    pub fn remove_many(&mut self, positions: &[Position]) {
        let Some(&Position(first)) = positions.first() else { return };
        let end = self.end();
        let body = self.block.body_mut();
        // Within `body`, offsets are less by the header.
        let (mut to, mut from) = (first - HEADER, first - HEADER);
        for &Position(position) in positions {
            let position = position - HEADER;
            debug_assert!(from <= position, "positions ascend");
            body.copy_within(from..position, to);
            to += position - from;
            from = position + entry_bytes(body, position);
        }
        body.copy_within(from..end - HEADER, to);
        let kept = to + (end - HEADER - from) + HEADER;
        self.cut(kept, end - kept, positions.len());
    }

    /// Removes elements that equal `needle`: the first `count`, the last `-count`, or all if it is
    /// 0. Returns how many.
    pub fn remove_value(&mut self, needle: &[u8], count: i64) -> usize {
        let direction = if count < 0 { Direction::Backward } else { Direction::Forward };
        let wanted = match usize::try_from(count.unsigned_abs()) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(wanted) => wanted,
        };
        let mut found = Vec::new();
        self.matching(&Encoded::new(needle), direction, wanted, &mut found);
        self.remove_many(&found);
        found.len()
    }

    /// Fills `found` with the positions of the first `wanted` matches in `direction`, ascending.
    pub(crate) fn matching(
        &self,
        needle: &Encoded<'_>,
        direction: Direction,
        wanted: usize,
        found: &mut Vec<Position>,
    ) {
        found.clear();
        let _ = self.scan(needle, direction, |_, position| {
            found.push(position);
            if found.len() == wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if direction == Direction::Backward {
            found.reverse();
        }
    }

    /// Appends all elements of `other`.
    pub fn append(&mut self, other: &Self) {
        let end = self.end();
        let entries = &other.as_bytes()[HEADER..other.end()];
        let header = self.header_after(0, 0, entries.len(), other.len());
        self.block.splice(end, 0, [entries], &header);
    }

    /// The elements of both, in the larger one's block.
    #[must_use]
    pub fn merge(mut self, mut other: Self) -> Self {
        if other.total_bytes() <= self.total_bytes() {
            self.append(&other);
            return self;
        }
        let entries = &self.as_bytes()[HEADER..self.end()];
        let header = other.header_after(0, 0, entries.len(), self.len());
        other.block.splice(HEADER, 0, [entries], &header);
        other
    }

    /// Takes the elements from `index` on into a listpack of their own.
    #[must_use]
    pub fn split_off(&mut self, index: usize) -> Self {
        let Some(Position(at)) = i64::try_from(index).ok().and_then(|index| self.seek(index))
        else {
            return Self::new();
        };
        let (end, moved) = (self.end(), self.len() - index);
        let mut rest = Self::new();
        let header = rest.header_after(0, 0, end - at, moved);
        rest.block.splice(HEADER, 0, [&self.as_bytes()[at..end]], &header);
        self.cut(at, end - at, moved);
        rest
    }

    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The offset of the element at `index`, which is below `length`.
    fn offset_of(&self, index: usize, length: usize) -> usize {
        let bytes = self.as_bytes();
        if index <= length / 2 {
            (0..index).fold(HEADER, |at, _| at + entry_bytes(bytes, at))
        } else {
            (index..length).fold(self.end(), |at, _| entry_before(bytes, at))
        }
    }

    /// The offset of the 0xFF.
    #[inline]
    fn end(&self) -> usize {
        self.total_bytes() - 1
    }

    #[inline]
    fn known_count(&self) -> Option<usize> {
        let header = self.block.header();
        let count = u16::from_le_bytes([header[4], header[5]]);
        (count != UNKNOWN).then_some(usize::from(count))
    }

    fn set_count(&mut self, count: usize) {
        let header = header(self.total_bytes(), Some(count));
        self.block.set_header(&header);
    }

    /// The one way in which entries are written: in the place of `removed` bytes, which are one
    /// entry or none.
    #[inline]
    fn put(&mut self, at: usize, removed: usize, encoded: &Encoded<'_>) {
        let (back, width) = backlen(encoded.bytes());
        let added = encoded.bytes() + width;
        let header = self.header_after(removed, usize::from(removed != 0), added, 1);
        self.block.splice(
            at,
            removed,
            [encoded.head(), encoded.payload(), &back[..width]],
            &header,
        );
    }

    fn cut(&mut self, at: usize, removed: usize, count: usize) {
        let header = self.header_after(removed, count, 0, 0);
        self.block.splice(at, removed, [], &header);
    }

    #[inline]
    fn header_after(
        &self,
        removed: usize,
        removed_count: usize,
        added: usize,
        added_count: usize,
    ) -> [u8; HEADER] {
        let total = self.total_bytes().saturating_sub(removed).saturating_add(added);
        let count =
            self.known_count().map(|count| (count + added_count).saturating_sub(removed_count));
        header(total, count)
    }
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Listpack {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes()[HEADER..] == other.as_bytes()[HEADER..]
    }
}

impl Eq for Listpack {}

impl fmt::Debug for Listpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = Element<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// `index` counted from the front, if it is one of `length` elements.
pub(crate) fn from_either_end(index: i64, length: usize) -> Option<usize> {
    let from_zero = if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?
    } else {
        usize::try_from(index).ok()?
    };
    (from_zero < length).then_some(from_zero)
}

#[inline]
fn header(total: usize, count: Option<usize>) -> [u8; HEADER] {
    let total = u32::try_from(total).expect("the caller keeps listpacks below 4 GiB (safe_to_add)");
    let count = count.and_then(|count| u16::try_from(count).ok()).unwrap_or(UNKNOWN);
    let ([a, b, c, d], [e, f]) = (total.to_le_bytes(), count.to_le_bytes());
    [a, b, c, d, e, f]
}

/// The stored size and the number of these elements.
fn measure<'a>(elements: impl Iterator<Item: Into<Element<'a>>>) -> (usize, usize) {
    elements.fold((0_usize, 0), |(bytes, count), element| {
        (bytes.saturating_add(stored_bytes(&Encoded::new(element))), count + 1)
    })
}

#[inline]
fn stored_bytes(encoded: &Encoded<'_>) -> usize {
    encoded.bytes() + backlen(encoded.bytes()).1
}

/// Writes an entry at the start of `gap` and returns what is behind it.
fn write<'g>(encoded: &Encoded<'_>, gap: &'g mut [u8]) -> &'g mut [u8] {
    let (back, width) = backlen(encoded.bytes());
    let mut rest = gap;
    for part in [encoded.head(), encoded.payload(), &back[..width]] {
        let (place, behind) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = behind;
    }
    rest
}

/// The stored size of an element as an entry of a listpack, for callers that have to know before
/// they push.
#[must_use]
pub fn entry_size<'a>(element: impl Into<Element<'a>>) -> usize {
    stored_bytes(&Encoded::new(element))
}

#[cfg(test)]
mod tests;

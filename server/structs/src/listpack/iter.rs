//! Walking a listpack.

use super::entry::{decode, entry_before, entry_bytes};
use super::{Element, Position};

/// The elements with their positions, from both ends.
#[derive(Clone)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    front: usize,
    back: usize,
}

impl<'a> Entries<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8], front: usize, back: usize) -> Self {
        Self { bytes, front, back }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Position, Element<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.back <= self.front {
            return None;
        }
        let at = self.front;
        let (element, size) = decode(self.bytes, at);
        self.front = at + size;
        Some((Position(at), element))
    }

    fn count(mut self) -> usize {
        let mut count = 0;
        while self.front < self.back {
            self.front += entry_bytes(self.bytes, self.front);
            count += 1;
        }
        count
    }
}

impl DoubleEndedIterator for Entries<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back <= self.front {
            return None;
        }
        self.back = entry_before(self.bytes, self.back);
        Some((Position(self.back), decode(self.bytes, self.back).0))
    }
}

/// The elements, from both ends.
#[derive(Clone)]
pub struct Iter<'a>(Entries<'a>);

impl<'a> Iter<'a> {
    #[inline]
    pub(super) fn new(entries: Entries<'a>) -> Self {
        Self(entries)
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        Some(self.0.next()?.1)
    }

    fn count(self) -> usize {
        self.0.count()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        Some(self.0.next_back()?.1)
    }
}

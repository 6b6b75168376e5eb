//! Which segments a batch holds.
//!
//! Invariant 1 of the design: a command locks the segments of all its keys, in ascending order,
//! before it sees any of them. A batch of commands locks the union of theirs, once. What may touch
//! anything takes every lock, in the same order: while it runs, nobody else is inside.

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::segment::{SEGMENTS, Segment};
use crate::space::Keyspace;

/// A set of segments, iterated in ascending order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentSet {
    words: [u64; SEGMENTS / 64],
}

impl SegmentSet {
    #[must_use]
    pub const fn all() -> Self {
        Self { words: [u64::MAX; SEGMENTS / 64] }
    }

    #[inline]
    pub fn insert(&mut self, segment: usize) {
        self.words[segment / 64] |= 1 << (segment % 64);
    }

    #[must_use]
    pub fn contains(&self, segment: usize) -> bool {
        self.words[segment / 64] & 1 << (segment % 64) != 0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == [0; SEGMENTS / 64]
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(64 * index + bit)
            })
        })
    }
}

/// The segments a batch has locked, until it is dropped.
///
/// Kept small, since a batch of one command makes one too.
pub struct Access<'k> {
    keyspace: &'k Keyspace,
    /// Ascending, as are the segments they lock.
    guards: SmallVec<[MutexGuard<'k, Segment>; 8]>,
    segments: SmallVec<[u8; 16]>,
}

impl<'k> Access<'k> {
    #[inline]
    pub(crate) fn lock(keyspace: &'k Keyspace, wanted: SegmentSet) -> Self {
        let mut access = Self { keyspace, guards: SmallVec::new(), segments: SmallVec::new() };
        for segment in wanted.iter() {
            access.segments.push(segment as u8);
            access.guards.push(keyspace.segment(segment).lock());
        }
        access
    }

    #[must_use]
    pub fn keyspace(&self) -> &'k Keyspace {
        self.keyspace
    }

    /// Where the guard of a segment is, if this batch has locked it.
    #[inline]
    fn place(&self, segment: usize) -> Option<usize> {
        match *self.segments.as_slice() {
            [only] => (usize::from(only) == segment).then_some(0),
            ref all => all.binary_search(&(segment as u8)).ok(),
        }
    }

    /// A segment this batch has locked. To ask for another is a defect in a command's key
    /// positions, and must not go unnoticed: order and atomicity hang on it.
    #[inline]
    pub fn segment_mut(&mut self, segment: usize) -> &mut Segment {
        let place = self.place(segment).expect("a command touches only the keys it declares");
        &mut self.guards[place]
    }

    #[inline]
    #[must_use]
    pub fn segment(&self, segment: usize) -> &Segment {
        let place = self.place(segment).expect("a command touches only the keys it declares");
        &self.guards[place]
    }

    /// One segment after another, each under its lock: held ones as they are, others locked for
    /// the visit. For walks that need no atomicity across segments.
    pub fn visit<R>(&mut self, segment: usize, visit: impl FnOnce(&mut Segment) -> R) -> R {
        if let Some(place) = self.place(segment) {
            return visit(&mut self.guards[place]);
        }
        assert!(self.guards.is_empty(), "a walk starts with no lock held, or with all");
        visit(&mut self.keyspace.segment(segment).lock())
    }

    #[must_use]
    pub fn holds_all(&self) -> bool {
        self.guards.len() == SEGMENTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_iterates_in_ascending_order() {
        let mut set = SegmentSet::default();
        for segment in [255, 0, 64, 63, 128, 64] {
            set.insert(segment);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 128, 255]);
        assert_eq!(SegmentSet::all().iter().count(), SEGMENTS);
    }

    #[test]
    #[should_panic(expected = "a command touches only the keys it declares")]
    fn an_undeclared_segment_is_refused() {
        let keyspace = Keyspace::new(1);
        let mut set = SegmentSet::default();
        set.insert(3);
        Access::lock(&keyspace, set).segment_mut(4);
    }
}

//! A large sorted set: a table that finds a member's score, and an index that knows the order.
//!
//! Each member is one block, owned by the table, with the score behind its bytes. The index holds
//! the block's address beside a copy of the score.
//!
//! Invariant: the index has exactly the table's entries, each by a good handle and under the score
//! its block holds. A block stays where it is: scores are overwritten in place, and an entry is in
//! the index only while it is in the table. That is what makes looking through a handle sound.
#![allow(unsafe_code)]

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use super::{Change, LexRange, ScoreRange};
use crate::entry::{Entry, EntryRef, NoObject};
use crate::listpack::{Direction, Element};
use crate::rank_tree::{Elements, RankTree};
use crate::table::{Cursor, Handle, Place, Table};
use crate::value::OwnBytes;

/// Entries whose payload is the score.
pub(super) type Scores = Table<NoObject>;

#[derive(Default)]
pub struct Ordered {
    scores: Scores,
    order: RankTree<Handle>,
}

impl OwnBytes for Ordered {
    fn own_bytes(&self) -> usize {
        self.scores.heap_bytes() + self.order.heap_bytes()
    }
}

impl Ordered {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// A sorted set of members that come in order, none of them twice.
    pub(super) fn from_ascending<'a>(members: impl Iterator<Item = (Element<'a>, f64)>) -> Self {
        let mut ordered = Self::default();
        let mut buffer = itoa::Buffer::new();
        for (member, score) in members {
            let member = member.as_bytes(&mut buffer);
            let hash = ordered.scores.hash(member);
            let entry = ordered.scores.insert(hash, entry_of(member, score)).into_ref();
            ordered.order.insert(score, Handle::of(entry), |_| Ordering::Less);
        }
        ordered
    }

    /// Takes over a table whose entries are listed in order.
    ///
    /// # Safety
    /// `ascending` has a good handle of each of the table's entries, under the score it holds.
    pub(super) unsafe fn from_table(scores: Scores, ascending: &[(f64, Handle)]) -> Self {
        let mut order = RankTree::new();
        for &(score, handle) in ascending {
            order.insert(score, handle, |_| Ordering::Less);
        }
        debug_assert_eq!(order.len(), scores.len());
        Self { scores, order }
    }

    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.find(self.scores.hash(member), member).map(score_of)
    }

    pub(super) fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let score = self.score(member)?;
        let rank = self.order.rank(score, |other| self.member(other).cmp(member));
        Some((rank.expect("the index has what the table has"), score))
    }

    pub(super) fn change(
        &mut self,
        member: &[u8],
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Change {
        let hash = self.scores.hash(member);
        let (handle, old) = match self.scores.place_of(hash, member) {
            Place::Taken(entry) => {
                let entry = entry.into_ref();
                (Handle::of(entry), score_of(entry))
            }
            Place::Free(place) => {
                let Some(score) = decide(None) else { return Change::Unchanged };
                let handle = Handle::of(place.insert(entry_of(member, score)).into_ref());
                let scores = &self.scores;
                self.order.insert(score, handle, |other| key_of(scores, other).cmp(member));
                return Change::Added;
            }
        };
        let Some(score) = decide(Some(old)) else { return Change::Unchanged };
        #[expect(clippy::float_cmp, reason = "any other score is another score")]
        if score == old {
            return Change::Unchanged;
        }
        let scores = &self.scores;
        let updated = self.order.update(old, score, |other| key_of(scores, other).cmp(member));
        debug_assert_eq!(updated, Some(handle), "the index has what the table has");
        // SAFETY: the handle was made above and nothing was removed since.
        let payload = unsafe { self.scores.inline_at(handle) };
        payload.copy_from_slice(&score.to_le_bytes());
        Change::Updated
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        let scores = &self.scores;
        let Some(entry) = scores.find(scores.hash(member), member) else { return false };
        let removed = self.order.remove(score_of(entry), |other| key_of(scores, other).cmp(member));
        let handle = removed.expect("the index has what the table has");
        // SAFETY: the index held the handle until now.
        drop(unsafe { self.scores.take(handle) });
        true
    }

    pub(super) fn remove_ranks(&mut self, ranks: Range<usize>) -> usize {
        let scores = &mut self.scores;
        self.order.remove_range(ranks, |_, handle| {
            // SAFETY: the index held the handle until now, tells of it once, and has no use for
            // it any more.
            drop(unsafe { scores.take(handle) });
        })
    }

    pub(super) fn ranks_by_score(&self, range: &ScoreRange) -> Range<usize> {
        let start = self.order.partition_point(|score, _| range.starts_after(score));
        let end = self.order.partition_point(|score, _| !range.ends_before(score));
        start..end.max(start)
    }

    pub(super) fn ranks_by_lex(&self, range: &LexRange<'_>) -> Range<usize> {
        let member = |handle| Element::String(self.member(handle));
        let start = self.order.partition_point(|_, handle| range.starts_after(member(handle)));
        let end = self.order.partition_point(|_, handle| !range.ends_before(member(handle)));
        start..end.max(start)
    }

    pub(super) fn visit_scores<'a>(
        &'a self,
        range: &ScoreRange,
        mut visit: impl FnMut(f64, Name<'a>) -> ControlFlow<()>,
    ) {
        let start = self.order.partition_point(|score, _| range.starts_after(score));
        for (score, handle) in self.order.range(start..self.order.len()) {
            let name = Name { scores: &self.scores, handle };
            if range.ends_before(score) || visit(score, name).is_break() {
                return;
            }
        }
    }

    pub(super) fn walk(&self, ranks: Range<usize>, direction: Direction) -> Walk<'_> {
        let elements = self.order.range(ranks.clone());
        let mut ahead = self.order.range(ranks);
        for _ in 0..AHEAD.min(elements.len().saturating_sub(1)) {
            prefetch_next(&mut ahead, direction);
        }
        Walk { scores: &self.scores, elements, ahead, direction }
    }

    pub(super) fn scan(
        &self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(Element<'_>, f64),
    ) -> u64 {
        let mut place = Cursor::from_client(cursor);
        let mut seen = 0;
        for _ in 0..count.saturating_mul(10) {
            place = self.scores.scan(place, |entry| {
                seen += 1;
                visit(Element::String(entry.key()), score_of(entry));
            });
            if place == Cursor(0) || count <= seen {
                break;
            }
        }
        place.to_client()
    }

    pub(super) fn duplicate(&self) -> Self {
        Self::from_ascending(self.walk(0..self.len(), Direction::Forward))
    }

    fn member(&self, handle: Handle) -> &[u8] {
        key_of(&self.scores, handle)
    }
}

/// The member an entry of the index stands for. Only for handles the index of this table gave.
#[inline]
fn key_of(scores: &Scores, handle: Handle) -> &[u8] {
    // SAFETY: all handles in the index are good (see the invariant), and the index shows no others.
    unsafe { scores.look(handle) }.key()
}

pub(super) fn entry_of(member: &[u8], score: f64) -> Entry<NoObject> {
    Entry::inline(0, member, &score.to_le_bytes(), None)
}

#[inline]
pub(super) fn score_of(entry: EntryRef<'_, NoObject>) -> f64 {
    let payload = entry.bytes().expect("an entry without objects holds bytes");
    f64::from_le_bytes(payload.try_into().expect("a score has 8 bytes"))
}

/// A member in the index that has not been looked at.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    scores: &'a Scores,
    handle: Handle,
}

impl<'a> Name<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        key_of(self.scores, self.handle)
    }

    pub(super) fn prefetch(self) {
        self.handle.prefetch();
    }
}

/// How many members are being loaded while one is visited: neighbours in order are strangers in
/// memory, and one after the other would each cost a wait.
const AHEAD: usize = 8;

pub(super) struct Walk<'a> {
    scores: &'a Scores,
    elements: Elements<'a, Handle>,
    ahead: Elements<'a, Handle>,
    direction: Direction,
}

fn prefetch_next(ahead: &mut Elements<'_, Handle>, direction: Direction) {
    if let Some((_, handle)) = step(ahead, direction) {
        handle.prefetch();
    }
}

#[inline]
fn step(elements: &mut Elements<'_, Handle>, direction: Direction) -> Option<(f64, Handle)> {
    match direction {
        Direction::Forward => elements.next(),
        Direction::Backward => elements.next_back(),
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (Element<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        prefetch_next(&mut self.ahead, self.direction);
        let (score, handle) = step(&mut self.elements, self.direction)?;
        Some((Element::String(key_of(self.scores, handle)), score))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.elements.size_hint()
    }
}

impl ExactSizeIterator for Walk<'_> {}

#[cfg(test)]
impl Ordered {
    /// Checks the invariant of the module's head.
    pub(super) fn check(&self) {
        assert_eq!(self.scores.len(), self.order.len());
        for (score, handle) in &self.order {
            let entry =
                self.scores.find(self.scores.hash(self.member(handle)), self.member(handle));
            let entry = entry.expect("the table has what the index has");
            assert_eq!((Handle::of(entry), score_of(entry)), (handle, score));
        }
    }
}

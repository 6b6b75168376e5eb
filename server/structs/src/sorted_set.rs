//! The sorted set type: a listpack of members and scores while it is small, a table with an ordered
//! index beyond, under Redis's rules and names. A sorted set never goes back to a listpack.
//!
//! Order is by score, then by member. Zeros of either sign are one score. Ranks count from 0. What
//! a range of scores or members covers is found as ranks, and everything else is done by rank.

mod builder;
mod ordered;
mod packed;
mod range;
#[cfg(test)]
mod tests;

use std::ops::{ControlFlow, Range};

pub use builder::Builder;
pub use ordered::Ordered;
pub use range::{LexBound, LexRange, ScoreBound, ScoreRange};

use crate::listpack::{Direction, Element, Listpack};
use crate::thin_enum;

/// When a sorted set outgrows a listpack.
#[derive(Clone, Copy, Debug)]
pub struct SortedSetLimits {
    /// `zset-max-listpack-entries`
    pub listpack_entries: usize,
    /// `zset-max-listpack-value`
    pub listpack_value: usize,
}

pub enum SortedSet {
    /// Members, each followed by its score: an integer if it is integral, else the text that
    /// replies have.
    Listpack(Listpack),
    Skiplist(Box<Ordered>),
}

#[allow(unsafe_code, reason = "the macro vouches for its own words")]
mod thin {
    use super::{Listpack, Ordered, SortedSet, thin_enum};

    thin_enum!(SortedSet {
        0 => Listpack(Listpack),
        1 => Skiplist(Box<Ordered>),
    });
}

/// What became of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Updated,
    /// The score stayed, or the member is still missing.
    Unchanged,
}

impl SortedSet {
    /// An empty sorted set in the encoding that suits about `size` members of the length of the
    /// first.
    #[must_use]
    pub fn for_members(size: usize, first_length: usize, limits: SortedSetLimits) -> Self {
        if size <= limits.listpack_entries && first_length <= limits.listpack_value {
            Self::Listpack(Listpack::new())
        } else {
            Self::Skiplist(Box::default())
        }
    }

    /// What OBJECT ENCODING calls it.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Listpack(_) => "listpack",
            Self::Skiplist(_) => "skiplist",
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Listpack(listpack) => listpack.len() / 2,
            Self::Skiplist(ordered) => ordered.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Listpack(listpack) => listpack.is_empty(),
            Self::Skiplist(ordered) => ordered.len() == 0,
        }
    }

    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Listpack(listpack) => packed::find(listpack, member).map(|found| found.score),
            Self::Skiplist(ordered) => ordered.score(member),
        }
    }

    /// The rank and the score of a member.
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match self {
            Self::Listpack(listpack) => {
                packed::find(listpack, member).map(|found| (found.rank, found.score))
            }
            Self::Skiplist(ordered) => ordered.rank(member),
        }
    }

    /// Takes the encoding for `size` more members at once.
    pub fn expect_members(&mut self, size: usize, limits: SortedSetLimits) {
        if limits.listpack_entries < size {
            self.unpack();
        }
    }

    /// Takes the encoding that has no limits.
    pub fn unpack(&mut self) {
        if let Self::Listpack(listpack) = self {
            *self = Self::Skiplist(Box::new(packed::to_ordered(listpack)));
        }
    }

    /// Gives a member a score, which is not NaN.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: SortedSetLimits) -> Change {
        self.change(member, limits, |_| Some(score))
    }

    /// Gives a member the score that `decide` makes of the present one, in one lookup. `decide`
    /// never gives NaN; `None` leaves everything as it is.
    pub fn change(
        &mut self,
        member: &[u8],
        limits: SortedSetLimits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Change {
        let listpack = match self {
            Self::Skiplist(ordered) => return ordered.change(member, decide),
            Self::Listpack(listpack) => listpack,
        };
        let found = packed::find(listpack, member);
        let Some(score) = decide(found.map(|found| found.score)) else { return Change::Unchanged };
        if let Some(found) = found {
            return packed::update(listpack, found, member, score);
        }
        let fits = listpack.len() / 2 < limits.listpack_entries
            && member.len() <= limits.listpack_value
            && listpack.safe_to_add(member.len());
        if fits {
            packed::insert(listpack, member, score);
        } else {
            let mut ordered = packed::to_ordered(listpack);
            ordered.change(member, |_| Some(score));
            *self = Self::Skiplist(Box::new(ordered));
        }
        Change::Added
    }

    /// Removes a member; whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self {
            Self::Listpack(listpack) => match packed::find(listpack, member) {
                Some(found) => {
                    listpack.remove_run(found.position, 2);
                    true
                }
                None => false,
            },
            Self::Skiplist(ordered) => ordered.remove(member),
        }
    }

    /// Removes the members with ranks in `ranks` and returns how many they were. Ranks beyond the
    /// end are ignored.
    pub fn remove_ranks(&mut self, ranks: Range<usize>) -> usize {
        match self {
            Self::Listpack(listpack) => {
                let to = ranks.end.min(listpack.len() / 2);
                let count = to.saturating_sub(ranks.start);
                if count != 0 {
                    listpack.remove_range((2 * ranks.start) as i64, 2 * count);
                }
                count
            }
            Self::Skiplist(ordered) => ordered.remove_ranks(ranks),
        }
    }

    /// The ranks of the members with scores in `range`.
    #[must_use]
    pub fn ranks_by_score(&self, range: &ScoreRange) -> Range<usize> {
        match self {
            Self::Listpack(listpack) => {
                let below = |_, score| range.starts_after(packed::score_of(score));
                let within = |_, score| !range.ends_before(packed::score_of(score));
                packed::ranks(listpack, below, within)
            }
            Self::Skiplist(ordered) => ordered.ranks_by_score(range),
        }
    }

    /// The ranks of the members in `range`, where all have the same score. Where they do not, some
    /// range.
    #[must_use]
    pub fn ranks_by_lex(&self, range: &LexRange<'_>) -> Range<usize> {
        match self {
            Self::Listpack(listpack) => {
                let below = |member, _| range.starts_after(member);
                let within = |member, _| !range.ends_before(member);
                packed::ranks(listpack, below, within)
            }
            Self::Skiplist(ordered) => ordered.ranks_by_lex(range),
        }
    }

    /// The member at a rank, and its score.
    #[must_use]
    pub fn nth(&self, rank: usize) -> Option<(Element<'_>, f64)> {
        self.range(rank..rank.saturating_add(1), Direction::Forward).next()
    }

    /// The members with ranks in `ranks` and their scores, from the lowest or from the highest.
    /// Ranks beyond the end are ignored.
    #[must_use]
    pub fn range(&self, ranks: Range<usize>, direction: Direction) -> Members<'_> {
        match self {
            Self::Listpack(listpack) => {
                Members(Walk::Packed(packed::walk(listpack, ranks, direction)))
            }
            Self::Skiplist(ordered) => Members(Walk::Ordered(ordered.walk(ranks, direction))),
        }
    }

    /// All members with their scores, from the lowest.
    #[must_use]
    pub fn iter(&self) -> Members<'_> {
        self.range(0..self.len(), Direction::Forward)
    }

    /// Visits the members with scores in `range`, from the lowest, until told to stop.
    pub fn visit_scores<'a>(
        &'a self,
        range: &ScoreRange,
        mut visit: impl FnMut(f64, Name<'a>) -> ControlFlow<()>,
    ) {
        match self {
            Self::Listpack(listpack) => {
                let members = packed::walk(listpack, 0..listpack.len() / 2, Direction::Forward);
                for (member, score) in members {
                    let score = packed::score_of(score);
                    if range.starts_after(score) {
                        continue;
                    }
                    if range.ends_before(score)
                        || visit(score, Name(Named::Element(member))).is_break()
                    {
                        return;
                    }
                }
            }
            Self::Skiplist(ordered) => {
                ordered.visit_scores(range, |score, name| visit(score, Name(Named::Ordered(name))))
            }
        }
    }

    /// Visits some members and returns where to go on; 0 at the end. A listpack is visited whole.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Element<'_>, f64)) -> u64 {
        match self {
            Self::Listpack(_) => {
                self.iter().for_each(|(member, score)| visit(member, score));
                0
            }
            Self::Skiplist(ordered) => ordered.scan(cursor, count, visit),
        }
    }

    #[must_use]
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Listpack(listpack) => Self::Listpack(listpack.clone()),
            Self::Skiplist(ordered) => Self::Skiplist(Box::new(ordered.duplicate())),
        }
    }
}

/// A member that was visited. Where a name is not at hand it is read when asked for, so that
/// visiting many members for the sake of a few costs little.
#[derive(Clone, Copy)]
pub struct Name<'a>(Named<'a>);

#[derive(Clone, Copy)]
enum Named<'a> {
    Element(Element<'a>),
    Ordered(ordered::Name<'a>),
}

impl<'a> Name<'a> {
    #[must_use]
    pub fn element(self) -> Element<'a> {
        match self.0 {
            Named::Element(element) => element,
            Named::Ordered(name) => Element::String(name.bytes()),
        }
    }

    /// Starts to load it.
    pub fn prefetch(self) {
        if let Named::Ordered(name) = self.0 {
            name.prefetch();
        }
    }
}

/// Members with their scores.
pub struct Members<'a>(Walk<'a>);

enum Walk<'a> {
    Packed(packed::Walk<'a>),
    Ordered(ordered::Walk<'a>),
}

impl<'a> Members<'a> {
    /// The members alone: scores of a listpack, which are text, are not read.
    pub fn names(self) -> impl Iterator<Item = Element<'a>> {
        let mut walk = self.0;
        std::iter::from_fn(move || match &mut walk {
            Walk::Packed(pairs) => Some(pairs.next()?.0),
            Walk::Ordered(members) => Some(members.next()?.0),
        })
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Element<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Walk::Packed(pairs) => {
                let (member, score) = pairs.next()?;
                Some((member, packed::score_of(score)))
            }
            Walk::Ordered(members) => members.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Walk::Packed(pairs) => pairs.len(),
            Walk::Ordered(members) => members.len(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Members<'_> {}

impl<'a> IntoIterator for &'a SortedSet {
    type Item = (Element<'a>, f64);
    type IntoIter = Members<'a>;

    fn into_iter(self) -> Members<'a> {
        self.iter()
    }
}

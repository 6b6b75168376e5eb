//! Ranges of scores and of members, with open and closed ends.

use std::cmp::Ordering;

use crate::listpack::Element;

/// One end of a range of scores.
#[derive(Clone, Copy, Debug)]
pub struct ScoreBound {
    /// Not NaN.
    pub score: f64,
    /// The bound itself is not in the range.
    pub exclusive: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct ScoreRange {
    pub min: ScoreBound,
    pub max: ScoreBound,
}

impl ScoreRange {
    /// Whether a score is too low.
    #[must_use]
    pub fn starts_after(&self, score: f64) -> bool {
        if self.min.exclusive { score <= self.min.score } else { score < self.min.score }
    }

    /// Whether a score is too high.
    #[must_use]
    pub fn ends_before(&self, score: f64) -> bool {
        if self.max.exclusive { self.max.score <= score } else { self.max.score < score }
    }
}

/// One end of a range of members.
#[derive(Clone, Copy, Debug)]
pub enum LexBound<'a> {
    /// Below every member.
    Lowest,
    /// Above every member.
    Highest,
    Inclusive(&'a [u8]),
    Exclusive(&'a [u8]),
}

impl LexBound<'_> {
    /// How a member stands to the bound; `at` if it is equal and the bound is exclusive.
    fn compare(self, member: Element<'_>, at: Ordering) -> Ordering {
        match self {
            Self::Lowest => Ordering::Greater,
            Self::Highest => Ordering::Less,
            Self::Inclusive(bound) => member.cmp_bytes(bound),
            Self::Exclusive(bound) => member.cmp_bytes(bound).then(at),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct LexRange<'a> {
    pub min: LexBound<'a>,
    pub max: LexBound<'a>,
}

impl LexRange<'_> {
    /// Whether a member is too low.
    #[must_use]
    pub fn starts_after(&self, member: Element<'_>) -> bool {
        self.min.compare(member, Ordering::Less).is_lt()
    }

    /// Whether a member is too high.
    #[must_use]
    pub fn ends_before(&self, member: Element<'_>) -> bool {
        self.max.compare(member, Ordering::Greater).is_gt()
    }
}

//! A small sorted set: a listpack of members, each followed by its score, in order.

use std::cmp::Ordering;
use std::ops::Range;

use super::{Change, Ordered};
use crate::double::{TEXT_BYTES_MAX, format_double};
use crate::listpack::{Direction, Element, Encoded, Iter, Listpack, Position};

/// A member that is there.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) position: Position,
    pub(super) rank: usize,
    pub(super) score: f64,
}

#[inline]
pub(super) fn find(listpack: &Listpack, member: &[u8]) -> Option<Found> {
    let (position, passed) = listpack.find_encoded(listpack.first()?, &Encoded::new(member), 1)?;
    let score = score_at(listpack, listpack.next(position)?);
    Some(Found { position, rank: passed / 2, score })
}

/// Adds a member that is not there.
pub(super) fn insert(listpack: &mut Listpack, member: &[u8], score: f64) {
    let mut text = [0; TEXT_BYTES_MAX];
    let element = element_of(score, &mut text);
    match first_after(listpack, member, score) {
        Some(position) => {
            let position = listpack.insert_before(position, member);
            listpack.insert_after(position, element);
        }
        None => listpack.push_back_pair(member, element),
    }
}

/// Gives a member another score, in place if that keeps the order.
pub(super) fn update(listpack: &mut Listpack, found: Found, member: &[u8], score: f64) -> Change {
    #[expect(clippy::float_cmp, reason = "any other score is another score")]
    if found.score == score {
        return Change::Unchanged;
    }
    let Some(place) = listpack.next(found.position) else { return Change::Unchanged };
    let mut text = [0; TEXT_BYTES_MAX];
    let before = listpack.prev(found.position).and_then(|before| listpack.prev(before));
    let after = listpack.next(place);
    let in_order = before.is_none_or(|before| stands(listpack, before, member, score).is_lt())
        && after.is_none_or(|after| stands(listpack, after, member, score).is_gt());
    if in_order {
        listpack.replace(place, element_of(score, &mut text));
    } else {
        listpack.remove_run(found.position, 2);
        insert(listpack, member, score);
    }
    Change::Updated
}

/// The first member that comes after one to be added, if any.
fn first_after(listpack: &Listpack, member: &[u8], score: f64) -> Option<Position> {
    // Many sets grow at their end only.
    let last = listpack.prev(listpack.last()?)?;
    if stands(listpack, last, member, score).is_lt() {
        return None;
    }
    let mut next = listpack.first();
    while let Some(position) = next {
        if stands(listpack, position, member, score).is_gt() {
            return Some(position);
        }
        next = listpack.next(position).and_then(|score| listpack.next(score));
    }
    None
}

/// How the member at `position` stands to another.
fn stands(listpack: &Listpack, position: Position, member: &[u8], score: f64) -> Ordering {
    let (element, next) = listpack.get_and_next(position);
    let present = next.map_or(0.0, |next| score_at(listpack, next));
    match present.partial_cmp(&score) {
        Some(Ordering::Equal) | None => element.cmp_bytes(member),
        Some(unequal) => unequal,
    }
}

/// The ranks of the members from the first that is not `below` while they are `within`.
pub(super) fn ranks<'a>(
    listpack: &'a Listpack,
    mut below: impl FnMut(Element<'a>, Element<'a>) -> bool,
    mut within: impl FnMut(Element<'a>, Element<'a>) -> bool,
) -> Range<usize> {
    let mut pairs = walk(listpack, 0..listpack.len() / 2, Direction::Forward);
    let mut rank = 0;
    while let Some((member, score)) = pairs.next() {
        if below(member, score) {
            rank += 1;
            continue;
        }
        let start = rank;
        if within(member, score) {
            rank += 1;
            rank += pairs.take_while(|&(member, score)| within(member, score)).count();
        }
        return start..rank;
    }
    rank..rank
}

pub(super) fn to_ordered(listpack: &Listpack) -> Ordered {
    let pairs = walk(listpack, 0..listpack.len() / 2, Direction::Forward);
    Ordered::from_ascending(pairs.map(|(member, score)| (member, score_of(score))))
}

/// Members with the elements that hold their scores.
pub(super) struct Walk<'a> {
    elements: Iter<'a>,
    direction: Direction,
    left: usize,
}

pub(super) fn walk(listpack: &Listpack, ranks: Range<usize>, direction: Direction) -> Walk<'_> {
    let to = ranks.end.min(listpack.len() / 2);
    let left = to.saturating_sub(ranks.start);
    let elements = match direction {
        _ if left == 0 => listpack.iter(),
        Direction::Forward if ranks.start == 0 => listpack.iter(),
        Direction::Forward => listpack.iter_from(2 * ranks.start, direction),
        Direction::Backward => listpack.iter_from(2 * to - 1, direction),
    };
    Walk { elements, direction, left }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (Element<'a>, Element<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match self.direction {
            Direction::Forward => {
                let member = self.elements.next()?;
                Some((member, self.elements.next()?))
            }
            Direction::Backward => {
                let score = self.elements.next_back()?;
                Some((self.elements.next_back()?, score))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Walk<'_> {}

/// The score an element holds.
#[inline]
pub(super) fn score_of(element: Element<'_>) -> f64 {
    match element {
        Element::Integer(integer) => integer as f64,
        Element::String(text) => parse_score(text),
    }
}

fn score_at(listpack: &Listpack, position: Position) -> f64 {
    score_of(listpack.get(position))
}

/// Text that is not a number can only come from outside (a dump); it must not become NaN.
fn parse_score(text: &[u8]) -> f64 {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    number.filter(|number| !number.is_nan()).unwrap_or(0.0)
}

/// Beyond this, integral scores are text like others.
const INTEGER_MAX: f64 = (1_i64 << 62) as f64;

/// The element that holds a score.
fn element_of(score: f64, text: &mut [u8; TEXT_BYTES_MAX]) -> Element<'_> {
    if score.abs() <= INTEGER_MAX && score.trunc() == score {
        Element::Integer(score as i64)
    } else {
        Element::String(format_double(score, text))
    }
}

/// A listpack of members in ascending order.
pub(super) fn from_ascending<'a>(members: impl Iterator<Item = (&'a [u8], f64)>) -> Listpack {
    let mut listpack = Listpack::new();
    let mut text = [0; TEXT_BYTES_MAX];
    for (member, score) in members {
        listpack.push_back_pair(member, element_of(score, &mut text));
    }
    listpack
}

//! A small hash: a listpack of pairs, or of triplets of field, value and expiry.

use smallvec::SmallVec;

use super::{Field, FieldExpiry};
use crate::listpack::{Element, Iter, Listpack, Position};
use crate::malformed::Malformed;

/// What stands in the place of an expiry where there is none.
const LASTS: i64 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Pairs,
    Triplets,
}

impl Shape {
    /// Elements to a field.
    pub(super) const fn width(self) -> usize {
        match self {
            Self::Pairs => 2,
            Self::Triplets => 3,
        }
    }
}

/// Refuses a listpack from outside that is no hash: each field once and with all that belongs to
/// it, those that expire in the order of their times.
pub(super) fn check(packed: &Listpack, shape: Shape) -> Result<(), Malformed> {
    if !packed.len().is_multiple_of(shape.width()) {
        return Err(Malformed::new("a field without its value", packed.total_bytes()));
    }
    if packed.has_repeats(shape.width()) {
        return Err(Malformed::new("a field that is there twice", packed.total_bytes()));
    }
    if shape == Shape::Pairs {
        return Ok(());
    }
    let mut last = 0;
    for (at, expiry) in packed.iter().enumerate().skip(2).step_by(shape.width()) {
        let expiry = match expiry {
            Element::Integer(expiry) if LASTS <= expiry => expiry,
            _ => return Err(Malformed::new("an expiry that is no time", at)),
        };
        let order = if expiry == LASTS { i64::MAX } else { expiry };
        if order < last {
            return Err(Malformed::new("expiries out of order", at));
        }
        last = order;
    }
    Ok(())
}

#[inline]
pub(super) fn find(packed: &Listpack, shape: Shape, field: &[u8]) -> Option<Position> {
    packed.find(packed.first()?, field, shape.width() - 1)
}

#[inline]
pub(super) fn value_of<'a>(pairs: &'a Listpack, field: &[u8]) -> Option<Element<'a>> {
    let found = find(pairs, Shape::Pairs, field)?;
    Some(pairs.get(pairs.next(found)?))
}

/// The pair that begins at `position`.
pub(super) fn pair(pairs: &Listpack, position: Position) -> Field<'_> {
    let (name, value) = pairs.get_and_next(position);
    Field { name, value: pairs.get(value.expect("a field has a value")), expiry: None }
}

/// The triplet that begins at `position`.
pub(super) fn triplet(triplets: &Listpack, position: Position) -> Field<'_> {
    let (name, value) = triplets.get_and_next(position);
    let (value, expiry) = triplets.get_and_next(value.expect("a field has a value"));
    let expiry = triplets.get(expiry.expect("a triplet has three elements"));
    Field { name, value, expiry: expiry_of(expiry) }
}

fn expiry_of(element: Element<'_>) -> Option<u64> {
    match element {
        Element::Integer(at) if at != LASTS => u64::try_from(at).ok(),
        _ => None,
    }
}

/// An expiry as it is stored. One of 0 would read as none, and is as good as one of 1.
fn stored(expiry: Option<u64>) -> i64 {
    expiry.map_or(LASTS, |at| i64::try_from(at).unwrap_or(i64::MAX).max(1))
}

pub(super) fn set_pair(pairs: &mut Listpack, field: &[u8], value: &[u8]) -> bool {
    if let Some(found) = find(pairs, Shape::Pairs, field) {
        let place = pairs.next(found).expect("a field has a value");
        pairs.replace(place, value);
        return false;
    }
    pairs.extend_back([field, value]);
    true
}

pub(super) fn set_triplet(
    triplets: &mut Listpack,
    field: &[u8],
    value: &[u8],
    expiry: FieldExpiry,
) -> bool {
    let asked = match expiry {
        FieldExpiry::At(at) => Some(at),
        FieldExpiry::Keep | FieldExpiry::Clear => None,
    };
    let found = find(triplets, Shape::Triplets, field);
    if let Some(found) = found {
        let old = triplet(triplets, found).expiry;
        if expiry == FieldExpiry::Keep || (old.is_none() && asked.is_none()) {
            let place = triplets.next(found).expect("a field has a value");
            triplets.replace(place, value);
            return false;
        }
        triplets.remove_run(found, 3);
    }
    insert(triplets, field.into(), value.into(), stored(asked));
    found.is_none()
}

pub(super) fn set_expiry(triplets: &mut Listpack, field: &[u8], expiry: Option<u64>) -> bool {
    let Some(found) = find(triplets, Shape::Triplets, field) else { return false };
    let old = triplet(triplets, found);
    if old.expiry.is_none() && expiry.is_none() {
        return true;
    }
    // The value moves with its field, and cannot be borrowed meanwhile.
    let copy: SmallVec<[u8; 64]>;
    let value = match old.value {
        Element::Integer(number) => Element::Integer(number),
        Element::String(bytes) => {
            copy = SmallVec::from_slice(bytes);
            Element::String(&copy)
        }
    };
    triplets.remove_run(found, 3);
    insert(triplets, field.into(), value, stored(expiry));
    true
}

pub(super) fn remove(packed: &mut Listpack, shape: Shape, field: &[u8]) -> bool {
    let Some(found) = find(packed, shape, field) else { return false };
    packed.remove_run(found, shape.width());
    true
}

/// Removes the triplets that have expired, which are the first ones, and returns their fields.
pub(super) fn expire(triplets: &mut Listpack, now_ms: u64) -> Vec<Vec<u8>> {
    let expired: Vec<Vec<u8>> = fields(triplets, Shape::Triplets)
        .take_while(|field| field.is_expired(now_ms))
        .map(|field| field.name.to_vec())
        .collect();
    triplets.remove_range(0, 3 * expired.len());
    expired
}

/// The pairs as triplets without expiries.
pub(super) fn with_expiries(pairs: &Listpack) -> Listpack {
    let lasts = Element::Integer(LASTS);
    let triplets = fields(pairs, Shape::Pairs).flat_map(|field| [field.name, field.value, lasts]);
    Listpack::from_elements(triplets)
}

/// Adds a triplet in its place: before those that expire no sooner.
fn insert(triplets: &mut Listpack, field: Element<'_>, value: Element<'_>, expiry: i64) {
    let place = if expiry == LASTS { None } else { first_not_before(triplets, expiry) };
    match place {
        None => triplets.extend_back([field, value, Element::Integer(expiry)]),
        Some(place) => {
            let place = triplets.insert_before(place, field);
            let place = triplets.insert_after(place, value);
            triplets.insert_after(place, expiry);
        }
    }
}

/// The first triplet that lasts or expires at `expiry` or later.
fn first_not_before(triplets: &Listpack, expiry: i64) -> Option<Position> {
    let mut entries = triplets.entries();
    while let Some((start, _)) = entries.next() {
        entries.next();
        match entries.next()?.1 {
            Element::Integer(at) if at != LASTS && at < expiry => {}
            _ => return Some(start),
        }
    }
    None
}

/// The fields of a small hash, in stored order.
pub(super) fn fields(packed: &Listpack, shape: Shape) -> PackedFields<'_> {
    PackedFields { elements: packed.iter(), shape }
}

#[derive(Clone)]
pub(super) struct PackedFields<'a> {
    elements: Iter<'a>,
    shape: Shape,
}

impl<'a> Iterator for PackedFields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        let name = self.elements.next()?;
        let value = self.elements.next()?;
        let expiry = match self.shape {
            Shape::Pairs => None,
            Shape::Triplets => expiry_of(self.elements.next()?),
        };
        Some(Field { name, value, expiry })
    }
}

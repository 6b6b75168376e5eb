//! Visiting the fields of a hash: all, some from a cursor on, or some at random.

use std::collections::HashSet;

use super::packed::{self, Shape};
use super::{Field, Hash, fields};
use crate::listpack::{Listpack, Position};
use crate::table::Cursor;

/// Picks that are made in one walk of a listpack.
const PICKS_AT_ONCE: usize = 1024;
/// A table this many times larger than what is asked of it is drawn from, not walked.
const SPARSE: usize = 3;

impl Hash {
    /// All fields, those included that have expired.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        let (small, large) = match self {
            Self::Table(fields) => (None, Some(fields.table.iter().map(fields::view))),
            Self::Listpack(pairs) => (Some(packed::fields(pairs, Shape::Pairs)), None),
            Self::ListpackEx(triplets) => (Some(packed::fields(triplets, Shape::Triplets)), None),
        };
        small.into_iter().flatten().chain(large.into_iter().flatten())
    }

    /// The fields that have not expired.
    pub fn live(&self, now_ms: u64) -> impl Iterator<Item = Field<'_>> {
        self.iter().filter(move |field| !field.is_expired(now_ms))
    }

    /// How many fields have not expired.
    #[must_use]
    pub fn live_len(&self, now_ms: u64) -> usize {
        if self.is_due(now_ms) { self.live(now_ms).count() } else { self.len() }
    }

    // A scan goes from cursor to cursor; 0 is both the first and the end, and any number from a
    // client is good. What is there from the first step to the last is visited. A small hash is
    // visited whole in one step.

    /// Visits the fields of one bucket of a large hash, those included that have expired, and returns where
    /// to go on; `Cursor(0)` at the end. Of a hash that does not change meanwhile each is visited once.
    pub fn visit_bucket(&self, cursor: Cursor, mut visit: impl FnMut(Field<'_>)) -> Cursor {
        let Self::Table(fields) = self else {
            self.iter().for_each(visit);
            return Cursor(0);
        };
        fields.table.scan(cursor, |entry| visit(fields::view(entry)))
    }

    /// Where a step of about `count` fields from `cursor` on stops.
    #[must_use]
    pub fn scan_stop(&self, cursor: u64, count: usize) -> u64 {
        let Self::Table(fields) = self else { return 0 };
        // A table's cursor counts in the highest bits; reversed, it is a small number.
        let mut cursor = Cursor(cursor.reverse_bits());
        let (mut seen, mut buckets) = (0_usize, 0_usize);
        loop {
            cursor = fields.table.scan(cursor, |_| seen += 1);
            buckets += 1;
            // A nearly empty table must not make one step walk for ever.
            if cursor == Cursor(0) || count <= seen || count <= buckets / 10 {
                return cursor.0.reverse_bits();
            }
        }
    }

    /// Visits the live fields from `cursor` to `stop`, where `scan_stop` said that the step ends.
    pub fn scan(&self, cursor: u64, stop: u64, now_ms: u64, mut visit: impl FnMut(Field<'_>)) {
        let Self::Table(fields) = self else { return self.live(now_ms).for_each(visit) };
        let mut cursor = Cursor(cursor.reverse_bits());
        loop {
            cursor = fields.table.scan(cursor, |entry| {
                let field = fields::view(entry);
                if !field.is_expired(now_ms) {
                    visit(field);
                }
            });
            if cursor == Cursor(0) || cursor.0.reverse_bits() == stop {
                return;
            }
        }
    }

    // At random. Fields that have expired are picked too, unless they are removed before.

    /// One field, each as likely as any other. `random` gives uniform numbers.
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<Field<'_>> {
        match self {
            Self::Table(fields) => fields.table.random(random).map(fields::view),
            Self::Listpack(packed) | Self::ListpackEx(packed) => {
                let index = below(self.len(), &mut random)?;
                let position = packed.seek(i64::try_from(index * self.width()).ok()?)?;
                Some(self.packed_field(packed, position))
            }
        }
    }

    /// `count` fields one after the other, of which the same may come again, until `visit` says
    /// no. None if there are no fields.
    pub fn sample(
        &self,
        count: usize,
        mut random: impl FnMut() -> u64,
        mut visit: impl FnMut(Field<'_>) -> bool,
    ) {
        let (Self::Listpack(packed) | Self::ListpackEx(packed)) = self else {
            for _ in 0..count {
                let Some(field) = self.random(&mut random) else { return };
                if !visit(field) {
                    return;
                }
            }
            return;
        };
        let mut left = count;
        while 0 < left {
            let picks = left.min(PICKS_AT_ONCE);
            left -= picks;
            // One walk finds them in ascending order; they are shown in the order of picking.
            let Some(mut order) = (0..picks)
                .map(|pick| Some((below(self.len(), &mut random)? * self.width(), pick)))
                .collect::<Option<Vec<_>>>()
            else {
                return;
            };
            order.sort_unstable();
            let indexes: Vec<usize> = order.iter().map(|&(index, _)| index).collect();
            let mut found: Vec<Option<Position>> = vec![None; picks];
            packed.pick_sorted(&indexes, |place, position| {
                found[order[place].1] = Some(position);
            });
            for position in found.into_iter().flatten() {
                if !visit(self.packed_field(packed, position)) {
                    return;
                }
            }
        }
    }

    /// `count` different fields, each choice of so many as likely as any other; all fields, if
    /// there are no more.
    pub fn distinct(
        &self,
        count: usize,
        mut random: impl FnMut() -> u64,
        mut visit: impl FnMut(Field<'_>),
    ) {
        let length = self.len();
        if let Self::Table(fields) = self
            && count < length / SPARSE
        {
            let mut seen: HashSet<usize, ahash::RandomState> = HashSet::default();
            while seen.len() < count {
                let Some(entry) = fields.table.random(&mut random) else { return };
                // Every field has a block of its own, so its address tells it from the others.
                if seen.insert(entry.key().as_ptr() as usize) {
                    visit(fields::view(entry));
                }
            }
            return;
        }
        // Takes each field with the chance that what is still wanted has among what is left.
        let mut wanted = count.min(length);
        for (index, field) in self.iter().enumerate() {
            let Some(draw) = below(length.saturating_sub(index), &mut random) else { return };
            if draw < wanted {
                visit(field);
                wanted -= 1;
            }
        }
    }

    const fn width(&self) -> usize {
        match self {
            Self::ListpackEx(_) => Shape::Triplets.width(),
            Self::Listpack(_) | Self::Table(_) => Shape::Pairs.width(),
        }
    }

    fn packed_field<'a>(&self, packed: &'a Listpack, position: Position) -> Field<'a> {
        match self {
            Self::ListpackEx(_) => packed::triplet(packed, position),
            Self::Listpack(_) | Self::Table(_) => packed::pair(packed, position),
        }
    }
}

/// A uniform number below `bound`; `None` if there is none.
fn below(bound: usize, mut random: impl FnMut() -> u64) -> Option<usize> {
    let bound = bound as u64;
    // Numbers of the last, incomplete round would favour the small remainders.
    let rounds = u64::MAX - u64::MAX.checked_rem(bound)?;
    loop {
        let number = random();
        if number < rounds {
            return Some((number % bound) as usize);
        }
    }
}

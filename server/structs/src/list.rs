//! The list type: a listpack while it is small, a quicklist beyond, under Redis's rules.
//!
//! A list grows out of its listpack before elements are added, judged by what is to be added, and
//! goes back to one after it has shrunk to half of the limit.

use crate::listpack::{Direction, Element, Encoded, Iter as ListpackIter, Listpack};
use crate::quicklist::Iter as QuicklistIter;
pub use crate::quicklist::{End, ListLimits, Positions, Quicklist, Side, StoredNode};
use crate::size::size_class;

#[derive(Clone, Debug)]
pub enum List {
    Listpack(Listpack),
    Quicklist(Box<Quicklist>),
}

impl List {
    #[must_use]
    pub fn new() -> Self {
        Self::Listpack(Listpack::new())
    }

    /// Takes a listpack that was stored, in the form that the limits ask for.
    #[must_use]
    pub fn from_listpack(listpack: Listpack, limits: ListLimits) -> Self {
        let mut list = Self::Listpack(listpack);
        list.before_growing(0, 0, limits);
        list
    }

    /// Takes a quicklist that was built from stored nodes, in the form that the limits ask for.
    #[must_use]
    pub fn from_quicklist(quicklist: Quicklist, limits: ListLimits) -> Self {
        let mut list = Self::Quicklist(Box::new(quicklist));
        list.try_listpack(limits, false);
        list
    }

    /// What OBJECT ENCODING calls it.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Listpack(_) => "listpack",
            Self::Quicklist(_) => "quicklist",
        }
    }

    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Listpack(listpack) => listpack.len(),
            Self::Quicklist(quicklist) => quicklist.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Listpack(listpack) => listpack.is_empty(),
            Self::Quicklist(quicklist) => quicklist.is_empty(),
        }
    }

    /// What it has on the heap, not counting the value itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Listpack(listpack) => listpack.heap_bytes(),
            Self::Quicklist(quicklist) => {
                size_class(size_of::<Quicklist>()) + quicklist.heap_bytes()
            }
        }
    }

    // The ends.

    /// Adds the elements one after the other at one end (LPUSH, RPUSH).
    pub fn push(&mut self, end: End, elements: &[&[u8]], limits: ListLimits) {
        let bytes = elements.iter().map(|element| element.len()).sum();
        self.before_growing(bytes, elements.len(), limits);
        match (self, end) {
            (Self::Listpack(listpack), End::Front) => {
                elements.iter().for_each(|&element| listpack.push_front(element));
            }
            (Self::Listpack(listpack), End::Back) => match elements {
                [element] => listpack.push_back(*element),
                elements => listpack.extend_back(elements.iter().copied()),
            },
            (Self::Quicklist(quicklist), end) => {
                elements.iter().for_each(|element| quicklist.push(end, element, limits));
            }
        }
    }

    /// The element at one end.
    #[must_use]
    pub fn peek(&self, end: End) -> Option<Element<'_>> {
        match (self, end) {
            (Self::Listpack(listpack), End::Front) => Some(listpack.get(listpack.first()?)),
            (Self::Listpack(listpack), End::Back) => Some(listpack.get(listpack.last()?)),
            (Self::Quicklist(quicklist), end) => quicklist.peek(end),
        }
    }

    /// Removes the element at one end after showing it to `f`.
    pub fn pop<R>(
        &mut self,
        end: End,
        limits: ListLimits,
        f: impl FnOnce(Element<'_>) -> R,
    ) -> Option<R> {
        match self {
            Self::Listpack(listpack) => {
                let position = match end {
                    End::Front => listpack.first()?,
                    End::Back => listpack.last()?,
                };
                let result = f(listpack.get(position));
                listpack.remove(position);
                Some(result)
            }
            Self::Quicklist(quicklist) => {
                let result = quicklist.pop(end, f)?;
                self.try_listpack(limits, true);
                Some(result)
            }
        }
    }

    /// Moves the element at `from` to the other end (LMOVE of a list to itself).
    pub fn rotate(&mut self, from: End, limits: ListLimits) {
        match self {
            Self::Listpack(listpack) => {
                let position = match from {
                    End::Front => listpack.first(),
                    End::Back => listpack.last(),
                };
                let Some(position) = position else { return };
                let element = listpack.get(position).to_vec();
                listpack.remove(position);
                let to = match from {
                    End::Front => End::Back,
                    End::Back => End::Front,
                };
                self.push(to, &[&element], limits);
            }
            Self::Quicklist(quicklist) => {
                quicklist.rotate(from, limits);
                self.try_listpack(limits, true);
            }
        }
    }

    // Reading.

    /// Shows `f` the element at `index`, counted from the back if negative.
    pub fn get<R>(&self, index: i64, f: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        match self {
            Self::Listpack(listpack) => Some(f(listpack.get(listpack.seek(index)?))),
            Self::Quicklist(quicklist) => quicklist.get(index, f),
        }
    }

    /// The elements from `index` on, which is counted from the front whatever the direction.
    #[must_use]
    pub fn iter_from(&self, index: usize, direction: Direction) -> Iter<'_> {
        match self {
            Self::Listpack(listpack) => {
                Iter::Listpack { elements: listpack.iter_from(index, direction), direction }
            }
            Self::Quicklist(quicklist) => Iter::Quicklist(quicklist.iter_from(index, direction)),
        }
    }

    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(0, Direction::Forward)
    }

    /// Shows `f` up to `count` elements from `start` on (LRANGE).
    pub fn for_range(&self, start: usize, count: usize, f: impl FnMut(Element<'_>)) {
        match self {
            Self::Listpack(listpack) => {
                listpack.iter_from(start, Direction::Forward).take(count).for_each(f);
            }
            Self::Quicklist(quicklist) => quicklist.for_range(start, count, f),
        }
    }

    /// Calls `f` with the index of every match that is asked for, in the order of the search.
    pub fn positions(&self, needle: &[u8], ask: Positions, f: impl FnMut(usize)) {
        match self {
            Self::Listpack(listpack) => {
                let mut filter = ask.filter(listpack.len(), f);
                let needle = Encoded::new(needle);
                let _ = listpack.scan(&needle, ask.direction(), |index, _| filter(index));
            }
            Self::Quicklist(quicklist) => quicklist.positions(needle, ask, f),
        }
    }

    // Changing.

    /// Puts `element` in the place of the one at `index`, counted from the back if negative; false
    /// if there is none.
    pub fn set(&mut self, index: i64, element: &[u8], limits: ListLimits) -> bool {
        // Before the index is looked for, as Redis does.
        self.before_growing(element.len(), 1, limits);
        match self {
            Self::Listpack(listpack) => {
                let Some(position) = listpack.seek(index) else { return false };
                listpack.replace(position, element);
                true
            }
            Self::Quicklist(quicklist) => {
                let done = quicklist.set(index, element, limits);
                if done {
                    self.try_listpack(limits, true);
                }
                done
            }
        }
    }

    /// Inserts beside the first element that equals `pivot`; false if there is none (LINSERT).
    pub fn insert_beside(
        &mut self,
        pivot: &[u8],
        side: Side,
        element: &[u8],
        limits: ListLimits,
    ) -> bool {
        // Before the pivot is looked for, as Redis does.
        self.before_growing(element.len(), 1, limits);
        match self {
            Self::Listpack(listpack) => {
                let found = listpack.first().and_then(|first| listpack.find(first, pivot, 0));
                let Some(found) = found else { return false };
                match side {
                    Side::Before => listpack.insert_before(found, element),
                    Side::After => listpack.insert_after(found, element),
                };
                true
            }
            Self::Quicklist(quicklist) => quicklist.insert_beside(pivot, side, element, limits),
        }
    }

    /// Removes elements that equal `needle`: the first `count`, the last `-count`, or all if it is
    /// 0. Returns how many (LREM).
    pub fn remove_value(&mut self, needle: &[u8], count: i64, limits: ListLimits) -> usize {
        match self {
            Self::Listpack(listpack) => listpack.remove_value(needle, count),
            Self::Quicklist(quicklist) => {
                let removed = quicklist.remove_value(needle, count);
                if 0 < removed {
                    self.try_listpack(limits, true);
                }
                removed
            }
        }
    }

    /// Removes up to `count` elements from `start` on and returns how many.
    pub fn remove_range(&mut self, start: usize, count: usize, limits: ListLimits) -> usize {
        match self {
            Self::Listpack(listpack) => match i64::try_from(start) {
                Ok(start) => listpack.remove_range(start, count),
                Err(_) => 0,
            },
            Self::Quicklist(quicklist) => {
                let removed = quicklist.remove_range(start, count);
                self.try_listpack(limits, true);
                removed
            }
        }
    }

    /// Keeps `count` elements from `start` on and returns how many it removed (LTRIM).
    pub fn trim(&mut self, start: usize, count: usize, limits: ListLimits) -> usize {
        let behind = start.saturating_add(count);
        let tail = match self {
            Self::Listpack(listpack) => match i64::try_from(behind) {
                Ok(behind) => listpack.remove_range(behind, usize::MAX),
                Err(_) => 0,
            },
            Self::Quicklist(quicklist) => quicklist.remove_range(behind, usize::MAX),
        };
        tail + self.remove_range(0, start, limits)
    }

    // Forms.

    /// Leaves the listpack if what is to be added takes it over the limit.
    fn before_growing(&mut self, bytes: usize, count: usize, limits: ListLimits) {
        if let Self::Listpack(listpack) = self
            && limits.exceeded_by(
                listpack.total_bytes().saturating_add(bytes),
                listpack.len().saturating_add(count),
            )
        {
            let listpack = std::mem::take(listpack);
            *self = Self::Quicklist(Box::new(Quicklist::from_listpack(listpack, limits)));
        }
    }

    /// Goes back to a listpack if there is one node that fits.
    fn try_listpack(&mut self, limits: ListLimits, shrinking: bool) {
        if let Self::Quicklist(quicklist) = self
            && let Some(listpack) = quicklist.only_listpack()
            && limits.fits_listpack(listpack.total_bytes(), quicklist.len(), shrinking)
            && let Some(listpack) = quicklist.take_only_listpack()
        {
            *self = Self::Listpack(listpack);
        }
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

/// The elements in one direction; each is borrowed from the iterator.
pub enum Iter<'a> {
    Listpack { elements: ListpackIter<'a>, direction: Direction },
    Quicklist(QuicklistIter<'a>),
}

impl Iter<'_> {
    #[expect(clippy::should_implement_trait, reason = "lends from itself, which Iterator cannot")]
    #[inline]
    pub fn next(&mut self) -> Option<Element<'_>> {
        match self {
            Self::Listpack { elements, direction: Direction::Forward } => elements.next(),
            Self::Listpack { elements, direction: Direction::Backward } => elements.next_back(),
            Self::Quicklist(elements) => elements.next(),
        }
    }
}

#[cfg(test)]
mod tests;

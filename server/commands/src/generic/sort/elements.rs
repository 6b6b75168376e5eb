//! The elements of a key, whatever its type, copied side by side: the way from the types to SORT.

use carnelian_keyspace::{Db, Kind, Limits, Text};
use carnelian_structs::hash::Hash;
use carnelian_structs::list::{End, List, ListLimits};
use carnelian_structs::listpack::{Direction, Element};
use carnelian_structs::set::Set;
use carnelian_structs::sorted_set::SortedSet;

use super::options::{By, Options};
use crate::error::CommandError;

/// Strings in one buffer.
#[derive(Default)]
pub(super) struct Elements {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Elements {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    pub(super) fn push(&mut self, element: &[u8]) {
        self.bytes.extend_from_slice(element);
        self.ends.push(self.bytes.len());
    }

    fn push_element(&mut self, element: &Element<'_>) {
        element.write_to(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    fn sorted(&self) -> Self {
        let mut order: Vec<&[u8]> = (0..self.len()).map(|index| self.get(index)).collect();
        order.sort_unstable();
        let mut sorted = Self::default();
        order.into_iter().for_each(|element| sorted.push(element));
        sorted
    }

    /// A list of all of them.
    pub(super) fn to_list(&self, limits: &Limits) -> List {
        let limits = ListLimits {
            fill: limits.list_max_listpack_size,
            compress: limits.list_compress_depth,
            packed_threshold: limits.list_packed_threshold,
        };
        let mut list = List::new();
        for index in 0..self.len() {
            list.push(End::Back, &[self.get(index)], limits);
        }
        list
    }
}

/// What is still to be done to elements that were loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// They are to be sorted, as the options say.
    Open,
    /// They are to be sorted as text: a set has no order to keep, and followers and scripts need
    /// the same result every time.
    Text,
    /// Nothing: they are what was asked for.
    Settled,
}

/// The elements of a list, set or sorted set; none, if the key is missing.
pub(super) fn load(
    db: &mut Db<'_>,
    key: &[u8],
    options: &Options<'_>,
) -> Result<(Elements, Order), CommandError> {
    let mut elements = Elements::default();
    let kept = matches!(options.by, By::Nothing);
    let order = match db.get(key).map(|entry| entry.value_kind()) {
        None => Order::Settled,
        Some(Kind::List) => {
            if let Some(list) = db.peek_as::<List>(key)? {
                load_list(&mut elements, &list, options);
            }
            if kept { Order::Settled } else { Order::Open }
        }
        Some(Kind::Set) => {
            if let Some(set) = db.peek_as::<Set>(key)? {
                set.iter().for_each(|member| elements.push_element(&member));
            }
            if options.alpha && matches!(options.by, By::Lookup(_)) {
                // Members with the same weight stay as they were, so that must mean something.
                elements = elements.sorted();
            }
            if kept { Order::Text } else { Order::Open }
        }
        Some(Kind::SortedSet) => {
            if let Some(mut sorted) = db.write_as::<SortedSet>(key)? {
                // As Redis does, and OBJECT ENCODING shows. To watchers it is no change.
                sorted.unpack();
                load_sorted_set(&mut elements, &sorted, options);
                sorted.unchanged();
            }
            if kept { Order::Settled } else { Order::Open }
        }
        Some(Kind::String | Kind::Hash | Kind::Stream) => return Err(CommandError::WrongType),
    };
    Ok((elements, order))
}

/// All elements; or, if their order is kept, those that are asked for in the order asked for.
fn load_list(elements: &mut Elements, list: &List, options: &Options<'_>) {
    let mut wanted = 0..list.len();
    let mut walk = list.iter();
    if matches!(options.by, By::Nothing) {
        wanted = options.range(list.len());
        if wanted.is_empty() {
            return;
        }
        walk = match options.descending {
            true => list.iter_from(list.len() - 1 - wanted.start, Direction::Backward),
            false => list.iter_from(wanted.start, Direction::Forward),
        };
    }
    for _ in wanted {
        let Some(element) = walk.next() else { return };
        elements.push_element(&element);
    }
}

/// The same; their order is that of the scores.
fn load_sorted_set(elements: &mut Elements, sorted: &SortedSet, options: &Options<'_>) {
    let len = sorted.len();
    let members = match options.by {
        By::Nothing if options.descending => {
            let wanted = options.range(len);
            sorted.range(len - wanted.end..len - wanted.start, Direction::Backward)
        }
        By::Nothing => sorted.range(options.range(len), Direction::Forward),
        By::Element | By::Lookup(_) => sorted.iter(),
    };
    members.names().for_each(|member| elements.push_element(&member));
}

/// Shows `with` the value of a hash's field; a key of another type counts as missing.
pub(super) fn field<R>(
    db: &mut Db<'_>,
    key: &[u8],
    field: &[u8],
    with: impl FnOnce(Option<&[u8]>) -> R,
) -> R {
    let due_ms = db.due_ms();
    let hash = db.read_as::<Hash>(key).ok().flatten();
    let value = hash.as_ref().and_then(|hash| hash.get(field, due_ms));
    match value {
        Some(Element::String(bytes)) => with(Some(bytes)),
        Some(Element::Integer(number)) => {
            Text::Integer(number).with_bytes(|bytes| with(Some(bytes)))
        }
        None => with(None),
    }
}

//! The set type: an intset while all members are integers, a listpack while it is small, a table
//! beyond, under Redis's rules. A set never goes back to a smaller encoding.

mod random;

use crate::entry::{Entry, NoObject};
use crate::intset::{Intset, Iter as IntsetIter};
use crate::listpack::{Element, Iter as ListpackIter, Listpack, parse_integer};
use crate::table::{Cursor, Table};
use crate::thin_enum;
use crate::value::OwnBytes;

/// When a set outgrows an encoding.
#[derive(Clone, Copy, Debug)]
pub struct SetLimits {
    /// `set-max-intset-entries`
    pub intset_entries: usize,
    /// `set-max-listpack-entries`
    pub listpack_entries: usize,
    /// `set-max-listpack-value`
    pub listpack_value: usize,
}

pub enum Set {
    Intset(Intset),
    Listpack(Listpack),
    Table(Box<Members>),
}

/// The members of a large set.
#[derive(Default)]
pub struct Members(Table<NoObject>);

impl OwnBytes for Members {
    fn own_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

#[allow(unsafe_code, reason = "the macro vouches for its own words")]
mod thin {
    use super::{Intset, Listpack, Members, Set, thin_enum};

    thin_enum!(Set {
        0 => Intset(Intset),
        1 => Listpack(Listpack),
        2 => Table(Box<Members>),
    });
}

/// The upper end of `set-max-intset-entries`, whatever it is set to.
const INTSET_ENTRIES_MAX: usize = 1 << 30;

impl Set {
    /// An empty set in the encoding that suits `first` and about `size` members.
    #[must_use]
    pub fn for_member(first: &[u8], size: usize, limits: SetLimits) -> Self {
        if size <= limits.intset_entries && parse_integer(first).is_some() {
            Self::Intset(Intset::new())
        } else if size <= limits.listpack_entries {
            Self::Listpack(Listpack::new())
        } else {
            Self::Table(Box::default())
        }
    }

    /// What OBJECT ENCODING calls it.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Intset(_) => "intset",
            Self::Listpack(_) => "listpack",
            Self::Table(_) => "hashtable",
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Intset(intset) => intset.len(),
            Self::Listpack(listpack) => listpack.len(),
            Self::Table(members) => members.0.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An empty set for many members of any kind.
    #[must_use]
    pub fn large() -> Self {
        Self::Table(Box::default())
    }

    /// Leaves a small encoding right away if `size` members are more than it may hold (SADD, before
    /// it adds them, whether they are new or not).
    pub fn expect(&mut self, size: usize, limits: SetLimits) {
        let outgrown = match self {
            Self::Intset(_) => limits.intset_entries < size,
            Self::Listpack(_) => limits.listpack_entries < size,
            Self::Table(_) => false,
        };
        if outgrown {
            self.convert_to_table();
        }
    }

    /// Becomes an intset if all members are integers and an intset may hold as many.
    pub fn try_intset(&mut self, limits: SetLimits) {
        if limits.intset_entries.min(INTSET_ENTRIES_MAX) < self.len() {
            return;
        }
        let mut intset = Intset::new();
        for member in self.iter() {
            let Some(number) = member.to_i64() else { return };
            intset.insert(number);
        }
        *self = Self::Intset(intset);
    }

    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        match self {
            Self::Intset(intset) => parse_integer(member).is_some_and(|n| intset.contains(n)),
            Self::Listpack(listpack) => {
                listpack.first().is_some_and(|first| listpack.find(first, member, 0).is_some())
            }
            Self::Table(members) => members.0.find(members.0.hash(member), member).is_some(),
        }
    }

    /// Adds a member; whether it was new.
    pub fn insert(&mut self, member: &[u8], limits: SetLimits) -> bool {
        match self {
            Self::Intset(intset) => {
                let Some(number) = parse_integer(member) else {
                    let longest = [intset.min(), intset.max()]
                        .into_iter()
                        .flatten()
                        .map(|number| Element::Integer(number).len())
                        .max()
                        .unwrap_or(0);
                    let fits = intset.len() < limits.listpack_entries
                        && member.len() <= limits.listpack_value
                        && longest <= limits.listpack_value;
                    if fits {
                        let packed = Listpack::from_elements(intset.iter().map(Element::Integer));
                        *self = Self::Listpack(packed);
                    } else {
                        self.convert_to_table();
                    }
                    return self.insert(member, limits);
                };
                if !intset.insert(number) {
                    return false;
                }
                if limits.intset_entries.min(INTSET_ENTRIES_MAX) < intset.len() {
                    self.convert_to_table();
                }
                true
            }
            Self::Listpack(listpack) => {
                if listpack.first().is_some_and(|first| listpack.find(first, member, 0).is_some()) {
                    return false;
                }
                if listpack.len() < limits.listpack_entries
                    && member.len() <= limits.listpack_value
                    && listpack.safe_to_add(member.len())
                {
                    listpack.push_back(member);
                    return true;
                }
                self.convert_to_table();
                self.insert(member, limits)
            }
            Self::Table(members) => {
                let table = &mut members.0;
                let hash = table.hash(member);
                if table.find(hash, member).is_some() {
                    return false;
                }
                table.insert(hash, Entry::inline(0, member, b"", None));
                true
            }
        }
    }

    /// Removes a member; whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self {
            Self::Intset(intset) => parse_integer(member).is_some_and(|n| intset.remove(n)),
            Self::Listpack(listpack) => {
                let found = listpack.first().and_then(|first| listpack.find(first, member, 0));
                let Some(position) = found else { return false };
                listpack.remove(position);
                true
            }
            Self::Table(members) => {
                let hash = members.0.hash(member);
                members.0.remove(hash, member).is_some()
            }
        }
    }

    /// [`Set::contains`], for a member of another set.
    #[must_use]
    pub fn contains_element(&self, member: Element<'_>) -> bool {
        match (self, member) {
            (Self::Intset(intset), Element::Integer(number)) => intset.contains(number),
            (Self::Listpack(listpack), member) => {
                listpack.first().is_some_and(|first| listpack.find(first, member, 0).is_some())
            }
            (_, member) => self.contains(member.as_bytes(&mut itoa::Buffer::new())),
        }
    }

    /// [`Set::insert`], for a member of another set.
    pub fn insert_element(&mut self, member: Element<'_>, limits: SetLimits) -> bool {
        self.insert(member.as_bytes(&mut itoa::Buffer::new()), limits)
    }

    /// [`Set::remove`], for a member of another set.
    pub fn remove_element(&mut self, member: Element<'_>) -> bool {
        self.remove(member.as_bytes(&mut itoa::Buffer::new()))
    }

    /// The members, in no order that means anything.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        match self {
            Self::Intset(intset) => Iter::Intset(intset.iter()),
            Self::Listpack(listpack) => Iter::Listpack(listpack.iter()),
            Self::Table(members) => {
                Iter::Table(Box::new(members.0.iter().map(|entry| entry.key())))
            }
        }
    }

    /// Visits some members and returns where to go on; 0 at the end. The small encodings are
    /// visited whole at once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Element<'_>)) -> u64 {
        let Self::Table(members) = self else {
            self.iter().for_each(visit);
            return 0;
        };
        let mut place = Cursor::from_client(cursor);
        let mut seen = 0;
        for _ in 0..count.saturating_mul(10) {
            place = members.0.scan(place, |entry| {
                seen += 1;
                visit(Element::String(entry.key()));
            });
            if place == Cursor(0) || count <= seen {
                break;
            }
        }
        place.to_client()
    }

    #[must_use]
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Intset(intset) => Self::Intset(intset.clone()),
            Self::Listpack(listpack) => Self::Listpack(listpack.clone()),
            Self::Table(_) => Self::Table(self.to_table()),
        }
    }

    fn to_table(&self) -> Box<Members> {
        let mut members = Box::<Members>::default();
        let table = &mut members.0;
        let mut buffer = itoa::Buffer::new();
        for element in self.iter() {
            let member = element.as_bytes(&mut buffer);
            table.insert(table.hash(member), Entry::inline(0, member, b"", None));
        }
        members
    }

    fn convert_to_table(&mut self) {
        *self = Self::Table(self.to_table());
    }
}

/// The members of a set.
pub enum Iter<'a> {
    Intset(IntsetIter<'a>),
    Listpack(ListpackIter<'a>),
    Table(Box<dyn Iterator<Item = &'a [u8]> + 'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        match self {
            Self::Intset(numbers) => numbers.next().map(Element::Integer),
            Self::Listpack(elements) => elements.next(),
            Self::Table(members) => members.next().map(Element::String),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: SetLimits =
        SetLimits { intset_entries: 8, listpack_entries: 6, listpack_value: 12 };

    fn members(set: &Set) -> BTreeSet<Vec<u8>> {
        set.iter().map(|member| member.to_vec()).collect()
    }

    #[test]
    fn the_encoding_follows_the_members() {
        let mut set = Set::for_member(b"1", 1, LIMITS);
        for number in 0..8 {
            assert!(set.insert(number.to_string().as_bytes(), LIMITS));
        }
        assert_eq!(set.encoding(), "intset");
        set.insert(b"8", LIMITS);
        assert_eq!(set.encoding(), "hashtable");

        let mut set = Set::for_member(b"1", 1, LIMITS);
        set.insert(b"1", LIMITS);
        set.insert(b"a", LIMITS);
        assert_eq!(set.encoding(), "listpack");
        assert!(set.contains(b"1"));
        set.insert(b"longer than twelve", LIMITS);
        assert_eq!(set.encoding(), "hashtable");
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn a_scan_sees_every_member() {
        let mut set = Set::for_member(b"a", 1, LIMITS);
        for number in 0..1000 {
            set.insert(format!("m{number}").as_bytes(), LIMITS);
        }
        let (mut seen, mut cursor) = (BTreeSet::new(), 0);
        loop {
            cursor = set.scan(cursor, 10, |member| {
                seen.insert(member.to_vec());
            });
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen, members(&set));
    }

    proptest! {
        #![proptest_config(crate::test_config())]
        #[test]
        fn a_set_agrees_with_a_model(ops in prop::collection::vec((any::<bool>(), 0_i64..40, any::<bool>()), 0..120)) {
            let mut set = Set::for_member(b"1", 1, LIMITS);
            let mut model = BTreeSet::new();
            for (add, number, word) in ops {
                let member = if word && 20 < number { format!("w{number}") } else { number.to_string() };
                let member = member.into_bytes();
                if add {
                    prop_assert_eq!(set.insert(&member, LIMITS), model.insert(member));
                } else {
                    prop_assert_eq!(set.remove(&member), model.remove(&member));
                }
            }
            prop_assert_eq!(members(&set), model.clone());
            prop_assert_eq!(members(&set.duplicate()), model.clone());
            for member in &model {
                prop_assert!(set.contains(member));
            }
        }
    }
}

//! A stream: entries in the order of their IDs, and the groups of consumers that read them.

mod block;
mod entries;
mod error;
mod group;
mod id;
mod pages;
mod progress;
mod range;

use std::ops::{Deref, DerefMut};

pub use block::{Entry, Fields, Piece};
pub use entries::{BlockLimits, Entries, Keep, Precision};
pub use error::{AppendError, SetIdError};
pub use group::{Consumer, ConsumerId, Group, Pending};
pub use id::{IdError, NewId, StreamId};
pub use range::{Backward, Forward};

use crate::size::size_class;
use pages::Pages;

/// A stream, which can be used as its [`Entries`]. Most have no group: they pay a word for them.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    entries: Entries,
    groups: Option<Box<Groups>>,
}

#[derive(Debug, Default)]
struct Groups {
    /// In the order of their names.
    all: Pages<Box<Group>>,
    /// Of the groups themselves and all they hold.
    bytes: usize,
}

impl Clone for Groups {
    fn clone(&self) -> Self {
        let all = self.all.clone();
        let bytes = all.iter().map(|group| group_bytes(group)).sum();
        Self { all, bytes }
    }
}

impl Deref for Stream {
    type Target = Entries;

    fn deref(&self) -> &Entries {
        &self.entries
    }
}

impl DerefMut for Stream {
    fn deref_mut(&mut self) -> &mut Entries {
        &mut self.entries
    }
}

impl Stream {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of everything the stream points to, as the allocator counts them.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let groups = self.groups.as_ref().map_or(0, |groups| {
            size_class(size_of::<Groups>()) + groups.all.heap_bytes() + groups.bytes
        });
        self.entries.heap_bytes() + groups
    }

    #[must_use]
    pub fn groups_len(&self) -> usize {
        self.groups.as_ref().map_or(0, |groups| groups.all.len())
    }

    /// In the order of their names.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().flat_map(|groups| groups.all.iter().map(|group| &**group))
    }

    #[must_use]
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        let groups = self.groups.as_ref()?;
        let spot = groups.all.find(|group| group.name().cmp(name)).ok()?;
        Some(groups.all.at(spot))
    }

    /// A group for changing, and beside it the entries.
    pub fn group_mut(&mut self, name: &[u8]) -> Option<(&Entries, GroupMut<'_>)> {
        let Groups { all, bytes } = &mut **self.groups.as_mut()?;
        let spot = all.find(|group| group.name().cmp(name)).ok()?;
        Some((&self.entries, GroupMut::new(all.at_mut(spot), bytes)))
    }

    /// A new group; `None` if there is one of this name.
    pub fn add_group(
        &mut self,
        name: &[u8],
        last_id: StreamId,
        entries_read: Option<u64>,
    ) -> Option<GroupMut<'_>> {
        let Groups { all, bytes } = &mut **self.groups.get_or_insert_default();
        let spot = all.find(|group| group.name().cmp(name)).err()?;
        let group = Box::new(Group::new(name, last_id, entries_read));
        *bytes += group_bytes(&group);
        all.insert(spot, group);
        let spot = all.find(|group| group.name().cmp(name)).ok()?;
        Some(GroupMut::new(all.at_mut(spot), bytes))
    }

    /// Removes a group with all it holds. Whether it was there.
    pub fn remove_group(&mut self, name: &[u8]) -> bool {
        let Some(Groups { all, bytes }) = self.groups.as_deref_mut() else { return false };
        let Ok(spot) = all.find(|group| group.name().cmp(name)) else { return false };
        *bytes -= group_bytes(&all.remove(spot));
        if all.len() == 0 {
            self.groups = None;
        }
        true
    }
}

fn group_bytes(group: &Group) -> usize {
    size_class(size_of::<Group>()) + group.heap_bytes()
}

/// A group that may be changed; the stream accounts for the change when this is dropped.
#[derive(Debug)]
pub struct GroupMut<'s> {
    group: &'s mut Group,
    bytes: &'s mut usize,
    before: usize,
}

impl<'s> GroupMut<'s> {
    fn new(group: &'s mut Group, bytes: &'s mut usize) -> Self {
        let before = group.heap_bytes();
        Self { group, bytes, before }
    }
}

impl Deref for GroupMut<'_> {
    type Target = Group;

    fn deref(&self) -> &Group {
        self.group
    }
}

impl DerefMut for GroupMut<'_> {
    fn deref_mut(&mut self) -> &mut Group {
        self.group
    }
}

impl Drop for GroupMut<'_> {
    fn drop(&mut self) {
        *self.bytes = *self.bytes - self.before + self.group.heap_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &Stream) {
        let bytes: usize = stream.groups().map(group_bytes).sum();
        assert_eq!(stream.groups.as_ref().map_or(0, |groups| groups.bytes), bytes);
        assert!(stream.groups().is_sorted_by(|a, b| a.name() < b.name()));
    }

    #[test]
    fn what_groups_hold_is_accounted() {
        let mut stream = Stream::new();
        for name in ["b", "a", "c"] {
            assert!(stream.add_group(name.as_bytes(), StreamId::MIN, None).is_some());
            assert!(stream.add_group(name.as_bytes(), StreamId::MIN, None).is_none());
        }
        check(&stream);
        let empty = stream.heap_bytes();
        let (_, mut group) = stream.group_mut(b"a").unwrap();
        let consumer = group.add_consumer(b"reader", 1).unwrap();
        for ms in 1..=100 {
            let id = StreamId::new(ms, 0);
            group.set_pending(Pending { id, delivered_ms: 1, deliveries: 1, consumer });
        }
        drop(group);
        check(&stream);
        assert!(empty + 5600 <= stream.heap_bytes());
        let mut copy = stream.clone();
        check(&copy);
        let (_, mut group) = copy.group_mut(b"a").unwrap();
        assert_eq!(group.remove_consumer(b"reader"), Some(100));
        drop(group);
        check(&copy);
        for name in ["a", "b", "c"] {
            assert!(stream.remove_group(name.as_bytes()));
            assert!(!stream.remove_group(name.as_bytes()));
            check(&stream);
        }
        assert_eq!(stream.heap_bytes(), 0);
    }
}

//! How far a reader has come: counts that hold only where no entry was deleted in between.

use super::entries::Entries;
use super::{Group, StreamId};

impl Entries {
    /// Whether all entries that were ever added at or after `start` are there, which cannot be said
    /// of a time before the first one.
    pub(super) fn is_whole_from(&self, start: StreamId) -> bool {
        let deleted = self.max_deleted_id();
        self.first_id() <= start && (self.is_empty() || deleted == StreamId::MIN || deleted < start)
    }

    /// How many entries were ever added up to `id`, itself included, if that can be told.
    #[must_use]
    pub fn count_up_to(&self, id: StreamId) -> Option<u64> {
        let (added, deleted) = (self.entries_added(), self.max_deleted_id());
        if added == 0 {
            return Some(0);
        }
        if self.is_empty() && id <= self.last_id() {
            return Some(added);
        }
        if id != StreamId::MIN && id < deleted {
            return None;
        }
        if self.last_id() <= id {
            return (id == self.last_id()).then_some(added);
        }
        if deleted == StreamId::MIN || deleted < self.first_id() {
            let before = added.wrapping_sub(self.len());
            if id < self.first_id() {
                return Some(before);
            }
            if id == self.first_id() {
                return Some(before.wrapping_add(1));
            }
        }
        None
    }

    /// How many entries a group has yet to read, if that can be told.
    #[must_use]
    pub fn lag(&self, group: &Group) -> Option<u64> {
        let added = self.entries_added();
        if added == 0 || self.is_empty() {
            return Some(0);
        }
        if group.last_id < self.first_id() && self.max_deleted_id() < self.first_id() {
            return Some(self.len());
        }
        let read = match group.entries_read {
            Some(read) if self.is_whole_from(group.last_id) => read,
            _ => self.count_up_to(group.last_id)?,
        };
        Some(added.wrapping_sub(read))
    }

    /// How many nodes a radix tree of the blocks would have in Redis, which shows that number.
    #[must_use]
    pub fn radix_tree_nodes(&self) -> usize {
        const KEY_BYTES: usize = 16;
        // A branch at depth 0 has no node above; a key that leaves a branch has a leaf, and a node
        // of what comes between unless that is nothing.
        let mut nodes = 1;
        let mut previous = None;
        // The depths of the branches above the last key.
        let mut branches: Vec<usize> = Vec::new();
        for block in self.pages.iter().flatten() {
            let key = u128::from(block.first.ms) << 64 | u128::from(block.first.seq);
            let Some(before) = previous.replace(key) else {
                nodes += 1;
                continue;
            };
            let depth = (before ^ key).leading_zeros() as usize / 8;
            let mut above_last = KEY_BYTES;
            while let Some(&deepest) = branches.last()
                && depth < deepest
            {
                above_last = deepest;
                branches.pop();
            }
            if branches.last() != Some(&depth) {
                // The edge that led to `above_last` is cut in two by a branch: of its node there
                // remains one in front of the branch, if there is room, and one after.
                let start = branches.last().map_or(0, |&above| above + 1);
                nodes -= usize::from(start < above_last);
                nodes += usize::from(start < depth) + 1 + usize::from(depth + 1 < above_last);
                branches.push(depth);
            }
            nodes += 1 + usize::from(depth + 1 < KEY_BYTES);
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{BlockLimits, NewId};

    #[test]
    fn nodes_are_counted_as_a_radix_tree_has_them() {
        let limits = BlockLimits { bytes: 0, entries: 1 };
        let nodes = |ids: &[(u64, u64)]| {
            let mut entries = Entries::default();
            for &(ms, seq) in ids {
                let id = NewId::Exact(StreamId::new(ms, seq));
                entries.append(id, 0, &[b"a", b"b"], limits).unwrap();
            }
            entries.radix_tree_nodes()
        };
        assert_eq!(nodes(&[]), 1);
        assert_eq!(nodes(&[(1, 1)]), 2);
        // A prefix, a branch, two leaves.
        assert_eq!(nodes(&[(1, 1), (1, 2)]), 4);
        assert_eq!(nodes(&[(1, 1), (1, 2), (1, 3)]), 5);
        // A prefix of 7 bytes, a branch, and for each key what remains and a leaf.
        assert_eq!(nodes(&[(1, 1), (2, 1)]), 6);
        // No prefix at all.
        assert_eq!(nodes(&[(1, 1), (u64::MAX, 1)]), 5);
        // The branch of the last byte right under another.
        assert_eq!(nodes(&[(1, 1), (1, 2), (1, 256)]), 7);
    }
}

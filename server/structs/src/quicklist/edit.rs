//! Changing a quicklist in its middle: nodes are split and merged as Redis does it, so that the same
//! commands lead to the same nodes.

use super::node::Node;
use super::{ListLimits, Place, Quicklist, Side, new_node};
use crate::listpack::{Direction, EMPTY_BYTES, Encoded, Listpack, from_either_end};

impl Quicklist {
    /// Inserts beside the element at `index`; false if there is none.
    pub fn insert(&mut self, index: usize, side: Side, element: &[u8], limits: ListLimits) -> bool {
        if self.len <= index {
            return false;
        }
        self.insert_at(self.place(index), side, element, limits);
        true
    }

    /// Inserts beside the first element that equals `pivot`; false if there is none.
    pub fn insert_beside(
        &mut self,
        pivot: &[u8],
        side: Side,
        element: &[u8],
        limits: ListLimits,
    ) -> bool {
        let Some(place) = self.find(pivot) else { return false };
        self.insert_at(place, side, element, limits);
        true
    }

    fn insert_at(&mut self, place: Place, side: Side, element: &[u8], limits: ListLimits) {
        let limits = self.own(limits);
        let Place { node, offset } = place;
        let before = match side {
            Side::Before => offset,
            Side::After => offset + 1,
        };
        if self.allows(node, element.len(), limits) {
            self.change_packed(node, |listpack, count| {
                insert_into(listpack, before, element);
                *count += 1;
            });
            return;
        }

        let at_edge = match side {
            Side::Before => offset == 0,
            Side::After => before == self.nodes[node].count(),
        };
        if at_edge {
            // The neighbour takes it, or a new node between the two.
            let (neighbour, between) = match side {
                Side::Before => (node.checked_sub(1), node),
                Side::After => (Some(node + 1).filter(|&next| next < self.nodes.len()), node + 1),
            };
            match neighbour {
                Some(neighbour) if self.allows(neighbour, element.len(), limits) => {
                    self.change_packed(neighbour, |listpack, count| {
                        match side {
                            Side::Before => listpack.push_back(element),
                            Side::After => listpack.push_front(element),
                        }
                        *count += 1;
                    });
                }
                _ => {
                    self.insert_node(between, new_node(element, limits));
                    self.settle(node);
                    self.settle(between);
                }
            }
            return;
        }

        // In the middle of a full node: only listpacks have one.
        self.split(node, before);
        if limits.is_large(element.len()) {
            self.insert_node(node + 1, Node::plain(element));
            self.settle_range(node, node + 2);
            return;
        }
        let (half, kept) = match side {
            Side::Before => (node, node + 1),
            Side::After => (node + 1, node),
        };
        self.change_packed(half, |listpack, count| {
            match side {
                Side::Before => listpack.push_back(element),
                Side::After => listpack.push_front(element),
            }
            *count += 1;
        });
        self.merge_around(kept, limits);
    }

    /// Puts `element` in the place of the one at `index`, counted from the back if negative; false
    /// if there is none.
    pub fn set(&mut self, index: i64, element: &[u8], limits: ListLimits) -> bool {
        let Some(index) = from_either_end(index, self.len) else { return false };
        let limits = self.own(limits);
        let Place { node, offset } = self.place(index);
        let is_large = limits.is_large(element.len());

        match (self.nodes[node].is_plain(), is_large) {
            (false, false) if self.nodes[node].raw_bytes() + element.len() < 1 << 30 => {
                self.change_packed(node, |listpack, _| {
                    let position = listpack.seek(offset as i64).expect("a place in this node");
                    listpack.replace(position, element);
                });
            }
            (true, true) => self.change(node, |node| *node = Node::plain(element)),
            (true, false) => {
                self.insert_at(Place { node, offset }, Side::After, element, limits);
                self.remove_nodes(node, 1);
            }
            (false, _) => {
                let last = self.nodes[node].count() - 1;
                if offset < last {
                    self.split(node, offset + 1);
                }
                self.insert_node(node + 1, new_node(element, limits));
                if offset == 0 {
                    self.remove_nodes(node, 1);
                    self.settle_range(node, node + 1);
                } else {
                    self.change_packed(node, |listpack, count| {
                        listpack.remove_range(-1, 1);
                        *count -= 1;
                    });
                    self.merge_around(node + 1, limits);
                }
            }
        }
        true
    }

    /// Removes up to `count` elements from `start` on and returns how many.
    pub fn remove_range(&mut self, start: usize, count: usize) -> usize {
        if self.len <= start {
            return 0;
        }
        let removed = count.min(self.len - start);
        let Place { mut node, mut offset } = self.place(start);
        let mut left = removed;
        while 0 < left {
            let whole = self.nodes.iter().skip(node).scan(left, |left, node| {
                *left = left.checked_sub(node.count())?;
                Some(node.count())
            });
            let (nodes, elements) = match offset {
                0 => whole.fold((0, 0), |(nodes, elements), count| (nodes + 1, elements + count)),
                _ => (0, 0),
            };
            if 0 < nodes {
                self.remove_nodes(node, nodes);
                left -= elements;
                continue;
            }
            let here = left.min(self.nodes[node].count() - offset);
            self.change_packed(node, |listpack, count| {
                listpack.remove_range(offset as i64, here);
                *count -= here as u32;
            });
            left -= here;
            offset = 0;
            node += 1;
        }
        removed
    }

    /// Removes elements that equal `needle`: the first `count`, the last `-count`, or all if it is
    /// 0. Returns how many.
    pub fn remove_value(&mut self, needle: &[u8], count: i64) -> usize {
        let direction = if count < 0 { Direction::Backward } else { Direction::Forward };
        let wanted = match usize::try_from(count.unsigned_abs()) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(wanted) => wanted,
        };
        let encoded = Encoded::new(needle);
        let mut removed = 0;
        let mut emptied = Vec::new();
        let mut positions = Vec::new();
        for step in 0..self.nodes.len() {
            if removed == wanted {
                break;
            }
            let node = match direction {
                Direction::Forward => step,
                Direction::Backward => self.nodes.len() - 1 - step,
            };
            let matched = match self.nodes[node].view().content() {
                Ok(listpack) => {
                    listpack.matching(&encoded, direction, wanted - removed, &mut positions);
                    positions.len()
                }
                Err(element) => usize::from(element == needle),
            };
            if matched == self.nodes[node].count() {
                emptied.push(node);
            } else if 0 < matched {
                self.change_packed(node, |listpack, count| {
                    listpack.remove_many(&positions);
                    *count -= matched as u32;
                });
            }
            removed += matched;
        }
        self.remove_scattered(emptied);
        removed
    }

    /// Removes these nodes, given in either order.
    fn remove_scattered(&mut self, mut emptied: Vec<usize>) {
        if let [node] = emptied[..] {
            self.remove_nodes(node, 1);
        } else if !emptied.is_empty() {
            emptied.sort_unstable();
            let mut emptied = emptied.into_iter().peekable();
            let mut index = 0;
            self.nodes.retain(|node| {
                let keep = emptied.next_if_eq(&index).is_none();
                index += 1;
                if !keep {
                    self.len -= node.count();
                    self.node_bytes -= node.heap_bytes();
                }
                keep
            });
            self.remove_nodes(0, 0);
        }
    }

    /// Whether a node takes one more element of `added` bytes.
    fn allows(&self, node: usize, added: usize, limits: ListLimits) -> bool {
        let node = &self.nodes[node];
        !node.is_plain() && limits.allows(node.raw_bytes(), node.count(), added)
    }

    /// Moves the elements of a listpack node from `offset` on into a node behind it. Both are left
    /// as they are, uncompressed, for the caller to change and settle.
    fn split(&mut self, node: usize, offset: usize) {
        self.set_compressed(node, false);
        let rest = self.change_packed(node, |listpack, count| {
            let rest = listpack.split_off(offset);
            let moved = *count - offset as u32;
            *count = offset as u32;
            Node::Packed { listpack: rest, count: moved }
        });
        self.insert_node(node + 1, rest);
    }

    /// Merges what fits together around a node that has just been split or inserted.
    fn merge_around(&mut self, center: usize, limits: ListLimits) {
        let mut center = center;
        if 2 <= center && self.merge(center - 2, limits) {
            center -= 1;
        }
        self.merge(center + 1, limits);
        if 1 <= center && self.merge(center - 1, limits) {
            center -= 1;
        }
        self.merge(center, limits);
        self.settle_range(center.saturating_sub(2), center + 2);
    }

    /// Merges a node with the one behind it if they fit into one.
    fn merge(&mut self, node: usize, limits: ListLimits) -> bool {
        let (Some(a), Some(b)) = (self.nodes.get(node), self.nodes.get(node + 1)) else {
            return false;
        };
        let bytes = a.raw_bytes() + b.raw_bytes() - EMPTY_BYTES.min(b.raw_bytes());
        if a.is_plain() || b.is_plain() || limits.exceeded_by(bytes, a.count() + b.count()) {
            return false;
        }
        self.set_compressed(node, false);
        self.set_compressed(node + 1, false);
        let Some(Node::Packed { listpack: behind, count: moved }) = self.nodes.remove(node + 1)
        else {
            unreachable!("just looked at and decompressed");
        };
        self.len -= moved as usize;
        self.node_bytes -= behind.heap_bytes();
        self.change_packed(node, |listpack, count| {
            *listpack = std::mem::take(listpack).merge(behind);
            *count += moved;
        });
        true
    }

    /// Settles the nodes from `first` to `last`, as far as they exist.
    fn settle_range(&mut self, first: usize, last: usize) {
        if self.compress != 0 {
            for node in first..=last {
                self.settle(node);
            }
        }
    }
}

/// Inserts before the element at `index`, or at the end.
fn insert_into(listpack: &mut Listpack, index: usize, element: &[u8]) {
    match listpack.seek(index as i64) {
        Some(position) => {
            listpack.insert_before(position, element);
        }
        None => listpack.push_back(element),
    }
}

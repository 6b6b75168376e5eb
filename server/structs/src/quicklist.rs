//! Redis's quicklist: a large list as a sequence of listpacks.
//!
//! Nodes are filled up to `fill`; an element too large for a node is one by itself. With a compress
//! depth, nodes further from both ends than that are kept compressed, where it helps. Nodes lie in a
//! ring buffer of 24 bytes each, not in a linked list: the ends cost the same, an index is found
//! by walking over adjacent memory, and there are no links to pay for.
//!
//! Invariants: no node is empty; `len` is the sum of the nodes' counts and `node_bytes` of what they
//! have on the heap; the `compress` nodes at each end are not compressed, and none is if it is 0.

mod edit;
mod iter;
mod limits;
mod node;

use std::collections::VecDeque;

pub use iter::{Iter, Positions};
pub use limits::ListLimits;
use node::Node;
pub use node::StoredNode;

use crate::listpack::{Direction, Element, Listpack, from_either_end};
use crate::size::size_class;

#[derive(Clone, Debug)]
pub struct Quicklist {
    nodes: VecDeque<Node>,
    len: usize,
    node_bytes: usize,
    fill: i16,
    compress: u16,
}

/// One of the two ends of a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Front,
    Back,
}

/// One of the two sides of an element.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Before,
    After,
}

/// Where an element is: its node, and its index there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    node: usize,
    offset: usize,
}

impl Quicklist {
    /// An empty list. As in Redis, `fill` and `compress` stay what they are now; calls that take
    /// `limits` look at its threshold only.
    #[must_use]
    pub fn new(limits: ListLimits) -> Self {
        Self {
            nodes: VecDeque::new(),
            len: 0,
            node_bytes: 0,
            fill: limits.fill.clamp(-5, i16::MAX.into()) as i16,
            compress: limits.compress,
        }
    }

    #[must_use]
    pub fn from_listpack(listpack: Listpack, limits: ListLimits) -> Self {
        let mut list = Self::new(limits);
        list.append_listpack(listpack);
        list
    }

    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it has on the heap, not counting the value itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.node_bytes + size_class(self.nodes.capacity() * size_of::<Node>())
    }

    /// The nodes as they are stored, for DUMP, RDB and DEBUG.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = StoredNode<'_>> {
        self.nodes.iter().map(Node::stored)
    }

    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The bytes of all nodes before compression.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.nodes.iter().map(Node::raw_bytes).sum()
    }

    /// Appends a whole node that was stored before. An empty listpack is left out.
    pub fn append_listpack(&mut self, listpack: Listpack) {
        if !listpack.is_empty() {
            self.push_node(End::Back, Node::packed(listpack));
        }
    }

    /// Appends a whole node of one element, whatever its size.
    pub fn append_plain(&mut self, element: &[u8]) {
        self.push_node(End::Back, Node::plain(element));
    }

    /// Its only node, if that is a listpack.
    #[must_use]
    pub fn only_listpack(&self) -> Option<&Listpack> {
        match self.nodes.front() {
            Some(Node::Packed { listpack, .. }) if self.nodes.len() == 1 => Some(listpack),
            _ => None,
        }
    }

    /// Takes `only_listpack` out; the list is empty after it.
    pub fn take_only_listpack(&mut self) -> Option<Listpack> {
        self.only_listpack()?;
        let Some(Node::Packed { listpack, .. }) = self.nodes.pop_front() else { return None };
        self.len = 0;
        self.node_bytes = 0;
        Some(listpack)
    }

    // The ends.

    #[inline]
    pub fn push(&mut self, end: End, element: &[u8], limits: ListLimits) {
        let limits = self.own(limits);
        let node = match end {
            End::Front => self.nodes.front_mut(),
            End::Back => self.nodes.back_mut(),
        };
        if let Some(Node::Packed { listpack, count }) = node
            && limits.allows(listpack.total_bytes(), *count as usize, element.len())
        {
            let before = listpack.heap_bytes();
            match end {
                End::Front => listpack.push_front(element),
                End::Back => listpack.push_back(element),
            }
            *count += 1;
            self.len += 1;
            self.node_bytes = self.node_bytes - before + listpack.heap_bytes();
            return;
        }
        self.push_node(end, new_node(element, limits));
    }

    /// The element at one end.
    #[must_use]
    pub fn peek(&self, end: End) -> Option<Element<'_>> {
        let node = match end {
            End::Front => self.nodes.front(),
            End::Back => self.nodes.back(),
        };
        match node? {
            Node::Packed { listpack, .. } => Some(match end {
                End::Front => listpack.get(listpack.first()?),
                End::Back => listpack.get(listpack.last()?),
            }),
            Node::Plain(element) => Some(Element::String(element)),
            Node::PackedLzf(_) | Node::PlainLzf(_) => unreachable!("the ends are not compressed"),
        }
    }

    /// Removes the element at one end after showing it to `f`.
    pub fn pop<R>(&mut self, end: End, f: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        let result = f(self.peek(end)?);
        let node = match end {
            End::Front => self.nodes.front_mut(),
            End::Back => self.nodes.back_mut(),
        };
        if let Some(Node::Packed { listpack, count }) = node
            && *count > 1
        {
            let before = listpack.heap_bytes();
            let position = match end {
                End::Front => listpack.first(),
                End::Back => listpack.last(),
            };
            listpack.remove(position.expect("more than one element"));
            *count -= 1;
            self.len -= 1;
            self.node_bytes = self.node_bytes - before + listpack.heap_bytes();
        } else {
            let node = match end {
                End::Front => 0,
                End::Back => self.nodes.len() - 1,
            };
            self.remove_nodes(node, 1);
        }
        Some(result)
    }

    /// Moves the element at `from` to the other end.
    pub fn rotate(&mut self, from: End, limits: ListLimits) {
        if self.len < 2 {
            return;
        }
        let to = match from {
            End::Front => End::Back,
            End::Back => End::Front,
        };
        if let Some(element) = self.pop(from, |element| element.to_vec()) {
            self.push(to, &element, limits);
        }
    }

    // Reading.

    /// Shows `f` the element at `index`, counted from the back if negative.
    pub fn get<R>(&self, index: i64, f: impl FnOnce(Element<'_>) -> R) -> Option<R> {
        let place = self.place(from_either_end(index, self.len)?);
        let view = self.nodes[place.node].view();
        match view.content() {
            Ok(listpack) => Some(f(listpack.get(listpack.seek(place.offset as i64)?))),
            Err(element) => Some(f(Element::String(element))),
        }
    }

    /// The elements from `index` on, which is counted from the front whatever the direction.
    #[must_use]
    pub fn iter_from(&self, index: usize, direction: Direction) -> Iter<'_> {
        let place = (index < self.len).then(|| self.place(index));
        Iter::new(&self.nodes, place, direction)
    }

    /// Shows `f` up to `count` elements from `start` on.
    pub fn for_range(&self, start: usize, count: usize, mut f: impl FnMut(Element<'_>)) {
        if self.len <= start {
            return;
        }
        let Place { node, mut offset } = self.place(start);
        let mut left = count;
        for node in self.nodes.range(node..) {
            if left == 0 {
                return;
            }
            match node.view().content() {
                Ok(listpack) => {
                    listpack.iter_from(offset, Direction::Forward).take(left).for_each(&mut f);
                }
                Err(element) => f(Element::String(element)),
            }
            left = left.saturating_sub(node.count() - offset);
            offset = 0;
        }
    }

    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(0, Direction::Forward)
    }

    /// Where the element at `index`, which is below `len`, is: walks from the nearer end.
    fn place(&self, index: usize) -> Place {
        if index <= self.len / 2 {
            let mut offset = index;
            for (node, count) in self.nodes.iter().map(Node::count).enumerate() {
                if offset < count {
                    return Place { node, offset };
                }
                offset -= count;
            }
        } else {
            let mut behind = self.len - index;
            for (node, count) in self.nodes.iter().map(Node::count).enumerate().rev() {
                if behind <= count {
                    return Place { node, offset: count - behind };
                }
                behind -= count;
            }
        }
        unreachable!("`len` is the sum of the counts")
    }

    // Nodes.

    fn own(&self, limits: ListLimits) -> ListLimits {
        ListLimits { fill: self.fill.into(), compress: self.compress, ..limits }
    }

    fn push_node(&mut self, end: End, node: Node) {
        let index = match end {
            End::Front => 0,
            End::Back => self.nodes.len(),
        };
        self.insert_node(index, node);
        self.settle(index);
    }

    /// Puts a node in; the caller settles compression.
    fn insert_node(&mut self, index: usize, node: Node) {
        self.len += node.count();
        self.node_bytes += node.heap_bytes();
        if self.nodes.capacity() < 4 {
            // Many lists have two or three nodes; doubling would begin at four.
            self.nodes.reserve_exact(1);
        }
        self.nodes.insert(index, node);
    }

    fn remove_nodes(&mut self, first: usize, count: usize) {
        for node in self.nodes.drain(first..first + count) {
            self.len -= node.count();
            self.node_bytes -= node.heap_bytes();
        }
        let (used, capacity) = (self.nodes.len(), self.nodes.capacity());
        if 64 < capacity && used < capacity / 4 {
            self.nodes.shrink_to(2 * used);
        }
        self.settle(0);
    }

    /// Changes a node, keeping `len` and `node_bytes` true. Inner nodes are compressed again.
    fn change<R>(&mut self, index: usize, f: impl FnOnce(&mut Node) -> R) -> R {
        let node = &mut self.nodes[index];
        let (count, bytes) = (node.count(), node.heap_bytes());
        let was_compressed = node.is_compressed();
        node.decompress();
        let result = f(node);
        if was_compressed {
            node.compress();
        }
        self.len = self.len - count + node.count();
        self.node_bytes = self.node_bytes - bytes + node.heap_bytes();
        result
    }

    /// Changes the listpack of a node that is one.
    fn change_packed<R>(
        &mut self,
        index: usize,
        f: impl FnOnce(&mut Listpack, &mut u32) -> R,
    ) -> R {
        self.change(index, |node| match node {
            Node::Packed { listpack, count } => f(listpack, count),
            _ => unreachable!("the caller has looked: not a plain node"),
        })
    }

    /// Brings compression in order after nodes came, went or changed at `touched` (or anywhere, at
    /// the ends): opens what has come near an end, compresses `touched` and what has left the ends.
    fn settle(&mut self, touched: usize) {
        let depth = usize::from(self.compress);
        if depth == 0 {
            return;
        }
        let count = self.nodes.len();
        for near in 0..depth.min(count) {
            self.set_compressed(near, false);
            self.set_compressed(count - 1 - near, false);
        }
        let inner = depth..count.saturating_sub(depth);
        for index in [touched, depth, count.saturating_sub(depth + 1)] {
            if inner.contains(&index) {
                self.set_compressed(index, true);
            }
        }
    }

    fn set_compressed(&mut self, index: usize, compressed: bool) {
        let node = &mut self.nodes[index];
        if node.is_compressed() != compressed {
            let bytes = node.heap_bytes();
            if compressed {
                node.compress();
            } else {
                node.decompress();
            }
            self.node_bytes = self.node_bytes - bytes + node.heap_bytes();
        }
    }
}

fn new_node(element: &[u8], limits: ListLimits) -> Node {
    if limits.is_large(element.len()) {
        return Node::plain(element);
    }
    Node::Packed { listpack: Listpack::of(element), count: 1 }
}

#[cfg(test)]
pub(crate) mod tests;

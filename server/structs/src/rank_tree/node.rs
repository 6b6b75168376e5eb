//! The nodes of a rank tree, and how elements move among them.

use std::ops::Range;

use crate::size::size_class;

/// Elements in a leaf: with 8-byte items and the length, one allocation of 1024 bytes.
pub(super) const LEAF_MAX: usize = 63;
/// Children of an inner node; one more is there for a moment, before the node is split.
pub(super) const CHILDREN_MAX: usize = 63;
/// Leaves that exchange elements: one and both of its neighbours.
const WINDOW: usize = 3;
/// Room in a window that is worth moving elements for, rather than adding a leaf.
const ROOM_MIN: usize = 15;
/// A leaf below this looks whether its window could do with fewer leaves of `LEAF_PACKED`.
const LEAF_SPARSE: usize = 40;
const LEAF_PACKED: usize = 54;
/// An inner node below this is joined with a neighbour if `INNER_PACKED` holds both.
const INNER_SPARSE: usize = 24;
const INNER_PACKED: usize = 54;

/// How many nodes there are, for the accounting of memory.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) leaves: usize,
    pub(super) inners: usize,
}

#[derive(Debug)]
pub(super) enum Node<T> {
    Leaf(Box<Leaf<T>>),
    Inner(Box<Inner<T>>),
}

/// Slots from `len` on hold copies of anything and mean nothing.
#[derive(Debug)]
pub(super) struct Leaf<T> {
    pub(super) len: usize,
    pub(super) scores: [f64; LEAF_MAX],
    pub(super) items: [T; LEAF_MAX],
}

#[derive(Debug)]
pub(super) struct Inner<T> {
    pub(super) scores: Vec<f64>,
    pub(super) firsts: Vec<T>,
    pub(super) counts: Vec<usize>,
    pub(super) children: Vec<Node<T>>,
}

/// Whether a node is at an end of the whole tree.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    pub(super) first: bool,
    pub(super) last: bool,
}

impl Census {
    /// The bytes of all nodes, as the allocator counts them.
    pub(super) const fn heap_bytes<T>(&self) -> usize {
        const SLOTS: usize = CHILDREN_MAX + 1;
        let inner = size_class(size_of::<Inner<T>>())
            + size_class(SLOTS * size_of::<f64>())
            + size_class(SLOTS * size_of::<T>())
            + size_class(SLOTS * size_of::<usize>())
            + size_class(SLOTS * size_of::<Node<T>>());
        self.leaves * size_class(size_of::<Leaf<T>>()) + self.inners * inner
    }
}

impl<T: Copy> Leaf<T> {
    pub(super) fn with(score: f64, item: T, census: &mut Census) -> Box<Self> {
        census.leaves += 1;
        Box::new(Self { len: 1, scores: [score; LEAF_MAX], items: [item; LEAF_MAX] })
    }

    pub(super) fn partition_point(&self, before: &mut impl FnMut(f64, T) -> bool) -> usize {
        first_not_before(self.len, |index| before(self.scores[index], self.items[index]))
    }

    pub(super) fn insert(&mut self, at: usize, score: f64, item: T) {
        self.scores.copy_within(at..self.len, at + 1);
        self.items.copy_within(at..self.len, at + 1);
        self.scores[at] = score;
        self.items[at] = item;
        self.len += 1;
    }

    pub(super) fn remove_range(
        &mut self,
        from: usize,
        to: usize,
        removed: &mut impl FnMut(f64, T),
    ) {
        for at in from..to {
            removed(self.scores[at], self.items[at]);
        }
        self.scores.copy_within(to..self.len, from);
        self.items.copy_within(to..self.len, from);
        self.len -= to - from;
    }

    /// Changes a score if its element stays between others of this leaf, so that no order beyond
    /// the leaf and nothing in the nodes above is touched.
    pub(super) fn rescore(
        &mut self,
        at: usize,
        score: f64,
        mut before: impl FnMut(f64, T) -> bool,
    ) -> bool {
        let others = self.len - 1;
        let to = first_not_before(others, |index| {
            let index = index + usize::from(at <= index);
            before(self.scores[index], self.items[index])
        });
        if at == 0 || to == 0 || to == others {
            return false;
        }
        if to < at {
            self.scores[to..=at].rotate_right(1);
            self.items[to..=at].rotate_right(1);
        } else {
            self.scores[at..=to].rotate_left(1);
            self.items[at..=to].rotate_left(1);
        }
        self.scores[to] = score;
        true
    }
}

impl<T: Copy> Node<T> {
    /// The first score and item, and the count.
    pub(super) fn summary(&self) -> (f64, T, usize) {
        match self {
            Self::Leaf(leaf) => (leaf.scores[0], leaf.items[0], leaf.len),
            Self::Inner(inner) => (inner.scores[0], inner.firsts[0], inner.counts.iter().sum()),
        }
    }

    fn leaf(&self) -> &Leaf<T> {
        match self {
            Self::Leaf(leaf) => leaf,
            Self::Inner(_) => unreachable!("the children of a node are of one kind"),
        }
    }

    fn leaf_mut(&mut self) -> &mut Leaf<T> {
        match self {
            Self::Leaf(leaf) => leaf,
            Self::Inner(_) => unreachable!("the children of a node are of one kind"),
        }
    }

    /// Tells of every element below a node that is about to be dropped.
    fn retire(&self, removed: &mut impl FnMut(f64, T), census: &mut Census) {
        match self {
            Self::Leaf(leaf) => {
                census.leaves -= 1;
                for at in 0..leaf.len {
                    removed(leaf.scores[at], leaf.items[at]);
                }
            }
            Self::Inner(inner) => {
                census.inners -= 1;
                for child in &inner.children {
                    child.retire(removed, census);
                }
            }
        }
    }
}

impl<T: Copy> Inner<T> {
    pub(super) fn new(census: &mut Census) -> Box<Self> {
        census.inners += 1;
        Box::new(Self {
            scores: Vec::with_capacity(CHILDREN_MAX + 1),
            firsts: Vec::with_capacity(CHILDREN_MAX + 1),
            counts: Vec::with_capacity(CHILDREN_MAX + 1),
            children: Vec::with_capacity(CHILDREN_MAX + 1),
        })
    }

    pub(super) fn push(&mut self, child: Node<T>) {
        self.insert_child(self.children.len(), child);
    }

    fn insert_child(&mut self, at: usize, child: Node<T>) {
        let (score, first, count) = child.summary();
        self.scores.insert(at, score);
        self.firsts.insert(at, first);
        self.counts.insert(at, count);
        self.children.insert(at, child);
    }

    fn drop_children(&mut self, range: Range<usize>) {
        self.scores.drain(range.clone());
        self.firsts.drain(range.clone());
        self.counts.drain(range.clone());
        self.children.drain(range);
    }

    /// Moves the children from `at` on to the end of `other`.
    fn move_children(&mut self, at: usize, other: &mut Self) {
        other.scores.extend(self.scores.drain(at..));
        other.firsts.extend(self.firsts.drain(at..));
        other.counts.extend(self.counts.drain(at..));
        other.children.extend(self.children.drain(at..));
    }

    /// Brings up to date what is known of a child.
    fn refresh(&mut self, at: usize) {
        (self.scores[at], self.firsts[at], self.counts[at]) = self.children[at].summary();
    }

    /// The last child that starts before the place sought, or else the first one.
    pub(super) fn child_for(&self, before: &mut impl FnMut(f64, T) -> bool) -> usize {
        let after = first_not_before(self.children.len(), |index| {
            before(self.scores[index], self.firsts[index])
        });
        after.saturating_sub(1)
    }

    /// The child that holds the rank `at`, which becomes the rank in that child.
    pub(super) fn child_of_rank(&self, at: &mut usize) -> usize {
        let mut child = 0;
        while self.counts[child] <= *at {
            *at -= self.counts[child];
            child += 1;
        }
        child
    }

    /// Returns a new node to the right of this one if this one had to be split.
    pub(super) fn insert(
        &mut self,
        score: f64,
        item: T,
        before: &mut impl FnMut(f64, T) -> bool,
        edge: Edge,
        census: &mut Census,
    ) -> Option<Node<T>> {
        let child = self.child_for(before);
        let edge = Edge {
            first: edge.first && child == 0,
            last: edge.last && child + 1 == self.children.len(),
        };
        match &mut self.children[child] {
            Node::Leaf(leaf) => {
                let at = leaf.partition_point(before);
                if leaf.len < LEAF_MAX {
                    leaf.insert(at, score, item);
                    self.counts[child] += 1;
                    if at == 0 {
                        self.refresh(child);
                    }
                    return None;
                }
                if edge.last && at == LEAF_MAX {
                    self.push(Node::Leaf(Leaf::with(score, item, census)));
                } else if edge.first && at == 0 {
                    self.insert_child(0, Node::Leaf(Leaf::with(score, item, census)));
                } else {
                    self.make_room(child, census);
                    let child = self.child_for(before);
                    let leaf = self.children[child].leaf_mut();
                    let at = leaf.partition_point(before);
                    leaf.insert(at, score, item);
                    self.refresh(child);
                }
            }
            Node::Inner(inner) => {
                let Some(right) = inner.insert(score, item, before, edge, census) else {
                    (self.scores[child], self.firsts[child]) = (inner.scores[0], inner.firsts[0]);
                    self.counts[child] += 1;
                    return None;
                };
                self.refresh(child);
                self.insert_child(child + 1, right);
            }
        }
        self.split_if_full(edge, census)
    }

    fn split_if_full(&mut self, edge: Edge, census: &mut Census) -> Option<Node<T>> {
        if self.children.len() <= CHILDREN_MAX {
            return None;
        }
        let at = match edge {
            Edge { last: true, .. } => CHILDREN_MAX,
            Edge { first: true, .. } => 1,
            _ => self.children.len() / 2,
        };
        let mut right = Self::new(census);
        self.move_children(at, &mut right);
        Some(Node::Inner(right))
    }

    /// Makes room in the full leaf `at`, or in what takes its place: neighbours take elements from
    /// it, or the three share theirs with a new leaf.
    fn make_room(&mut self, at: usize, census: &mut Census) {
        let mut window = self.window(at);
        let room = LEAF_MAX * window.len() - self.counts[window.clone()].iter().sum::<usize>();
        if room < ROOM_MIN {
            // The contents are overwritten: any element will do.
            let (score, item, _) = self.children[at].summary();
            self.insert_child(window.end, Node::Leaf(Leaf::with(score, item, census)));
            self.children[window.end].leaf_mut().len = 0;
            window.end += 1;
        }
        let leaves = window.len();
        self.spread(window, leaves, census);
    }

    /// The child `at` and its neighbours, up to three.
    fn window(&self, at: usize) -> Range<usize> {
        let end = (at.max(1) + 2).min(self.children.len());
        end.saturating_sub(WINDOW)..end
    }

    /// Shares the elements of the leaves in `window` evenly among the first `leaves` of them, and
    /// drops the others.
    fn spread(&mut self, window: Range<usize>, leaves: usize, census: &mut Census) {
        const ALL: usize = LEAF_MAX * (WINDOW + 1);
        let mut scores = [0.0; ALL];
        let mut items = [self.firsts[window.start]; ALL];
        let mut total = 0;
        for child in &self.children[window.clone()] {
            let leaf = child.leaf();
            let end = total + leaf.len;
            scores[total..end].copy_from_slice(&leaf.scores[..leaf.len]);
            items[total..end].copy_from_slice(&leaf.items[..leaf.len]);
            total = end;
        }
        let mut start = 0;
        for index in 0..leaves {
            let leaf = self.children[window.start + index].leaf_mut();
            leaf.len = (total - start) / (leaves - index);
            let end = start + leaf.len;
            leaf.scores[..leaf.len].copy_from_slice(&scores[start..end]);
            leaf.items[..leaf.len].copy_from_slice(&items[start..end]);
            start = end;
        }
        census.leaves -= window.len() - leaves;
        self.drop_children(window.start + leaves..window.end);
        for index in window.start..window.start + leaves {
            self.refresh(index);
        }
    }

    /// Removes a non-empty range of ranks that is not all of this node, unless it is the root.
    pub(super) fn remove_range(
        &mut self,
        from: usize,
        to: usize,
        removed: &mut impl FnMut(f64, T),
        census: &mut Census,
    ) {
        let mut start = from;
        let touched = self.child_of_rank(&mut start);
        let mut child = touched;
        let mut left = to - from;
        let mut gone = 0..0;
        while 0 < left {
            let end = (start + left).min(self.counts[child]);
            left -= end - start;
            if end - start == self.counts[child] {
                self.children[child].retire(removed, census);
                gone = if gone.is_empty() { child..child + 1 } else { gone.start..child + 1 };
            } else {
                match &mut self.children[child] {
                    Node::Leaf(leaf) => leaf.remove_range(start, end, removed),
                    Node::Inner(inner) => inner.remove_range(start, end, removed, census),
                }
                self.refresh(child);
            }
            start = 0;
            child += 1;
        }
        self.drop_children(gone);
        // What is left of the children at both ends now stands side by side.
        self.tidy(touched, census);
        self.tidy(touched + 1, census);
    }

    /// Joins a child that has become sparse with its neighbours, if fewer nodes do for all.
    fn tidy(&mut self, at: usize, census: &mut Census) {
        match self.children.get(at) {
            Some(Node::Leaf(leaf)) if leaf.len < LEAF_SPARSE => {
                let window = self.window(at);
                let total: usize = self.counts[window.clone()].iter().sum();
                let leaves = total.div_ceil(LEAF_PACKED);
                if leaves < window.len() {
                    self.spread(window, leaves, census);
                }
            }
            Some(Node::Inner(inner)) if inner.children.len() < INNER_SPARSE => {
                self.join(at, census);
                if let Some(left) = at.checked_sub(1) {
                    self.join(left, census);
                }
            }
            _ => {}
        }
    }

    /// Joins the inner nodes `left` and `left + 1` if they are there and fit well into one.
    fn join(&mut self, left: usize, census: &mut Census) {
        let Some([Node::Inner(a), Node::Inner(b)]) = self.children.get_mut(left..left + 2) else {
            return;
        };
        if a.children.len() + b.children.len() <= INNER_PACKED {
            b.move_children(0, a);
            census.inners -= 1;
            self.drop_children(left + 1..left + 2);
            self.refresh(left);
        }
    }
}

/// The first index below `len` whose element is not before the place sought.
#[inline]
fn first_not_before(len: usize, mut is_before: impl FnMut(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

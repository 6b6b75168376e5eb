//! An ordered index with ranks: the order of a large sorted set.
//!
//! A B+ tree whose leaves hold up to 63 pairs of a score and an item, and whose inner nodes count
//! what is below each child, so that a rank is found as fast as a score. Items are small handles
//! (a thin pointer owned by the sorted set's table). The tree never looks into one: whoever seeks a
//! place brings a closure that says how an item stands to the one sought, and it is called only
//! where scores are equal.
//!
//! Invariants: all leaves are at the same depth and none is empty; an inner node has between 1 and
//! 63 children and knows of each its first score and item, both of an element that is in the
//! tree, and its count. So the closure never sees an item that was removed.
//!
//! A full leaf first gives elements to its neighbours, and three full leaves become four: random
//! insertion leaves them about 85 percent full. Insertion at either end of the tree starts a fresh
//! leaf instead and leaves full ones behind. Scores are never NaN.

mod node;

use std::cmp::Ordering;
use std::ops::Range;

use node::{Census, Edge, Inner, LEAF_MAX, Leaf, Node};

/// Elements `(score, item)` in ascending order.
#[derive(Debug)]
pub struct RankTree<T> {
    root: Option<Node<T>>,
    len: usize,
    census: Census,
}

impl<T: Copy> RankTree<T> {
    #[must_use]
    pub const fn new() -> Self {
        Self { root: None, len: 0, census: Census { leaves: 0, inners: 0 } }
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of all nodes as the allocator counts them; the tree's own few words excluded.
    #[must_use]
    pub const fn heap_bytes(&self) -> usize {
        self.census.heap_bytes::<T>()
    }

    /// Adds an element that is not in the tree. `order` tells how an item of the tree stands to
    /// the new one.
    pub fn insert(&mut self, score: f64, item: T, mut order: impl FnMut(T) -> Ordering) {
        debug_assert!(!score.is_nan());
        let mut before = |s: f64, i: T| stands(s, i, score, &mut order).is_lt();
        let census = &mut self.census;
        self.len += 1;
        let edge = Edge { first: true, last: true };
        let right = match &mut self.root {
            None => {
                self.root = Some(Node::Leaf(Leaf::with(score, item, census)));
                return;
            }
            Some(Node::Leaf(leaf)) if leaf.len < LEAF_MAX => {
                let at = leaf.partition_point(&mut before);
                return leaf.insert(at, score, item);
            }
            Some(Node::Leaf(_)) => {
                self.deepen(None);
                return self.insert_below_root(score, item, &mut before, edge);
            }
            Some(Node::Inner(inner)) => inner.insert(score, item, &mut before, edge, census),
        };
        if let Some(right) = right {
            self.deepen(Some(right));
        }
    }

    fn insert_below_root(
        &mut self,
        score: f64,
        item: T,
        before: &mut impl FnMut(f64, T) -> bool,
        edge: Edge,
    ) {
        if let Some(Node::Inner(inner)) = &mut self.root {
            let split = inner.insert(score, item, before, edge, &mut self.census);
            debug_assert!(split.is_none(), "a root of one leaf has room");
        }
    }

    /// Puts a new root above the old one and `right`.
    fn deepen(&mut self, right: Option<Node<T>>) {
        let Some(left) = self.root.take() else { return };
        let mut inner = Inner::new(&mut self.census);
        inner.push(left);
        if let Some(right) = right {
            inner.push(right);
        }
        self.root = Some(Node::Inner(inner));
    }

    /// Removes the element with this score that `order` calls equal.
    pub fn remove(&mut self, score: f64, order: impl FnMut(T) -> Ordering) -> Option<T> {
        let (rank, _) = self.find(score, order)?;
        self.remove_at(rank).map(|(_, item)| item)
    }

    /// Removes the element at a rank.
    pub fn remove_at(&mut self, rank: usize) -> Option<(f64, T)> {
        let mut removed = None;
        self.remove_range(rank..rank.saturating_add(1), |score, item| {
            removed = Some((score, item))
        });
        removed
    }

    /// Removes the elements with ranks in `ranks`, telling of each in ascending order, and returns
    /// how many they were. Ranks beyond the end are ignored.
    pub fn remove_range(&mut self, ranks: Range<usize>, mut removed: impl FnMut(f64, T)) -> usize {
        let (from, to) = (ranks.start, ranks.end.min(self.len));
        if to <= from {
            return 0;
        }
        match &mut self.root {
            None => {}
            Some(Node::Leaf(leaf)) => leaf.remove_range(from, to, &mut removed),
            Some(Node::Inner(inner)) => {
                inner.remove_range(from, to, &mut removed, &mut self.census);
            }
        }
        self.len -= to - from;
        self.settle_root();
        to - from
    }

    /// Drops an empty root, and roots with a single child.
    fn settle_root(&mut self) {
        if self.len == 0 {
            self.clear();
        }
        while let Some(Node::Inner(inner)) = &mut self.root
            && inner.children.len() == 1
        {
            self.root = inner.children.pop();
            self.census.inners -= 1;
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Gives an element another score. Returns its item, or `None` if it is not there.
    /// `order` has to fit either score: it tells how items stand to this element's.
    pub fn update(
        &mut self,
        score: f64,
        new_score: f64,
        mut order: impl FnMut(T) -> Ordering,
    ) -> Option<T> {
        debug_assert!(!new_score.is_nan());
        let (rank, item) = self.find(score, &mut order)?;
        let before = |s: f64, i: T| stands(s, i, new_score, &mut order).is_lt();
        if !self.leaf_at_mut(rank).is_some_and(|(leaf, at)| leaf.rescore(at, new_score, before)) {
            self.remove_at(rank);
            self.insert(new_score, item, order);
        }
        Some(item)
    }

    /// Puts `new` in the place of the item that `order` calls equal, which it must be equal to:
    /// for an owner whose handles change when what they point to is allocated anew.
    /// Returns the old item.
    pub fn replace(&mut self, score: f64, new: T, order: impl FnMut(T) -> Ordering) -> Option<T> {
        let (rank, old) = self.find(score, order)?;
        let mut node = self.root.as_mut()?;
        let mut at = rank;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    leaf.items[at] = new;
                    return Some(old);
                }
                Node::Inner(inner) => {
                    let child = inner.child_of_rank(&mut at);
                    if at == 0 {
                        inner.firsts[child] = new;
                    }
                    node = &mut inner.children[child];
                }
            }
        }
    }

    /// The rank of the element with this score that `order` calls equal.
    #[must_use]
    pub fn rank(&self, score: f64, order: impl FnMut(T) -> Ordering) -> Option<usize> {
        self.find(score, order).map(|(rank, _)| rank)
    }

    fn find(&self, score: f64, mut order: impl FnMut(T) -> Ordering) -> Option<(usize, T)> {
        let (rank, leaf, at) = self.seek(|s, i| stands(s, i, score, &mut order).is_lt())?;
        let (found_score, item) = match at < leaf.len {
            true => (leaf.scores[at], leaf.items[at]),
            false => self.nth(rank)?, // it would be the first of the next leaf
        };
        stands(found_score, item, score, &mut order).is_eq().then_some((rank, item))
    }

    /// The element at a rank.
    #[must_use]
    pub fn nth(&self, rank: usize) -> Option<(f64, T)> {
        let (leaf, at) = self.leaf_at(rank)?;
        Some((leaf.scores[at], leaf.items[at]))
    }

    #[must_use]
    pub fn first(&self) -> Option<(f64, T)> {
        self.nth(0)
    }

    #[must_use]
    pub fn last(&self) -> Option<(f64, T)> {
        self.nth(self.len.checked_sub(1)?)
    }

    /// How many elements have a score below `score`: the rank where those from `score` on start.
    #[must_use]
    pub fn count_below(&self, score: f64) -> usize {
        self.partition_point(|s, _| s < score)
    }

    /// How many elements have a score of at most `score`: the rank where those above it start.
    #[must_use]
    pub fn count_up_to(&self, score: f64) -> usize {
        self.partition_point(|s, _| s <= score)
    }

    /// The rank of the first element that is not `before`, where all that are before come first.
    /// With a set of one score and a comparison of members this is a lexical bound.
    #[must_use]
    pub fn partition_point(&self, before: impl FnMut(f64, T) -> bool) -> usize {
        self.seek(before).map_or(0, |(rank, ..)| rank)
    }

    /// A rank as of `partition_point`, with the leaf in which the search ended and the place
    /// there, which may be its end.
    fn seek(&self, mut before: impl FnMut(f64, T) -> bool) -> Option<(usize, &Leaf<T>, usize)> {
        let mut node = self.root.as_ref()?;
        let mut rank = 0;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let at = leaf.partition_point(&mut before);
                    return Some((rank + at, leaf, at));
                }
                Node::Inner(inner) => {
                    let child = inner.child_for(&mut before);
                    rank += inner.counts[..child].iter().sum::<usize>();
                    node = &inner.children[child];
                }
            }
        }
    }

    /// The elements with ranks in `ranks`, from either end. Ranks beyond the end are ignored.
    #[must_use]
    pub fn range(&self, ranks: Range<usize>) -> Elements<'_, T> {
        let to = ranks.end.min(self.len);
        Elements { tree: self, from: ranks.start.min(to), to, front: None, back: None }
    }

    #[must_use]
    pub fn iter(&self) -> Elements<'_, T> {
        self.range(0..self.len)
    }

    fn leaf_at(&self, rank: usize) -> Option<(&Leaf<T>, usize)> {
        if self.len <= rank {
            return None;
        }
        let mut node = self.root.as_ref()?;
        let mut at = rank;
        loop {
            match node {
                Node::Leaf(leaf) => return Some((leaf, at)),
                Node::Inner(inner) => node = &inner.children[inner.child_of_rank(&mut at)],
            }
        }
    }

    fn leaf_at_mut(&mut self, rank: usize) -> Option<(&mut Leaf<T>, usize)> {
        if self.len <= rank {
            return None;
        }
        let mut node = self.root.as_mut()?;
        let mut at = rank;
        loop {
            match node {
                Node::Leaf(leaf) => return Some((leaf, at)),
                Node::Inner(inner) => {
                    let child = inner.child_of_rank(&mut at);
                    node = &mut inner.children[child];
                }
            }
        }
    }
}

impl<T: Copy> Default for RankTree<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, T: Copy> IntoIterator for &'a RankTree<T> {
    type Item = (f64, T);
    type IntoIter = Elements<'a, T>;

    fn into_iter(self) -> Elements<'a, T> {
        self.iter()
    }
}

/// How `(score, item)` stands to the element sought. Equal scores, zeros of either sign among
/// them, are told apart by item.
#[inline]
fn stands<T>(score: f64, item: T, sought: f64, order: &mut impl FnMut(T) -> Ordering) -> Ordering {
    match score.partial_cmp(&sought) {
        Some(Ordering::Equal) | None => order(item),
        Some(unequal) => unequal,
    }
}

/// Elements of a tree in ascending order, or from the back with `rev`.
#[derive(Debug)]
pub struct Elements<'a, T> {
    tree: &'a RankTree<T>,
    /// The ranks still to come.
    from: usize,
    to: usize,
    /// Where the two ends are: a leaf and the elements of it before the place. The next leaf is
    /// sought by rank, which comes to little for each of its elements.
    front: Option<(&'a Leaf<T>, usize)>,
    back: Option<(&'a Leaf<T>, usize)>,
}

impl<T: Copy> Iterator for Elements<'_, T> {
    type Item = (f64, T);

    fn next(&mut self) -> Option<(f64, T)> {
        if self.from == self.to {
            return None;
        }
        let (leaf, at) = match self.front {
            Some((leaf, at)) if at < leaf.len => (leaf, at),
            _ => self.tree.leaf_at(self.from)?,
        };
        self.from += 1;
        self.front = Some((leaf, at + 1));
        Some((leaf.scores[at], leaf.items[at]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.to - self.from, Some(self.to - self.from))
    }

    fn nth(&mut self, skipped: usize) -> Option<(f64, T)> {
        self.from = self.from.saturating_add(skipped).min(self.to);
        self.front = None;
        self.next()
    }
}

impl<T: Copy> DoubleEndedIterator for Elements<'_, T> {
    fn next_back(&mut self) -> Option<(f64, T)> {
        if self.from == self.to {
            return None;
        }
        let (leaf, at) = match self.back {
            Some((leaf, end)) if 0 < end => (leaf, end - 1),
            _ => self.tree.leaf_at(self.to - 1)?,
        };
        self.to -= 1;
        self.back = Some((leaf, at));
        Some((leaf.scores[at], leaf.items[at]))
    }

    fn nth_back(&mut self, skipped: usize) -> Option<(f64, T)> {
        self.to = self.to.saturating_sub(skipped).max(self.from);
        self.back = None;
        self.next_back()
    }
}

impl<T: Copy> ExactSizeIterator for Elements<'_, T> {}

#[cfg(test)]
mod tests {
    use super::node::CHILDREN_MAX;
    use super::*;
    use crate::size::size_class;
    use proptest::prelude::*;

    type Tree = RankTree<u64>;

    fn add(tree: &mut Tree, score: f64, item: u64) {
        tree.insert(score, item, |other| other.cmp(&item));
    }

    /// Checks every invariant, and returns the number of leaves and inner nodes.
    fn check(tree: &Tree) {
        fn walk(node: &Node<u64>, census: &mut Census) -> usize {
            match node {
                Node::Leaf(leaf) => {
                    census.leaves += 1;
                    assert!(0 < leaf.len && leaf.len <= LEAF_MAX);
                    0
                }
                Node::Inner(inner) => {
                    census.inners += 1;
                    let children = inner.children.len();
                    assert!(0 < children && children <= CHILDREN_MAX);
                    assert_eq!(
                        [inner.scores.len(), inner.firsts.len(), inner.counts.len()],
                        [children; 3]
                    );
                    assert_eq!(inner.children.capacity(), CHILDREN_MAX + 1);
                    let mut depths = inner.children.iter().enumerate().map(|(index, child)| {
                        let known = (inner.scores[index], inner.firsts[index], inner.counts[index]);
                        assert_eq!(child.summary(), known);
                        walk(child, census)
                    });
                    let depth = depths.next().unwrap();
                    assert!(depths.all(|other| other == depth));
                    depth + 1
                }
            }
        }
        let mut census = Census::default();
        let count = tree.root.as_ref().map_or(0, |root| {
            walk(root, &mut census);
            root.summary().2
        });
        assert_eq!(count, tree.len());
        assert_eq!((census.leaves, census.inners), (tree.census.leaves, tree.census.inners));
        let all: Vec<(f64, u64)> = tree.iter().collect();
        assert_eq!(all.len(), count);
        assert!(all.is_sorted());
        assert!(tree.iter().rev().eq(all.into_iter().rev()));
    }

    /// A shuffled `0..len`, the same each time.
    fn shuffled(len: u64) -> Vec<u64> {
        let mut values: Vec<u64> = (0..len).collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for index in (1..values.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            values.swap(index, (state >> 33) as usize % (index + 1));
        }
        values
    }

    fn bytes_per_element(tree: &Tree) -> f64 {
        tree.heap_bytes() as f64 / tree.len() as f64
    }

    #[test]
    fn a_leaf_is_one_kibibyte() {
        assert_eq!(size_of::<Leaf<u64>>(), 1016);
        assert_eq!(size_class(size_of::<Leaf<u64>>()), 1024);
    }

    #[test]
    fn random_insertion_takes_22_bytes_an_element_at_most() {
        let mut tree = Tree::new();
        for value in shuffled(200_000) {
            add(&mut tree, value as f64, value);
        }
        check(&tree);
        let bytes = bytes_per_element(&tree);
        assert!(bytes <= 21.0, "{bytes}");
    }

    #[test]
    fn insertion_at_an_end_takes_17_bytes_an_element() {
        let (mut up, mut down) = (Tree::new(), Tree::new());
        for value in 0..200_000 {
            add(&mut up, value as f64, value);
            add(&mut down, -(value as f64), value);
        }
        check(&up);
        check(&down);
        for bytes in [bytes_per_element(&up), bytes_per_element(&down)] {
            assert!(bytes <= 17.1, "{bytes}");
        }
    }

    #[test]
    fn random_removal_keeps_leaves_reasonably_full() {
        let mut tree = Tree::new();
        let values = shuffled(100_000);
        for &value in &values {
            add(&mut tree, value as f64, value);
        }
        for &value in &values[..90_000] {
            assert_eq!(tree.remove(value as f64, |other| other.cmp(&value)), Some(value));
        }
        check(&tree);
        let bytes = bytes_per_element(&tree);
        assert!(bytes <= 30.0, "{bytes}");
        for &value in &values[90_000..] {
            tree.remove(value as f64, |other| other.cmp(&value)).unwrap();
        }
        assert_eq!((tree.len(), tree.heap_bytes()), (0, 0));
    }

    #[test]
    fn equal_scores_are_ordered_by_item_and_bounded_by_partition() {
        let mut tree = Tree::new();
        for value in shuffled(5000) {
            add(&mut tree, 0.0, 2 * value);
        }
        check(&tree);
        for bound in [0, 1, 2, 777, 778, 9998, 9999, 20_000] {
            let expected = (bound as usize).div_ceil(2).min(5000);
            assert_eq!(tree.partition_point(|_, item| item < bound), expected);
        }
        assert_eq!((tree.count_below(0.0), tree.count_up_to(-0.0)), (0, 5000));
    }

    #[test]
    fn infinite_scores_and_zeros_of_both_signs() {
        let mut tree = Tree::new();
        for (score, item) in
            [(f64::INFINITY, 1), (-0.0, 2), (0.0, 1), (f64::NEG_INFINITY, 3), (-0.0, 0)]
        {
            add(&mut tree, score, item);
        }
        let items: Vec<u64> = tree.iter().map(|(_, item)| item).collect();
        assert_eq!(items, [3, 0, 1, 2, 1]);
        assert_eq!(tree.rank(0.0, |other| other.cmp(&2)), Some(3));
        assert_eq!((tree.count_below(f64::INFINITY), tree.count_up_to(f64::INFINITY)), (4, 5));
        assert_eq!(tree.count_up_to(f64::NEG_INFINITY), 1);
    }

    #[test]
    fn replace_reaches_the_copies_in_inner_nodes() {
        // Items order by their low 32 bits only, as handles order by what they point to.
        let order = |sought: u64| move |other: u64| (other as u32).cmp(&(sought as u32));
        let mut tree = Tree::new();
        for value in 0..10_000 {
            tree.insert(1.0, value, order(value));
        }
        for value in 0..10_000 {
            let moved = value | 1 << 40;
            assert_eq!(tree.replace(1.0, moved, order(value)), Some(value));
        }
        assert_eq!(tree.replace(1.0, 0, order(10_000)), None);
        check(&tree);
        assert!(tree.iter().all(|(_, item)| item >> 40 == 1));
    }

    #[test]
    fn ranges_of_ranks_from_both_ends() {
        let mut tree = Tree::new();
        for value in 0..1000 {
            add(&mut tree, value as f64, value);
        }
        let items = |range: Range<usize>| tree.range(range).map(|(_, item)| item);
        assert!(items(100..300).eq(100..300));
        assert!(items(990..5000).eq(990..1000));
        assert_eq!(items(5000..6000).count(), 0);
        let mut both = items(60..70);
        assert_eq!((both.next(), both.next_back(), both.len()), (Some(60), Some(69), 8));
        assert_eq!((both.nth(2), both.nth_back(3)), (Some(63), Some(65)));
        assert_eq!((both.next_back(), both.next()), (Some(64), None));
        assert_eq!(tree.nth(1000), None);
        assert_eq!((tree.first(), tree.last()), (Some((0.0, 0)), Some((999.0, 999))));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Add(i8, u8),
        AddRun(i8, u8),
        Remove(usize),
        RemoveAbsent(i8, u8),
        RemoveRange(usize, usize),
        Update(usize, i8),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (any::<i8>(), any::<u8>()).prop_map(|(score, item)| Op::Add(score, item)),
            3 => (any::<i8>(), any::<u8>()).prop_map(|(score, item)| Op::AddRun(score, item)),
            2 => any::<usize>().prop_map(Op::Remove),
            1 => (any::<i8>(), any::<u8>()).prop_map(|(score, item)| Op::RemoveAbsent(score, item)),
            1 => (any::<usize>(), 0_usize..400).prop_map(|(from, len)| Op::RemoveRange(from, len)),
            4 => (any::<usize>(), any::<i8>()).prop_map(|(at, score)| Op::Update(at, score)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn agrees_with_a_sorted_vec(ops in prop::collection::vec(op(), 1..300)) {
            let mut tree = Tree::new();
            let mut model: Vec<(i64, u64)> = Vec::new();
            let try_add = |tree: &mut Tree, model: &mut Vec<(i64, u64)>, pair: (i64, u64)| {
                if let Err(at) = model.binary_search(&pair) {
                    model.insert(at, pair);
                    add(tree, pair.0 as f64, pair.1);
                }
            };
            for op in ops {
                match op {
                    Op::Add(score, item) => {
                        try_add(&mut tree, &mut model, (score.into(), item.into()));
                    }
                    Op::AddRun(score, item) => {
                        for next in 0..60 {
                            let pair = (score.into(), u64::from(item) + 7 * next);
                            try_add(&mut tree, &mut model, pair);
                        }
                    }
                    Op::Remove(at) if !model.is_empty() => {
                        let (score, item) = model.remove(at % model.len());
                        let removed = tree.remove(score as f64, |other| other.cmp(&item));
                        prop_assert_eq!(removed, Some(item));
                    }
                    Op::RemoveAbsent(score, item) => {
                        let (score, item) = (i64::from(score), u64::from(item));
                        let expected = model.binary_search(&(score, item));
                        let rank = tree.rank(score as f64, |other| other.cmp(&item));
                        prop_assert_eq!(rank, expected.ok());
                        let below = model.partition_point(|&(s, _)| s < score);
                        prop_assert_eq!(tree.count_below(score as f64), below);
                        let up_to = model.partition_point(|&(s, _)| s <= score);
                        prop_assert_eq!(tree.count_up_to(score as f64), up_to);
                    }
                    Op::RemoveRange(from, len) if !model.is_empty() => {
                        let from = from % model.len();
                        let to = (from + len).min(model.len());
                        let expected: Vec<_> = model.drain(from..to).collect();
                        let mut seen = Vec::new();
                        tree.remove_range(from..to, |score, item| seen.push((score as i64, item)));
                        prop_assert_eq!(seen, expected);
                    }
                    Op::Update(at, score) if !model.is_empty() => {
                        let (old, item) = model[at % model.len()];
                        // Often near, so that both ways of doing it are taken.
                        let new = if score % 2 == 0 { old + i64::from(score) / 64 } else { score.into() };
                        if new == old || model.binary_search(&(new, item)).is_err() {
                            model.remove(at % model.len());
                            let to = model.binary_search(&(new, item)).unwrap_err();
                            model.insert(to, (new, item));
                            let updated =
                                tree.update(old as f64, new as f64, |other| other.cmp(&item));
                            prop_assert_eq!(updated, Some(item));
                        }
                    }
                    _ => {}
                }
            }
            check(&tree);
            let all: Vec<(i64, u64)> = tree.iter().map(|(s, item)| (s as i64, item)).collect();
            prop_assert_eq!(all, model);
        }
    }
}

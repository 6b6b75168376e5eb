//! Things in order, in pages of up to 64.
//!
//! What is added mostly goes to the end, what is removed mostly comes from the front, and both are
//! cheap; elsewhere a page and, where one comes or goes, the queue of pages has to be moved.
//!
//! Invariants: no page is empty; `page_bytes` is what the allocator reserved for pages.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::size::size_class;

const PAGE_MAX: usize = 64;
/// A page with less than this is joined with a neighbour if the two then fill half a page.
const PAGE_LOW: usize = PAGE_MAX / 4;

#[derive(Debug)]
pub(super) struct Pages<T> {
    pages: VecDeque<Vec<T>>,
    len: usize,
    page_bytes: usize,
}

/// Where something is, or would be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Spot {
    page: usize,
    index: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: VecDeque::new(), len: 0, page_bytes: 0 }
    }
}

impl<T: Clone> Clone for Pages<T> {
    fn clone(&self) -> Self {
        let pages = self.pages.clone();
        let page_bytes = pages.iter().map(bytes_of).sum();
        Self { pages, len: self.len, page_bytes }
    }
}

impl<T> Pages<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Of the pages and their queue, not of what the things in them own.
    pub(super) fn heap_bytes(&self) -> usize {
        self.page_bytes + size_class(self.pages.capacity() * size_of::<Vec<T>>())
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.pages.front()?.first()
    }

    pub(super) fn last(&self) -> Option<&T> {
        self.pages.back()?.last()
    }

    /// Where the thing is to which `order` says `Equal`, or else where it would be. `order` tells
    /// how a thing compares to the one that is looked for.
    pub(super) fn find(&self, mut order: impl FnMut(&T) -> Ordering) -> Result<Spot, Spot> {
        let Some(last) = self.last() else { return Err(Spot { page: 0, index: 0 }) };
        if order(last) == Ordering::Less {
            let page = self.pages.len() - 1;
            return Err(Spot { page, index: self.pages[page].len() });
        }
        let page = self.pages.partition_point(|page| order(&page[0]) != Ordering::Greater);
        let Some(page) = page.checked_sub(1) else { return Err(Spot { page: 0, index: 0 }) };
        match self.pages[page].binary_search_by(order) {
            Ok(index) => Ok(Spot { page, index }),
            Err(index) => Err(Spot { page, index }),
        }
    }

    pub(super) fn at(&self, spot: Spot) -> &T {
        &self.pages[spot.page][spot.index]
    }

    pub(super) fn at_mut(&mut self, spot: Spot) -> &mut T {
        &mut self.pages[spot.page][spot.index]
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.pages.iter().flatten()
    }

    /// From a place on that `find` gave, be there something or not.
    pub(super) fn iter_from(&self, spot: Spot) -> impl Iterator<Item = &T> {
        let page = spot.page.min(self.pages.len());
        self.pages.range(page..).flatten().skip(spot.index)
    }

    /// Adds a thing where `find` said that it would be.
    pub(super) fn insert(&mut self, mut spot: Spot, thing: T) {
        self.len += 1;
        let Some(page) = self.pages.get(spot.page) else {
            self.push_page(vec![thing]);
            return;
        };
        if page.len() == PAGE_MAX {
            if spot.index == PAGE_MAX && spot.page + 1 == self.pages.len() {
                self.push_page(vec![thing]);
                return;
            }
            self.split(spot.page);
            let half = self.pages[spot.page].len();
            if half < spot.index {
                spot = Spot { page: spot.page + 1, index: spot.index - half };
            }
        }
        let page = &mut self.pages[spot.page];
        if page.len() == page.capacity() {
            self.page_bytes -= bytes_of(page);
            page.reserve_exact(page.len().clamp(1, PAGE_MAX - page.len()));
            self.page_bytes += bytes_of(page);
        }
        page.insert(spot.index, thing);
    }

    fn push_page(&mut self, page: Vec<T>) {
        if self.pages.is_empty() {
            self.pages.reserve_exact(1);
        }
        self.page_bytes += bytes_of(&page);
        self.pages.push_back(page);
    }

    fn split(&mut self, at: usize) {
        let page = &mut self.pages[at];
        self.page_bytes -= bytes_of(page);
        let second = page.split_off(page.len() / 2);
        self.page_bytes += bytes_of(page) + bytes_of(&second);
        self.pages.insert(at + 1, second);
    }

    pub(super) fn remove(&mut self, spot: Spot) -> T {
        self.len -= 1;
        let page = &mut self.pages[spot.page];
        let removed = page.remove(spot.index);
        if page.len() < PAGE_LOW {
            self.tidy(spot.page);
        }
        removed
    }

    /// Removes a page that is empty, or joins one of few things with the page before or after.
    fn tidy(&mut self, at: usize) {
        let len = self.pages[at].len();
        if len == 0 {
            self.take_page(at);
        } else {
            let fits = |other: usize| {
                self.pages.get(other).is_some_and(|other| other.len() + len <= PAGE_MAX / 2)
            };
            if fits(at + 1) {
                self.join(at);
            } else if 0 < at && fits(at - 1) {
                self.join(at - 1);
            }
        }
        if self.len == 0 {
            self.pages = VecDeque::new();
        } else if self.pages.len() < self.pages.capacity() / 4 {
            self.pages.shrink_to(2 * self.pages.len());
        }
    }

    fn take_page(&mut self, at: usize) -> Vec<T> {
        let page = self.pages.remove(at).unwrap_or_default();
        self.page_bytes -= bytes_of(&page);
        page
    }

    /// Moves what is in the next page to this one.
    fn join(&mut self, at: usize) {
        let next = self.take_page(at + 1);
        let page = &mut self.pages[at];
        self.page_bytes -= bytes_of(page);
        page.reserve_exact(next.len());
        page.extend(next);
        self.page_bytes += bytes_of(page);
    }
}

fn bytes_of<T>(page: &Vec<T>) -> usize {
    size_class(page.capacity() * size_of::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn check(pages: &Pages<u64>) {
        let bytes: usize = pages.pages.iter().map(bytes_of).sum();
        assert_eq!(bytes, pages.page_bytes);
        assert_eq!(pages.pages.iter().map(Vec::len).sum::<usize>(), pages.len);
        assert!(pages.pages.iter().all(|page| !page.is_empty() && page.len() <= PAGE_MAX));
        assert!(pages.iter().is_sorted_by(|a, b| a < b));
    }

    fn insert(pages: &mut Pages<u64>, number: u64) -> bool {
        let spot = pages.find(|other| other.cmp(&number));
        spot.is_err_and(|spot| {
            pages.insert(spot, number);
            true
        })
    }

    fn remove(pages: &mut Pages<u64>, number: u64) -> bool {
        let spot = pages.find(|other| other.cmp(&number));
        spot.is_ok_and(|spot| pages.remove(spot) == number)
    }

    #[test]
    fn a_queue_keeps_its_pages_full() {
        let mut pages = Pages::default();
        (0..10_000).for_each(|number| assert!(insert(&mut pages, number)));
        check(&pages);
        assert_eq!(pages.pages.len(), 157);
        assert!(pages.page_bytes < 90_000);
        (0..9_990).for_each(|number| assert!(remove(&mut pages, number)));
        check(&pages);
        assert!(pages.heap_bytes() < 1500, "{}", pages.heap_bytes());
        (9_990..10_000).for_each(|number| assert!(remove(&mut pages, number)));
        assert_eq!((pages.heap_bytes(), pages.len()), (0, 0));
    }

    #[test]
    fn sparse_pages_are_joined() {
        let mut pages = Pages::default();
        (0..10_000).for_each(|number| assert!(insert(&mut pages, number)));
        for number in (0..10_000).filter(|number| number % 50 != 0) {
            assert!(remove(&mut pages, number));
        }
        check(&pages);
        assert_eq!(pages.len(), 200);
        assert!(pages.pages.len() < 25, "{}", pages.pages.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 60, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_set(ops in prop::collection::vec((any::<bool>(), 0_u64..400), 1..1500)) {
            let mut pages = Pages::default();
            let mut model = BTreeSet::new();
            for (is_insert, number) in ops {
                if is_insert {
                    prop_assert_eq!(insert(&mut pages, number), model.insert(number));
                } else {
                    prop_assert_eq!(remove(&mut pages, number), model.remove(&number));
                }
            }
            check(&pages);
            check(&pages.clone());
            prop_assert!(pages.iter().eq(&model));
            for from in [0, 57, 200, 399] {
                let spot = match pages.find(|other| other.cmp(&from)) { Ok(spot) | Err(spot) => spot };
                prop_assert!(pages.iter_from(spot).eq(model.range(from..)));
            }
        }
    }
}

//! Walking and searching a quicklist without opening its compressed nodes for good.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::node::{Node, View};
use super::{Place, Quicklist};
use crate::listpack::{Direction, Element, Encoded, Listpack, Position};

/// The elements in one direction. An element is borrowed from the iterator, which owns what it has
/// decompressed, so this is not a `std::iter::Iterator`.
pub struct Iter<'a> {
    nodes: &'a VecDeque<Node>,
    direction: Direction,
    /// The node that `view` shows.
    node: usize,
    view: Option<View<'a>>,
    next: Next,
}

#[derive(Clone, Copy)]
enum Next {
    /// In a listpack.
    At(Position),
    /// The element of a plain node.
    Plain,
    /// In the node after this one.
    Beyond,
}

impl<'a> Iter<'a> {
    pub(super) fn new(
        nodes: &'a VecDeque<Node>,
        place: Option<Place>,
        direction: Direction,
    ) -> Self {
        let mut iter = Self { nodes, direction, node: 0, view: None, next: Next::Beyond };
        match place {
            None => iter.node = nodes.len(),
            Some(Place { node, offset }) => {
                let view = nodes[node].view();
                iter.next = match view.content() {
                    Ok(listpack) => listpack.seek(offset as i64).map_or(Next::Beyond, Next::At),
                    Err(_) => Next::Plain,
                };
                (iter.node, iter.view) = (node, Some(view));
            }
        }
        iter
    }

    /// The next element.
    #[expect(clippy::should_implement_trait, reason = "lends from itself, which Iterator cannot")]
    #[inline]
    pub fn next(&mut self) -> Option<Element<'_>> {
        while let Next::Beyond = self.next {
            self.enter_next_node()?;
        }
        match self.view.as_ref()?.content() {
            Ok(listpack) => {
                let Next::At(position) = self.next else { return None };
                let (element, next) = match self.direction {
                    Direction::Forward => listpack.get_and_next(position),
                    Direction::Backward => (listpack.get(position), listpack.prev(position)),
                };
                self.next = next.map_or(Next::Beyond, Next::At);
                Some(element)
            }
            Err(element) => {
                self.next = Next::Beyond;
                Some(Element::String(element))
            }
        }
    }

    fn enter_next_node(&mut self) -> Option<()> {
        let node = match self.direction {
            Direction::Forward => self.node.checked_add(1)?,
            Direction::Backward => self.node.checked_sub(1)?,
        };
        let view = self.nodes.get(node)?.view();
        self.next = match view.content() {
            Ok(listpack) => first_in(listpack, self.direction).map_or(Next::Beyond, Next::At),
            Err(_) => Next::Plain,
        };
        (self.node, self.view) = (node, Some(view));
        Some(())
    }
}

fn first_in(listpack: &Listpack, direction: Direction) -> Option<Position> {
    match direction {
        Direction::Forward => listpack.first(),
        Direction::Backward => listpack.last(),
    }
}

/// What LPOS asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Positions {
    /// The match to begin with: 1 is the first, -1 the last. Not 0.
    pub rank: i64,
    /// How many to report; 0 is all.
    pub count: usize,
    /// How many elements to look at; 0 is all.
    pub look_at_max: usize,
}

impl Positions {
    pub(crate) fn direction(self) -> Direction {
        if self.rank < 0 { Direction::Backward } else { Direction::Forward }
    }

    /// Passes the indexes that were asked for on to `f`, given all matches in order.
    pub(crate) fn filter(
        self,
        len: usize,
        mut f: impl FnMut(usize),
    ) -> impl FnMut(usize) -> ControlFlow<()> {
        let mut to_pass = self.rank.unsigned_abs().saturating_sub(1);
        let mut left = if self.count == 0 { usize::MAX } else { self.count };
        let reach = if self.look_at_max == 0 { usize::MAX } else { self.look_at_max };
        move |index| {
            let walked = match self.direction() {
                Direction::Forward => index,
                Direction::Backward => len - 1 - index,
            };
            if reach <= walked {
                return ControlFlow::Break(());
            }
            if 0 < to_pass {
                to_pass -= 1;
                return ControlFlow::Continue(());
            }
            f(index);
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
}

impl Quicklist {
    /// Calls `f` with the index of every match that is asked for, in the order of the search.
    pub fn positions(&self, needle: &[u8], ask: Positions, f: impl FnMut(usize)) {
        let mut filter = ask.filter(self.len, f);
        let reach = if ask.look_at_max == 0 { usize::MAX } else { ask.look_at_max };
        let mut walked = 0;
        let _ = self.scan(
            needle,
            ask.direction(),
            |place, base| filter(base + place.offset),
            |count| {
                walked += count;
                if reach <= walked { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
    }

    /// The first element that equals `needle`.
    pub(super) fn find(&self, needle: &[u8]) -> Option<Place> {
        let mut found = None;
        let _ = self.scan(
            needle,
            Direction::Forward,
            |place, _| {
                found = Some(place);
                ControlFlow::Break(())
            },
            |_| ControlFlow::Continue(()),
        );
        found
    }

    /// Calls `f` with the place of every match and the index of its node's first element, and
    /// `node_done` with the length of every node left behind, until one of them breaks.
    fn scan(
        &self,
        needle: &[u8],
        direction: Direction,
        mut f: impl FnMut(Place, usize) -> ControlFlow<()>,
        mut node_done: impl FnMut(usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let encoded = Encoded::new(needle);
        let mut passed = 0;
        for step in 0..self.nodes.len() {
            let node = match direction {
                Direction::Forward => step,
                Direction::Backward => self.nodes.len() - 1 - step,
            };
            let count = self.nodes[node].count();
            let base = match direction {
                Direction::Forward => passed,
                Direction::Backward => self.len - passed - count,
            };
            match self.nodes[node].view().content() {
                Ok(listpack) => listpack
                    .scan(&encoded, direction, |offset, _| f(Place { node, offset }, base))?,
                Err(element) if element == needle => f(Place { node, offset: 0 }, base)?,
                Err(_) => {}
            }
            passed += count;
            node_done(count)?;
        }
        ControlFlow::Continue(())
    }
}

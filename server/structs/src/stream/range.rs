//! Walking the entries of a stream, in either direction.

use super::StreamId;
use super::block::{Block, Entry};
use super::entries::{Entries, Place};

impl Entries {
    /// The entries with IDs from `start` to `end`, both included, in ascending order.
    #[must_use]
    pub fn range(&self, start: StreamId, end: StreamId) -> Forward<'_> {
        let place = self.place_of(start).unwrap_or(Place { page: 0, index: 0 });
        let at = self.block(place).map_or(0, Block::start);
        Forward { entries: self, place, at, start, end }
    }

    /// The same entries in descending order.
    #[must_use]
    pub fn range_reversed(&self, start: StreamId, end: StreamId) -> Backward<'_> {
        let place = self.place_of(end);
        let at = place.and_then(|place| self.block(place)).map_or(0, Block::end);
        Backward { entries: self, place, at, start, end }
    }

    fn place_after(&self, place: Place) -> Place {
        match place.index + 1 < self.pages[place.page].len() {
            true => Place { index: place.index + 1, ..place },
            false => Place { page: place.page + 1, index: 0 },
        }
    }

    fn place_before(&self, place: Place) -> Option<Place> {
        if let Some(index) = place.index.checked_sub(1) {
            return Some(Place { index, ..place });
        }
        let page = place.page.checked_sub(1)?;
        Some(Place { page, index: self.pages[page].len() - 1 })
    }
}

/// Entries in ascending order.
#[derive(Clone, Debug)]
pub struct Forward<'a> {
    entries: &'a Entries,
    place: Place,
    /// Where in the block the next entry starts.
    at: usize,
    start: StreamId,
    end: StreamId,
}

impl<'a> Iterator for Forward<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let mut block = self.entries.block(self.place)?;
        loop {
            let Some(found) = block.entry_from(self.at) else {
                self.place = self.entries.place_after(self.place);
                block = self.entries.block(self.place)?;
                self.at = block.start();
                continue;
            };
            if self.end < found.entry.id {
                return None;
            }
            self.at = found.end;
            if !found.is_deleted && self.start <= found.entry.id {
                return Some(found.entry);
            }
        }
    }
}

/// Entries in descending order.
#[derive(Clone, Debug)]
pub struct Backward<'a> {
    entries: &'a Entries,
    place: Option<Place>,
    /// Where in the block the next entry ends.
    at: usize,
    start: StreamId,
    end: StreamId,
}

impl<'a> Iterator for Backward<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let mut block = self.entries.block(self.place?)?;
        loop {
            let Some(found) = block.entry_before(self.at) else {
                self.place = self.entries.place_before(self.place?);
                block = self.entries.block(self.place?)?;
                self.at = block.end();
                continue;
            };
            if found.entry.id < self.start {
                return None;
            }
            self.at = found.start;
            if !found.is_deleted && found.entry.id <= self.end {
                return Some(found.entry);
            }
        }
    }
}

//! A large hash: a table of entries, each with field, value and perhaps expiry in one block.
//!
//! What expires is in an ordered set besides, by time and hash of the field, so that removing the
//! due fields costs nothing for the others. The hash leads to a bucket of the table; the field is
//! told from its neighbours there by its time.
//!
//! Invariant: `deadlines` has a line for each entry with an expiry (one for both, if two fields
//! share hash and time) and no other; `next` is its first time, or `NEVER`.
#![allow(unsafe_code)]

use std::collections::BTreeSet;

use super::{Field, FieldExpiry};
use crate::entry::{Content, Entry, EntryRef, INLINE_MAX, Payload};
use crate::listpack::Element;
use crate::size::size_class;
use crate::table::{Cursor, EntryMut, Table};
use crate::value::OwnBytes;

/// Fields that one call of `expire` removes at most, give or take one bucket.
const EXPIRED_AT_ONCE: usize = 1024;
const NEVER: u64 = u64::MAX;
/// What a line of `deadlines` costs: 16 bytes, and nodes that are two thirds full.
const DEADLINE_BYTES: usize = 24;

/// A value too long for its entry.
#[expect(clippy::box_collection, reason = "a payload is one word")]
pub(super) struct LongValue(Box<Vec<u8>>);

/// Of a value in place; a long one has the next.
const IN_PLACE: u8 = 0;
const LONG: u8 = 1;

// SAFETY: a box is one address, given away and taken back whole.
unsafe impl Payload for LongValue {
    fn pack(self) -> (u8, u64) {
        (LONG, Box::into_raw(self.0) as u64)
    }

    unsafe fn unpack(_kind: u8, word: u64) -> Self {
        // SAFETY: the caller hands over what `pack` made, once.
        Self(unsafe { Box::from_raw(word as *mut Vec<u8>) })
    }

    fn heap_bytes(&self) -> usize {
        size_class(size_of::<Vec<u8>>()) + size_class(self.0.capacity())
    }
}

/// The fields of a large hash.
pub struct Fields {
    pub(super) table: Table<LongValue>,
    deadlines: BTreeSet<(u64, u64)>,
    next: u64,
}

impl Default for Fields {
    fn default() -> Self {
        Self { table: Table::default(), deadlines: BTreeSet::new(), next: NEVER }
    }
}

impl OwnBytes for Fields {
    fn own_bytes(&self) -> usize {
        self.table.heap_bytes() + self.deadlines.len() * DEADLINE_BYTES
    }
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(super) fn get(&self, field: &[u8]) -> Option<Field<'_>> {
        Some(view(self.table.find(self.table.hash(field), field)?))
    }

    pub(super) fn set(&mut self, field: &[u8], value: &[u8], expiry: FieldExpiry) -> bool {
        let hash = self.table.hash(field);
        if let Some(mut entry) = self.table.find_mut(hash, field) {
            let old = entry.as_ref().expiry();
            put_value(&mut entry, value);
            let new = match expiry {
                FieldExpiry::Keep => old,
                FieldExpiry::Clear => None,
                FieldExpiry::At(at) => Some(at.max(1)),
            };
            if old != new {
                entry.set_expiry(new);
                self.change_deadline(hash, old, new);
            }
            return false;
        }
        let new = match expiry {
            FieldExpiry::Keep | FieldExpiry::Clear => None,
            FieldExpiry::At(at) => Some(at.max(1)),
        };
        let entry = if value.len() <= INLINE_MAX {
            Entry::inline(IN_PLACE, field, value, new)
        } else {
            Entry::object(field, LongValue(Box::new(value.to_vec())), new)
        };
        self.table.insert(hash, entry);
        if new.is_some() {
            self.change_deadline(hash, None, new);
        }
        true
    }

    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let hash = self.table.hash(field);
        let Some(entry) = self.table.remove(hash, field) else { return false };
        if let old @ Some(_) = entry.as_ref().expiry() {
            self.change_deadline(hash, old, None);
        }
        true
    }

    pub(super) fn set_expiry(&mut self, field: &[u8], expiry: Option<u64>) -> bool {
        let hash = self.table.hash(field);
        let Some(mut entry) = self.table.find_mut(hash, field) else { return false };
        let old = entry.as_ref().expiry();
        let new = expiry.map(|at| at.max(1));
        if old != new {
            entry.set_expiry(new);
            self.change_deadline(hash, old, new);
        }
        true
    }

    pub(super) fn next_expiry(&self) -> Option<u64> {
        (self.next != NEVER).then_some(self.next)
    }

    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<Vec<u8>> {
        let mut expired = Vec::new();
        let mut due: Vec<Vec<u8>> = Vec::new();
        while self.next <= now_ms && expired.len() < EXPIRED_AT_ONCE {
            let Some(line) = self.deadlines.pop_first() else { break };
            // The hash is the place of its bucket in a scan.
            self.table.scan_expiring(Cursor(line.1.reverse_bits()), |entry| {
                if entry.expiry().is_some_and(|at| at <= now_ms) {
                    due.push(entry.key().to_vec());
                }
            });
            self.next = self.first_deadline();
            for field in due.drain(..) {
                self.remove(&field);
                expired.push(field);
            }
        }
        expired
    }

    fn change_deadline(&mut self, hash: u64, old: Option<u64>, new: Option<u64>) {
        if let Some(at) = old {
            self.deadlines.remove(&(at, hash));
        }
        if let Some(at) = new {
            self.deadlines.insert((at, hash));
        }
        let first_went = old.is_some_and(|at| at <= self.next);
        if first_went || new.is_some_and(|at| at < self.next) {
            self.next = self.first_deadline();
        }
    }

    fn first_deadline(&self) -> u64 {
        self.deadlines.first().map_or(NEVER, |line| line.0)
    }
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        for Field { name, value, expiry } in self.table.iter().map(view) {
            let expiry = expiry.map_or(FieldExpiry::Clear, FieldExpiry::At);
            let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
            copy.set(name.as_bytes(&mut a), value.as_bytes(&mut b), expiry);
        }
        copy
    }
}

fn put_value(entry: &mut EntryMut<'_, LongValue>, value: &[u8]) {
    if value.len() <= INLINE_MAX {
        entry.set_inline(IN_PLACE, value);
    } else {
        entry.set_object(LongValue(Box::new(value.to_vec())));
    }
}

/// What an entry says.
#[inline]
pub(super) fn view(entry: EntryRef<'_, LongValue>) -> Field<'_> {
    let value = match entry.content() {
        Content::Inline(bytes) => bytes,
        Content::Object(object) => {
            let bytes: *const [u8] = object.0.as_slice();
            // SAFETY: the bytes are on the heap, owned by the entry, and neither can change while
            // it is borrowed; only the box around them was copied to the stack.
            unsafe { &*bytes }
        }
    };
    Field {
        name: Element::String(entry.key()),
        value: Element::String(value),
        expiry: entry.expiry(),
    }
}

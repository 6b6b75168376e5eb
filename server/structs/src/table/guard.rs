//! Guards of single entries in their table, through which all changes of an entry go: `EntryMut`,
//! `ObjectMut`, and what is found at the place of a key.
//!
//! A guard writes to its entry's slot by address, which safe Rust cannot express.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::{NonNull, copy_nonoverlapping};

use super::{ADDRESS, LOAD_MIN, Table, slot_word};
use crate::entry::{Block, Entry, EntryRef, INLINE_MAX, Payload};
use crate::size::size_class;

/// What `Table::place_of` found.
pub enum Place<'a, V: Payload> {
    Taken(EntryMut<'a, V>),
    Free(Vacancy<'a, V>),
}

/// The place of a key that is not in the table.
pub struct Vacancy<'a, V: Payload> {
    pub(super) table: &'a mut Table<V>,
    pub(super) hash: u64,
}

impl<'a, V: Payload> Vacancy<'a, V> {
    /// Adds an entry with the key that was looked up.
    pub fn insert(self, entry: Entry<V>) -> EntryMut<'a, V> {
        self.table.insert(self.hash, entry)
    }
}

/// An entry in its table, open for changes. All accounting of the table follows from here.
pub struct EntryMut<'a, V: Payload> {
    pub(super) table: &'a mut Table<V>,
    pub(super) slot: NonNull<u64>,
    pub(super) hash: u64,
}

impl<'a, V: Payload> EntryMut<'a, V> {
    fn block(&self) -> Block {
        // SAFETY: the slot stays in place while the table is borrowed.
        let word = unsafe { *self.slot.as_ptr() };
        Block(NonNull::new((word & ADDRESS) as *mut u8).expect("the slot is occupied"))
    }

    fn set_block(&mut self, block: Block) {
        let word = slot_word(block.0, self.hash, block.expiry().is_some());
        // SAFETY: the slot stays in place while the table is borrowed.
        unsafe { *self.slot.as_ptr() = word };
    }

    #[must_use]
    pub fn as_ref(&self) -> EntryRef<'_, V> {
        // SAFETY: the entry lives in the table, which is borrowed.
        unsafe { EntryRef::from_raw(self.block().0) }
    }

    /// A look that lasts as long as the table's borrow.
    #[must_use]
    pub fn into_ref(self) -> EntryRef<'a, V> {
        // SAFETY: the entry lives in the table, which is borrowed for `'a`.
        unsafe { EntryRef::from_raw(self.block().0) }
    }

    pub fn set_access(&mut self, access: u32) {
        self.block().set_access(access);
    }

    /// Whether a walk over what was there before the table's version was set has yet to come here.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.block().version() != self.table.version
    }

    /// Has such a walk pass this entry by.
    pub fn stamp(&mut self) {
        self.block().set_version(self.table.version);
    }

    /// Replaces the value by bytes in place (at most [`INLINE_MAX`]); key, expiry and access stay.
    pub fn set_inline(&mut self, kind: u8, value: &[u8]) {
        assert!(value.len() <= INLINE_MAX, "an inline value fits its length field");
        let block = self.room_for(kind, value.len());
        // SAFETY: `room_for` left a payload of exactly this length.
        unsafe { copy_nonoverlapping(value.as_ptr(), block.payload(), value.len()) };
    }

    /// Grows or shrinks an in-place value, keeping its bytes; new ones are zero. Returns the value.
    pub fn resize_inline(&mut self, kind: u8, length: usize) -> &mut [u8] {
        assert!(length <= INLINE_MAX, "an inline value fits its length field");
        let old = self.block();
        assert!(!old.is_object(), "only an in-place value is resized");
        let kept = old.payload_len().min(length);
        let block = if old.fits(length) {
            old.relabel(kind, length);
            old
        } else {
            let block = old.with_room(kind, length);
            // SAFETY: both payloads have at least `kept` bytes, in different blocks.
            unsafe { copy_nonoverlapping(old.payload(), block.payload(), kept) };
            self.table.bytes += size_class(block.size());
            self.table.bytes -= size_class(old.size());
            self.set_block(block);
            old.free();
            block
        };
        // SAFETY: the payload is `length` bytes; those past `kept` are initialised here.
        unsafe {
            block.payload().add(kept).write_bytes(0, length - kept);
            std::slice::from_raw_parts_mut(block.payload(), length)
        }
    }

    /// The bytes of an in-place value.
    pub fn inline_mut(&mut self) -> Option<&mut [u8]> {
        let block = self.block();
        if block.is_object() {
            return None;
        }
        // SAFETY: the payload of an inline entry is `payload_len` initialised bytes, and the
        // entry is borrowed mutably.
        Some(unsafe { std::slice::from_raw_parts_mut(block.payload(), block.payload_len()) })
    }

    /// Changes only the kind of an in-place value.
    pub fn set_kind(&mut self, kind: u8) {
        debug_assert!(!self.block().is_object(), "an object's kind is its own");
        self.block().set_kind(kind);
    }

    /// Replaces the value by an object; key, expiry and access stay.
    pub fn set_object(&mut self, value: V) {
        let added = value.heap_bytes();
        let block = self.room_for(0, 8);
        let (kind, word) = value.pack();
        let raw = block.with_object_flag(kind);
        raw.set_word(word);
        self.table.bytes += added;
    }

    /// A payload of `length` bytes, not yet written; the old value is gone.
    fn room_for(&mut self, kind: u8, length: usize) -> Block {
        let old = self.block();
        // SAFETY: the object is dropped here and its flag goes with the block or below.
        if let Some(object) = unsafe { old.take_object::<V>() } {
            self.table.bytes -= object.heap_bytes();
            old.clear_object_flag();
            drop(object);
        }
        if old.fits(length) {
            old.relabel(kind, length);
            return old;
        }
        let block = old.with_room(kind, length);
        self.table.bytes += size_class(block.size());
        self.table.bytes -= size_class(old.size());
        self.set_block(block);
        old.free();
        block
    }

    /// Sets or clears the expiry.
    pub fn set_expiry(&mut self, expiry: Option<u64>) {
        let old = self.block();
        match (old.expiry(), expiry) {
            (Some(_), Some(at)) => return old.replace_expiry(at),
            (None, None) => return,
            (Some(_), None) => self.table.expiring -= 1,
            (None, Some(_)) => self.table.expiring += 1,
        }
        let block = old.with_expiry(expiry);
        self.table.bytes += size_class(block.size());
        self.table.bytes -= size_class(old.size());
        self.set_block(block);
        old.free();
    }

    /// Takes the object out for changing it; it goes back when the guard is dropped.
    #[must_use]
    pub fn into_object_mut(self) -> Option<ObjectMut<'a, V>> {
        let block = self.block();
        if !block.is_object() {
            return None;
        }
        // SAFETY: the guard is the only user of the word until its drop packs it again.
        let value = unsafe { V::unpack(block.byte(0), block.word()) };
        let before = value.heap_bytes();
        Some(ObjectMut { entry: self, value: ManuallyDrop::new(value), before })
    }

    /// Changes the object in place; `None` if the value is not an object.
    pub fn with_object<R>(&mut self, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let same = EntryMut { table: &mut *self.table, slot: self.slot, hash: self.hash };
        Some(change(&mut *same.into_object_mut()?))
    }

    /// Takes the entry out of the table, and leaves its place for another.
    #[must_use]
    pub fn vacate(self) -> (Entry<V>, Vacancy<'a, V>) {
        let same = EntryMut { table: &mut *self.table, slot: self.slot, hash: self.hash };
        (same.remove(), Vacancy { table: self.table, hash: self.hash })
    }

    /// Takes the entry out of the table.
    #[must_use]
    pub fn remove(self) -> Entry<V> {
        let block = self.block();
        // SAFETY: the slot is vacated below, so the entry has one owner again.
        let entry = unsafe { Entry::<V>::from_raw(block.0) };
        self.table.bytes -= entry.heap_bytes();
        self.table.len -= 1;
        self.table.expiring -= usize::from(block.expiry().is_some());
        let index = self.table.index(self.hash);
        self.table.vacate(index, self.slot);
        if self.table.len < self.table.buckets * LOAD_MIN {
            self.table.shrink();
        }
        entry
    }
}

impl Block {
    fn clear_object_flag(self) {
        self.set_flags(self.flags() & !4);
    }

    fn with_object_flag(self, kind: u8) -> Self {
        self.set_kind(kind);
        self.set_flags(self.flags() | 4);
        self
    }

    fn set_flags(self, flags: u8) {
        // SAFETY: byte 1 is part of every header.
        unsafe { self.0.as_ptr().add(1).write(flags) };
    }
}

/// An object of an entry, open for changes.
pub struct ObjectMut<'a, V: Payload> {
    entry: EntryMut<'a, V>,
    value: ManuallyDrop<V>,
    before: usize,
}

impl<'a, V: Payload> ObjectMut<'a, V> {
    /// The entry around the object; its value is the one from before the object was opened.
    #[must_use]
    pub fn entry(&self) -> EntryRef<'_, V> {
        self.entry.as_ref()
    }

    /// Takes the entry out of the table, with the object as it is now.
    #[must_use]
    pub fn remove(self) -> Entry<V> {
        self.into_entry().remove()
    }

    /// Puts the object back and keeps the entry open.
    #[must_use]
    pub fn into_entry(self) -> EntryMut<'a, V> {
        let mut this = ManuallyDrop::new(self);
        this.put_back();
        let EntryMut { table, slot, hash } = &mut this.entry;
        let table: *mut Table<V> = *table;
        // SAFETY: `this` is never dropped or used again, so the exclusive borrow moves on.
        EntryMut { table: unsafe { &mut *table }, slot: *slot, hash: *hash }
    }

    fn put_back(&mut self) {
        let after = self.value.heap_bytes();
        self.entry.table.bytes = self.entry.table.bytes + after - self.before;
        // SAFETY: the value is taken once (here, from `drop` or `into_entry`), and its word goes
        // back to the entry.
        let (kind, word) = unsafe { ManuallyDrop::take(&mut self.value) }.pack();
        let block = self.entry.block();
        block.set_kind(kind);
        block.set_word(word);
    }
}

impl<V: Payload> std::ops::Deref for ObjectMut<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V: Payload> std::ops::DerefMut for ObjectMut<'_, V> {
    fn deref_mut(&mut self) -> &mut V {
        &mut self.value
    }
}

impl<V: Payload> Drop for ObjectMut<'_, V> {
    fn drop(&mut self) {
        self.put_back();
    }
}

//! A key, its header and its value in one allocation, behind a thin pointer.
//!
//! The cost of a large keyspace is memory latency: every dependent read is a miss. One block per
//! key leaves one miss after the bucket, and one allocation's rounding instead of three.
//!
//! Block layout (all little-endian, block aligned to 8):
//!
//! ```text
//! 0      kind: what the payload means; given by the owner of the entry
//! 1      flags: 1 has expiry, 2 long key, 4 payload is a packed object; top two bits: snapshot version
//! 2..5   access: 24 bits of LRU clock or LFU counter
//! 5      key length (0 when the long-key flag is set)
//! 6..8   payload length in bytes
//! 8..    expiry (8 bytes, if flagged), key length (8 bytes, if flagged), key, payload
//! ```
//!
//! The payload is either bytes in place (a small string) or one packed word, which together with
//! `kind` makes a `Payload` (a thin pointer to a larger structure).
//!
//! This module uses raw memory because the layout is not expressible in safe Rust.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::{NonNull, copy_nonoverlapping};

use crate::size::size_class;

/// The longest payload kept in place.
pub const INLINE_MAX: usize = u16::MAX as usize;
/// The longest key.
pub const KEY_MAX: usize = u32::MAX as usize;

const HEADER: usize = 8;
const HAS_EXPIRY: u8 = 1;
const LONG_KEY: u8 = 2;
const IS_OBJECT: u8 = 4;
const VERSION_SHIFT: u8 = 6;

/// A value that is one word (usually a thin pointer) plus a kind, so that the word can live in an
/// entry and the kind in its header.
///
/// # Safety
/// `unpack(pack(v))` must be `v`, and the word must stay valid wherever the entry moves.
pub unsafe trait Payload: Sized {
    /// Takes the value apart.
    fn pack(self) -> (u8, u64);
    /// Puts it together again.
    ///
    /// # Safety
    /// The arguments must come from `pack`, and the result may be owned only once.
    unsafe fn unpack(kind: u8, word: u64) -> Self;
    /// Heap bytes owned through the word.
    fn heap_bytes(&self) -> usize;
}

/// For tables whose entries never hold an object.
#[derive(Debug)]
pub enum NoObject {}

// SAFETY: no value of this type exists, so neither function is ever called with one.
unsafe impl Payload for NoObject {
    fn pack(self) -> (u8, u64) {
        match self {}
    }

    unsafe fn unpack(_: u8, _: u64) -> Self {
        unreachable!("an entry without objects has no packed payload")
    }

    fn heap_bytes(&self) -> usize {
        match *self {}
    }
}

/// An owned entry outside of any table.
pub struct Entry<V: Payload> {
    block: Block,
    owns: PhantomData<V>,
}

// SAFETY: an entry owns its block and, through it, a `V`; nothing is shared.
unsafe impl<V: Payload + Send> Send for Entry<V> {}

impl<V: Payload> Entry<V> {
    /// An entry with its value in place. `value` must not be longer than [`INLINE_MAX`].
    #[must_use]
    pub fn inline(kind: u8, key: &[u8], value: &[u8], expiry: Option<u64>) -> Self {
        assert!(value.len() <= INLINE_MAX, "an inline value fits its length field");
        let block = Block::build(kind, 0, key, value.len(), expiry);
        // SAFETY: `build` made room for exactly `value.len()` payload bytes at `payload`.
        unsafe { copy_nonoverlapping(value.as_ptr(), block.payload(), value.len()) };
        Self { block, owns: PhantomData }
    }

    /// An entry that holds a packed object.
    #[must_use]
    pub fn object(key: &[u8], value: V, expiry: Option<u64>) -> Self {
        let (kind, word) = value.pack();
        let block = Block::build(kind, IS_OBJECT, key, 8, expiry);
        block.set_word(word);
        Self { block, owns: PhantomData }
    }

    #[must_use]
    pub fn as_ref(&self) -> EntryRef<'_, V> {
        EntryRef { block: self.block, owns: PhantomData }
    }

    /// The same value under another key or expiry; the block is made anew.
    #[must_use]
    pub fn rebuilt(self, key: &[u8], expiry: Option<u64>) -> Self {
        let old = ManuallyDrop::new(self);
        let block = old.block.rebuilt(key, expiry);
        old.block.free();
        Self { block, owns: PhantomData }
    }

    /// Bytes the allocator reserved for the block, and those of the object it holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.as_ref().heap_bytes()
    }

    /// The object, if it is one; the block is freed.
    #[must_use]
    pub fn into_object(self) -> Option<V> {
        let this = ManuallyDrop::new(self);
        // SAFETY: the entry is consumed, so the object is taken out once.
        let value = unsafe { this.block.take_object::<V>() };
        this.block.free();
        value
    }

    pub(crate) fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).block.0
    }

    /// # Safety
    /// `raw` must come from `into_raw` of the same `V` and be owned by the caller.
    pub(crate) unsafe fn from_raw(raw: NonNull<u8>) -> Self {
        Self { block: Block(raw), owns: PhantomData }
    }
}

impl<V: Payload> Drop for Entry<V> {
    fn drop(&mut self) {
        // SAFETY: the entry is going away, so this is the last use of its object.
        drop(unsafe { self.block.take_object::<V>() });
        self.block.free();
    }
}

/// A look at an entry.
pub struct EntryRef<'a, V: Payload> {
    block: Block,
    owns: PhantomData<&'a V>,
}

impl<V: Payload> Clone for EntryRef<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: Payload> Copy for EntryRef<'_, V> {}

/// What an entry holds.
pub enum Content<'a, V: Payload> {
    Inline(&'a [u8]),
    Object(ObjectRef<'a, V>),
}

impl<'a, V: Payload> EntryRef<'a, V> {
    /// # Safety
    /// `raw` must point to a live block of `V` that is neither changed nor freed during `'a`.
    pub(crate) unsafe fn from_raw(raw: NonNull<u8>) -> Self {
        Self { block: Block(raw), owns: PhantomData }
    }

    /// The address of the block.
    pub(crate) fn raw(self) -> NonNull<u8> {
        self.block.0
    }

    #[must_use]
    pub fn key(self) -> &'a [u8] {
        let (start, length) = self.block.key_span();
        // SAFETY: the span lies in the block, which outlives `'a`.
        unsafe { std::slice::from_raw_parts(self.block.at(start), length) }
    }

    #[must_use]
    pub fn kind(self) -> u8 {
        self.block.byte(0)
    }

    #[must_use]
    pub fn is_object(self) -> bool {
        self.block.flags() & IS_OBJECT != 0
    }

    /// When the entry expires, in milliseconds of the caller's clock.
    #[must_use]
    pub fn expiry(self) -> Option<u64> {
        self.block.expiry()
    }

    /// The 24 bits of access clock or counter.
    #[must_use]
    pub fn access(self) -> u32 {
        self.block.access()
    }

    /// Bytes of an in-place value; `None` for an object.
    #[must_use]
    pub fn bytes(self) -> Option<&'a [u8]> {
        if self.is_object() {
            return None;
        }
        // SAFETY: the payload of an inline entry is `payload_len` initialised bytes.
        Some(unsafe { std::slice::from_raw_parts(self.block.payload(), self.block.payload_len()) })
    }

    #[must_use]
    pub fn object(self) -> Option<ObjectRef<'a, V>> {
        if !self.is_object() {
            return None;
        }
        // SAFETY: the copy made here is never dropped (`ManuallyDrop`) and lives no longer than
        // the entry it was read from.
        let value = unsafe { V::unpack(self.kind(), self.block.word()) };
        Some(ObjectRef { value: ManuallyDrop::new(value), entry: PhantomData })
    }

    #[must_use]
    pub fn content(self) -> Content<'a, V> {
        match self.object() {
            Some(object) => Content::Object(object),
            None => Content::Inline(self.bytes().expect("an entry is inline or an object")),
        }
    }

    #[must_use]
    pub fn heap_bytes(self) -> usize {
        let object = self.object().map_or(0, |object| object.heap_bytes());
        size_class(self.block.size()) + object
    }
}

/// A view of a packed object.
pub struct ObjectRef<'a, V> {
    value: ManuallyDrop<V>,
    entry: PhantomData<&'a V>,
}

impl<V> std::ops::Deref for ObjectRef<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// The thin pointer itself; all offsets are computed here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block(pub(crate) NonNull<u8>);

impl Block {
    /// A block with everything set but the payload's bytes.
    fn build(kind: u8, flags: u8, key: &[u8], payload: usize, expiry: Option<u64>) -> Self {
        assert!(key.len() <= KEY_MAX, "a key fits its length field");
        let long = key.len() > usize::from(u8::MAX);
        let flags =
            flags | if expiry.is_some() { HAS_EXPIRY } else { 0 } | if long { LONG_KEY } else { 0 };
        let key_start = HEADER + if expiry.is_some() { 8 } else { 0 } + if long { 8 } else { 0 };
        let size = key_start + key.len() + payload;
        let layout = Self::layout(size);
        // SAFETY: `layout` has a size of at least the header, so it is not zero.
        let Some(raw) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let block = Self(raw);
        let short_length = if long { 0 } else { key.len() as u8 };
        let header = u64::from(kind)
            | u64::from(flags) << 8
            | u64::from(short_length) << 40
            | (payload as u64) << 48;
        // SAFETY: the block has `size` bytes, and every write below stays under it: the header,
        // then each flagged word, then the key. The block is aligned to 8.
        unsafe {
            raw.as_ptr().cast::<u64>().write(header.to_le());
            if let Some(expiry) = expiry {
                raw.as_ptr().add(HEADER).cast::<u64>().write(expiry.to_le());
            }
            if long {
                raw.as_ptr().add(key_start - 8).cast::<u64>().write((key.len() as u64).to_le());
            }
            copy_nonoverlapping(key.as_ptr(), raw.as_ptr().add(key_start), key.len());
        }
        block
    }

    /// A copy with another key or expiry, holding the same payload and access bits.
    fn rebuilt(self, key: &[u8], expiry: Option<u64>) -> Self {
        let keep = self.flags() & (IS_OBJECT | 3 << VERSION_SHIFT);
        let copy = Self::build(self.byte(0), keep, key, self.payload_len(), expiry);
        copy.set_access(self.access());
        // SAFETY: both payloads have the same length, in different blocks.
        unsafe { copy_nonoverlapping(self.payload(), copy.payload(), self.payload_len()) };
        copy
    }

    /// A copy with the same key and expiry and room for another in-place payload.
    pub(crate) fn with_room(self, kind: u8, payload: usize) -> Self {
        let (start, length) = self.key_span();
        // SAFETY: the span lies in this block, which lives until the caller frees it.
        let key = unsafe { std::slice::from_raw_parts(self.at(start), length) };
        let version = self.flags() & 3 << VERSION_SHIFT;
        let copy = Self::build(kind, version, key, payload, self.expiry());
        copy.set_access(self.access());
        copy
    }

    /// The same block, with another payload length. Only for lengths within the same size class.
    pub(crate) fn relabel(self, kind: u8, payload: usize) {
        debug_assert_eq!(
            size_class(self.size() - self.payload_len() + payload),
            size_class(self.size()),
            "a block keeps its size class"
        );
        self.set_byte(0, kind);
        // SAFETY: bytes 6 and 7 are part of every header.
        unsafe { self.at(6).cast::<u16>().write((payload as u16).to_le()) };
    }

    pub(crate) fn fits(self, payload: usize) -> bool {
        size_class(self.size() - self.payload_len() + payload) == size_class(self.size())
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size_class(size), 8).expect("a block's size is bounded")
    }

    pub(crate) fn free(self) {
        // SAFETY: the block was allocated with this very layout: its size class does not change
        // while it lives (`relabel` keeps it).
        unsafe { dealloc(self.0.as_ptr(), Self::layout(self.size())) };
    }

    /// # Safety
    /// The object must not be used or taken again.
    pub(crate) unsafe fn take_object<V: Payload>(self) -> Option<V> {
        if self.flags() & IS_OBJECT == 0 {
            return None;
        }
        // SAFETY: the flag says the word was packed from a `V`; the caller owns it.
        Some(unsafe { V::unpack(self.byte(0), self.word()) })
    }

    pub(crate) fn size(self) -> usize {
        let (start, length) = self.key_span();
        start + length + self.payload_len()
    }

    fn at(self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= HEADER + 16 + KEY_MAX + INLINE_MAX);
        // SAFETY: callers pass offsets inside the block.
        unsafe { self.0.as_ptr().add(offset) }
    }

    fn header(self) -> u64 {
        // SAFETY: every block starts with an aligned, initialised header word.
        u64::from_le(unsafe { self.0.as_ptr().cast::<u64>().read() })
    }

    pub(crate) fn byte(self, index: usize) -> u8 {
        (self.header() >> (8 * index)) as u8
    }

    fn set_byte(self, index: usize, value: u8) {
        debug_assert!(index < HEADER);
        // SAFETY: the index lies in the header.
        unsafe { self.at(index).write(value) };
    }

    pub(crate) fn flags(self) -> u8 {
        self.byte(1)
    }

    pub(crate) fn is_object(self) -> bool {
        self.flags() & IS_OBJECT != 0
    }

    pub(crate) fn access(self) -> u32 {
        (self.header() >> 16) as u32 & 0x00ff_ffff
    }

    pub(crate) fn set_access(self, access: u32) {
        let bytes = access.to_le_bytes();
        // SAFETY: bytes 2 to 4 are part of every header.
        unsafe { copy_nonoverlapping(bytes.as_ptr(), self.at(2), 3) };
    }

    pub(crate) fn version(self) -> u8 {
        self.flags() >> VERSION_SHIFT
    }

    pub(crate) fn set_version(self, version: u8) {
        let flags = self.flags() & !(3 << VERSION_SHIFT) | version << VERSION_SHIFT;
        self.set_byte(1, flags);
    }

    pub(crate) fn expiry(self) -> Option<u64> {
        if self.flags() & HAS_EXPIRY == 0 {
            return None;
        }
        // SAFETY: the flag says an aligned expiry word follows the header.
        Some(u64::from_le(unsafe { self.at(HEADER).cast::<u64>().read() }))
    }

    /// Overwrites an expiry that is there already.
    pub(crate) fn replace_expiry(self, expiry: u64) {
        debug_assert!(self.flags() & HAS_EXPIRY != 0);
        // SAFETY: the flag says an aligned expiry word follows the header.
        unsafe { self.at(HEADER).cast::<u64>().write(expiry.to_le()) };
    }

    /// The same value with or without an expiry, in a new block.
    pub(crate) fn with_expiry(self, expiry: Option<u64>) -> Self {
        let (start, length) = self.key_span();
        // SAFETY: the span lies in this block, which lives until the caller frees it.
        let key = unsafe { std::slice::from_raw_parts(self.at(start), length) };
        self.rebuilt(key, expiry)
    }

    #[inline]
    pub(crate) fn key_span(self) -> (usize, usize) {
        let header = self.header();
        let flags = (header >> 8) as u8;
        let start = HEADER + 8 * usize::from(flags & HAS_EXPIRY);
        if flags & LONG_KEY == 0 {
            return (start, (header >> 40) as u8 as usize);
        }
        // SAFETY: the flag says an aligned length word stands before the key.
        let length = u64::from_le(unsafe { self.at(start).cast::<u64>().read() });
        (start + 8, length as usize)
    }

    pub(crate) fn payload_len(self) -> usize {
        (self.header() >> 48) as usize
    }

    pub(crate) fn payload(self) -> *mut u8 {
        let (start, length) = self.key_span();
        self.at(start + length)
    }

    pub(crate) fn word(self) -> u64 {
        // SAFETY: an object's payload is 8 bytes, at any alignment.
        u64::from_le(unsafe { self.payload().cast::<u64>().read_unaligned() })
    }

    pub(crate) fn set_word(self, word: u64) {
        // SAFETY: an object's payload is 8 bytes, at any alignment.
        unsafe { self.payload().cast::<u64>().write_unaligned(word.to_le()) };
    }

    pub(crate) fn set_kind(self, kind: u8) {
        self.set_byte(0, kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_what_it_was_given() {
        for key_len in [0_usize, 1, 16, 255, 256, 70_000] {
            for value_len in [0_usize, 1, 32, 4096] {
                for expiry in [None, Some(0), Some(u64::MAX)] {
                    let key = vec![b'k'; key_len];
                    let value = vec![b'v'; value_len];
                    let entry = Entry::<NoObject>::inline(7, &key, &value, expiry);
                    let look = entry.as_ref();
                    assert_eq!(look.key(), key);
                    assert_eq!(look.bytes(), Some(value.as_slice()));
                    assert_eq!(look.expiry(), expiry);
                    assert_eq!(look.kind(), 7);
                    let moved = entry.rebuilt(b"other", Some(9));
                    assert_eq!(moved.as_ref().key(), b"other");
                    assert_eq!(moved.as_ref().bytes(), Some(value.as_slice()));
                    assert_eq!(moved.as_ref().expiry(), Some(9));
                }
            }
        }
    }

    #[test]
    fn a_16_byte_key_and_32_byte_value_take_56_bytes() {
        let entry = Entry::<NoObject>::inline(0, &[b'k'; 16], &[b'v'; 32], None);
        assert_eq!(entry.heap_bytes(), 56);
    }
}

//! A heap block behind one word: its own header says how long it is.
//!
//! A small aggregate is one pointer in its key's entry, so it can afford neither a length nor a
//! capacity beside the pointer. Redis's listpack and intset both begin with what gives their length;
//! the allocation is the allocator's size class of that length. All `unsafe` of the two encodings is
//! here: what they build on top is ordinary checked code over slices.
//!
//! Invariant: the allocation has `size_class(F::total(header))` bytes, of which the first
//! `F::total(header)` are initialized, and `F::HEADER <= F::total(header)`. Only this module writes
//! header bytes.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use crate::size::size_class;

/// How a block's header gives its length.
///
/// # Safety
///
/// `total` depends on nothing but the first `HEADER` bytes of its argument.
pub(crate) unsafe trait Format {
    const HEADER: usize;

    /// The length of the whole block, header included, in bytes.
    fn total(header: &[u8]) -> usize;
}

pub(crate) enum ListpackFormat {}

// SAFETY: reads the first four bytes only.
unsafe impl Format for ListpackFormat {
    const HEADER: usize = 6;

    fn total(header: &[u8]) -> usize {
        u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize
    }
}

pub(crate) enum IntsetFormat {}

// SAFETY: reads the first eight bytes only.
unsafe impl Format for IntsetFormat {
    const HEADER: usize = 8;

    fn total(header: &[u8]) -> usize {
        let width = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        // Refused before a block is made of it; saturating keeps the function total.
        Self::HEADER.saturating_add(width.saturating_mul(length))
    }
}

pub(crate) struct ThinBlock<F: Format> {
    start: NonNull<u8>,
    format: PhantomData<F>,
}

// SAFETY: the block is owned by this value alone, and holds plain bytes.
unsafe impl<F: Format> Send for ThinBlock<F> {}
// SAFETY: shared access only reads; every change takes `&mut self`.
unsafe impl<F: Format> Sync for ThinBlock<F> {}

impl<F: Format> ThinBlock<F> {
    /// A block of exactly these bytes, whose header has to agree with their number.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self::from_parts([bytes])
    }

    /// A block of the concatenation of `parts`, the first of which holds the header.
    #[inline]
    pub(crate) fn from_parts<const N: usize>(parts: [&[u8]; N]) -> Self {
        let total = parts.iter().map(|part| part.len()).sum();
        assert!(
            F::HEADER <= parts[0].len() && F::total(parts[0]) == total,
            "header gives the length"
        );
        let start = allocate(total);
        let mut place = start;
        for part in parts {
            // SAFETY: the parts have `total` bytes together, the allocation at least as many, and
            // a fresh block overlaps nothing.
            unsafe {
                ptr::copy_nonoverlapping(part.as_ptr(), place.as_ptr(), part.len());
                place = place.add(part.len());
            }
        }
        Self { start, format: PhantomData }
    }

    /// A block with this header and zeros behind it.
    pub(crate) fn zeroed(header: &[u8]) -> Self {
        let total = F::total(header);
        assert!(header.len() == F::HEADER && F::HEADER <= total, "a header and its length");
        let start = allocate(total);
        // SAFETY: both ranges lie in the allocation, which is fresh and overlaps nothing.
        unsafe {
            ptr::copy_nonoverlapping(header.as_ptr(), start.as_ptr(), F::HEADER);
            ptr::write_bytes(start.add(F::HEADER).as_ptr(), 0, total - F::HEADER);
        }
        Self { start, format: PhantomData }
    }

    /// Gives the block away as one word.
    pub(crate) fn into_word(self) -> u64 {
        ManuallyDrop::new(self).start.as_ptr() as u64
    }

    /// # Safety
    ///
    /// The word comes from `into_word` of the same format, and is taken back once.
    pub(crate) unsafe fn from_word(word: u64) -> Self {
        let start = NonNull::new(word as *mut u8).expect("a block has an address");
        Self { start, format: PhantomData }
    }

    #[inline]
    pub(crate) fn header(&self) -> &[u8] {
        // SAFETY: by the invariant the first `HEADER` bytes exist and are initialized.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), F::HEADER) }
    }

    #[inline]
    pub(crate) fn total(&self) -> usize {
        F::total(self.header())
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: by the invariant `total` bytes are initialized; `&self` keeps them in place.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.total()) }
    }

    /// What follows the header. The header itself cannot be changed through it.
    #[inline]
    pub(crate) fn body_mut(&mut self) -> &mut [u8] {
        let length = self.total() - F::HEADER;
        // SAFETY: `HEADER + length` is the total, all of it initialized and owned by `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(F::HEADER), length) }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_class(self.total())
    }

    /// Puts the concatenation of `parts` in the place of `removed` bytes at `at`, and `header` in
    /// the place of the header, which has to give the new length.
    #[inline]
    pub(crate) fn splice<const N: usize>(
        &mut self,
        at: usize,
        removed: usize,
        parts: [&[u8]; N],
        header: &[u8],
    ) {
        let added = parts.iter().map(|part| part.len()).sum();
        let mut place = self.open(at, removed, added, header);
        for part in parts {
            // SAFETY: `open` left `added` bytes at `at`, the sum of the lengths of the parts, and
            // a part is borrowed apart from `self`.
            unsafe {
                ptr::copy_nonoverlapping(part.as_ptr(), place.as_ptr(), part.len());
                place = place.add(part.len());
            }
        }
    }

    /// Like `splice`, with zeros for the caller to overwrite.
    pub(crate) fn splice_zeros(
        &mut self,
        at: usize,
        removed: usize,
        added: usize,
        header: &[u8],
    ) -> &mut [u8] {
        let place = self.open(at, removed, added, header);
        // SAFETY: `open` left `added` bytes at `at`; they are written before they are borrowed.
        unsafe {
            ptr::write_bytes(place.as_ptr(), 0, added);
            std::slice::from_raw_parts_mut(place.as_ptr(), added)
        }
    }

    /// Replaces the header by one that gives the same length.
    pub(crate) fn set_header(&mut self, header: &[u8]) {
        assert!(header.len() == F::HEADER && F::total(header) == self.total(), "same length");
        // SAFETY: the first `HEADER` bytes are ours; `header` is borrowed apart from `self`.
        unsafe { ptr::copy_nonoverlapping(header.as_ptr(), self.start.as_ptr(), F::HEADER) };
    }

    /// Resizes the block around `at`, writes the header, and returns the address of the `added`
    /// bytes at `at`, which the caller has to write before anything reads them.
    #[inline]
    fn open(&mut self, at: usize, removed: usize, added: usize, header: &[u8]) -> NonNull<u8> {
        let old = self.total();
        assert!(F::HEADER <= at && at <= old && removed <= old - at, "splice within the block");
        let new = old - removed + added;
        assert!(header.len() == F::HEADER && F::total(header) == new, "header gives the length");
        let tail = old - at - removed;

        if old < new {
            self.reallocate(old, new);
        }
        if removed != added {
            // SAFETY: the allocation now has room for the longer of the two lengths; source and
            // target ranges both end within it, at `old` and `new`.
            unsafe {
                let base = self.start.as_ptr();
                ptr::copy(base.add(at + removed), base.add(at + added), tail);
            }
        }
        if new < old {
            self.reallocate(old, new);
        }
        // SAFETY: the header lies in the first `HEADER` bytes, and `at` within the allocation.
        unsafe {
            ptr::copy_nonoverlapping(header.as_ptr(), self.start.as_ptr(), F::HEADER);
            self.start.add(at)
        }
    }

    #[inline]
    fn reallocate(&mut self, old: usize, new: usize) {
        let (from, to) = (layout(old), layout(new));
        if from.size() == to.size() {
            return;
        }
        // SAFETY: by the invariant the block was allocated with `from`; the new size is not zero.
        let start = unsafe { realloc(self.start.as_ptr(), from, to.size()) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(to) };
        self.start = start;
    }
}

impl<F: Format> Drop for ThinBlock<F> {
    fn drop(&mut self) {
        // SAFETY: by the invariant the block was allocated with this layout; it is not used again.
        unsafe { dealloc(self.start.as_ptr(), layout(self.total())) };
    }
}

impl<F: Format> Clone for ThinBlock<F> {
    fn clone(&self) -> Self {
        Self::new(self.bytes())
    }
}

/// Room for a block of `total` bytes, which is not 0.
#[inline]
fn allocate(total: usize) -> NonNull<u8> {
    assert!(total != 0, "a block has a header");
    let layout = layout(total);
    // SAFETY: the size is not zero.
    let start = unsafe { alloc(layout) };
    match NonNull::new(start) {
        Some(start) => start,
        None => handle_alloc_error(layout),
    }
}

#[inline]
fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(size_class(bytes), 1)
        .expect("a listpack or intset is far below isize::MAX")
}

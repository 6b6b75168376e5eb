//! The table: thin entries in cache-line buckets, grown one bucket at a time.
//!
//! A bucket is one cache line of eight slots. A slot is an entry's address with 15 bits of the
//! key's hash and one bit "expires" in its unused top bits, so a lookup reads the bucket's line
//! and, nearly always, just the entry it wants. A ninth entry moves to an overflow bucket.
//!
//! Growth is linear hashing: when the average bucket holds more than `LOAD` entries, the next
//! bucket in turn is split in two. No step costs more than one bucket, whatever the size, and the
//! fill stays even. Shrinking runs the same steps backwards. Buckets live in pages so that growth
//! never copies the directory's contents.
//!
//! Scanning visits buckets in the order of their bit-reversed index, in which a split or a merge
//! only refines or joins neighbouring ranges: an element present from start to end of a scan is
//! returned at least once.
//!
//! Invariants: `len` is the number of occupied slots; `expiring` those whose top bit is set, which
//! is so exactly when their entry has an expiry; `bytes` the allocator's bytes of all buckets,
//! entries and objects; an overflow bucket is never empty.
//!
//! This module owns entries by raw address, which safe Rust cannot express.
#![allow(unsafe_code)]

mod guard;

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::marker::PhantomData;
use std::ptr::NonNull;

use ahash::RandomState;
use smallvec::SmallVec;

pub use guard::{EntryMut, ObjectMut, Place, Vacancy};

use crate::entry::{Block, Entry, EntryRef, Payload};

const SLOTS: usize = 8;
/// Average entries a bucket above which the table grows.
const LOAD: usize = 6;
/// Average entries a bucket below which it shrinks.
const LOAD_MIN: usize = 2;
const PAGE: usize = 256;
const ADDRESS: u64 = (1 << 48) - 1;
const EXPIRES: u64 = 1 << 63;
const TAG_SHIFT: u32 = 48;
/// Marks the last slot of a bucket as the address of an overflow bucket.
const CHAIN: u64 = 0x7fff << TAG_SHIFT;
const BUCKET_BYTES: usize = size_of::<Bucket>();

#[repr(align(64))]
struct Bucket {
    /// Cells, because a slot found through a shared borrow is written through an exclusive one.
    slots: [Cell<u64>; SLOTS],
}

impl Bucket {
    fn empty() -> Self {
        Self { slots: [const { Cell::new(0) }; SLOTS] }
    }

    fn overflow(&self) -> Option<NonNull<Self>> {
        let last = self.slots[SLOTS - 1].get();
        if last & !ADDRESS & !EXPIRES == CHAIN {
            NonNull::new((last & ADDRESS) as *mut Self)
        } else {
            None
        }
    }

    /// The slots that hold entries, were they all occupied.
    fn entry_slots(&self) -> usize {
        if self.overflow().is_some() { SLOTS - 1 } else { SLOTS }
    }
}

/// The slot words of one bucket and its overflow.
type Words = SmallVec<[u64; 2 * SLOTS]>;

/// Where a scan stands; 0 is both the start and the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub u64);

impl Cursor {
    /// Places are multiples of this as long as a table has fewer than 2^48 buckets.
    const CLIENT_SHIFT: u32 = 16;

    /// A cursor as a client gives it back: any number is safe.
    #[must_use]
    pub const fn from_client(cursor: u64) -> Self {
        Self(cursor << Self::CLIENT_SHIFT)
    }

    /// The cursor as a number that clients with signed integers can hold.
    #[must_use]
    pub const fn to_client(self) -> u64 {
        self.0 >> Self::CLIENT_SHIFT
    }
}

/// An entry's address, by which another index refers to it: good until the entry is removed or gets
/// another block (by a longer value, or an expiry).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(NonNull<u8>);

// SAFETY: a handle is a number; only the table makes a pointer of it again.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    #[inline]
    pub(crate) fn of<V: Payload>(entry: EntryRef<'_, V>) -> Self {
        Self(entry.raw())
    }

    /// Starts loading the entry.
    #[inline]
    pub(crate) fn prefetch(self) {
        prefetch(self.0.as_ptr());
    }
}

/// A set of entries by key.
pub struct Table<V: Payload> {
    pages: Vec<Box<[Bucket]>>,
    /// Buckets in use: `2^level <= buckets < 2^(level+1)`.
    buckets: usize,
    level: u32,
    /// What is inserted gets this version. Entries of another are those a walk has yet to visit.
    version: u8,
    len: usize,
    expiring: usize,
    bytes: usize,
    hasher: RandomState,
    owns: PhantomData<V>,
}

// SAFETY: the table owns its entries; the raw addresses are never shared.
unsafe impl<V: Payload + Send> Send for Table<V> {}
// SAFETY: shared access only reads.
unsafe impl<V: Payload + Sync> Sync for Table<V> {}

impl<V: Payload> Default for Table<V> {
    fn default() -> Self {
        Self::new(RandomState::new())
    }
}

impl<V: Payload> Table<V> {
    /// An empty table; nothing is allocated before the first insertion.
    #[must_use]
    pub fn new(hasher: RandomState) -> Self {
        Self {
            pages: Vec::new(),
            buckets: 0,
            level: 0,
            version: 0,
            len: 0,
            expiring: 0,
            bytes: 0,
            hasher,
            owns: PhantomData,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries that have an expiry.
    #[must_use]
    pub fn expiring(&self) -> usize {
        self.expiring
    }

    /// Bytes reserved for buckets, entries and what they own.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.bytes
    }

    /// Buckets and slots in use, for statistics.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.buckets
    }

    #[inline]
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        hash_key(&self.hasher, key)
    }

    /// Starts loading the bucket of `hash`.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        if self.buckets != 0 {
            prefetch(std::ptr::from_ref(self.bucket(self.index(hash))).cast());
        }
    }

    /// Starts loading the entry of `hash`, once its bucket is there.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        if self.buckets == 0 {
            return;
        }
        let tag = tag_of(hash);
        for slot in self.bucket(self.index(hash)).slots.iter().map(Cell::get) {
            if slot & !ADDRESS & !EXPIRES == tag {
                let address = (slot & ADDRESS) as *const u8;
                // An entry of the usual size may straddle two lines, and three with a value of 64 bytes.
                prefetch(address);
                prefetch(address.wrapping_add(56));
                prefetch(address.wrapping_add(112));
            }
        }
    }

    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<EntryRef<'_, V>> {
        let slot = self.locate(hash, key)?;
        // SAFETY: `locate` returns a live slot of this table, borrowed for as long as `self`.
        let slot = unsafe { *slot.as_ref() };
        Some(self.entry_at(slot))
    }

    #[inline]
    pub fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<EntryMut<'_, V>> {
        let slot = self.locate(hash, key)?;
        Some(EntryMut { table: self, slot, hash })
    }

    /// The place of a key in one lookup, for taking it if it is free.
    #[inline]
    pub fn place_of(&mut self, hash: u64, key: &[u8]) -> Place<'_, V> {
        match self.locate(hash, key) {
            Some(slot) => Place::Taken(EntryMut { table: self, slot, hash }),
            None => Place::Free(Vacancy { table: self, hash }),
        }
    }

    /// # Safety
    /// The handle must be good, and of an entry of this table.
    #[inline]
    pub(crate) unsafe fn look(&self, handle: Handle) -> EntryRef<'_, V> {
        // SAFETY: the caller knows the entry to be alive in this table, which is borrowed for as
        // long as the look lasts.
        unsafe { EntryRef::from_raw(handle.0) }
    }

    /// The bytes of an entry that holds them in place.
    ///
    /// # Safety
    /// The handle must be good, and of an entry of this table.
    pub(crate) unsafe fn inline_at(&mut self, handle: Handle) -> &mut [u8] {
        let block = Block(handle.0);
        assert!(!block.is_object(), "the entry holds bytes");
        // SAFETY: the caller knows the block to be alive in this table, which is borrowed mutably;
        // the payload of an inline entry is `payload_len` initialised bytes.
        unsafe { std::slice::from_raw_parts_mut(block.payload(), block.payload_len()) }
    }

    /// Takes an entry out of the table.
    ///
    /// # Safety
    /// The handle must be good, and of an entry of this table. It is not good afterwards.
    pub(crate) unsafe fn take(&mut self, handle: Handle) -> Entry<V> {
        // SAFETY: the caller knows the entry to be alive.
        let hash = self.hash(unsafe { self.look(handle) }.key());
        let address = handle.0.as_ptr() as u64;
        let slot = self
            .chain(self.index(hash))
            .find(|slot| slot.get() & ADDRESS == address)
            .and_then(|slot| NonNull::new(slot.as_ptr()))
            .expect("the entry is in its bucket");
        EntryMut { table: self, slot, hash }.remove()
    }

    /// Adds an entry whose key is not in the table.
    pub fn insert(&mut self, hash: u64, entry: Entry<V>) -> EntryMut<'_, V> {
        debug_assert!(self.find(hash, entry.as_ref().key()).is_none(), "keys are unique");
        if self.buckets * LOAD <= self.len {
            self.grow();
        }
        self.bytes += entry.heap_bytes();
        self.len += 1;
        let expires = entry.as_ref().expiry().is_some();
        self.expiring += usize::from(expires);
        let raw = entry.into_raw();
        // Nearly always equal, and a byte written into the header delays the next read of it.
        if Block(raw).version() != self.version {
            Block(raw).set_version(self.version);
        }
        let word = slot_word(raw, hash, expires);
        let slot = self.place(self.index(hash), word);
        EntryMut { table: self, slot, hash }
    }

    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry<V>> {
        Some(self.find_mut(hash, key)?.remove())
    }

    /// Removes every entry and gives back all memory.
    pub fn clear(&mut self) {
        let version = self.version;
        *self = Self::new(self.hasher.clone());
        self.version = version;
    }

    /// A uniformly random entry. `random` gives uniform 64-bit numbers.
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<EntryRef<'_, V>> {
        if self.len == 0 {
            return None;
        }
        // Rejection keeps the choice uniform: every bucket offers the same number of places,
        // occupied or not. A bucket still to be split holds up to twice `LOAD` on average, so one
        // in some thousand chains is longer; it offers a place to each of its entries all the same,
        // at odds that are a little too small.
        const PLACES: usize = 3 * SLOTS;
        loop {
            let number = random();
            let index = (((number >> 32) * self.buckets as u64) >> 32) as usize;
            let places = PLACES.max(self.words(index).count()) as u64;
            let place = (((number & 0xffff_ffff) * places) >> 32) as usize;
            if let Some(slot) = self.words(index).nth(place) {
                return Some(self.entry_at(slot));
            }
        }
    }

    /// Visits one bucket (and its overflow) and returns where to go on; `Cursor(0)` at the end.
    pub fn scan(&self, cursor: Cursor, mut visit: impl FnMut(EntryRef<'_, V>)) -> Cursor {
        if self.buckets == 0 {
            return Cursor(0);
        }
        let (index, next) = self.scan_step(cursor);
        for slot in self.words(index) {
            visit(self.entry_at(slot));
        }
        next
    }

    /// Visits the entries of one bucket that have an expiry, without touching the others' memory.
    pub fn scan_expiring(&self, cursor: Cursor, mut visit: impl FnMut(EntryRef<'_, V>)) -> Cursor {
        if self.buckets == 0 {
            return Cursor(0);
        }
        let (index, next) = self.scan_step(cursor);
        for slot in self.words(index) {
            if slot & EXPIRES != 0 {
                visit(self.entry_at(slot));
            }
        }
        next
    }

    /// The version of what is inserted.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Sets the version of what is inserted from now on, below 4. Entries that are there keep theirs and
    /// are stale until they are stamped.
    pub fn set_version(&mut self, version: u8) {
        assert!(version < 4, "a version has two bits");
        self.version = version;
    }

    /// Visits the stale entries of one bucket (and its overflow), stamps those that `visit` is through with,
    /// and returns where to go on; `Cursor(0)` at the end. From start to end of such a walk each entry that
    /// was stale at its start and is not removed or stamped by others is visited exactly once, unless `visit`
    /// said that it was not through: then it stays stale, and is met again by who stays at this cursor.
    pub fn visit_stale(
        &mut self,
        cursor: Cursor,
        mut visit: impl FnMut(EntryRef<'_, V>) -> bool,
    ) -> Cursor {
        if self.buckets == 0 {
            return Cursor(0);
        }
        let (index, next) = self.scan_step(cursor);
        if next != Cursor(0) {
            // The next call will read these.
            for word in self.words(self.scan_step(next).0) {
                prefetch((word & ADDRESS) as *const u8);
            }
        }
        for word in self.words(index) {
            let entry = self.entry_at(word);
            let block = Block(entry.raw());
            if block.version() != self.version && visit(entry) {
                // The table is borrowed exclusively, and nobody else looks at the entry any more.
                block.set_version(self.version);
            }
        }
        next
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_, V>> {
        (0..self.buckets).flat_map(|index| self.words(index)).map(|slot| self.entry_at(slot))
    }

    /// Removes the entries for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(EntryRef<'_, V>) -> bool) {
        let doomed: Vec<(u64, Vec<u8>)> = self
            .iter()
            .filter(|&entry| !keep(entry))
            .map(|entry| (self.hash(entry.key()), entry.key().to_vec()))
            .collect();
        for (hash, key) in doomed {
            self.remove(hash, &key);
        }
    }

    #[inline]
    fn locate(&self, hash: u64, key: &[u8]) -> Option<NonNull<u64>> {
        if self.buckets == 0 {
            return None;
        }
        let tag = tag_of(hash);
        let mut bucket = self.bucket(self.index(hash));
        loop {
            for slot in &bucket.slots {
                let word = slot.get();
                if word & !ADDRESS & !EXPIRES == tag && self.entry_at(word).key() == key {
                    return NonNull::new(slot.as_ptr());
                }
            }
            // SAFETY: an overflow address is that of a live bucket owned by this table.
            bucket = unsafe { bucket.overflow()?.as_ref() };
        }
    }

    #[inline]
    fn index(&self, hash: u64) -> usize {
        let wide = hash as usize & ((2 << self.level) - 1);
        if wide < self.buckets { wide } else { hash as usize & ((1 << self.level) - 1) }
    }

    #[inline]
    fn bucket(&self, index: usize) -> &Bucket {
        &self.pages[index / PAGE][index % PAGE]
    }

    fn bucket_mut(&mut self, index: usize) -> &mut Bucket {
        &mut self.pages[index / PAGE][index % PAGE]
    }

    fn entry_at(&self, slot: u64) -> EntryRef<'_, V> {
        let raw = NonNull::new((slot & ADDRESS) as *mut u8).expect("the slot is occupied");
        // SAFETY: an occupied slot holds the address of an entry this table owns, and `self` is
        // borrowed for as long as the look lasts.
        unsafe { EntryRef::from_raw(raw) }
    }

    /// The words of a bucket's occupied slots, its overflow included.
    fn words(&self, index: usize) -> impl Iterator<Item = u64> {
        self.chain(index).map(Cell::get).filter(|&word| word != 0)
    }

    /// All entry slots of a bucket and its overflow, empty ones included.
    fn chain(&self, index: usize) -> impl Iterator<Item = &Cell<u64>> {
        let mut next = Some(self.bucket(index));
        std::iter::from_fn(move || {
            let bucket = next?;
            // SAFETY: an overflow address is that of a live bucket owned by this table.
            next = bucket.overflow().map(|overflow| unsafe { overflow.as_ref() });
            Some(&bucket.slots[..bucket.entry_slots()])
        })
        .flatten()
    }

    fn scan_step(&self, cursor: Cursor) -> (usize, Cursor) {
        let index = self.index(cursor.0.reverse_bits());
        // The bucket covers all hashes that end in its index: one range of reversed hashes.
        let split = index >= 1 << self.level || index + (1 << self.level) < self.buckets;
        let bits = self.level + u32::from(split);
        if bits == 0 {
            return (index, Cursor(0));
        }
        let width = 1_u64 << (64 - bits);
        let start = cursor.0 & !(width - 1);
        (index, Cursor(start.wrapping_add(width)))
    }

    /// Puts a slot word into the first free place of a bucket.
    fn place(&mut self, index: usize, word: u64) -> NonNull<u64> {
        let mut added = 0;
        let mut bucket = self.bucket_mut(index);
        let slot = loop {
            let entry_slots = bucket.entry_slots();
            if let Some(free) = bucket.slots[..entry_slots].iter().position(|slot| slot.get() == 0)
            {
                break &bucket.slots[free];
            }
            if let Some(mut overflow) = bucket.overflow() {
                // SAFETY: an overflow address is that of a live bucket owned by this table.
                bucket = unsafe { overflow.as_mut() };
                continue;
            }
            let child = Box::new(Bucket::empty());
            added += BUCKET_BYTES;
            child.slots[0].set(bucket.slots[SLOTS - 1].get());
            let child = Box::into_raw(child);
            bucket.slots[SLOTS - 1].set(CHAIN | child as u64);
            // SAFETY: the child was just made and is owned by the chain from here on.
            bucket = unsafe { &mut *child };
        };
        slot.set(word);
        let slot = NonNull::new(slot.as_ptr()).expect("a slot has an address");
        self.bytes += added;
        slot
    }

    /// Takes all slot words out of a bucket, frees its overflow, and leaves it empty.
    fn drain(&mut self, index: usize) -> Words {
        let words = self.words(index).collect();
        let mut overflow = self.bucket(index).overflow();
        *self.bucket_mut(index) = Bucket::empty();
        while let Some(bucket) = overflow {
            // SAFETY: overflow buckets come from `Box::into_raw`, and the only reference to this
            // one was just dropped.
            overflow = unsafe { Box::from_raw(bucket.as_ptr()) }.overflow();
            self.bytes -= BUCKET_BYTES;
        }
        words
    }

    /// Adds one bucket and moves its share of entries there.
    fn grow(&mut self) {
        let new = self.buckets;
        self.reserve_bucket(new);
        self.buckets += 1;
        self.level = self.buckets.ilog2();
        if new == 0 {
            return;
        }
        let words = self.drain(parent(new));
        for word in &words {
            prefetch((word & ADDRESS) as *const u8);
        }
        for word in words {
            let hash = self.hash(self.entry_at(word).key());
            self.place(self.index(hash), word);
        }
    }

    /// Joins the last bucket with the one it was split from.
    fn shrink(&mut self) {
        if self.buckets <= 1 {
            return;
        }
        let last = self.buckets - 1;
        let words = self.drain(last);
        self.buckets = last;
        self.level = last.ilog2();
        for word in words {
            self.place(parent(last), word);
        }
        self.release_pages();
    }

    fn reserve_bucket(&mut self, index: usize) {
        let (page, place) = (index / PAGE, index % PAGE);
        if page == 0 {
            // The first page grows with the table, so that small tables stay small.
            let have = self.pages.first().map_or(0, |page| page.len());
            if place < have {
                return;
            }
            let wanted = (have * 2).clamp(1, PAGE);
            let mut grown: Vec<Bucket> = Vec::with_capacity(wanted);
            if let Some(old) = self.pages.pop() {
                grown.extend(Vec::from(old));
            }
            grown.resize_with(wanted, Bucket::empty);
            self.bytes += (wanted - have) * BUCKET_BYTES;
            self.pages.push(grown.into_boxed_slice());
        } else if page == self.pages.len() {
            let fresh: Vec<Bucket> = std::iter::repeat_with(Bucket::empty).take(PAGE).collect();
            self.bytes += PAGE * BUCKET_BYTES;
            self.pages.push(fresh.into_boxed_slice());
        }
    }

    fn release_pages(&mut self) {
        // One spare page stays, so that a size that swings around a border does not thrash.
        let wanted = self.buckets.div_ceil(PAGE) + 1;
        while self.pages.len() > wanted {
            let page = self.pages.pop().expect("there are more pages than wanted");
            self.bytes -= page.len() * BUCKET_BYTES;
        }
        if self.buckets <= PAGE / 2 && self.pages.len() == 2 {
            let page = self.pages.pop().expect("there are two pages");
            self.bytes -= page.len() * BUCKET_BYTES;
        }
        if self.pages.len() == 1 && self.buckets * 4 <= self.pages[0].len() {
            let mut page = Vec::from(self.pages.pop().expect("there is one page"));
            let before = page.len();
            page.truncate(before / 2);
            self.bytes -= (before - page.len()) * BUCKET_BYTES;
            self.pages.push(page.into_boxed_slice());
        }
    }

    /// Frees the slot and keeps the chain dense, so that overflow buckets go as soon as they can.
    fn vacate(&mut self, index: usize, slot: NonNull<u64>) {
        // SAFETY: the slot belongs to this table, which is borrowed mutably.
        unsafe { *slot.as_ptr() = 0 };
        if self.bucket(index).overflow().is_none() {
            return;
        }
        for word in self.drain(index) {
            self.place(index, word);
        }
    }
}

impl<V: Payload> Drop for Table<V> {
    fn drop(&mut self) {
        for index in 0..self.buckets {
            for word in self.drain(index) {
                let raw = NonNull::new((word & ADDRESS) as *mut u8).expect("the slot is occupied");
                // SAFETY: the slot owned the entry and has just been emptied.
                drop(unsafe { Entry::<V>::from_raw(raw) });
            }
        }
    }
}

/// The hash that picks a key's place.
#[inline]
#[must_use]
pub fn hash_key(hasher: &RandomState, key: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(key);
    state.finish()
}

/// The bucket from which a bucket was split.
fn parent(bucket: usize) -> usize {
    bucket - (1 << bucket.ilog2())
}

fn tag_of(hash: u64) -> u64 {
    // Bits the bucket index and the segment do not use. No tag looks like an empty slot (0) or an
    // overflow (all ones).
    (hash >> 41 & 0x7fff).clamp(1, 0x7ffe) << TAG_SHIFT
}

fn slot_word(raw: NonNull<u8>, hash: u64, expires: bool) -> u64 {
    let address = raw.as_ptr() as u64;
    debug_assert_eq!(address & !ADDRESS, 0, "user addresses have 48 bits");
    address | tag_of(hash) | if expires { EXPIRES } else { 0 }
}

/// Starts loading a value that is about to be used.
#[inline]
pub fn prefetch_value<T>(value: &T) {
    let address = std::ptr::from_ref(value).cast::<u8>();
    for line in (0..size_of::<T>()).step_by(64) {
        prefetch(address.wrapping_add(line));
    }
}

#[inline]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect on memory, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests;

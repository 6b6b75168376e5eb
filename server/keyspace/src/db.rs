//! One logical database, seen by a command: every key is reached through here.

use std::marker::PhantomData;

use carnelian_structs::entry::{Entry, EntryRef};
use carnelian_structs::hash::Hash;
use carnelian_structs::table::{EntryMut, Place};
use carnelian_structs::value::{IN_PLACE_MAX, Kind, Text, Value, strict_integer, string_entry};

use crate::access::Hold;
use crate::aggregate::{Aggregate, Mut, Ref};
use crate::changes::Changes;
use crate::clock::{AccessClock, AccessPolicy};
use crate::error::WrongType;
use crate::segment::{Parts, segment_of};
use crate::snapshot::preserve;
use crate::space::Dropped;
use crate::string::StringMut;

/// What a write does to the expiry of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Clear,
    Keep,
    /// Milliseconds of the Unix epoch.
    At(u64),
}

/// A key's whole entry, taken out of the keyspace.
pub struct Owned(pub(crate) Entry<Value>);

impl Owned {
    #[must_use]
    pub fn look(&self) -> EntryRef<'_, Value> {
        self.0.as_ref()
    }

    #[must_use]
    pub fn expiry(&self) -> Option<u64> {
        self.0.as_ref().expiry()
    }
}

/// The keys of one logical database, for as long as a batch holds its locks.
pub struct Db<'k> {
    pub(crate) access: Hold<'k>,
    pub(crate) index: usize,
    pub(crate) now_ms: u64,
    /// What expires at this time or before has expired.
    pub(crate) due_ms: u64,
    pub(crate) clock: AccessClock,
    /// CLIENT NO-TOUCH: reads leave the access clock alone.
    pub no_touch: bool,
    pub changes: &'k mut Changes,
    pub dropped: &'k mut Dropped,
}

/// What a batch leaves behind for others to settle, kept from batch to batch.
#[derive(Default)]
pub struct Aftermath {
    pub changes: Changes,
    pub dropped: Dropped,
}

impl<'k> Db<'k> {
    #[must_use]
    #[inline]
    pub fn new(
        access: impl Into<Hold<'k>>,
        index: usize,
        now_ms: u64,
        policy: AccessPolicy,
        aftermath: &'k mut Aftermath,
    ) -> Self {
        Self {
            access: access.into(),
            index,
            now_ms,
            due_ms: now_ms,
            clock: AccessClock::new(policy, now_ms),
            no_touch: false,
            changes: &mut aftermath.changes,
            dropped: &mut aftermath.dropped,
        }
    }

    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Moves to another logical database, under the same locks.
    pub fn select(&mut self, index: usize) {
        self.index = index;
    }

    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// What is to expire at this time or before has expired.
    #[must_use]
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Nothing expires by the clock: what has expired is decided elsewhere, and comes as a deletion.
    pub fn set_timeless(&mut self) {
        self.due_ms = 0;
    }

    /// How many logical databases there are.
    #[must_use]
    pub fn databases(&self) -> usize {
        self.access.keyspace().databases()
    }

    pub fn access(&mut self) -> &mut Hold<'k> {
        &mut self.access
    }

    /// The live entry of a key, without counting the access.
    fn live(&mut self, hash: u64, key: &[u8]) -> Option<EntryMut<'_, Value>> {
        self.live_for(false, hash, key)
    }

    /// The same, for changing or removing it.
    fn live_to_change(&mut self, hash: u64, key: &[u8]) -> Option<EntryMut<'_, Value>> {
        self.live_for(true, hash, key)
    }

    #[inline]
    fn live_for(&mut self, is_change: bool, hash: u64, key: &[u8]) -> Option<EntryMut<'_, Value>> {
        let Parts { table, cut, .. } = self.access.segment_mut(segment_of(hash)).parts(self.index);
        let mut entry = table.find_mut(hash, key)?;
        let is_due = entry.as_ref().expiry().is_some_and(|at| at <= self.due_ms);
        if is_due && !is_change && self.changes.keeps_expired {
            return None;
        }
        if is_change || is_due {
            preserve(cut, self.index, &mut entry);
        }
        if is_due {
            retire(entry.remove(), self.dropped);
            self.changes.key_expired(self.index, key);
            return None;
        }
        Some(entry)
    }

    /// The live entry of a key, for a read: counted as a hit or miss, and as an access.
    fn read(&mut self, key: &[u8]) -> Option<EntryMut<'_, Value>> {
        self.read_and(!self.no_touch, key)
    }

    /// The same, counted as an access only if `touch`.
    #[inline]
    fn read_and(&mut self, touch: bool, key: &[u8]) -> Option<EntryMut<'_, Value>> {
        let hash = self.access.keyspace().hash(key);
        let Parts { table, cut, .. } = self.access.segment_mut(segment_of(hash)).parts(self.index);
        let Some(mut entry) = table.find_mut(hash, key) else {
            self.changes.key_missed(self.index, key);
            return None;
        };
        if let Some(at) = entry.as_ref().expiry()
            && at <= self.due_ms
        {
            if !self.changes.keeps_expired {
                preserve(cut, self.index, &mut entry);
                retire(entry.remove(), self.dropped);
                self.changes.key_expired(self.index, key);
            }
            self.changes.key_missed(self.index, key);
            return None;
        }
        self.changes.hits += 1;
        if touch {
            let bits = entry.as_ref().access();
            let touched = self.clock.touched(bits);
            if touched != bits {
                entry.set_access(touched);
            }
        }
        Some(entry)
    }

    /// The live entry of a key, for a write: counted as an access only.
    fn write(&mut self, key: &[u8]) -> Option<EntryMut<'_, Value>> {
        let hash = self.access.keyspace().hash(key);
        let clock = self.clock;
        let mut entry = self.live_to_change(hash, key)?;
        let bits = entry.as_ref().access();
        entry.set_access(clock.touched(bits));
        Some(entry)
    }

    /// A look at a key's entry that leaves no trace: no hit, miss or access is counted.
    pub fn look(&mut self, key: &[u8]) -> Option<EntryRef<'_, Value>> {
        if self.changes.keeps_expired {
            self.reach(key);
            return self.peek(key);
        }
        let hash = self.access.keyspace().hash(key);
        Some(self.live(hash, key)?.into_ref())
    }

    /// A look at a key's entry, counted as a read.
    pub fn get(&mut self, key: &[u8]) -> Option<EntryRef<'_, Value>> {
        Some(self.read(key)?.into_ref())
    }

    /// A look at a key's entry, counted as a hit or miss but not as an access (EXISTS, TTL, TYPE).
    pub fn glance(&mut self, key: &[u8]) -> Option<EntryRef<'_, Value>> {
        Some(self.read_and(false, key)?.into_ref())
    }

    /// Counts a read of a key and an access, whatever CLIENT NO-TOUCH says. Whether it is there.
    pub fn touch(&mut self, key: &[u8]) -> bool {
        self.read_and(true, key).is_some()
    }

    /// The same through a shared borrow, so that several keys can be read side by side. Call
    /// [`Db::settle`] on them before, or [`Db::reach`]: this one neither removes what has expired
    /// nor locks anything.
    #[must_use]
    pub fn peek(&self, key: &[u8]) -> Option<EntryRef<'_, Value>> {
        let hash = self.access.keyspace().hash(key);
        let entry = self.access.segment(segment_of(hash)).table(self.index)?.find(hash, key)?;
        if entry.expiry().is_some_and(|at| at <= self.due_ms) { None } else { Some(entry) }
    }

    /// Counts a read of a key and removes it if it has expired. Whether it is there.
    pub fn settle(&mut self, key: &[u8]) -> bool {
        self.read(key).is_some()
    }

    /// Has a key's segment locked, so that it can be peeked at: where locks are taken when they are
    /// first needed, nothing may have needed this one yet.
    pub fn reach(&mut self, key: &[u8]) {
        let hash = self.access.keyspace().hash(key);
        self.access.segment_mut(segment_of(hash));
    }

    pub fn peek_as<T: Aggregate>(&self, key: &[u8]) -> Result<Option<Ref<'_, T>>, WrongType> {
        typed_ref(self.peek(key))
    }

    pub fn exists(&mut self, key: &[u8]) -> bool {
        let hash = self.access.keyspace().hash(key);
        self.live(hash, key).is_some()
    }

    pub fn kind(&mut self, key: &[u8]) -> Option<Kind> {
        self.look(key).map(EntryRef::value_kind)
    }

    // --- strings ---

    /// The string at a key, for reading.
    pub fn string(&mut self, key: &[u8]) -> Result<Option<Text<'_>>, WrongType> {
        let Some(entry) = self.get(key) else { return Ok(None) };
        entry.text().map(Some).ok_or(WrongType)
    }

    /// The string at a key that is about to be written: no hit or miss is counted.
    pub fn string_for_write(&mut self, key: &[u8]) -> Result<Option<Text<'_>>, WrongType> {
        let Some(entry) = self.write(key) else { return Ok(None) };
        entry.into_ref().text().map(Some).ok_or(WrongType)
    }

    /// Makes `key` a string, whatever it was.
    pub fn set_string(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        let hash = self.access.keyspace().hash(key);
        let index = self.index;
        self.changes.touch(index, key);
        let fresh = self.clock.fresh();
        let Some(mut entry) = self.live_to_change(hash, key) else {
            let at = if let Expiry::At(at) = expiry { Some(at) } else { None };
            let table = self.access.segment_mut(segment_of(hash)).parts(index).table;
            table.insert(hash, string_entry(key, value, at)).set_access(fresh);
            self.changes.notify(crate::EventClass::New, "new", index, key);
            return;
        };
        entry.set_access(fresh);
        entry.set_text(value);
        match expiry {
            Expiry::Keep => {}
            Expiry::Clear => entry.set_expiry(None),
            Expiry::At(at) => entry.set_expiry(Some(at)),
        }
    }

    /// The same, but the string is kept as bytes even if it reads as an integer.
    pub fn set_plain_string(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        if strict_integer(value).is_none() {
            return self.set_string(key, value, expiry);
        }
        self.set_string(key, b"", expiry);
        let hash = self.access.keyspace().hash(key);
        if let Some(mut entry) = self.live_to_change(hash, key) {
            let embedded = entry.as_ref().kind();
            entry.set_inline(embedded, value);
        }
    }

    /// Makes `key` an integer, keeping its expiry.
    pub fn set_integer(&mut self, key: &[u8], number: i64) {
        self.changes.touch(self.index, key);
        if let Some(mut entry) = self.write(key) {
            entry.set_integer(number);
            return;
        }
        self.set_string(key, itoa::Buffer::new().format(number).as_bytes(), Expiry::Clear);
    }

    /// Adds to the integer at a key in place, in one lookup. `add` gets the old value (0 if there
    /// is none) and returns the new one; its error, and a value that is no integer, change nothing.
    pub fn update_integer<E>(
        &mut self,
        key: &[u8],
        not_integer: impl FnOnce(&[u8]) -> Result<i64, E>,
        add: impl FnOnce(i64) -> Result<i64, E>,
    ) -> Result<Result<i64, E>, WrongType> {
        let Some(mut entry) = self.write(key) else {
            let new = match add(0) {
                Ok(new) => new,
                Err(error) => return Ok(Err(error)),
            };
            self.set_string(key, itoa::Buffer::new().format(new).as_bytes(), Expiry::Clear);
            return Ok(Ok(new));
        };
        let old = match entry.as_ref().text().ok_or(WrongType)? {
            Text::Integer(number) => Ok(number),
            Text::Bytes(bytes) => not_integer(bytes),
        };
        let result = old.and_then(add);
        if let Ok(new) = result {
            entry.set_integer(new);
            self.changes.touch(self.index, key);
        }
        Ok(result)
    }

    /// The string at a key, for changing it in place; `None` if the key is missing.
    pub fn string_mut(&mut self, key: &[u8]) -> Result<Option<StringMut<'_>>, WrongType> {
        let hash = self.access.keyspace().hash(key);
        let (clock, index) = (self.clock, self.index);
        let Parts { table, cut, .. } = self.access.segment_mut(segment_of(hash)).parts(index);
        let Some(mut entry) = table.find_mut(hash, key) else { return Ok(None) };
        preserve(cut, index, &mut entry);
        let look = entry.as_ref();
        if look.expiry().is_some_and(|at| at <= self.due_ms) {
            retire(entry.remove(), self.dropped);
            self.changes.key_expired(index, key);
            return Ok(None);
        }
        if look.value_kind() != Kind::String {
            return Err(WrongType);
        }
        let touched = clock.touched(look.access());
        entry.set_access(touched);
        Ok(Some(StringMut { entry, changes: &mut *self.changes, db: index }))
    }

    /// Makes `key` a raw string without expiry, whatever it was. Long strings are not copied.
    pub fn put_string(&mut self, key: &[u8], text: Vec<u8>) {
        self.set_string(key, b"", Expiry::Clear);
        let hash = self.access.keyspace().hash(key);
        let mut entry = self.live_to_change(hash, key).expect("it was just set, without expiry");
        if text.len() <= IN_PLACE_MAX {
            entry.change_text(|_| text.len(), |bytes| bytes.copy_from_slice(&text));
        } else {
            entry.set_object(Value::String(Box::new(text)));
        }
    }

    // --- aggregates ---

    /// A list, set, sorted set, hash or stream, for reading.
    pub fn read_as<T: Aggregate>(&mut self, key: &[u8]) -> Result<Option<Ref<'_, T>>, WrongType> {
        typed_ref(self.get(key))
    }

    /// The same, for writing; `None` if the key is missing.
    pub fn write_as<T: Aggregate>(&mut self, key: &[u8]) -> Result<Option<Mut<'_, T>>, WrongType> {
        self.open(key, false)
    }

    /// The same, counted as a hit or miss: for commands that change what they came to read.
    pub fn read_to_write<T: Aggregate>(
        &mut self,
        key: &[u8],
    ) -> Result<Option<Mut<'_, T>>, WrongType> {
        self.open(key, true)
    }

    #[inline]
    fn open<T: Aggregate>(
        &mut self,
        key: &[u8],
        counts: bool,
    ) -> Result<Option<Mut<'_, T>>, WrongType> {
        let hash = self.access.keyspace().hash(key);
        let (clock, index, due_ms) = (self.clock, self.index, self.due_ms);
        let Parts { table, field_expiries, cut } =
            self.access.segment_mut(segment_of(hash)).parts(index);
        let Some(mut entry) = table.find_mut(hash, key) else {
            if counts {
                self.changes.key_missed(index, key);
            }
            return Ok(None);
        };
        preserve(cut, index, &mut entry);
        if let Some(at) = entry.as_ref().expiry()
            && at <= due_ms
        {
            retire(entry.remove(), self.dropped);
            self.changes.key_expired(index, key);
            if counts {
                self.changes.key_missed(index, key);
            }
            return Ok(None);
        }
        if counts {
            self.changes.hits += 1;
        }
        if entry.as_ref().value_kind() != T::KIND {
            return Err(WrongType);
        }
        let bits = entry.as_ref().access();
        entry.set_access(clock.touched(bits));
        let object = entry.into_object_mut().expect("an aggregate is an object");
        let next_expiry = T::of(&object).expect("the kind was checked").next_expiry();
        Ok(Some(Mut {
            object: Some(object),
            changes: &mut *self.changes,
            field_expiries,
            db: index,
            next_expiry,
            of: PhantomData,
        }))
    }

    /// The same; a missing key is made with `make`.
    pub fn write_or_insert<T: Aggregate>(
        &mut self,
        key: &[u8],
        make: impl FnOnce() -> T,
    ) -> Result<Mut<'_, T>, WrongType> {
        let hash = self.access.keyspace().hash(key);
        let (clock, index, due_ms) = (self.clock, self.index, self.due_ms);
        let Parts { table, field_expiries, cut } =
            self.access.segment_mut(segment_of(hash)).parts(index);
        let mut place = table.place_of(hash, key);
        if let Place::Taken(entry) = &mut place {
            preserve(cut, index, entry);
        }
        let place = match place {
            Place::Taken(entry) if entry.as_ref().expiry().is_some_and(|at| at <= due_ms) => {
                let (expired, vacancy) = entry.vacate();
                retire(expired, self.dropped);
                self.changes.key_expired(index, key);
                Place::Free(vacancy)
            }
            place => place,
        };
        let entry = match place {
            Place::Taken(entry) if entry.as_ref().value_kind() != T::KIND => return Err(WrongType),
            Place::Taken(mut entry) => {
                let bits = entry.as_ref().access();
                entry.set_access(clock.touched(bits));
                entry
            }
            Place::Free(vacancy) => {
                let mut entry = vacancy.insert(Entry::object(key, make().into_value(), None));
                entry.set_access(clock.fresh());
                self.changes.notify(crate::EventClass::New, "new", index, key);
                entry
            }
        };
        let object = entry.into_object_mut().expect("an aggregate is an object");
        let next_expiry = T::of(&object).expect("the kind was checked").next_expiry();
        Ok(Mut {
            object: Some(object),
            changes: &mut *self.changes,
            field_expiries,
            db: index,
            next_expiry,
            of: PhantomData,
        })
    }

    /// Makes `key` hold `value`, whatever it held before. An empty value only removes the key.
    pub fn put<T: Aggregate>(&mut self, key: &[u8], value: T, expiry: Option<u64>) {
        if value.is_spent() {
            self.remove(key);
            return;
        }
        let next = value.next_expiry();
        self.insert(key, Owned(Entry::object(key, value.into_value(), expiry)));
        if let Some(at) = next {
            let hash = self.access.keyspace().hash(key);
            let segment = self.access.segment_mut(segment_of(hash));
            segment.field_expiries.insert((at, self.index, key.into()));
        }
    }

    // --- whole entries ---

    /// Takes a key out, whatever it is.
    pub fn take(&mut self, key: &[u8]) -> Option<Owned> {
        let hash = self.access.keyspace().hash(key);
        let taken = self.live_to_change(hash, key)?.remove();
        self.changes.touch(self.index, key);
        Some(Owned(taken))
    }

    /// Puts an entry under `key`, whatever was there. Expiry and access bits come with it.
    pub fn insert(&mut self, key: &[u8], owned: Owned) {
        let hash = self.access.keyspace().hash(key);
        let index = self.index;
        self.changes.touch(index, key);
        let look = owned.0.as_ref();
        let (expiry, fresh) = (look.expiry(), look.access() == 0);
        let entry = if look.key() == key { owned.0 } else { owned.0.rebuilt(key, expiry) };
        let next = entry.as_ref().object().and_then(|object| match &*object {
            Value::Hash(hash) => hash.next_expiry(),
            _ => None,
        });
        let clock = self.clock;
        let segment = self.access.segment_mut(segment_of(hash));
        if let Some(at) = next {
            segment.field_expiries.insert((at, index, key.into()));
        }
        let Parts { table, cut, .. } = segment.parts(index);
        if let Some(mut old) = table.find_mut(hash, key) {
            preserve(cut, index, &mut old);
            retire(old.remove(), self.dropped);
        } else {
            self.changes.notify(crate::EventClass::New, "new", index, key);
        }
        let mut entry = table.insert(hash, entry);
        if fresh {
            entry.set_access(clock.fresh());
        }
    }

    /// An entry for `copy` with the value and the expiry of `key`; counted as a read of `key`.
    pub fn duplicate(&mut self, key: &[u8], copy: &[u8]) -> Option<Owned> {
        Some(Owned(self.get(key)?.duplicate(copy)))
    }

    /// Removes a key. Large values are left in `dropped` for freeing elsewhere.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(owned) = self.take(key) else { return false };
        retire(owned.0, self.dropped);
        true
    }

    // --- expiry ---

    /// `None` if the key is missing; else its expiry, if it has one.
    pub fn expiry(&mut self, key: &[u8]) -> Option<Option<u64>> {
        Some(self.look(key)?.expiry())
    }

    /// Sets or clears a key's expiry. Whether the key is there.
    pub fn set_expiry(&mut self, key: &[u8], at_ms: Option<u64>) -> bool {
        let hash = self.access.keyspace().hash(key);
        let Some(mut entry) = self.live_to_change(hash, key) else { return false };
        entry.set_expiry(at_ms);
        self.changes.touch(self.index, key);
        true
    }

    /// Lets `decide` see a key's expiry and say what becomes of it, in one lookup. `None` if the
    /// key is missing, else whether the expiry was written.
    pub fn update_expiry(
        &mut self,
        key: &[u8],
        decide: impl FnOnce(Option<u64>) -> Expiry,
    ) -> Option<bool> {
        let mut entry = self.write(key)?;
        let new = match decide(entry.as_ref().expiry()) {
            Expiry::Keep => return Some(false),
            Expiry::Clear => None,
            Expiry::At(at) => Some(at),
        };
        entry.set_expiry(new);
        self.changes.touch(self.index, key);
        Some(true)
    }

    /// Removes the expired fields of a hash, and the key with the last of them.
    pub fn expire_fields(&mut self, key: &[u8]) {
        if self.changes.keeps_expired {
            return;
        }
        let (index, due_ms) = (self.index, self.due_ms);
        let Ok(Some(mut hash)) = self.write_as::<Hash>(key) else { return };
        let mut gone = Vec::new();
        while hash.is_due(due_ms) {
            gone.append(&mut hash.expire(due_ms));
        }
        let spent = hash.is_empty();
        drop(hash);
        self.changes.fields_expired(index, key, gone, spent);
    }

    /// Removes those of a hash's fields that are named and have expired, and the key with the last
    /// of all fields.
    pub fn expire_named<'f>(&mut self, key: &[u8], fields: impl IntoIterator<Item = &'f [u8]>) {
        let (index, due_ms) = (self.index, self.due_ms);
        let Ok(Some(mut hash)) = self.write_as::<Hash>(key) else { return };
        let mut gone = Vec::new();
        for field in fields {
            if hash.expiry(field, 0).flatten().is_some_and(|at| at <= due_ms) {
                hash.remove(field);
                gone.push(field.to_vec());
            }
        }
        let spent = hash.is_empty();
        drop(hash);
        self.changes.fields_expired(index, key, gone, spent);
    }

    /// Sets the access bits, for RESTORE and OBJECT FREQ tests.
    pub fn set_access_bits(&mut self, key: &[u8], bits: u32) {
        let hash = self.access.keyspace().hash(key);
        if let Some(mut entry) = self.live(hash, key) {
            entry.set_access(bits);
        }
    }
}

fn typed_ref<T: Aggregate>(
    entry: Option<EntryRef<'_, Value>>,
) -> Result<Option<Ref<'_, T>>, WrongType> {
    let Some(entry) = entry else { return Ok(None) };
    if entry.value_kind() != T::KIND {
        return Err(WrongType);
    }
    let object = entry.object().expect("an aggregate is an object");
    Ok(Some(Ref { object, of: PhantomData }))
}

/// Objects above this size are freed in the background.
pub(crate) const LARGE: usize = 16 * 1024;

/// Frees a small entry at once; keeps what a large one holds for freeing elsewhere.
pub(crate) fn retire(entry: Entry<Value>, dropped: &mut Dropped) {
    if entry.heap_bytes() < LARGE {
        return;
    }
    dropped.values.extend(entry.into_object());
}

//! The hash type: fields and values, some fields with an expiry.
//!
//! While it is small a hash is one listpack of pairs, or, once a field has had an expiry, of
//! triplets; beyond the limits it is a table. It never goes back to a smaller form.
//!
//! An expired field stays until somebody removes it: readers pass the time and do not see it, while
//! its length still counts it, as in Redis.

mod fields;
mod packed;
#[cfg(test)]
mod tests;
mod walk;

pub use fields::Fields;

use crate::glob;
use crate::listpack::{Element, Listpack};
use crate::malformed::Malformed;
use packed::Shape;

/// Up to where a hash is a listpack.
#[derive(Clone, Copy, Debug)]
pub struct HashLimits {
    /// `hash-max-listpack-entries`
    pub entries: usize,
    /// `hash-max-listpack-value`: the longest field or value
    pub value: usize,
}

/// What a write does to the expiry of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldExpiry {
    Clear,
    Keep,
    /// Milliseconds of the Unix epoch; 0 counts as 1.
    At(u64),
}

/// A field with its value, as stored.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub name: Element<'a>,
    pub value: Element<'a>,
    pub expiry: Option<u64>,
}

impl Field<'_> {
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expiry.is_some_and(|at| at <= now_ms)
    }

    /// Whether the name matches a glob-style pattern.
    #[must_use]
    pub fn matches(&self, pattern: &[u8]) -> bool {
        glob::matches(pattern, self.name.as_bytes(&mut itoa::Buffer::new()), false)
    }
}

#[derive(Clone)]
pub enum Hash {
    /// Field, value.
    Listpack(Listpack),
    /// Field, value, expiry or 0; the first to expire first, those that last at the end.
    ListpackEx(Listpack),
    Table(Box<Fields>),
}

impl Hash {
    #[must_use]
    pub fn new() -> Self {
        Self::Listpack(Listpack::new())
    }

    /// Takes a listpack of pairs that was stored, in the form that the limits ask for.
    pub fn from_pairs(pairs: Listpack, limits: HashLimits) -> Result<Self, Malformed> {
        packed::check(&pairs, Shape::Pairs)?;
        Ok(Self::Listpack(pairs).within(limits))
    }

    /// Takes a listpack of triplets that was stored, in the form that the limits ask for.
    pub fn from_triplets(triplets: Listpack, limits: HashLimits) -> Result<Self, Malformed> {
        packed::check(&triplets, Shape::Triplets)?;
        Ok(Self::ListpackEx(triplets).within(limits))
    }

    /// What OBJECT ENCODING calls it.
    #[must_use]
    pub const fn encoding(&self) -> &'static str {
        match self {
            Self::Listpack(_) => "listpack",
            Self::ListpackEx(_) => "listpackex",
            Self::Table(_) => "hashtable",
        }
    }

    /// The number of fields, those included that have expired and are still there.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Listpack(pairs) => pairs.len() / 2,
            Self::ListpackEx(triplets) => triplets.len() / 3,
            Self::Table(fields) => fields.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Listpack(packed) | Self::ListpackEx(packed) => packed.is_empty(),
            Self::Table(fields) => fields.len() == 0,
        }
    }

    /// A hash of its own with the same fields.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        self.clone()
    }

    // Reading.

    /// The value of a field.
    #[inline]
    #[must_use]
    pub fn get(&self, field: &[u8], now_ms: u64) -> Option<Element<'_>> {
        match self {
            Self::Listpack(pairs) => packed::value_of(pairs, field),
            Self::ListpackEx(triplets) => {
                let found = packed::find(triplets, Shape::Triplets, field)?;
                let field = packed::triplet(triplets, found);
                (!field.is_expired(now_ms)).then_some(field.value)
            }
            Self::Table(fields) => {
                let field = fields.get(field)?;
                (!field.is_expired(now_ms)).then_some(field.value)
            }
        }
    }

    #[must_use]
    pub fn contains(&self, field: &[u8], now_ms: u64) -> bool {
        self.get(field, now_ms).is_some()
    }

    /// `None` if the field is not there or has expired; else its expiry, if it has one.
    #[must_use]
    pub fn expiry(&self, field: &[u8], now_ms: u64) -> Option<Option<u64>> {
        let expiry = match self {
            Self::Listpack(pairs) => {
                packed::find(pairs, Shape::Pairs, field)?;
                None
            }
            Self::ListpackEx(triplets) => {
                let found = packed::find(triplets, Shape::Triplets, field)?;
                packed::triplet(triplets, found).expiry
            }
            Self::Table(fields) => fields.get(field)?.expiry,
        };
        if expiry.is_some_and(|at| at <= now_ms) { None } else { Some(expiry) }
    }

    /// When the first field expires, or has expired and is still there. In O(1).
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        match self {
            Self::Listpack(_) => None,
            Self::ListpackEx(triplets) => packed::triplet(triplets, triplets.first()?).expiry,
            Self::Table(fields) => fields.next_expiry(),
        }
    }

    /// Whether a field has expired and is still there.
    #[inline]
    #[must_use]
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.next_expiry().is_some_and(|at| at <= now_ms)
    }

    /// The listpack of a small hash, as it is stored.
    #[must_use]
    pub const fn as_listpack(&self) -> Option<&Listpack> {
        match self {
            Self::Listpack(packed) | Self::ListpackEx(packed) => Some(packed),
            Self::Table(_) => None,
        }
    }

    // Changing.

    /// Takes the form in which `fields` more fields can be added, all of them supposed new.
    pub fn prepare(&mut self, fields: usize, limits: HashLimits) {
        if limits.entries < fields {
            self.make_table();
        }
    }

    /// Sets a field to a value; whether it is new. A field that has expired is there until it is
    /// removed.
    pub fn set(
        &mut self,
        field: &[u8],
        value: &[u8],
        expiry: FieldExpiry,
        limits: HashLimits,
    ) -> bool {
        if let Self::Listpack(packed) | Self::ListpackEx(packed) = self
            && (limits.value < field.len().max(value.len())
                || !packed.safe_to_add(field.len().saturating_add(value.len())))
        {
            self.make_table();
        }
        if let FieldExpiry::At(_) = expiry {
            self.make_expirable();
        }
        let (new, length) = match self {
            Self::Listpack(pairs) => (packed::set_pair(pairs, field, value), pairs.len() / 2),
            Self::ListpackEx(triplets) => {
                (packed::set_triplet(triplets, field, value, expiry), triplets.len() / 3)
            }
            Self::Table(fields) => return fields.set(field, value, expiry),
        };
        if limits.entries < length {
            self.make_table();
        }
        new
    }

    /// Sets a field to a number, keeping its expiry; whether it is new.
    pub fn set_integer(&mut self, field: &[u8], number: i64, limits: HashLimits) -> bool {
        let mut buffer = itoa::Buffer::new();
        self.set(field, buffer.format(number).as_bytes(), FieldExpiry::Keep, limits)
    }

    /// Removes a field, expired or not; whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match self {
            Self::Listpack(pairs) => packed::remove(pairs, Shape::Pairs, field),
            Self::ListpackEx(triplets) => packed::remove(triplets, Shape::Triplets, field),
            Self::Table(fields) => fields.remove(field),
        }
    }

    /// Gives a field an expiry, or takes it away; whether the field is there.
    pub fn set_expiry(&mut self, field: &[u8], expiry: Option<u64>) -> bool {
        if expiry.is_some() {
            self.make_expirable();
        }
        match self {
            Self::Listpack(pairs) => packed::find(pairs, Shape::Pairs, field).is_some(),
            Self::ListpackEx(triplets) => packed::set_expiry(triplets, field, expiry),
            Self::Table(fields) => fields.set_expiry(field, expiry),
        }
    }

    /// Takes the form in which fields can have an expiry.
    pub fn make_expirable(&mut self) {
        if let Self::Listpack(pairs) = self {
            *self = Self::ListpackEx(packed::with_expiries(pairs));
        }
    }

    /// Removes fields that have expired and returns their names. A large hash removes so many in
    /// one call, and is still due if there are more.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Vec<u8>> {
        match self {
            Self::Listpack(_) => Vec::new(),
            Self::ListpackEx(triplets) => packed::expire(triplets, now_ms),
            Self::Table(fields) => fields.expire(now_ms),
        }
    }

    /// Leaves the listpack if it is over the limits.
    fn within(mut self, limits: HashLimits) -> Self {
        let over = limits.entries < self.len()
            || self.iter().any(|field| limits.value < field.name.len().max(field.value.len()));
        if over {
            self.make_table();
        }
        self
    }

    fn make_table(&mut self) {
        if let Self::Table(_) = self {
            return;
        }
        let mut fields = Box::new(Fields::default());
        for Field { name, value, expiry } in self.iter() {
            let expiry = expiry.map_or(FieldExpiry::Clear, FieldExpiry::At);
            let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
            fields.set(name.as_bytes(&mut a), value.as_bytes(&mut b), expiry);
        }
        *self = Self::Table(fields);
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

//! What a key can hold, packed into one word of its entry.
//!
//! `kind`, the byte in the entry's header, has the type in its high half and the encoding in its
//! low half. Small strings and integers lie in the entry itself; everything else is a thin pointer.
//!
//! Packing turns owned pointers into words and back, which is why this module uses `unsafe`.
#![allow(unsafe_code)]

use crate::entry::{Content, Entry, EntryRef, INLINE_MAX, Payload};
use crate::hash::{Fields, Hash};
use crate::list::{List, Quicklist};
use crate::listpack::Listpack;
use crate::set::Set;
use crate::size::size_class;
use crate::sorted_set::SortedSet;
use crate::stream::Stream;
use crate::table::EntryMut;

/// The type of a value, as TYPE names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
}

impl Kind {
    /// The word TYPE answers with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
        }
    }
}

/// A type whose every encoding is one thin pointer.
///
/// # Safety
/// `from_thin(into_thin(v))` must be `v`; the encoding must be below 16.
pub unsafe trait Thin: Sized {
    /// The encoding's number (0 to 15) and the pointer.
    fn into_thin(self) -> (u8, u64);
    /// # Safety
    /// The arguments must come from `into_thin`, and the result may be owned only once.
    unsafe fn from_thin(encoding: u8, word: u64) -> Self;
    /// Heap bytes owned, in O(1).
    fn heap_bytes(&self) -> usize;
}

// SAFETY: a box is one address, given away and taken back whole.
unsafe impl<T: OwnBytes> Thin for Box<T> {
    fn into_thin(self) -> (u8, u64) {
        (0, Self::into_raw(self) as u64)
    }

    unsafe fn from_thin(_encoding: u8, word: u64) -> Self {
        // SAFETY: the caller passes on a word of `into_thin`, once.
        unsafe { Self::from_raw(word as *mut T) }
    }

    fn heap_bytes(&self) -> usize {
        size_class(size_of::<T>()) + self.own_bytes()
    }
}

/// What a boxed structure has on the heap besides its box.
pub trait OwnBytes {
    fn own_bytes(&self) -> usize;
}

impl OwnBytes for Quicklist {
    fn own_bytes(&self) -> usize {
        self.heap_bytes()
    }
}

/// Implements `Thin` for an enum each of whose variants holds one thin value: the variants'
/// numbers are the encodings.
#[macro_export]
macro_rules! thin_enum {
    ($type:ident { $($number:literal => $variant:ident($inner:ty),)* }) => {
        // SAFETY: each number stands for one variant, whose value keeps the same promise.
        unsafe impl $crate::value::Thin for $type {
            fn into_thin(self) -> (u8, u64) {
                match self {
                    $(Self::$variant(inner) => {
                        ($number, $crate::value::Thin::into_thin(inner).1)
                    })*
                }
            }

            unsafe fn from_thin(encoding: u8, word: u64) -> Self {
                match encoding {
                    // SAFETY: the number tells which variant the word came from.
                    $($number => Self::$variant(unsafe {
                        <$inner as $crate::value::Thin>::from_thin(0, word)
                    }),)*
                    other => unreachable!("no encoding has the number {other}"),
                }
            }

            fn heap_bytes(&self) -> usize {
                match self {
                    $(Self::$variant(inner) => $crate::value::Thin::heap_bytes(inner),)*
                }
            }
        }
    };
}

thin_enum!(List {
    0 => Listpack(Listpack),
    1 => Quicklist(Box<Quicklist>),
});

thin_enum!(Hash {
    0 => Listpack(Listpack),
    1 => ListpackEx(Listpack),
    2 => Table(Box<Fields>),
});

/// A value that does not lie in its entry.
pub enum Value {
    /// A string too long for its entry, or one that grows.
    String(Box<Vec<u8>>),
    List(List),
    Set(Set),
    SortedSet(SortedSet),
    Hash(Hash),
    Stream(Box<Stream>),
}

const STRING: u8 = 0;
const LIST: u8 = 1;
const SET: u8 = 2;
const SORTED_SET: u8 = 3;
const HASH: u8 = 4;
const STREAM: u8 = 5;

const fn kind_byte(family: u8, encoding: u8) -> u8 {
    family << 4 | encoding
}

/// An in-place 64-bit integer.
const INT: u8 = kind_byte(STRING, 0);
/// An in-place string made by one write.
const EMBSTR: u8 = kind_byte(STRING, 1);
/// An in-place string that has been changed, or is longer than Redis embeds.
const RAW: u8 = kind_byte(STRING, 2);
/// A string on the heap.
const HEAP: u8 = kind_byte(STRING, 3);

/// The longest string that lies in its entry; longer ones have a block of their own.
pub const IN_PLACE_MAX: usize = 2048;
/// The longest string OBJECT ENCODING calls embstr.
pub const EMBSTR_MAX: usize = 44;

const _: () = assert!(IN_PLACE_MAX <= INLINE_MAX);

// SAFETY: each arm of `unpack` undoes the arm of `pack` with the same family number.
unsafe impl Payload for Value {
    fn pack(self) -> (u8, u64) {
        let (family, (encoding, word)) = match self {
            Self::String(text) => (STRING, (HEAP & 15, Box::into_raw(text) as u64)),
            Self::List(list) => (LIST, list.into_thin()),
            Self::Set(set) => (SET, set.into_thin()),
            Self::SortedSet(sorted) => (SORTED_SET, sorted.into_thin()),
            Self::Hash(hash) => (HASH, hash.into_thin()),
            Self::Stream(stream) => (STREAM, (0, Box::into_raw(stream) as u64)),
        };
        debug_assert!(encoding < 16, "an encoding fits half a byte");
        (kind_byte(family, encoding), word)
    }

    unsafe fn unpack(kind: u8, word: u64) -> Self {
        let encoding = kind & 15;
        // SAFETY: the caller hands over what `pack` made, once.
        unsafe {
            match kind >> 4 {
                STRING => Self::String(Box::from_raw(word as *mut Vec<u8>)),
                LIST => Self::List(List::from_thin(encoding, word)),
                SET => Self::Set(Set::from_thin(encoding, word)),
                SORTED_SET => Self::SortedSet(SortedSet::from_thin(encoding, word)),
                HASH => Self::Hash(Hash::from_thin(encoding, word)),
                STREAM => Self::Stream(Box::from_raw(word as *mut Stream)),
                family => unreachable!("no value has the family {family}"),
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::String(text) => size_class(size_of::<Vec<u8>>()) + size_class(text.capacity()),
            Self::List(list) => Thin::heap_bytes(list),
            Self::Set(set) => set.heap_bytes(),
            Self::SortedSet(sorted) => sorted.heap_bytes(),
            Self::Hash(hash) => hash.heap_bytes(),
            Self::Stream(stream) => size_class(size_of::<Stream>()) + stream.heap_bytes(),
        }
    }
}

impl Value {
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::String(_) => Kind::String,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::SortedSet(_) => Kind::SortedSet,
            Self::Hash(_) => Kind::Hash,
            Self::Stream(_) => Kind::Stream,
        }
    }

    /// A deep copy.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        match self {
            Self::String(text) => Self::String(text.clone()),
            Self::List(list) => Self::List(list.clone()),
            Self::Set(set) => Self::Set(set.duplicate()),
            Self::SortedSet(sorted) => Self::SortedSet(sorted.duplicate()),
            Self::Hash(hash) => Self::Hash(hash.duplicate()),
            Self::Stream(stream) => Self::Stream(stream.clone()),
        }
    }
}

/// A string as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
}

impl Text<'_> {
    /// The length of the string, formatted if it is an integer.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Integer(number) => itoa::Buffer::new().format(number).len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Calls `use_bytes` with the string's bytes; integers are formatted on the stack.
    pub fn with_bytes<R>(self, use_bytes: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Integer(number) => use_bytes(itoa::Buffer::new().format(number).as_bytes()),
            Self::Bytes(bytes) => use_bytes(bytes),
        }
    }

    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        self.with_bytes(<[u8]>::to_vec)
    }
}

/// Makes the entry for a new string: an integer, bytes in place, or a heap string.
#[must_use]
pub fn string_entry(key: &[u8], value: &[u8], expiry: Option<u64>) -> Entry<Value> {
    match classify(value) {
        Shape::Integer(number) => Entry::inline(INT, key, &number.to_le_bytes(), expiry),
        Shape::InPlace(kind) => Entry::inline(kind, key, value, expiry),
        Shape::Heap => Entry::object(key, Value::String(Box::new(value.to_vec())), expiry),
    }
}

enum Shape {
    Integer(i64),
    InPlace(u8),
    Heap,
}

fn classify(value: &[u8]) -> Shape {
    if let Some(number) = strict_integer(value) {
        Shape::Integer(number)
    } else if value.len() <= EMBSTR_MAX {
        Shape::InPlace(EMBSTR)
    } else if value.len() <= IN_PLACE_MAX {
        Shape::InPlace(RAW)
    } else {
        Shape::Heap
    }
}

/// The number a string is the canonical form of, if any.
#[must_use]
pub fn strict_integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut number = 0_i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Counting downwards reaches i64::MIN without overflow.
        number = number.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

impl<'a> EntryRef<'a, Value> {
    #[must_use]
    pub fn value_kind(self) -> Kind {
        match self.kind() >> 4 {
            STRING => Kind::String,
            LIST => Kind::List,
            SET => Kind::Set,
            SORTED_SET => Kind::SortedSet,
            HASH => Kind::Hash,
            STREAM => Kind::Stream,
            family => unreachable!("no value has the family {family}"),
        }
    }

    /// The string, if this is one.
    #[must_use]
    pub fn text(self) -> Option<Text<'a>> {
        match self.kind() {
            INT => {
                let bytes = self.bytes()?.try_into().expect("an integer has 8 bytes");
                Some(Text::Integer(i64::from_le_bytes(bytes)))
            }
            EMBSTR | RAW => Some(Text::Bytes(self.bytes()?)),
            HEAP => {
                let object = self.object()?;
                let Value::String(text) = &*object else { return None };
                let text: *const Vec<u8> = &raw const **text;
                // SAFETY: the vector is on the heap, owned by the entry, and neither can change
                // during `'a`; only the box around it was copied to the stack.
                Some(Text::Bytes(unsafe { (*text).as_slice() }))
            }
            _ => None,
        }
    }

    /// An entry of its own with the same value and expiry under another key. The access bits are
    /// those of a new entry.
    #[must_use]
    pub fn duplicate(self, key: &[u8]) -> Entry<Value> {
        match self.content() {
            Content::Inline(bytes) => Entry::inline(self.kind(), key, bytes, self.expiry()),
            Content::Object(value) => Entry::object(key, value.duplicate(), self.expiry()),
        }
    }

    /// The name OBJECT ENCODING gives.
    #[must_use]
    pub fn encoding(self) -> &'static str {
        match self.kind() {
            INT => "int",
            EMBSTR => "embstr",
            RAW | HEAP => "raw",
            _ => match self.object().as_deref() {
                Some(Value::List(list)) => list.encoding(),
                Some(Value::Set(set)) => set.encoding(),
                Some(Value::SortedSet(sorted)) => sorted.encoding(),
                Some(Value::Hash(hash)) => hash.encoding(),
                Some(Value::Stream(_)) => "stream",
                Some(Value::String(_)) | None => "raw",
            },
        }
    }
}

impl EntryMut<'_, Value> {
    /// Replaces the value by a string.
    pub fn set_text(&mut self, value: &[u8]) {
        match classify(value) {
            Shape::Integer(number) => self.set_inline(INT, &number.to_le_bytes()),
            Shape::InPlace(kind) => self.set_inline(kind, value),
            Shape::Heap => self.set_object(Value::String(Box::new(value.to_vec()))),
        }
    }

    pub fn set_integer(&mut self, number: i64) {
        self.set_inline(INT, &number.to_le_bytes());
    }

    /// Gives a string the length `length` (new bytes are zero) and `change`s its bytes. The
    /// encoding becomes raw, as after APPEND or SETRANGE. `None` if this is no string.
    pub fn change_text<R>(
        &mut self,
        length: impl FnOnce(usize) -> usize,
        change: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        let look = self.as_ref();
        let text = look.text()?;
        if let Text::Integer(number) = text {
            let mut buffer = itoa::Buffer::new();
            self.set_inline(RAW, buffer.format(number).as_bytes());
        }
        let look = self.as_ref();
        let Some(bytes) = look.bytes() else {
            return self.change_heap(length, change);
        };
        let wanted = length(bytes.len());
        if wanted <= IN_PLACE_MAX {
            return Some(change(self.resize_inline(RAW, wanted)));
        }
        let mut text = Vec::with_capacity(wanted.max(2 * bytes.len()));
        text.extend_from_slice(bytes);
        text.resize(wanted, 0);
        let result = change(&mut text);
        self.set_object(Value::String(Box::new(text)));
        Some(result)
    }

    fn change_heap<R>(
        &mut self,
        length: impl FnOnce(usize) -> usize,
        change: impl FnOnce(&mut [u8]) -> R,
    ) -> Option<R> {
        self.with_object(|value| {
            let Value::String(text) = value else { return None };
            let wanted = length(text.len());
            text.resize(wanted, 0);
            Some(change(text))
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    #[test]
    fn strict_integers_are_canonical() {
        for number in [0, 1, -1, 42, i64::MAX, i64::MIN] {
            assert_eq!(strict_integer(number.to_string().as_bytes()), Some(number));
        }
        for text in ["", "-", "-0", "+1", "01", " 1", "1 ", "1a", "9223372036854775808"] {
            assert_eq!(strict_integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn strings_take_the_shape_their_content_asks_for() {
        let mut table: Table<Value> = Table::default();
        for (value, encoding) in [
            ("12345".to_owned(), "int"),
            ("x".repeat(44), "embstr"),
            ("x".repeat(45), "raw"),
            ("x".repeat(5000), "raw"),
        ] {
            let hash = table.hash(b"k");
            table.remove(hash, b"k");
            let entry = table.insert(hash, string_entry(b"k", value.as_bytes(), None)).into_ref();
            assert_eq!(entry.encoding(), encoding);
            assert_eq!(entry.text().expect("a string").to_vec(), value.as_bytes());
        }
    }

    #[test]
    fn a_string_grows_from_integer_to_heap() {
        let mut table: Table<Value> = Table::default();
        let hash = table.hash(b"k");
        table.insert(hash, string_entry(b"k", b"10", None));
        let mut expected = b"10".to_vec();
        for _ in 0..500 {
            let mut entry = table.find_mut(hash, b"k").expect("it is there");
            entry.change_text(
                |n| n + 7,
                |text| {
                    let at = text.len() - 7;
                    text[at..].copy_from_slice(b"abcdefg");
                },
            );
            expected.extend_from_slice(b"abcdefg");
        }
        let entry = table.find(hash, b"k").expect("it is there");
        assert_eq!(entry.text(), Some(Text::Bytes(&expected)));
        assert_eq!(entry.encoding(), "raw");
        table.remove(hash, b"k");
        assert!(table.heap_bytes() <= 64);
    }
}

//! HyperLogLog: how many different elements were seen, in a string of at most 12 KiB.
//!
//! The bytes are Redis's, because they travel: in dumps, to replicas, through GET and SET.
//!
//! ```text
//! 0      "HYLL"
//! 4      encoding: 0 dense, 1 sparse
//! 5      3 bytes that mean nothing
//! 8      the last estimate, 8 bytes little-endian; the highest bit says that it is out of date
//! 16     dense:  16384 registers of 6 bits, from the lowest bit of each byte
//!        sparse: runs of registers, 00nnnnnn            n + 1 zeros
//!                                   01nnnnnn nnnnnnnn   n + 1 zeros
//!                                   1vvvvvnn            n + 1 registers of value v + 1
//! ```
//!
//! Elements pick a register by 14 bits of their hash, and raise it to the length of the run of zeros
//! in the rest. Strings come from clients as they are, so nothing here trusts a length or a run.

mod estimate;
mod sparse;

pub use estimate::{Registers, estimate};
pub use sparse::{Run, runs};

pub const REGISTERS: usize = 1 << INDEX_BITS;
pub const HEADER_BYTES: usize = 16;
pub const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * REGISTER_BITS / 8;

const INDEX_BITS: usize = 14;
const REGISTER_BITS: usize = 6;
const REGISTER_MAX: u8 = (1 << REGISTER_BITS) - 1;
/// The bits of a hash in which zeros are counted.
const RUN_BITS: usize = 64 - INDEX_BITS;

const MAGIC: &[u8; 4] = b"HYLL";
const STALE: u8 = 0x80;

/// The runs of a sparse string do not make up all registers, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Dense,
    Sparse,
}

/// The encoding of a string, or `None` if it is no HyperLogLog. Its runs may still be wrong.
#[inline]
#[must_use]
pub fn encoding(bytes: &[u8]) -> Option<Encoding> {
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
        return None;
    }
    match bytes[4] {
        0 if bytes.len() == DENSE_BYTES => Some(Encoding::Dense),
        1 => Some(Encoding::Sparse),
        _ => None,
    }
}

/// One that has seen nothing.
#[must_use]
pub fn empty() -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4] = 1;
    sparse::push_zeros(&mut bytes, REGISTERS);
    bytes
}

/// The last estimate, if nothing was added since.
#[must_use]
pub fn cached(bytes: &[u8]) -> Option<u64> {
    let number = bytes[8..HEADER_BYTES].try_into().expect("the range has 8 bytes");
    (bytes[HEADER_BYTES - 1] & STALE == 0).then_some(u64::from_le_bytes(number))
}

pub fn set_cached(bytes: &mut [u8], estimate: u64) {
    bytes[8..HEADER_BYTES].copy_from_slice(&estimate.to_le_bytes());
}

/// Says that the last estimate is out of date.
pub fn invalidate(bytes: &mut [u8]) {
    bytes[HEADER_BYTES - 1] |= STALE;
}

/// What one element does: it raises a register to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub register: usize,
    pub value: u8,
}

impl Mark {
    #[inline]
    #[must_use]
    pub fn of(element: &[u8]) -> Self {
        let hash = murmur(element);
        let register = hash as usize & (REGISTERS - 1);
        // The bit above the rest ends the run of zeros at the latest.
        let rest = hash >> INDEX_BITS | 1 << RUN_BITS;
        Self { register, value: rest.trailing_zeros() as u8 + 1 }
    }
}

/// `MurmurHash64A` with Redis's seed.
fn murmur(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    // C has the length as an `int`.
    let length = bytes.len() as i32 as u64;
    let mut hash = 0xadc8_3b19 ^ length.wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        word = (word ^ word >> SHIFT).wrapping_mul(FACTOR);
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}

/// A string that can be read, and changed together with its length.
pub trait Place {
    fn bytes(&self) -> &[u8];
    /// Gives the string a length (new bytes are zero) and lets `change` write to it.
    fn resize<R>(&mut self, length: usize, change: impl FnOnce(&mut [u8]) -> R) -> R;
}

impl Place for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn resize<R>(&mut self, length: usize, change: impl FnOnce(&mut [u8]) -> R) -> R {
        Self::resize(self, length, 0);
        change(self)
    }
}

/// Raises registers of a valid string and returns how many of the marks did so. It becomes dense
/// when it would be longer than `sparse_max` bytes, or holds a value that only dense ones can.
///
/// What was raised before corrupt runs were found stays so.
pub fn raise(
    place: &mut impl Place,
    marks: impl Iterator<Item = Mark>,
    sparse_max: usize,
) -> Result<usize, Corrupt> {
    let mut marks = marks;
    let mut raised = 0;
    while encoding(place.bytes()) == Some(Encoding::Sparse) {
        let Some(mark) = marks.next() else { return Ok(raised) };
        raised += usize::from(sparse::raise(place, mark, sparse_max)?);
    }
    raised += place.resize(DENSE_BYTES, |bytes| {
        let raised = marks.filter(|&mark| raise_dense(bytes, mark)).count();
        if raised != 0 {
            invalidate(bytes);
        }
        raised
    });
    Ok(raised)
}

/// Makes a sparse string dense. Whether it was sparse.
pub fn make_dense(place: &mut impl Place) -> Result<bool, Corrupt> {
    if encoding(place.bytes()) == Some(Encoding::Dense) {
        return Ok(false);
    }
    let mut registers = Registers::default();
    registers.merge(place.bytes())?;
    place.resize(DENSE_BYTES, |bytes| {
        bytes[4] = 0;
        registers.pack_into(bytes);
    });
    Ok(true)
}

#[inline]
fn raise_dense(bytes: &mut [u8], mark: Mark) -> bool {
    let raised = register(bytes, mark.register) < mark.value;
    if raised {
        set_register(bytes, mark.register, mark.value);
    }
    raised
}

/// Where a register of a dense string begins: a byte, and a bit there.
const fn place_of(register: usize) -> (usize, u32) {
    let bit = register * REGISTER_BITS;
    (HEADER_BYTES + bit / 8, (bit % 8) as u32)
}

/// The value of a register of a dense string.
#[inline]
#[must_use]
pub fn register(bytes: &[u8], register: usize) -> u8 {
    let (at, shift) = place_of(register);
    let next = bytes.get(at + 1).copied().unwrap_or(0);
    (u16::from_le_bytes([bytes[at], next]) >> shift) as u8 & REGISTER_MAX
}

/// Gives a register of a dense string a value.
#[inline]
pub fn set_register(bytes: &mut [u8], register: usize, value: u8) {
    let (at, shift) = place_of(register);
    let (mask, value) = (u16::from(REGISTER_MAX) << shift, u16::from(value) << shift);
    let [low_mask, high_mask] = mask.to_le_bytes();
    let [low, high] = value.to_le_bytes();
    bytes[at] = bytes[at] & !low_mask | low;
    if let Some(next) = bytes.get_mut(at + 1) {
        *next = *next & !high_mask | high;
    }
}

#[cfg(test)]
mod tests;

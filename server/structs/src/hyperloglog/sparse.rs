//! The sparse encoding: runs of equal registers, changed in place.
//!
//! Which runs a change leaves behind is part of the format in effect: a replica, or a test, compares
//! strings. So a run is split, and its neighbours joined, exactly where Redis does it.

use super::{Corrupt, DENSE_BYTES, HEADER_BYTES, Mark, Place, REGISTERS, invalidate};

const ZEROS_MAX: usize = 64;
const VALUE_MAX: u8 = 32;
const VALUE_RUN_MAX: usize = 4;

/// One run of equal registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Zeros, in one byte.
    Zeros(usize),
    /// Zeros, in two bytes.
    ManyZeros(usize),
    Values {
        value: u8,
        count: usize,
    },
}

impl Run {
    /// The run at the start of `bytes`, which are not empty. A second byte that is missing counts
    /// as zero, the byte behind a string in C.
    #[inline]
    fn first(bytes: &[u8]) -> Self {
        let byte = bytes[0];
        let low = usize::from(byte & 0x3f);
        if byte & 0x80 != 0 {
            Self::Values { value: (byte >> 2 & 0x1f) + 1, count: usize::from(byte & 3) + 1 }
        } else if byte & 0x40 != 0 {
            Self::ManyZeros((low << 8 | usize::from(bytes.get(1).copied().unwrap_or(0))) + 1)
        } else {
            Self::Zeros(low + 1)
        }
    }

    const fn bytes(self) -> usize {
        if let Self::ManyZeros(_) = self { 2 } else { 1 }
    }

    /// How many registers it covers.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::Zeros(count) | Self::ManyZeros(count) | Self::Values { count, .. } => count,
        }
    }

    /// What they hold.
    #[must_use]
    pub const fn value(self) -> u8 {
        if let Self::Values { value, .. } = self { value } else { 0 }
    }
}

/// The runs of a sparse string, whether they make sense or not.
pub fn runs(bytes: &[u8]) -> impl Iterator<Item = Run> {
    let mut rest = &bytes[HEADER_BYTES..];
    std::iter::from_fn(move || {
        let run = (!rest.is_empty()).then(|| Run::first(rest))?;
        rest = rest.get(run.bytes()..).unwrap_or_default();
        Some(run)
    })
}

const fn value_byte(value: u8, count: usize) -> u8 {
    0x80 | (value - 1) << 2 | (count - 1) as u8
}

pub(super) fn push_zeros(bytes: &mut Vec<u8>, count: usize) {
    let mut run = Sequence::default();
    run.zeros(count);
    bytes.extend_from_slice(run.as_bytes());
}

/// The runs that take the place of one: at most zeros, a value, zeros.
#[derive(Default)]
struct Sequence {
    bytes: [u8; 5],
    len: usize,
}

impl Sequence {
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn zeros(&mut self, count: usize) {
        match count {
            0 => {}
            1..=ZEROS_MAX => self.push((count - 1) as u8),
            _ => {
                self.push(0x40 | ((count - 1) >> 8) as u8);
                self.push((count - 1) as u8);
            }
        }
    }

    fn values(&mut self, value: u8, count: usize) {
        if count != 0 {
            self.push(value_byte(value, count));
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Where the run of a register is.
struct Spot {
    /// The run before it, or itself if it is the first.
    before: usize,
    at: usize,
    run: Run,
    /// The first register it covers.
    first: usize,
}

fn find(bytes: &[u8], register: usize) -> Result<Spot, Corrupt> {
    let (mut before, mut at, mut first) = (HEADER_BYTES, HEADER_BYTES, 0);
    while at < bytes.len() {
        let run = Run::first(&bytes[at..]);
        if register < first + run.count() {
            // A run that is cut off cannot be changed in place.
            let whole = at + run.bytes() <= bytes.len();
            return if whole { Ok(Spot { before, at, run, first }) } else { Err(Corrupt) };
        }
        (before, first) = (at, first + run.count());
        at += run.bytes();
    }
    Err(Corrupt)
}

/// Raises one register; whether that was a change.
pub(super) fn raise(
    place: &mut impl Place,
    mark: Mark,
    sparse_max: usize,
) -> Result<bool, Corrupt> {
    if VALUE_MAX < mark.value {
        return promote(place, mark);
    }
    let bytes = place.bytes();
    let spot = find(bytes, mark.register)?;
    if mark.value <= spot.run.value() {
        return Ok(false);
    }
    let (ahead, behind) = {
        let ahead = mark.register - spot.first;
        (ahead, spot.run.count() - ahead - 1)
    };
    let mut sequence = Sequence::default();
    match spot.run.value() {
        0 => {
            sequence.zeros(ahead);
            sequence.values(mark.value, 1);
            sequence.zeros(behind);
        }
        old => {
            sequence.values(old, ahead);
            sequence.values(mark.value, 1);
            sequence.values(old, behind);
        }
    }
    let (old_bytes, new_bytes) = (spot.run.bytes(), sequence.len);
    let old_length = bytes.len();
    let length = old_length - old_bytes + new_bytes;
    if old_bytes < new_bytes && sparse_max < length {
        return promote(place, mark);
    }
    let joined = place.resize(length.max(old_length), |bytes| {
        bytes.copy_within(spot.at + old_bytes..old_length, spot.at + new_bytes);
        bytes[spot.at..spot.at + new_bytes].copy_from_slice(sequence.as_bytes());
        invalidate(bytes);
        join(bytes, length, spot.before)
    });
    if joined != length.max(old_length) {
        place.resize(joined, |_| {});
    }
    Ok(true)
}

/// Joins neighbours of the same value among the five runs from `at` on, and returns the length.
fn join(bytes: &mut [u8], length: usize, at: usize) -> usize {
    let (mut length, mut at) = (length, at);
    for _ in 0..5 {
        if length <= at {
            break;
        }
        let run = Run::first(&bytes[at..length]);
        let Run::Values { value, count } = run else {
            at += run.bytes();
            continue;
        };
        if at + 1 < length
            && let Run::Values { value: next, count: more } = Run::first(&bytes[at + 1..length])
            && next == value
            && count + more <= VALUE_RUN_MAX
        {
            bytes[at + 1] = value_byte(value, count + more);
            bytes.copy_within(at + 1..length, at);
            length -= 1;
            continue;
        }
        at += 1;
    }
    length
}

/// Makes the string dense, and raises a register that is known to be lower.
fn promote(place: &mut impl Place, mark: Mark) -> Result<bool, Corrupt> {
    super::make_dense(place)?;
    Ok(place.resize(DENSE_BYTES, |bytes| {
        let raised = super::raise_dense(bytes, mark);
        if raised {
            invalidate(bytes);
        }
        raised
    }))
}

/// Calls `visit` with each run of values and the first register it covers.
pub(super) fn visit_values(
    bytes: &[u8],
    mut visit: impl FnMut(usize, usize, u8),
) -> Result<(), Corrupt> {
    let mut first = 0;
    for run in runs(bytes) {
        let next = first + run.count();
        if REGISTERS < next {
            return Err(Corrupt);
        }
        if let Run::Values { value, count } = run {
            visit(first, count, value);
        }
        first = next;
    }
    if first == REGISTERS { Ok(()) } else { Err(Corrupt) }
}

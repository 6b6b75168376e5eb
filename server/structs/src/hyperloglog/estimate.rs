//! From registers to an estimate, and the union of several.
//!
//! The estimator is Otmar Ertl's improved raw one (arXiv:1702.01284), computed step by step as
//! Redis does it, so that both give the same number for the same registers.

use super::{Corrupt, DENSE_BYTES, Encoding, HEADER_BYTES, REGISTERS, RUN_BITS, encoding, sparse};

/// 1 / (2 ln 2)
const ALPHA: f64 = std::f64::consts::LOG2_E / 2.0;

/// How many registers have each value.
type Histogram = [u32; 64];

/// All registers, one byte each: the maximum of what was merged.
pub struct Registers(Box<[u8; REGISTERS]>);

impl Default for Registers {
    fn default() -> Self {
        let zeros = vec![0; REGISTERS].into_boxed_slice();
        Self(zeros.try_into().expect("it has as many bytes as registers"))
    }
}

impl Registers {
    /// Raises the registers to those of a valid string.
    pub fn merge(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        if encoding(bytes) == Some(Encoding::Dense) {
            for (mine, packed) in self.groups().zip(packed_groups(bytes)) {
                let theirs = spread(packed).to_le_bytes();
                for (mine, theirs) in mine.iter_mut().zip(theirs) {
                    *mine = theirs.max(*mine);
                }
            }
            return Ok(());
        }
        let registers = &mut self.0;
        sparse::visit_values(bytes, |first, count, value| {
            for register in &mut registers[first..first + count] {
                *register = value.max(*register);
            }
        })
    }

    fn groups(&mut self) -> impl Iterator<Item = &mut [u8; 8]> {
        self.0.as_chunks_mut::<8>().0.iter_mut()
    }

    /// Writes all registers into a dense string.
    pub fn pack_into(&self, bytes: &mut [u8]) {
        let packed = bytes[HEADER_BYTES..DENSE_BYTES].as_chunks_mut::<6>().0;
        for (six, eight) in packed.iter_mut().zip(self.0.as_chunks::<8>().0) {
            *six = gather(u64::from_le_bytes(*eight));
        }
    }

    /// The registers that are not zero, and their values.
    pub fn raised(&self) -> impl Iterator<Item = super::Mark> {
        let all = self.0.iter().enumerate();
        all.filter(|&(_, &value)| value != 0)
            .map(|(register, &value)| super::Mark { register, value })
    }

    #[must_use]
    pub fn estimate(&self) -> u64 {
        let mut counts = Counts::default();
        self.0.as_chunks::<8>().0.iter().for_each(|group| counts.add(u64::from_le_bytes(*group)));
        estimate_of(&counts.sum())
    }
}

/// The estimate of a valid string.
pub fn estimate(bytes: &[u8]) -> Result<u64, Corrupt> {
    if encoding(bytes) == Some(Encoding::Dense) {
        let mut counts = Counts::default();
        packed_groups(bytes).for_each(|six| counts.add(spread(six)));
        return Ok(estimate_of(&counts.sum()));
    }
    let mut histogram: Histogram = [0; 64];
    let mut zeros = REGISTERS as u32;
    sparse::visit_values(bytes, |_, count, value| {
        histogram[usize::from(value)] += count as u32;
        zeros -= count as u32;
    })?;
    histogram[0] = zeros;
    Ok(estimate_of(&histogram))
}

/// Counters side by side: one after the other would wait for each other where values repeat.
struct Counts([Histogram; 4]);

impl Default for Counts {
    fn default() -> Self {
        Self([[0; 64]; 4])
    }
}

impl Counts {
    /// Counts eight registers.
    #[inline]
    fn add(&mut self, eight: u64) {
        for (at, value) in eight.to_le_bytes().into_iter().enumerate() {
            self.0[at % 4][usize::from(value & 63)] += 1;
        }
    }

    fn sum(&self) -> Histogram {
        std::array::from_fn(|value| self.0.iter().map(|counts| counts[value]).sum())
    }
}

/// Eight registers at a time, as a dense string packs them.
fn packed_groups(bytes: &[u8]) -> impl Iterator<Item = [u8; 6]> {
    bytes[HEADER_BYTES..].as_chunks::<6>().0.iter().copied()
}

/// Eight registers of 6 bits, with a byte for each.
#[inline]
fn spread(six: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = six;
    let halves = u64::from_le_bytes([a, b, c, 0, d, e, f, 0]);
    let pairs = halves & 0x0000_0fff_0000_0fff | (halves & 0x00ff_f000_00ff_f000) << 4;
    pairs & 0x003f_003f_003f_003f | (pairs & 0x0fc0_0fc0_0fc0_0fc0) << 2
}

/// The way back.
#[inline]
fn gather(eight: u64) -> [u8; 6] {
    let pairs = eight & 0x003f_003f_003f_003f | (eight & 0x3f00_3f00_3f00_3f00) >> 2;
    let halves = pairs & 0x0000_0fff_0000_0fff | (pairs & 0x0fff_0000_0fff_0000) >> 4;
    let [a, b, c, _, d, e, f, _] = halves.to_le_bytes();
    [a, b, c, d, e, f]
}

fn estimate_of(histogram: &Histogram) -> u64 {
    let all = REGISTERS as f64;
    let share = |value: usize| f64::from(histogram[value]) / all;
    let full = f64::from(histogram[RUN_BITS + 1]);
    let mut z = all * tau((all - full) / all);
    for value in (1..=RUN_BITS).rev() {
        z += f64::from(histogram[value]);
        z *= 0.5;
    }
    z += all * sigma(share(0));
    let estimate = (ALPHA * all * all / z).round();
    // Only registers that no hash leads to (a string from outside) come to that; C makes it this.
    if estimate < (1_u64 << 63) as f64 { estimate as u64 } else { 1 << 63 }
}

#[expect(clippy::float_cmp, reason = "the series is followed until it stands still")]
fn sigma(x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut x, mut y, mut z) = (x, 1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

#[expect(clippy::float_cmp, reason = "the series is followed until it stands still")]
fn tau(x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut z) = (x, 1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

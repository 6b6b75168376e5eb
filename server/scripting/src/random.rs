//! `math.random` as Redis has it: the same numbers for the same seed on every machine.

/// The 48-bit linear congruential generator known as `lrand48`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x1234_ABCD_330E)
    }
}

impl Random {
    pub(crate) const fn seed(seed: i32) -> Self {
        Self((seed as u32 as u64) << 16 | 0x330E)
    }

    /// From 0 up to and without 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        const MAX: u64 = i32::MAX as u64;
        (self.next() % MAX) as f64 / MAX as f64
    }

    /// 31 bits.
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x0005_DEEC_E66D).wrapping_add(0xB) & 0xFFFF_FFFF_FFFF;
        self.0 >> 17
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_redis() {
        // `math.randomseed(5) return tostring(math.random())` on a redis-server.
        let mut random = Random::seed(5);
        assert_eq!(format!("{:.13}", random.fraction()), "0.5248395793721");
    }
}

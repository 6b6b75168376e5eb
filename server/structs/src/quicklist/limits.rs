//! When a list changes its form: what `list-max-listpack-size`, `list-compress-depth` and DEBUG
//! QUICKLIST-PACKED-THRESHOLD mean.

/// Bytes of a node by `fill` from -1 to -5.
const FILL_BYTES: [usize; 5] = [4096, 8192, 16_384, 32_768, 65_536];
/// Bytes of a node whose limit is a count.
const COUNTED_BYTES_MAX: usize = 8192;
/// What an element is taken to need beside its bytes.
const OVERHEAD: usize = 8;
/// Elements that do not fit a listpack at all are large under every threshold.
const PACKED_BYTES_MAX: usize = 1 << 29;

/// The settings that bear on lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListLimits {
    /// `list-max-listpack-size`: a number of elements, or from -1 to -5 a size of 4 to 64 KiB.
    pub fill: i32,
    /// `list-compress-depth`: nodes at each end that are never compressed; 0 compresses none.
    pub compress: u16,
    /// From which size an element gets a node of its own; 0 leaves that to `fill`.
    pub packed_threshold: usize,
}

impl Default for ListLimits {
    fn default() -> Self {
        Self { fill: -2, compress: 0, packed_threshold: 0 }
    }
}

impl ListLimits {
    /// Bytes and elements of one node.
    fn node(self) -> (usize, usize) {
        match usize::try_from(self.fill) {
            Ok(count) => (usize::MAX, count.max(1)),
            Err(_) => (FILL_BYTES[(self.fill.unsigned_abs() as usize).min(5) - 1], usize::MAX),
        }
    }

    /// Whether a listpack of this size and length is more than one node.
    pub(crate) fn exceeded_by(self, bytes: usize, count: usize) -> bool {
        let (bytes_max, count_max) = self.node();
        if bytes_max == usize::MAX {
            return COUNTED_BYTES_MAX < bytes || count_max < count;
        }
        bytes_max < bytes
    }

    /// Whether a quicklist of one such node may become a listpack. What shrinks has to get down to
    /// half of the limit, so that a list at the limit does not go back and forth.
    pub(crate) fn fits_listpack(self, bytes: usize, count: usize, shrinking: bool) -> bool {
        let (mut bytes_max, mut count_max) = self.node();
        if shrinking {
            bytes_max /= 2;
            count_max /= 2;
        }
        bytes <= bytes_max && count <= count_max
    }

    /// Whether an element of `bytes` gets a node of its own.
    pub(crate) fn is_large(self, bytes: usize) -> bool {
        if self.packed_threshold != 0 {
            return self.packed_threshold <= bytes || PACKED_BYTES_MAX < bytes;
        }
        match self.node() {
            (usize::MAX, _) => COUNTED_BYTES_MAX < bytes,
            (bytes_max, _) => bytes_max < bytes,
        }
    }

    /// Whether a listpack node of this size and length takes one more element of `added` bytes.
    pub(crate) fn allows(self, bytes: usize, count: usize, added: usize) -> bool {
        !self.is_large(added) && !self.exceeded_by(bytes + added + OVERHEAD, count + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_is_a_count_or_a_size_class() {
        let with = |fill| ListLimits { fill, ..ListLimits::default() };
        assert!(!with(-1).exceeded_by(4096, 100_000));
        assert!(with(-1).exceeded_by(4097, 1));
        assert!(with(i32::MIN).exceeded_by(65_537, 1) && !with(-9).exceeded_by(65_536, 1));
        assert!(with(3).exceeded_by(10, 4) && !with(3).exceeded_by(8192, 3));
        assert!(with(3).exceeded_by(8193, 1));
        assert!(with(0).exceeded_by(10, 2) && !with(0).exceeded_by(10, 1));
    }

    #[test]
    fn threshold_takes_the_place_of_fill() {
        let limits = ListLimits { packed_threshold: 5, ..ListLimits::default() };
        assert!(limits.is_large(5) && !limits.is_large(4));
        assert!(ListLimits::default().is_large(8193) && !ListLimits::default().is_large(8192));
        let huge = ListLimits { packed_threshold: usize::MAX, ..limits };
        assert!(huge.is_large(1 << 30));
    }
}

//! What an allocation really costs.
//!
//! Memory is accounted as it changes, so the structures have to know what the allocator hands out
//! for a request. The server runs on jemalloc with a quantum of 8 bytes (`.cargo/config.toml`),
//! whose classes follow from arithmetic: multiples of 8 up to 64, then four classes to each doubling.

/// The bytes jemalloc reserves for a request of `bytes`.
#[must_use]
pub const fn size_class(bytes: usize) -> usize {
    if bytes <= 64 {
        return if bytes == 0 { 0 } else { (bytes + 7) & !7 };
    }
    let delta = 1_usize << ((bytes - 1).ilog2() - 2);
    (bytes + delta - 1) & !(delta - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_jemalloc_with_quantum_8() {
        let expected = [
            (0, 0),
            (1, 8),
            (8, 8),
            (9, 16),
            (56, 56),
            (57, 64),
            (64, 64),
            (65, 80),
            (81, 96),
            (128, 128),
            (129, 160),
            (4096, 4096),
            (4097, 5120),
            (16_385, 20_480),
        ];
        for (bytes, class) in expected {
            assert_eq!(size_class(bytes), class, "for {bytes}");
        }
    }
}

//! CRC-64 as RDB files and DUMP payloads end with it: Jones's polynomial, reflected, no inversion.

use crc_fast::{CrcAlgorithm, Digest};

/// From this length on the processor's carry-less multiplication is worth its start.
const LONG_BYTES_MIN: usize = 64;

/// The polynomial 0xad93d23594c935a9, its bits reversed.
const POLYNOMIAL: u64 = 0x95AC_9329_AC4B_C9B5;

/// `TABLES[n]` has what a byte does that is followed by `n` others.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[behind - 1][byte];
            tables[behind][byte] = before >> 8 ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
}

/// Continues a checksum, which begins with 0, over more bytes.
#[must_use]
pub fn crc64(crc: u64, bytes: &[u8]) -> u64 {
    if bytes.len() < LONG_BYTES_MIN {
        return by_table(crc, bytes);
    }
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64Redis, crc);
    digest.update(bytes);
    digest.finalize()
}

fn by_table(mut crc: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mixed = (crc ^ u64::from_le_bytes(*word)).to_le_bytes();
        crc = 0;
        for (table, byte) in TABLES.iter().rev().zip(mixed) {
            crc ^= table[usize::from(byte)];
        }
    }
    for &byte in rest {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_check_value_of_the_catalogue() {
        assert_eq!(crc64(0, b"123456789"), 0xE9C6_D914_C4B8_D9CA);
        assert_eq!(crc64(0, b""), 0);
    }

    #[test]
    fn is_the_same_with_tables() {
        let text: Vec<u8> = (0..5000_u32).map(|at| (at.wrapping_mul(at) >> 3) as u8).collect();
        for bytes in [0, 1, 63, 64, 65, 127, 128, 129, 255, 256, 1000, 5000] {
            assert_eq!(crc64(7, &text[..bytes]), by_table(7, &text[..bytes]), "{bytes}");
        }
    }

    #[test]
    fn may_be_taken_in_pieces() {
        let text: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let whole = crc64(0, &text);
        for at in [0, 1, 7, 8, 9, 63, 64, 500, 999, 1000] {
            assert_eq!(crc64(crc64(0, &text[..at]), &text[at..]), whole);
        }
    }
}

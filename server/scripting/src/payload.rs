//! The payload of FUNCTION DUMP: the libraries' sources as records of an RDB file, the format's
//! version and a checksum.

use carnelian_persistence::rdb::{Reader, crc64::crc64, write_string};

/// The record of a library in an RDB file, and the one that Redis's release candidates wrote.
const FUNCTION: u8 = 245;
const FUNCTION_BEFORE_RELEASE: u8 = 246;
/// The version that is written, and the newest that is read.
const VERSION: u16 = 12;
const FOOTER_BYTES: usize = 10;
/// How much sources may grow when they are decompressed.
const EXPANDED_MAX: usize = 512 << 20;

pub(crate) fn encode<'a>(codes: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for code in codes {
        out.push(FUNCTION);
        write_string(&mut out, code);
    }
    out.extend_from_slice(&VERSION.to_le_bytes());
    let checksum = crc64(0, &out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The sources of a payload. The error's text is Redis's, without its code.
pub fn decode(payload: &[u8]) -> Result<Vec<Vec<u8>>, Vec<u8>> {
    let footer = || b"DUMP payload version or checksum are wrong".to_vec();
    let end = payload.len().checked_sub(FOOTER_BYTES).ok_or_else(footer)?;
    let (covered, checksum) = payload.split_last_chunk::<8>().ok_or_else(footer)?;
    let version = u16::from_le_bytes([payload[end], payload[end + 1]]);
    if VERSION < version || crc64(0, covered) != u64::from_le_bytes(*checksum) {
        return Err(footer());
    }
    let mut codes = Vec::new();
    let mut reader = Reader::new(&payload[..end], EXPANDED_MAX);
    while !reader.is_at_end() {
        match reader.byte() {
            Ok(FUNCTION) => {}
            Ok(FUNCTION_BEFORE_RELEASE) => {
                return Err(b"Pre-GA function format not supported".to_vec());
            }
            Ok(_) => return Err(b"given type is not a function".to_vec()),
            Err(_) => return Err(b"can not read data type".to_vec()),
        }
        let code = reader.string().map_err(|_| b"Failed loading library data".to_vec())?;
        codes.push(code.into_owned());
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back() {
        let payload = encode([&b"one"[..], b"two"].into_iter());
        assert_eq!(decode(&payload), Ok(vec![b"one".to_vec(), b"two".to_vec()]));
        assert_eq!(decode(&encode(std::iter::empty())), Ok(Vec::new()));
    }

    #[test]
    fn a_flipped_byte_is_noticed() {
        let payload = encode([&b"some source"[..]].into_iter());
        for at in 0..payload.len() {
            let mut damaged = payload.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err());
            assert!(decode(&payload[..at]).is_err());
        }
    }
}

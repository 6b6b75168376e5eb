//! The payload of DUMP and RESTORE: a type byte, the value, the version of the format in two bytes
//! and the checksum of all that in eight.

use carnelian_keyspace::{Limits, Value};
use carnelian_structs::entry::EntryRef;

use super::crc64::crc64;
use super::{Bounds, Form, LoadError, Loaded, Reader, Type, VERSION_MAX, load, save, type_of};

const VERSION_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 8;

/// Whether the checksum of a payload has to be right (DEBUG SET-SKIP-CHECKSUM-VALIDATION).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Verified,
    Ignored,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// Not a payload, of a newer version, or damaged.
    #[error("DUMP payload version or checksum are wrong")]
    Footer,
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// The payload for a key's value.
#[must_use]
pub fn dump(entry: EntryRef<'_, Value>, limits: &Limits) -> Vec<u8> {
    let mut out = vec![type_of(entry, &Form::DUMP) as u8];
    save(entry, limits, &Form::DUMP, &mut out);
    out.extend_from_slice(&VERSION_MAX.to_le_bytes());
    let checksum = crc64(0, &out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The value of a payload.
pub fn restore<'a>(
    payload: &'a [u8],
    limits: &Limits,
    checksum: Checksum,
) -> Result<Loaded<'a>, RestoreError> {
    let (covered, claimed) =
        payload.split_last_chunk::<CHECKSUM_BYTES>().ok_or(RestoreError::Footer)?;
    let (value, version) =
        covered.split_last_chunk::<VERSION_BYTES>().ok_or(RestoreError::Footer)?;
    if VERSION_MAX < u16::from_le_bytes(*version) {
        return Err(RestoreError::Footer);
    }
    if checksum == Checksum::Verified && crc64(0, covered) != u64::from_le_bytes(*claimed) {
        return Err(RestoreError::Footer);
    }
    let mut reader = Reader::new(value, Bounds::new(limits).expanded_bytes_max);
    let byte = reader.byte()?;
    let kind = Type::from_byte(byte).ok_or(LoadError::UnknownType(byte))?;
    let loaded = load(kind, &mut reader, limits)?;
    if !reader.is_at_end() {
        return Err(LoadError::Malformed("bytes behind the value").into());
    }
    Ok(loaded)
}

//! Listpacks from outside: nothing in them is believed before it has been checked.

use super::entry::{END, backlen, decode, encoded_bytes, parse_integer};
use super::{Element, Encoded, HEADER, Listpack, UNKNOWN};
use crate::malformed::Malformed;

/// Checks every entry and returns a listpack of the same elements, byte for byte the same if every
/// element has the form that `Encoded` gives it (as all have that come from Redis).
pub(super) fn read(bytes: &[u8]) -> Result<Listpack, Malformed> {
    let (Some(header), Some(&last)) =
        (bytes.first_chunk::<HEADER>(), bytes.get(HEADER..).and_then(<[u8]>::last))
    else {
        return Err(Malformed::new("listpack shorter than its header", bytes.len()));
    };
    let total = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if total != bytes.len() {
        return Err(Malformed::new("listpack length differs from its header", 0));
    }
    let end = total - 1;
    if last != END {
        return Err(Malformed::new("listpack without an end", end));
    }

    let mut at = HEADER;
    let mut count = 0_usize;
    let mut canonical = true;
    while at < end {
        let size =
            encoded_bytes(&bytes[..end], at).ok_or(Malformed::new("not a listpack entry", at))?;
        let (back, width) = backlen(size);
        // At most 2^32 + 4 and 5 more: no overflow.
        let next = at + size + width;
        if end < next {
            return Err(Malformed::new("listpack entry reaches over the end", at));
        }
        if bytes[at + size..next] != back[..width] {
            return Err(Malformed::new("wrong length behind a listpack entry", at + size));
        }
        canonical = canonical && is_canonical(bytes, at, size);
        count += 1;
        at = next;
    }
    let claimed = u16::from_le_bytes([header[4], header[5]]);
    if claimed != UNKNOWN && usize::from(claimed) != count {
        return Err(Malformed::new("listpack count differs from its header", 4));
    }

    if canonical {
        let mut listpack = Listpack::from_checked(bytes);
        listpack.set_count(count);
        return Ok(listpack);
    }
    Ok(rebuild(bytes, end))
}

/// Whether the checked entry at `at` has the one form that its element is stored as.
fn is_canonical(bytes: &[u8], at: usize, size: usize) -> bool {
    match decode(bytes, at).0 {
        Element::String(string) => {
            size == Encoded::string_bytes(string.len()) && parse_integer(string).is_none()
        }
        Element::Integer(value) => size == Encoded::new(value).bytes(),
    }
}

/// The canonical form is never the longer one, so this stays within the limits.
fn rebuild(bytes: &[u8], end: usize) -> Listpack {
    let mut listpack = Listpack::new();
    let mut at = HEADER;
    while at < end {
        let (element, size) = decode(bytes, at);
        listpack.push_back(element);
        at += size;
    }
    listpack
}

//! The words of the format, written: lengths, strings, numbers.

use carnelian_structs::listpack::{Element, parse_integer};
use carnelian_structs::lzf;
use carnelian_structs::value::Text;

/// The first byte of a length of 32 or 64 bits.
pub(super) const LENGTH_32: u8 = 0x80;
pub(super) const LENGTH_64: u8 = 0x81;
/// What the first byte of a string that is not just its bytes has set.
pub(super) const SPECIAL: u8 = 0xC0;
pub(super) const INT_8: u8 = 0;
pub(super) const INT_16: u8 = 1;
pub(super) const INT_32: u8 = 2;
pub(super) const LZF: u8 = 3;

/// Shorter strings are not worth an attempt to compress them.
const COMPRESS_BYTES_MIN: usize = 21;
/// What compressing has to save at least.
const SAVED_BYTES_MIN: usize = 4;
/// No integer of 32 bits is longer.
const INTEGER_TEXT_MAX: usize = 11;

pub fn write_length(out: &mut Vec<u8>, length: u64) {
    match length {
        0..0x40 => out.push(length as u8),
        0x40..0x4000 => out.extend_from_slice(&(0x4000 | length as u16).to_be_bytes()),
        0x4000..=0xFFFF_FFFF => {
            out.push(LENGTH_32);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            out.push(LENGTH_64);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

/// A string in its shortest form: as a number, compressed, or as it is.
pub fn write_string(out: &mut Vec<u8>, string: &[u8]) {
    if string.len() <= INTEGER_TEXT_MAX
        && let Some(number) = parse_integer(string)
        && write_small_integer(out, number)
    {
        return;
    }
    if COMPRESS_BYTES_MIN <= string.len()
        && let Some(compressed) = lzf::compress(string, string.len() - SAVED_BYTES_MIN)
    {
        write_compressed(out, &compressed, string.len());
        return;
    }
    write_bytes(out, string);
}

pub(super) fn write_text(out: &mut Vec<u8>, text: Text<'_>) {
    match text {
        Text::Integer(number) => write_element(out, Element::Integer(number)),
        Text::Bytes(bytes) => write_string(out, bytes),
    }
}

pub(super) fn write_element(out: &mut Vec<u8>, element: Element<'_>) {
    match element {
        Element::Integer(number) => {
            if !write_small_integer(out, number) {
                write_bytes(out, itoa::Buffer::new().format(number).as_bytes());
            }
        }
        Element::String(bytes) => write_string(out, bytes),
    }
}

/// What is compressed already.
pub(super) fn write_compressed(out: &mut Vec<u8>, compressed: &[u8], raw_bytes: usize) {
    out.push(SPECIAL | LZF);
    write_length(out, compressed.len() as u64);
    write_length(out, raw_bytes as u64);
    out.extend_from_slice(compressed);
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_length(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Whether the number was small enough.
fn write_small_integer(out: &mut Vec<u8>, number: i64) -> bool {
    if let Ok(number) = i8::try_from(number) {
        out.extend_from_slice(&[SPECIAL | INT_8, number as u8]);
    } else if let Ok(number) = i16::try_from(number) {
        out.push(SPECIAL | INT_16);
        out.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        out.push(SPECIAL | INT_32);
        out.extend_from_slice(&number.to_le_bytes());
    } else {
        return false;
    }
    true
}

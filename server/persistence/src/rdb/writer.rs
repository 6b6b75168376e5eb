//! The words of the format, written: lengths, strings, numbers.

use carnelian_structs::listpack::{Element, parse_integer};
use carnelian_structs::lzf;
use carnelian_structs::value::Text;

use super::Form;

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
    Sink::new(out, &Form::DUMP).string(string);
}

/// Where a value is written to, and how.
pub(super) struct Sink<'o> {
    pub(super) out: &'o mut Vec<u8>,
    compress: bool,
    pub(super) version: u16,
}

impl<'o> Sink<'o> {
    pub(super) const fn new(out: &'o mut Vec<u8>, form: &Form) -> Self {
        Self { out, compress: form.compress, version: form.version }
    }

    /// Bytes without their length.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn length(&mut self, length: u64) {
        write_length(self.out, length);
    }

    pub(super) fn string(&mut self, string: &[u8]) {
        if string.len() <= INTEGER_TEXT_MAX
            && let Some(number) = parse_integer(string)
            && self.small_integer(number)
        {
            return;
        }
        if self.compress
            && COMPRESS_BYTES_MIN <= string.len()
            && let Some(compressed) = lzf::compress(string, string.len() - SAVED_BYTES_MIN)
        {
            self.compressed(&compressed, string.len());
            return;
        }
        self.bytes(string);
    }

    pub(super) fn text(&mut self, text: Text<'_>) {
        match text {
            Text::Integer(number) => self.element(Element::Integer(number)),
            Text::Bytes(bytes) => self.string(bytes),
        }
    }

    pub(super) fn element(&mut self, element: Element<'_>) {
        match element {
            Element::Integer(number) => {
                if !self.small_integer(number) {
                    self.bytes(itoa::Buffer::new().format(number).as_bytes());
                }
            }
            Element::String(bytes) => self.string(bytes),
        }
    }

    /// What is compressed already.
    pub(super) fn compressed(&mut self, compressed: &[u8], raw_bytes: usize) {
        self.out.push(SPECIAL | LZF);
        self.length(compressed.len() as u64);
        self.length(raw_bytes as u64);
        self.raw(compressed);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Whether the number was small enough.
    fn small_integer(&mut self, number: i64) -> bool {
        if let Ok(number) = i8::try_from(number) {
            self.raw(&[SPECIAL | INT_8, number as u8]);
        } else if let Ok(number) = i16::try_from(number) {
            self.out.push(SPECIAL | INT_16);
            self.raw(&number.to_le_bytes());
        } else if let Ok(number) = i32::try_from(number) {
            self.out.push(SPECIAL | INT_32);
            self.raw(&number.to_le_bytes());
        } else {
            return false;
        }
        true
    }
}

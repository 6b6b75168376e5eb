//! The words of the format, read from bytes of which nothing is believed.

use std::borrow::Cow;

use carnelian_structs::lzf;

use super::LoadError;
use super::writer::{INT_8, INT_16, INT_32, LENGTH_32, LENGTH_64, LZF, SPECIAL};

/// What is left of the input.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    expanded_bytes_max: usize,
    /// How many more bytes were wanted when the input ended.
    missing: usize,
}

/// A length, or what stands in its place before a string of another form.
enum Length {
    Plain(u64),
    Special(u8),
}

impl<'a> Reader<'a> {
    /// `expanded_bytes_max`: the longest string that a compressed one may be.
    #[must_use]
    pub const fn new(bytes: &'a [u8], expanded_bytes_max: usize) -> Self {
        Self { rest: bytes, expanded_bytes_max, missing: 0 }
    }

    /// After [`LoadError::Truncated`]: how many bytes would have been needed at least to get on.
    #[must_use]
    pub const fn missing(&self) -> usize {
        self.missing
    }

    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes that have not been read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], LoadError> {
        let Some((bytes, rest)) = self.rest.split_at_checked(count) else {
            self.missing = count - self.rest.len();
            return Err(LoadError::Truncated);
        };
        self.rest = rest;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            self.missing = N - self.rest.len();
            return Err(LoadError::Truncated);
        };
        self.rest = rest;
        Ok(*bytes)
    }

    pub fn byte(&mut self) -> Result<u8, LoadError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u64(&mut self) -> Result<u64, LoadError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length, or any number written as one.
    pub fn length(&mut self) -> Result<u64, LoadError> {
        match self.length_or_special()? {
            Length::Plain(length) => Ok(length),
            Length::Special(_) => Err(LoadError::Malformed("a string where a length should be")),
        }
    }

    /// How many elements follow, which is not none.
    pub fn count(&mut self) -> Result<usize, LoadError> {
        match self.length()? {
            0 => Err(LoadError::Empty),
            count => self.size(count),
        }
    }

    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, LoadError> {
        let number = match self.length_or_special()? {
            Length::Plain(length) => {
                let length = self.size(length)?;
                return Ok(Cow::Borrowed(self.bytes(length)?));
            }
            Length::Special(INT_8) => i8::from_le_bytes(self.array()?).into(),
            Length::Special(INT_16) => i16::from_le_bytes(self.array()?).into(),
            Length::Special(INT_32) => i32::from_le_bytes(self.array()?),
            Length::Special(LZF) => return Ok(Cow::Owned(self.compressed()?)),
            Length::Special(_) => {
                return Err(LoadError::Malformed("a string of an unknown form"));
            }
        };
        Ok(Cow::Owned(itoa::Buffer::new().format(number).as_bytes().to_vec()))
    }

    /// Passes over a string without expanding it.
    #[inline]
    pub fn skip_string(&mut self) -> Result<(), LoadError> {
        let bytes = match self.length_or_special()? {
            Length::Plain(length) => self.size(length)?,
            Length::Special(INT_8) => 1,
            Length::Special(INT_16) => 2,
            Length::Special(INT_32) => 4,
            Length::Special(LZF) => {
                let compressed = self.length()?;
                self.length()?;
                self.size(compressed)?
            }
            Length::Special(_) => {
                return Err(LoadError::Malformed("a string of an unknown form"));
            }
        };
        self.bytes(bytes)?;
        Ok(())
    }

    /// A length as this machine counts.
    fn size(&mut self, length: u64) -> Result<usize, LoadError> {
        usize::try_from(length).map_err(|_| {
            self.missing = usize::MAX;
            LoadError::Truncated
        })
    }

    /// A score as Redis before 4.0 wrote it: text behind its length, three lengths taken for what
    /// has no digits.
    pub fn text_double(&mut self) -> Result<f64, LoadError> {
        match self.byte()? {
            253 => Ok(f64::NAN),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            length => {
                let text = self.bytes(length.into())?;
                let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                number.ok_or(LoadError::Malformed("a score that is no number"))
            }
        }
    }

    pub fn double(&mut self) -> Result<f64, LoadError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    fn length_or_special(&mut self) -> Result<Length, LoadError> {
        let first = self.byte()?;
        Ok(Length::Plain(match first & SPECIAL {
            0 => first.into(),
            0x40 => u16::from_be_bytes([first & 0x3F, self.byte()?]).into(),
            SPECIAL => return Ok(Length::Special(first & 0x3F)),
            _ => match first {
                LENGTH_32 => u32::from_be_bytes(self.array()?).into(),
                LENGTH_64 => u64::from_be_bytes(self.array()?),
                _ => return Err(LoadError::Malformed("a length of an unknown form")),
            },
        }))
    }

    fn compressed(&mut self) -> Result<Vec<u8>, LoadError> {
        let (compressed_bytes, raw_bytes) = (self.length()?, self.length()?);
        let compressed_bytes = self.size(compressed_bytes)?;
        let compressed = self.bytes(compressed_bytes)?;
        usize::try_from(raw_bytes)
            .ok()
            .filter(|&raw_bytes| raw_bytes <= self.expanded_bytes_max)
            .and_then(|raw_bytes| lzf::decompress(compressed, raw_bytes))
            .ok_or(LoadError::Malformed("a compressed string that does not expand"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::{write_length, write_string};
    use super::*;

    #[test]
    fn lengths_take_one_to_nine_bytes() {
        let lengths = [
            (0, 1),
            (63, 1),
            (64, 2),
            (16_383, 2),
            (16_384, 5),
            (u32::MAX.into(), 5),
            (1 << 32, 9),
            (u64::MAX, 9),
        ];
        for (length, bytes) in lengths {
            let mut out = Vec::new();
            write_length(&mut out, length);
            assert_eq!(out.len(), bytes, "{length}");
            assert_eq!(Reader::new(&out, 0).length(), Ok(length));
            assert_eq!(Reader::new(&out[..bytes - 1], 0).length(), Err(LoadError::Truncated));
        }
        for first in [0x82, 0xBF, 0xC0, 0xFF] {
            let bytes = [first; 9];
            assert!(matches!(Reader::new(&bytes, 0).length(), Err(LoadError::Malformed(_))));
        }
    }

    #[test]
    fn strings_take_their_shortest_form() {
        let long = b"ab".repeat(100);
        let strings: [(&[u8], usize); 10] = [
            (b"", 1),
            (b"-128", 2),
            (b"128", 3),
            (b"-32769", 5),
            (b"2147483647", 5),
            (b"2147483648", 11),
            (b"007", 4),
            (b"12345678901234567890", 21),
            (b"aaaaaaaaaaaaaaaaaaaaa", 9),
            (&long, 10),
        ];
        for (string, bytes) in strings {
            let mut out = Vec::new();
            write_string(&mut out, string);
            assert!(out.len() <= bytes, "{} for {string:?}", out.len());
            let mut reader = Reader::new(&out, 1000);
            assert_eq!(reader.string().as_deref(), Ok(string));
            assert!(reader.is_at_end());
            assert!(Reader::new(&out[..out.len() - 1], 1000).string().is_err());
        }
    }

    #[test]
    fn compressed_strings_have_a_bound() {
        let mut out = Vec::new();
        write_string(&mut out, &[0; 1000]);
        assert!(Reader::new(&out, 1000).string().is_ok());
        assert!(Reader::new(&out, 999).string().is_err());
    }

    #[test]
    fn old_scores_are_text() {
        let read = |bytes: &[u8]| Reader::new(bytes, 0).text_double();
        assert_eq!(read(b"\x031.5"), Ok(1.5));
        assert_eq!(read(b"\xFE"), Ok(f64::INFINITY));
        assert_eq!(read(b"\xFF"), Ok(f64::NEG_INFINITY));
        assert!(read(b"\x03abc").is_err() && read(b"\x031").is_err() && read(b"\x00").is_err());
    }
}

//! Stream IDs: a time in milliseconds and a sequence number.
//!
//! Texts are read by Redis's rules, which are those of C: a text ends at a zero byte, and where the
//! strict reading of a number fails, `strtoull`'s is tried, with its leading blanks and signs.

use std::fmt;

/// The ID of an entry. IDs of a stream only ever grow.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamId {
    pub ms: u64,
    pub seq: u64,
}

/// The ID that XADD asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NewId {
    /// `*`
    Auto,
    /// `ms-*`
    AutoSequence(u64),
    /// `ms-seq`, or `ms`, which means `ms-0`
    Exact(StreamId),
}

/// A text that is no ID, or not one that is allowed here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdError {
    Invalid,
    /// An exclusive start after which there is nothing.
    NothingAfterStart,
    /// An exclusive end before which there is nothing.
    NothingBeforeEnd,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "Invalid stream ID specified as stream command argument",
            Self::NothingAfterStart => "invalid start ID for the interval",
            Self::NothingBeforeEnd => "invalid end ID for the interval",
        })
    }
}

impl std::error::Error for IdError {}

/// Longer texts are no IDs.
const TEXT_BYTES_MAX: usize = 127;

impl StreamId {
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };
    /// What the text of an ID takes at most.
    pub const TEXT_BYTES_MAX: usize = 41;

    #[must_use]
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The smallest ID above this one.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match (self.ms, self.seq) {
            (u64::MAX, u64::MAX) => None,
            (ms, u64::MAX) => Some(Self { ms: ms + 1, seq: 0 }),
            (ms, seq) => Some(Self { ms, seq: seq + 1 }),
        }
    }

    /// The largest ID below this one.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match (self.ms, self.seq) {
            (0, 0) => None,
            (ms, 0) => Some(Self { ms: ms - 1, seq: u64::MAX }),
            (ms, seq) => Some(Self { ms, seq: seq - 1 }),
        }
    }

    /// Reads `ms-seq`, `ms` (then with `missing_seq`), `-` (the smallest ID) or `+` (the largest).
    pub fn parse(text: &[u8], missing_seq: u64) -> Result<Self, IdError> {
        match c_text(text)? {
            b"-" => Ok(Self::MIN),
            b"+" => Ok(Self::MAX),
            _ => Self::parse_strict(text, missing_seq),
        }
    }

    /// Reads `ms-seq` or `ms`, without the special IDs.
    pub fn parse_strict(text: &[u8], missing_seq: u64) -> Result<Self, IdError> {
        let (ms, seq) = split(c_text(text)?)?;
        let seq = match seq {
            Some(seq) => number(seq).ok_or(IdError::Invalid)?,
            None => missing_seq,
        };
        Ok(Self { ms, seq })
    }

    /// Reads the start of a range, which `(` makes exclusive.
    pub fn parse_range_start(text: &[u8]) -> Result<Self, IdError> {
        match text {
            [b'(', id @ ..] if !id.is_empty() => {
                Self::parse_strict(id, 0)?.next().ok_or(IdError::NothingAfterStart)
            }
            _ => Self::parse(text, 0),
        }
    }

    /// Reads the end of a range, which `(` makes exclusive.
    pub fn parse_range_end(text: &[u8]) -> Result<Self, IdError> {
        match text {
            [b'(', id @ ..] if !id.is_empty() => {
                Self::parse_strict(id, u64::MAX)?.previous().ok_or(IdError::NothingBeforeEnd)
            }
            _ => Self::parse(text, u64::MAX),
        }
    }

    /// Its text, `ms-seq`, put into `buffer`.
    pub fn format(self, buffer: &mut [u8; Self::TEXT_BYTES_MAX]) -> &[u8] {
        let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (ms, seq) = (ms.format(self.ms).as_bytes(), seq.format(self.seq).as_bytes());
        let len = ms.len() + 1 + seq.len();
        buffer[..ms.len()].copy_from_slice(ms);
        buffer[ms.len()] = b'-';
        buffer[ms.len() + 1..len].copy_from_slice(seq);
        &buffer[..len]
    }

    /// Appends `ms-seq`.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.format(&mut [0; Self::TEXT_BYTES_MAX]));
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl NewId {
    /// Reads `*`, `ms-*`, `ms-seq` or `ms`.
    pub fn parse(text: &[u8]) -> Result<Self, IdError> {
        let text = c_text(text)?;
        if text == b"*" {
            return Ok(Self::Auto);
        }
        match split(text)? {
            (ms, Some(b"*")) => Ok(Self::AutoSequence(ms)),
            (ms, None) => Ok(Self::Exact(StreamId { ms, seq: 0 })),
            (ms, Some(seq)) => {
                let seq = number(seq).ok_or(IdError::Invalid)?;
                Ok(Self::Exact(StreamId { ms, seq }))
            }
        }
    }
}

/// What C sees of a text.
fn c_text(text: &[u8]) -> Result<&[u8], IdError> {
    if TEXT_BYTES_MAX < text.len() {
        return Err(IdError::Invalid);
    }
    Ok(&text[..memchr::memchr(0, text).unwrap_or(text.len())])
}

/// Splits at the first dash and reads what is before it.
fn split(text: &[u8]) -> Result<(u64, Option<&[u8]>), IdError> {
    let (ms, seq) = match memchr::memchr(b'-', text) {
        Some(dash) => (&text[..dash], Some(&text[dash + 1..])),
        None => (text, None),
    };
    Ok((number(ms).ok_or(IdError::Invalid)?, seq))
}

/// A plain integer may not be negative, but what only `strtoull` takes may: it wraps around.
fn number(text: &[u8]) -> Option<u64> {
    if let Some(value) = super::block::integer(text) {
        return u64::try_from(value).ok();
    }
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let (negative, digits) = match &text[blanks..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0_u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if 9 < digit {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId::new(ms, seq)
    }

    #[test]
    fn ids_are_read_in_every_form() {
        for (text, expected) in [
            ("5-3", Ok(id(5, 3))),
            ("5", Ok(id(5, 77))),
            ("-", Ok(StreamId::MIN)),
            ("+", Ok(StreamId::MAX)),
            ("18446744073709551615-18446744073709551615", Ok(StreamId::MAX)),
            ("18446744073709551616-0", Err(IdError::Invalid)),
            ("", Err(IdError::Invalid)),
            ("5-", Err(IdError::Invalid)),
            ("-5", Err(IdError::Invalid)),
            ("5-x", Err(IdError::Invalid)),
            ("5-3-1", Err(IdError::Invalid)),
            ("5-*", Err(IdError::Invalid)),
            ("*", Err(IdError::Invalid)),
        ] {
            assert_eq!(StreamId::parse(text.as_bytes(), 77), expected, "{text}");
        }
        assert_eq!(StreamId::parse_strict(b"-", 0), Err(IdError::Invalid));
        assert_eq!(StreamId::parse_strict(b"+", 0), Err(IdError::Invalid));
        assert_eq!(StreamId::parse(&[b'1'; 128], 0), Err(IdError::Invalid));
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, expected) in [
            ("007-01", Ok(id(7, 1))),
            (" 5-+3", Ok(id(5, 3))),
            ("1--5", Err(IdError::Invalid)),
            ("1- -5", Ok(id(1, u64::MAX - 4))),
            ("1--0", Ok(id(1, 0))),
            ("1-\0junk", Err(IdError::Invalid)),
            ("1-2\0junk", Ok(id(1, 2))),
            ("1 -2", Err(IdError::Invalid)),
        ] {
            assert_eq!(StreamId::parse(text.as_bytes(), 0), expected, "{text:?}");
        }
    }

    #[test]
    fn new_ids_may_be_left_to_the_stream() {
        assert_eq!(NewId::parse(b"*"), Ok(NewId::Auto));
        assert_eq!(NewId::parse(b"7-*"), Ok(NewId::AutoSequence(7)));
        assert_eq!(NewId::parse(b"7"), Ok(NewId::Exact(id(7, 0))));
        assert_eq!(NewId::parse(b"7-1"), Ok(NewId::Exact(id(7, 1))));
        for text in ["-", "+", "*-1", "7-**", "", "*-*"] {
            assert_eq!(NewId::parse(text.as_bytes()), Err(IdError::Invalid), "{text}");
        }
    }

    #[test]
    fn ranges_may_exclude_their_ends() {
        assert_eq!(StreamId::parse_range_start(b"(5"), Ok(id(5, 1)));
        assert_eq!(StreamId::parse_range_start(b"5"), Ok(id(5, 0)));
        assert_eq!(StreamId::parse_range_end(b"5"), Ok(id(5, u64::MAX)));
        assert_eq!(StreamId::parse_range_end(b"(5"), Ok(id(5, u64::MAX - 1)));
        assert_eq!(StreamId::parse_range_end(b"(5-0"), Ok(id(4, u64::MAX)));
        assert_eq!(StreamId::parse_range_start(b"-"), Ok(StreamId::MIN));
        assert_eq!(StreamId::parse_range_start(b"(-"), Err(IdError::Invalid));
        assert_eq!(StreamId::parse_range_start(b"("), Err(IdError::Invalid));
        let last = format!("({}", StreamId::MAX);
        assert_eq!(StreamId::parse_range_start(last.as_bytes()), Err(IdError::NothingAfterStart));
        assert_eq!(StreamId::parse_range_end(b"(0-0"), Err(IdError::NothingBeforeEnd));
    }

    #[test]
    fn ids_are_written_as_they_are_read() {
        let mut out = Vec::new();
        id(1_526_919_030_474, 55).write_to(&mut out);
        assert_eq!(out, b"1526919030474-55");
        assert_eq!(StreamId::MAX.format(&mut [0; _]).len(), StreamId::TEXT_BYTES_MAX);
        assert_eq!(StreamId::parse(&out, 0).unwrap().to_string().as_bytes(), out);
    }
}

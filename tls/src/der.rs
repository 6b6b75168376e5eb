//! Just enough DER to walk the two structures no library here reads for us: encrypted private keys
//! and X.509 version 1. Every step is bounded by the slice it is in; `None` means damaged.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// Reads values one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next value.
    pub(crate) fn peek(self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The contents of the next value, which must have this tag.
    pub(crate) fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.value_and_whole(tag).map(|(contents, _)| contents)
    }

    /// A reader of the sequence that comes next.
    pub(crate) fn sequence(&mut self) -> Option<Self> {
        self.value(SEQUENCE).map(Reader::new)
    }

    /// The contents of the next value, and the same with tag and length before them.
    pub(crate) fn value_and_whole(&mut self, tag: u8) -> Option<(&'a [u8], &'a [u8])> {
        let (&[found, first], rest) = self.rest.split_first_chunk::<2>()?;
        if found != tag {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        let whole = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        Some((contents, whole))
    }
}

/// A small non-negative INTEGER.
pub(crate) fn small_integer(contents: &[u8]) -> Option<u32> {
    match contents {
        [] => None,
        [first, ..] if 0x80 <= *first => None,
        [0, rest @ ..] if rest.len() <= 4 => Some(big_endian(rest)),
        all if all.len() <= 4 => Some(big_endian(all)),
        _ => None,
    }
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// The bytes of a BIT STRING that ends on a byte.
pub(crate) fn whole_bytes(bit_string: &[u8]) -> Option<&[u8]> {
    match bit_string {
        [0, bytes @ ..] => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_turn_and_never_beyond_the_end() {
        let mut reader = Reader::new(&[0x30, 0x06, 0x02, 0x01, 0x05, 0x04, 0x01, 0xff]);
        let mut inner = reader.sequence().unwrap();
        assert_eq!(inner.value(INTEGER).and_then(small_integer), Some(5));
        assert_eq!(inner.value(OCTET_STRING), Some(&[0xff][..]));
        assert!(inner.is_empty() && reader.is_empty());
        assert_eq!(inner.value(INTEGER), None);

        for bad in [
            &[0x04][..],
            &[0x04, 0x01],
            &[0x04, 0x80],
            &[0x04, 0x81],
            &[0x04, 0x82, 0x01],
            &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00],
            &[0x04, 0x85, 0, 0, 0, 0, 1, 0],
        ] {
            assert_eq!(Reader::new(bad).value(OCTET_STRING), None);
        }
        assert_eq!(small_integer(&[0x80]), None);
        assert_eq!(small_integer(&[0, 0xff, 0xff, 0xff, 0xff]), Some(u32::MAX));
        assert_eq!(small_integer(&[1, 0, 0, 0, 0]), None);
    }
}

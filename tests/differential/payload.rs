//! What payloads of DUMP hold, as far as it can be compared: strings without their compression, and
//! what has no order in one.

/// The parts of a value of a type, with what is left to the server taken out of them.
pub fn contents(kind: u8, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    const STRING: u8 = 0;
    const SET: u8 = 2;
    const HASH: u8 = 4;
    const SORTED_SET: u8 = 5;
    const INTSET: u8 = 11;
    const HASH_LISTPACK: u8 = 16;
    const SORTED_SET_LISTPACK: u8 = 17;
    const LIST: u8 = 18;
    const SET_LISTPACK: u8 = 20;
    let mut input = Input(bytes);
    let mut parts = Vec::new();
    match kind {
        STRING | INTSET | HASH_LISTPACK | SORTED_SET_LISTPACK => parts.push(input.string()?),
        SET_LISTPACK => {
            // One that was made of a table has the table's order.
            let mut listpack = input.string()?;
            listpack.sort_unstable();
            parts.push(listpack);
        }
        SET => {
            for _ in 0..input.length()? {
                parts.push(input.string()?);
            }
            parts.sort_unstable();
        }
        HASH => {
            for _ in 0..input.length()? {
                let (field, value) = (input.string()?, input.string()?);
                parts.push([format!("{} ", field.len()).as_bytes(), &field, &value].concat());
            }
            parts.sort_unstable();
        }
        SORTED_SET => {
            for _ in 0..input.length()? {
                parts.push(input.string()?);
                parts.push(input.take(8)?.to_vec());
            }
        }
        LIST => {
            for _ in 0..input.length()? {
                parts.push(vec![u8::try_from(input.length()?).ok()?]);
                parts.push(input.string()?);
            }
        }
        _ => return None,
    }
    input.0.is_empty().then_some(parts)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn length(&mut self) -> Option<usize> {
        let [first] = self.array()?;
        let length = match first {
            0..0x40 => u64::from(first),
            0x40..0x80 => u64::from(first & 0x3F) << 8 | u64::from(self.array::<1>()?[0]),
            0x80 => u64::from(u32::from_be_bytes(self.array()?)),
            0x81 => u64::from_be_bytes(self.array()?),
            _ => return None,
        };
        usize::try_from(length).ok()
    }

    /// A string, be it a number or compressed.
    fn string(&mut self) -> Option<Vec<u8>> {
        let first = *self.0.first()?;
        if first < 0xC0 {
            let length = self.length()?;
            return Some(self.take(length)?.to_vec());
        }
        self.take(1)?;
        let number = match first {
            0xC0 => i32::from(i8::from_le_bytes(self.array()?)),
            0xC1 => i32::from(i16::from_le_bytes(self.array()?)),
            0xC2 => i32::from_le_bytes(self.array()?),
            0xC3 => {
                let (packed, whole) = (self.length()?, self.length()?);
                return unpack(self.take(packed)?).filter(|text| text.len() == whole);
            }
            _ => return None,
        };
        Some(number.to_string().into_bytes())
    }
}

/// LZF: runs of bytes as they are, and references to what came before.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut input = Input(packed);
    let mut text: Vec<u8> = Vec::new();
    while let Some([control]) = input.array() {
        if control < 0x20 {
            text.extend_from_slice(input.take(usize::from(control) + 1)?);
            continue;
        }
        let mut length = usize::from(control >> 5);
        if length == 7 {
            length += usize::from(input.array::<1>()?[0]);
        }
        let back = usize::from(control & 0x1F) << 8 | usize::from(input.array::<1>()?[0]);
        let start = text.len().checked_sub(back + 1)?;
        for place in start..start + length + 2 {
            text.push(text[place]);
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_does_not_count() {
        let plain = [&[40][..], &[b'a'; 40]].concat();
        // One byte as it is, and 39 from one before.
        let packed = [0xC3, 5, 40, 0, b'a', 0xE0, 30, 0];
        assert_eq!(contents(0, &plain), Some(vec![vec![b'a'; 40]]));
        assert_eq!(contents(0, &packed), contents(0, &plain));
        assert_eq!(contents(0, &packed[..7]), None);
        assert_eq!(contents(0, &[0xC1, 0x39, 0x30]), Some(vec![b"12345".to_vec()]));
    }

    #[test]
    fn order_counts_where_there_is_one() {
        let (one, other) = ([2, 1, b'a', 1, b'b'], [2, 1, b'b', 1, b'a']);
        assert_eq!(contents(2, &one), contents(2, &other));
        assert_ne!(contents(2, &one), contents(2, &[2, 1, b'b', 1, b'c']));
        assert_ne!(contents(18, &[1, 2, 2, 1, 2]), contents(18, &[1, 2, 2, 2, 1]));
    }
}

//! What Redis had before listpacks: ziplists (2.0 to 6.2) and zipmaps (2.4). Only read.

use carnelian_structs::listpack::{Element, Listpack, SAFE_BYTES_MAX};

use super::LoadError;
use super::reader::Reader;

const CUT_SHORT: LoadError = LoadError::Malformed("a ziplist entry that reaches over the end");
/// Total length, offset of the last entry, count of entries.
const HEADER: usize = 10;
const END: u8 = 0xFF;
/// The count of a ziplist that has more entries than the field can say.
const UNKNOWN: u16 = u16::MAX;

/// The elements of a ziplist, as a listpack.
pub(super) fn read(bytes: &[u8]) -> Result<Listpack, LoadError> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(LoadError::Malformed("a ziplist shorter than its header"));
    };
    let total = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let tail = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let claimed = u16::from_le_bytes([header[8], header[9]]);
    if total != bytes.len() {
        return Err(LoadError::Malformed("a ziplist of another length than its header says"));
    }
    let Some((&END, body)) = body.split_last() else {
        return Err(LoadError::Malformed("a ziplist without an end"));
    };

    let mut reader = Reader::new(body, 0);
    let mut elements = Vec::new();
    let mut element_bytes = 0_usize;
    let (mut last_at, mut last_bytes) = (HEADER, 0);
    while !reader.is_at_end() {
        let at = HEADER + body.len() - reader.rest().len();
        let element = read_entry(&mut reader, last_bytes)?;
        element_bytes = element_bytes.saturating_add(element.len());
        elements.push(element);
        last_bytes = HEADER + body.len() - reader.rest().len() - at;
        last_at = at;
    }
    if tail != last_at {
        return Err(LoadError::Malformed("a ziplist that does not know its last entry"));
    }
    if claimed != UNKNOWN && usize::from(claimed) != elements.len() {
        return Err(LoadError::Malformed("a ziplist count that is wrong"));
    }
    packed(&elements, element_bytes)
}

/// An entry behind one of `before` bytes, which it repeats.
fn read_entry<'a>(reader: &mut Reader<'a>, before: usize) -> Result<Element<'a>, LoadError> {
    read_entry_parts(reader, before).map_err(|error| match error {
        LoadError::Truncated => CUT_SHORT,
        other => other,
    })
}

fn read_entry_parts<'a>(reader: &mut Reader<'a>, before: usize) -> Result<Element<'a>, LoadError> {
    let claimed = match reader.byte()? {
        END => return Err(LoadError::Malformed("a ziplist that ends early")),
        0xFE => u32::from_le_bytes(reader.array()?) as usize,
        short => short.into(),
    };
    if claimed != before {
        return Err(LoadError::Malformed("a ziplist entry with a wrong length behind it"));
    }
    let first = reader.byte()?;
    let length = match first {
        0x00..0x40 => usize::from(first),
        0x40..0x80 => usize::from(u16::from_be_bytes([first & 0x3F, reader.byte()?])),
        0x80 => u32::from_be_bytes(reader.array()?) as usize,
        _ => return Ok(Element::Integer(read_integer(reader, first)?)),
    };
    Ok(Element::String(reader.bytes(length)?))
}

fn read_integer(reader: &mut Reader<'_>, form: u8) -> Result<i64, LoadError> {
    Ok(match form {
        0xC0 => i16::from_le_bytes(reader.array()?).into(),
        0xD0 => i32::from_le_bytes(reader.array()?).into(),
        0xE0 => i64::from_le_bytes(reader.array()?),
        0xF0 => {
            let [low, middle, high] = reader.array()?;
            i64::from(i32::from_le_bytes([0, low, middle, high]) >> 8)
        }
        0xFE => i8::from_le_bytes(reader.array()?).into(),
        0xF1..=0xFD => i64::from(form & 0x0F) - 1,
        _ => return Err(LoadError::Malformed("a ziplist entry of an unknown form")),
    })
}

/// The fields and values of a zipmap, as a listpack.
pub(super) fn read_zipmap(bytes: &[u8]) -> Result<Listpack, LoadError> {
    let (elements, element_bytes) = zipmap_elements(bytes).map_err(|error| match error {
        LoadError::Truncated => LoadError::Malformed("a zipmap that is cut short"),
        other => other,
    })?;
    packed(&elements, element_bytes)
}

fn zipmap_elements(bytes: &[u8]) -> Result<(Vec<Element<'_>>, usize), LoadError> {
    /// From here on the count in front does not say how many fields there are.
    const MANY: u8 = 254;

    let mut reader = Reader::new(bytes, 0);
    let claimed = reader.byte()?;
    let mut elements = Vec::new();
    let mut element_bytes = 0_usize;
    while let Some(length) = zipmap_length(&mut reader)? {
        let name = reader.bytes(length)?;
        let length = zipmap_length(&mut reader)?
            .ok_or(LoadError::Malformed("a zipmap field without its value"))?;
        let unused = reader.byte()?;
        let value = reader.bytes(length)?;
        reader.bytes(unused.into())?;
        element_bytes = element_bytes.saturating_add(name.len() + value.len());
        elements.extend([Element::String(name), Element::String(value)]);
    }
    if !reader.is_at_end() {
        return Err(LoadError::Malformed("a zipmap that ends early"));
    }
    if claimed < MANY && usize::from(claimed) != elements.len() / 2 {
        return Err(LoadError::Malformed("a zipmap count that is wrong"));
    }
    Ok((elements, element_bytes))
}

/// The length of a string; `None` at the end.
fn zipmap_length(reader: &mut Reader<'_>) -> Result<Option<usize>, LoadError> {
    Ok(match reader.byte()? {
        END => None,
        0xFE => Some(u32::from_le_bytes(reader.array()?) as usize),
        short => Some(short.into()),
    })
}

fn packed(elements: &[Element<'_>], element_bytes: usize) -> Result<Listpack, LoadError> {
    /// What an element needs at most beside its bytes.
    const OVERHEAD: usize = 10;

    let bytes = element_bytes.saturating_add(elements.len().saturating_mul(OVERHEAD));
    if SAFE_BYTES_MAX < bytes {
        return Err(LoadError::Malformed("more elements than a listpack holds"));
    }
    Ok(Listpack::from_elements(elements.iter().copied()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A ziplist of these entries, each without the length of the one before.
    pub(in super::super) fn ziplist(entries: &[Vec<u8>]) -> Vec<u8> {
        let (mut body, mut before, mut tail) = (Vec::new(), 0, HEADER);
        for entry in entries {
            tail = HEADER + body.len();
            let start = body.len();
            match before {
                0..254 => body.push(before as u8),
                _ => {
                    body.push(0xFE);
                    body.extend_from_slice(&(before as u32).to_le_bytes());
                }
            }
            body.extend_from_slice(entry);
            before = body.len() - start;
        }
        let total = (HEADER + body.len() + 1) as u32;
        let count = entries.len() as u16;
        let header = [&total.to_le_bytes()[..], &(tail as u32).to_le_bytes(), &count.to_le_bytes()];
        [&header.concat()[..], &body, &[END]].concat()
    }

    pub(in super::super) fn text(text: &[u8]) -> Vec<u8> {
        let length = text.len();
        let head = match length {
            0..0x40 => vec![length as u8],
            0x40..0x4000 => (0x4000 | length as u16).to_be_bytes().to_vec(),
            _ => [&[0x80][..], &(length as u32).to_be_bytes()].concat(),
        };
        [&head, text].concat()
    }

    #[test]
    fn every_form_of_entry_is_read() {
        let long = vec![b'x'; 20_000];
        let entries = [
            text(b"a"),
            text(&[b'y'; 300]),
            text(&long),
            vec![0xC0, 0xFE, 0xFF],
            vec![0xD0, 0, 0, 0, 0x80],
            vec![0xE0, 1, 0, 0, 0, 0, 0, 0, 0x80],
            vec![0xF0, 0xFF, 0xFF, 0x7F],
            vec![0xF0, 0, 0, 0x80],
            vec![0xFE, 0x80],
            vec![0xF1],
            vec![0xFD],
        ];
        let listpack = read(&ziplist(&entries)).unwrap();
        let elements: Vec<Element<'_>> = listpack.iter().collect();
        assert_eq!(
            elements[..3],
            [Element::String(b"a"), Element::String(&[b'y'; 300]), Element::String(&long)]
        );
        let integers: Vec<i64> = elements[3..].iter().filter_map(Element::to_i64).collect();
        let low = i64::MIN + 1;
        assert_eq!(integers, [-2, -(1 << 31), low, (1 << 23) - 1, -(1 << 23), -128, 0, 12]);
        assert!(read(&ziplist(&[])).unwrap().is_empty());
    }

    #[test]
    fn damaged_ziplists_are_refused_or_sound() {
        let good = ziplist(&[text(b"field"), vec![0xF3], text(&[b'v'; 70]), vec![0xC0, 1, 2]]);
        for at in 0..good.len() {
            for value in 0..=255 {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = read(&bad);
            }
            assert!(read(&good[..at]).is_err());
        }
    }

    #[test]
    fn zipmaps_are_read() {
        let zipmap = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world..\xFF";
        let elements: Vec<Vec<u8>> =
            read_zipmap(zipmap).unwrap().iter().map(|it| it.to_vec()).collect();
        assert_eq!(elements, [&b"foo"[..], b"bar", b"hello", b"world"]);
        for at in 0..zipmap.len() {
            for value in 0..=255 {
                let mut bad = zipmap.to_vec();
                bad[at] = value;
                let _ = read_zipmap(&bad);
            }
            assert!(read_zipmap(&zipmap[..at]).is_err());
        }
    }
}

//! Where a value ends, found without making it: quick enough for one thread to find work for others.

use super::{LoadError, Reader, Type};

/// Bytes of an ID or of a time among pending entries.
const ID_BYTES: usize = 16;
const TIME_BYTES: usize = 8;

/// Passes over the value that follows a type byte.
pub(super) fn skip(kind: Type, reader: &mut Reader<'_>) -> Result<(), LoadError> {
    match kind {
        Type::String
        | Type::HashZipmap
        | Type::ListZiplist
        | Type::SetIntset
        | Type::SortedSetZiplist
        | Type::HashZiplist
        | Type::HashListpack
        | Type::SortedSetListpack
        | Type::SetListpack
        | Type::HashListpackExpiriesPreview => reader.skip_string(),
        Type::HashListpackExpiries => {
            reader.bytes(TIME_BYTES)?;
            reader.skip_string()
        }
        Type::List | Type::Set | Type::ListQuicklist => each(reader, |reader| reader.skip_string()),
        Type::ListQuicklist2 => each(reader, |reader| {
            reader.length()?;
            reader.skip_string()
        }),
        Type::SortedSet => each(reader, |reader| {
            reader.skip_string()?;
            reader.text_double().map(drop)
        }),
        Type::SortedSet2 => each(reader, |reader| {
            reader.skip_string()?;
            reader.double().map(drop)
        }),
        Type::Hash => each(reader, skip_two),
        Type::HashExpiries => {
            reader.bytes(TIME_BYTES)?;
            skip_expiring(reader)
        }
        Type::HashExpiriesPreview => skip_expiring(reader),
        Type::HashValkey => each(reader, |reader| {
            skip_two(reader)?;
            reader.bytes(TIME_BYTES).map(drop)
        }),
        Type::Stream | Type::Stream2 | Type::Stream3 => skip_stream(kind, reader),
    }
}

fn each<'a>(
    reader: &mut Reader<'a>,
    mut skip_one: impl FnMut(&mut Reader<'a>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    for _ in 0..reader.length()? {
        skip_one(reader)?;
    }
    Ok(())
}

fn skip_two(reader: &mut Reader<'_>) -> Result<(), LoadError> {
    reader.skip_string()?;
    reader.skip_string()
}

fn skip_expiring(reader: &mut Reader<'_>) -> Result<(), LoadError> {
    each(reader, |reader| {
        reader.length()?;
        skip_two(reader)
    })
}

fn skip_stream(kind: Type, reader: &mut Reader<'_>) -> Result<(), LoadError> {
    each(reader, skip_two)?;
    let has_counters = kind != Type::Stream;
    // How many entries there are and the last ID; the first, the last deleted, and how many there
    // have been.
    let numbers = if has_counters { 8 } else { 3 };
    for _ in 0..numbers {
        reader.length()?;
    }
    each(reader, |reader| {
        reader.skip_string()?;
        let numbers = if has_counters { 3 } else { 2 };
        for _ in 0..numbers {
            reader.length()?;
        }
        each(reader, |reader| {
            reader.bytes(ID_BYTES + TIME_BYTES)?;
            reader.length().map(drop)
        })?;
        each(reader, |reader| {
            reader.skip_string()?;
            let times = if kind == Type::Stream3 { 2 } else { 1 };
            reader.bytes(times * TIME_BYTES)?;
            let pending = reader.length()?;
            let bytes = usize::try_from(pending).unwrap_or(usize::MAX).saturating_mul(ID_BYTES);
            reader.bytes(bytes).map(drop)
        })
    })
}

//! Consumer groups of streams: what follows the entries.
//!
//! What is pending comes first for the group, without the consumers, and then as IDs for each of
//! those; in what is read both have to agree.

use std::collections::HashMap;

use carnelian_structs::stream::{Group, Pending, Stream, StreamId};

use super::reader::Reader;
use super::save::{VERSION_STREAM_2, VERSION_STREAM_3};
use super::writer::Sink;
use super::{LoadError, Type};

/// In the place of a count or time: none.
const NONE: u64 = u64::MAX;

pub(super) fn save(stream: &Stream, out: &mut Sink<'_>) {
    out.length(stream.groups_len() as u64);
    for group in stream.groups() {
        save_group(group, out);
    }
}

fn save_group(group: &Group, out: &mut Sink<'_>) {
    out.string(group.name());
    out.length(group.last_id.ms);
    out.length(group.last_id.seq);
    if VERSION_STREAM_2 <= out.version {
        out.length(group.entries_read.unwrap_or(NONE));
    }
    out.length(group.pending_len() as u64);
    for pending in group.pending_from(StreamId::MIN) {
        write_id(out, pending.id);
        out.raw(&pending.delivered_ms.to_le_bytes());
        out.length(pending.deliveries);
    }
    out.length(group.consumers_len() as u64);
    for (id, consumer) in group.consumers() {
        out.string(consumer.name());
        out.raw(&consumer.seen_ms.to_le_bytes());
        if VERSION_STREAM_3 <= out.version {
            out.raw(&consumer.active_ms.unwrap_or(NONE).to_le_bytes());
        }
        out.length(consumer.pending_len() as u64);
        for pending in group.pending_of(id, StreamId::MIN) {
            write_id(out, pending.id);
        }
    }
}

fn write_id(out: &mut Sink<'_>, id: StreamId) {
    out.raw(&id.ms.to_be_bytes());
    out.raw(&id.seq.to_be_bytes());
}

pub(super) fn load(
    kind: Type,
    reader: &mut Reader<'_>,
    stream: &mut Stream,
) -> Result<(), LoadError> {
    let groups = reader.length()?;
    for _ in 0..groups {
        load_group(kind, reader, stream)?;
    }
    Ok(())
}

fn load_group(kind: Type, reader: &mut Reader<'_>, stream: &mut Stream) -> Result<(), LoadError> {
    let name = reader.string()?;
    let last_id = StreamId::new(reader.length()?, reader.length()?);
    let entries_read = match kind {
        Type::Stream => stream.count_up_to(last_id),
        _ => some(reader.length()?),
    };
    let mut group = stream
        .add_group(&name, last_id, entries_read)
        .ok_or(LoadError::Malformed("two groups of one name"))?;
    let mut unowned = HashMap::new();
    let pending = reader.length()?;
    for _ in 0..pending {
        let known = (read_id(reader)?, (reader.u64()?, reader.length()?));
        if unowned.insert(known.0, known.1).is_some() {
            return Err(LoadError::Malformed("an entry that is pending twice in a group"));
        }
    }
    let consumers = reader.length()?;
    for _ in 0..consumers {
        let name = reader.string()?;
        let seen_ms = reader.u64()?;
        let active_ms = match kind {
            Type::Stream3 => some(reader.u64()?),
            _ => Some(seen_ms),
        };
        let consumer = group
            .add_consumer(&name, seen_ms)
            .ok_or(LoadError::Malformed("Duplicate stream consumer detected"))?;
        group.consumer_mut(consumer).active_ms = active_ms;
        let pending = reader.length()?;
        for _ in 0..pending {
            let id = read_id(reader)?;
            let (delivered_ms, deliveries) = unowned.remove(&id).ok_or(LoadError::Malformed(
                "a pending entry of a consumer that the group has not, or another consumer has",
            ))?;
            group.set_pending(Pending { id, delivered_ms, deliveries, consumer });
        }
    }
    if !unowned.is_empty() {
        return Err(LoadError::Malformed("a pending entry without a consumer"));
    }
    Ok(())
}

fn some(number: u64) -> Option<u64> {
    (number != NONE).then_some(number)
}

fn read_id(reader: &mut Reader<'_>) -> Result<StreamId, LoadError> {
    let [ms, seq] = [reader.array()?, reader.array()?].map(u64::from_be_bytes);
    Ok(StreamId::new(ms, seq))
}

//! Streams: entries packed into listpacks as Redis keeps them, each under the ID it starts from.
//!
//! A listpack begins with how many entries are live and how many deleted, and with the fields of
//! its first entry; entries with the same fields have values only. IDs are differences. Consumer
//! groups follow the entries.

use carnelian_structs::listpack::{Element, Iter, Listpack};
use carnelian_structs::stream::{BlockLimits, Entry, NewId, Piece, Stream, StreamId};

use super::reader::Reader;
use super::save::VERSION_STREAM_2;
use super::writer::Sink;
use super::{Form, LoadError, Type, groups};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
/// The length of an ID in front of a listpack.
const ID_BYTES: usize = 16;
/// A listpack without a limit in `stream-node-max-bytes`.
const NODE_BYTES_MAX: usize = 1 << 30;

const CUT_SHORT: LoadError = LoadError::Malformed("a stream entry that is cut short");

pub(super) fn save(stream: &Stream, limits: BlockLimits, out: &mut Sink<'_>, form: &Form) {
    let mut nodes = Nodes::new();
    nodes.add_some(stream, limits, form, || true);
    nodes.finish(stream, out, form);
}

/// The entries of a stream on their way out. Their number comes before the listpacks and is known when all
/// are made, so these are kept until then.
pub(super) struct Nodes {
    bytes: Vec<u8>,
    count: u64,
    open: Option<Node>,
    /// The next entry has this ID, or a later one.
    next: StreamId,
}

/// Entries between two questions whether to go on.
const ENTRIES_AT_ONCE: usize = 16;

impl Nodes {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), count: 0, open: None, next: StreamId::MIN }
    }

    /// Adds entries until `goes_on` says no. Whether all were added.
    pub(super) fn add_some(
        &mut self,
        stream: &Stream,
        limits: BlockLimits,
        form: &Form,
        mut goes_on: impl FnMut() -> bool,
    ) -> bool {
        for (place, entry) in stream.range(self.next, StreamId::MAX).enumerate() {
            if place != 0 && place % ENTRIES_AT_ONCE == 0 && !goes_on() {
                self.next = entry.id;
                return false;
            }
            if let Some(full) = self.open.take_if(|node| node.is_full(&entry, limits)) {
                full.finish(&mut Sink::new(&mut self.bytes, form));
            }
            match &mut self.open {
                Some(node) => node.append(&entry),
                None => {
                    self.count += 1;
                    self.open = Some(Node::of(&entry));
                }
            }
        }
        true
    }

    /// Writes them, and what follows the entries.
    pub(super) fn finish(&mut self, stream: &Stream, out: &mut Sink<'_>, form: &Form) {
        if let Some(last) = self.open.take() {
            last.finish(&mut Sink::new(&mut self.bytes, form));
        }
        out.length(self.count);
        out.raw(&self.bytes);
        out.length(stream.len());
        write_id(stream.last_id(), out);
        if VERSION_STREAM_2 <= out.version {
            write_id(stream.first_id(), out);
            write_id(stream.max_deleted_id(), out);
            out.length(stream.entries_added());
        }
        groups::save(stream, out);
    }
}

fn write_id(id: StreamId, out: &mut Sink<'_>) {
    out.length(id.ms);
    out.length(id.seq);
}

/// A listpack in the making.
struct Node {
    first: StreamId,
    entries: usize,
    listpack: Listpack,
    fields: Vec<Vec<u8>>,
}

impl Node {
    fn of(entry: &Entry<'_>) -> Self {
        let fields: Vec<Vec<u8>> = entry.fields().map(|(field, _)| field.to_vec()).collect();
        // The count of live entries, set in the end; of deleted ones; of fields.
        let mut listpack = Listpack::from_elements([0, 0, fields.len() as i64]);
        listpack.extend_back(fields.iter());
        listpack.push_back(0);
        let mut node = Self { first: entry.id, entries: 0, listpack, fields };
        node.append(entry);
        node
    }

    /// Whether Redis would have begun another listpack with this entry.
    fn is_full(&self, entry: &Entry<'_>, limits: BlockLimits) -> bool {
        let bytes_max = match limits.bytes {
            0 => NODE_BYTES_MAX,
            bytes => bytes.min(NODE_BYTES_MAX),
        };
        let text_bytes: usize = entry
            .fields()
            .map(|(field, value)| field.with(<[u8]>::len) + value.with(<[u8]>::len))
            .sum();
        bytes_max <= self.listpack.total_bytes().saturating_add(text_bytes)
            || (limits.entries != 0 && limits.entries <= self.entries)
    }

    fn append(&mut self, entry: &Entry<'_>) {
        let fields = entry.fields();
        let count = fields.len() as i64;
        let same = fields.len() == self.fields.len()
            && fields
                .clone()
                .zip(&self.fields)
                .all(|((field, _), known)| field.with(|field| field == known));
        let flags = if same { SAME_FIELDS } else { 0 };
        // Differences of sequence numbers wrap, as they do when they are added again.
        let mut elements = vec![
            Element::Integer(flags),
            Element::Integer(entry.id.ms.wrapping_sub(self.first.ms) as i64),
            Element::Integer(entry.id.seq.wrapping_sub(self.first.seq) as i64),
        ];
        if same {
            elements.extend(fields.map(|(_, value)| element(value)));
        } else {
            elements.push(Element::Integer(count));
            elements.extend(fields.flat_map(|(field, value)| [element(field), element(value)]));
        }
        elements.push(Element::Integer(elements.len() as i64));
        self.listpack.extend_back(elements);
        self.entries += 1;
    }

    fn finish(mut self, out: &mut Sink<'_>) {
        if let Some(first) = self.listpack.first() {
            self.listpack.replace(first, self.entries as i64);
        }
        let [ms, seq] = [self.first.ms, self.first.seq].map(u64::to_be_bytes);
        out.string(&[ms, seq].concat());
        out.string(self.listpack.as_bytes());
    }
}

fn element(piece: Piece<'_>) -> Element<'_> {
    match piece {
        Piece::Text(text) => Element::String(text),
        Piece::Integer(number) => Element::Integer(number),
    }
}

pub(super) fn load(
    kind: Type,
    reader: &mut Reader<'_>,
    limits: BlockLimits,
) -> Result<Stream, LoadError> {
    let mut stream = Stream::new();
    let nodes = reader.length()?;
    for _ in 0..nodes {
        let key = reader.string()?;
        let key: [u8; ID_BYTES] =
            (*key).try_into().map_err(|_| LoadError::Malformed("a stream node without an ID"))?;
        let listpack = Listpack::from_bytes(&reader.string()?)?;
        let [ms, seq] = [&key[..8], &key[8..]]
            .map(|half| half.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)));
        load_node(&mut stream, StreamId::new(ms, seq), &listpack, limits)?;
    }
    if reader.length()? != stream.len() {
        return Err(LoadError::Malformed("a stream of another length than it says"));
    }
    let last_id = read_id(reader)?;
    let (max_deleted_id, entries_added) = match kind {
        Type::Stream => (StreamId::MIN, stream.len()),
        _ => {
            // The first ID is known from the entries.
            read_id(reader)?;
            (read_id(reader)?, reader.length()?)
        }
    };
    if last_id < max_deleted_id {
        return Err(LoadError::Malformed("a stream whose deleted ID is above its last one"));
    }
    stream
        .set_id(last_id, Some(entries_added), Some(max_deleted_id))
        .map_err(|_| LoadError::Malformed("a stream whose last ID or counters are wrong"))?;
    groups::load(kind, reader, &mut stream)?;
    Ok(stream)
}

fn read_id(reader: &mut Reader<'_>) -> Result<StreamId, LoadError> {
    Ok(StreamId::new(reader.length()?, reader.length()?))
}

fn load_node(
    stream: &mut Stream,
    first: StreamId,
    listpack: &Listpack,
    limits: BlockLimits,
) -> Result<(), LoadError> {
    let mut elements = listpack.iter();
    let (live, deleted) = (count(&mut elements)?, count(&mut elements)?);
    let field_count = count(&mut elements)?;
    let fields = take(&mut elements, field_count)?;
    if integer(&mut elements)? != 0 {
        return Err(LoadError::Malformed("a stream node without an end of its fields"));
    }
    let (mut live_found, mut deleted_found) = (0, 0);
    let mut pairs: Vec<Vec<u8>> = Vec::new();
    while let Some(flags) = elements.next() {
        let flags = flags.to_i64().ok_or(CUT_SHORT)?;
        if flags & !(DELETED | SAME_FIELDS) != 0 {
            return Err(LoadError::Malformed("a stream entry with unknown flags"));
        }
        let (ms, seq) = (integer(&mut elements)?, integer(&mut elements)?);
        let id =
            StreamId::new(first.ms.wrapping_add(ms as u64), first.seq.wrapping_add(seq as u64));
        pairs.clear();
        let passed = if flags & SAME_FIELDS != 0 {
            for field in &fields {
                let value = elements.next().ok_or(CUT_SHORT)?;
                pairs.extend([field.clone(), value.to_vec()]);
            }
            3 + fields.len()
        } else {
            let own = count(&mut elements)?;
            for _ in 0..own {
                let (field, value) =
                    (elements.next().ok_or(CUT_SHORT)?, elements.next().ok_or(CUT_SHORT)?);
                pairs.extend([field.to_vec(), value.to_vec()]);
            }
            4 + 2 * own
        };
        if count(&mut elements)? != passed {
            return Err(LoadError::Malformed("a stream entry of another length than it says"));
        }
        if flags & DELETED != 0 {
            deleted_found += 1;
            continue;
        }
        live_found += 1;
        if pairs.is_empty() {
            return Err(LoadError::Malformed("a stream entry without fields"));
        }
        let words: Vec<&[u8]> = pairs.iter().map(Vec::as_slice).collect();
        stream
            .append(NewId::Exact(id), 0, &words, limits)
            .map_err(|_| LoadError::Malformed("a stream entry out of order"))?;
    }
    if (live, deleted) != (live_found, deleted_found) {
        return Err(LoadError::Malformed("a stream node with wrong counts"));
    }
    Ok(())
}

fn integer(elements: &mut Iter<'_>) -> Result<i64, LoadError> {
    elements.next().and_then(|element| element.to_i64()).ok_or(CUT_SHORT)
}

/// A number of things, each of which takes a place in the listpack or refers to one.
fn count(elements: &mut Iter<'_>) -> Result<usize, LoadError> {
    usize::try_from(integer(elements)?)
        .ok()
        .filter(|count| *count <= u32::MAX as usize)
        .ok_or(LoadError::Malformed("a count in a stream that cannot be"))
}

fn take(elements: &mut Iter<'_>, count: usize) -> Result<Vec<Vec<u8>>, LoadError> {
    let taken: Vec<Vec<u8>> = elements.take(count).map(|element| element.to_vec()).collect();
    if taken.len() == count { Ok(taken) } else { Err(CUT_SHORT) }
}

//! Values written, each in the form that Redis gives it.

use carnelian_keyspace::{Limits, Value};
use carnelian_structs::entry::EntryRef;
use carnelian_structs::hash::Hash;
use carnelian_structs::list::{List, StoredNode};
use carnelian_structs::listpack::Direction;
use carnelian_structs::set::Set;
use carnelian_structs::sorted_set::SortedSet;

use super::writer::{write_compressed, write_element, write_length, write_string, write_text};
use super::{Bounds, Type, stream};

/// What the node of a list holds.
pub(super) const NODE_PLAIN: u64 = 1;
pub(super) const NODE_PACKED: u64 = 2;

/// The form in which [`save`] writes a value.
#[must_use]
pub fn type_of(entry: EntryRef<'_, Value>) -> Type {
    entry.object().map_or(Type::String, |value| match &*value {
        Value::String(_) => Type::String,
        Value::List(_) => Type::ListQuicklist2,
        Value::Set(Set::Intset(_)) => Type::SetIntset,
        Value::Set(Set::Listpack(_)) => Type::SetListpack,
        Value::Set(Set::Table(_)) => Type::Set,
        Value::SortedSet(SortedSet::Listpack(_)) => Type::SortedSetListpack,
        Value::SortedSet(SortedSet::Skiplist(_)) => Type::SortedSet2,
        Value::Hash(Hash::Listpack(_)) => Type::HashListpack,
        Value::Hash(Hash::ListpackEx(_)) => Type::HashListpackExpiries,
        Value::Hash(hash @ Hash::Table(_)) => match hash.next_expiry() {
            Some(_) => Type::HashExpiries,
            None => Type::Hash,
        },
        Value::Stream(_) => Type::Stream3,
    })
}

/// Appends a value without its type byte.
pub fn save(entry: EntryRef<'_, Value>, limits: &Limits, out: &mut Vec<u8>) {
    if let Some(text) = entry.text() {
        write_text(out, text);
        return;
    }
    let Some(value) = entry.object() else { return };
    match &*value {
        Value::String(text) => write_string(out, text),
        Value::List(list) => save_list(list, out),
        Value::Set(set) => save_set(set, out),
        Value::SortedSet(sorted) => save_sorted_set(sorted, out),
        Value::Hash(hash) => save_hash(hash, out),
        Value::Stream(stream) => stream::save(stream, Bounds::new(limits).stream, out),
    }
}

fn save_list(list: &List, out: &mut Vec<u8>) {
    match list {
        List::Listpack(listpack) => {
            write_length(out, 1);
            write_length(out, NODE_PACKED);
            write_string(out, listpack.as_bytes());
        }
        List::Quicklist(quicklist) => {
            write_length(out, quicklist.node_count() as u64);
            quicklist.nodes().for_each(|node| save_node(node, out));
        }
    }
}

fn save_node(node: StoredNode<'_>, out: &mut Vec<u8>) {
    match node {
        StoredNode::Packed(bytes) => {
            write_length(out, NODE_PACKED);
            write_string(out, bytes);
        }
        StoredNode::Plain(element) => {
            write_length(out, NODE_PLAIN);
            write_string(out, element);
        }
        StoredNode::Compressed { packed, raw_bytes, lzf } => {
            write_length(out, if packed { NODE_PACKED } else { NODE_PLAIN });
            write_compressed(out, lzf, raw_bytes);
        }
    }
}

fn save_set(set: &Set, out: &mut Vec<u8>) {
    match set {
        Set::Intset(intset) => write_string(out, intset.as_bytes()),
        Set::Listpack(listpack) => write_string(out, listpack.as_bytes()),
        Set::Table(_) => {
            write_length(out, set.len() as u64);
            set.iter().for_each(|member| write_element(out, member));
        }
    }
}

fn save_sorted_set(sorted: &SortedSet, out: &mut Vec<u8>) {
    let SortedSet::Skiplist(_) = sorted else {
        if let SortedSet::Listpack(listpack) = sorted {
            write_string(out, listpack.as_bytes());
        }
        return;
    };
    write_length(out, sorted.len() as u64);
    // From the highest, as Redis does: its skip list is built fastest so.
    for (member, score) in sorted.range(0..sorted.len(), Direction::Backward) {
        write_element(out, member);
        out.extend_from_slice(&score.to_le_bytes());
    }
}

fn save_hash(hash: &Hash, out: &mut Vec<u8>) {
    match hash {
        Hash::Listpack(pairs) => write_string(out, pairs.as_bytes()),
        Hash::ListpackEx(triplets) => {
            out.extend_from_slice(&hash.next_expiry().unwrap_or(0).to_le_bytes());
            write_string(out, triplets.as_bytes());
        }
        Hash::Table(_) => save_fields(hash, out),
    }
}

/// Expiries are written as differences to the first, plus one: 0 is none.
fn save_fields(hash: &Hash, out: &mut Vec<u8>) {
    let first = hash.next_expiry();
    if let Some(first) = first {
        out.extend_from_slice(&first.to_le_bytes());
    }
    write_length(out, hash.len() as u64);
    for field in hash.iter() {
        if let Some(first) = first {
            let after = field.expiry.map_or(0, |at| at.saturating_sub(first).saturating_add(1));
            write_length(out, after);
        }
        write_element(out, field.name);
        write_element(out, field.value);
    }
}

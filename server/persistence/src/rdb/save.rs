//! Values written, each in the form that Redis gives it.

use std::ops::Range;

use carnelian_keyspace::{Limits, Value};
use carnelian_structs::entry::EntryRef;
use carnelian_structs::hash::{Field, Hash};
use carnelian_structs::list::{List, StoredNode};
use carnelian_structs::listpack::Direction;
use carnelian_structs::set::Set;
use carnelian_structs::sorted_set::SortedSet;

use super::writer::Sink;
use super::{Bounds, Form, Type, VERSION_EXPIRING_FIELDS, stream};

/// What the node of a list holds.
pub(super) const NODE_PLAIN: u64 = 1;
pub(super) const NODE_PACKED: u64 = 2;

/// Versions from which on a form can be read: earlier ones get the one that was there before it.
const VERSION_LISTPACK: u16 = 10;
pub(super) const VERSION_STREAM_2: u16 = 10;
pub(super) const VERSION_STREAM_3: u16 = 11;
const VERSION_SET_LISTPACK: u16 = 11;

/// The form in which [`save`] writes a value. Hashes with fields that expire have one form only.
#[must_use]
pub fn type_of(entry: EntryRef<'_, Value>, form: &Form) -> Type {
    let packs = VERSION_LISTPACK <= form.version;
    entry.object().map_or(Type::String, |value| match &*value {
        Value::String(_) => Type::String,
        Value::List(_) if packs => Type::ListQuicklist2,
        Value::List(_) => Type::List,
        Value::Set(Set::Intset(_)) => Type::SetIntset,
        Value::Set(Set::Listpack(_)) if VERSION_SET_LISTPACK <= form.version => Type::SetListpack,
        Value::Set(Set::Listpack(_) | Set::Table(_)) => Type::Set,
        Value::SortedSet(SortedSet::Listpack(_)) if packs => Type::SortedSetListpack,
        Value::SortedSet(_) => Type::SortedSet2,
        Value::Hash(Hash::Listpack(_)) if packs => Type::HashListpack,
        Value::Hash(Hash::Listpack(_)) => Type::Hash,
        // Its fields may all have lost their expiry.
        Value::Hash(hash @ Hash::ListpackEx(_))
            if form.version < VERSION_EXPIRING_FIELDS && hash.next_expiry().is_none() =>
        {
            Type::Hash
        }
        Value::Hash(Hash::ListpackEx(_)) => Type::HashListpackExpiries,
        Value::Hash(hash @ Hash::Table(_)) => match hash.next_expiry() {
            Some(_) => Type::HashExpiries,
            None => Type::Hash,
        },
        Value::Stream(_) if VERSION_STREAM_3 <= form.version => Type::Stream3,
        Value::Stream(_) if VERSION_STREAM_2 <= form.version => Type::Stream2,
        Value::Stream(_) => Type::Stream,
    })
}

/// Appends a value without its type byte.
pub fn save(entry: EntryRef<'_, Value>, limits: &Limits, form: &Form, out: &mut Vec<u8>) {
    let out = &mut Sink::new(out, form);
    if let Some(text) = entry.text() {
        out.text(text);
        return;
    }
    let Some(value) = entry.object() else { return };
    match (&*value, type_of(entry, form)) {
        (Value::String(text), _) => out.string(text),
        (Value::List(list), Type::List) => save_elements(list, out),
        (Value::List(list), _) => save_list(list, out),
        (Value::Set(set), kind) => save_set(set, kind, out),
        (Value::SortedSet(sorted), kind) => save_sorted_set(sorted, kind, out),
        (Value::Hash(hash), kind) => save_hash(hash, kind, out),
        (Value::Stream(stream), _) => {
            stream::save(stream, Bounds::new(limits).stream, out, form);
        }
    }
}

fn save_elements(list: &List, out: &mut Sink<'_>) {
    out.length(list.len() as u64);
    list.for_range(0, list.len(), |element| out.element(element));
}

fn save_list(list: &List, out: &mut Sink<'_>) {
    match list {
        List::Listpack(listpack) => {
            out.length(1);
            out.length(NODE_PACKED);
            out.string(listpack.as_bytes());
        }
        List::Quicklist(quicklist) => {
            out.length(quicklist.node_count() as u64);
            quicklist.nodes().for_each(|node| save_node(node, out));
        }
    }
}

pub(super) fn save_node(node: StoredNode<'_>, out: &mut Sink<'_>) {
    match node {
        StoredNode::Packed(bytes) => {
            out.length(NODE_PACKED);
            out.string(bytes);
        }
        StoredNode::Plain(element) => {
            out.length(NODE_PLAIN);
            out.string(element);
        }
        StoredNode::Compressed { packed, raw_bytes, lzf } => {
            out.length(if packed { NODE_PACKED } else { NODE_PLAIN });
            out.compressed(lzf, raw_bytes);
        }
    }
}

fn save_set(set: &Set, kind: Type, out: &mut Sink<'_>) {
    match set {
        Set::Intset(intset) => out.string(intset.as_bytes()),
        Set::Listpack(listpack) if kind == Type::SetListpack => out.string(listpack.as_bytes()),
        Set::Listpack(_) | Set::Table(_) => {
            out.length(set.len() as u64);
            set.iter().for_each(|member| out.element(member));
        }
    }
}

fn save_sorted_set(sorted: &SortedSet, kind: Type, out: &mut Sink<'_>) {
    match sorted {
        SortedSet::Listpack(listpack) if kind == Type::SortedSetListpack => {
            out.string(listpack.as_bytes());
        }
        SortedSet::Listpack(_) | SortedSet::Skiplist(_) => {
            out.length(sorted.len() as u64);
            // From the highest, as Redis does: its skip list is built fastest so.
            save_ranks(sorted, 0..sorted.len(), out);
        }
    }
}

pub(super) fn save_ranks(sorted: &SortedSet, ranks: Range<usize>, out: &mut Sink<'_>) {
    for (member, score) in sorted.range(ranks, Direction::Backward) {
        out.element(member);
        out.raw(&score.to_le_bytes());
    }
}

fn save_hash(hash: &Hash, kind: Type, out: &mut Sink<'_>) {
    match hash {
        Hash::Listpack(pairs) if kind == Type::HashListpack => out.string(pairs.as_bytes()),
        Hash::ListpackEx(triplets) if kind == Type::HashListpackExpiries => {
            out.raw(&hash.next_expiry().unwrap_or(0).to_le_bytes());
            out.string(triplets.as_bytes());
        }
        Hash::Listpack(_) | Hash::ListpackEx(_) | Hash::Table(_) => save_fields(hash, out),
    }
}

fn save_fields(hash: &Hash, out: &mut Sink<'_>) {
    let first = save_field_head(hash, out);
    hash.iter().for_each(|field| save_field(field, first, out));
}

/// What comes before the fields. The time at which the first of them expires, if any does.
pub(super) fn save_field_head(hash: &Hash, out: &mut Sink<'_>) -> Option<u64> {
    let first = hash.next_expiry();
    if let Some(first) = first {
        out.raw(&first.to_le_bytes());
    }
    out.length(hash.len() as u64);
    first
}

/// Expiries are written as differences to the first, plus one: 0 is none.
pub(super) fn save_field(field: Field<'_>, first: Option<u64>, out: &mut Sink<'_>) {
    if let Some(first) = first {
        let after = field.expiry.map_or(0, |at| at.saturating_sub(first).saturating_add(1));
        out.length(after);
    }
    out.element(field.name);
    out.element(field.value);
}

//! Long values written in pieces, so that what they are in need not stay locked for as long as all of one takes.
//!
//! Together the pieces are what [`save`](super::save()) writes, in another order of members and fields. Between
//! them the value must not change: who is about to change it has the rest written first.

use carnelian_keyspace::{Limits, Value};
use carnelian_structs::entry::EntryRef;
use carnelian_structs::hash::Hash;
use carnelian_structs::list::List;
use carnelian_structs::set::Set;
use carnelian_structs::sorted_set::SortedSet;
use carnelian_structs::table::Cursor;

use super::save::{save_field, save_field_head, save_node, save_ranks};
use super::stream::Nodes;
use super::writer::Sink;
use super::{Bounds, Form, Type, type_of};

/// Values with more elements, nodes or bytes than this take pieces.
const ELEMENTS: usize = 1024;
const NODES: usize = 8;
const BYTES: usize = 64 << 10;

/// What is written between two questions whether to go on.
const ELEMENTS_AT_ONCE: usize = 16;
const BYTES_AT_ONCE: usize = 64 << 10;

/// A long value of which some pieces are written.
pub struct Pieces(At);

/// How far it is.
enum At {
    /// A copy of so much of a string. It is compressed as a whole, when nothing is locked any more.
    Text(Vec<u8>),
    Nodes(usize),
    Members(u64),
    /// Members of a sorted set with lower scores are left, so many.
    Ranks(usize),
    Fields(Cursor),
    Entries(Nodes),
}

/// Whether a value is so long that it is better written in pieces.
#[must_use]
pub fn is_long(entry: EntryRef<'_, Value>, form: &Form) -> bool {
    entry.object().is_some_and(|value| match &*value {
        Value::String(text) => BYTES < text.len(),
        Value::List(List::Quicklist(list)) => {
            NODES < list.node_count() && type_of(entry, form) == Type::ListQuicklist2
        }
        Value::Set(set @ Set::Table(_)) => ELEMENTS < set.len(),
        Value::SortedSet(sorted @ SortedSet::Skiplist(_)) => ELEMENTS < sorted.len(),
        Value::Hash(hash @ Hash::Table(_)) => ELEMENTS < hash.len(),
        Value::Stream(stream) => (ELEMENTS as u64) < stream.len(),
        _ => false,
    })
}

impl Pieces {
    /// Begins a value that [`is_long`], behind its type and key.
    pub(super) fn begin(entry: EntryRef<'_, Value>, form: &Form, out: &mut Vec<u8>) -> Self {
        let out = &mut Sink::new(out, form);
        let object = entry.object();
        let value = object.as_deref().expect("what is long is an object");
        Self(match value {
            Value::String(_) => At::Text(Vec::new()),
            Value::List(List::Quicklist(list)) => {
                out.length(list.node_count() as u64);
                At::Nodes(0)
            }
            Value::Set(set) => {
                out.length(set.len() as u64);
                At::Members(0)
            }
            Value::SortedSet(sorted) => {
                out.length(sorted.len() as u64);
                At::Ranks(sorted.len())
            }
            Value::Hash(hash) => {
                save_field_head(hash, out);
                At::Fields(Cursor(0))
            }
            Value::Stream(_) => At::Entries(Nodes::new()),
            Value::List(List::Listpack(_)) => unreachable!("a listpack is short"),
        })
    }

    /// Goes on with the same value, until `goes_on` says no. Whether it is through with it: then
    /// [`Pieces::end`] is all that is left.
    pub(super) fn go_on(
        &mut self,
        entry: EntryRef<'_, Value>,
        limits: &Limits,
        form: &Form,
        out: &mut Vec<u8>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> bool {
        let out = &mut Sink::new(out, form);
        let object = entry.object();
        let value = object.as_deref().expect("what is long is an object");
        if let (At::Entries(nodes), Value::Stream(stream)) = (&mut self.0, value) {
            let is_through = nodes.add_some(stream, Bounds::new(limits).stream, form, goes_on);
            if is_through {
                nodes.finish(stream, out, form);
            }
            return is_through;
        }
        loop {
            if self.0.step(value, out) {
                return true;
            }
            if !goes_on() {
                return false;
            }
        }
    }

    /// Writes what needs no look at the value any more.
    pub(super) fn end(self, form: &Form, out: &mut Vec<u8>) {
        if let At::Text(text) = self.0 {
            Sink::new(out, form).string(&text);
        }
    }
}

impl At {
    /// Writes a piece. Whether it was the last.
    fn step(&mut self, value: &Value, out: &mut Sink<'_>) -> bool {
        match (self, value) {
            (Self::Text(copy), Value::String(text)) => {
                copy.reserve_exact(text.len() - copy.len());
                let rest = &text[copy.len()..];
                copy.extend_from_slice(&rest[..rest.len().min(BYTES_AT_ONCE)]);
                copy.len() == text.len()
            }
            (Self::Nodes(at), Value::List(List::Quicklist(list))) => {
                if let Some(node) = list.nodes().nth(*at) {
                    save_node(node, out);
                }
                *at += 1;
                list.node_count() <= *at
            }
            (Self::Members(at), Value::Set(set)) => {
                *at = set.scan(*at, ELEMENTS_AT_ONCE, |member| out.element(member));
                *at == 0
            }
            (Self::Ranks(left), Value::SortedSet(sorted)) => {
                let first = left.saturating_sub(ELEMENTS_AT_ONCE);
                save_ranks(sorted, first..*left, out);
                *left = first;
                first == 0
            }
            (Self::Fields(at), Value::Hash(hash)) => {
                let first = hash.next_expiry();
                *at = hash.visit_bucket(*at, |field| save_field(field, first, out));
                *at == Cursor(0)
            }
            _ => unreachable!("a value that is being written stays what it is"),
        }
    }
}

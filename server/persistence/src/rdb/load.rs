//! Values read, in whatever form they come.
//!
//! A compact encoding is taken over as it is if it is sound and has no more elements than the
//! limits allow; as in Redis, the length of its elements is not looked at then.

use std::borrow::Cow;
use std::cmp::Ordering;

use carnelian_keyspace::Limits;
use carnelian_structs::hash::{FieldExpiry, Hash, HashLimits};
use carnelian_structs::intset::Intset;
use carnelian_structs::list::{End, List, Quicklist};
use carnelian_structs::listpack::{Element, Listpack};
use carnelian_structs::set::Set;
use carnelian_structs::sorted_set::{Builder, SortedSet};

use super::reader::Reader;
use super::save::{NODE_PACKED, NODE_PLAIN};
use super::{Bounds, LoadError, Loaded, Type, stream, ziplist};

/// Fields of hashes expire before this (year 10889).
const EXPIRY_MAX: u64 = (1 << 48) - 1;

const DUPLICATE_MEMBER: LoadError = LoadError::Malformed("a member that is there twice");
const DUPLICATE_FIELD: LoadError = LoadError::Malformed("a field that is there twice");
const NOT_A_SCORE: LoadError = LoadError::Malformed("a score that is no number");
const NOT_A_TIME: LoadError = LoadError::Malformed("an expiry that is no time");

/// Reads the value that follows a type byte.
pub fn load<'a>(
    kind: Type,
    reader: &mut Reader<'a>,
    limits: &Limits,
) -> Result<Loaded<'a>, LoadError> {
    let bounds = Bounds::new(limits);
    Ok(match kind {
        Type::String => Loaded::String(reader.string()?),
        Type::List => Loaded::List(list(reader, &bounds)?),
        Type::ListZiplist => Loaded::List(list_of_ziplist(&reader.string()?, &bounds)?),
        Type::ListQuicklist | Type::ListQuicklist2 => {
            Loaded::List(quicklist(kind, reader, &bounds)?)
        }
        Type::Set => Loaded::Set(set(reader, &bounds)?),
        Type::SetIntset => Loaded::Set(intset(&reader.string()?, &bounds)?),
        Type::SetListpack => Loaded::Set(set_of_listpack(listpack(reader)?, &bounds)?),
        Type::SortedSet | Type::SortedSet2 => Loaded::SortedSet(sorted_set(kind, reader, &bounds)?),
        Type::SortedSetListpack => {
            Loaded::SortedSet(sorted_set_of_listpack(listpack(reader)?, &bounds)?)
        }
        Type::SortedSetZiplist => {
            let listpack = not_empty(ziplist::read(&reader.string()?)?)?;
            Loaded::SortedSet(sorted_set_of_listpack(listpack, &bounds)?)
        }
        Type::Hash | Type::HashExpiries | Type::HashExpiriesPreview => {
            Loaded::Hash(hash(kind, reader, &bounds)?)
        }
        Type::HashValkey => Loaded::Hash(valkey_hash(reader, &bounds)?),
        Type::HashListpack => {
            Loaded::Hash(Hash::from_pairs(listpack(reader)?, packed_limits(&bounds))?)
        }
        Type::HashZiplist => {
            let pairs = not_empty(ziplist::read(&reader.string()?)?)?;
            Loaded::Hash(Hash::from_pairs(pairs, packed_limits(&bounds))?)
        }
        Type::HashZipmap => {
            let pairs = not_empty(ziplist::read_zipmap(&reader.string()?)?)?;
            Loaded::Hash(Hash::from_pairs(pairs, bounds.hash)?)
        }
        Type::HashListpackExpiries => {
            // The first expiry, for who does not want to look into the listpack.
            reader.u64()?;
            Loaded::Hash(hash_of_triplets(listpack(reader)?, &bounds)?)
        }
        Type::HashListpackExpiriesPreview => {
            Loaded::Hash(hash_of_triplets(listpack(reader)?, &bounds)?)
        }
        Type::Stream | Type::Stream2 | Type::Stream3 => {
            Loaded::Stream(Box::new(stream::load(kind, reader, bounds.stream)?))
        }
    })
}

fn listpack(reader: &mut Reader<'_>) -> Result<Listpack, LoadError> {
    not_empty(Listpack::from_bytes(&reader.string()?)?)
}

fn not_empty(listpack: Listpack) -> Result<Listpack, LoadError> {
    if listpack.is_empty() { Err(LoadError::Empty) } else { Ok(listpack) }
}

fn list(reader: &mut Reader<'_>, bounds: &Bounds) -> Result<List, LoadError> {
    let count = reader.count()?;
    let mut quicklist = Quicklist::new(bounds.list);
    for _ in 0..count {
        quicklist.push(End::Back, &reader.string()?, bounds.list);
    }
    Ok(List::from_quicklist(quicklist, bounds.list))
}

/// Stays a quicklist however small it is, as in Redis.
fn list_of_ziplist(bytes: &[u8], bounds: &Bounds) -> Result<List, LoadError> {
    let elements = not_empty(ziplist::read(bytes)?)?;
    let mut quicklist = Quicklist::new(bounds.list);
    let mut buffer = itoa::Buffer::new();
    for element in &elements {
        quicklist.push(End::Back, element.as_bytes(&mut buffer), bounds.list);
    }
    Ok(List::Quicklist(Box::new(quicklist)))
}

fn quicklist(kind: Type, reader: &mut Reader<'_>, bounds: &Bounds) -> Result<List, LoadError> {
    let nodes = reader.count()?;
    let mut quicklist = Quicklist::new(bounds.list);
    for _ in 0..nodes {
        let form = match kind {
            Type::ListQuicklist2 => Some(reader.length()?),
            _ => None,
        };
        let node = reader.string()?;
        match form {
            _ if node.is_empty() => return Err(LoadError::Malformed("a node without bytes")),
            None => quicklist.append_listpack(ziplist::read(&node)?),
            Some(NODE_PACKED) => quicklist.append_listpack(Listpack::from_bytes(&node)?),
            Some(NODE_PLAIN) => quicklist.append_plain(&node),
            Some(_) => return Err(LoadError::Malformed("a node of an unknown form")),
        }
    }
    if quicklist.is_empty() {
        return Err(LoadError::Empty);
    }
    Ok(List::from_quicklist(quicklist, bounds.list))
}

fn set(reader: &mut Reader<'_>, bounds: &Bounds) -> Result<Set, LoadError> {
    let count = reader.count()?;
    let first = reader.string()?;
    let mut set = Set::for_member(&first, count, bounds.set);
    set.insert(&first, bounds.set);
    for _ in 1..count {
        if !set.insert(&reader.string()?, bounds.set) {
            return Err(DUPLICATE_MEMBER);
        }
    }
    Ok(set)
}

fn intset(bytes: &[u8], bounds: &Bounds) -> Result<Set, LoadError> {
    let intset = Intset::from_bytes(bytes)?;
    if intset.len() <= bounds.set.intset_entries {
        return Ok(Set::Intset(intset));
    }
    large_set(intset.iter().map(Element::Integer), bounds)
}

fn set_of_listpack(listpack: Listpack, bounds: &Bounds) -> Result<Set, LoadError> {
    if bounds.set.listpack_entries < listpack.len() {
        return large_set(listpack.iter(), bounds);
    }
    if listpack.has_repeats(1) { Err(DUPLICATE_MEMBER) } else { Ok(Set::Listpack(listpack)) }
}

fn large_set<'a>(
    members: impl Iterator<Item = Element<'a>>,
    bounds: &Bounds,
) -> Result<Set, LoadError> {
    let mut set = Set::large();
    for member in members {
        if !set.insert_element(member, bounds.set) {
            return Err(DUPLICATE_MEMBER);
        }
    }
    Ok(set)
}

fn sorted_set(
    kind: Type,
    reader: &mut Reader<'_>,
    bounds: &Bounds,
) -> Result<SortedSet, LoadError> {
    let count = reader.count()?;
    let mut builder = Builder::default();
    for _ in 0..count {
        let member = reader.string()?;
        let score = match kind {
            Type::SortedSet => reader.text_double()?,
            _ => reader.double()?,
        };
        add(&mut builder, &member, score)?;
    }
    Ok(builder.finish(bounds.sorted_set))
}

/// Members that are out of order, which Redis writes never and takes all the same, are put in it.
fn sorted_set_of_listpack(listpack: Listpack, bounds: &Bounds) -> Result<SortedSet, LoadError> {
    if !listpack.len().is_multiple_of(2) {
        return Err(LoadError::Malformed("a member without its score"));
    }
    if listpack.has_repeats(2) {
        return Err(DUPLICATE_MEMBER);
    }
    if listpack.len() / 2 <= bounds.sorted_set.listpack_entries && is_in_order(&listpack)? {
        return Ok(SortedSet::Listpack(listpack));
    }
    let mut builder = Builder::default();
    let mut elements = listpack.iter();
    while let (Some(member), Some(score)) = (elements.next(), elements.next()) {
        add(&mut builder, member.as_bytes(&mut itoa::Buffer::new()), score_of(score)?)?;
    }
    Ok(builder.finish(bounds.sorted_set))
}

/// Whether members are in the order of their scores, and of their bytes where those are the same.
fn is_in_order(listpack: &Listpack) -> Result<bool, LoadError> {
    let mut in_order = true;
    let mut last: Option<(f64, Element<'_>)> = None;
    let mut elements = listpack.iter();
    while let (Some(member), Some(score)) = (elements.next(), elements.next()) {
        let score = score_of(score)?;
        if score.is_nan() {
            return Err(NOT_A_SCORE);
        }
        if let Some((last_score, last_member)) = last {
            in_order &= match last_score.partial_cmp(&score) {
                Some(Ordering::Less) => true,
                Some(Ordering::Equal) => {
                    let mut buffer = itoa::Buffer::new();
                    last_member.cmp_bytes(member.as_bytes(&mut buffer)) == Ordering::Less
                }
                Some(Ordering::Greater) | None => false,
            };
        }
        last = Some((score, member));
    }
    Ok(in_order)
}

fn add(builder: &mut Builder, member: &[u8], score: f64) -> Result<(), LoadError> {
    if score.is_nan() {
        return Err(NOT_A_SCORE);
    }
    let before = builder.len();
    builder.update(member, |_| score);
    if builder.len() == before { Err(DUPLICATE_MEMBER) } else { Ok(()) }
}

fn score_of(element: Element<'_>) -> Result<f64, LoadError> {
    match element {
        Element::Integer(integer) => Ok(integer as f64),
        Element::String(text) => {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            number.ok_or(NOT_A_SCORE)
        }
    }
}

/// The limits for a hash that was a listpack where it was written.
const fn packed_limits(bounds: &Bounds) -> HashLimits {
    HashLimits { entries: bounds.hash.entries, value: usize::MAX }
}

fn hash_of_triplets(triplets: Listpack, bounds: &Bounds) -> Result<Hash, LoadError> {
    let hash = Hash::from_triplets(triplets, packed_limits(bounds))?;
    if hash.iter().any(|field| field.expiry.is_some_and(|at| EXPIRY_MAX < at)) {
        return Err(NOT_A_TIME);
    }
    Ok(hash)
}

fn hash(kind: Type, reader: &mut Reader<'_>, bounds: &Bounds) -> Result<Hash, LoadError> {
    let first = if kind == Type::HashExpiries { reader.u64()? } else { 0 };
    let count = reader.count()?;
    let mut hash = Hash::new();
    hash.prepare(count, bounds.hash);
    if kind != Type::Hash {
        hash.make_expirable();
    }
    for _ in 0..count {
        let expiry = match kind {
            Type::Hash => None,
            _ => expiry_of(kind, reader.length()?, first)?,
        };
        let (name, value): (Cow<'_, [u8]>, Cow<'_, [u8]>) = (reader.string()?, reader.string()?);
        let expiry = expiry.map_or(FieldExpiry::Clear, FieldExpiry::At);
        if !hash.set(&name, &value, expiry, bounds.hash) {
            return Err(DUPLICATE_FIELD);
        }
    }
    Ok(hash)
}

fn valkey_hash(reader: &mut Reader<'_>, bounds: &Bounds) -> Result<Hash, LoadError> {
    const NEVER: i64 = -1;

    let count = reader.count()?;
    let mut hash = Hash::new();
    hash.prepare(count, bounds.hash);
    hash.make_expirable();
    for _ in 0..count {
        let (name, value) = (reader.string()?, reader.string()?);
        let expiry = match i64::from_le_bytes(reader.array()?) {
            NEVER => FieldExpiry::Clear,
            at => {
                let at = u64::try_from(at).ok().filter(|at| *at <= EXPIRY_MAX);
                FieldExpiry::At(at.ok_or(NOT_A_TIME)?)
            }
        };
        if !hash.set(&name, &value, expiry, bounds.hash) {
            return Err(DUPLICATE_FIELD);
        }
    }
    Ok(hash)
}

/// An expiry behind the first one, or on its own.
fn expiry_of(kind: Type, word: u64, first: u64) -> Result<Option<u64>, LoadError> {
    let at = match (kind, word) {
        (_, 0) => return Ok(None),
        (Type::HashExpiries, after) => first.checked_add(after - 1),
        (_, at) => Some(at),
    };
    at.filter(|at| *at <= EXPIRY_MAX).map(Some).ok_or(NOT_A_TIME)
}

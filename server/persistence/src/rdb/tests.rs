//! Values of every encoding through bytes and back; old forms; and payloads damaged in all ways.

use std::collections::BTreeMap;

use carnelian_keyspace::{AccessPolicy, Aftermath, Db, Expiry, Keyspace, Limits, Value};
use carnelian_structs::hash::{FieldExpiry, Hash};
use carnelian_structs::list::{End, List};
use carnelian_structs::set::Set;
use carnelian_structs::sorted_set::SortedSet;
use carnelian_structs::stream::{Group, NewId, Pending, Stream, StreamId};
use proptest::prelude::*;

use super::crc64::crc64;
use super::dump::{Checksum, RestoreError, dump, restore};
use super::writer::{write_length, write_string};
use super::ziplist::tests::{text, ziplist};
use super::*;
use carnelian_structs::listpack::Listpack;

pub(super) const NOW_MS: u64 = 1_700_000_000_000;

/// Small limits, so that small values reach every encoding.
pub(super) fn limits() -> Limits {
    Limits {
        hash_max_listpack_entries: 6,
        hash_max_listpack_value: 20,
        list_max_listpack_size: 4,
        list_compress_depth: 1,
        list_packed_threshold: 60,
        set_max_intset_entries: 6,
        set_max_listpack_entries: 5,
        set_max_listpack_value: 20,
        zset_max_listpack_entries: 6,
        zset_max_listpack_value: 20,
        stream_node_max_entries: 4,
        ..Limits::default()
    }
}

/// A keyspace with one key, `k`.
struct Shelf {
    keyspace: Keyspace,
    aftermath: Aftermath,
}

impl Shelf {
    fn of(loaded: Loaded<'_>) -> Self {
        let mut shelf = Self { keyspace: Keyspace::new(1), aftermath: Aftermath::default() };
        shelf.with(|db| match loaded {
            Loaded::String(text) => db.set_string(b"k", &text, Expiry::Clear),
            Loaded::List(list) => db.put(b"k", list, None),
            Loaded::Set(set) => db.put(b"k", set, None),
            Loaded::SortedSet(sorted) => db.put(b"k", sorted, None),
            Loaded::Hash(hash) => db.put(b"k", hash, None),
            Loaded::Stream(stream) => db.put(b"k", *stream, None),
        });
        shelf
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Db<'_>) -> R) -> R {
        let access = self.keyspace.lock_all();
        act(&mut Db::new(access, 0, NOW_MS, AccessPolicy::Lru, &mut self.aftermath))
    }

    fn dump(&mut self) -> Vec<u8> {
        self.with(|db| dump(db.look(b"k").expect("the key is there"), &limits()))
    }

    /// The encoding and the content.
    fn describe(&mut self) -> (&'static str, String) {
        self.with(|db| {
            let entry = db.look(b"k").expect("the key is there");
            let content = match entry.text() {
                Some(text) => format!("{:?}", text.to_vec()),
                None => describe(&entry.object().expect("no text")),
            };
            (entry.encoding(), content)
        })
    }
}

pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::List(list) => {
            let mut elements = Vec::new();
            list.for_range(0, list.len(), |element| elements.push(element.to_vec()));
            format!("{elements:?}")
        }
        Value::Set(set) => {
            let mut members: Vec<_> = set.iter().map(|member| member.to_vec()).collect();
            members.sort();
            format!("{members:?}")
        }
        Value::SortedSet(sorted) => {
            let members: Vec<_> =
                sorted.iter().map(|(member, score)| (member.to_vec(), score)).collect();
            format!("{members:?}")
        }
        Value::Hash(hash) => {
            let fields: BTreeMap<_, _> = hash
                .iter()
                .map(|field| (field.name.to_vec(), (field.value.to_vec(), field.expiry)))
                .collect();
            format!("{fields:?}")
        }
        Value::Stream(stream) => {
            let entries: Vec<_> = stream
                .range(StreamId::MIN, StreamId::MAX)
                .map(|entry| {
                    let fields: Vec<_> = entry
                        .fields()
                        .map(|(field, value)| (field.to_vec(), value.to_vec()))
                        .collect();
                    (entry.id, fields)
                })
                .collect();
            let ids = (stream.first_id(), stream.last_id(), stream.max_deleted_id());
            let groups: String = stream.groups().map(describe_group).collect();
            format!("{entries:?} {ids:?} {}{groups}", stream.entries_added())
        }
    }
}

fn describe_group(group: &Group) -> String {
    let consumers = group.consumers().map(|(id, consumer)| {
        let name = String::from_utf8_lossy(consumer.name());
        let pending = group.pending_of(id, StreamId::MIN).map(|pending| {
            format!("{}@{}x{}", pending.id, pending.delivered_ms, pending.deliveries)
        });
        let pending: Vec<_> = pending.collect();
        format!(" {name} {} {:?} {pending:?}", consumer.seen_ms, consumer.active_ms)
    });
    let consumers: String = consumers.collect();
    let name = String::from_utf8_lossy(group.name());
    let (last_id, read, pending) = (group.last_id, group.entries_read, group.pending_len());
    format!("; {name} {last_id} {read:?} {pending}{consumers}")
}

/// A payload of a value written by hand.
fn payload(kind: Type, body: &[u8]) -> Vec<u8> {
    sealed(&[&[kind as u8], body, &[11, 0]].concat())
}

fn sealed(covered: &[u8]) -> Vec<u8> {
    [covered, &crc64(0, covered).to_le_bytes()].concat()
}

fn string_of(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_string(&mut out, bytes);
    out
}

fn restored(payload: &[u8]) -> Result<Shelf, RestoreError> {
    restore(payload, &limits(), Checksum::Verified).map(Shelf::of)
}

#[track_caller]
fn check_round_trip(loaded: Loaded<'_>) -> Vec<u8> {
    let mut shelf = Shelf::of(loaded);
    let payload = shelf.dump();
    let mut copy = restored(&payload).expect("our own payload");
    assert_eq!(copy.describe(), shelf.describe());
    assert_eq!(copy.describe().0, shelf.describe().0);
    payload
}

fn list(elements: &[Vec<u8>]) -> Loaded<'static> {
    let bounds = Bounds::new(&limits());
    let mut list = List::new();
    for element in elements {
        list.push(End::Back, &[element], bounds.list);
    }
    Loaded::List(list)
}

fn set(members: &[Vec<u8>]) -> Loaded<'static> {
    let bounds = Bounds::new(&limits());
    let mut set = Set::for_member(&members[0], 1, bounds.set);
    for member in members {
        set.insert(member, bounds.set);
    }
    Loaded::Set(set)
}

fn sorted_set(members: &[(Vec<u8>, f64)]) -> Loaded<'static> {
    let bounds = Bounds::new(&limits());
    let first = members[0].0.len();
    let mut sorted = SortedSet::for_members(1, first, bounds.sorted_set);
    for (member, score) in members {
        sorted.insert(member, *score, bounds.sorted_set);
    }
    Loaded::SortedSet(sorted)
}

fn hash(fields: &[(Vec<u8>, Vec<u8>, Option<u64>)]) -> Loaded<'static> {
    let bounds = Bounds::new(&limits());
    let mut hash = Hash::new();
    for (name, value, expiry) in fields {
        let expiry = expiry.map_or(FieldExpiry::Clear, FieldExpiry::At);
        hash.set(name, value, expiry, bounds.hash);
    }
    Loaded::Hash(hash)
}

fn stream(entries: &[(u64, u64, u8, Vec<u8>)], deleted: &[usize]) -> Loaded<'static> {
    let bounds = Bounds::new(&limits());
    let mut stream = Stream::new();
    let mut ids = Vec::new();
    let mut id = StreamId::MIN;
    for (ms, seq, shape, value) in entries {
        id = match ms {
            0 => StreamId::new(id.ms, id.seq + 1 + seq),
            ms => StreamId::new(id.ms + ms, *seq),
        };
        let pairs: [&[u8]; 4] = [b"field", value, if shape & 1 == 0 { b"a" } else { b"b" }, b"17"];
        let pairs = if shape & 2 == 0 { &pairs[..2] } else { &pairs[..] };
        ids.push(stream.append(NewId::Exact(id), 0, pairs, bounds.stream).expect("ascending"));
    }
    for index in deleted {
        stream.delete(ids[index % ids.len()]);
    }
    Loaded::Stream(Box::new(stream))
}

/// A stream with `groups` groups of three consumers, in each of which the same is pending: IDs and
/// the consumers that have them.
fn with_groups(groups: usize, pending: &[(u64, usize)]) -> Loaded<'static> {
    let mut stream = Stream::new();
    for at in 0..groups as u64 {
        let read = at.checked_sub(1);
        let name = format!("group-{at}");
        let mut group = stream.add_group(name.as_bytes(), StreamId::new(at, 1), read).unwrap();
        let consumers = [b"ann", b"bob", b"eve"].map(|name| {
            let consumer = group.add_consumer(name, NOW_MS).unwrap();
            group.consumer_mut(consumer).active_ms = (name != b"eve").then_some(NOW_MS - 1);
            consumer
        });
        for &(ms, consumer) in pending {
            group.set_pending(Pending {
                id: StreamId::new(ms, 7),
                delivered_ms: NOW_MS - ms,
                deliveries: ms << 8,
                consumer: consumers[consumer],
            });
        }
    }
    Loaded::Stream(Box::new(stream))
}

/// A value of each type that is written in pieces.
fn long_samples() -> Vec<Loaded<'static>> {
    let word =
        |number: usize| format!("a word of some length and its number {number}").into_bytes();
    let words: Vec<_> = (0..3000).map(word).collect();
    let score = |(at, word): (usize, &Vec<u8>)| (word.clone(), (at % 100) as f64 / 7.0);
    let field = |expires: bool| {
        move |(at, word): (usize, &Vec<u8>)| {
            let expiry = (expires && at % 3 == 0).then_some(NOW_MS + 1000 + at as u64);
            (word.clone(), vec![b'v'; at % 300], expiry)
        }
    };
    let entry = |(at, word): (usize, &Vec<u8>)| (1, at as u64, at as u8, word.clone());
    vec![
        Loaded::String(words.concat().repeat(4).into()),
        list(&words),
        set(&words),
        sorted_set(&words.iter().enumerate().map(score).collect::<Vec<_>>()),
        hash(&words.iter().enumerate().map(field(false)).collect::<Vec<_>>()),
        hash(&words.iter().enumerate().map(field(true)).collect::<Vec<_>>()),
        stream(&words.iter().enumerate().map(entry).collect::<Vec<_>>(), &[5, 70]),
    ]
}

#[test]
fn long_values_in_pieces_are_the_same_values() {
    for compress in [true, false] {
        let form = Form { version: VERSION_MAX, compress };
        let access = file::Access::Unsaid;
        let records = file::Records { limits: limits(), form, access, now_ms: NOW_MS };
        for sample in long_samples() {
            let mut shelf = Shelf::of(sample);
            let mut record = Vec::new();
            let (mut pieces, mut count) = (None, 0);
            let is_through = |shelf: &mut Shelf, record: &mut Vec<u8>, pieces: &mut Option<_>| {
                shelf.with(|db| {
                    let entry = db.look(b"k").expect("the key is there");
                    assert!(records.is_long(entry));
                    let pieces = pieces.get_or_insert_with(|| records.begin(entry, record));
                    records.go_on(pieces, entry, record, &mut || false)
                })
            };
            while !is_through(&mut shelf, &mut record, &mut pieces) {
                count += 1;
            }
            assert!(3 < count, "one piece is no pieces");
            records.end(pieces.expect("it was begun"), &mut record);
            let (kind, body) = (record[0], record[1..].strip_prefix(b"\x01k").expect("the key"));
            let payload = sealed(&[&[kind], body, &(VERSION_MAX).to_le_bytes()].concat());
            assert_eq!(restored(&payload).expect("our own").describe(), shelf.describe());
        }
    }
}

/// One value of each encoding that is written.
pub(super) fn samples() -> Vec<Loaded<'static>> {
    let word = |number: usize| format!("word-{number}").into_bytes();
    let number = |number: usize| (number * number * 77).to_string().into_bytes();
    let field = |at: usize, expiry| (word(at), number(at), expiry);
    let expiry = |at: usize| at.is_multiple_of(2).then_some(NOW_MS + 1000 * at as u64);
    vec![
        Loaded::String(b"text".into()),
        Loaded::String(b"-129".into()),
        Loaded::String(b"92233720368547758".into()),
        Loaded::String(vec![b'x'; 3000].into()),
        list(&[word(1), number(2)]),
        list(
            &(0..9).map(word).chain([vec![b'l'; 100]]).chain((0..9).map(word)).collect::<Vec<_>>(),
        ),
        set(&(0..5).map(number).collect::<Vec<_>>()),
        set(&(0..4).map(word).chain([number(7)]).collect::<Vec<_>>()),
        set(&(0..9).map(word).collect::<Vec<_>>()),
        sorted_set(&[(word(1), 1.0), (number(3), 0.1), (word(2), f64::INFINITY)]),
        sorted_set(&(0..9).map(|at| (word(at), at as f64 / 7.0)).collect::<Vec<_>>()),
        hash(&[field(1, None), field(2, None)]),
        hash(&(0..9).map(|at| field(at, None)).collect::<Vec<_>>()),
        hash(&(1..5).map(|at| field(at, expiry(at))).collect::<Vec<_>>()),
        hash(&(1..9).map(|at| field(at, expiry(at))).collect::<Vec<_>>()),
        stream(&[], &[]),
        stream(&(0..7).map(|at| (5, at, at as u8, word(3))).collect::<Vec<_>>(), &[0, 5]),
        with_groups(3, &[(0, 1), (2, 0), (5, 1), (9, 2)]),
    ]
}

#[test]
fn every_encoding_survives() {
    let mut kinds: Vec<u8> = samples().into_iter().map(|it| check_round_trip(it)[0]).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, [0, 2, 4, 5, 11, 16, 17, 18, 20, 21, 24, 25]);
}

#[test]
fn the_version_is_that_of_redis_8() {
    for sample in samples() {
        let payload = check_round_trip(sample);
        let version = u16::from_le_bytes([payload[payload.len() - 10], payload[payload.len() - 9]]);
        assert_eq!(version, 12);
    }
}

#[test]
fn damaged_payloads_are_refused_or_give_sound_values() {
    for sample in samples() {
        let good = check_round_trip(sample);
        let covered = &good[..good.len() - 8];
        assert!(matches!(restored(&good[..good.len() - 1]), Err(RestoreError::Footer)));
        for end in 0..covered.len() - 2 {
            let cut = sealed(&[&covered[..end], &[11, 0]].concat());
            assert!(restored(&cut).is_err(), "cut at {end}");
        }
        for at in 0..covered.len() - 2 {
            for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0x7F, 0xFF] {
                let mut bad = covered.to_vec();
                bad[at] ^= flip;
                if let Ok(mut shelf) = restored(&sealed(&bad)) {
                    check_sound(&mut shelf);
                }
                let mut unsealed = good.clone();
                unsealed[at] ^= flip;
                assert!(matches!(restored(&unsealed), Err(RestoreError::Footer)));
            }
        }
    }
}

/// A value that was let in can be written, and is the same when it is read again.
fn check_sound(shelf: &mut Shelf) {
    let again = shelf.dump();
    let mut copy = restored(&again).expect("what was read can be written");
    // A list may be read in nodes of other sizes than ours, and streams in other listpacks.
    assert_eq!(copy.describe().1, shelf.describe().1);
}

#[test]
fn what_is_newer_or_unknown_is_refused() {
    let refused = |covered: &[u8]| restored(&sealed(covered)).err();
    assert_eq!(refused(b"\0\x01a\x0d\0"), Some(RestoreError::Footer));
    assert_eq!(refused(b"\0\x01a\x0c\0"), None);
    assert_eq!(refused(b"\0\x01a\x01\0"), None);
    assert_eq!(refused(b"\x07\x01a\x0b\0"), Some(LoadError::UnknownType(7).into()));
    assert!(refused(b"\0\x01ab\x0b\0").is_some(), "a byte too many");
    assert_eq!(refused(b"\x0b\0"), Some(LoadError::Truncated.into()));
    for short in [&b""[..], b"123456789"] {
        assert_eq!(restored(short).err(), Some(RestoreError::Footer));
    }
    let mut wrong = sealed(b"\0\x01a\x0b\0");
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(restored(&wrong).err(), Some(RestoreError::Footer));
    assert!(restore(&wrong, &limits(), Checksum::Ignored).is_ok());
}

#[test]
fn nothing_is_there_twice() {
    let twice = |kind, elements: &[&[u8]]| {
        let mut body = Vec::new();
        write_length(&mut body, if kind == Type::Hash { 2 } else { elements.len() as u64 });
        elements.iter().for_each(|element| write_string(&mut body, element));
        restored(&payload(kind, &body)).err()
    };
    assert!(twice(Type::Set, &[b"a", b"a"]).is_some());
    assert!(twice(Type::Set, &[b"1", b"1"]).is_some());
    assert!(twice(Type::Hash, &[b"a", b"1", b"a", b"2"]).is_some());
    assert!(twice(Type::List, &[b"a", b"a"]).is_none());
    let mut body = Vec::new();
    write_length(&mut body, 2);
    for _ in 0..2 {
        write_string(&mut body, b"a");
        body.extend_from_slice(&1.5_f64.to_le_bytes());
    }
    assert!(restored(&payload(Type::SortedSet2, &body)).is_err());
    for kind in [Type::SetListpack, Type::HashListpack, Type::SortedSetListpack] {
        let doubled = Listpack::from_elements([1, 1, 1, 1]);
        assert!(restored(&payload(kind, &string_of(doubled.as_bytes()))).is_err());
    }
}

#[test]
fn empty_values_and_nan_are_refused() {
    let empty = Listpack::new();
    let packed = string_of(empty.as_bytes());
    for kind in [Type::SetListpack, Type::HashListpack, Type::SortedSetListpack] {
        assert_eq!(restored(&payload(kind, &packed)).err(), Some(LoadError::Empty.into()));
    }
    for kind in [Type::List, Type::Set, Type::Hash, Type::SortedSet2, Type::ListQuicklist2] {
        assert_eq!(restored(&payload(kind, &[0])).err(), Some(LoadError::Empty.into()));
    }
    let nan = [&b"\x01\x01a"[..], &f64::NAN.to_le_bytes()].concat();
    assert!(restored(&payload(Type::SortedSet2, &nan)).is_err());
    assert!(restored(&payload(Type::SortedSet, b"\x01\x01a\xFD")).is_err());
}

#[test]
fn old_forms_are_read() {
    let pairs = ziplist(&[text(b"a"), vec![0xF2], text(b"b"), text(b"2.5")]);
    let packed = string_of(&pairs);
    let nodes = [&[2][..], &packed, &packed].concat();
    let zipmap = string_of(b"\x01\x01a\x01\x00b\xFF");
    let expiring = [&b"\x01"[..], &[0x81], &NOW_MS.to_be_bytes(), b"\x01a\x01b"].concat();
    let cases: [(Type, &[u8], &str, &str); 9] = [
        (Type::ListZiplist, &packed, "quicklist", "[[97], [49], [98], [50, 46, 53]]"),
        (
            Type::ListQuicklist,
            &nodes,
            "quicklist",
            "[[97], [49], [98], [50, 46, 53], [97], [49], [98], [50, 46, 53]]",
        ),
        (Type::List, b"\x02\x01a\xC0\x07", "listpack", "[[97], [55]]"),
        (Type::SortedSetZiplist, &packed, "listpack", "[([97], 1.0), ([98], 2.5)]"),
        (Type::SortedSet, b"\x02\x01a\xFF\x01b\x011", "listpack", "[([97], -inf), ([98], 1.0)]"),
        (
            Type::HashZiplist,
            &packed,
            "listpack",
            "{[97]: ([49], None), [98]: ([50, 46, 53], None)}",
        ),
        (Type::HashZipmap, &zipmap, "listpack", "{[97]: ([98], None)}"),
        (Type::HashExpiriesPreview, &expiring, "listpackex", "{[97]: ([98], Some(1700000000000))}"),
        (Type::Set, b"\x02\x01a\xC0\x07", "listpack", "[[55], [97]]"),
    ];
    for (kind, body, encoding, content) in cases {
        let mut shelf =
            restored(&payload(kind, body)).unwrap_or_else(|it| panic!("{kind:?}: {it}"));
        assert_eq!(shelf.describe(), (encoding, content.to_owned()), "{kind:?}");
    }
}

#[test]
fn sorted_sets_that_are_out_of_order_are_put_in_it() {
    let packed = Listpack::from_elements([&b"x"[..], b"2", b"y", b"1"]);
    let body = string_of(packed.as_bytes());
    let mut shelf = restored(&payload(Type::SortedSetListpack, &body)).unwrap();
    assert_eq!(shelf.describe(), ("listpack", "[([121], 1.0), ([120], 2.0)]".into()));
}

#[test]
fn streams_of_redis_are_read() {
    // DUMP by Redis 8.0 after XADD 1-1 a 1 b 2, 1-2 a 1 c 3, 2-0 a x b y, XDEL 1-2.
    let redis =
        b"\x15\x01\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\xc3\x3e\x40\x44\x12\x44\0\0\0\x1b\0\
        \x02\x01\x01\x01\x02\x01\x81\x61\x02\x81\x62\x02\0\x20\x09\0\0\x20\x01\x40\x11\0\x05\
        \x20\x05\x80\x09\x20\x1b\x07\x01\x01\x81\x63\x02\x03\x01\x08\x20\x1f\x0d\x01\x01\xdf\
        \xff\x02\x81\x78\x02\x81\x79\x02\x05\x01\xff\x02\x02\0\x01\x01\x01\x02\x03\0\x0c\0\x78\
        \x32\x23\xf1\xa9\x1a\x31\x85";
    let mut shelf = restored(redis).unwrap();
    let content = "[(StreamId { ms: 1, seq: 1 }, [([97], [49]), ([98], [50])]), \
         (StreamId { ms: 2, seq: 0 }, [([97], [120]), ([98], [121])])] \
         (StreamId { ms: 1, seq: 1 }, StreamId { ms: 2, seq: 0 }, StreamId { ms: 1, seq: 2 }) 3";
    assert_eq!(shelf.describe(), ("stream", content.to_owned()));
}

#[test]
fn groups_of_redis_are_read() {
    // DUMP by Redis 8.0 of three entries and two groups, one of them with three consumers.
    let redis = b"\x15\x01\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\x32\x32\0\0\0\x14\0\x03\
        \x01\0\x01\x01\x01\x81\x61\x02\0\x01\x02\x01\0\x01\0\x01\x01\x01\x04\x01\x02\x01\x01\
        \x01\xdf\xff\x02\x02\x01\x04\x01\x02\x01\x02\x01\xdf\xff\x02\x03\x01\x04\x01\xff\x03\
        \x03\0\x01\x01\0\0\x03\x02\x01\x67\0\0\x81\xff\xff\xff\xff\xff\xff\xff\xff\x02\0\0\
        \0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\x68\xe5\xcf\x8b\x01\0\0\x03\0\0\0\0\0\0\0\
        \x02\0\0\0\0\0\0\0\0\0\x68\xe5\xcf\x8b\x01\0\0\x03\x03\x03\x61\x6e\x6e\xce\x37\x1f\
        \0\xa2\x01\0\0\xce\x37\x1f\0\xa2\x01\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\
        \x01\x03\x62\x6f\x62\xce\x37\x1f\0\xa2\x01\0\0\xce\x37\x1f\0\xa2\x01\0\0\x01\0\0\0\
        \0\0\0\0\x02\0\0\0\0\0\0\0\0\x04\x69\x64\x6c\x65\xce\x37\x1f\0\xa2\x01\0\0\xff\xff\
        \xff\xff\xff\xff\xff\xff\0\x01\x68\x02\0\x02\0\0\x0c\0\xfa\xd3\x4d\xc6\x14\x97\xde\
        \xe7";
    let mut shelf = restored(redis).unwrap();
    let described = shelf.describe().1;
    let groups = described.split_once("; ").map(|(_, groups)| groups);
    let expected = "g 0-0 None 2 \
        ann 1795298375630 Some(1795298375630) [\"1-1@1700000000000x3\"] \
        bob 1795298375630 Some(1795298375630) [\"2-0@1700000000000x3\"] \
        idle 1795298375630 None []; h 2-0 Some(2) 0";
    assert_eq!(groups, Some(expected));
    // From the number of entries on, that is what Redis wrote.
    let again = shelf.dump();
    let tail = |payload: &[u8]| payload[payload.len() - 187..payload.len() - 10].to_vec();
    assert_eq!(tail(&again), tail(redis));
}

/// The body of a stream without entries, with the group `g` and what is pending there for the
/// group and for each consumer.
fn grouped(kind: Type, pending: &[u64], consumers: &[(&str, &[u64])]) -> Vec<u8> {
    let mut body = Vec::new();
    let lengths = |out: &mut Vec<u8>, numbers: &[u64]| {
        numbers.iter().for_each(|&number| write_length(out, number));
    };
    // No nodes and no entries; the last ID.
    lengths(&mut body, &[0, 0, 9, 1]);
    if kind != Type::Stream {
        lengths(&mut body, &[0, 0, 0, 0, 7]);
    }
    lengths(&mut body, &[1]);
    write_string(&mut body, b"g");
    lengths(&mut body, &[5, 0]);
    if kind != Type::Stream {
        lengths(&mut body, &[3]);
    }
    lengths(&mut body, &[pending.len() as u64]);
    for ms in pending {
        body.extend([ms.to_be_bytes(), 0_u64.to_be_bytes()].concat());
        body.extend(1000_u64.to_le_bytes());
        lengths(&mut body, &[2]);
    }
    lengths(&mut body, &[consumers.len() as u64]);
    for (name, pending) in consumers {
        write_string(&mut body, name.as_bytes());
        body.extend(2000_u64.to_le_bytes());
        if kind == Type::Stream3 {
            body.extend(3000_u64.to_le_bytes());
        }
        lengths(&mut body, &[pending.len() as u64]);
        for ms in *pending {
            body.extend([ms.to_be_bytes(), 0_u64.to_be_bytes()].concat());
        }
    }
    body
}

#[test]
fn groups_of_every_form_are_read() {
    for (kind, added, read, active) in
        [(Type::Stream, 0, 0, 2000), (Type::Stream2, 7, 3, 2000), (Type::Stream3, 7, 3, 3000)]
    {
        let body = grouped(kind, &[4, 1], &[("b", &[1]), ("a", &[4]), ("c", &[])]);
        let described = restored(&payload(kind, &body)).unwrap().describe().1;
        let end = format!(
            "{added}; g 5-0 Some({read}) 2 a 2000 Some({active}) [\"4-0@1000x2\"] \
             b 2000 Some({active}) [\"1-0@1000x2\"] c 2000 Some({active}) []"
        );
        assert!(described.ends_with(&end), "{described}");
    }
}

#[test]
fn groups_that_contradict_themselves_are_refused() {
    type Consumers<'a> = &'a [(&'a str, &'a [u64])];
    let cases: [(&[u64], Consumers<'_>); 5] = [
        (&[1, 1], &[("a", &[1])]),
        (&[1], &[]),
        (&[1], &[("a", &[1, 2])]),
        (&[1], &[("a", &[1]), ("b", &[1])]),
        (&[], &[("a", &[]), ("a", &[])]),
    ];
    for (pending, consumers) in cases {
        let body = grouped(Type::Stream3, pending, consumers);
        let refused = restored(&payload(Type::Stream3, &body)).err();
        let malformed = matches!(refused, Some(RestoreError::Load(LoadError::Malformed(_))));
        assert!(malformed, "{pending:?} {consumers:?}");
    }
    // Counts that nothing follows.
    for count in [10, 1 << 20, 1 << 40, u64::MAX] {
        let mut body = vec![0, 0, 9, 1, 0, 0, 0, 0, 7];
        write_length(&mut body, count);
        let refused = restored(&payload(Type::Stream3, &body)).err();
        assert_eq!(refused, Some(LoadError::Truncated.into()));
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-c]{0,3}".prop_map(String::into_bytes),
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        (-300_i64..300).prop_map(|number| number.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..90),
        (1_usize..400).prop_map(|length| vec![b'z'; length]),
    ]
}

fn scores() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-9_i32..9).prop_map(f64::from),
        any::<f64>().prop_filter("a number", |score| !score.is_nan())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn strings_survive(text in bytes()) {
        check_round_trip(Loaded::String(text.into()));
    }

    #[test]
    fn lists_survive(elements in prop::collection::vec(bytes(), 1..40)) {
        check_round_trip(list(&elements));
    }

    #[test]
    fn sets_survive(members in prop::collection::vec(bytes(), 1..20)) {
        check_round_trip(set(&members));
    }

    #[test]
    fn sorted_sets_survive(members in prop::collection::vec((bytes(), scores()), 1..20)) {
        check_round_trip(sorted_set(&members));
    }

    #[test]
    fn hashes_survive(
        fields in prop::collection::vec(
            (bytes(), bytes(), prop::option::of(NOW_MS + 1..NOW_MS + 100_000)),
            1..16,
        ),
    ) {
        check_round_trip(hash(&fields));
    }

    #[test]
    fn streams_survive(
        entries in prop::collection::vec((0_u64..3, 0_u64..3, 0_u8..4, bytes()), 1..20),
        deleted in prop::collection::vec(any::<usize>(), 0..5),
    ) {
        check_round_trip(stream(&entries, &deleted));
    }

    #[test]
    fn groups_survive(
        groups in 1_usize..4,
        pending in prop::collection::vec((0_u64..50, 0_usize..3), 0..30),
    ) {
        check_round_trip(with_groups(groups, &pending));
    }

    #[test]
    fn noise_is_refused_or_sound(kind in 0_u8..26, noise in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(mut shelf) = restored(&sealed(&[&[kind], &noise[..], &[11, 0]].concat())) {
            check_sound(&mut shelf);
        }
    }
}

//! Payloads of DUMP, whole or not: they become a value or are refused, and what has become one can be
//! dumped and restored again, as often as one likes.

#![no_main]

use carnelian_keyspace::{AccessPolicy, Aftermath, Db, Expiry, Keyspace, Limits};
use carnelian_persistence::rdb::Loaded;
use carnelian_persistence::rdb::dump::{Checksum, dump, restore};
use libfuzzer_sys::fuzz_target;

const KEY: &[u8] = b"k";

fuzz_target!(|payload: &[u8]| {
    let limits = limits();
    let Some(first) = turn(payload, &limits, Checksum::Ignored) else { return };
    let second = turn(&first, &limits, Checksum::Verified).expect("what was dumped is restored");
    // A table in memory has no certain order.
    assert_eq!(first.len(), second.len());
});

/// Restores a payload, and dumps what has become of it: none if that is nothing.
fn turn(payload: &[u8], limits: &Limits, checksum: Checksum) -> Option<Vec<u8>> {
    let loaded = restore(payload, limits, checksum).ok()?;
    let keyspace = Keyspace::new(1);
    let mut aftermath = Aftermath::default();
    let access = keyspace.lock_all();
    let mut db = Db::new(access, 0, 1_700_000_000_000, AccessPolicy::Lru, &mut aftermath);
    match loaded {
        Loaded::String(text) => db.set_string(KEY, &text, Expiry::Clear),
        Loaded::List(list) => db.put(KEY, list, None),
        Loaded::Set(set) => db.put(KEY, set, None),
        Loaded::SortedSet(sorted) => db.put(KEY, sorted, None),
        Loaded::Hash(hash) => db.put(KEY, hash, None),
        Loaded::Stream(stream) => db.put(KEY, *stream, None),
    }
    Some(dump(db.look(KEY)?, limits))
}

/// Small ones, so that small values reach every encoding.
fn limits() -> Limits {
    Limits {
        hash_max_listpack_entries: 4,
        list_max_listpack_size: 4,
        list_compress_depth: 1,
        set_max_intset_entries: 4,
        set_max_listpack_entries: 4,
        zset_max_listpack_entries: 4,
        stream_node_max_entries: 4,
        max_string: 1 << 20,
        ..Limits::default()
    }
}

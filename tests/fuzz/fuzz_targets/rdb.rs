//! RDB files, whole or not: they load or are refused, and what has loaded can be written and read back.

#![no_main]

use std::io::Read;

use carnelian_keyspace::{AccessPolicy, Keyspace, Limits, Present, SEGMENTS};
use carnelian_persistence::rdb::file::{
    Access, FileReader, FileWriter, Progress, Records, Rules, Trust, load_held,
};
use carnelian_persistence::rdb::{Form, VERSION_MAX};
use libfuzzer_sys::fuzz_target;

const DATABASES: usize = 4;
const NOW_MS: u64 = 1_700_000_000_000;

fuzz_target!(|data: &[u8]| {
    // The first byte says how the rest comes: in pieces, and with its checksum or without.
    let Some((&how, file)) = data.split_first() else { return };
    let step = usize::from(how >> 1).max(1);
    let is_checked = how & 1 == 1;
    let keyspace = Keyspace::new(DATABASES);
    if !load(Pieces { rest: file, step }, is_checked, &keyspace) {
        return;
    }
    let again = write(&keyspace);
    let copy = Keyspace::new(DATABASES);
    assert!(load(&again[..], true, &copy), "what was let in can be written and read");
    for db in 0..DATABASES {
        assert_eq!(keyspace.stats(db).keys, copy.stats(db).keys);
    }
});

fn load(input: impl Read, checksum: bool, keyspace: &Keyspace) -> bool {
    let trust = Trust {
        databases: DATABASES,
        checksum,
        newer: false,
        passes_modules: false,
        expanded_bytes_max: 1 << 20,
        input_bytes: None,
    };
    let rules = Rules {
        limits: limits(),
        policy: AccessPolicy::Lru,
        now_ms: NOW_MS,
        on_expired: Some(&|_, _| {}),
        present: Present::Refused,
        threads: 1,
        after_chunk: &|| {},
    };
    let mut reader = FileReader::new(input, trust);
    let mut segments = keyspace.lock_all();
    load_held(&mut reader, &mut segments, &rules, &Progress::default(), &mut ()).is_ok()
}

fn write(keyspace: &Keyspace) -> Vec<u8> {
    let form = Form { version: VERSION_MAX, compress: true };
    let records = Records { limits: limits(), form, access: Access::Unsaid, now_ms: NOW_MS };
    let mut writer = FileWriter::new(form, true);
    let segments = keyspace.lock_all();
    for db in 0..DATABASES {
        let tables = (0..SEGMENTS).filter_map(|segment| segments.segment(segment).table(db));
        for entry in tables.flat_map(|table| table.iter()) {
            // Keys whose time has come do not come back.
            if entry.expiry().is_none_or(|at| NOW_MS <= at) {
                writer.entry(db, entry, &records);
            }
        }
    }
    writer.end();
    writer.take(Vec::new())
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

/// Gives a few bytes at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    step: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.step.min(buffer.len());
        self.rest.read(&mut buffer[..count])
    }
}

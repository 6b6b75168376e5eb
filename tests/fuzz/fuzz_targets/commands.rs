//! Requests of all commands on data, one a line: each replies with one whole reply or an error, and
//! what they leave behind can be dumped and restored. The IDs and ranges of streams, globs, scores and
//! counts come in this way.

#![no_main]

use carnelian_commands::{Call, DataCommand, Effect, Environment, TABLES};
use carnelian_keyspace::{AccessPolicy, Aftermath, Db, Keyspace, Limits};
use carnelian_persistence::rdb::dump::{Checksum, dump, restore};
use carnelian_resp::{Protocol, Reply, Writer};
use libfuzzer_sys::fuzz_target;

/// Requests in one input: the rest is passed over.
const REQUESTS: usize = 40;
const REPLY_BYTES_MAX: usize = 1 << 16;

fuzz_target!(|text: &[u8]| {
    let keyspace = Keyspace::new(2);
    let environment = Environment { limits: limits(), ..Environment::default() };
    let mut now_ms = 1_700_000_000_000;
    for line in text.split(|byte| *byte == b'\n').take(REQUESTS) {
        now_ms += 7;
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let Some(command) = find(&words) else { continue };
        let (mut out, mut aftermath) = (Vec::new(), Aftermath::default());
        aftermath.changes.following = true;
        let access = keyspace.lock_all();
        let db = Db::new(access, 0, now_ms, AccessPolicy::Lru, &mut aftermath);
        let result = {
            let reply = Writer::new(&mut out, Protocol::Resp3);
            (command.run)(&mut Call {
                args: &words,
                db,
                reply,
                environment: &environment,
                may_block: false,
                output_max: REPLY_BYTES_MAX,
            })
        };
        let has_replied = !matches!(result, Err(_) | Ok(Effect::Wait(_)));
        if has_replied && out.len() < REPLY_BYTES_MAX {
            let whole = Reply::decode(&out).expect("it is RESP");
            assert!(whole.is_some_and(|(_, bytes)| bytes == out.len()), "one whole reply");
        }
    }
    let mut aftermath = Aftermath::default();
    let access = keyspace.lock_all();
    let mut db = Db::new(access, 0, now_ms, AccessPolicy::Lru, &mut aftermath);
    for key in [b"a", b"b", b"s"] {
        if let Some(entry) = db.look(key) {
            let payload = dump(entry, &environment.limits);
            let again = restore(&payload, &environment.limits, Checksum::Verified);
            assert!(again.is_ok(), "what is there can be restored");
        }
    }
});

fn find(words: &[&[u8]]) -> Option<&'static DataCommand> {
    let is = |name: &str, word: &[u8]| word.eq_ignore_ascii_case(name.as_bytes());
    let mut command =
        TABLES.iter().flat_map(|table| table.iter()).find(|command| is(command.name, words[0]))?;
    if !command.subcommands.is_empty() {
        let word = words.get(1)?;
        command = command.subcommands.iter().find(|subcommand| is(subcommand.name, word))?;
    }
    command.accepts(words.len()).then_some(command)
}

/// Small ones, so that small values reach every encoding, and no value becomes large.
fn limits() -> Limits {
    Limits {
        hash_max_listpack_entries: 4,
        list_max_listpack_size: 4,
        list_compress_depth: 1,
        set_max_intset_entries: 4,
        set_max_listpack_entries: 4,
        zset_max_listpack_entries: 4,
        stream_node_max_entries: 4,
        max_string: 1 << 16,
        ..Limits::default()
    }
}

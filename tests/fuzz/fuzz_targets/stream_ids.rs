//! IDs of streams: what is read can be written and read again, the bounds of a range lie where its words
//! say, and entries added under IDs from anywhere come back in order, once each.

#![no_main]

use std::collections::BTreeSet;

use carnelian_commands::{Call, Environment, TABLES};
use carnelian_keyspace::{AccessPolicy, Aftermath, Db, Keyspace};
use carnelian_resp::{Protocol, Reply, Writer};
use carnelian_structs::stream::{NewId, StreamId};
use libfuzzer_sys::fuzz_target;

/// IDs in one input: the rest is passed over.
const IDS: usize = 64;

fuzz_target!(|data: &[u8]| {
    let words: Vec<&[u8]> = data.split(|byte| *byte == b' ').take(IDS).collect();
    words.iter().for_each(|word| read_and_write(word));
    let keyspace = Keyspace::new(1);
    let mut model = BTreeSet::new();
    for word in &words {
        let reply = run(&keyspace, &[b"XADD", b"s", word, b"f", b"v"]);
        if let Reply::Bulk(text) = reply {
            let id = StreamId::parse_strict(&text, 0).expect("what is replied is an ID");
            assert!(model.last().is_none_or(|last| *last < id), "IDs only grow");
            model.insert(id);
        }
    }
    for pair in words.windows(2) {
        let reply = run(&keyspace, &[b"XRANGE", b"s", pair[0], pair[1]]);
        let bounds = (StreamId::parse_range_start(pair[0]), StreamId::parse_range_end(pair[1]));
        let (Ok(start), Ok(end)) = bounds else {
            assert!(matches!(reply, Reply::Error(_)));
            continue;
        };
        let found = model.iter().filter(|id| start <= **id && **id <= end).count();
        assert!(matches!(reply, Reply::Array(entries) if entries.len() == found));
        if run(&keyspace, &[b"XDEL", b"s", pair[0]]) == Reply::Integer(1) {
            let id = StreamId::parse_strict(pair[0], 0).expect("an entry has been removed by it");
            assert!(model.remove(&id));
        }
    }
    assert_eq!(run(&keyspace, &[b"XLEN", b"s"]), Reply::Integer(model.len() as i64));
});

fn read_and_write(word: &[u8]) {
    let Ok(id) = StreamId::parse_strict(word, 0) else {
        assert!(!matches!(NewId::parse(word), Ok(NewId::Exact(_))));
        return;
    };
    let mut text = Vec::new();
    id.write_to(&mut text);
    assert_eq!(StreamId::parse_strict(&text, 7), Ok(id));
    assert_eq!(text, id.to_string().into_bytes());
    assert!(id.next().is_none_or(|next| id < next && next.previous() == Some(id)));
    assert!(id.previous().is_none_or(|previous| previous < id && previous.next() == Some(id)));
}

fn run(keyspace: &Keyspace, words: &[&[u8]]) -> Reply {
    let is_named = |name: &str| name.as_bytes().eq_ignore_ascii_case(words[0]);
    let mut commands = TABLES.iter().flat_map(|table| table.iter());
    let command = commands.find(|command| is_named(command.name)).expect("there is one");
    let environment = Environment::default();
    let (mut out, mut aftermath) = (Vec::new(), Aftermath::default());
    let access = keyspace.lock_all();
    let now_ms = 1_700_000_000_000;
    let db = Db::new(access, 0, now_ms, AccessPolicy::Lru, &mut aftermath);
    let result = {
        let reply = Writer::new(&mut out, Protocol::Resp2);
        (command.run)(&mut Call {
            args: words,
            db,
            reply,
            environment: &environment,
            may_block: false,
            output_max: 1 << 20,
        })
    };
    match result {
        Ok(_) => Reply::decode(&out).expect("it is RESP").expect("it is whole").0,
        Err(_) => Reply::Error(Vec::new()),
    }
}

//! Streams: entries, consumer groups, and waiting for either.

use carnelian_tests::{Client, Protocol, Server, each_way};

#[test]
fn adding_and_reading() {
    each_way(|client| {
        client.script(
            r#"
            XADD x 1-1 a 1 b 2 => 1-1
            XADD x 1-* c 3 => 1-2
            XADD x 2 d 4 => 2-0
            XADD x 1-5 e 5 => -ERR The ID specified in XADD is equal or smaller than the target stream top item
            XADD x 0-0 e 5 => -ERR The ID specified in XADD must be greater than 0-0
            XADD x nope e 5 => -ERR Invalid stream ID specified as stream command argument
            XADD x 3-1 odd => -ERR wrong number of arguments for 'xadd' command
            XLEN x => :3
            XLEN missing => :0
            XRANGE x - + => [[1-1 [a 1 b 2]] [1-2 [c 3]] [2-0 [d 4]]]
            XRANGE x (1-1 + COUNT 1 => [[1-2 [c 3]]]
            XRANGE x 1 1 => [[1-1 [a 1 b 2]] [1-2 [c 3]]]
            XRANGE x - + COUNT 0 => nil
            XRANGE missing - + => []
            XADD y NOMKSTREAM 1-1 a 1 => nil
            EXISTS y => :0
            XADD x MAXLEN 2 5-0 z 9 => 5-0
            XLEN x => :2
            XADD x MINID = 5 6-0 z 9 => 6-0
            XLEN x => :2
            XADD x MAXLEN -1 7-0 a b => -ERR The MAXLEN argument must be >= 0.
            "#,
        );
        let id = client.call("XADD t * a 1").text();
        let milliseconds: u64 = id.split('-').next().and_then(|part| part.parse().ok()).expect(&id);
        assert!(milliseconds > 1_600_000_000_000);
    });
}

#[test]
fn long_streams_keep_their_order() {
    each_way(|client| {
        for number in 1..=5000 {
            client.send(format!("XADD x {number}-1 n {number} t text\r\n").as_bytes());
        }
        for number in 1..=5000 {
            client.expect_next(&format!("{number}-1"));
        }
        let all = client.call("XRANGE x - +").elements();
        assert_eq!(all.len(), 5000);
        assert_eq!(all[4321].to_string(), "[4322-1 [n 4322 t text]]");
        client.expect("XRANGE x 2500 2501", "[[2500-1 [n 2500 t text]] [2501-1 [n 2501 t text]]]");
        client.expect("XADD x MAXLEN = 10 6000-1 n last", "6000-1");
        client.expect("XLEN x", ":10");
    });
}

/// How XREAD and XREADGROUP answer with the entries of one stream.
fn served(client: &Client, key: &str, entries: &str) -> String {
    match client.protocol() {
        Protocol::Resp2 => format!("[[{key} {entries}]]"),
        Protocol::Resp3 => format!("{{{key} {entries}}}"),
    }
}

#[test]
fn groups_deliver_and_acknowledge() {
    each_way(|client| {
        client.script(
            r#"
            XADD s 1-0 f 1 => 1-0
            XADD s 2-0 f 2 => 2-0
            XADD s 3-0 f 3 => 3-0
            XGROUP CREATE none g $ => -ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.
            XGROUP CREATE s g 0 => +OK
            XGROUP CREATE s g 0 => -BUSYGROUP Consumer Group name already exists
            XREADGROUP GROUP none ann STREAMS s > => -NOGROUP No such key 's' or consumer group 'none' in XREADGROUP with GROUP option
            "#,
        );
        let first = served(client, "s", "[[1-0 [f 1]] [2-0 [f 2]]]");
        client.expect("XREADGROUP GROUP g ann COUNT 2 STREAMS s >", &first);
        let rest = served(client, "s", "[[3-0 [f 3]]]");
        client.expect("XREADGROUP GROUP g bob STREAMS s >", &rest);
        client.script(
            r#"
            XREADGROUP GROUP g bob STREAMS s > => nil
            XPENDING s g => [:3 1-0 3-0 [[ann 2] [bob 1]]]
            XPENDING s g - + 10 bob => [[3-0 bob ? :1]]
            XACK s g 1-0 9-0 => :1
            XCLAIM s g bob 0 2-0 => [[2-0 [f 2]]]
            XCLAIM s g bob 3600000 2-0 => []
            XDEL s 3-0 => :1
            XAUTOCLAIM s g ann 0 0 => [0-0 [[2-0 [f 2]]] [3-0]]
            XPENDING s g - + 10 => [[2-0 ann ? :3]]
            XINFO GROUPS s => [{name g consumers :2 pending :1 last-delivered-id 3-0 entries-read :3 lag :0}]
            XGROUP DELCONSUMER s g ann => :1
            XPENDING s g => [:0 nil nil nil]
            XGROUP SETID s g 0 => +OK
            XGROUP DESTROY s g => :1
            XGROUP DESTROY s g => :0
            XINFO GROUPS s => []
            "#,
        );
    });
}

#[test]
fn groups_survive_copies_and_dumps() {
    each_way(|client| {
        client.script(
            r#"
            XADD s 1-0 f 1 => 1-0
            XGROUP CREATE s g 0 => +OK
            XGROUP CREATE s h $ ENTRIESREAD 1 => +OK
            XCLAIM s g ann 0 1-0 FORCE JUSTID TIME 1700000000000 RETRYCOUNT 3 => [1-0]
            XGROUP CREATECONSUMER s g bob => :1
            COPY s t => :1
            "#,
        );
        let whole = client.call("XINFO STREAM s FULL").to_string();
        assert!(whole.contains("1-0 ann :1700000000000 :3"), "{whole}");
        client.expect("XINFO STREAM t FULL", &whole);
        let payload = client.call("DUMP s").bytes().to_vec();
        client.call_words(&[&b"RESTORE"[..], b"r", b"0", &payload]);
        client.expect("XINFO STREAM r FULL", &whole);
        client.expect("XGROUP DELCONSUMER t g ann", ":1");
        client.expect("XINFO STREAM s FULL", &whole);
    });
}

/// Waits until so many clients are blocked.
fn until_blocked(client: &mut Client, count: usize) {
    for _ in 0..1000 {
        if client.info("blocked_clients") == count.to_string() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{count} clients should be blocked");
}

#[test]
fn readers_wait_for_entries() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let server = Server::start(&[]);
        let mut writer = server.connect().speaking(protocol);
        let mut reader = server.connect().speaking(protocol);
        for (request, id) in [
            ("XREAD BLOCK 0 STREAMS s t $ $", "1-0"),
            ("XREAD BLOCK 0 COUNT 1 STREAMS t s + $", "2-0"),
            ("XREAD BLOCK 100000 STREAMS s 2-0", "3-0"),
        ] {
            reader.send_words(&request.split(' ').collect::<Vec<_>>());
            until_blocked(&mut writer, 1);
            writer.expect("XADD other 1-* f v", "?");
            writer.expect(&format!("XADD s {id} f v"), id);
            let expected = served(&reader, "s", &format!("[[{id} [f v]]]"));
            reader.expect_next(&expected);
        }
        reader.expect("XREAD BLOCK 10 STREAMS s $", "nil");
        // A key that becomes something else, and a stream again, is waited for all the same.
        reader.send_words(&["XREAD", "BLOCK", "0", "STREAMS", "s", "3-0"]);
        until_blocked(&mut writer, 1);
        writer.script(
            r#"
            DEL s => :1
            SET s text => +OK
            DEL s => :1
            XADD s 1-0 f v => 1-0
            XADD s 9-0 f v => 9-0
            MULTI => +OK
            XREAD BLOCK 0 STREAMS s $ => +QUEUED
            EXEC => [nil]
            "#,
        );
        let expected = served(&reader, "s", "[[9-0 [f v]]]");
        reader.expect_next(&expected);
    }
}

#[test]
fn members_of_a_group_wait_in_turn() {
    let server = Server::start(&[]);
    let mut writer = server.connect();
    writer.expect("XGROUP CREATE s g $ MKSTREAM", "+OK");
    let mut readers: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for (at, reader) in readers.iter_mut().enumerate() {
        let name = format!("c{at}");
        let words = ["XREADGROUP", "GROUP", "g", &name, "COUNT", "1", "BLOCK", "0", "STREAMS"];
        reader.send_words(&[&words[..], &["s", ">"]].concat());
        until_blocked(&mut writer, at + 1);
    }
    for (at, reader) in readers.iter_mut().enumerate() {
        let id = format!("{}-0", at + 1);
        writer.expect(&format!("XADD s {id} f v"), &id);
        reader.expect_next(&format!("[[s [[{id} [f v]]]]]"));
    }
    writer.expect("XPENDING s g", "[:3 1-0 3-0 [[c0 1] [c1 1] [c2 1]]]");
}

#[test]
fn members_of_a_group_are_told_that_it_is_gone() {
    let server = Server::start(&[]);
    let mut writer = server.connect();
    let mut reader = server.connect();
    let no_group = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option";
    for (end, error) in [
        ("XGROUP DESTROY s g", no_group),
        ("DEL s", no_group),
        ("PEXPIRE s 1", no_group),
        ("SET s text", "-WRONGTYPE..."),
        ("RENAME s t", no_group),
        ("FLUSHALL", no_group),
        ("SWAPDB 0 1", no_group),
    ] {
        writer.expect("DEL s", "?");
        writer.expect("XGROUP CREATE s g $ MKSTREAM", "+OK");
        reader.send(b"XREADGROUP GROUP g c BLOCK 0 STREAMS s >\r\n");
        until_blocked(&mut writer, 1);
        writer.expect(end, "?");
        reader.expect_next(error);
    }
}

//! DEBUG, as far as test suites rely on it.

use carnelian_tests::{Client, Server};

/// A key of each type and encoding, in two logical databases.
const DATA: &str = "
    SET number 12345 => +OK
    SET text hello => +OK
    SETEX soon 1000 hello => +OK
    RPUSH list a b 1 -5 => :4
    SADD ints 1 2 3 => :3
    SADD words a b 1 => :3
    HSET hash a 1 b 2 => :2
    ZADD sorted 1 a 2.5 b => :2
    XADD stream 1-1 a 1 => 1-1
    SELECT 3 => +OK
    SET other value => +OK
";

fn digests(client: &mut Client) -> Vec<String> {
    ["DEBUG DIGEST", "DBSIZE", "SELECT 0", "DBSIZE", "OBJECT ENCODING ints", "TYPE stream"]
        .map(|command| client.call(command).to_string())
        .to_vec()
}

#[test]
fn a_reload_keeps_everything() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.script(DATA);
    let long: String = (0..300).map(|i| format!(" member:{i}")).collect();
    client.expect(&format!("SADD big{long}"), ":300");
    for command in ["DEBUG RELOAD", "DEBUG LOADAOF", "DEBUG RELOAD NOFLUSH MERGE"] {
        client.expect("SELECT 3", "+OK");
        let before = digests(&mut client);
        client.expect("SELECT 3", "+OK");
        // Redis loads no append-only file where it writes none.
        if command != "DEBUG LOADAOF" || carnelian_tests::is_carnelian() {
            client.expect(command, "+OK");
        }
        assert_eq!(digests(&mut client), before, "{command}");
        assert!((1..=1000).contains(&client.call("TTL soon").integer()));
    }
    if carnelian_tests::is_carnelian() {
        // Redis takes this for a reason to end.
        client.expect(
            "DEBUG RELOAD NOFLUSH",
            "-ERR Error trying to load the RDB dump, check server logs.",
        );
    }
    client.expect("FUNCTION LOAD \"#!lua name=l\\nredis.register_function('f', redis.log)\"", "l");
    client.expect("FLUSHALL", "+OK");
    let failed = "-ERR Error trying to load the RDB dump, check server logs.";
    client.expect("DEBUG RELOAD NOFLUSH", failed);
    client.expect("DEBUG RELOAD NOFLUSH MERGE", "+OK");
    client.expect("DEBUG RELOAD", "+OK");
    client.expect(
        "DEBUG RELOAD SOMETHING",
        "-ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
    );
}

#[test]
fn a_reload_brings_encodings_back_to_what_the_thresholds_say() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.script(
        "
        HSET h a 1 b 2 => :2
        OBJECT ENCODING h => listpack
        CONFIG SET hash-max-listpack-entries 1 => +OK
        DEBUG RELOAD => +OK
        OBJECT ENCODING h => hashtable
        CONFIG SET hash-max-listpack-entries 10 => +OK
        DEBUG RELOAD => +OK
        OBJECT ENCODING h => listpack
        HGETALL h => {a 1 b 2}
        ",
    );
}

#[test]
fn a_reload_works_inside_a_transaction() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.script(
        "
        SET k v => +OK
        MULTI => +OK
        SET l w => +QUEUED
        DEBUG RELOAD => +QUEUED
        MGET k l => +QUEUED
        EXEC => [+OK +OK [v w]]
        ",
    );
}

#[test]
fn looks_into_structures_are_answered() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.script(
        "
        DEBUG POPULATE 100 key 10 => +OK
        STRLEN key:5 => :10
        SADD set a b => :2
        DEBUG HTSTATS 99 => -ERR Out of range database
        DEBUG HTSTATS-KEY set => -ERR The value stored at the specified key is not represented using an hash table
        DEBUG HTSTATS-KEY missing => -ERR no such key
        DEBUG SDSLEN set => -ERR Not an sds encoded string.
        DEBUG REPLYBUFFER PEAK-RESET-TIME NEVER => +OK
        DEBUG REPLYBUFFER RESIZING 0 => +OK
        DEBUG DICT-RESIZING 1 => +OK
        DEBUG STRINGMATCH-TEST => +Apparently...
        ",
    );
    let table = client.call("DEBUG HTSTATS 0").text();
    assert!(table.starts_with("[Dictionary HT]\nHash table 0 stats"), "{table}");
    assert!(table.contains(" number of elements: 101\n"), "{table}");
    let lengths = client.call("DEBUG SDSLEN key:5").text();
    assert!(lengths.starts_with("key_sds_len:5, key_sds_avail:0, "), "{lengths}");
    let object = client.call("DEBUG OBJECT key:5").text();
    assert!(object.contains(" encoding:raw ") || object.contains(" encoding:embstr "), "{object}");
    client.expect("SET text hello", "+OK");
    let object = client.call("DEBUG OBJECT text").text();
    assert!(object.contains(" serializedlength:6 "), "{object}");
}

#[test]
fn clients_and_quicklists_can_be_looked_at() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.expect("DEBUG CLIENT-EVICTION", "-ERR maxmemory-clients is disabled.");
    client.expect("CONFIG SET maxmemory-clients 10mb", "+OK");
    let text = client.call("DEBUG CLIENT-EVICTION").text();
    assert!(text.starts_with("bucket          0 -      32767: tot-mem: "), "{text}");
    assert_eq!(text.lines().count(), 19);
    client.expect("DEBUG QUICKLIST none", "-ERR no such key");
    client.expect("RPUSH list a", ":1");
    client.expect("DEBUG QUICKLIST list", "-ERR Not a quicklist encoded object.");
    client.expect("CONFIG SET list-max-listpack-size 1", "+OK");
    client.expect("RPUSH list b c", ":3");
    client.expect("DEBUG QUICKLIST list 1", "+Quicklist structure printed on stdout");
    client.expect("DEBUG REPLICATE SET a b", "+OK");
}

#[test]
fn a_flush_frees_before_its_reply_unless_asynchronous() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    let used =
        |client: &mut Client| -> usize { client.info("used_memory").parse().expect("a number") };
    let before = used(&mut client);
    for flush in ["FLUSHALL SYNC", "FLUSHDB", "FLUSHALL"] {
        client.expect("DEBUG POPULATE 20000 key 500", "+OK");
        assert!(before + (8 << 20) < used(&mut client));
        client.send(format!("{flush}\r\nDBSIZE\r\n").as_bytes());
        client.expect_next("+OK");
        client.expect_next(":0");
        assert!(used(&mut client) < before + (2 << 20), "{flush}");
        assert_eq!(client.info("lazyfree_pending_objects"), "0");
    }
    // All are freed in the background, whoever waits for that.
    assert_eq!(client.info("lazyfreed_objects"), "60000");
    client.expect("DEBUG POPULATE 20000 key 500", "+OK");
    client.expect("FLUSHALL ASYNC", "+OK");
    while client.info("lazyfreed_objects") != "80000" {}
}

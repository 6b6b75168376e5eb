//! Strings, counters and bits.

use carnelian_tests::{Server, each_way};

#[test]
fn set_and_get() {
    each_way(|client| {
        client.script(
            r#"
            SET a 1 => +OK
            GET a => 1
            GET missing => nil
            SET a "" => +OK
            GET a => ""
            SET a "\x00\r\n\xff" => +OK
            STRLEN a => :4
            SET a 2 NX => nil
            SET b 2 XX => nil
            SET b 2 NX GET => nil
            SET b 3 XX GET => "2"
            GET b => 3
            SETNX a 5 => :0
            SETNX c 5 => :1
            GETSET c 6 => 5
            GETSET d 6 => nil
            GETDEL d => 6
            GETDEL d => nil
            SET a 1 NX XX => -ERR syntax error
            SET a 1 EX => -ERR syntax error
            SET a 1 EX 10 PX 10 => -ERR syntax error
            SET a 1 EX 10 KEEPTTL => -ERR syntax error
            SET a 1 WHAT => -ERR syntax error
            SET a => -ERR wrong number of arguments for 'set' command
            GET => -ERR wrong number of arguments for 'get' command
            "#,
        );
    });
}

#[test]
fn expiry_options_of_set_and_getex() {
    each_way(|client| {
        client.script(
            r#"
            SET a 1 EX 100 => +OK
            TTL a => :100
            SET a 2 KEEPTTL => +OK
            TTL a => :100
            SET a 3 => +OK
            TTL a => :-1
            SET a 1 PX 100000 => +OK
            TTL a => :100
            SET a 1 EXAT 4102444800 => +OK
            EXPIRETIME a => :4102444800
            SET a 1 PXAT 4102444800123 => +OK
            PEXPIRETIME a => :4102444800123
            SET a 1 EXAT 1 => +OK
            EXISTS a => :0
            SET a 1 EX 0 => -ERR invalid expire time in 'set' command
            SET a 1 EX -5 => -ERR invalid expire time in 'set' command
            SET a 1 EX 9223372036854775807 => -ERR invalid expire time in 'set' command
            SET a 1 EX ten => -ERR value is not an integer or out of range
            SETEX a 0 1 => -ERR invalid expire time in 'setex' command
            SETEX a 10 1 => +OK
            PSETEX a 10000 1 => +OK
            TTL a => :10
            GETEX a => 1
            GETEX a PERSIST => 1
            TTL a => :-1
            GETEX a EX 50 => 1
            TTL a => :50
            GETEX a PXAT 4102444800000 => 1
            EXPIRETIME a => :4102444800
            GETEX a EX 0 => -ERR invalid expire time in 'getex' command
            GETEX a EX 10 PERSIST => -ERR syntax error
            GETEX missing EX 10 => nil
            "#,
        );
    });
}

#[test]
fn counters() {
    each_way(|client| {
        client.script(
            r#"
            INCR n => :1
            INCRBY n 10 => :11
            DECR n => :10
            DECRBY n 20 => :-10
            OBJECT ENCODING n => int
            SET n 9223372036854775807 => +OK
            INCR n => -ERR increment or decrement would overflow
            SET n -9223372036854775808 => +OK
            DECR n => -ERR increment or decrement would overflow
            DECRBY n -9223372036854775808 => -ERR decrement would overflow
            SET n " 5" => +OK
            INCR n => -ERR value is not an integer or out of range
            SET n 05 => +OK
            INCR n => -ERR value is not an integer or out of range
            SET n "" => +OK
            INCR n => -ERR value is not an integer or out of range
            INCRBY n 1.5 => -ERR value is not an integer or out of range
            SET f 10.50 => +OK
            INCRBYFLOAT f 0.1 => 10.6
            INCRBYFLOAT f -5 => "5.6"
            INCRBYFLOAT f 1e3 => 1005.59999999999999998
            INCRBYFLOAT f inf => -ERR increment would produce NaN or Infinity
            INCRBYFLOAT f abc => -ERR value is not a valid float
            SET f 3 => +OK
            INCRBYFLOAT f 1.1 => "4.1"
            INCRBYFLOAT g 3.0 => "3"
            LPUSH l a => :1
            INCR l => -WRONGTYPE Operation against a key holding the wrong kind of value
            "#,
        );
    });
}

#[test]
fn several_keys_at_once() {
    each_way(|client| {
        client.script(
            r#"
            MSET a 1 b 2 => +OK
            MGET a b c => [1 2 nil]
            MSETNX b 3 c 4 => :0
            MGET b c => [2 nil]
            MSETNX c 4 d 5 => :1
            MSET a 1 a 2 => +OK
            GET a => 2
            MSET a 1 b => -ERR wrong number of arguments for 'mset' command
            LPUSH l x => :1
            MGET a l => [2 nil]
            "#,
        );
    });
}

#[test]
fn ranges() {
    each_way(|client| {
        client.script(
            r#"
            SET s "Hello World" => +OK
            GETRANGE s 0 4 => Hello
            GETRANGE s -5 -1 => World
            GETRANGE s 5 2 => ""
            GETRANGE s 0 -1 => "Hello World"
            GETRANGE s -100 100 => "Hello World"
            SUBSTR s 0 0 => H
            GETRANGE missing 0 -1 => ""
            SETRANGE s 6 Redis => :11
            GET s => "Hello Redis"
            SETRANGE t 3 x => :4
            GET t => "\x00\x00\x00x"
            SETRANGE u 3 "" => :0
            EXISTS u => :0
            SETRANGE s -1 x => -ERR offset is out of range
            SETRANGE s 536870912 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
            SETRANGE s 9223372036854775807 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
            APPEND s "!" => :12
            APPEND new abc => :3
            STRLEN s => :12
            STRLEN missing => :0
            "#,
        );
    });
}

#[test]
fn encodings_follow_the_value() {
    each_way(|client| {
        client.script(
            r#"
            SET a 12345 => +OK
            OBJECT ENCODING a => int
            SET a abc => +OK
            OBJECT ENCODING a => embstr
            SET a 123456789012345678901 => +OK
            OBJECT ENCODING a => embstr
            SET a aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeee => +OK
            OBJECT ENCODING a => embstr
            SET a aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeee => +OK
            OBJECT ENCODING a => raw
            SET a 1 => +OK
            APPEND a 2 => :2
            OBJECT ENCODING a => raw
            GET a => 12
            "#,
        );
    });
}

#[test]
fn longest_common_subsequence() {
    each_way(|client| {
        client.script(
            r#"
            MSET k1 ohmytext k2 mynewtext => +OK
            LCS k1 k2 => mytext
            LCS k1 k2 LEN => :6
            LCS k1 k2 IDX => {matches [[[:4 :7] [:5 :8]] [[:2 :3] [:0 :1]]] len :6}
            LCS k1 k2 IDX MINMATCHLEN 4 => {matches [[[:4 :7] [:5 :8]]] len :6}
            LCS k1 k2 IDX MINMATCHLEN 4 WITHMATCHLEN => {matches [[[:4 :7] [:5 :8] :4]] len :6}
            LCS k1 k2 IDX LEN => -ERR If you want both the length and indexes, please just use IDX.
            LCS k1 missing => ""
            LPUSH l a => :1
            LCS k1 l => -ERR The specified keys must contain string values
            "#,
        );
    });
}

#[test]
fn bits() {
    each_way(|client| {
        client.script(
            r#"
            SETBIT b 7 1 => :0
            GET b => "\x01"
            SETBIT b 7 0 => :1
            GETBIT b 7 => :0
            GETBIT b 10000 => :0
            SETBIT b 4294967296 1 => -ERR bit offset is not an integer or out of range
            SETBIT b -1 1 => -ERR bit offset is not an integer or out of range
            SETBIT b 1 2 => -ERR bit is not an integer or out of range
            SET f foobar => +OK
            BITCOUNT f => :26
            BITCOUNT f 0 0 => :4
            BITCOUNT f 1 1 => :6
            BITCOUNT f 5 30 BIT => :17
            BITCOUNT f 0 => -ERR syntax error
            BITPOS f 1 => :1
            BITPOS f 0 => :0
            BITPOS f 1 -1 -1 => :41
            BITPOS f 2 => -ERR The bit argument must be 1 or 0.
            SET x "\xff\xf0" => +OK
            SET y "\x0f" => +OK
            BITOP AND d x y => :2
            GET d => "\x0f\x00"
            BITOP OR d x y => :2
            GET d => "\xff\xf0"
            BITOP XOR d x y => :2
            GET d => "\xf0\xf0"
            BITOP NOT d x => :2
            GET d => "\x00\x0f"
            BITOP NOT d x y => -ERR BITOP NOT must be called with a single source key.
            BITOP AND d missing => :0
            EXISTS d => :0
            "#,
        );
    });
}

#[test]
fn bit_fields() {
    each_way(|client| {
        client.script(
            r#"
            BITFIELD b SET u8 0 255 GET u8 0 GET i8 0 => [:0 :255 :-1]
            BITFIELD b INCRBY u8 0 1 => [:0]
            BITFIELD b OVERFLOW SAT INCRBY u8 0 300 => [:255]
            BITFIELD b OVERFLOW FAIL INCRBY u8 0 1 => [nil]
            BITFIELD b SET i5 #1 15 GET u4 100 => [:-4 :0]
            BITFIELD b GET u64 0 => -ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.
            BITFIELD b OVERFLOW MAYBE => -ERR Invalid OVERFLOW type specified
            BITFIELD_RO b GET u8 0 => [:251]
            BITFIELD_RO b SET u8 0 1 => -ERR BITFIELD_RO only supports the GET subcommand
            "#,
        );
    });
}

#[test]
fn what_stands_behind_a_key_of_another_type_is_not_missed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.expect("SADD s x", ":1");
    client.expect(
        "BITOP AND d none s a b",
        "-WRONGTYPE Operation against a key holding the wrong kind of value",
    );
    assert_eq!(client.info("keyspace_misses"), "1");
}

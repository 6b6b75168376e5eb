//! Hashes, and fields that expire.

use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::{each_way, each_way_with};

#[test]
fn fields_and_values() {
    each_way(|client| {
        client.script(
            r#"
            HSET h a 1 b 2 => :2
            HSET h a 3 c 4 => :1
            HGET h a => 3
            HGET h missing => nil
            HGET missing a => nil
            HMSET h d 5 => +OK
            HMGET h a missing d => [3 nil 5]
            HMGET missing a => [nil]
            HGETALL h => {a 3 b 2 c 4 d 5}
            HGETALL missing => {}
            HKEYS h => %[a b c d]
            HVALS h => %[3 2 4 5]
            HLEN h => :4
            HEXISTS h a => :1
            HEXISTS h x => :0
            HSTRLEN h a => :1
            HSTRLEN h x => :0
            HSETNX h a 9 => :0
            HSETNX h e 9 => :1
            HDEL h a b x => :2
            HDEL h c d e => :3
            EXISTS h => :0
            HSET h a => -ERR wrong number of arguments for 'hset' command
            HMSET h a => -ERR wrong number of arguments for 'hmset' command
            HSET h a 1 b => -ERR wrong number of arguments for 'hset' command
            "#,
        );
    });
}

#[test]
fn counters_in_fields() {
    each_way(|client| {
        client.script(
            r#"
            HINCRBY h n 5 => :5
            HINCRBY h n -10 => :-5
            HINCRBY h n x => -ERR value is not an integer or out of range
            HSET h t text => :1
            HINCRBY h t 1 => -ERR hash value is not an integer
            HINCRBYFLOAT h t 1 => -ERR hash value is not a float
            HSET h n 9223372036854775807 => :0
            HINCRBY h n 1 => -ERR increment or decrement would overflow
            HINCRBYFLOAT h f 1.5 => "1.5"
            HINCRBYFLOAT h f 1e2 => "101.5"
            HINCRBYFLOAT h f nan => -ERR value is not a valid float
            HINCRBYFLOAT h f x => -ERR value is not a valid float
            "#,
        );
    });
}

#[test]
fn encodings() {
    each_way_with(
        &["--hash-max-listpack-entries", "4", "--hash-max-listpack-value", "8"],
        |client| {
            client.script(
                r#"
            HSET h a 1 b 2 c 3 d 4 => :4
            OBJECT ENCODING h => listpack
            HSET h e 5 => :1
            OBJECT ENCODING h => hashtable
            HDEL h a b c d => :4
            OBJECT ENCODING h => hashtable
            HSET g a 12345678 => :1
            OBJECT ENCODING g => listpack
            HSET g a 123456789 => :0
            OBJECT ENCODING g => hashtable
            HSET f a 1 => :1
            HEXPIRE f 100 FIELDS 1 a => [:1]
            OBJECT ENCODING f => listpackex
            HPERSIST f FIELDS 1 a => [:1]
            OBJECT ENCODING f => listpackex
            "#,
            );
        },
    );
}

#[test]
fn random_fields() {
    each_way(|client| {
        client.script(
            r#"
            HRANDFIELD missing => nil
            HRANDFIELD missing 3 => []
            HSET h a 1 => :1
            HRANDFIELD h => a
            HRANDFIELD h 5 => [a]
            HRANDFIELD h -3 => [a a a]
            HRANDFIELD h 0 => []
            HRANDFIELD h x => -ERR value is not an integer or out of range
            HRANDFIELD h 1 WHAT => -ERR syntax error
            HRANDFIELD h -9223372036854775808 => -ERR value is out of range...
            "#,
        );
        let pairs = client.call("HRANDFIELD h 1 WITHVALUES");
        match client.protocol() {
            carnelian_tests::Protocol::Resp2 => assert_eq!(pairs.to_string(), "[a 1]"),
            carnelian_tests::Protocol::Resp3 => assert_eq!(pairs.to_string(), "[[a 1]]"),
        }
    });
}

#[test]
fn scanning() {
    each_way(|client| {
        client.script(
            r#"
            HSET h a 1 b 2 => :2
            HSCAN h 0 => [0 %[a 1 b 2]]
            HSCAN h 0 MATCH a => [0 [a 1]]
            HSCAN h 0 NOVALUES => [0 %[a b]]
            HSCAN missing 0 => [0 []]
            HSCAN h x => -ERR invalid cursor
            "#,
        );
        let mut words = vec!["HSET".to_owned(), "big".to_owned()];
        words.extend((0..1000).flat_map(|number| [format!("f{number}"), number.to_string()]));
        assert_eq!(client.call_words(&words).integer(), 1000);
        let mut seen = std::collections::BTreeSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let reply = client.call(&format!("HSCAN big {cursor} COUNT 10")).elements();
            seen.extend(reply[1].elements().chunks(2).map(|pair| pair[0].text()));
            cursor = reply[0].text();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 1000);
    });
}

#[test]
fn fields_that_expire() {
    each_way(|client| {
        client.script(
            r#"
            HSET h a 1 b 2 c 3 => :3
            HEXPIRE h 100 FIELDS 2 a missing => [:1 :-2]
            HTTL h FIELDS 3 a b missing => [:100 :-1 :-2]
            HTTL missing FIELDS 1 a => [:-2]
            HEXPIRE h 200 NX FIELDS 2 a b => [:0 :1]
            HEXPIRE h 50 GT FIELDS 1 a => [:0]
            HEXPIRE h 300 GT FIELDS 1 a => [:1]
            HEXPIRE h 400 LT FIELDS 1 a => [:0]
            HPERSIST h FIELDS 3 a c missing => [:1 :-1 :-2]
            HEXPIREAT h 4102444800 FIELDS 1 a => [:1]
            HEXPIRETIME h FIELDS 2 a c => [:4102444800 :-1]
            HPEXPIRETIME h FIELDS 1 a => [:4102444800000]
            HEXPIREAT h 1 FIELDS 1 a => [:2]
            HEXISTS h a => :0
            HEXPIRE h 0 FIELDS 2 b c => [:2 :2]
            EXISTS h => :0
            HSET h a 1 => :1
            HEXPIRE h 100 FIELDS 2 a => -ERR The `numfields` parameter must match the number of arguments
            HEXPIRE h 100 FIELDS 0 a => -ERR Parameter `numFields` should be greater than 0
            HEXPIRE h 100 a => -ERR wrong number of arguments for 'hexpire' command
            HEXPIRE h -1 FIELDS 1 a => -ERR invalid expire time, must be >= 0
            HEXPIRE h x FIELDS 1 a => -ERR value is not an integer or out of range
            HPEXPIRE h 30 FIELDS 1 a => [:1]
            "#,
        );
        sleep(Duration::from_millis(40));
        client.expect("HGET h a", "nil");
        client.expect("HLEN h", ":0");
        client.eventually("EXISTS h", ":0");
    });
}

#[test]
fn writing_a_field_drops_its_expiry_unless_told() {
    each_way(|client| {
        client.script(
            r#"
            HSETEX h EX 100 FIELDS 2 a 1 b 2 => :1
            HTTL h FIELDS 2 a b => [:100 :100]
            HSET h a 3 => :0
            HTTL h FIELDS 1 a => [:-1]
            HSETEX h KEEPTTL FIELDS 1 b 4 => :1
            HTTL h FIELDS 1 b => [:100]
            HSETEX h FNX FIELDS 2 b 1 z 1 => :0
            HSETEX h FXX FIELDS 2 a 1 b 1 => :1
            HGETEX h EX 50 FIELDS 2 a x => [1 nil]
            HTTL h FIELDS 1 a => [:50]
            HGETEX h PERSIST FIELDS 1 a => [1]
            HTTL h FIELDS 1 a => [:-1]
            HGETDEL h FIELDS 2 a x => [1 nil]
            HGETDEL h FIELDS 1 b => [1]
            EXISTS h => :0
            HINCRBY h n 1 => :1
            HEXPIRE h 100 FIELDS 1 n => [:1]
            HINCRBY h n 1 => :2
            HTTL h FIELDS 1 n => [:100]
            "#,
        );
    });
}

//! Commands on keys of any type: existence, expiry, renaming, scanning, sorting, databases.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::{Client, Server, each_way};

#[test]
fn existence_and_type() {
    each_way(|client| {
        client.script(
            r#"
            SET s 1 => +OK
            RPUSH l 1 => :1
            HSET h f v => :1
            SADD t a => :1
            ZADD z 1 a => :1
            XADD x 1-1 f v => 1-1
            TYPE s => +string
            TYPE l => +list
            TYPE h => +hash
            TYPE t => +set
            TYPE z => +zset
            TYPE x => +stream
            TYPE missing => +none
            EXISTS s l missing s => :3
            TOUCH s l missing => :2
            DBSIZE => :6
            DEL s missing => :1
            UNLINK l h => :2
            DBSIZE => :3
            GET t => -WRONGTYPE Operation against a key holding the wrong kind of value
            LPUSH t a => -WRONGTYPE Operation against a key holding the wrong kind of value
            SADD z a => -WRONGTYPE Operation against a key holding the wrong kind of value
            HSET z a b => -WRONGTYPE Operation against a key holding the wrong kind of value
            ZADD t 1 a => -WRONGTYPE Operation against a key holding the wrong kind of value
            XADD t 1-1 f v => -WRONGTYPE Operation against a key holding the wrong kind of value
            FLUSHDB => +OK
            DBSIZE => :0
            FLUSHDB ASYNC => +OK
            FLUSHDB SYNC => +OK
            FLUSHDB WHAT => -ERR syntax error
            "#,
        );
    });
}

#[test]
fn expiry() {
    each_way(|client| {
        client.script(
            r#"
            TTL missing => :-2
            PTTL missing => :-2
            EXPIRETIME missing => :-2
            EXPIRE missing 100 => :0
            SET k v => +OK
            TTL k => :-1
            EXPIRETIME k => :-1
            PERSIST k => :0
            EXPIRE k 100 => :1
            TTL k => :100
            EXPIRE k 200 NX => :0
            EXPIRE k 200 XX => :1
            EXPIRE k 300 GT => :1
            EXPIRE k 200 GT => :0
            EXPIRE k 400 LT => :0
            EXPIRE k 250 LT => :1
            TTL k => :250
            PERSIST k => :1
            EXPIRE k 100 GT => :0
            EXPIRE k 100 LT => :1
            EXPIRE k 100 NX XX => -ERR NX and XX, GT or LT options at the same time are not compatible
            EXPIRE k 100 GT LT => -ERR GT and LT options at the same time are not compatible
            EXPIRE k 100 WHAT => -ERR Unsupported option WHAT
            EXPIRE k ten => -ERR value is not an integer or out of range
            EXPIRE k 9223372036854775807 => -ERR invalid expire time in 'expire' command
            PEXPIRE k 9223372036854775807 => -ERR invalid expire time in 'pexpire' command
            EXPIREAT k 4102444800 => :1
            EXPIRETIME k => :4102444800
            PEXPIRETIME k => :4102444800000
            PEXPIREAT k 4102444800123 => :1
            PEXPIRETIME k => :4102444800123
            EXPIRE k -1 => :1
            EXISTS k => :0
            SET k v => +OK
            EXPIREAT k 1 => :1
            GET k => nil
            "#,
        );
    });
}

#[test]
fn expired_keys_are_gone_on_access_and_without() {
    each_way(|client| {
        client.script(
            r#"
            SET lazy 1 PX 30 => +OK
            SET active 1 PX 30 => +OK
            RPUSH list a => :1
            PEXPIRE list 30 => :1
            SET stays 1 => +OK
            "#,
        );
        sleep(Duration::from_millis(40));
        client.expect("GET lazy", "nil");
        client.expect("LLEN list", ":0");
        client.expect("TTL lazy", ":-2");
        // Nobody asks for the other one.
        client.eventually("DBSIZE", ":1");
        client.expect("KEYS *", "[stays]");
    });
}

#[test]
fn many_expiring_keys_are_reclaimed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for number in 0..20_000 {
        client.send(format!("SET key:{number} v PX {}\r\n", 1 + number % 100).as_bytes());
    }
    for _ in 0..20_000 {
        client.expect_next("+OK");
    }
    client.eventually("DBSIZE", ":0");
    assert!(client.info("expired_keys").parse::<u64>().expect("a number") >= 20_000);
}

#[test]
fn renaming_and_copying() {
    each_way(|client| {
        client.script(
            r#"
            SET a 1 EX 100 => +OK
            RENAME a b => +OK
            TTL b => :100
            RENAME missing b => -ERR no such key
            SET c 2 => +OK
            RENAMENX b c => :0
            RENAMENX b d => :1
            RENAME d d => +OK
            RENAMENX d d => :0
            COPY d e => :1
            TTL e => :100
            COPY d e => :0
            COPY c e REPLACE => :1
            GET e => 2
            TTL e => :-1
            COPY missing e => :0
            COPY d d => -ERR source and destination objects are the same
            COPY d d DB 1 => :1
            COPY d d DB 99 => -ERR DB index is out of range
            COPY d e DB x => -ERR value is not an integer or out of range
            RPUSH l 1 2 3 => :3
            COPY l l2 => :1
            RPUSH l2 4 => :4
            LLEN l => :3
            "#,
        );
    });
}

#[test]
fn databases() {
    each_way(|client| {
        client.script(
            r#"
            SET k zero => +OK
            SELECT 1 => +OK
            GET k => nil
            SET k one => +OK
            MOVE k 0 => :0
            MOVE k 2 => :1
            MOVE missing 2 => :0
            MOVE k 1 => -ERR source and destination objects are the same
            MOVE k 99 => -ERR DB index is out of range
            MOVE k x => -ERR value is not an integer or out of range
            SELECT 16 => -ERR DB index is out of range
            SELECT -1 => -ERR DB index is out of range
            SELECT x => -ERR value is not an integer or out of range
            SELECT 2 => +OK
            GET k => one
            SWAPDB 0 2 => +OK
            GET k => zero
            SWAPDB 0 99 => -ERR DB index is out of range
            SWAPDB x 0 => -ERR invalid first DB index
            SWAPDB 0 x => -ERR invalid second DB index
            FLUSHDB => +OK
            SELECT 0 => +OK
            GET k => one
            FLUSHALL => +OK
            DBSIZE => :0
            "#,
        );
    });
}

#[test]
fn scan_gives_every_key_that_stays() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let count = 3000;
    for number in 0..count {
        client.send(format!("SET stays:{number} v\r\n").as_bytes());
    }
    for _ in 0..count {
        client.expect_next("+OK");
    }
    // Growing, shrinking and deleting in between must not hide what is there all along.
    let mut round = 0;
    let mut seen = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = client.call(&format!("SCAN {cursor} MATCH stays:* COUNT 20")).elements();
        cursor = reply[0].text();
        seen.extend(reply[1].elements().iter().map(|key| key.text()));
        for extra in 0..100 {
            let command = if round < 40 { "SET extra:{} v" } else { "DEL extra:{}" };
            let number = (round % 40) * 100 + extra;
            client.call(&command.replace("{}", &number.to_string()));
        }
        round += 1;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), count);
}

#[test]
fn scan_options() {
    each_way(|client| {
        client.script(
            r#"
            MSET a1 x a2 x b1 x => +OK
            RPUSH l x => :1
            SCAN 0 COUNT 1000 => [0 %[a1 a2 b1 l]]
            SCAN 0 COUNT 1000 MATCH a* => [0 %[a1 a2]]
            SCAN 0 COUNT 1000 TYPE list => [0 [l]]
            SCAN 0 COUNT 1000 MATCH none* => [0 []]
            SCAN x => -ERR invalid cursor
            SCAN 0 COUNT 0 => -ERR syntax error
            SCAN 0 COUNT x => -ERR value is not an integer or out of range
            SCAN 0 WHAT => -ERR syntax error
            KEYS a? => %[a1 a2]
            KEYS [ab]1 => %[a1 b1]
            KEYS [^a]* => %[b1 l]
            KEYS a\\* => []
            KEYS * => %[a1 a2 b1 l]
            "#,
        );
    });
}

#[test]
fn random_keys() {
    each_way(|client| {
        client.expect("RANDOMKEY", "nil");
        client.expect("MSET a 1 b 2 c 3", "+OK");
        let mut seen = BTreeSet::new();
        for _ in 0..500 {
            seen.insert(client.call("RANDOMKEY").text());
        }
        assert_eq!(seen.len(), 3);
    });
}

#[test]
fn sorting() {
    each_way(|client| {
        client.script(
            r#"
            RPUSH l 3 1 2 => :3
            SORT l => [1 2 3]
            SORT l DESC => [3 2 1]
            SORT l LIMIT 1 1 => [2]
            RPUSH w b a c => :3
            SORT w => -ERR One or more scores can't be converted into double
            SORT w ALPHA => [a b c]
            MSET w_1 30 w_2 20 w_3 10 o_1 one o_2 two => +OK
            SORT l BY w_* => [3 2 1]
            SORT l BY w_* GET # GET o_* => [3 nil 2 two 1 one]
            SORT l BY nosort => [3 1 2]
            HSET h1 f 5 => :1
            HSET h2 f 4 => :1
            HSET h3 f 6 => :1
            SORT l BY h*->f GET h*->f => [4 5 6]
            SORT l STORE out => :3
            LRANGE out 0 -1 => [1 2 3]
            SORT missing STORE out => :0
            EXISTS out => :0
            SORT_RO l => [1 2 3]
            SORT_RO l STORE out => -ERR syntax error
            SADD s 2 10 1 => :3
            SORT s => [1 2 10]
            SET str 1 => +OK
            SORT str => -WRONGTYPE Operation against a key holding the wrong kind of value
            "#,
        );
    });
}

#[test]
fn objects() {
    each_way(|client| {
        client.script(
            r#"
            OBJECT ENCODING missing => nil
            SET k v => +OK
            OBJECT ENCODING k => embstr
            OBJECT REFCOUNT k => :1
            OBJECT FREQ k => -ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.
            OBJECT WHAT k => -ERR unknown subcommand 'WHAT'. Try OBJECT HELP.
            OBJECT ENCODING => -ERR wrong number of arguments for 'object|encoding' command
            MEMORY USAGE missing => nil
            "#,
        );
        assert!(client.call("OBJECT IDLETIME k").integer() < 60);
        assert!(client.call("MEMORY USAGE k").integer() > 0);
    });
}

#[test]
fn waiting_clients_see_changes_of_others() {
    let server = Server::starter().tls().start();
    let mut first = server.connect();
    let mut others: Vec<Client> = (0..20).map(|_| server.connect_tls()).collect();
    for round in 0..50 {
        first.expect(&format!("SET shared {round}"), "+OK");
        for other in &mut others {
            other.expect("GET shared", &round.to_string());
        }
    }
}

//! `maxmemory`: which keys go when memory is short, and which commands are refused when none may.

use carnelian_tests::{Client, Server};

const EVICTING: [&str; 7] = [
    "allkeys-random",
    "allkeys-lru",
    "allkeys-lfu",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
];

const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";

/// What an answer may take beside the data.
const SLACK: usize = 4096;

fn number(client: &mut Client, field: &str) -> usize {
    client.info(field).parse().expect("a number")
}

/// Uses each command once: the histogram of its times is made then, and takes memory for good.
fn warm_up(client: &mut Client, commands: &[&str]) {
    client.call("INFO");
    client.expect("CONFIG SET maxmemory 0", "+OK");
    for command in commands {
        client.call(command);
    }
}

/// Sets the limit so much above what is in use, and returns it.
fn limit_to(client: &mut Client, spare: usize) -> usize {
    let limit = number(client, "used_memory") + spare;
    client.expect(&format!("CONFIG SET maxmemory {limit}"), "+OK");
    limit
}

#[test]
fn the_limit_holds_under_every_policy() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    warm_up(&mut client, &["DBSIZE", "SETEX warm 1 x"]);
    for policy in EVICTING {
        client.expect("CONFIG SET maxmemory 0", "+OK");
        client.expect("FLUSHALL", "+OK");
        client.expect(&format!("CONFIG SET maxmemory-policy {policy}"), "+OK");
        let before = number(&mut client, "evicted_keys");
        let limit = limit_to(&mut client, 100 << 10);
        for key in 0..3000 {
            client.expect(&format!("SETEX {policy}:{key} 10000 x"), "+OK");
        }
        let used = number(&mut client, "used_memory");
        assert!(used < limit + SLACK, "{policy}: {used} of {limit}");
        // What asks may make room too.
        let (evicted, left) = loop {
            let evicted = number(&mut client, "evicted_keys") - before;
            let left = client.call("DBSIZE").integer() as usize;
            if number(&mut client, "evicted_keys") - before == evicted {
                break (evicted, left);
            }
        };
        assert_eq!(evicted + left, 3000, "{policy}");
        assert!(100 < evicted, "{policy}: {evicted}");
    }
    client.expect("CONFIG SET maxmemory 0", "+OK");
    client.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(client.info("evicted_keys"), "0");
    assert_eq!(client.info("maxmemory_policy"), "volatile-ttl");
}

#[test]
fn volatile_policies_leave_other_keys_alone() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for policy in EVICTING.into_iter().filter(|policy| policy.starts_with("volatile")) {
        client.expect("CONFIG SET maxmemory 0", "+OK");
        client.expect("FLUSHALL", "+OK");
        client.expect(&format!("CONFIG SET maxmemory-policy {policy}"), "+OK");
        limit_to(&mut client, 100 << 10);
        let mut refused = 0;
        let mut kept = Vec::new();
        for key in 0..4000 {
            let command = match key % 10 {
                0 => format!("SETEX soon:{key} 10000 x"),
                _ => format!("SET for-ever:{key} x"),
            };
            let reply = client.call(&command);
            if !reply.is_error() {
                kept.extend((key % 10 != 0).then_some(key));
            } else {
                assert_eq!(reply.to_string(), OOM);
                refused += 1;
            }
        }
        assert!(0 < refused, "{policy}: there was nothing left to evict");
        for key in kept {
            client.expect(&format!("EXISTS for-ever:{key}"), ":1");
        }
    }
}

#[test]
fn without_a_policy_commands_that_take_memory_are_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.script(
        "
        SET k v => +OK
        RPUSH l a b => :2
        CONFIG SET maxmemory 1 => +OK
        ",
    );
    for command in ["SET k w", "RPUSH l c", "APPEND k w", "INCR n", "HSET h f v", "BITOP NOT k k"] {
        client.expect(command, OOM);
    }
    client.script(
        "
        GET k => v
        EXPIRE k 100 => :1
        LPOP l => a
        SET => -ERR wrong number of arguments for 'set' command
        DEL l => :1
        ",
    );
    assert_eq!(client.info("errorstat_OOM"), "count=6");
    assert!(client.info("cmdstat_set").contains("rejected_calls=2"));
    client.expect("CONFIG SET maxmemory 0", "+OK");
    client.expect("SET k w", "+OK");
}

#[test]
fn transactions_that_take_memory_are_refused_while_queued_or_at_their_end() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.expect("SET k v", "+OK");
    client.expect("MULTI", "+OK");
    client.expect("SET k w", "+QUEUED");
    other.expect("CONFIG SET maxmemory 1", "+OK");
    client.expect(
        "EXEC",
        "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > \
         'maxmemory'.",
    );
    client.expect("MULTI", "+OK");
    client.expect("SET k w", OOM);
    client.expect("GET k", "+QUEUED");
    client.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    client.script(
        "
        MULTI => +OK
        GET k => +QUEUED
        DEL k => +QUEUED
        EXEC => [v :1]
        ",
    );
}

#[test]
fn the_limit_may_be_lowered_by_a_transaction_and_an_eviction_breaks_a_watch() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.script(
        "
        SET k v => +OK
        WATCH k => +OK
        MULTI => +OK
        PING => +QUEUED
        ",
    );
    other.script(
        "
        MULTI => +OK
        CONFIG SET maxmemory 1 => +QUEUED
        GET k => +QUEUED
        EXEC => [+OK v]
        ",
    );
    other.eventually("EXISTS k", ":0");
    other.expect("CONFIG SET maxmemory 0", "+OK");
    client.expect("EXEC", "nil");
}

#[test]
fn an_eviction_is_an_event() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let (mut client, mut listener) = (server.connect(), server.connect());
    client.expect("CONFIG SET notify-keyspace-events Ee", "+OK");
    listener.expect("SUBSCRIBE __keyevent@0__:evicted", ">[subscribe __keyevent@0__:evicted :1]");
    client.expect("SET k v", "+OK");
    client.expect("CONFIG SET maxmemory 1", "+OK");
    listener.expect_next(">[message __keyevent@0__:evicted k]");
    client.expect("EXISTS k", ":0");
}

#[test]
fn a_pipeline_stops_at_the_limit_and_not_behind_it() {
    const COMMANDS: usize = 2000;

    let server = Server::start(&[]);
    let mut client = server.connect();
    client.expect("PING", "+PONG");
    let limit = limit_to(&mut client, 200 << 10);
    let value = "x".repeat(1000);
    let mut pipeline = String::new();
    for key in 0..COMMANDS {
        pipeline += &format!("SET key:{key} {value}\r\n");
    }
    client.send(pipeline.as_bytes());
    let replies: Vec<String> = (0..COMMANDS).map(|_| client.read().to_string()).collect();
    let accepted = replies.iter().take_while(|reply| *reply == "+OK").count();
    assert!((50..COMMANDS / 2).contains(&accepted), "{accepted}");
    assert_eq!(replies.iter().filter(|reply| *reply == OOM).count(), COMMANDS - accepted);
    assert_eq!(client.call("DBSIZE").integer() as usize, accepted);
    let used = number(&mut client, "used_memory");
    // Where several threads share the room, each may use a little without asking the others.
    assert!(used < limit + (64 << 10), "{used} of {limit}");
}

#[test]
fn a_lower_limit_holds_at_once() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let mut client = server.connect();
    let value = "x".repeat(100);
    for key in 0..20_000 {
        client.expect(&format!("SET {key} {value}"), "+OK");
    }
    let used = number(&mut client, "used_memory");
    let limit = used / 2;
    client.expect(&format!("CONFIG SET maxmemory {limit}"), "+OK");
    while limit < number(&mut client, "used_memory") {
        client.expect("PING", "+PONG");
    }
    assert!(client.call("DBSIZE").integer() < 15_000);
}

/// A payload of DUMP, to be restored with access bits of one's choice.
fn payload(client: &mut Client) -> Vec<u8> {
    client.expect("SET source x", "+OK");
    let payload = client.call("DUMP source").bytes().to_vec();
    client.expect("DEL source", ":1");
    payload
}

/// Restores keys, with `hot` for every second of them and `cold` for the others, has about a
/// quarter evicted, and returns how many of how many evicted ones were hot.
fn hot_keys_lost(policy: &str, word: &str, hot: &str, cold: &str) -> (usize, usize) {
    const KEYS: usize = 2000;

    let server = Server::start(&["--maxmemory-policy", policy, "--lfu-decay-time", "0"]);
    let mut client = server.connect();
    let payload = payload(&mut client);
    for key in 0..KEYS {
        let value = if key % 2 == 0 { hot } else { cold };
        let name = format!("key:{key}");
        let mut words = vec![b"RESTORE".as_slice(), name.as_bytes(), b"0", &payload];
        if !word.is_empty() {
            words.extend([word.as_bytes(), value.as_bytes()]);
        }
        assert_eq!(client.call_words(&words).to_string(), "+OK");
    }
    warm_up(&mut client, &["PING"]);
    // The limit is lowered step by step: to evict a key may free a little less or more.
    let mut limit = number(&mut client, "used_memory");
    while number(&mut client, "evicted_keys") < KEYS / 4 {
        limit -= 500;
        client.expect(&format!("CONFIG SET maxmemory {limit}"), "+OK");
        client.expect("PING", "+PONG");
    }
    client.expect("CONFIG SET maxmemory 0", "+OK");
    let is_lost = |key: &usize| client.call(&format!("EXISTS key:{key}")).integer() == 0;
    let hot_lost = (0..KEYS).step_by(2).filter(is_lost).count();
    (hot_lost, KEYS - client.call("DBSIZE").integer() as usize)
}

#[test]
fn the_keys_in_use_are_kept() {
    let (lost, all) = hot_keys_lost("allkeys-lru", "IDLETIME", "10", "100000");
    assert!(lost < all / 5, "{lost} of {all} were used lately");
    let (lost, all) = hot_keys_lost("allkeys-lfu", "FREQ", "100", "3");
    assert!(lost < all / 5, "{lost} of {all} were used often");
    // Half of them go by chance, with a deviation of some 11 keys.
    let (lost, all) = hot_keys_lost("allkeys-random", "", "", "");
    assert!(lost.abs_diff(all / 2) < 80, "{lost} of {all} by chance");
}

#[test]
fn keys_of_all_logical_databases_go() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let mut client = server.connect();
    for db in [0, 9] {
        client.expect(&format!("SELECT {db}"), "+OK");
        for key in 0..500 {
            client.expect(&format!("SET key:{key} x"), "+OK");
        }
    }
    client.expect("CONFIG SET maxmemory 1", "+OK");
    while number(&mut client, "evicted_keys") < 1000 {
        client.expect("PING", "+PONG");
    }
    client.script(
        "
        DBSIZE => :0
        SELECT 0 => +OK
        DBSIZE => :0
        ",
    );
}

#[test]
fn large_values_are_freed_and_count_as_free_at_once() {
    // Two reactors that find too much in use at the same time evict one each.
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru", "--io-threads", "1"]);
    let mut client = server.connect();
    for key in 0..4 {
        for chunk in 0..20 {
            let pairs: String = (0..500).map(|i| format!(" field:{chunk}:{i} {i}")).collect();
            client.expect(&format!("HSET hash:{key}{pairs}"), ":500");
        }
    }
    let evicted = number(&mut client, "evicted_keys");
    assert_eq!(evicted, 0);
    let limit = number(&mut client, "used_memory") - 1000;
    client.expect(&format!("CONFIG SET maxmemory {limit}"), "+OK");
    client.expect("SET k v", "+OK");
    assert_eq!(number(&mut client, "evicted_keys"), 1, "one is enough");
    while limit < number(&mut client, "used_memory") {
        client.expect("PING", "+PONG");
    }
    assert_eq!(number(&mut client, "evicted_keys"), 1);
}

#[test]
fn access_bits_mean_what_the_policy_says() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.script(
        "
        SET k v => +OK
        OBJECT FREQ k => -ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.
        CONFIG SET maxmemory-policy allkeys-lfu => +OK
        OBJECT IDLETIME k => -ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.
        SET f v => +OK
        OBJECT FREQ f => :5
        OBJECT FREQ missing => nil
        ",
    );
}

#[test]
fn small_integers_are_shared_unless_each_key_needs_access_bits() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (maxmemory, policy, is_shared) in [
        ("0", "noeviction", true),
        ("1gb", "allkeys-random", true),
        ("1gb", "allkeys-lru", false),
        ("1gb", "volatile-lfu", false),
    ] {
        client.expect(&format!("CONFIG SET maxmemory {maxmemory}"), "+OK");
        client.expect(&format!("CONFIG SET maxmemory-policy {policy}"), "+OK");
        client.expect("SET n 1", "+OK");
        assert_eq!(client.call("OBJECT REFCOUNT n").integer() != 1, is_shared, "{policy}");
    }
}

/// What clients are told of keys that go takes memory: that must not make all others go too.
#[test]
fn keys_that_are_tracked_go_only_until_there_is_room() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru", "--io-threads", "1"]);
    let mut client = server.connect();
    let mut tracker = server.connect();
    tracker.hello3();
    tracker.expect("CLIENT TRACKING ON", "+OK");
    for round in 0..100 {
        let keys: Vec<_> = (0..200).map(|i| format!("k{round:03}{i:03}")).collect();
        let pairs: Vec<_> = keys.iter().map(|key| format!("{key} v")).collect();
        client.expect(&format!("MSET {}", pairs.join(" ")), "+OK");
        tracker.call(&format!("MGET {}", keys.join(" ")));
    }
    let limit = number(&mut client, "used_memory") - 200_000;
    client.expect(&format!("CONFIG SET maxmemory {limit}"), "+OK");
    client.expect("SET k v", "+OK");
    // A key takes some 50 bytes, and what is told of one as much: those that go for the others make room
    // for as many again, and so on.
    let left = client.call("DBSIZE").integer();
    assert!(10_000 < left, "{left} of 20000 are left");
}

#[test]
fn what_trackers_are_told_of_evicted_keys_makes_no_more_keys_go() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let mut client = server.connect();
    warm_up(&mut client, &["DBSIZE", "SET warm x", "DEL warm"]);
    client.expect("CONFIG SET maxmemory-eviction-tenacity 100", "+OK");
    let mut trackers: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for tracker in &mut trackers {
        tracker.call("HELLO 3");
        tracker.expect("CLIENT TRACKING on", "+OK");
    }
    for key in 0..300 {
        let name = format!("{key}{}", "x".repeat(1000));
        client.expect(&format!("SET {name} x"), "+OK");
        for tracker in &mut trackers {
            tracker.expect(&format!("GET {name}"), "x");
        }
    }
    let limit = number(&mut client, "used_memory") - 40_000;
    client.expect(&format!("CONFIG SET maxmemory {limit}"), "+OK");
    for _ in 0..100 {
        let left = client.call("DBSIZE").integer();
        assert!((200..300).contains(&left), "{left} keys are left");
    }
}

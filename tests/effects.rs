//! What is logged of writes, held against what Redis logs of the same.
//!
//! The same requests go to us and to an installed redis-server, both with an append-only file; then the two
//! files are read and compared command by command. Times become `T`, and what a server makes up (stream IDs
//! of now) is left out of the requests.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use carnelian_tests::{Server, require_or_skip};

/// Requests that every Redis since 7.0 knows. A line that begins with `2: ` comes from a second client, whose
/// reply is waited for only when a line `2!` says so.
const REQUESTS: &str = r##"
DEBUG SET-ACTIVE-EXPIRE 0
SET s 1
SET s 2 EX 1000
SET s 3 PX 100000 GET
SET s 4 KEEPTTL
SET s 5 NX
SET s 6 XX EXAT 9999999999
SETEX s 1000 v
PSETEX s 1000000 v
SETNX n 1
SETNX n 1
GETSET n 2
GETDEL n
GETDEL n
GETEX s
GETEX s EX 500
GETEX s PERSIST
GETEX s PERSIST
GETEX s PXAT 9999999999999
GETEX s EXAT 1
APPEND a abc
SETRANGE a 1 xyz
SETRANGE nothing 0 ""
INCR i
INCRBY i 5
DECR i
DECRBY i 2
INCRBYFLOAT i 1.5
MSET k1 1 k2 2
MSETNX k1 1 k3 3
MSETNX k4 1 k5 3
SETBIT b 7 1
BITOP NOT b2 b
BITOP AND b3 none1 none2
BITFIELD b SET u8 0 1
BITFIELD b GET u8 0
EXPIRE a 1000
PEXPIRE a 1000000
EXPIREAT a 9999999999
PEXPIREAT a 9999999999999
EXPIRE a 1000 NX
PERSIST a
PERSIST a
EXPIRE k1 -1
EXPIREAT k2 1
COPY a c
COPY a c
COPY a c REPLACE
COPY a c DB 2
MOVE c 2
MOVE c 3
RENAME a a2
RENAMENX a2 c
RENAMENX a2 a3
DEL c none
DEL none
UNLINK a3
TOUCH s
LPUSH l 1 2 3
RPUSH l 4 5
LPUSHX none 1
LPUSHX l 0
LINSERT l BEFORE 3 x
LINSERT l BEFORE none x
LSET l 0 y
LREM l 0 y
LREM l 0 none
LTRIM l 0 4
LTRIM l 0 -1
LPOP l
LPOP l 2
LPOP l 0
RPOP l
RPOPLPUSH l l2
LMOVE l l2 LEFT RIGHT
LMOVE none l2 LEFT RIGHT
RPUSH l 1 2 3
LMPOP 2 none l LEFT COUNT 2
BLPOP l 0
RPUSH l 1
BLMOVE l l2 LEFT LEFT 0
RPUSH l 1 2
BLMPOP 0 1 l RIGHT COUNT 5
SADD set 1 2 3
SADD set 1
SREM set 1
SREM set 1
SADD one x
SPOP one
SADD one x y
SPOP one 5
SADD set 4 5
SPOP set 0
SMOVE set other 2
SMOVE set other 2
SINTERSTORE si set none
SUNIONSTORE su set other
SDIFFSTORE sd set other
SUNIONSTORE su none
ZADD z 1 a 2 b 3 c
ZADD z 1 a
ZADD z XX CH 5 a
ZADD z INCR 1 a
ZINCRBY z 2 a
ZREM z none
ZREM z b
ZPOPMIN z
ZPOPMAX z 5
ZPOPMIN z
ZADD z 1 a 2 b 3 c 4 d 5 e
BZPOPMIN z 0
ZMPOP 1 z MAX COUNT 1
BZMPOP 0 1 z MIN
ZRANGESTORE zr z 0 -1
ZUNIONSTORE zu 2 z zr
ZINTERSTORE zi 2 z none
ZDIFFSTORE zd 2 z zr
ZREMRANGEBYRANK zr 0 0
ZREMRANGEBYSCORE zr 0 100
ZREMRANGEBYLEX zu - +
HSET h a 1 b 2
HSET h a 1
HSETNX h a 1
HSETNX h c 1
HMSET h d 1
HINCRBY h a 5
HINCRBYFLOAT h a 1.5
HDEL h none
HDEL h b
GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
GEORADIUS g 15 37 200 km STORE gs
GEOSEARCHSTORE gs2 g FROMLONLAT 15 37 BYRADIUS 200 km
PFADD p a b c
PFADD p a
PFCOUNT p
PFMERGE p2 p
XADD x 1-1 f v
XADD x MAXLEN = 1 2-1 f v
XADD x MAXLEN ~ 1 3-1 f v
XADD x NOMKSTREAM 4-1 f v
XADD none NOMKSTREAM 4-1 f v
XTRIM x MAXLEN = 1
XTRIM x MAXLEN ~ 100
XTRIM x MINID = 0
XDEL x 9-9
XGROUP CREATE x gr 0
XGROUP CREATE xm gr $ MKSTREAM
XGROUP CREATECONSUMER x gr c0
XGROUP CREATECONSUMER x gr c0
XGROUP SETID x gr 0
XADD x 6-1 f v
XGROUP DELCONSUMER x gr c0
XGROUP DESTROY x gr
XGROUP DESTROY x none
XSETID x 100-1
XDEL x 6-1
SORT set STORE so
SORT none STORE so
RESTORE r 0 "\x00\x01\x61\x0b\x00\x3c\x41\xda\x9c\x62\x89\x2e\x91"
SWAPDB 0 1
SWAPDB 0 1
SELECT 3
SET in3 1
FLUSHDB
SELECT 0
MULTI
SET m 1
EXEC
MULTI
SET m 1
INCR m
GET m
EXEC
MULTI
GET m
EXEC
MULTI
SET m 1
SELECT 5
SET m5 1
EXEC
SELECT 0
MULTI
INCR s
EXEC
EVAL "redis.call('set','e','1')" 0
EVAL "redis.call('set','e','1'); redis.call('incr','e'); redis.call('get','e')" 0
EVAL "return redis.call('get','e')" 0
EVAL "redis.call('set','e','1'); error('x')" 0
EVAL "redis.call('sadd','es','1'); redis.call('spop','es')" 0
EVAL "redis.set_repl(redis.REPL_AOF); redis.call('set','e','2'); redis.call('incr','e')" 0
EVAL "redis.set_repl(redis.REPL_REPLICA); redis.call('set','e','3')" 0
EVAL "redis.set_repl(redis.REPL_NONE); redis.call('set','e','4')" 0
PUBLISH channel message
EVAL "redis.call('publish','channel','message'); redis.call('set','e','5')" 0
EVAL "redis.call('select', 4); redis.call('set', 'e4', '1')" 0
SET after 1
MULTI
EVAL "redis.call('set','e','1'); redis.call('incr','e')" 0
SET me 1
EXEC
FUNCTION LOAD "#!lua name=lib\nredis.register_function('f', function(k) return redis.call('set', k[1], 'x') end)"
FCALL f 1 fk
FUNCTION DELETE lib
FUNCTION FLUSH
SET short v PX 1
~
GET short
SET short v PX 1
~
SET short v
SET short v PX 1
~
INCR short
2: BLPOP wl 0
~
RPUSH wl a b
2!
2: BLMOVE wl wl2 LEFT RIGHT 0
2!
2: BLMOVE wl wl2 LEFT RIGHT 0
~
MULTI
RPUSH wl q
SET wm 1
EXEC
2!
2: BZPOPMIN wz 0
~
ZADD wz 1 a
2!
2: BLMPOP 0 1 wl LEFT COUNT 2
~
EVAL "redis.call('rpush','wl','1'); redis.call('rpush','wl','2')" 0
2!
FLUSHALL
SET last 1
"##;

/// Requests that came with Redis 7.4 and 8.0.
const NEWER: &str = r"
XADD x 4-1 f v
XGROUP CREATE x gr 0
XGROUP CREATECONSUMER x gr c1
XGROUP CREATECONSUMER x gr c2
XREADGROUP GROUP gr c1 COUNT 1 STREAMS x >
XREADGROUP GROUP gr c1 COUNT 1 STREAMS x >
XREADGROUP GROUP gr c1 COUNT 1 NOACK STREAMS x >
XREADGROUP GROUP gr c2 COUNT 1 STREAMS x 0
XADD x 5-1 f v
XADD x 6-1 f v
XREADGROUP GROUP gr c2 STREAMS x >
XACK x gr 5-1
XACK x gr 5-1
XGROUP CREATE wx g $ MKSTREAM
XGROUP CREATECONSUMER wx g c
2: XREADGROUP GROUP g c BLOCK 0 STREAMS wx >
~
XADD wx 1-1 f v
2!
XGROUP CREATE xg g 0 MKSTREAM
XADD xg 1-1 f v
XREADGROUP GROUP g new STREAMS xg >
HSET h a 1 b 2 c 3
HEXPIRE h 1000 FIELDS 1 a
HPEXPIRE h 1000000 FIELDS 2 a none
HEXPIREAT h 9999999999 FIELDS 1 b
HPEXPIREAT h 9999999999999 NX FIELDS 1 b
HPERSIST h FIELDS 1 a
HEXPIRE h 0 FIELDS 1 c
HGETEX h EX 100 FIELDS 1 a
HGETEX h PERSIST FIELDS 1 a
HGETEX h FIELDS 1 a
HSETEX h EX 100 FIELDS 1 d 1
HSETEX h FNX FIELDS 1 d 1
HGETDEL h FIELDS 2 a none
HGETDEL h FIELDS 1 none
SET last 2
";

/// Has a server run the requests, one after the other.
fn run(server: &Server, requests: &str) {
    let mut client = server.connect();
    let mut second = server.connect();
    for line in requests.lines().filter(|line| !line.is_empty()) {
        if line == "~" {
            // Time for a key to expire, and for a client to be seen waiting.
            std::thread::sleep(Duration::from_millis(20));
        } else if line == "2!" {
            second.read();
        } else if let Some(request) = line.strip_prefix("2: ") {
            second.send(format!("{request}\r\n").as_bytes());
        } else {
            client.call(line);
        }
    }
}

/// The commands of a server's append-only files, once the last of them is there.
fn logged(folder: &Path, last: &str) -> Vec<String> {
    let start = Instant::now();
    loop {
        let mut files: Vec<_> = fs::read_dir(folder.join("appendonlydir"))
            .map(|files| files.map(|file| file.expect("nothing is in the way").path()).collect())
            .unwrap_or_default();
        files.retain(|path| path.to_string_lossy().ends_with(".incr.aof"));
        files.sort();
        let text: Vec<u8> =
            files.iter().flat_map(|path| fs::read(path).expect("nothing is in the way")).collect();
        let commands = parse(&text);
        if commands.last().is_some_and(|it| it == last) {
            return commands;
        }
        let tail = &commands[commands.len().saturating_sub(5)..];
        assert!(start.elapsed() < Duration::from_secs(10), "the file ends with {tail:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn parse(mut bytes: &[u8]) -> Vec<String> {
    fn line<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let (line, rest) = bytes.split_at(end);
        *bytes = &rest[2..];
        Some(line)
    }
    let number = |line: &[u8]| {
        std::str::from_utf8(&line[1..])
            .expect("nothing is in the way")
            .parse::<usize>()
            .expect("nothing is in the way")
    };
    let mut commands = Vec::new();
    while let Some(head) = line(&mut bytes) {
        if !head.starts_with(b"*") {
            continue;
        }
        let mut words = Vec::new();
        for _ in 0..number(head) {
            let Some(length) = line(&mut bytes).map(number) else { return commands };
            if bytes.len() < length + 2 {
                return commands;
            }
            let word = String::from_utf8_lossy(&bytes[..length]).into_owned();
            // Milliseconds of this century, but for those in the requests.
            let is_time = word.len() == 13 && word.starts_with('1') && word.parse::<u64>().is_ok();
            words.push(if is_time { "T".to_owned() } else { word });
            bytes = &bytes[length + 2..];
        }
        words[0] = words[0].to_uppercase();
        if words[0] == "HSETEX" && words[2..5] == ["KEEPTTL", "FIELDS", "1"] {
            // Ours sends the older command where the field has no expiry that is to be kept.
            words.drain(2..5);
            words[0] = "HSET".into();
        }
        commands.push(words.join(" "));
    }
    commands
}

fn compare(program: &str, requests: &str, last: &str) {
    let Some(program) = require_or_skip(program) else { return };
    let args = ["--appendonly", "yes", "--enable-debug-command", "yes"];
    let redis = Server::starter_of(&program).args(&args).start();
    if redis.connect().info("redis_version").starts_with('7') && requests == NEWER {
        return;
    }
    let ours = Server::start(&args);
    for server in [&redis, &ours] {
        run(server, requests);
    }
    let (theirs, ours) = (logged(redis.folder(), last), logged(ours.folder(), last));
    let mut differences = Vec::new();
    for place in 0..theirs.len().max(ours.len()) {
        let (their, our) = (theirs.get(place), ours.get(place));
        let lower = |command: Option<&String>| command.map(|it| it.to_lowercase());
        if lower(their) != lower(our) {
            let before = &theirs[place.saturating_sub(3)..place];
            differences
                .push(format!("{place}: after {before:?}\n  Redis {their:?}\n  ours  {our:?}"));
            break;
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn effects_are_those_of_redis() {
    compare("redis-server", REQUESTS, "SET last 1");
}

#[test]
fn effects_of_newer_commands_are_those_of_redis() {
    compare("redis-server", NEWER, "SET last 2");
}

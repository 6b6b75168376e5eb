//! Scripts against a host of a few commands; what they answer was asked of redis-server 8.0.6.

use std::collections::HashMap;
use std::fmt::Write as _;

use carnelian_resp::{Protocol, Reply, Writer};
use proptest::prelude::*;

use crate::{Engine, Host, Limits, Loading, LogLevel, Outcome, Restore, Run, Tick};

/// GET, SET, ECHO, MGET and a few replies of odd types.
#[derive(Default)]
struct Toy {
    data: HashMap<Vec<u8>, Vec<u8>>,
    logged: Vec<(LogLevel, String)>,
    targets: Option<u8>,
    ticks_left: Option<u32>,
}

impl Host for Toy {
    fn call(&mut self, words: &[&[u8]], protocol: Protocol, reply: &mut Vec<u8>) {
        let mut writer = Writer::new(reply, protocol);
        match (words[0].to_ascii_lowercase().as_slice(), &words[1..]) {
            (b"get", [key]) => match self.data.get(*key) {
                Some(value) => writer.bulk(value),
                None => writer.null(),
            },
            (b"set", [key, value]) => {
                self.data.insert(key.to_vec(), value.to_vec());
                writer.ok();
            }
            (b"set", _) => {
                writer.error("ERR Wrong number of args calling Redis command from script")
            }
            (b"echo", [text]) => writer.bulk(text),
            (b"mget", keys) => {
                writer.array(keys.len());
                for key in keys {
                    match self.data.get(*key) {
                        Some(value) => writer.bulk(value),
                        None => writer.null(),
                    }
                }
            }
            (b"odd", _) => {
                writer.map(3);
                writer.bulk(b"double");
                writer.double(0.5);
                writer.bulk(b"set");
                writer.set(1);
                writer.bulk(b"x");
                writer.bulk(b"truth");
                writer.boolean(true);
            }
            _ => writer.error("ERR Unknown Redis command called from script"),
        }
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        self.logged.push((level, String::from_utf8_lossy(text).into_owned()));
    }

    fn acl_check(&mut self, words: &[&[u8]]) -> Option<bool> {
        match words[0] {
            b"get" => Some(true),
            b"set" => Some(false),
            _ => None,
        }
    }

    fn set_repl(&mut self, targets: u8) {
        self.targets = Some(targets);
    }

    fn tick(&mut self) -> Tick {
        match &mut self.ticks_left {
            Some(0) => Tick::Kill,
            Some(left) => {
                *left -= 1;
                Tick::Continue
            }
            None => Tick::Continue,
        }
    }
}

fn engine() -> Engine {
    Engine::new(Limits { memory: 64 << 20 }).expect("there is memory")
}

fn eval_with(
    engine: &mut Engine,
    host: &mut Toy,
    protocol: Protocol,
    body: &[u8],
    keys: &[&[u8]],
    arguments: &[&[u8]],
) -> (Outcome, Vec<u8>) {
    let mut out = Vec::new();
    let outcome = match engine.script(body) {
        Ok(handle) => {
            let run = Run { keys, arguments, host, protocol, out: &mut out };
            engine.run_script(&handle, run)
        }
        Err(problem) => {
            Writer::new(&mut out, protocol).error([b"ERR ", problem.as_slice()].concat());
            Outcome::Error { counted: false }
        }
    };
    (outcome, out)
}

fn show(reply: &[u8]) -> String {
    fn append(reply: &Reply, text: &mut String) {
        match reply.elements() {
            Some(elements) => {
                text.push('[');
                for (place, element) in elements.iter().enumerate() {
                    text.push_str(if place == 0 { "" } else { " " });
                    append(element, text);
                }
                text.push(']');
            }
            None => match (reply, reply.bytes()) {
                (Reply::Integer(number), _) => {
                    let _ = write!(text, ":{number}");
                }
                (_, Some(bytes)) => text.push_str(&String::from_utf8_lossy(bytes)),
                (reply, None) => match reply.error() {
                    Some(error) => text.push_str(&String::from_utf8_lossy(error)),
                    None => {
                        let _ = write!(text, "{reply:?}");
                    }
                },
            },
        }
    }
    let (decoded, length) = Reply::decode(reply).expect("it is a reply").expect("it is whole");
    assert_eq!(length, reply.len());
    let mut text = String::new();
    append(&decoded, &mut text);
    text
}

fn eval(body: &str) -> String {
    show(
        &eval_with(&mut engine(), &mut Toy::default(), Protocol::Resp2, body.as_bytes(), &[], &[])
            .1,
    )
}

/// The error of a script, without where it is.
#[track_caller]
fn expect_error(body: &str, error: &str) {
    let found = eval(body);
    let (text, place) = found.split_once(" script: ").unwrap_or((&found, ""));
    assert_eq!(text, error, "of {body}");
    assert!(place.ends_with("on @user_script:1."), "{found}");
}

#[track_caller]
fn expect(body: &str, reply: &str) {
    assert_eq!(eval(body), reply, "of {body}");
}

#[test]
fn replies_of_any_depth_are_written() {
    for depth in [1, 15, 16, 17, 40, 2000, 2599] {
        let body = format!("local t = {{7}} for i = 2, {depth} do t = {{t, i}} end return t");
        let (engine, host) = (&mut engine(), &mut Toy::default());
        for _ in 0..2 {
            let reply = eval_with(engine, host, Protocol::Resp2, body.as_bytes(), &[], &[]).1;
            let open = if depth == 1 { 0 } else { depth - 1 };
            let mut expected = "*2\r\n".repeat(open) + "*1\r\n:7\r\n";
            for number in 2..=depth {
                let _ = write!(expected, ":{number}\r\n");
            }
            assert_eq!(String::from_utf8(reply).expect("text"), expected, "{depth}");
        }
    }
    // Maps take two places of the stack each.
    let body = b"local t = 1 for i = 1, 2599 do t = {map = {[i] = t}} end return t";
    let reply = eval_with(&mut engine(), &mut Toy::default(), Protocol::Resp3, body, &[], &[]).1;
    assert!(reply.ends_with(b"%1\r\n:1\r\n:1\r\n"));
}

#[test]
fn numbers_among_the_words_are_written_as_redis_does() {
    for (number, text) in [
        ("3", "3"),
        ("-0.0", "0"),
        ("3.5", "3.5"),
        ("2^53", "9007199254740992"),
        ("-2^53", "-9007199254740992"),
        ("2^62", "4611686018427387904"),
        ("1e100", "1e+100"),
        ("1e19", "1e+19"),
        ("1/0", "inf"),
    ] {
        expect(&format!("return redis.call('echo', {number})"), text);
    }
    expect("return redis.call('mget', 1, 2.5, 'k', 1e300)[4] == false", ":1");
}

#[test]
fn a_panic_of_the_host_passes_lua_by() {
    struct Broken;
    impl Host for Broken {
        fn call(&mut self, _: &[&[u8]], _: Protocol, _: &mut Vec<u8>) {
            panic!("a bug of the host");
        }
        fn log(&mut self, _: LogLevel, _: &[u8]) {}
        fn acl_check(&mut self, _: &[&[u8]]) -> Option<bool> {
            None
        }
        fn set_repl(&mut self, _: u8) {}
        fn tick(&mut self) -> Tick {
            Tick::Continue
        }
    }
    let engine = &mut engine();
    for body in ["redis.call('get')", "while true do pcall(redis.call, 'get') end"] {
        let handle = engine.script(body.as_bytes()).expect("it compiles");
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (protocol, out) = (Protocol::Resp2, &mut Vec::new());
            let run = Run { keys: &[], arguments: &[], host: &mut Broken, protocol, out };
            engine.run_script(&handle, run)
        }));
        assert!(ended.is_err());
        let reply =
            eval_with(engine, &mut Toy::default(), Protocol::Resp2, b"return 1", &[], &[]).1;
        assert_eq!(reply, b":1\r\n");
    }
}

#[test]
fn memory_that_runs_out_in_a_reply_is_an_error_of_the_call() {
    let (engine, host) = (&mut engine(), &mut Toy::default());
    for digit in b'1'..=b'5' {
        host.data.insert(vec![b'k', digit], vec![digit; 20 << 20]);
    }
    let body = b"local t = {} for i = 1, 5 do local ok, e = pcall(redis.call, 'get', 'k' .. i) \
                 if not ok then return e end t[i] = e end return 'none'";
    let reply = eval_with(engine, host, Protocol::Resp2, body, &[], &[]).1;
    assert_eq!(show(&reply), "not enough memory");
    let body = b"return #redis.call('get', 'k1')";
    let reply = eval_with(engine, host, Protocol::Resp2, body, &[], &[]).1;
    assert_eq!(show(&reply), format!(":{}", 20 << 20));
}

#[test]
fn values_become_replies() {
    expect("return 5.7", ":5");
    expect("return -5.7", ":-5");
    expect("return {struct.unpack('i4', struct.pack('i4', 2^64))}", "[:0 :5]");
    expect(
        "return {1/0, -1/0, 0/0, 1e19}",
        &format!("[{}]", [":-9223372036854775808"; 4].join(" ")),
    );
    expect("return {1, 2, nil, 4}", "[:1 :2]");
    expect("return {1, {2, {3, 'x'}}}", "[:1 [:2 [:3 x]]]");
    expect("return {double = 3.1}", "3.1");
    expect("return {map = {a = 1}}", "[a :1]");
    expect("return {verbatim_string = {format = 'txt', string = 'hi'}}", "hi");
    expect("return redis.status_reply('a\\r\\nb')", "a  b");
    expect("return redis.error_reply('FOO bar')", "FOO bar");
    expect("return redis.error_reply('FOO')", "ERR FOO");
    expect("return {err = 'xx\\r\\nyy'}", "xx  yy");
    expect("return {err = 5}", "[]");
    expect("return true", ":1");
    assert_eq!(eval("return false"), eval("return nil"));
    assert_eq!(eval("return function() end"), eval("return nil"));
}

#[test]
fn values_become_replies_in_resp3() {
    let reply = |body: &str| {
        let (engine, host) = (&mut engine(), &mut Toy::default());
        let reply = eval_with(engine, host, Protocol::Resp3, body.as_bytes(), &[], &[]).1;
        String::from_utf8(reply).expect("text")
    };
    assert_eq!(reply("return {double = 3.5}"), ",3.5\r\n");
    assert_eq!(reply("return {map = {a = 1}}"), "%1\r\n$1\r\na\r\n:1\r\n");
    assert_eq!(reply("return {set = {a = true}}"), "~1\r\n$1\r\na\r\n");
    assert_eq!(reply("return true"), ":1\r\n");
    assert_eq!(reply("redis.setresp(3) return true"), "#t\r\n");
    assert_eq!(reply("return nil"), "_\r\n");
    assert_eq!(reply("return {big_number = '123'}"), "(123\r\n");
    assert_eq!(
        reply("redis.setresp(3) local odd = redis.call('odd') return odd.map.double.double * 4"),
        ":2\r\n"
    );
    assert_eq!(
        reply("redis.setresp(3) return redis.call('odd')").len(),
        "%3\r\n$6\r\ndouble\r\n,0.5\r\n$3\r\nset\r\n~1\r\n$1\r\nx\r\n$5\r\ntruth\r\n#t\r\n".len()
    );
}

#[test]
fn deeply_nested_replies_end_in_an_error() {
    let (engine, host) = (&mut engine(), &mut Toy::default());
    let body = b"local a = {} a[1] = a return a";
    let reply = eval_with(engine, host, Protocol::Resp2, body, &[], &[]).1;
    let text = String::from_utf8(reply).expect("text");
    assert!(text.ends_with("-ERR reached lua stack limit\r\n"));
}

#[test]
fn commands_are_called() {
    let (engine, host) = (&mut engine(), &mut Toy::default());
    let mut run = |body: &str, keys: &[&[u8]], arguments: &[&[u8]]| {
        show(&eval_with(engine, host, Protocol::Resp2, body.as_bytes(), keys, arguments).1)
    };
    assert_eq!(run("return redis.call('set', KEYS[1], ARGV[1])", &[b"k"], &[b"v"]), "OK");
    assert_eq!(run("return redis.call('get', KEYS[1])", &[b"k"], &[]), "v");
    assert_eq!(run("return redis.call('echo', 1e15)", &[], &[]), "1000000000000000");
    assert_eq!(run("return redis.call('echo', 0.1)", &[], &[]), "0.1");
    assert_eq!(run("return redis.call('mget', 'k', 'nosuch')[2] == false", &[], &[]), ":1");
    assert_eq!(run("return #redis.call('mget', unpack(KEYS))", &[&b"k"[..]; 100], &[]), ":100");
    assert_eq!(run("return {KEYS[100], ARGV[1]}", &[&b"k"[..]; 100], &[b"a"]), "[k a]");
    assert_eq!(run("return {#KEYS, #ARGV, ARGV[1]}", &[b"1", b"2"], &[b"a", b"b"]), "[:2 :2 a]");
}

#[test]
fn errors_read_as_in_redis() {
    expect_error("error('x')", "ERR user_script:1: x");
    expect_error("error({err = 'My Err'})", "My Err");
    expect_error("error({})", "ERR unknown error");
    expect_error("error()", "ERR nil");
    expect_error("return redis.call('nosuch')", "ERR Unknown Redis command called from script");
    expect("return redis.pcall('nosuch')", "ERR Unknown Redis command called from script");
    expect(
        "local ok, e = pcall(redis.call, 'nosuch') return {tostring(ok), e}",
        "[false ERR Unknown Redis command called from script]",
    );
    expect(
        "return {xpcall(function() redis.call('nosuch') end, function(e) return type(e) end)}",
        &format!("[{} table]", eval("return false")),
    );
    expect("return redis.pcall('nosuch').ignore_error_stats_update", ":1");
    expect_error(
        "redis.call()",
        "ERR Please specify at least one argument for this redis lib call",
    );
    expect_error(
        "redis.call({})",
        "ERR Lua redis lib command arguments must be strings or integers",
    );
    expect_error(
        "redis.set_repl(9)",
        "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
    );
    expect_error("redis.log(9, 'x')", "ERR Invalid log level.");
    expect_error("redis.setresp(5)", "ERR RESP version must be 2 or 3.");
    expect_error(
        "return redis.acl_check_cmd('nosuch')",
        "ERR Invalid command passed to redis.acl_check_cmd()",
    );
    expect_error(
        "local a = nil; a.b = 1",
        "ERR user_script:1: attempt to index local 'a' (a nil value)",
    );
    expect_error(
        "local function f() return f() + 1 end return f()",
        "ERR user_script:1: stack overflow",
    );
    expect_error(
        "math.random(0)",
        "ERR user_script:1: bad argument #1 to 'random' (interval is empty)",
    );
    assert_eq!(
        eval("a ="),
        "ERR Error compiling script (new function): user_script:1: unexpected symbol near '<eof>'"
    );
    assert_eq!(eval("\n\nerror('x')").split(" script").next(), Some("ERR user_script:3: x"));
}

#[test]
fn globals_are_read_only() {
    let readonly = "ERR user_script:1: Attempt to modify a readonly table";
    let plain = "ERR Attempt to modify a readonly table";
    for body in [
        "x = 1",
        "redis.x = 1",
        "redis.call = nil",
        "string.len = nil",
        "_G = {}",
        "_G.x = 1",
        "KEYS = {}",
        "getmetatable(_G).__index = {}",
        "getmetatable('').__index = {}",
        "cjson.encode = nil",
        "_G._G.redis.pcall = 1",
    ] {
        expect_error(body, readonly);
    }
    for body in [
        "rawset(_G, 'x', 1)",
        "table.insert(_G, 'x')",
        "setmetatable(_G, {})",
        "setmetatable(redis, {})",
        "rawset(string, 'x', 1)",
    ] {
        expect_error(body, plain);
    }
    expect_error(
        "return x",
        "ERR user_script:1: Script attempted to access nonexistent global variable 'x'",
    );
    for name in ["print", "dofile", "loadfile", "newproxy", "getfenv", "setfenv", "debug", "io"] {
        expect_error(
            &format!("return {name}"),
            &format!(
                "ERR user_script:1: Script attempted to access nonexistent global variable '{name}'"
            ),
        );
    }
    expect("KEYS[1] = 'z' return KEYS[1]", "z");
    expect(
        "for _, t in pairs(_G) do if type(t) == 'table' then for k in pairs(t) do end end end \
            return type(redis)",
        "table",
    );
    expect("local n = 0 for k in pairs(redis) do n = n + 1 end return n > 15", ":1");
    expect("local k, v = next(os) return k", "clock");
    expect("return rawget(redis, 'LOG_WARNING')", ":3");
    expect("return ('x'):rep(3)", "xxx");
    expect("return loadstring('return 7')()", ":7");
    expect("return load(function() return nil end) ~= nil", ":1");
}

#[test]
fn a_script_cannot_reach_behind_the_protection() {
    // What iterates over a protected table must not hand out the table behind it.
    expect_error(
        "local f, s, k = pairs(_G) s.x = 1",
        "ERR user_script:1: Attempt to modify a readonly table",
    );
    expect("local s = select(2, pairs(string)) return s == string", ":1");
    let text = eval("loadstring('x = 1')()");
    assert!(text.starts_with("ERR [string \"x = 1\"]:1: Attempt to modify a readonly table"));
    expect("local f, e = loadstring(string.dump(function() end)) return f == nil", ":1");
    expect(
        "local code = string.dump(function() end) local f, e = load(function() local c = code \
            code = nil return c end) return f == nil",
        ":1",
    );
    expect("return collectgarbage('stop')", ":0");
}

#[test]
fn a_script_is_ended_from_outside() {
    for body in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local f f = function() local ok, e = pcall(f) return f() end f()",
        "while true do coroutine.wrap(function() while true do end end)() end",
        "while true do local c = coroutine.create(function() for i = 1, 90000 do end end) \
         coroutine.resume(c) end",
        "while true do pcall(coroutine.wrap(function() while true do end end)) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "return string.find(('a'):rep(1000), ('a*'):rep(20) .. 'b')",
        "return (('a'):rep(1000)):match(('a-'):rep(20) .. 'b')",
        "for _ in string.gmatch(('a'):rep(1000), ('a?'):rep(500) .. 'b') do end",
        "return pcall(string.gsub, ('a'):rep(1000), ('.+'):rep(20) .. '(b)', '')",
        "local s = ('('):rep(100000) return s:find('%b()')",
        "local s = ('x'):rep(1000000) while true do s:find('y', 1, true) end",
        "local s = ('x'):rep(1000000) while true do s:gsub('x', '', 1) end",
        "while true do local s = ('x'):rep(1000000) end",
    ] {
        let (engine, host) = (&mut engine(), &mut Toy::default());
        host.ticks_left = Some(2);
        let reply = eval_with(engine, host, Protocol::Resp2, body.as_bytes(), &[], &[]).1;
        let text = show(&reply);
        assert!(
            text.starts_with("ERR Script killed by user with SCRIPT KILL..."),
            "{text}: {body}"
        );
        // What comes after it runs.
        host.ticks_left = None;
        let body = b"for i = 1, 300000 do end return 1";
        let reply = eval_with(engine, host, Protocol::Resp2, body, &[], &[]).1;
        assert_eq!(show(&reply), ":1");
    }
}

#[test]
fn memory_is_bounded() {
    for body in [
        "local t = {} while true do t[#t + 1] = {{}, {}} end",
        "return string.rep('x', 2000000000)",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "return cjson.encode(cjson.decode('[' .. string.rep('[1],', 1000000) .. '1]'))",
    ] {
        let (engine, host) = (&mut engine(), &mut Toy::default());
        let reply = eval_with(engine, host, Protocol::Resp2, body.as_bytes(), &[], &[]).1;
        let text = show(&reply);
        assert!(text.contains("not enough memory"), "{text}: {body}");
        let reply = eval_with(engine, host, Protocol::Resp2, b"return 1", &[], &[]).1;
        assert_eq!(show(&reply), ":1");
    }
}

#[test]
fn scripts_are_kept() {
    let engine = &mut engine();
    let sha = engine.load_script(b"return 1").expect("it compiles");
    assert_eq!(&sha, b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    for number in 0..600 {
        engine.script(format!("return {number}00").as_bytes()).expect("it compiles");
    }
    assert!(engine.script_exists(&sha));
    assert_eq!((engine.scripts_len(), engine.scripts_evicted()), (501, 100));
    assert!(engine.script_by_sha(&sha.to_ascii_uppercase()).is_some());
    engine.flush_scripts();
    assert!(!engine.script_exists(&sha));
}

#[test]
fn what_the_host_is_told() {
    let (engine, host) = (&mut engine(), &mut Toy::default());
    let body = b"redis.log(redis.LOG_WARNING, 'a', 1, 'b') redis.set_repl(redis.REPL_AOF) \
                 return {redis.acl_check_cmd('get', 'k'), redis.acl_check_cmd('set', 'k', 'v')}";
    let reply = eval_with(engine, host, Protocol::Resp2, body, &[], &[]).1;
    assert_eq!(show(&reply), format!("[:1 {}]", eval("return false")));
    assert_eq!(host.logged, [(LogLevel::Warning, "a 1 b".to_owned())]);
    assert_eq!(host.targets, Some(1));
}

fn call(engine: &mut Engine, host: &mut Toy, name: &str, keys: &[&[u8]], args: &[&[u8]]) -> String {
    let Some(handle) = engine.function(name.as_bytes()) else { return "none".to_owned() };
    let mut out = Vec::new();
    let protocol = Protocol::Resp2;
    engine.call_function(&handle, Run { keys, arguments: args, host, protocol, out: &mut out });
    show(&out)
}

fn load(engine: &mut Engine, code: &str, loading: Loading) -> String {
    let loaded = engine.load_library(code.as_bytes(), loading, &mut Toy::default());
    String::from_utf8(loaded.unwrap_or_else(|problem| problem)).expect("text")
}

#[test]
fn functions_are_registered_and_called() {
    let (engine, host) = (&mut engine(), &mut Toy::default());
    let code = "#!lua name=lib\nredis.register_function('First', function(keys, args) \
                return {keys[1], args[1], redis.call('echo', 'x')} end) \
                redis.register_function{function_name='second', callback=function() error('y') end, \
                description='d', flags={'no-writes'}}";
    assert_eq!(load(engine, code, Loading::New), "lib");
    assert_eq!(call(engine, host, "first", &[b"k"], &[b"a"]), "[k a x]");
    assert_eq!(
        call(engine, host, "second", &[], &[]),
        "ERR user_function:2: y script: second, on @user_function:2."
    );
    assert_eq!(call(engine, host, "third", &[], &[]), "none");
    assert_eq!(load(engine, code, Loading::New), "Library 'lib' already exists");
    assert_eq!(load(engine, code, Loading::Replace), "lib");
    let other = code.replace("name=lib", "name=other");
    assert_eq!(load(engine, &other, Loading::New), "Function First already exists");
    let info: Vec<_> = engine.libraries().collect();
    assert_eq!(info[0].functions[1].description, Some(&b"d"[..]));
    assert_eq!(info[0].functions[1].flags.names().collect::<Vec<_>>(), ["no-writes"]);
    drop(info);

    let payload = engine.dump_libraries();
    let host: &mut dyn Host = &mut Toy::default();
    assert_eq!(
        engine.restore_libraries(&payload, Restore::Append, host),
        Err(b"Library lib already exists".to_vec())
    );
    assert_eq!(engine.restore_libraries(&payload, Restore::Replace, host), Ok(()));
    engine.flush_libraries();
    assert_eq!(engine.libraries_len(), (0, 0));
    assert_eq!(engine.restore_libraries(&payload, Restore::Flush, host), Ok(()));
    assert_eq!(engine.libraries_len(), (1, 2));
    assert!(engine.delete_library(b"lib"));
    assert!(!engine.delete_library(b"lib"));
}

#[test]
fn libraries_that_do_not_load_leave_nothing_behind() {
    let engine = &mut engine();
    let cases = [
        ("return 1", "Missing library metadata"),
        ("#!lua name=lib\nreturn 1", "No functions registered"),
        ("#!js name=lib\n", "Engine 'js' not found"),
        (
            "#!lua name=lib\nreturn redis.call('get', 'x')",
            "Error registering functions: ERR user_function:2: Script attempted to access nonexistent \
             global variable 'call'",
        ),
        (
            "#!lua name=lib\nredis.register_function(1)",
            "Error registering functions: ERR calling redis.register_function with a single argument \
             is only applicable to Lua table (representing named arguments).",
        ),
        (
            "#!lua name=lib\nredis.register_function('f', 1)",
            "Error registering functions: ERR second argument to redis.register_function must be a \
             function",
        ),
        (
            "#!lua name=lib\nx = 1",
            "Error registering functions: ERR user_function:2: Attempt to modify a readonly table",
        ),
        (
            "#!lua name=lib\n)",
            "Error compiling function: user_function:2: unexpected symbol near ')'",
        ),
    ];
    for (code, problem) in cases {
        assert_eq!(load(engine, code, Loading::New), problem, "of {code}");
        assert_eq!(engine.libraries_len(), (0, 0));
    }
    let code = "#!lua name=lib\nlocal api = redis redis.register_function('f', function() \
                return api.register_function('g', function() end) end)";
    assert_eq!(load(engine, code, Loading::New), "lib");
    assert_eq!(
        call(engine, &mut Toy::default(), "f", &[], &[]).split(" script").next(),
        Some("ERR redis.register_function can only be called on FUNCTION LOAD command")
    );
    let code = code.replace("return api.", "return redis.");
    assert_eq!(load(engine, &code, Loading::Replace), "lib");
    assert_eq!(
        call(engine, &mut Toy::default(), "f", &[], &[]).split(" script").next(),
        Some("ERR user_function:2: attempt to call field 'register_function' (a nil value)")
    );
    for name in ["math", "string", "pcall", "_G", "cjson"] {
        let problem = load(engine, &format!("#!lua name=other\nlocal x = {name}"), Loading::New);
        assert_eq!(
            problem,
            format!(
                "Error registering functions: ERR user_function:2: Script attempted to access \
                 nonexistent global variable '{name}'"
            )
        );
    }
}

#[test]
fn tables_of_any_size_are_packed() {
    for (to, from) in [("cjson.encode", "cjson.decode"), ("cmsgpack.pack", "cmsgpack.unpack")] {
        for (key, value) in [("i", "tostring(i)"), ("'k' .. i", "{i}"), ("i", "{'v' .. i}")] {
            let body = format!(
                "local t = {{}} for i = 1, 20000 do t[{key}] = {value} end \
                 local back, n = {from}({to}(t)), 0 for _ in pairs(back) do n = n + 1 end return n"
            );
            assert_eq!(eval(&body), ":20000", "{to} of {key} = {value}");
        }
    }
}

#[test]
fn json_is_written_and_read() {
    expect(
        r#"return cjson.encode({1, 2.5, 'a/"b', {x = true}, cjson.null})"#,
        r#"[1,2.5,"a\/\"b",{"x":true},null]"#,
    );
    expect("return cjson.encode({})", "{}");
    expect("return cjson.encode({[1] = 1, [2] = 2, [4] = 4})", "[1,2,null,4]");
    expect("return cjson.encode(0.1) .. cjson.encode(1e15) .. cjson.encode(-0.5)", "0.11e+15-0.5");
    expect("return cjson.decode('[1, 2, {\"a\": [null, \"\\\\u00e9\"]}]')[3].a[2]", "é");
    expect("return cjson.decode('null') == cjson.null", ":1");
    expect("return tostring(cjson.decode('0x10')) .. tostring(cjson.decode('-1e3'))", "16-1000");
    for (body, error) in [
        ("cjson.encode(0/0)", "Cannot serialise number: must not be NaN or Inf"),
        ("cjson.encode({[1] = 1, [1000] = 1})", "Cannot serialise table: excessively sparse array"),
        ("cjson.encode(print == nil)", ""),
        (
            "cjson.encode({[true] = 1})",
            "Cannot serialise boolean: table key must be a number or string",
        ),
        ("cjson.encode(function() end)", "Cannot serialise function: type not supported"),
        ("local t = {} t.t = t cjson.encode(t)", "Cannot serialise, excessive nesting (1001)"),
        ("cjson.decode('{\"a\":}')", "Expected value but found T_OBJ_END at character 6"),
        ("cjson.decode('[1,')", "Expected value but found T_END at character 4"),
        ("cjson.decode('[1] x')", "Expected the end but found invalid token at character 5"),
        ("cjson.decode('\"a')", "Expected value but found unexpected end of string at character 3"),
        (
            "cjson.decode(string.rep('[', 1001))",
            "Found too many nested data structures (1001) at character 1001",
        ),
        ("cjson.encode()", "bad argument #1 to 'encode' (expected 1 argument)"),
        ("cjson.decode({})", "bad argument #1 to 'decode' (string expected, got table)"),
        (
            "cjson.encode_max_depth(0)",
            "bad argument #1 to 'encode_max_depth' (expected integer between 1 and 2147483647)",
        ),
        (
            "cjson.encode_invalid_numbers('x')",
            "bad argument #1 to 'encode_invalid_numbers' (invalid option 'x')",
        ),
    ] {
        if !error.is_empty() {
            expect_error(body, &format!("ERR user_script:1: {error}"));
        }
    }
}

#[test]
fn other_libraries_answer_as_in_redis() {
    expect(
        "return {bit.band(0xff, 0x0f), bit.bor(1, 2), bit.bnot(0), bit.lshift(1, 31)}",
        "[:15 :3 :-1 :-2147483648]",
    );
    expect("return bit.tohex(255) .. bit.tohex(-1, -4) .. bit.tohex(255, 0)", "000000ffFFFF");
    expect(
        "return {bit.tobit(0xffffffff), bit.bswap(0x12345678), bit.rol(0x12345678, 12)}",
        "[:-1 :2018915346 :1164411171]",
    );
    expect_error(
        "bit.band({})",
        "ERR user_script:1: bad argument #1 to 'band' (number expected, got table)",
    );
    expect("return {struct.unpack('>I2h', struct.pack('>I2h', 258, -2))}", "[:258 :-2 :5]");
    expect("return {struct.size('!4 b i d'), struct.size('bi')}", "[:16 :5]");
    expect("return {struct.unpack('I1c0', '\\3abcd')}", "[abc :5]");
    expect("return {struct.unpack('s', 'ab\\0c')}", "[ab :4]");
    expect_error(
        "struct.unpack('i', 'abc')",
        "ERR user_script:1: bad argument #2 to 'unpack' (data string too short)",
    );
    expect_error(
        "struct.pack('i33', 1)",
        "ERR user_script:1: integral size 33 is larger than limit of 32",
    );
    expect_error(
        "struct.pack('?', 1)",
        "ERR user_script:1: bad argument #1 to 'pack' (invalid format option '?')",
    );
    expect(
        "local t = cmsgpack.unpack(cmsgpack.pack({1, 'a', {b = -5}, 1.5, true})) \
            return {t[1], t[2], t[3].b, t[4] * 2, t[5]}",
        "[:1 a :-5 :3 :1]",
    );
    expect("return {cmsgpack.unpack_limit(cmsgpack.pack(1, 2, 3), 2)}", "[:2 :1 :2]");
    expect("return {cmsgpack.unpack_one(cmsgpack.pack(7))}", "[:-1 :7]");
    expect_error("cmsgpack.unpack('\\193')", "ERR user_script:1: Bad data format in input.");
    expect_error("cmsgpack.unpack('\\146\\1')", "ERR user_script:1: Missing bytes in input.");
    expect("math.randomseed(5) return tostring(math.random())", "0.52483957937213");
}

/// Data that JSON and MessagePack both can hold, as Lua source.
fn literal() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(|number| number.to_string()),
        (-1000_i32..1000).prop_map(|number| format!("{}", f64::from(number) / 8.0)),
        any::<bool>().prop_map(|truth| truth.to_string()),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| {
            let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03}")).collect();
            format!("'{escaped}'")
        }),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8)
                .prop_map(|all| format!("{{{}}}", all.join(","))),
            proptest::collection::btree_map("[a-z]{1,5}", inner, 0..8).prop_map(|all| {
                let fields: Vec<_> =
                    all.iter().map(|(name, value)| format!("['{name}']={value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

const SAME: &str = "local function same(a, b) if type(a) ~= type(b) then return false end \
    if type(a) ~= 'table' then return a == b end \
    for k, v in pairs(a) do if not same(v, b[k]) then return false end end \
    for k, v in pairs(b) do if a[k] == nil then return false end end return true end ";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_packed_comes_back(value in literal()) {
        for (to, from) in [("cjson.encode", "cjson.decode"), ("cmsgpack.pack", "cmsgpack.unpack")] {
            let body = format!("{SAME} local v = {value} return same(v, {from}({to}(v)))");
            prop_assert_eq!(eval(&body), ":1");
        }
    }

    #[test]
    fn no_bytes_break_the_readers(bytes: Vec<u8>) {
        let mut engine = engine();
        for reader in ["cjson.decode", "cmsgpack.unpack"] {
            let body = format!("pcall({reader}, ARGV[1]) pcall(struct.unpack, ARGV[1], ARGV[1]) \
                                pcall(struct.pack, ARGV[1], 1, 2, 'abc') return 1");
            let host = &mut Toy::default();
            let args: &[&[u8]] = &[&bytes];
            let reply = eval_with(&mut engine, host, Protocol::Resp2, body.as_bytes(), &[], args).1;
            prop_assert_eq!(show(&reply), ":1");
        }
    }
}

#[test]
fn an_engine_is_small_and_many_scripts_leave_little_behind() {
    let mut engine = Engine::new(Limits::default()).unwrap();
    let (_, scripts, functions) = engine.memory();
    assert!(scripts < 100 << 10 && functions < 100 << 10, "{scripts} {functions}");

    for n in 0..10_000 {
        engine.load_script(format!("--xxxxxxxxxx\nreturn {n:06}").as_bytes()).unwrap();
        let code = format!(
            "#!lua name=test{n}\nredis.register_function('test{n}', function(KEYS, ARGV)\n \
             --xxxxxxxxxx\nreturn {n:06} \nend)"
        );
        engine.load_library(code.as_bytes(), Loading::New, &mut Toy::default()).unwrap();
    }
    let (_, scripts, functions) = engine.memory();
    assert!(scripts < 10_000 * 350 && functions < 10_000 * 290, "{scripts} {functions}");
}

//! Scripts and functions: small ones in Lua around generated commands and values.

use super::command::Command;
use super::compare::{Rule, Terms};
use super::generate::Generator;
use super::sha1::hex_digest;

/// A script whose ARGV is a command, and what its reply has to do with that of the command.
struct Around {
    text: &'static str,
    terms: fn(Terms) -> Terms,
}

const fn around(text: &'static str, terms: fn(Terms) -> Terms) -> Around {
    Around { text, terms }
}

const AROUND: &[Around] = &[
    around("return redis.call(unpack(ARGV))", |terms| terms),
    around("return redis.call(unpack(ARGV))", |terms| terms),
    around("return redis.pcall(unpack(ARGV))", |terms| terms),
    around("redis.setresp(3); return redis.call(unpack(ARGV))", mixed),
    around("redis.setresp(3); return redis.pcall(unpack(ARGV))", mixed),
    around("local r = redis.pcall(unpack(ARGV)); return {type(r), r}", second),
    around(
        "redis.setresp(3); local r = redis.pcall(unpack(ARGV)); return {type(r), r, 1}",
        |terms| second(mixed(terms)),
    ),
    around("return {1, redis.call(unpack(ARGV))}", second),
    around(
        "local r = redis.pcall(unpack(ARGV)); if r == nil then return 'nil' end; \
            if r == false then return 'false' end; return type(r)",
        whole,
    ),
    around(
        "local r = redis.pcall(unpack(ARGV)); if type(r) == 'table' then \
            if r.err then return {'err', r.err} elseif r.ok then return {'ok', r.ok} \
            else return {'array', #r} end end; return r",
        whole_or_second,
    ),
    around("local ok, r = pcall(redis.call, unpack(ARGV)); return ok and 1 or {r.err or r}", whole),
    around("#!lua\nreturn redis.call(unpack(ARGV))", |terms| terms),
    around("#!lua flags=no-writes\nreturn redis.pcall(unpack(ARGV))", |terms| terms),
    around("#!lua flags=allow-oom,allow-stale\nreturn redis.call(unpack(ARGV))", |terms| terms),
    around("redis.call('MULTI'); return redis.call(unpack(ARGV))", whole),
    around("return redis.acl_check_cmd(unpack(ARGV))", whole),
];

/// For maps, which have no certain order once they were tables of Lua's.
fn mixed(terms: Terms) -> Terms {
    match terms {
        Terms::Whole(Rule::Exact | Rule::Pairs | Rule::Timed) => Rule::Deep.into(),
        terms => terms,
    }
}

fn whole(_: Terms) -> Terms {
    Rule::Exact.into()
}

fn second(terms: Terms) -> Terms {
    Terms::Each(vec![Rule::Exact.into(), terms])
}

/// What is no table comes back as it is.
fn whole_or_second(_: Terms) -> Terms {
    Rule::Shape.into()
}

/// Scripts on KEYS and ARGV as programs have them.
const USUAL: &[&str] = &[
    "return redis.call('SET', KEYS[1], ARGV[1])",
    "return redis.call('GET', KEYS[1])",
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end",
    "local n = redis.call('INCR', KEYS[1]); if n == 1 then redis.call('EXPIRE', KEYS[1], 1000000) end; return n",
    "return {KEYS[1], KEYS[2], ARGV[1], ARGV[2], #KEYS, #ARGV}",
    "for i = 1, 10 do redis.call('RPUSH', KEYS[1], i) end; return redis.call('LRANGE', KEYS[1], 0, -1)",
    "return redis.call('LLEN', KEYS[1]) + 1",
    "local t = redis.call('HGETALL', KEYS[1]); return #t % 2",
    "return redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])",
    "redis.call('SELECT', 1); redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])",
    "return redis.status_reply('FINE ' .. tostring(ARGV[1]))",
    "return redis.error_reply(ARGV[1])",
    "return redis.error_reply('MY ' .. ARGV[1])",
    "return {ok = ARGV[1]}",
    "return {err = ARGV[1]}",
    "error(ARGV[1])",
    "error({err = 'MINE ' .. ARGV[1]})",
    "return tonumber(ARGV[1])",
    "return tostring(tonumber(ARGV[1]))",
    "redis.setresp(3); return {double = tonumber(ARGV[1]) or 0}",
    "return redis.sha1hex(ARGV[1])",
    "return cjson.encode({ARGV[1], tonumber(ARGV[1]) or false})",
    "return cjson.encode(cjson.decode(ARGV[1]))",
    "return cmsgpack.pack(ARGV[1], tonumber(ARGV[1]) or 0, {1, 2, ARGV[2]})",
    "local t = cmsgpack.unpack(cmsgpack.pack({ARGV[1], tonumber(ARGV[2]) or 1.5})); return {t[1], tostring(t[2])}",
    "return cmsgpack.unpack(ARGV[1])",
    "return struct.pack('>I2i4>ds', 7, tonumber(ARGV[1]) or 3, tonumber(ARGV[2]) or 2.5, ARGV[1])",
    "return {struct.unpack('<I2', ARGV[1])}",
    "return bit.band(tonumber(ARGV[1]) or 1, 0xff)",
    "return {bit.tohex(tonumber(ARGV[1]) or -1), bit.bnot(5), bit.lshift(1, 31), bit.rol(0x12345678, 12), bit.bswap(1)}",
    "return string.format('%s %5.2f %d %x %g %q', ARGV[1], tonumber(ARGV[2]) or 1.5, 42, 255, 1e20, ARGV[1])",
    "return {string.find(ARGV[1], '(%a)(%d*)')}",
    "return string.gsub(ARGV[1], '%w', '<%0>')",
    "local t = {}; for w in string.gmatch(ARGV[1] .. ' ' .. ARGV[2], '%w+') do t[#t + 1] = w end; table.sort(t); return t",
    "return redis.call('SORT', KEYS[1], 'ALPHA')",
    "redis.replicate_commands(); return redis.call('TIME') and 1",
    "return redis.call('SMEMBERS', KEYS[1])[100000]",
    "return nosuchvariable",
    "nosuchvariable = 1",
    "return redis.nosuch()",
    "return redis.call()",
    "return redis.call('NOSUCH')",
    "return redis.pcall('NOSUCH')",
    "return redis.call('GET')",
    "return redis.call({})",
    "return redis.call('GET', {})",
    "return redis.call('SET', KEYS[1], 3.7)",
    "return redis.call('SUBSCRIBE', 'a')",
    "return redis.pcall('BLPOP', KEYS[1], 0)",
    "return redis.setresp(4)",
    "return this is no lua",
    "return {1, 2.9, 'x', true, false, 3, nil, 4}",
    "return {1, {2, {3, {}}}, {ok = 'x'}, {err = 'ERR y'}}",
    "return {map = {a = 1}}",
    "redis.setresp(3); return {map = {a = ARGV[1]}}",
    "redis.setresp(3); return {set = {x = true}}",
    "return {big_number = '123456789012345678901234567890'}",
    "return {verbatim_string = {format = 'txt', string = ARGV[1]}}",
    "return {double = 3.14}",
    "return true",
    "return false",
    "return nil",
    "return",
    "",
    "return 1e15, 2",
    "return -0.5",
    "return 1/0",
    "return math.random(1) .. type(math.random()) .. math.random(5, 5)",
    "return math.floor(tonumber(ARGV[1]) or 2.7)",
    "return {tostring(2^53), tostring(1e100), tostring(0.1), tostring(-0), tostring(100000000000000)}",
    "return type(redis.REDIS_VERSION) .. type(redis.REDIS_VERSION_NUM) .. redis.LOG_WARNING",
    "return redis.log(redis.LOG_DEBUG, 'x')",
    "return {pcall(function() return redis.call('INCR', KEYS[1]) end)}",
    "local a = {}; a[1] = a; return #a",
    "return _VERSION",
    "return {type(os.clock), type(io), type(require), type(loadstring), type(dofile), type(print), type(debug)}",
    "return os.execute('true')",
    "return tostring(setmetatable(_G, {}))",
    "rawset(redis, 'x', 1)",
    "redis.call = nil",
    "string.x = 1",
    "return loadstring('return 1 + 1')()",
    "return {next({}), select('#', 1, 2, 3), unpack({1, 2, 3}, 2)}",
    "return coroutine.wrap(function() coroutine.yield(5) end)()",
    "local s = ''; for i = 1, 50 do s = s .. i end; return s",
    "return redis.breakpoint()",
    "return redis.set_repl(redis.REPL_ALL)",
    "#!lua name=x\nreturn 1",
    "#!lua flags=nosuch\nreturn 1",
    "#!python\nreturn 1",
    "#!lua",
    "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 1)",
    "#!lua flags=no-cluster\nreturn 1",
];

const LIBRARIES: &[&str] = &[
    "#!lua name=one\nredis.register_function('f1', function(keys, args) return redis.call('SET', keys[1], args[1]) end)",
    "#!lua name=one\nredis.register_function('f1', function(keys, args) return {#keys, #args, keys[1], args[1]} end)\n\
     redis.register_function('f2', function(keys, args) return redis.call(unpack(args)) end)",
    "#!lua name=two\nredis.register_function{function_name='f3', callback=function(keys, args) return redis.pcall(unpack(args)) end, \
     flags={'no-writes'}, description='reads'}",
    "#!lua name=two\nlocal n = 0\nredis.register_function('f3', function() n = n + 1; return n end)",
    "#!lua name=three\nredis.register_function('f1', function() return 'other' end)",
    "#!lua name=three\nredis.register_function('f4', function() return nosuch end)",
    "#!lua name=three\nredis.register_function('f4', function() nosuch = 1 end)",
    "#!lua name=three\nreturn 1",
    "#!lua name=bad name\nreturn 1",
    "#!lua\nreturn 1",
    "redis.register_function('f1', function() end)",
    "#!lua name=four\nredis.call('GET', 'x')",
    "#!lua name=four\nredis.register_function('f 5', function() end)",
    "#!lua name=four\nredis.register_function('f5')",
    "#!lua name=four\nredis.register_function{function_name='f5', callback=function() end, flags={'nosuch'}}",
    "#!lua name=four\nthis is no lua",
    "#!lua name=four\nredis.register_function('f6', function(keys, args) redis.setresp(3); return redis.call('HGETALL', keys[1]) end)",
    "#!js name=four\nreturn 1",
];

/// A few scripts in a row.
pub fn several(generator: &mut Generator, commands: &mut Vec<Command>) {
    let end = commands.len() + generator.random.usize(2..6);
    while commands.len() < end {
        let command = match generator.random.u32(..20) {
            0..8 => around_a_command(generator),
            8..14 => usual(generator),
            14..18 => function(generator),
            _ => generator.made_of(ABOUT_SCRIPTS, Rule::Exact),
        };
        if !command.has_stand_ins() {
            commands.push(command);
        }
    }
    if generator.random.u32(..10) == 0 {
        let pattern = ["FUNCTION LIST", "FUNCTION LIST WITHCODE", "FUNCTION LIST LIBRARYNAME t*"];
        let mut command = Command::plain(pattern[generator.random.usize(..3)]);
        command.terms = Rule::Deep.into();
        commands.push(command);
    }
}

const ABOUT_SCRIPTS: &str = "(SCRIPT EXISTS 0000 {v}|SCRIPT LOAD {lua}|SCRIPT FLUSH [SYNC|ASYNC|x]|\
    SCRIPT KILL|SCRIPT NOSUCH|FUNCTION KILL|FUNCTION DELETE (one|two|three|four)|FUNCTION FLUSH [SYNC|x]|\
    FUNCTION RESTORE {v}|FUNCTION NOSUCH|EVALSHA {v} 0|EVAL return 0 a b|EVAL (x|-1) (x|-1)|FUNCTION DUMP x|\
    EVAL {lua} (-1|5|x) a|FCALL f1 (-1|5|x) a)";

/// A script and how it is called: by text, by digest, or read-only.
fn call(
    generator: &mut Generator,
    script: &str,
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
    terms: Terms,
) -> Command {
    let (name, script) = match generator.random.u32(..20) {
        0..12 => ("EVAL", script.to_owned()),
        12..14 => ("EVAL_RO", script.to_owned()),
        14..19 => ("EVALSHA", hex_digest(script.as_bytes())),
        _ => ("EVALSHA_RO", hex_digest(script.as_bytes()).to_uppercase()),
    };
    let count = keys.len().to_string().into_bytes();
    let mut words = vec![name.as_bytes().to_vec(), script.into_bytes(), count];
    words.extend(keys);
    words.extend(args);
    Command { terms, ..Command::new(words, Rule::Exact) }
}

fn around_a_command(generator: &mut Generator) -> Command {
    let around = &AROUND[generator.random.usize(..AROUND.len())];
    let command = generator.command();
    let terms = (around.terms)(command.terms);
    let declared = generator.random.bool();
    let keys = match command.words.get(1) {
        Some(key) if declared => vec![key.clone()],
        _ => Vec::new(),
    };
    call(generator, around.text, keys, command.words, terms)
}

fn usual(generator: &mut Generator) -> Command {
    let script = USUAL[generator.random.usize(..USUAL.len())];
    let kinds = ["s", "l", "h", "z", "t", "s", "s"];
    let keys = (0..generator.random.usize(1..3)).map(|_| {
        let kind = kinds[generator.random.usize(..kinds.len())];
        generator.key(kind)
    });
    let keys = keys.collect();
    let json = [
        "[1,2.5,\"x\",null,true]",
        "{\"a\":[],\"b\":{}}",
        "[1e400]",
        "{",
        "\"\\u00e9\"",
        "{\"a\":1",
    ];
    let args = (0..generator.random.usize(1..4)).map(|_| match generator.random.u32(..4) {
        0 => generator.pick(&json),
        _ => generator.value(),
    });
    let args = args.collect();
    call(generator, script, keys, args, Rule::Exact.into())
}

fn function(generator: &mut Generator) -> Command {
    if generator.random.u32(..3) == 0 {
        let library = LIBRARIES[generator.random.usize(..LIBRARIES.len())];
        let mut words: Vec<Vec<u8>> = vec![b"FUNCTION".to_vec(), b"LOAD".to_vec()];
        if generator.random.bool() {
            words.push(b"REPLACE".to_vec());
        }
        words.push(library.as_bytes().to_vec());
        return Command::new(words, Rule::Exact);
    }
    let inner = generator.command();
    let (name, terms) = match generator.random.u32(..5) {
        0 | 1 => ("f2", inner.terms.clone()),
        2 => ("f3", inner.terms.clone()),
        3 => (["f1", "f4", "f5"][generator.random.usize(..3)], Rule::Exact.into()),
        // A map of Lua's has no certain order.
        _ => ("f6", Rule::Deep.into()),
    };
    let how = if generator.random.u32(..4) == 0 { "FCALL_RO" } else { "FCALL" };
    let mut words: Vec<Vec<u8>> =
        vec![how.as_bytes().to_vec(), name.as_bytes().to_vec(), b"1".to_vec()];
    words.push(generator.key("h"));
    words.extend(inner.words);
    Command { terms, ..Command::new(words, Rule::Exact) }
}

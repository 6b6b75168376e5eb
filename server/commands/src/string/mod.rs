//! Strings: reading and replacing whole values.

mod conditional;
mod counter;
pub(crate) mod expiry_options;
mod lcs;
mod multi;
pub(crate) mod range;

use carnelian_keyspace::{EventClass, Expiry, Text};
use carnelian_resp::Writer;

use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};
use expiry_options::{ExpiryOption, TimeUnit};

const READ: KeyFlags = KeyFlags::RO.union(KeyFlags::ACCESS);
const MODIFY: KeyFlags = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE);

const READ_ONE: &[KeySpec] = &[KeySpec::range(READ, 1, 0, 1)];
const MODIFY_ONE: &[KeySpec] = &[KeySpec::range(MODIFY, 1, 0, 1)];
const OVERWRITE_ONE: &[KeySpec] = &[KeySpec::range(KeyFlags::OW.union(KeyFlags::UPDATE), 1, 0, 1)];

pub const TABLE: &[DataCommand] = &[
    GET,
    SET,
    SETNX,
    SETEX,
    PSETEX,
    GETSET,
    GETDEL,
    GETEX,
    STRLEN,
    multi::MGET,
    multi::MSET,
    multi::MSETNX,
    multi::MSETEX,
    conditional::DELIFEQ,
    counter::INCR,
    counter::DECR,
    counter::INCRBY,
    counter::DECRBY,
    counter::INCRBYFLOAT,
    range::APPEND,
    range::GETRANGE,
    range::SUBSTR,
    range::SETRANGE,
    lcs::LCS,
];

const GET: DataCommand = DataCommand {
    name: "get",
    summary: "Returns the string at a key.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::STRING,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: get,
};

/// `GET key`
fn get(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    reply_text(&mut call.reply, call.db.string(call.args[1])?);
    Ok(Effect::None)
}

/// A string as a reply.
pub(super) fn reply_text(reply: &mut Writer<'_>, text: Option<Text<'_>>) {
    match text {
        Some(Text::Bytes(bytes)) => reply.bulk(bytes),
        Some(Text::Integer(number)) => reply.bulk_integer(number),
        None => reply.null(),
    }
}

const STRLEN: DataCommand = DataCommand {
    name: "strlen",
    summary: "Returns the length of the string at a key.",
    since: "2.2.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::RO, 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: strlen,
};

/// `STRLEN key`
fn strlen(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let length = call.db.string(call.args[1])?.map_or(0, Text::len);
    call.reply.integer(length as i64);
    Ok(Effect::None)
}

/// When SET writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Always,
    IfMissing,
    IfPresent,
    /// IFEQ: if the key holds this string.
    IfEqual(&'a [u8]),
}

impl Condition<'_> {
    /// Whether a key meets it; an error if it is compared and not a string.
    fn is_met(self, call: &mut Call<'_>, key: &[u8]) -> Result<bool, CommandError> {
        Ok(match self {
            Self::Always => true,
            Self::IfMissing => !call.db.exists(key),
            Self::IfPresent => call.db.exists(key),
            Self::IfEqual(wanted) => conditional::holds(call, key, wanted)?,
        })
    }
}

struct SetOptions<'a> {
    condition: Condition<'a>,
    expiry: ExpiryOption<'a>,
    get: bool,
}

impl<'a> SetOptions<'a> {
    fn parse(words: &[&'a [u8]]) -> Result<Self, CommandError> {
        let mut options =
            Self { condition: Condition::Always, expiry: ExpiryOption::Unsaid, get: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            use Condition::{Always, IfEqual, IfMissing, IfPresent};
            if args::is(word, "NX") && matches!(options.condition, Always | IfMissing) {
                options.condition = IfMissing;
            } else if args::is(word, "XX") && matches!(options.condition, Always | IfPresent) {
                options.condition = IfPresent;
            } else if args::is(word, "IFEQ") && options.condition == Always {
                options.condition = IfEqual(words.next().ok_or(CommandError::Syntax)?);
            } else if args::is(word, "GET") {
                options.get = true;
            } else if !options.expiry.take(word, &mut words)? {
                return Err(CommandError::Syntax);
            }
        }
        // That one is GETEX's.
        if options.expiry == ExpiryOption::Persist {
            return Err(CommandError::Syntax);
        }
        Ok(options)
    }
}

const SET: DataCommand = DataCommand {
    name: "set",
    summary: "Makes a key hold a string, whatever it held before.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::STRING,
    keys: &[KeySpec::range(
        KeyFlags::RW
            .union(KeyFlags::ACCESS)
            .union(KeyFlags::UPDATE)
            .union(KeyFlags::VARIABLE_FLAGS),
        1,
        0,
        1,
    )],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: set,
};

/// `SET key value [NX | XX | IFEQ comparison] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`
///
/// A time in the past makes a key that has expired already: the next look removes it.
fn set(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, value) = (call.args[1], call.args[2]);
    if call.args.len() == 3 {
        store(call, key, value, Expiry::Clear);
        call.reply.ok();
        return Ok(Effect::Verbatim);
    }
    let options = SetOptions::parse(&call.args[3..])?;
    let expiry = options.expiry.resolve(call.now_ms(), "set")?;
    if options.get {
        reply_text(&mut call.reply, call.db.string(key)?);
    }
    if !options.condition.is_met(call, key)? {
        if !options.get {
            call.reply.null();
        }
        return Ok(Effect::None);
    }
    store(call, key, value, expiry);
    if !options.get {
        call.reply.ok();
    }
    Ok(match (options.expiry, expiry) {
        (ExpiryOption::At(TimeUnit::AtMilliseconds, _), _) => Effect::Verbatim,
        (_, Expiry::At(at)) => timed(call, key, value, at),
        _ if options.get => without_get(call),
        _ => Effect::Verbatim,
    })
}

/// Makes a key a string and tells of it.
fn store(call: &mut Call<'_>, key: &[u8], value: &[u8], expiry: Expiry) {
    call.db.set_string(key, value, expiry);
    call.notify(EventClass::String, "set", key);
    if let Expiry::At(_) = expiry {
        call.notify(EventClass::Generic, "expire", key);
    }
}

/// The effect of a SET with an expiry. Replicas run on their own clock, so they are sent the
/// absolute time.
fn timed(call: &Call<'_>, key: &[u8], value: &[u8], at: u64) -> Effect {
    if !call.db.changes.following {
        return Effect::Rewrite(call.rewrite());
    }
    call.rewritten(&[b"SET", key, value, b"PXAT", at.to_string().as_bytes()])
}

/// The effect of a SET with GET: replicas need not read what nobody asks them for.
fn without_get(call: &Call<'_>) -> Effect {
    let mut rewrite = call.rewrite();
    let asks = |word: &[u8]| args::is(word, "GET");
    let (fixed, options) = call.args.split_at(3);
    let count = fixed.len() + options.iter().filter(|word| !asks(word)).count();
    let options = options.iter().filter(|word| !asks(word));
    rewrite.command_of(count, fixed.iter().chain(options).copied());
    Effect::Rewrite(rewrite)
}

const SETNX: DataCommand = DataCommand {
    name: "setnx",
    summary: "Makes a key hold a string unless it is there.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::OW.union(KeyFlags::INSERT), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: setnx,
};

/// `SETNX key value`
fn setnx(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, value) = (call.args[1], call.args[2]);
    if call.db.exists(key) {
        call.reply.integer(0);
        return Ok(Effect::None);
    }
    store(call, key, value, Expiry::Clear);
    call.reply.integer(1);
    Ok(Effect::Verbatim)
}

const SETEX: DataCommand = DataCommand {
    name: "setex",
    summary: "Makes a key hold a string for some seconds.",
    since: "2.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 4,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::STRING,
    keys: OVERWRITE_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: setex,
};

/// `SETEX key seconds value`
fn setex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    set_for(call, TimeUnit::Seconds, "setex")
}

const PSETEX: DataCommand = DataCommand {
    name: "psetex",
    summary: "Makes a key hold a string for some milliseconds.",
    since: "2.6.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 4,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::STRING,
    keys: OVERWRITE_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: psetex,
};

/// `PSETEX key milliseconds value`
fn psetex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    set_for(call, TimeUnit::Milliseconds, "psetex")
}

fn set_for(
    call: &mut Call<'_>,
    unit: TimeUnit,
    command: &'static str,
) -> Result<Effect, CommandError> {
    let (key, amount, value) = (call.args[1], call.args[2], call.args[3]);
    let at = unit.positive_moment(amount, call.now_ms(), command)?;
    store(call, key, value, Expiry::At(at));
    call.reply.ok();
    Ok(timed(call, key, value, at))
}

const GETSET: DataCommand = DataCommand {
    name: "getset",
    summary: "Returns the string at a key after putting another there.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STRING,
    keys: MODIFY_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: getset,
};

/// `GETSET key value`
fn getset(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, value) = (call.args[1], call.args[2]);
    reply_text(&mut call.reply, call.db.string(key)?);
    store(call, key, value, Expiry::Clear);
    Ok(call.rewritten(&[b"SET", key, value]))
}

const GETDEL: DataCommand = DataCommand {
    name: "getdel",
    summary: "Returns the string at a key after removing it.",
    since: "6.2.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: getdel,
};

/// `GETDEL key`
fn getdel(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    reply_text(&mut call.reply, call.db.string(key)?);
    if !call.db.remove(key) {
        return Ok(Effect::None);
    }
    call.notify(EventClass::Generic, "del", key);
    Ok(call.rewritten(&[b"DEL", key]))
}

const GETEX: DataCommand = DataCommand {
    name: "getex",
    summary: "Returns the string at a key after changing its expiry.",
    since: "6.2.0",
    group: Group::String,
    complexity: "O(1)",
    arity: -2,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::STRING,
    keys: MODIFY_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: getex,
};

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`
fn getex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let mut option = ExpiryOption::Unsaid;
    let mut words = call.args[2..].iter();
    while let Some(word) = words.next() {
        if !option.take(word, &mut words)? || option == ExpiryOption::Keep {
            return Err(CommandError::Syntax);
        }
    }
    let text = call.db.string(key)?;
    let found = text.is_some();
    reply_text(&mut call.reply, text);
    if !found {
        return Ok(Effect::None);
    }
    match option {
        ExpiryOption::Unsaid | ExpiryOption::Keep => Ok(Effect::None),
        ExpiryOption::Persist => Ok(persist(call, key)),
        ExpiryOption::At(unit, amount) => {
            let at = unit.positive_moment(amount, call.now_ms(), "getex")?;
            Ok(expire(call, key, at))
        }
    }
}

fn persist(call: &mut Call<'_>, key: &[u8]) -> Effect {
    let Some(Some(_)) = call.db.expiry(key) else { return Effect::None };
    call.db.set_expiry(key, None);
    call.notify(EventClass::Generic, "persist", key);
    call.rewritten(&[b"PERSIST", key])
}

/// Sets the expiry of a key that is there, or removes the key if that time has passed.
fn expire(call: &mut Call<'_>, key: &[u8], at: u64) -> Effect {
    if at <= call.due_ms() {
        call.db.remove(key);
        call.notify(EventClass::Generic, "del", key);
        return call.rewritten(&[b"DEL", key]);
    }
    call.db.set_expiry(key, Some(at));
    call.notify(EventClass::Generic, "expire", key);
    if !call.db.changes.following {
        return Effect::Rewrite(call.rewrite());
    }
    call.rewritten(&[b"PEXPIREAT", key, at.to_string().as_bytes()])
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    /// Runs a request and returns what followers see of it.
    fn effects(bench: &mut Bench, request: &str) -> String {
        bench.effects.clear();
        bench.reply(request);
        String::from_utf8_lossy(&bench.effects).trim_end().replace("\r\n", " ")
    }

    #[test]
    fn set_and_get_agree() {
        let mut bench = Bench::new();
        bench.expect("GET k", "$-1");
        bench.expect("SET k v", "+OK");
        bench.expect("GET k", "$1 v");
        bench.expect("STRLEN k", ":1");
        bench.expect("SET k -12", "+OK");
        bench.expect("GET k", "$3 -12");
        bench.expect("STRLEN k", ":3");
        bench.expect("STRLEN missing", ":0");
        bench.expect("SET k v NX", "$-1");
        bench.expect("SET k v XX GET", "$3 -12");
        bench.expect("SET k w GET NX", "$1 v");
        bench.expect("GET k", "$1 v");
        bench.expect("SET new w GET NX", "$-1");
        bench.expect("GET new", "$1 w");
        bench.expect("SET gone w XX", "$-1");
        bench.expect("GETSET k 5", "$1 v");
        bench.expect("GETSET fresh 5", "$-1");
        bench.expect("SETNX k 6", ":0");
        bench.expect("SETNX nx 6", ":1");
        bench.expect("GETDEL k", "$1 5");
        bench.expect("GETDEL k", "$-1");
    }

    #[test]
    fn options_come_in_any_order_and_syntax_is_judged_first() {
        let mut bench = Bench::new();
        bench.expect("SET k v px 100 GET nx", "$-1");
        bench.expect("SET k v GET GET XX XX EX 10 EX 20", "$1 v");
        for request in [
            "SET k v NX XX",
            "SET k v EX",
            "SET k v EX 10 PX 10",
            "SET k v EX 10 KEEPTTL",
            "SET k v KEEPTTL PXAT 10",
            "SET k v PERSIST",
            "SET k v EX abc NONSENSE",
            "GETEX k KEEPTTL",
            "GETEX k EX 1 PERSIST",
            "GETEX k NX",
            "GETEX k EX abc NONSENSE",
        ] {
            bench.expect(request, "-ERR syntax error");
        }
        bench.expect("SET k v EX 0", "-ERR invalid expire time in 'set' command");
        bench.expect("SET k v NX EX -1", "-ERR invalid expire time in 'set' command");
        bench.expect("SET k v EX a", "-ERR value is not an integer or out of range");
        bench.expect("SETEX k 0 v", "-ERR invalid expire time in 'setex' command");
        bench.expect("PSETEX k -1 v", "-ERR invalid expire time in 'psetex' command");
        bench.expect("GETEX k EX 0", "-ERR invalid expire time in 'getex' command");
        bench.expect("GETEX missing EX 0", "$-1");
        bench.expect("GET k", "$1 v");
    }

    #[test]
    fn an_expiry_ends_the_key() {
        let mut bench = Bench::new();
        bench.expect("SET k v PX 100", "+OK");
        bench.now_ms += 99;
        bench.expect("GET k", "$1 v");
        bench.expect("SET k w KEEPTTL", "+OK");
        bench.now_ms += 1;
        bench.expect("GET k", "$-1");
        bench.expect("SETEX k 1 v", "+OK");
        bench.expect("GETEX k PERSIST", "$1 v");
        bench.now_ms += 1000;
        bench.expect("GETEX k PX 5", "$1 v");
        bench.now_ms += 5;
        bench.expect("GET k", "$-1");
        bench.expect("SET k v PXAT 1", "+OK");
        bench.expect("GET k", "$-1");
        bench.expect("SET k v PX 5", "+OK");
        bench.expect("SET k v", "+OK");
        bench.now_ms += 5;
        bench.expect("GETEX k EXAT 1", "$1 v");
        bench.expect("GET k", "$-1");
    }

    #[test]
    fn followers_see_absolute_times_and_plain_writes() {
        let mut bench = Bench::new();
        bench.now_ms = 1000;
        let set = "*5 $3 SET $1 k $1 v $4 PXAT $4";
        assert_eq!(effects(&mut bench, "SET k v EX 1 NX GET"), format!("{set} 2000"));
        assert_eq!(effects(&mut bench, "SETEX k 2 v"), format!("{set} 3000"));
        assert_eq!(effects(&mut bench, "PSETEX k 2 v"), format!("{set} 1002"));
        assert_eq!(effects(&mut bench, "SET k v get XX Get"), "*4 $3 SET $1 k $1 v $2 XX");
        assert_eq!(effects(&mut bench, "GETSET k v"), "*3 $3 SET $1 k $1 v");
        assert_eq!(effects(&mut bench, "GETEX k"), "");
        assert_eq!(effects(&mut bench, "GETEX k PERSIST"), "");
        let expire = "*3 $9 PEXPIREAT $1 k $4 2000";
        assert_eq!(effects(&mut bench, "GETEX k EX 1"), expire);
        assert_eq!(effects(&mut bench, "GETEX k PERSIST"), "*2 $7 PERSIST $1 k");
        assert_eq!(effects(&mut bench, "GETEX k PXAT 1000"), "*2 $3 DEL $1 k");
        bench.expect("SET k v", "+OK");
        assert_eq!(effects(&mut bench, "GETDEL k"), "*2 $3 DEL $1 k");
        assert_eq!(effects(&mut bench, "GETDEL k"), "");
    }
}

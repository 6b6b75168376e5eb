//! Several strings at once: MGET, MSET, MSETNX, MSETEX.

use carnelian_keyspace::Expiry;

use super::expiry_options::{ExpiryOption, TimeUnit};
use super::{READ, reply_text};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{Begin, Find, KeyFlags, KeySpec};

pub(super) const MGET: DataCommand = DataCommand {
    name: "mget",
    summary: "Returns the strings at several keys.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(N) in the number of keys",
    arity: -2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::STRING,
    keys: &[KeySpec::range(READ, 1, -1, 1)],
    tips: &["request_policy:multi_shard"],
    scope: Scope::Keys,
    subcommands: &[],
    run: mget,
};

/// `MGET key [key ...]`: keys of another type read as missing.
fn mget(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let keys = &call.args[1..];
    call.reply.array(keys.len());
    for key in keys {
        reply_text(&mut call.reply, call.db.string(key).unwrap_or(None));
    }
    Ok(Effect::None)
}

pub(super) const MSET: DataCommand = DataCommand {
    name: "mset",
    summary: "Makes several keys hold strings, whatever they held before.",
    since: "1.0.1",
    group: Group::String,
    complexity: "O(N) in the number of keys",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::OW.union(KeyFlags::UPDATE), 1, -1, 2)],
    tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
    scope: Scope::Keys,
    subcommands: &[],
    run: mset,
};

/// `MSET key value [key value ...]`
fn mset(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let pairs = pairs(call, "mset")?;
    store(call, pairs, Expiry::Clear);
    call.reply.ok();
    Ok(Effect::Verbatim)
}

pub(super) const MSETNX: DataCommand = DataCommand {
    name: "msetnx",
    summary: "Makes several keys hold strings unless any of them is there.",
    since: "1.0.1",
    group: Group::String,
    complexity: "O(N) in the number of keys",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::OW.union(KeyFlags::INSERT), 1, -1, 2)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: msetnx,
};

/// `MSETNX key value [key value ...]`
fn msetnx(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let pairs = pairs(call, "msetnx")?;
    if pairs.iter().any(|[key, _]| call.db.exists(key)) {
        call.reply.integer(0);
        return Ok(Effect::None);
    }
    store(call, pairs, Expiry::Clear);
    call.reply.integer(1);
    Ok(Effect::Verbatim)
}

pub(super) const MSETEX: DataCommand = DataCommand {
    name: "msetex",
    summary: "Makes several keys hold strings, perhaps for some time, perhaps on a condition.",
    since: "8.4.0",
    group: Group::String,
    complexity: "O(N) in the number of keys",
    arity: -4,
    flags: Flags::DENYOOM.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    categories: Categories::STRING,
    keys: &[KeySpec {
        flags: KeyFlags::OW.union(KeyFlags::UPDATE),
        begin: Begin::Index(1),
        find: Find::Count { count: 0, first: 1, step: 2 },
    }],
    tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
    scope: Scope::Keys,
    subcommands: &[],
    run: msetex,
};

/// `MSETEX numkeys key value [key value ...] [NX | XX] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`
fn msetex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let request = call.args;
    let refused = || CommandError::text("ERR invalid numkeys value or out of range");
    let count = args::int(request[1]).ok().and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|&count| count != 0).ok_or_else(refused)?;
    let words = &request[2..];
    let (words, rest) = words.split_at_checked(count * 2).ok_or(CommandError::Syntax)?;
    let pairs = words.as_chunks().0;
    let (mut expiry, mut wanted) = (ExpiryOption::Unsaid, None);
    let mut options = rest.iter();
    while let Some(word) = options.next() {
        if args::is(word, "NX") && wanted != Some(true) {
            wanted = Some(false);
        } else if args::is(word, "XX") && wanted != Some(false) {
            wanted = Some(true);
        } else if !expiry.take(word, &mut options)? || expiry == ExpiryOption::Persist {
            return Err(CommandError::Syntax);
        }
    }
    let resolved = expiry.resolve(call.now_ms(), "msetex")?;
    let held =
        wanted.is_none_or(|present| pairs.iter().all(|[key, _]| call.db.exists(key) == present));
    call.reply.integer(held.into());
    if !held {
        return Ok(Effect::None);
    }
    store(call, pairs, resolved);
    Ok(match (expiry, resolved) {
        (ExpiryOption::At(TimeUnit::AtMilliseconds, _), _) => Effect::Verbatim,
        (_, Expiry::At(at)) => {
            // Replicas run on their own clock, so they are sent the absolute time.
            let mut rewrite = call.rewrite();
            let at = at.to_string();
            let until: [&[u8]; 2] = [b"PXAT", at.as_bytes()];
            let fixed = &request[..2 + words.len()];
            rewrite.command_of(fixed.len() + 2, fixed.iter().copied().chain(until));
            Effect::Rewrite(rewrite)
        }
        _ => Effect::Verbatim,
    })
}

fn pairs<'c>(call: &Call<'c>, command: &'static str) -> Result<&'c [[&'c [u8]; 2]], CommandError> {
    match call.args[1..].as_chunks() {
        (pairs, []) => Ok(pairs),
        _ => Err(CommandError::Arity(command.into())),
    }
}

fn store(call: &mut Call<'_>, pairs: &[[&[u8]; 2]], expiry: Expiry) {
    for [key, value] in pairs {
        super::store(call, key, value, expiry);
    }
    call.dirty(pairs.len());
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn many_are_set_and_read_in_order() {
        let mut bench = Bench::new();
        bench.expect("MSET a 1 b x a 2", "+OK");
        bench.expect("MGET a b c a", "*4 $1 2 $1 x $-1 $1 2");
        bench.expect("MSETNX c 1 b 2", ":0");
        bench.expect("MSETNX c 1 c 2", ":1");
        bench.expect("MGET b c", "*2 $1 x $1 2");
    }

    #[test]
    fn many_are_set_for_some_time() {
        let mut bench = Bench::new();
        bench.expect("MSETEX 2 a b c d NX", ":1");
        bench.expect("MSETEX 2 a b z d NX", ":0");
        bench.expect("MSETEX 2 a b z d XX", ":0");
        bench.expect("MSETEX 2 a b c dd EX 10 XX", ":1");
        bench.expect("TTL c", ":10");
        let effect = "*8 $6 MSETEX $1 2 $1 a $1 b $1 c $2 dd $4 PXAT $13 1700000010000 ";
        assert_eq!(String::from_utf8_lossy(&bench.effects).replace("\r\n", " "), effect);
        bench.expect("MSETEX 2 a 1 a 2 KEEPTTL", ":1");
        bench.expect("TTL a", ":10");
        for count in ["0", "-1", "x", "99999999999"] {
            let error = "-ERR invalid numkeys value or out of range";
            bench.expect(&format!("MSETEX {count} a b"), error);
        }
        for rest in
            ["2147483647 a 1", "1 a 1 FOO", "1 a 1 NX XX", "1 a 1 EX 1 KEEPTTL", "1 a 1 PERSIST"]
        {
            bench.expect(&format!("MSETEX {rest}"), "-ERR syntax error");
        }
        bench.expect("MSETEX 1 a 1 EX 0", "-ERR invalid expire time in 'msetex' command");
        bench.expect("MSETEX 1 a 1 EX x", "-ERR value is not an integer or out of range");
    }

    #[test]
    fn half_a_pair_is_refused() {
        let mut bench = Bench::new();
        bench.expect("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command");
        bench.expect("MSETNX a 1 b", "-ERR wrong number of arguments for 'msetnx' command");
        bench.expect("GET a", "$-1");
    }
}

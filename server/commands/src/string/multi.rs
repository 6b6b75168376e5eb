//! Several strings at once: MGET, MSET, MSETNX.

use carnelian_keyspace::{EventClass, Expiry};

use super::{READ, reply_text};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

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
    store(call, pairs);
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
    store(call, pairs);
    call.reply.integer(1);
    Ok(Effect::Verbatim)
}

fn pairs<'c>(call: &Call<'c>, command: &'static str) -> Result<&'c [[&'c [u8]; 2]], CommandError> {
    match call.args[1..].as_chunks() {
        (pairs, []) => Ok(pairs),
        _ => Err(CommandError::Arity(command.into())),
    }
}

fn store(call: &mut Call<'_>, pairs: &[[&[u8]; 2]]) {
    for [key, value] in pairs {
        call.db.set_string(key, value, Expiry::Clear);
        call.notify(EventClass::String, "set", key);
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
    fn half_a_pair_is_refused() {
        let mut bench = Bench::new();
        bench.expect("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command");
        bench.expect("MSETNX a 1 b", "-ERR wrong number of arguments for 'msetnx' command");
        bench.expect("GET a", "$-1");
    }
}

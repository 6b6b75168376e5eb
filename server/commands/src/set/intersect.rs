//! What sets have in common: SINTER, SINTERCARD, SINTERSTORE.

use std::ops::ControlFlow;

use carnelian_structs::intset::Intset;
use carnelian_structs::listpack::{Element, Listpack};
use carnelian_structs::set::{Set, SetLimits};
use smallvec::SmallVec;

use super::operands::{Operands, settle, store};
use super::{READ_ALL, STORE, limits};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::element;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const SINTER: DataCommand = DataCommand {
    name: "sinter",
    summary: "Returns the members that several sets have in common.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(N*M) for N members in the smallest of M sets",
    arity: -2,
    flags: Flags::READONLY,
    categories: Categories::SET,
    keys: READ_ALL,
    tips: &["nondeterministic_output_order"],
    scope: Scope::Keys,
    subcommands: &[],
    run: sinter,
};

pub(super) const SINTERCARD: DataCommand = DataCommand {
    name: "sintercard",
    summary: "Counts the members that several sets have in common.",
    since: "7.0.0",
    group: Group::Set,
    complexity: "O(N*M) for N members in the smallest of M sets",
    arity: -3,
    flags: Flags::MOVABLEKEYS.union(Flags::READONLY),
    categories: Categories::SET,
    keys: &[KeySpec::counted(KeyFlags::RO.union(KeyFlags::ACCESS), 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: sintercard,
};

pub(super) const SINTERSTORE: DataCommand = DataCommand {
    name: "sinterstore",
    summary: "Stores the members that several sets have in common.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(N*M) for N members in the smallest of M sets",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::SET,
    keys: STORE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: sinterstore,
};

/// `SINTER key [key ...]`
fn sinter(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let keys = &call.args[1..];
    settle(call, keys)?;
    let operands = Operands::open(&call.db, keys)?;
    let reply = &mut call.reply;
    let mark = reply.defer();
    let mut count = 0;
    if let Some(sets) = smallest_first(&operands) {
        for_common(&sets, |member| {
            element::bulk(reply, member);
            count += 1;
            ControlFlow::Continue(())
        });
    }
    reply.finish_set(mark, count);
    Ok(Effect::None)
}

/// `SINTERCARD numkeys key [key ...] [LIMIT limit]`
fn sintercard(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (keys, limit) = counted_keys(call.args)?;
    settle(call, keys)?;
    let operands = Operands::open(&call.db, keys)?;
    let mut count = 0;
    if let Some(sets) = smallest_first(&operands) {
        for_common(&sets, |_| {
            count += 1;
            if count == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }
    call.reply.integer(count as i64);
    Ok(Effect::None)
}

/// The keys and the limit (0 for none) of SINTERCARD.
fn counted_keys<'w>(words: &'w [&'w [u8]]) -> Result<(&'w [&'w [u8]], u64), CommandError> {
    let keys = args::positive(words[1]).ok().filter(|&keys| keys != 0);
    let refused = || CommandError::text("ERR numkeys should be greater than 0");
    let keys = usize::try_from(keys.ok_or_else(refused)?).unwrap_or(usize::MAX);
    if words.len() - 2 < keys {
        let text = "ERR Number of keys can't be greater than number of args";
        return Err(CommandError::text(text));
    }
    let (keys, options) = words[2..].split_at(keys);
    let mut limit = 0;
    let mut options = options.iter();
    while let Some(word) = options.next() {
        let value = options.next().filter(|_| args::is(word, "LIMIT"));
        let value = value.ok_or(CommandError::Syntax)?;
        let refused = |_| CommandError::text("ERR LIMIT can't be negative");
        limit = args::positive(value).map_err(refused)?;
    }
    Ok((keys, limit))
}

/// `SINTERSTORE destination key [key ...]`
fn sinterstore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (destination, keys) = (call.args[1], &call.args[2..]);
    let limits = limits(call);
    settle(call, keys)?;
    let result = common(&Operands::open(&call.db, keys)?, limits);
    Ok(store(call, destination, result, "sinterstore"))
}

/// The set of what is in common.
fn common(operands: &Operands<'_>, limits: SetLimits) -> Set {
    let mut result = Set::Listpack(Listpack::new());
    if let Some(sets) = smallest_first(operands) {
        if matches!(sets[0], Set::Intset(_)) {
            result = Set::Intset(Intset::new());
        }
        let mut integers = true;
        for_common(&sets, |member| {
            integers = integers && member.to_i64().is_some();
            result.insert_element(member, limits);
            ControlFlow::Continue(())
        });
        if integers {
            result.try_intset(limits);
        }
    }
    result
}

/// The sets in the order in which to look; `None` if a key is missing, and nothing in common.
fn smallest_first<'s>(operands: &'s Operands<'_>) -> Option<SmallVec<[&'s Set; 8]>> {
    let mut sets: SmallVec<[&Set; 8]> = operands.sets().collect::<Option<_>>()?;
    sets.sort_by_key(|set| set.len());
    Some(sets)
}

/// Shows `visit` every member of the first set that the others have too.
fn for_common(sets: &[&Set], mut visit: impl FnMut(Element<'_>) -> ControlFlow<()>) {
    let Some((first, others)) = sets.split_first() else { return };
    let _ = first
        .iter()
        .filter(|&member| others.iter().all(|set| set.contains_element(member)))
        .try_for_each(&mut visit);
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;
    use carnelian_structs::set::Set;

    use crate::bench::Bench;

    #[test]
    fn sinter_finds_what_all_have() {
        let mut bench = Bench::new();
        bench.expect("SADD a 1 2 3 4", ":4");
        bench.expect("SADD b 2 3 x", ":3");
        bench.expect("SADD c 3 2", ":2");
        bench.expect("SINTER a b c", "*2 $1 2 $1 3");
        bench.expect("SINTER a a", "*4 $1 1 $1 2 $1 3 $1 4");
        bench.expect("SINTER a missing", "*0");
        bench.expect("SINTERCARD 3 a b c", ":2");
        bench.expect("SINTERCARD 2 a a LIMIT 3", ":3");
        bench.expect("SINTERCARD 2 a a LIMIT 0", ":4");
        bench.expect("SINTERCARD 2 a missing", ":0");
        bench.protocol = Protocol::Resp3;
        bench.expect("SINTER a b c", "~2 $1 2 $1 3");
        bench.expect("SINTER a missing", "~0");
    }

    #[test]
    fn a_wrong_type_is_found_behind_a_missing_key() {
        let mut bench = Bench::new();
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("SET str x", "+OK");
        bench.expect("SINTER missing str", wrong);
        bench.expect("SINTERCARD 2 missing str", wrong);
        bench.expect("SINTERSTORE d missing str", wrong);
    }

    #[test]
    fn sintercard_refuses_what_makes_no_sense() {
        let mut bench = Bench::new();
        bench.expect("SINTERCARD 0 a", "-ERR numkeys should be greater than 0");
        bench.expect("SINTERCARD x a", "-ERR numkeys should be greater than 0");
        let text = "-ERR Number of keys can't be greater than number of args";
        bench.expect("SINTERCARD 3 a b", text);
        bench.expect("SINTERCARD 9223372036854775807 a b", text);
        bench.expect("SINTERCARD 1 a LIMIT", "-ERR syntax error");
        bench.expect("SINTERCARD 1 a FOO 1", "-ERR syntax error");
        bench.expect("SINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative");
    }

    #[test]
    fn a_stored_result_is_as_small_as_it_can_be() {
        let mut bench = Bench::new();
        bench.expect("SADD a 1 2 x", ":3");
        bench.expect("SADD b 1 2 y z", ":4");
        bench.expect("SADD c x", ":1");
        bench.expect("SET d old", "+OK");
        bench.expect("SINTERSTORE d a b", ":2");
        assert_eq!(bench.look("d", Set::encoding), "intset");
        bench.expect("SINTERSTORE d a c", ":1");
        assert_eq!(bench.look("d", Set::encoding), "listpack");
        bench.events.clear();
        bench.expect("SINTERSTORE d a b", ":2");
        bench.expect("SINTERSTORE d c b", ":0");
        bench.expect("SINTERSTORE d c b", ":0");
        assert_eq!(bench.events, ["sinterstore d", "del d"]);
        bench.expect("SCARD d", ":0");
    }
}

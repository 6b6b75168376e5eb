//! Members of any of several sets, or of one and no other: SUNION, SDIFF and their STORE forms.

use carnelian_structs::intset::Intset;
use carnelian_structs::listpack::Element;
use carnelian_structs::set::{Set, SetLimits};
use smallvec::SmallVec;

use super::operands::{Operands, settle, store};
use super::{READ_ALL, STORE, limits};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::element;
use crate::error::CommandError;

pub(super) const SUNION: DataCommand = DataCommand {
    name: "sunion",
    summary: "Returns the members of several sets.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(N) for N members in all sets",
    arity: -2,
    flags: Flags::READONLY,
    categories: Categories::SET,
    keys: READ_ALL,
    tips: &["nondeterministic_output_order"],
    scope: Scope::Keys,
    subcommands: &[],
    run: sunion,
};

pub(super) const SUNIONSTORE: DataCommand = DataCommand {
    name: "sunionstore",
    summary: "Stores the members of several sets.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(N) for N members in all sets",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::SET,
    keys: STORE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: sunionstore,
};

pub(super) const SDIFF: DataCommand = DataCommand {
    name: "sdiff",
    summary: "Returns the members of one set that others do not have.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(N) for N members in all sets",
    arity: -2,
    flags: Flags::READONLY,
    categories: Categories::SET,
    keys: READ_ALL,
    tips: &["nondeterministic_output_order"],
    scope: Scope::Keys,
    subcommands: &[],
    run: sdiff,
};

pub(super) const SDIFFSTORE: DataCommand = DataCommand {
    name: "sdiffstore",
    summary: "Stores the members of one set that others do not have.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(N) for N members in all sets",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::SET,
    keys: STORE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: sdiffstore,
};

/// `SUNION key [key ...]`
fn sunion(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let keys = &call.args[1..];
    let limits = limits(call);
    settle(call, keys)?;
    let operands = Operands::open(&call.db, keys)?;
    let mut result = workspace(&operands);
    unite(&operands, &mut result, limits);
    call.reply.set(result.len());
    result.iter().for_each(|member| element::bulk(&mut call.reply, member));
    Ok(Effect::None)
}

/// `SUNIONSTORE destination key [key ...]`
fn sunionstore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (destination, keys) = (call.args[1], &call.args[2..]);
    let limits = limits(call);
    settle(call, keys)?;
    let mut result = Set::Intset(Intset::new());
    unite(&Operands::open(&call.db, keys)?, &mut result, limits);
    Ok(store(call, destination, result, "sunionstore"))
}

/// Adds the members of all sets to `result`.
fn unite(operands: &Operands<'_>, result: &mut Set, limits: SetLimits) {
    for member in operands.sets().flatten().flat_map(Set::iter) {
        result.insert_element(member, limits);
    }
}

/// `SDIFF key [key ...]`
fn sdiff(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let keys = &call.args[1..];
    let limits = limits(call);
    settle(call, keys)?;
    let operands = Operands::open(&call.db, keys)?;
    let reply = &mut call.reply;
    match Difference::plan(keys, &operands) {
        Difference::Empty => reply.set(0),
        Difference::Lookup { first, others } => {
            let mark = reply.defer();
            let mut count = 0;
            for_remaining(first, &others, |member| {
                element::bulk(reply, member);
                count += 1;
            });
            reply.finish_set(mark, count);
        }
        Difference::Removal { first, others } => {
            let mut result = workspace(&operands);
            subtract(first, &others, &mut result, limits);
            reply.set(result.len());
            result.iter().for_each(|member| element::bulk(reply, member));
        }
    }
    Ok(Effect::None)
}

/// `SDIFFSTORE destination key [key ...]`
fn sdiffstore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (destination, keys) = (call.args[1], &call.args[2..]);
    let limits = limits(call);
    settle(call, keys)?;
    let mut result = Set::Intset(Intset::new());
    match Difference::plan(keys, &Operands::open(&call.db, keys)?) {
        Difference::Empty => {}
        Difference::Lookup { first, others } => for_remaining(first, &others, |member| {
            result.insert_element(member, limits);
        }),
        Difference::Removal { first, others } => subtract(first, &others, &mut result, limits),
    }
    Ok(store(call, destination, result, "sdiffstore"))
}

type Sets<'s> = SmallVec<[&'s Set; 8]>;

/// How to take sets from the first one.
enum Difference<'s> {
    Empty,
    /// Look up each member of the first in the others: their sizes do not matter.
    Lookup {
        first: &'s Set,
        others: Sets<'s>,
    },
    /// Remove the members of the others from a copy of the first: their number does not matter.
    Removal {
        first: &'s Set,
        others: Sets<'s>,
    },
}

impl<'s> Difference<'s> {
    fn plan(keys: &[&[u8]], operands: &'s Operands<'_>) -> Self {
        let mut sets = operands.sets();
        let first = sets.next().flatten().filter(|_| !keys[1..].contains(&keys[0]));
        let Some(first) = first else { return Self::Empty };
        let mut others: Sets<'s> = sets.flatten().collect();
        let lookups = first.len() * (1 + others.len());
        let removals = first.len() + others.iter().map(|set| set.len()).sum::<usize>();
        // A member that many sets have costs a few lookups only.
        if removals < lookups / 2 {
            return Self::Removal { first, others };
        }
        others.sort_by_key(|set| std::cmp::Reverse(set.len()));
        Self::Lookup { first, others }
    }
}

/// Shows `visit` the members of `first` that the others do not have.
fn for_remaining(first: &Set, others: &[&Set], visit: impl FnMut(Element<'_>)) {
    first
        .iter()
        .filter(|&member| !others.iter().any(|set| set.contains_element(member)))
        .for_each(visit);
}

/// The same, into `result`.
fn subtract(first: &Set, others: &[&Set], result: &mut Set, limits: SetLimits) {
    for member in first.iter() {
        result.insert_element(member, limits);
    }
    for member in others.iter().flat_map(|set| set.iter()) {
        if result.remove_element(member) && result.is_empty() {
            return;
        }
    }
}

/// An empty set to work in. A table unless all is integers: a listpack is slow to search.
fn workspace(operands: &Operands<'_>) -> Set {
    if operands.all_intsets() { Set::Intset(Intset::new()) } else { Set::large() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use carnelian_resp::Protocol;
    use carnelian_structs::set::Set;

    use super::*;
    use crate::bench::Bench;

    #[test]
    fn unions_and_differences() {
        let mut bench = Bench::new();
        bench.expect("SADD a 1 2 3", ":3");
        bench.expect("SADD b 3 4", ":2");
        bench.expect("SUNION a b missing", "*4 $1 1 $1 2 $1 3 $1 4");
        bench.expect("SDIFF a b missing", "*2 $1 1 $1 2");
        bench.expect("SDIFF missing a", "*0");
        bench.expect("SDIFF a b a", "*0");
        bench.expect("SDIFF a", "*3 $1 1 $1 2 $1 3");
        bench.expect("SUNION missing", "*0");
        bench.protocol = Protocol::Resp3;
        bench.expect("SUNION a b", "~4 $1 1 $1 2 $1 3 $1 4");
        bench.expect("SDIFF a b", "~2 $1 1 $1 2");
        bench.expect("SDIFF a a", "~0");
    }

    #[test]
    fn results_are_stored_over_whatever_was_there() {
        let mut bench = Bench::new();
        bench.expect("SADD a 1 2 x", ":3");
        bench.expect("SADD b x y", ":2");
        bench.expect("SET d old", "+OK");
        bench.events.clear();
        bench.expect("SUNIONSTORE d a b", ":4");
        assert_eq!(bench.look("d", Set::encoding), "listpack");
        bench.expect("SDIFFSTORE d a b", ":2");
        assert_eq!(bench.look("d", Set::encoding), "intset");
        bench.expect("SDIFFSTORE a a b", ":2");
        bench.expect("SMEMBERS a", "*2 $1 1 $1 2");
        bench.expect("SDIFFSTORE d a a", ":0");
        bench.expect("SUNIONSTORE d missing", ":0");
        assert_eq!(bench.events, ["sunionstore d", "sdiffstore d", "sdiffstore a", "del d"]);
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("SET str x", "+OK");
        bench.expect("SUNIONSTORE d a str", wrong);
        bench.expect("SDIFF missing str", wrong);
    }

    #[test]
    fn both_ways_to_subtract_agree() {
        let limits = SetLimits { intset_entries: 8, listpack_entries: 16, listpack_value: 8 };
        let set = |members: &mut dyn Iterator<Item = usize>| {
            let mut set = Set::Intset(Intset::new());
            members.for_each(|n| _ = set.insert(format!("m{n}").as_bytes(), limits));
            set
        };
        let first = set(&mut (0..100));
        let others = [set(&mut (0..10)), set(&mut (50..100).step_by(2)), set(&mut (90..200))];
        let others: Vec<&Set> = others.iter().collect();
        let mut found = BTreeSet::new();
        for_remaining(&first, &others, |member| _ = found.insert(member.to_vec()));
        let mut result = Set::large();
        subtract(&first, &others, &mut result, limits);
        assert_eq!(result.iter().map(|member| member.to_vec()).collect::<BTreeSet<_>>(), found);
        assert_eq!(found.len(), 60);
    }
}

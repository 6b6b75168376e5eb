//! The sorted set commands that wait for a member: BZPOPMIN, BZPOPMAX, BZMPOP.

use carnelian_keyspace::Kind;

use super::pop::{Ask, End, Shape, pop, pop_from_first};
use crate::blocking::{deadline, wait_for};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

const TAKE: KeyFlags = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE);
/// All words but the last, which is the time limit.
const TAKE_ANY: &[KeySpec] = &[KeySpec::range(TAKE, 1, -2, 1)];

pub(super) const BZPOPMIN: DataCommand = DataCommand {
    name: "bzpopmin",
    summary: "Removes and returns the member with the lowest score, or waits for one.",
    since: "5.0.0",
    group: Group::SortedSet,
    complexity: "O(log(N)), with N members in the sorted set",
    arity: -3,
    flags: Flags::BLOCKING.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: TAKE_ANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: bzpopmin,
};

pub(super) const BZPOPMAX: DataCommand = DataCommand {
    name: "bzpopmax",
    summary: "Removes and returns the member with the highest score, or waits for one.",
    since: "5.0.0",
    group: Group::SortedSet,
    complexity: "O(log(N)), with N members in the sorted set",
    arity: -3,
    flags: Flags::BLOCKING.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: TAKE_ANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: bzpopmax,
};

pub(super) const BZMPOP: DataCommand = DataCommand {
    name: "bzmpop",
    summary: "Removes and returns members of the first sorted set there is, or waits for some.",
    since: "7.0.0",
    group: Group::SortedSet,
    complexity: "O(K) + O(M*log(N)), with K keys, N members in the sorted set and M removed",
    arity: -5,
    flags: Flags::BLOCKING.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: &[KeySpec::counted(TAKE, 2)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: bzmpop,
};

/// `BZPOPMIN key [key ...] timeout`
fn bzpopmin(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    pop_or_wait(call, End::Min)
}

/// `BZPOPMAX key [key ...] timeout`
fn bzpopmax(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    pop_or_wait(call, End::Max)
}

fn pop_or_wait(call: &mut Call<'_>, end: End) -> Result<Effect, CommandError> {
    let request = call.args;
    let (keys, limit) = (&request[1..request.len() - 1], request[request.len() - 1]);
    let deadline_ms = deadline(call, limit)?;
    for key in keys {
        if pop(call, key, end, 1, Shape::Single)?.is_some() {
            return Ok(call.rewritten(&[end.command(), key]));
        }
    }
    Ok(wait_for(call, keys, Kind::SortedSet, deadline_ms))
}

/// `BZMPOP timeout numkeys key [key ...] MIN | MAX [COUNT count]`
fn bzmpop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let ask = Ask::parse(&call.args[1..])?;
    let deadline_ms = deadline(call, call.args[1])?;
    match pop_from_first(call, &ask)? {
        Some(effect) => Ok(effect),
        None => Ok(wait_for(call, ask.keys, Kind::SortedSet, deadline_ms)),
    }
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use super::*;
    use crate::bench::Bench;

    #[test]
    fn what_is_there_is_taken_at_once() {
        let mut bench = Bench::new();
        bench.expect("ZADD b 1 v 2 w 3 x 4 y 5 z", ":5");
        bench.expect("BZPOPMIN a b 0", "*3 $1 b $1 v $1 1");
        bench.expect("BZPOPMAX a b 0", "*3 $1 b $1 z $1 5");
        bench.expect("BZMPOP 0 2 a b MAX COUNT 2", "*2 $1 b *2 *2 $1 y $1 4 *2 $1 x $1 3");
        bench.protocol = Protocol::Resp3;
        bench.expect("BZPOPMIN b 0", "*3 $1 b $1 w ,2");
        let effects = String::from_utf8_lossy(&bench.effects).replace("\r\n", " ");
        assert_eq!(
            effects,
            "*2 $7 ZPOPMIN $1 b *2 $7 ZPOPMAX $1 b *3 $7 ZPOPMAX $1 b $1 2 *2 $7 ZPOPMIN $1 b "
        );
        assert_eq!(
            bench.events,
            ["new b", "zadd b", "zpopmin b", "zpopmax b", "zpopmax b", "zpopmin b", "del b"]
        );
    }

    #[test]
    fn what_is_not_there_is_waited_for() {
        let mut bench = Bench::new();
        for request in ["BZPOPMIN k 0", "BZPOPMAX k j 1", "BZMPOP 0 1 k MIN"] {
            bench.expect(request, "*-1");
        }
        bench.may_block = true;
        let (effect, _) = bench.run(bzmpop, "BZMPOP 2 2 k j MIN COUNT 3");
        let Effect::Wait(wait) = effect else { panic!("{effect:?}") };
        assert_eq!((wait.keys.len(), wait.kind), (2, Some(Kind::SortedSet)));
        assert_eq!(wait.deadline_ms, Some(bench.now_ms + 2000));
    }

    #[test]
    fn other_types_and_words_are_refused() {
        let mut bench = Bench::new();
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("SET s x", "+OK");
        bench.expect("BZPOPMIN a s 0", wrong);
        bench.expect("BZMPOP 0 2 a s MIN", wrong);
        bench.expect("BZPOPMIN s x", "-ERR timeout is not a float or out of range");
        bench.expect("BZMPOP x 0 a MIN", "-ERR numkeys should be greater than 0");
        bench.expect("BZMPOP x 1 a MIN COUNT", "-ERR syntax error");
        bench.expect("BZMPOP -1 1 a MIN", "-ERR timeout is negative");
    }
}

//! Removing members: by name, or all in a range.

use std::ops::Range;

use carnelian_keyspace::EventClass;
use carnelian_structs::sorted_set::SortedSet;

use super::DELETE_FROM;
use super::lex::lex_range;
use super::range::score_range;
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const ZREM: DataCommand = DataCommand {
    name: "zrem",
    summary: "Removes members.",
    since: "1.2.0",
    group: Group::SortedSet,
    complexity: "O(M*log(N)), with N members in the sorted set and M to remove",
    arity: -3,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: DELETE_FROM,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrem,
};

pub(super) const ZREMRANGEBYRANK: DataCommand = DataCommand {
    name: "zremrangebyrank",
    summary: "Removes the members in a range of ranks.",
    since: "2.0.0",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M removed",
    arity: 4,
    flags: Flags::WRITE,
    categories: Categories::SORTEDSET,
    keys: DELETE_FROM,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zremrangebyrank,
};

pub(super) const ZREMRANGEBYSCORE: DataCommand = DataCommand {
    name: "zremrangebyscore",
    summary: "Removes the members in a range of scores.",
    since: "1.2.0",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M removed",
    arity: 4,
    flags: Flags::WRITE,
    categories: Categories::SORTEDSET,
    keys: DELETE_FROM,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zremrangebyscore,
};

pub(super) const ZREMRANGEBYLEX: DataCommand = DataCommand {
    name: "zremrangebylex",
    summary: "Removes the members in a range of names.",
    since: "2.8.9",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M removed",
    arity: 4,
    flags: Flags::WRITE,
    categories: Categories::SORTEDSET,
    keys: DELETE_FROM,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zremrangebylex,
};

/// `ZREM key member [member ...]`
fn zrem(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let members = &call.args[2..];
    remove(call, "zrem", |set| {
        let mut removed = 0;
        for member in members {
            removed += usize::from(set.remove(member));
        }
        removed
    })
}

/// `ZREMRANGEBYRANK key start stop`
fn zremrangebyrank(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (start, stop) = (args::integer(call.args[2])?, args::integer(call.args[3])?);
    remove_range(call, "zremrangebyrank", |set| {
        args::range(start, stop, set.len()).map_or(0..0, |(start, stop)| start..stop + 1)
    })
}

/// `ZREMRANGEBYSCORE key min max`
fn zremrangebyscore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let range = score_range(call.args[2], call.args[3])?;
    remove_range(call, "zremrangebyscore", |set| set.ranks_by_score(&range))
}

/// `ZREMRANGEBYLEX key min max`
fn zremrangebylex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let range = lex_range(call.args[2], call.args[3])?;
    remove_range(call, "zremrangebylex", |set| set.ranks_by_lex(&range))
}

fn remove_range(
    call: &mut Call<'_>,
    event: &'static str,
    ranks: impl FnOnce(&SortedSet) -> Range<usize>,
) -> Result<Effect, CommandError> {
    remove(call, event, |set| {
        let ranks = ranks(set);
        set.remove_ranks(ranks)
    })
}

fn remove(
    call: &mut Call<'_>,
    event: &'static str,
    remove: impl FnOnce(&mut SortedSet) -> usize,
) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let Some(mut set) = call.db.write_as::<SortedSet>(key)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    let removed = remove(&mut set);
    call.reply.integer(removed as i64);
    if removed == 0 {
        set.unchanged();
        return Ok(Effect::None);
    }
    let last = set.is_empty();
    drop(set);
    call.dirty(removed);
    call.notify(EventClass::SortedSet, event, key);
    if last {
        call.notify(EventClass::Generic, "del", key);
    }
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use super::zrem;
    use crate::bench::Bench;
    use crate::effect::Effect;

    #[test]
    fn members_go_by_name() {
        let mut bench = Bench::new();
        bench.expect("ZADD k 1 a 2 b 3 c", ":3");
        assert_eq!(bench.run(zrem, "ZREM k x"), (Effect::None, ":0\r\n".into()));
        assert_eq!(bench.run(zrem, "ZREM k a x a b"), (Effect::Verbatim, ":2\r\n".into()));
        bench.expect("ZREM k c", ":1");
        bench.expect("ZREM k c", ":0");
        bench.expect("SET k 1 NX", "+OK");
    }

    #[test]
    fn members_go_by_range() {
        for size in [0, 128] {
            let mut bench = Bench::new();
            bench.environment.limits.zset_max_listpack_entries = size;
            bench.expect("ZADD k 1 a 2 b 3 c 4 d 5 e 6 f 7 g", ":7");
            bench.expect("ZREMRANGEBYRANK k -1 100", ":1");
            bench.expect("ZREMRANGEBYRANK k 3 2", ":0");
            bench.expect("ZREMRANGEBYSCORE k (1 3", ":2");
            bench.expect("ZRANGE k 0 -1", "*4 $1 a $1 d $1 e $1 f");
            bench.expect("ZREMRANGEBYSCORE k (6 inf", ":0");
            bench.expect("ZREMRANGEBYSCORE k -inf inf", ":4");
            bench.expect("ZCARD k", ":0");
            bench.expect("ZADD k 0 a 0 b 0 c", ":3");
            bench.expect("ZREMRANGEBYLEX k (a [b", ":1");
            bench.expect("ZREMRANGEBYLEX k - +", ":2");
            bench.expect("ZREMRANGEBYLEX k - +", ":0");
            let error = "-ERR value is not an integer or out of range";
            bench.expect("ZREMRANGEBYRANK k a 1", error);
            bench.expect("ZREMRANGEBYSCORE k a 1", "-ERR min or max is not a float");
            bench.expect("ZREMRANGEBYLEX k a b", "-ERR min or max not valid string range item");
        }
    }
}

//! Ranges of members by name, for sorted sets whose scores are all the same.

use carnelian_structs::listpack::Direction;
use carnelian_structs::sorted_set::{LexBound, LexRange, SortedSet};

use super::READ_ONE;
use super::range::{By, reply_range};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const ZRANGEBYLEX: DataCommand = DataCommand {
    name: "zrangebylex",
    summary: "Returns the members in a range of names.",
    since: "2.8.9",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M returned",
    arity: -4,
    flags: Flags::READONLY,
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrangebylex,
};

pub(super) const ZREVRANGEBYLEX: DataCommand = DataCommand {
    name: "zrevrangebylex",
    summary: "Returns the members in a range of names, from the last.",
    since: "2.8.9",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M returned",
    arity: -4,
    flags: Flags::READONLY,
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrevrangebylex,
};

pub(super) const ZLEXCOUNT: DataCommand = DataCommand {
    name: "zlexcount",
    summary: "Counts the members in a range of names.",
    since: "2.8.9",
    group: Group::SortedSet,
    complexity: "O(log(N)), with N members in the sorted set",
    arity: 4,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zlexcount,
};

/// `-`, `+`, `[member` and `(member`.
pub(super) fn lex_range<'w>(min: &'w [u8], max: &'w [u8]) -> Result<LexRange<'w>, CommandError> {
    let bound = |word: &'w [u8]| match word {
        // What follows a zero byte is not looked at.
        [b'-'] | [b'-', 0, ..] => Ok(LexBound::Lowest),
        [b'+'] | [b'+', 0, ..] => Ok(LexBound::Highest),
        [b'[', member @ ..] => Ok(LexBound::Inclusive(member)),
        [b'(', member @ ..] => Ok(LexBound::Exclusive(member)),
        _ => Err(CommandError::RangeNotLexical),
    };
    Ok(LexRange { min: bound(min)?, max: bound(max)? })
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`
fn zrangebylex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    reply_range(call, Some(By::Lex), Some(Direction::Forward))
}

/// `ZREVRANGEBYLEX key max min [LIMIT offset count]`
fn zrevrangebylex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    reply_range(call, Some(By::Lex), Some(Direction::Backward))
}

/// `ZLEXCOUNT key min max`
fn zlexcount(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let range = lex_range(call.args[2], call.args[3])?;
    let set = call.db.read_as::<SortedSet>(call.args[1])?;
    call.reply.integer(set.map_or(0, |set| set.ranks_by_lex(&range).len()) as i64);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn names_bound_a_range() {
        let mut bench = Bench::new();
        bench.expect("ZADD k 0 a 0 b 0 c 0 d", ":4");
        bench.expect("ZRANGEBYLEX k - [b", "*2 $1 a $1 b");
        bench.expect("ZRANGEBYLEX k (a (c", "*1 $1 b");
        bench.expect("ZREVRANGEBYLEX k + (b", "*2 $1 d $1 c");
        bench.expect("ZREVRANGEBYLEX k [c - LIMIT 1 5", "*2 $1 b $1 a");
        bench.expect("ZRANGEBYLEX k + -", "*0");
        bench.expect("ZRANGEBYLEX k [ [aa", "*1 $1 a");
        bench.expect("ZRANGEBYLEX none - +", "*0");
        bench.expect("ZLEXCOUNT k - +", ":4");
        bench.expect("ZLEXCOUNT k [b (d", ":2");
        bench.expect("ZLEXCOUNT none - +", ":0");
        bench.expect("ZRANGE k [b + BYLEX LIMIT 0 2", "*2 $1 b $1 c");
        bench.expect("ZRANGE k + [b BYLEX REV", "*3 $1 d $1 c $1 b");
    }

    #[test]
    fn bad_bounds_are_refused() {
        let mut bench = Bench::new();
        for (min, max) in [("a", "+"), ("-", "b"), ("+x", "-"), ("-", "-x")] {
            let error = "-ERR min or max not valid string range item";
            bench.expect(&format!("ZRANGEBYLEX k {min} {max}"), error);
            bench.expect(&format!("ZLEXCOUNT k {min} {max}"), error);
        }
        bench.expect("ZRANGEBYLEX k - + BYLEX", "-ERR syntax error");
        let error = "-ERR syntax error, WITHSCORES not supported in combination with BYLEX";
        bench.expect("ZRANGEBYLEX k - + WITHSCORES", error);
    }
}

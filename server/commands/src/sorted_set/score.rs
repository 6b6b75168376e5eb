//! What is known of single members: scores and ranks.

use carnelian_structs::sorted_set::SortedSet;

use super::READ_ONE;
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const ZCARD: DataCommand = DataCommand {
    name: "zcard",
    summary: "Counts the members of a sorted set.",
    since: "1.2.0",
    group: Group::SortedSet,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: &[KeySpec::range(KeyFlags::RO, 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zcard,
};

pub(super) const ZSCORE: DataCommand = DataCommand {
    name: "zscore",
    summary: "Returns the score of a member.",
    since: "1.2.0",
    group: Group::SortedSet,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zscore,
};

pub(super) const ZMSCORE: DataCommand = DataCommand {
    name: "zmscore",
    summary: "Returns the scores of several members.",
    since: "6.2.0",
    group: Group::SortedSet,
    complexity: "O(N) for N members asked for",
    arity: -3,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zmscore,
};

pub(super) const ZRANK: DataCommand = DataCommand {
    name: "zrank",
    summary: "Returns the place of a member, counted from the lowest score.",
    since: "2.0.0",
    group: Group::SortedSet,
    complexity: "O(log(N)), with N members in the sorted set",
    arity: -3,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrank,
};

pub(super) const ZREVRANK: DataCommand = DataCommand {
    name: "zrevrank",
    summary: "Returns the place of a member, counted from the highest score.",
    since: "2.0.0",
    group: Group::SortedSet,
    complexity: "O(log(N)), with N members in the sorted set",
    arity: -3,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrevrank,
};

/// `ZCARD key`
fn zcard(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let set = call.db.read_as::<SortedSet>(call.args[1])?;
    call.reply.integer(set.map_or(0, |set| set.len()) as i64);
    Ok(Effect::None)
}

/// `ZSCORE key member`
fn zscore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let set = call.db.read_as::<SortedSet>(call.args[1])?;
    match set.and_then(|set| set.score(call.args[2])) {
        Some(score) => call.reply.double(score),
        None => call.reply.null(),
    }
    Ok(Effect::None)
}

/// `ZMSCORE key member [member ...]`
fn zmscore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let set = call.db.read_as::<SortedSet>(call.args[1])?;
    let members = &call.args[2..];
    call.reply.array(members.len());
    for member in members {
        match set.as_ref().and_then(|set| set.score(member)) {
            Some(score) => call.reply.double(score),
            None => call.reply.null(),
        }
    }
    Ok(Effect::None)
}

/// `ZRANK key member [WITHSCORE]`
fn zrank(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    rank(call, "zrank", |rank, _| rank)
}

/// `ZREVRANK key member [WITHSCORE]`
fn zrevrank(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    rank(call, "zrevrank", |rank, len| len - 1 - rank)
}

fn rank(
    call: &mut Call<'_>,
    command: &'static str,
    counted: impl FnOnce(usize, usize) -> usize,
) -> Result<Effect, CommandError> {
    let with_score = match &call.args[3..] {
        [] => false,
        [word] if args::is(word, "WITHSCORE") => true,
        [_] => return Err(CommandError::Syntax),
        _ => return Err(CommandError::Arity(command.into())),
    };
    let set = call.db.read_as::<SortedSet>(call.args[1])?;
    let found = set.and_then(|set| {
        let (rank, score) = set.rank(call.args[2])?;
        Some((counted(rank, set.len()), score))
    });
    match found {
        Some((rank, score)) if with_score => {
            call.reply.array(2);
            call.reply.integer(rank as i64);
            call.reply.double(score);
        }
        Some((rank, _)) => call.reply.integer(rank as i64),
        None if with_score => call.reply.null_array(),
        None => call.reply.null(),
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use crate::bench::Bench;

    #[test]
    fn scores_and_ranks_are_found() {
        let mut bench = Bench::new();
        bench.expect("ZADD k 1 a 2.5 b 3 c", ":3");
        bench.expect("ZCARD k", ":3");
        bench.expect("ZCARD none", ":0");
        bench.expect("ZSCORE k b", "$3 2.5");
        bench.expect("ZSCORE k x", "$-1");
        bench.expect("ZSCORE none x", "$-1");
        bench.expect("ZMSCORE k a x c", "*3 $1 1 $-1 $1 3");
        bench.expect("ZMSCORE none a", "*1 $-1");
        bench.expect("ZRANK k c", ":2");
        bench.expect("ZREVRANK k c", ":0");
        bench.expect("ZRANK k b WITHSCORE", "*2 :1 $3 2.5");
        bench.expect("ZREVRANK k a withscore", "*2 :2 $1 1");
        bench.expect("ZRANK k x", "$-1");
        bench.expect("ZRANK k x WITHSCORE", "*-1");
        bench.expect("ZRANK none x WITHSCORE", "*-1");
        bench.expect("ZRANK k a FOO", "-ERR syntax error");
        let error = "-ERR wrong number of arguments for 'zrank' command";
        bench.expect("ZRANK k a WITHSCORE x", error);
    }

    #[test]
    fn resp3_has_doubles() {
        let mut bench = Bench::new();
        bench.protocol = Protocol::Resp3;
        bench.expect("ZADD k INCR 2.5 b", ",2.5");
        bench.expect("ZADD k NX INCR 2.5 b", "_");
        bench.expect("ZSCORE k b", ",2.5");
        bench.expect("ZMSCORE k b x", "*2 ,2.5 _");
        bench.expect("ZRANK k b WITHSCORE", "*2 :0 ,2.5");
        bench.expect("ZRANK k x WITHSCORE", "_");
    }
}

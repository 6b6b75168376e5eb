//! ZRANGE and its older forms: ranges by rank, score or name.

use std::ops::Range;

use carnelian_structs::listpack::Direction;
use carnelian_structs::sorted_set::{LexRange, ScoreBound, ScoreRange, SortedSet};

use super::lex::lex_range;
use super::{READ_ONE, limits, store, write_members};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const ZRANGE: DataCommand = DataCommand {
    name: "zrange",
    summary: "Returns the members in a range of ranks, scores or names.",
    since: "1.2.0",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M returned",
    arity: -4,
    flags: Flags::READONLY,
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrange,
};

pub(super) const ZRANGESTORE: DataCommand = DataCommand {
    name: "zrangestore",
    summary: "Stores the members in a range as a sorted set of their own.",
    since: "6.2.0",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M stored",
    arity: -5,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: &[
        KeySpec::range(KeyFlags::OW.union(KeyFlags::UPDATE), 1, 0, 1),
        KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 2, 0, 1),
    ],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrangestore,
};

pub(super) const ZREVRANGE: DataCommand = DataCommand {
    name: "zrevrange",
    summary: "Returns the members in a range of ranks, from the highest score.",
    since: "1.2.0",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M returned",
    arity: -4,
    flags: Flags::READONLY,
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrevrange,
};

pub(super) const ZRANGEBYSCORE: DataCommand = DataCommand {
    name: "zrangebyscore",
    summary: "Returns the members in a range of scores.",
    since: "1.0.5",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M returned",
    arity: -4,
    flags: Flags::READONLY,
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrangebyscore,
};

pub(super) const ZREVRANGEBYSCORE: DataCommand = DataCommand {
    name: "zrevrangebyscore",
    summary: "Returns the members in a range of scores, from the highest.",
    since: "2.2.0",
    group: Group::SortedSet,
    complexity: "O(log(N)+M), with N members in the sorted set and M returned",
    arity: -4,
    flags: Flags::READONLY,
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrevrangebyscore,
};

pub(super) const ZCOUNT: DataCommand = DataCommand {
    name: "zcount",
    summary: "Counts the members in a range of scores.",
    since: "2.0.0",
    group: Group::SortedSet,
    complexity: "O(log(N)), with N members in the sorted set",
    arity: 4,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zcount,
};

/// What the bounds of a range are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Rank,
    Score,
    Lex,
}

enum Bounds<'w> {
    Ranks(i64, i64),
    Scores(ScoreRange),
    Members(LexRange<'w>),
}

/// A range as a request describes it.
struct Query<'w> {
    bounds: Bounds<'w>,
    direction: Direction,
    with_scores: bool,
    offset: i64,
    /// Negative for no limit.
    limit: i64,
}

impl<'w> Query<'w> {
    /// Reads `min max [option ...]`. What the command's name fixes cannot be an option; nor can
    /// WITHSCORES, where the result is stored.
    fn parse(
        words: &[&'w [u8]],
        fixed_by: Option<By>,
        fixed_direction: Option<Direction>,
        stored: bool,
    ) -> Result<Self, CommandError> {
        let (mut by, mut direction, mut with_scores) = (fixed_by, fixed_direction, false);
        let (mut offset, mut limit) = (0, -1);
        let [first, second, options @ ..] = words else { return Err(CommandError::Syntax) };
        let mut rest = options;
        while let [word, tail @ ..] = rest {
            rest = tail;
            if !stored && args::is(word, "WITHSCORES") {
                with_scores = true;
            } else if let [start, count, tail @ ..] = tail
                && args::is(word, "LIMIT")
            {
                offset = args::integer(start)?;
                limit = args::integer(count)?;
                rest = tail;
            } else if fixed_direction.is_none() && args::is(word, "REV") {
                direction = Some(Direction::Backward);
            } else if by.is_none() && args::is(word, "BYLEX") {
                by = Some(By::Lex);
            } else if by.is_none() && args::is(word, "BYSCORE") {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let (by, direction) = (by.unwrap_or(By::Rank), direction.unwrap_or(Direction::Forward));
        if limit != -1 && by == By::Rank {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or \
                 BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(CommandError::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // Backwards, the upper bound comes first, but ranks count from the end.
        let (min, max) = match direction {
            Direction::Forward => (first, second),
            Direction::Backward => (second, first),
        };
        let bounds = match by {
            By::Rank => Bounds::Ranks(args::integer(first)?, args::integer(second)?),
            By::Score => Bounds::Scores(score_range(min, max)?),
            By::Lex => Bounds::Members(lex_range(min, max)?),
        };
        Ok(Self { bounds, direction, with_scores, offset, limit })
    }

    /// The ranks of the members that are asked for.
    fn ranks(&self, set: &SortedSet) -> Range<usize> {
        let ranks = match &self.bounds {
            Bounds::Ranks(start, stop) => {
                let Some((start, stop)) = args::range(*start, *stop, set.len()) else {
                    return 0..0;
                };
                return match self.direction {
                    Direction::Forward => start..stop + 1,
                    Direction::Backward => set.len() - 1 - stop..set.len() - start,
                };
            }
            Bounds::Scores(range) => set.ranks_by_score(range),
            Bounds::Members(range) => set.ranks_by_lex(range),
        };
        let rest = self.skip(ranks, set);
        let Ok(limit) = usize::try_from(self.limit) else { return rest };
        match self.direction {
            Direction::Forward => rest.start..rest.end.min(rest.start.saturating_add(limit)),
            Direction::Backward => rest.start.max(rest.end.saturating_sub(limit))..rest.end,
        }
    }

    /// What is left of a range after the offset.
    ///
    /// Redis does not refuse negative offsets: of a listpack they leave nothing, and in a skip list
    /// they count from the far end of the range.
    fn skip(&self, ranks: Range<usize>, set: &SortedSet) -> Range<usize> {
        let Range { start, end } = ranks;
        let skipped = usize::try_from(self.offset.unsigned_abs()).unwrap_or(usize::MAX);
        let rest = match (self.offset < 0, self.direction) {
            (true, _) if matches!(set, SortedSet::Listpack(_)) => None,
            (false, Direction::Forward) => Some(start.saturating_add(skipped)..end),
            (false, Direction::Backward) => end.checked_sub(skipped).map(|end| start..end),
            (true, Direction::Forward) => end.checked_sub(skipped).map(|start| start..end),
            (true, Direction::Backward) => Some(start..start.saturating_add(skipped)),
        };
        rest.filter(|rest| start <= rest.start && rest.start < rest.end && rest.end <= end)
            .unwrap_or(0..0)
    }
}

/// Two bounds as `number`, `(number`, `inf` and `-inf`.
pub(super) fn score_range(min: &[u8], max: &[u8]) -> Result<ScoreRange, CommandError> {
    Ok(ScoreRange { min: score_bound(min)?, max: score_bound(max)? })
}

/// Bounds are read less strictly than scores: nothing is zero, numbers out of range are infinite
/// or zero, what follows a zero byte is not looked at. Only hexadecimal is not known here.
fn score_bound(word: &[u8]) -> Result<ScoreBound, CommandError> {
    let (exclusive, word) = match word {
        [b'(', word @ ..] => (true, word),
        word => (false, word),
    };
    let text = word.split(|&byte| byte == 0).next().unwrap_or_default();
    let score = if text.is_empty() {
        Some(0.0)
    } else {
        std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok())
    };
    let score = score.filter(|score| !score.is_nan()).ok_or(CommandError::RangeNotAFloat)?;
    Ok(ScoreBound { score, exclusive })
}

/// `ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`
fn zrange(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    reply_range(call, None, None)
}

/// `ZREVRANGE key start stop [WITHSCORES]`
fn zrevrange(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    reply_range(call, Some(By::Rank), Some(Direction::Backward))
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`
fn zrangebyscore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    reply_range(call, Some(By::Score), Some(Direction::Forward))
}

/// `ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]`
fn zrevrangebyscore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    reply_range(call, Some(By::Score), Some(Direction::Backward))
}

pub(super) fn reply_range(
    call: &mut Call<'_>,
    by: Option<By>,
    direction: Option<Direction>,
) -> Result<Effect, CommandError> {
    let query = Query::parse(&call.args[2..], by, direction, false)?;
    let Some(set) = call.db.read_as::<SortedSet>(call.args[1])? else {
        call.reply.array(0);
        return Ok(Effect::None);
    };
    let members = set.range(query.ranks(&set), query.direction);
    write_members(&mut call.reply, members, query.with_scores);
    Ok(Effect::None)
}

/// `ZRANGESTORE destination source start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count]`
fn zrangestore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let query = Query::parse(&call.args[3..], None, None, true)?;
    let limits = limits(call);
    let mut result = SortedSet::for_members(0, 0, limits);
    if let Some(set) = call.db.read_as::<SortedSet>(call.args[2])? {
        let mut buffer = itoa::Buffer::new();
        // In the order of the reply: a small set forgets the sign of a zero, and it may be large by then.
        for (member, score) in set.range(query.ranks(&set), query.direction) {
            result.insert(member.as_bytes(&mut buffer), score, limits);
        }
    }
    Ok(store(call, call.args[1], result, "zrangestore"))
}

/// `ZCOUNT key min max`
fn zcount(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let range = score_range(call.args[2], call.args[3])?;
    let set = call.db.read_as::<SortedSet>(call.args[1])?;
    call.reply.integer(set.map_or(0, |set| set.ranks_by_score(&range).len()) as i64);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use crate::bench::Bench;

    /// One with the members a to f scored 1 to 6, small or large.
    fn bench(entries_max: usize) -> Bench {
        let mut bench = Bench::new();
        bench.environment.limits.zset_max_listpack_entries = entries_max;
        bench.expect("ZADD k 1 a 2 b 3 c 4 d 5 e 6 f", ":6");
        bench
    }

    #[test]
    fn ranks_count_from_either_end() {
        for size in [0, 128] {
            let mut bench = bench(size);
            bench.expect("ZRANGE k 0 1", "*2 $1 a $1 b");
            bench.expect("ZRANGE k -2 -1 WITHSCORES", "*4 $1 e $1 5 $1 f $1 6");
            bench.expect("ZREVRANGE k 0 1", "*2 $1 f $1 e");
            bench.expect("ZRANGE k 4 100 REV", "*2 $1 b $1 a");
            bench.expect("ZRANGE k 5 1", "*0");
            bench.expect("ZRANGE k -100 -7", "*0");
            bench.expect("ZRANGE none 0 -1", "*0");
            bench.expect("ZRANGE k 0 0 LIMIT 5 -1", "*1 $1 a");
            bench.protocol = Protocol::Resp3;
            bench.expect("ZREVRANGE k 0 1 WITHSCORES", "*2 *2 $1 f ,6 *2 $1 e ,5");
            bench.expect("ZRANGE k 0 1", "*2 $1 a $1 b");
        }
    }

    #[test]
    fn scores_bound_a_range() {
        for size in [0, 128] {
            let mut bench = bench(size);
            bench.expect("ZRANGEBYSCORE k 2 3 WITHSCORES", "*4 $1 b $1 2 $1 c $1 3");
            bench.expect("ZRANGEBYSCORE k (2 (5", "*2 $1 c $1 d");
            bench.expect("ZRANGEBYSCORE k -inf +inf LIMIT 1 2", "*2 $1 b $1 c");
            bench.expect("ZREVRANGEBYSCORE k inf 3 LIMIT 1 2", "*2 $1 e $1 d");
            bench.expect("ZREVRANGEBYSCORE k inf 3 LIMIT 1 -5", "*3 $1 e $1 d $1 c");
            bench.expect("ZRANGEBYSCORE k 2 5 LIMIT 1 0", "*0");
            bench.expect("ZRANGEBYSCORE k 2 5 LIMIT 4 1", "*0");
            bench.expect("ZRANGEBYSCORE k 2 5 LIMIT 9223372036854775807 1", "*0");
            bench.expect("ZRANGEBYSCORE k 5 2", "*0");
            bench.expect("ZRANGE k (5 3 BYSCORE REV", "*2 $1 d $1 c");
            bench.expect("ZCOUNT k (1 3", ":2");
            bench.expect("ZCOUNT k -1e400 1e400", ":6");
            bench.expect("ZCOUNT none 1 2", ":0");
        }
    }

    #[test]
    fn negative_offsets_do_what_they_do_in_redis() {
        let mut small = bench(128);
        small.expect("ZRANGEBYSCORE k 2 5 LIMIT -1 2", "*0");
        small.expect("ZREVRANGEBYSCORE k 5 2 LIMIT -9223372036854775808 2", "*0");
        let mut large = bench(0);
        large.expect("ZRANGEBYSCORE k 2 5 LIMIT -1 2", "*1 $1 e");
        large.expect("ZRANGEBYSCORE k 2 5 LIMIT -2 -1", "*2 $1 d $1 e");
        large.expect("ZRANGEBYSCORE k 2 5 LIMIT -100 2", "*0");
        large.expect("ZRANGEBYSCORE k 2 4 LIMIT -4 2", "*0");
        large.expect("ZREVRANGEBYSCORE k 5 2 LIMIT -1 2", "*1 $1 b");
        large.expect("ZREVRANGEBYSCORE k 5 2 LIMIT -2 3", "*2 $1 c $1 b");
        large.expect("ZREVRANGEBYSCORE k 5 2 LIMIT -9223372036854775808 3", "*0");
    }

    #[test]
    fn a_range_is_stored() {
        for size in [0, 128] {
            let mut bench = bench(size);
            bench.expect("ZRANGESTORE d k 1 2", ":2");
            bench.expect("ZRANGE d 0 -1 WITHSCORES", "*4 $1 b $1 2 $1 c $1 3");
            bench.expect("ZRANGESTORE k k (5 -inf BYSCORE REV LIMIT 1 2", ":2");
            bench.expect("ZRANGE k 0 -1", "*2 $1 b $1 c");
            bench.expect("ZRANGESTORE d k 5 6", ":0");
            bench.expect("ZCARD d", ":0");
            bench.expect("ZRANGESTORE d none 0 -1", ":0");
            bench.expect("ZRANGESTORE d k 0 -1 WITHSCORES", "-ERR syntax error");
        }
    }

    #[test]
    fn bad_ranges_are_refused() {
        let mut bench = bench(128);
        bench.expect("ZRANGE k a 1", "-ERR value is not an integer or out of range");
        for bound in ["(", "1e", "0x10", "nan", "((1", "1x", "(nan"] {
            let expected = match bound {
                "(" => ":0",
                _ => "-ERR min or max is not a float",
            };
            bench.expect(&format!("ZCOUNT k 7 {bound}"), expected);
        }
        bench.expect(
            "ZRANGE k 0 -1 LIMIT 0 1",
            "-ERR syntax error, LIMIT is only supported in combination with either BYSCORE or \
             BYLEX",
        );
        bench.expect("ZRANGE k 0 1 BYSCORE BYLEX", "-ERR syntax error");
        bench.expect("ZRANGE k 0 1 BYSCORE LIMIT 1", "-ERR syntax error");
        bench.expect("ZREVRANGE k 0 1 REV", "-ERR syntax error");
        bench.expect(
            "ZRANGEBYSCORE k 0 1 LIMIT a 1",
            "-ERR value is not an integer or out of range",
        );
        bench.expect("SET s 1", "+OK");
        let error = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("ZRANGE s 0 1", error);
        bench.expect("ZRANGESTORE d s 0 1", error);
    }
}

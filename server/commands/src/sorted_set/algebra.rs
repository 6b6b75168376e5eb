//! Unions, intersections and differences, of sorted sets and of plain sets, whose members count
//! with score 1.

use carnelian_keyspace::{Db, Kind, Ref};
use carnelian_structs::listpack::Element;
use carnelian_structs::set::Set;
use carnelian_structs::sorted_set::{Builder, SortedSet};
use smallvec::SmallVec;

use super::{READ_MANY, STORE_MANY, limits, store, write_header, write_pair};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const ZUNION: DataCommand = DataCommand {
    name: "zunion",
    summary: "Returns the members that are in any of several sorted sets.",
    since: "6.2.0",
    group: Group::SortedSet,
    complexity: "O(N)+O(M*log(M)), with N members in all and M in the result",
    arity: -3,
    flags: Flags::MOVABLEKEYS.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_MANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zunion,
};

pub(super) const ZUNIONSTORE: DataCommand = DataCommand {
    name: "zunionstore",
    summary: "Stores the members that are in any of several sorted sets.",
    since: "2.0.0",
    group: Group::SortedSet,
    complexity: "O(N)+O(M*log(M)), with N members in all and M in the result",
    arity: -4,
    flags: Flags::DENYOOM.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: STORE_MANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zunionstore,
};

pub(super) const ZINTER: DataCommand = DataCommand {
    name: "zinter",
    summary: "Returns the members that are in all of several sorted sets.",
    since: "6.2.0",
    group: Group::SortedSet,
    complexity: "O(N*K)+O(M*log(M)), with N members in the least of K inputs and M in the result",
    arity: -3,
    flags: Flags::MOVABLEKEYS.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_MANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zinter,
};

pub(super) const ZINTERSTORE: DataCommand = DataCommand {
    name: "zinterstore",
    summary: "Stores the members that are in all of several sorted sets.",
    since: "2.0.0",
    group: Group::SortedSet,
    complexity: "O(N*K)+O(M*log(M)), with N members in the least of K inputs and M in the result",
    arity: -4,
    flags: Flags::DENYOOM.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: STORE_MANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zinterstore,
};

pub(super) const ZINTERCARD: DataCommand = DataCommand {
    name: "zintercard",
    summary: "Counts the members that are in all of several sorted sets.",
    since: "7.0.0",
    group: Group::SortedSet,
    complexity: "O(N*K), with N members in the smallest of K sorted sets",
    arity: -3,
    flags: Flags::MOVABLEKEYS.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_MANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zintercard,
};

pub(super) const ZDIFF: DataCommand = DataCommand {
    name: "zdiff",
    summary: "Returns the members of the first sorted set that are in none of the others.",
    since: "6.2.0",
    group: Group::SortedSet,
    complexity: "O(L+(N-K)*log(N)), with L members in all, N in the first and K in the result",
    arity: -3,
    flags: Flags::MOVABLEKEYS.union(Flags::READONLY),
    categories: Categories::SORTEDSET,
    keys: READ_MANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zdiff,
};

pub(super) const ZDIFFSTORE: DataCommand = DataCommand {
    name: "zdiffstore",
    summary: "Stores the members of the first sorted set that are in none of the others.",
    since: "6.2.0",
    group: Group::SortedSet,
    complexity: "O(L+(N-K)*log(N)), with L members in all, N in the first and K in the result",
    arity: -4,
    flags: Flags::DENYOOM.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: STORE_MANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zdiffstore,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// What becomes of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Reply,
    Store,
    Count,
}

/// What to make of the scores of a member that is in several inputs.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn join(self, left: f64, right: f64) -> f64 {
        match self {
            // Opposite infinities make nothing.
            Self::Sum => zero_if_nan(left + right),
            Self::Min => {
                if right < left {
                    right
                } else {
                    left
                }
            }
            Self::Max => {
                if left < right {
                    right
                } else {
                    left
                }
            }
        }
    }
}

fn zero_if_nan(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// One input.
struct Source<'k> {
    content: Content<'k>,
    weight: f64,
}

enum Content<'k> {
    Missing,
    Sorted(Ref<'k, SortedSet>),
    Plain(Ref<'k, Set>),
}

type Sources<'k> = SmallVec<[Source<'k>; 4]>;

impl<'k> Source<'k> {
    /// Opens a key that was settled.
    fn open(db: &'k Db<'_>, key: &[u8]) -> Result<Self, CommandError> {
        let content = match db.peek_as::<SortedSet>(key) {
            Ok(None) => Content::Missing,
            Ok(Some(sorted)) => Content::Sorted(sorted),
            Err(_) => db.peek_as::<Set>(key)?.map_or(Content::Missing, Content::Plain),
        };
        Ok(Self { content, weight: 1.0 })
    }

    fn len(&self) -> usize {
        match &self.content {
            Content::Missing => 0,
            Content::Sorted(sorted) => sorted.len(),
            Content::Plain(plain) => plain.len(),
        }
    }

    /// The score of a member, not yet weighted.
    fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.content {
            Content::Missing => None,
            Content::Sorted(sorted) => sorted.score(member),
            Content::Plain(plain) => plain.contains(member).then_some(1.0),
        }
    }

    /// The members and their scores, not yet weighted.
    fn iter(&self) -> impl Iterator<Item = (Element<'_>, f64)> {
        let (sorted, plain) = match &self.content {
            Content::Missing => (None, None),
            Content::Sorted(sorted) => (Some(sorted.iter()), None),
            Content::Plain(plain) => (None, Some(plain.iter())),
        };
        let plain = plain.into_iter().flatten().map(|member| (member, 1.0));
        sorted.into_iter().flatten().chain(plain)
    }
}

struct Options {
    aggregate: Aggregate,
    with_scores: bool,
    /// 0 for none.
    limit: u64,
}

impl Options {
    /// Reads the options, and the weights into the sources. Only some commands know each of them.
    fn parse(
        words: &[&[u8]],
        sources: &mut Sources<'_>,
        operation: Operation,
        outcome: Outcome,
    ) -> Result<Self, CommandError> {
        let mut options = Self { aggregate: Aggregate::Sum, with_scores: false, limit: 0 };
        let weighted = operation != Operation::Difference && outcome != Outcome::Count;
        let mut rest = words;
        while let [word, tail @ ..] = rest {
            rest = if weighted && sources.len() <= tail.len() && args::is(word, "WEIGHTS") {
                let (weights, tail) = tail.split_at(sources.len());
                for (source, weight) in sources.iter_mut().zip(weights) {
                    source.weight = args::float(weight)
                        .map_err(|_| CommandError::text("ERR weight value is not a float"))?;
                }
                tail
            } else if let [name, tail @ ..] = tail
                && weighted
                && args::is(word, "AGGREGATE")
            {
                options.aggregate = match name {
                    name if args::is(name, "SUM") => Aggregate::Sum,
                    name if args::is(name, "MIN") => Aggregate::Min,
                    name if args::is(name, "MAX") => Aggregate::Max,
                    _ => return Err(CommandError::Syntax),
                };
                tail
            } else if outcome == Outcome::Reply && args::is(word, "WITHSCORES") {
                options.with_scores = true;
                tail
            } else if let [limit, tail @ ..] = tail
                && outcome == Outcome::Count
                && args::is(word, "LIMIT")
            {
                options.limit = args::positive(limit)
                    .map_err(|_| CommandError::text("ERR LIMIT can't be negative"))?;
                tail
            } else {
                return Err(CommandError::Syntax);
            };
        }
        Ok(options)
    }
}

/// `ZUNION numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]
/// [WITHSCORES]`
fn zunion(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    combine(call, "zunion", Operation::Union, Outcome::Reply)
}

/// `ZUNIONSTORE destination numkeys key [key ...] [WEIGHTS weight [weight ...]]
/// [AGGREGATE <SUM | MIN | MAX>]`
fn zunionstore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    combine(call, "zunionstore", Operation::Union, Outcome::Store)
}

/// `ZINTER numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]
/// [WITHSCORES]`
fn zinter(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    combine(call, "zinter", Operation::Intersection, Outcome::Reply)
}

/// `ZINTERSTORE destination numkeys key [key ...] [WEIGHTS weight [weight ...]]
/// [AGGREGATE <SUM | MIN | MAX>]`
fn zinterstore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    combine(call, "zinterstore", Operation::Intersection, Outcome::Store)
}

/// `ZINTERCARD numkeys key [key ...] [LIMIT limit]`
fn zintercard(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    combine(call, "zintercard", Operation::Intersection, Outcome::Count)
}

/// `ZDIFF numkeys key [key ...] [WITHSCORES]`
fn zdiff(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    combine(call, "zdiff", Operation::Difference, Outcome::Reply)
}

/// `ZDIFFSTORE destination numkeys key [key ...]`
fn zdiffstore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    combine(call, "zdiffstore", Operation::Difference, Outcome::Store)
}

/// All of them. The name of the command is that of the event, where there is one.
fn combine(
    call: &mut Call<'_>,
    command: &'static str,
    operation: Operation,
    outcome: Outcome,
) -> Result<Effect, CommandError> {
    let request = call.args;
    let words = if outcome == Outcome::Store { &request[2..] } else { &request[1..] };
    let count = args::integer(words[0])?;
    let count = usize::try_from(count).ok().filter(|count| 0 < *count).ok_or_else(|| {
        CommandError::text(format!("ERR at least 1 input key is needed for '{command}' command"))
    })?;
    let (keys, words) = words[1..].split_at_checked(count).ok_or(CommandError::Syntax)?;
    for key in keys {
        // Keys behind one that holds something else are not read.
        let kind = call.db.get(key).map(|entry| entry.value_kind());
        if kind.is_some_and(|kind| !matches!(kind, Kind::Set | Kind::SortedSet)) {
            return Err(CommandError::WrongType);
        }
    }
    let limits = limits(call);
    let mut sources: Sources<'_> =
        keys.iter().map(|key| Source::open(&call.db, key)).collect::<Result<_, _>>()?;
    let options = Options::parse(words, &mut sources, operation, outcome)?;
    if operation != Operation::Difference {
        sources.sort_by_key(Source::len);
    }
    if outcome == Outcome::Count {
        let limit = usize::try_from(options.limit).ok().filter(|limit| 0 < *limit);
        let common = common(&sources, options.aggregate).take(limit.unwrap_or(usize::MAX));
        call.reply.integer(common.count() as i64);
        return Ok(Effect::None);
    }
    let mut result = Builder::default();
    match operation {
        Operation::Union => unite(&sources, options.aggregate, &mut result),
        Operation::Intersection => {
            let mut buffer = itoa::Buffer::new();
            for (member, score) in common(&sources, options.aggregate) {
                result.update(member.as_bytes(&mut buffer), |_| score);
            }
        }
        Operation::Difference => subtract(&sources, &mut result),
    }
    drop(sources);
    if outcome == Outcome::Store {
        return Ok(store(call, request[1], result.finish(limits), command));
    }
    write_header(&mut call.reply, result.len(), options.with_scores);
    for (member, score) in result.ascending() {
        if options.with_scores {
            write_pair(&mut call.reply, Element::String(member), score);
        } else {
            call.reply.bulk(member);
        }
    }
    Ok(Effect::None)
}

fn unite(sources: &[Source<'_>], aggregate: Aggregate, result: &mut Builder) {
    let mut buffer = itoa::Buffer::new();
    for source in sources {
        for (member, score) in source.iter() {
            let score = zero_if_nan(source.weight * score);
            result.update(member.as_bytes(&mut buffer), |other| {
                other.map_or(score, |other| aggregate.join(other, score))
            });
        }
    }
}

/// The members of the first source (the smallest) that are in all others, with their joint scores.
fn common<'s>(
    sources: &'s [Source<'_>],
    aggregate: Aggregate,
) -> impl Iterator<Item = (Element<'s>, f64)> {
    let (first, others) = sources.split_first().expect("there is at least one source");
    first.iter().filter_map(move |(member, score)| {
        let mut buffer = itoa::Buffer::new();
        let bytes = member.as_bytes(&mut buffer);
        let mut joint = zero_if_nan(first.weight * score);
        for other in others {
            joint = aggregate.join(joint, other.weight * other.score(bytes)?);
        }
        Some((member, joint))
    })
}

/// The members of the first source that are in no other.
fn subtract(sources: &[Source<'_>], result: &mut Builder) {
    let (first, others) = sources.split_first().expect("there is at least one source");
    let mut buffer = itoa::Buffer::new();
    // Looking for each member in all others, or taking the members of all others out: whatever is
    // less work. The former gets some advantage, as it ends at the first hit.
    let look_up = first.len() * sources.len() / 2;
    let take_out: usize = sources.iter().map(Source::len).sum();
    if look_up <= take_out {
        let mut others: SmallVec<[&Source<'_>; 4]> = others.iter().collect();
        others.sort_by_key(|source| std::cmp::Reverse(source.len()));
        for (member, score) in first.iter() {
            let member = member.as_bytes(&mut buffer);
            if others.iter().all(|other| other.score(member).is_none()) {
                result.update(member, |_| score);
            }
        }
        return;
    }
    for (member, score) in first.iter() {
        result.update(member.as_bytes(&mut buffer), |_| score);
    }
    for (member, _) in others.iter().flat_map(Source::iter) {
        if result.is_empty() {
            return;
        }
        result.remove(member.as_bytes(&mut buffer));
    }
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;
    use carnelian_structs::set::SetLimits;

    use super::*;
    use crate::bench::Bench;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.expect("ZADD a 1 x 2 y 3 z", ":3");
        bench.expect("ZADD b 10 y 20 z 30 w", ":3");
        let (effect, _) = bench.run(put_plain_set, "SET s x y q");
        assert_eq!(effect, Effect::Verbatim);
        bench
    }

    fn put_plain_set(call: &mut Call<'_>) -> Result<Effect, CommandError> {
        let limits = SetLimits { intset_entries: 1, listpack_entries: 9, listpack_value: 9 };
        let mut set = Set::for_member(call.args[2], 3, limits);
        for member in &call.args[2..] {
            set.insert(member, limits);
        }
        call.db.put(call.args[1], set, None);
        Ok(Effect::Verbatim)
    }

    #[test]
    fn unions_weigh_and_aggregate() {
        let mut bench = bench();
        bench.expect("ZUNION 2 a b WITHSCORES", "*8 $1 x $1 1 $1 y $2 12 $1 z $2 23 $1 w $2 30");
        bench.expect("ZUNION 2 a b", "*4 $1 x $1 y $1 z $1 w");
        bench.expect(
            "ZUNION 2 a b WEIGHTS 2 -1 AGGREGATE MIN WITHSCORES",
            "*8 $1 w $3 -30 $1 z $3 -20 $1 y $3 -10 $1 x $1 2",
        );
        bench.expect(
            "ZUNION 3 s a none AGGREGATE MAX WEIGHTS 1.5 1 1 WITHSCORES",
            "*8 $1 q $3 1.5 $1 x $3 1.5 $1 y $1 2 $1 z $1 3",
        );
        bench.expect("ZUNION 1 none", "*0");
        bench.protocol = Protocol::Resp3;
        bench.expect("ZUNION 1 s WITHSCORES", "*3 *2 $1 q ,1 *2 $1 x ,1 *2 $1 y ,1");
    }

    #[test]
    fn intersections_and_their_size() {
        let mut bench = bench();
        bench.expect("ZINTER 2 a b WITHSCORES", "*4 $1 y $2 12 $1 z $2 23");
        bench.expect("ZINTER 3 a b s WEIGHTS 1 2 3 WITHSCORES", "*2 $1 y $2 25");
        bench.expect("ZINTER 2 a none", "*0");
        bench.expect("ZINTER 2 a a WITHSCORES", "*6 $1 x $1 2 $1 y $1 4 $1 z $1 6");
        bench.expect("ZINTERCARD 2 a b", ":2");
        bench.expect("ZINTERCARD 2 a b LIMIT 1", ":1");
        bench.expect("ZINTERCARD 2 a b LIMIT 0", ":2");
        bench.expect("ZINTERCARD 2 a none", ":0");
    }

    #[test]
    fn differences() {
        let mut bench = bench();
        bench.expect("ZDIFF 2 a b WITHSCORES", "*2 $1 x $1 1");
        bench.expect("ZDIFF 2 b s", "*2 $1 z $1 w");
        bench.expect("ZDIFF 2 a a", "*0");
        bench.expect("ZDIFF 1 a", "*3 $1 x $1 y $1 z");
        bench.expect("ZDIFF 2 none a", "*0");
        // Five small inputs: taking out is less work.
        bench.expect("ZADD big 1 a 2 b 3 c 4 d 5 e 6 f 7 g 8 h 9 x 10 y", ":10");
        bench.expect(
            "ZDIFF 6 big s none none none none",
            "*8 $1 a $1 b $1 c $1 d $1 e $1 f $1 g $1 h",
        );
        bench.expect("ZDIFFSTORE a 2 a b", ":1");
        bench.expect("ZRANGE a 0 -1 WITHSCORES", "*2 $1 x $1 1");
    }

    #[test]
    fn infinities_do_not_make_nan() {
        let mut bench = Bench::new();
        bench.expect("ZADD a inf x", ":1");
        bench.expect("ZADD b -inf x", ":1");
        bench.expect("ZUNION 2 a b WITHSCORES", "*2 $1 x $1 0");
        bench.expect("ZINTER 2 a b WITHSCORES", "*2 $1 x $1 0");
        bench.expect("ZUNION 2 a b WEIGHTS 0 1 WITHSCORES", "*2 $1 x $4 -inf");
        bench.expect("ZINTER 1 a WEIGHTS 0 WITHSCORES", "*2 $1 x $1 0");
    }

    #[test]
    fn results_are_stored() {
        let mut bench = bench();
        bench.expect("SET d old PX 1000", "+OK");
        bench.expect("ZUNIONSTORE d 2 a b", ":4");
        bench.now_ms += 2000;
        bench.expect("ZCARD d", ":4");
        bench.expect("ZINTERSTORE d 2 a none", ":0");
        bench.expect("SET d 1 NX", "+OK");
        bench.expect("ZINTERSTORE b 2 b s AGGREGATE MAX", ":1");
        bench.expect("ZRANGE b 0 -1 WITHSCORES", "*2 $1 y $2 10");
        bench.environment.limits.zset_max_listpack_value = 0;
        bench.expect("ZUNIONSTORE d 1 a", ":3");
        bench.expect("ZRANGE d 0 -1 WITHSCORES", "*6 $1 x $1 1 $1 y $1 2 $1 z $1 3");
    }

    #[test]
    fn bad_requests_are_refused() {
        let mut bench = bench();
        bench.expect("SET str 1", "+OK");
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("ZUNION 2 a str FOO", wrong);
        bench.expect("ZUNION 3 a str FOO", wrong);
        let error = "-ERR at least 1 input key is needed for 'zunionstore' command";
        bench.expect("ZUNIONSTORE d 0 a", error);
        bench.expect("ZUNIONSTORE d -9 a", error);
        bench.expect("ZDIFF 0 a", "-ERR at least 1 input key is needed for 'zdiff' command");
        bench.expect("ZUNION x a", "-ERR value is not an integer or out of range");
        for request in [
            "ZUNION 2 a",
            "ZUNION 9223372036854775807 a",
            "ZUNION 1 a WEIGHTS",
            "ZUNION 1 a WEIGHTS 1 2",
            "ZUNION 1 a AGGREGATE",
            "ZUNION 1 a AGGREGATE FOO",
            "ZUNION 1 a LIMIT 1",
            "ZUNIONSTORE d 1 a WITHSCORES",
            "ZDIFF 1 a WEIGHTS 1",
            "ZDIFF 1 a AGGREGATE SUM",
            "ZINTERCARD 1 a WITHSCORES",
            "ZINTERCARD 1 a LIMIT",
        ] {
            bench.expect(request, "-ERR syntax error");
        }
        bench.expect("ZUNION 1 a WEIGHTS x", "-ERR weight value is not a float");
        bench.expect("ZINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative");
        bench.expect("ZINTERCARD 1 a LIMIT x", "-ERR LIMIT can't be negative");
    }
}

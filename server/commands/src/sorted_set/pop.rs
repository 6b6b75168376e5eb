//! Removing the members at either end and returning them.

use carnelian_keyspace::EventClass;
use carnelian_resp::Protocol;
use carnelian_structs::listpack::Direction;
use carnelian_structs::sorted_set::SortedSet;

use super::{POP_FROM, write_member};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const ZPOPMIN: DataCommand = DataCommand {
    name: "zpopmin",
    summary: "Removes and returns the members with the lowest scores.",
    since: "5.0.0",
    group: Group::SortedSet,
    complexity: "O(log(N)*M), with N members in the sorted set and M removed",
    arity: -2,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: POP_FROM,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zpopmin,
};

pub(super) const ZPOPMAX: DataCommand = DataCommand {
    name: "zpopmax",
    summary: "Removes and returns the members with the highest scores.",
    since: "5.0.0",
    group: Group::SortedSet,
    complexity: "O(log(N)*M), with N members in the sorted set and M removed",
    arity: -2,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: POP_FROM,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zpopmax,
};

pub(super) const ZMPOP: DataCommand = DataCommand {
    name: "zmpop",
    summary: "Removes and returns members from the first of several sorted sets that is there.",
    since: "7.0.0",
    group: Group::SortedSet,
    complexity: "O(K) + O(M*log(N)), with K keys, N members in the sorted set and M removed",
    arity: -4,
    flags: Flags::MOVABLEKEYS.union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: &[KeySpec::counted(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zmpop,
};

/// Where members are taken.
#[derive(Clone, Copy)]
pub(super) enum End {
    Min,
    Max,
}

impl End {
    const fn direction(self) -> Direction {
        match self {
            Self::Min => Direction::Forward,
            Self::Max => Direction::Backward,
        }
    }

    const fn event(self) -> &'static str {
        match self {
            Self::Min => "zpopmin",
            Self::Max => "zpopmax",
        }
    }

    pub(super) const fn command(self) -> &'static [u8] {
        match self {
            Self::Min => b"ZPOPMIN",
            Self::Max => b"ZPOPMAX",
        }
    }
}

/// How popped members are replied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Members and scores in turns.
    Flat,
    /// Pairs.
    Nested,
    /// The key, then pairs.
    Keyed,
    /// The key, the one member and its score.
    Single,
}

/// `ZPOPMIN key [count]`
fn zpopmin(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    pop_one_key(call, End::Min)
}

/// `ZPOPMAX key [count]`
fn zpopmax(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    pop_one_key(call, End::Max)
}

fn pop_one_key(call: &mut Call<'_>, end: End) -> Result<Effect, CommandError> {
    let (count, shape) = match &call.args[2..] {
        [] => (1, Shape::Flat),
        [count] => {
            let nested = call.reply.protocol() == Protocol::Resp3;
            (args::positive(count)?, if nested { Shape::Nested } else { Shape::Flat })
        }
        _ => return Err(CommandError::Syntax),
    };
    if pop(call, call.args[1], end, count, shape)?.is_none_or(|popped| popped == 0) {
        call.reply.array(0);
        return Ok(Effect::None);
    }
    Ok(Effect::Verbatim)
}

/// `ZMPOP numkeys key [key ...] <MIN | MAX> [COUNT count]`
fn zmpop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let ask = Ask::parse(call.args)?;
    if let Some(effect) = pop_from_first(call, &ask)? {
        return Ok(effect);
    }
    call.reply.null_array();
    Ok(Effect::None)
}

/// What ZMPOP or BZMPOP is to pop, and from where.
pub(super) struct Ask<'w> {
    pub(super) keys: &'w [&'w [u8]],
    end: End,
    count: u64,
}

impl<'w> Ask<'w> {
    /// Reads a request of ZMPOP, or the part of a BZMPOP that looks like one.
    pub(super) fn parse(words: &'w [&'w [u8]]) -> Result<Self, CommandError> {
        let at_least_one = |word: &[u8], error: &'static str| match args::positive(word) {
            Ok(number) if 0 < number => Ok(number),
            _ => Err(CommandError::text(error)),
        };
        let keys = at_least_one(words[1], "ERR numkeys should be greater than 0")?;
        let keys = usize::try_from(keys).unwrap_or(usize::MAX);
        let Some((keys, [end, options @ ..])) = words[2..].split_at_checked(keys) else {
            return Err(CommandError::Syntax);
        };
        let end = match end {
            word if args::is(word, "MIN") => End::Min,
            word if args::is(word, "MAX") => End::Max,
            _ => return Err(CommandError::Syntax),
        };
        let count = match options {
            [] => 1,
            [word, count, rest @ ..] if args::is(word, "COUNT") => {
                let count = at_least_one(count, "ERR count should be greater than 0")?;
                if !rest.is_empty() {
                    return Err(CommandError::Syntax);
                }
                count
            }
            _ => return Err(CommandError::Syntax),
        };
        Ok(Self { keys, end, count })
    }
}

/// Pops from the first of the keys that is there; `None`, and no reply, if none is.
pub(super) fn pop_from_first(
    call: &mut Call<'_>,
    ask: &Ask<'_>,
) -> Result<Option<Effect>, CommandError> {
    for key in ask.keys {
        if let Some(popped) = pop(call, key, ask.end, ask.count, Shape::Keyed)? {
            let mut count = itoa::Buffer::new();
            let words = [ask.end.command(), key, count.format(popped).as_bytes()];
            return Ok(Some(call.rewritten(&words)));
        }
    }
    Ok(None)
}

/// Pops up to `count` members and replies with them; how many they were. `None`, and no reply, if
/// the key is missing; no reply either if the count is 0.
pub(super) fn pop(
    call: &mut Call<'_>,
    key: &[u8],
    end: End,
    count: u64,
    shape: Shape,
) -> Result<Option<usize>, CommandError> {
    let Some(mut set) = call.db.write_as::<SortedSet>(key)? else { return Ok(None) };
    let len = set.len();
    let count = usize::try_from(count).map_or(len, |count| count.min(len));
    if count == 0 {
        set.unchanged();
        return Ok(Some(0));
    }
    let ranks = match end {
        End::Min => 0..count,
        End::Max => len - count..len,
    };
    let reply = &mut call.reply;
    match shape {
        Shape::Flat => reply.array(2 * count),
        Shape::Nested => reply.array(count),
        Shape::Keyed => {
            reply.array(2);
            reply.bulk(key);
            reply.array(count);
        }
        Shape::Single => {
            reply.array(3);
            reply.bulk(key);
        }
    }
    let pairs = matches!(shape, Shape::Nested | Shape::Keyed);
    for (member, score) in set.range(ranks.clone(), end.direction()) {
        if pairs {
            reply.array(2);
        }
        write_member(reply, member);
        reply.double(score);
    }
    set.remove_ranks(ranks);
    drop(set);
    call.dirty(count);
    call.notify(EventClass::SortedSet, end.event(), key);
    if count == len {
        call.notify(EventClass::Generic, "del", key);
    }
    Ok(Some(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    #[test]
    fn members_leave_from_either_end() {
        for size in [0, 128] {
            let mut bench = Bench::new();
            bench.environment.limits.zset_max_listpack_entries = size;
            bench.expect("ZADD k 1 a 2 b 3 c 4 d 5 e 6 f", ":6");
            bench.expect("ZPOPMIN k", "*2 $1 a $1 1");
            bench.expect("ZPOPMAX k", "*2 $1 f $1 6");
            bench.expect("ZPOPMAX k 2", "*4 $1 e $1 5 $1 d $1 4");
            bench.expect("ZPOPMIN k 0", "*0");
            bench.protocol = Protocol::Resp3;
            bench.expect("ZPOPMIN k", "*2 $1 b ,2");
            bench.expect("ZPOPMIN k 9223372036854775807", "*1 *2 $1 c ,3");
            bench.expect("ZPOPMIN k 0", "*0");
            bench.expect("ZPOPMIN k", "*0");
            bench.expect("SET k 1 NX", "+OK");
            let error = "-WRONGTYPE Operation against a key holding the wrong kind of value";
            bench.expect("ZPOPMIN k 0", error);
        }
    }

    #[test]
    fn bad_counts_are_refused() {
        let mut bench = Bench::new();
        bench.expect("ZPOPMIN k -1", "-ERR value is out of range, must be positive");
        bench.expect("ZPOPMAX k x", "-ERR value is out of range, must be positive");
        bench.expect("ZPOPMIN k 1 2", "-ERR syntax error");
    }

    #[test]
    fn zmpop_takes_from_the_first_key_there() {
        let mut bench = Bench::new();
        bench.expect("ZADD b 1 x 2 y 3 z", ":3");
        bench.expect("ZMPOP 2 a b MIN", "*2 $1 b *1 *2 $1 x $1 1");
        bench.expect("ZMPOP 3 a b c max COUNT 9", "*2 $1 b *2 *2 $1 z $1 3 *2 $1 y $1 2");
        bench.expect("ZMPOP 2 a b MIN", "*-1");
        let effects = String::from_utf8_lossy(&bench.effects).into_owned();
        assert_eq!(
            effects.replace("\r\n", " "),
            "*3 $7 ZPOPMIN $1 b $1 1 *3 $7 ZPOPMAX $1 b $1 2 "
        );
    }

    #[test]
    fn bad_zmpops_are_refused() {
        let mut bench = Bench::new();
        for numkeys in ["0", "-1", "x"] {
            let error = "-ERR numkeys should be greater than 0";
            bench.expect(&format!("ZMPOP {numkeys} k MIN"), error);
        }
        for count in ["0", "-1", "x", "0 COUNT 1"] {
            let error = "-ERR count should be greater than 0";
            bench.expect(&format!("ZMPOP 1 k MIN COUNT {count}"), error);
        }
        for rest in
            ["2 k MIN", "9223372036854775807 k MIN", "1 k FOO", "1 k MIN COUNT", "1 k MIN FOO 1"]
        {
            bench.expect(&format!("ZMPOP {rest}"), "-ERR syntax error");
        }
        bench.expect("ZMPOP 1 k MIN COUNT 1 COUNT 1", "-ERR syntax error");
    }
}

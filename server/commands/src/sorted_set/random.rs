//! ZRANDMEMBER.

use std::collections::HashSet;

use carnelian_structs::listpack::{Direction, Element};
use carnelian_structs::sorted_set::SortedSet;

use super::{READ_ONE, write_header, write_member, write_members, write_pair};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::lengthy::Lengthy;

pub(super) const ZRANDMEMBER: DataCommand = DataCommand {
    name: "zrandmember",
    summary: "Returns members picked at random.",
    since: "6.2.0",
    group: Group::SortedSet,
    complexity: "O(N) for N members returned",
    arity: -2,
    flags: Flags::READONLY,
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: zrandmember,
};

/// `ZRANDMEMBER key [count [WITHSCORES]]`
fn zrandmember(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let Some(count) = call.args.get(2) else {
        let set = call.db.read_as::<SortedSet>(call.args[1])?;
        match set.as_ref().and_then(|set| pick(set)) {
            Some((member, _)) => write_member(&mut call.reply, member),
            None => call.reply.null(),
        }
        return Ok(Effect::None);
    };
    let count = args::integer(count)?;
    if count == i64::MIN {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        ));
    }
    let scores = match &call.args[3..] {
        [] => false,
        [word] if args::is(word, "WITHSCORES") => true,
        _ => return Err(CommandError::Syntax),
    };
    if scores && i64::MAX.unsigned_abs() / 2 < count.unsigned_abs() {
        return Err(CommandError::OutOfRange);
    }
    sample(call, count, scores)
}

/// A member picked uniformly.
fn pick(set: &SortedSet) -> Option<(Element<'_>, f64)> {
    set.nth(fastrand::usize(..set.len().max(1)))
}

/// Replies with different members, or with any if the count is negative.
fn sample(call: &mut Call<'_>, count: i64, scores: bool) -> Result<Effect, CommandError> {
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let mut lengthy = Lengthy::new(call, wanted);
    let set = call.db.read_as::<SortedSet>(call.args[1])?;
    let Some(set) = set.filter(|_| count != 0) else {
        call.reply.array(0);
        return Ok(Effect::None);
    };
    let reply = &mut call.reply;
    if 1 < count && set.len() <= wanted {
        write_members(reply, set.range(0..set.len(), Direction::Backward), scores);
        return Ok(Effect::None);
    }
    write_header(reply, wanted, scores);
    let mut write = |(member, score)| {
        if scores {
            write_pair(reply, member, score);
        } else {
            write_member(reply, member);
        }
        reply.len()
    };
    if count <= 1 {
        for picked in std::iter::repeat_with(|| pick(&set)).take(wanted).flatten() {
            if !lengthy.goes_on(write(picked)) {
                break;
            }
        }
        lengthy.finish()?;
    } else if matches!(*set, SortedSet::Listpack(_)) || set.len() < wanted.saturating_mul(3) {
        // In one walk: each member is taken with the chance that is due to it.
        let (mut left, mut missing) = (set.len(), wanted);
        for pair in set.iter() {
            if fastrand::usize(..left) < missing {
                write(pair);
                missing -= 1;
            }
            left -= 1;
        }
    } else {
        let mut ranks = HashSet::with_capacity(wanted);
        while ranks.len() < wanted {
            let rank = fastrand::usize(..set.len());
            if ranks.insert(rank)
                && let Some(pair) = set.nth(rank)
            {
                write(pair);
            }
        }
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use carnelian_resp::Protocol;

    use crate::bench::Bench;

    #[test]
    fn a_sample_has_the_size_asked_for() {
        for size in [0, 128] {
            let mut bench = Bench::new();
            bench.environment.limits.zset_max_listpack_entries = size;
            for member in 0..50 {
                bench.expect(&format!("ZADD k {member}.5 m{member}"), ":1");
            }
            let mut sample = |count: i64| {
                let reply = bench.reply(&format!("ZRANDMEMBER k {count} WITHSCORES"));
                let lines: Vec<_> = reply.split("\r\n").map(str::to_owned).collect();
                assert_eq!(
                    lines[0],
                    format!("*{}", 2 * count.abs().min(if count < 0 { i64::MAX } else { 50 }))
                );
                let mut members = Vec::new();
                for pair in lines[1..].chunks_exact(4) {
                    assert_eq!(pair[3], format!("{}.5", &pair[1][1..]));
                    members.push(pair[1].clone());
                }
                members
            };
            for count in [1, 2, 10, 30, 49, 50, 51, 1000] {
                let members = sample(count);
                assert_eq!(members.len() as i64, count.min(50));
                let different: BTreeSet<_> = members.iter().collect();
                assert_eq!(different.len(), members.len());
            }
            assert_eq!(sample(-1000).len(), 1000);
            let seen: BTreeSet<_> = (0..200).flat_map(|_| sample(5)).collect();
            assert_eq!(seen.len(), 50);
        }
    }

    #[test]
    fn small_cases_and_errors() {
        let mut bench = Bench::new();
        bench.expect("ZRANDMEMBER k", "$-1");
        bench.expect("ZRANDMEMBER k 5", "*0");
        bench.expect("ZADD k 1 7", ":1");
        bench.expect("ZRANDMEMBER k", "$1 7");
        bench.expect("ZRANDMEMBER k 0", "*0");
        bench.expect("ZRANDMEMBER k -2", "*2 $1 7 $1 7");
        bench.protocol = Protocol::Resp3;
        bench.expect("ZRANDMEMBER k 3 WITHSCORES", "*1 *2 $1 7 ,1");
        bench.expect("ZRANDMEMBER k 3 FOO", "-ERR syntax error");
        bench.expect("ZRANDMEMBER k 3 WITHSCORES x", "-ERR syntax error");
        bench.expect("ZRANDMEMBER k x", "-ERR value is not an integer or out of range");
        bench.expect("ZRANDMEMBER k 4611686018427387904 WITHSCORES", "-ERR value is out of range");
        bench.expect("ZRANDMEMBER k 4611686018427387904", "*1 $1 7");
        bench.expect(
            "ZRANDMEMBER k -9223372036854775808",
            "-ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        );
    }
}

//! ZADD and ZINCRBY: giving members scores.

use carnelian_keyspace::EventClass;
use carnelian_structs::sorted_set::{Change, SortedSet};
use smallvec::SmallVec;

use super::limits;
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const ZADD: DataCommand = DataCommand {
    name: "zadd",
    summary: "Adds members with scores, or changes their scores.",
    since: "1.2.0",
    group: Group::SortedSet,
    complexity: "O(log(N)) for each member, with N members in the sorted set",
    arity: -4,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::UPDATE), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zadd,
};

pub(super) const ZINCRBY: DataCommand = DataCommand {
    name: "zincrby",
    summary: "Adds to the score of a member.",
    since: "1.2.0",
    group: Group::SortedSet,
    complexity: "O(log(N)), with N members in the sorted set",
    arity: 4,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::SORTEDSET,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: zincrby,
};

/// Which changes ZADD makes, and what it replies.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// NX: leave members alone that are there.
    pub(crate) only_new: bool,
    /// XX: add no members.
    pub(crate) only_present: bool,
    /// GT: only raise scores.
    only_up: bool,
    /// LT: only lower scores.
    only_down: bool,
    /// INCR: add to the score instead of replacing it, and reply with it.
    increment: bool,
    /// CH: count changed members besides new ones.
    pub(crate) count_changed: bool,
}

impl Options {
    /// The options, and the pairs of scores and members that follow them.
    fn parse<'w>(mut self, words: &'w [&'w [u8]]) -> Result<(Self, Pairs<'w>), CommandError> {
        let mut rest = words;
        while let [word, tail @ ..] = rest {
            if args::is(word, "NX") {
                self.only_new = true;
            } else if args::is(word, "XX") {
                self.only_present = true;
            } else if args::is(word, "CH") {
                self.count_changed = true;
            } else if args::is(word, "INCR") {
                self.increment = true;
            } else if args::is(word, "GT") {
                self.only_up = true;
            } else if args::is(word, "LT") {
                self.only_down = true;
            } else {
                break;
            }
            rest = tail;
        }
        let (pairs, odd) = rest.as_chunks();
        if pairs.is_empty() || !odd.is_empty() {
            return Err(CommandError::Syntax);
        }
        self.check(pairs)?;
        Ok((self, pairs))
    }

    fn check(self, pairs: Pairs<'_>) -> Result<(), CommandError> {
        let refused = if self.only_new && self.only_present {
            "ERR XX and NX options at the same time are not compatible"
        } else if (self.only_new && (self.only_up || self.only_down))
            || (self.only_up && self.only_down)
        {
            "ERR GT, LT, and/or NX options at the same time are not compatible"
        } else if self.increment && 1 < pairs.len() {
            "ERR INCR option supports a single increment-element pair"
        } else {
            return Ok(());
        };
        Err(CommandError::text(refused))
    }

    /// What becomes of one member.
    fn decide(self, old: Option<f64>, given: f64) -> Verdict {
        let Some(old) = old else {
            return if self.only_present { Verdict::Skip } else { Verdict::Set(given) };
        };
        if self.only_new {
            return Verdict::Skip;
        }
        let score = if self.increment { old + given } else { given };
        if score.is_nan() {
            Verdict::NotANumber
        } else if (self.only_down && old <= score) || (self.only_up && score <= old) {
            Verdict::Skip
        } else {
            Verdict::Set(score)
        }
    }
}

/// Scores and members.
pub(crate) type Pairs<'w> = &'w [[&'w [u8]; 2]];

#[derive(Clone, Copy)]
enum Verdict {
    Skip,
    Set(f64),
    /// The increment of an infinite score was infinite the other way.
    NotANumber,
}

/// `ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]`
fn zadd(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    add(call, Options::default())
}

/// `ZINCRBY key increment member`
fn zincrby(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    add(call, Options { increment: true, ..Options::default() })
}

fn add(call: &mut Call<'_>, options: Options) -> Result<Effect, CommandError> {
    let request = call.args;
    let (options, pairs) = options.parse(&request[2..])?;
    // All scores are read before the first is used: the command is done as a whole or not at all.
    let scores: SmallVec<[f64; 16]> =
        pairs.iter().map(|[score, _]| args::float(score)).collect::<Result<_, _>>()?;
    add_scored(call, pairs, &scores, options)
}

/// Adds members whose scores have been read: the first word of each pair is not looked at.
pub(crate) fn add_scored(
    call: &mut Call<'_>,
    pairs: Pairs<'_>,
    scores: &[f64],
    options: Options,
) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let Some(tally) = add_all(call, pairs, scores, options)? else {
        // There is no key, and none is to be made.
        if options.increment {
            call.reply.null();
        } else {
            call.reply.integer(0);
        }
        return Ok(Effect::None);
    };
    if options.increment {
        match tally.last {
            Verdict::Skip => call.reply.null(),
            Verdict::Set(score) => call.reply.double(score),
            Verdict::NotANumber => return Err(CommandError::ScoreNotANumber),
        }
    } else {
        let changed = if options.count_changed { tally.updated } else { 0 };
        call.reply.integer((tally.added + changed) as i64);
    }
    let changes = tally.added + tally.updated;
    if changes == 0 {
        return Ok(Effect::None);
    }
    call.dirty(changes);
    let event = if options.increment { "zincr" } else { "zadd" };
    call.notify(EventClass::SortedSet, event, key);
    Ok(Effect::Verbatim)
}

/// What ZADD did.
struct Tally {
    added: usize,
    updated: usize,
    /// What became of the last member: with INCR, the only one.
    last: Verdict,
}

/// Adds the members in one lookup of the key; `None` if there is none and XX forbids to make it.
fn add_all(
    call: &mut Call<'_>,
    pairs: Pairs<'_>,
    scores: &[f64],
    options: Options,
) -> Result<Option<Tally>, CommandError> {
    let (key, limits) = (call.args[1], limits(call));
    let mut set = if options.only_present {
        let Some(set) = call.db.write_as::<SortedSet>(key)? else { return Ok(None) };
        set
    } else {
        let make = || SortedSet::for_members(pairs.len(), pairs[0][1].len(), limits);
        call.db.write_or_insert(key, make)?
    };
    set.expect_members(pairs.len(), limits);
    let mut tally = Tally { added: 0, updated: 0, last: Verdict::Skip };
    for ([_, member], &given) in pairs.iter().zip(scores) {
        let change = set.change(member, limits, |old| {
            tally.last = options.decide(old, given);
            if let Verdict::Set(score) = tally.last { Some(score) } else { None }
        });
        match change {
            Change::Added => tally.added += 1,
            Change::Updated => tally.updated += 1,
            Change::Unchanged => {}
        }
    }
    if tally.added + tally.updated == 0 && !set.is_empty() {
        set.unchanged();
    }
    Ok(Some(tally))
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn zadd_adds_and_changes() {
        let mut bench = Bench::new();
        bench.expect("ZADD k 1 a 2 b", ":2");
        bench.expect("ZADD k 3 a 4 c", ":1");
        bench.expect("ZADD k CH 3 a 5 c 6 d", ":2");
        bench.expect("ZRANGE k 0 -1 WITHSCORES", "*8 $1 b $1 2 $1 a $1 3 $1 c $1 5 $1 d $1 6");
        bench.expect("ZADD k 1 x 2 x", ":1");
        bench.expect("ZSCORE k x", "$1 2");
        bench.expect("ZADD k -0 zero", ":1");
        bench.expect("ZSCORE k zero", "$1 0");
    }

    #[test]
    fn conditions_hold_members_back() {
        let mut bench = Bench::new();
        bench.expect("ZADD k XX 1 a", ":0");
        bench.expect("ZADD k NX 1 a 5 b", ":2");
        bench.expect("ZADD k NX CH 9 a 9 c", ":1");
        bench.expect("ZADD k XX CH 2 a 2 new", ":1");
        bench.expect("ZADD k GT CH 1 a 6 b 1 d", ":2");
        bench.expect("ZADD k LT CH 1 a 7 b", ":1");
        bench.expect("ZADD k XX GT INCR 1 a", "$1 2");
        bench.expect("ZADD k XX LT INCR 1 a", "$-1");
        bench.expect("ZADD k NX INCR 1 a", "$-1");
        bench.expect("ZADD k XX INCR 1 absent", "$-1");
        bench.expect("ZADD k INCR -0.5 absent", "$4 -0.5");
        bench.expect("ZADD other XX INCR 1 a", "$-1");
        bench.expect("ZCARD other", ":0");
    }

    #[test]
    fn options_that_contradict_are_refused() {
        let mut bench = Bench::new();
        bench.expect(
            "ZADD k NX XX 1 a",
            "-ERR XX and NX options at the same time are not compatible",
        );
        let error = "-ERR GT, LT, and/or NX options at the same time are not compatible";
        bench.expect("ZADD k GT LT 1 a", error);
        bench.expect("ZADD k GT NX 1 a", error);
        bench.expect("ZADD k NX LT 1 a", error);
        let error = "-ERR INCR option supports a single increment-element pair";
        bench.expect("ZADD k INCR 1 a 2 b", error);
        bench.expect("ZADD k NX XX 1", "-ERR syntax error");
        bench.expect("ZADD k CH NX", "-ERR syntax error");
        bench.expect("ZADD k 1 a 2", "-ERR syntax error");
        bench.expect("ZINCRBY k NX a", "-ERR syntax error");
        bench.expect("ZADD k 1 a x b", "-ERR value is not a valid float");
        bench.expect("ZADD k nan a", "-ERR value is not a valid float");
        bench.expect("ZCARD k", ":0");
        bench.expect("SET s 1", "+OK");
        let error = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("ZADD s 1 a", error);
        bench.expect("ZADD s XX 1 a", error);
    }

    #[test]
    fn increments_add_up() {
        let mut bench = Bench::new();
        bench.expect("ZINCRBY k 1.5 a", "$3 1.5");
        bench.expect("ZINCRBY k 1.5 a", "$1 3");
        bench.expect("ZINCRBY k -inf a", "$4 -inf");
        bench.expect("ZINCRBY k +inf a", "-ERR resulting score is not a number (NaN)");
        bench.expect("ZSCORE k a", "$4 -inf");
        bench.expect("ZINCRBY k x a", "-ERR value is not a valid float");
    }

    #[test]
    fn the_number_of_pairs_decides_on_the_encoding() {
        let mut bench = Bench::new();
        bench.environment.limits.zset_max_listpack_entries = 2;
        bench.expect("ZADD k 1 a 2 b", ":2");
        bench.expect("ZADD k 1 a 2 b 2 b", ":0");
        bench.expect("ZRANK k b WITHSCORE", "*2 :1 $1 2");
        bench.expect("ZADD k 1 c", ":1");
        bench.expect("ZRANGE k 0 -1", "*3 $1 a $1 c $1 b");
    }
}

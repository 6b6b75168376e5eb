//! Reading lists: LLEN, LINDEX, LRANGE, LPOS.

use carnelian_structs::list::{List, Positions};

use super::{LOOK, READ};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::element;
use crate::error::CommandError;

pub(super) const LLEN: DataCommand = DataCommand {
    name: "llen",
    summary: "Counts the elements of a list.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::LIST,
    keys: LOOK,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: llen,
};

pub(super) const LINDEX: DataCommand = DataCommand {
    name: "lindex",
    summary: "Returns the element of a list at an index.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(N) for N elements between the index and the nearer end",
    arity: 3,
    flags: Flags::READONLY,
    categories: Categories::LIST,
    keys: READ,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lindex,
};

pub(super) const LRANGE: DataCommand = DataCommand {
    name: "lrange",
    summary: "Returns a range of the elements of a list.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(S+N) for a start S elements from the nearer end and N elements",
    arity: 4,
    flags: Flags::READONLY,
    categories: Categories::LIST,
    keys: READ,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lrange,
};

pub(super) const LPOS: DataCommand = DataCommand {
    name: "lpos",
    summary: "Returns the indexes at which a list holds an element.",
    since: "6.0.6",
    group: Group::List,
    complexity: "O(N) for N elements in the list",
    arity: -3,
    flags: Flags::READONLY,
    categories: Categories::LIST,
    keys: READ,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lpos,
};

/// `LLEN key`
fn llen(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let len = call.db.read_as::<List>(call.args[1])?.map_or(0, |list| list.len());
    call.reply.integer(len as i64);
    Ok(Effect::None)
}

/// `LINDEX key index`
fn lindex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let Some(list) = call.db.read_as::<List>(call.args[1])? else {
        call.reply.null();
        return Ok(Effect::None);
    };
    let index = args::integer(call.args[2])?;
    let found = list.get(index, |element| element::bulk(&mut call.reply, element));
    if found.is_none() {
        call.reply.null();
    }
    Ok(Effect::None)
}

/// `LRANGE key start stop`
fn lrange(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (start, stop) = (args::integer(call.args[2])?, args::integer(call.args[3])?);
    let list = call.db.read_as::<List>(call.args[1])?;
    let reply = &mut call.reply;
    let found = list.and_then(|list| Some((args::range(start, stop, list.len())?, list)));
    let Some(((first, last), list)) = found else {
        reply.array(0);
        return Ok(Effect::None);
    };
    let count = last - first + 1;
    reply.array(count);
    list.for_range(first, count, |element| element::bulk(reply, element));
    Ok(Effect::None)
}

/// The options of LPOS.
struct Search {
    positions: Positions,
    /// All that are found are asked for, in an array.
    many: bool,
}

impl Search {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let positions = Positions { rank: 1, count: 1, look_at_max: 0 };
        let mut search = Self { positions, many: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(CommandError::Syntax)?;
            if args::is(word, "RANK") {
                search.positions.rank = rank(value)?;
            } else if args::is(word, "COUNT") {
                search.positions.count = count(value, "ERR COUNT can't be negative")?;
                search.many = true;
            } else if args::is(word, "MAXLEN") {
                search.positions.look_at_max = count(value, "ERR MAXLEN can't be negative")?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(search)
    }
}

fn rank(word: &[u8]) -> Result<i64, CommandError> {
    match args::integer(word)? {
        0 => Err(CommandError::text(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... \
             or use negative to start from the end of the list",
        )),
        i64::MIN => Err(CommandError::BelowMinusMax),
        rank => Ok(rank),
    }
}

fn count(word: &[u8], refusal: &'static str) -> Result<usize, CommandError> {
    let count = args::positive(word).map_err(|_| CommandError::text(refusal))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// `LPOS key element [RANK rank] [COUNT matches] [MAXLEN len]`
fn lpos(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let search = Search::parse(&call.args[3..])?;
    let list = call.db.read_as::<List>(call.args[1])?;
    let reply = &mut call.reply;
    let mut found = 0;
    if search.many {
        let Some(list) = list else {
            reply.array(0);
            return Ok(Effect::None);
        };
        let mark = reply.defer();
        list.positions(call.args[2], search.positions, |index| {
            reply.integer(index as i64);
            found += 1;
        });
        reply.finish_array(mark, found);
        return Ok(Effect::None);
    }
    if let Some(list) = list {
        list.positions(call.args[2], search.positions, |index| {
            reply.integer(index as i64);
            found += 1;
        });
    }
    if found == 0 {
        reply.null();
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn ranges_and_indexes_count_from_either_end() {
        let mut bench = Bench::new();
        bench.expect("LRANGE k 0 -1", "*0");
        bench.expect("LINDEX k x", "$-1");
        bench.expect("RPUSH k a 22 c", ":3");
        bench.expect("LLEN k", ":3");
        bench.expect("LINDEX k 1", "$2 22");
        bench.expect("LINDEX k -1", "$1 c");
        bench.expect("LINDEX k 3", "$-1");
        bench.expect("LINDEX k x", "-ERR value is not an integer or out of range");
        bench.expect("LRANGE k -2 100", "*2 $2 22 $1 c");
        bench.expect("LRANGE k 2 1", "*0");
        bench.expect("LRANGE k 0 x", "-ERR value is not an integer or out of range");
        bench.expect("LRANGE k -9223372036854775808 9223372036854775807", "*3 $1 a $2 22 $1 c");
    }

    #[test]
    fn lpos_searches_from_either_end() {
        let mut bench = Bench::new();
        bench.expect("LPOS k a", "$-1");
        bench.expect("LPOS k a COUNT 0", "*0");
        bench.expect("RPUSH k a b c 1 2 3 c c", ":8");
        bench.expect("LPOS k c", ":2");
        bench.expect("LPOS k c RANK -1", ":7");
        bench.expect("LPOS k c RANK 4", "$-1");
        bench.expect("LPOS k c COUNT 0", "*3 :2 :6 :7");
        bench.expect("LPOS k c COUNT 2 RANK -1", "*2 :7 :6");
        bench.expect("LPOS k c COUNT 0 MAXLEN 3", "*1 :2");
        bench.expect("LPOS k 3 MAXLEN 5", "$-1");
        bench.expect("LPOS k c RANK -1 MAXLEN 1", ":7");
        bench.expect("LPOS k x COUNT 1", "*0");
    }

    #[test]
    fn lpos_refuses_what_makes_no_sense() {
        let mut bench = Bench::new();
        let zero = "-ERR RANK can't be zero: use 1 to start from the first match, 2 from the \
                    second ... or use negative to start from the end of the list";
        bench.expect("LPOS k a RANK 0", zero);
        bench.expect("LPOS k a RANK x", "-ERR value is not an integer or out of range");
        bench.expect(
            "LPOS k a RANK -9223372036854775808",
            "-ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        );
        bench.expect("LPOS k a COUNT -1", "-ERR COUNT can't be negative");
        bench.expect("LPOS k a MAXLEN x", "-ERR MAXLEN can't be negative");
        bench.expect("LPOS k a RANK", "-ERR syntax error");
        bench.expect("LPOS k a FOO 1", "-ERR syntax error");
    }
}

//! Removing from the ends of a list: LPOP, RPOP, LMPOP.

use carnelian_keyspace::Mut;
use carnelian_resp::Writer;
use carnelian_structs::list::{End, List, ListLimits};
use carnelian_structs::listpack::Direction;

use super::{TAKE, end, limits, notify_popped};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::element;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const LPOP: DataCommand = DataCommand {
    name: "lpop",
    summary: "Removes and returns the first elements of a list.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(N) for N elements removed",
    arity: -2,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::LIST,
    keys: TAKE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lpop,
};

pub(super) const RPOP: DataCommand = DataCommand {
    name: "rpop",
    summary: "Removes and returns the last elements of a list.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(N) for N elements removed",
    arity: -2,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::LIST,
    keys: TAKE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: rpop,
};

pub(super) const LMPOP: DataCommand = DataCommand {
    name: "lmpop",
    summary: "Removes and returns elements of the first list of several that is not empty.",
    since: "7.0.0",
    group: Group::List,
    complexity: "O(N+M) for N keys and M elements removed",
    arity: -4,
    flags: Flags::MOVABLEKEYS.union(Flags::WRITE),
    categories: Categories::LIST,
    keys: &[KeySpec::counted(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lmpop,
};

/// `LPOP key [count]`
fn lpop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    pop(call, End::Front, "lpop")
}

/// `RPOP key [count]`
fn rpop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    pop(call, End::Back, "rpop")
}

fn pop(call: &mut Call<'_>, end: End, name: &'static str) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let count = match call.args {
        [_, _] => None,
        [_, _, count] => Some(args::positive(count)?),
        _ => return Err(CommandError::Arity(name.into())),
    };
    let limits = limits(call);
    let Some(mut list) = call.db.write_as::<List>(key)? else {
        match count {
            None => call.reply.null(),
            Some(_) => call.reply.null_array(),
        }
        return Ok(Effect::None);
    };
    let popped = match count {
        None => {
            list.pop(end, limits, |element| element::bulk(&mut call.reply, element));
            1
        }
        Some(0) => {
            list.unchanged();
            call.reply.array(0);
            return Ok(Effect::None);
        }
        Some(count) => pop_many(&mut list, &mut call.reply, end, count, limits),
    };
    let emptied = list.is_empty();
    drop(list);
    notify_popped(call, key, end, emptied);
    call.dirty(popped);
    Ok(Effect::Verbatim)
}

/// Replies with up to `count` elements, the outermost first, and removes them. How many.
fn pop_many(
    list: &mut Mut<'_, List>,
    reply: &mut Writer<'_>,
    end: End,
    count: u64,
    limits: ListLimits,
) -> usize {
    let len = list.len();
    let count = usize::try_from(count).map_or(len, |count| count.min(len));
    reply.array(count);
    match end {
        End::Front => {
            list.for_range(0, count, |element| element::bulk(reply, element));
            list.remove_range(0, count, limits);
        }
        End::Back => {
            let mut elements = list.iter_from(len - 1, Direction::Backward);
            for _ in 0..count {
                let Some(element) = elements.next() else { break };
                element::bulk(reply, element);
            }
            drop(elements);
            list.remove_range(len - count, count, limits);
        }
    }
    count
}

/// What LMPOP or BLMPOP is to pop, and from where.
pub(super) struct Ask<'w> {
    pub(super) keys: &'w [&'w [u8]],
    end: End,
    count: u64,
}

impl<'w> Ask<'w> {
    /// Reads a request of LMPOP, or the part of a BLMPOP that looks like one.
    pub(super) fn parse(words: &'w [&'w [u8]]) -> Result<Self, CommandError> {
        let refused = || CommandError::text("ERR numkeys should be greater than 0");
        let keys = args::positive(words[1]).ok().filter(|&keys| keys != 0).ok_or_else(refused)?;
        let after = usize::try_from(keys).ok().and_then(|keys| keys.checked_add(2));
        let after = after.filter(|&after| after < words.len()).ok_or(CommandError::Syntax)?;
        let mut ask = Self { keys: &words[2..after], end: end(words[after])?, count: 1 };
        match &words[after + 1..] {
            [] => {}
            [word, count, rest @ ..] if args::is(word, "COUNT") => {
                let refused = || CommandError::text("ERR count should be greater than 0");
                let count = args::positive(count).ok().filter(|&count| count != 0);
                ask.count = count.ok_or_else(refused)?;
                if !rest.is_empty() {
                    return Err(CommandError::Syntax);
                }
            }
            _ => return Err(CommandError::Syntax),
        }
        Ok(ask)
    }
}

/// `LMPOP numkeys key [key ...] LEFT | RIGHT [COUNT count]`
fn lmpop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let ask = Ask::parse(call.args)?;
    if let Some(effect) = pop_from_first(call, &ask)? {
        return Ok(effect);
    }
    call.reply.null_array();
    Ok(Effect::None)
}

/// Pops from the first of the keys that is there; `None`, and no reply, if none is.
pub(super) fn pop_from_first(
    call: &mut Call<'_>,
    ask: &Ask<'_>,
) -> Result<Option<Effect>, CommandError> {
    let limits = limits(call);
    for key in ask.keys {
        let Some(mut list) = call.db.write_as::<List>(key)? else { continue };
        call.reply.array(2);
        call.reply.bulk(key);
        let popped = pop_many(&mut list, &mut call.reply, ask.end, ask.count, limits);
        let emptied = list.is_empty();
        drop(list);
        notify_popped(call, key, ask.end, emptied);
        call.dirty(popped);
        let mut rewrite = call.rewrite();
        if call.db.changes.following {
            let name: &[u8] = if ask.end == End::Front { b"LPOP" } else { b"RPOP" };
            rewrite.command(&[name, key, popped.to_string().as_bytes()]);
        }
        return Ok(Some(Effect::Rewrite(rewrite)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use crate::bench::Bench;

    #[test]
    fn a_count_makes_the_reply_an_array() {
        let mut bench = Bench::new();
        bench.expect("LPOP k", "$-1");
        bench.expect("LPOP k 0", "*-1");
        bench.expect("RPUSH k a b c 4 5 6", ":6");
        bench.expect("LPOP k", "$1 a");
        bench.expect("RPOP k 2", "*2 $1 6 $1 5");
        assert_eq!(bench.dirty, 2);
        bench.expect("LPOP k 0", "*0");
        assert_eq!((bench.dirty, bench.touched), (0, 0));
        bench.expect("LPOP k -1", "-ERR value is out of range, must be positive");
        bench.expect("LPOP k x", "-ERR value is out of range, must be positive");
        bench.expect("RPOP k 1 2", "-ERR wrong number of arguments for 'rpop' command");
        bench.events.clear();
        bench.expect("RPOP k 9223372036854775807", "*3 $1 4 $1 c $1 b");
        assert_eq!(bench.events, ["rpop k", "del k"]);
        bench.expect("LLEN k", ":0");
        bench.protocol = Protocol::Resp3;
        bench.expect("LPOP k", "_");
        bench.expect("LPOP k 1", "_");
    }

    #[test]
    fn lmpop_takes_from_the_first_list_there_is() {
        let mut bench = Bench::new();
        bench.expect("LMPOP 2 a b LEFT", "*-1");
        bench.expect("RPUSH b 1 2 3", ":3");
        bench.expect("LMPOP 2 a b RIGHT COUNT 2", "*2 $1 b *2 $1 3 $1 2");
        assert_eq!(bench.effects, b"*3\r\n$4\r\nRPOP\r\n$1\r\nb\r\n$1\r\n2\r\n");
        bench.effects.clear();
        bench.expect("LMPOP 2 a b left COUNT 10", "*2 $1 b *1 $1 1");
        assert_eq!(bench.effects, b"*3\r\n$4\r\nLPOP\r\n$1\r\nb\r\n$1\r\n1\r\n");
        assert_eq!(bench.events, ["new b", "rpush b", "rpop b", "lpop b", "del b"]);
    }

    #[test]
    fn lmpop_refuses_what_makes_no_sense() {
        let mut bench = Bench::new();
        bench.expect("LMPOP 0 a LEFT", "-ERR numkeys should be greater than 0");
        bench.expect("LMPOP x a LEFT", "-ERR numkeys should be greater than 0");
        bench.expect("LMPOP 2 a LEFT", "-ERR syntax error");
        bench.expect("LMPOP 9223372036854775807 a LEFT", "-ERR syntax error");
        bench.expect("LMPOP 1 a UP", "-ERR syntax error");
        bench.expect("LMPOP 1 a LEFT COUNT", "-ERR syntax error");
        bench.expect("LMPOP 1 a LEFT COUNT 0", "-ERR count should be greater than 0");
        bench.expect("LMPOP 1 a LEFT COUNT 1 COUNT 1", "-ERR syntax error");
    }
}

//! The list commands that wait for an element: BLPOP, BRPOP, BLMPOP, BLMOVE, BRPOPLPUSH.
//!
//! Those who follow never wait: they are sent the commands that do not.

use carnelian_keyspace::Kind;
use carnelian_structs::list::{End, List};

use super::pop::{Ask, pop_from_first};
use super::transfer::transfer;
use super::{TRANSFER, end, limits, notify_popped};
use crate::blocking::{deadline, wait_for};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::element;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

const TAKE: KeyFlags = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE);
/// All words but the last, which is the time limit.
const TAKE_ANY: &[KeySpec] = &[KeySpec::range(TAKE, 1, -2, 1)];

pub(super) const BLPOP: DataCommand = DataCommand {
    name: "blpop",
    summary: "Removes and returns the first element of a list, or waits for one.",
    since: "2.0.0",
    group: Group::List,
    complexity: "O(N) for N keys",
    arity: -3,
    flags: Flags::BLOCKING.union(Flags::WRITE),
    categories: Categories::LIST,
    keys: TAKE_ANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: blpop,
};

pub(super) const BRPOP: DataCommand = DataCommand {
    name: "brpop",
    summary: "Removes and returns the last element of a list, or waits for one.",
    since: "2.0.0",
    group: Group::List,
    complexity: "O(N) for N keys",
    arity: -3,
    flags: Flags::BLOCKING.union(Flags::WRITE),
    categories: Categories::LIST,
    keys: TAKE_ANY,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: brpop,
};

pub(super) const BLMPOP: DataCommand = DataCommand {
    name: "blmpop",
    summary: "Removes and returns elements of the first list that is not empty, or waits for some.",
    since: "7.0.0",
    group: Group::List,
    complexity: "O(N+M) for N keys and M elements removed",
    arity: -5,
    flags: Flags::BLOCKING.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    categories: Categories::LIST,
    keys: &[KeySpec::counted(TAKE, 2)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: blmpop,
};

pub(super) const BLMOVE: DataCommand = DataCommand {
    name: "blmove",
    summary: "Moves an element from one list to another and returns it, or waits for one.",
    since: "6.2.0",
    group: Group::List,
    complexity: "O(1)",
    arity: 6,
    flags: Flags::BLOCKING.union(Flags::DENYOOM).union(Flags::WRITE),
    categories: Categories::LIST,
    keys: TRANSFER,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: blmove,
};

pub(super) const BRPOPLPUSH: DataCommand = DataCommand {
    name: "brpoplpush",
    summary: "Moves the last element of a list to the front of another, or waits for one.",
    since: "2.2.0",
    group: Group::List,
    complexity: "O(1)",
    arity: 4,
    flags: Flags::BLOCKING.union(Flags::DENYOOM).union(Flags::WRITE),
    categories: Categories::LIST,
    keys: TRANSFER,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: brpoplpush,
};

/// `BLPOP key [key ...] timeout`
fn blpop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    pop(call, End::Front)
}

/// `BRPOP key [key ...] timeout`
fn brpop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    pop(call, End::Back)
}

fn pop(call: &mut Call<'_>, end: End) -> Result<Effect, CommandError> {
    let request = call.args;
    let (keys, limit) = (&request[1..request.len() - 1], request[request.len() - 1]);
    let deadline_ms = deadline(call, limit)?;
    let limits = limits(call);
    for key in keys {
        let Some(mut list) = call.db.write_as::<List>(key)? else { continue };
        call.reply.array(2);
        call.reply.bulk(key);
        list.pop(end, limits, |element| element::bulk(&mut call.reply, element));
        let emptied = list.is_empty();
        drop(list);
        notify_popped(call, key, end, emptied);
        let name: &[u8] = if end == End::Front { b"LPOP" } else { b"RPOP" };
        return Ok(call.rewritten(&[name, key]));
    }
    Ok(wait_for(call, keys, Kind::List, deadline_ms))
}

/// `BLMPOP timeout numkeys key [key ...] LEFT | RIGHT [COUNT count]`
fn blmpop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let ask = Ask::parse(&call.args[1..])?;
    let deadline_ms = deadline(call, call.args[1])?;
    match pop_from_first(call, &ask)? {
        Some(effect) => Ok(effect),
        None => Ok(wait_for(call, ask.keys, Kind::List, deadline_ms)),
    }
}

/// `BLMOVE source destination LEFT | RIGHT LEFT | RIGHT timeout`
fn blmove(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let request = call.args;
    let (from, to) = (end(request[3])?, end(request[4])?);
    let deadline_ms = deadline(call, request[5])?;
    blocking_transfer(call, from, to, deadline_ms, |call| {
        call.rewritten(&[b"LMOVE", request[1], request[2], request[3], request[4]])
    })
}

/// `BRPOPLPUSH source destination timeout`
fn brpoplpush(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let request = call.args;
    let deadline_ms = deadline(call, request[3])?;
    blocking_transfer(call, End::Back, End::Front, deadline_ms, |call| {
        call.rewritten(&[b"RPOPLPUSH", request[1], request[2]])
    })
}

/// Moves an element, and has `rewrite` say so; or waits.
fn blocking_transfer(
    call: &mut Call<'_>,
    from: End,
    to: End,
    deadline_ms: Option<u64>,
    rewrite: impl FnOnce(&Call<'_>) -> Effect,
) -> Result<Effect, CommandError> {
    let source = call.args[1];
    if transfer(call, from, to)? {
        return Ok(rewrite(call));
    }
    if !call.may_block {
        call.reply.null();
        return Ok(Effect::None);
    }
    Ok(wait_for(call, &[source], Kind::List, deadline_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    #[test]
    fn what_is_there_is_taken_at_once() {
        let mut bench = Bench::new();
        bench.expect("RPUSH b 1 2 3 4 5", ":5");
        bench.expect("BLPOP a b 0", "*2 $1 b $1 1");
        bench.expect("BRPOP a b 0", "*2 $1 b $1 5");
        bench.expect("BLMPOP 0 2 a b RIGHT COUNT 2", "*2 $1 b *2 $1 4 $1 3");
        bench.expect("BRPOPLPUSH b b 0", "$1 2");
        bench.expect("BLMOVE b c LEFT RIGHT 0", "$1 2");
        assert_eq!(
            bench.events,
            [
                "new b", "rpush b", "lpop b", "rpop b", "rpop b", "lpush b", "rpop b", "new c",
                "rpush c", "lpop b", "del b",
            ]
        );
        let effects = String::from_utf8_lossy(&bench.effects).replace("\r\n", " ");
        assert_eq!(
            effects,
            "*2 $4 LPOP $1 b *2 $4 RPOP $1 b *3 $4 RPOP $1 b $1 2 *3 $9 RPOPLPUSH $1 b $1 b \
             *5 $5 LMOVE $1 b $1 c $4 LEFT $5 RIGHT "
        );
    }

    #[test]
    fn nobody_waits_in_a_transaction() {
        let mut bench = Bench::new();
        bench.expect("BLPOP k 0", "*-1");
        bench.expect("BRPOP k k 1", "*-1");
        bench.expect("BLMPOP 0 1 k LEFT", "*-1");
        bench.expect("BLMOVE k j LEFT LEFT 0", "$-1");
        bench.expect("BRPOPLPUSH k j 0", "$-1");
    }

    #[test]
    fn who_waits_says_for_what() {
        let mut bench = Bench::new();
        bench.may_block = true;
        let (effect, reply) = bench.run(blpop, "BLPOP a b 1.5");
        let Effect::Wait(wait) = effect else { panic!("{effect:?}") };
        assert_eq!(reply, "");
        assert_eq!(wait.keys, [b"a".as_slice().into(), b"b".as_slice().into()]);
        assert_eq!(wait.kind, Some(Kind::List));
        assert_eq!(wait.deadline_ms, Some(bench.now_ms + 1500));
        let (effect, _) = bench.run(blmove, "BLMOVE a b LEFT LEFT 0");
        let Effect::Wait(wait) = effect else { panic!("{effect:?}") };
        assert_eq!((wait.keys.len(), wait.deadline_ms), (1, None));
    }

    #[test]
    fn other_types_and_words_are_refused() {
        let mut bench = Bench::new();
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("SET s x", "+OK");
        bench.expect("BLPOP a s 0", wrong);
        bench.expect("BLMOVE s a LEFT LEFT 0", wrong);
        bench.expect("BLPOP s x", "-ERR timeout is not a float or out of range");
        bench.expect("BLMOVE s a UP LEFT x", "-ERR syntax error");
        bench.expect("BLMPOP x 0 a LEFT", "-ERR numkeys should be greater than 0");
        bench.expect("BLMPOP x 1 a UP", "-ERR syntax error");
        bench.expect("BLMPOP x 1 a LEFT COUNT 0", "-ERR count should be greater than 0");
        bench.expect("BLMPOP x 1 a LEFT", "-ERR timeout is not a float or out of range");
        bench.expect("RPUSH l 1", ":1");
        bench.expect("BLMOVE l s LEFT LEFT 0", wrong);
        bench.expect("LLEN l", ":1");
    }
}

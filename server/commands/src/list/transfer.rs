//! Moving an element from one list to another: LMOVE, RPOPLPUSH.

use carnelian_keyspace::Kind;
use carnelian_structs::list::{End, List};

use super::{TRANSFER, end, limits, notify_popped, notify_pushed};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::element;
use crate::error::CommandError;

pub(super) const LMOVE: DataCommand = DataCommand {
    name: "lmove",
    summary: "Moves an element from an end of one list to an end of another and returns it.",
    since: "6.2.0",
    group: Group::List,
    complexity: "O(1)",
    arity: 5,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::LIST,
    keys: TRANSFER,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lmove,
};

pub(super) const RPOPLPUSH: DataCommand = DataCommand {
    name: "rpoplpush",
    summary: "Moves the last element of one list to the front of another and returns it.",
    since: "1.2.0",
    group: Group::List,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::LIST,
    keys: TRANSFER,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: rpoplpush,
};

/// `LMOVE source destination LEFT | RIGHT LEFT | RIGHT`
fn lmove(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (from, to) = (end(call.args[3])?, end(call.args[4])?);
    transfer_or_null(call, from, to)
}

/// `RPOPLPUSH source destination`
fn rpoplpush(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    transfer_or_null(call, End::Back, End::Front)
}

fn transfer_or_null(call: &mut Call<'_>, from: End, to: End) -> Result<Effect, CommandError> {
    if transfer(call, from, to)? {
        return Ok(Effect::Verbatim);
    }
    call.reply.null();
    Ok(Effect::None)
}

/// Moves an element from the key named first to the second and replies with it. False, and no
/// reply, if there is none.
pub(super) fn transfer(call: &mut Call<'_>, from: End, to: End) -> Result<bool, CommandError> {
    let (source, destination) = (call.args[1], call.args[2]);
    let limits = limits(call);
    let same = source == destination;
    let kind = if same { None } else { call.db.kind(destination) };
    let Some(mut list) = call.db.write_as::<List>(source)? else {
        return Ok(false);
    };
    if kind.is_some_and(|kind| kind != Kind::List) {
        list.unchanged();
        return Err(CommandError::WrongType);
    }
    let emptied = if same {
        if let Some(element) = list.peek(from) {
            element::bulk(&mut call.reply, element);
        }
        if from != to {
            list.rotate(from, limits);
        }
        drop(list);
        false
    } else {
        let element = list.pop(from, limits, |element| {
            element::bulk(&mut call.reply, element);
            element.to_vec()
        });
        let element = element.expect("a list that has a key is not empty");
        let emptied = list.is_empty();
        drop(list);
        call.db.write_or_insert(destination, List::new)?.push(to, &[&element], limits);
        emptied
    };
    notify_pushed(call, destination, to);
    notify_popped(call, source, from, emptied);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn elements_move_between_lists() {
        let mut bench = Bench::new();
        bench.expect("RPUSH a 1 2", ":2");
        bench.events.clear();
        bench.expect("LMOVE a b LEFT RIGHT", "$1 1");
        bench.expect("RPOPLPUSH a b", "$1 2");
        bench.expect("LRANGE b 0 -1", "*2 $1 2 $1 1");
        bench.expect("RPOPLPUSH a b", "$-1");
        assert_eq!(bench.events, ["new b", "rpush b", "lpop a", "lpush b", "rpop a", "del a"]);
        bench.expect("LMOVE a b UP LEFT", "-ERR syntax error");
    }

    #[test]
    fn a_list_may_be_its_own_destination() {
        let mut bench = Bench::new();
        bench.expect("RPUSH a 1 2 3", ":3");
        bench.expect("LMOVE a a LEFT RIGHT", "$1 1");
        bench.expect("LRANGE a 0 -1", "*3 $1 2 $1 3 $1 1");
        bench.expect("RPOPLPUSH a a", "$1 1");
        bench.expect("LMOVE a a RIGHT RIGHT", "$1 3");
        bench.expect("LRANGE a 0 -1", "*3 $1 1 $1 2 $1 3");
    }

    #[test]
    fn a_wrong_destination_costs_nothing() {
        let mut bench = Bench::new();
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("RPUSH a 1", ":1");
        bench.expect("SET s x", "+OK");
        bench.expect("LMOVE a s LEFT LEFT", wrong);
        assert_eq!(bench.touched, 0);
        bench.expect("LLEN a", ":1");
        bench.expect("LMOVE missing s LEFT LEFT", "$-1");
        bench.expect("LMOVE s s LEFT LEFT", wrong);
    }
}

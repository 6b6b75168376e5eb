//! Adding at the ends of a list: LPUSH, RPUSH and their X forms.

use carnelian_structs::list::{End, List};

use super::{INSERT, limits, notify_pushed};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const LPUSH: DataCommand = DataCommand {
    name: "lpush",
    summary: "Adds elements before the first of a list, which is made if missing.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(1) for each element",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::LIST,
    keys: INSERT,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lpush,
};

pub(super) const RPUSH: DataCommand = DataCommand {
    name: "rpush",
    summary: "Adds elements after the last of a list, which is made if missing.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(1) for each element",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::LIST,
    keys: INSERT,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: rpush,
};

pub(super) const LPUSHX: DataCommand = DataCommand {
    name: "lpushx",
    summary: "Adds elements before the first of a list that exists.",
    since: "2.2.0",
    group: Group::List,
    complexity: "O(1) for each element",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::LIST,
    keys: INSERT,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lpushx,
};

pub(super) const RPUSHX: DataCommand = DataCommand {
    name: "rpushx",
    summary: "Adds elements after the last of a list that exists.",
    since: "2.2.0",
    group: Group::List,
    complexity: "O(1) for each element",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::LIST,
    keys: INSERT,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: rpushx,
};

/// `LPUSH key element [element ...]`
fn lpush(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    push(call, End::Front)
}

/// `RPUSH key element [element ...]`
fn rpush(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    push(call, End::Back)
}

fn push(call: &mut Call<'_>, end: End) -> Result<Effect, CommandError> {
    let (key, elements) = (call.args[1], &call.args[2..]);
    let limits = limits(call);
    let mut list = call.db.write_or_insert(key, List::new)?;
    list.push(end, elements, limits);
    let len = list.len();
    drop(list);
    Ok(pushed(call, end, len))
}

/// `LPUSHX key element [element ...]`
fn lpushx(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    push_if_present(call, End::Front)
}

/// `RPUSHX key element [element ...]`
fn rpushx(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    push_if_present(call, End::Back)
}

fn push_if_present(call: &mut Call<'_>, end: End) -> Result<Effect, CommandError> {
    let (key, elements) = (call.args[1], &call.args[2..]);
    let limits = limits(call);
    let Some(mut list) = call.db.write_as::<List>(key)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    list.push(end, elements, limits);
    let len = list.len();
    drop(list);
    Ok(pushed(call, end, len))
}

fn pushed(call: &mut Call<'_>, end: End, len: usize) -> Effect {
    call.reply.integer(len as i64);
    notify_pushed(call, call.args[1], end);
    call.dirty(call.args.len() - 2);
    Effect::Verbatim
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn pushes_go_one_after_the_other() {
        let mut bench = Bench::new();
        bench.expect("RPUSH k a b c", ":3");
        assert_eq!(bench.dirty, 3);
        bench.expect("LPUSH k 1 2", ":5");
        bench.expect("LRANGE k 0 -1", "*5 $1 2 $1 1 $1 a $1 b $1 c");
        assert_eq!(bench.events, ["new k", "rpush k", "lpush k"]);
        bench.expect("SADD s a", ":1");
        bench.expect(
            "LPUSH s a",
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
        );
    }

    #[test]
    fn the_x_forms_leave_a_missing_key_missing() {
        let mut bench = Bench::new();
        bench.expect("LPUSHX k a", ":0");
        bench.expect("RPUSHX k a", ":0");
        bench.expect("LLEN k", ":0");
        bench.expect("RPUSH k a", ":1");
        bench.expect("LPUSHX k b c", ":3");
        bench.expect("RPUSHX k d", ":4");
        bench.expect("LRANGE k 0 -1", "*4 $1 c $1 b $1 a $1 d");
    }
}

//! Changes within a list: LSET, LINSERT, LREM, LTRIM.

use carnelian_keyspace::EventClass;
use carnelian_structs::list::{List, Side};

use super::{DELETE, INSERT, UPDATE, limits};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const LSET: DataCommand = DataCommand {
    name: "lset",
    summary: "Replaces the element of a list at an index.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(N) for N elements between the index and the nearer end",
    arity: 4,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::LIST,
    keys: UPDATE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lset,
};

pub(super) const LINSERT: DataCommand = DataCommand {
    name: "linsert",
    summary: "Inserts an element before or after another one of a list.",
    since: "2.2.0",
    group: Group::List,
    complexity: "O(N) for N elements up to that one",
    arity: 5,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::LIST,
    keys: INSERT,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: linsert,
};

pub(super) const LREM: DataCommand = DataCommand {
    name: "lrem",
    summary: "Removes elements that equal a given one from a list.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(N+M) for N elements in the list and M removed",
    arity: 4,
    flags: Flags::WRITE,
    categories: Categories::LIST,
    keys: DELETE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lrem,
};

pub(super) const LTRIM: DataCommand = DataCommand {
    name: "ltrim",
    summary: "Removes all elements of a list outside a range.",
    since: "1.0.0",
    group: Group::List,
    complexity: "O(N) for N elements removed",
    arity: 4,
    flags: Flags::WRITE,
    categories: Categories::LIST,
    keys: DELETE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: ltrim,
};

/// `LSET key index element`
fn lset(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, element) = (call.args[1], call.args[3]);
    let limits = limits(call);
    let mut list = call.db.write_as::<List>(key)?.ok_or(CommandError::NoSuchKey)?;
    let index = match args::integer(call.args[2]) {
        Ok(index) => index,
        Err(error) => {
            list.unchanged();
            return Err(error);
        }
    };
    if !list.set(index, element, limits) {
        list.unchanged();
        return Err(CommandError::IndexOutOfRange);
    }
    drop(list);
    call.notify(EventClass::List, "lset", key);
    call.reply.ok();
    Ok(Effect::Verbatim)
}

/// `LINSERT key BEFORE | AFTER pivot element`
fn linsert(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, pivot, element) = (call.args[1], call.args[3], call.args[4]);
    let side = if args::is(call.args[2], "BEFORE") {
        Side::Before
    } else if args::is(call.args[2], "AFTER") {
        Side::After
    } else {
        return Err(CommandError::Syntax);
    };
    let limits = limits(call);
    let Some(mut list) = call.db.write_as::<List>(key)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    if !list.insert_beside(pivot, side, element, limits) {
        list.unchanged();
        call.reply.integer(-1);
        return Ok(Effect::None);
    }
    call.reply.integer(list.len() as i64);
    drop(list);
    call.notify(EventClass::List, "linsert", key);
    Ok(Effect::Verbatim)
}

/// `LREM key count element`
fn lrem(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, element) = (call.args[1], call.args[3]);
    let count = args::integer(call.args[2])?;
    if count == i64::MIN {
        return Err(CommandError::BelowMinusMax);
    }
    let limits = limits(call);
    let Some(mut list) = call.db.write_as::<List>(key)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    let removed = list.remove_value(element, count, limits);
    call.reply.integer(removed as i64);
    if removed == 0 {
        list.unchanged();
        return Ok(Effect::None);
    }
    let emptied = list.is_empty();
    drop(list);
    call.notify(EventClass::List, "lrem", key);
    if emptied {
        call.notify(EventClass::Generic, "del", key);
    }
    call.dirty(removed);
    Ok(Effect::Verbatim)
}

/// `LTRIM key start stop`
fn ltrim(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let (start, stop) = (args::integer(call.args[2])?, args::integer(call.args[3])?);
    let limits = limits(call);
    let Some(mut list) = call.db.write_as::<List>(key)? else {
        call.reply.ok();
        return Ok(Effect::None);
    };
    let removed = match args::range(start, stop, list.len()) {
        Some((first, last)) => list.trim(first, last - first + 1, limits),
        None => list.trim(0, 0, limits),
    };
    let emptied = list.is_empty();
    drop(list);
    call.notify(EventClass::List, "ltrim", key);
    if emptied {
        call.notify(EventClass::Generic, "del", key);
    }
    call.dirty(removed);
    call.reply.ok();
    Ok(if removed == 0 { Effect::None } else { Effect::Verbatim })
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn lset_replaces_what_is_there() {
        let mut bench = Bench::new();
        bench.expect("LSET k x a", "-ERR no such key");
        bench.expect("RPUSH k a b", ":2");
        bench.expect("LSET k -1 9", "+OK");
        bench.expect("LRANGE k 0 -1", "*2 $1 a $1 9");
        bench.expect("LSET k 2 x", "-ERR index out of range");
        bench.expect("LSET k x x", "-ERR value is not an integer or out of range");
        assert_eq!(bench.touched, 0);
    }

    #[test]
    fn linsert_looks_for_its_pivot() {
        let mut bench = Bench::new();
        bench.expect("LINSERT k BEFORE a b", ":0");
        bench.expect("RPUSH k a c", ":2");
        bench.expect("LINSERT k before c b", ":3");
        bench.expect("LINSERT k AFTER c d", ":4");
        bench.expect("LINSERT k AFTER x d", ":-1");
        assert_eq!(bench.touched, 0);
        bench.expect("LINSERT k UNDER a d", "-ERR syntax error");
        bench.expect("LRANGE k 0 -1", "*4 $1 a $1 b $1 c $1 d");
    }

    #[test]
    fn lrem_counts_from_either_end() {
        let mut bench = Bench::new();
        bench.expect("LREM k 0 a", ":0");
        bench.expect("RPUSH k a b a c a", ":5");
        bench.expect("LREM k -1 a", ":1");
        bench.expect("LRANGE k 0 -1", "*4 $1 a $1 b $1 a $1 c");
        bench.expect("LREM k 0 x", ":0");
        assert_eq!((bench.dirty, bench.touched), (0, 0));
        bench.expect("LREM k -9223372036854775807 a", ":2");
        assert_eq!(bench.dirty, 2);
        bench.expect("LREM k 1 b", ":1");
        bench.events.clear();
        bench.expect("LREM k 5 c", ":1");
        assert_eq!(bench.events, ["lrem k", "del k"]);
        bench.expect("LREM k x c", "-ERR value is not an integer or out of range");
        bench.expect(
            "LREM k -9223372036854775808 c",
            "-ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        );
    }

    #[test]
    fn ltrim_keeps_a_range() {
        let mut bench = Bench::new();
        bench.expect("LTRIM k 0 1", "+OK");
        bench.expect("RPUSH k a b c d e", ":5");
        bench.expect("LTRIM k 1 -2", "+OK");
        assert_eq!(bench.dirty, 2);
        bench.expect("LTRIM k 0 100", "+OK");
        assert_eq!(bench.dirty, 0);
        bench.expect("LRANGE k 0 -1", "*3 $1 b $1 c $1 d");
        bench.events.clear();
        bench.expect("LTRIM k 5 1", "+OK");
        assert_eq!(
            (bench.dirty, bench.events.as_slice()),
            (3, &["ltrim k".into(), "del k".into()][..])
        );
    }
}

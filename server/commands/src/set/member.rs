//! Single members: SADD, SREM, SMOVE, and the tests for them.

use carnelian_keyspace::{EventClass, Kind};
use carnelian_structs::set::Set;

use super::{DELETE, INSERT, LOOK, READ, TRANSFER, limits};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::element;
use crate::error::CommandError;

pub(super) const SADD: DataCommand = DataCommand {
    name: "sadd",
    summary: "Adds members to a set, which is made if missing.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(1) for each member",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::SET,
    keys: INSERT,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: sadd,
};

pub(super) const SREM: DataCommand = DataCommand {
    name: "srem",
    summary: "Removes members from a set.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(1) for each member",
    arity: -3,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::SET,
    keys: DELETE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: srem,
};

pub(super) const SMOVE: DataCommand = DataCommand {
    name: "smove",
    summary: "Moves a member from one set to another.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(1)",
    arity: 4,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::SET,
    keys: TRANSFER,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: smove,
};

pub(super) const SCARD: DataCommand = DataCommand {
    name: "scard",
    summary: "Counts the members of a set.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SET,
    keys: LOOK,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: scard,
};

pub(super) const SISMEMBER: DataCommand = DataCommand {
    name: "sismember",
    summary: "Tells whether a set has a member.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SET,
    keys: LOOK,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: sismember,
};

pub(super) const SMISMEMBER: DataCommand = DataCommand {
    name: "smismember",
    summary: "Tells of each of several members whether a set has it.",
    since: "6.2.0",
    group: Group::Set,
    complexity: "O(1) for each member",
    arity: -3,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::SET,
    keys: READ,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: smismember,
};

pub(super) const SMEMBERS: DataCommand = DataCommand {
    name: "smembers",
    summary: "Returns all members of a set.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(N) for N members",
    arity: 2,
    flags: Flags::READONLY,
    categories: Categories::SET,
    keys: READ,
    tips: &["nondeterministic_output_order"],
    scope: Scope::Keys,
    subcommands: &[],
    run: smembers,
};

/// `SADD key member [member ...]`
fn sadd(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, members) = (call.args[1], &call.args[2..]);
    let limits = limits(call);
    let make = || Set::for_member(members[0], members.len(), limits);
    let mut set = call.db.write_or_insert(key, make)?;
    set.expect(members.len(), limits);
    let added = members.iter().filter(|member| set.insert(member, limits)).count();
    call.reply.integer(added as i64);
    if added == 0 {
        set.unchanged();
        return Ok(Effect::None);
    }
    drop(set);
    call.notify(EventClass::Set, "sadd", key);
    call.dirty(added);
    Ok(Effect::Verbatim)
}

/// `SREM key member [member ...]`
fn srem(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, members) = (call.args[1], &call.args[2..]);
    let Some(mut set) = call.db.write_as::<Set>(key)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    let removed = members.iter().filter(|member| set.remove(member)).count();
    call.reply.integer(removed as i64);
    if removed == 0 {
        set.unchanged();
        return Ok(Effect::None);
    }
    let emptied = set.is_empty();
    drop(set);
    call.notify(EventClass::Set, "srem", key);
    if emptied {
        call.notify(EventClass::Generic, "del", key);
    }
    call.dirty(removed);
    Ok(Effect::Verbatim)
}

/// `SMOVE source destination member`
fn smove(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (source, destination, member) = (call.args[1], call.args[2], call.args[3]);
    let limits = limits(call);
    let kind = if source == destination { None } else { call.db.kind(destination) };
    let Some(mut set) = call.db.write_as::<Set>(source)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    if kind.is_some_and(|kind| kind != Kind::Set) {
        set.unchanged();
        return Err(CommandError::WrongType);
    }
    if source == destination {
        call.reply.integer(set.contains(member).into());
        set.unchanged();
        return Ok(Effect::None);
    }
    if !set.remove(member) {
        set.unchanged();
        call.reply.integer(0);
        return Ok(Effect::None);
    }
    let emptied = set.is_empty();
    drop(set);
    call.notify(EventClass::Set, "srem", source);
    if emptied {
        call.notify(EventClass::Generic, "del", source);
    }
    let make = || Set::for_member(member, 1, limits);
    let mut set = call.db.write_or_insert(destination, make)?;
    if set.insert(member, limits) {
        drop(set);
        call.notify(EventClass::Set, "sadd", destination);
        call.dirty(2);
    } else {
        set.unchanged();
    }
    call.reply.integer(1);
    Ok(Effect::Verbatim)
}

/// `SCARD key`
fn scard(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let len = call.db.read_as::<Set>(call.args[1])?.map_or(0, |set| set.len());
    call.reply.integer(len as i64);
    Ok(Effect::None)
}

/// `SISMEMBER key member`
fn sismember(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let set = call.db.read_as::<Set>(call.args[1])?;
    call.reply.integer(set.is_some_and(|set| set.contains(call.args[2])).into());
    Ok(Effect::None)
}

/// `SMISMEMBER key member [member ...]`
fn smismember(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let members = &call.args[2..];
    let set = call.db.read_as::<Set>(call.args[1])?;
    call.reply.array(members.len());
    for member in members {
        call.reply.integer(set.as_ref().is_some_and(|set| set.contains(member)).into());
    }
    Ok(Effect::None)
}

/// `SMEMBERS key`
fn smembers(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let Some(set) = call.db.read_as::<Set>(call.args[1])? else {
        call.reply.set(0);
        return Ok(Effect::None);
    };
    call.reply.set(set.len());
    set.iter().for_each(|member| element::bulk(&mut call.reply, member));
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;
    use carnelian_structs::set::Set;

    use crate::bench::Bench;

    #[test]
    fn members_come_and_go() {
        let mut bench = Bench::new();
        bench.expect("SADD k 3 1 2 1", ":3");
        assert_eq!(bench.dirty, 3);
        bench.expect("SADD k 1", ":0");
        assert_eq!((bench.dirty, bench.touched), (0, 0));
        bench.expect("SMEMBERS k", "*3 $1 1 $1 2 $1 3");
        bench.expect("SCARD k", ":3");
        bench.expect("SISMEMBER k 2", ":1");
        bench.expect("SISMEMBER k x", ":0");
        bench.expect("SMISMEMBER k 2 x 3", "*3 :1 :0 :1");
        bench.expect("SREM k x", ":0");
        bench.expect("SREM k 1 x", ":1");
        bench.events.clear();
        bench.expect("SREM k 2 3 4", ":2");
        assert_eq!(bench.events, ["srem k", "del k"]);
        bench.expect("SMISMEMBER k 2 x", "*2 :0 :0");
        bench.expect("SMEMBERS k", "*0");
        bench.protocol = Protocol::Resp3;
        bench.expect("SMEMBERS k", "~0");
        bench.expect("SADD k a", ":1");
        bench.expect("SMEMBERS k", "~1 $1 a");
        bench.expect("SISMEMBER k a", ":1");
    }

    #[test]
    fn many_members_at_once_need_a_table() {
        let mut bench = Bench::new();
        bench.environment.limits.set_max_listpack_entries = 3;
        bench.expect("SADD k a", ":1");
        assert_eq!(bench.look("k", Set::encoding), "listpack");
        bench.expect("SADD k a a a a", ":0");
        assert_eq!(bench.look("k", Set::encoding), "hashtable");
    }

    #[test]
    fn smove_moves_what_is_there() {
        let mut bench = Bench::new();
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("SET str x", "+OK");
        bench.expect("SMOVE missing str a", ":0");
        bench.expect("SADD a 1 x", ":2");
        bench.expect("SMOVE a str nothing", wrong);
        bench.expect("SMOVE str a x", wrong);
        bench.expect("SMOVE a a x", ":1");
        bench.expect("SMOVE a a y", ":0");
        bench.expect("SMOVE a b y", ":0");
        assert_eq!(bench.touched, 0);
        bench.events.clear();
        bench.expect("SMOVE a b x", ":1");
        assert_eq!(bench.dirty, 2);
        bench.expect("SADD b 1", ":1");
        bench.expect("SMOVE a b 1", ":1");
        assert_eq!((bench.dirty, bench.touched), (0, 1));
        assert_eq!(bench.events, ["srem a", "new b", "sadd b", "sadd b", "srem a", "del a"]);
        bench.expect("SCARD b", ":2");
    }
}

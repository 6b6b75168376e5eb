//! Keys under another name or in another database: RENAME, RENAMENX, MOVE.

use carnelian_keyspace::EventClass;

use super::{SAME_OBJECT, database};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

const FROM: KeySpec =
    KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1, 0, 1);

pub(super) const RENAME: DataCommand = DataCommand {
    name: "rename",
    summary: "Gives a key another name, over whatever has that name.",
    since: "1.0.0",
    group: Group::Generic,
    complexity: "O(1), and O(N) elsewhere to free a value of N elements that had the name",
    arity: 3,
    flags: Flags::WRITE,
    categories: Categories::KEYSPACE,
    keys: &[FROM, KeySpec::range(KeyFlags::OW.union(KeyFlags::UPDATE), 2, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: rename,
};

pub(super) const RENAMENX: DataCommand = DataCommand {
    name: "renamenx",
    summary: "Gives a key another name if no key has that.",
    since: "1.0.0",
    group: Group::Generic,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::KEYSPACE,
    keys: &[FROM, KeySpec::range(KeyFlags::OW.union(KeyFlags::INSERT), 2, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: renamenx,
};

pub(super) const MOVE: DataCommand = DataCommand {
    name: "move",
    summary: "Moves a key to another logical database.",
    since: "1.0.0",
    group: Group::Generic,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::KEYSPACE,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: move_key,
};

/// `RENAME key newkey`
fn rename(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    if !call.db.exists(call.args[1]) {
        return Err(CommandError::NoSuchKey);
    }
    call.reply.ok();
    Ok(change_name(call))
}

/// `RENAMENX key newkey`
fn renamenx(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    if !call.db.exists(call.args[1]) {
        return Err(CommandError::NoSuchKey);
    }
    if call.db.exists(call.args[2]) {
        call.reply.integer(0);
        return Ok(Effect::None);
    }
    call.reply.integer(1);
    Ok(change_name(call))
}

/// The expiry and the access clock go with the value.
fn change_name(call: &mut Call<'_>) -> Effect {
    let (from, to) = (call.args[1], call.args[2]);
    if from == to {
        return Effect::None;
    }
    let Some(entry) = call.db.take(from) else { return Effect::None };
    // First, so that the name counts as new even if it was there.
    call.db.remove(to);
    call.db.insert(to, entry);
    call.notify(EventClass::Generic, "rename_from", from);
    call.notify(EventClass::Generic, "rename_to", to);
    Effect::Verbatim
}

/// `MOVE key db`
///
/// A segment holds a key of all the logical databases, so the key's own lock is enough.
fn move_key(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let (from, to) = (call.db.index(), database(call, call.args[2])?);
    if from == to {
        return Err(SAME_OBJECT);
    }
    call.db.select(to);
    let occupied = call.db.exists(key);
    call.db.select(from);
    let entry = if occupied { None } else { call.db.take(key) };
    let Some(entry) = entry else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    call.db.select(to);
    call.db.insert(key, entry);
    call.db.select(from);
    call.notify(EventClass::Generic, "move_from", key);
    call.db.select(to);
    call.notify(EventClass::Generic, "move_to", key);
    call.db.select(from);
    call.reply.integer(1);
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;
    use crate::effect::Effect;

    #[test]
    fn a_key_keeps_its_value_and_expiry_under_the_new_name() {
        let mut bench = Bench::new();
        bench.expect("RENAME a b", "-ERR no such key");
        bench.expect("SET a 1 PX 5000", "+OK");
        bench.expect("SET b 2", "+OK");
        bench.expect("RENAMENX a b", ":0");
        bench.expect("RENAME a b", "+OK");
        bench.expect("EXISTS a", ":0");
        bench.expect("GET b", "$1 1");
        bench.expect("PTTL b", ":5000");
        bench.expect("RENAMENX b c", ":1");
        bench.expect("PTTL c", ":5000");
    }

    #[test]
    fn a_name_for_itself_changes_nothing() {
        let mut bench = Bench::new();
        bench.expect("RENAME a a", "-ERR no such key");
        bench.expect("SET a 1", "+OK");
        assert_eq!(bench.run(super::rename, "RENAME a a"), (Effect::None, "+OK\r\n".into()));
        assert_eq!(bench.run(super::renamenx, "RENAMENX a a"), (Effect::None, ":0\r\n".into()));
        bench.expect("GET a", "$1 1");
    }

    #[test]
    fn move_needs_a_free_place_in_a_known_database() {
        let mut bench = Bench::new();
        bench.expect("MOVE a 1", ":0");
        bench.expect("SET a 1 PX 5000", "+OK");
        bench.expect("MOVE a 0", "-ERR source and destination objects are the same");
        bench.expect("MOVE a 16", "-ERR DB index is out of range");
        bench.expect("MOVE a -1", "-ERR DB index is out of range");
        bench.expect("MOVE a x", "-ERR value is not an integer or out of range");
        let far = "-ERR value is out of range, value must between -2147483648 and 2147483647";
        bench.expect("MOVE a 4294967297", far);
        bench.expect("MOVE a 1", ":1");
        bench.expect("EXISTS a", ":0");
        bench.expect("SET a 2", "+OK");
        bench.expect("MOVE a 1", ":0");
        bench.expect("SWAPDB 0 1", "+OK");
        bench.expect("GET a", "$1 1");
        bench.expect("PTTL a", ":5000");
    }
}

//! Strings as counters.

use carnelian_keyspace::EventClass;

use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const INCR: DataCommand = DataCommand {
    name: "incr",
    summary: "Adds one to the integer at a key.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST),
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: incr,
};

/// `INCR key`
fn incr(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    add(call, 1)
}

fn add(call: &mut Call<'_>, amount: i64) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let sum = call.db.update_integer(
        key,
        |_| Err(CommandError::NotAnInteger),
        |old| old.checked_add(amount).ok_or(CommandError::Overflow),
    )??;
    call.notify(EventClass::String, "incrby", key);
    call.reply.integer(sum);
    Ok(Effect::Verbatim)
}

//! DELIFEQ, and the comparison that SET with IFEQ makes: additions of Valkey's, for locks.

use carnelian_keyspace::EventClass;

use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const DELIFEQ: DataCommand = DataCommand {
    name: "delifeq",
    summary: "Removes a key if it holds a certain string.",
    since: "9.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::RM.union(KeyFlags::DELETE), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: delifeq,
};

/// `DELIFEQ key value`
fn delifeq(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, value) = (call.args[1], call.args[2]);
    let held = holds(call, key, value)?;
    call.reply.integer(held.into());
    if !held {
        return Ok(Effect::None);
    }
    call.db.remove(key);
    call.notify(EventClass::Generic, "del", key);
    Ok(call.rewritten(&[b"DEL", key]))
}

/// Whether a key holds this string; a missing one does not.
pub(super) fn holds(call: &mut Call<'_>, key: &[u8], value: &[u8]) -> Result<bool, CommandError> {
    let text = call.db.string_for_write(key)?;
    Ok(text.is_some_and(|text| text.with_bytes(|bytes| bytes == value)))
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    const WRONG: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn a_key_goes_if_it_holds_the_string() {
        let mut bench = Bench::new();
        bench.expect("SET k 5", "+OK");
        bench.expect("DELIFEQ k 6", ":0");
        bench.expect("DELIFEQ k 5", ":1");
        bench.expect("DELIFEQ k 5", ":0");
        assert_eq!(bench.effects, b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n");
        bench.expect("RPUSH l 5", ":1");
        bench.expect("DELIFEQ l 5", WRONG);
    }

    #[test]
    fn set_compares() {
        let mut bench = Bench::new();
        bench.expect("SET k b IFEQ a", "$-1");
        bench.expect("EXISTS k", ":0");
        bench.expect("SET k 1", "+OK");
        bench.expect("SET k b IFEQ 1", "+OK");
        bench.expect("SET k c IFEQ b GET EX 100", "$1 b");
        bench.expect("SET k d IFEQ b GET", "$1 c");
        bench.expect("TTL k", ":100");
        bench.expect("RPUSH l 5", ":1");
        bench.expect("SET l x IFEQ 5", WRONG);
        for words in ["IFEQ", "IFEQ a NX", "XX IFEQ a", "IFEQ a IFEQ a"] {
            bench.expect(&format!("SET k x {words}"), "-ERR syntax error");
        }
    }
}

//! Strings as counters.

use carnelian_keyspace::{EventClass, Expiry, Text};
use carnelian_resp::number;
use carnelian_structs::longdouble::LongDouble;

use super::MODIFY_ONE;
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const INCR: DataCommand = DataCommand {
    name: "incr",
    summary: "Adds one to the integer at a key.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STRING,
    keys: MODIFY_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: incr,
};

/// `INCR key`
fn incr(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    add(call, 1)
}

pub(super) const DECR: DataCommand = DataCommand {
    name: "decr",
    summary: "Subtracts one from the integer at a key.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STRING,
    keys: MODIFY_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: decr,
};

/// `DECR key`
fn decr(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    add(call, -1)
}

pub(super) const INCRBY: DataCommand = DataCommand {
    name: "incrby",
    summary: "Adds to the integer at a key.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STRING,
    keys: MODIFY_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: incrby,
};

/// `INCRBY key amount`
fn incrby(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let amount = args::integer(call.args[2])?;
    add(call, amount)
}

pub(super) const DECRBY: DataCommand = DataCommand {
    name: "decrby",
    summary: "Subtracts from the integer at a key.",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STRING,
    keys: MODIFY_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: decrby,
};

/// `DECRBY key amount`
fn decrby(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let amount = args::integer(call.args[2])?;
    let amount = amount.checked_neg().ok_or(CommandError::text("ERR decrement would overflow"))?;
    add(call, amount)
}

fn add(call: &mut Call<'_>, amount: i64) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let sum = call.db.update_integer(
        key,
        // Digits need not be stored as a number: APPEND leaves bytes.
        |bytes| number::parse_i64(bytes).ok_or(CommandError::NotAnInteger),
        |old| old.checked_add(amount).ok_or(CommandError::Overflow),
    )??;
    call.notify(EventClass::String, "incrby", key);
    call.reply.integer(sum);
    Ok(Effect::Verbatim)
}

pub(super) const INCRBYFLOAT: DataCommand = DataCommand {
    name: "incrbyfloat",
    summary: "Adds to the number at a key.",
    since: "2.6.0",
    group: Group::String,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STRING,
    keys: MODIFY_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: incrbyfloat,
};

/// `INCRBYFLOAT key amount`
///
/// Followers get the sum: another machine's arithmetic or printing may differ.
fn incrbyfloat(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let old = match call.db.string_for_write(key)? {
        None => LongDouble::ZERO,
        Some(Text::Integer(number)) => LongDouble::from_i64(number),
        Some(Text::Bytes(bytes)) => LongDouble::parse(bytes).ok_or(CommandError::NotAFloat)?,
    };
    let sum = old + LongDouble::parse(call.args[2]).ok_or(CommandError::NotAFloat)?;
    if !sum.is_finite() {
        return Err(CommandError::NotFinite);
    }
    let text = sum.to_bytes();
    call.db.set_plain_string(key, &text, Expiry::Keep);
    call.notify(EventClass::String, "incrbyfloat", key);
    call.reply.bulk(&text);
    Ok(call.rewritten(&[b"SET", key, &text, b"KEEPTTL"]))
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn integers_count_up_and_down() {
        let mut bench = Bench::new();
        bench.expect("INCR n", ":1");
        bench.expect("INCRBY n 41", ":42");
        bench.expect("DECR n", ":41");
        bench.expect("DECRBY n 50", ":-9");
        bench.expect("GET n", "$2 -9");
        bench.expect("INCRBY n 1.5", "-ERR value is not an integer or out of range");
        bench.expect("SET n 9223372036854775807", "+OK");
        bench.expect("INCR n", "-ERR increment or decrement would overflow");
        bench.expect("DECRBY n -9223372036854775808", "-ERR decrement would overflow");
        bench.expect("GET n", "$19 9223372036854775807");
    }

    #[test]
    fn digits_put_together_are_a_number() {
        let mut bench = Bench::new();
        bench.expect("APPEND n 4", ":1");
        bench.expect("APPEND n 1", ":2");
        bench.expect("INCR n", ":42");
        for text in ["x", "1.5", "007", "9223372036854775808"] {
            bench.reply(&format!("SET n {text}"));
            bench.expect("INCR n", "-ERR value is not an integer or out of range");
        }
    }

    #[test]
    fn counting_keeps_the_expiry() {
        let mut bench = Bench::new();
        bench.expect("SET n 1 PX 10", "+OK");
        bench.expect("INCR n", ":2");
        bench.expect("INCRBYFLOAT n 0.5", "$3 2.5");
        bench.now_ms += 10;
        bench.expect("INCR n", ":1");
    }

    #[test]
    fn floats_add_up_as_long_doubles() {
        let mut bench = Bench::new();
        bench.expect("INCRBYFLOAT f 10.5", "$4 10.5");
        bench.effects.clear();
        bench.expect("INCRBYFLOAT f 0.1", "$4 10.6");
        let effects = String::from_utf8_lossy(&bench.effects).replace("\r\n", " ");
        assert_eq!(effects.trim_end(), "*4 $3 SET $1 f $4 10.6 $7 KEEPTTL");
        bench.expect("INCRBYFLOAT f -5.6e0", "$1 5");
        bench.expect("INCR f", ":6");
        bench.expect("INCRBYFLOAT f x", "-ERR value is not a valid float");
        bench.expect("INCRBYFLOAT f inf", "-ERR increment would produce NaN or Infinity");
        bench.expect("SET f x", "+OK");
        bench.expect("INCRBYFLOAT f 1", "-ERR value is not a valid float");
    }
}

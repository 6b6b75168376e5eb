//! Fields as counters.

use carnelian_keyspace::EventClass;
use carnelian_structs::hash::FieldExpiry;
use carnelian_structs::listpack::Element;
use carnelian_structs::longdouble::LongDouble;

use super::{ACCESS_UPDATE, STORE, change_live, command, limits};
use crate::args;
use crate::call::Call;
use crate::command::DataCommand;
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const HINCRBY: DataCommand = DataCommand {
    summary: "Adds to the integer in a field, 0 if it does not exist.",
    complexity: "O(1)",
    flags: STORE,
    keys: ACCESS_UPDATE,
    ..command("hincrby", "2.0.0", 4, hincrby)
};

pub(super) const HINCRBYFLOAT: DataCommand = DataCommand {
    summary: "Adds to the floating-point number in a field, 0 if it does not exist.",
    complexity: "O(1)",
    flags: STORE,
    keys: ACCESS_UPDATE,
    ..command("hincrbyfloat", "2.6.0", 4, hincrbyfloat)
};

/// `HINCRBY key field increment`
fn hincrby(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let [_, key, field, amount] = call.args else { unreachable!("the arity is 4") };
    let amount = args::integer(amount)?;
    let (now_ms, limits) = (call.due_ms(), limits(call));
    let sum = change_live(&mut call.db, key, [*field], |hash| {
        let sum = sum_of(hash.get(field, now_ms), amount);
        if let Ok(sum) = sum {
            hash.set_integer(field, sum, limits);
        }
        (sum.is_ok(), sum)
    })??;
    call.notify(EventClass::Hash, "hincrby", key);
    call.reply.integer(sum);
    Ok(Effect::Verbatim)
}

fn sum_of(old: Option<Element<'_>>, amount: i64) -> Result<i64, CommandError> {
    let old = match old {
        Some(value) => value.to_i64().ok_or(CommandError::HashNotAnInteger)?,
        None => 0,
    };
    old.checked_add(amount).ok_or(CommandError::Overflow)
}

fn float_sum_of(old: Option<Element<'_>>, amount: LongDouble) -> Result<LongDouble, CommandError> {
    let old = match old {
        None => LongDouble::ZERO,
        Some(Element::Integer(number)) => LongDouble::from_i64(number),
        Some(Element::String(text)) => {
            LongDouble::parse(text).ok_or(CommandError::HashNotAFloat)?
        }
    };
    let sum = old + amount;
    if sum.is_finite() { Ok(sum) } else { Err(CommandError::NotFinite) }
}

/// `HINCRBYFLOAT key field increment`
///
/// Replicas are sent the sum, as their arithmetic may differ. A field keeps its expiry; where there is
/// none, a command is sent that servers before 8.0 know too.
fn hincrbyfloat(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let [_, key, field, amount] = call.args else { unreachable!("the arity is 4") };
    let amount = LongDouble::parse(amount).ok_or(CommandError::NotAFloat)?;
    if !amount.is_finite() {
        return Err(CommandError::text("ERR value is NaN or Infinity"));
    }
    let (now_ms, limits) = (call.due_ms(), limits(call));
    let (sum, expires) = change_live(&mut call.db, key, [*field], |hash| {
        let text = match float_sum_of(hash.get(field, now_ms), amount) {
            Ok(sum) => sum.to_bytes(),
            Err(error) => return (false, Err(error)),
        };
        hash.set(field, &text, FieldExpiry::Keep, limits);
        (true, Ok((text, hash.expiry(field, now_ms).flatten().is_some())))
    })??;
    call.notify(EventClass::Hash, "hincrbyfloat", key);
    call.reply.bulk(&sum);
    if expires {
        return Ok(call.rewritten(&[b"HSETEX", key, b"KEEPTTL", b"FIELDS", b"1", field, &sum]));
    }
    Ok(call.rewritten(&[b"HSET", key, field, &sum]))
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn integers_are_added_up() {
        let mut bench = Bench::new();
        bench.expect("HINCRBY h n 5", ":5");
        bench.expect("HINCRBY h n -7", ":-2");
        bench.expect("HSET h n 9223372036854775807", ":0");
        bench.expect("HINCRBY h n 1", "-ERR increment or decrement would overflow");
        bench.expect("HGET h n", "$19 9223372036854775807");
        bench.expect("HSET h n 1x", ":0");
        bench.expect("HINCRBY h n 1", "-ERR hash value is not an integer");
        bench.expect("HINCRBY h n x", "-ERR value is not an integer or out of range");
        bench.expect("SET s 1", "+OK");
        bench.expect("HINCRBY s n x", "-ERR value is not an integer or out of range");
        bench.expect(
            "HINCRBY s n 1",
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
        );
    }

    #[test]
    fn floats_are_added_up_and_replicated_as_sums() {
        let mut bench = Bench::new();
        bench.expect("HINCRBYFLOAT h f 10.5", "$4 10.5");
        bench.expect("HINCRBYFLOAT h f 0.1", "$4 10.6");
        let effects = String::from_utf8_lossy(&bench.effects).replace("\r\n", " ");
        assert!(effects.ends_with("HSET $1 h $1 f $4 10.6 "));
        bench.expect("HEXPIREAT h 9999999999 FIELDS 1 f", "*1 :1");
        bench.expect("HINCRBYFLOAT h f 0.1", "$4 10.7");
        let effects = String::from_utf8_lossy(&bench.effects).replace("\r\n", " ");
        assert!(effects.ends_with("HSETEX $1 h $7 KEEPTTL $6 FIELDS $1 1 $1 f $4 10.7 "));
        bench.expect("HSET h f 0x10", ":0");
        bench.expect("HINCRBYFLOAT h f 1", "$2 17");
        bench.expect("HINCRBYFLOAT h f 1e2", "$3 117");
        bench.expect("HINCRBYFLOAT h f inf", "-ERR value is NaN or Infinity");
        bench.expect("HINCRBYFLOAT h f nan", "-ERR value is not a valid float");
        bench.expect("HSET h f inf", ":0");
        bench.expect("HINCRBYFLOAT h f 1", "-ERR increment would produce NaN or Infinity");
        bench.expect("HSET h f x", ":0");
        bench.expect("HINCRBYFLOAT h f 1", "-ERR hash value is not a float");
    }

    #[test]
    fn counters_keep_their_expiry_and_start_again_after_it() {
        let mut bench = Bench::new();
        bench.expect("HSET h n 5 f 5", ":2");
        bench.expect("HPEXPIRE h 100 FIELDS 2 n f", "*2 :1 :1");
        bench.expect("HINCRBY h n 1", ":6");
        bench.expect("HINCRBYFLOAT h f 1", "$1 6");
        bench.expect("HPTTL h FIELDS 2 n f", "*2 :100 :100");
        bench.now_ms += 100;
        bench.expect("HINCRBY h n 1", ":1");
        bench.expect("HINCRBYFLOAT h f 1", "$1 1");
        bench.expect("HTTL h FIELDS 2 n f", "*2 :-1 :-1");
    }
}

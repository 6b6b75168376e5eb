//! What commands that wait have in common: their time limits, and the wait itself.

use carnelian_keyspace::Kind;
use carnelian_resp::number;
use carnelian_structs::longdouble::LongDouble;

use crate::call::Call;
use crate::effect::{Effect, OnTimeout, Wait};
use crate::error::CommandError;

/// When a time limit in seconds ends, in milliseconds of the Unix epoch; 0 is no limit.
pub fn deadline(call: &Call<'_>, seconds: &[u8]) -> Result<Option<u64>, CommandError> {
    let out_of_range = || CommandError::text("ERR timeout is out of range");
    let seconds = match number::parse_double(seconds) {
        Some(number) => number,
        None if LongDouble::parse(seconds).is_none() => {
            return Err(CommandError::text("ERR timeout is not a float or out of range"));
        }
        // A number, but too large for a double.
        None if seconds.starts_with(b"-") => f64::NEG_INFINITY,
        None => f64::INFINITY,
    };
    let limit_ms = (seconds * 1000.0).ceil();
    if limit_ms < 0.0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    if i64::MAX as f64 <= limit_ms {
        return Err(out_of_range());
    }
    let limit_ms = limit_ms as u64;
    let at = call.now_ms().checked_add(limit_ms).filter(|&at| at <= i64::MAX as u64);
    let at = at.ok_or_else(out_of_range)?;
    Ok((limit_ms != 0).then_some(at))
}

/// Has the client wait until one of `keys` is a `kind`. In a transaction or script, where nobody
/// can wait, the reply is the one of a time limit that is over.
pub fn wait_for(
    call: &mut Call<'_>,
    keys: &[&[u8]],
    kind: Kind,
    deadline_ms: Option<u64>,
) -> Effect {
    if !call.may_block {
        call.reply.null_array();
        return Effect::None;
    }
    Effect::Wait(Box::new(Wait {
        keys: keys.iter().map(|&key| key.into()).collect(),
        kind: Some(kind),
        deadline_ms,
        on_timeout: OnTimeout::NullArray,
        ..Wait::default()
    }))
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn time_limits_are_seconds() {
        let mut bench = Bench::new();
        for (limit, error) in [
            ("abc", "timeout is not a float or out of range"),
            ("nan", "timeout is not a float or out of range"),
            ("-1", "timeout is negative"),
            ("-inf", "timeout is negative"),
            ("-1e400", "timeout is negative"),
            ("inf", "timeout is out of range"),
            ("1e400", "timeout is out of range"),
            ("9223372036854775", "timeout is out of range"),
            ("9223372036854776", "timeout is out of range"),
        ] {
            bench.expect(&format!("BLPOP k {limit}"), &format!("-ERR {error}"));
        }
        // The bench lets nobody wait.
        for limit in ["0", "0x1", "0.0001", "1e3", "-0.0001"] {
            bench.expect(&format!("BLPOP k {limit}"), "*-1");
        }
    }
}

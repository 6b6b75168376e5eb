//! Fields at random.

use carnelian_resp::Writer;
use carnelian_structs::hash::{Field, Hash};

use super::{ACCESS, bulk, command};
use crate::args;
use crate::call::Call;
use crate::command::{DataCommand, Flags};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::lengthy::Lengthy;

pub(super) const HRANDFIELD: DataCommand = DataCommand {
    summary: "Returns one or more fields at random.",
    complexity: "O(N) where N is the number of fields returned.",
    flags: Flags::READONLY,
    keys: ACCESS,
    tips: &["nondeterministic_output"],
    ..command("hrandfield", "6.2.0", -2, hrandfield)
};

/// What is asked for.
#[derive(Clone, Copy)]
enum Wanted {
    One,
    /// So many different ones.
    Distinct {
        count: usize,
        values: bool,
    },
    /// Exactly so many, some perhaps more than once.
    Any {
        count: usize,
        values: bool,
    },
}

impl Wanted {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let [count, options @ ..] = words else { return Ok(Self::One) };
        let count = args::integer(count)?;
        if count == i64::MIN {
            return Err(CommandError::text(
                "ERR value is out of range, value must between -9223372036854775807 and \
                 9223372036854775807",
            ));
        }
        let values = match options {
            [] => false,
            [word] if args::is(word, "WITHVALUES") => true,
            _ => return Err(CommandError::Syntax),
        };
        if values && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
            return Err(CommandError::OutOfRange);
        }
        let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        Ok(match count {
            0.. => Self::Distinct { count: size, values },
            _ => Self::Any { count: size, values },
        })
    }

    fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Distinct { count, .. } | Self::Any { count, .. } => count,
        }
    }
}

/// `HRANDFIELD key [count [WITHVALUES]]`
fn hrandfield(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let wanted = Wanted::parse(&call.args[2..])?;
    let now_ms = call.due_ms();
    let lengthy = Lengthy::new(call, wanted.count());
    let mut hash = call.db.read_as::<Hash>(key)?;
    if hash.as_ref().is_some_and(|hash| hash.is_due(now_ms)) {
        call.db.expire_fields(key);
        hash = call.db.read_as::<Hash>(key)?;
    }
    match hash {
        Some(hash) => pick(&hash, wanted, lengthy, &mut call.reply)?,
        None if matches!(wanted, Wanted::One) => call.reply.null(),
        None => call.reply.array(0),
    }
    Ok(Effect::None)
}

fn pick(
    hash: &Hash,
    wanted: Wanted,
    mut lengthy: Lengthy,
    reply: &mut Writer<'_>,
) -> Result<(), CommandError> {
    let random = || fastrand::u64(..);
    match wanted {
        Wanted::One => match hash.random(random) {
            Some(field) => bulk(reply, field.name),
            None => reply.null(),
        },
        Wanted::Distinct { count, values } => {
            begin(reply, count.min(hash.len()), values);
            hash.distinct(count, random, |field| show(reply, field, values));
        }
        Wanted::Any { count, values } => {
            begin(reply, count, values);
            hash.sample(count, random, |field| {
                show(reply, field, values);
                lengthy.goes_on(reply.len())
            });
            lengthy.finish()?;
        }
    }
    Ok(())
}

/// RESP3 has a pair to a field where RESP2 has all in one row.
fn begin(reply: &mut Writer<'_>, count: usize, values: bool) {
    let flat = values && reply.protocol() == carnelian_resp::Protocol::Resp2;
    reply.array(if flat { count.saturating_mul(2) } else { count });
}

fn show(reply: &mut Writer<'_>, field: Field<'_>, values: bool) {
    if values && reply.protocol() == carnelian_resp::Protocol::Resp3 {
        reply.array(2);
    }
    bulk(reply, field.name);
    if values {
        bulk(reply, field.value);
    }
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use crate::bench::Bench;

    #[test]
    fn replies_have_the_shape_of_the_request() {
        let mut bench = Bench::new();
        bench.expect("HRANDFIELD h", "$-1");
        bench.expect("HRANDFIELD h 3", "*0");
        bench.expect("HSET h a 1", ":1");
        bench.expect("HRANDFIELD h", "$1 a");
        bench.expect("HRANDFIELD h 0", "*0");
        bench.expect("HRANDFIELD h 9223372036854775807", "*1 $1 a");
        bench.expect("HRANDFIELD h -3", "*3 $1 a $1 a $1 a");
        bench.expect("HRANDFIELD h 5 WITHVALUES", "*2 $1 a $1 1");
        bench.expect("HRANDFIELD h -2 withvalues", "*4 $1 a $1 1 $1 a $1 1");
        bench.protocol = Protocol::Resp3;
        bench.expect("HRANDFIELD h 5 WITHVALUES", "*1 *2 $1 a $1 1");
        bench.expect("HRANDFIELD h -2 WITHVALUES", "*2 *2 $1 a $1 1 *2 $1 a $1 1");
        bench.expect("HRANDFIELD nokey", "_");
    }

    #[test]
    fn wrong_counts_are_refused() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1", ":1");
        bench.expect("HRANDFIELD h x", "-ERR value is not an integer or out of range");
        bench.expect("HRANDFIELD h 3 FOO", "-ERR syntax error");
        bench.expect("HRANDFIELD h 3 WITHVALUES x", "-ERR syntax error");
        bench.expect(
            "HRANDFIELD h -9223372036854775808",
            "-ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        );
        let range = "-ERR value is out of range";
        bench.expect("HRANDFIELD h -9223372036854775807 WITHVALUES", range);
        bench.expect("HRANDFIELD h 4611686018427387904 WITHVALUES", range);
        bench.environment.limits.max_string = 1 << 20;
        let long = "-ERR the reply would be longer than proto-max-bulk-len";
        bench.expect("HRANDFIELD h -9223372036854775807", long);
        bench.expect("HRANDFIELD h -4611686018427387903 WITHVALUES", long);
    }

    #[test]
    fn expired_fields_are_not_picked() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2", ":2");
        bench.expect("HPEXPIRE h 5 FIELDS 1 a", "*1 :1");
        bench.now_ms += 5;
        bench.expect("HRANDFIELD h 5", "*1 $1 b");
        bench.expect("HLEN h", ":1");
        bench.expect("HPEXPIRE h 5 FIELDS 1 b", "*1 :1");
        bench.now_ms += 5;
        bench.expect("HRANDFIELD h", "$-1");
        bench.expect("HLEN h", ":0");
    }
}

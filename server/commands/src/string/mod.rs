//! Strings: reading and replacing whole values.

mod counter;

use carnelian_keyspace::{EventClass, Expiry, Text};

use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

const READ_ONE: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)];

pub const TABLE: &[DataCommand] = &[
    DataCommand {
        name: "get",
        summary: "Returns the string at a key.",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        arity: 2,
        flags: Flags::READONLY.union(Flags::FAST),
        categories: Categories::STRING,
        keys: READ_ONE,
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run: get,
    },
    DataCommand {
        name: "set",
        summary: "Makes a key hold a string, whatever it held before.",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        arity: -3,
        flags: Flags::WRITE.union(Flags::DENYOOM),
        categories: Categories::STRING,
        keys: &[KeySpec::range(
            KeyFlags::RW
                .union(KeyFlags::ACCESS)
                .union(KeyFlags::UPDATE)
                .union(KeyFlags::VARIABLE_FLAGS),
            1,
            0,
            1,
        )],
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run: set,
    },
    counter::INCR,
];

/// `GET key`
fn get(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    match call.db.string(call.args[1])? {
        Some(Text::Bytes(bytes)) => call.reply.bulk(bytes),
        Some(Text::Integer(number)) => call.reply.bulk_integer(number),
        None => call.reply.null(),
    }
    Ok(Effect::None)
}

/// When SET writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfMissing,
    IfPresent,
}

struct SetOptions {
    condition: Condition,
    expiry: Expiry,
    /// The expiry was given (not KEEPTTL), so that the effect has to carry it.
    timed: bool,
    get: bool,
}

impl SetOptions {
    fn parse(words: &[&[u8]], now_ms: u64) -> Result<Self, CommandError> {
        let mut options =
            Self { condition: Condition::Always, expiry: Expiry::Clear, timed: false, get: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let unset = options.expiry == Expiry::Clear;
            if args::is(word, "NX") && options.condition != Condition::IfPresent {
                options.condition = Condition::IfMissing;
            } else if args::is(word, "XX") && options.condition != Condition::IfMissing {
                options.condition = Condition::IfPresent;
            } else if args::is(word, "GET") {
                options.get = true;
            } else if args::is(word, "KEEPTTL") && !options.timed {
                options.expiry = Expiry::Keep;
            } else if let Some(unit) = TimeUnit::of(word).filter(|_| unset) {
                let amount = words.next().ok_or(CommandError::Syntax)?;
                options.expiry = Expiry::At(unit.absolute(amount, now_ms, "set")?);
                options.timed = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// EX, PX, EXAT, PXAT: how an expiry is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TimeUnit {
    Seconds,
    Milliseconds,
    AtSeconds,
    AtMilliseconds,
}

impl TimeUnit {
    fn of(word: &[u8]) -> Option<Self> {
        [
            ("EX", Self::Seconds),
            ("PX", Self::Milliseconds),
            ("EXAT", Self::AtSeconds),
            ("PXAT", Self::AtMilliseconds),
        ]
        .into_iter()
        .find(|(name, _)| args::is(word, name))
        .map(|(_, unit)| unit)
    }

    /// The moment in milliseconds; refused if it is not positive or overflows.
    fn absolute(
        self,
        amount: &[u8],
        now_ms: u64,
        command: &'static str,
    ) -> Result<u64, CommandError> {
        let amount = args::integer(amount)?;
        let invalid = CommandError::InvalidExpire(command);
        if amount <= 0 {
            return Err(invalid);
        }
        let seconds = matches!(self, Self::Seconds | Self::AtSeconds);
        let ms = if seconds { amount.checked_mul(1000) } else { Some(amount) };
        let relative = matches!(self, Self::Seconds | Self::Milliseconds);
        let at = ms.and_then(|ms| if relative { ms.checked_add(now_ms as i64) } else { Some(ms) });
        at.map(|at| at as u64).ok_or(invalid)
    }
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`
///
/// Replicas run on their own clock, so they are sent the absolute time.
fn set(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, value) = (call.args[1], call.args[2]);
    if call.args.len() == 3 {
        call.db.set_string(key, value, Expiry::Clear);
        call.notify(EventClass::String, "set", key);
        call.reply.ok();
        return Ok(Effect::Verbatim);
    }
    let options = SetOptions::parse(&call.args[3..], call.now_ms())?;
    if options.get {
        match call.db.string(key)? {
            Some(Text::Bytes(bytes)) => call.reply.bulk(bytes),
            Some(Text::Integer(number)) => call.reply.bulk_integer(number),
            None => call.reply.null(),
        }
    }
    let held = options.condition == Condition::Always
        || call.db.exists(key) == (options.condition == Condition::IfPresent);
    if !held {
        if !options.get {
            call.reply.null();
        }
        return Ok(Effect::None);
    }
    if !options.get {
        call.reply.ok();
    }
    if let Expiry::At(at) = options.expiry
        && at <= call.now_ms()
    {
        // Already past: the key is as good as set and expired.
        return Ok(match call.db.remove(key) {
            true => {
                call.notify(EventClass::Generic, "del", key);
                call.rewritten(&[b"DEL", key])
            }
            false => Effect::None,
        });
    }
    call.db.set_string(key, value, options.expiry);
    call.notify(EventClass::String, "set", key);
    if let Expiry::At(at) = options.expiry {
        call.notify(EventClass::Generic, "expire", key);
        let at = at.to_string();
        return Ok(call.rewritten(&[b"SET", key, value, b"PXAT", at.as_bytes()]));
    }
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn set_and_get_agree() {
        let mut bench = Bench::new();
        bench.expect("GET k", "$-1");
        bench.expect("SET k v", "+OK");
        bench.expect("GET k", "$1 v");
        bench.expect("SET k 12", "+OK");
        bench.expect("GET k", "$2 12");
        bench.expect("SET k v NX", "$-1");
        bench.expect("SET k v XX GET", "$2 12");
        bench.expect("SET k v EX 0", "-ERR invalid expire time in 'set' command");
        bench.expect("SET k v NX XX", "-ERR syntax error");
    }

    #[test]
    fn an_expiry_ends_the_key() {
        let mut bench = Bench::new();
        bench.expect("SET k v PX 100", "+OK");
        assert!(String::from_utf8_lossy(&bench.effects).contains("PXAT"));
        bench.now_ms += 99;
        bench.expect("GET k", "$1 v");
        bench.now_ms += 1;
        bench.expect("GET k", "$-1");
    }
}

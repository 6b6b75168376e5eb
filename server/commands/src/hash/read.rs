//! Reading fields and whole hashes.

use carnelian_structs::hash::Hash;

use super::{ACCESS, LOOK, READ, bulk, command};
use crate::call::Call;
use crate::command::{DataCommand, Flags};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const HGET: DataCommand = DataCommand {
    summary: "Returns the value of a field.",
    complexity: "O(1)",
    flags: READ,
    keys: ACCESS,
    ..command("hget", "2.0.0", 3, hget)
};

pub(super) const HMGET: DataCommand = DataCommand {
    summary: "Returns the values of several fields.",
    complexity: "O(N) where N is the number of fields asked for.",
    flags: READ,
    keys: ACCESS,
    ..command("hmget", "2.0.0", -3, hmget)
};

pub(super) const HLEN: DataCommand = DataCommand {
    summary: "Returns the number of fields.",
    complexity: "O(1)",
    flags: READ,
    keys: LOOK,
    ..command("hlen", "2.0.0", 2, hlen)
};

pub(super) const HSTRLEN: DataCommand = DataCommand {
    summary: "Returns the length of the value of a field.",
    complexity: "O(1)",
    flags: READ,
    keys: LOOK,
    ..command("hstrlen", "3.2.0", 3, hstrlen)
};

pub(super) const HEXISTS: DataCommand = DataCommand {
    summary: "Tells whether a field exists.",
    complexity: "O(1)",
    flags: READ,
    keys: LOOK,
    ..command("hexists", "2.0.0", 3, hexists)
};

pub(super) const HGETALL: DataCommand = DataCommand {
    summary: "Returns all fields and values.",
    complexity: "O(N) where N is the number of fields.",
    flags: Flags::READONLY,
    keys: ACCESS,
    tips: &["nondeterministic_output_order"],
    ..command("hgetall", "2.0.0", 2, hgetall)
};

pub(super) const HKEYS: DataCommand = DataCommand {
    summary: "Returns all fields.",
    complexity: "O(N) where N is the number of fields.",
    flags: Flags::READONLY,
    keys: ACCESS,
    tips: &["nondeterministic_output_order"],
    ..command("hkeys", "2.0.0", 2, hkeys)
};

pub(super) const HVALS: DataCommand = DataCommand {
    summary: "Returns all values.",
    complexity: "O(N) where N is the number of fields.",
    flags: Flags::READONLY,
    keys: ACCESS,
    tips: &["nondeterministic_output_order"],
    ..command("hvals", "2.0.0", 2, hvals)
};

/// `HGET key field`
fn hget(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let now_ms = call.due_ms();
    let Some(hash) = call.db.read_as::<Hash>(call.args[1])? else {
        call.reply.null();
        return Ok(Effect::None);
    };
    if let Some(value) = hash.get(call.args[2], now_ms) {
        bulk(&mut call.reply, value);
        return Ok(Effect::None);
    }
    call.reply.null();
    let due = hash.is_due(now_ms);
    expire_after(call, due);
    Ok(Effect::None)
}

/// `HMGET key field [field ...]`
fn hmget(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let now_ms = call.due_ms();
    let hash = call.db.read_as::<Hash>(call.args[1])?;
    let fields = &call.args[2..];
    call.reply.array(fields.len());
    let mut missed = false;
    for field in fields {
        match hash.as_ref().and_then(|hash| hash.get(field, now_ms)) {
            Some(value) => bulk(&mut call.reply, value),
            None => {
                missed = true;
                call.reply.null();
            }
        }
    }
    let due = missed && hash.is_some_and(|hash| hash.is_due(now_ms));
    expire_after(call, due);
    Ok(Effect::None)
}

/// `HLEN key`: expired fields count for as long as they are there.
fn hlen(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let length = call.db.read_as::<Hash>(call.args[1])?.map_or(0, |hash| hash.len());
    call.reply.integer(length as i64);
    Ok(Effect::None)
}

/// `HSTRLEN key field`
fn hstrlen(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let length = length_of(call)?.unwrap_or(0);
    call.reply.integer(length as i64);
    Ok(Effect::None)
}

/// `HEXISTS key field`
fn hexists(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let exists = length_of(call)?.is_some();
    call.reply.integer(i64::from(exists));
    Ok(Effect::None)
}

/// `HGETALL key`
fn hgetall(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let now_ms = call.due_ms();
    let Some(hash) = call.db.read_as::<Hash>(call.args[1])? else {
        call.reply.map(0);
        return Ok(Effect::None);
    };
    call.reply.map(hash.live_len(now_ms));
    hash.live(now_ms).for_each(|field| {
        bulk(&mut call.reply, field.name);
        bulk(&mut call.reply, field.value);
    });
    Ok(Effect::None)
}

/// `HKEYS key`
fn hkeys(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let now_ms = call.due_ms();
    let Some(hash) = call.db.read_as::<Hash>(call.args[1])? else {
        call.reply.array(0);
        return Ok(Effect::None);
    };
    call.reply.array(hash.live_len(now_ms));
    hash.live(now_ms).for_each(|field| bulk(&mut call.reply, field.name));
    Ok(Effect::None)
}

/// `HVALS key`
fn hvals(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let now_ms = call.due_ms();
    let Some(hash) = call.db.read_as::<Hash>(call.args[1])? else {
        call.reply.array(0);
        return Ok(Effect::None);
    };
    call.reply.array(hash.live_len(now_ms));
    hash.live(now_ms).for_each(|field| bulk(&mut call.reply, field.value));
    Ok(Effect::None)
}

/// The length of the value of the field that the request names.
fn length_of(call: &mut Call<'_>) -> Result<Option<usize>, CommandError> {
    let now_ms = call.due_ms();
    let Some(hash) = call.db.read_as::<Hash>(call.args[1])? else { return Ok(None) };
    let length = hash.get(call.args[2], now_ms).map(|value| value.len());
    let due = length.is_none() && hash.is_due(now_ms);
    expire_after(call, due);
    Ok(length)
}

/// Removes the expired fields that a read came upon, as a read removes an expired key.
fn expire_after(call: &mut Call<'_>, due: bool) {
    if due {
        call.db.expire_named(call.args[1], call.args[2..].iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use crate::bench::Bench;

    #[test]
    fn fields_and_values_are_read() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b two", ":2");
        bench.expect("HGET h a", "$1 1");
        bench.expect("HGET h zz", "$-1");
        bench.expect("HGET nokey a", "$-1");
        bench.expect("HMGET h a zz b", "*3 $1 1 $-1 $3 two");
        bench.expect("HMGET nokey a b", "*2 $-1 $-1");
        bench.expect("HLEN h", ":2");
        bench.expect("HLEN nokey", ":0");
        bench.expect("HSTRLEN h b", ":3");
        bench.expect("HSTRLEN h a", ":1");
        bench.expect("HSTRLEN h zz", ":0");
        bench.expect("HEXISTS h a", ":1");
        bench.expect("HEXISTS h zz", ":0");
        bench.expect("HGETALL h", "*4 $1 a $1 1 $1 b $3 two");
        bench.expect("HKEYS h", "*2 $1 a $1 b");
        bench.expect("HVALS h", "*2 $1 1 $3 two");
        bench.expect("HGETALL nokey", "*0");
        bench.expect("HKEYS nokey", "*0");
        bench.protocol = Protocol::Resp3;
        bench.expect("HGETALL h", "%2 $1 a $1 1 $1 b $3 two");
        bench.expect("HGETALL nokey", "%0");
        bench.expect("HGET h zz", "_");
        bench.expect("HMGET h a zz", "*2 $1 1 _");
    }

    #[test]
    fn other_types_are_refused() {
        let mut bench = Bench::new();
        bench.expect("SET s x", "+OK");
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        for request in [
            "HGET s a",
            "HMGET s a",
            "HLEN s",
            "HSTRLEN s a",
            "HEXISTS s a",
            "HGETALL s",
            "HKEYS s",
        ] {
            bench.expect(request, wrong);
        }
    }

    #[test]
    fn expired_fields_are_hidden_and_then_removed() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2 c 3", ":3");
        bench.expect("HPEXPIRE h 100 FIELDS 2 a c", "*2 :1 :1");
        bench.now_ms += 100;
        bench.expect("HLEN h", ":3");
        bench.expect("HGETALL h", "*2 $1 b $1 2");
        bench.expect("HKEYS h", "*1 $1 b");
        bench.expect("HVALS h", "*1 $1 2");
        bench.expect("HLEN h", ":3");
        bench.expect("HGET h b", "$1 2");
        bench.expect("HLEN h", ":3");
        bench.expect("HGET h a", "$-1");
        bench.expect("HLEN h", ":2");
        bench.expect("HEXISTS h c", ":0");
        bench.expect("HLEN h", ":1");
        bench.expect("HPEXPIRE h 100 FIELDS 1 b", "*1 :1");
        bench.now_ms += 100;
        bench.expect("HLEN h", ":1");
        bench.expect("HMGET h a b", "*2 $-1 $-1");
        bench.expect("HLEN h", ":0");
    }
}

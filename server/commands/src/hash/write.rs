//! Setting and removing fields.

use carnelian_keyspace::EventClass;
use carnelian_structs::hash::{FieldExpiry, Hash};

use super::{
    DELETE, INSERT, STORE, UPDATE, WRITE, change, change_live, command, limits, notify_removed,
};
use crate::call::Call;
use crate::command::DataCommand;
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const HSET: DataCommand = DataCommand {
    summary: "Sets fields to values; says how many are new.",
    complexity: "O(N) where N is the number of fields set.",
    flags: STORE,
    keys: UPDATE,
    ..command("hset", "2.0.0", -4, hset)
};

pub(super) const HMSET: DataCommand = DataCommand {
    summary: "Sets fields to values.",
    complexity: "O(N) where N is the number of fields set.",
    flags: STORE,
    keys: UPDATE,
    ..command("hmset", "2.0.0", -4, hmset)
};

pub(super) const HSETNX: DataCommand = DataCommand {
    summary: "Sets a field to a value unless it exists.",
    complexity: "O(1)",
    flags: STORE,
    keys: INSERT,
    ..command("hsetnx", "2.0.0", 4, hsetnx)
};

pub(super) const HDEL: DataCommand = DataCommand {
    summary: "Removes fields, and the key with the last of them.",
    complexity: "O(N) where N is the number of fields named.",
    flags: WRITE,
    keys: DELETE,
    ..command("hdel", "2.0.0", -3, hdel)
};

/// `HSET key field value [field value ...]`
fn hset(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let created = set_pairs(call, "hset")?;
    call.reply.integer(created as i64);
    Ok(Effect::Verbatim)
}

/// `HMSET key field value [field value ...]`
fn hmset(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    set_pairs(call, "hmset")?;
    call.reply.ok();
    Ok(Effect::Verbatim)
}

/// Sets the request's pairs and returns how many fields are new. A field that has expired is there
/// until it is removed.
fn set_pairs(call: &mut Call<'_>, name: &'static str) -> Result<usize, CommandError> {
    if !call.args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(name.into()));
    }
    let (key, words, limits) = (call.args[1], &call.args[2..], limits(call));
    let created = change(&mut call.db, key, |hash| {
        hash.prepare(words.len() / 2, limits);
        let set = |pair: &&[&[u8]]| hash.set(pair[0], pair[1], FieldExpiry::Clear, limits);
        words.chunks_exact(2).filter(set).count()
    })?;
    call.notify(EventClass::Hash, "hset", key);
    call.dirty(words.len() / 2);
    Ok(created)
}

/// `HSETNX key field value`
fn hsetnx(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let [_, key, field, value] = call.args else { unreachable!("the arity is 4") };
    let (now_ms, limits) = (call.due_ms(), limits(call));
    let set = change_live(&mut call.db, key, [*field], |hash| {
        let set =
            !hash.contains(field, now_ms) && hash.set(field, value, FieldExpiry::Clear, limits);
        (set, set)
    })?;
    call.reply.integer(i64::from(set));
    if !set {
        return Ok(Effect::None);
    }
    call.notify(EventClass::Hash, "hset", key);
    Ok(Effect::Verbatim)
}

/// `HDEL key field [field ...]`: what has expired and is still there counts as removed.
fn hdel(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let Some(mut hash) = call.db.write_as::<Hash>(key)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    let removed = call.args[2..].iter().filter(|field| hash.remove(field)).count();
    call.reply.integer(removed as i64);
    if removed == 0 {
        hash.unchanged();
        return Ok(Effect::None);
    }
    let spent = hash.is_empty();
    drop(hash);
    notify_removed(call, key, spent);
    call.dirty(removed);
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;
    use crate::effect::Effect;

    #[test]
    fn fields_are_set_and_removed() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2 a 3", ":2");
        bench.expect("HGET h a", "$1 3");
        bench.expect("HSET h a 4 c 5", ":1");
        bench.expect("HMSET h a 6 d 7", "+OK");
        bench.expect("HSETNX h a 8", ":0");
        bench.expect("HSETNX h e 9", ":1");
        bench.expect("HDEL h zz", ":0");
        bench.expect("HDEL h a a zz b", ":2");
        bench.expect("HLEN h", ":3");
        bench.expect("HDEL h c d e", ":3");
        bench.expect("HLEN h", ":0");
        bench.expect("HDEL h c", ":0");
        bench.expect("HSET h a", "-ERR wrong number of arguments for 'hset' command");
        bench.expect("HMSET h a 1 b", "-ERR wrong number of arguments for 'hmset' command");
    }

    #[test]
    fn nothing_changed_has_no_effect() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(super::hdel, "HDEL h a").0, Effect::None);
        assert_eq!(bench.run(super::hset, "HSET h a 1").0, Effect::Verbatim);
        assert_eq!(bench.run(super::hsetnx, "HSETNX h a 1").0, Effect::None);
        assert_eq!(bench.run(super::hdel, "HDEL h b").0, Effect::None);
        assert_eq!(bench.run(super::hdel, "HDEL h a").0, Effect::Verbatim);
    }

    #[test]
    fn setting_a_field_clears_its_expiry() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2", ":2");
        bench.expect("HPEXPIRE h 100 FIELDS 2 a b", "*2 :1 :1");
        bench.expect("HSET h a 3", ":0");
        bench.expect("HTTL h FIELDS 2 a b", "*2 :-1 :1");
        bench.now_ms += 100;
        bench.expect("HSET h b 4", ":0");
        bench.expect("HGET h b", "$1 4");
        bench.expect("HPEXPIRE h 100 FIELDS 2 a b", "*2 :1 :1");
        bench.now_ms += 100;
        bench.expect("HSETNX h b 5", ":1");
        bench.expect("HGETALL h", "*2 $1 b $1 5");
    }
}

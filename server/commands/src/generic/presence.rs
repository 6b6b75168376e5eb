//! Whether keys are there, and taking them away: DEL, UNLINK, EXISTS, TOUCH, TYPE.

use carnelian_keyspace::EventClass;

use super::METADATA_OF_ONE;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

const DELETE_ALL: &[KeySpec] = &[KeySpec::range(KeyFlags::RM.union(KeyFlags::DELETE), 1, -1, 1)];
const METADATA_OF_ALL: &[KeySpec] = &[KeySpec::range(KeyFlags::RO, 1, -1, 1)];
/// A cluster splits the keys among the shards and adds up their answers.
const SPLIT_AND_SUM: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];

pub(super) const DEL: DataCommand = DataCommand {
    name: "del",
    summary: "Removes keys.",
    since: "1.0.0",
    group: Group::Generic,
    complexity: "O(N) for N keys",
    arity: -2,
    flags: Flags::WRITE,
    categories: Categories::KEYSPACE,
    keys: DELETE_ALL,
    tips: SPLIT_AND_SUM,
    scope: Scope::Keys,
    subcommands: &[],
    run: del,
};

pub(super) const UNLINK: DataCommand = DataCommand {
    name: "unlink",
    summary: "Removes keys and frees their memory in the background.",
    since: "4.0.0",
    group: Group::Generic,
    complexity: "O(1) for each key, and O(N) elsewhere to free a value of N elements",
    arity: -2,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::KEYSPACE,
    keys: DELETE_ALL,
    tips: SPLIT_AND_SUM,
    scope: Scope::Keys,
    subcommands: &[],
    run: del,
};

pub(super) const EXISTS: DataCommand = DataCommand {
    name: "exists",
    summary: "Counts which of the given keys are there.",
    since: "1.0.0",
    group: Group::Generic,
    complexity: "O(N) for N keys",
    arity: -2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::KEYSPACE,
    keys: METADATA_OF_ALL,
    tips: SPLIT_AND_SUM,
    scope: Scope::Keys,
    subcommands: &[],
    run: exists,
};

pub(super) const TOUCH: DataCommand = DataCommand {
    name: "touch",
    summary: "Marks keys as just used, and counts those that are there.",
    since: "3.2.1",
    group: Group::Generic,
    complexity: "O(N) for N keys",
    arity: -2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::KEYSPACE,
    keys: METADATA_OF_ALL,
    tips: SPLIT_AND_SUM,
    scope: Scope::Keys,
    subcommands: &[],
    run: touch,
};

pub(super) const TYPE: DataCommand = DataCommand {
    name: "type",
    summary: "Names the type of the value at a key.",
    since: "1.0.0",
    group: Group::Generic,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::KEYSPACE,
    keys: METADATA_OF_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: type_of,
};

/// `DEL key [key ...]` and `UNLINK key [key ...]`
///
/// Large values are freed in the background in either case; the difference is only in the name.
fn del(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let mut removed = 0;
    for key in &call.args[1..] {
        if call.db.remove(key) {
            call.notify(EventClass::Generic, "del", key);
            removed += 1;
        }
    }
    call.dirty(removed);
    call.reply.integer(removed as i64);
    Ok(if removed == 0 { Effect::None } else { Effect::Verbatim })
}

/// `EXISTS key [key ...]`: a key named twice counts twice.
fn exists(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let found = call.args[1..].iter().filter(|key| call.db.glance(key).is_some()).count();
    call.reply.integer(found as i64);
    Ok(Effect::None)
}

/// `TOUCH key [key ...]`
fn touch(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let found = call.args[1..].iter().filter(|key| call.db.touch(key)).count();
    call.reply.integer(found as i64);
    Ok(Effect::None)
}

/// `TYPE key`
fn type_of(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let entry = call.db.glance(call.args[1]);
    call.reply.simple(entry.map_or("none", |entry| entry.value_kind().name()));
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;
    use crate::effect::Effect;

    #[test]
    fn del_counts_what_was_there() {
        let mut bench = Bench::new();
        bench.expect("SET a 1", "+OK");
        bench.expect("SET b 2", "+OK");
        bench.expect("DEL a b a missing", ":2");
        bench.expect("EXISTS a b", ":0");
        bench.expect("UNLINK a", ":0");
        assert_eq!(bench.run(super::del, "DEL a").0, Effect::None);
        bench.expect("SET a 1", "+OK");
        assert_eq!(bench.run(super::del, "UNLINK a").0, Effect::Verbatim);
    }

    #[test]
    fn an_expired_key_is_not_deleted_but_gone() {
        let mut bench = Bench::new();
        bench.expect("SET a 1 PX 10", "+OK");
        bench.now_ms += 10;
        bench.expect("DEL a", ":0");
    }

    #[test]
    fn repeated_keys_count_again() {
        let mut bench = Bench::new();
        bench.expect("SET a 1", "+OK");
        bench.expect("EXISTS a a b a", ":3");
        bench.expect("TOUCH a a b", ":2");
        bench.expect("TYPE a", "+string");
        bench.expect("TYPE b", "+none");
    }
}

//! Whole databases: FLUSHDB, FLUSHALL, SWAPDB.

use super::known_database;
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const FLUSHDB: DataCommand = DataCommand {
    name: "flushdb",
    summary: "Removes every key of the logical database.",
    since: "1.0.0",
    group: Group::Server,
    complexity: "O(1), and O(N) elsewhere to free N keys",
    arity: -1,
    flags: Flags::WRITE,
    categories: Categories::DANGEROUS.union(Categories::KEYSPACE),
    keys: &[],
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    scope: Scope::Everything,
    subcommands: &[],
    run: flushdb,
};

pub(super) const FLUSHALL: DataCommand = DataCommand {
    name: "flushall",
    summary: "Removes every key of all logical databases.",
    since: "1.0.0",
    group: Group::Server,
    complexity: "O(1), and O(N) elsewhere to free N keys",
    arity: -1,
    flags: Flags::WRITE,
    categories: Categories::DANGEROUS.union(Categories::KEYSPACE),
    keys: &[],
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    scope: Scope::Everything,
    subcommands: &[],
    run: flushall,
};

pub(super) const SWAPDB: DataCommand = DataCommand {
    name: "swapdb",
    summary: "Exchanges the keys of two logical databases.",
    since: "4.0.0",
    group: Group::Server,
    complexity: "O(1), unless keys are watched: O(N) for N keys",
    arity: 3,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::DANGEROUS.union(Categories::KEYSPACE),
    keys: &[],
    tips: &[],
    scope: Scope::Everything,
    subcommands: &[],
    run: swapdb,
};

/// ASYNC and SYNC are both accepted and mean the same: tables are taken out at once and freed in
/// the background, whatever their size.
fn check_mode(call: &mut Call<'_>) -> Result<(), CommandError> {
    call.db.changes.frees_now = match &call.args[1..] {
        [] => !call.limits().lazy_user_flush,
        [word] if args::is(word, "SYNC") => true,
        [word] if args::is(word, "ASYNC") => false,
        _ => return Err(CommandError::Syntax),
    };
    Ok(())
}

/// `FLUSHDB [ASYNC | SYNC]`: followers are told even if there was nothing to remove.
fn flushdb(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    check_mode(call)?;
    let index = call.db.index();
    let removed = call.db.flush(index);
    call.dirty(removed);
    call.reply.ok();
    Ok(Effect::Verbatim)
}

/// `FLUSHALL [ASYNC | SYNC]`
fn flushall(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    check_mode(call)?;
    for index in 0..call.db.databases() {
        let removed = call.db.flush(index);
        call.dirty(removed);
    }
    call.reply.ok();
    Ok(Effect::Verbatim)
}

/// `SWAPDB index1 index2`
fn swapdb(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let number = |word: &[u8], which: &str| {
        let number = args::integer(word).ok().and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| CommandError::text(format!("ERR invalid {which} DB index")))
    };
    let first = number(call.args[1], "first")?;
    let second = number(call.args[2], "second")?;
    let (first, second) = (known_database(call, first)?, known_database(call, second)?);
    call.db.swap(first, second);
    call.reply.ok();
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;
    use crate::effect::Effect;

    #[test]
    fn flushdb_leaves_other_databases_alone() {
        let mut bench = Bench::new();
        bench.expect("SET a 1", "+OK");
        bench.expect("COPY a b DB 1", ":1");
        bench.expect("FLUSHDB", "+OK");
        bench.expect("DBSIZE", ":0");
        bench.expect("SWAPDB 1 0", "+OK");
        bench.expect("GET b", "$1 1");
        bench.expect("SWAPDB 1 0", "+OK");
        bench.expect("FLUSHALL ASYNC", "+OK");
        bench.expect("SWAPDB 1 0", "+OK");
        bench.expect("DBSIZE", ":0");
        assert_eq!(bench.run(super::flushdb, "FLUSHDB sync").0, Effect::Verbatim);
        bench.expect("FLUSHDB NOW", "-ERR syntax error");
        bench.expect("FLUSHALL SYNC ASYNC", "-ERR syntax error");
    }

    #[test]
    fn swapdb_names_the_bad_index() {
        let mut bench = Bench::new();
        bench.expect("SWAPDB x 1", "-ERR invalid first DB index");
        bench.expect("SWAPDB 0 4294967296", "-ERR invalid second DB index");
        bench.expect("SWAPDB 0 -1", "-ERR DB index is out of range");
        bench.expect("SWAPDB 16 0", "-ERR DB index is out of range");
        bench.expect("SET a 1", "+OK");
        bench.expect("SWAPDB 0 0", "+OK");
        bench.expect("GET a", "$1 1");
    }
}

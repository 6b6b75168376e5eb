//! OBJECT: what the server knows of a value beyond its content.

use carnelian_keyspace::{AccessPolicy, Text, Value, frequency, idle_seconds};
use carnelian_structs::entry::EntryRef;

use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Run, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const OBJECT: DataCommand = DataCommand {
    name: "object",
    summary: "Groups the commands on the inside of a value.",
    since: "2.2.3",
    group: Group::Generic,
    complexity: "Depends on the subcommand",
    arity: -2,
    flags: Flags::empty(),
    categories: Categories::empty(),
    keys: &[],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[
        about_key("encoding", "Names the encoding of a value.", "2.2.3", encoding),
        about_key("freq", "Returns how often a value is used.", "4.0.0", freq),
        about_key("idletime", "Returns for how long a value was not used.", "2.2.3", idletime),
        about_key("refcount", "Returns how many refer to a value.", "2.2.3", refcount),
        HELP,
    ],
    run: unknown,
};

const HELP: DataCommand = DataCommand {
    name: "help",
    summary: "Explains the subcommands.",
    since: "6.2.0",
    group: Group::Generic,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::LOADING.union(Flags::STALE),
    categories: Categories::KEYSPACE,
    keys: &[],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: help,
};

/// After the subcommand.
const KEY: &[KeySpec] = &[KeySpec::range(KeyFlags::RO, 2, 0, 1)];

const fn about_key(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    run: Run,
) -> DataCommand {
    DataCommand {
        name,
        summary,
        since,
        group: Group::Generic,
        complexity: "O(1)",
        arity: 3,
        flags: Flags::READONLY,
        categories: Categories::KEYSPACE,
        keys: KEY,
        tips: &["nondeterministic_output"],
        scope: Scope::Keys,
        subcommands: &[],
        run,
    }
}

/// Integers below this share one value in Redis; clients are shown the same count here.
const SHARED_INTEGERS: i64 = 10_000;
/// The count Redis shows for a value that is shared by all.
const SHARED: i64 = i32::MAX as i64;

/// What comes here is no subcommand: those have handlers of their own.
fn unknown(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let word = call.args[1];
    let word = &word[..word.len().min(128)];
    Err(CommandError::quoting("ERR unknown subcommand '", word, "'. Try OBJECT HELP."))
}

/// Answers with `of` the key's entry, or null. Counts as a hit or miss, not as an access.
fn look(
    call: &mut Call<'_>,
    of: impl FnOnce(EntryRef<'_, Value>) -> Result<i64, CommandError>,
) -> Result<Effect, CommandError> {
    let key = call.args[2];
    let answer = call.db.look(key).map(of).transpose()?;
    count_look(call, answer.is_some());
    match answer {
        Some(number) => call.reply.integer(number),
        None => call.reply.null(),
    }
    Ok(Effect::None)
}

fn count_look(call: &mut Call<'_>, found: bool) {
    let changes = &mut call.db.changes;
    *(if found { &mut changes.hits } else { &mut changes.misses }) += 1;
}

/// `OBJECT ENCODING key`
fn encoding(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let name = call.db.look(call.args[2]).map(EntryRef::encoding);
    count_look(call, name.is_some());
    match name {
        Some(name) => call.reply.bulk(name.as_bytes()),
        None => call.reply.null(),
    }
    Ok(Effect::None)
}

/// `OBJECT REFCOUNT key`
fn refcount(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let shares = call.environment.shares_integers;
    look(call, |entry| {
        Ok(match entry.text() {
            Some(Text::Integer(0..SHARED_INTEGERS)) if shares => SHARED,
            _ => 1,
        })
    })
}

/// `OBJECT IDLETIME key`
fn idletime(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (now_ms, policy) = (call.now_ms(), call.environment.policy);
    look(call, |entry| match policy {
        AccessPolicy::Lru => Ok(idle_seconds(entry.access(), now_ms).into()),
        AccessPolicy::Lfu { .. } => Err(CommandError::text(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that \
             when switching between policies at runtime LRU and LFU data will take some time to \
             adjust.",
        )),
    })
}

/// `OBJECT FREQ key`
fn freq(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (now_ms, environment) = (call.now_ms(), call.environment);
    look(call, |entry| match environment.policy {
        AccessPolicy::Lfu { .. } => {
            Ok(frequency(entry.access(), now_ms, environment.lfu_decay_minutes).into())
        }
        AccessPolicy::Lru => Err(CommandError::text(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
             note that when switching between policies at runtime LRU and LFU data will take some \
             time to adjust.",
        )),
    })
}

/// `OBJECT HELP`
fn help(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    const LINES: &[&str] = &[
        "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ENCODING <key>",
        "    The name of the form in which the value is kept in memory.",
        "FREQ <key>",
        "    The access counter (logarithmic) that LFU eviction goes by.",
        "IDLETIME <key>",
        "    Seconds since the value was last used, about.",
        "REFCOUNT <key>",
        "    How many refer to the value.",
        "HELP",
        "    These lines.",
    ];
    call.reply.array(LINES.len());
    for line in LINES {
        call.reply.simple(line);
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    fn ask(bench: &mut Bench, run: Run, request: &str) -> String {
        bench.run(run, request).1.trim_end().replace("\r\n", " ")
    }

    #[test]
    fn encodings_and_reference_counts_are_those_of_redis() {
        let mut bench = Bench::new();
        for (value, encoding_name, count) in [
            ("9999", "int", "2147483647"),
            ("10000", "int", "1"),
            ("-1", "int", "1"),
            ("word", "embstr", "1"),
        ] {
            bench.expect(&format!("SET k {value}"), "+OK");
            let reply = ask(&mut bench, encoding, "OBJECT ENCODING k");
            assert_eq!(reply, format!("${} {encoding_name}", encoding_name.len()));
            assert_eq!(ask(&mut bench, refcount, "OBJECT REFCOUNT k"), format!(":{count}"));
        }
        assert_eq!(ask(&mut bench, encoding, "OBJECT ENCODING missing"), "$-1");
        assert_eq!(ask(&mut bench, refcount, "OBJECT REFCOUNT missing"), "$-1");
    }

    #[test]
    fn the_policy_decides_between_idle_time_and_frequency() {
        let mut bench = Bench::new();
        bench.expect("SET k v", "+OK");
        bench.now_ms += 5000;
        assert_eq!(ask(&mut bench, idletime, "OBJECT IDLETIME k"), ":5");
        assert!(ask(&mut bench, freq, "OBJECT FREQ k").contains("policy is not selected"));
        assert_eq!(ask(&mut bench, freq, "OBJECT FREQ missing"), "$-1");
        bench.environment.policy = AccessPolicy::Lfu { log_factor: 10, decay_minutes: 1 };
        bench.expect("SET l v", "+OK");
        assert_eq!(ask(&mut bench, freq, "OBJECT FREQ l"), ":5");
        assert!(ask(&mut bench, idletime, "OBJECT IDLETIME l").contains("policy is selected"));
        bench.expect("OBJECT NONSENSE k", "-ERR unknown subcommand 'NONSENSE'. Try OBJECT HELP.");
    }
}

//! Walks over a database: SCAN, KEYS, RANDOMKEY, DBSIZE.

use carnelian_keyspace::Kind;
use carnelian_resp::{Writer, number};
use carnelian_structs::glob;

use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const SCAN: DataCommand = DataCommand {
    name: "scan",
    summary: "Returns some of the keys, and where to go on.",
    since: "2.8.0",
    group: Group::Generic,
    complexity: "O(1) for each call, O(N) for a walk over N keys",
    arity: -2,
    flags: Flags::READONLY,
    categories: Categories::KEYSPACE,
    keys: &[],
    tips: &["nondeterministic_output", "request_policy:special", "response_policy:special"],
    scope: Scope::Walk,
    subcommands: &[],
    run: scan,
};

pub(super) const KEYS: DataCommand = DataCommand {
    name: "keys",
    summary: "Returns every key that matches a pattern.",
    since: "1.0.0",
    group: Group::Generic,
    complexity: "O(N) for N keys in the database",
    arity: 2,
    flags: Flags::READONLY,
    categories: Categories::DANGEROUS.union(Categories::KEYSPACE),
    keys: &[],
    tips: &["request_policy:all_shards", "nondeterministic_output_order"],
    scope: Scope::Everything,
    subcommands: &[],
    run: keys,
};

pub(super) const RANDOMKEY: DataCommand = DataCommand {
    name: "randomkey",
    summary: "Returns a key picked at random.",
    since: "1.0.0",
    group: Group::Generic,
    complexity: "O(1)",
    arity: 1,
    flags: Flags::READONLY,
    categories: Categories::KEYSPACE,
    keys: &[],
    tips: &["request_policy:all_shards", "response_policy:special", "nondeterministic_output"],
    scope: Scope::Walk,
    subcommands: &[],
    run: randomkey,
};

pub(super) const DBSIZE: DataCommand = DataCommand {
    name: "dbsize",
    summary: "Counts the keys of the database.",
    since: "1.0.0",
    group: Group::Server,
    complexity: "O(1)",
    arity: 1,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::KEYSPACE,
    keys: &[],
    tips: &["request_policy:all_shards", "response_policy:agg_sum"],
    scope: Scope::Walk,
    subcommands: &[],
    run: dbsize,
};

struct Options<'w> {
    count: usize,
    /// `None` if every key matches.
    pattern: Option<&'w [u8]>,
    kind: KindFilter,
}

#[derive(Clone, Copy)]
enum KindFilter {
    Any,
    Only(Kind),
    /// A type nobody has heard of: no key has it.
    Unknown,
}

impl KindFilter {
    fn of(name: &[u8]) -> Self {
        let kinds =
            [Kind::String, Kind::List, Kind::Set, Kind::SortedSet, Kind::Hash, Kind::Stream];
        let found = kinds.into_iter().find(|kind| args::is(name, kind.name()));
        found.map_or(Self::Unknown, Self::Only)
    }

    fn lets_pass(self, kind: Kind) -> bool {
        match self {
            Self::Any => true,
            Self::Only(wanted) => wanted == kind,
            Self::Unknown => false,
        }
    }
}

impl<'w> Options<'w> {
    fn parse(words: &[&'w [u8]]) -> Result<Self, CommandError> {
        let mut options = Self { count: 10, pattern: None, kind: KindFilter::Any };
        let mut rest = words;
        while let Some((word, after)) = rest.split_first() {
            let value = after.first();
            if args::is(word, "NOVALUES") {
                return Err(CommandError::text("ERR NOVALUES option can only be used in HSCAN"));
            }
            let value = value.ok_or(CommandError::Syntax)?;
            if args::is(word, "COUNT") {
                let count = args::integer(value)?;
                options.count =
                    usize::try_from(count).ok().filter(|n| 0 < *n).ok_or(CommandError::Syntax)?;
            } else if args::is(word, "MATCH") {
                options.pattern = if *value == b"*" { None } else { Some(value) };
            } else if args::is(word, "TYPE") {
                options.kind = KindFilter::of(value);
            } else {
                return Err(CommandError::Syntax);
            }
            rest = &after[1..];
        }
        Ok(options)
    }
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
fn scan(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let cursor = number::parse_u64_lenient(call.args[1]).ok_or(CommandError::InvalidCursor)?;
    let options = Options::parse(&call.args[2..])?;
    // The cursor comes first in the reply and is known last.
    let (mut found, mut keys) = (0, Vec::new());
    let mut writer = Writer::new(&mut keys, call.reply.protocol());
    let matches =
        |key: &[u8]| options.pattern.is_none_or(|pattern| glob::matches(pattern, key, false));
    let next = call.db.scan(cursor, options.count, matches, |entry| {
        if options.kind.lets_pass(entry.value_kind()) {
            writer.bulk(entry.key());
            found += 1;
        }
    });
    call.reply.array(2);
    call.reply.bulk_integer(next as i64);
    call.reply.array(found);
    call.reply.raw(&keys);
    Ok(Effect::None)
}

/// `KEYS pattern`
fn keys(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let pattern = call.args[1];
    let all = pattern == b"*";
    let mut found = 0;
    let mark = call.reply.defer();
    call.db.for_each(|entry| {
        if all || glob::matches(pattern, entry.key(), false) {
            call.reply.bulk(entry.key());
            found += 1;
        }
    });
    call.reply.finish_array(mark, found);
    Ok(Effect::None)
}

/// `RANDOMKEY`
fn randomkey(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    match call.db.random_key() {
        Some(key) => call.reply.bulk(&key),
        None => call.reply.null(),
    }
    Ok(Effect::None)
}

/// `DBSIZE`
fn dbsize(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let keys = call.db.len();
    call.reply.integer(keys as i64);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::bench::Bench;

    /// The cursor and the keys of one reply.
    fn parts(reply: &str) -> (String, Vec<String>) {
        let mut lines = reply.split("\r\n").filter(|line| !line.starts_with(['*', '$']));
        let cursor = lines.next().expect("a cursor").to_owned();
        (cursor, lines.filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    fn scan_all(bench: &mut Bench, options: &str) -> BTreeSet<String> {
        let (mut cursor, mut all) = ("0".to_owned(), BTreeSet::new());
        loop {
            let (next, keys) = parts(&bench.reply(format!("SCAN {cursor} {options}").trim_end()));
            all.extend(keys);
            if next == "0" {
                return all;
            }
            cursor = next;
        }
    }

    #[test]
    fn a_whole_scan_returns_every_key() {
        let mut bench = Bench::new();
        for n in 0..1000 {
            bench.expect(&format!("SET key:{n} {n}"), "+OK");
        }
        assert_eq!(scan_all(&mut bench, "").len(), 1000);
        assert_eq!(scan_all(&mut bench, "COUNT 1").len(), 1000);
        assert_eq!(scan_all(&mut bench, "COUNT 9223372036854775807 TYPE STRING").len(), 1000);
        assert_eq!(scan_all(&mut bench, "MATCH key:1?").len(), 10);
        assert_eq!(scan_all(&mut bench, "MATCH * TYPE list").len(), 0);
        assert_eq!(scan_all(&mut bench, "TYPE nonsense").len(), 0);
        assert_eq!(parts(&bench.reply("KEYS key:99*")).1.len() + 1, 11);
        bench.expect("DBSIZE", ":1000");
    }

    #[test]
    fn one_call_is_enough_for_a_few_keys() {
        let mut bench = Bench::new();
        for key in ["a", "b", "c"] {
            bench.expect(&format!("SET {key} 1"), "+OK");
        }
        let (cursor, keys) = parts(&bench.reply("SCAN 0"));
        assert_eq!((cursor.as_str(), keys.len()), ("0", 3));
    }

    #[test]
    fn bad_cursors_and_options_are_refused() {
        let mut bench = Bench::new();
        for cursor in ["x", "-1", "18446744073709551616", "1x"] {
            bench.expect(&format!("SCAN {cursor}"), "-ERR invalid cursor");
        }
        bench.expect("SCAN 18446744073709551615", "*2 $1 0 *0");
        bench.expect("SCAN 0 COUNT 0", "-ERR syntax error");
        bench.expect("SCAN 0 COUNT -1", "-ERR syntax error");
        bench.expect("SCAN 0 COUNT x", "-ERR value is not an integer or out of range");
        bench.expect("SCAN 0 MATCH", "-ERR syntax error");
        bench.expect("SCAN 0 FOO 1", "-ERR syntax error");
        bench.expect("SCAN 0 NOVALUES", "-ERR NOVALUES option can only be used in HSCAN");
    }

    #[test]
    fn expired_keys_are_not_shown() {
        let mut bench = Bench::new();
        bench.expect("RANDOMKEY", "$-1");
        bench.expect("SET a 1 PX 10", "+OK");
        bench.expect("RANDOMKEY", "$1 a");
        bench.expect("KEYS *", "*1 $1 a");
        bench.now_ms += 10;
        bench.expect("KEYS *", "*0");
        bench.expect("SCAN 0", "*2 $1 0 *0");
        bench.expect("RANDOMKEY", "$-1");
    }

    #[test]
    fn walks_remove_the_expired_keys_they_meet() {
        let mut bench = Bench::new();
        for key in ["a", "b", "c"] {
            bench.expect(&format!("SET {key} 1 PX 10"), "+OK");
        }
        bench.expect("SET stays 1", "+OK");
        bench.now_ms += 10;
        bench.expect("KEYS *", "*1 $5 stays");
        bench.expect("DBSIZE", ":4");
        // Keys that the pattern leaves out are not looked at; those of another type are.
        bench.expect("SCAN 0 MATCH x*", "*2 $1 0 *0");
        bench.expect("DBSIZE", ":4");
        bench.expect("SCAN 0 TYPE list", "*2 $1 0 *0");
        bench.expect("DBSIZE", ":1");
        bench.expect("SCAN 0", "*2 $1 0 *1 $5 stays");

        bench.expect("DEL stays", ":1");
        bench.expect("SET a 1 PX 10", "+OK");
        bench.now_ms += 10;
        bench.expect("RANDOMKEY", "$-1");
        bench.expect("DBSIZE", ":0");
    }
}

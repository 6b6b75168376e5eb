//! COPY.

use carnelian_keyspace::EventClass;

use super::{SAME_OBJECT, database};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const COPY: DataCommand = DataCommand {
    name: "copy",
    summary: "Copies the value of a key to another key.",
    since: "6.2.0",
    group: Group::Generic,
    complexity: "O(N) for a value of N elements, O(1) for a string",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::KEYSPACE,
    keys: &[
        KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1),
        KeySpec::range(KeyFlags::OW.union(KeyFlags::UPDATE), 2, 0, 1),
    ],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: copy,
};

struct Options {
    database: usize,
    replace: bool,
}

impl Options {
    fn parse(call: &Call<'_>) -> Result<Self, CommandError> {
        let mut options = Self { database: call.db.index(), replace: false };
        let mut words = call.args[3..].iter();
        while let Some(word) = words.next() {
            if args::is(word, "REPLACE") {
                options.replace = true;
            } else if args::is(word, "DB") {
                options.database = database(call, words.next().ok_or(CommandError::Syntax)?)?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// `COPY source destination [DB destination-db] [REPLACE]`: the copy expires when the source does.
fn copy(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (source, destination) = (call.args[1], call.args[2]);
    let options = Options::parse(call)?;
    let home = call.db.index();
    if options.database == home && source == destination {
        return Err(SAME_OBJECT);
    }
    call.db.select(options.database);
    let occupied = call.db.exists(destination);
    call.db.select(home);
    if occupied && !options.replace {
        // The source counts as read all the same.
        call.db.settle(source);
        call.reply.integer(0);
        return Ok(Effect::None);
    }
    let Some(duplicate) = call.db.duplicate(source, destination) else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    call.db.select(options.database);
    // First, so that the key counts as new even if it was there.
    call.db.remove(destination);
    call.db.insert(destination, duplicate);
    call.notify(EventClass::Generic, "copy_to", destination);
    call.db.select(home);
    call.reply.integer(1);
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn a_string_is_copied_with_its_expiry_and_encoding() {
        let mut bench = Bench::new();
        let long = "x".repeat(3000);
        for value in ["12", "short", long.as_str()] {
            bench.expect(&format!("SET a {value} PX 5000"), "+OK");
            bench.expect("COPY a b REPLACE", ":1");
            bench.expect("GET b", &format!("${} {value}", value.len()));
            bench.expect("GET a", &format!("${} {value}", value.len()));
            bench.expect("PTTL b", ":5000");
        }
        bench.expect("SET a other", "+OK");
        bench.expect("GET b", &format!("$3000 {long}"));
    }

    #[test]
    fn a_hash_is_copied_with_the_expiries_of_its_fields() {
        let mut bench = Bench::new();
        bench.expect("HSET a f 1 g 2", ":2");
        bench.expect("HPEXPIRE a 1000 FIELDS 1 f", "*1 :1");
        bench.expect("COPY a b", ":1");
        bench.expect("HSET a g 3", ":0");
        bench.expect("HGET b g", "$1 2");
        bench.expect("HPTTL b FIELDS 2 f g", "*2 :1000 :-1");
        bench.now_ms += 1000;
        bench.expect("HGET b f", "$-1");
    }

    #[test]
    fn the_destination_is_kept_unless_replaced() {
        let mut bench = Bench::new();
        bench.expect("COPY a b", ":0");
        bench.expect("SET a 1", "+OK");
        bench.expect("SET b 2", "+OK");
        bench.expect("COPY a b", ":0");
        bench.expect("COPY a b DB 3", ":1");
        bench.expect("COPY a a DB 3 REPLACE", ":1");
        bench.expect("COPY a b REPLACE", ":1");
        bench.expect("GET b", "$1 1");
        bench.expect("SWAPDB 0 3", "+OK");
        bench.expect("DBSIZE", ":2");
    }

    #[test]
    fn bad_options_are_refused() {
        let mut bench = Bench::new();
        let same = "-ERR source and destination objects are the same";
        bench.expect("COPY a a", same);
        bench.expect("COPY a a DB 0", same);
        bench.expect("COPY a b DB", "-ERR syntax error");
        bench.expect("COPY a b FOO", "-ERR syntax error");
        bench.expect("COPY a b DB 16", "-ERR DB index is out of range");
        bench.expect("COPY a b DB x", "-ERR value is not an integer or out of range");
    }
}

//! Walks over the members of a set: SSCAN.

use carnelian_resp::{Writer, number};
use carnelian_structs::glob;
use carnelian_structs::listpack::Element;
use carnelian_structs::set::Set;

use super::READ;
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::element;
use crate::error::CommandError;

pub(super) const SSCAN: DataCommand = DataCommand {
    name: "sscan",
    summary: "Returns some of the members of a set, and where to go on.",
    since: "2.8.0",
    group: Group::Set,
    complexity: "O(1) for each call, O(N) for a walk over N members",
    arity: -3,
    flags: Flags::READONLY,
    categories: Categories::SET,
    keys: READ,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: sscan,
};

struct Options<'w> {
    count: usize,
    /// `None` if every member matches.
    pattern: Option<&'w [u8]>,
}

impl<'w> Options<'w> {
    fn parse(words: &'w [&'w [u8]]) -> Result<Self, CommandError> {
        let mut options = Self { count: 10, pattern: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if args::is(word, "NOVALUES") {
                return Err(CommandError::text("ERR NOVALUES option can only be used in HSCAN"));
            }
            let value = words.next().ok_or(CommandError::Syntax)?;
            if args::is(word, "COUNT") {
                options.count = match args::integer(value)? {
                    ..1 => return Err(CommandError::Syntax),
                    count => usize::try_from(count).unwrap_or(usize::MAX),
                };
            } else if args::is(word, "MATCH") {
                options.pattern = Some(*value).filter(|&pattern| pattern != b"*");
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// `SSCAN key cursor [MATCH pattern] [COUNT count]`
fn sscan(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let invalid = CommandError::InvalidCursor;
    let cursor = number::parse_u64_lenient(call.args[2]).ok_or(invalid)?;
    let reply = &mut call.reply;
    let Some(set) = call.db.read_as::<Set>(call.args[1])? else {
        reply.array(2);
        reply.bulk(b"0");
        reply.array(0);
        return Ok(Effect::None);
    };
    let options = Options::parse(&call.args[3..])?;
    // The cursor comes first in the reply but is known last.
    let mut members = Vec::new();
    let mut writer = Writer::new(&mut members, reply.protocol());
    let mut count = 0;
    let next = set.scan(cursor, options.count, |member| {
        let matched = |pattern| match member {
            Element::String(bytes) => glob::matches(pattern, bytes, false),
            Element::Integer(_) => glob::matches(pattern, &member.to_vec(), false),
        };
        if options.pattern.is_none_or(matched) {
            element::bulk(&mut writer, member);
            count += 1;
        }
    });
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(count);
    reply.raw(&members);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::bench::Bench;

    #[test]
    fn small_sets_are_shown_at_once() {
        let mut bench = Bench::new();
        bench.expect("SSCAN k 0 FOO", "*2 $1 0 *0");
        bench.expect("SADD k 1 2 13", ":3");
        bench.expect("SSCAN k 7 COUNT 1", "*2 $1 0 *3 $1 1 $1 2 $2 13");
        bench.expect("SSCAN k 0 MATCH 1*", "*2 $1 0 *2 $1 1 $2 13");
        bench.expect("SSCAN k x", "-ERR invalid cursor");
        bench.expect("SSCAN k 0 COUNT 0", "-ERR syntax error");
        bench.expect("SSCAN k 0 COUNT x", "-ERR value is not an integer or out of range");
        bench.expect("SSCAN k 0 COUNT", "-ERR syntax error");
        bench.expect("SSCAN k 0 TYPE set", "-ERR syntax error");
        bench.expect("SSCAN k 0 NOVALUES", "-ERR NOVALUES option can only be used in HSCAN");
    }

    #[test]
    fn a_large_set_is_shown_in_steps() {
        let mut bench = Bench::new();
        for member in 0..300 {
            bench.reply(&format!("SADD k m{member}"));
        }
        let (mut seen, mut cursor, mut steps) = (BTreeSet::new(), "0".to_owned(), 0);
        loop {
            let reply = bench.reply(&format!("SSCAN k {cursor} COUNT 20"));
            let lines: Vec<&str> = reply.split("\r\n").collect();
            cursor = lines[2].to_owned();
            seen.extend(
                lines[4..].iter().filter(|line| line.starts_with('m')).map(|l| (*l).to_owned()),
            );
            steps += 1;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 300);
        assert!(5 < steps, "{steps} steps");
    }
}

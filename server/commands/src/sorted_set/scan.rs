//! ZSCAN.

use carnelian_resp::{Writer, number};
use carnelian_structs::glob;
use carnelian_structs::sorted_set::SortedSet;

use super::{READ_ONE, write_member};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const ZSCAN: DataCommand = DataCommand {
    name: "zscan",
    summary: "Returns some of the members with their scores, and where to go on.",
    since: "2.8.0",
    group: Group::SortedSet,
    complexity: "O(1) for each call, O(N) for a walk over N members",
    arity: -3,
    flags: Flags::READONLY,
    categories: Categories::SORTEDSET,
    keys: READ_ONE,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: zscan,
};

struct Options<'w> {
    count: usize,
    /// `None` if every member matches.
    pattern: Option<&'w [u8]>,
}

impl<'w> Options<'w> {
    fn parse(words: &[&'w [u8]]) -> Result<Self, CommandError> {
        let mut options = Self { count: 10, pattern: None };
        let mut rest = words;
        while let [word, tail @ ..] = rest {
            rest = match tail {
                [count, tail @ ..] if args::is(word, "COUNT") => {
                    let count = args::integer(count)?;
                    options.count = usize::try_from(count)
                        .ok()
                        .filter(|count| 0 < *count)
                        .ok_or(CommandError::Syntax)?;
                    tail
                }
                [pattern, tail @ ..] if args::is(word, "MATCH") => {
                    options.pattern = if *pattern == b"*" { None } else { Some(pattern) };
                    tail
                }
                _ if args::is(word, "NOVALUES") => {
                    return Err(CommandError::text(
                        "ERR NOVALUES option can only be used in HSCAN",
                    ));
                }
                _ => return Err(CommandError::Syntax),
            };
        }
        Ok(options)
    }
}

/// `ZSCAN key cursor [MATCH pattern] [COUNT count]`
fn zscan(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let cursor = number::parse_u64_lenient(call.args[2]).ok_or(CommandError::InvalidCursor)?;
    let Some(set) = call.db.read_as::<SortedSet>(call.args[1])? else {
        call.reply.array(2);
        call.reply.bulk(b"0");
        call.reply.array(0);
        return Ok(Effect::None);
    };
    let options = Options::parse(&call.args[3..])?;
    // The cursor comes first in the reply and is known last.
    let (mut found, mut pairs) = (0, Vec::new());
    let mut writer = Writer::new(&mut pairs, call.reply.protocol());
    let (mut buffer, mut text) = (itoa::Buffer::new(), String::new());
    let packed = matches!(*set, SortedSet::Listpack(_));
    let next = set.scan(cursor, options.count, |member, score| {
        let passes = |pattern| glob::matches(pattern, member.as_bytes(&mut buffer), false);
        if !options.pattern.is_none_or(passes) {
            return;
        }
        found += 1;
        write_member(&mut writer, member);
        if packed {
            writer.bulk_double(score);
        } else {
            text.clear();
            write_17_digits(score, &mut text);
            writer.bulk(text.as_bytes());
        }
    });
    call.reply.array(2);
    call.reply.bulk_integer(next as i64);
    call.reply.array(2 * found);
    call.reply.raw(&pairs);
    Ok(Effect::None)
}

/// Writes a score as C's `%.17g` does. ZSCAN is the one place where Redis does so, and that only
/// for its large encoding.
fn write_17_digits(score: f64, out: &mut String) {
    use std::fmt::Write as _;

    // Writing to a String cannot fail.
    if !score.is_finite() || score == 0.0 {
        let _ = write!(out, "{score}");
        return;
    }
    let scientific = format!("{score:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0');
    out.push_str(sign);
    if !(-4..17).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs());
    } else if exponent < 0 {
        let zeros = exponent.unsigned_abs() as usize - 1;
        let _ = write!(out, "0.{:0<zeros$}{digits}", "");
    } else {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            let _ = write!(out, "{digits:0<whole$}");
        } else {
            let (whole, fraction) = digits.split_at(whole);
            let _ = write!(out, "{whole}.{fraction}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    #[test]
    fn a_scan_of_a_small_set_is_one_call() {
        let mut bench = Bench::new();
        bench.expect("ZSCAN k 0", "*2 $1 0 *0");
        bench.expect("ZSCAN k 0 COUNT 0", "*2 $1 0 *0");
        bench.expect("ZADD k 1 a 0.1 b 2 12", ":3");
        bench.expect("ZSCAN k 0 COUNT 1", "*2 $1 0 *6 $1 b $3 0.1 $1 a $1 1 $2 12 $1 2");
        bench.expect("ZSCAN k 5 MATCH 1*", "*2 $1 0 *2 $2 12 $1 2");
        bench.expect("ZSCAN k 0 MATCH x", "*2 $1 0 *0");
        bench.expect("ZSCAN k x", "-ERR invalid cursor");
        bench.expect("ZSCAN k 0 COUNT 0", "-ERR syntax error");
        bench.expect("ZSCAN k 0 COUNT x", "-ERR value is not an integer or out of range");
        bench.expect("ZSCAN k 0 MATCH", "-ERR syntax error");
        bench.expect("ZSCAN k 0 TYPE zset", "-ERR syntax error");
        bench.expect("ZSCAN k 0 NOVALUES", "-ERR NOVALUES option can only be used in HSCAN");
    }

    #[test]
    fn a_large_set_shows_17_digits() {
        let mut bench = Bench::new();
        bench.environment.limits.zset_max_listpack_entries = 0;
        bench.expect("ZADD k 0.1 a", ":1");
        bench.expect("ZSCAN k 0", "*2 $1 0 *2 $1 a $19 0.10000000000000001");
        let cases = [
            (1e17, "1e+17"),
            (1e-7, "9.9999999999999995e-08"),
            (3.14, "3.1400000000000001"),
            (123_456_789_012_345_680_000.0, "1.2345678901234568e+20"),
            (-0.0, "-0"),
            (0.0, "0"),
            (10.0, "10"),
            (-1.5, "-1.5"),
            (0.001, "0.001"),
            (0.000_1, "0.0001"),
            (0.000_01, "1.0000000000000001e-05"),
            (12_345_678_901_234_567.0, "12345678901234568"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (5e-324, "4.9406564584124654e-324"),
        ];
        for (score, expected) in cases {
            let mut text = String::new();
            write_17_digits(score, &mut text);
            assert_eq!(text, expected);
        }
    }
}

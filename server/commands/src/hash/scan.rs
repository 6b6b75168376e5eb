//! Going through a hash step by step.

use carnelian_resp::number;
use carnelian_structs::hash::Hash;

use super::{ACCESS, bulk, command};
use crate::args;
use crate::call::Call;
use crate::command::{DataCommand, Flags};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const HSCAN: DataCommand = DataCommand {
    summary: "Returns some fields and values, and where to go on.",
    complexity: "O(1) a call, O(N) for all N fields.",
    flags: Flags::READONLY,
    keys: ACCESS,
    tips: &["nondeterministic_output"],
    ..command("hscan", "2.8.0", -3, hscan)
};

struct Options<'w> {
    pattern: Option<&'w [u8]>,
    count: usize,
    values: bool,
}

impl<'w> Options<'w> {
    fn parse(words: &[&'w [u8]]) -> Result<Self, CommandError> {
        let mut options = Self { pattern: None, count: 10, values: true };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if args::is(word, "COUNT") {
                let count = args::integer(words.next().ok_or(CommandError::Syntax)?)?;
                let count = usize::try_from(count).ok().filter(|&count| 0 < count);
                options.count = count.ok_or(CommandError::Syntax)?;
            } else if args::is(word, "MATCH") {
                let pattern = *words.next().ok_or(CommandError::Syntax)?;
                options.pattern = Some(pattern).filter(|&pattern| pattern != b"*");
            } else if args::is(word, "NOVALUES") {
                options.values = false;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// `HSCAN key cursor [MATCH pattern] [COUNT count] [NOVALUES]`
fn hscan(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let cursor = number::parse_u64_lenient(call.args[2]).ok_or(CommandError::InvalidCursor)?;
    let now_ms = call.due_ms();
    let Some(hash) = call.db.read_as::<Hash>(call.args[1])? else {
        call.reply.array(2);
        call.reply.bulk(b"0");
        call.reply.array(0);
        return Ok(Effect::None);
    };
    let options = Options::parse(&call.args[3..])?;
    let stop = hash.scan_stop(cursor, options.count);
    call.reply.array(2);
    call.reply.bulk(stop.to_string().as_bytes());
    let mark = call.reply.defer_about(2 * options.count.min(hash.len()));
    let mut elements = 0;
    hash.scan(cursor, stop, now_ms, |field| {
        let wanted = options.pattern.is_none_or(|pattern| field.matches(pattern));
        if wanted {
            bulk(&mut call.reply, field.name);
            elements += 1;
            if options.values {
                bulk(&mut call.reply, field.value);
                elements += 1;
            }
        }
    });
    call.reply.finish_array(mark, elements);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::bench::Bench;

    #[test]
    fn a_small_hash_comes_whole() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2 12 3", ":3");
        bench.expect("HSCAN h 0", "*2 $1 0 *6 $1 a $1 1 $1 b $1 2 $2 12 $1 3");
        bench.expect("HSCAN h 7 COUNT 1 NOVALUES", "*2 $1 0 *3 $1 a $1 b $2 12");
        bench.expect("HSCAN h 0 MATCH 1* COUNT 5", "*2 $1 0 *2 $2 12 $1 3");
        bench.expect("HSCAN h 18446744073709551615 MATCH x", "*2 $1 0 *0");
        bench.expect("HSCAN nokey 1 FOO", "*2 $1 0 *0");
        bench.expect("HSCAN h x", "-ERR invalid cursor");
        bench.expect("HSCAN h -1", "-ERR invalid cursor");
        bench.expect("HSCAN h 0 COUNT 0", "-ERR syntax error");
        bench.expect("HSCAN h 0 COUNT", "-ERR syntax error");
        bench.expect("HSCAN h 0 COUNT x", "-ERR value is not an integer or out of range");
        bench.expect("HSCAN h 0 TYPE x", "-ERR syntax error");
        bench.expect("HPEXPIRE h 5 FIELDS 1 a", "*1 :1");
        bench.now_ms += 5;
        bench.expect("HSCAN h 0 NOVALUES", "*2 $1 0 *2 $1 b $2 12");
    }

    #[test]
    fn a_large_hash_comes_in_steps() {
        let mut bench = Bench::new();
        for n in 0..1000 {
            bench.reply(&format!("HSET h field:{n} {n}"));
        }
        let (mut cursor, mut seen, mut steps) = ("0".to_owned(), BTreeSet::new(), 0);
        loop {
            let reply = bench.reply(&format!("HSCAN h {cursor} COUNT 20 NOVALUES"));
            let mut lines = reply.split("\r\n").skip(2);
            cursor = lines.next().expect("a cursor").to_owned();
            seen.extend(lines.filter(|line| line.starts_with("field")).map(str::to_owned));
            steps += 1;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 1000);
        assert!(20 < steps && steps <= 50, "{steps}");
    }
}

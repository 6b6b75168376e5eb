//! Parts of strings: APPEND, GETRANGE, SETRANGE.

use carnelian_keyspace::{EventClass, Expiry};

use super::READ_ONE;
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const APPEND: DataCommand = DataCommand {
    name: "append",
    summary: "Adds to the end of the string at a key.",
    since: "2.0.0",
    group: Group::String,
    complexity: "O(1) amortised",
    arity: 3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::INSERT), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: append,
};

/// `APPEND key value`
fn append(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, value) = (call.args[1], call.args[2]);
    let max = call.limits().max_string;
    let length = if let Some(mut string) = call.db.string_mut(key)? {
        let old = string.text().len();
        let length = checked_length(old, value.len(), max)?;
        string.resize(length, |bytes| bytes[old..].copy_from_slice(value));
        string.touch();
        length
    } else {
        call.db.set_string(key, value, Expiry::Clear);
        value.len()
    };
    call.notify(EventClass::String, "append", key);
    call.reply.integer(length as i64);
    Ok(Effect::Verbatim)
}

/// A length that a command is about to give a string: refused beyond `max`.
fn checked_length(kept: usize, added: usize, max: usize) -> Result<usize, CommandError> {
    let length = kept.checked_add(added).filter(|&length| length <= max);
    length.ok_or(CommandError::StringTooLong)
}

pub(super) const SETRANGE: DataCommand = DataCommand {
    name: "setrange",
    summary: "Overwrites a part of the string at a key.",
    since: "2.2.0",
    group: Group::String,
    complexity: "O(N) in the length of the value",
    arity: 4,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::UPDATE), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: setrange,
};

/// `SETRANGE key offset value`: a string that is too short is filled up with zero bytes.
fn setrange(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, value) = (call.args[1], call.args[3]);
    let offset = usize::try_from(args::integer(call.args[2])?)
        .map_err(|_| CommandError::OffsetOutOfRange)?;
    let max = call.limits().max_string;
    let length = if let Some(mut string) = call.db.string_mut(key)? {
        let old = string.text().len();
        if value.is_empty() {
            call.reply.integer(old as i64);
            return Ok(Effect::None);
        }
        let end = checked_length(offset, value.len(), max)?;
        let length = old.max(end);
        string.resize(length, |bytes| bytes[offset..end].copy_from_slice(value));
        string.touch();
        length
    } else {
        if value.is_empty() {
            call.reply.integer(0);
            return Ok(Effect::None);
        }
        let end = checked_length(offset, value.len(), max)?;
        let mut bytes = vec![0; end];
        bytes[offset..].copy_from_slice(value);
        call.db.put_string(key, bytes);
        end
    };
    call.notify(EventClass::String, "setrange", key);
    call.reply.integer(length as i64);
    Ok(Effect::Verbatim)
}

pub(super) const GETRANGE: DataCommand = DataCommand {
    name: "getrange",
    summary: "Returns a part of the string at a key.",
    since: "2.4.0",
    group: Group::String,
    complexity: "O(N) in the length of the part",
    arity: 4,
    flags: Flags::READONLY,
    categories: Categories::STRING,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: getrange,
};

/// `GETRANGE key start end`
fn getrange(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (start, end) = (args::integer(call.args[2])?, args::integer(call.args[3])?);
    match call.db.string(call.args[1])? {
        Some(text) => text.with_bytes(|bytes| {
            let part = clamped(start, end, bytes.len());
            call.reply.bulk(part.map_or(b"", |(first, last)| &bytes[first..=last]));
        }),
        None => call.reply.bulk(b""),
    }
    Ok(Effect::None)
}

pub(super) const SUBSTR: DataCommand = DataCommand {
    name: "substr",
    summary: "Returns a part of the string at a key (now called GETRANGE).",
    since: "1.0.0",
    group: Group::String,
    complexity: "O(N) in the length of the part",
    arity: 4,
    flags: Flags::READONLY,
    categories: Categories::STRING,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: substr,
};

/// `SUBSTR key start end`
fn substr(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    getrange(call)
}

/// The first and last index of a range of GETRANGE and BITCOUNT; `None` if it is empty.
///
/// An end before the beginning means the first place, so `0 -100` is the first byte, whatever the
/// length. Other commands see nothing there: they use `args::range`.
pub(crate) fn clamped(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    if start < 0 && end < 0 && end < start {
        return None;
    }
    let len = i64::try_from(len).ok()?;
    let place = |index: i64| if index < 0 { (len + index).max(0) } else { index };
    let (first, last) = (place(start), place(end).min(len - 1));
    if last < first { None } else { Some((first as usize, last as usize)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    #[test]
    fn parts_are_read_and_written() {
        let mut bench = Bench::new();
        bench.expect("APPEND k hello", ":5");
        bench.expect("APPEND k -world", ":11");
        bench.expect("GETRANGE k 0 4", "$5 hello");
        bench.expect("GETRANGE k -5 -1", "$5 world");
        bench.expect("SUBSTR k 6 100", "$5 world");
        bench.expect("GETRANGE k 20 30", "$0");
        bench.expect("GETRANGE missing 0 -1", "$0");
        bench.expect("SETRANGE k 0 J", ":11");
        bench.expect("SETRANGE k 13 !", ":14");
        bench.expect("GET k", "$14 Jello-world\0\0!");
        bench.expect("SET n 12345", "+OK");
        bench.expect("GETRANGE n 1 2", "$2 23");
        bench.expect("SETRANGE n 1 x", ":5");
        bench.expect("GET n", "$5 1x345");
    }

    #[test]
    fn nothing_written_changes_nothing() {
        let mut bench = Bench::new();
        let setrange_empty: &[&[u8]] = &[b"SETRANGE", b"k", b"600000000", b""];
        assert_eq!(bench.run_words(setrange, setrange_empty), (Effect::None, ":0\r\n".into()));
        bench.expect("GET k", "$-1");
        bench.expect("SET k abc", "+OK");
        assert_eq!(bench.run_words(setrange, setrange_empty), (Effect::None, ":3\r\n".into()));
        let (effect, reply) = bench.run_words(append, &[b"APPEND", b"new", b""]);
        assert_eq!((effect, reply.as_str()), (Effect::Verbatim, ":0\r\n"));
        bench.expect("GET new", "$0");
    }

    #[test]
    fn strings_stay_below_the_limit() {
        let mut bench = Bench::new();
        let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
        bench.environment.limits.max_string = 10;
        bench.expect("APPEND k 12345", ":5");
        bench.expect("APPEND k 123456", too_long);
        bench.expect("APPEND k 12345", ":10");
        bench.expect("SETRANGE k 9 a", ":10");
        bench.expect("SETRANGE k 10 a", too_long);
        bench.expect("SETRANGE new 10 a", too_long);
        bench.expect("SETRANGE new 9223372036854775807 a", too_long);
        bench.expect("SETRANGE new -1 a", "-ERR offset is out of range");
        bench.expect("GET new", "$-1");
    }

    #[test]
    fn an_end_before_the_beginning_is_the_first_place() {
        assert_eq!(clamped(0, -100, 5), Some((0, 0)));
        assert_eq!(clamped(-100, -100, 5), Some((0, 0)));
        assert_eq!(clamped(-100, -200, 5), None);
        assert_eq!(clamped(-3, -2, 5), Some((2, 3)));
        assert_eq!(clamped(0, i64::MAX, 5), Some((0, 4)));
        assert_eq!(clamped(i64::MIN, i64::MAX, 5), Some((0, 4)));
        assert_eq!(clamped(5, 9, 5), None);
        assert_eq!(clamped(0, 0, 0), None);
        assert_eq!(clamped(-1, -1, 0), None);
    }
}

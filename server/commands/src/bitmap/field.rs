//! BITFIELD: a string as an array of integers of any width.

use carnelian_keyspace::EventClass;
use carnelian_resp::{Writer, number};
use smallvec::SmallVec;

use super::{READ_ONE, bounded};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

/// A place for an integer: `u1` to `u63` or `i1` to `i64`, at a bit.
#[derive(Clone, Copy, Debug)]
struct Field {
    signed: bool,
    bits: u32,
    offset: u64,
}

/// What becomes of a number that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Get,
    Set(i64, Overflow),
    Increment(i64, Overflow),
}

type Steps = SmallVec<[(Field, Action); 8]>;

fn parse(words: &[&[u8]], length_max: usize) -> Result<Steps, CommandError> {
    let mut steps = Steps::new();
    let mut overflow = Overflow::Wrap;
    let mut rest = words;
    loop {
        match *rest {
            [] => return Ok(steps),
            [word, kind, offset, ref tail @ ..] if args::is(word, "GET") => {
                steps.push((Field::parse(kind, offset, length_max)?, Action::Get));
                rest = tail;
            }
            [word, kind, offset, value, ref tail @ ..] if args::is(word, "SET") => {
                let field = Field::parse(kind, offset, length_max)?;
                steps.push((field, Action::Set(args::integer(value)?, overflow)));
                rest = tail;
            }
            [word, kind, offset, amount, ref tail @ ..] if args::is(word, "INCRBY") => {
                let field = Field::parse(kind, offset, length_max)?;
                steps.push((field, Action::Increment(args::integer(amount)?, overflow)));
                rest = tail;
            }
            [word, name, ref tail @ ..] if args::is(word, "OVERFLOW") => {
                overflow = Overflow::parse(name)?;
                rest = tail;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
}

impl Overflow {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        [("WRAP", Self::Wrap), ("SAT", Self::Saturate), ("FAIL", Self::Fail)]
            .into_iter()
            .find(|(name, _)| args::is(word, name))
            .map(|(_, overflow)| overflow)
            .ok_or(CommandError::text("ERR Invalid OVERFLOW type specified"))
    }
}

impl Field {
    /// `kind` is `i` or `u` and the width; `#3` as the offset is the place of the fourth such
    /// field (modulo 2^64 bits, as in Redis).
    fn parse(kind: &[u8], offset: &[u8], length_max: usize) -> Result<Self, CommandError> {
        let (signed, bits) = match kind {
            [b'i', bits @ ..] => (true, number::parse_i64(bits).filter(|bits| *bits <= 64)),
            [b'u', bits @ ..] => (false, number::parse_i64(bits).filter(|bits| *bits <= 63)),
            _ => (false, None),
        };
        let bits = bits.filter(|bits| 1 <= *bits).ok_or(CommandError::text(
            "ERR Invalid bitfield type. Use something like i16 u8. \
             Note that u64 is not supported but i64 is.",
        ))?;
        let offset = match offset {
            [b'#', index @ ..] => number::parse_i64(index).map(|index| index.wrapping_mul(bits)),
            offset => number::parse_i64(offset),
        };
        let offset = bounded(offset, length_max)?;
        Ok(Self { signed, bits: bits as u32, offset })
    }

    /// The length of the shortest string that holds it.
    fn end(self) -> usize {
        ((self.offset + u64::from(self.bits) - 1) >> 3) as usize + 1
    }

    /// The smallest and the largest number it holds.
    fn range(self) -> (i128, i128) {
        match self.signed {
            true => (-1 << (self.bits - 1), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// Sixteen bytes from the field's first on (any 64 bits lie in nine); zeros past the end.
    fn window(self, bytes: &[u8]) -> u128 {
        let mut window = [0; 16];
        let found = bytes.get((self.offset >> 3) as usize..).unwrap_or(&[]);
        let found = &found[..found.len().min(16)];
        window[..found.len()].copy_from_slice(found);
        u128::from_be_bytes(window)
    }

    /// How far the field's last bit is from the end of the window.
    fn shift(self) -> u32 {
        128 - (self.offset & 7) as u32 - self.bits
    }

    fn get(self, bytes: &[u8]) -> i64 {
        // To the left edge and back: the way back copies the sign, or zeros.
        let left = self.window(bytes) << (self.offset & 7);
        match self.signed {
            true => ((left as i128) >> (128 - self.bits)) as i64,
            false => (left >> (128 - self.bits)) as i64,
        }
    }

    /// Writes the lowest bits of `value`. The string is long enough.
    fn set(self, bytes: &mut [u8], value: i64) {
        let mask = u128::from(u64::MAX >> (64 - self.bits)) << self.shift();
        let value = u128::from(value as u64) << self.shift() & mask;
        let window = self.window(bytes) & !mask | value;
        let first = (self.offset >> 3) as usize;
        let end = self.end();
        bytes[first..end].copy_from_slice(&window.to_be_bytes()[..end - first]);
    }

    /// A number to SET, as Redis compares it with the range. Whatever saturates there has to
    /// saturate here, or replicas would differ from their primaries.
    ///
    /// For an unsigned field its bits are taken as unsigned: a negative number is too large, not
    /// too small. So is one further below a signed field's largest than 63 bits can say.
    fn given(self, value: i64) -> i128 {
        let (min, max) = self.range();
        let number = i128::from(value);
        let wraps = match self.signed {
            true => number < min && i128::from(i64::MAX) < max - number,
            false => number < 0,
        };
        // The lowest 64 bits stay, so it makes no difference to what wraps.
        if wraps { number + (1 << 64) } else { number }
    }

    /// The number to write for `value`; `None` if it must not be written.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i64> {
        let (min, max) = self.range();
        if (min..=max).contains(&value) {
            return Some(value as i64);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(value.clamp(min, max) as i64),
            Overflow::Wrap => {
                let left = value << (128 - self.bits);
                Some(match self.signed {
                    true => (left >> (128 - self.bits)) as i64,
                    false => (left as u128 >> (128 - self.bits)) as i64,
                })
            }
        }
    }
}

pub(super) const BITFIELD: DataCommand = DataCommand {
    name: "bitfield",
    summary: "Reads, writes and counts with integers of any width within the string at a key.",
    since: "3.2.0",
    group: Group::Bitmap,
    complexity: "O(1) for each operation",
    arity: -2,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::BITMAP,
    keys: &[KeySpec::range(
        KeyFlags::RW
            .union(KeyFlags::ACCESS)
            .union(KeyFlags::UPDATE)
            .union(KeyFlags::VARIABLE_FLAGS),
        1,
        0,
        1,
    )],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: bitfield,
};

/// `BITFIELD key [GET type offset | [OVERFLOW WRAP | SAT | FAIL] SET type offset value | INCRBY
/// type offset amount ...]`
fn bitfield(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let steps = parse(&call.args[2..], call.limits().max_string)?;
    match length_written(&steps) {
        0 => read(call, &steps),
        length => write(call, &steps, length),
    }
}

pub(super) const BITFIELD_RO: DataCommand = DataCommand {
    name: "bitfield_ro",
    summary: "Reads integers of any width within the string at a key.",
    since: "6.0.0",
    group: Group::Bitmap,
    complexity: "O(1) for each operation",
    arity: -2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::BITMAP,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: bitfield_ro,
};

/// `BITFIELD_RO key [GET type offset ...]`
fn bitfield_ro(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let steps = parse(&call.args[2..], call.limits().max_string)?;
    if length_written(&steps) != 0 {
        return Err(CommandError::text("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read(call, &steps)
}

/// The length of the shortest string that holds all that is to be written; 0 if nothing is.
fn length_written(steps: &Steps) -> usize {
    let writes = steps.iter().filter(|(_, action)| !matches!(action, Action::Get));
    writes.map(|(field, _)| field.end()).max().unwrap_or(0)
}

fn read(call: &mut Call<'_>, steps: &Steps) -> Result<Effect, CommandError> {
    let reply = &mut call.reply;
    let mut answer = |bytes: &[u8]| {
        reply.array(steps.len());
        steps.iter().for_each(|(field, _)| reply.integer(field.get(bytes)));
    };
    match call.db.string(call.args[1])? {
        Some(text) => text.with_bytes(answer),
        None => answer(b""),
    }
    Ok(Effect::None)
}

fn write(call: &mut Call<'_>, steps: &Steps, length: usize) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let reply = &mut call.reply;
    let (changes, grown) = if let Some(mut string) = call.db.string_mut(key)? {
        let old = string.text().len();
        let grown = old < length;
        let changes = string.resize(old.max(length), |bytes| run(steps, bytes, grown, reply));
        if 0 < changes || grown {
            string.touch();
        }
        (changes, grown)
    } else {
        let mut bytes = vec![0; length];
        let changes = run(steps, &mut bytes, true, reply);
        call.db.put_string(key, bytes);
        (changes, true)
    };
    if 0 < changes {
        call.notify(EventClass::String, "setbit", key);
        call.dirty(changes);
    }
    // Redis keeps silent about a string that has only grown because every step failed. Followers
    // would lack the zeros.
    Ok(if 0 < changes || grown { Effect::Verbatim } else { Effect::None })
}

/// Runs all steps and returns how many changed something. In a string that has `grown`, every
/// number written counts as a change.
fn run(steps: &Steps, bytes: &mut [u8], grown: bool, reply: &mut Writer<'_>) -> usize {
    let mut changes = 0;
    reply.array(steps.len());
    for &(field, action) in steps {
        let old = field.get(bytes);
        let (new, answers_new) = match action {
            Action::Get => {
                reply.integer(old);
                continue;
            }
            Action::Set(value, overflow) => (field.fit(field.given(value), overflow), false),
            Action::Increment(amount, overflow) => {
                (field.fit(i128::from(old) + i128::from(amount), overflow), true)
            }
        };
        let Some(new) = new else {
            reply.null();
            continue;
        };
        reply.integer(if answers_new { new } else { old });
        field.set(bytes, new);
        changes += usize::from(grown || new != old);
    }
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bench::Bench;

    #[test]
    fn fields_are_written_read_and_counted() {
        let mut bench = Bench::new();
        bench.expect(
            "BITFIELD k SET i8 0 -100 SET i8 #1 101 GET i8 0 GET u8 8",
            "*4 :0 :0 :-100 :101",
        );
        bench.expect("BITFIELD k INCRBY i8 0 1 incrby u2 100 1", "*2 :-99 :1");
        bench.expect("STRLEN k", ":13");
        bench.expect("BITFIELD k", "*0");
        bench.expect("BITFIELD_RO k GET i64 0 GET u63 200", "*2 :-7105272837107089408 :0");
        bench.expect("BITFIELD missing GET u8 0", "*1 :0");
        bench.expect("GET missing", "$-1");
        bench.expect("SET n 1", "+OK");
        bench.expect("BITFIELD n GET u8 0", "*1 :49");
        bench.expect("BITFIELD n SET i64 0 -1 GET i64 0", "*2 :3530822107858468864 :-1");
    }

    #[test]
    fn overflow_wraps_saturates_or_fails() {
        let mut bench = Bench::new();
        bench.expect("BITFIELD k SET u2 0 3", "*1 :0");
        bench.expect("BITFIELD k INCRBY u2 0 1", "*1 :0");
        bench.expect("BITFIELD k OVERFLOW sat INCRBY u2 0 9 INCRBY u2 0 -9", "*2 :3 :0");
        bench.expect("BITFIELD k OVERFLOW FAIL INCRBY u2 0 4 INCRBY u2 0 3", "*2 $-1 :3");
        bench.expect("BITFIELD k OVERFLOW SAT SET i4 0 100 GET i4 0", "*2 :-4 :7");
        bench.expect("BITFIELD k OVERFLOW SAT SET u4 0 -1 GET u4 0", "*2 :7 :15");
        bench.expect(
            "BITFIELD k SET i64 0 9223372036854775807 INCRBY i64 0 1",
            "*2 :-1152921504606846976 :-9223372036854775808",
        );
        bench.expect("BITFIELD k OVERFLOW SAT INCRBY i64 0 -1", "*1 :-9223372036854775808");
        bench.expect("BITFIELD k OVERFLOW FAIL SET u8 0 256", "*1 $-1");
        let lowest = "-9223372036854775808";
        bench.expect(&format!("BITFIELD q OVERFLOW SAT SET i8 0 {lowest} GET i8 0"), "*2 :0 :127");
        bench.expect("BITFIELD q OVERFLOW SAT SET i8 0 -9999999 GET i8 0", "*2 :127 :-128");
        bench.expect(&format!("BITFIELD q SET i8 0 {lowest} GET i8 0"), "*2 :-128 :0");
    }

    #[test]
    fn only_changes_have_an_effect() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(bitfield, "BITFIELD k SET u8 0 0").0, Effect::Verbatim);
        assert_eq!(bench.run(bitfield, "BITFIELD k SET u8 0 0").0, Effect::None);
        assert_eq!(bench.run(bitfield, "BITFIELD k GET u8 900").0, Effect::None);
        let failing = "BITFIELD k OVERFLOW FAIL SET u8 #1 999";
        assert_eq!(bench.run(bitfield, failing), (Effect::Verbatim, "*1\r\n$-1\r\n".into()));
        bench.expect("STRLEN k", ":2");
    }

    #[test]
    fn malformed_requests_are_refused() {
        let mut bench = Bench::new();
        let kind = "-ERR Invalid bitfield type. Use something like i16 u8. \
                    Note that u64 is not supported but i64 is.";
        for request in ["u64 0", "i65 0", "u0 0", "8 0", "u 0", "U8 0", "i-1 0"] {
            bench.expect(&format!("BITFIELD k GET {request}"), kind);
        }
        let offset = "-ERR bit offset is not an integer or out of range";
        for request in ["-1", "x", "#x", "#-1", "#4611686018427387903", "4294967296"] {
            bench.expect(&format!("BITFIELD k GET u8 {request}"), offset);
        }
        bench.expect("BITFIELD k GET u8", "-ERR syntax error");
        bench.expect("BITFIELD k SET u8 0", "-ERR syntax error");
        bench.expect("BITFIELD k INCRBY u8 0 x", "-ERR value is not an integer or out of range");
        bench.expect("BITFIELD k OVERFLOW up", "-ERR Invalid OVERFLOW type specified");
        let readonly = "-ERR BITFIELD_RO only supports the GET subcommand";
        bench.expect("BITFIELD_RO k SET u8 0 1", readonly);
        bench.expect("GET k", "$-1");
    }

    proptest! {
        #[test]
        fn a_field_keeps_its_neighbours(
            mut bytes in proptest::collection::vec(any::<u8>(), 24),
            signed: bool,
            bits in 1_u32..=63,
            offset in 0_u64..(24 * 8 - 63),
            value: i64,
        ) {
            let field = Field { signed, bits, offset };
            let before = bytes.clone();
            let fitted = field.fit(i128::from(value), Overflow::Wrap).expect("it wraps");
            field.set(&mut bytes, value);
            prop_assert_eq!(field.get(&bytes), fitted);
            let (first, end) = (offset as usize, offset as usize + bits as usize);
            for at in (0..first).chain(end..24 * 8) {
                let bit = |bytes: &[u8]| bytes[at / 8] & 0x80 >> (at % 8);
                prop_assert_eq!(bit(&bytes), bit(&before));
            }
        }
    }
}

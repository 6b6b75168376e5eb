//! Bitmaps: strings as arrays of bits. Bit 0 is the highest of the first byte.

mod count;
mod field;
mod operation;

use carnelian_keyspace::EventClass;
use carnelian_resp::number;

use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

const READ_ONE: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)];
const MODIFY: KeyFlags = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE);

pub const TABLE: &[DataCommand] = &[
    GETBIT,
    SETBIT,
    count::BITCOUNT,
    count::BITPOS,
    operation::BITOP,
    field::BITFIELD,
    field::BITFIELD_RO,
];

const GETBIT: DataCommand = DataCommand {
    name: "getbit",
    summary: "Returns one bit of the string at a key.",
    since: "2.2.0",
    group: Group::Bitmap,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::BITMAP,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: getbit,
};

/// `GETBIT key offset`
fn getbit(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let offset = offset(call.args[2], call.limits().max_string)?;
    let (byte, mask) = place(offset);
    let bit = call.db.string(call.args[1])?.is_some_and(|text| {
        text.with_bytes(|bytes| bytes.get(byte).is_some_and(|byte| byte & mask != 0))
    });
    call.reply.integer(bit.into());
    Ok(Effect::None)
}

const SETBIT: DataCommand = DataCommand {
    name: "setbit",
    summary: "Sets or clears one bit of the string at a key.",
    since: "2.2.0",
    group: Group::Bitmap,
    complexity: "O(1)",
    arity: 4,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::BITMAP,
    keys: &[KeySpec::range(MODIFY, 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: setbit,
};

/// `SETBIT key offset value`: a string that is too short is filled up with zero bytes.
fn setbit(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let offset = offset(call.args[2], call.limits().max_string)?;
    let on = match call.args[3] {
        b"0" => false,
        b"1" => true,
        _ => return Err(CommandError::text("ERR bit is not an integer or out of range")),
    };
    let (byte, mask) = place(offset);
    let put = |bytes: &mut [u8]| {
        let old = bytes[byte] & mask != 0;
        if on {
            bytes[byte] |= mask;
        } else {
            bytes[byte] &= !mask;
        }
        old
    };
    let (old, changed) = if let Some(mut string) = call.db.string_mut(key)? {
        let length = string.text().len();
        let old = string.resize(length.max(byte + 1), put);
        let changed = old != on || length <= byte;
        if changed {
            string.touch();
        }
        (old, changed)
    } else {
        let mut bytes = vec![0; byte + 1];
        put(&mut bytes);
        call.db.put_string(key, bytes);
        (false, true)
    };
    call.reply.integer(old.into());
    if !changed {
        return Ok(Effect::None);
    }
    call.notify(EventClass::String, "setbit", key);
    Ok(Effect::Verbatim)
}

/// The place of a bit, within a string of at most `length_max` bytes.
fn offset(word: &[u8], length_max: usize) -> Result<u64, CommandError> {
    bounded(number::parse_i64(word), length_max)
}

fn bounded(offset: Option<i64>, length_max: usize) -> Result<u64, CommandError> {
    offset
        .and_then(|offset| u64::try_from(offset).ok())
        .filter(|offset| offset >> 3 < length_max as u64)
        .ok_or(CommandError::text("ERR bit offset is not an integer or out of range"))
}

/// The byte of a bit and its mask there.
const fn place(offset: u64) -> (usize, u8) {
    ((offset >> 3) as usize, 0x80 >> (offset & 7))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    #[test]
    fn bits_are_counted_from_the_highest() {
        let mut bench = Bench::new();
        bench.expect("SETBIT k 7 1", ":0");
        bench.expect("GET k", "$1 \u{1}");
        bench.expect("SETBIT k 1 1", ":0");
        bench.expect("GET k", "$1 A");
        bench.expect("SETBIT k 7 0", ":1");
        bench.expect("GET k", "$1 @");
        bench.expect("GETBIT k 1", ":1");
        bench.expect("GETBIT k 2", ":0");
        bench.expect("GETBIT k 4000000000", ":0");
        bench.expect("SETBIT k 20 0", ":0");
        bench.expect("STRLEN k", ":3");
        bench.expect("SET n 5", "+OK");
        bench.expect("GETBIT n 2", ":1");
        bench.expect("SETBIT n 6 1", ":0");
        bench.expect("GET n", "$1 7");
    }

    #[test]
    fn a_bit_that_stays_is_no_change() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(setbit, "SETBIT k 7 0").0, Effect::Verbatim);
        assert_eq!(bench.run(setbit, "SETBIT k 6 0").0, Effect::None);
        assert_eq!(bench.run(setbit, "SETBIT k 6 1").0, Effect::Verbatim);
        assert_eq!(bench.run(setbit, "SETBIT k 6 1").0, Effect::None);
        assert_eq!(bench.run(setbit, "SETBIT k 8 0").0, Effect::Verbatim);
    }

    #[test]
    fn bad_places_and_bits_are_refused() {
        let mut bench = Bench::new();
        let offset = "-ERR bit offset is not an integer or out of range";
        for request in ["SETBIT k -1 1", "SETBIT k x 1", "SETBIT k 4294967296 1", "GETBIT k -1"] {
            bench.expect(request, offset);
        }
        for request in ["SETBIT k 1 2", "SETBIT k 1 x", "SETBIT k 1 -1"] {
            bench.expect(request, "-ERR bit is not an integer or out of range");
        }
        bench.environment.limits.max_string = 2;
        bench.expect("SETBIT k 15 1", ":0");
        bench.expect("SETBIT k 16 1", offset);
    }
}

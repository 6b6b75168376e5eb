//! `HyperLogLog`: strings that count different elements. PFADD, PFCOUNT, PFMERGE.

mod debug;

use carnelian_keyspace::{EventClass, StringMut, Text};
use carnelian_structs::hyperloglog::{self, Corrupt, Encoding, Mark, Place, Registers};
use carnelian_structs::value::EMBSTR_MAX;

use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub const TABLE: &[DataCommand] = &[PFADD, PFCOUNT, PFMERGE, debug::PFDEBUG, debug::PFSELFTEST];

const PFADD: DataCommand = DataCommand {
    name: "pfadd",
    summary: "Adds elements to a HyperLogLog.",
    since: "2.8.9",
    group: Group::HyperLogLog,
    complexity: "O(1) for each element",
    arity: -2,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::HYPERLOGLOG,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::INSERT), 1, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: pfadd,
};

/// `PFADD key [element [element ...]]`: replies whether a register was raised, or the key made.
fn pfadd(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, elements) = (call.args[1], &call.args[2..]);
    let sparse_max = call.limits().hll_sparse_max_bytes;
    let marks = elements.iter().map(|element| Mark::of(element));
    let raised = if let Some(string) = call.db.string_mut(key)? {
        let mut place = InPlace::checked(string)?;
        let raised = hyperloglog::raise(&mut place, marks, sparse_max).map_err(corrupt)?;
        if raised != 0 {
            place.0.touch();
        }
        raised
    } else {
        let mut bytes = hyperloglog::empty();
        let raised = hyperloglog::raise(&mut bytes, marks, sparse_max).map_err(corrupt)?;
        hyperloglog::invalidate(&mut bytes);
        call.db.put_string(key, bytes);
        raised + 1
    };
    call.reply.integer((raised != 0).into());
    if raised == 0 {
        return Ok(Effect::None);
    }
    call.notify(EventClass::String, "pfadd", key);
    call.dirty(raised);
    Ok(Effect::Verbatim)
}

const PFCOUNT: DataCommand = DataCommand {
    name: "pfcount",
    summary: "Estimates how many different elements HyperLogLogs have seen.",
    since: "2.8.9",
    group: Group::HyperLogLog,
    complexity: "O(1) for one key, with a small average; O(N) for N keys, with a large factor",
    arity: -2,
    flags: Flags::READONLY,
    categories: Categories::HYPERLOGLOG,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS), 1, -1, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: pfcount,
};

/// `PFCOUNT key [key ...]`: of one key the estimate is kept in the string, which followers hear of.
fn pfcount(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let keys = &call.args[1..];
    let [key] = keys else {
        let (union, _) = union(call, keys)?;
        call.reply.integer(union.estimate() as i64);
        return Ok(Effect::None);
    };
    let Some(text) = call.db.string(key)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    let bytes = valid(text)?;
    if let Some(estimate) = hyperloglog::cached(bytes) {
        call.reply.integer(estimate as i64);
        if bytes.len() <= EMBSTR_MAX
            && let Some(mut string) = call.db.string_mut(key)?
        {
            string.make_raw();
        }
        return Ok(Effect::None);
    }
    let estimate = hyperloglog::estimate(bytes).map_err(corrupt)?;
    if let Some(mut string) = call.db.string_mut(key)? {
        let length = string.text().len();
        string.resize(length, |bytes| hyperloglog::set_cached(bytes, estimate));
        string.touch();
    }
    call.reply.integer(estimate as i64);
    Ok(Effect::Verbatim)
}

const PFMERGE: DataCommand = DataCommand {
    name: "pfmerge",
    summary: "Stores the union of HyperLogLogs.",
    since: "2.8.9",
    group: Group::HyperLogLog,
    complexity: "O(N) for N keys, with a large factor",
    arity: -2,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::HYPERLOGLOG,
    keys: &[
        KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::INSERT), 1, 0, 1),
        KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 2, -1, 1),
    ],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: pfmerge,
};

/// `PFMERGE destkey [sourcekey [sourcekey ...]]`: the destination is one of the sources.
fn pfmerge(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let sparse_max = call.limits().hll_sparse_max_bytes;
    let (union, dense) = union(call, &call.args[1..])?;
    if let Some(string) = call.db.string_mut(key)? {
        let mut place = InPlace::checked(string)?;
        store(&union, &mut place, dense, sparse_max).map_err(corrupt)?;
        place.0.touch();
    } else {
        let mut bytes = hyperloglog::empty();
        store(&union, &mut bytes, dense, sparse_max).map_err(corrupt)?;
        call.db.put_string(key, bytes);
    }
    call.notify(EventClass::String, "pfadd", key);
    call.reply.ok();
    Ok(Effect::Verbatim)
}

/// Raises all registers of a string to those of a union that it is part of.
fn store(
    union: &Registers,
    place: &mut impl Place,
    dense: bool,
    sparse_max: usize,
) -> Result<(), Corrupt> {
    if dense {
        hyperloglog::make_dense(place)?;
        place.resize(hyperloglog::DENSE_BYTES, |bytes| union.pack_into(bytes));
    } else {
        hyperloglog::raise(place, union.raised(), sparse_max)?;
    }
    let length = place.bytes().len();
    place.resize(length, hyperloglog::invalidate);
    Ok(())
}

/// The union of some keys, and whether one of them is dense.
fn union(call: &mut Call<'_>, keys: &[&[u8]]) -> Result<(Registers, bool), CommandError> {
    let (mut union, mut dense) = (Registers::default(), false);
    for key in keys {
        let Some(text) = call.db.string(key)? else { continue };
        let bytes = valid(text)?;
        dense |= hyperloglog::encoding(bytes) == Some(Encoding::Dense);
        union.merge(bytes).map_err(corrupt)?;
    }
    Ok((union, dense))
}

/// A string that is a `HyperLogLog`, open for changes.
struct InPlace<'a>(StringMut<'a>);

impl<'a> InPlace<'a> {
    fn checked(mut string: StringMut<'a>) -> Result<Self, CommandError> {
        valid(string.text())?;
        string.make_raw();
        Ok(Self(string))
    }
}

impl Place for InPlace<'_> {
    fn bytes(&self) -> &[u8] {
        match self.0.text() {
            Text::Bytes(bytes) => bytes,
            Text::Integer(_) => unreachable!("an integer was refused, and nothing makes one here"),
        }
    }

    fn resize<R>(&mut self, length: usize, change: impl FnOnce(&mut [u8]) -> R) -> R {
        self.0.resize(length, change)
    }
}

fn valid(text: Text<'_>) -> Result<&[u8], CommandError> {
    match text {
        Text::Bytes(bytes) if hyperloglog::encoding(bytes).is_some() => Ok(bytes),
        _ => Err(CommandError::text("WRONGTYPE Key is not a valid HyperLogLog string value.")),
    }
}

fn corrupt(_: Corrupt) -> CommandError {
    CommandError::text("INVALIDOBJ Corrupted HLL object detected")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    const NOT_ONE: &str = "-WRONGTYPE Key is not a valid HyperLogLog string value.";
    const CORRUPT: &str = "-INVALIDOBJ Corrupted HLL object detected";

    #[test]
    fn elements_are_counted_once() {
        let mut bench = Bench::new();
        bench.expect("PFADD k", ":1");
        bench.expect("PFADD k", ":0");
        bench.expect("PFCOUNT k", ":0");
        bench.expect("PFADD k a b c", ":1");
        assert_eq!((bench.dirty, bench.touched), (3, 1));
        bench.expect("PFADD k a b", ":0");
        assert_eq!(bench.touched, 0);
        bench.expect("PFCOUNT k", ":3");
        bench.expect("PFCOUNT missing", ":0");
        bench.expect("TYPE k", "+string");
        assert_eq!(bench.events, ["new k", "pfadd k", "pfadd k"]);
    }

    #[test]
    fn followers_hear_of_a_new_estimate() {
        let mut bench = Bench::new();
        bench.expect("PFADD k a", ":1");
        assert_eq!(bench.run(pfcount, "PFCOUNT k"), (Effect::Verbatim, ":1\r\n".into()));
        assert_eq!(bench.run(pfcount, "PFCOUNT k"), (Effect::None, ":1\r\n".into()));
        assert_eq!(bench.run(pfadd, "PFADD k a"), (Effect::None, ":0\r\n".into()));
        assert_eq!(bench.run(pfcount, "PFCOUNT k"), (Effect::None, ":1\r\n".into()));
    }

    #[test]
    fn unions_are_counted_and_stored() {
        let mut bench = Bench::new();
        bench.expect("PFADD a 1 2 3", ":1");
        bench.expect("PFADD b 3 4 5", ":1");
        bench.expect("PFCOUNT a b missing", ":5");
        bench.expect("PFMERGE c a b missing", "+OK");
        bench.expect("PFCOUNT c", ":5");
        bench.expect("PFDEBUG ENCODING c", "+sparse");
        bench.expect("PFDEBUG TODENSE b", ":1");
        bench.expect("PFMERGE a b", "+OK");
        bench.expect("PFDEBUG ENCODING a", "+dense");
        bench.expect("PFCOUNT a", ":5");
        bench.expect("PFMERGE new", "+OK");
        bench.expect("PFCOUNT new", ":0");
    }

    #[test]
    fn a_string_grows_dense() {
        let mut bench = Bench::new();
        bench.environment.limits.hll_sparse_max_bytes = 100;
        for element in 0..40 {
            bench.reply(&format!("PFADD k {element}"));
        }
        bench.expect("PFDEBUG ENCODING k", "+dense");
        bench.expect("STRLEN k", ":12304");
        bench.expect("PFCOUNT k", ":40");
    }

    #[test]
    fn other_strings_are_refused() {
        let mut bench = Bench::new();
        bench.expect("SET n 5", "+OK");
        bench.expect("SET s HYLLxxxxxxxxxxxxxxx", "+OK");
        bench.expect("SET short HYLL", "+OK");
        for key in ["n", "s", "short"] {
            for request in ["PFADD K a", "PFCOUNT K", "PFCOUNT K x", "PFMERGE K", "PFMERGE x K"] {
                bench.expect(&request.replace('K', key), NOT_ONE);
            }
            bench.expect(&format!("PFDEBUG ENCODING {key}"), NOT_ONE);
        }
        bench.expect("RPUSH l a", ":1");
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("PFADD l a", wrong);
        bench.expect("PFCOUNT x l", wrong);
        bench.expect("EXISTS x", ":0");
    }

    #[test]
    fn corrupt_runs_are_refused() {
        let mut bench = Bench::new();
        bench.expect("PFADD k a", ":1");
        bench.expect("APPEND k hello", ":26");
        for request in ["PFCOUNT k", "PFCOUNT k x", "PFMERGE x k", "PFDEBUG GETREG k"] {
            bench.expect(request, CORRUPT);
        }
        bench.expect("PFADD cut a", ":1");
        bench.expect("GETRANGE cut 0 15", "$16 HYLL\u{1}\0\0\0\0\0\0\0\0\0\0\u{fffd}");
        bench.expect("EXISTS x", ":0");
    }
}

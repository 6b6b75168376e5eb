//! BITOP: strings combined bit by bit.

use std::borrow::Cow;

use carnelian_keyspace::{EventClass, Text, WrongType};
use smallvec::SmallVec;

use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

impl Operation {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        [("AND", Self::And), ("OR", Self::Or), ("XOR", Self::Xor), ("NOT", Self::Not)]
            .into_iter()
            .find(|(name, _)| args::is(word, name))
            .map(|(_, operation)| operation)
            .ok_or(CommandError::Syntax)
    }
}

pub(super) const BITOP: DataCommand = DataCommand {
    name: "bitop",
    summary: "Combines strings bit by bit and keeps the result at a key.",
    since: "2.6.0",
    group: Group::Bitmap,
    complexity: "O(N) in the length of the longest string",
    arity: -4,
    flags: Flags::DENYOOM.union(Flags::WRITE),
    categories: Categories::BITMAP,
    keys: &[
        KeySpec::range(KeyFlags::OW.union(KeyFlags::UPDATE), 2, 0, 1),
        KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 3, -1, 1),
    ],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: bitop,
};

/// `BITOP AND | OR | XOR | NOT destination key [key ...]`: shorter strings go on with zeros.
fn bitop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let operation = Operation::parse(call.args[1])?;
    let (destination, keys) = (call.args[2], &call.args[3..]);
    if operation == Operation::Not && keys.len() != 1 {
        return Err(CommandError::text("ERR BITOP NOT must be called with a single source key."));
    }
    for key in keys {
        call.db.settle(key);
        // Those behind it are not even missed.
        if call.db.peek(key).is_some_and(|entry| entry.text().is_none()) {
            return Err(CommandError::WrongType);
        }
    }
    let sources: Result<SmallVec<[Cow<'_, [u8]>; 16]>, WrongType> = keys
        .iter()
        .map(|key| {
            let Some(entry) = call.db.peek(key) else { return Ok(Cow::Borrowed(&[][..])) };
            match entry.text().ok_or(WrongType)? {
                Text::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
                integer @ Text::Integer(_) => Ok(Cow::Owned(integer.to_vec())),
            }
        })
        .collect();
    let result = combined(operation, &sources?);
    call.reply.integer(result.len() as i64);
    if !result.is_empty() {
        call.db.put_string(destination, result);
        call.notify(EventClass::String, "set", destination);
    } else if call.db.remove(destination) {
        call.notify(EventClass::Generic, "del", destination);
    } else {
        return Ok(Effect::None);
    }
    Ok(Effect::Verbatim)
}

/// As long as the longest source.
fn combined(operation: Operation, sources: &[Cow<'_, [u8]>]) -> Vec<u8> {
    /// Worked on while it is in the first cache, however many sources there are.
    const BLOCK: usize = 8 * 1024;
    let length = sources.iter().map(|source| source.len()).max().unwrap_or(0);
    let Some((first, others)) = sources.split_first() else { return Vec::new() };
    let mut result = Vec::with_capacity(length);
    result.extend_from_slice(first);
    result.resize(length, 0);
    if operation == Operation::Not {
        result.iter_mut().for_each(|byte| *byte = !*byte);
        return result;
    }
    for (nth, block) in result.chunks_mut(BLOCK).enumerate() {
        for source in others {
            let source = source.get(nth * BLOCK..).unwrap_or(&[]);
            combine(operation, block, &source[..source.len().min(block.len())]);
        }
    }
    result
}

/// One byte at a time as written, sixteen or more as compiled.
fn combine(operation: Operation, block: &mut [u8], source: &[u8]) {
    let pairs = block.iter_mut().zip(source);
    match operation {
        Operation::And => {
            pairs.for_each(|(byte, other)| *byte &= other);
            block[source.len()..].fill(0);
        }
        Operation::Or => pairs.for_each(|(byte, other)| *byte |= other),
        Operation::Xor => pairs.for_each(|(byte, other)| *byte ^= other),
        Operation::Not => unreachable!("NOT has one source"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bench::Bench;

    #[test]
    fn results_are_kept_or_removed() {
        let mut bench = Bench::new();
        bench.expect("MSET a abc b AB n 5", "+OK");
        bench.expect("BITOP AND d a b", ":3");
        bench.expect("GET d", "$3 AB\0");
        bench.expect("BITOP or d a b missing", ":3");
        bench.expect("GET d", "$3 abc");
        bench.expect("BITOP XOR d a b", ":3");
        bench.expect("GET d", "$3   c");
        bench.expect("BITOP XOR d n n", ":1");
        bench.expect("GET d", "$1 \0");
        bench.expect("BITOP NOT d n", ":1");
        bench.expect("BITOP NOT a d", ":1");
        bench.expect("GET a", "$1 5");
        bench.expect("BITOP AND a x y", ":0");
        bench.expect("GET a", "$-1");
        assert_eq!(bench.run(bitop, "BITOP AND a x y").0, Effect::None);
    }

    #[test]
    fn unknown_operations_and_a_second_source_of_not_are_refused() {
        let mut bench = Bench::new();
        bench.expect("BITOP DIFF d a b", "-ERR syntax error");
        let single = "-ERR BITOP NOT must be called with a single source key.";
        bench.expect("BITOP NOT d a b", single);
    }

    proptest! {
        #[test]
        fn blocks_agree_with_byte_by_byte(
            lengths in proptest::collection::vec(0_usize..20_000, 1..5),
            seed: u64,
            operation in prop_oneof![
                Just(Operation::And),
                Just(Operation::Or),
                Just(Operation::Xor),
            ],
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let sources: Vec<Cow<'_, [u8]>> = lengths
                .iter()
                .map(|&length| Cow::Owned((0..length).map(|_| random.u8(..)).collect()))
                .collect();
            let result = combined(operation, &sources);
            prop_assert_eq!(result.len(), lengths.iter().copied().max().unwrap());
            for (at, &byte) in result.iter().enumerate() {
                let bytes = sources.iter().map(|source| source.get(at).copied().unwrap_or(0));
                let expected = bytes.reduce(|a, b| match operation {
                    Operation::And => a & b,
                    Operation::Or => a | b,
                    _ => a ^ b,
                });
                prop_assert_eq!(Some(byte), expected);
            }
        }
    }
}

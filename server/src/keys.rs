//! The keys of a request, with what the request does to each: what COMMAND GETKEYSANDFLAGS tells,
//! and what users are checked by.

use carnelian_commands::{KeyError, KeyFlags, args, key_positions};

use crate::registry::Entry;

/// Calls `found` with the index of every key of a request and what is done to it.
///
/// An error means that the request does not say which its keys are; `found` may have been called
/// for some of them.
pub fn for_each(
    entry: &Entry,
    words: &[&[u8]],
    mut found: impl FnMut(usize, KeyFlags),
) -> Result<(), KeyError> {
    let name = entry.name();
    if name == "migrate" {
        // Either the one key or those behind KEYS, for which the one is left empty.
        let is_one = words.len() <= 6 || !words[3].is_empty();
        return key_positions(entry.keys, words, |index, flags| {
            if is_one == (index == 3) {
                found(index, flags);
            }
        });
    }
    key_positions(entry.keys, words, |index, flags| found(index, settled(name, words, flags)))?;
    if name == "sort" {
        // Its specifications do not say where STORE is.
        let store = words.iter().rposition(|word| args::is(word, "STORE"));
        if let Some(index) = store.map(|index| index + 1).filter(|index| *index < words.len()) {
            found(index, WRITTEN);
        }
    }
    Ok(())
}

const WRITTEN: KeyFlags = KeyFlags::OW.union(KeyFlags::UPDATE);

/// What a request does to a key, where that hangs on its options.
fn settled(name: &str, words: &[&[u8]], flags: KeyFlags) -> KeyFlags {
    const READ: KeyFlags = KeyFlags::RO.union(KeyFlags::ACCESS);
    const BOTH: KeyFlags = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE);

    if !flags.contains(KeyFlags::VARIABLE_FLAGS) {
        return flags;
    }
    let options = |from: usize| words.get(from..).unwrap_or_default();
    match name {
        "set" if options(3).iter().any(|word| args::is(word, "GET")) => BOTH,
        "set" => WRITTEN,
        "bitfield" if only_reads(options(2)) => READ,
        "bitfield" => BOTH,
        _ => flags,
    }
}

/// Whether the operations of a BITFIELD are all GETs.
fn only_reads(operations: &[&[u8]]) -> bool {
    let mut rest = operations;
    while let [word, after @ ..] = rest {
        let operands = match () {
            () if args::is(word, "GET") => 2,
            () if args::is(word, "OVERFLOW") => 1,
            () => return false,
        };
        match after.get(operands..) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

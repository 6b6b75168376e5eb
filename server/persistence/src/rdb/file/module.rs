//! What modules leave in files: told by name, and passed over.

use super::Fault;
use crate::rdb::{LoadError, Reader};

const END: u64 = 0;
const SIGNED: u64 = 1;
const UNSIGNED: u64 = 2;
const FLOAT: u64 = 3;
const DOUBLE: u64 = 4;
const STRING: u64 = 5;

/// The name of a module's type, which is in the number of the type: nine letters of six bits, and
/// ten bits of a version.
pub(super) fn name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    (0..9).rev().map(|at| char::from(LETTERS[(id >> (10 + 6 * at)) as usize & 63])).collect()
}

/// Passes over what a module wrote beside its keys.
pub(super) fn skip_aux(reader: &mut Reader<'_>) -> Result<String, Fault> {
    let id = reader.length()?;
    // When the module wants to see it: before the keys or behind them.
    if reader.length()? != UNSIGNED {
        return Err(LoadError::Malformed("bad when_opcode").into());
    }
    reader.length()?;
    skip(reader)?;
    Ok(name(id))
}

/// Passes over the value of a key.
pub(super) fn skip_value(reader: &mut Reader<'_>) -> Result<String, Fault> {
    let id = reader.length()?;
    skip(reader)?;
    Ok(name(id))
}

/// Passes over words, each behind its form, up to their end.
fn skip(reader: &mut Reader<'_>) -> Result<(), LoadError> {
    loop {
        match reader.length()? {
            END => return Ok(()),
            SIGNED | UNSIGNED => drop(reader.length()?),
            FLOAT => drop(reader.bytes(4)?),
            DOUBLE => drop(reader.bytes(8)?),
            STRING => reader.skip_string()?,
            _ => return Err(LoadError::Malformed("a module's value of an unknown form")),
        }
    }
}

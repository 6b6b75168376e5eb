//! RDB files: values under their keys, between a header and a checksum.
//!
//! A file is a series of records, each of which begins with a byte: the type of a value, or one of
//! the codes below. [`FileWriter`] makes one out of records in any order; [`FileReader`] finds the
//! keys of one, and [`load`] has several threads make values of them.

pub mod check;
mod error;
mod load;
mod module;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{Fault, FileError};
pub use load::{Progress, Rules, Summary, Told, load, load_held};
pub use reader::{Chunk, FileReader, Found, Observer, Trust};
pub use writer::{Access, FileWriter, Records};

use super::VERSION_EXPIRING_FIELDS;

/// What a file begins with, before four digits of the version.
const MAGIC: &[u8; 5] = b"REDIS";
/// The same for Valkey from 9.0 on, before three digits.
const MAGIC_VALKEY: &[u8; 6] = b"VALKEY";

/// Bytes of the header.
pub const HEADER_BYTES: usize = 9;
/// Bytes of the checksum behind the end.
pub const CHECKSUM_BYTES: usize = 8;

/// Codes of the records that are no values.
mod code {
    /// Values of modules.
    pub const MODULE_PREVIEW: u8 = 6;
    pub const MODULE: u8 = 7;
    /// Of Valkey: a migration of slots that goes on.
    pub const SLOT_IMPORT: u8 = 243;
    /// How many keys a hash slot has.
    pub const SLOT: u8 = 244;
    pub const FUNCTION: u8 = 245;
    /// Of the release candidates of Redis 7.0.
    pub const FUNCTION_PREVIEW: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQUENCY: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZE: u8 = 251;
    pub const EXPIRY_MS: u8 = 252;
    /// In seconds.
    pub const EXPIRY: u8 = 253;
    pub const SELECT: u8 = 254;
    pub const END: u8 = 255;
}

/// The version a file has to have: that of `rdb-version`, unless it cannot hold the data.
#[must_use]
pub const fn version_for(configured: u16, fields_expire: bool) -> u16 {
    if fields_expire && configured < VERSION_EXPIRING_FIELDS {
        return VERSION_EXPIRING_FIELDS;
    }
    configured
}

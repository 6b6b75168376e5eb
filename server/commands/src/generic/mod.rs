//! Keys of any type: presence, expiry, names, walks, sorting; and the commands on whole databases.

mod copy;
pub mod digest;
mod expire;
mod flush;
mod memory;
mod object;
mod presence;
mod rename;
mod scan;
mod sort;
mod ttl;

pub use memory::memory_usage;

use crate::args;
use crate::call::Call;
use crate::command::DataCommand;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub const TABLE: &[DataCommand] = &[
    presence::DEL,
    presence::UNLINK,
    presence::EXISTS,
    presence::TOUCH,
    presence::TYPE,
    expire::EXPIRE,
    expire::PEXPIRE,
    expire::EXPIREAT,
    expire::PEXPIREAT,
    expire::PERSIST,
    ttl::TTL,
    ttl::PTTL,
    ttl::EXPIRETIME,
    ttl::PEXPIRETIME,
    rename::RENAME,
    rename::RENAMENX,
    rename::MOVE,
    copy::COPY,
    scan::SCAN,
    scan::KEYS,
    scan::RANDOMKEY,
    scan::DBSIZE,
    sort::SORT,
    sort::SORT_RO,
    object::OBJECT,
    flush::FLUSHDB,
    flush::FLUSHALL,
    flush::SWAPDB,
];

/// One key, of which only the metadata is read.
const METADATA_OF_ONE: &[KeySpec] = &[KeySpec::range(KeyFlags::RO, 1, 0, 1)];
/// One key that is read.
const READ_ONE: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)];
/// One key whose metadata is changed.
const UPDATE_ONE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::UPDATE), 1, 0, 1)];

/// What Redis says when a key would be copied or moved onto itself.
const SAME_OBJECT: CommandError = CommandError::Other(std::borrow::Cow::Borrowed(
    "ERR source and destination objects are the same",
));

/// The index of a logical database.
fn database(call: &Call<'_>, word: &[u8]) -> Result<usize, CommandError> {
    known_database(call, args::int(word)?)
}

fn known_database(call: &Call<'_>, number: i32) -> Result<usize, CommandError> {
    let index = usize::try_from(number).map_err(|_| CommandError::DbOutOfRange)?;
    if index < call.db.databases() { Ok(index) } else { Err(CommandError::DbOutOfRange) }
}

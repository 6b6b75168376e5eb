//! Streams.

mod add;
mod edit;
mod options;
mod range;
mod trim;

use carnelian_structs::stream::{BlockLimits, IdError, StreamId};

use crate::call::Call;
use crate::command::DataCommand;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub const TABLE: &[DataCommand] = &[
    add::XADD,
    trim::XTRIM,
    range::XLEN,
    range::XRANGE,
    range::XREVRANGE,
    edit::XDEL,
    edit::XSETID,
];

const UPDATE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::UPDATE), 1, 0, 1)];
const DELETE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::DELETE), 1, 0, 1)];
const LOOK: &[KeySpec] = &[KeySpec::range(KeyFlags::RO, 1, 0, 1)];
const READ: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)];

fn limits(call: &Call<'_>) -> BlockLimits {
    let limits = call.limits();
    BlockLimits { bytes: limits.stream_node_max_bytes, entries: limits.stream_node_max_entries }
}

/// An ID without the special ones; `ms` alone means `ms-0`.
fn id(word: &[u8]) -> Result<StreamId, CommandError> {
    StreamId::parse_strict(word, 0).map_err(refused_id)
}

fn refused_id(error: IdError) -> CommandError {
    CommandError::text(match error {
        IdError::Invalid => "ERR Invalid stream ID specified as stream command argument",
        IdError::NothingAfterStart => "ERR invalid start ID for the interval",
        IdError::NothingBeforeEnd => "ERR invalid end ID for the interval",
    })
}

//! Streams.

mod add;
mod claim;
mod edit;
mod group;
mod info;
mod options;
mod pending;
mod range;
mod read;
mod replay;
mod trim;

use carnelian_keyspace::Mut;
use carnelian_structs::stream::{BlockLimits, IdError, Stream, StreamId};

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
    read::XREAD,
    read::XREADGROUP,
    group::XGROUP,
    pending::XACK,
    pending::XPENDING,
    claim::XCLAIM,
    claim::XAUTOCLAIM,
    info::XINFO,
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

/// Ends a change to consumer groups only: as in Redis, those who watch the key are not told.
fn close(stream: Mut<'_, Stream>) {
    stream.unchanged();
}

/// Refuses a request for a group that is not there: `before` the key, `between`, the group, `after`.
fn no_group(before: &str, key: &[u8], between: &str, group: &[u8], after: &str) -> CommandError {
    // Up to a NUL, as C has it.
    let shown = |word: &[u8]| word.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
    let parts =
        [before.as_bytes(), &shown(key), between.as_bytes(), &shown(group), after.as_bytes()];
    CommandError::Quoting(parts.concat().into())
}

fn no_key_or_group(key: &[u8], group: &[u8]) -> CommandError {
    no_group("NOGROUP No such key '", key, "' or consumer group '", group, "'")
}

fn no_group_at_key(key: &[u8], group: &[u8]) -> CommandError {
    no_group("NOGROUP No such consumer group '", group, "' for key name '", key, "'")
}

/// Refuses a word after XGROUP or XINFO that is no subcommand.
fn unknown_subcommand(word: &[u8], hint: &str) -> CommandError {
    let word = &word[..word.len().min(128)];
    CommandError::quoting("ERR unknown subcommand '", word, hint)
}

/// Refuses the words after a subcommand.
fn wrong_subcommand(word: &[u8], hint: &str) -> CommandError {
    let word = &word[..word.len().min(128)];
    CommandError::quoting("ERR unknown subcommand or wrong number of arguments for '", word, hint)
}

//! Lists.

mod blocking;
mod edit;
mod pop;
mod push;
mod read;
mod transfer;

use carnelian_keyspace::EventClass;
use carnelian_structs::list::{End, ListLimits};

use crate::args;
use crate::call::Call;
use crate::command::DataCommand;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub const TABLE: &[DataCommand] = &[
    push::LPUSH,
    push::RPUSH,
    push::LPUSHX,
    push::RPUSHX,
    pop::LPOP,
    pop::RPOP,
    pop::LMPOP,
    blocking::BLPOP,
    blocking::BRPOP,
    blocking::BLMPOP,
    blocking::BLMOVE,
    blocking::BRPOPLPUSH,
    transfer::LMOVE,
    transfer::RPOPLPUSH,
    read::LLEN,
    read::LINDEX,
    read::LRANGE,
    read::LPOS,
    edit::LSET,
    edit::LINSERT,
    edit::LREM,
    edit::LTRIM,
];

const INSERT: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::INSERT), 1, 0, 1)];
const TAKE: &[KeySpec] =
    &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1, 0, 1)];
const TRANSFER: &[KeySpec] = &[
    KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1, 0, 1),
    KeySpec::range(KeyFlags::RW.union(KeyFlags::INSERT), 2, 0, 1),
];
const LOOK: &[KeySpec] = &[KeySpec::range(KeyFlags::RO, 1, 0, 1)];
const READ: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)];
const UPDATE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::UPDATE), 1, 0, 1)];
const DELETE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::DELETE), 1, 0, 1)];

fn limits(call: &Call<'_>) -> ListLimits {
    let limits = call.limits();
    ListLimits {
        fill: limits.list_max_listpack_size,
        compress: limits.list_compress_depth,
        packed_threshold: limits.list_packed_threshold,
    }
}

/// `LEFT` or `RIGHT`.
fn end(word: &[u8]) -> Result<End, CommandError> {
    if args::is(word, "LEFT") {
        Ok(End::Front)
    } else if args::is(word, "RIGHT") {
        Ok(End::Back)
    } else {
        Err(CommandError::Syntax)
    }
}

/// Tells of elements added at one end.
fn notify_pushed(call: &mut Call<'_>, key: &[u8], end: End) {
    let event = match end {
        End::Front => "lpush",
        End::Back => "rpush",
    };
    call.notify(EventClass::List, event, key);
}

/// Tells of elements removed from one end, and of the key's end if the list is `emptied`.
fn notify_popped(call: &mut Call<'_>, key: &[u8], end: End, emptied: bool) {
    let event = match end {
        End::Front => "lpop",
        End::Back => "rpop",
    };
    call.notify(EventClass::List, event, key);
    if emptied {
        call.notify(EventClass::Generic, "del", key);
    }
}

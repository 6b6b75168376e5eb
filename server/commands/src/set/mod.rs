//! Sets.

mod combine;
mod intersect;
mod member;
mod operands;
mod random;
mod scan;

use carnelian_structs::set::SetLimits;

use crate::call::Call;
use crate::command::DataCommand;
use crate::key_spec::{KeyFlags, KeySpec};

pub const TABLE: &[DataCommand] = &[
    member::SADD,
    member::SREM,
    member::SMOVE,
    member::SCARD,
    member::SISMEMBER,
    member::SMISMEMBER,
    member::SMEMBERS,
    scan::SSCAN,
    random::SPOP,
    random::SRANDMEMBER,
    intersect::SINTER,
    intersect::SINTERCARD,
    intersect::SINTERSTORE,
    combine::SUNION,
    combine::SUNIONSTORE,
    combine::SDIFF,
    combine::SDIFFSTORE,
];

const INSERT: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::INSERT), 1, 0, 1)];
const DELETE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::DELETE), 1, 0, 1)];
const TRANSFER: &[KeySpec] = &[
    KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1, 0, 1),
    KeySpec::range(KeyFlags::RW.union(KeyFlags::INSERT), 2, 0, 1),
];
const LOOK: &[KeySpec] = &[KeySpec::range(KeyFlags::RO, 1, 0, 1)];
const READ: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)];
const TAKE: &[KeySpec] =
    &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1, 0, 1)];
const READ_ALL: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, -1, 1)];
const STORE: &[KeySpec] = &[
    KeySpec::range(KeyFlags::OW.union(KeyFlags::UPDATE), 1, 0, 1),
    KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 2, -1, 1),
];

fn limits(call: &Call<'_>) -> SetLimits {
    let limits = call.limits();
    SetLimits {
        intset_entries: limits.set_max_intset_entries,
        listpack_entries: limits.set_max_listpack_entries,
        listpack_value: limits.set_max_listpack_value,
    }
}

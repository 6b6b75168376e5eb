//! Sorted sets.

pub(crate) mod add;
mod algebra;
mod blocking;
mod lex;
mod pop;
mod random;
mod range;
mod remove;
mod scan;
mod score;

use carnelian_keyspace::EventClass;
use carnelian_resp::{Protocol, Writer};
use carnelian_structs::listpack::Element;
use carnelian_structs::sorted_set::{Members, SortedSet, SortedSetLimits};

use crate::call::Call;
use crate::command::DataCommand;
use crate::effect::Effect;
use crate::key_spec::{KeyFlags, KeySpec};

const READ_ONE: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)];
const READ_MANY: &[KeySpec] = &[KeySpec::counted(KeyFlags::RO.union(KeyFlags::ACCESS), 1)];
const DELETE_FROM: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::DELETE), 1, 0, 1)];
const POP_FROM: &[KeySpec] =
    &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1, 0, 1)];
const STORE_MANY: &[KeySpec] = &[
    KeySpec::range(KeyFlags::OW.union(KeyFlags::UPDATE), 1, 0, 1),
    KeySpec::counted(KeyFlags::RO.union(KeyFlags::ACCESS), 2),
];

pub const TABLE: &[DataCommand] = &[
    add::ZADD,
    add::ZINCRBY,
    algebra::ZDIFF,
    algebra::ZDIFFSTORE,
    algebra::ZINTER,
    algebra::ZINTERCARD,
    algebra::ZINTERSTORE,
    algebra::ZUNION,
    algebra::ZUNIONSTORE,
    blocking::BZMPOP,
    blocking::BZPOPMAX,
    blocking::BZPOPMIN,
    lex::ZLEXCOUNT,
    lex::ZRANGEBYLEX,
    lex::ZREVRANGEBYLEX,
    pop::ZMPOP,
    pop::ZPOPMAX,
    pop::ZPOPMIN,
    random::ZRANDMEMBER,
    range::ZCOUNT,
    range::ZRANGE,
    range::ZRANGEBYSCORE,
    range::ZRANGESTORE,
    range::ZREVRANGE,
    range::ZREVRANGEBYSCORE,
    remove::ZREM,
    remove::ZREMRANGEBYLEX,
    remove::ZREMRANGEBYRANK,
    remove::ZREMRANGEBYSCORE,
    scan::ZSCAN,
    score::ZCARD,
    score::ZMSCORE,
    score::ZRANK,
    score::ZREVRANK,
    score::ZSCORE,
];

pub(crate) fn limits(call: &Call<'_>) -> SortedSetLimits {
    let limits = call.limits();
    SortedSetLimits {
        listpack_entries: limits.zset_max_listpack_entries,
        listpack_value: limits.zset_max_listpack_value,
    }
}

pub(crate) fn write_member(reply: &mut Writer<'_>, member: Element<'_>) {
    match member {
        Element::String(bytes) => reply.bulk(bytes),
        Element::Integer(number) => reply.bulk_integer(number),
    }
}

/// The header of members with or without scores. With scores it is pairs in RESP3, which have to
/// be told from a map because their order matters, and a flat array in RESP2.
fn write_header(reply: &mut Writer<'_>, members: usize, scores: bool) {
    let flat = scores && reply.protocol() == Protocol::Resp2;
    reply.array(if flat { 2 * members } else { members });
}

/// A member and its score as `write_header` announced them.
#[inline]
fn write_pair(reply: &mut Writer<'_>, member: Element<'_>, score: f64) {
    if reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    write_member(reply, member);
    reply.double(score);
}

fn write_members(reply: &mut Writer<'_>, members: Members<'_>, scores: bool) {
    write_header(reply, members.len(), scores);
    if scores {
        members.for_each(|(member, score)| write_pair(reply, member, score));
    } else {
        members.names().for_each(|member| write_member(reply, member));
    }
}

/// Makes a key hold the result of a command, or removes it if the result is empty, and replies with
/// the number of members.
fn store(call: &mut Call<'_>, key: &[u8], result: SortedSet, event: &'static str) -> Effect {
    call.reply.integer(result.len() as i64);
    if !result.is_empty() {
        call.db.put(key, result, None);
        call.notify(EventClass::SortedSet, event, key);
    } else if call.db.remove(key) {
        call.notify(EventClass::Generic, "del", key);
    } else {
        return Effect::None;
    }
    Effect::Verbatim
}

//! Hashes: fields and values.

mod counter;
mod field_expiry;
mod get_set;
mod random;
mod read;
mod scan;
mod write;

use carnelian_keyspace::{Db, EventClass, Mut};
use carnelian_resp::Writer;
use carnelian_structs::hash::{Hash, HashLimits};
use carnelian_structs::listpack::Element;

use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub const TABLE: &[DataCommand] = &[
    write::HSET,
    write::HMSET,
    write::HSETNX,
    write::HDEL,
    read::HGET,
    read::HMGET,
    read::HLEN,
    read::HSTRLEN,
    read::HEXISTS,
    read::HGETALL,
    read::HKEYS,
    read::HVALS,
    scan::HSCAN,
    random::HRANDFIELD,
    counter::HINCRBY,
    counter::HINCRBYFLOAT,
    get_set::HGETDEL,
    get_set::HGETEX,
    get_set::HSETEX,
    field_expiry::HEXPIRE,
    field_expiry::HPEXPIRE,
    field_expiry::HEXPIREAT,
    field_expiry::HPEXPIREAT,
    field_expiry::HTTL,
    field_expiry::HPTTL,
    field_expiry::HEXPIRETIME,
    field_expiry::HPEXPIRETIME,
    field_expiry::HPERSIST,
];

/// What the commands of this family have in common.
const fn command(
    name: &'static str,
    since: &'static str,
    arity: i32,
    run: crate::Run,
) -> DataCommand {
    DataCommand {
        name,
        summary: "",
        since,
        group: Group::Hash,
        complexity: "",
        arity,
        flags: Flags::FAST,
        categories: Categories::HASH,
        keys: &[],
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run,
    }
}

const READ: Flags = Flags::READONLY.union(Flags::FAST);
const WRITE: Flags = Flags::WRITE.union(Flags::FAST);
const STORE: Flags = WRITE.union(Flags::DENYOOM);

/// Looks at the key, but not at what it holds.
const LOOK: &[KeySpec] = &[KeySpec::range(KeyFlags::RO, 1, 0, 1)];
const ACCESS: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)];
const UPDATE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::UPDATE), 1, 0, 1)];
const INSERT: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::INSERT), 1, 0, 1)];
const DELETE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::DELETE), 1, 0, 1)];
const ACCESS_UPDATE: &[KeySpec] =
    &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE), 1, 0, 1)];
const ACCESS_DELETE: &[KeySpec] =
    &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE), 1, 0, 1)];

fn limits(call: &Call<'_>) -> HashLimits {
    let limits = call.limits();
    HashLimits { entries: limits.hash_max_listpack_entries, value: limits.hash_max_listpack_value }
}

/// Writes a field or value as a string.
#[inline]
fn bulk(reply: &mut Writer<'_>, element: Element<'_>) {
    match element {
        Element::String(bytes) => reply.bulk(bytes),
        Element::Integer(number) => reply.bulk_integer(number),
    }
}

/// Changes the hash at a key, made if there is none. One lookup if it is there.
#[inline]
fn change<R>(
    db: &mut Db<'_>,
    key: &[u8],
    change: impl FnOnce(&mut Hash) -> R,
) -> Result<R, CommandError> {
    if let Some(mut hash) = db.write_as::<Hash>(key)? {
        return Ok(change(&mut hash));
    }
    Ok(change(&mut *db.write_or_insert(key, Hash::new)?))
}

/// The same, without those of `fields` that have expired: for commands whose result depends on what
/// is there. They are removed, as replicas wait to be told, and would not replay the command to the
/// same end.
fn change_live<'f, R>(
    db: &mut Db<'_>,
    key: &[u8],
    fields: impl IntoIterator<Item = &'f [u8]>,
    change: impl FnOnce(&mut Hash) -> (Changed, R),
) -> Result<R, CommandError> {
    let now_ms = db.due_ms();
    let mut due = false;
    if let Some(hash) = db.write_as::<Hash>(key)? {
        if !hash.is_due(now_ms) {
            return Ok(settle(hash, change));
        }
        due = true;
        hash.unchanged();
    }
    if due {
        db.expire_named(key, fields);
    }
    Ok(settle(db.write_or_insert(key, Hash::new)?, change))
}

/// Whether a hash is another than before: only then are those told who watch its key.
type Changed = bool;

fn settle<R>(mut hash: Mut<'_, Hash>, change: impl FnOnce(&mut Hash) -> (Changed, R)) -> R {
    let (changed, result) = change(&mut hash);
    // One that was made for nothing goes again.
    if !changed && !hash.is_empty() {
        hash.unchanged();
    }
    result
}

/// The same, if there is a hash.
fn change_existing<'f, R>(
    db: &mut Db<'_>,
    key: &[u8],
    fields: impl IntoIterator<Item = &'f [u8]>,
    change: impl FnOnce(&mut Hash) -> (Changed, R),
) -> Result<Option<R>, CommandError> {
    let now_ms = db.due_ms();
    match db.write_as::<Hash>(key)? {
        Some(hash) if !hash.is_due(now_ms) => return Ok(Some(settle(hash, change))),
        Some(hash) => hash.unchanged(),
        None => return Ok(None),
    }
    db.expire_named(key, fields);
    Ok(db.write_as::<Hash>(key)?.map(|hash| settle(hash, change)))
}

/// Tells that fields were removed, and the key with the last of them.
fn notify_removed(call: &mut Call<'_>, key: &[u8], spent: bool) {
    call.notify(EventClass::Hash, "hdel", key);
    if spent {
        call.notify(EventClass::Generic, "del", key);
    }
}

/// The fields after `FIELDS count` at `words[at]`. `not_positive` is said of a wrong count.
fn named_fields<'w>(
    words: &'w [&'w [u8]],
    at: usize,
    not_positive: &'static str,
) -> Result<&'w [&'w [u8]], CommandError> {
    if !words.get(at).is_some_and(|word| args::is(word, "FIELDS")) {
        return Err(CommandError::text(
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ));
    }
    let count = words.get(at + 1).and_then(|count| args::integer(count).ok());
    let count = count.filter(|&count| 0 < count).ok_or(CommandError::text(not_positive))?;
    let fields = &words[at + 2..];
    if fields.len() as i64 != count {
        return Err(CommandError::text(
            "ERR The `numfields` parameter must match the number of arguments",
        ));
    }
    Ok(fields)
}

const NOT_POSITIVE: &str = "ERR Number of fields must be a positive integer";

/// A refusal of a command's words, unless that the key is no hash comes before it.
fn after_type<T>(
    call: &mut Call<'_>,
    key: &[u8],
    parsed: Result<T, CommandError>,
) -> Result<T, CommandError> {
    if parsed.is_err() {
        call.db.reach(key);
        call.db.peek_as::<Hash>(key)?;
    }
    parsed
}

//! The sets a command works on side by side, and the place for its result.

use carnelian_keyspace::{Db, EventClass, Kind, Ref};
use carnelian_structs::entry::EntryRef;
use carnelian_structs::set::Set;
use smallvec::SmallVec;

use crate::call::Call;
use crate::effect::Effect;
use crate::error::CommandError;

/// The sets at some keys; those of missing keys are `None`.
pub(super) struct Operands<'d>(SmallVec<[Option<Ref<'d, Set>>; 8]>);

impl<'d> Operands<'d> {
    /// Opens the sets; [`settle`] their keys before. Refused if any is something else.
    pub(super) fn open(db: &'d Db<'_>, keys: &[&[u8]]) -> Result<Self, CommandError> {
        let sets: Result<_, _> = keys.iter().map(|key| db.peek_as::<Set>(key)).collect();
        Ok(Self(sets?))
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = Option<&Set>> {
        self.0.iter().map(|set| set.as_deref())
    }

    /// Whether all of them that are there are intsets.
    pub(super) fn all_intsets(&self) -> bool {
        self.sets().flatten().all(|set| matches!(set, Set::Intset(_)))
    }
}

/// Counts the reads of keys, up to the first that holds something else, and removes those that have
/// expired.
pub(super) fn settle(call: &mut Call<'_>, keys: &[&[u8]]) -> Result<(), CommandError> {
    for key in keys {
        let kind = call.db.get(key).map(EntryRef::value_kind);
        if kind.is_some_and(|kind| kind != Kind::Set) {
            return Err(CommandError::WrongType);
        }
    }
    Ok(())
}

/// Puts a result at its key and replies with its size. An empty one removes the key.
pub(super) fn store(call: &mut Call<'_>, key: &[u8], result: Set, event: &'static str) -> Effect {
    let len = result.len();
    call.reply.integer(len as i64);
    if len != 0 {
        call.db.put(key, result, None);
        call.notify(EventClass::Set, event, key);
        return Effect::Verbatim;
    }
    if !call.db.remove(key) {
        return Effect::None;
    }
    call.notify(EventClass::Generic, "del", key);
    Effect::Verbatim
}

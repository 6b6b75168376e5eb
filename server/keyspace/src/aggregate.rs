//! Guards: the way to a list, set, sorted set, hash or stream.
//!
//! A guard hides expired keys and settles on drop what a change owes others: the key goes when its
//! value is empty, memory is accounted, watchers are told, and the next expiry of a hash field is
//! on record.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use carnelian_structs::entry::ObjectRef;
use carnelian_structs::hash::Hash;
use carnelian_structs::list::List;
use carnelian_structs::set::Set;
use carnelian_structs::sorted_set::SortedSet;
use carnelian_structs::stream::Stream;
use carnelian_structs::table::ObjectMut;
use carnelian_structs::value::{Kind, Value};

use crate::changes::Changes;
use crate::segment::FieldExpiries;

/// A type of value with elements.
pub trait Aggregate: Sized {
    const KIND: Kind;
    fn of(value: &Value) -> Option<&Self>;
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    fn into_value(self) -> Value;
    /// Whether the key is to go (never so for streams).
    fn is_spent(&self) -> bool;
    /// When the first of its elements expires.
    fn next_expiry(&self) -> Option<u64> {
        None
    }
}

macro_rules! aggregate {
    ($type:ident, $spent:expr) => {
        impl Aggregate for $type {
            const KIND: Kind = Kind::$type;

            fn of(value: &Value) -> Option<&Self> {
                if let Value::$type(it) = value { Some(it) } else { None }
            }

            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$type(it) = value { Some(it) } else { None }
            }

            fn into_value(self) -> Value {
                Value::$type(self)
            }

            fn is_spent(&self) -> bool {
                let spent: fn(&Self) -> bool = $spent;
                spent(self)
            }
        }
    };
}

aggregate!(List, |list| list.is_empty());
aggregate!(Set, |set| set.is_empty());
aggregate!(SortedSet, |sorted| sorted.is_empty());

impl Aggregate for Hash {
    const KIND: Kind = Kind::Hash;

    fn of(value: &Value) -> Option<&Self> {
        if let Value::Hash(hash) = value { Some(hash) } else { None }
    }

    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::Hash(hash) = value { Some(hash) } else { None }
    }

    fn into_value(self) -> Value {
        Value::Hash(self)
    }

    fn is_spent(&self) -> bool {
        self.is_empty()
    }

    fn next_expiry(&self) -> Option<u64> {
        Self::next_expiry(self)
    }
}

impl Aggregate for Stream {
    const KIND: Kind = Kind::Stream;

    fn of(value: &Value) -> Option<&Self> {
        if let Value::Stream(stream) = value { Some(stream) } else { None }
    }

    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::Stream(stream) = value { Some(stream) } else { None }
    }

    fn into_value(self) -> Value {
        Value::Stream(Box::new(self))
    }

    fn is_spent(&self) -> bool {
        false
    }
}

/// Read access to one value.
pub struct Ref<'a, T> {
    pub(crate) object: ObjectRef<'a, Value>,
    pub(crate) of: PhantomData<T>,
}

impl<T: Aggregate> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        T::of(&self.object).expect("the guard was made for this type")
    }
}

/// Write access to one value. Dropping it settles what a change owes the rest of the server.
pub struct Mut<'a, T: Aggregate> {
    /// Present until drop.
    pub(crate) object: Option<ObjectMut<'a, Value>>,
    pub(crate) changes: &'a mut Changes,
    pub(crate) field_expiries: &'a mut FieldExpiries,
    pub(crate) db: usize,
    pub(crate) next_expiry: Option<u64>,
    pub(crate) of: PhantomData<T>,
}

impl<T: Aggregate> Mut<'_, T> {
    fn object(&self) -> &ObjectMut<'_, Value> {
        self.object.as_ref().expect("the object is there until drop")
    }

    /// Ends the access to a value that stayed as it was: watchers are not told.
    pub fn unchanged(mut self) {
        debug_assert!(!self.is_spent(), "an empty value would stay");
        self.object = None;
    }

    /// The same, but clients that wait for the key look whether they still can.
    pub fn rouse(mut self) {
        if let Some(object) = self.object.take() {
            self.changes.rouse(self.db, object.entry().key());
        }
    }

    /// Counts `n` changes for `rdb_changes_since_last_save`.
    pub fn dirty(&mut self, n: usize) {
        self.changes.dirty += n as u64;
    }
}

impl<T: Aggregate> Deref for Mut<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        T::of(self.object()).expect("the guard was made for this type")
    }
}

impl<T: Aggregate> DerefMut for Mut<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        let object = self.object.as_mut().expect("the object is there until drop");
        T::of_mut(object).expect("the guard was made for this type")
    }
}

impl<T: Aggregate> Drop for Mut<'_, T> {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        let value = T::of(&object).expect("the guard was made for this type");
        let (spent, next) = (value.is_spent(), value.next_expiry());
        if self.changes.watching {
            self.changes.touch(self.db, object.entry().key());
        }
        if next != self.next_expiry {
            let key: Box<[u8]> = object.entry().key().into();
            if let Some(old) = self.next_expiry {
                self.field_expiries.remove(&(old, self.db, key.clone()));
            }
            if let Some(new) = next
                && !spent
            {
                self.field_expiries.insert((new, self.db, key));
            }
        }
        if spent {
            drop(object.remove());
        }
    }
}

//! Making a sorted set of members that come in any order, some of them more than once.
//!
//! Scores are gathered in a table; it is ordered once at the end, and then becomes the sorted set.
#![allow(unsafe_code)]

use std::cmp::Ordering;

use super::ordered::{Ordered, Scores, entry_of, score_of};
use super::{SortedSet, SortedSetLimits, packed};
use crate::entry::{EntryRef, NoObject};
use crate::listpack::SAFE_BYTES_MAX;
use crate::table::{Handle, Place};

#[derive(Default)]
pub struct Builder {
    scores: Scores,
}

impl Builder {
    #[must_use]
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// Gives a member the score that `score` makes of the one it has; never NaN.
    pub fn update(&mut self, member: &[u8], score: impl FnOnce(Option<f64>) -> f64) {
        let hash = self.scores.hash(member);
        match self.scores.place_of(hash, member) {
            Place::Taken(mut entry) => {
                let new = score(Some(score_of(entry.as_ref())));
                let payload = entry.inline_mut().expect("an entry without objects holds bytes");
                payload.copy_from_slice(&new.to_le_bytes());
            }
            Place::Free(place) => {
                let _ = place.insert(entry_of(member, score(None)));
            }
        }
    }

    pub fn remove(&mut self, member: &[u8]) {
        let hash = self.scores.hash(member);
        self.scores.remove(hash, member);
    }

    /// The members in order, with their scores.
    #[must_use]
    pub fn ascending(&self) -> Vec<(&[u8], f64)> {
        self.entries().iter().map(|&(score, entry)| (entry.key(), score)).collect()
    }

    /// The sorted set, in the smallest encoding it may have.
    #[must_use]
    pub fn finish(self, limits: SortedSetLimits) -> SortedSet {
        let entries = self.entries();
        let lengths = entries.iter().map(|(_, entry)| entry.key().len());
        let small = entries.len() <= limits.listpack_entries
            && lengths.clone().max().unwrap_or(0) <= limits.listpack_value
            && lengths.sum::<usize>() <= SAFE_BYTES_MAX;
        if small {
            let members = entries.iter().map(|&(score, entry)| (entry.key(), score));
            return SortedSet::Listpack(packed::from_ascending(members));
        }
        let ascending: Vec<(f64, Handle)> =
            entries.iter().map(|&(score, entry)| (score, Handle::of(entry))).collect();
        // SAFETY: these are all entries of the table, and the table goes along unchanged.
        let ordered = unsafe { Ordered::from_table(self.scores, &ascending) };
        SortedSet::Skiplist(Box::new(ordered))
    }

    /// All entries, in order.
    fn entries(&self) -> Vec<(f64, EntryRef<'_, NoObject>)> {
        let mut entries: Vec<_> =
            self.scores.iter().map(|entry| (score_of(entry), entry)).collect();
        entries.sort_unstable_by(|(left, a), (right, b)| match left.partial_cmp(right) {
            Some(Ordering::Equal) | None => a.key().cmp(b.key()),
            Some(unequal) => unequal,
        });
        entries
    }
}

//! What a reactor's runs of commands keep from one to the next, for its memory.

use std::ops::{Deref, DerefMut};

use carnelian_keyspace::Aftermath;

use crate::effects::Unit;
use crate::waiters::Key;

/// The vectors of a [`Scratch`].
#[derive(Default)]
pub struct Vectors {
    /// The entries of a run's commands, by id.
    pub ids: Vec<usize>,
    /// The hashes of a run's keys.
    pub hashes: Vec<u64>,
    pub aftermath: Aftermath,
    /// Keys that were written to and that clients wait for.
    pub ready: Vec<Key>,
    /// What the unit of work that runs has done, until it is logged.
    pub unit: Unit,
    /// Counts runs, to choose those whose time is taken.
    pub runs: u64,
}

/// Vectors that keep their memory from batch to batch. In a box, since each run takes them and puts
/// them back; empty between the two.
#[derive(Default)]
pub struct Scratch(Option<Box<Vectors>>);

impl Scratch {
    /// One that can be looked at before anybody has taken it.
    pub fn new() -> Self {
        Self(Some(Box::default()))
    }
}

impl Deref for Scratch {
    type Target = Vectors;

    fn deref(&self) -> &Vectors {
        self.0.as_ref().expect("who took it has put it back")
    }
}

impl DerefMut for Scratch {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vectors {
        self.0.get_or_insert_default()
    }
}

impl Vectors {
    /// Gives back the memory that a command with very many keys needed.
    pub fn shrink_to(&mut self, keys: usize) {
        self.hashes.clear();
        self.hashes.shrink_to(keys);
    }
}

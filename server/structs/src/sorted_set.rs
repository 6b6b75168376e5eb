//! A set of strings with scores.
#![allow(unsafe_code)]

use crate::value::Thin;

pub struct SortedSet(Box<()>);

impl SortedSet {
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    #[must_use]
    pub fn encoding(&self) -> &'static str {
        "listpack"
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }
}

// SAFETY: placeholder.
unsafe impl Thin for SortedSet {
    fn into_thin(self) -> (u8, u64) {
        (0, Box::into_raw(self.0) as u64)
    }
    unsafe fn from_thin(_: u8, word: u64) -> Self {
        // SAFETY: placeholder.
        Self(unsafe { Box::from_raw(word as *mut ()) })
    }
    fn heap_bytes(&self) -> usize {
        0
    }
}

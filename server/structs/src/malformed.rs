//! The one error of this crate: bytes from outside that are not what they claim to be.

use std::fmt;

/// Why a serialized encoding (of a DUMP payload, an RDB file, a primary) was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed {
    pub what: &'static str,
    /// The offset of the byte at which it was noticed.
    pub at: usize,
}

impl Malformed {
    pub(crate) const fn new(what: &'static str, at: usize) -> Self {
        Self { what, at }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Malformed {}

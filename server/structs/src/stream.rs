//! A stream's entries.

pub struct Stream;

impl Stream {
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        0
    }
}

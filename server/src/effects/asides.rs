//! Where the append-only file reads something else than replicas do: `redis.set_repl`, and PUBLISH.
//!
//! The sequence is what replicas get, and offsets are theirs. An aside is a stretch of it in whose place
//! the file gets other bytes, or none.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use carnelian_replication::{Backlog, Trimmed};

/// Those which the file has yet to come to, in order. None overlaps another.
#[derive(Default)]
pub struct Asides(VecDeque<Aside>);

struct Aside {
    place: Range<u64>,
    bytes: Bytes,
}

impl Asides {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn push(&mut self, place: Range<u64>, bytes: Vec<u8>) {
        match self.0.back_mut() {
            Some(Aside { place: last, bytes: none })
                if last.end == place.start && !last.is_empty() && none.is_empty() =>
            {
                last.end = place.end;
                *none = bytes.into();
            }
            _ => self.0.push_back(Aside { place, bytes: bytes.into() }),
        }
    }

    /// Nothing is to be read at once that is before this offset and behind it. Who cuts what was read where
    /// files change counts its bytes, and these would not be as many.
    pub fn part(&mut self, at: u64) {
        if !self.is_empty() {
            self.0.push_back(Aside { place: at..at, bytes: Bytes::new() });
        }
    }

    /// What the file reads from an offset on, like [`Backlog::read`].
    pub fn read(
        &mut self,
        backlog: &mut Backlog,
        offset: u64,
        most: usize,
        into: &mut Vec<Bytes>,
    ) -> Result<u64, Trimmed> {
        while self.0.front().is_some_and(|aside| aside.place.end <= offset) {
            self.0.pop_front();
        }
        let mut at = offset;
        while at - offset < most as u64 {
            let left = most - (at - offset) as usize;
            let Some(next) = self.0.front() else { return backlog.read(at, left, into) };
            if at < next.place.start {
                at = backlog.read_to(at, next.place.start, left, into)?;
                continue;
            }
            if next.place.is_empty() {
                break;
            }
            if !next.bytes.is_empty() {
                into.push(next.bytes.clone());
            }
            at = next.place.end;
            self.0.pop_front();
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(asides: &mut Asides, backlog: &mut Backlog, from: u64, most: usize) -> (String, u64) {
        let mut pieces = Vec::new();
        let end = asides.read(backlog, from, most, &mut pieces).expect("it is kept");
        (String::from_utf8(pieces.concat()).expect("it is text"), end)
    }

    #[test]
    fn something_else_is_read_in_some_places() {
        let mut backlog = Backlog::new(100);
        let mut asides = Asides::default();
        backlog.append(b"ab--cd..ef");
        asides.push(102..104, b"123".to_vec());
        asides.push(106..107, Vec::new());
        asides.push(107..108, Vec::new());
        assert_eq!(asides.0.len(), 2);
        assert_eq!(read(&mut asides, &mut backlog, 100, 1), ("ab".into(), 102));
        assert_eq!(read(&mut asides, &mut backlog, 102, 1), ("123".into(), 104));
        assert_eq!(read(&mut asides, &mut backlog, 104, 100), ("cdef".into(), 110));
        assert!(asides.is_empty());
    }

    #[test]
    fn nothing_is_read_across_a_cut() {
        let mut backlog = Backlog::new(0);
        let mut asides = Asides::default();
        asides.part(0);
        assert!(asides.is_empty(), "lengths are as they should be");
        backlog.append(b"a-b");
        asides.push(1..2, b"123".to_vec());
        asides.part(3);
        backlog.append(b"c-");
        asides.push(4..5, Vec::new());
        assert_eq!(read(&mut asides, &mut backlog, 0, 100), ("a123b".into(), 3));
        assert_eq!(read(&mut asides, &mut backlog, 3, 100), ("c".into(), 5));
        assert_eq!(read(&mut asides, &mut backlog, 5, 100), (String::new(), 5));
        backlog.append(b"--");
        asides.push(5..6, Vec::new());
        asides.part(6);
        asides.push(6..7, b"after".to_vec());
        assert_eq!(read(&mut asides, &mut backlog, 5, 100), (String::new(), 6));
        assert_eq!(read(&mut asides, &mut backlog, 6, 100), ("after".into(), 7));
    }
}

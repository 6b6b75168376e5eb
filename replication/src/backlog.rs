//! The recent past of a database: one copy of its effects, however many read them.
//!
//! Offsets count the bytes of all effects there have ever been; the backlog keeps those from
//! [`Backlog::start`] on. Readers take shared pieces ([`Bytes`]), so what is sent to ten replicas and written to a
//! file is in memory once. What is trimmed stays for as long as a reader holds a piece of it.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Memory is taken in blocks of this size. A piece pins its block.
const BLOCK_BYTES: usize = 32 << 10;

/// What the allocator keeps of a shared piece beside its bytes.
const SHARED_BYTES: usize = 48;

/// Effects from an offset on.
pub struct Backlog {
    /// Whole pieces, oldest first.
    pieces: VecDeque<Piece>,
    /// What came after them, and still grows.
    tail: BytesMut,
    start: u64,
    end: u64,
    /// The slack of all pieces.
    slack: usize,
}

struct Piece {
    /// The offset of its first byte.
    start: u64,
    bytes: Bytes,
    /// Bytes at the end of its block that nothing is in.
    slack: usize,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// The offset that was asked for is no longer kept, or has never been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed;

impl Backlog {
    /// An empty one, whose first byte will be at `offset`.
    #[must_use]
    pub fn new(offset: u64) -> Self {
        let (pieces, tail) = (VecDeque::new(), BytesMut::new());
        Self { pieces, tail, start: offset, end: offset, slack: 0 }
    }

    /// The offset of the oldest byte that is kept.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The offset of the next byte to come.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes of memory that are taken beside those that are kept.
    #[must_use]
    pub fn overhead(&self) -> usize {
        let places = self.pieces.capacity() * size_of::<Piece>();
        let room = self.tail.capacity() - self.tail.len();
        places + self.pieces.len() * SHARED_BYTES + self.slack + room
    }

    /// Appends effects; returns the offset behind them.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> u64 {
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            let slack = self.tail.capacity() - self.tail.len();
            self.close_tail();
            if let Some(last) = self.pieces.back_mut() {
                last.slack += slack;
                self.slack += slack;
            }
            self.tail = BytesMut::with_capacity(BLOCK_BYTES.max(bytes.len()));
        }
        self.tail.extend_from_slice(bytes);
        self.end += bytes.len() as u64;
        self.end
    }

    /// The same of bytes that are given away: they are not copied.
    pub fn append_piece(&mut self, bytes: Bytes) -> u64 {
        self.close_tail();
        let start = self.end;
        self.end += bytes.len() as u64;
        if !bytes.is_empty() {
            self.pieces.push_back(Piece { start, bytes, slack: 0 });
        }
        self.end
    }

    /// Puts what is kept from `offset` on, up to about `most` bytes, behind what `into` holds. Returns
    /// the offset to go on with.
    pub fn read(
        &mut self,
        offset: u64,
        most: usize,
        into: &mut Vec<Bytes>,
    ) -> Result<u64, Trimmed> {
        self.read_to(offset, self.end, most, into)
    }

    /// The same, but nothing from `limit` on.
    pub fn read_to(
        &mut self,
        offset: u64,
        limit: u64,
        most: usize,
        into: &mut Vec<Bytes>,
    ) -> Result<u64, Trimmed> {
        if offset < self.start || self.end < offset {
            return Err(Trimmed);
        }
        self.close_tail();
        let first = self.pieces.partition_point(|piece| piece.end() <= offset);
        let mut next = offset;
        for piece in self.pieces.range(first..) {
            if most as u64 <= next - offset || limit <= next {
                break;
            }
            let skipped = (next - piece.start) as usize;
            let end = piece.end().min(limit);
            into.push(piece.bytes.slice(skipped..(end - piece.start) as usize));
            next = end;
        }
        Ok(next)
    }

    /// Forgets what is before `offset`: whole pieces, and the front of a large one, which would be offered
    /// to readers for as long as any of it is.
    pub fn trim(&mut self, offset: u64) {
        if offset >= self.end {
            self.close_tail();
        }
        while let Some(first) = self.pieces.front_mut() {
            if first.end() <= offset {
                self.start = first.end();
                self.slack -= first.slack;
                self.pieces.pop_front();
                continue;
            }
            if BLOCK_BYTES < first.bytes.len() && first.start < offset {
                first.bytes.advance((offset - first.start) as usize);
                (first.start, self.start) = (offset, offset);
            }
            return;
        }
    }

    /// Forgets everything, and goes on at another offset.
    pub fn restart(&mut self, offset: u64) {
        *self = Self::new(offset);
    }

    /// Makes a piece of the tail. What room it has left is filled by what comes next.
    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let bytes = self.tail.split().freeze();
            let start = self.end - bytes.len() as u64;
            self.pieces.push_back(Piece { start, bytes, slack: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(backlog: &mut Backlog, from: u64, most: usize) -> Result<Vec<u8>, Trimmed> {
        let (mut offset, mut pieces) = (from, Vec::new());
        loop {
            let next = backlog.read(offset, most, &mut pieces)?;
            if next == offset {
                return Ok(pieces.concat());
            }
            offset = next;
        }
    }

    #[test]
    fn only_what_is_kept_can_be_read() {
        let mut backlog = Backlog::new(100);
        assert_eq!(backlog.append(b"abc"), 103);
        assert_eq!(read_all(&mut backlog, 100, 1), Ok(b"abc".to_vec()));
        backlog.append(b"def");
        assert_eq!(read_all(&mut backlog, 102, 1), Ok(b"cdef".to_vec()));
        let mut pieces = Vec::new();
        assert_eq!(backlog.read_to(101, 104, 9, &mut pieces), Ok(104));
        assert_eq!(pieces.concat(), b"bcd");
        assert_eq!(backlog.read_to(101, 101, 9, &mut pieces), Ok(101));
        assert_eq!(read_all(&mut backlog, 99, 1), Err(Trimmed));
        assert_eq!(read_all(&mut backlog, 107, 1), Err(Trimmed));
        assert_eq!(read_all(&mut backlog, 106, 1), Ok(Vec::new()));
        backlog.trim(104);
        assert_eq!((backlog.start(), backlog.end()), (103, 106));
        assert_eq!(read_all(&mut backlog, 102, 9), Err(Trimmed));
        assert_eq!(read_all(&mut backlog, 104, 9), Ok(b"ef".to_vec()));
        backlog.trim(106);
        assert!(backlog.is_empty() && backlog.start() == 106);
    }

    #[test]
    fn a_large_piece_is_forgotten_bit_by_bit() {
        let mut backlog = Backlog::new(0);
        let large: Vec<u8> = (0..4 * BLOCK_BYTES).map(|at| at as u8).collect();
        let end = backlog.append_piece(large.clone().into());
        backlog.trim(end - 10);
        assert_eq!((backlog.start(), backlog.len()), (end - 10, 10));
        assert_eq!(read_all(&mut backlog, end - 11, 9), Err(Trimmed));
        assert_eq!(read_all(&mut backlog, end - 10, 9), Ok(large[large.len() - 10..].to_vec()));
    }

    #[test]
    fn what_it_takes_beside_its_bytes_is_known() {
        let mut backlog = Backlog::new(0);
        for _ in 0..1000 {
            backlog.append(&[b'x'; 1000]);
        }
        // 32 effects fill a block but for 768 bytes.
        let blocks = 1000 / 32;
        let overhead = backlog.overhead();
        assert!(blocks * 768 < overhead && overhead < blocks * 1200 + BLOCK_BYTES, "{overhead}");
        backlog.trim(backlog.end());
        assert_eq!(backlog.slack, 0);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_appended(
            lots in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), 0_u8..4), 1..80),
        ) {
            let mut backlog = Backlog::new(7);
            let mut all = Vec::new();
            let mut kept = 7;
            for (lot, action) in lots {
                backlog.append(&lot);
                all.extend_from_slice(&lot);
                prop_assert_eq!(backlog.end(), 7 + all.len() as u64);
                match action {
                    2 => {
                        backlog.append_piece(lot.clone().into());
                        all.extend_from_slice(&lot);
                    }
                    0 => {
                        let middle = u64::midpoint(backlog.start(), backlog.end());
                        backlog.trim(middle);
                        prop_assert!(kept <= backlog.start() && backlog.start() <= middle);
                        kept = backlog.start();
                    }
                    1 => {
                        let from = backlog.start();
                        let read = read_all(&mut backlog, from, 100).unwrap();
                        prop_assert_eq!(&read[..], &all[(from - 7) as usize..]);
                    }
                    _ => {}
                }
            }
        }
    }
}

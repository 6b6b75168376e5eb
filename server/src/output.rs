//! Bytes that a socket has yet to take, in the order in which they leave.
//!
//! They lie in pieces, so that adding to a long queue never moves what is in it, and so that one
//! message to many subscribers exists once. Invariant: no piece is empty, and `written` is less than the
//! length of the first.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use bytes::Bytes;

/// Replies are gathered in pieces of up to this many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces offered to the kernel in one call.
const PIECES_PER_WRITE: usize = 32;

#[derive(Default)]
pub struct Output {
    pieces: VecDeque<Piece>,
    /// How much of the first piece has left.
    written: usize,
    bytes: usize,
}

enum Piece {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
    Block(Bytes),
}

impl Output {
    /// Bytes waiting.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// In how many pieces they lie.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Adds a copy of `bytes` at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Own(last)) if last.len() + bytes.len() <= PIECE_BYTES => {
                last.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back(Piece::Own(bytes.to_vec())),
        }
    }

    /// Adds bytes that others hold too, without copying them.
    pub fn push_shared(&mut self, bytes: Arc<[u8]>) {
        if bytes.len() < 256 {
            return self.push(&bytes);
        }
        self.bytes += bytes.len();
        self.pieces.push_back(Piece::Shared(bytes));
    }

    /// The same with a piece of the log.
    pub fn push_block(&mut self, bytes: Bytes) {
        if bytes.len() < 1024 {
            return self.push(&bytes);
        }
        self.bytes += bytes.len();
        self.pieces.push_back(Piece::Block(bytes));
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes until all has left or `writer` takes no more (`WouldBlock` is no error here); returns the
    /// bytes that left.
    pub fn write_to(&mut self, writer: &mut impl Write) -> io::Result<usize> {
        let mut total = 0;
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                let bytes = &piece.bytes()[if count == 0 { self.written } else { 0 }..];
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            let taken = match writer.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.advance(taken);
            total += taken;
        }
        Ok(total)
    }

    fn advance(&mut self, mut taken: usize) {
        self.bytes -= taken;
        while let Some(first) = self.pieces.front() {
            let left = first.bytes().len() - self.written;
            if taken < left {
                self.written += taken;
                return;
            }
            taken -= left;
            self.written = 0;
            self.pieces.pop_front();
        }
        // An idle connection holds no memory for output.
        self.clear();
    }
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Block(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes a few bytes at a time and then blocks.
    struct Slow {
        taken: Vec<u8>,
        per_call: usize,
        left: usize,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.per_call).min(self.left);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.left -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_leave_in_order_however_little_is_taken() {
        let mut output = Output::default();
        let mut expected = Vec::new();
        for i in 0..50u8 {
            let bytes = vec![i; 40 * usize::from(i)];
            expected.extend_from_slice(&bytes);
            match i % 3 {
                0 => output.push_shared(bytes.into()),
                _ => output.push(&bytes),
            }
        }
        assert_eq!(output.len(), expected.len());
        let mut slow = Slow { taken: Vec::new(), per_call: 700, left: 0 };
        while !output.is_empty() {
            slow.left += 999;
            let before = slow.taken.len();
            let written = output.write_to(&mut slow).unwrap();
            assert_eq!(slow.taken.len() - before, written);
            assert_eq!(output.len() + slow.taken.len(), expected.len());
        }
        assert_eq!(slow.taken, expected);
    }
}

//! A file that may be sealed or not: what is there when encryption is switched on, or off.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use super::header;
use super::keys::Keys;
use super::reader::{Ending, SealedReader, read_full};

/// Reads either sort of file as its content.
pub enum Input<R: Read> {
    Plain(BufReader<Chain<Cursor<Vec<u8>>, R>>),
    Sealed(SealedReader<R>),
}

impl<R: Read> Input<R> {
    /// Looks at the first bytes. The keys are asked for if they are needed.
    pub fn detect(mut input: R, keys: impl FnOnce() -> io::Result<Keys>) -> io::Result<Self> {
        let mut beginning = [0; header::MAGIC.len()];
        let length = read_full(&mut input, &mut beginning)?;
        let beginning = &beginning[..length];
        Ok(match super::is_sealed(beginning) {
            true => Self::Sealed(SealedReader::open_rest(beginning, input, &keys()?)?),
            false => {
                let beginning = Cursor::new(beginning.to_vec());
                Self::Plain(BufReader::with_capacity(64 << 10, beginning.chain(input)))
            }
        })
    }

    /// How a sealed file ends, once all of it was read.
    pub fn ending(&self) -> Option<Ending> {
        match self {
            Self::Plain(_) => None,
            Self::Sealed(input) => input.ending(),
        }
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(into),
            Self::Sealed(input) => input.read(into),
        }
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Plain(input) => input.fill_buf(),
            Self::Sealed(input) => input.fill_buf(),
        }
    }

    fn consume(&mut self, taken: usize) {
        match self {
            Self::Plain(input) => input.consume(taken),
            Self::Sealed(input) => input.consume(taken),
        }
    }
}

//! A file read through a large buffer, in which whole commands are found in place.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// What is read at once.
const READ_BYTES: usize = 1024 * 1024;

/// See the module. Also a [`Read`]: a snapshot at the beginning of a file is read through it.
#[derive(Debug)]
pub struct Input {
    file: File,
    /// Initialized throughout; `start..end` of it was read and not consumed.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Where in the file `start` is.
    offset: u64,
    /// The length of the file when it was opened.
    length: u64,
    is_at_end: bool,
}

impl Input {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            offset: 0,
            length,
            is_at_end: false,
        })
    }

    /// The length of the file when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where in the file the next byte is.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What was read already and not consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub fn consume(&mut self, count: usize) {
        debug_assert!(self.start + count <= self.end);
        self.start += count;
        self.offset += count as u64;
    }

    /// Reads on until there are `wanted` bytes, or as many as the file still has.
    ///
    /// Room is made as bytes arrive: `wanted` is only what the file claims.
    pub fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.end - self.start < wanted && !self.is_at_end {
            if self.start != 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.end == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            match self.file.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.is_at_end = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Goes on at another offset of the file.
    pub fn go_to(&mut self, offset: u64) -> io::Result<()> {
        let ahead = offset.checked_sub(self.offset).and_then(|ahead| usize::try_from(ahead).ok());
        match ahead.filter(|ahead| *ahead <= self.end - self.start) {
            Some(ahead) => self.consume(ahead),
            None => {
                self.file.seek(SeekFrom::Start(offset))?;
                (self.start, self.end, self.offset) = (0, 0, offset);
                self.is_at_end = false;
            }
        }
        Ok(())
    }

    /// Whether `bytes` is all that the file still has.
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.fill(1)?;
        let count = out.len().min(self.end - self.start);
        out[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_through_whole_and_in_parts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text: Vec<u8> = (0..3 * READ_BYTES).map(|at| at as u8).collect();
        std::fs::write(file.path(), &text).unwrap();
        let mut input = Input::open(file.path()).unwrap();
        let mut head = [0; 5];
        input.read_exact(&mut head).unwrap();
        assert_eq!((head.as_slice(), input.offset()), (&text[..5], 5));
        input.fill(usize::MAX).unwrap();
        assert!(input.is_at_end());
        assert_eq!(input.buffered(), &text[5..]);
        input.consume(text.len() - 5);
        assert_eq!(input.read(&mut head).unwrap(), 0);
    }
}

//! A file read through a large buffer, in which whole commands are found in place.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::seal::{self, Ending, Keys, Policy, SealError, SealedReader};

/// What is read at once.
const READ_BYTES: usize = 1024 * 1024;

/// See the module. Also a [`Read`]: a snapshot at the beginning of a file is read through it.
#[derive(Debug)]
pub struct Input {
    file: Source,
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

enum Source {
    Plain(File),
    Sealed {
        reader: Box<SealedReader<File>>,
        path: PathBuf,
        keys: Keys,
    },
    /// A sealed file whose header is cut off.
    Torn,
}

impl Source {
    /// Goes on at another offset of the content. A sealed file is read again from its beginning.
    fn seek(&mut self, offset: u64) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.seek(SeekFrom::Start(offset)).map(drop),
            Self::Torn => Ok(()),
            Self::Sealed { reader, path, keys } => {
                **reader = SealedReader::open(File::open(path)?, keys)?;
                io::copy(&mut reader.by_ref().take(offset), &mut io::sink()).map(drop)
            }
        }
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(into),
            Self::Torn => Ok(0),
            Self::Sealed { reader, .. } => reader.read(into),
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Sealed { .. } => "Sealed",
            Self::Torn => "Torn",
        })
    }
}

impl Input {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self::new(Source::Plain(file), length))
    }

    /// The same for a file that may be sealed. Places in it are those of its content.
    pub fn open_either(path: &Path, policy: &Policy) -> io::Result<Self> {
        if !seal::is_sealed_file(path)? {
            return Self::open(path);
        }
        let keys = policy.keys()?;
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let reader = match SealedReader::open(file, &keys) {
            Ok(reader) => Box::new(reader),
            // Its beginning was just being written.
            Err(error) if SealError::is_short_header(&error) => {
                return Ok(Self::new(Source::Torn, length));
            }
            Err(error) => return Err(error),
        };
        Ok(Self::new(Source::Sealed { reader, path: path.to_owned(), keys }, length))
    }

    fn new(file: Source, length: u64) -> Self {
        Self {
            file,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            offset: 0,
            length,
            is_at_end: false,
        }
    }

    /// How a sealed file ends, once all of it was read.
    pub fn ending(&self) -> Option<Ending> {
        match &self.file {
            Source::Plain(_) => None,
            Source::Torn => Some(Ending::Torn { bytes: self.length }),
            Source::Sealed { reader, .. } => reader.ending(),
        }
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
                self.file.seek(offset)?;
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

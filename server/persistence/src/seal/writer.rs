//! A whole file, sealed while it is written.

use std::io::{self, Write};

use super::frame::{Chain, HEAD, Kind, TAG};
use super::header::{self, Form};
use super::keys::Keys;

/// Text of a full frame: long enough to cost nothing, short enough to stay in the cache.
const FRAME: usize = 64 << 10;

/// Seals what is written to it. Without [`SealedWriter::finish`] the file is not a whole one, and
/// no reader takes it for one.
pub struct SealedWriter<W: Write> {
    output: W,
    chain: Chain,
    /// Room for the head, and the text so far.
    frame: Vec<u8>,
    /// The output has missed a part of a frame.
    failed: bool,
}

impl<W: Write> SealedWriter<W> {
    /// Writes the header. `output` gets few and large writes: it needs no buffer of its own.
    pub fn new(mut output: W, keys: &Keys) -> io::Result<Self> {
        let (header, chain) = header::create(Form::Whole, keys)?;
        output.write_all(&header)?;
        let mut frame = Vec::with_capacity(HEAD + FRAME + TAG);
        frame.resize(HEAD, 0);
        Ok(Self { output, chain, frame, failed: false })
    }

    /// Writes the last frame. The file is yet to be flushed to disk.
    pub fn finish(mut self) -> io::Result<W> {
        self.emit(Kind::Last)?;
        Ok(self.output)
    }

    pub fn output(&self) -> &W {
        &self.output
    }

    pub fn output_mut(&mut self) -> &mut W {
        &mut self.output
    }

    fn emit(&mut self, kind: Kind) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write of this file has failed"));
        }
        self.failed = true;
        self.frame.resize(self.frame.len() + TAG, 0);
        self.chain.seal(kind, &mut self.frame)?;
        self.output.write_all(&self.frame)?;
        self.frame.truncate(HEAD);
        self.failed = false;
        Ok(())
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.frame.len() == HEAD + FRAME && !text.is_empty() {
            self.emit(Kind::Data)?;
        }
        let taken = text.len().min(HEAD + FRAME - self.frame.len());
        self.frame.extend_from_slice(&text[..taken]);
        Ok(taken)
    }

    /// Ends the frame, so that what was written so far can be read.
    fn flush(&mut self) -> io::Result<()> {
        if HEAD < self.frame.len() {
            self.emit(Kind::Data)?;
        }
        self.output.flush()
    }
}

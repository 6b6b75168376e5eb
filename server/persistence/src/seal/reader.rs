//! Reading a sealed file, whole or growing.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use super::append::Appender;
use super::error::{Damage, SealError};
use super::frame::{Chain, HEAD, Head, Kind, Place, TAG};
use super::header::{self, Form};
use super::keys::Keys;

/// Read at once. A frame that is longer makes the buffer grow to its size.
const BUFFER: usize = 256 << 10;

/// Gives back the text of a sealed file, frame by frame, each after it has been authenticated.
///
/// Damage is an error, and stays one. Where a whole file is cut off is an error too; a growing one
/// just ends there, and [`SealedReader::ending`] tells.
pub struct SealedReader<R: Read> {
    input: R,
    form: Form,
    chain: Chain,
    buffer: Vec<u8>,
    /// What of the buffer has been read and not yet opened.
    sealed: Range<usize>,
    /// What of the buffer has been opened and not yet taken.
    text: Range<usize>,
    /// Place in the file of the next frame: the length of what is known to be good.
    offset: u64,
    is_last: bool,
    end: Option<Result<Ending, SealError>>,
}

/// How a file that is not damaged ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a last frame, as a whole file must.
    Finished,
    /// After a frame.
    Open,
    /// With this many bytes of a frame.
    Torn { bytes: u64 },
}

impl<R: Read> SealedReader<R> {
    /// Reads the header. The input needs no buffer of its own.
    pub fn open(input: R, keys: &Keys) -> io::Result<Self> {
        Self::open_rest(&[], input, keys)
    }

    /// The same for an input of which some bytes have been read.
    pub(super) fn open_rest(beginning: &[u8], mut input: R, keys: &Keys) -> io::Result<Self> {
        let mut header = [0; header::SIZE];
        header[..beginning.len()].copy_from_slice(beginning);
        let length = beginning.len() + read_full(&mut input, &mut header[beginning.len()..])?;
        if 0 < length && !super::is_sealed(&header[..length]) {
            return Err(SealError::NotSealed.into());
        }
        if length < header::SIZE {
            return Err(SealError::ShortHeader(length).into());
        }
        let (form, chain) = header::open(&header, keys)?;
        Ok(Self {
            input,
            form,
            chain,
            buffer: vec![0; BUFFER],
            sealed: 0..0,
            text: 0..0,
            offset: header::SIZE as u64,
            is_last: false,
            end: None,
        })
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// How the file ends, once it has been read to there.
    pub fn ending(&self) -> Option<Ending> {
        self.end.as_ref()?.as_ref().ok().copied()
    }

    /// The number of the frame that comes next.
    pub fn frame(&self) -> u64 {
        self.chain.number()
    }

    /// Where in the file that frame is: whatever stands before it is authentic.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn input(&self) -> &R {
        &self.input
    }

    pub(super) fn place(&self) -> Place {
        self.chain.place()
    }

    pub(super) fn into_appender_at(self, place: Place) -> Result<Appender, SealError> {
        match self.form {
            Form::Growing if !self.is_last => Ok(Appender::continuing(self.chain, place)),
            _ => Err(SealError::NotGrowing),
        }
    }

    /// The text of the next frame that has any, or `None` at the end.
    pub(super) fn next_text(&mut self) -> io::Result<Option<&[u8]>> {
        self.text = 0..0;
        while self.text.is_empty() {
            match &self.end {
                Some(Ok(_)) => return Ok(None),
                Some(Err(error)) => return Err(error.clone().into()),
                None => self.advance()?,
            }
        }
        Ok(Some(&self.buffer[self.text.clone()]))
    }

    /// Opens a frame, or finds out how the file ends. Only what the input says is an error here.
    fn advance(&mut self) -> io::Result<()> {
        self.end = match self.read_frame()? {
            Frame::Opened => return Ok(()),
            Frame::Damaged(error) => Some(Err(error)),
            Frame::Missing => Some(self.ended(self.sealed.len() as u64)),
            Frame::Zeros(bytes) => Some(self.ended(bytes)),
        };
        Ok(())
    }

    /// What it means that the file ends after so many bytes that are no frame.
    fn ended(&self, bytes: u64) -> Result<Ending, SealError> {
        let ending = match bytes {
            _ if self.is_last => Ending::Finished,
            0 => Ending::Open,
            bytes => Ending::Torn { bytes },
        };
        if self.form == Form::Whole && ending != Ending::Finished {
            return Err(SealError::Truncated { frame: self.frame(), offset: self.offset + bytes });
        }
        Ok(ending)
    }

    fn read_frame(&mut self) -> io::Result<Frame> {
        let (frame, offset) = (self.chain.number(), self.offset);
        if !self.have(HEAD)? {
            let nothing_may_follow = self.is_last && !self.sealed.is_empty();
            return Ok(match nothing_may_follow {
                true => Frame::Damaged(SealError::Trailing(offset)),
                false => Frame::Missing,
            });
        }
        if self.is_last {
            return Ok(Frame::Damaged(SealError::Trailing(offset)));
        }
        let start = self.sealed.start;
        let head = self.buffer[start..start + HEAD].try_into().expect("that many bytes");
        let head = match Head::read(frame, head) {
            Ok(head) => head,
            Err(damage) => return self.damaged(frame, offset, damage, start + HEAD, 0),
        };
        if !self.have(head.size())? {
            return Ok(Frame::Missing);
        }
        let start = self.sealed.start;
        let whole = &mut self.buffer[start..start + head.size()];
        if let Err(damage) = self.chain.open(head, whole) {
            // The write may have got as far as into the tag.
            let tag = start + HEAD + head.length;
            let written = self.buffer[tag..start + head.size() - 1].iter().rposition(|it| *it != 0);
            let zeros = tag + written.map_or(0, |last| last + 1);
            return self.damaged(frame, offset, damage, zeros, TAG);
        }
        if head.kind != Kind::Run {
            self.text = start + HEAD..start + HEAD + head.length;
        }
        self.is_last = head.kind == Kind::Last;
        self.sealed.start += head.size();
        self.offset += head.size() as u64;
        Ok(Frame::Opened)
    }

    /// A frame that is damaged, unless there are only zeros from within its tag (or from a damaged head) to the
    /// end of the file, and so many at least: that is what a loss of power leaves of a write, and no flipped bit does.
    fn damaged(
        &mut self,
        frame: u64,
        offset: u64,
        damage: Damage,
        mut zeros: usize,
        least: usize,
    ) -> io::Result<Frame> {
        let (mut bytes, mut found) = (0, 0);
        loop {
            let rest = &self.buffer[zeros..self.sealed.end];
            found += rest.len();
            let is_over = rest.iter().any(|byte| *byte != 0);
            bytes += self.sealed.len() as u64;
            self.sealed = 0..0;
            zeros = 0;
            if is_over || !self.have(1)? {
                return Ok(match is_over || found < least {
                    true => Frame::Damaged(SealError::Damaged { frame, offset, damage }),
                    false => Frame::Zeros(bytes),
                });
            }
        }
    }

    /// Reads until this many sealed bytes are in the buffer; `false` if the file ends before.
    fn have(&mut self, bytes: usize) -> io::Result<bool> {
        if bytes <= self.sealed.len() {
            return Ok(true);
        }
        self.buffer.copy_within(self.sealed.clone(), 0);
        self.sealed = 0..self.sealed.len();
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        while self.sealed.len() < bytes {
            match self.input.read(&mut self.buffer[self.sealed.end..]) {
                Ok(0) => return Ok(false),
                Ok(length) => self.sealed.end += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

enum Frame {
    Opened,
    /// The file ends before it, or in it.
    Missing,
    Damaged(SealError),
    /// So many bytes to the end, the last of them zeros.
    Zeros(u64),
}

impl<R: Read> Read for SealedReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let text = self.fill_buf()?;
        let taken = text.len().min(into.len());
        into[..taken].copy_from_slice(&text[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl<R: Read> BufRead for SealedReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.text.is_empty() {
            return Ok(self.next_text()?.unwrap_or_default());
        }
        Ok(&self.buffer[self.text.clone()])
    }

    fn consume(&mut self, taken: usize) {
        self.text.start = self.text.end.min(self.text.start + taken);
    }
}

/// Reads until `into` is full or the input ends.
pub(super) fn read_full(input: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < into.len() {
        match input.read(&mut into[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

//! A file that grows: lots are sealed one by one, over several runs of the program.

use std::io::{self, Read};

use super::error::SealError;
use super::frame::{Chain, HEAD, Kind, Place, TAG, TEXT_MAX};
use super::header::{self, Form};
use super::keys::Keys;
use super::reader::{Ending, SealedReader};

/// Turns lots of text into frames, for a file that its owner writes.
///
/// It knows no file, so that whoever writes can choose when, and can fail and try again: the bytes
/// of a lot go into the file after those of the lot before, all of them, in order. Who
/// cannot keep to that takes a [`Mark`] before the lot and goes back to it.
pub struct Appender {
    chain: Chain,
    /// The next frame has to begin a run.
    run_is_due: bool,
}

/// A place between two lots.
#[derive(Clone, Copy)]
pub struct Mark(Place);

/// How a file goes on after a restart.
pub struct Resumed {
    pub appender: Appender,
    /// The file is to be cut to this length,
    pub keep: u64,
    /// and these bytes come next.
    pub append: Vec<u8>,
}

impl Appender {
    /// Begins a file: the header is appended to `out`.
    pub fn create(keys: &Keys, out: &mut Vec<u8>) -> Result<Self, SealError> {
        let (header, chain) = header::create(Form::Growing, keys)?;
        out.extend_from_slice(&header);
        Ok(Self { chain, run_is_due: false })
    }

    /// Continues a file of which the first `text` bytes of content are to stay, all of them if
    /// `None`. The file is read and checked up to there.
    ///
    /// A file whose header is cut off has nothing in it yet, and begins anew.
    pub fn resume(input: impl Read, keys: &Keys, text: Option<u64>) -> io::Result<Resumed> {
        let mut append = Vec::new();
        let mut reader = match SealedReader::open(input, keys) {
            Ok(reader) => reader,
            Err(error) => {
                let is_empty = matches!(SealError::of(&error), Some(SealError::ShortHeader(_)));
                if !is_empty || text.is_some_and(|text| text != 0) {
                    return Err(error);
                }
                let appender = Self::create(keys, &mut append)?;
                return Ok(Resumed { appender, keep: 0, append });
            }
        };
        let Some(text) = text else {
            while reader.next_text()?.is_some() {}
            let keep = reader.offset();
            return Ok(Resumed { appender: reader.into_appender()?, keep, append });
        };

        let mut left = text;
        let (mut place, mut keep) = (reader.place(), reader.offset());
        let mut rest = Vec::new();
        while 0 < left {
            let Some(frame) = reader.next_text()? else {
                let (frame, offset) = (reader.frame(), reader.offset());
                return Err(SealError::Truncated { frame, offset }.into());
            };
            match left.checked_sub(frame.len() as u64) {
                Some(remaining) => left = remaining,
                None => {
                    rest.extend_from_slice(&frame[..left as usize]);
                    break;
                }
            }
            (place, keep) = (reader.place(), reader.offset());
        }
        let mut appender = reader.into_appender_at(place)?;
        appender.seal(&rest, &mut append)?;
        Ok(Resumed { appender, keep, append })
    }

    pub(super) fn continuing(mut chain: Chain, place: Place) -> Self {
        chain.back_to(place);
        Self { chain, run_is_due: true }
    }

    /// Appends a lot's frames to `out`: one, unless it is longer than a frame can be.
    pub fn seal(&mut self, lot: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        self.seal_parts([lot], out)
    }

    /// The same for a lot in several parts.
    pub fn seal_parts<'a>(
        &mut self,
        parts: impl IntoIterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let mut start = None;
        for mut part in parts {
            while !part.is_empty() {
                let begun = match start {
                    Some(begun) => begun,
                    None => *start.insert(self.begin(out)?),
                };
                let room = TEXT_MAX - (out.len() - begun - HEAD);
                let (now, later) = part.split_at(part.len().min(room));
                out.extend_from_slice(now);
                part = later;
                if now.len() == room {
                    self.end(Kind::Data, begun, out)?;
                    start = None;
                }
            }
        }
        start.map_or(Ok(()), |begun| self.end(Kind::Data, begun, out))
    }

    /// Ends the file: what is cut off from it later will be missed. Nothing may be sealed after that,
    /// but for going back to a mark.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), SealError> {
        let start = self.begin(out)?;
        self.end(Kind::Last, start, out)
    }

    /// The place that has been reached, for [`Appender::rewind`].
    pub fn mark(&self) -> Mark {
        Mark(self.chain.place())
    }

    /// Forgets the lots since a mark, after a failed write: the file has to be cut to where it was then.
    pub fn rewind(&mut self, mark: Mark) {
        self.chain.back_to(mark.0);
        self.run_is_due = true;
    }

    /// Makes room for a frame's head, behind that of a run if one is due.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<usize, SealError> {
        if self.run_is_due {
            self.chain.start_run(out)?;
            self.run_is_due = false;
        }
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        Ok(start)
    }

    fn end(&mut self, kind: Kind, start: usize, out: &mut Vec<u8>) -> Result<(), SealError> {
        out.extend_from_slice(&[0; TAG]);
        self.chain.seal(kind, &mut out[start..])
    }
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender").field("frame", &self.chain.number()).finish_non_exhaustive()
    }
}

impl<R: Read> SealedReader<R> {
    /// Goes on with a file that has been read to its end, which is at [`SealedReader::offset`]: what
    /// is torn is to be cut off there.
    pub fn into_appender(self) -> Result<Appender, SealError> {
        match self.ending() {
            Some(Ending::Open | Ending::Torn { .. }) => {
                let place = self.place();
                self.into_appender_at(place)
            }
            _ => Err(SealError::NotGrowing),
        }
    }
}

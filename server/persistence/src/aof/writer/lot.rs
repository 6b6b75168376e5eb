//! A lot: what is written at once.

use std::io::{self, IoSlice};

use bytes::Bytes;

use super::super::medium::Medium;

/// Effects, from where the last lot ended up to `end`. Never a part of one.
#[derive(Clone, Debug, Default)]
pub struct Lot {
    pub chunks: Vec<Bytes>,
    pub end: u64,
}

impl Lot {
    /// What is before offset `at` and what is after it, of a lot that begins at `start`.
    pub(super) fn split(mut self, start: u64, at: u64) -> (Option<Self>, Option<Self>) {
        if at <= start {
            return (None, Some(self));
        }
        if self.end <= at {
            return (Some(self), None);
        }
        let after = self.without(at - start);
        let mut keep = at - start;
        self.chunks.retain_mut(|chunk| {
            let length = keep.min(chunk.len() as u64);
            chunk.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            keep -= length;
            0 < length
        });
        self.end = at;
        (Some(self), Some(after))
    }

    pub(super) fn length(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// The same without its first bytes.
    pub(super) fn without(&self, mut bytes: u64) -> Self {
        let mut chunks = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            let skip = bytes.min(chunk.len() as u64);
            bytes -= skip;
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            if skip < chunk.len() {
                chunks.push(chunk.slice(skip..));
            }
        }
        Self { chunks, end: self.end }
    }
}

/// Writes all of it, with one call where the system takes it whole: how many bytes were written.
pub(super) fn write_all(file: &dyn Medium, chunks: &[Bytes]) -> (u64, io::Result<()>) {
    let mut slices: Vec<_> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut slices = &mut slices[..];
    IoSlice::advance_slices(&mut slices, 0);
    let mut done = 0;
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return (done, Err(io::Error::from(io::ErrorKind::WriteZero))),
            Ok(count) => {
                done += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_cut_at_any_byte() {
        let chunks = vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"de")];
        let joined = |lot: Option<Lot>| lot.map(|lot| (lot.chunks.concat(), lot.end));
        for at in 0..=7 {
            let lot = Lot { chunks: chunks.clone(), end: 15 };
            let (before, after) = lot.split(10, 10 + at);
            let cut = usize::try_from(at).unwrap().min(5);
            let part = |bytes: &[u8], end| (!bytes.is_empty()).then(|| (bytes.to_vec(), end));
            assert_eq!(joined(before), part(&b"abcde"[..cut], 10 + cut as u64));
            assert_eq!(joined(after), part(&b"abcde"[cut..], 15));
        }
    }
}

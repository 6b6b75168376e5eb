//! The file that is appended to, sealed or not.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::super::folder::Incr;
use super::super::medium::Medium;
use super::lot::{Lot, write_all};
use crate::seal;

pub(super) struct Sink {
    pub medium: Arc<dyn Medium>,
    /// Of the file: all of them whole lots.
    pub bytes: u64,
    seal: Option<seal::Appender>,
    /// Where the frames were before the last lot was prepared.
    mark: Option<seal::Mark>,
    /// There is more in the file than `bytes`, which nobody must see.
    has_excess: bool,
}

impl Sink {
    pub(super) fn new(incr: Incr) -> Self {
        let Incr { file, bytes, seal, .. } = incr;
        Self { medium: file, bytes, seal, mark: None, has_excess: false }
    }

    /// A lot as it is to be in the file. Until it is there, or taken back, there may be no other.
    pub(super) fn prepare(&mut self, stamp: Vec<u8>, lot: &Lot) -> io::Result<Lot> {
        let Some(seal) = &mut self.seal else {
            let mut lot = lot.clone();
            if !stamp.is_empty() {
                lot.chunks.insert(0, stamp.into());
            }
            return Ok(lot);
        };
        self.mark = Some(seal.mark());
        let parts = [&stamp[..]].into_iter().chain(lot.chunks.iter().map(|chunk| &chunk[..]));
        let mut sealed = Vec::with_capacity(lot.length() as usize + stamp.len() + 128);
        if let Err(error) = seal.seal_parts(parts, &mut sealed) {
            self.go_back();
            return Err(error.into());
        }
        Ok(Lot { chunks: vec![Bytes::from(sealed)], end: lot.end })
    }

    /// Writes what was prepared: how many bytes of it were written. They do not count yet.
    pub(super) fn write(&mut self, prepared: &Lot) -> (u64, io::Result<()>) {
        if let Err(error) = self.remove_excess() {
            return (0, Err(error));
        }
        write_all(&*self.medium, &prepared.chunks)
    }

    /// Removes what was written since `bytes`, so that the lot can be prepared anew.
    pub(super) fn take_back(&mut self, written: u64) -> io::Result<()> {
        if written != 0 {
            self.medium.set_len(self.bytes)?;
        }
        self.go_back();
        Ok(())
    }

    /// Says of the file that it is complete, before another one follows; nothing is said of a plain one.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(seal) = &mut self.seal else { return Ok(()) };
        self.mark = Some(seal.mark());
        let mut last = Vec::new();
        seal.finish(&mut last)?;
        let last = Lot { chunks: vec![last.into()], end: 0 };
        let (_, written) = self.write(&last);
        written.inspect_err(|_| self.go_on())
    }

    /// No other one follows, and more is to come.
    pub(super) fn go_on(&mut self) {
        if self.seal.is_some() {
            self.go_back();
            self.has_excess = true;
            // If it cannot be done now it is when more comes.
            let _ = self.remove_excess();
        }
    }

    fn remove_excess(&mut self) -> io::Result<()> {
        if self.has_excess {
            self.medium.set_len(self.bytes)?;
            self.has_excess = false;
        }
        Ok(())
    }

    fn go_back(&mut self) {
        if let Some((seal, mark)) = self.seal.as_mut().zip(self.mark) {
            seal.rewind(mark);
        }
    }
}

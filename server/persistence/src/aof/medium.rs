//! What the writer asks of a file. Tests put one in its place whose power fails.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSlice, Write};

pub trait Medium: Debug + Send + Sync {
    /// Appends: how many bytes there was room for.
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Brings to the disk what was written, so that it outlives a loss of power.
    fn sync_data(&self) -> io::Result<()>;
}

impl Medium for File {
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Write::write_vectored(&mut &*self, slices)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Self::set_len(self, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}

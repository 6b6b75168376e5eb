//! Why a file was refused, and where.

use std::io;

use crate::rdb::{LoadError, Type};

/// A file that cannot be read to its end, or must not be believed.
#[derive(Debug, thiserror::Error)]
#[error("offset {offset}: {fault}")]
pub struct FileError {
    /// Bytes from the start of the file to what is wrong, or to the record that it is in.
    pub offset: u64,
    /// The key that was being read.
    pub key: Option<Box<[u8]>>,
    pub kind: Option<Type>,
    #[source]
    pub fault: Fault,
}

impl FileError {
    pub(super) fn new(offset: u64, fault: impl Into<Fault>) -> Self {
        Self { offset, key: None, kind: None, fault: fault.into() }
    }

    /// Whether the file was not even begun to be read: of something else, or of a newer version.
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        matches!(self.fault, Fault::Signature | Fault::Version(_))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("Wrong signature trying to load DB from file")]
    Signature,
    #[error("Can't handle RDB format version {0}")]
    Version(u32),
    #[error("Unexpected EOF reading RDB file")]
    End,
    #[error("Value integrity check failed: {0}")]
    Value(#[from] LoadError),
    #[error("Unknown RDB encoding type {0}")]
    Code(u8),
    #[error("a key of logical database {0}, of which there are fewer here")]
    Database(u64),
    #[error("a key that is there already")]
    Taken,
    #[error("The RDB file contains module data I can't load: no matching module type '{0}'")]
    Module(String),
    #[error("Pre-release function format not supported")]
    PreviewFunction,
    #[error("Failed loading library, {0}")]
    Function(String),
    #[error("RDB CRC error")]
    Checksum { expected: u64, found: u64 },
    /// By whoever asked for it, or because another part has failed.
    #[error("stopped")]
    Stopped,
}

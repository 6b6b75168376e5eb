//! The append-only file: every effect, in the files that Redis 7 keeps it in.
//!
//! A [`Manifest`] names the files: a base (the data at one moment), and incremental files with the
//! effects since. [`Folder`] holds them and changes the manifest; [`Writer`] is the thread that
//! appends; [`load`] reads all back; [`check`] is `redis-check-aof`.
//!
//! Nothing here knows a command but MULTI and EXEC, or what becomes of what is read: [`Source`] gives
//! the effects, [`Replay`] takes them back, [`Events`] is told what happens.

pub mod check;
mod doorbell;
mod folder;
mod input;
pub mod load;
mod manifest;
mod medium;
mod parse;
mod quote;
mod reader;
mod syncer;
mod writer;

pub use doorbell::Doorbell;
pub use folder::{Folder, Incr, Keep};
pub use input::Input;
pub use load::{LoadError, Loaded, load};
pub use manifest::{BaseFormat, Entry, Kind, Manifest, ManifestError};
pub use medium::Medium;
pub use parse::Span;
pub use reader::{Commands, Replay, Stop};
pub use writer::{Events, Figures, Fsync, Lot, Rotated, Rotation, Source, Writer, WriterSettings};

use std::io;

/// How much a line for the log matters, as Redis grades them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Verbose,
    Notice,
    Warning,
}

/// Takes lines for the log.
pub type Tell<'a> = &'a (dyn Fn(Level, &str) + Sync);

/// A step on files that failed: what, in the words of Redis's log, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", reason(.source))]
pub struct FileError {
    pub what: String,
    #[source]
    pub source: io::Error,
}

impl FileError {
    fn new(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { what: what.into(), source }
    }
}

/// Why a system call failed, as C's library words it.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

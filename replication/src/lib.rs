//! The sequence of a database's effects and those who follow it. Knows no command and no key.
#![forbid(unsafe_code)]

pub mod backlog;
pub mod beside;
pub mod handshake;
pub mod history;
pub mod payload;

pub use backlog::{Backlog, Trimmed};
pub use history::{History, Id};

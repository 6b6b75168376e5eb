//! The commands on data: each a small synchronous function beside its table entry.
//!
//! Handlers do no I/O and read no clock; what they need comes in through [`Call`], and what replicas
//! and the append-only file should see goes out as an [`Effect`].

#![forbid(unsafe_code)]

pub mod args;
#[cfg(test)]
mod bench;
pub mod bitmap;
pub mod blocking;
mod call;
mod command;
mod effect;
mod element;
mod error;
pub mod generic;
pub mod geo;
pub mod hash;
pub mod hyperloglog;
mod key_spec;
mod lengthy;
pub mod list;
pub mod set;
pub mod sorted_set;
pub mod stream;
pub mod string;

pub use call::{Call, Environment};
pub use command::{Categories, Command, DataCommand, Flags, Group, Run, Scope};
pub use effect::{Effect, OnTimeout, Rewrite, Wait, write_command};
pub use error::CommandError;
pub use key_spec::{Begin, Find, KeyError, KeyFlags, KeySpec, key_positions};

/// Every command of this crate, by family.
pub const TABLES: &[&[DataCommand]] = &[
    string::TABLE,
    bitmap::TABLE,
    hyperloglog::TABLE,
    geo::TABLE,
    hash::TABLE,
    list::TABLE,
    set::TABLE,
    sorted_set::TABLE,
    stream::TABLE,
    generic::TABLE,
];

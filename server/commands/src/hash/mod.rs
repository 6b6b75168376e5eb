//! Hashes: fields and values.

use crate::command::DataCommand;

pub const TABLE: &[DataCommand] = &[];

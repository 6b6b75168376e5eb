//! Streams.

use crate::command::DataCommand;

pub const TABLE: &[DataCommand] = &[];

//! Keys of any type.

use crate::command::DataCommand;

pub const TABLE: &[DataCommand] = &[];

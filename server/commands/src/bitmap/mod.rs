//! Bitmaps: strings as arrays of bits.

use crate::command::DataCommand;

pub const TABLE: &[DataCommand] = &[];

//! A list of strings and integers in one block.

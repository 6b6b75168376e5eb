//! A stream's entries.

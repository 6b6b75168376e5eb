//! How values are kept outside of memory: the RDB format, which DUMP payloads share, and files that
//! are sealed with a key.
//!
//! What is read is bounded and checked before it is believed; bad input gives an error that says
//! what is wrong, and never a value that breaks a promise of its type.
#![forbid(unsafe_code)]

pub mod aof;
pub mod rdb;
pub mod seal;

//! Data structures of the keyspace: the table and its one-block entries, and the compact and large
//! encodings of every type. Knows nothing of commands, protocol, files or time.
//!
//! This is the only crate in which a module may opt in to `unsafe`; each such module says why.

#![deny(unsafe_code)]

// The file of the `resp` crate: scores in a listpack have the text they have in replies, and the two
// crates may not know each other.
pub mod collation;
#[allow(dead_code, reason = "only a part is used here")]
#[path = "../../resp/src/double.rs"]
mod double;
pub mod entry;
pub mod geohash;
pub mod glob;
pub mod hash;
pub mod hyperloglog;
pub mod intset;
pub mod list;
pub mod listpack;
pub mod longdouble;
pub mod lzf;
pub mod malformed;
pub mod quicklist;
pub mod rank_tree;
pub mod set;
pub mod size;
pub mod sorted_set;
pub mod stream;
pub mod table;
mod thin;
pub mod value;

/// Property tests run in full natively, and a little under Miri, which is a thousand times slower.
#[cfg(test)]
pub(crate) fn test_config() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..Default::default()
    }
}

//! An ordered index with ranks.

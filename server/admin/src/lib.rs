//! admin
#![forbid(unsafe_code)]

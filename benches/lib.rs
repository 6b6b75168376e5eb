//! Measurements: criterion benches of the parts, and `compare`, which sets the whole server beside
//! others.
#![forbid(unsafe_code)]

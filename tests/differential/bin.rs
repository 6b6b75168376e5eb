//! `cargo run -p carnelian-tests --bin differential`
fn main() {}

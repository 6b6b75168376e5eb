//! rladmin
fn main() {}

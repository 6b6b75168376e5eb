//! rladmin
fn main(){}

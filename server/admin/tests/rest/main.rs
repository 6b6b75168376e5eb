//! The REST interface over a real TLS socket, against a real control plane of one node.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // all of this is a test, helpers included

mod bootstrap;
mod certificates;
mod databases;
mod harness;
mod rladmin;
mod transfers;
mod transport;
mod users;
mod views;

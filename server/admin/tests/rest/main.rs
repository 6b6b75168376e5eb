//! The REST interface over a real TLS socket, against a real control plane of one node.

#![forbid(unsafe_code)]

mod bootstrap;
mod certificates;
mod databases;
mod harness;
mod rladmin;
mod transport;
mod users;
mod views;

//! What every suite needs to drive a server from outside: starting one, speaking RESP to it over TCP,
//! TLS or a unix socket, and finding the peers it is compared with.
//!
//! The server under test is the workspace's own binary, built when needed. `CARNELIAN_SERVER=PATH`
//! names another one, for instance a real redis-server: a script that holds there too is known right.
#![forbid(unsafe_code)]

pub mod certificates;
pub mod client;
pub mod cluster;
pub mod der;
pub mod expect;
pub mod forge;
pub mod greetings;
pub mod matrix;
pub mod nodes;
pub mod peers;
pub mod reply;
pub mod server;
pub mod transport;
pub mod writer;

pub use client::{Client, encode, words};
pub use matrix::{Way, each_way, each_way_with};
pub use peers::require_or_skip;
pub use reply::{Protocol, Reply};
pub use server::{Server, Starter, is_carnelian};
pub use transport::{TlsOptions, Transport};

#[path = "../crash/mod.rs"]
pub mod crash;
#[path = "../differential/mod.rs"]
pub mod differential;
#[path = "../faults/mod.rs"]
pub mod faults;
#[path = "../outages/mod.rs"]
pub mod outages;
#[path = "../switches/mod.rs"]
pub mod switches;

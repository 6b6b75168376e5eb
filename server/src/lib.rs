//! Carnelian's server: listeners, connections, and the threads that serve them.
//!
//! `boot` starts everything in order; `reactor` is the loop that clients live on; `service` serves
//! one of them for one turn; `dispatch` runs its commands.

#![deny(unsafe_code)]

mod accept;
#[allow(unsafe_code)]
pub mod allocator;
pub mod blocking;
pub mod boot;
mod census;
pub mod clients;
pub mod clock;
mod commands;
pub mod configure;
pub mod connection;
pub mod database;
pub mod dispatch;
pub mod encryption;
mod expire;
mod info;
mod input;
pub mod listener;
pub mod log;
pub mod mailbox;
mod memory;
mod output;
pub mod process;
pub mod rates;
pub mod reactor;
pub mod reclaim;
pub mod registry;
pub mod server;
mod service;
pub mod session;
pub mod settings;
mod signals;
mod slab;
pub mod slowlog;
mod tasks;
#[cfg(test)]
mod testing;
mod timezone;
mod transaction;
mod usage;
pub mod waiters;
pub mod watch;

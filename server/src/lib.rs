//! Carnelian's server: listeners, connections, and the threads that serve them.
//!
//! `boot` starts everything in order; `reactor` is the loop that clients live on; `service` serves
//! one of them for one turn; `dispatch` runs its commands.

#![deny(unsafe_code)]

mod accept;
pub mod acl;
#[allow(unsafe_code)]
pub mod allocator;
mod aof;
mod at_rest;
pub mod blocking;
pub mod boot;
mod census;
pub mod clients;
pub mod clock;
pub mod cluster_tool;
mod commands;
pub mod configure;
pub mod connection;
mod control;
pub mod database;
pub mod databases;
pub mod debugger;
pub mod dispatch;
pub mod effects;
pub mod encryption;
pub mod endpoint;
pub mod eviction;
mod expire;
mod features;
mod halt;
mod histogram;
mod huge_pages;
mod info;
mod input;
pub mod internode;
mod keys;
mod latency;
pub mod listener;
pub mod load;
pub mod log;
pub mod mailbox;
mod memory;
pub mod monitor;
mod output;
pub mod pause;
pub mod process;
mod propagation;
mod pubsub;
pub mod rates;
pub mod reactor;
pub mod reclaim;
pub mod registry;
pub mod replication;
pub mod scripting;
pub mod server;
mod service;
pub mod session;
pub mod settings;
mod signals;
mod slab;
pub mod slowlog;
mod snapshot;
mod standing;
mod tasks;
#[cfg(test)]
mod testing;
mod timezone;
pub mod tracking;
mod transaction;
mod usage;
pub mod waiters;
pub mod watch;

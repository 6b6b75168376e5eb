//! The control plane: what the cluster knows of itself, kept in agreement by Raft.
//!
//! - [`state`] is the state and every change to it: pure, without clock, chance or I/O.
//! - [`Control`] is the handle through which the server and the REST interface read the state, ask for
//!   changes and hear of them. Every node answers from what it has applied; changes go to the leader.
//! - [`Environment`] is what the control plane needs of the world: the time of day, and streams to other
//!   nodes. Everything else it has from tokio, so that a simulation has all of it in its hand.

#![forbid(unsafe_code)]

mod control;
mod keys;
mod lease;
mod peers;
pub mod placement;
mod raft;
mod rpc;
mod signal;
#[cfg(test)]
mod simulation;
pub mod state;

pub use control::{Control, ControlError, Handler};
pub use keys::{Admission, Keys, KeysError, Pending};
pub use lease::{BEAT, Deadline, LEASE, Lease, Look, Writable};
pub use peers::{Dialing, Environment};
pub use placement::ShardReport;
pub use rpc::Stream;

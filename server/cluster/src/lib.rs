//! The control plane: what the cluster knows of itself, kept in agreement by Raft.
//!
//! - [`state`] is the state and every change to it: pure, without clock, chance or I/O.
//! - [`Control`] is the handle through which the server and the REST interface read the state, ask for
//!   changes and hear of them. Every node answers from what it has applied; changes go to the leader.

#![forbid(unsafe_code)]

mod control;
pub mod state;

pub use control::{Control, ControlError};

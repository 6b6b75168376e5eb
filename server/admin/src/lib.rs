//! The REST interface on 9443: what an operator of Redis Enterprise expects there.
//!
//! - [`Admin`] holds what the interface itself knows: logins, the audit log, samples, alerts.
//! - [`Front`] takes requests, whatever socket they came from; [`serve`] and [`serve_local`] are the sockets.
//! - [`Plane`] and [`Live`] are what it asks of the server around it.
//!
//! The crate changes nothing itself: each change is one `Change` that the control plane makes or refuses.
//! Invariants: every 2xx answer is a JSON document; every change and every refused attempt is in the audit
//! log, or nothing is changed; no password, key or token is in an answer to who may not have it, nor in a log.

#![forbid(unsafe_code)]

mod admin;
mod alerts;
mod answer;
mod audit;
mod auth;
mod bootstrap;
mod front;
mod handlers;
mod info;
mod live;
mod openapi;
mod request;
mod routes;
mod samples;
mod server;
mod tar;
mod time;

pub use admin::{Admin, action_id, random_text};
pub use audit::{FILE_NAME as AUDIT_LOG, Verdict, verify as verify_audit_log};
pub use auth::password::hash as hash_password;
pub use front::{Front, Limits, Peer};
pub use live::{
    Address, Bootstrap, BootstrapFailure, Figures, Live, LocalNode, Plane, Secret, Waiting,
};
pub use server::{TlsSource, serve, serve_local};

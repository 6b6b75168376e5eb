//! TLS towards clients: the client CA and what it signs, settings and their checking, the choice
//! between TLS and plaintext on a shared port, configurations that are swapped under live traffic,
//! and sessions as a reactor drives them. That is plain rustls over byte slices: no sockets, no
//! threads, no async.
//!
//! The certificates that a cluster has by name, its own and its customer's, are in [`certificates`];
//! [`AdminAcceptor`] serves HTTPS with them, and [`https`] is the other end of that.
//!
//! TLS between nodes is in [`internode`]: its own CA, mutual authentication, and links on tokio.
//!
//! Neither knows anything of commands and keys.

#![forbid(unsafe_code)]

mod acceptor;
mod admin;
mod ca;
pub mod certificates;
mod ciphers;
mod der;
mod describe;
mod detect;
mod error;
pub mod https;
pub mod internode;
mod issue;
mod outgoing;
mod overlap;
mod pem;
mod private_key;
mod provider;
mod session;
mod settings;
mod source;
mod store;
mod subject;
#[cfg(test)]
mod testing;
mod tickets;
mod trust;

pub use acceptor::{Acceptor, Configuration};
pub use admin::{ADMIN_ALPN, AdminAcceptor, AdminSettings, MinVersion};
pub use ca::{CA_CERTIFICATE, CA_KEY, ClientAuthority, Leaf, ServerLeaves};
pub use ciphers::unknown_suites;
pub use describe::{
    CertificateInfo, ClientNames, NotACertificate, client_names, common_name_of, hex,
};
pub use detect::{
    Admission, ENCRYPTION_REQUIRED, HANDSHAKE_RECORD, Speech, TLS_REFUSED, TransitEncryption,
    UnknownMode,
};
pub use error::{ConfigError, Fault, TlsError};
pub use issue::{Issued, KeyKind, SubjectAltNames};
pub use outgoing::{Connector, OutgoingSession};
pub use overlap::{ClientAuthorities, ClientCaPolicy, ClientCaStep, SharedAuthority};
pub use provider::provider;
pub use session::{Received, TlsSession};
pub use settings::{Identity, Secret, Settings};
pub use source::Source;
pub use subject::Subject;
pub use tickets::SessionCaching;
pub use trust::AuthClients;

pub use rustls;

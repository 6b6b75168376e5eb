//! The internode channel: links between the nodes of a cluster, TLS and nothing else, both ends
//! known by certificates of an authority that the cluster has made for itself.
//!
//! - A node makes its own keys, one for each plane, and has them signed ([`NodeKey`],
//!   [`SigningAuthority`]); private keys never travel. What it needs is kept by a [`Store`].
//! - [`Node`] holds what is in force: certificates, whom to trust, the live links, the figures.
//!   All of it is swapped under live traffic: new handshakes use the new.
//! - [`Acceptor`] and [`Connector`] make a [`Link`] of a socket, or a [`Refusal`] with its reason.
//!   Each checks the other end against the cluster, the plane and the node that was meant.
//! - [`Frames`] is a link of the control plane as messages, for who implements [`ControlPlane`].
//! - What goes by the clock is arithmetic: [`RenewalPolicy`], [`Expiry`]; one authority takes the
//!   place of another by the steps of a [`Succession`].
//! - [`Links`] knows every live link; one whose peer is revoked ends at once, whatever it is doing.
//!
//! There is no way to have a link without all that: no plaintext, no resumed sessions, no setting
//! that would turn a check off.

mod acceptor;
mod ca;
mod connector;
mod counters;
mod credential;
mod frames;
mod hello;
mod issue;
mod links;
mod node;
mod peer;
mod policy;
mod refusal;
mod renewal;
mod rotation;
mod seal;
mod store;
mod succession;
#[cfg(test)]
mod tests;
mod verify;

use std::path::PathBuf;

pub use acceptor::Acceptor;
pub use ca::SigningAuthority;
pub use connector::Connector;
pub use counters::{Counters, Direction};
pub use credential::Credential;
pub use frames::{ControlPlane, FRAME_BYTES_FIRST, Frames};
pub use issue::{BACKDATED, Issued, NodeKey, Request};
pub use links::{DropReason, Link, LinkId, LinkInfo, Links, Signal};
pub use node::{Node, Settings};
pub use peer::{ClusterId, Identity, NodeUid, NotAnIdentity, Peer, Plane, Serial};
pub use policy::{
    AUTHORITIES_MAX, Authority, Expected, INTERNODE_PORT, Revocations, Trust, Versions,
    still_believes, suites,
};
pub use refusal::{Quoted, Refusal, RefusalKind};
pub use rotation::{Expiry, Lifetime, RenewalPolicy, RotationHealth};
pub use seal::SealKey;
pub use store::{Store, certificates_in};
pub use succession::{Duty, Phase, Report, Step, Succession, Waiting};

use crate::error::ConfigError;

/// Something that an operator, or the control plane, has to put right. Nothing has changed when one
/// is returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] ConfigError),

    #[error("{}: is there already", path.display())]
    Exists { path: PathBuf },

    #[error("{}: others can read it (mode {mode:04o}); it must be 0600", path.display())]
    Exposed { path: PathBuf, mode: u32 },

    #[error("{}: not a key file (64 hexadecimal digits)", path.display())]
    BadSealKey { path: PathBuf },

    #[error("{}: not a sealed file, or cut short", path.display())]
    NotSealed { path: PathBuf },

    #[error("{} does not open with the key in {}, or it has been changed", path.display(), key.display())]
    WrongSealKey { path: PathBuf, key: PathBuf },

    #[error("{}: {reason}", path.display())]
    BadFile { path: PathBuf, reason: String },

    #[error("not an authority of a cluster: {0}")]
    BadAuthority(String),

    #[error("the authority expired {0} seconds ago")]
    AuthorityExpired(i64),

    #[error("the signing request is refused: {0}")]
    BadRequest(String),

    #[error("the certificate cannot be used: {0}")]
    BadCertificate(String),

    #[error("the certificate is for {found}, not for {expected}")]
    NotOurs { found: Box<Identity>, expected: Box<Identity> },

    #[error("{0} is not a life for certificates: from 2 to 365 days")]
    Lifetime(u32),

    #[error(
        "certificates that live {life_days} days cannot be replaced {days} days before their end: \
         from 1 to 90 days, and less than they live"
    )]
    RotationDays { days: u32, life_days: u32 },
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::File(error.into())
    }
}

//! The certificates of a cluster by name: what each is for, the ones made here, the ones that
//! customers provide, and how they change under live traffic.
//!
//! - [`CertificateTable`] has them all, in memory for handshakes and in one file for the next start.
//!   It is complete and checked at any time; a change is made as a whole or not at all.
//! - [`Served`] is what listeners ask at each handshake: the next one shows what has been put there.
//! - [`Status`] is what is told of them; it has neither keys nor PEM.
//!
//! The leaves between nodes have names of this table too, but live in
//! [`internode`](crate::internode): each node has its own, and no interface returns them.

mod certificate;
mod error;
mod file;
mod name;
mod served;
mod status;
mod table;
#[cfg(test)]
mod tests;

pub use certificate::{Certificate, ManagedBy};
pub use error::CertificateError;
pub use name::{CertificateName, Kind};
pub use served::Served;
pub use status::Status;
pub use table::{CertificateTable, Names, Provided, Shared, renewal_of};
pub(crate) use table::{Signer, profile};

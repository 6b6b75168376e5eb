//! The authority for certificates between nodes, as the state keeps it.

use serde::{Deserialize, Serialize};

use super::Time;

/// One authority. Two of them are trusted while one takes the place of the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Authority {
    /// Its certificate, which nodes pin. No interface returns it.
    pub certificate: String,
    /// Its key, so that whichever node leads can sign.
    pub key: SealedKey,
    pub created: Time,
}

/// A private key under the cluster's key, which nodes are given when they join and which is in no log: so
/// the store of the control plane alone opens nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedKey(pub Vec<u8>);

/// Not a secret in itself, but nothing to print either.
impl std::fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedKey({} bytes)", self.0.len())
    }
}

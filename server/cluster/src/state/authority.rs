//! The authority for certificates between nodes, as the state keeps it, and how another takes its place.

use std::collections::BTreeMap;

use carnelian_tls::internode::{Report, Succession};
use serde::{Deserialize, Serialize};

use super::{ActionId, NodeUid, State, Time};

/// What to call the authority where certificates are called by name. It is none of those that nodes show.
pub const AUTHORITY_NAME: &str = "internode_ca";

/// One authority. Two of them are trusted while one takes the place of the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Authority {
    /// SHA-256 of its certificate in hexadecimal: what to call it.
    pub fingerprint: String,
    /// Its certificate, which nodes pin. No interface returns it.
    pub certificate: String,
    /// Its key, so that whichever node leads can sign.
    pub key: SealedKey,
    pub created: Time,
}

/// How far the change from one authority to another is. The last report that is needed for a step makes that
/// step, so that it does not matter who leads, or who led when it began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replacement {
    pub succession: Succession,
    /// What each node trusts and shows, as far as it has said.
    pub reports: BTreeMap<NodeUid, Report>,
    /// To be over with it.
    pub action: ActionId,
}

impl State {
    /// The authorities to trust between nodes: one, or two while nobody may be sure that the others have changed.
    pub fn trusted_authorities(&self) -> Vec<&Authority> {
        let trusted = self.replacement.as_ref().map(|it| it.succession.trusted());
        let is_trusted = |authority: &&Authority| {
            trusted.as_ref().is_none_or(|trusted| trusted.contains(&authority.fingerprint))
        };
        self.authorities.iter().filter(is_trusted).collect()
    }

    /// The same, for a node that trusts whom a state of this revision named. Nothing if this is an earlier one, as it
    /// may be for a while after a start: such a node would refuse those who show certificates of a newer authority,
    /// and so never hear of the state that has it.
    pub fn trusted_since(&self, revision: u64) -> Option<Vec<&Authority>> {
        (revision <= self.revision).then(|| self.trusted_authorities())
    }

    /// The authority that signs now.
    pub fn signing_authority(&self) -> Option<&Authority> {
        match &self.replacement {
            Some(replacement) => self.authority(replacement.succession.signer()),
            None => self.authorities.first(),
        }
    }

    fn authority(&self, fingerprint: &str) -> Option<&Authority> {
        self.authorities.iter().find(|it| it.fingerprint == fingerprint)
    }
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

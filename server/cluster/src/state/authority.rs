//! The authorities as the state keeps them: the one for certificates between nodes, and how another takes its
//! place; and the one that clients know the nodes by, with the one that follows it.

use std::collections::BTreeMap;

use carnelian_tls::internode::{Report, Succession};
use carnelian_tls::rustls::pki_types::CertificateDer;
use carnelian_tls::rustls::pki_types::pem::PemObject;
use carnelian_tls::{CertificateInfo, ClientTrust, ConfigError};
use serde::{Deserialize, Serialize};

use super::{ActionId, NodeUid, State, Time};

/// What to call the authority where certificates are called by name. It is none of those that nodes show.
pub const AUTHORITY_NAME: &str = "internode_ca";

/// The same for the authority of what clients are shown.
pub const CLIENT_AUTHORITY_NAME: &str = "client_ca";

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

/// The authorities that clients know the nodes by. While there are two, clients are told of both, so that they
/// come to know the successor before it signs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientAuthorities {
    /// The oldest first. None before whoever leads has given the cluster its own.
    pub listed: Vec<Authority>,
    /// The successor signs.
    pub is_switched: bool,
    /// An operator does not wait for the end of the first: it goes as soon as no node shows anything of it.
    pub is_completing: bool,
}

impl ClientAuthorities {
    /// The one that signs.
    pub fn signer(&self) -> Option<&Authority> {
        self.listed.get(usize::from(self.is_switched))
    }

    /// What everybody may know of them; none while there are none.
    pub fn trust(&self) -> Option<Result<ClientTrust, ConfigError>> {
        let texts: Vec<&str> = self.listed.iter().map(|it| it.certificate.as_str()).collect();
        self.signer().map(|_| ClientTrust::new(&texts, usize::from(self.is_switched)))
    }
}

impl State {
    /// Whether no node that is there shows anything to clients that the first of two authorities has signed.
    pub fn is_first_client_authority_unused(&self) -> bool {
        let Some(first) = self.client_authorities.listed.first() else { return false };
        let info = CertificateDer::from_pem_slice(first.certificate.as_bytes()).ok();
        let info = info.and_then(|it| CertificateInfo::of(&it).ok());
        let Some(info) = info else { return false };
        let is_there = |node: &NodeUid| {
            self.nodes.get(node).is_some_and(|it| it.status != super::NodeStatus::Down)
        };
        !self.certificates.iter().any(|it| {
            it.managed_by == super::ManagedBy::ClientCa
                && it.issuer == info.subject
                && is_there(&it.node_uid)
        })
    }

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

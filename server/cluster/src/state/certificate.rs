//! Certificates in use, without their keys.

use carnelian_tls::certificates::{CertificateName, ManagedBy};
use serde::{Deserialize, Serialize};

use super::authority::SealedKey;
use super::{NodeUid, Time};

/// A certificate that a node uses, as that node reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    pub name: CertificateName,
    pub node_uid: NodeUid,
    pub managed_by: ManagedBy,
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    pub sha256: String,
    pub key_type: String,
    pub not_before: Time,
    pub not_after: Time,
    /// Why the last attempt to renew it failed, if it did.
    pub failure: Option<String>,
}

/// A certificate that is the same on all nodes: made by the cluster, or provided by the customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedCertificate {
    /// PEM, the leaf first.
    pub certificate: String,
    pub key: Option<SealedKey>,
    pub managed_by: ManagedBy,
    pub not_after: Time,
    pub changed: Time,
}

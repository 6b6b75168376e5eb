//! Certificates in use, without their keys.

use serde::{Deserialize, Serialize};

use super::authority::SealedKey;
use super::{NodeUid, Time};

/// The names of the certificates that exist.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateName {
    Api,
    Cm,
    Proxy,
    MetricsExporter,
    Syncer,
    CcsInternodeEncryption,
    DataInternodeEncryption,
    MtlsTrustedCa,
    LdapClient,
    SsoService,
    SsoIssuer,
}

impl CertificateName {
    pub const ALL: [Self; 11] = [
        Self::Api,
        Self::Cm,
        Self::Proxy,
        Self::MetricsExporter,
        Self::Syncer,
        Self::CcsInternodeEncryption,
        Self::DataInternodeEncryption,
        Self::MtlsTrustedCa,
        Self::LdapClient,
        Self::SsoService,
        Self::SsoIssuer,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Cm => "cm",
            Self::Proxy => "proxy",
            Self::MetricsExporter => "metrics_exporter",
            Self::Syncer => "syncer",
            Self::CcsInternodeEncryption => "ccs_internode_encryption",
            Self::DataInternodeEncryption => "data_internode_encryption",
            Self::MtlsTrustedCa => "mtls_trusted_ca",
            Self::LdapClient => "ldap_client",
            Self::SsoService => "sso_service",
            Self::SsoIssuer => "sso_issuer",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Between nodes: signed by the cluster's own authority, one leaf for each node.
    pub const fn is_internal(self) -> bool {
        matches!(self, Self::CcsInternodeEncryption | Self::DataInternodeEncryption)
    }

    /// May be deleted.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::MtlsTrustedCa | Self::LdapClient | Self::SsoService | Self::SsoIssuer)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManagedBy {
    Cluster,
    Customer,
    ClientCa,
}

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

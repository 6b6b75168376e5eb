//! The names of a cluster's certificates, as operators know them from Redis Enterprise.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::CertificateError;

/// A certificate of the cluster, by its use.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateName {
    /// The REST interface.
    Api,
    /// The web console.
    Cm,
    /// What clients of databases see.
    Proxy,
    MetricsExporter,
    /// What this cluster shows to those it replicates from.
    Syncer,
    /// Between nodes, for the control plane.
    CcsInternodeEncryption,
    /// Between nodes, for the data plane.
    DataInternodeEncryption,
    /// Who vouches for the clients of the REST interface.
    MtlsTrustedCa,
    LdapClient,
    SsoService,
    SsoIssuer,
}

/// Where a certificate comes from and whether there has to be one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Made by the cluster, until a customer provides another.
    Required,
    /// Provided by the customer, and removable.
    Optional,
    /// Made by the cluster's own authority for nodes, one for each of them.
    Internal,
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

    pub const fn as_str(self) -> &'static str {
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

    pub const fn kind(self) -> Kind {
        match self {
            Self::Api | Self::Cm | Self::Proxy | Self::MetricsExporter | Self::Syncer => {
                Kind::Required
            }
            Self::CcsInternodeEncryption | Self::DataInternodeEncryption => Kind::Internal,
            Self::MtlsTrustedCa | Self::LdapClient | Self::SsoService | Self::SsoIssuer => {
                Kind::Optional
            }
        }
    }

    /// One leaf for each node, shown to other nodes.
    pub fn is_internal(self) -> bool {
        self.kind() == Kind::Internal
    }

    /// Who is at the other end.
    pub const fn plane(self) -> &'static str {
        match self {
            Self::Api | Self::MtlsTrustedCa => "api",
            Self::Cm => "console",
            Self::Proxy => "client",
            Self::MetricsExporter => "metrics",
            Self::Syncer => "syncer",
            Self::CcsInternodeEncryption => "control",
            Self::DataInternodeEncryption => "data",
            Self::LdapClient => "ldap",
            Self::SsoService | Self::SsoIssuer => "sso",
        }
    }

    /// Whether a key belongs to it: the certificates of others have none here.
    pub const fn has_key(self) -> bool {
        !matches!(self, Self::MtlsTrustedCa | Self::SsoIssuer)
    }

    /// The name of the file that has its public part.
    pub fn file(self) -> String {
        format!("{self}_cert.pem")
    }

    /// The extended key usages it cannot do without: for a server, for a client.
    pub(super) const fn usages(self) -> (bool, bool) {
        match self.kind() {
            Kind::Required | Kind::Internal => (true, true),
            Kind::Optional => (false, matches!(self, Self::LdapClient)),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CertificateName {
    type Err = CertificateError;

    fn from_str(text: &str) -> Result<Self, CertificateError> {
        let found = Self::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| CertificateError::unknown(text))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in CertificateName::ALL {
            assert_eq!(name.as_str().parse::<CertificateName>().unwrap(), name);
            // In documents too.
            let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
                name.as_str().into_deserializer();
            assert_eq!(CertificateName::deserialize(text).unwrap(), name);
        }
        let error = "API\u{1b}[0m".parse::<CertificateName>().unwrap_err();
        assert_eq!(error.code(), "unknown_certificate");
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
        let long = "x".repeat(10_000).parse::<CertificateName>().unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn what_may_go_is_neither_made_here_nor_between_nodes() {
        let of = |kind| CertificateName::ALL.into_iter().filter(|name| name.kind() == kind).count();
        assert_eq!([Kind::Required, Kind::Internal, Kind::Optional].map(of), [5, 2, 4]);
    }
}

//! Why a change of certificates is refused, in the words and the codes of the REST interface.

use super::CertificateName;
use crate::error::ConfigError;

/// Nothing has changed when one is returned.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{name}: {reason}")]
    Invalid { name: CertificateName, reason: String },

    #[error("{name}: the certificate expired {ago_s} seconds ago")]
    Expired { name: CertificateName, ago_s: i64 },

    #[error("there is no certificate named '{0}'")]
    Unknown(String),

    /// Somebody wants to provide one.
    #[error("{0} certificates are the cluster's own and made by its private authority")]
    Internal(CertificateName),

    #[error("{0} is required and cannot be removed")]
    Required(CertificateName),

    #[error("{0} is not set")]
    NotSet(CertificateName),

    #[error("{0} is named twice")]
    Twice(CertificateName),

    #[error(transparent)]
    Store(#[from] ConfigError),
}

impl CertificateError {
    /// `name` comes from outside: what of it can be shown.
    pub(super) fn unknown(name: &str) -> Self {
        let shown = name.chars().filter(|letter| letter.is_ascii_graphic()).take(64);
        Self::Unknown(shown.collect())
    }

    /// What to answer with.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } | Self::Twice(_) => "invalid_certificate",
            Self::Expired { .. } => "certificate_expired",
            Self::Unknown(_) | Self::Internal(_) => "unknown_certificate",
            Self::Required(_) => "required_certificate",
            Self::NotSet(_) => "certificate_not_found",
            Self::Store(_) => "internal_error",
        }
    }
}

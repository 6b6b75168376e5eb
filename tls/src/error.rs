//! What can go wrong, by whose fault it is: [`ConfigError`] is the operator's (a file, a setting),
//! [`TlsError`] is a connection's, and says through [`TlsError::fault`] whether the peer caused it.
//!
//! Each text is written to be logged or answered as it stands: it names the file or the directive.

use std::io;
use std::path::PathBuf;

use rustls::AlertDescription;

/// A setting or file that cannot be used. Nothing has changed when one is returned.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("{}: cannot write: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },

    #[error("{}: damaged PEM: {reason}", path.display())]
    BadPem { path: PathBuf, reason: String },

    #[error("{}: no certificate in it (expected PEM, BEGIN CERTIFICATE)", path.display())]
    NoCertificate { path: PathBuf },

    #[error("{}: not a usable certificate: {reason}", path.display())]
    BadCertificate { path: PathBuf, reason: String },

    #[error("{}: no private key in it (expected PEM, BEGIN PRIVATE KEY or the like)", path.display())]
    NoPrivateKey { path: PathBuf },

    #[error("{}: not a usable private key: {reason}", path.display())]
    BadPrivateKey { path: PathBuf, reason: String },

    #[error("{}: the private key is encrypted and tls-key-file-pass is not set", path.display())]
    KeyNeedsPassword { path: PathBuf },

    #[error("{}: the private key does not open with this tls-key-file-pass", path.display())]
    WrongKeyPassword { path: PathBuf },

    #[error("{} and {} do not belong together: the key is not the certificate's", certificate.display(), key.display())]
    KeyMismatch { certificate: PathBuf, key: PathBuf },

    #[error(
        "{} is there but {} is missing: restore it, or remove the first to start with a new one",
        present.display(), missing.display()
    )]
    HalfAnAuthority { present: PathBuf, missing: PathBuf },

    #[error(
        "{} is missing, and what a cluster has signed does not serve ({reason}): \
         restore it, or remove {} to start with a new one",
        missing.display(), present.display()
    )]
    NotSigned { present: PathBuf, missing: PathBuf, reason: String },

    #[error(
        "either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-auth-clients is \
         not 'no'"
    )]
    NothingToTrust,

    #[error("tls-replication needs tls-ca-cert-file or tls-ca-cert-dir to know masters by")]
    NothingToTrustPrimaries,

    #[error("{}: no certificate authority in it", path.display())]
    NoAuthorities { path: PathBuf },

    #[error("tls-protocols: {0}")]
    Protocols(String),

    #[error("tls-ciphers: {0}")]
    Ciphers(String),

    #[error("tls-ciphersuites: {0}")]
    Ciphersuites(String),

    #[error("the client CA has a successor already")]
    SuccessorExists,

    #[error("the request to the client CA cannot be granted: {0}")]
    BadRequest(String),

    #[error("'{0}' is neither a host name nor an IP address")]
    BadName(String),

    #[error("issuing a certificate: {0}")]
    Issue(#[from] rcgen::Error),

    #[error("the TLS engine refused the configuration: {0}")]
    Engine(#[from] rustls::Error),

    #[error("no random numbers from the operating system")]
    NoRandomness,
}

/// Who has to do something about an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The other side: worth a line at a low log level, the connection is closed.
    Peer,
    /// This process: a bug or an exhausted resource.
    Ours,
}

/// The end of a connection. An alert for the peer, where one is due, is already in the outgoing
/// bytes when this is returned.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    #[error("not TLS, or damaged: {0}")]
    Malformed(rustls::Error),

    #[error("nothing in common with the peer: {0}")]
    Incompatible(rustls::Error),

    #[error("peer offers {0} at best, which is no longer supported")]
    OldProtocol(&'static str),

    #[error("peer did not return a certificate")]
    NoCertificate,

    #[error("peer's certificate refused: {}", certificate_words(.0))]
    Certificate(rustls::Error),

    #[error("peer ended the connection with the alert {0:?}")]
    Alert(AlertDescription),

    #[error("peer broke the protocol: {0}")]
    Misbehaved(rustls::Error),

    #[error("handshake of more than {limit_bytes} bytes")]
    HandshakeTooLarge { limit_bytes: usize },

    #[error("the connection has ended")]
    Closed,

    #[error("the handshake has not finished")]
    NotReady,

    #[error("the keys of this connection are used up")]
    KeysExhausted,

    #[error("TLS engine: {0}")]
    Engine(rustls::Error),
}

impl TlsError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Closed | Self::NotReady | Self::KeysExhausted | Self::Engine(_) => Fault::Ours,
            _ => Fault::Peer,
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidMessage(_) | E::PeerSentOversizedRecord => Self::Malformed(error),
            E::PeerIncompatible(_) | E::NoApplicationProtocol => Self::Incompatible(error),
            E::NoCertificatesPresented => Self::NoCertificate,
            E::InvalidCertificate(_) | E::InvalidCertRevocationList(_) => Self::Certificate(error),
            E::AlertReceived(alert) => Self::Alert(alert),
            E::InappropriateMessage { .. }
            | E::InappropriateHandshakeMessage { .. }
            | E::PeerMisbehaved(_)
            | E::DecryptError => Self::Misbehaved(error),
            _ => Self::Engine(error),
        }
    }
}

/// The engine's errors about certificates print as its types are written.
fn certificate_words(error: &rustls::Error) -> String {
    use rustls::CertificateError as E;
    let rustls::Error::InvalidCertificate(error) = error else { return error.to_string() };
    match error {
        E::UnknownIssuer => "no trusted authority signed it".into(),
        E::BadSignature => "its signature is wrong".into(),
        E::BadEncoding => "it is damaged".into(),
        E::Expired | E::ExpiredContext { .. } => "it has expired".into(),
        E::NotValidYet | E::NotValidYetContext { .. } => "it is not valid yet".into(),
        E::Revoked => "it has been revoked".into(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "its extended key usage does not allow this use".into()
        }
        E::Other(other) => other.0.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_blamed_for_what_it_sent_and_only_for_that() {
        let garbage = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(TlsError::from(garbage).fault(), Fault::Peer);
        assert_eq!(TlsError::from(rustls::Error::FailedToGetRandomBytes).fault(), Fault::Ours);
    }
}

//! Why a link did not come about: one reason for each thing that can be wrong, and the kinds by
//! which they are counted. Every text can be logged as it stands: what a peer sent is cut and
//! escaped in it, and nothing of a private key is in any.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, OtherError, PeerIncompatible};

use super::peer::{ClusterId, NodeUid, Plane, Serial};

/// No more than this of what a peer sent is repeated.
const QUOTED_CHARS_MAX: usize = 80;

/// A refusal, by this node or by the other end, with its evidence.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    // What came before any TLS.
    #[error("not TLS but {0}; this port takes nothing else")]
    NotTls(&'static str),
    #[error("the connection ended in the middle of the handshake")]
    Ended,
    #[error("the handshake was not finished within {limit:?}")]
    TooSlow { limit: Duration },
    #[error("more than {limit} handshakes are going on")]
    Busy { limit: usize },
    #[error("a record of {bytes} bytes, more than TLS allows")]
    OversizeRecord { bytes: usize },
    #[error("a greeting of more than {limit} bytes")]
    OversizeHello { limit: usize },
    #[error("damaged TLS: {0}")]
    Malformed(String),

    // What the greeting asks for.
    #[error("offers {0} at best; TLS 1.2 or 1.3 is required")]
    OldVersion(&'static str),
    #[error("offers none of the versions of TLS that are in use here")]
    VersionNotInUse,
    #[error("offers none of the cipher suites of this channel")]
    NoCommonSuite,
    #[error("nothing in common: {0}")]
    Incompatible(String),
    #[error("does not say which plane it wants (no ALPN)")]
    NoPlane,
    #[error("wants {0}, which is no plane (ALPN)")]
    UnknownPlane(Quoted),
    #[error("asks for several protocols at once (ALPN)")]
    SeveralPlanes,
    #[error("does not say which node it wants (no server name)")]
    NoServerName,
    #[error("wants {wanted} and has reached node {here}")]
    MeantForAnother { wanted: Quoted, here: NodeUid },
    #[error("tries to resume a session; every link is authenticated anew")]
    Resumption,
    #[error("sends early data, which could be replayed")]
    EarlyData,
    #[error("tries to renegotiate")]
    Renegotiation,

    // The certificate.
    #[error("showed no certificate")]
    NoCertificate,
    #[error("showed {count} certificates; the cluster's authority signs a node's itself")]
    Chain { count: usize },
    #[error("its certificate has {bytes} bytes, more than any of ours")]
    OversizeCertificate { bytes: usize },
    #[error("its certificate is damaged: {0}")]
    BadCertificate(String),
    #[error("its certificate is of X.509 version {0}, not 3")]
    CertificateVersion(u32),
    #[error("its certificate comes from {0}, which is no authority of this cluster")]
    UnknownAuthority(Quoted),
    #[error("its certificate's signature is not this cluster's authority's, whose name it bears")]
    BadSignature,
    #[error("its certificate is signed with {0}, not with RSA and SHA-256, SHA-384 or SHA-512")]
    SignatureAlgorithm(String),
    #[error("its certificate's key has {bits} bits, fewer than 2048")]
    WeakKey { bits: usize },
    #[error("its certificate's key has {bits} bits, more than 8192")]
    OversizeKey { bits: usize },
    #[error("its certificate's key is not an RSA key")]
    KeyKind,
    #[error("its certificate expired {ago_s} seconds ago")]
    Expired { ago_s: i64 },
    #[error("its certificate becomes valid in {in_s} seconds; are the clocks right?")]
    NotYetValid { in_s: i64 },
    #[error("its certificate is an authority's, not a node's")]
    Authority,
    #[error("its certificate is not for signing handshakes (key usage)")]
    KeyUsage,
    #[error("its certificate is not {0} (extended key usage)")]
    ExtendedKeyUsage(&'static str),
    #[error("its certificate names no node (no subject alternative name)")]
    NoIdentity,
    #[error("its certificate has {count} names; a node's has one")]
    SeveralNames { count: usize },
    #[error("its certificate is for {name}, which is no node's name: {reason}")]
    BadIdentity { name: Quoted, reason: &'static str },
    #[error("its certificate is of the cluster {found}, not of {expected}")]
    WrongCluster { found: ClusterId, expected: ClusterId },
    #[error("its certificate is node {found}'s, not node {expected}'s")]
    WrongNode { found: NodeUid, expected: NodeUid },
    #[error("its certificate is for the {found} plane, not for the {expected} plane")]
    WrongPlane { found: Plane, expected: Plane },
    #[error("its certificate (serial {0}) has been revoked")]
    RevokedCertificate(Serial),
    #[error("node {0} has been revoked")]
    RevokedNode(NodeUid),
    #[error("its signature of the handshake is wrong: it does not hold the certificate's key")]
    NotItsKey,

    // The rest.
    #[error("the other end refused: {0}")]
    ByPeer(&'static str),
    #[error("broke the protocol: {0}")]
    Misbehaved(String),
    #[error("cannot be reached: {0}")]
    Unreachable(io::ErrorKind),
    #[error("connection lost: {0}")]
    Lost(io::ErrorKind),
    #[error("this node's own certificates cannot be used: {0}")]
    Ours(String),
}

/// What refusals are counted by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusalKind {
    NotTls,
    Slow,
    Busy,
    Malformed,
    Version,
    Suite,
    Greeting,
    Resumption,
    Renegotiation,
    NoCertificate,
    Chain,
    BadCertificate,
    Authority,
    WeakCertificate,
    Expired,
    NotYetValid,
    Usage,
    Identity,
    Cluster,
    Node,
    Plane,
    Revoked,
    ByPeer,
    Protocol,
    Lost,
    Ours,
}

impl RefusalKind {
    pub const ALL: [Self; 26] = [
        Self::NotTls,
        Self::Slow,
        Self::Busy,
        Self::Malformed,
        Self::Version,
        Self::Suite,
        Self::Greeting,
        Self::Resumption,
        Self::Renegotiation,
        Self::NoCertificate,
        Self::Chain,
        Self::BadCertificate,
        Self::Authority,
        Self::WeakCertificate,
        Self::Expired,
        Self::NotYetValid,
        Self::Usage,
        Self::Identity,
        Self::Cluster,
        Self::Node,
        Self::Plane,
        Self::Revoked,
        Self::ByPeer,
        Self::Protocol,
        Self::Lost,
        Self::Ours,
    ];

    /// The word for it in the names of figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Slow => "slow",
            Self::Busy => "busy",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Suite => "suite",
            Self::Greeting => "greeting",
            Self::Resumption => "resumption",
            Self::Renegotiation => "renegotiation",
            Self::NoCertificate => "no_certificate",
            Self::Chain => "chain",
            Self::BadCertificate => "bad_certificate",
            Self::Authority => "authority",
            Self::WeakCertificate => "weak_certificate",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Usage => "usage",
            Self::Identity => "identity",
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Plane => "plane",
            Self::Revoked => "revoked",
            Self::ByPeer => "by_peer",
            Self::Protocol => "protocol",
            Self::Lost => "lost",
            Self::Ours => "ours",
        }
    }
}

impl Refusal {
    pub fn kind(&self) -> RefusalKind {
        use RefusalKind as Kind;
        match self {
            Self::NotTls(_) => Kind::NotTls,
            Self::TooSlow { .. } => Kind::Slow,
            Self::Busy { .. } => Kind::Busy,
            Self::OversizeRecord { .. } | Self::OversizeHello { .. } | Self::Malformed(_) => {
                Kind::Malformed
            }
            Self::OldVersion(_) | Self::VersionNotInUse => Kind::Version,
            Self::NoCommonSuite | Self::Incompatible(_) => Kind::Suite,
            Self::NoPlane
            | Self::UnknownPlane(_)
            | Self::SeveralPlanes
            | Self::NoServerName
            | Self::MeantForAnother { .. } => Kind::Greeting,
            Self::Resumption | Self::EarlyData => Kind::Resumption,
            Self::Renegotiation => Kind::Renegotiation,
            Self::NoCertificate => Kind::NoCertificate,
            Self::Chain { .. } => Kind::Chain,
            Self::OversizeCertificate { .. }
            | Self::BadCertificate(_)
            | Self::CertificateVersion(_) => Kind::BadCertificate,
            Self::UnknownAuthority(_) | Self::BadSignature => Kind::Authority,
            Self::SignatureAlgorithm(_)
            | Self::WeakKey { .. }
            | Self::OversizeKey { .. }
            | Self::KeyKind => Kind::WeakCertificate,
            Self::Expired { .. } => Kind::Expired,
            Self::NotYetValid { .. } => Kind::NotYetValid,
            Self::Authority | Self::KeyUsage | Self::ExtendedKeyUsage(_) => Kind::Usage,
            Self::NoIdentity | Self::SeveralNames { .. } | Self::BadIdentity { .. } => {
                Kind::Identity
            }
            Self::WrongCluster { .. } => Kind::Cluster,
            Self::WrongNode { .. } => Kind::Node,
            Self::WrongPlane { .. } => Kind::Plane,
            Self::RevokedCertificate(_) | Self::RevokedNode(_) => Kind::Revoked,
            Self::ByPeer(_) => Kind::ByPeer,
            Self::NotItsKey | Self::Misbehaved(_) => Kind::Protocol,
            Self::Unreachable(_) | Self::Ended | Self::Lost(_) => Kind::Lost,
            Self::Ours(_) => Kind::Ours,
        }
    }

    /// The alert for a refusal before there is anything to encrypt with. Who does not speak TLS
    /// gets no answer.
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        use AlertDescription as Alert;
        Some(match self {
            Self::Malformed(_) => Alert::DecodeError,
            Self::OversizeRecord { .. } | Self::OversizeHello { .. } => Alert::RecordOverflow,
            Self::OldVersion(_) | Self::VersionNotInUse => Alert::ProtocolVersion,
            Self::NoCommonSuite => Alert::HandshakeFailure,
            Self::NoPlane | Self::UnknownPlane(_) | Self::SeveralPlanes => {
                Alert::NoApplicationProtocol
            }
            Self::NoServerName | Self::MeantForAnother { .. } => Alert::UnrecognisedName,
            Self::Resumption | Self::EarlyData | Self::Renegotiation => Alert::IllegalParameter,
            Self::Misbehaved(_) => Alert::UnexpectedMessage,
            _ => return None,
        })
    }

    /// What the engine made of a handshake that failed, where none of our own checks said it first.
    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::of_engine(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Ended,
            None => Self::Lost(error.kind()),
        }
    }

    pub(super) fn of_engine(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(CertificateError::BadSignature) => Self::NotItsKey,
            Error::InvalidCertificate(other) => Self::BadCertificate(other.to_string()),
            Error::AlertReceived(alert) => Self::ByPeer(alert_words(*alert)),
            Error::NoApplicationProtocol => Self::NoPlane,
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
                Self::NoCommonSuite
            }
            Error::PeerIncompatible(other) => Self::Incompatible(format!("{other:?}")),
            Error::InvalidMessage(_) => Self::Malformed(error.to_string()),
            Error::PeerSentOversizedRecord => Self::Malformed("an oversize record".into()),
            Error::FailedToGetRandomBytes
            | Error::FailedToGetCurrentTime
            | Error::General(_)
            | Error::EncryptError => Self::Ours(error.to_string()),
            _ => Self::Misbehaved(error.to_string()),
        }
    }

    /// For the engine, which picks the alert by it. The peer learns no more than that.
    pub(super) fn to_engine(&self) -> Error {
        use CertificateError as E;
        Error::InvalidCertificate(match self {
            Self::UnknownAuthority(_) => E::UnknownIssuer,
            Self::BadSignature => E::UnknownIssuer,
            Self::Expired { .. } => E::Expired,
            Self::NotYetValid { .. } => E::NotValidYet,
            Self::RevokedCertificate(_) | Self::RevokedNode(_) => E::Revoked,
            Self::Authority | Self::KeyUsage | Self::ExtendedKeyUsage(_) => E::InvalidPurpose,
            Self::WrongCluster { .. } | Self::WrongNode { .. } | Self::WrongPlane { .. } => {
                E::ApplicationVerificationFailure
            }
            other => E::Other(OtherError(Arc::new(other.clone()))),
        })
    }
}

/// What the other end says with an alert.
fn alert_words(alert: AlertDescription) -> &'static str {
    use AlertDescription as Alert;
    match alert {
        Alert::ProtocolVersion => "none of our versions of TLS",
        Alert::HandshakeFailure | Alert::InsufficientSecurity => "nothing in common",
        Alert::NoApplicationProtocol => "it does not serve this plane",
        Alert::UnrecognisedName => "it is another node",
        Alert::CertificateRequired | Alert::NoCertificate => "it requires a certificate",
        Alert::UnknownCA => "it does not know the authority of our certificate",
        Alert::CertificateExpired => "our certificate is not valid at this time",
        Alert::CertificateRevoked => "our certificate has been revoked",
        Alert::AccessDenied => "our certificate is not of the cluster, node or plane it expects",
        Alert::UnsupportedCertificate => "our certificate is not for this use",
        Alert::BadCertificate | Alert::CertificateUnknown => "it does not take our certificate",
        Alert::DecryptError => "our signature is wrong",
        Alert::DecodeError => "it cannot read what we sent",
        Alert::InternalError => "an error of its own",
        Alert::NoRenegotiation => "no renegotiation",
        Alert::CloseNotify => "it has closed the link",
        _ => "an alert without further words",
    }
}

/// Something a peer sent, cut and escaped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quoted(String);

impl Quoted {
    pub(super) fn text(text: &str) -> Self {
        let cut = text.chars().take(QUOTED_CHARS_MAX);
        let mut quoted: String = "'".into();
        // Everything beyond ASCII is escaped: nothing of another script may look like ours in a log.
        quoted.extend(cut.flat_map(char::escape_default));
        if QUOTED_CHARS_MAX < text.chars().count() {
            quoted.push_str("...");
        }
        quoted.push('\'');
        Self(quoted)
    }

    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::text(&String::from_utf8_lossy(bytes))
    }

    /// Without the quotes, for words that are a library's and may hold some of the peer's.
    pub(super) fn unquoted(self) -> String {
        self.0.trim_matches('\'').to_owned()
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

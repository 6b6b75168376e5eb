//! What an operator says about TLS towards clients, typed. The server turns its directives into
//! this; nothing here knows their defaults but those that mean "not set".

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::certificates::Certificate;
use crate::issue::SubjectAltNames;
use crate::tickets::SessionCaching;
use crate::trust::AuthClients;

/// Everything an [`Acceptor`](crate::Acceptor) is built from.
#[derive(Clone, Debug)]
pub struct Settings {
    pub identity: Identity,
    /// `tls-auth-clients`.
    pub auth_clients: AuthClients,
    /// `tls-ca-cert-file`.
    pub ca_cert_file: Option<PathBuf>,
    /// `tls-ca-cert-dir`.
    pub ca_cert_dir: Option<PathBuf>,
    /// `tls-protocols`: `TLSv1.2 TLSv1.3`; empty is both.
    pub protocols: String,
    /// `tls-ciphers`: an OpenSSL cipher list, for TLS 1.2; empty is all.
    pub ciphers: String,
    /// `tls-ciphersuites`: for TLS 1.3; empty is all.
    pub ciphersuites: String,
    /// `tls-prefer-server-ciphers`.
    pub prefer_server_ciphers: bool,
    /// `tls-session-caching`, `tls-session-cache-size`, `tls-session-cache-timeout`.
    pub session_caching: SessionCaching,
}

impl Settings {
    /// All else unset: both protocols, all ciphers, sessions resumed, no client certificates.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            auth_clients: AuthClients::No,
            ca_cert_file: None,
            ca_cert_dir: None,
            protocols: String::new(),
            ciphers: String::new(),
            ciphersuites: String::new(),
            prefer_server_ciphers: false,
            session_caching: SessionCaching::default(),
        }
    }
}

/// Whose certificate clients are shown.
#[derive(Clone, Debug)]
pub enum Identity {
    /// One of the server's own making, signed by the client CA in `folder`, for these names.
    SelfMade { folder: PathBuf, names: SubjectAltNames },
    /// One of the cluster's table.
    Given(Arc<Certificate>),
    /// The operator's: `tls-cert-file` (leaf first, then what leads to its root), `tls-key-file`
    /// and `tls-key-file-pass`.
    Files { certificate: PathBuf, key: PathBuf, key_password: Option<Secret> },
}

/// A password, kept out of debug output.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_printed() {
        let identity = Identity::Files {
            certificate: "a.pem".into(),
            key: "a.key".into(),
            key_password: Some(Secret::new("hunter2")),
        };
        assert!(!format!("{:?}", Settings::new(identity)).contains("hunter2"));
    }
}

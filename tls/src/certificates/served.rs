//! What a listener shows: the certificate of a name, as it is at each handshake.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::table::Entries;
use super::{Certificate, CertificateName};

/// One name of the table, for the engine of a listener. Which name the client asked for plays no
/// part: they reach servers under all kinds of names.
pub struct Served {
    name: CertificateName,
    entries: Arc<ArcSwap<Entries>>,
}

impl Served {
    pub(super) fn new(name: CertificateName, entries: Arc<ArcSwap<Entries>>) -> Arc<Self> {
        Arc::new(Self { name, entries })
    }

    pub fn name(&self) -> CertificateName {
        self.name
    }

    /// What is shown now.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.entries.load().get(&self.name).cloned()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.entries.load().get(&self.name)?.certified().cloned()
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Served").field(&self.name).finish()
    }
}

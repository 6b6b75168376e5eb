//! Making one of a node's certificates anew: a new key, a request that leaves the node, and the
//! certificate that comes back. The key waits on the disk meanwhile, so that a crash at any point
//! leaves the old certificate in force or the new one, and never one without its key.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::Error;
use super::issue::NodeKey;
use super::node::Node;
use super::peer::{Plane, Serial};
use super::rotation::RenewalPolicy;
use super::store::Store;
use crate::issue::seconds;

impl Node {
    /// The planes whose certificate it is time to replace.
    pub fn due(&self, policy: RenewalPolicy, now: SystemTime) -> Vec<Plane> {
        let now_s = seconds(now);
        let is_due = |plane: &Plane| policy.is_due(&self.credential(*plane), now_s);
        Plane::ALL.into_iter().filter(is_due).collect()
    }

    /// Makes a key and returns the request to have it signed, as PEM. A key whose request was not
    /// answered before is forgotten.
    pub fn begin_renewal(&self, store: &Store, plane: Plane) -> Result<String, Error> {
        let key = NodeKey::generate()?;
        let request = key.request(self.identity(plane))?;
        store.save_pending_key(plane, &key)?;
        Ok(request)
    }

    /// Takes the answer to [`begin_renewal`](Self::begin_renewal): from the next handshake on the
    /// new certificate is shown. Returns the number of the one before, whose links are
    /// [outdated](super::Links::outdated) now. The same answer may come twice.
    pub fn finish_renewal(
        &self,
        store: &Store,
        plane: Plane,
        certificate: CertificateDer<'static>,
    ) -> Result<Serial, Error> {
        let before = self.credential(plane);
        if *before.certificate() == certificate {
            return Ok(before.serial().clone());
        }
        let Some(key) = store.pending_key(plane)? else {
            return Err(Error::BadCertificate("nothing was asked for".into()));
        };
        let credential = key.certified(certificate)?;
        if credential.identity().plane != plane {
            return Err(Error::BadCertificate("it is for the other plane".into()));
        }
        self.check(&credential)?;
        // On the disk first: a node that starts again shows what it showed before.
        store.save_credential(&credential)?;
        self.install(credential)?;
        Ok(before.serial().clone())
    }
}

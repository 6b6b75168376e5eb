//! Keys and certificates between nodes: the authority that signs, what a joining node is given, and what it
//! makes itself.
//!
//! The authority's key is in the state, sealed, so that whichever node leads can sign; what it is sealed with,
//! the cluster's key, is in a file of each node (`seal.key`) and in no log. A node is given it when it is
//! admitted, on the connection on which an admin has authenticated. The nodes' own keys are made where they
//! are used, and never travel.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carnelian_tls::internode::{
    self, ClusterId, Identity, Lifetime, NodeKey, Plane, Request, SealKey, SigningAuthority, Store,
    Trust,
};
use carnelian_tls::rustls::pki_types::CertificateDer;
use carnelian_tls::rustls::pki_types::pem::PemObject;
use carnelian_tls::{AuthorityPem, CertificateInfo, ClientAuthority, LeafRequest};
use serde::{Deserialize, Serialize};

use crate::state::{Authority, NodeUid, SealedKey, State, Time};

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    Internode(#[from] internode::Error),
    #[error(transparent)]
    Clients(#[from] carnelian_tls::ConfigError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Wrong(&'static str),
}

/// A node has fewer certificates that clients see.
const REQUESTS_MAX: usize = 16;

/// What a node keeps of all that.
pub struct Keys {
    store: Store,
}

/// What the cluster tells a node that it admits; it holds a secret, and is sent to nobody else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub node: NodeUid,
    /// The cluster's id in certificates.
    pub cluster: String,
    pub name: String,
    /// The authorities to trust between nodes, and no others.
    pub authorities: Vec<String>,
    /// Of the state that names them.
    #[serde(default)]
    pub revision: u64,
    /// What the authority's key is sealed with.
    pub cluster_key: String,
}

/// A node's keys, waiting for their certificates.
pub struct Pending {
    identities: [Identity; 2],
    keys: [NodeKey; 2],
    /// The requests to sign, as PEM.
    pub requests: String,
}

impl Keys {
    pub fn open(data_folder: &Path) -> Result<Self, KeysError> {
        Ok(Self { store: Store::open(data_folder)? })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A new authority for a cluster, its key sealed with the cluster's key. It takes some tenths of a second.
    pub fn new_authority(&self, cluster: &str, now: Time) -> Result<Authority, KeysError> {
        let key = SealKey::open(&self.store.seal_key_file())?;
        let authority = SigningAuthority::create(cluster_id(cluster)?, system_time(now))?;
        Ok(Authority::sealed(&authority, &key, now)?)
    }

    /// An authority that clients are to know the nodes by, its key sealed with the cluster's key.
    pub fn client_authority(&self, pem: &AuthorityPem, now: Time) -> Result<Authority, KeysError> {
        let key = SealKey::open(&self.store.seal_key_file())?;
        let info = CertificateInfo::of(&first_certificate(&pem.certificate)?)
            .map_err(|_| KeysError::Wrong("the client CA is no certificate"))?;
        Ok(Authority {
            fingerprint: info.sha256_hex(),
            certificate: pem.certificate.clone(),
            key: SealedKey(key.seal(pem.key.as_bytes())?),
            created: now,
        })
    }

    /// Signs what a node shows to clients; the state says by which authority.
    pub fn sign_for_clients(
        &self,
        state: &State,
        requests: &[LeafRequest],
        now: Time,
    ) -> Result<Vec<String>, KeysError> {
        let signer = state.client_authorities.signer();
        let (Some(cluster), Some(signer)) = (&state.cluster, signer) else {
            return Err(KeysError::Wrong("the cluster has no client CA yet"));
        };
        if REQUESTS_MAX < requests.len() {
            return Err(KeysError::Wrong("more requests than a node has certificates"));
        }
        let origin = Path::new("the client CA's key in the state");
        let key = SealKey::open(&self.store.seal_key_file())?.unseal(&signer.key.0, origin)?;
        let key = std::str::from_utf8(&key)
            .map_err(|_| KeysError::Wrong("the client CA's key is no text"))?;
        let certificate = signer.certificate.clone();
        let pem = AuthorityPem { certificate, key: key.to_owned().into() };
        let authority = ClientAuthority::from_pem(&pem, origin)?;
        let sign = |request| authority.grant(request, &cluster.name, system_time(now));
        Ok(requests.iter().map(sign).collect::<Result<_, _>>()?)
    }

    /// What seals this node's records of the control plane. Read anew each time: the node may have left one
    /// cluster for another.
    pub(crate) fn record_key(&self) -> Result<SealKey, KeysError> {
        Ok(SealKey::open(&self.store.seal_key_file())?.for_purpose("control plane")?)
    }

    /// The authorities whose keys open here.
    pub fn can_sign(&self, state: &State) -> BTreeSet<String> {
        let Ok(key) = SealKey::open(&self.store.seal_key_file()) else { return BTreeSet::new() };
        let opened = state.authorities.iter().filter_map(|it| it.open(&key).ok());
        opened.map(|authority| authority.public().fingerprint()).collect()
    }

    /// The authorities of the cluster that nodes are to trust now.
    pub fn authorities(&self, state: &State) -> Result<Vec<internode::Authority>, KeysError> {
        state.trusted_authorities().into_iter().map(|it| parse(&it.certificate)).collect()
    }

    /// Keys for both planes of a node, and the requests to have them certified. RSA keys take a while.
    pub fn request(&self, cluster: &str, node: NodeUid) -> Result<Pending, KeysError> {
        let identities = identities(cluster, node)?;
        let [control, data] = &identities;
        let keys = [NodeKey::generate()?, NodeKey::generate()?];
        let requests = keys[0].request(*control)? + &keys[1].request(*data)?;
        Ok(Pending { identities, keys, requests })
    }

    /// Keeps the certificates for what was requested, and whom to trust as of a revision of the state.
    pub fn accept(
        &self,
        pending: &Pending,
        certificates: &[String],
        authorities: &[String],
        revision: u64,
    ) -> Result<(), KeysError> {
        let authorities: Result<_, KeysError> = authorities.iter().map(|it| parse(it)).collect();
        let mut trust = Trust::new(authorities?)?.as_of(revision);
        // Who was not believed before is not believed now.
        if self.store.has_trust() {
            trust.revocations = self.store.trust()?.revocations;
        }
        if certificates.len() != pending.keys.len() {
            return Err(KeysError::Wrong("there has to be a certificate for each plane"));
        }
        let mut credentials = Vec::new();
        for ((key, identity), pem) in pending.keys.iter().zip(pending.identities).zip(certificates)
        {
            let credential = key.certified(first_certificate(pem)?)?;
            if credential.identity() != identity {
                return Err(KeysError::Wrong("a certificate is another node's"));
            }
            trust.vouches_for(&credential, SystemTime::now())?;
            credentials.push(credential);
        }
        self.store.save_trust(&trust)?;
        for credential in &credentials {
            self.store.save_credential(credential)?;
        }
        Ok(())
    }

    /// The cluster's key, for a node that was admitted.
    pub fn cluster_key(&self) -> Result<String, KeysError> {
        Ok(fs::read_to_string(self.store.seal_key_file())?)
    }

    /// Keeps the cluster's key that this node was given.
    pub fn take_cluster_key(&self, text: &str) -> Result<(), KeysError> {
        let path = self.store.seal_key_file();
        write(&path, text.as_bytes())?;
        // It has to be one.
        SealKey::open(&path)?;
        Ok(())
    }

    /// Signs a node's requests; the state says by which authority and for how long.
    pub fn sign(
        &self,
        state: &State,
        node: NodeUid,
        requests: &[u8],
        now: Time,
    ) -> Result<Vec<String>, KeysError> {
        let (Some(cluster), Some(authority)) = (&state.cluster, state.signing_authority()) else {
            return Err(KeysError::Wrong("there is no cluster yet"));
        };
        let authority = authority.open(&SealKey::open(&self.store.seal_key_file())?)?;
        let life = Lifetime::days(cluster.settings.internal_cert_validity_days)?;
        let granted = identities(&cluster.id, node)?;
        let mut certificates = Vec::new();
        for request in Request::all_from_pem(requests)? {
            let wanted = granted.into_iter().find(|it| *it == request.identity());
            let wanted = wanted.ok_or(KeysError::Wrong("the request is for another node"))?;
            let issued = authority.sign(&request, wanted, life, system_time(now))?;
            certificates.push(issued.certificate_pem);
        }
        Ok(certificates)
    }
}

impl Authority {
    /// As the state keeps it.
    pub fn sealed(
        authority: &SigningAuthority,
        key: &SealKey,
        created: Time,
    ) -> Result<Self, internode::Error> {
        Ok(Self {
            fingerprint: authority.public().fingerprint(),
            certificate: authority.public().to_pem(),
            key: SealedKey(authority.seal(key)?),
            created,
        })
    }

    fn open(&self, key: &SealKey) -> Result<SigningAuthority, internode::Error> {
        SigningAuthority::unseal(&self.key.0, key, Path::new("the authority's key in the state"))
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admission(node {} of {})", self.node, self.name)
    }
}

fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, KeysError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| KeysError::Wrong("no certificate is in it"))
}

fn parse(pem: &str) -> Result<internode::Authority, KeysError> {
    Ok(internode::Authority::new(first_certificate(pem)?)?)
}

fn cluster_id(text: &str) -> Result<ClusterId, KeysError> {
    text.parse().map_err(|_| KeysError::Wrong("that is not the id of a cluster"))
}

fn identities(cluster: &str, node: NodeUid) -> Result<[Identity; 2], KeysError> {
    let cluster = cluster_id(cluster)?;
    let node = internode::NodeUid::new(node.0).ok_or(KeysError::Wrong("uids begin with 1"))?;
    Ok([Plane::Control, Plane::Data].map(|plane| Identity { cluster, node, plane }))
}

fn system_time(time: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(time.0)
}

/// Replaces a file as a whole; nobody but its owner can read it.
fn write(path: &Path, contents: &[u8]) -> Result<(), KeysError> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    Ok(fs::rename(&new, path)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use carnelian_tls::certificates::{CertificateName, Names};
    use carnelian_tls::internode::{Phase, Succession};
    use carnelian_tls::{PendingLeaves, Slot};

    use super::*;
    use crate::state::{ActionId, Cluster, ClusterSettings, Replacement, alert_defaults};

    const CLUSTER: &str = "0123456789abcdef0123456789abcdef";

    fn now() -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        Time(since.as_millis() as u64)
    }

    #[test]
    fn another_node_signs_with_the_key_from_the_state_and_the_joiner_pins_the_authority() {
        let folder = tempfile::tempdir().expect("there is room");
        let keys = |name: &str| Keys::open(&folder.path().join(name)).expect("it can be made");
        for name in ["first", "second", "joiner"] {
            fs::create_dir(folder.path().join(name)).expect("it can be made");
        }
        let (first, second, joiner) = (keys("first"), keys("second"), keys("joiner"));
        for keys in [&first, &second] {
            assert!(keys.new_authority(CLUSTER, now()).is_err(), "there is nothing to seal with");
            SealKey::create(&keys.store().seal_key_file()).expect("it can be made");
        }
        let authority = first.new_authority(CLUSTER, now()).expect("it can be made");
        let authorities = vec![authority];
        let mut state = State { cluster: Some(cluster()), authorities, ..State::default() };
        let (node, other) = (NodeUid(2), NodeUid(3));

        // Without the cluster's key the state alone signs nothing.
        let pending = joiner.request(CLUSTER, node).expect("keys can be made");
        let requests = pending.requests.as_bytes();
        assert!(second.sign(&state, node, requests, now()).is_err());
        second.take_cluster_key(&first.cluster_key().expect("it is there")).expect("it is one");
        assert!(second.sign(&state, other, requests, now()).is_err(), "for another node");
        let certificates = second.sign(&state, node, requests, now()).expect("it may");

        let authorities = [state.authorities[0].certificate.clone()];
        assert!(joiner.accept(&pending, &certificates[..1], &authorities, 3).is_err());
        let stranger = second.new_authority(CLUSTER, now()).expect("it can be made").certificate;
        assert!(joiner.accept(&pending, &certificates, &[stranger], 3).is_err(), "not pinned");
        assert!(!joiner.store().has_trust());
        joiner
            .accept(&pending, &certificates, &authorities, 3)
            .expect("all is as it was asked for");
        assert!(joiner.store().has_credential(Plane::Data) && joiner.store().has_trust());
        let mut trust = joiner.store().trust().expect("it is there");
        assert_eq!(trust.revision(), 3);
        trust.revocations.serials.insert("0abc".parse().expect("it is one"), None);
        joiner.store().save_trust(&trust).expect("there is room");

        // Another authority signs when the state says so.
        let next = first.new_authority(CLUSTER, now()).expect("it can be made");
        let [old, new] = [&state.authorities[0], &next].map(|it| it.fingerprint.clone());
        let mut succession = Succession::begin(&old, &new);
        state.authorities.push(next);
        for phase in [Phase::BothTrusted, Phase::NewSigns] {
            succession.phase = phase;
            let (reports, action) = (BTreeMap::new(), ActionId("r".to_owned()));
            let succession = succession.clone();
            state.replacement = Some(Replacement { succession, reports, action });
            assert_eq!(second.can_sign(&state), BTreeSet::from([old.clone(), new.clone()]));
            let signed = second.sign(&state, node, requests, now()).expect("it may");
            let by_old = joiner.accept(&pending, &signed, &authorities, 4).is_ok();
            assert_eq!(by_old, phase == Phase::BothTrusted);
            let kept = joiner.store().trust().expect("it is there").revocations;
            assert_eq!(kept, trust.revocations);
            let both = second.authorities(&state).expect("both are in order");
            assert_eq!(both.len(), 2);
        }
    }

    #[test]
    fn whoever_has_the_clusters_key_signs_for_clients_and_nobody_else() {
        let folder = tempfile::tempdir().expect("there is room");
        let keys = |name: &str| Keys::open(&folder.path().join(name)).expect("it can be made");
        for name in ["first", "second"] {
            fs::create_dir(folder.path().join(name)).expect("it can be made");
        }
        let (first, second) = (keys("first"), keys("second"));
        for keys in [&first, &second] {
            SealKey::create(&keys.store().seal_key_file()).expect("it can be made");
        }
        let life = Duration::from_secs(86_400);
        let pem = AuthorityPem::create(SystemTime::now(), life).expect("it can be made");
        let authority = first.client_authority(&pem, now()).expect("it can be sealed");
        let text = serde_json::to_string(&authority).expect("it is JSON");
        assert!(!text.contains("PRIVATE") && authority.key.0.starts_with(b"CARNSEAL"));
        let names = Names::new("cluster.local", &[]).expect("it is a name");
        let slots = [Slot::Named(CertificateName::Api)];
        let pending = PendingLeaves::new(&slots, &names).expect("keys can be made");
        let mut state = State { cluster: Some(cluster()), ..State::default() };
        let requests = &pending.requests;
        assert!(first.sign_for_clients(&state, requests, now()).is_err(), "there is none yet");
        state.client_authorities.listed.push(authority);
        assert!(second.sign_for_clients(&state, requests, now()).is_err(), "another key");
        second.take_cluster_key(&first.cluster_key().expect("it is there")).expect("it is one");
        for keys in [&first, &second] {
            let signed = keys.sign_for_clients(&state, requests, now()).expect("it may");
            let leaf = first_certificate(&signed[0]).expect("it is a certificate");
            let info = CertificateInfo::of(&leaf).expect("it is a certificate");
            let authority = first_certificate(&pem.certificate).expect("it is a certificate");
            let authority = CertificateInfo::of(&authority).expect("it is a certificate");
            assert_eq!(info.issuer, authority.subject);
            assert!(info.subject.ends_with("CN=cluster.local"), "{}", info.subject);
        }
        let many = vec![requests[0].clone(); REQUESTS_MAX + 1];
        assert!(first.sign_for_clients(&state, &many, now()).is_err());
    }

    fn cluster() -> Cluster {
        Cluster {
            id: CLUSTER.to_owned(),
            name: "cluster.local".to_owned(),
            created: now(),
            settings: ClusterSettings::default(),
            alert_settings: alert_defaults(),
            rotations: 0,
        }
    }
}

//! Certificates without keys: what they say, who shows which, and whom each node believes. Nothing here could be
//! forged; what is judged, by the code that judges the real ones, is what they say.

use std::collections::BTreeMap;
use std::time::Duration;

use carnelian_tls::internode::{
    BACKDATED, ClusterId, Expected, Identity, Lifetime, NodeUid as NodeName, Peer, Plane, Refusal,
    Report, Revocations, Serial, still_believes,
};
use carnelian_tls::rustls::pki_types::UnixTime;
use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::raft::Chance;
use crate::state::{Authority, NodeUid, SealedKey, State, Time};

pub const CLUSTER: &str = "0123456789abcdef0123456789abcdef";
const FOREIGN: &str = "fedcba9876543210fedcba9876543210";

/// What the certificate of a node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    pub node: NodeUid,
    pub plane: Plane,
    pub serial: u64,
    /// The fingerprint of who signed.
    pub authority: String,
    /// Seconds since 1970, the last one included.
    pub not_before: i64,
    pub not_after: i64,
    pub is_foreign: bool,
}

impl Leaf {
    fn peer(&self) -> Peer {
        let cluster = if self.is_foreign { FOREIGN } else { CLUSTER };
        Peer {
            identity: Identity {
                cluster: cluster.parse().expect("it is written as ids are"),
                node: name(self.node),
                plane: self.plane,
            },
            serial: Serial::from_bytes(&self.serial.to_be_bytes()),
            not_after: self.not_after,
            authority: bytes_of(&self.authority),
        }
    }
}

/// What a node keeps of certificates, on a disk that is always flushed: the files are replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Papers {
    pub leaves: BTreeMap<Plane, Leaf>,
    /// Fingerprints, and the revision of the state that named them.
    pub trusts: Vec<String>,
    pub trusts_as_of: u64,
    pub revoked: Revocations,
    /// The run of the job that was tried last.
    pub tried_s: i64,
}

impl Papers {
    /// Those of a newcomer, before it has certificates.
    pub fn trusting(state: &State) -> Self {
        let trusts = fingerprints(&state.trusted_authorities());
        Self { trusts, trusts_as_of: state.revision, ..Self::default() }
    }

    /// What a node begins with: certificates that were signed for it, if it believes them itself.
    pub fn new(signed: &[String], trusting: Self, now: Time) -> Result<Self, String> {
        let mut papers = trusting;
        for text in signed {
            papers.install(text, now)?;
        }
        Ok(papers)
    }

    /// Takes a certificate that others would take.
    pub fn install(&mut self, text: &str, now: Time) -> Result<(), String> {
        let leaf: Leaf = serde_json::from_str(text).map_err(|error| error.to_string())?;
        self.vouches_for(&leaf, now).map_err(|refusal| refusal.to_string())?;
        self.leaves.insert(leaf.plane, leaf);
        Ok(())
    }

    fn vouches_for(&self, leaf: &Leaf, now: Time) -> Result<(), Refusal> {
        let expected = Expected { plane: leaf.plane, node: Some(name(leaf.node)) };
        self.judge(leaf, expected, now)
    }

    /// Judges the certificate that another node shows.
    pub fn judge(&self, leaf: &Leaf, expected: Expected, now: Time) -> Result<(), Refusal> {
        let in_s = leaf.not_before - seconds(now);
        if 0 < in_s {
            return Err(Refusal::NotYetValid { in_s });
        }
        expected.check(cluster(), leaf.peer().identity)?;
        self.still_believes(leaf, now)
    }

    /// Judges it again while a link lives.
    pub fn still_believes(&self, leaf: &Leaf, now: Time) -> Result<(), Refusal> {
        let is_trusted = |authority: &[u8; 32]| {
            self.trusts.iter().any(|fingerprint| bytes_of(fingerprint) == *authority)
        };
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        still_believes(is_trusted, &self.revoked, &leaf.peer(), now)
    }

    /// Believes just whom the state says, if its own certificates are of theirs.
    pub fn believe(&mut self, state: &State, now: Time) {
        self.revoked.nodes.extend(state.removed_nodes.iter().map(|node| name(*node)));
        let Some(trusted) = state.trusted_since(self.trusts_as_of) else { return };
        let (trusts, trusts_as_of) = (fingerprints(&trusted), state.revision);
        let new = Self { trusts, trusts_as_of, ..self.clone() };
        if new.trusts != self.trusts
            && self.leaves.values().all(|leaf| new.vouches_for(leaf, now).is_ok())
        {
            *self = new;
        }
    }

    /// What a node tells while one authority takes the place of another.
    pub fn report(&self, state: &State, old_links: usize, now: Time) -> Report {
        let leaves = self.leaves.values().filter(|leaf| self.vouches_for(leaf, now).is_ok());
        Report {
            trusts: self.trusts.iter().cloned().collect(),
            // The keys come with the state.
            can_sign: state.authorities.iter().map(|it| it.fingerprint.clone()).collect(),
            leaves: leaves.map(|leaf| (leaf.plane, leaf.authority.clone())).collect(),
            old_links,
        }
    }

    /// The planes whose certificates the job has to replace now.
    pub fn due(&self, state: &State, now: Time) -> Vec<Plane> {
        let Some(cluster) = &state.cluster else { return Vec::new() };
        let days = cluster.settings.internal_cert_validity_days;
        let is_due =
            |leaf: &&Leaf| state.jobs.is_due(leaf.not_after, days, self.tried_s, seconds(now));
        self.leaves.values().filter(is_due).map(|leaf| leaf.plane).collect()
    }
}

/// What a node asks to be signed.
pub fn request(planes: &[Plane]) -> String {
    serde_json::to_string(planes).expect("planes can be written")
}

/// Signs for a node, as [`Keys::sign`](crate::Keys::sign) does.
pub fn sign(
    state: &State,
    node: NodeUid,
    requests: &str,
    now: Time,
) -> Result<Vec<String>, String> {
    let planes: Vec<Plane> = serde_json::from_str(requests).map_err(|error| error.to_string())?;
    let (Some(cluster), Some(authority)) = (&state.cluster, state.signing_authority()) else {
        return Err("there is no cluster yet".to_owned());
    };
    let days = cluster.settings.internal_cert_validity_days;
    let life = Lifetime::days(days).map_err(|error| error.to_string())?;
    Ok(planes
        .into_iter()
        .map(|plane| {
            let leaf = leaf(node, plane, &authority.fingerprint, life, now);
            serde_json::to_string(&leaf).expect("a certificate can be written")
        })
        .collect())
}

/// A new certificate.
pub fn leaf(node: NodeUid, plane: Plane, authority: &str, life: Lifetime, now: Time) -> Leaf {
    let not_before = seconds(now) - BACKDATED.as_secs() as i64;
    Leaf {
        node,
        plane,
        serial: Chance.next_u64(),
        authority: authority.to_owned(),
        not_before,
        not_after: not_before + life.as_duration().as_secs() as i64,
        is_foreign: false,
    }
}

/// An authority as the state keeps it, whose key nobody needs.
pub fn authority(number: u64, now: Time) -> Authority {
    Authority {
        fingerprint: format!("{number:064x}"),
        certificate: String::new(),
        key: SealedKey(Vec::new()),
        created: now,
    }
}

pub fn cluster() -> ClusterId {
    CLUSTER.parse().expect("it is written as ids are")
}

pub fn name(node: NodeUid) -> NodeName {
    NodeName::new(node.0).expect("uids begin with 1")
}

pub fn seconds(now: Time) -> i64 {
    i64::try_from(now.seconds()).expect("it is not so late")
}

fn fingerprints(authorities: &[&Authority]) -> Vec<String> {
    authorities.iter().map(|it| it.fingerprint.clone()).collect()
}

fn bytes_of(fingerprint: &str) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        let digits = fingerprint.get(2 * place..2 * place + 2);
        *byte = digits.and_then(|it| u8::from_str_radix(it, 16).ok()).unwrap_or(0xff);
    }
    bytes
}

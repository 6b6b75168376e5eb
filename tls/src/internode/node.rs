//! One node's side of the channel: what it shows, whom it trusts, its live links, its figures.
//!
//! `credentials` and `trust` are complete and valid at any time and swapped as a whole. A handshake
//! takes them as it finds them; live links keep what they began with, until they are told otherwise
//! or their peer is no longer believed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::sync::Semaphore;

use super::Error;
use super::counters::Counters;
use super::credential::Credential;
use super::links::{LinkId, LinkInfo, Links};
use super::peer::{ClusterId, Identity, NodeUid, Peer, Plane, Serial};
use super::policy::{Authority, Trust, Versions, unix_time};
use super::refusal::Refusal;
use super::succession::Report;
use crate::source::Source;

/// What can be chosen. Nothing here makes a link weaker than another.
#[derive(Clone, Debug)]
pub struct Settings {
    pub versions: Versions,
    /// From the first byte, or from connecting, until both ends are sure of one another.
    pub handshake_limit: Duration,
    /// Incoming handshakes at a time.
    pub handshakes_max: usize,
    /// What certificates' dates are held against.
    pub clock: Arc<dyn TimeProvider>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            versions: Versions::Both,
            handshake_limit: Duration::from_secs(10),
            handshakes_max: 256,
            clock: Arc::new(DefaultTimeProvider),
        }
    }
}

/// A node of a cluster, able to make links.
#[derive(Debug)]
pub struct Node {
    cluster: ClusterId,
    uid: NodeUid,
    settings: Settings,
    credentials: [ArcSwap<Credential>; Plane::ALL.len()],
    trust: ArcSwap<Trust>,
    /// Held while `trust` is changed, so that no change gets lost.
    changing: Mutex<()>,
    links: Arc<Links>,
    counters: Counters,
    handshakes: Semaphore,
    source: ArcSwap<Source>,
}

impl Node {
    /// Checks the credentials as a peer would.
    pub fn new(
        control: Credential,
        data: Credential,
        trust: Trust,
        settings: Settings,
    ) -> Result<Arc<Self>, Error> {
        let Identity { cluster, node: uid, .. } = control.identity();
        let now = now_of(&settings);
        for (credential, plane) in [(&control, Plane::Control), (&data, Plane::Data)] {
            check(credential, Identity { cluster, node: uid, plane }, &trust, now)?;
        }
        Ok(Arc::new(Self {
            cluster,
            uid,
            handshakes: Semaphore::new(settings.handshakes_max),
            settings,
            credentials: [ArcSwap::from_pointee(control), ArcSwap::from_pointee(data)],
            trust: ArcSwap::from_pointee(trust),
            changing: Mutex::new(()),
            links: Arc::default(),
            counters: Counters::default(),
            source: ArcSwap::default(),
        }))
    }

    /// Where links to other nodes start from.
    pub fn source(&self) -> Arc<Source> {
        self.source.load_full()
    }

    /// Those that come will start from there.
    pub fn set_source(&self, source: Source) {
        self.source.store(Arc::new(source));
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn uid(&self) -> NodeUid {
        self.uid
    }

    /// This node on a plane.
    pub fn identity(&self, plane: Plane) -> Identity {
        Identity { cluster: self.cluster, node: self.uid, plane }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn links(&self) -> &Links {
        &self.links
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What new handshakes show.
    pub fn credential(&self, plane: Plane) -> Arc<Credential> {
        self.credentials[plane as usize].load_full()
    }

    /// Whom new handshakes trust.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    /// Whether a credential is this node's and whether others would take it.
    pub(super) fn check(&self, credential: &Credential) -> Result<(), Error> {
        let expected = self.identity(credential.identity().plane);
        check(credential, expected, &self.trust.load(), now_of(&self.settings))
    }

    /// Shows another certificate from the next handshake on. Live links stay as they are; which of
    /// them show an earlier one is told by [`Links::outdated`].
    pub fn install(&self, credential: Credential) -> Result<(), Error> {
        self.check(&credential)?;
        let plane = credential.identity().plane;
        self.credentials[plane as usize].store(Arc::new(credential));
        Ok(())
    }

    /// Changes whom to trust, from the next handshake on and on all live links: those whose peer
    /// is not believed any more have ended when this returns, and are listed. One change at a time.
    pub fn change_trust(
        &self,
        change: impl FnOnce(&Trust) -> Result<Trust, Error>,
    ) -> Result<Vec<LinkInfo>, Error> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&self.trust.load())?;
        if changed.cluster() != self.cluster {
            return Err(Error::BadAuthority("it is another cluster's".into()));
        }
        let changed = Arc::new(changed);
        // In this order: see `Links::register`.
        self.trust.store(Arc::clone(&changed));
        Ok(self.links.judge_again(&changed, unix_time(now_of(&self.settings)), &self.counters))
    }

    /// Trusts just these authorities, which a revision of the cluster's state names. It ends the links of all
    /// others. This node's own certificates must be of theirs.
    pub fn trust_only(
        &self,
        authorities: Vec<Authority>,
        revision: u64,
    ) -> Result<Vec<LinkInfo>, Error> {
        let now = now_of(&self.settings);
        self.change_trust(|trust| {
            let changed = trust.with_authorities(authorities)?.as_of(revision);
            for plane in Plane::ALL {
                check(&self.credential(plane), self.identity(plane), &changed, now)?;
            }
            Ok(changed)
        })
    }

    /// No longer believes a certificate. Its links have ended when this returns.
    pub fn revoke_certificate(&self, serial: Serial) -> Vec<LinkInfo> {
        self.revoke(|trust| {
            trust.revocations.serials.insert(serial, None);
        })
    }

    /// No longer believes a node, whatever it shows. Its links have ended when this returns.
    pub fn revoke_node(&self, node: NodeUid) -> Vec<LinkInfo> {
        self.revoke(|trust| {
            trust.revocations.nodes.insert(node);
        })
    }

    fn revoke(&self, change: impl FnOnce(&mut Trust)) -> Vec<LinkInfo> {
        let ended = self.change_trust(|trust| {
            let mut trust = trust.clone();
            change(&mut trust);
            Ok(trust)
        });
        ended.expect("revoking changes no authority and cannot fail")
    }

    /// Ends the links of those whose certificates have expired since, and says which. To be called now and then:
    /// nothing else ends a link for the sake of the clock.
    pub fn end_expired(&self) -> Vec<LinkInfo> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = unix_time(now_of(&self.settings));
        self.links.judge_again(&self.trust.load(), now, &self.counters)
    }

    /// Judges the other end of a link once more.
    pub(super) fn still_believes(&self, peer: &Peer) -> Result<(), Refusal> {
        self.trust.load().still_believes(peer, unix_time(now_of(&self.settings)))
    }

    /// Ends a link for a reason of this node's own. `false` if it had ended.
    pub fn end_link(&self, id: LinkId) -> bool {
        self.links.end(id, &self.counters)
    }

    /// What to report while one authority takes the place of another: what there is to trust and to
    /// show, and the links that show something else. `can_sign` are those whose keys are at hand.
    pub fn report(&self, can_sign: BTreeSet<String>) -> Report {
        let trust = self.trust();
        let name_of = |sha256: &[u8; 32]| crate::describe::hex(sha256);
        let mut report = Report {
            trusts: trust.authorities().iter().map(Authority::fingerprint).collect(),
            can_sign,
            ..Report::default()
        };
        for plane in Plane::ALL {
            let credential = self.credential(plane);
            if let Some(signer) = trust.signer_of(&credential, now_of(&self.settings)) {
                report.leaves.insert(plane, name_of(&signer));
            }
            report.old_links += self.links.outdated(plane, credential.serial()).len();
        }
        report
    }

    pub(super) fn handshakes(&self) -> &Semaphore {
        &self.handshakes
    }

    pub(super) fn links_shared(&self) -> &Arc<Links> {
        &self.links
    }
}

/// That it is for this node and plane, and that peers will take it.
fn check(
    credential: &Credential,
    expected: Identity,
    trust: &Trust,
    now: SystemTime,
) -> Result<(), Error> {
    let found = credential.identity();
    if found != expected {
        return Err(Error::NotOurs { found: Box::new(found), expected: Box::new(expected) });
    }
    trust.vouches_for(credential, now)
}

fn now_of(settings: &Settings) -> SystemTime {
    match settings.clock.current_time() {
        Some(now) => SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs()),
        None => SystemTime::now(),
    }
}

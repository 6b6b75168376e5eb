//! Links between nodes, on which each end has shown a certificate: how they begin, who ends them, and what must
//! never be so.

use std::collections::BTreeMap;
use std::time::Duration;

use carnelian_tls::internode::{Expected, Plane, Refusal, RefusalKind};
use tokio::time::Instant;

use super::certificates::{Leaf, Papers, name, seconds};
use super::net::{Net, NetState};
use super::trace;
use crate::state::{NodeUid, State};

/// A node that was removed, or whose certificate has expired, is off all links by then.
const CUT_TIME: Duration = Duration::from_millis(1500);

pub type LinkId = u64;

#[derive(Default)]
pub struct Links {
    last: LinkId,
    live: BTreeMap<LinkId, Link>,
    pub figures: LinkFigures,
    /// What was ever shown on one, for whoever may have got hold of it.
    pub shown: Vec<Leaf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFigures {
    pub made: u64,
    pub refused: u64,
    /// Ended as the other end had been removed, as its authority was no longer trusted, as its certificate had
    /// expired.
    pub revoked: u64,
    pub withdrawn: u64,
    pub expired: u64,
}

impl LinkFigures {
    pub fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.refused += other.refused;
        self.revoked += other.revoked;
        self.withdrawn += other.withdrawn;
        self.expired += other.expired;
    }
}

struct Link {
    plane: Plane,
    /// Who dialled, and who was dialled.
    ends: [End; 2],
    /// A certificate that was shown on it has been replaced.
    is_outdated: bool,
}

/// One end, in one life of a node.
pub struct End {
    node: NodeUid,
    life: u64,
    shown: Option<Leaf>,
    /// Since when this end should not believe the other.
    wrong_since: Option<Instant>,
}

impl End {
    pub fn new((node, life): (NodeUid, u64)) -> Self {
        Self { node, life, shown: None, wrong_since: None }
    }

    fn shown(&self) -> &Leaf {
        self.shown.as_ref().expect("there is no link without it")
    }
}

impl Links {
    pub fn has(&self, link: LinkId) -> bool {
        self.live.contains_key(&link)
    }

    pub fn is_outdated(&self, link: LinkId) -> bool {
        self.live.get(&link).is_none_or(|link| link.is_outdated)
    }

    /// False if it had ended.
    pub fn end(&mut self, link: LinkId) -> bool {
        self.live.remove(&link).is_some()
    }
}

impl NetState {
    /// A link, and what the dialled end knows the other by; or why one of them does not want it.
    pub fn handshake(
        &mut self,
        plane: Plane,
        mut near: End,
        mut far: End,
        stolen: Option<Leaf>,
    ) -> Result<(LinkId, NodeUid), String> {
        let is_thief = stolen.is_some();
        let leaf_of = |node: NodeUid| {
            self.papers.get(&node).and_then(|papers| papers.leaves.get(&plane)).cloned()
        };
        let none = || "without a certificate".to_owned();
        let near_leaf = stolen.or_else(|| leaf_of(near.node)).ok_or_else(none)?;
        let far_leaf = leaf_of(far.node).ok_or_else(none)?;
        let judged = if is_thief {
            Ok(())
        } else {
            self.judge(near.node, &far_leaf, Expected { plane, node: Some(name(far.node)) })
        };
        let judged =
            judged.and_then(|()| self.judge(far.node, &near_leaf, Expected { plane, node: None }));
        if let Err(refusal) = judged {
            self.links.figures.refused += 1;
            return Err(refusal.to_string());
        }
        if !is_thief {
            self.check_new(near.node, &far_leaf, plane);
        }
        self.check_new(far.node, &near_leaf, plane);

        let peer = near_leaf.node;
        if !is_thief {
            self.links.shown.push(near_leaf.clone());
        }
        (near.shown, far.shown) = (Some(near_leaf), Some(far_leaf));
        self.links.last += 1;
        self.links.figures.made += 1;
        let link = Link { plane, ends: [near, far], is_outdated: false };
        self.links.live.insert(self.links.last, link);
        Ok((self.links.last, peer))
    }

    fn judge(&self, node: NodeUid, other: &Leaf, expected: Expected) -> Result<(), Refusal> {
        let none = Papers::default();
        let papers = self.papers.get(&node).unwrap_or(&none);
        papers.judge(other, expected, self.now(node))
    }

    /// What must not be on a new link, in other words than those of the judgement.
    fn check_new(&self, node: NodeUid, other: &Leaf, plane: Plane) {
        let (papers, now_s) = (&self.papers[&node], seconds(self.now(node)));
        let what = if now_s < other.not_before || other.not_after < now_s {
            "not valid at this time"
        } else if !papers.trusts.contains(&other.authority) {
            "of an authority that is not trusted"
        } else if papers.revoked.nodes.contains(&name(other.node)) {
            "of a node that was removed"
        } else if other.is_foreign || other.plane != plane {
            "for something else"
        } else {
            return;
        };
        trace::violation(format!("node {node} has taken a certificate that is {what}: {other:?}"));
    }

    /// The links on which a node shows another certificate than it has now.
    pub fn old_links(&self, node: NodeUid) -> Vec<LinkId> {
        let Some(papers) = self.papers.get(&node) else { return Vec::new() };
        let is_old = |link: &Link| {
            link.ends.iter().any(|end| {
                let now = papers.leaves.get(&link.plane).map(|leaf| leaf.serial);
                end.node == node
                    && self.is_life(end.node, end.life)
                    && end.shown().node == node
                    && now != Some(end.shown().serial)
            })
        };
        self.links.live.iter().filter(|(_, link)| is_old(link)).map(|(id, _)| *id).collect()
    }
}

impl Net {
    /// A node puts into effect whom the state says to believe.
    pub fn believe(&self, node: NodeUid, state: &State) {
        {
            let mut own = self.state();
            let now = own.now(node);
            let Some(papers) = own.papers.get_mut(&node) else { return };
            let before = (papers.trusts.clone(), papers.revoked.clone());
            papers.believe(state, now);
            if before == (papers.trusts.clone(), papers.revoked.clone()) {
                return;
            }
        }
        self.judge_again(node);
    }

    /// Ends the links of a node with others that it does not believe any more.
    pub fn judge_again(&self, node: NodeUid) {
        let mut state = self.state();
        let state = &mut *state;
        let now = state.now(node);
        let Some(papers) = state.papers.get(&node) else { return };
        let lives = &state.lives;
        let (figures, before) = (&mut state.links.figures, state.links.live.len());
        state.links.live.retain(|_, link| {
            let [one, other] = &link.ends;
            for (own, peer) in [(one, other), (other, one)] {
                if own.node != node || lives.get(&node) != Some(&own.life) {
                    continue;
                }
                if let Err(refusal) = papers.still_believes(peer.shown(), now) {
                    match refusal.kind() {
                        RefusalKind::Revoked => figures.revoked += 1,
                        RefusalKind::Expired => figures.expired += 1,
                        _ => figures.withdrawn += 1,
                    }
                    return false;
                }
            }
            true
        });
        if state.links.live.len() != before {
            self.tell();
        }
    }

    /// The owners of links with an earlier certificate are to make them anew.
    pub fn mark_old_links(&self, node: NodeUid) {
        let mut state = self.state();
        for id in state.old_links(node) {
            let Some(link) = state.links.live.get_mut(&id) else { continue };
            link.is_outdated = true;
            // Replicas come back by themselves.
            if link.plane == Plane::Data {
                state.links.end(id);
            }
        }
        drop(state);
        self.tell();
    }

    pub fn end_old_links(&self, node: NodeUid) {
        let mut state = self.state();
        for id in state.old_links(node) {
            state.links.end(id);
        }
        drop(state);
        self.tell();
    }

    /// Whether a replica has a link of the data plane with its primary, or gets one.
    pub fn follows(&self, replica: NodeUid, primary: NodeUid) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        let [near, far] = [replica, primary]
            .map(|node| End::new((node, state.lives.get(&node).copied().unwrap_or(0))));
        let is_it = |link: &Link| {
            let [one, other] = &link.ends;
            link.plane == Plane::Data
                && (one.node, one.life) == (near.node, near.life)
                && (other.node, other.life) == (far.node, far.life)
        };
        state.links.live.values().any(is_it)
            || state.handshake(Plane::Data, near, far, None).is_ok()
    }

    /// Links of which no end is left, or that nobody would notice to be dead.
    pub fn forget_dead_links(&self) {
        let mut state = self.state();
        let state = &mut *state;
        let lives = &state.lives;
        state.links.live.retain(|_, link| {
            let mut is_here = link.ends.iter().map(|end| lives.get(&end.node) == Some(&end.life));
            match link.plane {
                Plane::Data => is_here.all(|here| here),
                Plane::Control => is_here.any(|here| here),
            }
        });
    }

    /// What must not be on any link.
    pub fn check_links(&self, states: &BTreeMap<NodeUid, std::sync::Arc<State>>) {
        let mut state = self.state();
        let state = &mut *state;
        let nows: BTreeMap<NodeUid, i64> =
            states.keys().map(|node| (*node, seconds(state.now(*node)))).collect();
        for (id, link) in &mut state.links.live {
            let [one, other] = &mut link.ends;
            let shown = [one.shown().clone(), other.shown().clone()];
            for (own, peer) in [one, other].into_iter().zip(shown.iter().rev()) {
                let node = own.node;
                if state.lives.get(&node) != Some(&own.life) {
                    continue;
                }
                let (Some(known), Some(papers)) = (states.get(&node), state.papers.get(&node))
                else {
                    continue;
                };
                if !papers.trusts.contains(&peer.authority) {
                    trace::violation(format!(
                        "link {id} of node {node} is by an authority that is not trusted: {peer:?}"
                    ));
                }
                let is_removed = known.removed_nodes.contains(&peer.node);
                let is_expired = peer.not_after < nows[&node];
                if !is_removed && !is_expired {
                    own.wrong_since = None;
                } else if CUT_TIME < own.wrong_since.get_or_insert_with(Instant::now).elapsed() {
                    let what = if is_removed { "removed" } else { "expired" };
                    trace::violation(format!("link {id} of node {node} lives on: {what} {peer:?}"));
                }
            }
        }
    }
}

//! One authority of a cluster takes the place of another while all nodes go on talking.
//!
//! At any moment each node trusts the authority of every certificate that another node may show.
//! So both are trusted everywhere before the new one signs anything, and the old one is trusted
//! until nobody shows anything of it. Each phase says what nodes are to do ([`Succession::duties`]);
//! it ends when every node of the cluster has reported that it has done so, in what it keeps on its
//! disk. A node that is away holds everything up, harmlessly, until it is back or removed.
//!
//! | phase | nodes trust | signs | ends when every node |
//! |---|---|---|---|
//! | prepared | old and new | old | trusts both |
//! | both trusted | old and new | old | that can sign for the old can for the new |
//! | new signs | old and new | new | shows the new one's leaves, on all of its links |
//! | leaves renewed | new | new | trusts the new one alone |
//! | old dropped | new | new | |
//!
//! State and reports in, state and duties out: no clock, no disk, no sockets. Authorities go by
//! their [fingerprints](super::Authority::fingerprint).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::peer::Plane;

/// See the module's table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Prepared,
    BothTrusted,
    NewSigns,
    LeavesRenewed,
    OldDropped,
    /// Given up before the new one had signed anything: nodes trust the old one alone again.
    Abandoned,
}

impl Phase {
    pub const ALL: [Self; 6] = [
        Self::Prepared,
        Self::BothTrusted,
        Self::NewSigns,
        Self::LeavesRenewed,
        Self::OldDropped,
        Self::Abandoned,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::BothTrusted => "both_trusted",
            Self::NewSigns => "new_signs",
            Self::LeavesRenewed => "leaves_renewed",
            Self::OldDropped => "old_dropped",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What a node has, as it keeps it. A report is made of one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whom it trusts.
    pub trusts: BTreeSet<String>,
    /// For whom it could sign: whose keys it can open.
    pub can_sign: BTreeSet<String>,
    /// Who signed its leaves, one for each plane.
    pub leaves: BTreeMap<Plane, String>,
    /// Its links on which it shows another leaf than these.
    pub old_links: usize,
}

/// What a node has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Duty {
    /// Trust these and no others.
    Trust(BTreeSet<String>),
    /// Become able to sign for this one.
    Sign(String),
    /// Have its leaf for a plane made anew.
    Renew(Plane),
    /// Make the links anew on which it shows an earlier leaf.
    RemakeLinks,
}

/// What a node does next about its leaves and links.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Have its leaves for these planes made anew.
    Renew(Vec<Plane>),
    /// Make the links anew on which it shows an earlier leaf.
    RemakeLinks,
}

/// What holds a phase up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Waiting {
    /// It has not reported.
    Silent,
    /// It has this yet to do.
    Busy(Vec<Duty>),
}

/// Where the change from one authority to another has got to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Succession {
    pub old: String,
    pub new: String,
    pub phase: Phase,
}

impl Succession {
    /// The beginning, of two that [can be trusted together](super::Trust::new).
    pub fn begin(old: &str, new: &str) -> Self {
        Self { old: old.to_owned(), new: new.to_owned(), phase: Phase::Prepared }
    }

    /// Whom nodes are to trust, newcomers too.
    pub fn trusted(&self) -> BTreeSet<String> {
        let all: &[&String] = match self.phase {
            Phase::Prepared | Phase::BothTrusted | Phase::NewSigns => &[&self.old, &self.new],
            Phase::LeavesRenewed | Phase::OldDropped => &[&self.new],
            Phase::Abandoned => &[&self.old],
        };
        all.iter().copied().cloned().collect()
    }

    /// Who signs what nodes ask for now.
    pub fn signer(&self) -> &str {
        match self.phase {
            Phase::Prepared | Phase::BothTrusted | Phase::Abandoned => &self.old,
            Phase::NewSigns | Phase::LeavesRenewed | Phase::OldDropped => &self.new,
        }
    }

    /// What a node has yet to do. Nothing in it depends on what was asked of it before, so that
    /// whoever crashed or was away just begins again.
    pub fn duties(&self, node: &Report) -> Vec<Duty> {
        let mut duties = Vec::new();
        let trusted = self.trusted();
        if node.trusts != trusted {
            duties.push(Duty::Trust(trusted));
        }
        let is_signer = node.can_sign.contains(&self.old);
        if self.phase == Phase::BothTrusted && is_signer && !node.can_sign.contains(&self.new) {
            duties.push(Duty::Sign(self.new.clone()));
        }
        if self.phase == Phase::NewSigns {
            let is_renewed = |plane: &Plane| node.leaves.get(plane) == Some(&self.new);
            let planes = Plane::ALL.into_iter().filter(|plane| !is_renewed(plane));
            duties.extend(planes.map(Duty::Renew));
            if node.old_links != 0 {
                duties.push(Duty::RemakeLinks);
            }
        }
        duties
    }

    /// Of a node's [duties](Self::duties), what is next of its leaves and links. None while it does not trust
    /// whom it is to trust: it shows nothing that it would not believe itself.
    pub fn step(&self, node: &Report) -> Option<Step> {
        let duties = self.duties(node);
        if duties.iter().any(|duty| matches!(duty, Duty::Trust(_))) {
            return None;
        }
        let renewed = duties.iter().filter_map(|duty| match duty {
            Duty::Renew(plane) => Some(*plane),
            _ => None,
        });
        let planes: Vec<Plane> = renewed.collect();
        if !planes.is_empty() {
            return Some(Step::Renew(planes));
        }
        duties.contains(&Duty::RemakeLinks).then_some(Step::RemakeLinks)
    }

    /// Which nodes hold the phase up, and how. `members` are all nodes of the cluster.
    pub fn waiting_for<N: Copy + Ord>(
        &self,
        members: &BTreeSet<N>,
        reports: &BTreeMap<N, Report>,
    ) -> Vec<(N, Waiting)> {
        let waiting = members.iter().filter_map(|node| match reports.get(node) {
            None => Some((*node, Waiting::Silent)),
            Some(report) => {
                let duties = self.duties(report);
                (!duties.is_empty()).then_some((*node, Waiting::Busy(duties)))
            }
        });
        waiting.collect()
    }

    /// The next phase, if this one may end.
    pub fn advance<N: Copy + Ord>(
        &self,
        members: &BTreeSet<N>,
        reports: &BTreeMap<N, Report>,
    ) -> Option<Self> {
        if members.is_empty() || !self.waiting_for(members, reports).is_empty() {
            return None;
        }
        let can_sign =
            |node: &N| reports.get(node).is_some_and(|report| report.can_sign.contains(&self.new));
        let phase = match self.phase {
            Phase::Prepared => Phase::BothTrusted,
            // Should nobody be able to sign, everybody's leaves would run out.
            Phase::BothTrusted if !members.iter().any(can_sign) => return None,
            Phase::BothTrusted => Phase::NewSigns,
            Phase::NewSigns => Phase::LeavesRenewed,
            Phase::LeavesRenewed => Phase::OldDropped,
            Phase::OldDropped | Phase::Abandoned => return None,
        };
        Some(Self { phase, ..self.clone() })
    }

    /// Gives it up. Once the new one has signed something there is no way but on (and then, if need
    /// be, to another).
    pub fn abandon(&self) -> Option<Self> {
        match self.phase {
            Phase::Prepared | Phase::BothTrusted => {
                Some(Self { phase: Phase::Abandoned, ..self.clone() })
            }
            _ => None,
        }
    }

    /// Whether there is nothing left to do for nodes that have done their duties: the key of the one
    /// that went can be destroyed.
    pub fn is_over<N: Copy + Ord>(
        &self,
        members: &BTreeSet<N>,
        reports: &BTreeMap<N, Report>,
    ) -> bool {
        matches!(self.phase, Phase::OldDropped | Phase::Abandoned)
            && self.waiting_for(members, reports).is_empty()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internode::NodeUid;

    fn uid(uid: u32) -> NodeUid {
        NodeUid::new(uid).unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn begun() -> Succession {
        Succession { old: "old".into(), new: "new".into(), phase: Phase::Prepared }
    }

    /// A node as it keeps things on its disk.
    fn node(is_signer: bool) -> Report {
        Report {
            trusts: set(&["old"]),
            can_sign: if is_signer { set(&["old"]) } else { BTreeSet::new() },
            leaves: Plane::ALL.map(|plane| (plane, "old".to_owned())).into(),
            old_links: 0,
        }
    }

    /// Does one duty, in full: files are replaced as a whole.
    fn obey(node: &mut Report, duty: &Duty, signer: &str, others: usize) {
        match duty {
            Duty::Trust(trusted) => node.trusts = trusted.clone(),
            Duty::Sign(authority) => {
                node.can_sign.insert(authority.clone());
            }
            Duty::Renew(plane) => {
                node.leaves.insert(*plane, signer.to_owned());
                node.old_links += others;
            }
            Duty::RemakeLinks => node.old_links = 0,
        }
    }

    #[test]
    fn the_phases_follow_one_another_when_all_nodes_have_done_what_they_were_asked() {
        let members = [1, 2, 3].map(uid).into();
        let mut nodes: BTreeMap<_, _> = [1, 2, 3].map(|n| (uid(n), node(n != 3))).into();
        let mut now = begun();
        for expected in
            [Phase::BothTrusted, Phase::NewSigns, Phase::LeavesRenewed, Phase::OldDropped]
        {
            let signer = now.signer().to_owned();
            for uid in [1, 2, 3].map(uid) {
                let reports = nodes.clone();
                let is_idle = now.duties(&nodes[&uid]).is_empty();
                assert_eq!(
                    now.waiting_for(&members, &reports).iter().any(|w| w.0 == uid),
                    !is_idle
                );
                assert!(is_idle || now.advance(&members, &reports).is_none());
                let node = nodes.get_mut(&uid).unwrap();
                for _ in 0..3 {
                    for duty in now.duties(node) {
                        obey(node, &duty, &signer, 2);
                    }
                }
            }
            now = now.advance(&members, &nodes).unwrap();
            assert_eq!(now.phase, expected);
        }
        assert!(now.is_over(&members, &nodes) && now.advance(&members, &nodes).is_none());
        assert!(nodes.values().all(|node| node.trusts == set(&["new"])));
        assert_eq!(nodes[&uid(3)].can_sign, set(&[]));
    }

    #[test]
    fn a_node_trusts_before_it_shows_and_shows_before_it_links() {
        let mut node = node(false);
        let now = Succession { phase: Phase::NewSigns, ..begun() };
        assert_eq!(now.step(&node), None);
        node.trusts = now.trusted();
        node.old_links = 2;
        node.leaves.insert(Plane::ALL[0], "new".into());
        assert_eq!(now.step(&node), Some(Step::Renew(Plane::ALL[1..].to_vec())));
        node.leaves.extend(Plane::ALL.map(|plane| (plane, "new".to_owned())));
        assert_eq!(now.step(&node), Some(Step::RemakeLinks));
        node.old_links = 0;
        assert_eq!(now.step(&node), None);
    }

    #[test]
    fn a_node_that_is_away_holds_up_until_it_is_back_or_removed() {
        let mut members: BTreeSet<_> = [1, 2].map(uid).into();
        let mut there = node(true);
        there.trusts = begun().trusted();
        let mut reports: BTreeMap<_, _> = [(uid(1), there)].into();
        assert_eq!(begun().waiting_for(&members, &reports), [(uid(2), Waiting::Silent)]);
        reports.insert(uid(2), node(false));
        let duty = Waiting::Busy(vec![Duty::Trust(set(&["new", "old"]))]);
        assert_eq!(begun().waiting_for(&members, &reports), [(uid(2), duty)]);
        assert_eq!(begun().advance(&members, &reports), None);
        members.remove(&uid(2));
        assert_eq!(begun().advance(&members, &reports).unwrap().phase, Phase::BothTrusted);
        assert_eq!(begun().advance(&BTreeSet::<NodeUid>::new(), &BTreeMap::new()), None);
    }

    #[test]
    fn nobody_signs_with_a_key_that_nobody_has() {
        let now = Succession { phase: Phase::BothTrusted, ..begun() };
        let mut one = node(false);
        one.trusts = now.trusted();
        let (members, mut reports) = ([uid(1)].into(), BTreeMap::from([(uid(1), one)]));
        assert!(now.waiting_for(&members, &reports).is_empty());
        assert_eq!(now.advance(&members, &reports), None);
        reports.get_mut(&uid(1)).unwrap().can_sign = set(&["old"]);
        assert_eq!(now.duties(&reports[&uid(1)]), [Duty::Sign("new".into())]);
        reports.get_mut(&uid(1)).unwrap().can_sign = set(&["old", "new"]);
        assert_eq!(now.advance(&members, &reports).unwrap().phase, Phase::NewSigns);
    }

    #[test]
    fn it_can_be_given_up_until_the_new_one_has_signed() {
        for phase in Phase::ALL {
            let now = Succession { phase, ..begun() };
            let can = matches!(phase, Phase::Prepared | Phase::BothTrusted);
            assert_eq!(now.abandon().is_some(), can);
        }
        let given_up = begun().abandon().unwrap();
        assert_eq!((given_up.trusted(), given_up.signer()), (set(&["old"]), "old"));
        let (members, reports) = ([uid(1)].into(), BTreeMap::from([(uid(1), node(true))]));
        assert!(given_up.is_over(&members, &reports));
    }

    /// A small generator: the same seed, the same story.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % limit
        }
    }

    /// What is between a node and the leader: reports and duties get lost, are late, and come in
    /// any order; nodes crash between two duties, are away for long, leave and join.
    fn story(seed: u64) -> usize {
        let mut chance = Chance(seed);
        let mut now = begun();
        let mut nodes: BTreeMap<NodeUid, Report> =
            (1..=2 + chance.below(4) as u32).map(|n| (uid(n), node(n <= 2))).collect();
        let mut away: BTreeSet<NodeUid> = BTreeSet::new();
        let mut reports: BTreeMap<NodeUid, Report> = BTreeMap::new();
        let mut late: Vec<(NodeUid, Report)> = Vec::new();
        let gives_up = chance.below(8) == 0;
        let mut next_uid = 100;
        for step in 0..3_000 {
            let members: BTreeSet<NodeUid> = nodes.keys().copied().collect();
            let all: Vec<NodeUid> = members.iter().copied().collect();
            let one = all[chance.below(all.len())];
            let others = all.len() - 1;
            match chance.below(12) {
                // A node hears what it has to do, and does some of it before it crashes.
                0..=3 if !away.contains(&one) => {
                    let signer = now.signer().to_owned();
                    let node = nodes.get_mut(&one).unwrap();
                    let duties = now.duties(node);
                    let done = chance.below(duties.len() + 1);
                    for duty in &duties[..done] {
                        obey(node, duty, &signer, others);
                    }
                }
                // A crash: links are gone and made again under what is on the disk.
                4 => nodes.get_mut(&one).unwrap().old_links = 0,
                // A report, at once or late.
                5 | 6 if !away.contains(&one) => {
                    reports.insert(one, nodes[&one].clone());
                }
                7 => late.push((one, nodes[&one].clone())),
                8 if !late.is_empty() => {
                    let (from, report) = late.swap_remove(chance.below(late.len()));
                    reports.insert(from, report);
                }
                9 if chance.below(10) == 0 => match away.contains(&one) {
                    true => drop(away.remove(&one)),
                    false => drop(away.insert(one)),
                },
                10 if chance.below(30) == 0 && 2 < nodes.len() => {
                    // The last that can sign is not let go.
                    let signers = nodes.values().filter(|node| !node.can_sign.is_empty()).count();
                    if nodes[&one].can_sign.is_empty() || 1 < signers {
                        nodes.remove(&one);
                        reports.remove(&one);
                        away.remove(&one);
                    }
                }
                11 if chance.below(30) == 0 && nodes.len() < 7 => {
                    let mut newcomer = node(false);
                    newcomer.trusts = now.trusted();
                    newcomer.leaves =
                        Plane::ALL.map(|plane| (plane, now.signer().to_owned())).into();
                    nodes.insert(uid(next_uid), newcomer);
                    next_uid += 1;
                }
                _ => {}
            }
            if gives_up && now.phase == Phase::BothTrusted {
                now = now.abandon().unwrap();
            }
            let members: BTreeSet<NodeUid> = nodes.keys().copied().collect();
            let phase = now.phase;
            if let Some(next) = now.advance(&members, &reports) {
                now = next;
            }
            assert!(phase <= now.phase);
            for (shower, shown) in &nodes {
                for (viewer, views) in &nodes {
                    for leaf in shown.leaves.values() {
                        let is_trusted = views.trusts.contains(leaf);
                        assert!(is_trusted, "seed {seed}: {viewer} refuses {shower} in {phase}");
                    }
                }
            }
            if now.is_over(&members, &reports) {
                return step;
            }
        }
        assert!(!away.is_empty(), "seed {seed}: stuck in {}: {nodes:?}", now.phase);
        3_000
    }

    #[test]
    fn in_any_order_of_events_every_node_is_believed_by_every_other() {
        let ended = (0..1_000).filter(|seed| story(*seed) < 3_000).count();
        assert!(800 < ended, "{ended}");
    }
}

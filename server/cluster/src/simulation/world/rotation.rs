//! What each node does about certificates, as the server does it: it believes whom the state says, does its part of
//! rotations and of the change from one authority to another, and renews what the job finds due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carnelian_tls::internode::{Plane, Step};
use tokio::time::{Instant, sleep};

use super::World;
use crate::control::{Control, ControlError};
use crate::simulation::certificates::{self, Leaf, Papers, seconds};
use crate::simulation::net::Net;
use crate::simulation::trace;
use crate::state::{
    ActionId, Certificate, CertificateName, Change, Detail, ManagedBy, NodeUid, State, Time,
};

/// For a certificate to be signed, whoever leads by then.
const SIGN_TIME: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(200);

/// For links to be made anew by their owners.
const RETURN_TIME: Duration = Duration::from_secs(3);

/// Between two looks at whether certificates of others have expired.
const LOOK: Duration = Duration::from_secs(1);

/// So long before its end nobody's certificate is left to itself: who is away for longer has to be replaced.
const RESERVE_S: i64 = 2 * 86_400;

/// What goes on in one life of a node.
#[derive(Clone, Default)]
pub struct Work {
    /// It replaces certificates.
    is_busy: Arc<AtomicBool>,
    /// It tells whom it believes.
    is_telling: Arc<AtomicBool>,
    looked: Option<Instant>,
}

impl World {
    /// To be called for each running node, again and again.
    pub(super) fn certify(&mut self, node: NodeUid, control: &Control, state: &Arc<State>) {
        if state.cluster.is_none() || control.node().is_none() {
            return;
        }
        let net = self.net.clone();
        net.believe(node, state);
        let work = &mut self.machines.get_mut(&node).expect("it runs").work;
        if work.looked.is_none_or(|at| LOOK <= at.elapsed()) {
            work.looked = Some(Instant::now());
            net.judge_again(node);
        }
        let work = work.clone();
        let own = Node { net, control: control.clone(), node, life: self.net.life(node) };
        if state.replacement.is_some() && !work.is_telling.swap(true, Ordering::Relaxed) {
            let (own, state, is_telling) = (own.clone(), Arc::clone(state), work.is_telling);
            tokio::spawn(async move {
                if own.tell_trust(&state).await.is_err() {
                    sleep(Duration::from_secs(1)).await;
                }
                is_telling.store(false, Ordering::Relaxed);
            });
        }
        if work.is_busy.swap(true, Ordering::Relaxed) {
            return;
        }
        let (state, is_busy) = (Arc::clone(state), work.is_busy);
        tokio::spawn(async move {
            own.look(&state).await;
            is_busy.store(false, Ordering::Relaxed);
        });
    }

    /// Days go by, if nobody's certificate runs out meanwhile.
    pub(super) fn let_days_go_by(&mut self) {
        let by_s = self.chance.i64(3600..5 * 86_400);
        let now_s = seconds(self.net.true_time());
        let members = self.members();
        let last_s = {
            let state = self.net.state();
            let papers = members.iter().filter_map(|node| state.papers.get(node));
            papers.flat_map(|papers| papers.leaves.values()).map(|leaf| leaf.not_after).min()
        };
        if last_s.is_some_and(|last_s| now_s + by_s < last_s - RESERVE_S) {
            trace::note(format_args!("{by_s} s go by"));
            self.figures.days += (by_s / 86_400) as u64;
            self.net.leap(by_s * 1000);
        }
    }

    /// Clocks are right, and what was signed by ones that were fast has begun to be valid.
    pub(super) fn right_clocks(&self) {
        self.net.right_clocks();
        let now_s = seconds(self.net.true_time());
        let first_s = {
            let state = self.net.state();
            let leaves = state.papers.values().flat_map(|papers| papers.leaves.values());
            leaves.map(|leaf| leaf.not_before).max().unwrap_or(0)
        };
        self.net.leap(1000 * (first_s - now_s).max(0));
    }

    /// Whether all show and believe what they should, on all of their links.
    pub(super) fn is_certified(&self, state: &State) -> bool {
        let net = self.net.state();
        let signer = state.signing_authority().map(|it| &it.fingerprint);
        let trusted = state.trusted_authorities();
        state.replacement.is_none()
            && state.nodes.keys().all(|node| {
                let Some(papers) = net.papers.get(node) else { return false };
                papers.trusts.iter().eq(trusted.iter().map(|it| &it.fingerprint))
                    && papers.leaves.values().all(|leaf| Some(&leaf.authority) == signer)
                    && net.old_links(*node).is_empty()
            })
    }

    /// A member has a newcomer's certificates signed.
    pub(super) fn admit(&mut self, node: NodeUid) {
        let running = self.running();
        let Some(member) = self.any_of(&running).and_then(|uid| self.control(uid)) else { return };
        let state = member.state();
        if !state.is_member(node) || !self.promised.lock().admitted.insert(node) {
            return;
        }
        let trusting = Papers::trusting(&state);
        let promised = Arc::clone(&self.promised);
        tokio::spawn(async move {
            let signed = member.sign(node, &certificates::request(&Plane::ALL)).await;
            let mut promised = promised.lock();
            match signed {
                Ok(signed) => promised.signed.push((node, signed, trusting)),
                Err(_) => {
                    promised.admitted.remove(&node);
                }
            }
        });
    }

    /// Newcomers whose certificates are signed, and whom they are to believe.
    pub(super) fn newcomers(&mut self) -> Vec<(NodeUid, Papers)> {
        let signed = std::mem::take(&mut self.promised.lock().signed);
        let mut newcomers = Vec::new();
        for (node, signed, trusting) in signed {
            let now = self.net.state().now(node);
            match Papers::new(&signed, trusting, now) {
                Ok(papers) => newcomers.push((node, papers)),
                Err(reason) => {
                    trace::note(format_args!("node {node} does not join: {reason}"));
                    self.promised.lock().admitted.remove(&node);
                }
            }
        }
        newcomers
    }
}

/// One life of a node.
#[derive(Clone)]
struct Node {
    net: Net,
    control: Control,
    node: NodeUid,
    life: u64,
}

impl Node {
    fn with_papers<T>(&self, work: impl FnOnce(&mut Papers, Time) -> T) -> Option<T> {
        let mut state = self.net.state();
        let now = state.now(self.node);
        let lives = state.is_life(self.node, self.life);
        state.papers.get_mut(&self.node).filter(|_| lives).map(|papers| work(papers, now))
    }

    async fn look(&self, state: &State) {
        let asked = state.awaiting(self.node).find_map(|action| match &action.detail {
            Detail::Rotate { name } => Some((action.id.clone(), name.clone())),
            _ => None,
        });
        if let Some((action, name)) = asked {
            return self.take_part(action, name).await;
        }
        if let Some(replacement) = &state.replacement {
            let old_links = self.net.state().old_links(self.node).len();
            let report = self.with_papers(|papers, now| papers.report(state, old_links, now));
            let Some(report) = report else { return };
            match replacement.succession.step(&report) {
                Some(Step::Renew(planes)) => {
                    let renewed = self.renew(&planes).await;
                    trace::note(format_args!(
                        "node {} for the new authority: {renewed:?}",
                        self.node
                    ));
                }
                Some(Step::RemakeLinks) => self.renew_links().await,
                None => {}
            }
        }
        let due = self.with_papers(|papers, now| {
            let due = papers.due(state, now);
            if !due.is_empty() {
                papers.tried_s = seconds(now);
            }
            due
        });
        if let Some(due) = due.filter(|due| !due.is_empty()) {
            let renewed = self.renew(&due).await;
            trace::note(format_args!("node {}, by the job: {renewed:?}", self.node));
        }
    }

    async fn take_part(&self, action: ActionId, name: Option<String>) {
        let planes: Vec<Plane> = Plane::ALL
            .into_iter()
            .filter(|plane| name.as_deref().is_none_or(|name| name == name_of(*plane).as_str()))
            .collect();
        let error = self.renew(&planes).await.err();
        trace::note(format_args!("node {} as asked: {error:?}", self.node));
        let confirm = Change::ConfirmAction { action, node: self.node, error };
        if self.control.change(confirm).await.is_err() {
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn renew(&self, planes: &[Plane]) -> Result<(), String> {
        let ends = Instant::now() + SIGN_TIME;
        let signed = loop {
            match self.control.sign(self.node, &certificates::request(planes)).await {
                Ok(signed) => break signed,
                Err(error) if ends < Instant::now() => return Err(error.to_string()),
                Err(_) => sleep(PAUSE).await,
            }
        };
        for text in &signed {
            let installed = self.with_papers(|papers, now| papers.install(text, now));
            installed.ok_or("it was stopped")??;
        }
        self.renew_links().await;
        self.tell().await.map_err(|error| error.to_string())
    }

    /// Has the links that there are show the certificates of now.
    async fn renew_links(&self) {
        self.control.renew_links().await;
        self.net.mark_old_links(self.node);
        let until = Instant::now() + RETURN_TIME;
        while !self.net.state().old_links(self.node).is_empty() && Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
        }
        if self.net.life(self.node) == self.life {
            self.net.end_old_links(self.node);
        }
    }

    async fn tell(&self) -> Result<(), ControlError> {
        let leaves = self.with_papers(|papers, _| papers.leaves.clone()).unwrap_or_default();
        let certificates = leaves.values().map(described).collect();
        let change = Change::ReportCertificates { node: self.node, certificates };
        self.control.change(change).await.map(drop)
    }

    async fn tell_trust(&self, state: &State) -> Result<(), ControlError> {
        let Some(replacement) = &state.replacement else { return Ok(()) };
        let old_links = self.net.state().old_links(self.node).len();
        let report = self.with_papers(|papers, now| papers.report(state, old_links, now));
        let Some(report) = report.filter(|it| replacement.reports.get(&self.node) != Some(it))
        else {
            return Ok(());
        };
        self.control.change(Change::ReportTrust { node: self.node, report }).await.map(drop)
    }
}

fn described(leaf: &Leaf) -> Certificate {
    let time = |seconds: i64| Time(u64::try_from(seconds).unwrap_or(0) * 1000);
    Certificate {
        name: name_of(leaf.plane),
        node_uid: leaf.node,
        managed_by: ManagedBy::Cluster,
        subject: String::new(),
        issuer: leaf.authority.clone(),
        serial: format!("{:x}", leaf.serial),
        sha256: String::new(),
        key_type: String::new(),
        not_before: time(leaf.not_before),
        not_after: time(leaf.not_after),
        failure: None,
    }
}

fn name_of(plane: Plane) -> CertificateName {
    match plane {
        Plane::Control => CertificateName::CcsInternodeEncryption,
        Plane::Data => CertificateName::DataInternodeEncryption,
    }
}

/// Whoever founds a cluster signs for itself.
pub(super) fn first_papers(node: NodeUid, now: Time) -> Papers {
    let authority = certificates::authority(0, now).fingerprint;
    let leaf = |plane| certificates::leaf(node, plane, &authority, Default::default(), now);
    Papers {
        leaves: BTreeMap::from(Plane::ALL.map(|plane| (plane, leaf(plane)))),
        trusts: vec![authority.clone()],
        ..Papers::default()
    }
}

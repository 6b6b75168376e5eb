//! What goes wrong, and what is asked for meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use carnelian_tls::internode::Plane;

use super::{STRANGER, World};
use crate::lease::Beat;
use crate::rpc::{self, Request, Response};
use crate::simulation::{certificates, trace};
use crate::state::{
    ActionId, AddNode, AlertPatch, Change, ClusterPatch, CreateCluster, CreateUser, DatabasePatch,
    Management, NodeFacts, NodeSettings, NodeUid, Outcome, PolicyPatch, State, Time, WirePatch,
};

impl World {
    pub(super) async fn fault(&mut self) {
        let running = self.running();
        let all: Vec<NodeUid> = self.machines.keys().copied().collect();
        let down: Vec<NodeUid> = all.iter().filter(|uid| !running.contains(uid)).copied().collect();
        let kind = self.chance.u8(..18);
        trace::note(format_args!("fault {kind}"));
        match kind {
            0..=2 => {
                if let Some(uid) = self.any_of(&running) {
                    self.crash(uid).await;
                }
            }
            3..=6 => {
                if let Some(uid) = self.any_of(&down) {
                    self.start(uid).await;
                }
            }
            7 => {
                // Power returns at once.
                if let Some(uid) = self.any_of(&running) {
                    self.crash(uid).await;
                    self.start(uid).await;
                }
            }
            8..=10 => {
                let cuts = self.some_cuts(&all);
                self.figures.partitions += 1;
                self.net.set_cuts(cuts);
            }
            11 | 12 => self.net.set_cuts(BTreeSet::new()),
            13 => {
                let (loss, delay) = (self.chance.u16(..40), self.chance.u64(1..120));
                self.net.set_weather(loss, delay);
            }
            14 => {
                if let Some(uid) = self.any_of(&all) {
                    let by = self.chance.i64(-100_000_000..100_000_000);
                    self.net.turn_clock(uid, by);
                }
            }
            15 | 16 => self.let_days_go_by(),
            _ => match self.full.take() {
                Some(uid) => self.machines[&uid].disk.set_full(false),
                None => {
                    self.full = self.any_of(&all);
                    if let Some(uid) = self.full {
                        self.machines[&uid].disk.set_full(true);
                    }
                }
            },
        }
    }

    /// One node away from all others, two halves, one direction, or by pairs.
    fn some_cuts(&mut self, all: &[NodeUid]) -> BTreeSet<(NodeUid, NodeUid)> {
        let kind = self.chance.u8(..4);
        let alone = self.any_of(all);
        let half: BTreeSet<NodeUid> = all.iter().filter(|_| self.chance.bool()).copied().collect();
        let mut cuts = BTreeSet::new();
        for from in all {
            for to in all.iter().filter(|to| *to != from) {
                let cut = match kind {
                    0 => Some(*from) == alone || Some(*to) == alone,
                    1 => half.contains(from) != half.contains(to),
                    2 => Some(*from) == alone,
                    _ => self.chance.u8(..4) == 0,
                };
                if cut {
                    cuts.insert((*from, *to));
                }
            }
        }
        cuts
    }

    /// Somebody asks some node for something.
    pub(super) fn request(&mut self) {
        let running = self.running();
        let Some(uid) = self.any_of(&running) else { return };
        let control = self.control(uid).expect("it runs");
        let number = self.chance.u32(..);
        let state = control.state();
        let kind = self.chance.u8(..32);
        let placed = state.databases.values().next().map(|it| (it.uid, it.placement.clone()));
        let change = match kind {
            0..=9 => create_user(&format!("user-{number}@cluster.local")),
            10 | 11 => {
                let slow_log_max_len = Some(number % 10_000);
                let patch = PolicyPatch { slow_log_max_len, ..PolicyPatch::default() };
                Change::SetPolicy(Box::new(patch))
            }
            12 | 13 => match placed {
                Some((database, _)) => Change::UpdateDatabase {
                    database,
                    patch: Box::new(
                        DatabasePatch {
                            maxclients: Some(number % 1000),
                            ..DatabasePatch::default()
                        }
                        .into(),
                    ),
                    action: ActionId(format!("update-{number}")),
                },
                None => return,
            },
            14 | 15 => match placed {
                Some((database, placement)) if !placement.replicas.is_empty() => Change::Promote {
                    database,
                    node: placement.replicas[0],
                    epoch: placement.epoch,
                    action: None,
                    holder: None,
                },
                _ => return,
            },
            16 => {
                if state.databases.len() > 3 {
                    return;
                }
                create_database(&format!("db-{number}"), number.is_multiple_of(2))
            }
            17 | 18 => {
                if self.machines.len() >= 6 || state.nodes.len() >= 5 {
                    return;
                }
                add_node(number)
            }
            19 => {
                let nodes: Vec<NodeUid> = state.nodes.keys().copied().collect();
                if nodes.len() <= 1 {
                    return;
                }
                let Some(node) = self.any_of(&nodes) else { return };
                Change::RemoveNode { node, action: ActionId(format!("remove-{number}")) }
            }
            20 => {
                let nodes: Vec<NodeUid> = state.nodes.keys().copied().collect();
                let Some(node) = self.any_of(&nodes) else { return };
                let on = number.is_multiple_of(2);
                Change::SetMaintenance { node, on, action: ActionId(format!("m-{number}")) }
            }
            21 => Change::RotateCertificates {
                name: None,
                action: ActionId(format!("rotate-{number}")),
            },
            22 => Change::SetCluster {
                patch: Box::default(),
                alerts: BTreeMap::from([(
                    "cluster_node_operation_failed".to_owned(),
                    AlertPatch::Switch(number.is_multiple_of(2)),
                )]),
            },
            23 | 24 => {
                let authority = certificates::authority(u64::from(number) + 1, Time(0));
                let action = ActionId(format!("authority-{number}"));
                Change::ReplaceAuthority { authority: Box::new(authority), action }
            }
            25 if number.is_multiple_of(2) => Change::KeepAuthority,
            25 => {
                let internal_cert_validity_days = Some(30 + number % 30);
                let patch = ClusterPatch { internal_cert_validity_days, ..Default::default() };
                Change::SetCluster { patch: Box::new(patch), alerts: BTreeMap::new() }
            }
            26..=28 => {
                self.steal(uid);
                return;
            }
            _ => {
                let stranger = state.removed_nodes.iter().next().copied().unwrap_or(STRANGER);
                self.intrude(stranger, uid, &state, number);
                return;
            }
        };
        trace::note(format_args!("request {kind} to node {uid}"));
        let promised = Arc::clone(&self.promised);
        tokio::spawn(async move {
            let asked = control.change(change.clone()).await;
            trace::note(format_args!("request {kind}: {asked:?}"));
            let mut promised = promised.lock();
            match asked {
                Ok(outcome) => {
                    promised.acknowledged += 1;
                    match (change, outcome) {
                        (Change::CreateUser(user), _) => {
                            promised.users.insert(user.email);
                        }
                        (Change::AddNode(_), Outcome::Node(uid)) => promised.joining.push(uid),
                        _ => {}
                    }
                }
                Err(crate::ControlError::Refused(_)) => promised.refused += 1,
                Err(_) => promised.unanswered += 1,
            }
        });
    }

    /// Somebody has got hold of a certificate that a node has shown at some time, or of one for something else, and
    /// tries it.
    fn steal(&mut self, to: NodeUid) {
        let net = self.net.clone();
        let found = {
            let state = net.state();
            let shown = &state.links.shown;
            (!shown.is_empty()).then(|| shown[self.chance.usize(..shown.len())].clone())
        };
        let Some(mut leaf) = found else { return };
        match self.chance.u8(..6) {
            0 => leaf.is_foreign = true,
            1 => leaf.authority = certificates::authority(u64::MAX, Time(0)).fingerprint,
            2 => leaf.not_after -= 60 * 86_400,
            _ => {}
        }
        let from = (STRANGER, net.life(STRANGER));
        net.state().lives.entry(STRANGER).or_insert(0);
        tokio::spawn(async move { drop(net.connect(from, to, Some(leaf)).await) });
    }

    /// Somebody who is no member asks for a change and says that it is alive.
    fn intrude(&self, stranger: NodeUid, to: NodeUid, state: &State, number: u32) {
        let net = self.net.clone();
        // A node that knows no cluster yet has nobody to believe.
        let trusted = state.trusted_authorities();
        let Some(authority) = trusted.first() else { return };
        let now = net.true_time();
        // Certified, as if it had been about to be admitted.
        let leaf = certificates::leaf(
            stranger,
            Plane::Control,
            &authority.fingerprint,
            Default::default(),
            now,
        );
        let from = (STRANGER, net.life(STRANGER));
        net.state().lives.entry(STRANGER).or_insert(0);
        tokio::spawn(async move {
            let shown = || Some(leaf.clone());
            let Ok(mut stream) = net.connect(from, to, shown()).await else { return };
            let proposal = crate::raft::Proposal {
                id: (number.into(), 0),
                at: Time(0),
                change: create_user("intruder@cluster.local"),
            };
            if rpc::write(&mut stream, &Request::Change(proposal)).await.is_err() {
                return;
            }
            if let Ok(Some(Response::Change(..))) = rpc::read(&mut stream).await {
                trace::violation(format!("a change was taken from node {stranger}, no member"));
            }
            let Ok(mut stream) = net.connect(from, to, shown()).await else { return };
            let beat = Beat {
                node: stranger,
                process: 1,
                reports: Vec::new(),
                returned: Vec::new(),
                as_of: None,
            };
            let other = Request::Other { kind: "sign".to_owned(), body: Vec::new() };
            for request in [Request::Beat(beat), other] {
                if rpc::write(&mut stream, &request).await.is_err() {
                    return;
                }
                if let Ok(Some(Response::Beat(_) | Response::Other(_))) =
                    rpc::read(&mut stream).await
                {
                    trace::violation(format!("node {stranger}, no member, was answered"));
                }
            }
        });
    }
}

pub(super) fn new_cluster() -> CreateCluster {
    CreateCluster {
        id: certificates::CLUSTER.to_owned(),
        name: "cluster.local".to_owned(),
        node: NodeSettings { addr: "10.0.0.1".to_owned(), ..NodeSettings::default() },
        facts: NodeFacts::default(),
        admin: CreateUser {
            email: "admin@cluster.local".to_owned(),
            password: "hash".to_owned(),
            ..CreateUser::default()
        },
        authority: certificates::authority(0, Time(0)),
        certificates: BTreeMap::new(),
        policy: PolicyPatch::default(),
    }
}

pub(super) fn add_node(number: u32) -> Change {
    let settings = NodeSettings { addr: format!("host-{number}"), ..NodeSettings::default() };
    Change::AddNode(Box::new(AddNode { settings, facts: NodeFacts::default(), replace: None }))
}

pub(super) fn create_user(email: &str) -> Change {
    Change::CreateUser(Box::new(CreateUser {
        email: email.to_owned(),
        password: "hash".to_owned(),
        role: Some(Management::DbViewer),
        ..CreateUser::default()
    }))
}

pub(super) fn create_database(name: &str, replication: bool) -> Change {
    let patch = DatabasePatch {
        name: Some(name.to_owned()),
        memory_size: Some(0),
        replication: Some(replication),
        ..DatabasePatch::default()
    };
    Change::CreateDatabase {
        spec: Box::new(WirePatch::from(patch)),
        on: None,
        admin_password: String::new(),
        action: ActionId(format!("create-{name}")),
    }
}

//! Raft's membership follows the state: who is a member learns, and up to five vote.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Control, Member};
use crate::placement;
use crate::raft::{id_of, uid_of};
use crate::state::NodeUid;
use openraft::{BasicNode, ChangeMembers};

pub const TICK: Duration = Duration::from_millis(300);

/// Well below the time after which a node asks for votes.
pub const TICK_OF_VOTES: Duration = Duration::from_millis(200);

/// As long as a change of members may take before the leader looks again.
const CHANGE_TIME: Duration = Duration::from_secs(5);

/// A learner that is at most so many entries behind may vote.
const LAG_MAX: u64 = 64;

impl Control {
    /// A node that was removed while it was away goes on asking for votes, and gets those of nodes that were away for
    /// as long. Each is of a later term than the others' election, which it so brings to an end. Who knows that the
    /// node is gone does not wait as after other elections that were lost: the other would ask again meanwhile.
    pub(super) async fn outvote_removed(self) {
        let Some(member) = self.member() else { return };
        let is_outdone = {
            let metrics = member.raft.metrics().borrow().clone();
            let voted_for = metrics.vote.leader_id().voted_for().map(uid_of);
            let is_removed = |node: NodeUid| self.state().removed_nodes.contains(&node);
            let membership = metrics.membership_config.membership();
            !metrics.vote.is_committed()
                && voted_for.is_some_and(is_removed)
                && membership.voter_ids().any(|id| id == metrics.id)
        };
        if is_outdone && let Err(error) = member.raft.trigger().elect().await {
            tracing::debug!("no election: {error}");
        }
    }

    pub(super) async fn keep_membership(self) {
        let Some((member, _)) = self.leading() else { return };
        let state = self.state();
        if state.cluster.is_none() {
            return;
        }
        let metrics = member.raft.metrics();
        let (known, voting, caught_up) = {
            let metrics = metrics.borrow();
            let membership = metrics.membership_config.membership();
            let known: BTreeSet<NodeUid> = membership.nodes().map(|(id, _)| uid_of(*id)).collect();
            let voting: BTreeSet<NodeUid> = membership.voter_ids().map(uid_of).collect();
            let last = metrics.last_log_index.unwrap_or(0);
            let close = |index: u64| last.saturating_sub(index) <= LAG_MAX;
            let replication = metrics.replication.iter().flatten();
            let caught_up: BTreeSet<NodeUid> = replication
                .filter(|(_, matched)| matched.is_some_and(|id| close(id.index)))
                .map(|(id, _)| uid_of(*id))
                .collect();
            (known, voting, caught_up)
        };

        if let Some(node) = state.nodes.values().find(|node| !known.contains(&node.uid)) {
            let place = BasicNode { addr: node.internode_address() };
            let added = BTreeMap::from([(id_of(node.uid), place)]);
            return change(&member, ChangeMembers::AddNodes(added)).await;
        }

        let wanted = placement::voters(&state, &voting);
        // A learner votes once it has what the others have, and has been heard of.
        let ledger_heard = |node: &NodeUid| {
            let heard = self.0.ledger.lock();
            *node == member.node || heard.silent_for(*node, self.steady()) < Duration::from_secs(1)
        };
        let ready = |node: &&NodeUid| {
            voting.contains(*node) || caught_up.contains(*node) && ledger_heard(node)
        };
        let mut new: BTreeSet<NodeUid> = wanted.iter().filter(ready).copied().collect();
        // Who is to be exchanged stays until the other is ready.
        let missing = wanted.len() - new.len();
        let stays = |node: &&NodeUid| state.is_member(**node) && !state.is_leaving(**node);
        let leaving = voting.difference(&wanted).filter(stays);
        new.extend(leaving.take(missing).copied());
        if new != voting && !new.is_empty() {
            let new = new.into_iter().map(id_of).collect();
            return change(&member, ChangeMembers::ReplaceAllVoters(new)).await;
        }

        let gone: BTreeSet<u64> = known
            .iter()
            .filter(|node| !state.is_member(**node) && !voting.contains(node))
            .map(|node| id_of(*node))
            .collect();
        if !gone.is_empty() {
            for node in &gone {
                self.0.peers.forget(uid_of(*node));
            }
            change(&member, ChangeMembers::RemoveNodes(gone)).await;
        }
    }
}

async fn change(member: &Member, change: ChangeMembers<u64, BasicNode>) {
    // Voters that no longer vote go on learning until they are removed.
    let changed = member.answered(member.raft.change_membership(change, true));
    if let Ok(Some(Err(error))) = tokio::time::timeout(CHANGE_TIME, changed).await {
        tracing::debug!("the members of the cluster stay as they are: {error}");
    }
}

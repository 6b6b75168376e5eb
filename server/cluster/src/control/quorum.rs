//! A leader that no majority answers any longer makes room for another, and so does a node that was removed.
//!
//! Its heartbeats may still reach some: those keep refusing to elect anybody else while they hear of it, as
//! Raft asks of them, and so few nodes can keep a cluster without a leader that could have one. That is not
//! only so in a network that is parted oddly: a node that was removed, and has not heard of it, is refused by
//! all who have. So it falls silent for as long as an election takes, and speaks up again for a moment in
//! between, in case that nobody else could be elected.
//!
//! A leader that has no vote any more, and knows that a majority of the others agreed to that, makes room for good
//! and decides nothing more, as Raft asks of it. It would soon be removed by the state and then be heard by nobody,
//! while some may have entries that only it can bring to the rest: with the next change of voters among them, those
//! who are to vote from then on could need the one who is not, which has more than they do and so refuses them.

use std::time::Duration;

use openraft::{BasicNode, RaftMetrics};

use super::Control;

pub const TICK: Duration = Duration::from_millis(300);

/// Without a majority for so long it is no leader to anybody who needs one.
const PATIENCE_MS: u64 = 2000;

/// Turns of silence, and of speaking up.
const SILENT: u32 = 12;
const SPEAKING: u32 = 4;

impl Control {
    pub(super) async fn make_room(self) {
        let Some(member) = self.member() else { return };
        if self.0.peers.is_removed() {
            // It would only keep those from agreeing who have not heard of it yet.
            member.raft.runtime_config().elect(false);
            member.raft.runtime_config().heartbeat(false);
            return;
        }
        let (is_relieved, is_lost) = {
            let metrics = member.raft.metrics();
            let metrics = metrics.borrow();
            let is_lost = metrics.current_leader == Some(metrics.id)
                && metrics.millis_since_quorum_ack.is_some_and(|ms| PATIENCE_MS < ms);
            (is_relieved(&metrics), is_lost)
        };
        if is_relieved {
            member.raft.runtime_config().heartbeat(false);
            return;
        }
        let mut turn = self.0.without_quorum.lock();
        *turn = if is_lost { turn.wrapping_add(1) } else { 0 };
        let is_silent = is_lost && *turn % (SILENT + SPEAKING) < SILENT;
        member.raft.runtime_config().heartbeat(!is_silent);
    }
}

/// Whether a node leads, and may go on to.
pub fn leads(metrics: &RaftMetrics<u64, BasicNode>) -> bool {
    metrics.current_leader == Some(metrics.id) && !is_relieved(metrics)
}

/// Whether a node has given back its vote, for all it knows of the log for good. Raft keeps it as leader while it learns.
fn is_relieved(metrics: &RaftMetrics<u64, BasicNode>) -> bool {
    let membership = &metrics.membership_config;
    let votes = membership.membership().voter_ids().any(|id| id == metrics.id);
    !votes && *membership.log_id() <= metrics.last_applied
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use openraft::{CommittedLeaderId, Membership};

    use super::*;
    use crate::raft::{LogId, StoredMembership};

    #[test]
    fn who_leads_without_a_vote_does_so_until_the_others_have_agreed_to_that() {
        let at = |index| Some(LogId::new(CommittedLeaderId::new(4, 1), index));
        let nodes: BTreeMap<u64, BasicNode> =
            (1..=3).map(|id| (id, BasicNode::default())).collect();
        let voted_by = |voters: Vec<BTreeSet<u64>>, index| {
            let membership = Membership::new(voters, nodes.clone());
            Arc::new(StoredMembership::new(at(index), membership))
        };
        let (all, others) = (BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3]));
        let mut metrics = RaftMetrics::new_initial(1);
        (metrics.current_term, metrics.current_leader) = (4, Some(1));
        metrics.last_applied = at(8);
        for (voters, index) in [(vec![all.clone()], 7), (vec![all, others.clone()], 8)] {
            metrics.membership_config = voted_by(voters, index);
            assert!(leads(&metrics));
        }
        metrics.membership_config = voted_by(vec![others], 9);
        assert!(leads(&metrics), "it may not be so yet");
        metrics.last_applied = at(9);
        assert!(!leads(&metrics));
    }
}

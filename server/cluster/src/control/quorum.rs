//! A leader that no majority answers any longer makes room for another, and so does a node that was removed.
//!
//! Its heartbeats may still reach some: those keep refusing to elect anybody else while they hear of it, as
//! Raft asks of them, and so few nodes can keep a cluster without a leader that could have one. That is not
//! only so in a network that is parted oddly: a node that was removed, and has not heard of it, is refused by
//! all who have. So it falls silent for as long as an election takes, and speaks up again for a moment in
//! between, in case that nobody else could be elected.

use std::time::Duration;

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
        let is_lost = {
            let metrics = member.raft.metrics();
            let metrics = metrics.borrow();
            metrics.current_leader == Some(metrics.id)
                && metrics.millis_since_quorum_ack.is_some_and(|ms| PATIENCE_MS < ms)
        };
        let mut turn = self.0.without_quorum.lock();
        *turn = if is_lost { turn.wrapping_add(1) } else { 0 };
        let is_silent = is_lost && *turn % (SILENT + SPEAKING) < SILENT;
        member.raft.runtime_config().heartbeat(!is_silent);
    }
}

//! What the leader works on: emptying nodes, bringing shards back, replacing replicas, forgetting.

use std::time::Duration;

use rand::RngCore;

use super::{Control, Member};
use crate::lease::BEAT;
use crate::placement::{self, Step};
use crate::raft::Chance;
use crate::state::{
    Action, ActionId, ActionKind, Change, Database, DatabaseStatus, DatabaseUid, Detail,
    NodeStatus, NodeUid, Object, Outcome, Placement, Refused, State, Time, TransferKind,
};

pub const TICK: Duration = Duration::from_millis(300);

/// How long a step of moving a database's shards may take.
const REBALANCE_TIME: Duration = Duration::from_secs(1800);

impl Control {
    pub(super) async fn do_work(self) {
        let Some((member, _)) = self.leading() else { return };
        let state = self.state();
        let running = state.actions.values().filter(|action| !action.status.is_over());
        for action in running {
            match action.object {
                Object::Node(node) => self.work_on(&member, &state, action, node).await,
                Object::Database(database) if action.kind == ActionKind::Rebalance => {
                    self.rebalance(&member, &state, action, database).await;
                }
                _ => {}
            }
        }
        let reports = self.0.ledger.lock().reports(self.steady());
        let has_all = |database: &Database, node| {
            placement::report_of(database, node, &reports).is_some_and(|report| report.synced)
        };
        let lost =
            || placement::replace_lost(&state, self.now(), |database| self.is_well(database));
        if let Some(change) = due_backup(&state, self.now()) {
            self.decide(&member, change).await;
        }
        if let Some(change) = placement::repair(&state, has_all).or_else(lost) {
            self.decide(&member, change).await;
        }
    }

    /// Whether a database's primary is there, and is the process that has the data.
    fn is_well(&self, database: &Database) -> bool {
        let (ledger, now) = (self.0.ledger.lock(), self.steady());
        let Placement { primary, holder, .. } = database.placement;
        let process = ledger.process(primary).map(|(process, _)| process);
        process.is_some() && process == holder && ledger.silent_for(primary, now) < 4 * BEAT
    }

    /// The next step of moving a database's shards.
    async fn rebalance(
        &self,
        member: &Member,
        state: &State,
        action: &Action,
        database: DatabaseUid,
    ) {
        let Detail::Rebalance { primary, replicas } = &action.detail else { return };
        let Some(database) = state.databases.get(&database) else { return };
        let reports = self.0.ledger.lock().reports(self.steady());
        let id = action.id.clone();
        let step = match self.now().since(action.heartbeat) < REBALANCE_TIME {
            true => placement::rebalancing(state, database, *primary, replicas, &reports),
            false => Err("nothing has come of it for too long".to_owned()),
        };
        let change = match step {
            Ok(Some(Step::Wait | Step::Stuck(_))) => return,
            Ok(Some(Step::Change(change))) => change,
            Ok(None) => Change::FinishAction { action: id, error: None },
            Err(error) => Change::FinishAction { action: id, error: Some(error) },
        };
        let (progress, step) = match &change {
            Change::FinishAction { .. } => {
                self.decide(member, change).await;
                return;
            }
            Change::Promote { .. } => (60.0, "changing roles"),
            _ if database.placement.primary == *primary => (80.0, "removing a shard"),
            _ => (20.0, "adding a shard"),
        };
        let made = match &change {
            // Both the old primary and the new one have to be ready.
            Change::Promote { .. } => self.change(change).await.map_err(|error| error.refusal()),
            _ => self.decide(member, change).await.unwrap_or(Ok(Outcome::Unchanged)),
        };
        match made {
            Ok(_) => {
                let (action, step) = (action.id.clone(), step.to_owned());
                self.decide(member, Change::AdvanceAction { action, progress, step }).await;
            }
            Err(Refused { description, .. }) => {
                tracing::info!("rebalancing database {}: {description}", database.uid);
            }
        }
    }

    async fn work_on(&self, member: &Member, state: &State, action: &Action, node: NodeUid) {
        let reports = self.0.ledger.lock().reports(self.steady());
        let step = match action.kind {
            ActionKind::RemoveNode => {
                placement::emptying(state, node, false, &reports, |it| self.is_well(it))
            }
            ActionKind::MaintenanceOn => {
                placement::emptying(state, node, true, &reports, |it| self.is_well(it))
            }
            ActionKind::MaintenanceOff => placement::returning(state, node, &reports),
            _ => return,
        };
        let id = action.id.clone();
        let (change, progress) = match step {
            // Its vote goes first: see [`placement::voters`]. And who leads leaves its own end to the next.
            None if action.kind == ActionKind::RemoveNode
                && (node == member.node || member.votes(node)) =>
            {
                return;
            }
            None => (Change::FinishAction { action: id, error: None }, None),
            Some(Step::Wait) => return,
            Some(Step::Stuck(database)) => {
                let error = Some(format!("no other node can take database {database}"));
                (Change::FinishAction { action: id, error }, None)
            }
            Some(Step::Change(change)) => (change, Some(id)),
        };
        let made = match &change {
            // Both the old primary and the new one have to be ready.
            Change::Promote { .. } => self.change(change).await.map_err(|error| error.refusal()),
            _ => self.decide(member, change).await.unwrap_or(Ok(Outcome::Unchanged)),
        };
        match (made, progress) {
            (Ok(Outcome::Unchanged), _) | (Ok(_), None) => {}
            (Ok(_), Some(action)) => {
                let (progress, step) = (action_progress(state, node), "moving shards".to_owned());
                self.decide(member, Change::AdvanceAction { action, progress, step }).await;
            }
            (Err(Refused { description, .. }), _) => {
                tracing::info!("{} of node {node}: {description}", action.kind.name());
            }
        }
    }
}

/// The first backup that is due and can begin.
fn due_backup(state: &State, now: Time) -> Option<Change> {
    let under_way =
        state.databases.values().filter(|it| it.transfers.backup.is_under_way()).count();
    if state.policy.max_simultaneous_backups as usize <= under_way {
        return None;
    }
    state.databases.values().find_map(|database| {
        let is_idle = database.status == DatabaseStatus::Active
            && database.action.is_none()
            && database.transfers.current().is_none();
        let primary = state.nodes.get(&database.placement.primary)?;
        let at_s = database.next_backup_s(&state.jobs)?;
        if !is_idle || now.seconds() < at_s || primary.status == NodeStatus::Down {
            return None;
        }
        Some(Change::StartTransfer {
            database: database.uid,
            kind: TransferKind::Backup,
            locations: vec![database.settings.backup_location.clone()?],
            id: ActionId(format!("{:016x}{:016x}", Chance.next_u64(), Chance.next_u64())),
        })
    })
}

/// By the shards that are still there.
fn action_progress(state: &State, node: NodeUid) -> f64 {
    let left = state.databases.values().filter(|database| database.is_on(node)).count();
    100.0 / (1.0 + left as f64)
}

//! The leader watches over nodes and primaries: who is down, and who takes the place of whom.

use std::time::Duration;

use tokio::time::Instant;

use super::{Control, Member};
use crate::lease::{BEAT, Ledger};
use crate::placement::{self, Reports, Succession};
use crate::state::{
    Change, Database, DatabaseUid, NodeStatus, NodeUid, Placement, Refused, Sensitivity, Severity,
    State,
};

pub const TICK: Duration = Duration::from_millis(100);

/// How long a node may be silent before it counts as down.
fn patience(state: &State) -> Duration {
    match state.policy.failure_detection_sensitivity {
        Sensitivity::High => Duration::from_millis(1500),
        Sensitivity::Low => Duration::from_millis(5000),
    }
}

/// How long a primary that was started anew waits for replicas that do not tell how far they are, if it has data of
/// its own. Without any it waits for as long as it takes.
const REUNION: Duration = Duration::from_secs(30);

/// How long a primary that was started anew may load its data while a replica has all of them.
const LOADING: Duration = Duration::from_secs(5);

/// In which replicas that are there have told.
const TELLING: Duration = Duration::from_secs(2);

/// How long a planned change of primaries may take.
const WAY_TIME: Duration = Duration::from_secs(6);

impl Control {
    pub(super) async fn watch_over(self) {
        let Some((member, term)) = self.leading() else { return };
        let (state, now) = (self.state(), self.steady());
        let patience = patience(&state);
        let mut changes = Vec::new();
        {
            let mut ledger = self.0.ledger.lock();
            let ledger = ledger.of_term(term, now);
            for node in state.nodes.values() {
                let silent = ledger.silent_for(node.uid, now);
                let status = match node.status {
                    NodeStatus::Provisioning | NodeStatus::Down
                        if ledger.has_heard(node.uid) && silent < patience / 2 =>
                    {
                        NodeStatus::Active
                    }
                    NodeStatus::Active | NodeStatus::Decommissioning
                        if silent > patience && node.uid != member.node =>
                    {
                        NodeStatus::Down
                    }
                    _ => continue,
                };
                changes.push(Change::ReportNode { node: node.uid, status, facts: None });
            }

            let reports = ledger.reports(now);
            let planned = self.0.planned.lock();
            for database in state.databases.values() {
                let placement = &database.placement;
                if placement.replicas.is_empty() || planned.contains(&database.uid) {
                    continue;
                }
                let lost = ledger.silent_for(placement.primary, now) > patience;
                let successor = if lost {
                    ledger.revoke(database.uid, placement.epoch);
                    heir_of_lost(database, &reports, ledger, now, patience)
                } else {
                    ledger.restore(database.uid);
                    let Some((process, since)) = ledger.process(placement.primary) else {
                        continue;
                    };
                    if placement.holder == Some(process) {
                        continue;
                    }
                    let may_tell = |node: NodeUid, has_data: bool| {
                        let is_down = state.nodes[&node].status == NodeStatus::Down;
                        now < since + REUNION && !(is_down && has_data)
                    };
                    let is_late = since + LOADING < now;
                    // -1 is for ever.
                    let wait_s = u64::try_from(database.settings.recovery_wait_time);
                    let is_given_up =
                        wait_s.is_ok_and(|it| since + Duration::from_secs(it).max(TELLING) < now);
                    let reports = told_since(&reports, ledger, placement.primary, since);
                    match restarted(database, &reports, ledger, [is_late, is_given_up], may_tell) {
                        Succession::Same => {
                            let (database, epoch) = (database.uid, placement.epoch);
                            changes.push(Change::Hold { database, epoch, holder: process });
                            continue;
                        }
                        Succession::Other(node) => Some(node),
                        Succession::Wait => {
                            if since + REUNION < now && ledger.note_wait(database.uid, process) {
                                changes.push(tell_of_wait(database));
                            }
                            None
                        }
                    }
                };
                if let Some(node) = successor.filter(|_| ledger.is_free(database.uid, now)) {
                    let (database, epoch) = (database.uid, placement.epoch);
                    let holder = ledger.process(node).map(|(process, _)| process);
                    changes.push(Change::Promote { database, node, epoch, action: None, holder });
                }
            }
        }
        for change in changes {
            if let Some(Err(refused)) = self.decide(&member, change).await {
                tracing::debug!("a decision came too late: {refused}");
            }
        }
    }

    /// Sees to it that nobody can be primary of a database any more, and that the replica which is to be has
    /// everything. The answer ends it.
    pub(super) async fn make_way(
        &self,
        member: &Member,
        uid: DatabaseUid,
        node: NodeUid,
        epoch: u64,
    ) -> Result<Way, Refused> {
        let change = Change::Promote { database: uid, node, epoch, action: None, holder: None };
        let state = self.state();
        State::clone(&state).apply(change, self.0.environment.now())?;
        let busy = || Refused::conflict("db_busy", "its primary is being changed already");
        if !self.0.planned.lock().insert(uid) {
            return Err(busy());
        }
        let mut way = Way { control: self.clone(), database: uid, promoted: false, holder: None };
        let deadline = Instant::now() + WAY_TIME;
        let mut free_since = None;
        while Instant::now() < deadline {
            let now = self.steady();
            let Some((_, term)) = self.leading().filter(|(it, _)| it.node == member.node) else {
                break;
            };
            let ready = {
                let state = self.state();
                let Some(database) = state.databases.get(&uid) else { break };
                if database.placement.epoch != epoch {
                    // The log's answer says so.
                    return Ok(way);
                }
                let mut ledger = self.0.ledger.lock();
                let ledger = ledger.of_term(term, now);
                ledger.revoke(uid, epoch);
                let primary = database.placement.primary;
                let gone = ledger.silent_for(primary, now) > patience(&state);
                if ledger.is_free(uid, now) {
                    let since = *free_since.get_or_insert(now);
                    let reports = ledger.reports(now);
                    let of = |node| placement::report_of(database, node, &reports);
                    // What the primary said after its last write.
                    let last = ledger.heard_at(primary).filter(|at| since + 2 * BEAT < *at);
                    match (of(node), of(primary)) {
                        _ if gone => {
                            let patience = patience(&state);
                            match heir_of_lost(database, &reports, ledger, now, patience) {
                                Some(heir) if heir != node => break,
                                heir => heir.is_some(),
                            }
                        }
                        (Some(replica), Some(primary)) => {
                            last.is_some() && replica.synced && replica.offset >= primary.offset
                        }
                        _ => false,
                    }
                } else {
                    false
                }
            };
            if ready {
                way.promoted = true;
                let ledger = self.0.ledger.lock();
                way.holder = ledger.process(node).map(|(process, _)| process);
                return Ok(way);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        way.promoted = false;
        Err(Refused::conflict("replica_not_ready", "the replica does not have everything yet"))
    }
}

/// For operators, who can have it go on with what there is.
fn tell_of_wait(database: &Database) -> Change {
    let (uid, node) = (database.uid, database.placement.primary);
    tracing::warn!(
        "database {uid} was started on node {node} without its data, and waits for a replica that may have them"
    );
    let fields = [("bdb_uid".to_owned(), uid.0.into()), ("node_uid".to_owned(), node.0.into())];
    Change::Note {
        kind: "bdb_waits_for_replica".to_owned(),
        severity: Severity::Warning,
        fields: fields.into_iter().collect(),
    }
}

/// Who takes the place of a primary that is lost. Until its lease was over, WAIT may have confirmed what one replica has
/// and another has not: where there are several, each that is there first tells how far it is since then.
fn heir_of_lost(
    database: &Database,
    reports: &Reports,
    ledger: &Ledger,
    now: Duration,
    patience: Duration,
) -> Option<NodeUid> {
    let Placement { primary, replicas, .. } = &database.placement;
    let since = ledger.free_since(database.uid);
    if replicas.len() < 2 || since + TELLING < now {
        return placement::heir(database, reports);
    }
    let told = told_since(reports, ledger, *primary, since);
    let may_tell =
        |node: &NodeUid| !told.contains_key(node) && ledger.silent_for(*node, now) <= patience;
    if replicas.iter().any(may_tell) { None } else { placement::heir(database, &told) }
}

/// What replicas are like since a primary's process was heard of, and so after the one before it had ended: as they
/// were earlier may be from before they were given what WAIT has confirmed.
fn told_since(reports: &Reports, ledger: &Ledger, primary: NodeUid, since: Duration) -> Reports {
    let is_new =
        |node: NodeUid| node == primary || ledger.looked_at(node).is_some_and(|at| since <= at);
    let told = reports.iter().filter(|(node, _)| is_new(**node));
    told.map(|(node, reports)| (*node, reports.clone())).collect()
}

/// Who goes on with a database whose primary's process is not the one that was.
fn restarted(
    database: &Database,
    reports: &Reports,
    ledger: &mut Ledger,
    [is_late, is_given_up]: [bool; 2],
    may_tell: impl Fn(NodeUid, bool) -> bool,
) -> Succession {
    if database.placement.holder.is_none() {
        return Succession::Same;
    }
    ledger.forget(database.uid);
    placement::after_restart(database, reports, is_late, is_given_up, may_tell)
}

/// A change of primaries under way. The database stays where it is unless another was named.
pub struct Way {
    control: Control,
    database: DatabaseUid,
    promoted: bool,
    /// The process that is to be primary.
    pub holder: Option<u64>,
}

impl Way {
    pub fn end(mut self, promoted: bool) {
        self.promoted = promoted;
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.control.0.planned.lock().remove(&self.database);
        // If nobody knows what became of the proposal, the old epoch stays revoked until it is replaced, or
        // whoever watches over primaries sees that its node is well.
        if !self.promoted {
            self.control.0.ledger.lock().restore(self.database);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{Beat, Said};
    use crate::placement::ShardReport;
    use crate::state::with_database;

    #[test]
    fn how_replicas_were_before_the_primary_was_started_is_not_counted() {
        let at = Duration::from_secs(100);
        let mut ledger = Ledger::new(1, at);
        let report = |offset| ShardReport {
            database: DatabaseUid(1),
            epoch: 1,
            synced: true,
            offset,
            whole: true,
            history: String::new(),
        };
        let beat = |node, process, offset, as_of| Beat {
            node: NodeUid(node),
            process,
            reports: vec![report(offset)],
            returned: Vec::new(),
            as_of,
        };
        let said = |at| Some(Said::now(1, at));
        let (primary, replica) = (NodeUid(1), NodeUid(2));
        ledger.note(&beat(1, 10, 5, None), at);
        ledger.note(&beat(2, 20, 5, said(at)), at + BEAT);
        // The primary's process is another one from here on.
        let since = at + 2 * BEAT;
        ledger.note(&beat(1, 11, 0, None), since);
        assert_eq!(ledger.process(primary), Some((11, since)));
        let told = |ledger: &Ledger, now| -> Vec<u64> {
            let reports = told_since(&ledger.reports(now), ledger, primary, since);
            [primary, replica]
                .iter()
                .filter_map(|node| reports.get(node).map(|all| all[0].offset))
                .collect()
        };
        assert_eq!(told(&ledger, since), [0], "the primary itself, and nobody else");
        // It comes late enough, but the process was stopped between the look and the beat; or the look was before
        // anything was heard of this leader.
        let another = Some(Said::now(2, since + BEAT));
        for as_of in [said(at + BEAT), None, another] {
            ledger.note(&beat(2, 20, 6, as_of), since + 3 * BEAT);
            assert_eq!(told(&ledger, since + 3 * BEAT), [0], "{as_of:?}");
        }
        ledger.note(&beat(2, 20, 7, said(since)), since + 3 * BEAT);
        assert_eq!(told(&ledger, since + 3 * BEAT), [0, 7]);
        // A process goes on as what it was.
        ledger.note(&beat(1, 11, 0, None), since + 4 * BEAT);
        assert_eq!(ledger.process(primary), Some((11, since)));
        assert_eq!(told(&ledger, since + 4 * BEAT), [0, 7]);
        // What was said long ago is not known any more.
        assert!(told(&ledger, since + 9 * BEAT).is_empty());
    }

    #[test]
    fn of_several_replicas_each_tells_how_far_it_is_once_the_lease_is_over() {
        let at = Duration::from_secs(100);
        let mut ledger = Ledger::new(1, at);
        let uid = DatabaseUid(1);
        let mut state = with_database(3, serde_json::json!({"replication": true}));
        let database = state.databases.get_mut(&uid).expect("it was made");
        assert_eq!(database.placement.primary, NodeUid(1));
        database.placement.replicas = [2, 3].map(NodeUid).to_vec();
        let epoch = database.placement.epoch;
        let beat = |node, offset, as_of| Beat {
            node: NodeUid(node),
            process: node.into(),
            reports: vec![ShardReport {
                database: uid,
                epoch,
                synced: true,
                offset,
                whole: true,
                history: "h".to_owned(),
            }],
            returned: Vec::new(),
            as_of: Some(Said::now(1, as_of)),
        };
        let beats = |two, three| [beat(2, two, at), beat(3, three, at)];
        let at = at + Duration::from_secs(9);
        let patience = Duration::from_millis(1500);
        ledger.grant(uid, epoch, at, at).expect("it was not revoked");
        for beat in beats(7, 5) {
            ledger.note(&beat, at + BEAT);
        }
        let since = ledger.free_since(uid);
        let next = |ledger: &Ledger, database: &Database, now| {
            heir_of_lost(database, &ledger.reports(now), ledger, now, patience)
        };
        // What they said was before the lease was over.
        for beat in beats(7, 5) {
            ledger.note(&beat, since);
        }
        assert_eq!(next(&ledger, database, since), None);
        ledger.note(&beat(2, 7, since), since + BEAT);
        assert_eq!(next(&ledger, database, since + BEAT), None);
        // It had gone on for longer than the other one.
        ledger.note(&beat(3, 8, since), since + BEAT);
        assert_eq!(next(&ledger, database, since + BEAT), Some(NodeUid(3)));
        // Whoever is not there is not waited for, nor in the end whoever does not look at its shards.
        for (as_of, heard) in [(since, since), (at, since + TELLING)] {
            let mut ledger = Ledger::new(1, at);
            ledger.note(&beat(2, 7, as_of), heard);
            assert_eq!(next(&ledger, database, heard + BEAT), Some(NodeUid(2)));
        }
        // One alone has all there is.
        database.placement.replicas.truncate(1);
        assert_eq!(next(&ledger, database, since), Some(NodeUid(2)));
    }
}

//! Who may be primary, who votes, and how a node is emptied: decisions without clock or I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::state::{
    Change, Database, DatabaseStatus, DatabaseUid, NodeStatus, NodeUid, State, Time, VOTERS_MAX,
};

/// What a node says of a shard it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardReport {
    pub database: DatabaseUid,
    /// The epoch of the placement that its data is of.
    pub epoch: u64,
    /// It has all the data there was when it began to follow, or is the primary.
    pub synced: bool,
    /// How far it is in the primary's sequence of effects.
    pub offset: u64,
    /// It has data, all there were at some moment: it was not started without, and is not being given others.
    #[serde(default)]
    pub whole: bool,
    /// The name of the sequence that `offset` counts; offsets of two that have the same can be compared.
    #[serde(default)]
    pub history: String,
}

pub type Reports = BTreeMap<NodeUid, Vec<ShardReport>>;

/// The most advanced replica that can be reached; it has everything that WAIT has confirmed.
pub fn successor(database: &Database, reports: &Reports) -> Option<NodeUid> {
    let placement = &database.placement;
    let able = placement.replicas.iter().filter_map(|node| {
        let report = report_of(database, *node, reports)?;
        report.synced.then_some((report.offset, *node))
    });
    // Among equals the lowest uid, so that whoever decides decides the same.
    able.max_by_key(|(offset, node)| (*offset, std::cmp::Reverse(*node))).map(|(_, node)| node)
}

/// Who has the most of what may have been confirmed, once nobody is primary any more: a replica that was started anew
/// and has its data still, or the [`successor`]. What the two have can be compared if it is of the same history.
pub fn heir(database: &Database, reports: &Reports) -> Option<NodeUid> {
    let follower = successor(database, reports)?;
    let known = report_of(database, follower, reports)?;
    let further = database.placement.replicas.iter().filter_map(|node| {
        let report = report_of(database, *node, reports)?;
        let is_further = report.whole
            && !report.history.is_empty()
            && report.history == known.history
            && known.offset < report.offset;
        is_further.then_some((report.offset, std::cmp::Reverse(*node)))
    });
    Some(further.max().map_or(follower, |(_, node)| node.0))
}

/// What a node says of its shard in the current placement.
pub fn report_of(database: &Database, node: NodeUid, reports: &Reports) -> Option<ShardReport> {
    let of_node = reports.get(&node)?;
    let epoch = database.placement.epoch;
    of_node.iter().find(|it| it.database == database.uid && it.epoch == epoch).cloned()
}

/// What is to become of a database whose primary's process was started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// The new process goes on: nobody has more than it.
    Same,
    /// This node has what the new process has not.
    Other(NodeUid),
    /// Somebody who may have more has yet to tell.
    Wait,
}

/// Who goes on after the primary's process was started anew. `may_tell` says of a replica that has not told how
/// far it is, given whether the primary has data at all, whether that is to be waited for; `is_late`, that the
/// primary could have told by now. Where nobody who has told has any data, whoever has not is waited for in any case:
/// to go on would take from it what it may be the only one to have. An operator can say otherwise
/// ([`Change::Recover`], `recovery_wait_time`: then `is_given_up`).
pub fn after_restart(
    database: &Database,
    reports: &Reports,
    is_late: bool,
    is_given_up: bool,
    may_tell: impl Fn(NodeUid, bool) -> bool,
) -> Succession {
    let placement = &database.placement;
    let heir = heir(database, reports);
    let Some(own) = report_of(database, placement.primary, reports) else {
        // It has not loaded its data yet, or cannot.
        let other = heir.filter(|_| is_late).map(Succession::Other);
        return other.unwrap_or(Succession::Wait);
    };
    let told = |node: &NodeUid| report_of(database, *node, reports);
    let silent = || placement.replicas.iter().filter(|node| told(node).is_none());
    if let Some(node) = heir
        && let Some(best) = told(&node)
    {
        if !is_late && silent().any(|node| may_tell(*node, true)) {
            // Another one may have more.
            return Succession::Wait;
        }
        let has_all = own.whole && own.history == best.history && best.offset <= own.offset;
        return if has_all { Succession::Same } else { Succession::Other(node) };
    }
    if silent().any(|node| may_tell(*node, own.whole)) && (own.whole || !is_given_up) {
        return Succession::Wait;
    }
    if own.whole {
        return Succession::Same;
    }
    // What has fallen behind is more than nothing.
    let some = placement.replicas.iter().filter_map(|node| {
        let report = told(node).filter(|report| report.whole)?;
        Some((report.offset, std::cmp::Reverse(*node)))
    });
    match some.max() {
        Some((_, node)) => Succession::Other(node.0),
        None if silent().next().is_some() && !is_given_up => Succession::Wait,
        None => Succession::Same,
    }
}

/// Who is to vote, given who does: members only, no more than five, those who are there first, and nobody
/// exchanged without need. Who is on the way out gives its vote back first: once it is out nobody speaks with it,
/// and a majority that it counts for could be one that is never reached again.
pub fn voters(state: &State, voting: &BTreeSet<NodeUid>) -> BTreeSet<NodeUid> {
    let rank = |node: &NodeUid| {
        let here = state.nodes[node].status != NodeStatus::Down;
        (!here, !voting.contains(node), *node)
    };
    let mut members: Vec<NodeUid> =
        state.nodes.keys().copied().filter(|node| !state.is_leaving(*node)).collect();
    members.sort_by_key(rank);
    members.truncate(VOTERS_MAX);
    members.into_iter().collect()
}

/// The next step towards a node without shards (or, in maintenance, without primaries): a change to ask
/// for, or to wait for what was begun; none if it is done. `is_well` says whether the primary is there and has the
/// data: while it is not, its only replica is kept wherever that is.
pub fn emptying(
    state: &State,
    node: NodeUid,
    primaries_only: bool,
    reports: &Reports,
    is_well: impl Fn(&Database) -> bool,
) -> Option<Step> {
    let mut waiting = false;
    let settled = |database: &&Database| {
        !matches!(database.status, DatabaseStatus::Pending | DatabaseStatus::DeletePending)
    };
    for database in state.databases.values().filter(|database| database.is_on(node)) {
        let (placement, uid) = (&database.placement, database.uid);
        if !settled(&database) {
            waiting = true;
            continue;
        }
        let epoch = placement.epoch;
        if placement.primary != node {
            if primaries_only {
                continue;
            }
            // Its replica goes elsewhere, or away if there is no elsewhere: when another one has all, or as long as
            // the primary has.
            let mut replicas = placement.replicas.clone();
            replicas.retain(|one| *one != node);
            let has_all = |node: &NodeUid| {
                report_of(database, *node, reports).is_some_and(|report| report.synced)
            };
            if !replicas.iter().any(has_all) {
                let is_coming = replicas.iter().any(|one| state.nodes[one].takes_shards());
                let spare = || spare(state, database).filter(|_| database.settings.replication);
                if is_coming {
                    waiting = true;
                    continue;
                } else if let Some(spare) = spare() {
                    replicas.clone_from(&placement.replicas);
                    replicas.push(spare);
                } else if !is_well(database) {
                    waiting = true;
                    continue;
                }
            }
            return Some(Step::Change(Change::SetReplicas {
                database: uid,
                replicas,
                epoch,
                action: None,
            }));
        }
        let others = placement.replicas.iter().any(|one| state.nodes[one].takes_shards());
        match successor(database, reports) {
            Some(successor) if state.nodes[&successor].takes_shards() => {
                let change = promotion(uid, successor, epoch);
                return Some(Step::Change(change));
            }
            _ if others => waiting = true,
            _ => match spare(state, database) {
                Some(spare) => {
                    let mut replicas = placement.replicas.clone();
                    replicas.push(spare);
                    let change =
                        Change::SetReplicas { database: uid, replicas, epoch, action: None };
                    return Some(Step::Change(change));
                }
                None => return Some(Step::Stuck(uid)),
            },
        }
    }
    waiting.then_some(Step::Wait)
}

/// The next step towards a node that has back what it was primary of before its maintenance.
pub fn returning(state: &State, node: NodeUid, reports: &Reports) -> Option<Step> {
    let mut waiting = false;
    for uid in &state.nodes.get(&node)?.maintenance_snapshot {
        let Some(database) = state.databases.get(uid) else { continue };
        let placement = &database.placement;
        // What has no replica here was moved for good.
        if placement.primary == node || !placement.replicas.contains(&node) {
            continue;
        }
        match report_of(database, node, reports) {
            Some(report) if report.synced => {
                let epoch = placement.epoch;
                let change = promotion(*uid, node, epoch);
                return Some(Step::Change(change));
            }
            _ => waiting = true,
        }
    }
    waiting.then_some(Step::Wait)
}

/// Replicas that are there only because a node was being emptied or is lost, or that are missing. `has_all` says
/// whether a replica has what the others may have: before, none of them is given up.
pub fn repair(state: &State, has_all: impl Fn(&Database, NodeUid) -> bool) -> Option<Change> {
    let idle = |database: &&Database| {
        database.status == DatabaseStatus::Active && database.action.is_none()
    };
    let busy =
        state.nodes.keys().any(|node| state.running(crate::state::Object::Node(*node)).is_some());
    if busy {
        return None;
    }
    for database in state.databases.values().filter(idle) {
        let (placement, uid) = (&database.placement, database.uid);
        let wanted = usize::from(database.settings.replication);
        let mut replicas = placement.replicas.clone();
        if replicas.len() > wanted {
            replicas.sort_by_key(|node| state.nodes[node].status == NodeStatus::Down);
            if !replicas[..wanted].iter().all(|node| has_all(database, *node)) {
                continue;
            }
            replicas.truncate(wanted);
        } else if replicas.len() < wanted {
            match spare(state, database) {
                Some(spare) => replicas.push(spare),
                None => continue,
            }
        } else {
            continue;
        }
        let epoch = placement.epoch;
        return Some(Change::SetReplicas { database: uid, replicas, epoch, action: None });
    }
    None
}

/// The first half of the move of a replica whose node has been down for longer than the policy bears with, where databases ask for
/// that (`slave_ha`): those first that it matters most for. `is_well` says whether the primary is there and has the
/// data. One failure may move many; after another one the policy's pauses are kept. What is lost stays a replica, which
/// may come back with its data, until the new one has them all ([`repair`]).
pub fn replace_lost(
    state: &State,
    now: Time,
    is_well: impl Fn(&Database) -> bool,
) -> Option<Change> {
    let policy = &state.policy;
    let is_recent = |at: Time, seconds: u32| now.since(at).as_secs() < u64::from(seconds);
    let is_lost = |node: &NodeUid| {
        let node = &state.nodes[node];
        node.status == NodeStatus::Down
            && !is_recent(node.status_since, policy.slave_ha_grace_period)
    };
    let is_pausing = |from: NodeUid| {
        let moves = state.databases.values().filter_map(|database| database.replica_moved);
        let mut others = moves.filter(|(_, other)| *other != from);
        others.any(|(at, _)| is_recent(at, policy.slave_ha_cooldown_period))
    };
    let mut wanted: Vec<&Database> = state
        .databases
        .values()
        .filter(|database| policy.slave_ha && database.settings.slave_ha)
        .filter(|database| database.status == DatabaseStatus::Active && database.action.is_none())
        .filter(|database| database.placement.replicas.len() == 1)
        .filter(|database| {
            let last = database.replica_moved;
            !last.is_some_and(|(at, _)| is_recent(at, policy.slave_ha_bdb_cooldown_period))
        })
        .collect();
    wanted.sort_by_key(|it| (std::cmp::Reverse(it.settings.slave_ha_priority), it.uid));
    wanted.into_iter().find_map(|database| {
        let placement = &database.placement;
        let from = *placement.replicas.iter().find(|node| is_lost(node) && !is_pausing(**node))?;
        let to = spare(state, database).filter(|_| is_well(database))?;
        Some(Change::MoveReplica { database: database.uid, from, to, epoch: placement.epoch })
    })
}

/// Where the shards of a database would better be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blueprint {
    pub primary: NodeUid,
    pub replicas: Vec<NodeUid>,
}

/// A placement that is more even than the one there is, by so many moves and changes of roles at most. Nodes are
/// compared by what they have of other databases, as for a database that is made: first by shards, then by primaries.
/// Nothing is moved that would not make it better.
pub fn balanced(
    state: &State,
    database: &Database,
    only_failovers: bool,
    operations_max: usize,
) -> Blueprint {
    let uid = database.uid;
    let others = || state.databases.values().filter(move |other| other.uid != uid);
    let shards = |node: NodeUid| others().filter(|other| other.is_on(node)).count();
    let primaries =
        |node: NodeUid| others().filter(|other| other.placement.primary == node).count();
    let rack = |node: NodeUid| state.nodes.get(&node).map(|it| it.settings.rack_id.as_str());
    let may_have = state.candidates_but(database);
    let mut left = operations_max;
    let mut nodes: Vec<NodeUid> = database.placement.nodes().collect();
    // Replicas first: that costs one step less.
    for place in (0..nodes.len()).rev().filter(|_| !only_failovers) {
        let here = nodes[place];
        let is_apart = |node: NodeUid| {
            let mut rest = nodes.iter().enumerate().filter(|(other, _)| *other != place);
            !database.settings.rack_aware || rest.all(|(_, other)| rack(*other) != rack(node))
        };
        let free = may_have.iter().copied().filter(|node| !nodes.contains(node));
        let best = free.filter(|node| is_apart(*node)).min_by_key(|node| (shards(*node), *node));
        let Some(best) = best.filter(|_| 0 < left) else { continue };
        if !may_have.contains(&here) || shards(best) < shards(here) {
            nodes[place] = best;
            left -= 1;
        }
    }
    let rank = |node: NodeUid| (!may_have.contains(&node), primaries(node));
    let best = (1..nodes.len()).min_by_key(|place| (rank(nodes[*place]), nodes[*place]));
    if let Some(best) = best.filter(|best| 0 < left && rank(nodes[*best]) < rank(nodes[0])) {
        nodes.swap(0, best);
    }
    Blueprint { primary: nodes[0], replicas: nodes[1..].to_vec() }
}

/// The next step towards a blueprint; none if it is reached. An error if it cannot be.
pub fn rebalancing(
    state: &State,
    database: &Database,
    primary: NodeUid,
    replicas: &[NodeUid],
    reports: &Reports,
) -> Result<Option<Step>, String> {
    let (placement, uid) = (&database.placement, database.uid);
    let epoch = placement.epoch;
    let wanted = || std::iter::once(primary).chain(replicas.iter().copied());
    let is_up =
        |node: NodeUid| state.nodes.get(&node).is_some_and(|node| node.status != NodeStatus::Down);
    if let Some(node) = wanted().find(|node| !is_up(*node)) {
        return Err(format!("node {node} is down"));
    }
    let place = |replicas| {
        Ok(Some(Step::Change(Change::SetReplicas { database: uid, replicas, epoch, action: None })))
    };
    let missing: Vec<_> = wanted().filter(|node| !database.is_on(*node)).collect();
    if let Some(node) = missing.iter().find(|node| !state.nodes[node].takes_shards()) {
        return Err(format!("node {node} takes no shards any more"));
    }
    if !missing.is_empty() {
        return place([placement.replicas.clone(), missing].concat());
    }
    let has_all = |node| report_of(database, node, reports).is_some_and(|it| it.synced);
    if !wanted().all(has_all) {
        return Ok(Some(Step::Wait));
    }
    if placement.primary != primary {
        return Ok(Some(Step::Change(promotion(uid, primary, epoch))));
    }
    if placement.replicas.iter().any(|node| !replicas.contains(node)) {
        return place(replicas.to_vec());
    }
    Ok(None)
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Change(Change),
    Wait,
    /// Nobody can take this database.
    Stuck(DatabaseUid),
}

/// Who leads finds out which process that is.
fn promotion(database: DatabaseUid, node: NodeUid, epoch: u64) -> Change {
    Change::Promote { database, node, epoch, action: None, holder: None }
}

/// The emptiest node that could have one more shard of this database.
fn spare(state: &State, database: &Database) -> Option<NodeUid> {
    let free = state.nodes.values().filter(|node| node.takes_shards() && !database.is_on(node.uid));
    let shards = |node: NodeUid| state.databases.values().filter(|it| it.is_on(node)).count();
    free.map(|node| node.uid).min_by_key(|node| (shards(*node), *node))
}

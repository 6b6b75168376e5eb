//! What the control plane is told of the databases here, so that it knows who could be primary; and what it may
//! forbid: a primary that does not hold its lease takes no writes, as another may have been made primary.
//!
//! Here a write is refused that comes when the lease is about to end. What was let in before is kept from being
//! acknowledged where replies leave ([`crate::replication::tenure`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use carnelian_cluster::state::{Database as Described, DatabaseUid, NodeUid, State};
use carnelian_cluster::{ShardReport, Writable};

use super::{Member, host};
use crate::database::Database;
use crate::log;
use crate::replication::gate;

/// Between two looks. Whatever ends before the next one counts as ended.
const LOOK: Duration = Duration::from_millis(50);

/// The newest epoch in which a database here had everything that its primary had.
type Synced = BTreeMap<DatabaseUid, u64>;

/// Told of the first look.
pub type Looked = std::sync::mpsc::Sender<()>;

/// Goes on until the process ends.
pub async fn watch(member: Arc<Member>, looked: Looked) {
    let mut looked = Some(looked);
    let mut looks = tokio::time::interval(LOOK);
    let mut synced = Synced::new();
    let mut is_described = false;
    loop {
        looks.tick().await;
        let Some(node) = member.control.node() else {
            is_described = false;
            for database in &*member.server.databases.read() {
                open(database);
            }
            if let Some(looked) = looked.take() {
                let _ = looked.send(());
            }
            continue;
        };
        member.server.is_clustered.store(true, Ordering::SeqCst);
        if !is_described {
            member.control.set_facts(host::facts(&member));
            is_described = true;
        }
        look(&member, node, &mut synced);
        if let Some(looked) = looked.take() {
            // Whoever waits for it may have given up.
            let _ = looked.send(());
        }
    }
}

/// Looks at all databases, and says what came of it.
fn look(member: &Member, node: NodeUid, synced: &mut Synced) {
    // Before anything: what was given back is told only with what was written until then.
    let begun = member.control.look();
    let state = member.control.state();
    let databases = member.server.databases.read().clone();
    let mut reports = Vec::new();
    for database in &databases {
        let described = state.databases.get(&DatabaseUid(database.uid));
        let Some(described) = described.filter(|described| described.is_on(node)) else {
            match described {
                // It is elsewhere now.
                Some(_) => database.replication.close(),
                None if state.cluster.is_some() => open(database),
                // Until a node that is in a cluster has that cluster's state, it is not known what it is here.
                None => {}
            }
            continue;
        };
        let last = database.replication.tenure.epoch();
        judge(member, &state, node, database, described);
        if !database.loading.is_on() {
            // A link that came and went since the last look was of the placement that was known then.
            let is_known = last == 0 || last == described.placement.epoch;
            reports.push(report(database, described, node, is_known, synced));
        }
    }
    let tenures = databases.iter().map(|database| &database.replication.tenure.deadline);
    member.server.horizon.set_to_first(tenures);
    member.control.report(reports, begun);
}

/// Puts into effect what this node is of a database: whether it takes writes, and whom it gives its data.
pub fn judge(
    member: &Member,
    state: &State,
    node: NodeUid,
    database: &Arc<Database>,
    described: &Described,
) {
    let Database { replication, log, .. } = &**database;
    let (tenure, placement) = (&replication.tenure, &described.placement);
    let is_primary = placement.primary == node;
    if is_primary && state.nodes.len() == 1 {
        // Nobody else is there.
        tenure.note_data();
        return open(database);
    }
    tenure.set_epoch(placement.epoch);
    let writable = member.control.keep(described.uid, &tenure.deadline);
    let is_confirmed = is_primary && member.control.was_granted(described.uid);
    let followers = placement.replicas.iter().filter(|_| is_confirmed).map(|node| node.0);
    tenure.set_followers(Some(followers.collect()));
    if is_confirmed {
        tenure.note_data();
    }
    // With no replica there is nobody who could have more.
    let is_alone = is_primary && placement.replicas.is_empty() && tenure.has_data();
    if is_confirmed || is_alone {
        replication.confirm();
    }
    // Whoever was relieved of it has nothing more to confirm.
    database.internode.dismiss(|node| tenure.admits(node.get()));
    if matches!(writable, Writable::Until(_)) && !log.keeps_backlog() {
        // What is written is known by the log.
        let _all = database.keyspace.lock_all();
        replication.primary.keep_backlog(database, database.config().repl_backlog_size);
    }
    fence(database, !lasts(member, writable), is_primary);
}

/// The cluster has no say in it.
fn open(database: &Database) {
    let tenure = &database.replication.tenure;
    tenure.deadline.open();
    tenure.set_followers(None);
    tenure.set_epoch(0);
    database.replication.confirm();
    fence(database, false, false);
}

/// Whether writes may be taken until the next look.
fn lasts(member: &Member, writable: Writable) -> bool {
    match writable {
        Writable::No => false,
        Writable::Alone => true,
        Writable::Until(lease) => member.control.steady() + 2 * LOOK < lease.until,
    }
}

fn fence(database: &Database, is_fenced: bool, is_primary: bool) {
    let replication = &database.replication;
    if (replication.gate() & gate::FENCED != 0) == is_fenced {
        return;
    }
    {
        // What has been let in is done first; nothing is let in after it.
        let _all = database.keyspace.lock_all();
        replication.set_gate(gate::FENCED, is_fenced);
    }
    if !is_primary {
        // What follows another is no one's to write to anyway.
    } else if is_fenced {
        log::warning!("Database {} takes no writes until its lease is renewed", database.uid);
    } else {
        log::notice!("Database {} is not kept from taking writes any longer", database.uid);
    }
}

fn report(
    database: &Database,
    described: &Described,
    node: NodeUid,
    is_known: bool,
    synced: &mut Synced,
) -> ShardReport {
    let uid = described.uid;
    let (primary, epoch) = (described.placement.primary, described.placement.epoch);
    let following = database.replication.following.load_full();
    let is_synced = match &following {
        None => primary == node,
        Some(following) => {
            let target = following.target.as_ref();
            let is_primary = target.is_some_and(|target| target.node.get() == primary.0);
            // WAIT may have counted on a link that was there for less than a look.
            let was_up = following.was_up();
            if is_primary && was_up && (is_known || following.is_up()) {
                database.replication.tenure.note_data();
                database.replication.confirm();
                synced.insert(uid, epoch);
            }
            // It stays so when the link is lost, but not when a snapshot begins to replace what was there.
            is_primary && following.has_past() && synced.get(&uid) == Some(&epoch)
        }
    };
    let history = {
        let history = database.replication.history.lock();
        // A primary that was started from a snapshot has a name of its own for what follows, which is nothing yet.
        let end = database.log.end();
        let resumed = history.previous().filter(|(_, until)| following.is_none() && *until == end);
        resumed.map_or_else(|| history.id(), |(id, _)| id)
    };
    let has_past = following.as_ref().is_none_or(|following| following.has_past());
    ShardReport {
        database: uid,
        epoch,
        synced: is_synced,
        offset: database.log.end(),
        whole: has_past && database.replication.tenure.has_data(),
        history: history.as_str().to_owned(),
    }
}

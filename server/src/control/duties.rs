//! What the control plane is told of the databases here, so that it knows who could be primary; and what it may
//! forbid: a primary that does not hold its lease takes no writes, as another may have been made primary.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnelian_cluster::state::{Database as Described, DatabaseUid, NodeUid};
use carnelian_cluster::{ShardReport, Writable};
use tokio::time::Instant;

use super::{Member, host};
use crate::database::Database;
use crate::log;
use crate::replication::gate;

/// Between two looks. Whatever ends before the next one counts as ended.
const LOOK: Duration = Duration::from_millis(50);

/// The newest epoch in which a database here had everything that its primary had.
type Synced = BTreeMap<DatabaseUid, u64>;

/// Goes on until the process ends.
pub async fn watch(member: Arc<Member>) {
    let mut looks = tokio::time::interval(LOOK);
    let mut synced = Synced::new();
    let mut is_described = false;
    loop {
        looks.tick().await;
        let Some(node) = member.control.node() else {
            is_described = false;
            continue;
        };
        if !is_described {
            member.control.set_facts(host::facts(&member));
            is_described = true;
        }
        look(&member, node, &mut synced);
    }
}

fn look(member: &Member, node: NodeUid, synced: &mut Synced) {
    let state = member.control.state();
    let databases = member.server.databases.read().clone();
    let mut reports = Vec::new();
    for database in &databases {
        let described = state.databases.get(&DatabaseUid(database.uid));
        let described = described.filter(|described| described.is_on(node));
        let is_fenced = described.is_some_and(|described| {
            described.placement.primary == node
                && !described.placement.replicas.is_empty()
                && !lasts(member.control.writable(described.uid))
        });
        fence(database, is_fenced);
        if let Some(described) = described {
            reports.push(report(database, described, node, synced));
        }
    }
    member.control.report(reports);
}

/// Whether writes may be taken until the next look.
fn lasts(writable: Writable) -> bool {
    match writable {
        Writable::No => false,
        Writable::Alone => true,
        Writable::Until(lease) => Instant::now() + 2 * LOOK < lease.until,
    }
}

fn fence(database: &Database, is_fenced: bool) {
    let replication = &database.replication;
    if (replication.gate() & gate::FENCED != 0) == is_fenced {
        return;
    }
    {
        // What has been let in is done first; nothing is let in after it.
        let _all = database.keyspace.lock_all();
        replication.set_gate(gate::FENCED, is_fenced);
    }
    if is_fenced {
        log::warning!("Database {} takes no writes until its lease is renewed", database.uid);
    } else {
        log::notice!("Database {} is not kept from taking writes any longer", database.uid);
    }
}

fn report(
    database: &Database,
    described: &Described,
    node: NodeUid,
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
            if is_primary && following.is_up() {
                synced.insert(uid, epoch);
            }
            // It stays so when the link is lost, but not when a snapshot begins to replace what was there.
            is_primary && following.has_past() && synced.get(&uid) == Some(&epoch)
        }
    };
    ShardReport { database: uid, epoch, synced: is_synced, offset: database.log.end() }
}

//! Making the databases of this process what the state says, and telling when they are.
//!
//! One step at a time, each from the state as it is then: what was missed in between is of no interest. A database
//! that cannot be made or changed fails the work that asked for it, and the state goes back to what was before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use carnelian_cluster::state::{
    ActionId, Change, Database as Described, DatabaseSettings, DatabaseStatus, DatabaseUid,
    DatabaseUser, NodeUid, Object, Placement, State,
};
use carnelian_tls::internode::NodeUid as NodeName;

use super::{Member, blocking, duties, forward, shared, spec};
use crate::database::Database;
use crate::databases::{DatabaseSpec, FIRST, Files};
use crate::internode::{self, NodeTarget};
use crate::log;
use crate::replication::gate;

/// After something that could not be done and may work later.
const PAUSE: Duration = Duration::from_secs(1);

/// What has been put into effect of a database.
#[derive(Clone)]
struct Applied {
    settings: DatabaseSettings,
    passwords: Vec<String>,
    users: Vec<DatabaseUser>,
    disconnects: u64,
    stopped: bool,
    placement: Placement,
}

impl Applied {
    fn of(state: &State, described: &Described) -> Self {
        Self {
            settings: described.settings.clone(),
            passwords: described.passwords.clone(),
            users: state.users_of(described),
            disconnects: described.disconnects,
            stopped: described.stopped,
            placement: described.placement.clone(),
        }
    }
}

/// Goes on until the process ends.
pub async fn follow(member: Arc<Member>) {
    let mut states = member.control.subscribe();
    let mut applied = BTreeMap::new();
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let is_settled = match member.control.node() {
            Some(node) => step(&member, &state, node, &mut applied).await,
            None => {
                forward::close_others(&member, |_| false);
                true
            }
        };
        if is_settled {
            if states.changed().await.is_err() {
                return;
            }
        } else {
            // Something may have to be tried again even if nothing else changes.
            let _ = tokio::time::timeout(PAUSE, states.changed()).await;
        }
    }
}

/// True if nothing is left to do until the state changes.
async fn step(
    member: &Arc<Member>,
    state: &Arc<State>,
    node: NodeUid,
    applied: &mut BTreeMap<DatabaseUid, Applied>,
) -> bool {
    let mut is_settled = true;
    for described in state.databases.values() {
        let result = put_into_effect(member, state, node, described, applied).await;
        is_settled &= *result.as_ref().unwrap_or(&true);
        let error = result.err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            log::warning!("Database {}: {error}", described.uid);
        }
        let awaited = state
            .awaiting(node)
            .find(|action| action.object == Object::Database(described.uid))
            .map(|action| action.id.clone());
        is_settled &= match awaited {
            Some(action) => confirm(member, node, action, error).await,
            None => error.is_none(),
        };
    }
    forward::close_others(member, |uid| state.databases.contains_key(&uid));
    let gone: Vec<DatabaseUid> =
        applied.keys().filter(|uid| !state.databases.contains_key(uid)).copied().collect();
    for uid in gone {
        match drop_database(member, uid).await {
            Ok(()) => {
                applied.remove(&uid);
            }
            Err(error) => {
                log::warning!("Database {uid} was not removed: {error:#}");
                is_settled = false;
            }
        }
    }
    is_settled
}

async fn confirm(member: &Member, node: NodeUid, action: ActionId, error: Option<String>) -> bool {
    let change = Change::ConfirmAction { action, node, error };
    match member.control.change(change).await {
        Ok(_) => true,
        Err(error) => {
            log::warning!("What this node has done could not be told: {error}");
            false
        }
    }
}

/// False if something has to be tried again which nobody waits for.
async fn put_into_effect(
    member: &Arc<Member>,
    state: &Arc<State>,
    node: NodeUid,
    described: &Described,
    applied: &mut BTreeMap<DatabaseUid, Applied>,
) -> Result<bool> {
    let uid = described.uid;
    let is_going = described.status == DatabaseStatus::DeletePending;
    if is_going || described.status == DatabaseStatus::CreationFailed {
        forward::close(member, uid);
    }
    if described.status == DatabaseStatus::CreationFailed {
        return Ok(true);
    }
    let (work, wanted) = (Arc::clone(member), described.clone());
    let targets = Arc::clone(state);
    if !described.is_on(node) || is_going {
        if applied.contains_key(&uid) {
            match uid.0 == FIRST && !is_going {
                // It goes on as nobody's replica, and nobody's primary.
                true => blocking(move || leave_first(&work)).await?,
                false => drop_database(member, uid).await?,
            }
            applied.remove(&uid);
        }
        if is_going {
            return Ok(true);
        }
        let (work, wanted) = (Arc::clone(member), described.clone());
        return blocking(move || forward::lead(&work, &targets, &wanted, None)).await;
    }
    let before = applied.get(&uid).cloned();
    let is_settled =
        blocking(move || apply(&work, &targets, node, &wanted, before.as_ref())).await?;
    applied.insert(uid, Applied::of(state, described));
    Ok(is_settled)
}

fn leave_first(member: &Member) -> Result<()> {
    let database = member.server.database(FIRST)?;
    let following = database.replication.following.load_full();
    if following.is_some_and(|following| following.target.is_some()) {
        internode::follow_nobody(&database);
    }
    Ok(())
}

/// The part that waits: for reactors, for files, for links.
fn apply(
    member: &Arc<Member>,
    state: &State,
    node: NodeUid,
    described: &Described,
    before: Option<&Applied>,
) -> Result<bool> {
    let server = &member.server;
    let uid = described.uid.0;
    let settings = &described.settings;
    let users = state.users_of(described);
    let is_primary = described.placement.primary == node;
    let Ok(database) = server.database(uid) else {
        // The port is about to be the database's own.
        forward::vacate(member, described.uid);
        let prepare = |database: &Arc<Database>| -> Result<()> {
            shared::encrypt(member, state, database)?;
            if !is_primary {
                forward::lead(member, state, described, Some(database))?;
            } else if member.control.state().nodes.len() == 1 {
                // Before anybody can come: nobody has to be asked.
                duties::judge(member, state, node, database, described);
            }
            Ok(())
        };
        let spec = spec::of(described, &users, &server.config());
        let made = {
            let _showing = member.showing.lock();
            server.create_database_with(spec, prepare)?
        };
        take_role(member, state, node, described)?;
        if is_primary && described.status == DatabaseStatus::Pending {
            wait_for_lease(&made);
        }
        return Ok(true);
    };
    let mut is_settled = true;
    if !is_primary {
        is_settled = forward::lead(member, state, described, Some(&database))?;
    } else if database.endpoint.is_primary() {
        // Before anybody is disconnected: who comes after that has come after that.
        forward::tell_primacy(described, &database);
    }
    let is_as_before = before.is_some_and(|before| {
        before.settings == *settings
            && before.passwords == described.passwords
            && before.users == users
    });
    if !is_as_before {
        let wanted = match uid {
            FIRST => {
                let base = spec::base(&member.folder).unwrap_or_else(|| settings.clone());
                spec::of_first_again(&database, described, &users, &base)
            }
            _ => spec::of(described, &users, &server.config()),
        };
        // After a start it mostly is what it should be.
        if wanted != DatabaseSpec::of(&database) {
            server.change_database(wanted)?;
        }
    }
    let disconnects = before.is_some_and(|before| before.disconnects < described.disconnects);
    let on = settings.data_internode_encryption;
    // It closes the connections of clients by itself, unless it is to be graceful.
    let is_switched = internode::set_data_internode_encryption(server, &database, on, !disconnects);
    if disconnects && !is_switched {
        let count = server.disconnect_clients(uid)?;
        log::notice!("Database {uid}: {count} clients disconnected");
    }
    if before.is_some_and(|before| before.stopped) != described.stopped {
        server.set_traffic(uid, described.stopped)?;
    }
    if before.is_none_or(|before| before.placement != described.placement) {
        take_role(member, state, node, described)?;
    } else if is_primary {
        forward::tell_primacy(described, &database);
    }
    Ok(is_settled)
}

/// Who is told that there is a new database may write to it.
fn wait_for_lease(database: &Database) {
    let began = Instant::now();
    while database.replication.gate() & gate::FENCED != 0 && began.elapsed() < PAUSE {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Follows the primary, or is it.
fn take_role(
    member: &Arc<Member>,
    state: &State,
    node: NodeUid,
    described: &Described,
) -> Result<()> {
    let server = &member.server;
    let database = server.database(described.uid.0)?;
    let following = database.replication.following.load_full();
    let target = following.as_ref().and_then(|following| following.target.clone());
    let Placement { primary, .. } = described.placement;
    if primary == node {
        // What follows a server outside of the cluster has been told so by an operator.
        if target.is_some() {
            log::notice!("Database {} is primary on this node now", described.uid);
            internode::follow_nobody(&database);
        }
        forward::serve_here(member, described, &database);
        return Ok(());
    }
    let settings = &state.nodes.get(&primary).context("the primary's node is unknown")?.settings;
    let wanted = NodeTarget {
        node: NodeName::new(primary.0).context("0 is no node")?,
        host: settings.addr.clone(),
        port: settings.internode_port,
    };
    if target.as_ref() != Some(&wanted) {
        log::notice!("Database {} follows {wanted}", described.uid);
        internode::follow(server, &database, wanted);
    }
    if target.is_none() {
        // They are to be served by the primary, as those who come from now on are.
        let count = server.disconnect_clients(described.uid.0)?;
        if count != 0 {
            log::notice!("Database {}: {count} clients have to go elsewhere", described.uid);
        }
    }
    Ok(())
}

async fn drop_database(member: &Arc<Member>, uid: DatabaseUid) -> Result<()> {
    let server = Arc::clone(&member.server);
    blocking(move || {
        anyhow::ensure!(uid.0 != FIRST, "redis.conf describes it; stop the server instead");
        if server.database(uid.0).is_ok() {
            server.drop_database(uid.0, Files::Remove)?;
        }
        Ok(())
    })
    .await
}

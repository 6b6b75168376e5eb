//! Where this node leads clients of the databases whose primary is elsewhere, as the state has it.
//!
//! Whether the node has a replica makes no difference to a client: the endpoint of a database is its primary. A
//! replica's port is its database's, and new connections are diverted from it; on a node without one the
//! entrance listens by itself. That includes database 1 of a node that has joined: it is not the cluster's, which
//! is on another node.
//!
//! A port that cannot be had on a node that has nothing of the database is no reason to refuse the database: the node
//! goes without, says so, and tries again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use carnelian_cluster::Handler;
use carnelian_cluster::state::{
    Database as Described, DatabaseSettings, DatabaseUid, NodeUid, State,
};
use carnelian_tls::internode::{Direction, NodeUid as NodeName, Plane};

use super::{Member, shared, spec};
use crate::database::Database;
use crate::databases::{DatabaseSpec, FIRST};
use crate::endpoint::{Entrance, House, Primacy, Route};
use crate::internode::NodeTarget;
use crate::listener::Endpoints;
use crate::log;
use crate::server::Server;

/// Before a port is tried again that could not be had.
const PAUSE: Duration = Duration::from_secs(10);

/// There while database 1 is served by another node, so that a start begins like that.
const MARK: &str = "control-plane/database-1-elsewhere";

/// The file says that clients of database 1 were led elsewhere when the process ended.
pub fn is_first_elsewhere(server: &Server) -> bool {
    server.folder.join(MARK).exists()
}

/// Holds clients of database 1 back until it is known who serves them.
pub fn hold_first(server: &Server, database: &Arc<Database>) {
    let entrance = Entrance::new(FIRST, House::Shared(Arc::clone(database)));
    server.endpoints.add(Arc::clone(&entrance));
    database.endpoint.divert(Some(entrance));
}

/// Leads clients that come to this node to the primary. `replica` is what this node has of the database. May take
/// as long as making keys does. False if it has to be tried again.
pub fn lead(
    member: &Member,
    state: &State,
    described: &Described,
    replica: Option<&Arc<Database>>,
) -> Result<bool> {
    let (server, uid) = (&member.server, described.uid.0);
    let here = replica.cloned().or_else(|| server.database(uid).ok());
    let entrance = match (server.endpoints.entrance(uid), replica) {
        (Some(entrance), Some(replica)) => {
            if !entrance.is_shared() {
                entrance.furnish(House::Shared(Arc::clone(replica)));
            }
            entrance
        }
        (Some(entrance), None) => {
            let wanted = spec_of(server, here.as_ref(), described);
            if !entrance.is_furnished_by(&wanted) {
                let _showing = member.showing.lock();
                entrance.furnish(furnish(member, wanted)?);
            }
            entrance
        }
        (None, Some(replica)) => {
            let entrance = Entrance::new(uid, House::Shared(Arc::clone(replica)));
            server.endpoints.add(Arc::clone(&entrance));
            entrance
        }
        (None, None) => {
            let _showing = member.showing.lock();
            let house = furnish(member, spec_of(server, here.as_ref(), described))?;
            let entrance = Entrance::new(uid, house);
            server.endpoints.add(Arc::clone(&entrance));
            entrance
        }
    };
    entrance.lead(route(state, described)?);
    if let Some(here) = &here {
        here.endpoint.set_primacy(None);
        let is_new = here.endpoint.entrance().is_none();
        here.endpoint.divert(Some(Arc::clone(&entrance)));
        if is_new && replica.is_none() {
            // What they are connected to is nobody's any more.
            server.disconnect_clients(uid)?;
        }
    }
    if uid == FIRST {
        mark(server, true);
    }
    // What is here listens where it always did; clients expect it where the cluster says.
    let listens_already = here.is_some_and(|here| here.config().port == described.port);
    if described.stopped || listens_already {
        entrance.shut();
        return Ok(true);
    }
    Ok(listen(server, &entrance, described))
}

/// Opens the port, or says that it cannot be had.
fn listen(server: &Arc<Server>, entrance: &Arc<Entrance>, described: &Described) -> bool {
    let config = server.config();
    let places = Endpoints {
        bind: config.bind.clone(),
        port: described.port,
        backlog: config.tcp_backlog,
        ..Endpoints::default()
    };
    let now = Instant::now();
    if entrance.try_again_at().is_some_and(|at| now < at) {
        return false;
    }
    match entrance.listen(server, &places) {
        Ok(()) => {
            entrance.set_try_again_at(None);
            true
        }
        Err(error) => {
            if entrance.try_again_at().is_none() {
                log::warning!(
                    "Database {} cannot be reached through this node: {error}",
                    described.uid
                );
            }
            entrance.set_try_again_at(Some(now + PAUSE));
            false
        }
    }
}

/// Gives up a port that a replica is to have.
pub fn vacate(member: &Member, database: DatabaseUid) {
    if let Some(entrance) = member.server.endpoints.entrance(database.0) {
        entrance.shut();
    }
}

/// This node is the primary: clients are served here, and those of other nodes may come.
pub fn serve_here(member: &Member, described: &Described, database: &Database) {
    tell_primacy(described, database);
    database.endpoint.divert(None);
    close(member, described.uid);
}

/// What clients of other nodes are let in by.
pub fn tell_primacy(described: &Described, database: &Database) {
    let primacy = Primacy { epoch: described.placement.epoch, disconnects: described.disconnects };
    database.endpoint.set_primacy((!described.stopped).then_some(primacy));
}

/// Nobody is led anywhere any more.
pub fn close(member: &Member, database: DatabaseUid) {
    let server = &member.server;
    if let Ok(here) = server.database(database.0) {
        here.endpoint.divert(None);
    }
    server.endpoints.close(database.0);
    if database.0 == FIRST {
        mark(server, false);
    }
    // It has the authorities of clients in it, and nothing else.
    let _ = std::fs::remove_dir_all(folder(server, database.0));
}

/// The same for all databases that are not there any more.
pub fn close_others(member: &Member, is_there: impl Fn(DatabaseUid) -> bool) {
    for uid in member.server.endpoints.databases().into_iter().map(DatabaseUid) {
        if !is_there(uid) {
            close(member, uid);
        }
    }
}

/// Where clients are led to; nowhere while they are to be refused.
fn route(state: &State, described: &Described) -> Result<Option<Route>> {
    let placement = &described.placement;
    let primary = state.nodes.get(&placement.primary).context("the primary's node is unknown")?;
    if described.stopped {
        return Ok(None);
    }
    Ok(Some(Route {
        target: NodeTarget {
            node: NodeName::new(primary.uid.0).context("0 is no node")?,
            host: primary.settings.addr.clone(),
            port: primary.settings.internode_port,
        },
        epoch: placement.epoch,
        encrypted: described.settings.data_internode_encryption,
        disconnects: described.disconnects,
    }))
}

/// The database as it would be here.
fn spec_of(server: &Server, here: Option<&Arc<Database>>, described: &Described) -> DatabaseSpec {
    match here.filter(|here| here.is_first()) {
        // Its own configuration, and what has been said of it through the control plane.
        Some(first) => spec::of_first_again(first, described, &[], &DatabaseSettings::default()),
        None => spec::of(described, &[], &server.config()),
    }
}

fn furnish(member: &Member, spec: DatabaseSpec) -> Result<House> {
    let server = &member.server;
    let folder = folder(server, spec.uid);
    let (config, encryption) = server.outline(&spec, &folder)?;
    encryption.follow(shared::asked(member, &member.control.state()), &config)?;
    Ok(House::own(spec, config, encryption))
}

fn folder(server: &Server, database: u32) -> PathBuf {
    server.folder.join(format!("endpoint-{database}"))
}

fn mark(server: &Server, is_elsewhere: bool) {
    let path = server.folder.join(MARK);
    if path.exists() == is_elsewhere {
        return;
    }
    let done = match is_elsewhere {
        true => std::fs::write(&path, ""),
        false => std::fs::remove_file(&path),
    };
    if let Err(error) = done {
        log::warning!("{}: {error}", path.display());
    }
}

/// What nodes tell one another of the certificate that they show, so that clients' links are made anew.
const CERTIFICATE: &str = "data-certificate";
const ASK_TIME: Duration = Duration::from_secs(2);
/// Between two looks after links on which an old certificate was shown.
const LOOK: Duration = Duration::from_secs(2);

/// Has clients' links be exchanged for others when certificates have been replaced: those that this node has made by
/// their owners here, those that it has taken by the nodes that made them. Goes on until the process ends.
pub async fn keep_links_new(member: Arc<Member>) {
    let of = Arc::downgrade(&member);
    let heed: Handler = Arc::new(move |node, body| {
        let member = of.upgrade();
        Box::pin(async move {
            let member = member.ok_or("it is being closed")?;
            let node = NodeName::new(node.0).ok_or("0 is no node")?;
            let serial = String::from_utf8(body).map_err(|error| error.to_string())?;
            member.server.endpoints.heed_certificate(node, serial);
            Ok(Vec::new())
        })
    });
    member.control.answer(CERTIFICATE, heed);
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(channel) = member.server.internode.channel() else { continue };
        let node = &channel.node;
        let serial = node.shown_serial(Plane::Data);
        let mut makers = BTreeSet::new();
        for link in node.links().outdated(Plane::Data, &serial) {
            match link.direction {
                Direction::Incoming => {
                    makers.insert(link.peer.identity.node.get());
                }
                // Links to primaries are made anew elsewhere, and do not mind.
                Direction::Outgoing => {
                    node.links().remake(link.id);
                }
            }
        }
        for maker in makers.into_iter().map(NodeUid) {
            let body = serial.to_string().into_bytes();
            if let Err(error) = member.control.ask(maker, CERTIFICATE, body, ASK_TIME).await {
                log::debug!("Node {maker} was not told of the new certificate: {error}");
            }
        }
    }
}

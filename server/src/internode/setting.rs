//! What a database keeps of the channel: whether it is encrypted between nodes, who has come for its data, and
//! how both are changed while they are in use.
//!
//! A link is moved by ending it: the replica comes again, the other way, and goes on where it was. That it can is
//! certain, as the log is kept for a node from where it said it is, also while it is away
//! (`EffectLog::keep_for`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carnelian_config::{Config, DirectiveId};
use carnelian_tls::internode::{NodeUid, Plane, Serial};
use parking_lot::Mutex;

use super::Channel;
use super::target::NodeTarget;
use crate::clients::{ClientShared, bits};
use crate::clock;
use crate::database::Database;
use crate::log;
use crate::replication::replica::{self, Rules};
use crate::server::Server;

/// For how long the log is kept for a node that has gone.
const KEPT: Duration = Duration::from_secs(60);

/// For how long a renewal waits for a link to come back.
const RETURN_LIMIT: Duration = Duration::from_secs(10);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);

/// A database's part in the channel.
#[derive(Default)]
pub struct DatabaseChannel {
    is_encrypted: AtomicBool,
    /// How often that has changed.
    switches: AtomicU64,
    peers: Mutex<Peers>,
    /// Held while links are renewed: one at a time.
    renewing: Mutex<()>,
}

#[derive(Default)]
struct Peers {
    /// By the id of their client.
    live: BTreeMap<u64, Peer>,
    /// Nodes that were here and are not, and since when.
    gone: BTreeMap<NodeUid, Instant>,
}

/// Another node that has come for the data.
#[derive(Clone)]
pub struct Peer {
    pub node: NodeUid,
    /// The certificate that this node has shown it; none: it came with a ticket.
    pub own_serial: Option<Serial>,
    pub client: Arc<ClientShared>,
}

impl DatabaseChannel {
    /// `data-internode-encryption`.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted.load(Ordering::SeqCst)
    }

    /// How often the setting has changed.
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::SeqCst)
    }

    /// The setting at the start, when there is no link yet.
    pub fn begin(&self, is_encrypted: bool) {
        self.is_encrypted.store(is_encrypted, Ordering::SeqCst);
    }

    /// Who is here, and whether over TLS.
    pub fn peers(&self) -> Vec<(NodeUid, bool)> {
        let peers = self.peers.lock();
        peers.live.values().map(|peer| (peer.node, peer.own_serial.is_some())).collect()
    }

    /// Ends the links of nodes that may not have the data any longer.
    pub fn dismiss(&self, may_stay: impl Fn(NodeUid) -> bool) {
        for peer in self.peers.lock().live.values().filter(|peer| !may_stay(peer.node)) {
            peer.client.kill();
        }
    }

    pub(super) fn enter(&self, peer: Peer) {
        let mut peers = self.peers.lock();
        peers.gone.remove(&peer.node);
        peers.live.insert(peer.client.id, peer);
    }

    pub(super) fn leave(&self, client: u64) {
        let mut peers = self.peers.lock();
        let Some(peer) = peers.live.remove(&client) else { return };
        if peers.live.values().all(|other| other.node != peer.node) {
            peers.gone.insert(peer.node, Instant::now());
        }
    }

    fn list(&self) -> Vec<Peer> {
        self.peers.lock().live.values().cloned().collect()
    }

    /// Gives up links that do not come to the point, and what was kept for nodes that do not come back.
    pub(super) fn look_after(&self, database: &Database, timeout_s: u32) {
        let (now, now_ms) = (Instant::now(), clock::wall_ms());
        let forgotten: Vec<NodeUid> = {
            let mut peers = self.peers.lock();
            for Peer { node, client, .. } in peers.live.values() {
                let age_ms = now_ms.saturating_sub(client.created_ms);
                if !client.has(bits::REPLICA) && u64::from(timeout_s) * 1000 < age_ms {
                    log::warning!("Node {node} has come and does not ask for the data: closing");
                    client.kill();
                }
            }
            let late = peers.gone.extract_if(.., |_, since| KEPT <= now - *since);
            late.map(|(node, _)| node).collect()
        };
        for node in forgotten {
            database.log.forget(node.get());
        }
    }
}

/// Has a database follow the database of the same uid on another node.
pub fn follow(server: &Arc<Server>, database: &Arc<Database>, target: NodeTarget) {
    let rules = Rules::of(database);
    let following = {
        let _all = database.keyspace.lock_all();
        replica::follow_node(database, target, rules)
    };
    replica::begin(server, database, &following);
}

/// Has a database follow nobody any longer: it becomes a primary.
pub fn follow_nobody(database: &Arc<Database>) {
    crate::replication::follow_nobody(database);
}

/// Encrypts a database between nodes, or does so no longer. Links that are not as they should be are ended, and
/// made anew by a partial resynchronisation; unless it is `graceful`, the connections of all clients of this database
/// are closed. False if that is the setting already: then nothing happens.
pub fn set_data_internode_encryption(
    server: &Server,
    database: &Arc<Database>,
    on: bool,
    graceful: bool,
) -> bool {
    let channel = &database.internode;
    if channel.is_encrypted.swap(on, Ordering::SeqCst) == on {
        return false;
    }
    channel.switches.fetch_add(1, Ordering::SeqCst);
    let figures = &server.internode.figures;
    figures.switches.fetch_add(1, Ordering::Relaxed);
    if on {
        server.internode.tickets.void(database.uid);
        server.endpoints.void_passes(database.uid);
    }
    let peers = channel.list();
    let moving = peers.iter().filter(|peer| peer.own_serial.is_some() != on);
    let links = moving.map(|peer| peer.client.kill()).count();
    if let Some(following) = database.replication.following.load_full()
        && following.is_encrypted().is_some_and(|is_encrypted| is_encrypted != on)
    {
        following.reconnect();
    }
    let is_client = |client: &Arc<ClientShared>| {
        !client.has(bits::PRIMARY) && peers.iter().all(|peer| peer.client.id != client.id)
    };
    let clients = match graceful {
        true => 0,
        false => {
            let clients = database.clients.list().into_iter();
            clients.filter(is_client).map(|client| client.kill()).count()
        }
    };
    figures.clients_dropped.fetch_add(clients as u64, Ordering::Relaxed);
    log::notice!(
        "Encryption of database {} between nodes is {}: {links} links to replicas are made anew, \
         {clients} clients disconnected",
        database.uid,
        if on { "on" } else { "off" }
    );
    true
}

/// Puts into effect what has changed in the configuration.
pub fn heed(server: &Server, database: &Arc<Database>, config: &Config, changed: &[DirectiveId]) {
    if changed.contains(&DirectiveId::data_internode_encryption) {
        let (on, graceful) =
            (config.data_internode_encryption, config.data_internode_encryption_graceful);
        set_data_internode_encryption(server, database, on, graceful);
    }
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Renewed {
    pub links: usize,
    /// Did not come back in time; they go on trying by themselves.
    pub late: usize,
}

/// Makes anew the links on which this node has shown another certificate than it does now: one at a time, so that a
/// database lacks one of its replicas at most. Takes as long as that does. All other links are marked for their
/// owners to make anew; those that are there still after a while are ended.
pub fn renew_links(server: &Arc<Server>) -> Renewed {
    let mut renewed = Renewed::default();
    let Some(channel) = server.internode.channel() else { return renewed };
    let databases = server.databases.read().clone();
    for database in &databases {
        renew_links_of(&channel, database, &mut renewed);
    }
    let node = &channel.node;
    let outdated = || {
        Plane::ALL
            .into_iter()
            .flat_map(|plane| node.links().outdated(plane, &node.shown_serial(plane)))
    };
    for link in outdated() {
        node.links().remake(link.id);
    }
    if !eventually(|| outdated().next().is_none()) {
        for link in outdated() {
            log::notice!("Ending a link with an earlier certificate: {}", link.address);
            node.end_link(link.id);
        }
    }
    server.internode.figures.renewed.fetch_add(renewed.links as u64, Ordering::Relaxed);
    if renewed != Renewed::default() {
        let Renewed { links, late } = renewed;
        log::notice!("Links with the new certificate: {links} made anew, {late} yet to come back");
    }
    renewed
}

fn renew_links_of(channel: &Channel, database: &Database, renewed: &mut Renewed) {
    let internode = &database.internode;
    let _one_at_a_time = internode.renewing.lock();
    let current = channel.node.shown_serial(Plane::Data);
    let is_outdated = |serial: &Option<Serial>| serial.as_ref().is_some_and(|it| *it != current);
    let mut count = |is_back: bool| match is_back {
        true => renewed.links += 1,
        false => renewed.late += 1,
    };
    if let Some(following) = database.replication.following.load_full()
        && is_outdated(&following.own_serial())
    {
        following.reconnect();
        count(eventually(|| following.is_up() && !is_outdated(&following.own_serial())));
    }
    for peer in internode.list().iter().filter(|peer| is_outdated(&peer.own_serial)) {
        peer.client.kill();
        let is_back = || {
            let peers = internode.list();
            peers.iter().any(|other| {
                other.node == peer.node
                    && other.client.id != peer.client.id
                    && other.client.has(bits::REPLICA)
            })
        };
        count(eventually(is_back));
    }
}

fn eventually(is_so: impl Fn() -> bool) -> bool {
    let until = Instant::now() + RETURN_LIMIT;
    loop {
        if is_so() {
            return true;
        }
        if until < Instant::now() {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

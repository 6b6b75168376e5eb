//! A database's endpoint on the nodes of a cluster: its port is open on each of them, and wherever a client comes
//! in, the primary serves it.
//!
//! On the primary's node nothing of this is in the way: clients are accepted by the reactors. On every other node,
//! with or without a replica, an [`entrance`] takes them, speaks TLS with them if they do, and passes their bytes
//! on over a link between the nodes ([`dial`]), encrypted if the database is to be. On the primary's node the link
//! becomes an ordinary client ([`arrival`]), with the address it came from, that has yet to say who it is.
//!
//! Whom an entrance leads to is said by the control plane; nothing here knows of it. All of it runs on a runtime
//! of its own, which is there once it is needed.

pub mod arrival;
pub mod dial;
pub mod entrance;
mod passage;
mod passes;
mod visitor;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use carnelian_tls::ConfigError;
use carnelian_tls::internode::NodeUid;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

pub use self::arrival::{Hosted, NAME, PassPlane};
pub use self::entrance::{Entrance, House, Incoming, Route};
pub use self::visitor::Opening;

use self::dial::Paths;
use self::passes::Passes;
use crate::encryption::Asked;

/// What of a database's endpoint is in this process.
#[derive(Default)]
pub struct DatabaseEndpoint {
    /// Where clients are sent on from; none: they are served here.
    entrance: ArcSwapOption<Entrance>,
    /// Set where this node is the primary, and clients of other nodes may come.
    primacy: Mutex<Option<Primacy>>,
    /// Those that have come from other nodes, by the id of their client.
    hosted: Mutex<BTreeMap<u64, Hosted>>,
}

/// By which state of the cluster this node is a database's primary.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Primacy {
    pub epoch: u64,
    /// How often the clients of the database have been disconnected.
    pub disconnects: u64,
}

impl DatabaseEndpoint {
    /// Where new clients are to go, if not to a reactor.
    #[inline]
    pub fn entrance(&self) -> arc_swap::Guard<Option<Arc<Entrance>>> {
        self.entrance.load()
    }

    /// Has clients that come from now on be sent on, or served here.
    pub fn divert(&self, entrance: Option<Arc<Entrance>>) {
        self.entrance.store(entrance);
    }

    /// Takes clients of other nodes, or does so no longer.
    pub fn set_primacy(&self, primacy: Option<Primacy>) {
        *self.primacy.lock() = primacy;
    }

    pub fn is_primary(&self) -> bool {
        self.primacy().is_some()
    }

    fn primacy(&self) -> Option<Primacy> {
        *self.primacy.lock()
    }

    /// How many clients have come through other nodes, by node, and how many of them over TLS.
    pub fn hosted(&self) -> BTreeMap<NodeUid, (usize, usize)> {
        let mut counts = BTreeMap::new();
        for hosted in self.hosted.lock().values() {
            let (all, encrypted) = counts.entry(hosted.node).or_insert((0, 0));
            *all += 1;
            *encrypted += usize::from(hosted.is_encrypted);
        }
        counts
    }
}

/// What of all endpoints is in this process.
#[derive(Default)]
pub struct Endpoints {
    /// None inside: its threads could not be had.
    runtime: OnceLock<Option<Runtime>>,
    /// By the uid of their database.
    entrances: Mutex<BTreeMap<u32, Arc<Entrance>>>,
    passes: Passes,
    /// The certificate for data that each node shows now, as far as it has said so.
    shown: watch::Sender<BTreeMap<NodeUid, String>>,
    paths: Arc<Paths>,
    /// Clients that were sent on, and of those how many links were exchanged.
    sent_on: AtomicU64,
    moved: AtomicU64,
    /// Clients that could not be sent on.
    unreached: AtomicU64,
}

/// Figures for INFO.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    pub sent_on: u64,
    pub moved: u64,
    pub unreached: u64,
}

impl Endpoints {
    /// Where the work is done; none if there are no threads to be had.
    pub fn handle(&self) -> Option<Handle> {
        let make = || {
            let threads = std::thread::available_parallelism().map_or(2, |it| it.get());
            let runtime = Builder::new_multi_thread()
                .worker_threads(threads.clamp(2, 8))
                .thread_name("endpoint")
                .enable_all()
                .build();
            let failed =
                |error| crate::log::warning!("No threads to send clients on with: {error}");
            let runtime = runtime.map_err(failed).ok()?;
            runtime.spawn(Paths::look_after(Arc::downgrade(&self.paths)));
            Some(runtime)
        };
        self.runtime.get_or_init(make).as_ref().map(|runtime| runtime.handle().clone())
    }

    pub fn entrance(&self, database: u32) -> Option<Arc<Entrance>> {
        self.entrances.lock().get(&database).cloned()
    }

    /// The databases that have one.
    pub fn databases(&self) -> Vec<u32> {
        self.entrances.lock().keys().copied().collect()
    }

    pub fn add(&self, entrance: Arc<Entrance>) {
        self.entrances.lock().insert(entrance.database, entrance);
    }

    /// Closes an entrance: its port, and the connections of those who came in by it.
    pub fn close(&self, database: u32) {
        let entrance = self.entrances.lock().remove(&database);
        if let Some(entrance) = entrance {
            entrance.close();
        }
    }

    /// The same for all of them.
    pub fn close_all(&self) {
        let all = std::mem::take(&mut *self.entrances.lock());
        all.values().for_each(|entrance| entrance.close());
    }

    /// Has all entrances that are no database's speak TLS with clients as the cluster says.
    pub fn encrypt(&self, asked: &Asked) -> Result<(), ConfigError> {
        let all: Vec<_> = self.entrances.lock().values().cloned().collect();
        all.iter().try_for_each(|entrance| entrance.encrypt(asked))
    }

    /// New connections to databases of other nodes are shown what this node has been given for them.
    pub fn renew_tls(&self) -> Result<(), ConfigError> {
        let all: Vec<_> = self.entrances.lock().values().cloned().collect();
        all.iter().try_for_each(|entrance| entrance.renew_tls())
    }

    /// A node shows this certificate: links on which it has shown another are to be made anew.
    pub fn heed_certificate(&self, node: NodeUid, serial: String) {
        self.shown.send_if_modified(|shown| {
            let before = shown.insert(node, serial);
            before.as_ref() != shown.get(&node)
        });
    }

    /// Passes for links that are not encrypted let nobody in any more.
    pub fn void_passes(&self, database: u32) {
        self.passes.void(database);
    }

    pub fn totals(&self) -> Totals {
        let [sent_on, moved, unreached] =
            [&self.sent_on, &self.moved, &self.unreached].map(|figure| figure.load(Relaxed));
        Totals { sent_on, moved, unreached }
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        // It may be one of its own tasks that lets go of it.
        if let Some(Some(runtime)) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

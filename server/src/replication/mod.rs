//! A database's part in replication: the history of its data, whom it follows, and who follows it.
//!
//! `primary` and `feed` are about those who follow this database, `replica` and `link` about the one it follows.

pub mod apply;
mod beside;
mod channels;
pub mod failover;
pub mod feed;
pub mod full_sync;
pub mod import;
pub mod link;
pub mod own_keys;
pub mod primary;
mod relay;
pub mod replica;
pub(crate) mod secure;
mod snapshot;
pub mod tenure;
pub mod waits;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use carnelian_replication::{History, Id};
use parking_lot::Mutex;

use own_keys::OwnKeys;
use primary::Primary;
use replica::{Following, Rules};
use tenure::Tenure;

use crate::database::Database;
use crate::server::Server;

/// What a command may have to be refused for: bits that `dispatch::admit` looks at, in one load.
pub mod gate {
    /// The database follows another.
    pub const REPLICA: u32 = 1;
    /// It does, and takes writes from it alone.
    pub const READ_ONLY: u32 = 1 << 1;
    /// It does, has no link to it, and is not to show old data.
    pub const STALE: u32 = 1 << 2;
    /// Fewer replicas keep up than `min-replicas-to-write` asks for.
    pub const LACKING: u32 = 1 << 3;
    /// The data are being loaded.
    pub const LOADING: u32 = 1 << 4;
    /// It follows another and has no link to it.
    pub const LINK_DOWN: u32 = 1 << 5;
    /// Data are being loaded, and the old ones are shown meanwhile.
    pub const LOADING_BESIDE: u32 = 1 << 6;
    /// It is a primary that may not be it any longer: it does not hear from the cluster.
    pub const FENCED: u32 = 1 << 7;
    /// It was started, and has yet to be confirmed as the primary, or to get data from one: what it has may be
    /// less than what another has, or nothing.
    pub const UNCONFIRMED: u32 = 1 << 8;
    /// Bits for which clients may not write.
    pub const CLOSED: u32 = READ_ONLY | FENCED;
    /// Bits for which a command may be refused.
    pub const REFUSING: u32 = CLOSED | UNCONFIRMED | STALE | LACKING | LOADING | LOADING_BESIDE;
}

/// What a database knows of replication.
pub struct Replication {
    /// Names the history of the data.
    pub history: Mutex<History>,
    gate: AtomicU32,
    /// Whom the database follows; none for a primary. Changed together with `gate::REPLICA`.
    pub following: ArcSwapOption<Following>,
    /// Those who follow it.
    pub primary: Primary,
    /// The history is that of the snapshot that the server was started with.
    pub has_resumed: AtomicBool,
    /// Links to primaries that did not come about, or broke with a reason.
    pub failed_links: AtomicU64,
    /// Keys that it removes by itself although it follows another.
    pub own_keys: OwnKeys,
    /// The process ends: a link that is lost is not made again.
    pub is_ending: AtomicBool,
    /// Whether the cluster has it be a primary, and until when.
    pub tenure: Tenure,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            history: Mutex::new(History::new(new_id())),
            gate: AtomicU32::new(0),
            following: ArcSwapOption::empty(),
            primary: Primary::default(),
            has_resumed: AtomicBool::new(false),
            failed_links: AtomicU64::new(0),
            own_keys: OwnKeys::default(),
            is_ending: AtomicBool::new(false),
            tenure: Tenure::default(),
        }
    }
}

impl Replication {
    /// Whether the database follows another.
    #[inline]
    pub fn is_replica(&self) -> bool {
        self.gate() & gate::REPLICA != 0
    }

    /// Takes no writes, shows no data and has no followers until the cluster says what it is here.
    pub fn close(&self) {
        const BITS: u32 = gate::FENCED | gate::UNCONFIRMED;
        self.tenure.close();
        if self.gate() & BITS != BITS {
            self.set_gate(BITS, true);
        }
    }

    /// What it has is what there is.
    pub fn confirm(&self) {
        if self.gate() & gate::UNCONFIRMED != 0 {
            self.set_gate(gate::UNCONFIRMED, false);
        }
    }

    /// Bits of [`gate`]. Zero for a primary that lacks nothing.
    #[inline]
    pub fn gate(&self) -> u32 {
        self.gate.load(Ordering::Relaxed)
    }

    pub fn set_gate(&self, bits: u32, is_on: bool) {
        if is_on {
            self.gate.fetch_or(bits, Ordering::SeqCst);
        } else {
            self.gate.fetch_and(!bits, Ordering::SeqCst);
        }
    }
}

/// Has the database follow another, as its replica.
pub fn follow(server: &Arc<Server>, database: &Arc<Database>, host: &str, port: u16) {
    let rules = Rules::of(database);
    let following = {
        let _all = database.keyspace.lock_all();
        replica::follow(database, host.to_owned(), port, rules)
    };
    replica::begin(server, database, &following);
}

/// Has the database follow nobody any longer: it becomes a primary.
pub fn follow_nobody(database: &Arc<Database>) {
    let _all = database.keyspace.lock_all();
    replica::promote(database);
}

/// A name for a new history.
pub fn new_id() -> Id {
    let mut random = fastrand::Rng::new();
    Id::new(|| random.u64(..))
}

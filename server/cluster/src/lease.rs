//! Leases: a primary takes writes while it holds one, and nobody else is made primary until it has run out.
//!
//! Each node sends beats to the leader, which answers with a grant for each database that the node is
//! primary of. A grant is counted by its holder from when the beat was sent, and by the leader from when a
//! majority last confirmed that it leads, whichever ends first; so what a leader granted has ended
//! [`LEASE`] after another could have been elected, and a new leader waits that long (and a little more,
//! as clocks run differently) before it makes anybody primary.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::placement::ShardReport;
use crate::state::{DatabaseUid, NodeUid};

/// How often a node lets the leader hear of it.
pub const BEAT: Duration = Duration::from_millis(250);

/// How long a grant is good for.
pub const LEASE: Duration = Duration::from_millis(1500);

/// How long a grant may be good for by a clock that runs slow by a tenth.
pub const LEASE_SURELY_OVER: Duration = Duration::from_millis(1650);

/// A majority that confirmed the leader is good for several answers.
const CONFIRMED_FOR: Duration = Duration::from_millis(150);

/// A node is alive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    pub node: NodeUid,
    pub reports: Vec<ShardReport>,
    /// What it was asked to give back, and has not any more.
    pub returned: Vec<Revocation>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    pub grants: Vec<Grant>,
    /// To be given back at once: another node is about to be primary.
    pub revoked: Vec<Revocation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub database: DatabaseUid,
    pub epoch: u64,
    /// No two have the same, so that a late answer to one is not taken for the answer to another.
    pub serial: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub database: DatabaseUid,
    pub epoch: u64,
    /// Counted from when the beat was sent.
    pub for_ms: u64,
}

/// A lease as its holder has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub epoch: u64,
    pub until: Instant,
}

/// The leases of this node.
#[derive(Default)]
pub struct Leases(Mutex<Held>);

#[derive(Default)]
struct Held {
    leases: BTreeMap<DatabaseUid, Lease>,
    /// The newest epoch that was ever granted to this process.
    granted: BTreeMap<DatabaseUid, u64>,
    returned: Vec<Revocation>,
}

impl Leases {
    /// Takes what was granted for a beat. Beats go one after another: an answer is taken before the next beat
    /// is sent, or never.
    pub fn take(&self, granted: &Granted, sent: Instant) {
        let mut held = self.0.lock();
        for revoked in &granted.revoked {
            held.leases.remove(&revoked.database);
        }
        held.returned.clone_from(&granted.revoked);
        for grant in &granted.grants {
            let until = sent + Duration::from_millis(grant.for_ms).min(LEASE);
            held.leases.insert(grant.database, Lease { epoch: grant.epoch, until });
            held.granted.insert(grant.database, grant.epoch);
        }
    }

    /// The lease of a database, if it has not run out.
    pub fn held(&self, database: DatabaseUid, now: Instant) -> Option<Lease> {
        self.0.lock().leases.get(&database).copied().filter(|lease| now < lease.until)
    }

    /// Whether this process was ever granted this epoch.
    pub fn was_granted(&self, database: DatabaseUid, epoch: u64) -> bool {
        self.0.lock().granted.get(&database) == Some(&epoch)
    }

    pub fn returned(&self) -> Vec<Revocation> {
        self.0.lock().returned.clone()
    }
}

/// What the leader knows by beats; worth nothing once another leads.
pub struct Ledger {
    /// The term that it was opened in, and when.
    term: u64,
    since: Instant,
    /// When a majority last confirmed that this node leads.
    confirmed: Option<Instant>,
    beats: BTreeMap<NodeUid, (Instant, Vec<ShardReport>)>,
    /// Until when the holder may believe to have the lease.
    granted: BTreeMap<DatabaseUid, Instant>,
    /// No more grants of this epoch.
    revoked: BTreeMap<DatabaseUid, Revocation>,
    revocations: u64,
}

impl Ledger {
    pub fn new(term: u64, now: Instant) -> Self {
        Self {
            term,
            since: now,
            confirmed: None,
            beats: BTreeMap::new(),
            granted: BTreeMap::new(),
            revoked: BTreeMap::new(),
            revocations: 0,
        }
    }

    /// Begins anew if the term is another: who led between may have granted what this node knows nothing of.
    pub fn of_term(&mut self, term: u64, now: Instant) -> &mut Self {
        if self.term != term {
            *self = Self::new(term, now);
        }
        self
    }

    /// When a majority confirmed this node, if that is recent enough to grant by.
    pub fn confirmed(&self, term: u64, now: Instant) -> Option<Instant> {
        self.confirmed.filter(|at| self.term == term && now - *at < CONFIRMED_FOR)
    }

    /// A majority that was asked at `asked` has confirmed this node.
    pub fn confirm(&mut self, asked: Instant) {
        self.confirmed = self.confirmed.max(Some(asked));
    }

    /// A beat came.
    pub fn note(&mut self, beat: &Beat, now: Instant) {
        self.beats.insert(beat.node, (now, beat.reports.clone()));
        for returned in &beat.returned {
            if self.revoked.get(&returned.database) == Some(returned) {
                self.granted.remove(&returned.database);
            }
        }
    }

    /// A grant of the database's epoch to its primary, unless that was revoked. `confirmed` is when a majority
    /// confirmed this node.
    pub fn grant(
        &mut self,
        database: DatabaseUid,
        epoch: u64,
        confirmed: Instant,
        now: Instant,
    ) -> Option<Grant> {
        if self.revoked(database).is_some_and(|revoked| revoked.epoch == epoch) {
            return None;
        }
        let left = LEASE.checked_sub(now - confirmed)?;
        let until = now + left;
        let last = self.granted.entry(database).or_insert(until);
        *last = until.max(*last);
        let for_ms = left.as_millis().try_into().unwrap_or(0);
        Some(Grant { database, epoch, for_ms })
    }

    /// Grants no more of this epoch; whoever has the lease is asked to give it back.
    pub fn revoke(&mut self, database: DatabaseUid, epoch: u64) {
        if self.revoked(database).is_none_or(|revoked| revoked.epoch != epoch) {
            self.revocations += 1;
            let serial = (self.term << 32) | self.revocations;
            self.revoked.insert(database, Revocation { database, epoch, serial });
        }
    }

    /// It stays where it is after all.
    pub fn restore(&mut self, database: DatabaseUid) {
        self.revoked.remove(&database);
    }

    pub fn revoked(&self, database: DatabaseUid) -> Option<Revocation> {
        self.revoked.get(&database).copied()
    }

    /// Whether nobody can hold a lease of this database any more.
    pub fn is_free(&self, database: DatabaseUid, now: Instant) -> bool {
        let slack = LEASE_SURELY_OVER - LEASE;
        let over = self.granted.get(&database).is_none_or(|until| *until + slack < now);
        over && self.since + LEASE_SURELY_OVER < now
    }

    /// How long nothing was heard of a node.
    pub fn silent_for(&self, node: NodeUid, now: Instant) -> Duration {
        let last = self.beats.get(&node).map_or(self.since, |(at, _)| *at);
        now - last
    }

    pub fn has_heard(&self, node: NodeUid) -> bool {
        self.beats.contains_key(&node)
    }

    /// What the nodes said of their shards, if they said it a moment ago.
    pub fn reports(&self, now: Instant) -> BTreeMap<NodeUid, Vec<ShardReport>> {
        let fresh = self.beats.iter().filter(|(_, (at, _))| now - *at < 4 * BEAT);
        fresh.map(|(node, (_, reports))| (*node, reports.clone())).collect()
    }

    /// When a node's last beat came.
    pub fn heard_at(&self, node: NodeUid) -> Option<Instant> {
        self.beats.get(&node).map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: DatabaseUid = DatabaseUid(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn a_holders_lease_ends_before_the_leader_counts_it_as_over() {
        let (leases, sent) = (Leases::default(), Instant::now());
        let mut ledger = Ledger::new(1, sent);
        let (asked, answered) = (sent + ms(100), sent + ms(400));
        let grant = ledger.grant(DATABASE, 7, asked, answered).expect("nothing is revoked");
        leases.take(&Granted { grants: vec![grant], revoked: Vec::new() }, sent);
        let end = leases.held(DATABASE, sent).expect("it was just taken").until;
        assert_eq!(end, sent + ms(1200));
        assert!(leases.held(DATABASE, end).is_none());
        assert!(!ledger.is_free(DATABASE, end));
        assert!(ledger.is_free(DATABASE, sent + ms(1800)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_waits_for_what_another_may_have_granted() {
        let now = Instant::now();
        let ledger = Ledger::new(2, now);
        assert!(!ledger.is_free(DATABASE, now + LEASE));
        assert!(ledger.is_free(DATABASE, now + ms(1651)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_answer_to_this_revocation_frees_a_database() {
        let (leases, now) = (Leases::default(), Instant::now());
        let later = now + LEASE_SURELY_OVER + ms(100);
        let mut ledger = Ledger::new(1, now);
        let beat = |returned| Beat { node: NodeUid(1), reports: Vec::new(), returned };
        ledger.revoke(DATABASE, 3);
        let late = beat(vec![ledger.revoked(DATABASE).expect("it is")]);
        ledger.restore(DATABASE);
        let grant = ledger.grant(DATABASE, 3, later, later).expect("it may stay");
        leases.take(&Granted { grants: vec![grant], revoked: Vec::new() }, later);
        ledger.revoke(DATABASE, 3);
        ledger.note(&late, later);
        assert!(!ledger.is_free(DATABASE, later));
        let revoked = vec![ledger.revoked(DATABASE).expect("it is")];
        leases.take(&Granted { grants: Vec::new(), revoked }, later);
        assert!(leases.held(DATABASE, later).is_none());
        ledger.note(&beat(leases.returned()), later);
        assert!(ledger.is_free(DATABASE, later));
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_epoch_is_not_granted() {
        let now = Instant::now();
        let mut ledger = Ledger::new(1, now);
        ledger.revoke(DATABASE, 3);
        assert!(ledger.grant(DATABASE, 3, now, now).is_none());
        assert!(ledger.grant(DATABASE, 4, now, now).is_some());
    }
}

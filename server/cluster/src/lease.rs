//! Leases: a primary takes writes while it holds one, and nobody else is made primary until it has run out.
//!
//! Each node sends beats to the leader, which answers with a grant for each database that the node is
//! primary of. A grant is counted by its holder from when the beat was sent, and by the leader from when a
//! majority last confirmed that it leads, whichever ends first; so what a leader granted has ended
//! [`LEASE`] after another could have been elected, and a new leader waits that long (and a little more,
//! as clocks run differently) before it makes anybody primary. All of this is by [`Environment::steady`], which
//! goes on while a process is stopped or the machine sleeps.
//!
//! Where there are replicas a lease is for one process: after a start the leader first finds out whether that has
//! the data ([`placement::after_restart`](crate::placement::after_restart)).
//!
//! [`Environment::steady`]: crate::peers::Environment::steady

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::placement::ShardReport;
use crate::state::{DatabaseUid, NodeUid, Placement};

/// How often a node lets the leader hear of it.
pub const BEAT: Duration = Duration::from_millis(250);

/// How long a grant is good for.
pub const LEASE: Duration = Duration::from_millis(1500);

/// How long a grant may be good for by a clock that runs slow by a tenth.
pub const LEASE_SURELY_OVER: Duration = Duration::from_millis(1650);

const SLACK: Duration = LEASE_SURELY_OVER.checked_sub(LEASE).expect("it is longer");

/// A majority that confirmed the leader is good for several answers.
const CONFIRMED_FOR: Duration = Duration::from_millis(150);

/// A node is alive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    pub node: NodeUid,
    /// By chance, another for each start of the process.
    #[serde(default)]
    pub process: u64,
    pub reports: Vec<ShardReport>,
    /// What it was asked to give back, and has not any more.
    pub returned: Vec<Revocation>,
    /// The last that the leader had said when the shards were looked at. When a beat comes says nothing of that: its
    /// process may have been stopped in between, for however long.
    #[serde(default)]
    pub as_of: Option<Said>,
}

/// When a leader said something, by its own clock: nobody else makes anything of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub term: u64,
    pub at_us: u64,
}

impl Said {
    pub fn now(term: u64, now: Duration) -> Self {
        Self { term, at_us: now.as_micros().try_into().unwrap_or(0) }
    }
}

/// What was known when a look at the shards began.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What this node was asked to give back.
    returned: Vec<Revocation>,
    as_of: Option<Said>,
}

impl Look {
    pub(crate) fn into_parts(self) -> (Vec<Revocation>, Option<Said>) {
        (self.returned, self.as_of)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    pub grants: Vec<Grant>,
    /// To be given back at once: another node is about to be primary.
    pub revoked: Vec<Revocation>,
    #[serde(default)]
    pub said: Option<Said>,
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
    /// By [`Environment::steady`](crate::peers::Environment::steady).
    pub until: Duration,
}

/// Whether a node may take writes for a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    No,
    /// There is no replica that could be made primary.
    Alone,
    Until(Lease),
}

impl Writable {
    pub fn now(self) -> bool {
        self != Self::No
    }
}

/// Until when a process may tell clients that their writes were made. It is looked at after a write was made and
/// before that is told, so that no reply says of a write what is not so any longer, however long the process
/// was stopped in between.
#[derive(Debug)]
pub struct Deadline(AtomicU64);

impl Deadline {
    const NONE: u64 = u64::MAX;

    /// No lease is needed.
    pub const fn none() -> Self {
        Self(AtomicU64::new(Self::NONE))
    }

    /// None is needed any longer.
    pub fn open(&self) {
        self.0.store(Self::NONE, Ordering::SeqCst);
    }

    /// Nothing may be told, until it is known better.
    pub fn close(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    /// Ends with the first of these.
    pub fn set_to_first<'d>(&self, deadlines: impl Iterator<Item = &'d Arc<Self>>) {
        // One that is over, or closed, is kept from being used by other means.
        let until = deadlines.map(|it| it.0.load(Ordering::Acquire)).filter(|until| *until != 0);
        self.0.store(until.min().unwrap_or(Self::NONE), Ordering::SeqCst);
    }

    /// Whether a moment is asked for at all, and replies to writes may be kept back.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) != Self::NONE
    }

    /// Whether it is over at a moment that is asked for only where there is a deadline.
    #[inline]
    pub fn is_over(&self, now: impl FnOnce() -> Duration) -> bool {
        let until = self.0.load(Ordering::Acquire);
        until != Self::NONE && until <= u64::try_from(now().as_nanos()).unwrap_or(u64::MAX)
    }

    fn set(&self, writable: Writable) {
        let until = match writable {
            Writable::No => 0,
            Writable::Alone => Self::NONE,
            Writable::Until(lease) => u64::try_from(lease.until.as_nanos()).unwrap_or(0),
        };
        self.0.store(until, Ordering::SeqCst);
    }

    /// A lease that is still counted on goes on.
    fn extend(&self, lease: Lease) {
        if !matches!(self.0.load(Ordering::Acquire), 0 | Self::NONE) {
            self.set(Writable::Until(lease));
        }
    }
}

/// The leases of this node.
#[derive(Default)]
pub struct Leases(Mutex<Held>);

#[derive(Default)]
struct Held {
    leases: BTreeMap<DatabaseUid, Lease>,
    /// The newest epoch that was ever granted to this process.
    granted: BTreeMap<DatabaseUid, u64>,
    /// What it was asked to give back, and has not any more.
    returned: Vec<Revocation>,
    /// The last that was heard of the leader.
    said: Option<Said>,
    /// The same, as of when the shards were last looked at: only then does the leader know what was written
    /// until the end.
    settled: Look,
    deadlines: BTreeMap<DatabaseUid, Arc<Deadline>>,
}

impl Held {
    fn judge(&self, database: DatabaseUid, placement: &Placement, now: Duration) -> Writable {
        // After a start the state may be from before another was made primary: only a grant says that it is
        // not. Since then this node was primary all along.
        let Some(granted) = self.granted.get(&database) else { return Writable::No };
        if placement.epoch < *granted {
            return Writable::No;
        }
        if placement.replicas.is_empty() {
            return Writable::Alone;
        }
        let lease = self.leases.get(&database).filter(|lease| now < lease.until);
        lease.map_or(Writable::No, |lease| Writable::Until(*lease))
    }
}

impl Leases {
    /// Takes what was granted for a beat. Beats go one after another: an answer is taken before the next beat
    /// is sent, or never.
    pub fn take(&self, granted: &Granted, sent: Duration) {
        let mut held = self.0.lock();
        for revoked in &granted.revoked {
            held.leases.remove(&revoked.database);
            if let Some(deadline) = held.deadlines.get(&revoked.database) {
                deadline.close();
            }
        }
        held.returned.clone_from(&granted.revoked);
        held.said = granted.said.or(held.said);
        for grant in &granted.grants {
            let until = sent + Duration::from_millis(grant.for_ms).min(LEASE);
            let lease = Lease { epoch: grant.epoch, until };
            held.leases.insert(grant.database, lease);
            held.granted.insert(grant.database, grant.epoch);
            if let Some(deadline) = held.deadlines.get(&grant.database) {
                deadline.extend(lease);
            }
        }
    }

    /// The lease of a database, if it has not run out.
    pub fn held(&self, database: DatabaseUid, now: Duration) -> Option<Lease> {
        self.0.lock().leases.get(&database).copied().filter(|lease| now < lease.until)
    }

    /// Whether this node, as its primary, may take writes for a database.
    pub fn judge(&self, database: DatabaseUid, placement: &Placement, now: Duration) -> Writable {
        self.0.lock().judge(database, placement, now)
    }

    /// The same, and from here on `deadline` follows it. None: this node is not the primary.
    pub fn keep(
        &self,
        database: DatabaseUid,
        placement: Option<&Placement>,
        deadline: &Arc<Deadline>,
        now: Duration,
    ) -> Writable {
        let mut held = self.0.lock();
        let writable =
            placement.map_or(Writable::No, |placement| held.judge(database, placement, now));
        deadline.set(writable);
        if !held.deadlines.get(&database).is_some_and(|known| Arc::ptr_eq(known, deadline)) {
            held.deadlines.insert(database, Arc::clone(deadline));
        }
        writable
    }

    /// Whether this process was ever granted the database.
    pub fn was_granted(&self, database: DatabaseUid) -> bool {
        self.0.lock().granted.contains_key(&database)
    }

    /// A look at the shards begins.
    pub fn look(&self) -> Look {
        let held = self.0.lock();
        Look { returned: held.returned.clone(), as_of: held.said }
    }

    /// The shards were looked at after that.
    pub fn settle(&self, look: Look) {
        self.0.lock().settled = look;
    }

    /// When they were, and what of that was given back is asked for still.
    pub fn settled(&self) -> Look {
        let held = self.0.lock();
        let mut settled = held.settled.clone();
        settled.returned.retain(|it| held.returned.contains(it));
        settled
    }

    /// It is in no cluster any longer.
    pub fn clear(&self) {
        *self.0.lock() = Held::default();
    }
}

/// What the leader knows by beats; worth nothing once another leads.
pub struct Ledger {
    /// The term that it was opened in, and when.
    term: u64,
    since: Duration,
    /// When a majority last confirmed that this node leads.
    confirmed: Option<Duration>,
    beats: BTreeMap<NodeUid, Heard>,
    /// Until when the holder may believe to have the lease.
    granted: BTreeMap<DatabaseUid, Duration>,
    /// No more grants of this epoch.
    revoked: BTreeMap<DatabaseUid, Revocation>,
    revocations: u64,
    /// Of which process of which database's primary it is known that it waits for replicas.
    waits: BTreeMap<DatabaseUid, u64>,
}

/// A node's last beat.
struct Heard {
    at: Duration,
    process: u64,
    /// Since when that process was heard of.
    since: Duration,
    reports: Vec<ShardReport>,
    /// The shards were looked at later than that.
    as_of: Option<Duration>,
}

impl Ledger {
    pub fn new(term: u64, now: Duration) -> Self {
        Self {
            term,
            since: now,
            confirmed: None,
            beats: BTreeMap::new(),
            granted: BTreeMap::new(),
            revoked: BTreeMap::new(),
            revocations: 0,
            waits: BTreeMap::new(),
        }
    }

    /// A primary's process waits for replicas; true if that is new.
    pub fn note_wait(&mut self, database: DatabaseUid, process: u64) -> bool {
        self.waits.insert(database, process) != Some(process)
    }

    /// Begins anew if the term is another: who led between may have granted what this node knows nothing of.
    pub fn of_term(&mut self, term: u64, now: Duration) -> &mut Self {
        if self.term != term {
            *self = Self::new(term, now);
        }
        self
    }

    /// When a majority confirmed this node, if that is recent enough to grant by.
    pub fn confirmed(&self, term: u64, now: Duration) -> Option<Duration> {
        self.confirmed.filter(|at| self.term == term && now < *at + CONFIRMED_FOR)
    }

    /// A majority that was asked at `asked` has confirmed this node.
    pub fn confirm(&mut self, asked: Duration) {
        self.confirmed = self.confirmed.max(Some(asked));
    }

    /// A beat came.
    pub fn note(&mut self, beat: &Beat, now: Duration) {
        let known = self.beats.get(&beat.node).filter(|heard| heard.process == beat.process);
        let since = known.map_or(now, |heard| heard.since);
        let (process, reports) = (beat.process, beat.reports.clone());
        // What another leader has said, or this one in another term, was by another clock.
        let said = beat.as_of.filter(|said| said.term == self.term);
        let as_of = said.map(|said| Duration::from_micros(said.at_us));
        self.beats.insert(beat.node, Heard { at: now, process, since, reports, as_of });
        for returned in &beat.returned {
            if self.revoked.get(&returned.database) == Some(returned) {
                self.granted.insert(returned.database, now.saturating_sub(SLACK));
            }
        }
    }

    /// A grant of the database's epoch to its primary, unless that was revoked. `confirmed` is when a majority
    /// confirmed this node.
    pub fn grant(
        &mut self,
        database: DatabaseUid,
        epoch: u64,
        confirmed: Duration,
        now: Duration,
    ) -> Option<Grant> {
        if self.revoked(database).is_some_and(|revoked| revoked.epoch == epoch) {
            return None;
        }
        let left = LEASE.checked_sub(now.saturating_sub(confirmed))?;
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
    pub fn is_free(&self, database: DatabaseUid, now: Duration) -> bool {
        self.free_since(database) <= now
    }

    /// From when on nobody can hold a lease of this database, unless it is granted again.
    pub fn free_since(&self, database: DatabaseUid) -> Duration {
        let over = self.granted.get(&database).map(|until| *until + SLACK);
        over.unwrap_or_default().max(self.since + LEASE_SURELY_OVER)
    }

    /// How long nothing was heard of a node.
    pub fn silent_for(&self, node: NodeUid, now: Duration) -> Duration {
        now.saturating_sub(self.heard_at(node).unwrap_or(self.since))
    }

    pub fn has_heard(&self, node: NodeUid) -> bool {
        self.beats.contains_key(&node)
    }

    /// What the nodes said of their shards, if they said it a moment ago.
    pub fn reports(&self, now: Duration) -> BTreeMap<NodeUid, Vec<ShardReport>> {
        let fresh = self.beats.iter().filter(|(_, heard)| now < heard.at + 4 * BEAT);
        fresh.map(|(node, heard)| (*node, heard.reports.clone())).collect()
    }

    /// When a node's last beat came.
    pub fn heard_at(&self, node: NodeUid) -> Option<Duration> {
        self.beats.get(&node).map(|heard| heard.at)
    }

    /// Since when at the latest a node's reports are of, however long they were on their way.
    pub fn looked_at(&self, node: NodeUid) -> Option<Duration> {
        self.beats.get(&node).and_then(|heard| heard.as_of)
    }

    /// Which process of a node was last heard of, and since when.
    pub fn process(&self, node: NodeUid) -> Option<(u64, Duration)> {
        self.beats.get(&node).map(|heard| (heard.process, heard.since))
    }

    /// The process that a database was granted to has ended: another has the same store open.
    pub fn forget(&mut self, database: DatabaseUid) {
        self.granted.remove(&database);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: DatabaseUid = DatabaseUid(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_holders_lease_ends_before_the_leader_counts_it_as_over() {
        let (leases, sent) = (Leases::default(), Duration::from_secs(9));
        let mut ledger = Ledger::new(1, sent);
        let (asked, answered) = (sent + ms(100), sent + ms(400));
        let grant = ledger.grant(DATABASE, 7, asked, answered).expect("nothing is revoked");
        leases.take(&Granted { grants: vec![grant], ..Granted::default() }, sent);
        let end = leases.held(DATABASE, sent).expect("it was just taken").until;
        assert_eq!(end, sent + ms(1200));
        assert!(leases.held(DATABASE, end).is_none());
        assert!(!ledger.is_free(DATABASE, end));
        assert!(ledger.is_free(DATABASE, sent + ms(1800)));
    }

    #[test]
    fn a_new_leader_waits_for_what_another_may_have_granted() {
        let now = Duration::from_secs(9);
        let ledger = Ledger::new(2, now);
        assert!(!ledger.is_free(DATABASE, now + LEASE));
        assert!(ledger.is_free(DATABASE, now + ms(1651)));
    }

    #[test]
    fn only_the_answer_to_this_revocation_frees_a_database() {
        let (leases, now) = (Leases::default(), Duration::from_secs(9));
        let later = now + LEASE_SURELY_OVER + ms(100);
        let mut ledger = Ledger::new(1, now);
        let beat = |returned| Beat {
            node: NodeUid(1),
            process: 1,
            reports: Vec::new(),
            returned,
            as_of: None,
        };
        ledger.revoke(DATABASE, 3);
        let late = beat(vec![ledger.revoked(DATABASE).expect("it is")]);
        ledger.restore(DATABASE);
        let grant = ledger.grant(DATABASE, 3, later, later).expect("it may stay");
        leases.take(&Granted { grants: vec![grant], ..Granted::default() }, later);
        ledger.revoke(DATABASE, 3);
        ledger.note(&late, later);
        assert!(!ledger.is_free(DATABASE, later));
        let revoked = vec![ledger.revoked(DATABASE).expect("it is")];
        leases.take(&Granted { revoked, ..Granted::default() }, later);
        assert!(leases.held(DATABASE, later).is_none());
        // Not before somebody has looked at what was written until the end.
        ledger.note(&beat(leases.settled().into_parts().0), later);
        assert!(!ledger.is_free(DATABASE, later));
        leases.settle(leases.look());
        ledger.note(&beat(leases.settled().into_parts().0), later);
        assert!(ledger.is_free(DATABASE, later));
    }

    #[test]
    fn a_revoked_epoch_is_not_granted() {
        let now = Duration::from_secs(9);
        let mut ledger = Ledger::new(1, now);
        ledger.revoke(DATABASE, 3);
        assert!(ledger.grant(DATABASE, 3, now, now).is_none());
        assert!(ledger.grant(DATABASE, 4, now, now).is_some());
    }
}

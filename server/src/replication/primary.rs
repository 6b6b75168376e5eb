//! The side of a primary: the replicas that are attached, what they have, and what is kept for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use carnelian_config::Config;
use parking_lot::Mutex;

use super::channels::Holds;
use super::failover::Failover;
use super::feed::{Parts, Replica};
use super::waits::Waits;
use super::{full_sync, gate, new_id};
use crate::clock::{self, Clock};
use crate::database::Database;
use crate::log;
use crate::mailbox::Message;
use crate::pause::Held;
use crate::server::Server;

/// What a database knows of those who follow it.
#[derive(Default)]
pub struct Primary {
    /// By the id of their client.
    pub replicas: Mutex<BTreeMap<u64, Arc<Replica>>>,
    /// How many there are.
    attached: AtomicUsize,
    /// A thread makes a snapshot for replicas.
    pub is_syncing: AtomicBool,
    /// Since when nobody is attached.
    alone_since_ms: AtomicU64,
    /// Synchronisations with a snapshot; without one; and those that asked for the second and got the first.
    pub full: AtomicU64,
    pub partial: AtomicU64,
    pub partial_refused: AtomicU64,
    /// Clients that wait for replicas.
    pub waits: Waits,
    /// Where the log ended when replicas were last asked how far they are.
    asked_at: AtomicU64,
    /// How much is kept for those who come back.
    backlog_bytes: AtomicU64,
    /// When replicas last saw that we are here; 0: none has come yet.
    last_ping_ms: AtomicU64,
    next_look_ms: AtomicU64,
    /// Replicas that keep up, as `min-replicas-max-lag` has it.
    pub good: AtomicUsize,
    /// `min-replicas-to-write`, and that in seconds.
    needed: AtomicUsize,
    max_lag: AtomicU64,
    pub failover: Mutex<Failover>,
    /// What is kept for replicas whose snapshot goes over another connection.
    pub(super) holds: Holds,
    /// The server ends as soon as all replicas have everything.
    is_parting: AtomicBool,
    /// Writes are held back for that.
    holds_writes: AtomicBool,
    /// Until when it waits; 0: it does not.
    parts_at_ms: AtomicU64,
}

/// How often a server that is to end looks whether its replicas have everything.
const PARTING_LOOK: Duration = Duration::from_millis(10);

impl Primary {
    /// CONFIG RESETSTAT.
    pub fn reset_figures(&self) {
        for figure in [&self.full, &self.partial, &self.partial_refused] {
            figure.store(0, Ordering::Relaxed);
        }
    }

    /// Whether any replica is attached.
    #[inline]
    pub fn is_attended(&self) -> bool {
        self.attached.load(Ordering::Relaxed) != 0
    }

    pub fn list(&self) -> Vec<Arc<Replica>> {
        self.replicas.lock().values().cloned().collect()
    }

    pub fn is_attached(&self, replica: &Replica) -> bool {
        self.replicas.lock().contains_key(&replica.id())
    }

    pub fn attach(&self, replica: &Arc<Replica>) {
        let mut replicas = self.replicas.lock();
        replicas.insert(replica.id(), Arc::clone(replica));
        self.attached.store(replicas.len(), Ordering::Relaxed);
    }

    /// A replica's connection has ended.
    pub fn detach(&self, database: &Database, replica: &Replica) {
        {
            let mut replicas = self.replicas.lock();
            if replicas.remove(&replica.id()).is_some() {
                log::notice!("Connection with replica {} lost.", replica.name());
            }
            self.attached.store(replicas.len(), Ordering::Relaxed);
        }
        self.alone_since_ms.store(clock::wall_ms(), Ordering::Relaxed);
        replica.leave();
        if !self.holds.outlives(replica.id()) {
            database.log.detach(replica.id());
        }
        self.end_channel_of(replica);
        self.waits.settle(database);
        self.judge(database);
    }

    /// Closes the connections of all replicas: they are to come again. For a history that changes.
    pub fn disconnect_all(&self) {
        for replica in self.list() {
            replica.client.kill();
        }
    }

    /// Replicas that wait for a snapshot of this kind.
    pub fn waiting(&self, parts: Parts, by_file: bool) -> Vec<Arc<Replica>> {
        let replicas = self.replicas.lock();
        let fits = |replica: &&Arc<Replica>| {
            let introduction = &replica.introduction;
            introduction.parts == parts
                && (by_file || introduction.finds_end)
                && replica.is_waiting()
        };
        replicas.values().filter(fits).cloned().collect()
    }

    /// Keeps what replicas that come back may need from now on. Under all locks: nobody knows what was
    /// before, so if nothing was kept the data get a name nobody has.
    pub fn keep_backlog(&self, database: &Database, bytes: u64) {
        if database.log.keeps_backlog() {
            return;
        }
        self.backlog_bytes.store(bytes, Ordering::Relaxed);
        self.alone_since_ms.store(clock::wall_ms(), Ordering::Relaxed);
        database.log.keep_backlog(Some(bytes));
        if !database.replication.is_replica() {
            let mut history = database.replication.history.lock();
            history.renew(new_id());
            log::notice!(
                "Replication backlog created, my new replication IDs are '{}' and '{}'",
                history.id(),
                "0".repeat(40)
            );
        }
    }

    /// Asks all replicas how far they are, unless that is the last thing they were told.
    pub fn ask(&self, database: &Database) {
        if !self.is_attended() || database.replication.is_replica() {
            return;
        }
        let end = database.log.end();
        if self.asked_at.load(Ordering::Acquire) == end && end != 0 {
            return;
        }
        let end = database.log.append_aside(&[b"REPLCONF", b"GETACK", b"*"]);
        self.asked_at.store(end, Ordering::Release);
    }

    /// Begins a synchronisation, if one is due for those who wait.
    pub fn synchronize(&self, server: &Arc<Server>, database: &Arc<Database>, config: &Config) {
        if self.is_syncing.load(Ordering::Acquire) {
            return;
        }
        let now_ms = clock::wall_ms();
        let (parts, by_file, since_ms, count, is_last) = {
            let replicas = self.replicas.lock();
            let waiting: Vec<_> = replicas.values().filter(|it| it.is_waiting()).collect();
            let Some(first) = waiting.iter().min_by_key(|it| it.attached_ms) else { return };
            let parts = first.introduction.parts;
            let by_file = !first.introduction.finds_end
                || !config.repl_diskless_sync && parts == Parts::default();
            let alike = waiting.iter().filter(|it| it.introduction.parts == parts).count();
            // Who knows its replicas waits for no others.
            let is_last = database.replication.tenure.expects_at_most(replicas.len());
            (parts, by_file, first.attached_ms, alike, is_last)
        };
        let max = config.repl_diskless_sync_max_replicas as usize;
        let delay_ms = u64::from(config.repl_diskless_sync_delay) * 1000;
        let is_due = by_file
            || is_last
            || !config.repl_diskless_sync
            || (max != 0 && max <= count)
            || since_ms + delay_ms <= now_ms;
        if is_due {
            full_sync::start(server, database, parts, by_file);
        }
    }

    /// What is due by time. Called by one reactor.
    pub fn tick(&self, server: &Arc<Server>, database: &Arc<Database>) {
        self.advance_failover(server, database);
        let now_ms = clock::wall_ms();
        if self.is_attended() {
            self.synchronize(server, database, &database.config());
        }
        let due_ms = self.next_look_ms.load(Ordering::Relaxed);
        if now_ms < due_ms && due_ms <= now_ms + 1000 {
            return;
        }
        self.next_look_ms.store(now_ms + 1000, Ordering::Relaxed);
        let config = database.config();
        if let Some(following) = &*database.replication.following.load() {
            following.set_patience(config.repl_timeout);
        }
        if self.is_attended() {
            self.ping(database, &config, now_ms);
            self.look_after(server, database, &config, now_ms);
        } else {
            self.forget_backlog(database, &config, now_ms);
        }
        self.let_go_of_holds(database, &config, now_ms);
        self.resize_backlog(database, &config);
        self.set_needs(database, &config);
    }

    /// Shows replicas that we are here, in the log, so that theirs pass it on.
    fn ping(&self, database: &Database, config: &Config, now_ms: u64) {
        // From the last one on, by the period that is in force now: a PING that a longer one should have kept
        // back takes this server past where a promoted replica has left its history.
        let period_ms = u64::from(config.repl_ping_replica_period) * 1000;
        let last_ms = self.last_ping_ms.load(Ordering::Relaxed);
        if last_ms != 0 && last_ms <= now_ms && now_ms < last_ms + period_ms {
            return;
        }
        self.last_ping_ms.store(now_ms, Ordering::Relaxed);
        if last_ms == 0 {
            return;
        }
        let is_held = self.failover.lock().is_on();
        if !is_held && !database.replication.is_replica() && database.log.is_followed() {
            database.log.append_aside(&[b"PING"]);
        }
    }

    /// Gives up those that are not heard of, and shows those that wait that we are here.
    fn look_after(&self, server: &Server, database: &Database, config: &Config, now_ms: u64) {
        let is_cut_off = database.replication.gate() & gate::LINK_DOWN != 0;
        for replica in self.list() {
            let is_late = u64::from(config.repl_timeout) < replica.lag_seconds(now_ms);
            if replica.is_online() {
                if is_late && !replica.is_old {
                    log::warning!(
                        "Disconnecting timedout replica (streaming sync): {}",
                        replica.name()
                    );
                    replica.client.kill();
                }
                if is_cut_off {
                    replica.send_newline();
                }
            } else if is_late
                && (replica.is_behind() || replica.is_beside() && !self.has_channel(&replica))
            {
                log::warning!("Disconnecting timedout replica (full sync): {}", replica.name());
                replica.client.kill();
            } else {
                replica.send_newline();
                server.mailboxes[replica.client.reactor].post(Message::Feed);
            }
        }
    }

    /// Keeps nothing any longer for replicas that have been gone for long.
    fn forget_backlog(&self, database: &Database, config: &Config, now_ms: u64) {
        if database.replication.is_replica() {
            // Who is promoted has everything that those need who followed the same primary.
            self.alone_since_ms.store(now_ms, Ordering::Relaxed);
            return;
        }
        let since_ms = self.alone_since_ms.load(Ordering::Relaxed);
        let ttl_ms = config.repl_backlog_ttl.saturating_mul(1000);
        if ttl_ms == 0 || now_ms.saturating_sub(since_ms) <= ttl_ms || !database.log.keeps_backlog()
        {
            return;
        }
        let _all = database.keyspace.lock_all();
        if self.is_attended() {
            return;
        }
        // Writes from here on may not be counted: nobody can go on from what was before.
        database.replication.history.lock().renew(new_id());
        database.log.keep_backlog(None);
        log::notice!(
            "Replication backlog freed after {} seconds without connected replicas.",
            config.repl_backlog_ttl
        );
    }

    pub fn resize_backlog(&self, database: &Database, config: &Config) {
        let bytes = config.repl_backlog_size;
        if self.backlog_bytes.load(Ordering::Relaxed) != bytes && database.log.keeps_backlog() {
            self.backlog_bytes.store(bytes, Ordering::Relaxed);
            database.log.keep_backlog(Some(bytes));
        }
    }

    /// Before the server ends: holds writes back and waits until all replicas have everything, for as long as
    /// `shutdown-timeout` says. False if it is not to end any more.
    pub fn part(&self, database: &Database, patience: Duration) -> bool {
        // Who gets a snapshot alone acknowledges nothing.
        let has_all = |replica: &Arc<Replica>| {
            replica.introduction.snapshot_only || replica.acknowledged() == database.log.end()
        };
        let in_sync = || self.list().iter().all(has_all);
        if patience.is_zero() || !self.is_attended() || in_sync() {
            return true;
        }
        log::notice!("Waiting for replicas before shutting down.");
        self.is_parting.store(true, Ordering::SeqCst);
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let until_ms = clock::wall_ms().saturating_add(patience_ms);
        self.parts_at_ms.store(until_ms, Ordering::Relaxed);
        self.holds_writes.store(true, Ordering::SeqCst);
        database.pause.begin(Held::Writes, u64::MAX / 2, clock::wall_ms(), &database.attention);
        self.ask(database);
        let begin = Clock::new();
        while self.is_parting.load(Ordering::SeqCst)
            && !in_sync()
            && u128::from(begin.elapsed_us()) < patience.as_micros()
        {
            std::thread::sleep(PARTING_LOOK);
        }
        self.parts_at_ms.store(0, Ordering::Relaxed);
        if !self.is_parting.swap(false, Ordering::SeqCst) {
            log::warning!("Shutdown manually aborted.");
            return false;
        }
        let replicas = self.list();
        let (end, now_ms) = (database.log.end(), clock::wall_ms());
        for replica in replicas.iter().filter(|replica| !has_all(replica)) {
            log::notice!(
                "Lagging replica {} reported offset {} behind master, lag={}, state={}.",
                replica.name(),
                end - replica.acknowledged().min(end),
                replica.lag_seconds(now_ms),
                replica.state()
            );
        }
        log::notice!(
            "{} of {} replicas are in sync when shutting down.",
            replicas.iter().filter(|replica| has_all(replica)).count(),
            replicas.len()
        );
        true
    }

    /// The server does not end after all.
    pub fn go_on(&self, server: &Server, database: &Database) {
        if self.holds_writes.swap(false, Ordering::SeqCst) {
            database.pause.end(&database.attention);
            server.mailboxes.iter().for_each(|mailbox| mailbox.post(Message::PauseOver));
        }
    }

    /// For how long the server waits for replicas before it ends; none: it does not.
    pub fn parts_in_ms(&self, now_ms: u64) -> Option<u64> {
        let at_ms = self.parts_at_ms.load(Ordering::Relaxed);
        (at_ms != 0).then(|| at_ms.saturating_sub(now_ms))
    }

    /// SHUTDOWN ABORT. Whether the server was waiting.
    pub fn stay(&self) -> bool {
        self.is_parting.swap(false, Ordering::SeqCst)
    }

    /// What the configuration asks of replicas before there may be writes.
    pub fn set_needs(&self, database: &Database, config: &Config) {
        self.needed.store(config.min_replicas_to_write as usize, Ordering::Relaxed);
        self.max_lag.store(config.min_replicas_max_lag.into(), Ordering::Relaxed);
        self.judge(database);
    }

    /// Counts the replicas that keep up, and closes or opens the gate for writes.
    pub fn judge(&self, database: &Database) {
        let max_lag = self.max_lag.load(Ordering::Relaxed);
        let needed = self.needed.load(Ordering::Relaxed);
        let now_ms = clock::wall_ms();
        let keeps_up =
            |replica: &&Arc<Replica>| replica.is_online() && replica.lag_seconds(now_ms) <= max_lag;
        let good = self.replicas.lock().values().filter(keeps_up).count();
        self.good.store(good, Ordering::Relaxed);
        let replication = &database.replication;
        let is_lacking = needed != 0 && max_lag != 0 && good < needed && !replication.is_replica();
        if is_lacking != (replication.gate() & gate::LACKING != 0) {
            replication.set_gate(gate::LACKING, is_lacking);
        }
    }
}

//! Keeping a database within `maxmemory`: who has to wait for room, and for how long.
//!
//! Whether there is room is asked before every run of commands, so the answer has to be nearly free.
//! jemalloc counts for each thread what it allocates and frees. A reactor that has once seen how much
//! room there is gets an allowance, up to a mark of its own balance; until its balance reaches that
//! mark it need not look at the others. Allowances are small where several reactors share the room: all
//! together overshoot the limit by no more than `ALLOWANCE` each. Above the mark the published balances
//! are summed, a few loads, and if they exceed the limit keys go: here, by the reactor whose client
//! asked, for `maxmemory-eviction-tenacity`'s time at most. What is left to do then is done between turns.
//!
//! That is so for a database that has the process for itself: all memory counts as its own, as in Redis. Where there
//! are several, each has to answer for its own: what its segments hold, which takes a visit to each of them, and its
//! clients' buffers. A reactor's mark then is a sum of what it allocates, for whichever database, since what it frees
//! of one makes no room in another; and an eviction goes some way below the limit, so that visits are rare.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use carnelian_keyspace::{Changes, EvictionOrder, EvictionPolicy, Evictor};

use crate::allocator;
use crate::blocking;
use crate::database::Database;
use crate::dispatch::{self, Vectors};
use crate::mailbox::Message;
use crate::pubsub;
use crate::reclaim::Reclaimer;
use crate::session::Worker;

/// The most that a reactor may allocate between two looks at what all hold.
const ALLOWANCE: usize = 64 << 10;

/// Keys that are evicted between two readings of the clock.
const KEYS_PER_READING: u32 = 16;

/// How long a segment is waited for when the memory of a database is summed.
const PATIENCE: Duration = Duration::from_micros(200);
/// Where nothing can be evicted, and nothing was freed here, others' deletions are looked for this often.
const LOOK_AGAIN_US: u64 = 1000;

/// What a database may take, and how it gets there.
#[derive(Clone, Copy, Debug)]
pub struct Eviction {
    /// `maxmemory`; 0: as much as there is.
    pub bytes_max: usize,
    /// None: `noeviction`.
    pub policy: Option<EvictionPolicy>,
    /// `maxmemory-samples`.
    pub samples: usize,
    /// The longest a command waits for keys to be evicted; none: as long as it takes.
    pub slice_ns: Option<u64>,
    /// `lazyfree-lazy-eviction`: large values are freed in the background.
    pub is_lazy: bool,
}

/// A database's figures about eviction.
#[derive(Default)]
pub struct Room {
    /// `maxmemory`, where each run of commands looks.
    bytes_max: AtomicUsize,
    /// There are other databases in the process: what counts is what this one holds.
    is_shared: AtomicBool,
    /// Bytes of data as of the last look, where others are there.
    data_bytes: AtomicUsize,
    /// Bytes of clients' buffers, as of the last tick.
    client_bytes: AtomicUsize,
    /// The most that was seen in use, where others are there.
    peak_bytes: AtomicUsize,
    /// Bytes that are not the allocator's (TLS sessions), as of the last tick.
    foreign_bytes: AtomicUsize,
    /// Since when more is in use than may be, in microseconds since 1970; 0: it is not.
    exceeded_since_us: AtomicU64,
    /// For how long that was so, before.
    exceeded_us: AtomicU64,
    /// Bytes of invalidations that have yet to be given to their clients' sockets.
    on_the_way: AtomicUsize,
}

/// A message to a client that tracks keys, for as long as it has not been given to its socket. It does not count
/// against the limit: an evicted key would make others go, of which clients are told in their turn.
pub struct OnTheWay {
    database: Arc<Database>,
    bytes: usize,
}

impl OnTheWay {
    pub fn new(database: &Arc<Database>, len: usize) -> Self {
        // With what the allocator and the mailbox take.
        let bytes = len + len / 4 + 2 * size_of::<Message>();
        database.room.on_the_way.fetch_add(bytes, Ordering::Relaxed);
        Self { database: Arc::clone(database), bytes }
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.database.room.on_the_way.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Room {
    pub fn set_limit(&self, eviction: &Eviction) {
        self.bytes_max.store(eviction.bytes_max, Ordering::Relaxed);
    }

    #[inline]
    pub fn limit(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    pub fn set_shared(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    /// Whether only what this database holds counts, and not all that the process does.
    pub fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    /// What clients take: of the allocator's bytes, and of others.
    pub fn set_clients(&self, bytes: usize, foreign_bytes: usize) {
        self.client_bytes.store(bytes, Ordering::Relaxed);
        self.foreign_bytes.store(foreign_bytes, Ordering::Relaxed);
    }

    /// The most bytes that were ever seen in use by this database, `used` now included.
    pub fn raise_peak(&self, used: usize) -> usize {
        self.peak_bytes.fetch_max(used, Ordering::Relaxed).max(used)
    }

    pub fn foreign(&self) -> usize {
        self.foreign_bytes.load(Ordering::Relaxed)
    }

    /// For how long in all, and for how long now, more has been in use than may be: in milliseconds.
    pub fn exceeded_ms(&self, now_us: u64) -> (u64, u64) {
        let since_us = self.exceeded_since_us.load(Ordering::Relaxed);
        let current_us = if since_us == 0 { 0 } else { now_us.saturating_sub(since_us) };
        let total_us = self.exceeded_us.load(Ordering::Relaxed) + current_us;
        (total_us / 1000, current_us / 1000)
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.exceeded_us.store(0, Ordering::Relaxed);
        self.exceeded_since_us.store(0, Ordering::Relaxed);
    }

    fn note_exceeded(&self, is_exceeded: bool, now_us: u64) {
        let since_us = self.exceeded_since_us.load(Ordering::Relaxed);
        if is_exceeded == (since_us != 0) {
            return;
        }
        let next = if is_exceeded { now_us.max(1) } else { 0 };
        let swapped = self.exceeded_since_us.compare_exchange(
            since_us,
            next,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if swapped.is_ok() && !is_exceeded {
            self.exceeded_us.fetch_add(now_us.saturating_sub(since_us), Ordering::Relaxed);
        }
    }
}

/// A reactor's part in the eviction of one database.
#[derive(Default)]
pub struct Quota {
    /// The limit that `mark` was made for.
    bytes_max: usize,
    /// Whether others were there.
    is_shared: bool,
    /// The balance of this thread up to which there is room for certain; or what it has allocated, where others
    /// are there.
    mark: i64,
    /// What it had freed, and when it was, as of the last look, where others are there.
    seen: (u64, u64),
    /// There was none, and none could be made.
    is_full: bool,
    evictor: Evictor,
}

/// Evicts keys if more memory is in use than may be. Whether commands that take memory (those
/// flagged `denyoom`) may run. No lock may be held.
#[inline]
pub fn make_room(worker: &mut Worker, database: &Arc<Database>) -> bool {
    let bytes_max = database.room.limit();
    bytes_max == 0
        || is_below_mark(worker, database, bytes_max)
        || make(worker, database, bytes_max)
}

/// The balance of this thread (as `allocator::balance` gives it) from which a run of commands ends
/// after one that takes memory, so that `make_room` is asked again before the next.
#[inline]
pub fn mark(worker: &Worker, database: &Database) -> i64 {
    if database.room.limit() == 0 {
        return i64::MAX;
    }
    match worker.quotas.get(&database.uid) {
        Some(quota) if !quota.is_full => quota.in_balance(),
        // Those that take memory are refused one by one anyway.
        _ => i64::MAX,
    }
}

/// What counts against the limit: all that is in use, but for what goes by itself.
pub fn counted(reclaimer: &Reclaimer, database: &Database) -> usize {
    in_use(reclaimer, database).saturating_sub(uncounted(database))
}

/// What the log keeps for slow replicas and for the append-only file: no key goes because one of them is slow. And
/// what clients are about to be told of keys that are gone, and the buffers in which replies are made.
pub fn uncounted(database: &Database) -> usize {
    if database.room.is_shared() {
        return 0;
    }
    let on_the_way = database.room.on_the_way.load(Ordering::Relaxed);
    database.log.beyond_backlog_memory() + on_the_way + allocator::passing_memory()
}

/// All but what is about to be freed.
pub fn in_use(reclaimer: &Reclaimer, database: &Database) -> usize {
    if database.room.is_shared() {
        return held_by(database);
    }
    // Read first: what is freed between the two must not seem to be still there, and cost another key.
    let pending = reclaimer.pending_bytes();
    let used = allocator::used_memory() + database.room.foreign();
    used.saturating_sub(pending)
}

/// What a database holds itself. Where its locks are held, by the caller even, its data as of the last look.
fn held_by(database: &Database) -> usize {
    let room = &database.room;
    if let Some(bytes) = database.keyspace.heap_bytes_within(PATIENCE) {
        room.data_bytes.store(bytes, Ordering::Relaxed);
    }
    let load = |bytes: &AtomicUsize| bytes.load(Ordering::Relaxed);
    load(&room.data_bytes) + load(&room.client_bytes) + load(&room.foreign_bytes)
}

impl Quota {
    /// What `mark` is compared with.
    #[inline]
    fn spent(&self) -> i64 {
        if self.is_shared { allocator::turnover().0 as i64 } else { allocator::balance() }
    }

    /// The mark as a balance of this thread, for as long as it works for this database only.
    #[inline]
    fn in_balance(&self) -> i64 {
        if !self.is_shared || self.mark == i64::MIN {
            return self.mark;
        }
        allocator::balance().saturating_add(self.mark.saturating_sub(self.spent()))
    }

    /// Whether there is still no room, as far as can be seen without a look at all segments.
    fn is_still_full(&self, bytes_max: usize, now_us: u64) -> bool {
        let (freed, seen_us) = self.seen;
        self.is_shared
            && self.is_full
            && self.bytes_max == bytes_max
            && freed == allocator::turnover().1
            && now_us < seen_us + LOOK_AGAIN_US
    }
}

/// Makes room in all databases, for a slice of time each: where there was no time for it before, or a
/// limit was changed (which may happen under locks).
#[cold]
pub fn go_on(worker: &mut Worker) {
    worker.is_evicting = false;
    let server = Arc::clone(&worker.server);
    for database in &server.databases.read().clone() {
        make_room(worker, database);
    }
}

fn is_below_mark(worker: &Worker, database: &Database, bytes_max: usize) -> bool {
    worker.quotas.get(&database.uid).is_some_and(|quota| {
        quota.bytes_max == bytes_max
            && quota.is_shared == database.room.is_shared()
            && quota.spent() < quota.mark
    })
}

fn make(worker: &mut Worker, database: &Arc<Database>, bytes_max: usize) -> bool {
    let obeys_other =
        database.replication.is_replica() && database.settings.load().replica_ignores_maxmemory;
    if obeys_other || database.pause.now(worker.clock.now_ms(), &database.attention).is_some() {
        // CLIENT PAUSE, or the primary evicts: the data is to stay as it is.
        return true;
    }
    let mut quota = worker.quotas.remove(&database.uid).unwrap_or_default();
    let now_us = worker.clock.monotonic_us();
    if quota.is_shared == database.room.is_shared() && quota.is_still_full(bytes_max, now_us) {
        worker.quotas.insert(database.uid, quota);
        return false;
    }
    let end = if bytes_max < counted(&worker.server.reclaimer, database) {
        evict(worker, database, &mut quota.evictor, bytes_max)
    } else {
        End::Room
    };
    let used = counted(&worker.server.reclaimer, database);
    let allowance = match worker.server.mailboxes.len() {
        1 => ALLOWANCE.min(bytes_max.saturating_sub(used)),
        reactors => ALLOWANCE.min(bytes_max.saturating_sub(used) / (2 * reactors)),
    };
    quota.bytes_max = bytes_max;
    quota.is_shared = database.room.is_shared();
    quota.seen = (allocator::turnover().1, now_us);
    // Where there is no room, what this thread frees makes none yet.
    let is_over = end != End::Room;
    quota.mark = if is_over { i64::MIN } else { quota.spent() + allowance as i64 };
    quota.is_full = end == End::Full;
    worker.is_evicting |= end == End::OutOfTime;
    worker.quotas.insert(database.uid, quota);
    database.room.note_exceeded(is_over, worker.clock.now_us());
    end != End::Full
}

/// How an eviction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// No more is in use than may be.
    Room,
    /// There is more to evict: the command may run, and others help.
    OutOfTime,
    /// There is nothing to evict.
    Full,
}

fn evict(
    worker: &mut Worker,
    database: &Arc<Database>,
    evictor: &mut Evictor,
    bytes_max: usize,
) -> End {
    let settings = database.settings.load();
    let Eviction { policy, samples, slice_ns, .. } = settings.eviction;
    let Some(policy) = policy else { return End::Full };
    let begin_ns = worker.clock.elapsed_ns();
    let now_ms = worker.clock.now_ms();
    let mut scratch = std::mem::take(&mut worker.scratch);
    let Vectors { aftermath, ready, .. } = &mut *scratch;
    aftermath.changes.listening = pubsub::listening(database, &settings);
    aftermath.changes.watch_ahead(&database.waiters.interest);
    // Somebody may begin to follow until the key's segment is locked.
    aftermath.changes.following = true;
    let is_watched = settings.latency_ns != u64::MAX;
    let note = |event: &'static str, duration_ns: u64| {
        if settings.latency_ns <= duration_ns {
            database.latency.add(event, now_ms, duration_ns);
        }
    };
    let mut keys = 0_u32;
    let is_shared = database.room.is_shared();
    let reactors = worker.server.mailboxes.len();
    let spare = if is_shared { (bytes_max / 64).min(2 * reactors * ALLOWANCE) } else { 0 };
    let target = bytes_max - spare;
    let mut used = counted(&worker.server.reclaimer, database);
    // What is told of the keys that go takes memory as well, until it has been sent. It makes no more keys
    // go here: small ones would go all.
    let needed = if is_shared { usize::MAX } else { used.saturating_sub(target) };
    let mut freed_bytes = 0_usize;
    let end = loop {
        let hear = |changes: &mut Changes| {
            dispatch::hear(database, changes, ready);
            dispatch::log_departures(database, changes, settings.eviction.is_lazy);
        };
        let one_ns = if is_watched { worker.clock.elapsed_ns() } else { 0 };
        let freed = evictor.evict_one(&database.keyspace, policy, samples, now_ms, aftermath, hear);
        let Some(freed) = freed else {
            break if used <= bytes_max { End::Room } else { End::Full };
        };
        if !aftermath.dropped.is_empty() {
            let dropped = std::mem::take(&mut aftermath.dropped);
            match settings.eviction.is_lazy {
                true => dispatch::free(worker, dropped),
                false => drop(dropped),
            }
        }
        if is_watched {
            note("eviction-del", worker.clock.elapsed_ns().saturating_sub(one_ns));
        }
        keys += 1;
        used = match is_shared && !keys.is_multiple_of(KEYS_PER_READING) {
            true => used.saturating_sub(freed),
            false => counted(&worker.server.reclaimer, database),
        };
        freed_bytes += freed;
        if used <= target || needed <= freed_bytes {
            break End::Room;
        }
        if keys.is_multiple_of(KEYS_PER_READING)
            && let Some(slice_ns) = slice_ns
            && slice_ns <= worker.clock.elapsed_ns().saturating_sub(begin_ns)
        {
            break End::OutOfTime;
        }
    };
    if is_watched {
        note("eviction-cycle", worker.clock.elapsed_ns().saturating_sub(begin_ns));
    }
    dispatch::settle(worker, database, None, aftermath);
    worker.scratch = scratch;
    if !worker.scratch.ready.is_empty() {
        blocking::serve(worker, database);
    }
    end
}

/// The time that `maxmemory-eviction-tenacity` gives to one command: up to 10 it grows evenly to half
/// a millisecond, then by 15% with each step to some minutes; at 100 there is no end.
pub fn slice_ns(tenacity: u32) -> Option<u64> {
    match tenacity {
        0..=10 => Some(50_000 * u64::from(tenacity)),
        11..=99 => Some((500_000.0 * 1.15_f64.powi(tenacity as i32 - 10)) as u64),
        _ => None,
    }
}

/// Which keys go in which order under a policy.
pub fn policy(
    word: carnelian_config::EvictionPolicy,
    decay_minutes: u32,
) -> Option<EvictionPolicy> {
    use carnelian_config::EvictionPolicy as Word;

    let volatile = matches!(
        word,
        Word::VolatileLru | Word::VolatileLfu | Word::VolatileRandom | Word::VolatileTtl
    );
    let order = match word {
        Word::NoEviction => return None,
        Word::AllkeysLru | Word::VolatileLru => EvictionOrder::Idle,
        Word::AllkeysLfu | Word::VolatileLfu => EvictionOrder::Frequency { decay_minutes },
        Word::AllkeysRandom | Word::VolatileRandom => EvictionOrder::Random,
        Word::VolatileTtl => EvictionOrder::Expiry,
    };
    Some(EvictionPolicy { volatile, order })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenacity_is_time() {
        assert_eq!(slice_ns(0), Some(0));
        assert_eq!(slice_ns(10), Some(500_000));
        assert!((574_000..576_000).contains(&slice_ns(11).unwrap()));
        assert!(60_000_000_000 < slice_ns(99).unwrap());
        assert_eq!(slice_ns(100), None);
    }

    #[test]
    fn the_time_above_the_limit_is_measured() {
        let room = Room::default();
        room.note_exceeded(false, 5_000);
        assert_eq!(room.exceeded_ms(5_000), (0, 0));
        room.note_exceeded(true, 10_000);
        room.note_exceeded(true, 12_000);
        assert_eq!(room.exceeded_ms(15_000), (5, 5));
        room.note_exceeded(false, 20_000);
        assert_eq!(room.exceeded_ms(50_000), (10, 0));
        room.note_exceeded(true, 60_000);
        assert_eq!(room.exceeded_ms(61_000), (11, 1));
        room.reset();
        assert_eq!(room.exceeded_ms(61_000), (0, 0));
    }

    #[test]
    fn each_policy_says_which_keys_and_in_which_order() {
        use carnelian_config::EvictionPolicy as Word;

        assert_eq!(policy(Word::NoEviction, 1), None);
        let order = EvictionOrder::Frequency { decay_minutes: 3 };
        let lfu = Some(EvictionPolicy { volatile: true, order });
        assert_eq!(policy(Word::VolatileLfu, 3), lfu);
        let random = EvictionPolicy { volatile: false, order: EvictionOrder::Random };
        assert_eq!(policy(Word::AllkeysRandom, 1), Some(random));
    }
}

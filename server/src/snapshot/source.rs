//! A snapshot on its way out: from the cut to the last byte of an RDB file.
//!
//! The walk goes slice by slice, each under the lock of one segment and for no longer than `SLICE_NS`; what
//! it has seen is written out between slices, with no lock held. What writers had to show before they could
//! go on is kept beside and written out in between; but nothing comes between the pieces of a long value.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use carnelian_config::Config;
use carnelian_keyspace::{Access, AlreadyOpen, EvictionOrder, Hold, SEGMENTS, Sink, Value, Walk};
use carnelian_persistence::rdb::file::{self, FileWriter, Records};
use carnelian_persistence::rdb::{Form, Pieces};
use carnelian_structs::entry::EntryRef;
use parking_lot::Mutex;

use crate::allocator;
use crate::clock::{Clock, wall_ms};
use crate::database::Database;
use crate::tasks::REDIS_VERSION;

/// The longest a segment is locked at once.
const SLICE_NS: u64 = 100_000;
/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 256 << 10;
/// The first version of files with a place for libraries of functions.
const VERSION_FUNCTIONS: u16 = 10;
/// Between two slices those run first who wait for the processor, but for what would make the snapshot
/// take more than so many times as long.
const PATIENCE: u64 = 4;
/// How often a snapshot that is slowed down looks whether it still is.
const NAP: Duration = Duration::from_millis(5);

/// How a snapshot is written.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// `rdb-version`, which is raised where the data asks for it.
    pub version: u16,
    pub compress: bool,
    pub checksum: bool,
    /// The base of an append-only file.
    pub is_aof_base: bool,
}

impl Plan {
    pub fn new(config: &Config) -> Self {
        Self {
            version: config.rdb_version,
            compress: config.rdbcompression,
            checksum: config.rdbchecksum,
            is_aof_base: false,
        }
    }
}

/// Fields that a snapshot tells of itself, beside those that all have.
pub type Aux = Vec<(&'static str, Vec<u8>)>;

/// How far a snapshot has come; read by others while it is written.
#[derive(Debug, Default)]
pub struct Progress {
    pub keys: AtomicU64,
    pub keys_done: AtomicU64,
    /// Bytes that writers had to show, and the most of them that were waiting to be written.
    pub kept_bytes: AtomicU64,
    pub kept_bytes_max: AtomicU64,
    is_cancelled: AtomicBool,
}

impl Progress {
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}

/// Why a snapshot was not written whole.
#[derive(Debug)]
pub enum Broken {
    Cancelled,
    Write(io::Error),
}

/// The state of a database at one moment, yet to be written.
pub struct Snapshot {
    database: Arc<Database>,
    walk: Walk,
    kept: Arc<Kept>,
    records: Records,
    writer: FileWriter,
    progress: Arc<Progress>,
    clock: Clock,
    /// When it was begun to be written, and for how long others ran between its slices.
    begun_ns: u64,
    gave_way_ns: u64,
    is_through: bool,
    /// What the writes of the database had added up to.
    pub dirty: u64,
}

impl Snapshot {
    /// Takes the snapshot, with the token held: all else is locked here, for the moment of the cut. `at_cut`
    /// runs in it, and says what else is to be told of the snapshot: where the log stood, for one.
    pub fn take(
        database: &Arc<Database>,
        mut access: Access<'_>,
        plan: &Plan,
        progress: Arc<Progress>,
        at_cut: impl FnOnce() -> Aux,
    ) -> Result<Self, AlreadyOpen> {
        if database.keyspace.is_cut_open() {
            return Err(AlreadyOpen);
        }
        access.lock_rest();
        let mut hold = Hold::from(access);
        let head = Head::of(database, &hold, plan);
        let records = head.records;
        let kept = Arc::new(Kept::new(records, Arc::clone(&progress)));
        let walk = hold.cut(Arc::clone(&kept) as Arc<dyn Sink>, || {})?;
        let dirty = database.stats.sum(|counters| &counters.dirty);
        let aux = at_cut();
        drop(hold);

        progress.keys.store(walk.keys(), Ordering::Relaxed);
        let writer = head.write(plan, &aux);
        Ok(Self {
            database: Arc::clone(database),
            walk,
            kept,
            records,
            writer,
            progress,
            clock: Clock::new(),
            begun_ns: 0,
            gave_way_ns: 0,
            is_through: false,
            dirty,
        })
    }

    /// Writes all of it.
    pub fn write(&mut self, to: &mut impl Write) -> Result<(), Broken> {
        self.begun_ns = self.clock.elapsed_ns();
        let mut slowed_keys = 0;
        while !self.is_through {
            if self.progress.is_cancelled() {
                return Err(Broken::Cancelled);
            }
            self.slice();
            if BUFFER_BYTES <= self.writer.buffered_bytes() {
                self.writer.write_to(to).map_err(Broken::Write)?;
            }
            // Those as well that writers have shown.
            let keys = self.walk.keys_done();
            self.lag(keys - slowed_keys);
            slowed_keys = keys;
            self.give_way();
        }
        self.writer.end();
        self.writer.write_to(to).map_err(Broken::Write)
    }

    /// Goes on with the walk.
    fn slice(&mut self) {
        let is_slowed = self.database.settings.load().save_delay_us != 0;
        let Self { database, walk, kept, records, writer, clock, .. } = self;
        let end_ns = clock.elapsed_ns() + SLICE_NS;
        let emit = |db, entry: EntryRef<'_, Value>| writer.entry(db, entry, records);
        let goes_on = || !is_slowed && clock.elapsed_ns() < end_ns;
        self.is_through = walk.step(&database.keyspace, emit, goes_on);
        if kept.take_long(writer) {
            for (db, bytes) in kept.take() {
                writer.records(db, &bytes);
            }
        }
        self.progress.keys_done.store(walk.keys_done(), Ordering::Relaxed);
    }

    /// Lets a reactor run that was woken meanwhile. The system alone would take the processor from a
    /// thread that is never at rest only after some milliseconds, maybe in the middle of a slice; that
    /// was the longest wait of clients.
    fn give_way(&mut self) {
        let begin_ns = self.clock.elapsed_ns();
        if self.gave_way_ns <= (begin_ns - self.begun_ns) / PATIENCE * (PATIENCE - 1) {
            std::thread::yield_now();
            self.gave_way_ns += self.clock.elapsed_ns() - begin_ns;
        }
    }

    /// `rdb-key-save-delay`: so many microseconds for each key or, if less than 0, one for so many keys.
    fn lag(&self, keys: u64) {
        let delay = || match self.database.settings.load().save_delay_us {
            delay @ 0.. => keys.saturating_mul(delay.unsigned_abs().into()),
            share => keys / u64::from(share.unsigned_abs()),
        };
        let begin_us = self.clock.elapsed_us();
        loop {
            let left_us = delay().saturating_sub(self.clock.elapsed_us() - begin_us);
            if left_us == 0 || self.progress.is_cancelled() {
                return;
            }
            std::thread::sleep(Duration::from_micros(left_us).min(NAP));
        }
    }
}

/// Writes the state of a database whose locks are all held, and stay so until all is written: for when
/// nobody is to see the time between.
pub fn write_held(
    database: &Database,
    hold: &Hold<'_>,
    plan: &Plan,
    to: &mut impl Write,
) -> Result<(), Broken> {
    let head = Head::of(database, hold, plan);
    let mut writer = head.write(plan, &Aux::new());
    for segment in (0..SEGMENTS).map(|segment| hold.segment(segment)) {
        for db in 0..segment.databases() {
            for entry in segment.table(db).into_iter().flat_map(|table| table.iter()) {
                writer.entry(db, entry, &head.records);
            }
        }
        if BUFFER_BYTES <= writer.buffered_bytes() {
            writer.write_to(to).map_err(Broken::Write)?;
        }
    }
    writer.end();
    writer.write_to(to).map_err(Broken::Write)
}

impl Drop for Snapshot {
    /// Whatever has become of it, another can be taken.
    fn drop(&mut self) {
        if !self.is_through {
            self.walk.finish_silently(&self.database.keyspace);
        }
    }
}

/// What a file begins with, as of the moment of which it tells.
struct Head {
    records: Records,
    sizes: Vec<Size>,
    libraries: Vec<Vec<u8>>,
}

impl Head {
    fn of(database: &Database, hold: &Hold<'_>, plan: &Plan) -> Self {
        let (sizes, fields_expire) = survey(hold);
        let version = file::version_for(plan.version, fields_expire);
        let settings = database.settings.load();
        let evicts_by_use =
            settings.eviction.policy.is_some_and(|policy| policy.order == EvictionOrder::Idle);
        let records = Records {
            limits: settings.environment.limits,
            form: Form { version, compress: plan.compress },
            access: file::Access::under(settings.environment.policy, evicts_by_use),
            now_ms: wall_ms(),
        };
        Self { records, sizes, libraries: database.scripting.library_sources() }
    }

    fn write(&self, plan: &Plan, aux: &Aux) -> FileWriter {
        let Records { form, now_ms, .. } = self.records;
        let mut writer = FileWriter::new(form, plan.checksum);
        writer.aux("redis-ver", REDIS_VERSION.as_bytes());
        writer.aux_number("redis-bits", u64::from(usize::BITS));
        writer.aux_number("ctime", now_ms / 1000);
        writer.aux_number("used-mem", allocator::used_memory() as u64);
        for (name, value) in aux {
            writer.aux(name, value);
        }
        writer.aux_number("aof-base", plan.is_aof_base.into());
        if VERSION_FUNCTIONS <= form.version {
            self.libraries.iter().for_each(|source| writer.function(source));
        }
        for (db, size) in self.sizes.iter().enumerate().filter(|(_, size)| size.keys != 0) {
            writer.resize(db, size.keys, size.expires);
        }
        writer
    }
}

#[derive(Clone, Copy, Default)]
struct Size {
    keys: u64,
    expires: u64,
}

/// The sizes of all logical databases, and whether fields of some hash expire.
fn survey(hold: &Hold<'_>) -> (Vec<Size>, bool) {
    let mut sizes: Vec<Size> = Vec::new();
    let mut fields_expire = false;
    for segment in 0..SEGMENTS {
        let segment = hold.segment(segment);
        fields_expire |= segment.has_expiring_fields();
        if sizes.len() < segment.databases() {
            sizes.resize(segment.databases(), Size::default());
        }
        for (db, size) in sizes.iter_mut().enumerate() {
            let Some(table) = segment.table(db) else { break };
            size.keys += table.len() as u64;
            size.expires += table.expiring() as u64;
        }
    }
    (sizes, fields_expire)
}

/// Records of entries that were about to change, until they are written.
struct Kept {
    records: Records,
    progress: Arc<Progress>,
    /// Logical databases with the records that came one after the other.
    runs: Mutex<Runs>,
    /// The record of the long value that the walk is about.
    long: Mutex<Option<Long>>,
}

type Runs = Vec<(usize, Vec<u8>)>;

/// A record on its way out.
struct Long {
    db: usize,
    pieces: Pieces,
    /// What has come since it was last taken.
    bytes: Vec<u8>,
    is_through: bool,
}

impl Kept {
    fn new(records: Records, progress: Arc<Progress>) -> Self {
        Self { records, progress, runs: Mutex::default(), long: Mutex::default() }
    }

    /// Puts in the file what there is of a long value. Whether something else may follow.
    fn take_long(&self, writer: &mut FileWriter) -> bool {
        let mut place = self.long.lock();
        let Some(mut long) = place.take() else { return true };
        if !long.is_through {
            writer.records(long.db, &long.bytes);
            long.bytes.clear();
            *place = Some(long);
            return false;
        }
        drop(place);
        let Long { db, pieces, mut bytes, .. } = long;
        self.records.end(pieces, &mut bytes);
        writer.records(db, &bytes);
        true
    }

    fn take(&self) -> Runs {
        let runs = std::mem::take(&mut *self.runs.lock());
        if !runs.is_empty() {
            let bytes: usize = runs.iter().map(|(_, bytes)| bytes.len()).sum();
            self.progress.kept_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            self.progress.kept_bytes_max.fetch_max(bytes as u64, Ordering::Relaxed);
        }
        runs
    }
}

impl Sink for Kept {
    fn entry(&self, db: usize, entry: EntryRef<'_, Value>) {
        let mut runs = self.runs.lock();
        match runs.last_mut() {
            Some((last, bytes)) if *last == db => self.records.append(entry, bytes),
            _ => {
                let mut bytes = Vec::new();
                self.records.append(entry, &mut bytes);
                runs.push((db, bytes));
            }
        }
    }

    fn is_long(&self, entry: EntryRef<'_, Value>) -> bool {
        self.records.is_long(entry)
    }

    fn piece(
        &self,
        db: usize,
        entry: EntryRef<'_, Value>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> bool {
        let mut long = self.long.lock();
        let Long { pieces, bytes, is_through, .. } = long.get_or_insert_with(|| {
            let mut bytes = Vec::new();
            let pieces = self.records.begin(entry, &mut bytes);
            Long { db, pieces, bytes, is_through: false }
        });
        *is_through = self.records.go_on(pieces, entry, bytes, goes_on);
        *is_through
    }
}

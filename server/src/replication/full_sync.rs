//! A full synchronisation: a snapshot that a thread makes and several replicas take, each at its pace.
//!
//! The thread walks through the data and puts the snapshot into a queue of chunks; the reactors of the
//! replicas take from there. The queue is bounded, so the slowest replica sets the pace, until it is given up.
//! To those who cannot find its end by a mark, the snapshot is sent from a file, with its length in front.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use carnelian_commands::Environment;
use carnelian_config::Config;
use carnelian_keyspace::{AlreadyOpen, EvictionOrder, Sink, Value, Walk};
use carnelian_persistence::rdb::Form;
use carnelian_persistence::rdb::file::{Access, FileWriter, Records, version_for};
use carnelian_structs::entry::EntryRef;
use parking_lot::{Condvar, Mutex};

use super::feed::{Parts, Replica};
use super::new_id;
use crate::clock::Clock;
use crate::database::Database;
use crate::log;
use crate::mailbox::{Mailbox, Message};
use crate::server::Server;
use crate::tasks::REDIS_VERSION;

/// Chunks of a snapshot have about this size.
const CHUNK_BYTES: usize = 64 << 10;

/// The queue takes no more than this while somebody has yet to take what is in it.
const QUEUE_BYTES: usize = 4 << 20;

/// How long a step of the walk holds a lock.
const STEP_NS: u64 = 200_000;

/// A version of the format that servers read that do not say what they read, unless there is something that
/// it cannot hold.
const VERSION: u16 = 10;

/// How long to wait for another snapshot of the database to end before looking again.
const PATIENCE: Duration = Duration::from_millis(10);

/// A snapshot on its way to replicas.
pub struct Transfer {
    state: Mutex<State>,
    /// Somebody has taken something, or gone.
    room: Condvar,
    mailboxes: Box<[Arc<Mailbox>]>,
    /// It ends with a mark, not where its length says.
    has_mark: bool,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    /// How many chunks there were before the first of these.
    first: u64,
    bytes: usize,
    readers: Vec<Reader>,
    /// Reactors that wait for more, as bits.
    waiting: u64,
    has_begun: bool,
    end: Option<Result<(), Failed>>,
}

struct Reader {
    replica: u64,
    next: u64,
}

/// The snapshot cannot be completed, or nobody wants it any longer.
#[derive(Clone, Copy, Debug)]
pub struct Failed;

/// What a reader gets.
pub enum Taken {
    Chunk(Bytes),
    /// There will be more.
    Nothing,
    End {
        has_mark: bool,
    },
    Failed,
}

impl Transfer {
    fn new(mailboxes: &[Arc<Mailbox>], has_mark: bool) -> Self {
        Self {
            state: Mutex::default(),
            room: Condvar::new(),
            mailboxes: mailboxes.into(),
            has_mark,
        }
    }

    fn enter(&self, replica: u64) {
        self.state.lock().readers.push(Reader { replica, next: 0 });
    }

    /// Whether any of the snapshot has been offered.
    pub fn has_begun(&self) -> bool {
        self.state.lock().has_begun
    }

    /// What comes next for a replica; if it is nothing, its reactor is told when there is more.
    pub fn take(&self, replica: u64, reactor: usize) -> Taken {
        let state = &mut *self.state.lock();
        let Some(reader) = state.readers.iter_mut().find(|reader| reader.replica == replica) else {
            return Taken::Failed;
        };
        let index = (reader.next - state.first) as usize;
        if let Some(chunk) = state.chunks.get(index) {
            reader.next += 1;
            let chunk = chunk.clone();
            if state.forget() {
                self.room.notify_all();
            }
            return Taken::Chunk(chunk);
        }
        match state.end {
            Some(Ok(())) => {
                state.readers.retain(|reader| reader.replica != replica);
                self.room.notify_all();
                Taken::End { has_mark: self.has_mark }
            }
            Some(Err(Failed)) => Taken::Failed,
            None => {
                state.waiting |= 1 << (reactor % 64);
                Taken::Nothing
            }
        }
    }

    /// A replica is gone.
    pub fn leave(&self, replica: u64) {
        let state = &mut *self.state.lock();
        state.readers.retain(|reader| reader.replica != replica);
        state.forget();
        self.room.notify_all();
    }

    /// Offers a chunk; waits while there is no room for it.
    fn push(&self, chunk: Vec<u8>) -> Result<(), Failed> {
        let mut state = self.state.lock();
        while QUEUE_BYTES < state.bytes && !state.readers.is_empty() {
            self.room.wait(&mut state);
        }
        if state.readers.is_empty() {
            return Err(Failed);
        }
        state.has_begun = true;
        state.bytes += chunk.len();
        state.chunks.push_back(chunk.into());
        self.wake(&mut state);
        Ok(())
    }

    fn has_readers(&self) -> bool {
        !self.state.lock().readers.is_empty()
    }

    fn end(&self, result: Result<(), Failed>) {
        let mut state = self.state.lock();
        state.end = Some(result);
        self.wake(&mut state);
    }

    fn wake(&self, state: &mut State) {
        let waiting = std::mem::take(&mut state.waiting);
        for (reactor, mailbox) in self.mailboxes.iter().enumerate() {
            if waiting & (1 << (reactor % 64)) != 0 {
                mailbox.post(Message::Feed);
            }
        }
    }

    /// How many have not got all of it.
    fn readers_left(&self) -> usize {
        self.state.lock().readers.len()
    }
}

impl State {
    /// Forgets what all have taken. Whether there was something.
    fn forget(&mut self) -> bool {
        let all = self.first + self.chunks.len() as u64;
        let least = self.readers.iter().map(|reader| reader.next).min().unwrap_or(all);
        let mut is_any = false;
        while self.first < least
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.bytes -= chunk.len();
            self.first += 1;
            is_any = true;
        }
        is_any
    }
}

/// Entries that writers show before they change them, as records.
struct Preserved {
    records: Records,
    lots: Mutex<Vec<(usize, Vec<u8>)>>,
}

impl Sink for Preserved {
    fn entry(&self, db: usize, entry: EntryRef<'_, Value>) {
        let mut lots = self.lots.lock();
        match lots.last_mut() {
            Some((last, bytes)) if *last == db => self.records.append(entry, bytes),
            _ => {
                let mut bytes = Vec::new();
                self.records.append(entry, &mut bytes);
                lots.push((db, bytes));
            }
        }
    }
}

/// What a synchronisation is made from.
pub struct FullSync {
    pub server: Arc<Server>,
    pub database: Arc<Database>,
    pub parts: Parts,
    /// From a file, with its length in front.
    pub by_file: bool,
}

/// What was found at the cut.
#[derive(Default)]
struct Cut {
    offset: u64,
    history: String,
    selected: usize,
    functions: Vec<Vec<u8>>,
    replicas: Vec<Arc<Replica>>,
}

impl FullSync {
    /// Brings the replicas that wait for it a snapshot. Returns when it is all in their queues, or nobody is left.
    pub fn run(&self) {
        let config = self.server.config();
        log::notice!(
            "Starting BGSAVE for SYNC with target: {}",
            if self.by_file { "disk" } else { "replicas sockets" }
        );
        let transfer = Arc::new(Transfer::new(&self.server.mailboxes, !self.by_file));
        let records = self.records(&config);
        let sink = Arc::new(Preserved { records, lots: Mutex::default() });
        let Some((mut walk, cut)) = self.cut(&config, &sink, &transfer) else { return };
        match self.by_file {
            true => log::notice!("Background saving started by pid {}", std::process::id()),
            false => {
                log::notice!("Background RDB transfer started by pid {}", std::process::id());
            }
        }
        let begin = Clock::new();
        let sent = self.send(&config, &mut walk, &cut, &sink, &transfer);
        walk.finish_silently(&self.database.keyspace);
        if sent.is_err() {
            match transfer.has_readers() {
                true => log::warning!("Background transfer error"),
                false => {
                    log::notice!("Diskless rdb transfer, last replica dropped, killing fork child.")
                }
            }
        } else {
            log::notice!(
                "Diskless rdb transfer, done reading from pipe, {} replicas still up.",
                transfer.readers_left()
            );
            log::notice!(
                "Background RDB transfer terminated with success after {} ms",
                begin.elapsed_us() / 1000
            );
        }
        transfer.end(sent);
    }

    fn records(&self, config: &Config) -> Records {
        let settings = self.database.settings.load();
        let Environment { limits, policy, .. } = &settings.environment;
        let form = Form {
            version: version_for(VERSION.min(config.rdb_version), false),
            compress: config.rdbcompression,
        };
        let evicts_by_use =
            settings.eviction.policy.is_some_and(|policy| policy.order == EvictionOrder::Idle);
        let access = Access::under(*policy, evicts_by_use);
        Records { limits: *limits, form, access, now_ms: crate::clock::wall_ms() }
    }

    /// Begins the snapshot, and has all replicas that wait for one like it follow the log from there.
    fn cut(
        &self,
        config: &Config,
        sink: &Arc<Preserved>,
        transfer: &Arc<Transfer>,
    ) -> Option<(Walk, Cut)> {
        let database = &self.database;
        let primary = &database.replication.primary;
        loop {
            let mut cut = Cut::default();
            let at_cut = || {
                cut.replicas = primary.waiting(self.parts, self.by_file);
                if cut.replicas.is_empty() {
                    return;
                }
                primary.keep_backlog(database, config.repl_backlog_size);
                let id = database.replication.history.lock().id();
                cut.selected = database.log.selected().unwrap_or(0);
                cut.offset = database.log.cut();
                cut.history = id.to_string();
                cut.functions = database.scripting.sources(database);
                for replica in &cut.replicas {
                    // Nothing is wrong with the log's own end.
                    let mailboxes = &self.server.mailboxes;
                    let _ = database.log.attach(replica.id(), cut.offset, mailboxes);
                    transfer.enter(replica.id());
                    replica.begin(Arc::clone(transfer), id, cut.offset);
                }
            };
            let walk = database.keyspace.cut(Arc::clone(sink) as Arc<dyn Sink>, at_cut);
            match walk {
                Ok(mut walk) if cut.replicas.is_empty() => {
                    walk.finish_silently(&database.keyspace);
                    return None;
                }
                Ok(walk) => {
                    for replica in &cut.replicas {
                        self.server.mailboxes[replica.client.reactor].post(Message::Feed);
                        // It may have gone while it was entered.
                        if !primary.is_attached(replica) {
                            primary.detach(database, replica);
                        }
                    }
                    return Some((walk, cut));
                }
                Err(AlreadyOpen) if primary.waiting(self.parts, self.by_file).is_empty() => {
                    return None;
                }
                Err(AlreadyOpen) => std::thread::sleep(PATIENCE),
            }
        }
    }

    fn send(
        &self,
        config: &Config,
        walk: &mut Walk,
        cut: &Cut,
        sink: &Preserved,
        transfer: &Transfer,
    ) -> Result<(), Failed> {
        if !self.by_file {
            let mark = new_id();
            transfer.push(format!("$EOF:{mark}\r\n").into_bytes())?;
            self.write(config, walk, cut, sink, |chunk| transfer.push(chunk))?;
            return transfer.push(mark.as_bytes().to_vec());
        }
        let mut file = TemporaryFile::create(config).map_err(|error| report(&error))?;
        self.write(config, walk, cut, sink, |chunk| {
            if !transfer.has_readers() {
                return Err(Failed);
            }
            file.file.write_all(&chunk).map_err(|error| report(&error))
        })?;
        log::notice!("DB saved on disk");
        let (mut file, length) = file.reopen().map_err(|error| report(&error))?;
        transfer.push(format!("${length}\r\n").into_bytes())?;
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = file.read(&mut chunk).map_err(|error| report(&error))?;
            if count == 0 {
                return Ok(());
            }
            chunk.truncate(count);
            transfer.push(chunk)?;
        }
    }

    /// Writes the snapshot, chunk by chunk.
    fn write(
        &self,
        config: &Config,
        walk: &mut Walk,
        cut: &Cut,
        sink: &Preserved,
        mut put: impl FnMut(Vec<u8>) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let keyspace = &self.database.keyspace;
        let mut writer = FileWriter::new(sink.records.form, config.rdbchecksum);
        writer.aux("redis-ver", REDIS_VERSION.as_bytes());
        writer.aux_number("redis-bits", usize::BITS.into());
        writer.aux_number("ctime", sink.records.now_ms / 1000);
        let used = crate::eviction::counted(&self.server.reclaimer, &self.database);
        writer.aux_number("used-mem", used as u64);
        writer.aux_number("repl-stream-db", cut.selected as u64);
        writer.aux("repl-id", cut.history.as_bytes());
        writer.aux_number("repl-offset", cut.offset);
        writer.aux_number("aof-base", 0);
        if self.parts.functions {
            cut.functions.iter().for_each(|source| writer.function(source));
        }
        if !self.parts.data {
            writer.end();
            return put(writer.take(Vec::new()));
        }
        let mut clock = Clock::new();
        loop {
            clock.refresh();
            let until_ns = clock.elapsed_ns() + STEP_NS;
            let delay = self.server.config().rdb_key_save_delay;
            let mut keys = 0_u32;
            let mut buckets = 0_u32;
            let is_over = {
                let records = &sink.records;
                let writer = std::cell::RefCell::new(&mut writer);
                walk.step(
                    keyspace,
                    |db, entry| {
                        keys += 1;
                        writer.borrow_mut().entry(db, entry, records);
                    },
                    || {
                        buckets += 1;
                        delay == 0
                            && writer.borrow().buffered_bytes() < CHUNK_BYTES
                            && (!buckets.is_multiple_of(16) || clock.elapsed_ns() < until_ns)
                    },
                )
            };
            for (db, records) in sink.lots.lock().drain(..) {
                writer.records(db, &records);
            }
            if delay != 0 && keys != 0 {
                self.dawdle(delay, keys);
                put(writer.take(Vec::new()))?;
            }
            if is_over {
                break;
            }
            if CHUNK_BYTES <= writer.buffered_bytes() {
                put(writer.take(Vec::with_capacity(CHUNK_BYTES + (CHUNK_BYTES >> 2))))?;
            }
        }
        writer.end();
        put(writer.take(Vec::new()))
    }

    /// `rdb-key-save-delay`: microseconds for each key, or, if negative, one for so many keys.
    fn dawdle(&self, delay: i32, keys: u32) {
        let microseconds = match u64::try_from(delay) {
            Ok(each) => each.saturating_mul(keys.into()),
            Err(_) => u64::from(keys) / u64::from(delay.unsigned_abs()),
        };
        std::thread::sleep(Duration::from_micros(microseconds));
    }
}

fn report(error: &io::Error) -> Failed {
    log::warning!("Write error saving DB on disk: {error}");
    Failed
}

/// A file that goes when nobody needs it any more.
struct TemporaryFile {
    file: File,
    path: PathBuf,
}

impl TemporaryFile {
    fn create(config: &Config) -> io::Result<Self> {
        let name = format!("temp-{}.{}.rdb", crate::clock::wall_ms(), std::process::id());
        let path = config.dir.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path })
    }

    /// For reading from its beginning, and its length. Nobody else can open it then.
    fn reopen(self) -> io::Result<(File, u64)> {
        let file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Starts a synchronisation on a thread of its own, unless one runs.
pub fn start(server: &Arc<Server>, database: &Arc<Database>, parts: Parts, by_file: bool) {
    let primary = &database.replication.primary;
    if primary.is_syncing.swap(true, Ordering::AcqRel) {
        return;
    }
    let (server, database) = (Arc::clone(server), Arc::clone(database));
    let thread = std::thread::Builder::new().name("full-sync".into());
    let spawned = thread.spawn({
        let database = Arc::clone(&database);
        move || {
            FullSync { server, database: Arc::clone(&database), parts, by_file }.run();
            database.replication.primary.is_syncing.store(false, Ordering::Release);
        }
    });
    if let Err(error) = spawned {
        log::warning!("BGSAVE for replication failed: {error}");
        database.replication.primary.is_syncing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_take_all_chunks_each_at_its_pace() {
        let transfer = Transfer::new(&[], true);
        transfer.enter(1);
        transfer.enter(2);
        for chunk in [b"a", b"b"] {
            transfer.push(chunk.to_vec()).unwrap();
        }
        let text = |replica| match transfer.take(replica, 0) {
            Taken::Chunk(chunk) => String::from_utf8(chunk.to_vec()).unwrap(),
            Taken::Nothing => "nothing".into(),
            Taken::End { .. } => "end".into(),
            Taken::Failed => "failed".into(),
        };
        assert_eq!([text(1), text(1), text(1)], ["a", "b", "nothing"]);
        assert_eq!(transfer.state.lock().chunks.len(), 2);
        assert_eq!(text(2), "a");
        assert_eq!(transfer.state.lock().chunks.len(), 1, "what all have is forgotten");
        transfer.end(Ok(()));
        assert_eq!([text(1), text(2), text(2), text(2)], ["end", "b", "end", "failed"]);
        assert!(transfer.push(Vec::new()).is_err(), "nobody is left");
    }
}

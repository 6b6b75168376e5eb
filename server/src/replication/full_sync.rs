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
use carnelian_config::Config;
use carnelian_keyspace::AlreadyOpen;
use carnelian_persistence::rdb::Form;
use carnelian_persistence::rdb::file::FileWriter;
use parking_lot::{Condvar, Mutex};

use super::feed::{Parts, Replica};
use super::new_id;
use crate::at_rest;
use crate::clock::Clock;
use crate::database::Database;
use crate::log;
use crate::mailbox::{Mailbox, Message};
use crate::server::Server;
use crate::snapshot::{Aux, Broken, Plan, Progress, Snapshot};

/// Chunks of a snapshot have about this size.
const CHUNK_BYTES: usize = 64 << 10;

/// The queue takes no more than this while somebody has yet to take what is in it.
const QUEUE_BYTES: usize = 4 << 20;

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
    /// Of the snapshot, which is given up when nobody is left.
    progress: Arc<Progress>,
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
            progress: Arc::default(),
        }
    }

    fn enter(&self, replica: u64) {
        self.state.lock().readers.push(Reader { replica, next: 0 });
    }

    /// Whether any of the snapshot has been offered.
    pub fn has_begun(&self) -> bool {
        self.state.lock().has_begun
    }

    /// Whether the snapshot lies there as a whole, to be sent.
    pub fn is_made(&self) -> bool {
        !self.has_mark && self.has_begun()
    }

    /// Whether there is something that a replica has yet to take.
    pub fn has_for(&self, replica: u64) -> bool {
        let state = self.state.lock();
        let all = state.first + state.chunks.len() as u64;
        state.readers.iter().any(|reader| reader.replica == replica && reader.next < all)
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
        if state.readers.is_empty() {
            self.progress.cancel();
        }
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

/// What a synchronisation is made from.
pub struct FullSync {
    pub server: Arc<Server>,
    pub database: Arc<Database>,
    pub parts: Parts,
    /// From a file, with its length in front.
    pub by_file: bool,
}

/// What is sent: all data, or nothing but functions.
enum Content {
    All(Box<Snapshot>),
    Functions(Vec<Vec<u8>>),
}

impl FullSync {
    /// Brings the replicas that wait for it a snapshot. Returns when it is all in their queues, or nobody is left.
    pub fn run(&self) {
        let config = self.database.config();
        log::notice!(
            "Starting BGSAVE for SYNC with target: {}",
            if self.by_file { "disk" } else { "replicas sockets" }
        );
        let transfer = Arc::new(Transfer::new(&self.server.mailboxes, !self.by_file));
        let Some(mut content) = self.cut(&config, &transfer) else { return };
        let what = if self.by_file { "saving" } else { "RDB transfer" };
        log::notice!("Background {what} started by pid {}", std::process::id());
        let begin = Clock::new();
        let sent = self.send(&config, &mut content, &transfer);
        match &sent {
            Ok(()) => {
                log::notice!(
                    "Diskless rdb transfer, done reading from pipe, {} replicas still up.",
                    transfer.readers_left()
                );
                log::notice!(
                    "Background RDB transfer terminated with success after {} ms",
                    begin.elapsed_us() / 1000
                );
            }
            Err(_) if transfer.has_readers() => log::warning!("Background transfer error"),
            Err(_) => {
                log::notice!("Diskless rdb transfer, last replica dropped, killing fork child.")
            }
        }
        transfer.end(sent.map_err(|_| Failed));
    }

    /// Takes the snapshot, and has all replicas that wait for one like it follow the log from there.
    fn cut(&self, config: &Config, transfer: &Arc<Transfer>) -> Option<Content> {
        let database = &self.database;
        let primary = &database.replication.primary;
        let plan = Plan { version: VERSION.min(config.rdb_version), ..Plan::new(config) };
        loop {
            let mut replicas = Vec::new();
            let access = database.keyspace.lock_lazily();
            let content = if self.parts.data {
                let at_cut = || self.begin(config, transfer, &mut replicas);
                Snapshot::take(database, access, &plan, Arc::clone(&transfer.progress), at_cut)
                    .map(|snapshot| Content::All(Box::new(snapshot)))
            } else {
                let mut access = access;
                access.lock_rest();
                self.begin(config, transfer, &mut replicas);
                let functions = self.parts.functions;
                let sources = functions.then(|| database.scripting.library_sources());
                Ok(Content::Functions(sources.unwrap_or_default()))
            };
            match content {
                Ok(_) if replicas.is_empty() => return None,
                Ok(content) => {
                    for replica in &replicas {
                        self.server.mailboxes[replica.client.reactor].post(Message::Feed);
                        // It may have gone while it was entered.
                        if !primary.is_attached(replica) {
                            primary.detach(database, replica);
                        }
                    }
                    return Some(content);
                }
                Err(AlreadyOpen) if primary.waiting(self.parts, self.by_file).is_empty() => {
                    return None;
                }
                Err(AlreadyOpen) => std::thread::sleep(PATIENCE),
            }
        }
    }

    /// Has those that wait follow the log from here on, all locks being held. What the snapshot says of that.
    fn begin(
        &self,
        config: &Config,
        transfer: &Arc<Transfer>,
        replicas: &mut Vec<Arc<Replica>>,
    ) -> Aux {
        let database = &self.database;
        let primary = &database.replication.primary;
        *replicas = primary.waiting(self.parts, self.by_file);
        if replicas.is_empty() {
            return Aux::new();
        }
        primary.keep_backlog(database, config.repl_backlog_size);
        let id = database.replication.history.lock().id();
        let selected = database.log.selected().unwrap_or(0);
        let offset = database.log.cut();
        for replica in replicas {
            transfer.enter(replica.id());
            replica.begin(Arc::clone(transfer), id, offset, selected);
            if replica.introduction.is_channel {
                primary.begin_channel(database, replica, offset, &self.server.mailboxes);
            }
            if replica.introduction.snapshot_only {
                continue;
            }
            let attached = database.log.attach(replica.id(), offset, &self.server.mailboxes);
            debug_assert!(attached.is_ok(), "the log has its own end");
        }
        vec![
            ("repl-stream-db", selected.to_string().into_bytes()),
            ("repl-id", id.as_bytes().to_vec()),
            ("repl-offset", offset.to_string().into_bytes()),
        ]
    }

    fn send(
        &self,
        config: &Config,
        content: &mut Content,
        transfer: &Transfer,
    ) -> Result<(), Broken> {
        if !self.by_file {
            let mark = new_id();
            let mut pipe = Pipe(transfer);
            pipe.push(format!("$EOF:{mark}\r\n").into_bytes()).map_err(Broken::Write)?;
            self.write(config, content, &mut pipe)?;
            return pipe.push(mark.as_bytes().to_vec()).map_err(Broken::Write);
        }
        let mut file = TemporaryFile::create(config).map_err(report)?;
        // Sealed, if what lies on the disk is to be; on the link it is what it was.
        let policy = at_rest::policy(config);
        let mut sealed = policy.create(Spool { file: &mut file.file, transfer }).map_err(report)?;
        let mut counted = Counted { to: &mut sealed, bytes: 0 };
        self.write(config, content, &mut counted)?;
        let length = counted.bytes;
        sealed.finish().map_err(report)?;
        log::notice!("DB saved on disk");
        let mut file = policy.open(file.reopen().map_err(report)?).map_err(report)?;
        let mut pipe = Pipe(transfer);
        pipe.push(format!("${length}\r\n").into_bytes()).map_err(Broken::Write)?;
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = file.read(&mut chunk).map_err(report)?;
            if count == 0 {
                return Ok(());
            }
            chunk.truncate(count);
            pipe.push(chunk).map_err(Broken::Write)?;
        }
    }

    fn write(
        &self,
        config: &Config,
        content: &mut Content,
        to: &mut impl Write,
    ) -> Result<(), Broken> {
        match content {
            Content::All(snapshot) => snapshot.write(to),
            Content::Functions(sources) => {
                let form = Form { version: VERSION, compress: config.rdbcompression };
                let mut writer = FileWriter::new(form, config.rdbchecksum);
                sources.iter().for_each(|source| writer.function(source));
                writer.end();
                writer.write_to(to).map_err(Broken::Write)
            }
        }
    }
}

/// The queue, to write to.
struct Pipe<'t>(&'t Transfer);

impl Pipe<'_> {
    fn push(&mut self, chunk: Vec<u8>) -> io::Result<()> {
        self.0.push(chunk).map_err(|Failed| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(CHUNK_BYTES)];
        self.push(bytes.to_vec())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file, for as long as somebody waits for it.
struct Spool<'t> {
    file: &'t mut File,
    transfer: &'t Transfer,
}

impl Write for Spool<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.transfer.has_readers() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Counts what is written.
struct Counted<'w, W> {
    to: &'w mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn report(error: io::Error) -> Broken {
    log::warning!("Write error saving DB on disk: {error}");
    Broken::Write(error)
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

    /// For reading from its beginning. Nobody else can open it then.
    fn reopen(self) -> io::Result<File> {
        File::open(&self.path)
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

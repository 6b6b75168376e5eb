//! The thread that appends: takes what was appended to the effects and writes it to the file.
//!
//! A *lot* is what the source gives at once: whole effects, from where the last lot ended. A lot is
//! written with one call, and with `appendfsync always` flushed once: so all clients that wait for
//! one share a flush (group commit). A lot that could not be written whole is taken back from the
//! file, and tried again each second: the file never has half an effect for longer than that takes,
//! and the effects wait in memory. `always` treats a failed flush in the same way, since what was not
//! flushed may be lost although it can be read.
//!
//! # When the thread runs
//!
//! Idle, it is parked. The first append wakes it through the [`Doorbell`]. With `always` it goes on as
//! long as there is something, and sleeps again; but after a flush it gives those who waited for it as long
//! as that took to come back, if lately they did (`patience.rs`), so that they share the next one with
//! those who came meanwhile. With other policies it may write some dozens of lots in a burst and then one
//! in 5 ms: when that is used up it does not listen, and looks after that time; so under load an append
//! costs one load, and lots are large.
//!
//! # Changing files
//!
//! [`Writer::rotate`] is called while nothing can be appended, at the cut of a snapshot, so no lot that
//! goes beyond the cut can have been taken yet. The thread writes up to the cut to the old file,
//! flushes it, enters a new one into the manifest, and goes on there. So only the last file of a
//! manifest can ever have a torn end.

mod appender;
mod lot;
mod patience;
mod sink;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use self::appender::Appender;
pub use self::lot::Lot;
use super::doorbell::Doorbell;
use super::folder::{Folder, Incr};
use super::syncer::Syncer;
use super::{FileError, Level, reason};

/// Where effects come from.
pub trait Source: Send {
    /// What was appended since the last call, up to some whole effect; `None` if there is nothing.
    /// Takes the lock that appends take: see [`Doorbell`].
    fn take(&mut self) -> Option<Lot>;

    /// Whether fewer have appended since the last call of `take` than did before it and between its
    /// flush and the first of these questions: all who write now, if each waits for the flush. Has the
    /// doorbell called as soon as it is no longer so.
    fn expects_more(&mut self) -> bool {
        false
    }
}

/// Is told what happens. All but `tell` are called from the threads of the writer.
pub trait Events: Send + Sync {
    fn tell(&self, level: Level, text: &str);

    /// Effects up to this offset are on disk.
    fn synced(&self, offset: u64);

    /// Effects up to this offset are as safe as the policy wants them before anybody hears of them:
    /// on disk with `always` (but where `no-appendfsync-on-rewrite` allows less), else written.
    fn released(&self, offset: u64);

    /// Why writes to the file do not succeed any more, or `None` when they do again.
    fn troubled(&self, reason: Option<&str>);

    /// How long a step took, under the name that LATENCY knows it by.
    fn took(&self, step: &'static str, time: Duration) {
        let _ = (step, time);
    }
}

/// `appendfsync`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fsync {
    Always,
    EverySecond,
    No,
}

/// What may be changed while the writer runs.
#[derive(Clone, Copy, Debug)]
pub struct WriterSettings {
    pub fsync: Fsync,
    /// `aof-timestamp-enabled`
    pub timestamps: bool,
    /// `no-appendfsync-on-rewrite` while a rewrite or snapshot is under way.
    pub pauses_fsync: bool,
}

/// What INFO shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Effects up to this offset are written, and flushed to disk.
    pub written: u64,
    pub synced: u64,
    /// Whether the last write, and the last flush, succeeded.
    pub writes: bool,
    pub syncs: bool,
    /// Whether a flush is under way beside the writing, and how often one was due before that.
    pub is_syncing: bool,
    pub delayed_syncs: u64,
}

/// The outcome of a change of files: the number of the new incremental file.
pub type Rotated = Result<i64, FileError>;

/// A change of files that was asked for.
#[derive(Debug)]
pub struct Rotation(Receiver<Rotated>);

impl Rotation {
    /// The outcome, if there is one within this time. A writer that ended has none.
    pub fn wait(&self, most: Duration) -> Option<Rotated> {
        match self.0.recv_timeout(most) {
            Ok(rotated) => Some(rotated),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(FileError {
                what: "The append-only file was closed".into(),
                source: io::Error::from(io::ErrorKind::Interrupted),
            })),
        }
    }
}

/// Appends to an append-only file. Dropping it ends it like [`Writer::stop`].
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    doorbell: Arc<Doorbell>,
    events: Arc<dyn Events>,
    fsync: AtomicU8,
    timestamps: AtomicBool,
    pauses_fsync: AtomicBool,
    /// Microseconds to sleep before a write: `DEBUG AOF-FLUSH-SLEEP`.
    delay: AtomicU64,
    written: AtomicU64,
    synced: AtomicU64,
    write_failed: AtomicBool,
    sync_failed: AtomicBool,
    is_syncing: AtomicBool,
    delayed_syncs: AtomicU64,
    /// Whether `orders` has any, so that the thread need not lock it to know.
    has_orders: AtomicBool,
    orders: Mutex<Orders>,
}

#[derive(Default)]
struct Orders {
    rotate: Option<Rotate>,
    flush: Vec<Flush>,
    ends: bool,
}

struct Rotate {
    at: u64,
    /// What the new file begins with.
    prologue: Vec<u8>,
    answer: Sender<Rotated>,
}

struct Flush {
    syncs: bool,
    answer: Sender<io::Result<()>>,
}

impl Writer {
    /// Goes on in `incr` with the effects that `source` gives, the first of which begins at `from`.
    ///
    /// `from` counts as safe: what came before is in other files, or is of no concern.
    pub fn start(
        folder: Arc<Folder>,
        incr: Incr,
        source: Box<dyn Source>,
        from: u64,
        settings: WriterSettings,
        doorbell: Arc<Doorbell>,
        events: Arc<dyn Events>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            doorbell,
            events,
            fsync: AtomicU8::new(settings.fsync as u8),
            timestamps: AtomicBool::new(settings.timestamps),
            pauses_fsync: AtomicBool::new(settings.pauses_fsync),
            delay: AtomicU64::new(0),
            written: AtomicU64::new(from),
            synced: AtomicU64::new(from),
            write_failed: AtomicBool::new(false),
            sync_failed: AtomicBool::new(false),
            is_syncing: AtomicBool::new(false),
            delayed_syncs: AtomicU64::new(0),
            has_orders: AtomicBool::new(false),
            orders: Mutex::default(),
        });
        let syncer = Syncer::start({
            let shared = shared.clone();
            move |offset, result| shared.book_sync(offset, result)
        })?;
        let appender = Appender::new(shared.clone(), folder, source, syncer, incr, from);
        // Nobody may ring or order before the thread can be woken.
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::Builder::new().name("aof".into()).spawn(move || {
            appender.answer_here();
            let _ = ready.send(());
            appender.run();
        })?;
        let _ = is_ready.recv();
        Ok(Self { shared, thread: Some(thread) })
    }

    /// To be rung after each append, or once after several.
    pub fn doorbell(&self) -> &Arc<Doorbell> {
        &self.shared.doorbell
    }

    pub fn set(&self, settings: WriterSettings) {
        self.shared.fsync.store(settings.fsync as u8, Ordering::Relaxed);
        self.shared.timestamps.store(settings.timestamps, Ordering::Relaxed);
        self.shared.pauses_fsync.store(settings.pauses_fsync, Ordering::Relaxed);
        self.shared.doorbell.call();
    }

    /// Has the thread sleep before each write: for tests.
    pub fn set_delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.shared.delay.store(micros, Ordering::Relaxed);
    }

    /// Has effects from offset `at` on go to a new file.
    ///
    /// To be called while nothing can be appended, with the offset where the effects end now; never
    /// waits. The effect after it has to name its logical database. A second change of files
    /// before the first is done makes that one fail.
    pub fn rotate(&self, at: u64) -> Rotation {
        self.rotate_with(at, Vec::new())
    }

    /// The same; the new file begins with `prologue`, which the effect after the cut goes by.
    pub fn rotate_with(&self, at: u64, prologue: Vec<u8>) -> Rotation {
        let (answer, outcome) = mpsc::channel();
        self.shared.order(|orders| orders.rotate = Some(Rotate { at, prologue, answer }));
        Rotation(outcome)
    }

    /// Waits until all that was appended before this call is written, and flushed if asked.
    ///
    /// To be called without any lock that appends take.
    pub fn flush(&self, syncs: bool) -> io::Result<()> {
        let (answer, outcome) = mpsc::channel();
        self.shared.order(|orders| orders.flush.push(Flush { syncs, answer }));
        outcome.recv().unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::BrokenPipe)))
    }

    /// Writes and flushes what there is, and ends.
    pub fn stop(mut self) -> io::Result<()> {
        let flushed = self.flush(true);
        self.end();
        flushed
    }

    pub fn figures(&self) -> Figures {
        let shared = &self.shared;
        Figures {
            written: shared.written.load(Ordering::Relaxed),
            synced: shared.synced.load(Ordering::Acquire),
            writes: !shared.write_failed.load(Ordering::Relaxed),
            syncs: !shared.sync_failed.load(Ordering::Relaxed),
            is_syncing: shared.is_syncing.load(Ordering::Relaxed),
            delayed_syncs: shared.delayed_syncs.load(Ordering::Relaxed),
        }
    }

    fn end(&mut self) {
        self.shared.order(|orders| orders.ends = true);
        if let Some(thread) = self.thread.take() {
            // Whatever it panicked of was logged; its files are as after a crash.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

impl Shared {
    fn order(&self, order: impl FnOnce(&mut Orders)) {
        order(&mut self.orders());
        self.has_orders.store(true, Ordering::Release);
        self.doorbell.call();
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fsync(&self) -> Fsync {
        match self.fsync.load(Ordering::Relaxed) {
            0 => Fsync::Always,
            1 => Fsync::EverySecond,
            _ => Fsync::No,
        }
    }

    fn book_sync(&self, offset: u64, result: io::Result<()>) {
        self.is_syncing.store(false, Ordering::Relaxed);
        let was_healthy = self.is_healthy();
        self.sync_failed.store(result.is_err(), Ordering::Relaxed);
        match result {
            Ok(()) => {
                self.synced.fetch_max(offset, Ordering::AcqRel);
                self.events.synced(offset);
                self.tell_recovery(was_healthy);
            }
            Err(error) => {
                let reason = reason(&error);
                let text = format!("Fail to fsync the AOF file: {reason}");
                self.events.tell(Level::Warning, &text);
                self.events.troubled(Some(&reason));
            }
        }
    }

    fn is_healthy(&self) -> bool {
        !self.write_failed.load(Ordering::Relaxed) && !self.sync_failed.load(Ordering::Relaxed)
    }

    fn tell_recovery(&self, was_healthy: bool) {
        if self.is_healthy() && !was_healthy {
            self.events.troubled(None);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("written", &self.written).finish_non_exhaustive()
    }
}

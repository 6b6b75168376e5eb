//! The thread itself: see the module above for what it promises.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::super::folder::{Folder, Incr};
use super::super::syncer::Syncer;
use super::super::{FileError, Level, reason};
use super::lot::Lot;
use super::patience::Patience;
use super::sink::Sink;
use super::{Fsync, Rotate, Rotated, Shared, Source};

/// The pause between two looks under load.
const NAP: Duration = Duration::from_millis(5);

/// How many lots may be written without a pause, with policies under which nobody waits for them.
const LOTS_MAX: u32 = 64;

/// The pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The distance of two flushes with `everysec`.
const SECOND: Duration = Duration::from_secs(1);

/// The distance of two lines in the log about the same trouble.
const COMPLAINT: Duration = Duration::from_secs(30);

/// What the thread owns.
pub(super) struct Appender {
    shared: Arc<Shared>,
    folder: Arc<Folder>,
    source: Box<dyn Source>,
    syncer: Syncer,
    sink: Sink,
    /// Effects up to here were taken from the source, written, and handed to be flushed.
    taken: u64,
    written: u64,
    given_to_sync: u64,
    /// When the last flush with `everysec` was ordered.
    synced_at: Instant,
    /// What was taken and is still to be done, in order.
    pending: VecDeque<Step>,
    /// The second of the last annotation.
    stamped: u64,
    /// When a write failed last, if the last one did.
    failed_at: Option<Instant>,
    complained: Option<Instant>,
    /// Whether to wait for those who have just been released, and until when.
    patience: Patience,
    patient_until: Option<Instant>,
    /// How many lots may still be written without a pause, as of when.
    lots: u32,
    lots_at: Instant,
}

enum Step {
    Write(Lot),
    /// The end of a lot of which the beginning is in the file already, as it is to be there.
    Complete(Lot),
    Rotate(Rotate),
}

impl Appender {
    pub(super) fn new(
        shared: Arc<Shared>,
        folder: Arc<Folder>,
        source: Box<dyn Source>,
        syncer: Syncer,
        incr: Incr,
        from: u64,
    ) -> Self {
        Self {
            shared,
            folder,
            source,
            syncer,
            sink: Sink::new(incr),
            taken: from,
            written: from,
            given_to_sync: from,
            synced_at: Instant::now(),
            pending: VecDeque::new(),
            stamped: 0,
            failed_at: None,
            complained: None,
            patience: Patience::default(),
            patient_until: None,
            lots: LOTS_MAX,
            lots_at: Instant::now(),
        }
    }

    /// Makes the calling thread the one that is woken.
    pub(super) fn answer_here(&self) {
        self.shared.doorbell.answer_here();
    }

    pub(super) fn run(mut self) {
        loop {
            let is_due = self.failed_at.is_none_or(|at| RETRY <= at.elapsed());
            if is_due && self.pending.is_empty() {
                self.gather();
                self.take();
            }
            let did = is_due && !self.pending.is_empty();
            if did {
                self.work_off();
            }
            if self.shared.has_orders.load(Ordering::Acquire) && !self.obey() {
                return;
            }
            self.sync_if_due();
            self.rest(did);
        }
    }

    /// Waits for those who have just been released to append again, if they do so soon.
    fn gather(&mut self) {
        let Some(until) = self.patient_until.take() else { return };
        while !self.shared.has_orders.load(Ordering::Acquire) {
            if !self.source.expects_more() {
                return self.patience.learn(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.patience.learn(false);
            }
            self.shared.doorbell.nap(left);
        }
    }

    /// Takes the next lot, and cuts it where files change.
    fn take(&mut self) {
        let lot = self.source.take();
        self.accept(lot);
    }

    fn accept(&mut self, lot: Option<Lot>) {
        // Looked for after the lot was taken: no append beyond the change was possible before it was
        // ordered, so that a lot which goes beyond it was taken after that.
        let rotate = {
            let mut orders = self.shared.orders();
            let end = lot.as_ref().map_or(self.taken, |lot| lot.end);
            let is_due = orders.rotate.as_ref().is_some_and(|rotate| rotate.at <= end);
            if is_due { orders.rotate.take() } else { None }
        };
        let start = self.taken;
        if let Some(lot) = &lot {
            self.taken = lot.end;
            self.lots = self.lots.saturating_sub(1);
        }
        let Some(mut rotate) = rotate else {
            self.pending.extend(lot.map(Step::Write));
            return;
        };
        let (before, after) = match lot {
            Some(lot) => lot.split(start, rotate.at),
            None => (None, None),
        };
        self.pending.extend(before.map(Step::Write));
        let (end, prologue) = (rotate.at, std::mem::take(&mut rotate.prologue));
        self.pending.push_back(Step::Rotate(rotate));
        if !prologue.is_empty() {
            self.pending.push_back(Step::Write(Lot { chunks: vec![prologue.into()], end }));
        }
        self.pending.extend(after.map(Step::Write));
    }

    /// Does what is pending, up to the first step that fails.
    fn work_off(&mut self) {
        while let Some(step) = self.pending.pop_front() {
            let again = match step {
                Step::Write(lot) => match self.append(&lot) {
                    Ok(()) => continue,
                    Err(None) => Step::Write(lot),
                    Err(Some(rest)) => Step::Complete(rest),
                },
                Step::Complete(rest) => match self.put(&rest) {
                    Ok(()) => continue,
                    Err((done, error)) => {
                        self.report(done, rest.length(), &error);
                        Step::Complete(self.keep(&rest, done))
                    }
                },
                Step::Rotate(rotate) => {
                    let outcome = self.change_files();
                    if let Err(error) = &outcome {
                        self.shared.events.tell(Level::Warning, &error.to_string());
                    }
                    // Nobody waits any more if the rewrite was given up meanwhile.
                    let _ = rotate.answer.send(outcome);
                    continue;
                }
            };
            self.pending.push_front(again);
            self.is_complaining();
            self.failed_at = Some(Instant::now());
            return;
        }
    }

    /// Writes a lot, and with `always` flushes it. On failure the file is as it was before, or, where
    /// that could not be had, what remains to be written is returned.
    fn append(&mut self, lot: &Lot) -> Result<(), Option<Lot>> {
        let delay = self.shared.delay.load(Ordering::Relaxed);
        if delay != 0 {
            thread::sleep(Duration::from_micros(delay));
        }
        let stamp = self.stamp();
        let prepared = match self.sink.prepare(stamp, lot) {
            Ok(prepared) => prepared,
            Err(error) => {
                self.report(0, lot.length(), &error);
                return Err(None);
            }
        };
        self.put(&prepared).map_err(|(done, error)| {
            self.report(done, prepared.length(), &error);
            self.take_back(&prepared, done)
        })
    }

    /// Writes bytes as they are, and with `always` flushes them. On failure, how many were written.
    fn put(&mut self, prepared: &Lot) -> Result<(), (u64, io::Error)> {
        let length = prepared.length();
        let began = Instant::now();
        let (done, result) = self.sink.write(prepared);
        self.shared.events.took("aof-write", began.elapsed());
        result.map_err(|error| (done, error))?;
        if self.shared.fsync() == Fsync::Always && !self.pauses_fsync() {
            let began = Instant::now();
            let result = self.sink.medium.sync_data();
            let (now, time) = (Instant::now(), began.elapsed());
            self.shared.events.took("aof-fsync-always", time);
            self.patient_until = self.patience.after(time).map(|wait| now + wait);
            if let Err(error) = result {
                self.complain(|| format!("Can't persist AOF for fsync error: {}", reason(&error)));
                // Neither is it known what is on disk, nor will the next flush try it again: only
                // writing it anew does.
                return Err((length, error));
            }
            self.given_to_sync = prepared.end;
        }
        self.sink.bytes += length;
        self.folder.grow(length);
        self.written = prepared.end;
        self.shared.written.store(prepared.end, Ordering::Relaxed);
        if self.given_to_sync == prepared.end {
            self.shared.book_sync(prepared.end, Ok(()));
        }
        self.recover();
        self.shared.events.released(prepared.end);
        Ok(())
    }

    /// Says that only `done` bytes were written.
    fn report(&mut self, done: u64, length: u64, error: &io::Error) {
        self.shared.write_failed.store(true, Ordering::Relaxed);
        self.shared.events.troubled(Some(&reason(error)));
        if done == 0 {
            self.complain(|| format!("Error writing to the AOF file: {}", reason(error)));
        } else if done < length {
            self.complain(|| {
                format!(
                    "Short write while writing to the AOF file: (nwritten={done}, \
                     expected={length}): {}",
                    reason(error)
                )
            });
        }
    }

    /// Cuts the file back to its last whole lot. Where that cannot be done, what is left to write.
    fn take_back(&mut self, prepared: &Lot, done: u64) -> Option<Lot> {
        let Err(error) = self.sink.take_back(done) else {
            self.stamped = 0;
            return None;
        };
        self.complain(|| {
            format!(
                "Could not remove short write from the append-only file. Redis may refuse to load \
                 the AOF the next time it starts. ftruncate: {}",
                reason(&error)
            )
        });
        Some(self.keep(prepared, done))
    }

    /// Leaves in the file what was written of a lot: the rest of it.
    fn keep(&mut self, prepared: &Lot, done: u64) -> Lot {
        self.sink.bytes += done;
        self.folder.grow(done);
        prepared.without(done)
    }

    fn recover(&mut self) {
        self.failed_at = None;
        if self.shared.write_failed.load(Ordering::Relaxed) {
            self.complained = None;
            let text = "AOF write error looks solved, Redis can write again.";
            self.shared.events.tell(Level::Notice, text);
            let was_healthy = self.shared.is_healthy();
            self.shared.write_failed.store(false, Ordering::Relaxed);
            self.shared.tell_recovery(was_healthy);
        }
    }

    /// The trouble is in the log now: no more of it for a while.
    fn is_complaining(&mut self) {
        if self.complained.is_none_or(|at| COMPLAINT <= at.elapsed()) {
            self.complained = Some(Instant::now());
        }
    }

    fn complain(&self, text: impl FnOnce() -> String) {
        if self.complained.is_none_or(|at| COMPLAINT <= at.elapsed()) {
            self.shared.events.tell(Level::Warning, &text());
        }
    }

    /// The annotation before a lot, once in a second.
    fn stamp(&mut self) -> Vec<u8> {
        if !self.shared.timestamps.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        if now <= self.stamped {
            return Vec::new();
        }
        self.stamped = now;
        format!("#TS:{now}\r\n").into_bytes()
    }

    fn change_files(&mut self) -> Rotated {
        self.syncer.settle();
        self.sink.finish().map_err(FileError::new("Error writing to the AOF file"))?;
        let changed = self.change_finished_file();
        if changed.is_err() {
            self.sink.go_on();
        }
        changed
    }

    fn change_finished_file(&mut self) -> Rotated {
        let flushed = self.sink.medium.sync_data();
        flushed.map_err(FileError::new("Fail to fsync the AOF file"))?;
        self.given_to_sync = self.written;
        self.shared.book_sync(self.written, Ok(()));
        let tell = |level, text: &str| self.shared.events.tell(level, text);
        let incr = self.folder.create_incr(&tell)?;
        let sequence = incr.sequence;
        self.sink = Sink::new(incr);
        self.stamped = 0;
        Ok(sequence)
    }

    /// Does what was ordered. Says whether to go on.
    fn obey(&mut self) -> bool {
        self.shared.has_orders.store(false, Ordering::Relaxed);
        let (flushes, ends) = {
            let mut orders = self.shared.orders();
            (std::mem::take(&mut orders.flush), orders.ends)
        };
        if flushes.is_empty() && !ends {
            // A change of files is seen with the next lot, or with none.
            if self.pending.is_empty() {
                self.take();
            }
            self.work_off();
            return true;
        }
        let result = self.drain(ends || flushes.iter().any(|flush| flush.syncs));
        for flush in flushes {
            let result = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), reason(error))),
            };
            let _ = flush.answer.send(result);
        }
        !ends
    }

    /// Writes all there is now.
    fn drain(&mut self, syncs: bool) -> io::Result<()> {
        loop {
            if self.pending.is_empty() {
                self.take();
            }
            if self.pending.is_empty() {
                break;
            }
            self.work_off();
            if !self.pending.is_empty() {
                return Err(io::Error::other("Error writing to the AOF file"));
            }
        }
        if syncs {
            self.syncer.settle();
            if self.shared.synced.load(Ordering::Acquire) < self.written {
                return self.sync_here();
            }
        }
        Ok(())
    }

    /// Flushes on this thread.
    fn sync_here(&mut self) -> io::Result<()> {
        self.syncer.settle();
        let result = self.sink.medium.sync_data();
        let outcome = match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), reason(error))),
        };
        self.given_to_sync = self.written;
        self.synced_at = Instant::now();
        self.shared.book_sync(self.written, result);
        outcome
    }

    fn sync_if_due(&mut self) {
        if self.next_duty() != Some(Duration::ZERO) {
            return;
        }
        if self.shared.fsync() == Fsync::Always {
            // Written under another policy, or the last flush failed, which was logged.
            let _ = self.sync_here();
            return;
        }
        self.synced_at = Instant::now();
        self.shared.is_syncing.store(true, Ordering::Relaxed);
        if self.syncer.sync(&self.sink.medium, self.written) {
            self.given_to_sync = self.written;
        } else if self.shared.delayed_syncs.fetch_add(1, Ordering::Relaxed) == 0 {
            let text = "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF \
                        buffer without waiting for fsync to complete, this may slow down Redis.";
            self.shared.events.tell(Level::Notice, text);
        }
    }

    fn pauses_fsync(&self) -> bool {
        self.shared.pauses_fsync.load(Ordering::Relaxed)
    }

    fn rest(&mut self, did: bool) {
        let most = self.next_duty();
        let is_always = self.shared.fsync() == Fsync::Always;
        if self.failed_at.is_some() || !is_always && !self.may_write_at_once() {
            let nap = if self.failed_at.is_some() { RETRY } else { NAP };
            self.shared.doorbell.nap(most.map_or(nap, |most| most.min(nap)));
            return;
        }
        if did || self.shared.has_orders.load(Ordering::Acquire) {
            return;
        }
        let source = &mut self.source;
        if let Some(lot) = self.shared.doorbell.sleep(most, || source.take()) {
            self.accept(Some(lot));
        }
    }

    /// How long there is nothing to flush, if there will be.
    fn next_duty(&self) -> Option<Duration> {
        let has_failed = self.shared.sync_failed.load(Ordering::Relaxed);
        let is_unsafe = self.given_to_sync != self.written;
        match self.shared.fsync() {
            _ if self.pauses_fsync() || !is_unsafe && !has_failed => None,
            Fsync::Always if !has_failed => Some(Duration::ZERO),
            Fsync::No if !has_failed => None,
            _ => Some(SECOND.saturating_sub(self.synced_at.elapsed())),
        }
    }

    fn may_write_at_once(&mut self) -> bool {
        let earned = self.lots_at.elapsed().as_millis() / NAP.as_millis();
        if 0 < earned {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.lots = self.lots.saturating_add(earned).min(LOTS_MAX);
            self.lots_at = Instant::now();
        }
        0 < self.lots
    }
}

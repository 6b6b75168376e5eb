//! Flushing a file to disk beside the thread that writes it: what `appendfsync everysec` needs.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::medium::Medium;

/// A thread that flushes one file at a time.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The file to flush, and up to which offset of the effects that makes it safe.
    order: Option<(Arc<dyn Medium>, u64)>,
    is_busy: bool,
    ends: bool,
}

impl Syncer {
    /// `done` is told how each flush went, on the new thread.
    pub(super) fn start(
        mut done: impl FnMut(u64, io::Result<()>) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = thread::Builder::new().name("aof-fsync".into()).spawn(move || {
            while let Some((file, offset)) = own.next() {
                let result = file.sync_data();
                drop(file);
                done(offset, result);
                own.lock().is_busy = false;
                own.changed.notify_all();
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has the file flushed, unless the last flush is still under way.
    pub(super) fn sync(&self, file: &Arc<dyn Medium>, offset: u64) -> bool {
        let mut state = self.shared.lock();
        if state.is_busy {
            return false;
        }
        state.is_busy = true;
        state.order = Some((file.clone(), offset));
        self.shared.changed.notify_all();
        true
    }

    /// Waits until no flush is under way.
    pub(super) fn settle(&self) {
        let mut state = self.shared.lock();
        while state.is_busy {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(Arc<dyn Medium>, u64)> {
        let mut state = self.lock();
        loop {
            if let Some(order) = state.order.take() {
                return Some(order);
            }
            if state.ends {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It can only have panicked in what was handed in; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

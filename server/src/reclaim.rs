//! Freeing large data away from the reactors.
//!
//! Giving back a hash of a million fields takes as long as making it. One thread does that, so that
//! no client waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use carnelian_keyspace::Dropped;

use crate::allocator;

/// The way to the thread.
pub struct Reclaimer {
    sender: Sender<Job>,
    figures: Arc<Figures>,
}

/// What is to be freed, and what is to be done then.
struct Job {
    dropped: Dropped,
    then: Option<Box<dyn FnOnce() + Send>>,
}

#[derive(Default)]
struct Figures {
    pending: AtomicUsize,
    pending_bytes: AtomicUsize,
    freed: AtomicUsize,
}

impl Reclaimer {
    /// Starts the thread; it ends when the reclaimer is dropped.
    pub fn start() -> std::io::Result<Self> {
        let (sender, receiver) = channel::<Job>();
        let figures = Arc::new(Figures::default());
        let counted = Arc::clone(&figures);
        std::thread::Builder::new().name("reclaim".into()).spawn(move || {
            for Job { dropped, then } in receiver {
                let (objects, bytes) = (dropped.len(), dropped.heap_bytes());
                drop(dropped);
                allocator::publish();
                // Who sees that they wait no more sees that they are free.
                counted.pending_bytes.fetch_sub(bytes, Ordering::Release);
                counted.pending.fetch_sub(objects, Ordering::Relaxed);
                counted.freed.fetch_add(objects, Ordering::Relaxed);
                if let Some(then) = then {
                    then();
                }
            }
        })?;
        Ok(Self { sender, figures })
    }

    pub fn free(&self, dropped: Dropped) {
        self.take(Job { dropped, then: None });
    }

    /// The same, with something to be done when all of it is free, which must not take long.
    pub fn free_before(&self, dropped: Dropped, then: impl FnOnce() + Send + 'static) {
        self.take(Job { dropped, then: Some(Box::new(then)) });
    }

    fn take(&self, job: Job) {
        let dropped = &job.dropped;
        self.figures.pending.fetch_add(dropped.len(), Ordering::Relaxed);
        self.figures.pending_bytes.fetch_add(dropped.heap_bytes(), Ordering::Relaxed);
        // Without the thread (the process is ending) the data is freed right here.
        let _ = self.sender.send(job);
    }

    /// Keys and values that wait (`lazyfree_pending_objects`).
    pub fn pending(&self) -> usize {
        self.figures.pending.load(Ordering::Relaxed)
    }

    /// Bytes that wait: as good as free, though still in use.
    pub fn pending_bytes(&self) -> usize {
        self.figures.pending_bytes.load(Ordering::Acquire)
    }

    /// Keys and values freed so far (`lazyfreed_objects`).
    pub fn freed(&self) -> usize {
        self.figures.freed.load(Ordering::Relaxed)
    }

    pub fn reset_freed(&self) {
        self.figures.freed.store(0, Ordering::Relaxed);
    }
}

//! What the server watches over time: its memory, and the thread that stands for the main one.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::{allocator, usage};

/// Reading the allocator's figures gathers them from all its arenas: not at every tick.
const INTERVAL_MS: u64 = 100;

/// By then the reactors have what they need for themselves.
const STARTUP_MS: u64 = 1000;

pub struct Watch {
    startup_bytes: AtomicUsize,
    peak_bytes: AtomicUsize,
    last_ms: AtomicU64,
    main_thread: OnceLock<PathBuf>,
    /// DEBUG PAUSE-CRON: nothing is done by time.
    pub paused: AtomicBool,
}

impl Watch {
    pub fn begin() -> Self {
        let used = allocator::used_memory();
        Self {
            startup_bytes: AtomicUsize::new(used),
            peak_bytes: AtomicUsize::new(used),
            last_ms: AtomicU64::new(0),
            main_thread: OnceLock::new(),
            paused: AtomicBool::new(false),
        }
    }

    /// Looks if it is time. Called by the first reactor only, with its monotonic clock. `unused`: no
    /// client has come yet.
    pub fn tick(&self, now_ms: u64, unused: bool) {
        if now_ms < self.last_ms.load(Ordering::Relaxed) + INTERVAL_MS {
            return;
        }
        self.last_ms.store(now_ms, Ordering::Relaxed);
        self.main_thread.get_or_init(usage::this_thread);
        let used = allocator::used_memory();
        self.raise_peak(used);
        if unused && now_ms < STARTUP_MS {
            self.startup_bytes.store(used, Ordering::Relaxed);
        }
    }

    /// Bytes in use before there were clients and data.
    pub fn startup_bytes(&self) -> usize {
        self.startup_bytes.load(Ordering::Relaxed)
    }

    /// The most bytes that were ever seen in use, `used` now included.
    pub fn raise_peak(&self, used: usize) -> usize {
        self.peak_bytes.fetch_max(used, Ordering::Relaxed).max(used)
    }

    /// Where the kernel tells about the first reactor's thread, once that has begun.
    pub fn main_thread(&self) -> Option<&PathBuf> {
        self.main_thread.get()
    }
}

//! Waking the one thread that writes, at no cost for those who need not.
//!
//! Whoever appends calls [`Doorbell::ring`] after the append. While the thread is awake, which it is
//! under load, that is one relaxed load. Only the first append after the thread has gone to sleep
//! pays for waking it.
//!
//! Why a relaxed load is enough: appends are made, and looked for, under one lock. The thread first
//! says that it sleeps (`asleep`), then looks for appends under that lock, then sleeps. If an append's
//! turn at the lock comes before that look, the look finds it. If it comes after, then what the
//! thread had said before its own turn is visible to the one who appends from then on, so that the
//! load, which follows the turn at the lock, reads `true`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// See the module. One thread waits, or none; any may ring.
#[derive(Debug, Default)]
pub struct Doorbell {
    asleep: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
}

impl Doorbell {
    /// There is something new. To be called after it was appended, under the same lock or later.
    #[inline]
    pub fn ring(&self) {
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if self.asleep.swap(false, Ordering::AcqRel) {
            self.call();
        }
    }

    /// Ends any sleep of the thread, also one of those in which `ring` is not heard.
    pub fn call(&self) {
        if let Some(sleeper) = &*self.sleeper.lock().unwrap_or_else(PoisonError::into_inner) {
            sleeper.unpark();
        }
    }

    /// Makes the calling thread the one that is woken.
    pub(super) fn answer_here(&self) {
        let mut sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner);
        *sleeper = Some(thread::current());
    }

    /// Sleeps until rung or called, for `most` at the longest, unless `look` finds something.
    /// It looks under the lock that appends take.
    pub(super) fn sleep<T>(
        &self,
        most: Option<Duration>,
        look: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        self.asleep.store(true, Ordering::SeqCst);
        let found = look();
        if found.is_none() {
            match most {
                Some(most) => thread::park_timeout(most),
                None => thread::park(),
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
        found
    }

    /// Sleeps without hearing `ring`.
    pub(super) fn nap(&self, time: Duration) {
        thread::park_timeout(time);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn no_append_is_slept_over() {
        const APPENDS: u64 = 20_000;
        let bell = Arc::new(Doorbell::default());
        let appended = Arc::new(Mutex::new(0u64));
        let sleeper = thread::spawn({
            let (bell, appended) = (bell.clone(), appended.clone());
            move || {
                bell.answer_here();
                let mut seen = 0;
                // Sleeps without end: a ring that got lost would hang the test.
                while seen < APPENDS {
                    let look = || Some(*appended.lock().unwrap()).filter(|now| *now != seen);
                    if let Some(now) = bell.sleep(None, look) {
                        seen = now;
                    }
                }
            }
        });
        for _ in 0..APPENDS {
            *appended.lock().unwrap() += 1;
            bell.ring();
        }
        sleeper.join().unwrap();
    }
}

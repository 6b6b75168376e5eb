//! Who waits for which key: clients that WATCH it, and clients blocked until it can serve them.
//!
//! Entries are made and looked at under the lock of their key's segment, so that no change falls
//! between a look at the data and the entry. The map has a lock of its own, taken inside those; it is
//! only reached for keys that the interest filter lets pass.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use carnelian_keyspace::Interest;
use parking_lot::Mutex;

use crate::blocking::Waiter;
use crate::clients::{ClientShared, bits};

/// A key of a logical database.
pub type Key = (usize, Box<[u8]>);

/// Told of a change to a watched key, and asked by EXEC.
#[derive(Default)]
pub struct Watch {
    broken: AtomicBool,
    /// Whose watch it is: others see that it is broken.
    owner: Option<Arc<ClientShared>>,
}

impl Watch {
    pub fn of(owner: &Arc<ClientShared>) -> Self {
        Self { broken: AtomicBool::new(false), owner: Some(Arc::clone(owner)) }
    }

    fn tell(&self) {
        self.broken.store(true, Ordering::Release);
        if let Some(owner) = &self.owner {
            owner.set_flag(bits::DIRTY, true);
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

#[derive(Default)]
pub struct Waiters {
    pub interest: Arc<Interest>,
    /// By logical database, as far up as there were any, and key.
    keys: Mutex<Vec<Lines>>,
    /// Numbers waiters in the order in which they came.
    last_order: AtomicU64,
    /// Clients that wait now, for keys or not.
    pub blocked: AtomicUsize,
    /// Keys that clients wait for; and those of them whose loss matters too.
    pub blocking_keys: AtomicUsize,
    pub blocking_keys_on_loss: AtomicUsize,
    /// Clients that watch keys, and the keys they watch.
    pub watching: AtomicUsize,
    pub watched_keys: AtomicUsize,
}

type Lines = HashMap<Box<[u8]>, Line, RandomState>;

/// Room for so many lines is kept when nobody waits.
const SPARE_LINES: usize = 1000;

/// Those that wait for one key.
#[derive(Default)]
struct Line {
    /// By client.
    watches: BTreeMap<u64, Arc<Watch>>,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Arc<Waiter>>,
    /// How many of those want to hear if the key goes.
    heeding: usize,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.watches.is_empty() && self.waiting.is_empty()
    }
}

impl Waiters {
    /// A new place behind all others.
    pub fn next_order(&self) -> u64 {
        self.last_order.fetch_add(1, Ordering::Relaxed)
    }

    /// Has `client` told of changes to a key. False if it watches it already.
    pub fn watch(&self, db: usize, key: &[u8], client: u64, watch: &Arc<Watch>) -> bool {
        let mut keys = self.keys.lock();
        let line = line(&mut keys, db, key);
        let is_new = line.watches.insert(client, Arc::clone(watch)).is_none();
        if is_new {
            self.interest.add_watch(db, key);
            self.watched_keys.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    pub fn unwatch(&self, watched: &[Key], client: u64) {
        let mut keys = self.keys.lock();
        for (db, key) in watched {
            let gone = with_line(&mut keys, *db, key, |line| line.watches.remove(&client));
            if gone.flatten().is_some() {
                self.interest.remove_watch(*db, key);
                self.watched_keys.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Has a client wait for its keys. Called while their segments are locked.
    pub fn enter(&self, waiter: &Arc<Waiter>) {
        self.blocked.fetch_add(1, Ordering::Relaxed);
        let mut keys = self.keys.lock();
        for key in &waiter.wait.keys {
            let line = line(&mut keys, waiter.db.into(), key);
            if line.waiting.insert(waiter.order, Arc::clone(waiter)).is_none() {
                self.interest.add(waiter.db.into(), key);
                if line.waiting.len() == 1 {
                    self.blocking_keys.fetch_add(1, Ordering::Relaxed);
                }
                line.heeding += usize::from(waiter.wait.heeds_loss);
                if waiter.wait.heeds_loss && line.heeding == 1 {
                    self.blocking_keys_on_loss.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Ends the wait of a client. Called once, by who has settled how it ends.
    pub fn leave(&self, waiter: &Waiter) {
        self.blocked.fetch_sub(1, Ordering::Relaxed);
        let db = usize::from(waiter.db);
        let mut keys = self.keys.lock();
        for key in &waiter.wait.keys {
            with_line(&mut keys, db, key, |line| {
                if line.waiting.remove(&waiter.order).is_none() {
                    return;
                }
                self.interest.remove(db, key);
                if line.waiting.is_empty() {
                    self.blocking_keys.fetch_sub(1, Ordering::Relaxed);
                }
                line.heeding -= usize::from(waiter.wait.heeds_loss);
                if waiter.wait.heeds_loss && line.heeding == 0 {
                    self.blocking_keys_on_loss.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
    }

    /// Tells those who watch a key that it has changed. Whether clients wait for it, but for one that is
    /// being served: it changes the key itself.
    pub fn tell(&self, db: usize, key: &[u8]) -> bool {
        let keys = self.keys.lock();
        let Some(line) = keys.get(db).and_then(|lines| lines.get(key)) else { return false };
        for watch in line.watches.values() {
            watch.tell();
        }
        line.waiting.values().any(|waiter| waiter.is_waiting())
    }

    /// Who waits for a key, the first behind `order`.
    pub fn next_waiting(&self, db: usize, key: &[u8], order: Option<u64>) -> Option<Arc<Waiter>> {
        let keys = self.keys.lock();
        let line = keys.get(db)?.get(key)?;
        let from = order.map_or(0, |order| order + 1);
        line.waiting.range(from..).next().map(|(_, waiter)| Arc::clone(waiter))
    }
}

fn line<'l>(keys: &'l mut Vec<Lines>, db: usize, key: &[u8]) -> &'l mut Line {
    if keys.len() <= db {
        keys.resize_with(db + 1, Lines::default);
    }
    let lines = &mut keys[db];
    if !lines.contains_key(key) {
        lines.insert(key.into(), Line::default());
    }
    lines.get_mut(key).expect("it was just put there")
}

/// Acts on a key's line, which goes when nobody is left in it.
fn with_line<R>(
    keys: &mut [Lines],
    db: usize,
    key: &[u8],
    act: impl FnOnce(&mut Line) -> R,
) -> Option<R> {
    let lines = keys.get_mut(db)?;
    let line = lines.get_mut(key)?;
    let result = act(line);
    if line.is_empty() {
        lines.remove(key);
        if lines.is_empty() && SPARE_LINES < lines.capacity() {
            *lines = Lines::default();
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_told_until_it_is_taken_back() {
        let waiters = Waiters::default();
        let (first, second) = (Arc::new(Watch::default()), Arc::new(Watch::default()));
        assert!(waiters.watch(0, b"a", 1, &first));
        assert!(!waiters.watch(0, b"a", 1, &first), "watched already");
        assert!(waiters.watch(0, b"a", 2, &second));
        assert!(!waiters.tell(1, b"a") && !waiters.tell(0, b"b"), "nobody waits");
        assert!(!first.is_broken());
        waiters.unwatch(&[(0, (*b"a").into())], 2);
        waiters.tell(0, b"a");
        assert!(first.is_broken() && !second.is_broken());
        waiters.unwatch(&[(0, (*b"a").into()), (0, (*b"a").into())], 1);
        assert!(!waiters.interest.is_awake());
        assert!(waiters.keys.lock()[0].is_empty());
    }
}

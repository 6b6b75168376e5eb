//! Session resumption with an end: `tls-session-cache-timeout` and `tls-session-cache-size`.
//!
//! The engine's own tickets live for half a day whatever the operator says, and its cache of
//! sessions never forgets by age and takes all its memory at the start. Here tickets carry the time
//! at which they end, and the cache is one that grows with use.
//!
//! Resuming a session never looks at the client's certificate again. So every new configuration has
//! to come with a new pair of these: what a former one issued is then worth nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, StoresServerSessions};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

/// TLS 1.3 allows no ticket a longer life (RFC 8446, 4.6.1).
const LIFE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// `tls-session-caching` and its two limits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SessionCaching {
    pub enabled: bool,
    /// Sessions kept for TLS 1.2 clients without tickets; 0 is no limit, as Redis has it.
    pub size: usize,
    /// How long a session can be resumed.
    pub timeout: Duration,
}

impl Default for SessionCaching {
    fn default() -> Self {
        Self { enabled: true, size: 20_480, timeout: Duration::from_secs(300) }
    }
}

/// "No limit" for a cache that needs one: some hundred MiB at the very worst.
const SIZE_UNLIMITED: usize = 1 << 19;

impl SessionCaching {
    /// A new maker of tickets, with keys of its own.
    pub(crate) fn ticketer(self) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
        let clock = Arc::new(DefaultTimeProvider);
        Ok(Arc::new(DatedTickets { tickets: Ticketer::new()?, life: self.life(), clock }))
    }

    /// A new, empty cache.
    pub(crate) fn storage(self) -> Arc<dyn StoresServerSessions> {
        if !self.enabled {
            return Arc::new(NoServerSessionStorage {});
        }
        let size = match self.size {
            0 => SIZE_UNLIMITED,
            size => size.min(SIZE_UNLIMITED),
        };
        Arc::new(DatedSessions::new(size, self.life(), Arc::new(DefaultTimeProvider)))
    }

    fn life(self) -> Duration {
        self.timeout.min(LIFE_MAX)
    }
}

/// Tickets with the second of their end inside, under the engine's encryption.
struct DatedTickets {
    tickets: Arc<dyn ProducesTickets>,
    life: Duration,
    clock: Arc<dyn TimeProvider>,
}

impl ProducesTickets for DatedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.life.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&dated(plain, &*self.clock, self.life)?)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        undated(&self.tickets.decrypt(cipher)?, &*self.clock)
    }
}

impl fmt::Debug for DatedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatedTickets").field("life", &self.life).finish_non_exhaustive()
    }
}

/// Sessions by id, each with the second of its end in front; the oldest goes when there are too
/// many.
struct DatedSessions {
    sessions: Mutex<Sessions>,
    size: usize,
    life: Duration,
    clock: Arc<dyn TimeProvider>,
}

#[derive(Default)]
struct Sessions {
    by_id: HashMap<Arc<[u8]>, Vec<u8>>,
    /// Every id of `by_id` once, the oldest first, and some that are gone.
    by_age: VecDeque<Arc<[u8]>>,
}

impl DatedSessions {
    fn new(size: usize, life: Duration, clock: Arc<dyn TimeProvider>) -> Self {
        Self { sessions: Mutex::default(), size, life, clock }
    }

    /// A panic while the lock was held leaves at worst a session too few.
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoresServerSessions for DatedSessions {
    fn put(&self, id: Vec<u8>, value: Vec<u8>) -> bool {
        let Some(value) = dated(&value, &*self.clock, self.life) else { return false };
        let id: Arc<[u8]> = id.into();
        let mut sessions = self.lock();
        if sessions.by_id.insert(id.clone(), value).is_none() {
            sessions.by_age.push_back(id);
        }
        while self.size < sessions.by_age.len() {
            if let Some(oldest) = sessions.by_age.pop_front() {
                sessions.by_id.remove(&oldest);
            }
        }
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        undated(self.lock().by_id.get(id)?, &*self.clock)
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        undated(&self.lock().by_id.remove(id)?, &*self.clock)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for DatedSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatedSessions").field("life", &self.life).finish_non_exhaustive()
    }
}

fn dated(value: &[u8], clock: &dyn TimeProvider, life: Duration) -> Option<Vec<u8>> {
    let end_s = clock.current_time()?.as_secs().saturating_add(life.as_secs());
    Some([&end_s.to_be_bytes()[..], value].concat())
}

fn undated(value: &[u8], clock: &dyn TimeProvider) -> Option<Vec<u8>> {
    let (end_s, value) = value.split_first_chunk()?;
    let now_s = clock.current_time()?.as_secs();
    (now_s <= u64::from_be_bytes(*end_s)).then(|| value.to_vec())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustls::pki_types::UnixTime;

    use super::*;

    #[derive(Debug, Default)]
    struct Clock(AtomicU64);

    impl TimeProvider for Clock {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
        }
    }

    #[test]
    fn tickets_and_sessions_end() {
        let clock = Arc::new(Clock::default());
        let life = Duration::from_secs(10);
        let tickets =
            DatedTickets { tickets: Ticketer::new().unwrap(), life, clock: clock.clone() };
        let sessions = DatedSessions::new(8, life, clock.clone());
        let ticket = tickets.encrypt(b"state").unwrap();
        assert!(sessions.put(b"id".to_vec(), b"state".to_vec()));
        assert_eq!(tickets.lifetime(), 10);

        clock.0.store(10, Ordering::Relaxed);
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        assert_eq!(sessions.get(b"id").as_deref(), Some(&b"state"[..]));
        clock.0.store(11, Ordering::Relaxed);
        assert_eq!(tickets.decrypt(&ticket), None);
        assert_eq!((sessions.get(b"id"), sessions.take(b"id")), (None, None));
    }

    #[test]
    fn the_oldest_session_goes_first() {
        let sessions = DatedSessions::new(2, Duration::from_secs(1), Arc::new(Clock::default()));
        for id in [1, 2, 2, 3] {
            sessions.put(vec![id], vec![id]);
        }
        assert_eq!(sessions.get(&[1]), None);
        assert_eq!(sessions.take(&[2]), Some(vec![2]));
        assert_eq!(sessions.get(&[2]), None);
        assert_eq!(sessions.get(&[3]), Some(vec![3]));
    }

    #[test]
    fn tickets_of_another_configuration_are_worth_nothing() {
        let caching = SessionCaching::default();
        let ticket = caching.ticketer().unwrap().encrypt(b"state").unwrap();
        assert_eq!(caching.ticketer().unwrap().decrypt(&ticket), None);
    }
}

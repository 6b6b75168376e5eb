//! Who has failed to log in how often, and which passwords were seen to be right.
//!
//! Checking a password is slow on purpose, and clients send it with each request; so a good one is
//! remembered for a while, as a keyed digest that is worth nothing outside this process.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use parking_lot::Mutex;

/// How long a password that was right is believed without checking it again.
const REMEMBERED_S: i64 = 60;
/// Accounts of which we keep note at most: names come from outside.
const NAMES_MAX: usize = 10_000;
/// The longest a failed attempt is made to wait.
const SLOWEST: Duration = Duration::from_secs(2);

/// The policy's `login_lockout_*`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lockout {
    /// Failures that lock an account; 0 is never.
    pub threshold: u32,
    /// How long it stays locked; 0 is until somebody unlocks it.
    pub duration_s: i64,
    /// Failures are forgotten after this long without another.
    pub reset_after_s: i64,
}

pub struct Logins {
    key: hmac::Key,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    failed: HashMap<String, Failures>,
    seen: HashMap<[u8; 32], i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    last_s: i64,
    locked_at_s: Option<i64>,
}

impl Logins {
    pub fn new() -> Option<Self> {
        let mut key = [0; 32];
        rand::fill(&mut key).ok()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        Some(Self { key, inner: Mutex::default() })
    }

    /// Whether so many attempts have failed that none is looked at any more.
    pub fn is_locked(&self, name: &str, policy: Lockout, now_s: i64) -> bool {
        let inner = self.inner.lock();
        inner.failed.get(name).is_some_and(|failures| failures.is_locked(policy, now_s))
    }

    /// Notes a failed attempt. Returns how long its answer has to wait. It counts towards a lock here only
    /// if `locks`: where the cluster has taken note, the cluster locks, and unlocks.
    pub fn failed(&self, name: &str, policy: Lockout, now_s: i64, locks: bool) -> Duration {
        let mut inner = self.inner.lock();
        if NAMES_MAX <= inner.failed.len() && !inner.failed.contains_key(name) {
            make_room(&mut inner.failed, policy, now_s);
        }
        let failures = inner.failed.entry(name.to_owned()).or_default();
        let is_over =
            failures.locked_at_s.is_some() || policy.reset_after_s <= now_s - failures.last_s;
        if is_over && !failures.is_locked(policy, now_s) {
            *failures = Failures::default();
        }
        failures.count = failures.count.saturating_add(1);
        failures.last_s = now_s;
        if locks
            && 0 < policy.threshold
            && policy.threshold <= failures.count
            && failures.locked_at_s.is_none()
        {
            failures.locked_at_s = Some(now_s);
        }
        let doublings = failures.count.saturating_sub(1).min(5);
        (Duration::from_millis(100) * 2u32.pow(doublings)).min(SLOWEST)
    }

    /// Forgets an account's failures: it logged in, or somebody unlocked it.
    pub fn forgive(&self, name: &str) {
        self.inner.lock().failed.remove(name);
    }

    /// Whether this password was right a moment ago. `kept` is what the cluster keeps of the
    /// account's passwords now, so that changing them makes us forget.
    pub fn was_right(&self, name: &str, password: &str, kept: &str, now_s: i64) -> bool {
        let digest = self.digest(name, password, kept);
        self.inner.lock().seen.get(&digest).is_some_and(|until_s| now_s < *until_s)
    }

    pub fn remember(&self, name: &str, password: &str, kept: &str, now_s: i64) {
        let digest = self.digest(name, password, kept);
        let mut inner = self.inner.lock();
        if NAMES_MAX <= inner.seen.len() {
            inner.seen.retain(|_, until_s| now_s < *until_s);
        }
        if inner.seen.len() < NAMES_MAX {
            inner.seen.insert(digest, now_s + REMEMBERED_S);
        }
    }

    fn digest(&self, name: &str, password: &str, kept: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name, password, kept] {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

impl Failures {
    fn is_locked(self, policy: Lockout, now_s: i64) -> bool {
        let Some(at_s) = self.locked_at_s else { return false };
        0 < policy.threshold && (policy.duration_s == 0 || now_s - at_s < policy.duration_s)
    }
}

/// Forgets what is over, and if need be the oldest: a flood of names must not unlock an account, so
/// locked ones go last.
fn make_room(failed: &mut HashMap<String, Failures>, policy: Lockout, now_s: i64) {
    failed.retain(|_, failures| {
        failures.is_locked(policy, now_s) || now_s - failures.last_s < policy.reset_after_s
    });
    if failed.len() < NAMES_MAX {
        return;
    }
    let oldest = failed
        .iter()
        .min_by_key(|(_, failures)| (failures.locked_at_s.is_some(), failures.last_s))
        .map(|(name, _)| name.clone());
    if let Some(name) = oldest {
        failed.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Lockout = Lockout { threshold: 3, duration_s: 100, reset_after_s: 50 };

    #[test]
    fn failures_lock_an_account_for_a_while() {
        let logins = Logins::new().unwrap();
        for at in 0..3 {
            assert!(!logins.is_locked("a", POLICY, at));
            logins.failed("a", POLICY, at, true);
        }
        assert!(logins.is_locked("a", POLICY, 3));
        assert!(!logins.is_locked("b", POLICY, 3));
        assert!(logins.is_locked("a", POLICY, 101));
        assert!(!logins.is_locked("a", POLICY, 102));
        // Whoever fails then begins anew, and can be locked out again.
        for at in 102..105 {
            assert!(!logins.is_locked("a", POLICY, at));
            logins.failed("a", POLICY, at, true);
        }
        assert!(logins.is_locked("a", POLICY, 106));
    }

    #[test]
    fn rare_failures_do_not_add_up() {
        let logins = Logins::new().unwrap();
        for at in [0, 60, 120, 180] {
            logins.failed("a", POLICY, at, true);
        }
        assert!(!logins.is_locked("a", POLICY, 181));
    }

    #[test]
    fn each_failure_takes_longer() {
        let logins = Logins::new().unwrap();
        let times: Vec<_> =
            (0..8).map(|at| logins.failed("a", POLICY, at, true).as_millis()).collect();
        assert_eq!(times, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        logins.forgive("a");
        assert!(!logins.is_locked("a", POLICY, 9));
    }

    #[test]
    fn a_flood_of_names_takes_no_more_room_and_unlocks_nobody() {
        let logins = Logins::new().unwrap();
        for at in 0..3 {
            logins.failed("a", POLICY, at, true);
        }
        for name in 0..NAMES_MAX + 100 {
            logins.failed(&format!("x{name}"), POLICY, 4, true);
        }
        assert!(logins.inner.lock().failed.len() <= NAMES_MAX);
        assert!(logins.is_locked("a", POLICY, 5));
    }

    #[test]
    fn a_good_password_is_remembered_until_it_changes() {
        let logins = Logins::new().unwrap();
        logins.remember("a", "p", "hash", 0);
        assert!(logins.was_right("a", "p", "hash", 59));
        assert!(!logins.was_right("a", "p", "hash", 60));
        assert!(!logins.was_right("a", "q", "hash", 1));
        assert!(!logins.was_right("a", "p", "other", 1));
        assert!(!logins.was_right("ap", "", "hash", 1));
    }
}

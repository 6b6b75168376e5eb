//! When certificates of nodes end, when they are made anew, and when somebody has to be told that
//! this does not happen. Pure arithmetic: the clock is the caller's.

use std::time::Duration;

use super::Error;
use super::credential::Credential;

const DAY_S: u32 = 86_400;

/// A certificate is replaced at this age, whatever its life, unless it ends before.
const ROTATION_AGE_DAYS: u32 = 30;

/// After a certificate is due, the job has this long before something is wrong.
const GRACE_S: i64 = 24 * 3_600;

/// From so few days on, the end of a certificate is an error and no longer a warning.
const ERROR_DAYS: i64 = 7;

/// How long the certificates of nodes live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lifetime {
    days: u32,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self { days: 45 }
    }
}

impl Lifetime {
    pub fn days(days: u32) -> Result<Self, Error> {
        match days {
            2..=365 => Ok(Self { days }),
            _ => Err(Error::Lifetime(days)),
        }
    }

    pub fn as_days(self) -> u32 {
        self.days
    }

    pub fn as_duration(self) -> Duration {
        Duration::from_secs(u64::from(self.days) * u64::from(DAY_S))
    }
}

/// When certificates of nodes are replaced.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RenewalPolicy {
    life: Lifetime,
    before_days: Option<u32>,
}

impl RenewalPolicy {
    /// `before_days` is `expiry_days_before_rotation`; without it, certificates are replaced at the
    /// same age whatever their life.
    pub fn new(life: Lifetime, before_days: Option<u32>) -> Result<Self, Error> {
        match before_days {
            Some(days) if !(1..=90).contains(&days) || life.days <= days => {
                Err(Error::RotationDays { days, life_days: life.days })
            }
            _ => Ok(Self { life, before_days }),
        }
    }

    pub fn life(self) -> Lifetime {
        self.life
    }

    /// How much of its life a certificate has left when it is time to replace it. Lives too short
    /// for the usual age leave a third.
    pub fn before(self) -> Duration {
        let left_s = match (self.before_days, self.life.days.checked_sub(ROTATION_AGE_DAYS)) {
            (Some(days), _) | (None, Some(days @ 1..)) => days * DAY_S,
            _ => self.life.days * DAY_S / 3,
        };
        Duration::from_secs(left_s.into())
    }

    /// The same in days, at least one.
    pub fn before_days(self) -> u32 {
        let days = self.before().as_secs() / u64::from(DAY_S);
        u32::try_from(days).unwrap_or(u32::MAX).max(1)
    }

    /// When a certificate that ends then is to be replaced. All times are seconds since 1970.
    pub fn next_rotation_s(self, not_after_s: i64) -> i64 {
        not_after_s.saturating_sub(self.before().as_secs() as i64)
    }

    /// Whether it is time to replace a certificate.
    pub fn is_due(self, leaf: &Credential, now_s: i64) -> bool {
        self.next_rotation_s(leaf.not_after()) <= now_s
    }
}

/// How the replacing of one node's certificates goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RotationHealth {
    pub job_enabled: bool,
    pub last_attempt_failed: bool,
}

impl RotationHealth {
    /// Whether a certificate that is due at `next_s` can be expected to be replaced.
    pub fn is_on_track(self, next_s: i64, now_s: i64) -> bool {
        self.job_enabled && !self.last_attempt_failed && now_s < next_s.saturating_add(GRACE_S)
    }
}

/// How loudly to tell of a certificate about to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
    /// Not at all.
    Quiet,
    Warning,
    Error,
}

impl Expiry {
    /// A certificate that is nobody's to replace but its owner's: few days left is all there is to
    /// say. A certificate that ends at `not_after_s` is valid in that second.
    pub fn plain(not_after_s: i64, threshold_days: u32, now_s: i64) -> Self {
        let left_s = not_after_s.saturating_sub(now_s);
        if i64::from(threshold_days) * i64::from(DAY_S) <= left_s {
            return Self::Quiet;
        }
        match left_s <= ERROR_DAYS * i64::from(DAY_S) {
            true => Self::Error,
            false => Self::Warning,
        }
    }

    /// A certificate that the cluster replaces. With the usual life and threshold, few days are
    /// left from the first second on: which is nothing to tell while replacing is on its way.
    pub fn renewed(
        not_after_s: i64,
        policy: RenewalPolicy,
        health: RotationHealth,
        threshold_days: u32,
        now_s: i64,
    ) -> Self {
        match health.is_on_track(policy.next_rotation_s(not_after_s), now_s) {
            true => Self::Quiet,
            false => Self::plain(not_after_s, threshold_days, now_s),
        }
    }

    pub fn is_on(self) -> bool {
        self != Self::Quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = DAY_S as i64;
    const WELL: RotationHealth = RotationHealth { job_enabled: true, last_attempt_failed: false };
    const STOPPED: RotationHealth = RotationHealth { job_enabled: false, ..WELL };
    const FAILING: RotationHealth = RotationHealth { last_attempt_failed: true, ..WELL };

    fn policy(life: u32, before: Option<u32>) -> Result<RenewalPolicy, Error> {
        RenewalPolicy::new(Lifetime::days(life)?, before)
    }

    #[test]
    fn certificates_are_replaced_at_thirty_days_if_they_live_so_long() {
        let before_days = |life| policy(life, None).unwrap().before_days();
        assert_eq!([45, 90, 365, 31, 30].map(before_days), [15, 60, 335, 1, 10]);
        assert_eq!(policy(2, None).unwrap().before().as_secs(), 57_600);
        assert_eq!(RenewalPolicy::default(), policy(45, None).unwrap());
        for bad in [0, 1, 366, u32::MAX] {
            assert!(Lifetime::days(bad).is_err());
        }
    }

    #[test]
    fn the_days_before_the_end_can_be_chosen_within_the_life() {
        assert_eq!(policy(45, Some(20)).unwrap().next_rotation_s(45 * DAY), 25 * DAY);
        assert_eq!(policy(365, Some(90)).unwrap().before_days(), 90);
        for (life, before) in [(45, 0), (45, 45), (45, 60), (365, 91), (2, 2), (2, u32::MAX)] {
            let error = policy(life, Some(before)).unwrap_err();
            assert!(matches!(error, Error::RotationDays { .. }), "{life} {before}");
        }
    }

    /// The states of the alert that the contract names, at a threshold of 45 days.
    #[test]
    fn the_alert_is_on_when_a_certificate_ends_and_nobody_is_about_to_replace_it() {
        use Expiry::{Error, Quiet, Warning};

        // Life, hours since it was made, how replacing goes, what to tell.
        let cases = [
            (45, 0, WELL, Quiet),
            (45, 15 * 24, WELL, Quiet),
            (45, 30 * 24, WELL, Quiet),
            (45, 31 * 24 - 1, WELL, Quiet),
            (45, 31 * 24, WELL, Warning),
            (45, 38 * 24 - 1, WELL, Warning),
            (45, 38 * 24, WELL, Error),
            (45, 46 * 24, WELL, Error),
            (45, 0, STOPPED, Quiet),
            (45, 1, STOPPED, Warning),
            (45, 30 * 24, STOPPED, Warning),
            (45, 30 * 24, FAILING, Warning),
            (45, 40 * 24, FAILING, Error),
            (90, 0, WELL, Quiet),
            (90, 30 * 24, WELL, Quiet),
            (90, 29 * 24, STOPPED, Quiet),
            (90, 45 * 24 - 1, STOPPED, Quiet),
            (90, 45 * 24, STOPPED, Quiet),
            (90, 45 * 24 + 1, STOPPED, Warning),
            (90, 31 * 24, FAILING, Quiet),
            (90, 46 * 24, FAILING, Warning),
            (90, 46 * 24, WELL, Warning),
        ];
        for (life, hours, health, expected) in cases {
            let policy = policy(life, None).unwrap();
            let (not_after, now) = (i64::from(life) * DAY, hours * 3_600);
            let found = Expiry::renewed(not_after, policy, health, 45, now);
            assert_eq!(found, expected, "{life} days, {hours} hours, {health:?}");
        }
    }

    #[test]
    fn the_plain_alert_knows_only_how_much_is_left() {
        assert_eq!(Expiry::plain(45 * DAY, 45, 0), Expiry::Quiet);
        assert_eq!(Expiry::plain(45 * DAY, 45, 1), Expiry::Warning);
        assert_eq!(Expiry::plain(7 * DAY, 45, 0), Expiry::Error);
        assert_eq!(Expiry::plain(0, 45, i64::MAX), Expiry::Error);
        assert_eq!(Expiry::plain(i64::MIN, u32::MAX, 5), Expiry::Error);
        assert!(!Expiry::plain(100 * DAY, 0, 0).is_on());
    }
}

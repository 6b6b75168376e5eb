//! When certificates end and when they are made anew. Pure arithmetic: the clock is the caller's.

use std::time::Duration;

use super::Error;
use super::credential::Credential;

const DAY_S: u32 = 86_400;

/// A certificate is replaced at this age, whatever its life, unless it ends before.
const ROTATION_AGE_DAYS: u32 = 30;

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

    pub fn as_duration(self) -> Duration {
        Duration::from_secs(u64::from(self.days) * u64::from(DAY_S))
    }

    /// How much of its life a certificate has left when it is time to replace it. Lives too short
    /// for the usual age leave a third.
    pub fn renewal(self) -> Duration {
        let left_s = match self.days.checked_sub(ROTATION_AGE_DAYS) {
            Some(days) if days != 0 => days * DAY_S,
            _ => self.days * DAY_S / 3,
        };
        Duration::from_secs(left_s.into())
    }

    /// Whether it is time to replace a certificate.
    pub fn is_due(self, credential: &Credential, now_s: i64) -> bool {
        credential.not_after().saturating_sub(now_s) <= self.renewal().as_secs() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_replaced_at_thirty_days_if_they_live_so_long() {
        let renewal_days = |days| Lifetime::days(days).unwrap().renewal().as_secs() / 86_400;
        assert_eq!(renewal_days(45), 15);
        assert_eq!(renewal_days(90), 60);
        assert_eq!(renewal_days(365), 335);
        assert_eq!(renewal_days(30), 10);
        assert_eq!(Lifetime::days(2).unwrap().renewal().as_secs(), 57_600);
        assert_eq!(Lifetime::default(), Lifetime::days(45).unwrap());
        for bad in [0, 1, 366, u32::MAX] {
            assert!(Lifetime::days(bad).is_err());
        }
    }
}

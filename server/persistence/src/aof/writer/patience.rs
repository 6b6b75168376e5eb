//! How long the next flush waits for those whom the last one released.
//!
//! Clients that wait for their writes come back soon after a flush. A flush that waits for all of them serves
//! them all; one that begins at once serves those who came during the last flush, half of them, while the other half
//! come back. So waiting pays where they come back in less time than a flush takes, and else only keeps
//! the disk idle. Which of the two it is depends on the disk, on the clients and on what else the
//! machine does; so it is tried, and tried again the more seldom the more often it was in vain.

use std::time::Duration;

/// How long others are waited for, at the most.
const LONGEST: Duration = Duration::from_millis(5);

/// A shorter wait than this takes longer than itself.
const SHORTEST: Duration = Duration::from_micros(30);

/// After how many flushes a wait is tried again at the latest, as a power of two.
const SKIPS_MAX_LOG: u32 = 6;

/// Decides whether waits are worth it by what came of the last ones.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How many flushes are yet to begin without a wait.
    skips: u32,
    /// How often a wait was in vain since several in a row were not.
    vain: u32,
    /// The last wait was not in vain.
    has_paid: bool,
}

impl Patience {
    /// How long to wait after a flush that took this time, if at all. To be called after each.
    pub(super) fn after(&mut self, flush: Duration) -> Option<Duration> {
        if self.skips != 0 {
            self.skips -= 1;
            return None;
        }
        (SHORTEST <= flush).then(|| flush.min(LONGEST))
    }

    /// All who were waited for have come in time, or not.
    pub(super) fn learn(&mut self, have_come: bool) {
        if !have_come {
            self.vain = (self.vain + 1).min(SKIPS_MAX_LOG);
            self.skips = 1 << self.vain;
        } else if self.has_paid {
            // Once does not tell: after flushes without a wait half of them are there already.
            self.vain = 0;
        }
        self.has_paid = have_come;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLUSH: Duration = Duration::from_millis(1);

    /// How many of so many flushes waits come before, where they end like this.
    fn waits(patience: &mut Patience, flushes: u32, have_come: impl Fn(u32) -> bool) -> u32 {
        let mut waits = 0;
        for _ in 0..flushes {
            if patience.after(FLUSH).is_some() {
                patience.learn(have_come(waits));
                waits += 1;
            }
        }
        waits
    }

    #[test]
    fn waits_that_pay_go_on_and_others_become_rare() {
        let mut patience = Patience::default();
        assert_eq!(waits(&mut patience, 1000, |_| true), 1000);
        let vain = waits(&mut patience, 1000, |_| false);
        assert!((15..25).contains(&vain), "{vain}");
        // Only every other one pays: that is no better than none.
        assert!(waits(&mut patience, 1000, |wait| wait % 2 == 0) < 40);
        // They do again: that is noticed within the longest pause.
        assert!(900 < waits(&mut patience, 1000, |_| true));
    }

    #[test]
    fn a_wait_is_as_long_as_a_flush_within_bounds() {
        let mut patience = Patience::default();
        for (flush, wait) in [(10, None), (200, Some(200)), (9000, Some(5000))] {
            let wait = wait.map(Duration::from_micros);
            assert_eq!(patience.after(Duration::from_micros(flush)), wait);
        }
    }
}

//! The 24 access bits of an entry: an LRU clock in seconds, or an LFU counter.

/// What the access bits of entries mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessPolicy {
    /// Seconds, modulo 2^24.
    Lru,
    /// 16 bits of minutes of the last decrement, 8 bits of logarithmic counter.
    Lfu {
        /// `lfu-log-factor`
        log_factor: u32,
        /// `lfu-decay-time` in minutes
        decay_minutes: u32,
    },
}

const MASK: u32 = (1 << 24) - 1;
/// The counter of a new key: it must survive long enough to be counted.
const LFU_START: u32 = 5;

/// The clock of one batch of commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessClock {
    policy: AccessPolicy,
    seconds: u32,
}

impl AccessClock {
    pub(crate) fn new(policy: AccessPolicy, now_ms: u64) -> Self {
        Self { policy, seconds: (now_ms / 1000) as u32 }
    }

    /// The bits of a new entry.
    pub(crate) fn fresh(self) -> u32 {
        match self.policy {
            AccessPolicy::Lru => self.seconds & MASK,
            AccessPolicy::Lfu { .. } => self.minutes() << 8 | LFU_START,
        }
    }

    /// The bits after one more access.
    #[inline]
    pub(crate) fn touched(self, bits: u32) -> u32 {
        match self.policy {
            AccessPolicy::Lru => self.seconds & MASK,
            AccessPolicy::Lfu { log_factor, decay_minutes } => {
                let counter = decayed(bits, self.minutes(), decay_minutes);
                let base = counter.saturating_sub(LFU_START);
                let odds = u64::from(base) * u64::from(log_factor) + 1;
                let grow = counter < 255 && fastrand::u64(0..odds) == 0;
                self.minutes() << 8 | (counter + u32::from(grow))
            }
        }
    }

    fn minutes(self) -> u32 {
        (self.seconds / 60) & 0xffff
    }
}

/// What a file says of the last use of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastUse {
    #[default]
    Unsaid,
    IdleSeconds(u64),
    Frequency(u8),
}

impl LastUse {
    /// The access bits of an entry of which this is said: those of a new one, if it is about the
    /// other policy.
    #[must_use]
    pub fn bits(self, policy: AccessPolicy, now_ms: u64) -> u32 {
        let clock = AccessClock::new(policy, now_ms);
        match (self, policy) {
            (Self::IdleSeconds(idle), AccessPolicy::Lru) => {
                let idle = idle.min(MASK.into()) as u32;
                clock.seconds.wrapping_sub(idle) & MASK
            }
            (Self::Frequency(frequency), AccessPolicy::Lfu { .. }) => {
                clock.minutes() << 8 | u32::from(frequency)
            }
            _ => clock.fresh(),
        }
    }
}

/// Seconds since the last access, of an entry under the LRU policy.
#[must_use]
pub fn idle_seconds(bits: u32, now_ms: u64) -> u32 {
    ((now_ms / 1000) as u32).wrapping_sub(bits) & MASK
}

/// The access counter of an entry under the LFU policy, decayed to now.
#[must_use]
pub fn frequency(bits: u32, now_ms: u64, decay_minutes: u32) -> u32 {
    decayed(bits, (now_ms / 60_000) as u32 & 0xffff, decay_minutes)
}

fn decayed(bits: u32, minutes: u32, decay_minutes: u32) -> u32 {
    let counter = bits & 0xff;
    if decay_minutes == 0 {
        return counter;
    }
    let elapsed = minutes.wrapping_sub(bits >> 8) & 0xffff;
    counter.saturating_sub(elapsed / decay_minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_survives_the_wrap_of_the_clock() {
        let before = AccessClock::new(AccessPolicy::Lru, ((1 << 24) - 5) * 1000).fresh();
        assert_eq!(idle_seconds(before, ((1 << 24) + 5) * 1000), 10);
    }

    #[test]
    fn the_last_use_survives_a_file() {
        let (lru, lfu) =
            (AccessPolicy::Lru, AccessPolicy::Lfu { log_factor: 10, decay_minutes: 1 });
        let now_ms = 1_700_000_000_000;
        assert_eq!(idle_seconds(LastUse::IdleSeconds(77).bits(lru, now_ms), now_ms), 77);
        assert_eq!(idle_seconds(LastUse::IdleSeconds(u64::MAX).bits(lru, now_ms), now_ms), MASK);
        assert_eq!(idle_seconds(LastUse::Frequency(9).bits(lru, now_ms), now_ms), 0);
        assert_eq!(frequency(LastUse::Frequency(200).bits(lfu, now_ms), now_ms, 1), 200);
        assert_eq!(frequency(LastUse::Unsaid.bits(lfu, now_ms), now_ms, 1), LFU_START);
    }

    #[test]
    fn the_counter_grows_with_use_and_decays_with_time() {
        let policy = AccessPolicy::Lfu { log_factor: 0, decay_minutes: 1 };
        let clock = AccessClock::new(policy, 600_000);
        let bits = (0..10).fold(clock.fresh(), |bits, _| clock.touched(bits));
        assert_eq!(frequency(bits, 600_000, 1), 15);
        assert_eq!(frequency(bits, 600_000 + 4 * 60_000, 1), 11);
        assert_eq!(frequency(bits, 600_000 + 4 * 60_000, 0), 15);
    }
}

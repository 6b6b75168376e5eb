//! The time as a reactor knows it: read once a turn, not once a command.
//!
//! Only the monotonic clock is read on the hot path. The time of day is that plus an offset, which
//! is measured anew at every tick, so that a clock that was set is followed within a tenth of a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A cached reading of both clocks. Its monotonic side never goes back.
#[derive(Clone, Debug)]
pub struct Clock {
    /// When it was made, by the monotonic clock.
    origin_ns: u64,
    monotonic_us: u64,
    wall_offset_us: u64,
}

impl Clock {
    pub fn new() -> Self {
        let mut clock = Self { origin_ns: monotonic_ns(), monotonic_us: 0, wall_offset_us: 0 };
        clock.synchronize();
        clock
    }

    /// Reads the clock: once a turn, and at most once a batch.
    #[inline]
    pub fn refresh(&mut self) {
        self.monotonic_us = self.elapsed_us();
    }

    /// Takes a reading of `elapsed_ns` that was made anyway for the present time.
    #[inline]
    pub fn advance_to(&mut self, elapsed_ns: u64) {
        self.monotonic_us = self.monotonic_us.max(elapsed_ns / 1000);
    }

    /// Reads the clock and follows the time of day where it was set meanwhile.
    pub fn synchronize(&mut self) {
        self.refresh();
        let wall_us = wall_us();
        self.wall_offset_us = wall_us.saturating_sub(self.monotonic_us);
    }

    /// Milliseconds since 1970, as of the last reading.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }

    /// Microseconds since 1970, as of the last reading.
    #[inline]
    pub fn now_us(&self) -> u64 {
        self.wall_offset_us + self.monotonic_us
    }

    /// Milliseconds since this clock was made, as of the last reading: for durations.
    #[inline]
    pub fn monotonic_ms(&self) -> u64 {
        self.monotonic_us / 1000
    }

    /// Microseconds since this clock was made, as of the last reading.
    #[inline]
    pub fn monotonic_us(&self) -> u64 {
        self.monotonic_us
    }

    /// Nanoseconds since this clock was made, read now: to time commands.
    #[inline]
    pub fn elapsed_ns(&self) -> u64 {
        monotonic_ns().saturating_sub(self.origin_ns)
    }

    /// Microseconds since this clock was made, read now: to time a single command.
    #[inline]
    pub fn elapsed_us(&self) -> u64 {
        self.elapsed_ns() / 1000
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// What the standard library's `Instant` reads too, but takes apart and puts together again.
#[inline]
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Milliseconds since 1970, read now: for what happens rarely and has no reactor's clock at hand.
pub fn wall_ms() -> u64 {
    wall_us() / 1000
}

/// Microseconds since 1970, read now.
pub fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// How long the machine runs, also while it slept: for what must not last longer than another machine believes.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (now.tv_sec.max(0) as u64, now.tv_nsec.max(0) as u64);
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_stands_still_between_readings_and_agrees_with_the_time_of_day() {
        let mut clock = Clock::new();
        let first = clock.now_us();
        assert_eq!(first, clock.now_us());
        assert!(first.abs_diff(wall_us()) < 1_000_000);
        std::thread::sleep(std::time::Duration::from_millis(2));
        clock.refresh();
        assert!(first + 1000 < clock.now_us());
        assert!(clock.monotonic_us() <= clock.elapsed_us());
    }
}

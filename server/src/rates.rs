//! How fast a database's figures grow: what INFO calls instantaneous.
//!
//! A sample is taken ten times a second, and the rate is the mean of the last 16.

use crate::database::{Counter, Stats};

const SAMPLES: usize = 16;
/// Time between two samples, at least.
const INTERVAL_MS: u64 = 100;
/// Weight of the latest share of expired keys in the running mean of all.
const STALE_WEIGHT: f64 = 0.05;

/// The rates of one database.
#[derive(Default)]
pub struct Rates {
    last_ms: u64,
    commands: Rate,
    input: Rate,
    output: Rate,
    turns: Rate,
    turn_time: Rate,
    /// Keys that the sweeps for expiry had looked at and removed at the last sample.
    swept: (u64, u64),
    stale_share: f64,
}

impl Rates {
    /// Takes a sample if it is time. `now_ms` is of a clock that never goes back.
    pub fn sample(&mut self, now_ms: u64, stats: &Stats, turns: &[Turns]) {
        let elapsed_ms = now_ms.saturating_sub(self.last_ms);
        if elapsed_ms < INTERVAL_MS {
            return;
        }
        self.last_ms = now_ms;
        self.commands.sample(stats.sum(|counters| &counters.commands_processed), elapsed_ms);
        self.input.sample(stats.sum(|counters| &counters.net_input_bytes), elapsed_ms);
        self.output.sample(stats.sum(|counters| &counters.net_output_bytes), elapsed_ms);
        let mean = |figure: fn(&Turns) -> &Counter| {
            turns.iter().map(|turns| figure(turns).value()).sum::<u64>() / turns.len().max(1) as u64
        };
        self.turns.sample(mean(|turns| &turns.count), elapsed_ms);
        self.turn_time.sample(mean(|turns| &turns.nanoseconds), elapsed_ms);

        let seen = stats.sum(|counters| &counters.sweep_seen);
        let removed = stats.sum(|counters| &counters.sweep_removed);
        let (seen_before, removed_before) = std::mem::replace(&mut self.swept, (seen, removed));
        let new = seen.saturating_sub(seen_before);
        if new != 0 {
            let share = removed.saturating_sub(removed_before) as f64 / new as f64;
            self.stale_share = share * STALE_WEIGHT + self.stale_share * (1.0 - STALE_WEIGHT);
        }
    }

    pub fn reset(&mut self) {
        *self = Self { last_ms: self.last_ms, ..Self::default() };
    }

    pub fn commands_per_second(&self) -> f64 {
        self.commands.mean()
    }

    pub fn input_bytes_per_second(&self) -> f64 {
        self.input.mean()
    }

    pub fn output_bytes_per_second(&self) -> f64 {
        self.output.mean()
    }

    /// Turns of a reactor.
    pub fn turns_per_second(&self) -> f64 {
        self.turns.mean()
    }

    /// How long a turn takes.
    pub fn turn_us(&self) -> f64 {
        self.turn_time.mean() / self.turns.mean().max(1.0) / 1000.0
    }

    /// About which share of the keys that can expire has done so unseen, from 0 to 1.
    pub fn stale_share(&self) -> f64 {
        self.stale_share
    }
}

/// What one reactor has counted of its turns. Only that reactor writes.
#[derive(Default)]
#[repr(align(128))]
pub struct Turns {
    pub count: Counter,
    /// How long they took, the wait for events aside.
    pub nanoseconds: Counter,
    pub nanoseconds_max: Counter,
    /// Of what is done by time.
    pub tick_nanoseconds: Counter,
    pub commands_max: Counter,
}

impl Turns {
    #[inline]
    pub fn add(&self, duration_ns: u64, commands: u64) {
        self.count.add(1);
        self.nanoseconds.add(duration_ns);
        self.nanoseconds_max.raise(duration_ns);
        self.commands_max.raise(commands);
    }

    pub fn reset(&self) {
        let Self { count, nanoseconds, nanoseconds_max, tick_nanoseconds, commands_max } = self;
        for counter in [count, nanoseconds, nanoseconds_max, tick_nanoseconds, commands_max] {
            counter.reset();
        }
    }
}

/// One figure's growth.
#[derive(Default)]
struct Rate {
    last: u64,
    samples: [f64; SAMPLES],
    next: usize,
}

impl Rate {
    fn sample(&mut self, value: u64, elapsed_ms: u64) {
        // A figure that was reset starts anew.
        let grown = value.saturating_sub(self.last);
        self.last = value;
        self.samples[self.next] = grown as f64 * 1000.0 / elapsed_ms as f64;
        self.next = (self.next + 1) % SAMPLES;
    }

    fn mean(&self) -> f64 {
        self.samples.iter().sum::<f64>() / SAMPLES as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_after_all_samples() {
        let stats = Stats::new(2, 0);
        let mut rates = Rates::default();
        for tick in 1..=40 {
            stats.of(0).commands_processed.add(30);
            stats.of(1).commands_processed.add(20);
            rates.sample(50 * tick, &stats, &[]);
        }
        assert_eq!(rates.commands_per_second(), 1000.0);
        assert_eq!(rates.input_bytes_per_second(), 0.0);
        rates.reset();
        assert_eq!(rates.commands_per_second(), 0.0);
    }

    #[test]
    fn turns_are_timed() {
        let (stats, turns) = (Stats::new(2, 0), [Turns::default(), Turns::default()]);
        let mut rates = Rates::default();
        for tick in 1..=16 {
            turns[0].add(3_000, 5);
            turns[1].add(5_000, 2);
            rates.sample(100 * tick, &stats, &turns);
        }
        assert_eq!((rates.turns_per_second(), rates.turn_us()), (10.0, 4.0));
        assert_eq!((turns[0].commands_max.value(), turns[1].nanoseconds_max.value()), (5, 5_000));
        turns[0].reset();
        assert_eq!(turns[0].count.value(), 0);
    }

    #[test]
    fn the_share_of_stale_keys_is_a_running_mean() {
        let stats = Stats::new(1, 0);
        let mut rates = Rates::default();
        stats.of(0).sweep_seen.add(100);
        stats.of(0).sweep_removed.add(100);
        rates.sample(100, &stats, &[]);
        assert_eq!(rates.stale_share(), STALE_WEIGHT);
        rates.sample(200, &stats, &[]);
        assert_eq!(rates.stale_share(), STALE_WEIGHT, "nothing new was looked at");
    }
}

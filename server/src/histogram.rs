//! How long the runs of a command took: a log-linear histogram with one writer and any number of readers.
//!
//! A step is a 32nd of its power of two, so a figure is right to about three percent. Nothing is
//! allocated for a command that never runs.

use std::sync::OnceLock;

use crate::database::Counter;

/// Steps in a power of two, as a power of two.
const STEP_BITS: u32 = 5;
const STEPS: usize = 1 << STEP_BITS;
/// Below this each nanosecond has its own step.
const EXACT: u64 = 2 << STEP_BITS;
/// Whatever takes a second or more is counted as that.
const MAX_NS: u64 = (1 << 30) - 1;
const LEN: usize = EXACT as usize + (30 - STEP_BITS as usize - 1) * STEPS;

#[derive(Default)]
pub struct Histogram(OnceLock<Box<[Counter]>>);

impl Histogram {
    /// Counts `weight` runs of this duration.
    #[inline]
    pub fn add(&self, ns: u64, weight: u64) {
        let counters = self.0.get_or_init(|| (0..LEN).map(|_| Counter::default()).collect());
        counters[step_of(ns)].add(weight);
    }

    pub fn reset(&self) {
        self.0.get().into_iter().flatten().for_each(Counter::reset);
    }
}

fn step_of(ns: u64) -> usize {
    let ns = ns.min(MAX_NS);
    if ns < EXACT {
        return ns as usize;
    }
    let power = ns.ilog2();
    let step = (ns >> (power - STEP_BITS)) as usize & (STEPS - 1);
    EXACT as usize + (power - STEP_BITS - 1) as usize * STEPS + step
}

/// The longest duration that a step stands for.
fn highest_ns(step: usize) -> u64 {
    if step < EXACT as usize {
        return step as u64;
    }
    let (octave, step) = ((step - EXACT as usize) / STEPS, (step - EXACT as usize) % STEPS);
    let width = 2u64 << octave;
    (STEPS as u64 + step as u64 + 1) * width - 1
}

/// The histograms of all reactors, added up.
pub struct Distribution {
    counts: Box<[u64]>,
    total: u64,
}

impl Distribution {
    pub fn of<'h>(histograms: impl Iterator<Item = &'h Histogram>) -> Self {
        let mut counts = vec![0u64; LEN].into_boxed_slice();
        for counters in histograms.filter_map(|histogram| histogram.0.get()) {
            for (count, counter) in counts.iter_mut().zip(counters) {
                *count += counter.value();
            }
        }
        let total = counts.iter().sum();
        Self { counts, total }
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The duration that so many percent of the runs did not exceed.
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        let wanted = ((percent / 100.0 * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (step, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count != 0 && wanted <= seen {
                return highest_ns(step);
            }
        }
        MAX_NS
    }

    /// Microseconds and how many of `calls` runs took no longer, for the powers of two between which
    /// there are some. The counts are estimates: cheap commands are timed one time in sixteen.
    pub fn cumulative(&self, calls: u64) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        let (mut step, mut seen, mut last) = (0, 0, 0);
        for power in 10.. {
            // As HdrHistogram has it with two digits.
            let bound_ns = (1u64 << power) + (1 << (power - 7)) - 1;
            while step < LEN && highest_ns(step) >> STEP_BITS << STEP_BITS <= bound_ns {
                seen += self.counts[step];
                step += 1;
            }
            let share =
                (u128::from(calls) * u128::from(seen) / u128::from(self.total.max(1))) as u64;
            if last < share {
                found.push((bound_ns / 1000, share));
                last = share;
            }
            if step == LEN {
                return found;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_all_durations_in_order() {
        let mut last = 0;
        for ns in (0..5000).chain((0..200_000).map(|i| i * 5003)) {
            let step = step_of(ns);
            assert!(ns.min(MAX_NS) <= highest_ns(step), "{ns}");
            assert!(step == 0 || highest_ns(step - 1) < ns.min(MAX_NS), "{ns}");
            assert!(ns < 5000 || last <= step || ns == 0);
            last = step;
        }
        assert_eq!(highest_ns(LEN - 1), MAX_NS);
        assert_eq!(step_of(u64::MAX), LEN - 1);
    }

    #[test]
    fn percentiles_and_sums_are_right_to_a_few_percent() {
        let (one, other) = (Histogram::default(), Histogram::default());
        for us in 1..=1000 {
            if us % 2 == 0 { &one } else { &other }.add(us * 1000, 3);
        }
        let all = Distribution::of([&one, &other, &Histogram::default()].into_iter());
        for (percent, us) in [(50.0, 500.0), (99.0, 990.0), (100.0, 1000.0)] {
            let found = all.percentile_ns(percent) as f64 / 1000.0;
            assert!((found / us - 1.0).abs() < 0.04, "{percent}: {found}");
        }
        let sums = all.cumulative(1000);
        assert_eq!((sums[0].0, sums.last().copied()), (1, Some((1056, 1000))));
        assert!(sums.is_sorted());
        one.reset();
        other.reset();
        assert!(Distribution::of([&one, &other].into_iter()).is_empty());
    }
}

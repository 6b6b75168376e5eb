//! A bound on lines in the log that strangers can bring about, however many connections they make.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines in a period; what there is beyond them is counted and told with the next.
const LINES_MAX: u32 = 20;

const PERIOD: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Throttle {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Throttle {
    /// Whether a line may be written now; then how many have not been since the last.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.since.is_none_or(|since| since + PERIOD <= now) {
            (state.since, state.lines) = (Some(now), 0);
        }
        if state.lines == LINES_MAX {
            state.left_out += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_period_and_the_rest_is_counted() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..LINES_MAX {
            assert_eq!(throttle.admit(now), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(throttle.admit(now), None);
        }
        assert_eq!(throttle.admit(now + PERIOD), Some(7));
        assert_eq!(throttle.admit(now + PERIOD), Some(0));
    }
}

//! Replies as long as the client likes: members at random, of which the same may come again.

use crate::call::Call;
use crate::error::CommandError;

/// By the average of so many members the length of all is known well enough.
const ENOUGH: usize = 1024;

/// Looks after such a reply while it grows, so that nobody else waits for what will not be sent.
pub(crate) struct Lengthy {
    start: usize,
    asked: usize,
    written: usize,
    /// `proto-max-bulk-len`: memory is not to be had by the count alone.
    longest: usize,
    /// What the client is closed for (see [`Call::output_max`]).
    output_max: usize,
    is_refused: bool,
}

impl Lengthy {
    pub fn new(call: &Call<'_>, asked: usize) -> Self {
        let (longest, output_max) = (call.limits().max_string, call.output_max);
        Self { start: call.reply.len(), asked, written: 0, longest, output_max, is_refused: false }
    }

    /// Notes one more of those that were asked for, with which the output has this length. Whether
    /// there is to be another.
    pub fn goes_on(&mut self, output_len: usize) -> bool {
        self.written += 1;
        let bytes = output_len - self.start;
        if self.output_max <= bytes {
            return false;
        }
        self.is_refused = self.longest < bytes
            || self.written == ENOUGH
                && self.longest < self.output_max
                && self.longest < (bytes / ENOUGH).saturating_mul(self.asked) / 2;
        !self.is_refused
    }

    /// What comes of it: all, a reply that cannot be, or the beginning of one for which the client is
    /// closed.
    pub fn finish(self) -> Result<(), CommandError> {
        if self.is_refused {
            return Err(CommandError::text(
                "ERR the reply would be longer than proto-max-bulk-len",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    const PICKS: [&str; 4] =
        ["SRANDMEMBER s -", "HRANDFIELD h -", "ZRANDMEMBER z -", "SRANDMEMBER large -"];

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.environment.limits.max_string = 100_000;
        for request in ["SADD s a b", "HSET h a 1 b 2", "ZADD z 1 a 2 b"] {
            bench.expect(request, ":2");
        }
        for member in 0..1000 {
            bench.reply(&format!("SADD large {member}"));
        }
        bench
    }

    #[test]
    fn what_fits_is_given_whole() {
        let mut bench = bench();
        for pick in PICKS {
            let reply = bench.reply(&format!("{pick}10000"));
            assert!(reply.starts_with("*10000\r\n"), "{pick}");
            assert_eq!(reply.matches('$').count(), 10_000);
        }
    }

    #[test]
    fn what_cannot_fit_is_refused() {
        let mut bench = bench();
        for pick in PICKS {
            for count in ["20000", "4611686018427387904"] {
                bench.expect(
                    &format!("{pick}{count}"),
                    "-ERR the reply would be longer than proto-max-bulk-len",
                );
            }
        }
    }

    #[test]
    fn it_ends_where_the_client_is_closed() {
        let mut bench = bench();
        bench.output_max = 5000;
        for pick in PICKS {
            let reply = bench.reply(&format!("{pick}4611686018427387904"));
            assert!((5000..5100).contains(&reply.len()), "{pick}: {}", reply.len());
        }
    }
}

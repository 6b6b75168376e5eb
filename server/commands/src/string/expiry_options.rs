//! The expiry options of SET, GETEX and their kin: read first as words, resolved to a time later.
//!
//! Redis tells of a malformed request before it looks at the amounts, and GETEX looks at the key in
//! between: an option keeps its amount as it came until `resolve`.

use carnelian_keyspace::Expiry;

use crate::args;
use crate::error::CommandError;

/// EX, PX, EXAT, PXAT: how an expiry is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeUnit {
    /// From now.
    Seconds,
    /// From now.
    Milliseconds,
    /// Of the Unix epoch.
    AtSeconds,
    /// Of the Unix epoch.
    AtMilliseconds,
}

impl TimeUnit {
    pub(crate) fn of(word: &[u8]) -> Option<Self> {
        match word.len() {
            2 if args::is(word, "EX") => Some(Self::Seconds),
            2 if args::is(word, "PX") => Some(Self::Milliseconds),
            4 if args::is(word, "EXAT") => Some(Self::AtSeconds),
            4 if args::is(word, "PXAT") => Some(Self::AtMilliseconds),
            _ => None,
        }
    }

    /// Whether it names a moment, rather than a time from now.
    pub(crate) const fn is_absolute(self) -> bool {
        matches!(self, Self::AtSeconds | Self::AtMilliseconds)
    }

    /// The moment in milliseconds of the Unix epoch (before it, if negative); `None` on overflow.
    pub(crate) fn moment(self, amount: i64, now_ms: u64) -> Option<i64> {
        let ms = match self {
            Self::Seconds | Self::AtSeconds => amount.checked_mul(1000)?,
            Self::Milliseconds | Self::AtMilliseconds => amount,
        };
        let base = if self.is_absolute() { 0 } else { i64::try_from(now_ms).ok()? };
        ms.checked_add(base)
    }

    /// The moment an amount names, for commands (`command`, in lower case) that refuse amounts
    /// which are not positive.
    pub(crate) fn positive_moment(
        self,
        amount: &[u8],
        now_ms: u64,
        command: &'static str,
    ) -> Result<u64, CommandError> {
        let amount = args::integer(amount)?;
        let moment = if 0 < amount { self.moment(amount, now_ms) } else { None };
        moment
            .and_then(|moment| u64::try_from(moment).ok())
            .ok_or(CommandError::InvalidExpire(command))
    }
}

/// What a request says of the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpiryOption<'a> {
    Unsaid,
    /// KEEPTTL
    Keep,
    /// PERSIST
    Persist,
    At(TimeUnit, &'a [u8]),
}

impl<'a> ExpiryOption<'a> {
    /// Reads `word` and, if it takes one, its amount from `rest`. `Ok(false)` if it is no expiry
    /// option; a syntax error if it contradicts an earlier one or its amount is missing. The same
    /// option may come again: the last one counts.
    pub(crate) fn take<'w>(
        &mut self,
        word: &[u8],
        rest: &mut impl Iterator<Item = &'w &'a [u8]>,
    ) -> Result<bool, CommandError>
    where
        'a: 'w,
    {
        let (next, agrees) = if let Some(unit) = TimeUnit::of(word) {
            let amount = rest.next().ok_or(CommandError::Syntax)?;
            let agrees = matches!(self, Self::At(earlier, _) if *earlier == unit);
            (Self::At(unit, amount), agrees)
        } else if args::is(word, "KEEPTTL") {
            (Self::Keep, *self == Self::Keep)
        } else if args::is(word, "PERSIST") {
            (Self::Persist, *self == Self::Persist)
        } else {
            return Ok(false);
        };
        if *self != Self::Unsaid && !agrees {
            return Err(CommandError::Syntax);
        }
        *self = next;
        Ok(true)
    }

    /// What a write does to the expiry of the key.
    pub(crate) fn resolve(
        self,
        now_ms: u64,
        command: &'static str,
    ) -> Result<Expiry, CommandError> {
        Ok(match self {
            Self::Unsaid | Self::Persist => Expiry::Clear,
            Self::Keep => Expiry::Keep,
            Self::At(unit, amount) => Expiry::At(unit.positive_moment(amount, now_ms, command)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<ExpiryOption<'_>, CommandError> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let mut option = ExpiryOption::Unsaid;
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            assert!(option.take(word, &mut rest)?, "an expiry option");
        }
        Ok(option)
    }

    #[test]
    fn options_may_repeat_but_not_contradict() {
        assert_eq!(parse("ex 1 EX 2"), Ok(ExpiryOption::At(TimeUnit::Seconds, b"2")));
        assert_eq!(parse("keepttl KEEPTTL"), Ok(ExpiryOption::Keep));
        for words in ["EX 1 PX 1", "KEEPTTL EX 1", "PXAT 1 KEEPTTL", "PERSIST EXAT 1", "EX"] {
            assert_eq!(parse(words), Err(CommandError::Syntax), "{words}");
        }
    }

    #[test]
    fn moments_that_overflow_or_are_not_positive_are_refused() {
        let invalid = Err(CommandError::InvalidExpire("set"));
        for (words, expected) in [
            ("EX 1", Ok(Expiry::At(6000))),
            ("PX 1", Ok(Expiry::At(5001))),
            ("EXAT 1", Ok(Expiry::At(1000))),
            ("PXAT 9223372036854775807", Ok(Expiry::At(i64::MAX as u64))),
            ("PX 9223372036854775807", invalid.clone()),
            ("EX 9223372036854775", invalid.clone()),
            ("EXAT 9223372036854776", invalid.clone()),
            ("EX 0", invalid.clone()),
            ("PXAT -1", invalid),
            ("EX x", Err(CommandError::NotAnInteger)),
        ] {
            assert_eq!(parse(words).and_then(|option| option.resolve(5000, "set")), expected);
        }
        assert_eq!(TimeUnit::Seconds.moment(-10, 5000), Some(-5000));
    }
}

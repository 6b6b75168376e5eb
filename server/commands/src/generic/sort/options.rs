//! The options of SORT.

use std::ops::Range;

use super::pattern::Lookup;
use crate::args;
use crate::error::CommandError;

/// What elements are sorted by.
pub(super) enum By<'w> {
    Element,
    Lookup(Lookup<'w>),
    /// A pattern without a star: the elements keep the order they have.
    Nothing,
}

pub(super) struct Options<'w> {
    pub(super) by: By<'w>,
    pub(super) alpha: bool,
    pub(super) descending: bool,
    offset: i64,
    /// All, if negative.
    count: i64,
    pub(super) get: Vec<Lookup<'w>>,
    pub(super) store: Option<&'w [u8]>,
}

impl<'w> Options<'w> {
    /// `may_store`: whether STORE is known.
    pub(super) fn parse(words: &[&'w [u8]], may_store: bool) -> Result<Self, CommandError> {
        let mut options = Self {
            by: By::Element,
            alpha: false,
            descending: false,
            offset: 0,
            count: -1,
            get: Vec::new(),
            store: None,
        };
        let mut words = words.iter();
        let mut next = || words.next().copied();
        while let Some(word) = next() {
            let mut value = || next().ok_or(CommandError::Syntax);
            if args::is(word, "ASC") {
                options.descending = false;
            } else if args::is(word, "DESC") {
                options.descending = true;
            } else if args::is(word, "ALPHA") {
                options.alpha = true;
            } else if args::is(word, "LIMIT") {
                let (offset, count) = (value()?, value()?);
                options.offset = args::integer(offset)?;
                options.count = args::integer(count)?;
            } else if args::is(word, "STORE") && may_store {
                options.store = Some(value()?);
            } else if args::is(word, "BY") {
                let pattern = value()?;
                // As in Redis, one pattern without a star settles it, whatever comes after.
                if !pattern.contains(&b'*') {
                    options.by = By::Nothing;
                } else if !matches!(options.by, By::Nothing) {
                    options.by = By::Lookup(Lookup::parse(pattern));
                }
            } else if args::is(word, "GET") {
                options.get.push(Lookup::parse(value()?));
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// What LIMIT leaves of `len` elements.
    pub(super) fn range(&self, len: usize) -> Range<usize> {
        let start = usize::try_from(self.offset.max(0)).unwrap_or(usize::MAX).min(len);
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        start..start.saturating_add(count).min(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Range<usize>, CommandError> {
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        Options::parse(&words, true).map(|options| options.range(10))
    }

    #[test]
    fn limits_are_cut_to_what_is_there() {
        assert_eq!(parse("ASC"), Ok(0..10));
        assert_eq!(parse("LIMIT 2 3"), Ok(2..5));
        assert_eq!(parse("LIMIT -7 3"), Ok(0..3));
        assert_eq!(parse("LIMIT 8 -7"), Ok(8..10));
        assert_eq!(parse("LIMIT 20 3"), Ok(10..10));
        assert_eq!(parse("LIMIT 9223372036854775807 9223372036854775807"), Ok(10..10));
        assert_eq!(parse("LIMIT 3 9223372036854775807"), Ok(3..10));
        assert_eq!(parse("LIMIT 3 0"), Ok(3..3));
    }

    #[test]
    fn bad_options_are_refused() {
        for text in ["FOO", "BY", "GET", "STORE", "LIMIT", "LIMIT 1", "ASC STORE"] {
            assert_eq!(parse(text), Err(CommandError::Syntax), "{text}");
        }
        assert_eq!(parse("LIMIT x 1"), Err(CommandError::NotAnInteger));
        assert_eq!(parse("LIMIT 1 x"), Err(CommandError::NotAnInteger));
        let words: [&[u8]; 2] = [b"STORE", b"k"];
        assert_eq!(Options::parse(&words, false).err(), Some(CommandError::Syntax));
    }
}

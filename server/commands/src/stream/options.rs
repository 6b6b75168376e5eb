//! The options that XADD and XTRIM share.

use carnelian_structs::stream::{BlockLimits, Keep, NewId, Precision, Stream, StreamId};

use super::{id, refused_id};
use crate::args;
use crate::error::CommandError;

/// What to trim a stream to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trim {
    pub(super) keep: Keep,
    pub(super) precision: Precision,
}

impl Trim {
    /// Trims, and returns how many entries went.
    pub(super) fn apply(self, stream: &mut Stream) -> u64 {
        stream.trim(self.keep, self.precision)
    }

    pub(super) fn is_approximate(self) -> bool {
        self.precision != Precision::Exact
    }

    /// The words by which a replica comes to the same entries as `stream`, which was trimmed,
    /// now has. Blocks may end elsewhere there, so what was approximate is made exact.
    pub(super) fn replayed(self, stream: &Stream) -> [Vec<u8>; 3] {
        let keep = match self.keep {
            keep if self.precision == Precision::Exact => keep,
            Keep::Newest(_) => Keep::Newest(stream.len()),
            Keep::From(_) if stream.is_empty() => Keep::From(StreamId::MAX),
            Keep::From(_) => Keep::From(stream.first_id()),
        };
        let (strategy, threshold) = match keep {
            Keep::Newest(count) => ("MAXLEN", count.to_string()),
            Keep::From(id) => ("MINID", id.to_string()),
        };
        [strategy.into(), b"=".to_vec(), threshold.into()]
    }
}

/// The words after the key.
pub(super) struct Options {
    pub(super) make: bool,
    pub(super) trim: Option<Trim>,
    /// Of XADD: the ID and the index of the word after it; `None` if there is none.
    pub(super) id: Option<(NewId, usize)>,
}

/// Which command the options are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Add,
    Trim,
}

impl Options {
    /// Reads the words of a whole request.
    pub(super) fn parse(
        words: &[&[u8]],
        command: For,
        limits: BlockLimits,
    ) -> Result<Self, CommandError> {
        let mut options = Self { make: true, trim: None, id: None };
        let (mut keep, mut approximate, mut limit) = (None, false, None);
        let mut index = 2;
        while index < words.len() {
            let word = words[index];
            let more = words.len() - 1 - index;
            if command == For::Add && word == b"*" {
                options.id = Some((NewId::Auto, index + 1));
                break;
            }
            let is_maxlen = args::is(word, "MAXLEN");
            if (is_maxlen || args::is(word, "MINID")) && 0 < more {
                if keep.is_some() {
                    return Err(CommandError::text(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not \
                         compatible",
                    ));
                }
                index += 1;
                if 2 <= more && matches!(words[index], b"~" | b"=") {
                    approximate = words[index] == b"~";
                    index += 1;
                }
                keep = Some(match is_maxlen {
                    true => Keep::Newest(count(words[index], "MAXLEN")?),
                    false => Keep::From(id(words[index])?),
                });
            } else if args::is(word, "LIMIT") && 0 < more {
                index += 1;
                limit = Some(count(words[index], "LIMIT")?);
            } else if command == For::Trim {
                return Err(CommandError::Syntax);
            } else if args::is(word, "NOMKSTREAM") {
                options.make = false;
            } else {
                options.id = Some((NewId::parse(word).map_err(refused_id)?, index + 1));
                break;
            }
            index += 1;
        }
        if keep.is_none() && limit.is_some_and(|limit| limit != 0) {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        if keep.is_none() && command == For::Trim {
            return Err(CommandError::text(
                "ERR syntax error, XTRIM must be called with a trimming strategy",
            ));
        }
        if limit.is_some() && !approximate {
            return Err(CommandError::text(
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ));
        }
        let precision = if approximate {
            Precision::Approximate { limit: limit.unwrap_or_else(|| limits.default_trim_limit()) }
        } else {
            Precision::Exact
        };
        options.trim = keep.map(|keep| Trim { keep, precision });
        Ok(options)
    }
}

fn count(word: &[u8], option: &str) -> Result<u64, CommandError> {
    let count = args::integer(word)?;
    let negative = |_| CommandError::text(format!("ERR The {option} argument must be >= 0."));
    u64::try_from(count).map_err(negative)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(request: &str) -> Result<Options, CommandError> {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let command = if words[0] == b"XADD" { For::Add } else { For::Trim };
        Options::parse(&words, command, BlockLimits::default())
    }

    #[test]
    fn options_become_what_they_mean() {
        let options = parse("XADD k NOMKSTREAM MAXLEN ~ 5 LIMIT 7 3-* a b").expect("well formed");
        assert!(!options.make);
        assert_eq!(options.id, Some((NewId::AutoSequence(3), 9)));
        let precision = Precision::Approximate { limit: 7 };
        assert_eq!(options.trim, Some(Trim { keep: Keep::Newest(5), precision }));

        let options = parse("XTRIM k minid = 5").expect("well formed");
        let keep = Keep::From(StreamId::new(5, 0));
        assert_eq!(options.trim, Some(Trim { keep, precision: Precision::Exact }));

        let options = parse("XTRIM k MAXLEN ~ 5").expect("well formed");
        let precision = Precision::Approximate { limit: 10_000 };
        assert_eq!(options.trim, Some(Trim { keep: Keep::Newest(5), precision }));
        assert!(parse("XADD k MAXLEN 1").expect("no ID is no error here").id.is_none());
    }

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        for (request, error) in [
            (
                "XADD k MAXLEN 5 MINID 3 * a 1",
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ),
            ("XADD k MAXLEN -1 * a 1", "ERR The MAXLEN argument must be >= 0."),
            ("XADD k MAXLEN x * a 1", "ERR value is not an integer or out of range"),
            ("XADD k MAXLEN ~ * a 1", "ERR value is not an integer or out of range"),
            ("XADD k MAXLEN ~ 5 LIMIT -1 * a 1", "ERR The LIMIT argument must be >= 0."),
            (
                "XADD k MAXLEN 5 LIMIT 1 * a 1",
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ),
            (
                "XADD k LIMIT 1 * a 1",
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ),
            (
                "XADD k LIMIT 0 * a 1",
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ),
            ("XADD k MINID x * a 1", "ERR Invalid stream ID specified as stream command argument"),
            ("XADD k foo a 1", "ERR Invalid stream ID specified as stream command argument"),
            ("XTRIM k FOO 1", "ERR syntax error"),
            ("XTRIM k NOMKSTREAM 1", "ERR syntax error"),
            (
                "XTRIM k LIMIT 1",
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ),
            ("XTRIM k LIMIT 0", "ERR syntax error, XTRIM must be called with a trimming strategy"),
        ] {
            let got = parse(request).err().map(|error| error.to_string());
            assert_eq!(got.as_deref(), Some(error), "for {request}");
        }
    }
}

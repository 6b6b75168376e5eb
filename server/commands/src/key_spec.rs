//! Where the keys of a command are, as Redis 7's key specifications say it.

use bitflags::bitflags;

bitflags! {
    /// What a command does to the keys of one specification.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KeyFlags: u16 {
        const RO = 1;
        const RW = 1 << 1;
        const OW = 1 << 2;
        const RM = 1 << 3;
        const ACCESS = 1 << 4;
        const UPDATE = 1 << 5;
        const INSERT = 1 << 6;
        const DELETE = 1 << 7;
        const NOT_KEY = 1 << 8;
        const INCOMPLETE = 1 << 9;
        const VARIABLE_FLAGS = 1 << 10;
    }
}

impl KeyFlags {
    /// The words COMMAND uses.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        const NAMES: &[(KeyFlags, &str)] = &[
            (KeyFlags::RO, "RO"),
            (KeyFlags::RW, "RW"),
            (KeyFlags::OW, "OW"),
            (KeyFlags::RM, "RM"),
            (KeyFlags::ACCESS, "access"),
            (KeyFlags::UPDATE, "update"),
            (KeyFlags::INSERT, "insert"),
            (KeyFlags::DELETE, "delete"),
            (KeyFlags::NOT_KEY, "not_key"),
            (KeyFlags::INCOMPLETE, "incomplete"),
            (KeyFlags::VARIABLE_FLAGS, "variable_flags"),
        ];
        NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| *name)
    }
}

/// Where a specification's keys begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this word.
    Index(usize),
    /// After a keyword, searched from this word on (from the end, if negative).
    Keyword {
        keyword: &'static str,
        from: i32,
    },
    Unknown,
}

/// Which words from there on are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// To `last` (relative to the beginning; from the end, if negative), every `step` words. With
    /// `last` -1, a `limit` of 2 or more means only the first `1/limit` of the words.
    Range {
        last: i32,
        step: usize,
        limit: usize,
    },
    /// As many as the word at `count` says, from `first` on; both relative to the beginning.
    Count {
        count: usize,
        first: usize,
        step: usize,
    },
    Unknown,
}

/// One specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    pub flags: KeyFlags,
    pub begin: Begin,
    pub find: Find,
}

impl KeySpec {
    /// The usual one: a range from a fixed word.
    #[must_use]
    pub const fn range(flags: KeyFlags, index: usize, last: i32, step: usize) -> Self {
        Self { flags, begin: Begin::Index(index), find: Find::Range { last, step, limit: 0 } }
    }

    /// As many keys as word `index` says, right after it.
    #[must_use]
    pub const fn counted(flags: KeyFlags, index: usize) -> Self {
        Self {
            flags,
            begin: Begin::Index(index),
            find: Find::Count { count: 0, first: 1, step: 1 },
        }
    }
}

/// The request's keys cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError;

/// What Redis makes of a number of keys that the command itself would refuse: the digits it begins with.
#[cold]
fn loose_count(word: &[u8]) -> Option<i64> {
    let word = word.trim_ascii_start();
    let word = word.strip_prefix(b"+").unwrap_or(word);
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    carnelian_resp::number::parse_i64(&word[..digits]).filter(|number| *number > 0)
}

/// Calls `found` with the index of every key (and what is done to it). Specifications that need
/// knowledge of the command ("unknown") are skipped; so are words that are keys only in name.
pub fn key_positions(
    specs: &[KeySpec],
    words: &[&[u8]],
    mut found: impl FnMut(usize, KeyFlags),
) -> Result<(), KeyError> {
    for spec in specs {
        if spec.flags.contains(KeyFlags::NOT_KEY) {
            continue;
        }
        let Some(begin) = begin_of(spec.begin, words) else { continue };
        match spec.find {
            Find::Unknown => {}
            Find::Range { last, step, limit } => {
                if words.len() <= begin {
                    return Err(KeyError);
                }
                let end = match usize::try_from(last) {
                    Ok(offset) => begin + offset,
                    Err(_) if 2 <= limit && last == -1 => begin + (words.len() - begin) / limit - 1,
                    Err(_) => words.len().checked_add_signed(last as isize).ok_or(KeyError)?,
                };
                if words.len() <= end {
                    return Err(KeyError);
                }
                (begin..=end).step_by(step.max(1)).for_each(|index| found(index, spec.flags));
            }
            Find::Count { count, first, step } => {
                let number = words.get(begin + count).ok_or(KeyError)?;
                let number = carnelian_resp::number::parse_i64(number)
                    .or_else(|| loose_count(number))
                    .ok_or(KeyError)?;
                let number = usize::try_from(number).map_err(|_| KeyError)?;
                if words.len() < number
                    || words.len() < begin + first + number.saturating_sub(1) * step + 1
                {
                    if number != 0 {
                        return Err(KeyError);
                    }
                    continue;
                }
                (0..number).for_each(|nth| found(begin + first + nth * step, spec.flags));
            }
        }
    }
    Ok(())
}

fn begin_of(begin: Begin, words: &[&[u8]]) -> Option<usize> {
    match begin {
        Begin::Index(index) => Some(index),
        Begin::Unknown => None,
        Begin::Keyword { keyword, from } => {
            let matches = |index: &usize| words[*index].eq_ignore_ascii_case(keyword.as_bytes());
            let position = match usize::try_from(from) {
                Ok(from) => (from..words.len().saturating_sub(1)).find(matches),
                Err(_) => {
                    let last = words.len().checked_add_signed(from as isize)?;
                    (1..=last).rev().find(matches)
                }
            };
            position.map(|index| index + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(specs: &[KeySpec], request: &str) -> Result<Vec<usize>, KeyError> {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let mut found = Vec::new();
        key_positions(specs, &words, |index, _| found.push(index))?;
        Ok(found)
    }

    #[test]
    fn ranges_counts_and_keywords_find_their_keys() {
        let mset = [KeySpec::range(KeyFlags::OW, 1, -1, 2)];
        assert_eq!(positions(&mset, "MSET a 1 b 2"), Ok(vec![1, 3]));
        let store = [KeySpec::range(KeyFlags::OW, 1, 0, 1), KeySpec::counted(KeyFlags::RO, 2)];
        assert_eq!(positions(&store, "ZUNIONSTORE d 2 a b WEIGHTS 1 2"), Ok(vec![1, 3, 4]));
        assert_eq!(positions(&store, "ZUNIONSTORE d 9 a b"), Err(KeyError));
        assert_eq!(positions(&store, "ZUNIONSTORE d -1 a b"), Err(KeyError));
        let xread = [KeySpec {
            flags: KeyFlags::RO,
            begin: Begin::Keyword { keyword: "STREAMS", from: 1 },
            find: Find::Range { last: -1, step: 1, limit: 2 },
        }];
        assert_eq!(positions(&xread, "XREAD COUNT 1 STREAMS a b 0 0"), Ok(vec![4, 5]));
    }
}

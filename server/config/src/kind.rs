//! What a directive takes, with its limits: reading numbers, sizes and words, and the error texts.

use std::borrow::Cow;

/// Why a value was refused, in the words Redis uses.
pub type Reason = Cow<'static, str>;

/// A further condition on a text.
pub type Check = fn(&str) -> Result<(), &'static str>;

pub(crate) const WRONG_COUNT: &str = "wrong number of arguments";

/// What a directive takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// A whole number.
    Integer { min: i64, max: i64 },
    /// File permissions, in octal digits.
    Octal { max: u32 },
    /// A number of bytes, with an optional unit.
    Memory { min: i64, max: u64 },
    /// A number of bytes, or a percentage of the memory limit.
    MemoryOrPercent,
    /// One of some words.
    Word(&'static [&'static str]),
    /// Several of some words.
    Flags(&'static [&'static str]),
    /// Text, if the check agrees.
    Text(Check),
    /// Any bytes; never shown in logs.
    Secret,
    /// The path of a file, relative to the working folder.
    Path,
    /// An existing folder, kept as an absolute path.
    Folder,
    /// Several texts, if the check agrees to each.
    Words { most: usize, too_many: &'static str, check: Check },
    /// Pairs of seconds and changes.
    SavePoints,
    /// Groups of client class, hard limit, soft limit and seconds.
    OutputLimits,
    /// Letters for classes of key-space events.
    KeyspaceEvents,
    /// Three scores: primary, replica, child.
    OomScores,
    /// Numbers from 0 to 100.
    Percentiles,
    /// Host and port, or `no one`.
    ReplicaOf,
}

impl Kind {
    /// Whether the value is a list: several words on a line, or one with blanks inside.
    pub fn is_list(&self) -> bool {
        matches!(
            self,
            Self::Flags(_)
                | Self::Words { .. }
                | Self::SavePoints
                | Self::OutputLimits
                | Self::OomScores
                | Self::Percentiles
                | Self::ReplicaOf
        )
    }

    /// A word read as a number of this kind, within its limits.
    pub(crate) fn number(&self, word: &[u8]) -> Result<i128, Reason> {
        let parsed = match self {
            Self::Octal { .. } => octal(word),
            Self::Memory { min, .. } => match strict_integer(word) {
                Some(number) if *min < 0 && number < 0 => Some(number.into()),
                _ => memory(word),
            },
            _ => strict_integer(word).map(i128::from),
        };
        let Some(number) = parsed else {
            return Err(Reason::Borrowed(match self {
                Self::Octal { .. } => "argument couldn't be parsed as an octal number",
                Self::Memory { .. } => "argument must be a memory value",
                _ => "argument couldn't be parsed into an integer",
            }));
        };
        let (min, max) = self.limits();
        if (min..=max).contains(&number) { Ok(number) } else { Err(self.out_of_limits()) }
    }

    pub(crate) fn out_of_limits(&self) -> Reason {
        let (min, max) = self.limits();
        match self {
            Self::Octal { .. } => format!("argument must be between {min:o} and {max:o} inclusive"),
            _ => format!("argument must be between {min} and {max} inclusive"),
        }
        .into()
    }

    fn limits(&self) -> (i128, i128) {
        match self {
            Self::Integer { min, max } => ((*min).into(), (*max).into()),
            Self::Octal { max } => (0, (*max).into()),
            Self::Memory { min, max } => ((*min).into(), (*max).into()),
            _ => (i64::MIN.into(), i64::MAX.into()),
        }
    }

    /// A number as CONFIG GET shows it.
    pub(crate) fn show_number(&self, number: i128) -> Vec<u8> {
        match self {
            Self::Octal { .. } => format!("{number:o}"),
            _ => number.to_string(),
        }
        .into_bytes()
    }

    /// A number as the configuration file has it: sizes with the largest unit that is exact.
    pub(crate) fn write_number(&self, number: i128) -> Vec<u8> {
        match self {
            Self::Memory { .. } | Self::MemoryOrPercent => write_memory(number),
            _ => self.show_number(number),
        }
    }
}

/// The error of a word that is none of those allowed.
pub(crate) fn none_of<'a>(words: impl IntoIterator<Item = &'a str>) -> Reason {
    let words: Vec<&str> = words.into_iter().collect();
    format!("argument(s) must be one of the following: {}", words.join(", ")).into()
}

/// The single word of a directive that takes one.
pub(crate) fn only<'a>(words: &[&'a [u8]]) -> Result<&'a [u8], Reason> {
    match words {
        [word] => Ok(word),
        _ => Err(WRONG_COUNT.into()),
    }
}

/// A decimal number in its one canonical form: no plus, no leading zero, no blank.
pub(crate) fn strict_integer(word: &[u8]) -> Option<i64> {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    match digits {
        b"0" if word.len() == 1 => Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(word).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// A decimal number as C's `strtoll` takes it: blanks and a sign before it, nothing at all is 0.
pub(crate) fn loose_integer(word: &[u8]) -> Option<i64> {
    if word.is_empty() {
        return Some(0);
    }
    std::str::from_utf8(word.trim_ascii_start()).ok()?.parse().ok()
}

fn octal(word: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(word.trim_ascii_start()).ok()?;
    if word.is_empty() { Some(0) } else { i64::from_str_radix(text, 8).ok().map(i128::from) }
}

/// A number of bytes: digits and one of `b k kb m mb g gb`, in either case. What is too large for
/// any limit comes back as the largest number there is.
pub(crate) fn memory(word: &[u8]) -> Option<i128> {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = word.split_at(digits);
    let factor: i128 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    let add =
        |sum: i128, digit: &u8| sum.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
    Some(number.iter().fold(0, add).saturating_mul(factor))
}

pub(crate) fn write_memory(bytes: i128) -> Vec<u8> {
    for (size, unit) in [(1 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb")] {
        if bytes != 0 && bytes % size == 0 {
            return format!("{}{unit}", bytes / size).into_bytes();
        }
    }
    bytes.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_memory_units() {
        for (word, bytes) in [
            ("1k", 1000),
            ("1Kb", 1024),
            ("2m", 2_000_000),
            ("2MB", 2 << 20),
            ("3g", 3_000_000_000),
            ("3gb", 3 << 30),
            ("7b", 7),
            ("7", 7),
            ("", 0),
        ] {
            assert_eq!(memory(word.as_bytes()), Some(bytes), "{word}");
        }
        for word in ["1kib", "-1", "1 k", "x", "1.5mb"] {
            assert_eq!(memory(word.as_bytes()), None, "{word}");
        }
        assert_eq!(memory(&[b'9'; 100]), Some(i128::MAX));
    }

    #[test]
    fn reads_integers_strictly() {
        for (word, number) in [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX)] {
            assert_eq!(strict_integer(word.as_bytes()), Some(number));
        }
        for word in ["", "-", "01", "+1", " 1", "1 ", "-0", "9223372036854775808", "1e3"] {
            assert_eq!(strict_integer(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn names_its_limits() {
        let refused = |kind: Kind, word: &str| kind.number(word.as_bytes()).unwrap_err();
        let port = Kind::Integer { min: 0, max: 65535 };
        assert_eq!(refused(port, "65536"), "argument must be between 0 and 65535 inclusive");
        assert_eq!(refused(port, "x"), "argument couldn't be parsed into an integer");
        let octal = Kind::Octal { max: 0o777 };
        assert_eq!(octal.number(b"0700").unwrap(), 0o700);
        assert_eq!(refused(octal, "1777"), "argument must be between 0 and 777 inclusive");
        assert_eq!(refused(octal, "9"), "argument couldn't be parsed as an octal number");
        let memory = Kind::Memory { min: 1, max: u64::MAX };
        assert_eq!(
            refused(memory, "0"),
            "argument must be between 1 and 18446744073709551615 inclusive"
        );
        assert_eq!(refused(memory, "-1"), "argument must be a memory value");
        assert_eq!(Kind::Memory { min: -1, max: 9 }.number(b"-1").unwrap(), -1);
    }
}

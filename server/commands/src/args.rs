//! Words into values, with Redis's errors.

use carnelian_resp::number;

use crate::error::CommandError;

/// Whether a word is `keyword`, in any case.
#[inline]
#[must_use]
pub fn is(word: &[u8], keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword.as_bytes())
}

pub fn integer(word: &[u8]) -> Result<i64, CommandError> {
    number::parse_i64(word).ok_or(CommandError::NotAnInteger)
}

/// An integer that fits a C `int`, with another error if it is one that does not.
pub fn int(word: &[u8]) -> Result<i32, CommandError> {
    i32::try_from(integer(word)?).map_err(|_| {
        CommandError::text(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        )
    })
}

/// An integer from 0 to `i64::MAX`.
pub fn positive(word: &[u8]) -> Result<u64, CommandError> {
    let number = number::parse_i64(word).ok_or(CommandError::MustBePositive)?;
    u64::try_from(number).map_err(|_| CommandError::MustBePositive)
}

pub fn float(word: &[u8]) -> Result<f64, CommandError> {
    number::parse_double(word).ok_or(CommandError::NotAFloat)
}

/// Start and stop of a range, either possibly negative (from the end), cut to `0..len`. `None` if
/// nothing is left.
#[must_use]
pub fn range(start: i64, stop: i64, len: usize) -> Option<(usize, usize)> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from_end = |index: i64| if index < 0 { len.saturating_add(index) } else { index };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(len - 1));
    if stop < start || len <= start { None } else { Some((start as usize, stop as usize)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_what_is_there() {
        assert_eq!(range(0, -1, 5), Some((0, 4)));
        assert_eq!(range(-100, 100, 5), Some((0, 4)));
        assert_eq!(range(3, 1, 5), None);
        assert_eq!(range(5, 9, 5), None);
        assert_eq!(range(0, -1, 0), None);
        assert_eq!(range(i64::MIN, i64::MAX, 3), Some((0, 2)));
    }
}

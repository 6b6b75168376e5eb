//! Glob patterns as KEYS, SCAN, CONFIG GET and the ACL match them.
//!
//! The language is Redis's to the letter, oddities included: a lone `*` does not match an empty
//! text, an unterminated bracket ends with the pattern, ranges compare bytes as signed, and escapes
//! inside brackets ignore `ignore_case`. What differs is the cost: only the last star is ever
//! retried, so a match takes at most `pattern × text` steps, and one that would take very many
//! is given up: what it takes is bounded by the text's length alone.

use memchr::memchr;

/// After this many stars that are not last, Redis gives a pattern up as abusive.
const STARS_MAX: usize = 1000;

/// Bytes that may be looked at in vain, for each byte of the text and in any case. Texts of a thousand
/// bytes cannot take as many, and patterns that nobody made for it do not.
const VAIN_MAX: usize = 100;
const VAIN_LEAST: usize = 1 << 22;

/// Whether all of `text` matches `pattern`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    let mut at = 0; // in the pattern
    let mut done = 0; // of the text
    let mut stars = 0;
    // What follows the last star, and where in the text it was last tried.
    let mut retry: Option<(usize, usize)> = None;
    let mut patience = VAIN_LEAST.saturating_add(text.len().saturating_mul(VAIN_MAX));

    if text.is_empty() {
        return pattern.is_empty();
    }
    loop {
        // Here some text is left: `done < text.len()`.
        if at < pattern.len() && pattern[at] == b'*' {
            at = skip_stars(pattern, at);
            if at == pattern.len() {
                return true;
            }
            stars += 1;
            if STARS_MAX < stars {
                return false;
            }
            retry = Some((at, done));
        }
        let step = match at < pattern.len() {
            true => one(pattern, at, text[done], ignore_case),
            false => None,
        };
        if let Some(next) = step {
            at = next;
            done += 1;
            if done == text.len() {
                // An earlier start for the last star cannot help: each part of the pattern after
                // it takes exactly one byte, and a later start has fewer bytes to give.
                return skip_stars(pattern, at) == pattern.len();
            }
            continue;
        }
        let Some((after_star, tried)) = retry else { return false };
        let missed = match pattern.get(at) {
            Some(b'[') => bracket(pattern, at + 1, 0, false).1,
            _ => at,
        };
        let Some(left) = patience.checked_sub(done - tried + missed - after_star) else {
            return false;
        };
        patience = left;
        let Some(start) = next_start(pattern[after_star], text, tried + 1, ignore_case) else {
            return false;
        };
        retry = Some((after_star, start));
        at = after_star;
        done = start;
    }
}

/// The bytes that every match of `pattern` starts with: all before the first special character.
#[must_use]
pub fn prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'));
    &pattern[..end.unwrap_or(pattern.len())]
}

fn skip_stars(pattern: &[u8], at: usize) -> usize {
    at + pattern[at..].iter().take_while(|&&byte| byte == b'*').count()
}

/// The next place from `from` on where the text may match a pattern that begins with `first`.
fn next_start(first: u8, text: &[u8], from: usize, ignore_case: bool) -> Option<usize> {
    let rest = text.get(from..).filter(|rest| !rest.is_empty())?;
    match first {
        b'?' | b'[' | b'\\' => Some(from),
        _ if ignore_case => Some(from),
        _ => memchr(first, rest).map(|skipped| from + skipped),
    }
}

/// Matches one byte of text against the part of the pattern that starts at `at`, which is no star.
/// Returns where the next part starts.
fn one(pattern: &[u8], at: usize, byte: u8, ignore_case: bool) -> Option<usize> {
    match pattern[at] {
        b'?' => Some(at + 1),
        b'[' => {
            let (matched, next) = bracket(pattern, at + 1, byte, ignore_case);
            matched.then_some(next)
        }
        // A backslash that ends the pattern stands for itself.
        b'\\' if at + 1 < pattern.len() => {
            same(pattern[at + 1], byte, ignore_case).then_some(at + 2)
        }
        literal => same(literal, byte, ignore_case).then_some(at + 1),
    }
}

/// Matches one byte against the bracket whose inside starts at `at`.
/// Returns the outcome and the place after the bracket.
fn bracket(pattern: &[u8], mut at: usize, byte: u8, ignore_case: bool) -> (bool, usize) {
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut found = false;
    loop {
        match pattern[at..] {
            // No `]` at all: the bracket ends with the pattern.
            [] => return (found != negated, at),
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                at += 2;
            }
            [b']', ..] => return (found != negated, at + 1),
            [start, b'-', end, ..] => {
                found |= in_range(start, end, byte, ignore_case);
                at += 3;
            }
            [literal, ..] => {
                found |= same(literal, byte, ignore_case);
                at += 1;
            }
        }
    }
}

/// The ends may come in either order; they are put in order before, not after, case is dropped.
fn in_range(start: u8, end: u8, byte: u8, ignore_case: bool) -> bool {
    let (mut low, mut high) = (signed(start), signed(end));
    if high < low {
        (low, high) = (high, low);
    }
    let mut byte = signed(byte);
    if ignore_case {
        [low, high, byte] = [low, high, byte].map(to_lower);
    }
    low <= byte && byte <= high
}

/// A byte as C's `char` is on x86-64.
fn signed(byte: u8) -> i32 {
    i32::from(byte.cast_signed())
}

/// glibc's `tolower`, which makes negative characters positive, all but -1.
fn to_lower(character: i32) -> i32 {
    match character {
        -128..=-2 => character + 256,
        0x41..=0x5a => character + 0x20,
        _ => character,
    }
}

fn same(a: u8, b: u8, ignore_case: bool) -> bool {
    a == b || (ignore_case && a.eq_ignore_ascii_case(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), false)
    }

    #[test]
    fn what_is_made_to_take_long_is_given_up() {
        let text = "a".repeat(200_000);
        let half = "a".repeat(100_000);
        for pattern in [
            format!("*{half}b"),
            format!("*{half}b*"),
            format!("*?{half}[b]*c"),
            format!("*[{}]*x", "b".repeat(100_000)),
            format!("{}b", "*a".repeat(1000)),
        ] {
            assert!(!check(&pattern, &text));
        }
        assert!(check(&format!("*{half}*a"), &text));
        // What is not made for it is matched, however long it is.
        let text = format!("{}{half}b", "ab".repeat(100_000));
        assert!(check(&format!("*{half}?"), &text));
        assert!(check("*ab*ab*aab", &text));
    }

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text) in [
            ("*", "a"),
            ("**", "abc"),
            ("a*", "a"),
            ("a***", "a"),
            ("*c", "abc"),
            ("a*c", "ac"),
            ("a*b*c", "a--b--c"),
            ("?", "x"),
            ("*?", "x"),
            ("h?llo*", "hello world"),
            ("", ""),
            ("*ab", "aab"),
            ("*aab", "aaab"),
        ] {
            assert!(check(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("?", ""), ("*?", ""), ("", "a"), ("a*b", "ac"), ("*a?", "a"), ("abc", "abcd")]
        {
            assert!(!check(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_star_does_not_match_an_empty_text() {
        assert!(!check("*", ""));
        assert!(!check("**", ""));
    }

    #[test]
    fn brackets_with_ranges_negation_and_escapes() {
        for (pattern, text, expected) in [
            ("[abc]", "b", true),
            ("[^abc]", "b", false),
            ("[^abc]", "d", true),
            ("[a-c]x", "bx", true),
            ("[c-a]", "b", true),
            (r"[\]]", "]", true),
            (r"[\a-c]", "-", true),
            (r"[\a-c]", "b", false),
            ("[a-]", "a", true), // a range up to `]`, and no end
            ("[a-]", "_", true),
            ("[a-]", "-", false),
            ("[]", "]", false), // empty, so never
            ("[^]", "x", true), // not nothing, so anything
            ("[]]", "]", false),
        ] {
            assert_eq!(check(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn malformed_patterns_end_where_redis_ends_them() {
        for (pattern, text, expected) in [
            ("[", "[", false),
            ("[^", "x", true),
            ("[ab", "b", true),
            ("x[ab", "xc", false),
            ("[ab", "bb", false),
            (r"a\", r"a\", true),
            (r"\", "x", false),
            (r"[\", r"\", true),
            (r"[a\", r"\", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            (r"\\", r"\", true),
        ] {
            assert_eq!(check(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn case_is_ignored_except_after_a_backslash_in_brackets() {
        assert!(matches(b"HeL*", b"hello", true));
        assert!(!matches(b"HeL*", b"hello", false));
        assert!(matches(b"[A-Z]", b"q", true));
        assert!(matches(b"[Q]", b"q", true));
        assert!(!matches(br"[\Q]", b"q", true));
        assert!(matches(br"\Q", b"q", true));
        // Ordered as Z..a, then lowered to z..a: an empty range.
        assert!(!matches(b"[Z-a]", b"b", true));
    }

    #[test]
    fn ranges_compare_bytes_as_signed() {
        assert!(matches(b"[\x80-a]", b"A", false));
        assert!(matches(b"[a-\x80]", b"\xff", false));
        assert!(!matches(b"[a-\x80]", b"z", false));
        // Without case, `tolower` has made the low end 128.
        assert!(!matches(b"[?-\x80]", b"-", true));
        assert!(matches(b"[?-\x80]", b"-", false));
    }

    #[test]
    fn more_than_a_thousand_stars_match_nothing_unless_last() {
        let text = vec![b'a'; 5000];
        assert!(matches(&b"*a".repeat(1000), &text, false));
        assert!(!matches(&b"*a".repeat(1001), &text, false));
        let mut pattern = b"*a".repeat(1000);
        pattern.push(b'*');
        assert!(matches(&pattern, &text, false));
    }

    #[test]
    fn many_stars_take_bounded_time() {
        let pattern = [b"a*".repeat(500), b"b".to_vec()].concat();
        assert!(!matches(&pattern, &vec![b'a'; 100_000], false));
    }

    #[test]
    fn prefix_stops_at_the_first_special_character() {
        for (pattern, expected) in [
            ("user:*", "user:"),
            ("user", "user"),
            ("a?b", "a"),
            ("[a]", ""),
            (r"ab\*", "ab"),
            ("", ""),
        ] {
            assert_eq!(prefix(pattern.as_bytes()), expected.as_bytes());
        }
    }

    /// The recursive definition: a star takes any number of bytes as long as one is left.
    fn slow(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
        if text.is_empty() {
            return pattern.is_empty();
        }
        let Some(&first) = pattern.first() else { return false };
        if first == b'*' {
            let rest = &pattern[skip_stars(pattern, 0)..];
            return rest.is_empty()
                || (0..text.len()).any(|skip| slow(rest, &text[skip..], ignore_case));
        }
        one(pattern, 0, text[0], ignore_case).is_some_and(|next| {
            let rest = &pattern[next..];
            match text.len() {
                1 => rest.iter().all(|&byte| byte == b'*'),
                _ => slow(rest, &text[1..], ignore_case),
            }
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_recursive_definition(
            pattern in "[ab*?\\[\\]\\\\^-]{0,10}",
            text in "[abAB\\]-]{0,10}",
            ignore_case: bool,
        ) {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(
                matches(pattern, text, ignore_case),
                slow(pattern, text, ignore_case)
            );
        }

        #[test]
        fn any_bytes_are_matched_without_panic(pattern: Vec<u8>, text: Vec<u8>, case: bool) {
            let _ = matches(&pattern, &text, case);
        }
    }
}

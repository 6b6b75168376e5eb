//! Glob patterns: no pattern takes long, a pattern without signs matches itself alone, and one behind a
//! star matches whatever ends in what it matches.

#![no_main]

use carnelian_structs::glob::matches;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&how, rest)) = data.split_first() else { return };
    let at = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let (pattern, text) = (&rest[..at], rest.get(at + 1..).unwrap_or_default());
    let ignore_case = how & 1 == 1;
    let found = matches(pattern, text, ignore_case);
    let is_plain = !pattern.iter().any(|byte| b"*?[\\".contains(byte));
    if is_plain {
        let same = match ignore_case {
            true => pattern.eq_ignore_ascii_case(text),
            false => pattern == text,
        };
        assert_eq!(found, same);
    }
    if found && !text.is_empty() {
        assert!(matches(&[b"*", pattern].concat(), text, ignore_case));
        // An odd backslash, or a bracket left open, would take the star in.
        if is_plain {
            assert!(matches(&[pattern, b"*"].concat(), &[text, b"x"].concat(), ignore_case));
        }
    }
});

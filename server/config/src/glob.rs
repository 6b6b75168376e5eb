//! Glob patterns: in the names given to CONFIG GET, and in the paths given to `include`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Most files one `include` pattern may stand for.
const MATCHES_MAX: usize = 1000;

/// Whether ASCII case counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Heed,
    Ignore,
}

/// Whether a word is a pattern rather than a plain name.
pub fn is_pattern(word: &[u8]) -> bool {
    word.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Whether `text` matches `pattern`: `*`, `?`, `[abc]`, `[^a-z]`, and a backslash before a byte
/// that stands for itself.
///
/// Only the last `*` is ever tried again, so the time is bounded by the product of both lengths.
pub fn matches(mut pattern: &[u8], mut text: &[u8], case: Case) -> bool {
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = pattern {
            pattern = after;
            retry = Some((after, text));
            continue;
        }
        if let [byte, text_rest @ ..] = text {
            if let Some(pattern_rest) = match_one(pattern, *byte, case) {
                pattern = pattern_rest;
                text = text_rest;
                continue;
            }
        } else if pattern.is_empty() {
            return true;
        }
        // The star takes one byte more.
        let Some((after, [_, skipped @ ..])) = retry else { return false };
        retry = Some((after, skipped));
        pattern = after;
        text = skipped;
    }
}

/// What is left of the pattern once its first element, not a star, has matched this byte.
fn match_one(pattern: &[u8], byte: u8, case: Case) -> Option<&[u8]> {
    let fold = |byte: u8| if case == Case::Ignore { byte.to_ascii_lowercase() } else { byte };
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', set @ ..] => match_set(set, byte, fold),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
            (fold(*literal) == fold(byte)).then_some(rest)
        }
    }
}

fn match_set(set: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> Option<&[u8]> {
    let (negated, mut set) = match set {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let byte = fold(byte);
    let mut found = false;
    loop {
        set = match set {
            // A set that is never closed ends with the pattern.
            [] => break,
            [b']', rest @ ..] => {
                set = rest;
                break;
            }
            [b'\\', literal, rest @ ..] => {
                found |= fold(*literal) == byte;
                rest
            }
            [first, b'-', last, rest @ ..] => {
                let (low, high) = (fold(*first.min(last)), fold(*first.max(last)));
                found |= (low..=high).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= fold(*literal) == byte;
                rest
            }
        };
    }
    (found != negated).then_some(set)
}

/// The existing files that match a path whose parts may be patterns, sorted. A leading dot is
/// matched only by a dot.
pub fn files(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = part.as_os_str();
        if !is_pattern(name.as_bytes()) {
            found.iter_mut().for_each(|path| path.push(name));
            continue;
        }
        let mut deeper: Vec<PathBuf> = Vec::new();
        for folder in &found {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let Ok(entries) = std::fs::read_dir(here) else { continue };
            let names = entries.flatten().map(|entry| entry.file_name());
            deeper.extend(names.filter(|entry| part_matches(name, entry)).map(|e| folder.join(e)));
            deeper.truncate(MATCHES_MAX);
        }
        found = deeper;
    }
    found.retain(|path| path.exists());
    found.sort();
    found
}

fn part_matches(pattern: &OsStr, name: &OsStr) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let hidden = name.first() == Some(&b'.');
    (!hidden || pattern.first() == Some(&b'.')) && matches(pattern, name, Case::Heed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn matches_as_expected() {
        let ignore =
            |pattern: &str, text: &str| matches(pattern.as_bytes(), text.as_bytes(), Case::Ignore);
        for (pattern, text) in [
            ("*", ""),
            ("*max*y", "maxmemory-policy"),
            ("P?rt", "poRT"),
            ("[pq]ort", "Port"),
            ("[^x-z]ort", "port"),
            ("[M-N]ax", "max"),
            ("a\\*", "a*"),
            ("po[", "po["),
            ("**a**", "a"),
        ] {
            // An unclosed empty set matches nothing, as in Redis.
            assert_eq!(ignore(pattern, text), pattern != "po[", "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a", ""), ("?", ""), ("a*b", "ac"), ("[^p]ort", "port")]
        {
            assert!(!ignore(pattern, text), "{pattern} {text}");
        }
        assert!(!matches(b"A", b"a", Case::Heed));
    }

    #[test]
    fn finds_files_in_order_and_skips_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/2.conf", "a/1.conf", "a/.x.conf", "a/other"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = files(&folder.path().join("[ab]/*.conf"));
        assert_eq!(found, [folder.path().join("a/1.conf"), folder.path().join("b/2.conf")]);
        assert!(files(&folder.path().join("none*/x")).is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(pattern: Vec<u8>, text: Vec<u8>, ignore: bool) {
            let case = if ignore { Case::Ignore } else { Case::Heed };
            let _ = matches(&pattern, &text, case);
        }
    }
}

//! One command of an append-only file, found in place.
//!
//! Stricter than what a client may send: these files are written by servers, so that every deviation
//! is damage, which should be found where it is and not many commands later.

/// A word of a command: byte offsets from the command's first byte.
pub use carnelian_resp::Span;

/// The longest header line without its end: a letter and the digits of a length.
const HEADER_BYTES_MAX: usize = 21;

/// The most words of one command, as Redis has it.
const WORDS_MAX: u64 = i32::MAX as u64;

/// What is at the beginning of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A command of that many bytes; its words were pushed.
    Command(usize),
    /// A line that says something about the file, such as `#TS:1700000000`; that many bytes.
    Annotation(usize),
    /// The beginning of one of these, which takes at least that many bytes.
    Part(usize),
    /// Neither: at that byte something else was expected.
    Damage(usize, String),
}

/// The longest annotation, as Redis has it.
const ANNOTATION_BYTES_MAX: usize = 1024;

/// Looks at the beginning of `bytes`, of which there is at least one.
pub fn parse(bytes: &[u8], words: &mut Vec<Span>) -> Found {
    match bytes[0] {
        b'*' => parse_command(bytes, words).unwrap_or_else(|other| other),
        b'#' => parse_annotation(bytes),
        other => Found::Damage(0, format!("expected '*' or '#', got {}", shown(other))),
    }
}

fn parse_annotation(bytes: &[u8]) -> Found {
    let line = &bytes[..bytes.len().min(ANNOTATION_BYTES_MAX)];
    match memchr::memchr(b'\n', line) {
        Some(end) => Found::Annotation(end + 1),
        None if line.len() == ANNOTATION_BYTES_MAX => {
            Found::Damage(line.len(), "expected the end of an annotation".into())
        }
        None => Found::Part(bytes.len() + 1),
    }
}

fn parse_command(bytes: &[u8], words: &mut Vec<Span>) -> Result<Found, Found> {
    let (count, mut at) = parse_header(bytes, 0, b'*')?;
    if count == 0 || WORDS_MAX < count {
        return Err(Found::Damage(1, format!("a command of {count} words")));
    }
    for _ in 0..count {
        let (length, start) = parse_header(bytes, at, b'$')?;
        let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
        let next = end.and_then(|end| end.checked_add(2));
        let (Some(end), Some(next)) = (end, next) else {
            return Err(Found::Damage(at + 1, format!("a word of {length} bytes")));
        };
        match bytes.get(end..next) {
            Some(b"\r\n") => {}
            Some(other) => {
                let place = usize::from(other[0] == b'\r');
                let text = format!("expected the end of a word, got {}", shown(other[place]));
                return Err(Found::Damage(end + place, text));
            }
            None => return Err(Found::Part(next)),
        }
        words.push(Span { start, end });
        at = next;
    }
    Ok(Found::Command(at))
}

/// A line of a letter and a number, such as `$12`: the number, and where the next line begins.
#[inline]
fn parse_header(bytes: &[u8], at: usize, letter: u8) -> Result<(u64, usize), Found> {
    let Some(line) = bytes.get(at..).filter(|line| !line.is_empty()) else {
        return Err(Found::Part(at + 1));
    };
    if line[0] != letter {
        let text = format!("expected '{}', got {}", letter as char, shown(line[0]));
        return Err(Found::Damage(at, text));
    }
    let mut number = 0u64;
    for (place, &byte) in line[1..].iter().enumerate() {
        let place = at + 1 + place;
        match byte {
            b'0'..=b'9' if place - at < HEADER_BYTES_MAX => {
                // Twenty digits may be too many for the type; no file is that large.
                number = number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
            }
            b'\r' if at + 1 < place => {
                return match bytes.get(place + 1) {
                    Some(b'\n') => Ok((number, place + 2)),
                    Some(other) => {
                        let text = format!("expected the end of a line, got {}", shown(*other));
                        Err(Found::Damage(place + 1, text))
                    }
                    None => Err(Found::Part(place + 2)),
                };
            }
            other => {
                let text = format!("expected a digit, got {}", shown(other));
                return Err(Found::Damage(place, text));
            }
        }
    }
    Err(Found::Part(bytes.len() + 1))
}

fn shown(byte: u8) -> String {
    match byte {
        b' '..=b'~' => format!("'{}'", byte as char),
        _ => format!("0x{byte:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n";

    #[test]
    fn a_command_is_found_in_place() {
        let mut words = Vec::new();
        assert_eq!(parse(SET, &mut words), Found::Command(SET.len()));
        let words: Vec<_> = words.iter().map(|span| span.of(SET)).collect();
        assert_eq!(words, [&b"SET"[..], b"k", b""]);
    }

    #[test]
    fn every_part_of_a_command_asks_for_more_within_it() {
        for end in 1..SET.len() {
            match parse(&SET[..end], &mut Vec::new()) {
                Found::Part(wanted) => assert!(end < wanted && wanted <= SET.len(), "{end}"),
                other => panic!("{end}: {other:?}"),
            }
        }
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let damage = |text: &str| match parse(text.as_bytes(), &mut Vec::new()) {
            Found::Damage(at, reason) => (at, reason),
            other => panic!("{text:?}: {other:?}"),
        };
        assert_eq!(damage("SET"), (0, "expected '*' or '#', got 'S'".into()));
        assert_eq!(damage("*0\r\n"), (1, "a command of 0 words".into()));
        assert_eq!(damage("*-1\r\n"), (1, "expected a digit, got '-'".into()));
        assert_eq!(damage("*1\r\n+3\r\n"), (4, "expected '$', got '+'".into()));
        assert_eq!(damage("*1\n"), (2, "expected a digit, got 0x0a".into()));
        assert_eq!(damage("*1\r\n$1\r\nab\r\n").0, 9);
        assert_eq!(damage("*9999999999\r\n").0, 1);
        assert_eq!(damage("*1\r\n$99999999999999999999\r\n").0, 5);
    }

    #[test]
    fn annotations_are_lines() {
        assert_eq!(parse(b"#TS:1\r\n*", &mut Vec::new()), Found::Annotation(7));
        assert_eq!(parse(b"#TS", &mut Vec::new()), Found::Part(4));
        let long = [b'#'; 2000];
        assert!(matches!(parse(&long, &mut Vec::new()), Found::Damage(..)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
            parse(&bytes, &mut Vec::new());
        }

        #[test]
        fn damaged_commands_are_parsed_without_a_panic(at in 0..SET.len(), byte: u8) {
            let mut bytes = SET.to_vec();
            bytes[at] = byte;
            let mut words = Vec::new();
            if let Found::Command(length) = parse(&bytes, &mut words) {
                prop_assert!(length <= bytes.len());
                prop_assert!(words.iter().all(|word| word.end <= length));
            }
        }
    }
}

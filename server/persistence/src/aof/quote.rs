//! Words of a line of the manifest: quoting names with unusual bytes, and splitting lines again.
//!
//! The rules are those of redis.conf, which other readers of a manifest use, too.

/// The words of a line, or `None` if a quote is unbalanced.
pub(super) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = trim(line);
    while !rest.is_empty() {
        let (word, tail) = take_word(rest)?;
        words.push(word);
        rest = trim(tail);
    }
    Some(words)
}

/// The name as it stands in a line: bare, or in double quotes if it needs them.
pub(super) fn quoted(name: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'\'');
    if name.iter().all(is_plain) {
        return name.to_vec();
    }
    let mut out = vec![b'"'];
    for &byte in name {
        match byte {
            b'\\' | b'"' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            b'\x07' => out.extend(b"\\a"),
            b'\x08' => out.extend(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    out.push(b'"');
    out
}

fn take_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] => return Some((word, rest)),
            [byte, ..] if is_space(*byte) => return Some((word, rest)),
            [b'"', tail @ ..] => return take_quoted(tail, b'"', word),
            [b'\'', tail @ ..] => return take_quoted(tail, b'\'', word),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

fn take_quoted(mut rest: &[u8], quote: u8, mut word: Vec<u8>) -> Option<(Vec<u8>, &[u8])> {
    loop {
        let (byte, tail) = match rest {
            [] => return None,
            [byte, tail @ ..] if *byte == quote => {
                // Nothing may follow a closing quote but the next word's distance.
                let ends_word = tail.first().is_none_or(|byte| is_space(*byte));
                return ends_word.then_some((word, tail));
            }
            [b'\\', b'\'', tail @ ..] if quote == b'\'' => (b'\'', tail),
            [b'\\', b'x', high, low, tail @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) * 16 + hex(*low), tail)
            }
            [b'\\', escaped, tail @ ..] if quote == b'"' => (unescaped(*escaped), tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        word.push(byte);
        rest = tail;
    }
}

const fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => b'\x08',
        b'a' => b'\x07',
        other => other,
    }
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

fn trim(mut rest: &[u8]) -> &[u8] {
    while let [byte, tail @ ..] = rest
        && is_space(*byte)
    {
        rest = tail;
    }
    rest
}

const fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_quoted_only_where_needed() {
        assert_eq!(quoted(b"appendonly.aof.1.incr.aof"), b"appendonly.aof.1.incr.aof");
        assert_eq!(quoted(b"a b"), b"\"a b\"");
        assert_eq!(quoted(b"\"\\\n\xff"), br#""\"\\\n\xff""#);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        assert_eq!(split(b"file \"a"), None);
        assert_eq!(split(b"file 'a'b"), None);
        assert_eq!(split(b"'a\\'b' c"), Some(vec![b"a'b".to_vec(), b"c".to_vec()]));
    }

    proptest! {
        #[test]
        fn what_is_quoted_splits_back(name in proptest::collection::vec(1u8.., 1..40)) {
            prop_assert_eq!(split(&quoted(&name)), Some(vec![name]));
        }
    }
}

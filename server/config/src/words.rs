//! Splitting a line into words, and quoting a word so that it splits back into itself.

/// The words of a line, with the quoting rules of redis.conf, or `None` if a quote is unbalanced.
///
/// Double quotes know `\n \r \t \b \a \xHH` and take any other escaped byte as itself; single
/// quotes know only `\'`. A closing quote must end its word.
pub fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // ASCII trimming leaves the vertical tab, which separates words too.
        while let [b'\x0b', tail @ ..] = rest {
            rest = tail.trim_ascii_start();
        }
        if rest.is_empty() {
            return Some(words);
        }
        let (word, tail) = take_word(rest)?;
        words.push(word);
        rest = tail;
    }
}

fn take_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Some((word, rest)),
            // A quote may open inside a word, and ends the word where it closes.
            [b'"', tail @ ..] => return take_double_quoted(tail, word),
            [b'\'', tail @ ..] => return take_single_quoted(tail, word),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

fn take_double_quoted(mut rest: &[u8], mut word: Vec<u8>) -> Option<(Vec<u8>, &[u8])> {
    loop {
        let (byte, tail) = match rest {
            [] => return None,
            [b'"', tail @ ..] => return after_quote(tail).then_some((word, tail)),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) * 16 + hex(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => (unescaped(*escaped), tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        word.push(byte);
        rest = tail;
    }
}

fn take_single_quoted(mut rest: &[u8], mut word: Vec<u8>) -> Option<(Vec<u8>, &[u8])> {
    loop {
        let (byte, tail) = match rest {
            [] => return None,
            [b'\'', tail @ ..] => return after_quote(tail).then_some((word, tail)),
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        word.push(byte);
        rest = tail;
    }
}

/// Whether a closing quote may stand before this.
fn after_quote(rest: &[u8]) -> bool {
    rest.first().is_none_or(|byte| is_space(*byte))
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => b'\x08',
        b'a' => b'\x07',
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

/// The word in double quotes, printable whatever its bytes are.
pub fn quote(word: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(word.len() + 2);
    quoted.push(b'"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => quoted.extend([b'\\', byte]),
            b'\n' => quoted.extend(b"\\n"),
            b'\r' => quoted.extend(b"\\r"),
            b'\t' => quoted.extend(b"\\t"),
            b'\x07' => quoted.extend(b"\\a"),
            b'\x08' => quoted.extend(b"\\b"),
            b' '..=b'~' => quoted.push(byte),
            _ => quoted.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    quoted.push(b'"');
    quoted
}

/// The word as it is, or in quotes where it would not be read back as one word.
pub fn quote_if_needed(word: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if !word.is_empty() && word.iter().all(plain) { word.to_vec() } else { quote(word) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strings(line: &str) -> Option<Vec<String>> {
        let texts = |words: Vec<Vec<u8>>| {
            words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        };
        split(line.as_bytes()).map(texts)
    }

    #[test]
    fn splits_plain_and_quoted_words() {
        assert_eq!(strings("  a\tb \x0b c  ").unwrap(), ["a", "b", "c"]);
        assert_eq!(strings(r#"save """#).unwrap(), ["save", ""]);
        assert_eq!(strings(r"save ''").unwrap(), ["save", ""]);
        assert_eq!(strings(r#""\n\r\t\b\a\\\"\x41\q\x4""#).unwrap(), ["\n\r\t\x08\x07\\\"Aqx4"]);
        assert_eq!(strings(r"'it\'s \n'").unwrap(), [r"it's \n"]);
        assert_eq!(strings(r#"a"b c""#).unwrap(), ["ab c"]);
        assert_eq!(strings("").unwrap(), [""; 0]);
    }

    #[test]
    fn refuses_unbalanced_quotes() {
        for line in [r#"a "b"#, "a 'b", r#""a"b"#, "'a'b", r#"""""#, "\"\\"] {
            assert_eq!(strings(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_word_splits_back_into_itself(words: Vec<Vec<u8>>) {
            let quoted: Vec<Vec<u8>> = words.iter().map(|word| quote(word)).collect();
            let plain: Vec<Vec<u8>> = words.iter().map(|word| quote_if_needed(word)).collect();
            let words = Some(words);
            prop_assert_eq!(&split(&quoted.join(&b' ')), &words);
            prop_assert_eq!(&split(&plain.join(&b' ')), &words);
        }

        #[test]
        fn any_line_splits_or_is_refused(line: Vec<u8>) {
            let _ = split(&line);
        }
    }
}

//! Inline commands: a line of words, quoted as on a shell, split and unescaped where they lie.

use crate::parser::Span;

/// The words of a line, or `None` if a quote is not closed, or not followed by a space. For lines that are kept.
#[must_use]
pub fn words_of(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut line, mut words) = (line.to_vec(), Vec::new());
    let is_sound = split(&mut line, &mut words);
    is_sound.then(|| words.iter().map(|word| word.of(&line).to_vec()).collect())
}

/// Splits a line into words; false if a quote is not closed, or not followed by a space.
///
/// An unescaped word is never longer than it was, so each stays at its own start. The line holds
/// no NUL: those never complete a line.
pub(crate) fn split(line: &mut [u8], words: &mut Vec<Span>) -> bool {
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|&byte| is_space(byte)) {
            at += 1;
        }
        if at == line.len() {
            return true;
        }
        let start = at;
        let Some((end, next)) = word(line, start) else { return false };
        words.push(Span { start, end });
        at = next;
    }
}

/// Unescapes the word at `start`: where its bytes end, and where what follows it begins.
fn word(line: &mut [u8], start: usize) -> Option<(usize, usize)> {
    let (mut read, mut write) = (start, start);
    while let Some(&byte) = line.get(read) {
        match byte {
            // Vertical tab and form feed separate words but do not end one: so Redis has it.
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' | b'\'' => {
                let unquote = if byte == b'"' { double_quoted } else { single_quoted };
                (write, read) = unquote(line, read + 1, write)?;
                // The closing quote ends the word, and nothing may touch it.
                return match line.get(read) {
                    Some(&byte) if !is_space(byte) => None,
                    _ => Some((write, read)),
                };
            }
            _ => {
                line[write] = byte;
                read += 1;
                write += 1;
            }
        }
    }
    Some((write, read))
}

/// Copies up to the closing quote; the places after the last byte written and after the quote.
fn double_quoted(line: &mut [u8], mut read: usize, mut write: usize) -> Option<(usize, usize)> {
    loop {
        let (byte, taken) = match line[read..] {
            [] => return None,
            [b'"', ..] => return Some((write, read + 1)),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_value(high) * 16 + hex_value(low), 4)
            }
            [b'\\', escaped, ..] => match escaped {
                b'n' => (b'\n', 2),
                b'r' => (b'\r', 2),
                b't' => (b'\t', 2),
                b'b' => (0x08, 2),
                b'a' => (0x07, 2),
                other => (other, 2),
            },
            [byte, ..] => (byte, 1),
        };
        line[write] = byte;
        write += 1;
        read += taken;
    }
}

fn single_quoted(line: &mut [u8], mut read: usize, mut write: usize) -> Option<(usize, usize)> {
    loop {
        let (byte, taken) = match line[read..] {
            [] => return None,
            [b'\\', b'\'', ..] => (b'\'', 2),
            [b'\'', ..] => return Some((write, read + 1)),
            [byte, ..] => (byte, 1),
        };
        line[write] = byte;
        write += 1;
        read += taken;
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

const fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<Vec<u8>>> {
        words_of(line.as_bytes())
    }

    #[test]
    fn quoting_is_that_of_redis() {
        let cases: &[(&str, &[&[u8]])] = &[
            ("", &[]),
            (" \t\x0b\x0c\r", &[]),
            ("PING", &[b"PING"]),
            ("  a   b ", &[b"a", b"b"]),
            ("a\rb", &[b"a", b"b"]),
            ("a\x0bb \x0bc", &[b"a\x0bb", b"c"]),
            (r#"E "a b" c"#, &[b"E", b"a b", b"c"]),
            (r#""a\x41\n\r\t\b\a\q\"\\""#, &[b"aA\n\r\t\x08\x07q\"\\"]),
            (r#""\x4g" "\x0" "\x00" "\xfF""#, &[b"x4g", b"x0", b"\0", b"\xff"]),
            (r"'a\'b\n' 'c\d'", &[b"a'b\\n", b"c\\d"]),
            (r#"a"b c" d'e f'"#, &[b"ab c", b"de f"]),
            ("\"\" ''", &[b"", b""]),
            ("\"a\"\x0b'b'", &[b"a", b"b"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).expect(line), *expected, "{line:?}");
        }
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in
            [r#""a"#, "'a", r#""a"b"#, "'a'b", r#"a""#, r#""\""#, r#""abc\"#, r"'\'", "''''"]
        {
            assert_eq!(words(line), None, "{line:?}");
        }
    }
}

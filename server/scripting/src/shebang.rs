//! The first line of a script or library: `#!lua name=mylib flags=no-writes,allow-stale`.

use crate::flags::Flags;

/// What a script's first line says, and where its source begins: at the line's end, so that lines
/// keep their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) flags: Flags,
    pub(crate) source_at: usize,
}

/// What a script says of itself, if it can be read.
pub fn script_flags(body: &[u8]) -> Option<Flags> {
    Some(script(body).ok()?.flags)
}

/// For EVAL and SCRIPT LOAD.
pub(crate) fn script(body: &[u8]) -> Result<Script, Vec<u8>> {
    if !body.starts_with(b"#!") {
        return Ok(Script { flags: Flags::COMPAT, source_at: 0 });
    }
    let end = line_end(body).ok_or_else(|| b"Invalid script shebang".to_vec())?;
    let parts = words(&body[..end]);
    let Some((engine, options)) = parts.as_deref().and_then(<[_]>::split_first) else {
        return Err(b"Invalid engine in script shebang".to_vec());
    };
    if engine != b"#!lua" {
        return Err(text("Unexpected engine in script shebang: ", engine));
    }
    let mut flags = Flags::default();
    for option in options {
        let Some(names) = option.strip_prefix(b"flags=") else {
            return Err(text("Unknown lua shebang option: ", option));
        };
        if names.is_empty() {
            continue;
        }
        for name in names.split(|byte| *byte == b',') {
            match Flags::named(name) {
                Some(flag) => flags.insert(flag),
                None => return Err(text("Unexpected flag in script shebang: ", name)),
            }
        }
    }
    Ok(Script { flags, source_at: end })
}

/// What a library's first line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Library {
    pub(crate) engine: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) source_at: usize,
}

/// For FUNCTION LOAD.
pub(crate) fn library(code: &[u8]) -> Result<Library, Vec<u8>> {
    if !code.starts_with(b"#!") {
        return Err(b"Missing library metadata".to_vec());
    }
    let invalid = || b"Invalid library metadata".to_vec();
    let end = line_end(code).ok_or_else(invalid)?;
    let parts = words(&code[..end]).ok_or_else(invalid)?;
    let (engine, options) = parts.split_first().ok_or_else(invalid)?;
    let mut name = None;
    for option in options {
        let given = option
            .split_at_checked(5)
            .filter(|(key, _)| key.eq_ignore_ascii_case(b"name="))
            .map(|(_, value)| value);
        let Some(given) = given else {
            return Err(text("Invalid metadata value given: ", option));
        };
        if name.is_some() {
            return Err(b"Invalid metadata value, name argument was given multiple times".to_vec());
        }
        name = Some(given.to_vec());
    }
    let name = name.ok_or_else(|| b"Library name was not given".to_vec())?;
    Ok(Library { engine: engine[2..].to_vec(), name, source_at: end })
}

/// Redis looks for the line's end in a text that a NUL ends.
fn line_end(body: &[u8]) -> Option<usize> {
    let end = body.iter().position(|byte| matches!(byte, b'\n' | 0))?;
    (body[end] == b'\n').then_some(end)
}

fn text(start: &str, rest: &[u8]) -> Vec<u8> {
    [start.as_bytes(), rest].concat()
}

/// Splits a line into words; quotes and their escapes as in configuration files. None if a quote
/// does not end.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let start = rest.iter().position(|byte| !is_space(*byte)).unwrap_or(rest.len());
        rest = &rest[start..];
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some((&byte, after)) = rest.split_first() {
            match byte {
                _ if is_space(byte) || byte == 0 => break,
                b'"' | b'\'' => {
                    rest = quoted(byte, after, &mut word)?;
                    // A closing quote ends the word.
                    match rest.first() {
                        Some(next) if !is_space(*next) => return None,
                        _ => break,
                    }
                }
                _ => {
                    word.push(byte);
                    rest = after;
                }
            }
        }
        words.push(word);
        if rest.first() == Some(&0) {
            return Some(words);
        }
    }
}

fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if byte == quote {
            return Some(rest);
        }
        if byte != b'\\' {
            word.push(byte);
            continue;
        }
        let (&escaped, after) = rest.split_first()?;
        if quote == b'\'' {
            if escaped == b'\'' {
                word.push(b'\'');
                rest = after;
            } else {
                word.push(b'\\');
            }
            continue;
        }
        rest = after;
        if escaped == b'x'
            && let Some((digits, after)) = rest.split_at_checked(2)
            && let Some(byte) = hex(digits)
        {
            word.push(byte);
            rest = after;
            continue;
        }
        word.push(match escaped {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'a' => 7,
            other => other,
        });
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        String::from_utf8(script(body.as_bytes()).expect_err("it is refused")).expect("a text")
    }

    #[test]
    fn scripts_say_their_flags() {
        let read = script(b"#!lua flags=no-writes,allow-stale\nreturn 1").expect("it is right");
        assert_eq!(read.flags.names().collect::<Vec<_>>(), ["no-writes", "allow-stale"]);
        assert_eq!(read.source_at, 33);
        assert!(script(b"return 1").expect("it is right").flags.contains(Flags::COMPAT));
    }

    #[test]
    fn scripts_that_say_something_else_are_refused() {
        assert_eq!(refused("#!lua"), "Invalid script shebang");
        assert_eq!(refused("#!not-lua\n1"), "Unexpected engine in script shebang: #!not-lua");
        assert_eq!(refused("#!lua bad\n1"), "Unknown lua shebang option: bad");
        assert_eq!(refused("#!lua flags=bad\n1"), "Unexpected flag in script shebang: bad");
    }

    #[test]
    fn libraries_say_their_name() {
        let read = library(b"#!LUA name=\"my\\x31\"\n").expect("it is right");
        assert_eq!((read.engine.as_slice(), read.name.as_slice()), (&b"LUA"[..], &b"my1"[..]));
        assert_eq!(library(b"return 1"), Err(b"Missing library metadata".to_vec()));
        assert_eq!(library(b"#!lua\n"), Err(b"Library name was not given".to_vec()));
    }
}

//! How each type of value is read from words, shown by CONFIG GET and written to the file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::kind::{self, Kind, Reason};
use crate::words;

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The first line of this directive in a start: it drops what is built in.
    FirstLine,
    /// A later line: lists that add up are added to.
    LaterLine,
    /// CONFIG SET: replaces.
    Command,
}

/// Which lines the configuration file needs for a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// Those that give the value over the built-in defaults.
    OverDefaults,
    /// Those that give the value whatever was read before them.
    OverAnything,
}

/// A value of one directive.
pub(crate) trait Value: Sized {
    fn read(kind: &Kind, words: &[&[u8]]) -> Result<Self, Reason>;

    fn assign(&mut self, kind: &Kind, words: &[&[u8]], _: Source) -> Result<(), Reason> {
        *self = Self::read(kind, words)?;
        Ok(())
    }

    /// As CONFIG GET shows it.
    fn shown(&self, kind: &Kind) -> Vec<u8>;

    /// As lines of the configuration file, without the name.
    fn lines(&self, kind: &Kind, _: Lines) -> Vec<Vec<u8>> {
        vec![self.shown(kind)]
    }
}

/// The same without the type, to be kept in the table.
pub(crate) trait AnyValue {
    fn assign(&mut self, kind: &Kind, words: &[&[u8]], source: Source) -> Result<(), Reason>;
    fn shown(&self, kind: &Kind) -> Vec<u8>;
    fn lines(&self, kind: &Kind, which: Lines) -> Vec<Vec<u8>>;
}

impl<T: Value> AnyValue for T {
    fn assign(&mut self, kind: &Kind, words: &[&[u8]], source: Source) -> Result<(), Reason> {
        Value::assign(self, kind, words, source)
    }

    fn shown(&self, kind: &Kind) -> Vec<u8> {
        Value::shown(self, kind)
    }

    fn lines(&self, kind: &Kind, which: Lines) -> Vec<Vec<u8>> {
        Value::lines(self, kind, which)
    }
}

impl Value for bool {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        match kind::only(words)?.to_ascii_lowercase().as_slice() {
            b"yes" => Ok(true),
            b"no" => Ok(false),
            _ => Err("argument must be 'yes' or 'no'".into()),
        }
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        if *self { b"yes".to_vec() } else { b"no".to_vec() }
    }
}

macro_rules! numbers {
    ($($type:ty)*) => { $(
        impl Value for $type {
            fn read(kind: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
                let number = kind.number(kind::only(words)?)?;
                Self::try_from(number).map_err(|_| kind.out_of_limits())
            }

            fn shown(&self, kind: &Kind) -> Vec<u8> {
                kind.show_number((*self).into())
            }

            fn lines(&self, kind: &Kind, _: Lines) -> Vec<Vec<u8>> {
                vec![kind.write_number((*self).into())]
            }
        }
    )* };
}

numbers!(u16 u32 i32 u64 i64);

/// One of the words of its kind, for directives without a type of their own.
impl Value for &'static str {
    fn read(kind: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        let Kind::Word(allowed) = kind else { return Err(kind::WRONG_COUNT.into()) };
        let found = match words {
            [word] => allowed.iter().find(|name| name.as_bytes().eq_ignore_ascii_case(word)),
            _ => None,
        };
        found.copied().ok_or_else(|| kind::none_of(allowed.iter().copied()))
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Value for String {
    fn read(kind: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        let text = utf8(kind::only(words)?)?;
        if let Kind::Text(check) = kind {
            check(text)?;
        }
        Ok(text.to_owned())
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn lines(&self, _: &Kind, _: Lines) -> Vec<Vec<u8>> {
        vec![words::quote(self.as_bytes())]
    }
}

/// Passwords and user names: any bytes.
impl Value for Vec<u8> {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        kind::only(words).map(<[u8]>::to_vec)
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        self.clone()
    }

    fn lines(&self, _: &Kind, _: Lines) -> Vec<Vec<u8>> {
        vec![words::quote(self)]
    }
}

/// A file, or nothing if empty; or the working folder.
impl Value for PathBuf {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        let path = kind::only(words)?;
        if path.contains(&0) {
            return Err(ZERO_BYTE.into());
        }
        Ok(OsStr::from_bytes(path).into())
    }

    /// A folder is relative to the one before it, as `chdir` would have it.
    fn assign(&mut self, kind: &Kind, words: &[&[u8]], _: Source) -> Result<(), Reason> {
        let path = Self::read(kind, words)?;
        *self = if let Kind::Folder = kind { folder(&self.join(path))? } else { path };
        Ok(())
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        self.as_os_str().as_bytes().to_vec()
    }

    fn lines(&self, _: &Kind, _: Lines) -> Vec<Vec<u8>> {
        vec![words::quote(self.as_os_str().as_bytes())]
    }
}

fn folder(path: &Path) -> Result<PathBuf, Reason> {
    let path = path.canonicalize().map_err(|error| system_text(&error))?;
    if path.is_dir() { Ok(path) } else { Err("Not a directory".into()) }
}

/// The system's text for an error, as C programs print it.
pub(crate) fn system_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((plain, _)) => plain.to_owned(),
        None => text,
    }
}

/// Addresses and names.
impl Value for Vec<String> {
    fn read(kind: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        let Kind::Words { most, too_many, check } = kind else {
            return Err(kind::WRONG_COUNT.into());
        };
        if words.len() > *most {
            return Err((*too_many).into());
        }
        if let [b""] = words {
            return Ok(Self::new());
        }
        let checked = |word: &&[u8]| {
            let text = utf8(word)?;
            check(text)?;
            Ok(text.to_owned())
        };
        words.iter().map(checked).collect()
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        self.join(" ").into_bytes()
    }

    fn lines(&self, _: &Kind, _: Lines) -> Vec<Vec<u8>> {
        let quoted: Vec<_> =
            self.iter().map(|text| words::quote_if_needed(text.as_bytes())).collect();
        vec![if quoted.is_empty() { b"\"\"".to_vec() } else { quoted.join(&b' ') }]
    }
}

const ZERO_BYTE: &str = "argument must not contain a zero byte";

/// Text for the system, certificates and the like; passwords may be any bytes.
pub(crate) fn utf8(word: &[u8]) -> Result<&str, Reason> {
    match std::str::from_utf8(word) {
        Ok(text) if text.contains('\0') => Err(ZERO_BYTE.into()),
        Ok(text) => Ok(text),
        Err(_) => Err("argument must be valid UTF-8".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_yes_and_no_in_any_case() {
        assert_eq!(bool::read(&Kind::Bool, &[b"YES"]), Ok(true));
        assert_eq!(bool::read(&Kind::Bool, &[b"on"]), Err("argument must be 'yes' or 'no'".into()));
    }

    #[test]
    fn a_number_too_large_for_its_type_is_refused() {
        let kind = Kind::Integer { min: 0, max: i64::MAX };
        assert!(u16::read(&kind, &[b"65536"]).is_err());
    }

    #[test]
    fn what_no_system_call_would_take_is_refused() {
        assert!(PathBuf::read(&Kind::Path, &[b"a\0"]).is_err());
        assert!(String::read(&Kind::Text(|_| Ok(())), &[b"a\0"]).is_err());
        assert!(String::read(&Kind::Text(|_| Ok(())), &[b"\xff"]).is_err());
        assert_eq!(Vec::<u8>::read(&Kind::Secret, &[b"\xff\0"]), Ok(b"\xff\0".to_vec()));
    }

    #[test]
    fn a_folder_must_exist() {
        let mut path = PathBuf::from("/");
        let mut assign = |word: &[u8]| {
            Value::assign(&mut path, &Kind::Folder, &[word], Source::Command).map(|()| path.clone())
        };
        assert_eq!(assign(b"/no/such"), Err("No such file or directory".into()));
        assert_eq!(assign(b"/etc/passwd"), Err("Not a directory".into()));
        assert_eq!(assign(b"usr/../etc"), Ok("/etc".into()));
    }
}

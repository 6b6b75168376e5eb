//! The key file: keys that wrap the data keys of sealed files.
//!
//! ```text
//! # a comment
//! key 5f0c1d3a9be27846 8a1f...64 digits in all...09
//! ```
//!
//! The first key is for new files, the others are for those that were sealed with them. The id is made
//! of the key, so that neither can be mistyped unnoticed; a line may go without it. To change keys,
//! put `key` and 64 random digits (`openssl rand -hex 32`) on a line of their own above the others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fmt, process};

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::error::SealError;
use super::frame::{KEY, derive};

/// Longest key file: some 700 keys.
const SIZE_MAX: usize = 64 << 10;

const COMMENT: &str = "\
# Keys of this server's data files: the first seals new ones, the others open older ones.
# Whoever has this file can read them, and nobody can without it. Keep a copy in a safe place.
";

/// Names a key without giving it away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub(super) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The keys of a key file; there is at least one.
pub struct Keys {
    keys: Vec<(KeyId, Zeroizing<[u8; KEY]>)>,
}

/// Why a key file is of no use. Says where it is, and never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("the key file {} cannot be {attempt}: {error}", path.display())]
    Io { path: PathBuf, attempt: &'static str, error: io::Error },
    #[error(
        "the key file {} is open to others (mode {mode:04o}): take their permissions away \
        (chmod 600), and change the key if they may have read it",
        path.display()
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("line {line} of the key file {} is wrong: {fault}", path.display())]
    Line { path: PathBuf, line: usize, fault: &'static str },
    #[error("the key file {} has no key in it", path.display())]
    Empty { path: PathBuf },
    #[error("no key can be made: {0}")]
    Library(#[from] SealError),
}

impl From<KeyFileError> for io::Error {
    fn from(error: KeyFileError) -> Self {
        let kind = match &error {
            KeyFileError::Io { error, .. } => error.kind(),
            KeyFileError::TooOpen { .. } => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl Keys {
    /// Reads a key file, to open what has been sealed already.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let failed =
            |attempt| move |error| KeyFileError::Io { path: path.to_owned(), attempt, error };
        let file = File::open(path).map_err(failed("opened"))?;
        let metadata = file.metadata().map_err(failed("examined"))?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::TooOpen { path: path.to_owned(), mode });
        }
        // All the room at once: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(SIZE_MAX + 1));
        file.take(SIZE_MAX as u64 + 1).read_to_end(&mut text).map_err(failed("read"))?;
        Self::parse(&text).map_err(|fault| match fault {
            Fault::Line(line, fault) => KeyFileError::Line { path: path.to_owned(), line, fault },
            Fault::Empty => KeyFileError::Empty { path: path.to_owned() },
            Fault::Seal(error) => error.into(),
        })
    }

    /// Reads a key file, or makes one with a new key, to seal something.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match Self::load(path) {
            Err(KeyFileError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let keys = Self::random()?;
        match keys.save_new(path) {
            Ok(()) => Ok(keys),
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(KeyFileError::Io { path: path.to_owned(), attempt: "made", error }),
        }
    }

    /// One new key.
    pub fn random() -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; KEY]);
        rand::fill(&mut *key).map_err(|_| SealError::Library)?;
        Ok(Self { keys: vec![(id_of(&key)?, key)] })
    }

    /// The id of the key that seals new files.
    pub fn current_id(&self) -> KeyId {
        self.current().0
    }

    pub(super) fn current(&self) -> (KeyId, &[u8; KEY]) {
        let (id, key) = &self.keys[0];
        (*id, key)
    }

    pub(super) fn find(&self, id: KeyId) -> Option<&[u8; KEY]> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| &**key)
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, Fault> {
        if SIZE_MAX < text.len() {
            return Err(Fault::Line(1, "the file is too long to be a key file"));
        }
        let lines = || text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let mut keys = Vec::with_capacity(lines().count());
        for (place, line) in lines().enumerate() {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let wrong = |fault| Fault::Line(place + 1, fault);
            let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let words: Vec<&[u8]> = words.collect();
            let (id, digits) = match words[..] {
                [b"key", digits] => (None, digits),
                [b"key", id, digits] => (Some(id), digits),
                _ => return Err(wrong("a line is `key`, the key's id, and the key")),
            };
            let mut key = Zeroizing::new([0; KEY]);
            if !from_hex(digits, &mut *key) {
                return Err(wrong("a key has 64 hexadecimal digits"));
            }
            let true_id = id_of(&key).map_err(Fault::Seal)?;
            if let Some(id) = id {
                let mut given = [0; 8];
                if !from_hex(id, &mut given) {
                    return Err(wrong("a key's id has 16 hexadecimal digits"));
                }
                if given != true_id.0 {
                    return Err(wrong("the key does not belong to its id"));
                }
            }
            keys.push((true_id, key));
        }
        if keys.is_empty() { Err(Fault::Empty) } else { Ok(Self { keys }) }
    }

    /// The lines of the keys.
    fn text(&self) -> Zeroizing<String> {
        use fmt::Write;

        let mut text = Zeroizing::new(String::with_capacity(COMMENT.len() + 100 * self.keys.len()));
        text.push_str(COMMENT);
        for (id, key) in &self.keys {
            let _ = write!(text, "key {id} ");
            for byte in key.iter() {
                let _ = write!(text, "{byte:02x}");
            }
            text.push('\n');
        }
        text
    }

    /// Makes a file that is on disk and complete when it appears; one that is there already stays.
    fn save_new(&self, path: &Path) -> io::Result<()> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", process::id()));
        let draft = PathBuf::from(draft);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
        let saved = file
            .write_all(self.text().as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::hard_link(&draft, path));
        let removed = fs::remove_file(&draft);
        saved.and(removed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Line(usize, &'static str),
    Empty,
    Seal(SealError),
}

fn id_of(key: &[u8; KEY]) -> Result<KeyId, SealError> {
    let made = derive(key, b"carnelian key file", b"id")?;
    Ok(KeyId(*made.first_chunk().expect("it is longer")))
}

/// Fills `into` from exactly as many digits as it takes.
fn from_hex(digits: &[u8], into: &mut [u8]) -> bool {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    digits.len() == 2 * into.len()
        && into.iter_mut().zip(digits.chunks(2)).all(|(byte, pair)| {
            let value = digit(pair[0]).zip(digit(pair[1]));
            *byte = value.map_or(0, |(high, low)| high << 4 | low);
            value.is_some()
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("at-rest.key");
        let refused = Keys::load(&path).unwrap_err();
        assert!(matches!(&refused, KeyFileError::Io { error, .. }
            if error.kind() == io::ErrorKind::NotFound));

        let made = Keys::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        for found in [Keys::load_or_create(&path).unwrap(), Keys::load(&path).unwrap()] {
            assert_eq!(found.current(), made.current());
        }
        assert!(
            made.save_new(&path).is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        for mode in [0o640, 0o604, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = Keys::load_or_create(&path).unwrap_err().to_string();
            assert!(refused.contains(&format!("(mode {mode:04o})")), "{refused}");
            assert!(refused.contains("at-rest.key"), "{refused}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(Keys::load(&path).is_ok());
    }

    #[test]
    fn a_key_file_that_cannot_be_made_is_named() {
        let refused = Keys::load_or_create(Path::new("/no/such/folder/k")).unwrap_err();
        assert!(refused.to_string().starts_with("the key file /no/such/folder/k cannot be made: "));
    }

    #[test]
    fn the_first_key_is_the_current_one_and_all_are_found() {
        let text = format!("# old\n\nkey {}\n  key\t{DIGITS}  \r\n", "7".repeat(64));
        let keys = Keys::parse(text.as_bytes()).unwrap();
        assert_eq!(keys.current().1, &[0x77; KEY]);
        let counting: [u8; KEY] = std::array::from_fn(|place| place as u8);
        let id = id_of(&counting).unwrap();
        assert_eq!(keys.find(id), Some(&counting));
        assert_eq!(keys.find(KeyId([0; 8])), None);
        // What is written down can be read again.
        let again = Keys::parse(keys.text().as_bytes()).unwrap();
        assert_eq!(again.keys, keys.keys);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named_with_its_number() {
        let line = |text: &str| match Keys::parse(text.as_bytes()) {
            Err(Fault::Line(line, fault)) => format!("{line}: {fault}"),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(line("key"), "1: a line is `key`, the key's id, and the key");
        assert_eq!(
            line(&format!("\nKEY {DIGITS}")),
            "2: a line is `key`, the key's id, and the key"
        );
        for digits in [&DIGITS[1..], &format!("{DIGITS}0"), &DIGITS.replace("1F", "1g")] {
            assert_eq!(line(&format!("key {digits}")), "1: a key has 64 hexadecimal digits");
        }
        let wrong = format!("key {DIGITS}\nkey 00 {DIGITS}");
        assert_eq!(line(&wrong), "2: a key's id has 16 hexadecimal digits");
        let wrong = format!("key 0123456789abcdef {DIGITS}");
        assert_eq!(line(&wrong), "1: the key does not belong to its id");
        assert_eq!(Keys::parse(b"# nothing\n\n").unwrap_err(), Fault::Empty);
        assert!(line(&"\n".repeat(SIZE_MAX + 1)).contains("too long"));
    }

    #[test]
    fn no_key_is_shown() {
        let keys = Keys::parse(format!("key {DIGITS}").as_bytes()).unwrap();
        let shown = format!("{keys:?}");
        assert_eq!(shown, format!("[{}]", keys.current_id()));
        assert!(!shown.contains("0001") && shown.len() == 18);
    }
}

//! Which files are sealed, and with which keys: the two directives, for all who write and read files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::append::{Appender, Resumed};
use super::input::Input;
use super::keys::Keys;
use super::writer::SealedWriter;

/// `data-at-rest-encryption` and `data-at-rest-key-file`.
///
/// The key file is read anew for each file, so that a new key is used from the next one on.
#[derive(Debug)]
pub struct Policy {
    key_file: PathBuf,
    seals: AtomicBool,
}

impl Policy {
    /// `key_file` is a full path, or below the working folder of the process.
    pub fn new(key_file: PathBuf, seals: bool) -> Self {
        Self { key_file, seals: AtomicBool::new(seals) }
    }

    /// Whether files that are begun from now on are sealed.
    pub fn seals(&self) -> bool {
        self.seals.load(Ordering::Relaxed)
    }

    pub fn set_seals(&self, seals: bool) {
        self.seals.store(seals, Ordering::Relaxed);
    }

    /// Begins a whole file, sealed or not.
    pub fn create<W: Write>(&self, output: W) -> io::Result<Output<W>> {
        Ok(match self.seals() {
            true => Output::Sealed(SealedWriter::new(output, &self.keys_for_new()?)?),
            false => Output::Plain(output),
        })
    }

    /// Begins a growing file, if it is to be sealed: the header is appended to `out`.
    pub fn create_growing(&self, out: &mut Vec<u8>) -> io::Result<Option<Appender>> {
        match self.seals() {
            true => Ok(Some(Appender::create(&self.keys_for_new()?, out)?)),
            false => Ok(None),
        }
    }

    /// Reads a file of either sort, whatever is set now.
    pub fn open<R: Read>(&self, input: R) -> io::Result<Input<R>> {
        Input::detect(input, || self.keys())
    }

    /// Cuts a growing file that is sealed to so much content, or where it is torn if `None`. What
    /// it returns goes on with it.
    pub fn cut(&self, path: &Path, text: Option<u64>) -> io::Result<Appender> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let Resumed { appender, keep, append } = Appender::resume(&file, &self.keys()?, text)?;
        if file.metadata()?.len() != keep || !append.is_empty() {
            file.set_len(keep)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(&append)?;
            file.sync_data()?;
        }
        Ok(appender)
    }

    /// The keys as they are, to open a file.
    pub fn keys(&self) -> io::Result<Keys> {
        Ok(Keys::load(&self.key_file)?)
    }

    /// The keys, made if there are none yet, to seal a file.
    fn keys_for_new(&self) -> io::Result<Keys> {
        Ok(Keys::load_or_create(&self.key_file)?)
    }
}

/// What names the key file to a program that checks files.
pub const KEY_FILE_OPTION: &str = "--key-file";

/// Why such a program could not read a sealed file.
pub fn unopened(key_file: &Path, error: &io::Error) -> String {
    match key_file.as_os_str().is_empty() {
        true => format!("Name its key file: {KEY_FILE_OPTION} <key-file>, before all else"),
        false => format!("{error}"),
    }
}

/// Whether there is a file, and it is sealed.
pub fn is_sealed_file(path: &Path) -> io::Result<bool> {
    if fs::metadata(path)?.len() == 0 {
        return Ok(false);
    }
    let mut beginning = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut beginning)?;
    Ok(super::is_sealed(&beginning))
}

/// A whole file that is being written, sealed or not.
pub enum Output<W: Write> {
    Plain(W),
    Sealed(SealedWriter<W>),
}

impl<W: Write> Output<W> {
    /// Writes what there is left to write. The file is yet to be flushed to disk.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(mut output) => output.flush().map(|()| output),
            Self::Sealed(output) => output.finish(),
        }
    }

    /// What the bytes go to, for those who flush it to disk now and then.
    pub fn output(&self) -> &W {
        match self {
            Self::Plain(output) => output,
            Self::Sealed(output) => output.output(),
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(output) => output.write(bytes),
            Self::Sealed(output) => output.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(output) => output.flush(),
            Self::Sealed(output) => output.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(policy: &Policy, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        policy.open(File::open(path)?)?.read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn files_of_either_sort_are_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let (key_file, path) = (folder.path().join("key"), folder.path().join("file"));
        let policy = Policy::new(key_file.clone(), false);
        for (seals, expected) in [(false, "plain"), (true, "sealed")] {
            policy.set_seals(seals);
            let mut output = policy.create(File::create(&path).unwrap()).unwrap();
            output.write_all(expected.as_bytes()).unwrap();
            output.finish().unwrap();
            assert_eq!(is_sealed_file(&path).unwrap(), seals);
            assert_eq!(key_file.exists(), seals);
            for reads in [false, true] {
                policy.set_seals(reads);
                assert_eq!(text(&policy, &path).unwrap(), expected);
            }
        }
        // To read never makes a key file.
        fs::remove_file(&key_file).unwrap();
        let error = text(&policy, &path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the key file {}", key_file.display())), "{error}");
        assert!(!key_file.exists());
    }

    #[test]
    fn a_torn_file_is_cut_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let policy = Policy::new(folder.path().join("key"), true);
        let mut bytes = Vec::new();
        let mut appender = policy.create_growing(&mut bytes).unwrap().unwrap();
        appender.seal(b"0123", &mut bytes).unwrap();
        let one_lot = bytes.len();
        appender.seal(b"4567", &mut bytes).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();

        let append = |text: Option<u64>, more: &[u8]| {
            let mut bytes = Vec::new();
            policy.cut(&path, text).unwrap().seal(more, &mut bytes).unwrap();
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(&bytes).unwrap();
        };
        append(None, b"abc");
        assert_eq!(text(&policy, &path).unwrap(), "0123abc");
        append(Some(5), b"-");
        assert_eq!(text(&policy, &path).unwrap(), "0123a-");
        append(Some(0), b"");
        assert_eq!(text(&policy, &path).unwrap(), "");
        assert!((fs::metadata(&path).unwrap().len() as usize) < one_lot);
    }
}

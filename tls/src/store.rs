//! Certificates and keys as files: read with errors that name the file, written so that a crash
//! leaves either the old or the new, and a private key is never readable by others, not even for
//! the moment between creating the file and setting its mode.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

use crate::error::ConfigError;

/// No certificate or key file is as large as this; a mistaken path may well be.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    /// 0600.
    Owner,
    /// 0644.
    Everyone,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everyone => 0o644,
        }
    }
}

/// Replaces `path` by `contents` as a whole: temporary file, fsync, rename, fsync of the folder.
pub(crate) fn write(path: &Path, contents: &[u8], access: Access) -> Result<(), ConfigError> {
    write_whole(path, contents, access)
        .map_err(|source| ConfigError::Write { path: path.to_owned(), source })
}

fn write_whole(path: &Path, contents: &[u8], access: Access) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);

    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(contents)?;
        // The mode given to open is narrowed by the umask, which may be 0077.
        file.set_permissions(fs::Permissions::from_mode(access.mode()))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// Makes `folder` if it is missing, closed to others.
pub(crate) fn make_folder(folder: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::DirBuilderExt;

    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| ConfigError::Write { path: folder.to_owned(), source })
}

/// The whole of a file, `None` if there is none.
pub(crate) fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    match read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The whole of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let bounded = || {
        let mut contents = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents)?;
        match contents.len() as u64 <= FILE_BYTES_MAX {
            true => Ok(contents),
            false => Err(io::Error::other("larger than any certificate file")),
        }
    };
    bounded().map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// The certificates of a PEM file in the order they stand there, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    certificates_in(&read(path)?, path)
}

/// The same for contents already read; `path` is for the errors.
pub(crate) fn certificates_in(
    contents: &[u8],
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let all = CertificateDer::pem_slice_iter(contents)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|error| ConfigError::BadPem { path: path.to_owned(), reason: reason(&error) })?;
    match all.is_empty() {
        true => Err(ConfigError::NoCertificate { path: path.to_owned() }),
        false => Ok(all),
    }
}

/// The library's words carry bytes of the line; these do not.
pub(crate) fn reason(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section is not ended (cut short?)".into(),
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed".into(),
        pem::Error::Base64Decode(_) => "a section is not valid base64".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_get_the_mode_asked_for_and_leave_nothing_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let (key, cert) = (folder.path().join("a.key"), folder.path().join("a.pem"));
        fs::write(&key, "old").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).unwrap();

        write(&key, b"secret", Access::Owner).unwrap();
        write(&cert, b"public", Access::Everyone).unwrap();

        assert_eq!((mode(&key), mode(&cert)), (0o600, 0o644));
        assert_eq!(fs::read(&key).unwrap(), b"secret");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none/a.key");
        let error = write(&missing, b"x", Access::Owner).unwrap_err().to_string();
        assert!(error.contains("none/a.key"), "{error}");
    }

    #[test]
    fn files_that_hold_no_certificate_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        for (contents, expected) in [
            ("", "no certificate"),
            ("hello\n", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "base64"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "not ended"),
        ] {
            fs::write(&path, contents).unwrap();
            let error = certificates(&path).unwrap_err().to_string();
            assert!(error.contains("a.pem") && error.contains(expected), "{error}");
        }
    }
}

//! Sealing the authority's key at rest: AES-256-GCM under a key of its own in a file of its own,
//! which can lie on another disk, be mounted only when needed, or be taken away.
//!
//! A sealed file is `CARNSEAL`, the version 1, a random nonce of 12 bytes, and what was sealed with
//! its tag. Name and version are authenticated with it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::Error;
use crate::describe::{hex, unhex};
use crate::error::ConfigError;
use crate::store::{self, Access};

const HEADER: &[u8; 9] = b"CARNSEAL\x01";
const KEY_BYTES: usize = 32;

/// The key that seals, and the file it came from.
pub struct SealKey {
    key: RandomizedNonceKey,
    /// For what follows from the key: see [`Self::derive`].
    root: hmac::Key,
    path: PathBuf,
}

impl SealKey {
    /// Makes a new one in a file that must not exist yet.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| ConfigError::NoRandomness)?;
        if store::read_if_present(path)?.is_some() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        Self::install(path, &bytes)
    }

    /// The one in a file, which nobody but its owner may be able to read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::of(&*Self::read(path)?, path)
    }

    fn read(path: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, Error> {
        let contents = Zeroizing::new(store::read(path)?);
        let mode = std::fs::metadata(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(Error::Exposed { path: path.to_owned(), mode: mode & 0o777 });
        }
        let bad = || Error::BadSealKey { path: path.to_owned() };
        let text = std::str::from_utf8(&contents).map_err(|_| bad())?;
        let bytes = Zeroizing::new(unhex(text.trim_end()).ok_or_else(bad)?);
        let bytes: &[u8; KEY_BYTES] = bytes[..].try_into().map_err(|_| bad())?;
        Ok(Zeroizing::new(*bytes))
    }

    fn of(bytes: &[u8; KEY_BYTES], path: &Path) -> Result<Self, Error> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes)
            .map_err(|_| Error::BadSealKey { path: path.to_owned() })?;
        Ok(Self { key, root: hmac::Key::new(hmac::HMAC_SHA256, bytes), path: path.to_owned() })
    }

    /// A secret for a purpose, the same wherever this key is.
    pub fn derive(&self, purpose: &str) -> [u8; KEY_BYTES] {
        let mut secret = [0; KEY_BYTES];
        secret.copy_from_slice(hmac::sign(&self.root, purpose.as_bytes()).as_ref());
        secret
    }

    /// A key that follows from this one, for much else than it: nonces by chance are good for some billions of
    /// uses of one key.
    pub fn for_purpose(&self, purpose: &str) -> Result<Self, Error> {
        Self::of(&Zeroizing::new(self.derive(purpose)), &self.path)
    }

    /// The key that other nodes know too: a joining node is given it, over a link, and keeps it in a
    /// file of its own. In the place of one that is there.
    pub fn install(path: &Path, bytes: &[u8; KEY_BYTES]) -> Result<Self, Error> {
        let digits = Zeroizing::new(hex(bytes));
        store::write(path, digits.as_bytes(), Access::Owner)?;
        Self::of(bytes, path)
    }

    /// What [`install`](Self::install) takes: read anew from the key's file, as it is kept nowhere
    /// else in the clear.
    pub fn reveal(&self) -> Result<Zeroizing<[u8; KEY_BYTES]>, Error> {
        Self::read(&self.path)
    }

    /// Seals anything.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut body = plain.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(HEADER), &mut body)
            .map_err(|_| ConfigError::NoRandomness)?;
        Ok([HEADER, &nonce.as_ref()[..], &body].concat())
    }

    /// Whether something looks as if it were sealed.
    pub fn has_sealed(bytes: &[u8]) -> bool {
        bytes.starts_with(HEADER)
    }

    /// What was sealed into the file `path` with this key, unchanged since.
    pub fn unseal(&self, sealed: &[u8], path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
        let bad = || Error::NotSealed { path: path.to_owned() };
        let rest = sealed.strip_prefix(HEADER).ok_or_else(bad)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(bad)?;
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain_bytes = self
            .key
            .open_in_place(nonce, Aad::from(HEADER), &mut body)
            .map_err(|_| Error::WrongSealKey { path: path.to_owned(), key: self.path.clone() })?
            .len();
        body.truncate(plain_bytes);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_only_and_only_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let sealed = SealKey::create(&path).unwrap().seal(b"secret").unwrap();
        let key = SealKey::open(&path).unwrap();
        let file = Path::new("ca.sealed");
        assert_eq!(*key.unseal(&sealed, file).unwrap(), b"secret");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(key.seal(b"secret").unwrap(), sealed, "never twice the same nonce");

        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            let error = key.unseal(&changed, file).unwrap_err().to_string();
            assert!(error.contains("ca.sealed"), "{error}");
            assert!(key.unseal(&sealed[..place], file).is_err());
        }
        let other = SealKey::create(&folder.path().join("other")).unwrap();
        let error = other.unseal(&sealed, file).unwrap_err().to_string();
        assert!(error.contains("other"), "{error}");
    }

    #[test]
    fn what_is_derived_depends_on_key_and_purpose() {
        let folder = tempfile::tempdir().unwrap();
        let key = SealKey::create(&folder.path().join("here")).unwrap();
        let copy = SealKey::install(&folder.path().join("there"), &key.reveal().unwrap()).unwrap();
        assert_eq!(copy.derive("tokens"), key.derive("tokens"));
        assert_ne!(key.derive("tokens"), key.derive("tickets"));
        let other = SealKey::create(&folder.path().join("other")).unwrap();
        assert_ne!(other.derive("tokens"), key.derive("tokens"));

        let sealed = key.for_purpose("log").unwrap().seal(b"entry").unwrap();
        assert!(SealKey::has_sealed(&sealed) && !SealKey::has_sealed(b"{}"));
        let file = Path::new("log");
        assert_eq!(*copy.for_purpose("log").unwrap().unseal(&sealed, file).unwrap(), b"entry");
        assert!(copy.unseal(&sealed, file).is_err());
        assert!(copy.for_purpose("state").unwrap().unseal(&sealed, file).is_err());
    }

    #[test]
    fn key_files_are_not_replaced_and_must_be_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        SealKey::create(&path).unwrap();
        assert!(matches!(SealKey::create(&path), Err(Error::Exists { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = SealKey::open(&path).err().unwrap().to_string();
        assert!(error.contains("0640"), "{error}");
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(66), "\u{0444}"] {
            fs::write(&path, bad).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(SealKey::open(&path), Err(Error::BadSealKey { .. })), "{bad}");
        }
    }
}

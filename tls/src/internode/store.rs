//! What a node keeps of the internode channel, in a folder of its own, closed to others. Every
//! file has mode 0600 and is replaced as a whole; a key and its certificate are one file, so that no
//! crash can part them.
//!
//! | file | content |
//! |---|---|
//! | `control.pem`, `data.pem` | the node's certificate for the plane and its key |
//! | `control.key.pending`, `data.key.pending` | a key whose request has not been granted yet |
//! | `trust.pem` | `Revision: N` of the state that named them, if one did; the authorities that are trusted, one or two |
//! | `revoked` | lines `serial HEX` (and the end of its life) and `node UID` |
//! | `authority.sealed` | certificate and key of the authority, sealed, unless the cluster's state has it |
//! | `seal.key` | what it is sealed with, unless that is kept elsewhere |

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::Error;
use super::ca::SigningAuthority;
use super::credential::Credential;
use super::issue::NodeKey;
use super::peer::{Plane, Serial};
use super::policy::{Authority, Revocations, Trust};
use super::seal::SealKey;
use crate::error::ConfigError;
use crate::pem;
use crate::store::{self, Access};

const AUTHORITY: &str = "authority.sealed";
const TRUST: &str = "trust.pem";
const REVOKED: &str = "revoked";
/// Readers of PEM pass over a line like this.
const REVISION: &str = "Revision: ";
const SEAL_KEY: &str = "seal.key";

/// The folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Its name within the data folder.
    pub const FOLDER: &str = "internode";

    /// The store in a data folder; makes it if it is missing.
    pub fn open(data_folder: &Path) -> Result<Self, Error> {
        let folder = data_folder.join(Self::FOLDER);
        store::make_folder(&folder)?;
        Ok(Self { folder })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of the key that seals the authority, unless the operator keeps it elsewhere.
    pub fn seal_key_file(&self) -> PathBuf {
        self.folder.join(SEAL_KEY)
    }

    /// Whether an authority is kept here.
    pub fn has_authority(&self) -> bool {
        self.folder.join(AUTHORITY).exists()
    }

    pub fn save_authority(&self, authority: &SigningAuthority, key: &SealKey) -> Result<(), Error> {
        Ok(store::write(&self.folder.join(AUTHORITY), &authority.seal(key)?, Access::Owner)?)
    }

    pub fn authority(&self, key: &SealKey) -> Result<SigningAuthority, Error> {
        let path = self.folder.join(AUTHORITY);
        SigningAuthority::unseal(&store::read(&path)?, key, &path)
    }

    /// The authority is kept elsewhere from now on.
    pub fn forget_authority(&self) -> Result<(), Error> {
        remove(self.folder.join(AUTHORITY))
    }

    /// Keeps a key until its request has been granted, in the place of an earlier one.
    pub fn save_pending_key(&self, plane: Plane, key: &NodeKey) -> Result<(), Error> {
        let path = self.pending(plane);
        Ok(store::write(&path, key.to_pem().as_bytes(), Access::Owner)?)
    }

    /// The key whose request has not been granted yet.
    pub fn pending_key(&self, plane: Plane) -> Result<Option<NodeKey>, Error> {
        let contents = store::read_if_present(&self.pending(plane))?.map(Zeroizing::new);
        contents.map(|pem| NodeKey::from_pem(&pem)).transpose()
    }

    /// Keeps a credential; the request for it is over.
    pub fn save_credential(&self, credential: &Credential) -> Result<(), Error> {
        let plane = credential.identity().plane;
        let certificate = pem::certificate(credential.certificate());
        let contents = Zeroizing::new([&certificate, credential.key_pem()].concat());
        store::write(&self.credential_file(plane), contents.as_bytes(), Access::Owner)?;
        remove(self.pending(plane))
    }

    /// Whether there is one for this plane.
    pub fn has_credential(&self, plane: Plane) -> bool {
        self.credential_file(plane).exists()
    }

    pub fn credential(&self, plane: Plane) -> Result<Credential, Error> {
        let path = self.credential_file(plane);
        let contents = Zeroizing::new(store::read(&path)?);
        let certificate = store::certificates_in(&contents, &path)?.remove(0);
        let named = |error: Error| Error::BadFile { path: path.clone(), reason: error.to_string() };
        NodeKey::from_pem(&contents).and_then(|key| key.certified(certificate)).map_err(named)
    }

    pub fn save_trust(&self, trust: &Trust) -> Result<(), Error> {
        let mut text = match trust.revision() {
            0 => String::new(),
            revision => format!("{REVISION}{revision}\n"),
        };
        text.extend(trust.authorities().iter().map(Authority::to_pem));
        // Should the second write fail, more is revoked than is known, which is no harm, or the
        // new authorities are not trusted yet, which shows.
        let revoked = revoked_text(&trust.revocations);
        store::write(&self.folder.join(REVOKED), revoked.as_bytes(), Access::Owner)?;
        Ok(store::write(&self.folder.join(TRUST), text.as_bytes(), Access::Owner)?)
    }

    /// Whether it is known whom to trust.
    pub fn has_trust(&self) -> bool {
        self.folder.join(TRUST).exists()
    }

    /// Authorities and revocations.
    pub fn trust(&self) -> Result<Trust, Error> {
        let path = self.folder.join(TRUST);
        let named = |error: Error| Error::BadFile { path: path.clone(), reason: error.to_string() };
        let contents = store::read(&path)?;
        let certificates = store::certificates_in(&contents, &path)?;
        let authorities: Result<Vec<Authority>, Error> =
            certificates.into_iter().map(Authority::new).collect();
        let revision = read_revision(&contents, &path)?;
        let mut trust = authorities.and_then(Trust::new).map_err(named)?.as_of(revision);
        let path = self.folder.join(REVOKED);
        if let Some(contents) = store::read_if_present(&path)? {
            trust.revocations = read_revoked(&contents, &path)?;
        }
        Ok(trust)
    }

    fn credential_file(&self, plane: Plane) -> PathBuf {
        self.folder.join(format!("{plane}.pem"))
    }

    fn pending(&self, plane: Plane) -> PathBuf {
        self.folder.join(format!("{plane}.key.pending"))
    }
}

fn remove(path: PathBuf) -> Result<(), Error> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ConfigError::Write { path, source: error }.into())
        }
        _ => Ok(()),
    }
}

/// The first line, if it is that.
fn read_revision(contents: &[u8], path: &Path) -> Result<u64, Error> {
    let Some(rest) = contents.strip_prefix(REVISION.as_bytes()) else { return Ok(0) };
    let text = String::from_utf8_lossy(rest);
    let number = text.lines().next().and_then(|line| line.trim().parse().ok());
    let reason = || format!("what follows '{REVISION}' is no number");
    number.ok_or_else(|| Error::BadFile { path: path.to_owned(), reason: reason() })
}

fn revoked_text(revocations: &Revocations) -> String {
    let mut text = String::new();
    for (serial, end) in &revocations.serials {
        let _ = match end {
            Some(end) => writeln!(text, "serial {serial} {end}"),
            None => writeln!(text, "serial {serial}"),
        };
    }
    for node in &revocations.nodes {
        let _ = writeln!(text, "node {node}");
    }
    text
}

/// A line that cannot be read is an error: to pass over it would be to believe whom it names.
fn read_revoked(contents: &[u8], path: &Path) -> Result<Revocations, Error> {
    let mut revocations = Revocations::default();
    let text = String::from_utf8_lossy(contents);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let is_known = match line.split_once(' ') {
            _ if line.is_empty() || line.starts_with('#') => true,
            Some(("serial", rest)) => {
                let entry = revoked_serial(rest);
                entry.map(|(serial, end)| revocations.serials.insert(serial, end)).is_some()
            }
            Some(("node", node)) => node.parse().map(|node| revocations.nodes.insert(node)).is_ok(),
            _ => false,
        };
        if !is_known {
            let reason =
                format!("line {} is neither 'serial HEX [END]' nor 'node UID'", number + 1);
            return Err(Error::BadFile { path: path.to_owned(), reason });
        }
    }
    Ok(revocations)
}

fn revoked_serial(text: &str) -> Option<(Serial, Option<i64>)> {
    match text.split_once(' ') {
        None => Some((text.parse().ok()?, None)),
        Some((serial, end)) => Some((serial.parse().ok()?, Some(end.parse().ok()?))),
    }
}

/// The certificates of a PEM file, at least one.
pub fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    Ok(store::certificates(path)?)
}

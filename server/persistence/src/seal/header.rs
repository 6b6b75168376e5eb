//! The beginning of a sealed file: which key opens it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::error::SealError;
use super::frame::{Chain, KEY, SALT, TAG};
use super::keys::{KeyId, Keys};

pub(super) const MAGIC: &[u8; 8] = b"CARNSEAL";
const VERSION: u8 = 1;

const KEY_ID: usize = 12;
const SALT_AT: usize = 20;
const NONCE: usize = 36;
const WRAPPED: usize = 48;
const TAG_AT: usize = WRAPPED + KEY;
pub(super) const SIZE: usize = TAG_AT + TAG;

/// Whether a file has to have an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Written in one go, and of no use if its last frame is missing.
    Whole,
    /// Appended to, maybe in several runs.
    Growing,
}

impl Form {
    fn byte(self) -> u8 {
        match self {
            Self::Whole => 1,
            Self::Growing => 2,
        }
    }
}

/// The header of a new file, with a data key of its own, and the chain of frames that follows it.
pub(super) fn create(form: Form, keys: &Keys) -> Result<([u8; SIZE], Chain), SealError> {
    let mut header = [0; SIZE];
    let (id, wrapping) = keys.current();
    header[..8].copy_from_slice(MAGIC);
    header[8] = VERSION;
    header[9] = form.byte();
    header[KEY_ID..SALT_AT].copy_from_slice(&id.0);
    rand::fill(&mut header[SALT_AT..WRAPPED]).map_err(|_| SealError::Library)?;

    let mut secret = Zeroizing::new([0; KEY]);
    rand::fill(&mut *secret).map_err(|_| SealError::Library)?;
    header[WRAPPED..TAG_AT].copy_from_slice(&*secret);
    let (open, wrapped) = header.split_at_mut(WRAPPED);
    let (wrapped, tag_place) = wrapped.split_at_mut(KEY);
    let tag = cipher(wrapping)?
        .seal_in_place_separate_tag(nonce(open)?, Aad::from(&open[..NONCE]), wrapped)
        .map_err(|_| SealError::Library)?;
    tag_place.copy_from_slice(tag.as_ref());

    let chain = Chain::begin(secret, &salt(&header), tag_of(&header))?;
    Ok((header, chain))
}

/// Reads a header.
pub(super) fn open(header: &[u8; SIZE], keys: &Keys) -> Result<(Form, Chain), SealError> {
    if !header.starts_with(MAGIC) {
        return Err(SealError::NotSealed);
    }
    if header[8] != VERSION {
        return Err(SealError::Version(header[8]));
    }
    let id = KeyId(header[KEY_ID..SALT_AT].try_into().expect("eight bytes"));
    let wrapping = keys.find(id).ok_or(SealError::UnknownKey(id))?;

    let mut secret = Zeroizing::new([0; KEY]);
    secret.copy_from_slice(&header[WRAPPED..TAG_AT]);
    let (open, tag) = (&header[..WRAPPED], &header[TAG_AT..]);
    cipher(wrapping)?
        .open_in_place_separate_tag(nonce(open)?, Aad::from(&open[..NONCE]), tag, &mut *secret)
        .map_err(|_| SealError::Header(id))?;

    // Authentic by now: a form that is not known comes from a later version of this program.
    let form = match header[9] {
        1 => Form::Whole,
        2 => Form::Growing,
        _ => return Err(SealError::Header(id)),
    };
    Ok((form, Chain::begin(secret, &salt(header), tag_of(header))?))
}

fn cipher(key: &[u8; KEY]) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealError::Library)?;
    Ok(LessSafeKey::new(key))
}

fn nonce(open: &[u8]) -> Result<Nonce, SealError> {
    Nonce::try_assume_unique_for_key(&open[NONCE..WRAPPED]).map_err(|_| SealError::Library)
}

fn salt(header: &[u8; SIZE]) -> [u8; SALT] {
    header[SALT_AT..NONCE].try_into().expect("sixteen bytes")
}

fn tag_of(header: &[u8; SIZE]) -> [u8; TAG] {
    header[TAG_AT..].try_into().expect("sixteen bytes")
}

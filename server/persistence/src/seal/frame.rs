//! The chain of frames: each authenticates its number and the frame before.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::error::{Damage, SealError};
use crate::rdb::crc64::crc64;

pub(super) const KEY: usize = 32;
pub(super) const TAG: usize = 16;
pub(super) const SALT: usize = 16;
/// Bytes of a frame before its text.
pub(super) const HEAD: usize = 8;
/// Longest text of a frame, so that a reader's buffer is bounded.
pub(super) const TEXT_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, with more to come.
    Data,
    /// Text, and nothing after it.
    Last,
    /// Begins a run: what follows is sealed with the key that comes of its salt.
    Run,
}

/// What stands before a frame's text.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub kind: Kind,
    pub length: usize,
}

impl Head {
    /// Length and kind in one word.
    fn word(self) -> u32 {
        let length = u32::try_from(self.length).expect("no longer than TEXT_MAX");
        length | (self.kind as u32) << 24
    }

    fn write(self, number: u64, head: &mut [u8]) {
        let word = self.word();
        head[..4].copy_from_slice(&word.to_le_bytes());
        head[4..HEAD].copy_from_slice(&checksum(number, word).to_le_bytes());
    }

    pub(super) fn read(number: u64, head: [u8; HEAD]) -> Result<Self, Damage> {
        let [word, check] = [0, 4]
            .map(|at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
        if check != checksum(number, word) {
            return Err(Damage::Head);
        }
        let kind = match word >> 24 {
            0 => Kind::Data,
            1 => Kind::Last,
            2 => Kind::Run,
            _ => return Err(Damage::Kind),
        };
        let length = (word & 0xFF_FFFF) as usize;
        let most = if kind == Kind::Run { SALT } else { TEXT_MAX };
        if most < length || kind == Kind::Run && length < SALT {
            return Err(Damage::Length);
        }
        Ok(Self { kind, length })
    }

    /// Bytes of the frame.
    pub(super) fn size(self) -> usize {
        HEAD + self.length + TAG
    }
}

/// Tells chance damage from a frame that was cut off: against intent there is the tag.
pub(super) fn checksum(number: u64, word: u32) -> u32 {
    crc64(crc64(u64::MAX, &number.to_le_bytes()), &word.to_le_bytes()) as u32
}

/// Seals or opens one frame after the other.
///
/// Invariant: `number` never decreases while `cipher` stays, except for [`Chain::back_to`], after
/// which nothing is sealed before [`Chain::start_run`] has changed it.
pub(super) struct Chain {
    /// The data key: only runs' keys are made of it.
    secret: Zeroizing<[u8; KEY]>,
    /// That of the run.
    cipher: LessSafeKey,
    /// Of the next frame.
    number: u64,
    /// The tag of the frame before, or the header's.
    previous: [u8; TAG],
}

/// A place between two frames.
#[derive(Clone, Copy)]
pub(super) struct Place {
    number: u64,
    previous: [u8; TAG],
}

impl Chain {
    pub(super) fn begin(
        secret: Zeroizing<[u8; KEY]>,
        salt: &[u8; SALT],
        previous: [u8; TAG],
    ) -> Result<Self, SealError> {
        let cipher = run_cipher(&secret, salt)?;
        Ok(Self { secret, cipher, number: 0, previous })
    }

    /// The number of the next frame.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn place(&self) -> Place {
        Place { number: self.number, previous: self.previous }
    }

    /// Forgets the frames after a place. The next one sealed must begin a run.
    pub(super) fn back_to(&mut self, place: Place) {
        (self.number, self.previous) = (place.number, place.previous);
    }

    /// Seals a frame in place: room for its head, the text, room for the tag.
    pub(super) fn seal(&mut self, kind: Kind, frame: &mut [u8]) -> Result<(), SealError> {
        let head = Head { kind, length: frame.len() - HEAD - TAG };
        debug_assert!(head.length <= TEXT_MAX && kind != Kind::Run, "no such frame");
        let (head_place, rest) = frame.split_at_mut(HEAD);
        let (text, tag_place) = rest.split_at_mut(head.length);
        head.write(self.number, head_place);
        let aad = Aad::from(self.covered(head));
        let tag = self
            .cipher
            .seal_in_place_separate_tag(self.nonce(), aad, text)
            .map_err(|_| SealError::Library)?;
        tag_place.copy_from_slice(tag.as_ref());
        self.passed(tag.as_ref());
        Ok(())
    }

    /// Adds a frame that begins a run.
    pub(super) fn start_run(&mut self, out: &mut Vec<u8>) -> Result<(), SealError> {
        let mut salt = [0; SALT];
        rand::fill(&mut salt).map_err(|_| SealError::Library)?;
        let cipher = run_cipher(&self.secret, &salt)?;
        let head = Head { kind: Kind::Run, length: SALT };
        let tag = cipher
            .seal_in_place_separate_tag(self.nonce(), self.covered_with(head, &salt), &mut [])
            .map_err(|_| SealError::Library)?;
        let mut start = [0; HEAD];
        head.write(self.number, &mut start);
        out.extend_from_slice(&start);
        out.extend_from_slice(&salt);
        out.extend_from_slice(tag.as_ref());
        self.cipher = cipher;
        self.passed(tag.as_ref());
        Ok(())
    }

    /// Opens a whole frame in place. Its text stays where it is; that of a run frame is its salt.
    pub(super) fn open(&mut self, head: Head, frame: &mut [u8]) -> Result<(), Damage> {
        let (text, tag) = frame[HEAD..].split_at_mut(head.length);
        if head.kind == Kind::Run {
            let salt: &[u8; SALT] = (&*text).try_into().expect("its head was checked");
            let cipher = run_cipher(&self.secret, salt).map_err(|_| Damage::Content)?;
            let aad = self.covered_with(head, salt);
            cipher
                .open_in_place_separate_tag(self.nonce(), aad, tag, &mut [])
                .map_err(|_| Damage::Content)?;
            self.cipher = cipher;
        } else {
            let aad = Aad::from(self.covered(head));
            self.cipher
                .open_in_place_separate_tag(self.nonce(), aad, tag, text)
                .map_err(|_| Damage::Content)?;
        }
        self.passed(tag);
        Ok(())
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// What a tag covers beside the text.
    fn covered(&self, head: Head) -> [u8; TAG + 8 + 4] {
        let mut covered = [0; TAG + 8 + 4];
        covered[..TAG].copy_from_slice(&self.previous);
        covered[TAG..TAG + 8].copy_from_slice(&self.number.to_le_bytes());
        covered[TAG + 8..].copy_from_slice(&head.word().to_le_bytes());
        covered
    }

    /// The same of a frame that begins a run.
    fn covered_with(&self, head: Head, salt: &[u8; SALT]) -> Aad<[u8; TAG + 8 + 4 + SALT]> {
        let mut covered = [0; TAG + 8 + 4 + SALT];
        let (front, back) = covered.split_at_mut(TAG + 8 + 4);
        front.copy_from_slice(&self.covered(head));
        back.copy_from_slice(salt);
        Aad::from(covered)
    }

    fn passed(&mut self, tag: &[u8]) {
        self.number += 1;
        self.previous.copy_from_slice(tag);
    }
}

/// The key of a run.
fn run_cipher(secret: &[u8; KEY], salt: &[u8; SALT]) -> Result<LessSafeKey, SealError> {
    let key = derive(secret, salt, b"carnelian sealed run")?;
    let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| SealError::Library)?;
    Ok(LessSafeKey::new(key))
}

/// A key made of another, for one use of it.
pub(super) fn derive(
    secret: &[u8; KEY],
    salt: &[u8],
    used_for: &[u8],
) -> Result<Zeroizing<[u8; KEY]>, SealError> {
    let mut key = Zeroizing::new([0; KEY]);
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[used_for], HKDF_SHA256)
        .and_then(|made| made.fill(&mut *key))
        .map_err(|_| SealError::Library)?;
    Ok(key)
}

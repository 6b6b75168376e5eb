//! What can be wrong with a sealed file.

use std::io;

use super::header;
use super::keys::KeyId;

/// Why a sealed file is not read any further. Readers return it inside of an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("it does not begin as a sealed file does")]
    NotSealed,
    #[error("it is sealed in version {0}, which is not known here")]
    Version(u8),
    #[error("it is sealed with key {0}, which the key file does not have")]
    UnknownKey(KeyId),
    #[error("its header is damaged: key {0} does not open it")]
    Header(KeyId),
    #[error("it ends inside of its header, after {0} of {size} bytes", size = header::SIZE)]
    ShortHeader(usize),
    #[error("frame {frame}, at byte {offset}, is damaged: {damage}")]
    Damaged { frame: u64, offset: u64, damage: Damage },
    #[error("it is cut off at byte {offset}, in or before frame {frame}")]
    Truncated { frame: u64, offset: u64 },
    #[error("there is more behind its last frame, from byte {0} on")]
    Trailing(u64),
    #[error("it is finished, or was never meant to grow")]
    NotGrowing,
    #[error("the cryptographic library refuses to work")]
    Library,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("its head does not have the right checksum")]
    Head,
    #[error("it is longer than a frame can be")]
    Length,
    #[error("it is of an unknown kind")]
    Kind,
    #[error("its content does not authenticate")]
    Content,
}

impl SealError {
    /// What a reader has said through an [`io::Error`].
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether a file was only just being begun.
    pub fn is_short_header(error: &io::Error) -> bool {
        matches!(Self::of(error), Some(Self::ShortHeader(_)))
    }
}

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        let kind = match error {
            SealError::Truncated { .. } | SealError::ShortHeader(_) => io::ErrorKind::UnexpectedEof,
            SealError::Library => io::ErrorKind::Other,
            SealError::UnknownKey(_) => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

//! One port for both: what the first byte of a connection says, and whether it may come in.
//!
//! A TLS connection starts with a handshake record, 0x16. No RESP request can: types are printable
//! characters, and an inline command is a word.

use std::fmt;
use std::str::FromStr;

/// The first byte of every TLS connection.
pub const HANDSHAKE_RECORD: u8 = 0x16;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speech {
    Tls,
    Plain,
}

impl Speech {
    /// Tells from the first byte received.
    pub fn of(first: u8) -> Self {
        match first {
            HANDSHAKE_RECORD => Self::Tls,
            _ => Self::Plain,
        }
    }
}

/// `transit-encryption-mode`: what the shared port takes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum TransitEncryption {
    /// TLS and plaintext.
    #[default]
    Preferred,
    /// TLS only.
    Required,
    /// Plaintext only.
    Disabled,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    Tls,
    Plain,
    /// Answer these bytes as they are (nothing when empty) and close.
    Refuse(&'static [u8]),
}

/// Sent to a client that speaks plaintext where that is not allowed.
pub const ENCRYPTION_REQUIRED: &[u8] =
    b"-ERR this port requires TLS (transit-encryption-mode is 'required'): connect with TLS\r\n";

/// A fatal `handshake_failure` alert in a plaintext record, so that a TLS client reports a refusal
/// by the server and not a broken connection.
pub const TLS_REFUSED: &[u8] = &[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 40];

impl TransitEncryption {
    /// Decides by the first byte received.
    pub fn admit(self, first: u8) -> Admission {
        match (self, Speech::of(first)) {
            (Self::Preferred | Self::Required, Speech::Tls) => Admission::Tls,
            (Self::Preferred | Self::Disabled, Speech::Plain) => Admission::Plain,
            (Self::Required, Speech::Plain) => Admission::Refuse(ENCRYPTION_REQUIRED),
            (Self::Disabled, Speech::Tls) => Admission::Refuse(TLS_REFUSED),
        }
    }

    /// The word of the directive.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preferred => "preferred",
            Self::Required => "required",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for TransitEncryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TransitEncryption {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        [Self::Preferred, Self::Required, Self::Disabled]
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(text))
            .ok_or(UnknownMode)
    }
}

/// Not one of the three words.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("argument must be one of the following: preferred, required, disabled")]
pub struct UnknownMode;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_and_the_mode_decide() {
        use Admission::{Plain, Refuse, Tls};
        for plain in [b'*', b'P', b'\r', 0x00, 0x15, 0x17, 0xff] {
            assert_eq!(TransitEncryption::Preferred.admit(plain), Plain);
            assert_eq!(TransitEncryption::Disabled.admit(plain), Plain);
            assert_eq!(TransitEncryption::Required.admit(plain), Refuse(ENCRYPTION_REQUIRED));
        }
        assert_eq!(TransitEncryption::Preferred.admit(0x16), Tls);
        assert_eq!(TransitEncryption::Required.admit(0x16), Tls);
        assert_eq!(TransitEncryption::Disabled.admit(0x16), Refuse(TLS_REFUSED));
    }

    #[test]
    fn modes_read_back_what_they_print() {
        for mode in ["preferred", "required", "disabled"] {
            assert_eq!(mode.parse::<TransitEncryption>().unwrap().to_string(), mode);
        }
        assert_eq!("REQUIRED".parse(), Ok(TransitEncryption::Required));
        assert_eq!("on".parse::<TransitEncryption>(), Err(UnknownMode));
    }
}

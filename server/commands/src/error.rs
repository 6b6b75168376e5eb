//! Refusals. `Display` is the exact text after `-` on the wire, as far as that is UTF-8: clients
//! match on its first word.

use std::borrow::Cow;

use carnelian_keyspace::WrongType;
use carnelian_resp::Writer;

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommandError {
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    #[error("ERR syntax error")]
    Syntax,
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    #[error("ERR value is not a valid float")]
    NotAFloat,
    #[error("ERR min or max is not a float")]
    RangeNotAFloat,
    #[error("ERR min or max not valid string range item")]
    RangeNotLexical,
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    #[error("ERR resulting score is not a number (NaN)")]
    ScoreNotANumber,
    #[error("ERR no such key")]
    NoSuchKey,
    #[error("ERR index out of range")]
    IndexOutOfRange,
    #[error("ERR offset is out of range")]
    OffsetOutOfRange,
    #[error("ERR value is out of range, must be positive")]
    MustBePositive,
    #[error("ERR value is out of range")]
    OutOfRange,
    /// For integers whose sign is taken away.
    #[error(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
    )]
    BelowMinusMax,
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    #[error("ERR invalid cursor")]
    InvalidCursor,
    #[error("ERR DB index is out of range")]
    DbOutOfRange,
    #[error("ERR hash value is not an integer")]
    HashNotAnInteger,
    #[error("ERR hash value is not a float")]
    HashNotAFloat,
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(Cow<'static, str>),
    /// Any other, with its whole text (`ERR ...`).
    #[error("{0}")]
    Other(Cow<'static, str>),
    /// One that quotes what the client sent, with its whole text.
    #[error("{}", String::from_utf8_lossy(.0))]
    Quoting(Box<[u8]>),
}

impl CommandError {
    /// A refusal with a text of its own, error code included.
    #[must_use]
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Other(text.into())
    }

    /// The same with `word` between its two parts, byte for byte: up to a NUL, as C has it.
    #[must_use]
    pub fn quoting(before: &str, word: &[u8], after: &str) -> Self {
        let shown = word.split(|&byte| byte == 0).next().unwrap_or_default();
        Self::Quoting([before.as_bytes(), shown, after.as_bytes()].concat().into())
    }

    #[cold]
    pub fn write_to(&self, reply: &mut Writer<'_>) {
        match self {
            Self::Quoting(text) => reply.error(text),
            other => reply.error_display(other),
        }
    }
}

impl From<WrongType> for CommandError {
    fn from(_: WrongType) -> Self {
        Self::WrongType
    }
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use super::*;

    #[test]
    fn quotes_byte_for_byte() {
        let error = CommandError::quoting("ERR '", b"a\xff\r\n'\0b", "'");
        let mut out = Vec::new();
        error.write_to(&mut Writer::new(&mut out, Protocol::Resp2));
        assert_eq!(out, b"-ERR 'a\xff  ''\r\n");
        assert_eq!(error.to_string(), "ERR 'a\u{fffd}\r\n''");
    }
}

//! A reply of either protocol, read from bytes and written in the short form the scripts use.

use std::fmt;

use anyhow::{Context, Result, bail};

/// The protocol a connection speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    Resp2,
    Resp3,
}

/// One reply. The two null forms of RESP2 are told apart, as clients tell them apart.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reply {
    Status(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    NullBulk,
    NullArray,
    Null,
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Set(Vec<Self>),
    Push(Vec<Self>),
    Attribute(Vec<(Self, Self)>),
    Double(Vec<u8>),
    Boolean(bool),
    BigNumber(Vec<u8>),
    Verbatim(Vec<u8>),
}

impl Reply {
    /// Reads one reply from the front of `bytes`: the reply and its length, or `None` when more bytes
    /// are needed.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        let mut cursor = Cursor { bytes, at: 0 };
        Ok(cursor.reply()?.map(|reply| (reply, cursor.at)))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::NullBulk | Self::NullArray)
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The number of an integer reply; anything else fails the test.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(value) => *value,
            other => panic!("an integer was expected, not {other}"),
        }
    }

    /// The text of a string reply of any kind; anything else fails the test.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The bytes of a string reply of any kind; anything else fails the test.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Status(text) | Self::Error(text) | Self::Bulk(text) => text,
            Self::Double(text) | Self::BigNumber(text) => text,
            Self::Verbatim(text) => text.get(4..).unwrap_or_default(),
            other => panic!("a string was expected, not {other}"),
        }
    }

    /// The elements of an array, set or push; a map's keys and values in turn.
    pub fn elements(&self) -> Vec<Self> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => items.clone(),
            Self::Map(pairs) | Self::Attribute(pairs) => {
                pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect()
            }
            other => panic!("an array was expected, not {other}"),
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn reply(&mut self) -> Result<Option<Reply>> {
        let Some(line) = self.line() else { return Ok(None) };
        let (kind, rest) = line.split_first().context("an empty line where a reply was due")?;
        let rest = rest.to_vec();
        Ok(Some(match kind {
            b'+' => Reply::Status(rest),
            b'-' => Reply::Error(rest),
            b':' => Reply::Integer(number(&rest)?),
            b',' => Reply::Double(rest),
            b'(' => Reply::BigNumber(rest),
            b'_' => Reply::Null,
            b'#' => Reply::Boolean(rest == b"t"),
            b'$' | b'=' | b'!' => {
                let length = number(&rest)?;
                if length < 0 {
                    return Ok(Some(Reply::NullBulk));
                }
                let Some(content) = self.content(usize::try_from(length)?)? else {
                    return Ok(None);
                };
                match kind {
                    b'$' => Reply::Bulk(content),
                    b'=' => Reply::Verbatim(content),
                    _ => Reply::Error(content),
                }
            }
            b'*' | b'~' | b'>' => {
                let count = number(&rest)?;
                if count < 0 {
                    return Ok(Some(Reply::NullArray));
                }
                let Some(items) = self.items(count)? else { return Ok(None) };
                match kind {
                    b'*' => Reply::Array(items),
                    b'~' => Reply::Set(items),
                    _ => Reply::Push(items),
                }
            }
            b'%' | b'|' => {
                let count = number(&rest)?;
                let Some(items) = self.items(2 * count)? else { return Ok(None) };
                let mut items = items.into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                if *kind == b'%' { Reply::Map(pairs) } else { Reply::Attribute(pairs) }
            }
            _ => bail!("not a reply: {}", line.escape_ascii()),
        }))
    }

    fn items(&mut self, count: i64) -> Result<Option<Vec<Reply>>> {
        let mut items = Vec::new();
        for _ in 0..count {
            let Some(item) = self.reply()? else { return Ok(None) };
            items.push(item);
        }
        Ok(Some(items))
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let rest = &self.bytes[self.at..];
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        self.at += end + 2;
        Some(rest[..end].to_vec())
    }

    fn content(&mut self, length: usize) -> Result<Option<Vec<u8>>> {
        let rest = &self.bytes[self.at..];
        if rest.len() < length + 2 {
            return Ok(None);
        }
        if &rest[length..length + 2] != b"\r\n" {
            bail!("a string of {length} bytes does not end where it says");
        }
        self.at += length + 2;
        Ok(Some(rest[..length].to_vec()))
    }
}

fn number(text: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(text)?;
    text.parse().with_context(|| format!("not a number: {text:?}"))
}

/// The short form of `expect.rs`: `+OK`, `-ERR ...`, `:1`, `word`, `"two words"`, `nil`, `[a b]`,
/// `{key value}`, `~[a b]`, `>[a b]`, `,1.5`, `#t`, `(123`, `=txt:text`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(text) => write!(f, "+{}", line_text(text)),
            Self::Error(text) => write!(f, "-{}", line_text(text)),
            Self::Integer(value) => write!(f, ":{value}"),
            Self::Bulk(text) if is_plain_word(text) => {
                write!(f, "{}", String::from_utf8_lossy(text))
            }
            Self::Bulk(text) => write!(f, "\"{}\"", text.escape_ascii()),
            Self::NullBulk | Self::NullArray | Self::Null => f.write_str("nil"),
            Self::Array(items) => write_items(f, "[", items),
            Self::Set(items) => write_items(f, "~[", items),
            Self::Push(items) => write_items(f, ">[", items),
            Self::Map(pairs) => write_pairs(f, "{", pairs),
            Self::Attribute(pairs) => write_pairs(f, "|{", pairs),
            Self::Double(text) => write!(f, ",{}", text.escape_ascii()),
            Self::Boolean(value) => f.write_str(if *value { "#t" } else { "#f" }),
            Self::BigNumber(text) => write!(f, "({}", text.escape_ascii()),
            Self::Verbatim(text) => write!(f, "={}", text.escape_ascii()),
        }
    }
}

fn line_text(text: &[u8]) -> String {
    let escaped = text.escape_ascii().to_string();
    escaped.replace("\\'", "'").replace("\\\"", "\"")
}

/// Whether a string can stand in a script without quotes.
fn is_plain_word(text: &[u8]) -> bool {
    let first_is_plain = text
        .first()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/'));
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"[]{}\"'\\".contains(byte);
    first_is_plain && text.iter().all(plain) && text != b"nil"
}

fn write_items(f: &mut fmt::Formatter<'_>, open: &str, items: &[Reply]) -> fmt::Result {
    f.write_str(open)?;
    for (index, item) in items.iter().enumerate() {
        let gap = if index == 0 { "" } else { " " };
        write!(f, "{gap}{item}")?;
    }
    f.write_str("]")
}

fn write_pairs(f: &mut fmt::Formatter<'_>, open: &str, pairs: &[(Reply, Reply)]) -> fmt::Result {
    f.write_str(open)?;
    for (index, (key, value)) in pairs.iter().enumerate() {
        let gap = if index == 0 { "" } else { " " };
        write!(f, "{gap}{key} {value}")?;
    }
    f.write_str("}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_reply_asks_for_more_at_every_cut() {
        let whole = b"*3\r\n$1\r\na\r\n%1\r\n+k\r\n,1.5\r\n~2\r\n:1\r\n_\r\n";
        for cut in 0..whole.len() {
            assert_eq!(Reply::parse(&whole[..cut]).unwrap(), None, "cut at {cut}");
        }
        let (reply, length) = Reply::parse(whole).unwrap().unwrap();
        assert_eq!(length, whole.len());
        assert_eq!(reply.to_string(), "[a {+k ,1.5} ~[:1 nil]]");
    }
}

//! Replies as a client sees them: a decoder for tests, tools and replication.
//!
//! Every RESP2 and RESP3 type is known, the streamed ones of the RESP3 specification included.
//! Lengths are limits to check against, never sizes to allocate: memory is taken only for what has
//! arrived.

use std::mem::size_of;

use memchr::memchr;

use crate::number::{parse_i64, parse_u64};
use crate::writer::{Protocol, Writer};

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    Array(Vec<Self>),
    /// RESP2's `$-1`.
    NullBulk,
    /// RESP2's `*-1`.
    NullArray,
    /// RESP3's `_`.
    Null,
    Boolean(bool),
    Double(f64),
    BigNumber(Vec<u8>),
    BulkError(Vec<u8>),
    Verbatim {
        format: [u8; 3],
        text: Vec<u8>,
    },
    Map(Vec<(Self, Self)>),
    Set(Vec<Self>),
    Push(Vec<Self>),
    /// Something about the reply inside it.
    Attribute {
        pairs: Vec<(Self, Self)>,
        reply: Box<Self>,
    },
}

/// What a reply may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// How deep aggregates may nest.
    pub max_depth: usize,
    /// The most replies in one, at all depths together.
    pub max_count: usize,
    /// The longest string.
    pub max_bulk: usize,
    /// The longest line.
    pub max_line: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { max_depth: 32, max_count: 1 << 24, max_bulk: 512 * 1024 * 1024, max_line: 64 * 1024 }
    }
}

/// Why bytes are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("unknown reply type byte {0:#04x}")]
    UnknownType(u8),
    #[error("reply line is too long or badly ended")]
    BadLine,
    #[error("reply length is not a number in range")]
    BadLength,
    #[error("reply holds a malformed value")]
    BadValue,
    #[error("bytes after a string are not a line end")]
    BadStringEnd,
    #[error("reply is nested too deep")]
    TooDeep,
    #[error("reply has too many elements")]
    TooManyElements,
    #[error("end of stream outside of a streamed aggregate, or inside of a pair")]
    UnexpectedEnd,
}

/// A reply decoder that can be fed in pieces: it keeps what is complete of a nested reply, so that
/// each byte is read once.
#[derive(Debug, Default)]
pub struct Decoder {
    limits: ReplyLimits,
    open: Vec<Frame>,
    /// Chunks so far of a streamed string.
    streamed: Option<Vec<u8>>,
    count: usize,
}

/// An aggregate whose end has not been seen.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    /// Replies still to come; unknown when streamed.
    remaining: Option<usize>,
    items: Vec<Reply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Map,
    Set,
    Push,
    /// The pairs of an attribute.
    Attribute,
    /// The pairs are complete (and are the items, flat); the reply they are about comes next.
    Attributed,
}

/// One reply without its elements, or a part of one.
enum Token {
    Scalar(Reply),
    Open(Kind, Option<usize>),
    EndOfAggregate,
    StreamedString,
    Chunk(Vec<u8>),
}

impl Decoder {
    pub fn new(limits: ReplyLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes the next reply from the front of `input`, which is advanced past what has been read.
    ///
    /// None: the reply goes on. Call again with the bytes left in `input` and more behind them.
    /// After an error the decoder, like the connection, is of no further use.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, ReplyError> {
        while let Some((token, bytes)) = self.token(input)? {
            *input = &input[bytes..];
            let complete = match token {
                Token::Scalar(reply) => self.place(reply)?,
                Token::Open(kind, elements) => self.open(kind, elements)?,
                Token::EndOfAggregate => self.end_of_aggregate()?,
                Token::StreamedString => {
                    self.streamed = Some(Vec::new());
                    None
                }
                Token::Chunk(chunk) => self.chunk(&chunk)?,
            };
            if complete.is_some() {
                self.count = 0;
                return Ok(complete);
            }
        }
        Ok(None)
    }

    /// Whether a reply has begun and not ended.
    pub const fn is_partial(&self) -> bool {
        !self.open.is_empty() || self.streamed.is_some()
    }

    /// Puts a complete reply where it belongs; gives the outermost one when that is now complete.
    fn place(&mut self, mut reply: Reply) -> Result<Option<Reply>, ReplyError> {
        loop {
            self.count += 1;
            if self.count > self.limits.max_count {
                return Err(ReplyError::TooManyElements);
            }
            let Some(frame) = self.open.last_mut() else { return Ok(Some(reply)) };
            frame.items.push(reply);
            match &mut frame.remaining {
                None => return Ok(None),
                Some(remaining) => {
                    *remaining -= 1;
                    if *remaining > 0 {
                        return Ok(None);
                    }
                }
            }
            match self.close() {
                Some(closed) => reply = closed,
                None => return Ok(None),
            }
        }
    }

    fn open(&mut self, kind: Kind, elements: Option<usize>) -> Result<Option<Reply>, ReplyError> {
        if self.open.len() >= self.limits.max_depth {
            return Err(ReplyError::TooDeep);
        }
        if elements.is_some_and(|elements| elements > self.limits.max_count - self.count) {
            return Err(ReplyError::TooManyElements);
        }
        // Only a first helping: the rest is allocated as elements arrive.
        let items = Vec::with_capacity(elements.unwrap_or(0).min(1024 / size_of::<Reply>()));
        self.open.push(Frame { kind, remaining: elements, items });
        if elements == Some(0) {
            return match self.close() {
                Some(reply) => self.place(reply),
                None => Ok(None),
            };
        }
        Ok(None)
    }

    fn end_of_aggregate(&mut self) -> Result<Option<Reply>, ReplyError> {
        match self.open.last() {
            Some(Frame { kind, remaining: None, items })
                if !kind.is_pairs() || items.len() % 2 == 0 => {}
            _ => return Err(ReplyError::UnexpectedEnd),
        }
        match self.close() {
            Some(reply) => self.place(reply),
            None => Ok(None),
        }
    }

    /// Closes the innermost aggregate. None if it was an attribute's pairs: its reply comes next.
    fn close(&mut self) -> Option<Reply> {
        let mut frame = self.open.pop()?;
        Some(match frame.kind {
            Kind::Array => Reply::Array(frame.items),
            Kind::Set => Reply::Set(frame.items),
            Kind::Push => Reply::Push(frame.items),
            Kind::Map => Reply::Map(pairs(frame.items)),
            Kind::Attribute => {
                self.open.push(Frame { kind: Kind::Attributed, remaining: Some(1), ..frame });
                return None;
            }
            Kind::Attributed => {
                let reply = Box::new(frame.items.pop()?);
                Reply::Attribute { pairs: pairs(frame.items), reply }
            }
        })
    }

    fn chunk(&mut self, chunk: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let Some(string) = &mut self.streamed else { return Err(ReplyError::UnknownType(b';')) };
        if chunk.is_empty() {
            let string = self.streamed.take().unwrap_or_default();
            return self.place(Reply::Bulk(string));
        }
        if chunk.len() > self.limits.max_bulk - string.len() {
            return Err(ReplyError::BadLength);
        }
        string.extend_from_slice(chunk);
        Ok(None)
    }

    /// Reads the token at the start of the input, if all of it is there, and its length.
    fn token(&self, input: &[u8]) -> Result<Option<(Token, usize)>, ReplyError> {
        let Some((&kind, rest)) = input.split_first() else { return Ok(None) };
        if self.streamed.is_some() && kind != b';' {
            return Err(ReplyError::BadValue);
        }
        if !b"+-:$*_#,(!=%~>|.;".contains(&kind) {
            return Err(ReplyError::UnknownType(kind));
        }
        let Some(line) = self.line(rest)? else { return Ok(None) };
        let after = line.len() + 3;
        let scalar = |reply| Ok(Some((Token::Scalar(reply), after)));
        match kind {
            b'+' => scalar(Reply::Simple(line.to_vec())),
            b'-' => scalar(Reply::Error(line.to_vec())),
            b':' => {
                let digits = line.strip_prefix(b"+").unwrap_or(line);
                scalar(Reply::Integer(parse_i64(digits).ok_or(ReplyError::BadValue)?))
            }
            b'_' if line.is_empty() => scalar(Reply::Null),
            b'#' => match line {
                b"t" => scalar(Reply::Boolean(true)),
                b"f" => scalar(Reply::Boolean(false)),
                _ => Err(ReplyError::BadValue),
            },
            b',' => {
                let text = std::str::from_utf8(line).map_err(|_| ReplyError::BadValue)?;
                scalar(Reply::Double(text.parse().map_err(|_| ReplyError::BadValue)?))
            }
            b'(' => {
                let digits = line.strip_prefix(b"-").or(line.strip_prefix(b"+")).unwrap_or(line);
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(ReplyError::BadValue);
                }
                scalar(Reply::BigNumber(line.to_vec()))
            }
            b'$' if line == b"-1" => scalar(Reply::NullBulk),
            b'*' if line == b"-1" => scalar(Reply::NullArray),
            b'$' if line == b"?" => Ok(Some((Token::StreamedString, after))),
            b'$' | b'!' | b'=' | b';' => {
                let length = parse_length(line, self.limits.max_bulk)?;
                // The end of a streamed string has no string behind it.
                if kind == b';' && length == 0 {
                    return Ok(Some((Token::Chunk(Vec::new()), after)));
                }
                let Some(string) = input.get(after..after.saturating_add(length)) else {
                    return Ok(None);
                };
                let Some(end) = input.get(after + length..after + length + 2) else {
                    return Ok(None);
                };
                if end != b"\r\n" {
                    return Err(ReplyError::BadStringEnd);
                }
                let token = match (kind, string) {
                    (b'$', _) => Token::Scalar(Reply::Bulk(string.to_vec())),
                    (b'!', _) => Token::Scalar(Reply::BulkError(string.to_vec())),
                    (b';', _) => Token::Chunk(string.to_vec()),
                    (_, &[a, b, c, b':', ref text @ ..]) => {
                        let text = text.to_vec();
                        Token::Scalar(Reply::Verbatim { format: [a, b, c], text })
                    }
                    _ => return Err(ReplyError::BadValue),
                };
                Ok(Some((token, after + length + 2)))
            }
            b'*' | b'%' | b'~' | b'>' | b'|' => {
                let kind = match kind {
                    b'*' => Kind::Array,
                    b'%' => Kind::Map,
                    b'~' => Kind::Set,
                    b'>' => Kind::Push,
                    _ => Kind::Attribute,
                };
                let elements = match line {
                    b"?" => None,
                    _ => {
                        let count = parse_length(line, self.limits.max_count)?;
                        Some(if kind.is_pairs() { count.saturating_mul(2) } else { count })
                    }
                };
                Ok(Some((Token::Open(kind, elements), after)))
            }
            b'.' if line.is_empty() => Ok(Some((Token::EndOfAggregate, after))),
            _ => Err(ReplyError::BadValue),
        }
    }

    /// The line at the start of the input, without its end, if it is all there.
    fn line<'a>(&self, input: &'a [u8]) -> Result<Option<&'a [u8]>, ReplyError> {
        let visible = &input[..input.len().min(self.limits.max_line.saturating_add(2))];
        match memchr(b'\n', visible) {
            Some(end) => match &visible[..end] {
                [line @ .., b'\r'] if !line.contains(&b'\r') => Ok(Some(line)),
                _ => Err(ReplyError::BadLine),
            },
            None if visible.len() < input.len() => Err(ReplyError::BadLine),
            None => Ok(None),
        }
    }
}

impl Kind {
    const fn is_pairs(self) -> bool {
        matches!(self, Self::Map | Self::Attribute)
    }
}

fn parse_length(line: &[u8], max: usize) -> Result<usize, ReplyError> {
    parse_u64(line)
        .and_then(|length| usize::try_from(length).ok())
        .filter(|&length| length <= max)
        .ok_or(ReplyError::BadLength)
}

fn pairs(items: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

impl Reply {
    /// Decodes one reply at the start of `input`: it and its length, or None if it goes on.
    pub fn decode(input: &[u8]) -> Result<Option<(Self, usize)>, ReplyError> {
        let mut rest = input;
        let reply = Decoder::default().decode(&mut rest)?;
        Ok(reply.map(|reply| (reply, input.len() - rest.len())))
    }

    /// Null in any of its forms.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::NullBulk | Self::NullArray)
    }

    /// The text of an error in either form: its code and message.
    pub fn error(&self) -> Option<&[u8]> {
        match self {
            Self::Error(text) | Self::BulkError(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes of anything that is a string.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text)
            | Self::Bulk(text)
            | Self::BigNumber(text)
            | Self::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    pub const fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The elements of an array, set or push.
    pub fn elements(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// Writes the reply as a server would, in the writer's protocol.
    pub fn write(&self, writer: &mut Writer<'_>) {
        let pairs = |writer: &mut Writer<'_>, pairs: &[(Self, Self)]| {
            for (key, value) in pairs {
                key.write(writer);
                value.write(writer);
            }
        };
        match self {
            Self::Simple(text) => {
                writer.raw(b"+");
                writer.raw(text);
                writer.raw(b"\r\n");
            }
            Self::Error(text) => writer.error(text),
            Self::Integer(value) => writer.integer(*value),
            Self::Bulk(text) => writer.bulk(text),
            Self::NullBulk | Self::Null => writer.null(),
            Self::NullArray => writer.null_array(),
            Self::Boolean(value) => writer.boolean(*value),
            Self::Double(value) => writer.double(*value),
            Self::BigNumber(digits) => writer.big_number(digits),
            Self::BulkError(text) => match writer.protocol() {
                Protocol::Resp2 => writer.error(text),
                Protocol::Resp3 => {
                    let header = format!("!{}\r\n", text.len());
                    writer.raw(header.as_bytes());
                    writer.raw(text);
                    writer.raw(b"\r\n");
                }
            },
            Self::Verbatim { format, text } => writer.verbatim(format, text),
            Self::Map(items) => {
                writer.map(items.len());
                pairs(writer, items);
            }
            Self::Attribute { pairs: about, reply } => {
                if writer.attribute(about.len()) {
                    pairs(writer, about);
                }
                reply.write(writer);
            }
            Self::Array(items) => {
                writer.array(items.len());
                items.iter().for_each(|item| item.write(writer));
            }
            Self::Set(items) => {
                writer.set(items.len());
                items.iter().for_each(|item| item.write(writer));
            }
            Self::Push(items) => {
                writer.push(items.len());
                items.iter().for_each(|item| item.write(writer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    #[track_caller]
    fn decodes(input: &str, expected: &Reply) {
        let (reply, len) = Reply::decode(input.as_bytes()).expect("valid").expect("complete");
        assert_eq!((&reply, len), (expected, input.len()));
        for cut in 0..input.len() {
            assert_eq!(Reply::decode(&input.as_bytes()[..cut]), Ok(None), "{cut} of {input:?}");
        }
    }

    #[test]
    fn every_type() {
        decodes("+OK\r\n", &Reply::Simple("OK".into()));
        decodes("-ERR no\r\n", &Reply::Error("ERR no".into()));
        decodes(":-7\r\n", &Reply::Integer(-7));
        decodes(":+7\r\n", &Reply::Integer(7));
        decodes("$5\r\na\r\nbc\r\n", &bulk("a\r\nbc"));
        decodes("$-1\r\n", &Reply::NullBulk);
        decodes("*-1\r\n", &Reply::NullArray);
        decodes("_\r\n", &Reply::Null);
        decodes("#t\r\n", &Reply::Boolean(true));
        decodes(",1.5e-7\r\n", &Reply::Double(1.5e-7));
        decodes(",-inf\r\n", &Reply::Double(f64::NEG_INFINITY));
        decodes("(-123\r\n", &Reply::BigNumber("-123".into()));
        decodes("!5\r\nERR x\r\n", &Reply::BulkError("ERR x".into()));
        decodes("=5\r\ntxt:a\r\n", &Reply::Verbatim { format: *b"txt", text: "a".into() });
        decodes("*2\r\n*0\r\n:1\r\n", &Reply::Array(vec![Reply::Array(vec![]), Reply::Integer(1)]));
        decodes(
            "%1\r\n+a\r\n~0\r\n",
            &Reply::Map(vec![(Reply::Simple("a".into()), Reply::Set(vec![]))]),
        );
        decodes(">1\r\n+x\r\n", &Reply::Push(vec![Reply::Simple("x".into())]));
        let attribute = |reply| Reply::Attribute {
            pairs: vec![(Reply::Integer(1), Reply::Integer(2))],
            reply: Box::new(reply),
        };
        decodes("|1\r\n:1\r\n:2\r\n+x\r\n", &attribute(Reply::Simple("x".into())));
        decodes(
            "*1\r\n|1\r\n:1\r\n:2\r\n*1\r\n_\r\n",
            &Reply::Array(vec![attribute(Reply::Array(vec![Reply::Null]))]),
        );
    }

    #[test]
    fn streamed_types() {
        decodes("$?\r\n;3\r\nabc\r\n;2\r\nde\r\n;0\r\n", &bulk("abcde"));
        decodes(
            "*?\r\n:1\r\n*?\r\n.\r\n.\r\n",
            &Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![])]),
        );
        decodes("%?\r\n:1\r\n$?\r\n;0\r\n.\r\n", &Reply::Map(vec![(Reply::Integer(1), bulk(""))]));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let cases = [
            ("x", ReplyError::UnknownType(b'x')),
            ("+a\rb\r\n", ReplyError::BadLine),
            ("+a\n", ReplyError::BadLine),
            (":1x\r\n", ReplyError::BadValue),
            (":\r\n", ReplyError::BadValue),
            ("#x\r\n", ReplyError::BadValue),
            (",x\r\n", ReplyError::BadValue),
            ("(1a\r\n", ReplyError::BadValue),
            ("_x\r\n", ReplyError::BadValue),
            ("$-2\r\n", ReplyError::BadLength),
            ("$99999999999\r\n", ReplyError::BadLength),
            ("$18446744073709551615\r\n", ReplyError::BadLength),
            ("*99999999999999999999\r\n", ReplyError::BadLength),
            ("$1\r\nabc", ReplyError::BadStringEnd),
            ("=3\r\nabc\r\n", ReplyError::BadValue),
            ("%16777216\r\n", ReplyError::TooManyElements),
            ("*?\r\n.\r\n.\r\n", ReplyError::UnexpectedEnd),
            (".\r\n", ReplyError::UnexpectedEnd),
            ("%?\r\n:1\r\n.\r\n", ReplyError::UnexpectedEnd),
            ("*1\r\n.\r\n", ReplyError::UnexpectedEnd),
            ("|?\r\n:1\r\n:1\r\n.\r\n.\r\n", ReplyError::UnexpectedEnd),
            (";0\r\n", ReplyError::UnknownType(b';')),
            ("$?\r\n:1\r\n", ReplyError::BadValue),
        ];
        for (input, expected) in cases {
            let mut decoder = Decoder::default();
            let mut rest = input.as_bytes();
            let mut outcome = decoder.decode(&mut rest);
            if let Ok(Some(_)) = outcome {
                outcome = decoder.decode(&mut rest);
            }
            assert_eq!(outcome, Err(expected), "{input:?}");
        }
    }

    #[test]
    fn depth_and_line_are_bounded() {
        let nested = |depth: usize| format!("{}:1\r\n", "*1\r\n".repeat(depth));
        assert!(matches!(Reply::decode(nested(32).as_bytes()), Ok(Some(_))));
        assert_eq!(Reply::decode(nested(33).as_bytes()), Err(ReplyError::TooDeep));
        let attributes = "|1\r\n:1\r\n:1\r\n".repeat(40);
        assert_eq!(Reply::decode(attributes.as_bytes()), Err(ReplyError::TooDeep));
        let line = format!("+{}", "a".repeat(65536 + 2));
        assert_eq!(Reply::decode(line.as_bytes()), Ok(None));
        assert_eq!(Reply::decode(format!("{line}a").as_bytes()), Err(ReplyError::BadLine));
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut decoder = Decoder::default();
        for _ in 0..30 {
            let mut input: &[u8] = b"*1000000\r\n";
            assert_eq!(decoder.decode(&mut input), Ok(None));
        }
        let held: usize = decoder.open.iter().map(|frame| frame.items.capacity()).sum();
        assert!(decoder.is_partial() && held * size_of::<Reply>() < 64 * 1024);
    }
}

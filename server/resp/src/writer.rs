//! Replies: each RESP type, appended to the connection's output buffer in the client's protocol.
//!
//! Commands say what they mean (a map, a double, a null); for a RESP2 client it is written as
//! Redis writes it there.

use std::fmt::Display;
use std::io::Write as _;

use crate::number::{TEXT_BYTES_MAX, format_double};
use crate::parser::ProtocolError;

/// The protocol a client has chosen with HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

impl Protocol {
    /// The number HELLO and CLIENT LIST call it.
    pub const fn version(self) -> u8 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }

    pub const fn from_version(version: i64) -> Option<Self> {
        match version {
            2 => Some(Self::Resp2),
            3 => Some(Self::Resp3),
            _ => None,
        }
    }
}

/// Appends replies to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

/// The place of a header that is written when its length is known: see [`Writer::defer`].
///
/// Marks are finished in the opposite order of their making.
#[derive(Debug)]
#[must_use = "a reply without its header is not a reply"]
pub struct Mark {
    at: usize,
    width: usize,
}

impl<'a> Writer<'a> {
    #[inline]
    pub const fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    #[inline]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    #[inline]
    pub const fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Bytes in the output buffer, those of earlier replies included.
    #[inline]
    pub const fn len(&self) -> usize {
        self.out.len()
    }

    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// A writer to the same buffer, in a protocol that may be another.
    pub fn nested(&mut self, protocol: Protocol) -> Writer<'_> {
        Writer { out: self.out, protocol }
    }

    /// The buffer itself, for what appends whole replies.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Takes back what was written after the buffer had this length.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// The output buffer so far.
    #[inline]
    pub fn written(&self) -> &[u8] {
        self.out
    }

    /// The same buffer, for as long as a callee needs it.
    #[inline]
    pub const fn reborrow(&mut self) -> Writer<'_> {
        Writer { out: self.out, protocol: self.protocol }
    }

    /// A reply in its wire form already.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A status. Its text is the server's own and holds no line end.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        self.out.reserve(text.len() + 3);
        self.raw(b"+");
        self.raw(text.as_bytes());
        self.raw(b"\r\n");
    }

    /// An error: its code and text, such as `ERR syntax error`. The text may quote what a client
    /// sent: line ends in it become spaces, except that those at its end are left out.
    #[cold]
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        let start = self.begin_error();
        self.raw(text.as_ref());
        self.end_error(start);
    }

    /// The same from anything that displays as code and text.
    #[cold]
    pub fn error_display(&mut self, text: impl Display) {
        let start = self.begin_error();
        // Writing to a Vec cannot fail.
        let _ = write!(self.out, "{text}");
        self.end_error(start);
    }

    /// `-ERR Protocol error: ...`, after which the connection is closed.
    #[cold]
    pub fn protocol_error(&mut self, error: &ProtocolError) {
        let start = self.begin_error();
        self.raw(b"ERR ");
        error.write_text(self.out);
        self.end_error(start);
    }

    fn begin_error(&mut self) -> usize {
        self.raw(b"-");
        self.out.len()
    }

    fn end_error(&mut self, start: usize) {
        while self.out.len() > start && matches!(self.out.last(), Some(b'\r' | b'\n')) {
            self.out.pop();
        }
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.raw(b"\r\n");
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.header(b':', value),
            Err(_) => self.line(b':', itoa::Buffer::new().format(value).as_bytes()),
        }
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        // Once for header, bytes and line end, so that none of them has to grow the buffer.
        self.out.reserve(bytes.len() + 24);
        self.header(b'$', bytes.len() as u64);
        self.raw(bytes);
        self.raw(b"\r\n");
    }

    /// An integer in the form of a string.
    #[inline]
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A double in the form of a string, in either protocol.
    pub fn bulk_double(&mut self, value: f64) {
        self.bulk(format_double(value, &mut [0; TEXT_BYTES_MAX]));
    }

    #[inline]
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"$-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// No array, where there might have been one.
    #[inline]
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"*-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// The header of `count` elements, which follow.
    #[inline]
    pub fn array(&mut self, count: usize) {
        self.header(b'*', count as u64);
    }

    /// The header of `count` pairs, which follow.
    #[inline]
    pub fn map(&mut self, count: usize) {
        let (prefix, count) = self.map_header(count);
        self.header(prefix, count);
    }

    #[inline]
    pub fn set(&mut self, count: usize) {
        self.header(self.prefix_or_array(b'~'), count as u64);
    }

    /// The header of an out-of-band message: pub/sub, invalidation.
    #[inline]
    pub fn push(&mut self, count: usize) {
        self.header(self.prefix_or_array(b'>'), count as u64);
    }

    /// The header of `count` pairs about the reply that comes after them. RESP2 has no such thing:
    /// false, and then the pairs must not be written either.
    #[must_use]
    pub fn attribute(&mut self, count: usize) -> bool {
        let known = self.protocol == Protocol::Resp3;
        if known {
            self.header(b'|', count as u64);
        }
        known
    }

    pub fn double(&mut self, value: f64) {
        self.double_text(format_double(value, &mut [0; TEXT_BYTES_MAX]));
    }

    /// A double whose text has been made already (coordinates have a format of their own).
    pub fn double_text(&mut self, text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => self.line(b',', text),
        }
    }

    #[inline]
    pub fn boolean(&mut self, value: bool) {
        self.raw(match (self.protocol, value) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        });
    }

    /// An integer of any size, as decimal digits.
    pub fn big_number(&mut self, digits: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits),
            Protocol::Resp3 => self.line(b'(', digits),
        }
    }

    /// Text for people, with its format: `txt` or `mkd`.
    pub fn verbatim(&mut self, format: &[u8; 3], text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.out.reserve(text.len() + 28);
                self.header(b'=', text.len() as u64 + 4);
                self.raw(format);
                self.raw(b":");
                self.raw(text);
                self.raw(b"\r\n");
            }
        }
    }

    /// Begins an aggregate whose length is not known yet; its elements follow, then one of the
    /// `finish_` methods. What follows is moved if the header gets longer than for 9 elements.
    pub fn defer(&mut self) -> Mark {
        self.defer_about(0)
    }

    /// The same with a guess: with as many digits in the end, nothing has to be moved.
    pub fn defer_about(&mut self, count: usize) -> Mark {
        let at = self.out.len();
        self.header(b'*', count as u64);
        Mark { at, width: self.out.len() - at }
    }

    pub fn finish_array(&mut self, mark: Mark, count: usize) {
        self.finish(mark, b'*', count as u64);
    }

    pub fn finish_map(&mut self, mark: Mark, count: usize) {
        let (prefix, count) = self.map_header(count);
        self.finish(mark, prefix, count);
    }

    pub fn finish_set(&mut self, mark: Mark, count: usize) {
        self.finish(mark, self.prefix_or_array(b'~'), count as u64);
    }

    pub fn finish_push(&mut self, mark: Mark, count: usize) {
        self.finish(mark, self.prefix_or_array(b'>'), count as u64);
    }

    /// Takes back the aggregate begun at the mark.
    #[expect(clippy::needless_pass_by_value, reason = "a mark is used once")]
    pub fn abandon(&mut self, mark: Mark) {
        self.out.truncate(mark.at);
    }

    #[expect(clippy::needless_pass_by_value, reason = "a mark is used once")]
    fn finish(&mut self, mark: Mark, prefix: u8, count: u64) {
        let mut header = [prefix; 23];
        let digits = itoa::Buffer::new().format(count).len();
        header[1..=digits].copy_from_slice(itoa::Buffer::new().format(count).as_bytes());
        header[digits + 1..digits + 3].copy_from_slice(b"\r\n");
        let header = &header[..digits + 3];
        let place = mark.at..mark.at + mark.width;
        if header.len() == mark.width {
            self.out[place].copy_from_slice(header);
        } else {
            self.out.splice(place, header.iter().copied());
        }
    }

    #[inline]
    const fn map_header(&self, pairs: usize) -> (u8, u64) {
        match self.protocol {
            Protocol::Resp2 => (b'*', pairs as u64 * 2),
            Protocol::Resp3 => (b'%', pairs as u64),
        }
    }

    #[inline]
    const fn prefix_or_array(&self, resp3: u8) -> u8 {
        match self.protocol {
            Protocol::Resp2 => b'*',
            Protocol::Resp3 => resp3,
        }
    }

    /// `PREFIX number \r\n`; most numbers have one or two digits.
    #[inline]
    fn header(&mut self, prefix: u8, number: u64) {
        if number < 10 {
            self.raw(&[prefix, b'0' + number as u8, b'\r', b'\n']);
        } else if number < 100 {
            let (tens, ones) = (number as u8 / 10, number as u8 % 10);
            self.raw(&[prefix, b'0' + tens, b'0' + ones, b'\r', b'\n']);
        } else {
            self.line(prefix, itoa::Buffer::new().format(number).as_bytes());
        }
    }

    fn line(&mut self, prefix: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.raw(&[prefix]);
        self.raw(text);
        self.raw(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one writing gives in RESP2 and in RESP3.
    fn both(write: impl Fn(&mut Writer<'_>)) -> (String, String) {
        let one = |protocol| {
            let mut out = Vec::new();
            write(&mut Writer::new(&mut out, protocol));
            String::from_utf8(out).expect("text")
        };
        (one(Protocol::Resp2), one(Protocol::Resp3))
    }

    #[track_caller]
    fn check(write: impl Fn(&mut Writer<'_>), resp2: &str, resp3: &str) {
        assert_eq!(both(write), (resp2.into(), resp3.into()));
    }

    #[test]
    fn each_type_in_both_protocols() {
        check(|w| w.ok(), "+OK\r\n", "+OK\r\n");
        check(|w| w.simple("PONG"), "+PONG\r\n", "+PONG\r\n");
        check(|w| w.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n");
        check(|w| w.bulk_integer(-42), "$3\r\n-42\r\n", "$3\r\n-42\r\n");
        check(|w| w.bulk_double(0.1), "$3\r\n0.1\r\n", "$3\r\n0.1\r\n");
        check(|w| w.null(), "$-1\r\n", "_\r\n");
        check(|w| w.null_array(), "*-1\r\n", "_\r\n");
        check(|w| w.array(3), "*3\r\n", "*3\r\n");
        check(|w| w.map(6), "*12\r\n", "%6\r\n");
        check(|w| w.set(100), "*100\r\n", "~100\r\n");
        check(|w| w.push(2), "*2\r\n", ">2\r\n");
        check(|w| assert_eq!(w.attribute(1), w.protocol() == Protocol::Resp3), "", "|1\r\n");
        check(|w| w.double(2.5), "$3\r\n2.5\r\n", ",2.5\r\n");
        check(|w| w.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
        check(|w| w.boolean(true), ":1\r\n", "#t\r\n");
        check(|w| w.boolean(false), ":0\r\n", "#f\r\n");
        check(|w| w.big_number(b"123"), "$3\r\n123\r\n", "(123\r\n");
        check(|w| w.verbatim(b"txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
    }

    #[test]
    fn integers_of_every_length() {
        for value in [0, 9, 10, 99, 100, 12345, i64::MAX, -1, -10, i64::MIN] {
            let expected = format!(":{value}\r\n");
            check(|w| w.integer(value), &expected, &expected);
        }
    }

    #[test]
    fn errors_stay_on_one_line() {
        check(|w| w.error("ERR a\r\nb\n"), "-ERR a  b\r\n", "-ERR a  b\r\n");
        check(|w| w.error(b"ERR x"), "-ERR x\r\n", "-ERR x\r\n");
        check(|w| w.error_display(format_args!("ERR {}", "\n")), "-ERR \r\n", "-ERR \r\n");
        let error = ProtocolError::ExpectedDollar { got: b'\n' };
        let text = "-ERR Protocol error: expected '$', got ' '\r\n";
        check(|w| w.protocol_error(&error), text, text);
    }

    #[test]
    fn deferred_headers_fit_any_count() {
        for count in [0, 1, 9, 10, 99, 100, 1234] {
            for guess in [0, 10, 1000] {
                let write = |w: &mut Writer<'_>| {
                    w.ok();
                    let mark = w.defer_about(guess);
                    for _ in 0..count {
                        let inner = w.defer();
                        w.boolean(true);
                        w.finish_map(inner, 1);
                    }
                    w.finish_set(mark, count);
                };
                let resp2 = format!("+OK\r\n*{count}\r\n{}", "*2\r\n:1\r\n".repeat(count));
                let resp3 = format!("+OK\r\n~{count}\r\n{}", "%1\r\n#t\r\n".repeat(count));
                check(write, &resp2, &resp3);
            }
        }
    }

    #[test]
    fn what_was_written_can_be_taken_back() {
        let abandon = |w: &mut Writer<'_>| {
            w.ok();
            let mark = w.defer();
            w.integer(1);
            w.abandon(mark);
            let len = w.len();
            w.integer(2);
            w.truncate(len);
        };
        check(abandon, "+OK\r\n", "+OK\r\n");
    }
}

//! Requests: finding the arguments of a command in the connection's read buffer, in place.
//!
//! A whole command, which is nearly every one, is found in a single pass over its header lines and
//! costs no allocation. Only when a command arrives in pieces does the parser remember how far it
//! came, so that the next piece continues there: a command of a million arguments in small pieces
//! is still read once.
//!
//! What is accepted is what Redis accepts, its oddities included: the byte after a `\r` is not
//! looked at, nor are the two after an argument, and a NUL hides the rest of a line.

use std::fmt;

use memchr::memchr2;

use crate::inline;

/// The longest inline request, and the longest header line, in bytes without its end.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// What a client that has not authenticated yet may send.
const UNAUTHENTICATED_ARGUMENTS_MAX: i64 = 10;
const UNAUTHENTICATED_BULK_MAX: i64 = 16384;

/// An argument's place: byte offsets from the start of its command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    /// The bytes of this argument in the buffer its command was found in.
    #[inline]
    pub fn of(self, command: &[u8]) -> &[u8] {
        &command[self.start..self.end]
    }

    #[inline]
    pub const fn len(self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub const fn is_empty(self) -> bool {
        self.end == self.start
    }
}

/// What a request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `proto-max-bulk-len`: the longest argument. A primary's stream has none: `usize::MAX`.
    pub max_bulk: usize,
    /// The most arguments of one command.
    pub max_arguments: usize,
    /// Whether the client has authenticated, or need not. Others get tight limits of their own.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bulk: 512 * 1024 * 1024, max_arguments: i32::MAX as usize, authenticated: true }
    }
}

/// How far [`Parser::next`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The command takes the first `consumed` bytes of the buffer; `arguments` spans were pushed.
    /// None at all means an empty request, which is skipped without a reply.
    Complete { consumed: usize, arguments: usize },
    /// More bytes are needed. When at least that many are known to be (a large argument is on its
    /// way), `wanted` is the length the buffer has to reach; else it is the present one plus 1.
    ///
    /// It is what the client claims: grow towards it as bytes arrive rather than at once.
    Incomplete { wanted: usize },
}

/// A request that breaks the protocol. The client is sent the text and disconnected.
///
/// `Display` is the text as Redis has it, without the code: `-ERR ` comes before it on the wire.
/// Its one variable byte may be any, which text cannot say: [`Self::write_text`] can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    InlineTooBig,
    UnbalancedQuotes,
    MultibulkCountTooBig,
    InvalidMultibulkLength,
    UnauthenticatedMultibulkLength,
    BulkCountTooBig,
    ExpectedDollar { got: u8 },
    InvalidBulkLength,
    UnauthenticatedBulkLength,
}

impl ProtocolError {
    /// Appends the text after `-ERR `, byte for byte as Redis sends it.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Protocol error: ");
        out.extend_from_slice(self.text().as_bytes());
        if let Self::ExpectedDollar { got } = *self {
            let shown = if got == b'\r' || got == b'\n' { b' ' } else { got };
            out.extend_from_slice(&[shown, b'\'']);
        }
    }

    /// What the log calls it: "Protocol error (REASON) from client".
    pub const fn log_reason(&self) -> &'static str {
        match self {
            Self::InlineTooBig => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in inline request",
            Self::MultibulkCountTooBig => "too big mbulk count string",
            Self::InvalidMultibulkLength => "invalid mbulk count",
            Self::UnauthenticatedMultibulkLength => "unauth mbulk count",
            Self::BulkCountTooBig => "too big bulk count string",
            Self::ExpectedDollar { .. } => "expected $ but got something else",
            Self::InvalidBulkLength => "invalid bulk length",
            Self::UnauthenticatedBulkLength => "unauth bulk length",
        }
    }

    const fn text(&self) -> &'static str {
        match self {
            Self::InlineTooBig => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::MultibulkCountTooBig => "too big mbulk count string",
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::BulkCountTooBig => "too big bulk count string",
            Self::ExpectedDollar { .. } => "expected '$', got '",
            Self::InvalidBulkLength => "invalid bulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(64);
        self.write_text(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl std::error::Error for ProtocolError {}

/// The request parser of one connection: one word, and nothing more until a command arrives in
/// pieces.
#[derive(Debug, Default)]
pub struct Parser {
    partial: Option<Box<Partial>>,
}

/// An argument of this length has memory of its own in Redis.
const LONG_BYTES: usize = 32 << 10;

/// A command of which only the beginning has arrived.
#[derive(Debug)]
struct Partial {
    cursor: Cursor,
    spans: Vec<Span>,
}

/// Where in a command the parser is.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// First byte not yet understood.
    position: usize,
    /// Up to here the end of the current line has been looked for in vain.
    searched: usize,
    /// Arguments still to come; none before the count has been read.
    remaining: Option<usize>,
    /// Length of the argument at `position`, once its header has been read.
    bulk: Option<usize>,
}

impl Parser {
    /// Looks for one command at the start of `buffer`.
    ///
    /// Each call gets the command from its first byte: after [`Progress::Incomplete`] the same
    /// bytes again, and more behind them. Arguments of an inline command are unescaped where they
    /// lie, which is why the buffer is written to; no byte after the command changes.
    ///
    /// After an error the connection is to be closed; nothing has been pushed.
    #[inline]
    pub fn next(
        &mut self,
        buffer: &mut [u8],
        limits: &Limits,
        spans: &mut Vec<Span>,
    ) -> Result<Progress, ProtocolError> {
        if self.partial.is_some() || buffer.first() != Some(&b'*') {
            return self.next_unusual(buffer, limits, spans);
        }
        let before = spans.len();
        let mut cursor = Cursor::default();
        match multibulk(buffer, &mut cursor, limits, spans) {
            Ok(true) => Ok(Progress::Complete {
                consumed: cursor.position,
                arguments: spans.len() - before,
            }),
            Ok(false) => {
                let kept = spans[before..].to_vec();
                spans.truncate(before);
                Ok(self.suspend(cursor, kept, buffer.len()))
            }
            Err(error) => {
                spans.truncate(before);
                Err(error)
            }
        }
    }

    /// Forgets a command that had begun to arrive.
    pub fn reset(&mut self) {
        self.partial = None;
    }

    /// Whether the beginning of a command has been seen, but not its end.
    pub const fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Bytes of heap held, for a client's memory accounting.
    pub fn heap_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.spans.capacity() * size_of::<Span>()
        })
    }

    /// Where in its command the argument begins that has begun to arrive, if it is a long one; else 0.
    pub fn long_argument_start(&self) -> usize {
        let cursor = self.partial.as_ref().map(|partial| partial.cursor);
        match cursor.and_then(|cursor| cursor.bulk.map(|length| (cursor.position, length))) {
            Some((start, length)) if LONG_BYTES <= length => start,
            _ => 0,
        }
    }

    /// The arguments already found of a command still incomplete.
    pub fn partial_arguments(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.spans.len())
    }

    /// Inline commands, and the rest of commands begun earlier.
    #[cold]
    fn next_unusual(
        &mut self,
        buffer: &mut [u8],
        limits: &Limits,
        spans: &mut Vec<Span>,
    ) -> Result<Progress, ProtocolError> {
        let (mut cursor, mut found) = match self.partial.take() {
            // A buffer shorter than what has been parsed cannot be the same command.
            Some(partial) if partial.cursor.position <= buffer.len() => {
                (partial.cursor, partial.spans)
            }
            _ => (Cursor::default(), Vec::new()),
        };
        match buffer.first() {
            None => Ok(Progress::Incomplete { wanted: 1 }),
            Some(b'*') => match multibulk(buffer, &mut cursor, limits, &mut found)? {
                true => {
                    spans.extend_from_slice(&found);
                    Ok(Progress::Complete { consumed: cursor.position, arguments: found.len() })
                }
                false => Ok(self.suspend(cursor, found, buffer.len())),
            },
            Some(_) => {
                let line_end =
                    find_in_line(buffer, b'\n', &mut cursor, ProtocolError::InlineTooBig)?;
                let Some(line_end) = line_end else {
                    return Ok(self.suspend(cursor, found, buffer.len()));
                };
                let line = match &mut buffer[..line_end] {
                    [line @ .., b'\r'] => line,
                    line => line,
                };
                let before = spans.len();
                if !inline::split(line, spans) {
                    spans.truncate(before);
                    return Err(ProtocolError::UnbalancedQuotes);
                }
                Ok(Progress::Complete { consumed: line_end + 1, arguments: spans.len() - before })
            }
        }
    }

    #[cold]
    fn suspend(&mut self, cursor: Cursor, spans: Vec<Span>, buffered: usize) -> Progress {
        self.partial = Some(Box::new(Partial { cursor, spans }));
        let wanted = match cursor.bulk {
            Some(length) => cursor.position.saturating_add(length).saturating_add(2),
            None => buffered + 1,
        };
        Progress::Incomplete { wanted }
    }
}

/// Continues `*COUNT\r\n($LENGTH\r\nBYTES\r\n)...` from the cursor; true at its end.
#[inline(always)]
fn multibulk(
    buffer: &[u8],
    cursor: &mut Cursor,
    limits: &Limits,
    spans: &mut Vec<Span>,
) -> Result<bool, ProtocolError> {
    let mut position = cursor.position;
    let mut remaining = match cursor.remaining {
        Some(remaining) => remaining,
        None => {
            let header = match short_header(&buffer[position..]) {
                Some(header) => header,
                None => match long_header(buffer, cursor, Header::Count)? {
                    Some(header) => header,
                    None => return Ok(false),
                },
            };
            position += header.bytes;
            check_count(header.value, limits)?
        }
    };
    let mut bulk = cursor.bulk;
    while remaining > 0 {
        let length = match bulk.take() {
            Some(length) => length,
            None => {
                let rest = &buffer[position..];
                let header = match short_header(rest) {
                    Some(header) if rest[0] == b'$' => header,
                    _ => {
                        cursor.position = position;
                        cursor.remaining = Some(remaining);
                        cursor.bulk = None;
                        match long_header(buffer, cursor, Header::Length)? {
                            Some(header) => header,
                            None => return Ok(false),
                        }
                    }
                };
                let length = check_length(header.value, limits)?;
                position += header.bytes;
                length
            }
        };
        // The two bytes after it are counted, not read: Redis does not look at them either.
        if length.saturating_add(2) > buffer.len() - position {
            cursor.position = position;
            cursor.remaining = Some(remaining);
            cursor.bulk = Some(length);
            return Ok(false);
        }
        spans.push(Span { start: position, end: position + length });
        position += length + 2;
        remaining -= 1;
    }
    cursor.position = position;
    Ok(true)
}

/// A header line that was read: its number, and its bytes with prefix and line end.
struct HeaderLine {
    value: i64,
    bytes: usize,
}

#[derive(Clone, Copy)]
enum Header {
    Count,
    Length,
}

/// Reads the number of a header line, if it is there with its end and nothing is odd about it.
#[inline(always)]
fn short_header(line: &[u8]) -> Option<HeaderLine> {
    let &[_, first, second, third, ..] = line else { return None };
    let mut value = i64::from(first.wrapping_sub(b'0'));
    if value > 9 {
        return None;
    }
    if second == b'\r' {
        return Some(HeaderLine { value, bytes: 4 });
    }
    let digit = second.wrapping_sub(b'0');
    if digit > 9 || value == 0 {
        return None;
    }
    value = value * 10 + i64::from(digit);
    if third == b'\r' && line.len() > 4 {
        return Some(HeaderLine { value, bytes: 5 });
    }
    // At most 18 digits, so that nothing overflows; the byte after `\r` must have arrived too.
    let mut at = 3;
    while at < 19 && at + 1 < line.len() {
        let digit = line[at].wrapping_sub(b'0');
        if digit > 9 {
            return (line[at] == b'\r').then_some(HeaderLine { value, bytes: at + 2 });
        }
        value = value * 10 + i64::from(digit);
        at += 1;
    }
    None
}

/// The same for any line at the cursor, with Redis's exact rules and errors. None: not all there.
#[cold]
#[inline(never)]
fn long_header(
    buffer: &[u8],
    cursor: &mut Cursor,
    header: Header,
) -> Result<Option<HeaderLine>, ProtocolError> {
    let (too_big, invalid) = match header {
        Header::Count => {
            (ProtocolError::MultibulkCountTooBig, ProtocolError::InvalidMultibulkLength)
        }
        Header::Length => (ProtocolError::BulkCountTooBig, ProtocolError::InvalidBulkLength),
    };
    let Some(line_end) = find_in_line(buffer, b'\r', cursor, too_big)? else { return Ok(None) };
    if line_end + 2 > buffer.len() {
        cursor.searched = line_end;
        return Ok(None);
    }
    let line = &buffer[cursor.position..line_end];
    let digits = match header {
        // That it begins with `*` is why we are here.
        Header::Count => &line[1..],
        Header::Length => match line {
            [b'$', digits @ ..] => digits,
            _ => return Err(ProtocolError::ExpectedDollar { got: buffer[cursor.position] }),
        },
    };
    let value = crate::number::parse_i64(digits).ok_or(invalid)?;
    Ok(Some(HeaderLine { value, bytes: line.len() + 2 }))
}

/// Looks for the end of the line at the cursor. A line longer than the limit is an error whether
/// its end has arrived or not: the answer must not depend on how the bytes were cut up.
fn find_in_line(
    buffer: &[u8],
    end: u8,
    cursor: &mut Cursor,
    too_big: ProtocolError,
) -> Result<Option<usize>, ProtocolError> {
    let limit = cursor.position + LINE_BYTES_MAX + 1;
    let visible = buffer.len().min(limit);
    let from = cursor.searched.clamp(cursor.position, visible);
    match memchr2(end, 0, &buffer[from..visible]) {
        Some(offset) if buffer[from + offset] == end => return Ok(Some(from + offset)),
        // Stay on the NUL, so that it is what the next search finds too.
        Some(offset) => cursor.searched = from + offset,
        None => cursor.searched = visible,
    }
    if buffer.len() >= limit { Err(too_big) } else { Ok(None) }
}

#[inline(always)]
fn check_count(count: i64, limits: &Limits) -> Result<usize, ProtocolError> {
    // An empty or negative count is a request for nothing.
    let arguments = usize::try_from(count).unwrap_or(0);
    if arguments > limits.max_arguments {
        return Err(ProtocolError::InvalidMultibulkLength);
    }
    if count > UNAUTHENTICATED_ARGUMENTS_MAX && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedMultibulkLength);
    }
    Ok(arguments)
}

#[inline(always)]
fn check_length(length: i64, limits: &Limits) -> Result<usize, ProtocolError> {
    match usize::try_from(length) {
        Ok(bytes) if bytes <= limits.max_bulk => {
            if length > UNAUTHENTICATED_BULK_MAX && !limits.authenticated {
                return Err(ProtocolError::UnauthenticatedBulkLength);
            }
            Ok(bytes)
        }
        _ => Err(ProtocolError::InvalidBulkLength),
    }
}

/// The second word of a request that begins here, in most commands the key: a guess, for getting ready.
/// None where it is not whole, or written in an unusual way.
#[must_use]
pub fn second_word(request: &[u8]) -> Option<&[u8]> {
    let (_, rest) = header(request, b'*')?;
    let (length, rest) = header(rest, b'$')?;
    let (length, rest) = header(rest.get(length + 2..)?, b'$')?;
    rest.get(..length)
}

/// The number in a header line, and what comes after that line.
#[inline]
fn header(bytes: &[u8], sign: u8) -> Option<(usize, &[u8])> {
    /// Longer words are no keys worth guessing.
    const DIGITS_MAX: usize = 4;

    let (&first, mut rest) = bytes.split_first()?;
    let mut number = 0;
    for _ in 0..=DIGITS_MAX {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'0'..=b'9' => number = number * 10 + usize::from(byte - b'0'),
            b'\r' => return (first == sign).then_some((number, rest.get(1..)?)),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(usize, Vec<Vec<u8>>), Option<ProtocolError>>;

    /// Consumed bytes and arguments; an error; or, as `Err(None)`, incomplete.
    fn parse(input: &[u8], limits: &Limits) -> Outcome {
        let (mut buffer, mut spans) = (input.to_vec(), Vec::new());
        match Parser::default().next(&mut buffer, limits, &mut spans) {
            Ok(Progress::Complete { consumed, arguments }) => {
                assert_eq!(arguments, spans.len());
                assert_eq!(buffer[consumed..], input[consumed..], "bytes of the next command");
                Ok((consumed, spans.iter().map(|span| span.of(&buffer).to_vec()).collect()))
            }
            Ok(Progress::Incomplete { wanted }) => {
                assert!(wanted > input.len());
                assert!(spans.is_empty());
                Err(None)
            }
            Err(error) => {
                assert!(spans.is_empty());
                Err(Some(error))
            }
        }
    }

    #[track_caller]
    fn accepts(input: &[u8], consumed: usize, arguments: &[&[u8]]) {
        let (found_consumed, found) = parse(input, &Limits::default()).expect("a command");
        assert_eq!((found_consumed, found.len()), (consumed, arguments.len()));
        assert_eq!(found, arguments);
    }

    #[track_caller]
    fn waits(input: &[u8]) {
        assert_eq!(parse(input, &Limits::default()), Err(None));
    }

    #[track_caller]
    fn refuses(input: &[u8], text: &str) {
        let error = parse(input, &Limits::default()).expect_err("an error").expect("an error");
        assert_eq!(error.to_string(), format!("Protocol error: {text}"));
    }

    #[test]
    fn commands() {
        accepts(b"*1\r\n$4\r\nPING\r\n", 14, &[b"PING"]);
        accepts(b"*2\r\n$4\r\nECHO\r\n$10\r\n0123456789\r\n*1", 31, &[b"ECHO", b"0123456789"]);
        accepts(b"*1\r\n$0\r\n\r\n", 10, &[b""]);
        let long = [b"*1\r\n$100\r\n".to_vec(), vec![b'x'; 100], b"\r\n".to_vec()].concat();
        accepts(&long, 112, &[&[b'x'; 100]]);
        let many = [b"*123\r\n".to_vec(), b"$1\r\na\r\n".repeat(123)].concat();
        accepts(&many, many.len(), &[b"a".as_slice(); 123]);
    }

    #[test]
    fn empty_requests() {
        for empty in ["*0\r\n", "*-1\r\n", "*-9223372036854775808\r\n", "\r\n", "\n", " \t\r\n"] {
            accepts(format!("{empty}PING\r\n").as_bytes(), empty.len(), &[]);
        }
    }

    /// Each as Redis 8.0.6 does it.
    #[test]
    fn oddities() {
        accepts(b"*1\rx$4\rzPINGxx", 14, &[b"PING"]);
        accepts(b"PING\n", 5, &[b"PING"]);
        accepts(b"PING\r\r\n", 7, &[b"PING"]);
        accepts(b"$4\r\nPING\r\n", 4, &[b"$4"]);
        waits(b"");
        waits(b"*1\r");
        waits(b"*1\n$4\nPING\n");
        waits(b"*1\r\n+PING");
        waits(b"*1\r\n\0abc\r\n");
        waits(b"*1\0\r\n");
        waits(b"PI\0NG\r\nPING\r\n");
        waits(b"*2147483647\r\n");
        waits(b"*1\r\n$536870912\r\n");
        refuses(b"*1\nabc\r\n", "invalid multibulk length");
        refuses(b"*1\r\n+PING\r\n", "expected '$', got '+'");
        refuses(b"*1\r\n\r\n", "expected '$', got ' '");
        refuses(b"*1\r\n\n\r\n", "expected '$', got ' '");
    }

    #[test]
    fn malformed_lengths() {
        for count in ["", "-", "+1", "01", "-0", "1 ", "2147483648", "9223372036854775808"] {
            refuses(format!("*{count}\r\n").as_bytes(), "invalid multibulk length");
        }
        for length in ["", "-1", "-0", "04", "4a", "536870913", "99999999999999999999"] {
            refuses(format!("*1\r\n${length}\r\n").as_bytes(), "invalid bulk length");
        }
        refuses(b"ECHO \"a\r\n", "unbalanced quotes in request");
    }

    #[test]
    fn lines_are_bounded() {
        let cases = [
            ("", '\n', "too big inline request"),
            ("*", '\r', "too big mbulk count string"),
            ("*1\r\n$", '\r', "too big bulk count string"),
        ];
        for (start, end, text) in cases {
            let line_start = start.rfind(['*', '$']).unwrap_or(0);
            let line =
                |len: usize| format!("{start}{}", "1".repeat(len + line_start - start.len()));
            waits(line(LINE_BYTES_MAX).as_bytes());
            refuses(line(LINE_BYTES_MAX + 1).as_bytes(), text);
            refuses(format!("{}{end}\n", line(LINE_BYTES_MAX + 1)).as_bytes(), text);
        }
        let word = "a".repeat(LINE_BYTES_MAX);
        accepts(format!("{word}\n").as_bytes(), LINE_BYTES_MAX + 1, &[word.as_bytes()]);
        let hidden = [b"\0".to_vec(), vec![b'a'; LINE_BYTES_MAX], b"\r\n".to_vec()].concat();
        refuses(&hidden, "too big inline request");
    }

    #[test]
    fn limits_of_clients_not_authenticated() {
        let limits = Limits { authenticated: false, ..Limits::default() };
        assert_eq!(parse(b"*10\r\n", &limits), Err(None));
        assert_eq!(
            parse(b"*11\r\n", &limits),
            Err(Some(ProtocolError::UnauthenticatedMultibulkLength))
        );
        assert_eq!(parse(b"*1\r\n$16384\r\n", &limits), Err(None));
        assert_eq!(
            parse(b"*1\r\n$16385\r\n", &limits),
            Err(Some(ProtocolError::UnauthenticatedBulkLength))
        );
    }

    #[test]
    fn limits_can_be_set_anywhere() {
        let unlimited = Limits { max_bulk: usize::MAX, ..Limits::default() };
        assert_eq!(parse(b"*1\r\n$9223372036854775807\r\n", &unlimited), Err(None));
        let two = Limits { max_arguments: 2, max_bulk: 3, ..Limits::default() };
        assert_eq!(parse(b"*3\r\n", &two), Err(Some(ProtocolError::InvalidMultibulkLength)));
        assert_eq!(parse(b"*2\r\n$4\r\n", &two), Err(Some(ProtocolError::InvalidBulkLength)));
        assert_eq!(parse(b"*2\r\n$3\r\n", &two), Err(None));
    }

    #[test]
    fn an_unprintable_byte_is_sent_as_it_is() {
        let error = parse(b"*1\r\n\xff\r\n", &Limits::default()).expect_err("").expect("an error");
        let mut text = Vec::new();
        error.write_text(&mut text);
        assert_eq!(text, b"Protocol error: expected '$', got '\xff'");
        assert_eq!(error.to_string(), "Protocol error: expected '$', got '\u{fffd}'");
    }

    #[test]
    fn what_is_wanted_is_known_for_a_large_argument() {
        let (mut parser, limits, mut spans) = (Parser::default(), Limits::default(), Vec::new());
        let mut buffer = b"*2\r\n$3\r\nSET\r\n$1000\r\nab".to_vec();
        let progress = parser.next(&mut buffer, &limits, &mut spans);
        assert_eq!(progress, Ok(Progress::Incomplete { wanted: 20 + 1000 + 2 }));
        assert!(parser.is_partial() && parser.heap_bytes() > 0);
        assert_eq!((parser.partial_arguments(), spans.len()), (1, 0));

        buffer.resize(1022, b'x');
        let progress = parser.next(&mut buffer, &limits, &mut spans);
        assert_eq!(progress, Ok(Progress::Complete { consumed: 1022, arguments: 2 }));
        assert!(!parser.is_partial() && parser.heap_bytes() == 0);
        assert_eq!(spans[1], Span { start: 20, end: 1020 });
        assert_eq!(parser.long_argument_start(), 0);
        for (length, start) in [(LONG_BYTES - 1, 0), (LONG_BYTES, 21)] {
            let mut buffer = format!("*2\r\n$3\r\nSET\r\n${length}\r\nab").into_bytes();
            assert!(parser.next(&mut buffer, &limits, &mut spans).is_ok());
            assert_eq!(parser.long_argument_start(), start);
            parser.reset();
        }
    }

    /// A million arguments in pieces of 16 KB: quadratic work would take minutes here.
    #[test]
    fn a_long_command_is_read_once() {
        const ARGUMENTS: usize = 1_000_000;
        let input = [b"*1000000\r\n".to_vec(), b"$1\r\na\r\n".repeat(ARGUMENTS)].concat();
        let (mut parser, limits, mut spans) = (Parser::default(), Limits::default(), Vec::new());
        let mut buffer = Vec::new();
        for piece in input.chunks(16384) {
            buffer.extend_from_slice(piece);
            match parser.next(&mut buffer, &limits, &mut spans).expect("well-formed") {
                Progress::Incomplete { .. } => assert!(buffer.len() < input.len()),
                Progress::Complete { consumed, arguments } => {
                    assert_eq!((consumed, arguments), (input.len(), ARGUMENTS));
                }
            }
        }
        assert_eq!(spans.len(), ARGUMENTS);
        assert!(spans.iter().all(|span| span.of(&buffer) == b"a"));
    }

    #[test]
    fn the_second_word_is_guessed() {
        assert_eq!(second_word(b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\n"), Some(&b"hello"[..]));
        assert_eq!(second_word(b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$1\r\na\r\n"), Some(&b""[..]));
        let whole = b"*2\r\n$3\r\nGET\r\n$5\r\nhello";
        for length in 0..whole.len() {
            assert_eq!(second_word(&whole[..length]), None, "{length}");
        }
        for unusual in [
            &b"GET hello\r\n"[..],
            b"*1\r\n$4\r\nPING\r\n",
            b"*2\r\n$3\r\nGET\r\n$-1\r\nhello\r\n",
            b"*2\r\n$99999\r\nGET\r\n$5\r\nhello\r\n",
            b"*2\r\n$9999\r\nGET\r\n$5\r\nhello\r\n",
            b"$3\r\n$3\r\nGET\r\n$5\r\nhello\r\n",
        ] {
            assert_eq!(second_word(unusual), None);
        }
    }

    #[test]
    fn a_buffer_that_shrank_is_parsed_anew() {
        let (mut parser, limits, mut spans) = (Parser::default(), Limits::default(), Vec::new());
        let _ = parser.next(&mut b"*2\r\n$4\r\nPING\r\n".to_vec(), &limits, &mut spans);
        let progress = parser.next(&mut b"PING\n".to_vec(), &limits, &mut spans);
        assert_eq!(progress, Ok(Progress::Complete { consumed: 5, arguments: 1 }));
    }
}

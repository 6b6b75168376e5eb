//! A client for scripts: it sends command lines or raw bytes and fails the test when the reply is not
//! the expected one.

use std::io::{self, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::expect;
use crate::reply::{Protocol, Reply};
use crate::transport::Transport;

pub struct Client {
    transport: Transport,
    protocol: Protocol,
    received: Vec<u8>,
    /// Named in failures, so that one script run four ways says which way failed.
    label: String,
}

impl Client {
    pub fn over(transport: Transport) -> Self {
        let label = match transport {
            Transport::Tcp(_) => "TCP",
            Transport::Tls(_) => "TLS",
            Transport::Unix(_) => "unix socket",
        };
        Self { transport, protocol: Protocol::Resp2, received: Vec::new(), label: label.into() }
    }

    /// Switches to RESP3 (or stays with RESP2).
    pub fn speaking(mut self, protocol: Protocol) -> Self {
        if protocol == Protocol::Resp3 {
            self.hello3();
        }
        self
    }

    /// `HELLO 3`, whose reply is returned.
    pub fn hello3(&mut self) -> Reply {
        let reply = self.call("HELLO 3");
        assert!(matches!(reply, Reply::Map(_)), "HELLO 3 answered {reply}");
        self.protocol = Protocol::Resp3;
        reply
    }

    /// Tells the expectations what to look for after the script itself switched protocols.
    pub fn assume(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Runs a command line and checks its reply against `expected` (see `expect.rs`).
    #[track_caller]
    pub fn expect(&mut self, command: &str, expected: &str) -> Reply {
        let reply = self.call(command);
        self.check(command, &reply, expected);
        reply
    }

    /// Checks the next reply, sent for without a command of its own.
    #[track_caller]
    pub fn expect_next(&mut self, expected: &str) -> Reply {
        let reply = self.read();
        self.check("(next reply)", &reply, expected);
        reply
    }

    /// Runs several lines of `command => expected`; empty lines and `#` comments are skipped.
    #[track_caller]
    pub fn script(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((command, expected)) = line.split_once(" => ") else {
                panic!("a script line needs ' => ': {line}");
            };
            self.expect(command.trim(), expected);
        }
    }

    /// Runs a command line and returns its reply.
    #[track_caller]
    pub fn call(&mut self, command: &str) -> Reply {
        let words = words(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.send_words(&words);
        self.read()
    }

    /// Runs a command given as words, which may hold any bytes.
    #[track_caller]
    pub fn call_words<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Reply {
        self.send_words(words);
        self.read()
    }

    #[track_caller]
    pub fn send_words<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        let mut frame = Vec::new();
        encode(words, &mut frame);
        self.send(&frame);
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        let sent = self.transport.write_all(bytes).and_then(|()| self.transport.flush());
        sent.unwrap_or_else(|error| panic!("{}: sending failed: {error}", self.label));
    }

    /// Sends bytes to a server that may already have closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transport.write_all(bytes)?;
        self.transport.flush()
    }

    pub fn finish_writing(&mut self) {
        self.transport.finish_writing().expect("half-closing a stream");
    }

    /// Reads one reply.
    #[track_caller]
    pub fn read(&mut self) -> Reply {
        self.try_read().unwrap_or_else(|error| panic!("{}: no reply: {error:#}", self.label))
    }

    pub fn try_read(&mut self) -> Result<Reply> {
        loop {
            if let Some((reply, length)) = Reply::parse(&self.received)? {
                self.received.drain(..length);
                return Ok(reply);
            }
            if self.fill()? == 0 {
                bail!("closed after {:?}", self.received.escape_ascii().to_string());
            }
        }
    }

    /// Everything the server sends until it closes.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => return std::mem::take(&mut self.received),
                Ok(_) => {}
                Err(error) if is_stuck(&error) => {
                    panic!("{}: still open after {}", self.label, self.received.escape_ascii())
                }
                // A reset is a close whose last bytes were not read by the server.
                Err(_) => return std::mem::take(&mut self.received),
            }
        }
    }

    /// The server closes, after sending nothing more.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let rest = self.read_to_close();
        assert!(rest.is_empty(), "{}: before the close came {}", self.label, rest.escape_ascii());
    }

    /// Sends raw bytes, expects one reply and then the close.
    #[track_caller]
    pub fn expect_refusal(&mut self, bytes: &[u8], expected: &str) {
        let _ = self.try_send(bytes);
        let reply = self.read();
        self.check(&bytes.escape_ascii().to_string(), &reply, expected);
        self.expect_closed();
    }

    /// Whatever arrives within `wait`; nothing is fine.
    pub fn read_within(&mut self, wait: Duration) -> Option<Reply> {
        self.transport.set_read_timeout(wait).expect("a time limit above zero");
        let reply = self.try_read().ok();
        self.transport
            .set_read_timeout(crate::transport::PATIENCE)
            .expect("a time limit above zero");
        reply
    }

    /// Waits until `command` answers `expected`, for what the server does in the background.
    #[track_caller]
    pub fn eventually(&mut self, command: &str, expected: &str) {
        let mut reply = self.call(command);
        for _ in 0..500 {
            if expect::matches(expected, &reply, self.protocol).expect("a well-formed expectation")
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
            reply = self.call(command);
        }
        panic!("{}: {command} stays {reply}, expected {expected}", self.label);
    }

    /// One field of INFO.
    #[track_caller]
    pub fn info(&mut self, field: &str) -> String {
        let info = self.call("INFO everything").text();
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("INFO has no {field}")).to_owned()
    }

    #[track_caller]
    fn check(&self, command: &str, reply: &Reply, expected: &str) {
        match expect::matches(expected, reply, self.protocol) {
            Ok(true) => {}
            Ok(false) => panic!(
                "over {} {:?}: {command}\n  expected {expected}\n  got      {reply}",
                self.label, self.protocol
            ),
            Err(error) => panic!("{error:#}"),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let length = match self.transport.read(&mut chunk) {
            // A TLS peer that goes without close_notify is reported; only `tls.rs` cares.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            other => other?,
        };
        self.received.extend_from_slice(&chunk[..length]);
        Ok(length)
    }
}

fn is_stuck(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Writes a command as the array of bulk strings clients send.
pub fn encode<W: AsRef<[u8]>>(words: &[W], frame: &mut Vec<u8>) {
    frame.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        frame.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        frame.extend_from_slice(word);
        frame.extend_from_slice(b"\r\n");
    }
}

/// Splits a command line into words by the quoting rules of redis-cli.
pub fn words(line: &str) -> Result<Vec<Vec<u8>>> {
    let bytes = line.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b' ' => at += 1,
            b'"' | b'\'' => {
                let (word, length) = quoted(&bytes[at..])?;
                words.push(word);
                at += length;
            }
            _ => {
                let rest = &bytes[at..];
                let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
                words.push(rest[..end].to_vec());
                at += end;
            }
        }
    }
    Ok(words)
}

/// Reads a quoted string at the front of `bytes`: its content and its length with the quotes.
pub fn quoted(bytes: &[u8]) -> Result<(Vec<u8>, usize)> {
    let quote = bytes[0];
    let mut content = Vec::new();
    let mut at = 1;
    loop {
        let byte = *bytes.get(at).context("a quote is not closed")?;
        at += 1;
        if byte == quote {
            return Ok((content, at));
        }
        if byte != b'\\' {
            content.push(byte);
            continue;
        }
        let escaped = *bytes.get(at).context("a quote is not closed")?;
        at += 1;
        match escaped {
            b'n' => content.push(b'\n'),
            b'r' => content.push(b'\r'),
            b't' => content.push(b'\t'),
            b'x' => {
                let digits = bytes.get(at..at + 2).context("\\x needs two digits")?;
                content.push(u8::from_str_radix(std::str::from_utf8(digits)?, 16)?);
                at += 2;
            }
            other => content.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_be_quoted() {
        let split = words(r#"SET "a b" "\x00\r\n" 'c\'d' """#).unwrap();
        assert_eq!(split, [&b"SET"[..], b"a b", b"\x00\r\n", b"c'd", b""]);
    }
}

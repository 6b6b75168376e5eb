//! The snapshot of a full sync as it comes over a link: how it is announced, and where it ends.
//!
//! `$LENGTH` announces so many bytes. `$EOF:` announces 40 bytes that will come behind the last one; who
//! reads a snapshot that tells its own end checks them there ([`Payload::end`]), and who only keeps the bytes looks
//! for them ([`Marked`]).

use std::io::{self, Read};

/// Bytes of an end mark.
pub const MARK_BYTES: usize = 40;

/// How a snapshot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    Length(u64),
    Mark([u8; MARK_BYTES]),
}

impl Payload {
    /// What a line announces; the error is for the log.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let shown = crate::handshake::text(line);
        match line {
            [b'-', ..] => Err(format!("MASTER aborted replication with an error: {shown}")),
            [b'$', b'E', b'O', b'F', b':', mark @ ..] => match mark.try_into() {
                Ok(mark) => Ok(Self::Mark(mark)),
                Err(_) => Err(format!("MASTER announced a snapshot with a bad end mark: {shown}")),
            },
            [b'$', digits @ ..] => std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .filter(|length| *length <= u64::MAX >> 2)
                .map(Self::Length)
                .ok_or_else(|| format!("MASTER announced a snapshot of a bad length: {shown}")),
            _ => Err(format!(
                "Bad protocol from MASTER, the first byte is not '$' (we received '{shown}'), are \
                 you sure the host and port are right?"
            )),
        }
    }

    /// Bytes of the snapshot, where that is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(*length),
            Self::Mark(_) => None,
        }
    }

    /// Looks whether the snapshot has ended where it says, after `read` bytes. `behind`: what was read
    /// behind its end already, from which the mark is taken; what is left is no part of it.
    pub fn end(&self, read: u64, behind: &mut Vec<u8>, input: &mut impl Read) -> io::Result<()> {
        match self {
            Self::Length(length) if read == *length => Ok(()),
            Self::Length(_) => Err(io::Error::other("its length is not the one announced")),
            Self::Mark(mark) => {
                let missing = MARK_BYTES.saturating_sub(behind.len());
                let at = behind.len();
                behind.resize(at + missing, 0);
                input.read_exact(&mut behind[at..])?;
                let found: Vec<u8> = behind.drain(..MARK_BYTES).collect();
                match found == mark {
                    true => Ok(()),
                    false => Err(io::Error::other("Replication stream EOF marker is broken")),
                }
            }
        }
    }
}

/// A search for the end mark in bytes that come in pieces.
#[derive(Debug)]
pub struct Marked {
    mark: [u8; MARK_BYTES],
    /// The last bytes, which may be the beginning of the mark.
    held: Vec<u8>,
}

impl Marked {
    #[must_use]
    pub fn new(mark: [u8; MARK_BYTES]) -> Self {
        Self { mark, held: Vec::new() }
    }

    /// Takes a piece. Appends to `out` what is of the snapshot for certain. Once the mark has come:
    /// what came behind it.
    pub fn take(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Option<Vec<u8>> {
        self.held.extend_from_slice(piece);
        if let Some(at) = find(&self.held, &self.mark) {
            out.extend_from_slice(&self.held[..at]);
            return Some(self.held.split_off(at + MARK_BYTES));
        }
        let certain = self.held.len().saturating_sub(MARK_BYTES - 1);
        out.extend(self.held.drain(..certain));
        None
    }
}

fn find(bytes: &[u8], mark: &[u8; MARK_BYTES]) -> Option<usize> {
    let last = bytes.len().checked_sub(MARK_BYTES)?;
    let mut at = 0;
    while at <= last {
        // The mark is random: its first byte is looked for, then all of it.
        at += bytes[at..=last].iter().position(|byte| *byte == mark[0])?;
        if bytes[at..at + MARK_BYTES] == *mark {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Reads a line of at most `most` bytes from `input`, without what ends it; byte by byte, so that nothing
/// behind it is touched.
pub fn read_line(input: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if byte[0] == b'\n' {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(line);
        }
        if line.len() == most {
            return Err(io::Error::other("a line without end"));
        }
        line.push(byte[0]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: [u8; MARK_BYTES] = *b"0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_snapshot_is_announced_by_its_length_or_its_end() {
        assert_eq!(Payload::parse(b"$17"), Ok(Payload::Length(17)));
        let line = [b"$EOF:".as_slice(), &MARK].concat();
        assert_eq!(Payload::parse(&line), Ok(Payload::Mark(MARK)));
        for bad in ["", "+OK", "-ERR no", "$", "$-1", "$x", "$EOF:", "$EOF:short"] {
            assert!(Payload::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let error = Payload::parse(b"HTTP/1.1").unwrap_err();
        assert!(error.contains("are you sure the host and port are right?"), "{error}");
    }

    #[test]
    fn the_end_is_checked() {
        let end = |payload: Payload, read, behind: &[u8], rest: &[u8]| {
            let mut behind = behind.to_vec();
            payload.end(read, &mut behind, &mut &rest[..]).map(|()| behind)
        };
        assert!(end(Payload::Length(5), 4, b"", b"").is_err());
        assert_eq!(end(Payload::Length(5), 5, b"x", b"").unwrap(), b"x");
        let marked = Payload::Mark(MARK);
        assert_eq!(end(marked, 1, &MARK[..9], &MARK[9..]).unwrap(), b"");
        assert_eq!(end(marked, 1, &[&MARK[..], b"*1"].concat(), b"").unwrap(), b"*1");
        assert!(end(marked, 1, &[b'x'; 40], b"").is_err());
        assert!(end(marked, 1, b"", &MARK[..39]).is_err());
    }

    #[test]
    fn lines_are_bounded() {
        let mut input = &b"+OK\r\n\nabc"[..];
        assert_eq!(read_line(&mut input, 10).unwrap(), b"+OK");
        assert_eq!(read_line(&mut input, 10).unwrap(), b"");
        assert_eq!(read_line(&mut input, 10).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(read_line(&mut &[b'x'; 100][..], 10).is_err());
    }

    proptest! {
        #[test]
        fn a_mark_is_found_in_whatever_pieces_it_comes(
            body in prop::collection::vec(prop::sample::select(&b"0123a"[..]), 0..200),
            behind in prop::collection::vec(any::<u8>(), 0..50),
            sizes in prop::collection::vec(1_usize..60, 1..40),
        ) {
            let all = [&body[..], &MARK, &behind].concat();
            let mut marked = Marked::new(MARK);
            let (mut out, mut at) = (Vec::new(), 0);
            let mut sizes = sizes.iter().cycle();
            let rest = loop {
                prop_assert!(at < all.len(), "the mark was missed");
                let end = (at + sizes.next().unwrap()).min(all.len());
                let found = marked.take(&all[at..end], &mut out);
                at = end;
                if let Some(mut rest) = found {
                    rest.extend_from_slice(&all[at..]);
                    break rest;
                }
            };
            prop_assert_eq!(out, body);
            prop_assert_eq!(rest, behind);
        }
    }
}

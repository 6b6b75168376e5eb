//! What a replica says first on a link for data: which database it wants and which node it is. One line
//! each way, before the link becomes an ordinary connection of a replica.
//!
//! `FOLLOW 1 <database> <node>` over TLS, and `TICKET 1 <database> <node> <64 hexadecimal digits>` where a
//! ticket stands for the certificate. The answer is `+OK`, or the link ends.

use std::fmt::Write as _;
use std::io;

use carnelian_tls::internode::NodeUid;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::tickets::{TICKET_BYTES, Ticket};

/// No greeting is longer.
const LINE_BYTES_MAX: usize = 160;

/// The answer to a greeting that is taken.
pub const WELCOME: &[u8] = b"+OK\r\n";

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Greeting {
    /// The uid of the database whose data are wanted.
    pub database: u32,
    /// The node that wants them.
    pub node: NodeUid,
    pub ticket: Option<Ticket>,
}

impl Greeting {
    /// As it goes over the link.
    pub fn line(&self) -> String {
        let Self { database, node, ticket } = self;
        let Some(ticket) = ticket else { return format!("FOLLOW 1 {database} {node}\r\n") };
        format!("TICKET 1 {database} {node} {}\r\n", hex(ticket))
    }

    /// None if it is not one.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let (database, node, ticket) = match words[..] {
            ["FOLLOW", "1", database, node] => (database, node, None),
            ["TICKET", "1", database, node, ticket] => (database, node, Some(unhex(ticket)?)),
            _ => return None,
        };
        Some(Self { database: database.parse().ok()?, node: node.parse().ok()?, ticket })
    }
}

/// A line, without its end, and not a byte more. None if the link ends first.
pub async fn read_line(link: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    loop {
        match link.read_u8().await {
            Ok(b'\n') => break,
            Ok(_) if line.len() == LINE_BYTES_MAX => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an endless line"));
            }
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line)
        .map(Some)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not text"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn unhex(text: &str) -> Option<Ticket> {
    let mut ticket = [0; TICKET_BYTES];
    let digits = text.as_bytes();
    if digits.len() != 2 * TICKET_BYTES {
        return None;
    }
    for (byte, pair) in ticket.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(ticket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_read_back_and_nothing_else_is_one() {
        let node = NodeUid::new(7).unwrap();
        for ticket in [None, Some([0xa5; TICKET_BYTES])] {
            let greeting = Greeting { database: 3, node, ticket };
            let line = greeting.line();
            assert!(line.len() <= LINE_BYTES_MAX);
            assert_eq!(Greeting::parse(line.trim_end()), Some(greeting));
        }
        for bad in [
            "",
            "FOLLOW",
            "FOLLOW 2 1 1",
            "FOLLOW 1 1 0",
            "FOLLOW 1 -1 1",
            "FOLLOW 1 1 1 ",
            "FOLLOW 1 4294967296 1",
            "TICKET 1 1 1",
            "TICKET 1 1 1 00",
            "PSYNC ? -1",
        ] {
            assert_eq!(Greeting::parse(bad), None, "{bad}");
        }
        let bad = format!("TICKET 1 1 1 {}", "0g".repeat(TICKET_BYTES));
        assert_eq!(Greeting::parse(&bad), None);
    }

    #[tokio::test]
    async fn a_line_is_bounded_and_read_to_its_end_only() {
        let mut bytes = &b"one\r\ntwo"[..];
        assert_eq!(read_line(&mut bytes).await.unwrap().as_deref(), Some("one"));
        assert_eq!(bytes, b"two");
        assert_eq!(read_line(&mut bytes).await.unwrap(), None);
        assert!(read_line(&mut &[b'x'; 1000][..]).await.is_err());
        assert!(read_line(&mut &b"\xff\n"[..]).await.is_err());
    }
}

//! What one node tells another of a client that it sends there, and in which words.
//!
//! Over TLS a link begins with `FORWARD 1 <database> <node> <epoch> <bytes>` and a document of so many bytes: the
//! [`Visitor`]. Where the database is not encrypted between nodes, the same document goes over the control plane,
//! which always is, and is answered with a pass; the link that is not encrypted shows the pass and
//! says nothing else: `PASS 1 <database> <node> <64 hexadecimal digits>`. So what is believed of a client has in
//! either case come over a channel on which nobody can change it.
//!
//! `MOVE 1 <database> <node> <client>` is a second link for a client that is there already.
//!
//! The answer is one line: `+OK <client> <disconnects>`, an error in the words of Redis, which is the client's, or
//! `+LATER <reason>` from a node that is not the primary.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carnelian_tls::internode::NodeUid;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::internode::{Ticket, hex, unhex};

/// No document is longer: a certificate is the largest part of it.
pub const VISITOR_BYTES_MAX: usize = 64 << 10;

/// No address of a client is longer.
const ADDRESS_CHARS_MAX: usize = 160;

/// The first line of a link that is a client's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opening {
    /// The document of a [`Visitor`] of so many bytes follows.
    Forward {
        ask: Ask,
        bytes: usize,
    },
    Pass {
        ask: Ask,
        ticket: Ticket,
    },
    Move {
        ask: Ask,
        client: u64,
    },
}

/// Who asks, and for which database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ask {
    pub database: u32,
    /// The node that the client has come to.
    pub node: NodeUid,
    /// Of the placement that it goes by; 0 where that has been said before.
    pub epoch: u64,
}

impl Opening {
    pub fn line(&self) -> String {
        match self {
            Self::Forward { ask: Ask { database, node, epoch }, bytes } => {
                format!("FORWARD 1 {database} {node} {epoch} {bytes}\r\n")
            }
            Self::Pass { ask: Ask { database, node, .. }, ticket } => {
                format!("PASS 1 {database} {node} {}\r\n", hex(ticket))
            }
            Self::Move { ask: Ask { database, node, .. }, client } => {
                format!("MOVE 1 {database} {node} {client}\r\n")
            }
        }
    }

    /// None if it is not one.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let ask = |database: &str, node: &str, epoch: &str| {
            let (database, epoch) = (database.parse().ok()?, epoch.parse().ok()?);
            Some(Ask { database, node: node.parse().ok()?, epoch })
        };
        match words[..] {
            ["FORWARD", "1", database, node, epoch, bytes] => {
                let bytes = bytes.parse().ok().filter(|bytes| *bytes <= VISITOR_BYTES_MAX)?;
                Some(Self::Forward { ask: ask(database, node, epoch)?, bytes })
            }
            ["PASS", "1", database, node, ticket] => {
                Some(Self::Pass { ask: ask(database, node, "0")?, ticket: unhex(ticket)? })
            }
            ["MOVE", "1", database, node, client] => {
                Some(Self::Move { ask: ask(database, node, "0")?, client: client.parse().ok()? })
            }
            _ => None,
        }
    }
}

/// A client as the node knows it that it has come to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Visitor {
    pub address: String,
    /// Where it has come to.
    pub local_address: String,
    pub is_tls: bool,
    /// It is on the machine of the node that it has come to.
    pub is_local: bool,
    /// What it has shown, and proved to have the key of, if the database's settings ask for that.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Visitor {
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { address, local_address, is_tls, is_local, certificate } = self;
        let certificate = certificate.as_ref().map(|der| STANDARD.encode(der));
        let document = json!({
            "address": address, "local_address": local_address, "tls": is_tls, "local": is_local,
            "certificate": certificate,
        });
        document.to_string().into_bytes()
    }

    /// None if it is not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(bytes).ok()?;
        let address = |name: &str| {
            let text = document[name].as_str()?;
            // It is shown to operators, in lines and columns.
            let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
            (is_plain && text.len() <= ADDRESS_CHARS_MAX).then(|| text.to_owned())
        };
        let certificate = match &document["certificate"] {
            Value::Null => None,
            text => Some(CertificateDer::from(STANDARD.decode(text.as_str()?).ok()?)),
        };
        Some(Self {
            address: address("address")?,
            local_address: address("local_address")?,
            is_tls: document["tls"].as_bool()?,
            is_local: document["local"].as_bool()?,
            certificate,
        })
    }
}

/// What a node says to a client that is sent to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    Welcome(Welcome),
    /// For the client itself, with the end of the line.
    Refused(Vec<u8>),
    /// It is not the primary, or not yet.
    Later(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Welcome {
    /// The number of the client there.
    pub client: u64,
    /// How often the database's clients have been disconnected there.
    pub disconnects: u64,
}

/// No answer is longer: the longest is about `protected-mode`.
const ANSWER_BYTES_MAX: usize = 4 << 10;

impl Answer {
    pub fn line(&self) -> Vec<u8> {
        match self {
            Self::Welcome(Welcome { client, disconnects }) => {
                format!("+OK {client} {disconnects}\r\n").into_bytes()
            }
            Self::Refused(text) => text.clone(),
            Self::Later(reason) => {
                let reason = reason.replace(|c: char| c.is_control(), " ");
                format!("+LATER {reason}\r\n").into_bytes()
            }
        }
    }

    /// Reads one, and not a byte more. None if it is none.
    pub async fn read(link: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Self>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if ANSWER_BYTES_MAX <= line.len() {
                return Ok(None);
            }
            line.push(link.read_u8().await?);
        }
        Ok(Self::parse(&line))
    }

    fn parse(line: &[u8]) -> Option<Self> {
        if line.starts_with(b"-") {
            return Some(Self::Refused(line.to_vec()));
        }
        let text = std::str::from_utf8(line).ok()?.trim_end();
        if let Some(reason) = text.strip_prefix("+LATER ") {
            return Some(Self::Later(reason.to_owned()));
        }
        let (client, disconnects) = text.strip_prefix("+OK ")?.split_once(' ')?;
        let (client, disconnects) = (client.parse().ok()?, disconnects.parse().ok()?);
        Some(Self::Welcome(Welcome { client, disconnects }))
    }
}

/// As clients are told of addresses.
pub fn shown(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "?:0".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_read_back_and_nothing_else_is_one() {
        let ask = Ask { database: 3, node: NodeUid::new(7).unwrap(), epoch: 12 };
        let said = Ask { epoch: 0, ..ask };
        for opening in [
            Opening::Forward { ask, bytes: 99 },
            Opening::Pass { ask: said, ticket: [0xa5; 32] },
            Opening::Move { ask: said, client: u64::MAX },
        ] {
            let line = opening.line();
            assert!(line.len() <= 160);
            assert_eq!(Opening::parse(line.trim_end()), Some(opening));
        }
        for bad in [
            "FORWARD 1 3 7 12",
            "FORWARD 1 3 7 12 65537",
            "FORWARD 2 3 7 12 9",
            "FORWARD 1 3 0 12 9",
            "PASS 1 3 7 00",
            "MOVE 1 3 7 -1",
            "FOLLOW 1 3 7",
        ] {
            assert_eq!(Opening::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn visitors_read_back_and_cannot_break_a_line() {
        let visitor = Visitor {
            address: "10.0.0.9:1234".into(),
            local_address: "[::1]:6379".into(),
            is_tls: true,
            is_local: false,
            certificate: Some(CertificateDer::from(vec![1, 2, 3])),
        };
        assert_eq!(Visitor::parse(&visitor.to_bytes()), Some(visitor.clone()));
        let bare = Visitor { certificate: None, ..visitor.clone() };
        assert_eq!(Visitor::parse(&bare.to_bytes()), Some(bare));
        for address in ["1.2.3.4:5 flags=N", "a\r\n", &"x".repeat(161)] {
            let bad = Visitor { address: (*address).into(), ..visitor.clone() };
            assert_eq!(Visitor::parse(&bad.to_bytes()), None, "{address}");
        }
        for bad in ["", "{}", "[]", r#"{"address":1}"#] {
            assert_eq!(Visitor::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn answers_read_back_to_their_end_and_no_further() {
        let answers = [
            Answer::Welcome(Welcome { client: 5, disconnects: 2 }),
            Answer::Refused(b"-ERR max number of clients reached\r\n".to_vec()),
            Answer::Later("not here".into()),
        ];
        let mut bytes = answers.iter().flat_map(Answer::line).collect::<Vec<u8>>();
        bytes.extend_from_slice(b"rest");
        let mut link = bytes.as_slice();
        for answer in answers {
            assert_eq!(Answer::read(&mut link).await.unwrap(), Some(answer));
        }
        assert_eq!(link, b"rest");
        assert_eq!(Answer::read(&mut &b"HTTP/1.1 400\r\n"[..]).await.unwrap(), None);
        assert_eq!(Answer::read(&mut &[b'x'; 9000][..]).await.unwrap(), None);
        assert!(Answer::read(&mut &b"+OK"[..]).await.is_err());
    }
}

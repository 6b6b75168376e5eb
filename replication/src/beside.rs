//! A full synchronisation over two connections: the snapshot comes over one of its own, beside the stream, which
//! the replica keeps until the snapshot is in place.
//!
//! There are two ways to say which two connections belong together. In that of Redis 8 the primary gives the first one
//! a number, and the second one names it; the stream begins by itself. In that of Valkey the primary gives the second one
//! a number, which the first one names, and then asks for what follows the snapshot.
//!
//! As in [`crate::handshake`]: lines in, bytes and a verdict out.

use crate::handshake::{Refused, command, text};
use crate::history::Id;

/// Which ways a replica offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// `capa rdb-channel-repl`: that of Redis.
    pub rdb_channel: bool,
    /// `capa dual-channel`: that of Valkey.
    pub dual_channel: bool,
}

/// The way that the primary has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The snapshot's connection names the stream's by this number.
    NamesStream(u64),
    /// The stream's connection is to name the snapshot's.
    NamedByStream,
}

/// What a replica tells of itself on the snapshot's connection.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// `masteruser`, and `masterauth`; none: no AUTH.
    pub auth: Option<(Vec<u8>, Vec<u8>)>,
    pub listening_port: u16,
    /// `replica-announce-ip`; empty: as the connection has it.
    pub address: String,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the next line.
    Listen,
    /// Send this, then read the next line.
    Say(Vec<u8>),
    /// The snapshot comes now.
    Begin(Begun),
}

/// A snapshot that begins to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    pub id: Id,
    pub offset: u64,
    /// By what the stream's connection has to name this one, if it has to.
    pub named: Option<u64>,
}

/// An answer that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Auth,
    /// To what is no loss if it is not understood.
    Address,
    Told,
    Snapshot,
}

/// The handshake of the snapshot's connection.
#[derive(Debug)]
pub struct Handshake {
    beside: Beside,
    /// Answers that are due, the next one last.
    awaited: Vec<Awaited>,
}

impl Handshake {
    /// Begins one; the bytes are to be sent.
    #[must_use]
    pub fn begin(beside: Beside, visitor: &Visitor) -> (Self, Vec<u8>) {
        let mut out = Vec::new();
        let mut awaited = Vec::new();
        if let Some((user, password)) = &visitor.auth {
            match user.is_empty() {
                true => command(&mut out, &[b"AUTH", password]),
                false => command(&mut out, &[b"AUTH", user, password]),
            }
            awaited.push(Awaited::Auth);
        }
        if !visitor.address.is_empty() {
            command(&mut out, &[b"REPLCONF", b"ip-address", visitor.address.as_bytes()]);
            awaited.push(Awaited::Address);
        }
        let port = visitor.listening_port.to_string();
        let mut words = vec![b"REPLCONF".as_slice(), b"capa", b"eof", b"rdb-only", b"1"];
        words.extend([b"rdb-channel".as_slice(), b"1"]);
        let stream = match beside {
            Beside::NamesStream(stream) => Some(stream.to_string()),
            Beside::NamedByStream => None,
        };
        if let Some(stream) = &stream {
            words.extend([b"main-ch-client-id".as_slice(), stream.as_bytes()]);
        }
        words.extend([b"listening-port".as_slice(), port.as_bytes()]);
        command(&mut out, &words);
        awaited.push(Awaited::Told);
        awaited.reverse();
        (Self { beside, awaited }, out)
    }

    /// Takes a line from the primary, without its end.
    pub fn take(&mut self, line: &[u8]) -> Result<Step, Refused> {
        let Some(&first) = line.first() else { return Ok(Step::Listen) };
        match self.awaited.pop() {
            Some(Awaited::Auth) if first == b'-' => Err(Refused::Auth(text(line))),
            Some(Awaited::Told) if first == b'-' => Err(Refused::Beside(text(line))),
            Some(Awaited::Auth | Awaited::Address) => Ok(Step::Listen),
            Some(Awaited::Told) => {
                self.awaited.push(Awaited::Snapshot);
                let mut out = Vec::new();
                match self.beside {
                    Beside::NamesStream(_) => command(&mut out, &[b"PSYNC", b"?", b"-1"]),
                    Beside::NamedByStream => command(&mut out, &[b"SYNC"]),
                }
                Ok(Step::Say(out))
            }
            Some(Awaited::Snapshot) | None => self.begun(line).map(Step::Begin),
        }
    }

    fn begun(&self, line: &[u8]) -> Result<Begun, Refused> {
        let syntax = || Refused::Beside(text(line));
        let name: &[u8] = match self.beside {
            Beside::NamesStream(_) => b"+FULLRESYNC ",
            Beside::NamedByStream => b"$ENDOFF:",
        };
        let rest = line.strip_prefix(name).ok_or_else(syntax)?;
        let words: Vec<&[u8]> = rest.split(|&byte| byte == b' ').collect();
        let begun = match (self.beside, &words[..]) {
            (Beside::NamesStream(_), [id, offset]) => Begun {
                id: Id::parse(id).ok_or_else(syntax)?,
                offset: number(offset).ok_or_else(syntax)?,
                named: None,
            },
            (Beside::NamedByStream, [offset, id, db, own]) => {
                // The snapshot says it too, if any is selected.
                if db != b"-1" {
                    number(db).ok_or_else(syntax)?;
                }
                Begun {
                    id: Id::parse(id).ok_or_else(syntax)?,
                    offset: number(offset).ok_or_else(syntax)?,
                    named: Some(number(own).ok_or_else(syntax)?),
                }
            }
            _ => return Err(syntax()),
        };
        Ok(begun)
    }
}

/// What the stream's connection says to name the snapshot's.
#[must_use]
pub fn name(snapshot: u64) -> Vec<u8> {
    let mut out = Vec::new();
    command(&mut out, &[b"REPLCONF", b"set-rdb-client-id", snapshot.to_string().as_bytes()]);
    out
}

/// What it says then, to get what follows the snapshot.
#[must_use]
pub fn follow(begun: &Begun) -> Vec<u8> {
    let mut out = Vec::new();
    // Bytes are counted from 1.
    let (id, next) = (begun.id.to_string(), (begun.offset + 1).to_string());
    command(&mut out, &[b"PSYNC", id.as_bytes(), next.as_bytes()]);
    out
}

fn number(word: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    // Room for all that may come: offsets are shown as signed numbers.
    (number <= u64::MAX >> 2).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn id() -> Id {
        Id::parse(ID.as_bytes()).unwrap()
    }

    fn visitor() -> Visitor {
        Visitor { listening_port: 6380, ..Visitor::default() }
    }

    fn said(bytes: &[u8]) -> String {
        let text = std::str::from_utf8(bytes).unwrap();
        let words = text.split("\r\n").filter(|word| !word.starts_with('$'));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_snapshot_names_the_stream_or_is_named_by_it() {
        let (mut handshake, out) = Handshake::begin(Beside::NamesStream(7), &visitor());
        assert_eq!(
            said(&out),
            "*11 REPLCONF capa eof rdb-only 1 rdb-channel 1 main-ch-client-id 7 listening-port 6380 "
        );
        let Ok(Step::Say(out)) = handshake.take(b"+OK") else { panic!("nothing is said") };
        assert_eq!(said(&out), "*3 PSYNC ? -1 ");
        assert_eq!(handshake.take(b""), Ok(Step::Listen));
        let begun = Begun { id: id(), offset: 9, named: None };
        let line = format!("+FULLRESYNC {ID} 9");
        assert_eq!(handshake.take(line.as_bytes()), Ok(Step::Begin(begun)));

        let (mut handshake, out) = Handshake::begin(Beside::NamedByStream, &visitor());
        assert_eq!(
            said(&out),
            "*9 REPLCONF capa eof rdb-only 1 rdb-channel 1 listening-port 6380 "
        );
        let Ok(Step::Say(out)) = handshake.take(b"+OK") else { panic!("nothing is said") };
        assert_eq!(said(&out), "*1 SYNC ");
        let begun = Begun { id: id(), offset: 9, named: Some(12) };
        let line = format!("$ENDOFF:9 {ID} 0 12");
        assert_eq!(handshake.take(line.as_bytes()), Ok(Step::Begin(begun)));
        let line = format!("$ENDOFF:9 {ID} -1 12");
        assert_eq!(handshake.take(line.as_bytes()), Ok(Step::Begin(begun)));
        assert_eq!(said(&name(12)), "*3 REPLCONF set-rdb-client-id 12 ");
        assert_eq!(said(&follow(&begun)), format!("*3 PSYNC {ID} 10 "));
    }

    #[test]
    fn what_is_refused_or_wrong_is_told() {
        let auth = Some((b"me".to_vec(), b"secret".to_vec()));
        let visitor = Visitor { auth, address: "10.0.0.1".into(), ..visitor() };
        let begin = || Handshake::begin(Beside::NamesStream(7), &visitor);
        let (mut handshake, out) = begin();
        assert!(said(&out).starts_with("*3 AUTH me secret *3 REPLCONF ip-address 10.0.0.1 *11"));
        assert_eq!(handshake.take(b"-WRONGPASS"), Err(Refused::Auth("-WRONGPASS".into())));
        let (mut handshake, _) = begin();
        // It need not know addresses, but it has to know the rest.
        for line in [b"+OK".as_slice(), b"-ERR what?"] {
            assert_eq!(handshake.take(line), Ok(Step::Listen));
        }
        assert!(matches!(handshake.take(b"-ERR Unrecognized"), Err(Refused::Beside(_))));
        let lines = [
            "+OK".to_owned(),
            format!("+FULLRESYNC {ID}"),
            format!("+FULLRESYNC {ID} -1"),
            format!("+FULLRESYNC {ID} 1 2"),
            format!("+FULLRESYNC {ID} 18446744073709551615"),
            format!("$ENDOFF:1 {ID} 0 1"),
        ];
        for line in lines {
            let (mut handshake, _) = Handshake::begin(Beside::NamesStream(7), &self::visitor());
            handshake.take(b"+OK").unwrap();
            assert!(matches!(handshake.take(line.as_bytes()), Err(Refused::Beside(_))), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_lines_end_a_handshake_or_go_on(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..9),
            is_named: bool,
        ) {
            let beside = if is_named { Beside::NamedByStream } else { Beside::NamesStream(1) };
            let (mut handshake, _) = Handshake::begin(beside, &visitor());
            for line in lines {
                if handshake.take(&line).is_err() {
                    break;
                }
            }
        }
    }
}

//! What a replica says to its primary before the data come, and what it makes of the answers.
//!
//! State and lines in, bytes and a verdict out: whoever has the socket sends what it is told to and hands
//! over each line that comes. `PING` goes first and by itself, since its answer tells whether this is a server at
//! all; then who we are and what we can, in one piece; then `PSYNC`.

use crate::beside::{Beside, Offers};
use crate::history::Id;

/// No line of a handshake is longer. What an error says behind that is of no use to anybody.
pub const LINE_BYTES_MAX: usize = 4096;

/// Lines without content are signs of life; there are not so many of them.
const SIGNS_OF_LIFE_MAX: u32 = 1_000_000;

/// What a replica tells of itself.
#[derive(Clone, Debug, Default)]
pub struct Introduction {
    /// `masteruser`, and `masterauth`; none: no AUTH.
    pub auth: Option<(Vec<u8>, Vec<u8>)>,
    pub listening_port: u16,
    /// `replica-announce-ip`; empty: as the connection has it.
    pub address: String,
    pub version: String,
    /// The history there is, and the offset behind its last byte; none: everything is wanted.
    pub history: Option<(Id, u64)>,
    /// How else than over this connection a snapshot may come.
    pub offers: Offers,
    /// The primary is told to become one: it was a replica of ours until now.
    pub is_failover: bool,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the next line.
    Listen,
    /// Send this, then read the next line.
    Say(Vec<u8>),
    /// The primary goes on behind what we have, under this name if it has another one now.
    Continue(Option<Id>),
    /// Everything comes, as a snapshot at this offset of this history.
    FullSync { id: Id, offset: u64 },
    /// Everything comes, the snapshot over a connection of its own.
    Beside(Beside),
}

/// Why it did not come to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No answer to PING that a server would give.
    NoServer(String),
    /// `masterauth` is wrong.
    Auth(String),
    /// It cannot now: it loads, or has no primary itself.
    Later(String),
    /// It knows no PSYNC, or does not want to.
    Psync(String),
    /// It says it accepted, but not what.
    Syntax(String),
    /// It does not bring the snapshot over a connection of its own after all.
    Beside(String),
    /// It says nothing, endlessly.
    Endless,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoServer(line) => write!(f, "Error reply to PING from master: '{line}'"),
            Self::Auth(line) => write!(f, "Unable to AUTH to MASTER: {line}"),
            Self::Later(line) => {
                write!(f, "Master is currently unable to PSYNC but should be in the future: {line}")
            }
            Self::Psync(line) => {
                write!(f, "Master does not support PSYNC or is in error state (reply: {line})")
            }
            Self::Syntax(line) => write!(f, "Master replied to PSYNC with wrong syntax: {line}"),
            Self::Beside(line) => {
                write!(f, "Master does not send a snapshot over a second connection: {line}")
            }
            Self::Endless => f.write_str("Master only sends empty lines"),
        }
    }
}

/// An answer that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Pong,
    Auth,
    /// To a part of the introduction that the primary need not understand.
    Told(&'static str),
    Psync,
}

/// The state of a handshake.
#[derive(Debug)]
pub struct Handshake {
    introduction: Introduction,
    /// Answers that are due, the next one last.
    awaited: Vec<Awaited>,
    signs_of_life: u32,
    /// What the primary does not understand, for the log.
    pub remarks: Vec<String>,
}

impl Handshake {
    /// Begins one; the bytes are to be sent.
    #[must_use]
    pub fn begin(introduction: Introduction) -> (Self, Vec<u8>) {
        let handshake = Self {
            introduction,
            awaited: vec![Awaited::Pong],
            signs_of_life: 0,
            remarks: Vec::new(),
        };
        let mut ping = Vec::new();
        command(&mut ping, &[b"PING"]);
        (handshake, ping)
    }

    /// Takes a line from the primary, without its end.
    pub fn take(&mut self, line: &[u8]) -> Result<Step, Refused> {
        if line.is_empty() {
            self.signs_of_life += 1;
            return match self.signs_of_life {
                0..SIGNS_OF_LIFE_MAX => Ok(Step::Listen),
                _ => Err(Refused::Endless),
            };
        }
        match self.awaited.pop() {
            Some(Awaited::Pong) => {
                let is_known = [b"+".as_slice(), b"-NOAUTH", b"-NOPERM"];
                let is_old = line.starts_with(b"-ERR operation not permitted");
                if !is_old && !is_known.iter().any(|start| line.starts_with(start)) {
                    return Err(Refused::NoServer(text(line)));
                }
                Ok(Step::Say(self.introduce()))
            }
            Some(Awaited::Auth) if line[0] == b'-' => Err(Refused::Auth(text(line))),
            Some(Awaited::Told(what)) if line[0] == b'-' => {
                let line = text(line);
                self.remarks.push(format!(
                    "(Non critical) Master does not understand REPLCONF {what}: {line}"
                ));
                self.go_on()
            }
            Some(Awaited::Auth | Awaited::Told(_)) => self.go_on(),
            Some(Awaited::Psync) | None => verdict(line, self.introduction.offers),
        }
    }

    /// Sends PSYNC once all else has been answered.
    fn go_on(&mut self) -> Result<Step, Refused> {
        if !self.awaited.is_empty() {
            return Ok(Step::Listen);
        }
        self.awaited.push(Awaited::Psync);
        let (id, next) = match &self.introduction.history {
            // Redis counts bytes from 1, and asks for the next one.
            Some((id, offset)) => (id.to_string(), (offset + 1).to_string()),
            None => ("?".to_owned(), "-1".to_owned()),
        };
        let mut words = vec![b"PSYNC".as_slice(), id.as_bytes(), next.as_bytes()];
        if self.introduction.is_failover {
            words.push(b"FAILOVER");
        }
        let mut psync = Vec::new();
        command(&mut psync, &words);
        Ok(Step::Say(psync))
    }

    /// Who we are and what we can.
    fn introduce(&mut self) -> Vec<u8> {
        let Introduction { auth, listening_port, address, version, offers, .. } =
            &self.introduction;
        let mut out = Vec::new();
        let mut told = Vec::new();
        if let Some((user, password)) = auth {
            match user.is_empty() {
                true => command(&mut out, &[b"AUTH", password]),
                false => command(&mut out, &[b"AUTH", user, password]),
            }
            told.push(Awaited::Auth);
        }
        let port = listening_port.to_string();
        command(&mut out, &[b"REPLCONF", b"listening-port", port.as_bytes()]);
        told.push(Awaited::Told("listening-port"));
        if !address.is_empty() {
            command(&mut out, &[b"REPLCONF", b"ip-address", address.as_bytes()]);
            told.push(Awaited::Told("ip-address"));
        }
        let mut words = vec![b"REPLCONF".as_slice(), b"capa", b"eof", b"capa", b"psync2"];
        if offers.rdb_channel {
            words.extend([b"capa".as_slice(), b"rdb-channel-repl"]);
        }
        if offers.dual_channel {
            words.extend([b"capa".as_slice(), b"dual-channel"]);
        }
        command(&mut out, &words);
        told.push(Awaited::Told("capa"));
        command(&mut out, &[b"REPLCONF", b"version", version.as_bytes()]);
        told.push(Awaited::Told("version"));
        told.reverse();
        self.awaited = told;
        out
    }
}

/// What the answer to PSYNC says.
fn verdict(line: &[u8], offers: Offers) -> Result<Step, Refused> {
    let syntax = || Refused::Syntax(text(line));
    let mut words = line.split(|&byte| byte == b' ');
    match words.next() {
        Some(b"+FULLRESYNC") => {
            let id = words.next().and_then(Id::parse).ok_or_else(syntax)?;
            let offset = words.next().and_then(|word| std::str::from_utf8(word).ok());
            let offset = offset.and_then(|word| word.parse().ok());
            // Room for all that may come: offsets are shown as signed numbers.
            let offset = offset.filter(|&offset: &u64| offset <= u64::MAX >> 2);
            Ok(Step::FullSync { id, offset: offset.ok_or_else(syntax)? })
        }
        Some(b"+CONTINUE") => match words.next() {
            None | Some(b"") => Ok(Step::Continue(None)),
            Some(id) => Ok(Step::Continue(Some(Id::parse(id).ok_or_else(syntax)?))),
        },
        Some(b"+RDBCHANNELSYNC") if offers.rdb_channel => {
            let own = words.next().and_then(|word| std::str::from_utf8(word).ok());
            let own = own.and_then(|word| word.parse().ok()).ok_or_else(syntax)?;
            Ok(Step::Beside(Beside::NamesStream(own)))
        }
        Some(b"+DUALCHANNELSYNC") if offers.dual_channel => Ok(Step::Beside(Beside::NamedByStream)),
        Some(b"-NOMASTERLINK" | b"-LOADING") => Err(Refused::Later(text(line))),
        _ => Err(Refused::Psync(text(line))),
    }
}

/// Appends a request.
pub fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// A line for the log: no more of it than one would want to read, and nothing that a terminal would obey.
#[must_use]
pub fn text(line: &[u8]) -> String {
    const SHOWN: usize = 200;

    line[..line.len().min(SHOWN)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn id() -> Id {
        Id::parse(ID.as_bytes()).unwrap()
    }

    fn said(step: &Result<Step, Refused>) -> Vec<String> {
        let Ok(Step::Say(bytes)) = step else { panic!("{step:?}") };
        let text = String::from_utf8(bytes.clone()).unwrap();
        let words = text.split("\r\n").filter(|word| !word.starts_with('$'));
        let words: Vec<_> = words.collect();
        let commands = words.split(|word| word.starts_with('*'));
        commands
            .map(|words| words.join(" ").trim().to_owned())
            .filter(|it| !it.is_empty())
            .collect()
    }

    fn introduction() -> Introduction {
        Introduction { listening_port: 6380, version: "8.0.0".into(), ..Introduction::default() }
    }

    #[test]
    fn a_replica_introduces_itself_and_asks_for_everything() {
        let (mut handshake, ping) = Handshake::begin(introduction());
        assert_eq!(ping, b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(handshake.take(b""), Ok(Step::Listen));
        let step = handshake.take(b"+PONG");
        assert_eq!(
            said(&step),
            [
                "REPLCONF listening-port 6380",
                "REPLCONF capa eof capa psync2",
                "REPLCONF version 8.0.0"
            ]
        );
        assert_eq!(handshake.take(b"+OK"), Ok(Step::Listen));
        assert_eq!(handshake.take(b"-ERR unknown"), Ok(Step::Listen));
        let step = handshake.take(b"+OK");
        assert_eq!(said(&step), ["PSYNC ? -1"]);
        assert_eq!(handshake.remarks.len(), 1);
        assert_eq!(handshake.take(b""), Ok(Step::Listen));
        let line = format!("+FULLRESYNC {ID} 77");
        assert_eq!(handshake.take(line.as_bytes()), Ok(Step::FullSync { id: id(), offset: 77 }));
    }

    #[test]
    fn a_replica_with_a_history_asks_for_what_comes_after_it() {
        let introduction = Introduction {
            auth: Some((b"me".to_vec(), b"secret".to_vec())),
            address: "10.0.0.1".into(),
            history: Some((id(), 99)),
            is_failover: true,
            ..introduction()
        };
        let (mut handshake, _) = Handshake::begin(introduction);
        let step = handshake.take(b"-NOAUTH Authentication required.");
        let lines = said(&step);
        assert_eq!(lines[0], "AUTH me secret");
        assert_eq!(lines[2], "REPLCONF ip-address 10.0.0.1");
        for _ in 1..lines.len() {
            assert_eq!(handshake.take(b"+OK"), Ok(Step::Listen));
        }
        let step = handshake.take(b"+OK");
        assert_eq!(said(&step), [format!("PSYNC {ID} 100 FAILOVER")]);
        assert_eq!(handshake.take(b"+CONTINUE"), Ok(Step::Continue(None)));
        let line = format!("+CONTINUE {ID}");
        assert_eq!(verdict(line.as_bytes(), Offers::default()), Ok(Step::Continue(Some(id()))));
    }

    #[test]
    fn a_snapshot_comes_over_another_connection_only_where_that_was_offered() {
        let both = Offers { rdb_channel: true, dual_channel: true };
        let (mut handshake, _) = Handshake::begin(Introduction { offers: both, ..introduction() });
        let capabilities = &said(&handshake.take(b"+PONG"))[1];
        assert_eq!(
            capabilities,
            "REPLCONF capa eof capa psync2 capa rdb-channel-repl capa dual-channel"
        );
        let named = Step::Beside(Beside::NamesStream(31));
        assert_eq!(verdict(b"+RDBCHANNELSYNC 31", both), Ok(named));
        assert_eq!(verdict(b"+DUALCHANNELSYNC", both), Ok(Step::Beside(Beside::NamedByStream)));
        assert!(matches!(verdict(b"+RDBCHANNELSYNC -1", both), Err(Refused::Syntax(_))));
        for line in [b"+RDBCHANNELSYNC 31".as_slice(), b"+DUALCHANNELSYNC"] {
            assert!(matches!(verdict(line, Offers::default()), Err(Refused::Psync(_))));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (mut handshake, _) = Handshake::begin(introduction());
        let refused = handshake.take(b"HTTP/1.1 400 \x1b[2J").unwrap_err();
        assert_eq!(refused.to_string(), "Error reply to PING from master: 'HTTP/1.1 400 \\x1b[2J'");
        let auth = Some((Vec::new(), b"wrong".to_vec()));
        let (mut handshake, _) = Handshake::begin(Introduction { auth, ..introduction() });
        assert_eq!(said(&handshake.take(b"+PONG"))[0], "AUTH wrong");
        let refused = handshake.take(b"-WRONGPASS no").unwrap_err();
        assert_eq!(refused, Refused::Auth("-WRONGPASS no".into()));
        assert!(matches!(verdict(b"-LOADING x", Offers::default()), Err(Refused::Later(_))));
        assert!(matches!(verdict(b"-ERR x", Offers::default()), Err(Refused::Psync(_))));
        let syntax = [
            "+FULLRESYNC".to_owned(),
            "+FULLRESYNC abc 1".to_owned(),
            format!("+FULLRESYNC {ID}"),
            format!("+FULLRESYNC {ID} -1"),
            format!("+FULLRESYNC {ID} 18446744073709551615"),
            "+CONTINUE abc".to_owned(),
        ];
        for line in syntax {
            assert!(
                matches!(verdict(line.as_bytes(), Offers::default()), Err(Refused::Syntax(_))),
                "{line}"
            );
        }
        let (mut handshake, _) = Handshake::begin(introduction());
        let mut lines = (0..=SIGNS_OF_LIFE_MAX).map(|_| handshake.take(b""));
        assert!(lines.any(|step| step == Err(Refused::Endless)));
    }

    proptest! {
        #[test]
        fn any_lines_end_a_handshake_or_go_on(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
        ) {
            let (mut handshake, _) = Handshake::begin(introduction());
            for line in lines {
                if handshake.take(&line).is_err() {
                    break;
                }
            }
        }
    }
}

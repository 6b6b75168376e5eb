//! What a write did, as the commands that reproduce it: the unit of replication and of the log.

use carnelian_keyspace::Kind;

/// What to send to replicas and the append-only file. Returned, so it cannot be forgotten.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing changed.
    None,
    /// Deterministic: replay the command as the client sent it.
    Verbatim,
    /// Replay this instead: relative times made absolute, random picks made explicit.
    Rewrite(Rewrite),
    /// Nothing, and nothing replied: the client is to wait. Only where [`crate::Call::may_block`] says so.
    Wait(Box<Wait>),
}

/// What a client waits for that could not be served at once.
///
/// When one of the keys is written to, the command runs once more, for those who have waited longest
/// first; what it then says of the time limit does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// None, for what only time or something else than data ends.
    pub keys: Vec<Box<[u8]>>,
    /// The type that a key must have to be worth another try.
    pub kind: Option<Kind>,
    /// Whether a key that goes away, or becomes another type, is worth another try too.
    pub heeds_loss: bool,
    /// In milliseconds of the Unix epoch; without one, for ever.
    pub deadline_ms: Option<u64>,
    pub on_timeout: OnTimeout,
    /// What runs instead of the client's words, if those mean something else later on.
    pub words: Option<Vec<Box<[u8]>>>,
    /// What it changed before it had to wait, to replay.
    pub rewrite: Rewrite,
}

/// The reply to a client that has waited in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTimeout {
    #[default]
    NullArray,
    Null,
    Integer(i64),
    /// An array of two integers.
    Integers(i64, i64),
}

impl OnTimeout {
    pub fn write_to(self, reply: &mut carnelian_resp::Writer<'_>) {
        match self {
            Self::NullArray => reply.null_array(),
            Self::Null => reply.null(),
            Self::Integer(number) => reply.integer(number),
            Self::Integers(first, second) => {
                reply.array(2);
                reply.integer(first);
                reply.integer(second);
            }
        }
    }
}

/// Commands in RESP, encoded only if somebody follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    following: bool,
    commands: u32,
    bytes: Vec<u8>,
}

impl Rewrite {
    /// `following`: whether anybody will read it; if not, nothing is kept and nothing allocated.
    #[must_use]
    pub fn new(following: bool) -> Self {
        Self { following, commands: 0, bytes: Vec::new() }
    }

    /// Appends one command.
    pub fn command(&mut self, words: &[&[u8]]) {
        if self.following {
            write_command(&mut self.bytes, words.len(), words.iter().copied());
            self.commands += 1;
        }
    }

    /// Appends one command of many words.
    pub fn command_of<'w>(&mut self, count: usize, words: impl Iterator<Item = &'w [u8]>) {
        if self.following {
            write_command(&mut self.bytes, count, words);
            self.commands += 1;
        }
    }

    /// How many commands there are.
    #[must_use]
    pub fn commands(&self) -> u32 {
        self.commands
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Appends a command in RESP.
pub fn write_command<'w>(out: &mut Vec<u8>, count: usize, words: impl Iterator<Item = &'w [u8]>) {
    let mut writer = carnelian_resp::Writer::new(out, carnelian_resp::Protocol::Resp2);
    writer.array(count);
    for word in words {
        writer.bulk(word);
    }
}

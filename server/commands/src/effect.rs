//! What a write did, as the commands that reproduce it: the unit of replication and of the log.

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
}

/// Commands in RESP, encoded only if somebody follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    following: bool,
    bytes: Vec<u8>,
}

impl Rewrite {
    /// `following`: whether anybody will read it; if not, nothing is kept and nothing allocated.
    #[must_use]
    pub fn new(following: bool) -> Self {
        Self { following, bytes: Vec::new() }
    }

    /// Appends one command.
    pub fn command(&mut self, words: &[&[u8]]) {
        if self.following {
            write_command(&mut self.bytes, words.len(), words.iter().copied());
        }
    }

    /// Appends one command of many words.
    pub fn command_of<'w>(&mut self, count: usize, words: impl Iterator<Item = &'w [u8]>) {
        if self.following {
            write_command(&mut self.bytes, count, words);
        }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn write_command<'w>(out: &mut Vec<u8>, count: usize, words: impl Iterator<Item = &'w [u8]>) {
    let mut writer = carnelian_resp::Writer::new(out, carnelian_resp::Protocol::Resp2);
    writer.array(count);
    for word in words {
        writer.bulk(word);
    }
}

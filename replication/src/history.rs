//! Which data a server has: the names of its history, and up to where each is valid.
//!
//! Offsets here are those of the log: the number of bytes there have been before. Redis shows the same number as
//! `master_repl_offset`, but counts bytes from 1 where it names one: `PSYNC id n` asks for byte `n`, which
//! is the one at offset `n - 1`, and `second_repl_offset` and `repl_backlog_first_byte_offset` are one more
//! than our offsets.

use std::fmt;

/// The name of a history: 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id([u8; 40]);

impl Id {
    pub const LEN: usize = 40;

    /// A name nobody else has. `random` gives any 64 bits at each call.
    #[must_use]
    pub fn new(mut random: impl FnMut() -> u64) -> Self {
        let mut digits = [0; Self::LEN];
        for digit in &mut digits {
            *digit = b"0123456789abcdef"[(random() % 16) as usize];
        }
        Self(digits)
    }

    /// The name in what a peer has sent, if it is one.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; Self::LEN] = text.try_into().ok()?;
        digits.iter().all(u8::is_ascii_alphanumeric).then_some(Self(digits))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The history of a server's data, and the one that it went on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    id: Id,
    /// What it was called before, and the offset behind the last byte that both have.
    previous: Option<(Id, u64)>,
}

impl History {
    #[must_use]
    pub fn new(id: Id) -> Self {
        Self { id, previous: None }
    }

    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// The name before this one, and the offset up to which both are the same.
    #[must_use]
    pub fn previous(&self) -> Option<(Id, u64)> {
        self.previous
    }

    /// Whether one who has the history `id` up to `offset` has nothing that is not in this one.
    #[must_use]
    pub fn may_continue(&self, id: Id, offset: u64) -> bool {
        id == self.id
            || self.previous.is_some_and(|(previous, end)| id == previous && offset <= end)
    }

    /// Goes on under a new name from `end` on: after a promotion. Who has the old name can still go on.
    pub fn shift(&mut self, id: Id, end: u64) {
        self.previous = Some((self.id, end));
        self.id = id;
    }

    /// Begins anew: nobody can go on from anything before.
    pub fn renew(&mut self, id: Id) {
        *self = Self::new(id);
    }

    /// Goes on from where another process ended: its name becomes the previous one.
    #[must_use]
    pub fn resumed(id: Id, previous: Id, end: u64) -> Self {
        Self { id, previous: Some((previous, end)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: u8) -> Id {
        Id::parse(&[digit; 40]).unwrap()
    }

    #[test]
    fn an_id_has_forty_digits() {
        let mut seed = 7_u64;
        let new = Id::new(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        });
        assert_eq!(Id::parse(new.as_bytes()), Some(new));
        assert_eq!(new.to_string().len(), 40);
        assert!(Id::parse(b"?").is_none() && Id::parse(&[b'/'; 40]).is_none());
    }

    #[test]
    fn after_a_promotion_both_names_go_on_but_the_old_one_not_beyond_it() {
        let mut history = History::new(id(b'a'));
        assert!(history.may_continue(id(b'a'), u64::MAX), "the log knows what it has");
        assert!(!history.may_continue(id(b'b'), 0));
        history.shift(id(b'b'), 100);
        assert!(history.may_continue(id(b'b'), 101));
        assert!(history.may_continue(id(b'a'), 100));
        assert!(!history.may_continue(id(b'a'), 101));
        history.shift(id(b'c'), 200);
        assert!(!history.may_continue(id(b'a'), 1), "only one name is remembered");
        history.renew(id(b'd'));
        assert!(!history.may_continue(id(b'c'), 1));
        assert_eq!(History::resumed(id(b'e'), id(b'd'), 9).previous(), Some((id(b'd'), 9)));
    }
}

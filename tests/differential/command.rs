//! A generated command.

use super::compare::{Rule, Terms};
use crate::reply::Reply;

/// A command, the connection that sends it, and how its two replies are to be compared.
#[derive(Clone, Debug)]
pub struct Command {
    pub words: Vec<Vec<u8>>,
    pub terms: Terms,
    /// The number of the connection. Only the first has its commands sent in pipelines.
    pub on: usize,
    /// What it waits for does not come, and it gives up soon.
    pub waits_until_answered: bool,
}

impl Command {
    pub fn new(words: Vec<Vec<u8>>, rule: Rule) -> Self {
        Self { words, terms: rule.into(), on: 0, waits_until_answered: false }
    }

    /// One without placeholders.
    pub fn plain(text: &str) -> Self {
        let words = text.split(' ').map(|word| word.as_bytes().to_vec());
        Self::new(words.collect(), Rule::Exact)
    }

    pub fn on(mut self, connection: usize) -> Self {
        self.on = connection;
        self
    }

    /// Whether words of it stand for others that only the servers know.
    pub fn has_stand_ins(&self) -> bool {
        let stands_in = |word: &Vec<u8>| word.starts_with(b"@dum") || word.starts_with(b"@id");
        self.words.iter().any(stands_in)
    }

    /// Whether it may leave its connection waiting, or have messages come there.
    pub fn may_wait(&self) -> bool {
        let name = self.words[0].to_ascii_uppercase();
        name.starts_with(b"B") || name.starts_with(b"XREAD") || self.subscribes()
    }

    /// Whether messages may come to its connection from now on.
    pub fn subscribes(&self) -> bool {
        let name = self.words[0].to_ascii_uppercase();
        name.ends_with(b"SUBSCRIBE")
    }

    /// Whether it may put a list or sorted set in the place of another value, by itself or in a script.
    pub fn may_replace_values(&self) -> bool {
        let name = self.words[0].to_ascii_uppercase();
        [b"STORE".as_slice(), b"SORT", b"EXEC", b"EVALSHA", b"EVAL", b"FCALL"]
            .iter()
            .any(|end| name.ends_with(end))
            || name.starts_with(b"GEORADIUS")
    }

    /// As redis-cli would take it, behind the connection's number where that is another than the first.
    pub fn line(&self) -> String {
        let words = self.words.iter().map(|word| Reply::Bulk(word.clone()).to_string());
        let mut text = words.collect::<Vec<_>>().join(" ");
        if self.on != 0 {
            text = format!("[{}] {text}", self.on);
        }
        match text.char_indices().nth(2000) {
            None => text,
            Some((cut, _)) => format!("{}… ({} words)", &text[..cut], self.words.len()),
        }
    }
}

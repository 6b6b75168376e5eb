//! The slow log: the latest commands that took longer than `slowlog-log-slower-than`.

use std::collections::VecDeque;

use crate::clients::ClientShared;
use crate::registry::Entry;
use carnelian_commands::args;
use carnelian_config::Directive;

/// Words of a request that are kept, and bytes of each.
const WORDS_MAX: usize = 32;
const WORD_BYTES_MAX: usize = 128;

/// One slow command.
#[derive(Debug)]
pub struct Record {
    pub id: u64,
    /// Seconds since 1970.
    pub time_s: u64,
    pub duration_us: u64,
    /// The request, cut to what is worth keeping, without secrets.
    pub words: Vec<Vec<u8>>,
    pub address: String,
    pub client_name: Box<[u8]>,
}

/// The records of one database, oldest first.
#[derive(Default)]
pub struct SlowLog {
    next_id: u64,
    records: VecDeque<Record>,
}

impl SlowLog {
    /// Takes a command in; beyond `most` records the oldest go.
    pub fn push(
        &mut self,
        entry: &Entry,
        words: &[&[u8]],
        client: &ClientShared,
        duration_us: u64,
        now_ms: u64,
        most: usize,
    ) {
        let record = Record {
            id: self.next_id,
            time_s: now_ms / 1000,
            duration_us,
            words: kept(entry, words),
            address: client.address.clone(),
            client_name: client.names.lock().name.clone(),
        };
        self.next_id += 1;
        self.records.push_back(record);
        while most < self.records.len() {
            self.records.pop_front();
        }
    }

    pub fn count(&self) -> usize {
        self.records.len()
    }

    pub fn reset(&mut self) {
        self.records.clear();
    }

    /// The latest first.
    pub fn latest(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev()
    }
}

/// A request as it is kept.
fn kept(entry: &Entry, words: &[&[u8]]) -> Vec<Vec<u8>> {
    let is_cut = WORDS_MAX < words.len();
    let whole = if is_cut { WORDS_MAX - 1 } else { words.len() };
    let mut kept: Vec<Vec<u8>> = Vec::with_capacity(whole + 1);
    for (index, word) in words[..whole].iter().enumerate() {
        kept.push(if is_secret(entry, words, index) { b"(redacted)".to_vec() } else { cut(word) });
    }
    if is_cut {
        kept.push(format!("... ({} more arguments)", words.len() - whole).into_bytes());
    }
    kept
}

fn cut(word: &[u8]) -> Vec<u8> {
    let Some((start, rest)) = word.split_at_checked(WORD_BYTES_MAX) else { return word.to_vec() };
    let mut kept = start.to_vec();
    if !rest.is_empty() {
        kept.extend(format!("... ({} more bytes)", rest.len()).into_bytes());
    }
    kept
}

/// Whether a word of a request is, or may be, a password.
pub fn is_secret(entry: &Entry, words: &[&[u8]], index: usize) -> bool {
    let follows_auth = || {
        let is_auth = |back: usize| {
            index.checked_sub(back).is_some_and(|at| words[at].eq_ignore_ascii_case(b"AUTH"))
        };
        is_auth(1) || is_auth(2)
    };
    let follows = |name: &str, back: usize| {
        index.checked_sub(back).is_some_and(|at| 6 <= at && args::is(words[at], name))
    };
    match entry.full_name.as_str() {
        "auth" => index != 0,
        "hello" => follows_auth(),
        "migrate" => follows("AUTH", 1) || follows("AUTH2", 1) || follows("AUTH2", 2),
        "acl|setuser" | "acl|deluser" | "acl|getuser" => 2 <= index,
        "config|set" => {
            3 <= index
                && index % 2 == 1
                && Directive::find(words[index - 1]).is_some_and(Directive::is_sensitive)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn kept_of(request: &str) -> Vec<String> {
        let registry = Registry::new(&[]);
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let entry = registry.find(words[0]).unwrap();
        let entry = registry.find_sub(entry, words[1]).unwrap_or(entry);
        kept(entry, &words).into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn long_requests_are_cut() {
        let many = format!("MGET{}", " k".repeat(40));
        let kept = kept_of(&many);
        assert_eq!((kept.len(), kept[31].as_str()), (32, "... (10 more arguments)"));
        let long = format!("SET k {}", "v".repeat(200));
        assert_eq!(kept_of(&long)[2], format!("{}... (72 more bytes)", "v".repeat(128)));
        assert_eq!(kept_of(&format!("SET k {}", "v".repeat(128)))[2], "v".repeat(128));
        assert_eq!(kept_of(&format!("MGET{}", " k".repeat(31))).len(), 32);
    }

    #[test]
    fn passwords_are_not_kept() {
        assert_eq!(kept_of("AUTH me secret"), ["AUTH", "(redacted)", "(redacted)"]);
        assert_eq!(
            kept_of("CONFIG SET port 1 requirepass secret"),
            ["CONFIG", "SET", "port", "1", "requirepass", "(redacted)"]
        );
        assert_eq!(
            kept_of("HELLO 3 AUTH me secret SETNAME x"),
            ["HELLO", "3", "AUTH", "(redacted)", "(redacted)", "SETNAME", "x"]
        );
    }
}

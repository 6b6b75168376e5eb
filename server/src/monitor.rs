//! MONITOR: every command as it runs, told to those who asked to watch.
//!
//! While nobody watches, a batch pays for one relaxed load. While somebody does, each command is
//! written down once, and all watchers share the bytes.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use carnelian_commands::Flags;
use parking_lot::Mutex;

use crate::clients::ClientShared;
use crate::clock;
use crate::mailbox::Message;
use crate::pause::attention;
use crate::registry::Entry;
use crate::session::Worker;
use crate::slowlog::is_secret;

/// The watchers of one database.
#[derive(Default)]
pub struct Monitors(Mutex<Vec<Arc<ClientShared>>>);

/// Who ran a command.
pub enum Source<'s> {
    Client(&'s ClientShared),
    Script,
}

impl Monitors {
    pub fn add(&self, client: &Arc<ClientShared>, attention: &AtomicU32) {
        let mut watchers = self.0.lock();
        if !watchers.iter().any(|watcher| watcher.id == client.id) {
            watchers.push(Arc::clone(client));
        }
        attention.fetch_or(attention::MONITORED, Ordering::Relaxed);
    }

    /// A client that no longer watches, or never did.
    pub fn remove(&self, id: u64, attention: &AtomicU32) {
        let mut watchers = self.0.lock();
        watchers.retain(|watcher| watcher.id != id);
        if watchers.is_empty() {
            attention.fetch_and(!attention::MONITORED, Ordering::Relaxed);
        }
    }

    /// Tells all watchers of a command, whatever its flags say.
    #[cold]
    pub fn feed_always(
        &self,
        worker: &Worker,
        source: &Source<'_>,
        db: u16,
        entry: &Entry,
        words: &[&[u8]],
    ) {
        let line: Arc<[u8]> = line(clock::wall_us(), source, db, entry, words).into();
        for watcher in &*self.0.lock() {
            let message = Message::Deliver(Arc::clone(watcher), Arc::clone(&line));
            worker.post(watcher.reactor, message);
        }
    }

    /// Tells all watchers of a command that has run, but of none that could give away secrets or
    /// that is part of the administration.
    #[cold]
    pub fn feed(
        &self,
        worker: &Worker,
        source: &Source<'_>,
        db: u16,
        entry: &Entry,
        words: &[&[u8]],
    ) {
        if entry.flags.intersects(Flags::SKIP_MONITOR | Flags::ADMIN) {
            return;
        }
        self.feed_always(worker, source, db, entry, words);
    }
}

/// `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`
fn line(now_us: u64, source: &Source<'_>, db: u16, entry: &Entry, words: &[&[u8]]) -> Vec<u8> {
    let mut line = Vec::with_capacity(128);
    // Writing to a vector does not fail.
    let _ = write!(line, "+{}.{:06} [{db} ", now_us / 1_000_000, now_us % 1_000_000);
    match source {
        Source::Script => line.extend_from_slice(b"lua"),
        Source::Client(client) => {
            if client.address.starts_with('/') {
                line.extend_from_slice(b"unix:");
                let path = client.address.strip_suffix(":0").unwrap_or(&client.address);
                line.extend_from_slice(path.as_bytes());
            } else {
                line.extend_from_slice(client.address.as_bytes());
            }
        }
    }
    line.push(b']');
    for (index, word) in words.iter().enumerate() {
        line.push(b' ');
        quote(if is_secret(entry, words, index) { b"(redacted)" } else { word }, &mut line);
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// Within quotes, with escapes for all that does not print.
fn quote(word: &[u8], line: &mut Vec<u8>) {
    line.push(b'"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => line.extend_from_slice(&[b'\\', byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            0x07 => line.extend_from_slice(b"\\a"),
            0x08 => line.extend_from_slice(b"\\b"),
            b' '..=b'~' => line.push(byte),
            _ => {
                // Writing to a vector does not fail.
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
    line.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn shown(request: &[&[u8]]) -> String {
        let registry = Registry::new(&[]);
        let entry = registry.find(request[0]).unwrap();
        let line = line(1_500_000, &Source::Script, 3, entry, request);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn lines_are_quoted_and_keep_secrets() {
        assert_eq!(
            shown(&[b"set", b"k\"\\\n\0", "é".as_bytes()]),
            "+1.500000 [3 lua] \"set\" \"k\\\"\\\\\\n\\x00\" \"\\xc3\\xa9\"\r\n"
        );
        let auth = shown(&[b"auth", b"me", b"secret"]);
        assert!(auth.ends_with("\"auth\" \"(redacted)\" \"(redacted)\"\r\n"), "{auth}");
    }
}

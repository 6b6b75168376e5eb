//! CLIENT TRACKING: which clients may have which keys in a cache of their own, and telling them when
//! a key has changed.
//!
//! A key is remembered while its segment is locked by the read that tells the client of it, and a change
//! is looked up after the lock of the write is released. So a change either finds the client, or its
//! value is the one that the client has just been told.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use carnelian_commands::{CommandError, Flags};
use carnelian_keyspace::{Changes, Told};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::clients::{ClientShared, bits};
use crate::database::Database;
use crate::eviction::OnTheWay;
use crate::mailbox::Message;
use crate::registry::Entry;
use crate::session::{Session, Worker};

const SHARDS: usize = 64;

/// Keys that are forgotten in one go where there are too many; more come back for the rest.
const SHRINK_KEYS: usize = 100;

/// What a prefix takes for each who follows it, its bytes aside.
const PREFIX_BYTES: usize = 64;

/// The channel of invalidations for clients that speak RESP2.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// A logical database and a key in it, as one word: the database's number, then the key.
type Key = SmallVec<[u8; 64]>;

/// Ids of clients. They are left there when a client goes: nobody looks for all its keys.
type Ids = SmallVec<[u64; 2]>;

/// Words of keys, and who was told of each.
type Shard = HashMap<Box<[u8]>, Ids>;

/// Who follows which prefix.
type Prefixes = BTreeMap<Box<[u8]>, Vec<Arc<ClientShared>>>;

/// The client that runs a command, and where its replies go.
pub type By<'b> = Option<(&'b Session, &'b mut Vec<u8>)>;

/// Who tracks what in one database.
#[derive(Default)]
pub struct Tracking {
    clients: AtomicUsize,
    keys: AtomicUsize,
    items: AtomicUsize,
    table: Table,
    prefixes: Mutex<Prefixes>,
}

struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Table {
    fn shard(&self, word: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(word) as usize % SHARDS]
    }
}

/// How a client wants to track.
#[derive(Debug, Default, PartialEq)]
pub struct Mode {
    pub is_on: bool,
    /// `bits` of clients' flags: BCAST, OPTIN, OPTOUT, NOLOOP.
    pub flags: u32,
    pub redirect: u64,
    pub prefixes: Vec<Box<[u8]>>,
}

/// Remembers the keys that a command has read for a client that tracks. Called while the keys are
/// locked.
pub fn remember(session: &Session, entry: &Entry, words: &[&[u8]]) {
    let is_script = ["eval_ro", "evalsha_ro", "fcall_ro"].contains(&entry.full_name.as_str());
    if !entry.flags.contains(Flags::READONLY) || entry.flags.contains(Flags::PUBSUB) || is_script {
        return;
    }
    if session.shared.has(bits::OPTIN) && !session.caching
        || session.shared.has(bits::OPTOUT) && session.caching
    {
        return;
    }
    let database = &session.database;
    let db = usize::from(session.db);
    // Where a request does not say which its keys are, there are none.
    let _ = entry.for_each_key(words, |key| {
        database.tracking.add(database, db, key, session.shared.id);
    });
}

impl Tracking {
    /// Whether anybody tracks.
    #[inline]
    pub fn is_awake(&self) -> bool {
        self.clients.load(Ordering::Relaxed) != 0
    }

    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    pub fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    pub fn prefixes(&self) -> usize {
        self.prefixes.lock().len()
    }

    /// Puts a mode into effect that has been found to be sound.
    pub fn turn_on(&self, database: &Database, client: &Arc<ClientShared>, mode: &Mode) {
        if !client.has(bits::TRACKING) {
            self.clients.fetch_add(1, Ordering::Relaxed);
        }
        const MODES: u32 = bits::BCAST | bits::OPTIN | bits::OPTOUT | bits::NOLOOP;
        client.set_flag(MODES | bits::BROKEN_REDIRECT, false);
        client.redirect.store(mode.redirect, Ordering::Relaxed);
        client.set_flag(mode.flags | bits::TRACKING, true);
        if mode.flags & bits::BCAST == 0 {
            return;
        }
        let everything = [Box::default()];
        let wanted = if mode.prefixes.is_empty() { &everything[..] } else { &mode.prefixes };
        let mut own = client.prefixes.lock();
        if own.is_empty() {
            database.waiters.interest.add_all();
        }
        let mut prefixes = self.prefixes.lock();
        for prefix in wanted {
            let followers = prefixes.entry(prefix.clone()).or_default();
            if !followers.iter().any(|follower| follower.id == client.id) {
                followers.push(Arc::clone(client));
                own.push(prefix.clone());
            }
        }
        own.sort_unstable();
        let bytes = own.iter().map(|prefix| prefix.len() + PREFIX_BYTES).sum();
        client.other_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The client no longer tracks, or is gone.
    pub fn turn_off(&self, database: &Database, client: &ClientShared) {
        if !client.has(bits::TRACKING) {
            return;
        }
        let own = std::mem::take(&mut *client.prefixes.lock());
        client.other_bytes.store(0, Ordering::Relaxed);
        if !own.is_empty() {
            database.waiters.interest.remove_all();
        }
        let mut prefixes = self.prefixes.lock();
        for prefix in own {
            if let Some(followers) = prefixes.get_mut(&prefix) {
                followers.retain(|follower| follower.id != client.id);
                if followers.is_empty() {
                    prefixes.remove(&prefix);
                }
            }
        }
        drop(prefixes);
        client.set_flag(
            bits::TRACKING
                | bits::BCAST
                | bits::OPTIN
                | bits::OPTOUT
                | bits::NOLOOP
                | bits::BROKEN_REDIRECT
                | bits::CACHING,
            false,
        );
        if self.clients.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.forget_all(database);
        }
    }

    fn add(&self, database: &Database, db: usize, key: &[u8], id: u64) {
        let word = word(db, key);
        let mut shard = self.table.shard(&word).lock();
        match shard.get_mut(&*word) {
            Some(ids) if ids.contains(&id) => {}
            Some(ids) => {
                ids.push(id);
                self.items.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                shard.insert(word.into_boxed_slice(), SmallVec::from_slice(&[id]));
                self.keys.fetch_add(1, Ordering::Relaxed);
                self.items.fetch_add(1, Ordering::Relaxed);
                database.waiters.interest.add(db, key);
            }
        }
    }

    /// Takes a key out of the table; the clients that were told of it.
    fn take(&self, database: &Database, db: usize, key: &[u8]) -> Option<Ids> {
        let word = word(db, key);
        let ids = self.table.shard(&word).lock().remove(&*word)?;
        self.keys.fetch_sub(1, Ordering::Relaxed);
        self.items.fetch_sub(ids.len(), Ordering::Relaxed);
        database.waiters.interest.remove(db, key);
        Some(ids)
    }

    fn forget_all(&self, database: &Database) {
        for shard in &self.table.shards {
            for (word, ids) in std::mem::take(&mut *shard.lock()) {
                self.keys.fetch_sub(1, Ordering::Relaxed);
                self.items.fetch_sub(ids.len(), Ordering::Relaxed);
                let (db, key) = parts(&word);
                database.waiters.interest.remove(db, key);
            }
        }
    }

    /// Tells those who may have these keys that they have changed.
    fn changed(
        &self,
        worker: &mut Worker,
        database: &Arc<Database>,
        touched: &[(Told, u64)],
        by: &mut By<'_>,
    ) {
        {
            let prefixes = self.prefixes.lock();
            for (Told { key, .. }, author) in touched {
                for prefix in prefixes.keys().filter(|prefix| key.starts_with(prefix)) {
                    worker.broadcasts.note(database, prefix, key, *author);
                }
            }
        }
        for (Told { db, key, .. }, author) in touched {
            let Some(ids) = self.take(database, *db, key) else { continue };
            self.tell_of_key(worker, database, &ids, key, *author, by);
        }
    }

    fn tell_of_key(
        &self,
        worker: &Worker,
        database: &Arc<Database>,
        ids: &[u64],
        key: &[u8],
        author: u64,
        by: &mut By<'_>,
    ) {
        let mut keys = b"*1\r\n".to_vec();
        bulk(key, &mut keys);
        for &id in ids {
            let Some(client) = database.clients.find(id) else { continue };
            let flags = client.flags.load(Ordering::Relaxed);
            if flags & bits::TRACKING == 0
                || flags & bits::BCAST != 0
                || flags & bits::NOLOOP != 0 && id == author
            {
                continue;
            }
            tell(worker, database, &client, Some(&keys), by);
        }
    }

    /// Databases were emptied: all who track are told that any key may have gone.
    fn flushed(&self, worker: &Worker, database: &Arc<Database>, by: &mut By<'_>) {
        if !self.is_awake() {
            return;
        }
        for client in database.clients.list() {
            if client.has(bits::TRACKING) {
                tell(worker, database, &client, None, by);
            }
        }
        self.forget_all(database);
    }

    /// Forgets keys beyond so many, a bounded number at a time, and tells as if they had changed.
    pub fn shrink_to(
        &self,
        most: usize,
        worker: &Worker,
        database: &Arc<Database>,
        mut by: By<'_>,
    ) {
        if most == 0 {
            return;
        }
        for _ in 0..SHRINK_KEYS {
            if self.keys() <= most {
                return;
            }
            let start = fastrand::usize(..SHARDS);
            let found = (0..SHARDS).find_map(|step| {
                let shard = self.table.shards[(start + step) % SHARDS].lock();
                shard.keys().next().cloned()
            });
            let Some(word) = found else { return };
            let (db, key) = parts(&word);
            if let Some(ids) = self.take(database, db, key) {
                self.tell_of_key(worker, database, &ids, key, 0, &mut by);
            }
        }
    }
}

/// Changes that those who track have yet to be told of: they are told when the reply is whole, and no
/// lock is held.
#[derive(Default)]
pub struct Invalidations(RefCell<Vec<Invalidation>>);

struct Invalidation {
    /// The uid of the database.
    database: u32,
    /// Whether databases were emptied; the keys changed after that.
    is_flush: bool,
    /// Each with the client that changed it; 0: none did.
    keys: Vec<(Told, u64)>,
}

impl Invalidations {
    #[inline]
    pub fn is_any(&self) -> bool {
        !self.0.borrow().is_empty()
    }

    /// Takes over what a command of `author` has changed (0: of nobody).
    #[inline]
    pub fn note(&self, database: &Database, changes: &mut Changes, author: u64) {
        if (changes.flushed || !changes.told.is_empty()) && database.tracking.is_awake() {
            self.note_some(database, changes, author);
        }
    }

    #[cold]
    fn note_some(&self, database: &Database, changes: &mut Changes, author: u64) {
        let is_flush = changes.flushed;
        let told: Vec<(Told, u64)> = changes
            .told
            .drain(..)
            .map(|told| {
                let author = if told.is_lapsed { 0 } else { author };
                (told, author)
            })
            .collect();
        let mut all = self.0.borrow_mut();
        let known = all.iter_mut().find(|it| it.database == database.uid);
        match known {
            Some(known) if is_flush => (known.is_flush, known.keys) = (true, Vec::new()),
            Some(known) => known.keys.extend(told),
            None => all.push(Invalidation {
                database: database.uid,
                is_flush,
                keys: if is_flush { Vec::new() } else { told },
            }),
        }
    }

    /// Tells of all that was noted.
    pub fn tell(worker: &mut Worker, mut by: By<'_>) {
        for Invalidation { database: uid, is_flush, keys } in worker.invalidations.0.take() {
            let database = worker.server.databases.read().iter().find(|it| it.uid == uid).cloned();
            let Some(database) = database else { continue };
            if is_flush {
                database.tracking.flushed(worker, &database, &mut by);
            }
            if !keys.is_empty() {
                database.tracking.changed(worker, &database, &keys, &mut by);
            }
        }
    }
}

/// Keys that changed in this turn, by the prefix that is followed, each with who changed it last.
#[derive(Default)]
pub struct Broadcasts(Vec<Broadcast>);

struct Broadcast {
    database: Arc<Database>,
    prefix: Box<[u8]>,
    keys: BTreeMap<Box<[u8]>, u64>,
}

impl Broadcasts {
    fn note(&mut self, database: &Arc<Database>, prefix: &[u8], key: &[u8], author: u64) {
        let known = self.0.iter_mut().find(|broadcast| {
            Arc::ptr_eq(&broadcast.database, database) && *broadcast.prefix == *prefix
        });
        let keys = match known {
            Some(broadcast) => &mut broadcast.keys,
            None => {
                let database = Arc::clone(database);
                let (prefix, keys) = (prefix.into(), BTreeMap::new());
                self.0.push(Broadcast { database, prefix, keys });
                &mut self.0.last_mut().expect("it was just put there").keys
            }
        };
        keys.insert(key.into(), author);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Tells the followers of each prefix, in one message each.
    pub fn send(self, worker: &Worker) {
        for Broadcast { database, prefix, keys } in self.0 {
            let followers = database.tracking.prefixes.lock().get(&prefix).cloned();
            let all = array(keys.keys());
            for client in followers.unwrap_or_default() {
                if !client.has(bits::NOLOOP) {
                    tell(worker, &database, &client, Some(&all), &mut None);
                    continue;
                }
                let others = keys.iter().filter(|(_, author)| **author != client.id);
                let others: Vec<_> = others.map(|(key, _)| key).collect();
                if !others.is_empty() {
                    let others = array(others.into_iter());
                    tell(worker, &database, &client, Some(&others), &mut None);
                }
            }
        }
    }
}

/// Sends an invalidation to where the client wants it: an array of keys, or null for all keys.
fn tell(
    worker: &Worker,
    database: &Arc<Database>,
    client: &Arc<ClientShared>,
    keys: Option<&[u8]>,
    by: &mut By<'_>,
) {
    let redirect = client.redirect.load(Ordering::Relaxed);
    if redirect == 0 {
        // Nothing can be pushed to a client that speaks RESP2.
        if 2 < client.protocol.load(Ordering::Relaxed) {
            send(worker, database, client, push(keys), by);
        }
        return;
    }
    // As the client that tracks would read it, whoever reads it.
    let keys = keys.or((client.protocol.load(Ordering::Relaxed) < 3).then_some(b"$-1\r\n"));
    let target = database.clients.find(redirect);
    let Some(target) = target.filter(|it| !it.has(bits::CLOSE_AFTER_REPLY)) else {
        client.set_flag(bits::BROKEN_REDIRECT, true);
        if 2 < client.protocol.load(Ordering::Relaxed) {
            let text = format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{redirect}\r\n");
            send(worker, database, client, text.into_bytes(), by);
        }
        return;
    };
    if 2 < target.protocol.load(Ordering::Relaxed) {
        send(worker, database, &target, push(keys), by);
    } else if target.is_subscriber() {
        let mut message = b"*3\r\n$7\r\nmessage\r\n".to_vec();
        bulk(CHANNEL, &mut message);
        message.extend_from_slice(keys.unwrap_or(b"_\r\n"));
        send(worker, database, &target, message, by);
    }
}

/// What the running client is told itself comes right after its reply.
fn send(
    worker: &Worker,
    database: &Arc<Database>,
    to: &Arc<ClientShared>,
    bytes: Vec<u8>,
    by: &mut By<'_>,
) {
    match by {
        Some((session, out)) if session.shared.id == to.id => out.extend_from_slice(&bytes),
        _ => {
            let on_the_way = OnTheWay::new(database, bytes.len());
            let message = Message::Invalidate(Arc::clone(to), bytes.into(), on_the_way);
            worker.post(to.reactor, message);
        }
    }
}

fn push(keys: Option<&[u8]>) -> Vec<u8> {
    [b">2\r\n$10\r\ninvalidate\r\n", keys.unwrap_or(b"_\r\n")].concat()
}

fn array<'k>(keys: impl ExactSizeIterator<Item = &'k Box<[u8]>>) -> Vec<u8> {
    let mut out = format!("*{}\r\n", keys.len()).into_bytes();
    keys.for_each(|key| bulk(key, &mut out));
    out
}

fn bulk(bytes: &[u8], out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = write!(out, "${}\r\n", bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn word(db: usize, key: &[u8]) -> Key {
    let mut word = Key::from_slice(&(db as u16).to_le_bytes());
    word.extend_from_slice(key);
    word
}

fn parts(word: &[u8]) -> (usize, &[u8]) {
    let (db, key) = word.split_at(2);
    (usize::from(u16::from_le_bytes([db[0], db[1]])), key)
}

/// Why prefixes cannot be followed together: no key may be announced twice to one client.
pub fn check_prefixes(client: &ClientShared, wanted: &[Box<[u8]>]) -> Result<(), CommandError> {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let refuse = |prefix: &[u8], which: &str, other: &[u8]| {
        let text = [
            b"ERR Prefix '",
            prefix,
            b"' overlaps with ",
            which.as_bytes(),
            b" '",
            other,
            b"'. Prefixes for a single client must not overlap.",
        ];
        Err(CommandError::Quoting(text.concat().into()))
    };
    let existing = client.prefixes.lock();
    for (index, prefix) in wanted.iter().enumerate() {
        if let Some(other) = existing.iter().find(|other| overlap(prefix, other)) {
            return refuse(prefix, "an existing prefix", other);
        }
        if let Some(other) = wanted[index + 1..].iter().find(|other| overlap(prefix, other)) {
            return refuse(prefix, "another provided prefix", other);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_apart_as_they_were_put_together() {
        for (db, key) in [(0, b"".as_slice()), (15, b"key"), (300, &[0; 100])] {
            assert_eq!(parts(&word(db, key)), (db, key));
        }
    }

    #[test]
    fn messages_are_as_redis_sends_them() {
        let (a, b): (Box<[u8]>, Box<[u8]>) = ((*b"a").into(), (*b"bc").into());
        assert_eq!(array([&a, &b].into_iter()), b"*2\r\n$1\r\na\r\n$2\r\nbc\r\n");
        assert_eq!(push(None), b">2\r\n$10\r\ninvalidate\r\n_\r\n");
    }
}

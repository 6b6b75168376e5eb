//! MULTI: the commands a client has queued, and their run as one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_commands::{CommandError, Effect, Flags, Scope};
use carnelian_keyspace::{SegmentSet, segment_of};
use carnelian_scripting::Flags as ScriptFlags;

use crate::clients::bits;
use crate::commands::Context;
use crate::dispatch::{self, Nest, Nesting};
use crate::pause;
use crate::registry::{Entry, Handler};
use crate::replication::apply;
use crate::session::Session;
use crate::waiters::{Key, Watch};

/// Commands between MULTI and EXEC, in one buffer.
#[derive(Default)]
pub struct Transaction {
    bytes: Vec<u8>,
    /// Where in `bytes` each word ends.
    words: Vec<usize>,
    /// The entry of each command, and how many words there are up to its end.
    commands: Vec<(usize, usize)>,
    /// What the flags of the commands say together: those that some have, and those that all have.
    flags: u32,
    /// Flags that one of them does not have.
    missing: u32,
    /// Whether a pause of writes holds one of them back.
    may_write: bool,
    /// Whether a command was refused: EXEC will run none.
    pub is_broken: bool,
}

impl Transaction {
    /// `flags`: those of the command, or what its script says of itself.
    pub fn push(&mut self, entry: &Entry, flags: Flags, words: &[&[u8]], may_write: bool) {
        let more = words.iter().map(|word| word.len()).sum::<usize>();
        if self.bytes.capacity() - self.bytes.len() < more {
            // It counts against `maxmemory-clients`, so not half of it is to be room.
            self.bytes.reserve_exact(more.max(self.bytes.len() / 4));
        }
        for word in words {
            self.bytes.extend_from_slice(word);
            self.words.push(self.bytes.len());
        }
        self.commands.push((entry.id, self.words.len()));
        self.flags |= flags.bits();
        self.missing |= !flags.bits();
        self.may_write |= may_write;
    }

    pub fn len(&self) -> usize {
        self.commands.len()
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Whether one of the commands has the flag.
    pub fn has(&self, flag: Flags) -> bool {
        self.flags & flag.bits() != 0
    }

    /// Whether one of the commands does not have the flag.
    pub fn lacks(&self, flag: Flags) -> bool {
        self.missing & flag.bits() != 0
    }

    /// Whether a pause of writes holds the transaction back.
    pub fn may_write(&self) -> bool {
        self.may_write
    }

    fn words(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let word = |&end: &usize| &self.bytes[std::mem::replace(&mut start, end)..end];
        self.words.iter().map(word).collect()
    }

    /// Bytes it takes.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.words.capacity() * size_of::<usize>()
            + self.commands.capacity() * size_of::<(usize, usize)>()
    }
}

/// The keys a client watches.
pub struct Watched {
    pub keys: Vec<Key>,
    pub watch: Arc<Watch>,
}

impl Session {
    /// Ends a transaction that has begun, and every watch.
    pub fn discard(&mut self) {
        self.transaction = None;
        self.note_none_queued();
        self.unwatch();
    }

    fn note_none_queued(&self) {
        self.shared.queued.store(-1, Ordering::Relaxed);
        self.shared.queued_bytes.store(0, Ordering::Relaxed);
    }

    pub fn unwatch(&mut self) {
        let Some(watched) = self.watched.take() else { return };
        let waiters = &self.database.waiters;
        waiters.unwatch(&watched.keys, self.shared.id);
        waiters.watching.fetch_sub(1, Ordering::Relaxed);
        self.shared.watched.store(0, Ordering::Relaxed);
        self.shared.set_flag(bits::DIRTY, false);
    }

    /// Queues a command behind MULTI.
    pub fn enqueue(&mut self, entry: &Entry, words: &[&[u8]]) {
        let may_write = pause::may_write(&self.database, entry, words);
        let flags = self.flags_of(entry, words);
        let Some(transaction) = &mut self.transaction else { return };
        transaction.push(entry, flags, words, may_write);
        self.shared.queued.store(transaction.len() as i64, Ordering::Relaxed);
        self.shared.queued_bytes.store(transaction.memory(), Ordering::Relaxed);
    }

    /// The flags of a command; for one that runs a script that says what it does, those of the script.
    fn flags_of(&self, entry: &Entry, words: &[&[u8]]) -> Flags {
        let flags = entry.flags;
        if !entry.runs_scripts {
            return flags;
        }
        let database = &self.database;
        let script = database.scripting.flags(database, &entry.full_name, words);
        let Some(script) = script.filter(|script| !script.contains(ScriptFlags::COMPAT)) else {
            return flags;
        };
        let says = |flag: ScriptFlags| script.contains(flag);
        let writes = !says(ScriptFlags::NO_WRITES);
        let mut flags = flags.difference(Flags::WRITE.union(Flags::DENYOOM).union(Flags::STALE));
        for (flag, is_set) in [
            (Flags::WRITE, writes),
            (Flags::DENYOOM, writes && !says(ScriptFlags::ALLOW_OOM)),
            (Flags::STALE, says(ScriptFlags::ALLOW_STALE)),
        ] {
            if is_set {
                flags = flags.union(flag);
            }
        }
        flags
    }

    /// Bytes of queued commands.
    pub fn queued_bytes(&self) -> usize {
        self.transaction.as_ref().map_or(0, |transaction| transaction.memory())
    }
}

/// Runs what is queued. The locks of all keys, watched ones included, are held from before the first
/// look at the watches until after the last command.
pub fn execute(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let Some(transaction) = context.session.transaction.take() else {
        return Err(CommandError::text("ERR EXEC without MULTI"));
    };
    context.session.note_none_queued();
    if transaction.is_broken {
        context.session.unwatch();
        return Err(CommandError::text(
            "EXECABORT Transaction discarded because of previous errors.",
        ));
    }
    let database = context.database;
    let keyspace = &database.keyspace;
    let registry = context.registry;

    let words = transaction.words();
    let mut wanted = SegmentSet::default();
    let mut is_bounded = true;
    let mut first = 0;
    for &(id, end) in &transaction.commands {
        let entry = registry.entry(id);
        let is_plain = matches!(entry.handler, Handler::Data(_)) && entry.scope == Scope::Keys;
        is_bounded &= is_plain;
        if is_plain {
            let hash = |key: &[u8]| wanted.insert(segment_of(keyspace.hash(key)));
            let _ = entry.for_each_key(&words[first..end], hash);
        }
        first = end;
    }
    let watched = context.session.watched.as_ref();
    for (_, key) in watched.iter().flat_map(|watched| &watched.keys) {
        wanted.insert(segment_of(keyspace.hash(key)));
    }

    // A command that changes the configuration asks for this while it has locks: see `Server::changing`.
    let server = transaction.has(Flags::ADMIN).then(|| Arc::clone(&context.worker.server));
    let _changing = server.as_ref().map(|server| server.changing.lock());
    let is_primary = context.session.primary.is_some();
    let locked = match is_bounded {
        true if is_primary => Ok(keyspace.lock(wanted)),
        false if is_primary => Ok(keyspace.lock_lazily()),
        true => keyspace.lock_unless_busy(wanted),
        false => keyspace.lock_lazily_unless_busy(),
    };
    let Ok(mut access) = locked else {
        context.session.unwatch();
        return Err(CommandError::text(format!(
            "EXECABORT Transaction discarded because of: {}",
            database.scripting.busy_text()
        )));
    };
    if apply::is_cut_off(context.session) {
        context.session.close_after_reply = true;
        return Ok(Effect::None);
    }
    if transaction.has(Flags::WRITE) && apply::is_shut_out(context.session) {
        drop(access);
        context.session.unwatch();
        let reason = dispatch::READONLY;
        return Err(CommandError::text(format!(
            "EXECABORT Transaction discarded because of: {reason}"
        )));
    }
    if let Some(watched) = watched {
        for (db, key) in &watched.keys {
            // A watched key whose time is over has changed, even if nobody has looked.
            dispatch::kind_of(context.worker, database, &mut access, *db, key);
        }
    }
    let is_stale = watched.is_some_and(|watched| watched.watch.is_broken());
    context.session.unwatch();
    if is_stale {
        context.reply.null_array();
        return Ok(Effect::None);
    }

    context.reply.array(transaction.len());
    let mut nest = Nest {
        worker: &mut *context.worker,
        session: &mut *context.session,
        held: &mut access,
        nesting: Nesting::Transaction,
    };
    nest.run_queue(&transaction.commands, &words, context.reply.buffer());
    dispatch::log_nested(context.worker, context.session);
    drop(access);
    Ok(Effect::None)
}

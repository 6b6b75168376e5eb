//! What is found out about a request before it runs, and the replies to those that do not.

use std::sync::Arc;

use carnelian_commands::{CommandError, Flags};
use carnelian_resp::Writer;
use carnelian_scripting::Flags as ScriptFlags;

use super::settle_reply;
use crate::acl::{self, Denied, Origin};
use crate::internode;
use crate::pubsub;
use crate::registry::{Entry, Registry};
use crate::replication::gate;
use crate::session::{NO_COMMAND, Session, Worker};

/// Why a request does not run.
pub enum Refusal {
    Unknown(CommandError),
    Arity(usize),
    NoAuth(usize),
    OutOfMemory(usize),
    /// The last snapshot has failed.
    Unsaved(usize),
    /// The user may not do it.
    Denied(usize, Denied),
    /// The client is subscribed, and its protocol cannot tell messages from replies.
    Subscribed(usize),
    /// A script has been running for too long.
    Busy(usize),
    /// The data is not there yet.
    Loading(usize),
    /// Not between MULTI and EXEC.
    InTransaction(usize),
    /// The database may not be written to, or not be read.
    Gated(usize, &'static str),
    /// A web browser was made to talk to us.
    Http,
}

/// Finds the command a request names, and checks all that does not depend on the data.
#[inline]
pub fn admit<'r>(
    registry: &'r Registry,
    session: &Session,
    words: &[&[u8]],
) -> Result<&'r Entry, Refusal> {
    let Some(mut entry) = registry.find(words[0]) else { return Err(unknown(words)) };
    if !entry.subcommands.is_empty()
        && let Some(word) = words.get(1)
    {
        let sub = registry.find_sub(entry, word);
        entry = sub.ok_or_else(|| unknown_sub(entry, word))?;
    }
    if !entry.accepts(words.len()) {
        return Err(Refusal::Arity(entry.id));
    }
    if session.peer.is_some() {
        if !internode::may_run(&entry.full_name) {
            return Err(Refusal::Gated(entry.id, internode::NOT_A_CLIENT));
        }
    } else if !session.may_do_all() {
        if session.attached.is_some() && touches_keyspace(entry) {
            return Err(Refusal::Gated(entry.id, KEPT_OUT));
        }
        if !session.authenticated && !entry.flags.contains(Flags::NO_AUTH) {
            return Err(Refusal::NoAuth(entry.id));
        }
        acl::check(&session.user, entry, words, session.db)
            .map_err(|denied| Refusal::Denied(entry.id, denied))?;
        if session.transaction.is_none() {
            acl::check_sort(&session.user, entry, words, session.db).map_err(Refusal::Unknown)?;
        }
    }
    if session.is_subscribed() && !session.may_run(entry) {
        return Err(Refusal::Subscribed(entry.id));
    }
    if session.database.loading.is_on()
        && session.primary.is_none()
        && !entry.flags.contains(Flags::LOADING)
    {
        return Err(Refusal::Loading(entry.id));
    }
    if session.database.keyspace.is_busy() && !entry.flags.contains(Flags::ALLOW_BUSY) {
        return Err(Refusal::Busy(entry.id));
    }
    if session.transaction.is_some() && entry.flags.contains(Flags::NO_MULTI) {
        return Err(Refusal::InTransaction(entry.id));
    }
    if session.is_out_of_memory && takes_memory(session, entry) {
        return Err(Refusal::OutOfMemory(entry.id));
    }
    if (session.database.snapshots.refuses_writes() || session.database.aof.refuses_writes())
        && session.primary.is_none()
        && needs_disk(session, entry)
    {
        return Err(Refusal::Unsaved(entry.id));
    }
    let gate = session.database.replication.gate();
    if gate & gate::REFUSING != 0 {
        let script = script_of(session, entry, words);
        if let Some(text) = gated(session, entry, script, gate) {
            return Err(Refusal::Gated(entry.id, text));
        }
    }
    Ok(entry)
}

/// Whether a command reads or writes keys, or may have others do so.
fn touches_keyspace(entry: &Entry) -> bool {
    entry.may_replicate
        || entry.flags.contains(Flags::WRITE)
        || entry.flags.contains(Flags::READONLY)
}

/// What the script that a command runs says of itself.
#[cold]
fn script_of(session: &Session, entry: &Entry, words: &[&[u8]]) -> Option<ScriptFlags> {
    let database = &session.database;
    let is_script = entry.runs_scripts && session.primary.is_none();
    is_script.then(|| database.scripting.flags(database, &entry.full_name, words))?
}

/// Why replication keeps a command, or one of those that EXEC is to run, from running. What its script
/// says of itself counts for more than what holds for scripts at large.
#[cold]
pub fn gated(
    session: &Session,
    entry: &Entry,
    script: Option<ScriptFlags>,
    gate: u32,
) -> Option<&'static str> {
    if session.primary.is_some() {
        return None;
    }
    let queued = session.transaction.as_ref().filter(|_| entry.full_name == "exec");
    let writes = entry.flags.contains(Flags::WRITE)
        || queued.as_ref().is_some_and(|queue| queue.has(Flags::WRITE))
        || script.is_some_and(ScriptFlags::may_write);
    if writes && gate & gate::LACKING != 0 {
        return Some(NOREPLICAS);
    }
    if writes && gate & gate::READ_ONLY != 0 {
        return Some(READONLY);
    }
    if writes && gate & gate::FENCED != 0 {
        return Some(FENCED);
    }
    let needs_link = !entry.flags.contains(Flags::STALE)
        || script.is_some_and(|flags| !flags.contains(ScriptFlags::ALLOW_STALE))
        || queued.is_some_and(|queue| queue.lacks(Flags::STALE));
    if needs_link && gate & gate::STALE != 0 {
        return Some(MASTERDOWN);
    }
    if needs_link && gate & gate::UNCONFIRMED != 0 {
        return Some(UNCONFIRMED);
    }
    if gate & gate::LOADING_BESIDE != 0 && entry.flags.contains(Flags::NO_ASYNC_LOADING) {
        return Some(LOADING);
    }
    let needs_data = !entry.flags.contains(Flags::LOADING)
        || queued.is_some_and(|queue| queue.lacks(Flags::LOADING));
    (needs_data && gate & gate::LOADING != 0).then_some(LOADING)
}

const KEPT_OUT: &str = "ERR Replica can't interact with the keyspace";
pub const NOREPLICAS: &str = "NOREPLICAS Not enough good replicas to write.";
pub const READONLY: &str = "READONLY You can't write against a read only replica.";
/// With the word that tells clients to look for the primary elsewhere.
pub const FENCED: &str = "READONLY This node is cut off from its cluster; another may be primary.";
/// With the word that tells clients that data cannot be had for now.
pub const UNCONFIRMED: &str =
    "MASTERDOWN This node was started and has yet to hear whether it is primary.";
pub const MASTERDOWN: &str =
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";

/// Whether a command, or one of those that EXEC is to run, writes; or is a PING, by which the trouble is
/// found out.
#[cold]
fn needs_disk(session: &Session, entry: &Entry) -> bool {
    let queued = session.transaction.as_ref().filter(|_| entry.full_name == "exec");
    entry.flags.contains(Flags::WRITE)
        || entry.full_name == "ping"
        || queued.is_some_and(|it| it.has(Flags::WRITE))
}

/// The reply to writes while the last snapshot has failed (`stop-writes-on-bgsave-error`).
pub const UNSAVED: &str = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable \
     to persist to disk. Commands that may modify the data set are disabled, because this instance is \
     configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error \
     option). Please check the Redis logs for details about the RDB error.";

/// Whether a command, or one of those that EXEC is to run, may need more memory.
#[cold]
fn takes_memory(session: &Session, entry: &Entry) -> bool {
    let queued = session.transaction.as_ref().filter(|_| entry.full_name == "exec");
    entry.flags.contains(Flags::DENYOOM) || queued.is_some_and(|it| it.has(Flags::DENYOOM))
}

/// The reply to commands that need the data while it is being loaded.
pub const LOADING: &str = "LOADING Redis is loading the dataset in memory";
/// The reply to all but a few commands while a script runs that has taken too long.
pub const BUSY: &str =
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
/// The same while it is a function.
pub const BUSY_FUNCTION: &str =
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";

/// Replies to a request that does not run.
pub fn refuse(
    worker: &Worker,
    session: &mut Session,
    refusal: &Refusal,
    words: &[&[u8]],
    out: &mut Vec<u8>,
) {
    let before = out.len();
    let database = Arc::clone(&session.database);
    let counters = worker.counters(&database);
    let registry = &worker.server.registry;
    let error = match refusal {
        Refusal::Unknown(error) => {
            session.last_command = NO_COMMAND;
            error.clone()
        }
        Refusal::Arity(id) => CommandError::Arity(registry.entry(*id).full_name.clone().into()),
        Refusal::Subscribed(id) => pubsub::not_now(registry.entry(*id)),
        Refusal::NoAuth(_) => CommandError::text("NOAUTH Authentication required."),
        Refusal::OutOfMemory(_) => {
            CommandError::text("OOM command not allowed when used memory > 'maxmemory'.")
        }
        Refusal::Unsaved(_) => {
            database.write_refusal().unwrap_or_else(|| CommandError::text(UNSAVED))
        }
        Refusal::Busy(_) => CommandError::text(session.database.scripting.busy_text()),
        Refusal::Loading(_) => CommandError::text(LOADING),
        Refusal::InTransaction(_) => {
            CommandError::text("ERR Command not allowed inside a transaction")
        }
        Refusal::Gated(_, text) => CommandError::text(*text),
        Refusal::Denied(id, denied) => {
            let entry = registry.entry(*id);
            // The log tells of the client, and what it asked for.
            session.last_command = *id as u32;
            let is_queued = session.transaction.is_some();
            let origin = if is_queued { Origin::Multi } else { Origin::TopLevel };
            acl::report(worker, session, entry, words, *denied, origin);
            denied.error(&session.user, entry)
        }
        // Ends the connection without a word.
        Refusal::Http => return,
    };
    let mut error = error;
    if let Refusal::Arity(id)
    | Refusal::NoAuth(id)
    | Refusal::OutOfMemory(id)
    | Refusal::Unsaved(id)
    | Refusal::Subscribed(id)
    | Refusal::Busy(id)
    | Refusal::Loading(id)
    | Refusal::InTransaction(id)
    | Refusal::Gated(id, _)
    | Refusal::Denied(id, _) = refusal
    {
        session.last_command = *id as u32;
        counters.commands[*id].rejected.add(1);
        if registry.entry(*id).full_name == "exec" {
            session.discard();
            let refusal = error.to_string();
            let reason = refusal.strip_prefix("ERR ").unwrap_or(&refusal);
            let text = format!("EXECABORT Transaction discarded because of: {reason}");
            error = CommandError::text(text);
        }
    }
    if let Some(transaction) = &mut session.transaction {
        transaction.is_broken = true;
    }
    counters.count_error(&error.to_string());
    error.write_to(&mut Writer::new(out, session.protocol));
    settle_reply(worker, session, out, before);
}

fn unknown(words: &[&[u8]]) -> Refusal {
    if words[0].eq_ignore_ascii_case(b"POST") || words[0].eq_ignore_ascii_case(b"Host:") {
        return Refusal::Http;
    }
    // As Redis words it: 128 bytes of the name, and of all arguments together.
    fn cut(word: &[u8], max: usize) -> &[u8] {
        let shown = word.split(|&byte| byte == 0).next().unwrap_or_default();
        &shown[..shown.len().min(max)]
    }
    let middle = b"', with args beginning with: ";
    let mut text = [b"ERR unknown command '", cut(words[0], 128), middle].concat();
    let start = text.len();
    for word in &words[1..] {
        let room = (start + 128).saturating_sub(text.len());
        if room == 0 {
            break;
        }
        text.push(b'\'');
        text.extend_from_slice(cut(word, room));
        text.extend_from_slice(b"' ");
    }
    Refusal::Unknown(CommandError::Quoting(text.into()))
}

fn unknown_sub(container: &Entry, word: &[u8]) -> Refusal {
    let help = format!("'. Try {} HELP.", container.name().to_uppercase());
    let word = &word[..word.len().min(128)];
    Refusal::Unknown(CommandError::quoting("ERR unknown subcommand '", word, &help))
}

//! CLIENT: what the server knows of its clients, and what a client may set for itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_commands::{Categories, CommandError, Effect, Flags, args};
use carnelian_resp::number::parse_i64;

use super::command;
use super::filter::Filter;
use super::list::line;
use super::tracking;
use crate::blocking::{self, Unblock};
use crate::clients::{ClientShared, bits};
use crate::commands::{Context, help};
use crate::mailbox::Message;
use crate::pause::Held;
use crate::registry::{ServerCommand, ServerRun};
use crate::session::ReplyMode;

const USUAL: Flags = Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::STALE);
const ADMIN: Flags = USUAL.union(Flags::ADMIN);
/// Set on every node of a cluster by clients that know of them.
const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

pub(super) const CLIENT: ServerCommand = ServerCommand {
    categories: Categories::empty(),
    subcommands: &[
        sub(
            "caching",
            "Tells whether the next command is tracked.",
            "6.0.0",
            3,
            USUAL,
            tracking::caching,
        ),
        sub(
            "capa",
            "Claims what the client can do.",
            "8.0.0",
            -3,
            USUAL.union(Flags::ALLOW_BUSY),
            capa,
        ),
        sub("getname", "Returns the connection's name.", "2.6.9", 2, USUAL, getname),
        sub(
            "getredir",
            "Returns the client that tracking redirects to.",
            "6.0.0",
            2,
            USUAL,
            tracking::getredir,
        ),
        sub(
            "help",
            "Lists the subcommands.",
            "5.0.0",
            2,
            Flags::LOADING.union(Flags::STALE),
            usage,
        ),
        sub("id", "Returns the connection's number.", "5.0.0", 2, USUAL, id),
        ServerCommand {
            tips: &["nondeterministic_output"],
            ..sub("info", "Describes the connection.", "6.2.0", 2, USUAL, info)
        },
        ServerCommand {
            complexity: "O(N) in the number of clients",
            ..sub("kill", "Ends connections.", "2.4.0", -3, ADMIN, kill)
        },
        ServerCommand {
            complexity: "O(N) in the number of clients",
            tips: &["nondeterministic_output"],
            ..sub("list", "Describes the connections.", "2.4.0", -2, ADMIN, list)
        },
        sub("no-evict", "Spares the connection from client eviction.", "7.0.0", 3, ADMIN, no_evict),
        sub(
            "no-touch",
            "Keeps reads from renewing keys' access clocks.",
            "7.2.0",
            3,
            USUAL,
            no_touch,
        ),
        ServerCommand {
            complexity: "O(N) in the number of clients that wait",
            ..sub("pause", "Holds commands back for a time.", "3.0.0", -3, ADMIN, pause)
        },
        sub("reply", "Turns replies on or off.", "3.2.0", 3, USUAL, reply),
        ServerCommand {
            tips: ALL_NODES,
            ..sub("setinfo", "Names the client's library.", "7.2.0", 4, USUAL, setinfo)
        },
        ServerCommand {
            tips: ALL_NODES,
            ..sub("setname", "Names the connection.", "2.6.9", 3, USUAL, setname)
        },
        sub("tracking", "Turns tracking of keys on or off.", "6.0.0", -3, USUAL, tracking::turn),
        sub(
            "trackinginfo",
            "Tells how keys are tracked.",
            "6.2.0",
            2,
            USUAL,
            tracking::trackinginfo,
        ),
        ServerCommand {
            complexity: "O(log N) in the number of clients",
            ..sub("unblock", "Wakes a client that waits.", "5.0.0", -3, ADMIN, unblock)
        },
        ServerCommand {
            complexity: "O(N) in the number of clients that wait",
            ..sub("unpause", "Lets all commands go on.", "6.2.0", 2, ADMIN, unpause)
        },
    ],
    ..command("client", "Commands about connections.", "2.4.0", -2, Flags::empty(), usage)
};

const fn sub(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    flags: Flags,
    run: ServerRun,
) -> ServerCommand {
    command(name, summary, since, arity, flags, run)
}

/// `CLIENT HELP`
fn usage(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    help(context)
}

/// `CLIENT ID`
fn id(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.integer(context.session.shared.id as i64);
    Ok(Effect::None)
}

/// `CLIENT GETNAME`
fn getname(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let names = context.session.shared.names.lock();
    match &*names.name {
        b"" => context.reply.null(),
        name => context.reply.bulk(name),
    }
    Ok(Effect::None)
}

/// `CLIENT SETNAME name`
fn setname(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let name = valid_name(context.args[2])?;
    context.session.shared.names.lock().name = name;
    context.reply.ok();
    Ok(Effect::None)
}

/// A name that cannot break the lines of CLIENT LIST.
pub(super) fn valid_name(name: &[u8]) -> Result<Box<[u8]>, CommandError> {
    if is_printable(name) {
        return Ok(name.into());
    }
    Err(CommandError::text(
        "ERR Client names cannot contain spaces, newlines or special characters.",
    ))
}

fn is_printable(word: &[u8]) -> bool {
    word.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// `CLIENT SETINFO LIB-NAME name | LIB-VER version`
fn setinfo(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let attribute = context.args[2];
    // Redis looks no further than this, and shows no more.
    let value = context.args[3].split(|byte| *byte == 0).next().unwrap_or_default();
    let is_name = args::is(attribute, "LIB-NAME");
    if !is_name && !args::is(attribute, "LIB-VER") {
        return Err(CommandError::quoting("ERR Unrecognized option '", attribute, "'"));
    }
    if !is_printable(value) {
        let why = " cannot contain spaces, newlines or special characters.";
        return Err(CommandError::quoting("ERR ", attribute, why));
    }
    let mut names = context.session.shared.names.lock();
    if is_name {
        names.library_name = value.into();
    } else {
        names.library_version = value.into();
    }
    drop(names);
    context.reply.ok();
    Ok(Effect::None)
}

/// `CLIENT INFO`
fn info(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.publish();
    let now_ms = context.worker.clock.now_ms();
    let mut text = line(&context.session.shared, context.registry, now_ms);
    text.push(b'\n');
    context.session.shared.argument_bytes.store(0, Ordering::Relaxed);
    context.reply.verbatim(b"txt", &text);
    Ok(Effect::None)
}

/// `CLIENT LIST [filter ...]`
fn list(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.publish();
    let database = &context.session.database;
    let filter = match &context.args[2..] {
        // Redis's form, whose numbers need not be ids.
        [word, ids @ ..] if args::is(word, "ID") && is_numbers(ids) => {
            let ids = ids.iter().filter_map(|id| parse_i64(id)?.try_into().ok());
            Filter::of_ids(ids.collect())
        }
        [word, id] if args::is(word, "ID") && parse_i64(id).is_none() => {
            return Err(CommandError::text("ERR Invalid client ID"));
        }
        words => Filter::parse(words, database)?,
    };
    let now_ms = context.worker.clock.now_ms();
    let me = context.session.shared.id;
    let skips_me = filter.skips_me == Some(true);
    let mut text = Vec::new();
    for client in database.clients.list() {
        if filter.matches(&client, now_ms) && !(skips_me && client.id == me) {
            text.extend_from_slice(&line(&client, context.registry, now_ms));
            text.push(b'\n');
        }
    }
    context.session.shared.argument_bytes.store(0, Ordering::Relaxed);
    context.reply.verbatim(b"txt", &text);
    Ok(Effect::None)
}

fn is_numbers(words: &[&[u8]]) -> bool {
    !words.is_empty() && words.iter().all(|word| parse_i64(word).is_some())
}

/// `CLIENT KILL ip:port | filter ...`
fn kill(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let clients = context.session.database.clients.list();
    let me = Arc::clone(&context.session.shared);
    if let [_, _, address] = context.args {
        let found = clients.iter().find(|client| client.address.as_bytes() == *address);
        let client = found.ok_or_else(|| CommandError::text("ERR No such client"))?;
        end(context, &me, client);
        context.reply.ok();
        return Ok(Effect::None);
    }
    let filter = Filter::parse(&context.args[2..], &context.session.database)?;
    let skips_me = filter.skips_me != Some(false);
    let now_ms = context.worker.clock.now_ms();
    let mut killed = 0;
    for client in &clients {
        // Those on their way out have been counted before.
        if filter.matches(client, now_ms)
            && !(skips_me && client.id == me.id)
            && !client.has(bits::CLOSING)
        {
            end(context, &me, client);
            killed += 1;
        }
    }
    context.reply.integer(killed);
    Ok(Effect::None)
}

/// Ends a connection; this one only after its reply.
fn end(context: &mut Context<'_>, me: &ClientShared, client: &Arc<ClientShared>) {
    if client.id == me.id {
        context.session.close_after_reply = true;
    } else {
        client.set_flag(bits::CLOSING, true);
        context.session.database.clients.remove(client.id);
        context.worker.post(client.reactor, Message::Kill(Arc::clone(client)));
    }
}

/// `CLIENT REPLY ON | OFF | SKIP`
fn reply(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let word = context.args[2];
    let session = &mut *context.session;
    if args::is(word, "ON") {
        session.reply = ReplyMode::On;
        context.reply.ok();
    } else if args::is(word, "OFF") {
        session.reply = ReplyMode::Off;
    } else if args::is(word, "SKIP") {
        if session.reply != ReplyMode::Off {
            session.reply = ReplyMode::SkipNext;
        }
    } else {
        return Err(CommandError::Syntax);
    }
    Ok(Effect::None)
}

fn switch(word: &[u8]) -> Result<bool, CommandError> {
    if args::is(word, "ON") {
        Ok(true)
    } else if args::is(word, "OFF") {
        Ok(false)
    } else {
        Err(CommandError::Syntax)
    }
}

/// `CLIENT NO-TOUCH ON | OFF`
fn no_touch(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.session.no_touch = switch(context.args[2])?;
    context.session.shared.set_flag(bits::NO_TOUCH, context.session.no_touch);
    context.reply.ok();
    Ok(Effect::None)
}

/// `CLIENT NO-EVICT ON | OFF`
fn no_evict(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let is_on = switch(context.args[2])?;
    context.session.shared.set_flag(bits::NO_EVICT, is_on);
    context.reply.ok();
    Ok(Effect::None)
}

/// `CLIENT CAPA capability [capability ...]`: those that are not known are passed over.
fn capa(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if context.args[2..].iter().any(|word| args::is(word, "REDIRECT")) {
        context.session.shared.set_flag(bits::CAPA_REDIRECT, true);
    }
    context.reply.ok();
    Ok(Effect::None)
}

/// `CLIENT PAUSE timeout [WRITE | ALL]`
fn pause(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let held = match context.args {
        [_, _, _] => Held::Everything,
        [_, _, _, word] if args::is(word, "ALL") => Held::Everything,
        [_, _, _, word] if args::is(word, "WRITE") => Held::Writes,
        [_, _, _, _] => {
            return Err(CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL"));
        }
        _ => return Err(unknown_sub("pause")),
    };
    let timeout_ms = parse_i64(context.args[2])
        .ok_or_else(|| CommandError::text("ERR timeout is not an integer or out of range"))?;
    let timeout_ms =
        u64::try_from(timeout_ms).map_err(|_| CommandError::text("ERR timeout is negative"))?;
    let now_ms = context.worker.clock.now_ms();
    let until_ms = now_ms
        .checked_add(timeout_ms)
        .filter(|until_ms| i64::try_from(*until_ms).is_ok())
        .ok_or_else(|| CommandError::text("ERR timeout is out of range"))?;
    let database = &context.session.database;
    database.pause.begin(held, until_ms, now_ms, &database.attention);
    context.reply.ok();
    Ok(Effect::None)
}

/// `CLIENT UNPAUSE`
fn unpause(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = &context.session.database;
    database.pause.end(&database.attention);
    for reactor in 0..context.worker.server.mailboxes.len() {
        context.worker.post(reactor, Message::PauseOver);
    }
    context.reply.ok();
    Ok(Effect::None)
}

/// What is said to a subcommand with too many arguments.
fn unknown_sub(name: &str) -> CommandError {
    CommandError::text(format!(
        "ERR unknown subcommand or wrong number of arguments for '{name}'. Try CLIENT HELP."
    ))
}

/// `CLIENT UNBLOCK id [TIMEOUT | ERROR]`: no command of this server waits, so nobody is woken.
fn unblock(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let how = match &context.args[3..] {
        [] => Unblock::TimeOut,
        [word] if args::is(word, "TIMEOUT") => Unblock::TimeOut,
        [word] if args::is(word, "ERROR") => Unblock::Error,
        [_, _, ..] => {
            let name = String::from_utf8_lossy(context.args[1]);
            return Err(unknown_sub(&name));
        }
        _ => {
            return Err(CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    let id = args::integer(context.args[2])?;
    let client = u64::try_from(id).ok().and_then(|id| context.session.database.clients.find(id));
    let is_ended = client.is_some_and(|client| blocking::unblock(context.worker, &client, how));
    context.reply.integer(is_ended.into());
    Ok(Effect::None)
}

impl Context<'_> {
    /// Brings what others see of this client up to date.
    fn publish(&self) {
        let session = &self.session;
        let shared = &session.shared;
        shared.db.store(u32::from(session.db), Ordering::Relaxed);
        shared.protocol.store(session.protocol.version(), Ordering::Relaxed);
        shared.last_command.store(self.entry.id as u32, Ordering::Relaxed);
        // The request that asks is still in the buffer. What is behind it is counted after the batch.
        shared.query_bytes.store(request_bytes(self.args), Ordering::Relaxed);
        let argument_bytes = self.args.iter().map(|word| word.len()).sum();
        shared.argument_bytes.store(argument_bytes, Ordering::Relaxed);
    }
}

/// How long a request is on the wire, as an array of bulk strings.
fn request_bytes(words: &[&[u8]]) -> usize {
    let digits = |number: usize| number.checked_ilog10().unwrap_or(0) as usize + 1;
    let header = |number: usize| "*\r\n".len() + digits(number);
    let bulk = |word: &&[u8]| header(word.len()) + word.len() + "\r\n".len();
    header(words.len()) + words.iter().map(bulk).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_long_as_its_array() {
        for words in [vec![&b"CLIENT"[..], b"LIST"], vec![b"ECHO", b""], vec![b"PING"; 100]] {
            let mut sent = format!("*{}\r\n", words.len());
            for word in &words {
                sent += &format!("${}\r\n{}\r\n", word.len(), str::from_utf8(word).unwrap());
            }
            assert_eq!(request_bytes(&words), sent.len());
        }
    }
}

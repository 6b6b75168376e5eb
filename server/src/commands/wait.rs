//! WAIT and WAITAOF: until copies of the data are elsewhere, or on disk.

use std::sync::Arc;

use carnelian_commands::{Categories, CommandError, Effect, Flags, Group, Wait, args};

use crate::commands::Context;
use crate::dispatch::Nesting;
use crate::mailbox::Message;
use crate::registry::{ServerCommand, ServerRun};
use crate::replication::waits::{Awaited, NO_FILE};

const fn command(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    run: ServerRun,
) -> ServerCommand {
    ServerCommand {
        group: Group::Generic,
        categories: Categories::CONNECTION,
        tips: &["request_policy:all_shards", "response_policy:agg_min"],
        ..super::command(name, summary, since, arity, Flags::BLOCKING, run)
    }
}

pub const TABLE: &[ServerCommand] = &[
    command("wait", "Waits until so many replicas have the client's writes.", "3.0.0", 3, wait),
    command(
        "waitaof",
        "Waits until the client's writes are in append-only files on disk.",
        "7.2.0",
        4,
        waitaof,
    ),
];

const NOT_HERE: &str = "cannot be used with replica instances. Please also note that";

/// `WAIT numreplicas timeout`
fn wait(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if context.session.database.replication.is_replica() {
        return Err(CommandError::text(format!(
            "ERR WAIT {NOT_HERE} since Redis 4.0 if a replica is configured to be writable (which \
             is not the default) writes to replicas are just local and are not propagated."
        )));
    }
    let replicas = args::integer(context.args[1])?;
    let deadline_ms = deadline(context, context.args[2])?;
    let offset = context.session.logged;
    let replicas = u64::try_from(replicas).unwrap_or(0);
    wait_for(context, Awaited { offset, replicas, local: None }, deadline_ms)
}

/// `WAITAOF numlocal numreplicas timeout`
fn waitaof(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let local = args::integer(context.args[1])?;
    let replicas = args::integer(context.args[2])?;
    let (0..=1, Ok(replicas)) = (local, u64::try_from(replicas)) else {
        return Err(CommandError::text("ERR value is out of range, must be positive"));
    };
    let deadline_ms = deadline(context, context.args[3])?;
    if context.session.database.replication.is_replica() {
        return Err(CommandError::text(format!(
            "ERR WAITAOF {NOT_HERE} writes to replicas are just local and are not propagated."
        )));
    }
    if local != 0 && !context.session.database.aof.is_on() {
        return Err(CommandError::text(NO_FILE));
    }
    let offset = context.session.logged;
    wait_for(context, Awaited { offset, replicas, local: Some(local != 0) }, deadline_ms)
}

/// Replies, if it is so already or must not take time, or waits.
fn wait_for(
    context: &mut Context<'_>,
    awaited: Awaited,
    deadline_ms: Option<u64>,
) -> Result<Effect, CommandError> {
    let database = Arc::clone(&context.session.database);
    // What the client wrote may have given way to data with a shorter history.
    let awaited = Awaited { offset: awaited.offset.min(database.log.end()), ..awaited };
    let reached = awaited.reached(&database);
    if awaited.is_met_by(reached) || context.nesting != Nesting::Nothing {
        awaited.reply(reached, &mut context.reply);
        return Ok(Effect::None);
    }
    context.session.awaited.set(Some(awaited));
    database.replication.primary.ask(&database);
    for replica in database.replication.primary.list() {
        context.worker.post(replica.client.reactor, Message::Feed);
    }
    Ok(Effect::Wait(Box::new(Wait { deadline_ms, ..Wait::default() })))
}

/// A time limit in milliseconds from now; 0 is none.
fn deadline(context: &Context<'_>, word: &[u8]) -> Result<Option<u64>, CommandError> {
    let text = "ERR timeout is not an integer or out of range";
    let limit = args::integer(word).map_err(|_| CommandError::text(text))?;
    let limit = u64::try_from(limit).map_err(|_| CommandError::text("ERR timeout is negative"))?;
    let now_ms = context.worker.clock.now_ms();
    let at = now_ms.checked_add(limit).filter(|&at| at <= i64::MAX as u64);
    let at = at.ok_or_else(|| CommandError::text("ERR timeout is out of range"))?;
    Ok((limit != 0).then_some(at))
}

//! WAIT and WAITAOF: until copies of the data are elsewhere, or on disk.

use carnelian_commands::{Categories, CommandError, Effect, Flags, Group, OnTimeout, Wait, args};

use crate::commands::Context;
use crate::dispatch::Nesting;
use crate::registry::{ServerCommand, ServerRun};

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

/// `WAIT numreplicas timeout`
///
/// There are no replicas, so only a wait for none of them ends before its time.
fn wait(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let replicas = args::integer(context.args[1])?;
    let deadline_ms = deadline(context, context.args[2])?;
    if replicas <= 0 || context.nesting != Nesting::Nothing {
        context.reply.integer(0);
        return Ok(Effect::None);
    }
    let on_timeout = OnTimeout::Integer(0);
    Ok(Effect::Wait(Box::new(Wait { deadline_ms, on_timeout, ..Wait::default() })))
}

/// `WAITAOF numlocal numreplicas timeout`
fn waitaof(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let local = args::integer(context.args[1])?;
    let replicas = args::integer(context.args[2])?;
    if !(0..=1).contains(&local) || replicas < 0 {
        return Err(CommandError::text("ERR value is out of range, must be positive"));
    }
    let deadline_ms = deadline(context, context.args[3])?;
    if local != 0 {
        return Err(CommandError::text(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    if replicas == 0 || context.nesting != Nesting::Nothing {
        context.reply.array(2);
        context.reply.integer(0);
        context.reply.integer(0);
        return Ok(Effect::None);
    }
    let on_timeout = OnTimeout::Integers(0, 0);
    Ok(Effect::Wait(Box::new(Wait { deadline_ms, on_timeout, ..Wait::default() })))
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

//! COMMANDLOG, Valkey's: commands that took long, were large, or had large replies.

use carnelian_commands::{CommandError, Effect, Flags, args};

use super::slowlog;
use crate::commands::{Context, help};
use crate::database::Database;
use crate::registry::{ServerCommand, ServerRun};
use crate::slowlog::SlowLog;

const ADMIN: Flags = Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE);

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    subcommands: &[
        ServerCommand {
            complexity: "O(N) in the number of records returned",
            tips: &["request_policy:all_nodes", "nondeterministic_output"],
            ..command("get", "Returns the latest records.", 4, ADMIN, get)
        },
        command("help", "Lists the subcommands.", 2, Flags::LOADING.union(Flags::STALE), help),
        ServerCommand {
            tips: &[
                "request_policy:all_nodes",
                "response_policy:agg_sum",
                "nondeterministic_output",
            ],
            ..command("len", "Counts the records.", 3, ADMIN, len)
        },
        ServerCommand {
            complexity: "O(N) in the number of records",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            ..command("reset", "Removes all records.", 3, ADMIN, reset)
        },
    ],
    ..command("commandlog", "Commands about notable commands.", -2, Flags::empty(), help)
}];

const fn command(
    name: &'static str,
    summary: &'static str,
    arity: i32,
    flags: Flags,
    run: ServerRun,
) -> ServerCommand {
    super::command(name, summary, "8.1.0", arity, flags, run)
}

fn log<'d>(
    database: &'d Database,
    word: &[u8],
) -> Result<&'d parking_lot::Mutex<SlowLog>, CommandError> {
    let found = [
        ("slow", &database.slow_log),
        ("large-request", &database.large_requests),
        ("large-reply", &database.large_replies),
    ]
    .into_iter()
    .find(|(name, _)| args::is(word, name));
    found.map(|(_, log)| log).ok_or_else(|| {
        CommandError::text(
            "ERR type should be one of the following: slow, large-request, large-reply",
        )
    })
}

/// `COMMANDLOG GET count type`
fn get(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let count = slowlog::count(context.args[2])?;
    let log = log(&context.session.database, context.args[3])?.lock();
    slowlog::write(&mut context.reply, &log, count);
    Ok(Effect::None)
}

/// `COMMANDLOG LEN type`
fn len(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let count = log(&context.session.database, context.args[2])?.lock().count();
    context.reply.integer(count as i64);
    Ok(Effect::None)
}

/// `COMMANDLOG RESET type`
fn reset(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    log(&context.session.database, context.args[2])?.lock().reset();
    context.reply.ok();
    Ok(Effect::None)
}

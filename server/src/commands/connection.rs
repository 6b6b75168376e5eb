//! Commands about the connection itself.

use carnelian_commands::{Categories, CommandError, Effect, Flags, Group, Scope, args};

use crate::commands::Context;
use crate::registry::ServerCommand;

pub const TABLE: &[ServerCommand] = &[
    ServerCommand {
        name: "ping",
        summary: "Answers PONG, or the message it was given.",
        since: "1.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        arity: -1,
        flags: Flags::FAST,
        categories: Categories::CONNECTION,
        keys: &[],
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        scope: Scope::Keys,
        subcommands: &[],
        run: ping,
    },
    ServerCommand {
        name: "echo",
        summary: "Answers with the message it was given.",
        since: "1.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        arity: 2,
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        categories: Categories::CONNECTION,
        keys: &[],
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run: echo,
    },
    ServerCommand {
        name: "select",
        summary: "Changes the logical database of the connection.",
        since: "1.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        arity: 2,
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        categories: Categories::CONNECTION,
        keys: &[],
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run: select,
    },
];

/// `PING [message]`
fn ping(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    match context.args {
        [_] => context.reply.simple("PONG"),
        [_, message] => context.reply.bulk(message),
        _ => return Err(CommandError::Arity("ping".into())),
    }
    Ok(Effect::None)
}

/// `ECHO message`
fn echo(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.bulk(context.args[1]);
    Ok(Effect::None)
}

/// `SELECT index`
fn select(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let index = args::integer(context.args[1])?;
    let databases = context.session.database.keyspace.databases();
    match u16::try_from(index) {
        Ok(index) if usize::from(index) < databases => context.session.db = index,
        _ => return Err(CommandError::DbOutOfRange),
    }
    context.reply.ok();
    Ok(Effect::None)
}

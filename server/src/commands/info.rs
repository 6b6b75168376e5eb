//! INFO.

use carnelian_commands::{Categories, CommandError, Effect, Flags, Group, Scope};

use crate::commands::Context;
use crate::info;
use crate::registry::ServerCommand;

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    name: "info",
    summary: "Returns facts and figures about the server.",
    since: "1.0.0",
    group: Group::Server,
    complexity: "O(1)",
    arity: -1,
    flags: Flags::LOADING.union(Flags::STALE),
    categories: Categories::DANGEROUS,
    keys: &[],
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    scope: Scope::Keys,
    subcommands: &[],
    run: info,
}];

/// `INFO [section [section ...]]`
fn info(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let text = info::render(&context.worker.server, &context.session.database, &context.args[1..]);
    context.reply.verbatim(b"txt", text.as_bytes());
    Ok(Effect::None)
}

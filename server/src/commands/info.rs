//! INFO.

use carnelian_commands::{Categories, CommandError, Effect, Flags};

use crate::census;
use crate::commands::{Context, Reach, command};
use crate::dispatch::Nesting;
use crate::info;
use crate::registry::ServerCommand;

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    categories: Categories::DANGEROUS,
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    ..command(
        "info",
        "Returns facts and figures about the server.",
        "1.0.0",
        -1,
        Flags::LOADING.union(Flags::STALE),
        info,
    )
}];

/// `INFO [section [section ...]]`
fn info(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let now_ms = context.worker.clock.now_ms();
    let counts = match context.nesting {
        Nesting::Nothing => None,
        _ => {
            Some(context.with_data(Reach::Walk, |call| census::take_held(call.db.access(), now_ms)))
        }
    };
    let (server, database) = (&context.worker.server, &context.session.database);
    let text = info::render(server, database, &context.args[1..], counts);
    context.reply.verbatim(b"txt", text.as_bytes());
    Ok(Effect::None)
}

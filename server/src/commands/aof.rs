//! BGREWRITEAOF.

use std::sync::Arc;

use carnelian_commands::{CommandError, Effect, Flags};

use crate::aof::{self, Unbegun};
use crate::commands::{Context, command};
use crate::dispatch::Nesting;
use crate::registry::ServerCommand;
use crate::snapshot::Purpose;

pub const TABLE: &[ServerCommand] = &[command(
    "bgrewriteaof",
    "Begins to write the append-only file anew, as short as can be.",
    "1.0.0",
    1,
    Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NOSCRIPT),
    bgrewriteaof,
)];

/// `BGREWRITEAOF`
fn bgrewriteaof(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = Arc::clone(&context.session.database);
    let running = database.snapshots.running();
    if running == Some(Purpose::Rewrite) {
        return Err(CommandError::text(
            "ERR Background append only file rewriting already in progress",
        ));
    }
    // A transaction holds locks: the cut comes after it.
    let must_wait = running.is_some() || context.nesting != Nesting::Nothing;
    let begun =
        if must_wait { Err(Unbegun::Taken) } else { aof::begin(&context.worker.server, &database) };
    match begun {
        Ok(()) => context.reply.simple("Background append only file rewriting started"),
        Err(Unbegun::Taken) => {
            aof::schedule(&database);
            context.reply.simple("Background append only file rewriting scheduled");
        }
        Err(Unbegun::Busy(_)) => {
            return Err(CommandError::text(database.scripting.busy_text()));
        }
        Err(Unbegun::Failed) => {
            return Err(CommandError::text(
                "ERR Can't execute an AOF background rewriting. Please check the server logs for \
                 more information.",
            ));
        }
    }
    Ok(Effect::None)
}

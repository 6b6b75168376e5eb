//! MONITOR: shows a client all commands as they run.

use carnelian_commands::{CommandError, Effect, Flags};

use crate::clients::bits;
use crate::commands::{Context, command};
use crate::registry::ServerCommand;

pub const TABLE: &[ServerCommand] = &[command(
    "monitor",
    "Shows all commands as they run.",
    "1.0.0",
    1,
    Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    monitor,
)];

/// `MONITOR`
fn monitor(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let session = &*context.session;
    let (shared, database) = (&session.shared, &session.database);
    if shared.has(bits::MONITOR) {
        return Ok(Effect::None);
    }
    shared.set_flag(bits::MONITOR, true);
    database.monitors.add(shared, &database.attention);
    context.reply.ok();
    Ok(Effect::None)
}

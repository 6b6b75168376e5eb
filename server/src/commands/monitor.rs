//! MONITOR: shows a client all commands as they run.

use carnelian_commands::{Categories, CommandError, Effect, Flags, Group, Scope};

use crate::clients::bits;
use crate::commands::Context;
use crate::registry::ServerCommand;

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    name: "monitor",
    summary: "Shows all commands as they run.",
    since: "1.0.0",
    group: Group::Server,
    complexity: "O(1)",
    arity: 1,
    flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
    categories: Categories::empty(),
    keys: &[],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: monitor,
}];

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

//! The server's own commands: those that need the client, the configuration or the process.

mod acl;
mod command;
mod config;
mod connection;
mod debug;
mod dump;
mod info;
mod memory;
mod process;
mod slowlog;
mod time;

use carnelian_commands::{CommandError, DataCommand, Effect};
use carnelian_resp::Writer;

pub(crate) use connection::client_line;

use crate::registry::{Entry, Registry, ServerCommand};
use crate::session::{Session, Worker};

/// One command's world.
pub struct Context<'c> {
    /// The request, the command's name first.
    pub args: &'c [&'c [u8]],
    pub worker: &'c mut Worker,
    pub session: &'c mut Session,
    pub reply: Writer<'c>,
    pub registry: &'c Registry,
    /// The table entry under which it runs.
    pub entry: &'c Entry,
}

/// Every command of the server's own, by family.
pub const TABLES: &[&[ServerCommand]] = &[
    acl::TABLE,
    connection::TABLE,
    command::TABLE,
    config::TABLE,
    debug::TABLE,
    info::TABLE,
    memory::TABLE,
    process::TABLE,
    slowlog::TABLE,
    time::TABLE,
];

/// Commands on data that need what `carnelian-commands` does not know.
pub const DATA_TABLES: &[&[DataCommand]] = &[dump::TABLE];

/// HELP of a container: its subcommands, as the table describes them.
fn help(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let registry = context.registry;
    let container = context.entry.container.map_or(context.entry, |id| registry.entry(id));
    let mut lines = vec![format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.name().to_uppercase()
    )];
    for &(name, id) in &container.subcommands {
        lines.push(name.to_uppercase());
        lines.push(format!("    {}", registry.entry(id).summary()));
    }
    context.reply.array(lines.len());
    for line in lines {
        context.reply.simple(&line);
    }
    Ok(Effect::None)
}

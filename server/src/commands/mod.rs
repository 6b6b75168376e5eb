//! The server's own commands: those that need the client, the configuration or the process.

mod connection;

use carnelian_resp::Writer;

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
pub const TABLES: &[&[ServerCommand]] = &[connection::TABLE];

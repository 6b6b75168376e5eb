//! The server's own commands: those that need the client, the configuration or the process.

mod acl;
mod aof;
mod command;
mod commandlog;
mod config;
mod connection;
mod debug;
mod dump;
mod function;
mod info;
mod inspection;
mod latency;
mod memory;
mod migrate;
mod monitor;
mod process;
mod pubsub;
mod reload;
mod replicaof;
mod replication;
mod save;
mod scripting;
mod slowlog;
mod time;
mod transaction;
mod wait;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_commands::{
    Call, Categories, CommandError, DataCommand, Effect, Flags, Group, Scope,
};
use carnelian_keyspace::{Hold, SegmentSet, Segments};
use carnelian_resp::Writer;

pub(crate) use connection::client_line;
pub use migrate::Sockets;
pub(crate) use scripting::{
    Access as ScriptAccess, check_state as check_script_state, count_script_keys,
    read_only as is_read_only,
};

use crate::database::Database;
use crate::dispatch::{self, Nest, Nesting, Vectors};
use crate::registry::{Entry, Registry, ServerCommand, ServerRun};
use crate::session::{Session, Worker};

/// One command's world.
pub struct Context<'c> {
    /// The request, the command's name first.
    pub args: &'c [&'c [u8]],
    pub worker: &'c mut Worker,
    pub session: &'c mut Session,
    /// The session's, at hand whatever becomes of it.
    pub database: &'c Arc<Database>,
    pub reply: Writer<'c>,
    pub registry: &'c Registry,
    /// The table entry under which it runs.
    pub entry: &'c Entry,
    /// The locks of the transaction or script that it runs inside of.
    pub held: Option<&'c mut (dyn Segments + 'c)>,
    pub nesting: Nesting,
}

/// What data one of the server's own commands needs.
#[derive(Clone, Copy)]
pub enum Reach<'k> {
    Keys(&'k [&'k [u8]]),
    /// One segment after another.
    Walk,
    Everything,
}

impl Context<'_> {
    /// Runs `work` on the client's logical database: under the locks that are held already, inside of
    /// a transaction or script, else under its own. Whatever a command does with data goes through
    /// here, since a lock that is held cannot be taken again.
    pub fn with_data<R>(&mut self, reach: Reach<'_>, work: impl FnOnce(&mut Call<'_>) -> R) -> R {
        let database = self.database;
        let (_, settings) = database.settings();
        let mut scratch = std::mem::take(&mut self.worker.scratch);
        let Vectors { aftermath, ready, unit, .. } = &mut *scratch;
        let is_part = self.held.is_some();
        let mut hold = match &mut self.held {
            Some(held) => Hold::Lent(&mut **held),
            None => Hold::Own(match reach {
                Reach::Keys(keys) => database.keyspace.lock_keys(keys.iter().copied()),
                Reach::Walk => database.keyspace.lock(SegmentSet::default()),
                Reach::Everything => database.keyspace.lock_all(),
            }),
        };
        if let Reach::Everything = reach {
            hold.lock_rest();
        }
        let index = self.session.db.into();
        let mut db = dispatch::open(self.worker, database, &settings, index, hold, aftermath);
        if let Reach::Walk = reach {
            // It locks one segment after another.
            db.changes.watch_ahead(&database.waiters.interest);
        }
        db.no_touch = self.session.no_touch;
        let reply = self.reply.nested(self.session.protocol);
        let mut call = Call {
            args: self.args,
            db,
            reply,
            environment: &settings.environment,
            may_block: false,
            output_max: usize::MAX,
        };
        let result = work(&mut call);
        dispatch::hear(database, call.db.changes, ready);
        let mut logged = None;
        if call.db.changes.following {
            unit.departures(call.db.changes, settings.lazy_expire);
            if !is_part {
                unit.close();
                logged = dispatch::log_unit(database, unit);
            }
        }
        drop(call);
        self.session.note_logged(logged);
        let client = Some(&*self.session);
        dispatch::settle(self.worker, database, client, &mut scratch.aftermath);
        self.worker.scratch = scratch;
        result
    }

    /// Runs `work`, which may run commands of any kind, as one: under the locks that are held already,
    /// else under the token, which lets each lock be taken when it is first needed. `work` appends
    /// its reply to the buffer it is given.
    pub fn with_nest<R>(
        &mut self,
        nesting: Nesting,
        work: impl FnOnce(&mut Nest<'_>, &mut Vec<u8>) -> R,
    ) -> Result<R, CommandError> {
        let database = self.database;
        let (worker, session) = (&mut *self.worker, &mut *self.session);
        let out = self.reply.buffer();
        if let Some(held) = &mut self.held {
            return Ok(work(&mut Nest { worker, session, held: &mut **held, nesting }, out));
        }
        // A script may change the configuration only where DEBUG lets it: see `Server::changing`.
        let may_configure = database.scripting.denies_nothing.load(Ordering::Relaxed);
        let server = may_configure.then(|| Arc::clone(&worker.server));
        let _changing = server.as_ref().map(|server| server.changing.lock());
        let locked = database.keyspace.lock_lazily_unless_busy();
        let mut access = locked.map_err(|_| CommandError::text(database.scripting.busy_text()))?;
        let result = work(&mut Nest { worker, session, held: &mut access, nesting }, out);
        dispatch::log_nested(worker, session);
        drop(access);
        Ok(result)
    }

    /// Changes something that is no key but is kept as keys are, and logs that. Under the token, so that
    /// the change and its place in the log are on the same side of a snapshot's cut.
    pub fn with_log(
        &mut self,
        change: impl FnOnce(&mut Self, &Database) -> Result<(), CommandError>,
    ) -> Result<Effect, CommandError> {
        let database = self.database;
        let is_part = self.held.is_some();
        let busy = || CommandError::text(database.scripting.busy_text());
        let _token = match is_part {
            true => None,
            false => Some(database.keyspace.lock_lazily_unless_busy().map_err(|_| busy())?),
        };
        change(self, database)?;
        if database.log.is_followed() {
            self.worker.scratch.unit.verbatim(self.session.db.into(), self.args);
        }
        if !is_part {
            dispatch::log_nested(self.worker, self.session);
        }
        Ok(Effect::Verbatim)
    }
}

/// Every command of the server's own, by family.
pub const TABLES: &[&[ServerCommand]] = &[
    acl::TABLE,
    aof::TABLE,
    connection::TABLE,
    command::TABLE,
    commandlog::TABLE,
    config::TABLE,
    debug::TABLE,
    function::TABLE,
    info::TABLE,
    latency::TABLE,
    memory::TABLE,
    migrate::TABLE,
    monitor::TABLE,
    process::TABLE,
    pubsub::TABLE,
    replicaof::TABLE,
    replication::TABLE,
    save::TABLE,
    scripting::TABLE,
    slowlog::TABLE,
    time::TABLE,
    transaction::TABLE,
    wait::TABLE,
];

/// Commands on data that need what `carnelian-commands` does not know.
pub const DATA_TABLES: &[&[DataCommand]] = &[dump::TABLE];

/// What the entries of the tables have in common, for struct update syntax: a quick command of the
/// server's, without keys or tips, and in no category but those that its flags imply.
const fn command(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    flags: Flags,
    run: ServerRun,
) -> ServerCommand {
    ServerCommand {
        name,
        summary,
        since,
        group: Group::Server,
        complexity: "O(1)",
        arity,
        flags,
        categories: Categories::empty(),
        keys: &[],
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run,
    }
}

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

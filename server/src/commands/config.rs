//! CONFIG: the configuration as it stands, changes to it, and writing it back to its file.

use std::io;

use carnelian_commands::{CommandError, Effect, Flags};
use carnelian_config::{self as config, Directive, Extent, SetError};

use crate::commands::{Context, command, help, replicaof};
use crate::configure;
use crate::database::Database;
use crate::dispatch::LOADING;
use crate::eviction;
use crate::features;
use crate::listener::reason;
use crate::log;
use crate::rates::Turns;
use crate::registry::ServerCommand;
use crate::replication::gate;
use crate::server::Server;
use crate::settings;

const ADMIN: Flags = Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE);
const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    subcommands: &[
        ServerCommand {
            complexity: "O(N) in the number of directives",
            ..command("get", "Returns the values of directives.", "2.0.0", -3, ADMIN, get)
        },
        command(
            "help",
            "Lists the subcommands.",
            "5.0.0",
            2,
            Flags::LOADING.union(Flags::STALE),
            help,
        ),
        ServerCommand {
            tips: ALL_NODES,
            ..command("resetstat", "Sets statistics back to zero.", "2.0.0", 2, ADMIN, resetstat)
        },
        ServerCommand {
            complexity: "O(N) in the number of directives",
            tips: ALL_NODES,
            ..command(
                "rewrite",
                "Writes the configuration to the file it came from.",
                "2.8.0",
                2,
                ADMIN,
                rewrite,
            )
        },
        ServerCommand {
            complexity: "O(N) in the number of directives set",
            tips: ALL_NODES,
            ..command("set", "Sets directives: all of them or none.", "2.0.0", -4, ADMIN, set)
        },
    ],
    ..command("config", "Commands about the configuration.", "2.0.0", -2, Flags::empty(), help)
}];

/// `CONFIG GET parameter [parameter ...]`
fn get(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let found = context.database.config().get(&context.args[2..]);
    context.reply.map(found.len());
    for (name, value) in found {
        context.reply.bulk(&name);
        context.reply.bulk(&value);
    }
    Ok(Effect::None)
}

/// `CONFIG SET parameter value [parameter value ...]`
fn set(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let (pairs, rest) = context.args[2..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(CommandError::Syntax);
    }
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|&[name, value]| (name, value)).collect();
    let loopback = context.session.loopback;
    let waits = |name: &[u8]| LATER.iter().any(|later| name.eq_ignore_ascii_case(later));
    let database = &context.session.database;
    let gate = database.replication.gate() & (gate::LOADING | gate::LOADING_BESIDE);
    let is_loading = database.loading.is_on() || gate != 0;
    if is_loading && pairs.iter().any(|(name, _)| waits(name)) {
        return Err(CommandError::text(LOADING));
    }
    let is_nested = context.held.is_some();
    configure::change(&context.worker.server, &context.session.database, is_nested, |next| {
        let permission = next.permission(loopback);
        next.set(&pairs, permission)
    })
    .map_err(|error| refusal(&error, &pairs))?;
    if pairs.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"replicaof-node")) {
        replicaof::follow_configured(context)?;
    }
    let database = context.database;
    warn_of_small_limit(context, database, &pairs);
    // A lower limit holds from now on, whether or not there will be another command.
    context.worker.is_evicting = true;
    features::account_all(context.worker, database);
    context.reply.ok();
    Ok(Effect::None)
}

/// The reply to a change that was refused. A name that nobody knows is repeated byte for byte.
fn refusal(error: &SetError, pairs: &[(&[u8], &[u8])]) -> CommandError {
    let unknown = pairs.iter().find(|(name, _)| Directive::find(name).is_none());
    match (error, unknown) {
        (SetError::Unknown(_), Some((name, _))) => {
            let before = "ERR Unknown option or number of arguments for CONFIG SET - '";
            CommandError::quoting(before, name, "'")
        }
        _ => CommandError::text(format!("ERR {error}")),
    }
}

/// What is not changed while the data is being loaded.
const LATER: [&[u8]; 3] = [b"dir", b"appendonly", b"repl-diskless-load"];

/// Less than is in use: keys go, or commands that take memory are refused.
fn warn_of_small_limit(context: &Context<'_>, database: &Database, pairs: &[(&[u8], &[u8])]) {
    let limit = database.room.limit();
    let used = eviction::counted(&context.worker.server.reclaimer, database);
    let is_set = pairs.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"maxmemory"));
    if is_set && limit != 0 && limit < used {
        log::warning!(
            "WARNING: the new maxmemory value set via CONFIG SET ({limit}) is smaller than the \
             current memory usage ({used}). This will result in key eviction and/or the inability \
             to accept new write commands depending on the maxmemory-policy."
        );
    }
}

/// `CONFIG RESETSTAT`
fn resetstat(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = &context.session.database;
    database.stats.reset();
    database.snapshots.reset();
    database.aof.reset();
    database.rates.lock().reset();
    database.room.reset();
    database.scripting.reset();
    database.replication.primary.reset_figures();
    if database.is_first() {
        // These are the process's.
        context.worker.server.turns.iter().for_each(Turns::reset);
        context.worker.server.reclaimer.reset_freed();
    }
    context.reply.ok();
    Ok(Effect::None)
}

/// `CONFIG REWRITE`
fn rewrite(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    rewrite_file(&context.worker.server, &context.session.database, Extent::Changed)?;
    context.reply.ok();
    Ok(Effect::None)
}

/// Writes the configuration to its file.
pub(super) fn rewrite_file(
    server: &Server,
    database: &Database,
    extent: Extent,
) -> Result<(), CommandError> {
    if !database.is_first() {
        return Err(CommandError::text(
            "ERR This database has no config file: it is set where the database is defined",
        ));
    }
    let Some(path) = &server.identity.config_file else {
        return Err(CommandError::text("ERR The server is running without a config file"));
    };
    let write = || {
        let original = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let config = database.config();
        // Users of a file of their own have no lines here.
        let users = match settings::given(&config.aclfile) {
            Some(_) => Vec::new(),
            None => database.acl.list().iter().map(|user| user.words()).collect(),
        };
        let text = config::rewrite_with_users(&original, &config, extent, Some(&users));
        config::replace_file(path, &text)
    };
    // Not while the configuration changes: the file would say half of it.
    let _unchanged = server.changing.lock();
    write().map_err(|error| {
        let reason = reason(&error);
        log::warning!("CONFIG REWRITE failed: {reason}");
        CommandError::text(format!("ERR Rewriting config file: {reason}"))
    })?;
    log::notice!("CONFIG REWRITE executed with success.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use carnelian_config::Config;

    use crate::testing::Bench;

    #[test]
    fn pairs_are_set_together_or_not_at_all() {
        let bench = Bench::start(Config::default());
        let mut stream = bench.connect();
        bench.exchange(&mut stream, "CONFIG SET timeout 5 hz\r\n", "-ERR syntax error\r\n");
        bench.exchange(
            &mut stream,
            "CONFIG SET timeout 5 dir /\r\nCONFIG GET timeout\r\n",
            "-ERR CONFIG SET failed (possibly related to argument 'dir') - can't set protected \
             config\r\n*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n",
        );
        bench.exchange(
            &mut stream,
            "CONFIG REWRITE\r\n",
            "-ERR The server is running without a config file\r\n",
        );
    }

    #[test]
    fn a_change_holds_for_the_next_command_of_the_same_batch() {
        let bench = Bench::start(Config::default());
        bench.exchange(
            &mut bench.connect(),
            "CONFIG SET hash-max-listpack-entries 1\r\nHSET h a 1 b 2\r\nOBJECT ENCODING h\r\n",
            "+OK\r\n:2\r\n$9\r\nhashtable\r\n",
        );
    }

    #[test]
    fn statistics_are_reset() {
        let bench = Bench::start(Config::default());
        let mut stream = bench.connect();
        bench.exchange(&mut stream, "GET k\r\nCONFIG RESETSTAT\r\n", "$-1\r\n+OK\r\n");
        assert_eq!(bench.database.stats.sum(|counters| &counters.keyspace_misses), 0);
    }
}

//! REPLICAOF and SLAVEOF: whom the database follows.

use std::sync::Arc;

use carnelian_commands::{Categories, CommandError, Effect, Flags, args};

use crate::clients::bits;
use crate::commands::{Context, Reach, client_line, command};
use crate::configure;
use crate::dispatch::Nesting;
use crate::internode;
use crate::log;
use crate::registry::ServerCommand;
use crate::replication::replica::{self, Rules};

const fn entry(name: &'static str, since: &'static str) -> ServerCommand {
    ServerCommand {
        categories: Categories::empty(),
        ..command(
            name,
            "Has the database follow another server, or go on by itself.",
            since,
            3,
            Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            replicaof,
        )
    }
}

pub const TABLE: &[ServerCommand] = &[entry("replicaof", "5.0.0"), entry("slaveof", "1.0.0")];

/// `REPLICAOF host port | NO ONE`
fn replicaof(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = Arc::clone(&context.session.database);
    let server = Arc::clone(&context.worker.server);
    let (host, port) = (context.args[1], context.args[2]);
    if args::is(host, "NO") && args::is(port, "ONE") {
        follow_nobody(context)?;
        context.reply.ok();
        return Ok(Effect::None);
    }
    if context.session.shared.has(bits::REPLICA) {
        return Err(CommandError::text("ERR Command is not valid when client is a replica."));
    }
    let port = args::integer(port).ok().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| CommandError::text("ERR Invalid master port"))?;
    let host = String::from_utf8_lossy(host).into_owned();
    if let Some(following) = database.replication.following.load_full()
        && following.host.eq_ignore_ascii_case(&host)
        && following.port == port
        && following.target.is_none()
    {
        log::notice!(
            "REPLICAOF would result into synchronization with the master we are already connected \
             with. No operation performed."
        );
        context.reply.simple("OK Already connected to specified master");
        return Ok(Effect::None);
    }
    let rules = Rules::of(&database);
    let primary = carnelian_config::Primary { host: host.clone(), port };
    let following = context
        .with_data(Reach::Everything, |_| replica::follow(&database, host.clone(), port, rules));
    note(context, Some(primary))?;
    replica::begin(&server, &database, &following);
    let line = line(context);
    log::notice!("REPLICAOF {host}:{port} enabled (user request from '{line}')");
    context.reply.ok();
    Ok(Effect::None)
}

fn follow_nobody(context: &mut Context<'_>) -> Result<(), CommandError> {
    let database = Arc::clone(&context.session.database);
    let server = Arc::clone(&context.worker.server);
    let was_replica = context.with_data(Reach::Everything, |_| replica::promote(&database));
    if was_replica {
        replica::restart_file(&server, &database, context.nesting != Nesting::Nothing);
        note(context, None)?;
        server.oom_score.heed(&server.config(), false);
        let line = line(context);
        log::notice!("MASTER MODE enabled (user request from '{line}')");
    }
    Ok(())
}

/// Follows the node that `replicaof-node` names now, or none any longer.
pub(super) fn follow_configured(context: &mut Context<'_>) -> Result<(), CommandError> {
    let database = Arc::clone(&context.session.database);
    let server = Arc::clone(&context.worker.server);
    // What is configured has been checked.
    let target = internode::configured(&server.config()).ok().flatten();
    let before = database.replication.following.load_full().and_then(|it| it.target.clone());
    if target == before {
        return Ok(());
    }
    let Some(target) = target else { return follow_nobody(context) };
    let rules = Rules::of(&database);
    let following = context
        .with_data(Reach::Everything, |_| replica::follow_node(&database, target.clone(), rules));
    replica::begin(&server, &database, &following);
    let line = line(context);
    log::notice!("REPLICAOF {target} enabled (user request from '{line}')");
    Ok(())
}

/// CONFIG GET and REWRITE know it too.
fn note(
    context: &Context<'_>,
    primary: Option<carnelian_config::Primary>,
) -> Result<(), CommandError> {
    let (server, database) = (&context.worker.server, &context.session.database);
    let is_nested = context.nesting != Nesting::Nothing;
    configure::change(server, database, is_nested, |config| {
        config.replicaof = primary;
        config.replicaof_node = Vec::new();
        Ok(Vec::new())
    })
    .map_err(|error| CommandError::text(format!("ERR {error}")))
}

fn line(context: &Context<'_>) -> String {
    let (shared, registry) = (&context.session.shared, context.registry);
    let line = client_line(shared, registry, context.worker.clock.now_ms());
    String::from_utf8_lossy(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use carnelian_config::Config;

    use crate::testing::Bench;

    #[test]
    fn a_replica_takes_no_writes_until_it_goes_on_by_itself() {
        let bench = Bench::start(Config::default());
        let mut stream = bench.connect();
        let error = "-READONLY You can't write against a read only replica.\r\n";
        for (request, reply) in [
            ("SET a 1\r\n", "+OK\r\n"),
            ("REPLICAOF localhost 99999\r\n", "-ERR Invalid master port\r\n"),
            ("SLAVEOF 127.0.0.1 1\r\nSET a 2\r\nGET a\r\n", "+OK\r\n"),
            ("", error),
            ("", "$1\r\n1\r\n"),
            ("REPLICAOF 127.0.0.1 1\r\n", "+OK Already connected to specified master\r\n"),
            ("EVAL \"return redis.call('set','a','3')\" 0\r\n", ""),
        ] {
            bench.exchange(&mut stream, request, reply);
        }
        let mut stream = bench.connect();
        for (request, reply) in [
            ("MULTI\r\nSET a 2\r\nEXEC\r\n", "+OK\r\n"),
            ("", error),
            ("", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
            ("CONFIG SET replica-serve-stale-data no\r\nGET a\r\nPING\r\n", "+OK\r\n"),
            (
                "",
                "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to \
                 'no'.\r\n",
            ),
            ("", "-MASTERDOWN"),
        ] {
            bench.exchange(&mut stream, request, reply);
        }
        let mut stream = bench.connect();
        bench.exchange(
            &mut stream,
            "MULTI\r\nREPLICAOF NO ONE\r\nSET a 2\r\nEXEC\r\nGET a\r\n",
            "+OK\r\n+QUEUED\r\n-READONLY You can't write against a read only replica.\r\n-EXECABORT \
             Transaction discarded because of previous errors.\r\n-MASTERDOWN",
        );
        let mut stream = bench.connect();
        bench.exchange(
            &mut stream,
            "MULTI\r\nREPLICAOF NO ONE\r\nEXEC\r\nSET a 2\r\nGET a\r\n",
            "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n+OK\r\n$1\r\n2\r\n",
        );
    }
}

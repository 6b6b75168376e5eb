//! Commands about the connection itself: who it is, what it speaks, which database it uses.

mod client;
mod filter;
mod list;
mod tracking;

use std::sync::atomic::Ordering;

pub(crate) use list::line as client_line;

use carnelian_commands::{Categories, CommandError, Effect, Flags, Group, args};
use carnelian_resp::Protocol;

use crate::clients::bits;
use crate::commands::{self, Context, acl};
use crate::registry::{ServerCommand, ServerRun};
use crate::session::ReplyMode;
use crate::tasks::REDIS_VERSION;

/// Allowed before AUTH, and while nothing else is.
const ALWAYS: Flags = Flags::ALLOW_BUSY
    .union(Flags::FAST)
    .union(Flags::LOADING)
    .union(Flags::NO_AUTH)
    .union(Flags::NOSCRIPT)
    .union(Flags::STALE);

/// A command of this family: no keys, and the family's category.
const fn command(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    flags: Flags,
    run: ServerRun,
) -> ServerCommand {
    ServerCommand {
        group: Group::Connection,
        categories: Categories::CONNECTION,
        ..commands::command(name, summary, since, arity, flags, run)
    }
}

pub const TABLE: &[ServerCommand] = &[
    command("auth", "Tells who the client is.", "1.0.0", -2, ALWAYS, auth),
    client::CLIENT,
    command(
        "echo",
        "Answers with the message it was given.",
        "1.0.0",
        2,
        Flags::FAST.union(Flags::LOADING).union(Flags::STALE),
        echo,
    ),
    command(
        "hello",
        "Chooses the protocol, and may tell who the client is.",
        "6.0.0",
        -1,
        ALWAYS,
        hello,
    ),
    ServerCommand {
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        ..command(
            "ping",
            "Answers PONG, or the message it was given.",
            "1.0.0",
            -1,
            Flags::FAST,
            ping,
        )
    },
    command("quit", "Ends the connection.", "1.0.0", -1, ALWAYS, quit),
    command("reset", "Makes the connection as good as new.", "6.2.0", 1, ALWAYS, reset),
    command(
        "select",
        "Changes the logical database of the connection.",
        "1.0.0",
        2,
        Flags::FAST.union(Flags::LOADING).union(Flags::STALE),
        select,
    ),
];

/// `PING [message]`
fn ping(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    // What a subscriber gets over RESP2 always looks like a message.
    let is_message = context.session.is_subscribed() && context.session.protocol == Protocol::Resp2;
    match context.args {
        [_] | [_, _] if is_message => {
            context.reply.array(2);
            context.reply.bulk(b"pong");
            context.reply.bulk(context.args.get(1).copied().unwrap_or_default());
        }
        [_] => context.reply.simple("PONG"),
        [_, message] => context.reply.bulk(message),
        _ => return Err(CommandError::Arity("ping".into())),
    }
    Ok(Effect::None)
}

/// `ECHO message`
fn echo(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.bulk(context.args[1]);
    Ok(Effect::None)
}

/// `SELECT index`
fn select(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let index = args::int(context.args[1])?;
    let databases = context.session.database.keyspace.databases();
    match u16::try_from(index) {
        Ok(index) if usize::from(index) < databases => context.session.db = index,
        _ => return Err(CommandError::DbOutOfRange),
    }
    context.reply.ok();
    Ok(Effect::None)
}

/// `QUIT`
fn quit(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.session.close_after_reply = true;
    context.reply.ok();
    Ok(Effect::None)
}

/// `RESET`
fn reset(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let session = &mut *context.session;
    session.drop_subscriptions();
    session.discard();
    session.db = 0;
    session.protocol = Protocol::Resp2;
    session.reply = ReplyMode::On;
    session.no_touch = false;
    session.debugging = None;
    session.log_out();
    let (shared, database) = (&session.shared, &session.database);
    shared.protocol.store(Protocol::Resp2.version(), Ordering::Relaxed);
    database.tracking.turn_off(database, shared);
    if shared.has(bits::MONITOR) {
        database.monitors.remove(shared.id, &database.attention);
    }
    shared.set_flag(bits::NO_TOUCH | bits::NO_EVICT | bits::MONITOR, false);
    (session.tracks, session.caching) = (false, false);
    session.shared.names.lock().name = Box::default();
    context.reply.set_protocol(Protocol::Resp2);
    context.reply.simple("RESET");
    Ok(Effect::None)
}

/// `AUTH [username] password`
fn auth(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let (user, password) = match context.args {
        [_, password] => {
            if context.session.database.acl.default_user().any_password {
                return Err(CommandError::text(
                    "ERR AUTH <password> called without any password configured for the default \
                     user. Are you sure your configuration is correct?",
                ));
            }
            (b"default".as_slice(), *password)
        }
        [_, user, password] => (*user, *password),
        _ => return Err(CommandError::Syntax),
    };
    authenticate(context, user, password)?;
    context.reply.ok();
    Ok(Effect::None)
}

fn authenticate(
    context: &mut Context<'_>,
    user: &[u8],
    password: &[u8],
) -> Result<(), CommandError> {
    let Some(known) = context.session.database.acl.authenticate(user, password) else {
        acl::report_wrong_password(context, user);
        return Err(CommandError::text(
            "WRONGPASS invalid username-password pair or user is disabled.",
        ));
    };
    context.session.log_in(known);
    Ok(())
}

/// `HELLO [protover [AUTH username password] [SETNAME name]]`
fn hello(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let mut protocol = None;
    if let Some(version) = context.args.get(1) {
        let version = carnelian_resp::number::parse_i64(version).ok_or_else(|| {
            CommandError::text("ERR Protocol version is not an integer or out of range")
        })?;
        protocol = Some(
            Protocol::from_version(version)
                .filter(|version| *version != Protocol::Resp3 || allows_resp3(context))
                .ok_or_else(|| CommandError::text("NOPROTO unsupported protocol version"))?,
        );
    }
    let mut name = None;
    let mut credentials = None;
    let mut words = context.args.iter().skip(2);
    while let Some(word) = words.next() {
        if args::is(word, "AUTH")
            && let (Some(user), Some(password)) = (words.next(), words.next())
        {
            credentials = Some((*user, *password));
        } else if args::is(word, "SETNAME")
            && let Some(wanted) = words.next()
        {
            name = Some(client::valid_name(wanted)?);
        } else {
            let before = "ERR Syntax error in HELLO option '";
            return Err(CommandError::quoting(before, word, "'"));
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(context, user, password)?;
    }
    if !context.session.authenticated {
        return Err(CommandError::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        context.session.shared.names.lock().name = name;
    }
    if let Some(protocol) = protocol {
        context.session.protocol = protocol;
        context.session.shared.protocol.store(protocol.version(), Ordering::Relaxed);
        context.reply.set_protocol(protocol);
    }
    describe(context);
    Ok(Effect::None)
}

/// The cluster can keep a database to RESP2.
fn allows_resp3(context: &Context<'_>) -> bool {
    let spec = context.session.database.spec.load();
    spec.as_ref().is_none_or(|spec| spec.resp3)
}

fn describe(context: &mut Context<'_>) {
    let Context { session, reply, .. } = context;
    let config = session.database.config();
    let zone = &config.availability_zone;
    reply.map(7 + usize::from(!zone.is_empty()));
    // What clients switch features on by, with the level of the commands on offer.
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(i64::from(session.protocol.version()));
    reply.bulk(b"id");
    reply.integer(session.shared.id as i64);
    let role = if session.database.replication.is_replica() { "replica" } else { "master" };
    for (field, value) in [("mode", "standalone"), ("role", role)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    if !zone.is_empty() {
        reply.bulk(b"availability_zone");
        reply.bulk(zone.as_bytes());
    }
}
